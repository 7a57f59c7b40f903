//! One shard's machine alone, held against a few lines that say what it must answer: frames of gateways that come
//! twice, too early, or on a stream that nobody knows, devices whose sessions change, restarts in between.
//!
//! What a whole hub never brings about is brought about here: between its nodes frames keep their order, so that none
//! of its runs shows what becomes of a frame whose predecessor is missing. Everything follows from a seed.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use dunlin_model::command::{Command, Outcome};
use dunlin_model::id::{DeviceId, LogPosition, NodeId, StreamId};
use dunlin_model::identity::{Authentication, Condition, DeviceSpec};
use dunlin_model::limits::STREAM_FRAMES_IN_FLIGHT_MAX;
use dunlin_model::port::{EventRun, Frame, FrameResult, StoreError};
use dunlin_model::shard::state::{Applied, ShardState};
use dunlin_model::shard::{Batch, Part};
use dunlin_model::telemetry::{self, AuthMethod, Source};
use dunlin_storage::state::MemStore;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

/// Entries of a drill.
const ENTRIES: usize = 400;
/// Frames of an entry at the most.
const FRAMES_MAX: usize = 4;
/// Records of a frame at the most.
const RECORDS_MAX: usize = 3;
/// Gateways, each with one stream at a time.
const GATEWAYS: u64 = 3;
/// Devices.
const DEVICES: usize = 3;

/// What a shard owes a device.
struct Known {
    device: DeviceId,
    generation: u64,
    epoch: u64,
}

/// What a shard owes a stream.
#[derive(Default)]
struct Stream {
    taken: u64,
    answers: BTreeMap<u64, FrameResult>,
}

struct Drill {
    random: StdRng,
    store: MemStore,
    machine: ShardState,
    index: u64,
    next_offset: u64,
    streams: BTreeMap<StreamId, Stream>,
    incarnations: u64,
    devices: Vec<Known>,
    /// Every entry with the events that it brought.
    log: Vec<(LogPosition, Batch, Option<EventRun>)>,
}

/// Runs one. Returns what was wrong, if anything was.
pub fn run(seed: u64) -> Option<String> {
    let drilled = catch_unwind(AssertUnwindSafe(|| Drill::new(seed)?.run()));
    match drilled {
        Ok(Ok(())) => None,
        Ok(Err(wrong)) => Some(wrong),
        Err(panic) => {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or_default();
            Some(format!("a panic: {text}"))
        }
    }
}

fn broken(error: StoreError) -> String {
    format!("the state cannot be used: {error}")
}

impl Drill {
    fn new(seed: u64) -> Result<Self, String> {
        let store = MemStore::new();
        let machine = ShardState::open(Arc::new(store.clone())).map_err(broken)?;
        let mut drill = Self {
            random: StdRng::seed_from_u64(seed),
            store,
            machine,
            index: 0,
            next_offset: 0,
            streams: BTreeMap::new(),
            incarnations: 0,
            devices: Vec::new(),
            log: Vec::new(),
        };
        for number in 0..DEVICES {
            let name = format!("d{number}");
            let device = DeviceId::parse(&name).map_err(|error| error.to_string())?;
            drill.devices.push(Known {
                device,
                generation: 0,
                epoch: 0,
            });
        }
        Ok(drill)
    }

    fn run(&mut self) -> Result<(), String> {
        for gateway in 1..=GATEWAYS {
            self.open_stream(gateway)?;
        }
        for place in 0..DEVICES {
            self.register(place)?;
        }
        for _ in 0..ENTRIES {
            match self.random.random_range(0..20) {
                0 => {
                    let gateway = self.random.random_range(1..=GATEWAYS);
                    self.open_stream(gateway)?;
                }
                1 => self.machine = ShardState::open(Arc::new(self.store.clone())).map_err(broken)?,
                2 => {
                    let place = self.random.random_range(0..DEVICES);
                    self.open_session(place)?;
                }
                _ => self.frames()?,
            }
        }
        self.replay()
    }

