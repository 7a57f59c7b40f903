//! A snapshot: a consistent view of a replica's state, and its events from the first to the last.
//!
//! It is read while it is sent, frame by frame; sealed event segments go as the files they are, other events
//! as runs. The receiver writes the frames to a spool, compares the hash that ends them, reads the spool
//! once more against that hash, and only then puts anything in place: a sender that dies half-way, a bit
//! that flips on the way or a crash at any moment leaves the receiver as it was. Either side has one frame
//! in memory ([`FRAME_BYTES_MAX`]), however large the replica is; no lock is held while frames move.
//!
//! First the receiver says which sealed segments it has. Those that the sender has, too, to the last bit, are not
//! sent: the receiver checks its own when they are named and takes them from there.
//!
//! Frames: BEGIN (version, first offset, index before it), then SEGMENT with its PARTs, KEPT, RUNS, PAIRS, and END
//! with the SHA-256 over all before it, each with its length.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use dunlin_model::id::LogPosition;
use dunlin_model::limits::{ENTRY_BYTES_MAX, READ_BYTES_MAX, WIRE_FRAME_BYTES_MAX};
use dunlin_model::mutant::{self, Mutant};
use dunlin_model::port::{EventLog, EventRun, SealedSegment, StoreError};
use dunlin_model::shard::verdict;
use dunlin_model::wire::{Reader, WireError, put_bytes};
use dunlin_storage::disk::Disk;
use dunlin_storage::spool::{self, Spool, SpoolWriter};
use ring::digest::{Context, SHA256, SHA256_OUTPUT_LEN};
use tokio::sync::{OwnedRwLockReadGuard, OwnedSemaphorePermit, Semaphore};

use super::machine::Machine;

#[cfg(test)]
mod tests;

/// Bytes of one frame at the most: an entry's events, or a pair that is longer than a page.
pub(crate) const FRAME_BYTES_MAX: usize = WIRE_FRAME_BYTES_MAX;
/// Bytes of pairs or runs in one frame, before the last. At a low rate a run is one message, and a frame costs either
/// side a turn on the threads that may block.
const FRAME_BYTES_TARGET: usize = 256 * 1024;
/// Bytes of a segment in one frame.
const PART_BYTES: usize = 512 * 1024;
/// Sealed segments that a receiver says it has, the oldest ones: 4 TiB of events.
const KEPT_MAX: usize = 65_536;
/// Snapshots that are received at one time; others wait, and their senders try again.
const SPOOLS_MAX: usize = 4;
/// The layout of the frames. Another layout gets another number.
const VERSION: u8 = 2;

const _: () = assert!(
    FRAME_BYTES_TARGET + ENTRY_BYTES_MAX + 64 <= FRAME_BYTES_MAX
        && FRAME_BYTES_MAX <= spool::RECORD_BYTES_MAX
);

const FRAME_PAIRS: u8 = 0;
const FRAME_RUNS: u8 = 1;
const FRAME_BEGIN: u8 = 3;
const FRAME_SEGMENT: u8 = 4;
const FRAME_PART: u8 = 5;
const FRAME_END: u8 = 6;
const FRAME_KEPT: u8 = 7;

type Pairs = Box<dyn Iterator<Item = Result<(Bytes, Bytes), StoreError>> + Send>;
type NextFrame<'a> = dyn FnMut() -> Result<Option<Bytes>, StoreError> + 'a;

/// A snapshot on its way out, or whole and checked on its way in.
pub(crate) enum SnapshotData {
    /// A view of this replica.
    View(Box<SnapshotView>),
    /// What a peer sent.
    Spooled(Spooled),
}

impl SnapshotData {
    pub(crate) fn view(machine: &Machine) -> Self {
        SnapshotData::View(Box::new(SnapshotView {
            events: machine.events().map(EventsView::new).map(whole),
            pairs: Some(pairs_of(machine)),
            hash: FrameHash::default(),
            begun: false,
            ended: false,
        }))
    }

    pub(crate) fn install(self, machine: &Machine) -> Result<(), StoreError> {
        match self {
            SnapshotData::Spooled(mut spooled) => install(machine, &mut || spooled.spool.next_record()),
            // Another replica on this node.
            SnapshotData::View(mut view) => install(machine, &mut || view.next_frame()),
        }
    }
}

