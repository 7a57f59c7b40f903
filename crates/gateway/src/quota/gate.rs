//! The lines of what waits for the hub's plan, one per kind of operation.
//!
//! Pure. The order of use: [`Gate::enter`] and [`Gate::handle_time`] at any time; [`Gate::poll_wants`], then one of
//! [`Gate::handle_answer`] and [`Gate::handle_failure`]. What is being asked for keeps its place until then, whether anybody
//! still waits for it or not: each verdict meets what it is about.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use dunlin_model::quota::keeper::{Answer, WANTS_MAX, Want, Wants};
use dunlin_model::quota::{Operation, Plan};
use tokio::sync::oneshot;

use super::{Over, Turn};
use crate::limits::QUOTA_WAITING_MAX;

/// One that waits.
struct Waiting {
    want: Want,
    patience: Patience,
    /// `None` for one that nobody waits for, or not any more.
    done: Option<oneshot::Sender<Result<(), Over>>>,
    /// Whether it has been sent away.
    is_over: bool,
}

impl Waiting {
    fn end(&mut self, how: Result<(), Over>) {
        self.is_over = true;
        if let Some(done) = self.done.take() {
            let _ = done.send(how);
        }
    }

    /// Whether it waits no longer at `now`.
    fn is_done_waiting(&self, now: Instant, is_unreachable: bool) -> bool {
        let is_gone = self.done.as_ref().is_some_and(oneshot::Sender::is_closed);
        let outlasts = is_unreachable && self.patience.outlasts_silence;
        is_gone || (!outlasts && self.patience.until.is_some_and(|until| until <= now))
    }
}

/// How long something waits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// For ever if not said.
    pub(super) until: Option<Instant>,
    /// Whether that does not count while the keeper does not answer.
    pub(super) outlasts_silence: bool,
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<Waiting>,
    /// As many of the first of them are being asked for.
    asked: usize,
    /// The first of them comes too soon before this.
    not_before: Option<Instant>,
}

impl Line {
    /// Sends away whoever waits no longer; returns how many places became free.
    fn send_away(&mut self, now: Instant, is_unreachable: bool) -> usize {
        let why = if is_unreachable {
            Over::Unreachable
        } else {
            Over::Rate
        };
        for one in &mut self.waiting {
            if !one.is_over && one.is_done_waiting(now, is_unreachable) {
                one.end(Err(why));
            }
        }
        let before = self.waiting.len();
        if self.asked == 0 && self.waiting.front().is_some_and(|front| front.is_over) && !is_unreachable {
            // Whoever is first now may be a smaller one.
            self.not_before = None;
        }
        let mut place = 0;
        let asked = self.asked;
        self.waiting.retain(|one| {
            place += 1;
            place <= asked || !one.is_over
        });
        before - self.waiting.len()
    }
}

/// See the head of this file.
#[derive(Default)]
pub(super) struct Gate {
    lines: BTreeMap<Operation, Line>,
    waiting: usize,
    /// By which those came too soon that did.
    plan: Option<Plan>,
    /// Whether the last question had no answer.
    is_unreachable: bool,
    is_closed: bool,
}

impl Gate {
    /// Puts something at the end of its line. Too many wait already: its turn is over at once.
    pub(super) fn enter(&mut self, operation: Operation, want: Want, patience: Patience) -> Turn {
        let (done, turn) = oneshot::channel();
        self.push(operation, want, patience, Some(done));
        turn
    }

    /// As [`enter`](Self::enter), for something that nobody waits for.
    pub(super) fn enter_unheard(&mut self, operation: Operation, want: Want) {
        let patience = Patience {
            until: None,
            outlasts_silence: true,
        };
        self.push(operation, want, patience, None);
    }

    fn push(
        &mut self,
        operation: Operation,
        want: Want,
        patience: Patience,
        done: Option<oneshot::Sender<Result<(), Over>>>,
    ) {
        let mut waiting = Waiting {
            want,
            patience,
            done,
            is_over: false,
        };
        if self.is_closed {
            return waiting.end(Err(Over::Unreachable));
        }
        if self.waiting >= QUOTA_WAITING_MAX {
            return waiting.end(Err(Over::Rate));
        }
        self.waiting += 1;
        self.lines
            .entry(operation)
            .or_default()
            .waiting
            .push_back(waiting);
    }

    /// Sends those away that have waited long enough.
    pub(super) fn handle_time(&mut self, now: Instant) {
        for line in self.lines.values_mut() {
            self.waiting -= line.send_away(now, self.is_unreachable);
        }
        self.lines.retain(|_, line| !line.waiting.is_empty());
    }

