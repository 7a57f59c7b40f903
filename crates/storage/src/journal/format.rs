//! How segments, flushes and records look on disk. Encoding and decoding only; no files, no policy.
//!
//! A segment starts with a header block of [`BLOCK_BYTES`] that holds the header twice. Flushes
//! follow, each at a multiple of [`BLOCK_BYTES`]: first a flush header record, then its records.
//! Every checksum is seeded with the segment's signature and number and the record's offset, so
//! that bytes of a recycled file or of another place never pass. All integers are little-endian.

use bytes::Bytes;
use dunlin_model::id::{GroupId, GroupReplica, LogPosition, ReplicaId};
use dunlin_model::mutant::{self, Mutant};

/// Flushes start at multiples of this many bytes; it is also the length of the segment header.
pub const BLOCK_BYTES: u64 = 4096;

/// Version of the segment format that this code writes and the newest it reads.
pub const FORMAT_VERSION: u32 = 1;

/// Bytes of a record before its body.
pub const RECORD_HEADER_BYTES: usize = 45;

/// Bytes of the body of a flush header that names no replicas.
pub const FLUSH_BODY_BYTES: usize = 8 * 5 + 4;

/// Bytes per replica named in a flush header.
pub const FLUSH_REPLICA_BYTES: usize = 12;

/// Indexes and sequence numbers beyond this are damage, however well they are summed: counting one by one,
/// no writer gets there, and whoever reads one may still count on from it.
pub const NUMBER_MAX: u64 = 1 << 62;

/// More replicas than this are not named in a flush header; it then stands for all of them.
pub const FLUSH_REPLICAS_MAX: usize = 1024;

const MAGIC: &[u8; 8] = b"DUNLINJ\n";
const HEADER_BYTES: usize = 8 + 4 + 8 + 8 + 8 + 4;
/// The second copy of a segment header, in another 512-byte sector.
const HEADER_COPY_OFFSET: usize = 2048;
const ALL_REPLICAS: u32 = u32::MAX;

/// What a record says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// Start of a flush.
    Flush = 1,
    /// A log entry; replaces entries at and above its index.
    Entry = 2,
    /// The vote of a replica.
    Vote = 3,
    /// The committed mark of a replica.
    Committed = 4,
    /// Entries up to the position are gone.
    Purge = 5,
    /// Entries above the position are gone; body `[1]`, or `[0]` for all entries.
    Truncate = 6,
    /// The replica is gone.
    Remove = 7,
    /// The journal was stopped in order.
    CleanStop = 8,
    /// What was lost before this may concern the replicas known here, and none that comes later.
    Survey = 9,
    /// The replica is damaged, for the reason in the body: nothing that was written of it before counts.
    Damaged = 10,
}

impl Kind {
    fn parse(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Flush,
            2 => Kind::Entry,
            3 => Kind::Vote,
            4 => Kind::Committed,
            5 => Kind::Purge,
            6 => Kind::Truncate,
            7 => Kind::Remove,
            8 => Kind::CleanStop,
            9 => Kind::Survey,
            10 => Kind::Damaged,
            _ => return None,
        })
    }
}

/// The identity of a segment file in its present use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Rises by one with each segment put in use; never reused.
    pub number: u64,
    /// Drawn at random for each use of a file.
    pub signature: u64,
    /// Length of the file.
    pub segment_bytes: u64,
}

/// Why a segment header cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderFault {
    /// Written by a newer version of this program.
    Newer(u32),
    /// Neither copy passes its checksum.
    Unreadable,
}

impl SegmentHeader {
    /// The header block.
    pub fn encode(&self) -> Vec<u8> {
        let mut copy = Vec::with_capacity(HEADER_BYTES);
        copy.extend_from_slice(MAGIC);
        copy.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        copy.extend_from_slice(&self.number.to_le_bytes());
        copy.extend_from_slice(&self.signature.to_le_bytes());
        copy.extend_from_slice(&self.segment_bytes.to_le_bytes());
        copy.extend_from_slice(&crc32c::crc32c(&copy).to_le_bytes());
        let mut block = vec![0; BLOCK_BYTES as usize];
        block[..HEADER_BYTES].copy_from_slice(&copy);
        block[HEADER_COPY_OFFSET..HEADER_COPY_OFFSET + HEADER_BYTES].copy_from_slice(&copy);
        block
    }

    /// Reads a header block; one good copy is enough.
    pub fn decode(block: &[u8]) -> Result<SegmentHeader, HeaderFault> {
        let mut fault = HeaderFault::Unreadable;
        for start in [0, HEADER_COPY_OFFSET] {
            let Some(copy) = block.get(start..start + HEADER_BYTES) else {
                continue;
            };
            let sum = u32_at(copy, HEADER_BYTES - 4);
            if &copy[..8] != MAGIC || sum != crc32c::crc32c(&copy[..HEADER_BYTES - 4]) {
                continue;
            }
            if u32_at(copy, 8) > FORMAT_VERSION {
                fault = HeaderFault::Newer(u32_at(copy, 8));
                continue;
            }
            return Ok(SegmentHeader {
                number: u64_at(copy, 12),
                signature: u64_at(copy, 20),
                segment_bytes: u64_at(copy, 28),
            });
        }
        Err(fault)
    }

