//! The events of one replica on disk: what consumers read, and what warm and cold are built from.
//!
//! Runs gather in an open block in memory; a full block is compressed and written, blocks gather in
//! segments, sealed segments are immutable and the same bytes on every replica. This room decides
//! block and segment boundaries and what of a crash's leftovers counts. It never decides retention
//! (that is `trim`), never repairs on its own (see [`EventLog::install_segment`]), and knows
//! nothing of what the records say. [`format`] has the bytes, `open` the first look at a folder.

use std::collections::BTreeMap;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use dunlin_model::alarm::Alarm;
use dunlin_model::id::GroupReplica;
use dunlin_model::mutant::{self, Mutant};
use dunlin_model::point::Point;
use dunlin_model::port::{EventLog, EventRun, SealedSegment, StagedEvents, StoreError};

pub mod format;
mod open;
mod park;
mod rewrite;
mod stage;
#[cfg(test)]
mod tests;

use crate::disk::{Disk, is_full, read_exact_at};
use format::{BLOCK_BYTES, BlockMeta, run_bytes};
use open::{Segment, Start, segment_name};

/// A segment is sealed when its blocks reach this many bytes.
pub const SEGMENT_BYTES: u64 = 64 << 20;

/// Written blocks are synced when this many bytes are not, so that a checkpoint stays short.
pub const DIRTY_BYTES_MAX: u64 = 8 << 20;

/// A whole sealed segment is at most this long when it is installed: a segment, and one block more
/// than fits, with its footer.
pub const INSTALL_BYTES_MAX: usize = 256 << 20;

/// The [`EventLog`] of one replica, in files under `events/<group>-<replica>/`.
pub struct SegmentLog {
    disk: Arc<dyn Disk>,
    folder: String,
    segment_bytes: u64,
    inner: Mutex<Inner>,
    /// Whether the last read of a segment failed.
    is_unreadable: AtomicBool,
}

struct Inner {
    start: Start,
    segments: BTreeMap<u64, Segment>,
    open_block: Vec<EventRun>,
    open_bytes: usize,
    /// The last index in a block, or that of the start.
    closed_index: u64,
    next_offset: u64,
    last_time_ms: u64,
    dirty_bytes: u64,
    /// The last index of the block that is parked; it may have been closed since.
    parked_index: Option<u64>,
    /// A write failed; nothing may be written any more.
    failed: Option<StoreError>,
}

impl SegmentLog {
    /// The folder of a replica's events on its disk.
    pub fn folder(id: GroupReplica) -> String {
        format!("events/{}-{}", id.group.0, id.replica.0)
    }

    /// Opens the log of `id`, or makes it. Bytes after the last good block of the last segment are cut.
    pub fn open(disk: Arc<dyn Disk>, id: GroupReplica) -> Result<SegmentLog, StoreError> {
        Self::open_with(disk, id, SEGMENT_BYTES)
    }

    /// As [`open`](Self::open) with another segment length. It must be the same on all replicas.
    pub fn open_with(
        disk: Arc<dyn Disk>,
        id: GroupReplica,
        segment_bytes: u64,
    ) -> Result<SegmentLog, StoreError> {
        let folder = Self::folder(id);
        disk.create_dir_all(&folder)
            .map_err(|error| refused("make event folder", error))?;
        // What is found by its name must keep it: whoever made it may have ended before it was durable.
        disk.sync_dir(&folder)
            .map_err(|error| refused("sync event folder", error))?;
        let start = Start::load(&*disk, &folder)?;
        let segments = open::load_segments(&*disk, &folder, &start)?;
        let last = segments.values().rev().find_map(|segment| segment.blocks.last());
        let inner = Inner {
            start,
            closed_index: last.map_or(start.index, |block| block.last_index),
            next_offset: segments
                .values()
                .next_back()
                .map_or(start.first_offset, Segment::next_offset),
            last_time_ms: last.map_or(0, |block| block.last_time_ms),
            segments,
            open_block: Vec::new(),
            open_bytes: 0,
            dirty_bytes: 0,
            parked_index: None,
            failed: None,
        };
        let log = SegmentLog {
            disk,
            folder,
            segment_bytes,
            inner: Mutex::new(inner),
            is_unreadable: AtomicBool::new(false),
        };
        log.take_up_parked()?;
        Ok(log)
    }

