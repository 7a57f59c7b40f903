//! How many refusals are recorded one by one: a burst, then a trickle. Pure; time comes in.
//!
//! A flood of wrong credentials must neither fill the disk nor push the records of actions out of the
//! files that are kept.

/// Refusals that are recorded at once.
const BURST: u64 = 100;
/// Milliseconds after which one more may be recorded.
const ONE_MORE_MS: u64 = 10_000;

/// A bucket of refusals.
#[derive(Debug)]
pub(super) struct Gate {
    left: u64,
    since_ms: u64,
    /// Not recorded one by one since the last [`take_count`](Gate::take_count).
    counted: u64,
    suppressed: u64,
}

impl Gate {
    pub(super) fn new(now_ms: u64) -> Self {
        Self {
            left: BURST,
            since_ms: now_ms,
            counted: 0,
            suppressed: 0,
        }
    }

    /// Whether a refusal at `now_ms` (monotonic) is recorded. If not, it is counted.
    pub(super) fn handle(&mut self, now_ms: u64) -> bool {
        let more = now_ms.saturating_sub(self.since_ms) / ONE_MORE_MS;
        self.since_ms += more * ONE_MORE_MS;
        self.left = (self.left + more).min(BURST);
        if self.left == 0 {
            self.handle_full();
            return false;
        }
        self.left -= 1;
        true
    }

    /// A refusal that was let through found no room.
    pub(super) fn handle_full(&mut self) {
        self.counted += 1;
        self.suppressed += 1;
    }

    /// How many were counted since the last call.
    pub(super) fn take_count(&mut self) -> u64 {
        std::mem::take(&mut self.counted)
    }

    /// How many were counted in all.
    pub(super) fn suppressed(&self) -> u64 {
        self.suppressed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_a_trickle_and_the_rest_is_counted() {
        let mut gate = Gate::new(1_000);
        let passed = (0..1_000).filter(|_| gate.handle(1_000)).count() as u64;
        assert_eq!(passed, BURST);
        assert_eq!((gate.take_count(), gate.take_count()), (1_000 - BURST, 0));
        assert!(!gate.handle(1_000 + ONE_MORE_MS - 1));
        assert!(gate.handle(1_000 + ONE_MORE_MS));
        assert!(!gate.handle(1_000 + ONE_MORE_MS));
        let later = 1_000 + 10_000 * ONE_MORE_MS;
        assert_eq!((0..1_000).filter(|_| gate.handle(later)).count() as u64, BURST);
        assert_eq!(gate.suppressed(), 2 * (1_000 - BURST) + 2);
    }
}
