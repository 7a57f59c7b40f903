//! I6 — consumer groups: committed offsets rise, and whoever resumes skips nothing.
//!
//! Source: `docs/invariants.md` I6; `model/group/commit.rs`. Members of one group commit forward only, so of each partition:
//!
//! 1. nobody is told less than what was known to be committed before he asked, nor what nobody has committed;
//! 2. whoever takes it up begins at the committed offset, or at 0 where there is none, so that each offset below the largest
//!    committed one was read by somebody;
//! 3. what a member reads from there on rises without a gap, and is not gone;
//! 4. once a member of a later generation has committed, no commit of an earlier one is acknowledged.
//!
//! Offsets of what was erased are read by nobody from then on, and by some before: rules 2 and 3 leave them out.
//!
//! A commit whose outcome is not known may come at any later time, until a later generation has committed: it may take the
//! offset back to where it was, and then events are read twice (`model/group/commit.rs`), which is no skip.

use std::collections::BTreeMap;

use super::erasing::Holes;
use super::{Findings, Place, Violation};
use crate::workload::operation::Outcome;
use crate::workload::step::{Commit, Poll, Step, Told};

/// What is known of one partition.
#[derive(Default)]
struct Partition<'a> {
    told: Vec<&'a Told>,
    commits: Vec<&'a Commit>,
    /// What was read, by anybody: each run with the offset behind it.
    runs: Vec<(u64, u64)>,
    /// What each member reads next.
    next: BTreeMap<&'a str, u64>,
}

/// An offset that was committed for certain, by whom, and since when that is known.
struct Known {
    offset: u64,
    generation: i32,
    us: u64,
}

/// Offsets that fell, were skipped, or were committed by who was not to.
pub fn check(steps: &[Step], holes: &Holes) -> Findings {
    let mut findings = Findings::default();
    let mut partitions: BTreeMap<u32, Partition<'_>> = BTreeMap::new();
    let mut add = |partition: u32, offset: u64, what: String| {
        findings.add(|| Violation {
            places: vec![Place {
                shard: partition,
                offset,
            }],
            ..Violation::of(what)
        });
    };
    for step in steps {
        match step {
            Step::Told(told) => {
                let of = partitions.entry(told.partition).or_default();
                of.told.push(told);
                if let Some(taken_up) = &told.taken_up {
                    of.next.insert(&taken_up.member, taken_up.start);
                    if taken_up.start != told.committed.unwrap_or(0) {
                        let what = format!(
                            "member {} begins here, though {} is committed",
                            taken_up.member,
                            shown(told.committed)
                        );
                        add(told.partition, taken_up.start, what);
                    }
                }
            }
            Step::Poll(poll) => {
                let of = partitions.entry(poll.partition).or_default();
                if let Some((offset, what)) = of.read(poll, holes) {
                    add(poll.partition, offset, what);
                }
            }
            Step::Commit(commit) => partitions
                .entry(commit.partition)
                .or_default()
                .commits
                .push(commit),
            Step::Share(_) | Step::Left(_) => {}
        }
    }
    for (number, mut partition) in partitions {
        let known = partition.known();
        for told in &partition.told {
            if let Some(what) = partition.fallen(told, &known) {
                add(number, told.committed.unwrap_or(0), what);
            }
        }
        for (offset, what) in partition.not_fenced() {
            add(number, offset, what);
        }
        if let Some((offset, what)) =
            partition.skipped(&known, |from, until| holes.may_be(number, from, until))
        {
            add(number, offset, what);
        }
    }
    findings
}

fn shown(offset: Option<u64>) -> String {
    offset.map_or_else(|| "nothing".to_owned(), |offset| offset.to_string())
}

impl<'a> Partition<'a> {
    /// Takes in what a member read; what is wrong with it, and where.
    fn read(&mut self, poll: &'a Poll, holes: &Holes) -> Option<(u64, String)> {
        let member = poll.member.as_str();
        let Some(next) = self.next.get_mut(member) else {
            return Some((
                poll.from,
                format!("member {member} reads what it has not taken up"),
            ));
        };
        if poll.is_gone {
            return Some((
                poll.from,
                format!("member {member} is told that its place is gone"),
            ));
        }
        self.runs.extend(&poll.runs);
        for (from, until) in &poll.runs {
            let expected = std::mem::replace(next, *until);
            let is_gap = expected < *from && holes.may_be(poll.partition, expected, *from);
            if *from != expected && !is_gap {
                return Some((*from, format!("member {member} is given this after {expected}")));
            }
        }
        None
    }

    /// What was acknowledged, and what somebody was told.
    fn known(&self) -> Vec<Known> {
        let acked = self.commits.iter().filter(|commit| commit.outcome == Outcome::Ok);
        let acked = acked.map(|commit| Known {
            offset: commit.offset,
            generation: commit.generation,
            us: commit.completed_us,
        });
        let told = self.told.iter().filter_map(|told| {
            let offset = told.committed?;
            let by = self.commits.iter().filter(|commit| commit.offset == offset);
            Some(Known {
                offset,
                generation: by.map(|commit| commit.generation).min()?,
                us: told.completed_us,
            })
        });
        acked.chain(told).collect()
    }

