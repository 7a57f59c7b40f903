//! What a message says: who wrote it, which device, which number, and a row of data.
//!
//! The text follows from (writer, device, number) alone, so that what was sent can be told again
//! without being kept. Rows come from a recording, or are made up.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

/// Rows of a recording that are used.
const ROWS_MAX: usize = 100_000;
/// Bytes of one row as JSON.
const ROW_BYTES_MAX: usize = 16 * 1024;
/// Fields that are ours; a recording's columns of these names are left out.
const OWN_FIELDS: [&str; 3] = ["writer", "device", "seq"];
/// Rows that are made up where there is no recording.
const MADE_UP_ROWS: usize = 1440;

/// Why a recording cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordingError {
    /// Not readable, or not CSV.
    #[error("read {path}: {source}")]
    Csv {
        /// The file.
        path: PathBuf,
        /// Why.
        source: csv::Error,
    },
    /// No rows.
    #[error("{0} has no rows")]
    Empty(PathBuf),
    /// A row is too long for a message.
    #[error("a row of {0} has more than {ROW_BYTES_MAX} bytes")]
    LongRow(PathBuf),
}

/// Bytes that a padded payload may have, all of it.
pub const PAYLOAD_BYTES_MAX: usize = 240 * 1024;

/// The payload of an event whose body this is. What cannot be decoded was never sent, and is empty: no digest of ours is
/// that of an empty payload.
pub fn of_body(body: &str) -> Vec<u8> {
    STANDARD.decode(body).unwrap_or_default()
}

/// Makes the payloads of one run.
#[derive(Debug)]
pub struct Payloads {
    writer: String,
    /// Bytes that padding may add, and the text that it is cut from.
    padding: Option<(usize, usize, String)>,
    /// `,"name":value` for each column.
    rows: Vec<String>,
}

impl Payloads {
    /// With the rows of a CSV file, or made-up ones: a day's temperature and humidity.
    pub fn new(writer: String, recording: Option<&Path>) -> Result<Self, RecordingError> {
        let mut payloads = Self::made_up(writer);
        if let Some(path) = recording {
            payloads.rows = read_rows(path)?;
        }
        Ok(payloads)
    }

    fn made_up(writer: String) -> Self {
        Self {
            writer,
            padding: None,
            rows: (0..MADE_UP_ROWS).map(made_up_row).collect(),
        }
    }

    /// What devices of a run with this seed say: made-up rows, with that much padding.
    pub fn of_run(seed: u64, padding_bytes: Option<(u64, u64)>) -> Self {
        let payloads = Self::made_up(format!("{seed:012x}"));
        match padding_bytes {
            Some((low, high)) => payloads.padded(low as usize, high as usize),
            None => payloads,
        }
    }

    /// The same with `bytes_min` to `bytes_max` bytes of padding in each payload, the sizes spread evenly
    /// over their orders of magnitude. Of a message everything but the padding stays below 200 bytes where
    /// rows are made up, so the whole has at least about so many.
    pub fn padded(mut self, bytes_min: usize, bytes_max: usize) -> Self {
        let bytes_max = bytes_max.min(PAYLOAD_BYTES_MAX);
        // Letters that do not repeat soon, so that a block is not compressed to nothing.
        let mut state = 0x9E37_79B9_7F4A_7C15_u64;
        let noise = (0..bytes_max * 2).map(|_| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            char::from(b'a' + ((state >> 40) % 26) as u8)
        });
        self.padding = Some((bytes_min.min(bytes_max), bytes_max, noise.collect()));
        self
    }

    fn pad(&self, index: usize, seq: u32) -> &str {
        let Some((min, max, noise)) = &self.padding else {
            return "";
        };
        let drawn = mix((index as u64) << 32 | u64::from(seq));
        let share = (drawn >> 11) as f64 / (1_u64 << 53) as f64;
        let (low, high) = (((*min).max(1) as f64).ln(), ((*max).max(1) as f64).ln());
        let len = (low + (high - low) * share).exp() as usize;
        let from = (drawn % (*max).max(1) as u64) as usize;
        &noise[from..from + len.min(*max)]
    }

    /// Writes message `seq` of a device to `out`, which is cleared. `index` spreads the devices over the rows.
    pub fn write(&self, out: &mut String, (index, device): (usize, &str), seq: u32) {
        out.clear();
        let pad = self.pad(index, seq);
        let (before, after) = if pad.is_empty() {
            ("", "")
        } else {
            (",\"pad\":\"", "\"")
        };
        let row = &self.rows[(index * 61 + seq as usize) % self.rows.len()];
        let _ = write!(
            out,
            "{{\"writer\":\"{}\",\"device\":\"{device}\",\"seq\":{seq}{row}{before}{pad}{after}}}",
            self.writer
        );
    }
}

