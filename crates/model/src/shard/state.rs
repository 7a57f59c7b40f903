//! What a log entry does to a shard: the one function that all replicas must agree on.
//!
//! `apply` reads no clock and draws nothing at random; equal entries over equal state give equal
//! state, outcomes and events everywhere. Registry and session commands are decided in
//! [`super::registry`]; when an entry is made, in [`super::batch`].

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};

use super::fence::FenceCache;
use super::meta::Meta;
use super::overlay::Overlay;
use super::verdict::{self, Verdict};
use super::{Batch, Notice, Part, keys, registry, stored};
use crate::command::{Command, Outcome, Place};
use crate::id::{DeviceId, LogPosition, StreamId};
use crate::limits::{STREAM_FRAMES_IN_FLIGHT_MAX, STREAMS_PER_SHARD_MAX};
use crate::mutant::{self, Mutant};
use crate::point::Point;
use crate::port::{
    EventRun, Frame, FrameApplied, FrameOutcome, FrameResult, ShardStore, StoreError, WriteBatch,
};
use crate::routing::EventSources;
use crate::telemetry;
use crate::wire::Reader;

/// Sessions that one [`Part::GatewayGone`] ends.
const SESSIONS_ENDED_PER_ENTRY_MAX: usize = 1024;
/// Notes that one call of [`ShardState::forget_verdicts`] removes. Each is read, and may hold many events.
const VERDICTS_FORGOTTEN_MAX: usize = 256;

/// The state of one replica of a shard.
pub struct ShardState {
    store: Arc<dyn ShardStore>,
    meta: Meta,
    /// Last taken sequence number of each known stream.
    streams: BTreeMap<StreamId, u64>,
    fences: FenceCache,
}

/// What applying one entry gave.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Ends of the frames, in order.
    pub outcomes: Vec<FrameOutcome>,
    /// The events, if any record was stored.
    pub run: Option<EventRun>,
    /// What others have to hear.
    pub notices: Vec<Notice>,
    /// The event log must cut here.
    pub seal: bool,
    /// The event log may drop events below this offset.
    pub trim: Option<u64>,
}

/// The working set of one entry.
pub(super) struct Entry<'a> {
    pub(super) overlay: Overlay<'a>,
    pub(super) meta: Meta,
    pub(super) fences: &'a mut FenceCache,
    pub(super) notices: Vec<Notice>,
    streams: &'a mut BTreeMap<StreamId, u64>,
    outcomes: Vec<FrameOutcome>,
    verdicts: Vec<Verdict>,
    stored: Vec<Bytes>,
    stored_count: u32,
    /// What the hub tells of itself.
    pub(super) announces: EventSources,
    /// Records of the hub's own so far.
    made_count: u32,
}

impl ShardState {
    /// Reads what must be in memory from `store`.
    pub fn open(store: Arc<dyn ShardStore>) -> Result<Self, StoreError> {
        let mut meta = match store.get(keys::META)? {
            Some(bytes) => Meta::decode(bytes)?,
            None => Meta::new(),
        };
        if mutant::is_on(Mutant::ApplyTwice) {
            meta.applied = meta.applied.map(|at| LogPosition {
                index: at.index - 1,
                ..at
            });
        }
        let mut streams = BTreeMap::new();
        let (from, to) = keys::outcomes_range();
        let rows = STREAMS_PER_SHARD_MAX * (STREAM_FRAMES_IN_FLIGHT_MAX as usize + 1);
        for (key, value) in store.scan(&from, &to, rows)? {
            let Some((stream, place)) = keys::parse_outcome(&key) else {
                continue;
            };
            let last = streams.entry(stream).or_insert(0);
            if place != keys::STREAM_MARK_PLACE {
                let (sequence, _) = decode_outcome(value)?;
                *last = sequence.max(*last);
            }
        }
        Ok(Self {
            store,
            meta,
            streams,
            fences: FenceCache::default(),
        })
    }

    /// Applied position and counters.
    pub fn meta(&self) -> &Meta {
        &self.meta
    }

    /// The store behind this state, for reads beside `apply`.
    pub fn store(&self) -> &Arc<dyn ShardStore> {
        &self.store
    }

    /// The streams that are known, for a leader that watches over their gateways.
    pub fn streams(&self) -> Vec<StreamId> {
        self.streams.keys().copied().collect()
    }

    /// Applies an entry that carries no batch (a blank or a membership entry): only the position moves, and with it, in
    /// one write, what consensus keeps beside the state.
    pub fn skip(&mut self, position: LogPosition, beside: WriteBatch) -> Result<(), StoreError> {
        let meta = Meta {
            applied: Some(position),
            ..self.meta
        };
        let mut batch = beside;
        batch.put(keys::META, meta.encode());
        self.store.write(batch)?;
        self.meta = meta;
        Ok(())
    }

