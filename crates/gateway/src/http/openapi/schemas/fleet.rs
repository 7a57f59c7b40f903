//! Bodies about many devices at once: queries, configurations and jobs.
//!
//! What stands in them is decided in [`crate::http::configurations`] and [`crate::http::jobs`].

use dunlin_model::configuration::{CONDITION_BYTES_MAX, LABELS_MAX, METRICS_MAX};
use dunlin_model::job::{JOB_CONDITION_BYTES_MAX, JOB_TIME_S_MAX};
use dunlin_model::query_language::QUERY_BYTES_MAX;
use serde_json::{Value, json};

use super::{map_of, named, number, object, text, time, words};

pub(super) fn queries() -> Value {
    json!({
        "Query": object(&["query"], json!({
            "query": { "type": "string", "maxLength": QUERY_BYTES_MAX },
        })),
        "Row": {
            "type": "object", "additionalProperties": true,
            "description": "A twin for `SELECT *`; otherwise the columns that are there.",
        },
    })
}

pub(super) fn configurations() -> Value {
    let condition = json!({ "type": "string", "maxLength": CONDITION_BYTES_MAX });
    let queries = map_of(condition.clone());
    let metrics = object(
        &["results", "queries"],
        json!({ "results": map_of(number()), "queries": queries }),
    );
    json!({
        "ConfigurationContent": object(&[], json!({
            "deviceContent": {
                "type": ["object", "null"], "additionalProperties": true,
                "description": "By path: `properties.desired`, or below it.",
            },
            "moduleContent": {
                "type": ["object", "null"], "additionalProperties": true,
                "description": "The same for modules that a condition `FROM devices.modules WHERE` finds.",
            },
            "modulesContent": {
                "type": ["object", "null"], "additionalProperties": true,
                "description": "The same by the names of a device's modules.",
            },
        })),
        "Configuration": object(
            &["id", "schemaVersion", "labels", "content", "targetCondition", "priority", "systemMetrics", "metrics", "etag"],
            json!({
                "id": text(),
                "schemaVersion": text(),
                "labels": map_of(text()),
                "content": named("ConfigurationContent"),
                "targetCondition": condition,
                "createdTimeUtc": time(),
                "lastUpdatedTimeUtc": time(),
                "priority": number(),
                "systemMetrics": metrics,
                "metrics": metrics,
                "etag": text(),
            }),
        ),
        "ConfigurationInput": {
            "type": "object",
            "description": "Whole configurations may be sent back: what cannot be set is left alone.",
            "properties": {
                "id": text(),
                "schemaVersion": text(),
                "labels": { "type": "object", "additionalProperties": text(), "maxProperties": LABELS_MAX },
                "content": named("ConfigurationContent"),
                "targetCondition": condition,
                "priority": number(),
                "metrics": object(&[], json!({
                    "queries": { "type": "object", "additionalProperties": condition, "maxProperties": METRICS_MAX },
                })),
            },
            "additionalProperties": true,
        },
        "QueriesTrial": object(&[], json!({ "targetCondition": text(), "customMetricQueries": map_of(text()) })),
        "QueriesTrialResult": object(&["targetConditionError", "customMetricQueryErrors"], json!({
            "targetConditionError": { "type": "string", "description": "Empty where nothing is wrong." },
            "customMetricQueryErrors": map_of(text()),
        })),
    })
}

pub(super) fn jobs() -> Value {
    let kind = words(&["scheduleUpdateTwin", "scheduleDeviceMethod"]);
    json!({
        "JobInput": {
            "type": "object",
            "required": ["type", "queryCondition"],
            "properties": {
                "jobId": text(),
                "type": kind,
                "queryCondition": {
                    "type": "string", "minLength": 1, "maxLength": JOB_CONDITION_BYTES_MAX,
                    "description": "`*` for all devices.",
                },
                "updateTwin": named("TwinInput"),
                "cloudToDeviceMethod": named("MethodCall"),
                "startTime": { "type": "string", "description": "ISO 8601; at once unless it is said." },
                "maxExecutionTimeInSeconds": { "type": "integer", "minimum": 0, "maximum": JOB_TIME_S_MAX },
            },
            "additionalProperties": true,
        },
        "Job": object(
            &["jobId", "type", "queryCondition", "createdTime", "startTime", "status", "deviceJobStatistics"],
            json!({
                "jobId": text(),
                "type": kind,
                "queryCondition": text(),
                "createdTime": time(),
                "startTime": time(),
                "endTime": time(),
                "maxExecutionTimeInSeconds": number(),
                "status": words(&["scheduled", "queued", "running", "completed", "failed", "cancelled"]),
                "failureReason": text(),
                "updateTwin": named("TwinInput"),
                "cloudToDeviceMethod": named("MethodCall"),
                "deviceJobStatistics": object(
                    &["deviceCount", "succeededCount", "failedCount", "runningCount", "pendingCount"],
                    json!({
                        "deviceCount": number(),
                        "succeededCount": number(),
                        "failedCount": number(),
                        "runningCount": number(),
                        "pendingCount": number(),
                    }),
                ),
            }),
        ),
    })
}
