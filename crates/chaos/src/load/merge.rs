//! Several generators as one: their histograms added, their rates summed.
//!
//! Takes what `dunlin load` writes: interval logs (`--hdr`), or the JSON of runs. Percentiles of a sum
//! are those of all messages, never a mean of percentiles. Corrected latencies are merged where every
//! generator has them, which a log has not. Generators that did not run at the same time are not one
//! load, and that is said.

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
    corrected_us: Option<Histogram<u64>>,
    ceiling_per_s: Option<f64>,
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
    /// The same, corrected, if every generator has them: that of closed loops.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrected_us: Option<Latency>,
    /// Generators that have corrected ones.
    pub corrected: usize,
    /// What each generator reaches against a server that does nothing, as far as it was measured.
    pub ceilings_per_s: Vec<f64>,
    /// The largest share of its ceiling that a generator used.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ceiling_share: Option<f64>,
    /// The share of the time in which all of them ran.
    pub overlap: f64,
    /// All latencies, in HdrHistogram's own form.
    pub histogram: String,
    /// The corrected ones, in the same form.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub corrected_histogram: Option<String>,
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
        let corrected = figures.corrected_histogram.as_deref().map(hdr::from_text);
        return Ok(Source {
            latency_us: hdr::from_text(&figures.histogram).map_err(failed)?,
            corrected_us: corrected.transpose().map_err(failed)?,
            ceiling_per_s: figures.ceiling_per_s,
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
        corrected_us: None,
        ceiling_per_s: None,
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

/// All of them as one.
fn sum<'a>(histograms: impl Iterator<Item = &'a Histogram<u64>>) -> Histogram<u64> {
    let mut sum = histogram();
    for more in histograms {
        add(&mut sum, more);
    }
    sum
}

fn merge(sources: &[Source]) -> Result<Merged, HdrError> {
    let latency_us = sum(sources.iter().map(|source| &source.latency_us));
    let corrected: Vec<&Histogram<u64>> = sources
        .iter()
        .filter_map(|source| source.corrected_us.as_ref())
        .collect();
    // Percentiles of a part would pass for those of the whole.
    let is_corrected = !corrected.is_empty() && corrected.len() == sources.len();
    let corrected_us = is_corrected.then(|| sum(corrected.iter().copied()));
    let shares = sources
        .iter()
        .filter_map(|source| Some(source.per_s / source.ceiling_per_s?.max(1e-3)));
    let all = |value: fn(&Source) -> f64| sources.iter().map(value);
    let shared = all(|source| source.to_s).fold(f64::INFINITY, f64::min)
        - all(|source| source.from_s).fold(f64::NEG_INFINITY, f64::max);
    let longest = all(|source| source.to_s - source.from_s).fold(1e-3, f64::max);
    Ok(Merged {
        generators: sources.len(),
        per_s: all(|source| source.per_s).sum(),
        overlap: (shared / longest).clamp(0.0, 1.0),
        histogram: hdr::to_text(&latency_us)?,
        corrected_us: corrected_us.as_ref().and_then(Latency::of),
        corrected: corrected.len(),
        corrected_histogram: corrected_us.as_ref().map(hdr::to_text).transpose()?,
        ceilings_per_s: sources.iter().filter_map(|source| source.ceiling_per_s).collect(),
        ceiling_share: shares.reduce(f64::max),
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

impl Merged {
    /// What the weakest generator reaches.
    fn lowest_ceiling_per_s(&self) -> Option<f64> {
        self.ceilings_per_s.iter().copied().reduce(f64::min)
    }
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
        if let Some(corrected) = &self.corrected_us {
            write!(
                f,
                "\n  {:<20} {}  (as if sent at even times)",
                "latency, corrected",
                report::percentiles(corrected)
            )?;
        }
        if let (Some(lowest), Some(share)) = (self.lowest_ceiling_per_s(), self.ceiling_share) {
            write!(
                f,
                "\n  {:<20} {} at the lowest, of {} that were measured; a generator used {:.1} % of its own at the most",
                "generator ceiling",
                report::per_s(lowest),
                self.ceilings_per_s.len(),
                share * 100.0
            )?;
        }
        if self.corrected > 0 && self.corrected < self.generators {
            write!(
                f,
                "\n  !  only {} of {} say what their latencies are when corrected (-o json of a closed loop does)",
                self.corrected, self.generators
            )?;
        }
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
            corrected_us: None,
            ceiling_per_s: None,
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
    fn corrected_latencies_are_merged_where_all_have_them() {
        let corrected = |value, count, corrected_value| {
            let mut corrected_us = histogram();
            corrected_us.record_n(corrected_value, count).unwrap();
            Source {
                corrected_us: Some(corrected_us),
                ..source_of(value, count, 0.0)
            }
        };
        let closed = [corrected(1000, 90, 2000), corrected(1000, 10, 300_000)];
        let merged = merge(&closed).unwrap();
        let latency = merged.corrected_us.unwrap();
        assert_eq!((latency.count, latency.p50, merged.corrected), (100, 2000, 2));
        assert!((299_000..301_000).contains(&latency.p99), "{latency:?}");
        assert_eq!(merged.latency_us.max, 1000);
        let again = hdr::from_text(merged.corrected_histogram.as_deref().unwrap()).unwrap();
        assert_eq!(again.len(), 100);
        assert!(
            merged.to_string().contains("latency, corrected   p50 2.00 ms"),
            "{merged}"
        );

        let partly = merge(&[corrected(1000, 90, 2000), source_of(1000, 10, 0.0)]).unwrap();
        assert_eq!(
            (partly.corrected_us, partly.corrected_histogram.as_ref()),
            (None, None)
        );
        assert!(partly.to_string().contains("only 1 of 2 say"), "{partly}");
        let open = merge(&[source_of(1, 5, 0.0)]).unwrap();
        assert!(!open.to_string().contains("corrected"), "{open}");
    }

    #[test]
    fn the_lowest_ceiling_is_shown_and_who_came_nearest_to_its_own() {
        let with = |count, ceiling_per_s| Source {
            ceiling_per_s,
            ..source_of(1000, count, 0.0)
        };
        // 90 and 10 a second, then one that measured nothing.
        let merged = merge(&[with(900, Some(100.0)), with(100, Some(50.0)), with(5, None)]).unwrap();
        assert_eq!(merged.ceilings_per_s, [100.0, 50.0]);
        let text = merged.to_string();
        assert!(
            text.contains("50.0/s at the lowest, of 2 that were measured; a generator used 90.0 %"),
            "{text}"
        );
        assert!(!merge(&[with(5, None)]).unwrap().to_string().contains("ceiling"));
    }

    #[test]
    fn what_is_no_run_is_explained() {
        for nonsense in [&b"{}"[..], b"hello", b""] {
            assert!(source(Path::new("x"), nonsense).is_err());
        }
    }
}
