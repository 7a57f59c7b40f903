//! A shard that nobody leads, at a gateway that sees the directory as well as ever: whoever asks for something in it is
//! told to ask again, and never that it is not there. How AMQP says so is in `amqp`.

use dunlin_gateway::auth;
use dunlin_gateway::client::{Client, ConnectOptions, Event, device_token};
use dunlin_gateway::mqtt::Version;
use dunlin_model::id::DeviceId;
use dunlin_model::port::ShardClient as _;
use serde_json::{Value, json};

use crate::fake::KEY;
use crate::world::{Answer, HOST, NOW_S, World, next, puback};

/// What a question is told: nothing happened.
const BUSY: (u16, &str) = (503, "ServerBusy");
/// What a command is told: nobody knows.
const UNKNOWN: (u16, &str) = (504, "GatewayTimeout");

/// A name that no device has, in the shard of `dev-1` or outside of it.
fn nobody(world: &World, is_near: bool) -> String {
    let shard = world.cluster.shard_of(&world.device);
    let mut names = (0..).map(|number: u32| format!("nobody-{number}"));
    let found = names.find(|name| {
        let device = DeviceId::parse(name).unwrap();
        (world.cluster.shard_of(&device) == shard) == is_near
    });
    found.unwrap()
}

/// Nobody leads the shard of `dev-1` any more.
fn lose(world: &World) {
    let shard = world.cluster.shard_of(&world.device);
    world.cluster.lose_shard(Some(shard));
}

#[track_caller]
fn assert_told(answer: &Answer, expected: (u16, &str), what: &str) {
    let told = (answer.status, answer.error_code());
    assert_eq!(told, expected, "{what}: {}", answer.body);
    assert!(answer.headers.contains_key("retry-after"), "{what}");
}

async fn assert_not_found(world: &World, device: &str) {
    let answer = world.http("GET", &format!("/devices/{device}"), &[], "").await;
    assert_eq!((answer.status, answer.error_code()), (404, "DeviceNotFound"));
}

