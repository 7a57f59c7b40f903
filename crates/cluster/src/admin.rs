//! What an operator sees of the cluster, and may ask of it. JSON in and out, so that the door in
//! front of it need not know the questions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dunlin_model::directory::{
    Directory, DirectoryCommand, GroupEntry, NodeState, Origin, ReplicaEntry, Right, Role, placement,
};
use dunlin_model::id::{GroupId, NodeId, ReplicaId};
use dunlin_model::port::{Clock as _, QueryError};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

pub use crate::authorities::AuthorityLine;
use crate::changes::ChangeError;
use crate::entropy;
use crate::messages::{Request, Response};
use crate::node::Shared;
pub use crate::policies::{PolicyKey, PolicyLine};
use crate::recover;
#[cfg(doc)]
use crate::recover::Recovery;
use crate::transport::Lane;
use crate::{authorities, policies};

/// How long a node may take to say how it is.
const STATUS_TIMEOUT: Duration = Duration::from_millis(1_000);

/// Minutes that a join token may be good for.
const TOKEN_MINUTES_MAX: u32 = 24 * 60;

/// What may be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "kebab-case", deny_unknown_fields)]
pub enum AdminRequest {
    /// How the cluster is: [`ClusterStatus`].
    Status,
    /// Move everything off a node, so that it can be removed.
    Drain {
        /// Its id, or enough of the beginning.
        node: String,
        /// Even if groups are left with fewer replicas than they should have.
        #[serde(default)]
        force: bool,
    },
    /// Let a node that was draining take replicas again.
    Undrain {
        /// Its id, or enough of the beginning.
        node: String,
    },
    /// Take a node out for good: one that is empty, or dead.
    Remove {
        /// Its id, or enough of the beginning.
        node: String,
    },
    /// Issue a token that lets one node join: [`JoinToken`].
    Token {
        /// Minutes that it is good for.
        minutes: u32,
    },
    /// Use a token. Whoever shows it is given what a node needs.
    UseToken {
        /// Its secret.
        secret: String,
    },
    /// Restart groups whose majority is gone for good from what is left: [`Recovery`].
    Recover {
        /// Do it; otherwise it is only said what would be done.
        #[serde(default)]
        accept_loss: bool,
    },
    /// The authorities whose certificates devices may show: a list of [`AuthorityLine`].
    Authorities,
    /// Let devices show certificates of one more, or of another in place of it.
    PutAuthority {
        /// Its name here.
        name: String,
        /// Its certificate as PEM.
        certificate: String,
    },
    /// Let devices no longer show certificates of one. Who is connected by one of them is cut off within two seconds.
    RemoveAuthority {
        /// Its name here.
        name: String,
    },
    /// The hub's shared access policies with their keys: a map of [`PolicyLine`] by name.
    Policies,
    /// One more policy, with new keys.
    CreatePolicy {
        /// Its name.
        name: String,
        /// What it grants.
        rights: Vec<Right>,
    },
    /// Another key for a policy. What was opened with one that goes ends within two seconds.
    RenewPolicyKey {
        /// Its name.
        name: String,
        /// Which key.
        key: PolicyKey,
    },
    /// One policy less. What was opened with its keys ends within two seconds.
    RemovePolicy {
        /// Its name.
        name: String,
    },
    /// How many replicas each group should have.
    SetReplication {
        /// 1, 3, 5 or 7.
        replicas: u32,
    },
}

/// What lets one node join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinToken {
    /// Opens the door once.
    pub secret: String,
    /// Until when, in milliseconds since 1970.
    pub expires_ms: u64,
    /// Where the nodes are: `host:port` each.
    pub seeds: Vec<String>,
}

/// The answer to a request that changed something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    /// The node that it was about, if it was about one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node: Option<String>,
    /// Version of the directory when it was done.
    pub directory_version: u64,
}

/// How one node is, as it says itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeStatus {
    /// Its replicas.
    pub groups: BTreeMap<u32, GroupStatus>,
    /// Replicas that it refuses to serve.
    pub damaged: Vec<DamagedReplica>,
    /// Its process.
    pub pid: u32,
}

/// A replica that a node refuses to serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DamagedReplica {
    /// Its group.
    pub group: u32,
    /// Its replica id.
    pub replica: u64,
    /// Why.
    pub reason: String,
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
    /// The last entry it has, and its term.
    pub last: u64,
    /// See [`last`](Self::last).
    pub last_term: u64,
    /// As leader: members that lack more than a few entries of its log, or can be filled by a snapshot alone.
    pub behind: BTreeSet<u64>,
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
    /// The last entry that it has applied, by group.
    #[serde(default)]
    pub applied: BTreeMap<u32, u64>,
    /// Its process, if it answered.
    pub pid: Option<u32>,
    /// Replicas that it refuses to serve.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub damaged: Vec<DamagedReplica>,
}

