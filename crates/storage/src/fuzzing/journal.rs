//! A journal's folder made of fuzzed bytes: it opens or refuses, and what it does not call damaged is whole.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, OnceLock, mpsc};

use bytes::Bytes;
use dunlin_model::id::{GroupId, GroupReplica, LogPosition, ReplicaId};

use super::{Image, Input, damage, disk_with, image_of};
use crate::disk::faulty::FaultyDisk;
use crate::journal::format::{
    BLOCK_BYTES, FlushHeader, Kind, RECORD_HEADER_BYTES, RecordHead, SegmentHeader, decode_record,
    encode_record,
};
use crate::journal::{
    Completion, Journal, JournalConfig, JournalError, LogEntry, LogState, ReplicaLog, SEGMENT_BYTES_MIN,
};

const FOLDER: &str = "journal";
/// Places that are damaged at the most.
const DAMAGES_MAX: usize = 16;
/// Records of a made-up segment at the most.
const RECORDS_MAX: usize = 64;

fn config() -> JournalConfig {
    JournalConfig {
        segment_bytes: SEGMENT_BYTES_MIN,
        segments_max: 8,
        queue_bytes_max: 1 << 20,
        hot_bytes_max: 4 << 10,
        ..JournalConfig::default()
    }
}

fn id(group: u32) -> GroupReplica {
    GroupReplica {
        group: GroupId(group),
        replica: ReplicaId(u64::from(group) + 100),
    }
}

fn at(term: u64, index: u64) -> LogPosition {
    LogPosition {
        term,
        leader: 1,
        index,
    }
}

fn open(disk: &FaultyDisk) -> Result<Journal, JournalError> {
    Journal::open(Arc::new(disk.clone()), config())
}

fn wait(call: impl FnOnce(Completion)) -> Result<(), JournalError> {
    let (sender, receiver) = mpsc::channel();
    call(Box::new(move |outcome| {
        let _ = sender.send(outcome);
    }));
    receiver.recv().expect("every completion is called")
}

/// What a replica's log holds.
type Content = (LogState, Vec<LogEntry>);

fn content(log: &ReplicaLog) -> Result<Content, JournalError> {
    let state = log.state();
    let from = state.purged.map_or(0, |purged| purged.index.saturating_add(1));
    Ok((state, log.read(from, u64::MAX, usize::MAX)?))
}

/// A journal as a node leaves it that is killed, with what was acknowledged before its final flush.
struct Sample {
    image: Image,
    acked: BTreeMap<GroupReplica, Content>,
    /// The final flush, which alone may be cut: file and bytes.
    last: (usize, Range<usize>),
}

fn sample() -> &'static Sample {
    static SAMPLE: OnceLock<Sample> = OnceLock::new();
    SAMPLE.get_or_init(|| {
        let disk = FaultyDisk::new();
        let journal = open(&disk).expect("an empty disk takes a journal");
        let append = |group: u32, entries: Range<u64>, bytes: usize| {
            let log = journal.replica(id(group));
            let entries = entries.map(|index| LogEntry {
                position: at(1, index),
                body: Bytes::from(vec![index as u8; bytes]),
            });
            wait(|done| log.append(entries.collect(), done)).expect("an append");
        };
        let vote = |group: u32, text: &'static str| {
            wait(|done| journal.replica(id(group)).save_vote(Bytes::from(text), done)).expect("a vote");
        };
        append(1, 0..5, 300);
        vote(1, "voted in term 1");
        append(3, 0..2, 10);
        for round in 0..6 {
            append(2, round * 4..round * 4 + 4, 4_000);
        }
        // In the middle of the journal, and nowhere else.
        append(4, 0..3, 100);
        vote(4, "voted in term 4");
        wait(|done| journal.replica(id(3)).remove(done)).expect("a removal");
        wait(|done| journal.replica(id(2)).truncate_after(Some(at(1, 20)), done)).expect("a cut");
        for round in 0..4 {
            append(1, 5 + round * 4..9 + round * 4, 4_000);
        }
        journal.replica(id(1)).purge(at(1, 2));
        journal.replica(id(2)).save_committed(at(1, 18));
        vote(2, "voted in term 2");
        let acked = journal
            .replicas()
            .into_iter()
            .map(|id| (id, content(&journal.replica(id)).expect("it is whole")))
            .collect();
        vote(9, "the final flush");
        let image = image_of(&disk, FOLDER, ".log");
        let last = final_flush(&image);
        Sample { image, acked, last }
    })
}

fn final_flush(image: &Image) -> (usize, Range<usize>) {
    let (place, (_, bytes)) = image.iter().enumerate().next_back().expect("a segment");
    let header = SegmentHeader::decode(bytes).expect("a header");
    let flush = |start: &usize| {
        let (head, body) = decode_record(&bytes[*start..], header.seed(), *start as u64)?;
        let flush = (head.kind == Kind::Flush).then(|| FlushHeader::decode(&bytes[*start..][body]))??;
        Some(*start..*start + flush.flush_bytes as usize)
    };
    let starts: Vec<usize> = (BLOCK_BYTES as usize..bytes.len())
        .step_by(BLOCK_BYTES as usize)
        .collect();
    (place, starts.iter().rev().find_map(flush).expect("a flush"))
}