    fn apply(&mut self, parts: Vec<Part>) -> Result<Applied, String> {
        self.index += 1;
        let position = LogPosition {
            term: 1,
            leader: 1,
            index: self.index,
        };
        let batch = Batch {
            time_ms: 1_000 + self.index,
            parts,
        };
        let applied = self.machine.apply(position, &batch).map_err(broken)?;
        self.log.push((position, batch, applied.run.clone()));
        Ok(applied)
    }

    fn open_stream(&mut self, gateway: u64) -> Result<(), String> {
        self.incarnations += 1;
        let stream = StreamId {
            gateway: NodeId(gateway),
            incarnation: self.incarnations,
        };
        self.apply(vec![Part::StreamOpen(stream)])?;
        self.streams.insert(stream, Stream::default());
        Ok(())
    }

    /// Has the next frame of some stream carry a command alone.
    fn command(&mut self, command: Command) -> Result<Outcome, String> {
        let stream = self.any_stream();
        let sequence = self.streams[&stream].taken + 1;
        let frame = Frame {
            stream,
            sequence,
            records: Bytes::new(),
            record_count: 0,
            commands: vec![command],
            trace: None,
        };
        let mut applied = self.apply(vec![Part::Frame(frame)])?;
        let result = applied.outcomes.pop().map(|outcome| outcome.result);
        let Some(FrameResult::Applied(frame)) = &result else {
            return Err(format!("the next frame of a stream was answered by {result:?}"));
        };
        let outcome = frame.outcomes.first().cloned();
        let outcome = outcome.ok_or("a command has no outcome")?;
        self.take(stream, sequence, FrameResult::Applied(frame.clone()));
        Ok(outcome)
    }

    fn register(&mut self, place: usize) -> Result<(), String> {
        let put = Command::DevicePut {
            device: self.devices[place].device.clone(),
            spec: DeviceSpec::enabled(Authentication::None),
            condition: Condition::Any,
        };
        match self.command(put)? {
            Outcome::Stored(record) => self.devices[place].generation = record.generation,
            other => return Err(format!("a device was put: {other:?}")),
        }
        self.open_session(place)
    }

    fn open_session(&mut self, place: usize) -> Result<(), String> {
        let (held_by, known) = (self.any_stream(), &self.devices[place]);
        let open = Command::SessionOpen {
            device: known.device.clone(),
            generation: known.generation,
            held_by,
            persistent: false,
        };
        match self.command(open)? {
            Outcome::SessionOpened { epoch, .. } if epoch > self.devices[place].epoch => {
                self.devices[place].epoch = epoch;
                Ok(())
            }
            other => Err(format!("a session was opened: {other:?}")),
        }
    }

    fn any_stream(&mut self) -> StreamId {
        let place = self.random.random_range(0..self.streams.len());
        let stream = self.streams.keys().nth(place).copied();
        stream.unwrap_or(StreamId {
            gateway: NodeId(0),
            incarnation: 0,
        })
    }

    /// One entry of frames, and what each must be answered.
    fn frames(&mut self) -> Result<(), String> {
        let (mut parts, mut expected, mut stored) = (Vec::new(), Vec::new(), Vec::new());
        let first_offset = self.next_offset;
        for _ in 0..self.random.random_range(1..=FRAMES_MAX) {
            let (frame, payloads) = self.frame();
            let result = self.answer(&frame, &payloads, &mut stored);
            expected.push(result);
            parts.push(Part::Frame(frame));
        }
        let applied = self.apply(parts)?;
        let given: Vec<FrameResult> = applied
            .outcomes
            .into_iter()
            .map(|outcome| outcome.result)
            .collect();
        if given != expected {
            return Err(format!("entry {}: {given:?}, not {expected:?}", self.index));
        }
        let run = applied.run;
        if run.as_ref().map(|run| run.first_offset) != (!stored.is_empty()).then_some(first_offset) {
            return Err(format!(
                "entry {}: {run:?} does not begin at {first_offset}",
                self.index
            ));
        }
        let found: Vec<Bytes> = run.into_iter().flat_map(|run| payloads(&run)).collect();
        if found != stored {
            return Err(format!("entry {}: stored {found:?}, not {stored:?}", self.index));
        }
        Ok(())
    }

