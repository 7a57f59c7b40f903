//! Whether a history of one object is linearizable: each operation takes effect at one moment between its call
//! and its answer, and the object is what a sequential one would be.
//!
//! Source: Herlihy and Wing, 1990; the search is that of Wing and Gong, 1993, with the memory of Lowe, 2016: a
//! set of operations that was placed before, with the same state after it, is not tried again. Objects are
//! checked one at a time, since a history is linearizable if those of its objects are. What an object does is a
//! [`Model`]; who has which objects is elsewhere ([`super::registrations`]).
//!
//! An operation without an answer may take effect at any later time, or never.

use std::collections::HashSet;
use std::hash::Hash;

/// A sequential object.
pub trait Model {
    /// What it remembers.
    type State: Clone + Eq + Hash;
    /// What it can be asked.
    type Call;
    /// What it can answer.
    type Answer;

    /// What it remembers at first.
    fn start() -> Self::State;

    /// The state after a call that was answered so; `None` if it cannot be answered so. Without an answer: the
    /// state after it took effect, `None` if it has none.
    fn step(state: &Self::State, call: &Self::Call, answer: Option<&Self::Answer>) -> Option<Self::State>;
}

/// An operation of a history.
#[derive(Debug, Clone)]
pub struct Operation<C, A> {
    /// When it was called.
    pub called: u64,
    /// When it was answered, and how; `None` if it never was.
    pub answered: Option<(u64, A)>,
    /// What was called.
    pub call: C,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// There is an order that explains every answer.
    Linearizable,
    /// There is none. The operation, by its place in the history, whose answer the longest attempt could not
    /// explain, and the operations that attempt had placed before it.
    Not {
        /// Whose answer.
        stuck: usize,
        /// How many were placed.
        placed: usize,
    },
    /// The search was given up after so many steps.
    Undecided,
}

/// Searches for an order, in `steps_max` steps at the most.
pub fn check<M: Model>(history: &[Operation<M::Call, M::Answer>], steps_max: u64) -> Decision {
    Search::<M>::new(history).run(steps_max)
}

/// Operations that are shown beside one whose answer nothing explains.
const INVOLVED_MAX: usize = 12;

/// The operations that bear on the answer of `stuck`, by their places and in the order of their calls: those at the same
/// time, and the latest that had been answered when it was called.
pub fn involved<C, A>(history: &[Operation<C, A>], stuck: usize) -> Vec<usize> {
    let end = |operation: &Operation<C, A>| operation.answered.as_ref().map_or(u64::MAX, |(at, _)| *at);
    let (from, until) = (history[stuck].called, end(&history[stuck]));
    let others = (0..history.len()).filter(|place| *place != stuck);
    let mut others: Vec<usize> = others.filter(|place| history[*place].called <= until).collect();
    others.sort_by_key(|place| std::cmp::Reverse(end(&history[*place])));
    // What was never answered and called long ago crowds out nobody.
    let (before, beside): (Vec<_>, Vec<_>) =
        others.into_iter().partition(|place| end(&history[*place]) < from);
    let mut shown: Vec<usize> = before.into_iter().take(INVOLVED_MAX / 3).collect();
    shown.extend(beside.into_iter().rev().take(INVOLVED_MAX - shown.len()));
    shown.sort_by_key(|place| history[*place].called);
    shown
}

/// The end of the list, and its beginning.
const NONE: usize = usize::MAX;

/// A call or an answer, in the order of time.
#[derive(Clone, Copy)]
struct Event {
    operation: usize,
    is_answer: bool,
    /// Of a call: its answer, if there is one.
    answer: usize,
    previous: usize,
    next: usize,
}

/// Operations as bits.
type Set = Box<[u64]>;

struct Search<'a, M: Model> {
    history: &'a [Operation<M::Call, M::Answer>],
    events: Vec<Event>,
    first: usize,
    /// Operations that have an answer and are not placed.
    open: usize,
    placed: Set,
    state: M::State,
    /// Calls that were placed, each with the state before it.
    path: Vec<(usize, M::State)>,
    seen: HashSet<(Set, M::State)>,
}

impl<'a, M: Model> Search<'a, M> {
    fn new(history: &'a [Operation<M::Call, M::Answer>]) -> Self {
        // At one moment calls come first: it may have been either way round.
        let mut order: Vec<(u64, bool, usize)> = Vec::with_capacity(history.len() * 2);
        for (place, operation) in history.iter().enumerate() {
            order.push((operation.called, false, place));
            if let Some((at, _)) = operation.answered {
                order.push((at.max(operation.called), true, place));
            }
        }
        order.sort_unstable();
        let mut call_of = vec![NONE; history.len()];
        let mut events: Vec<Event> = Vec::with_capacity(order.len());
        for (place, (_, is_answer, operation)) in order.iter().copied().enumerate() {
            if is_answer {
                let call: &mut Event = &mut events[call_of[operation]];
                call.answer = place;
            } else {
                call_of[operation] = place;
            }
            events.push(Event {
                operation,
                is_answer,
                answer: NONE,
                previous: place.checked_sub(1).unwrap_or(NONE),
                next: if place + 1 < order.len() { place + 1 } else { NONE },
            });
        }
        let answered = history.iter().filter(|operation| operation.answered.is_some());
        Self {
            history,
            first: if events.is_empty() { NONE } else { 0 },
            events,
            open: answered.count(),
            placed: vec![0; history.len().div_ceil(64)].into(),
            state: M::start(),
            path: Vec::new(),
            seen: HashSet::new(),
        }
    }

