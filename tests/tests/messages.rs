//! Cloud-to-device messages with the SDKs that others wrote: sent over AMQP by services, by the command line and over
//! HTTPS, while nodes die, and received once each by a device whose own node is among these.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_node::ready::Ready;
use dunlin_tests::field::Field;
use dunlin_tests::hub::Hub;
use dunlin_tests::program::{dunlin, run};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::process::Command;

use crate::clients::{SdkDevice, azure_field, device_connection, must_succeed, python, script, service_at};

const SERVICE: &str = "azure_service_c2d.py";

/// A command of ours about this hub.
fn command(ready: &Ready, arguments: &[&str]) -> Command {
    let mut command = Command::new(dunlin());
    command
        .args(arguments)
        .args(["--connection-string", &ready.connection_string])
        .arg("--ca")
        .arg(&ready.ca_file);
    command
}

/// Sends through any of the nodes that `hub` knows; returns the message's id.
async fn send(hub: &Hub, body: Value) -> String {
    let path = "/devices/sdk/messages/devicebound";
    let (status, answer) = hub.call(Method::POST, path, Some(body)).await;
    assert_eq!(status, StatusCode::CREATED, "{answer}");
    answer["messageId"].as_str().expect("an id").to_owned()
}

/// Has a service SDK send a message of this id; it says how many managers it has had by then, since one does not
/// outlast its connection.
async fn send_by_sdk(service: &mut SdkDevice, id: &str) -> u64 {
    let message = json!({ "data": id, "properties": { "messageId": id } });
    service.say(&message.to_string()).await;
    let managers = service.hear("sent").await;
    managers.as_u64().expect("a number")
}

/// The same, and the device is given it next.
async fn pass(service: &mut SdkDevice, sdk: &mut SdkDevice, id: &str) -> u64 {
    let managers = send_by_sdk(service, id).await;
    let message = sdk.hear("message").await;
    assert_eq!((&message["id"], &message["data"]), (&json!(id), &json!(id)));
    managers
}

async fn queued(field: &Field) -> Value {
    let (_, device) = field.hub.call(Method::GET, "/devices/sdk", None).await;
    device["cloudToDeviceMessageCount"].clone()
}

/// How the messages of these records ended.
fn ends(records: &str) -> Vec<Value> {
    let lines = records
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    lines.map(|record| record["statusCode"].clone()).collect()
}

