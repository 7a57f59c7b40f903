//! How much was done in the last while, counted so that a bound on it holds for every while of that length, wherever it
//! begins.
//!
//! Time is cut into slices. A slice counts until all of it is over for as long as the while lasts: a little longer than needed,
//! so a bound is never passed, and reached but for one slice in [`SLICES`].

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::Rate;

/// Slices of a while.
pub const SLICES: u64 = 100;

/// What was done, by slice, the oldest first.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Window {
    /// Milliseconds of a slice; 0 before anything was done.
    slice_ms: u64,
    /// Number of a slice since 1970, and how much was done in it.
    slices: VecDeque<(u64, u64)>,
}

impl Window {
    /// How much of `rate` is left at `now_ms`.
    pub fn room(&mut self, now_ms: u64, rate: Rate) -> u64 {
        let slice_ms = (rate.per_ms / SLICES).max(1);
        if self.slice_ms != slice_ms {
            self.slice_ms = slice_ms;
            self.slices.clear();
        }
        let now = now_ms / slice_ms;
        let whole = rate.per_ms.div_ceil(slice_ms);
        while self.slices.front().is_some_and(|(slice, _)| slice + whole < now) {
            self.slices.pop_front();
        }
        let done: u64 = self.slices.iter().map(|(_, count)| count).sum();
        rate.count.saturating_sub(done)
    }

    /// Counts `count` at `now_ms`, for which there was [`room`](Self::room) just now.
    pub fn count(&mut self, now_ms: u64, count: u64) {
        assert!(self.slice_ms > 0, "what is counted was looked for before");
        let now = now_ms / self.slice_ms;
        match self.slices.back_mut() {
            Some((slice, done)) if *slice >= now => *done += count,
            _ => self.slices.push_back((now, count)),
        }
    }

    /// Milliseconds from `now_ms` until there is room for `count` of `rate`; `count` is no more than that.
    pub fn wait_ms(&self, now_ms: u64, rate: Rate, count: u64) -> u64 {
        let done: u64 = self.slices.iter().map(|(_, count)| count).sum();
        let mut over = (done + count).saturating_sub(rate.count);
        let whole = rate.per_ms.div_ceil(self.slice_ms.max(1));
        for (slice, count) in &self.slices {
            if over == 0 {
                break;
            }
            over = over.saturating_sub(*count);
            if over == 0 {
                let free_ms = (slice + whole + 1) * self.slice_ms;
                return free_ms.saturating_sub(now_ms);
            }
        }
        0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate {
        count: 50,
        per_ms: 1000,
    };

    #[test]
    fn no_while_has_more_than_its_bound_and_a_busy_one_nearly_all() {
        let mut window = Window::default();
        let mut taken: Vec<(u64, u64)> = Vec::new();
        for now_ms in 10_000..20_000 {
            // In bursts, and steadily.
            let wanted = match now_ms % 700 {
                0 => 40,
                _ => now_ms % 2,
            };
            let granted = window.room(now_ms, RATE).min(wanted);
            if granted > 0 {
                window.count(now_ms, granted);
                taken.push((now_ms, granted));
            }
        }
        for from in 10_000..19_000 {
            let within = |at: u64| at >= from && at < from + RATE.per_ms;
            let sum: u64 = taken.iter().filter(|(at, _)| within(*at)).map(|(_, n)| n).sum();
            assert!(sum <= RATE.count, "{sum} from {from}");
        }
        let all: u64 = taken.iter().map(|(_, count)| count).sum();
        assert!(all * 100 >= 10 * RATE.count * 97, "{all} of {}", 10 * RATE.count);
    }

    #[test]
    fn whoever_waits_as_long_as_is_said_finds_room() {
        let mut window = Window::default();
        assert_eq!(window.room(5, RATE), 50);
        window.count(5, 30);
        assert_eq!(window.room(400, RATE), 20);
        window.count(400, 20);
        assert_eq!(window.room(900, RATE), 0);
        for (count, until_ms) in [(1, 1010), (30, 1010), (31, 1410), (50, 1410)] {
            let wait_ms = window.wait_ms(900, RATE, count);
            assert_eq!(900 + wait_ms, until_ms, "{count}");
            assert!(window.clone().room(900 + wait_ms, RATE) >= count);
            assert!(window.clone().room(900 + wait_ms - 1, RATE) < count);
        }
    }

    #[test]
    fn another_rate_begins_anew_only_if_its_while_is_another() {
        let mut window = Window::default();
        assert_eq!(window.room(5, RATE), 50);
        window.count(5, 50);
        let more = Rate { count: 80, ..RATE };
        assert_eq!(window.room(6, more), 30, "what was done stays done");
        let longer = Rate {
            per_ms: 60_000,
            ..RATE
        };
        assert_eq!(window.room(6, longer), 50);
    }
}
