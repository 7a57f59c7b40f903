//! Several nodes as processes of this machine: node `i` listens on `127.0.0.i` with the same ports.
//! Roles are together in each node, or apart: then the gateways come first, so that devices find one
//! at `localhost`.
//!
//! The processes are real, and so is a kill. `up` and `demo` stand on it, and so do tests.

use std::collections::BTreeMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

use crate::ready::{Ready, ReadyNode};

/// Nodes that one machine may run.
pub const LOCAL_NODES_MAX: usize = 9;
/// The port of AMQP over TLS that clients look for.
const AMQPS_PORT_DEFAULT: u16 = 5671;
/// The port of Kafka over TLS, as Event Hubs has it.
const KAFKA_PORT_DEFAULT: u16 = 9093;
/// Where nodes listen that share this machine's network.
const LOOPBACK: [u8; 3] = [127, 0, 0];
/// How long a node may take to become ready, in seconds.
const READY_TIMEOUT_S: u64 = 60;

/// What a local cluster is told.
#[derive(Debug, Clone)]
pub struct LocalOptions {
    /// Nodes with the role `shard`.
    pub nodes: usize,
    /// How many of these form the cluster; the others join it.
    pub founders: usize,
    /// Nodes beside them that are gateways and nothing else; with none of these, each node is one.
    pub gateways: usize,
    /// Where node `i` keeps its data, in `node-i`.
    pub data: PathBuf,
    /// The program that runs a node, this one usually.
    pub program: PathBuf,
    /// Port of MQTT over TLS.
    pub mqtts_port: u16,
    /// Port of AMQP over TLS.
    pub amqps_port: u16,
    /// Port of Kafka over TLS.
    pub kafka_port: u16,
    /// Port of HTTPS.
    pub https_port: u16,
    /// Port of MQTT without TLS, if wanted.
    pub mqtt_port: Option<u16>,
    /// Port between nodes.
    pub cluster_port: u16,
    /// Where the others reach the node in a place (from 0), if something stands before it; the port is
    /// the same.
    pub advertised_host: Option<fn(usize) -> Ipv4Addr>,
    /// The first three bytes of all addresses: node `i` listens on `i` behind them.
    pub subnet: [u8; 3],
    /// Begins the names of network namespaces, if each node `i` runs in one of its own: `i` follows.
    pub namespaces: Option<String>,
    /// Further arguments of `serve`, the same for every node.
    pub arguments: Vec<String>,
    /// Further arguments of `serve` for one node, by its place from 0.
    pub own_arguments: BTreeMap<usize, Vec<String>>,
}

impl LocalOptions {
    /// `nodes` nodes with the usual ports, run by this very program.
    pub fn new(nodes: usize, data: &Path) -> io::Result<Self> {
        Ok(Self {
            nodes,
            founders: nodes,
            gateways: 0,
            data: data.to_owned(),
            program: std::env::current_exe()?,
            mqtts_port: 8883,
            amqps_port: AMQPS_PORT_DEFAULT,
            kafka_port: KAFKA_PORT_DEFAULT,
            https_port: 8443,
            mqtt_port: None,
            cluster_port: 8900,
            advertised_host: None,
            subnet: LOOPBACK,
            namespaces: None,
            arguments: Vec::new(),
            own_arguments: BTreeMap::new(),
        })
    }

    /// Where the node in place `index` (from 0) keeps its data.
    pub fn data_dir(&self, index: usize) -> PathBuf {
        self.data.join(format!("node-{}", index + 1))
    }

    /// Where the node in place `index` (from 0) logs to.
    pub fn log_file(&self, index: usize) -> PathBuf {
        log_path(self, index + 1)
    }

    /// Nodes that node `index` (from 1) waits for to form the cluster with.
    fn expect(&self, index: usize) -> usize {
        match index <= self.count() {
            true => self.founders,
            false => 0,
        }
    }

    /// Where the others reach node `index` (from 1).
    fn host(&self, index: usize) -> Ipv4Addr {
        match self.advertised_host {
            Some(host) => host(index - 1),
            None => self.address(index),
        }
    }

    fn address(&self, index: usize) -> Ipv4Addr {
        let [first, second, third] = self.subnet;
        Ipv4Addr::new(first, second, third, index as u8)
    }

    /// The program of node `index`, with what leads it to its place.
    fn command(&self, index: usize) -> Command {
        let Some(prefix) = &self.namespaces else {
            return Command::new(&self.program);
        };
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{prefix}{index}"));
        command.arg(&self.program);
        command
    }

    fn count(&self) -> usize {
        self.nodes + self.gateways
    }

    /// What node `index` (from 1) does, as `serve` is told.
    fn roles(&self, index: usize) -> &'static str {
        match self.gateways {
            0 => "shard,gateway",
            gateways if index <= gateways => "gateway",
            _ => "shard",
        }
    }
}

