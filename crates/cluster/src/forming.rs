//! How nodes become a cluster: who is there, one set of founders, one layout.
//!
//! Forming takes two phases with a durable promise ([`crate::promise`]): a node promises itself to one
//! set of founders and to no other; the founder with the smallest id lays the cluster out when all have
//! promised. A node that belongs to a cluster never forms; one that meets a cluster asks a member to
//! be let in, and its certificate is what entitles it to that. Addresses are told from node to node
//! and are no part of what is agreed on.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dunlin_model::alarm::Alarm;
use dunlin_model::directory::{Directory, DirectoryCommand, NodeEntry, NodeState, Role};
use dunlin_model::id::NodeId;
use dunlin_model::port::Clock as _;
use serde::{Deserialize, Serialize};

use crate::entropy;
use crate::messages::{Hello, Request, Response};
use crate::node::Shared;
use crate::policies;
use crate::promise::{Given, Promise};
use crate::transport::Lane;

/// Pause between two rounds of asking around, while forming.
const ASK_AGAIN: Duration = Duration::from_millis(100);
/// How long a peer may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1_000);
/// Nodes of other clusters that are spoken of.
const STRANGERS_MAX: usize = 64;
/// How long a member may take to have a node let in.
const JOIN_TIMEOUT: Duration = Duration::from_secs(6);
/// Where the last seen directory and addresses stand.
const CLUSTER_FILE: &str = "cluster.json";

/// What a node keeps of its cluster across a restart.
#[derive(Debug, Clone, Serialize, Deserialize, Default)]
pub(crate) struct Remembered {
    /// The last directory it saw.
    pub(crate) directory: Directory,
    /// Where its peers were.
    pub(crate) peers: Vec<(NodeId, String)>,
}

/// The state of forming on this node.
#[derive(Default)]
pub(crate) struct Forming {
    promise: Promise,
    /// The cluster that let this node in, while it has not heard yet how that is laid out.
    joining: Mutex<Option<String>>,
    /// Shard nodes without a cluster that were seen.
    seen: Mutex<BTreeMap<NodeId, Hello>>,
    /// Nodes of other clusters that have called, and were spoken of.
    strangers: Mutex<BTreeSet<NodeId>>,
    /// Who answered at which address of a seed, so that it need not be dialled again while it lives.
    found: Mutex<BTreeMap<SocketAddr, NodeId>>,
}

/// Why a cluster cannot be remembered.
#[derive(Debug, thiserror::Error)]
#[error("read {CLUSTER_FILE}: {0}")]
pub(crate) struct RememberError(String);

/// Reads what an earlier run of this node knew of its cluster.
pub(crate) fn remembered(shared: &Shared) -> Result<Option<Remembered>, RememberError> {
    let bytes = shared
        .data
        .read(CLUSTER_FILE)
        .map_err(|error| RememberError(error.to_string()))?;
    bytes
        .map(|bytes| serde_json::from_slice(&bytes).map_err(|error| RememberError(error.to_string())))
        .transpose()
}

/// Writes what the next run should know.
pub(crate) fn remember(shared: &Shared) {
    let remembered = Remembered {
        directory: (*shared.view.get()).clone(),
        peers: shared.peers.known(),
    };
    let bytes = serde_json::to_vec(&remembered).expect("the directory is plain data");
    if let Err(error) = shared.data.write(CLUSTER_FILE, &bytes) {
        Alarm::FileFailed.raise();
        tracing::error!(%error, "cannot write {CLUSTER_FILE}");
    }
}

impl Forming {
    fn hello(shared: &Shared) -> Hello {
        Hello {
            node: shared.node,
            address: shared.address.clone(),
            roles: shared.config.roles.clone(),
            kafka: shared.config.kafka.clone(),
            cluster_id: shared.view.get().cluster_id.clone(),
            rank: shared.view.get().rank(),
            peers: shared.peers.known(),
        }
    }

