//! A twin as services read it: the one JSON object that REST answers with, that queries are asked about and that
//! conditions of configurations and jobs look at, so that what is shown is what is searched.
//!
//! Which twins somebody may see is decided at the doors; what stands in a twin, in [`crate::twin`].

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use super::{Object, Section, Twin, Updated};
use crate::command::DeviceView;
use crate::identity::{self, Authentication, Thumbprints};
use crate::iso_time::{UNSET, iso_utc_or_unset};

/// The name under which a section tells when its properties were changed.
pub const METADATA: &str = "$metadata";
/// The name under which a section tells its version.
pub const VERSION: &str = "$version";

/// The ETag of a twin: Base64 of eight bytes, as IoT Hub has it.
pub fn etag(number: u64) -> String {
    STANDARD.encode(number.to_be_bytes())
}

/// The whole object. `has_metadata` says whether the sections tell when their properties were changed, which may be
/// many times as much as the properties themselves.
pub fn document(view: &DeviceView, twin: &Twin, has_metadata: bool) -> Value {
    let (record, session) = (&view.record, &view.session);
    let prints = match &record.spec.authentication {
        Authentication::SelfSigned(prints) => prints.clone(),
        _ => Thumbprints::default(),
    };
    let shown = |section: &Section, has_versions: bool| {
        let mut content = versioned(section);
        if has_metadata {
            content.insert(METADATA.into(), metadata(&section.updated, has_versions).into());
        }
        content
    };
    let mut body = json!({
        "deviceId": record.device.device_part(),
        "etag": etag(twin.etag),
        "deviceEtag": identity::etag(record.version),
        "status": record.spec.status,
        "statusReason": record.spec.status_reason,
        "statusUpdateTime": iso_utc_or_unset(record.status_changed_ms),
        "connectionState": session.connection_state(),
        "lastActivityTime": UNSET,
        "cloudToDeviceMessageCount": view.message_count,
        "authenticationType": record.spec.authentication.kind(),
        "x509Thumbprint": { "primaryThumbprint": prints.primary, "secondaryThumbprint": prints.secondary },
        "modelId": "",
        "version": twin.version,
        "tags": twin.tags,
        "properties": { "desired": shown(&twin.desired, true), "reported": shown(&twin.reported, false) },
        "capabilities": { "iotEdge": record.spec.is_edge },
    });
    if !twin.configurations.is_empty() {
        let shown = twin.configurations.iter().map(|(id, mark)| {
            let status = if mark.is_applied { "Applied" } else { "Targeted" };
            (id.clone(), json!({ "status": status }))
        });
        body["configurations"] = Value::Object(shown.collect());
    }
    if let Some(module) = record.device.module_part() {
        body["moduleId"] = module.into();
    }
    body
}

/// A section with its `$version`, as its device sees it.
pub fn versioned(section: &Section) -> Object {
    let mut shown = section.content.clone();
    shown.insert(VERSION.into(), section.version.into());
    shown
}

fn metadata(updated: &Updated, has_versions: bool) -> Object {
    let mut shown = Object::new();
    shown.insert("$lastUpdated".into(), iso_utc_or_unset(updated.ms).into());
    if has_versions && updated.version > 0 {
        shown.insert("$lastUpdatedVersion".into(), updated.version.into());
    }
    for (key, below) in &updated.below {
        shown.insert(key.clone(), metadata(below, has_versions).into());
    }
    shown
}
