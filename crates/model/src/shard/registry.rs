//! What registry and session commands do, for devices and for their modules, which go with them. Refusals are checked in
//! the order in which [`Refusal`](crate::command::Refusal) lists them.

use super::Notice;
use super::announce::{self, Life, Link};
use super::configuration;
use super::cursor;
use super::erase;
use super::groups;
use super::jobs;
use super::keys;
use super::lease;
use super::leftovers;
use super::messages;
use super::owed;
use super::provisioning;
use super::quota;
use super::state::Entry;
use super::twin;
use super::uploads;
use crate::command::{Command, Outcome, Refusal};
use crate::id::{DeviceId, StreamId};
use crate::identity::{Condition, DeviceRecord, DeviceSpec, DeviceStatus, SessionRecord};
use crate::limits::MODULES_PER_DEVICE_MAX;
use crate::messages::feedback::FeedbackRecord;
use crate::mutant::{self, Mutant};
use crate::port::{SessionEnd, StoreError};
use crate::upload::FileNotice;

/// Topic filters that one device may keep.
pub const SUBSCRIPTIONS_PER_DEVICE_MAX: usize = 50;

/// The filter of a device that wants to hear of changes of what is desired of it.
pub const DESIRED_FILTER: &str = "$iothub/twin/PATCH/properties/desired/#";

/// The filter of a device that answers direct methods.
pub const METHODS_FILTER: &str = "$iothub/methods/POST/#";

/// The filter of a device that wants its messages.
pub fn messages_filter(device: &DeviceId) -> String {
    format!("devices/{device}/messages/devicebound/#")
}

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
        } => {
            let outcome = change_subscriptions(entry, device, *epoch, |kept| {
                kept.extend(filters.iter().cloned());
            })?;
            let listens = filters
                .iter()
                .any(|(filter, _)| *filter == messages_filter(device));
            Ok(match outcome {
                Outcome::Done => Outcome::Subscribed {
                    waiting: listens && messages::any_waits(entry, device)?,
                },
                refused => refused,
            })
        }
        Command::Unsubscribe {
            device,
            epoch,
            filters,
        } => change_subscriptions(entry, device, *epoch, |kept| {
            filters.iter().for_each(|filter| {
                kept.remove(filter);
            });
        }),
        Command::MessageSend { device, message } => messages::send(entry, device, message),
        Command::MessageTake {
            device,
            epoch,
            holds,
            count_max,
        } => messages::take(entry, device, *epoch, holds, *count_max),
        Command::MessageLock {
            device,
            generation,
            lock_ms,
        } => messages::lock(entry, device, *generation, *lock_ms),
        Command::MessageSettle {
            device,
            numbers,
            holder,
            settlement,
        } => messages::settle(entry, device, numbers, *holder, *settlement),
        Command::MessagesExpire { device } => messages::expire(entry, device),
        Command::MessagesPurge { device } => messages::purge(entry, device),
        Command::DeadLetter { device, number, deed } => messages::dead_letter(entry, device, *number, *deed),
        Command::FeedbackTake { lock_ms, .. } => owed::take::<FeedbackRecord>(entry, *lock_ms),
        Command::FeedbackSettle { token, completes, .. } => {
            owed::settle::<FeedbackRecord>(entry, *token, *completes)
        }
        Command::UploadBegin {
            device,
            generation,
            id,
            blob,
            secret_digest,
            ttl_ms,
        } => {
            let begin = uploads::Begin {
                id,
                blob,
                secret_digest,
                ttl_ms: *ttl_ms,
            };
            uploads::begin(entry, device, *generation, &begin)
        }
        Command::UploadEnd {
            device,
            generation,
            id,
            notice,
        } => uploads::end(entry, device, *generation, id, notice.as_deref()),
        Command::FileNoticeTake { lock_ms, .. } => owed::take::<FileNotice>(entry, *lock_ms),
        Command::FileNoticeSettle { token, completes, .. } => {
            owed::settle::<FileNotice>(entry, *token, *completes)
        }
        Command::EnrollmentPut {
            id,
            name,
            spec,
            condition,
        } => provisioning::put_enrollment(entry, id, name, spec, *condition),
        Command::EnrollmentDelete { id, condition } => provisioning::delete_enrollment(entry, id, *condition),
        Command::RegistrationPut {
            id,
            spec,
            enrollment,
            condition,
        } => provisioning::put_registration(entry, id, spec, *enrollment, *condition),
        Command::RegistrationDelete { id, condition } => {
            provisioning::delete_registration(entry, id, *condition)
        }
        Command::TwinConfigure {
            device,
            etag,
            marks,
            settings,
        } => twin::configure(entry, device, *etag, marks.as_ref(), settings),
        Command::ConfigurationPut { id, spec, condition } => configuration::put(entry, id, spec, *condition),
        Command::ConfigurationDelete { id, condition } => configuration::delete(entry, id, *condition),
        Command::LeaseTake { name, holder, ms } => lease::take(entry, name, *holder, *ms),
        Command::CursorMove { endpoint, offset, .. } => cursor::shift(entry, endpoint, *offset),
        Command::DeviceErase { device } => erase::erase(entry, device),
        Command::LeftoverGone { device, index } => leftovers::gone(entry, device, *index),
        Command::QuotaAsk { plan, wants } => quota::ask(entry, *plan, wants),
        Command::Group { group, ask } => groups::apply(entry, group, ask),
        Command::JobPut(spec) => jobs::put(entry, spec),
        Command::JobCancel(id) => jobs::cancel(entry, id),
        Command::JobClaim { id, runner } => jobs::claim(entry, id, *runner),
        Command::JobAdvance { id, runner, step } => jobs::advance(entry, id, *runner, step),
        Command::JobTwin {
            device,
            order,
            runner,
            tags,
            desired,
        } => {
            let sections = (tags.as_deref(), desired.as_deref());
            jobs::change_twin(entry, device, order, *runner, sections)
        }
        Command::JobMethodBegin {
            device,
            order,
            runner,
        } => jobs::begin_method(entry, device, order, *runner),
        Command::JobMethodEnd {
            device,
            order,
            runner,
            result,
        } => jobs::end_method(entry, device, order, *runner, result),
    }
}