    /// A peer introduces itself.
    pub(crate) fn on_hello(&self, shared: &Shared, hello: Hello) -> Hello {
        self.note(shared, hello);
        Self::hello(shared)
    }

    fn note(&self, shared: &Shared, hello: Hello) {
        let own_cluster = &shared.view.get().cluster_id;
        if !own_cluster.is_empty() && !hello.cluster_id.is_empty() && *own_cluster != hello.cluster_id {
            let mut strangers = self.strangers.lock().expect("no panic holds it");
            if strangers.len() < STRANGERS_MAX && strangers.insert(hello.node) {
                tracing::warn!(node = %hello.node, cluster = hello.cluster_id, "a node of another cluster calls");
            }
            return;
        }
        shared.peers.learn(hello.node, &hello.address);
        shared.brokers.learn(hello.node, hello.kafka.clone());
        for (node, address) in &hello.peers {
            // What others say does not replace what a node says of itself.
            if !shared.peers.knows(*node) {
                shared.peers.learn(*node, address);
            }
        }
        let mut seen = self.seen.lock().expect("no panic holds it");
        if hello.roles.contains(&Role::Shard) && hello.cluster_id.is_empty() {
            seen.insert(hello.node, hello);
        } else {
            seen.remove(&hello.node);
        }
    }

    /// Somebody wants to found a cluster with exactly `nodes`.
    pub(crate) fn on_promise(&self, shared: &Shared, nodes: &[NodeId]) -> bool {
        !shared.view.get().is_formed()
            && nodes.contains(&shared.node)
            && self.promise.give(&shared.data, nodes)
    }

    /// Whether this node, which asked for a promise to `nodes`, still wants that set.
    pub(crate) fn on_stands_by(&self, shared: &Shared, nodes: &[NodeId]) -> bool {
        let promised = self.promise.given(&shared.data);
        shared.view.get().is_formed() || promised.is_some_and(|promised| promised.set == nodes)
    }

    /// Frees this node from a set that its founder has given up.
    async fn free_itself(&self, shared: &Arc<Shared>) {
        let Some(given) = self.promise.given(&shared.data) else {
            return;
        };
        let founder = given.set[0];
        if founder == shared.node {
            return;
        }
        let asked = Request::StandsBy(given.set.clone());
        let answer = shared
            .peers
            .call(founder, Lane::Control, asked, ANSWER_TIMEOUT)
            .await;
        if matches!(answer, Ok((Response::StandsBy(false), _))) {
            self.promise.release(&shared.data, &given);
        }
    }

    /// Gives up a set of its own that this node does not want any more, or that somebody refused.
    fn give_up(&self, shared: &Shared, wanted: Option<&[NodeId]>) {
        let given = self.promise.given(&shared.data);
        let is_own = |given: &Given| given.set[0] == shared.node && Some(&given.set[..]) != wanted;
        if let Some(given) = given.filter(is_own) {
            self.promise.release(&shared.data, &given);
        }
    }

    /// The cluster is laid out.
    pub(crate) async fn on_form(&self, shared: &Arc<Shared>, directory: Directory) {
        if shared.view.get().is_formed() || !directory.nodes.contains_key(&shared.node) {
            return;
        }
        shared.join(directory).await;
    }

    /// Asks around until this node belongs to a cluster.
    pub(crate) async fn run(&self, shared: &Arc<Shared>) {
        while !shared.view.get().is_formed() && !shared.is_stopping() {
            let formed = self.ask_around(shared).await;
            if let Some(member) = formed {
                self.adopt(shared, member).await;
            } else {
                self.try_found(shared).await;
            }
            if !shared.view.get().is_formed() {
                tokio::time::sleep(ASK_AGAIN).await;
            }
        }
    }

