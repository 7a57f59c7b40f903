//! The journal against a disk that loses power, tears, refuses and lies.

mod damage;
mod model;
mod refusals;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use dunlin_model::id::{GroupId, GroupReplica, LogPosition, ReplicaId};

use super::format::{BLOCK_BYTES, FlushHeader, SegmentHeader, decode_record};
use super::*;
use crate::disk::faulty::{FaultyDisk, Operation, PowerCut};

fn id(group: u32) -> GroupReplica {
    GroupReplica {
        group: GroupId(group),
        replica: ReplicaId(u64::from(group) + 100),
    }
}

fn config() -> JournalConfig {
    JournalConfig {
        segment_bytes: SEGMENT_BYTES_MIN,
        segments_max: 6,
        queue_bytes_max: 1 << 20,
        hot_bytes_max: 8 << 10,
        ..JournalConfig::default()
    }
}

fn open(disk: &FaultyDisk) -> Journal {
    Journal::open(Arc::new(disk.clone()), config()).unwrap()
}

fn at(term: u64, index: u64) -> LogPosition {
    LogPosition {
        term,
        leader: 1,
        index,
    }
}

fn entry(term: u64, index: u64, body: impl Into<Bytes>) -> LogEntry {
    LogEntry {
        position: at(term, index),
        body: body.into(),
    }
}

/// Runs a call with a completion and returns what it was called with.
fn wait(call: impl FnOnce(Completion)) -> Result<(), JournalError> {
    let (sender, receiver) = mpsc::channel();
    call(Box::new(move |outcome| sender.send(outcome).unwrap()));
    receiver.recv().expect("every completion is called")
}

fn append(log: &ReplicaLog, entries: Vec<LogEntry>) -> Result<(), JournalError> {
    wait(|done| log.append(entries, done))
}

fn vote(log: &ReplicaLog, text: &str) -> Result<(), JournalError> {
    wait(|done| log.save_vote(Bytes::from(text.to_owned()), done))
}

fn indexes(log: &ReplicaLog) -> Vec<u64> {
    let from = log.state().purged.map_or(0, |purged| purged.index + 1);
    log.read(from, u64::MAX, usize::MAX)
        .unwrap()
        .iter()
        .map(|entry| entry.position.index)
        .collect()
}

fn reboot(journal: Journal, disk: &FaultyDisk, cut: PowerCut) -> (Journal, FaultyDisk) {
    let disk = disk.power_cut(cut);
    drop(journal);
    (open(&disk), disk)
}

#[test]
fn what_was_completed_survives_a_power_cut() {
    let disk = FaultyDisk::new();
    let journal = open(&disk);
    let log = journal.replica(id(1));
    append(&log, vec![entry(1, 0, "a"), entry(1, 1, "b"), entry(2, 2, "c")]).unwrap();
    vote(&log, "v1").unwrap();
    wait(|done| log.truncate_after(Some(at(1, 1)), done)).unwrap();
    append(&log, vec![entry(3, 2, "d")]).unwrap();
    log.save_committed(at(1, 1));
    log.purge(at(1, 0));
    append(&journal.replica(id(2)), vec![entry(1, 0, "other")]).unwrap();
    assert_eq!(*log.durable().borrow(), Some(2));

    let (journal, _) = reboot(journal, &disk, PowerCut::LoseAll);
    assert_eq!(journal.replicas(), vec![id(1), id(2)]);
    let log = journal.replica(id(1));
    let state = log.state();
    assert_eq!(
        state.purged,
        Some(at(1, 0)),
        "marks ride along with the flush of another replica"
    );
    assert_eq!(state.committed, Some(at(1, 1)));
    assert_eq!(state.last, Some(at(3, 2)));
    assert_eq!(state.vote.as_deref(), Some(&b"v1"[..]));
    assert_eq!(state.damaged, None);
    assert_eq!(
        log.read(1, 9, usize::MAX).unwrap(),
        vec![entry(1, 1, "b"), entry(3, 2, "d")]
    );
    assert_eq!(log.read(1, 9, 1).unwrap().len(), 1);
    assert!(matches!(
        log.read(0, 9, 1),
        Err(JournalError::Purged { from: 0, purged: 0 })
    ));
    assert_eq!(log.position_at(0), Some(at(1, 0)));
    assert_eq!(*log.durable().borrow(), Some(2));
}

