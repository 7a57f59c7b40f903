//! What there is to see of Raft in a simulation, for I13 ([`crate::invariants::raft`]): each replica as it shows itself,
//! and what the disks have of the logs.
//!
//! Nothing runs while the world looks, so all of it is of one moment. A machine is looked at once more when its life
//! ends: what it had confirmed by then others may count on.

use std::collections::BTreeMap;

use dunlin_model::id::{GroupReplica, LogPosition};
use dunlin_storage::journal::{Journal, ReplicaLog};

use super::machine::Life;
use crate::invariants::raft::{Inside, Round, Shown, Sight};
use crate::oracle::digest;

/// Looks at one machine.
#[derive(Default)]
pub(super) struct Eye {
    /// The last entry of each log that was shown in this life.
    shown: BTreeMap<GroupReplica, LogPosition>,
}

impl Eye {
    /// Adds what there is to see of the life that is the machine's `number`-th.
    pub(super) fn look(&mut self, life: &Life, (place, number, us): (usize, u64, u64), round: &mut Round) {
        self.look_at_logs(&life.journal, round);
        for seen in life.cluster.sights() {
            let sight = Sight {
                us,
                node: place,
                life: number,
                run: seen.run,
                group: seen.id.group.0,
                replica: seen.id.replica.0,
                term: seen.term,
                leads: seen.leads,
                vote: seen.vote,
                committed: seen.committed.map(|at| at.index),
                applied: seen.applied.map(|at| at.index),
            };
            let inside = Inside {
                committed: seen.committed,
                applied: seen.applied,
                voters: seen.voters,
            };
            round.sights.push((sight, Some(inside)));
        }
    }

    /// The life is over: the next one shows everything anew.
    pub(super) fn close(&mut self) {
        self.shown.clear();
    }

    fn look_at_logs(&mut self, journal: &Journal, round: &mut Round) {
        for id in journal.replicas() {
            let log = journal.replica(id);
            if let Some(shown) = self.look_at_log(id, &log) {
                round.logs.push(shown);
            }
        }
    }

    /// Nothing of a log that cannot be trusted: its replica does not run.
    fn look_at_log(&mut self, id: GroupReplica, log: &ReplicaLog) -> Option<Shown> {
        let state = log.state();
        if state.damaged.is_some() {
            return None;
        }
        let durable = *log.durable().borrow();
        let begin = state.purged.map_or(0, |purged| purged.index + 1);
        let before = self.shown.get(&id).copied();
        let before = before.filter(|at| log.position_at(at.index) == Some(*at));
        let from = before.map_or(begin, |at| begin.max(at.index + 1));
        let entries = match durable {
            Some(upto) if upto >= from => log.read(from, upto + 1, usize::MAX).ok()?,
            _ => Vec::new(),
        };
        if let Some(last) = entries.last() {
            self.shown.insert(id, last.position);
        } else if before.is_none() {
            self.shown.remove(&id);
        }
        Some(Shown {
            group: id.group.0,
            replica: id.replica.0,
            purged: state.purged,
            is_whole: before.is_none(),
            entries: entries
                .into_iter()
                .map(|entry| (entry.position, digest(&entry.body)))
                .collect(),
        })
    }
}
