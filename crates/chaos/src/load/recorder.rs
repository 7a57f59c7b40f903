//! What a thread of the load has counted since it was last asked.
//!
//! Machines write into it, once per burst; the run takes intervals out of it. It knows which messages
//! belong to the measured window: with a schedule those that were *due* in it, however late they are
//! answered, so that a stall is counted in full; without one those that were answered in it.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

use crate::fleet::histogram;

/// Reasons that are told apart; beyond these they are counted as others.
const REASONS_MAX: usize = 16;
const OTHERS: &str = "other reasons";

/// Counts of a run, or of a part of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Tally {
    /// Messages sent for the first time.
    pub sent: u64,
    /// Messages sent again after their connection was lost.
    pub resent: u64,
    /// Messages that were acknowledged; with QoS 0, handed to the connection.
    pub acked: u64,
    /// Those of them within the measured window.
    pub acked_in_window: u64,
    /// Messages that the server refused (MQTT 5).
    pub refused: u64,
    /// Messages that came to subscribers.
    pub received: u64,
    /// Those of them within the measured window.
    pub received_in_window: u64,
    /// Messages that were sent and never answered.
    pub unacked: u64,
    /// Messages that were due and never sent, since the window was full.
    pub unsent: u64,
    /// Connections that were made.
    pub connected: u64,
    /// Connections that were lost.
    pub lost: u64,
    /// Connects that failed.
    pub connects_failed: u64,
}

impl Tally {
    fn add(&mut self, other: &Tally) {
        for (sum, more) in [
            (&mut self.sent, other.sent),
            (&mut self.resent, other.resent),
            (&mut self.acked, other.acked),
            (&mut self.acked_in_window, other.acked_in_window),
            (&mut self.refused, other.refused),
            (&mut self.received, other.received),
            (&mut self.received_in_window, other.received_in_window),
            (&mut self.unacked, other.unacked),
            (&mut self.unsent, other.unsent),
            (&mut self.connected, other.connected),
            (&mut self.lost, other.lost),
            (&mut self.connects_failed, other.connects_failed),
        ] {
            *sum += more;
        }
    }
}

impl std::ops::AddAssign<&Tally> for Tally {
    fn add_assign(&mut self, other: &Tally) {
        self.add(other);
    }
}

/// Which answers count for the latencies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Window {
    /// From then on ..
    pub from_ns: u64,
    /// .. until then.
    pub to_ns: u64,
    /// Whether a message counts by when it was due, not by when it was answered.
    pub by_due: bool,
}

impl Window {
    fn has(&self, ns: u64) -> bool {
        (self.from_ns..self.to_ns).contains(&ns)
    }
}

/// What happened in an interval.
#[derive(Debug, Clone)]
pub struct Interval {
    /// Latencies in microseconds, of the measured window.
    pub latency_us: Histogram<u64>,
    /// From the intended beginning of a connect to its answer, in microseconds.
    pub connect_us: Histogram<u64>,
    /// Counts.
    pub tally: Tally,
    /// Why connects failed and connections were lost, with how often.
    pub reasons: BTreeMap<String, u64>,
}

impl Default for Interval {
    fn default() -> Self {
        Self {
            latency_us: histogram(),
            connect_us: histogram(),
            tally: Tally::default(),
            reasons: BTreeMap::new(),
        }
    }
}

impl Interval {
    /// Adds another to this one.
    pub fn add(&mut self, other: &Interval) {
        // All have the same bounds, so nothing can fail to fit.
        for (sum, more) in [
            (&mut self.latency_us, &other.latency_us),
            (&mut self.connect_us, &other.connect_us),
        ] {
            sum.add(more).expect("histograms of one kind");
        }
        self.tally += &other.tally;
        for (reason, count) in &other.reasons {
            self.count_reason(reason, *count);
        }
    }

    fn count_reason(&mut self, reason: &str, count: u64) {
        let others = usize::from(self.reasons.contains_key(OTHERS));
        let has_room = self.reasons.contains_key(reason) || self.reasons.len() - others < REASONS_MAX;
        let name = if has_room { reason } else { OTHERS };
        *self.reasons.entry(name.to_owned()).or_default() += count;
    }
}

/// See the head of this file. Times are nanoseconds since the run's own beginning.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    window: Window,
    interval: Interval,
}

impl Recorder {
    pub(super) fn set_window(&mut self, window: Window) {
        self.window = window;
    }

    /// What came since the last call.
    pub(super) fn take(&mut self) -> Interval {
        std::mem::take(&mut self.interval)
    }

    pub(super) fn sent(&mut self, count: u64) {
        self.interval.tally.sent += count;
    }

    pub(super) fn resent(&mut self, count: u64) {
        self.interval.tally.resent += count;
    }

    pub(super) fn acked(&mut self, now_ns: u64, intended_ns: u64) {
        self.acked_unmeasured(now_ns, 1);
        self.measure(now_ns, intended_ns);
    }

