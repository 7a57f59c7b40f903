//! openraft's network over `transport`: one long-lived stream per replication session, calls for the rest.
//!
//! Heartbeats go over the control connection as calls, where those of all groups that are due
//! together leave in one packet; log entries go over the bulk connection, so that they never delay one.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dunlin_model::id::{GroupId, NodeId, ReplicaId};
use dunlin_model::point::Point;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, Stream, StreamExt};
use openraft::OptionalSend;
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
    RaftNetworkFactory,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendResult, TransferLeaderRequest,
    TransferLeaderResponse, VoteRequest, VoteResponse,
};

use super::snapshot::{self, SnapshotData};
use super::{Place, TypeConfig, Vote, convert};
use crate::blocking::blocking;
use crate::codec;
use crate::messages::{AppendReply, Request, Response, SnapshotHead, StreamHead, VoteAnswer};
use crate::transport::{CallError, FrameReader, FrameWriter, Lane, Peers};

/// Pause before a follower that could not be reached is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(50);
/// Silence on an append stream with requests under way after which it is given up.
const APPEND_STALL_MAX: Duration = Duration::from_millis(1_500);
/// Silence of a follower that is being sent a snapshot after which it is given up.
const SNAPSHOT_STALL_MAX: Duration = Duration::from_secs(30);

type Rpc<T> = Result<T, RPCError<TypeConfig>>;
type AppendResults<'s> = BoxStream<'s, Rpc<StreamAppendResult<TypeConfig>>>;

/// Makes clients for the members of one group.
pub(crate) struct Network {
    pub(crate) group: GroupId,
    pub(crate) peers: Arc<Peers>,
    /// How long a heartbeat may go without an answer: the next one, which is another packet, waits for it.
    pub(crate) heartbeat_wait: Duration,
}

/// What a client is used for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Replication,
    Heartbeat,
}

/// A client for one member.
pub(crate) struct Client {
    group: GroupId,
    to: ReplicaId,
    node: NodeId,
    peers: Arc<Peers>,
    heartbeat_wait: Duration,
    used_for: Use,
}

impl Network {
    fn client(&self, target: u64, place: &Place, used_for: Use) -> Client {
        let (group, to, node, peers) = (self.group, ReplicaId(target), place.0, self.peers.clone());
        Client {
            group,
            to,
            node,
            peers,
            heartbeat_wait: self.heartbeat_wait,
            used_for,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Client;

    async fn new_client(&mut self, target: u64, place: &Place) -> Client {
        self.client(target, place, Use::Replication)
    }

    async fn new_heartbeat_client(&mut self, target: u64, place: &Place) -> Client {
        self.client(target, place, Use::Heartbeat)
    }
}

fn rpc_error(error: CallError) -> RPCError<TypeConfig> {
    match &error {
        CallError::Unreachable(..) => RPCError::Unreachable(Unreachable::new(&error)),
        CallError::Lost | CallError::Timeout => RPCError::Network(NetworkError::new(&error)),
    }
}

fn network_error(what: &str) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::from_string(what))
}

fn gone() -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::from_string("the replica is not served there"))
}

impl Client {
    async fn call(&self, request: Request, deadline: Duration) -> Rpc<Response> {
        let answer = self.peers.call(self.node, Lane::Control, request, deadline).await;
        answer.map(|(response, _)| response).map_err(rpc_error)
    }

