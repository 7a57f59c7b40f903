//! Where a followed message stands in its trace: the W3C trace context, as it travels between crates
//! and nodes.
//!
//! Few messages are followed, and a frame carries at most one context: that of the first followed
//! record in it. Nothing here decides who is followed or keeps a span; that is
//! [`Tracer`](crate::port::Tracer), which `node` implements. Contexts travel beside frames and are
//! never part of a log entry.

use bytes::{BufMut, BytesMut};

use crate::wire::{Reader, WireError};

/// A place in a trace. Whoever has one is followed: contexts of messages that are not followed are not
/// passed on.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    /// The trace; not all zero.
    pub trace_id: [u8; 16],
    /// The span in it that causes what comes next; not all zero.
    pub span_id: [u8; 8],
    /// W3C trace flags; bit 0 says that the trace is recorded.
    pub flags: u8,
}

/// W3C trace flag of a trace that is recorded.
pub const TRACE_SAMPLED: u8 = 1;

impl TraceContext {
    /// Bytes that [`put`](Self::put) writes.
    pub const WIRE_BYTES: usize = 25;

    /// Appends trace id, span id and flags.
    pub fn put(&self, out: &mut BytesMut) {
        out.put_slice(&self.trace_id);
        out.put_slice(&self.span_id);
        out.put_u8(self.flags);
    }

    /// Reads what [`put`](Self::put) wrote.
    pub fn read(reader: &mut Reader) -> Result<Self, WireError> {
        let bytes = reader.take(Self::WIRE_BYTES, "trace context")?;
        let mut context = Self {
            trace_id: [0; 16],
            span_id: [0; 8],
            flags: bytes[24],
        };
        context.trace_id.copy_from_slice(&bytes[..16]);
        context.span_id.copy_from_slice(&bytes[16..24]);
        if context.trace_id == [0; 16] || context.span_id == [0; 8] {
            return Err(WireError::Invalid("trace context"));
        }
        Ok(context)
    }
}

impl std::fmt::Debug for TraceContext {
    /// As a W3C `traceparent`: `00-<trace id>-<span id>-<flags>`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("00-")?;
        self.trace_id
            .iter()
            .try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("-")?;
        self.span_id.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, "-{:02x}", self.flags)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_has_golden_bytes_and_zeros_are_refused() {
        let context = TraceContext {
            trace_id: [0xab; 16],
            span_id: [0xcd; 8],
            flags: TRACE_SAMPLED,
        };
        let mut out = BytesMut::new();
        context.put(&mut out);
        let golden = [[0xab; 16].as_slice(), &[0xcd; 8], &[1]].concat();
        assert_eq!(&out[..], golden);
        let mut reader = Reader::new(out.clone().freeze());
        assert_eq!(TraceContext::read(&mut reader), Ok(context));
        assert!(reader.is_empty());
        assert_eq!(
            format!("{context:?}"),
            "00-abababababababababababababababab-cdcdcdcdcdcdcdcd-01"
        );
        let short = out.clone().freeze().slice(..24);
        assert!(TraceContext::read(&mut Reader::new(short)).is_err());
        let nowhere = vec![0; TraceContext::WIRE_BYTES];
        assert!(TraceContext::read(&mut Reader::new(nowhere.into())).is_err());
    }
}
