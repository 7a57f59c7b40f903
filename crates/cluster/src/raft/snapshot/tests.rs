//! Snapshots between two machines: whole, spoiled, cut short, and with a crash at every step.

use dunlin_model::id::{GroupId, GroupReplica, ReplicaId, ShardId};
use dunlin_model::port::{ShardStore, WriteBatch};
use dunlin_storage::disk::faulty::{FaultyDisk, Operation, PowerCut};
use dunlin_storage::segment::SegmentLog;
use dunlin_storage::state::{MemStore, StateCut};

use super::super::conformance::Nobody;
use super::super::machine::ShardMachine;
use super::*;

const SEGMENT_BYTES: u64 = 100 << 10;
/// Five segments, and some runs that are not in a block yet.
const RUNS: u64 = 43;
/// Where the events of the replica are.
const EVENTS: &str = "events/1-1";

fn open(disk: &FaultyDisk, store: &MemStore) -> Machine {
    let id = GroupReplica {
        group: GroupId(1),
        replica: ReplicaId(1),
    };
    let events = SegmentLog::open_with(Arc::new(disk.clone()), id, SEGMENT_BYTES).unwrap();
    let (store, events) = (Arc::new(store.clone()), Arc::new(events));
    Machine::Shard(ShardMachine::open(ShardId(0), store, events, Arc::new(Nobody)).unwrap())
}

fn run(index: u64) -> EventRun {
    let mut seed = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut draw = || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed as u8
    };
    EventRun {
        index,
        term: 1,
        time_ms: 1000 + index,
        first_offset: (index - 1) * 2,
        count: 2,
        records: (0..20 << 10).map(|_| draw()).collect(),
    }
}

/// A replica with `runs` runs of events and `pairs` pairs of state.
fn replica(runs: u64, pairs: u32) -> (FaultyDisk, MemStore, Machine) {
    let (disk, store) = (FaultyDisk::new(), MemStore::new());
    let machine = open(&disk, &store);
    for index in 1..=runs {
        machine.events().unwrap().append(run(index)).unwrap();
    }
    let mut batch = WriteBatch::default();
    for i in 0..pairs {
        batch.put(i.to_be_bytes(), vec![i as u8; 4 << 10]);
    }
    store.write(batch).unwrap();
    store.checkpoint().unwrap();
    machine.events().unwrap().checkpoint(runs, false).unwrap();
    (disk, store, machine)
}

fn leader() -> Machine {
    let (_, _, machine) = replica(RUNS, 200);
    let events = machine.events().unwrap();
    assert!(events.sealed_segments().len() > 2);
    events.trim(10).unwrap();
    machine
}

fn frames(machine: &Machine) -> Vec<Bytes> {
    frames_without(machine, Vec::new())
}

/// Frames for a receiver who has `kept`.
fn frames_without(machine: &Machine, kept: Vec<SealedSegment>) -> Vec<Bytes> {
    let SnapshotData::View(mut view) = SnapshotData::view(machine) else {
        unreachable!("it is a view")
    };
    view.leave_out(kept);
    std::iter::from_fn(|| view.next_frame().unwrap()).collect()
}

/// Everything that a machine holds.
fn content(machine: &Machine) -> (Vec<(Bytes, Bytes)>, Vec<EventRun>) {
    let pairs = machine.store().snapshot().map(Result::unwrap).collect();
    let events = machine.events().unwrap();
    let (mut from, end) = events.range();
    let mut runs = Vec::new();
    while from < end {
        runs.extend(events.read(from, 1).unwrap());
        from = runs.last().unwrap().next_offset();
    }
    (pairs, runs)
}

fn receive(disk: &FaultyDisk, machine: &Machine, frames: &[Bytes]) -> Result<Spooled, StoreError> {
    let spools = Spools::new(Arc::new(disk.clone()))?;
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut receiving = runtime.block_on(spools.receive(machine.events().cloned()))?;
    for frame in frames {
        receiving.take(frame)?;
    }
    receiving.finish()
}