    /// Rule 1.
    fn fallen(&self, told: &Told, known: &[Known]) -> Option<String> {
        let before = || known.iter().filter(|known| known.us < told.invoked_us);
        let floor = before().map(|known| known.offset).max();
        let Some(offset) = told.committed else {
            return floor.map(|floor| format!("nothing is committed, though {floor} was"));
        };
        let asked = |commit: &&&Commit| commit.offset == offset && commit.invoked_us < told.completed_us;
        let by = || self.commits.iter().filter(asked);
        if by().next().is_none() {
            return Some("nobody has committed this".to_owned());
        }
        let above = before().filter(|known| known.offset > offset);
        let latest = above.map(|known| known.generation).max()?;
        // It may have come late.
        let is_late = |commit: &&&Commit| commit.outcome == Outcome::Unknown && commit.generation >= latest;
        let is_excused = by().any(|commit| is_late(&commit));
        (!is_excused).then(|| format!("this is committed, though {} was", shown(floor)))
    }

    /// Rule 2, of everybody together.
    fn skipped(&mut self, known: &[Known], may_be_gap: impl Fn(u64, u64) -> bool) -> Option<(u64, String)> {
        let committed = known.iter().map(|known| known.offset).max()?;
        self.runs.sort_unstable();
        let mut read = 0;
        for (from, until) in &self.runs {
            if *from > read && !may_be_gap(read, *from) {
                break;
            }
            read = read.max(*until);
        }
        (read < committed && !may_be_gap(read, committed)).then(|| {
            (
                read,
                format!("nobody has read this, though {committed} is committed"),
            )
        })
    }

