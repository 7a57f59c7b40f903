//! A gateway that numbers its frames and notes what it hears.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use bytes::BytesMut;
use dunlin_model::command::Command;
use dunlin_model::id::{NodeId, ShardId, StreamId};
use dunlin_model::port::{
    Downlink, Frame, FrameOutcome, FrameResult, FrameSink, ServeError, ShardServer, StreamOpening,
};
use dunlin_model::telemetry::{AuthMethod, Source, encode};

use super::field::{Field, SHARD, until};
use super::{device, stream};

/// What a gateway can hear.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Heard {
    Outcome { sequence: u64, result: FrameResult },
    Lost { hint: Option<NodeId> },
    Down { term: u64, downlink: Downlink },
    StorageFull(bool),
}

#[derive(Default)]
struct Ear {
    heard: Mutex<Vec<Heard>>,
    broken: AtomicBool,
}

impl FrameSink for Ear {
    fn on_outcome(&self, shard: ShardId, outcome: FrameOutcome) {
        assert_eq!(shard, SHARD);
        assert!(
            !self.broken.swap(false, Ordering::Relaxed),
            "the test breaks this ear"
        );
        let heard = Heard::Outcome {
            sequence: outcome.sequence,
            result: outcome.result,
        };
        self.heard.lock().unwrap().push(heard);
    }

    fn on_lost(&self, shard: ShardId, hint: Option<NodeId>) {
        assert_eq!(shard, SHARD);
        self.heard.lock().unwrap().push(Heard::Lost { hint });
    }

    fn on_storage_full(&self, shard: ShardId, is_full: bool) {
        assert_eq!(shard, SHARD);
        self.heard.lock().unwrap().push(Heard::StorageFull(is_full));
    }

    fn on_downlink(&self, shard: ShardId, term: u64, downlink: Downlink) {
        assert_eq!(shard, SHARD);
        self.heard.lock().unwrap().push(Heard::Down { term, downlink });
    }
}

/// One encoded record of an MQTT message.
pub(crate) fn record(name: &str, fence: u64, payload: &[u8]) -> BytesMut {
    let mut out = BytesMut::new();
    encode(
        &mut out,
        Source::Mqtt,
        AuthMethod::DeviceKey,
        fence,
        &device(name),
        (b"", payload),
    );
    out
}

pub(crate) struct Gateway<'a> {
    field: &'a Field,
    pub(crate) stream: StreamId,
    ear: Arc<Ear>,
    next_sequence: u64,
}

impl<'a> Gateway<'a> {
    /// A gateway that has not connected.
    pub(crate) fn new(field: &'a Field, number: u64) -> Self {
        Self {
            field,
            stream: stream(number),
            ear: Arc::default(),
            next_sequence: 1,
        }
    }

    /// A gateway whose stream the shard knows.
    pub(crate) async fn connected(field: &'a Field, number: u64) -> Self {
        let gateway = Self::new(field, number);
        gateway.connect(0, &[]).await.unwrap();
        gateway
    }

    pub(crate) async fn connect(&self, resume: u64, sessions: &[(&str, u64)]) -> Result<(), ServeError> {
        let opening = self.opening(1, resume, sessions);
        self.open(opening).await
    }

    /// What this gateway says when it opens its stream.
    pub(crate) fn opening(&self, attempt: u64, resume: u64, sessions: &[(&str, u64)]) -> StreamOpening {
        let sessions = sessions.iter().map(|(name, epoch)| (device(name), *epoch));
        StreamOpening {
            stream: self.stream,
            attempt,
            resume,
            sessions: sessions.collect(),
        }
    }

    /// Opens the stream as `opening` says.
    pub(crate) async fn open(&self, opening: StreamOpening) -> Result<(), ServeError> {
        let ear = self.ear.clone();
        self.field.host.open_stream(SHARD, opening, ear).await
    }

    /// Panics at the next outcome, once.
    pub(crate) fn break_ear(&self) {
        self.ear.broken.store(true, Ordering::Relaxed);
    }

    /// The next frame, not yet sent.
    pub(crate) fn frame(&mut self, records: &[BytesMut], commands: Vec<Command>) -> Frame {
        let mut joined = BytesMut::new();
        records.iter().for_each(|record| joined.extend_from_slice(record));
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        let record_count = records.len() as u32;
        Frame {
            stream: self.stream,
            sequence,
            records: joined.freeze(),
            record_count,
            commands,
            trace: None,
        }
    }

    pub(crate) fn submit(&self, frame: Frame) -> Result<(), ServeError> {
        self.field.host.submit(SHARD, frame)
    }

    /// Sends a frame and waits for its end.
    pub(crate) async fn send(&mut self, records: &[BytesMut], commands: Vec<Command>) -> FrameResult {
        let frame = self.frame(records, commands);
        let sequence = frame.sequence;
        self.submit(frame).unwrap();
        self.outcome(sequence).await
    }

    /// The first end of frame `sequence`.
    pub(crate) async fn outcome(&self, sequence: u64) -> FrameResult {
        until("an outcome", || !self.outcomes(sequence).is_empty()).await;
        self.outcomes(sequence).remove(0)
    }

    /// All ends of frame `sequence`.
    pub(crate) fn outcomes(&self, sequence: u64) -> Vec<FrameResult> {
        let ends = self.heard().into_iter().filter_map(|heard| match heard {
            Heard::Outcome { sequence: of, result } if of == sequence => Some(result),
            _ => None,
        });
        ends.collect()
    }

    /// Sequence numbers in the order of their answers.
    pub(crate) fn answered(&self) -> Vec<u64> {
        let answered = self.heard().into_iter().filter_map(|heard| match heard {
            Heard::Outcome { sequence, .. } => Some(sequence),
            _ => None,
        });
        answered.collect()
    }

    pub(crate) fn downlinks(&self) -> Vec<(u64, Downlink)> {
        let downlinks = self.heard().into_iter().filter_map(|heard| match heard {
            Heard::Down { term, downlink } => Some((term, downlink)),
            _ => None,
        });
        downlinks.collect()
    }

    pub(crate) fn lost(&self) -> usize {
        self.heard()
            .iter()
            .filter(|heard| matches!(heard, Heard::Lost { .. }))
            .count()
    }

    pub(crate) fn heard(&self) -> Vec<Heard> {
        self.ear.heard.lock().unwrap().clone()
    }
}
