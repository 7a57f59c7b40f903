//! The end of a journal on disk: where its last flush ends, and tails as a crash may leave them.
//!
//! Reads the files with the published format; it shares no code with recovery, which it tests.

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use dunlin_storage::journal::format::{
    BLOCK_BYTES, FlushHeader, Kind, NO_POSITION, NO_REPLICA, RecordHead, SegmentHeader, align_up,
    decode_record, encode_record,
};

/// Where a journal ends.
#[derive(Debug)]
pub struct Tail {
    file: PathBuf,
    segment: SegmentHeader,
    last: FlushHeader,
    /// Offset after the last record.
    end: u64,
}

/// What a test writes after the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Torn {
    /// Bytes that mean nothing.
    Garbage,
    /// The next flush, whole up to the middle of its record: what a write that was cut short leaves.
    HalfAFlush,
    /// The last flush again, at a place where it does not belong: what a disk that mixes up its sectors leaves.
    Repetition,
}

impl Tail {
    /// Finds the end of the journal in `folder`.
    ///
    /// # Panics
    /// When the folder holds no flush.
    pub fn find(folder: &Path) -> Tail {
        let mut newest: Option<(PathBuf, SegmentHeader)> = None;
        for entry in std::fs::read_dir(folder).expect("the journal's folder").flatten() {
            let path = entry.path();
            let is_in_use = path.extension().is_some_and(|extension| extension == "log");
            if !is_in_use {
                continue;
            }
            let mut block = vec![0; BLOCK_BYTES as usize];
            let read = File::open(&path).and_then(|file| file.read_exact_at(&mut block, 0));
            read.expect("a segment begins with a block");
            let header = SegmentHeader::decode(&block).expect("a segment has a header");
            if newest
                .as_ref()
                .is_none_or(|(_, found)| found.number < header.number)
            {
                newest = Some((path, header));
            }
        }
        let (file, segment) = newest.expect("a segment in use");
        let bytes = std::fs::read(&file).expect("a segment can be read");
        let (mut start, mut found) = (BLOCK_BYTES, None);
        while let Some((header, end)) = read_flush(&bytes, &segment, start) {
            found = Some((header, end));
            start = align_up(end);
        }
        let (last, end) = found.expect("the newest segment holds a flush");
        Tail {
            file,
            segment,
            last,
            end,
        }
    }

    /// Writes something after the end, never over it: what was synced stays.
    pub fn tear(&self, how: Torn) {
        let start = align_up(self.end);
        let bytes = match how {
            Torn::Garbage => (0..3 * BLOCK_BYTES).map(|i| (i * 31 % 251) as u8 | 1).collect(),
            Torn::HalfAFlush => self.half_a_flush(start),
            Torn::Repetition => {
                let whole = std::fs::read(&self.file).expect("a segment can be read");
                let from = align_up(self.end).saturating_sub(BLOCK_BYTES) as usize;
                whole[from..from + BLOCK_BYTES as usize].to_vec()
            }
        };
        let file = File::options().write(true).open(&self.file).expect("a segment");
        file.write_all_at(&bytes, start).expect("a tail can be written");
    }

    /// A flush that recovery must recognise as the next one, and as torn.
    fn half_a_flush(&self, start: u64) -> Vec<u8> {
        let seed = self.segment.seed();
        let replicas = self.last.replicas.clone().filter(|named| !named.is_empty());
        let replica = replicas
            .and_then(|named| named.first().copied())
            .unwrap_or(NO_REPLICA);
        let body = vec![7; 3000];
        let header = FlushHeader {
            sequence: self.last.sequence + 1,
            previous_segment: self.segment.number,
            previous_end: self.end,
            oldest_segment: self.last.oldest_segment,
            flush_bytes: FlushHeader::record_bytes(1) as u64 + 45 + body.len() as u64,
            replicas: Some(vec![replica]),
        };
        let mut bytes = Vec::new();
        let head = RecordHead {
            kind: Kind::Flush,
            id: NO_REPLICA,
            position: NO_POSITION,
        };
        encode_record(&mut bytes, seed, start, &head, &header.encode());
        let head = RecordHead {
            kind: Kind::Vote,
            id: replica,
            position: NO_POSITION,
        };
        let at = start + bytes.len() as u64;
        encode_record(&mut bytes, seed, at, &head, &body);
        bytes.truncate(1024);
        bytes
    }
}

/// The flush that starts at `start`: its header, and the offset after the last of its records that reads.
fn read_flush(bytes: &[u8], segment: &SegmentHeader, start: u64) -> Option<(FlushHeader, u64)> {
    let rest = bytes.get(start as usize..)?;
    let (head, body) = decode_record(rest, segment.seed(), start)?;
    if head.kind != Kind::Flush {
        return None;
    }
    let header = FlushHeader::decode(&rest[body.clone()])?;
    let mut end = start + body.end as u64;
    while end < start + header.flush_bytes {
        let Some((_, body)) = decode_record(bytes.get(end as usize..)?, segment.seed(), end) else {
            break;
        };
        end += body.end as u64;
    }
    Some((header, end))
}
