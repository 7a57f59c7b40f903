//! The wall clock of a node, held against those of its peers.
//!
//! Every ping carries its sender's wall clock. A node whose own clock is further from the median of all
//! nodes' clocks than [`TOLERANCE_MS`] goes by the median: a machine that came up in 1970, or whose clock was
//! set to next year, neither turns away good tokens nor lets expired ones in, and stamps no entry with it.
//! Of three nodes one may be wrong. Decides nothing about order: a log's stamps rise whatever clocks do. Of
//! peers that are silent the last word counts, since silence says nothing about time; and monotonic time is
//! each machine's own.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dunlin_model::id::NodeId;
use dunlin_model::port::Clock;

/// How far a clock may be from the median before it is corrected.
const TOLERANCE_MS: i64 = 2_000;
/// Pings of a peer whose differences are kept. The largest counts: whatever a ping waited for, on its way or
/// in a node that stood still, makes the difference smaller.
const SAMPLES_MAX: usize = 8;

/// A clock that is corrected where peers contradict it.
pub struct AgreedClock {
    own: Arc<dyn Clock>,
    correction_ms: AtomicI64,
    differences: Mutex<Differences>,
}

impl AgreedClock {
    /// `own` until peers contradict it.
    pub fn new(own: Arc<dyn Clock>) -> Arc<AgreedClock> {
        Arc::new(AgreedClock {
            own,
            correction_ms: AtomicI64::new(0),
            differences: Mutex::default(),
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
        let difference = signed(wall_ms).saturating_sub(signed(self.own.wall_ms()));
        self.lock().handle(node, difference);
    }

    /// Compares the clocks of `members`, this node not among them, and corrects this one.
    pub(crate) fn agree(&self, members: impl Iterator<Item = NodeId>) {
        let median = self.lock().median(members);
        let correction_ms = if median.abs() > TOLERANCE_MS { median } else { 0 };
        let before = self.correction_ms.swap(correction_ms, Ordering::Relaxed);
        match (before, correction_ms) {
            (0, 0) => {}
            (0, off) => tracing::error!(
                off_ms = -off,
                "this machine's clock is wrong; the node goes by its peers'"
            ),
            (_, 0) => tracing::info!("this machine's clock is right again"),
            _ => {}
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Differences> {
        self.differences.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for AgreedClock {
    fn wall_ms(&self) -> u64 {
        self.own.wall_ms().saturating_add_signed(self.correction_ms())
    }

    fn monotonic_ms(&self) -> u64 {
        self.own.monotonic_ms()
    }
}

/// Milliseconds since 1970 as a number that differences can be taken of.
fn signed(ms: u64) -> i64 {
    i64::try_from(ms).unwrap_or(i64::MAX)
}

/// By how many milliseconds the clocks of peers are ahead of this one.
#[derive(Default)]
struct Differences(BTreeMap<NodeId, VecDeque<i64>>);

impl Differences {
    fn handle(&mut self, node: NodeId, difference_ms: i64) {
        let samples = self.0.entry(node).or_default();
        samples.truncate(SAMPLES_MAX - 1);
        samples.push_front(difference_ms);
    }

    /// The median of this clock, which differs from itself by nothing, and those of `members` that were heard;
    /// of the two in the middle the one closer to this clock. Forgets everybody else.
    fn median(&mut self, members: impl Iterator<Item = NodeId>) -> i64 {
        let mut heard = std::mem::take(&mut self.0);
        let mut all = vec![0];
        for member in members {
            if let Some(samples) = heard.remove(&member) {
                all.extend(samples.iter().max());
                self.0.insert(member, samples);
            }
        }
        all.sort_unstable();
        let (low, high) = (all[(all.len() - 1) / 2], all[all.len() / 2]);
        if low.unsigned_abs() < high.unsigned_abs() {
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
