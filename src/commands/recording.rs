//! A recording of the real world as a list of messages: CSV rows become JSON objects.
//!
//! Decides nothing about when they are sent; it only knows how far apart they were recorded.

use std::path::Path;
use std::time::Duration;

use dunlin_model::limits::{MESSAGE_BYTES_MAX, PROPERTY_BAG_BYTES_MAX};
use serde_json::{Map, Number, Value};

/// Names that the column of the time usually has, in lower case.
const TIME_NAMES: &[&str] = &["time", "timestamp", "datetime", "date"];
/// Bytes of a row's JSON at the most; the rest of a message is for its properties.
const BODY_BYTES_MAX: usize = MESSAGE_BYTES_MAX - PROPERTY_BAG_BYTES_MAX;
/// Longest time between two rows; a clock can be added to it.
const GAP_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// One row.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Row {
    /// The JSON object.
    pub(crate) body: String,
    /// When it was recorded, in seconds since some day; `None` if no column says so.
    time_s: Option<f64>,
}

/// Rows in the order of the file; at least one.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Recording {
    pub(crate) rows: Vec<Row>,
}

/// Why a file cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordingError {
    /// The file or its CSV.
    #[error("{0}")]
    Csv(#[from] csv::Error),
    /// Nothing below the header.
    #[error("it has no rows below its header")]
    Empty,
    /// A name that would hide another column.
    #[error("two columns are named {0:?}")]
    TwoColumns(String),
    /// A row that does not fit a message.
    #[error("row {0} makes a message of more than {BODY_BYTES_MAX} bytes")]
    TooLong(usize),
    /// Its own pace was asked for, and there is none.
    #[error("row {0} does not say when it was recorded; leave --speed out and use --interval")]
    NoTime(usize),
}

impl Recording {
    /// Reads a file.
    pub(crate) fn open(path: &Path) -> Result<Recording, RecordingError> {
        Self::read(csv::Reader::from_path(path)?)
    }

    fn read<R: std::io::Read>(mut reader: csv::Reader<R>) -> Result<Recording, RecordingError> {
        let headers: Vec<String> = reader
            .headers()?
            .iter()
            .map(|name| name.trim().to_owned())
            .collect();
        if let Some((_, twice)) = headers
            .iter()
            .enumerate()
            .find(|(place, name)| headers[..*place].contains(name))
        {
            return Err(RecordingError::TwoColumns(twice.clone()));
        }
        let time_column = headers
            .iter()
            .position(|name| TIME_NAMES.contains(&name.to_ascii_lowercase().as_str()))
            .unwrap_or_default();
        let mut rows = Vec::new();
        for record in reader.records() {
            let record = record?;
            let object: Map<String, Value> = headers
                .iter()
                .cloned()
                .zip(record.iter().map(|cell| to_json(cell.trim())))
                .collect();
            let body = Value::Object(object).to_string();
            if body.len() > BODY_BYTES_MAX {
                return Err(RecordingError::TooLong(rows.len() + 1));
            }
            rows.push(Row {
                body,
                time_s: record.get(time_column).and_then(|cell| parse_time(cell.trim())),
            });
        }
        if rows.is_empty() {
            Err(RecordingError::Empty)
        } else {
            Ok(Recording { rows })
        }
    }

    /// Time from each row to the next, `speed` times as fast as recorded; nothing after the last.
    pub(crate) fn gaps(&self, speed: f64) -> Result<Vec<Duration>, RecordingError> {
        let time = |place: usize| self.rows[place].time_s.ok_or(RecordingError::NoTime(place + 1));
        let mut gaps = Vec::with_capacity(self.rows.len());
        for place in 0..self.rows.len() {
            let next_s = if place + 1 < self.rows.len() {
                time(place + 1)?
            } else {
                time(place)?
            };
            // Clocks of loggers go back now and then; such rows follow at once.
            let gap_s = (next_s - time(place)?).max(0.0) / speed;
            gaps.push(Duration::try_from_secs_f64(gap_s).map_or(GAP_MAX, |gap| gap.min(GAP_MAX)));
        }
        Ok(gaps)
    }
}

/// A number if it is written like one in JSON, so that `007` stays what it is.
fn to_json(cell: &str) -> Value {
    if cell.is_empty() {
        return Value::Null;
    }
    serde_json::from_str::<Number>(cell).map_or_else(|_| Value::String(cell.to_owned()), Value::Number)
}

