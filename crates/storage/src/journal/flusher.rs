//! What writes: takes the whole queue, one write, one sync, all callbacks in order.
//!
//! It decides what goes into a flush, when to move to the next segment and when there is no room.
//! Appends are taken only while a spare segment stands in reserve, or while this very flush frees
//! one; the reserve is for votes and for the marks whose rewriting frees segments. It calls back
//! without holding a lock, and ends at the first error of the disk. It never waits for work: that is
//! for whoever runs it, the journal's thread ([`run`]) or a [`Driver`](super::Driver).

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Instant;

use super::files::{Files, Segment};
use super::format::{
    BLOCK_BYTES, FLUSH_REPLICA_BYTES, FLUSH_REPLICAS_MAX, FlushHeader, Kind, NO_POSITION, NO_REPLICA,
    RecordHead, align_up, encode_record, truncate_body,
};
use super::log_state::{Core, Op, What};
use super::{JournalError, Shared};
use dunlin_model::alarm::Alarm;
use dunlin_model::mutant::{self, Mutant};

/// A flush takes ops until it passes this many bytes; the rest of the queue waits for the next.
const FLUSH_BYTES_MAX: u64 = 8 << 20;

/// Under load, a step of making the next spare is done once in this many flushes.
const FLUSHES_PER_SPARE_STEP: u64 = 8;

/// What one turn of the flusher came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// Something was written or answered; there may be more.
    Worked,
    /// There is nothing to do before somebody calls.
    Idle,
    /// The journal was stopped, or has failed: there is no further turn.
    Ended,
}

/// What the flusher owns.
pub(super) struct Flusher {
    pub(super) files: Files,
    pub(super) current: Segment,
    /// Where the next flush starts.
    pub(super) offset: u64,
    /// Number of the next flush.
    pub(super) sequence: u64,
    /// Segment and offset of the end of the flush before.
    pub(super) end: (u64, u64),
    pub(super) backlog: VecDeque<Op>,
    pub(super) buffer: Vec<u8>,
    /// Whether nothing can be written until a purge has made room.
    pub(super) waits_for_room: bool,
}

/// What the next flush may do, decided under the lock.
struct Plan {
    oldest: u64,
    frees_segments: bool,
    marks: Vec<Op>,
    marks_bytes_max: usize,
}

/// Turns until the end, and waits in between.
pub(super) fn run(shared: Arc<Shared>, mut flusher: Flusher) {
    loop {
        match flusher.turn(&shared) {
            Turn::Worked => {}
            Turn::Idle => shared.wait_for_call(),
            Turn::Ended => return,
        }
    }
}

fn failed(action: &'static str) -> impl FnOnce(io::Error) -> JournalError {
    move |error| JournalError::Failed {
        action,
        reason: error.to_string(),
    }
}

impl Flusher {
    /// Does one flush of what waits. An error of the disk ends the journal.
    pub(super) fn turn(&mut self, shared: &Shared) -> Turn {
        self.try_turn(shared).unwrap_or_else(|error| {
            self.fail(shared, error);
            Turn::Ended
        })
    }

    fn try_turn(&mut self, shared: &Shared) -> Result<Turn, JournalError> {
        let stopping = self.gather(shared)?;
        if self.backlog.is_empty() {
            if !stopping {
                return Ok(Turn::Idle);
            }
            self.backlog.push_back(Op {
                id: NO_REPLICA,
                incarnation: 0,
                what: What::CleanStop,
                done: None,
                refused: None,
                queued_bytes: 0,
            });
            while !self.backlog.is_empty() {
                self.flush(shared)?;
            }
            return Ok(Turn::Ended);
        }
        self.flush(shared)?;
        if std::mem::take(&mut self.waits_for_room) {
            return Ok(Turn::Idle);
        }
        if self.sequence.is_multiple_of(FLUSHES_PER_SPARE_STEP) && self.files.wants_spare() {
            self.files
                .prepare_step()
                .map_err(failed("make journal segment"))?;
        }
        Ok(Turn::Worked)
    }

    /// Moves the queue to the backlog; makes spares while there is nothing to move. Returns whether
    /// the journal is stopping.
    fn gather(&mut self, shared: &Shared) -> Result<bool, JournalError> {
        loop {
            let mut core = shared.lock();
            self.backlog.append(&mut core.queue);
            let stopping = core.stopping;
            drop(core);
            if !self.backlog.is_empty() || stopping || !self.files.wants_spare() {
                return Ok(stopping);
            }
            self.files
                .prepare_step()
                .map_err(failed("make journal segment"))?;
        }
    }

