//! What bodies look like: JSON Schema by name, as the document has it among its components.
//!
//! What a service sends has names that end in `Input`; what the hub answers with, names without. An object that may have
//! more than it lists says so. Here are the words that schemas are made of; the schemas stand in one file for each area.

mod cluster;
mod files;
mod fleet;
mod identities;
mod messages;
mod provisioning;
mod routing;

use serde_json::{Map, Value, json};

/// All of them.
pub(super) fn all() -> Map<String, Value> {
    let parts = [
        cluster::general(),
        cluster::cluster(),
        cluster::quota(),
        files::files(),
        fleet::queries(),
        fleet::configurations(),
        fleet::jobs(),
        identities::identities(),
        identities::twins(),
        messages::messages(),
        messages::events(),
        provisioning::attestations(),
        provisioning::enrollments(),
        provisioning::registrations(),
        provisioning::hubs(),
        routing::routing(),
    ];
    let objects = parts.into_iter().filter_map(|part| match part {
        Value::Object(part) => Some(part),
        _ => None,
    });
    objects.flatten().collect()
}

/// An object with these properties, of which some are always there.
pub(super) fn object(required: &[&str], properties: Value) -> Value {
    json!({ "type": "object", "required": required, "properties": properties })
}

/// A time as the hub writes it.
pub(super) fn time() -> Value {
    json!({ "type": "string", "format": "date-time" })
}

/// One of these words.
pub(super) fn words(words: &[&str]) -> Value {
    json!({ "type": "string", "enum": words })
}

/// A schema that stands among the components.
pub(super) fn named(name: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{name}") })
}

pub(super) fn list_of(items: Value) -> Value {
    json!({ "type": "array", "items": items })
}

/// An object with any names, and this under each.
pub(super) fn map_of(values: Value) -> Value {
    json!({ "type": "object", "additionalProperties": values })
}

/// Any JSON object.
pub(super) fn anything() -> Value {
    json!({ "type": "object", "additionalProperties": true })
}

pub(super) fn text() -> Value {
    json!({ "type": "string" })
}

pub(super) fn maybe_text() -> Value {
    json!({ "type": ["string", "null"] })
}

pub(super) fn number() -> Value {
    json!({ "type": "integer", "minimum": 0 })
}
