//! Configurations at the doors: twins that follow, in order of priority; metrics; edge modules; what is refused.

use serde_json::{Value, json};

use crate::world::{Answer, World};

async fn call(world: &World, method: &str, path: &str, body: Value) -> Answer {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    world.http(method, path, &[], &body).await
}

async fn must(world: &World, method: &str, path: &str, body: Value) -> Value {
    let answer = call(world, method, path, body).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.json()
}

fn error(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.error_code())
}

/// A hub with `f-0` to `f-3`, the odd ones on floor 1; time goes on by itself when nobody has anything to do.
async fn fleet() -> World {
    let world = World::new().await;
    for number in 0..4 {
        must(&world, "PUT", &format!("/devices/f-{number}"), json!({})).await;
        let tags = json!({"tags": {"floor": number % 2}});
        must(&world, "PATCH", &format!("/twins/f-{number}"), tags).await;
    }
    world
}

async fn twin(world: &World, id: &str) -> Value {
    must(world, "GET", &format!("/twins/{id}"), Value::Null).await
}

/// The twin of `id`, once it is as it should be.
async fn twin_that(world: &World, id: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    for _ in 0..1000 {
        let twin = twin(world, id).await;
        if is_so(&twin) {
            return twin;
        }
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    panic!("{}", twin(world, id).await)
}

fn fps(value: u32) -> Value {
    json!({"deviceContent": {"properties.desired.camera.fps": value}})
}

#[tokio::test]
async fn twins_follow_the_configuration_of_the_highest_priority() {
    let world = fleet().await;
    let low = json!({"content": fps(5), "targetCondition": "tags.floor = 1", "priority": 1,
        "metrics": {"queries": {"done": "SELECT deviceId FROM devices WHERE properties.desired.camera.fps = 5"}}});
    let made = must(&world, "PUT", "/configurations/low", low).await;
    assert_eq!((&made["id"], &made["priority"]), (&json!("low"), &json!(1)));
    let one = twin_that(&world, "f-1", |twin| {
        twin["configurations"]["low"]["status"] == "Applied"
    })
    .await;
    assert_eq!(one["properties"]["desired"]["camera"]["fps"], 5);
    assert_eq!(one["properties"]["desired"]["$version"], 2);
    twin_that(&world, "f-3", |twin| !twin["configurations"].is_null()).await;
    assert_eq!(twin(&world, "f-0").await["configurations"], Value::Null);
    let shown = must(&world, "GET", "/configurations/low", Value::Null).await;
    assert_eq!(
        (&shown["systemMetrics"]["results"], &shown["metrics"]["results"]),
        (
            &json!({"targetedCount": 2, "appliedCount": 2}),
            &json!({"done": 2})
        )
    );

    let high = json!({"content": fps(9), "targetCondition": "deviceId = 'f-1'", "priority": 2});
    must(&world, "PUT", "/configurations/high", high).await;
    let one = twin_that(&world, "f-1", |twin| {
        twin["properties"]["desired"]["camera"]["fps"] == 9
    })
    .await;
    assert_eq!(
        one["configurations"],
        json!({"high": {"status": "Applied"}, "low": {"status": "Targeted"}})
    );
    assert_eq!(one["properties"]["desired"]["$version"], 3);
    let all = must(&world, "GET", "/configurations/?top=20", Value::Null).await;
    let counts: Vec<_> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            (
                one["id"].clone(),
                one["systemMetrics"]["results"]["appliedCount"].clone(),
            )
        })
        .collect();
    assert_eq!(counts, [(json!("high"), json!(1)), (json!("low"), json!(1))]);

    // A device that comes to fit follows; one that fits no more keeps what it was told, and says so no more.
    must(&world, "PATCH", "/twins/f-0", json!({"tags": {"floor": 1}})).await;
    twin_that(&world, "f-0", |twin| {
        twin["properties"]["desired"]["camera"]["fps"] == 5
    })
    .await;
    must(&world, "PATCH", "/twins/f-3", json!({"tags": {"floor": 0}})).await;
    let three = twin_that(&world, "f-3", |twin| twin["configurations"].is_null()).await;
    assert_eq!(three["properties"]["desired"]["camera"]["fps"], 5);

    // Without the higher one the next lower one counts.
    let gone = world
        .http("DELETE", "/configurations/high", &[("If-Match", "*")], "")
        .await;
    assert_eq!(gone.status, 204, "{}", gone.body);
    let one = twin_that(&world, "f-1", |twin| {
        twin["properties"]["desired"]["camera"]["fps"] == 5
    })
    .await;
    assert_eq!(one["configurations"], json!({"low": {"status": "Applied"}}));
    assert_eq!(
        call(&world, "DELETE", "/configurations/low", Value::Null)
            .await
            .status,
        204
    );
    twin_that(&world, "f-1", |twin| twin["configurations"].is_null()).await;
}

