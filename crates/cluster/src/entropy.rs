//! The randomness of this crate: the system's, unless the thread was seeded.
//!
//! A simulation seeds its one thread, and then election time-outs, stream incarnations and the transport's
//! own draws follow from the seed. Keys, secrets and tokens are drawn here too, so a process that serves
//! real devices never seeds a thread.

use std::cell::RefCell;
use std::convert::Infallible;

use rand::rngs::StdRng;
use rand::{Rng, RngExt as _, SeedableRng as _, TryRng};

thread_local! {
    static SEEDED: RefCell<Option<StdRng>> = const { RefCell::new(None) };
}

/// Makes this thread's draws follow from `seed`, or be the system's again.
pub fn seed_thread(seed: Option<u64>) {
    SEEDED.set(seed.map(StdRng::seed_from_u64));
}

/// Draws from this thread's source.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Entropy;

impl Entropy {
    fn with<T>(draw: impl FnOnce(&mut dyn Rng) -> T) -> T {
        SEEDED.with_borrow_mut(|seeded| match seeded {
            Some(seeded) => draw(seeded),
            None => draw(&mut rand::rng()),
        })
    }
}

impl TryRng for Entropy {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        Ok(Self::with(|source| source.next_u32()))
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        Ok(Self::with(|source| source.next_u64()))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        Self::with(|source| source.fill_bytes(bytes));
        Ok(())
    }
}

/// Fills `bytes` from this thread's source.
pub fn fill(bytes: &mut [u8]) {
    Entropy.fill_bytes(bytes);
}

/// A number of any kind.
pub(crate) fn draw<T>() -> T
where
    rand::distr::StandardUniform: rand::distr::Distribution<T>,
{
    Entropy.random()
}

/// A seed for a library that wants one, if this thread was seeded.
pub(crate) fn seed_if_seeded() -> Option<[u8; 32]> {
    SEEDED.with_borrow_mut(|seeded| seeded.as_mut().map(|seeded| seeded.random()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seeded_thread_repeats_itself_and_another_one_does_not() {
        let three = || [draw::<u64>(), draw::<u64>(), u64::from(draw::<u32>())];
        seed_thread(Some(7));
        let first = three();
        seed_thread(Some(7));
        assert_eq!(three(), first);
        assert!(seed_if_seeded().is_some());
        std::thread::spawn(move || {
            assert_eq!(seed_if_seeded(), None);
            assert_ne!(three(), first, "another thread is not seeded");
        })
        .join()
        .unwrap();
        seed_thread(None);
        assert_eq!(seed_if_seeded(), None);
    }
}
