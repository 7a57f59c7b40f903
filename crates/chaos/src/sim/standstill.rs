//! A run whose simulated time stands still: a task of a node that is ready again and again lets no clock go on.
//!
//! Nothing within the run can notice that, as nothing else gets its turn; so a thread beside it looks at the
//! time that passes outside. There is no way to end the run but to end the process, which says how to repeat it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

/// Time outside in which a run must get on by a millisecond; a loaded machine takes some hundredths of a second.
const STANDSTILL_MAX: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// The seed while nothing runs.
const NOTHING: u64 = u64::MAX;

/// How far the run of a simulator is.
pub(super) struct Progress {
    seed: AtomicU64,
    now_us: AtomicU64,
}

impl Progress {
    /// Begins to watch; ends when the simulator is dropped.
    pub(super) fn watched() -> Arc<Progress> {
        let progress = Arc::new(Progress {
            seed: AtomicU64::new(NOTHING),
            now_us: AtomicU64::new(0),
        });
        let watched = Arc::downgrade(&progress);
        std::thread::spawn(move || watch(&watched));
        progress
    }

    /// Says which run comes now.
    pub(super) fn begin(&self, seed: u64) {
        self.now_us.store(0, Ordering::Relaxed);
        self.seed.store(seed, Ordering::Relaxed);
    }

    /// Says that no run is under way.
    pub(super) fn end(&self) {
        self.seed.store(NOTHING, Ordering::Relaxed);
    }

    /// Says that the run has come to a moment.
    pub(super) fn is_at(&self, now_us: u64) {
        self.now_us.store(now_us, Ordering::Relaxed);
    }

    fn place(&self) -> (u64, u64) {
        (
            self.seed.load(Ordering::Relaxed),
            self.now_us.load(Ordering::Relaxed),
        )
    }
}

fn watch(progress: &Weak<Progress>) {
    let mut last = ((NOTHING, 0), Instant::now());
    while let Some(progress) = progress.upgrade() {
        let place = progress.place();
        drop(progress);
        if place != last.0 || place.0 == NOTHING {
            last = (place, Instant::now());
        } else if last.1.elapsed() >= STANDSTILL_MAX {
            let (seed, now_us) = place;
            eprintln!(
                "seed {seed}: stands still at {} ms, for {} s: something there never waits\n  dunlin chaos sim replay {seed}",
                now_us / 1000,
                STANDSTILL_MAX.as_secs()
            );
            std::process::exit(1);
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
