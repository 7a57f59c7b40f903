//! Queries over the fleet at the doors: pages, projections, aggregates, who may ask, and what is refused.

use dunlin_gateway::client::device_token;
use serde_json::{Value, json};

use crate::fake::KEY;
use crate::world::{Answer, HOST, NOW_S, World};

const PATH: &str = "/devices/query?api-version=2021-04-12";

async fn ask(world: &World, query: &str, headers: &[(&str, &str)]) -> Answer {
    let body = json!({ "query": query }).to_string();
    world.http("POST", PATH, headers, &body).await
}

async fn rows(world: &World, query: &str) -> Value {
    let answer = ask(world, query, &[]).await;
    assert_eq!(answer.status, 200, "{query}: {}", answer.body);
    answer.json()
}

/// `dev-1` that is there already, and `f-0` to `f-9`, each on a floor; `f-3` has a module.
async fn fleet() -> World {
    let world = World::new().await;
    for number in 0..10 {
        let id = format!("f-{number}");
        let made = world.http("PUT", &format!("/devices/{id}"), &[], "{}").await;
        assert_eq!(made.status, 200, "{}", made.body);
        let twin = json!({
            "tags": {"floor": number % 3, "name": format!("n{number}")},
            "properties": {"desired": {"interval": number}},
        });
        let path = format!("/twins/{id}");
        let changed = world.http("PATCH", &path, &[], &twin.to_string()).await;
        assert_eq!(changed.status, 200, "{}", changed.body);
    }
    let made = world.http("PUT", "/devices/f-3/modules/cam", &[], "{}").await;
    assert_eq!(made.status, 200, "{}", made.body);
    world
}

#[tokio::test]
async fn twins_are_found_by_what_they_have() {
    let world = fleet().await;
    let answer = ask(&world, "SELECT * FROM devices WHERE tags.floor = 2", &[]).await;
    assert_eq!(
        answer.headers.get("x-ms-item-type").map(String::as_str),
        Some("Twin")
    );
    assert_eq!(answer.headers.get("x-ms-continuation").map(String::as_str), None);
    let mut found: Vec<String> = Vec::new();
    for twin in answer.json().as_array().unwrap() {
        assert_eq!(twin["tags"]["floor"], 2);
        assert!(twin["properties"]["desired"]["$metadata"]["$lastUpdated"].is_string());
        let id = twin["deviceId"].as_str().unwrap();
        let (status, alone) = {
            let answer = world.http("GET", &format!("/twins/{id}"), &[], "").await;
            (answer.status, answer.json())
        };
        assert_eq!((status, &alone), (200, twin), "the same as the twin itself");
        found.push(id.to_owned());
    }
    found.sort();
    assert_eq!(found, ["f-2", "f-5", "f-8"]);
    let some = "SELECT deviceId, properties.desired.interval AS i FROM devices \
                WHERE properties.desired.interval > 7 AND STARTSWITH(deviceId, 'f-')";
    let answer = ask(&world, some, &[]).await;
    assert_eq!(
        answer.headers.get("x-ms-item-type").map(String::as_str),
        Some("Raw")
    );
    let mut found = answer.json().as_array().unwrap().clone();
    found.sort_by_key(|row| row["i"].as_u64());
    assert_eq!(
        Value::from(found),
        json!([{"deviceId": "f-8", "i": 8}, {"deviceId": "f-9", "i": 9}])
    );
    let times =
        "SELECT deviceId FROM devices WHERE properties.desired.$metadata.interval.$lastUpdated > '1960'";
    assert_eq!(rows(&world, times).await.as_array().unwrap().len(), 10);
    let modules = rows(&world, "SELECT deviceId, moduleId FROM devices.modules").await;
    assert_eq!(modules, json!([{"deviceId": "f-3", "moduleId": "cam"}]));
}

#[tokio::test]
async fn pages_add_up_and_end() {
    let world = fleet().await;
    for (query, count) in [
        ("SELECT deviceId FROM devices", 11),
        ("SELECT TOP 5 deviceId FROM devices", 5),
        ("SELECT deviceId FROM devices WHERE tags.floor = 7", 0),
        (
            "SELECT deviceId FROM devices WHERE deviceId IN ['f-1', 'f-3', 'f-5', 'f-7', 'f-9', 'none']",
            5,
        ),
        (
            "SELECT TOP 3 deviceId FROM devices WHERE deviceId IN ['f-1', 'f-3', 'f-5', 'f-7']",
            3,
        ),
    ] {
        let (mut found, mut next): (Vec<String>, Option<String>) = (Vec::new(), None);
        for page in 0.. {
            let mut headers = vec![("x-ms-max-item-count", "2")];
            headers.extend(next.as_deref().map(|next| ("x-ms-continuation", next)));
            let answer = ask(&world, query, &headers).await;
            assert_eq!(answer.status, 200, "{}", answer.body);
            let rows = answer.json();
            assert!(rows.as_array().unwrap().len() <= 2, "{rows}");
            let ids = rows.as_array().unwrap().iter();
            found.extend(ids.map(|row| row["deviceId"].as_str().unwrap().to_owned()));
            next = answer.headers.get("x-ms-continuation").cloned();
            if next.is_none() {
                break;
            }
            assert!(page < 20, "it ends");
        }
        let all = found.len();
        found.sort();
        found.dedup();
        assert_eq!((all, found.len()), (count, count), "{query}");
    }
}

