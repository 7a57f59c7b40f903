//! Damage done to a small data directory: where it goes, how much of it there is, and that a seed repeats it.

use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use dunlin_model::id::{GroupId, GroupReplica, LogPosition, ReplicaId};
use dunlin_storage::disk::RealDisk;
use dunlin_storage::journal::{Journal, JournalConfig, LogEntry, SEGMENT_BYTES_MIN};
use tempfile::TempDir;

use super::*;

const FLIP: Damage = Damage::FlipPer { bytes: 4 << 10 };

fn open(folder: &TempDir) -> Journal {
    let config = JournalConfig {
        segment_bytes: SEGMENT_BYTES_MIN,
        segments_max: 8,
        ..JournalConfig::default()
    };
    Journal::open(Arc::new(RealDisk::new(folder.path())), config).unwrap()
}

/// A stopped node with a journal of several segments, two event segments and some state.
fn node() -> TempDir {
    let folder = TempDir::new().unwrap();
    let journal = open(&folder);
    let log = journal.replica(GroupReplica {
        group: GroupId(1),
        replica: ReplicaId(1),
    });
    for index in 0..24 {
        let (sender, receiver) = mpsc::channel();
        let entry = LogEntry {
            position: LogPosition {
                term: 1,
                leader: 1,
                index,
            },
            body: Bytes::from(vec![index as u8; 6_000]),
        };
        log.append(vec![entry], Box::new(move |done| sender.send(done).unwrap()));
        receiver.recv().unwrap().unwrap();
        if index % 10 == 0 {
            let (sender, receiver) = mpsc::channel();
            log.save_vote(
                Bytes::from_static(b"a vote"),
                Box::new(move |done| sender.send(done).unwrap()),
            );
            receiver.recv().unwrap().unwrap();
        }
    }
    drop(log);
    drop(journal);
    for (name, length) in [
        ("events/1-1/a.seg", 20_000),
        ("events/1-1/b.seg", 9_000),
        ("events/1-1/start", 28),
        ("state/0/data", 5_000),
    ] {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, vec![0xA5; length]).unwrap();
    }
    folder
}

fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let read = |path: PathBuf| {
        let bytes = fs::read(&path).unwrap();
        (path.strip_prefix(folder).unwrap().to_owned(), bytes)
    };
    walk(folder).unwrap().into_iter().map(read).collect()
}

/// Bytes that differ, by file.
fn changed(before: &BTreeMap<PathBuf, Vec<u8>>, after: &BTreeMap<PathBuf, Vec<u8>>) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    for (path, old) in before {
        let new = &after[path];
        assert_eq!(old.len(), new.len(), "{}", path.display());
        let places = (0..old.len()).filter(|at| old[*at] != new[*at]);
        found.extend(places.map(|at| (path.clone(), at as u64)));
    }
    found
}

#[test]
fn flips_are_as_many_as_asked_for_and_spare_the_final_flush() {
    let node = node();
    let before = contents(node.path());
    let parts = parts(node.path(), Class::Journal).unwrap();
    let total: u64 = parts.iter().map(Part::length).sum();
    assert!(total > 24 * 6_000 - 6_000, "{total} bytes of flushes");
    let done = damage(node.path(), Class::Journal, &FLIP, 7).unwrap();
    assert_eq!(done.len() as u64, total.div_ceil(4 << 10));
    let changed = changed(&before, &contents(node.path()));
    assert_eq!(changed.len(), done.len(), "one byte each");
    // The final flush is that of the clean stop, in the newest segment.
    let newest = files(node.path(), Class::Journal).unwrap().pop().unwrap();
    let newest = newest.strip_prefix(node.path()).unwrap().to_owned();
    let header = SegmentHeader::decode(&before[&newest][..BLOCK_BYTES as usize]).unwrap();
    let last = flushes(&before[&newest], &header).pop().unwrap();
    assert!(
        changed
            .iter()
            .all(|(path, at)| *path != newest || *at < last.start)
    );
    assert!(changed.iter().all(|(path, _)| path.starts_with("journal")));
}

#[test]
fn votes_alone_are_hit_when_votes_are_meant() {
    let node = node();
    let before = contents(node.path());
    let votes = parts(node.path(), Class::Votes).unwrap();
    assert_eq!(votes.len(), 3);
    let one_each = Damage::FlipPer {
        bytes: votes[0].length(),
    };
    assert_eq!(damage(node.path(), Class::Votes, &one_each, 1).unwrap().len(), 3);
    for (path, at) in changed(&before, &contents(node.path())) {
        let is_vote = |vote: &Part| vote.path.ends_with(&path) && vote.bytes.contains(&at);
        assert!(votes.iter().any(is_vote), "{} at {at}", path.display());
    }
}

