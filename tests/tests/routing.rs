//! Routed events while nodes die: to a webhook, which gets every one that was acknowledged, and to readers with the clients
//! that others wrote, who get what is led to them and come past everything else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dunlin_tests::field::Field;
use dunlin_tests::hub::Device;
use dunlin_tests::judge::Place;
use dunlin_tests::load::Load;
use dunlin_tests::{PATIENCE, eventually};
use rcgen::{CertificateParams, KeyPair};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::clients::{SdkDevice, event_hubs_field, is_there, python};
use crate::eventhub::{beginning, connection};
use crate::kafka::servers;

async fn put_routing(field: &Field, routing: Value) {
    let (status, answer) = field.hub.call(Method::PUT, "/routing", Some(routing)).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
}

/// A certificate of its own for loopback, as two files.
fn certificate(folder: &Path) -> (PathBuf, PathBuf, String) {
    let key = KeyPair::generate().expect("a key");
    let params = CertificateParams::new(vec!["localhost".to_owned()]).expect("a name");
    let pem = params.self_signed(&key).expect("a certificate").pem();
    let files = (folder.join("hook.pem"), folder.join("hook.key"));
    std::fs::write(&files.0, &pem).expect("it is written");
    std::fs::write(&files.1, key.serialize_pem()).expect("it is written");
    (files.0, files.1, pem)
}

/// Bodies by where they stand, in the order in which they were taken for the first time.
fn taken(file: &Path) -> Vec<(Place, Vec<u8>)> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    // The last line may still be written.
    let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let mut taken: Vec<(Place, Vec<u8>)> = Vec::new();
    let mut seen = BTreeSet::new();
    for line in lines {
        let event: Value = serde_json::from_str(line).expect("an event");
        let place = Place {
            shard: event["shard"].as_u64().expect("a shard") as u32,
            offset: event["offset"].as_u64().expect("an offset"),
        };
        if seen.insert(place) {
            let body = STANDARD
                .decode(event["body"].as_str().expect("a body"))
                .expect("Base64");
            taken.push((place, body));
        }
    }
    taken
}

#[tokio::test]
async fn a_webhook_gets_every_acknowledged_message_while_each_node_dies() {
    if !is_there(&python(), &["-c", "import ssl"], "python3").await {
        return;
    }
    let mut field = Field::start(3, &[]).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (certificate, key, pem) = certificate(folder.path());
    let file = folder.path().join("taken.jsonl");
    let arguments = [
        certificate.as_os_str(),
        key.as_os_str(),
        file.as_os_str(),
        "7".as_ref(),
    ];
    let mut webhook = SdkDevice::start("webhook.py", &arguments);
    let port = webhook.hear("listening").await;
    let devices = field.hub.create_many("d", 4).await;
    // What was acknowledged before is none of its business.
    let load = Load::start(&field.hub.doors, &devices);
    load.wait_acked(20).await;
    load.finish().await;
    let before = field.hub.read_all().await;
    put_routing(
        &field,
        json!({
            "routes": [{
                "name": "all", "source": "DeviceMessages", "endpointNames": ["hook", "events"],
            }],
            "endpoints": { "webhooks": [{
                "name": "hook",
                "url": format!("https://localhost:{port}/events"),
                "authorization": "Bearer secret",
                "authority": pem,
            }] },
        }),
    )
    .await;
    let load = Load::start(&field.hub.doors, &devices);
    // Whoever serves the endpoint is among them.
    for node in 0..3 {
        load.wait_acked(100).await;
        field.kill(node).await;
        load.wait_acked(100).await;
        field.restart(node).await;
    }
    load.finish().await;
    let mut stored: BTreeMap<Place, Vec<u8>> = BTreeMap::new();
    for one in field.hub.read_all().await {
        stored.insert(one.place, one.body);
    }
    for one in before {
        stored.remove(&one.place);
    }
    let found = eventually("the webhook has all of them", PATIENCE, || {
        let found = taken(&file);
        let is_all = found.len() >= stored.len();
        let seen = format!("{} of {}", found.len(), stored.len());
        async move { if is_all { Ok(found) } else { Err(seen) } }
    })
    .await;
    let mut last: BTreeMap<u32, u64> = BTreeMap::new();
    for (place, body) in &found {
        assert_eq!(stored.get(place), Some(body), "{place:?} is one of them");
        let before = last.insert(place.shard, place.offset);
        assert!(before < Some(place.offset), "in the order of its shard");
    }
    assert_eq!(found.len(), stored.len());
    webhook.end().await;
    field.stop().await;
}

/// Changes a twin of each device so many times.
async fn change_twins(field: &Field, devices: &[Device], times: std::ops::Range<usize>) {
    for time in times {
        for device in devices {
            let path = format!("/twins/{}", device.id);
            let change = json!({ "tags": { "time": time } });
            let (status, answer) = field.hub.call(Method::PATCH, &path, Some(change)).await;
            assert_eq!(status, StatusCode::OK, "{answer}");
        }
    }
}

