//! Where it stands what erased devices have left outside this shard, until somebody says that it is gone.
//!
//! As long as it stands there, no other device of that name uploads anything: whoever removes files knows them by the name
//! alone. What is left, and who removes it, is told in [`crate::leftover`].

use bytes::Bytes;

use super::overlay::parse_json;
use super::state::Entry;
use super::{keys, uploads};
use crate::command::{Outcome, View};
use crate::id::DeviceId;
use crate::leftover::{LEFTOVER_UPLOADS_MAX, LEFTOVERS_PAGE_MAX, Leftover};
use crate::port::{ShardStore, StoreError};

/// Writes down what `device`, which is about to be erased, may leave.
pub(super) fn keep(entry: &mut Entry<'_>, device: &DeviceId) -> Result<(), StoreError> {
    let key = keys::leftover(device.as_str().as_bytes());
    let before: Option<Leftover> = entry.overlay.get_json(&key)?;
    let mut ids = before.map(|before| before.uploads).unwrap_or_default();
    ids.extend(uploads::ids(entry, device)?);
    ids.truncate(LEFTOVER_UPLOADS_MAX);
    let leftover = Leftover {
        device: device.clone(),
        index: entry.meta.applied.map_or(0, |at| at.index),
        erased_ms: entry.meta.time_ms,
        uploads: ids,
    };
    entry.overlay.put_json(key, &leftover);
    Ok(())
}

/// Whether something of an erased device of this name may still be there.
pub(super) fn is_there(entry: &Entry<'_>, device: &DeviceId) -> Result<bool, StoreError> {
    let key = keys::leftover(device.as_str().as_bytes());
    Ok(entry.overlay.get(&key)?.is_some())
}

/// What the erasure at `index` left is gone. Of another erasure nothing is known by that.
pub(super) fn gone(entry: &mut Entry<'_>, device: &DeviceId, index: u64) -> Result<Outcome, StoreError> {
    let key = keys::leftover(device.as_str().as_bytes());
    let stored: Option<Leftover> = entry.overlay.get_json(&key)?;
    if stored.is_some_and(|stored| stored.index == index) {
        entry.overlay.delete(key);
    }
    Ok(Outcome::Done)
}

/// A page of them, by name.
pub(super) fn page(store: &dyn ShardStore, after: &[u8]) -> Result<View, StoreError> {
    let (from, to) = keys::leftovers_after(after);
    let rows = store.scan(&from, &to, LEFTOVERS_PAGE_MAX)?;
    let last = rows.last().filter(|_| rows.len() == LEFTOVERS_PAGE_MAX);
    let next = last.map(|(key, _)| Bytes::from([&key[..], &[0]].concat()));
    let found = rows.iter().map(|(_, value)| parse_json(value));
    Ok(View::Leftovers {
        found: found.collect::<Result<_, _>>()?,
        next,
    })
}
