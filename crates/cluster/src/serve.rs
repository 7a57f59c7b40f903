//! What this node does with what its peers send: Raft's messages to its groups, frames and reads to
//! its shards, the rest to forming and administration.

use std::sync::{Arc, Mutex};

use bytes::{BufMut, Bytes, BytesMut};
use dunlin_model::alarm::Alarm;
use dunlin_model::id::{GroupId, NodeId, ReplicaId, ShardId, StreamId};
use dunlin_model::limits::READ_BYTES_MAX;
use dunlin_model::point::Point;
use dunlin_model::port::{
    BoxFuture, Clock as _, Downlink, FrameOutcome, FrameSink, Replication, ServeError, StoreError,
    StreamOpening,
};
use dunlin_model::shard::stored;
use dunlin_model::wire::Reader;
use futures_util::{FutureExt, StreamExt};
use openraft::raft::AppendEntriesRequest;
use tokio::sync::mpsc;

use crate::blocking::blocking;
use crate::codec;
use crate::group::Group;
use crate::messages::{
    AppendReply, Request, Response, ShardNotice, SnapshotHead, StreamHead, VoteAsk, WireVote,
};
use crate::node::Shared;
use crate::raft::snapshot::{Receiving, SnapshotData, Spooled, Spools};
use crate::raft::{StoredMembership, TypeConfig, convert, word};
use crate::remote::{
    TO_GATEWAY_NOTICE, TO_GATEWAY_OUTCOME, TO_SHARD_ALIVE, TO_SHARD_FOLLOWED, TO_SHARD_FRAME, read_frame,
    split_page,
};
use crate::transport::{FrameReader, FrameWriter, Handler};
use crate::{recover, repair};

/// Outcomes and downlinks that wait to be written to one gateway. A gateway that falls this far
/// behind is cut off and opens its stream again.
const TO_GATEWAY_MAX: usize = 4_096;
/// Append requests of one stream that wait for openraft.
const APPENDS_QUEUED_MAX: usize = 64;
/// Silence of a peer after which connections to it that are still open are not trusted. QUIC gives one up when
/// three of its probe time-outs have passed, and a node that was stopped for seconds takes them for round-trip
/// time: it could wait for half a minute on a connection whose other end has been started anew since.
const LONG_SILENCE_MS: u64 = 2_000;
/// Pause before a frame is offered again to a shard that is full. Meanwhile the stream is not read.
const FULL_PAUSE: std::time::Duration = std::time::Duration::from_millis(2);

/// The node, as its peers see it.
pub(crate) struct Server(pub(crate) Arc<Shared>);

impl Handler for Server {
    fn handle_call(
        self: Arc<Self>,
        from: NodeId,
        tag: u64,
        request: Request,
    ) -> BoxFuture<'static, (Response, Bytes)> {
        async move {
            if !is_for_strangers(&request) && !self.is_one_of_us(from, tag) {
                return (Response::NotHere { hint: None }, Bytes::new());
            }
            self.answer(from, request).await
        }
        .boxed()
    }

    fn handle_stream(
        self: Arc<Self>,
        from: NodeId,
        tag: u64,
        head: StreamHead,
        writer: FrameWriter,
        reader: FrameReader,
    ) -> BoxFuture<'static, ()> {
        async move {
            if !self.is_one_of_us(from, tag) {
                return;
            }
            match head {
                StreamHead::Append { group, to } => self.serve_append(group, to, writer, reader).await,
                StreamHead::Snapshot {
                    group,
                    to,
                    vote,
                    head,
                } => {
                    self.serve_snapshot(group, to, (vote, head), writer, reader).await;
                }
                StreamHead::Submit { shard, opening } => {
                    self.serve_submit(shard, opening, writer, reader).await;
                }
                StreamHead::Calls => tracing::warn!(%from, "a call stream inside a call stream"),
            }
        }
        .boxed()
    }

    fn handle_ping(&self, from: NodeId, wall_ms: u64) {
        self.0.clock.handle_ping(from, wall_ms);
        let silent_ms = self.0.detector.heard(from, self.0.clock.monotonic_ms());
        if silent_ms >= LONG_SILENCE_MS {
            Point::LinksDropped.reach();
            self.0.peers.drop_links(from);
        }
    }
}