#[test]
fn entries_are_readable_before_they_are_durable_and_callbacks_keep_their_order() {
    let disk = FaultyDisk::new();
    let journal = open(&disk);
    let log = journal.replica(id(1));
    append(&log, vec![entry(1, 0, "a")]).unwrap();
    let gate = disk.stall(Operation::Sync);
    let (all, receiver) = mpsc::channel();
    for index in 1..6 {
        let sender = all.clone();
        log.append(
            vec![entry(1, index, "b")],
            Box::new(move |outcome| sender.send((index, outcome)).unwrap()),
        );
        let voted = all.clone();
        log.save_vote(
            Bytes::from(index.to_string()),
            Box::new(move |outcome| voted.send((index + 100, outcome)).unwrap()),
        );
    }
    gate.wait_reached();
    assert_eq!(indexes(&log), vec![0, 1, 2, 3, 4, 5]);
    assert_eq!(*log.durable().borrow(), Some(0));
    assert!(
        receiver.try_recv().is_err(),
        "nothing is confirmed before the sync"
    );
    gate.open();
    let order: Vec<u64> = (0..10)
        .map(|_| {
            let (number, outcome) = receiver.recv().unwrap();
            outcome.unwrap();
            number
        })
        .collect();
    assert_eq!(order, vec![1, 101, 2, 102, 3, 103, 4, 104, 5, 105]);
    assert_eq!(*log.durable().borrow(), Some(5));
}

#[test]
fn a_queue_is_one_flush() {
    let disk = FaultyDisk::new();
    let journal = open(&disk);
    let log = journal.replica(id(1));
    append(&log, vec![entry(1, 0, "a")]).unwrap();
    let gate = disk.stall(Operation::Sync);
    log.append(vec![entry(1, 1, "b")], Box::new(|_| ()));
    gate.wait_reached();
    // The flusher stands at the gate with one flush (or a spare); all of these wait together.
    let (sender, receiver) = mpsc::channel();
    for index in 2..50 {
        let sender = sender.clone();
        log.append(
            vec![entry(1, index, "b")],
            Box::new(move |_| sender.send(()).unwrap()),
        );
    }
    let before = journal.stats().flushes;
    gate.open();
    for _ in 2..50 {
        receiver.recv().unwrap();
    }
    assert!(
        journal.stats().flushes <= before + 2,
        "48 appends take one flush after the one under way"
    );
}

#[test]
fn a_failed_sync_is_fatal_and_nothing_is_confirmed() {
    for operation in [Operation::Sync, Operation::Write] {
        let disk = FaultyDisk::new();
        let journal = open(&disk);
        let log = journal.replica(id(1));
        append(&log, vec![entry(1, 0, "a")]).unwrap();
        let told = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&told);
        journal.on_failure(Box::new(move |_| {
            counter.fetch_add(1, Ordering::SeqCst);
        }));
        disk.fail(operation, 0, false);
        let outcome = append(&log, vec![entry(1, 1, "b")]);
        assert!(matches!(outcome, Err(JournalError::Failed { .. })), "{outcome:?}");
        assert!(
            matches!(vote(&log, "v"), Err(JournalError::Failed { .. })),
            "later calls fail too"
        );
        assert!(journal.failed().is_some());
        assert_eq!(told.load(Ordering::SeqCst), 1);
        let late = Arc::clone(&told);
        journal.on_failure(Box::new(move |_| {
            late.fetch_add(1, Ordering::SeqCst);
        }));
        assert_eq!(told.load(Ordering::SeqCst), 2, "who asks late is told at once");
        let (journal, _) = reboot(journal, &disk, PowerCut::LoseAll);
        assert_eq!(indexes(&journal.replica(id(1))), vec![0]);
    }
}

#[test]
#[should_panic(expected = "leaves a hole")]
fn a_hole_is_our_mistake() {
    let journal = open(&FaultyDisk::new());
    journal
        .replica(id(1))
        .append(vec![entry(1, 1, "a")], Box::new(|_| ()));
}