/// Why a local cluster is not there.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// Too many, or none.
    #[error("between 1 and {LOCAL_NODES_MAX} nodes run on one machine, not {0}")]
    Count(usize),
    /// A process or a file.
    #[error("{action}: {source}")]
    Io {
        /// Verb and object.
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// A node ended before it was ready; its log says why.
    #[error("node {node} did not become ready; see {}", .log.display())]
    NotReady {
        /// Which, from 1.
        node: usize,
        /// Where it logs to.
        log: PathBuf,
    },
}

struct LocalNode {
    child: Option<Child>,
    ready: Option<ReadyNode>,
}

/// A node's process that has begun and is not ready yet. The process itself stays with its
/// [`LocalCluster`], which may kill it meanwhile.
pub struct Starting {
    output: Option<ChildStdout>,
    node: usize,
    log: PathBuf,
}

impl Starting {
    /// Waits until the node is ready; [`LocalCluster::set_ready`] wants what it says.
    ///
    /// # Errors
    /// [`LocalError::NotReady`] if it ends first, or takes more than a minute.
    pub async fn ready(self) -> Result<ReadyNode, LocalError> {
        let ready = read_ready(self.output, self.node, &self.log).await?;
        ready.nodes.into_iter().next().ok_or(LocalError::NotReady {
            node: self.node,
            log: self.log,
        })
    }
}

/// A cluster of processes. Dropping it kills them.
pub struct LocalCluster {
    options: LocalOptions,
    nodes: Vec<LocalNode>,
    ready: Ready,
}

impl LocalCluster {
    /// Starts the nodes and returns when each is ready.
    pub async fn start(options: LocalOptions) -> Result<LocalCluster, LocalError> {
        if options.nodes == 0 || options.count() > LOCAL_NODES_MAX {
            return Err(LocalError::Count(options.count()));
        }
        std::fs::create_dir_all(&options.data).map_err(|source| LocalError::Io {
            action: "create data directory",
            source,
        })?;
        let mut started = Vec::new();
        for index in 1..=options.count() {
            started.push(spawn(&options, index)?);
        }
        let mut nodes = Vec::new();
        let mut first: Option<Ready> = None;
        for (place, mut child) in started.into_iter().enumerate() {
            let ready = wait_ready(&options, place + 1, &mut child).await?;
            nodes.push(LocalNode {
                child: Some(child),
                ready: ready.nodes.first().cloned(),
            });
            match &mut first {
                Some(first) => first.nodes.extend(ready.nodes),
                None => first = Some(ready),
            }
        }
        let ready = first.expect("there is at least one node");
        if let Err(error) = ready.save(&options.data) {
            tracing::warn!(%error, "cannot write the endpoint file");
        }
        Ok(LocalCluster {
            options,
            nodes,
            ready,
        })
    }

    /// What scripts need to know.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Number of nodes, dead ones included.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// The node in place `index`, from 0, as it was when it was last ready.
    pub fn node(&self, index: usize) -> Option<&ReadyNode> {
        self.nodes.get(index)?.ready.as_ref()
    }

    /// Whether its process runs as far as this one has asked for.
    pub fn is_running(&self, index: usize) -> bool {
        self.nodes.get(index).is_some_and(|node| node.child.is_some())
    }

    /// What the cluster was told.
    pub fn options(&self) -> &LocalOptions {
        &self.options
    }

    /// The process of the node in place `index`, while it runs.
    pub fn pid(&self, index: usize) -> Option<u32> {
        self.nodes.get(index)?.child.as_ref()?.id()
    }

    /// The process of the node in place `index`, whose end is from here on the caller's to see.
    /// Dropping it kills it.
    pub fn take(&mut self, index: usize) -> Option<Child> {
        self.nodes.get_mut(index)?.child.take()
    }

    /// Starts the process of the node in place `index`, which is a new one at [`node_count`](Self::node_count),
    /// without waiting for it.
    pub fn begin_start(&mut self, index: usize) -> Result<Starting, LocalError> {
        let mut child = spawn(&self.options, index + 1)?;
        let starting = Starting {
            output: child.stdout.take(),
            node: index + 1,
            log: log_path(&self.options, index + 1),
        };
        while self.nodes.len() <= index {
            self.nodes.push(LocalNode {
                child: None,
                ready: None,
            });
        }
        self.nodes[index].child = Some(child);
        Ok(starting)
    }

    /// Remembers what a node said when it was ready.
    pub fn set_ready(&mut self, index: usize, ready: ReadyNode) {
        if let Some(node) = self.nodes.get_mut(index) {
            node.ready = Some(ready);
        }
    }

    /// SIGKILL. Returns when the process is gone.
    pub async fn kill(&mut self, index: usize) -> Result<(), LocalError> {
        if let Some(mut child) = self.nodes.get_mut(index).and_then(|node| node.child.take()) {
            child.kill().await.map_err(|source| LocalError::Io {
                action: "kill node",
                source,
            })?;
        }
        Ok(())
    }

