//! Between a shard and consensus: what a shard proposes, and what consensus tells it.

use super::{BoxFuture, EventPage, FrameOutcome, ReadError};
use crate::command::{Query, ReadFrom, View};
use crate::id::{NodeId, ShardId, StreamId};
use crate::shard::{Batch, Notice};

/// Why a proposal came to nothing, as far as the proposer knows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProposeError {
    /// This replica does not lead. The batch had no effect.
    #[error("not the leader")]
    NotLeader {
        /// Who may be, if known.
        hint: Option<NodeId>,
    },
    /// The journal has no room. The batch had no effect.
    #[error("the journal is full")]
    Full,
    /// Leadership was lost while the batch was under way: it may or may not be in the log.
    #[error("leadership was lost; the batch may or may not take effect")]
    Unknown,
}

/// What a shard asks of its Raft group. Implemented by `cluster`; scripted in tests of `actors`.
pub trait Replication: Send + Sync + 'static {
    /// Puts `batch` into the log. Resolves when it is committed and applied here; its outcomes have
    /// gone to the [`AppliedSink`] by then. Calls are taken in order.
    fn propose(&self, batch: Batch) -> BoxFuture<'static, Result<(), ProposeError>>;

    /// Resolves when this replica has applied everything that was committed before the call, and
    /// was still the leader after it.
    fn read_barrier(&self) -> BoxFuture<'static, Result<(), ProposeError>>;

    /// Reads applied state; no barrier.
    fn read(&self, query: &Query) -> Result<View, ReadError>;

    /// Reads applied events; no barrier.
    fn read_events(&self, from: ReadFrom, bytes_max: usize) -> Result<EventPage, ReadError>;
}

/// One applied entry, as its shard hears of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AppliedEntry {
    /// Log index.
    pub index: u64,
    /// Term of the entry.
    pub term: u64,
    /// Stamp of the entry.
    pub time_ms: u64,
    /// Ends of the frames in the entry, in order.
    pub outcomes: Vec<FrameOutcome>,
    /// Changes that concern single devices or the shard's housekeeping, in order.
    pub notices: Vec<Notice>,
    /// Offset after the last event of the shard.
    pub next_offset: u64,
}

/// What a new leader starts from. Everything committed before its term is applied, and so is the
/// first entry of its term.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leadership {
    /// The term.
    pub term: u64,
    /// Last applied index.
    pub applied_index: u64,
    /// Stamp of the last applied entry.
    pub time_ms: u64,
    /// The streams that the shard knows; their gateways must show that they live.
    pub streams: Vec<StreamId>,
}

/// What consensus tells a shard. Called in log order from one task per group; never blocks.
pub trait AppliedSink: Send + Sync + 'static {
    /// An entry was applied here. Followers hear it too, and only keep count.
    fn on_applied(&self, shard: ShardId, entry: AppliedEntry);

    /// This replica leads from now on.
    fn on_leader(&self, shard: ShardId, leadership: Leadership);

    /// This node, which leads, has no room for more (proposals would be refused), or has it again. Said
    /// repeatedly while there is none.
    fn on_storage_full(&self, shard: ShardId, is_full: bool);

    /// This replica does not lead (any more).
    fn on_follower(&self, shard: ShardId, leader: Option<NodeId>);
}
