//! What the owner of a node may choose about its actors, and the bounds that nobody chooses.
//!
//! Every wait and queue of this crate that has a fixed bound is listed here. Bounds that several
//! crates share are in `dunlin_model::limits`.

use std::sync::Arc;

use dunlin_model::device::DEVICE_IDLE_MS;
use dunlin_model::group::SESSION_TIMEOUT_MS_MIN;
use dunlin_model::id::{DeviceId, ShardId};
use dunlin_model::limits::{ENTRY_BYTES_MAX, STREAM_FRAMES_IN_FLIGHT_MAX};
use dunlin_model::port::Tracer;

/// Bytes of frames that one shard holds unanswered, unless the configuration says otherwise.
pub(crate) const SHARD_WAITING_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Milliseconds without a sign of life after which a gateway is given up, unless configured.
pub(crate) const GATEWAY_LEASE_MS: u64 = 10_000;
/// Unanswered frames of one stream. A gateway that connects again sends its frames a second time
/// while the first copies are still on their way; more than three rounds of that wait outside.
pub(crate) const STREAM_FRAMES_WAITING_MAX: usize = 4 * STREAM_FRAMES_IN_FLIGHT_MAX as usize;
/// Calls of `open_stream` that one shard keeps waiting.
pub(crate) const OPENS_WAITING_MAX: usize = 1024;
/// Milliseconds that a call of `open_stream` waits for the log and for its turn.
pub(crate) const OPEN_WAIT_MS: u64 = 10_000;
/// Milliseconds of these for which it waits where nobody is known to lead: an election takes less, and who asks
/// may be better off with another replica.
pub(crate) const ELECTION_WAIT_MS: u64 = 50;
/// Gateways of one shard whose sessions are compared with the state at the same time.
pub(crate) const SESSION_CHECKS_MAX: usize = 4;
/// Milliseconds for which a change of what is desired is told again to sessions that a leader finds connected. Longer
/// than a shard stands still when its leader dies.
pub(crate) const RETELL_MS: u64 = 60_000;
/// Milliseconds that a read waits for the proof that this replica still leads.
pub(crate) const READ_BARRIER_WAIT_MS: u64 = 5_000;
/// Listings of devices that read the disk at the same time on one node; others queue for a turn.
pub(crate) const LISTINGS_MAX: usize = 4;
/// Milliseconds that a reader of events may wait for news in one call.
pub(crate) const EVENTS_WAIT_MS_MAX: u64 = 60_000;
/// Readers of events that wait for news on one node. Any more get the empty page at once.
pub(crate) const EVENT_READERS_WAITING_MAX: usize = 4096;
/// Milliseconds between attempts to hand a batch to a journal that has no room.
pub(crate) const JOURNAL_RETRY_MS: u64 = 200;
/// Milliseconds between two looks for queues of messages whose time has come.
pub(crate) const DUE_CHECK_MS: u64 = 1000;
/// A new leader gives consumer groups that are to be looked at within as many milliseconds a whole time-out. No session is
/// shorter, so that every member that lives has come to heartbeat by then.
pub(crate) const GROUPS_RESUME_MS: u64 = SESSION_TIMEOUT_MS_MIN as u64;
/// Milliseconds that a clean stop gives a shard to finish what it took in.
pub(crate) const DRAIN_WAIT_MS: u64 = 5_000;
/// Milliseconds that the actors of a shard get to end after that.
pub(crate) const STOP_WAIT_MS: u64 = 2_000;
/// Buckets that the devices of a shard are spread over.
pub(crate) const DEVICE_BUCKETS: usize = 16;
/// Notices that wait in one bucket. Beyond it a notice is dropped and its device read again.
pub(crate) const BUCKET_NOTICES_MAX: usize = 64 * 1024;
/// Device actors of one bucket, about 7 KB each. Beyond it a device sleeps on and its notices are
/// dropped like those of a full queue.
pub(crate) const BUCKET_DEVICES_MAX: usize = 16 * 1024;
/// Notices that wait for one device.
pub(crate) const DEVICE_MAILBOX_MAX: usize = 256;
/// Quarantined devices of one bucket whose evidence is kept; the oldest is let go for a new one.
pub(crate) const BUCKET_QUARANTINE_MAX: usize = 64;
/// Characters of evidence kept for a quarantined device.
pub(crate) const EVIDENCE_CHARS_MAX: usize = 512;
/// Shards that one node hosts.
pub(crate) const SHARDS_MAX: usize = dunlin_model::limits::SHARD_COUNT_MAX as usize;