    fn run(mut self, steps_max: u64) -> Decision {
        let (mut at, mut longest) = (self.first, (0, NONE));
        for _ in 0..steps_max {
            if self.open == 0 {
                return Decision::Linearizable;
            }
            let event = self.events[at];
            if !event.is_answer {
                at = match self.place(at) {
                    true => self.first,
                    false => event.next,
                };
                continue;
            }
            // What was called before this answer, and could be placed, was tried: the last choice was wrong.
            if longest.1 == NONE || self.path.len() > longest.0 {
                longest = (self.path.len(), event.operation);
            }
            let Some((call, state)) = self.path.pop() else {
                let (placed, stuck) = longest;
                return Decision::Not { stuck, placed };
            };
            self.state = state;
            self.put_back(call);
            at = self.events[call].next;
        }
        Decision::Undecided
    }

    /// Places the call next, unless its answer does not fit or that was tried before.
    fn place(&mut self, call: usize) -> bool {
        let Event {
            operation, answer, ..
        } = self.events[call];
        let Operation {
            call: asked,
            answered,
            ..
        } = &self.history[operation];
        let answered = answered.as_ref().map(|(_, answer)| answer);
        let Some(next) = M::step(&self.state, asked, answered) else {
            return false;
        };
        let bit = 1 << (operation % 64);
        self.placed[operation / 64] |= bit;
        if !self.seen.insert((self.placed.clone(), next.clone())) {
            self.placed[operation / 64] &= !bit;
            return false;
        }
        self.path.push((call, std::mem::replace(&mut self.state, next)));
        self.take_out(call);
        if answer != NONE {
            self.take_out(answer);
            self.open -= 1;
        }
        true
    }

    fn put_back(&mut self, call: usize) {
        let Event {
            operation, answer, ..
        } = self.events[call];
        self.placed[operation / 64] &= !(1 << (operation % 64));
        // In the opposite order to that in which they were taken out.
        if answer != NONE {
            self.link(answer);
            self.open += 1;
        }
        self.link(call);
    }

    fn take_out(&mut self, place: usize) {
        let Event { previous, next, .. } = self.events[place];
        match previous {
            NONE => self.first = next,
            _ => self.events[previous].next = next,
        }
        if next != NONE {
            self.events[next].previous = previous;
        }
    }

