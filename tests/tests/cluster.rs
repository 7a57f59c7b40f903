//! Three nodes as real processes: each is killed in turn, connections move or stay as promised, and a
//! device is let in and cut off by all nodes as by one.

use std::time::{Duration, Instant};

use dunlin_gateway::client::{Client, ClientError, Event};
use dunlin_tests::field::Field;
use dunlin_tests::hub::{Device, Hub};
use dunlin_tests::judge::{Place, assert_kept};
use dunlin_tests::load::{Load, parse_receipt};
use dunlin_tests::{PATIENCE, eventually};

const NODES: usize = 3;

/// How long a connection may outlast the acknowledgement that its device may connect no more.
const CUT_OFF_MAX: Duration = Duration::from_secs(2);

async fn start() -> Field {
    Field::start(NODES, &[]).await
}

async fn publish(client: &mut Client, device: &Device, body: &str) -> Result<Place, ClientError> {
    let topic = format!("devices/{}/messages/events/", device.id);
    let sent = client.publish(&topic, body.as_bytes()).await?;
    loop {
        match client.next_event().await {
            Event::Puback { id, receipt } if id == sent => {
                let place = receipt.as_deref().and_then(parse_receipt);
                return Ok(place.expect("a receipt was asked for"));
            }
            Event::Disconnected { .. } => {
                return Err(ClientError::Lost(std::io::ErrorKind::ConnectionReset.into()));
            }
            _ => {}
        }
    }
}

/// Connects, though the gateway may just now be looking for the shard's leader.
async fn connect(hub: &Hub, door: usize, device: &Device) -> Client {
    eventually(&format!("{} let in", device.id), PATIENCE, || async {
        Client::connect(&hub.doors[door].options(device)).await.ok()
    })
    .await
}

/// Sees that the hub closes the connection soon enough from now on.
async fn must_be_cut_off(device: &Device, mut client: Client) {
    let acknowledged = Instant::now();
    let closed = async { while !matches!(client.next_event().await, Event::Disconnected { .. }) {} };
    let ended = tokio::time::timeout(PATIENCE, closed).await;
    assert!(ended.is_ok(), "{} stays connected", device.id);
    let outlasted = acknowledged.elapsed();
    assert!(
        outlasted < CUT_OFF_MAX,
        "{} stays connected for {outlasted:?}",
        device.id
    );
}

/// Returns when each node refuses the device for good. A gateway that cannot ask says "unavailable".
async fn wait_refused(field: &Field, device: &Device) {
    for door in 0..NODES {
        let what = format!("{} refused at node {}", device.id, door + 1);
        eventually(&what, PATIENCE, || async {
            match Client::connect(&field.hub.doors[door].options(device)).await {
                Err(ClientError::Refused(code)) => (code == NOT_AUTHORIZED).then_some(()),
                Err(_) => None,
                Ok(_) => panic!("{} is let in at node {}", device.id, door + 1),
            }
        })
        .await;
    }
}

#[tokio::test]
async fn nothing_acked_is_lost_when_each_node_is_killed_in_turn() {
    let mut field = start().await;
    let devices = field.hub.create_many("d", 18).await;
    let load = Load::start(&field.hub.doors, &devices);
    load.wait_acked(300).await;
    for node in 0..NODES {
        field.kill(node).await;
        load.wait_acked(300).await;
        field.restart(node).await;
        load.wait_acked(300).await;
    }
    let logs = load.finish().await;
    assert!(logs.iter().all(|log| log.acked.len() == log.sent.len()));
    assert!(
        logs.iter().any(|log| log.connections_lost > 0),
        "the kills were not felt"
    );
    assert_kept(&logs, &field.hub.read_all().await);
    field.stop().await;
}

#[tokio::test]
async fn a_device_keeps_its_connection_when_another_node_dies() {
    let mut field = start().await;
    let devices = field.hub.create_many("d", 6).await;
    let load = Load::start(&field.hub.doors[..1], &devices);
    load.wait_acked(200).await;
    for node in [1, 2] {
        field.kill(node).await;
        load.wait_acked(200).await;
        field.restart(node).await;
        load.wait_acked(200).await;
    }
    let logs = load.finish().await;
    let lost: u32 = logs.iter().map(|log| log.connections_lost).sum();
    assert_eq!(lost, 0, "connections were dropped though their gateway lived");
    assert_kept(&logs, &field.hub.read_all().await);
    field.stop().await;
}

#[tokio::test]
async fn a_device_that_connects_at_another_node_takes_over() {
    let field = start().await;
    let device = field.hub.create("one").await;
    let old = connect(&field.hub, 0, &device).await;
    // The old connection sends without pause, so that something of it is under way at any moment.
    let sender = {
        let (device, mut old) = (device.clone(), old);
        tokio::spawn(async move {
            let mut acked = Vec::new();
            for number in 0.. {
                match publish(&mut old, &device, &format!("old {number}")).await {
                    Ok(place) => acked.push((number, place)),
                    Err(_) => break,
                }
            }
            acked
        })
    };
    eventually("the first messages of the old connection", PATIENCE, || async {
        (field.hub.read_device("one").await.len() >= 20).then_some(())
    })
    .await;
    let mut new = connect(&field.hub, 1, &device).await;
    let first = publish(&mut new, &device, "new 0")
        .await
        .expect("an acknowledgement");
    let acked = tokio::time::timeout(PATIENCE, sender).await;
    let acked = acked
        .expect("the old connection is closed")
        .expect("the sender does not panic");
    let last = publish(&mut new, &device, "new 1")
        .await
        .expect("an acknowledgement");

    let stored = field.hub.read_all().await;
    let is_old = |body: &[u8]| body.starts_with(b"old");
    for message in &stored {
        assert!(
            !is_old(&message.body) || message.place < first,
            "the old session stored {message:?} behind {first:?}"
        );
    }
    for (number, place) in acked {
        let message = stored.iter().find(|message| message.place == place);
        let body = message.map(|message| String::from_utf8_lossy(&message.body).into_owned());
        assert_eq!(body, Some(format!("old {number}")), "acked at {place:?}");
    }
    assert_eq!(stored.last().map(|message| message.place), Some(last));
    field.stop().await;
}

#[tokio::test]
async fn a_device_that_is_disabled_or_removed_is_cut_off_on_every_node_within_two_seconds() {
    let field = start().await;
    let devices = field.hub.create_many("d", NODES).await;
    let mut connected = Vec::new();
    for (door, device) in devices.iter().enumerate() {
        let mut client = connect(&field.hub, door, device).await;
        publish(&mut client, device, "before")
            .await
            .expect("an acknowledgement");
        connected.push(client);
    }
    for (door, (device, client)) in devices.iter().zip(connected).enumerate() {
        field.hub.set_status(device, "disabled").await;
        must_be_cut_off(device, client).await;
        wait_refused(&field, device).await;
        field.hub.set_status(device, "enabled").await;
        let mut client = connect(&field.hub, door, device).await;
        publish(&mut client, device, "after")
            .await
            .expect("an acknowledgement");
        assert_eq!(
            field.hub.read_device(&device.id).await,
            [&b"before"[..], &b"after"[..]]
        );
        field.hub.remove(device).await;
        must_be_cut_off(device, client).await;
        wait_refused(&field, device).await;
    }
    field.stop().await;
}

/// MQTT 5: "the client is not authorized to connect", and "bad user name or password".
const NOT_AUTHORIZED: u8 = 0x87;
