//! Scheduled jobs for services: IoT Hub's `/jobs/v2`. A request becomes a command, and a job JSON.
//!
//! What may happen to a job is decided by its shard; who runs it, in [`crate::jobs`]. A job does what services do by
//! themselves with twins and methods, so it takes the same right; looking at jobs takes that of queries as well.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes as Body;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Query as UrlQuery, State};
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use dunlin_model::audit::AuditRecord;
use dunlin_model::command::{Command, Consistency, Outcome, Query, Refusal, Settled, View, WriteReceipt};
use dunlin_model::directory::Right;
use dunlin_model::id::ShardId;
use dunlin_model::iso_time::iso_utc;
use dunlin_model::job::state::{JobPlan, JobState};
use dunlin_model::job::{
    JOB_CONDITION_BYTES_MAX, JOB_SPEC_BYTES_MAX, JOB_TIME_S_DEFAULT, JOB_TIME_S_MAX, Job, JobId, JobKind,
    JobSpec, JobStatus, JobWork,
};
use dunlin_model::limits::JOB_LIST_MAX;
use dunlin_model::query_language::{Condition, Source};
use dunlin_model::quota::Operation;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::audited::audited;
use super::authorize;
use super::devices::{CONTINUATION, parse_continuation, put_continuation};
use super::error::ApiError;
use super::methods::{self, MethodInput};
use super::named::Named;
use super::queries::{ITEM_TYPE, page_size};
use super::receipts::receipted;
use super::time::parse_iso;
use super::twins::Wanted;
use crate::limits::QUERY_PAGE_WAIT;
use crate::quota::Cost;
use crate::shared::Shared;

/// How clients of .NET begin a time that they have not set.
const UNSET_DAY: &str = "0001-01-01";

/// What a service sends.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Input {
    job_id: Option<String>,
    #[serde(rename = "type")]
    kind: Option<String>,
    cloud_to_device_method: Option<MethodInput>,
    update_twin: Option<Value>,
    query_condition: Option<String>,
    start_time: Option<String>,
    max_execution_time_in_seconds: Option<u64>,
}

/// Which jobs a listing has.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ListQuery {
    job_type: Option<String>,
    job_status: Option<String>,
}

/// `PUT /jobs/v2/{id}`.
pub(crate) async fn put(
    State(shared): State<Arc<Shared>>,
    named: Named,
    headers: HeaderMap,
    body: Result<Body, BytesRejection>,
) -> Result<Response, ApiError> {
    let path = ["jobs", "v2", named.device()];
    let caller = authorize::service(&shared, &headers, Right::ServiceConnect, &path)?;
    let id = parse_id(&named)?;
    shared.charge(Cost::of(Operation::Job)).await?;
    let spec = read(id, &body.map_err(|_| ApiError::too_large())?)?;
    let mut record = AuditRecord::done("job.create", caller.0, spec.id.as_str());
    record.detail = spec.work.kind().word().to_owned();
    let answer = match submit(&shared, &spec.id, Command::JobPut(Box::new(spec.clone()))).await {
        Ok((state, receipt)) => {
            shared.scheduled.notify_one();
            Ok(receipted(respond(&shared, spec, state), receipt))
        }
        Err(error) => Err(error),
    };
    audited(record, answer)
}

/// `GET /jobs/v2/{id}`.
pub(crate) async fn get(
    State(shared): State<Arc<Shared>>,
    named: Named,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    authorize::reader(&shared, &headers, &["jobs", "v2", named.device()])?;
    shared.charge(Cost::of(Operation::Job)).await?;
    let job = find(&shared, &parse_id(&named)?).await?;
    Ok(respond(&shared, job.spec, job.state))
}

/// `POST /jobs/v2/{id}/cancel`.
pub(crate) async fn cancel(
    State(shared): State<Arc<Shared>>,
    named: Named,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let path = ["jobs", "v2", named.device(), "cancel"];
    let caller = authorize::service(&shared, &headers, Right::ServiceConnect, &path)?;
    let id = parse_id(&named)?;
    shared.charge(Cost::of(Operation::Job)).await?;
    let record = AuditRecord::done("job.cancel", caller.0, id.as_str());
    // What was asked of it never changes, so it may be read before.
    let answer = async {
        let job = find(&shared, &id).await?;
        let (state, receipt) = submit(&shared, &id, Command::JobCancel(id.clone())).await?;
        Ok(receipted(respond(&shared, job.spec, state), receipt))
    };
    let answer = answer.await;
    audited(record, answer)
}

