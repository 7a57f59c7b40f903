//! A run second by second: what was counted becomes rows, one interval after the other, and a sum.
//!
//! It has no clock and counts nothing itself: it is told what came until when. Who counts is
//! [`super::recorder`], who asks for it are [`super::engine`] and [`super::meter`].

use super::engine::{Observer, Row};
use super::recorder::{Interval, Tally};

/// An interval that is shorter than this has no row of its own.
const TAIL_NS: u64 = 200_000_000;
/// Rows that are kept; a longer run forgets how it began.
const ROWS_MAX: usize = 100_000;

/// See the head of this file. Times are nanoseconds since the run's own beginning.
#[derive(Debug, Default)]
pub(super) struct Course {
    /// Everything, summed up.
    pub(super) total: Interval,
    /// Interval by interval.
    pub(super) rows: Vec<Row>,
    /// When the load started, once it has.
    start_ns: Option<u64>,
    /// When the last interval ended.
    taken_ns: u64,
}

impl Course {
    /// The load starts then; what came before belongs to no interval.
    pub(super) fn begin(&mut self, start_ns: u64) {
        self.start_ns = Some(start_ns);
        self.taken_ns = start_ns;
    }

    /// An interval is over.
    pub(super) fn close(&mut self, now_ns: u64, interval: &Interval, observer: &mut dyn Observer) {
        self.total.add(interval);
        let Some(start_ns) = self.start_ns else {
            return;
        };
        // Nothing that came after the last interval is no interval of its own.
        let is_tail = now_ns.saturating_sub(self.taken_ns) < TAIL_NS;
        if is_tail && interval.tally == Tally::default() {
            return;
        }
        let seconds = |ns: u64| ns.saturating_sub(start_ns) as f64 / 1e9;
        let (from_s, to_s) = (seconds(self.taken_ns), seconds(now_ns));
        self.taken_ns = now_ns;
        let per_s = |count: u64| count as f64 / (to_s - from_s).max(1e-3);
        let latency_us = &interval.latency_us;
        let row = Row {
            from_s,
            to_s,
            acked_per_s: per_s(interval.tally.acked),
            received_per_s: per_s(interval.tally.received),
            p50_us: latency_us.value_at_quantile(0.5),
            p99_us: latency_us.value_at_quantile(0.99),
            max_us: latency_us.max(),
            lost: interval.tally.lost,
            connections: connections(&self.total.tally),
        };
        // A rate over a few milliseconds says nothing.
        if !is_tail {
            if self.rows.len() == ROWS_MAX {
                self.rows.remove(0);
            }
            self.rows.push(row);
        }
        observer.interval(&row, interval);
    }
}

fn connections(tally: &Tally) -> u64 {
    tally.connected.saturating_sub(tally.lost)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The rows that it was told.
    #[derive(Default)]
    struct Seen(Vec<Row>);

    impl Observer for Seen {
        fn interval(&mut self, row: &Row, _interval: &Interval) {
            self.0.push(*row);
        }
    }

    fn acked(count: u64) -> Interval {
        let mut interval = Interval::default();
        interval.tally.acked = count;
        interval.latency_us.record_n(1000, count).unwrap();
        interval
    }

    #[test]
    fn intervals_become_rows_from_the_start_of_the_load_on() {
        let (mut course, mut seen) = (Course::default(), Seen::default());
        course.close(500_000_000, &acked(1), &mut seen);
        course.begin(1_000_000_000);
        course.close(2_000_000_000, &acked(10), &mut seen);
        course.close(4_000_000_000, &acked(10), &mut seen);
        // A tail is told and summed up, but is no row; one without anything is not even told.
        course.close(4_100_000_000, &acked(2), &mut seen);
        course.close(4_150_000_000, &Interval::default(), &mut seen);
        let spans = |rows: &[Row]| -> Vec<(f64, f64, f64)> {
            rows.iter()
                .map(|row| (row.from_s, row.to_s, row.acked_per_s))
                .collect()
        };
        assert_eq!(spans(&course.rows), [(0.0, 1.0, 10.0), (1.0, 3.0, 5.0)]);
        assert_eq!(seen.0.len(), 3);
        assert_eq!(course.total.tally.acked, 23);
        assert_eq!(course.total.latency_us.len(), 23);
        assert_eq!(course.rows[0].p50_us, 1000);
    }
}