    /// What is being asked for has no answer yet, and should have one.
    pub(super) fn handle_silence(&mut self) {
        self.is_unreachable = true;
    }

    /// What the hub is held to: by another plan nobody may have come too soon.
    pub(super) fn handle_plan(&mut self, plan: Option<Plan>) {
        if self.plan != plan {
            self.plan = plan;
            self.lines.values_mut().for_each(|line| line.not_before = None);
        }
    }

    /// The front of each line that does not come too soon.
    pub(super) fn poll_wants(&mut self, now: Instant) -> Vec<Wants> {
        let is_due = |line: &Line| line.not_before.is_none_or(|not_before| not_before <= now);
        let due = self.lines.values().filter(|line| is_due(line)).count();
        let share = WANTS_MAX / due.max(1);
        let lines = self.lines.iter_mut().filter(|(_, line)| is_due(line));
        lines
            .map(|(operation, line)| {
                line.asked = line.waiting.len().min(share);
                let front = line.waiting.iter().take(share);
                Wants {
                    operation: *operation,
                    wants: front.map(|one| one.want).collect(),
                }
            })
            .collect()
    }

    /// Takes what the keeper says to what was polled last.
    pub(super) fn handle_answer(&mut self, answer: &Answer, now: Instant) {
        self.is_unreachable = false;
        for verdicts in &answer.verdicts {
            let Some(line) = self.lines.get_mut(&verdicts.operation) else {
                continue;
            };
            for may in &verdicts.may {
                let Some(mut one) = line.waiting.pop_front() else {
                    break;
                };
                self.waiting -= 1;
                one.end(if *may { Ok(()) } else { Err(Over::Day) });
            }
            line.not_before = (verdicts.wait_ms > 0).then(|| now + Duration::from_millis(verdicts.wait_ms));
        }
        self.end_asking(now);
    }

    fn end_asking(&mut self, now: Instant) {
        self.lines.values_mut().for_each(|line| line.asked = 0);
        self.handle_time(now);
    }

    /// There is no answer, `now`; the next question is asked at `again`.
    pub(super) fn handle_failure(&mut self, now: Instant, again: Instant) {
        self.is_unreachable = true;
        for line in self.lines.values_mut() {
            line.not_before = Some(line.not_before.map_or(again, |before| before.max(again)));
        }
        self.end_asking(now);
    }

    /// The hub has no plan any more.
    pub(super) fn let_all_through(&mut self) {
        self.end_all(Ok(()));
    }

    /// Nobody asks any more.
    pub(super) fn close(&mut self) {
        self.is_closed = true;
        self.end_all(Err(Over::Unreachable));
    }

    fn end_all(&mut self, how: Result<(), Over>) {
        let lines = std::mem::take(&mut self.lines);
        let all = lines.into_values().flat_map(|line| line.waiting);
        all.for_each(|mut one| one.end(how));
        self.waiting = 0;
    }

    /// When there is something to do at the latest.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let of_line = |line: &Line| {
            let of_one = |one: &Waiting| {
                let outlasts = self.is_unreachable && one.patience.outlasts_silence;
                one.patience.until.filter(|_| !outlasts && !one.is_over)
            };
            let patience = line.waiting.iter().filter_map(of_one).min();
            // A line that may be asked for is asked for.
            let asking = Some(line.not_before.unwrap_or_else(Instant::now));
            patience.into_iter().chain(asking).min()
        };
        self.lines.values().filter_map(of_line).min()
    }
}

#[cfg(test)]
mod tests {
    use dunlin_model::quota::keeper::Verdicts;

    use super::*;

    const ONE: Want = Want {
        count: 1,
        messages: 1,
    };
    const PATIENT: Patience = Patience {
        until: None,
        outlasts_silence: false,
    };

    fn until(until: Instant) -> Patience {
        Patience {
            until: Some(until),
            outlasts_silence: false,
        }
    }

    fn verdicts(operation: Operation, may: &[bool], wait_ms: u64) -> Answer {
        let may = may.to_vec();
        Answer {
            verdicts: vec![Verdicts {
                operation,
                may,
                wait_ms,
            }],
            used: 0,
            time_ms: 0,
        }
    }

