//! The wall clock of a node, held against those of its peers.
//!
//! Every ping carries its sender's wall clock. A node whose own clock is further from the median of all
//! nodes' clocks than [`TOLERANCE_MS`] goes by the median: a machine that came up in 1970, or whose clock was
//! set to next year, neither turns away good tokens nor lets expired ones in, and stamps no entry with it.
//! Clocks are compared by how far they are ahead of monotonic time, which nobody sets. So one that is set
//! between two comparisons is not gone by until the next: a stamp that is a day ahead keeps its shard a day
//! ahead. Of three nodes one may be wrong. Decides nothing about order: a log's stamps rise whatever clocks do.
//! Of peers that are silent the last word counts, since silence says nothing about time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dunlin_model::alarm::Alarm;
use dunlin_model::id::NodeId;
use dunlin_model::port::Clock;

/// How far a clock may be from the median before it is corrected.
const TOLERANCE_MS: i64 = 2_000;
/// Pings of a peer that are kept. The one that is furthest ahead counts: whatever a ping waited for, on its way
/// or in a node that stood still, leaves it behind.
const SAMPLES_MAX: usize = 8;

/// A clock that is corrected where peers contradict it.
pub struct AgreedClock {
    own: Arc<dyn Clock>,
    correction_ms: AtomicI64,
    /// How far the corrected clock was ahead of monotonic time at the last comparison; [`NEVER`] before the first.
    ahead_ms: AtomicI64,
    heard: Mutex<Heard>,
}

/// There was no comparison yet.
const NEVER: i64 = i64::MIN;

impl AgreedClock {
    /// `own` until peers contradict it.
    pub fn new(own: Arc<dyn Clock>) -> Arc<AgreedClock> {
        Arc::new(AgreedClock {
            own,
            correction_ms: AtomicI64::new(0),
            ahead_ms: AtomicI64::new(NEVER),
            heard: Mutex::default(),
        })
    }

    /// Milliseconds that are added to this machine's wall clock; 0 while it is right.
    pub fn correction_ms(&self) -> i64 {
        self.correction_ms.load(Ordering::Relaxed)
    }

    /// This machine's wall clock as it is, for peers to compare with.
    pub(crate) fn own_wall_ms(&self) -> u64 {
        self.own.wall_ms()
    }

    /// A ping of `node` says what its own clock shows.
    pub(crate) fn handle_ping(&self, node: NodeId, wall_ms: u64) {
        let ahead_ms = self.ahead_of_monotonic(wall_ms);
        self.lock().handle(node, ahead_ms);
    }

    /// Compares the clocks of `members`, this node not among them, and corrects this one.
    pub(crate) fn agree(&self, members: impl Iterator<Item = NodeId>) {
        let own = self.ahead_of_monotonic(self.own.wall_ms());
        let off_ms = self.lock().median(own, members).saturating_sub(own);
        let correction_ms = if off_ms.abs() > TOLERANCE_MS { off_ms } else { 0 };
        let ahead_ms = own.saturating_add(correction_ms);
        self.ahead_ms.store(ahead_ms, Ordering::Relaxed);
        let before = self.correction_ms.swap(correction_ms, Ordering::Relaxed);
        match (before, correction_ms) {
            (0, 0) => {}
            (0, off) => {
                Alarm::ClockWrong.raise();
                tracing::error!(
                    off_ms = -off,
                    "this machine's clock is wrong; the node goes by its peers'"
                );
            }
            (_, 0) => tracing::info!("this machine's clock is right again"),
            _ => {}
        }
    }

