//! The event log against power cuts, damage and peers.

use bytes::Bytes;
use dunlin_model::id::{GroupId, ReplicaId};
use proptest::prelude::*;

use super::*;
use crate::disk::faulty::{FaultyDisk, Operation, PowerCut};

fn id(replica: u64) -> GroupReplica {
    GroupReplica {
        group: GroupId(1),
        replica: ReplicaId(replica),
    }
}

const SMALL_SEGMENT_BYTES: u64 = 100 << 10;

fn open(disk: &FaultyDisk, replica: u64) -> SegmentLog {
    SegmentLog::open_with(Arc::new(disk.clone()), id(replica), SMALL_SEGMENT_BYTES).unwrap()
}

/// Records that lz4 cannot shorten much, so that a few runs fill a block.
fn records(index: u64, length: usize) -> Bytes {
    let mut state = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state as u8
        })
        .collect()
}

/// Run number `index`: two events each, from offset 2 × (index − 1), ten milliseconds apart.
fn run(index: u64) -> EventRun {
    EventRun {
        index,
        term: 1,
        time_ms: 1000 + index * 10,
        first_offset: (index - 1) * 2,
        count: 2,
        records: records(index, 20 << 10),
    }
}

fn feed(log: &SegmentLog, indexes: std::ops::RangeInclusive<u64>) {
    for index in indexes {
        log.append(run(index)).unwrap();
    }
}

fn read_all(log: &SegmentLog) -> Vec<EventRun> {
    let (mut from, end) = log.range();
    let mut all = Vec::new();
    while from < end {
        let page = log.read(from, 50 << 10).unwrap();
        from = page.last().expect("there is more").next_offset();
        all.extend(page);
    }
    all
}

fn indexes(log: &SegmentLog) -> Vec<u64> {
    read_all(log).iter().map(|run| run.index).collect()
}

#[test]
fn runs_are_read_by_offset_and_time_from_blocks_and_memory() {
    let disk = FaultyDisk::new();
    let log = open(&disk, 1);
    assert_eq!((log.range(), log.applied_index()), ((0, 0), 0));
    assert_eq!(log.read(0, 1).unwrap(), vec![]);
    feed(&log, 1..=22);
    feed(&log, 3..=5);
    assert_eq!(
        read_all(&log),
        (1..=22).map(run).collect::<Vec<_>>(),
        "fed again is skipped"
    );
    assert_eq!(log.range(), (0, 44));
    assert_eq!(log.applied_index(), 22);
    assert_eq!(
        log.read(7, 1).unwrap(),
        vec![run(4)],
        "the run that holds the offset, one at least"
    );
    assert_eq!(
        log.read(42, 1 << 20).unwrap(),
        vec![run(22)],
        "the open block is read, too"
    );
    assert_eq!(log.read(44, 1).unwrap(), vec![]);
    for (time, offset) in [(0, 0), (1010, 0), (1011, 2), (1050, 8), (1220, 42), (1221, 44)] {
        assert_eq!(log.offset_at(time).unwrap(), offset, "{time}");
    }
}

#[test]
fn what_a_failed_sync_has_left_is_not_taken_for_durable_when_the_replica_starts_again() {
    type Sync = fn(&SegmentLog) -> Result<(), StoreError>;
    let syncs: [Sync; 2] = [|log| log.checkpoint(8, false).map(drop), |log| log.seal()];
    for (sync, is_for_room) in syncs.into_iter().flat_map(|sync| [(sync, false), (sync, true)]) {
        let disk = FaultyDisk::new();
        // Two blocks fit, so that the second is not synced before it is asked for.
        let open = |disk: &FaultyDisk| SegmentLog::open_with(Arc::new(disk.clone()), id(1), 1 << 20).unwrap();
        let log = open(&disk);
        feed(&log, 1..=4);
        assert_eq!(log.checkpoint(4, false).unwrap(), 4);
        feed(&log, 5..=8);
        match is_for_room {
            true => disk.fail_for_room(Operation::Sync),
            false => disk.fail(Operation::Sync, 0, false),
        }
        assert!(sync(&log).is_err());
        assert!(sync(&log).is_err(), "never retried, though there is room again");
        // In the same process, or in the next: what was not synced reads as written.
        let log = open(&disk);
        feed(&log, log.applied_index() + 1..=8);
        sync(&log).unwrap();
        assert_eq!(
            log.checkpoint(8, false).unwrap(),
            8,
            "the journal lets go of all eight"
        );
        let disk = disk.power_cut(PowerCut::LoseAll);
        assert_eq!(indexes(&open(&disk)), (1..=8).collect::<Vec<_>>());
    }
}

