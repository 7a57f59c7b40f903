//! How a group gets from the members it has to the members it shall have: one step at a time.
//!
//! The leader of a group compares its own log's membership with the directory and takes the step that
//! [`next_step`] names, until the two agree. Two rules make that safe even when its copy of the
//! directory is old:
//!
//! * a replica is only ever *added* under an id above all that the group has had; ids are never
//!   reused, so a replica that was taken out (and may have been deleted) cannot come back;
//! * the log is right and the directory follows: what the directory believes beyond that is corrected
//!   by a report.
//!
//! A dead voter goes in the same change that its filled replacement comes in. Nothing here does I/O.

use std::collections::{BTreeMap, BTreeSet};

use super::{GroupEntry, ReplicaEntry, ReplicaRole};
use crate::id::{NodeId, ReplicaId};

/// A group as its leader sees it.
pub struct Sight<'a> {
    /// The leader's own replica.
    pub me: ReplicaId,
    /// Voters of the log's last membership; of the later half while two are joined.
    pub voters: &'a BTreeSet<ReplicaId>,
    /// Replicas that are filled and do not vote.
    pub learners: &'a BTreeSet<ReplicaId>,
    /// Whether the last membership is committed: until then nothing more is asked.
    pub is_committed: bool,
    /// Whether two memberships are joined, as a leader leaves them that dies half-way.
    pub is_joint: bool,
    /// Replicas that have, but for a few entries, what the leader has.
    pub caught_up: &'a BTreeSet<ReplicaId>,
    /// Whether a node was heard lately.
    pub is_alive: &'a dyn Fn(NodeId) -> bool,
}

/// What the leader of a group should do now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing, or wait.
    Nothing,
    /// Begin to fill these.
    AddLearners(BTreeMap<ReplicaId, NodeId>),
    /// Cease to fill these.
    DropLearners(BTreeSet<ReplicaId>),
    /// Let another lead first: this replica is to go.
    HandOver(ReplicaId),
    /// Make these the voters. Whoever is left out is out.
    ChangeVoters(BTreeSet<ReplicaId>),
    /// Tell the directory that these are the voters.
    Report(BTreeSet<ReplicaId>),
}

/// The next step towards `entry`.
pub fn next_step(entry: &GroupEntry, sight: &Sight<'_>) -> Step {
    if !sight.is_committed {
        return Step::Nothing;
    }
    let members: BTreeSet<ReplicaId> = sight.voters.union(sight.learners).copied().collect();
    let highest = members.last().copied();
    let fresh: BTreeMap<ReplicaId, NodeId> = learners_of(entry)
        .filter(|(id, _)| Some(*id) > highest)
        .map(|(id, learner)| (id, learner.node))
        .collect();
    if !fresh.is_empty() {
        return Step::AddLearners(fresh);
    }
    let unwanted: BTreeSet<ReplicaId> = sight
        .learners
        .iter()
        .filter(|id| !entry.replicas.contains_key(*id))
        .copied()
        .collect();
    if !unwanted.is_empty() {
        return Step::DropLearners(unwanted);
    }
    change_voters(entry, sight)
}

fn learners_of(entry: &GroupEntry) -> impl Iterator<Item = (ReplicaId, &ReplicaEntry)> {
    entry
        .replicas
        .iter()
        .filter(|(_, replica)| replica.role == ReplicaRole::Learner)
        .map(|(id, replica)| (*id, replica))
}

fn change_voters(entry: &GroupEntry, sight: &Sight<'_>) -> Step {
    let is_ready = |id: &ReplicaId| {
        sight.voters.contains(id) || (sight.learners.contains(id) && sight.caught_up.contains(id))
    };
    let ready: BTreeSet<ReplicaId> = learners_of(entry)
        .map(|(id, _)| id)
        .filter(|id| is_ready(id))
        .collect();
    // Those that come together go in together, so that a group does not stop at an even number.
    let others_come = learners_of(entry).any(|(id, learner)| {
        !is_ready(&id) && sight.learners.contains(&id) && (sight.is_alive)(learner.node)
    });
    let stays = |id: &ReplicaId| {
        let is_wanted = entry
            .replicas
            .get(id)
            .is_some_and(|replica| replica.role != ReplicaRole::Leaving);
        let is_replaced = entry
            .replacement_of(*id)
            .is_some_and(|replacement| ready.contains(&replacement));
        is_wanted && !is_replaced
    };
    let mut target: BTreeSet<ReplicaId> = sight.voters.iter().copied().filter(stays).collect();
    target.extend(&ready);
    if &target == sight.voters && !sight.is_joint {
        return report(entry, sight);
    }
    if others_come || !has_majority_alive(entry, sight, &target) {
        return Step::Nothing;
    }
    if target.contains(&sight.me) {
        return Step::ChangeVoters(target);
    }
    let heir = sight
        .voters
        .intersection(&target)
        .find(|id| sight.caught_up.contains(*id) && is_alive(entry, sight, **id));
    if let Some(heir) = heir {
        return Step::HandOver(*heir);
    }
    // Nobody who stays can lead yet: let the newcomers vote beside this one first.
    target.insert(sight.me);
    if &target == sight.voters && !sight.is_joint {
        return Step::Nothing;
    }
    Step::ChangeVoters(target)
}

