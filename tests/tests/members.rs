//! Nodes that come and go while devices send: joins, drains, removals, a dead node replaced, and one
//! node that grows into three. Whatever moves, every acknowledged message is there afterwards.

use std::path::Path;

use dunlin_tests::field::{Field, SHARDS, replicas};
use dunlin_tests::hub::Hub;
use dunlin_tests::judge::assert_kept;
use dunlin_tests::load::Load;
use dunlin_tests::program::{Serve, dunlin, run};
use dunlin_tests::{PATIENCE, eventually};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio::process::Command;

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
        .settled("the newcomer has its share", |nodes| replicas(nodes, &id) >= 3)
        .await;
    load.wait_acked(200).await;

    let leaving = field.id(1);
    field.must(json!({ "op": "drain", "node": &leaving })).await;
    field
        .settled("the drained node is empty", |nodes| {
            replicas(nodes, &leaving) == 0
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
    field.stop().await;
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
    field.stop().await;
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
            replicas(nodes, &newcomer) == SHARDS as u64 + 1
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
            .map(|node| replicas(&nodes, node["node"].as_str().unwrap_or("")))
            .sum();
        let share = replicas(&nodes, &dead);
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
    field.stop().await;
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
        if replicas(&nodes, &node) == 0 && status["health"] == "degraded" {
            Ok(())
        } else {
            Err(status)
        }
    })
    .await;
    field.stop().await;
}

#[tokio::test]
async fn a_cluster_whose_majority_is_gone_goes_on_from_what_is_left() {
    let mut field = Field::start(3, &[]).await;
    let devices = field.hub.create_many("d", 8).await;
    let load = Load::start(&field.hub.doors[..1], &devices);
    load.wait_acked(200).await;
    let logs = load.finish().await;
    let (status, answer) = field.ask(json!({ "op": "recover", "accept_loss": true })).await;
    assert!(status == StatusCode::CONFLICT, "nothing is lost yet: {answer}");

    // What was acknowledged is on two nodes at least, so that the survivor may lack the end of it; let it
    // catch up, since this test is about what it has.
    let applied = |status: &Value, node: &str| {
        let line = status["nodes"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|line| line["node"] == node)
            .cloned();
        line.map(|line| line["applied"].clone())
    };
    let survivor = field.id(0);
    eventually("the survivor has everything", PATIENCE, || async {
        let status = field.hub.status().await;
        let all: Vec<_> = (0..3).map(|place| applied(&status, &field.id(place))).collect();
        (all[0].is_some() && all.iter().all(|of_node| *of_node == all[0]))
            .then_some(())
            .ok_or(status)
    })
    .await;
    field.cluster.kill(1).await.expect("the node is ours to kill");
    field.cluster.kill(2).await.expect("the node is ours to kill");
    let rest = field.hub.through([field.cluster.node(0).expect("it was ready")]);
    let ask = |accept_loss: bool| {
        let request = json!({ "op": "recover", "accept_loss": accept_loss });
        rest.call(reqwest::Method::POST, "/cluster/admin", Some(request))
    };
    let (_, looked) = ask(false).await;
    assert_eq!(
        (&looked["done"], looked["groups"].as_array().map(Vec::len)),
        (&json!(false), Some(SHARDS + 1)),
        "{looked}"
    );
    let (_, done) = ask(true).await;
    assert_eq!(done["done"], json!(true), "{done}");
    assert!(
        done["groups"]
            .as_array()
            .into_iter()
            .flatten()
            .all(|lost| lost["survivor"]["node"] == *survivor),
        "{done}"
    );

    // Alone, it takes and keeps messages again.
    let more = rest.create_many("e", 8).await;
    let load = Load::start(&rest.doors, &more);
    load.wait_acked(100).await;
    let logs = [logs, load.finish().await].concat();
    assert_kept(&logs, &rest.read_all().await);

    // The lost nodes come back after all: what they had is outranked, and they are filled again.
    field
        .cluster
        .restart(1)
        .await
        .expect("the node becomes ready again");
    field
        .cluster
        .restart(2)
        .await
        .expect("the node becomes ready again");
    field
        .settled("every group has three replicas", |nodes| {
            nodes.iter().all(|node| node["replicas"] == SHARDS + 1)
        })
        .await;
    field.cluster.kill(0).await.expect("the node is ours to kill");
    let rest = field
        .hub
        .through([1, 2].map(|place| field.cluster.node(place).expect("it was ready")));
    assert_kept(&logs, &rest.read_all().await);
    field.stop().await;
}

#[tokio::test]
async fn a_token_lets_one_node_join_and_no_second() {
    let first = Serve::new(&[]);
    let running = first.start().await;
    let hub = Hub::new(&running.ready);
    let cluster = |arguments: &[&str], data: &Path| {
        let mut command = Command::new(dunlin());
        command.arg("cluster").args(arguments).arg("--data").arg(data);
        run(command)
    };
    let (status, token) = cluster(&["token"], &first.data()).await;
    assert!(status.success(), "{token}");

    let second = Serve::new(&["--bind", "127.0.0.2"]);
    let (status, said) = cluster(&["join", token.trim()], &second.data()).await;
    assert!(status.success() && said.contains("dunlin serve --data"), "{said}");
    let third = Serve::new(&["--bind", "127.0.0.3"]);
    let (status, said) = cluster(&["join", token.trim()], &third.data()).await;
    assert!(!status.success() && said.contains("used before"), "{said}");
    let (status, said) = cluster(&["join", token.trim()], &first.data()).await;
    assert!(!status.success(), "{said}");

    let joined = second.start().await;
    eventually("two nodes in the cluster", PATIENCE, || async {
        let status = hub.status().await;
        let alive = status["nodes"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|node| node["alive"] == true);
        if alive.count() == 2 { Ok(()) } else { Err(status) }
    })
    .await;
    // Through the newcomer as through the first.
    let device = hub.create("d").await;
    let load = Load::start(&Hub::new(&joined.ready).doors, &[device]);
    load.wait_acked(10).await;
    let logs = load.finish().await;
    assert_kept(&logs, &hub.read_all().await);
    joined.kill().await;
    running.kill().await;
}

#[tokio::test]
async fn nodes_that_start_together_become_one_cluster() {
    // Any three of the five found it; which ones, and who promised what to whom on the way, is chance.
    let field = Field::founded((3, 5), 0, &[]).await;
    field
        .settled("five nodes with their share", |nodes| {
            nodes.len() == 5 && nodes.iter().all(|node| node["replicas"].as_u64() >= Some(3))
        })
        .await;
    field.stop().await;
}
