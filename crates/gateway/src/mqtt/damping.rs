//! Slows down a device that connects again and again: usually two clients with one identity.
//!
//! Only connects whose credential was verified are counted, so that nobody can slow down somebody
//! else. Time comes in as an argument.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use dunlin_model::id::DeviceId;

use crate::limits::{DAMP_DELAY_MAX, DAMP_DELAY_MIN, DAMP_DEVICES_MAX, DAMP_FREE_CONNECTS, DAMP_WINDOW};

/// Counts connects per device. Bounded by [`DAMP_DEVICES_MAX`].
#[derive(Debug, Default)]
pub(crate) struct Damper {
    recent: HashMap<DeviceId, (u32, Instant)>,
}

impl Damper {
    /// Counts a connect and says how long it has to wait.
    pub(crate) fn handle_connect(&mut self, device: &DeviceId, now: Instant) -> Duration {
        if self.recent.len() >= DAMP_DEVICES_MAX && !self.recent.contains_key(device) {
            self.recent
                .retain(|_, (_, last)| now.saturating_duration_since(*last) < DAMP_WINDOW);
            if self.recent.len() >= DAMP_DEVICES_MAX {
                self.recent.clear();
            }
        }
        let (count, last) = self.recent.entry(device.clone()).or_insert((0, now));
        if now.saturating_duration_since(*last) >= DAMP_WINDOW {
            *count = 0;
        }
        *count = count.saturating_add(1);
        // The delayed connect happens later; the window runs from then on.
        let delay = match count.saturating_sub(DAMP_FREE_CONNECTS) {
            0 => Duration::ZERO,
            over => DAMP_DELAY_MIN
                .saturating_mul(1 << (over - 1).min(16))
                .min(DAMP_DELAY_MAX),
        };
        *last = now + delay;
        delay
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_rise_to_their_bound_and_are_forgotten_after_a_quiet_window() {
        let mut damper = Damper::default();
        let device = DeviceId::parse("d").unwrap();
        let mut now = Instant::now();
        for _ in 0..DAMP_FREE_CONNECTS {
            assert_eq!(damper.handle_connect(&device, now), Duration::ZERO);
        }
        let mut before = Duration::ZERO;
        for _ in 0..40 {
            let delay = damper.handle_connect(&device, now);
            assert!(delay >= before && delay >= DAMP_DELAY_MIN && delay <= DAMP_DELAY_MAX);
            before = delay;
            now += delay;
        }
        assert_eq!(before, DAMP_DELAY_MAX);
        assert_eq!(
            damper.handle_connect(&DeviceId::parse("e").unwrap(), now),
            Duration::ZERO
        );
        assert_eq!(
            damper.handle_connect(&device, now + DAMP_DELAY_MAX + DAMP_WINDOW),
            Duration::ZERO
        );
    }
}
