//! Frames between nodes, certificates, and the files in which a node remembers its cluster.

use bytes::{BufMut, Bytes, BytesMut};
use dunlin_model::command::{Command, Consistency, Query, ReadFrom};
use dunlin_model::directory::{Directory, NodeEntry, NodeState, Role};
use dunlin_model::id::{DeviceId, GroupId, LogPosition, NodeId, ReplicaId, ShardId, StreamId};
use dunlin_model::limits::WIRE_FRAME_BYTES_MAX;
use dunlin_model::port::{Frame, FrameResult, StreamOpening};
use dunlin_model::routing::EventSources;
use dunlin_model::shard::{Batch, Part, stored};
use dunlin_model::trace::TraceContext;
use dunlin_model::wire::{Reader, put_bytes};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::admin::AdminRequest;
use crate::codec;
use crate::forming::Remembered;
use crate::messages::{
    AppendHead, AppendReply, EventsHead, Hello, Request, Response, RunHead, ShardNotice, StreamHead, WireVote,
};
use crate::raft::body::{self, Body};
use crate::raft::{EntryBody, convert};
use crate::remote::{TO_SHARD_FOLLOWED, TO_SHARD_FRAME, frame_parts, join_page, read_frame, read_notice};
use crate::serve::read_append;
use crate::transport::calls::{read_request, read_response};
use crate::transport::frames::take_frame;
use crate::transport::peers::read_head;
use crate::transport::tls;

/// A stream of frames as one node reads it from another. The first byte says what the stream is for.
pub fn node_frames(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    let mut buffer = BytesMut::from(rest);
    while let Ok(Some(frame)) = take_frame(&mut buffer) {
        read_one(*kind, frame);
    }
    assert!(
        buffer.capacity() <= rest.len() + WIRE_FRAME_BYTES_MAX + 8,
        "room for one frame"
    );
}

fn read_one(kind: u8, frame: Bytes) {
    match kind % 8 {
        0 => {
            if let Ok((_, _, request)) = read_request(frame) {
                same_again(&request);
                if let Request::Heartbeat { head, .. } = request {
                    let _ = convert::append_in(head, Bytes::new());
                }
            }
        }
        1 => {
            if let Ok((_, response, tail)) = read_response(frame) {
                same_again(&response);
                if let Response::Events(Ok(head)) = response {
                    let count = head.runs.len();
                    if let Ok(page) = join_page(head, tail) {
                        assert_eq!(page.runs.len(), count);
                    }
                }
            }
        }
        2 => {
            if let Ok((_, head)) = read_head(frame) {
                same_again(&head);
                if let StreamHead::Submit { shard, .. } = head {
                    assert_ne!(shard.group(), GroupId::DIRECTORY, "no shard is the directory");
                }
            }
        }
        3 => {
            if let Some(request) = read_append(frame) {
                let (head, bodies) = convert::append_out(&request);
                for ((position, _), bytes) in head.entries.iter().zip(&bodies) {
                    let entry = body::from_bytes(*position, bytes.clone()).expect("what was read is written");
                    if let openraft::EntryPayload::Normal(body) = &entry.payload {
                        read_body(body);
                    }
                }
            }
        }
        4 => {
            let mut reader = Reader::new(frame);
            if let Ok(kind) = reader.u8("kind")
                && let Ok(read) = read_frame(kind, &mut reader)
            {
                let (head, records) = frame_parts(read.clone());
                let mut again = Reader::new([head, records].concat().into());
                let kind = again.u8("kind").expect("it was written");
                assert_eq!(read_frame(kind, &mut again).ok(), Some(read));
            }
        }
        5 => drop(read_notice(frame)),
        6 => {
            if let Ok(reply) = codec::decode::<AppendReply>(&frame) {
                let _ = convert::reply_in(reply);
            }
        }
        _ => read_body(&EntryBody(frame)),
    }
}

fn read_body(body: &EntryBody) {
    match body::read(body) {
        Ok(Body::Batch(batch)) => {
            let again = body::read(&body::batch(&batch)).ok();
            assert!(matches!(again, Some(Body::Batch(read)) if read == batch));
        }
        Ok(Body::Directory(command)) => {
            // As each replica does, on a directory that has nothing yet.
            let _ = Directory::default().apply(command);
        }
        Err(_) => {}
    }
}

