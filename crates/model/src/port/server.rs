//! The shards of one node, as gateways reach them: in this process or over the wire.
//!
//! `actors` implements it for this node's shards, `cluster` for a remote node's and, choosing
//! between them, for the doors (as [`super::ShardClient`]).

use std::sync::Arc;

use bytes::Bytes;

use super::{BoxFuture, Downlink, EventRun, QueryError};
use crate::command::{Command, Consistency, Outcome, Query, ReadFrom, View};
use crate::id::{DeviceId, NodeId, ShardId, StreamId};
use crate::trace::TraceContext;

/// What a gateway sends to a shard in one piece. The unit of retry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Which gateway run it comes from.
    pub stream: StreamId,
    /// Dense from 1 within the stream.
    pub sequence: u64,
    /// Telemetry records, one after the other, as the gateway wrote them.
    pub records: Bytes,
    /// Number of records.
    pub record_count: u32,
    /// Commands; they take effect after the records.
    pub commands: Vec<Command>,
    /// Of the first followed record in it, if there is one. Travels between nodes, never into the log.
    pub trace: Option<TraceContext>,
}

impl Frame {
    /// Bytes that it counts for in budgets and batches.
    pub fn weight_bytes(&self) -> usize {
        let commands: usize = self.commands.iter().map(Command::weight_bytes).sum();
        self.records.len() + 64 + commands
    }
}

/// What became of a frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrameOutcome {
    /// The frame's stream.
    pub stream: StreamId,
    /// The frame's sequence number.
    pub sequence: u64,
    /// Its end.
    pub result: FrameResult,
}

/// The ends that a frame can have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FrameResult {
    /// Applied, now or at an earlier try.
    Applied(FrameApplied),
    /// An earlier frame of the stream is missing: send again from there, in order.
    Gap {
        /// The sequence number that the shard will take next.
        expected: u64,
    },
    /// The shard does not know the stream (any more). What was not answered stays unknown.
    StreamUnknown,
    /// Answered before, and too long ago for the outcome to be kept.
    Forgotten,
}

/// What an applied frame did.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FrameApplied {
    /// Term of the entry.
    pub term: u64,
    /// Its index in the log.
    pub index: u64,
    /// Offset of the first stored record. Records follow densely, without the fenced ones.
    pub first_offset: u64,
    /// Records in the frame.
    pub record_count: u32,
    /// Places of records that were fenced, ascending.
    pub fenced: Vec<u32>,
    /// Outcomes of the frame's commands, in order.
    pub outcomes: Vec<Outcome>,
}

/// Why a node did not take a frame. It had no effect and may be sent elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, thiserror::Error)]
pub enum ServeError {
    /// This node does not lead the shard.
    #[error("not the leader")]
    NotLeader {
        /// Who may be, if known.
        hint: Option<NodeId>,
    },
    /// The shard's budget of waiting bytes is used up, or its store is full.
    #[error("the shard takes no more: {0}")]
    Refused(String),
}

/// Where a shard's answers to one gateway go. Never blocks: the in-flight bound of the stream bounds it.
pub trait FrameSink: Send + Sync {
    /// A frame's end, or an order to send again.
    fn on_outcome(&self, shard: ShardId, outcome: FrameOutcome);

    /// This node no longer leads the shard: what was not answered must go to the new leader.
    fn on_lost(&self, shard: ShardId, hint: Option<NodeId>);

    /// The leader can store nothing more, or can again. What it has taken waits and is stored in its time;
    /// what a gateway has not put on its way yet it refuses, since nothing of that has happened.
    fn on_storage_full(&self, shard: ShardId, is_full: bool);

    /// Something for a connection of this gateway. `term` fences leaders that do not know yet that they are not.
    fn on_downlink(&self, shard: ShardId, term: u64, downlink: Downlink);
}

/// A page of events.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EventPage {
    /// The runs; the first may begin before the asked offset, since a run is never cut.
    pub runs: Vec<EventRun>,
    /// The offset that was asked for, resolved.
    pub from: u64,
    /// First offset that can still be read.
    pub first_offset: u64,
    /// Offset that the next event will get, when the page was made.
    pub next_offset: u64,
}

/// What a gateway says of its stream when it asks a leader to take it.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StreamOpening {
    /// Which gateway run it is.
    pub stream: StreamId,
    /// Rises with every try of this stream, at whichever node. A gateway gives a try up and makes the
    /// next one while the first may still wait for a leader to be elected, so that both come to the same
    /// one, in any order: the higher one counts.
    pub attempt: u64,
    /// The lowest sequence number that the gateway may still send, or 0 for a stream that no leader has
    /// confirmed yet. Only such a stream is made known: one that was confirmed and is no longer known
    /// answers [`FrameResult::StreamUnknown`] and is never taken for new.
    pub resume: u64,
    /// Sessions that the gateway holds in this shard, with their epochs.
    pub sessions: Vec<(DeviceId, u64)>,
}

/// The shards of one node.
pub trait ShardServer: Send + Sync + 'static {
    /// Opens (or opens again, after a change of leader) the stream of a gateway to a shard. Resolves
    /// once the shard knows the stream through its log; answers and downlinks go to `sink` from then on,
    /// until a later attempt of the same stream brings another.
    fn open_stream(
        &self,
        shard: ShardId,
        opening: StreamOpening,
        sink: Arc<dyn FrameSink>,
    ) -> BoxFuture<'_, Result<(), ServeError>>;

    /// Hands over a frame. On success the stream's sink will be told its end. Must not block.
    fn submit(&self, shard: ShardId, frame: Frame) -> Result<(), ServeError>;

    /// A sign of life from a gateway on its stream; keeps its sessions in this shard alive.
    fn keep_alive(&self, shard: ShardId, stream: StreamId);

    /// Reads state.
    fn query(
        &self,
        shard: ShardId,
        query: Query,
        consistency: Consistency,
    ) -> BoxFuture<'_, Result<View, ReadError>>;

    /// Reads committed events from the leader, waiting up to `wait_ms` for some if there are none yet.
    fn read_events(
        &self,
        shard: ShardId,
        from: ReadFrom,
        bytes_max: usize,
        wait_ms: u64,
    ) -> BoxFuture<'_, Result<EventPage, ReadError>>;
}

/// Why a node did not answer a read.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize, thiserror::Error)]
pub enum ReadError {
    /// This node does not lead the shard, or could not prove that it still does.
    #[error("not the leader")]
    NotLeader {
        /// Who may be, if known.
        hint: Option<NodeId>,
    },
    /// The store failed.
    #[error("{0}")]
    Store(String),
}

impl From<ReadError> for QueryError {
    fn from(error: ReadError) -> QueryError {
        QueryError::Store(error.to_string())
    }
}
