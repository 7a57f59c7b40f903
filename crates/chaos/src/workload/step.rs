//! What members of a consumer group did and were told: shares, places, events, commits; and what others were told of the
//! group.
//!
//! Plain data, written to `readers.jsonl`; judged by [`crate::invariants::groups`]. Lines of one member are in the order in
//! which it did things. A member that comes back without its id is another one.

use serde::{Deserialize, Serialize};

use super::operation::Outcome;

/// What a member was given to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// Which member.
    pub member: String,
    /// The generation.
    pub generation: i32,
    /// The partitions.
    pub partitions: Vec<u32>,
    /// When.
    pub us: u64,
}

/// What somebody was told that a group has committed of a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Which.
    pub partition: u32,
    /// The offset, if there is one.
    pub committed: Option<u64>,
    /// When it was asked.
    pub invoked_us: u64,
    /// When the answer came.
    pub completed_us: u64,
    /// Who takes the partition up with that, if it is a member.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub taken_up: Option<TakenUp>,
}

/// A member that begins to read a partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenUp {
    /// Which.
    pub member: String,
    /// Its generation.
    pub generation: i32,
    /// The offset that it begins at.
    pub start: u64,
}

/// Events of one partition that a member read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poll {
    /// Which member.
    pub member: String,
    /// The partition.
    pub partition: u32,
    /// The offset that it asked for.
    pub from: u64,
    /// Runs of neighbouring offsets as they came, each with the offset behind it.
    pub runs: Vec<(u64, u64)>,
    /// Whether it was told instead that there is no such place.
    #[serde(default, skip_serializing_if = "is_not")]
    pub is_gone: bool,
}

/// A commit of one partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Commit {
    /// Who commits.
    pub member: String,
    /// Its generation.
    pub generation: i32,
    /// The partition.
    pub partition: u32,
    /// The offset that is read next.
    pub offset: u64,
    /// When it was asked.
    pub invoked_us: u64,
    /// When the answer came, or was given up.
    pub completed_us: u64,
    /// `ok` acknowledged, `fail` refused for who it is from, `unknown` everything else.
    pub outcome: Outcome,
}

/// How a member goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Departure {
    /// It says so, and commits nothing.
    Leave,
    /// Its connection ends where it would have committed.
    CrashBeforeCommit,
    /// Its connection ends while it commits.
    CrashAmidCommit,
    /// Its connection ends as soon as it has committed.
    CrashAfterCommit,
    /// The group does not know it any more.
    Forgotten,
}

/// A member that went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Left {
    /// Which.
    pub member: String,
    /// How.
    pub how: Departure,
    /// When.
    pub us: u64,
}

/// Any of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Step {
    /// A member was given its share.
    Share(Share),
    /// Somebody was told how far the group is.
    Told(Told),
    /// A member read.
    Poll(Poll),
    /// A member committed.
    Commit(Commit),
    /// A member went.
    Left(Left),
}

fn is_not(flag: &bool) -> bool {
    !flag
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let member = || "0-1".to_owned();
        for step in [
            Step::Share(Share {
                member: member(),
                generation: 1,
                partitions: vec![0, 2],
                us: 1,
            }),
            Step::Told(Told {
                partition: 2,
                committed: None,
                invoked_us: 1,
                completed_us: 2,
                taken_up: Some(TakenUp {
                    member: member(),
                    generation: 1,
                    start: 0,
                }),
            }),
            Step::Poll(Poll {
                member: member(),
                partition: 2,
                from: 0,
                runs: vec![(0, 7)],
                is_gone: false,
            }),
            Step::Commit(Commit {
                member: member(),
                generation: 1,
                partition: 2,
                offset: 7,
                invoked_us: 3,
                completed_us: 4,
                outcome: Outcome::Unknown,
            }),
            Step::Left(Left {
                member: member(),
                how: Departure::CrashAmidCommit,
                us: 5,
            }),
        ] {
            let line = serde_json::to_string(&step).unwrap();
            assert_eq!(serde_json::from_str::<Step>(&line).unwrap(), step, "{line}");
        }
    }
}