/// Waits until the flusher has made its spares, so that only flushes write.
fn wait_for_spares(disk: &FaultyDisk) {
    let ready = |name: &String| name.ends_with(".seg");
    while disk
        .list("journal")
        .unwrap()
        .iter()
        .filter(|name| ready(name))
        .count()
        < 2
    {
        std::thread::yield_now();
    }
}

#[test]
fn a_torn_tail_is_cut_and_never_comes_back() {
    let mut torn = 0;
    for seed in 0..100 {
        let disk = FaultyDisk::new();
        let journal = open(&disk);
        let log = journal.replica(id(1));
        append(&log, vec![entry(1, 0, vec![1; 3000])]).unwrap();
        wait_for_spares(&disk);
        // The flush is written but not synced when the power goes.
        let gate = disk.stall(Operation::Sync);
        let entries = (1..6).map(|index| entry(1, index, vec![2; 2000])).collect();
        log.append(entries, Box::new(|outcome| assert!(outcome.is_err())));
        gate.wait_reached();
        let (journal, disk) = reboot(journal, &disk, PowerCut::KeepSome { seed });
        torn += usize::from(journal.stats().torn_bytes > 0);
        let log = journal.replica(id(1));
        assert_eq!(log.state().damaged, None, "seed {seed}");
        append(&log, vec![entry(2, log.state().last.unwrap().index + 1, "next")]).unwrap();
        let expected = log.read(0, 9, usize::MAX).unwrap();
        assert_eq!(expected[0], entry(1, 0, vec![1; 3000]), "seed {seed}");
        let (journal, _) = reboot(journal, &disk, PowerCut::LoseAll);
        let log = journal.replica(id(1));
        assert_eq!(log.state().damaged, None, "seed {seed}");
        assert_eq!(log.read(0, 9, usize::MAX).unwrap(), expected, "seed {seed}");
    }
    assert!(torn > 10, "the seeds tear flushes: {torn}");
}

#[test]
fn a_crash_at_any_write_or_sync_loses_nothing_and_damages_nothing() {
    for operation in [Operation::Write, Operation::Sync] {
        for after in 0..45 {
            let disk = FaultyDisk::new();
            let journal = open(&disk);
            let log = journal.replica(id(1));
            vote(&log, "vote").unwrap();
            disk.fail(operation, after, true);
            let mut next = 0;
            while append(&log, vec![entry(1, next, vec![next as u8; 12 << 10])]).is_ok() {
                next += 1;
                if next % 10 == 9 {
                    log.purge(at(1, next - 1));
                }
            }
            assert!(matches!(journal.failed(), Some(JournalError::Failed { .. })));
            let (journal, _) = reboot(journal, &disk, PowerCut::LoseAll);
            let log = journal.replica(id(1));
            let state = log.state();
            assert_eq!(state.damaged, None, "{operation:?} {after}");
            assert_eq!(state.vote.as_deref(), Some(&b"vote"[..]), "{operation:?} {after}");
            assert_eq!(
                log.state().last.map_or(0, |last| last.index + 1),
                next,
                "{operation:?} {after}"
            );
            assert!(
                indexes(&log)
                    .into_iter()
                    .eq(state.purged.map_or(0, |purged| purged.index + 1)..next)
            );
        }
    }
}

#[test]
fn an_entry_replaced_on_its_way_to_the_disk_is_not_mistaken_for_the_new_one() {
    let disk = FaultyDisk::new();
    let cold = JournalConfig {
        hot_bytes_max: 0,
        ..config()
    };
    let journal = Journal::open(Arc::new(disk.clone()), cold).unwrap();
    let log = journal.replica(id(1));
    append(&log, vec![entry(1, 0, "a")]).unwrap();
    wait_for_spares(&disk);
    let gate = disk.stall(Operation::Sync);
    log.append(
        vec![entry(1, 1, "old"), entry(1, 2, "old")],
        Box::new(|outcome| outcome.unwrap()),
    );
    gate.wait_reached();
    let (sender, receiver) = mpsc::channel();
    log.append(
        vec![entry(2, 1, "new")],
        Box::new(move |outcome| sender.send(outcome).unwrap()),
    );
    assert_eq!(*log.durable().borrow(), Some(0));
    gate.open();
    receiver.recv().unwrap().unwrap();
    assert_eq!(
        log.read(0, 9, 99).unwrap(),
        vec![entry(1, 0, "a"), entry(2, 1, "new")]
    );
    assert_eq!(*log.durable().borrow(), Some(1));
    let (journal, _) = reboot(journal, &disk, PowerCut::LoseAll);
    let log = journal.replica(id(1));
    assert_eq!(
        log.read(0, 9, 99).unwrap(),
        vec![entry(1, 0, "a"), entry(2, 1, "new")]
    );
}

