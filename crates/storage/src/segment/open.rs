//! Finding out what lies in a replica's folder: which files count, what is cut, what is damaged.
//!
//! A segment that is followed by another was synced before the other was made, so anything wrong
//! with it is damage and is reported. The last one may be torn and is cut after its last good block.

use std::collections::BTreeMap;
use std::sync::Arc;

use dunlin_model::alarm::Alarm;
use dunlin_model::port::StoreError;

use super::format::{self, BlockMeta, Footer, TRAILER_BYTES};
use super::park;
use crate::disk::{Disk, DiskFile, read_exact_at};

/// One segment file.
#[derive(Clone)]
pub(super) struct Segment {
    pub(super) name: String,
    pub(super) file: Arc<dyn DiskFile>,
    pub(super) first_offset: u64,
    pub(super) blocks: Vec<BlockMeta>,
    /// Bytes of all blocks; the footer, if any, follows.
    pub(super) content_bytes: u64,
    /// crc32c over all blocks.
    pub(super) content_sum: u32,
    /// Length of the file when sealed.
    pub(super) sealed_bytes: Option<u64>,
    pub(super) damaged: bool,
}

impl Segment {
    pub(super) fn next_offset(&self) -> u64 {
        self.blocks
            .last()
            .map_or(self.first_offset, |block| block.next_offset)
    }
}

/// Where the log begins, and which files belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Start {
    /// Changes with each reset; files of other generations are leftovers.
    pub(super) generation: u64,
    pub(super) first_offset: u64,
    /// Index of the last run before `first_offset`.
    pub(super) index: u64,
}

const START_BYTES: usize = 28;

impl Start {
    pub(super) fn load(disk: &dyn Disk, folder: &str) -> Result<Start, StoreError> {
        let path = format!("{folder}/start");
        if !disk.exists(&path) {
            return Ok(Start::default());
        }
        let corrupt = |reason: &str| StoreError::Corrupt {
            what: path.clone(),
            reason: reason.to_owned(),
        };
        let file = disk
            .open(&path)
            .map_err(|error| StoreError::io("open event log start", error))?;
        let mut bytes = [0; START_BYTES];
        read_exact_at(&*file, &mut bytes, 0).map_err(|error| corrupt(&error.to_string()))?;
        let (body, sum) = bytes.split_at(START_BYTES - 4);
        if crc32c::crc32c(body).to_le_bytes() != sum {
            return Err(corrupt("checksum does not match"));
        }
        let field = |at: usize| u64::from_le_bytes(body[at..at + 8].try_into().expect("eight bytes"));
        Ok(Start {
            generation: field(0),
            first_offset: field(8),
            index: field(16),
        })
    }

    /// Replaces the start durably, old or new after a crash.
    pub(super) fn save(&self, disk: &dyn Disk, folder: &str) -> std::io::Result<()> {
        let mut bytes = Vec::with_capacity(START_BYTES);
        for field in [self.generation, self.first_offset, self.index] {
            bytes.extend_from_slice(&field.to_le_bytes());
        }
        bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
        let temporary = format!("{folder}/start.tmp");
        let file = disk.create(&temporary)?;
        file.write_at(&bytes, 0)?;
        file.sync_data()?;
        disk.rename(&temporary, &format!("{folder}/start"))?;
        disk.sync_dir(folder)
    }
}

pub(super) fn segment_name(start: &Start, first_offset: u64) -> String {
    format!("{:08}-{first_offset:020}.seg", start.generation)
}

fn parse_name(name: &str) -> Option<(u64, u64)> {
    let (generation, offset) = name.strip_suffix(".seg")?.split_once('-')?;
    Some((generation.parse().ok()?, offset.parse().ok()?))
}

