//! One node as a real process: what it takes in and gives back, what a kill and a torn journal leave,
//! and how it says no.

use std::net::TcpListener;

use dunlin_gateway::client::{Client, ClientError, ConnectOptions, Event};
use dunlin_tests::hub::{Device, Hub};
use dunlin_tests::journal_tail::{Tail, Torn};
use dunlin_tests::judge::{Place, acked_count, assert_kept};
use dunlin_tests::load::{Load, parse_receipt};
use dunlin_tests::program::{Serve, dunlin, run};
use dunlin_tests::{PATIENCE, eventually};
use reqwest::{Method, StatusCode};

/// Bytes of the largest message, and one more is too many (IoT Hub's own limit).
const MESSAGE_BYTES_MAX: usize = 256 * 1024;

/// Publishes once and returns the receipt, or what came instead.
async fn publish(options: &ConnectOptions, device: &Device, body: &[u8]) -> Result<Place, Event> {
    let mut client = Client::connect(options).await.expect("the device is let in");
    let topic = format!("devices/{}/messages/events/", device.id);
    if client.publish(&topic, body).await.is_err() {
        return Err(Event::Disconnected { reason: None });
    }
    match tokio::time::timeout(PATIENCE, client.next_event()).await {
        Ok(Event::Puback { receipt, .. }) => {
            let place = receipt.as_deref().and_then(parse_receipt);
            client.disconnect().await;
            Ok(place.expect("a receipt was asked for"))
        }
        Ok(other) => Err(other),
        Err(_) => panic!("neither an acknowledgement nor an end"),
    }
}

#[tokio::test]
async fn a_message_over_tls_and_one_over_a_websocket_are_read_back_at_their_receipts() {
    let serve = Serve::new(&[]);
    let serving = serve.start().await;
    let hub = Hub::new(&serving.ready);
    let device = hub.create("room-1").await;
    let door = &hub.doors[0];
    let largest = vec![b'x'; MESSAGE_BYTES_MAX];
    let bodies: [&[u8]; 3] = [b"over tls", b"over a websocket", &largest];
    let tls = publish(&door.options(&device), &device, bodies[0]).await;
    let websocket = publish(&door.websocket_options(&device), &device, bodies[1]).await;
    let large = publish(&door.options(&device), &device, bodies[2]).await;
    let stored = hub.read_all().await;
    for (body, place) in bodies.iter().zip([tls, websocket, large]) {
        let place = place.expect("an acknowledgement");
        let message = stored
            .iter()
            .find(|message| message.place == place)
            .expect("the receipt's place");
        assert_eq!((message.device.as_str(), &message.body[..]), ("room-1", *body));
    }
    assert_eq!(stored.len(), bodies.len());
}

#[tokio::test]
async fn what_was_acked_before_a_kill_under_load_is_there_after_the_restart() {
    let serve = Serve::new(&[]);
    let serving = serve.start().await;
    let hub = Hub::new(&serving.ready);
    let devices = hub.create_many("d", 12).await;
    let load = Load::start(&hub.doors, &devices);
    load.wait_acked(500).await;
    serving.kill().await;
    let first = load.abandon().await;

    // A second life goes on where the first one ended, and survives the same.
    let serving = serve.start().await;
    let hub = Hub::new(&serving.ready);
    assert_kept(&first, &hub.read_all().await);
    let others = hub.create_many("e", 12).await;
    let load = Load::start(&hub.doors, &others);
    load.wait_acked(500).await;
    serving.kill().await;
    let second = load.abandon().await;

    let serving = serve.start().await;
    let both = [first, second].concat();
    assert!(acked_count(&both) >= 1000);
    assert_kept(&both, &Hub::new(&serving.ready).read_all().await);
}

#[tokio::test]
async fn a_torn_end_of_the_journal_costs_nothing_that_was_acked() {
    // Without checkpoints the journal is all there is.
    let serve = Serve::new(&["--checkpoint", "3600"]);
    let mut logs = Vec::new();
    for (life, torn) in [Torn::Garbage, Torn::HalfAFlush, Torn::Repetition]
        .into_iter()
        .enumerate()
    {
        let serving = serve.start().await;
        let hub = Hub::new(&serving.ready);
        let devices = hub.create_many(&format!("life-{life}-"), 6).await;
        let load = Load::start(&hub.doors, &devices);
        load.wait_acked(200).await;
        serving.kill().await;
        logs.extend(load.abandon().await);
        Tail::find(&serve.data().join("journal")).tear(torn);
        let serving = serve.start().await;
        assert_kept(&logs, &Hub::new(&serving.ready).read_all().await);
        serving.kill().await;
    }
}

#[tokio::test]
async fn a_port_in_use_is_said_and_ends_the_start() {
    let serve = Serve::new(&[]);
    let held = TcpListener::bind(("127.0.0.1", serve.ports.https)).expect("the port was free");
    let (status, text) = run(serve.command()).await;
    assert_eq!(status.code(), Some(1), "{text}");
    let port = serve.ports.https.to_string();
    assert!(
        text.lines()
            .any(|line| line.starts_with("cannot start") && line.contains(&port)),
        "the port {port} is not named:\n{text}"
    );
    drop(held);
}