#[test]
fn the_name_of_a_segment_is_durable_before_its_events_are() {
    let disk = FaultyDisk::new();
    let log = open(&disk, 1);
    feed(&log, 1..=3);
    disk.fail(Operation::SyncDir, 0, false);
    assert!(log.append(run(4)).is_err(), "the fourth fills a block");
    let log = open(&disk, 1);
    feed(&log, log.applied_index() + 1..=4);
    assert_eq!(log.checkpoint(4, false).unwrap(), 4);
    let disk = disk.power_cut(PowerCut::LoseAll);
    assert_eq!(indexes(&open(&disk, 1)), [1, 2, 3, 4]);
}

#[test]
fn a_checkpoint_survives_and_the_rest_is_fed_again() {
    let disk = FaultyDisk::new();
    let log = open(&disk, 1);
    feed(&log, 1..=10);
    let needed = log.checkpoint(10, false).unwrap();
    assert_eq!(
        needed, 8,
        "four runs fill a block; the open block still needs the journal"
    );
    let disk = disk.power_cut(PowerCut::LoseAll);
    let log = open(&disk, 1);
    assert_eq!(log.applied_index(), 8);
    feed(&log, 5..=10);
    assert_eq!(read_all(&log), (1..=10).map(run).collect::<Vec<_>>());
    log.seal().unwrap();
    assert_eq!(log.checkpoint(11, false).unwrap(), 11, "nothing is open");
}

fn parked_file(disk: &FaultyDisk) -> Option<String> {
    let mut files = disk.files().into_iter();
    files.find(|path| path.ends_with("-open.blk"))
}

#[test]
fn a_parked_block_needs_no_journal_and_goes_once_it_is_in_a_segment() {
    let disk = FaultyDisk::new();
    let log = open(&disk, 1);
    feed(&log, 1..=10);
    assert_eq!(
        log.checkpoint(12, true).unwrap(),
        12,
        "entries 11 and 12 have no events"
    );
    assert_eq!(log.checkpoint(12, false).unwrap(), 12, "it stays");
    let disk = disk.power_cut(PowerCut::LoseAll);
    let log = open(&disk, 1);
    assert_eq!(log.applied_index(), 10, "nothing need be fed again");
    assert_eq!(read_all(&log), (1..=10).map(run).collect::<Vec<_>>());
    feed(&log, 11..=12);
    assert_eq!(
        log.checkpoint(12, false).unwrap(),
        12,
        "the fourth run has closed the block"
    );
    assert_eq!(parked_file(&disk), None);
    let log = open(&disk.power_cut(PowerCut::LoseAll), 1);
    assert_eq!(read_all(&log), (1..=12).map(run).collect::<Vec<_>>());
}

#[test]
fn a_block_that_was_closed_after_it_was_parked_is_read_once() {
    let disk = FaultyDisk::new();
    let log = open(&disk, 1);
    feed(&log, 1..=2);
    log.checkpoint(2, true).unwrap();
    feed(&log, 3..=3);
    assert_eq!(
        log.checkpoint(3, false).unwrap(),
        2,
        "what came since is in memory only"
    );
    feed(&log, 4..=4);
    log.seal().unwrap();
    assert!(parked_file(&disk).is_some(), "it goes with a checkpoint");
    let disk = disk.power_cut(PowerCut::LoseAll);
    let log = open(&disk, 1);
    assert_eq!(read_all(&log), (1..=4).map(run).collect::<Vec<_>>());
    assert_eq!(parked_file(&disk), None, "or with a start");
}

