//! What a node does to itself so that its cluster can be tested: a clock that is wrong, actors that panic.
//!
//! Only a node that was started with `allow_faults` has any of it, and it asks for the admin's token. Decides
//! how a wrong clock runs; whom an actor's end meets is seen by the supervisors in `dunlin-actors`. Who gives
//! the orders is `dunlin chaos`. No fault outlives the process.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dunlin_actors::ActorFault;
use dunlin_cluster::AgreedClock;
use dunlin_model::id::{DeviceId, ShardId};
use dunlin_model::port::Clock;
use serde::{Deserialize, Serialize};

use crate::clock::SystemClock;

/// Panics that may wait at a time.
pub const PANICS_MAX: u32 = 1_000;
/// Furthest that a clock is set ahead or back: a hundred years.
pub const STEP_MS_MAX: u64 = 3_155_695_200_000;
/// How much faster or slower a clock runs at the most, in millionths.
pub const RATE_PPM_MAX: u64 = 500_000;

/// How wrong the clock is. The default is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Skew {
    /// Milliseconds by which the wall clock is ahead, or behind.
    pub step_ms: i64,
    /// Millionths by which wall clock and monotonic clock run fast, or slow.
    pub rate_ppm: i64,
    /// Milliseconds for which the step counts and does not count in turn; 0 for a step that lasts.
    pub strobe_ms: u64,
}

/// What a node is told to do to itself. An empty order is a look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Orders {
    /// The clock from now on.
    pub clock: Option<Skew>,
    /// Device actors that panic, each over the next thing it handles; 0 takes back what still waits.
    pub device_panics: Option<u32>,
    /// Shard actors that panic.
    pub shard_panics: Option<u32>,
}

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// The wall clock as the fault has it, milliseconds since 1970.
    pub own_wall_ms: u64,
    /// What the node goes by: its peers' clocks, where they contradict its own.
    pub agreed_wall_ms: u64,
    /// Panics of device actors since the start.
    pub devices_panicked: u64,
    /// Panics of shard actors since the start.
    pub shards_panicked: u64,
}

/// The faults of this node.
pub(crate) struct Faults {
    machine: SystemClock,
    clock: Mutex<SkewedTime>,
    device_panics: Panics,
    shard_panics: Panics,
}

impl Faults {
    pub(crate) fn new() -> Self {
        Self {
            machine: SystemClock::new(),
            clock: Mutex::default(),
            device_panics: Panics::default(),
            shard_panics: Panics::default(),
        }
    }

