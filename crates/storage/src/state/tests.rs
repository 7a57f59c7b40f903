//! Both stores keep the same promises.

use bytes::Bytes;
use dunlin_model::id::{GroupId, GroupReplica, ReplicaId};
use dunlin_model::port::{ShardStore, StoreError, WriteBatch};
use proptest::prelude::*;

use super::*;

type Pairs = Vec<(Bytes, Bytes)>;

fn put(store: &dyn ShardStore, pairs: &[(&str, &str)]) {
    let mut batch = WriteBatch::default();
    for (key, value) in pairs {
        batch.put(key.as_bytes(), value.as_bytes().to_vec());
    }
    store.write(batch).unwrap();
}

fn all(store: &dyn ShardStore) -> Pairs {
    store.snapshot().collect::<Result<_, _>>().unwrap()
}

fn pairs(list: &[(&str, &str)]) -> Pairs {
    list.iter()
        .map(|(key, value)| (Bytes::from(key.to_string()), Bytes::from(value.to_string())))
        .collect()
}

/// What every [`ShardStore`] promises, on an empty store.
fn conforms(store: &dyn ShardStore) {
    put(store, &[("b", "1"), ("a", "2"), ("c", "3")]);
    assert_eq!(store.get(b"a").unwrap().as_deref(), Some(&b"2"[..]));
    assert_eq!(store.get(b"x").unwrap(), None);
    assert_eq!(
        store.scan(b"a", b"c", 10).unwrap(),
        pairs(&[("a", "2"), ("b", "1")])
    );
    assert_eq!(store.scan(b"a", b"z", 1).unwrap(), pairs(&[("a", "2")]));
    assert_eq!(store.scan(b"c", b"a", 9).unwrap(), vec![]);

    let before = store.snapshot();
    let mut batch = WriteBatch::default();
    batch.put(*b"a", Bytes::from_static(b"9"));
    batch.delete(*b"a");
    batch.delete(*b"b");
    batch.put(*b"b", Bytes::from_static(b"8"));
    store.write(batch).unwrap();
    assert_eq!(
        all(store),
        pairs(&[("b", "8"), ("c", "3")]),
        "the later line of a batch wins"
    );
    let seen: Pairs = before.collect::<Result<_, _>>().unwrap();
    assert_eq!(
        seen,
        pairs(&[("a", "2"), ("b", "1"), ("c", "3")]),
        "a snapshot stands still"
    );

    let failed = vec![
        Ok((Bytes::from("z"), Bytes::from("1"))),
        Err(StoreError::io("read", "cut")),
    ];
    assert!(store.replace(&mut failed.into_iter()).is_err());
    assert_eq!(
        all(store),
        pairs(&[("b", "8"), ("c", "3")]),
        "a failed replace changes nothing"
    );
    for round in ["1", "2"] {
        store
            .replace(&mut pairs(&[("k", round), ("l", "m")]).into_iter().map(Ok))
            .unwrap();
        assert_eq!(all(store), pairs(&[("k", round), ("l", "m")]));
    }
    put(store, &[("n", "o")]);
    store.checkpoint().unwrap();
    assert_eq!(all(store), pairs(&[("k", "2"), ("l", "m"), ("n", "o")]));
}

fn id(group: u32) -> GroupReplica {
    GroupReplica {
        group: GroupId(group),
        replica: ReplicaId(7),
    }
}

#[test]
fn the_memory_store_conforms() {
    let store = MemStore::new();
    conforms(&store);
    store.power_cut(StateCut::LoseAll);
    assert_eq!(all(&store), pairs(&[("k", "2"), ("l", "m"), ("n", "o")]));
}

