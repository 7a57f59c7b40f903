//! A sealed segment that is written again with other records in some of its runs.
//!
//! Blocks and runs stay what they are, and so do offsets, indexes and times; only bytes go. The new file is written beside the
//! old one, a block in memory at a time, and takes its name when it is on disk. Equal changes of equal files give equal files.

use bytes::Bytes;
use dunlin_model::port::{EventRun, StoreError};

use super::format::{self, BlockMeta};
use super::open::Segment;
use super::{SegmentLog, refused};

/// What to put in place of the records of a run.
pub(super) type Change<'a> = dyn FnMut(&EventRun) -> Result<Option<Bytes>, StoreError> + 'a;

/// The runs of a block as they are to be, and whether any of them is another.
fn changed(mut runs: Vec<EventRun>, change: &mut Change<'_>) -> Result<(Vec<EventRun>, bool), StoreError> {
    let mut is_changed = false;
    for run in &mut runs {
        if let Some(records) = change(run)? {
            run.records = records;
            is_changed = true;
        }
    }
    Ok((runs, is_changed))
}

/// See [`EventLog::rewrite_segment`](dunlin_model::port::EventLog::rewrite_segment).
pub(super) fn rewrite(
    log: &SegmentLog,
    first_offset: u64,
    change: &mut Change<'_>,
) -> Result<bool, StoreError> {
    let old = log.sealed(first_offset)?;
    let mut is_changed = false;
    for block in &old.blocks {
        is_changed = is_changed || changed(log.read_block(&old, block)?, change)?.1;
    }
    if !is_changed {
        return Ok(false);
    }
    let temporary = format!("{}.new", old.name);
    let replaced =
        write_beside(log, &old, &temporary, change).and_then(|new| put_in_place(log, &old, &temporary, new));
    if replaced.is_err() {
        // What a failed attempt leaves goes at the next start at the latest.
        let _ = log.disk.remove(&temporary);
    }
    replaced.map(|()| true)
}

/// The segment as it is to be, in a file of its own, durably.
fn write_beside(
    log: &SegmentLog,
    old: &Segment,
    temporary: &str,
    change: &mut Change<'_>,
) -> Result<Segment, StoreError> {
    let file = log
        .disk
        .create(temporary)
        .map_err(|error| refused("make event segment", error))?;
    let (mut blocks, mut sum, mut at): (Vec<BlockMeta>, u32, u64) = (Vec::new(), 0, 0);
    for block in &old.blocks {
        let (runs, _) = changed(log.read_block(old, block)?, change)?;
        let (meta, bytes) = format::encode_block(&runs, at);
        file.write_at(&bytes, at)
            .map_err(|error| refused("write event block", error))?;
        sum = crc32c::crc32c_append(sum, &bytes);
        at = meta.end();
        blocks.push(meta);
    }
    let footer = format::encode_footer(&blocks, sum);
    file.write_at(&footer, at)
        .and_then(|()| file.sync_data())
        .map_err(|error| refused("write event segment", error))?;
    Ok(Segment {
        name: old.name.clone(),
        file,
        first_offset: old.first_offset,
        blocks,
        content_bytes: at,
        content_sum: sum,
        sealed_bytes: Some(at + footer.len() as u64),
        damaged: false,
    })
}

fn put_in_place(log: &SegmentLog, old: &Segment, temporary: &str, new: Segment) -> Result<(), StoreError> {
    let mut inner = log.lock();
    inner.check_failed()?;
    // It may have been cut, mended from a peer, or left behind with all of its log meanwhile.
    let is_same = inner.segments.get(&old.first_offset).is_some_and(|now| {
        now.name == old.name && now.content_sum == old.content_sum && now.sealed_bytes == old.sealed_bytes
    });
    if !is_same {
        return Err(StoreError::io("rewrite event segment", "it is another one now"));
    }
    let placed = log
        .disk
        .rename(temporary, &old.name)
        .and_then(|()| log.disk.sync_dir(&log.folder));
    placed.map_err(|error| inner.note(refused("put event segment in place", error)))?;
    inner.segments.insert(old.first_offset, new);
    Ok(())
}
