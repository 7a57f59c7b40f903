//! Nodes that come and go while devices send: joins, drains, removals, a dead node replaced, and one
//! node that grows into three. Whatever moves, every acknowledged message is there afterwards.

use dunlin_node::local::{LocalCluster, LocalOptions};
use dunlin_tests::hub::Hub;
use dunlin_tests::judge::assert_kept;
use dunlin_tests::load::Load;
use dunlin_tests::ports::Ports;
use dunlin_tests::program::dunlin;
use dunlin_tests::{PATIENCE, eventually};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

const SHARDS: usize = 4;

struct Field {
    cluster: LocalCluster,
    hub: Hub,
    _folder: TempDir,
}

impl Field {
    async fn start(nodes: usize, arguments: &[&str]) -> Field {
        let folder = TempDir::new().expect("a folder for temporary files");
        let ports = Ports::take();
        let all = ["--https-alt-port", "0", "--shards", "4"].iter().chain(arguments);
        let options = LocalOptions {
            nodes,
            data: folder.path().to_owned(),
            program: dunlin().to_owned(),
            mqtts_port: ports.mqtts,
            https_port: ports.https,
            mqtt_port: None,
            cluster_port: ports.cluster,
            arguments: all.map(|argument| (*argument).to_owned()).collect(),
        };
        let cluster = LocalCluster::start(options).await;
        let cluster = cluster.unwrap_or_else(|error| panic!("{error}"));
        let hub = Hub::new(cluster.ready());
        Field {
            cluster,
            hub,
            _folder: folder,
        }
    }

    async fn add(&mut self) -> usize {
        self.cluster.add().await.unwrap_or_else(|error| panic!("{error}"))
    }

    fn id(&self, place: usize) -> String {
        self.cluster
            .node(place)
            .expect("the node was ready once")
            .id
            .clone()
    }

    async fn ask(&self, request: Value) -> (StatusCode, Value) {
        self.hub.call(Method::POST, "/cluster/admin", Some(request)).await
    }

    async fn must(&self, request: Value) {
        let (status, answer) = self.ask(request.clone()).await;
        assert!(status.is_success(), "{request}: {status} {answer}");
    }

    /// Returns when the cluster says that it is healthy and `is_so` of its nodes.
    async fn settled(&self, what: &str, is_so: impl Fn(&[Value]) -> bool) {
        eventually(what, PATIENCE, || async {
            let status = self.hub.status().await;
            let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
            if status["health"] == "healthy" && is_so(&nodes) {
                Ok(())
            } else {
                Err(status)
            }
        })
        .await;
    }

    fn replicas(nodes: &[Value], id: &str) -> u64 {
        let node = nodes.iter().find(|node| node["node"] == id);
        node.and_then(|node| node["replicas"].as_u64()).unwrap_or(0)
    }
}

#[tokio::test]
async fn a_node_that_joins_takes_its_share_and_a_drained_one_leaves_empty() {
    let mut field = Field::start(3, &[]).await;
    let devices = field.hub.create_many("d", 12).await;
    // Through the first node alone, which stays.
    let load = Load::start(&field.hub.doors[..1], &devices);
    load.wait_acked(200).await;

    let joined = field.add().await;
    let id = field.id(joined);
    // Four shards and the directory on three nodes each: 15 replicas over four nodes.
    field
        .settled("the newcomer has its share", |nodes| {
            Field::replicas(nodes, &id) >= 3
        })
        .await;
    load.wait_acked(200).await;

    let leaving = field.id(1);
    field.must(json!({ "op": "drain", "node": &leaving })).await;
    field
        .settled("the drained node is empty", |nodes| {
            Field::replicas(nodes, &leaving) == 0
        })
        .await;
    load.wait_acked(200).await;
    field.must(json!({ "op": "remove", "node": &leaving })).await;
    field.cluster.kill(1).await.expect("the node is ours to kill");
    load.wait_acked(200).await;

    // Every majority now counts the newcomer: without it two of three must be able to go on.
    field
        .cluster
        .kill(joined)
        .await
        .expect("the node is ours to kill");
    load.wait_acked(200).await;
    let logs = load.finish().await;
    let lost: u32 = logs.iter().map(|log| log.connections_lost).sum();
    assert_eq!(lost, 0, "connections were dropped though their gateway lived");
    assert_kept(&logs, &field.hub.read_all().await);
    field.cluster.stop().await;
}

