//! What an operator sees of the cluster, and may ask of it. JSON in and out, so that the door in
//! front of it need not know the questions.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dunlin_model::directory::{NodeState, Role};
use dunlin_model::id::{GroupId, NodeId};
use dunlin_model::port::QueryError;
use serde::{Deserialize, Serialize};

use crate::messages::{Request, Response};
use crate::node::Shared;
use crate::transport::Lane;

/// How long a node may take to say how it is.
const STATUS_TIMEOUT: Duration = Duration::from_millis(1_000);

/// What may be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub enum AdminRequest {
    /// How the cluster is: [`ClusterStatus`].
    Status,
}

/// How one node is, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its replicas.
    pub groups: BTreeMap<u32, GroupStatus>,
    /// Its process.
    pub pid: u32,
}

/// How one replica is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Its replica id.
    pub replica: u64,
    /// Its term.
    pub term: u64,
    /// Whether it leads.
    pub leads: bool,
    /// The last entry it has applied.
    pub applied: u64,
    /// The last entry it has.
    pub last: u64,
}

/// A node in [`ClusterStatus`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeLine {
    /// Its id, sixteen hexadecimal digits.
    pub node: String,
    /// Where its peers reach it.
    pub address: String,
    /// What it does.
    pub roles: Vec<Role>,
    /// How the cluster regards it.
    pub state: NodeState,
    /// Whether it answered just now.
    pub alive: bool,
    /// Groups that it leads.
    pub leads: u32,
    /// Groups that it has a replica of.
    pub replicas: u32,
    /// Its process, if it answered.
    pub pid: Option<u32>,
}

/// A group in [`ClusterStatus`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupLine {
    /// The group: 0 is the directory, `n + 1` is shard `n`.
    pub group: u32,
    /// The node that leads it, if one says so.
    pub leader: Option<String>,
    /// The leader's term.
    pub term: u64,
    /// Replicas that should be there and those that answered.
    pub replicas: (u32, u32),
    /// Last applied entry at the leader.
    pub applied: u64,
}

/// How the cluster is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The cluster's id.
    pub cluster_id: String,
    /// Version of the directory at the answering node.
    pub directory_version: u64,
    /// Number of shards.
    pub shards: u32,
    /// Replicas that each group should have.
    pub replication_factor: u32,
    /// `healthy`, `degraded` (a replica is missing) or `unavailable` (a group has no leader).
    pub health: String,
    /// The nodes.
    pub nodes: Vec<NodeLine>,
    /// The groups.
    pub groups: Vec<GroupLine>,
}

/// Answers one request.
pub(crate) async fn handle(shared: Arc<Shared>, request: Bytes) -> Result<Bytes, QueryError> {
    let request: AdminRequest = serde_json::from_slice(&request)
        .map_err(|error| QueryError::Store(format!("read request: {error}")))?;
    match request {
        AdminRequest::Status => {
            let status = status(&shared).await;
            Ok(serde_json::to_vec(&status).expect("status is plain data").into())
        }
    }
}

async fn status(shared: &Arc<Shared>) -> ClusterStatus {
    let directory = shared.view.get();
    let addresses: BTreeMap<NodeId, String> = shared.peers.known().into_iter().collect();
    let mut answers: BTreeMap<NodeId, NodeStatus> = BTreeMap::new();
    for node in directory.nodes.keys() {
        if *node == shared.node {
            answers.insert(*node, shared.status());
            continue;
        }
        let answer = shared
            .peers
            .call(*node, Lane::Control, Request::Status, STATUS_TIMEOUT)
            .await;
        if let Ok((Response::Status(status), _)) = answer {
            answers.insert(*node, *status);
        }
    }
    let nodes = directory
        .nodes
        .iter()
        .map(|(node, entry)| {
            let answer = answers.get(node);
            let own = (*node == shared.node).then(|| shared.address.clone());
            NodeLine {
                node: node.to_string(),
                address: own.or_else(|| addresses.get(node).cloned()).unwrap_or_default(),
                roles: entry.roles.clone(),
                state: entry.state,
                alive: answer.is_some(),
                leads: answer.map_or(0, |status| {
                    status.groups.values().filter(|group| group.leads).count() as u32
                }),
                replicas: answer.map_or(0, |status| status.groups.len() as u32),
                pid: answer.map(|status| status.pid),
            }
        })
        .collect();
    let groups: Vec<GroupLine> = directory
        .groups
        .keys()
        .map(|group| group_line(*group, &directory, &answers))
        .collect();
    let health = if groups.iter().any(|group| group.leader.is_none()) {
        "unavailable"
    } else if groups.iter().any(|group| group.replicas.0 > group.replicas.1) {
        "degraded"
    } else {
        "healthy"
    };
    ClusterStatus {
        cluster_id: directory.cluster_id.clone(),
        directory_version: directory.version,
        shards: directory.shard_count,
        replication_factor: directory.replication_factor,
        health: health.to_owned(),
        nodes,
        groups,
    }
}

fn group_line(
    group: GroupId,
    directory: &dunlin_model::directory::Directory,
    answers: &BTreeMap<NodeId, NodeStatus>,
) -> GroupLine {
    // A deposed leader that has not heard yet shows a lower term.
    let leader = answers
        .iter()
        .filter_map(|(node, status)| Some((node, status.groups.get(&group.0)?)))
        .filter(|(_, status)| status.leads)
        .max_by_key(|(_, status)| status.term);
    let answered = answers
        .values()
        .filter(|status| status.groups.contains_key(&group.0))
        .count() as u32;
    let wanted = directory
        .groups
        .get(&group)
        .map_or(0, |entry| entry.replicas.len()) as u32;
    GroupLine {
        group: group.0,
        leader: leader.map(|(node, _)| node.to_string()),
        term: leader.map_or(0, |(_, status)| status.term),
        replicas: (wanted, answered),
        applied: leader.map_or(0, |(_, status)| status.applied),
    }
}
