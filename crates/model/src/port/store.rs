//! What a replica asks of its disk: ordered state, and the log of events.
//!
//! Both record their own applied position, so that after a crash each is fed again from the
//! journal and skips what it has. Implemented by `storage`; used by `cluster` and `actors`.

use bytes::Bytes;

/// A store that failed. The node that sees one stops serving the replica; it never retries a write.
#[derive(Debug, Clone, thiserror::Error)]
pub enum StoreError {
    /// The disk or the library under the store refused.
    #[error("{action}: {reason}")]
    Io {
        /// Verb and object: "write state batch".
        action: &'static str,
        /// What the layer below said.
        reason: String,
    },
    /// Bytes on disk do not match their checksum or their format.
    #[error("{what} is corrupt: {reason}")]
    Corrupt {
        /// Which file or record.
        what: String,
        /// What did not match.
        reason: String,
    },
    /// No room is left. Reads go on; writes are refused until space returns.
    #[error("disk is full: {0}")]
    Full(String),
}

impl StoreError {
    /// An [`StoreError::Io`] from anything that can say what happened.
    pub fn io(action: &'static str, reason: impl ToString) -> Self {
        StoreError::Io {
            action,
            reason: reason.to_string(),
        }
    }
}

/// Puts and deletes that become visible together.
#[derive(Debug, Default, Clone)]
pub struct WriteBatch {
    /// Key, and the new value or `None` to delete. A later line wins over an earlier one.
    pub changes: Vec<(Vec<u8>, Option<Bytes>)>,
}

impl WriteBatch {
    /// Sets `key` to `value`.
    pub fn put(&mut self, key: impl Into<Vec<u8>>, value: impl Into<Bytes>) {
        self.changes.push((key.into(), Some(value.into())));
    }

    /// Removes `key`.
    pub fn delete(&mut self, key: impl Into<Vec<u8>>) {
        self.changes.push((key.into(), None));
    }

    /// Whether there is nothing to do.
    pub fn is_empty(&self) -> bool {
        self.changes.is_empty()
    }
}

/// The state of one replica: an ordered map from bytes to bytes.
pub trait ShardStore: Send + Sync + 'static {
    /// The value of `key`.
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError>;

    /// Pairs with `from <= key < to` in ascending order, `count_max` at most.
    fn scan(&self, from: &[u8], to: &[u8], count_max: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError>;

    /// Applies `batch` as one: visible to reads on return, durable at the next [`checkpoint`].
    /// After a crash a prefix of the batches is there, each whole.
    ///
    /// [`checkpoint`]: ShardStore::checkpoint
    fn write(&self, batch: WriteBatch) -> Result<(), StoreError>;

    /// Returns when every batch written before the call is durable.
    fn checkpoint(&self) -> Result<(), StoreError>;

    /// A consistent view of all pairs, in ascending order, for a snapshot. Later writes do not show.
    #[allow(clippy::type_complexity)]
    fn snapshot(&self) -> Box<dyn Iterator<Item = Result<(Bytes, Bytes), StoreError>> + Send>;

    /// Replaces the whole content by `pairs` (ascending), durably and at once: after a crash either
    /// the old or the new content is there.
    fn replace(
        &self,
        pairs: &mut dyn Iterator<Item = Result<(Bytes, Bytes), StoreError>>,
    ) -> Result<(), StoreError>;
}

/// The accepted events of one applied log entry: dense offsets from `first_offset`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventRun {
    /// Log index of the entry.
    pub index: u64,
    /// Term of the entry; the third part of a receipt.
    pub term: u64,
    /// Stamp of the entry: milliseconds since 1970, never lower than the run before.
    pub time_ms: u64,
    /// Offset of the first event.
    pub first_offset: u64,
    /// Number of events, at least 1.
    pub count: u32,
    /// The records, as the gateway framed them (see [`crate::telemetry`]).
    pub records: Bytes,
}

impl EventRun {
    /// The offset after the last event of this run. A run that ends beyond all offsets, which only a broken
    /// peer or disk tells of, ends at the last.
    pub fn next_offset(&self) -> u64 {
        self.first_offset.saturating_add(u64::from(self.count))
    }
}

/// A sealed segment of events: immutable, and the same bytes on every replica that cut it by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SealedSegment {
    /// Offset of its first event; its name.
    pub first_offset: u64,
    /// Offset after its last event.
    pub next_offset: u64,
    /// Index of its last run.
    pub last_index: u64,
    /// Length of the file.
    pub bytes: u64,
    /// crc32c over all bytes of the file.
    pub crc32c: u32,
}

