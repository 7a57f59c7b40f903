//! Where leaderships and replicas should be, given where they are: observations in, moves out.
//!
//! Pure and deterministic, so that a move can be explained by its input. Carrying a move out, one
//! per group at a time, is `cluster`'s part.

use std::collections::{BTreeMap, BTreeSet};

use super::{Directory, DirectoryCommand, GroupEntry, NodeState, ReplicaRole, Role};
use crate::id::{GroupId, NodeId, ReplicaId};

/// Groups whose members change at the same time, so that moving does not crowd out the devices.
pub const MOVES_MAX: usize = 4;

/// A leadership that should go elsewhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaderMove {
    /// The group.
    pub group: GroupId,
    /// The replica that should lead.
    pub to: ReplicaId,
}

/// Leaderships that rest on another replica than the preferred one, though its node is alive.
///
/// `leaders` are the observed ones; a group without an entry is left alone. `alive` says which
/// nodes may lead. The caller hands over only to a replica that has caught up.
pub fn leader_moves(
    directory: &Directory,
    leaders: &BTreeMap<GroupId, ReplicaId>,
    alive: &dyn Fn(NodeId) -> bool,
) -> Vec<LeaderMove> {
    leaders
        .iter()
        .filter_map(|(group, leader)| {
            let entry = directory.groups.get(group)?;
            let preferred = entry.preferred_leader?;
            let replica = entry.replicas.get(&preferred)?;
            let may_lead = replica.role == ReplicaRole::Voter
                && entry.replacement_of(preferred).is_none()
                && directory.takes_replicas(replica.node)
                && alive(replica.node);
            (preferred != *leader && may_lead).then_some(LeaderMove {
                group: *group,
                to: preferred,
            })
        })
        .collect()
}

/// How a node has been of late.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Presence {
    /// Heard just now.
    Alive,
    /// Silent, and given time to come back.
    Silent,
    /// Silent for so long that its replicas are made anew elsewhere.
    Dead,
}

/// What the leader of the directory sees.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Nodes; one that is not here is [`Presence::Silent`].
    pub nodes: BTreeMap<NodeId, Presence>,
    /// Replicas that their nodes refuse to serve.
    pub damaged: BTreeSet<(GroupId, ReplicaId)>,
    /// Groups that have a leader. The others are left alone: nobody could carry a change out.
    pub led: BTreeSet<GroupId>,
}

/// What the directory should change now, given what is seen; empty when all is as it should be.
///
/// In this order: learners that cannot be filled are abandoned; groups without a change under way get
/// a replacement for what is damaged, dead, draining or removed, then the width that they should have;
/// what is left of [`MOVES_MAX`] evens the nodes out; then preferred leaders are spread.
pub fn plan(directory: &Directory, observed: &Observed) -> Vec<DirectoryCommand> {
    let mut planner = Planner {
        directory,
        observed,
        load: BTreeMap::new(),
        moving: BTreeSet::new(),
        commands: Vec::new(),
    };
    planner.look();
    planner.forget();
    planner.abandon();
    planner.mend();
    planner.even_out();
    planner.spread_leaders();
    planner.commands
}

struct Planner<'a> {
    directory: &'a Directory,
    observed: &'a Observed,
    /// Replicas of each node that may be given more.
    load: BTreeMap<NodeId, usize>,
    moving: BTreeSet<GroupId>,
    commands: Vec<DirectoryCommand>,
}

