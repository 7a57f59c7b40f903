//! A device that is erased: no reader gets an event of it, its bytes go from every node's files, what it uploaded and its
//! registration go, and all else stays.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use dunlin_tests::field::Field;
use dunlin_tests::hub::Device;
use dunlin_tests::load::Load;
use dunlin_tests::registering::register;
use dunlin_tests::{PATIENCE, eventually};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

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

async fn send(field: &Field, device: &Device, body: &[u8]) {
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

/// Uploads a file as a device does, through the node in place `door`.
async fn upload(field: &Field, door: usize, device: &Device, name: &str) {
    let path = format!("/devices/{}/files", device.id);
    let begin = field.hub.request(door, Method::POST, &path);
    let begin = begin.header("authorization", device.token());
    let begun = begin.json(&json!({ "blobName": name })).send().await;
    let begun: Value = begun.expect("an answer").json().await.expect("JSON");
    let part = |key: &str| {
        begun[key]
            .as_str()
            .unwrap_or_else(|| panic!("no {key} in {begun}"))
    };
    let address = format!(
        "/{}/{}{}",
        part("containerName"),
        part("blobName"),
        part("sasToken")
    );
    let put = field.hub.request(door, Method::PUT, &address);
    let put = put.header("x-ms-blob-type", "BlockBlob").body(SECRET);
    let put = put.send().await.expect("an answer");
    assert_eq!(put.status(), StatusCode::CREATED);
}

/// Files below `folder`, as paths within it.
fn files(folder: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(one) = folders.pop() {
        for entry in std::fs::read_dir(&one).into_iter().flatten().flatten() {
            let path = entry.path();
            match path.is_dir() {
                true => folders.push(path),
                false => found.extend(path.strip_prefix(folder).map(|path| path.display().to_string())),
            }
        }
    }
    found.sort();
    found
}

#[tokio::test]
async fn what_an_erased_device_has_left_elsewhere_goes_though_a_node_dies() {
    let folder = tempfile::tempdir().expect("a folder");
    let store = folder.path().join("store");
    let config = folder.path().join("dunlin.toml");
    let text = format!("object_store = \"file://{}\"\n", store.display());
    std::fs::write(&config, text).expect("it is written");
    let mut field = Field::start(3, &["--config", config.to_str().expect("a path that is text")]).await;
    let key = BASE64.encode([7; 32]);
    let scope = field.hub.call(Method::GET, "/provisioning", None).await.1;
    let scope = scope["idScope"].as_str().expect("an id scope").to_owned();
    for name in ["gone", "other"] {
        let keys = json!({ "primaryKey": key, "secondaryKey": BASE64.encode([8; 32]) });
        let attestation = json!({ "type": "symmetricKey", "symmetricKey": keys });
        // Registered under another name than the device has, which lies in another shard.
        let body =
            json!({ "registrationId": format!("r-{name}"), "deviceId": name, "attestation": attestation });
        let path = format!("/enrollments/r-{name}");
        let (status, answer) = field.hub.call(Method::PUT, &path, Some(body)).await;
        assert!(status.is_success(), "{answer}");
        let (status, told) = register(&field.hub.doors[0], &scope, &format!("r-{name}"), &key)
            .await
            .expect("a connection");
        assert_eq!((status, &told["status"]), (200, &json!("assigned")), "{told}");
        let device = Device {
            id: name.to_owned(),
            key: key.clone(),
        };
        upload(&field, 0, &device, "a.txt").await;
        upload(&field, 1, &device, "b/c.txt").await;
    }
    // So many that whoever erases does not come to the end of them.
    for number in 0..3_000 {
        std::fs::write(store.join(format!("uploads/gone/{number}")), "x").expect("it is written");
    }
    let erase = field.hub.request_as_admin(0, Method::POST, "/devices/gone/erase");
    let erased = erase.send().await.expect("an answer");
    assert_eq!(erased.status(), StatusCode::OK);
    field.kill(0).await;
    let others = ["uploads/other/a.txt", "uploads/other/b/c.txt"];
    eventually("only files of others are there", PATIENCE, || {
        let found = files(&store.join("uploads"));
        async move {
            match found.iter().map(|path| format!("uploads/{path}")).eq(others) {
                true => Ok(()),
                false => Err(format!("{} files: {:?}", found.len(), found.first())),
            }
        }
    })
    .await;
    let hub = field.hub.through(field.cluster.ready().nodes.iter().skip(1));
    eventually("the registration is gone", PATIENCE, || {
        let hub = &hub;
        async move {
            match hub.call(Method::GET, "/registrations/r-gone", None).await {
                (StatusCode::NOT_FOUND, _) => Ok(()),
                other => Err(format!("{other:?}")),
            }
        }
    })
    .await;
    let (status, _) = hub.call(Method::GET, "/registrations/r-other", None).await;
    assert_eq!(status, StatusCode::OK);
    field.restart(0).await;
    field.stop().await;
}