pub(super) fn record(entry: &Entry<'_>, device: &DeviceId) -> Result<Option<DeviceRecord>, StoreError> {
    entry.overlay.get_json(&keys::record(device.as_str().as_bytes()))
}

pub(super) fn session(entry: &Entry<'_>, device: &DeviceId) -> Result<Option<SessionRecord>, StoreError> {
    entry.overlay.get_json(&keys::session(device.as_str().as_bytes()))
}

fn save_session(entry: &mut Entry<'_>, device: &DeviceId, session: &SessionRecord) {
    entry.forget_fence(device);
    entry
        .overlay
        .put_json(keys::session(device.as_str().as_bytes()), session);
}

pub(super) fn next_fence(entry: &mut Entry<'_>) -> u64 {
    let fence = entry.meta.next_fence;
    entry.meta.next_fence += 1;
    fence
}

/// How it is called that `device` is not there.
pub(super) fn absent(entry: &Entry<'_>, device: &DeviceId) -> Result<Refusal, StoreError> {
    Ok(match device.parent() {
        Some(parent) if record(entry, &parent)?.is_some() => Refusal::UnknownModule,
        _ => Refusal::UnknownDevice,
    })
}

/// Why a device that showed a credential of this generation may not do what it wants to, if so. A module goes with its
/// device.
pub(super) fn turned_away(
    entry: &Entry<'_>,
    device: &DeviceId,
    generation: u64,
) -> Result<Option<Refusal>, StoreError> {
    let Some(stored) = record(entry, device)? else {
        return absent(entry, device).map(Some);
    };
    if stored.generation != generation {
        return Ok(Some(Refusal::StaleGeneration));
    }
    let parent = match device.parent() {
        Some(parent) => record(entry, &parent)?,
        None => None,
    };
    let mut who = std::iter::once(&stored).chain(&parent);
    Ok(who.any(DeviceRecord::is_disabled).then_some(Refusal::Disabled))
}

/// The modules of a device; of a module, none.
fn modules(entry: &Entry<'_>, device: &DeviceId) -> Result<Vec<DeviceId>, StoreError> {
    if device.module_part().is_some() {
        return Ok(Vec::new());
    }
    let (from, to) = keys::modules_range(device.as_str().as_bytes());
    let (found, _) = entry.overlay.keys((&from, &to), MODULES_PER_DEVICE_MAX)?;
    Ok(found.iter().filter_map(|key| keys::parse_module(key)).collect())
}

