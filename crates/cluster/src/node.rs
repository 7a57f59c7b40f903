//! One node of the cluster, put together: its replicas, its peers, its router.
//!
//! This is the crate's front. `node` (the crate) gives it storage, the host of the shards and a
//! clock, and gets a [`ShardClient`] for the doors.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, RwLock};
use std::time::Duration;

use dunlin_model::directory::{Directory, GroupEntry, NodeState, ReplicaRole};
use dunlin_model::id::{GroupId, GroupReplica, NodeId, ReplicaId, ShardId};
use dunlin_model::port::{
    AppliedSink, BoxFuture, Clock, DownlinkSink, EventLog, Replication, ShardClient, ShardServer, ShardStore,
    StoreError, Tracer,
};
use dunlin_storage::data_dir::DataDir;
use dunlin_storage::disk::Disk;
use dunlin_storage::journal::Journal;
use tokio::time::Instant;

use crate::admin::{DamagedReplica, GroupStatus, NodeStatus};
use crate::agreed_clock::AgreedClock;
use crate::brokers::Brokers;
use crate::config::{ClusterConfig, NodeIdentity, TimingError};
use crate::detector::Detector;
use crate::directory::DirectoryView;
use crate::forming::{self, Forming};
use crate::group::Group;
use crate::invocations::Invocations;
use crate::maintenance;
use crate::messages::{Request, Response};
use crate::no_shards::NoShards;
use crate::raft::snapshot::Spools;
use crate::replicas::Trouble;
use crate::room::{self, Room};
use crate::router::Router;
use crate::serve::Server;
use crate::transport::{Lane, Peers, TlsError};
use crate::witness::Witness;

/// Share of the journal's segments, the newest ones, whose entries stay when it fills up: a quarter. What a
/// follower misses that is away for as long as it takes to write them comes from the log.
const SEGMENTS_KEPT_SHARE: usize = 4;

/// How long a node may take to say who leads.
const LEADER_TIMEOUT: Duration = Duration::from_millis(200);
/// How long a clean stop waits for its leaderships to be taken over.
const HAND_OVER_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Time for one that was asked to take a leadership over, before another is asked.
const TAKE_OVER_WAIT: Duration = Duration::from_millis(200);

/// Makes the stores of a replica; `node` knows where they are.
pub trait Stores: Send + Sync + 'static {
    /// The state of a replica.
    fn state(&self, id: GroupReplica) -> Result<Arc<dyn ShardStore>, StoreError>;
    /// The events of a replica.
    fn events(&self, id: GroupReplica) -> Result<Arc<dyn EventLog>, StoreError>;
    /// The replicas that have left something here.
    fn replicas(&self) -> Result<Vec<GroupReplica>, StoreError>;
    /// Deletes the state and the events of a replica that does not run. Doing it twice is harmless.
    fn remove(&self, id: GroupReplica) -> Result<(), StoreError>;
    /// Where snapshots that arrive are kept until they are in place.
    fn disk(&self) -> Arc<dyn Disk>;
}

/// The shards of this node, as the cluster feeds them and its peers reach them.
pub trait ShardHost: ShardServer + AppliedSink {
    /// A replica of `shard` runs here from now on and proposes through `replication`.
    fn add_shard(&self, shard: ShardId, replication: Arc<dyn Replication>);
    /// The replica is gone. Resolves when its actors have ended.
    fn remove_shard(&self, shard: ShardId) -> BoxFuture<'_, ()>;
}

/// What a node needs to hold replicas.
#[derive(Clone)]
pub struct ShardParts {
    /// The log of all replicas.
    pub journal: Arc<Journal>,
    /// State and events of each replica.
    pub stores: Arc<dyn Stores>,
    /// The shards' actors.
    pub host: Arc<dyn ShardHost>,
}

/// Everything a cluster node needs from outside.
pub struct Parts {
    /// The node's durable identity and small files.
    pub data: Arc<DataDir>,
    /// `None` on a node without the shard role, which keeps no replica and no log.
    pub shard: Option<ShardParts>,
    /// Time; corrected where the peers' clocks contradict this machine's.
    pub clock: Arc<AgreedClock>,
    /// Where lanes run: the doors' runtime, apart from consensus.
    pub gateway_runtime: tokio::runtime::Handle,
}

/// Why a node cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The times contradict each other.
    #[error(transparent)]
    Timing(#[from] TimingError),
    /// The transport cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// What an earlier run left cannot be used.
    #[error("{0}")]
    Data(String),
}

