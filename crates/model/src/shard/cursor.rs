//! How far the events of a shard have left for each endpoint: a number that only rises, so that whoever is late takes
//! nothing back.

use super::keys;
use super::state::Entry;
use crate::command::Outcome;
use crate::port::StoreError;

/// Moves the cursor of `endpoint` on to `offset`, or forgets it.
pub(super) fn shift(
    entry: &mut Entry<'_>,
    endpoint: &str,
    offset: Option<u64>,
) -> Result<Outcome, StoreError> {
    let key = keys::cursor(endpoint);
    match offset {
        None => entry.overlay.delete(key),
        Some(offset) => {
            let known: Option<u64> = entry.overlay.get_json(&key)?;
            if known.is_none_or(|known| known < offset) {
                entry.overlay.put_json(key, &offset);
            }
        }
    }
    Ok(Outcome::Done)
}