impl NodeLine {
    /// Whether replicas may be placed on it.
    pub fn takes_replicas(&self) -> bool {
        self.state == NodeState::Active && self.roles.contains(&Role::Shard)
    }
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
    /// Replicas that should be there, and those that answered and have all but a few entries of the log.
    pub replicas: (u32, u32),
    /// Whether its members are changing.
    pub moving: bool,
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
    /// `healthy`, `moving` (members change), `degraded` (a group has fewer replicas than it should) or
    /// `unavailable` (a group has no leader).
    pub health: String,
    /// The nodes.
    pub nodes: Vec<NodeLine>,
    /// The groups.
    pub groups: Vec<GroupLine>,
}

/// Answers one request.
pub(crate) async fn handle(shared: Arc<Shared>, request: Bytes) -> Result<Bytes, QueryError> {
    let request: AdminRequest = serde_json::from_slice(&request)
        .map_err(|error| QueryError::Refused(format!("read request: {error}")))?;
    match request {
        AdminRequest::Status => answer(&status(&shared).await),
        AdminRequest::Drain { node, force } => {
            let directory = shared.directory_now().await?;
            let node = find_node(&directory, &node)?;
            if let Some(reason) = placement::drain_leaves_too_few(&directory, node).filter(|_| !force) {
                return Err(QueryError::Refused(reason));
            }
            set_state(&shared, node, NodeState::Draining).await
        }
        AdminRequest::Undrain { node } => {
            let node = find_node(&*shared.directory_now().await?, &node)?;
            set_state(&shared, node, NodeState::Active).await
        }
        AdminRequest::Remove { node } => {
            let directory = shared.directory_now().await?;
            let node = find_node(&directory, &node)?;
            let is_alive = shared.ask_statuses(&directory).await.contains_key(&node);
            if is_alive && !placement::is_empty(&directory, node) {
                let reason = format!("node {node} is alive and has replicas: drain it first");
                return Err(QueryError::Refused(reason));
            }
            set_state(&shared, node, NodeState::Removed).await
        }
        AdminRequest::Token { minutes } => answer(&issue_token(&shared, minutes).await?),
        AdminRequest::UseToken { secret } => {
            let (hash, now_ms) = (hash_of(&secret), shared.clock.wall_ms());
            change(&shared, DirectoryCommand::JoinTokenUse { hash, now_ms }, None).await
        }
        AdminRequest::Recover { accept_loss } => answer(&recover::recover(&shared, accept_loss).await?),
        AdminRequest::Policies => {
            let directory = shared.directory_now().await?;
            answer(&policies::list(&directory))
        }
        AdminRequest::CreatePolicy { name, rights } => {
            change(&shared, policies::create(name, rights), None).await
        }
        AdminRequest::RenewPolicyKey { name, key } => {
            let directory = shared.directory_now().await?;
            change(&shared, policies::renew(&directory, name, key)?, None).await
        }
        AdminRequest::RemovePolicy { name } => {
            let directory = shared.directory_now().await?;
            change(&shared, policies::remove(&directory, name)?, None).await
        }
        AdminRequest::Authorities => answer(&authorities::list(&*shared.directory_now().await?)),
        AdminRequest::PutAuthority { name, certificate } => {
            let now_s = i64::try_from(shared.clock.wall_ms() / 1000).unwrap_or(i64::MAX);
            let certificate = authorities::check(&name, &certificate, now_s).map_err(QueryError::Refused)?;
            change(
                &shared,
                DirectoryCommand::AuthorityPut { name, certificate },
                None,
            )
            .await
        }
        AdminRequest::RemoveAuthority { name } => {
            change(&shared, DirectoryCommand::AuthorityRemove { name }, None).await
        }
        AdminRequest::SetReplication { replicas } => {
            change(&shared, DirectoryCommand::SetReplication(replicas), None).await
        }
    }
}

fn answer(answer: &impl Serialize) -> Result<Bytes, QueryError> {
    Ok(serde_json::to_vec(answer).expect("answers are plain data").into())
}

/// The hash alone is kept, so that nobody can take a token out of the directory.
async fn issue_token(shared: &Shared, minutes: u32) -> Result<JoinToken, QueryError> {
    if !(1..=TOKEN_MINUTES_MAX).contains(&minutes) {
        let reason = format!("a join token is good for 1 to {TOKEN_MINUTES_MAX} minutes");
        return Err(QueryError::Refused(reason));
    }
    let secret = format!("{:032x}{:032x}", entropy::draw::<u128>(), entropy::draw::<u128>());
    let now_ms = shared.clock.wall_ms();
    let expires_ms = now_ms + u64::from(minutes) * 60_000;
    let put = DirectoryCommand::JoinTokenPut {
        hash: hash_of(&secret),
        expires_ms,
        now_ms,
    };
    change(shared, put, None).await?;
    let mut seeds = vec![shared.address.clone()];
    seeds.extend(shared.peers.known().into_iter().map(|(_, address)| address));
    Ok(JoinToken {
        secret,
        expires_ms,
        seeds,
    })
}

