//! Opening the journal: what the last life left, what may be cut, and what is damage.
//!
//! Flushes are written strictly one after the other, so whatever a later flush follows was durable:
//! only the last flush can be torn. Anything else that does not read is damage. It is never cut; that the
//! replicas it may concern are damaged is written behind it, and until that is on disk no segment is let go.
//! When it cannot be told which replicas a lost flush held, all are damaged, and a survey is written as well:
//! replicas that are made from then on are not at the next start. This room never decides what the caller
//! does about it.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;

use bytes::Bytes;
use dunlin_model::alarm::Alarm;
use dunlin_model::id::{GroupReplica, LogPosition};
use dunlin_model::point::Point;

use super::files::{FOLDER, Files, Segment, segment_path};
use super::flusher::Flusher;
use super::format::{
    BLOCK_BYTES, FlushHeader, HeaderFault, Kind, NUMBER_MAX, RecordHead, SegmentHeader, align_up,
    decode_record,
};
use super::log_state::{Core, Replica};
use super::{JournalConfig, JournalError};
use crate::disk::{Disk, read_exact_at};

fn refused(action: &'static str) -> impl FnOnce(io::Error) -> JournalError {
    move |error| JournalError::Open {
        action,
        reason: error.to_string(),
    }
}

/// Reads the folder and returns what the journal starts from.
pub(super) fn recover(disk: Arc<dyn Disk>, config: JournalConfig) -> Result<(Core, Flusher), JournalError> {
    disk.create_dir_all(FOLDER)
        .map_err(refused("make journal folder"))?;
    // A segment is taken by its name, which a process that ended just then may not have made durable.
    disk.sync_dir(FOLDER).map_err(refused("sync journal folder"))?;
    let found = find_segments(&*disk)?;
    let first = oldest_needed(&found)?;
    let mut replay = Replay::new(first);
    for number in first..=found.keys().next_back().copied().unwrap_or(0) {
        match found.get(&number).and_then(Option::as_ref) {
            Some(segment) => {
                let bytes = read_whole(segment)?;
                // Segments are made at full length, so no crash leaves a shorter one.
                if (bytes.len() as u64) < segment.header.segment_bytes {
                    replay.damage_all(format!("segment {number} is cut at {}", bytes.len()));
                }
                for flush in scan(&bytes, segment) {
                    replay.take(flush);
                }
            }
            None => replay.lose_segment(number),
        }
    }
    let end = replay.finish();

    let names = found
        .keys()
        .map(|number| (*number, segment_path(*number)))
        .collect();
    let mut files = Files::new(disk, &config, names).map_err(refused("list journal segments"))?;
    // Segments below the oldest were free already when the last life ended. Those above are kept by
    // the replicas that a loss has damaged.
    files
        .recycle_below(first.min(end.oldest))
        .map_err(refused("recycle journal segment"))?;
    let mut segments: BTreeMap<u64, Segment> = found
        .into_iter()
        .filter_map(|(number, segment)| Some((number, segment?)))
        .collect();
    segments = segments.split_off(&first);

    let newest = files.newest();
    let (current, offset) = match newest.and_then(|number| segments.get(&number)) {
        Some(segment) => {
            let offset = if end.end.0 == segment.header.number {
                end.end.1
            } else {
                BLOCK_BYTES
            };
            if !end.clean_stop {
                clear_tail(segment, offset)?;
            }
            (segment.clone(), align_up(offset))
        }
        None => {
            if !files.ensure_spares(1).map_err(refused("make journal segment"))? {
                return Err(JournalError::Open {
                    action: "make journal segment",
                    reason: "the disk has no room".to_owned(),
                });
            }
            let number = newest.map_or(1, |newest| newest + 1);
            (
                files.take(number).map_err(refused("take journal segment"))?,
                BLOCK_BYTES,
            )
        }
    };
    // A process that was killed may have left its last flush in the page cache only; one whose sync failed has
    // left it there for good, as the kernel takes such pages for clean. What is reported from here on must be on
    // disk, so the flush is written again as it is, and then synced.
    if let Some(segment) = segments.get(&end.end.0) {
        write_again(segment, end.last_start, end.end.1)?;
    }
    // A reserve for votes. Without room for it appends are refused later, which is no reason not to start.
    files.ensure_spares(1).map_err(refused("make journal segment"))?;

    let number = current.header.number;
    segments.insert(number, current.clone());
    let mut core = Core::new(config, end.replicas, segments, end.oldest.min(number), number);
    core.stats.torn_bytes = end.torn_bytes;
    core.stats.clean_start = end.clean_stop;
    if end.clean_stop {
        Point::CleanStart.reach();
    }
    core.stats.segments_in_use = files.in_use();
    if !end.is_surveyed {
        core.survey();
    }
    for id in core.replicas.keys().copied().collect::<Vec<_>>() {
        core.mark_damage(id);
    }
    let flusher = Flusher {
        files,
        current,
        offset,
        sequence: end.sequence + 1,
        end: end.end,
        backlog: VecDeque::new(),
        buffer: Vec::new(),
        waits_for_room: false,
    };
    Ok((core, flusher))
}