#[test]
fn the_database_conforms_and_keeps_its_content() {
    let root = tempfile::tempdir().unwrap();
    let db = StateDb::open(root.path()).unwrap();
    conforms(&*db.replica(id(1)).unwrap());
    put(&*db.replica(id(2)).unwrap(), &[("other", "replica")]);
    db.replica(id(2)).unwrap().checkpoint().unwrap();
    drop(db);
    let db = StateDb::open(root.path()).unwrap();
    assert_eq!(db.replicas().unwrap(), vec![id(1), id(2)]);
    assert_eq!(
        all(&*db.replica(id(1)).unwrap()),
        pairs(&[("k", "2"), ("l", "m"), ("n", "o")])
    );
    db.remove(id(1)).unwrap();
    assert_eq!(db.replicas().unwrap(), vec![id(2)]);
    assert_eq!(
        all(&*db.replica(id(1)).unwrap()),
        vec![],
        "a removed replica starts empty"
    );
    assert_eq!(all(&*db.replica(id(2)).unwrap()), pairs(&[("other", "replica")]));
}

#[test]
fn a_replace_is_durable_on_return() {
    let root = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let db = StateDb::open(root.path()).unwrap();
    let store = db.replica(id(1)).unwrap();
    put(&*store, &[("old", "1")]);
    store.checkpoint().unwrap();
    store
        .replace(&mut pairs(&[("new", "2")]).into_iter().map(Ok))
        .unwrap();
    // What another process would find if this one died now.
    copy_tree(root.path(), copy.path());
    let other = StateDb::open(copy.path()).unwrap();
    assert_eq!(all(&*other.replica(id(1)).unwrap()), pairs(&[("new", "2")]));
}

/// A power cut leaves any sectors of what was not synced: here the second of three writes has lost one.
#[test]
fn a_hole_in_what_was_not_synced_costs_nothing_that_a_checkpoint_has_kept() {
    let root = tempfile::tempdir().unwrap();
    let copy = tempfile::tempdir().unwrap();
    let values: Vec<String> = ["b", "c", "d"]
        .iter()
        .map(|letter| letter.repeat(2_000))
        .collect();
    let db = StateDb::open(root.path()).unwrap();
    let store = db.replica(id(1)).unwrap();
    put(&*store, &[("a", "kept")]);
    store.checkpoint().unwrap();
    for value in &values {
        put(&*store, &[(&value[..1], value)]);
    }
    store.checkpoint().unwrap();
    copy_tree(root.path(), copy.path());
    let journal = copy.path().join("0.jnl");
    let mut bytes = std::fs::read(&journal).unwrap();
    let middle = values[1].as_bytes();
    let place = bytes.windows(middle.len()).position(|window| window == middle);
    bytes[place.unwrap() + 512..][..512].fill(0);
    std::fs::write(&journal, bytes).unwrap();
    let cut = StateDb::open(copy.path()).unwrap();
    let store = cut.replica(id(1)).unwrap();
    assert_eq!(all(&*store), pairs(&[("a", "kept"), ("b", &values[0])]));
    // It goes on from there as if nothing had been behind the cut.
    put(&*store, &[("e", "new")]);
    store.checkpoint().unwrap();
    drop((store, cut));
    let again = StateDb::open(copy.path()).unwrap();
    assert_eq!(
        all(&*again.replica(id(1)).unwrap()),
        pairs(&[("a", "kept"), ("b", &values[0]), ("e", "new")])
    );
}

fn copy_tree(from: &std::path::Path, to: &std::path::Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&target).unwrap();
            copy_tree(&entry.path(), &target);
        } else {
            match std::fs::copy(entry.path(), target) {
                // The database runs: what it was writing has its own name by now.
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_power_cut_keeps_a_prefix_of_whole_batches(
        writes in prop::collection::vec((0u8..4, 0u8..4), 1..20),
        checkpoint_at in 0usize..20,
        seed: u64,
    ) {
        let store = MemStore::new();
        let mut states = vec![all(&store)];
        let mut durable = 0;
        for (number, (first, second)) in writes.iter().enumerate() {
            let mut batch = WriteBatch::default();
            batch.put(vec![*first], vec![number as u8]);
            batch.delete(vec![*second]);
            store.write(batch).unwrap();
            states.push(all(&store));
            if number == checkpoint_at {
                store.checkpoint().unwrap();
                durable = states.len() - 1;
            }
        }
        store.power_cut(StateCut::KeepPrefix { seed });
        prop_assert!(states[durable..].contains(&all(&store)));
    }
}
