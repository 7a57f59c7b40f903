//! Bodies about messages: those to devices with what became of them, and those of devices as readers get them.
//!
//! What stands in them is decided in [`crate::http::messages`], [`crate::feedback`] and [`crate::http::events`].

use serde_json::{Value, json};

use super::{list_of, map_of, maybe_text, named, number, object, text, time, words};

pub(super) fn messages() -> Value {
    json!({
        "MessageQueued": object(&["messageId", "sequenceNumber"], json!({
            "messageId": text(), "sequenceNumber": number(),
        })),
        "DeadLetterQueued": object(&["sequenceNumber"], json!({ "sequenceNumber": number() })),
        "MessagesPurged": object(&["totalMessagesPurged", "deviceId"], json!({
            "totalMessagesPurged": number(), "deviceId": text(), "moduleId": maybe_text(),
        })),
        "DeadLetter": object(&["sequenceNumber", "messageId", "reason"], json!({
            "sequenceNumber": number(),
            "messageId": text(),
            "reason": words(&["Expired", "DeliveryCountExceeded", "Rejected"]),
            "deadLetteredTimeUtc": time(),
            "enqueuedTimeUtc": time(),
            "deliveryCount": number(),
            "ack": words(&["none", "positive", "negative", "full"]),
            "sizeInBytes": number(),
        })),
        "Feedback": object(&["originalMessageId", "statusCode", "deviceId"], json!({
            "originalMessageId": text(),
            "enqueuedTimeUtc": time(),
            "statusCode": words(&["Success", "Expired", "DeliveryCountExceeded", "Rejected", "Purged"]),
            "description": text(),
            "deviceId": text(),
            "deviceGenerationId": text(),
        })),
    })
}

pub(super) fn events() -> Value {
    json!({
        "Event": object(&["shard", "offset", "term", "enqueuedTimeMs", "deviceId", "properties", "systemProperties", "body"], json!({
            "shard": number(),
            "offset": number(),
            "term": number(),
            "enqueuedTimeMs": number(),
            "enqueuedTimeUtc": time(),
            "deviceId": text(),
            "moduleId": text(),
            "properties": map_of(maybe_text()),
            "systemProperties": map_of(maybe_text()),
            "body": { "type": "string", "contentEncoding": "base64" },
            "json": { "description": "The body, where it is JSON." },
            "bodyText": { "type": "string", "description": "The body, where it is other text." },
        })),
        "EventPage": object(&["shard", "logEpoch", "events", "next", "first", "end"], json!({
            "shard": number(),
            "logEpoch": number(),
            "events": list_of(named("Event")),
            "next": { "type": "integer", "description": "Where to go on." },
            "first": { "type": "integer", "description": "Offset of the oldest event." },
            "end": { "type": "integer", "description": "Offset behind the youngest event." },
        })),
        "Shards": object(&["clusterId", "logEpoch", "shards"], json!({
            "clusterId": { "description": "Id of the cluster." },
            "logEpoch": number(),
            "shards": list_of(object(&["shard", "first", "end"], json!({
                "shard": number(),
                "logEpoch": number(),
                "first": number(),
                "end": number(),
                "term": number(),
                "appliedIndex": number(),
                "deviceCount": number(),
                "connectedCount": number(),
            }))),
        })),
    })
}
