//! Roles apart, as real processes: nodes that keep messages and nodes that only take connections. Each
//! kind is killed, and each can be asked how it is.

use std::path::Path;

use dunlin_gateway::client::{Client, Event};
use dunlin_node::ready::Ready;
use dunlin_tests::field::Field;
use dunlin_tests::judge::{DeviceLog, assert_kept};
use dunlin_tests::load::Load;
use dunlin_tests::ports::Ports;
use dunlin_tests::program::{Serve, dunlin, run};
use dunlin_tests::{PATIENCE, eventually};
use reqwest::{Method, StatusCode};
use rustix::process::{Pid, Signal};
use serde_json::json;
use tokio::process::Command;

const NODES: usize = 3;
const GATEWAYS: usize = 2;

fn lost(logs: &[DeviceLog]) -> u32 {
    logs.iter().map(|log| log.connections_lost).sum()
}

async fn command(line: &[&str], data: &Path) -> (Option<i32>, String) {
    let mut command = Command::new(dunlin());
    command.args(line).arg("--data").arg(data);
    let (status, said) = run(command).await;
    (status.code(), said)
}

#[tokio::test]
async fn gateways_keep_their_devices_when_shard_nodes_die_and_take_over_from_each_other() {
    let mut field = Field::apart(NODES, GATEWAYS, &[]).await;
    let calm = field.hub.create_many("calm-", 6).await;
    let load = Load::start(&field.hub.doors, &calm);
    load.wait_acked(200).await;
    for place in GATEWAYS..GATEWAYS + NODES {
        field.kill(place).await;
        load.wait_acked(200).await;
        field.restart(place).await;
        load.wait_acked(200).await;
    }
    let mut logs = load.finish().await;
    assert_eq!(lost(&logs), 0, "a shard node took connections with it");

    let moved = field.hub.create_many("moved-", 6).await;
    let load = Load::start(&field.hub.doors, &moved);
    load.wait_acked(200).await;
    field.kill(0).await;
    load.wait_acked(200).await;
    let moved = load.finish().await;
    assert!(lost(&moved) > 0, "the gateway's death was not felt");
    assert!(moved.iter().all(|log| log.acked.len() == log.sent.len()));
    logs.extend(moved);
    assert_kept(&logs, &field.hub.read_all().await);
    field.stop().await;
}

#[tokio::test]
async fn each_kind_of_node_is_watched_and_shows_only_what_it_has() {
    let field = Field::apart(NODES, GATEWAYS, &[]).await;
    let node = |place| field.cluster.node(place).expect("the node was ready once");
    let (gateway, shard) = (node(0), node(GATEWAYS));
    assert!(!gateway.mqtts.is_empty() && shard.mqtts.is_empty());
    assert_eq!(field.cluster.ready().mqtts, gateway.mqtts);

    let both = field.hub.through([gateway, shard]);
    for (door, path, wanted) in [
        (0, "/health", StatusCode::OK),
        (0, "/devices", StatusCode::UNAUTHORIZED),
        (1, "/health", StatusCode::OK),
        (1, "/devices", StatusCode::NOT_FOUND),
        (1, "/events/0", StatusCode::NOT_FOUND),
    ] {
        let answer = both.request(door, Method::GET, path).send().await;
        let answer = answer.unwrap_or_else(|error| panic!("{path} at door {door}: {error}"));
        assert_eq!(answer.status(), wanted, "{path} at door {door}");
    }
    for (door, has_journal) in [(0, false), (1, true)] {
        let metrics = both.request(door, Method::GET, "/metrics").send().await;
        let metrics = metrics.expect("metrics").text().await.expect("text");
        assert_eq!(
            metrics.contains("dunlin_journal_flushes"),
            has_journal,
            "{metrics}"
        );
    }
    // The cluster is run through any node.
    let status = field.hub.through([shard]).status().await;
    let roles = |id: &str| {
        let nodes = status["nodes"].as_array().into_iter().flatten();
        let found = nodes.into_iter().find(|node| node["node"] == id);
        found.map(|node| node["roles"].clone())
    };
    assert_eq!(roles(&gateway.id), Some(json!(["gateway"])));
    assert_eq!(roles(&shard.id), Some(json!(["shard"])));
    // A node without the role `shard` keeps no messages.
    let journal = std::fs::read_dir(gateway.data_dir.join("journal")).map(|files| files.count());
    assert_eq!(journal.ok(), Some(0));
    field.stop().await;
}

