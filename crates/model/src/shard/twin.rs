//! What commands on twins do: who may write, under which condition, and who has to hear of it.
//!
//! How documents merge is decided in [`crate::twin`].

use super::state::Entry;
use super::{Notice, announce, keys, registry};
use crate::command::{Outcome, Refusal};
use crate::configuration::{Marks, Setting};
use crate::id::DeviceId;
use crate::mutant::{self, Mutant};
use crate::port::StoreError;
use crate::twin::{Object, Twin};
use serde_json::Value;

pub(super) fn load(entry: &Entry<'_>, device: &DeviceId) -> Result<Twin, StoreError> {
    let stored = entry.overlay.get_json(&keys::twin(device.as_str().as_bytes()))?;
    Ok(stored.unwrap_or_default())
}

fn save(entry: &mut Entry<'_>, device: &DeviceId, twin: &Twin) {
    entry
        .overlay
        .put_json(keys::twin(device.as_str().as_bytes()), twin);
}

/// `Err` if a door let something through that is no object: that is refused, for an entry that cannot be applied
/// would stop every replica.
fn parse(text: &str) -> Result<Object, Refusal> {
    serde_json::from_str(text).map_err(|_| Refusal::TwinUnreadable)
}

pub(super) fn report(
    entry: &mut Entry<'_>,
    device: &DeviceId,
    epoch: u64,
    patch: &str,
    version: Option<u64>,
) -> Result<Outcome, StoreError> {
    if registry::session(entry, device)?.is_none_or(|session| session.epoch != epoch) {
        return Ok(Outcome::Refused(Refusal::Fenced));
    }
    let mut twin = load(entry, device)?;
    if version.is_some_and(|version| version != twin.reported.version) {
        return Ok(Outcome::Refused(Refusal::VersionMismatch));
    }
    let patch = match parse(patch) {
        Ok(patch) => patch,
        Err(refusal) => return Ok(Outcome::Refused(refusal)),
    };
    if !twin.report(&patch, entry.meta.time_ms) {
        return Ok(Outcome::Refused(Refusal::TwinTooLarge));
    }
    save(entry, device, &twin);
    announce::reported(entry, device, &patch, &twin);
    let version = twin.reported.version;
    Ok(Outcome::TwinChanged { version })
}

pub(super) fn change(
    entry: &mut Entry<'_>,
    device: &DeviceId,
    (tags, desired): (Option<&str>, Option<&str>),
    replaces: bool,
    etag: Option<u64>,
) -> Result<Outcome, StoreError> {
    if registry::record(entry, device)?.is_none() {
        return Ok(Outcome::Refused(registry::absent(entry, device)?));
    }
    let mut twin = load(entry, device)?;
    if etag.is_some_and(|etag| etag != twin.etag) && !mutant::is_on(Mutant::IgnoreTwinEtag) {
        return Ok(Outcome::Refused(Refusal::VersionMismatch));
    }
    let (tags, desired) = match (tags.map(parse).transpose(), desired.map(parse).transpose()) {
        (Ok(tags), Ok(desired)) => (tags, desired),
        (Err(refusal), _) | (_, Err(refusal)) => return Ok(Outcome::Refused(refusal)),
    };
    let etag = registry::next_fence(entry);
    if !twin.change(
        (tags.as_ref(), desired.as_ref()),
        replaces,
        etag,
        entry.meta.time_ms,
    ) {
        return Ok(Outcome::Refused(Refusal::TwinTooLarge));
    }
    if !mutant::is_on(Mutant::LoseTwinChange) {
        save(entry, device, &twin);
    }
    announce::twin(entry, device, (tags.as_ref(), desired.as_ref()), replaces, &twin);
    if desired.is_some() {
        tell(entry, device, &twin)?;
    }
    Ok(Outcome::TwinChanged {
        version: twin.version,
    })
}

/// Brings a twin in line with configurations.
pub(super) fn configure(
    entry: &mut Entry<'_>,
    device: &DeviceId,
    etag: Option<u64>,
    marks: Option<&Marks>,
    settings: &[Setting],
) -> Result<Outcome, StoreError> {
    if registry::record(entry, device)?.is_none() {
        return Ok(Outcome::Refused(registry::absent(entry, device)?));
    }
    let mut twin = load(entry, device)?;
    if etag.is_some_and(|etag| etag != twin.etag) {
        return Ok(Outcome::Refused(Refusal::VersionMismatch));
    }
    let read = settings.iter().map(|Setting { path, value }| {
        let value: Result<Value, _> = serde_json::from_str(value);
        value.map(|value| (path.as_slice(), value))
    });
    let Ok(settings) = read.collect::<Result<Vec<_>, _>>() else {
        return Ok(Outcome::Refused(Refusal::TwinUnreadable));
    };
    let told = twin.desired.version;
    let etag = registry::next_fence(entry);
    if !twin.configure(&settings, marks, etag, entry.meta.time_ms) {
        return Ok(Outcome::Refused(Refusal::TwinTooLarge));
    }
    save(entry, device, &twin);
    if twin.desired.version != told {
        let patch = twin.recent.last().and_then(|change| parse(&change.patch).ok());
        announce::twin(entry, device, (None, patch.as_ref()), false, &twin);
        tell(entry, device, &twin)?;
    }
    Ok(Outcome::TwinChanged {
        version: twin.version,
    })
}

/// Tells the device of the last change of what is desired of it, if it listens.
fn tell(entry: &mut Entry<'_>, device: &DeviceId, twin: &Twin) -> Result<(), StoreError> {
    if let Some(session) = registry::session(entry, device)?
        && let Some(held_by) = session.held_by
        && session.subscriptions.contains_key(registry::DESIRED_FILTER)
        && let Some(change) = twin.recent.last()
    {
        entry.notices.push(Notice::DesiredChanged {
            device: device.clone(),
            epoch: session.epoch,
            held_by,
            change: change.clone(),
        });
    }
    Ok(())
}