fn pairs_of(machine: &Machine) -> Pairs {
    let mut pairs = machine.store().snapshot();
    if mutant::is_on(Mutant::SnapshotWithoutFirst) {
        pairs.next();
    }
    pairs
}

fn whole(mut events: EventsView) -> EventsView {
    if mutant::is_on(Mutant::SnapshotWithoutEvents) {
        events.end = events.next;
        events.sealed.clear();
    }
    events
}

/// SHA-256 over frames, each with its length before it.
struct FrameHash(Context);

impl Default for FrameHash {
    fn default() -> Self {
        Self(Context::new(&SHA256))
    }
}

impl FrameHash {
    fn add(&mut self, frame: &[u8]) {
        self.0.update(&(frame.len() as u32).to_le_bytes());
        self.0.update(frame);
    }

    fn digest(&self) -> [u8; SHA256_OUTPUT_LEN] {
        let digest = self.0.clone().finish();
        digest.as_ref().try_into().expect("SHA-256 has this length")
    }
}

fn corrupt(reason: impl ToString) -> StoreError {
    StoreError::Corrupt {
        what: "snapshot".into(),
        reason: reason.to_string(),
    }
}

fn unreadable(error: WireError) -> StoreError {
    corrupt(error)
}

fn kind(frame: &Bytes) -> Option<u8> {
    frame.first().copied()
}

/// What is left to send of a view.
pub(crate) struct SnapshotView {
    events: Option<EventsView>,
    pairs: Option<Pairs>,
    hash: FrameHash,
    begun: bool,
    ended: bool,
}

struct EventsView {
    log: Arc<dyn EventLog>,
    first: u64,
    next: u64,
    end: u64,
    /// Sealed segments that lie wholly within, by first offset.
    sealed: BTreeMap<u64, SealedSegment>,
    /// Those that the receiver has.
    kept: BTreeMap<u64, SealedSegment>,
    /// The segment being sent, and how far it has got.
    part: Option<(SealedSegment, u64)>,
    waiting: VecDeque<EventRun>,
}

impl SnapshotView {
    /// Leaves out what the receiver says it has.
    pub(crate) fn leave_out(&mut self, kept: Vec<SealedSegment>) {
        if let Some(events) = &mut self.events {
            events.kept = kept
                .into_iter()
                .map(|segment| (segment.first_offset, segment))
                .collect();
        }
    }

    /// The next frame to send; the last one says that it is the last. Reads the disk.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Bytes>, StoreError> {
        if self.ended {
            return Ok(None);
        }
        let frame = self.make_frame()?;
        self.hash.add(&frame);
        Ok(Some(frame))
    }

    fn make_frame(&mut self) -> Result<Bytes, StoreError> {
        if !self.begun {
            self.begun = true;
            return self.encode_begin();
        }
        if let Some(events) = &mut self.events
            && let Some(frame) = events.next_frame()?
        {
            return Ok(frame);
        }
        if let Some(pairs) = &mut self.pairs {
            let mut out = BytesMut::with_capacity(FRAME_BYTES_TARGET + 4096);
            out.put_u8(FRAME_PAIRS);
            for pair in pairs.by_ref() {
                let (key, value) = pair?;
                if verdict::is_local(&key) {
                    continue;
                }
                put_bytes(&mut out, &key);
                put_bytes(&mut out, &value);
                if out.len() >= FRAME_BYTES_TARGET {
                    return Ok(out.freeze());
                }
            }
            self.pairs = None;
            return Ok(out.freeze());
        }
        self.ended = true;
        let mut out = BytesMut::with_capacity(1 + SHA256_OUTPUT_LEN);
        out.put_u8(FRAME_END);
        out.put_slice(&self.hash.digest());
        Ok(out.freeze())
    }

    fn encode_begin(&self) -> Result<Bytes, StoreError> {
        let (first_offset, before) = match &self.events {
            Some(events) => (events.first, events.index_before()?),
            None => (0, 0),
        };
        let mut out = BytesMut::with_capacity(18);
        out.put_u8(FRAME_BEGIN);
        out.put_u8(VERSION);
        out.put_u64_le(first_offset);
        out.put_u64_le(before);
        Ok(out.freeze())
    }
}