#[test]
fn an_overwrite_that_is_refused_leaves_the_same_log_in_memory_and_on_disk() {
    let disk = FaultyDisk::new();
    let journal = open(&disk);
    let log = journal.replica(id(1));
    fill(&log, 1000).unwrap_err();
    let last = log.state().last.unwrap();
    let refused = append(&log, vec![entry(2, last.index - 1, vec![9; 8 << 10])]);
    assert!(matches!(refused, Err(JournalError::Full(_))), "{refused:?}");
    let expected = indexes(&log);
    assert_eq!(
        expected.last(),
        Some(&(last.index - 2)),
        "what was to be replaced is gone"
    );
    let (journal, _) = reboot(journal, &disk, PowerCut::LoseAll);
    assert_eq!(indexes(&journal.replica(id(1))), expected);
}

/// Where the flushes of the first segment lie: start and end of each.
fn flushes(disk: &FaultyDisk, path: &str) -> Vec<(u64, u64)> {
    let bytes = disk.bytes_of(path).unwrap();
    let header = SegmentHeader::decode(&bytes[..BLOCK_BYTES as usize]).unwrap();
    let mut found = Vec::new();
    let mut at = BLOCK_BYTES;
    while at < bytes.len() as u64 {
        if let Some((head, body)) = decode_record(&bytes[at as usize..], header.seed(), at)
            && head.kind == format::Kind::Flush
        {
            let flush = FlushHeader::decode(&bytes[at as usize..][body]).unwrap();
            found.push((at, at + flush.flush_bytes));
        }
        at += BLOCK_BYTES;
    }
    found
}

const FIRST: &str = "journal/00000000000000000001.log";

#[test]
fn a_flipped_bit_before_the_last_flush_is_damage_and_stays_damage() {
    let disk = FaultyDisk::new();
    let journal = open(&disk);
    append(&journal.replica(id(1)), vec![entry(1, 0, vec![1; 100])]).unwrap();
    append(&journal.replica(id(2)), vec![entry(1, 0, vec![1; 100])]).unwrap();
    append(&journal.replica(id(1)), vec![entry(1, 1, vec![1; 100])]).unwrap();
    vote(&journal.replica(id(3)), "v").unwrap();
    journal.stop();
    let disk = disk.power_cut(PowerCut::LoseAll);
    let found = flushes(&disk, FIRST);
    assert_eq!(found.len(), 5, "four calls and a clean stop");
    // The last byte of the body of entry 1 of replica 1.
    disk.flip_bit(FIRST, (found[2].1 - 1) * 8);
    for _ in 0..2 {
        let journal = open(&disk);
        assert_eq!(journal.stats().damaged, vec![id(1)]);
        let log = journal.replica(id(1));
        assert!(log.state().damaged.is_some());
        assert!(matches!(log.read(0, 2, 9), Err(JournalError::Damaged { .. })));
        assert!(matches!(vote(&log, "v"), Err(JournalError::Damaged { .. })));
        assert!(matches!(
            append(&log, vec![entry(1, 1, "x")]),
            Err(JournalError::Damaged { .. })
        ));
        assert_eq!(indexes(&journal.replica(id(2))), vec![0]);
        append(&journal.replica(id(4)), vec![]).unwrap();
    }
    let journal = open(&disk);
    wait(|done| journal.replica(id(1)).remove(done)).unwrap();
    drop(journal);
    let journal = open(&disk);
    assert!(!journal.replicas().contains(&id(1)), "removal ends the damage");
}

#[test]
fn a_lost_flush_header_damages_all_replicas() {
    let disk = FaultyDisk::new();
    let journal = open(&disk);
    for group in 1..4 {
        append(&journal.replica(id(group)), vec![entry(1, 0, "a")]).unwrap();
    }
    journal.stop();
    let disk = disk.power_cut(PowerCut::LoseAll);
    let found = flushes(&disk, FIRST);
    disk.flip_bit(FIRST, found[1].0 * 8 + 77);
    let journal = open(&disk);
    assert_eq!(journal.stats().damaged, vec![id(1), id(3)]);
}