#[tokio::test]
async fn what_services_ask_is_to_be_asked_again() {
    let world = World::new().await;
    let made = world.http("PUT", "/devices/dev-1/modules/m", &[], "{}").await;
    assert_eq!(made.status, 200, "{}", made.body);
    let near = nobody(&world, true);
    lose(&world);
    let shard = world.cluster.shard_of(&world.device);
    for path in [
        "/devices/dev-1",
        &format!("/devices/{near}"),
        "/devices/dev-1/modules",
        "/devices/dev-1/modules/m",
        "/devices/dev-1/modules/none",
        "/devices?top=10",
        "/statistics/devices",
        "/statistics/service",
        "/shards",
        "/twins/dev-1",
        &format!("/twins/{near}"),
        "/twins/dev-1/modules/none",
        "/devices/dev-1/messages/deadletters",
        "/messages/serviceBound/feedback",
        // In the same shard, as they have the same name.
        "/jobs/v2/dev-1",
        "/jobs/v2/query",
        "/configurations/dev-1",
        "/configurations",
        &format!("/events/{}", shard.0),
    ] {
        assert_told(&world.http("GET", path, &[], "").await, BUSY, path);
    }
    for query in [
        "SELECT * FROM devices",
        "SELECT COUNT() AS n FROM devices",
        "SELECT * FROM devices WHERE deviceId = 'dev-1'",
    ] {
        let body = json!({ "query": query }).to_string();
        let answer = world.http("POST", "/devices/query", &[], &body).await;
        assert_told(&answer, BUSY, query);
    }
    for device in ["dev-1", &near] {
        let path = format!("/twins/{device}/methods");
        let answer = world.http("POST", &path, &[], r#"{"methodName": "m"}"#).await;
        assert_told(&answer, BUSY, &path);
    }
    // The gateway is fresh: it knows well who is not there in other shards.
    assert_not_found(&world, &nobody(&world, false)).await;
    world.cluster.lose_shard(None);
    assert_not_found(&world, &near).await;
    assert_eq!(world.http("GET", "/devices/dev-1", &[], "").await.status, 200);
}

#[tokio::test]
async fn what_services_want_may_or_may_not_have_happened() {
    let world = World::new().await;
    let near = nobody(&world, true);
    lose(&world);
    let twin = r#"{"properties": {"desired": {"x": 1}}}"#;
    for (method, path, body) in [
        ("PUT", format!("/devices/{near}"), "{}"),
        ("DELETE", "/devices/dev-1".to_owned(), ""),
        ("DELETE", format!("/devices/{near}"), ""),
        ("PUT", "/devices/dev-1/modules/m".to_owned(), "{}"),
        ("PATCH", "/twins/dev-1".to_owned(), twin),
        ("PUT", "/twins/dev-1".to_owned(), twin),
        ("PATCH", format!("/twins/{near}"), twin),
        ("POST", "/devices/dev-1/messages/devicebound".to_owned(), "x"),
        ("DELETE", "/devices/dev-1/commands".to_owned(), ""),
    ] {
        let answer = world.http(method, &path, &[], body).await;
        assert_told(&answer, UNKNOWN, &format!("{method} {path}"));
    }
    // What has to be read before it is changed has not begun.
    let any = [("If-Match", "*")];
    let answer = world.http("PUT", "/devices/dev-1", &any, "{}").await;
    assert_told(&answer, BUSY, "a change of dev-1");
    // Of a list each is told for itself.
    let far = nobody(&world, false);
    let list = json!([
        {"id": "dev-1", "importMode": "update"},
        {"id": near, "importMode": "create"},
        {"id": far, "importMode": "create"},
    ]);
    let answer = world.http("POST", "/devices", &[], &list.to_string()).await;
    assert_eq!(answer.error_code(), "BulkRegistryOperationFailure");
    let body = answer.json();
    let errors = body["errors"].as_array().unwrap().iter();
    let told: Vec<_> = errors.map(|error| error["errorCode"].as_str().unwrap()).collect();
    assert_eq!(told, [BUSY.1, UNKNOWN.1]);
    let made = world.http("GET", &format!("/devices/{far}"), &[], "").await;
    assert_eq!(made.status, 200);
}

#[tokio::test]
async fn devices_over_https_are_told_to_come_again() {
    let world = World::new().await;
    let near = nobody(&world, true);
    lose(&world);
    for device in ["dev-1", &near] {
        let token = device_token(HOST, device, KEY, NOW_S + 60).unwrap();
        let headers = [("Authorization", token.as_str())];
        for (method, path, body) in [
            ("GET", "messages/devicebound", ""),
            ("POST", "messages/events", "x"),
            ("POST", "files", r#"{"blobName": "x"}"#),
        ] {
            let path = format!("/devices/{device}/{path}");
            let answer = world.http_as(method, &path, &headers, body.as_bytes()).await;
            assert_told(&answer, BUSY, &path);
        }
    }
}

#[tokio::test]
async fn who_provisions_is_told_to_come_again() {
    let world = World::new().await;
    lose(&world);
    let enrollment = json!({"attestation": {"type": "symmetricKey"}});
    let token = auth::sign("0neFAKE/registrations/dev-1", KEY, NOW_S + 60, None).unwrap();
    let headers = [("Authorization", token.as_str())];
    let path = "/0neFAKE/registrations/dev-1/register";
    for answer in [
        world
            .provisioning("GET", "/enrollments/dev-1", &[], Value::Null)
            .await,
        world
            .provisioning("GET", "/registrations/dev-1", &[], Value::Null)
            .await,
        world
            .provisioning("PUT", "/enrollments/dev-1", &[], enrollment)
            .await,
        world.http_as("PUT", path, &headers, b"{}").await,
    ] {
        assert_eq!(answer.status, 503, "{}", answer.body);
        assert_eq!(answer.json()["errorCode"], 503_001);
        assert!(answer.headers.contains_key("retry-after"));
    }
}

#[tokio::test]
async fn a_device_that_connects_is_not_said_to_be_wrong() {
    let world = World::new().await;
    let near = nobody(&world, true);
    let token = device_token(HOST, &near, KEY, NOW_S + 60).unwrap();
    for (version, unavailable, unauthorized) in [(Version::V3, 3, 5), (Version::V5, 0x88, 0x87)] {
        let own = world.options(version);
        let other = ConnectOptions {
            version,
            ..ConnectOptions::new(world.tcp(), HOST, &near, token.clone())
        };
        lose(&world);
        for options in [&own, &other] {
            let code = world.refusal(options).await;
            assert_eq!(code, unavailable, "{}", options.client_id);
        }
        world.cluster.lose_shard(None);
        assert_eq!(world.refusal(&other).await, unauthorized);
        Client::connect(&own).await.unwrap().disconnect().await;
    }
}

/// Asks for something of the twin; the topic of the answer, which comes before its PUBACK.
async fn ask(client: &mut Client, topic: &str, body: &[u8]) -> String {
    let id = client.publish(topic, body).await.unwrap();
    let Event::Message { topic, .. } = next(client).await else {
        panic!("an answer comes")
    };
    assert_eq!(next(client).await, puback(id));
    topic
}

#[tokio::test]
async fn a_device_that_is_connected_stays_so_and_asks_again() {
    let (get, report) = (
        "$iothub/twin/GET/?$rid=1",
        "$iothub/twin/PATCH/properties/reported/?$rid=2",
    );
    for version in [Version::V3, Version::V5] {
        let world = World::new().await;
        let mut client = world.connect(version).await;
        lose(&world);
        let seen = ask(&mut client, get, b"").await;
        assert_eq!(seen, "$iothub/twin/res/503/?$rid=1");
        let reported = ask(&mut client, report, b"{}").await;
        assert_eq!(reported, "$iothub/twin/res/504/?$rid=2");
        world.cluster.lose_shard(None);
        let seen = ask(&mut client, get, b"").await;
        assert_eq!(seen, "$iothub/twin/res/200/?$rid=1");
        let reported = ask(&mut client, report, b"{}").await;
        assert_eq!(reported, "$iothub/twin/res/204/?$rid=2&$version=2");
    }
}