    #[test]
    fn each_gets_the_verdict_that_is_its_own() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let mut turns: Vec<Turn> = (0..4)
            .map(|_| gate.enter(Operation::DeviceMessage, ONE, PATIENT))
            .collect();
        let wants = gate.poll_wants(now);
        assert_eq!((wants.len(), wants[0].wants.len()), (1, 4));
        // One more comes while the keeper is asked.
        turns.push(gate.enter(Operation::DeviceMessage, ONE, PATIENT));
        gate.handle_answer(&verdicts(Operation::DeviceMessage, &[true, false, true], 40), now);
        let told: Vec<_> = turns.iter_mut().map(|turn| turn.try_recv().ok()).collect();
        assert_eq!(
            told,
            [Some(Ok(())), Some(Err(Over::Day)), Some(Ok(())), None, None]
        );
        assert_eq!(gate.poll_wants(now), [], "it comes too soon");
        assert_eq!(gate.poll_timeout(), Some(now + Duration::from_millis(40)));
        let later = now + Duration::from_millis(40);
        assert_eq!(gate.poll_wants(later)[0].wants.len(), 2);
    }

    #[test]
    fn whoever_waits_too_long_goes_and_is_told_why() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let soon = now + Duration::from_millis(10);
        let mut impatient = gate.enter(Operation::Registry, ONE, until(soon));
        let mut patient = gate.enter(Operation::Registry, ONE, PATIENT);
        drop(gate.enter(Operation::Registry, ONE, PATIENT));
        gate.handle_time(soon);
        assert_eq!(impatient.try_recv(), Ok(Err(Over::Rate)));
        assert_eq!(
            gate.poll_wants(soon)[0].wants.len(),
            1,
            "who is gone is not asked for"
        );
        gate.handle_failure(soon, soon + Duration::from_millis(5));
        let mut other = gate.enter(Operation::Registry, ONE, until(soon));
        let mut stoic = gate.enter(
            Operation::Registry,
            ONE,
            Patience {
                outlasts_silence: true,
                ..until(soon)
            },
        );
        assert_eq!(gate.poll_wants(soon), []);
        gate.handle_time(soon);
        assert_eq!(other.try_recv(), Ok(Err(Over::Unreachable)));
        assert!(stoic.try_recv().is_err(), "it waits for the keeper to come back");
        assert!(patient.try_recv().is_err());
        gate.let_all_through();
        assert_eq!(patient.try_recv(), Ok(Ok(())));
        assert_eq!(gate.poll_timeout(), None);
        gate.close();
        assert_eq!(
            gate.enter(Operation::Registry, ONE, PATIENT).try_recv(),
            Ok(Err(Over::Unreachable))
        );
    }

    #[test]
    fn a_verdict_meets_what_it_is_about_whoever_has_gone_meanwhile() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let soon = now + Duration::from_millis(10);
        let mut first = gate.enter(Operation::Query, ONE, until(soon));
        let mut second = gate.enter(Operation::Query, ONE, PATIENT);
        assert_eq!(gate.poll_wants(now)[0].wants.len(), 2);
        gate.handle_silence();
        gate.handle_time(soon);
        assert_eq!(first.try_recv(), Ok(Err(Over::Unreachable)));
        gate.handle_answer(&verdicts(Operation::Query, &[true, false], 0), soon);
        assert_eq!(
            second.try_recv(),
            Ok(Err(Over::Day)),
            "the first verdict was the first one's"
        );
        assert_eq!(gate.waiting, 0);
    }

    #[test]
    fn a_large_one_that_goes_leaves_no_wait_to_those_behind_it() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let soon = now + Duration::from_millis(10);
        let large = Want {
            count: 60,
            messages: 0,
        };
        let _large = gate.enter(Operation::Registry, large, until(soon));
        let _small = gate.enter(Operation::Registry, ONE, PATIENT);
        gate.poll_wants(now);
        gate.handle_answer(&verdicts(Operation::Registry, &[], 59_000), now);
        assert_eq!(gate.poll_wants(soon), []);
        gate.handle_time(soon);
        assert_eq!(gate.poll_wants(soon)[0].wants, [ONE]);
    }

    #[test]
    fn lines_have_a_bound_and_share_a_question() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let turns: Vec<Turn> = (0..QUOTA_WAITING_MAX)
            .map(|place| {
                let operation = [Operation::Query, Operation::Job][place % 2];
                gate.enter(operation, ONE, PATIENT)
            })
            .collect();
        let mut one_more = gate.enter(Operation::Query, ONE, PATIENT);
        assert_eq!(one_more.try_recv(), Ok(Err(Over::Rate)));
        let wants = gate.poll_wants(now);
        let counts: Vec<usize> = wants.iter().map(|asked| asked.wants.len()).collect();
        assert_eq!(counts, [WANTS_MAX / 2; 2]);
        drop(turns);
        gate.handle_failure(now, now);
        assert!(gate.poll_wants(now).is_empty() && gate.waiting == 0);
    }
}
