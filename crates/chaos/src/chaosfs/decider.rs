//! Which operations fail, wait, or have their bytes spoiled, as a machine without a disk or a clock.
//!
//! An operation and its path go in, a decision comes out; the draws come from a seed. It knows nothing
//! of what is durable ([`pages`](super::pages) and [`names`](super::names) do), and does nothing.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::faults::{DiskError, DiskFaults, Operation};
use super::pages::PAGE_BYTES;

/// What happens to an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decision {
    /// How long it waits first.
    pub delay: Option<Duration>,
    /// How it fails then, if it does.
    pub error: Option<DiskError>,
}

/// What happens to the bytes of a read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadSpoil {
    /// Nothing.
    None,
    /// One bit, counted from the first that is read, is another one.
    Flip(usize),
    /// They come from here.
    From(u64),
    /// Where the file has unsynced bytes, they are the ones before.
    Stale,
}

/// What happens to the bytes of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteSpoil {
    /// Nothing.
    None,
    /// They land here.
    To(u64),
    /// They land nowhere.
    Lost,
}

/// Decides for one disk.
#[derive(Debug)]
pub struct Decider {
    faults: DiskFaults,
    random: StdRng,
    /// How many operations each rule of `fail` has been asked about.
    asked: Vec<u64>,
}

impl Decider {
    /// A good disk whose draws come from `seed`.
    pub fn new(seed: u64) -> Self {
        Self {
            faults: DiskFaults::default(),
            random: StdRng::seed_from_u64(seed),
            asked: Vec::new(),
        }
    }

    /// What it is told at present.
    pub fn faults(&self) -> &DiskFaults {
        &self.faults
    }

    /// Tells it something else; rules begin to count anew.
    pub fn set(&mut self, faults: DiskFaults) {
        self.asked = vec![0; faults.fail.len()];
        self.faults = faults;
    }

    /// For draws that belong to no operation.
    pub fn random(&mut self) -> &mut StdRng {
        &mut self.random
    }

    /// Decides about an operation on `path`; `grows` if it needs room on the disk.
    pub fn handle(&mut self, operation: Operation, path: &str, grows: bool) -> Decision {
        Decision {
            delay: self.poll_delay(operation, path),
            error: self.poll_error(operation, path, grows),
        }
    }

    fn poll_delay(&mut self, operation: Operation, path: &str) -> Option<Duration> {
        let rules = self.faults.slow.iter();
        let mut rules = rules.filter(|rule| rule.on == operation && concerns(&rule.path, path));
        let rule = rules.next()?;
        if !self.random.random_bool(rule.share) {
            return None;
        }
        let jitter_us = self.random.random_range(0..=rule.jitter_ms * 1_000);
        Some(Duration::from_millis(rule.delay_ms) + Duration::from_micros(jitter_us))
    }

    fn poll_error(&mut self, operation: Operation, path: &str, grows: bool) -> Option<DiskError> {
        for (rule, asked) in self.faults.fail.iter().zip(&mut self.asked) {
            if rule.on != operation || !concerns(&rule.path, path) {
                continue;
            }
            let number = *asked;
            *asked += 1;
            let end = rule
                .times
                .map_or(u64::MAX, |times| rule.after.saturating_add(times));
            if (rule.after..end).contains(&number) {
                return Some(rule.error);
            }
        }
        if self.faults.read_only && operation.is_change() {
            return Some(DiskError::ReadOnly);
        }
        match grows {
            true if self.faults.full => Some(DiskError::NoSpace),
            true if self.faults.over_quota => Some(DiskError::Quota),
            _ => None,
        }
    }

    /// Decides about the bytes of a read that was not refused.
    pub fn spoil_read(&mut self, path: &str, (offset, len): (u64, usize), file_len: u64) -> ReadSpoil {
        if len == 0 || !concerns(&self.faults.spoil_path, path) {
            return ReadSpoil::None;
        }
        if self.draw(self.faults.flip_read) {
            return ReadSpoil::Flip(self.random.random_range(0..len * 8));
        }
        if self.draw(self.faults.misdirect_read)
            && let Some(elsewhere) = self.draw_elsewhere(offset, file_len)
        {
            return ReadSpoil::From(elsewhere);
        }
        match self.draw(self.faults.stale_read) {
            true => ReadSpoil::Stale,
            false => ReadSpoil::None,
        }
    }

    /// Decides about the bytes of a write that was not refused.
    pub fn spoil_write(&mut self, path: &str, offset: u64, file_len: u64) -> WriteSpoil {
        if !concerns(&self.faults.spoil_path, path) {
            return WriteSpoil::None;
        }
        if self.draw(self.faults.lose_write) {
            return WriteSpoil::Lost;
        }
        if self.draw(self.faults.misdirect_write)
            && let Some(elsewhere) = self.draw_elsewhere(offset, file_len)
        {
            return WriteSpoil::To(elsewhere);
        }
        WriteSpoil::None
    }

    /// The same place within another page of the file, if it has another.
    fn draw_elsewhere(&mut self, offset: u64, file_len: u64) -> Option<u64> {
        let page = PAGE_BYTES as u64;
        let pages = file_len.div_ceil(page);
        let own = offset / page;
        if pages < 2 || own >= pages {
            return None;
        }
        let other = (own + self.random.random_range(1..pages)) % pages;
        Some(other * page + offset % page)
    }

    fn draw(&mut self, share: f64) -> bool {
        share > 0.0 && self.random.random_bool(share)
    }
}

