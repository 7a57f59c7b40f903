//! The shards' actors, as the cluster wants to see them: the one adapter between two crates that do not
//! know each other.

use std::sync::Arc;

use dunlin_actors::ActorHost;
use dunlin_cluster::ShardHost;
use dunlin_model::command::{Consistency, Query, ReadFrom, View};
use dunlin_model::id::{NodeId, ShardId, StreamId};
use dunlin_model::port::{
    AppliedEntry, AppliedSink, BoxFuture, EventPage, Frame, FrameSink, Leadership, ReadError, Replication,
    ServeError, ShardServer, StreamOpening,
};

/// [`ActorHost`] behind the traits that the cluster feeds and its peers reach.
pub struct HostedShards(pub Arc<ActorHost>);

impl ShardHost for HostedShards {
    fn add_shard(&self, shard: ShardId, replication: Arc<dyn Replication>) {
        if let Err(error) = self.0.add_shard(shard, replication) {
            tracing::error!(%shard, %error, "cannot host a shard");
        }
    }

    fn remove_shard(&self, shard: ShardId) -> BoxFuture<'_, ()> {
        Box::pin(self.0.remove_shard(shard))
    }
}

impl AppliedSink for HostedShards {
    fn on_applied(&self, shard: ShardId, entry: AppliedEntry) {
        self.0.on_applied(shard, entry);
    }

    fn on_leader(&self, shard: ShardId, leadership: Leadership) {
        self.0.on_leader(shard, leadership);
    }

    fn on_storage_full(&self, shard: ShardId, is_full: bool) {
        self.0.on_storage_full(shard, is_full);
    }

    fn on_follower(&self, shard: ShardId, leader: Option<NodeId>) {
        self.0.on_follower(shard, leader);
    }
}

impl ShardServer for HostedShards {
    fn open_stream(
        &self,
        shard: ShardId,
        opening: StreamOpening,
        sink: Arc<dyn FrameSink>,
    ) -> BoxFuture<'_, Result<(), ServeError>> {
        self.0.open_stream(shard, opening, sink)
    }

    fn submit(&self, shard: ShardId, frame: Frame) -> Result<(), ServeError> {
        self.0.submit(shard, frame)
    }

    fn keep_alive(&self, shard: ShardId, stream: StreamId) {
        self.0.keep_alive(shard, stream);
    }

    fn query(
        &self,
        shard: ShardId,
        query: Query,
        consistency: Consistency,
    ) -> BoxFuture<'_, Result<View, ReadError>> {
        self.0.query(shard, query, consistency)
    }

    fn read_events(
        &self,
        shard: ShardId,
        from: ReadFrom,
        bytes_max: usize,
        wait_ms: u64,
    ) -> BoxFuture<'_, Result<EventPage, ReadError>> {
        self.0.read_events(shard, from, bytes_max, wait_ms)
    }
}
