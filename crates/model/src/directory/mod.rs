//! Group 0: the few things that the whole cluster must agree on, and only bounded things.
//!
//! Nodes, the shard map, replicas and the hub's access policies stand here; devices never do. The
//! whole directory is one value that is replaced at each change; everyone else holds a copy and the
//! time until which it is known to be fresh. Moves are planned in [`placement`].

pub mod placement;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::id::{GroupId, NodeId, ReplicaId, ShardId, Slot};
use crate::identity::SymmetricKeys;

/// Nodes that a directory may hold.
pub const NODES_MAX: usize = 256;
/// Shared access policies that a directory may hold.
pub const POLICIES_MAX: usize = 64;

/// What a node does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Holds replicas and runs device actors.
    Shard,
    /// Holds connections of devices and services.
    Gateway,
}

/// How the cluster regards a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// It takes replicas and leaderships.
    #[default]
    Active,
    /// It gives up what it has and gets nothing new.
    Draining,
    /// It is out; its id never comes back.
    Removed,
}

/// A node, as the cluster knows it. Addresses are not here: nodes tell them to each other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeEntry {
    /// What it does.
    pub roles: Vec<Role>,
    /// How it is regarded.
    pub state: NodeState,
}

impl NodeEntry {
    /// Whether replicas may be placed on it.
    pub fn takes_replicas(&self) -> bool {
        self.state == NodeState::Active && self.roles.contains(&Role::Shard)
    }
}

/// The part a replica plays, as far as the directory has decided.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ReplicaRole {
    /// Being filled; counts in no majority.
    Learner,
    /// A member.
    Voter,
}

/// Where a replica lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaEntry {
    /// Its node.
    pub node: NodeId,
    /// Its part.
    pub role: ReplicaRole,
}

/// A Raft group and its replicas.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct GroupEntry {
    /// By replica id.
    pub replicas: BTreeMap<ReplicaId, ReplicaEntry>,
    /// Where leadership should rest when all is well.
    pub preferred_leader: Option<ReplicaId>,
}

impl GroupEntry {
    /// The replica of this group on `node`.
    pub fn replica_on(&self, node: NodeId) -> Option<ReplicaId> {
        self.replicas
            .iter()
            .find(|(_, entry)| entry.node == node)
            .map(|(id, _)| *id)
    }
}

/// What the holder of a shared access policy may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Right {
    /// Read identities.
    RegistryRead,
    /// Change identities; includes reading them.
    RegistryReadWrite,
    /// Use service operations, the event stream among them.
    ServiceConnect,
    /// Speak as a device.
    DeviceConnect,
    /// Operate the cluster. IoT Hub has no such right; only `iothubowner` holds it.
    ClusterAdmin,
}

/// A shared access policy: keys, and what they open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Policy {
    /// Its two keys.
    pub keys: SymmetricKeys,
    /// Its rights.
    pub rights: Vec<Right>,
}

impl Policy {
    /// Whether it grants `right`. RegistryReadWrite implies RegistryRead.
    pub fn grants(&self, right: Right) -> bool {
        self.rights.contains(&right)
            || (right == Right::RegistryRead && self.rights.contains(&Right::RegistryReadWrite))
    }
}

/// The policies that a hub starts with, by name, in IoT Hub's terms.
pub const DEFAULT_POLICIES: &[(&str, &[Right])] = &[
    (
        "iothubowner",
        &[
            Right::RegistryReadWrite,
            Right::ServiceConnect,
            Right::DeviceConnect,
            Right::ClusterAdmin,
        ],
    ),
    ("service", &[Right::ServiceConnect]),
    ("device", &[Right::DeviceConnect]),
    ("registryRead", &[Right::RegistryRead]),
    ("registryReadWrite", &[Right::RegistryReadWrite]),
];

/// The directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Directory {
    /// Drawn when the cluster forms; 32 hexadecimal digits. Empty before.
    pub cluster_id: String,
    /// Rises when a group is restarted from a survivor or the cluster from a backup, so that
    /// offsets of before and after can be told apart.
    pub log_epoch: u64,
    /// Rises by one with each change of anything here.
    pub version: u64,
    /// Number of shards; slot `s` belongs to shard `s mod shard_count`.
    pub shard_count: u32,
    /// Replicas that each group should have.
    pub replication_factor: u32,
    /// The nodes.
    pub nodes: BTreeMap<NodeId, NodeEntry>,
    /// The groups, the directory itself included.
    pub groups: BTreeMap<GroupId, GroupEntry>,
    /// The next replica id to issue.
    pub next_replica: u64,
    /// Shared access policies by name.
    pub policies: BTreeMap<String, Policy>,
}