    fn plan(&self, core: &Core) -> Plan {
        let oldest = core.boundary();
        Plan {
            oldest,
            // A segment that was lost frees nothing, so files are counted, not numbers.
            frees_segments: self.files.in_use() > self.files.in_use_from(oldest),
            marks: core.marks(oldest),
            marks_bytes_max: core.marks_bytes_max(),
        }
    }

    /// Writes one flush, or moves to another segment, or refuses what has no room.
    fn flush(&mut self, shared: &Shared) -> Result<(), JournalError> {
        let mut plan = self.plan(&shared.lock());
        if self.backlog.iter().any(Op::is_append) && !plan.frees_segments && !self.ensure_spares(1)? {
            self.refuse_appends(shared);
        }
        let in_reserve = self.files.spares() == 0;
        let reserve = if in_reserve { self.reserve_bytes(&plan) } else { 0 };
        let room = self.current.header.segment_bytes - self.offset;
        let mut batch = Batch::default();
        for mark in std::mem::take(&mut plan.marks) {
            batch.add(mark);
        }
        let marks = batch.ops.len();
        while let Some(op) = self.backlog.front() {
            let bytes = batch.bytes_with(op);
            let full = batch.ops.len() > marks && bytes > FLUSH_BYTES_MAX;
            // An op that is already refused writes nothing; it only waits for its turn.
            let fits = match op.refused {
                None => bytes + reserve <= room && !full,
                Some(_) => batch.bytes() <= room,
            };
            if !fits {
                break;
            }
            batch.add(self.backlog.pop_front().expect("looked at above"));
        }
        if batch.ops.len() == marks && !self.backlog.is_empty() {
            return self.make_room(shared, &plan, batch, room);
        }
        self.commit(shared, &plan, batch)
    }

    /// Nothing of the backlog fits the room that is left.
    fn make_room(
        &mut self,
        shared: &Shared,
        plan: &Plan,
        marks: Batch,
        room: u64,
    ) -> Result<(), JournalError> {
        if self.backlog.front().is_some_and(|op| op.refused.is_some()) {
            self.complete_refused(shared);
            return Ok(());
        }
        let append = self.backlog.front().is_some_and(Op::is_append);
        let fresh = self.offset == BLOCK_BYTES;
        let free_to_move = if append {
            self.ensure_spares(2)? || (plan.frees_segments && self.files.spares() >= 1)
        } else {
            self.ensure_spares(1)?
        };
        if free_to_move && !fresh {
            return self.move_on(shared);
        }
        if plan.frees_segments && marks.bytes() <= room {
            // Writing only the marks frees segments for the next turn.
            return self.commit(shared, plan, marks);
        }
        if append {
            self.refuse_appends(shared);
        } else {
            self.refuse_front(shared);
        }
        Ok(())
    }

    fn ensure_spares(&mut self, wanted: usize) -> Result<bool, JournalError> {
        self.files
            .ensure_spares(wanted)
            .map_err(failed("make journal segment"))
    }

    /// Bytes that must stay free in the last segment, so that marks can be rewritten and segments
    /// freed whatever happens.
    fn reserve_bytes(&self, plan: &Plan) -> u64 {
        align_up((FlushHeader::record_bytes(0) + plan.marks_bytes_max) as u64) + BLOCK_BYTES
    }

    fn move_on(&mut self, shared: &Shared) -> Result<(), JournalError> {
        let number = self.current.header.number + 1;
        self.current = self.files.take(number).map_err(failed("take journal segment"))?;
        self.offset = BLOCK_BYTES;
        let mut core = shared.lock();
        core.segments.insert(number, self.current.clone());
        core.current = number;
        core.stats.segments_in_use = self.files.in_use();
        Ok(())
    }

    /// Every append that waits is refused; the ops keep their turns.
    fn refuse_appends(&mut self, shared: &Shared) {
        let mut core = shared.lock();
        self.backlog.append(&mut core.queue);
        core.drop_pending();
        drop(core);
        let error = JournalError::Full("every segment is needed or the disk has no room".to_owned());
        for op in self.backlog.iter_mut().filter(|op| op.is_append()) {
            op.refused = Some(error.clone());
        }
    }