/// Seconds of `YYYY-MM-DD[ T]HH:MM:SS[.fff][Z|±HH:MM]`, or of a plain number of seconds.
fn parse_time(text: &str) -> Option<f64> {
    let (date, clock) = match text.split_once(['T', ' ']) {
        Some(parts) => parts,
        None => return text.parse().ok().filter(|seconds: &f64| seconds.is_finite()),
    };
    let mut date = date.splitn(3, '-').map(|part| part.parse::<i64>().ok());
    let (year, month, day) = (date.next()??, date.next()??, date.next()??);
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) || !(0..=9999).contains(&year) {
        return None;
    }
    let (clock, offset_s) = split_offset(clock.trim())?;
    let mut clock = clock.splitn(3, ':');
    let hour: f64 = clock.next()?.parse().ok()?;
    let minute: f64 = clock.next()?.parse().ok()?;
    let second: f64 = clock.next().map_or(Some(0.0), |second| second.parse().ok())?;
    let days = days_of(year, month, day);
    let time_s = days as f64 * 86_400.0 + hour * 3600.0 + minute * 60.0 + second - offset_s;
    time_s.is_finite().then_some(time_s)
}

/// The clock without its offset from UTC, and the offset in seconds.
fn split_offset(clock: &str) -> Option<(&str, f64)> {
    if let Some(clock) = clock.strip_suffix(['Z', 'z']) {
        return Some((clock, 0.0));
    }
    let Some(place) = clock.rfind(['+', '-']) else {
        return Some((clock, 0.0));
    };
    let (clock, offset) = clock.split_at(place);
    let sign = if offset.starts_with('-') { -1.0 } else { 1.0 };
    let digits: String = offset[1..].chars().filter(|c| *c != ':').collect();
    let number: f64 = digits.parse().ok()?;
    let (hours, minutes) = if digits.len() > 2 {
        ((number / 100.0).trunc(), number % 100.0)
    } else {
        (number, 0.0)
    };
    Some((clock, sign * (hours * 3600.0 + minutes * 60.0)))
}

/// Days since some day, counting years from March so that leap days come last.
fn days_of(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let from_march = (month + 9) % 12;
    365 * year + year / 4 - year / 100 + year / 400 + (153 * from_march + 2) / 5 + day
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Recording, RecordingError> {
        Recording::read(csv::Reader::from_reader(text.as_bytes()))
    }

    #[test]
    fn rows_become_objects() {
        let recording = read("time,V1, Flow [l/s] ,note\n2015-02-04 17:51:00,23.18,-4e1,\n2015-02-04 18:07:00,007,NaN,\"a,b\"\n")
            .unwrap();
        let bodies: Vec<Value> = recording
            .rows
            .iter()
            .map(|row| serde_json::from_str(&row.body).unwrap())
            .collect();
        assert_eq!(
            bodies,
            [
                serde_json::json!({ "time": "2015-02-04 17:51:00", "V1": 23.18, "Flow [l/s]": -40.0, "note": null }),
                serde_json::json!({ "time": "2015-02-04 18:07:00", "V1": "007", "Flow [l/s]": "NaN", "note": "a,b" }),
            ]
        );
        assert_eq!(
            recording.gaps(16.0).unwrap(),
            [Duration::from_secs(60), Duration::ZERO]
        );
    }

    #[test]
    fn what_cannot_be_replayed_is_explained() {
        assert!(matches!(read("a,b\n"), Err(RecordingError::Empty)));
        assert!(matches!(read("a,a\n1,2\n"), Err(RecordingError::TwoColumns(_))));
        assert!(matches!(read("a,b\n1\n"), Err(RecordingError::Csv(_))));
        let long = format!("a\n{}\n", "x".repeat(BODY_BYTES_MAX));
        assert!(matches!(read(&long), Err(RecordingError::TooLong(1))));
        let timeless = read("a\nx\n1\n").unwrap();
        assert!(matches!(timeless.gaps(1.0), Err(RecordingError::NoTime(_))));
    }

    #[test]
    fn times_are_read() {
        let gap = |a: &str, b: &str| parse_time(b).unwrap() - parse_time(a).unwrap();
        assert_eq!(gap("2024-02-28 23:59:59", "2024-03-01 00:00:00"), 86_401.0);
        assert_eq!(gap("2023-02-28T23:59:59Z", "2023-03-01T00:00:00Z"), 1.0);
        assert_eq!(
            gap("2022-12-31T23:00:00+01:00", "2023-01-01T00:00:00+00:00"),
            7200.0
        );
        assert_eq!(gap("2022-03-20T11:00:00-0130", "2022-03-20T12:30:00.5Z"), 0.5);
        assert_eq!(parse_time("12.5"), Some(12.5));
        for nonsense in [
            "",
            "x",
            "2022-13-01 00:00:00",
            "2022-01-01 x",
            "NaN",
            "2022-01-01 00:00:00+x",
        ] {
            assert_eq!(parse_time(nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn noise_never_panics() {
        for noise in [
            "é\u{0}",
            "T+",
            "2022-01-01 +é",
            "- -",
            "1-1-1 :::",
            "a\n\"",
            "\n\n,\n,,\n",
        ] {
            let _ = parse_time(noise);
            let _ = read(noise);
        }
    }
}