/// What a node may ask that belongs to no cluster, or does not know yet that it was removed.
fn is_for_strangers(request: &Request) -> bool {
    matches!(
        request,
        Request::Hello(_)
            | Request::Promise(_)
            | Request::StandsBy(_)
            | Request::Form(_)
            | Request::Join { .. }
            | Request::Directory { .. }
    )
}

impl Server {
    /// Whether `from` speaks for this node's cluster and was not removed from it.
    fn is_one_of_us(&self, from: NodeId, tag: u64) -> bool {
        tag != 0 && tag == self.0.peers.tag().get() && !self.0.is_out(from)
    }

    async fn answer(&self, from: NodeId, request: Request) -> (Response, Bytes) {
        let nothing = Bytes::new();
        let response = match request {
            Request::Hello(hello) => Response::Hello(self.0.forming.on_hello(&self.0, hello)),
            Request::Promise(nodes) => Response::Promised(self.0.forming.on_promise(&self.0, &nodes)),
            Request::StandsBy(nodes) => Response::StandsBy(self.0.forming.on_stands_by(&self.0, &nodes)),
            Request::Form(directory) => {
                self.0.forming.on_form(&self.0, *directory).await;
                Response::Formed
            }
            Request::Heartbeat { group, to, head } => self.heartbeat(group, to, head).await,
            Request::Vote { group, to, ask } => self.vote(group, to, ask, false).await,
            Request::PreVote { group, to, ask } => self.vote(group, to, ask, true).await,
            Request::TransferLeader {
                group,
                to,
                from,
                target,
                last,
            } => self.transfer(group, to, from, target, last).await,
            Request::Leader(group) => Response::Leader(self.0.group(group).and_then(|group| {
                let sight = group.sight();
                sight
                    .leader
                    .and_then(|(_, node)| node)
                    .map(|node| (sight.term, node))
            })),
            Request::Join { roles } => Response::Joined(self.0.forming.on_join(&self.0, from, roles).await),
            Request::Segments(group) => repair::segments(&self.0, group),
            Request::SegmentPart {
                group,
                first_offset,
                position,
            } => return repair::part(&self.0, group, first_offset, position).await,
            Request::Adopt(directory) => {
                recover::adopt(&self.0, &directory);
                Response::Adopted
            }
            Request::Members(group) => self.members(group).await,
            Request::Directory { known } => self.directory(known).await,
            Request::ChangeDirectory(command) => match self.0.group(GroupId::DIRECTORY) {
                Some(group) => match group.change_directory(&command).await {
                    Ok(result) => Response::Changed(result),
                    Err(_) => Response::NotHere {
                        hint: group.leader_node(),
                    },
                },
                None => Response::NotHere { hint: None },
            },
            Request::Query {
                shard,
                query,
                consistency,
            } => Response::View(self.0.shards().query(shard, query, consistency).await),
            Request::ReadEvents {
                shard,
                from,
                bytes_max,
                wait_ms,
            } => {
                let bytes_max = (bytes_max as usize).min(READ_BYTES_MAX);
                match self.0.shards().read_events(shard, from, bytes_max, wait_ms).await {
                    Ok(page) => {
                        let (head, records) = split_page(page);
                        return (Response::Events(Ok(head)), records);
                    }
                    Err(error) => Response::Events(Err(error)),
                }
            }
            Request::Invoke { invocation, again } => {
                let asked = (invocation, again);
                let answer = self.0.invocations.serve(&self.0.downlink, from, asked);
                Response::Invoked(answer.await)
            }
            Request::Status => Response::Status(Box::new(self.0.status())),
        };
        tracing::trace!(%from, "answered a call");
        (response, nothing)
    }

