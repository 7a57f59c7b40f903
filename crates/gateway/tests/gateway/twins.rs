//! Twins at the doors: what a device asks and is told over MQTT, and what services do over HTTPS.

use dunlin_gateway::client::{Client, Event};
use dunlin_gateway::mqtt::Version;
use dunlin_model::shard::registry::DESIRED_FILTER;
use dunlin_model::twin::PROPERTIES_BYTES_MAX;
use dunlin_model::twin::check::DEPTH_MAX;
use serde_json::{Map, Value, json};

use crate::world::{World, next, puback};

const GET: &str = "$iothub/twin/GET/?$rid=r1";
const REPORT: &str = "$iothub/twin/PATCH/properties/reported/?$rid=r2";
const API: &str = "?api-version=2021-04-12";

/// The next message to the device: its topic, and its body if it has one.
async fn message(client: &mut Client) -> (String, Value) {
    match next(client).await {
        Event::Message { topic, payload, .. } => {
            (topic, serde_json::from_slice(&payload).unwrap_or(Value::Null))
        }
        other => panic!("{other:?}"),
    }
}

async fn listen(client: &mut Client) {
    let id = client.subscribe(DESIRED_FILTER).await.unwrap();
    assert!(matches!(next(client).await, Event::Suback { id: acked, .. } if acked == id));
}

/// Sends a request and returns its answer, which comes before its PUBACK.
async fn ask(client: &mut Client, topic: &str, body: &str) -> (String, Value) {
    let id = client.publish(topic, body.as_bytes()).await.unwrap();
    let answer = message(client).await;
    assert_eq!(next(client).await, puback(id));
    answer
}

