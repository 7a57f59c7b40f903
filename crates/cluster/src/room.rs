//! Whether this node can take more in: room in its journal, and on the disk under it.
//!
//! Asked before anything is taken: by a leader before it proposes, by a follower before it hands entries to
//! its log. What is refused or held back here has had no effect, so both go on by themselves when there is
//! room again; a write that fails for want of room ends a replica, and the state's database with it. So the
//! node stops early, with a reserve in which what is already in the log can still be applied.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dunlin_model::alarm::Alarm;
use dunlin_storage::disk::Disk;
use dunlin_storage::journal::Journal;

use crate::node::Shared;

/// Journal segments that stay free, for what is under way and for votes.
const SEGMENTS_RESERVED: usize = 2;
/// Bytes of the disk that stay free, for the state and the events of entries that are in the log already.
pub(crate) const DISK_RESERVE_BYTES: u64 = 128 << 20;
/// Bytes that must be free before a node that ran short takes more in: it would go to and fro otherwise.
const DISK_RESUME_BYTES: u64 = DISK_RESERVE_BYTES + (32 << 20);
/// Between two looks at the disk. What 16 shards write in that time is a fraction of the reserve.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Between two looks of somebody who waits for room.
const WAIT_STEP: Duration = Duration::from_millis(20);

/// The room of a node.
pub(crate) struct Room {
    journal: Arc<Journal>,
    segments_max: usize,
    disk: Arc<dyn Disk>,
    disk_is_short: AtomicBool,
}

impl Room {
    pub(crate) fn new(journal: Arc<Journal>, segments_max: usize, disk: Arc<dyn Disk>) -> Arc<Self> {
        let room = Self {
            journal,
            segments_max,
            disk,
            disk_is_short: AtomicBool::new(false),
        };
        room.look();
        Arc::new(room)
    }

    /// Whether more may be taken in now.
    pub(crate) fn is_there(&self) -> bool {
        // What a purge has freed counts as free: only a flush takes it from use, and without appends there is none.
        !self.disk_is_short.load(Ordering::Relaxed)
            && self.journal.segments_needed() + SEGMENTS_RESERVED <= self.segments_max
    }

    /// Resolves when there is room, or as soon as nobody needs it any more. Returns whether there is room.
    pub(crate) async fn wait(&self, is_wanted: impl Fn() -> bool) -> bool {
        while !self.is_there() {
            if !is_wanted() {
                return false;
            }
            tokio::time::sleep(WAIT_STEP).await;
        }
        true
    }

    fn look(&self) {
        let free = match self.disk.free_bytes() {
            Ok(free) => free,
            Err(error) => {
                tracing::warn!(%error, "cannot look how much of the disk is free");
                return;
            }
        };
        let was_short = self.disk_is_short.load(Ordering::Relaxed);
        let is_short = free
            < if was_short {
                DISK_RESUME_BYTES
            } else {
                DISK_RESERVE_BYTES
            };
        self.disk_is_short.store(is_short, Ordering::Relaxed);
        match (was_short, is_short) {
            (false, true) => {
                Alarm::DiskFull.raise();
                tracing::error!(
                    free,
                    reserve = DISK_RESERVE_BYTES,
                    "the disk is full; writes are refused"
                );
            }
            (true, false) => tracing::info!(free, "the disk has room again"),
            _ => {}
        }
    }
}

/// Looks at the disk for as long as the node runs, and tells the shards that it leads.
pub(crate) async fn watch(shared: Arc<Shared>) {
    let (Some(room), Some(shard)) = (&shared.room, &shared.shard) else {
        return;
    };
    let mut clock = tokio::time::interval(LOOK_EVERY);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut was_there = true;
    loop {
        clock.tick().await;
        room.look();
        let is_there = room.is_there();
        if !is_there || !was_there {
            let led = shared.groups().into_iter().filter(|group| group.sight().leads);
            for led in led.filter_map(|group| group.id().group.shard()) {
                shard.host.on_storage_full(led, !is_there);
            }
        }
        was_there = is_there;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_storage::disk::faulty::FaultyDisk;
    use dunlin_storage::journal::{JournalConfig, SEGMENT_BYTES_MIN};

    #[test]
    fn a_node_stops_before_its_disk_is_full_and_goes_on_with_room_to_spare() {
        let disk = FaultyDisk::new();
        let config = JournalConfig {
            segment_bytes: SEGMENT_BYTES_MIN,
            segments_max: 4,
            ..JournalConfig::default()
        };
        let journal = Journal::open(Arc::new(disk.clone()), config).unwrap();
        let room = Room::new(Arc::new(journal), 4, Arc::new(disk.clone()));
        assert!(room.is_there());
        let with_free = |bytes: u64| {
            disk.set_capacity(Some(disk.used_bytes() + bytes));
            room.look();
            room.is_there()
        };
        assert!(with_free(DISK_RESERVE_BYTES + (8 << 20)));
        assert!(!with_free(DISK_RESERVE_BYTES - (8 << 20)));
        assert!(!with_free(DISK_RESERVE_BYTES + (8 << 20)), "it waits for more");
        assert!(with_free(DISK_RESUME_BYTES + (8 << 20)));
    }
}