/// A journal from fuzzed bytes. The first byte says how: raw bytes as a segment, damage to a good journal,
/// the same with checksums made right again, or records of any kind and order with right checksums.
pub fn journal_recovery(data: &[u8]) {
    let mut input = Input(data);
    match input.u8() % 4 {
        0 => {
            let path = format!("{FOLDER}/{:020}.log", 1);
            let disk = disk_with(FOLDER, &vec![(path, input.0.to_vec())]);
            lives_on(&disk, true);
        }
        1 => {
            let sample = sample();
            let mut image = sample.image.clone();
            let places = damage(&mut image, &mut input, DAMAGES_MAX);
            let (file, last) = &sample.last;
            let spared = places
                .iter()
                .all(|(place, range)| place != file || range.end <= last.start || last.end <= range.start);
            let cut = (image.iter().zip(&sample.image)).any(|(now, then)| now.1.len() < then.1.len());
            let disk = disk_with(FOLDER, &image);
            // A file that was cut is seen to be, wherever.
            if spared || cut {
                nothing_is_lost_silently(&disk, &sample.acked);
            }
            lives_on(&disk, false);
        }
        2 => {
            let mut image = sample().image.clone();
            damage(&mut image, &mut input, DAMAGES_MAX);
            image.iter_mut().for_each(|(_, bytes)| reseal(bytes));
            lives_on(&disk_with(FOLDER, &image), true);
        }
        _ => lives_on(&disk_with(FOLDER, &made_up(&mut input)), true),
    }
}

/// Everything that was acknowledged is there, or its replica is called damaged, or the journal refuses.
fn nothing_is_lost_silently(disk: &FaultyDisk, acked: &BTreeMap<GroupReplica, Content>) {
    let Ok(journal) = open(disk) else { return };
    let is_damaged_whole = journal.stats().damaged.len() == journal.replicas().len();
    for (id, (state, entries)) in acked {
        if !journal.replicas().contains(id) {
            // Its only records may have been in what does not read; then nobody may be called whole.
            assert!(is_damaged_whole, "{id} is forgotten");
            continue;
        }
        let log = journal.replica(*id);
        if log.state().damaged.is_some() {
            continue;
        }
        match content(&log) {
            Ok((found, read)) => {
                assert_eq!(
                    (found.vote, found.purged),
                    (state.vote.clone(), state.purged),
                    "{id}"
                );
                assert!(read == *entries, "{id} has other entries");
            }
            // Found on reading, and told.
            Err(_) => assert!(
                log.state().damaged.is_some(),
                "{id} does not read and is not called damaged"
            ),
        }
    }
}

/// If the journal opens, it goes on: it takes new entries, and finds the same when it is opened again. Records that
/// contradict each other, as no writer makes them, may be read in another way once some of them are let go; but
/// damage is never forgotten.
fn lives_on(disk: &FaultyDisk, may_contradict: bool) {
    let Ok(journal) = open(disk) else { return };
    let newcomer = journal.replica(id(77));
    if newcomer.state() == LogState::default() {
        let entry = LogEntry {
            position: at(9, 0),
            body: Bytes::from_static(b"goes on"),
        };
        match wait(|done| newcomer.append(vec![entry], done)) {
            // Damage holds segments that cannot be used again, until its replicas are removed.
            Ok(()) | Err(JournalError::Full(_)) => {}
            Err(error) => panic!("a journal that opened takes no entry: {error}"),
        }
    }
    let before = contents(&journal);
    journal.stop();
    drop(journal);
    let journal = open(disk).expect("a journal that was stopped in order opens");
    for (id, content) in before {
        let log = journal.replica(id);
        match content {
            Some(_) if may_contradict => {}
            Some(content) => assert_eq!(self::content(&log).ok(), Some(content), "{id}"),
            None => assert!(
                self::content(&log).is_err(),
                "{id} was damaged and is whole after a restart"
            ),
        }
    }
}

fn contents(journal: &Journal) -> Vec<(GroupReplica, Option<Content>)> {
    let of = |id| (id, content(&journal.replica(id)).ok());
    journal.replicas().into_iter().map(of).collect()
}

/// Makes checksums right, as far as lengths lead from one record to the next.
fn reseal(bytes: &mut [u8]) {
    let Ok(header) = SegmentHeader::decode(&bytes[..bytes.len().min(BLOCK_BYTES as usize)]) else {
        return;
    };
    let mut at = BLOCK_BYTES as usize;
    while at + RECORD_HEADER_BYTES <= bytes.len() {
        let length = u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize;
        let end = at + RECORD_HEADER_BYTES + length;
        if bytes[at + 8] == 0 || end > bytes.len() {
            at = (at + 1).next_multiple_of(BLOCK_BYTES as usize);
            continue;
        }
        seal(&mut bytes[at..end], &header, at as u64);
        at = end;
    }
}