    /// Follows orders, or says what is wrong with them; then none is followed.
    pub(crate) fn handle(&self, orders: &Orders) -> Result<(), String> {
        if let Some(skew) = orders.clock {
            if skew.step_ms.unsigned_abs() > STEP_MS_MAX {
                return Err(format!("step_ms is at most {STEP_MS_MAX}"));
            }
            if skew.rate_ppm.unsigned_abs() > RATE_PPM_MAX {
                return Err(format!("rate_ppm is at most {RATE_PPM_MAX}"));
            }
        }
        let panics = [orders.device_panics, orders.shard_panics];
        if panics.into_iter().flatten().any(|count| count > PANICS_MAX) {
            return Err(format!("at most {PANICS_MAX} panics"));
        }
        if let Some(skew) = orders.clock {
            self.clock().handle_skew(self.machine.monotonic_ms(), skew);
        }
        for (panics, count) in [
            (&self.device_panics, orders.device_panics),
            (&self.shard_panics, orders.shard_panics),
        ] {
            if let Some(count) = count {
                panics.waiting.store(count, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// Follows orders as they come over HTTP: the report as JSON, or what is wrong with them.
    pub(crate) fn handle_body(&self, body: &[u8], clock: &AgreedClock) -> Result<serde_json::Value, String> {
        let orders = serde_json::from_slice(body).map_err(|error| error.to_string())?;
        self.handle(&orders)?;
        serde_json::to_value(self.report(clock.wall_ms())).map_err(|error| error.to_string())
    }

    /// What came of the orders, where the node goes by `agreed_wall_ms`.
    pub(crate) fn report(&self, agreed_wall_ms: u64) -> Report {
        Report {
            own_wall_ms: self.wall_ms(),
            agreed_wall_ms,
            devices_panicked: self.device_panics.happened.load(Ordering::Relaxed),
            shards_panicked: self.shard_panics.happened.load(Ordering::Relaxed),
        }
    }

    fn clock(&self) -> MutexGuard<'_, SkewedTime> {
        self.clock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clock for Faults {
    fn wall_ms(&self) -> u64 {
        let (wall_ms, monotonic_ms) = (self.machine.wall_ms(), self.machine.monotonic_ms());
        self.clock().wall_ms(wall_ms, monotonic_ms)
    }

    fn monotonic_ms(&self) -> u64 {
        let monotonic_ms = self.machine.monotonic_ms();
        self.clock().monotonic_ms(monotonic_ms)
    }
}

impl ActorFault for Faults {
    fn before_device(&self, device: &DeviceId) {
        if self.device_panics.take() {
            panic!("told to: the actor of device {device}");
        }
    }

    fn before_shard(&self, shard: ShardId) {
        if self.shard_panics.take() {
            panic!("told to: the actor of shard {shard}");
        }
    }
}

#[derive(Default)]
struct Panics {
    waiting: AtomicU32,
    happened: AtomicU64,
}

impl Panics {
    /// Whether one is due; it counts as happened.
    fn take(&self) -> bool {
        // Nearly always nothing waits, and a load is all that it costs.
        if self.waiting.load(Ordering::Relaxed) == 0 {
            return false;
        }
        let less = |waiting: u32| waiting.checked_sub(1);
        let is_due = self
            .waiting
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, less)
            .is_ok();
        self.happened.fetch_add(u64::from(is_due), Ordering::Relaxed);
        is_due
    }
}

/// Time as a wrong clock shows it, from what the machine's clock shows.
#[derive(Default)]
struct SkewedTime {
    skew: Skew,
    /// Since when, by the machine's monotonic clock.
    since_ms: u64,
    /// What the monotonic clock showed then: it goes on from there, since it never goes back.
    shown_ms: u64,
}

impl SkewedTime {
    fn handle_skew(&mut self, monotonic_ms: u64, skew: Skew) {
        let shown_ms = self.monotonic_ms(monotonic_ms);
        *self = Self {
            skew,
            since_ms: monotonic_ms,
            shown_ms,
        };
    }

    /// Milliseconds gained since the clock was set; fewer than none for a slow one.
    fn gained_ms(&self, monotonic_ms: u64) -> i64 {
        let since_ms = i128::from(monotonic_ms.saturating_sub(self.since_ms));
        (since_ms * i128::from(self.skew.rate_ppm) / 1_000_000) as i64
    }

    fn monotonic_ms(&self, monotonic_ms: u64) -> u64 {
        let since_ms = monotonic_ms.saturating_sub(self.since_ms);
        self.shown_ms + since_ms.saturating_add_signed(self.gained_ms(monotonic_ms))
    }

    fn wall_ms(&self, wall_ms: u64, monotonic_ms: u64) -> u64 {
        let since_ms = monotonic_ms.saturating_sub(self.since_ms);
        let turn = since_ms.checked_div(self.skew.strobe_ms).unwrap_or(0);
        let step_ms = if turn.is_multiple_of(2) {
            self.skew.step_ms
        } else {
            0
        };
        wall_ms.saturating_add_signed(step_ms.saturating_add(self.gained_ms(monotonic_ms)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL_MS: u64 = 1_800_000_000_000;

    #[test]
    fn a_step_moves_the_wall_clock_alone_and_is_undone_whole() {
        let mut time = SkewedTime::default();
        let step = |step_ms| Skew {
            step_ms,
            ..Skew::default()
        };
        time.handle_skew(1_000, step(-3_600_000));
        assert_eq!(time.wall_ms(WALL_MS, 5_000), WALL_MS - 3_600_000);
        assert_eq!(time.monotonic_ms(5_000), 5_000);
        time.handle_skew(6_000, step(0));
        assert_eq!(time.wall_ms(WALL_MS, 9_000), WALL_MS);
        assert_eq!(time.monotonic_ms(9_000), 9_000);
    }

    #[test]
    fn a_drift_moves_both_clocks_and_the_monotonic_one_never_goes_back() {
        for rate_ppm in [100_000, -100_000] {
            let mut time = SkewedTime::default();
            time.handle_skew(
                1_000,
                Skew {
                    rate_ppm,
                    ..Skew::default()
                },
            );
            let gained = rate_ppm / 100;
            assert_eq!(time.monotonic_ms(11_000), 11_000u64.saturating_add_signed(gained));
            assert_eq!(
                time.wall_ms(WALL_MS, 11_000),
                WALL_MS.saturating_add_signed(gained)
            );
            time.handle_skew(11_000, Skew::default());
            assert_eq!(time.monotonic_ms(11_000), 11_000u64.saturating_add_signed(gained));
            assert_eq!(
                time.wall_ms(WALL_MS, 12_000),
                WALL_MS,
                "the wall clock is set right"
            );
        }
    }

    #[test]
    fn a_strobe_is_wrong_and_right_in_turn() {
        let mut time = SkewedTime::default();
        time.handle_skew(
            0,
            Skew {
                step_ms: 7_000,
                strobe_ms: 200,
                ..Skew::default()
            },
        );
        let off: Vec<u64> = [0, 199, 200, 399, 400]
            .map(|at| time.wall_ms(WALL_MS, at) - WALL_MS)
            .into();
        assert_eq!(off, [7_000, 7_000, 0, 0, 7_000]);
    }

    #[test]
    fn as_many_actors_panic_as_were_told_to_and_no_more() {
        let faults = Faults::new();
        let panics = |faults: &Faults| {
            let one = std::panic::AssertUnwindSafe(|| faults.before_shard(ShardId(3)));
            std::panic::catch_unwind(one).is_err()
        };
        assert!(!panics(&faults));
        let orders = Orders {
            shard_panics: Some(2),
            ..Orders::default()
        };
        faults.handle(&orders).unwrap();
        assert_eq!([0; 3].map(|_| panics(&faults)), [true, true, false]);
        assert_eq!(faults.report(0).shards_panicked, 2);
        let too_many = Orders {
            device_panics: Some(PANICS_MAX + 1),
            ..Orders::default()
        };
        assert!(faults.handle(&too_many).is_err());
    }
}
