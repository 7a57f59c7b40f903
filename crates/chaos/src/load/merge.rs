//! Several generators as one: their histograms added, their rates summed.
//!
//! Takes what `dunlin load` writes: interval logs (`--hdr`), or the JSON of runs. Percentiles of a sum
//! are those of all messages, never a mean of percentiles. Generators that did not run at the same
//! time are not one load, and that is said.

use std::fmt;
use std::path::{Path, PathBuf};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::figures::{Figures, Latency};
use super::hdr::{self, HdrError};
use super::report;
use crate::fleet::histogram;

/// Generators that share less of their time than this did not run together.
const OVERLAP_MIN: f64 = 0.8;

/// Why files cannot be merged.
#[derive(Debug, thiserror::Error)]
pub enum MergeError {
    /// A file or what it holds.
    #[error("{path}: {source}")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: HdrError,
    },
    /// Neither a log nor the JSON of a run.
    #[error("{path} is neither an interval log nor the JSON of a run: {why}")]
    Unknown {
        /// Which.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A log in which nothing was measured.
    #[error("{0} holds no latencies")]
    Empty(PathBuf),
}

/// What one file says.
#[derive(Debug, Clone)]
struct Source {
    latency_us: Histogram<u64>,
    per_s: f64,
    from_s: f64,
    to_s: f64,
}

/// Several runs as one.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Merged {
    /// Runs.
    pub generators: usize,
    /// Messages per second of all together.
    pub per_s: f64,
    /// Latencies of all messages, in microseconds.
    pub latency_us: Latency,
    /// The share of the time in which all of them ran.
    pub overlap: f64,
    /// All latencies, in HdrHistogram's own form.
    pub histogram: String,
}

/// Reads the files and merges them.
pub fn files(paths: &[PathBuf]) -> Result<Merged, MergeError> {
    let sources = paths
        .iter()
        .map(|path| {
            let bytes = hdr::read_file(path).map_err(|source| MergeError::File {
                path: path.clone(),
                source,
            })?;
            source(path, &bytes)
        })
        .collect::<Result<Vec<_>, _>>()?;
    merge(&sources).map_err(|source| MergeError::File {
        path: paths.first().cloned().unwrap_or_default(),
        source,
    })
}

fn source(path: &Path, bytes: &[u8]) -> Result<Source, MergeError> {
    let failed = |source| MergeError::File {
        path: path.to_owned(),
        source,
    };
    if bytes.trim_ascii_start().starts_with(b"{") {
        let figures: Figures = serde_json::from_slice(bytes).map_err(|error| MergeError::Unknown {
            path: path.to_owned(),
            why: error.to_string(),
        })?;
        let from_s = figures.started_ms as f64 / 1000.0;
        return Ok(Source {
            latency_us: hdr::from_text(&figures.histogram).map_err(failed)?,
            per_s: figures.per_s(),
            from_s,
            to_s: from_s + figures.window_s,
        });
    }
    let intervals = hdr::read_log(bytes).map_err(failed)?;
    let mut latency_us = histogram();
    let (mut from_s, mut to_s) = (f64::INFINITY, f64::NEG_INFINITY);
    for interval in intervals
        .iter()
        .filter(|interval| !interval.latency_us.is_empty())
    {
        add(&mut latency_us, &interval.latency_us);
        from_s = from_s.min(interval.from_s);
        to_s = to_s.max(interval.from_s + interval.span_s);
    }
    if latency_us.is_empty() {
        return Err(MergeError::Empty(path.to_owned()));
    }
    Ok(Source {
        per_s: latency_us.len() as f64 / (to_s - from_s).max(1e-3),
        latency_us,
        from_s,
        to_s,
    })
}

/// Adds a histogram that may come from another program, and grows for it.
fn add(sum: &mut Histogram<u64>, more: &Histogram<u64>) {
    for step in more.iter_recorded() {
        sum.saturating_record_n(step.value_iterated_to(), step.count_at_value());
    }
}

fn merge(sources: &[Source]) -> Result<Merged, HdrError> {
    let mut latency_us = histogram();
    for source in sources {
        add(&mut latency_us, &source.latency_us);
    }
    let all = |value: fn(&Source) -> f64| sources.iter().map(value);
    let shared = all(|source| source.to_s).fold(f64::INFINITY, f64::min)
        - all(|source| source.from_s).fold(f64::NEG_INFINITY, f64::max);
    let longest = all(|source| source.to_s - source.from_s).fold(1e-3, f64::max);
    Ok(Merged {
        generators: sources.len(),
        per_s: all(|source| source.per_s).sum(),
        overlap: (shared / longest).clamp(0.0, 1.0),
        histogram: hdr::to_text(&latency_us)?,
        latency_us: Latency::of(&latency_us).unwrap_or(Latency {
            count: 0,
            mean: 0.0,
            p50: 0,
            p90: 0,
            p99: 0,
            p999: 0,
            max: 0,
        }),
    })
}

impl fmt::Display for Merged {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "  {:<20} {}", "generators", self.generators)?;
        writeln!(f, "  {:<20} {}", "together", report::per_s(self.per_s))?;
        write!(
            f,
            "  {:<20} {}  ({} measured)",
            "latency",
            report::percentiles(&self.latency_us),
            self.latency_us.count
        )?;
        if self.overlap < OVERLAP_MIN {
            write!(
                f,
                "\n  !  only {:.0} % of the time had all of them running: this is not one load (see --start-at)",
                self.overlap * 100.0
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source_of(value: u64, count: u64, from_s: f64) -> Source {
        let mut latency_us = histogram();
        latency_us.record_n(value, count).unwrap();
        Source {
            latency_us,
            per_s: count as f64 / 10.0,
            from_s,
            to_s: from_s + 10.0,
        }
    }

    #[test]
    fn percentiles_are_those_of_all_messages() {
        // Ninety fast and ten slow ones: the median of the sum is no mean of 1 and 100 ms.
        let merged = merge(&[source_of(1000, 90, 0.0), source_of(100_000, 10, 0.5)]).unwrap();
        assert_eq!((merged.latency_us.p50, merged.latency_us.count), (1000, 100));
        assert!((100_000..=100_100).contains(&merged.latency_us.p99));
        assert_eq!((merged.per_s, merged.generators), (10.0, 2));
        assert!(merged.overlap > 0.9 && !merged.to_string().contains("not one load"));
    }

    #[test]
    fn generators_that_missed_each_other_are_told() {
        let merged = merge(&[source_of(1, 5, 0.0), source_of(1, 5, 9.0)]).unwrap();
        assert!(merged.to_string().contains("only 10 % of the time"), "{merged}");
        let apart = merge(&[source_of(1, 5, 0.0), source_of(1, 5, 90.0)]).unwrap();
        assert_eq!(apart.overlap, 0.0);
    }

    #[test]
    fn what_is_no_run_is_explained() {
        for nonsense in [&b"{}"[..], b"hello", b""] {
            assert!(source(Path::new("x"), nonsense).is_err());
        }
    }
}
