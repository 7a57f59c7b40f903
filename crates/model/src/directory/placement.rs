//! Where leaderships and replicas should be, given where they are: observations in, moves out.
//!
//! Pure and deterministic, so that a move can be explained by its input. Carrying a move out, one
//! per group at a time, is `cluster`'s part.

use std::collections::BTreeMap;

use super::Directory;
use crate::id::{GroupId, NodeId, ReplicaId};

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
            let node = entry.replicas.get(&preferred)?.node;
            (preferred != *leader && alive(node)).then_some(LeaderMove {
                group: *group,
                to: preferred,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::{NodeEntry, NodeState, Role};

    fn three_nodes() -> Directory {
        let nodes = (1..=3)
            .map(|i| {
                (
                    NodeId(i),
                    NodeEntry {
                        roles: vec![Role::Shard],
                        state: NodeState::Active,
                    },
                )
            })
            .collect();
        Directory::lay_out("c".into(), nodes, (6, 3), BTreeMap::new())
    }

    #[test]
    fn leaderships_are_laid_out_evenly() {
        let directory = three_nodes();
        let mut led = BTreeMap::new();
        for (group, entry) in &directory.groups {
            let leader = entry.preferred_leader.unwrap();
            assert_eq!(entry.replicas.len(), 3, "{group}");
            *led.entry(entry.replicas[&leader].node).or_insert(0) += 1;
        }
        assert_eq!(led.into_values().collect::<Vec<_>>(), [3, 2, 2]);
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
        assert_eq!(
            leader_moves(&directory, &leaders, &|node| node
                != entry.replicas[&preferred].node),
            []
        );
        assert_eq!(
            leader_moves(&directory, &BTreeMap::from([(group, preferred)]), &|_| true),
            []
        );
    }
}