    async fn members(&self, group: GroupId) -> Response {
        match self.0.group(group) {
            Some(group) if group.read_barrier().await.is_ok() => Response::Members(group.members().all()),
            Some(group) => Response::NotHere {
                hint: group.leader_node(),
            },
            None => Response::NotHere { hint: None },
        }
    }

    async fn directory(&self, known: (u64, u64)) -> Response {
        let confirmed = match self.0.group(GroupId::DIRECTORY) {
            Some(group) => group.confirms_directory().await,
            None => false,
        };
        let directory = self.0.view.get();
        let newer = (directory.rank() > known).then(|| Box::new((*directory).clone()));
        Response::Directory { newer, confirmed }
    }

    async fn heartbeat(&self, group: GroupId, to: ReplicaId, head: crate::messages::AppendHead) -> Response {
        let Some(group) = self.0.replica(group, to) else {
            return Response::Heartbeat(AppendReply::Gone);
        };
        let Ok(request) = convert::append_in(head, Bytes::new()) else {
            return Response::Heartbeat(AppendReply::Gone);
        };
        let once = futures_util::stream::once(async { request });
        let mut answers = Box::pin(group.raft().stream_append(once));
        let reply = match answers.next().await {
            Some(Ok(result)) => convert::reply_out(&result),
            _ => AppendReply::Gone,
        };
        word::handle_reply(self.0.witness(), group.log(), &reply);
        Response::Heartbeat(reply)
    }

    async fn vote(&self, group: GroupId, to: ReplicaId, ask: VoteAsk, pre: bool) -> Response {
        let Some(group) = self.0.replica(group, to) else {
            return Response::NotHere { hint: None };
        };
        let request = convert::ask_in(ask);
        let answer = if pre {
            group.raft().pre_vote(request).await
        } else {
            group.raft().vote(request).await
        };
        match answer {
            Ok(answer) => {
                let answer = convert::answer_out(&answer);
                if !pre {
                    word::handle_vote(self.0.witness(), group.log(), &answer);
                }
                Response::Vote(answer)
            }
            Err(_) => Response::NotHere { hint: None },
        }
    }

    async fn transfer(
        &self,
        group: GroupId,
        to: ReplicaId,
        from: WireVote,
        target: u64,
        last: Option<dunlin_model::id::LogPosition>,
    ) -> Response {
        let Some(group) = self.0.replica(group, to) else {
            return Response::Transferred(false);
        };
        let request = openraft::raft::TransferLeaderRequest::<TypeConfig>::new(
            convert::vote_in(from),
            target,
            last.map(convert::log_id),
        );
        Response::Transferred(matches!(
            group.raft().handle_transfer_leader(request).await,
            Ok(Ok(()))
        ))
    }

    async fn serve_append(
        &self,
        group: GroupId,
        to: ReplicaId,
        mut writer: FrameWriter,
        mut reader: FrameReader,
    ) {
        let Some(group) = self.0.replica(group, to) else {
            let _ = writer.send([codec::encode(&AppendReply::Gone)]).await;
            writer.finish();
            return;
        };
        let (sender, receiver) = mpsc::channel(APPENDS_QUEUED_MAX);
        let reading = async move {
            while let Ok(Some(frame)) = reader.next().await {
                let Some(request) = read_append(frame) else {
                    tracing::warn!("a peer sent an append that cannot be read");
                    return;
                };
                if sender.send(request).await.is_err() {
                    return;
                }
            }
        };
        // Entries that the journal may have no room for wait here, where votes and heartbeats pass them by: an
        // append that the journal refuses ends the replica. A leader that has given the stream up wants none.
        let room = group.room().clone();
        let requests = futures_util::stream::unfold(receiver, move |mut queue| {
            let room = room.clone();
            async move {
                let request: AppendEntriesRequest<TypeConfig> = queue.recv().await?;
                let may_pass = request.entries.is_empty() || room.wait(|| !queue.is_closed()).await;
                may_pass.then_some((request, queue))
            }
        });
        let mut answers = Box::pin(group.raft().stream_append(requests));
        let answering = async move {
            while let Some(answer) = answers.next().await {
                let reply = answer.as_ref().map_or(AppendReply::Gone, convert::reply_out);
                word::handle_reply(self.0.witness(), group.log(), &reply);
                if writer.send([codec::encode(&reply)]).await.is_err() {
                    return;
                }
            }
            writer.finish();
        };
        // The reader ends with the leader's stream; what is under way is still answered.
        let reading = tokio::spawn(reading);
        answering.await;
        reading.abort();
    }