fn check(condition: Condition, stored: Option<&DeviceRecord>, absent: Refusal) -> Result<(), Refusal> {
    match (condition, stored) {
        (Condition::Present | Condition::Version(_), None) => Err(absent),
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
    let absent = absent(entry, device)?;
    if let Err(refusal) = check(condition, stored.as_ref(), absent) {
        return Ok(Outcome::Refused(refusal));
    }
    if stored.is_none()
        && let Some(parent) = device.parent()
    {
        if absent == Refusal::UnknownDevice {
            return Ok(Outcome::Refused(absent));
        }
        if modules(entry, &parent)?.len() >= MODULES_PER_DEVICE_MAX {
            return Ok(Outcome::Refused(Refusal::LimitReached));
        }
    }
    let now = entry.meta.time_ms;
    let was_enabled = |old: &DeviceRecord| !old.is_disabled();
    let disables = spec.status == DeviceStatus::Disabled && stored.as_ref().is_some_and(was_enabled);
    let loses = |old: &DeviceRecord| old.spec.authentication.loses_to(&spec.authentication);
    let revokes = disables || stored.as_ref().is_some_and(loses);
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
    if device.module_part().is_none() {
        let was_disabled = stored.as_ref().is_some_and(DeviceRecord::is_disabled);
        entry.meta.device_count += u64::from(stored.is_none());
        entry.meta.disabled_count += u64::from(new.is_disabled());
        entry.meta.disabled_count -= u64::from(was_disabled);
    }
    if revokes {
        revoke(entry, device)?;
    }
    if disables {
        for module in modules(entry, device)? {
            revoke(entry, &module)?;
        }
    }
    entry.notices.push(Notice::DeviceChanged(device.clone()));
    if stored.is_none() {
        announce::life(entry, device, Life::Created)?;
    }
    Ok(Outcome::Stored(new))
}

/// Cuts off whoever was let in before.
fn revoke(entry: &mut Entry<'_>, device: &DeviceId) -> Result<(), StoreError> {
    uploads::forget(entry, device);
    let Some(mut session) = session(entry, device)? else {
        return Ok(());
    };
    if session.held_by.is_some() {
        end(entry, device, session, Some(SessionEnd::CredentialRevoked), true);
    } else {
        // Records of the last session may still be on their way.
        session.epoch = next_fence(entry);
        save_session(entry, device, &session);
    }
    Ok(())
}

pub(super) fn delete(
    entry: &mut Entry<'_>,
    device: &DeviceId,
    condition: Condition,
) -> Result<Outcome, StoreError> {
    let stored = record(entry, device)?;
    let absent = absent(entry, device)?;
    let Some(stored) = stored else {
        return Ok(Outcome::Refused(absent));
    };
    if let Err(refusal) = check(condition, Some(&stored), absent) {
        return Ok(Outcome::Refused(refusal));
    }
    for module in modules(entry, device)? {
        remove(entry, &module)?;
    }
    remove(entry, device)?;
    if device.module_part().is_none() {
        entry.meta.device_count -= 1;
        entry.meta.disabled_count -= u64::from(stored.is_disabled());
    }
    Ok(Outcome::Done)
}

/// Removes one identity with all that belongs to it alone.
fn remove(entry: &mut Entry<'_>, device: &DeviceId) -> Result<(), StoreError> {
    if let Some(session) = session(entry, device)? {
        end(entry, device, session, Some(SessionEnd::Deleted), true);
    }
    messages::remove(entry, device)?;
    uploads::forget(entry, device);
    announce::life(entry, device, Life::Deleted)?;
    let id = device.as_str().as_bytes();
    for key in [
        keys::record(id),
        keys::session(id),
        keys::twin(id),
        keys::job_rows(id),
    ] {
        entry.overlay.delete(key);
    }
    entry.forget_fence(device);
    entry.notices.push(Notice::DeviceDeleted(device.clone()));
    Ok(())
}

fn open(
    entry: &mut Entry<'_>,
    device: &DeviceId,
    generation: u64,
    held_by: StreamId,
    persistent: bool,
) -> Result<Outcome, StoreError> {
    if let Some(refusal) = turned_away(entry, device, generation)? {
        return Ok(Outcome::Refused(refusal));
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
    let listens = subscriptions.contains_key(&messages_filter(device));
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
    if device.module_part().is_none() {
        entry.meta.connected_count += 1;
    }
    announce::link(entry, device, Link::Connected);
    entry.notices.push(Notice::SessionOpened {
        device: device.clone(),
        epoch,
        held_by,
    });
    Ok(Outcome::SessionOpened {
        epoch,
        present,
        time_ms: entry.meta.time_ms,
        waiting: listens && messages::any_waits(entry, device)?,
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
    if device.module_part().is_none() {
        entry.meta.connected_count -= 1;
    }
    announce::link(entry, device, Link::Disconnected);
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
