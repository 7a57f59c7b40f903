//! The shards of another node, as this node's gateway reaches them: [`ShardServer`] over the wire.
//!
//! One long-lived stream per (gateway, shard) carries frames there and outcomes and downlinks back.
//! The other end of it is in [`crate::serve`].

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use dunlin_model::command::{Consistency, Query, ReadFrom, View};
use dunlin_model::id::{NodeId, ShardId, StreamId};
use dunlin_model::limits::STREAM_FRAMES_IN_FLIGHT_MAX;
use dunlin_model::port::{
    BoxFuture, EventPage, EventRun, Frame, FrameOutcome, FrameSink, ReadError, ServeError, ShardServer,
    StreamOpening,
};
use dunlin_model::shard::stored;
use dunlin_model::trace::TraceContext;
use dunlin_model::wire::Reader;
use futures_util::FutureExt;
use tokio::sync::mpsc;

use crate::codec;
use crate::messages::{EventsHead, Request, Response, RunHead, ShardNotice, StreamHead};
use crate::transport::{FrameReader, FrameWriter, Lane, Peers};

/// How long a shard may take to make a stream known.
const OPEN_TIMEOUT: Duration = Duration::from_millis(2_000);
/// How long a read may take beyond the time it was told to wait.
const READ_TIMEOUT: Duration = Duration::from_millis(3_000);
/// Frames and signs of life that wait to be written on one stream.
const OUTGOING_MAX: usize = STREAM_FRAMES_IN_FLIGHT_MAX as usize * 2;

/// A frame of a gateway.
pub(crate) const TO_SHARD_FRAME: u8 = 0;
/// A sign of life of a gateway.
pub(crate) const TO_SHARD_ALIVE: u8 = 1;
/// A frame of a gateway that is followed: its trace context stands before it.
pub(crate) const TO_SHARD_FOLLOWED: u8 = 2;
/// The end of a frame.
pub(crate) const TO_GATEWAY_OUTCOME: u8 = 0;
/// Anything else a shard says.
pub(crate) const TO_GATEWAY_NOTICE: u8 = 1;

enum Outgoing {
    Frame(Frame),
    Alive,
}

/// The shards of one other node.
pub(crate) struct RemoteShards {
    node: NodeId,
    peers: Arc<Peers>,
    streams: Mutex<HashMap<ShardId, mpsc::Sender<Outgoing>>>,
}

impl RemoteShards {
    pub(crate) fn new(node: NodeId, peers: Arc<Peers>) -> Self {
        Self {
            node,
            peers,
            streams: Mutex::default(),
        }
    }

    async fn open(
        &self,
        head: StreamHead,
        shard: ShardId,
        sink: Arc<dyn FrameSink>,
    ) -> Result<(), ServeError> {
        let unreachable = || ServeError::NotLeader { hint: None };
        let StreamHead::Submit { opening, .. } = &head else {
            unreachable!("only submit streams are opened here")
        };
        let stream = opening.stream;
        let opened = async {
            let (writer, mut reader) = self.peers.open(self.node, &head).await.ok()?;
            match read_notice(reader.next().await.ok()??)? {
                FromShard::Notice(ShardNotice::Opened(result)) => Some((writer, reader, result)),
                _ => None,
            }
        };
        let opened = tokio::time::timeout(OPEN_TIMEOUT, opened).await;
        let (writer, reader, result) = opened.ok().flatten().ok_or_else(unreachable)?;
        result?;
        let (sender, queue) = mpsc::channel(OUTGOING_MAX);
        self.streams
            .lock()
            .expect("no panic holds it")
            .insert(shard, sender);
        tokio::spawn(write_frames(writer, queue));
        tokio::spawn(read_outcomes(reader, shard, stream, sink));
        Ok(())
    }

    fn send(&self, shard: ShardId, message: Outgoing) -> Result<(), ServeError> {
        let streams = self.streams.lock().expect("no panic holds it");
        let sender = streams.get(&shard).ok_or(ServeError::NotLeader { hint: None })?;
        sender.try_send(message).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => ServeError::Refused("the stream is full".into()),
            mpsc::error::TrySendError::Closed(_) => ServeError::NotLeader { hint: None },
        })
    }

    async fn ask(&self, request: Request, wait: Duration) -> Result<(Response, Bytes), ReadError> {
        let answer = self
            .peers
            .call(self.node, Lane::Bulk, request, READ_TIMEOUT + wait)
            .await;
        answer.map_err(|_| ReadError::NotLeader { hint: None })
    }
}