    /// Goes on with the block that was open when it was parked, unless it has been closed since.
    fn take_up_parked(&self) -> Result<(), StoreError> {
        let mut inner = self.lock();
        let runs = park::load(&*self.disk, &self.folder, &inner.start)?;
        let Some((first, last)) = runs.first().zip(runs.last()) else {
            return Ok(());
        };
        if first.first_offset > inner.next_offset {
            return Err(inner.gap(inner.next_offset, &self.folder));
        }
        if first.first_offset < inner.next_offset {
            let removed = park::remove(&*self.disk, &self.folder, &inner.start);
            return removed.map_err(|error| refused("remove parked events", error));
        }
        if first.index <= inner.closed_index || first.time_ms < inner.last_time_ms {
            return Err(StoreError::Corrupt {
                what: format!("{}, parked events", self.folder),
                reason: "they do not follow on the segments".into(),
            });
        }
        if mutant::is_on(Mutant::ForgetParked) {
            return Ok(());
        }
        Point::EventsTakenUp.reach();
        inner.parked_index = Some(last.index);
        inner.next_offset = last.next_offset();
        inner.last_time_ms = last.time_ms;
        inner.open_bytes = runs.iter().map(run_bytes).sum();
        inner.open_block = runs;
        Ok(())
    }

    /// Makes the open block durable as it is; or lets go of one that was parked and is in a segment now.
    fn park(&self, inner: &mut Inner, is_wanted: bool) -> Result<(), StoreError> {
        let open = inner.open_block.first().zip(inner.open_block.last());
        let is_stale = |parked: u64| open.is_none_or(|(first, _)| parked < first.index);
        let done = match open {
            Some((_, last)) if is_wanted && inner.parked_index != Some(last.index) => {
                let last = last.index;
                let saved = park::save(&*self.disk, &self.folder, &inner.start, &inner.open_block);
                saved.map(|()| {
                    Point::EventsParked.reach();
                    inner.parked_index = Some(last);
                })
            }
            _ if inner.parked_index.is_some_and(is_stale) => {
                let removed = park::remove(&*self.disk, &self.folder, &inner.start);
                removed.map(|()| inner.parked_index = None)
            }
            _ => Ok(()),
        };
        done.map_err(|error| inner.note(refused("park events", error)))
    }

    /// Removes all files of `id`.
    pub fn remove(disk: &dyn Disk, id: GroupReplica) -> Result<(), StoreError> {
        let folder = Self::folder(id);
        if !disk.exists(&folder) {
            return Ok(());
        }
        let remove = || -> io::Result<()> {
            for name in disk.list(&folder)? {
                disk.remove(&format!("{folder}/{name}"))?;
            }
            disk.remove_dir(&folder)?;
            disk.sync_dir("events")
        };
        remove().map_err(|error| refused("remove event segments", error))
    }

