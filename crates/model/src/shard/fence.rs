//! Which epoch and generation a device's records must carry: the check on the hot path.
//!
//! A bounded cache in front of the state. It changes no outcome: what is not cached is looked up.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::keys;
use super::overlay::Overlay;
use crate::identity::{DeviceRecord, DeviceStatus, SessionRecord};
use crate::port::StoreError;

/// Devices whose fences are kept in memory per replica, about 100 bytes each.
const CACHED_DEVICES_MAX: usize = 64 * 1024;

/// What records of a device are compared with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Fence {
    /// Epoch of the latest session; 0 fits no record.
    pub(super) epoch: u64,
    /// Generation of the credential, or 0 if the device is absent or disabled.
    pub(super) generation: u64,
}

/// XXH3 over the device id: the ids are the operators' own, and the table is bounded.
#[derive(Default)]
pub(super) struct IdHasher(u64);

impl Hasher for IdHasher {
    fn finish(&self) -> u64 {
        self.0
    }
    fn write(&mut self, bytes: &[u8]) {
        self.0 = xxhash_rust::xxh3::xxh3_64_with_seed(bytes, self.0);
    }
}

#[derive(Default)]
pub(super) struct FenceCache {
    devices: HashMap<Box<[u8]>, Fence, BuildHasherDefault<IdHasher>>,
}

impl FenceCache {
    pub(super) fn get(&mut self, overlay: &Overlay<'_>, device: &[u8]) -> Result<Fence, StoreError> {
        if let Some(fence) = self.devices.get(device) {
            return Ok(*fence);
        }
        let record: Option<DeviceRecord> = overlay.get_json(&keys::record(device))?;
        let session: Option<SessionRecord> = overlay.get_json(&keys::session(device))?;
        let generation = match record {
            Some(record) if record.spec.status == DeviceStatus::Enabled => record.generation,
            _ => 0,
        };
        let fence = Fence {
            epoch: session.map_or(0, |session| session.epoch),
            generation,
        };
        if self.devices.len() >= CACHED_DEVICES_MAX {
            self.devices.clear();
        }
        self.devices.insert(device.into(), fence);
        Ok(fence)
    }

    /// Forgets a device whose record or session changed.
    pub(super) fn forget(&mut self, device: &[u8]) {
        self.devices.remove(device);
    }

    pub(super) fn clear(&mut self) {
        self.devices.clear();
    }
}