    fn ahead_of_monotonic(&self, wall_ms: u64) -> i64 {
        signed(wall_ms).saturating_sub(signed(self.own.monotonic_ms()))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Heard> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for AgreedClock {
    fn wall_ms(&self) -> u64 {
        let shown_ms = self.own.wall_ms().saturating_add_signed(self.correction_ms());
        let ahead_ms = self.ahead_ms.load(Ordering::Relaxed);
        let jump_ms = self.ahead_of_monotonic(shown_ms).abs_diff(ahead_ms);
        if ahead_ms == NEVER || jump_ms <= TOLERANCE_MS.unsigned_abs() {
            return shown_ms;
        }
        self.own.monotonic_ms().saturating_add_signed(ahead_ms)
    }

    fn monotonic_ms(&self) -> u64 {
        self.own.monotonic_ms()
    }
}

/// Milliseconds since 1970 as a number that differences can be taken of.
fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

/// By how many milliseconds the clocks of peers are ahead of this machine's monotonic time.
#[derive(Default)]
struct Heard(BTreeMap<NodeId, VecDeque<i64>>);

impl Heard {
    fn handle(&mut self, node: NodeId, ahead_ms: i64) {
        let samples = self.0.entry(node).or_default();
        samples.truncate(SAMPLES_MAX - 1);
        samples.push_front(ahead_ms);
    }

    /// The median of this clock, which is `own` ahead, and those of `members` that were heard; of the two in the
    /// middle the one closer to this clock. Forgets everybody else.
    fn median(&mut self, own: i64, members: impl Iterator<Item = NodeId>) -> i64 {
        let mut heard = std::mem::take(&mut self.0);
        let mut all = vec![own];
        for member in members {
            if let Some(samples) = heard.remove(&member) {
                all.extend(samples.iter().max());
                self.0.insert(member, samples);
            }
        }
        all.sort_unstable();
        let (low, high) = (all[(all.len() - 1) / 2], all[all.len() / 2]);
        if low.abs_diff(own) < high.abs_diff(own) {
            low
        } else {
            high
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicU64;

    use super::*;

    const YEAR_MS: i64 = 31_556_952_000;
    const NOW_MS: u64 = 1_800_000_000_000;

    /// A wall clock that is set by hand.
    struct HandClock(AtomicU64);

    impl HandClock {
        fn set(&self, off_ms: i64) {
            let wall_ms = NOW_MS.saturating_add_signed(off_ms);
            self.0.store(wall_ms, Ordering::Relaxed);
        }
    }

    impl Clock for HandClock {
        fn wall_ms(&self) -> u64 {
            self.0.load(Ordering::Relaxed)
        }

        fn monotonic_ms(&self) -> u64 {
            7
        }
    }

    fn clock(off_ms: i64) -> Arc<AgreedClock> {
        let own = HandClock(AtomicU64::new(NOW_MS.saturating_add_signed(off_ms)));
        AgreedClock::new(Arc::new(own))
    }

    fn peers(count: u64) -> impl Iterator<Item = NodeId> {
        (1..=count).map(NodeId)
    }

    #[test]
    fn a_clock_that_two_others_contradict_goes_by_them_until_it_is_right() {
        for off_ms in [10 * YEAR_MS, -10 * YEAR_MS, 3_600_000, -3_600_000, 2_500] {
            let clock = clock(off_ms);
            clock.handle_ping(NodeId(1), NOW_MS);
            clock.handle_ping(NodeId(2), NOW_MS + 300);
            clock.agree(peers(2));
            let error = signed(clock.wall_ms()) - signed(NOW_MS);
            assert!((0..=300).contains(&error), "{off_ms}: {error}");
            assert_eq!(clock.own_wall_ms(), NOW_MS.saturating_add_signed(off_ms));
            for _ in 0..SAMPLES_MAX {
                clock.handle_ping(NodeId(1), clock.own_wall_ms());
                clock.handle_ping(NodeId(2), clock.own_wall_ms());
            }
            clock.agree(peers(2));
            assert_eq!(clock.correction_ms(), 0);
        }
    }

    #[test]
    fn a_clock_that_jumps_is_not_gone_by_for_a_moment() {
        for off_ms in [10 * YEAR_MS, -10 * YEAR_MS, 3_600_000, -3_600_000, 2_500] {
            let own = Arc::new(HandClock(AtomicU64::new(NOW_MS)));
            let clock = AgreedClock::new(own.clone());
            for _ in 0..SAMPLES_MAX {
                clock.handle_ping(NodeId(1), NOW_MS);
                clock.handle_ping(NodeId(2), NOW_MS);
            }
            clock.agree(peers(2));
            own.set(off_ms);
            assert_eq!(clock.wall_ms(), NOW_MS, "{off_ms}, before a comparison");
            clock.agree(peers(2));
            assert_eq!(clock.wall_ms(), NOW_MS, "{off_ms}, before a ping");
            own.set(0);
            assert_eq!(clock.wall_ms(), NOW_MS, "{off_ms}, right again");
            clock.agree(peers(2));
            assert_eq!((clock.wall_ms(), clock.correction_ms()), (NOW_MS, 0));
        }
    }

    #[test]
    fn a_clock_that_nobody_contradicts_is_gone_by_from_the_next_comparison() {
        let own = Arc::new(HandClock(AtomicU64::new(NOW_MS)));
        let clock = AgreedClock::new(own.clone());
        clock.agree(peers(0));
        own.set(YEAR_MS);
        assert_eq!(clock.wall_ms(), NOW_MS);
        clock.agree(peers(0));
        assert_eq!(clock.wall_ms(), clock.own_wall_ms());
    }

    #[test]
    fn a_clock_that_one_of_two_others_contradicts_is_left_alone() {
        let clock = clock(0);
        clock.handle_ping(NodeId(1), NOW_MS - 900);
        clock.handle_ping(NodeId(2), NOW_MS.saturating_add_signed(10 * YEAR_MS));
        clock.agree(peers(2));
        assert_eq!(clock.correction_ms(), 0);
    }

    #[test]
    fn of_two_nodes_neither_corrects_the_other_nor_does_one_that_is_no_member() {
        let clock = clock(0);
        clock.handle_ping(NodeId(1), NOW_MS + 3_600_000);
        clock.agree(peers(1));
        assert_eq!(clock.correction_ms(), 0, "either may be wrong");
        clock.handle_ping(NodeId(8), NOW_MS + 3_600_000);
        clock.handle_ping(NodeId(9), NOW_MS + 3_600_000);
        clock.agree(peers(1));
        assert_eq!(clock.correction_ms(), 0);
        assert_eq!(clock.lock().0.len(), 1, "strangers are forgotten");
    }

    #[test]
    fn pings_that_waited_say_nothing() {
        let clock = clock(0);
        clock.handle_ping(NodeId(1), NOW_MS);
        clock.handle_ping(NodeId(2), NOW_MS);
        // What was sent while this node stood still for a minute.
        for late_s in 1..SAMPLES_MAX as u64 {
            clock.handle_ping(NodeId(1), NOW_MS - 60_000 + late_s);
            clock.handle_ping(NodeId(2), NOW_MS - 60_000 + late_s);
        }
        clock.agree(peers(2));
        assert_eq!(clock.correction_ms(), 0);
    }
}
