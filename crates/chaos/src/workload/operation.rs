//! An operation on the registry, or a look at what it did: invoked, completed, and with which outcome.
//!
//! Plain data, written to `operations.jsonl`; judged by [`crate::invariants::identity`] and
//! [`crate::invariants::audit`]. `unknown` means that it may have happened, may happen yet, or may not.

use serde::{Deserialize, Serialize};

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Action {
    /// Create the device with a key.
    Create,
    /// Disable it.
    Disable,
    /// Enable it.
    Enable,
    /// Give it another key in place of its only one.
    Rotate,
    /// Delete it.
    Delete,
    /// Connect with a key.
    Probe,
}

/// How it ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// Done; of a probe: let in.
    Ok,
    /// Refused and not done; of a probe: turned away for its credential.
    Fail,
    /// Nobody knows.
    Unknown,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Operation {
    /// The device.
    pub device: String,
    /// What.
    pub action: Action,
    /// Which of the device's keys, counted from 0: the one that it gets, or that a probe shows.
    pub key: u32,
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
