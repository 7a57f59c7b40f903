//! An event log's folder made of fuzzed bytes: what is read is what was written, or a refusal.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use dunlin_model::id::{GroupId, GroupReplica, ReplicaId};
use dunlin_model::port::{EventLog, EventRun, SealedSegment};

use super::{Image, Input, damage, disk_with, image_of};
use crate::disk::faulty::FaultyDisk;
use crate::segment::SegmentLog;
use crate::segment::format::{BlockMeta, encode_block, encode_footer};

const SEGMENT_BYTES: u64 = 20 << 10;
/// Runs of the log that is damaged.
const RUNS: u64 = 30;
/// Places that are damaged at the most.
const DAMAGES_MAX: usize = 16;

fn id() -> GroupReplica {
    GroupReplica {
        group: GroupId(1),
        replica: ReplicaId(1),
    }
}

fn folder() -> String {
    SegmentLog::folder(id())
}

fn run(index: u64) -> EventRun {
    let mut state = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let records = (0..9 << 10).map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    });
    EventRun {
        index,
        term: 1,
        time_ms: 1000 + index,
        first_offset: (index - 1) * 2,
        count: 2,
        records: records.collect(),
    }
}

fn open(disk: &FaultyDisk) -> Option<SegmentLog> {
    SegmentLog::open_with(Arc::new(disk.clone()), id(), SEGMENT_BYTES).ok()
}

fn sample() -> &'static Image {
    static SAMPLE: OnceLock<Image> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let disk = FaultyDisk::new();
        let log = open(&disk).expect("an empty disk takes a log");
        (1..=RUNS).for_each(|index| log.append(run(index)).expect("memory takes it"));
        log.checkpoint(RUNS, true).expect("memory takes it");
        image_of(&disk, &folder(), "")
    })
}

/// An event log from fuzzed bytes. The first byte says how: raw bytes as a segment, damage to a good log,
/// blocks and a footer with right checksums and any content, a segment from a peer, or a parked block.
pub fn segment_open(data: &[u8]) {
    let mut input = Input(data);
    match input.u8() % 6 {
        0 => {
            let path = format!("{}/{:08}-{:020}.seg", folder(), 0, 0);
            lives_on(&disk_with(&folder(), &vec![(path, input.0.to_vec())]));
        }
        1 => {
            let mut image = sample().clone();
            damage(&mut image, &mut input, DAMAGES_MAX);
            let disk = disk_with(&folder(), &image);
            nothing_is_made_up(&disk);
            lives_on(&disk);
        }
        2 => {
            let path = format!("{}/{:08}-{:020}.seg", folder(), 0, 0);
            lives_on(&disk_with(&folder(), &vec![(path, made_up(&mut input))]));
        }
        3 => from_a_peer(&mut input),
        kind => {
            let path = format!("{}/{:08}-open.blk", folder(), 0);
            let bytes = match kind {
                4 => input.0.to_vec(),
                _ => made_up(&mut input),
            };
            lives_on(&disk_with(&folder(), &vec![(path, bytes)]));
        }
    }
}

/// Every run that is read is one that was written.
fn nothing_is_made_up(disk: &FaultyDisk) {
    let Some(log) = open(disk) else { return };
    for found in read_all(&log) {
        assert!((1..=RUNS).contains(&found.index), "index {}", found.index);
        assert!(found == run(found.index), "run {} is another", found.index);
    }
    for segment in log.sealed_segments() {
        let _ = log.verify_segment(segment.first_offset);
    }
}

/// All that can be read. A hole is stepped over, offset by offset, a while.
fn read_all(log: &SegmentLog) -> Vec<EventRun> {
    let (mut from, end) = log.range();
    let mut found = Vec::new();
    let mut steps = 0;
    while from < end && steps < 4 * RUNS {
        steps += 1;
        match log.read(from, 50 << 10) {
            Ok(page) if page.is_empty() => break,
            Ok(page) => {
                from = page
                    .last()
                    .map_or(end, |run| run.first_offset.saturating_add(u64::from(run.count)))
                    .max(from.saturating_add(1));
                found.extend(page);
            }
            Err(_) => from = from.saturating_add(1),
        }
    }
    found
}

/// If the log opens, it goes on: it takes events, seals, and opens again with what it had.
fn lives_on(disk: &FaultyDisk) {
    let Some(log) = open(disk) else { return };
    let before = read_all(&log);
    let (_, end) = log.range();
    let _ = log.offset_at(1_010);
    for segment in log.sealed_segments() {
        let _ = log.read_segment(segment.first_offset, 0, 1 << 10);
        let _ = log.verify_segment(segment.first_offset);
    }
    if end < u64::MAX / 2 && log.applied_index() < u64::MAX / 2 {
        let more = EventRun {
            index: log.applied_index() + 1,
            term: 2,
            time_ms: u64::MAX,
            first_offset: end,
            count: 1,
            records: Bytes::from_static(b"goes on"),
        };
        log.append(more.clone()).expect("a log that opened takes events");
        log.seal().expect("memory takes it");
        assert_eq!(log.read(end, 1).ok(), Some(vec![more]));
    }
    drop(log);
    let log = open(disk).expect("a log that was sealed opens");
    let after = read_all(&log);
    assert!(
        after.len() >= before.len() && after[..before.len()] == before[..],
        "events are gone"
    );
}

