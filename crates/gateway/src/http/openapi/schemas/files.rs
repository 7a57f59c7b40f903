//! Bodies about files of devices. What stands in them is decided in [`crate::http::files`] and [`crate::feedback`].

use serde_json::{Value, json};

use super::{number, object, text, time};

pub(super) fn files() -> Value {
    json!({
        "UploadInput": object(&["blobName"], json!({ "blobName": text() })),
        "Upload": object(&["correlationId", "hostName", "containerName", "blobName", "sasToken"], json!({
            "correlationId": text(),
            "hostName": text(),
            "containerName": text(),
            "blobName": text(),
            "sasToken": text(),
        })),
        "UploadEndInput": object(&["isSuccess"], json!({
            "correlationId": text(),
            "isSuccess": { "type": "boolean" },
            "statusCode": { "type": ["integer", "null"] },
            "statusDescription": { "type": ["string", "null"] },
        })),
        "FileNotification": object(&["deviceId", "blobUri", "blobName", "blobSizeInBytes"], json!({
            "deviceId": text(),
            "blobUri": text(),
            "blobName": text(),
            "lastUpdatedTime": time(),
            "blobSizeInBytes": number(),
            "enqueuedTimeUtc": time(),
        })),
    })
}
