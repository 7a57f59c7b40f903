//! What devices sent that were erased, and what services were shown of it afterwards.
//!
//! Plain data, written to `erasing.jsonl`; judged by [`crate::invariants::erasing`]. Lines of one device are in the order
//! in which things happened, but for what it sends while it is being erased.

use serde::{Deserialize, Serialize};

use super::operation::Outcome;

/// A message that was stored, or may have been; one attempt each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// Who sent it.
    pub device: String,
    /// Its number in the device's history.
    pub seq: u32,
    /// The device's shard.
    pub shard: u32,
    /// Where its receipt says that it stands; none if it was not answered.
    pub offset: Option<u64>,
}

/// A service has a device erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erasure {
    /// Whom.
    pub device: String,
    /// The node that was asked, from 0.
    pub node: usize,
    /// When it was asked.
    pub invoked_us: u64,
    /// When the answer came, or was given up.
    pub completed_us: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Where the answer says that the device's events end.
    pub upto: Option<u64>,
}

/// A service looks for a device that was erased.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// Whom.
    pub device: String,
    /// The node that was asked, from 0.
    pub node: usize,
    /// When it began.
    pub invoked_us: u64,
    /// Whether the device is in the registry, if that was answered.
    pub is_there: Option<bool>,
    /// Offsets of its events, as far as pages of its shard were answered.
    pub shown: Vec<u64>,
}

/// Any of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Trace {
    /// A message.
    Sent(Sent),
    /// An erasure.
    Erasure(Erasure),
    /// A look.
    Look(Look),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let device = || "d".to_owned();
        let sent = |offset| {
            Trace::Sent(Sent {
                device: device(),
                seq: 1,
                shard: 2,
                offset,
            })
        };
        for trace in [
            sent(Some(3)),
            sent(None),
            Trace::Erasure(Erasure {
                device: device(),
                node: 1,
                invoked_us: 2,
                completed_us: 3,
                outcome: Outcome::Ok,
                upto: Some(4),
            }),
            Trace::Look(Look {
                device: device(),
                node: 1,
                invoked_us: 5,
                is_there: Some(false),
                shown: vec![6],
            }),
        ] {
            let line = serde_json::to_string(&trace).unwrap();
            assert_eq!(serde_json::from_str::<Trace>(&line).unwrap(), trace, "{line}");
        }
    }
}
