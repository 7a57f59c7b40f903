//! The logs of one group's replicas, held against each other.
//!
//! Of each replica it knows what the disk has: positions, the digest of each entry, and the position before it. If all
//! replicas have one digest and one predecessor for each position, logs that have an entry in common are alike up to it;
//! so a position that is committed says what is committed before it.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::id::LogPosition;

use super::{Inside, Sight, name};

/// What a disk has of a replica's log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// The group.
    pub group: u32,
    /// The replica.
    pub replica: u64,
    /// The last entry that was let go of, for which the state stands.
    pub purged: Option<LogPosition>,
    /// Whether this is all that it has, and not what has come since it was shown last.
    pub is_whole: bool,
    /// Entries in order, with the digest of each.
    pub entries: Vec<(LogPosition, u64)>,
}

/// What is known of a group.
#[derive(Debug, Default)]
pub(super) struct Logs {
    /// Digest of each entry, and the entry before it where that is known.
    entries: BTreeMap<LogPosition, (u64, Option<LogPosition>)>,
    disks: BTreeMap<u64, Disk>,
    /// What is committed at each index, as far as it is known.
    committed: BTreeMap<u64, LogPosition>,
    /// Up to where that has no gap that could be filled.
    followed_upto: Option<u64>,
    /// The last entry that somebody in each term knew to be committed.
    known_in: BTreeMap<u64, LogPosition>,
    /// The last one of which it is known that a majority has it.
    on_majority: Option<u64>,
    /// Memberships, by index.
    members: BTreeMap<u64, Vec<BTreeSet<u64>>>,
}

#[derive(Debug, Default)]
struct Disk {
    purged: Option<LogPosition>,
    log: BTreeMap<u64, LogPosition>,
}

impl Disk {
    /// Whether it has the entry, or a state that stands for it.
    fn has(&self, at: LogPosition) -> bool {
        self.purged.is_some_and(|purged| purged.index >= at.index) || self.log.get(&at.index) == Some(&at)
    }

    fn before(&self, index: u64) -> Option<LogPosition> {
        let before = index.checked_sub(1)?;
        let purged = self.purged.filter(|purged| purged.index == before);
        self.log.get(&before).copied().or(purged)
    }
}

impl Logs {
    /// A disk shows its log: log matching, and that nothing committed goes from a disk.
    pub(super) fn show(&mut self, shown: &Shown) -> Vec<String> {
        let whose = || name(shown.group, shown.replica);
        let mut found = Vec::new();
        let disk = self.disks.entry(shown.replica).or_default();
        let mut had = None;
        if shown.is_whole {
            let is_committed = |at: &&LogPosition| self.committed.get(&at.index) == Some(at);
            had = disk.log.values().rev().find(is_committed).copied();
            disk.log.clear();
        }
        disk.purged = shown.purged;
        if let Some(purged) = shown.purged {
            disk.log = disk.log.split_off(&(purged.index + 1));
        }
        for (at, digest) in &shown.entries {
            let previous = disk.before(at.index);
            disk.log.insert(at.index, *at);
            let known = self.entries.entry(*at).or_insert((*digest, previous));
            if known.0 != *digest {
                found.push(format!("{} has another content at {at:?} than others", whose()));
            }
            match (known.1, previous) {
                (Some(one), Some(other)) if one != other => found.push(format!(
                    "{} has {other:?} before {at:?}, and others have {one:?}",
                    whose()
                )),
                (None, Some(_)) => known.1 = previous,
                _ => {}
            }
        }
        if let Some(had) = had.filter(|had| !disk.has(*had)) {
            found.push(format!(
                "{} has no entry {had:?} on disk any more, which is committed and was there",
                whose()
            ));
        }
        found
    }

    /// A replica says what is committed, and what it has applied: state machine safety.
    pub(super) fn claim(&mut self, sight: &Sight, inside: &Inside) -> Vec<String> {
        let whose = || name(sight.group, sight.replica);
        let mut found = Vec::new();
        for (what, at) in [("committed", inside.committed), ("applied", inside.applied)] {
            let Some(at) = at else { continue };
            let known = *self.committed.entry(at.index).or_insert(at);
            if known != at {
                found.push(format!(
                    "{} has {at:?} {what}, and {known:?} is committed there",
                    whose()
                ));
            }
        }
        if let Some(at) = inside.committed {
            let known = self.known_in.entry(sight.term).or_insert(at);
            if known.index < at.index {
                *known = at;
            }
        }
        found.extend(self.follow().map(|what| format!("{what}, as {} shows", whose())));
        found
    }

