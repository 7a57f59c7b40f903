//! How the end of a frame is written down: for the gateway that asks again, and for the wire.
//!
//! Layout: version u8, sequence u64, result u8, then the fields of the result. Outcomes of commands
//! are JSON, since their fields grow with the hub; the telemetry road has none.

use bytes::{BufMut, Bytes, BytesMut};

use crate::limits::FRAME_COMMANDS_MAX;
use crate::port::{FrameApplied, FrameResult};
use crate::wire::{Reader, WireError, put_bytes};

const VERSION: u8 = 2;

/// Appends the end of frame `sequence` to `out`.
pub fn encode(out: &mut BytesMut, sequence: u64, result: &FrameResult) {
    out.put_u8(VERSION);
    out.put_u64_le(sequence);
    match result {
        FrameResult::Applied(applied) => {
            out.put_u8(0);
            out.put_u64_le(applied.term);
            out.put_u64_le(applied.index);
            out.put_u64_le(applied.first_offset);
            out.put_u32_le(applied.record_count);
            out.put_u32_le(applied.fenced.len() as u32);
            for place in &applied.fenced {
                out.put_u32_le(*place);
            }
            out.put_u32_le(applied.outcomes.len() as u32);
            for outcome in &applied.outcomes {
                put_bytes(
                    out,
                    &serde_json::to_vec(outcome).expect("an outcome is plain data"),
                );
            }
        }
        FrameResult::Gap { expected } => {
            out.put_u8(1);
            out.put_u64_le(*expected);
        }
        FrameResult::StreamUnknown => out.put_u8(2),
        FrameResult::Forgotten => out.put_u8(3),
    }
}

/// Reads what [`encode`] wrote.
pub fn decode(reader: &mut Reader) -> Result<(u64, FrameResult), WireError> {
    if reader.u8("outcome version")? != VERSION {
        return Err(WireError::Invalid("outcome version"));
    }
    let sequence = reader.u64("outcome sequence")?;
    let result = match reader.u8("outcome result")? {
        0 => FrameResult::Applied(decode_applied(reader)?),
        1 => FrameResult::Gap {
            expected: reader.u64("expected sequence")?,
        },
        2 => FrameResult::StreamUnknown,
        3 => FrameResult::Forgotten,
        _ => return Err(WireError::Invalid("outcome result")),
    };
    Ok((sequence, result))
}

fn decode_applied(reader: &mut Reader) -> Result<FrameApplied, WireError> {
    let mut applied = FrameApplied {
        term: reader.u64("outcome term")?,
        index: reader.u64("outcome index")?,
        first_offset: reader.u64("outcome offset")?,
        record_count: reader.u32("outcome records")?,
        ..FrameApplied::default()
    };
    for _ in 0..reader.u32("fenced count")? {
        applied.fenced.push(reader.u32("fenced place")?);
    }
    let outcomes = reader.u32("outcome count")? as usize;
    if outcomes > FRAME_COMMANDS_MAX {
        return Err(WireError::Invalid("outcome count"));
    }
    for _ in 0..outcomes {
        let text = reader.bytes("outcome")?;
        applied
            .outcomes
            .push(serde_json::from_slice(&text).map_err(|_| WireError::Invalid("outcome"))?);
    }
    Ok(applied)
}

/// The bytes of one kept outcome.
pub fn to_bytes(sequence: u64, result: &FrameResult) -> Bytes {
    let mut out = BytesMut::with_capacity(48);
    encode(&mut out, sequence, result);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::{Outcome, Refusal};

    #[test]
    fn every_result_is_read_back() {
        let applied = FrameApplied {
            term: 3,
            index: 41,
            first_offset: 900,
            record_count: 5,
            fenced: vec![0, 4],
            outcomes: vec![Outcome::Refused(Refusal::Fenced), Outcome::Done],
        };
        let results = [
            FrameResult::Applied(applied),
            FrameResult::Gap { expected: 9 },
            FrameResult::StreamUnknown,
            FrameResult::Forgotten,
        ];
        for result in results {
            let bytes = to_bytes(77, &result);
            assert_eq!(decode(&mut Reader::new(bytes.clone())), Ok((77, result)));
            let cut = bytes.slice(..bytes.len() - 1);
            assert!(decode(&mut Reader::new(cut)).is_err());
        }
    }

    #[test]
    fn outcomes_have_golden_bytes_and_those_of_another_version_are_not_read() {
        let applied = FrameResult::Applied(FrameApplied {
            term: 3,
            index: 41,
            first_offset: 9,
            record_count: 1,
            ..FrameApplied::default()
        });
        let number = |number: u64| number.to_le_bytes();
        let rest = [&number(9)[..], &[1, 0, 0, 0], &[0; 8]].concat();
        let golden = [&[2][..], &number(77), &[0], &number(3), &number(41), &rest].concat();
        assert_eq!(to_bytes(77, &applied), golden);
        for version in [1, 3] {
            let other = [&[version][..], &golden[1..]].concat();
            assert!(decode(&mut Reader::new(other.into())).is_err());
        }
    }
}
