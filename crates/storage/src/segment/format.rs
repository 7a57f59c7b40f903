//! How event segments look on disk: blocks of compressed runs, and the footer of a sealed segment.
//!
//! Encoding and decoding only. Nothing in these bytes depends on the node, so equal sequences of
//! runs give equal files. All integers are little-endian.
//!
//! Block: magic, version, crc32c over the rest of header and body, stored and raw length, offsets,
//! indexes, times; then the lz4 body. Footer: magic, version, the header of each block with its
//! place, then crc32c over footer, crc32c over all blocks, length of the footer, end magic.

use std::cell::RefCell;

use bytes::Bytes;
use dunlin_model::port::EventRun;
use lz4_flex::block::{CompressTable, compress_into_with_table, get_maximum_output_size};

/// The open block is closed when the bytes of its runs, uncompressed, reach this.
pub const BLOCK_BYTES: usize = 64 << 10;

/// Bytes of a block before its body.
pub const BLOCK_HEADER_BYTES: usize = 4 + 4 + 4 + 4 + 4 + 6 * 8;

/// Version of blocks and footers.
pub const FORMAT_VERSION: u32 = 1;

/// A block is never larger than this uncompressed; a longer claim is damage.
const RAW_BYTES_MAX: usize = 64 << 20;

/// Bytes of buffers that a thread keeps between two blocks.
const SCRATCH_BYTES_MAX: usize = 2 << 20;

const BLOCK_MAGIC: u32 = u32::from_le_bytes(*b"DuBl");
const FOOTER_MAGIC: u32 = u32::from_le_bytes(*b"DuFt");
const END_MAGIC: u32 = u32::from_le_bytes(*b"DuEn");
const RUN_HEADER_BYTES: usize = 4 * 8 + 4 + 4;
const FOOTER_HEAD_BYTES: usize = 4 + 4 + 4;
const FOOTER_BLOCK_BYTES: usize = 4 + 4 + 8 + 6 * 8;
/// Length of what ends a footer.
pub const TRAILER_BYTES: usize = 4 + 4 + 4 + 4;

/// What is known of a block without reading its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BlockMeta {
    /// Where the block starts in its file.
    pub at: u64,
    /// Compressed length of the body.
    pub stored_bytes: u32,
    /// Length of the body uncompressed.
    pub raw_bytes: u32,
    /// Offset of the first event.
    pub first_offset: u64,
    /// Offset after the last event.
    pub next_offset: u64,
    /// Log index of the first run.
    pub first_index: u64,
    /// Log index of the last run.
    pub last_index: u64,
    /// Stamp of the first run, milliseconds since 1970.
    pub first_time_ms: u64,
    /// Stamp of the last run.
    pub last_time_ms: u64,
}

impl BlockMeta {
    /// Where the next block starts.
    pub fn end(&self) -> u64 {
        self.at + self.bytes()
    }

    /// Length of the block in its file.
    fn bytes(&self) -> u64 {
        BLOCK_HEADER_BYTES as u64 + u64::from(self.stored_bytes)
    }

    fn range(&self) -> [u64; 6] {
        [
            self.first_offset,
            self.next_offset,
            self.first_index,
            self.last_index,
            self.first_time_ms,
            self.last_time_ms,
        ]
    }

    fn from_parts(at: u64, stored_bytes: u32, raw_bytes: u32, range: &[u8]) -> BlockMeta {
        BlockMeta {
            at,
            stored_bytes,
            raw_bytes,
            first_offset: u64_at(range, 0),
            next_offset: u64_at(range, 8),
            first_index: u64_at(range, 16),
            last_index: u64_at(range, 24),
            first_time_ms: u64_at(range, 32),
            last_time_ms: u64_at(range, 40),
        }
    }
}

/// Length of a run in the body of a block, uncompressed.
pub fn run_bytes(run: &EventRun) -> usize {
    RUN_HEADER_BYTES + run.records.len()
}

thread_local! {
    /// Every block passes through it: buffers of this size, made and dropped for each block, cost more
    /// in fresh pages than the copying does.
    static SCRATCH: RefCell<Scratch> = RefCell::default();
}