#[test]
fn a_spoiled_parked_block_is_damage_and_never_a_shorter_log() {
    let disk = FaultyDisk::new();
    let log = open(&disk, 1);
    feed(&log, 1..=2);
    log.checkpoint(2, true).unwrap();
    let path = parked_file(&disk).unwrap();
    disk.flip_bit(&path, 8 * 1000);
    let opened = SegmentLog::open_with(Arc::new(disk.clone()), id(1), SMALL_SEGMENT_BYTES);
    assert!(matches!(opened, Err(StoreError::Corrupt { .. })));
}

#[test]
fn sealed_segments_are_the_same_bytes_whatever_happened_between() {
    let (first, second) = (FaultyDisk::new(), FaultyDisk::new());
    let smooth = open(&first, 1);
    feed(&smooth, 1..=30);
    smooth.seal().unwrap();
    feed(&smooth, 31..=40);
    smooth.seal().unwrap();

    let mut disk = second;
    let mut log = open(&disk, 2);
    for index in 1..=40 {
        log.append(run(index)).unwrap();
        if index == 30 || index == 40 {
            log.seal().unwrap();
            log.seal().unwrap();
        }
        if index % 7 == 0 {
            let needed = log.checkpoint(index, index % 2 == 0).unwrap();
            disk = disk.power_cut(PowerCut::KeepSome { seed: index });
            log = open(&disk, 2);
            assert!(log.applied_index() >= needed);
            feed(&log, log.applied_index() + 1..=index);
        }
    }
    assert_eq!(log.sealed_segments(), smooth.sealed_segments());
    assert!(log.sealed_segments().len() >= 4);
    for segment in smooth.sealed_segments() {
        let length = segment.bytes as usize;
        let bytes = smooth.read_segment(segment.first_offset, 0, length).unwrap();
        assert_eq!(bytes, log.read_segment(segment.first_offset, 0, length).unwrap());
        assert_eq!(crc32c::crc32c(&bytes), segment.crc32c);
        smooth.verify_segment(segment.first_offset).unwrap();
    }
}

fn whole(log: &SegmentLog, segment: &SealedSegment) -> Vec<u8> {
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < segment.bytes {
        bytes.extend_from_slice(
            &log.read_segment(segment.first_offset, bytes.len() as u64, 10_000)
                .unwrap(),
        );
    }
    bytes
}

#[test]
fn two_lost_segments_in_a_row_are_mended_one_after_the_other() {
    let (disk, peer_disk) = (FaultyDisk::new(), FaultyDisk::new());
    let (log, peer) = (open(&disk, 1), open(&peer_disk, 1));
    feed(&log, 1..=40);
    feed(&peer, 1..=40);
    log.checkpoint(40, false).unwrap();
    let lost = peer.sealed_segments()[1..3].to_vec();
    let disk = disk.power_cut(PowerCut::LoseAll);
    let folder = SegmentLog::folder(id(1));
    for segment in &lost {
        let name = segment_name(&Start::default(), segment.first_offset);
        Disk::remove(&disk, &format!("{folder}/{name}")).unwrap();
    }
    disk.sync_dir(&folder).unwrap();
    let log = open(&disk, 1);
    for segment in &lost {
        assert_eq!(log.damaged_segments(), [segment.first_offset]);
        log.install_segment(&whole(&peer, segment), segment).unwrap();
    }
    assert_eq!(log.damaged_segments(), [0; 0]);
    feed(&log, log.applied_index() + 1..=40);
    assert_eq!(indexes(&log), (1..=40).collect::<Vec<_>>());
}