fn fill(disk: &FaultyDisk, machine: &Machine, frames: &[Bytes]) -> Result<(), StoreError> {
    SnapshotData::Spooled(receive(disk, machine, frames)?).install(machine)
}

#[test]
fn a_snapshot_brings_state_events_and_whole_segments() {
    let leader = leader();
    let frames = frames(&leader);
    assert!(frames.iter().all(|frame| frame.len() <= FRAME_BYTES_MAX));
    let count = |wanted| frames.iter().filter(|frame| frame[0] == wanted).count();
    assert!(count(FRAME_SEGMENT) > 1 && count(FRAME_RUNS) > 0 && count(FRAME_PAIRS) > 2);
    let (disk, store, follower) = replica(3, 20);
    fill(&disk, &follower, &frames).unwrap();
    assert!(content(&follower) == content(&leader));
    let sealed = leader.events().unwrap().sealed_segments();
    assert_eq!(
        follower.events().unwrap().sealed_segments()[..sealed.len()],
        sealed
    );
    let disk = disk.power_cut(PowerCut::LoseAll);
    store.power_cut(StateCut::LoseAll);
    assert!(content(&open(&disk, &store)) == content(&leader));
    assert!(!disk.exists("spool") || disk.list("spool").unwrap().is_empty());
}

#[test]
fn small_runs_share_frames() {
    let (_, _, leader) = replica(0, 1);
    for index in 1..=1_000 {
        let run = EventRun {
            records: Bytes::from_static(b"one message"),
            ..run(index)
        };
        leader.events().unwrap().append(run).unwrap();
    }
    let frames = frames(&leader);
    assert!(frames.len() < 10, "{} frames", frames.len());
    let (disk, _, follower) = replica(3, 20);
    fill(&disk, &follower, &frames).unwrap();
    assert!(content(&follower) == content(&leader));
}

#[test]
fn sealed_segments_that_the_receiver_has_are_not_sent() {
    let (_, _, leader) = replica(RUNS, 200);
    let (disk, store, follower) = replica(RUNS / 2, 20);
    let own = follower.events().unwrap().sealed_segments();
    assert!(own.len() > 1);
    let frames = frames_without(&leader, own.clone());
    let count = |wanted| frames.iter().filter(|frame| frame[0] == wanted).count();
    assert_eq!(count(FRAME_KEPT), own.len());
    assert!(count(FRAME_SEGMENT) > 0);
    fill(&disk, &follower, &frames).unwrap();
    assert!(content(&follower) == content(&leader));
    let disk = disk.power_cut(PowerCut::LoseAll);
    store.power_cut(StateCut::LoseAll);
    assert!(content(&open(&disk, &store)) == content(&leader));
}

#[test]
fn a_segment_that_has_rotted_is_sent_at_the_next_attempt() {
    let (_, _, leader) = replica(RUNS, 200);
    let (disk, _, follower) = replica(RUNS / 2, 20);
    let told = follower.events().unwrap().sealed_segments();
    let segments = disk.list(EVENTS).unwrap();
    let rotten = segments.iter().find(|name| name.ends_with(".seg")).unwrap();
    disk.flip_bit(&format!("{EVENTS}/{rotten}"), 800);
    let refused = fill(&disk, &follower, &frames_without(&leader, told.clone()));
    assert!(matches!(refused, Err(StoreError::Corrupt { .. })), "{refused:?}");
    let left = follower.events().unwrap().sealed_segments();
    assert_eq!(left.len() + 1, told.len());
    fill(&disk, &follower, &frames_without(&leader, left)).unwrap();
    assert!(content(&follower) == content(&leader));
}

#[test]
fn a_segment_that_the_receiver_does_not_have_cannot_be_left_out() {
    let (_, _, leader) = replica(RUNS, 200);
    let (disk, _, follower) = replica(3, 20);
    let before = content(&follower);
    let frames = frames_without(&leader, leader.events().unwrap().sealed_segments());
    assert!(fill(&disk, &follower, &frames).is_err());
    assert!(content(&follower) == before);
}

