//! What a replica keeps beside its shard's state, its membership and the directory, and what it answers to whoever sends
//! it a snapshot: which segments it has, and its vote.

use std::sync::Arc;

use bytes::Bytes;
use dunlin_model::id::{LogPosition, NodeId};
use dunlin_model::port::{SealedSegment, ShardStore, StoreError, WriteBatch};
use dunlin_storage::disk::faulty::FaultyDisk;
use dunlin_storage::state::MemStore;

use super::messages::{layout, position, same_again};
use super::snapshot::{content, receive, replica, run};
use crate::codec;
use crate::directory::DirectoryView;
use crate::messages::{WireMembership, WireVote};
use crate::raft::convert;
use crate::raft::machine::{DIRECTORY_KEY, DirectoryMachine, Machine};
use crate::raft::snapshot::SnapshotData;
use crate::raft::state_machine::read_membership;

/// The first byte says which.
pub fn kept_state(data: &[u8]) {
    is_read(data);
}

fn is_read(data: &[u8]) -> bool {
    let Some((kind, rest)) = data.split_first() else {
        return false;
    };
    match kind % 4 {
        0 => membership(rest),
        1 => directory(rest),
        2 => segments(rest),
        _ => vote(rest),
    }
}

/// A membership that is read is the same when it was kept once more.
fn membership(bytes: &[u8]) -> bool {
    let Ok(read) = read_membership(bytes) else {
        return false;
    };
    let at = convert::position_of(read.log_id().as_ref());
    let wire = convert::membership_out(read.membership());
    let again = read_membership(&codec::encode(&(at, wire)));
    assert_eq!(again.ok(), Some(read));
    true
}

fn open(store: &Arc<dyn ShardStore>) -> Result<(Machine, Arc<DirectoryView>), StoreError> {
    let view = DirectoryView::new();
    let machine = DirectoryMachine::open(store.clone(), view.clone())?;
    Ok((Machine::Directory(machine), view))
}

/// A directory that is read is the same after another entry, which changes nothing of it.
fn directory(bytes: &[u8]) -> bool {
    let store: Arc<dyn ShardStore> = Arc::new(MemStore::new());
    let mut batch = WriteBatch::default();
    batch.put(DIRECTORY_KEY, bytes.to_vec());
    store.write(batch).expect("memory takes it");
    let Ok((mut machine, view)) = open(&store) else {
        return false;
    };
    let last = position(u64::MAX);
    machine
        .skip(last, WriteBatch::default())
        .expect("memory takes it");
    let (again, view_again) = open(&store).expect("what was written is read");
    assert_eq!(again.applied(), machine.applied());
    assert_eq!(again.applied().map(|at| at.index), Some(last.index));
    assert_eq!(view_again.get(), view.get());
    true
}

/// A replica with three sealed segments and a run behind them, the same each time.
fn sealed_replica() -> (FaultyDisk, Machine) {
    let (disk, _, machine) = replica(2);
    let events = machine.events().expect("a shard has events").clone();
    for index in 3..=5 {
        events.seal().expect("memory takes it");
        events.append(run(index)).expect("memory takes it");
    }
    (disk, machine)
}

fn sealed_segments(machine: &Machine) -> Vec<SealedSegment> {
    machine.events().expect("a shard has events").sealed_segments()
}

/// Whatever a receiver says that it has, nothing is left out but what it has, and it is as its sender is.
fn segments(bytes: &[u8]) -> bool {
    let Ok(kept) = codec::decode::<Vec<SealedSegment>>(bytes) else {
        return false;
    };
    let (_, sender) = sealed_replica();
    let SnapshotData::View(mut view) = SnapshotData::view(&sender) else {
        unreachable!("it is a view")
    };
    view.leave_out(kept);
    let mut frames: Vec<Bytes> = Vec::new();
    while let Some(frame) = view.next_frame().expect("memory is read") {
        frames.push(frame);
    }
    let (disk, receiver) = sealed_replica();
    let spooled = receive(&disk, &receiver, &frames).expect("what is left out is here");
    let installed = SnapshotData::Spooled(spooled).install(&receiver);
    installed.expect("what was checked is put in place");
    assert!(content(&receiver) == content(&sender));
    assert!(sealed_segments(&receiver).starts_with(&sealed_segments(&sender)));
    true
}

fn vote(bytes: &[u8]) -> bool {
    let Ok(vote) = codec::decode::<WireVote>(bytes) else {
        return false;
    };
    same_again(&vote);
    assert_eq!(convert::vote_out(&convert::vote_in(vote)), vote);
    true
}

/// Seeds of [`kept_state`].
pub fn kept_state_seeds() -> Vec<Vec<u8>> {
    let tagged = |tag: u8, bytes: &[u8]| [&[tag], bytes].concat();
    let member = |id: u64| (id, NodeId(id + 10));
    let wire = WireMembership {
        configs: vec![[1, 2, 3].into(), [2, 3, 4].into()],
        nodes: [1, 2, 3, 4].map(member).into(),
    };
    let at: Option<LogPosition> = Some(position(4));
    let directory = serde_json::json!({ "applied": position(9), "directory": layout() });
    let sealed = sealed_segments(&sealed_replica().1);
    let mut other = sealed.clone();
    other.iter_mut().for_each(|segment| segment.crc32c ^= 1);
    let vote = WireVote {
        term: 2,
        leader: 1,
        committed: true,
    };
    vec![
        tagged(0, &codec::encode(&(at, wire))),
        tagged(
            0,
            &codec::encode(&(None::<LogPosition>, WireMembership::default())),
        ),
        tagged(1, directory.to_string().as_bytes()),
        tagged(2, &codec::encode(&sealed)),
        tagged(2, &codec::encode(&other)),
        tagged(3, &codec::encode(&vote)),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_read() {
        for seed in kept_state_seeds() {
            assert!(is_read(&seed), "{seed:?}");
        }
        let sealed = sealed_segments(&sealed_replica().1);
        assert_eq!(sealed.len(), 3, "there is something to leave out");
    }
}