    /// Messages whose answer is that they could be written.
    pub(super) fn acked_unmeasured(&mut self, now_ns: u64, count: u64) {
        self.interval.tally.acked += count;
        if self.window.has(now_ns) {
            self.interval.tally.acked_in_window += count;
        }
    }

    fn measure(&mut self, now_ns: u64, intended_ns: u64) {
        let at_ns = if self.window.by_due { intended_ns } else { now_ns };
        if self.window.has(at_ns) {
            let latency_us = now_ns.saturating_sub(intended_ns) / 1000;
            self.interval.latency_us.saturating_record(latency_us);
        }
    }

    pub(super) fn refused(&mut self, reason: &str) {
        self.interval.tally.refused += 1;
        self.interval.count_reason(reason, 1);
    }

    /// A message that came to a subscriber, after so long if it tells.
    pub(super) fn received(&mut self, now_ns: u64, latency_us: Option<u64>) {
        self.interval.tally.received += 1;
        if self.window.has(now_ns) {
            self.interval.tally.received_in_window += 1;
            if let Some(latency_us) = latency_us {
                self.interval.latency_us.saturating_record(latency_us);
            }
        }
    }

    /// A message without an answer when all was over; its age then is the least that it took.
    pub(super) fn unacked(&mut self, now_ns: u64, intended_ns: u64) {
        self.interval.tally.unacked += 1;
        if self.window.by_due {
            self.measure(now_ns, intended_ns);
        }
    }

    /// The same, with what is known of it.
    pub(super) fn unanswered(&mut self, now_ns: u64, intended_ns: u64, reason: &str) {
        self.unacked(now_ns, intended_ns);
        self.interval.count_reason(reason, 1);
    }

    /// A message that was due and could not be sent.
    pub(super) fn unsent(&mut self, now_ns: u64, intended_ns: u64) {
        self.interval.tally.unsent += 1;
        self.measure(now_ns, intended_ns);
    }

    pub(super) fn connected(&mut self, latency_us: u64) {
        self.interval.tally.connected += 1;
        self.interval.connect_us.saturating_record(latency_us);
    }

    pub(super) fn connect_failed(&mut self, reason: &str) {
        self.interval.tally.connects_failed += 1;
        self.interval.count_reason(reason, 1);
    }

    pub(super) fn lost(&mut self, reason: &str) {
        self.interval.tally.lost += 1;
        self.interval.count_reason(reason, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recorder(by_due: bool) -> Recorder {
        let mut recorder = Recorder::default();
        recorder.set_window(Window {
            from_ns: 1_000_000,
            to_ns: 2_000_000,
            by_due,
        });
        recorder
    }

    #[test]
    fn with_a_schedule_a_message_counts_by_when_it_was_due() {
        let mut recorder = recorder(true);
        recorder.acked(1_500_000, 900_000); // due before the window
        recorder.acked(9_000_000, 1_900_000); // due in it, answered long after it
        let interval = recorder.take();
        assert_eq!(interval.latency_us.len(), 1);
        assert_eq!(interval.latency_us.max(), 7103, "7.1 ms in steps of three digits");
        assert_eq!((interval.tally.acked, interval.tally.acked_in_window), (2, 1));
    }

    #[test]
    fn without_one_it_counts_by_when_it_was_answered() {
        let mut recorder = recorder(false);
        recorder.acked(1_500_000, 900_000);
        recorder.acked(9_000_000, 1_900_000);
        let interval = recorder.take();
        assert_eq!(interval.latency_us.len(), 1);
        assert_eq!(interval.latency_us.max(), 600);
    }

    #[test]
    fn what_was_never_answered_counts_with_its_age() {
        let mut recorder = recorder(true);
        recorder.unacked(5_000_000, 1_000_000);
        recorder.unsent(5_000_000, 1_500_000);
        recorder.unsent(5_000_000, 2_500_000); // due after the window
        let interval = recorder.take();
        assert_eq!((interval.tally.unacked, interval.tally.unsent), (1, 2));
        assert_eq!(interval.latency_us.len(), 2);
        assert!(interval.latency_us.min() >= 3400);
        recorder.unanswered(5_000_000, 1_200_000, "timed out");
        let interval = recorder.take();
        assert_eq!((interval.tally.unacked, interval.latency_us.len()), (1, 1));
        assert_eq!(interval.reasons["timed out"], 1);
    }

    #[test]
    fn reasons_are_bounded() {
        let mut recorder = recorder(true);
        for number in 0..100 {
            recorder.lost(&format!("reason {number}"));
        }
        let mut sum = Interval::default();
        sum.add(&recorder.take());
        assert_eq!(sum.reasons.len(), REASONS_MAX + 1);
        assert_eq!(sum.reasons.values().sum::<u64>(), 100);
        assert_eq!(sum.tally.lost, 100);
    }
}
