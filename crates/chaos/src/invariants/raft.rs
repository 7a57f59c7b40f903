//! I13 — Raft's own properties, for every group at all times.
//!
//! Source: `docs/invariants.md` I13; Ongaro and Ousterhout, "In search of an understandable consensus algorithm", figure 3;
//! what openraft's simulated tests assert.
//!
//! | property | here |
//! |---|---|
//! | election safety | a leadership, which is a term *and* a replica to openraft, is one life of one process |
//! | votes | the vote on a disk never goes back, whatever ends the process |
//! | commitment | in a run, what is committed and what is applied never go back, and nothing is applied before it is committed |
//! | log matching | entries of one position have one content and one predecessor, and so have all before them |
//! | state machine safety | what is committed or applied at one index is one entry, on all replicas |
//! | leader completeness | whoever leads has what was committed in earlier terms |
//! | majorities | what is committed is on the disks of a majority, and stays on each |
//! | membership | of two memberships that follow each other, one has voters of the other: two majorities meet |
//!
//! Whoever watches a run from outside has [`Sight`]s, which show the first three. A simulation looks inside as well
//! ([`Inside`], [`Shown`]), and has the others. Logs are held against each other in [`log`]. Nothing here asks anybody.

mod log;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::id::LogPosition;
use serde::{Deserialize, Serialize};

use super::{Findings, Violation};
use log::Logs;
pub use log::Shown;

/// One replica, as it shows itself from outside.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sight {
    /// When.
    pub us: u64,
    /// On which node, from 0.
    pub node: usize,
    /// Which life of the node's process.
    pub life: u64,
    /// Which run of the replica in it.
    pub run: u64,
    /// Its group.
    pub group: u32,
    /// Its id, which no other replica of the group ever has.
    pub replica: u64,
    /// Its term.
    pub term: u64,
    /// Whether it leads in it.
    pub leads: bool,
    /// The vote that its disk has: a term, and for whom, if that is known.
    pub vote: Option<(u64, u64)>,
    /// Index of the last entry that it knows to be committed.
    pub committed: Option<u64>,
    /// Index of the last entry that it has applied.
    pub applied: Option<u64>,
}

/// What only a simulation sees of it, at the same moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Inside {
    /// The last entry that it knows to be committed.
    pub committed: Option<LogPosition>,
    /// The last entry that it has applied.
    pub applied: Option<LogPosition>,
    /// The voters of the last membership that is committed, and of the one that it goes by; two sets while they change.
    pub voters: [Vec<BTreeSet<u64>>; 2],
}

/// A vote that a disk has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Voted {
    /// When.
    pub us: u64,
    /// On which node, from 0.
    pub node: usize,
    /// Whose.
    pub group: u32,
    /// Which replica of it.
    pub replica: u64,
    /// The vote: a term, and for whom.
    pub vote: (u64, u64),
}

/// Everything that is seen at one moment, and of lives that have ended since the last one, at their end.
#[derive(Debug, Default)]
pub struct Round {
    /// Replicas that run.
    pub sights: Vec<(Sight, Option<Inside>)>,
    /// Votes that disks had in the meantime.
    pub votes: Vec<Voted>,
    /// What disks have of their logs.
    pub logs: Vec<Shown>,
}

/// Holds what is seen, moment by moment, against what was seen before.
#[derive(Debug, Default)]
pub struct Watch {
    leaders: BTreeMap<(u32, u64, u64), (usize, u64)>,
    runs: BTreeMap<(u32, u64), Run>,
    /// By group and replica: the node, and the highest vote that its disk has had.
    votes: BTreeMap<(u32, u64), (usize, (u64, u64))>,
    groups: BTreeMap<u32, Logs>,
    findings: Findings,
    sights: u64,
}

/// How far a replica was seen to get in one run.
#[derive(Debug, Default)]
struct Run {
    at: (usize, u64, u64),
    committed: Option<u64>,
    applied: Option<u64>,
}

/// Raft's properties over what was seen from outside, in the order in which it was seen. From a time until another one
/// the disk of a node was put back to what it had been, as `restores` say: meanwhile it is not asked, and then anew.
pub fn check(sights: &[Sight], restores: &[(u64, u64, usize)]) -> Findings {
    let mut watch = Watch::default();
    let mut begun = restores.iter().peekable();
    for sight in sights {
        while let Some((.., node)) = begun.next_if(|(from, ..)| *from <= sight.us) {
            watch.forget(*node);
        }
        let is_meanwhile = |(from, until, node): &(u64, u64, usize)| {
            *node == sight.node && (*from..=*until).contains(&sight.us)
        };
        if restores.iter().any(is_meanwhile) {
            continue;
        }
        watch.see(&Round {
            sights: vec![(sight.clone(), None)],
            ..Round::default()
        });
    }
    watch.findings
}