    /// Replicas that have a folder on `disk`.
    pub fn replicas(disk: &dyn Disk) -> Result<Vec<GroupReplica>, StoreError> {
        use dunlin_model::id::{GroupId, ReplicaId};
        if !disk.exists("events") {
            return Ok(Vec::new());
        }
        let names = disk
            .list("events")
            .map_err(|error| refused("list event folders", error))?;
        let parse = |name: &String| {
            let (group, replica) = name.split_once('-')?;
            Some(GroupReplica {
                group: GroupId(group.parse().ok()?),
                replica: ReplicaId(replica.parse().ok()?),
            })
        };
        Ok(names.iter().filter_map(parse).collect())
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn sealed(&self, first_offset: u64) -> Result<Segment, StoreError> {
        let inner = self.lock();
        let segment = inner
            .segments
            .get(&first_offset)
            .filter(|segment| segment.sealed_bytes.is_some());
        segment
            .cloned()
            .ok_or_else(|| StoreError::io("find sealed segment", format!("no segment {first_offset}")))
    }

    fn damage(&self, first_offset: u64, reason: &str) -> StoreError {
        let what = format!("{}, segment {first_offset}", self.folder);
        Alarm::SegmentDamaged.raise();
        tracing::error!(%what, reason, "event segment is damaged");
        if let Some(segment) = self.lock().segments.get_mut(&first_offset)
            && segment.sealed_bytes.is_some()
        {
            segment.damaged = true;
        }
        StoreError::Corrupt {
            what,
            reason: reason.to_owned(),
        }
    }

    /// Says once that the disk refuses reads, whoever asked for them and however often.
    fn note_read(&self, read: io::Result<()>) -> io::Result<()> {
        match &read {
            Ok(()) => self.is_unreadable.store(false, Relaxed),
            Err(error) if !self.is_unreadable.swap(true, Relaxed) => {
                Alarm::EventsUnreadable.raise();
                tracing::error!(folder = %self.folder, %error, "events cannot be read");
            }
            Err(_) => {}
        }
        read
    }

    fn close_block(&self, inner: &mut Inner) -> Result<(), StoreError> {
        if inner.open_block.is_empty() {
            return Ok(());
        }
        let first_offset = inner.open_block[0].first_offset;
        let writing = inner
            .segments
            .values()
            .next_back()
            .filter(|segment| segment.sealed_bytes.is_none());
        let (key, is_new) = writing.map_or((first_offset, true), |segment| (segment.first_offset, false));
        if is_new {
            let name = format!("{}/{}", self.folder, segment_name(&inner.start, first_offset));
            let create = || {
                let file = self.disk.create(&name)?;
                self.disk.sync_dir(&self.folder)?;
                Ok(file)
            };
            let file = create().map_err(|error| inner.note(refused("make event segment", error)))?;
            let segment = Segment {
                name,
                file,
                first_offset,
                blocks: Vec::new(),
                content_bytes: 0,
                content_sum: 0,
                sealed_bytes: None,
                damaged: false,
            };
            inner.segments.insert(first_offset, segment);
        }
        let segment = inner.segments.get_mut(&key).expect("found or made above");
        let (meta, block) = format::encode_block(&inner.open_block, segment.content_bytes);
        let written = segment.file.write_at(&block, segment.content_bytes);
        written.map_err(|error| inner.note(refused("write event block", error)))?;
        let segment = inner.segments.get_mut(&key).expect("found or made above");
        segment.content_sum = crc32c::crc32c_append(segment.content_sum, &block);
        segment.content_bytes = meta.end();
        segment.blocks.push(meta);
        let full = segment.content_bytes >= self.segment_bytes;
        inner.closed_index = meta.last_index;
        inner.open_block.clear();
        inner.open_bytes = 0;
        inner.dirty_bytes += block.len() as u64;
        if full {
            self.close_segment(inner)
        } else if inner.dirty_bytes >= DIRTY_BYTES_MAX {
            self.sync(inner)
        } else {
            Ok(())
        }
    }

    fn close_segment(&self, inner: &mut Inner) -> Result<(), StoreError> {
        let Some(segment) = inner.segments.values().next_back() else {
            return Ok(());
        };
        if segment.sealed_bytes.is_some() || segment.blocks.is_empty() {
            return Ok(());
        }
        // The next segment is made only after this is durable: damage and torn tails stay apart.
        let written = open::write_footer(segment);
        let sealed_bytes = written.map_err(|error| inner.note(refused("write event footer", error)))?;
        inner.sync_last("seal event segment")?;
        if let Some(segment) = inner.segments.values_mut().next_back() {
            segment.sealed_bytes = Some(sealed_bytes);
        }
        Ok(())
    }

    fn sync(&self, inner: &mut Inner) -> Result<(), StoreError> {
        if inner.dirty_bytes == 0 {
            return Ok(());
        }
        inner.sync_last("sync event segment")
    }

    fn read_block(&self, segment: &Segment, block: &BlockMeta) -> Result<Vec<EventRun>, StoreError> {
        let mut bytes = vec![0; (block.end() - block.at) as usize];
        let read = read_exact_at(&*segment.file, &mut bytes, block.at);
        self.note_read(read)
            .map_err(|error| refused("read event block", error))?;
        format::decode_block(&bytes, block).map_err(|reason| self.damage(segment.first_offset, reason))
    }

    /// The first block that ends after `offset`, or `None` when that is not in a block.
    fn block_after(&self, offset: u64) -> Result<Option<(Segment, BlockMeta)>, StoreError> {
        let inner = self.lock();
        let offset = offset.max(inner.first_offset());
        let at_or_before = inner.segments.range(..=offset).next_back();
        let Some((_, segment)) = at_or_before else {
            // The first segment was lost.
            return if inner.segments.is_empty() || offset >= inner.open_offset() {
                Ok(None)
            } else {
                Err(inner.gap(offset, &self.folder))
            };
        };
        let at = segment
            .blocks
            .partition_point(|block| block.next_offset <= offset);
        match segment.blocks.get(at) {
            Some(block) => Ok(Some((segment.without_other_blocks(), *block))),
            None if offset >= inner.open_offset() => Ok(None),
            None => Err(inner.gap(offset, &self.folder)),
        }
    }
}

impl Segment {
    /// A copy for reading one block, without copying the index.
    fn without_other_blocks(&self) -> Segment {
        Segment {
            name: String::new(),
            file: Arc::clone(&self.file),
            first_offset: self.first_offset,
            blocks: Vec::new(),
            content_bytes: self.content_bytes,
            content_sum: self.content_sum,
            sealed_bytes: self.sealed_bytes,
            damaged: self.damaged,
        }
    }
}

impl Inner {
    /// A log that begins at `start` and has nothing yet.
    fn empty(start: Start) -> Inner {
        Inner {
            start,
            segments: BTreeMap::new(),
            open_block: Vec::new(),
            open_bytes: 0,
            closed_index: start.index,
            next_offset: start.first_offset,
            last_time_ms: 0,
            dirty_bytes: 0,
            parked_index: None,
            failed: None,
        }
    }

