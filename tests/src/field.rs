//! A cluster of real processes on loopback, and what its admin may ask of it.

use std::path::{Path, PathBuf};

use dunlin_chaos::chaosfs::{ChaosFs, ChaosFsError};
use dunlin_chaos::relay::{Relay, RelayOptions, relay_host};
use dunlin_node::local::{LocalCluster, LocalOptions};
use reqwest::{Method, StatusCode};
use serde_json::Value;
use tempfile::TempDir;

use crate::hub::Hub;
use crate::ports::Ports;
use crate::program::dunlin;
use crate::{PATIENCE, eventually};

/// Shards of a field.
pub const SHARDS: usize = 4;

/// A cluster with a data directory of its own, which goes with it.
pub struct Field {
    /// Its processes.
    pub cluster: LocalCluster,
    /// What services and devices see of it.
    pub hub: Hub,
    options: LocalOptions,
    folder: TempDir,
}

impl Drop for Field {
    /// Shows the nodes' logs when the test fails.
    fn drop(&mut self) {
        if std::thread::panicking() {
            for node in 1.. {
                let log = self.folder.path().join(format!("node-{node}.log"));
                let Ok(text) = std::fs::read_to_string(log) else {
                    break;
                };
                eprintln!("--- node {node}:\n{text}");
            }
        }
    }
}

impl Field {
    /// Starts `nodes` nodes with [`SHARDS`] shards and more `arguments`.
    pub async fn start(nodes: usize, arguments: &[&str]) -> Field {
        Self::apart(nodes, 0, arguments).await
    }

    /// The same on addresses of another subnet than other hubs of this machine have.
    pub async fn on_subnet(nodes: usize, subnet: [u8; 3], arguments: &[&str]) -> Field {
        let folder = TempDir::new().expect("a folder for temporary files");
        let options = LocalOptions {
            subnet,
            ..options(&folder, nodes, arguments)
        };
        Self::run(folder, options).await
    }

    /// The same with a port for MQTT over TLS that is not drawn.
    pub async fn at_port(nodes: usize, mqtts_port: u16) -> Field {
        let folder = TempDir::new().expect("a folder for temporary files");
        let options = LocalOptions {
            mqtts_port,
            ..options(&folder, nodes, &[])
        };
        Self::run(folder, options).await
    }

    /// The same with both ports that Azure SDKs dial, for MQTT and for AMQP.
    pub async fn at_ports(nodes: usize, (mqtts_port, amqps_port): (u16, u16)) -> Field {
        let folder = TempDir::new().expect("a folder for temporary files");
        let options = LocalOptions {
            mqtts_port,
            amqps_port,
            ..options(&folder, nodes, &[])
        };
        Self::run(folder, options).await
    }

    /// The same with a port for HTTPS as well.
    pub async fn at_sdk_ports(nodes: usize, ports: (u16, u16, u16)) -> Field {
        Self::at_sdk_ports_with(nodes, ports, &[]).await
    }

    /// The same with more `arguments`.
    pub async fn at_sdk_ports_with(
        nodes: usize,
        (mqtts_port, amqps_port, https_port): (u16, u16, u16),
        arguments: &[&str],
    ) -> Field {
        let folder = TempDir::new().expect("a folder for temporary files");
        let options = LocalOptions {
            mqtts_port,
            amqps_port,
            https_port,
            ..options(&folder, nodes, arguments)
        };
        Self::run(folder, options).await
    }

    /// The same with a port for AMQP over TLS that is not drawn.
    pub async fn at_amqps_port(nodes: usize, amqps_port: u16) -> Field {
        let folder = TempDir::new().expect("a folder for temporary files");
        let options = LocalOptions {
            amqps_port,
            ..options(&folder, nodes, &[])
        };
        Self::run(folder, options).await
    }

    /// The same with `gateways` gateways in the first places, if any: the `nodes` after them are none.
    pub async fn apart(nodes: usize, gateways: usize, arguments: &[&str]) -> Field {
        Self::founded((nodes, nodes), gateways, arguments).await
    }

    /// The same where the first `founders` of `nodes` that find each other form the cluster.
    pub async fn founded((founders, nodes): (usize, usize), gateways: usize, arguments: &[&str]) -> Field {
        let folder = TempDir::new().expect("a folder for temporary files");
        let options = LocalOptions {
            founders,
            gateways,
            ..options(&folder, nodes, arguments)
        };
        Self::run(folder, options).await
    }