/// Loads all segments of the log, by first offset. Leftovers are removed, the last one is cut.
pub(super) fn load_segments(
    disk: &dyn Disk,
    folder: &str,
    start: &Start,
) -> Result<BTreeMap<u64, Segment>, StoreError> {
    let io = |error| StoreError::io("load event segments", error);
    let mut names = BTreeMap::new();
    for name in disk.list(folder).map_err(io)? {
        let path = format!("{folder}/{name}");
        match parse_name(&name) {
            Some((generation, offset)) if generation == start.generation && offset >= start.first_offset => {
                names.insert(offset, path);
            }
            None if name == "start" || park::is_name(start, &name) => {}
            // A half-written file, one from before a reset, or one that was trimmed.
            _ => disk.remove(&path).map_err(io)?,
        }
    }
    let mut segments: BTreeMap<u64, Segment> = BTreeMap::new();
    let count = names.len();
    for (position, (first_offset, name)) in names.into_iter().enumerate() {
        let file = disk.open(&name).map_err(io)?;
        let last = position + 1 == count;
        let before = segments.values().next_back();
        let expected = before.map_or(start.first_offset, Segment::next_offset);
        // A damaged segment may not know how far it reached, and was told of.
        if first_offset != expected && !before.is_some_and(|segment| segment.damaged) {
            Alarm::SegmentDamaged.raise();
            tracing::error!(
                folder,
                from = expected,
                upto = first_offset,
                "event segments are missing"
            );
        }
        segments.insert(first_offset, load(name, file, first_offset, last)?);
    }
    Ok(segments)
}

fn load(name: String, file: Arc<dyn DiskFile>, first_offset: u64, last: bool) -> Result<Segment, StoreError> {
    let io = |error| StoreError::io("load event segment", error);
    let bytes = file.len().map_err(io)?;
    if let Some((footer, content_bytes)) = read_footer(&*file, bytes).map_err(io)? {
        if last {
            // Whoever sealed it may have ended before it was durable.
            file.sync_data().map_err(io)?;
        }
        return Ok(Segment {
            name,
            file,
            first_offset,
            blocks: footer.blocks,
            content_bytes,
            content_sum: footer.content_sum,
            sealed_bytes: Some(bytes),
            damaged: false,
        });
    }
    let mut whole = vec![0; bytes as usize];
    read_exact_at(&*file, &mut whole, 0).map_err(io)?;
    let blocks = scan_blocks(&whole, first_offset);
    let content_bytes = blocks.last().map_or(0, BlockMeta::end);
    let content_sum = crc32c::crc32c(&whole[..content_bytes as usize]);
    let mut segment = Segment {
        name,
        file,
        first_offset,
        blocks,
        content_bytes,
        content_sum,
        sealed_bytes: None,
        damaged: false,
    };
    if last && format::footer_starts(&whole[content_bytes as usize..]) {
        // Sealing was cut short. The footer follows from the blocks, all of which read.
        let sealed_bytes = write_footer(&segment).map_err(io)?;
        segment.file.sync_data().map_err(io)?;
        segment.sealed_bytes = Some(sealed_bytes);
    } else if last {
        if content_bytes < bytes {
            tracing::warn!(file = %segment.name, bytes = bytes - content_bytes, "cut torn events");
            segment.file.set_len(content_bytes).map_err(io)?;
        }
        // What a killed process left may be in the page cache only.
        segment.file.sync_data().map_err(io)?;
    } else {
        Alarm::SegmentDamaged.raise();
        tracing::error!(file = %segment.name, "sealed event segment has no good footer");
        segment.sealed_bytes = Some(bytes);
        segment.damaged = true;
    }
    Ok(segment)
}

/// Writes the footer of a segment that is sealed once it is durable; the length that it has then.
pub(super) fn write_footer(segment: &Segment) -> std::io::Result<u64> {
    let footer = format::encode_footer(&segment.blocks, segment.content_sum);
    let sealed_bytes = segment.content_bytes + footer.len() as u64;
    segment.file.write_at(&footer, segment.content_bytes)?;
    segment.file.set_len(sealed_bytes)?;
    Ok(sealed_bytes)
}

