//! How long to wait before something that failed is started again, and when to give up.
//!
//! Pure; used by the supervisors of devices (with a budget) and of shards (without).

use std::collections::VecDeque;

/// Milliseconds before the first restart; each failure within the window doubles it.
pub(crate) const RESTART_WAIT_MS: u64 = 50;
/// Milliseconds that a restart waits at the most.
pub(crate) const RESTART_WAIT_MS_MAX: u64 = 5_000;
/// Milliseconds after which a failure is forgotten.
pub(crate) const RESTART_WINDOW_MS: u64 = 30_000;
/// Restarts of a device within the window; the failure after these ends in quarantine.
pub(crate) const DEVICE_RESTARTS_MAX: usize = 5;
/// Failures that are remembered: enough for the longest wait.
const FAILURES_KEPT_MAX: usize = 16;

/// The recent failures of one thing.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    failed_at_ms: VecDeque<u64>,
}

impl Backoff {
    /// A failure at `now_ms`. Returns how long to wait, or `None` when this was one more than
    /// `restarts_max` within the window.
    pub(crate) fn handle_failure(&mut self, now_ms: u64, restarts_max: usize) -> Option<u64> {
        let oldest_ms = now_ms.saturating_sub(RESTART_WINDOW_MS);
        while self.failed_at_ms.front().is_some_and(|at| *at < oldest_ms)
            || self.failed_at_ms.len() >= FAILURES_KEPT_MAX
        {
            self.failed_at_ms.pop_front();
        }
        self.failed_at_ms.push_back(now_ms);
        let failures = self.failed_at_ms.len();
        if failures > restarts_max {
            return None;
        }
        let doublings = (failures - 1).min(20) as u32;
        Some((RESTART_WAIT_MS << doublings).min(RESTART_WAIT_MS_MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_and_the_budget_ends() {
        let mut backoff = Backoff::default();
        let waits: Vec<_> = (0..6)
            .map(|i| backoff.handle_failure(i, DEVICE_RESTARTS_MAX))
            .collect();
        assert_eq!(
            waits,
            [Some(50), Some(100), Some(200), Some(400), Some(800), None]
        );
    }

    #[test]
    fn old_failures_are_forgotten() {
        let mut backoff = Backoff::default();
        for i in 0..5 {
            backoff.handle_failure(i, DEVICE_RESTARTS_MAX);
        }
        assert_eq!(
            backoff.handle_failure(RESTART_WINDOW_MS + 5, DEVICE_RESTARTS_MAX),
            Some(50)
        );
    }

    #[test]
    fn without_a_budget_the_wait_stays_at_its_most() {
        let mut backoff = Backoff::default();
        let last = (0..40)
            .filter_map(|i| backoff.handle_failure(i, usize::MAX))
            .last();
        assert_eq!(last, Some(RESTART_WAIT_MS_MAX));
    }
}
