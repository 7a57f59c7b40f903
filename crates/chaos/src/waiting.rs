//! Things that were done and wait to be written down: deeds, operations, accesses.
//!
//! Whoever does things never waits for a disk; whoever writes takes them away in batches. What does not fit is
//! dropped and said so: an incomplete record proves nothing, and no run with one passes.

use std::sync::{Mutex, PoisonError};

/// Things that may wait for the writer, where no other bound is told.
pub const WAITING_MAX: usize = 100_000;

/// What waits, oldest first.
#[derive(Debug)]
pub struct Waiting<T> {
    max: usize,
    state: Mutex<State<T>>,
}

#[derive(Debug)]
struct State<T> {
    things: Vec<T>,
    dropped: u64,
}

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self::new(WAITING_MAX)
    }
}

impl<T> Waiting<T> {
    /// Room for `max` things.
    #[must_use]
    pub fn new(max: usize) -> Self {
        let (things, dropped) = (Vec::new(), 0);
        let state = Mutex::new(State { things, dropped });
        Self { max, state }
    }

    /// Takes one in.
    pub fn note(&self, thing: T) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.things.len() < self.max {
            state.things.push(thing);
        } else {
            state.dropped += 1;
        }
    }

    /// All that wait, and how many were dropped so far.
    pub fn take(&self) -> (Vec<T>, u64) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut state.things), state.dropped)
    }
}
