//! Message routing at the doors: what is kept and shown, which events readers of the built-in endpoint get, and what
//! leaves for webhooks and files.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dunlin_gateway::mqtt::Version;
use serde_json::{Value, json};

use crate::world::{Answer, World};

const EMPTY: &str = "{}";

async fn put(world: &World, routing: &Value, headers: &[(&str, &str)]) -> Answer {
    world.http("PUT", "/routing", headers, &routing.to_string()).await
}

async fn must_put(world: &World, routing: &Value) -> Value {
    let answer = put(world, routing, &[]).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.json()
}

async fn must(world: &World, method: &str, path: &str, body: &Value) -> Value {
    let answer = world.http(method, path, &[], &body.to_string()).await;
    assert!((200..300).contains(&answer.status), "{path}: {}", answer.body);
    match answer.body.is_empty() {
        true => Value::Null,
        false => answer.json(),
    }
}

/// A route of everything.
fn route(name: &str, source: &str, condition: &str, endpoint: &str) -> Value {
    json!({ "name": name, "source": source, "condition": condition, "endpointNames": [endpoint] })
}

/// All events that readers get, by what their source is, their operation, and their body.
async fn events(world: &World, query: &str) -> Vec<Value> {
    let mut all = Vec::new();
    for shard in 0..4 {
        let page = must(
            world,
            "GET",
            &format!("/events/{shard}?max=1000&{query}"),
            &Value::Null,
        )
        .await;
        all.extend(page["events"].as_array().unwrap().iter().cloned());
    }
    all
}

fn operations(events: &[Value]) -> Vec<String> {
    let operation = |event: &Value| event["properties"]["opType"].as_str().unwrap_or("-").to_owned();
    events.iter().map(operation).collect()
}

#[tokio::test]
async fn what_is_kept_is_shown_and_changes_have_conditions() {
    let world = World::new().await;
    let fresh = must(&world, "GET", "/routing", &Value::Null).await;
    assert_eq!(fresh["fallbackRoute"]["isEnabled"], true);
    assert_eq!(fresh["routes"], json!([]));
    let wanted = json!({
        "routes": [route("hot", "DeviceMessages", "level = 'hot'", "hook")],
        "endpoints": { "webhooks": [{
            "name": "hook", "url": "https://example.org/x", "authorization": "Bearer secret",
        }] },
        "enrichments": [{ "key": "hub", "value": "$iothubname", "endpointNames": ["hook", "events"] }],
        "fallbackRoute": { "isEnabled": false },
    });
    let stored = must_put(&world, &wanted).await;
    world.audit.next("routing.put").await;
    assert_eq!(stored["routes"][0]["isEnabled"], true);
    assert_eq!(stored["fallbackRoute"]["isEnabled"], false);
    assert_eq!(stored["endpoints"]["webhooks"][0]["hasAuthorization"], true);
    assert!(!stored.to_string().contains("secret"), "{stored}");
    // What was read may be sent back, and changes nothing but the version; secrets stay.
    let again = must_put(&world, &stored).await;
    assert_eq!(again["endpoints"], stored["endpoints"]);
    assert_ne!(again["etag"], stored["etag"]);
    let tag = |of: &Value| format!("\"{}\"", of["etag"].as_str().unwrap());
    let late = put(&world, &wanted, &[("If-Match", &tag(&stored))]).await;
    assert_eq!(late.status, 412, "{}", late.body);
    let timely = put(&world, &json!({}), &[("If-Match", &tag(&again))]).await;
    assert_eq!(timely.status, 200, "{}", timely.body);
    assert_eq!(timely.json()["endpoints"]["webhooks"], json!([]));
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let world = World::new().await;
    let hook = |url: &str| json!({ "webhooks": [{ "name": "hook", "url": url }] });
    for (routing, why) in [
        (json!([]), "makes no sense"),
        (json!({ "route": [] }), "makes no sense"),
        (
            json!({ "routes": [route("a", "DeviceMessages", "a = ", "events")] }),
            "condition of route 'a'",
        ),
        (
            json!({ "routes": [route("a", "Nothing", "true", "events")] }),
            "makes no sense",
        ),
        (
            json!({ "routes": [route("a", "DeviceMessages", "true", "hook")] }),
            "no such endpoint",
        ),
        (
            json!({ "routes": [route("a", "DeviceMessages", "true", "events"), route("a", "DeviceMessages", "true", "events")] }),
            "two routes",
        ),
        (json!({ "endpoints": hook("http://example.org") }), "https://"),
        (
            json!({ "endpoints": { "storageContainers": [{ "name": "s", "containerName": "../s" }] } }),
            "no name",
        ),
        (
            json!({ "enrichments": [{ "key": "k", "value": "$x", "endpointNames": ["events"] }] }),
            "$iothubname",
        ),
    ] {
        let answer = put(&world, &routing, &[]).await;
        assert_eq!(answer.status, 400, "{routing}");
        assert!(answer.body.contains(why), "{routing}: {}", answer.body);
    }
    assert_eq!(
        must(&world, "GET", "/routing", &Value::Null).await["routes"],
        json!([])
    );
    for (policy, method, status) in [
        ("registryRead", "GET", 200),
        ("service", "GET", 200),
        ("device", "GET", 401),
        ("service", "PUT", 401),
        ("registryReadWrite", "PUT", 401),
    ] {
        let token = world.service_token(policy);
        let answer = world
            .http_as(method, "/routing", &[("Authorization", &token)], EMPTY.as_bytes())
            .await;
        assert_eq!(answer.status, status, "{policy} {method}: {}", answer.body);
    }
}