/// Segment files by number; `None` where the header does not read.
fn find_segments(disk: &dyn Disk) -> Result<BTreeMap<u64, Option<Segment>>, JournalError> {
    let mut found = BTreeMap::new();
    for name in disk.list(FOLDER).map_err(refused("list journal segments"))? {
        let Some(number) = name
            .strip_suffix(".log")
            .and_then(|text| text.parse::<u64>().ok())
        else {
            continue;
        };
        let file = disk
            .open(&segment_path(number))
            .map_err(refused("open journal segment"))?;
        let mut block = vec![0; BLOCK_BYTES as usize];
        let read = file
            .read_at(&mut block, 0)
            .map_err(refused("read journal segment"))?;
        let segment = match SegmentHeader::decode(&block[..read]) {
            // Another number means that the file was renamed for a new use, but not durably; below
            // the oldest segment that is harmless, elsewhere the segment is lost.
            Ok(header) if header.number == number => Some(Segment {
                header,
                seed: header.seed(),
                file,
            }),
            Err(HeaderFault::Newer(version)) => {
                return Err(JournalError::Open {
                    action: "open journal segment",
                    reason: format!("format {version} is newer than this program"),
                });
            }
            Ok(_) | Err(HeaderFault::Unreadable) => None,
        };
        found.insert(number, segment);
    }
    Ok(found)
}

/// The oldest segment that the last readable flush needs.
fn oldest_needed(found: &BTreeMap<u64, Option<Segment>>) -> Result<u64, JournalError> {
    for segment in found.values().rev().flatten() {
        let bytes = read_whole(segment)?;
        if let Some(last) = scan(&bytes, segment).last() {
            return Ok(last.header.oldest_segment);
        }
    }
    Ok(found.keys().next().copied().unwrap_or(1))
}

fn read_whole(segment: &Segment) -> Result<Vec<u8>, JournalError> {
    let bytes = segment.file.len().map_err(refused("read journal segment"))?;
    let mut whole = vec![0; bytes.min(segment.header.segment_bytes) as usize];
    read_exact_at(&*segment.file, &mut whole, 0).map_err(refused("read journal segment"))?;
    Ok(whole)
}

/// Writes the flush from `start` to `end` once more, durably.
fn write_again(segment: &Segment, start: u64, end: u64) -> Result<(), JournalError> {
    let whole = read_whole(segment)?;
    // What is read now goes to disk for good.
    if scan_flush(&whole, segment, start).is_none_or(|flush| flush.valid_end != end) {
        return Err(JournalError::Open {
            action: "read journal segment",
            reason: "its last flush reads otherwise than before".to_owned(),
        });
    }
    let written = segment.file.write_at(&whole[start as usize..end as usize], start);
    written
        .and_then(|()| segment.file.sync_data())
        .map_err(refused("write journal segment again"))
}

/// Overwrites everything after `from` with zeros where it is not zero, durably: bytes of a torn
/// flush must not be taken for part of a later one.
fn clear_tail(segment: &Segment, from: u64) -> Result<(), JournalError> {
    let whole = read_whole(segment)?;
    let mut start = from as usize;
    let mut cleared = false;
    while start < whole.len() {
        let end = ((start + 1).next_multiple_of(BLOCK_BYTES as usize)).min(whole.len());
        if whole[start..end].iter().any(|byte| *byte != 0) {
            let zeros = vec![0; end - start];
            segment
                .file
                .write_at(&zeros, start as u64)
                .map_err(refused("clear torn journal tail"))?;
            cleared = true;
        }
        start = end;
    }
    if cleared {
        segment
            .file
            .sync_data()
            .map_err(refused("clear torn journal tail"))?;
    }
    Ok(())
}

