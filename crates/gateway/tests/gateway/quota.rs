//! The hub's plan at the doors: what passes, what is told to whom when nothing does, and that nobody is sent away by a change.

use std::collections::VecDeque;

use dunlin_gateway::client::{Event, device_token};
use dunlin_gateway::mqtt::Version;
use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::fake::KEY;
use crate::world::{Answer, HOST, NOW_S, World, next, puback};

const TOPIC: &str = "devices/dev-1/messages/events/";
/// A sixteenth of what F1 has for a day.
const LARGE_BYTES: usize = 500 * 512;

async fn put(world: &World, sku: Value) -> Answer {
    let body = json!({ "sku": sku }).to_string();
    world.http("PUT", "/quota", &[], &body).await
}

async fn hold_to(world: &World, name: &str, capacity: u32) {
    let answer = put(world, json!({ "name": name, "capacity": capacity })).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

async fn send(world: &World, bytes: usize) -> Answer {
    let token = device_token(HOST, "dev-1", KEY, NOW_S + 3600).unwrap();
    let path = "/devices/dev-1/messages/events";
    let body = vec![b'x'; bytes];
    world
        .http_as("POST", path, &[("Authorization", &token)], &body)
        .await
}

/// So many messages of a byte in one body.
async fn send_batch(world: &World, count: usize) -> Answer {
    let token = device_token(HOST, "dev-1", KEY, NOW_S + 3600).unwrap();
    let headers = [
        ("Authorization", token.as_str()),
        ("Content-Type", "application/vnd.microsoft.iothub.json"),
    ];
    let body = Value::from(vec![json!({ "body": "eA==" }); count]).to_string();
    world
        .http_as(
            "POST",
            "/devices/dev-1/messages/events",
            &headers,
            body.as_bytes(),
        )
        .await
}

/// Uses up a day of F1, but for so many messages.
async fn use_day_up(world: &World, left: usize) {
    hold_to(world, "F1", 1).await;
    for _ in 0..15 {
        assert_eq!(send(world, LARGE_BYTES).await.status, 204);
    }
    assert_eq!(send(world, LARGE_BYTES - left * 512).await.status, 204);
}

async fn used(world: &World) -> u64 {
    let answer = world.http("GET", "/quota", &[], "").await.json();
    answer["metrics"][0]["currentValue"].as_u64().unwrap()
}

fn error(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.error_code())
}

#[tokio::test]
async fn a_plan_is_kept_shown_and_taken_back() {
    let world = World::new().await;
    let none = json!({ "sku": null, "metrics": [], "rates": [] });
    assert_eq!(world.http("GET", "/quota", &[], "").await.json(), none);
    hold_to(&world, "S2", 3).await;
    world.audit.next("quota.put").await;
    let shown = world.http("GET", "/quota", &[], "").await.json();
    assert_eq!(shown["sku"], json!({ "name": "S2", "capacity": 3 }));
    assert_eq!(shown["metrics"][0]["maxValue"], 18_000_000);
    let rate = json!({ "operation": "registry", "count": 300, "perSeconds": 60 });
    assert!(shown["rates"].as_array().unwrap().contains(&rate), "{shown}");
    // What was read may be sent back.
    let again = world.http("PUT", "/quota", &[], &shown.to_string()).await;
    assert_eq!(again.json()["sku"], shown["sku"]);
    for wrong in [
        json!({ "name": "B1", "capacity": 1 }),
        json!({ "name": "F1", "capacity": 2 }),
        json!({ "name": "S1", "capacity": 0 }),
        json!({ "name": "S1" }),
        json!(1),
    ] {
        assert_eq!(error(&put(&world, wrong).await), (400, "ArgumentInvalid"));
    }
    for wrong in ["{}", r#"{"Sku": null}"#, "[]"] {
        let answer = world.http("PUT", "/quota", &[], wrong).await;
        assert_eq!(
            error(&answer),
            (400, "ArgumentInvalid"),
            "{wrong}: none has to be said"
        );
    }
    let service = world.service_token("service");
    let foreign = world
        .http_as("PUT", "/quota", &[("Authorization", &service)], b"{}")
        .await;
    assert_eq!(foreign.status, 401);
    assert_eq!(put(&world, Value::Null).await.json(), none);
}