    /// Applies `batch`, which stands at `position`, above [`Meta::applied`].
    ///
    /// An error means that nothing was written; the replica must stop, for it may not fall behind its log.
    pub fn apply(&mut self, position: LogPosition, batch: &Batch) -> Result<Applied, StoreError> {
        assert!(
            self.meta.applied.is_none_or(|at| at.index < position.index),
            "an entry is applied once"
        );
        let store = self.store.clone();
        let mut entry = Entry {
            overlay: Overlay::new(&*store),
            meta: self.meta,
            fences: &mut self.fences,
            notices: Vec::new(),
            streams: &mut self.streams,
            outcomes: Vec::new(),
            verdicts: Vec::new(),
            stored: Vec::new(),
            stored_count: 0,
            announces: EventSources::default(),
            made_count: 0,
        };
        // A stamp that does not rise can only come from a leader whose clock and log disagree.
        entry.meta.time_ms = batch.time_ms.max(self.meta.time_ms + 1);
        if entry.meta.time_ms != batch.time_ms && batch.time_ms != 0 {
            Point::StampRaised.reach();
        }
        if mutant::is_on(Mutant::ClockInApply) {
            // Where this replica stands in memory: as good a thing of its own as a clock.
            entry.meta.time_ms += (std::ptr::from_ref(&*store) as *const () as u64 >> 4) % 7;
        }
        entry.meta.applied = Some(position);
        let mut applied = Applied::default();
        for part in &batch.parts {
            entry.apply_part(position, part, &mut applied)?;
        }
        let stamped = entry.meta.time_ms == batch.time_ms;
        let is_noted = !stamped || !entry.verdicts.iter().all(Verdict::is_regular);
        if is_noted && !mutant::is_on(Mutant::ForgetNote) {
            let note = verdict::encode(entry.meta.time_ms, &entry.verdicts);
            entry.overlay.put(verdict::key(position.index), note);
        }
        let first_offset = self.meta.next_offset;
        entry.meta.next_offset = first_offset + u64::from(entry.stored_count);
        entry.overlay.put(keys::META.to_vec(), entry.meta.encode());
        let (meta, count) = (entry.meta, entry.stored_count);
        let records = join(entry.stored);
        applied.outcomes = entry.outcomes;
        applied.notices = entry.notices;
        applied.run = run(position, meta.time_ms, first_offset, count, records);
        let writes = entry.overlay.into_batch();
        self.store.write(writes)?;
        self.meta = meta;
        Ok(applied)
    }

    /// The events of an entry that the state has passed, for an event log that has not. Its first
    /// offset is `first_offset`, since offsets are dense.
    pub fn replay_run(
        &self,
        position: LogPosition,
        batch: &Batch,
        first_offset: u64,
    ) -> Result<Option<EventRun>, StoreError> {
        assert!(
            self.meta.applied.is_some_and(|at| at.index >= position.index),
            "only passed entries are replayed"
        );
        let note = self
            .store
            .get(&verdict::key(position.index))?
            .map(verdict::decode)
            .transpose()?;
        let time_ms = note.as_ref().map_or(batch.time_ms, |(time_ms, _)| *time_ms);
        let mut stored = Vec::new();
        let mut count = 0;
        let mut frames = batch.parts.iter().filter_map(|part| match part {
            Part::Frame(frame) => Some(frame),
            _ => None,
        });
        let regular = || {
            let frames = frames.clone();
            frames.map(|_| Verdict::Stored { fenced: Vec::new() }).collect()
        };
        for verdict in note.map_or_else(regular, |(_, verdicts)| verdicts) {
            if let Verdict::Made(record) = verdict {
                stored.push(record);
                count += 1;
                continue;
            }
            let frame = frames.next().ok_or_else(|| StoreError::Corrupt {
                what: "note on an entry's events".into(),
                reason: "it has more frames than its entry".into(),
            })?;
            if let Verdict::Stored { fenced } = verdict {
                stored.push(without(&frame.records, &fenced));
                count += frame.record_count - fenced.len() as u32;
            }
        }
        Ok(run(position, time_ms, first_offset, count, join(stored)))
    }

    /// Drops some of the notes up to `index`, which the event log has made durable, and remembers how
    /// far: an event log that has lost what was durable cannot be fed from there. Returns whether there may be more.
    pub fn forget_verdicts(&self, index: u64) -> Result<bool, StoreError> {
        let (from, to) = verdict::range_upto(index);
        let mut batch = WriteBatch::default();
        let notes = self.store.scan(&from, &to, VERDICTS_FORGOTTEN_MAX)?;
        let last = notes.iter().filter_map(|(key, _)| verdict::index_of(key)).max();
        let is_more = notes.len() == VERDICTS_FORGOTTEN_MAX;
        notes.into_iter().for_each(|(key, _)| batch.delete(key));
        if let Some(last) = last {
            batch.put(verdict::forgotten_key(), last.to_be_bytes().to_vec());
            self.store.write(batch)?;
        }
        Ok(is_more)
    }

