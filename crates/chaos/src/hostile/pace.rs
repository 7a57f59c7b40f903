//! A rate that attackers keep together. It never makes up for what was not sent in time.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// How far attackers may be behind their rate before the rest is given up.
const PACE_BEHIND_MAX: Duration = Duration::from_millis(20);

/// A rate that attackers keep together, packet by packet: none has a time that another has.
#[derive(Debug)]
pub struct Pace {
    between: Duration,
    /// When the next packet is due.
    next: Mutex<Instant>,
}

impl Pace {
    /// So many packets a second; begins now.
    pub fn new(packets_per_s: u64) -> Self {
        Self {
            between: Duration::from_secs(1).div_f64(packets_per_s.max(1) as f64),
            next: Mutex::new(Instant::now()),
        }
    }

    /// They are let loose now: what was not sent before is not made up for.
    pub fn begin(&self) {
        *self.next() = Instant::now();
    }

    fn next(&self) -> MutexGuard<'_, Instant> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until another packet may be sent.
    pub(super) async fn wait(&self) {
        let due = {
            let mut next = self.next();
            // Who falls behind catches up a little, and not in a burst.
            let due = (*next).max(Instant::now() - PACE_BEHIND_MAX);
            *next = due + self.between;
            due
        };
        tokio::time::sleep_until(due).await;
    }
}
