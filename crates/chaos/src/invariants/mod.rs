//! The promises, one file each, with the statement and where it comes from on top.
//!
//! | file | id | promise |
//! |---|---|---|
//! | [`no_loss`] | I1 | what was acked is stored |
//! | [`no_phantom`] | I2 | what is stored was sent, with that content |
//! | [`order`] | I3 | a device's messages stand in the order in which it sent them |
//! | [`duplicates`] | I4 | stored twice only if sent twice |
//! | [`offsets`] | I5 | offsets are dense, each names one record |
//! | [`ranges`] | I5 | whoever reads a range of the past is shown what is there in the end |
//! | [`groups`] | I6 | a consumer group's offsets rise, and whoever resumes skips nothing |
//! | [`registrations`] | I7 | what several services do to one registration at once is as if in some order |
//! | [`twins`] | I7 | so is what services and a device do to its twin, and it hears of each change once |
//! | [`jobs`] | I7 | jobs change each twin once, and queries see every change that was acknowledged |
//! | [`messages`] | I8 | what was queued for a device reaches it, in order |
//! | [`settlements`] | I8 | whoever fetches a message has it alone, and it ends once |
//! | [`feedback`] | I8 | who asks how a message ends is told, once and rightly |
//! | [`methods`] | I9 | a device is asked at most once per call |
//! | [`identity`] | I10 | who may come in comes in, and nobody else |
//! | [`policies`] | I10 | keys of policies open what they should as soon as they should, and no longer |
//! | [`provisioning`] | I10 | who may register is assigned, always to the same place, and nobody else is |
//! | [`single_owner`] | I11 | two sessions of a device never interleave |
//! | [`replicas`] | I12 | every replica that leads shows the same |
//! | [`raft`] | I13 | Raft's own properties hold in every group |
//! | [`durable`] | I14 | nothing is told to others before it is on disk |
//! | [`connections`] | I15, design §4 | a gateway that lives keeps its devices |
//! | [`liveness`] | I15 | soon after faults everything serves |
//! | [`bounded`] | I16 | no node takes more than was declared |
//! | [`audit`] | I17 | an acknowledged action has one record |
//! | [`deaths`] | I18 | no process ends without a cause |
//! | [`alarms`] | I19 | what must not pass in silence does not |
//! | [`routes`] | I20 | what a route leads to a webhook comes there, and nothing else |
//! | [`erasing`] | I21 | nobody is shown what was erased, and all else stays |
//! | [`configurations`] | I22 | twins follow their configurations |
//! | [`files`] | I23 | files of devices stay, and services are told of them |
//!
//! [`linearizable`] is the search that I7 rests on. Checkers take plain data and return [`Findings`]. They never wait, ask, or look at a clock.

pub mod alarms;
pub mod audit;
pub mod bounded;
pub mod configurations;
pub mod connections;
pub mod deaths;
pub mod duplicates;
pub mod durable;
pub mod erasing;
pub mod feedback;
pub mod files;
pub mod groups;
pub mod identity;
pub mod jobs;
pub mod linearizable;
pub mod liveness;
pub mod messages;
pub mod methods;
pub mod no_loss;
pub mod no_phantom;
pub mod offsets;
pub mod order;
pub mod policies;
pub mod provisioning;
pub mod raft;
pub mod ranges;
pub mod registrations;
pub mod replicas;
pub mod routes;
pub mod settlements;
pub mod single_owner;
pub mod twins;

use std::fmt;

use serde::Serialize;

use crate::oracle::Stored;

/// Violations that are kept with their records; beyond that they are only counted.
pub const EXAMPLES_MAX: usize = 20;

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The shard.
    pub shard: u32,
    /// The offset in it.
    pub offset: u64,
}

impl From<&Stored> for Place {
    fn from(stored: &Stored) -> Self {
        Self {
            shard: stored.shard,
            offset: stored.offset,
        }
    }
}

/// One broken promise, with what is involved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// What is wrong.
    pub what: String,
    /// The device, if one is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// The message's sequence number, if one is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// The records, if there are any.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub places: Vec<Place>,
}

impl Violation {
    /// Something wrong, of which no more is known yet.
    pub fn of(what: String) -> Self {
        Self {
            what,
            device: None,
            seq: None,
            places: Vec::new(),
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if let Some(device) = &self.device {
            write!(f, "; device {device}")?;
        }
        if let Some(seq) = self.seq {
            write!(f, ", message {seq}")?;
        }
        for place in &self.places {
            write!(f, ", at {}/{}", place.shard, place.offset)?;
        }
        Ok(())
    }
}

/// What a checker found.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Findings {
    /// All violations.
    pub count: u64,
    /// The first [`EXAMPLES_MAX`] of them.
    pub examples: Vec<Violation>,
}

impl Findings {
    /// Whether the promise holds.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    pub(crate) fn add(&mut self, violation: impl FnOnce() -> Violation) {
        self.count += 1;
        if self.examples.len() < EXAMPLES_MAX {
            self.examples.push(violation());
        }
    }
}
