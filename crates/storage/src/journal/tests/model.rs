//! Random operations, power cuts and restarts against a model: nothing confirmed is ever lost.

use std::collections::BTreeMap;
use std::sync::mpsc;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

/// What a caller may do.
#[derive(Debug, Clone)]
enum Step {
    Append {
        group: u32,
        count: u64,
        bytes: usize,
        wait: bool,
    },
    Overwrite {
        group: u32,
        back: u64,
    },
    Vote {
        group: u32,
        wait: bool,
    },
    Committed {
        group: u32,
    },
    Truncate {
        group: u32,
        back: u64,
    },
    Purge {
        group: u32,
        back: u64,
        beyond: bool,
    },
    Remove {
        group: u32,
    },
    CutPower {
        seed: Option<u64>,
    },
    Restart,
}

fn steps() -> impl Strategy<Value = Step> {
    let group = 1u32..4;
    prop_oneof![
        6 => (group.clone(), 1u64..5, 0usize..9000, any::<bool>())
            .prop_map(|(group, count, bytes, wait)| Step::Append { group, count, bytes, wait }),
        1 => (group.clone(), 1u64..4).prop_map(|(group, back)| Step::Overwrite { group, back }),
        3 => (group.clone(), any::<bool>()).prop_map(|(group, wait)| Step::Vote { group, wait }),
        1 => group.clone().prop_map(|group| Step::Committed { group }),
        1 => (group.clone(), 0u64..4).prop_map(|(group, back)| Step::Truncate { group, back }),
        3 => (group.clone(), 0u64..6, prop::bool::weighted(0.1))
            .prop_map(|(group, back, beyond)| Step::Purge { group, back, beyond }),
        1 => prop::bool::weighted(0.3).prop_flat_map(move |_| (1u32..4).prop_map(|group| Step::Remove { group })),
        3 => prop::option::of(any::<u64>()).prop_map(|seed| Step::CutPower { seed }),
        1 => Just(Step::Restart),
    ]
}

/// What one replica must hold after a power cut.
#[derive(Default, Clone)]
struct Model {
    /// Everything handed to the journal, in the order of the calls.
    entries: BTreeMap<u64, LogEntry>,
    purged: Option<u64>,
    /// Votes handed in, and how many of them were confirmed.
    votes: Vec<Bytes>,
    /// Entries below this index were confirmed and are not truncated or purged since.
    confirmed: Arc<Mutex<Confirmed>>,
    /// Bodies that were ever handed in under an index: nothing else may be found.
    ever: BTreeMap<u64, Vec<LogEntry>>,
    removed_unconfirmed: bool,
}

#[derive(Default)]
struct Confirmed {
    next_index: u64,
    votes: usize,
}

impl Model {
    fn next(&self) -> u64 {
        let floor = self.purged.map_or(0, |purged| purged + 1);
        self.entries.keys().next_back().map_or(floor, |last| last + 1)
    }

    fn cut(&mut self, from: u64) {
        self.entries.split_off(&from);
        let mut confirmed = self.confirmed.lock().unwrap();
        confirmed.next_index = confirmed.next_index.min(from);
    }
}

struct World {
    disk: FaultyDisk,
    journal: Journal,
    models: BTreeMap<u32, Model>,
    term: u64,
    serial: u64,
}

impl World {
    fn new() -> World {
        let disk = FaultyDisk::new();
        let journal = open(&disk);
        World {
            disk,
            journal,
            models: BTreeMap::new(),
            term: 1,
            serial: 0,
        }
    }

