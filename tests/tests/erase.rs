//! A device that is erased: no reader gets an event of it, its bytes go from every node's files, and all else stays.

use std::path::Path;

use dunlin_tests::field::Field;
use dunlin_tests::load::Load;
use dunlin_tests::{PATIENCE, eventually};
use reqwest::{Method, StatusCode};
use serde_json::Value;

/// What no compression shortens: it stands in a file as it is, or not at all.
const SECRET: &[u8] = b"Xq7Lw2Zk9Rt4Vb6Nm1Pj8Hd3";

/// Files of events below `folder` that have the secret in them.
fn holders(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_events = path.components().any(|part| part.as_os_str() == "events");
            if path.is_dir() {
                folders.push(path);
            } else if is_events {
                let bytes = std::fs::read(&path).unwrap_or_default();
                if bytes.windows(SECRET.len()).any(|window| window == SECRET) {
                    found.push(path.display().to_string());
                }
            }
        }
    }
    found
}

async fn send(field: &Field, device: &dunlin_tests::hub::Device, body: &[u8]) {
    let path = format!("/devices/{}/messages/events", device.id);
    let request = field
        .hub
        .request(0, Method::POST, &path)
        .header("authorization", device.token())
        .body(body.to_vec());
    let answer = request.send().await.expect("an answer");
    assert_eq!(answer.status(), StatusCode::NO_CONTENT);
}

#[tokio::test]
async fn an_erased_device_is_gone_from_readers_and_from_disks() {
    let mut field = Field::start(3, &["--segment-age", "1"]).await;
    let gone = field.hub.create("gone").await;
    let others = field.hub.create_many("d", 3).await;
    let load = Load::start(&field.hub.doors, &others);
    for _ in 0..5 {
        send(&field, &gone, SECRET).await;
        load.wait_acked(load.acked() + 50).await;
    }
    load.finish().await;
    let before = field.hub.read_all().await;
    // On every node, as every node has a copy.
    eventually("the events are on disk", PATIENCE, || {
        let found = holders(field.path());
        async move {
            if found.len() >= 3 {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            }
        }
    })
    .await;
    // One of them is away meanwhile.
    field.kill(2).await;
    let (status, answer): (_, Value) = field.hub.call(Method::POST, "/devices/gone/erase", None).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let (status, _) = field.hub.call(Method::GET, "/devices/gone", None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let check = |now: Vec<dunlin_tests::judge::Stored>| {
        assert!(
            now.iter()
                .all(|event| event.device != "gone" && event.body != SECRET)
        );
        let kept: Vec<_> = before.iter().filter(|event| event.device != "gone").collect();
        assert_eq!(now.len(), kept.len());
        for (now, before) in now.iter().zip(kept) {
            assert_eq!((now.place, &now.body), (before.place, &before.body));
        }
    };
    check(field.hub.read_all().await);
    field.restart(2).await;
    eventually("the bytes are gone", PATIENCE, || {
        let found = holders(field.path());
        async move {
            if found.is_empty() {
                Ok(())
            } else {
                Err(format!("{found:?}"))
            }
        }
    })
    .await;
    check(field.hub.read_all().await);
    // Another device of that name has a history of its own, and whoever leads from now on has the same.
    let again = field.hub.create("gone").await;
    send(&field, &again, b"new").await;
    field.kill(0).await;
    let hub = field.hub.through(field.cluster.ready().nodes.iter().skip(1));
    let now = hub.read_all().await;
    assert_eq!(now.iter().filter(|event| event.device == "gone").count(), 1);
    check(now.into_iter().filter(|event| event.device != "gone").collect());
    field.restart(0).await;
    field.stop().await;
}