    /// Takes all for committed that comes before what is; says so if something else is known to be.
    fn follow(&mut self) -> Option<String> {
        let (_, top) = self.committed.last_key_value()?;
        let top = *top;
        let mut at = top;
        loop {
            let known = *self.committed.entry(at.index).or_insert(at);
            if known != at {
                self.followed_upto = Some(top.index);
                return Some(format!(
                    "{known:?} was committed, and {at:?} comes before {top:?}, which is"
                ));
            }
            if self.followed_upto >= Some(at.index) {
                break;
            }
            match self.entries.get(&at) {
                Some((_, Some(previous))) => at = *previous,
                Some((_, None)) => break,
                // It is on no disk that was seen yet, or on none any more.
                None => {
                    let is_gone = |disk: &Disk| disk.purged.is_some_and(|purged| purged.index >= at.index);
                    if self.disks.values().any(is_gone) {
                        break;
                    }
                    return None;
                }
            }
        }
        self.followed_upto = Some(top.index);
        None
    }

    /// Leader completeness, majorities, and memberships, when all that was seen at this moment is known.
    pub(super) fn judge(&mut self, sight: &Sight, inside: &Inside) -> Vec<String> {
        let mut found = Vec::new();
        let disk = self.disks.get(&sight.replica);
        if sight.leads {
            let earlier = self.known_in.range(..sight.term).map(|(_, at)| *at);
            let wanted = earlier.max_by_key(|at| at.index);
            let has = |at: &LogPosition| disk.is_some_and(|disk| disk.has(*at));
            if let Some(wanted) = wanted.filter(|at| !has(at)) {
                found.push(format!(
                    "{} leads in term {} without {wanted:?}, which was committed before",
                    name(sight.group, sight.replica),
                    sight.term
                ));
            }
        }
        if let Some(at) = inside.committed.filter(|at| self.on_majority < Some(at.index)) {
            self.on_majority = Some(at.index);
            // What was committed while the members changed may have been so by either of two memberships, and either
            // asks the set of voters that they have in common.
            let [committed, effective] = &inside.voters;
            let is_common = |voters: &&BTreeSet<u64>| committed.is_empty() || committed.contains(voters);
            let mut sets = effective.iter().filter(is_common).peekable();
            if sets.peek().is_some() && !sets.any(|voters| self.is_on_majority(at, voters)) {
                found.push(format!(
                    "{} takes {at:?} for committed, which is on the disks of no majority of {:?}",
                    name(sight.group, sight.replica),
                    inside.voters
                ));
            }
        }
        let [committed, effective] = &inside.voters;
        if !committed.is_empty() && !meet(committed, effective) {
            found.push(format!(
                "{} goes by voters {effective:?}, and {committed:?} are the last that are committed",
                name(sight.group, sight.replica)
            ));
        }
        found
    }

    fn is_on_majority(&self, at: LogPosition, voters: &BTreeSet<u64>) -> bool {
        let has = |voter: &&u64| self.disks.get(voter).is_some_and(|disk| disk.has(at));
        2 * voters.iter().filter(has).count() > voters.len()
    }

    /// The entry at `at` says who the members are.
    pub(super) fn change_members(
        &mut self,
        group: u32,
        at: LogPosition,
        voters: &[BTreeSet<u64>],
    ) -> Option<String> {
        if let Some(known) = self.members.get(&at.index) {
            let differs = known != voters;
            return differs.then(|| format!("group {group} has voters {voters:?} at {at:?}, and {known:?}"));
        }
        let before = self
            .members
            .range(..at.index)
            .next_back()
            .map(|(_, before)| before.clone());
        self.members.insert(at.index, voters.to_vec());
        let before = before.filter(|before| !meet(before, voters))?;
        Some(format!(
            "group {group} changes its voters from {before:?} to {voters:?} at {at:?} in one step"
        ))
    }
}

/// Whether one set of voters is in both memberships, so that a majority of one meets every majority of the other.
fn meet(one: &[BTreeSet<u64>], other: &[BTreeSet<u64>]) -> bool {
    one.iter().any(|set| other.contains(set))
}