    /// The same as [`start`](Self::start), with a relay before the nodes through which all that they say
    /// to each other passes.
    pub async fn relayed(nodes: usize, arguments: &[&str]) -> (Field, Relay) {
        let folder = TempDir::new().expect("a folder for temporary files");
        let options = LocalOptions {
            advertised_host: Some(relay_host),
            ..options(&folder, nodes, arguments)
        };
        let relay = Relay::start(&RelayOptions {
            nodes,
            cluster_port: options.cluster_port,
            door_ports: vec![options.mqtts_port],
            seed: 1,
        });
        let relay = relay.unwrap_or_else(|error| panic!("{error}"));
        (Self::run(folder, options).await, relay)
    }

    /// The same with a disk of its own below each node, which misbehaves on demand. The disks must go
    /// before the field does.
    pub async fn on_disks(nodes: usize, arguments: &[&str]) -> Result<(Vec<ChaosFs>, Field), ChaosFsError> {
        let folder = TempDir::new().expect("a folder for temporary files");
        let options = options(&folder, nodes, arguments);
        let mut disks = Vec::new();
        for node in 1..=nodes {
            let [backing, data] = ["disk", "node"].map(|name| folder.path().join(format!("{name}-{node}")));
            for path in [&backing, &data] {
                std::fs::create_dir(path).expect("a folder");
            }
            disks.push(ChaosFs::mount(&backing, &data, node as u64)?);
        }
        Ok((disks, Self::run(folder, options).await))
    }

    async fn run(folder: TempDir, options: LocalOptions) -> Field {
        let cluster = LocalCluster::start(options.clone()).await;
        let cluster = cluster.unwrap_or_else(|error| panic!("{error}"));
        let hub = Hub::new(cluster.ready());
        Field {
            cluster,
            hub,
            options,
            folder,
        }
    }

    /// Kills all nodes, and `then` while none runs; starts all of them and returns when each is ready.
    pub async fn kill_all_and(&mut self, then: impl FnOnce()) {
        for node in 0..self.cluster.node_count() {
            self.cluster.kill(node).await.expect("the node is ours to kill");
        }
        then();
        let cluster = LocalCluster::start(self.options.clone()).await;
        self.cluster = cluster.unwrap_or_else(|error| panic!("{error}"));
    }

    /// Kills the node in place `place`.
    pub async fn kill(&mut self, place: usize) {
        let killed = self.cluster.kill(place).await;
        killed.expect("the node is ours to kill");
    }

    /// Where its nodes keep what they have, and their logs.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Starts a killed node and returns when every group has all its replicas again.
    pub async fn restart(&mut self, place: usize) {
        let restarted = self.cluster.restart(place).await;
        restarted.expect("the node becomes ready again");
        self.settled("the cluster healthy again", |_| true).await;
    }

    /// Starts one more node and returns its place.
    pub async fn add(&mut self) -> usize {
        self.cluster.add().await.unwrap_or_else(|error| panic!("{error}"))
    }

    /// The id of the node in place `place`, from 0.
    pub fn id(&self, place: usize) -> String {
        self.cluster
            .node(place)
            .expect("the node was ready once")
            .id
            .clone()
    }

    /// Asks the cluster as its admin.
    pub async fn ask(&self, request: Value) -> (StatusCode, Value) {
        self.hub.call(Method::POST, "/cluster/admin", Some(request)).await
    }

    /// Asks for something that must be done.
    pub async fn must(&self, request: Value) {
        let (status, answer) = self.ask(request.clone()).await;
        assert!(status.is_success(), "{request}: {status} {answer}");
    }

    /// Returns when the cluster says that it is healthy and `is_so` of its nodes.
    pub async fn settled(&self, what: &str, is_so: impl Fn(&[Value]) -> bool) {
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

    /// Where the node in place `place` keeps its data.
    pub fn data(&self, place: usize) -> PathBuf {
        self.folder.path().join(format!("node-{}", place + 1))
    }

    /// Stops all nodes in order.
    pub async fn stop(mut self) {
        self.cluster.stop_all().await;
    }
}

fn options(folder: &TempDir, nodes: usize, arguments: &[&str]) -> LocalOptions {
    let ports = Ports::take();
    let all = ["--https-alt-port", "0", "--shards", "4"].iter().chain(arguments);
    LocalOptions {
        program: dunlin().to_owned(),
        mqtts_port: ports.mqtts,
        amqps_port: ports.amqps,
        kafka_port: ports.kafka,
        https_port: ports.https,
        cluster_port: ports.cluster,
        arguments: all.map(|argument| (*argument).to_owned()).collect(),
        ..LocalOptions::new(nodes, folder.path()).expect("this program has a path")
    }
}

/// Replicas on the node with this id, as `nodes` of a status tell.
pub fn replicas(nodes: &[Value], id: &str) -> u64 {
    let node = nodes.iter().find(|node| node["node"] == id);
    node.and_then(|node| node["replicas"].as_u64()).unwrap_or(0)
}