#[tokio::test]
async fn the_hub_tells_of_its_own_changes_where_a_route_wants_it() {
    let world = World::new().await;
    must(&world, "PUT", "/devices/before", &json!({})).await;
    assert_eq!(events(&world, "").await.len(), 0, "nobody wants to hear of it");
    must_put(
        &world,
        &json!({ "routes": [
            route("twins", "TwinChangeEvents", "true", "events"),
            route("life", "DeviceLifecycleEvents", "true", "events"),
            route("links", "DeviceConnectionStateEvents", "true", "events"),
        ] }),
    )
    .await;
    must(&world, "PUT", "/devices/d-1", &json!({})).await;
    must(&world, "PUT", "/devices/d-1/modules/m", &json!({})).await;
    let twin =
        json!({ "tags": { "floor": 3 }, "properties": { "desired": { "interval": 5, "gone": null } } });
    must(&world, "PATCH", "/twins/d-1", &twin).await;
    must(&world, "PUT", "/twins/d-1", &json!({ "tags": { "wing": "a" } })).await;
    let client = world.connect(Version::V3).await;
    client.disconnect().await;
    must(&world, "DELETE", "/devices/d-1", &Value::Null).await;
    let all = events(&world, "").await;
    let of = |device: &str| -> Vec<Value> {
        all.iter()
            .filter(|event| event["deviceId"] == device)
            .cloned()
            .collect()
    };
    let told = of("d-1");
    assert_eq!(
        operations(&told),
        [
            "createDeviceIdentity",
            "createModuleIdentity",
            "updateTwin",
            "replaceTwin",
            "deleteModuleIdentity",
            "deleteDeviceIdentity"
        ]
    );
    assert_eq!(
        operations(&of("dev-1")),
        ["deviceConnected", "deviceDisconnected"]
    );
    let (created, changed, deleted) = (&told[0], &told[2], &told[5]);
    assert_eq!(
        created["systemProperties"]["iothub-message-source"],
        "deviceLifecycleEvents"
    );
    assert_eq!(created["json"]["deviceId"], "d-1");
    assert_eq!(created["properties"]["hubName"], "hub");
    assert_eq!(
        created["properties"]["iothub-message-schema"],
        "deviceLifecycleNotification"
    );
    assert_eq!(
        changed["systemProperties"]["iothub-message-source"],
        "twinChangeEvents"
    );
    assert_eq!(changed["systemProperties"]["content-type"], "application/json");
    assert_eq!(changed["json"]["version"], 2);
    assert_eq!(changed["json"]["tags"], json!({ "floor": 3 }));
    let desired = &changed["json"]["properties"]["desired"];
    assert_eq!(
        (&desired["interval"], &desired["gone"], &desired["$version"]),
        (&json!(5), &Value::Null, &json!(2))
    );
    assert!(desired["$metadata"]["$lastUpdated"].is_string());
    assert_eq!(deleted["json"]["tags"], json!({ "wing": "a" }), "what it had");
    let number = |event: &Value| event["json"]["sequenceNumber"].as_str().unwrap().to_owned();
    let links = of("dev-1");
    assert!(number(&links[0]) < number(&links[1]));
    assert_eq!(number(&links[0]).len(), 64);
    let twins = events(&world, "source=twinChangeEvents").await;
    assert_eq!(operations(&twins), ["updateTwin", "replaceTwin"]);
    let wrong = world.http("GET", "/events/0?source=none", &[], "").await;
    assert_eq!(wrong.status, 400);
}