impl Watch {
    /// What is wrong so far.
    pub fn findings(&self) -> &Findings {
        &self.findings
    }

    /// Replicas that were looked at, each as often as it was.
    pub fn sights(&self) -> u64 {
        self.sights
    }

    /// Takes in what is seen at one moment, which is not before what was seen last.
    pub fn see(&mut self, round: &Round) {
        for shown in &round.logs {
            let logs = self.groups.entry(shown.group).or_default();
            for what in logs.show(shown) {
                self.findings.add(|| Violation::of(what));
            }
        }
        for (sight, _) in &round.sights {
            self.sights += 1;
            self.see_leadership(sight);
            self.see_run(sight);
        }
        let shown = round.sights.iter().filter_map(|(sight, _)| sight.voted());
        let mut votes: Vec<Voted> = round.votes.iter().copied().chain(shown).collect();
        // The end of a life shows an older one than the next life may have given by now.
        votes.sort_by_key(|voted| voted.us);
        for voted in votes {
            self.see_vote(voted);
        }
        let sights = round.sights.iter();
        let seen: Vec<(&Sight, &Inside)> = sights
            .filter_map(|(sight, inside)| Some((sight, inside.as_ref()?)))
            .collect();
        let mut found = Vec::new();
        for (sight, inside) in &seen {
            let logs = self.groups.entry(sight.group).or_default();
            found.extend(logs.claim(sight, inside));
        }
        // When all is known that any of them claims.
        for (sight, inside) in &seen {
            let logs = self.groups.entry(sight.group).or_default();
            found.extend(logs.judge(sight, inside));
        }
        for what in found {
            self.findings.add(|| Violation::of(what));
        }
    }

    fn see_vote(&mut self, voted: Voted) {
        let (group, replica, vote) = (voted.group, voted.replica, voted.vote);
        let first = (voted.node, vote);
        let (_, highest) = self.votes.entry((group, replica)).or_insert(first);
        if vote < *highest {
            let before = *highest;
            self.findings.add(|| {
                Violation::of(format!(
                    "{} has a vote of term {} for {} on disk, and had one of term {} for {} before",
                    name(group, replica),
                    vote.0,
                    vote.1,
                    before.0,
                    before.1
                ))
            });
        }
        *highest = vote.max(*highest);
    }

    /// An entry of the log says who the members are.
    pub fn see_members(&mut self, group: u32, at: LogPosition, voters: &[BTreeSet<u64>]) {
        let logs = self.groups.entry(group).or_default();
        if let Some(what) = logs.change_members(group, at, voters) {
            self.findings.add(|| Violation::of(what));
        }
    }

    /// A node's disk was put back to what it had been: nothing that it says is held against what it said before.
    fn forget(&mut self, node: usize) {
        self.votes.retain(|_, (on, _)| *on != node);
        self.runs.retain(|_, run| run.at.0 != node);
    }

    fn see_leadership(&mut self, sight: &Sight) {
        if !sight.leads {
            return;
        }
        let leadership = (sight.group, sight.term, sight.replica);
        let life = (sight.node, sight.life);
        let first = *self.leaders.entry(leadership).or_insert(life);
        if first != life {
            self.findings.add(|| {
                Violation::of(format!(
                    "{} leads in term {} on node {}, and did so in another life, on node {}",
                    name(sight.group, sight.replica),
                    sight.term,
                    sight.node + 1,
                    first.0 + 1
                ))
            });
        }
    }

    fn see_run(&mut self, sight: &Sight) {
        let at = (sight.node, sight.life, sight.run);
        let run = self.runs.entry((sight.group, sight.replica)).or_default();
        if run.at != at {
            *run = Run { at, ..Run::default() };
        }
        let mut wrong = Vec::new();
        for (what, now, before) in [
            ("committed", sight.committed, &mut run.committed),
            ("applied", sight.applied, &mut run.applied),
        ] {
            if now < *before {
                wrong.push(format!("has {what} {now:?}, after {before:?} in the same run"));
            }
            *before = now.max(*before);
        }
        if sight.applied > sight.committed {
            wrong.push(format!(
                "has applied {:?}, and of that only {:?} is committed",
                sight.applied, sight.committed
            ));
        }
        for wrong in wrong {
            let whose = name(sight.group, sight.replica);
            self.findings.add(|| Violation::of(format!("{whose} {wrong}")));
        }
    }
}

impl Sight {
    fn voted(&self) -> Option<Voted> {
        Some(Voted {
            us: self.us,
            node: self.node,
            group: self.group,
            replica: self.replica,
            vote: self.vote?,
        })
    }
}

/// A replica, for people.
fn name(group: u32, replica: u64) -> String {
    format!("replica {replica} of group {group}")
}