/// Memory that encoding a block needs for a moment. It grows to the largest block that its thread has
/// seen, within [`SCRATCH_BYTES_MAX`].
#[derive(Default)]
struct Scratch {
    raw: Vec<u8>,
    compressed: Vec<u8>,
    table: CompressTable,
}

impl Scratch {
    /// Appends room for a header and the compressed `runs` to `block`; returns the latter's length.
    fn compress(&mut self, runs: &[EventRun], raw_bytes: usize, block: &mut Vec<u8>) -> usize {
        let raw = &mut self.raw;
        raw.clear();
        raw.reserve(raw_bytes);
        for run in runs {
            for field in [run.index, run.term, run.time_ms, run.first_offset] {
                raw.extend_from_slice(&field.to_le_bytes());
            }
            raw.extend_from_slice(&run.count.to_le_bytes());
            raw.extend_from_slice(&(run.records.len() as u32).to_le_bytes());
            raw.extend_from_slice(&run.records);
        }
        let room = get_maximum_output_size(raw.len());
        if self.compressed.len() < room {
            self.compressed.resize(room, 0);
        }
        // The length alone says which table fits, so that equal blocks are compressed to equal bytes.
        let is_small = raw.len() < usize::from(u16::MAX);
        if is_small != matches!(self.table, CompressTable::Small(_)) {
            self.table = if is_small {
                CompressTable::small()
            } else {
                CompressTable::large()
            };
        }
        let stored = compress_into_with_table(raw, &mut self.compressed, &mut self.table)
            .expect("the room is what the compressor asks for");
        block.reserve_exact(BLOCK_HEADER_BYTES + stored);
        block.resize(BLOCK_HEADER_BYTES, 0);
        block.extend_from_slice(&self.compressed[..stored]);
        if self.raw.capacity() + self.compressed.capacity() > SCRATCH_BYTES_MAX {
            *self = Scratch::default();
        }
        stored
    }
}

/// Encodes `runs`, at least one, as the block at `at`.
pub fn encode_block(runs: &[EventRun], at: u64) -> (BlockMeta, Vec<u8>) {
    let (first, last) = (
        runs.first().expect("a block has runs"),
        runs.last().expect("a block has runs"),
    );
    let raw_bytes: usize = runs.iter().map(run_bytes).sum();
    let mut block = Vec::new();
    let stored_bytes = SCRATCH.with_borrow_mut(|scratch| scratch.compress(runs, raw_bytes, &mut block));
    let meta = BlockMeta {
        at,
        stored_bytes: stored_bytes as u32,
        raw_bytes: raw_bytes as u32,
        first_offset: first.first_offset,
        next_offset: last.next_offset(),
        first_index: first.index,
        last_index: last.index,
        first_time_ms: first.time_ms,
        last_time_ms: last.time_ms,
    };
    let mut header = Vec::with_capacity(BLOCK_HEADER_BYTES);
    header.extend_from_slice(&BLOCK_MAGIC.to_le_bytes());
    header.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    header.extend_from_slice(&[0; 4]);
    header.extend_from_slice(&meta.stored_bytes.to_le_bytes());
    header.extend_from_slice(&meta.raw_bytes.to_le_bytes());
    for field in meta.range() {
        header.extend_from_slice(&field.to_le_bytes());
    }
    block[..BLOCK_HEADER_BYTES].copy_from_slice(&header);
    let sum = block_sum(&block);
    block[8..12].copy_from_slice(&sum.to_le_bytes());
    (meta, block)
}

fn block_sum(block: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&block[..8]), &block[12..])
}

/// Checks the block at the start of `bytes`, which is at `at` in its file.
pub fn check_block(bytes: &[u8], at: u64) -> Result<BlockMeta, &'static str> {
    if bytes.len() < BLOCK_HEADER_BYTES || u32_at(bytes, 0) != BLOCK_MAGIC {
        return Err("no block starts here");
    }
    if u32_at(bytes, 4) != FORMAT_VERSION {
        return Err("block has an unknown version");
    }
    let meta = BlockMeta::from_parts(at, u32_at(bytes, 12), u32_at(bytes, 16), &bytes[20..]);
    let Some(block) = bytes.get(..BLOCK_HEADER_BYTES + meta.stored_bytes as usize) else {
        return Err("block ends beyond the file");
    };
    if u32_at(block, 8) != block_sum(block) {
        return Err("block does not match its checksum");
    }
    Ok(meta)
}