impl EventsView {
    fn new(log: &Arc<dyn EventLog>) -> Self {
        let (first, end) = log.range();
        let sealed = log.sealed_segments().into_iter();
        EventsView {
            first,
            next: first,
            end,
            sealed: sealed
                .filter(|segment| segment.next_offset <= end)
                .map(|segment| (segment.first_offset, segment))
                .collect(),
            kept: BTreeMap::new(),
            log: log.clone(),
            part: None,
            waiting: VecDeque::new(),
        }
    }

    /// The index that the first event comes after.
    fn index_before(&self) -> Result<u64, StoreError> {
        if self.first == self.end {
            return Ok(self.log.applied_index());
        }
        let runs = self.log.read(self.first, 1)?;
        Ok(runs.first().map_or(0, |run| run.index.saturating_sub(1)))
    }

    fn next_frame(&mut self) -> Result<Option<Bytes>, StoreError> {
        if let Some((segment, at)) = &mut self.part {
            let part = self.log.read_segment(segment.first_offset, *at, PART_BYTES)?;
            if part.is_empty() {
                return Err(corrupt("a segment is shorter than it was"));
            }
            *at += part.len() as u64;
            if *at >= segment.bytes {
                self.part = None;
            }
            let mut out = BytesMut::with_capacity(1 + part.len());
            out.put_u8(FRAME_PART);
            out.put_slice(&part);
            return Ok(Some(out.freeze()));
        }
        if !self.waiting.is_empty() {
            return Ok(Some(self.encode_waiting()));
        }
        if self.next >= self.end {
            return Ok(None);
        }
        if let Some(segment) = self.sealed.remove(&self.next) {
            self.next = segment.next_offset;
            if self.kept.get(&segment.first_offset) == Some(&segment) {
                return Ok(Some(encode_segment(FRAME_KEPT, &segment)));
            }
            self.part = Some((segment, 0));
            return Ok(Some(encode_segment(FRAME_SEGMENT, &segment)));
        }
        self.read_runs()?;
        Ok(Some(self.encode_waiting()))
    }

    /// As many of the runs that wait as one frame takes.
    fn encode_waiting(&mut self) -> Bytes {
        let mut out = BytesMut::with_capacity(FRAME_BYTES_TARGET + 4096);
        out.put_u8(FRAME_RUNS);
        while out.len() < FRAME_BYTES_TARGET
            && let Some(run) = self.waiting.pop_front()
        {
            put_run(&mut out, &run);
        }
        out.freeze()
    }

    /// Reads runs up to the next segment that goes as a whole.
    fn read_runs(&mut self) -> Result<(), StoreError> {
        let limit = self
            .sealed
            .range(self.next..)
            .next()
            .map_or(self.end, |(first, _)| *first);
        let mut runs = self.log.read(self.next, READ_BYTES_MAX)?;
        runs.retain(|run| run.first_offset < limit);
        if runs.first().is_none_or(|run| run.first_offset != self.next) {
            return Err(StoreError::io(
                "read snapshot",
                "events were trimmed while they were sent",
            ));
        }
        self.next = runs.last().map_or(self.end, EventRun::next_offset);
        self.waiting.extend(runs);
        Ok(())
    }
}

fn put_run(out: &mut BytesMut, run: &EventRun) {
    for field in [run.index, run.term, run.time_ms, run.first_offset] {
        out.put_u64_le(field);
    }
    out.put_u32_le(run.count);
    put_bytes(out, &run.records);
}

fn read_run(reader: &mut Reader) -> Result<EventRun, WireError> {
    let mut field = || reader.u64("snapshot run");
    let (index, term, time_ms, first_offset) = (field()?, field()?, field()?, field()?);
    Ok(EventRun {
        index,
        term,
        time_ms,
        first_offset,
        count: reader.u32("snapshot run")?,
        records: reader.bytes("snapshot run")?,
    })
}

fn encode_segment(kind: u8, segment: &SealedSegment) -> Bytes {
    let mut out = BytesMut::with_capacity(64);
    out.put_u8(kind);
    for field in [
        segment.first_offset,
        segment.next_offset,
        segment.last_index,
        segment.bytes,
    ] {
        out.put_u64_le(field);
    }
    out.put_u32_le(segment.crc32c);
    out.freeze()
}

fn decode_segment(mut reader: Reader) -> Result<SealedSegment, WireError> {
    let mut field = || reader.u64("snapshot segment");
    let (first_offset, next_offset, last_index, bytes) = (field()?, field()?, field()?, field()?);
    Ok(SealedSegment {
        first_offset,
        next_offset,
        last_index,
        bytes,
        crc32c: reader.u32("snapshot segment")?,
    })
}