fn hash_of(secret: &str) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, secret.as_bytes());
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The one node whose id begins with `text`, removed ones left out.
fn find_node(directory: &Directory, text: &str) -> Result<NodeId, QueryError> {
    let text = text.to_ascii_lowercase();
    let mut found = directory
        .nodes
        .keys()
        .filter(|node| placement::is_member(directory, **node) && node.to_string().starts_with(&text));
    match (found.next(), found.next()) {
        (Some(node), None) if !text.is_empty() => Ok(*node),
        (Some(_), _) => Err(QueryError::Refused(format!("several nodes begin with '{text}'"))),
        (None, _) => Err(QueryError::Refused(format!("there is no node '{text}'"))),
    }
}

async fn set_state(shared: &Shared, node: NodeId, state: NodeState) -> Result<Bytes, QueryError> {
    change(shared, DirectoryCommand::NodeState { node, state }, Some(node)).await
}

async fn change(
    shared: &Shared,
    command: DirectoryCommand,
    node: Option<NodeId>,
) -> Result<Bytes, QueryError> {
    match shared.change_directory(command).await {
        Ok(_) => answer(&Changed {
            node: node.map(|node| node.to_string()),
            directory_version: shared.view.get().version,
        }),
        Err(ChangeError::Refused(refusal)) => Err(QueryError::Refused(refusal.to_string())),
        Err(ChangeError::Unavailable) => Err(QueryError::Unknown),
    }
}

impl Shared {
    /// How every node is that answers.
    pub(crate) async fn ask_statuses(&self, directory: &Directory) -> BTreeMap<NodeId, NodeStatus> {
        let ask = |node: NodeId| async move {
            if node == self.node {
                return Some((node, self.status()));
            }
            let answer = self
                .peers
                .call(node, Lane::Control, Request::Status, STATUS_TIMEOUT)
                .await;
            match answer {
                Ok((Response::Status(status), _)) => Some((node, *status)),
                _ => None,
            }
        };
        let members = directory
            .nodes
            .iter()
            .filter(|(_, entry)| entry.state != NodeState::Removed);
        let answers = join_all(members.map(|(node, _)| ask(*node))).await;
        answers.into_iter().flatten().collect()
    }
}

async fn status(shared: &Arc<Shared>) -> ClusterStatus {
    let directory = shared.view.get();
    let addresses: BTreeMap<NodeId, String> = shared.peers.known().into_iter().collect();
    let answers = shared.ask_statuses(&directory).await;
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
                applied: answer.map_or_else(BTreeMap::new, |status| {
                    let groups = status.groups.iter();
                    groups.map(|(group, status)| (*group, status.applied)).collect()
                }),
                pid: answer.map(|status| status.pid),
                damaged: answer.map(|status| status.damaged.clone()).unwrap_or_default(),
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
    } else if groups.iter().any(|group| group.moving) {
        "moving"
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

fn group_line(group: GroupId, directory: &Directory, answers: &BTreeMap<NodeId, NodeStatus>) -> GroupLine {
    // A deposed leader that has not heard yet shows a lower term.
    let leader = answers
        .iter()
        .filter_map(|(node, status)| Some((node, status.groups.get(&group.0)?)))
        .filter(|(_, status)| status.leads)
        .max_by_key(|(_, status)| status.term);
    let entry = directory.groups.get(&group);
    let runs = |id: ReplicaId, replica: &ReplicaEntry| {
        let status = answers
            .get(&replica.node)
            .and_then(|status| status.groups.get(&group.0));
        let is_behind = || leader.is_some_and(|(_, status)| status.behind.contains(&id.0));
        status.is_some_and(|status| status.replica == id.0) && !is_behind()
    };
    // Of a replica and the one that takes its place, one is enough.
    let is_covered = |(id, replica): &(ReplicaId, &ReplicaEntry)| {
        let replaced = match replica.origin {
            Origin::Added {
                replaces: Some(replaced),
            } => Some(replaced),
            _ => None,
        };
        let former = replaced.and_then(|id| Some((id, entry?.replicas.get(&id)?)));
        runs(*id, replica) || former.is_some_and(|(id, replica)| runs(id, replica))
    };
    let staying = || entry.iter().flat_map(|entry| entry.staying());
    let answered = staying().filter(is_covered).count() as u32;
    let staying = staying().count();
    let wanted = match group {
        GroupId::DIRECTORY => staying,
        _ => staying.max(directory.replication_factor as usize),
    } as u32;
    GroupLine {
        group: group.0,
        leader: leader.map(|(node, _)| node.to_string()),
        term: leader.map_or(0, |(_, status)| status.term),
        replicas: (wanted, answered),
        moving: directory.groups.get(&group).is_some_and(GroupEntry::is_moving),
        applied: leader.map_or(0, |(_, status)| status.applied),
    }
}