fn read_footer(file: &dyn DiskFile, bytes: u64) -> std::io::Result<Option<(Footer, u64)>> {
    if bytes < TRAILER_BYTES as u64 {
        return Ok(None);
    }
    let mut trailer = [0; TRAILER_BYTES];
    read_exact_at(file, &mut trailer, bytes - TRAILER_BYTES as u64)?;
    let Some(length) = format::footer_bytes(&trailer).filter(|length| *length <= bytes) else {
        return Ok(None);
    };
    let mut footer = vec![0; length as usize];
    read_exact_at(file, &mut footer, bytes - length)?;
    Ok(format::decode_footer(&footer).map(|footer| (footer, bytes - length)))
}

/// Good blocks from the start on, until one does not read or does not follow.
fn scan_blocks(whole: &[u8], first_offset: u64) -> Vec<BlockMeta> {
    let mut blocks: Vec<BlockMeta> = Vec::new();
    loop {
        let at = blocks.last().map_or(0, BlockMeta::end);
        let follows = blocks.last().map_or(first_offset, |block| block.next_offset);
        match format::check_block(&whole[at as usize..], at) {
            Ok(block) if block.first_offset == follows && block.next_offset > follows => blocks.push(block),
            _ => return blocks,
        }
    }
}

/// As [`check_sealed`], of a file, with one block of it in memory at a time.
pub(super) fn check_sealed_file(
    file: &dyn DiskFile,
    bytes: u64,
) -> std::io::Result<Result<Footer, &'static str>> {
    let Some((footer, content_bytes)) = read_footer(file, bytes)? else {
        return Ok(Err("no good footer"));
    };
    let (mut at, mut sum) = (0, 0);
    let mut follows = footer.blocks.first().map(|block| block.first_offset);
    if follows.is_none() {
        return Ok(Err("no blocks"));
    }
    for expected in &footer.blocks {
        if expected.at != at || Some(expected.first_offset) != follows || expected.end() > content_bytes {
            return Ok(Err("blocks do not follow each other"));
        }
        let mut block = vec![0; (expected.end() - at) as usize];
        read_exact_at(file, &mut block, at)?;
        match format::check_block(&block, at) {
            Ok(found) if found == *expected => {}
            _ => return Ok(Err("blocks do not match the footer")),
        }
        sum = crc32c::crc32c_append(sum, &block);
        (at, follows) = (expected.end(), Some(expected.next_offset));
    }
    if at != content_bytes || sum != footer.content_sum {
        return Ok(Err("content does not match its checksum"));
    }
    Ok(Ok(footer))
}

/// Removes the files of `generation` and later ones: what is left of logs that never took their place.
pub(super) fn remove_from_generation(
    disk: &dyn Disk,
    folder: &str,
    generation: u64,
) -> Result<(), StoreError> {
    let io = |error| StoreError::io("remove event segment", error);
    for name in disk.list(folder).map_err(io)? {
        // Segments, parked events, and what was half written of either.
        let of = name.split_once('-').and_then(|(of, _)| of.parse::<u64>().ok());
        if of.is_some_and(|of| of >= generation) {
            disk.remove(&format!("{folder}/{name}")).map_err(io)?;
        }
    }
    Ok(())
}

/// Checks a whole sealed file: footer, sum, every block, and that they follow each other.
pub(super) fn check_sealed(whole: &[u8]) -> Result<Footer, &'static str> {
    let Some(length) = whole
        .len()
        .checked_sub(TRAILER_BYTES)
        .and_then(|at| format::footer_bytes(&whole[at..]))
        .filter(|length| *length <= whole.len() as u64)
    else {
        return Err("no footer");
    };
    let (content, footer) = whole.split_at(whole.len() - length as usize);
    let footer = format::decode_footer(footer).ok_or("footer does not match its checksum")?;
    if crc32c::crc32c(content) != footer.content_sum {
        return Err("content does not match its checksum");
    }
    let Some(first) = footer.blocks.first() else {
        return Err("no blocks");
    };
    if scan_blocks(content, first.first_offset) != footer.blocks {
        return Err("blocks do not match the footer");
    }
    Ok(footer)
}