    fn first_offset(&self) -> u64 {
        self.start.first_offset
    }

    /// Offset of the first event of the open block, or of the next event.
    fn open_offset(&self) -> u64 {
        self.open_block
            .first()
            .map_or(self.next_offset, |run| run.first_offset)
    }

    fn gap(&self, offset: u64, folder: &str) -> StoreError {
        StoreError::Corrupt {
            what: folder.to_owned(),
            reason: format!("events from offset {offset} are missing"),
        }
    }

    fn applied_index(&self) -> u64 {
        self.open_block.last().map_or(self.closed_index, |run| run.index)
    }

    /// Syncs the segment that is being written: no other can be dirty. Where that fails, for want of room as well, all
    /// writing ends, and what the sync has left is taken back: it reads as written, is on no disk, and another sync would
    /// prove nothing. The journal has all of it and feeds it to whoever opens the log next.
    fn sync_last(&mut self, action: &'static str) -> Result<(), StoreError> {
        if let Some(segment) = self.segments.values().next_back()
            && let Err(error) = segment.file.sync_data()
        {
            if let Err(error) = segment.file.set_len(segment.content_bytes - self.dirty_bytes) {
                tracing::error!(file = %segment.name, %error, "cannot take back what was not synced");
            }
            return Err(self.note(StoreError::io(action, error)));
        }
        self.dirty_bytes = 0;
        Ok(())
    }

    fn check_failed(&self) -> Result<(), StoreError> {
        self.failed.clone().map_or(Ok(()), Err)
    }