impl Planner<'_> {
    fn presence(&self, node: NodeId) -> Presence {
        self.observed
            .nodes
            .get(&node)
            .copied()
            .unwrap_or(Presence::Silent)
    }

    /// Whether `node` may be given a replica now.
    fn may_take(&self, node: NodeId) -> bool {
        self.directory.takes_replicas(node) && self.presence(node) == Presence::Alive
    }

    fn look(&mut self) {
        let hosts = self.directory.hosts().filter(|node| self.may_take(*node));
        self.load = hosts.map(|node| (node, 0)).collect();
        for (group, entry) in &self.directory.groups {
            if entry.is_moving() {
                self.moving.insert(*group);
            }
            for (_, replica) in entry.staying() {
                if let Some(count) = self.load.get_mut(&replica.node) {
                    *count += 1;
                }
            }
        }
    }

    /// Gateways that are gone: they hold nothing, and every new container is a new one.
    fn forget(&mut self) {
        for (node, entry) in &self.directory.nodes {
            let is_gone = self.presence(*node) == Presence::Dead
                && entry.state == NodeState::Active
                && !entry.roles.contains(&Role::Shard)
                && is_empty(self.directory, *node);
            if is_gone {
                self.commands.push(DirectoryCommand::NodeForget { node: *node });
            }
        }
    }

    fn abandon(&mut self) {
        for (group, entry) in &self.directory.groups {
            for (id, replica) in &entry.replicas {
                let is_lost = self.presence(replica.node) == Presence::Dead
                    || !self.directory.takes_replicas(replica.node)
                    || self.observed.damaged.contains(&(*group, *id));
                if replica.role == ReplicaRole::Learner && is_lost {
                    self.commands.push(DirectoryCommand::ReplicaAbandon {
                        group: *group,
                        replica: *id,
                    });
                }
            }
        }
    }

    /// Groups that have a leader and no change under way, as long as more may move.
    fn movable(&self, group: GroupId) -> bool {
        self.moving.len() < MOVES_MAX && !self.moving.contains(&group) && self.observed.led.contains(&group)
    }

    fn mend(&mut self) {
        for (group, entry) in &self.directory.groups {
            if self.movable(*group) && !self.replace(*group, entry) {
                self.fit_width(*group, entry);
            }
        }
    }

    /// Has a voter that is lost made anew. Returns whether something was ordered.
    fn replace(&mut self, group: GroupId, entry: &GroupEntry) -> bool {
        let is_damaged = |id: &ReplicaId| self.observed.damaged.contains(&(group, *id));
        let lost = entry.replicas.iter().find(|(id, replica)| {
            is_damaged(id)
                || self.presence(replica.node) == Presence::Dead
                || !self.directory.takes_replicas(replica.node)
        });
        let Some((id, replica)) = lost else { return false };
        let own = (is_damaged(id) && self.may_take(replica.node)).then_some(replica.node);
        let Some(node) = own.or_else(|| self.least_loaded(entry)) else {
            return false;
        };
        self.add(group, node, Some(*id));
        true
    }

    fn fit_width(&mut self, group: GroupId, entry: &GroupEntry) {
        let hosts = self.directory.hosts().count();
        let wanted = match group {
            GroupId::DIRECTORY => Directory::directory_voters(hosts),
            _ => (self.directory.replication_factor as usize).min(hosts),
        };
        let have = entry.replicas.len();
        if have < wanted {
            let mut taken: BTreeSet<NodeId> = entry.replicas.values().map(|replica| replica.node).collect();
            for _ in have..wanted {
                let Some(node) = self.least_loaded_without(&taken) else {
                    break;
                };
                taken.insert(node);
                self.add(group, node, None);
            }
        } else if have > wanted && wanted > 0 {
            self.leave(group, entry);
        }
    }

    /// Gives up the replica whose loss costs least.
    fn leave(&mut self, group: GroupId, entry: &GroupEntry) {
        let cost = |(id, replica): &(&ReplicaId, &super::ReplicaEntry)| {
            let load = self.load.get(&replica.node).copied();
            let is_gone = load.is_none();
            let leads = entry.preferred_leader == Some(**id);
            (!is_gone, leads, std::cmp::Reverse(load.unwrap_or(0)), **id)
        };
        if let Some((id, replica)) = entry.replicas.iter().min_by_key(cost) {
            if let Some(count) = self.load.get_mut(&replica.node) {
                *count -= 1;
            }
            self.moving.insert(group);
            self.commands
                .push(DirectoryCommand::ReplicaLeave { group, replica: *id });
        }
    }

    fn least_loaded(&self, entry: &GroupEntry) -> Option<NodeId> {
        self.least_loaded_without(&entry.replicas.values().map(|replica| replica.node).collect())
    }

    fn least_loaded_without(&self, taken: &BTreeSet<NodeId>) -> Option<NodeId> {
        let free = self.load.iter().filter(|(node, _)| !taken.contains(node));
        free.min_by_key(|(node, count)| (**count, **node))
            .map(|(node, _)| *node)
    }

    fn add(&mut self, group: GroupId, node: NodeId, replaces: Option<ReplicaId>) {
        *self.load.entry(node).or_default() += 1;
        self.moving.insert(group);
        self.commands.push(DirectoryCommand::ReplicaAdd {
            group,
            node,
            replaces,
        });
    }

    /// Moves replicas from nodes with many to nodes with few, until none has two more than another.
    fn even_out(&mut self) {
        while self.moving.len() < MOVES_MAX {
            let Some((few, least)) = self.load.iter().map(|(n, c)| (*n, *c)).min_by_key(|(_, c)| *c) else {
                return;
            };
            let mut full: Vec<(NodeId, usize)> = self
                .load
                .iter()
                .map(|(node, count)| (*node, *count))
                .filter(|(_, count)| *count >= least + 2)
                .collect();
            full.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
            let step = full.iter().find_map(|(many, _)| self.movable_between(*many, few));
            let Some((group, replica, many)) = step else {
                return;
            };
            if let Some(count) = self.load.get_mut(&many) {
                *count -= 1;
            }
            self.add(group, few, Some(replica));
        }
    }

    /// A replica of `many` that `few` can take, a follower if there is one.
    fn movable_between(&self, many: NodeId, few: NodeId) -> Option<(GroupId, ReplicaId, NodeId)> {
        let candidates = self.directory.groups.iter().filter_map(|(group, entry)| {
            let id = entry.replica_on(many)?;
            let fits = self.movable(*group) && entry.replica_on(few).is_none();
            fits.then_some((entry.preferred_leader == Some(id), *group, id))
        });
        candidates.min().map(|(_, group, id)| (group, id, many))
    }

    /// Lets each node be preferred by about as many groups as any other, and none by a node that is to go.
    fn spread_leaders(&mut self) {
        let mut preferred: BTreeMap<NodeId, usize> = self.load.keys().map(|node| (*node, 0)).collect();
        let node_of = |entry: &GroupEntry| {
            let id = entry.preferred_leader?;
            Some(entry.replicas.get(&id)?.node)
        };
        for entry in self.directory.groups.values() {
            if let Some(count) = node_of(entry).and_then(|node| preferred.get_mut(&node)) {
                *count += 1;
            }
        }
        for (group, entry) in &self.directory.groups {
            if self.moving.contains(group) {
                continue;
            }
            let now = node_of(entry).filter(|node| self.directory.takes_replicas(*node));
            let best = entry
                .replicas
                .iter()
                .filter_map(|(id, replica)| Some((*preferred.get(&replica.node)?, *id, replica.node)))
                .min();
            let Some((fewest, id, node)) = best else { continue };
            let is_better = match now {
                None => true,
                // A node that is only silent keeps what it has, for it may come back.
                Some(now) => preferred.get(&now).is_some_and(|count| *count >= fewest + 2),
            };
            if is_better {
                if let Some(count) = now.and_then(|node| preferred.get_mut(&node)) {
                    *count -= 1;
                }
                *preferred.entry(node).or_default() += 1;
                let group = *group;
                self.commands
                    .push(DirectoryCommand::PreferLeader { group, replica: id });
            }
        }
    }
}