    fn link(&mut self, place: usize) {
        let Event { previous, next, .. } = self.events[place];
        match previous {
            NONE => self.first = place,
            _ => self.events[previous].next = place,
        }
        if next != NONE {
            self.events[next].previous = place;
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};
    use stateright::semantics::register::{Register, RegisterOp, RegisterRet};
    use stateright::semantics::{ConsistencyTester as _, LinearizabilityTester};

    use super::*;

    const STEPS_MAX: u64 = 1_000_000;

    /// A register that begins with 0.
    struct Cell;

    impl Model for Cell {
        type State = u8;
        type Call = Option<u8>;
        type Answer = u8;

        fn start() -> u8 {
            0
        }

        fn step(state: &u8, write: &Option<u8>, read: Option<&u8>) -> Option<u8> {
            match (write, read) {
                (Some(value), _) => Some(*value),
                (None, Some(value)) => (state == value).then_some(*state),
                (None, None) => None,
            }
        }
    }

    type History = Vec<Operation<Option<u8>, u8>>;

    fn write(value: u8, called: u64, answered: u64) -> Operation<Option<u8>, u8> {
        Operation {
            called,
            answered: Some((answered, 0)),
            call: Some(value),
        }
    }

    fn read(value: u8, called: u64, answered: u64) -> Operation<Option<u8>, u8> {
        Operation {
            called,
            answered: Some((answered, value)),
            call: None,
        }
    }

    fn lost(value: u8, called: u64) -> Operation<Option<u8>, u8> {
        Operation {
            called,
            answered: None,
            call: Some(value),
        }
    }

    fn decide(history: &[Operation<Option<u8>, u8>]) -> Decision {
        check::<Cell>(history, STEPS_MAX)
    }

    #[test]
    fn operations_at_once_may_take_effect_in_either_order_and_others_may_not() {
        assert_eq!(decide(&[]), Decision::Linearizable);
        let at_once = [write(1, 0, 10), write(2, 5, 15), read(1, 20, 30), read(1, 40, 50)];
        assert_eq!(decide(&at_once), Decision::Linearizable);
        let one_after_the_other = [write(1, 0, 4), write(2, 5, 15), read(1, 20, 30)];
        assert_eq!(
            decide(&one_after_the_other),
            Decision::Not { stuck: 2, placed: 2 }
        );
        let back_in_time = [write(1, 0, 100), read(1, 10, 20), read(0, 30, 40)];
        assert_eq!(decide(&back_in_time), Decision::Not { stuck: 2, placed: 2 });
    }

    #[test]
    fn what_was_never_answered_may_take_effect_late_or_never() {
        let never = [lost(1, 0), read(0, 10, 20), read(0, 1_000, 1_010)];
        let late = [lost(1, 0), read(0, 10, 20), read(1, 1_000, 1_010)];
        let twice = [lost(1, 0), read(1, 10, 20), write(2, 30, 40), read(1, 50, 60)];
        assert_eq!(decide(&never), Decision::Linearizable);
        assert_eq!(decide(&late), Decision::Linearizable);
        assert_eq!(decide(&twice), Decision::Not { stuck: 3, placed: 3 });
    }

    #[test]
    fn a_search_without_an_end_is_given_up() {
        let at_once: History = (0..12).map(|value| write(value, 0, 100)).collect();
        let history = [at_once, vec![read(77, 200, 210)]].concat();
        assert_eq!(check::<Cell>(&history, 1_000), Decision::Undecided);
    }

    #[test]
    fn long_histories_of_a_few_writers_take_steps_in_proportion() {
        let mut random = StdRng::seed_from_u64(7);
        let (mut history, mut now, mut value) = (Vec::new(), 0, 0);
        for _ in 0..20_000 {
            now += 10;
            // Each overlaps the one before it, and takes effect in their order.
            if random.random_bool(0.5) {
                value = random.random();
                history.push(write(value, now, now + 15));
            } else {
                history.push(read(value, now + 6, now + 9));
            }
        }
        assert_eq!(
            check::<Cell>(&history, 20 * history.len() as u64),
            Decision::Linearizable
        );
    }

    #[test]
    fn a_million_operations_over_many_objects_are_searched_one_object_at_a_time() {
        let (objects, each) = (2_000, 500);
        for object in 0..objects {
            let mut history = Vec::with_capacity(each);
            for number in 0..each as u64 {
                let value = ((number / 2 + object) % 251) as u8;
                // Each write goes on beside the two that begin next: a read of it, and the write that follows.
                history.push(match number % 2 {
                    0 => write(value, 10 * number, 10 * number + 25),
                    _ => read(value, 10 * number + 4, 10 * number + 9),
                });
            }
            let steps_max = 20 * each as u64;
            assert_eq!(check::<Cell>(&history, steps_max), Decision::Linearizable);
        }
    }

    #[test]
    fn an_answer_is_shown_with_what_went_on_around_it() {
        let mut history: History = (0..40).map(|at| write(1, 10 * at, 10 * at + 5)).collect();
        history.push(read(9, 300, 320));
        history.push(lost(3, 305));
        let shown = involved(&history, 40);
        // The last four before it, those at its time, and none that was called later.
        assert_eq!(shown, [26, 27, 28, 29, 30, 41, 31, 32]);
    }

    /// What another tester says, which searches in another way and has no operations without an answer.
    fn second_opinion(history: &History) -> bool {
        let mut events: Vec<(u64, bool, usize)> = Vec::new();
        for (place, operation) in history.iter().enumerate() {
            let (answered, _) = operation.answered.expect("all are answered");
            events.push((operation.called, false, place));
            events.push((answered, true, place));
        }
        events.sort_unstable();
        let mut tester = LinearizabilityTester::new(Register(0u8));
        for (_, is_answer, place) in events {
            let operation = &history[place];
            let taken = if is_answer {
                let value = operation.answered.expect("all are answered").1;
                let answer = match operation.call {
                    Some(_) => RegisterRet::WriteOk,
                    None => RegisterRet::ReadOk(value),
                };
                tester.on_return(place, answer)
            } else {
                let call = match operation.call {
                    Some(value) => RegisterOp::Write(value),
                    None => RegisterOp::Read,
                };
                tester.on_invoke(place, call)
            };
            taken.expect("a thread does one thing");
        }
        tester.is_consistent()
    }

    #[test]
    fn stateright_says_the_same_of_short_histories() {
        let mut random = StdRng::seed_from_u64(1);
        let mut said = [0, 0];
        for _ in 0..3_000 {
            let history: History = (0..random.random_range(1..7))
                .map(|_| {
                    let called = random.random_range(0..20);
                    let answered = called + random.random_range(1..12);
                    let value = random.random_range(0..3);
                    match random.random_bool(0.4) {
                        true => write(value, called * 2, answered * 2 + 1),
                        false => read(value, called * 2, answered * 2 + 1),
                    }
                })
                .collect();
            let is_so = decide(&history) == Decision::Linearizable;
            assert_eq!(is_so, second_opinion(&history), "{history:?}");
            said[usize::from(is_so)] += 1;
        }
        assert!(said.iter().all(|count| *count > 300), "{said:?}");
    }
}
