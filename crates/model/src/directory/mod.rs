//! Group 0: the few things that the whole cluster must agree on, and only bounded things.
//!
//! Nodes, the shard map, replicas, the hub's access policies and the book of provisioning stand here; devices never do. The
//! whole directory is one value that is replaced at each change; everyone else holds a copy and the
//! time until which it is known to be fresh. Moves are planned in [`placement`]; [`membership`] says
//! how the leader of a group carries one out.

pub mod membership;
pub mod placement;
pub mod policies;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use self::policies::PolicyChange;
use crate::id::{GroupId, NodeId, ReplicaId, ShardId, Slot};
use crate::identity::SymmetricKeys;
use crate::provisioning::book::{Book, BookChange, BookRefusal};
use crate::quota::Plan;
use crate::routing::{Routing, RoutingError};

/// Nodes that a directory may hold, removed ones not counted.
pub const NODES_MAX: usize = 256;
/// Removed nodes that are remembered. Beyond that the lowest ids are forgotten, which costs no safety:
/// a node that comes back has only replica ids that are out for good.
pub const REMOVED_NODES_MAX: usize = 1024;
/// Shared access policies that a directory may hold.
pub const POLICIES_MAX: usize = 64;
/// Join tokens that may wait to be used.
pub const JOIN_TOKENS_MAX: usize = 64;

/// Certificate authorities of devices that a directory may hold (IoT Hub: 25).
pub const AUTHORITIES_MAX: usize = 25;
/// Bytes of the certificate of one, as PEM.
pub const AUTHORITY_BYTES_MAX: usize = 8 * 1024;

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
    /// Being filled; counts in no majority. Becomes a voter in the change that removes what it replaces.
    Learner,
    /// A member.
    Voter,
    /// A member that is to go without a replacement.
    Leaving,
}

/// How a replica came to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Laid out when the cluster was formed: the group begins with these, empty.
    Founder,
    /// Added later, empty, and filled by the group's leader.
    Added {
        /// The replica whose place it takes.
        replaces: Option<ReplicaId>,
    },
    /// Made from the one survivor of a lost majority: it begins with what that replica has.
    Restarted {
        /// The survivor, on the same node.
        from: ReplicaId,
    },
}

/// Where a replica lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplicaEntry {
    /// Its node.
    pub node: NodeId,
    /// Its part.
    pub role: ReplicaRole,
    /// How it came to be.
    pub origin: Origin,
}

impl ReplicaEntry {
    /// The replica on the same node that this one begins as a copy of.
    pub fn survivor(&self) -> Option<ReplicaId> {
        match self.origin {
            Origin::Restarted { from } => Some(from),
            Origin::Founder | Origin::Added { .. } => None,
        }
    }
}

/// A Raft group and its replicas.
///
/// The group's own log decides who its voters are; this entry says who they shall be, and is brought
/// in line with what came of it ([`DirectoryCommand::Settled`]).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct GroupEntry {
    /// By replica id.
    pub replicas: BTreeMap<ReplicaId, ReplicaEntry>,
    /// Where leadership should rest when all is well.
    pub preferred_leader: Option<ReplicaId>,
    /// Log index of the membership that was settled last; an older report changes nothing.
    pub settled_index: u64,
    /// The log epoch that the group has lived under since it was formed or last restarted: an offset of
    /// an earlier one may name another event today.
    pub log_epoch: u64,
}

impl GroupEntry {
    /// The replica of this group that `node` is to run: the latest, beside one that it replaces.
    pub fn replica_on(&self, node: NodeId) -> Option<ReplicaId> {
        self.replicas
            .iter()
            .rev()
            .find(|(_, entry)| entry.node == node)
            .map(|(id, _)| *id)
    }

    /// The replica that takes the place of `replica`, while it does.
    pub fn replacement_of(&self, replica: ReplicaId) -> Option<ReplicaId> {
        let replaces = Origin::Added {
            replaces: Some(replica),
        };
        self.replicas
            .iter()
            .find(|(_, entry)| entry.role == ReplicaRole::Learner && entry.origin == replaces)
            .map(|(id, _)| *id)
    }