#[tokio::test]
async fn aggregates_are_of_all_shards() {
    let world = fleet().await;
    let count = rows(
        &world,
        "SELECT COUNT() AS devices FROM devices WHERE IS_DEFINED(tags.floor)",
    )
    .await;
    assert_eq!(count, json!([{"devices": 10}]));
    let floors = "SELECT tags.floor AS floor, COUNT() AS n, SUM(properties.desired.interval) AS total \
                  FROM devices WHERE IS_DEFINED(tags.floor) GROUP BY tags.floor";
    assert_eq!(
        rows(&world, floors).await,
        json!([
            {"floor": 0, "n": 4, "total": 18},
            {"floor": 1, "n": 3, "total": 12},
            {"floor": 2, "n": 3, "total": 15}
        ])
    );
}

#[tokio::test]
async fn what_is_named_is_found_at_once() {
    let world = fleet().await;
    let named = "SELECT deviceId FROM devices WHERE deviceId IN ['f-1', 'nobody', 'f-4'] AND tags.floor = 1";
    let answer = rows(&world, named).await;
    assert_eq!(answer, json!([{"deviceId": "f-1"}, {"deviceId": "f-4"}]));
    let other = "SELECT deviceId FROM devices WHERE deviceId = 'f-1' AND tags.floor = 2";
    assert_eq!(rows(&world, other).await, json!([]));
    let top = "SELECT TOP 1 deviceId FROM devices WHERE deviceId IN ['f-4', 'f-1']";
    assert_eq!(rows(&world, top).await, json!([{"deviceId": "f-1"}]));
}

#[tokio::test]
async fn who_may_not_ask_and_what_makes_no_sense_is_refused() {
    let world = fleet().await;
    let body = json!({"query": "SELECT * FROM devices"}).to_string();
    for (policy, status) in [
        ("service", 200),
        ("registryRead", 200),
        ("iothubowner", 200),
        ("device", 401),
    ] {
        let token = world.service_token(policy);
        let headers = [("Authorization", token.as_str())];
        let answer = world.http_as("POST", PATH, &headers, body.as_bytes()).await;
        assert_eq!(answer.status, status, "{policy}: {}", answer.body);
    }
    for wrong in [
        "",
        "SELECT",
        "SELECT * FROM nothing",
        "SELECT * FROM devices WHERE (",
    ] {
        let answer = ask(&world, wrong, &[]).await;
        assert_eq!(
            (answer.status, answer.error_code()),
            (400, "ArgumentInvalid"),
            "{wrong}"
        );
        assert!(answer.body.contains("at character"), "{}", answer.body);
    }
    for (header, value) in [
        ("x-ms-max-item-count", "0"),
        ("x-ms-max-item-count", "many"),
        ("x-ms-continuation", "nowhere"),
        ("dunlin-receipt", "1/2"),
    ] {
        let answer = ask(&world, "SELECT * FROM devices", &[(header, value)]).await;
        assert_eq!(
            (answer.status, answer.error_code()),
            (400, "ArgumentInvalid"),
            "{header}"
        );
    }
    for body in ["", "[]", "{}", r#"{"query": 1}"#] {
        assert_eq!(world.http("POST", PATH, &[], body).await.status, 400, "{body}");
    }
}

#[tokio::test]
async fn a_receipt_is_seen_or_is_of_another_hub() {
    let world = fleet().await;
    let token = device_token(HOST, "dev-1", KEY, NOW_S + 60).unwrap();
    let headers = [("Authorization", token.as_str())];
    let sent = world
        .http_as("POST", "/devices/dev-1/messages/events", &headers, b"{}")
        .await;
    let receipt = sent.headers.get("dunlin-receipt").cloned();
    let receipt = receipt.unwrap_or_else(|| panic!("{} {}", sent.status, sent.body));
    let query = "SELECT deviceId FROM devices WHERE deviceId = 'dev-1'";
    let answer = ask(&world, query, &[("dunlin-receipt", &receipt)]).await;
    assert_eq!(answer.json(), json!([{"deviceId": "dev-1"}]));
    let shard = receipt.split('/').next().unwrap();
    for unseen in [format!("{shard}/1000/1"), "999/0/1".to_owned()] {
        let answer = ask(&world, query, &[("dunlin-receipt", &unseen)]).await;
        assert_eq!(
            (answer.status, answer.error_code()),
            (412, "PreconditionFailed"),
            "{unseen}"
        );
    }
}