#[tokio::test]
async fn a_device_that_reports_is_told_of() {
    let world = World::new().await;
    must_put(
        &world,
        &json!({ "routes": [route("twins", "TwinChangeEvents", "true", "events")] }),
    )
    .await;
    let mut client = world.connect(Version::V3).await;
    client
        .publish_unacknowledged(
            "$iothub/twin/PATCH/properties/reported/?$rid=1",
            br#"{"battery":55}"#,
        )
        .await
        .unwrap();
    // The answer: by then it is in the log.
    client.next_event().await;
    let told = events(&world, "").await;
    assert_eq!(operations(&told), ["updateTwin"]);
    assert_eq!(told[0]["json"]["properties"]["reported"]["battery"], 55);
    assert_eq!(told[0]["json"]["properties"]["reported"]["$version"], 2);
}

async fn send(world: &World, body: &str, headers: &[(&str, &str)]) {
    let mut all = vec![
        ("iothub-contenttype", "application/json"),
        ("iothub-contentencoding", "utf-8"),
    ];
    all.extend_from_slice(headers);
    let answer = world
        .http("POST", "/devices/dev-1/messages/events", &all, body)
        .await;
    assert_eq!(answer.status, 204, "{}", answer.body);
}

#[tokio::test]
async fn readers_get_what_is_led_to_them_with_what_it_is_given() {
    let world = World::new().await;
    must(
        &world,
        "PATCH",
        "/twins/dev-1",
        &json!({ "tags": { "floor": 3 } }),
    )
    .await;
    for number in 0..6 {
        let level = if number % 2 == 0 { "hot" } else { "cold" };
        send(
            &world,
            &json!({ "n": number }).to_string(),
            &[("iothub-app-level", level)],
        )
        .await;
    }
    let numbers = |events: &[Value]| -> Vec<u64> {
        events
            .iter()
            .map(|event| event["json"]["n"].as_u64().unwrap())
            .collect()
    };
    assert_eq!(numbers(&events(&world, "").await), [0, 1, 2, 3, 4, 5]);
    let cases = [
        // The route takes them, and the fallback the others.
        ("$body.n > 2", "storage", true, vec![0, 1, 2]),
        ("$body.n > 2", "storage", false, vec![]),
        ("$body.n > 2", "events", false, vec![3, 4, 5]),
        ("level = 'hot'", "events", false, vec![0, 2, 4]),
        (
            "level = 'hot' AND $twin.tags.floor = 3",
            "events",
            false,
            vec![0, 2, 4],
        ),
        ("$twin.tags.floor = 4", "events", false, vec![]),
        (
            "$connectionDeviceId = 'dev-1'",
            "events",
            false,
            vec![0, 1, 2, 3, 4, 5],
        ),
    ];
    for (condition, endpoint, has_fallback, expected) in cases {
        must_put(
            &world,
            &json!({
                "routes": [route("r", "DeviceMessages", condition, endpoint)],
                "fallbackRoute": { "isEnabled": has_fallback },
                "endpoints": { "storageContainers": [{ "name": "storage", "containerName": "cold" }] },
                "enrichments": [
                    { "key": "hub", "value": "$iothubname", "endpointNames": ["events"] },
                    { "key": "floor", "value": "$twin.tags.floor", "endpointNames": ["events"] },
                    { "key": "level", "value": "set", "endpointNames": ["events"] },
                ],
            }),
        )
        .await;
        let found = events(&world, "").await;
        assert_eq!(numbers(&found), expected, "{condition} to {endpoint}");
        for event in found {
            assert_eq!(
                event["properties"],
                json!({ "hub": "hub", "floor": "3", "level": "set" })
            );
        }
    }
}