/// `GET /jobs/v2/query?jobType=&jobStatus=`: one page over all shards, in their order.
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    UrlQuery(query): UrlQuery<ListQuery>,
) -> Result<Response, ApiError> {
    authorize::reader(&shared, &headers, &["jobs", "v2", "query"])?;
    shared.charge(Cost::of(Operation::Job)).await?;
    let kind = wanted(query.job_type.as_deref(), JobKind::parse)
        .ok_or_else(|| ApiError::invalid("jobType is scheduleUpdateTwin or scheduleDeviceMethod"))?;
    let status = wanted(query.job_status.as_deref(), JobStatus::parse).ok_or_else(|| {
        ApiError::invalid("jobStatus is scheduled, queued, running, completed, failed or cancelled")
    })?;
    let count_max = page_size(&headers)?.min(JOB_LIST_MAX);
    let (mut shard, mut after) = match headers.get(CONTINUATION) {
        None => (0, Bytes::new()),
        Some(value) => {
            parse_continuation(value).ok_or_else(|| ApiError::invalid("the continuation cannot be read"))?
        }
    };
    let (now_ms, deadline) = (shared.now_ms(), Instant::now() + QUERY_PAGE_WAIT);
    let shard_count = shared.client.directory().shard_count;
    let mut rows: Vec<Value> = Vec::new();
    while shard < shard_count && rows.len() < count_max && Instant::now() < deadline {
        let query = Query::Jobs {
            shard: ShardId(shard),
            after,
            count_max: count_max - rows.len(),
        };
        let View::Jobs { found, next } = shared.client.query(query, Consistency::Linearizable).await? else {
            return Err(ApiError::internal("an answer of another kind"));
        };
        let fits = |job: &&Job| {
            kind.is_none_or(|kind| kind == job.spec.work.kind())
                && status.is_none_or(|status| status == job.state.status_at(now_ms))
        };
        rows.extend(found.iter().filter(fits).map(|job| shown(job, now_ms)));
        (shard, after) = match next {
            Some(next) => (shard, next),
            None => (shard + 1, Bytes::new()),
        };
    }
    let next = (shard < shard_count).then_some((shard, after));
    Ok(listed(&headers, rows, next))
}

/// A parameter that is there and not empty must mean something.
fn wanted<T>(text: Option<&str>, parse: impl Fn(&str) -> Option<T>) -> Option<Option<T>> {
    match text.filter(|text| !text.is_empty()) {
        None => Some(None),
        Some(text) => parse(text).map(Some),
    }
}

/// A list, as IoT Hub and most SDKs have it. The one that msrest makes for Python takes an object with the list in it, and
/// nothing else.
fn listed(headers: &HeaderMap, rows: Vec<Value>, next: Option<(u32, Bytes)>) -> Response {
    let agent = headers
        .get(header::USER_AGENT)
        .and_then(|agent| agent.to_str().ok());
    let takes_object =
        agent.is_some_and(|agent| agent.contains("msrest/") && !agent.contains("CliExtension"));
    let mut continuation = HeaderMap::new();
    if let Some((shard, after)) = next {
        put_continuation(&mut continuation, shard, &after);
    }
    let body = if takes_object {
        let token = continuation
            .get(CONTINUATION)
            .and_then(|token| token.to_str().ok());
        json!({ "type": "jobResponse", "items": rows, "continuationToken": token })
    } else {
        Value::Array(rows)
    };
    let mut response = Json(body).into_response();
    response
        .headers_mut()
        .insert(ITEM_TYPE, HeaderValue::from_static("JobResponse"));
    response.headers_mut().extend(continuation);
    response
}

fn parse_id(named: &Named) -> Result<JobId, ApiError> {
    JobId::parse(named.device()).map_err(|error| ApiError::invalid(error.to_string()))
}

async fn find(shared: &Shared, id: &JobId) -> Result<Job, ApiError> {
    let query = Query::Job(id.clone());
    match shared.client.query(query, Consistency::Linearizable).await? {
        View::Job(job) => job.map(|job| *job).ok_or_else(|| ApiError::no_job(id)),
        _ => Err(ApiError::internal("an answer of another kind")),
    }
}

async fn submit(shared: &Shared, id: &JobId, command: Command) -> Result<(JobState, WriteReceipt), ApiError> {
    let Settled { outcome, receipt } = shared.client.submit_for_receipt(command).await?;
    match outcome {
        Outcome::Job { state, .. } => Ok((*state, receipt)),
        Outcome::Refused(Refusal::AlreadyExists) => Err(ApiError::job_exists(id)),
        Outcome::Refused(Refusal::UnknownJob) => Err(ApiError::no_job(id)),
        Outcome::Refused(Refusal::JobEnded) => Err(ApiError::job_ended(id)),
        Outcome::Refused(Refusal::LimitReached) => Err(ApiError::too_many_jobs()),
        _ => Err(ApiError::internal("an outcome of another kind")),
    }
}

