//! Scheduled jobs at the doors: what a service asks and is told, what is done at devices, and who goes on when a runner is
//! lost.

use dunlin_gateway::client::{Client, Event};
use dunlin_gateway::mqtt::Version;
use dunlin_model::audit::AuditOutcome;
use dunlin_model::command::{Command, Outcome};
use dunlin_model::id::DeviceId;
use dunlin_model::job::rows::RowStatus;
use dunlin_model::job::{JOB_LEASE_MS, Job, JobId, JobSpec, JobStatus, JobStep, JobWork};
use serde_json::{Value, json};

use crate::world::{Answer, World, next, puback};

async fn call(world: &World, method: &str, path: &str, body: Value) -> Answer {
    let body = if body.is_null() {
        String::new()
    } else {
        body.to_string()
    };
    world.http(method, path, &[], &body).await
}

async fn must(world: &World, method: &str, path: &str, body: Value) -> Value {
    let answer = call(world, method, path, body).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.body);
    answer.json()
}

fn error(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.error_code())
}

fn twin_job(condition: &str, on: u64) -> Value {
    json!({
        "type": "scheduleUpdateTwin", "queryCondition": condition,
        "updateTwin": {"tags": {"seen": true}, "properties": {"desired": {"on": on}}},
    })
}

fn method_job(condition: &str) -> Value {
    json!({
        "type": "scheduleDeviceMethod", "queryCondition": condition, "maxExecutionTimeInSeconds": 600,
        "cloudToDeviceMethod": {"methodName": "reboot", "payload": {"in": 5}, "responseTimeoutInSeconds": 30},
    })
}

/// A hub with `f-0` to `f-4`, the odd ones on floor 1, and a module of `f-1`.
async fn fleet() -> World {
    let world = World::new().await;
    for number in 0..5 {
        must(&world, "PUT", &format!("/devices/f-{number}"), json!({})).await;
        let tags = json!({"tags": {"floor": number % 2}});
        must(&world, "PATCH", &format!("/twins/f-{number}"), tags).await;
    }
    must(&world, "PUT", "/devices/f-1/modules/m", json!({})).await;
    world
}

async fn ended(world: &World, id: &str) -> Job {
    world
        .cluster
        .until_job(id, |job| job.state.status.has_ended())
        .await
}

async fn rows(world: &World, condition: &str) -> Vec<Value> {
    let query = format!("SELECT * FROM devices.jobs WHERE {condition}");
    let answer = call(world, "POST", "/devices/query", json!({ "query": query })).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    assert_eq!(answer.headers["x-ms-item-type"], "DeviceJob");
    let mut rows = answer.json().as_array().unwrap().clone();
    rows.sort_by_key(|row| row["deviceId"].to_string());
    rows
}

async fn listen(client: &mut Client) {
    let id = client.subscribe("$iothub/methods/POST/#").await.unwrap();
    assert!(matches!(next(client).await, Event::Suback { id: acked, .. } if acked == id));
}

