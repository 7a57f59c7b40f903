//! An erased device leaves nothing behind: neither its files in the object store, nor its registration; and nothing of
//! another is touched.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use dunlin_gateway::limits::LEFTOVERS_STAY;
use dunlin_model::command::{Command, Consistency, Outcome, Query, View};
use dunlin_model::id::{DeviceId, ShardId};
use dunlin_model::identity::Condition;
use dunlin_model::port::{BlobStore as _, ShardClient as _};
use dunlin_model::provisioning::{ProofKind, RegistrationId, RegistrationSpec, Substatus};

use crate::uploads::{begin, by_device, put, world};
use crate::world::{HOST, World};

/// Waits for a condition, and says what was there instead.
async fn until(what: &str, mut is_so: impl AsyncFnMut() -> Result<(), String>) {
    let begun = Instant::now();
    while let Err(instead) = is_so().await {
        assert!(begun.elapsed() < Duration::from_secs(30), "{what}: {instead}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn keep(world: &World, path: &str) {
    world.files.memory.put(path.to_owned(), "x".into()).await.unwrap();
}

async fn until_paths(world: &World, expected: &[&str]) {
    until("files", async || {
        let paths = world.files.memory.paths();
        (paths == expected).then_some(()).ok_or(format!("{paths:?}"))
    })
    .await;
}

/// Registers `device` at a hub, as it is done when it comes.
async fn register(world: &World, name: &str, hub: &str, device: &str) {
    let spec = RegistrationSpec {
        name: name.to_owned(),
        group: Some("g".to_owned()),
        proof: ProofKind::SymmetricKey,
        storage_root_key: None,
        hub: hub.to_owned(),
        device: DeviceId::parse(device).unwrap(),
        leaving: None,
        substatus: Substatus::InitialAssignment,
        payload: None,
        operation: String::new(),
    };
    let put = Command::RegistrationPut {
        id: RegistrationId::parse(name).unwrap(),
        spec: Box::new(spec),
        enrollment: None,
        condition: Condition::Absent,
    };
    let outcome = world.cluster.submit(put).await.unwrap();
    assert!(matches!(outcome, Outcome::Kept { .. }), "{outcome:?}");
}

async fn is_registered(world: &World, name: &str) -> bool {
    let path = format!("/registrations/{name}");
    let answer = world
        .provisioning("GET", &path, &[], serde_json::Value::Null)
        .await;
    match answer.status {
        200 => true,
        404 => false,
        _ => panic!("{}", answer.body),
    }
}

async fn erase(world: &World, device: &str) {
    let answer = world
        .http("POST", &format!("/devices/{device}/erase"), &[], "")
        .await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

/// Lets the time pass in which something of an erased device may still come.
fn pass(world: &World) {
    let later = LEFTOVERS_STAY.as_millis() as u64 + 10_000;
    world.now_ms.fetch_add(later, Relaxed);
    world.cluster.pass_ms(later);
}

async fn until_settled(world: &World) {
    until("nothing is written down", async || {
        for shard in (0..4).map(ShardId) {
            let after = bytes::Bytes::new();
            let asked = world
                .cluster
                .query(Query::Leftovers { shard, after }, Consistency::Leader);
            match asked.await {
                Ok(View::Leftovers { found, .. }) if found.is_empty() => {}
                other => return Err(format!("{other:?}")),
            }
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn files_and_registrations_of_an_erased_device_go_and_no_others() {
    let world = world().await;
    let whole = begin(&world, "a/log.txt").await;
    assert_eq!(put(&world, &whole.address, b"hello").await.status, 201);
    // Blocks that no list made a file of.
    let parts = begin(&world, "parts").await;
    let block = parts.with("comp=block&blockid=b25l");
    assert_eq!(put(&world, &block, b"one").await.status, 201);
    for path in [
        "uploads/dev-10/log.txt",
        "uploads/dev/1",
        "other/dev-1/x",
        ".uploads/0123/aa",
    ] {
        keep(&world, path).await;
    }
    world.cluster.add_device("dev-10");
    for (name, hub, device) in [
        ("dev-1", HOST, "dev-1"),
        ("by-another-name", "localhost", "dev-1"),
        ("elsewhere", "linked.example", "dev-1"),
        ("dev-10", HOST, "dev-10"),
    ] {
        register(&world, name, hub, device).await;
    }
    erase(&world, "dev-1").await;
    let others = [
        ".uploads/0123/aa",
        "other/dev-1/x",
        "uploads/dev-10/log.txt",
        "uploads/dev/1",
    ];
    until_paths(&world, &others).await;
    until("registrations", async || {
        let left = is_registered(&world, "dev-1").await || is_registered(&world, "by-another-name").await;
        (!left).then_some(()).ok_or("one is there".to_owned())
    })
    .await;
    assert!(is_registered(&world, "elsewhere").await && is_registered(&world, "dev-10").await);

    // What was just being put in its place when the device was erased is looked for once more; until then no other device
    // of that name uploads anything.
    keep(&world, "uploads/dev-1/late").await;
    world.cluster.add_device("dev-1");
    let files = "/devices/dev-1/files";
    let body = r#"{"blobName": "new"}"#;
    let refused = by_device(&world, files, body).await;
    assert_eq!(
        (refused.status, refused.error_code()),
        (503, "ServerBusy"),
        "{}",
        refused.body
    );
    pass(&world);
    until_settled(&world).await;
    until_paths(&world, &others).await;
    let new = begin(&world, "new").await;
    assert_eq!(put(&world, &new.address, b"hello").await.status, 201);
    assert!(world.files.memory.get("uploads/dev-1/new").is_some());
}

#[tokio::test]
async fn what_cannot_be_removed_is_tried_again_and_keeps_nothing_else() {
    let world = world().await;
    for path in ["uploads/dev-1/a", "uploads/dev-1/stuck", "uploads/dev-2/b"] {
        keep(&world, path).await;
    }
    world.files.memory.stick(Some("uploads/dev-1/stuck"));
    erase(&world, "dev-1").await;
    erase(&world, "dev-2").await;
    until_paths(&world, &["uploads/dev-1/stuck"]).await;
    pass(&world);
    world.files.memory.stick(None);
    // Another erasure wakes who looks.
    erase(&world, "dev-3").await;
    until_paths(&world, &[]).await;
    pass(&world);
    erase(&world, "dev-4").await;
    until("dev-1 is settled", async || {
        let device = DeviceId::parse("dev-1").unwrap();
        let (shard, after) = (world.cluster.shard_of(&device), bytes::Bytes::new());
        let asked = world
            .cluster
            .query(Query::Leftovers { shard, after }, Consistency::Leader);
        match asked.await {
            Ok(View::Leftovers { found, .. }) if found.iter().all(|one| one.device != device) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

#[tokio::test]
async fn a_shard_that_cannot_be_reached_keeps_no_files_of_others() {
    let world = world().await;
    let (first, second) = (ShardId(0), ShardId(3));
    let device = (0..).map(|n| DeviceId::parse(&format!("d{n}")).unwrap());
    let device = device
        .into_iter()
        .find(|id| world.cluster.shard_of(id) == second)
        .unwrap();
    keep(&world, &format!("uploads/{device}/x")).await;
    world.cluster.lose_shard(Some(first));
    erase(&world, device.as_str()).await;
    until_paths(&world, &[]).await;
    world.cluster.lose_shard(None);
    pass(&world);
    until_settled(&world).await;
}

#[tokio::test]
async fn a_device_that_registers_after_it_was_erased_stays_registered() {
    let world = world().await;
    register(&world, "dev-1", HOST, "dev-1").await;
    erase(&world, "dev-1").await;
    until("the registration goes", async || {
        let is_there = is_registered(&world, "dev-1").await;
        (!is_there).then_some(()).ok_or("it is there".to_owned())
    })
    .await;
    // Later than any clock could be wrong by, and before the last look.
    world.cluster.pass_ms(30_000);
    register(&world, "dev-1", HOST, "dev-1").await;
    pass(&world);
    until_settled(&world).await;
    assert!(is_registered(&world, "dev-1").await);
}