#[test]
fn every_flipped_bit_is_cut_or_reported() {
    let disk = FaultyDisk::new();
    let journal = open(&disk);
    let log = journal.replica(id(1));
    append(&log, vec![entry(1, 0, "first")]).unwrap();
    vote(&log, "v").unwrap();
    append(&log, vec![entry(1, 1, "second")]).unwrap();
    let disk = disk.power_cut(PowerCut::LoseAll);
    drop(journal);
    let found = flushes(&disk, FIRST);
    let last_start = found.last().unwrap().0;
    for (start, end) in found {
        for bit in (start * 8..end * 8).step_by(5) {
            disk.flip_bit(FIRST, bit);
            let recovered = recovery::recover(Arc::new(disk.clone()), config());
            let (core, _) = recovered.unwrap();
            let damaged = core.replicas.values().any(|replica| replica.damaged.is_some());
            assert_eq!(damaged, start != last_start, "bit {bit} of the flush at {start}");
            if start == last_start {
                // Opening has cleared the torn tail: the rest of this test needs a fresh disk.
                return;
            }
            disk.flip_bit(FIRST, bit);
        }
    }
}

/// Appends `count` entries of 8 KiB from the next index on.
fn fill(log: &ReplicaLog, count: u64) -> Result<(), JournalError> {
    let first = log.state().last.map_or(0, |last| last.index + 1);
    for index in first..first + count {
        append(log, vec![entry(1, index, vec![index as u8; 8 << 10])])?;
    }
    Ok(())
}

#[test]
fn recycling_keeps_votes_marks_and_other_logs() {
    let disk = FaultyDisk::new();
    let mut journal = open(&disk);
    let mut disk = disk;
    vote(&journal.replica(id(1)), "old vote").unwrap();
    let quiet = journal.replica(id(2));
    append(&quiet, vec![entry(1, 0, "q"), entry(1, 1, "q")]).unwrap();
    vote(&quiet, "quiet vote").unwrap();
    quiet.purge(at(1, 1));
    for round in 0..20u64 {
        let log = journal.replica(id(1));
        fill(&log, 6).unwrap();
        log.save_committed(log.state().last.unwrap());
        log.purge(log.state().last.unwrap());
        if round % 5 == 4 {
            vote(&log, "flush").unwrap();
            let purged = log.state().purged;
            (journal, disk) = reboot(journal, &disk, PowerCut::LoseAll);
            let state = journal.replica(id(1)).state();
            assert_eq!((state.purged, state.damaged), (purged, None), "round {round}");
            assert_eq!(state.committed, purged);
            let quiet = journal.replica(id(2)).state();
            assert_eq!(quiet.vote.as_deref(), Some(&b"quiet vote"[..]), "round {round}");
            assert_eq!((quiet.purged, quiet.damaged), (Some(at(1, 1)), None));
        }
    }
    assert!(!disk.exists(FIRST), "the first segment was recycled");
    assert!(journal.stats().segments_in_use <= 3);
}

#[test]
fn a_full_journal_refuses_entries_takes_votes_and_heals_after_a_purge() {
    let disk = FaultyDisk::new();
    let journal = open(&disk);
    let log = journal.replica(id(1));
    let outcome = fill(&log, 1000);
    assert!(matches!(outcome, Err(JournalError::Full(_))), "{outcome:?}");
    assert_eq!(journal.failed(), None);
    let last = log.state().last.unwrap();
    assert_eq!(
        indexes(&log).last(),
        Some(&last.index),
        "refused entries are not in the log"
    );
    for round in 0..5 {
        vote(&log, &format!("v{round}")).unwrap();
        assert!(matches!(fill(&log, 1), Err(JournalError::Full(_))));
    }
    assert_eq!(
        (journal.pinning(), journal.segments_needed()),
        (vec![(id(1), 6)], 6)
    );
    let (journal, disk) = reboot(journal, &disk, PowerCut::LoseAll);
    let log = journal.replica(id(1));
    assert_eq!(log.state().last, Some(last));
    assert_eq!(log.state().vote.as_deref(), Some(&b"v4"[..]));
    log.purge(at(1, last.index - 2));
    let (needed, in_use) = (journal.segments_needed(), journal.stats().segments_in_use);
    assert_eq!(
        (needed, in_use),
        (2, 6),
        "only a flush takes from use what a purge freed"
    );
    fill(&log, 12).unwrap();
    log.purge(at(1, last.index + 10));
    fill(&log, 20).unwrap();
    let expected = indexes(&log);
    let (journal, _) = reboot(journal, &disk, PowerCut::LoseAll);
    assert_eq!(indexes(&journal.replica(id(1))), expected);
    assert_eq!(journal.replica(id(1)).state().damaged, None);
}

