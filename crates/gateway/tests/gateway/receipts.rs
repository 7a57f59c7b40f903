//! Read your writes: whatever a query can see is acknowledged with a receipt, and a query that shows it is answered by a
//! hub that has the write, or not at all.

use dunlin_gateway::client::{Client, ConnectOptions, Event};
use dunlin_gateway::mqtt::Version;
use dunlin_model::command::{RECEIPTS_SHOWN_MAX, WriteReceipt};
use dunlin_model::port::ShardClient as _;
use serde_json::json;

use crate::world::{Answer, World, next, puback};

const HEADER: &str = "dunlin-receipt";

/// What a query answers that shows these receipts.
async fn query(world: &World, receipts: &[&str]) -> Answer {
    let headers: Vec<(&str, &str)> = receipts.iter().map(|receipt| (HEADER, *receipt)).collect();
    let body = json!({ "query": "SELECT deviceId FROM devices WHERE deviceId = 'dev-1'" }).to_string();
    world.http("POST", "/devices/query", &headers, &body).await
}

async fn status(world: &World, receipts: &[&str]) -> u16 {
    query(world, receipts).await.status
}

/// The receipts of an answer.
fn receipts(answer: &Answer) -> Vec<WriteReceipt> {
    let text = answer.headers.get(HEADER).map_or("", String::as_str);
    let parts = text.split(", ").filter(|part| !part.is_empty());
    parts.map(|part| part.parse().unwrap()).collect()
}

#[tokio::test]
async fn every_write_over_https_has_a_receipt_and_a_query_sees_it() {
    let world = World::new().await;
    let any = [("If-Match", "\"*\"")];
    let twin = r#"{"tags": {"a": 1}, "properties": {"desired": {"b": 2}}}"#;
    let content = r#"{"modulesContent": {"m": {"properties.desired": {"c": 3}}}}"#;
    let bulk = r#"[{"id": "bulk", "importMode": "create", "tags": {"d": 4}}]"#;
    let configuration = r#"{"content": {"deviceContent": {"properties.desired.e": 5}}, "priority": 1}"#;
    let job = r#"{"type": "scheduleUpdateTwin", "queryCondition": "deviceId = 'r'",
        "startTime": "2023-12-01T00:00:00Z", "updateTwin": {"tags": {"f": 6}}}"#;
    let none: &[(&str, &str)] = &[];
    let writes = [
        ("PUT", "/devices/r", none, "{}"),
        ("PUT", "/devices/r", &any, r#"{"status": "enabled"}"#),
        ("PUT", "/devices/r/modules/m", none, "{}"),
        ("PATCH", "/twins/r", none, twin),
        ("PUT", "/twins/r", none, twin),
        ("PATCH", "/twins/r/modules/m", none, twin),
        ("POST", "/devices/r/applyConfigurationContent", none, content),
        ("POST", "/devices", none, bulk),
        ("PUT", "/configurations/c", none, configuration),
        ("DELETE", "/configurations/c", &any, ""),
        ("PUT", "/jobs/v2/j", none, job),
        ("POST", "/jobs/v2/j/cancel", none, ""),
        ("DELETE", "/devices/r/modules/m", &any, ""),
        ("DELETE", "/devices/r", &any, ""),
        ("POST", "/devices/bulk/erase", none, ""),
    ];
    for (method, path, headers, body) in writes {
        let answer = world.http(method, path, headers, body).await;
        let what = format!("{method} {path}: {} {}", answer.status, answer.body);
        assert!(answer.status < 300, "{what}");
        let shown = answer.headers.get(HEADER).unwrap_or_else(|| panic!("{what}"));
        let [receipt] = receipts(&answer)[..] else {
            panic!("{what}: {shown}");
        };
        assert_eq!(status(&world, &[shown.as_str()]).await, 200, "{what}: {shown}");
        // An older copy of this hub has not the entry; another hub has been led by fewer leaders.
        let later = WriteReceipt {
            index: receipt.index + 1_000_000,
            ..receipt
        };
        let other = WriteReceipt {
            term: receipt.term + 1,
            ..receipt
        };
        for unseen in [later, other] {
            let answer = query(&world, &[&unseen.to_string()]).await;
            assert_eq!(
                (answer.status, answer.error_code()),
                (412, "PreconditionFailed"),
                "{what}"
            );
        }
    }
}