fn decode_begin(frame: Bytes) -> Result<(u64, u64), StoreError> {
    let mut reader = Reader::new(frame);
    let mut read = || {
        if reader.u8("snapshot begin")? != FRAME_BEGIN || reader.u8("snapshot version")? != VERSION {
            return Err(WireError::Invalid("snapshot version"));
        }
        Ok((reader.u64("snapshot begin")?, reader.u64("snapshot begin")?))
    };
    read().map_err(unreadable)
}

/// Where snapshots that arrive are kept until they are in place.
pub(crate) struct Spools {
    disk: Arc<dyn Disk>,
    places: Arc<Semaphore>,
}

impl Spools {
    /// On `disk`, without what an earlier run left there.
    pub(crate) fn new(disk: Arc<dyn Disk>) -> Result<Self, StoreError> {
        spool::remove_leftovers(&*disk)?;
        Ok(Self {
            disk,
            places: Arc::new(Semaphore::new(SPOOLS_MAX)),
        })
    }

    /// Room for one snapshot, once there is some. What is not sent is in `events`.
    pub(crate) async fn receive(&self, events: Option<Arc<dyn EventLog>>) -> Result<Receiving, StoreError> {
        let place = self.places.clone().acquire_owned().await;
        let mut kept = events
            .as_ref()
            .map_or_else(Vec::new, |events| events.sealed_segments());
        kept.truncate(KEPT_MAX);
        Ok(Receiving {
            place: place.map_err(|error| StoreError::io("receive snapshot", error))?,
            writer: SpoolWriter::create(self.disk.clone())?,
            hash: FrameHash::default(),
            begun: false,
            events,
            kept,
            digest: None,
            held: None,
        })
    }
}

/// A snapshot that is arriving. Dropped before its end, it leaves nothing.
pub(crate) struct Receiving {
    writer: SpoolWriter,
    hash: FrameHash,
    begun: bool,
    events: Option<Arc<dyn EventLog>>,
    /// Its sealed segments when this began, which the sender may leave out; in the order of their offsets.
    kept: Vec<SealedSegment>,
    /// What the sender says that everything hashes to.
    digest: Option<[u8; SHA256_OUTPUT_LEN]>,
    place: OwnedSemaphorePermit,
    /// Keeps what the sender leaves out as it is, until it is put in its place.
    held: Option<OwnedRwLockReadGuard<()>>,
}

impl Receiving {
    /// As long as this is `held`, what the sender may leave out stays as it is.
    pub(crate) fn holding(self, held: OwnedRwLockReadGuard<()>) -> Self {
        let held = Some(held);
        Self { held, ..self }
    }

    /// What the sender may leave out, because it is here.
    pub(crate) fn kept(&self) -> &[SealedSegment] {
        &self.kept
    }

    /// Takes a frame in. Writes to the disk.
    pub(crate) fn take(&mut self, frame: &Bytes) -> Result<(), StoreError> {
        if self.digest.is_some() {
            return Err(corrupt("it goes on after its end"));
        }
        if !self.begun {
            decode_begin(frame.clone())?;
            self.begun = true;
        }
        if kind(frame) == Some(FRAME_KEPT) {
            self.check_kept(frame)?;
        }
        if kind(frame) == Some(FRAME_END) {
            let digest = self.hash.digest();
            if frame[1..] != digest {
                return Err(corrupt("what arrived is not what was sent"));
            }
            self.digest = Some(digest);
        }
        self.hash.add(frame);
        self.writer.put(frame)
    }

    /// Reads a segment that is not sent. One that has rotted is remembered as damaged, so the next attempt gets it.
    fn check_kept(&self, frame: &Bytes) -> Result<(), StoreError> {
        let segment = decode_segment(Reader::new(frame.slice(1..))).map_err(unreadable)?;
        let events = self.events.as_ref();
        let events = events.ok_or_else(|| corrupt("a directory has no events"))?;
        let first = |kept: &SealedSegment| kept.first_offset;
        let place = self.kept.binary_search_by_key(&segment.first_offset, first);
        if place.ok().and_then(|place| self.kept.get(place)) != Some(&segment) {
            return Err(corrupt("a segment was left out that is not here"));
        }
        events.verify_segment(segment.first_offset)
    }