fn concerns(wanted: &Option<String>, path: &str) -> bool {
    wanted.as_ref().is_none_or(|part| path.contains(part.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chaosfs::faults::{Failure, Slowness};

    const PAGE: u64 = PAGE_BYTES as u64;

    fn told(faults: DiskFaults) -> Decider {
        faults.validate().unwrap();
        let mut decider = Decider::new(3);
        decider.set(faults);
        decider
    }

    fn errors(
        decider: &mut Decider,
        operation: Operation,
        path: &str,
        count: usize,
    ) -> Vec<Option<DiskError>> {
        (0..count)
            .map(|_| decider.handle(operation, path, false).error)
            .collect()
    }

    #[test]
    fn a_good_disk_does_what_it_is_asked() {
        let mut decider = Decider::new(1);
        for operation in Operation::ALL {
            let decision = decider.handle(operation, "a", true);
            assert_eq!(
                decision,
                Decision {
                    delay: None,
                    error: None
                }
            );
        }
        assert_eq!(decider.spoil_read("a", (0, 9), 99), ReadSpoil::None);
        assert_eq!(decider.spoil_write("a", 0, 99), WriteSpoil::None);
    }

    #[test]
    fn a_failure_comes_when_and_as_often_as_it_was_ordered() {
        let failure = |after, times, path: Option<&str>| Failure {
            on: Operation::Sync,
            error: DiskError::Io,
            after,
            times,
            path: path.map(str::to_owned),
        };
        let (ok, io) = (None, Some(DiskError::Io));
        for (rule, path, wanted) in [
            (failure(0, Some(1), None), "a", [io, ok, ok, ok]),
            (failure(2, Some(1), None), "a", [ok, ok, io, ok]),
            (failure(1, None, None), "a", [ok, io, io, io]),
            (failure(0, None, Some("journal/")), "journal/1", [io; 4]),
            (failure(0, None, Some("journal/")), "state/1", [ok; 4]),
        ] {
            let mut decider = told(DiskFaults {
                fail: vec![rule],
                ..DiskFaults::default()
            });
            assert_eq!(errors(&mut decider, Operation::Write, path, 4), [ok; 4]);
            assert_eq!(errors(&mut decider, Operation::Sync, path, 4), wanted);
        }
    }

    #[test]
    fn a_full_disk_refuses_what_grows_and_a_read_only_one_every_change() {
        let mut full = told(DiskFaults {
            full: true,
            ..DiskFaults::default()
        });
        assert_eq!(
            full.handle(Operation::Write, "a", true).error,
            Some(DiskError::NoSpace)
        );
        assert_eq!(full.handle(Operation::Write, "a", false).error, None);
        let mut over_quota = told(DiskFaults {
            over_quota: true,
            ..DiskFaults::default()
        });
        let grown = over_quota.handle(Operation::Create, "a", true);
        assert_eq!(grown.error, Some(DiskError::Quota));
        assert_eq!(over_quota.handle(Operation::Write, "a", false).error, None);
        let mut read_only = told(DiskFaults {
            read_only: true,
            ..DiskFaults::default()
        });
        for operation in Operation::ALL {
            let wanted = operation.is_change().then_some(DiskError::ReadOnly);
            assert_eq!(read_only.handle(operation, "a", false).error, wanted);
        }
    }

    #[test]
    fn slow_operations_wait_within_their_range_and_in_their_share() {
        let mut decider = told(DiskFaults {
            slow: vec![Slowness {
                on: Operation::Sync,
                delay_ms: 10,
                jitter_ms: 5,
                share: 0.5,
                path: None,
            }],
            ..DiskFaults::default()
        });
        let delays: Vec<Duration> = (0..1_000)
            .filter_map(|_| decider.handle(Operation::Sync, "a", false).delay)
            .collect();
        assert!((400..600).contains(&delays.len()), "{}", delays.len());
        let range = Duration::from_millis(10)..=Duration::from_millis(15);
        assert!(delays.iter().all(|delay| range.contains(delay)));
        assert_eq!(decider.handle(Operation::Write, "a", false).delay, None);
    }

    #[test]
    fn what_is_misdirected_stays_within_the_file_and_leaves_its_page() {
        let mut decider = told(DiskFaults {
            misdirect_read: 1.0,
            misdirect_write: 1.0,
            spoil_path: Some("segment".into()),
            ..DiskFaults::default()
        });
        for _ in 0..100 {
            let ReadSpoil::From(place) = decider.spoil_read("a/segment-1", (PAGE + 7, 9), 3 * PAGE) else {
                panic!("not misdirected");
            };
            assert!([7, 2 * PAGE + 7].contains(&place), "{place}");
        }
        assert_eq!(decider.spoil_read("a/journal", (7, 9), 3 * PAGE), ReadSpoil::None);
        assert_eq!(decider.spoil_read("segment", (7, 9), PAGE), ReadSpoil::None);
        assert_eq!(decider.spoil_write("segment", PAGE, 2 * PAGE), WriteSpoil::To(0));
    }

    #[test]
    fn bits_are_flipped_within_what_is_read_and_writes_are_lost() {
        let mut decider = told(DiskFaults {
            flip_read: 1.0,
            lose_write: 1.0,
            ..DiskFaults::default()
        });
        for _ in 0..100 {
            let spoil = decider.spoil_read("a", (0, 2), 99);
            assert!(matches!(spoil, ReadSpoil::Flip(0..16)), "{spoil:?}");
        }
        assert_eq!(decider.spoil_write("a", 0, 99), WriteSpoil::Lost);
    }
}