#[test]
fn a_seed_repeats_its_damage_and_another_does_other() {
    let (one, other, third) = (node(), node(), node());
    let places = |node: &TempDir, seed| {
        let done = damage(node.path(), Class::Segments, &FLIP, seed).unwrap();
        assert_eq!(done.len(), 8, "29,000 bytes");
        done.into_iter()
            .map(|done| (done.at, done.what))
            .collect::<Vec<_>>()
    };
    let first = places(&one, 3);
    assert_eq!(first, places(&other, 3));
    assert_ne!(first, places(&third, 4));
}

#[test]
fn pages_files_and_backups_are_damaged_as_told() {
    let node = node();
    let copy = TempDir::new().unwrap();
    keep_copy(node.path(), copy.path()).unwrap();
    let whole = contents(node.path());
    assert_eq!(contents(copy.path()), whole);

    let zeroed = damage(node.path(), Class::State, &Damage::ZeroPage, 1).unwrap();
    assert_eq!(zeroed.len(), 1);
    let at = zeroed[0].at as usize;
    let state = fs::read(&zeroed[0].path).unwrap();
    let end = (at + PAGE_BYTES as usize).min(state.len());
    assert!(state[at..end].iter().all(|byte| *byte == 0));
    assert_eq!(state.iter().filter(|byte| **byte == 0).count(), end - at);

    damage(node.path(), Class::Segments, &Damage::Truncate, 1).unwrap();
    let cut = contents(node.path());
    let shorter = whole
        .iter()
        .filter(|(path, bytes)| cut[*path].len() < bytes.len());
    assert_eq!(shorter.count(), 1);

    let count = files(node.path(), Class::Journal).unwrap().len();
    let deleted = damage(node.path(), Class::Journal, &Damage::Delete, 1).unwrap();
    let left = files(node.path(), Class::Journal).unwrap();
    assert_eq!(left.len(), count - 1);
    assert!(
        deleted[0].path < left[left.len() - 1],
        "not the one with the final flush"
    );

    let restore = Damage::Restore {
        copy: copy.path().to_owned(),
    };
    for class in Class::ALL {
        damage(node.path(), class, &restore, 1).unwrap();
    }
    assert_eq!(contents(node.path()), whole);
    assert_eq!(
        damage(node.path(), Class::Snapshots, &FLIP, 1).unwrap(),
        [],
        "there are none"
    );
}

#[test]
fn a_file_that_no_other_follows_is_neither_cut_nor_removed() {
    for (how, seed) in (0..20).flat_map(|seed| [(Damage::Truncate, seed), (Damage::Delete, seed)]) {
        let node = node();
        let done = damage(node.path(), Class::Segments, &how, seed).unwrap();
        assert!(done[0].path.ends_with("events/1-1/a.seg"), "{done:?}");
    }
}

#[test]
fn a_journal_is_called_damaged_wherever_it_is_cut() {
    for seed in 0..20 {
        let node = node();
        let done = damage(node.path(), Class::Journal, &Damage::Truncate, seed).unwrap();
        assert_eq!(open(&node).stats().damaged.len(), 1, "{done:?}");
    }
}

#[test]
fn what_lies_behind_an_earlier_damage_is_found() {
    let node = node();
    let before = parts(node.path(), Class::Journal).unwrap();
    let first = &before[0];
    change(&first.path, first.bytes.start, PAGE_BYTES as usize, |bytes| {
        bytes.fill(0)
    })
    .unwrap();
    let after = parts(node.path(), Class::Journal).unwrap();
    assert_eq!(after, before[1..]);
}

#[test]
fn what_is_as_it_was_is_no_damage() {
    let node = node();
    for name in ["a.seg", "b.seg"] {
        fs::write(node.path().join("events/1-1").join(name), [0; 9_000]).unwrap();
    }
    assert_eq!(
        damage(node.path(), Class::Segments, &Damage::ZeroPage, 1).unwrap(),
        []
    );
}

#[test]
fn a_page_may_be_overwritten_with_another_one() {
    let node = node();
    let before = contents(node.path());
    // Some seeds draw a page that is like the other.
    let is_changed = (0..20).any(|seed| {
        let done = damage(node.path(), Class::Journal, &Damage::CopyChunk, seed).unwrap();
        assert_eq!(done.len(), 1);
        contents(node.path()) != before
    });
    assert!(is_changed);
}

#[test]
fn a_node_that_runs_is_left_alone() {
    let node = node();
    let lock = File::create(node.path().join("lock")).unwrap();
    lock.try_lock().unwrap();
    let refused = damage(node.path(), Class::Journal, &FLIP, 1);
    assert!(matches!(refused, Err(CorruptError::InUse(_))));
    assert!(matches!(
        keep_copy(node.path(), node.path()),
        Err(CorruptError::InUse(_))
    ));
    drop(lock);
    assert!(damage(node.path(), Class::Journal, &FLIP, 1).is_ok());
}
