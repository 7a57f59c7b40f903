//! What a reader was shown of a range of past events.
//!
//! Plain data, written to `ranges.jsonl`; judged by [`crate::invariants::ranges`]. Reads without an answer are no ranges.

use serde::{Deserialize, Serialize};

/// Where a range begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum From {
    /// At an offset.
    Offset(u64),
    /// At the first event that was stored at that time or later, in milliseconds since 1970.
    TimeMs(u64),
}

/// An event of a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u64, u64, u64)", into = "(u64, u64, u64)")]
pub struct Shown {
    /// Its offset.
    pub offset: u64,
    /// When it was stored, as the hub says.
    pub time_ms: u64,
    /// [`crate::oracle::digest`] of its body.
    pub digest: u64,
}

impl std::convert::From<(u64, u64, u64)> for Shown {
    fn from((offset, time_ms, digest): (u64, u64, u64)) -> Self {
        Self {
            offset,
            time_ms,
            digest,
        }
    }
}

impl std::convert::From<Shown> for (u64, u64, u64) {
    fn from(shown: Shown) -> Self {
        (shown.offset, shown.time_ms, shown.digest)
    }
}

/// A read that was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// The shard.
    pub shard: u32,
    /// What was asked for.
    pub from: From,
    /// When it was asked.
    pub invoked_us: u64,
    /// When the answer came.
    pub completed_us: u64,
    /// The events, those of devices with a history alone.
    pub events: Vec<Shown>,
    /// Where the answer says that one reads on.
    pub next: u64,
    /// The offset behind the last event, as the answer says.
    pub end: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for from in [From::Offset(3), From::TimeMs(4)] {
            let range = Range {
                shard: 1,
                from,
                invoked_us: 5,
                completed_us: 6,
                events: vec![(7, 8, 9).into()],
                next: 10,
                end: 11,
            };
            let line = serde_json::to_string(&range).unwrap();
            assert!(line.contains("[[7,8,9]]"), "{line}");
            assert_eq!(serde_json::from_str::<Range>(&line).unwrap(), range, "{line}");
        }
    }
}