/// Why a node cannot be drained without leaving groups with fewer replicas than they should have.
pub fn drain_leaves_too_few(directory: &Directory, node: NodeId) -> Option<String> {
    let left = directory.hosts().filter(|host| *host != node).count();
    let wanted = directory.replication_factor as usize;
    (directory.takes_replicas(node) && left < wanted)
        .then(|| format!("{left} shard nodes would be left for {wanted} replicas of each group"))
}

/// Whether `node` holds nothing any more, so that it can be removed.
pub fn is_empty(directory: &Directory, node: NodeId) -> bool {
    directory
        .groups
        .values()
        .all(|entry| entry.replica_on(node).is_none())
}

/// Whether `node` is known and not out.
pub fn is_member(directory: &Directory, node: NodeId) -> bool {
    directory
        .nodes
        .get(&node)
        .is_some_and(|entry| entry.state != NodeState::Removed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::NodeEntry;

    fn nodes(count: u64) -> BTreeMap<NodeId, NodeEntry> {
        let node = |i| {
            let entry = NodeEntry {
                roles: vec![Role::Shard],
                state: NodeState::Active,
            };
            (NodeId(i), entry)
        };
        (1..=count).map(node).collect()
    }

    fn three_nodes() -> Directory {
        Directory::lay_out("c".into(), nodes(3), (6, 3), BTreeMap::new())
    }

    fn all_alive(directory: &Directory) -> Observed {
        Observed {
            nodes: directory
                .nodes
                .keys()
                .map(|node| (*node, Presence::Alive))
                .collect(),
            led: directory.groups.keys().copied().collect(),
            ..Observed::default()
        }
    }

    /// Carries plans out as if every learner were filled at once, until nothing is planned any more.
    fn settle(directory: &mut Directory, observed: &Observed) -> usize {
        let mut index = directory
            .groups
            .values()
            .map(|entry| entry.settled_index)
            .max()
            .unwrap_or(0);
        for round in 0..200 {
            let commands = plan(directory, observed);
            if commands.is_empty() {
                return round;
            }
            for command in commands {
                directory
                    .apply(command.clone())
                    .unwrap_or_else(|refusal| panic!("{command:?}: {refusal}"));
            }
            assert!(
                directory
                    .groups
                    .values()
                    .filter(|entry| entry.is_moving())
                    .count()
                    <= MOVES_MAX
            );
            let groups: Vec<GroupId> = directory.groups.keys().copied().collect();
            for group in groups {
                let entry = &directory.groups[&group];
                if entry.is_moving() {
                    index += 1;
                    let voters = entry.staying().map(|(id, _)| id).collect();
                    let settled = DirectoryCommand::Settled { group, voters, index };
                    directory.apply(settled).unwrap();
                }
            }
        }
        panic!("the plan does not come to rest");
    }

    fn loads(directory: &Directory) -> BTreeMap<NodeId, usize> {
        let mut loads = BTreeMap::new();
        for entry in directory.groups.values() {
            for replica in entry.replicas.values() {
                *loads.entry(replica.node).or_default() += 1;
            }
        }
        loads
    }

    fn preferences(directory: &Directory) -> BTreeMap<NodeId, usize> {
        let mut counts = BTreeMap::new();
        for entry in directory.groups.values() {
            *counts
                .entry(entry.replicas[&entry.preferred_leader.unwrap()].node)
                .or_default() += 1;
        }
        counts
    }

    fn assert_even(counts: &BTreeMap<NodeId, usize>, nodes: usize) {
        let (least, most) = (counts.values().min().unwrap(), counts.values().max().unwrap());
        assert!(counts.len() == nodes && most - least <= 1, "{counts:?}");
    }

    #[test]
    fn leaderships_are_laid_out_evenly() {
        let directory = three_nodes();
        assert!(directory.groups.values().all(|entry| entry.replicas.len() == 3));
        assert_eq!(
            preferences(&directory).into_values().collect::<Vec<_>>(),
            [3, 2, 2]
        );
        assert_eq!(plan(&directory, &all_alive(&directory)), []);
    }

    #[test]
    fn a_leadership_goes_home_only_to_a_live_node() {
        let directory = three_nodes();
        let group = GroupId(1);
        let entry = &directory.groups[&group];
        let preferred = entry.preferred_leader.unwrap();
        let other = *entry.replicas.keys().find(|id| **id != preferred).unwrap();
        let leaders = BTreeMap::from([(group, other)]);
        let home = vec![LeaderMove { group, to: preferred }];
        assert_eq!(leader_moves(&directory, &leaders, &|_| true), home);
        let dead = entry.replicas[&preferred].node;
        assert_eq!(leader_moves(&directory, &leaders, &|node| node != dead), []);
        let settled = BTreeMap::from([(group, preferred)]);
        assert_eq!(leader_moves(&directory, &settled, &|_| true), []);
    }

    #[test]
    fn new_nodes_get_their_share_of_replicas_and_leaderships() {
        let mut directory = three_nodes();
        for node in [4, 5] {
            let (node, roles) = (NodeId(node), vec![Role::Shard]);
            directory
                .apply(DirectoryCommand::NodePut { node, roles })
                .unwrap();
        }
        let observed = all_alive(&directory);
        settle(&mut directory, &observed);
        assert_even(&loads(&directory), 5);
        assert_even(&preferences(&directory), 5);
        assert!(directory.groups.values().all(|entry| entry.replicas.len() == 3));
    }

    #[test]
    fn a_gateway_gets_nothing_and_is_forgotten_when_it_is_gone() {
        let mut directory = three_nodes();
        let (node, roles) = (NodeId(4), vec![Role::Gateway]);
        directory
            .apply(DirectoryCommand::NodePut { node, roles })
            .unwrap();
        assert_eq!(plan(&directory, &all_alive(&directory)), []);
    }

    #[test]
    fn a_silent_node_is_waited_for_and_a_dead_one_replaced() {
        let mut directory = three_nodes();
        let mut observed = all_alive(&directory);
        observed.nodes.insert(NodeId(2), Presence::Silent);
        assert_eq!(plan(&directory, &observed), []);
        observed.nodes.insert(NodeId(2), Presence::Dead);
        assert_eq!(plan(&directory, &observed), [], "nobody can take its place");
        let (node, roles) = (NodeId(4), vec![Role::Shard]);
        directory
            .apply(DirectoryCommand::NodePut { node, roles })
            .unwrap();
        observed.nodes.insert(NodeId(4), Presence::Alive);
        settle(&mut directory, &observed);
        let loads = loads(&directory);
        assert!(!loads.contains_key(&NodeId(2)), "{loads:?}");
        assert!(directory.groups.values().all(|entry| entry.replicas.len() == 3));
    }

    #[test]
    fn a_draining_node_is_emptied_and_its_leaderships_go() {
        let mut directory = Directory::lay_out("c".into(), nodes(4), (6, 3), BTreeMap::new());
        let (node, state) = (NodeId(1), NodeState::Draining);
        directory
            .apply(DirectoryCommand::NodeState { node, state })
            .unwrap();
        let observed = all_alive(&directory);
        settle(&mut directory, &observed);
        assert!(is_empty(&directory, NodeId(1)));
        assert_even(&preferences(&directory), 3);
    }

    #[test]
    fn draining_below_the_replication_factor_is_named_and_shrinks_groups_when_done_all_the_same() {
        let mut directory = three_nodes();
        assert!(
            drain_leaves_too_few(&directory, NodeId(1))
                .unwrap()
                .contains("2 shard nodes")
        );
        let (node, state) = (NodeId(1), NodeState::Draining);
        directory
            .apply(DirectoryCommand::NodeState { node, state })
            .unwrap();
        let observed = all_alive(&directory);
        settle(&mut directory, &observed);
        assert!(is_empty(&directory, NodeId(1)));
        assert!(directory.groups.values().all(|entry| entry.replicas.len() == 2));
    }

    #[test]
    fn one_node_grows_into_three() {
        let mut directory = Directory::lay_out("c".into(), nodes(1), (6, 1), BTreeMap::new());
        for node in [2, 3] {
            let (node, roles) = (NodeId(node), vec![Role::Shard]);
            directory
                .apply(DirectoryCommand::NodePut { node, roles })
                .unwrap();
        }
        directory.apply(DirectoryCommand::SetReplication(3)).unwrap();
        let observed = all_alive(&directory);
        settle(&mut directory, &observed);
        assert!(directory.groups.values().all(|entry| entry.replicas.len() == 3));
        assert_even(&preferences(&directory), 3);
        directory.apply(DirectoryCommand::SetReplication(1)).unwrap();
        settle(&mut directory, &observed);
        let width = |group: u32| directory.groups[&GroupId(group)].replicas.len();
        assert_eq!(
            (width(0), width(1), width(6)),
            (3, 1, 1),
            "the directory keeps three"
        );
    }

    #[test]
    fn a_damaged_replica_is_made_anew_on_its_own_node() {
        let mut directory = three_nodes();
        let group = GroupId(2);
        let (damaged, entry) = directory.groups[&group].replicas.first_key_value().unwrap();
        let (damaged, node) = (*damaged, entry.node);
        let mut observed = all_alive(&directory);
        observed.damaged.insert((group, damaged));
        let replaces = Some(damaged);
        assert_eq!(
            plan(&directory, &observed),
            [DirectoryCommand::ReplicaAdd {
                group,
                node,
                replaces
            }]
        );
        settle(&mut directory, &observed);
        let entry = &directory.groups[&group];
        assert!(!entry.replicas.contains_key(&damaged) && entry.replica_on(node).is_some());
    }

    #[test]
    fn a_group_without_a_leader_is_left_alone() {
        let mut directory = three_nodes();
        let (node, roles) = (NodeId(4), vec![Role::Shard]);
        directory
            .apply(DirectoryCommand::NodePut { node, roles })
            .unwrap();
        let mut observed = all_alive(&directory);
        observed.led.clear();
        assert_eq!(plan(&directory, &observed), []);
    }

    #[test]
    fn a_learner_on_a_dead_node_is_given_up() {
        let mut directory = three_nodes();
        let (node, roles) = (NodeId(4), vec![Role::Shard]);
        directory
            .apply(DirectoryCommand::NodePut { node, roles })
            .unwrap();
        let mut observed = all_alive(&directory);
        let added = plan(&directory, &observed);
        assert_eq!(added.len(), MOVES_MAX);
        for command in added {
            directory.apply(command).unwrap();
        }
        observed.nodes.insert(node, Presence::Dead);
        settle(&mut directory, &observed);
        assert!(is_empty(&directory, node));
    }
}
