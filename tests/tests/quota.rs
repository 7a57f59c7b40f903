//! A hub that is held to a plan, with real nodes that die: as much passes as the plan has, and not one more.

use dunlin_gateway::client::{Client, Event};
use dunlin_model::id::slot_of;
use dunlin_model::quota::keeper;
use dunlin_tests::field::{Field, SHARDS};
use dunlin_tests::hub::{Device, Hub};
use dunlin_tests::{PATIENCE, eventually};
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// Messages of half a KiB that each message here is.
const WEIGHT: usize = 50;
/// As many of them as F1 has for a day.
const DAY: usize = 8_000 / WEIGHT;

async fn hold_to(hub: &Hub, sku: Value) -> Value {
    let body = json!({ "sku": sku });
    let (status, answer) = hub.call(Method::PUT, "/quota", Some(body)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer
}

async fn used(hub: &Hub) -> u64 {
    let (status, answer) = hub.call(Method::GET, "/quota", None).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer["metrics"][0]["currentValue"].as_u64().expect("a number")
}

/// Asks a gateway, which knows then that there is this plan.
async fn knows(hub: &Hub, door: usize, name: &str) {
    let asked = hub.request_as_admin(door, Method::GET, "/quota").send().await;
    let answer: Value = asked.expect("an answer").json().await.expect("JSON");
    assert_eq!(answer["sku"]["name"], name);
}

/// Messages that were stored, and those of which nobody knows.
#[derive(Default)]
struct Sent {
    stored: usize,
    unknown: usize,
    refused: usize,
}

/// Has the device send through one door after the other until it is refused so often.
async fn send(hub: &Hub, device: &Device, mut door: usize, refusals: usize) -> Sent {
    let mut sent = Sent::default();
    let path = format!("/devices/{}/messages/events", device.id);
    while sent.refused < refusals {
        door = (door + 1) % hub.doors.len();
        let request = hub
            .request(door, Method::POST, &path)
            .header("authorization", device.token())
            .body(vec![b'x'; WEIGHT * 512]);
        match request.send().await.map(|answer| answer.status()) {
            Ok(StatusCode::NO_CONTENT) => sent.stored += 1,
            Ok(StatusCode::FORBIDDEN) => sent.refused += 1,
            // Nothing happened.
            Ok(StatusCode::SERVICE_UNAVAILABLE | StatusCode::TOO_MANY_REQUESTS) => {}
            Ok(StatusCode::GATEWAY_TIMEOUT) => sent.unknown += 1,
            Ok(other) => panic!("{other}"),
            // A door that is not there took nothing; of one that went meanwhile nobody knows.
            Err(error) if error.is_connect() => {}
            Err(_) => sent.unknown += 1,
        }
    }
    sent
}

/// The node, by its place, that leads the shard which keeps the count.
async fn keeper(field: &Field) -> usize {
    let shard = usize::from(slot_of(keeper::NAME.as_bytes()).0) % SHARDS;
    // Group 0 is the directory.
    let group = json!(shard + 1);
    eventually("the keeper's shard has a leader", PATIENCE, || async {
        let status = field.hub.status().await;
        let groups = status["groups"].as_array()?;
        let line = groups.iter().find(|line| line["group"] == group)?;
        let leader = line["leader"].as_str()?;
        let nodes = &field.cluster.ready().nodes;
        nodes.iter().position(|node| node.id == leader)
    })
    .await
}

#[tokio::test]
async fn a_day_has_its_messages_whatever_node_dies() {
    let mut field = Field::start(3, &[]).await;
    let hub = field.hub.clone();
    let devices = hub.create_many("d", 4).await;
    let keeper = keeper(&field).await;
    // One that stays connected throughout, at a node that stays.
    let listener = hub.create("listener").await;
    let options = hub.doors[(keeper + 1) % 3].options(&listener);
    let mut client = Client::connect(&options).await.expect("connected");
    hold_to(&hub, json!({ "name": "F1", "capacity": 1 })).await;
    // All of them know by now that there is a plan.
    join_all((0..3).map(|door| knows(&hub, door, "F1"))).await;
    let sending = devices
        .iter()
        .enumerate()
        .map(|(door, device)| send(&hub, device, door, 3));
    let killing = async {
        let half = (DAY * WEIGHT / 2) as u64;
        eventually("half of the day is used", PATIENCE, || async {
            let used = used(&hub).await;
            if used >= half {
                Ok(())
            } else {
                Err(format!("{used}"))
            }
        })
        .await;
        field.kill(keeper).await;
    };
    let (sent, ()) = tokio::join!(join_all(sending), killing);
    field.restart(keeper).await;
    let known: usize = sent.iter().map(|sent| sent.stored).sum();
    let unknown: usize = sent.iter().map(|sent| sent.unknown).sum();
    assert!(
        known <= DAY && known + unknown >= DAY,
        "{known} and {unknown} of {DAY}"
    );
    assert_eq!(used(&hub).await, (DAY * WEIGHT) as u64, "all of it, and no more");
    let events = hub.read_all().await.len();
    assert!((known..=DAY).contains(&events), "{events} events of {known}");
    // A device is told, and connected still; with more units it goes on.
    let topic = format!("devices/{}/messages/events/", listener.id);
    let id = client.publish(&topic, b"x").await.expect("published");
    let refused = Event::Refused { id, reason: 0x97 };
    assert_eq!(client.next_event().await, refused);
    hold_to(&hub, json!({ "name": "S1", "capacity": 1 })).await;
    let passes = async {
        loop {
            let id = client.publish(&topic, b"x").await.expect("published");
            match client.next_event().await {
                Event::Puback { id: acked, .. } if acked == id => break,
                // Its gateway has yet to hear of it.
                Event::Refused { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    };
    tokio::time::timeout(PATIENCE, passes).await.expect("it passes");
    field.stop().await;
}

#[tokio::test]
async fn three_gateways_let_through_what_one_hub_may() {
    let field = Field::start(3, &[]).await;
    let device = field.hub.create("d").await;
    hold_to(&field.hub, json!({ "name": "S1", "capacity": 1 })).await;
    let path = format!("/devices/{}", device.id);
    join_all((0..3).map(|door| knows(&field.hub, door, "S1"))).await;
    let asking = (0..135).map(|place| {
        let request = field.hub.request_as_admin(place % 3, Method::GET, &path);
        async move { request.send().await.expect("an answer").status() }
    });
    let answers = join_all(asking).await;
    let count = |status: StatusCode| answers.iter().filter(|answer| **answer == status).count();
    assert_eq!(
        (count(StatusCode::OK), count(StatusCode::TOO_MANY_REQUESTS)),
        (100, 35)
    );
    field.stop().await;
}