    /// A frame, and of each of its records the payload and whether it counts.
    fn frame(&mut self) -> (Frame, Vec<(Bytes, bool)>) {
        let mut stream = self.any_stream();
        let taken = self.streams[&stream].taken;
        let sequence = match self.random.random_range(0..10) {
            0 => taken.saturating_sub(self.random.random_range(0..2 * STREAM_FRAMES_IN_FLIGHT_MAX)),
            1 => taken + self.random.random_range(2..5),
            2 => {
                stream.incarnation += 1_000_000;
                1
            }
            _ => taken + 1,
        };
        let mut records = BytesMut::new();
        let mut payloads = Vec::new();
        for number in 0..self.random.random_range(0..=RECORDS_MAX) {
            let place = self.random.random_range(0..DEVICES);
            let is_current = self.random.random_bool(0.8);
            let known = &self.devices[place];
            let fence = if is_current { known.epoch } else { known.epoch - 1 };
            let payload = Bytes::from(format!("{} {number}", self.index));
            let (source, by) = (Source::Mqtt, AuthMethod::DeviceKey);
            telemetry::encode(&mut records, source, by, fence, &known.device, (b"", &payload));
            payloads.push((payload, is_current));
        }
        let frame = Frame {
            stream,
            sequence: sequence.max(1),
            records: records.freeze(),
            record_count: payloads.len() as u32,
            commands: Vec::new(),
            trace: None,
        };
        (frame, payloads)
    }

    /// What a frame must be answered; what it stores is added to `stored`.
    fn answer(&mut self, frame: &Frame, payloads: &[(Bytes, bool)], stored: &mut Vec<Bytes>) -> FrameResult {
        let Some(known) = self.streams.get(&frame.stream) else {
            return FrameResult::StreamUnknown;
        };
        if frame.sequence > known.taken + 1 {
            return FrameResult::Gap {
                expected: known.taken + 1,
            };
        }
        if frame.sequence <= known.taken {
            let kept = known.answers.get(&frame.sequence);
            return kept.cloned().unwrap_or(FrameResult::Forgotten);
        }
        let places = 0..payloads.len() as u32;
        let fenced: Vec<u32> = places.filter(|place| !payloads[*place as usize].1).collect();
        let counting = payloads.iter().filter(|(_, counts)| *counts);
        let result = FrameResult::Applied(dunlin_model::port::FrameApplied {
            term: 1,
            index: self.index + 1,
            first_offset: self.next_offset,
            record_count: frame.record_count,
            fenced,
            outcomes: Vec::new(),
        });
        let before = stored.len();
        stored.extend(counting.map(|(payload, _)| payload.clone()));
        self.next_offset += (stored.len() - before) as u64;
        self.take(frame.stream, frame.sequence, result.clone());
        result
    }

    fn take(&mut self, stream: StreamId, sequence: u64, result: FrameResult) {
        if let Some(known) = self.streams.get_mut(&stream) {
            known.taken = sequence;
            known.answers.insert(sequence, result);
            known
                .answers
                .retain(|kept, _| kept + STREAM_FRAMES_IN_FLIGHT_MAX > sequence);
        }
    }

    /// The log tells once more what each entry brought, as for an event log that has lost it.
    fn replay(&self) -> Result<(), String> {
        let mut next = 0;
        for (position, batch, run) in &self.log {
            let again = self.machine.replay_run(*position, batch, next).map_err(broken)?;
            if again != *run {
                return Err(format!(
                    "entry {} brought {run:?}, and {again:?} when it is asked again",
                    position.index
                ));
            }
            next = run.as_ref().map_or(next, EventRun::next_offset);
        }
        Ok(())
    }
}

fn payloads(run: &EventRun) -> Vec<Bytes> {
    let records = telemetry::records(run.records.clone());
    records.filter_map(|record| Some(record.ok()?.payload)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shard_answers_as_it_must_whatever_comes() {
        for seed in 0..200 {
            assert_eq!(run(seed), None, "seed {seed}");
        }
    }
}
