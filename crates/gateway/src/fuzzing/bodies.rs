//! Bodies of HTTP requests: what services and devices write, as JSON.

use std::collections::BTreeSet;

use dunlin_model::configuration::plan::{self, Content};
use dunlin_model::configuration::{CONFIGURATION_BYTES_MAX, Configuration, ConfigurationSpec};
use dunlin_model::id::DeviceId;
use dunlin_model::job::{JOB_SPEC_BYTES_MAX, JOB_TIME_S_MAX, JobId};
use dunlin_model::method::{METHOD_NAME_BYTES_MAX, METHOD_PAYLOAD_BYTES_MAX};
use dunlin_model::query_language::{Condition, Statement};
use dunlin_model::routing::Routing;
use dunlin_model::routing::routes::Routes;
use dunlin_model::twin::{Object, TEXT_BYTES_MAX};
use serde_json::{Value, json};

use crate::bag;
use crate::http::configurations::{self, complete, read_object};
use crate::http::twins::Wanted;
use crate::http::{bulk, enrollments, files, jobs, methods, queries, quota, routing, telemetry};

/// The first byte says which.
pub fn http_bodies(data: &[u8]) {
    is_read(data);
}

fn is_read(data: &[u8]) -> bool {
    let Some((kind, body)) = data.split_first() else {
        return false;
    };
    match kind % 12 {
        0 => twin(body),
        1 => method(body),
        2 => job(body),
        3 => configuration(body),
        4 => query(body),
        5 => many_identities(body),
        6 => routes(body),
        7 => plan_of_hub(body),
        8 => read_object::<routing::TrialInput>(body).is_ok(),
        9 => serde_json::from_slice::<enrollments::Bulk>(body).is_ok(),
        10 => messages(body),
        _ => {
            let begins = serde_json::from_slice::<files::BeginInput>(body).is_ok();
            begins || serde_json::from_slice::<files::EndInput>(body).is_ok()
        }
    }
}

/// What becomes part of a twin is an object, and within its bounds.
fn twin(body: &[u8]) -> bool {
    let input = serde_json::from_slice::<Value>(body).unwrap_or_default();
    let Ok(wanted) = Wanted::read(&input) else {
        return false;
    };
    for text in wanted.tags.iter().chain(&wanted.desired) {
        assert!(text.len() <= TEXT_BYTES_MAX && serde_json::from_str::<Object>(text).is_ok());
    }
    true
}

fn method(body: &[u8]) -> bool {
    let Ok(call) = methods::read(body) else {
        return false;
    };
    assert!((1..=METHOD_NAME_BYTES_MAX).contains(&call.name.len()));
    assert!(call.payload.len() <= METHOD_PAYLOAD_BYTES_MAX);
    true
}

/// What a job was let in with is what its runner can read.
fn job(body: &[u8]) -> bool {
    let id = JobId::parse("job-1").expect("a job id");
    let Ok(spec) = jobs::read(id, body) else {
        return false;
    };
    assert!(spec.bytes() <= JOB_SPEC_BYTES_MAX && (1..=JOB_TIME_S_MAX).contains(&spec.time_max_s));
    assert!(Condition::parse(&spec.condition).is_ok());
    true
}

/// What a configuration says is what twins are given, and it stays as it is where nothing is said of it.
fn configuration(body: &[u8]) -> bool {
    let input = read_object::<configurations::Input>(body);
    let Ok(spec) = input.and_then(|input| complete(input, None)) else {
        return false;
    };
    assert!(spec.bytes() <= CONFIGURATION_BYTES_MAX);
    let content = Content::read(&spec.content).expect("the door has read it");
    let kept = Configuration {
        id: "c".to_owned(),
        spec,
        version: 1,
        created_ms: 0,
        updated_ms: 0,
    };
    let plan = plan::plan([&kept]);
    assert_eq!((plan.own, plan.modules), (content.own, content.modules));
    assert!(plan.marks["c"].is_applied, "nobody else says anything");
    let again = complete(configurations::Input::default(), Some(&kept));
    let again = again.expect("what is kept stays good");
    // Of the schema alone nothing is kept.
    let schema_version = again.schema_version.clone();
    let same = ConfigurationSpec {
        schema_version,
        ..kept.spec
    };
    assert_eq!(again, same);
    true
}

fn query(body: &[u8]) -> bool {
    let Ok(asked) = queries::read(body) else {
        return false;
    };
    // The shards read the text.
    assert_eq!(Statement::parse(&asked.text).as_ref(), Ok(&asked.statement));
    true
}

fn many_identities(body: &[u8]) -> bool {
    let Ok(entries) = bulk::read(body) else {
        return false;
    };
    let named: BTreeSet<&DeviceId> = entries.iter().map(|(identity, _)| identity).collect();
    assert_eq!(named.len(), entries.len(), "each is named once");
    true
}

