//! The road from the doors to the shards: [`ShardClient`] over whatever nodes lead just now.
//!
//! One lane per shard (`lane`) keeps that shard's stream, finds its leader and sends everything
//! unanswered again when the leader changes. Devices notice nothing but a pause.

mod lane;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::Duration;

use bytes::Bytes;
use dunlin_model::command::{Command, Consistency, Place, Query, ReadFrom, Settled, View};
use dunlin_model::directory::{Directory, DirectoryCommand, DirectoryRefusal, Role};
use dunlin_model::id::{DeviceId, NodeId, ShardId, Slot, StreamId};
use dunlin_model::method::{Invocation, MethodAnswer, MethodError};
use dunlin_model::port::{
    AckSink, BookError, BoxFuture, Clock as _, DownlinkSink, EventPage, PlanError, QueryError, ReadError,
    RoutingChangeError, ShardClient, ShardServer, SubmitError,
};
use dunlin_model::provisioning::book::BookChange;
use dunlin_model::quota::Plan;
use dunlin_model::routing::Routing;
use dunlin_model::trace::TraceContext;
use futures_util::FutureExt;
use tokio::sync::Notify;

use crate::changes::ChangeError;
use crate::invocations;
use crate::node::Shared;
use crate::remote::RemoteShards;
use lane::Lane;

/// Bytes of records that may wait for their end in this gateway.
const WAITING_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Bytes below which readers that were held back go on.
const WAITING_BYTES_RESUME: usize = WAITING_BYTES_MAX / 2;
/// How long a command may take before its outcome is unknown.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a query looks for a leader.
const QUERY_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause between two rounds of looking for a leader.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Bytes that wait, and who waits for them to become fewer.
#[derive(Default)]
pub(crate) struct Budget {
    bytes: AtomicUsize,
    room: Notify,
}

impl Budget {
    fn take(&self, bytes: usize) -> bool {
        if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes > WAITING_BYTES_MAX {
            self.give(bytes);
            return false;
        }
        true
    }

    fn give(&self, bytes: usize) {
        let before = self.bytes.fetch_sub(bytes, Ordering::Relaxed);
        if before >= WAITING_BYTES_RESUME && before - bytes < WAITING_BYTES_RESUME {
            self.room.notify_waiters();
        }
    }
}

/// The router of one node.
pub(crate) struct Router {
    shared: Arc<Shared>,
    lanes: RwLock<Vec<Arc<Lane>>>,
    remotes: Mutex<HashMap<NodeId, Arc<RemoteShards>>>,
    budget: Arc<Budget>,
}

impl Router {
    pub(crate) fn new(shared: Arc<Shared>) -> Arc<Self> {
        Arc::new(Self {
            shared,
            lanes: RwLock::default(),
            remotes: Mutex::default(),
            budget: Arc::default(),
        })
    }

    /// Makes a lane for every shard of the map. Called when the directory is formed or changes.
    pub(crate) fn lay_lanes(self: &Arc<Self>, directory: &Directory) {
        let mut lanes = self.lanes.write().expect("no panic holds it");
        for shard in directory.shards().skip(lanes.len()) {
            lanes.push(Lane::start(shard, self));
        }
    }

    /// A node is thought dead: lanes that lead there look elsewhere.
    pub(crate) fn on_suspect(&self, node: NodeId) {
        for lane in self.lanes.read().expect("no panic holds it").iter() {
            lane.on_suspect(node);
        }
    }

    /// Ends all lanes; what waits is answered with "unknown".
    pub(crate) fn stop(&self) {
        for lane in self.lanes.write().expect("no panic holds it").drain(..) {
            lane.stop();
        }
    }

    fn lane(&self, shard: ShardId) -> Option<Arc<Lane>> {
        self.lanes
            .read()
            .expect("no panic holds it")
            .get(shard.0 as usize)
            .cloned()
    }

    /// Why there is no lane to a shard. A node that starts has its doors open before its lanes: it cannot say that
    /// there is no such shard, nor, by that, that there is no such device.
    fn without_lane(&self, shard: ShardId) -> QueryError {
        let directory = self.shared.view.load();
        if directory.is_formed() && shard.0 >= directory.shard_count {
            QueryError::NoSuchShard(shard)
        } else {
            QueryError::CutOff
        }
    }

    /// The shards of `node`, in this process or over the wire.
    fn server(&self, node: NodeId) -> Arc<dyn ShardServer> {
        if node == self.shared.node {
            return self.shared.shards();
        }
        let mut remotes = self.remotes.lock().expect("no panic holds it");
        let fresh = || Arc::new(RemoteShards::new(node, self.shared.peers.clone()));
        remotes.entry(node).or_insert_with(fresh).clone()
    }

