//! What was done with messages that a device fetches one by one and settles, and what services were told of how they
//! ended.
//!
//! Plain data, written to `messages.jsonl`; judged by [`crate::invariants::settlements`] and
//! [`crate::invariants::feedback`]. What was refused before it was tried is not here.

use dunlin_model::messages::{AckWanted, MessageEnd, Settlement};
use serde::{Deserialize, Serialize};

use super::operation::Outcome;

/// A message, as its sender sees it. Each has a time at which it is over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sent {
    /// To whom.
    pub device: String,
    /// Names this message of the device, and no other; it is its payload, too.
    pub id: String,
    /// Which ends of it are to be told.
    pub ack: AckWanted,
    /// When its time is over, as the hub was told: UTC, in a form that sorts.
    pub expires: String,
    /// The same on the clock of the run.
    pub expires_us: u64,
    /// When it was sent.
    pub invoked_us: u64,
    /// When the answer came, or was given up.
    pub completed_us: u64,
    /// `ok` queued, `fail` certainly not, `unknown` everything else.
    pub outcome: Outcome,
    /// Its number in the device's queue, if it was told.
    pub number: Option<u64>,
}

/// A message that was handed to a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handed {
    /// What the sender calls it; empty where properties and payload do not agree.
    pub id: String,
    /// Its number in the device's queue.
    pub number: u64,
    /// Times that it was given before.
    pub count: u32,
    /// What settles it.
    pub lock: String,
}

/// What a device that asked for a message was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Found {
    /// This one.
    Message(Handed),
    /// There is none for it.
    Nothing,
    /// Nobody knows. One may be locked, and count as given.
    Unknown,
}

/// A device asks for a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetch {
    /// Which device.
    pub device: String,
    /// Seconds for which the message is to be its own.
    pub lock_s: u64,
    /// When it asked.
    pub invoked_us: u64,
    /// When the answer came, or was given up.
    pub completed_us: u64,
    /// What was answered.
    pub found: Found,
}

/// A device settles a message that it was handed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settling {
    /// Which device.
    pub device: String,
    /// What it was handed the message with.
    pub lock: String,
    /// What is to become of the message.
    pub deed: Settlement,
    /// When it was asked.
    pub invoked_us: u64,
    /// When the answer came, or was given up.
    pub completed_us: u64,
    /// `ok` done, `fail` refused to who does not hold the message, `unknown` everything else.
    pub outcome: Outcome,
}

/// How one message ended, as a service was told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// Whose message it was.
    pub device: String,
    /// What its sender calls it.
    pub id: String,
    /// How it ended; nothing for a word that nobody knows.
    pub end: Option<MessageEnd>,
    /// When it ended: UTC, in a form that sorts.
    pub ended: String,
}

/// What a service that asked for feedback was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Batch {
    /// These, and what settles them.
    Records {
        /// The lock.
        lock: String,
        /// What is told.
        records: Vec<Told>,
    },
    /// No shard has any.
    Nothing,
    /// Nobody knows. Some may be locked.
    Unknown,
}

/// A service asks for feedback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Take {
    /// When it asked.
    pub invoked_us: u64,
    /// When the answer came, or was given up.
    pub completed_us: u64,
    /// What was answered.
    pub batch: Batch,
}

/// A service settles feedback.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BatchSettling {
    /// What it was given it with.
    pub lock: String,
    /// Whether it is done with; otherwise it is to be given again.
    pub completes: bool,
    /// When it was asked.
    pub invoked_us: u64,
    /// When the answer came, or was given up.
    pub completed_us: u64,
    /// `ok` done, `fail` refused to who does not hold it, `unknown` everything else.
    pub outcome: Outcome,
}

/// A dead letter.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Letter {
    /// What its sender calls it.
    pub id: String,
    /// Why it is one; nothing for a word that nobody knows.
    pub reason: Option<MessageEnd>,
    /// When it became one: UTC, in a form that sorts.
    pub dead: String,
    /// Times that it was given.
    pub count: u32,
}

/// What is left of a device's messages in the end, when nobody sends or fetches any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Which device.
    pub device: String,
    /// Messages that wait.
    pub waiting: u64,
    /// Its dead letters, read after that.
    pub letters: Vec<Letter>,
    /// When it was begun to look.
    pub invoked_us: u64,
    /// When that was known.
    pub completed_us: u64,
}

/// Any of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Handling {
    /// A message was sent.
    Sent(Sent),
    /// A device asked for one.
    Fetched(Fetch),
    /// A device settled one.
    Settled(Settling),
    /// A service asked for feedback.
    Taken(Take),
    /// A service settled feedback.
    BatchSettled(BatchSettling),
    /// What is left.
    Left(Account),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let text = || "t".to_owned();
        let fetch = |found| {
            Handling::Fetched(Fetch {
                device: text(),
                lock_s: 5,
                invoked_us: 1,
                completed_us: 2,
                found,
            })
        };
        let take = |batch| {
            Handling::Taken(Take {
                invoked_us: 1,
                completed_us: 2,
                batch,
            })
        };
        let told = Told {
            device: text(),
            id: text(),
            end: Some(MessageEnd::DeliveryCountExceeded),
            ended: text(),
        };
        for handling in [
            Handling::Sent(Sent {
                device: text(),
                id: text(),
                ack: AckWanted::Negative,
                expires: text(),
                expires_us: 3,
                invoked_us: 1,
                completed_us: 2,
                outcome: Outcome::Ok,
                number: Some(7),
            }),
            fetch(Found::Message(Handed {
                id: text(),
                number: 7,
                count: 1,
                lock: text(),
            })),
            fetch(Found::Nothing),
            fetch(Found::Unknown),
            Handling::Settled(Settling {
                device: text(),
                lock: text(),
                deed: Settlement::Abandon,
                invoked_us: 1,
                completed_us: 2,
                outcome: Outcome::Fail,
            }),
            take(Batch::Records {
                lock: text(),
                records: vec![told],
            }),
            take(Batch::Nothing),
            take(Batch::Unknown),
            Handling::BatchSettled(BatchSettling {
                lock: text(),
                completes: false,
                invoked_us: 1,
                completed_us: 2,
                outcome: Outcome::Unknown,
            }),
            Handling::Left(Account {
                device: text(),
                waiting: 1,
                letters: vec![Letter {
                    id: text(),
                    reason: None,
                    dead: text(),
                    count: 10,
                }],
                invoked_us: 1,
                completed_us: 2,
            }),
        ] {
            let line = serde_json::to_string(&handling).unwrap();
            assert_eq!(
                serde_json::from_str::<Handling>(&line).unwrap(),
                handling,
                "{line}"
            );
        }
    }
}