    async fn heartbeat(&self, request: AppendEntriesRequest<TypeConfig>) -> Rpc<AppendResults<'static>> {
        let (head, _) = convert::append_out(&request);
        let request = Request::Heartbeat {
            group: self.group,
            to: self.to,
            head,
        };
        match self.call(request, self.heartbeat_wait).await? {
            Response::Heartbeat(reply) => {
                let result = convert::reply_in(reply).ok_or_else(gone)?;
                Ok(futures_util::stream::once(async { Ok(result) }).boxed())
            }
            _ => Err(gone()),
        }
    }

    async fn replicate<S>(&self, input: S) -> Rpc<AppendResults<'static>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let head = StreamHead::Append {
            group: self.group,
            to: self.to,
        };
        let (writer, reader) = self.peers.open(self.node, &head).await.map_err(rpc_error)?;
        // The end of the input, seen by the sending half, ends the answers once all have come.
        let sent = Arc::new(Mutex::new(Sent::default()));
        let sender = tokio::spawn(send_appends(input, writer, sent.clone()));
        let state = Answers {
            reader,
            sent,
            sender: AbortOnDrop(sender),
            failed: false,
        };
        Ok(futures_util::stream::unfold(state, next_answer).boxed())
    }

    async fn ask(&self, vote: VoteRequest<TypeConfig>, pre: bool, deadline: Duration) -> Rpc<VoteAnswer> {
        let (group, to, ask) = (self.group, self.to, convert::ask_out(&vote));
        let request = if pre {
            Request::PreVote { group, to, ask }
        } else {
            Request::Vote { group, to, ask }
        };
        match self.call(request, deadline).await? {
            Response::Vote(answer) => Ok(answer),
            _ => Err(gone()),
        }
    }
}

#[derive(Default)]
struct Sent {
    /// Requests that have no answer yet.
    waiting: VecDeque<()>,
    ended: bool,
}

struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn send_appends<S>(mut input: S, mut writer: FrameWriter, sent: Arc<Mutex<Sent>>)
where
    S: Stream<Item = AppendEntriesRequest<TypeConfig>> + Unpin,
{
    while let Some(request) = input.next().await {
        let (head, bodies) = convert::append_out(&request);
        sent.lock().expect("no panic holds it").waiting.push_back(());
        let head = codec::encode(&head);
        let mut length = bytes::BytesMut::with_capacity(4);
        bytes::BufMut::put_u32_le(&mut length, head.len() as u32);
        writer.put([length.freeze(), head].into_iter().chain(bodies));
        if writer.flush().await.is_err() {
            return;
        }
    }
    sent.lock().expect("no panic holds it").ended = true;
    writer.finish();
}

struct Answers {
    reader: FrameReader,
    sent: Arc<Mutex<Sent>>,
    sender: AbortOnDrop,
    failed: bool,
}

async fn next_answer(mut state: Answers) -> Option<(Rpc<StreamAppendResult<TypeConfig>>, Answers)> {
    if state.failed {
        return None;
    }
    let frame = loop {
        match tokio::time::timeout(APPEND_STALL_MAX, state.reader.next()).await {
            Ok(frame) => break frame,
            Err(_) if state.sent.lock().expect("no panic holds it").waiting.is_empty() => {
                // Nothing is under way: an idle leader may be silent here for as long as it likes.
                if state.sender.0.is_finished() {
                    return None;
                }
            }
            Err(_) => {
                state.failed = true;
                return Some((Err(network_error("the follower does not answer")), state));
            }
        }
    };
    let answer = match frame {
        Ok(Some(frame)) => {
            codec::decode::<AppendReply>(&frame).map_err(|error| network_error(&error.to_string()))
        }
        Ok(None) => {
            let sent = state.sent.lock().expect("no panic holds it");
            if sent.ended && sent.waiting.is_empty() {
                return None;
            }
            Err(network_error("the follower ended the stream"))
        }
        Err(error) => Err(network_error(&error.to_string())),
    };
    state.sent.lock().expect("no panic holds it").waiting.pop_front();
    let answer = answer.and_then(|reply| convert::reply_in(reply).ok_or_else(gone));
    state.failed = !matches!(answer, Ok(Ok(_)));
    Some((answer, state))
}

impl NetStreamAppend<TypeConfig> for Client {
    fn stream_append<'s, S>(&'s mut self, mut input: S, _: RPCOption) -> BoxFuture<'s, Rpc<AppendResults<'s>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        async move {
            // openraft waits out its pause after a failure where it makes a request. A stream that is opened
            // before there is one is refused before there is one, and the next attempt follows at once, for ever.
            let Some(first) = input.next().await else {
                return Ok(futures_util::stream::empty().boxed());
            };
            let results: AppendResults<'s> = match self.used_for {
                Use::Heartbeat => self.heartbeat(first).await?,
                Use::Replication => {
                    let input = futures_util::stream::iter([first]).chain(input);
                    self.replicate(input).await?
                }
            };
            Ok(results)
        }
        .boxed()
    }
}