#[tokio::test]
async fn a_device_reads_reports_and_is_told() {
    for version in [Version::V3, Version::V5] {
        let world = World::new().await;
        let mut client = world.connect(version).await;
        listen(&mut client).await;
        let (topic, twin) = ask(&mut client, GET, " ").await;
        assert_eq!(topic, "$iothub/twin/res/200/?$rid=r1");
        assert_eq!(
            twin,
            json!({"desired": {"$version": 1}, "reported": {"$version": 1}})
        );
        let (topic, body) = ask(&mut client, REPORT, r#"{"a": {"b": 1}, "c": null}"#).await;
        assert_eq!(
            (topic.as_str(), body),
            ("$iothub/twin/res/204/?$rid=r2&$version=2", Value::Null)
        );
        let stale = format!("{REPORT}&$version=1");
        assert_eq!(
            ask(&mut client, &stale, "{}").await.0,
            "$iothub/twin/res/412/?$rid=r2"
        );
        for wrong in ["[]", "{", r#"{"$version": 1}"#, r#"{"a": [null]}"#] {
            let (topic, body) = ask(&mut client, REPORT, wrong).await;
            assert_eq!(topic, "$iothub/twin/res/400/?$rid=r2", "{wrong}");
            assert!(body["message"].is_string());
        }
        let path = format!("/twins/dev-1{API}");
        let wanted = r#"{"properties": {"desired": {"x": 1}}}"#;
        assert_eq!(world.http("PATCH", &path, &[], wanted).await.status, 200);
        assert_eq!(
            message(&mut client).await,
            (
                "$iothub/twin/PATCH/properties/desired/?$version=2".into(),
                json!({"x": 1, "$version": 2})
            )
        );
        // Without an id there is nothing to answer to, and the PUBACK comes all the same.
        let silent = "$iothub/twin/PATCH/properties/reported/";
        let id = client.publish(silent, br#"{"d": 1}"#).await.unwrap();
        assert_eq!(next(&mut client).await, puback(id));
        let (_, twin) = ask(&mut client, GET, "").await;
        assert_eq!(twin["reported"], json!({"a": {"b": 1}, "d": 1, "$version": 3}));
        client.publish("$iothub/twin/GET/", b"").await.unwrap();
        let reason = (version == Version::V5).then_some(0x90);
        assert_eq!(next(&mut client).await, Event::Disconnected { reason });
    }
}

#[tokio::test]
async fn notes_that_are_lost_are_taken_from_the_twin() {
    let world = World::new().await;
    let mut client = world.connect(Version::V3).await;
    listen(&mut client).await;
    ask(&mut client, GET, "").await;
    world.cluster.lose_downlinks(true);
    let path = format!("/twins/dev-1{API}");
    for number in 0..3 {
        if number == 2 {
            world.cluster.lose_downlinks(false);
        }
        let wanted = json!({"properties": {"desired": {"n": number}}}).to_string();
        assert_eq!(world.http("PATCH", &path, &[], &wanted).await.status, 200);
    }
    for number in 0..3 {
        assert_eq!(
            message(&mut client).await.1,
            json!({"n": number, "$version": number + 2})
        );
    }
}

#[tokio::test]
async fn what_is_newer_than_an_answer_comes_after_it() {
    let world = World::new().await;
    let mut client = world.connect(Version::V3).await;
    listen(&mut client).await;
    world.cluster.hold_twins(true);
    let id = client.publish(GET, b"").await.unwrap();
    client.flush().await.unwrap();
    world.cluster.until_twins_held(1).await;
    // The twin was read, and changes before the device hears of it.
    world.cluster.desire(&world.device, r#"{"a":1}"#);
    world.cluster.hold_twins(false);
    assert_eq!(message(&mut client).await.1["desired"], json!({"$version": 1}));
    assert_eq!(next(&mut client).await, puback(id));
    assert_eq!(message(&mut client).await.1, json!({"a": 1, "$version": 2}));
}

#[tokio::test]
async fn services_read_update_and_replace() {
    let world = World::new().await;
    let path = format!("/twins/dev-1{API}");
    let seen = world.http("GET", &path, &[], "").await;
    assert_eq!(
        (seen.status, seen.headers["etag"].as_str()),
        (200, "\"AAAAAAAAAAE=\"")
    );
    let twin = seen.json();
    assert_eq!(
        (&twin["version"], &twin["tags"], &twin["connectionState"]),
        (&json!(1), &json!({}), &json!("Disconnected"))
    );
    assert_eq!(twin["properties"]["desired"]["$version"], 1);

    let change = r#"{"tags": {"room": 7}, "properties": {"desired": {"a": {"b": 1}}}}"#;
    let stale = world
        .http("PATCH", &path, &[("If-Match", "\"AAAAAAAAAAk=\"")], change)
        .await;
    assert_eq!((stale.status, stale.error_code()), (412, "PreconditionFailed"));
    let made = world
        .http("PATCH", &path, &[("If-Match", "\"AAAAAAAAAAE=\"")], change)
        .await;
    let twin = made.json();
    assert_eq!(
        (made.status, &twin["version"], &twin["tags"]["room"]),
        (200, &json!(2), &json!(7))
    );
    let metadata = &twin["properties"]["desired"]["$metadata"];
    assert_eq!(metadata["a"]["b"]["$lastUpdatedVersion"], 2);
    let updated = metadata["a"]["b"]["$lastUpdated"].as_str().unwrap();
    assert!(updated.starts_with("1970-01-01T00:00:00.0"), "{updated}");
    let put = world
        .http(
            "PUT",
            &path,
            &[("If-Match", "\"*\"")],
            r#"{"properties": {"desired": {"c": 1}}}"#,
        )
        .await;
    let twin = put.json();
    assert_eq!(
        (&twin["tags"]["room"], &twin["properties"]["desired"]["a"]),
        (&json!(7), &Value::Null)
    );

    for (path, body, expected) in [
        ("/twins/nobody", "{}", (404, "DeviceNotFound")),
        ("/twins/dev-1", "[]", (400, "ArgumentInvalid")),
        (
            "/twins/dev-1",
            r#"{"tags": {"a b": 1}}"#,
            (400, "ArgumentInvalid"),
        ),
        ("/twins/dev-1", r#"{"tags": 1}"#, (400, "ArgumentInvalid")),
    ] {
        let answer = world.http("PATCH", &format!("{path}{API}"), &[], body).await;
        assert_eq!((answer.status, answer.error_code()), expected, "{path} {body}");
    }
    let large = json!({"tags": {"t": vec!["x".repeat(4000); 3]}}).to_string();
    let answer = world.http("PATCH", &path, &[], &large).await;
    assert_eq!(
        (answer.status, answer.error_code()),
        (400, "TwinPropertiesTooLarge")
    );
    let token = world.service_token("registryReadWrite");
    let answer = world
        .http_as("GET", &path, &[("Authorization", &token)], b"")
        .await;
    assert_eq!(answer.status, 401, "twins are a service's");
}

/// A section of so many levels.
fn nested(levels: usize) -> Value {
    (1..levels).fold(json!({"leaf": 1}), |below, _| json!({ "n": below }))
}

/// A section that counts so many bytes, in parts each of which is small enough.
fn sized(bytes: usize) -> Value {
    const PART_BYTES: usize = 4096;
    // A key has two.
    let text = |bytes: usize| Value::from("x".repeat(bytes - 2));
    let full = 7;
    let parts = (0..full).map(|number| (format!("k{number}"), text(PART_BYTES)));
    let mut section: Map<String, Value> = parts.collect();
    section.insert(format!("k{full}"), text(bytes - full * PART_BYTES));
    section.into()
}

/// Asks for `reported` to become so; the status.
async fn report(client: &mut Client, reported: &Value) -> (String, Value) {
    let (topic, body) = ask(client, REPORT, &reported.to_string()).await;
    let rest = topic.strip_prefix("$iothub/twin/res/").unwrap();
    let (status, _) = rest.split_once("/?$rid=r2").unwrap();
    (status.to_owned(), body)
}

#[tokio::test]
async fn what_a_device_reports_has_its_depth_and_its_size() {
    for version in [Version::V3, Version::V5] {
        let world = World::new().await;
        let mut client = world.connect(version).await;
        let (status, body) = report(&mut client, &nested(DEPTH_MAX + 1)).await;
        assert_eq!(status, "400");
        assert!(body["message"].as_str().unwrap().contains("deeper"), "{body}");
        assert_eq!(report(&mut client, &nested(DEPTH_MAX)).await.0, "204");
        assert_eq!(report(&mut client, &json!({ "n": null })).await.0, "204");
        let largest = sized(PROPERTIES_BYTES_MAX);
        assert_eq!(report(&mut client, &largest).await.0, "204");
        let far_larger = json!({ "t": vec!["x".repeat(4000); 40] });
        for larger in [sized(PROPERTIES_BYTES_MAX + 1), json!({ "more": 1 }), far_larger] {
            let (status, body) = report(&mut client, &larger).await;
            assert_eq!(status, "400");
            assert!(body["message"].is_string());
        }
        // The connection goes on, and what was refused has left nothing.
        let (_, twin) = ask(&mut client, GET, "").await;
        let mut expected = largest;
        expected["$version"] = json!(4);
        assert_eq!(twin["reported"], expected);
    }
}

#[tokio::test]
async fn what_a_service_writes_has_its_depth_and_its_size() {
    let world = World::new().await;
    let path = format!("/twins/dev-1{API}");
    let write = async |method: &str, body: Value| {
        let answer = world.http(method, &path, &[], &body.to_string()).await;
        (answer.status, answer.error_code().to_owned(), answer.body)
    };
    let desired = |section: Value| json!({ "properties": { "desired": section } });
    let far_larger = json!({ "t": vec!["x".repeat(4000); 40] });
    for method in ["PATCH", "PUT"] {
        for deep in [
            desired(nested(DEPTH_MAX + 1)),
            json!({ "tags": nested(DEPTH_MAX + 1) }),
        ] {
            let (status, code, body) = write(method, deep).await;
            assert_eq!((status, code.as_str()), (400, "ArgumentInvalid"), "{method}");
            assert!(body.contains("deeper"), "{body}");
        }
        let (status, code, _) = write(method, desired(sized(PROPERTIES_BYTES_MAX + 1))).await;
        assert_eq!(
            (status, code.as_str()),
            (400, "TwinPropertiesTooLarge"),
            "{method}"
        );
        assert_eq!(write(method, desired(far_larger.clone())).await.0, 400);
    }
    let twin = world.http("GET", &path, &[], "").await.json();
    assert_eq!(
        (&twin["version"], &twin["tags"]),
        (&json!(1), &json!({})),
        "nothing is left of them"
    );
    assert_eq!(twin["properties"]["desired"]["$version"], 1);
    for section in [nested(DEPTH_MAX), sized(PROPERTIES_BYTES_MAX)] {
        for method in ["PUT", "PATCH"] {
            let (status, _, body) = write(method, desired(section.clone())).await;
            assert_eq!(status, 200, "{method}: {body}");
        }
    }
    let tags = json!({ "tags": nested(DEPTH_MAX) });
    assert_eq!(write("PATCH", tags).await.0, 200);
}