#[tokio::test]
async fn a_configuration_is_made_once_and_changed_by_its_etag() {
    let world = fleet().await;
    let path = "/configurations/c";
    let body = json!({"content": fps(5), "targetCondition": "tags.floor = 7", "labels": {"a": "b"}});
    let made = call(&world, "PUT", path, body.clone()).await;
    let etag = made.headers["etag"].clone();
    assert_eq!(format!("\"{}\"", made.json()["etag"].as_str().unwrap()), etag);
    assert_eq!(
        error(&call(&world, "PUT", path, body.clone()).await),
        (409, "ConfigurationAlreadyExists")
    );
    let update = json!({"priority": 9}).to_string();
    let changed = world.http("PUT", path, &[("If-Match", &etag)], &update).await;
    assert_eq!(changed.status, 200, "{}", changed.body);
    let changed = changed.json();
    assert_eq!(
        (&changed["priority"], &changed["labels"], &changed["content"]),
        (&json!(9), &json!({"a": "b"}), &fps(5))
    );
    for stale in [etag.as_str(), "nonsense"] {
        let refused = world.http("PUT", path, &[("If-Match", stale)], &update).await;
        assert_eq!(error(&refused), (412, "PreconditionFailed"), "{stale}");
        let refused = world.http("DELETE", path, &[("If-Match", stale)], "").await;
        assert_eq!(error(&refused), (412, "PreconditionFailed"), "{stale}");
    }
    let other = json!({"content": fps(6)}).to_string();
    let refused = world.http("PUT", path, &[("If-Match", "*")], &other).await;
    assert_eq!(error(&refused), (400, "ArgumentInvalid"));
    assert!(refused.body.contains("content"), "{}", refused.body);
    let missing = world
        .http("PUT", "/configurations/none", &[("If-Match", "*")], &update)
        .await;
    assert_eq!(error(&missing), (404, "ConfigurationNotFound"));
    for (method, path) in [
        ("GET", "/configurations/none"),
        ("DELETE", "/configurations/none"),
    ] {
        assert_eq!(
            error(&call(&world, method, path, Value::Null).await),
            (404, "ConfigurationNotFound")
        );
    }
}

#[tokio::test]
async fn modules_of_edge_devices_are_made_and_told() {
    let world = fleet().await;
    let content = json!({"modulesContent": {
        "$edgeAgent": {"properties.desired": {"modules": {"cam": {"version": "1.0"}}}},
        "$edgeHub": {"properties.desired.routes.up": "FROM /* INTO $upstream"},
    }});
    let body = json!({"content": content, "targetCondition": "deviceId = 'f-2'"});
    must(&world, "PUT", "/configurations/edge", body).await;
    twin_that(&world, "f-2", |twin| {
        twin["configurations"]["edge"]["status"] == "Applied"
    })
    .await;
    let agent = twin(&world, "f-2/modules/$edgeAgent").await;
    assert_eq!(agent["properties"]["desired"]["modules"]["cam"]["version"], "1.0");
    let module = must(&world, "GET", "/devices/f-2/modules/$edgeHub", Value::Null).await;
    assert_eq!(module["managedBy"], "IotEdge");

    let by_hand = json!({
        "deviceContent": {"properties.desired.mode": "manual"},
        "modulesContent": {"$edgeAgent": {"properties.desired": {"modules": {}}}},
    });
    let applied = call(
        &world,
        "POST",
        "/devices/f-2/applyConfigurationContent",
        by_hand.clone(),
    )
    .await;
    assert_eq!(applied.status, 204, "{}", applied.body);
    let agent = twin(&world, "f-2/modules/$edgeAgent").await;
    assert_eq!(agent["properties"]["desired"]["modules"], json!({}));
    assert_eq!(
        twin(&world, "f-2").await["properties"]["desired"]["mode"],
        "manual"
    );
    let nobody = call(
        &world,
        "POST",
        "/devices/nobody/applyConfigurationContent",
        by_hand,
    )
    .await;
    assert_eq!(error(&nobody), (404, "DeviceNotFound"));
    let module = json!({"content": {"moduleContent": {"properties.desired.level": 3}},
        "targetCondition": "FROM devices.modules WHERE moduleId = '$edgeHub'"});
    must(&world, "PUT", "/configurations/of-modules", module).await;
    let path = "f-2/modules/$edgeHub";
    let hub = twin_that(&world, path, |twin| {
        twin["configurations"]["of-modules"]["status"] == "Applied"
    })
    .await;
    assert_eq!(hub["properties"]["desired"]["level"], 3);
    assert_eq!(
        hub["properties"]["desired"]["routes"]["up"],
        "FROM /* INTO $upstream"
    );
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_may_be_tried_before() {
    let world = fleet().await;
    let targets = |condition: &str| json!({"content": fps(1), "targetCondition": condition});
    let metric = |query: &str| json!({"content": fps(1), "metrics": {"queries": {"m": query}}});
    for (path, body) in [
        ("/configurations/a%20b", targets("*")),
        ("/configurations/a", json!({"id": "b"})),
        ("/configurations/a", json!([])),
        (
            "/configurations/a",
            json!({"content": {"deviceContent": {"tags.a": 1}}}),
        ),
        ("/configurations/a", targets("tags.a =")),
        (
            "/configurations/a",
            targets("FROM devices.modules WHERE moduleId = 'm'"),
        ),
        ("/configurations/a", metric("SELECT COUNT() FROM devices")),
        ("/configurations/a", metric("SELECT deviceId FROM")),
        ("/configurations/a", json!({"priority": -1})),
    ] {
        let refused = call(&world, "PUT", path, body.clone()).await;
        assert_eq!(error(&refused), (400, "ArgumentInvalid"), "{body}");
    }
    let trial = json!({"targetCondition": "tags.a =", "customMetricQueries": {
        "good": "SELECT deviceId FROM devices", "bad": "SELECT"}});
    let tried = must(&world, "POST", "/configurations/testQueries", trial).await;
    assert!(
        tried["targetConditionError"]
            .as_str()
            .unwrap()
            .contains("at character")
    );
    let errors = tried["customMetricQueryErrors"].as_object().unwrap();
    assert_eq!(errors.keys().collect::<Vec<_>>(), ["bad"]);
    let token = world.service_token("registryRead");
    let headers = [("Authorization", token.as_str())];
    let body = targets("*").to_string();
    let refused = world
        .http_as("PUT", "/configurations/a", &headers, body.as_bytes())
        .await;
    assert_eq!(refused.status, 401);
    let read = world.http_as("GET", "/configurations", &headers, b"").await;
    assert_eq!((read.status, read.json()), (200, json!([])));
}
