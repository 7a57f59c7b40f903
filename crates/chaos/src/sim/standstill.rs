//! A run whose simulated time stands still: a task of a node that is ready again and again lets no clock go on.
//!
//! Nothing within the run can notice that, as nothing else gets its turn; so a thread beside it looks at the
//! time that passes outside. There is no way to end the run but to end the process, which says how to repeat it.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::fleet::Shared;

/// Time outside in which a run must get on by a millisecond; a loaded machine takes some hundredths of a second.
const STANDSTILL_MAX: Duration = Duration::from_secs(120);
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The run of a simulator that is under way: its seed, and who has its time.
#[derive(Default)]
pub(super) struct Progress(Mutex<Option<(u64, Arc<Shared>)>>);

impl Progress {
    /// Begins to watch; ends when the simulator is dropped.
    pub(super) fn watched() -> Arc<Progress> {
        let progress = Arc::new(Progress::default());
        let watched = Arc::downgrade(&progress);
        std::thread::spawn(move || watch(&watched));
        progress
    }

    fn run(&self) -> MutexGuard<'_, Option<(u64, Arc<Shared>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says which run comes now.
    pub(super) fn begin(&self, seed: u64, shared: &Arc<Shared>) {
        *self.run() = Some((seed, shared.clone()));
    }

    /// Says that no run is under way.
    pub(super) fn end(&self) {
        *self.run() = None;
    }

    /// The seed, and how far its run is.
    fn place(&self) -> Option<(u64, u64)> {
        let run = self.run();
        let (seed, shared) = run.as_ref()?;
        Some((*seed, shared.now_us.load(Ordering::Relaxed)))
    }
}

fn watch(progress: &Weak<Progress>) {
    let mut last = (None, Instant::now());
    while let Some(progress) = progress.upgrade() {
        let place = progress.place();
        drop(progress);
        match place {
            Some((seed, now_us)) if place == last.0 => {
                if last.1.elapsed() >= STANDSTILL_MAX {
                    eprintln!(
                        "seed {seed}: stands still at {} ms, for {} s: something there never waits\n  dunlin chaos sim replay {seed}",
                        now_us / 1000,
                        STANDSTILL_MAX.as_secs()
                    );
                    std::process::exit(1);
                }
            }
            _ => last = (place, Instant::now()),
        }
        std::thread::sleep(LOOK_EVERY);
    }
}
