//! Configurations (automatic device management): what many twins shall say, by a condition on them.
//!
//! The words, and their bounds. Which twin gets what is decided in [`plan`], what a plan does to a twin in
//! [`crate::twin`], when somebody looks in the gateway. A configuration lives in the shard of its id; the twins that it
//! concerns say so themselves, by a [`Mark`], so that a search over them finds what is still to be done.

pub mod plan;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Characters of an id.
pub const CONFIGURATION_ID_CHARS_MAX: usize = 128;
/// Configurations of a hub (IoT Hub: 100).
pub const CONFIGURATIONS_MAX: usize = 100;
/// Bytes of all that a configuration says.
pub const CONFIGURATION_BYTES_MAX: usize = 128 * 1024;
/// Bytes of a target condition, and of a metric's query.
pub const CONDITION_BYTES_MAX: usize = 4 * 1024;
/// Metrics of a configuration (IoT Hub: 5).
pub const METRICS_MAX: usize = 5;
/// Labels of a configuration.
pub const LABELS_MAX: usize = 20;
/// Configurations on one page of a listing: each may be large.
pub const CONFIGURATION_PAGE_MAX: usize = 20;
/// Twins that one step of a search for what is to be done names.
pub const TARGETED_PAGE_MAX: usize = 200;

/// What a service says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigurationSpec {
    /// As the service wrote it; nothing follows from it.
    pub schema_version: String,
    /// Words of the service.
    pub labels: BTreeMap<String, String>,
    /// JSON text of an object: `deviceContent`, `moduleContent` or `modulesContent`. Never changes after the creation.
    pub content: String,
    /// Which twins, in the query language; the door has read it.
    pub target: String,
    /// Where two say different things of a twin, the higher one counts; of equals, the younger.
    pub priority: u32,
    /// Queries by name.
    pub metrics: BTreeMap<String, String>,
}

impl ConfigurationSpec {
    /// Bytes of all its texts.
    pub fn bytes(&self) -> usize {
        let words = |map: &BTreeMap<String, String>| {
            map.iter()
                .map(|(key, value)| key.len() + value.len())
                .sum::<usize>()
        };
        self.schema_version.len()
            + self.content.len()
            + self.target.len()
            + words(&self.labels)
            + words(&self.metrics)
    }
}

/// A configuration as its shard keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configuration {
    /// Its id, as the service spells it.
    pub id: String,
    /// What it says.
    pub spec: ConfigurationSpec,
    /// Names a state of it for conditions; none ever comes again.
    pub version: u64,
    /// Stamp of the entry that made it, milliseconds since 1970.
    pub created_ms: u64,
    /// Stamp of the entry that changed it last.
    pub updated_ms: u64,
}

/// What a twin says of a configuration that concerns it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// The configuration's version when it was looked at.
    pub version: u64,
    /// Whether what it says counts: none of a higher priority says all of it differently.
    pub is_applied: bool,
}

/// The configurations that concern a twin, by their ids.
pub type Marks = BTreeMap<String, Mark>;

/// A part of what is desired, put in place of what is there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Setting {
    /// Where, below `properties.desired`; empty for all of it.
    pub path: Vec<String>,
    /// What, as JSON text; an object where the path is empty.
    pub value: String,
}

impl Setting {
    /// Bytes of all its texts.
    pub fn bytes(&self) -> usize {
        self.value.len() + self.path.iter().map(String::len).sum::<usize>()
    }
}

/// A configuration as twins are searched for it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Its id.
    pub id: String,
    /// Its version.
    pub version: u64,
    /// Its target condition.
    pub condition: String,
}

/// A twin whose marks are not what they should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Targeted {
    /// Of whom.
    pub device: crate::id::DeviceId,
    /// The twin's etag when it was looked at.
    pub etag: u64,
    /// The ids of the configurations that concern it.
    pub fits: Vec<String>,
}