#[test]
fn a_damaged_segment_is_reported_and_repaired_from_a_peer() {
    let (disk, peer_disk) = (FaultyDisk::new(), FaultyDisk::new());
    let (log, peer) = (open(&disk, 1), open(&peer_disk, 1));
    feed(&log, 1..=40);
    feed(&peer, 1..=40);
    log.checkpoint(40, false).unwrap();
    let segments = peer.sealed_segments();
    assert!(segments.len() >= 3);
    let name = format!(
        "{}/{}",
        SegmentLog::folder(id(1)),
        segment_name(&Start::default(), segments[1].first_offset)
    );
    let middle = segments[1].bytes * 8 / 2;
    // A block, the footer, and a file that is gone.
    for damage in 0..3 {
        let disk = disk.power_cut(PowerCut::LoseAll);
        match damage {
            0 => disk.flip_bit(&name, middle),
            1 => disk.flip_bit(&name, segments[1].bytes * 8 - 300),
            _ => {
                Disk::remove(&disk, &name).unwrap();
                disk.sync_dir(&SegmentLog::folder(id(1))).unwrap();
            }
        }
        let log = open(&disk, 1);
        if damage == 0 {
            assert!(matches!(
                log.verify_segment(segments[1].first_offset),
                Err(StoreError::Corrupt { .. })
            ));
        }
        assert_eq!(
            log.damaged_segments(),
            vec![segments[1].first_offset],
            "damage {damage}"
        );
        log.read(segments[0].first_offset, 1).unwrap();
        assert_eq!(
            log.read(segments[2].first_offset, 1).unwrap()[0].first_offset,
            segments[2].first_offset
        );
        if damage != 1 {
            let inside = (segments[1].first_offset..segments[1].next_offset).step_by(2);
            let refused = inside.filter(|from| matches!(log.read(*from, 1), Err(StoreError::Corrupt { .. })));
            assert!(refused.count() > 0, "damage {damage}");
        }
        let good = whole(&peer, &segments[1]);
        let mut spoiled = good.clone();
        spoiled[good.len() / 2] ^= 1;
        assert!(log.install_segment(&spoiled, &segments[1]).is_err());
        assert!(log.install_segment(&good, &segments[0]).is_err());
        log.install_segment(&good, &segments[1]).unwrap();
        let log = open(&disk.power_cut(PowerCut::LoseAll), 1);
        assert_eq!(log.damaged_segments(), Vec::<u64>::new());
        log.verify_segment(segments[1].first_offset).unwrap();
        let read = read_all(&log);
        assert_eq!(read, (1..=read.len() as u64).map(run).collect::<Vec<_>>());
    }
}

/// Fills `log` with what `peer` has: sealed segments as they are, the rest as runs.
fn fill(log: &SegmentLog, peer: &SegmentLog, spoil: Option<usize>) -> Result<(), StoreError> {
    let before = peer.lock().start.index;
    let mut staged = log.stage(peer.range().0, before)?;
    let mut parts = 0;
    for segment in peer.sealed_segments() {
        let mut at = 0;
        staged.add_segment(&segment, &mut || {
            let part = peer.read_segment(segment.first_offset, at, 10_000)?;
            at += part.len() as u64;
            parts += 1;
            let mut part = part.to_vec();
            if spoil == Some(parts) {
                let middle = part.len() / 2;
                part[middle] ^= 4;
            }
            Ok(part.into())
        })?;
    }
    let sealed = peer.sealed_segments().last().map_or(0, |last| last.last_index);
    for run in read_all(peer).into_iter().filter(|run| run.index > sealed) {
        staged.append(run)?;
    }
    staged.commit()
}

fn full_peer() -> SegmentLog {
    let peer = open(&FaultyDisk::new(), 1);
    // The last segment is open, and so is the last block.
    feed(&peer, 1..=42);
    peer.trim(10).unwrap();
    assert!(peer.sealed_segments().len() > 1);
    peer
}

