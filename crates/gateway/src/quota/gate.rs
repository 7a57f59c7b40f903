//! The lines of what waits for the hub's plan, one per kind of operation.
//!
//! Pure. The order of use: [`Gate::enter`] at any time; [`Gate::handle_time`], [`Gate::poll_wants`], then one of
//! [`Gate::handle_answer`] and [`Gate::handle_failure`]. Only those remove what stands in front.

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
    until: Option<Instant>,
    /// `None` for one that nobody waits for.
    done: Option<oneshot::Sender<Result<(), Over>>>,
}

impl Waiting {
    fn end(self, how: Result<(), Over>) {
        if let Some(done) = self.done {
            let _ = done.send(how);
        }
    }

    fn is_gone(&self) -> bool {
        self.done.as_ref().is_some_and(oneshot::Sender::is_closed)
    }
}

#[derive(Default)]
struct Line {
    waiting: VecDeque<Waiting>,
    /// The first of them comes too soon before this.
    not_before: Option<Instant>,
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
    pub(super) fn enter(&mut self, operation: Operation, want: Want, until: Option<Instant>) -> Turn {
        let (done, turn) = oneshot::channel();
        let done = Some(done);
        self.push(operation, Waiting { want, until, done });
        turn
    }

    /// As [`enter`](Self::enter), for something that nobody waits for.
    pub(super) fn enter_unheard(&mut self, operation: Operation, want: Want) {
        let (until, done) = (None, None);
        self.push(operation, Waiting { want, until, done });
    }

    fn push(&mut self, operation: Operation, waiting: Waiting) {
        if self.is_closed || self.waiting >= QUOTA_WAITING_MAX {
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
        let why = match self.is_unreachable {
            true => Over::Unreachable,
            false => Over::Rate,
        };
        for line in self.lines.values_mut() {
            let (over, left): (VecDeque<_>, VecDeque<_>) = std::mem::take(&mut line.waiting)
                .into_iter()
                .partition(|one| one.is_gone() || one.until.is_some_and(|until| until <= now));
            line.waiting = left;
            self.waiting -= over.len();
            over.into_iter().for_each(|one| one.end(Err(why)));
        }
        self.lines.retain(|_, line| !line.waiting.is_empty());
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
        let lines = self.lines.iter().filter(|(_, line)| is_due(line));
        let front = |line: &Line| line.waiting.iter().take(share).map(|one| one.want).collect();
        lines
            .map(|(operation, line)| Wants {
                operation: *operation,
                wants: front(line),
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
                let Some(one) = line.waiting.pop_front() else {
                    break;
                };
                self.waiting -= 1;
                one.end(if *may { Ok(()) } else { Err(Over::Day) });
            }
            line.not_before = (verdicts.wait_ms > 0).then(|| now + Duration::from_millis(verdicts.wait_ms));
        }
        self.lines.retain(|_, line| !line.waiting.is_empty());
    }

    /// There was no answer; the next question is asked at `again`.
    pub(super) fn handle_failure(&mut self, again: Instant) {
        self.is_unreachable = true;
        for line in self.lines.values_mut() {
            line.not_before = Some(line.not_before.map_or(again, |before| before.max(again)));
        }
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
        all.for_each(|one| one.end(how));
        self.waiting = 0;
    }

    /// When there is something to do at the latest.
    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        let of_line = |line: &Line| {
            let patience = line.waiting.iter().filter_map(|one| one.until).min();
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
            .map(|_| gate.enter(Operation::DeviceMessage, ONE, None))
            .collect();
        let wants = gate.poll_wants(now);
        assert_eq!((wants.len(), wants[0].wants.len()), (1, 4));
        // One more comes while the keeper is asked.
        turns.push(gate.enter(Operation::DeviceMessage, ONE, None));
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
        let mut impatient = gate.enter(Operation::Registry, ONE, Some(soon));
        let mut patient = gate.enter(Operation::Registry, ONE, None);
        drop(gate.enter(Operation::Registry, ONE, None));
        gate.handle_time(soon);
        assert_eq!(impatient.try_recv(), Ok(Err(Over::Rate)));
        assert_eq!(
            gate.poll_wants(soon)[0].wants.len(),
            1,
            "who is gone is not asked for"
        );
        gate.handle_failure(soon + Duration::from_millis(5));
        let mut other = gate.enter(Operation::Registry, ONE, Some(soon));
        assert_eq!(gate.poll_wants(soon), []);
        gate.handle_time(soon);
        assert_eq!(other.try_recv(), Ok(Err(Over::Unreachable)));
        assert!(patient.try_recv().is_err());
        gate.let_all_through();
        assert_eq!(patient.try_recv(), Ok(Ok(())));
        assert_eq!(gate.poll_timeout(), None);
        gate.close();
        assert_eq!(
            gate.enter(Operation::Registry, ONE, None).try_recv(),
            Ok(Err(Over::Rate))
        );
    }

    #[test]
    fn lines_have_a_bound_and_share_a_question() {
        let (mut gate, now) = (Gate::default(), Instant::now());
        let turns: Vec<Turn> = (0..QUOTA_WAITING_MAX)
            .map(|place| {
                let operation = [Operation::Query, Operation::Job][place % 2];
                gate.enter(operation, ONE, None)
            })
            .collect();
        let mut one_more = gate.enter(Operation::Query, ONE, None);
        assert_eq!(one_more.try_recv(), Ok(Err(Over::Rate)));
        let wants = gate.poll_wants(now);
        let counts: Vec<usize> = wants.iter().map(|asked| asked.wants.len()).collect();
        assert_eq!(counts, [WANTS_MAX / 2; 2]);
        drop(turns);
        gate.handle_time(now);
        assert_eq!(gate.poll_wants(now), []);
    }
}