pub(super) fn same_again<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(value: &T) {
    assert_eq!(
        codec::decode::<T>(&codec::encode(value)).ok().as_ref(),
        Some(value)
    );
}

fn framed(kind: u8, frames: &[Bytes]) -> Vec<u8> {
    let mut out = BytesMut::new();
    out.put_u8(kind);
    frames.iter().for_each(|frame| put_bytes(&mut out, frame));
    out.to_vec()
}

fn with_head(numbers: &[u64], body: &Bytes) -> Bytes {
    let mut out = BytesMut::new();
    numbers.iter().for_each(|number| out.put_u64_le(*number));
    out.put_slice(body);
    out.freeze()
}

pub(super) fn position(index: u64) -> LogPosition {
    LogPosition {
        term: 2,
        leader: 1,
        index,
    }
}

fn batch() -> Batch {
    let stream = StreamId {
        gateway: NodeId(2),
        incarnation: 3,
    };
    let parts = vec![
        Part::StreamOpen(stream),
        Part::Frame(frame(None)),
        Part::GatewayGone(stream),
        Part::Seal,
        Part::Trim(9),
        Part::Announce(EventSources::from_bits(0xff)),
    ];
    Batch { time_ms: 1, parts }
}

fn frame(trace: Option<TraceContext>) -> Frame {
    let device = DeviceId::parse("dev-1").expect("a device id");
    Frame {
        stream: StreamId {
            gateway: NodeId(2),
            incarnation: 3,
        },
        sequence: 4,
        records: Bytes::from_static(b"records"),
        record_count: 1,
        commands: vec![Command::SessionClose { device, epoch: 300 }],
        trace,
    }
}

fn append() -> Bytes {
    let bodies = [body::batch(&batch()).0, Bytes::from_static(&[0])];
    let vote = WireVote {
        term: 2,
        leader: 1,
        committed: true,
    };
    let head = AppendHead {
        vote,
        previous: Some(position(4)),
        commit: None,
        entries: (5..)
            .zip(&bodies)
            .map(|(index, body)| (position(index), body.len() as u32))
            .collect(),
    };
    let mut out = BytesMut::new();
    put_bytes(&mut out, &codec::encode(&head));
    bodies.iter().for_each(|body| out.put_slice(body));
    out.freeze()
}

/// Seeds of [`node_frames`].
pub fn node_frames_seeds() -> Vec<Vec<u8>> {
    let hello = Hello {
        node: NodeId(1),
        address: "127.0.0.1:8900".into(),
        kafka: Some("hub-1:9093".into()),
        roles: vec![],
        cluster_id: String::new(),
        rank: (1, 2),
        peers: vec![(NodeId(2), "127.0.0.1:8901".into())],
    };
    let requests = [
        Request::Hello(hello.clone()),
        Request::Query {
            shard: ShardId(3),
            query: Query::Shard(ShardId(3)),
            consistency: Consistency::Linearizable,
        },
        Request::ReadEvents {
            shard: ShardId(0),
            from: ReadFrom::Offset(7),
            bytes_max: 1 << 20,
            wait_ms: 10,
        },
        Request::Form(Box::new(layout())),
        Request::Status,
    ];
    let requests = requests.map(|request| with_head(&[1, 2], &codec::encode(&request)));
    let run = RunHead {
        index: 1,
        term: 1,
        time_ms: 1,
        first_offset: 0,
        count: 1,
        bytes: 3,
    };
    let events = Response::Events(Ok(EventsHead {
        from: 0,
        first_offset: 0,
        next_offset: 1,
        runs: vec![run],
    }));
    let responses = [events, Response::Hello(hello), Response::Promised(true)].map(|response| {
        let mut out = BytesMut::new();
        out.put_u64_le(1);
        put_bytes(&mut out, &codec::encode(&response));
        out.put_slice(b"abc");
        out.freeze()
    });
    let submit = StreamHead::Submit {
        shard: ShardId(1),
        opening: StreamOpening {
            stream: frame(None).stream,
            attempt: 1,
            resume: 0,
            sessions: vec![(DeviceId::parse("dev-1").expect("a device id"), 3)],
        },
    };
    let append_stream = StreamHead::Append {
        group: GroupId(1),
        to: ReplicaId(2),
    };
    let heads = [submit, append_stream].map(|head| with_head(&[2], &codec::encode(&head)));
    let trace = TraceContext {
        trace_id: [7; 16],
        span_id: [8; 8],
        flags: 1,
    };
    let frames = [None, Some(trace)].map(|trace| {
        let (head, records) = frame_parts(frame(trace));
        Bytes::from([head, records].concat())
    });
    assert_eq!((frames[0][0], frames[1][0]), (TO_SHARD_FRAME, TO_SHARD_FOLLOWED));
    let outcome = [&[0], &stored::to_bytes(4, &FrameResult::Gap { expected: 3 })[..]].concat();
    let notice = [
        &[1],
        &codec::encode(&ShardNotice::Lost {
            hint: Some(NodeId(1)),
        })[..],
    ]
    .concat();
    let replies = [AppendReply::Matched(Some(position(3))), AppendReply::Gone];
    vec![
        framed(0, &requests),
        framed(1, &responses),
        framed(2, &heads),
        framed(3, &[append()]),
        framed(4, &frames),
        framed(5, &[outcome.into(), notice.into()]),
        framed(6, &replies.map(|reply| codec::encode(&reply))),
        framed(7, &[body::batch(&batch()).0]),
    ]
}