#[test]
fn a_log_that_was_filled_from_a_peer_has_the_same_segments() {
    let peer = full_peer();
    let disk = FaultyDisk::new();
    let log = open(&disk, 2);
    feed(&log, 1..=6);
    fill(&log, &peer, None).unwrap();
    assert_eq!(log.sealed_segments(), peer.sealed_segments());
    assert_eq!((log.range(), log.applied_index()), (peer.range(), 42));
    let log = open(&disk.power_cut(PowerCut::LoseAll), 2);
    assert_eq!(log.sealed_segments(), peer.sealed_segments());
    assert_eq!((log.range(), log.applied_index()), (peer.range(), 42));
    feed(&log, 43..=60);
    feed(&peer, 43..=60);
    assert_eq!(read_all(&log), read_all(&peer));
    assert!(
        log.sealed_segments()
            .last()
            .is_some_and(|last| last.last_index > 42)
    );
    assert_eq!(
        log.sealed_segments(),
        peer.sealed_segments(),
        "where it was filled as well"
    );
}

#[test]
fn a_crash_while_a_log_is_filled_leaves_the_old_one_or_the_new_one() {
    let peer = full_peer();
    let new = read_all(&peer);
    let old: Vec<EventRun> = (1..=6).map(run).collect();
    for operation in [Operation::Write, Operation::Sync] {
        let mut kept = [0, 0];
        for after in 0.. {
            let disk = FaultyDisk::new();
            let log = open(&disk, 2);
            feed(&log, 1..=6);
            log.seal().unwrap();
            disk.fail(operation, after, true);
            let filled = fill(&log, &peer, None);
            let cut = PowerCut::KeepSome { seed: after };
            let log = open(&disk.power_cut(cut), 2);
            let found = read_all(&log);
            if filled.is_ok() {
                assert_eq!(found, new);
                break;
            }
            assert!(found == old || found == new, "after {after}");
            kept[usize::from(found == new)] += 1;
            // Whatever is there, it can be filled again.
            fill(&log, &peer, None).unwrap();
            assert_eq!(read_all(&log), new);
        }
        assert!(kept[0] > 3, "{kept:?}");
    }
}

#[test]
fn a_peer_that_sends_something_else_changes_nothing() {
    let peer = full_peer();
    let disk = FaultyDisk::new();
    let log = open(&disk, 2);
    feed(&log, 1..=6);
    for part in 1..8 {
        let refused = fill(&log, &peer, Some(part));
        assert!(matches!(refused, Err(StoreError::Corrupt { .. })), "{refused:?}");
        assert_eq!(read_all(&log), (1..=6).map(run).collect::<Vec<_>>());
    }
    let mut staged = log.stage(0, 0).unwrap();
    for wrong in [
        run(2),
        EventRun { count: 0, ..run(1) },
        EventRun { index: 0, ..run(1) },
    ] {
        assert!(matches!(staged.append(wrong), Err(StoreError::Corrupt { .. })));
    }
    drop(staged);
    let mut names = disk.list(&SegmentLog::folder(id(2))).unwrap();
    names.retain(|name| !name.starts_with("00000000-"));
    assert_eq!(names, Vec::<String>::new(), "an attempt leaves no file");
    feed(&log, 7..=8);
}

#[test]
fn trim_keeps_the_rest_also_when_all_is_gone() {
    let disk = FaultyDisk::new();
    let log = open(&disk, 1);
    feed(&log, 1..=20);
    log.seal().unwrap();
    let sealed = log.sealed_segments();
    log.trim(sealed[0].next_offset - 1).unwrap();
    assert_eq!(log.range().0, 0, "a segment goes only when all of it is below");
    log.trim(sealed[0].next_offset).unwrap();
    assert_eq!(log.range().0, sealed[0].next_offset);
    assert_eq!(log.read(0, 1).unwrap()[0].first_offset, sealed[0].next_offset);
    log.trim(u64::MAX).unwrap();
    assert_eq!((log.range(), log.applied_index()), ((40, 40), 20));
    let log = open(&disk.power_cut(PowerCut::LoseAll), 1);
    assert_eq!((log.range(), log.applied_index()), ((40, 40), 20));
    feed(&log, 21..=22);
    assert_eq!(read_all(&log), vec![run(21), run(22)]);
}