/// A change of the directory.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum DirectoryCommand {
    /// The first entry: everything as the forming node laid it out.
    Form(Box<Directory>),
    /// A node is new, or its roles have changed.
    NodePut {
        /// Which.
        node: NodeId,
        /// What it does.
        roles: Vec<Role>,
    },
    /// How a node is regarded from now on.
    NodeState {
        /// Which.
        node: NodeId,
        /// How.
        state: NodeState,
    },
    /// A new replica, as a learner, under the next replica id.
    ReplicaAdd {
        /// Of which group.
        group: GroupId,
        /// On which node; one replica of a group per node at most.
        node: NodeId,
    },
    /// A replica is a member now.
    ReplicaPromote {
        /// Of which group.
        group: GroupId,
        /// Which.
        replica: ReplicaId,
    },
    /// A replica is gone from its group; its node may delete it.
    ReplicaRemove {
        /// Of which group.
        group: GroupId,
        /// Which.
        replica: ReplicaId,
    },
    /// Where leadership of a group should rest.
    PreferLeader {
        /// Of which group.
        group: GroupId,
        /// Which replica.
        replica: ReplicaId,
    },
    /// How many replicas each group should have.
    SetReplication(u32),
    /// Creates or replaces a shared access policy.
    PolicyPut {
        /// Its name.
        name: String,
        /// Keys and rights.
        policy: Policy,
    },
}

/// Why a change was refused; nothing changed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum DirectoryRefusal {
    /// The first entry came twice.
    #[error("the cluster is formed already")]
    AlreadyFormed,
    /// Something was asked of a cluster that has no first entry.
    #[error("the cluster is not formed")]
    NotFormed,
    /// The node is not known, or is out.
    #[error("node {0} is unknown or removed")]
    NoSuchNode(NodeId),
    /// The group or replica is not known.
    #[error("no such group or replica")]
    NoSuchReplica,
    /// The node has a replica of the group.
    #[error("node {0} has a replica of this group")]
    ReplicaExists(NodeId),
    /// A bound is reached.
    #[error("a limit is reached: {0}")]
    LimitReached(String),
    /// The value makes no sense.
    #[error("{0}")]
    Invalid(String),
}

impl Directory {
    /// Lays out a new cluster: voters spread over the shard nodes, leaderships in turn.
    ///
    /// The directory group is replicated on 3 shard nodes, or on 5 from 7 on; each shard on
    /// `replication_factor` (or on all nodes, when there are fewer).
    pub fn lay_out(
        cluster_id: String,
        nodes: BTreeMap<NodeId, NodeEntry>,
        (shard_count, replication_factor): (u32, u32),
        policies: BTreeMap<String, Policy>,
    ) -> Directory {
        let hosts: Vec<NodeId> = nodes
            .iter()
            .filter(|(_, entry)| entry.takes_replicas())
            .map(|(id, _)| *id)
            .collect();
        assert!(!hosts.is_empty(), "forming counts shard nodes");
        let mut directory = Directory {
            cluster_id,
            log_epoch: 1,
            version: 1,
            shard_count,
            replication_factor,
            nodes,
            groups: BTreeMap::new(),
            next_replica: 1,
            policies,
        };
        let directory_voters = Self::directory_voters(hosts.len());
        for group in 0..=shard_count {
            let width = if group == 0 {
                directory_voters
            } else {
                replication_factor as usize
            };
            let mut entry = GroupEntry::default();
            for i in 0..width.min(hosts.len()) {
                let node = hosts[(group as usize + i) % hosts.len()];
                let id = ReplicaId(directory.next_replica);
                directory.next_replica += 1;
                entry.replicas.insert(
                    id,
                    ReplicaEntry {
                        node,
                        role: ReplicaRole::Voter,
                    },
                );
                entry.preferred_leader.get_or_insert(id);
            }
            directory.groups.insert(GroupId(group), entry);
        }
        directory
    }

    /// Voters of the directory group for a number of shard nodes.
    pub fn directory_voters(shard_nodes: usize) -> usize {
        if shard_nodes >= 7 { 5 } else { shard_nodes.min(3) }
    }

    /// Whether the cluster has been formed.
    pub fn is_formed(&self) -> bool {
        !self.cluster_id.is_empty()
    }

    /// The shard of a slot.
    pub fn shard_of(&self, slot: Slot) -> ShardId {
        assert!(self.shard_count > 0, "only a formed directory has a shard map");
        ShardId(u32::from(slot.0) % self.shard_count)
    }

    /// All shards.
    pub fn shards(&self) -> impl Iterator<Item = ShardId> + use<> {
        (0..self.shard_count).map(ShardId)
    }