#[tokio::test]
async fn the_azure_device_sdk_receives_every_message_while_nodes_die() {
    let Some((_turn, mut field)) = azure_field().await else {
        return;
    };
    let device = field.hub.create("sdk").await;
    let ready = field.cluster.ready().clone();
    // Sent before the device was ever there, with all that a sender can say.
    let line = "c2d send sdk --body hello --message-id m/1 --ack full --content-type text/plain";
    let arguments: Vec<&str> = line.split(' ').chain(["-p", "a=b c&d"]).collect();
    must_succeed(command(&ready, &arguments)).await;
    must_succeed(command(
        &ready,
        &["c2d", "send", "sdk", "--body", "second", "--ack", "positive"],
    ))
    .await;
    assert_eq!(queued(&field).await, 2);

    let connection = device_connection(&device);
    let mut sdk = SdkDevice::start("azure_c2d.py", &[connection.as_ref(), ready.ca_file.as_os_str()]);
    // What was waiting may come before the device says that it listens.
    let mut said = BTreeMap::new();
    let mut messages = Vec::new();
    while said.is_empty() || messages.len() < 2 {
        match sdk.hear_any().await {
            (kind, value) if kind == "message" => messages.push(value),
            (kind, value) => drop(said.insert(kind, value)),
        }
    }
    let first = json!({
        "id": "m/1", "data": "hello", "properties": {"a": "b c&d"}, "type": "text/plain", "ack": "full",
    });
    messages.sort_by_key(|message| message["data"] != "hello");
    assert_eq!(messages[0], first);
    assert_eq!(
        (&messages[1]["data"], &messages[1]["ack"]),
        (&json!("second"), &json!("positive"))
    );

    // What the service SDK sends, over AMQP through the first node.
    let mut service = service_at(&field, 0, SERVICE).await;
    let properties = json!({
        "messageId": "by-sdk", "contentType": "application/json", "ack": "full", "iothub-ack": "full", "kind": "x",
    });
    let message = json!({ "data": "{\"on\": true}", "properties": properties });
    service.say(&message.to_string()).await;
    service.hear("sent").await;
    let received = sdk.hear("message").await;
    assert_eq!(
        (&received["id"], &received["data"]),
        (&json!("by-sdk"), &json!("{\"on\": true}"))
    );
    assert_eq!(
        (&received["ack"], &received["type"]),
        (&json!("full"), &json!("application/json"))
    );
    assert_eq!(received["properties"]["kind"], "x");

    // The device stays with the first node; the others lead some of the shards, and die in turn.
    for node in [1, 2] {
        field.kill(node).await;
        let body = json!({ "while": node });
        let id = send(&field.hub, body.clone()).await;
        let message = sdk.hear("message").await;
        assert_eq!(
            (&message["id"], &message["data"]),
            (&json!(id), &json!(body.to_string()))
        );
        let managers = pass(&mut service, &mut sdk, &format!("without {node}")).await;
        field.restart(node).await;
        pass(&mut service, &mut sdk, &format!("with {node}")).await;
        assert_eq!(managers, 1, "its own gateway has lived");
    }
    let nobody = json!({ "to": "nobody", "data": "x", "properties": {} });
    service.say(&nobody.to_string()).await;
    service.hear("refused").await;

    // The first node dies, and with it the connections of the device and of one service. What comes meanwhile waits;
    // the device connects again by itself, and subscribes to nothing.
    let mut other = service_at(&field, 1, SERVICE).await;
    pass(&mut other, &mut sdk, "through another").await;
    // One that the device has, and whose gateway dies before it has said so, comes again.
    dunlin_tests::eventually("an empty queue", dunlin_tests::PATIENCE, || async {
        let count = queued(&field).await;
        (count == json!(0)).then_some(()).ok_or(count.to_string())
    })
    .await;
    field.kill(0).await;
    let others = field
        .hub
        .through([1, 2].map(|node| field.cluster.node(node).expect("a node")));
    let mut sent = BTreeSet::new();
    for n in 0..3 {
        sent.insert(send(&others, json!(n)).await);
        let id = format!("away {n}");
        send_by_sdk(&mut other, &id).await;
        sent.insert(id);
    }
    field.restart(0).await;
    // The SDK gives them to its threads, so in any order.
    let mut received = BTreeSet::new();
    for _ in &sent {
        let message = sdk.hear("message").await;
        received.insert(message["id"].as_str().expect("an id").to_owned());
    }
    assert_eq!(received, sent);
    pass(&mut other, &mut sdk, "back").await;
    let managers = pass(&mut service, &mut sdk, "back as well").await;
    assert!(managers > 1, "its gateway has died");
    other.end().await;
    service.end().await;
    sdk.end().await;

    // Senders hear of it, over AMQP.
    let mut reader = Command::new(python());
    reader
        .arg(script("azure_feedback.py"))
        .arg(&ready.connection_string)
        .arg(&ready.ca_file)
        .arg("3");
    let (status, feedback) = run(reader).await;
    assert!(status.success(), "{feedback}");
    assert_eq!(ends(&feedback), ["Success"; 3], "{feedback}");
    assert_eq!(queued(&field).await, 0);

    // One that nobody takes, and nothing of the others.
    must_succeed(command(
        &ready,
        &[
            "c2d",
            "send",
            "sdk",
            "--body",
            "late",
            "--expiry",
            "2020-01-01T00:00:00Z",
            "--ack",
            "negative",
        ],
    ))
    .await;
    dunlin_tests::eventually("a dead letter", dunlin_tests::PATIENCE, || async {
        let (_, text) = run(command(&ready, &["c2d", "dead-letters", "sdk"])).await;
        text.contains("Expired").then_some(()).ok_or(text)
    })
    .await;
    let (status, feedback) = run(command(
        &ready,
        &["monitor", "feedback", "--count", "1", "-o", "json"],
    ))
    .await;
    assert!(status.success(), "{feedback}");
    assert_eq!(ends(&feedback), ["Expired"], "{feedback}");
    must_succeed(command(&ready, &["c2d", "purge", "sdk", "--yes"])).await;
    field.stop().await;
}