/// A flush as it was found.
struct Flush {
    segment: u64,
    start: u64,
    header: FlushHeader,
    records: Vec<Record>,
    /// Offset after the last record that reads.
    valid_end: u64,
}

struct Record {
    head: RecordHead,
    offset: u64,
    end: u64,
    body_bytes: u32,
    /// Kept for votes and truncates only.
    body: Bytes,
}

impl Flush {
    fn claimed_end(&self) -> u64 {
        self.start + self.header.flush_bytes
    }

    fn is_whole(&self) -> bool {
        self.valid_end == self.claimed_end()
    }
}

/// All flushes of a segment whose headers read, in order.
fn scan(bytes: &[u8], segment: &Segment) -> Vec<Flush> {
    let mut flushes: Vec<Flush> = Vec::new();
    let mut offset = BLOCK_BYTES;
    while (offset as usize) < bytes.len() {
        let after = flushes.last().map_or(0, |flush| flush.header.sequence);
        match scan_flush(bytes, segment, offset) {
            Some(flush) if flush.header.sequence > after => {
                // After a record that does not read, the next flush may start anywhere.
                offset = align_up(flush.valid_end.max(flush.start + 1));
                flushes.push(flush);
            }
            _ => offset += BLOCK_BYTES,
        }
    }
    flushes
}

fn scan_flush(bytes: &[u8], segment: &Segment, start: u64) -> Option<Flush> {
    let number = segment.header.number;
    let (head, body) = decode_record(&bytes[start as usize..], segment.seed, start)?;
    if head.kind != Kind::Flush {
        return None;
    }
    let header = FlushHeader::decode(&bytes[start as usize..][body.clone()])?;
    let is_possible =
        header.sequence <= NUMBER_MAX && header.oldest_segment <= number && header.previous_segment <= number;
    if !is_possible {
        return None;
    }
    let claimed = usize::try_from(start.checked_add(header.flush_bytes)?).ok()?;
    let limit = claimed.min(bytes.len());
    let mut valid_end = start + body.end as u64;
    let mut records = Vec::new();
    while (valid_end as usize) < limit {
        let rest = &bytes[valid_end as usize..limit];
        let Some((head, body)) = decode_record(rest, segment.seed, valid_end) else {
            break;
        };
        if head.kind == Kind::Flush {
            // The flush before was cut here, and this one was written after it.
            break;
        }
        let keep = matches!(head.kind, Kind::Vote | Kind::Truncate);
        records.push(Record {
            head,
            offset: valid_end,
            end: valid_end + body.end as u64,
            body_bytes: body.len() as u32,
            body: if keep {
                Bytes::copy_from_slice(&rest[body.clone()])
            } else {
                Bytes::new()
            },
        });
        valid_end += body.end as u64;
    }
    Some(Flush {
        segment: number,
        start,
        header,
        records,
        valid_end,
    })
}

/// What the flushes add up to.
struct Replay {
    replicas: BTreeMap<GroupReplica, Replica>,
    incarnation: u64,
    /// The flush before the next one: applied only when it is known how far it was durable.
    held: Option<Flush>,
    /// The first damage that may concern any replica.
    all_damaged: Option<String>,
    oldest: u64,
}

struct End {
    replicas: BTreeMap<GroupReplica, Replica>,
    sequence: u64,
    end: (u64, u64),
    /// Where the last flush begins.
    last_start: u64,
    oldest: u64,
    torn_bytes: u64,
    clean_stop: bool,
    /// Whether every loss that may concern any replica stands before a survey.
    is_surveyed: bool,
}

impl Replay {
    fn new(first: u64) -> Replay {
        Replay {
            replicas: BTreeMap::new(),
            incarnation: 0,
            held: None,
            all_damaged: None,
            oldest: first,
        }
    }

    fn lose_segment(&mut self, number: u64) {
        self.damage_all(format!("segment {number} is missing or unreadable"));
    }

    fn damage_all(&mut self, reason: String) {
        Alarm::JournalDamaged.raise();
        tracing::error!(%reason, "journal is damaged");
        self.all_damaged.get_or_insert(reason);
    }