#[tokio::test]
async fn a_page_of_events_that_are_led_elsewhere_has_an_end() {
    let world = World::new().await;
    for number in 0..5 {
        send(&world, &json!({ "n": number }).to_string(), &[]).await;
    }
    must_put(&world, &json!({ "fallbackRoute": { "isEnabled": false } })).await;
    for shard in 0..4 {
        let page = must(&world, "GET", &format!("/events/{shard}"), &Value::Null).await;
        assert_eq!((&page["events"], &page["next"]), (&json!([]), &page["end"]));
    }
}

#[tokio::test]
async fn trials_say_where_a_message_would_go() {
    let world = World::new().await;
    must(
        &world,
        "PATCH",
        "/twins/dev-1",
        &json!({ "tags": { "floor": 3 } }),
    )
    .await;
    must_put(
        &world,
        &json!({
            "routes": [
                route("hot", "DeviceMessages", "level = 'hot'", "cold"),
                route("body", "DeviceMessages", "$body.t > 30", "events"),
                route("floor", "DeviceMessages", "$twin.tags.floor = 3", "cold"),
            ],
            "endpoints": { "storageContainers": [{ "name": "cold", "containerName": "cold" }] },
        }),
    )
    .await;
    for (trial, expected) in [
        (json!({}), json!({ "routes": [], "endpointNames": ["events"] })),
        (
            json!({ "message": { "appProperties": { "level": "hot" } } }),
            json!({ "routes": ["hot"], "endpointNames": ["cold"] }),
        ),
        (
            json!({ "message": { "body": { "t": 31 } }, "deviceId": "dev-1" }),
            json!({ "routes": ["body", "floor"], "endpointNames": ["cold", "events"] }),
        ),
        (
            json!({ "source": "TwinChangeEvents", "deviceId": "dev-1" }),
            json!({ "routes": [], "endpointNames": [] }),
        ),
        (
            json!({ "condition": "a = '1'", "message": { "appProperties": { "a": "1" } } }),
            json!({ "result": true }),
        ),
        (
            json!({ "condition": "a = '2'", "message": { "appProperties": { "a": "1" } } }),
            json!({ "result": false }),
        ),
    ] {
        assert_eq!(
            must(&world, "POST", "/routing/test", &trial).await,
            expected,
            "{trial}"
        );
    }
    for wrong in [json!({ "condition": "a =" }), json!({ "deviceId": "a b" })] {
        let answer = world.http("POST", "/routing/test", &[], &wrong.to_string()).await;
        assert_eq!(answer.status, 400, "{wrong}");
    }
}

