//! What is seen of a hub from outside: traces, metrics, health with its reasons, certificates that
//! change under open connections, and the audit.

mod collector;

use std::collections::BTreeSet;
use std::net::{IpAddr, TcpStream};
use std::time::Duration;

use dunlin_gateway::client::{Client, ClientError, Event};
use dunlin_gateway::tls::client_config;
use dunlin_node::audit::{AUDIT_FILE, verify};
use dunlin_node::ready::Ready;
use dunlin_node::{NodeConfig, RunningNode};
use dunlin_tests::field::Field;
use dunlin_tests::hub::{Device, HOST, Hub};
use dunlin_tests::judge::Place;
use dunlin_tests::load::parse_receipt;
use dunlin_tests::ports::Ports;
use dunlin_tests::program::{Serve, dunlin, run};
use dunlin_tests::{PATIENCE, eventually};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tempfile::TempDir;
use tokio::process::Command;

use collector::{Collector, Span};

const NODES: usize = 3;

/// Connects, though the gateway may just now be looking for the shard's leader.
async fn connect(hub: &Hub, door: usize, device: &Device) -> Client {
    eventually(&format!("{} let in", device.id), PATIENCE, || async {
        Client::connect(&hub.doors[door].options(device)).await.ok()
    })
    .await
}

/// Publishes and waits for the PUBACK on this very connection.
async fn publish(client: &mut Client, device: &Device, body: &str) -> Result<Place, ClientError> {
    let topic = format!("devices/{}/messages/events/", device.id);
    let sent = client.publish(&topic, body.as_bytes()).await?;
    loop {
        match tokio::time::timeout(PATIENCE, client.next_event()).await {
            Ok(Event::Puback { id, receipt }) if id == sent => {
                let place = receipt.as_deref().and_then(parse_receipt);
                return Ok(place.expect("a receipt was asked for"));
            }
            Ok(Event::Disconnected { .. }) | Err(_) => {
                return Err(ClientError::Lost(std::io::ErrorKind::ConnectionReset.into()));
            }
            Ok(_) => {}
        }
    }
}

/// A number that a node shows in `/metrics`; `name` with its labels.
async fn metric(hub: &Hub, door: usize, name: &str) -> u64 {
    let response = hub.request(door, Method::GET, "/metrics").send().await;
    let text = response.expect("an answer").text().await.expect("text");
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    let value = line.unwrap_or_else(|| panic!("no {name} in\n{text}"));
    value.parse().expect("a whole number")
}

/// The certificate that a new handshake is shown.
async fn shown_certificate(address: &str, roots: Vec<u8>) -> Vec<u8> {
    let address = address.to_owned();
    let shaken = tokio::task::spawn_blocking(move || {
        // A new configuration knows no earlier session that could be taken up again.
        let config = client_config(&roots).expect("a certificate that can be read");
        let name = HOST.try_into().expect("a name");
        let mut tls = rustls::ClientConnection::new(config, name).expect("a client");
        let mut socket = TcpStream::connect(address).expect("somebody listens");
        while tls.is_handshaking() {
            tls.complete_io(&mut socket).expect("a handshake");
        }
        tls.peer_certificates().expect("a certificate")[0].to_vec()
    });
    shaken.await.expect("the handshake does not panic")
}

fn roots(ready: &Ready) -> Vec<u8> {
    std::fs::read(&ready.ca_file).expect("the authority's certificate")
}

fn audit_lines(data: &std::path::Path) -> Vec<Value> {
    let text = std::fs::read_to_string(data.join(AUDIT_FILE)).expect("an audit");
    let parse = |line| serde_json::from_str(line).expect("a line of JSON");
    text.lines().map(parse).collect()
}

