//! What a service did with jobs, and what queries showed it of the devices that they change.
//!
//! Plain data, written to `jobs.jsonl`; judged by [`crate::invariants::jobs`].

use serde::{Deserialize, Serialize};

/// A job that changes the twin of each device once.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRun {
    /// The number that it writes into twins: 1 for the first. Jobs follow on each other.
    pub round: u64,
    /// When it was first asked for.
    pub invoked_us: u64,
    /// When it was seen to have ended; none if the run ended before.
    pub ended_us: Option<u64>,
    /// How it ended, and at how many devices it succeeded and failed.
    pub status: String,
    /// See `status`.
    pub succeeded: u64,
    /// See `status`.
    pub failed: u64,
}

/// Devices that a query found alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Alike {
    /// The number of the last job in their twins.
    pub round: u64,
    /// The version of their twins.
    pub version: u64,
    /// How many there are.
    pub count: u64,
}

/// A query over all of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// When it was asked.
    pub invoked_us: u64,
    /// When the answer came.
    pub completed_us: u64,
    /// The answer.
    pub found: Vec<Alike>,
}

/// Any of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sight {
    /// All devices are there, so many, each with a twin of version 2 that says round 0.
    Ready {
        /// How many.
        devices: u64,
    },
    /// A job.
    Job(JobRun),
    /// A query.
    Seen(Seen),
}
