//! What an operator can see of a node's actors: counters, gauges, and the devices in quarantine.
//!
//! Counters rise from the start of the host; gauges are read when asked.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use dunlin_model::id::{DeviceId, ShardId};

/// What all shards of a node show.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostStats {
    /// Device actors in memory.
    pub device_actors: usize,
    /// Times that a device actor failed and was started again.
    pub device_restarts: u64,
    /// Devices in quarantine, by shard and name.
    pub quarantined: Vec<Quarantined>,
    /// One line per shard that the node hosts, ascending.
    pub shards: Vec<ShardStats>,
}

impl HostStats {
    /// Adds up what `shards` show.
    pub(crate) fn of(shards: Vec<ShardStats>) -> Self {
        Self {
            device_actors: shards.iter().map(|shard| shard.device_actors).sum(),
            device_restarts: shards.iter().map(|shard| shard.device_restarts).sum(),
            quarantined: shards
                .iter()
                .flat_map(|shard| shard.quarantined.clone())
                .collect(),
            shards,
        }
    }

    /// Shards that this node leads.
    pub fn shards_leading(&self) -> usize {
        self.shards
            .iter()
            .filter(|shard| shard.leading_term.is_some())
            .count()
    }
}

/// What one shard shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShardStats {
    /// Which.
    pub shard: ShardId,
    /// The term in which this node leads it, if it does.
    pub leading_term: Option<u64>,
    /// Bytes of frames that wait for an answer.
    pub credits_used_bytes: usize,
    /// Frames taken in.
    pub frames: u64,
    /// Frames refused because a bound was reached or because they were not sound.
    pub frames_refused: u64,
    /// Gateways that are watched.
    pub streams: usize,
    /// The journal has no room: frames are kept and tried again.
    pub storage_full: bool,
    /// Times that the shard's own actors failed and were started again.
    pub shard_restarts: u64,
    /// Device actors in memory.
    pub device_actors: usize,
    /// Of those, devices that have a session.
    pub devices_connected: usize,
    /// Times that a device actor failed and was started again.
    pub device_restarts: u64,
    /// Notices about devices that no actor took, because a queue was full or the device was in
    /// quarantine. Ends of sessions among them were passed on all the same.
    pub notices_dropped: u64,
    /// Devices in quarantine, ascending. They leave it with the leadership.
    pub quarantined: Vec<Quarantined>,
}

/// A device whose actor failed too often, with what is known about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quarantined {
    /// Its shard.
    pub shard: ShardId,
    /// Which.
    pub device: DeviceId,
    /// Since when, milliseconds since 1970.
    pub since_ms: u64,
    /// The last failure in its own words, 512 characters at most.
    pub evidence: String,
    /// Notices that it has missed since.
    pub notices_dropped: u64,
}

/// The live numbers of one shard.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) frames: AtomicU64,
    pub(crate) frames_refused: AtomicU64,
    pub(crate) storage_full: AtomicBool,
    pub(crate) shard_restarts: AtomicU64,
    pub(crate) device_restarts: AtomicU64,
    pub(crate) notices_dropped: AtomicU64,
    pub(crate) device_actors: Arc<AtomicUsize>,
    pub(crate) devices_connected: Arc<AtomicUsize>,
}

/// Adds one to a counter.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// One in a gauge for as long as this lives: also when its owner panics.
#[derive(Debug)]
pub(crate) struct GaugeGuard(Arc<AtomicUsize>);

impl GaugeGuard {
    pub(crate) fn enter(gauge: &Arc<AtomicUsize>) -> Self {
        gauge.fetch_add(1, Ordering::Relaxed);
        Self(gauge.clone())
    }
}

impl Drop for GaugeGuard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