async fn write_frames(mut writer: FrameWriter, mut queue: mpsc::Receiver<Outgoing>) {
    while let Some(first) = queue.recv().await {
        put_outgoing(&mut writer, first);
        while let Ok(more) = queue.try_recv() {
            put_outgoing(&mut writer, more);
        }
        if writer.flush().await.is_err() {
            return;
        }
    }
    writer.finish();
}

fn put_outgoing(writer: &mut FrameWriter, message: Outgoing) {
    match message {
        Outgoing::Alive => writer.put([Bytes::from_static(&[TO_SHARD_ALIVE])]),
        Outgoing::Frame(frame) => {
            let (head, records) = frame_parts(frame);
            writer.put([head, records]);
        }
    }
}

/// A frame as it travels: what stands before its records, and the records, which go out as they are.
pub(crate) fn frame_parts(frame: Frame) -> (Bytes, Bytes) {
    let records = frame.records.clone();
    let bare = Frame {
        records: Bytes::new(),
        ..frame
    };
    let mut head = BytesMut::with_capacity(64 + TraceContext::WIRE_BYTES);
    match &bare.trace {
        None => head.put_u8(TO_SHARD_FRAME),
        Some(trace) => {
            head.put_u8(TO_SHARD_FOLLOWED);
            trace.put(&mut head);
        }
    }
    codec::put_frame(&mut head, &bare);
    let at = head.len() - 4;
    head[at..].copy_from_slice(&(records.len() as u32).to_le_bytes());
    (head.freeze(), records)
}

/// Reads what [`frame_parts`] wrote, behind its first byte.
pub(crate) fn read_frame(kind: u8, reader: &mut Reader) -> Result<Frame, codec::CodecError> {
    let trace = match kind {
        TO_SHARD_FOLLOWED => Some(TraceContext::read(reader)?),
        _ => None,
    };
    let frame = codec::read_frame(reader)?;
    Ok(Frame { trace, ..frame })
}

pub(crate) enum FromShard {
    Outcome(u64, dunlin_model::port::FrameResult),
    Notice(ShardNotice),
}

pub(crate) fn read_notice(frame: Bytes) -> Option<FromShard> {
    let mut reader = Reader::new(frame);
    match reader.u8("kind").ok()? {
        TO_GATEWAY_OUTCOME => stored::decode(&mut reader)
            .ok()
            .map(|(seq, result)| FromShard::Outcome(seq, result)),
        TO_GATEWAY_NOTICE => codec::decode(&reader.rest()).ok().map(FromShard::Notice),
        _ => None,
    }
}

async fn read_outcomes(mut reader: FrameReader, shard: ShardId, stream: StreamId, sink: Arc<dyn FrameSink>) {
    let mut hint = None;
    while let Ok(Some(frame)) = reader.next().await {
        match read_notice(frame) {
            Some(FromShard::Outcome(sequence, result)) => {
                sink.on_outcome(
                    shard,
                    FrameOutcome {
                        stream,
                        sequence,
                        result,
                    },
                );
            }
            Some(FromShard::Notice(ShardNotice::Downlink { term, downlink })) => {
                sink.on_downlink(shard, term, downlink);
            }
            Some(FromShard::Notice(ShardNotice::StorageFull(is_full))) => {
                sink.on_storage_full(shard, is_full);
            }
            Some(FromShard::Notice(ShardNotice::Lost { hint: to })) => {
                hint = to;
                break;
            }
            Some(FromShard::Notice(ShardNotice::Opened(_))) | None => break,
        }
    }
    sink.on_lost(shard, hint);
}