    /// The last entry whose note was dropped, if any was: an event log that ends before it cannot be fed again.
    pub fn verdicts_forgotten_upto(&self) -> Result<Option<u64>, StoreError> {
        let Some(bytes) = self.store.get(&verdict::forgotten_key())? else {
            return Ok(None);
        };
        let index = <[u8; 8]>::try_from(&bytes[..]).map_err(|_| StoreError::Corrupt {
            what: "mark of dropped notes".into(),
            reason: "it is no number".into(),
        })?;
        Ok(Some(u64::from_be_bytes(index)))
    }

    /// Reads everything in memory again, after the store's content was replaced.
    pub fn reload(&mut self) -> Result<(), StoreError> {
        *self = Self::open(self.store.clone())?;
        self.fences.clear();
        Ok(())
    }
}

impl Entry<'_> {
    fn apply_part(
        &mut self,
        position: LogPosition,
        part: &Part,
        applied: &mut Applied,
    ) -> Result<(), StoreError> {
        match part {
            Part::Frame(frame) => {
                let result = self.apply_frame(position, frame)?;
                let outcome = FrameOutcome {
                    stream: frame.stream,
                    sequence: frame.sequence,
                    result,
                };
                self.outcomes.push(outcome);
            }
            Part::StreamOpen(stream) => self.open_stream(*stream),
            Part::GatewayGone(stream) => self.close_stream(*stream)?,
            Part::Internal(command) => {
                self.apply_command(command)?;
            }
            Part::Seal => {
                Point::Sealed.reach();
                applied.seal = true;
            }
            Part::Trim(offset) => applied.trim = Some(*offset),
            Part::Announce(sources) => self.announces = *sources,
        }
        Ok(())
    }

    fn apply_frame(&mut self, position: LogPosition, frame: &Frame) -> Result<FrameResult, StoreError> {
        let taken = self.streams.get(&frame.stream).copied();
        let fresh = taken.is_some_and(|last| {
            frame.sequence == last + 1
                || (frame.sequence <= last && mutant::is_on(Mutant::ForgetOutcome))
                || (frame.sequence > last && mutant::is_on(Mutant::AcceptGap))
        });
        if !fresh {
            self.verdicts.push(Verdict::Skipped);
        }
        let place = (frame.sequence % STREAM_FRAMES_IN_FLIGHT_MAX) as u8;
        let key = keys::outcome(frame.stream, place);
        match taken {
            Some(_) if fresh => {}
            None => {
                Point::StreamUnknown.reach();
                return Ok(FrameResult::StreamUnknown);
            }
            Some(last) if frame.sequence > last => {
                Point::FrameGap.reach();
                return Ok(FrameResult::Gap { expected: last + 1 });
            }
            Some(_) => {
                let kept = self.overlay.get(&key)?.map(decode_outcome).transpose()?;
                return Ok(match kept {
                    Some((sequence, result)) if sequence == frame.sequence => {
                        Point::FrameRepeated.reach();
                        result
                    }
                    _ => {
                        Point::FrameForgotten.reach();
                        FrameResult::Forgotten
                    }
                });
            }
        }
        let first_offset = self.next_offset();
        let fenced = self.check_fences(frame)?;
        self.stored.push(without(&frame.records, &fenced));
        self.stored_count += frame.record_count - fenced.len() as u32;
        if !fenced.is_empty() && self.stored_count > 0 && mutant::is_on(Mutant::ReuseOffset) {
            self.stored_count -= 1;
        }
        // Before whatever its commands have the hub tell.
        self.verdicts.push(Verdict::Stored {
            fenced: fenced.clone(),
        });
        let mut outcomes = Vec::with_capacity(frame.commands.len());
        for command in &frame.commands {
            outcomes.push(self.apply_command(command)?);
        }
        let result = FrameResult::Applied(FrameApplied {
            term: position.term,
            index: position.index,
            first_offset,
            record_count: frame.record_count,
            fenced,
            outcomes,
        });
        self.streams.insert(frame.stream, frame.sequence);
        self.overlay.put(key, stored::to_bytes(frame.sequence, &result));
        Ok(result)
    }

    /// Places of records whose epoch or generation is not the current one (I11).
    fn check_fences(&mut self, frame: &Frame) -> Result<Vec<u32>, StoreError> {
        let mut fenced = Vec::new();
        let mut rest = &frame.records[..];
        for place in 0..frame.record_count {
            let record = telemetry::peek(rest).expect("a shard takes only sound frames in");
            let fence = self.fences.get(&self.overlay, record.device)?;
            let wanted = if record.by_generation {
                fence.generation
            } else {
                fence.epoch
            };
            if (wanted == 0 || wanted != record.fence) && !mutant::is_on(Mutant::StaleOwner) {
                Point::RecordFenced.reach();
                fenced.push(place);
            }
            rest = &rest[record.total_bytes..];
        }
        assert!(rest.is_empty(), "a frame holds the records that it counts");
        Ok(fenced)
    }

    /// Stores a record of the hub's own.
    pub(super) fn store_made(&mut self, record: Bytes) {
        self.stored.push(record.clone());
        self.stored_count += 1;
        self.made_count += 1;
        self.verdicts.push(Verdict::Made(record));
    }

    /// Where the next record of the hub's own stands among all that this log ever had: entry, and place in it.
    pub(super) fn made_place(&self) -> (u64, u32) {
        let index = self.meta.applied.map_or(0, |at| at.index);
        (index, self.made_count)
    }

    /// The offset that the next event gets.
    pub(super) fn next_offset(&self) -> u64 {
        self.meta.next_offset + u64::from(self.stored_count)
    }

    fn apply_command(&mut self, command: &Command) -> Result<Outcome, StoreError> {
        let outcome = registry::apply(self, command)?;
        if let Place::Device(device) = command.place() {
            self.forget_fence(device);
        }
        Ok(outcome)
    }

    /// The record or the session of `device` has changed.
    pub(super) fn forget_fence(&mut self, device: &DeviceId) {
        if !mutant::is_on(Mutant::StaleFence) {
            self.fences.forget(device.as_str().as_bytes());
        }
    }

    fn open_stream(&mut self, stream: StreamId) {
        if self.streams.contains_key(&stream) || self.streams.len() >= STREAMS_PER_SHARD_MAX {
            if self.streams.contains_key(&stream) {
                self.notices.push(Notice::StreamOpened(stream));
            }
            return;
        }
        self.streams.insert(stream, 0);
        self.overlay
            .put(keys::outcome(stream, keys::STREAM_MARK_PLACE), Bytes::new());
        self.notices.push(Notice::StreamOpened(stream));
    }

    fn close_stream(&mut self, stream: StreamId) -> Result<(), StoreError> {
        if self.streams.remove(&stream).is_some() {
            self.overlay
                .delete(keys::outcome(stream, keys::STREAM_MARK_PLACE));
            for place in 0..STREAM_FRAMES_IN_FLIGHT_MAX {
                self.overlay.delete(keys::outcome(stream, place as u8));
            }
        }
        let (from, to) = keys::held_range(stream);
        let (held, more) = self.overlay.keys((&from, &to), SESSIONS_ENDED_PER_ENTRY_MAX)?;
        for device in held.iter().filter_map(|key| keys::parse_held(key)) {
            registry::end_lost_session(self, &device, stream)?;
            self.fences.forget(device.as_str().as_bytes());
        }
        self.notices.push(Notice::StreamClosed { stream, more });
        Ok(())
    }
}