/// The spans of the trace that begins with the message of `device` through the node `gateway`, if all four
/// are there.
fn whole_trace(spans: &[Span], gateway: &str, device: &str) -> Option<[Span; 4]> {
    let is_root = |span: &&Span| {
        span.name == "mqtt.publish" && span.node == gateway && span.attributes["device"] == device
    };
    let root = spans.iter().find(is_root)?;
    let below = |parent: &Span, name: &str, is_meant: &dyn Fn(&Span) -> bool| {
        let mut found = spans
            .iter()
            .filter(|span| span.parent == parent.id && span.name == name);
        found.find(|span| is_meant(span)).cloned()
    };
    let any = |_: &Span| true;
    // A frame that met a leader about to go was sent again; the one that counts was applied.
    let applied = |span: &Span| {
        span.attributes
            .get("result")
            .is_some_and(|result| result == "applied")
    };
    let submit = below(root, "frame.submit", &any)?;
    let frame = below(&submit, "shard.frame", &applied)?;
    let propose = below(&frame, "raft.propose", &any)?;
    Some([root.clone(), submit, frame, propose])
}

#[tokio::test]
async fn one_publish_is_followed_through_two_nodes_to_its_puback_and_counted() {
    let collector = Collector::start().await;
    let arguments = ["--otlp-endpoint", &collector.endpoint, "--trace-ratio", "1"];
    let mut field = Field::start(NODES, &arguments).await;
    let device = field.hub.create("followed").await;
    let flushes = "dunlin_journal_flushes_total";
    for door in 0..NODES {
        let mut client = connect(&field.hub, door, &device).await;
        let mut before = Vec::new();
        for name in [
            "dunlin_gateway_publishes_total",
            "dunlin_gateway_acks_total",
            flushes,
        ] {
            before.push(metric(&field.hub, door, name).await);
        }
        publish(&mut client, &device, "once")
            .await
            .expect("an acknowledgement");
        for (name, before) in ["dunlin_gateway_publishes_total", "dunlin_gateway_acks_total"]
            .iter()
            .zip(&before)
        {
            let now = metric(&field.hub, door, name).await;
            assert_eq!(now, before + 1, "{name} of one message");
        }
        eventually("the journal flushed", PATIENCE, || async {
            (metric(&field.hub, door, flushes).await > before[2]).then_some(())
        })
        .await;
        client.disconnect().await;
    }
    let mut across = 0;
    for door in 0..NODES {
        let gateway = field.id(door);
        let what = format!("the whole trace of the message through node {gateway}");
        let trace = eventually(&what, PATIENCE, || async {
            let spans = collector.spans();
            whole_trace(&spans, &gateway, &device.id).ok_or_else(|| format!("{spans:#?}"))
        })
        .await;
        let [root, submit, frame, propose] = &trace;
        assert_eq!(root.parent, "", "it begins the trace");
        assert_eq!(
            root.attributes["acknowledged"], "true",
            "and ends with the PUBACK"
        );
        let traces: BTreeSet<&str> = trace.iter().map(|span| span.trace.as_str()).collect();
        assert_eq!(traces.len(), 1, "all spans are of one trace: {trace:#?}");
        assert_eq!(submit.node, gateway);
        assert_eq!(frame.node, propose.node, "the leader proposes what it took in");
        assert_eq!(frame.attributes["result"], "applied");
        across += usize::from(frame.node != gateway);
    }
    assert!(
        across >= NODES - 1,
        "one node leads the shard; the others are not it"
    );

    // Two of three are gone: the survivor says who is missing, and what that means.
    field.kill(1).await;
    field.kill(2).await;
    let missing = [field.id(1), field.id(2)];
    eventually("the survivor says why it does not serve", PATIENCE, || async {
        let response = field.hub.request(0, Method::GET, "/health").send().await;
        let response = response.map_err(|error| error.to_string())?;
        let status = response.status();
        let text = response.text().await.map_err(|error| error.to_string())?;
        let says_all = [
            "cut off from the directory",
            "no sign of life from node",
            "no majority of the directory, shard 0, shard 1, shard 2, shard 3",
        ]
        .iter()
        .chain(&[missing[0].as_str(), missing[1].as_str()])
        .all(|words| text.contains(words));
        if status == StatusCode::SERVICE_UNAVAILABLE && says_all {
            Ok(())
        } else {
            Err(format!("{status}: {text}"))
        }
    })
    .await;
}