/// The number that a payload claims to have.
pub fn claimed_seq(payload: &[u8]) -> Option<u32> {
    #[derive(Deserialize)]
    struct Claim {
        seq: u32,
    }
    serde_json::from_slice::<Claim>(payload)
        .ok()
        .map(|claim| claim.seq)
}

/// Spreads numbers that differ little over all 64 bits.
fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

fn made_up_row(row: usize) -> String {
    let angle = row as f64 / MADE_UP_ROWS as f64 * std::f64::consts::TAU;
    format!(
        ",\"temperature\":{:.2},\"humidity\":{:.1}",
        21.0 + 3.0 * angle.sin(),
        45.0 - 8.0 * angle.sin()
    )
}

fn read_rows(path: &Path) -> Result<Vec<String>, RecordingError> {
    let failed = |source| RecordingError::Csv {
        path: path.to_owned(),
        source,
    };
    let mut reader = csv::Reader::from_path(path).map_err(failed)?;
    let names = reader.headers().map_err(failed)?.clone();
    let mut rows = Vec::new();
    for record in reader.records().take(ROWS_MAX) {
        let record = record.map_err(failed)?;
        let mut row = String::new();
        for (name, text) in names
            .iter()
            .zip(&record)
            .filter(|(name, _)| !OWN_FIELDS.contains(name))
        {
            let value = match text.parse::<f64>() {
                Ok(number) if number.is_finite() => serde_json::Value::from(number),
                _ => serde_json::Value::from(text),
            };
            let _ = write!(row, ",{}:{value}", serde_json::Value::from(name));
        }
        if row.len() > ROW_BYTES_MAX {
            return Err(RecordingError::LongRow(path.to_owned()));
        }
        rows.push(row);
    }
    if rows.is_empty() {
        Err(RecordingError::Empty(path.to_owned()))
    } else {
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_becomes_json_with_our_fields_in_front() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(
            &mut file,
            b"time,V \"1\",seq\n2015-02-04 17:51:00,23.18,9\nx,,1\n",
        )
        .unwrap();
        let payloads = Payloads::new("w1".into(), Some(file.path())).unwrap();
        let mut text = String::new();
        payloads.write(&mut text, (0, "dev-1"), 2);
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"writer": "w1", "device": "dev-1", "seq": 2, "time": "2015-02-04 17:51:00", "V \"1\"": 23.18})
        );
        assert_eq!(claimed_seq(text.as_bytes()), Some(2));
        assert_eq!(claimed_seq(b"{}"), None);
    }

    #[test]
    fn made_up_payloads_are_json_and_repeat_themselves() {
        let payloads = Payloads::new("w".into(), None).unwrap();
        let (mut first, mut second) = (String::new(), String::new());
        payloads.write(&mut first, (3, "d"), 77);
        payloads.write(&mut second, (3, "d"), 77);
        assert_eq!(first, second);
        assert!(serde_json::from_str::<serde_json::Value>(&first).is_ok());
    }

    #[test]
    fn padding_has_all_sizes_and_repeats_itself() {
        let payloads = Payloads::new("w".into(), None).unwrap().padded(1, 10_000);
        let sizes: Vec<usize> = (0..500)
            .map(|seq| {
                let (mut first, mut second) = (String::new(), String::new());
                payloads.write(&mut first, (3, "d"), seq);
                payloads.write(&mut second, (3, "d"), seq);
                assert_eq!(first, second);
                assert_eq!(claimed_seq(first.as_bytes()), Some(seq));
                first.len()
            })
            .collect();
        assert!(sizes.iter().any(|size| *size < 150), "{sizes:?}");
        assert!(sizes.iter().any(|size| *size > 5_000), "{sizes:?}");
        assert!(sizes.iter().all(|size| *size < 10_200), "{sizes:?}");
    }

    #[test]
    fn a_missing_recording_is_an_error() {
        assert!(Payloads::new("w".into(), Some(Path::new("/nonexistent.csv"))).is_err());
    }
}
