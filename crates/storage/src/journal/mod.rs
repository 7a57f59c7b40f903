//! One ordered log per node, shared by all replicas: what an acknowledgement waits for.
//!
//! Appends and votes of all replicas go into one queue; one thread takes the whole queue, writes it
//! with one write, makes it durable with one sync, and then calls all callbacks in the order of
//! submission. There is no timer: while one flush is on its way, the next gathers. The journal
//! decides what is durable and what a crash leaves; it never reads what entries and votes mean and
//! never repairs damage, it only tells of it.
//!
//! Where to look: [`format`] for the bytes, `log_state` for the index in memory, `flusher` for the
//! thread, `recovery` for opening, `files` for the segment files.
//!
//! * A failed write or sync is fatal: every callback, and every later call, gets the error.
//! * [`JournalError::Full`] is not: the refused entries are not in the log, votes still go through,
//!   and a purge heals it.
//! * Only records of the last flush can be cut as torn. Damage before it marks the replicas that it
//!   may concern as damaged; they refuse to serve until removed.

mod error;
mod files;
mod flusher;
pub mod format;
mod log_state;
mod recovery;
mod replica;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::JoinHandle;

use bytes::Bytes;
use dunlin_model::id::{GroupReplica, LogPosition};

pub use error::JournalError;
pub use flusher::Turn;
pub use replica::ReplicaLog;

use crate::disk::Disk;
use log_state::Core;

/// Called once, on the flusher thread (or at once by the caller when refused at the door), without
/// a lock held. Must not block.
pub type Completion = Box<dyn FnOnce(Result<(), JournalError>) + Send>;

/// One entry of a replica's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogEntry {
    /// Where it stands.
    pub position: LogPosition,
    /// What it says; at most a quarter of a segment long.
    pub body: Bytes,
}

/// Sizes of a journal.
#[derive(Debug, Clone)]
pub struct JournalConfig {
    /// Length of a segment file; a multiple of 4096 and at least [`SEGMENT_BYTES_MIN`].
    pub segment_bytes: u64,
    /// Number of segment files, spares included; at least [`SEGMENTS_MIN`].
    pub segments_max: usize,
    /// Appends are refused while this many bytes wait for the disk.
    pub queue_bytes_max: usize,
    /// Bodies of recent entries kept in memory, over all replicas. Bodies that wait for the disk
    /// stay beyond it.
    pub hot_bytes_max: usize,
    /// Segments' signatures follow from it, for runs that repeat; drawn by the system where there is none. No
    /// two lives of a journal may have the same.
    pub signature_seed: Option<u64>,
}

/// The shortest segment.
pub const SEGMENT_BYTES_MIN: u64 = 64 << 10;

/// The smallest number of segments: one being written, one in reserve for votes, two to move.
pub const SEGMENTS_MIN: usize = 4;

impl Default for JournalConfig {
    fn default() -> Self {
        Self {
            segment_bytes: 64 << 20,
            segments_max: 16,
            queue_bytes_max: 64 << 20,
            hot_bytes_max: 128 << 20,
            signature_seed: None,
        }
    }
}

/// What a replica's log holds now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogState {
    /// The last entry that was purged.
    pub purged: Option<LogPosition>,
    /// The last entry, or the last purged one when there is none after it.
    pub last: Option<LogPosition>,
    /// The vote saved last.
    pub vote: Option<Bytes>,
    /// The committed mark saved last; after a crash it may be an older one.
    pub committed: Option<LogPosition>,
    /// Why this replica must not serve, if so.
    pub damaged: Option<String>,
}

/// Where a record stands on the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordPlace {
    /// The file.
    pub path: String,
    /// Where in it the record begins.
    pub offset: u64,
    /// How long it is, header included.
    pub bytes: u64,
}