fn seal(record: &mut [u8], header: &SegmentHeader, at: u64) {
    let sum = crc32c::crc32c_append(header.seed(), &at.to_le_bytes());
    let sum = crc32c::crc32c_append(sum, &record[..4]);
    let sum = crc32c::crc32c_append(sum, &record[8..]);
    record[4..8].copy_from_slice(&sum.to_le_bytes());
}

/// Records of any kind, in any order, with right checksums, in up to three segments.
fn made_up(input: &mut Input<'_>) -> Image {
    let mut image = Vec::new();
    let count = 1 + input.u8() % 3;
    let (mut sequence, mut previous) = (1, (0, 0));
    for number in 1..=u64::from(count) {
        let header = SegmentHeader {
            number,
            signature: 7,
            segment_bytes: SEGMENT_BYTES_MIN,
        };
        let mut bytes = header.encode();
        for _ in 0..input.u8() % 4 {
            bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES as usize), 0);
            if bytes.len() as u64 >= SEGMENT_BYTES_MIN / 2 {
                break;
            }
            let start = bytes.len();
            put_flush(&mut bytes, &header, input, (sequence, previous));
            sequence += 1;
            previous = (number, bytes.len() as u64);
            assert!(start < bytes.len());
        }
        bytes.resize(SEGMENT_BYTES_MIN as usize, 0);
        image.push((format!("{FOLDER}/{number:020}.log"), bytes));
    }
    image
}

fn put_flush(
    bytes: &mut Vec<u8>,
    segment: &SegmentHeader,
    input: &mut Input<'_>,
    (sequence, previous): (u64, (u64, u64)),
) {
    let start = bytes.len();
    let mut flush = FlushHeader {
        sequence,
        previous_segment: previous.0,
        previous_end: previous.1,
        oldest_segment: 1,
        flush_bytes: 0,
        replicas: input.u8().is_multiple_of(2).then(|| vec![id(1), id(2)]),
    };
    let lies = input.u8();
    for (bit, field) in [
        (1, &mut flush.sequence),
        (2, &mut flush.previous_segment),
        (4, &mut flush.previous_end),
        (8, &mut flush.oldest_segment),
    ] {
        if lies & 0xF0 == 0xF0 && lies & bit != 0 {
            *field = input.odd_number();
        }
    }
    let head = |kind, id, position| RecordHead { kind, id, position };
    let offset = start as u64;
    let no = (
        crate::journal::format::NO_REPLICA,
        crate::journal::format::NO_POSITION,
    );
    let flush_head = head(Kind::Flush, no.0, no.1);
    encode_record(bytes, segment.seed(), offset, &flush_head, &flush.encode());
    for _ in 0..usize::from(input.u8()) % RECORDS_MAX {
        let kinds = [
            Kind::Entry,
            Kind::Vote,
            Kind::Committed,
            Kind::Purge,
            Kind::Truncate,
            Kind::Remove,
            Kind::CleanStop,
            Kind::Survey,
            Kind::Damaged,
        ];
        let kind = kinds[usize::from(input.u8()) % kinds.len()];
        let position = at(input.odd_number(), input.odd_number());
        let record_id = id(u32::from(input.u8() % 3));
        let length = usize::from(input.u8() % 32);
        let body = input.take(length);
        let record = head(kind, record_id, position);
        let offset = bytes.len() as u64;
        encode_record(bytes, segment.seed(), offset, &record, body);
    }
    flush.flush_bytes = if lies == 0xF0 {
        input.odd_number()
    } else {
        (bytes.len() - start) as u64
    };
    let mut first = Vec::new();
    encode_record(&mut first, segment.seed(), offset, &flush_head, &flush.encode());
    bytes[start..start + first.len()].copy_from_slice(&first);
}

/// Seeds of [`journal_recovery`].
pub fn journal_recovery_seeds() -> Vec<Vec<u8>> {
    let header = SegmentHeader {
        number: 1,
        signature: 7,
        segment_bytes: SEGMENT_BYTES_MIN,
    };
    let mut raw = vec![0];
    raw.extend_from_slice(&header.encode());
    let flip = |mode: u8, place: u8, at: u32, value: u8| {
        let at = at.to_be_bytes();
        vec![mode, place, at[1], at[2], at[3], value]
    };
    let mut made = vec![3, 1, 2];
    for (kind, index) in [(0, 0), (0, 1), (1, 0), (3, 0), (4, 1), (2, 1)] {
        made.extend_from_slice(&[kind, 1, index, 1, 4, b'b', b'o', b'd', b'y']);
    }
    vec![
        raw,
        vec![1],
        flip(1, 0, 5_000, 0x10),
        flip(1, 1, 20_000, 0),
        flip(1, 2, 4_100, 0x80),
        flip(1, 0, 100, 0),
        [flip(1, 0, 4_105, 1), flip(0, 1, 2_570, 1)[1..].to_vec()].concat(),
        flip(1, 3, 4_105, 1),
        flip(2, 0, 4_096 + 9, 0x01),
        flip(2, 1, 4_096 + 45, 0xFF),
        made,
        vec![3, 2, 3, 0, 0xF1, 0xFF, 0, 2, 0, 1, 0, 1, 0],
    ]
}