    /// The reserve is used up as well. A vote is refused; a truncate or a removal has happened in
    /// memory, so its caller hears of the full disk but its record stays due.
    fn refuse_front(&mut self, shared: &Shared) {
        let Some(op) = self.backlog.pop_front() else {
            return;
        };
        let error = JournalError::Full("the reserve for votes is used up".to_owned());
        if shared.lock().stopping || !matches!(op.what, What::Truncate(_) | What::Remove) {
            if let What::Vote(vote) = &op.what {
                shared.lock().restore_vote(op.id, op.incarnation, vote);
            }
            self.backlog.push_front(Op {
                refused: Some(error),
                ..op
            });
            return;
        }
        self.backlog.push_front(op);
        self.refuse_appends(shared);
        self.refuse_votes(shared);
        // Those behind it are as due as this one, and nobody may wait for room to come.
        let waiting: Vec<_> = self.backlog.iter_mut().filter_map(|op| op.done.take()).collect();
        for done in waiting {
            done(Err(error.clone()));
        }
        // Only a call can make room: a purge.
        self.waits_for_room = true;
    }

    fn refuse_votes(&mut self, shared: &Shared) {
        let error = JournalError::Full("the reserve for votes is used up".to_owned());
        for op in &mut self.backlog {
            if let What::Vote(vote) = &op.what {
                shared.lock().restore_vote(op.id, op.incarnation, vote);
                op.refused = Some(error.clone());
            }
        }
        self.complete_refused(shared);
    }

    /// Answers the refused ops of the backlog without a flush.
    fn complete_refused(&mut self, shared: &Shared) {
        let (refused, kept): (Vec<Op>, Vec<Op>) = std::mem::take(&mut self.backlog)
            .into_iter()
            .partition(|op| op.refused.is_some());
        self.backlog = kept.into();
        let bytes = refused.iter().map(|op| op.queued_bytes).sum();
        shared.lock().left_queue(bytes);
        for op in refused {
            if let (Some(done), Some(error)) = (op.done, op.refused) {
                done(Err(error));
            }
        }
    }

    /// One write, one sync, all callbacks.
    fn commit(&mut self, shared: &Shared, plan: &Plan, batch: Batch) -> Result<(), JournalError> {
        let number = self.current.header.number;
        let start = self.offset;
        let mut flushed = None;
        if batch.writes() || plan.frees_segments {
            self.encode(plan, &batch);
            let begun = Instant::now();
            let written = self
                .current
                .file
                .write_at(&self.buffer, start)
                .map_err(failed("write journal"))
                .and_then(|()| match mutant::is_on(Mutant::AckBeforeSync) {
                    true => Ok(()),
                    false => self.current.file.sync_data().map_err(failed("sync journal")),
                });
            if let Err(error) = written {
                // They are answered by `fail`, with all others.
                for op in batch.ops.into_iter().rev() {
                    self.backlog.push_front(op);
                }
                return Err(error);
            }
            self.end = (number, start + batch.bytes());
            self.offset = align_up(start + batch.bytes());
            self.sequence += 1;
            flushed = Some(begun.elapsed());
        }
        let mut core = shared.lock();
        let mut offset = start + batch.header_bytes();
        for op in &batch.ops {
            if op.refused.is_none() {
                core.written(op, number, offset);
            }
            offset += op.record_bytes() as u64;
        }
        core.left_queue(batch.ops.iter().map(|op| op.queued_bytes).sum());
        core.evict_hot();
        if let Some(duration) = flushed {
            let micros = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
            core.stats.flushes += 1;
            core.stats.records += batch.records();
            core.stats.bytes += self.buffer.len() as u64;
            core.stats.last_flush_micros = micros;
            core.stats.total_flush_micros += micros;
            core.oldest = plan.oldest;
            core.segments = core.segments.split_off(&plan.oldest);
        }
        drop(core);
        for op in batch.ops {
            if let Some(done) = op.done {
                done(op.refused.map_or(Ok(()), Err));
            }
        }
        if flushed.is_some() && plan.frees_segments {
            self.files
                .recycle_below(plan.oldest)
                .map_err(failed("recycle journal segment"))?;
            shared.lock().stats.segments_in_use = self.files.in_use();
        }
        Ok(())
    }