#[tokio::test]
async fn certificates_are_renewed_while_devices_stay_and_peers_replicate() {
    let mut field = Field::start(NODES, &[]).await;
    let device = field.hub.create("stays").await;
    let mut client = connect(&field.hub, 0, &device).await;
    publish(&mut client, &device, "before")
        .await
        .expect("an acknowledgement");
    let roots = roots(field.cluster.ready());
    let door = field.hub.doors[0].https.clone();
    let before = shown_certificate(&door, roots.clone()).await;
    let node_renewals = "dunlin_certificate_renewals_total{certificate=\"node\"}";
    assert_eq!(metric(&field.hub, 0, node_renewals).await, 0);

    let data = field.data(0);
    let mut command = Command::new(dunlin());
    command
        .args(["cert", "renew", "-o", "json", "--data"])
        .arg(data.parent().expect("the nodes are in one folder"));
    let (status, said) = run(command).await;
    assert!(status.success(), "{said}");
    let said: Value = serde_json::from_str(said.trim()).expect("a line of JSON");
    assert_eq!(said["nodes"].as_array().map(Vec::len), Some(NODES), "{said}");

    assert_ne!(
        before,
        shown_certificate(&door, roots).await,
        "a new handshake is shown a new certificate"
    );
    publish(&mut client, &device, "after")
        .await
        .expect("the same connection");
    for place in 0..NODES {
        assert_eq!(metric(&field.hub, place, node_renewals).await, 1);
        let left = "dunlin_certificate_seconds_left{certificate=\"node\"}";
        assert!(metric(&field.hub, place, left).await > 0);
        let lines = audit_lines(&field.data(place));
        let renewals: Vec<&Value> = lines
            .iter()
            .filter(|line| line["action"] == "certificates.renew")
            .collect();
        assert_eq!(renewals.len(), 1, "{lines:?}");
        assert_eq!(
            (&renewals[0]["who"], &renewals[0]["outcome"]),
            (&"admin".into(), &"done".into())
        );
    }

    // Links that are made now stand on the new certificates: a node comes back, and with it alone the
    // first has a majority.
    field.kill(2).await;
    field
        .cluster
        .restart(2)
        .await
        .expect("the node becomes ready again");
    field.settled("the cluster healthy again", |_| true).await;
    field.kill(1).await;
    publish(&mut client, &device, "over new links")
        .await
        .expect("the same connection");
    let bodies = field.hub.read_device(&device.id).await;
    assert_eq!(bodies, [&b"before"[..], b"after", b"over new links"]);
}

/// A node in this process: certificates that live for seconds cannot be asked for in a file.
struct Own(Option<RunningNode>);

impl Own {
    /// Starts it and returns at once when its doors are open.
    async fn start(config: &NodeConfig) -> Own {
        let config = config.clone();
        let start = || RunningNode::start(config).expect("the node starts");
        Own(Some(tokio::task::spawn_blocking(start).await.expect("no panic")))
    }

    fn node(&self) -> &RunningNode {
        self.0.as_ref().expect("it runs until it is stopped")
    }

    async fn serving(&self) {
        let serving = tokio::time::timeout(PATIENCE, self.node().serving()).await;
        assert!(serving.is_ok(), "the node does not come to serve");
    }

    async fn stop(mut self) {
        let node = self.0.take().expect("it is stopped once");
        tokio::task::spawn_blocking(move || node.stop())
            .await
            .expect("no panic");
    }
}

impl Drop for Own {
    /// After a failure: its runtimes must not end inside that of the test.
    fn drop(&mut self) {
        if let Some(node) = self.0.take() {
            std::thread::spawn(move || node.stop());
        }
    }
}

