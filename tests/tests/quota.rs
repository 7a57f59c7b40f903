//! A hub that is held to a plan, with real nodes that die: as much passes as the plan has, and not one more.

use dunlin_gateway::client::{Client, Event};
use dunlin_tests::PATIENCE;
use dunlin_tests::field::Field;
use dunlin_tests::hub::Device;
use futures_util::future::join_all;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

/// Messages of half a KiB that each message here is.
const WEIGHT: usize = 50;
/// As many of them as F1 has for a day.
const DAY: usize = 8_000 / WEIGHT;

async fn hold_to(field: &Field, sku: Value) -> Value {
    let body = json!({ "sku": sku });
    let (status, answer) = field.hub.call(Method::PUT, "/quota", Some(body)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer
}

async fn used(field: &Field) -> u64 {
    let (status, answer) = field.hub.call(Method::GET, "/quota", None).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    answer["metrics"][0]["currentValue"].as_u64().expect("a number")
}

/// Messages that were stored, and those of which nobody knows.
#[derive(Default)]
struct Sent {
    stored: usize,
    unknown: usize,
    refused: usize,
}

/// Has the device send through one door after the other until it is refused so often.
async fn send(field: &Field, device: &Device, mut door: usize, refusals: usize) -> Sent {
    let mut sent = Sent::default();
    let path = format!("/devices/{}/messages/events", device.id);
    while sent.refused < refusals {
        door = (door + 1) % field.hub.doors.len();
        let request = field
            .hub
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

#[tokio::test]
async fn a_day_has_its_messages_whatever_node_dies() {
    let mut field = Field::start(3, &[]).await;
    let devices = field.hub.create_many("d", 4).await;
    // One that stays connected throughout, at the node that stays.
    let listener = field.hub.create("listener").await;
    let mut options = field.hub.doors[0].options(&listener);
    options.version = dunlin_gateway::mqtt::Version::V5;
    let mut client = Client::connect(&options).await.expect("connected");
    hold_to(&field, json!({ "name": "F1", "capacity": 1 })).await;
    let half = devices.iter().enumerate().map(|(door, device)| {
        let path = format!("/devices/{}/messages/events", device.id);
        let hub = &field.hub;
        async move {
            for _ in 0..DAY / 8 {
                let request = hub.request(door % 3, Method::POST, &path);
                let request = request.header("authorization", device.token());
                let answer = request.body(vec![b'x'; WEIGHT * 512]).send().await;
                assert_eq!(answer.expect("an answer").status(), StatusCode::NO_CONTENT);
            }
        }
    });
    join_all(half).await;
    let stored = devices.len() * (DAY / 8);
    assert_eq!(used(&field).await, (stored * WEIGHT) as u64);
    // Whoever keeps the count is among those that die and come back.
    for node in [1, 2] {
        field.kill(node).await;
        field.restart(node).await;
    }
    field.kill(2).await;
    let rest = join_all(
        devices
            .iter()
            .enumerate()
            .map(|(door, device)| send(&field, device, door, 3)),
    )
    .await;
    field.restart(2).await;
    let known: usize = stored + rest.iter().map(|sent| sent.stored).sum::<usize>();
    let unknown: usize = rest.iter().map(|sent| sent.unknown).sum();
    assert!(
        known <= DAY && known + unknown >= DAY,
        "{known} and {unknown} of {DAY}"
    );
    assert_eq!(
        used(&field).await,
        (DAY * WEIGHT) as u64,
        "all of it, and no more"
    );
    let events = field.hub.read_all().await.len();
    assert!((known..=DAY).contains(&events), "{events} events of {known}");
    // A device is told, and connected still; with more units it goes on.
    let topic = format!("devices/{}/messages/events/", listener.id);
    let id = client.publish(&topic, b"x").await.expect("published");
    let refused = Event::Refused { id, reason: 0x97 };
    assert_eq!(client.next_event().await, refused);
    hold_to(&field, json!({ "name": "S1", "capacity": 1 })).await;
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
    hold_to(&field, json!({ "name": "S1", "capacity": 1 })).await;
    let path = format!("/devices/{}", device.id);
    // All of them know by now that there is a plan.
    let knows = |door: usize| {
        let hub = &field.hub;
        async move {
            let asked = hub.request_as_admin(door, Method::GET, "/quota").send().await;
            let answer: Value = asked.expect("an answer").json().await.expect("JSON");
            assert_eq!(answer["sku"]["name"], "S1");
        }
    };
    join_all((0..3).map(knows)).await;
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
