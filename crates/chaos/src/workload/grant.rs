//! What a service did with a shared access policy, and what its keys opened.
//!
//! Plain data, written to `policies.jsonl`; judged by [`crate::invariants::policies`]. Lines of one policy are in the
//! order in which things happened. Keys of a policy are numbered as they are first seen, from 0.

use serde::{Deserialize, Serialize};

use super::operation::Outcome;

/// The door at which a key is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Door {
    /// HTTPS, by a service that reads the registry.
    Https,
    /// MQTT, by a device that connects.
    Mqtt,
}

/// What was asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Asked {
    /// Make the policy, with new keys.
    Create,
    /// Another primary key.
    RenewPrimary,
    /// Another secondary key.
    RenewSecondary,
    /// Each key in the other's place.
    Swap,
    /// Remove the policy.
    Remove,
    /// Show a key.
    Probe {
        /// Which.
        key: u32,
        /// Where.
        door: Door,
    },
}

/// Something that was asked of a policy, or of one of its keys.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Grant {
    /// The policy.
    pub policy: String,
    /// What.
    pub asked: Asked,
    /// Of a change that was done: the primary and the secondary key from then on; none of a policy that is gone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keys: Vec<u32>,
    /// The node that was asked, from 0.
    pub node: usize,
    /// When it was asked.
    pub invoked_us: u64,
    /// When the answer came, or was given up.
    pub completed_us: u64,
    /// How it ended; of a probe, `ok` is let in, and `fail` is turned away for the credential.
    pub outcome: Outcome,
    /// The answer, as far as it explains an outcome.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let probe = Asked::Probe {
            key: 3,
            door: Door::Mqtt,
        };
        for (asked, keys) in [
            (Asked::RenewPrimary, vec![2, 1]),
            (Asked::Remove, vec![]),
            (probe, vec![]),
        ] {
            let grant = Grant {
                policy: "p".into(),
                asked,
                keys,
                node: 1,
                invoked_us: 2,
                completed_us: 3,
                outcome: Outcome::Ok,
                detail: String::new(),
            };
            let line = serde_json::to_string(&grant).unwrap();
            assert_eq!(serde_json::from_str::<Grant>(&line).unwrap(), grant, "{line}");
        }
    }
}
