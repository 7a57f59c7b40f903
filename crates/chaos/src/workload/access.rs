//! A read or a write of a device's registration by one of several services that write the same ones.
//!
//! Plain data, written to `accesses.jsonl`; judged by [`crate::invariants::registrations`]. What was refused
//! before it was tried is no access.

use rand::RngExt as _;
use rand::rngs::StdRng;
use serde::{Deserialize, Serialize};

/// What was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    /// Read it.
    Read,
    /// Make it, if there is none.
    Create {
        /// What it is to hold.
        value: String,
    },
    /// Change it, whatever it is.
    Replace {
        /// What it is to hold.
        value: String,
    },
    /// Change it, if it still has this ETag.
    Swap {
        /// The ETag.
        etag: String,
        /// What it is to hold.
        value: String,
    },
    /// Delete it, whatever it is.
    Delete,
}

impl Call {
    /// What a service asks next, that saw `etag` last: mostly reads, and changes of what it saw.
    pub fn draw(random: &mut StdRng, etag: Option<&str>, value: String) -> Call {
        match (random.random_range(0..100), etag) {
            (0..35, _) => Call::Read,
            (35..75, Some(etag)) => Call::Swap {
                etag: etag.to_owned(),
                value,
            },
            (35..85, _) => Call::Create { value },
            (85..95, _) => Call::Replace { value },
            _ => Call::Delete,
        }
    }
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It is there: read, or written just now.
    There {
        /// What it holds.
        value: String,
        /// Its ETag.
        etag: String,
    },
    /// It is deleted.
    Deleted,
    /// There is none.
    Missing,
    /// There is one already.
    Exists,
    /// It has another ETag.
    Mismatch,
    /// Nobody knows.
    Unknown,
}

/// One access.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// The device.
    pub device: String,
    /// Who asked, from 0.
    pub writer: usize,
    /// What.
    pub call: Call,
    /// The node that was asked, from 0.
    pub node: usize,
    /// When it was asked.
    pub invoked_us: u64,
    /// When the answer came, or was given up.
    pub completed_us: u64,
    /// What was answered.
    pub answer: Answer,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let etag = || "Mg==".to_owned();
        let calls = [
            Call::Read,
            Call::Create { value: "a".into() },
            Call::Replace { value: "b".into() },
            Call::Swap {
                etag: etag(),
                value: "c".into(),
            },
            Call::Delete,
        ];
        let answers = [
            Answer::There {
                value: "a".into(),
                etag: etag(),
            },
            Answer::Deleted,
            Answer::Missing,
            Answer::Exists,
            Answer::Mismatch,
            Answer::Unknown,
        ];
        for (call, answer) in calls
            .iter()
            .flat_map(|call| answers.iter().map(move |answer| (call, answer)))
        {
            let access = Access {
                device: "d".into(),
                writer: 1,
                call: call.clone(),
                node: 2,
                invoked_us: 3,
                completed_us: 4,
                answer: answer.clone(),
            };
            let line = serde_json::to_string(&access).unwrap();
            assert_eq!(serde_json::from_str::<Access>(&line).unwrap(), access, "{line}");
        }
    }
}