    /// Remembers an error that ends all writing; a full disk does not.
    fn note(&mut self, error: StoreError) -> StoreError {
        if !matches!(error, StoreError::Full(_)) {
            self.failed = Some(error.clone());
        }
        error
    }
}

fn refused(action: &'static str, error: io::Error) -> StoreError {
    if is_full(&error) {
        StoreError::Full(action.to_owned())
    } else {
        StoreError::io(action, error)
    }
}

impl EventLog for SegmentLog {
    fn append(&self, run: EventRun) -> Result<(), StoreError> {
        let mut inner = self.lock();
        inner.check_failed()?;
        if run.index <= inner.applied_index() {
            return Ok(());
        }
        assert!(run.count > 0, "a run has events");
        assert_eq!(
            run.first_offset, inner.next_offset,
            "{}: offsets are dense",
            self.folder
        );
        assert!(
            run.time_ms >= inner.last_time_ms,
            "{}: stamps never go back",
            self.folder
        );
        let before = (inner.next_offset, inner.last_time_ms);
        inner.next_offset = run.next_offset();
        inner.last_time_ms = run.time_ms;
        inner.open_bytes += run_bytes(&run);
        let bytes = run_bytes(&run);
        inner.open_block.push(run);
        if inner.open_bytes < BLOCK_BYTES {
            return Ok(());
        }
        let closed = self.close_block(&mut inner);
        if closed.is_err() && !inner.open_block.is_empty() {
            // Not taken in: the same run may come again when there is room.
            inner.open_block.pop();
            inner.open_bytes -= bytes;
            (inner.next_offset, inner.last_time_ms) = before;
        }
        closed
    }

    fn read(&self, from: u64, bytes_max: usize) -> Result<Vec<EventRun>, StoreError> {
        let mut runs: Vec<EventRun> = Vec::new();
        let mut bytes = 0;
        let mut offset = from;
        let mut take = |run: &EventRun, runs: &mut Vec<EventRun>| {
            let fits = runs.is_empty() || bytes + run.records.len() <= bytes_max;
            if fits {
                bytes += run.records.len();
                runs.push(run.clone());
            }
            fits
        };
        loop {
            let block = match self.block_after(offset) {
                Ok(block) => block,
                Err(error) if runs.is_empty() => return Err(error),
                // What is before the gap can be read.
                Err(_) => return Ok(runs),
            };
            let Some((segment, block)) = block else { break };
            let decoded = match self.read_block(&segment, &block) {
                Ok(decoded) => decoded,
                Err(error) if runs.is_empty() => return Err(error),
                Err(_) => return Ok(runs),
            };
            for run in decoded.iter().filter(|run| run.next_offset() > offset) {
                if !take(run, &mut runs) {
                    return Ok(runs);
                }
            }
            offset = block.next_offset;
        }
        let inner = self.lock();
        if inner.open_offset() > offset && !runs.is_empty() {
            // The block was closed since; the next read finds it on disk.
            return Ok(runs);
        }
        for run in inner.open_block.iter().filter(|run| run.next_offset() > offset) {
            if !take(run, &mut runs) {
                break;
            }
        }
        Ok(runs)
    }

    fn offset_at(&self, time_ms: u64) -> Result<u64, StoreError> {
        let found = {
            let inner = self.lock();
            let blocks = inner
                .segments
                .values()
                .flat_map(|segment| segment.blocks.iter().map(move |b| (segment, b)));
            let mut late = blocks.filter(|(_, block)| block.last_time_ms >= time_ms);
            match late.next() {
                Some((segment, block)) => (segment.without_other_blocks(), *block),
                None => {
                    let run = inner.open_block.iter().find(|run| run.time_ms >= time_ms);
                    return Ok(run.map_or(inner.next_offset, |run| run.first_offset));
                }
            }
        };
        let runs = self.read_block(&found.0, &found.1)?;
        let run = runs.iter().find(|run| run.time_ms >= time_ms);
        Ok(run.map_or(found.1.next_offset, |run| run.first_offset))
    }

    fn range(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.first_offset(), inner.next_offset)
    }

