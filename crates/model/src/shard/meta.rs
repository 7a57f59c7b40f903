//! The few numbers of a shard that every entry changes, in one small value.

use bytes::{BufMut, Bytes, BytesMut};

use crate::id::LogPosition;
use crate::port::StoreError;
use crate::wire::{Reader, WireError};

const VERSION: u8 = 1;

/// Applied position and counters of a shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Meta {
    /// The last entry that the state has taken in.
    pub applied: Option<LogPosition>,
    /// Offset that the next event gets.
    pub next_offset: u64,
    /// Stamp of the last entry.
    pub time_ms: u64,
    /// The next generation, version or session epoch to give out. One counter for all, so that none ever
    /// comes back, not even for a device that was deleted and made again.
    pub next_fence: u64,
    /// Registered devices.
    pub device_count: u64,
    /// Devices with a held session.
    pub connected_count: u64,
    /// Registered devices that may not connect.
    pub disabled_count: u64,
}

impl Meta {
    /// A shard that has seen nothing.
    pub fn new() -> Self {
        Self {
            next_fence: 1,
            ..Self::default()
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(80);
        out.put_u8(VERSION);
        out.put_u8(u8::from(self.applied.is_some()));
        let at = self.applied.unwrap_or(LogPosition {
            term: 0,
            leader: 0,
            index: 0,
        });
        for field in [
            at.term,
            at.leader,
            at.index,
            self.next_offset,
            self.time_ms,
            self.next_fence,
            self.device_count,
            self.connected_count,
            self.disabled_count,
        ] {
            out.put_u64_le(field);
        }
        out.freeze()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, StoreError> {
        Self::read(bytes).map_err(|error| StoreError::Corrupt {
            what: "shard meta".into(),
            reason: error.to_string(),
        })
    }

    fn read(bytes: Bytes) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        if reader.u8("meta version")? != VERSION {
            return Err(WireError::Invalid("meta version"));
        }
        let has_applied = reader.u8("meta applied")? == 1;
        let mut field = || reader.u64("meta field");
        let at = LogPosition {
            term: field()?,
            leader: field()?,
            index: field()?,
        };
        Ok(Self {
            applied: has_applied.then_some(at),
            next_offset: field()?,
            time_ms: field()?,
            next_fence: field()?,
            device_count: field()?,
            connected_count: field()?,
            disabled_count: field()?,
        })
    }
}