    async fn serve_snapshot(
        &self,
        group: GroupId,
        to: ReplicaId,
        (vote, head): (WireVote, SnapshotHead),
        mut writer: FrameWriter,
        mut reader: FrameReader,
    ) {
        let Some(group) = self.0.replica(group, to) else {
            return;
        };
        let Some(spools) = &self.0.spools else { return };
        let spooled = match receive_snapshot(spools, &group, (&mut writer, &mut reader)).await {
            Ok(spooled) => spooled,
            Err(error) => {
                Point::SnapshotBroken.reach();
                tracing::warn!(replica = %group.id(), %error, "did not take a snapshot in");
                return;
            }
        };
        let membership = convert::membership_in(&head.membership);
        let meta = openraft::alias::SnapshotMetaOf::<TypeConfig> {
            last_log_id: head.last.map(convert::log_id),
            last_membership: StoredMembership::new(head.membership_at.map(convert::log_id), membership),
        };
        let snapshot = openraft::alias::SnapshotOf::<TypeConfig, _> {
            meta,
            snapshot: SnapshotData::Spooled(spooled),
        };
        match group
            .raft()
            .install_full_snapshot(convert::vote_in(vote), snapshot)
            .await
        {
            Ok(response) => {
                let _ = writer
                    .send([codec::encode(&convert::vote_out(&response.vote))])
                    .await;
                writer.finish();
            }
            Err(error) => {
                Alarm::SnapshotFailed.raise();
                tracing::error!(replica = %group.id(), %error, "cannot install a snapshot");
            }
        }
    }

    async fn serve_submit(
        &self,
        shard: ShardId,
        opening: StreamOpening,
        mut writer: FrameWriter,
        mut reader: FrameReader,
    ) {
        let (sender, mut queue) = mpsc::channel(TO_GATEWAY_MAX);
        let sink = Arc::new(WireSink {
            sender: Mutex::new(Some(sender)),
        });
        let stream = opening.stream;
        let opened = self.0.shards().open_stream(shard, opening, sink.clone()).await;
        let refused = opened.is_err();
        if writer.send(notice(&ShardNotice::Opened(opened))).await.is_err() || refused {
            writer.finish();
            return;
        }
        let writing = tokio::spawn(async move {
            while let Some(first) = queue.recv().await {
                let mut last = put_to_gateway(&mut writer, first);
                while let Ok(more) = queue.try_recv() {
                    last |= put_to_gateway(&mut writer, more);
                }
                if writer.flush().await.is_err() || last {
                    break;
                }
            }
            writer.finish();
        });
        while let Ok(Some(frame)) = reader.next().await {
            if !self.take_from_gateway(shard, stream, frame, &sink).await {
                break;
            }
        }
        writing.abort();
    }

    /// Handles one message of a gateway; false ends its stream.
    async fn take_from_gateway(
        &self,
        shard: ShardId,
        stream: StreamId,
        message: Bytes,
        sink: &WireSink,
    ) -> bool {
        let mut reader = Reader::new(message);
        match reader.u8("kind") {
            Ok(TO_SHARD_ALIVE) => {
                self.0.shards().keep_alive(shard, stream);
                true
            }
            Ok(kind @ (TO_SHARD_FRAME | TO_SHARD_FOLLOWED)) => {
                let Ok(frame) = read_frame(kind, &mut reader) else {
                    tracing::warn!(%shard, "a gateway sent a frame that cannot be read");
                    return false;
                };
                loop {
                    match self.0.shards().submit(shard, frame.clone()) {
                        Ok(()) => return true,
                        Err(ServeError::NotLeader { hint }) => {
                            sink.on_lost(shard, hint);
                            return true; // until the writer has said so and ended
                        }
                        Err(ServeError::Refused(_)) => tokio::time::sleep(FULL_PAUSE).await,
                    }
                }
            }
            _ => false,
        }
    }
}