    /// Reads everything once more and compares it with the sender's hash.
    pub(crate) fn finish(self) -> Result<Spooled, StoreError> {
        let Some(digest) = self.digest else {
            return Err(corrupt("it ends half-way"));
        };
        let mut spool = self.writer.finish();
        let mut hash = FrameHash::default();
        while let Some(frame) = spool.next_record()? {
            if kind(&frame) == Some(FRAME_END) {
                break;
            }
            hash.add(&frame);
        }
        if hash.digest() != digest {
            return Err(corrupt("what was written is not what arrived"));
        }
        spool.rewind();
        Ok(Spooled {
            spool,
            _place: self.place,
            _held: self.held,
        })
    }
}

/// A snapshot that arrived whole.
pub(crate) struct Spooled {
    spool: Spool,
    _place: OwnedSemaphorePermit,
    _held: Option<OwnedRwLockReadGuard<()>>,
}

/// Events first, then the state, each durably and as one. If the node dies between the two, the state still
/// says how far this replica really is, and the events it has are those of the same log, which `append`
/// skips when they are fed again.
fn install(machine: &Machine, next: &mut NextFrame<'_>) -> Result<(), StoreError> {
    let mut required = || next()?.ok_or_else(|| corrupt("it ends half-way"));
    let (first_offset, before) = decode_begin(required()?)?;
    let mut staged = machine
        .events()
        .map(|events| events.stage(first_offset, before))
        .transpose()?;
    let mut frame = required()?;
    while let Some(FRAME_SEGMENT | FRAME_KEPT | FRAME_RUNS) = kind(&frame) {
        let staged = staged
            .as_mut()
            .ok_or_else(|| corrupt("a directory has no events"))?;
        let mut body = Reader::new(frame.slice(1..));
        if kind(&frame) == Some(FRAME_RUNS) {
            while !body.is_empty() {
                staged.append(read_run(&mut body).map_err(unreadable)?)?;
            }
        } else if kind(&frame) == Some(FRAME_KEPT) {
            let segment = decode_segment(body).map_err(unreadable)?;
            let own = machine
                .events()
                .ok_or_else(|| corrupt("a directory has no events"))?;
            let mut at = 0;
            staged.add_segment(&segment, &mut || {
                let part = own.read_segment(segment.first_offset, at, PART_BYTES)?;
                at += part.len() as u64;
                Ok(part)
            })?;
        } else {
            let segment = decode_segment(body).map_err(unreadable)?;
            staged.add_segment(&segment, &mut || {
                let part = required()?;
                match kind(&part) {
                    Some(FRAME_PART) => Ok(part.slice(1..)),
                    _ => Err(corrupt("a segment is cut short")),
                }
            })?;
        }
        frame = required()?;
    }
    if let Some(staged) = staged {
        staged.commit()?;
    }
    let mut pairs = PairsIn {
        page: None,
        frame: Some(frame),
        required: &mut required,
    };
    machine.store().replace(&mut pairs)
}

/// The pairs of the frames from `frame` on.
struct PairsIn<'a> {
    page: Option<Reader>,
    frame: Option<Bytes>,
    required: &'a mut dyn FnMut() -> Result<Bytes, StoreError>,
}

impl PairsIn<'_> {
    fn next_pair(&mut self) -> Result<Option<(Bytes, Bytes)>, StoreError> {
        loop {
            if let Some(page) = self.page.as_mut().filter(|page| !page.is_empty()) {
                let key = page.bytes("snapshot key").map_err(unreadable)?;
                return Ok(Some((key, page.bytes("snapshot value").map_err(unreadable)?)));
            }
            let frame = match self.frame.take() {
                Some(frame) => frame,
                None => (self.required)()?,
            };
            match kind(&frame) {
                Some(FRAME_PAIRS) => self.page = Some(Reader::new(frame.slice(1..))),
                Some(FRAME_END) => return Ok(None),
                _ => return Err(corrupt("a frame is out of place")),
            }
        }
    }
}

impl Iterator for PairsIn<'_> {
    type Item = Result<(Bytes, Bytes), StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_pair().transpose()
    }
}

/// Where a snapshot stands, for the head that goes before it.
pub(crate) fn position(meta_last: Option<&super::LogId>) -> Option<LogPosition> {
    super::convert::position_of(meta_last)
}