/// Reads the body of a request that makes the job `id`.
pub(crate) fn read(id: JobId, body: &[u8]) -> Result<JobSpec, ApiError> {
    let input: Input = serde_json::from_slice(body)
        .map_err(|error| ApiError::invalid(format!("the body is no job: {error}")))?;
    if input.job_id.is_some_and(|named| named != id.as_str()) {
        return Err(ApiError::invalid("jobId is not that of the path"));
    }
    let kind = input.kind.as_deref().and_then(JobKind::parse);
    let kind = kind.ok_or_else(|| ApiError::invalid("type is scheduleUpdateTwin or scheduleDeviceMethod"))?;
    let work = match (kind, input.update_twin, input.cloud_to_device_method) {
        (JobKind::TwinUpdate, Some(twin), None) => {
            let wanted = Wanted::read(&twin)?;
            if wanted.tags.is_none() && wanted.desired.is_none() {
                return Err(ApiError::invalid(
                    "updateTwin has neither tags nor properties.desired",
                ));
            }
            JobWork::TwinUpdate {
                tags: wanted.tags,
                desired: wanted.desired,
            }
        }
        (JobKind::Method, None, Some(method)) => {
            let call = methods::check(method)?;
            JobWork::Method {
                name: call.name,
                payload: call.payload,
                response_s: call.response_wait.as_secs(),
                connect_s: call.connect_wait.as_secs(),
            }
        }
        (JobKind::TwinUpdate, ..) => {
            return Err(ApiError::invalid(
                "a scheduleUpdateTwin job has updateTwin and no cloudToDeviceMethod",
            ));
        }
        (JobKind::Method, ..) => {
            return Err(ApiError::invalid(
                "a scheduleDeviceMethod job has cloudToDeviceMethod and no updateTwin",
            ));
        }
    };
    let condition = input.query_condition.unwrap_or_default();
    if condition.trim().is_empty() {
        return Err(ApiError::invalid(
            "queryCondition is missing; * means all devices",
        ));
    }
    if condition.len() > JOB_CONDITION_BYTES_MAX {
        return Err(ApiError::invalid(format!(
            "queryCondition has more than {JOB_CONDITION_BYTES_MAX} bytes"
        )));
    }
    let parsed = Condition::parse(&condition)
        .map_err(|error| ApiError::invalid(format!("queryCondition: {error}")))?;
    if parsed.source() == Source::Jobs {
        return Err(ApiError::invalid(
            "queryCondition is of devices or devices.modules",
        ));
    }
    let start_ms = match input.start_time.as_deref() {
        None | Some("") => 0,
        Some(text) if text.starts_with(UNSET_DAY) => 0,
        Some(text) => parse_iso(text).ok_or_else(|| ApiError::invalid("startTime is no time in ISO 8601"))?,
    };
    let time_max_s = match input.max_execution_time_in_seconds {
        None | Some(0) => JOB_TIME_S_DEFAULT,
        Some(seconds) if seconds <= JOB_TIME_S_MAX => seconds,
        Some(_) => {
            return Err(ApiError::invalid(format!(
                "maxExecutionTimeInSeconds is not 1 to {JOB_TIME_S_MAX}"
            )));
        }
    };
    let spec = JobSpec {
        id,
        work,
        condition,
        start_ms,
        time_max_s,
    };
    match spec.bytes() <= JOB_SPEC_BYTES_MAX {
        true => Ok(spec),
        false => Err(ApiError::too_large()),
    }
}

fn respond(shared: &Shared, spec: JobSpec, state: JobState) -> Response {
    let plan = JobPlan::default();
    Json(shown(&Job { spec, state, plan }, shared.now_ms())).into_response()
}