    /// What all checksums in this segment start from.
    pub fn seed(&self) -> u32 {
        let sum = crc32c::crc32c(&self.signature.to_le_bytes());
        crc32c::crc32c_append(sum, &self.number.to_le_bytes())
    }
}

/// The fields of a record, without its body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordHead {
    /// What it says.
    pub kind: Kind,
    /// About which replica; [`NO_REPLICA`] for flush headers, clean stops and surveys.
    pub id: GroupReplica,
    /// Term, leader and index, zero where the kind has none.
    pub position: LogPosition,
}

/// No position.
pub const NO_POSITION: LogPosition = LogPosition {
    term: 0,
    leader: 0,
    index: 0,
};

/// The replica that flush headers and clean stops carry.
pub const NO_REPLICA: GroupReplica = GroupReplica {
    group: GroupId(u32::MAX),
    replica: ReplicaId(u64::MAX),
};

/// Appends one record to `buffer`. `offset` is its place in the segment.
pub fn encode_record(buffer: &mut Vec<u8>, seed: u32, offset: u64, head: &RecordHead, body: &[u8]) {
    assert!(body.len() < u32::MAX as usize, "a record body fits 32 bits");
    let start = buffer.len();
    buffer.extend_from_slice(&(body.len() as u32).to_le_bytes());
    buffer.extend_from_slice(&[0; 4]);
    buffer.push(head.kind as u8);
    buffer.extend_from_slice(&head.id.group.0.to_le_bytes());
    buffer.extend_from_slice(&head.id.replica.0.to_le_bytes());
    buffer.extend_from_slice(&head.position.term.to_le_bytes());
    buffer.extend_from_slice(&head.position.leader.to_le_bytes());
    buffer.extend_from_slice(&head.position.index.to_le_bytes());
    buffer.extend_from_slice(body);
    seal_record(&mut buffer[start..], seed, offset);
}

fn seal_record(record: &mut [u8], seed: u32, offset: u64) {
    let sum = checksum(record, seed, offset);
    record[4..8].copy_from_slice(&sum.to_le_bytes());
}

fn checksum(record: &[u8], seed: u32, offset: u64) -> u32 {
    let sum = crc32c::crc32c_append(seed, &offset.to_le_bytes());
    let sum = crc32c::crc32c_append(sum, &record[..4]);
    crc32c::crc32c_append(sum, &record[8..])
}

/// Reads the record at the start of `bytes`: its head and the range of its body in `bytes`.
pub fn decode_record(bytes: &[u8], seed: u32, offset: u64) -> Option<(RecordHead, std::ops::Range<usize>)> {
    if bytes.len() < RECORD_HEADER_BYTES {
        return None;
    }
    let kind = Kind::parse(bytes[8])?;
    let end = RECORD_HEADER_BYTES.checked_add(u32_at(bytes, 0) as usize)?;
    let record = bytes.get(..end)?;
    let is_believed = mutant::is_on(Mutant::SkipJournalChecksum);
    if u32_at(record, 4) != checksum(record, seed, offset) && !is_believed {
        return None;
    }
    let id = GroupReplica {
        group: GroupId(u32_at(record, 9)),
        replica: ReplicaId(u64_at(record, 13)),
    };
    let position = LogPosition {
        term: u64_at(record, 21),
        leader: u64_at(record, 29),
        index: u64_at(record, 37),
    };
    if position.index > NUMBER_MAX {
        return None;
    }
    Some((RecordHead { kind, id, position }, RECORD_HEADER_BYTES..end))
}

/// The first record of every flush.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlushHeader {
    /// Rises by one with each flush over the life of the journal.
    pub sequence: u64,
    /// Segment in which the flush before ended.
    pub previous_segment: u64,
    /// Offset after the last good record of the flush before. Everything up to there is durable.
    pub previous_end: u64,
    /// Lowest segment that is still needed.
    pub oldest_segment: u64,
    /// Bytes of this flush, with this header, without padding.
    pub flush_bytes: u64,
    /// Replicas that have records in this flush; `None` when too many to name.
    pub replicas: Option<Vec<GroupReplica>>,
}

impl FlushHeader {
    /// Bytes of a flush header record that names `replicas` replicas.
    pub fn record_bytes(replicas: usize) -> usize {
        let named = if replicas > FLUSH_REPLICAS_MAX {
            0
        } else {
            replicas
        };
        RECORD_HEADER_BYTES + FLUSH_BODY_BYTES + named * FLUSH_REPLICA_BYTES
    }

