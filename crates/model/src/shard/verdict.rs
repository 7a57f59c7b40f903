//! What became events in an entry, kept for entries in which that were not just its records.
//!
//! State reaches the disk by itself, the open block of the event log does not; after a crash the
//! log is fed entries again that the state has long passed. What was fenced then can no longer be
//! recomputed, nor what the hub told of a change, so entries with a rejected record or with an event of the hub's own
//! leave a note here until the event log has
//! made them durable; so do those whose stamp had to be raised. Notes are this replica's own and no part of snapshots or state hashes.

use bytes::{BufMut, Bytes, BytesMut};

use super::keys::{ERASED_DONE, NOTE};
use crate::port::StoreError;
use crate::wire::{Reader, WireError, put_bytes};

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

/// Whether `key` is that of a note of this replica's own.
pub fn is_local(key: &[u8]) -> bool {
    key.starts_with(&NOTE) || key == ERASED_DONE
}

/// What happened to one frame of an entry, or between two.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing of a frame was stored: a repetition, a gap, an unknown stream.
    Skipped,
    /// All of a frame but these places were stored.
    Stored { fenced: Vec<u32> },
    /// The hub made this record, of no frame.
    Made(Bytes),
}

impl Verdict {
    pub(super) fn is_regular(&self) -> bool {
        matches!(self, Verdict::Stored { fenced } if fenced.is_empty())
    }
}

/// A note: the stamp that counted, and what happened, in order.
pub(crate) fn encode(time_ms: u64, verdicts: &[Verdict]) -> Bytes {
    let mut out = BytesMut::new();
    out.put_u64_le(time_ms);
    for verdict in verdicts {
        match verdict {
            Verdict::Skipped => out.put_u8(0),
            Verdict::Stored { fenced } => {
                out.put_u8(1);
                out.put_u32_le(fenced.len() as u32);
                fenced.iter().for_each(|place| out.put_u32_le(*place));
            }
            Verdict::Made(record) => {
                out.put_u8(2);
                put_bytes(&mut out, record);
            }
        }
    }
    out.freeze()
}

pub(crate) fn decode(bytes: Bytes) -> Result<(u64, Vec<Verdict>), StoreError> {
    read(bytes).map_err(|error| StoreError::Corrupt {
        what: "note on an entry's events".into(),
        reason: error.to_string(),
    })
}

fn read(bytes: Bytes) -> Result<(u64, Vec<Verdict>), WireError> {
    let mut reader = Reader::new(bytes);
    let time_ms = reader.u64("stamp")?;
    let mut verdicts = Vec::new();
    while !reader.is_empty() {
        verdicts.push(match reader.u8("verdict")? {
            0 => Verdict::Skipped,
            1 => {
                let count = reader.u32("fenced count")?;
                let fenced = (0..count).map(|_| reader.u32("fenced place"));
                Verdict::Stored {
                    fenced: fenced.collect::<Result<_, _>>()?,
                }
            }
            2 => Verdict::Made(reader.bytes("made record")?),
            _ => return Err(WireError::Invalid("verdict")),
        });
    }
    Ok((time_ms, verdicts))
}
