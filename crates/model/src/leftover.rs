//! What an erased device has left outside its shard: files in the object store, blocks that were to be files, and
//! registrations of the provisioning service, which lie in whatever shards their names hash to.
//!
//! That they are to go is written down in the entry that erases the device, that they have gone in another. In between
//! whoever finds it may do the work, and do it again. Where it lies is decided in `shard::leftovers`; who does the work, in
//! the gateway.

use serde::{Deserialize, Serialize};

use crate::id::DeviceId;
use crate::upload::{UPLOADS_ALIVE_MAX, UPLOADS_OVER_MAX};

/// Of how many erased devices one page tells, and one step looks for registrations.
pub const LEFTOVERS_PAGE_MAX: usize = 64;
/// Uploads that one names at the most: as many as a device may have. None begins while there is a leftover.
pub const LEFTOVER_UPLOADS_MAX: usize = UPLOADS_ALIVE_MAX + UPLOADS_OVER_MAX;

/// What one erased device has left.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Leftover {
    /// The device.
    pub device: DeviceId,
    /// Index of the entry that erased it: tells this erasure from a later one of the same name.
    pub index: u64,
    /// Stamp of that entry.
    pub erased_ms: u64,
    /// Ids of its uploads, under which blocks may wait; [`LEFTOVER_UPLOADS_MAX`] at the most.
    pub uploads: Vec<String>,
}
