//! Services over HTTPS: the registry, device messages, events, and who may call what.

use dunlin_gateway::auth;
use dunlin_gateway::client::{Client, ConnectOptions, device_token};
use dunlin_gateway::mqtt::Version;
use dunlin_gateway::{Audience, Gateway, GatewayConfig, Hooks, StartError};
use dunlin_model::command::TelemetryAck;
use dunlin_model::port::ShardClient;
use serde_json::{Value, json};

use crate::fake::{KEY, OTHER_KEY};
use crate::world::{HOST, NOW_S, TOPIC, World, next, read_until};

const API: &str = "?api-version=2021-04-12";

#[tokio::test]
async fn a_device_is_created_read_changed_and_deleted() {
    let world = World::new().await;
    let path = format!("/devices/new-1{API}");
    let made = world.http("PUT", &path, &[], r#"{"deviceId":"new-1"}"#).await;
    assert_eq!(made.status, 200, "{}", made.body);
    let device = made.json();
    assert_eq!(
        (device["deviceId"].as_str(), device["status"].as_str()),
        (Some("new-1"), Some("enabled"))
    );
    let first = device["etag"].as_str().unwrap();
    assert_eq!(made.headers["etag"], format!("\"{first}\""));
    assert_eq!(device["authentication"]["type"], "sas");
    let key = device["authentication"]["symmetricKey"]["primaryKey"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(auth::decode_key(&key).unwrap().len(), 32);
    // The drawn key opens the door.
    let token = device_token(HOST, "new-1", &key, NOW_S + 60).unwrap();
    let client = Client::connect(&ConnectOptions::new(world.tcp(), HOST, "new-1", token))
        .await
        .unwrap();
    let seen = world.http("GET", &path, &[], "").await.json();
    assert_eq!(
        (seen["connectionState"].as_str(), &seen["generationId"]),
        (Some("Connected"), &device["generationId"])
    );
    client.disconnect().await;

    let again = world.http("PUT", &path, &[], "{}").await;
    assert_eq!((again.status, again.error_code()), (409, "DeviceAlreadyExists"));
    assert!(
        again.json()["Message"]
            .as_str()
            .unwrap()
            .starts_with("ErrorCode:DeviceAlreadyExists;")
    );
    assert!(
        again.json()["ExceptionMessage"]
            .as_str()
            .unwrap()
            .starts_with("Tracking ID:")
    );
    let disable = r#"{"deviceId":"new-1","status":"disabled","statusReason":"why"}"#;
    let mut etag = first.to_owned();
    for (if_match, status) in [
        ("\"*\"", 200),
        ("*", 200),
        ("\"NOW\"", 200),
        ("NOW", 200),
        (&format!("\"{first}\""), 412),
        ("\"x\"", 412),
    ] {
        let if_match = if_match.replace("NOW", &etag);
        let changed = world
            .http("PUT", &path, &[("If-Match", &if_match)], disable)
            .await;
        assert_eq!(changed.status, status, "{if_match}: {}", changed.body);
        if status == 200 {
            let changed = changed.json();
            assert_eq!(
                (changed["status"].as_str(), changed["statusReason"].as_str()),
                (Some("disabled"), Some("why"))
            );
            assert_eq!(
                changed["authentication"]["symmetricKey"]["primaryKey"],
                key.as_str(),
                "keys are kept"
            );
            changed["etag"].as_str().unwrap().clone_into(&mut etag);
        }
    }
    assert_eq!(
        world
            .http("DELETE", &path, &[("If-Match", first)], "")
            .await
            .error_code(),
        "PreconditionFailed"
    );
    assert_eq!(
        world
            .http("DELETE", &path, &[("If-Match", "\"*\"")], "")
            .await
            .status,
        204
    );
    for (method, headers) in [("GET", &[][..]), ("DELETE", &[]), ("PUT", &[("If-Match", "*")])] {
        let gone = world.http(method, &path, headers, "{}").await;
        assert_eq!(
            (gone.status, gone.error_code()),
            (404, "DeviceNotFound"),
            "{method}"
        );
    }
}

#[tokio::test]
async fn bad_requests_are_told_so() {
    let world = World::new().await;
    let short_key = r#"{"authentication":{"symmetricKey":{"primaryKey":"AAAA"}}}"#;
    let thumbprint = r#"{"authentication":{"type":"selfSigned"}}"#;
    let other = r#"{"deviceId":"other"}"#;
    let reason = format!(r#"{{"statusReason":"{}"}}"#, "x".repeat(129));
    for body in [
        "",
        "[]",
        "nonsense",
        r#"{"status":"maybe"}"#,
        short_key,
        thumbprint,
        other,
        reason.as_str(),
    ] {
        let answer = world.http("PUT", "/devices/new-1", &[], body).await;
        assert_eq!(
            (answer.status, answer.error_code()),
            (400, "ArgumentInvalid"),
            "{body}"
        );
    }
    assert_eq!(
        world.http("PUT", "/devices/d%201%2Fx", &[], "{}").await.status,
        400
    );
    assert_eq!(
        world.http("GET", "/devices/d%25%2A", &[], "").await.error_code(),
        "DeviceNotFound"
    );
    let large = "x".repeat(300 * 1024);
    assert_eq!(world.http("PUT", "/devices/new-1", &[], &large).await.status, 413);
    assert_eq!(world.http("GET", "/no/such/path", &[], "").await.status, 404);
    world.cluster.set_silent(true);
    let unknown = world.http("PUT", "/devices/new-1", &[], "{}").await;
    assert_eq!(
        (unknown.status, unknown.headers.contains_key("retry-after")),
        (504, true)
    );
}

#[tokio::test]
async fn every_call_asks_for_its_right() {
    let world = World::new().await;
    for (policy, list, put, statistics, events, admin) in [
        ("iothubowner", 200, 200, 200, 200, 200),
        ("service", 401, 401, 200, 200, 401),
        ("device", 401, 401, 401, 401, 401),
        ("registryRead", 200, 401, 401, 401, 401),
        ("registryReadWrite", 200, 200, 401, 401, 401),
    ] {
        let token = world.service_token(policy);
        let id = format!("of-{policy}");
        for (method, path, status) in [
            ("GET", "/devices".to_owned(), list),
            ("GET", "/devices/?top=1".to_owned(), list),
            ("PUT", format!("/devices/{id}"), put),
            ("GET", "/statistics/service".to_owned(), statistics),
            ("GET", "/events/0".to_owned(), events),
            ("POST", "/cluster/admin".to_owned(), admin),
        ] {
            let answer = world
                .http_as(method, &path, &[("Authorization", &token)], b"{}")
                .await;
            assert_eq!(answer.status, status, "{policy} {method} {path}: {}", answer.body);
        }
    }
    let expired = auth::sign(HOST, KEY, NOW_S, Some("iothubowner")).unwrap();
    let foreign = auth::sign("other.example", KEY, NOW_S + 60, Some("iothubowner")).unwrap();
    let forged = auth::sign(
        HOST,
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
        NOW_S + 60,
        Some("iothubowner"),
    )
    .unwrap();
    let narrow = auth::sign(&format!("{HOST}/devices/x"), KEY, NOW_S + 60, Some("iothubowner")).unwrap();
    let device = device_token(HOST, "dev-1", KEY, NOW_S + 60).unwrap();
    for token in [
        &expired,
        &foreign,
        &forged,
        &narrow,
        &device,
        "Bearer guess",
        "nonsense",
        "",
    ] {
        let answer = world
            .http_as("GET", "/devices", &[("Authorization", token)], b"")
            .await;
        assert_eq!(
            (answer.status, answer.error_code()),
            (401, "IotHubUnauthorizedAccess"),
            "{token}"
        );
    }
    assert_eq!(world.http_as("GET", "/devices", &[], b"").await.status, 401);
    let second = auth::sign(
        &format!("{HOST}:8443"),
        OTHER_KEY,
        NOW_S + 60,
        Some("registryRead"),
    )
    .unwrap();
    for token in [second.as_str(), "Bearer the-admin"] {
        assert_eq!(
            world
                .http_as("GET", "/devices", &[("Authorization", token)], b"")
                .await
                .status,
            200
        );
    }
    for (path, status) in [("/health", 200), ("/metrics", 200), ("/console", 200)] {
        assert_eq!(world.http_as("GET", path, &[], b"").await.status, status);
    }
}

#[tokio::test]
async fn listing_goes_over_all_shards_page_by_page() {
    let world = World::new().await;
    for i in 0..24 {
        world.cluster.add_device(&format!("many-{i}"));
    }
    let all = world.http("GET", "/devices", &[], "").await;
    assert_eq!(all.json().as_array().unwrap().len(), 25);
    assert!(!all.headers.contains_key("x-ms-continuation"));
    let (mut seen, mut cursor) = (std::collections::BTreeSet::new(), None::<String>);
    for _ in 0..10 {
        let headers: Vec<_> = cursor
            .iter()
            .map(|cursor| ("x-ms-continuation", cursor.as_str()))
            .collect();
        let page = world.http("GET", "/devices?top=7", &headers, "").await;
        for device in page.json().as_array().unwrap() {
            assert!(seen.insert(device["deviceId"].as_str().unwrap().to_owned()));
        }
        cursor = page.headers.get("x-ms-continuation").cloned();
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(seen.len(), 25);
    let counts = world.http("GET", "/statistics/devices", &[], "").await.json();
    assert_eq!(counts["totalDeviceCount"], 25);
    let _client = world.connect(Version::V3).await;
    assert_eq!(
        world.http("GET", "/statistics/service", &[], "").await.json()["connectedDeviceCount"],
        1
    );
    let shards = world.http("GET", "/shards", &[], "").await.json();
    assert_eq!(shards["shards"].as_array().unwrap().len(), 4);
    let asked = world
        .http("POST", "/cluster/admin", &[], r#"{"action":"status"}"#)
        .await;
    assert_eq!(asked.json(), json!({"action": "status"}));
}

#[tokio::test]
async fn a_message_over_http_has_a_receipt_and_is_read_back() {
    let world = World::new().await;
    let shard = world.cluster.shard_of(&world.device);
    let token = device_token(HOST, "dev-1", KEY, NOW_S + 60).unwrap();
    let path = format!("/devices/dev-1/messages/events{API}");
    let headers = [
        ("Authorization", token.as_str()),
        ("iothub-app-room", "a b"),
        ("iothub-messageid", "m-1"),
        ("iothub-contenttype", "application/json"),
    ];
    let sent = world.http_as("POST", &path, &headers, br#"{"t":21}"#).await;
    assert_eq!(sent.status, 204, "{}", sent.body);
    assert_eq!(sent.headers["dunlin-receipt"], format!("{shard}/0/7"));
    let mut client = world.connect(Version::V3).await;
    client.publish(TOPIC, b"plain").await.unwrap();
    next(&mut client).await;
    let page = world
        .http("GET", &format!("/events/{shard}?from=0"), &[], "")
        .await
        .json();
    assert_eq!(
        (
            page["next"].as_u64(),
            page["first"].as_u64(),
            page["end"].as_u64()
        ),
        (Some(2), Some(0), Some(2))
    );
    let events = page["events"].as_array().unwrap();
    assert_eq!(events[0]["json"], json!({"t": 21}));
    assert_eq!(
        (
            events[0]["deviceId"].as_str(),
            events[0]["properties"]["room"].as_str()
        ),
        (Some("dev-1"), Some("a b"))
    );
    assert_eq!(events[0]["systemProperties"]["message-id"], "m-1");
    assert_eq!(
        (events[1]["bodyText"].as_str(), events[1]["body"].as_str()),
        (Some("plain"), Some("cGxhaW4="))
    );
    let records = world.cluster.stamps(&world.device);
    assert_eq!(
        events[1]["enqueuedTimeUtc"],
        format!("1970-01-01T00:00:00.{:03}Z", records[1])
    );
    let time = format!("time={}", records[1]);
    for (query, offsets) in [
        ("from=1", vec![1]),
        ("max=1", vec![0]),
        (&time, vec![1]),
        ("from=end", vec![]),
    ] {
        let page = world
            .http("GET", &format!("/events/{shard}?{query}"), &[], "")
            .await
            .json();
        let seen: Vec<_> = page["events"]
            .as_array()
            .unwrap()
            .iter()
            .map(|e| e["offset"].as_u64().unwrap())
            .collect();
        assert_eq!(seen, offsets, "{query}");
    }
    assert_eq!(world.http("GET", "/events/99", &[], "").await.status, 404);
    assert_eq!(world.http("GET", "/events/0?from=x", &[], "").await.status, 400);

    let wrong = device_token(HOST, "dev-2", KEY, NOW_S + 60).unwrap();
    assert_eq!(
        world
            .http_as("POST", &path, &[("Authorization", &wrong)], b"x")
            .await
            .status,
        401
    );
    assert_eq!(world.http_as("POST", &path, &[], b"x").await.status, 401);
    world.cluster.set_busy(true);
    assert_eq!(world.http_as("POST", &path, &headers, b"x").await.status, 429);
    world.cluster.set_busy(false);
    world.cluster.disable(&world.device);
    assert_eq!(world.http_as("POST", &path, &headers, b"x").await.status, 401);
}

#[tokio::test]
async fn a_batch_of_which_a_part_is_stored_is_not_refused() {
    let world = World::new().await;
    let token = device_token(HOST, "dev-1", KEY, NOW_S + 60).unwrap();
    world.cluster.hold(true);
    let headers = [
        ("Authorization", token.as_str()),
        ("Content-Type", "application/vnd.microsoft.iothub.json"),
    ];
    let batch = json!([{"body": "b25l"}, {"body": "dHdv"}]).to_string();
    let (answer, ()) = tokio::join!(
        world.http_as(
            "POST",
            "/devices/dev-1/messages/events",
            &headers,
            batch.as_bytes()
        ),
        async {
            world.cluster.until_held(2).await;
            world.cluster.release();
            world.cluster.release_as(TelemetryAck::Fenced);
            // The second alone is tried again.
            world.cluster.until_held(1).await;
            world.cluster.release_as(TelemetryAck::Fenced);
        }
    );
    assert_eq!(answer.status, 504, "{}", answer.body);
    let stored = world.cluster.records(&world.device);
    assert_eq!(stored.len(), 1);
    assert_eq!(stored[0].payload, b"one"[..]);
}

#[tokio::test]
async fn a_message_whose_end_is_unknown_is_answered_504() {
    let world = World::new().await;
    let token = device_token(HOST, "dev-1", KEY, NOW_S + 60).unwrap();
    world.cluster.hold(true);
    let headers = [("Authorization", token.as_str())];
    let (answer, ()) = tokio::join!(
        world.http_as("POST", "/devices/dev-1/messages/events", &headers, b"x"),
        async {
            world.cluster.until_held(1).await;
            world.cluster.release_as(TelemetryAck::Unknown);
        }
    );
    assert_eq!(
        (answer.status, answer.headers.contains_key("retry-after")),
        (504, true)
    );
}

#[tokio::test]
async fn a_batch_over_http_is_as_many_messages_in_its_order() {
    let world = World::new().await;
    let shard = world.cluster.shard_of(&world.device);
    let token = device_token(HOST, "dev-1", KEY, NOW_S + 60).unwrap();
    let path = format!("/devices/dev-1/messages/events{API}");
    let headers = [
        ("Authorization", token.as_str()),
        (
            "Content-Type",
            "application/vnd.microsoft.iothub.json; charset=utf-8",
        ),
        ("iothub-app-room", "of no message"),
    ];
    let send = async |body: Value| {
        let body = body.to_string();
        world.http_as("POST", &path, &headers, body.as_bytes()).await
    };
    let batch = json!([
        {"body": "b25l", "properties": {"iothub-app-Room": "a", "IoTHub-MessageId": "m-1", "other": "x"}},
        {"body": "two", "base64Encoded": false},
        {"body": ""},
    ]);
    let sent = send(batch).await;
    assert_eq!(sent.status, 204, "{}", sent.body);
    assert_eq!(sent.headers["dunlin-receipt"], format!("{shard}/2/7"), "the last");
    let page = world
        .http("GET", &format!("/events/{shard}?from=0"), &[], "")
        .await;
    let page = page.json();
    let events = page["events"].as_array().unwrap();
    let bodies: Vec<_> = events.iter().map(|event| event["bodyText"].as_str()).collect();
    assert_eq!(bodies, [Some("one"), Some("two"), Some("")]);
    assert_eq!(events[0]["properties"], json!({"Room": "a"}));
    assert_eq!(events[0]["systemProperties"]["message-id"], "m-1");
    assert_eq!(events[1]["properties"], json!({}));
    let one = json!({"body": "b25l"});
    let large = json!({"body": "YWFh".repeat(50_000)});
    for (body, status) in [
        (json!([]), 400),
        (json!({"body": "b25l"}), 400),
        (json!([{"body": "not base64!"}]), 400),
        (json!([{"body": 1}]), 400),
        (Value::from(vec![one.clone(); 501]), 400),
        (Value::from(vec![large.clone(), large]), 413),
    ] {
        let refused = send(body).await;
        assert_eq!(refused.status, status, "{}", refused.body);
    }
    assert_eq!(send(Value::from(vec![one; 500])).await.status, 204);
    let stored = world.cluster.records(&world.device).len();
    assert_eq!(stored, 503, "of what is refused nothing is stored");
}

#[tokio::test]
async fn an_event_stream_goes_on_where_it_was_left() {
    let world = World::new().await;
    let shard = world.cluster.shard_of(&world.device);
    let path = format!("/events/{shard}?from=start");
    let mut client = world.connect(Version::V3).await;
    for text in ["zero", "one"] {
        client.publish(TOPIC, text.as_bytes()).await.unwrap();
        next(&mut client).await;
    }
    let mut stream = world.event_stream(&path, &[]).await;
    let seen = read_until(&mut stream, "\"one\"").await;
    assert!(seen.contains("id: 0") && seen.contains("zero") && seen.contains("id: 1"));
    drop(stream);
    let mut stream = world.event_stream(&path, &[("Last-Event-ID", "0")]).await;
    let seen = read_until(&mut stream, "\"one\"").await;
    assert!(!seen.contains("zero"));
    client.publish(TOPIC, b"two").await.unwrap();
    client.flush().await.unwrap();
    let seen = read_until(&mut stream, "\"two\"").await;
    assert!(seen.contains("id: 2"));

    let mut all = world.event_stream("/events?from=start", &[]).await;
    let seen = read_until(&mut all, "\"two\"").await;
    assert!(seen.contains("zero") && seen.contains("one"));
    // Whoever begins at the end is told where that is, and misses nothing from then on.
    let mut late = world.event_stream("/events", &[]).await;
    let seen = read_until(&mut late, "event: cursor").await;
    let cursor = "0:0@0,1:0@0,2:0@0,3:0@0".replace(&format!("{shard}:0"), &format!("{shard}:3"));
    let seen = if seen.contains(&cursor) {
        seen
    } else {
        seen + &read_until(&mut late, &cursor).await
    };
    assert!(!seen.contains("two"));
    drop(late);
    client.publish(TOPIC, b"three").await.unwrap();
    client.flush().await.unwrap();
    let mut late = world.event_stream("/events", &[("Last-Event-ID", &cursor)]).await;
    let seen = read_until(&mut late, "\"three\"").await;
    assert!(!seen.contains("two"));
    // An offset from before the log was restarted may name another event today.
    for (path, id) in [(path.as_str(), "0@7"), ("/events", "0:0@7")] {
        let mut stale = world.event_stream(path, &[("Last-Event-ID", id)]).await;
        let seen = read_until(&mut stale, "log epoch was 7").await;
        assert!(seen.starts_with("HTTP/1.1 410"), "{seen}");
    }
}

#[tokio::test]
async fn doors_for_operators_show_the_node_and_nothing_of_devices() {
    let world = World::for_operators().await;
    let admin = ("Authorization", "Bearer the-admin");
    for (path, status) in [
        ("/health", 200),
        ("/metrics", 200),
        ("/devices", 404),
        ("/devices/dev-1", 404),
        ("/events/0", 404),
        ("/shards", 404),
        ("/statistics/devices", 404),
        ("/$iothub/websocket", 404),
        ("/console", 404),
    ] {
        let answer = world.http_as("GET", path, &[admin], b"").await;
        assert_eq!(answer.status, status, "{path}: {}", answer.body);
    }
    let body = br#"{"op":"status"}"#;
    let asked = world.http_as("POST", "/cluster/admin", &[admin], body).await;
    assert_eq!((asked.status, asked.json()), (200, json!({"op": "status"})));
    let stranger = world.http_as("POST", "/cluster/admin", &[], body).await;
    assert_eq!(stranger.status, 401);
    let sent = world
        .http_as("POST", "/devices/dev-1/messages/events", &[admin], b"x")
        .await;
    assert!(
        sent.status == 404 && sent.body.contains("no role `gateway`"),
        "{}",
        sent.body
    );
    assert!(world.gateway.mqtts_addresses().is_empty() && world.gateway.mqtt_plain_address().is_none());
    assert!(!world.cluster.is_attached());
}

#[tokio::test]
async fn doors_for_operators_refuse_an_address_for_mqtt_or_amqp() {
    let any = "127.0.0.1:0".parse().unwrap();
    for (mqtts, amqps, mqtt_plain) in [
        (vec![any], Vec::new(), None),
        (Vec::new(), vec![any], None),
        (Vec::new(), Vec::new(), Some(any)),
    ] {
        let world = World::for_operators().await;
        let config = GatewayConfig {
            audience: Audience::Operators,
            host_names: vec![HOST.into()],
            mqtts,
            kafka: amqps.clone(),
            amqps,
            https: vec![any],
            mqtt_plain,
            tls: world.identity.clone(),
            connections_max: 1,
            uploads: Default::default(),
        };
        let started = Gateway::start(config, world.cluster.clone(), Hooks::default()).await;
        assert!(matches!(started, Err(StartError::Config(_))));
    }
}