/// The call that comes next: its number.
async fn called(client: &mut Client) -> String {
    let Event::Message { topic, payload, .. } = next(client).await else {
        panic!("a call comes")
    };
    assert_eq!(payload, br#"{"in":5}"#[..]);
    let rid = topic.strip_prefix("$iothub/methods/POST/reboot/?$rid=");
    rid.unwrap().to_owned()
}

async fn answer(client: &mut Client, rid: &str, payload: &str) {
    let topic = format!("$iothub/methods/res/200/?$rid={rid}");
    let id = client.publish(&topic, payload.as_bytes()).await.unwrap();
    assert_eq!(next(client).await, puback(id));
}

#[tokio::test]
async fn a_job_changes_the_twins_that_its_condition_finds() {
    let world = fleet().await;
    // What it writes makes its own condition false.
    let condition = "tags.floor = 1 AND NOT IS_DEFINED(tags.seen)";
    let made = must(
        &world,
        "PUT",
        "/jobs/v2/j-1?api-version=2021-04-12",
        twin_job(condition, 7),
    )
    .await;
    assert_eq!(
        (&made["jobId"], &made["type"], &made["queryCondition"]),
        (&json!("j-1"), &json!("scheduleUpdateTwin"), &json!(condition))
    );
    assert_eq!(
        made["updateTwin"],
        json!({"etag": "*", "tags": {"seen": true}, "properties": {"desired": {"on": 7}}})
    );
    assert_eq!(made["maxExecutionTimeInSeconds"], 3600);
    assert!(made.get("endTime").is_none());
    ended(&world, "j-1").await;
    let job = must(&world, "GET", "/jobs/v2/j-1", Value::Null).await;
    assert_eq!(job["status"], "completed");
    assert_eq!(
        job["deviceJobStatistics"],
        json!({"deviceCount": 2, "succeededCount": 2, "failedCount": 0, "runningCount": 0, "pendingCount": 0})
    );
    assert!(job["endTime"].is_string());
    for (number, version) in [(0, 2), (1, 3), (2, 2), (3, 3)] {
        let twin = must(&world, "GET", &format!("/twins/f-{number}"), Value::Null).await;
        assert_eq!(twin["version"], version, "{twin}");
        let on = if version == 3 { json!(7) } else { Value::Null };
        assert_eq!(twin["properties"]["desired"]["on"], on);
    }
    let created = world.audit.next("job.create").await;
    assert_eq!(
        (
            created.who.as_str(),
            created.what.as_str(),
            created.detail.as_str()
        ),
        ("iothubowner", "j-1", "scheduleUpdateTwin")
    );
    let end = world.audit.next("job.end").await;
    assert_eq!((end.who.as_str(), end.outcome), ("node", AuditOutcome::Done));
    assert_eq!(end.detail, "completed: 2 devices, 2 succeeded, 0 failed");

    let rows = rows(&world, "devices.jobs.jobId = 'j-1'").await;
    let named: Vec<_> = rows
        .iter()
        .map(|row| (&row["deviceId"], &row["status"]))
        .collect();
    assert_eq!(
        named,
        [
            (&json!("f-1"), &json!("completed")),
            (&json!("f-3"), &json!("completed"))
        ]
    );
    // The same again is the same; another is not.
    let again = must(&world, "PUT", "/jobs/v2/j-1", twin_job(condition, 7)).await;
    assert_eq!(
        (&again["status"], &again["createdTime"]),
        (&json!("completed"), &job["createdTime"])
    );
    let other = call(&world, "PUT", "/jobs/v2/j-1", twin_job(condition, 8)).await;
    assert_eq!(error(&other), (409, "JobAlreadyExists"));
}

#[tokio::test]
async fn a_job_of_modules_and_one_for_nobody() {
    let world = fleet().await;
    must(
        &world,
        "PUT",
        "/jobs/v2/modules",
        twin_job("FROM devices.modules WHERE *", 1),
    )
    .await;
    must(
        &world,
        "PUT",
        "/jobs/v2/nobody",
        twin_job("deviceId = 'nobody'", 1),
    )
    .await;
    assert_eq!(ended(&world, "modules").await.state.counts.succeeded, 1);
    let job = ended(&world, "nobody").await;
    assert_eq!(
        (job.state.status, job.state.counts.devices),
        (JobStatus::Completed, 0)
    );
    let rows = rows(&world, "jobId = 'modules'").await;
    assert_eq!(
        (&rows[0]["deviceId"], &rows[0]["moduleId"]),
        (&json!("f-1"), &json!("m"))
    );
    let twin = must(&world, "GET", "/twins/f-1/modules/m", Value::Null).await;
    assert_eq!(twin["properties"]["desired"]["on"], 1);
}

#[tokio::test]
async fn a_method_job_tells_of_each_device() {
    let world = fleet().await;
    let mut client = world.connect(Version::V3).await;
    listen(&mut client).await;
    must(
        &world,
        "PUT",
        "/jobs/v2/m",
        method_job("deviceId IN ['dev-1', 'f-1']"),
    )
    .await;
    let rid = called(&mut client).await;
    answer(&mut client, &rid, r#"{"ok": true}"#).await;
    let job = ended(&world, "m").await;
    let counts = job.state.counts;
    assert_eq!((counts.devices, counts.succeeded, counts.failed), (2, 1, 1));
    let seen = rows(&world, "jobId = 'm'").await;
    assert_eq!(
        seen[0]["outcome"]["deviceMethodResponse"],
        json!({"status": 200, "payload": {"ok": true}})
    );
    assert_eq!(
        (&seen[1]["status"], &seen[1]["error"]["code"]),
        (&json!("failed"), &json!("DeviceNotOnline"))
    );

    // What is busy is not at fault.
    world
        .cluster
        .fail_methods(dunlin_model::method::MethodError::TooMany("a test".into()));
    world.cluster.hurry_methods(true);
    must(&world, "PUT", "/jobs/v2/silent", method_job("deviceId = 'dev-1'")).await;
    called(&mut client).await;
    assert_eq!(ended(&world, "silent").await.state.counts.failed, 1);
    let seen = rows(&world, "jobId = 'silent'").await;
    assert_eq!(seen[0]["error"]["code"], "GatewayTimeout");
    assert_eq!(
        rows(&world, "deviceId = 'dev-1' AND status = 'failed'")
            .await
            .len(),
        1
    );
}

#[tokio::test]
async fn a_job_waits_and_is_cancelled() {
    let world = fleet().await;
    let mut later = twin_job("*", 1);
    later["startTime"] = json!("2030-01-01T00:00:00Z");
    let made = must(&world, "PUT", "/jobs/v2/later", later).await;
    assert_eq!(
        (&made["status"], &made["startTime"]),
        (&json!("scheduled"), &json!("2030-01-01T00:00:00.000Z"))
    );
    let cancelled = must(&world, "POST", "/jobs/v2/later/cancel", Value::Null).await;
    assert_eq!(cancelled["status"], "cancelled");
    let again = call(&world, "POST", "/jobs/v2/later/cancel", Value::Null).await;
    assert_eq!(error(&again), (400, "InvalidOperation"));
    let record = world.audit.next("job.cancel").await;
    assert_eq!(
        (record.what.as_str(), record.outcome),
        ("later", AuditOutcome::Done)
    );

    // One that is under way begins nothing more, and what it has begun is counted.
    let mut client = world.connect(Version::V3).await;
    listen(&mut client).await;
    must(&world, "PUT", "/jobs/v2/now", method_job("deviceId = 'dev-1'")).await;
    let rid = called(&mut client).await;
    let cancelled = must(&world, "POST", "/jobs/v2/now/cancel", Value::Null).await;
    assert_eq!(
        (
            &cancelled["status"],
            &cancelled["deviceJobStatistics"]["pendingCount"]
        ),
        (&json!("cancelled"), &json!(1))
    );
    answer(&mut client, &rid, "1").await;
    let job = world
        .cluster
        .until_job("now", |job| job.state.counts.open() == 0)
        .await;
    assert_eq!(
        (job.state.status, job.state.counts.succeeded),
        (JobStatus::Cancelled, 1)
    );
}

#[tokio::test]
async fn jobs_are_listed_by_kind_and_status() {
    let world = fleet().await;
    for number in 0..6 {
        let mut job = twin_job("deviceId = 'f-0'", 1);
        if number % 2 == 1 {
            job["startTime"] = json!("2030-01-01T00:00:00Z");
        }
        must(&world, "PUT", &format!("/jobs/v2/j{number}"), job).await;
        if number % 2 == 0 {
            ended(&world, &format!("j{number}")).await;
        }
    }
    for (query, expected) in [
        ("", vec!["j0", "j1", "j2", "j3", "j4", "j5"]),
        ("?jobStatus=completed", vec!["j0", "j2", "j4"]),
        (
            "?jobType=scheduleUpdateTwin&jobStatus=scheduled&api-version=1",
            vec!["j1", "j3", "j5"],
        ),
        ("?jobType=scheduleDeviceMethod", vec![]),
    ] {
        let (mut seen, mut continuation) = (Vec::new(), String::new());
        loop {
            let mut headers = vec![("x-ms-max-item-count", "2")];
            if !continuation.is_empty() {
                headers.push(("x-ms-continuation", &continuation));
            }
            let path = format!("/jobs/v2/query{query}");
            let page = world.http("GET", &path, &headers, "").await;
            assert_eq!(
                (page.status, page.headers["x-ms-item-type"].as_str()),
                (200, "JobResponse")
            );
            let list = page.json();
            let list = list.as_array().unwrap();
            assert!(list.len() <= 2);
            seen.extend(list.iter().map(|job| job["jobId"].as_str().unwrap().to_owned()));
            match page.headers.get("x-ms-continuation") {
                Some(next) => continuation = next.clone(),
                None => break,
            }
        }
        seen.sort();
        assert_eq!(seen, expected, "{query}");
    }
    let headers = [("User-Agent", "python/3.11 msrest/0.7.1")];
    let page = world.http("GET", "/jobs/v2/query", &headers, "").await.json();
    assert_eq!(
        (page["type"].as_str(), page["items"].as_array().unwrap().len()),
        (Some("jobResponse"), 6)
    );
    for wrong in ["?jobStatus=sometimes", "?jobType=export"] {
        let answer = call(&world, "GET", &format!("/jobs/v2/query{wrong}"), Value::Null).await;
        assert_eq!(error(&answer), (400, "ArgumentInvalid"), "{wrong}");
    }
}

#[tokio::test]
async fn what_may_not_be_is_refused() {
    let world = World::new().await;
    for (method, path) in [("GET", "/jobs/v2/none"), ("POST", "/jobs/v2/none/cancel")] {
        assert_eq!(
            error(&call(&world, method, path, Value::Null).await),
            (404, "JobNotFound")
        );
    }
    let long = format!("/jobs/v2/{}", "x".repeat(65));
    for (path, body) in [
        ("/jobs/v2/j", json!({})),
        ("/jobs/v2/j", twin_job("tags.a =", 1)),
        ("/jobs/v2/a%20b", twin_job("*", 1)),
        (&long, twin_job("*", 1)),
    ] {
        let answer = call(&world, "PUT", path, body).await;
        assert_eq!(error(&answer), (400, "ArgumentInvalid"), "{path}");
    }
    // Whoever may not change twins by himself does not by a job.
    for (policy, put, get) in [
        ("registryRead", 401, 200),
        ("registryReadWrite", 401, 200),
        ("device", 401, 401),
        ("service", 200, 200),
    ] {
        let token = world.service_token(policy);
        let headers = [("Authorization", token.as_str())];
        let body = twin_job("deviceId = 'nobody'", 1).to_string();
        let answer = world
            .http_as("PUT", "/jobs/v2/j", &headers, body.as_bytes())
            .await;
        assert_eq!(answer.status, put, "{policy}");
        let answer = world.http_as("GET", "/jobs/v2/query", &headers, b"").await;
        assert_eq!(answer.status, get, "{policy}");
        let answer = world.http_as("POST", "/jobs/v2/j/cancel", &headers, b"").await;
        assert_eq!(answer.status == 401, put == 401, "{policy}");
    }
}

/// A runner at another gateway, which dies over the job at whatever place the test leaves it.
struct Lost<'a> {
    world: &'a World,
    job: Job,
}

const LOST: u64 = 7;

impl<'a> Lost<'a> {
    /// Makes the job and has it, before this gateway looks: nothing here waits.
    fn with(world: &'a World, id: &str, work: JobWork, page: &[DeviceId]) -> Self {
        let spec = JobSpec {
            id: JobId::parse(id).unwrap(),
            work,
            condition: "*".to_owned(),
            start_ms: 0,
            time_max_s: 3600,
        };
        let id = spec.id.clone();
        let cluster = &world.cluster;
        cluster.submit_now(Command::JobPut(Box::new(spec.clone())));
        let claimed = cluster.submit_now(Command::JobClaim {
            id: id.clone(),
            runner: LOST,
        });
        let Outcome::Job { state, .. } = claimed else {
            panic!("{claimed:?}")
        };
        let planned = cluster.submit_now(Command::JobAdvance {
            id,
            runner: LOST,
            step: Box::new(JobStep::Plan {
                number: 0,
                page: page.to_vec(),
                next: None,
            }),
        });
        assert!(matches!(planned, Outcome::Job { .. }), "{planned:?}");
        let plan = Default::default();
        Self {
            world,
            job: Job {
                spec,
                state: *state,
                plan,
            },
        }
    }

    fn does(&self, command: impl FnOnce(Box<dunlin_model::job::JobOrder>) -> Command) -> Outcome {
        self.world.cluster.submit_now(command(Box::new(self.job.order())))
    }

    /// Its lease is over with the next entry.
    fn dies(self) {
        self.world.cluster.pass_ms(JOB_LEASE_MS);
    }
}

#[tokio::test]
async fn a_runner_takes_over_where_another_was_lost() {
    let world = fleet().await;
    let page: Vec<DeviceId> = ["f-0", "f-1", "f-2"]
        .map(|id| DeviceId::parse(id).unwrap())
        .into();
    let work = JobWork::TwinUpdate {
        tags: None,
        desired: Some(r#"{"on":1}"#.into()),
    };
    let lost = Lost::with(&world, "j", work, &page);
    let changed = lost.does(|order| Command::JobTwin {
        device: page[1].clone(),
        order,
        runner: LOST,
        tags: None,
        desired: Some(r#"{"on":1}"#.into()),
    });
    assert!(matches!(
        changed,
        Outcome::JobRow {
            status: RowStatus::Completed,
            ..
        }
    ));
    lost.dies();
    let job = ended(&world, "j").await;
    let counts = job.state.counts;
    assert_eq!((counts.devices, counts.succeeded, counts.failed), (3, 3, 0));
    // One page was all there was, so the others are not the job's.
    for (number, version) in [(0, 3), (1, 3), (2, 3), (3, 2)] {
        let twin = must(&world, "GET", &format!("/twins/f-{number}"), Value::Null).await;
        assert_eq!(twin["version"], version, "{twin}");
    }
}

#[tokio::test]
async fn a_device_that_a_lost_runner_may_have_asked_is_not_asked_again() {
    let world = World::new().await;
    let mut client = world.connect(Version::V3).await;
    listen(&mut client).await;
    let device = world.device.clone();
    let work = JobWork::Method {
        name: "reboot".into(),
        payload: r#"{"in":5}"#.into(),
        response_s: 30,
        connect_s: 0,
    };
    let lost = Lost::with(&world, "m", work, std::slice::from_ref(&device));
    let begun = lost.does(|order| Command::JobMethodBegin {
        device: device.clone(),
        order,
        runner: LOST,
    });
    assert!(matches!(begun, Outcome::JobRow { is_to_ask: true, .. }));
    lost.dies();
    let job = ended(&world, "m").await;
    assert_eq!((job.state.counts.succeeded, job.state.counts.failed), (0, 1));
    let seen = rows(&world, "jobId = 'm'").await;
    assert!(
        seen[0]["error"]["description"]
            .as_str()
            .unwrap()
            .contains("unknown")
    );
    let sent = &world.gateway.metrics().methods_sent;
    assert_eq!(sent.load(std::sync::atomic::Ordering::Relaxed), 0);
}

#[tokio::test]
async fn shards_that_do_not_answer_are_waited_for() {
    let world = fleet().await;
    must(&world, "PUT", "/jobs/v2/j", twin_job("tags.floor = 0", 1)).await;
    // Whatever the runner asks first gets no answer.
    world
        .cluster
        .fail_commands(dunlin_model::port::SubmitError::Unknown);
    world.cluster.fail_queries(dunlin_model::port::QueryError::CutOff);
    let counts = ended(&world, "j").await.state.counts;
    assert_eq!((counts.devices, counts.succeeded, counts.failed), (3, 3, 0));
}

#[tokio::test]
async fn the_time_of_a_job_ends_it() {
    let world = World::new().await;
    let mut client = world.connect(Version::V3).await;
    listen(&mut client).await;
    let mut job = method_job("deviceId = 'dev-1'");
    job["maxExecutionTimeInSeconds"] = json!(1);
    must(&world, "PUT", "/jobs/v2/j", job).await;
    called(&mut client).await;
    world.cluster.pass_ms(1000);
    let job = ended(&world, "j").await;
    assert_eq!(job.state.status, JobStatus::Failed);
    assert!(job.state.reason.unwrap().contains("execution time"));
    let end = world.audit.next("job.end").await;
    assert!(matches!(end.outcome, AuditOutcome::Failed(_)), "{end:?}");
}

#[tokio::test]
async fn a_gateway_that_drains_lets_go_of_its_jobs() {
    let world = fleet().await;
    let mut job = method_job("deviceId = 'f-0'");
    // It would wait for its device for long.
    job["cloudToDeviceMethod"]["connectTimeoutInSeconds"] = json!(60);
    must(&world, "PUT", "/jobs/v2/j", job).await;
    world
        .cluster
        .until_job("j", |job| !job.plan.page.is_empty())
        .await;
    assert!(world.gateway.drain(std::time::Duration::from_secs(20)).await);
    let claimed = world.cluster.submit_now(Command::JobClaim {
        id: JobId::parse("j").unwrap(),
        runner: LOST,
    });
    assert!(matches!(claimed, Outcome::Job { .. }), "{claimed:?}");
}