#[test]
fn what_the_newest_segments_hold_can_stay_when_the_others_go() {
    let disk = FaultyDisk::new();
    let journal = open(&disk);
    let (log, quiet) = (journal.replica(id(1)), journal.replica(id(2)));
    fill(&quiet, 3).unwrap();
    fill(&log, 1000).unwrap_err();
    let all = journal.segments_needed();
    assert_eq!(
        journal.first_in_newest(id(1), all),
        indexes(&log).first().copied()
    );
    assert_eq!(
        journal.first_in_newest(id(2), all),
        indexes(&quiet).first().copied()
    );
    assert_eq!(journal.first_in_newest(id(2), 2), None, "it has nothing there");
    assert_eq!(
        journal.first_in_newest(id(3), all),
        None,
        "there is no such replica"
    );
    let first = journal.first_in_newest(id(1), 2).unwrap();
    quiet.purge(quiet.state().last.unwrap());
    log.purge(at(1, first - 1));
    assert_eq!(journal.segments_needed(), 2);
}

#[test]
fn votes_go_on_until_the_reserve_ends_and_even_then_a_purge_heals() {
    let disk = FaultyDisk::new();
    let journal = open(&disk);
    let log = journal.replica(id(1));
    fill(&log, 1000).unwrap_err();
    let mut taken = 0;
    let refused = loop {
        match vote(&log, &format!("v{taken}")) {
            Ok(()) => taken += 1,
            Err(error) => break error,
        }
        assert!(taken < 1000, "the reserve is bounded");
    };
    assert!(matches!(refused, JournalError::Full(_)));
    assert!(taken > 5);
    let expected = format!("v{}", taken - 1);
    assert_eq!(
        log.state().vote.as_deref(),
        Some(expected.as_bytes()),
        "a refused vote is not the vote"
    );
    // A truncate is told of the full disk, too, and is still due.
    let last = log.state().last.unwrap();
    let outcome = wait(|done| log.truncate_after(Some(at(1, last.index - 1)), done));
    assert!(matches!(outcome, Err(JournalError::Full(_))), "{outcome:?}");
    // So are those behind it: nobody waits for room that may never come.
    let outcome = wait(|done| log.truncate_after(Some(at(1, last.index - 1)), done));
    assert!(matches!(outcome, Err(JournalError::Full(_))), "{outcome:?}");
    let other = journal.replica(id(2));
    let outcome = wait(|done| other.remove(done));
    assert!(matches!(outcome, Err(JournalError::Full(_))), "{outcome:?}");
    log.purge(at(1, last.index - 2));
    fill(&log, 3).unwrap();
    vote(&log, "healed").unwrap();
    let expected = indexes(&log);
    let (journal, _) = reboot(journal, &disk, PowerCut::LoseAll);
    let log = journal.replica(id(1));
    assert_eq!(log.state().vote.as_deref(), Some(&b"healed"[..]));
    assert_eq!(indexes(&log), expected);
}

#[test]
fn a_disk_without_room_for_a_segment_is_full_not_failed() {
    let disk = FaultyDisk::new();
    let journal = open(&disk);
    let log = journal.replica(id(1));
    append(&log, vec![entry(1, 0, "a")]).unwrap();
    disk.set_capacity(Some(disk.used_bytes()));
    let outcome = fill(&log, 100);
    assert!(matches!(outcome, Err(JournalError::Full(_))), "{outcome:?}");
    assert_eq!(journal.failed(), None);
    vote(&log, "v").unwrap();
    disk.set_capacity(None);
    fill(&log, 5).unwrap();
}

