//! Which records of an entry became events, kept for entries in which not all of them did.
//!
//! State reaches the disk by itself, the open block of the event log does not; after a crash the
//! log is fed entries again that the state has long passed. What was fenced then can no longer be
//! recomputed, so the rare entries with a rejected record leave a note here until the event log has
//! made them durable; so do those whose stamp had to be raised. Notes are this replica's own and no part of snapshots or state hashes.

use bytes::{BufMut, Bytes, BytesMut};

use super::keys::NOTE;
use crate::port::StoreError;
use crate::wire::Reader;

pub(super) fn key(index: u64) -> Vec<u8> {
    let mut key = NOTE.to_vec();
    key.extend_from_slice(&index.to_be_bytes());
    key
}

/// Where it stands up to which entry notes have been dropped: behind every note.
pub(super) fn forgotten_key() -> Vec<u8> {
    key(u64::MAX)
}

/// Which entry a note is on.
pub(super) fn index_of(key: &[u8]) -> Option<u64> {
    let index = key.strip_prefix(&NOTE)?;
    Some(u64::from_be_bytes(index.try_into().ok()?))
}

/// Keys of notes at or below `index`.
pub(super) fn range_upto(index: u64) -> (Vec<u8>, Vec<u8>) {
    (NOTE.to_vec(), key(index.saturating_add(1)))
}

/// Whether `key` is that of a note.
pub fn is_local(key: &[u8]) -> bool {
    key.starts_with(&NOTE)
}

/// What happened to one frame of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum FrameVerdict {
    /// Nothing of it was stored: a repetition, a gap, an unknown stream.
    Skipped,
    /// All but these places were stored.
    Stored { fenced: Vec<u32> },
}

impl FrameVerdict {
    pub(super) fn is_regular(&self) -> bool {
        matches!(self, FrameVerdict::Stored { fenced } if fenced.is_empty())
    }
}

/// A note: the stamp that counted, and what happened to each frame.
pub(crate) fn encode(time_ms: u64, verdicts: &[FrameVerdict]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u64_le(time_ms);
    for verdict in verdicts {
        match verdict {
            FrameVerdict::Skipped => out.put_u8(0),
            FrameVerdict::Stored { fenced } => {
                out.put_u8(1);
                out.put_u32_le(fenced.len() as u32);
                fenced.iter().for_each(|place| out.put_u32_le(*place));
            }
        }
    }
    out.freeze()
}

pub(crate) fn decode(bytes: Bytes) -> Result<(u64, Vec<FrameVerdict>), StoreError> {
    let corrupt = |reason: String| StoreError::Corrupt {
        what: "note on rejected records".into(),
        reason,
    };
    let mut reader = Reader::new(bytes);
    let time_ms = reader.u64("stamp").map_err(|e| corrupt(e.to_string()))?;
    let mut verdicts = Vec::new();
    while !reader.is_empty() {
        let kind = reader.u8("verdict").map_err(|e| corrupt(e.to_string()))?;
        if kind == 0 {
            verdicts.push(FrameVerdict::Skipped);
            continue;
        }
        let count = reader.u32("fenced count").map_err(|e| corrupt(e.to_string()))?;
        let fenced = (0..count)
            .map(|_| reader.u32("fenced place"))
            .collect::<Result<_, _>>();
        verdicts.push(FrameVerdict::Stored {
            fenced: fenced.map_err(|e| corrupt(e.to_string()))?,
        });
    }
    Ok((time_ms, verdicts))
}