    /// Whether a change of this group's members is under way.
    pub fn is_moving(&self) -> bool {
        self.replicas
            .values()
            .any(|entry| entry.role != ReplicaRole::Voter)
    }

    /// Members that stay, as far as is decided: neither leaving nor being replaced. Learners count.
    pub fn staying(&self) -> impl Iterator<Item = (ReplicaId, &ReplicaEntry)> {
        self.replicas
            .iter()
            .filter(|(id, entry)| entry.role != ReplicaRole::Leaving && self.replacement_of(**id).is_none())
            .map(|(id, entry)| (*id, entry))
    }

    /// Takes over what the group's log says of its voters.
    fn settle(&mut self, voters: &BTreeSet<ReplicaId>, index: u64) {
        // A report from before a restart names nobody who is here.
        let is_known = voters.iter().any(|voter| self.replicas.contains_key(voter));
        if index <= self.settled_index || !is_known {
            return;
        }
        self.settled_index = index;
        self.replicas
            .retain(|id, entry| voters.contains(id) || entry.role == ReplicaRole::Learner);
        for (id, entry) in &mut self.replicas {
            if voters.contains(id) && entry.role == ReplicaRole::Learner {
                entry.role = ReplicaRole::Voter;
            }
        }
        if self
            .preferred_leader
            .is_none_or(|preferred| !voters.contains(&preferred))
        {
            self.preferred_leader = self.replicas.keys().find(|id| voters.contains(*id)).copied();
        }
    }

    /// The members that the group begins with, if `replica` is the one that must make it begin.
    pub fn begins_with(&self, replica: ReplicaId) -> Option<BTreeMap<ReplicaId, NodeId>> {
        let founders: BTreeMap<ReplicaId, NodeId> = self
            .replicas
            .iter()
            .filter(|(_, entry)| entry.origin == Origin::Founder)
            .map(|(id, entry)| (*id, entry.node))
            .collect();
        (founders.first_key_value()?.0 == &replica).then_some(founders)
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
    /// Read enrolments and linked hubs.
    EnrollmentRead,
    /// Change them; includes reading them.
    EnrollmentWrite,
    /// Read registrations.
    RegistrationStatusRead,
    /// Change them; includes reading them.
    RegistrationStatusWrite,
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
    /// Whether it grants `right`. Whoever may write may read.
    pub fn grants(&self, right: Right) -> bool {
        let implied_by = match right {
            Right::RegistryRead => Right::RegistryReadWrite,
            Right::EnrollmentRead => Right::EnrollmentWrite,
            Right::RegistrationStatusRead => Right::RegistrationStatusWrite,
            right => right,
        };
        self.rights.contains(&right) || self.rights.contains(&implied_by)
    }
}

/// The policies that a hub starts with, by name, in the terms of IoT Hub and of DPS.
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
    (
        "provisioningserviceowner",
        &[Right::EnrollmentWrite, Right::RegistrationStatusWrite],
    ),
];

/// [`DEFAULT_POLICIES`], each with keys that `draw` makes.
pub fn first_policies(mut draw: impl FnMut() -> SymmetricKeys) -> BTreeMap<String, Policy> {
    let first = DEFAULT_POLICIES.iter().map(|(name, rights)| {
        let policy = Policy {
            keys: draw(),
            rights: rights.to_vec(),
        };
        ((*name).to_owned(), policy)
    });
    first.collect()
}