/// Changes them, and kills the second node in the middle of it; then the telemetry beside it has its end.
async fn change_twins_while_a_node_dies(field: &mut Field, devices: &[Device], load: Load) {
    change_twins(field, devices, 0..TIMES / 2).await;
    field.kill(1).await;
    load.wait_acked(100).await;
    change_twins(field, devices, TIMES / 2..TIMES).await;
    load.finish().await;
}

/// What a reader must have been told: each device's times, in order.
fn assert_told(told: &BTreeMap<String, Vec<u64>>, devices: &[Device]) {
    let wanted: Vec<u64> = (0..TIMES as u64).collect();
    for device in devices {
        assert_eq!(told.get(&device.id), Some(&wanted));
    }
}

const DEVICES: usize = 4;
const TIMES: usize = 30;

/// Twins are told of, and no telemetry; there is much of it in between.
async fn lead_twins_alone(field: &Field) {
    put_routing(
        field,
        json!({
            "routes": [{ "name": "twins", "source": "TwinChangeEvents", "endpointNames": ["events"] }],
            "fallbackRoute": { "isEnabled": false },
            "enrichments": [{ "key": "hub", "value": "$iothubname", "endpointNames": ["events"] }],
        }),
    )
    .await;
}

#[tokio::test]
async fn kafka_readers_get_changes_of_twins_and_come_past_all_else() {
    let install = "pip install confluent-kafka";
    if !is_there(&python(), &["-c", "import confluent_kafka"], install).await {
        return;
    }
    let mut field = Field::start(3, &[]).await;
    let ready = field.cluster.ready().clone();
    lead_twins_alone(&field).await;
    let devices = field.hub.create_many("d", DEVICES).await;
    let load = Load::start(&field.hub.doors[..1], &devices);
    load.wait_acked(500).await;
    let servers = servers(&ready);
    let arguments = [
        servers.as_ref(),
        ready.connection_string.as_ref(),
        ready.ca_file.as_os_str(),
        "twins".as_ref(),
    ];
    let mut reader = SdkDevice::start("kafka_consume.py", &arguments);
    change_twins_while_a_node_dies(&mut field, &devices, load).await;
    let mut told: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    while told.values().map(Vec::len).sum::<usize>() < DEVICES * TIMES {
        let (word, event) = reader.hear_any().await;
        if word != "event" {
            continue;
        }
        let headers = &event["headers"];
        assert_eq!(headers["iothub-message-source"], "twinChangeEvents", "{event}");
        assert_eq!(headers["opType"], "updateTwin", "{event}");
        assert!(headers["hub"].is_string(), "{event}");
        let body: Value = serde_json::from_str(event["body"].as_str().expect("text")).expect("JSON");
        let device = event["key"].as_str().expect("a device").to_owned();
        let time = body["tags"]["time"].as_u64().expect("a time");
        let times = told.entry(device).or_default();
        // A commit that failed has it read again.
        if !times.contains(&time) {
            times.push(time);
        }
    }
    assert_told(&told, &devices);
    reader.say("end").await;
    while reader.hear_any().await.0 != "ended" {}
    field.restart(1).await;
    field.stop().await;
}

#[tokio::test]
async fn the_event_hubs_sdk_gets_changes_of_twins_and_comes_past_all_else() {
    let Some((_turn, mut field)) = event_hubs_field().await else {
        return;
    };
    let ready = field.cluster.ready().clone();
    lead_twins_alone(&field).await;
    let devices = field.hub.create_many("d", DEVICES).await;
    let load = Load::start(&field.hub.doors[..1], &devices);
    load.wait_acked(500).await;
    let (connection, places) = (connection(&ready), beginning().to_string());
    let arguments = [
        connection.as_ref(),
        ready.ca_file.as_os_str(),
        "$Default".as_ref(),
        places.as_ref(),
    ];
    let mut reader = SdkDevice::start("azure_eventhub_read.py", &arguments);
    change_twins_while_a_node_dies(&mut field, &devices, load).await;
    let mut told: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    while told.values().map(Vec::len).sum::<usize>() < DEVICES * TIMES {
        let (word, event) = reader.hear_any().await;
        if word != "event" {
            continue;
        }
        assert_eq!(
            event["system"]["iothub-message-source"], "twinChangeEvents",
            "{event}"
        );
        assert_eq!(event["properties"]["opType"], "updateTwin", "{event}");
        assert_eq!(
            event["properties"]["iothub-message-schema"],
            "twinChangeNotification"
        );
        let body = STANDARD
            .decode(event["body"].as_str().expect("text"))
            .expect("Base64");
        let body: Value = serde_json::from_slice(&body).expect("JSON");
        let device = event["properties"]["deviceId"]
            .as_str()
            .expect("a device")
            .to_owned();
        let time = body["tags"]["time"].as_u64().expect("a time");
        told.entry(device).or_default().push(time);
    }
    assert_told(&told, &devices);
    reader.end().await;
    field.restart(1).await;
    field.stop().await;
}