#[tokio::test]
async fn as_many_operations_pass_as_a_minute_has() {
    let world = World::new().await;
    hold_to(&world, "S1", 1).await;
    let asking = (0..104).map(|_| world.http("GET", "/devices/dev-1", &[], ""));
    let answers = join_all(asking).await;
    let passed = answers.iter().filter(|answer| answer.status == 200).count();
    assert_eq!(passed, 100);
    for refused in answers.iter().filter(|answer| answer.status != 200) {
        assert_eq!(error(refused), (429, "ThrottlingException"));
        assert!(refused.headers.contains_key("retry-after"));
    }
    let bulk = json!([{ "id": "a" }, { "id": "b" }]).to_string();
    let refused = world.http("POST", "/devices", &[], &bulk).await;
    assert_eq!(error(&refused), (429, "ThrottlingException"));
    assert_eq!(
        world.http("GET", "/twins/dev-1", &[], "").await.status,
        200,
        "it has a rate of its own"
    );
    // One unit more, and there is room at once.
    hold_to(&world, "S1", 2).await;
    assert_eq!(world.http("POST", "/devices", &[], &bulk).await.status, 200);
}

#[tokio::test]
async fn messages_in_one_body_count_each_and_pass_together_or_not_at_all() {
    let world = World::new().await;
    use_day_up(&world, 3).await;
    let stored = world.cluster.records(&world.device).len();
    assert_eq!(error(&send_batch(&world, 4).await), (403, "IotHubQuotaExceeded"));
    assert_eq!(used(&world).await, 7_997);
    assert_eq!(world.cluster.records(&world.device).len(), stored);
    assert_eq!(send_batch(&world, 3).await.status, 204);
    assert_eq!(used(&world).await, 8_000);
    assert_eq!(world.cluster.records(&world.device).len(), stored + 3);
}

