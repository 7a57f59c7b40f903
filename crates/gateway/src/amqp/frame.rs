//! Frames of AMQP 1.0, and the headers that a connection and its SASL exchange begin with.
//!
//! Decides where a frame ends and whether it is too long. Never looks into its body, which is for
//! [`performative`](super::performative).

use bytes::{Buf as _, BufMut, Bytes, BytesMut};

use super::value::Value;

/// Begins the exchange of SASL frames.
pub(crate) const SASL_HEADER: [u8; 8] = *b"AMQP\x03\x01\x00\x00";
/// Begins a connection.
pub(crate) const AMQP_HEADER: [u8; 8] = *b"AMQP\x00\x01\x00\x00";
/// The type of a connection's frames.
pub(crate) const AMQP: u8 = 0;
/// The type of SASL's frames.
pub(crate) const SASL: u8 = 1;
/// Bytes before a frame's body, at the least and as we write them.
pub(crate) const HEADER_BYTES: usize = 8;

/// A frame as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawFrame {
    pub(crate) kind: u8,
    pub(crate) channel: u16,
    pub(crate) body: Bytes,
}

/// Bytes that are no frame, or too long a one. Where the next one begins is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct FrameError(pub(crate) &'static str);

/// Takes the next header from the front of `buffer`, if it is there.
pub(crate) fn take_header(buffer: &mut BytesMut) -> Option<[u8; 8]> {
    let header = *buffer.first_chunk()?;
    buffer.advance(header.len());
    Some(header)
}

/// Takes the next frame from the front of `buffer`, if all of it is there.
pub(crate) fn take(buffer: &mut BytesMut, bytes_max: usize) -> Result<Option<RawFrame>, FrameError> {
    let Some(&[a, b, c, d, offset, kind, high, low]) = buffer.first_chunk() else {
        return Ok(None);
    };
    let size = u32::from_be_bytes([a, b, c, d]) as usize;
    if size > bytes_max {
        return Err(FrameError("the frame is longer than agreed"));
    }
    let data = usize::from(offset) * 4;
    if data < HEADER_BYTES || size < data {
        return Err(FrameError("the frame is shorter than its header"));
    }
    if buffer.len() < size {
        return Ok(None);
    }
    let mut frame = buffer.split_to(size).freeze();
    frame.advance(data);
    Ok(Some(RawFrame {
        kind,
        channel: u16::from_be_bytes([high, low]),
        body: frame,
    }))
}

/// Writes a frame with this performative, and the bytes of a message behind it.
pub(crate) fn put(out: &mut BytesMut, kind: u8, channel: u16, performative: &Value, payload: &[u8]) {
    let at = out.len();
    put_header(out, kind, channel);
    performative.encode(out);
    out.put_slice(payload);
    let size = (out.len() - at) as u32;
    out[at..at + 4].copy_from_slice(&size.to_be_bytes());
}

/// Writes a frame without a body, which only says that we are still there.
pub(crate) fn put_empty(out: &mut BytesMut) {
    put_header(out, AMQP, 0);
}

fn put_header(out: &mut BytesMut, kind: u8, channel: u16) {
    out.put_u32(HEADER_BYTES as u32);
    out.put_slice(&[2, kind]);
    out.put_u16(channel);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_taken_when_it_is_whole() {
        let mut out = BytesMut::new();
        put(
            &mut out,
            AMQP,
            3,
            &Value::described(0x17, vec![Value::Null]),
            b"xy",
        );
        put_empty(&mut out);
        let whole = out.clone();
        for cut in 0..whole.len() - 8 {
            let mut part = BytesMut::from(&whole[..cut]);
            assert_eq!(take(&mut part, 512), Ok(None), "{cut}");
        }
        let frame = take(&mut out, 512).unwrap().unwrap();
        assert_eq!((frame.kind, frame.channel), (AMQP, 3));
        assert!(frame.body.ends_with(b"xy"));
        assert!(take(&mut out, 512).unwrap().unwrap().body.is_empty());
        assert_eq!(take(&mut out, 512), Ok(None));
    }

    #[test]
    fn lengths_that_cannot_be_are_refused() {
        for head in [
            [0, 0, 2, 1, 2, 0, 0, 0],
            [0, 0, 0, 7, 2, 0, 0, 0],
            [0, 0, 0, 8, 1, 0, 0, 0],
            [0, 0, 0, 8, 3, 0, 0, 0],
            *b"GET / HT",
        ] {
            assert!(take(&mut BytesMut::from(&head[..]), 512).is_err(), "{head:x?}");
        }
    }
}
