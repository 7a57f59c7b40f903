//! What registry and session commands do. Refusals are checked in the order in which
//! [`Refusal`](crate::command::Refusal) lists them.

use super::Notice;
use super::keys;
use super::state::Entry;
use super::twin;
use crate::command::{Command, Outcome, Refusal};
use crate::id::{DeviceId, StreamId};
use crate::identity::{Condition, DeviceRecord, DeviceSpec, DeviceStatus, SessionRecord, SymmetricKeys};
use crate::mutant::{self, Mutant};
use crate::port::{SessionEnd, StoreError};

/// Topic filters that one device may keep.
pub const SUBSCRIPTIONS_PER_DEVICE_MAX: usize = 50;

/// The filter of a device that wants to hear of changes of what is desired of it.
pub const DESIRED_FILTER: &str = "$iothub/twin/PATCH/properties/desired/#";

/// The filter of a device that answers direct methods.
pub const METHODS_FILTER: &str = "$iothub/methods/POST/#";

pub(super) fn apply(entry: &mut Entry<'_>, command: &Command) -> Result<Outcome, StoreError> {
    match command {
        Command::DevicePut {
            device,
            spec,
            condition,
        } => put(entry, device, spec, *condition),
        Command::DeviceDelete { device, condition } => delete(entry, device, *condition),
        Command::SessionOpen {
            device,
            generation,
            held_by,
            persistent,
        } => open(entry, device, *generation, *held_by, *persistent),
        Command::SessionClose { device, epoch } => close(entry, device, *epoch),
        Command::TwinReport {
            device,
            epoch,
            patch,
            version,
        } => twin::report(entry, device, *epoch, patch, *version),
        Command::TwinChange {
            device,
            tags,
            desired,
            replaces,
            etag,
        } => twin::change(
            entry,
            device,
            (tags.as_deref(), desired.as_deref()),
            *replaces,
            *etag,
        ),
        Command::Subscribe {
            device,
            epoch,
            filters,
        } => change_subscriptions(entry, device, *epoch, |kept| {
            kept.extend(filters.iter().cloned());
        }),
        Command::Unsubscribe {
            device,
            epoch,
            filters,
        } => change_subscriptions(entry, device, *epoch, |kept| {
            filters.iter().for_each(|filter| {
                kept.remove(filter);
            });
        }),
    }
}

pub(super) fn record(entry: &Entry<'_>, device: &DeviceId) -> Result<Option<DeviceRecord>, StoreError> {
    entry.overlay.get_json(&keys::record(device.as_str().as_bytes()))
}

pub(super) fn session(entry: &Entry<'_>, device: &DeviceId) -> Result<Option<SessionRecord>, StoreError> {
    entry.overlay.get_json(&keys::session(device.as_str().as_bytes()))
}

fn save_session(entry: &mut Entry<'_>, device: &DeviceId, session: &SessionRecord) {
    entry
        .overlay
        .put_json(keys::session(device.as_str().as_bytes()), session);
}

pub(super) fn next_fence(entry: &mut Entry<'_>) -> u64 {
    let fence = entry.meta.next_fence;
    entry.meta.next_fence += 1;
    fence
}

fn check(condition: Condition, stored: Option<&DeviceRecord>) -> Result<(), Refusal> {
    match (condition, stored) {
        (Condition::Present | Condition::Version(_), None) => Err(Refusal::UnknownDevice),
        (Condition::Absent, Some(_)) => Err(Refusal::AlreadyExists),
        (Condition::Version(version), Some(stored)) if version != stored.version => {
            Err(Refusal::VersionMismatch)
        }
        _ => Ok(()),
    }
}

fn put(
    entry: &mut Entry<'_>,
    device: &DeviceId,
    spec: &DeviceSpec,
    condition: Condition,
) -> Result<Outcome, StoreError> {
    let stored = record(entry, device)?;
    if let Err(refusal) = check(condition, stored.as_ref()) {
        return Ok(Outcome::Refused(refusal));
    }
    let now = entry.meta.time_ms;
    let revokes = stored.as_ref().is_some_and(|old| {
        let disables = old.spec.status == DeviceStatus::Enabled && spec.status == DeviceStatus::Disabled;
        disables || drops_a_key(&old.spec.keys, &spec.keys)
    });
    let generation = match &stored {
        Some(old) if !revokes => old.generation,
        _ => next_fence(entry),
    };
    let status_changed = stored.as_ref().is_none_or(|old| old.spec.status != spec.status);
    let new = DeviceRecord {
        device: device.clone(),
        spec: spec.clone(),
        version: match mutant::is_on(Mutant::VersionsBeginAnew) {
            true => stored.as_ref().map_or(1, |old| old.version + 1),
            false => next_fence(entry),
        },
        generation,
        created_ms: stored.as_ref().map_or(now, |old| old.created_ms),
        status_changed_ms: stored
            .as_ref()
            .filter(|_| !status_changed)
            .map_or(now, |old| old.status_changed_ms),
    };
    entry
        .overlay
        .put_json(keys::record(device.as_str().as_bytes()), &new);
    if stored.is_none() {
        entry.meta.device_count += 1;
    }
    if revokes && let Some(mut session) = session(entry, device)? {
        if session.held_by.is_some() {
            end(entry, device, session, Some(SessionEnd::CredentialRevoked), true);
        } else {
            // Records of the last session may still be on their way.
            session.epoch = next_fence(entry);
            save_session(entry, device, &session);
        }
    }
    entry.notices.push(Notice::DeviceChanged(device.clone()));
    Ok(Outcome::Stored(new))
}