    fn append(&mut self, group: u32, first: u64, count: u64, bytes: usize, wait_for: bool) {
        self.serial += 1;
        let serial = self.serial;
        let entries: Vec<_> = (first..first + count)
            .map(|index| {
                let mut body = vec![serial as u8; bytes];
                body.extend_from_slice(&serial.to_le_bytes());
                entry(self.term, index, body)
            })
            .collect();
        let model = self.models.entry(group).or_default();
        let log = self.journal.replica(id(group));
        if first < model.next() {
            model.cut(first);
        }
        for one in &entries {
            model
                .ever
                .entry(one.position.index)
                .or_default()
                .push(one.clone());
        }
        let confirmed = Arc::clone(&model.confirmed);
        let (sender, receiver) = mpsc::channel();
        let copy = entries.clone();
        log.append(
            copy,
            Box::new(move |outcome| {
                if outcome.is_ok() {
                    let mut confirmed = confirmed.lock().unwrap();
                    // Only this may be confirmed: what was cut since is not in the way, because
                    // every call below waits before it cuts.
                    confirmed.next_index = confirmed.next_index.max(first + count);
                }
                let _ = sender.send(outcome);
            }),
        );
        if wait_for {
            match receiver.recv().unwrap() {
                Ok(()) => model
                    .entries
                    .extend(entries.into_iter().map(|one| (one.position.index, one))),
                Err(JournalError::Full(_)) => {
                    // All appends before it may be refused as well: believe what the log says.
                    let next = log.state().last.map_or(0, |last| last.index + 1);
                    let _ = model.entries.split_off(&next);
                }
                Err(error) => panic!("append: {error}"),
            }
        } else {
            model
                .entries
                .extend(entries.into_iter().map(|one| (one.position.index, one)));
        }
    }

    /// Waits until nothing is under way.
    fn settle(&mut self) {
        for group in self.models.keys().copied().collect::<Vec<_>>() {
            // An append of nothing is answered in its turn, refused or not.
            let log = self.journal.replica(id(group));
            let _ = append(&log, vec![]);
            let model = self.models.get_mut(&group).unwrap();
            let next = log.state().last.map_or(0, |last| last.index + 1);
            let _ = model.entries.split_off(&next);
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Append {
                group,
                count,
                bytes,
                wait,
            } => {
                let next = self
                    .journal
                    .replica(id(group))
                    .state()
                    .last
                    .map_or(0, |last| last.index + 1);
                let model = self.models.entry(group).or_default();
                let _ = model.entries.split_off(&next);
                // Refusals may race with this; a settled log cannot have a hole.
                if !wait {
                    self.settle();
                }
                let next = self
                    .journal
                    .replica(id(group))
                    .state()
                    .last
                    .map_or(0, |last| last.index + 1);
                self.append(group, next, count, bytes, wait);
            }
            Step::Overwrite { group, back } => {
                self.settle();
                let model = self.models.entry(group).or_default();
                let floor = model.purged.map_or(0, |purged| purged + 1);
                let first = model.next().saturating_sub(back).max(floor);
                self.term += 1;
                self.append(group, first, 1, 10, true);
            }
            Step::Vote {
                group,
                wait: wait_for,
            } => {
                self.serial += 1;
                let vote = Bytes::from(format!("{:020}", self.serial));
                let model = self.models.entry(group).or_default();
                model.votes.push(vote.clone());
                let count = model.votes.len();
                let confirmed = Arc::clone(&model.confirmed);
                let (sender, receiver) = mpsc::channel();
                self.journal.replica(id(group)).save_vote(
                    vote,
                    Box::new(move |outcome| {
                        if outcome.is_ok() {
                            confirmed.lock().unwrap().votes = count;
                        }
                        let _ = sender.send(());
                    }),
                );
                if wait_for {
                    receiver.recv().unwrap();
                }
            }
            Step::Committed { group } => {
                let log = self.journal.replica(id(group));
                if let Some(last) = log.state().last {
                    log.save_committed(last);
                }
            }
            Step::Truncate { group, back } => {
                self.settle();
                let log = self.journal.replica(id(group));
                let model = self.models.entry(group).or_default();
                let floor = model.purged.map_or(0, |purged| purged + 1);
                let next = model.next().saturating_sub(back).max(floor);
                model.cut(next);
                let last = next.checked_sub(1).and_then(|index| log.position_at(index));
                self.term += 1;
                let _ = wait(|done| log.truncate_after(last, done));
            }
            Step::Purge { group, back, beyond } => {
                self.settle();
                let log = self.journal.replica(id(group));
                let model = self.models.entry(group).or_default();
                let upto = if beyond {
                    model.next() + 5
                } else {
                    model.next().saturating_sub(back + 1)
                };
                let position = log.position_at(upto).unwrap_or(at(self.term, upto));
                if model.next() == 0 && !beyond || model.purged.is_some_and(|purged| purged >= upto) {
                    return;
                }
                log.purge(position);
                model.entries = model.entries.split_off(&(upto + 1));
                model.purged = Some(upto);
            }
            Step::Remove { group } => {
                self.settle();
                let outcome = wait(|done| self.journal.replica(id(group)).remove(done));
                let model = Model {
                    removed_unconfirmed: outcome.is_err(),
                    ..Model::default()
                };
                self.models.insert(group, model);
            }
            Step::CutPower { seed } => {
                let cut = seed.map_or(PowerCut::LoseAll, |seed| PowerCut::KeepSome { seed });
                self.disk = self.disk.power_cut(cut);
                // The old life ends first, so that all its callbacks are in.
                self.journal.stop();
                self.journal = open(&self.disk);
                self.check();
            }
            Step::Restart => {
                self.journal.stop();
                self.journal = open(&self.disk);
                assert!(self.journal.stats().clean_start || self.journal.stats().segments_in_use >= 5);
                self.check();
            }
        }
    }