    fn encode(&mut self, plan: &Plan, batch: &Batch) {
        let seed = self.current.seed;
        let header = FlushHeader {
            sequence: self.sequence,
            previous_segment: self.end.0,
            previous_end: self.end.1,
            oldest_segment: plan.oldest,
            flush_bytes: batch.bytes(),
            replicas: batch.named(),
        };
        let buffer = &mut self.buffer;
        buffer.clear();
        let padded = align_up(batch.bytes()) as usize;
        buffer.reserve(padded);
        let head = RecordHead {
            kind: Kind::Flush,
            id: NO_REPLICA,
            position: NO_POSITION,
        };
        encode_record(buffer, seed, self.offset, &head, &header.encode());
        for op in batch.ops.iter().filter(|op| op.refused.is_none()) {
            let mut put = |kind, position, body: &[u8]| {
                let offset = self.offset + buffer.len() as u64;
                encode_record(
                    buffer,
                    seed,
                    offset,
                    &RecordHead {
                        kind,
                        id: op.id,
                        position,
                    },
                    body,
                );
            };
            match &op.what {
                What::Append { entries, .. } => {
                    for entry in entries {
                        put(Kind::Entry, entry.position, &entry.body);
                    }
                }
                What::Vote(vote) => put(Kind::Vote, NO_POSITION, vote),
                What::Committed(position) => put(Kind::Committed, *position, &[]),
                What::Purge(position) => put(Kind::Purge, *position, &[]),
                What::Truncate(last) => {
                    put(Kind::Truncate, last.unwrap_or(NO_POSITION), &truncate_body(*last));
                }
                What::Remove => put(Kind::Remove, NO_POSITION, &[]),
                What::CleanStop => put(Kind::CleanStop, NO_POSITION, &[]),
                What::Survey => put(Kind::Survey, NO_POSITION, &[]),
                What::Damaged(reason) => put(Kind::Damaged, NO_POSITION, reason),
            }
        }
        assert_eq!(
            buffer.len() as u64,
            batch.bytes(),
            "the flush has the length that was planned"
        );
        buffer.resize(padded, 0);
    }

    /// The end of the journal: the failure is marked first, so that nothing new comes in.
    fn fail(&mut self, shared: &Shared, error: JournalError) {
        Alarm::JournalFailed.raise();
        tracing::error!(%error, "journal failed");
        let mut core = shared.lock();
        core.failed = Some(error.clone());
        self.backlog.append(&mut core.queue);
        drop(core);
        let hooks = std::mem::take(
            &mut *shared
                .failure_hooks
                .lock()
                .unwrap_or_else(|poisoned| poisoned.into_inner()),
        );
        for hook in hooks {
            hook(&error);
        }
        for op in self.backlog.drain(..) {
            if let Some(done) = op.done {
                done(Err(op.refused.unwrap_or_else(|| error.clone())));
            }
        }
    }
}

/// The ops of one flush.
#[derive(Default)]
struct Batch {
    ops: Vec<Op>,
    record_bytes: u64,
    replicas: BTreeSet<dunlin_model::id::GroupReplica>,
}

impl Batch {
    fn add(&mut self, op: Op) {
        self.record_bytes += op.record_bytes() as u64;
        if op.refused.is_none() && op.id != NO_REPLICA {
            self.replicas.insert(op.id);
        }
        self.ops.push(op);
    }

    /// Length of the flush if `op` were added.
    fn bytes_with(&self, op: &Op) -> u64 {
        self.bytes() + op.record_bytes() as u64 + FLUSH_REPLICA_BYTES as u64
    }

    fn bytes(&self) -> u64 {
        self.header_bytes() + self.record_bytes
    }

    fn header_bytes(&self) -> u64 {
        FlushHeader::record_bytes(self.replicas.len()) as u64
    }

    fn named(&self) -> Option<Vec<dunlin_model::id::GroupReplica>> {
        (self.replicas.len() <= FLUSH_REPLICAS_MAX).then(|| self.replicas.iter().copied().collect())
    }

    fn writes(&self) -> bool {
        self.ops.iter().any(|op| op.refused.is_none())
    }

    fn records(&self) -> u64 {
        let count = |op: &Op| match &op.what {
            _ if op.refused.is_some() => 0,
            What::Append { entries, .. } => entries.len() as u64,
            _ => 1,
        };
        self.ops.iter().map(count).sum()
    }
}