/// Node `place` (from 1) of `count` that share `folder` and these ports.
fn own_config(folder: &TempDir, ports: Ports, place: u8, count: u8) -> NodeConfig {
    let at = |place: u8| IpAddr::from([127, 0, 0, place]);
    NodeConfig {
        data: folder.path().join(format!("node-{place}")),
        pki: Some(folder.path().join("pki")),
        bind: at(place),
        mqtts_port: ports.mqtts,
        amqps_port: ports.amqps,
        kafka_port: ports.kafka,
        https_port: ports.https,
        https_alt_port: None,
        cluster_port: ports.cluster,
        seeds: (1..=count)
            .map(|place| format!("{}:{}", at(place), ports.cluster))
            .collect(),
        expect: count.into(),
        shard_count: 1,
        workers: 1,
        ..NodeConfig::default()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_certificate_renews_by_itself_under_a_device_that_stays() {
    let folder = TempDir::new().expect("a folder for temporary files");
    let config = NodeConfig {
        // Renewed after twenty seconds; good for ten more on a machine that is busy.
        door_certificate_life: Duration::from_secs(30),
        ..own_config(&folder, Ports::take(), 1, 1)
    };
    let own = Own::start(&config).await;
    own.serving().await;
    let ready = own.node().ready();
    let hub = Hub::new(&ready);
    let device = hub.create("stays").await;
    let mut client = connect(&hub, 0, &device).await;
    let first = shown_certificate(&ready.https, roots(&ready)).await;
    eventually("another certificate", PATIENCE, || async {
        let shown = shown_certificate(&ready.https, roots(&ready)).await;
        (shown != first).then_some(())
    })
    .await;
    publish(&mut client, &device, "still here")
        .await
        .expect("the same connection");
    let lines = audit_lines(&config.data);
    let by_itself = lines
        .iter()
        .filter(|line| line["action"] == "certificates.renew" && line["who"] == "node")
        .count();
    assert!(by_itself >= 1, "{lines:?}");
    client.disconnect().await;
    own.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn peers_meet_again_after_their_first_certificates_have_ended() {
    let folder = TempDir::new().expect("a folder for temporary files");
    let ports = Ports::take();
    let config = |place| NodeConfig {
        node_certificate_life: Duration::from_secs(9),
        ..own_config(&folder, ports, place, 2)
    };
    let (first, second) = (config(1), config(2));
    let (stays, goes) = tokio::join!(Own::start(&first), Own::start(&second));
    tokio::join!(stays.serving(), goes.serving());
    let hub = Hub::new(&stays.node().ready());
    let device = hub.create("bridge").await;
    // The second renewal comes when the first certificate has been over for three seconds.
    let renewals = "dunlin_certificate_renewals_total{certificate=\"node\"}";
    eventually("the second renewal", PATIENCE, || async {
        (metric(&hub, 0, renewals).await >= 2).then_some(())
    })
    .await;
    goes.stop().await;
    // Both of two are a majority: nothing is stored before they have met again, each showing the other
    // what it has now.
    let comes_back = Own::start(&second).await;
    comes_back.serving().await;
    let mut client = connect(&hub, 0, &device).await;
    publish(&mut client, &device, "met")
        .await
        .expect("an acknowledgement");
    client.disconnect().await;
    tokio::join!(stays.stop(), comes_back.stop());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_never_says_that_a_device_is_not_there() {
    let folder = TempDir::new().expect("a folder for temporary files");
    let ports = Ports::take();
    let config = |place| own_config(&folder, ports, place, 2);
    let (first, second) = (config(1), config(2));
    let (one, two) = tokio::join!(Own::start(&first), Own::start(&second));
    tokio::join!(one.serving(), two.serving());
    let ready = one.node().ready();
    let hub = Hub::new(&ready);
    let device = hub.create("is-there").await;
    tokio::join!(one.stop(), two.stop());
    // It looks for the other before it wakes its replicas, and its doors are open meanwhile.
    let one = Own::start(&first).await;
    let path = format!("/devices/{}?api-version=2021-04-12", device.id);
    let ask = || async {
        let asked = hub.request(0, Method::GET, &path).bearer_auth(&ready.admin_token);
        asked.send().await.expect("its door is open").status()
    };
    assert_eq!(ask().await, StatusCode::SERVICE_UNAVAILABLE);
    let two = Own::start(&second).await;
    eventually("the device", PATIENCE, || async {
        match ask().await {
            StatusCode::OK => Some(()),
            status => {
                assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
                None
            }
        }
    })
    .await;
    tokio::join!(one.stop(), two.stop());
}

#[tokio::test]
async fn an_action_leaves_one_record_and_no_secret() {
    let serve = Serve::new(&[]);
    let serving = serve.start().await;
    let hub = Hub::new(&serving.ready);
    let device = hub.create("audited").await;
    hub.set_status(&device, "disabled").await;
    let forged = "SharedAccessSignature sr=localhost&sig=Zm9yZ2Vk&se=4102444800&skn=iothubowner";
    let refused = hub
        .request(0, Method::GET, "/devices/audited")
        .header("Authorization", forged)
        .send()
        .await
        .expect("an answer");
    assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
    let turned_away = Client::connect(&hub.doors[0].options(&device)).await;
    assert!(turned_away.is_err(), "the device is disabled");
    let (code, _) = hub.call(Method::DELETE, "/devices/audited", None).await;
    assert!(code.is_success());
    let (code, _) = hub.call(Method::DELETE, "/devices/audited", None).await;
    assert_eq!(code, StatusCode::NOT_FOUND);

    // Refusals wait for nobody, so the last may still be on its way.
    let is_there = |lines: &[Value], action: &str, outcome: &str| {
        let of_action = lines.iter().filter(|line| line["action"] == action);
        of_action
            .filter(|line| {
                line["outcome"]
                    .as_str()
                    .is_some_and(|said| said.starts_with(outcome))
            })
            .count()
    };
    let lines = eventually("all records", PATIENCE, || async {
        let lines = audit_lines(&serve.data());
        (is_there(&lines, "device.delete", "refused") == 1).then_some(lines)
    })
    .await;
    for (action, outcome) in [
        ("device.create", "done"),
        ("device.disable", "done"),
        ("device.delete", "done"),
        ("device.delete", "refused: DeviceNotFound"),
        ("http.request", "refused: the signature does not match"),
        ("mqtt.connect", "refused: the device is disabled"),
    ] {
        assert_eq!(
            is_there(&lines, action, outcome),
            1,
            "{action} {outcome}: {lines:#?}"
        );
    }
    let of = |action: &str| {
        let found = lines.iter().find(|line| line["action"] == action);
        found.expect("it is there")
    };
    assert_eq!(of("node.join")["seq"], 1, "the node's first deed was to join");
    let create = of("device.create");
    assert_eq!(
        (&create["who"], &create["what"]),
        (&"admin".into(), &"audited".into())
    );
    assert!(
        create["from"]
            .as_str()
            .is_some_and(|from| from.starts_with("127.0.0.1:"))
    );
    let forgery = of("http.request");
    assert_eq!(
        (&forgery["who"], &forgery["what"]),
        (&"iothubowner".into(), &"/devices/audited".into())
    );

    // The chain goes on after a kill, and holds.
    serving.kill().await;
    let serving = serve.start().await;
    let hub = Hub::new(&serving.ready);
    hub.create("second").await;
    let path = serve.data().join(AUDIT_FILE);
    assert_eq!(verify(&path).expect("the chain holds"), lines.len() as u64 + 1);
    let text = std::fs::read_to_string(&path).expect("an audit");
    for secret in [
        device.key.as_str(),
        &serving.ready.admin_token,
        "Zm9yZ2Vk",
        "SharedAccessSignature",
    ] {
        assert!(!text.contains(secret), "{secret} in the audit");
    }
}