#[tokio::test]
async fn many_writes_in_one_request_have_a_receipt_of_each_shard() {
    let world = World::new().await;
    let entries: Vec<_> = (0..20)
        .map(|n| json!({"id": format!("b-{n}"), "importMode": "create"}))
        .collect();
    let body = json!(entries).to_string();
    let made = world.http("POST", "/devices", &[], &body).await;
    let all = receipts(&made);
    let shards: Vec<u32> = all.iter().map(|receipt| receipt.shard.0).collect();
    assert_eq!(shards, [0, 1, 2, 3], "{:?}", made.headers);
    let shown = made.headers[HEADER].as_str();
    assert_eq!(status(&world, &[shown]).await, 200);
    // In one header or in several.
    let each: Vec<String> = all.iter().map(ToString::to_string).collect();
    let each: Vec<&str> = each.iter().map(String::as_str).collect();
    assert_eq!(status(&world, &each).await, 200);
    let unseen = format!("{shown}, 1/@1000000/1");
    assert_eq!(status(&world, &[&unseen]).await, 412);
    assert_eq!(status(&world, &[shown, "1/1000000/1"]).await, 412, "of a message");
    assert_eq!(status(&world, &[shown, "1/x/1"]).await, 400);
    let many = vec![each[0]; RECEIPTS_SHOWN_MAX + 1].join(",");
    assert_eq!(status(&world, &[&many]).await, 400);

    // What took place has one, also where other things did not.
    let body = json!([{"id": "b-0", "importMode": "create"}, {"id": "new", "importMode": "create"}]);
    let some = world.http("POST", "/devices", &[], &body.to_string()).await;
    assert_eq!(some.status, 400);
    let device = dunlin_model::id::DeviceId::parse("new").unwrap();
    let [receipt] = receipts(&some)[..] else {
        panic!("{:?}", some.headers);
    };
    assert_eq!(receipt.shard, world.cluster.shard_of(&device));
    assert_eq!(status(&world, &[&receipt.to_string()]).await, 200);
}

#[tokio::test]
async fn what_did_not_take_place_has_no_receipt() {
    let world = World::new().await;
    let refused = [
        ("PUT", "/devices/dev-1", "{}"),
        ("DELETE", "/devices/nobody", ""),
        ("PATCH", "/twins/nobody", "{}"),
        ("POST", "/jobs/v2/none/cancel", ""),
        ("GET", "/devices/dev-1", ""),
    ];
    for (method, path, body) in refused {
        let answer = world.http(method, path, &[], body).await;
        assert_eq!(receipts(&answer), [], "{method} {path}: {}", answer.status);
    }
}

/// Reports something, and returns the user properties of the answer.
async fn report(client: &mut Client) -> Vec<(String, String)> {
    let topic = "$iothub/twin/PATCH/properties/reported/?$rid=r";
    let id = client.publish(topic, br#"{"a": 1}"#).await.unwrap();
    let Event::Message {
        topic, properties, ..
    } = next(client).await
    else {
        panic!("an answer");
    };
    assert!(topic.starts_with("$iothub/twin/res/204/"), "{topic}");
    assert_eq!(next(client).await, puback(id));
    properties
}

#[tokio::test]
async fn a_report_has_a_receipt_for_those_who_ask() {
    let world = World::new().await;
    let options = ConnectOptions {
        receipts: true,
        ..world.options(Version::V5)
    };
    let mut client = Client::connect(&options).await.unwrap();
    let properties = report(&mut client).await;
    let [(name, receipt)] = &properties[..] else {
        panic!("{properties:?}");
    };
    assert_eq!(name, HEADER);
    let written: WriteReceipt = receipt.parse().unwrap();
    assert_eq!(written.shard, world.cluster.shard_of(&world.device));
    assert_eq!(status(&world, &[receipt]).await, 200);
    for version in [Version::V3, Version::V5] {
        let mut client = world.connect(version).await;
        assert_eq!(report(&mut client).await, [], "{version:?}");
    }
}