/// What is checked can be followed.
fn routes(body: &[u8]) -> bool {
    let input = read_object::<routing::Input>(body);
    let Ok(wanted) = input.and_then(|input| input.read(&Routing::default())) else {
        return false;
    };
    let checked = wanted.check();
    assert_eq!(Routes::read(&wanted).map(|_| ()), checked);
    checked.is_ok()
}

fn plan_of_hub(body: &[u8]) -> bool {
    let input = read_object::<quota::Input>(body);
    let Ok(plan) = input.and_then(quota::Input::read) else {
        return false;
    };
    assert!(plan.is_none_or(|plan| plan.check().is_ok()));
    true
}

/// Each of several messages has a bag that a message may have.
fn messages(body: &[u8]) -> bool {
    let Ok(read) = telemetry::read_batch(body) else {
        return false;
    };
    assert!((1..=telemetry::BATCH_MESSAGES_MAX).contains(&read.len()));
    assert!(read.iter().all(|(bag, _)| bag::check(bag) == Ok(())));
    true
}

/// Seeds of [`http_bodies`].
pub fn http_bodies_seeds() -> Vec<Vec<u8>> {
    let made = |tag: u8, body: Value| [&[tag], body.to_string().as_bytes()].concat();
    let twin = json!({
        "etag": "*", "tags": { "a": 1, "b": null },
        "properties": { "desired": { "n": { "m": [true, "x", 2.5] }, "$version": 3 } },
    });
    let method = json!({
        "methodName": "pump*start", "payload": { "a": [1] }, "responseTimeoutInSeconds": 5,
        "connectTimeoutInSeconds": 300,
    });
    let identities = json!([
        { "id": "a", "importMode": "create", "status": "enabled" },
        { "id": "a", "moduleId": "m", "importMode": "updateIfMatchETag", "eTag": "\"MQ==\"" },
        { "id": "b", "importMode": "updateTwinIfMatchETag", "twinETag": "AAAAAAAAAAE=", "tags": { "x": 1 } },
    ]);
    let wanted = json!({
        "routes": [{
            "name": "r", "source": "DeviceMessages", "condition": "level = 'high' AND $body.t > 3",
            "endpointNames": ["w"], "isEnabled": true,
        }],
        "fallbackRoute": { "isEnabled": false },
        "endpoints": {
            "webhooks": [{ "name": "w", "url": "https://w.example/x", "authorization": "Bearer x" }],
            "storageContainers": [{ "name": "s", "containerName": "cold" }],
        },
        "enrichments": [{ "key": "floor", "value": "$twin.tags.floor", "endpointNames": ["w", "s"] }],
    });
    let configuration = json!({
        "id": "c", "labels": { "a": "b" }, "priority": 3, "targetCondition": "tags.a = 1",
        "content": {
            "deviceContent": { "properties.desired.a.b": 1 },
            "modulesContent": { "$edgeAgent": { "properties.desired": { "m": {} } } },
        },
        "metrics": { "queries": { "n": "SELECT deviceId FROM devices WHERE tags.a = 1" } },
    });
    vec![
        made(0, twin.clone()),
        made(1, method.clone()),
        made(
            2,
            json!({
                "jobId": "job-1", "type": "scheduleUpdateTwin", "queryCondition": "tags.a = 1", "updateTwin": twin,
                "startTime": "2030-01-01T00:00:00Z", "maxExecutionTimeInSeconds": 60,
            }),
        ),
        made(
            2,
            json!({
                "type": "scheduleDeviceMethod", "queryCondition": "*", "cloudToDeviceMethod": method,
            }),
        ),
        made(3, configuration),
        made(
            3,
            json!({
                "content": { "moduleContent": { "properties.desired": { "a": null } } },
                "targetCondition": "FROM devices.modules WHERE moduleId = 'm'",
            }),
        ),
        made(
            4,
            json!({ "query": "SELECT TOP 5 deviceId FROM devices WHERE tags.a >= 1" }),
        ),
        made(5, identities),
        made(6, wanted),
        made(7, json!({ "sku": { "name": "S1", "capacity": 2 } })),
        made(7, json!({ "sku": null })),
        made(
            8,
            json!({
                "source": "DeviceMessages", "condition": "a = '1'", "deviceId": "dev-1",
                "message": { "body": { "t": 1 }, "appProperties": { "a": "1" }, "systemProperties": {} },
            }),
        ),
        made(
            9,
            json!({ "mode": "updateIfMatchETag", "enrollments": [{ "registrationId": "sn-1" }] }),
        ),
        made(
            10,
            json!([
                { "body": "b25l", "properties": { "iothub-app-Room": "a b", "iothub-messageid": "m-1", "other": "x" } },
                { "body": "two", "base64Encoded": false },
            ]),
        ),
        made(11, json!({ "blobName": "a folder/x.txt" })),
        made(
            11,
            json!({ "correlationId": "1", "isSuccess": true, "statusCode": 200 }),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_read() {
        for seed in http_bodies_seeds() {
            assert!(is_read(&seed), "{:?}", String::from_utf8_lossy(&seed));
        }
    }
}