#[test]
fn what_is_spoiled_or_cut_short_is_refused_and_changes_nothing() {
    let frames = frames(&leader());
    let (disk, _, follower) = replica(3, 20);
    let before = content(&follower);
    for place in 0..frames.len() {
        assert!(fill(&disk, &follower, &frames[..place]).is_err(), "cut {place}");
        for at in [0, frames[place].len() / 2, frames[place].len() - 1] {
            let mut spoiled = frames.clone();
            let mut bytes = frames[place].to_vec();
            bytes[at] ^= 8;
            spoiled[place] = bytes.into();
            assert!(fill(&disk, &follower, &spoiled).is_err(), "frame {place} at {at}");
        }
        let mut lost = frames.clone();
        lost.remove(place);
        assert!(fill(&disk, &follower, &lost).is_err(), "lost {place}");
    }
    let twice = [&frames[..], &frames[1..]].concat();
    assert!(
        fill(&disk, &follower, &twice).is_err(),
        "it goes on after its end"
    );
    assert!(content(&follower) == before);
    assert!(disk.list("spool").unwrap().is_empty());
}

#[test]
fn a_bit_that_flips_in_the_spool_is_found_before_anything_is_replaced() {
    let frames = frames(&leader());
    let (disk, _, follower) = replica(3, 20);
    let before = content(&follower);
    let spools = Spools::new(Arc::new(disk.clone())).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let mut receiving = runtime.block_on(spools.receive(None)).unwrap();
    for frame in &frames {
        receiving.take(frame).unwrap();
    }
    let name = format!("spool/{}", disk.list("spool").unwrap()[0]);
    disk.flip_bit(&name, disk.bytes_of(&name).unwrap().len() as u64 * 4);
    assert!(receiving.finish().is_err());
    assert!(content(&follower) == before);
}

#[test]
fn a_crash_at_any_step_leaves_a_replica_that_can_be_filled_again() {
    let leader = leader();
    let frames = frames(&leader);
    let new = content(&leader);
    for operation in [Operation::Write, Operation::Sync] {
        let mut failed = 0;
        for after in 0.. {
            let (disk, store, follower) = replica(3, 20);
            let old = content(&follower);
            disk.fail(operation, after, true);
            let filled = fill(&disk, &follower, &frames);
            drop(follower);
            let disk = disk.power_cut(PowerCut::KeepSome { seed: after });
            store.power_cut(StateCut::LoseAll);
            let follower = open(&disk, &store);
            let found = content(&follower);
            if filled.is_ok() {
                assert!(found == new);
                break;
            }
            failed += 1;
            assert!(found.0 == old.0, "after {after}: the state is put in place last");
            // The last events of the old log were in memory, and the journal has them.
            let is_old = old.1.starts_with(&found.1);
            assert!(is_old || found.1 == new.1, "after {after}: events of neither");
            fill(&disk, &follower, &frames).unwrap();
            assert!(content(&follower) == new);
        }
        assert!(failed > 3, "{operation:?} failed {failed} times");
    }
}

#[test]
fn events_that_are_trimmed_while_they_are_sent_end_the_sending() {
    let leader = leader();
    let SnapshotData::View(mut view) = SnapshotData::view(&leader) else {
        unreachable!("it is a view")
    };
    view.next_frame().unwrap();
    leader.events().unwrap().seal().unwrap();
    leader.events().unwrap().trim(u64::MAX).unwrap();
    let end = loop {
        match view.next_frame() {
            Ok(Some(frame)) => assert_ne!(kind(&frame), Some(FRAME_END)),
            Ok(None) => panic!("it ended as if nothing were missing"),
            Err(error) => break error,
        }
    };
    assert!(
        matches!(end, StoreError::Io { .. } | StoreError::Corrupt { .. }),
        "{end}"
    );
}