    /// The body of the record.
    pub fn encode(&self) -> Vec<u8> {
        let mut body = Vec::new();
        for field in [
            self.sequence,
            self.previous_segment,
            self.previous_end,
            self.oldest_segment,
            self.flush_bytes,
        ] {
            body.extend_from_slice(&field.to_le_bytes());
        }
        match &self.replicas {
            None => body.extend_from_slice(&ALL_REPLICAS.to_le_bytes()),
            Some(replicas) => {
                body.extend_from_slice(&(replicas.len() as u32).to_le_bytes());
                for id in replicas {
                    body.extend_from_slice(&id.group.0.to_le_bytes());
                    body.extend_from_slice(&id.replica.0.to_le_bytes());
                }
            }
        }
        body
    }

    /// Reads the body of the record.
    pub fn decode(body: &[u8]) -> Option<FlushHeader> {
        if body.len() < FLUSH_BODY_BYTES {
            return None;
        }
        let count = u32_at(body, 40);
        let named = &body[FLUSH_BODY_BYTES..];
        let replicas = if count == ALL_REPLICAS {
            None
        } else {
            if named.len() != count as usize * FLUSH_REPLICA_BYTES {
                return None;
            }
            let parse = |part: &[u8]| GroupReplica {
                group: GroupId(u32_at(part, 0)),
                replica: ReplicaId(u64_at(part, 4)),
            };
            Some(named.chunks_exact(FLUSH_REPLICA_BYTES).map(parse).collect())
        };
        Some(FlushHeader {
            sequence: u64_at(body, 0),
            previous_segment: u64_at(body, 8),
            previous_end: u64_at(body, 16),
            oldest_segment: u64_at(body, 24),
            flush_bytes: u64_at(body, 32),
            replicas,
        })
    }
}

/// The body of a truncate record.
pub fn truncate_body(last: Option<LogPosition>) -> Bytes {
    if last.is_some() {
        Bytes::from_static(&[1])
    } else {
        Bytes::from_static(&[0])
    }
}

/// Rounds up to where the next flush may start.
pub fn align_up(offset: u64) -> u64 {
    offset.next_multiple_of(BLOCK_BYTES)
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

    const HEADER: SegmentHeader = SegmentHeader {
        number: 7,
        signature: 99,
        segment_bytes: 1 << 16,
    };

    #[test]
    fn an_index_that_nobody_reaches_is_damage_however_well_it_is_summed() {
        for (index, reads) in [(NUMBER_MAX, true), (NUMBER_MAX + 1, false), (u64::MAX, false)] {
            let head = RecordHead {
                kind: Kind::Purge,
                id: NO_REPLICA,
                position: LogPosition { index, ..NO_POSITION },
            };
            let mut record = Vec::new();
            encode_record(&mut record, 1, 0, &head, b"");
            assert_eq!(decode_record(&record, 1, 0).is_some(), reads, "{index}");
        }
    }

    #[test]
    fn a_record_is_read_back_only_at_its_place_in_its_segment() {
        let head = RecordHead {
            kind: Kind::Entry,
            id: GroupReplica {
                group: GroupId(3),
                replica: ReplicaId(4),
            },
            position: LogPosition {
                term: 1,
                leader: 2,
                index: 3,
            },
        };
        let mut bytes = Vec::new();
        encode_record(&mut bytes, HEADER.seed(), 4096, &head, b"body");
        let (read, body) = decode_record(&bytes, HEADER.seed(), 4096).unwrap();
        assert_eq!((read, &bytes[body]), (head, &b"body"[..]));
        assert!(decode_record(&bytes, HEADER.seed(), 8192).is_none(), "moved");
        let next_use = SegmentHeader {
            signature: 100,
            ..HEADER
        };
        assert!(decode_record(&bytes, next_use.seed(), 4096).is_none(), "stale");
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(
                decode_record(&flipped, HEADER.seed(), 4096).is_none(),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn one_good_copy_of_a_segment_header_is_enough() {
        let mut block = HEADER.encode();
        block[9] ^= 1;
        assert_eq!(SegmentHeader::decode(&block), Ok(HEADER));
        block[HEADER_COPY_OFFSET + 13] ^= 1;
        assert_eq!(SegmentHeader::decode(&block), Err(HeaderFault::Unreadable));
    }

    #[test]
    fn a_flush_header_is_read_back() {
        let named = vec![GroupReplica {
            group: GroupId(1),
            replica: ReplicaId(2),
        }];
        for replicas in [None, Some(vec![]), Some(named)] {
            let header = FlushHeader {
                sequence: 1,
                previous_segment: 2,
                previous_end: 3,
                oldest_segment: 4,
                flush_bytes: 5,
                replicas,
            };
            assert_eq!(FlushHeader::decode(&header.encode()), Some(header));
        }
    }
}
