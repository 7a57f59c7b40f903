//! Bodies about devices and modules: who they are, and what is kept for them in twins.
//!
//! What stands in them is decided in [`crate::http::identity`] and in `dunlin_model::twin::document`.

use dunlin_model::limits::DEVICE_ID_BYTES_MAX;
use dunlin_model::method::METHOD_NAME_BYTES_MAX;
use serde_json::{Value, json};

use super::{anything, list_of, map_of, maybe_text, named, number, object, text, time, words};
use crate::limits::{METHOD_CONNECT_S_MAX, METHOD_RESPONSE_S, STATUS_REASON_CHARS_MAX};

pub(super) fn identities() -> Value {
    let keys = object(
        &[],
        json!({
            "primaryKey": { "type": ["string", "null"], "description": "Base64 of 16 to 64 bytes." },
            "secondaryKey": { "type": ["string", "null"] },
        }),
    );
    let thumbprints = object(
        &[],
        json!({
            "primaryThumbprint": { "type": ["string", "null"], "description": "SHA-1 or SHA-256, in hexadecimal digits." },
            "secondaryThumbprint": { "type": ["string", "null"] },
        }),
    );
    let import_mode = words(&[
        "create",
        "update",
        "updateIfMatchETag",
        "createOrUpdate",
        "delete",
        "deleteIfMatchETag",
        "updateTwin",
        "updateTwinIfMatchETag",
    ]);
    let reason = json!({ "type": ["string", "null"], "maxLength": STATUS_REASON_CHARS_MAX });
    let capabilities = object(&[], json!({ "iotEdge": { "type": "boolean" } }));
    let status = words(&["enabled", "disabled"]);
    let state = words(&["Connected", "Disconnected"]);
    let id = json!({ "type": "string", "maxLength": DEVICE_ID_BYTES_MAX });
    json!({
        "Authentication": object(&[], json!({
            "type": words(&["sas", "selfSigned", "certificateAuthority", "none"]),
            "symmetricKey": keys,
            "x509Thumbprint": thumbprints,
        })),
        "Device": object(
            &["deviceId", "generationId", "etag", "status", "connectionState", "authentication", "capabilities"],
            json!({
                "deviceId": id,
                "generationId": { "type": "string", "description": "Tells devices apart that had the same id." },
                "etag": text(),
                "connectionState": state,
                "connectionStateUpdatedTime": time(),
                "lastActivityTime": time(),
                "cloudToDeviceMessageCount": number(),
                "authentication": named("Authentication"),
                "status": status,
                "statusReason": reason,
                "statusUpdatedTime": time(),
                "capabilities": capabilities,
            }),
        ),
        "Module": object(
            &["deviceId", "moduleId", "generationId", "etag", "connectionState", "authentication"],
            json!({
                "deviceId": id,
                "moduleId": id,
                "managedBy": reason,
                "generationId": text(),
                "etag": text(),
                "connectionState": state,
                "connectionStateUpdatedTime": time(),
                "lastActivityTime": time(),
                "cloudToDeviceMessageCount": number(),
                "authentication": named("Authentication"),
            }),
        ),
        "DeviceInput": {
            "type": "object",
            "description": "Whole devices may be sent back: what cannot be set is left alone.",
            "properties": {
                "deviceId": id,
                "status": status,
                "statusReason": reason,
                "authentication": named("Authentication"),
                "capabilities": capabilities,
            },
            "additionalProperties": true,
        },
        "ModuleInput": {
            "type": "object",
            "description": "Whole modules may be sent back: what cannot be set is left alone.",
            "properties": {
                "deviceId": id,
                "moduleId": id,
                "managedBy": reason,
                "authentication": named("Authentication"),
            },
            "additionalProperties": true,
        },
        "BulkEntry": {
            "type": "object",
            "required": ["id"],
            "properties": {
                "id": id,
                "moduleId": { "type": ["string", "null"], "maxLength": DEVICE_ID_BYTES_MAX },
                "importMode": import_mode,
                "eTag": maybe_text(),
                "twinETag": maybe_text(),
                "status": status,
                "statusReason": reason,
                "managedBy": reason,
                "authentication": named("Authentication"),
                "capabilities": capabilities,
                "tags": anything(),
                "properties": object(&[], json!({ "desired": anything() })),
            },
            "additionalProperties": true,
        },
        "BulkResult": object(&["isSuccessful", "errors", "warnings"], json!({
            "isSuccessful": { "type": "boolean" },
            "errors": list_of(object(&["errorCode", "errorStatus"], json!({
                "deviceId": text(),
                "moduleId": maybe_text(),
                "errorCode": text(),
                "errorStatus": text(),
                "operation": import_mode,
            }))),
            "warnings": list_of(anything()),
        })),
        "DeviceStatistics": object(&["totalDeviceCount", "enabledDeviceCount", "disabledDeviceCount"], json!({
            "totalDeviceCount": number(), "enabledDeviceCount": number(), "disabledDeviceCount": number(),
        })),
        "ServiceStatistics": object(&["connectedDeviceCount"], json!({ "connectedDeviceCount": number() })),
    })
}

pub(super) fn twins() -> Value {
    let section = json!({
        "type": "object", "required": ["$version", "$metadata"],
        "properties": { "$version": number(), "$metadata": anything() },
        "additionalProperties": true,
    });
    json!({
        "Twin": object(&["deviceId", "etag", "version", "tags", "properties"], json!({
            "deviceId": text(),
            "moduleId": text(),
            "etag": text(),
            "deviceEtag": text(),
            "status": words(&["enabled", "disabled"]),
            "statusReason": maybe_text(),
            "statusUpdateTime": time(),
            "connectionState": words(&["Connected", "Disconnected"]),
            "lastActivityTime": time(),
            "cloudToDeviceMessageCount": number(),
            "authenticationType": words(&["sas", "selfSigned", "certificateAuthority", "none"]),
            "x509Thumbprint": object(&[], json!({
                "primaryThumbprint": maybe_text(), "secondaryThumbprint": maybe_text(),
            })),
            "modelId": text(),
            "version": number(),
            "tags": anything(),
            "properties": object(&["desired", "reported"], json!({ "desired": section, "reported": section })),
            "capabilities": object(&["iotEdge"], json!({ "iotEdge": { "type": "boolean" } })),
            "configurations": map_of(object(&["status"], json!({ "status": words(&["Applied", "Targeted"]) }))),
        })),
        "TwinInput": {
            "type": "object",
            "description": "Whole twins may be sent back: what is not a service's to write is left alone.",
            "properties": {
                "tags": { "type": ["object", "null"], "additionalProperties": true },
                "properties": object(&[], json!({
                    "desired": { "type": ["object", "null"], "additionalProperties": true },
                })),
            },
            "additionalProperties": true,
        },
        "MethodCall": object(&["methodName"], json!({
            "methodName": { "type": "string", "minLength": 1, "maxLength": METHOD_NAME_BYTES_MAX },
            "payload": { "description": "Any JSON." },
            "responseTimeoutInSeconds": {
                "type": "integer", "minimum": METHOD_RESPONSE_S.start(), "maximum": METHOD_RESPONSE_S.end(),
            },
            "connectTimeoutInSeconds": { "type": "integer", "minimum": 0, "maximum": METHOD_CONNECT_S_MAX },
        })),
        "MethodAnswer": object(&["status", "payload"], json!({
            "status": { "type": "integer", "description": "The device's own." },
            "payload": { "description": "Any JSON." },
        })),
    })
}