    /// Says hello to everyone; a member of a cluster among them, if there is one.
    pub(crate) async fn ask_around(&self, shared: &Arc<Shared>) -> Option<NodeId> {
        let mut member = None;
        let hello = Self::hello(shared);
        for address in resolve(&shared.config.seeds).await {
            if address == shared.peers.local_address() || self.is_known(shared, address) {
                continue;
            }
            let answer = shared
                .peers
                .call_address(address, Request::Hello(hello.clone()), ANSWER_TIMEOUT)
                .await;
            match answer {
                Ok((node, Response::Hello(answer))) => {
                    self.found
                        .lock()
                        .expect("no panic holds it")
                        .insert(address, node);
                    if node != shared.node {
                        member = member.or(self.is_to_join(&answer).then_some(node));
                        self.note(shared, answer);
                    }
                }
                Ok(_) => {}
                Err(error) => tracing::debug!(%error, "a seed does not answer"),
            }
        }
        for (node, _) in shared.peers.known() {
            let asked = Request::Hello(hello.clone());
            let answer = shared
                .peers
                .call(node, Lane::Control, asked, ANSWER_TIMEOUT)
                .await;
            if let Ok((Response::Hello(answer), _)) = answer {
                member = member.or(self.is_to_join(&answer).then_some(node));
                let is_ahead = answer.rank > shared.view.get().rank();
                self.note(shared, answer);
                if is_ahead && shared.view.get().is_formed() {
                    self.catch_up(shared, node).await;
                }
            }
        }
        member
    }

    /// Whether a node belongs to a cluster that this one may join: any, or the one that let it in.
    fn is_to_join(&self, hello: &Hello) -> bool {
        let joining = self.joining.lock().expect("no panic holds it");
        !hello.cluster_id.is_empty()
            && joining
                .as_ref()
                .is_none_or(|cluster| *cluster == hello.cluster_id)
    }

    /// Whether the node that answered at `address` is in touch, or is this one.
    fn is_known(&self, shared: &Shared, address: SocketAddr) -> bool {
        let found = self
            .found
            .lock()
            .expect("no panic holds it")
            .get(&address)
            .copied();
        found.is_some_and(|node| {
            node == shared.node || shared.detector.is_alive(node, shared.clock.monotonic_ms())
        })
    }

    /// Takes over the copy of a peer that is ahead: the directory may have moved from all the nodes on
    /// which this one would look for it.
    async fn catch_up(&self, shared: &Arc<Shared>, peer: NodeId) {
        if let Some(directory) = ask_directory(shared, peer).await
            && directory.cluster_id == shared.view.get().cluster_id
        {
            shared.view.offer(&directory);
        }
    }

    /// Takes over the directory of the cluster that `member` belongs to; asks to be let in if this node
    /// is not in it.
    async fn adopt(&self, shared: &Arc<Shared>, member: NodeId) {
        let Some(directory) = ask_directory(shared, member).await else {
            return;
        };
        if directory.nodes.contains_key(&shared.node) {
            shared.join(directory).await;
            return;
        }
        let roles = shared.config.roles.clone();
        let answer = shared
            .peers
            .call(member, Lane::Control, Request::Join { roles }, JOIN_TIMEOUT)
            .await;
        match answer {
            Ok((Response::Joined(Ok(())), _)) => {
                tracing::info!(cluster = directory.cluster_id, "let into the cluster");
                *self.joining.lock().expect("no panic holds it") = Some(directory.cluster_id);
            }
            Ok((Response::Joined(Err(reason)), _)) => {
                tracing::info!(reason, "not let into the cluster yet");
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "a member does not answer"),
        }
    }

    /// `node` wants to be a node of this cluster.
    pub(crate) async fn on_join(
        &self,
        shared: &Arc<Shared>,
        node: NodeId,
        roles: Vec<Role>,
    ) -> Result<(), String> {
        let known = shared
            .view
            .get()
            .nodes
            .get(&node)
            .map(|entry| entry.roles.clone());
        if known.as_ref() == Some(&roles) {
            return Ok(());
        }
        let put = DirectoryCommand::NodePut { node, roles };
        let changed = shared.change_directory(put).await;
        tracing::info!(%node, ok = changed.is_ok(), "a node asked to join");
        changed.map(|_| ()).map_err(|error| error.to_string())
    }

