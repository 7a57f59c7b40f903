//! Where the lists of what services are owed lie in a shard, and what commands on them do.
//!
//! Which records are given out together, and to whom, is decided in [`crate::owed`].

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::state::Entry;
use super::{keys, registry};
use crate::command::{Outcome, Refusal};
use crate::messages::feedback::{self, FeedbackRecord};
use crate::owed::{OwedList, OwedLock};
use crate::port::StoreError;
use crate::upload::{self, FileNotice};

/// Records that are too old and go when one comes.
const RECORDS_FORGOTTEN_MAX: usize = 16;

/// A kind of record that services are owed.
pub(super) trait Owed: Serialize + DeserializeOwned {
    /// Key of its list.
    const LIST: &'static [u8];
    /// Records in one batch at the most.
    const BATCH_RECORDS_MAX: u64;

    /// Key of record `number`.
    fn key(number: u64) -> Vec<u8>;

    /// When it came about.
    fn stamp_ms(&self) -> u64;
}

impl Owed for FeedbackRecord {
    const LIST: &'static [u8] = keys::FEEDBACK_LIST;
    const BATCH_RECORDS_MAX: u64 = feedback::BATCH_RECORDS_MAX;

    fn key(number: u64) -> Vec<u8> {
        keys::feedback(number)
    }

    fn stamp_ms(&self) -> u64 {
        self.ended_ms
    }
}

impl Owed for FileNotice {
    const LIST: &'static [u8] = keys::FILE_NOTICE_LIST;
    const BATCH_RECORDS_MAX: u64 = upload::BATCH_NOTICES_MAX;

    fn key(number: u64) -> Vec<u8> {
        keys::file_notice(number)
    }

    fn stamp_ms(&self) -> u64 {
        self.enqueued_ms
    }
}

/// Keeps records for services that ask.
pub(super) fn push<T: Owed>(
    entry: &mut Entry<'_>,
    records: impl IntoIterator<Item = T>,
) -> Result<(), StoreError> {
    let mut list = open::<T>(entry)?;
    for record in records {
        entry.overlay.put_json(T::key(list.push()), &record);
    }
    close::<T>(entry, list);
    Ok(())
}

pub(super) fn take<T: Owed>(entry: &mut Entry<'_>, lock_ms: u64) -> Result<Outcome, StoreError> {
    let mut list = open::<T>(entry)?;
    let now_ms = entry.meta.time_ms;
    let oldest_ms = first_free_ms::<T>(entry, &list)?.unwrap_or(now_ms);
    let token = registry::next_fence(entry);
    let lock = OwedLock { token, lock_ms };
    let batch = list.take(lock, T::BATCH_RECORDS_MAX, now_ms, oldest_ms);
    close::<T>(entry, list);
    Ok(Outcome::FeedbackTaken(batch))
}

pub(super) fn settle<T: Owed>(
    entry: &mut Entry<'_>,
    token: u64,
    completes: bool,
) -> Result<Outcome, StoreError> {
    let mut list: OwedList = entry.overlay.get_json(T::LIST)?.unwrap_or_default();
    let is_theirs = list.settle(token, completes, entry.meta.time_ms);
    close::<T>(entry, list);
    Ok(match is_theirs {
        true => Outcome::Done,
        false => Outcome::Refused(Refusal::LockLost),
    })
}

/// The list, without some of what is too old.
fn open<T: Owed>(entry: &Entry<'_>) -> Result<OwedList, StoreError> {
    let mut list: OwedList = entry.overlay.get_json(T::LIST)?.unwrap_or_default();
    for _ in 0..RECORDS_FORGOTTEN_MAX {
        let first_free_ms = first_free_ms::<T>(entry, &list)?;
        if !list.expire(entry.meta.time_ms, first_free_ms) {
            break;
        }
    }
    Ok(list)
}

fn close<T: Owed>(entry: &mut Entry<'_>, mut list: OwedList) {
    while let Some((from, to)) = list.poll_dropped() {
        (from..to).for_each(|number| entry.overlay.delete(T::key(number)));
    }
    entry.overlay.put_json(T::LIST.to_vec(), &list);
}

/// The stamp of the oldest record that is in no batch.
fn first_free_ms<T: Owed>(entry: &Entry<'_>, list: &OwedList) -> Result<Option<u64>, StoreError> {
    let Some(first) = list.first_free() else {
        return Ok(None);
    };
    let record: Option<T> = entry.overlay.get_json(&T::key(first))?;
    Ok(record.map(|record| record.stamp_ms()))
}
