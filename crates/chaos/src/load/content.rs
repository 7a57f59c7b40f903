//! What messages say: made-up readings of a given size, or rows that name their sender and number.
//!
//! The first kind costs a copy and is what speed is measured with; from 40 bytes on it carries the time
//! at which it was due, so that a subscriber can tell how long it was on its way. The second kind is for
//! runs that are judged or that replay a recording: it follows from writer, device and number alone.

use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::payload::Payloads;

/// Different payloads that are sent in turn, at the most; with the usual 256 bytes more than a
/// compressor looks back.
const PAYLOADS_MAX: usize = 4096;
/// Bytes of all of them together, at the most, but for one that is larger.
const RING_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Digits of a time in microseconds since 1970, until the year 2286.
const STAMP_DIGITS: usize = 16;
const STAMP_HEAD: &[u8] = b"{\"us\":";
/// Shorter payloads carry no time.
const STAMPED_BYTES_MIN: usize = 40;
/// Bytes of a payload at the most.
pub const PAYLOAD_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Payloads of one size that are sent in turn.
#[derive(Debug)]
pub struct Ring {
    bytes: Vec<u8>,
    size: usize,
    count: usize,
}

impl Ring {
    /// JSON of made-up readings: as compressible as telemetry is, and no two alike. Below 40 bytes it is
    /// the beginning of such a text.
    pub fn new(size: usize) -> Self {
        let count = (RING_BYTES_MAX / size.max(1)).clamp(1, PAYLOADS_MAX);
        let mut random = StdRng::seed_from_u64(1);
        let mut bytes = Vec::with_capacity(count * size);
        for number in 0..count {
            let mut text = String::from_utf8_lossy(STAMP_HEAD).into_owned();
            text.push_str(&"0".repeat(STAMP_DIGITS));
            if size >= STAMPED_BYTES_MIN {
                text.truncate(STAMP_HEAD.len() + STAMP_DIGITS);
            }
            for place in 0.. {
                let field = match place {
                    // JSON has no numbers with zeros in front.
                    0 => format!(",\"seq\":{}", 100_000 + number),
                    _ => format!(",\"channel{place:02}\":{:.4}", random.random_range(10.0..99.0)),
                };
                if text.len() + field.len() + 1 > size {
                    break;
                }
                text.push_str(&field);
            }
            text.push('}');
            text.truncate(size);
            bytes.extend_from_slice(text.as_bytes());
            bytes.resize((number + 1) * size, b' ');
        }
        Self { bytes, size, count }
    }
}

/// What one load sends. Cloning shares it.
#[derive(Debug, Clone)]
pub enum Content {
    /// Payloads of one size, in turn.
    Ring(Arc<Ring>),
    /// Rows that name their sender and number.
    Numbered {
        /// The rows.
        payloads: Arc<Payloads>,
        /// Shorter ones are filled up to so many bytes.
        size_min: usize,
    },
}

impl Content {
    /// Bytes of every payload, if all have the same.
    pub(super) fn size(&self) -> Option<usize> {
        match self {
            Content::Ring(ring) => Some(ring.size),
            Content::Numbered { .. } => None,
        }
    }

    /// Adds message `number` of a client to `out`. `due_us` is when it is due, since 1970.
    pub(super) fn write(&self, out: &mut Vec<u8>, (client, id): (u64, &str), number: u64, due_us: u64) {
        match self {
            Content::Ring(ring) => {
                let place = (client.wrapping_mul(17).wrapping_add(number) % ring.count as u64) as usize;
                let at = place * ring.size;
                let begun = out.len();
                out.extend_from_slice(&ring.bytes[at..at + ring.size]);
                if ring.size >= STAMPED_BYTES_MIN {
                    let stamp = begun + STAMP_HEAD.len();
                    write_digits(&mut out[stamp..stamp + STAMP_DIGITS], due_us);
                }
            }
            Content::Numbered { payloads, size_min } => {
                let mut text = String::new();
                let seq = u32::try_from(number).unwrap_or(u32::MAX);
                payloads.write(&mut text, (client as usize, id), seq);
                fill_up(&mut text, *size_min);
                out.extend_from_slice(text.as_bytes());
            }
        }
    }
}

/// When a payload of a [`Ring`] was due, in microseconds since 1970.
pub(super) fn stamp(payload: &[u8]) -> Option<u64> {
    let digits = payload.strip_prefix(STAMP_HEAD)?.get(..STAMP_DIGITS)?;
    digits.iter().try_fold(0_u64, |value, digit| {
        let digit = digit.checked_sub(b'0').filter(|digit| *digit < 10)?;
        Some(value * 10 + u64::from(digit))
    })
}

fn write_digits(out: &mut [u8], mut value: u64) {
    for place in out.iter_mut().rev() {
        *place = b'0' + (value % 10) as u8;
        value /= 10;
    }
}

/// Makes a JSON object so long by a field of spaces at its end.
fn fill_up(text: &mut String, size_min: usize) {
    const FIELD: &str = ",\"fill\":\"\"}";
    if text.len() + FIELD.len() <= size_min && text.pop() == Some('}') {
        let spaces = size_min - text.len() - FIELD.len();
        text.push_str(&FIELD[..FIELD.len() - 2]);
        text.push_str(&" ".repeat(spaces));
        text.push_str("\"}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(content: &Content, number: u64, due_us: u64) -> Vec<u8> {
        let mut out = Vec::new();
        content.write(&mut out, (3, "load-3"), number, due_us);
        out
    }

    #[test]
    fn a_ring_has_payloads_of_one_size_that_tell_when_they_were_due() {
        for size in [0, 1, 39, 40, 256, 5000] {
            let content = Content::Ring(Arc::new(Ring::new(size)));
            let payload = written(&content, 5, 1_700_000_000_123_456);
            assert_eq!(payload.len(), size);
            let expected = (size >= STAMPED_BYTES_MIN).then_some(1_700_000_000_123_456);
            assert_eq!(stamp(&payload).filter(|us| *us > 0), expected, "{size}");
            if size >= STAMPED_BYTES_MIN {
                serde_json::from_slice::<serde_json::Value>(&payload).unwrap();
                assert_ne!(payload, written(&content, 6, 1_700_000_000_123_456));
            }
        }
        assert_eq!(stamp(b"{\"us\":12x4567890123456}"), None);
        assert_eq!(stamp(b""), None);
    }

    #[test]
    fn numbered_rows_are_filled_up_and_stay_json() {
        let payloads = Arc::new(Payloads::new("w".into(), None).unwrap());
        for size_min in [0, 100, 101, 120, 500] {
            let content = Content::Numbered {
                payloads: payloads.clone(),
                size_min,
            };
            let payload = written(&content, 9, 0);
            let json: serde_json::Value = serde_json::from_slice(&payload).unwrap();
            assert_eq!((&json["seq"], &json["device"]), (&9.into(), &"load-3".into()));
            if size_min >= 120 {
                assert_eq!(payload.len(), size_min);
            }
            assert_eq!(payload, written(&content, 9, 77), "it follows from its number");
        }
    }
}