fn is_alive(entry: &GroupEntry, sight: &Sight<'_>, id: ReplicaId) -> bool {
    id == sight.me
        || entry
            .replicas
            .get(&id)
            .is_some_and(|replica| (sight.is_alive)(replica.node))
}

fn has_majority_alive(entry: &GroupEntry, sight: &Sight<'_>, target: &BTreeSet<ReplicaId>) -> bool {
    let alive = target.iter().filter(|id| is_alive(entry, sight, **id)).count();
    alive * 2 > target.len()
}

/// The directory is told what it does not know.
fn report(entry: &GroupEntry, sight: &Sight<'_>) -> Step {
    let believed: BTreeSet<ReplicaId> = entry
        .replicas
        .iter()
        .filter(|(_, replica)| replica.role == ReplicaRole::Voter)
        .map(|(id, _)| *id)
        .collect();
    let leaving = entry
        .replicas
        .values()
        .any(|replica| replica.role == ReplicaRole::Leaving);
    if &believed == sight.voters && !leaving {
        Step::Nothing
    } else {
        Step::Report(sight.voters.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::Origin;

    fn ids(ids: &[u64]) -> BTreeSet<ReplicaId> {
        ids.iter().map(|id| ReplicaId(*id)).collect()
    }

    /// Replica `i` lives on node `i`.
    fn entry(replicas: &[(u64, ReplicaRole, Option<u64>)]) -> GroupEntry {
        let replica = |(id, role, replaces): &(u64, ReplicaRole, Option<u64>)| {
            let origin = match role {
                Learner => Origin::Added {
                    replaces: replaces.map(ReplicaId),
                },
                _ => Origin::Founder,
            };
            let (node, role) = (NodeId(*id), *role);
            (ReplicaId(*id), ReplicaEntry { node, role, origin })
        };
        GroupEntry {
            replicas: replicas.iter().map(replica).collect(),
            ..GroupEntry::default()
        }
    }

    use ReplicaRole::{Learner, Leaving, Voter};

    struct Seen {
        me: u64,
        voters: BTreeSet<ReplicaId>,
        learners: BTreeSet<ReplicaId>,
        caught_up: BTreeSet<ReplicaId>,
        dead: BTreeSet<u64>,
        is_joint: bool,
    }

    fn seen(me: u64, voters: &[u64], learners: &[u64], caught_up: &[u64]) -> Seen {
        Seen {
            me,
            voters: ids(voters),
            learners: ids(learners),
            caught_up: ids(caught_up),
            dead: BTreeSet::new(),
            is_joint: false,
        }
    }

    fn step(entry: &GroupEntry, seen: &Seen) -> Step {
        let sight = Sight {
            me: ReplicaId(seen.me),
            voters: &seen.voters,
            learners: &seen.learners,
            is_committed: true,
            is_joint: seen.is_joint,
            caught_up: &seen.caught_up,
            is_alive: &|node| !seen.dead.contains(&node.0),
        };
        next_step(entry, &sight)
    }

    const THREE: [(u64, ReplicaRole, Option<u64>); 3] =
        [(1, Voter, None), (2, Voter, None), (3, Voter, None)];

    fn three_and(more: &[(u64, ReplicaRole, Option<u64>)]) -> GroupEntry {
        entry(&[&THREE[..], more].concat())
    }

    #[test]
    fn a_group_in_line_does_nothing() {
        assert_eq!(
            step(&entry(&THREE), &seen(1, &[1, 2, 3], &[], &[2, 3])),
            Step::Nothing
        );
    }

    #[test]
    fn a_move_is_add_fill_change_report() {
        let wanted = three_and(&[(4, Learner, Some(3))]);
        let add = Step::AddLearners(BTreeMap::from([(ReplicaId(4), NodeId(4))]));
        assert_eq!(step(&wanted, &seen(1, &[1, 2, 3], &[], &[2, 3])), add);
        assert_eq!(
            step(&wanted, &seen(1, &[1, 2, 3], &[4], &[2, 3])),
            Step::Nothing,
            "not filled yet"
        );
        let change = Step::ChangeVoters(ids(&[1, 2, 4]));
        assert_eq!(step(&wanted, &seen(1, &[1, 2, 3], &[4], &[2, 3, 4])), change);
        let report = Step::Report(ids(&[1, 2, 4]));
        assert_eq!(step(&wanted, &seen(1, &[1, 2, 4], &[], &[2, 4])), report);
    }

    #[test]
    fn a_leader_that_is_to_go_hands_over_first() {
        let wanted = three_and(&[(4, Learner, Some(1))]);
        let all = seen(1, &[1, 2, 3], &[4], &[2, 3, 4]);
        assert_eq!(step(&wanted, &all), Step::HandOver(ReplicaId(2)));
        let lagging = seen(1, &[1, 2, 3], &[4], &[3, 4]);
        assert_eq!(step(&wanted, &lagging), Step::HandOver(ReplicaId(3)));
        assert_eq!(
            step(&wanted, &seen(2, &[1, 2, 3], &[4], &[1, 4])),
            Step::ChangeVoters(ids(&[2, 3, 4]))
        );
    }

    #[test]
    fn the_only_voter_moves_by_way_of_two() {
        let wanted = entry(&[(1, Voter, None), (2, Learner, Some(1))]);
        assert_eq!(
            step(&wanted, &seen(1, &[1], &[2], &[2])),
            Step::ChangeVoters(ids(&[1, 2]))
        );
        assert_eq!(
            step(&wanted, &seen(1, &[1, 2], &[], &[2])),
            Step::HandOver(ReplicaId(2))
        );
        assert_eq!(
            step(&wanted, &seen(2, &[1, 2], &[], &[1])),
            Step::ChangeVoters(ids(&[2]))
        );
        assert_eq!(step(&wanted, &seen(2, &[2], &[], &[])), Step::Report(ids(&[2])));
    }

    #[test]
    fn a_group_grows_from_one_to_three_in_one_change() {
        let wanted = entry(&[(1, Voter, None), (2, Learner, None), (3, Learner, None)]);
        assert_eq!(
            step(&wanted, &seen(1, &[1], &[2, 3], &[2])),
            Step::Nothing,
            "3 is on its way"
        );
        assert_eq!(
            step(&wanted, &seen(1, &[1], &[2, 3], &[2, 3])),
            Step::ChangeVoters(ids(&[1, 2, 3]))
        );
        let mut without = seen(1, &[1], &[2, 3], &[2]);
        without.dead.insert(3);
        assert_eq!(
            step(&wanted, &without),
            Step::ChangeVoters(ids(&[1, 2])),
            "3 does not come"
        );
    }

    #[test]
    fn what_leaves_goes_and_what_is_abandoned_is_dropped() {
        let wanted = entry(&[(1, Voter, None), (2, Voter, None), (3, Leaving, None)]);
        assert_eq!(
            step(&wanted, &seen(1, &[1, 2, 3], &[], &[2])),
            Step::ChangeVoters(ids(&[1, 2]))
        );
        assert_eq!(
            step(&wanted, &seen(1, &[1, 2], &[], &[2])),
            Step::Report(ids(&[1, 2]))
        );
        assert_eq!(
            step(&entry(&THREE), &seen(1, &[1, 2, 3], &[4], &[2, 3])),
            Step::DropLearners(ids(&[4]))
        );
    }

    #[test]
    fn a_replica_that_was_taken_out_never_comes_back() {
        // A copy of the directory from before 4 took 3's place, when 3 itself was being added.
        let old = entry(&[(1, Voter, None), (2, Voter, None), (3, Learner, None)]);
        let step = step(&old, &seen(1, &[1, 2, 4], &[], &[2, 4]));
        assert_eq!(step, Step::ChangeVoters(ids(&[1, 2])), "4 goes, 3 does not come");
    }

    #[test]
    fn the_directory_learns_what_the_log_says() {
        let believes = three_and(&[]);
        assert_eq!(
            step(&believes, &seen(1, &[1, 2], &[], &[2])),
            Step::Report(ids(&[1, 2]))
        );
    }

    #[test]
    fn no_change_without_a_live_majority_behind_it() {
        let wanted = entry(&[(1, Voter, None), (2, Voter, None), (3, Leaving, None)]);
        let mut sight = seen(1, &[1, 2, 3], &[], &[3]);
        sight.dead.insert(2);
        assert_eq!(step(&wanted, &sight), Step::Nothing);
    }

    #[test]
    fn a_joint_membership_is_brought_to_an_end() {
        let mut sight = seen(1, &[1, 2, 3], &[], &[2, 3]);
        sight.is_joint = true;
        assert_eq!(step(&entry(&THREE), &sight), Step::ChangeVoters(ids(&[1, 2, 3])));
    }
}