/// Whether a key that was valid no longer is. Swapping the two keys drops none.
fn drops_a_key(old: &SymmetricKeys, new: &SymmetricKeys) -> bool {
    [&old.primary, &old.secondary]
        .into_iter()
        .any(|key| *key != new.primary && *key != new.secondary)
}

fn delete(entry: &mut Entry<'_>, device: &DeviceId, condition: Condition) -> Result<Outcome, StoreError> {
    let stored = record(entry, device)?;
    if stored.is_none() {
        return Ok(Outcome::Refused(Refusal::UnknownDevice));
    }
    if let Err(refusal) = check(condition, stored.as_ref()) {
        return Ok(Outcome::Refused(refusal));
    }
    if let Some(session) = session(entry, device)? {
        end(entry, device, session, Some(SessionEnd::Deleted), true);
    }
    entry.overlay.delete(keys::record(device.as_str().as_bytes()));
    entry.overlay.delete(keys::session(device.as_str().as_bytes()));
    entry.overlay.delete(keys::twin(device.as_str().as_bytes()));
    entry.meta.device_count -= 1;
    entry.notices.push(Notice::DeviceDeleted(device.clone()));
    Ok(Outcome::Done)
}

fn open(
    entry: &mut Entry<'_>,
    device: &DeviceId,
    generation: u64,
    held_by: StreamId,
    persistent: bool,
) -> Result<Outcome, StoreError> {
    let Some(stored) = record(entry, device)? else {
        return Ok(Outcome::Refused(Refusal::UnknownDevice));
    };
    if stored.generation != generation {
        return Ok(Outcome::Refused(Refusal::StaleGeneration));
    }
    if stored.spec.status == DeviceStatus::Disabled {
        return Ok(Outcome::Refused(Refusal::Disabled));
    }
    let mut earlier = session(entry, device)?.unwrap_or_default();
    let present = persistent && earlier.persistent && earlier.epoch > 0;
    if earlier.held_by.is_some() {
        end(entry, device, earlier.clone(), Some(SessionEnd::TakenOver), false);
        earlier.held_by = None;
    }
    if !present {
        earlier.subscriptions.clear();
    }
    let epoch = next_fence(entry);
    let (changed_ms, subscriptions) = (entry.meta.time_ms, earlier.subscriptions);
    let new = SessionRecord {
        epoch,
        held_by: Some(held_by),
        changed_ms,
        persistent,
        subscriptions,
    };
    save_session(entry, device, &new);
    entry
        .overlay
        .put(keys::held(held_by, device), bytes::Bytes::new());
    entry.meta.connected_count += 1;
    entry.notices.push(Notice::SessionOpened {
        device: device.clone(),
        epoch,
        held_by,
    });
    Ok(Outcome::SessionOpened {
        epoch,
        present,
        time_ms: entry.meta.time_ms,
    })
}

fn close(entry: &mut Entry<'_>, device: &DeviceId, epoch: u64) -> Result<Outcome, StoreError> {
    match session(entry, device)? {
        Some(session) if session.epoch == epoch => {
            end(entry, device, session, None, false);
            Ok(Outcome::Done)
        }
        _ => Ok(Outcome::Refused(Refusal::Fenced)),
    }
}

/// Ends a held session: nobody holds it, and with `fence` even its own late records are refused.
fn end(
    entry: &mut Entry<'_>,
    device: &DeviceId,
    mut session: SessionRecord,
    reason: Option<SessionEnd>,
    fence: bool,
) {
    let Some(held_by) = session.held_by.take() else {
        return;
    };
    let epoch = session.epoch;
    if fence {
        session.epoch = next_fence(entry);
    }
    session.changed_ms = entry.meta.time_ms;
    save_session(entry, device, &session);
    entry.overlay.delete(keys::held(held_by, device));
    entry.meta.connected_count -= 1;
    entry.notices.push(Notice::SessionEnded {
        device: device.clone(),
        epoch,
        held_by,
        reason,
    });
}

/// Ends the session of `device` if the lost gateway run `stream` holds it.
pub(super) fn end_lost_session(
    entry: &mut Entry<'_>,
    device: &DeviceId,
    stream: StreamId,
) -> Result<(), StoreError> {
    match session(entry, device)? {
        Some(session) if session.held_by == Some(stream) => {
            end(entry, device, session, Some(SessionEnd::GatewayLost), true);
        }
        _ => entry.overlay.delete(keys::held(stream, device)),
    }
    Ok(())
}

fn change_subscriptions(
    entry: &mut Entry<'_>,
    device: &DeviceId,
    epoch: u64,
    change: impl FnOnce(&mut std::collections::BTreeMap<String, u8>),
) -> Result<Outcome, StoreError> {
    let Some(mut session) = session(entry, device)?.filter(|session| session.epoch == epoch) else {
        return Ok(Outcome::Refused(Refusal::Fenced));
    };
    change(&mut session.subscriptions);
    if session.subscriptions.len() > SUBSCRIPTIONS_PER_DEVICE_MAX {
        return Ok(Outcome::Refused(Refusal::LimitReached));
    }
    save_session(entry, device, &session);
    Ok(Outcome::Done)
}