/// Whether `text` may be the name of a policy or an authority: 1 to `chars_max` ASCII letters, digits and `-._`.
pub fn is_plain_name(text: &str, chars_max: usize) -> bool {
    let is_sign = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    (1..=chars_max).contains(&text.len()) && text.bytes().all(is_sign)
}

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
    /// Authorities whose certificates devices may show, by name: each one's certificate as PEM.
    pub authorities: BTreeMap<String, String>,
    /// Join tokens that were not used yet: the hash of each, and until when it is good (milliseconds since 1970).
    pub join_tokens: BTreeMap<String, u64>,
    /// Enrolment groups and linked hubs.
    pub book: Book,
    /// Which events go where.
    #[serde(default)]
    pub routing: Routing,
    /// What the hub is held to, if it is held to anything.
    #[serde(default)]
    pub plan: Option<Plan>,
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
    /// A gateway has been gone for long. It holds nothing, and may join again as if it were new.
    NodeForget {
        /// Which.
        node: NodeId,
    },
    /// A new replica, as a learner, under the next replica id.
    ReplicaAdd {
        /// Of which group.
        group: GroupId,
        /// On which node; one replica of a group per node at most, beside one that it replaces.
        node: NodeId,
        /// The voter whose place it takes once it is filled.
        replaces: Option<ReplicaId>,
    },
    /// A voter is to go without a replacement.
    ReplicaLeave {
        /// Of which group.
        group: GroupId,
        /// Which.
        replica: ReplicaId,
    },
    /// A learner is not wanted any more; its node may delete it.
    ReplicaAbandon {
        /// Of which group.
        group: GroupId,
        /// Which.
        replica: ReplicaId,
    },
    /// The group's log says that these are its voters and that no change is under way. Whoever else
    /// was a voter is out, and its node may delete it.
    Settled {
        /// Which group.
        group: GroupId,
        /// Its voters.
        voters: BTreeSet<ReplicaId>,
        /// Log index of the membership entry; reports come in any order and only the latest counts.
        index: u64,
    },
    /// The group has lost its majority for good and goes on from one survivor, alone, as a new
    /// replica under the next replica id. Raises the log epoch.
    GroupRestart {
        /// Which group.
        group: GroupId,
        /// The survivor.
        from: ReplicaId,
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
    /// Whoever shows the secret behind this hash may join, once.
    JoinTokenPut {
        /// Hash of the secret.
        hash: String,
        /// Until when, in milliseconds since 1970.
        expires_ms: u64,
        /// Now; tokens that are over are dropped.
        now_ms: u64,
    },
    /// Somebody shows it.
    JoinTokenUse {
        /// Hash of the secret.
        hash: String,
        /// Now.
        now_ms: u64,
    },
    /// A change of the shared access policies.
    Policy(PolicyChange),
    /// Devices may show certificates of this authority from now on.
    AuthorityPut {
        /// Its name here.
        name: String,
        /// Its certificate as PEM, checked before.
        certificate: String,
    },
    /// No longer.
    AuthorityRemove {
        /// Its name here.
        name: String,
    },
    /// A change of enrolment groups or linked hubs.
    Book(BookChange),
    /// Events go elsewhere from now on.
    RoutingPut {
        /// How; its version does not matter.
        routing: Box<Routing>,
        /// The version that this is a change of, if that is asked for.
        if_version: Option<u64>,
    },
    /// What the hub is held to from now on.
    PlanPut(Option<Plan>),
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
    /// The replica plays another part than the change expects.
    #[error("replica {} cannot be changed like this now", .0.0)]
    WrongRole(ReplicaId),
    /// A bound is reached.
    #[error("a limit is reached: {0}")]
    LimitReached(String),
    /// The value makes no sense.
    #[error("{0}")]
    Invalid(String),
    /// The routing is another one by now.
    #[error("the routing was changed meanwhile")]
    RoutingChanged,
    /// The routing makes no sense.
    #[error(transparent)]
    Routing(#[from] RoutingError),
    /// The book of provisioning says no.
    #[error(transparent)]
    Book(#[from] BookRefusal),
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
            authorities: BTreeMap::new(),
            join_tokens: BTreeMap::new(),
            book: Book::default(),
            routing: Routing::default(),
            plan: None,
        };
        let directory_voters = Self::directory_voters(hosts.len());
        for group in 0..=shard_count {
            let width = if group == 0 {
                directory_voters
            } else {
                replication_factor as usize
            };
            let mut entry = GroupEntry {
                log_epoch: 1,
                ..GroupEntry::default()
            };
            for i in 0..width.min(hosts.len()) {
                let node = hosts[(group as usize + i) % hosts.len()];
                let id = ReplicaId(directory.next_replica);
                directory.next_replica += 1;
                entry.replicas.insert(
                    id,
                    ReplicaEntry {
                        node,
                        role: ReplicaRole::Voter,
                        origin: Origin::Founder,
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
                let is_there = |entry: &&NodeEntry| entry.state != NodeState::Removed;
                let count = self.nodes.values().filter(is_there).count();
                if count >= NODES_MAX && !self.nodes.contains_key(&node) {
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
                self.forget_removed();
            }
            DirectoryCommand::NodeForget { node } => {
                let is_empty = self.groups.values().all(|entry| entry.replica_on(node).is_none());
                let is_host = self
                    .nodes
                    .get(&node)
                    .is_some_and(|entry| entry.roles.contains(&Role::Shard));
                if is_host || !is_empty {
                    return Err(DirectoryRefusal::Invalid(
                        "only an empty gateway is forgotten".into(),
                    ));
                }
                self.nodes.remove(&node);
            }
            DirectoryCommand::ReplicaAdd {
                group,
                node,
                replaces,
            } => return self.add_replica(group, node, replaces).map(Some),
            DirectoryCommand::ReplicaLeave { group, replica } => {
                let entry = self.replica_mut(group, replica)?;
                if entry.role != ReplicaRole::Voter {
                    return Err(DirectoryRefusal::WrongRole(replica));
                }
                entry.role = ReplicaRole::Leaving;
            }
            DirectoryCommand::ReplicaAbandon { group, replica } => {
                if self.replica_mut(group, replica)?.role != ReplicaRole::Learner {
                    return Err(DirectoryRefusal::WrongRole(replica));
                }
                self.group_mut(group)?.replicas.remove(&replica);
            }
            DirectoryCommand::Settled { group, voters, index } => {
                self.group_mut(group)?.settle(&voters, index);
            }
            DirectoryCommand::GroupRestart { group, from } => {
                return self.restart_group(group, from).map(Some);
            }
            DirectoryCommand::PreferLeader { group, replica } => {
                self.replica_mut(group, replica)?;
                self.group_mut(group)?.preferred_leader = Some(replica);
            }
            DirectoryCommand::SetReplication(factor) => {
                if factor == 0 || factor > 7 || factor % 2 == 0 {
                    return Err(DirectoryRefusal::Invalid("replication is 1, 3, 5 or 7".into()));
                }
                self.replication_factor = factor;
            }
            DirectoryCommand::JoinTokenPut {
                hash,
                expires_ms,
                now_ms,
            } => {
                self.join_tokens.retain(|_, until| *until > now_ms);
                if self.join_tokens.len() >= JOIN_TOKENS_MAX {
                    return Err(DirectoryRefusal::LimitReached(format!(
                        "{JOIN_TOKENS_MAX} join tokens"
                    )));
                }
                self.join_tokens.insert(hash, expires_ms);
            }
            DirectoryCommand::JoinTokenUse { hash, now_ms } => {
                let until = self.join_tokens.remove(&hash);
                if until.is_none_or(|until| until <= now_ms) {
                    let reason = "the join token was used before, is over, or is none";
                    return Err(DirectoryRefusal::Invalid(reason.into()));
                }
            }
            DirectoryCommand::Policy(change) => policies::apply(&mut self.policies, change)?,
            DirectoryCommand::AuthorityPut { name, certificate } => {
                let is_full = self.authorities.len() >= AUTHORITIES_MAX;
                if (is_full && !self.authorities.contains_key(&name))
                    || certificate.len() > AUTHORITY_BYTES_MAX
                {
                    return Err(DirectoryRefusal::LimitReached(format!(
                        "{AUTHORITIES_MAX} authorities, {AUTHORITY_BYTES_MAX} bytes each"
                    )));
                }
                self.authorities.insert(name, certificate);
            }
            DirectoryCommand::AuthorityRemove { name } => {
                if self.authorities.remove(&name).is_none() {
                    return Err(DirectoryRefusal::Invalid(format!(
                        "there is no authority '{name}'"
                    )));
                }
            }
            DirectoryCommand::Book(change) => self.book.apply(change)?,
            DirectoryCommand::RoutingPut { routing, if_version } => self.put_routing(*routing, if_version)?,
            DirectoryCommand::PlanPut(plan) => {
                plan.map_or(Ok(()), Plan::check)
                    .map_err(DirectoryRefusal::Invalid)?;
                self.plan = plan;
            }
        }
        Ok(None)
    }

    fn put_routing(&mut self, routing: Routing, if_version: Option<u64>) -> Result<(), DirectoryRefusal> {
        let version = self.routing.version;
        let new = Routing {
            version: version + 1,
            ..routing
        };
        // Asked a second time, since the first answer was lost.
        let is_done = if_version.is_some_and(|asked| asked + 1 == version)
            && self.routing
                == Routing {
                    version,
                    ..new.clone()
                };
        if is_done {
            return Ok(());
        }
        if if_version.is_some_and(|asked| asked != version) {
            return Err(DirectoryRefusal::RoutingChanged);
        }
        new.check()?;
        self.routing = new;
        Ok(())
    }

    fn forget_removed(&mut self) {
        let is_removed = |(_, entry): &(&NodeId, &NodeEntry)| entry.state == NodeState::Removed;
        while self.nodes.iter().filter(is_removed).count() > REMOVED_NODES_MAX {
            let lowest = self.nodes.iter().find(is_removed).map(|(node, _)| *node);
            lowest.map(|node| self.nodes.remove(&node));
        }
    }

    fn add_replica(
        &mut self,
        group: GroupId,
        node: NodeId,
        replaces: Option<ReplicaId>,
    ) -> Result<ReplicaId, DirectoryRefusal> {
        if !self.takes_replicas(node) {
            return Err(DirectoryRefusal::NoSuchNode(node));
        }
        let id = ReplicaId(self.next_replica);
        let entry = self.group_mut(group)?;
        let others = || entry.replicas.iter().filter(|(id, _)| Some(**id) != replaces);
        if others().any(|(_, other)| other.node == node) {
            return Err(DirectoryRefusal::ReplicaExists(node));
        }
        if let Some(replaced) = replaces {
            let is_voter = entry.replicas.get(&replaced).map(|entry| entry.role) == Some(ReplicaRole::Voter);
            if !is_voter || entry.replacement_of(replaced).is_some() {
                return Err(DirectoryRefusal::WrongRole(replaced));
            }
        }
        let replica = ReplicaEntry {
            node,
            role: ReplicaRole::Learner,
            origin: Origin::Added { replaces },
        };
        entry.replicas.insert(id, replica);
        self.next_replica += 1;
        Ok(id)
    }

    fn restart_group(&mut self, group: GroupId, from: ReplicaId) -> Result<ReplicaId, DirectoryRefusal> {
        let id = ReplicaId(self.next_replica);
        let epoch = self.log_epoch + 1;
        let node = self.replica_mut(group, from)?.node;
        let entry = self.group_mut(group)?;
        let replica = ReplicaEntry {
            node,
            role: ReplicaRole::Voter,
            origin: Origin::Restarted { from },
        };
        entry.replicas = BTreeMap::from([(id, replica)]);
        entry.preferred_leader = Some(id);
        entry.log_epoch = epoch;
        self.next_replica += 1;
        self.log_epoch = epoch;
        Ok(id)
    }

    fn group_mut(&mut self, group: GroupId) -> Result<&mut GroupEntry, DirectoryRefusal> {
        self.groups.get_mut(&group).ok_or(DirectoryRefusal::NoSuchReplica)
    }

    fn replica_mut(
        &mut self,
        group: GroupId,
        replica: ReplicaId,
    ) -> Result<&mut ReplicaEntry, DirectoryRefusal> {
        self.group_mut(group)?
            .replicas
            .get_mut(&replica)
            .ok_or(DirectoryRefusal::NoSuchReplica)
    }

    /// The log epoch of a shard.
    pub fn epoch_of(&self, shard: ShardId) -> u64 {
        self.groups.get(&shard.group()).map_or(0, |entry| entry.log_epoch)
    }

    /// Tells copies apart: the higher is the later one. A restart from a survivor outranks whatever
    /// the lost majority may still hold.
    pub fn rank(&self) -> (u64, u64) {
        (self.log_epoch, self.version)
    }

    /// Whether replicas may be placed on `node`.
    pub fn takes_replicas(&self, node: NodeId) -> bool {
        self.nodes.get(&node).is_some_and(NodeEntry::takes_replicas)
    }

    /// Nodes that may hold replicas.
    pub fn hosts(&self) -> impl Iterator<Item = NodeId> {
        self.nodes
            .iter()
            .filter(|(_, entry)| entry.takes_replicas())
            .map(|(id, _)| *id)
    }
}
