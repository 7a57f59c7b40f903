//! Things that were done and wait to be written down.

use std::sync::{Mutex, PoisonError};

/// Things that may wait for the writer; more are dropped and counted.
pub const WAITING_MAX: usize = 100_000;

/// What waits, oldest first.
#[derive(Debug)]
pub struct Waiting<T>(Mutex<(Vec<T>, u64)>);

impl<T> Default for Waiting<T> {
    fn default() -> Self {
        Self(Mutex::new((Vec::new(), 0)))
    }
}

impl<T> Waiting<T> {
    /// Takes one in.
    pub fn note(&self, thing: T) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.0.len() < WAITING_MAX {
            waiting.0.push(thing);
        } else {
            waiting.1 += 1;
        }
    }

    /// All that wait, and how many were dropped so far.
    pub fn take(&self) -> (Vec<T>, u64) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        (std::mem::take(&mut waiting.0), waiting.1)
    }
}
