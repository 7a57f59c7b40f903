//! What the doors see of the cluster: one trait, whatever node they stand in.

use std::sync::Arc;

use bytes::Bytes;

use super::{BoxFuture, EventPage};
use crate::command::{Command, Consistency, Outcome, Query, ReadFrom, Settled, TelemetryAck, View};
use crate::directory::Directory;
use crate::id::{DeviceId, NodeId, ShardId, StreamId};
use crate::method::{Invocation, MethodAnswer, MethodError};
use crate::provisioning::book::{BookChange, BookRefusal};
use crate::quota::Plan;
use crate::routing::{Routing, RoutingError};
use crate::trace::TraceContext;

/// Why a command has no outcome.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SubmitError {
    /// It was not taken on: a bound is reached. Nothing happened; try again later.
    #[error("too much is waiting: {0}")]
    Busy(&'static str),
    /// It was taken on and no answer came in time. It may have happened, or may still happen.
    #[error("no answer in time; the command may or may not take effect")]
    Unknown,
    /// This gateway has lost sight of the directory and admits nothing.
    #[error("this gateway is cut off from the cluster")]
    CutOff,
    /// The shard's disk is full. Nothing happened; reads go on.
    #[error("storage is full; writes are refused until space returns")]
    StorageFull,
}

/// Why a query has no answer. Asking again is always safe; to give the cluster an order again is, unless it is
/// [`Unknown`](Self::Unknown) what became of it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// No leader answered in time.
    #[error("shard {0} has no reachable leader")]
    Unavailable(ShardId),
    /// The shard number is not in the map.
    #[error("shard {0} does not exist")]
    NoSuchShard(ShardId),
    /// The cluster was asked for something that it does not do.
    #[error("{0}")]
    Refused(String),
    /// The store behind it failed.
    #[error("{0}")]
    Store(String),
    /// This gateway has lost sight of the directory.
    #[error("this gateway is cut off from the cluster")]
    CutOff,
    /// The cluster was told to do something, and no answer came in time. It may have been done.
    #[error("no answer in time; the change may or may not take effect")]
    Unknown,
}

/// Why the book of provisioning was not changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BookError {
    /// It was asked, and says no.
    #[error(transparent)]
    Refused(#[from] BookRefusal),
    /// No answer came in time. The change may have been made.
    #[error("the directory has no leader that answers")]
    Unknown,
}

/// Why events do not go elsewhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RoutingChangeError {
    /// It makes no sense.
    #[error(transparent)]
    Refused(#[from] RoutingError),
    /// It is a change of another routing than the present one.
    #[error("the routing was changed meanwhile")]
    Changed,
    /// No answer came in time. The change may have been made.
    #[error("the directory has no leader that answers")]
    Unknown,
}

/// Why the hub is not held to another plan.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PlanError {
    /// There is no such plan.
    #[error("{0}")]
    Refused(String),
    /// No answer came in time. The change may have been made.
    #[error("the directory has no leader that answers")]
    Unknown,
}

/// Where acknowledgements of telemetry go: one per connection.
///
/// Called from the consensus runtime: push, notify, return. Never blocks.
pub trait AckSink: Send + Sync {
    /// The record submitted with `token` has this end. Tokens of one device come in log order.
    fn on_ack(&self, token: u64, ack: TelemetryAck);
}

/// What the cluster sends down to a connection of this gateway.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Downlink {
    /// To whom.
    pub device: DeviceId,
    /// To which session; an older or newer one ignores it.
    pub epoch: u64,
    /// What.
    pub kind: DownlinkKind,
}

/// The kinds of things sent down.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum DownlinkKind {
    /// The session is over: close the connection.
    SessionEnded(SessionEnd),
    /// A service wants something else of the device. May come more than once, and out of order.
    DesiredChanged {
        /// Version that the change made.
        version: u64,
        /// A merge document as JSON text, without `$version`.
        patch: String,
    },
    /// Messages wait for the device: the session may take them. May come more than once, and in vain.
    MessagesWaiting,
}

/// Why a session was ended from above.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub enum SessionEnd {
    /// The same device connected again.
    TakenOver,
    /// The device was disabled or its key rolled.
    CredentialRevoked,
    /// The device was deleted.
    Deleted,
    /// The shard gave the gateway up for lost.
    GatewayLost,
}

/// Where things sent down to this gateway arrive. Never blocks.
pub trait DownlinkSink: Send + Sync {
    /// Hand `downlink` to the connection that holds the session, if it is still here.
    fn on_downlink(&self, downlink: Downlink);