    /// Nodes that may lead `shard`, the likeliest first.
    fn candidates(&self, shard: ShardId, hint: Option<NodeId>) -> Vec<NodeId> {
        let directory = self.shared.view.get();
        let mut nodes: Vec<NodeId> = hint.into_iter().collect();
        nodes.extend(
            self.shared
                .group(shard.group())
                .and_then(|group| group.leader_node()),
        );
        if let Some(group) = directory.groups.get(&shard.group()) {
            let preferred = group.preferred_leader.and_then(|id| group.replicas.get(&id));
            nodes.extend(preferred.map(|replica| replica.node));
            nodes.extend(group.replicas.values().map(|replica| replica.node));
        }
        let mut seen = std::collections::BTreeSet::new();
        let now = self.shared.clock.monotonic_ms();
        nodes.retain(|node| seen.insert(*node) && !self.shared.detector.suspects(*node, now));
        nodes
    }

    /// The shard of a device; none before the cluster is formed, when doors are open already.
    fn place_of(&self, device: &DeviceId) -> Option<ShardId> {
        self.shard_of_slot(device.slot())
    }

    fn shard_of_slot(&self, slot: Slot) -> Option<ShardId> {
        let directory = self.shared.view.load();
        directory.is_formed().then(|| directory.shard_of(slot))
    }

    fn shard_at(&self, place: Place<'_>) -> Option<ShardId> {
        match place {
            Place::Device(device) => self.place_of(device),
            Place::Shard(shard) => Some(shard),
            Place::Slot(slot) => self.shard_of_slot(slot),
        }
    }

    fn submit_record(
        &self,
        device: &DeviceId,
        record: &[u8],
        (sink, token): (&Arc<dyn AckSink>, u64),
        trace: Option<TraceContext>,
    ) -> Result<(), SubmitError> {
        let shard = self.place_of(device).ok_or(SubmitError::CutOff)?;
        let lanes = self.lanes.read().expect("no panic holds it");
        let lane = lanes.get(shard.0 as usize).ok_or(SubmitError::CutOff)?;
        if !self.budget.take(record.len()) {
            return Err(SubmitError::Busy("bytes that wait for their acknowledgement"));
        }
        lane.submit_record(record, sink.clone(), token, trace)
            .inspect_err(|_| self.budget.give(record.len()))
    }

    /// Asks the leader of `shard`, whoever that is, until it answers or time is up.
    async fn ask<T>(
        &self,
        shard: ShardId,
        ask: impl Fn(Arc<dyn ShardServer>) -> BoxFuture<'static, Result<T, ReadError>> + Send,
    ) -> Result<T, QueryError> {
        let lane = self.lane(shard).ok_or_else(|| self.without_lane(shard))?;
        let looking = async {
            let mut hint = lane.leader();
            loop {
                for node in self.candidates(shard, hint) {
                    let answer = tokio::select! {
                        answer = ask(self.server(node)) => answer,
                        () = self.shared.suspected(node) => Err(ReadError::NotLeader { hint: None }),
                    };
                    match answer {
                        Ok(answer) => return Ok(answer),
                        Err(ReadError::NotLeader { hint: Some(other) }) if hint != Some(other) => {
                            hint = Some(other);
                            break;
                        }
                        Err(ReadError::NotLeader { .. }) => hint = None,
                        Err(ReadError::Store(reason)) => return Err(QueryError::Store(reason)),
                    }
                }
                tokio::time::sleep(LOOK_AGAIN).await;
            }
        };
        tokio::time::timeout(QUERY_TIMEOUT, looking)
            .await
            .unwrap_or(Err(QueryError::Unavailable(shard)))
    }
}

impl ShardClient for Router {
    fn stream_id(&self, device: &DeviceId) -> StreamId {
        match self.place_of(device).and_then(|shard| self.lane(shard)) {
            Some(lane) => lane.stream(),
            None => StreamId {
                gateway: self.shared.node,
                incarnation: 0,
            },
        }
    }

    fn directory(&self) -> Arc<Directory> {
        self.shared.view.get()
    }