/// What all rooms of this crate share.
pub(crate) struct Shared {
    pub(crate) node: NodeId,
    pub(crate) address: String,
    pub(crate) config: ClusterConfig,
    pub(crate) data: Arc<DataDir>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) view: Arc<DirectoryView>,
    /// Held by whoever asks for the directory as it is now.
    pub(crate) directory_turn: tokio::sync::Mutex<()>,
    pub(crate) detector: Detector,
    pub(crate) forming: Forming,
    /// Where nodes take readers over Kafka.
    pub(crate) brokers: Brokers,
    pub(crate) clock: Arc<AgreedClock>,
    pub(crate) shard: Option<ShardParts>,
    /// As `shard`, there or not.
    pub(crate) spools: Option<Spools>,
    /// As `shard`, there or not.
    pub(crate) room: Option<Arc<Room>>,
    pub(crate) groups: RwLock<BTreeMap<GroupId, Arc<Group>>>,
    /// Replicas that do not run here though they should.
    pub(crate) troubled: std::sync::Mutex<BTreeMap<GroupReplica, Trouble>>,
    pub(crate) starting: tokio::sync::Mutex<()>,
    gateway_runtime: tokio::runtime::Handle,
    loops: std::sync::Mutex<tokio::task::JoinSet<()>>,
    stopping: AtomicBool,
    /// Leaderships were to be handed over, and it took too long.
    gave_up: AtomicBool,
    tracer: OnceLock<Arc<dyn Tracer>>,
    /// The doors of this node, once they have attached.
    pub(crate) downlink: OnceLock<Arc<dyn DownlinkSink>>,
    /// What peers have this node's gateway ask.
    pub(crate) invocations: Invocations,
}

impl Shared {
    /// Who makes spans of followed frames, if anybody does.
    pub(crate) fn tracer(&self) -> Option<&Arc<dyn Tracer>> {
        self.tracer.get()
    }

    pub(crate) fn group(&self, group: GroupId) -> Option<Arc<Group>> {
        self.groups
            .read()
            .expect("no panic holds it")
            .get(&group)
            .cloned()
    }

    pub(crate) fn groups(&self) -> Vec<Arc<Group>> {
        self.groups
            .read()
            .expect("no panic holds it")
            .values()
            .cloned()
            .collect()
    }

    /// The group, if its replica here is the one that is meant.
    pub(crate) fn replica(&self, group: GroupId, replica: ReplicaId) -> Option<Arc<Group>> {
        self.group(group).filter(|group| group.id().replica == replica)
    }

    /// The shards of this node; a node without the shard role has none and says so.
    pub(crate) fn shards(&self) -> Arc<dyn ShardServer> {
        match &self.shard {
            Some(shard) => shard.host.clone(),
            None => Arc::new(NoShards),
        }
    }

    /// Whether `node` was removed from the cluster: nothing is taken from it any more.
    pub(crate) fn is_out(&self, node: NodeId) -> bool {
        let directory = self.view.load();
        directory
            .nodes
            .get(&node)
            .is_some_and(|entry| entry.state == NodeState::Removed)
    }

