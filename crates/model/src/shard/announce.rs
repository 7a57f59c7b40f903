//! Events that the hub makes itself: of twins that changed, of devices that came and went, of sessions that began and
//! ended.
//!
//! They are made in `apply`, in the order of the changes, and only where the entry says that somebody wants them
//! ([`Part::Announce`](super::Part::Announce)). What readers learn from elsewhere (who, when, which hub) is not written
//! into them. Where they go is decided in [`crate::routing`].
//!
//! Shapes: IoT Hub, "Non-telemetry event schemas".

use bytes::BytesMut;
use serde_json::{Value, json};

use super::state::Entry;
use crate::id::DeviceId;
use crate::iso_time::iso_utc;
use crate::limits::{MESSAGE_BYTES_MAX, PROPERTY_BAG_BYTES_MAX};
use crate::port::StoreError;
use crate::routing::EventSource;
use crate::telemetry::{self, AuthMethod, Source};
use crate::twin::document::{METADATA, VERSION, etag, versioned};
use crate::twin::{Object, Twin};

/// What a device or module is given to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Created,
    Deleted,
}

/// What becomes of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Link {
    Connected,
    Disconnected,
}

/// A device or module was created, or is about to lose what it has.
pub(super) fn life(entry: &mut Entry<'_>, device: &DeviceId, life: Life) -> Result<(), StoreError> {
    if !entry.announces.has(EventSource::DeviceLifecycleEvents) {
        return Ok(());
    }
    let twin = super::twin::load(entry, device)?;
    let is_module = device.module_part().is_some();
    let operation = match (life, is_module) {
        (Life::Created, false) => "createDeviceIdentity",
        (Life::Created, true) => "createModuleIdentity",
        (Life::Deleted, false) => "deleteDeviceIdentity",
        (Life::Deleted, true) => "deleteModuleIdentity",
    };
    announce(entry, Source::Lifecycle, device, operation, |_| {
        let mut body = json!({
            "deviceId": device.device_part(),
            "etag": etag(twin.etag),
            "version": twin.version,
            "tags": twin.tags,
            "properties": { "desired": versioned(&twin.desired), "reported": versioned(&twin.reported) },
        });
        if let Some(module) = device.module_part() {
            body["moduleId"] = module.into();
        }
        body
    });
    Ok(())
}

/// A session began or ended.
pub(super) fn link(entry: &mut Entry<'_>, device: &DeviceId, link: Link) {
    let is_module = device.module_part().is_some();
    let operation = match (link, is_module) {
        (Link::Connected, false) => "deviceConnected",
        (Link::Connected, true) => "moduleConnected",
        (Link::Disconnected, false) => "deviceDisconnected",
        (Link::Disconnected, true) => "moduleDisconnected",
    };
    // Of two events of a device the later one has the higher number, whichever way they come.
    let (index, place) = entry.made_place();
    announce(
        entry,
        Source::Connection,
        device,
        operation,
        |_| json!({ "sequenceNumber": format!("{index:048X}{place:016X}") }),
    );
}

/// The device reported `patch`; `twin` is what came of it.
pub(super) fn reported(entry: &mut Entry<'_>, device: &DeviceId, patch: &Object, twin: &Twin) {
    announce(entry, Source::TwinChange, device, "updateTwin", |ms| {
        json!({
            "version": twin.version,
            "properties": { "reported": changed(patch, twin.reported.version, ms) },
        })
    });
}

/// Somebody changed what is given, by merging or, with `replaces`, wholly; `twin` is what came of it.
pub(super) fn twin(
    entry: &mut Entry<'_>,
    device: &DeviceId,
    (tags, desired): (Option<&Object>, Option<&Object>),
    replaces: bool,
    twin: &Twin,
) {
    let operation = if replaces { "replaceTwin" } else { "updateTwin" };
    announce(entry, Source::TwinChange, device, operation, |ms| {
        let mut body = json!({ "version": twin.version });
        if let Some(tags) = tags {
            body["tags"] = Value::Object(tags.clone());
        }
        if let Some(desired) = desired {
            body["properties"] = json!({ "desired": changed(desired, twin.desired.version, ms) });
        }
        body
    });
}

/// What changed of a section, with the version and the time that it has now.
fn changed(patch: &Object, version: u64, ms: u64) -> Object {
    let mut shown = patch.clone();
    shown.insert(METADATA.to_owned(), json!({ "$lastUpdated": iso_utc(ms) }));
    shown.insert(VERSION.to_owned(), version.into());
    shown
}

fn announce(
    entry: &mut Entry<'_>,
    source: Source,
    device: &DeviceId,
    operation: &str,
    body: impl FnOnce(u64) -> Value,
) {
    if !EventSource::of(source).is_some_and(|source| entry.announces.has(source)) {
        return;
    }
    let body = body(entry.meta.time_ms);
    let mut payload = body.to_string();
    if payload.len() > MESSAGE_BYTES_MAX - PROPERTY_BAG_BYTES_MAX {
        // Too much for an event: the version is enough to know that there is more to read.
        payload = json!({ "version": body["version"], "isTruncated": true }).to_string();
    }
    let bag = format!("opType={operation}");
    let mut record = BytesMut::new();
    let content = (bag.as_bytes(), payload.as_bytes());
    telemetry::encode(&mut record, source, AuthMethod::Hub, 0, device, content);
    entry.store_made(record.freeze());
}