    /// The sessions that this gateway holds, so that a new leader can compare.
    fn sessions(&self) -> Vec<(DeviceId, u64)>;

    /// Asks the device of a session that is here, once, and waits for its answer.
    /// Doors without devices hold none.
    fn invoke(&self, _invocation: Invocation) -> BoxFuture<'static, Result<MethodAnswer, MethodError>> {
        Box::pin(std::future::ready(Err(MethodError::NotHere)))
    }
}

/// The cluster, as doors see it. Implemented by `cluster`'s router.
pub trait ShardClient: Send + Sync + 'static {
    /// Who this gateway is in the eyes of the shard that `device` belongs to, just now. After a shard
    /// gave this gateway up for lost it is a new stream, and sessions of the old one are over.
    fn stream_id(&self, device: &DeviceId) -> StreamId;

    /// The directory as this node sees it now.
    fn directory(&self) -> Arc<Directory>;

    /// The directory, with every change that was answered before this call. Costs a question to its leader.
    fn directory_now(&self) -> BoxFuture<'_, Result<Arc<Directory>, QueryError>>;

    /// Changes enrolment groups or linked hubs.
    fn change_book(&self, change: BookChange) -> BoxFuture<'_, Result<(), BookError>>;

    /// Has events go elsewhere; `if_version` names the routing that this is a change of, if that matters.
    fn put_routing(
        &self,
        routing: Routing,
        if_version: Option<u64>,
    ) -> BoxFuture<'_, Result<(), RoutingChangeError>>;

    /// Holds the hub to another plan, or to none.
    fn put_plan(&self, plan: Option<Plan>) -> BoxFuture<'_, Result<(), PlanError>>;

    /// Whether the directory was confirmed recently enough to admit anybody.
    fn is_fresh(&self) -> bool;

    /// The shard of a device.
    fn shard_of(&self, device: &DeviceId) -> ShardId;

    /// Submits one telemetry record (see [`crate::telemetry`]); its end goes to `sink` with `token`.
    ///
    /// Records of one device are stored in the order of these calls. Returns [`SubmitError::Busy`]
    /// without taking the record when the budget of waiting bytes is used up; wait for
    /// [`ready`](ShardClient::ready) and call again.
    fn submit_telemetry(
        &self,
        device: &DeviceId,
        record: &[u8],
        sink: &Arc<dyn AckSink>,
        token: u64,
    ) -> Result<(), SubmitError>;

    /// The same for a record that is followed. Who follows nothing forgets the trace.
    fn submit_followed(
        &self,
        device: &DeviceId,
        record: &[u8],
        sink: &Arc<dyn AckSink>,
        token: u64,
        _trace: TraceContext,
    ) -> Result<(), SubmitError> {
        self.submit_telemetry(device, record, sink, token)
    }

    /// Resolves when the budget of waiting bytes has room again.
    fn ready(&self) -> BoxFuture<'_, ()>;

    /// Submits a command and waits for its outcome, and where it took effect.
    fn submit_for_receipt(&self, command: Command) -> BoxFuture<'_, Result<Settled, SubmitError>>;

    /// The same for whoever needs no receipt.
    fn submit(&self, command: Command) -> BoxFuture<'_, Result<Outcome, SubmitError>> {
        let submitting = self.submit_for_receipt(command);
        Box::pin(async move { Ok(submitting.await?.outcome) })
    }

    /// Reads state.
    fn query(&self, query: Query, consistency: Consistency) -> BoxFuture<'_, Result<View, QueryError>>;

    /// Reads committed events of a shard. At the end of the log it waits up to `wait_ms` for more.
    fn read_events(
        &self,
        shard: ShardId,
        from: ReadFrom,
        bytes_max: usize,
        wait_ms: u64,
    ) -> BoxFuture<'_, Result<EventPage, QueryError>>;

    /// Has the gateway on node `gateway` ask a device. Never asks twice, whatever is lost on the way.
    fn invoke(
        &self,
        gateway: NodeId,
        invocation: Invocation,
    ) -> BoxFuture<'_, Result<MethodAnswer, MethodError>>;

    /// The gateways that take readers over Kafka and are there, this one among them: node and `host:port`, by node.
    fn brokers(&self) -> Vec<(NodeId, String)>;

    /// This gateway's node.
    fn node(&self) -> NodeId;

    /// Names the place where downlinks for this gateway go. Called once, before the doors open.
    fn attach(&self, sink: Arc<dyn DownlinkSink>);

    /// What an operator may ask of the cluster as a whole; JSON in and out, see `cluster::admin`.
    fn admin(&self, request: Bytes) -> BoxFuture<'_, Result<Bytes, QueryError>>;
}
