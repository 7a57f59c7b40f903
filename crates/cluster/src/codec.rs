//! How control structs become bytes: bincode 2 with a fixed configuration, a version byte in front
//! and a size limit. Nothing else in the house names bincode.
//!
//! A struct that travels or rests never changes its fields: enums get a new variant. Golden bytes
//! below hold the format in place.

use bytes::{BufMut, Bytes, BytesMut};
use dunlin_model::command::Command;
use dunlin_model::id::StreamId;
use dunlin_model::limits::WIRE_FRAME_BYTES_MAX;
use dunlin_model::port::Frame;
use dunlin_model::routing::EventSources;
use dunlin_model::shard::{Batch, Part};
use dunlin_model::wire::{Reader, WireError, put_bytes};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// First byte of every control struct.
const VERSION: u8 = 1;

/// Bytes that are not what they should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    /// Another version, or no bytes at all.
    #[error("unknown format version")]
    Version,
    /// bincode could not make sense of it.
    #[error("decode {0}")]
    Decode(#[from] bincode::error::DecodeError),
    /// Bytes were left over.
    #[error("trailing bytes")]
    Trailing,
    /// A field counted by hand was wrong.
    #[error(transparent)]
    Wire(#[from] WireError),
}

fn config() -> impl bincode::config::Config {
    bincode::config::standard()
        .with_little_endian()
        .with_variable_int_encoding()
        .with_limit::<WIRE_FRAME_BYTES_MAX>()
}

/// Writes `value` behind a version byte.
pub(crate) fn encode<T: Serialize + ?Sized>(value: &T) -> Bytes {
    let mut out = vec![VERSION];
    bincode::serde::encode_into_std_write(value, &mut out, config()).expect("control structs are plain data");
    out.into()
}

/// Reads what [`encode`] wrote, and nothing more.
pub(crate) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, CodecError> {
    let (version, body) = bytes.split_first().ok_or(CodecError::Version)?;
    if *version != VERSION {
        return Err(CodecError::Version);
    }
    let (value, read) = bincode::serde::decode_from_slice(body, config())?;
    if read != body.len() {
        Err(CodecError::Trailing)
    } else {
        Ok(value)
    }
}

const PART_FRAME: u8 = 0;
const PART_STREAM_OPEN: u8 = 1;
const PART_GATEWAY_GONE: u8 = 2;
const PART_INTERNAL: u8 = 3;
const PART_SEAL: u8 = 4;
const PART_TRIM: u8 = 5;
const PART_ANNOUNCE: u8 = 6;

/// Appends a frame. Records are copied as they are. Its trace is no part of it: the log must not know it.
pub(crate) fn put_frame(out: &mut BytesMut, frame: &Frame) {
    out.put_u64_le(frame.stream.gateway.0);
    out.put_u64_le(frame.stream.incarnation);
    out.put_u64_le(frame.sequence);
    out.put_u32_le(frame.record_count);
    if frame.commands.is_empty() {
        out.put_u32_le(0);
    } else {
        put_bytes(out, &encode(&frame.commands));
    }
    put_bytes(out, &frame.records);
}

/// Reads a frame; its records share the source's bytes.
pub(crate) fn read_frame(reader: &mut Reader) -> Result<Frame, CodecError> {
    let stream = read_stream(reader)?;
    let sequence = reader.u64("frame sequence")?;
    let record_count = reader.u32("frame records")?;
    let commands = reader.bytes("frame commands")?;
    let commands: Vec<Command> = if commands.is_empty() {
        Vec::new()
    } else {
        decode(&commands)?
    };
    Ok(Frame {
        stream,
        sequence,
        records: reader.bytes("records")?,
        record_count,
        commands,
        trace: None,
    })
}

fn read_stream(reader: &mut Reader) -> Result<StreamId, CodecError> {
    let gateway = dunlin_model::id::NodeId(reader.u64("stream gateway")?);
    Ok(StreamId {
        gateway,
        incarnation: reader.u64("stream incarnation")?,
    })
}

/// The body of a shard's log entry, behind `tag`.
pub(crate) fn encode_batch(tag: u8, batch: &Batch) -> Bytes {
    let size = batch.parts.iter().map(|part| match part {
        Part::Frame(frame) => frame.records.len() + 64,
        _ => 64,
    });
    let mut out = BytesMut::with_capacity(16 + size.sum::<usize>());
    out.put_u8(tag);
    out.put_u64_le(batch.time_ms);
    for part in &batch.parts {
        match part {
            Part::Frame(frame) => {
                out.put_u8(PART_FRAME);
                put_frame(&mut out, frame);
            }
            Part::StreamOpen(stream) | Part::GatewayGone(stream) => {
                let open = matches!(part, Part::StreamOpen(_));
                out.put_u8(if open { PART_STREAM_OPEN } else { PART_GATEWAY_GONE });
                out.put_u64_le(stream.gateway.0);
                out.put_u64_le(stream.incarnation);
            }
            Part::Internal(command) => {
                out.put_u8(PART_INTERNAL);
                put_bytes(&mut out, &encode(command));
            }
            Part::Seal => out.put_u8(PART_SEAL),
            Part::Trim(offset) => {
                out.put_u8(PART_TRIM);
                out.put_u64_le(*offset);
            }
            Part::Announce(sources) => {
                out.put_u8(PART_ANNOUNCE);
                out.put_u8(sources.bits());
            }
        }
    }
    out.freeze()
}

/// Reads what [`encode_batch`] wrote behind the same tag.
pub(crate) fn decode_batch(tag: u8, bytes: Bytes) -> Result<Batch, CodecError> {
    let mut reader = Reader::new(bytes);
    if reader.u8("batch tag")? != tag {
        return Err(CodecError::Version);
    }
    let mut batch = Batch {
        time_ms: reader.u64("batch time")?,
        parts: Vec::new(),
    };
    while !reader.is_empty() {
        batch.parts.push(match reader.u8("part kind")? {
            PART_FRAME => Part::Frame(read_frame(&mut reader)?),
            PART_STREAM_OPEN => Part::StreamOpen(read_stream(&mut reader)?),
            PART_GATEWAY_GONE => Part::GatewayGone(read_stream(&mut reader)?),
            PART_INTERNAL => Part::Internal(decode(&reader.bytes("internal command")?)?),
            PART_SEAL => Part::Seal,
            PART_TRIM => Part::Trim(reader.u64("trim offset")?),
            PART_ANNOUNCE => Part::Announce(EventSources::from_bits(reader.u8("announced sources")?)),
            _ => return Err(WireError::Invalid("part kind").into()),
        });
    }
    Ok(batch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_model::id::{DeviceId, NodeId};
    use dunlin_model::routing::EventSource;

    fn batch() -> Batch {
        let stream = StreamId {
            gateway: NodeId(2),
            incarnation: 3,
        };
        let command = Command::SessionClose {
            device: DeviceId::parse("d").unwrap(),
            epoch: 300,
        };
        let frame = Frame {
            stream,
            sequence: 4,
            records: Bytes::from_static(b"xyz"),
            record_count: 1,
            commands: vec![command.clone()],
            trace: None,
        };
        let parts = vec![
            Part::StreamOpen(stream),
            Part::Frame(frame),
            Part::Internal(command),
            Part::GatewayGone(stream),
            Part::Seal,
            Part::Trim(9),
            Part::Announce(EventSources::default().and(EventSource::TwinChangeEvents)),
        ];
        Batch { time_ms: 1, parts }
    }

    #[test]
    fn a_batch_is_read_back_and_noise_is_refused() {
        let bytes = encode_batch(9, &batch());
        assert_eq!(decode_batch(9, bytes.clone()).unwrap(), batch());
        for end in 0..bytes.len() {
            // A cut between two parts is a shorter batch; any other is refused.
            if let Ok(cut) = decode_batch(9, bytes.slice(..end)) {
                assert!(cut.parts.len() < batch().parts.len());
            }
        }
    }

    #[test]
    fn control_structs_have_golden_bytes() {
        let command = Command::SessionClose {
            device: DeviceId::parse("d").unwrap(),
            epoch: 300,
        };
        assert_eq!(&encode(&command)[..], [1, 3, 1, b'd', 251, 44, 1]);
        assert!(
            decode::<Command>(&[1, 3, 1, b'd', 251, 44, 1, 0]).is_err(),
            "trailing bytes"
        );
        assert!(decode::<Command>(&[2, 3]).is_err(), "another version");
    }
}
