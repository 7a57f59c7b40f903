//! Bits that flip on a disk: in a sealed event segment, which is mended from another node, and in the
//! journal, which costs the node its replicas and gives it new ones; and in all of them at once.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use dunlin_chaos::corrupter::{Class, Damage, damage};
use dunlin_tests::field::{Field, SHARDS, replicas};
use dunlin_tests::judge::assert_kept;
use dunlin_tests::load::Load;
use dunlin_tests::{PATIENCE, eventually};

/// Inverts `length` bytes of a file from `at` on.
fn flip(path: &Path, at: u64, length: usize) {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .expect("a file of the node");
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, at).expect("the file is longer");
    bytes.iter_mut().for_each(|byte| *byte = !*byte);
    file.write_all_at(&bytes, at).expect("the file can be written");
}

/// Files below `folder`, each with its content.
fn files(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let entries = std::fs::read_dir(folder).expect("a folder of the node").flatten();
    let mut found = BTreeMap::new();
    for path in entries.map(|entry| entry.path()) {
        if path.is_dir() {
            found.extend(files(&path));
        } else if let Ok(content) = std::fs::read(&path) {
            found.insert(path, content);
        }
    }
    found
}

/// Event segments of a node that others follow, so that they are sealed.
fn sealed(events: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut of_replica: BTreeMap<PathBuf, Vec<(PathBuf, Vec<u8>)>> = BTreeMap::new();
    for (path, content) in files(events) {
        let is_segment = path.extension().is_some_and(|extension| extension == "seg");
        if is_segment && let Some(folder) = path.parent() {
            of_replica
                .entry(folder.to_owned())
                .or_default()
                .push((path, content));
        }
    }
    let mut found = BTreeMap::new();
    for (_, mut segments) in of_replica {
        segments.pop();
        found.extend(segments);
    }
    found
}

#[tokio::test]
async fn a_flipped_bit_in_a_sealed_segment_is_mended_from_another_node() {
    let field = Field::start(3, &["--segment-age", "1"]).await;
    let devices = field.hub.create_many("d", 12).await;
    let load = Load::start(&field.hub.doors[..1], &devices);
    let events = field.data(0).join("events");
    eventually("sealed segments of every shard", PATIENCE, || async {
        let folders = sealed(&events)
            .keys()
            .filter_map(|path| path.parent().map(Path::to_owned))
            .collect::<std::collections::BTreeSet<_>>();
        (folders.len() == SHARDS)
            .then_some(())
            .ok_or(format!("{} shards", folders.len()))
    })
    .await;
    let logs = load.finish().await;
    let before = sealed(&events);
    for (path, content) in &before {
        flip(path, content.len() as u64 / 3, 1);
    }
    // Whoever leads is read from; those that this node leads are read damaged, and mended meanwhile.
    assert_kept(&logs, &field.hub.read_all().await);
    // The others are found by the slow look through all of them.
    eventually("every segment is as it was", PATIENCE, || async {
        let left: Vec<_> = before
            .iter()
            .filter(|(path, content)| std::fs::read(path).ok().as_ref() != Some(content))
            .map(|(path, _)| path.display().to_string())
            .collect();
        if left.is_empty() {
            Ok(())
        } else {
            Err(left.join(", "))
        }
    })
    .await;
    assert_kept(&logs, &field.hub.read_all().await);
    field.stop().await;
}