#[test]
fn a_full_disk_refuses_the_run_and_heals_but_a_failed_sync_does_not() {
    let disk = FaultyDisk::new();
    let log = open(&disk, 1);
    feed(&log, 1..=7);
    disk.set_capacity(Some(disk.used_bytes()));
    assert!(matches!(log.append(run(8)), Err(StoreError::Full(_))));
    assert_eq!((log.applied_index(), log.range()), (7, (0, 14)));
    disk.set_capacity(None);
    feed(&log, 8..=12);
    assert_eq!(read_all(&log), (1..=12).map(run).collect::<Vec<_>>());
    disk.fail(Operation::Sync, 0, false);
    assert!(matches!(log.checkpoint(12, false), Err(StoreError::Io { .. })));
    assert!(log.checkpoint(12, false).is_err(), "never retried");
    assert!(log.append(run(13)).is_err());
    assert_eq!(log.read(0, 1).unwrap(), vec![run(1)], "reads go on");
}

#[test]
fn the_log_of_a_replica_can_be_removed() {
    let disk = FaultyDisk::new();
    feed(&open(&disk, 1), 1..=8);
    feed(&open(&disk, 2), 1..=8);
    assert_eq!(SegmentLog::replicas(&disk).unwrap(), vec![id(1), id(2)]);
    SegmentLog::remove(&disk, id(1)).unwrap();
    SegmentLog::remove(&disk, id(1)).unwrap();
    assert_eq!(SegmentLog::replicas(&disk).unwrap(), vec![id(2)]);
}

/// Every third run with other, shorter records.
fn rewritten(index: u64) -> EventRun {
    let mut run = run(index);
    if index.is_multiple_of(3) {
        run.records = Bytes::from_static(b"other");
    }
    run
}

fn rewrite_all(log: &SegmentLog) -> Result<usize, StoreError> {
    let mut count = 0;
    for segment in log.sealed_segments() {
        let mut change = |run: &EventRun| {
            let new = rewritten(run.index).records;
            Ok((new != run.records).then_some(new))
        };
        count += usize::from(log.rewrite_segment(segment.first_offset, &mut change)?);
    }
    Ok(count)
}

#[test]
fn segments_that_are_written_again_are_alike_and_as_good_as_others() {
    let disks = [FaultyDisk::new(), FaultyDisk::new()];
    let logs = [open(&disks[0], 1), open(&disks[1], 2)];
    let mut segments = Vec::new();
    for log in &logs {
        feed(log, 1..=20);
        log.seal().unwrap();
        let before = log.sealed_segments();
        assert_eq!(rewrite_all(log).unwrap(), before.len());
        assert_eq!(rewrite_all(log).unwrap(), 0, "once is enough");
        assert_ne!(log.sealed_segments(), before);
        assert_eq!(read_all(log), (1..=20).map(rewritten).collect::<Vec<_>>());
        feed(log, 21..=22);
        segments.push(log.sealed_segments());
    }
    assert_eq!(segments[0], segments[1]);
    for segment in &segments[0] {
        logs[0].verify_segment(segment.first_offset).unwrap();
    }
    let log = open(&disks[0].power_cut(PowerCut::LoseAll), 1);
    assert_eq!(read_all(&log), (1..=20).map(rewritten).collect::<Vec<_>>());
    assert_eq!(log.damaged_segments(), [0; 0]);
    assert_eq!(log.sealed_segments(), segments[0]);
    assert_eq!(
        log.offset_at(1000 + 100).unwrap(),
        18,
        "times are where they were"
    );
}

