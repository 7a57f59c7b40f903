//! What services and a device had with each other: reads and writes of its twin, notes that it heard, methods that it was
//! asked, messages that it was sent.
//!
//! Plain data, written to `exchanges.jsonl`; judged by [`crate::invariants::twins`], [`crate::invariants::messages`] and
//! [`crate::invariants::methods`].
//! What was refused before it was tried is no exchange.

use serde::{Deserialize, Serialize};

use super::operation::Outcome;

/// A part of a twin that has a version of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Section {
    /// Services write it.
    Desired,
    /// The device writes it.
    Reported,
}

/// What was asked of a section. Each write says something that no other does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Call {
    /// Read it.
    Read,
    /// Change it, whatever it is.
    Write {
        /// What it is to hold.
        value: String,
    },
    /// Change it, if the twin still has this ETag.
    Swap {
        /// The ETag.
        etag: String,
        /// What it is to hold.
        value: String,
    },
}

/// What was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// It holds this.
    Seen {
        /// Empty for one that nobody has written to.
        value: String,
        /// Its `$version`.
        version: u64,
        /// The twin's ETag, where it was told.
        etag: Option<String>,
    },
    /// It is written.
    Done {
        /// The version that this made, where it was told.
        version: Option<u64>,
    },
    /// It has another ETag.
    Mismatch,
    /// Nobody knows.
    Unknown,
}

/// A read or a write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Access {
    /// Whose twin.
    pub device: String,
    /// What of it.
    pub section: Section,
    /// What was asked.
    pub call: Call,
    /// When it was asked.
    pub invoked_us: u64,
    /// When the answer came, or was given up.
    pub completed_us: u64,
    /// What was answered.
    pub answer: Answer,
}

/// What a device heard of what is desired of it, in the order in which it did.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Note {
    /// Which device.
    pub device: String,
    /// On which of its connections, from 1.
    pub connection: u64,
    /// The version of what is desired.
    pub version: u64,
    /// What is desired.
    pub value: String,
    /// Whether it had asked.
    pub asked: bool,
}

/// A method call, as its caller sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MethodCall {
    /// Who was asked.
    pub device: String,
    /// Names this call, and no other; it is its payload.
    pub id: String,
    /// When it was asked.
    pub invoked_us: u64,
    /// When the answer came, or was given up.
    pub completed_us: u64,
    /// `ok` answered by the device, `fail` certainly not asked, `unknown` everything else.
    pub outcome: Outcome,
    /// What was answered: the call's own id if all is well. Or why there is no answer.
    pub answer: String,
}

/// A method call, as the device hears it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execution {
    /// Which device.
    pub device: String,
    /// Names the call.
    pub id: String,
}

/// A cloud-to-device message, as its sender sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sending {
    /// To whom.
    pub device: String,
    /// Names this message, and no other; it is its payload.
    pub id: String,
    /// When it was sent.
    pub invoked_us: u64,
    /// When the answer came, or was given up.
    pub completed_us: u64,
    /// `ok` queued, `fail` certainly not, `unknown` everything else.
    pub outcome: Outcome,
}

/// A cloud-to-device message, as the device receives it, in the order in which it does. It acknowledges each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Which device.
    pub device: String,
    /// On which of its connections, from 1.
    pub connection: u64,
    /// Names the message.
    pub id: String,
    /// Whether the hub says that it was sent before.
    pub dup: bool,
}

/// What was left of a device's messages when nobody sent any more.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leftover {
    /// Which device.
    pub device: String,
    /// Messages that still waited.
    pub waiting: u64,
}

/// Any of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Exchange {
    /// A read or a write of a twin.
    Access(Access),
    /// A note that a device heard.
    Note(Note),
    /// A method that a service called.
    Call(MethodCall),
    /// A method that a device carried out.
    Execution(Execution),
    /// A message that a service sent.
    Sending(Sending),
    /// A message that a device received.
    Receipt(Receipt),
    /// What was left at the end.
    Leftover(Leftover),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let access = |call, answer| {
            Exchange::Access(Access {
                device: "d".into(),
                section: Section::Reported,
                call,
                invoked_us: 1,
                completed_us: 2,
                answer,
            })
        };
        let value = || "v".to_owned();
        let etag = || "e".to_owned();
        for exchange in [
            access(
                Call::Read,
                Answer::Seen {
                    value: value(),
                    version: 3,
                    etag: Some(etag()),
                },
            ),
            access(Call::Write { value: value() }, Answer::Done { version: Some(4) }),
            access(
                Call::Swap {
                    etag: etag(),
                    value: value(),
                },
                Answer::Mismatch,
            ),
            access(Call::Read, Answer::Unknown),
            Exchange::Note(Note {
                device: "d".into(),
                connection: 1,
                version: 2,
                value: value(),
                asked: true,
            }),
            Exchange::Call(MethodCall {
                device: "d".into(),
                id: "1".into(),
                invoked_us: 1,
                completed_us: 2,
                outcome: Outcome::Ok,
                answer: "1".into(),
            }),
            Exchange::Execution(Execution {
                device: "d".into(),
                id: "1".into(),
            }),
            Exchange::Sending(Sending {
                device: "d".into(),
                id: "1".into(),
                invoked_us: 1,
                completed_us: 2,
                outcome: Outcome::Unknown,
            }),
            Exchange::Receipt(Receipt {
                device: "d".into(),
                connection: 1,
                id: "1".into(),
                dup: true,
            }),
            Exchange::Leftover(Leftover {
                device: "d".into(),
                waiting: 0,
            }),
        ] {
            let line = serde_json::to_string(&exchange).unwrap();
            assert_eq!(
                serde_json::from_str::<Exchange>(&line).unwrap(),
                exchange,
                "{line}"
            );
        }
    }
}