    /// Who hears what this node's replicas say, in a simulation.
    pub(crate) fn witness(&self) -> Option<&Arc<dyn Witness>> {
        self.config.simulated.as_ref()?.witness.as_ref()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub(crate) fn spawn_gateway(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.gateway_runtime.spawn(task);
    }

    pub(crate) fn spawn_loop(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.loops.lock().expect("no panic holds it").spawn(task);
    }

    /// This node belongs to the cluster of `directory` from now on.
    pub(crate) async fn join(&self, directory: Directory) {
        if let Err(error) = self.data.bind_cluster(&directory.cluster_id) {
            tracing::error!(%error, "cannot join the cluster");
            return;
        }
        self.peers.tag().set(&directory.cluster_id);
        self.view.offer(&directory);
        forming::remember(self);
    }

    /// The node that leads `group`, by this node's own replica or by asking the others'.
    pub(crate) async fn ask_leader(&self, group: GroupId) -> Option<NodeId> {
        let now = self.clock.monotonic_ms();
        if let Some(leader) = self.group(group).and_then(|group| group.leader_node())
            && (leader == self.node || !self.detector.suspects(leader, now))
        {
            return Some(leader);
        }
        let directory = self.view.get();
        let mut latest: Option<(u64, NodeId)> = None;
        for replica in directory.groups.get(&group)?.replicas.values() {
            if replica.node == self.node || self.detector.suspects(replica.node, now) {
                continue;
            }
            let answer = self
                .peers
                .call(
                    replica.node,
                    Lane::Control,
                    Request::Leader(group),
                    LEADER_TIMEOUT,
                )
                .await;
            if let Ok((Response::Leader(found), _)) = answer {
                latest = latest.max(found);
            }
        }
        latest.map(|(_, node)| node)
    }

    /// The replicas that keep more than half of the journal's segments from being used again.
    pub(crate) fn pins_of_journal(&self) -> Vec<GroupReplica> {
        let half = self.config.journal_segments_max / 2;
        let pinning = self.shard.iter().flat_map(|shard| shard.journal.pinning());
        pinning
            .filter(|(_, segments)| *segments > half)
            .map(|(id, _)| id)
            .collect()
    }

    /// The first entry of a group that stays when the journal is too full; `None` if all its entries are old.
    pub(crate) fn first_kept_when_full(&self, id: GroupReplica) -> Option<u64> {
        let newest = (self.config.journal_segments_max / SEGMENTS_KEPT_SHARE).max(1);
        let shard = self.shard.as_ref()?;
        shard.journal.first_in_newest(id, newest)
    }

    /// Resolves when `node` is suspected: what is asked of it then need not be waited for.
    pub(crate) async fn suspected(&self, node: NodeId) {
        while !self.detector.suspects(node, self.clock.monotonic_ms()) {
            tokio::time::sleep(Duration::from_millis(self.config.timing.ping_ms)).await;
        }
    }

    pub(crate) fn status(&self) -> NodeStatus {
        let groups = self
            .groups()
            .iter()
            .map(|group| {
                let sight = group.sight();
                let status = GroupStatus {
                    replica: group.id().replica.0,
                    term: sight.term,
                    leads: sight.leads,
                    applied: sight.applied,
                    last: sight.last,
                    last_term: group.log().state().last.map_or(0, |at| at.term),
                    behind: group.behind().into_iter().map(|id| id.0).collect(),
                };
                (group.id().group.0, status)
            })
            .collect();
        let troubled = self.troubled.lock().expect("no panic holds it").clone();
        let damaged = troubled.into_iter().filter_map(|(id, trouble)| match trouble {
            Trouble::Damaged(reason) => Some(DamagedReplica {
                group: id.group.0,
                replica: id.replica.0,
                reason,
            }),
            Trouble::Failed(_) => None,
        });
        let simulated = self.config.simulated.as_ref();
        NodeStatus {
            groups,
            damaged: damaged.collect(),
            pid: simulated.map_or_else(std::process::id, |simulated| simulated.pid),
        }
    }
}

/// A running cluster node.
pub struct Cluster {
    shared: Arc<Shared>,
    router: Arc<Router>,
}

impl Cluster {
    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Starts on the current runtime, which should be consensus's own. Returns at once; use
    /// [`ready`](Self::ready) to wait until the node can serve.
    pub async fn start(config: ClusterConfig, parts: Parts) -> Result<Cluster, StartError> {
        config.timing.validate()?;
        let node = parts.data.node_id();
        let peers = Peers::bind(node, (config.listen, config.simulated.clone()), &config.identity)?;
        let address = config
            .advertise
            .clone()
            .unwrap_or_else(|| peers.local_address().to_string());
        let room = parts.shard.as_ref().map(|shard| {
            Room::new(
                shard.journal.clone(),
                config.journal_segments_max,
                shard.stores.disk(),
            )
        });
        let disk = parts.shard.as_ref().map(|shard| shard.stores.disk());
        let spools = disk
            .map(Spools::new)
            .transpose()
            .map_err(|error| StartError::Data(error.to_string()))?;
        let shared = Arc::new(Shared {
            node,
            address,
            detector: Detector::new(config.timing.suspect_ms),
            config,
            data: parts.data,
            peers: peers.clone(),
            view: DirectoryView::new(),
            directory_turn: tokio::sync::Mutex::default(),
            forming: Forming::default(),
            brokers: Brokers::default(),
            clock: parts.clock,
            shard: parts.shard,
            spools,
            room,
            groups: RwLock::default(),
            troubled: std::sync::Mutex::default(),
            starting: tokio::sync::Mutex::default(),
            gateway_runtime: parts.gateway_runtime,
            loops: std::sync::Mutex::default(),
            stopping: AtomicBool::new(false),
            gave_up: AtomicBool::new(false),
            tracer: OnceLock::new(),
            downlink: OnceLock::new(),
            invocations: Invocations::default(),
        });
        let remembered = forming::remembered(&shared).map_err(|error| StartError::Data(error.to_string()))?;
        if let Some(remembered) = remembered {
            for (peer, address) in &remembered.peers {
                peers.learn(*peer, address);
            }
            if remembered.directory.is_formed() {
                peers.tag().set(&remembered.directory.cluster_id);
            }
            shared.view.offer(&remembered.directory);
        }
        let router = Router::new(shared.clone());
        peers.serve(Arc::new(Server(shared.clone())));
        maintenance::start(&shared, &router);
        shared.spawn_loop(room::watch(shared.clone()));
        let forming = shared.clone();
        shared.spawn_loop(async move { forming.forming.run(&forming).await });
        Ok(Cluster { shared, router })
    }

    /// What the doors see.
    pub fn client(&self) -> Arc<dyn ShardClient> {
        self.router.clone()
    }