    fn take(&mut self, flush: Flush) {
        if let Some(held) = self.held.take() {
            let known = (flush.header.previous_segment, flush.header.previous_end);
            if flush.header.sequence != held.header.sequence + 1 || known.0 != held.segment {
                let reason = format!(
                    "flushes {}..{} do not read",
                    held.header.sequence + 1,
                    flush.header.sequence
                );
                // The held flush itself may be short as well.
                let claimed = held.claimed_end();
                self.apply(held, claimed);
                self.damage_all(reason);
            } else {
                self.apply(held, known.1);
            }
        } else if flush.header.previous_segment >= self.oldest {
            // The flush before it is needed as well, and is not there.
            let reason = format!("flushes before {} do not read", flush.header.sequence);
            self.damage_all(reason);
        }
        self.held = Some(flush);
    }

    /// Replays the records of `flush` up to `durable_end`, which is known to have been durable. What is lost of it
    /// comes behind what reads: a survey that still reads says nothing about that.
    fn apply(&mut self, flush: Flush, durable_end: u64) {
        for record in flush
            .records
            .into_iter()
            .take_while(|record| record.end <= durable_end)
        {
            self.replay(record, flush.segment);
        }
        if flush.valid_end >= durable_end {
            return;
        }
        let reason = format!(
            "flush {} does not read at {}",
            flush.header.sequence, flush.valid_end
        );
        match &flush.header.replicas {
            None => self.damage_all(reason),
            Some(named) => {
                for id in named {
                    Alarm::JournalDamaged.raise();
                    tracing::error!(replica = %id, %reason, "journal is damaged");
                    self.replica(*id).damage(reason.clone());
                }
            }
        }
    }

    fn replica(&mut self, id: GroupReplica) -> &mut Replica {
        let incarnation = &mut self.incarnation;
        self.replicas.entry(id).or_insert_with(|| {
            *incarnation += 1;
            Replica::new(*incarnation)
        })
    }

    fn replay(&mut self, record: Record, segment: u64) {
        let RecordHead { kind, id, position } = record.head;
        match kind {
            Kind::Flush | Kind::CleanStop => {}
            Kind::Survey => self.damage_those_known(),
            Kind::Remove => {
                self.replicas.remove(&id);
            }
            Kind::Entry => {
                self.replica(id)
                    .replay_entry(position, record.body_bytes, segment, record.offset);
            }
            Kind::Vote => self.replica(id).replay_vote(record.body, segment, record.offset),
            Kind::Damaged => self.replica(id).replay_damaged(&record.body, segment),
            Kind::Committed => self.replica(id).replay_committed(position, segment),
            Kind::Purge => self.replica(id).replay_purge(position, segment),
            Kind::Truncate => {
                let last: Option<LogPosition> = (record.body.first() == Some(&1)).then_some(position);
                self.replica(id).replay_truncate(last);
            }
        }
    }

    /// Whatever replica is known by now may be concerned by what was lost; those that come later are not.
    fn damage_those_known(&mut self) {
        if let Some(reason) = self.all_damaged.take() {
            for replica in self.replicas.values_mut() {
                replica.damage(reason.clone());
            }
        }
    }

    fn finish(mut self) -> End {
        let mut end = End {
            replicas: BTreeMap::new(),
            sequence: 0,
            end: (0, 0),
            last_start: 0,
            oldest: self.oldest,
            torn_bytes: 0,
            clean_stop: false,
            is_surveyed: true,
        };
        if let Some(last) = self.held.take() {
            end.sequence = last.header.sequence;
            end.end = (last.segment, last.valid_end);
            end.last_start = last.start;
            end.oldest = last.header.oldest_segment;
            end.torn_bytes = last.claimed_end().saturating_sub(last.valid_end);
            end.clean_stop = last.is_whole()
                && last
                    .records
                    .last()
                    .is_some_and(|record| record.head.kind == Kind::CleanStop);
            if end.torn_bytes > 0 {
                Point::TornTailCut.reach();
                tracing::warn!(bytes = end.torn_bytes, segment = last.segment, "cut a torn flush");
            }
            let valid_end = last.valid_end;
            self.apply(last, valid_end);
        }
        for replica in self.replicas.values_mut() {
            replica.finish_replay();
        }
        end.is_surveyed = self.all_damaged.is_none();
        self.damage_those_known();
        end.replicas = self.replicas;
        end
    }
}
