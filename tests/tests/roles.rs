//! Roles apart, as real processes: nodes that keep messages and nodes that only take connections. Each
//! kind is killed, and each can be asked how it is.

use std::path::Path;

use dunlin_node::ready::Ready;
use dunlin_tests::field::Field;
use dunlin_tests::judge::{DeviceLog, assert_kept};
use dunlin_tests::load::Load;
use dunlin_tests::ports::Ports;
use dunlin_tests::program::{Serve, dunlin, run};
use dunlin_tests::{PATIENCE, eventually};
use reqwest::{Method, StatusCode};
use serde_json::json;
use tokio::process::Command;

const NODES: usize = 3;
const GATEWAYS: usize = 2;

async fn kill(field: &mut Field, place: usize) {
    let killed = field.cluster.kill(place).await;
    killed.expect("the node is ours to kill");
}

async fn restart(field: &mut Field, place: usize) {
    let restarted = field.cluster.restart(place).await;
    restarted.expect("the node becomes ready again");
    field.settled("the cluster healthy again", |_| true).await;
}

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
        kill(&mut field, place).await;
        load.wait_acked(200).await;
        restart(&mut field, place).await;
        load.wait_acked(200).await;
    }
    let mut logs = load.finish().await;
    assert_eq!(lost(&logs), 0, "a shard node took connections with it");

    let moved = field.hub.create_many("moved-", 6).await;
    let load = Load::start(&field.hub.doors, &moved);
    load.wait_acked(200).await;
    kill(&mut field, 0).await;
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
