//! The one place where all shells meet: storage, actors, cluster and doors become a node.
//!
//! Consensus, transport and journal callbacks run on a runtime of their own, apart from the doors,
//! so that a storm of handshakes delays no heartbeat.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use dunlin_actors::{ActorFault, ActorHost, HostConfig};
use dunlin_cluster::config::NodeIdentity;
use dunlin_cluster::{AgreedClock, Cluster, ClusterConfig, Parts, ShardParts, Stores};
use dunlin_gateway::Gateway;
use dunlin_gateway::auth::ConnectionString;
use dunlin_model::alarm::Alarm;
use dunlin_model::audit::AuditRecord;
use dunlin_model::directory::Role;
use dunlin_model::id::GroupReplica;
use dunlin_model::port::{AuditSink, Clock, EventLog, ShardStore, StoreError};
use dunlin_storage::data_dir::DataDir;
use dunlin_storage::disk::{Disk, RealDisk};
use dunlin_storage::journal::{Journal, JournalConfig};
use dunlin_storage::segment::SegmentLog;
use dunlin_storage::state::StateDb;
use tokio::runtime::{Builder, Runtime};

use crate::address;
use crate::clock::SystemClock;
use crate::config::NodeConfig;
use crate::doors;
use crate::faults::Faults;
use crate::hosted::HostedShards;
use crate::joining;
use crate::observe::Observed;
use crate::outside::Outside;
use crate::pki::Authority;
use crate::ready::{Ready, ReadyNode};

