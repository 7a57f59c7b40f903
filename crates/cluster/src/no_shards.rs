//! The shards of a node without the shard role: there are none, and whoever asks is sent elsewhere.

use std::sync::Arc;

use dunlin_model::command::{Consistency, Query, ReadFrom, View};
use dunlin_model::id::{ShardId, StreamId};
use dunlin_model::port::{
    BoxFuture, EventPage, Frame, FrameSink, ReadError, ServeError, ShardServer, StreamOpening,
};
use futures_util::FutureExt;

/// Leads nothing.
pub(crate) struct NoShards;

impl ShardServer for NoShards {
    fn open_stream(
        &self,
        _shard: ShardId,
        _opening: StreamOpening,
        _sink: Arc<dyn FrameSink>,
    ) -> BoxFuture<'_, Result<(), ServeError>> {
        async { Err(ServeError::NotLeader { hint: None }) }.boxed()
    }

    fn submit(&self, _shard: ShardId, _frame: Frame) -> Result<(), ServeError> {
        Err(ServeError::NotLeader { hint: None })
    }

    fn keep_alive(&self, _shard: ShardId, _stream: StreamId) {}

    fn query(
        &self,
        _shard: ShardId,
        _query: Query,
        _consistency: Consistency,
    ) -> BoxFuture<'_, Result<View, ReadError>> {
        async { Err(ReadError::NotLeader { hint: None }) }.boxed()
    }

    fn read_events(
        &self,
        _shard: ShardId,
        _from: ReadFrom,
        _bytes_max: usize,
        _wait_ms: u64,
    ) -> BoxFuture<'_, Result<EventPage, ReadError>> {
        async { Err(ReadError::NotLeader { hint: None }) }.boxed()
    }
}