    /// The node of a replica.
    pub fn node_of(&self, group: GroupId, replica: ReplicaId) -> Option<NodeId> {
        Some(self.groups.get(&group)?.replicas.get(&replica)?.node)
    }

    /// Applies `command`. On success the version has risen by one; the answer is the replica id
    /// that was issued, if any.
    pub fn apply(&mut self, command: DirectoryCommand) -> Result<Option<ReplicaId>, DirectoryRefusal> {
        if let DirectoryCommand::Form(first) = command {
            if self.is_formed() {
                return Err(DirectoryRefusal::AlreadyFormed);
            }
            *self = *first;
            return Ok(None);
        }
        if !self.is_formed() {
            return Err(DirectoryRefusal::NotFormed);
        }
        let issued = self.change(command)?;
        self.version += 1;
        Ok(issued)
    }

    fn change(&mut self, command: DirectoryCommand) -> Result<Option<ReplicaId>, DirectoryRefusal> {
        match command {
            DirectoryCommand::Form(_) => unreachable!("handled by the caller"),
            DirectoryCommand::NodePut { node, roles } => {
                if self.nodes.len() >= NODES_MAX && !self.nodes.contains_key(&node) {
                    return Err(DirectoryRefusal::LimitReached(format!("{NODES_MAX} nodes")));
                }
                let entry = self.nodes.entry(node).or_insert(NodeEntry {
                    roles: vec![],
                    state: NodeState::Active,
                });
                if entry.state == NodeState::Removed {
                    return Err(DirectoryRefusal::NoSuchNode(node));
                }
                entry.roles = roles;
            }
            DirectoryCommand::NodeState { node, state } => {
                let entry = self
                    .nodes
                    .get_mut(&node)
                    .ok_or(DirectoryRefusal::NoSuchNode(node))?;
                if entry.state == NodeState::Removed {
                    return Err(DirectoryRefusal::NoSuchNode(node));
                }
                entry.state = state;
            }
            DirectoryCommand::ReplicaAdd { group, node } => {
                if !self.nodes.get(&node).is_some_and(NodeEntry::takes_replicas) {
                    return Err(DirectoryRefusal::NoSuchNode(node));
                }
                let entry = self
                    .groups
                    .get_mut(&group)
                    .ok_or(DirectoryRefusal::NoSuchReplica)?;
                if entry.replica_on(node).is_some() {
                    return Err(DirectoryRefusal::ReplicaExists(node));
                }
                let id = ReplicaId(self.next_replica);
                self.next_replica += 1;
                entry.replicas.insert(
                    id,
                    ReplicaEntry {
                        node,
                        role: ReplicaRole::Learner,
                    },
                );
                return Ok(Some(id));
            }
            DirectoryCommand::ReplicaPromote { group, replica } => {
                self.replica_mut(group, replica)?.role = ReplicaRole::Voter;
            }
            DirectoryCommand::ReplicaRemove { group, replica } => {
                self.replica_mut(group, replica)?;
                let entry = self
                    .groups
                    .get_mut(&group)
                    .ok_or(DirectoryRefusal::NoSuchReplica)?;
                entry.replicas.remove(&replica);
                if entry.preferred_leader == Some(replica) {
                    entry.preferred_leader = entry.replicas.keys().next().copied();
                }
            }
            DirectoryCommand::PreferLeader { group, replica } => {
                self.replica_mut(group, replica)?;
                self.groups
                    .get_mut(&group)
                    .ok_or(DirectoryRefusal::NoSuchReplica)?
                    .preferred_leader = Some(replica);
            }
            DirectoryCommand::SetReplication(factor) => {
                if factor == 0 || factor > 7 || factor % 2 == 0 {
                    return Err(DirectoryRefusal::Invalid("replication is 1, 3, 5 or 7".into()));
                }
                self.replication_factor = factor;
            }
            DirectoryCommand::PolicyPut { name, policy } => {
                if self.policies.len() >= POLICIES_MAX && !self.policies.contains_key(&name) {
                    return Err(DirectoryRefusal::LimitReached(format!("{POLICIES_MAX} policies")));
                }
                self.policies.insert(name, policy);
            }
        }
        Ok(None)
    }

    fn replica_mut(
        &mut self,
        group: GroupId,
        replica: ReplicaId,
    ) -> Result<&mut ReplicaEntry, DirectoryRefusal> {
        self.groups
            .get_mut(&group)
            .and_then(|entry| entry.replicas.get_mut(&replica))
            .ok_or(DirectoryRefusal::NoSuchReplica)
    }
}