/// Bytes of a journal segment.
const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// Threads of each runtime for work that waits for the disk. What finds none waits in turn: whoever asked for it
/// has a bound of its own.
const BLOCKING_THREADS_MAX: usize = 64;
/// How long open connections get to end at a clean stop.
const DRAIN_WAIT: Duration = Duration::from_secs(3);

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Values that cannot be.
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
    /// The data directory cannot be used.
    #[error(transparent)]
    Data(#[from] dunlin_storage::data_dir::DataDirError),
    /// The journal cannot be opened.
    #[error("open journal: {0}")]
    Journal(#[from] dunlin_storage::journal::JournalError),
    /// The state cannot be opened.
    #[error("open state: {0}")]
    Store(#[from] StoreError),
    /// Certificates cannot be made or read.
    #[error(transparent)]
    Pki(#[from] crate::pki::PkiError),
    /// The first certificates cannot be made or read.
    #[error(transparent)]
    Certificates(#[from] crate::certificates::CertificateError),
    /// The audit cannot be kept.
    #[error("open audit: {0}")]
    Audit(std::io::Error),
    /// The object store cannot be used.
    #[error("open object store: {0}")]
    Objects(std::io::Error),
    /// Traces cannot be sent.
    #[error(transparent)]
    Traces(#[from] crate::otlp::ExporterError),
    /// The shards' actors cannot start.
    #[error("start actors: {0}")]
    Host(#[from] dunlin_actors::HostError),
    /// The node cannot take part in the cluster.
    #[error("start cluster: {0}")]
    Cluster(#[from] dunlin_cluster::StartError),
    /// The doors cannot open.
    #[error("open doors: {0}")]
    Gateway(#[from] dunlin_gateway::StartError),
    /// What was written to join a cluster cannot be read.
    #[error("read where the cluster is: {0}")]
    Join(std::io::Error),
    /// A runtime cannot be made.
    #[error("start runtime: {0}")]
    Runtime(std::io::Error),
}

struct NodeStores {
    disk: Arc<dyn Disk>,
    state: StateDb,
}

impl Stores for NodeStores {
    fn state(&self, id: GroupReplica) -> Result<Arc<dyn ShardStore>, StoreError> {
        self.state.replica(id)
    }

    fn events(&self, id: GroupReplica) -> Result<Arc<dyn EventLog>, StoreError> {
        Ok(Arc::new(SegmentLog::open(self.disk.clone(), id)?))
    }

    fn replicas(&self) -> Result<Vec<GroupReplica>, StoreError> {
        let mut found = self.state.replicas()?;
        found.extend(SegmentLog::replicas(&*self.disk)?);
        Ok(found)
    }

    fn remove(&self, id: GroupReplica) -> Result<(), StoreError> {
        SegmentLog::remove(&*self.disk, id)?;
        self.state.remove(id)
    }

    fn disk(&self) -> Arc<dyn Disk> {
        self.disk.clone()
    }
}

/// A node that runs.
pub struct RunningNode {
    config: NodeConfig,
    authority: Arc<Authority>,
    data: Arc<DataDir>,
    cluster: Arc<Cluster>,
    host: Option<Arc<ActorHost>>,
    gateway: Gateway,
    observed: Arc<Observed>,
    /// Whether the node belonged to no cluster when it was started, and nobody was told yet that it does.
    is_new: AtomicBool,
    consensus: Runtime,
    doors: Runtime,
}

fn runtime(name: &str, workers: usize) -> Result<Runtime, StartError> {
    let mut builder = Builder::new_multi_thread();
    builder.max_blocking_threads(BLOCKING_THREADS_MAX);
    if workers > 0 {
        builder.worker_threads(workers);
    }
    builder
        .thread_name(name)
        .enable_all()
        .build()
        .map_err(StartError::Runtime)
}

impl RunningNode {
    /// Starts everything and returns when the doors are open; see [`serving`](Self::serving). Blocks.
    pub fn start(mut config: NodeConfig) -> Result<RunningNode, StartError> {
        joining::follow(&mut config).map_err(StartError::Join)?;
        let problems: Vec<String> = config
            .problems()
            .into_iter()
            .chain(config.missing())
            .map(|(key, problem)| format!("{key}: {problem}"))
            .collect();
        if !problems.is_empty() {
            return Err(crate::config::ConfigError(problems).into());
        }
        let data = Arc::new(DataDir::open(&config.data)?);
        let pki = config.pki.clone().unwrap_or_else(|| config.data.join("pki"));
        let authority = Arc::new(Authority::open(&pki)?);
        let consensus = runtime("consensus", config.workers)?;
        let door_runtime = runtime("doors", config.workers)?;
        let faults = config.allow_faults.then(|| Arc::new(Faults::new()));
        if faults.is_some() {
            tracing::warn!("this node allows faults: its admin may skew its clock and make its actors panic");
        }
        let clock = AgreedClock::new(match &faults {
            Some(faults) => faults.clone(),
            None => Arc::new(SystemClock::new()),
        });
        let started_ms = clock.wall_ms();
        let is_new = AtomicBool::new(data.cluster_id().is_none());
        let outside = Outside::start(&config, &authority, &data, clock.clone(), door_runtime.handle())?;
        let replicas = if config.roles.contains(&Role::Shard) {
            let _entered = consensus.enter();
            let host_config = HostConfig {
                tracer: outside.tracer(),
                actor_fault: faults.clone().map(|faults| faults as Arc<dyn ActorFault>),
                ..HostConfig::default()
            };
            Some(open_replicas(&config, &data, clock.clone(), host_config)?)
        } else {
            None
        };
        let parts = Parts {
            data: data.clone(),
            shard: replicas.as_ref().map(|(shard, _)| shard.clone()),
            clock: clock.clone(),
            gateway_runtime: door_runtime.handle().clone(),
        };
        let (journal, host) = match replicas {
            Some((shard, host)) => (Some(shard.journal), Some(host)),
            None => (None, None),
        };
        let cluster_config = cluster_config(&config, outside.identity.clone());
        let cluster = Arc::new(consensus.block_on(Cluster::start(cluster_config, parts))?);
        if let Some(tracer) = outside.tracer() {
            cluster.follow_with(tracer);
        }
        outside.certificates.shown_by(cluster.clone());
        door_runtime.spawn(outside.certificates.clone().run());
        let observed = Arc::new(Observed {
            cluster: cluster.clone(),
            journal,
            host: host.clone(),
            gateway: std::sync::OnceLock::new(),
            certificates: outside.certificates,
            audit: outside.audit,
            traces: outside.traces,
            started_ms,
            clock,
            faults,
        });
        let gateway = door_runtime.block_on(doors::open(&config, &authority, &cluster, &observed))?;
        Ok(RunningNode {
            config,
            authority,
            data,
            cluster,
            host,
            gateway,
            observed,
            is_new,
            consensus,
            doors: door_runtime,
        })
    }

    /// Resolves when the cluster is formed and this node serves.
    pub async fn serving(&self) {
        self.cluster.ready().await;
        if self.is_new.swap(false, Ordering::Relaxed) {
            let node = self.cluster.node_id().to_string();
            let detail = format!("cluster {}", self.cluster.client().directory().cluster_id);
            let record = AuditRecord::done("node.join", "node", node);
            self.observed.audit.record(AuditRecord { detail, ..record }).await;
        }
    }

    /// What scripts need to know.
    pub fn ready(&self) -> Ready {
        let directory = self.cluster.client().directory();
        let shown = |address: Option<&SocketAddr>| address.map(|address| self.shown(*address));
        let mqtts = shown(self.gateway.mqtts_addresses().first()).unwrap_or_default();
        let amqps = shown(self.gateway.amqps_addresses().first()).unwrap_or_default();
        let kafka = shown(self.gateway.kafka_addresses().first()).unwrap_or_default();
        let https = shown(self.gateway.https_addresses().first()).unwrap_or_default();
        let mqtt = self
            .gateway
            .mqtt_plain_address()
            .map(|address| self.shown(address));
        let key = directory
            .policies
            .get("iothubowner")
            .map(|policy| policy.keys.primary.clone());
        let connection_string = ConnectionString {
            host_name: self.dialled(&https),
            shared_access_key_name: Some("iothubowner".to_owned()),
            shared_access_key: key.unwrap_or_default(),
            ..ConnectionString::default()
        };
        let node = ReadyNode {
            id: self.cluster.node_id().to_string(),
            pid: std::process::id(),
            roles: self.config.roles.clone(),
            mqtts: mqtts.clone(),
            amqps: amqps.clone(),
            kafka: kafka.clone(),
            https: https.clone(),
            mqtt: mqtt.clone(),
            data_dir: absolute(self.data.path()),
        };
        Ready {
            ready: true,
            mqtts: self.dialled(&mqtts),
            amqps: self.dialled(&amqps),
            kafka: self.dialled(&kafka),
            https: self.dialled(&https),
            mqtt,
            ca_file: absolute(&self.authority.ca_file()),
            admin_token: self.authority.admin_token().to_owned(),
            connection_string: connection_string.format(),
            nodes: vec![node],
        }
    }

    /// The default address is shown as the name in the certificate that people know.
    fn shown(&self, address: SocketAddr) -> String {
        if address.ip() == IpAddr::from([127, 0, 0, 1]) {
            format!("localhost:{}", address.port())
        } else {
            address.to_string()
        }
    }

    /// What clients elsewhere dial: a node that listens on every address goes by the hub's name.
    fn dialled(&self, shown: &str) -> String {
        match shown.rsplit_once(':') {
            Some((_, port)) if self.config.bind.is_unspecified() => {
                format!("{}:{port}", self.config.host_name)
            }
            _ => shown.to_owned(),
        }
    }

    /// Waits on the doors' runtime.
    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.doors.block_on(future)
    }

    /// Stops in order: leaderships, doors, replicas, journal.
    pub fn stop(self) {
        self.consensus.block_on(self.cluster.hand_over());
        if !self.doors.block_on(self.gateway.drain(DRAIN_WAIT)) {
            tracing::warn!("some connections did not end in time");
        }
        self.consensus.block_on(async {
            self.cluster.stop().await;
            if let Some(host) = &self.host {
                host.stop().await;
            }
        });
        // Both still need a runtime.
        self.doors.block_on(self.observed.audit.close());
        if let Some(traces) = &self.observed.traces {
            traces.stop();
        }
        self.doors.shutdown_timeout(Duration::from_secs(1));
        self.consensus.shutdown_timeout(Duration::from_secs(1));
    }
}

/// What a node needs to hold replicas: journal, stores, actors. Must be called on consensus's runtime.
fn open_replicas(
    config: &NodeConfig,
    data: &DataDir,
    clock: Arc<dyn Clock>,
    host_config: HostConfig,
) -> Result<(ShardParts, Arc<ActorHost>), StartError> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(data.path()));
    let journal_config = JournalConfig {
        segment_bytes: SEGMENT_BYTES,
        segments_max: config.journal_segments,
        ..JournalConfig::default()
    };
    let journal = Arc::new(Journal::open(disk.clone(), journal_config)?);
    journal.on_failure(Box::new(|error| {
        // What was not synced is lost to this process: going on would mean guessing (design rule: fsync failure is fatal).
        tracing::error!(%error, "the journal has failed; the node stops");
        std::process::abort();
    }));
    let state = StateDb::open(data.state_path())?;
    state.on_failure(|error| {
        Alarm::StateFailed.raise();
        tracing::error!(%error, "the state database has failed; the node stops");
        std::process::abort();
    });
    let host = ActorHost::start(clock, host_config)?;
    let shard = ShardParts {
        journal,
        stores: Arc::new(NodeStores { disk, state }),
        host: Arc::new(HostedShards(host.clone())),
    };
    Ok((shard, host))
}

fn absolute(path: &std::path::Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn cluster_config(config: &NodeConfig, identity: NodeIdentity) -> ClusterConfig {
    ClusterConfig {
        listen: SocketAddr::new(config.bind, config.cluster_port),
        advertise: address::advertised(config),
        kafka: address::advertised_kafka(config),
        seeds: config.seeds.clone(),
        roles: config.roles.clone(),
        expect: config.expect,
        shard_count: config.shard_count,
        replication_factor: config.replication_factor,
        timing: config.timing,
        replace_after: Duration::from_secs(config.replace_after_s),
        checkpoint_every: Duration::from_secs(config.checkpoint_s),
        segment_age: Duration::from_secs(config.segment_age_s),
        journal_segments_max: config.journal_segments,
        identity,
        simulated: None,
    }
}