#[tokio::test]
async fn a_damaged_journal_costs_a_node_its_replicas_and_gives_it_new_ones() {
    let mut field = Field::start(3, &[]).await;
    let devices = field.hub.create_many("d", 12).await;
    let load = Load::start(&field.hub.doors[..1], &devices);
    load.wait_acked(500).await;
    let status = field.hub.status().await;
    let old = status["groups"].clone();
    field.cluster.kill(2).await.expect("the node is ours to kill");
    let journal = field.data(2).join("journal");
    let used = files(&journal)
        .into_keys()
        .find(|path| path.extension().is_some_and(|extension| extension == "log"))
        .expect("a journal segment in use");
    // Far from the last flush: what is there now was synced, and no crash explains it.
    flip(&used, 64 * 1024, 4096);
    field
        .cluster
        .restart(2)
        .await
        .expect("the node becomes ready again");
    let id = field.id(2);
    load.wait_acked(200).await;
    field
        .settled("the node has all its replicas again", |nodes| {
            let whole = nodes.iter().all(|node| node["damaged"].is_null());
            whole && replicas(nodes, &id) == SHARDS as u64 + 1
        })
        .await;
    assert_ne!(
        field.hub.status().await["directory_version"],
        status["directory_version"],
        "{old}"
    );
    load.wait_acked(200).await;
    // Now the new replicas are needed for every majority.
    field.cluster.kill(1).await.expect("the node is ours to kill");
    load.wait_acked(200).await;
    let logs = load.finish().await;
    assert_kept(&logs, &field.hub.read_all().await);
    field.stop().await;
}

/// One flip in so many bytes: eight times as many as a hub is meant to stand, since the files of a test are small.
const FLIP: Damage = Damage::FlipPer { bytes: 8 << 10 };
/// Journal that one node must have written before it is damaged, so that the flips are many.
const JOURNAL_BYTES_MIN: u64 = 1 << 20;

#[tokio::test]
async fn a_node_whose_every_file_has_rotted_is_mended_and_nothing_acked_is_lost() {
    let mut field = Field::start(3, &["--segment-age", "1"]).await;
    let devices = field.hub.create_many("d", 12).await;
    let load = Load::start(&field.hub.doors[..1], &devices);
    let (id, data) = (field.id(2), field.data(2));
    let written = || async {
        let bytes = journal_bytes(&data.join("journal"));
        let has_segments = sealed(&data.join("events")).len() >= SHARDS;
        (bytes >= JOURNAL_BYTES_MIN && has_segments)
            .then_some(())
            .ok_or(format!("{bytes} bytes"))
    };
    eventually("a journal worth damaging, and sealed segments", PATIENCE, written).await;
    field.cluster.kill(2).await.expect("the node is ours to kill");
    for (seed, class) in [Class::Journal, Class::Votes, Class::Segments, Class::Snapshots]
        .into_iter()
        .enumerate()
    {
        let done = damage(&data, class, &FLIP, seed as u64).expect("the node is stopped");
        println!("{class:?}: {} flips", done.len());
        // Snapshots rest on a disk only while they arrive.
        assert!(!done.is_empty() || class == Class::Snapshots, "{class:?}");
    }
    for round in 0..2 {
        field
            .cluster
            .restart(2)
            .await
            .unwrap_or_else(|error| panic!("round {round}: {error}"));
        load.wait_acked(200).await;
        field
            .settled(
                "the node has all its replicas again, and they are whole",
                |nodes| {
                    let whole = nodes.iter().all(|node| node["damaged"].is_null());
                    whole && replicas(nodes, &id) == SHARDS as u64 + 1
                },
            )
            .await;
        if round == 0 {
            // What was mended stays so when it starts once more.
            field.cluster.kill(2).await.expect("the node is ours to kill");
        }
    }
    // Now what was mended is needed for every majority.
    field.cluster.kill(1).await.expect("the node is ours to kill");
    load.wait_acked(200).await;
    let logs = load.finish().await;
    assert_kept(&logs, &field.hub.read_all().await);
    field.stop().await;
}

/// Bytes that are written in a journal: its segments are full of zeros beforehand.
fn journal_bytes(folder: &Path) -> u64 {
    let blocks = |content: &Vec<u8>| {
        content
            .chunks(4096)
            .filter(|block| block.iter().any(|b| *b != 0))
            .count()
    };
    let segments = files(folder)
        .into_iter()
        .filter(|(path, _)| path.extension().is_some_and(|extension| extension == "log"));
    segments.map(|(_, content)| blocks(&content) as u64 * 4096).sum()
}
