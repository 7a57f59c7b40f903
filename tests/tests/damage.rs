//! Bits that flip on a disk: in a sealed event segment, which is mended from another node, and in the
//! journal, which costs the node its replicas and gives it new ones.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

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