#[test]
fn a_segment_is_the_old_or_the_new_one_wherever_the_power_is_cut() {
    let mut seen = [0; 2];
    let operations = [Operation::Write, Operation::Sync];
    let cuts = [None, Some(1), Some(2), Some(3)];
    for (at, operation, seed) in (0..8).flat_map(|at| {
        operations
            .map(|operation| cuts.map(|seed| (at, operation, seed)))
            .concat()
    }) {
        let disk = FaultyDisk::new();
        let log = open(&disk, 1);
        feed(&log, 1..=4);
        log.seal().unwrap();
        disk.fail(operation, at, false);
        let done = rewrite_all(&log);
        let cut = seed.map_or(PowerCut::LoseAll, |seed| PowerCut::KeepSome { seed });
        let disk = disk.power_cut(cut);
        let log = open(&disk, 1);
        let now = read_all(&log);
        let is_new = now == (1..=4).map(rewritten).collect::<Vec<_>>();
        assert!(
            is_new || now == (1..=4).map(run).collect::<Vec<_>>(),
            "{operation:?} {at}"
        );
        assert!(is_new || done.is_err(), "{operation:?} {at}");
        assert_eq!(log.damaged_segments(), [0; 0]);
        let names = disk.list(&SegmentLog::folder(id(1))).unwrap();
        assert!(names.iter().all(|name| !name.ends_with(".new")), "{names:?}");
        seen[usize::from(is_new)] += 1;
    }
    assert!(seen.iter().all(|count| *count > 0), "{seen:?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_power_cut_leaves_a_prefix_with_all_that_was_checkpointed(
        fed in 1u64..40,
        checkpoint_at in 0u64..40,
        parks: bool,
        seal_at in 0u64..40,
        seed: u64,
    ) {
        let disk = FaultyDisk::new();
        let log = open(&disk, 1);
        let mut needed = 0;
        for index in 1..=fed {
            log.append(run(index)).unwrap();
            if index == seal_at {
                log.seal().unwrap();
            }
            if index == checkpoint_at {
                needed = log.checkpoint(index, parks).unwrap();
                prop_assert!(!parks || needed == index);
            }
        }
        let log = open(&disk.power_cut(PowerCut::KeepSome { seed }), 1);
        let kept = log.applied_index();
        prop_assert!(kept >= needed, "{kept} of {needed}");
        prop_assert_eq!(read_all(&log), (1..=kept).map(run).collect::<Vec<_>>());
        prop_assert!(log.damaged_segments().is_empty());
        for index in 1..=fed {
            log.append(run(index)).unwrap();
        }
        prop_assert_eq!(read_all(&log), (1..=fed).map(run).collect::<Vec<_>>());
    }
}

#[test]
fn a_block_depends_on_its_runs_alone_and_not_on_the_blocks_before_it() {
    let text = |index: u64, bytes: usize| EventRun {
        records: format!("{{\"temperature\":{index}}}")
            .into_bytes()
            .repeat(bytes / 16)
            .into(),
        ..run(index)
    };
    // Below and above the length from which the compressor uses another table, and back.
    let blocks = [
        vec![text(1, 100)],
        vec![run(2), run(3)],
        vec![text(4, 90 << 10), run(5)],
        vec![run(6), run(7), run(8), run(9)],
        vec![text(10, 3 << 20)],
        vec![text(11, 2000)],
    ];
    for runs in &blocks {
        let (meta, block) = format::encode_block(runs, 0);
        let alone = std::thread::spawn({
            let runs = runs.clone();
            move || format::encode_block(&runs, 0)
        });
        assert_eq!(alone.join().unwrap(), (meta, block.clone()));
        assert_eq!(&format::decode_block(&block, &meta).unwrap(), runs);
        let plain =
            lz4_flex::block::decompress(&block[format::BLOCK_HEADER_BYTES..], meta.raw_bytes as usize);
        let again = lz4_flex::block::compress(&plain.unwrap());
        assert_eq!(
            again,
            block[format::BLOCK_HEADER_BYTES..],
            "as sealed segments of earlier versions have it"
        );
    }
}

#[test]
fn a_run_that_ends_beyond_all_offsets_is_refused_by_a_staged_log() {
    let log = open(&FaultyDisk::new(), 1);
    let mut staged = log.stage(u64::MAX, 0).unwrap();
    let last = EventRun {
        first_offset: u64::MAX,
        count: 1,
        ..run(1)
    };
    assert!(matches!(staged.append(last), Err(StoreError::Corrupt { .. })));
}