/// Who a certificate says that a peer is, certificates as text, and what administrators ask for.
pub fn identities(data: &[u8]) {
    if let Some(node) = tls::node_in_certificate(data) {
        assert_eq!(NodeId::parse(&node.to_string()), Some(node));
    }
    let text = String::from_utf8_lossy(data);
    if let Ok(found) = tls::certificates("fuzzed text", &text) {
        assert!(
            found
                .iter()
                .filter_map(|der| tls::node_in_certificate(der))
                .count()
                <= found.len()
        );
    }
    if let Ok(request) = serde_json::from_slice::<AdminRequest>(data) {
        let written = serde_json::to_vec(&request).expect("plain data");
        assert_eq!(
            serde_json::from_slice::<AdminRequest>(&written).ok(),
            Some(request)
        );
    }
}

/// Seeds of [`identities`].
pub fn identities_seeds() -> Vec<Vec<u8>> {
    let ask = |request: &AdminRequest| serde_json::to_vec(request).expect("plain data");
    let drain = AdminRequest::Drain {
        node: "0123".into(),
        force: true,
    };
    vec![
        CERTIFICATE_PEM.as_bytes().to_vec(),
        tls::certificates("seed", CERTIFICATE_PEM).expect("a certificate")[0].to_vec(),
        ask(&AdminRequest::Status),
        ask(&drain),
    ]
}

/// A certificate that names node 0123456789abcdef, from
/// `openssl req -x509 -newkey ed25519 -addext subjectAltName=DNS:dunlin-node,URI:dunlin://node/0123456789abcdef`.
const CERTIFICATE_PEM: &str = include_str!("node.pem");

/// The files that a node reads back: its cluster, and its promise.
pub fn remembered(data: &[u8]) {
    if let Ok(remembered) = serde_json::from_slice::<Remembered>(data) {
        let directory = &remembered.directory;
        let written = serde_json::to_vec(&remembered).expect("plain data");
        let again: Remembered = serde_json::from_slice(&written).expect("what was written is read");
        assert_eq!(&again.directory, directory);
        let _ = (directory.rank(), directory.is_formed(), directory.hosts().count());
    }
    let _ = serde_json::from_slice::<Option<Vec<NodeId>>>(data);
}

pub(super) fn layout() -> Directory {
    let node = |id| {
        let entry = NodeEntry {
            roles: vec![Role::Shard, Role::Gateway],
            state: NodeState::Active,
        };
        (NodeId(id), entry)
    };
    let cluster_id = "c0ffee00c0ffee00c0ffee00c0ffee00".to_owned();
    Directory::lay_out(cluster_id, [1, 2, 3].map(node).into(), (2, 3), Default::default())
}

/// Seeds of [`remembered`].
pub fn remembered_seeds() -> Vec<Vec<u8>> {
    let remembered = Remembered {
        directory: layout(),
        peers: vec![(NodeId(2), "127.0.0.1:8901".into())],
    };
    vec![
        serde_json::to_vec(&remembered).expect("plain data"),
        serde_json::to_vec(&Some(vec![NodeId(1), NodeId(2)])).expect("plain data"),
        b"null".to_vec(),
    ]
}
