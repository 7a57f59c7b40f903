//! Scheduled jobs with the service SDK, at a cluster whose nodes die while jobs run.

use dunlin_tests::field::Field;
use dunlin_tests::{PATIENCE, eventually};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::clients::{SdkDevice, azure_field};

/// Devices of lot `a`; one more is of no lot.
const DEVICES: usize = 200;
/// Seconds that a job takes at the least whose runner was lost: it has a lease of ten, which it renews every three.
const TAKEN_OVER_S: f64 = 6.0;
/// Jobs that are made until a node was killed in the middle of one.
const ROUNDS_MAX: u64 = 8;

/// The same policy, through the node in place `place`.
fn connection(field: &Field, place: usize) -> String {
    let ready = field.cluster.ready();
    let other = &field.cluster.node(place).expect("the node was ready once").https;
    let (_, rest) = ready.connection_string.split_once(';').expect("a policy");
    format!("HostName={other};{rest}")
}

async fn service(field: &Field, place: usize) -> SdkDevice {
    let connection = connection(field, place);
    let ca_file = field.cluster.ready().ca_file.clone();
    let mut service = SdkDevice::start("azure_jobs.py", &[connection.as_ref(), ca_file.as_os_str()]);
    service.hear("ready").await;
    service
}

async fn register(field: &Field) {
    let ids: Vec<String> = (0..DEVICES).map(|number| format!("d{number}")).collect();
    for ids in ids.chunks(100) {
        let list = ids.iter().map(|id| {
            json!({"id": id, "importMode": "create", "tags": {"lot": "a"}, "authentication": {"type": "sas"}})
        });
        let body = Value::Array(list.collect());
        let (status, answer) = field.hub.call(Method::POST, "/devices", Some(body)).await;
        assert_eq!(status, StatusCode::OK, "{answer}");
    }
    field.hub.create("apart").await;
}

async fn twin(field: &Field, id: &str) -> Value {
    let (status, twin) = field.hub.call(Method::GET, &format!("/twins/{id}"), None).await;
    assert_eq!(status, StatusCode::OK, "{twin}");
    twin
}

/// What the hub counts of a job as soon as some of its devices are seen to.
async fn under_way(field: &Field, job: &str) -> Value {
    let path = format!("/jobs/v2/{job}");
    eventually("devices seen to", PATIENCE, || async {
        let (_, job) = field.hub.call(Method::GET, &path, None).await;
        let counts = &job["deviceJobStatistics"];
        counts["succeededCount"]
            .as_u64()
            .filter(|count| *count > 0)
            .map(|_| counts.clone())
    })
    .await
}

fn statistics(job: &Value) -> (u64, u64, u64) {
    let count = |name: &str| job["device_job_statistics"][name].as_u64().expect("a count");
    (
        count("device_count"),
        count("succeeded_count"),
        count("failed_count"),
    )
}

#[tokio::test]
async fn the_azure_sdk_runs_jobs_while_nodes_die() {
    let Some((_turn, mut field)) = azure_field().await else {
        return;
    };
    let ready = field.cluster.ready().clone();
    register(&field).await;
    let before = twin(&field, "d0").await["version"].as_u64().expect("a version");
    let mut first = service(&field, 0).await;

    // The gateway that a job comes to takes it on at once, and is killed when it has seen to some of the devices.
    let (mut rounds, mut was_taken_over) = (0, false);
    while !was_taken_over && rounds < ROUNDS_MAX {
        rounds += 1;
        let job = format!("twins-{rounds}");
        let mut second = service(&field, 1).await;
        second.say(&format!("twin {job} {rounds}")).await;
        let made = second.hear("made").await;
        assert_eq!(
            (&made["job_id"], &made["type"]),
            (&json!(job), &json!("scheduleUpdateTwin"))
        );
        let seen = under_way(&field, &job).await;
        field.kill(1).await;
        first.say(&format!("await {job}")).await;
        let ended = first.hear("ended").await;
        assert_eq!(ended["status"], "completed", "{ended}");
        was_taken_over = ended["took_s"]
            .as_f64()
            .is_some_and(|took_s| took_s > TAKEN_OVER_S);
        eprintln!(
            "{job}: killed at {}, took {} s",
            seen["succeededCount"], ended["took_s"]
        );
        assert_eq!(statistics(&ended), (DEVICES as u64, DEVICES as u64, 0), "{ended}");
        for number in 0..DEVICES {
            let twin = twin(&field, &format!("d{number}")).await;
            assert_eq!(twin["version"], before + rounds, "{job}: {twin}");
            assert_eq!(twin["properties"]["desired"]["firmware"], rounds);
        }
        assert_eq!(twin(&field, "apart").await["version"], 1);
        first.say(&format!("rows {job}")).await;
        let rows = first.hear("rows").await;
        assert_eq!(rows.as_array().map(Vec::len), Some(DEVICES));
        field.restart(1).await;
    }
    assert!(was_taken_over, "every job was over before its gateway was killed");

    // A method, with another node missing.
    let device = field.hub.create("sdk").await;
    field.hub.create("offline").await;
    let connection = format!("HostName=localhost;DeviceId=sdk;SharedAccessKey={}", device.key);
    let arguments = [connection.as_ref(), ready.ca_file.as_os_str()];
    let mut sdk = SdkDevice::start("azure_method.py", &arguments);
    sdk.hear("listening").await;
    field.kill(2).await;
    first.say("method asks").await;
    first.hear("made").await;
    assert_eq!(
        sdk.hear("called").await,
        json!({"name": "echo", "payload": {"in": 5}})
    );
    first.say("await asks").await;
    let ended = first.hear("ended").await;
    assert_eq!(
        (&ended["status"], statistics(&ended)),
        (&json!("completed"), (2, 1, 1))
    );
    first.say("rows asks").await;
    let outcome = json!({"deviceMethodResponse": {"status": 200, "payload": {"echo": {"in": 5}}}});
    assert_eq!(
        first.hear("rows").await,
        json!([["offline", "failed", null], ["sdk", "completed", outcome]])
    );
    field.restart(2).await;

    first.say("later tomorrow").await;
    assert_eq!(first.hear("made").await["status"], "scheduled");
    assert_eq!(first.hear("refused").await, json!([409, "JobAlreadyExists"]));
    first.say("cancel tomorrow").await;
    assert_eq!(first.hear("cancelled").await["status"], "cancelled");
    assert_eq!(first.hear("refused").await, json!([404, "JobNotFound"]));
    first.say("list").await;
    assert_eq!(first.hear("listed").await, json!(["tomorrow"]));
    first.end().await;
    sdk.end().await;
    field.stop().await;
}