/// The runs of the block at the start of `bytes`, which must match `expected`.
pub fn decode_block(bytes: &[u8], expected: &BlockMeta) -> Result<Vec<EventRun>, &'static str> {
    let meta = check_block(bytes, expected.at)?;
    if meta != *expected {
        return Err("block is not the one that the index names");
    }
    if meta.raw_bytes as usize > RAW_BYTES_MAX {
        return Err("block claims too many bytes");
    }
    let body = &bytes[BLOCK_HEADER_BYTES..BLOCK_HEADER_BYTES + meta.stored_bytes as usize];
    let raw =
        lz4_flex::block::decompress(body, meta.raw_bytes as usize).map_err(|_| "block does not unpack")?;
    let raw = Bytes::from(raw);
    let mut runs = Vec::new();
    let mut at = 0;
    while at < raw.len() {
        let Some(head) = raw.get(at..at + RUN_HEADER_BYTES) else {
            return Err("run is cut");
        };
        let length = u32_at(head, 36) as usize;
        let start = at + RUN_HEADER_BYTES;
        if raw.len() - start < length {
            return Err("run is cut");
        }
        runs.push(EventRun {
            index: u64_at(head, 0),
            term: u64_at(head, 8),
            time_ms: u64_at(head, 16),
            first_offset: u64_at(head, 24),
            count: u32_at(head, 32),
            records: raw.slice(start..start + length),
        });
        at = start + length;
    }
    if holds_what_it_says(&meta, &runs) {
        Ok(runs)
    } else {
        Err("runs are not those that the block says")
    }
}

/// Whether `runs` follow each other from the first to the last that the header tells of. A block that passes
/// its checksum may still be a peer's.
fn holds_what_it_says(meta: &BlockMeta, runs: &[EventRun]) -> bool {
    let (Some(first), Some(last)) = (runs.first(), runs.last()) else {
        return false;
    };
    let told = [
        first.first_offset,
        last.next_offset(),
        first.index,
        last.index,
        first.time_ms,
        last.time_ms,
    ];
    let follow = runs.windows(2).all(|pair| {
        pair[1].first_offset == pair[0].next_offset()
            && pair[1].index > pair[0].index
            && pair[1].time_ms >= pair[0].time_ms
    });
    told == meta.range() && follow && runs.iter().all(|run| run.count > 0)
}

/// The footer of a segment whose blocks are `blocks`, with `content_sum` over their bytes.
pub fn encode_footer(blocks: &[BlockMeta], content_sum: u32) -> Vec<u8> {
    let mut footer = Vec::new();
    footer.extend_from_slice(&FOOTER_MAGIC.to_le_bytes());
    footer.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    footer.extend_from_slice(&(blocks.len() as u32).to_le_bytes());
    for block in blocks {
        footer.extend_from_slice(&block.stored_bytes.to_le_bytes());
        footer.extend_from_slice(&block.raw_bytes.to_le_bytes());
        footer.extend_from_slice(&block.at.to_le_bytes());
        for field in block.range() {
            footer.extend_from_slice(&field.to_le_bytes());
        }
    }
    let bytes = footer.len() + TRAILER_BYTES;
    footer.extend_from_slice(&content_sum.to_le_bytes());
    footer.extend_from_slice(&(bytes as u32).to_le_bytes());
    footer.extend_from_slice(&END_MAGIC.to_le_bytes());
    let sum = crc32c::crc32c(&footer);
    footer.extend_from_slice(&sum.to_le_bytes());
    footer
}

/// A footer that was read and checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Footer {
    /// The blocks of the segment.
    pub blocks: Vec<BlockMeta>,
    /// crc32c over all bytes before the footer.
    pub content_sum: u32,
}

/// Length of the footer, from the last [`TRAILER_BYTES`] of a file, if they end one.
pub fn footer_bytes(trailer: &[u8]) -> Option<u64> {
    (trailer.len() == TRAILER_BYTES && u32_at(trailer, 8) == END_MAGIC).then(|| u64::from(u32_at(trailer, 4)))
}