    /// Founds the cluster, if enough founders are there, this is the one to do it, and all promise.
    async fn try_found(&self, shared: &Arc<Shared>) {
        let expect = shared.config.expect;
        if expect == 0 || !shared.config.roles.contains(&Role::Shard) {
            return;
        }
        let mut founders: BTreeMap<NodeId, Vec<Role>> = {
            let seen = self.seen.lock().expect("no panic holds it");
            seen.values()
                .map(|hello| (hello.node, hello.roles.clone()))
                .collect()
        };
        founders.insert(shared.node, shared.config.roles.clone());
        while founders.len() > expect {
            founders.pop_last();
        }
        let set: Vec<NodeId> = founders.keys().copied().collect();
        let is_mine = founders.len() >= expect && set[0] == shared.node;
        self.give_up(shared, is_mine.then_some(&set[..]));
        if !is_mine || !self.on_promise(shared, &set) {
            self.free_itself(shared).await;
            return;
        }
        for node in set.iter().filter(|node| **node != shared.node) {
            let asked = Request::Promise(set.clone());
            let answer = shared
                .peers
                .call(*node, Lane::Control, asked, ANSWER_TIMEOUT)
                .await;
            match answer {
                Ok((Response::Promised(true), _)) => {}
                Ok(_) => {
                    tracing::info!(%node, "a founder has promised itself to others");
                    self.give_up(shared, None);
                    return;
                }
                Err(error) => {
                    tracing::info!(%node, %error, "a founder has not promised yet");
                    return;
                }
            }
        }
        let directory = lay_out(shared, founders);
        tracing::info!(
            cluster = directory.cluster_id,
            founders = set.len(),
            "the cluster is formed"
        );
        // Founders that miss this learn it from any member they ask.
        shared.join(directory.clone()).await;
        for node in set.iter().filter(|node| **node != shared.node) {
            let asked = Request::Form(Box::new(directory.clone()));
            if let Err(error) = shared
                .peers
                .call(*node, Lane::Control, asked, ANSWER_TIMEOUT)
                .await
            {
                tracing::info!(%node, %error, "a founder did not hear that the cluster is formed");
            }
        }
    }
}

async fn ask_directory(shared: &Shared, peer: NodeId) -> Option<Directory> {
    let known = shared.view.get().rank();
    let asked = Request::Directory { known };
    let answer = shared
        .peers
        .call(peer, Lane::Control, asked, ANSWER_TIMEOUT)
        .await;
    match answer {
        Ok((Response::Directory { newer, .. }, _)) => newer.map(|directory| *directory),
        _ => None,
    }
}

fn lay_out(shared: &Shared, founders: BTreeMap<NodeId, Vec<Role>>) -> Directory {
    // One node alone keeps one replica, and more only when it is told to.
    let replication_factor = match founders.len() {
        1 => 1,
        _ => shared.config.replication_factor,
    };
    let nodes = founders
        .into_iter()
        .map(|(node, roles)| {
            (
                node,
                NodeEntry {
                    roles,
                    state: NodeState::Active,
                },
            )
        })
        .collect();
    let shape = (shared.config.shard_count, replication_factor);
    Directory::lay_out(
        format!("{:032x}", entropy::draw::<u128>()),
        nodes,
        shape,
        policies::draw_first(),
    )
}

async fn resolve(seeds: &[String]) -> BTreeSet<SocketAddr> {
    let mut addresses = BTreeSet::new();
    for seed in seeds {
        match tokio::net::lookup_host(seed).await {
            Ok(found) => addresses.extend(found),
            Err(error) => tracing::debug!(seed, %error, "cannot resolve a seed"),
        }
    }
    addresses
}
