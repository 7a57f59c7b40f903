//! A snapshot of fuzzed frames into a replica: it is refused and changes nothing, or it is in place and the
//! replica opens again.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use dunlin_model::id::{GroupId, GroupReplica, NodeId, ReplicaId, ShardId};
use dunlin_model::port::{
    AppliedEntry, AppliedSink, EventRun, Leadership, ShardStore, StoreError, WriteBatch,
};
use dunlin_model::wire::put_bytes;
use dunlin_storage::disk::faulty::FaultyDisk;
use dunlin_storage::segment::SegmentLog;
use dunlin_storage::state::MemStore;
use ring::digest::{Context, SHA256};

use crate::raft::machine::{Machine, ShardMachine};
use crate::raft::snapshot::{SnapshotData, Spooled, Spools};
use crate::transport::frames::take_frame;

const SEGMENT_BYTES: u64 = 20 << 10;
/// The kind of the frame that ends a snapshot.
const FRAME_END: u8 = 6;

struct Nobody;

impl AppliedSink for Nobody {
    fn on_applied(&self, _: ShardId, _: AppliedEntry) {}
    fn on_leader(&self, _: ShardId, _: Leadership) {}
    fn on_storage_full(&self, _: ShardId, _: bool) {}
    fn on_follower(&self, _: ShardId, _: Option<NodeId>) {}
}

fn open(disk: &FaultyDisk, store: &MemStore) -> Result<Machine, StoreError> {
    let id = GroupReplica {
        group: GroupId(1),
        replica: ReplicaId(1),
    };
    let events = SegmentLog::open_with(Arc::new(disk.clone()), id, SEGMENT_BYTES)?;
    let (store, events) = (Arc::new(store.clone()), Arc::new(events));
    Ok(Machine::Shard(ShardMachine::open(
        ShardId(0),
        store,
        events,
        Arc::new(Nobody),
    )?))
}

pub(super) fn run(index: u64) -> EventRun {
    EventRun {
        index,
        term: 1,
        time_ms: 1000 + index,
        first_offset: (index - 1) * 2,
        count: 2,
        records: Bytes::from(vec![index as u8; 3 << 10]),
    }
}

pub(super) fn replica(runs: u64) -> (FaultyDisk, MemStore, Machine) {
    let (disk, store) = (FaultyDisk::new(), MemStore::new());
    let machine = open(&disk, &store).expect("an empty replica opens");
    let events = machine.events().expect("a shard has events").clone();
    (1..=runs).for_each(|index| events.append(run(index)).expect("memory takes it"));
    let mut batch = WriteBatch::default();
    batch.put(*b"key", b"value".to_vec());
    store.write(batch).expect("memory takes it");
    events.checkpoint(runs, false).expect("memory takes it");
    (disk, store, machine)
}

pub(super) fn content(machine: &Machine) -> (Vec<(Bytes, Bytes)>, (u64, u64)) {
    let pairs = machine
        .store()
        .snapshot()
        .map(|pair| pair.expect("memory is read"));
    (
        pairs.collect(),
        machine.events().expect("a shard has events").range(),
    )
}

/// Frames of a snapshot. When the first byte is odd, an END with the right hash follows them, so that what
/// they say is put in place; otherwise they end as they do.
pub fn snapshot_install(data: &[u8]) {
    let Some((ending, rest)) = data.split_first() else {
        return;
    };
    let mut buffer = BytesMut::from(rest);
    let mut frames = Vec::new();
    while let Ok(Some(frame)) = take_frame(&mut buffer) {
        frames.push(frame);
    }
    if ending & 1 == 1 {
        frames.retain(|frame| frame.first() != Some(&FRAME_END));
        frames.push(end_of(&frames));
    }
    let (disk, store, machine) = replica(3);
    let before = content(&machine);
    let spooled = match receive(&disk, &machine, &frames) {
        Ok(spooled) => spooled,
        Err(_) => return assert!(content(&machine) == before, "what is refused changes nothing"),
    };
    let installed = SnapshotData::Spooled(spooled).install(&machine);
    drop(machine);
    match (installed, open(&disk, &store)) {
        (Ok(()), Ok(machine)) => drop(content(&machine)),
        // The state that a peer sent need not be one of ours; it is told, not taken for good.
        (Ok(()), Err(error)) => assert!(matches!(error, StoreError::Corrupt { .. }), "{error}"),
        (Err(_), reopened) => {
            let machine = reopened.expect("a replica that refused a snapshot opens as before");
            assert!(content(&machine).0 == before.0, "the state is put in place last");
        }
    }
}

pub(super) fn receive(disk: &FaultyDisk, machine: &Machine, frames: &[Bytes]) -> Result<Spooled, StoreError> {
    let spools = Spools::new(Arc::new(disk.clone()))?;
    let receiving = spools.receive(machine.events().cloned());
    let mut receiving = futures_util::FutureExt::now_or_never(receiving).expect("there is room for one")?;
    frames.iter().try_for_each(|frame| receiving.take(frame))?;
    receiving.finish()
}

fn end_of(frames: &[Bytes]) -> Bytes {
    let mut hash = Context::new(&SHA256);
    for frame in frames {
        hash.update(&(frame.len() as u32).to_le_bytes());
        hash.update(frame);
    }
    let mut out = BytesMut::new();
    out.put_u8(FRAME_END);
    out.put_slice(hash.finish().as_ref());
    out.freeze()
}

/// Seeds of [`snapshot_install`].
pub fn snapshot_install_seeds() -> Vec<Vec<u8>> {
    let seeds = [2, 30].map(|runs| {
        let (_, _, machine) = replica(runs);
        let SnapshotData::View(mut view) = SnapshotData::view(&machine) else {
            unreachable!("it is a view")
        };
        let mut out = BytesMut::new();
        while let Some(frame) = view.next_frame().expect("memory is read") {
            put_bytes(&mut out, &frame);
        }
        out.to_vec()
    });
    seeds
        .iter()
        .flat_map(|seed| [0, 1].map(|ending| [&[ending], &seed[..]].concat()))
        .collect()
}