    fn directory_now(&self) -> BoxFuture<'_, Result<Arc<Directory>, QueryError>> {
        self.shared.directory_now().boxed()
    }

    fn change_book(&self, change: BookChange) -> BoxFuture<'_, Result<(), BookError>> {
        async move {
            let changed = self.shared.change_directory(DirectoryCommand::Book(change)).await;
            match changed {
                Ok(_) => Ok(()),
                Err(ChangeError::Refused(DirectoryRefusal::Book(refusal))) => Err(refusal.into()),
                Err(ChangeError::Refused(_) | ChangeError::Unavailable) => Err(BookError::Unknown),
            }
        }
        .boxed()
    }

    fn put_routing(
        &self,
        routing: Routing,
        if_version: Option<u64>,
    ) -> BoxFuture<'_, Result<(), RoutingChangeError>> {
        async move {
            let routing = Box::new(routing);
            let command = DirectoryCommand::RoutingPut { routing, if_version };
            match self.shared.change_directory(command).await {
                Ok(_) => Ok(()),
                Err(ChangeError::Refused(DirectoryRefusal::Routing(error))) => Err(error.into()),
                Err(ChangeError::Refused(DirectoryRefusal::RoutingChanged)) => {
                    Err(RoutingChangeError::Changed)
                }
                Err(ChangeError::Refused(_) | ChangeError::Unavailable) => Err(RoutingChangeError::Unknown),
            }
        }
        .boxed()
    }

    fn put_plan(&self, plan: Option<Plan>) -> BoxFuture<'_, Result<(), PlanError>> {
        async move {
            match self
                .shared
                .change_directory(DirectoryCommand::PlanPut(plan))
                .await
            {
                Ok(_) => Ok(()),
                Err(ChangeError::Refused(DirectoryRefusal::Invalid(why))) => Err(PlanError::Refused(why)),
                Err(ChangeError::Refused(_) | ChangeError::Unavailable) => Err(PlanError::Unknown),
            }
        }
        .boxed()
    }

    fn is_fresh(&self) -> bool {
        // A node that was removed admits nobody, however well it hears the others.
        self.shared.view.is_fresh(self.shared.clock.monotonic_ms()) && !self.shared.is_out(self.shared.node)
    }

    fn shard_of(&self, device: &DeviceId) -> ShardId {
        // Before there are shards, one that there never is.
        self.place_of(device).unwrap_or(ShardId(u32::MAX))
    }

    fn submit_telemetry(
        &self,
        device: &DeviceId,
        record: &[u8],
        sink: &Arc<dyn AckSink>,
        token: u64,
    ) -> Result<(), SubmitError> {
        self.submit_record(device, record, (sink, token), None)
    }

    fn submit_followed(
        &self,
        device: &DeviceId,
        record: &[u8],
        sink: &Arc<dyn AckSink>,
        token: u64,
        trace: TraceContext,
    ) -> Result<(), SubmitError> {
        self.submit_record(device, record, (sink, token), Some(trace))
    }

    fn ready(&self) -> BoxFuture<'_, ()> {
        async {
            let room = self.budget.room.notified();
            tokio::pin!(room);
            room.as_mut().enable();
            if self.budget.bytes.load(Ordering::Relaxed) >= WAITING_BYTES_RESUME {
                room.await;
            }
        }
        .boxed()
    }

    fn submit_for_receipt(&self, command: Command) -> BoxFuture<'_, Result<Settled, SubmitError>> {
        async move {
            let shard = self.shard_at(command.place());
            let lane = shard
                .and_then(|shard| self.lane(shard))
                .ok_or(SubmitError::CutOff)?;
            let settled = lane.submit_command(command)?;
            match tokio::time::timeout(COMMAND_TIMEOUT, settled).await {
                Ok(Ok(Some(settled))) => Ok(settled),
                _ => Err(SubmitError::Unknown),
            }
        }
        .boxed()
    }

    fn query(&self, query: Query, consistency: Consistency) -> BoxFuture<'_, Result<View, QueryError>> {
        async move {
            let shard = self.shard_at(query.place()).ok_or(QueryError::CutOff)?;
            self.ask(shard, move |server| {
                let query = query.clone();
                async move { server.query(shard, query, consistency).await }.boxed()
            })
            .await
        }
        .boxed()
    }

    fn read_events(
        &self,
        shard: ShardId,
        from: ReadFrom,
        bytes_max: usize,
        wait_ms: u64,
    ) -> BoxFuture<'_, Result<EventPage, QueryError>> {
        async move {
            self.ask(shard, move |server| {
                async move { server.read_events(shard, from, bytes_max, wait_ms).await }.boxed()
            })
            .await
        }
        .boxed()
    }

    fn invoke(
        &self,
        gateway: NodeId,
        invocation: Invocation,
    ) -> BoxFuture<'_, Result<MethodAnswer, MethodError>> {
        invocations::invoke(&self.shared, gateway, invocation).boxed()
    }

    fn brokers(&self) -> Vec<(NodeId, String)> {
        let (shared, now_ms) = (&self.shared, self.shared.clock.monotonic_ms());
        let directory = shared.view.load();
        let is_there = |node: NodeId| {
            let is_member = directory
                .nodes
                .get(&node)
                .is_some_and(|entry| entry.roles.contains(&Role::Gateway));
            is_member && shared.detector.is_alive(node, now_ms)
        };
        let own = shared.config.kafka.clone().map(|address| (shared.node, address));
        let mut all = shared.brokers.those(|node| node != shared.node && is_there(node));
        all.extend(own);
        all.sort_unstable();
        all
    }

    fn node(&self) -> NodeId {
        self.shared.node
    }

    fn attach(&self, sink: Arc<dyn DownlinkSink>) {
        assert!(self.shared.downlink.set(sink).is_ok(), "a gateway attaches once");
    }

    fn admin(&self, request: Bytes) -> BoxFuture<'_, Result<Bytes, QueryError>> {
        crate::admin::handle(self.shared.clone(), request).boxed()
    }
}