#[tokio::test]
async fn one_node_grows_into_three_under_load_and_outlives_the_first() {
    let mut field = Field::start(1, &[]).await;
    let devices = field.hub.create_many("d", 8).await;
    let load = Load::start(&field.hub.doors[..1], &devices);
    load.wait_acked(100).await;
    field.add().await;
    field.add().await;
    load.wait_acked(100).await;
    field
        .must(json!({ "op": "set-replication", "replicas": 3 }))
        .await;
    field
        .settled("every group has three replicas", |nodes| {
            nodes.iter().all(|node| node["replicas"] == SHARDS + 1)
        })
        .await;
    load.wait_acked(100).await;
    let logs = load.finish().await;
    field.cluster.kill(0).await.expect("the node is ours to kill");
    let rest = field
        .hub
        .through([1, 2].map(|place| field.cluster.node(place).expect("it was ready")));
    assert_kept(&logs, &rest.read_all().await);
    field.cluster.stop().await;
}

#[tokio::test]
async fn a_dead_node_is_replaced_when_another_can_take_its_place() {
    let mut field = Field::start(3, &["--replace-after", "2"]).await;
    let devices = field.hub.create_many("d", 8).await;
    let load = Load::start(&field.hub.doors[..1], &devices);
    load.wait_acked(100).await;
    let dead = field.id(2);
    field.cluster.kill(2).await.expect("the node is ours to kill");
    load.wait_acked(100).await;
    let joined = field.add().await;
    let newcomer = field.id(joined);
    field
        .settled("the newcomer has what the dead one had", |nodes| {
            Field::replicas(nodes, &newcomer) == SHARDS as u64 + 1
        })
        .await;
    // The dead node comes back and finds that it is a member of nothing.
    field
        .cluster
        .restart(2)
        .await
        .expect("the node becomes ready again");
    eventually("the returned node holds no old replica", PATIENCE, || async {
        let status = field.hub.status().await;
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        let total: u64 = nodes
            .iter()
            .map(|node| Field::replicas(&nodes, node["node"].as_str().unwrap_or("")))
            .sum();
        let share = Field::replicas(&nodes, &dead);
        if status["health"] == "healthy" && total == 3 * (SHARDS as u64 + 1) && share >= 3 {
            Ok(())
        } else {
            Err(status)
        }
    })
    .await;
    load.wait_acked(100).await;
    let logs = load.finish().await;
    assert_kept(&logs, &field.hub.read_all().await);
    field.cluster.stop().await;
}

#[tokio::test]
async fn what_would_leave_too_little_is_refused() {
    let field = Field::start(3, &[]).await;
    let node = field.id(0);
    let refused = |status: StatusCode, answer: Value, wanted: &str| {
        assert!(
            status == StatusCode::CONFLICT && answer.to_string().contains(wanted),
            "{wanted}: {status} {answer}"
        );
    };
    let (status, answer) = field.ask(json!({ "op": "drain", "node": &node })).await;
    refused(status, answer, "2 shard nodes would be left for 3 replicas");
    let (status, answer) = field.ask(json!({ "op": "remove", "node": &node })).await;
    refused(status, answer, "drain it first");
    let (status, answer) = field.ask(json!({ "op": "drain", "node": "zz" })).await;
    refused(status, answer, "there is no node 'zz'");
    let (status, answer) = field.ask(json!({ "op": "set-replication", "replicas": 2 })).await;
    refused(status, answer, "1, 3, 5 or 7");
    // Told to, it goes on with two.
    field
        .must(json!({ "op": "drain", "node": &node, "force": true }))
        .await;
    eventually("the drained node is empty", PATIENCE, || async {
        let status = field.hub.status().await;
        let nodes = status["nodes"].as_array().cloned().unwrap_or_default();
        if Field::replicas(&nodes, &node) == 0 && status["health"] == "degraded" {
            Ok(())
        } else {
            Err(status)
        }
    })
    .await;
    field.cluster.stop().await;
}