/// The events of one replica, in the order of its log.
///
/// Runs gather in an open block in memory; a block is closed when its runs reach
/// a fixed size, and then compressed, checksummed and written. Block and segment boundaries follow
/// from the sequence of `append`, `seal` and `trim` alone, so that sealed segments of two replicas
/// are the same bytes.
pub trait EventLog: Send + Sync + 'static {
    /// Adds `run`. Runs at or below [`applied_index`](EventLog::applied_index) are skipped silently:
    /// after a restart the journal feeds them again. Returns without waiting for the disk.
    fn append(&self, run: EventRun) -> Result<(), StoreError>;

    /// Runs from the one that holds `from` (or the first after it), until their bytes pass `bytes_max`; one
    /// at least if there is one. `from` below the trimmed start begins at the start.
    fn read(&self, from: u64, bytes_max: usize) -> Result<Vec<EventRun>, StoreError>;

    /// The first offset whose stamp is at or after `time_ms`; the next offset to come if there is none.
    fn offset_at(&self, time_ms: u64) -> Result<u64, StoreError>;

    /// First offset that can still be read, and the offset that the next event will get as far as this log knows.
    fn range(&self) -> (u64, u64);

    /// The index of the last run taken in, or 0. What a recovery need not feed again.
    fn applied_index(&self) -> u64;

    /// Closes the open block and the open segment, which starts a new one. Called by `apply` for a
    /// replicated seal command, so that all replicas cut at the same place.
    fn seal(&self) -> Result<(), StoreError>;

    /// Deletes sealed segments whose events are all below `offset`.
    fn trim(&self, offset: u64) -> Result<(), StoreError>;

    /// Begins a log at `first_offset`, with `index` as the last index before it, that is filled beside this
    /// one and takes its place when it is committed. For a replica that is filled from a snapshot.
    fn stage(&self, first_offset: u64, index: u64) -> Result<Box<dyn StagedEvents + '_>, StoreError>;

    /// Makes closed blocks durable, and with `parks` the open one, beside them. `applied` is the index that the
    /// caller has fed so far. Returns the index up to which the journal is no longer needed by this log:
    /// `applied` when everything is durable, otherwise the last index that is.
    fn checkpoint(&self, applied: u64, parks: bool) -> Result<u64, StoreError>;

    /// Sealed segments in order, those that are damaged left out.
    fn sealed_segments(&self) -> Vec<SealedSegment>;

    /// First offsets of the sealed segments that are known to be damaged or are missing.
    fn damaged_segments(&self) -> Vec<u64>;

    /// Reads all of a sealed segment and checks it. Damage is remembered and returned as an error.
    fn verify_segment(&self, first_offset: u64) -> Result<(), StoreError>;

    /// Bytes of a sealed segment: up to `length` from `position`, fewer at its end.
    fn read_segment(&self, first_offset: u64, position: u64, length: usize) -> Result<Bytes, StoreError>;

    /// Writes a sealed segment again, with the records that `change` gives for a run in place of its own: as many, at the same
    /// offsets. Returns whether any were others. It is durable on return; after a crash the old or the new file is there.
    fn rewrite_segment(
        &self,
        first_offset: u64,
        change: &mut dyn FnMut(&EventRun) -> Result<Option<Bytes>, StoreError>,
    ) -> Result<bool, StoreError>;

    /// Installs a sealed segment from a peer: in place of the one with the same first offset, in the
    /// gap that a lost one left, or at the end of a log whose open segment is empty. `whole` must be
    /// what `expected` tells of. It is durable on return; after a crash the old or the new file is there.
    fn install_segment(&self, whole: &[u8], expected: &SealedSegment) -> Result<(), StoreError>;
}

/// A log that is being filled from a peer. Dropped before it is committed, it leaves no trace; so it does
/// after a crash. What does not fit is refused as [`StoreError::Corrupt`].
pub trait StagedEvents {
    /// Adds `run`, which follows what is there.
    fn append(&mut self, run: EventRun) -> Result<(), StoreError>;

    /// Adds a sealed segment as it is, which follows what is there: `next_part` gives its bytes, one part
    /// after the other, none of them empty.
    fn add_segment(
        &mut self,
        expected: &SealedSegment,
        next_part: &mut dyn FnMut() -> Result<Bytes, StoreError>,
    ) -> Result<(), StoreError>;

    /// Puts this log in the place of the old one, durably and at once.
    fn commit(self: Box<Self>) -> Result<(), StoreError>;
}
