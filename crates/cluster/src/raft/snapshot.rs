//! A snapshot: a consistent view of a replica's state, and its events from the first to the last.
//!
//! It is read while it is sent, frame by frame, and collected on the other side before anything is
//! replaced, so that a sender that dies half-way leaves the receiver as it was.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use dunlin_model::id::LogPosition;
use dunlin_model::limits::READ_BYTES_MAX;
use dunlin_model::port::{EventLog, EventRun, StoreError};
use dunlin_model::shard::verdict;
use dunlin_model::wire::{Reader, WireError, put_bytes};

use super::machine::Machine;

const FRAME_PAIRS: u8 = 0;
const FRAME_RUN: u8 = 1;
const FRAME_END: u8 = 2;
/// Bytes of pairs in one frame.
const PAIRS_BYTES_TARGET: usize = 256 * 1024;

type Pairs = Box<dyn Iterator<Item = Result<(Bytes, Bytes), StoreError>> + Send>;

/// A snapshot on its way out, or collected on its way in.
pub(crate) enum SnapshotData {
    /// A view of this replica.
    View(SnapshotView),
    /// What a peer sent, complete.
    Collected(Collected),
}

/// What is left to send of a view.
pub(crate) struct SnapshotView {
    pairs: Option<Pairs>,
    events: Option<EventsView>,
    ended: bool,
}

struct EventsView {
    log: Arc<dyn EventLog>,
    next: u64,
    end: u64,
    waiting: std::collections::VecDeque<EventRun>,
}

/// Everything of a snapshot, in memory and on its way to the stores.
#[derive(Default)]
pub(crate) struct Collected {
    pairs: Vec<(Bytes, Bytes)>,
    runs: Vec<EventRun>,
    first_offset: Option<u64>,
    complete: bool,
}

impl SnapshotData {
    pub(super) fn view(machine: &Machine) -> Self {
        let events = machine.events().map(|log| {
            let (first, end) = log.range();
            EventsView {
                log: log.clone(),
                next: first,
                end,
                waiting: Default::default(),
            }
        });
        SnapshotData::View(SnapshotView {
            pairs: Some(machine.store().snapshot()),
            events,
            ended: false,
        })
    }

    pub(super) fn install(self, machine: &Machine) -> Result<(), StoreError> {
        match self {
            SnapshotData::Collected(collected) => collected.install(machine),
            // Another replica on this node, or in tests of the store its own.
            SnapshotData::View(mut view) => {
                let mut collected = Collected::default();
                while let Some(frame) = view.next_frame()? {
                    collected
                        .take(frame)
                        .map_err(|error| StoreError::io("read snapshot", error))?;
                }
                collected.install(machine)
            }
        }
    }
}

impl SnapshotView {
    /// The next frame to send; the last one says that it is the last.
    pub(crate) fn next_frame(&mut self) -> Result<Option<Bytes>, StoreError> {
        if let Some(pairs) = &mut self.pairs {
            let mut out = BytesMut::with_capacity(PAIRS_BYTES_TARGET + 4096);
            out.put_u8(FRAME_PAIRS);
            for pair in pairs.by_ref() {
                let (key, value) = pair?;
                if verdict::is_local(&key) {
                    continue;
                }
                put_bytes(&mut out, &key);
                put_bytes(&mut out, &value);
                if out.len() >= PAIRS_BYTES_TARGET {
                    return Ok(Some(out.freeze()));
                }
            }
            self.pairs = None;
            return Ok(Some(out.freeze()));
        }
        if let Some(run) = self
            .events
            .as_mut()
            .map(EventsView::next_run)
            .transpose()?
            .flatten()
        {
            return Ok(Some(encode_run(&run)));
        }
        if self.ended {
            return Ok(None);
        }
        self.ended = true;
        let mut out = BytesMut::with_capacity(9);
        out.put_u8(FRAME_END);
        out.put_u64_le(self.events.as_ref().map_or(0, |events| events.end));
        Ok(Some(out.freeze()))
    }
}

impl EventsView {
    fn next_run(&mut self) -> Result<Option<EventRun>, StoreError> {
        if self.waiting.is_empty() && self.next < self.end {
            let runs = self.log.read(self.next, READ_BYTES_MAX)?;
            self.next = runs.last().map_or(self.end, EventRun::next_offset);
            self.waiting
                .extend(runs.into_iter().filter(|run| run.first_offset < self.end));
        }
        Ok(self.waiting.pop_front())
    }
}

fn encode_run(run: &EventRun) -> Bytes {
    let mut out = BytesMut::with_capacity(64 + run.records.len());
    out.put_u8(FRAME_RUN);
    for field in [run.index, run.term, run.time_ms, run.first_offset] {
        out.put_u64_le(field);
    }
    out.put_u32_le(run.count);
    out.put_slice(&run.records);
    out.freeze()
}

impl Collected {
    /// Takes a frame in.
    pub(crate) fn take(&mut self, frame: Bytes) -> Result<(), WireError> {
        let mut reader = Reader::new(frame);
        match reader.u8("snapshot frame")? {
            FRAME_PAIRS => {
                while !reader.is_empty() {
                    self.pairs
                        .push((reader.bytes("snapshot key")?, reader.bytes("snapshot value")?));
                }
            }
            FRAME_RUN => {
                let mut field = || reader.u64("snapshot run");
                let (index, term, time_ms, first_offset) = (field()?, field()?, field()?, field()?);
                let count = reader.u32("snapshot run")?;
                self.first_offset.get_or_insert(first_offset);
                self.runs.push(EventRun {
                    index,
                    term,
                    time_ms,
                    first_offset,
                    count,
                    records: reader.rest(),
                });
            }
            FRAME_END => {
                let end = reader.u64("snapshot end")?;
                self.first_offset.get_or_insert(end);
                self.complete = true;
            }
            _ => return Err(WireError::Invalid("snapshot frame")),
        }
        Ok(())
    }

    /// Whether the last frame has come.
    pub(crate) fn is_complete(&self) -> bool {
        self.complete
    }

    /// Events first, then the state, durably and as one. If the node dies between the two, the
    /// state still says how far this replica really is, and the events it has are a prefix of the
    /// same log, which `append` skips when they are fed again.
    fn install(self, machine: &Machine) -> Result<(), StoreError> {
        if let Some(events) = machine.events() {
            let before = self.runs.first().map_or(0, |run| run.index.saturating_sub(1));
            events.reset(self.first_offset.unwrap_or(0), before)?;
            let mut last = before;
            for run in self.runs {
                last = run.index;
                events.append(run)?;
            }
            // The journal here never had these entries: what stayed in the open block could not be fed again.
            events.seal()?;
            events.checkpoint(last)?;
        }
        let mut pairs = self.pairs.into_iter().map(Ok);
        machine.store().replace(&mut pairs)
    }
}

/// Where a snapshot stands, for the head that goes before it.
pub(crate) fn position(meta_last: Option<&super::LogId>) -> Option<LogPosition> {
    super::convert::position_of(meta_last)
}