    /// Starts a killed node again and returns when it is ready.
    pub async fn restart(&mut self, index: usize) -> Result<(), LocalError> {
        let mut child = spawn(&self.options, index + 1)?;
        let ready = wait_ready(&self.options, index + 1, &mut child).await?;
        if let Some(node) = self.nodes.get_mut(index) {
            *node = LocalNode {
                child: Some(child),
                ready: ready.nodes.first().cloned(),
            };
        }
        Ok(())
    }

    /// Starts one more node, which joins, and returns its place when it is ready.
    pub async fn add(&mut self) -> Result<usize, LocalError> {
        let index = self.nodes.len();
        let mut child = spawn(&self.options, index + 1)?;
        let ready = wait_ready(&self.options, index + 1, &mut child).await?;
        self.nodes.push(LocalNode {
            child: Some(child),
            ready: ready.nodes.first().cloned(),
        });
        Ok(index)
    }

    /// SIGTERM to all, and waits for them to end.
    pub async fn stop(mut self) {
        self.stop_all().await;
    }

    /// As [`stop`](Self::stop), where the cluster is part of something that is dropped later.
    pub async fn stop_all(&mut self) {
        for node in &self.nodes {
            if let Some(pid) = node.child.as_ref().and_then(Child::id)
                && let Some(pid) = rustix::process::Pid::from_raw(pid as i32)
            {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::TERM);
            }
        }
        for node in &mut self.nodes {
            if let Some(mut child) = node.child.take() {
                let _ = child.wait().await;
            }
        }
    }
}

/// Where node `index` (from 1) logs to.
fn log_path(options: &LocalOptions, index: usize) -> PathBuf {
    options.data.join(format!("node-{index}.log"))
}

fn spawn(options: &LocalOptions, index: usize) -> Result<Child, LocalError> {
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(log_path(options, index))
        .map_err(|source| LocalError::Io {
            action: "open log",
            source,
        })?;
    let seeds = (options.gateways + 1..=options.count())
        .map(|i| format!("{}:{}", options.host(i), options.cluster_port))
        .collect::<Vec<_>>()
        .join(",");
    // Each node gets its share of the cores, so that several nodes do not act like many.
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let roles = options.roles(index);
    let mqtt_port = options.mqtt_port.filter(|_| roles.contains("gateway"));
    let mut command = options.command(index);
    command
        .args(["serve", "-o", "json"])
        .args([
            "--data".into(),
            options.data.join(format!("node-{index}")).into_os_string(),
        ])
        .args(["--pki".into(), options.data.join("pki").into_os_string()])
        .args(["--bind", &options.address(index).to_string()])
        .args(["--mqtts-port", &options.mqtts_port.to_string()])
        .args(["--https-port", &options.https_port.to_string()])
        .args(["--cluster-port", &options.cluster_port.to_string()])
        // Who is added later joins, whatever it hears first.
        .args(["--expect", &options.expect(index).to_string()])
        .args(["--seeds", &seeds])
        .args([
            "--advertise",
            &format!("{}:{}", options.host(index), options.cluster_port),
        ])
        .args(["--roles", roles])
        .args(["--workers", &(cores / options.count()).max(1).to_string()])
        // Not where it is the usual one: an older program, which a bench may compare, knows no such port.
        .args(
            (options.amqps_port != AMQPS_PORT_DEFAULT)
                .then(|| ["--amqps-port".to_owned(), options.amqps_port.to_string()])
                .into_iter()
                .flatten(),
        )
        .args(
            (options.kafka_port != KAFKA_PORT_DEFAULT)
                .then(|| ["--kafka-port".to_owned(), options.kafka_port.to_string()])
                .into_iter()
                .flatten(),
        )
        .args(
            mqtt_port
                .map(|port| ["--mqtt-port".to_owned(), port.to_string()])
                .into_iter()
                .flatten(),
        )
        .args(&options.arguments)
        .args(options.own_arguments.get(&(index - 1)).into_iter().flatten())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(true);
    command.spawn().map_err(|source| LocalError::Io {
        action: "start node",
        source,
    })
}

async fn wait_ready(options: &LocalOptions, index: usize, child: &mut Child) -> Result<Ready, LocalError> {
    let ready = read_ready(child.stdout.take(), index, &log_path(options, index)).await;
    if ready.is_err() {
        let _ = child.kill().await;
    }
    ready
}

async fn read_ready(output: Option<ChildStdout>, node: usize, log: &Path) -> Result<Ready, LocalError> {
    let failed = || LocalError::NotReady {
        node,
        log: log.to_owned(),
    };
    let mut lines = BufReader::new(output.ok_or_else(failed)?).lines();
    let line = tokio::time::timeout(std::time::Duration::from_secs(READY_TIMEOUT_S), lines.next_line()).await;
    match line {
        Ok(Ok(Some(line))) => serde_json::from_str(&line).map_err(|_| failed()),
        _ => Err(failed()),
    }
}