impl NetVote<TypeConfig> for Client {
    async fn vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        self.ask(rpc, false, option.hard_ttl())
            .await
            .map(convert::answer_in)
    }

    async fn pre_vote(
        &mut self,
        rpc: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<VoteResponse<TypeConfig>> {
        self.ask(rpc, true, option.hard_ttl())
            .await
            .map(convert::answer_in)
    }
}

impl NetTransferLeader<TypeConfig> for Client {
    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Rpc<TransferLeaderResponse<TypeConfig>> {
        let (group, to) = (self.group, self.to);
        let request = Request::TransferLeader {
            group,
            to,
            from: convert::vote_out(request.from_leader()),
            target: *request.to_node_id(),
            last: convert::position_of(request.last_log_id()),
        };
        match self.call(request, option.hard_ttl()).await? {
            Response::Transferred(true) => Ok(Ok(())),
            Response::Transferred(false) => Err(network_error("the member refused to take over")),
            _ => Err(gone()),
        }
    }
}

impl NetSnapshot<TypeConfig> for Client {
    type SnapshotData = SnapshotData;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: openraft::alias::SnapshotOf<TypeConfig, SnapshotData>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let head = StreamHead::Snapshot {
            group: self.group,
            to: self.to,
            vote: convert::vote_out(&vote),
            head: SnapshotHead {
                last: snapshot::position(snapshot.meta.last_log_id.as_ref()),
                membership: convert::membership_out(snapshot.meta.last_membership.membership()),
                membership_at: convert::position_of(snapshot.meta.last_membership.log_id().as_ref()),
            },
        };
        let SnapshotData::View(view) = snapshot.snapshot else {
            return Err(network_error("a snapshot that arrived is not sent on").into());
        };
        let (group, to) = (self.group, self.to);
        tracing::info!(%group, replica = to.0, node = %self.node, "sends a snapshot");
        let sent = send_snapshot(&self.peers, self.node, head, view);
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            answer = sent => answer.map_err(StreamingError::from),
        }
    }
}

async fn send_snapshot(
    peers: &Peers,
    node: NodeId,
    head: StreamHead,
    mut view: Box<snapshot::SnapshotView>,
) -> Rpc<SnapshotResponse<TypeConfig>> {
    let stalled = || network_error("the follower takes no more of the snapshot");
    let (mut writer, mut reader) = peers.open(node, &head).await.map_err(rpc_error)?;
    let kept = tokio::time::timeout(SNAPSHOT_STALL_MAX, reader.next()).await;
    match kept.map_err(|_| stalled())? {
        Ok(Some(kept)) => {
            view.leave_out(codec::decode(&kept).map_err(|error| network_error(&error.to_string()))?);
        }
        _ => return Err(network_error("the follower takes no snapshot")),
    }
    loop {
        // It reads the disk, which must not hold up those who share this thread.
        let read = blocking(move || view.next_frame().map(|frame| (view, frame)));
        let (rest, frame) = read
            .await
            .map_err(|error| network_error(&error.to_string()))?
            .map_err(|error| network_error(&error.to_string()))?;
        let Some(frame) = frame else { break };
        view = rest;
        let sent = tokio::time::timeout(SNAPSHOT_STALL_MAX, writer.send([frame])).await;
        sent.map_err(|_| stalled())?
            .map_err(|error| network_error(&error.to_string()))?;
    }
    writer.finish();
    let answer = tokio::time::timeout(SNAPSHOT_STALL_MAX, reader.next())
        .await
        .map_err(|_| stalled())?;
    match answer {
        Ok(Some(frame)) => {
            Point::SnapshotSent.reach();
            let vote = codec::decode(&frame).map_err(|error| network_error(&error.to_string()))?;
            Ok(SnapshotResponse::new(convert::vote_in(vote)))
        }
        _ => Err(network_error("the follower did not install the snapshot")),
    }
}

impl NetBackoff<TypeConfig> for Client {
    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(RETRY_AFTER)))
    }
}