    /// After a restart: nothing confirmed is lost or changed, nothing is there that never was.
    fn check(&mut self) {
        assert_eq!(self.journal.stats().damaged, vec![], "a power cut is no damage");
        for (group, model) in &mut self.models {
            if std::mem::take(&mut model.removed_unconfirmed) {
                continue;
            }
            let log = self.journal.replica(id(*group));
            let state = log.state();
            let (confirmed_next, confirmed_votes) = {
                let confirmed = model.confirmed.lock().unwrap();
                (confirmed.next_index, confirmed.votes)
            };
            let purged = state.purged.map(|purged| purged.index);
            assert!(
                purged <= model.purged,
                "group {group}: nothing is purged that was not"
            );
            let found = log
                .read(purged.map_or(0, |purged| purged + 1), u64::MAX, usize::MAX)
                .unwrap_or_else(|error| panic!("group {group}: {error}"));
            let found: BTreeMap<u64, LogEntry> =
                found.into_iter().map(|one| (one.position.index, one)).collect();
            for (index, one) in &found {
                assert!(
                    model.ever.get(index).is_some_and(|ever| ever.contains(one)),
                    "group {group}: entry {index} was never appended"
                );
            }
            for (index, one) in model.entries.range(..confirmed_next) {
                assert_eq!(
                    found.get(index),
                    Some(one),
                    "group {group}: entry {index} was confirmed"
                );
            }
            if let Some(committed) = state.committed {
                assert!(Some(committed.index) <= state.last.map(|last| last.index));
            }
            let place = state.vote.as_ref().map_or(0, |vote| {
                1 + model
                    .votes
                    .iter()
                    .position(|known| known == vote)
                    .expect("a vote that was saved")
            });
            assert!(place >= confirmed_votes, "group {group}: the vote went back");
            // From here on the disk decides.
            model.entries = found;
            model.purged = purged;
            let next = model.next();
            let mut confirmed = model.confirmed.lock().unwrap();
            confirmed.next_index = next;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: std::env::var("PROPTEST_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(150),
        failure_persistence: None,
        max_shrink_iters: 2000,
        ..ProptestConfig::default()
    })]

    #[test]
    fn nothing_confirmed_is_ever_lost(list in prop::collection::vec(steps(), 1..60)) {
        let mut world = World::new();
        for step in list {
            world.step(step);
        }
        world.step(Step::CutPower { seed: None });
    }
}
