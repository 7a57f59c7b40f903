//! Leases: the right to do something that one alone should do, for a while.
//!
//! Whoever has it learns nothing when it is over; what must not be done twice needs a check of its own where it is done.

use serde::{Deserialize, Serialize};

use super::keys;
use super::state::Entry;
use crate::command::{Outcome, Refusal};
use crate::port::StoreError;

/// A lease that nobody renews is over after this, whatever was asked for.
const LEASE_MS_MAX: u64 = 60_000;

/// The right to do something, for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Lease {
    holder: u64,
    until_ms: u64,
}

/// Gives the lease to `holder`, if it is nobody else's.
pub(super) fn take(entry: &mut Entry<'_>, name: &str, holder: u64, ms: u64) -> Result<Outcome, StoreError> {
    let now = entry.meta.time_ms;
    let held: Option<Lease> = entry.overlay.get_json(&keys::lease(name))?;
    if held.is_some_and(|held| held.holder != holder && held.until_ms > now) {
        return Ok(Outcome::Refused(Refusal::LeaseHeld));
    }
    let until_ms = now.saturating_add(ms.min(LEASE_MS_MAX));
    entry
        .overlay
        .put_json(keys::lease(name), &Lease { holder, until_ms });
    Ok(Outcome::Done)
}