/// Waits until nothing is to leave any more.
async fn delivered(world: &World) {
    let waiting = async {
        loop {
            let health = must(world, "GET", "/routing/endpoints/health", &Value::Null).await;
            if health[0]["eventsBehind"] == 0 {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(30), waiting)
        .await
        .expect("it leaves");
}

#[tokio::test]
async fn events_leave_for_a_webhook_from_when_it_is_there_however_often_it_fails() {
    let world = World::new().await;
    let is_well = Arc::new(AtomicBool::new(false));
    let well = Arc::clone(&is_well);
    world.outside.answer(move |_| match well.load(Ordering::SeqCst) {
        true => Ok((204, String::new())),
        false => Ok((503, "not now".to_owned())),
    });
    send(&world, r#"{"n":0}"#, &[]).await;
    must_put(
        &world,
        &json!({
            "routes": [route("hot", "DeviceMessages", "$body.n < 5 AND $body.n > 0", "hook")],
            "endpoints": { "webhooks": [{
                "name": "hook", "url": "https://example.org/x", "authorization": "Bearer secret",
            }] },
            "enrichments": [{ "key": "hub", "value": "$iothubname", "endpointNames": ["hook"] }],
        }),
    )
    .await;
    for number in 1..9 {
        send(&world, &json!({ "n": number }).to_string(), &[]).await;
    }
    // It is asked, and asked again.
    let asked = async {
        while world.outside.asked().is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), asked)
        .await
        .expect("it is asked");
    is_well.store(true, Ordering::SeqCst);
    let mut numbers = Vec::new();
    let all = async {
        while numbers.len() < 4 {
            for call in world.outside.asked() {
                assert_eq!(
                    (call.method, call.url.as_str()),
                    ("POST", "https://example.org/x")
                );
                assert!(
                    call.headers
                        .contains(&("authorization", "Bearer secret".to_owned()))
                );
                let events: Value = serde_json::from_slice(&call.body).unwrap();
                for event in events.as_array().unwrap() {
                    assert_eq!(event["properties"]["hub"], "hub");
                    let number = event["json"]["n"].as_u64().unwrap();
                    if !numbers.contains(&number) {
                        numbers.push(number);
                    }
                }
            }
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all)
        .await
        .expect("all of them leave");
    assert_eq!(
        numbers,
        [1, 2, 3, 4],
        "in order, and none from before it was there"
    );
    assert_eq!(events(&world, "").await.len(), 5, "0 and 5 to 8 fall back");
    let metrics = world.gateway.metrics();
    assert!(metrics.dispatch_failures.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn an_endpoint_that_stays_goes_on_where_it_was() {
    let world = World::new().await;
    world.outside.answer(|_| Ok((200, String::new())));
    let with = |url: &str| {
        json!({
            "routes": [route("all", "DeviceMessages", "true", "hook")],
            "endpoints": { "webhooks": [{ "name": "hook", "url": url }] },
        })
    };
    must_put(&world, &with("https://example.org/a")).await;
    send(&world, r#"{"n":1}"#, &[]).await;
    delivered(&world).await;
    must_put(&world, &with("https://example.org/b")).await;
    send(&world, r#"{"n":2}"#, &[]).await;
    delivered(&world).await;
    let asked = world.outside.asked();
    let bodies: Vec<(String, u64)> = asked
        .iter()
        .map(|call| {
            let events: Value = serde_json::from_slice(&call.body).unwrap();
            (call.url.clone(), events[0]["json"]["n"].as_u64().unwrap())
        })
        .collect();
    assert_eq!(
        bodies,
        [
            ("https://example.org/a".to_owned(), 1),
            ("https://example.org/b".to_owned(), 2)
        ]
    );
}

#[tokio::test]
async fn events_lie_in_files_of_their_shard() {
    let world = World::new().await;
    must_put(
        &world,
        &json!({
            "routes": [route("all", "DeviceMessages", "true", "cold")],
            "endpoints": { "storageContainers": [{ "name": "cold", "containerName": "archive" }] },
        }),
    )
    .await;
    // A file is written when there is enough for one.
    let filler = "x".repeat(200_000);
    for number in 0..16 {
        send(&world, &json!({ "n": number, "filler": filler }).to_string(), &[]).await;
    }
    let files = world.files.take().await;
    let (path, content) = files.first_key_value().unwrap();
    assert!(
        path.starts_with("archive/0000") && path.ends_with("/00000000000000000000.jsonl"),
        "{path}"
    );
    for (line, number) in content
        .split(|byte| *byte == b'\n')
        .filter(|line| !line.is_empty())
        .zip(0..)
    {
        let event: Value = serde_json::from_slice(line).unwrap();
        assert_eq!(event["json"]["n"], number);
        assert_eq!(event["offset"], number);
    }
}