#[tokio::test]
async fn commands_reach_a_node_that_is_no_gateway_and_say_what_it_lacks() {
    let serve = Serve::new(&["--roles", "shard"]);
    let serving = serve.start().await;
    assert!(serving.ready.mqtts.is_empty() && !serving.ready.https.is_empty());
    let (code, said) = command(&["health"], &serve.data()).await;
    assert_eq!(code, Some(0), "{said}");
    let (code, said) = command(&["cluster", "status"], &serve.data()).await;
    assert!(code == Some(0) && said.contains("shard"), "{said}");
    let (code, said) = command(&["device", "list"], &serve.data()).await;
    assert!(code == Some(1) && said.contains("no role `gateway`"), "{said}");
}

#[tokio::test]
async fn a_node_that_waits_for_others_says_so_and_can_be_stopped() {
    let seeds = format!("127.0.0.1:{}", Ports::take().cluster);
    let serve = Serve::new(&["--expect", "3", "--seeds", &seeds]);
    let mut waiting = serve.command().spawn().expect("the program starts");
    eventually("its endpoint file", PATIENCE, || async {
        Ready::load(&serve.data()).ok()
    })
    .await;
    let (code, said) = command(&["health"], &serve.data()).await;
    assert!(
        code == Some(1) && said.contains("the cluster is not formed"),
        "{said}"
    );
    let pid = waiting.id().expect("it runs").to_string();
    let mut stop = Command::new("kill");
    stop.args(["-TERM", &pid]);
    run(stop).await;
    let ended = tokio::time::timeout(PATIENCE, waiting.wait()).await;
    let status = ended.expect("it stops").expect("it is ours to wait for");
    assert_eq!(status.code(), Some(0));
}

/// A gateway that is held up while a device moves on to another: what it still had of the device comes
/// late, under the old session, and is stored nowhere.
#[tokio::test]
async fn what_a_held_up_gateway_had_of_a_device_that_moved_on_is_not_stored() {
    let field = Field::apart(NODES, GATEWAYS, &[]).await;
    let device = field.hub.create("one").await;
    let mut old = Client::connect(&field.hub.doors[0].options(&device))
        .await
        .expect("let in");
    let topic = format!("devices/{}/messages/events/", device.id);
    old.publish(&topic, b"old first").await.expect("sent");
    acked(&mut old).await;

    let gateway = field.cluster.node(0).expect("the node was ready once").pid;
    signal(gateway, Signal::STOP);
    eventually("every thread of the gateway stands still", PATIENCE, || async {
        stands_still(gateway).then_some(())
    })
    .await;
    // The gateway's sockets take these in; the gateway itself sends nothing on.
    for number in 0..50 {
        old.publish(&topic, format!("old {number}").as_bytes())
            .await
            .expect("sent");
    }
    old.flush().await.expect("sent");
    let mut new = eventually("let in at the other gateway", PATIENCE, || async {
        Client::connect(&field.hub.doors[1].options(&device)).await.ok()
    })
    .await;
    new.publish(&topic, b"new first").await.expect("sent");
    acked(&mut new).await;

    signal(gateway, Signal::CONT);
    // The old connection is closed, without an acknowledgement of anything that came late.
    let mut late = 0;
    loop {
        match tokio::time::timeout(PATIENCE, old.next_event())
            .await
            .expect("the old connection is closed")
        {
            Event::Puback { .. } => late += 1,
            Event::Disconnected { .. } => break,
            _ => {}
        }
    }
    let stored = field.hub.read_device("one").await;
    let told: Vec<_> = stored
        .iter()
        .map(|body| String::from_utf8_lossy(body).into_owned())
        .collect();
    assert_eq!(late, 0, "late messages were acknowledged: {told:?}");
    new.publish(&topic, b"new second").await.expect("sent");
    acked(&mut new).await;
    let stored = field.hub.read_device("one").await;
    assert_eq!(stored, [&b"old first"[..], b"new first", b"new second"]);
    field.stop().await;
}

async fn acked(client: &mut Client) {
    loop {
        match tokio::time::timeout(PATIENCE, client.next_event())
            .await
            .expect("an answer")
        {
            Event::Puback { .. } => return,
            Event::Disconnected { .. } => panic!("the connection was closed"),
            _ => {}
        }
    }
}

/// Whether all threads of a process are stopped; the signal reaches them one by one.
fn stands_still(pid: u32) -> bool {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).expect("the process is there");
    tasks.flatten().all(|task| {
        let stat = std::fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        // The state follows the name, which is in brackets.
        stat.rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('T'))
    })
}

fn signal(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid as i32).expect("a process id");
    rustix::process::kill_process(pid, signal).expect("the node is ours");
}
