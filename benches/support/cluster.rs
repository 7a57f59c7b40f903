//! Three nodes as processes of the release binary, devices in their registry, and how to reach them.

use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dunlin_chaos::hub::Hub;
use dunlin_gateway::auth::ConnectionString;
use dunlin_gateway::client::{device_token, sdk_username};
use dunlin_node::local::{LocalCluster, LocalOptions};
use dunlin_node::ready::Ready;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use super::{Failure, free_port};

/// Nodes.
pub(crate) const NODES: usize = 3;
/// Devices that are created at a time on each node.
const CREATES_AT_A_TIME: usize = 48;
/// Time for every shard to have a leader.
const HEALTHY_TIMEOUT: Duration = Duration::from_secs(60);
/// Seconds that tokens are valid.
const TOKEN_S: u64 = 24 * 3600;
/// Every device of a bench has the same key; making many of them is not what is measured.
const KEY: [u8; 32] = [7; 32];

/// The ports of a cluster; the same after a restart.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ClusterPorts {
    mqtts: u16,
    https: u16,
    mqtt: u16,
    cluster: u16,
}

impl ClusterPorts {
    pub(crate) fn take() -> ClusterPorts {
        ClusterPorts {
            mqtts: free_port(),
            https: free_port(),
            mqtt: free_port(),
            cluster: free_port(),
        }
    }
}

/// How a device introduces itself.
#[derive(Debug, Clone)]
pub(crate) struct Device {
    pub(crate) id: String,
    pub(crate) username: String,
    pub(crate) token: String,
}

/// A running cluster.
pub(crate) struct Running {
    local: LocalCluster,
    pub(crate) ready: Ready,
    /// The hub's name.
    pub(crate) host: String,
}

impl Running {
    /// Starts `program` three times over the data in `folder`, old or new, and waits for all leaders.
    pub(crate) async fn start(
        program: &Path,
        folder: &Path,
        ports: ClusterPorts,
        arguments: &[String],
    ) -> Result<Running, Failure> {
        let mut options = LocalOptions::new(NODES, folder)?;
        options.program = program.to_owned();
        options.mqtts_port = ports.mqtts;
        options.https_port = ports.https;
        options.mqtt_port = Some(ports.mqtt);
        options.cluster_port = ports.cluster;
        options.arguments = arguments.to_vec();
        let local = LocalCluster::start(options).await?;
        let ready = local.ready().clone();
        let host = ConnectionString::parse(&ready.connection_string)?.host_name;
        let host = host.split(':').next().unwrap_or_default().to_owned();
        let running = Running { local, ready, host };
        running.wait_healthy().await?;
        Ok(running)
    }

    /// Waits until every shard has a leader and all its replicas.
    pub(crate) async fn wait_healthy(&self) -> Result<(), Failure> {
        let hub = Hub::new(&self.ready)?;
        let deadline = Instant::now() + HEALTHY_TIMEOUT;
        loop {
            let status = hub.status().await?;
            if status.shards > 0 && status.health == "healthy" {
                return Ok(());
            }
            if Instant::now() >= deadline {
                return Err(format!("the cluster is {}", status.health).into());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// The nodes' processes.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.ready.nodes.iter().map(|node| node.pid).collect()
    }

    /// Creates devices `from..to`, over all nodes, and says how far it is through `progress`.
    pub(crate) async fn create_devices(
        &self,
        (from, to): (usize, usize),
        progress: impl Fn(usize),
    ) -> Result<(), Failure> {
        let key = STANDARD.encode(KEY);
        let hubs = (0..NODES)
            .map(|node| {
                let hub = Hub::new(&self.ready)?;
                hub.prefer(node);
                Ok(hub)
            })
            .collect::<Result<Vec<_>, Failure>>()?;
        let (hubs, key) = (&hubs, key.as_str());
        let creates = (from..to)
            .map(|index| async move { hubs[index % NODES].create_device(&device_id(index), key).await });
        let mut created = stream::iter(creates).buffer_unordered(NODES * CREATES_AT_A_TIME);
        let mut count = 0;
        while created.try_next().await?.is_some() {
            count += 1;
            progress(count);
        }
        Ok(())
    }

    /// Device `index` as it introduces itself.
    pub(crate) fn device(&self, index: usize) -> Result<Device, Failure> {
        let now_s = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
        let id = device_id(index);
        Ok(Device {
            username: sdk_username(&self.host, &id),
            token: device_token(&self.host, &id, &STANDARD.encode(KEY), now_s + TOKEN_S)?,
            id,
        })
    }

    /// SIGTERM to all nodes; returns when they are gone.
    pub(crate) async fn stop(self) {
        self.local.stop().await;
    }
}

fn device_id(index: usize) -> String {
    format!("bench-{index:06}")
}