#[tokio::test]
async fn a_data_directory_has_one_owner() {
    let serve = Serve::new(&[]);
    let serving = serve.start().await;
    let second = Serve::new(&[]);
    let mut command = tokio::process::Command::new(dunlin());
    command
        .args(["serve", "--https-alt-port", "0"])
        .args(["--mqtts-port", &second.ports.mqtts.to_string()])
        .args(["--amqps-port", &second.ports.amqps.to_string()])
        .args(["--kafka-port", &second.ports.kafka.to_string()])
        .args(["--https-port", &second.ports.https.to_string()])
        .args(["--cluster-port", &second.ports.cluster.to_string()])
        .arg("--data")
        .arg(serve.data());
    let (status, text) = run(command).await;
    assert_eq!(status.code(), Some(1), "{text}");
    let owner = format!("process {}", serving.ready.nodes[0].pid);
    assert!(text.contains(&owner), "{owner} is not named:\n{text}");
    // The owner is not disturbed.
    let hub = Hub::new(&serving.ready);
    let device = hub.create("still-here").await;
    let kept = publish(&hub.doors[0].options(&device), &device, b"x").await;
    assert!(kept.is_ok());
}

#[tokio::test]
async fn every_problem_of_a_configuration_is_said_at_once() {
    let folder = tempfile::TempDir::new().expect("a folder");
    let path = folder.path().join("hub.toml");
    let text = "mqttt_port = 1\nshard_count = 0\nbind = \"nowhere\"\ntiming = \"fast\"\n";
    std::fs::write(&path, text).expect("a file");
    let mut command = tokio::process::Command::new(dunlin());
    command.args(["serve", "--config"]).arg(&path);
    command.arg("--data").arg(folder.path().join("data"));
    let (status, text) = run(command).await;
    assert_eq!(status.code(), Some(2), "{text}");
    for wanted in ["1: mqttt_port", "2: shard_count", "3: bind", "4: timing"] {
        let wanted = format!("{}:{wanted}", path.display());
        assert!(text.contains(&wanted), "{wanted} is missing:\n{text}");
    }
    assert!(!folder.path().join("data").exists(), "nothing is begun");
}

#[tokio::test]
async fn a_message_that_is_too_large_closes_the_connection_and_is_not_stored() {
    let serve = Serve::new(&[]);
    let serving = serve.start().await;
    let hub = Hub::new(&serving.ready);
    let device = hub.create("big").await;
    let body = vec![b'x'; MESSAGE_BYTES_MAX + 1];
    let end = publish(&hub.doors[0].options(&device), &device, &body).await;
    assert!(matches!(end, Err(Event::Disconnected { .. })), "{end:?}");
    assert_eq!(hub.read_device("big").await, Vec::<Vec<u8>>::new());
}

#[tokio::test]
async fn wrong_credentials_are_refused() {
    let serve = Serve::new(&[]);
    let serving = serve.start().await;
    let hub = Hub::new(&serving.ready);
    let device = hub.create("locked").await;
    let other = hub.create("other").await;
    let unknown = Device {
        id: "nobody".into(),
        key: other.key.clone(),
    };
    let forged = Device {
        key: other.key.clone(),
        ..device.clone()
    };
    let options = |device: &Device| hub.doors[0].options(device);
    let mut another_token = options(&device);
    another_token.password = Some(other.token());
    let mut no_token = options(&device);
    no_token.password = None;
    for (what, options) in [
        ("another device's key", options(&forged)),
        ("another device's token", another_token),
        ("a device that does not exist", options(&unknown)),
        ("no token", no_token),
    ] {
        match Client::connect(&options).await {
            Err(ClientError::Refused(_)) => {}
            Err(other) => panic!("{what}: {other}"),
            Ok(_) => panic!("{what}: let in"),
        }
    }
    let wrong = hub.request(0, Method::GET, "/devices").bearer_auth("guess");
    assert_eq!(
        wrong.send().await.expect("an answer").status(),
        StatusCode::UNAUTHORIZED
    );
    assert!(publish(&options(&device), &device, b"x").await.is_ok());
}

#[tokio::test]
async fn health_and_metrics_are_open_to_read() {
    let serve = Serve::new(&[]);
    let serving = serve.start().await;
    let hub = Hub::new(&serving.ready);
    let device = hub.create("measured").await;
    publish(&hub.doors[0].options(&device), &device, b"x")
        .await
        .expect("an acknowledgement");
    let health = hub.request(0, Method::GET, "/health").send().await;
    let health = health.expect("an answer");
    assert_eq!(health.status(), StatusCode::OK);
    let health: serde_json::Value = health.json().await.expect("JSON");
    assert_eq!(health["status"], "ready");
    let text = eventually("metrics that count the message", PATIENCE, || async {
        let answer = hub.request(0, Method::GET, "/metrics").send().await.ok()?;
        let text = answer.text().await.ok()?;
        let counted = text
            .lines()
            .any(|line| line.starts_with("dunlin_gateway_publishes_total ") && !line.ends_with(" 0"));
        counted.then_some(text)
    })
    .await;
    for name in [
        "dunlin_journal_flushes",
        "dunlin_group_leads",
        "dunlin_device_actors",
    ] {
        assert!(text.contains(name), "{name} is missing:\n{text}");
    }
    assert!(text.ends_with("# EOF\n"), "not OpenMetrics");
}