impl ShardServer for RemoteShards {
    fn open_stream(
        &self,
        shard: ShardId,
        opening: StreamOpening,
        sink: Arc<dyn FrameSink>,
    ) -> BoxFuture<'_, Result<(), ServeError>> {
        self.open(StreamHead::Submit { shard, opening }, shard, sink)
            .boxed()
    }

    fn submit(&self, shard: ShardId, frame: Frame) -> Result<(), ServeError> {
        self.send(shard, Outgoing::Frame(frame))
    }

    fn keep_alive(&self, shard: ShardId, _stream: StreamId) {
        // A full or lost stream needs no sign of life: the one is alive, the other is not.
        let _ = self.send(shard, Outgoing::Alive);
    }

    fn query(
        &self,
        shard: ShardId,
        query: Query,
        consistency: Consistency,
    ) -> BoxFuture<'_, Result<View, ReadError>> {
        async move {
            match self
                .ask(
                    Request::Query {
                        shard,
                        query,
                        consistency,
                    },
                    Duration::ZERO,
                )
                .await?
            {
                (Response::View(result), _) => result,
                (Response::NotHere { hint }, _) => Err(ReadError::NotLeader { hint }),
                _ => Err(ReadError::NotLeader { hint: None }),
            }
        }
        .boxed()
    }

    fn read_events(
        &self,
        shard: ShardId,
        from: ReadFrom,
        bytes_max: usize,
        wait_ms: u64,
    ) -> BoxFuture<'_, Result<EventPage, ReadError>> {
        async move {
            let request = Request::ReadEvents {
                shard,
                from,
                bytes_max: bytes_max as u64,
                wait_ms,
            };
            match self.ask(request, Duration::from_millis(wait_ms)).await? {
                (Response::Events(result), records) => join_page(result?, records),
                (Response::NotHere { hint }, _) => Err(ReadError::NotLeader { hint }),
                _ => Err(ReadError::NotLeader { hint: None }),
            }
        }
        .boxed()
    }
}

/// A page as its head and the records that follow it.
pub(crate) fn split_page(page: EventPage) -> (EventsHead, Bytes) {
    let runs = page
        .runs
        .iter()
        .map(|run| RunHead {
            index: run.index,
            term: run.term,
            time_ms: run.time_ms,
            first_offset: run.first_offset,
            count: run.count,
            bytes: run.records.len() as u32,
        })
        .collect();
    let mut records = BytesMut::with_capacity(page.runs.iter().map(|run| run.records.len()).sum());
    page.runs
        .iter()
        .for_each(|run| records.extend_from_slice(&run.records));
    let head = EventsHead {
        from: page.from,
        first_offset: page.first_offset,
        next_offset: page.next_offset,
        runs,
    };
    (head, records.freeze())
}

pub(crate) fn join_page(head: EventsHead, mut records: Bytes) -> Result<EventPage, ReadError> {
    let mut runs = Vec::with_capacity(head.runs.len());
    for run in head.runs {
        if records.len() < run.bytes as usize {
            return Err(ReadError::Store("a page of events is cut short".into()));
        }
        runs.push(EventRun {
            index: run.index,
            term: run.term,
            time_ms: run.time_ms,
            first_offset: run.first_offset,
            count: run.count,
            records: records.split_to(run.bytes as usize),
        });
    }
    Ok(EventPage {
        runs,
        from: head.from,
        first_offset: head.first_offset,
        next_offset: head.next_offset,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_travels_before_its_frame_and_costs_others_nothing() {
        let stream = StreamId {
            gateway: NodeId(2),
            incarnation: 3,
        };
        let plain = Frame {
            stream,
            sequence: 4,
            records: Bytes::from_static(b"xyz"),
            record_count: 1,
            commands: vec![],
            trace: None,
        };
        let trace = TraceContext {
            trace_id: [7; 16],
            span_id: [8; 8],
            flags: 1,
        };
        let followed = Frame {
            trace: Some(trace),
            ..plain.clone()
        };
        let wire = |frame: &Frame| {
            let (head, records) = frame_parts(frame.clone());
            [head, records].concat()
        };
        let (short, long) = (wire(&plain), wire(&followed));
        assert_eq!((short[0], long[0]), (TO_SHARD_FRAME, TO_SHARD_FOLLOWED));
        assert_eq!(
            &long[1 + TraceContext::WIRE_BYTES..],
            &short[1..],
            "the frame itself is the same"
        );
        for (bytes, frame) in [(short, plain), (long, followed)] {
            let mut reader = Reader::new(bytes.into());
            let kind = reader.u8("kind").unwrap();
            assert_eq!(read_frame(kind, &mut reader).unwrap(), frame);
            assert!(reader.is_empty());
        }
    }
}
