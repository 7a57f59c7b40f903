//! Histograms on files: interval logs as HdrHistogram's tools read them, and one histogram as text.
//!
//! Values are microseconds. The library's own writer and reader are used both ways, so whatever reads
//! such logs reads ours.

use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::interval_log::{
    IntervalLogHistogram, IntervalLogIterator, IntervalLogWriterBuilder, LogEntry,
};
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2DeflateSerializer};

use super::engine::Row;

/// Bytes of a log that is read.
const LOG_BYTES_MAX: u64 = 512 * 1024 * 1024;

/// Why a histogram cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum HdrError {
    /// The file.
    #[error("{action} {path}: {source}")]
    File {
        /// What was tried.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A histogram that cannot be put into bytes, or none at all.
    #[error("{action} a histogram: {why}")]
    Histogram {
        /// What was tried.
        action: &'static str,
        /// Why.
        why: String,
    },
}

fn failed(action: &'static str, why: impl std::fmt::Debug) -> HdrError {
    HdrError::Histogram {
        action,
        why: format!("{why:?}"),
    }
}

/// A histogram as text.
pub fn to_text(histogram: &Histogram<u64>) -> Result<String, HdrError> {
    let mut bytes = Vec::new();
    V2DeflateSerializer::new()
        .serialize(histogram, &mut bytes)
        .map_err(|error| failed("write", error))?;
    Ok(STANDARD.encode(bytes))
}

/// The histogram that [`to_text`] made a text of.
pub fn from_text(text: &str) -> Result<Histogram<u64>, HdrError> {
    let bytes = STANDARD
        .decode(text.trim())
        .map_err(|error| failed("read", error))?;
    Deserializer::new()
        .deserialize(&mut &bytes[..])
        .map_err(|error| failed("read", error))
}

/// An interval log that grows with the run. Each interval is on disk before the next begins.
#[derive(Debug)]
pub struct Log {
    path: PathBuf,
    file: BufWriter<File>,
    has_begun: bool,
}

impl Log {
    /// Makes the file, over an older one.
    pub fn create(path: &Path) -> Result<Self, HdrError> {
        let file = File::create(path).map_err(|source| HdrError::File {
            action: "create",
            path: path.to_owned(),
            source,
        })?;
        Ok(Self {
            path: path.to_owned(),
            file: BufWriter::new(file),
            has_begun: false,
        })
    }

    /// Says when the load started.
    pub fn begin(&mut self, started: SystemTime) -> Result<(), HdrError> {
        self.has_begun = true;
        let begun = IntervalLogWriterBuilder::new()
            .add_comment("[Logged with dunlin load; values are microseconds]")
            .with_start_time(started)
            .with_base_time(started)
            .begin_log_with(&mut self.file, &mut V2DeflateSerializer::new())
            .map(|_| ());
        begun
            .and_then(|()| self.file.flush())
            .map_err(|source| self.broken(source))
    }

    /// Adds an interval.
    pub fn write(&mut self, row: &Row, latency_us: &Histogram<u64>) -> Result<(), HdrError> {
        if !self.has_begun {
            return Ok(());
        }
        // The library writes head and intervals with one borrow of the file; a builder without a head
        // writes nothing, so each interval can have its own.
        let mut serializer = V2DeflateSerializer::new();
        let seconds = |s: f64| Duration::try_from_secs_f64(s).unwrap_or_default();
        let written = IntervalLogWriterBuilder::new()
            .begin_log_with(&mut self.file, &mut serializer)
            .map_err(io::Error::other)
            .and_then(|mut log| {
                log.write_histogram(
                    latency_us,
                    seconds(row.from_s),
                    seconds(row.to_s - row.from_s),
                    None,
                )
                .map_err(|error| io::Error::other(format!("{error:?}")))
            });
        written
            .and_then(|()| self.file.flush())
            .map_err(|source| self.broken(source))
    }

    fn broken(&self, source: io::Error) -> HdrError {
        HdrError::File {
            action: "write",
            path: self.path.clone(),
            source,
        }
    }
}

/// One interval of a log that was read.
#[derive(Debug, Clone)]
pub struct Logged {
    /// Its beginning: seconds since 1970, or after the start where the log does not say when that was.
    pub from_s: f64,
    /// Its length.
    pub span_s: f64,
    /// Its latencies, in microseconds.
    pub latency_us: Histogram<u64>,
}

/// Reads the text of an interval log.
pub fn read_log(text: &[u8]) -> Result<Vec<Logged>, HdrError> {
    let mut base_s = 0.0;
    let mut found = Vec::new();
    for entry in IntervalLogIterator::new(text) {
        match entry.map_err(|error| failed("read", error))? {
            LogEntry::BaseTime(base) => base_s = base.as_secs_f64(),
            LogEntry::StartTime(_) => {}
            LogEntry::Interval(interval) => found.push(read_interval(&interval, base_s)?),
        }
    }
    Ok(found)
}

fn read_interval(interval: &IntervalLogHistogram<'_>, base_s: f64) -> Result<Logged, HdrError> {
    Ok(Logged {
        from_s: base_s + interval.start_timestamp().as_secs_f64(),
        span_s: interval.duration().as_secs_f64(),
        latency_us: from_text(interval.encoded_histogram())?,
    })
}

/// Reads a file that is to be merged or plotted.
pub(super) fn read_file(path: &Path) -> Result<Vec<u8>, HdrError> {
    let failed = |source| HdrError::File {
        action: "read",
        path: path.to_owned(),
        source,
    };
    if std::fs::metadata(path).map_err(failed)?.len() > LOG_BYTES_MAX {
        return Err(failed(io::ErrorKind::FileTooLarge.into()));
    }
    std::fs::read(path).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::histogram;

    #[test]
    fn a_histogram_becomes_text_and_again_a_histogram() {
        let mut latency_us = histogram();
        for value in [1, 10, 1000, 5_000_000] {
            latency_us.record(value).unwrap();
        }
        assert_eq!(from_text(&to_text(&latency_us).unwrap()).unwrap(), latency_us);
        for nonsense in ["", "AAAA", "not base64!"] {
            assert!(from_text(nonsense).is_err(), "{nonsense:?}");
        }
    }

    #[test]
    fn a_log_is_read_back_interval_by_interval() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut log = Log::create(file.path()).unwrap();
        let started = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
        log.begin(started).unwrap();
        for second in 0..3 {
            let mut latency_us = histogram();
            latency_us.record_n(100 * (second + 1), second + 1).unwrap();
            let row = Row {
                from_s: second as f64,
                to_s: second as f64 + 1.0,
                acked_per_s: 0.0,
                received_per_s: 0.0,
                p50_us: 0,
                p99_us: 0,
                max_us: 0,
                lost: 0,
                connections: 0,
            };
            log.write(&row, &latency_us).unwrap();
        }
        let text = std::fs::read(file.path()).unwrap();
        let logged = read_log(&text).unwrap();
        assert_eq!(logged.len(), 3);
        assert_eq!((logged[2].from_s, logged[2].span_s), (1_700_000_002.0, 1.0));
        assert_eq!((logged[2].latency_us.len(), logged[2].latency_us.max()), (3, 300));
        assert!(read_log(b"1,2,nonsense\n").is_err());
    }
}