    /// Rule 4.
    fn not_fenced(&self) -> Vec<(u64, String)> {
        let acked = || self.commits.iter().filter(|commit| commit.outcome == Outcome::Ok);
        let fenced = |commit: &&&Commit| {
            acked()
                .find(|other| other.generation > commit.generation && other.completed_us < commit.invoked_us)
        };
        let found = acked().filter_map(|commit| {
            let later = fenced(&commit)?;
            let what = format!(
                "generation {} commits after generation {}",
                commit.generation, later.generation
            );
            Some((commit.offset, what))
        });
        found.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::erasure::{Erasure, Sent, Trace};
    use crate::workload::step::TakenUp;

    /// Where nothing was erased.
    fn check(steps: &[Step]) -> Findings {
        super::check(steps, &Holes::default())
    }

    /// Member `member` of `generation` takes partition 0 up at `us`, told that `committed` is.
    fn taken_up(member: &str, generation: i32, us: u64, committed: Option<u64>) -> Step {
        let taken_up = TakenUp {
            member: member.into(),
            generation,
            start: committed.unwrap_or(0),
        };
        told(us, committed, Some(taken_up))
    }

    fn told(us: u64, committed: Option<u64>, taken_up: Option<TakenUp>) -> Step {
        Step::Told(Told {
            partition: 0,
            committed,
            invoked_us: us,
            completed_us: us + 1,
            taken_up,
        })
    }

    fn poll(member: &str, from: u64, until: u64) -> Step {
        Step::Poll(Poll {
            member: member.into(),
            partition: 0,
            from,
            runs: vec![(from, until)],
            is_gone: false,
        })
    }

    fn commit(generation: i32, us: u64, offset: u64, outcome: Outcome) -> Step {
        Step::Commit(Commit {
            member: "m".into(),
            generation,
            partition: 0,
            offset,
            invoked_us: us,
            completed_us: us + 1,
            outcome,
        })
    }

    /// One member reads and commits, and another takes over.
    fn good() -> Vec<Step> {
        vec![
            taken_up("a", 1, 10, None),
            poll("a", 0, 50),
            commit(1, 20, 50, Outcome::Ok),
            poll("a", 50, 90),
            taken_up("b", 2, 30, Some(50)),
            poll("b", 50, 100),
            commit(2, 40, 100, Outcome::Ok),
            told(50, Some(100), None),
        ]
    }

    /// The one thing that is wrong.
    fn found(steps: &[Step]) -> String {
        let findings = check(steps);
        assert_eq!(findings.count, 1, "{:?}", findings.examples);
        findings.examples[0].to_string()
    }

    #[test]
    fn what_is_read_twice_is_no_violation() {
        assert!(check(&good()).is_empty(), "{:?}", check(&good()).examples);
    }

    #[test]
    fn an_offset_that_falls_is_found() {
        let mut steps = good();
        steps.push(told(60, Some(50), None));
        assert!(found(&steps).contains("though 100 was"));
        let mut steps = good();
        steps.push(told(60, None, None));
        assert!(found(&steps).contains("nothing is committed, though 100 was"));
        // Nobody had an answer yet.
        let mut steps = good();
        steps.push(told(40, Some(50), None));
        assert!(check(&steps).is_empty());
    }

    #[test]
    fn an_offset_that_nobody_committed_is_found() {
        let mut steps = good();
        steps.push(poll("b", 100, 130));
        steps.push(told(60, Some(120), None));
        assert!(found(&steps).contains("nobody has committed this"));
    }

    #[test]
    fn what_somebody_was_told_counts_as_committed() {
        let mut steps = good();
        steps.push(poll("b", 100, 130));
        steps.push(commit(2, 60, 130, Outcome::Unknown));
        steps.push(told(70, Some(100), None));
        assert!(check(&steps).is_empty(), "it may never come");
        steps.push(told(80, Some(130), None));
        assert!(check(&steps).is_empty(), "or late");
        steps.push(told(90, Some(100), None));
        assert!(found(&steps).contains("though 130 was"));
    }

    #[test]
    fn a_commit_may_come_late_until_a_later_generation_has_committed() {
        let late = |generation| {
            let mut steps = good();
            steps.insert(6, commit(generation, 35, 70, Outcome::Unknown));
            steps.push(told(60, Some(70), None));
            steps
        };
        assert!(check(&late(2)).is_empty());
        assert!(found(&late(1)).contains("though 100 was"));
    }

    #[test]
    fn whoever_begins_elsewhere_is_found() {
        for (committed, start) in [(Some(100), 90), (Some(100), 110), (None, 7)] {
            let mut steps = if committed.is_none() { Vec::new() } else { good() };
            let taken_up = TakenUp {
                member: "c".into(),
                generation: 3,
                start,
            };
            steps.push(told(60, committed, Some(taken_up)));
            assert!(found(&steps).contains("begins here"), "{start}");
        }
    }

    #[test]
    fn what_nobody_reads_is_found_once_something_behind_it_is_committed() {
        let mut steps = good();
        steps.retain(|step| !matches!(step, Step::Poll(poll) if poll.member == "a"));
        let found = found(&steps);
        assert!(
            found.contains("nobody has read this, though 100 is committed, at 0/0"),
            "{found}"
        );
        // What nobody has passed may yet be read.
        assert!(check(&[taken_up("a", 1, 10, None)]).is_empty());
    }

    #[test]
    fn a_gap_and_a_repetition_within_a_share_are_found() {
        for (from, until) in [(101, 110), (99, 110)] {
            let mut steps = good();
            steps.push(poll("b", from, until));
            assert!(found(&steps).contains("after 100"), "{from}");
        }
        let mut steps = good();
        let mut within = Poll {
            member: "b".into(),
            partition: 0,
            from: 100,
            runs: vec![(100, 105), (106, 110)],
            is_gone: false,
        };
        steps.push(Step::Poll(within.clone()));
        assert!(found(&steps).contains("after 105"));
        within.runs.clear();
        within.is_gone = true;
        let mut steps = good();
        steps.push(Step::Poll(within));
        assert!(found(&steps).contains("is gone"));
        let mut steps = good();
        steps.push(poll("c", 100, 110));
        assert!(found(&steps).contains("has not taken up"));
    }

    #[test]
    fn what_was_erased_is_no_gap_and_what_stands_beside_it_is() {
        let sent = |seq, offset| {
            Trace::Sent(Sent {
                device: "d".into(),
                seq,
                shard: 0,
                offset: Some(offset),
            })
        };
        let erasure = Trace::Erasure(Erasure {
            device: "d".into(),
            node: 0,
            invoked_us: 1,
            completed_us: 2,
            outcome: Outcome::Ok,
            upto: Some(110),
        });
        let holes = Holes::of(&[sent(0, 60), sent(1, 61), sent(2, 100), erasure]);
        let split = |from, until, next| {
            let mut steps = good();
            // All that is read is without the erased ones, by whoever reads.
            steps.retain(|step| !matches!(step, Step::Poll(poll) if poll.from == 50));
            let runs = vec![(50, from), (until, 100)];
            for (place, member) in [(3, "a"), (5, "b")] {
                let poll = Poll {
                    member: member.into(),
                    partition: 0,
                    from: 50,
                    runs: runs.clone(),
                    is_gone: false,
                };
                steps.insert(place.min(steps.len()), Step::Poll(poll));
            }
            steps.push(poll("b", next, 120));
            super::check(&steps, &holes).count
        };
        assert_eq!(split(60, 62, 101), 0);
        assert!(split(60, 63, 101) > 0, "62 was nobody's who was erased");
        assert!(split(60, 62, 102) > 0, "nor was 101");
    }

    #[test]
    fn a_commit_of_an_earlier_generation_is_found_once_a_later_one_has_committed() {
        let mut steps = good();
        steps.push(commit(1, 60, 100, Outcome::Ok));
        assert!(found(&steps).contains("generation 1 commits after generation 2"));
        // Refused, or begun before: nothing is wrong.
        for fine in [
            commit(1, 60, 100, Outcome::Fail),
            commit(1, 60, 100, Outcome::Unknown),
            commit(1, 40, 100, Outcome::Ok),
        ] {
            let mut steps = good();
            steps.push(fine);
            assert!(check(&steps).is_empty());
        }
    }
}