/// A job in the words of IoT Hub.
fn shown(job: &Job, now_ms: u64) -> Value {
    let Job { spec, state, .. } = job;
    let status = state.status_at(now_ms);
    let open = state.counts.open();
    // Once it has ended nobody is at work any more, and what was not done will not be.
    let (running, pending) = if status == JobStatus::Running {
        (open, 0)
    } else {
        (0, open)
    };
    let mut body = json!({
        "jobId": spec.id,
        "type": spec.work.kind().word(),
        "queryCondition": spec.condition,
        "createdTime": iso_utc(state.created_ms),
        "startTime": iso_utc(state.start_ms),
        "maxExecutionTimeInSeconds": spec.time_max_s,
        "status": status.word(),
        "deviceJobStatistics": {
            "deviceCount": state.counts.devices,
            "succeededCount": state.counts.succeeded,
            "failedCount": state.counts.failed,
            "runningCount": running,
            "pendingCount": pending,
        },
    });
    if status.has_ended() {
        body["endTime"] = iso_utc(state.ended_ms).into();
    }
    if let Some(reason) = &state.reason {
        body["failureReason"] = reason.as_str().into();
    }
    // They were JSON when they came in.
    let value = |text: &str| serde_json::from_str::<Value>(text).unwrap_or_default();
    match &spec.work {
        JobWork::TwinUpdate { tags, desired } => {
            let mut twin = json!({ "etag": "*" });
            if let Some(tags) = tags {
                twin["tags"] = value(tags);
            }
            if let Some(desired) = desired {
                twin["properties"] = json!({ "desired": value(desired) });
            }
            body["updateTwin"] = twin;
        }
        JobWork::Method {
            name,
            payload,
            response_s,
            connect_s,
        } => {
            body["cloudToDeviceMethod"] = json!({
                "methodName": name,
                "payload": value(payload),
                "responseTimeoutInSeconds": response_s,
                "connectTimeoutInSeconds": connect_s,
            });
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(body: &Value) -> Result<JobSpec, ApiError> {
        read(JobId::parse("j").expect("a job id"), body.to_string().as_bytes())
    }

    #[test]
    fn jobs_are_read_as_sdks_send_them() {
        let twin = json!({
            "jobId": "j", "type": "scheduleUpdateTwin", "queryCondition": "tags.a = 1", "cloudToDeviceMethod": null,
            "updateTwin": {"etag": "*", "tags": {"b": 2}, "properties": {"desired": {"x": null}}},
            "startTime": "2030-01-01T00:00:00.000000Z", "maxExecutionTimeInSeconds": 60,
        });
        let read = spec(&twin).expect("a job");
        let work = JobWork::TwinUpdate {
            tags: Some(r#"{"b":2}"#.into()),
            desired: Some(r#"{"x":null}"#.into()),
        };
        assert_eq!(
            (read.work, read.start_ms, read.time_max_s),
            (work, 1_893_456_000_000, 60)
        );
        let method = json!({
            "type": "ScheduleDeviceMethod", "queryCondition": "*", "cloudToDeviceMethod": {"methodName": "m"},
            "startTime": "0001-01-01T00:00:00",
        });
        let read = spec(&method).expect("a job");
        let work = JobWork::Method {
            name: "m".into(),
            payload: "null".into(),
            response_s: 30,
            connect_s: 0,
        };
        assert_eq!(
            (read.work, read.start_ms, read.time_max_s),
            (work, 0, JOB_TIME_S_DEFAULT)
        );
    }

    #[test]
    fn what_is_no_job_is_refused() {
        let job = json!({"type": "scheduleUpdateTwin", "queryCondition": "*", "updateTwin": {"tags": {}}});
        assert!(spec(&job).is_ok());
        for (name, value) in [
            ("jobId", json!("k")),
            ("type", json!("export")),
            ("type", json!("scheduleDeviceMethod")),
            ("type", Value::Null),
            ("queryCondition", json!("tags.a =")),
            ("queryCondition", json!(" ")),
            ("queryCondition", json!("FROM devices.jobs WHERE *")),
            (
                "queryCondition",
                json!(format!("tags.a = '{}'", "x".repeat(JOB_CONDITION_BYTES_MAX))),
            ),
            ("updateTwin", Value::Null),
            ("updateTwin", json!({})),
            ("updateTwin", json!({"tags": {"a.b": 1}})),
            ("cloudToDeviceMethod", json!({"methodName": "m"})),
            ("startTime", json!("tomorrow")),
            ("maxExecutionTimeInSeconds", json!(JOB_TIME_S_MAX + 1)),
            ("maxExecutionTimeInSeconds", json!(-1)),
        ] {
            let mut wrong = job.clone();
            wrong[name] = value;
            assert!(spec(&wrong).is_err(), "{wrong}");
        }
        let method = |method| json!({"type": "scheduleDeviceMethod", "queryCondition": "*", "cloudToDeviceMethod": method});
        assert!(spec(&method(json!({"methodName": "a/b"}))).is_err());
        assert!(spec(&method(json!({"methodName": "m", "responseTimeoutInSeconds": 4}))).is_err());
        assert!(spec(&method(json!({"methodName": "m", "payload": 1}))).is_ok());
    }
}