    fn applied_index(&self) -> u64 {
        self.lock().applied_index()
    }

    fn seal(&self) -> Result<(), StoreError> {
        let mut inner = self.lock();
        inner.check_failed()?;
        self.close_block(&mut inner)?;
        self.close_segment(&mut inner)
    }

    fn trim(&self, offset: u64) -> Result<(), StoreError> {
        let mut inner = self.lock();
        inner.check_failed()?;
        let gone: Vec<u64> = inner
            .segments
            .values()
            .take_while(|segment| segment.sealed_bytes.is_some() && segment.next_offset() <= offset)
            .map(|segment| segment.first_offset)
            .collect();
        let Some(last) = gone.last().and_then(|first| inner.segments.get(first)) else {
            return Ok(());
        };
        let next = inner.segments.range(last.first_offset + 1..).next();
        let start = Start {
            generation: inner.start.generation,
            first_offset: next.map_or(inner.open_offset(), |(first, _)| *first),
            index: last
                .blocks
                .last()
                .map_or(inner.start.index, |block| block.last_index),
        };
        // First where the log begins, then the files: after a crash the rest goes at open.
        let saved = start.save(&*self.disk, &self.folder);
        saved.map_err(|error| inner.note(refused("trim event log", error)))?;
        inner.start = start;
        for first in gone {
            let segment = inner.segments.remove(&first).expect("listed above");
            let removed = self.disk.remove(&segment.name);
            removed.map_err(|error| inner.note(refused("remove event segment", error)))?;
        }
        Ok(())
    }

