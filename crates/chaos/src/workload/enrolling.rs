//! What services did with enrolments, and what devices that registered under them were told and could do.
//!
//! Plain data, written to `provisioning.jsonl`; judged by [`crate::invariants::provisioning`]. A service changes an
//! enrolment only when everything that was asked under it has its answer, so lines of one enrolment are in the order in
//! which things happened. Its keys are numbered; a device of a group shows one that is derived from the group's key of
//! that number.

use serde::{Deserialize, Serialize};

use super::grant::Door;
use super::operation::Outcome;

/// What an enrolment says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    /// Numbers of the primary and the secondary key.
    pub keys: [u32; 2],
    /// Whether devices may register.
    pub is_enabled: bool,
}

/// A change of an enrolment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    /// Which: a registration id, or the name of a group.
    pub enrollment: String,
    /// What it says from then on; none if it is deleted.
    pub terms: Option<Terms>,
    /// The node that was asked, from 0.
    pub node: usize,
    /// When it was asked.
    pub invoked_us: u64,
    /// When the answer came, or was given up.
    pub completed_us: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// The answer, as far as it explains an outcome.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// Where a device was put, and since when its registration says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// The hub.
    pub hub: String,
    /// What the device is called there.
    pub device: String,
    /// When its registration was made, as the service says it.
    pub created: String,
}

/// What a device was told that registered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Told {
    /// It is at its hub.
    Assigned(Assignment),
    /// Its enrolment lets nobody in now.
    Disabled,
    /// What it shows does not count.
    Refused,
    /// Its enrolment leads nowhere.
    Failed {
        /// The number of the error.
        code: u64,
    },
    /// Nobody knows.
    Unknown {
        /// Why.
        why: String,
    },
}

/// A device registers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// Its registration id.
    pub id: String,
    /// The enrolment that it means to come under.
    pub enrollment: String,
    /// The number of the key that it shows.
    pub key: u32,
    /// The door.
    pub door: Door,
    /// The node that it asks, from 0.
    pub node: usize,
    /// When it began.
    pub invoked_us: u64,
    /// When the answer came, or was given up.
    pub completed_us: u64,
    /// What it was told.
    pub told: Told,
}

/// What a service was shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Found {
    /// A registration, if there is one.
    Registration(Option<Assignment>),
    /// Whether the device is in its hub's registry.
    Device(bool),
}

/// A service looks what came of a registration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Look {
    /// The registration id.
    pub id: String,
    /// The node that was asked, from 0.
    pub node: usize,
    /// When it was asked.
    pub invoked_us: u64,
    /// What was found.
    pub found: Found,
}

/// A device connects to its hub with what it registered with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its registration id.
    pub id: String,
    /// The number of the key that it shows.
    pub key: u32,
    /// The node, from 0.
    pub node: usize,
    /// When it began.
    pub invoked_us: u64,
    /// `ok` is let in, `fail` turned away for the credential.
    pub outcome: Outcome,
    /// The answer, as far as it explains an outcome.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

/// Any of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Enrolling {
    /// A change of an enrolment.
    Change(Change),
    /// A device registered.
    Registration(Registration),
    /// A service looked.
    Look(Look),
    /// A device connected to its hub.
    Entry(Entry),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let assignment = || Assignment {
            hub: "h".into(),
            device: "d".into(),
            created: "t".into(),
        };
        let registration = |told| {
            Enrolling::Registration(Registration {
                id: "i".into(),
                enrollment: "e".into(),
                key: 1,
                door: Door::Https,
                node: 2,
                invoked_us: 3,
                completed_us: 4,
                told,
            })
        };
        let look = |found| {
            Enrolling::Look(Look {
                id: "i".into(),
                node: 2,
                invoked_us: 3,
                found,
            })
        };
        let change = |terms| {
            Enrolling::Change(Change {
                enrollment: "e".into(),
                terms,
                node: 2,
                invoked_us: 3,
                completed_us: 4,
                outcome: Outcome::Fail,
                detail: "404".into(),
            })
        };
        let terms = Terms {
            keys: [2, 1],
            is_enabled: false,
        };
        for one in [
            change(Some(terms)),
            change(None),
            registration(Told::Assigned(assignment())),
            registration(Told::Disabled),
            registration(Told::Refused),
            registration(Told::Failed { code: 400_209 }),
            registration(Told::Unknown { why: "lost".into() }),
            look(Found::Registration(Some(assignment()))),
            look(Found::Registration(None)),
            look(Found::Device(true)),
            Enrolling::Entry(Entry {
                id: "i".into(),
                key: 1,
                node: 2,
                invoked_us: 3,
                outcome: Outcome::Ok,
                detail: String::new(),
            }),
        ] {
            let line = serde_json::to_string(&one).unwrap();
            assert_eq!(serde_json::from_str::<Enrolling>(&line).unwrap(), one, "{line}");
        }
    }
}
