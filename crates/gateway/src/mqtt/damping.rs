//! Slows down a device that connects again and again: usually two clients with one identity.
//!
//! Only connects whose credential was verified are counted, so that nobody can slow down somebody
//! else. Time comes in as an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use dunlin_model::id::DeviceId;

use crate::limits::{DAMP_DELAY_MAX, DAMP_DELAY_MIN, DAMP_DEVICES_MAX, DAMP_FREE_CONNECTS, DAMP_WINDOW};

/// What a connect weighs: so much time has to pass until it is forgotten.
const CONNECT_WEIGHT: Duration = DAMP_WINDOW
    .checked_div(DAMP_FREE_CONNECTS)
    .expect("some are free");
/// Weight of connects at the most: enough for the longest delay, and forgotten soon after.
const WEIGHT_MAX: Duration = DAMP_WINDOW.saturating_add(CONNECT_WEIGHT.saturating_mul(8));

/// Weighs connects per device. Bounded by [`DAMP_DEVICES_MAX`].
#[derive(Debug, Default)]
pub(crate) struct Damper {
    /// What they weighed when the last of them took place.
    recent: HashMap<DeviceId, (Duration, Instant)>,
}

impl Damper {
    /// Counts a connect and says how long it has to wait.
    pub(crate) fn handle_connect(&mut self, device: &DeviceId, now: Instant) -> Duration {
        if self.recent.len() >= DAMP_DEVICES_MAX && !self.recent.contains_key(device) {
            self.recent
                .retain(|_, (weight, last)| now.saturating_duration_since(*last) < *weight);
            if self.recent.len() >= DAMP_DEVICES_MAX {
                self.recent.clear();
            }
        }
        let (weight, last) = self.recent.entry(device.clone()).or_insert((Duration::ZERO, now));
        let left = weight.saturating_sub(now.saturating_duration_since(*last));
        *weight = (left + CONNECT_WEIGHT).min(WEIGHT_MAX);
        let over = weight.saturating_sub(DAMP_WINDOW).as_nanos();
        let delay = match over.div_ceil(CONNECT_WEIGHT.as_nanos()) {
            0 => Duration::ZERO,
            over => DAMP_DELAY_MIN
                .saturating_mul(1 << (over - 1).min(16))
                .min(DAMP_DELAY_MAX),
        };
        // The delayed connect happens later; time runs from then on.
        *last = now + delay;
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn device(name: &str) -> DeviceId {
        DeviceId::parse(name).unwrap()
    }

    #[test]
    fn delays_rise_to_their_bound_and_are_forgotten_after_a_quiet_while() {
        let mut damper = Damper::default();
        let (device, now) = (device("d"), Instant::now());
        for _ in 0..DAMP_FREE_CONNECTS {
            assert_eq!(damper.handle_connect(&device, now), Duration::ZERO);
        }
        let mut before = Duration::ZERO;
        for _ in 0..40 {
            let delay = damper.handle_connect(&device, now);
            assert!(delay >= before && delay >= DAMP_DELAY_MIN && delay <= DAMP_DELAY_MAX);
            before = delay;
        }
        assert_eq!(before, DAMP_DELAY_MAX);
        assert_eq!(damper.handle_connect(&self::device("e"), now), Duration::ZERO);
        assert_eq!(
            damper.handle_connect(&device, now + DAMP_DELAY_MAX + DAMP_WINDOW),
            Duration::ZERO
        );
    }

    #[test]
    fn whoever_comes_no_more_than_ten_times_in_ten_seconds_never_waits() {
        let mut damper = Damper::default();
        for (name, seconds) in [("a", 1), ("b", 3), ("c", 9)] {
            let mut now = Instant::now();
            for _ in 0..200 {
                assert_eq!(
                    damper.handle_connect(&device(name), now),
                    Duration::ZERO,
                    "{name}"
                );
                now += Duration::from_secs(seconds);
            }
        }
    }

    #[test]
    fn two_that_throw_each_other_out_have_five_seconds_each() {
        let mut damper = Damper::default();
        let begun = Instant::now();
        let mut now = begun;
        let mut count = 0;
        while now < begun + Duration::from_secs(600) {
            now += damper.handle_connect(&device("d"), now) + Duration::from_millis(10);
            count += 1;
        }
        assert!((110..160).contains(&count), "{count} in ten minutes");
    }
}