/// Numbers for metrics.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JournalStats {
    /// Records written since open, flush headers not counted.
    pub records: u64,
    /// Flushes since open; each is one write and one sync.
    pub flushes: u64,
    /// Bytes written by flushes since open, padding included.
    pub bytes: u64,
    /// Bytes that wait for the disk.
    pub queue_bytes: usize,
    /// Bodies in memory.
    pub hot_bytes: usize,
    /// Segments in use, spares not counted.
    pub segments_in_use: usize,
    /// Duration of the last write and sync.
    pub last_flush_micros: u64,
    /// Sum over all flushes since open.
    pub total_flush_micros: u64,
    /// Bytes of the last flush that were cut as torn at open.
    pub torn_bytes: u64,
    /// Whether the journal was stopped in order before this open.
    pub clean_start: bool,
    /// Replicas that are damaged.
    pub damaged: Vec<GroupReplica>,
}

/// The journal of a node. Dropping it stops it in order.
pub struct Journal {
    shared: Arc<Shared>,
    flusher: Mutex<Option<JoinHandle<()>>>,
}

type FailureHook = Box<dyn Fn(&JournalError) + Send + Sync>;

/// What tells whoever turns a driven journal that there is something to do. Must not block.
pub type Bell = Box<dyn Fn() + Send + Sync>;

/// Turns a journal that was opened with [`Journal::open_driven`]. Dropping it before it has ended is like
/// the end of the process: what waits is never written and never answered.
pub struct Driver {
    shared: Arc<Shared>,
    flusher: flusher::Flusher,
    ended: bool,
}

impl Driver {
    /// Writes one flush of what waits, if anything does, and calls back.
    pub fn turn(&mut self) -> Turn {
        if self.ended {
            return Turn::Ended;
        }
        let turn = self.flusher.turn(&self.shared);
        self.ended = turn == Turn::Ended;
        turn
    }
}