#[test]
fn refused_entries_excuse_those_that_follow() {
    let disk = FaultyDisk::new();
    let journal = open(&disk);
    let log = journal.replica(id(1));
    fill(&log, 1000).unwrap_err();
    let next = log.state().last.unwrap().index + 1;
    let refused = append(&log, vec![entry(1, next, vec![0; 9000])]);
    assert!(matches!(refused, Err(JournalError::Full(_))));
    // The caller sent this one before it heard.
    let follows = append(&log, vec![entry(1, next + 1, vec![0; 9000])]);
    assert!(matches!(follows, Err(JournalError::Full(_))));
}

#[test]
fn the_queue_is_bounded() {
    let disk = FaultyDisk::new();
    let journal = open(&disk);
    let log = journal.replica(id(1));
    append(&log, vec![entry(1, 0, "a")]).unwrap();
    let gate = disk.stall(Operation::Sync);
    let mut next = 1;
    let refused = Arc::new(AtomicUsize::new(0));
    while refused.load(Ordering::SeqCst) == 0 {
        let refused = Arc::clone(&refused);
        let done = move |outcome: Result<(), JournalError>| {
            if matches!(outcome, Err(JournalError::Overloaded { .. })) {
                refused.fetch_add(1, Ordering::SeqCst);
            }
        };
        log.append(vec![entry(1, next, vec![0; 10 << 10])], Box::new(done));
        next += 1;
        assert!(next < 1000);
    }
    assert!(journal.stats().queue_bytes <= config().queue_bytes_max + (11 << 10));
    gate.open();
    vote(&log, "v").unwrap();
    assert_eq!(journal.stats().queue_bytes, 0, "what was answered is not counted");
}

#[test]
fn old_entries_come_from_the_disk_and_the_cache_is_bounded() {
    let journal = open(&FaultyDisk::new());
    let log = journal.replica(id(1));
    let entries: Vec<_> = (0..20)
        .map(|index| entry(1, index, vec![index as u8; 1 << 10]))
        .collect();
    for one in &entries {
        append(&log, vec![one.clone()]).unwrap();
    }
    assert!(journal.stats().hot_bytes <= config().hot_bytes_max);
    assert_eq!(log.read(0, 20, usize::MAX).unwrap(), entries);
    wait(|done| log.truncate_after(Some(at(1, 14)), done)).unwrap();
    log.purge(at(1, 13));
    assert_eq!(indexes(&log), vec![14]);
    wait(|done| log.remove(done)).unwrap();
    assert_eq!(journal.stats().hot_bytes, 0);
    assert!(matches!(log.read(0, 1, 1), Err(JournalError::Removed(_))));
}

#[test]
fn a_clean_stop_is_seen_and_refuses_later_calls() {
    let disk = FaultyDisk::new();
    let journal = open(&disk);
    let log = journal.replica(id(1));
    log.append(vec![entry(1, 0, "a")], Box::new(|outcome| outcome.unwrap()));
    journal.stop();
    journal.stop();
    assert_eq!(vote(&log, "v"), Err(JournalError::Stopped));
    let (journal, disk) = reboot(journal, &disk, PowerCut::LoseAll);
    assert!(journal.stats().clean_start);
    assert_eq!(indexes(&journal.replica(id(1))), vec![0]);
    let (journal, _) = reboot(journal, &disk, PowerCut::LoseAll);
    assert!(journal.stats().clean_start, "nothing was written since");
}

#[test]
fn a_removed_replica_comes_back_empty() {
    let disk = FaultyDisk::new();
    let journal = open(&disk);
    let log = journal.replica(id(1));
    append(&log, vec![entry(1, 0, "a")]).unwrap();
    wait(|done| log.remove(done)).unwrap();
    let again = journal.replica(id(1));
    assert_eq!(again.state(), LogState::default());
    vote(&again, "new").unwrap();
    assert!(matches!(vote(&log, "old handle"), Err(JournalError::Removed(_))));
    let (journal, _) = reboot(journal, &disk, PowerCut::LoseAll);
    let state = journal.replica(id(1)).state();
    assert_eq!((state.last, state.vote.as_deref()), (None, Some(&b"new"[..])));
}
