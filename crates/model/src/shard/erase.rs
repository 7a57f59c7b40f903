//! Devices whose history is to be no more: what readers are shown in its place, and what each replica has to do about its
//! files.
//!
//! An erasure is an entry of the log: from then on no reader gets an event of the device from before it, whoever leads. The
//! bytes go later: each replica writes its sealed segments again, with [`telemetry::erased`] in place of the records, so that
//! offsets stay as they are and replicas stay alike. How far a replica is, it notes for itself; a snapshot does not carry that,
//! so whoever was filled by one looks at everything. Who does the writing is `cluster`.

use std::collections::HashMap;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};

use super::state::Entry;
use super::{keys, leftovers, read, registry};
use crate::command::{Outcome, Refusal};
use crate::id::DeviceId;
use crate::identity::Condition;
use crate::port::{EventRun, ShardStore, StoreError, WriteBatch};
use crate::telemetry::{self, Source};

/// Devices whose erasure one shard remembers, to hide what is not rewritten yet.
pub const ERASED_MAX: u64 = 64 * 1024;

/// All erasures of a shard together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
struct Total {
    /// How many devices are remembered.
    count: u64,
    /// Index of the last erasure's entry.
    index: u64,
    /// Events from here on are of no erased device.
    upto: u64,
}

/// What a replica has to do about its segments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    /// To be given to [`settle`] when all segments below `upto` are sealed and have been looked at.
    pub index: u64,
    /// Events from here on are of no erased device.
    pub upto: u64,
}

/// Deletes `device`, if it is there, has all that it ever sent erased, and writes down what else there may be of it.
pub(super) fn erase(entry: &mut Entry<'_>, device: &DeviceId) -> Result<Outcome, StoreError> {
    let key = keys::erased(device.as_str().as_bytes());
    let known: Option<u64> = entry.overlay.get_json(&key)?;
    let mut total: Total = entry.overlay.get_json(keys::ERASED_TOTAL)?.unwrap_or_default();
    if known.is_none() && total.count >= ERASED_MAX {
        return Ok(Outcome::Refused(Refusal::LimitReached));
    }
    leftovers::keep(entry, device)?;
    if registry::record(entry, device)?.is_some() {
        registry::delete(entry, device, Condition::Any)?;
    }
    // Behind whatever the hub has just told of the deletion: that has the twin in it.
    let upto = entry.next_offset();
    total = Total {
        count: total.count + u64::from(known.is_none()),
        index: entry.meta.applied.map_or(0, |at| at.index),
        upto,
    };
    entry.overlay.put_json(key, &upto);
    entry.overlay.put_json(keys::ERASED_TOTAL.to_vec(), &total);
    Ok(Outcome::Erased { upto })
}

/// Whether events before an offset are of a device that was erased after them.
struct Erased<'a> {
    store: &'a dyn ShardStore,
    /// By identity: its events below this are no more.
    upto: HashMap<Bytes, u64>,
}

impl Erased<'_> {
    fn upto(&mut self, identity: &Bytes) -> Result<u64, StoreError> {
        if let Some(upto) = self.upto.get(identity) {
            return Ok(*upto);
        }
        // A module goes with its device.
        let device = identity.split(|byte| *byte == b'/').next().unwrap_or_default();
        let upto = read::json(self.store, &keys::erased(device))?.unwrap_or(0);
        self.upto.insert(identity.clone(), upto);
        Ok(upto)
    }

    /// The records of `run` without those that are no more; `None` if all are there.
    fn records_of(&mut self, run: &EventRun) -> Result<Option<Bytes>, StoreError> {
        let mut out = BytesMut::new();
        let (mut at, mut is_changed) = (0, false);
        for (offset, record) in (run.first_offset..).zip(telemetry::records(run.records.clone())) {
            let Ok(record) = record else {
                // What cannot be read is nobody's.
                return Ok(None);
            };
            let length = record.encoded_bytes();
            if record.source != Source::Erased && offset < self.upto(&record.device)? {
                is_changed = true;
                out.extend_from_slice(telemetry::erased());
            } else {
                out.extend_from_slice(&run.records[at..at + length]);
            }
            at += length;
        }
        Ok(is_changed.then(|| out.freeze()))
    }
}

fn total(store: &dyn ShardStore) -> Result<Total, StoreError> {
    Ok(read::json(store, keys::ERASED_TOTAL)?.unwrap_or_default())
}

/// Puts [`telemetry::erased`] in place of what readers may not see any more.
pub fn hide(store: &dyn ShardStore, runs: &mut [EventRun]) -> Result<(), StoreError> {
    let Some(first) = runs.first() else {
        return Ok(());
    };
    if total(store)?.upto <= first.first_offset {
        return Ok(());
    }
    let mut erased = Erased {
        store,
        upto: HashMap::new(),
    };
    for run in runs {
        if let Some(records) = erased.records_of(run)? {
            run.records = records;
        }
    }
    Ok(())
}

/// The records of `run` as they are to be written, if they are to be others.
pub fn rewritten(store: &dyn ShardStore, run: &EventRun) -> Result<Option<Bytes>, StoreError> {
    let mut erased = Erased {
        store,
        upto: HashMap::new(),
    };
    erased.records_of(run)
}

/// What this replica has to do, if anything.
pub fn pending(store: &dyn ShardStore) -> Result<Option<Pending>, StoreError> {
    let Total { index, upto, .. } = total(store)?;
    let done = read::json(store, keys::ERASED_DONE)?.unwrap_or(0);
    Ok((index > done).then_some(Pending { index, upto }))
}

/// This replica has done it. A start that has forgotten does it again.
pub fn settle(store: &dyn ShardStore, pending: Pending) -> Result<(), StoreError> {
    let mut batch = WriteBatch::default();
    batch.put(keys::ERASED_DONE, pending.index.to_string().into_bytes());
    store.write(batch)
}

/// A segment of another replica is about to take the place of one that this one has looked at. Returns whether that had to
/// be noted: it must be durable before the segment is.
pub fn begin_anew(store: &dyn ShardStore) -> Result<bool, StoreError> {
    if total(store)?.index == 0 {
        return Ok(false);
    }
    let mut batch = WriteBatch::default();
    batch.delete(keys::ERASED_DONE);
    store.write(batch)?;
    Ok(true)
}
