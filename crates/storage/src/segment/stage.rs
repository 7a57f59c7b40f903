//! A log that is filled beside the one in use and takes its place in one step, or leaves no trace.
//!
//! Its files carry the next generation. Until the file `start` names that generation they are leftovers,
//! which the next open removes: so a crash while a snapshot is put in place leaves the old log, whole. What
//! comes in was sent by a peer: it is checked and refused, never asserted.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use bytes::Bytes;
use dunlin_model::port::{EventLog, EventRun, SealedSegment, StagedEvents, StoreError};

use super::open::{self, Segment, Start, segment_name};
use super::park;
use super::{INSTALL_BYTES_MAX, Inner, SegmentLog, refused};

pub(super) struct Staged<'a> {
    log: &'a SegmentLog,
    new: SegmentLog,
    committed: bool,
}

impl<'a> Staged<'a> {
    pub(super) fn begin(log: &'a SegmentLog, first_offset: u64, index: u64) -> Result<Self, StoreError> {
        let generation = {
            let inner = log.lock();
            inner.check_failed()?;
            inner.start.generation + 1
        };
        // An attempt that failed may have left files that would be taken for ours.
        open::remove_from_generation(&*log.disk, &log.folder, generation)?;
        let start = Start {
            generation,
            first_offset,
            index,
        };
        let new = SegmentLog {
            disk: Arc::clone(&log.disk),
            folder: log.folder.clone(),
            segment_bytes: log.segment_bytes,
            inner: std::sync::Mutex::new(Inner::empty(start)),
            is_unreadable: AtomicBool::new(false),
        };
        Ok(Self {
            log,
            new,
            committed: false,
        })
    }
}

fn corrupt(what: String, reason: &str) -> StoreError {
    StoreError::Corrupt {
        what,
        reason: reason.to_owned(),
    }
}

impl StagedEvents for Staged<'_> {
    fn append(&mut self, run: EventRun) -> Result<(), StoreError> {
        {
            let inner = self.new.lock();
            let follows = run.count > 0
                && run.first_offset.checked_add(u64::from(run.count)).is_some()
                && run.first_offset == inner.next_offset
                && run.index > inner.applied_index()
                && run.time_ms >= inner.last_time_ms;
            if !follows {
                return Err(corrupt(
                    format!("event run at offset {}", run.first_offset),
                    "it does not follow",
                ));
            }
        }
        self.new.append(run)
    }

    fn add_segment(
        &mut self,
        expected: &SealedSegment,
        next_part: &mut dyn FnMut() -> Result<Bytes, StoreError>,
    ) -> Result<(), StoreError> {
        let what = || format!("event segment {}", expected.first_offset);
        if expected.bytes > INSTALL_BYTES_MAX as u64 {
            return Err(corrupt(what(), "it is too long"));
        }
        // Where a sealed segment follows, the sender's log was cut as well.
        self.new.seal()?;
        let mut inner = self.new.lock();
        if inner.next_offset != expected.first_offset {
            return Err(corrupt(what(), "it does not follow"));
        }
        let name = format!(
            "{}/{}",
            self.new.folder,
            segment_name(&inner.start, expected.first_offset)
        );
        let io = |error| refused("write event segment", error);
        let file = self.new.disk.create(&name).map_err(io)?;
        let (mut bytes, mut sum) = (0, 0);
        while bytes < expected.bytes {
            let part = next_part()?;
            if part.is_empty() || bytes + part.len() as u64 > expected.bytes {
                return Err(corrupt(what(), "length is not as expected"));
            }
            file.write_at(&part, bytes).map_err(io)?;
            sum = crc32c::crc32c_append(sum, &part);
            bytes += part.len() as u64;
        }
        if sum != expected.crc32c {
            return Err(corrupt(what(), "checksum is not as expected"));
        }
        let footer = open::check_sealed_file(&*file, bytes)
            .map_err(io)?
            .map_err(|reason| corrupt(what(), reason))?;
        let (first, last) = (footer.blocks[0], footer.blocks[footer.blocks.len() - 1]);
        let told = (expected.first_offset, expected.next_offset, expected.last_index);
        if (first.first_offset, last.next_offset, last.last_index) != told {
            return Err(corrupt(what(), "it is another one"));
        }
        if first.first_index <= inner.closed_index || first.first_time_ms < inner.last_time_ms {
            return Err(corrupt(what(), "it does not follow"));
        }
        file.sync_data()
            .and_then(|()| self.new.disk.sync_dir(&self.new.folder))
            .map_err(io)?;
        let segment = Segment {
            name,
            file,
            first_offset: first.first_offset,
            content_bytes: last.end(),
            content_sum: footer.content_sum,
            sealed_bytes: Some(bytes),
            damaged: false,
            blocks: footer.blocks,
        };
        inner.segments.insert(first.first_offset, segment);
        inner.next_offset = last.next_offset;
        inner.closed_index = last.last_index;
        inner.last_time_ms = last.last_time_ms;
        Ok(())
    }

    fn commit(mut self: Box<Self>) -> Result<(), StoreError> {
        let mut new = self.new.lock();
        self.new.sync(&mut new)?;
        // The journal here never had these entries: what is in the open block could not be fed again. And a block
        // that ended here would make segments unlike those of all other replicas.
        self.new.park(&mut new, true)?;
        let start = new.start;
        let mut current = self.log.lock();
        start
            .save(&*self.log.disk, &self.log.folder)
            .map_err(|error| current.note(refused("put event log in place", error)))?;
        let old = std::mem::replace(&mut *current, std::mem::replace(&mut *new, Inner::empty(start)));
        drop((current, new));
        self.committed = true;
        if let Err(error) = park::remove(&*self.log.disk, &self.log.folder, &old.start) {
            tracing::warn!(%error, "cannot remove old parked events; the next start will");
        }
        for segment in old.segments.into_values() {
            if let Err(error) = self.log.disk.remove(&segment.name) {
                tracing::warn!(file = %segment.name, %error, "cannot remove an old event segment; the next start will");
            }
        }
        Ok(())
    }
}

impl Drop for Staged<'_> {
    fn drop(&mut self) {
        if self.committed {
            return;
        }
        let generation = self.new.lock().start.generation;
        if let Err(error) = open::remove_from_generation(&*self.new.disk, &self.new.folder, generation) {
            tracing::warn!(%error, "cannot remove half of a snapshot; the next start will");
        }
    }
}