/// Blocks and a footer that pass every checksum.
fn made_up(input: &mut Input<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut blocks: Vec<BlockMeta> = Vec::new();
    let mut offset = 0;
    for _ in 0..input.u8() % 5 {
        let mut runs = Vec::new();
        for _ in 0..=input.u8() % 3 {
            let lies = input.u8();
            let mut run = EventRun {
                index: offset + 1,
                term: 1,
                time_ms: 1_000,
                first_offset: offset,
                count: 1,
                records: Bytes::copy_from_slice(input.take(usize::from(lies & 0x0F))),
            };
            if lies & 0xF0 == 0xF0 {
                run.index = input.odd_number();
                run.first_offset = input.odd_number();
                run.count = input.odd_number() as u32;
                run.time_ms = input.odd_number();
            }
            offset += 1;
            // What cannot be added up is not encoded either: that is asserted where runs come in.
            if run.first_offset.checked_add(u64::from(run.count)).is_some() {
                runs.push(run);
            }
        }
        if !runs.is_empty() {
            let (meta, block) = encode_block(&runs, bytes.len() as u64);
            bytes.extend_from_slice(&block);
            blocks.push(meta);
        }
    }
    let sum = crc32c::crc32c(&bytes);
    match input.u8() % 3 {
        0 => {}
        1 => bytes.extend_from_slice(&encode_footer(&blocks, sum)),
        _ => {
            for block in &mut blocks {
                match input.u8() % 8 {
                    0 => block.at = input.odd_number(),
                    1 => block.stored_bytes = input.odd_number() as u32,
                    2 => block.raw_bytes = input.odd_number() as u32,
                    3 => block.first_offset = input.odd_number(),
                    4 => block.next_offset = input.odd_number(),
                    5 => block.last_index = input.odd_number(),
                    _ => {}
                }
            }
            bytes.extend_from_slice(&encode_footer(&blocks, sum));
        }
    }
    bytes
}

/// A peer sends a segment or runs for a log that is filled beside the one in use.
fn from_a_peer(input: &mut Input<'_>) {
    let disk = FaultyDisk::new();
    let Some(log) = open(&disk) else { return };
    log.append(run(1)).expect("memory takes it");
    let whole = made_up(input);
    let is_run_first = input.u8() & 1 == 1;
    let mut field = |honest: u64| {
        if input.u8() & 0xF0 == 0xF0 {
            input.odd_number()
        } else {
            honest
        }
    };
    let told = SealedSegment {
        first_offset: field(0),
        next_offset: field(2),
        last_index: field(2),
        bytes: field(whole.len() as u64),
        crc32c: crc32c::crc32c(&whole),
    };
    let (begin, index) = (field(told.first_offset), field(0));
    let run = EventRun {
        index: field(1),
        term: 1,
        time_ms: field(1),
        first_offset: field(begin),
        count: field(1) as u32,
        records: Bytes::from_static(b"run"),
    };
    let _ = log.install_segment(&whole, &told);
    let mut parts = whole.chunks(1 << 10).map(Bytes::copy_from_slice);
    let mut next_part = || Ok(parts.next().unwrap_or_default());
    let _ = log.stage(begin, index).and_then(|mut staged| {
        if is_run_first {
            staged.append(run)?;
            staged.add_segment(&told, &mut next_part)?;
        } else {
            staged.add_segment(&told, &mut next_part)?;
            staged.append(run)?;
        }
        staged.commit()
    });
    lives_on(&disk);
}

/// Seeds of [`segment_open`].
pub fn segment_open_seeds() -> Vec<Vec<u8>> {
    let (_, block) = encode_block(
        &[EventRun {
            records: Bytes::from_static(b"abc"),
            ..run(1)
        }],
        0,
    );
    let flip = |place: u8, at: u32, value: u8| {
        let at = at.to_be_bytes();
        vec![1, place, at[1], at[2], at[3], value]
    };
    vec![
        [&[0], &block[..]].concat(),
        vec![1],
        flip(0, 30, 0x40),
        flip(1, 30_000, 0),
        flip(2, 60_000, 1),
        vec![2, 2, 1, 3, b'a', b'b', b'c', 0, 0, 1, 0, 1],
        vec![2, 2, 0, 1, b'a', 0, 2, b'b', b'c', 2, 1, 0xFF, 0, 3],
        vec![2, 1, 0, 0xF1, b'a', 5, 0xFF, 1, 1],
        vec![3, 1, 0, 1, b'a', 1, 0, 0, 0, 0, 0, 0, 0, 0],
        vec![3, 1, 0, 1, b'a', 1, 0xF0, 0xFF, 0, 0, 0, 0xF0, 0xFE],
    ]
}