/// What handles, callers and the flusher share.
struct Shared {
    core: Mutex<Core>,
    wake: Condvar,
    /// Beside the condition, for a driven journal.
    bell: Option<Bell>,
    failure_hooks: Mutex<Vec<FailureHook>>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Core> {
        // A panic while the lock is held is an assertion about a caller's request, made before
        // anything is changed for it.
        self.core.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl Shared {
    /// Tells the flusher that there is something to do.
    fn call(&self) {
        self.wake.notify_all();
        if let Some(bell) = &self.bell {
            bell();
        }
    }

    /// Returns when there is something in the queue, or the journal is stopping.
    fn wait_for_call(&self) {
        let core = self.lock();
        if core.queue.is_empty() && !core.stopping {
            drop(self.wake.wait(core));
        }
    }
}

impl Journal {
    /// Opens the journal on `disk`, or makes it. Replays what is there; see [`LogState::damaged`].
    pub fn open(disk: Arc<dyn Disk>, config: JournalConfig) -> Result<Journal, JournalError> {
        let (shared, flusher) = Self::recover(disk, config, None)?;
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("journal".to_owned())
            .spawn(move || flusher::run(for_thread, flusher))
            .map_err(|error| JournalError::Open {
                action: "start journal thread",
                reason: error.to_string(),
            })?;
        Ok(Journal {
            shared,
            flusher: Mutex::new(Some(thread)),
        })
    }

    /// As [`open`](Self::open), without a thread: nothing is written but in the turns of the [`Driver`],
    /// which the bell asks for. For a simulation, where time and order are somebody's to decide;
    /// [`stop`](Self::stop) then returns at once, and the driver's turns do the rest.
    pub fn open_driven(
        disk: Arc<dyn Disk>,
        config: JournalConfig,
        bell: Bell,
    ) -> Result<(Journal, Driver), JournalError> {
        let (shared, flusher) = Self::recover(disk, config, Some(bell))?;
        let journal = Journal {
            shared: Arc::clone(&shared),
            flusher: Mutex::new(None),
        };
        let driver = Driver {
            shared,
            flusher,
            ended: false,
        };
        Ok((journal, driver))
    }

    fn recover(
        disk: Arc<dyn Disk>,
        config: JournalConfig,
        bell: Option<Bell>,
    ) -> Result<(Arc<Shared>, flusher::Flusher), JournalError> {
        assert!(
            config.segment_bytes >= SEGMENT_BYTES_MIN,
            "segments are too short"
        );
        assert!(
            config.segment_bytes.is_multiple_of(format::BLOCK_BYTES),
            "segments are whole blocks"
        );
        assert!(config.segments_max >= SEGMENTS_MIN, "too few segments");
        let (core, flusher) = recovery::recover(disk, config)?;
        let shared = Arc::new(Shared {
            core: Mutex::new(core),
            wake: Condvar::new(),
            bell,
            failure_hooks: Mutex::new(Vec::new()),
        });
        Ok((shared, flusher))
    }

    /// The replicas that have something in the journal.
    pub fn replicas(&self) -> Vec<GroupReplica> {
        self.shared.lock().replicas.keys().copied().collect()
    }

    /// The log of replica `id`, which is made if it is new.
    pub fn replica(&self, id: GroupReplica) -> ReplicaLog {
        let incarnation = self.shared.lock().open_replica(id);
        ReplicaLog::new(Arc::clone(&self.shared), id, incarnation)
    }

    /// Numbers as of now.
    pub fn stats(&self) -> JournalStats {
        let core = self.shared.lock();
        let damaged = core
            .replicas
            .iter()
            .filter(|(_, replica)| replica.damaged.is_some());
        JournalStats {
            queue_bytes: core.queue_bytes(),
            hot_bytes: core.hot_bytes(),
            damaged: damaged.map(|(id, _)| *id).collect(),
            ..core.stats.clone()
        }
    }

    /// Segments that are still needed now. Fewer than are in use when something was purged: those that a
    /// purge freed are taken from use by the next flush, whatever that writes.
    pub fn segments_needed(&self) -> usize {
        let core = self.shared.lock();
        (core.current + 1 - core.boundary()) as usize
    }

    /// The error that ended the journal, if one did.
    pub fn failed(&self) -> Option<JournalError> {
        self.shared.lock().failed.clone()
    }

    /// Calls `hook` when a write or a sync fails; at once if that has happened.
    pub fn on_failure(&self, hook: Box<dyn Fn(&JournalError) + Send + Sync>) {
        let mut hooks = self
            .shared
            .failure_hooks
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        // The flusher marks the failure before it takes the hooks, so none is forgotten.
        match self.failed() {
            None => hooks.push(hook),
            Some(error) => {
                drop(hooks);
                hook(&error);
            }
        }
    }

    /// Writes what waits, then a mark of an orderly end, and ends the thread. Later calls are
    /// refused with [`JournalError::Stopped`]. A second stop does nothing.
    pub fn stop(&self) {
        self.shared.lock().stopping = true;
        self.shared.call();
        let thread = self
            .flusher
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
            .take();
        if let Some(thread) = thread {
            // The last handle may fall inside a callback, on the flusher thread itself.
            if thread.thread().id() != std::thread::current().id() && thread.join().is_err() {
                tracing::error!("journal thread panicked");
            }
        }
    }

    /// The first entry of a replica that is in the newest `segments` segments, or waits to be written; `None` if
    /// the replica has none there.
    pub fn first_in_newest(&self, id: GroupReplica, segments: usize) -> Option<u64> {
        let core = self.shared.lock();
        let from = (core.current + 1).saturating_sub(segments as u64);
        core.replicas.get(&id)?.first_from_segment(from)
    }

    /// How many segments each replica keeps from being recycled, for those that keep any.
    pub fn pinning(&self) -> Vec<(GroupReplica, usize)> {
        let core = self.shared.lock();
        let pin = |(id, replica): (&GroupReplica, &log_state::Replica)| {
            let oldest = replica.oldest_segment()?;
            Some((*id, (core.current + 1 - oldest.min(core.current)) as usize))
        };
        core.replicas.iter().filter_map(pin).collect()
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.stop();
    }
}