    // One file, `start`, decides: after a crash the old or the new log is there.
    fn stage(&self, first_offset: u64, index: u64) -> Result<Box<dyn StagedEvents + '_>, StoreError> {
        Ok(Box::new(stage::Staged::begin(self, first_offset, index)?))
    }

    fn checkpoint(&self, applied: u64, parks: bool) -> Result<u64, StoreError> {
        let mut inner = self.lock();
        inner.check_failed()?;
        self.sync(&mut inner)?;
        // Only now: a parked block may go once the segment that has it is on disk.
        self.park(&mut inner, parks)?;
        let durable_index = inner.parked_index.unwrap_or(0).max(inner.closed_index);
        Ok(match inner.open_block.last() {
            Some(last) if last.index > durable_index => durable_index,
            _ => applied,
        })
    }

    fn sealed_segments(&self) -> Vec<SealedSegment> {
        let inner = self.lock();
        let sealed = |segment: &Segment| {
            let bytes = segment.sealed_bytes.filter(|_| !segment.damaged)?;
            let footer = format::encode_footer(&segment.blocks, segment.content_sum);
            Some(SealedSegment {
                first_offset: segment.first_offset,
                next_offset: segment.next_offset(),
                last_index: segment.blocks.last()?.last_index,
                bytes,
                crc32c: crc32c::crc32c_combine(segment.content_sum, crc32c::crc32c(&footer), footer.len()),
            })
        };
        inner.segments.values().filter_map(sealed).collect()
    }

    fn damaged_segments(&self) -> Vec<u64> {
        let inner = self.lock();
        let mut damaged = Vec::new();
        let mut expected = inner.start.first_offset;
        let mut blamed = false;
        for segment in inner.segments.values() {
            // A damaged segment may not know how far it reached.
            if segment.first_offset != expected && !blamed {
                damaged.push(expected);
            }
            if segment.damaged {
                damaged.push(segment.first_offset);
            }
            blamed = segment.damaged;
            expected = segment.next_offset();
        }
        damaged
    }

    fn verify_segment(&self, first_offset: u64) -> Result<(), StoreError> {
        let segment = self.sealed(first_offset)?;
        let mut whole = vec![0; segment.sealed_bytes.unwrap_or(0) as usize];
        let read = read_exact_at(&*segment.file, &mut whole, 0);
        self.note_read(read)
            .map_err(|error| refused("read event segment", error))?;
        open::check_sealed(&whole)
            .map(drop)
            .map_err(|reason| self.damage(first_offset, reason))
    }

    fn read_segment(&self, first_offset: u64, position: u64, length: usize) -> Result<Bytes, StoreError> {
        let segment = self.sealed(first_offset)?;
        let left = segment.sealed_bytes.unwrap_or(0).saturating_sub(position);
        let mut bytes = vec![0; length.min(left as usize)];
        let read = read_exact_at(&*segment.file, &mut bytes, position);
        self.note_read(read)
            .map_err(|error| refused("read event segment", error))?;
        Ok(bytes.into())
    }

    fn rewrite_segment(
        &self,
        first_offset: u64,
        change: &mut dyn FnMut(&EventRun) -> Result<Option<Bytes>, StoreError>,
    ) -> Result<bool, StoreError> {
        rewrite::rewrite(self, first_offset, change)
    }

    fn install_segment(&self, whole: &[u8], expected: &SealedSegment) -> Result<(), StoreError> {
        let what = || format!("event segment {}", expected.first_offset);
        let corrupt = |reason: &str| StoreError::Corrupt {
            what: what(),
            reason: reason.to_owned(),
        };
        if whole.len() > INSTALL_BYTES_MAX || whole.len() as u64 != expected.bytes {
            return Err(corrupt("length is not as expected"));
        }
        if crc32c::crc32c(whole) != expected.crc32c {
            return Err(corrupt("checksum is not as expected"));
        }
        let footer = open::check_sealed(whole).map_err(corrupt)?;
        let (first, last) = (footer.blocks[0], footer.blocks[footer.blocks.len() - 1]);
        if (first.first_offset, last.next_offset) != (expected.first_offset, expected.next_offset) {
            return Err(corrupt("offsets are not as expected"));
        }
        let mut inner = self.lock();
        inner.check_failed()?;
        let replaces = match inner.segments.get(&first.first_offset) {
            Some(old) if old.sealed_bytes.is_some() => {
                let follows = inner.segments.range(first.first_offset + 1..).next();
                if follows.is_some_and(|(offset, _)| *offset != last.next_offset) {
                    return Err(corrupt("it does not meet the next segment"));
                }
                true
            }
            Some(_) => return Err(corrupt("a segment with this offset is being written")),
            None => false,
        };
        let at_end = inner.next_offset == first.first_offset && inner.open_block.is_empty();
        let before = inner.segments.range(..first.first_offset).next_back();
        let after = inner.segments.range(first.first_offset..).next();
        let fills_gap = before.map_or(inner.start.first_offset, |(_, segment)| segment.next_offset())
            == first.first_offset
            && after.is_some_and(|(offset, _)| *offset >= last.next_offset);
        if !replaces && !at_end && !fills_gap {
            return Err(corrupt("it does not follow the last segment"));
        }
        let name = format!(
            "{}/{}",
            self.folder,
            segment_name(&inner.start, first.first_offset)
        );
        let temporary = format!("{name}.tmp");
        let write = || -> io::Result<Arc<dyn crate::disk::DiskFile>> {
            let file = self.disk.create(&temporary)?;
            file.write_at(whole, 0)?;
            file.sync_data()?;
            self.disk.rename(&temporary, &name)?;
            self.disk.sync_dir(&self.folder)?;
            Ok(file)
        };
        let file = write().map_err(|error| inner.note(refused("install event segment", error)))?;
        let segment = Segment {
            name,
            file,
            first_offset: first.first_offset,
            content_bytes: last.end(),
            content_sum: footer.content_sum,
            sealed_bytes: Some(whole.len() as u64),
            damaged: false,
            blocks: footer.blocks,
        };
        inner.segments.insert(first.first_offset, segment);
        if last.next_offset >= inner.next_offset && inner.open_block.is_empty() {
            inner.next_offset = last.next_offset;
            inner.closed_index = last.last_index;
            inner.last_time_ms = last.last_time_ms;
        }
        Ok(())
    }
}