fn decode_outcome(bytes: Bytes) -> Result<(u64, FrameResult), StoreError> {
    stored::decode(&mut Reader::new(bytes)).map_err(|error| StoreError::Corrupt {
        what: "kept outcome".into(),
        reason: error.to_string(),
    })
}

fn run(
    position: LogPosition,
    time_ms: u64,
    first_offset: u64,
    count: u32,
    records: Bytes,
) -> Option<EventRun> {
    (count > 0).then_some(EventRun {
        index: position.index,
        term: position.term,
        time_ms,
        first_offset,
        count,
        records,
    })
}

/// `records` without the ones in these places (ascending).
fn without(records: &Bytes, places: &[u32]) -> Bytes {
    if places.is_empty() {
        return records.clone();
    }
    let mut out = BytesMut::with_capacity(records.len());
    let mut rest = &records[..];
    let mut place = 0;
    while !rest.is_empty() {
        let record = telemetry::peek(rest).expect("a shard takes only sound frames in");
        if places.binary_search(&place).is_err() {
            out.extend_from_slice(&rest[..record.total_bytes]);
        }
        rest = &rest[record.total_bytes..];
        place += 1;
    }
    out.freeze()
}

fn join(mut parts: Vec<Bytes>) -> Bytes {
    if parts.len() <= 1 {
        return parts.pop().unwrap_or_default();
    }
    let mut out = BytesMut::with_capacity(parts.iter().map(Bytes::len).sum());
    parts.iter().for_each(|part| out.extend_from_slice(part));
    out.freeze()
}
