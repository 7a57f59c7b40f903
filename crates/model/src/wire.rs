//! Reading and writing little-endian fields: the one place that counts bytes by hand.
//!
//! Telemetry records, stored outcomes and entry frames are laid out with it. Control structs go
//! through `cluster::codec` instead.

use bytes::{Buf, BufMut, Bytes, BytesMut};

/// Bytes that end too early, or say something impossible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The field needs more bytes than are left.
    #[error("{0} is cut short")]
    Short(&'static str),
    /// The field has a value that no writer of ours produces.
    #[error("{0} has an impossible value")]
    Invalid(&'static str),
}

/// Takes fields off the front of a buffer without copying bodies.
#[derive(Debug)]
pub struct Reader {
    rest: Bytes,
}

impl Reader {
    /// Starts at the front of `bytes`.
    pub fn new(bytes: Bytes) -> Self {
        Self { rest: bytes }
    }

    /// What has not been read.
    pub fn rest(self) -> Bytes {
        self.rest
    }

    /// Whether everything has been read.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// One byte.
    pub fn u8(&mut self, field: &'static str) -> Result<u8, WireError> {
        self.need(1, field)?;
        Ok(self.rest.get_u8())
    }

    /// Two bytes.
    pub fn u16(&mut self, field: &'static str) -> Result<u16, WireError> {
        self.need(2, field)?;
        Ok(self.rest.get_u16_le())
    }

    /// Four bytes.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, WireError> {
        self.need(4, field)?;
        Ok(self.rest.get_u32_le())
    }

    /// Eight bytes.
    pub fn u64(&mut self, field: &'static str) -> Result<u64, WireError> {
        self.need(8, field)?;
        Ok(self.rest.get_u64_le())
    }

    /// A u32 length and that many bytes, shared with the source.
    pub fn bytes(&mut self, field: &'static str) -> Result<Bytes, WireError> {
        let length = self.u32(field)? as usize;
        self.take(length, field)
    }

    /// The next `length` bytes, shared with the source.
    pub fn take(&mut self, length: usize, field: &'static str) -> Result<Bytes, WireError> {
        self.need(length, field)?;
        Ok(self.rest.split_to(length))
    }

    fn need(&self, length: usize, field: &'static str) -> Result<(), WireError> {
        if self.rest.len() < length {
            Err(WireError::Short(field))
        } else {
            Ok(())
        }
    }
}

/// Puts a u32 length and the bytes; the counterpart of [`Reader::bytes`].
pub fn put_bytes(out: &mut BytesMut, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("a field is shorter than 4 GiB");
    out.put_u32_le(length);
    out.put_slice(bytes);
}