// A budget that holds no full frame would refuse it for ever.
const _: () = assert!(SHARD_WAITING_BYTES_MAX >= ENTRY_BYTES_MAX);

/// A place where a test can make actors fail. Nodes that are not told to allow faults have none.
pub trait ActorFault: Send + Sync + 'static {
    /// Called before `device` handles a notice or is built from state. May panic.
    fn before_device(&self, device: &DeviceId);

    /// Called before the actor of `shard` handles a message. May panic.
    fn before_shard(&self, shard: ShardId);
}

/// What the owner of a node may choose about its actors.
#[derive(Clone)]
pub struct HostConfig {
    /// Milliseconds without a frame or a sign of life after which a gateway is given up and its
    /// sessions end. At least 1; default 10 000.
    pub gateway_lease_ms: u64,
    /// Bytes of frames that one shard holds unanswered; further frames are refused until some are
    /// answered. At least one log entry; default 32 MiB.
    pub shard_waiting_bytes_max: usize,
    /// Milliseconds without a session and without news after which a device leaves memory. At least
    /// 1; default 300 000.
    pub device_idle_ms: u64,
    /// Makes the spans of followed frames; default none.
    pub tracer: Option<Arc<dyn Tracer>>,
    /// For tests only; default none.
    pub actor_fault: Option<Arc<dyn ActorFault>>,
}

impl Default for HostConfig {
    fn default() -> Self {
        Self {
            gateway_lease_ms: GATEWAY_LEASE_MS,
            shard_waiting_bytes_max: SHARD_WAITING_BYTES_MAX,
            device_idle_ms: DEVICE_IDLE_MS,
            tracer: None,
            actor_fault: None,
        }
    }
}

impl std::fmt::Debug for HostConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HostConfig")
            .field("gateway_lease_ms", &self.gateway_lease_ms)
            .field("shard_waiting_bytes_max", &self.shard_waiting_bytes_max)
            .field("device_idle_ms", &self.device_idle_ms)
            .field("tracer", &self.tracer.is_some())
            .field("actor_fault", &self.actor_fault.is_some())
            .finish()
    }
}

/// Why a configuration cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// A lease or an idle time of nothing.
    #[error("{0} must be at least 1 ms")]
    Zero(&'static str),
    /// A full frame would never fit.
    #[error("shard_waiting_bytes_max is {0}, but one entry may have {ENTRY_BYTES_MAX} bytes")]
    BudgetTooSmall(usize),
}

impl HostConfig {
    /// Refuses values that cannot work.
    pub fn validate(&self) -> Result<(), ConfigError> {
        if self.gateway_lease_ms == 0 {
            return Err(ConfigError::Zero("gateway_lease_ms"));
        }
        if self.device_idle_ms == 0 {
            return Err(ConfigError::Zero("device_idle_ms"));
        }
        if self.shard_waiting_bytes_max < ENTRY_BYTES_MAX {
            return Err(ConfigError::BudgetTooSmall(self.shard_waiting_bytes_max));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_that_cannot_work_are_refused() {
        let good = HostConfig::default();
        assert_eq!(good.validate(), Ok(()));
        let no_lease = HostConfig {
            gateway_lease_ms: 0,
            ..good.clone()
        };
        assert_eq!(no_lease.validate(), Err(ConfigError::Zero("gateway_lease_ms")));
        let no_idle = HostConfig {
            device_idle_ms: 0,
            ..good.clone()
        };
        assert_eq!(no_idle.validate(), Err(ConfigError::Zero("device_idle_ms")));
        let small = HostConfig {
            shard_waiting_bytes_max: 5,
            ..good
        };
        assert_eq!(small.validate(), Err(ConfigError::BudgetTooSmall(5)));
    }
}