/// Spools what a leader sends, one frame in memory at a time. Nothing of it counts before it is whole.
/// What this replica has already it says first.
async fn receive_snapshot(
    spools: &Spools,
    group: &Group,
    (writer, reader): (&mut FrameWriter, &mut FrameReader),
) -> Result<Spooled, StoreError> {
    let broken = |error: tokio::task::JoinError| StoreError::io("receive snapshot", error);
    let held = group.hold_segments().await;
    let receiving = spools.receive(group.events().cloned()).await?;
    let mut receiving: Receiving = receiving.holding(held);
    let lost = |error: crate::transport::StreamError| StoreError::io("receive snapshot", error);
    let kept = codec::encode(receiving.kept());
    writer.send([kept]).await.map_err(lost)?;
    while let Some(frame) = reader.next().await.map_err(lost)? {
        // It writes to the disk, which must not hold up those who share this thread.
        let taken = blocking(move || receiving.take(&frame).map(|()| receiving));
        receiving = taken.await.map_err(broken)??;
    }
    blocking(move || receiving.finish()).await.map_err(broken)?
}

pub(crate) fn read_append(frame: Bytes) -> Option<AppendEntriesRequest<TypeConfig>> {
    let mut reader = Reader::new(frame);
    let head = codec::decode(&reader.bytes("append head").ok()?).ok()?;
    convert::append_in(head, reader.rest()).ok()
}

enum ToGateway {
    Outcome(FrameOutcome),
    Notice(ShardNotice),
}

fn notice(notice: &ShardNotice) -> [Bytes; 2] {
    [Bytes::from_static(&[TO_GATEWAY_NOTICE]), codec::encode(notice)]
}

/// Puts a message; true when it is the last.
fn put_to_gateway(writer: &mut FrameWriter, message: ToGateway) -> bool {
    match message {
        ToGateway::Outcome(outcome) => {
            let mut out = BytesMut::with_capacity(64);
            out.put_u8(TO_GATEWAY_OUTCOME);
            stored::encode(&mut out, outcome.sequence, &outcome.result);
            writer.put([out.freeze()]);
            false
        }
        ToGateway::Notice(said) => {
            writer.put(notice(&said));
            matches!(said, ShardNotice::Lost { .. })
        }
    }
}

/// Where a shard's answers to a remote gateway go.
struct WireSink {
    /// `None` once a message had no room: the stream then ends, and the gateway opens it again and
    /// sends what is unanswered.
    sender: Mutex<Option<mpsc::Sender<ToGateway>>>,
}

impl WireSink {
    fn push(&self, message: ToGateway) {
        let mut sender = self.sender.lock().expect("no panic holds it");
        if sender
            .as_ref()
            .is_some_and(|sender| sender.try_send(message).is_err())
        {
            tracing::debug!("a gateway's stream is gone or too slow");
            *sender = None;
        }
    }
}

impl FrameSink for WireSink {
    fn on_outcome(&self, _shard: ShardId, outcome: FrameOutcome) {
        self.push(ToGateway::Outcome(outcome));
    }

    fn on_lost(&self, _shard: ShardId, hint: Option<NodeId>) {
        self.push(ToGateway::Notice(ShardNotice::Lost { hint }));
    }

    fn on_storage_full(&self, _shard: ShardId, is_full: bool) {
        self.push(ToGateway::Notice(ShardNotice::StorageFull(is_full)));
    }

    fn on_downlink(&self, _shard: ShardId, term: u64, downlink: Downlink) {
        self.push(ToGateway::Notice(ShardNotice::Downlink { term, downlink }));
    }
}