#[tokio::test]
async fn a_day_has_its_messages_and_not_one_more() {
    let world = World::new().await;
    use_day_up(&world, 3).await;
    assert_eq!(used(&world).await, 7_997);
    assert_eq!(error(&send(&world, 4 * 512).await), (403, "IotHubQuotaExceeded"));
    assert_eq!(send(&world, 2 * 512).await.status, 204, "a smaller one fits");
    assert_eq!(send(&world, 1).await.status, 204);
    assert_eq!(used(&world).await, 8_000);
    let query = r#"{"query": "SELECT * FROM devices"}"#;
    let call = r#"{"methodName": "m"}"#;
    for (method, path, body) in [
        ("GET", "/twins/dev-1", ""),
        ("PATCH", "/twins/dev-1", "{}"),
        ("POST", "/devices/query", query),
        ("POST", "/twins/dev-1/methods", call),
        ("POST", "/devices/dev-1/messages/devicebound", "x"),
    ] {
        let answer = world.http(method, path, &[], body).await;
        assert_eq!(error(&answer), (403, "IotHubQuotaExceeded"), "{method} {path}");
    }
    let token = device_token(HOST, "dev-1", KEY, NOW_S + 3600).unwrap();
    let upload = ("/devices/dev-1/files", br#"{"blobName": "x"}"#);
    let answer = world
        .http_as("POST", upload.0, &[("Authorization", &token)], upload.1)
        .await;
    assert_eq!(
        error(&answer),
        (403, "IotHubQuotaExceeded"),
        "an upload is two messages"
    );
    // What is no message is free.
    assert_eq!(world.http("GET", "/devices/dev-1", &[], "").await.status, 200);
    world.cluster.pass_ms(24 * 3600 * 1000);
    assert_eq!(send(&world, 1).await.status, 204, "a new day");
    assert_eq!(used(&world).await, 1);
}

#[tokio::test]
async fn answers_weigh_as_much_as_they_have() {
    let world = World::new().await;
    hold_to(&world, "F1", 1).await;
    let text = "x".repeat(1_500);
    let twin = json!({ "tags": { "a": text } }).to_string();
    assert_eq!(world.http("PATCH", "/twins/dev-1", &[], &twin).await.status, 200);
    assert_eq!(used(&world).await, 3);
    let read = world.http("GET", "/twins/dev-1", &[], "").await;
    let weight = read.body.len().div_ceil(512) as u64;
    // The rest is asked for afterwards, when nobody waits for it.
    loop {
        match used(&world).await - 3 {
            now if now == weight => break,
            now => assert!(now < weight, "{now} of {weight}"),
        }
    }
}

#[tokio::test]
async fn a_device_is_told_and_stays_connected() {
    let world = World::new().await;
    let mut client = world.connect(Version::V5).await;
    use_day_up(&world, 1).await;
    let stored = world.cluster.records(&world.device).len();
    let ids = [
        client.publish(TOPIC, b"1").await.unwrap(),
        client.publish(TOPIC, b"2").await.unwrap(),
    ];
    assert_eq!(next(&mut client).await, puback(ids[0]));
    let refused = Event::Refused {
        id: ids[1],
        reason: 0x97,
    };
    assert_eq!(next(&mut client).await, refused);
    let id = client.publish("$iothub/twin/GET/?$rid=1", b"").await.unwrap();
    let Event::Message { topic, .. } = next(&mut client).await else {
        panic!("an answer comes")
    };
    assert_eq!(topic, "$iothub/twin/res/403/?$rid=1");
    assert_eq!(next(&mut client).await, puback(id));
    let report = "$iothub/twin/PATCH/properties/reported/?$rid=2";
    let id = client.publish(report, b"{}").await.unwrap();
    let Event::Message { topic, .. } = next(&mut client).await else {
        panic!("an answer comes")
    };
    assert_eq!(topic, "$iothub/twin/res/403/?$rid=2");
    assert_eq!(next(&mut client).await, puback(id));
    hold_to(&world, "S1", 1).await;
    let id = client.publish(TOPIC, b"3").await.unwrap();
    assert_eq!(next(&mut client).await, puback(id));
    assert_eq!(world.cluster.records(&world.device).len(), stored + 2);
    // Without a plan nobody is asked.
    assert_eq!(put(&world, Value::Null).await.status, 200);
    world
        .cluster
        .fail_commands(dunlin_model::port::SubmitError::CutOff);
    let id = client.publish(TOPIC, b"4").await.unwrap();
    assert_eq!(next(&mut client).await, puback(id));
}

#[tokio::test]
async fn who_cannot_be_told_is_disconnected_and_nothing_is_lost_in_silence() {
    for (version, acknowledged) in [(Version::V3, true), (Version::V3, false), (Version::V5, false)] {
        let world = World::new().await;
        let mut client = world.connect(version).await;
        use_day_up(&world, 0).await;
        let stored = world.cluster.records(&world.device).len();
        if acknowledged {
            client.publish(TOPIC, b"1").await.unwrap();
        } else {
            client.publish_unacknowledged(TOPIC, b"1").await.unwrap();
            client.flush().await.unwrap();
        }
        assert!(matches!(next(&mut client).await, Event::Disconnected { .. }));
        assert_eq!(world.cluster.records(&world.device).len(), stored);
    }
}

#[tokio::test]
async fn a_burst_is_delayed_and_kept_in_order() {
    let world = World::new().await;
    let mut client = world.connect(Version::V3).await;
    hold_to(&world, "S1", 1).await;
    let mut ids = VecDeque::new();
    for turn in 0..3 {
        // As many as a second has, and some that wait for the next.
        let count = if turn == 2 { 30 } else { 100 };
        for place in 0..count {
            let body = format!("{}", turn * 100 + place);
            ids.push_back(client.publish(TOPIC, body.as_bytes()).await.unwrap());
            if ids.len() > 40 {
                let first = ids.pop_front().unwrap();
                assert_eq!(next(&mut client).await, puback(first));
            }
        }
        // Time stands still here unless somebody moves it.
        world.cluster.pass_ms(1_020);
    }
    for id in ids {
        assert_eq!(next(&mut client).await, puback(id));
    }
    let records = world.cluster.records(&world.device);
    let bodies: Vec<String> = records
        .iter()
        .map(|record| String::from_utf8(record.payload.to_vec()).unwrap())
        .collect();
    assert_eq!(
        bodies,
        (0..230).map(|place| place.to_string()).collect::<Vec<_>>()
    );
    // More than the second has, and then nothing to wait for any more.
    let mut ids = Vec::new();
    for _ in 0..40 {
        for _ in 0..3 {
            ids.push(client.publish(TOPIC, b"x").await.unwrap());
        }
        if ids.len() == 60 {
            client.flush().await.unwrap();
            assert_eq!(put(&world, Value::Null).await.status, 200);
        }
    }
    for id in ids {
        assert_eq!(next(&mut client).await, puback(id));
    }
}

#[tokio::test]
async fn a_question_without_an_answer_is_asked_again() {
    let world = World::new().await;
    hold_to(&world, "S1", 1).await;
    world
        .cluster
        .fail_commands(dunlin_model::port::SubmitError::Unknown);
    assert_eq!(world.http("GET", "/devices/dev-1", &[], "").await.status, 200);
}

#[tokio::test]
async fn what_a_client_said_before_it_left_is_still_its_word() {
    for says_goodbye in [false, true] {
        let world = World::new().await;
        let mut client = world.connect(Version::V3).await;
        hold_to(&world, "S1", 1).await;
        for body in ["1", "2", "3"] {
            client
                .publish_unacknowledged(TOPIC, body.as_bytes())
                .await
                .unwrap();
        }
        // In one packet of TCP with what it said before.
        if says_goodbye {
            client.disconnect().await;
        } else {
            client.flush().await.unwrap();
            drop(client);
        }
        world.cluster.until_stored(3).await;
        assert_eq!(used(&world).await, 3);
    }
}