/// Whether a footer, perhaps a torn one, starts here.
pub fn footer_starts(bytes: &[u8]) -> bool {
    bytes.len() >= 4 && u32_at(bytes, 0) == FOOTER_MAGIC
}

/// Reads and checks a footer.
pub fn decode_footer(footer: &[u8]) -> Option<Footer> {
    if footer.len() < FOOTER_HEAD_BYTES + TRAILER_BYTES || !footer_starts(footer) {
        return None;
    }
    let (body, sum) = footer.split_at(footer.len() - 4);
    if u32_at(sum, 0) != crc32c::crc32c(body) || u32_at(footer, 4) != FORMAT_VERSION {
        return None;
    }
    let listed = &footer[FOOTER_HEAD_BYTES..footer.len() - TRAILER_BYTES];
    if listed.len() != u32_at(footer, 8) as usize * FOOTER_BLOCK_BYTES {
        return None;
    }
    let parse =
        |part: &[u8]| BlockMeta::from_parts(u64_at(part, 8), u32_at(part, 0), u32_at(part, 4), &part[16..]);
    let blocks: Vec<BlockMeta> = listed.chunks_exact(FOOTER_BLOCK_BYTES).map(parse).collect();
    follow_each_other(&blocks).then(|| Footer {
        blocks,
        content_sum: u32_at(footer, footer.len() - TRAILER_BYTES),
    })
}

/// Whether blocks lie one after the other from the start of a file, and hold offsets without a hole. A footer
/// that passes its checksum may still be a peer's.
fn follow_each_other(blocks: &[BlockMeta]) -> bool {
    let (mut at, mut offset) = (0, blocks.first().map_or(0, |block| block.first_offset));
    blocks.iter().all(|block| {
        let follows = (block.at, block.first_offset) == (at, offset) && block.next_offset > offset;
        (at, offset) = (block.at.saturating_add(block.bytes()), block.next_offset);
        follows && at < u64::MAX
    })
}

fn u32_at(bytes: &[u8], start: usize) -> u32 {
    u32::from_le_bytes(bytes[start..start + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], start: usize) -> u64 {
    u64::from_le_bytes(bytes[start..start + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(index: u64, first_offset: u64, count: u32) -> EventRun {
        EventRun {
            index,
            term: 1,
            time_ms: 5,
            first_offset,
            count,
            records: Bytes::from_static(b"abc"),
        }
    }

    #[test]
    fn a_block_whose_runs_are_others_than_it_says_is_refused() {
        for runs in [
            [run(1, 0, 1), run(2, 5, 1)],
            [run(2, 0, 1), run(1, 1, 1)],
            [run(1, 0, 0), run(2, 0, 1)],
        ] {
            let (meta, block) = encode_block(&runs, 0);
            assert!(check_block(&block, 0).is_ok(), "its checksum is right");
            assert!(decode_block(&block, &meta).is_err(), "{runs:?}");
        }
        let (meta, block) = encode_block(&[run(1, 0, 1), run(2, 1, 1)], 0);
        assert_eq!(decode_block(&block, &meta).map(|runs| runs.len()), Ok(2));
    }

    #[test]
    fn a_footer_whose_blocks_do_not_follow_is_refused() {
        let block = |at, first_offset, next_offset| BlockMeta {
            at,
            stored_bytes: 10,
            raw_bytes: 20,
            first_offset,
            next_offset,
            first_index: 1,
            last_index: 1,
            first_time_ms: 1,
            last_time_ms: 1,
        };
        let second_at = block(0, 0, 2).end();
        let good = [block(0, 0, 2), block(second_at, 2, 3)];
        assert!(decode_footer(&encode_footer(&good, 0)).is_some());
        for blocks in [
            [block(0, 0, 2), block(u64::MAX, 2, 3)],
            [block(0, 0, 2), block(second_at, 3, 4)],
            [block(0, 0, 0), block(second_at, 0, 1)],
        ] {
            assert!(decode_footer(&encode_footer(&blocks, 0)).is_none(), "{blocks:?}");
        }
    }
}