    /// Names who makes spans of followed frames. Called once at most, before the doors open.
    pub fn follow_with(&self, tracer: Arc<dyn Tracer>) {
        assert!(self.shared.tracer.set(tracer).is_ok(), "there is one tracer");
    }

    /// Shows `identity` to peers from now on, and dials with it. Connections that are open stay.
    pub fn renew_identity(&self, identity: &NodeIdentity) -> Result<(), TlsError> {
        self.shared.peers.renew(identity)
    }

    /// Nodes of the directory that are silent just now, as far as this node hears.
    pub fn silent_nodes(&self) -> Vec<NodeId> {
        let now = self.shared.clock.monotonic_ms();
        let others = self.shared.view.get().nodes.keys().copied().collect::<Vec<_>>();
        let silent = |node: &NodeId| *node != self.shared.node && !self.shared.detector.is_alive(*node, now);
        others.into_iter().filter(silent).collect()
    }

    /// Groups that most replicas of are on silent nodes, as far as this node hears: they neither take nor
    /// answer anything.
    pub fn groups_without_majority(&self) -> Vec<GroupId> {
        let silent = self.silent_nodes();
        let directory = self.shared.view.get();
        let groups = directory.groups.iter();
        let is_lost = |entry: &GroupEntry| {
            let voters = || {
                entry
                    .replicas
                    .values()
                    .filter(|place| place.role != ReplicaRole::Learner)
            };
            let heard = voters().filter(|place| !silent.contains(&place.node)).count();
            heard * 2 <= voters().count()
        };
        groups
            .filter(|(_, entry)| is_lost(entry))
            .map(|(group, _)| *group)
            .collect()
    }

    /// This node.
    pub fn node_id(&self) -> NodeId {
        self.shared.node
    }

    /// Where peers reach this node.
    pub fn address(&self) -> &str {
        &self.shared.address
    }

    /// How this node's replicas are.
    pub fn status(&self) -> NodeStatus {
        self.shared.status()
    }

    /// Resolves when the cluster is formed, the directory confirmed, and every shard has a leader
    /// that this node can reach.
    pub async fn ready(&self) {
        let mut versions = self.shared.view.watch();
        while !self.shared.view.get().is_formed() {
            if versions.changed().await.is_err() {
                return;
            }
        }
        let directory = self.shared.view.get();
        for shard in directory.shards() {
            let query = dunlin_model::command::Query::Shard(shard);
            let consistency = dunlin_model::command::Consistency::Leader;
            while self.router.query(query.clone(), consistency).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        while !self.router.is_fresh() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Gives every leadership to a caught-up follower, and goes on otherwise. A node that is about to stop does so
    /// while its devices are still connected: once they look for another gateway, that keeps everybody busy.
    pub async fn hand_over(&self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        let handed = tokio::time::timeout(HAND_OVER_TIMEOUT, hand_over_all(&self.shared)).await;
        if handed.is_err() {
            self.shared.gave_up.store(true, Ordering::Relaxed);
            tracing::warn!("not every leadership was taken over in time");
        }
    }

    /// Leaves in order: leaderships that are left are handed over first, then the replicas stop. Not a removal.
    pub async fn stop(&self) {
        self.shared.loops.lock().expect("no panic holds it").abort_all();
        // Whoever could not take over before will not now, and meanwhile nobody serves.
        if !self.shared.gave_up.load(Ordering::Relaxed) {
            self.hand_over().await;
        }
        self.router.stop();
        for group in self.shared.groups() {
            group.stop().await;
        }
        self.shared.peers.close();
        if let Some(shard) = &self.shared.shard {
            shard.journal.stop();
        }
    }
}

/// Asks a caught-up follower of each led group to take over, until none is led. Whoever was asked has time for it: two
/// that are asked campaign against each other.
async fn hand_over_all(shared: &Arc<Shared>) {
    let mut asked_at: BTreeMap<GroupId, Instant> = BTreeMap::new();
    loop {
        let led: Vec<Arc<Group>> = shared
            .groups()
            .into_iter()
            .filter(|group| group.sight().leads)
            .collect();
        let directory = shared.view.get();
        let now = shared.clock.monotonic_ms();
        let mut asked = false;
        for group in led {
            let id = group.id().group;
            let Some(entry) = directory.groups.get(&id) else {
                continue;
            };
            if asked_at.get(&id).is_some_and(|at| at.elapsed() < TAKE_OVER_WAIT) {
                asked = true;
                continue;
            }
            for (replica, place) in &entry.replicas {
                let other = *replica != group.id().replica && shared.detector.is_alive(place.node, now);
                if other {
                    asked = true;
                    if group.hand_over(*replica).await {
                        asked_at.insert(id, Instant::now());
                        break;
                    }
                }
            }
        }
        if !asked {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
