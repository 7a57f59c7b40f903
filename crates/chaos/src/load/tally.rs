//! What many workers count together: how long what was done took, and what was said instead where it was not.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, PoisonError};

use hdrhistogram::Histogram;

use super::figures::Latency;
use super::report::percentiles;
use crate::fleet::histogram;

struct Counted {
    latency_us: Histogram<u64>,
    failed: BTreeMap<String, u64>,
}

/// See the file.
pub(super) struct Tally(Mutex<Counted>);

/// What it comes to.
pub(super) struct Total {
    /// What was done.
    pub(super) count: u64,
    /// What was not, by what was said instead.
    pub(super) failed: BTreeMap<String, u64>,
    /// Nothing if nothing was done.
    pub(super) latency_us: Option<Latency>,
}

impl Tally {
    pub(super) fn new() -> Self {
        Self(Mutex::new(Counted {
            latency_us: histogram(),
            failed: BTreeMap::new(),
        }))
    }

    /// Counts one end.
    pub(super) fn count(&self, ended: Result<(), String>, took_us: u64) {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match ended {
            Ok(()) => counted.latency_us.saturating_record(took_us),
            Err(what) => *counted.failed.entry(what).or_default() += 1,
        }
    }

    pub(super) fn total(&self) -> Total {
        let counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Total {
            count: counted.latency_us.len(),
            failed: counted.failed.clone(),
            latency_us: Latency::of(&counted.latency_us),
        }
    }
}

/// How often in a second, of what took `seconds`.
pub(super) fn per_s(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds.max(f64::EPSILON)
}

/// The last lines of figures; `nothing` stands for times that there are none of.
pub(super) fn write_ends(
    f: &mut fmt::Formatter<'_>,
    latency_us: Option<&Latency>,
    failed: &BTreeMap<String, u64>,
    nothing: &str,
) -> fmt::Result {
    match latency_us {
        Some(latency) => write!(f, "  took      {}", percentiles(latency))?,
        None => write!(f, "  took      {nothing}")?,
    }
    for (what, count) in failed {
        write!(f, "\n  failed    {count}: {what}")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_counted_by_what_was_said() {
        let tally = Tally::new();
        assert!(tally.total().latency_us.is_none());
        tally.count(Ok(()), 10);
        tally.count(Err("busy".to_owned()), 20);
        tally.count(Err("busy".to_owned()), 30);
        let total = tally.total();
        assert_eq!(total.count, 1);
        assert_eq!(total.failed, BTreeMap::from([("busy".to_owned(), 2)]));
        assert!(total.latency_us.is_some());
    }
}
