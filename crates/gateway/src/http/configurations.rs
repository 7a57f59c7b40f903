//! Configurations as IoT Hub's REST interface has them: `/configurations`, their metrics, and content that is applied to
//! one device by hand.
//!
//! Where they are kept is in [`crate::configurations::store`]; when twins follow, in [`crate::configurations::runner`].

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes as Body;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, Query as UrlQuery, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use dunlin_model::audit::AuditRecord;
use dunlin_model::configuration::plan::{Content, Plan};
use dunlin_model::configuration::{
    CONDITION_BYTES_MAX, CONFIGURATION_BYTES_MAX, CONFIGURATIONS_MAX, Configuration, ConfigurationSpec,
    LABELS_MAX, METRICS_MAX,
};
use dunlin_model::directory::Right;
use dunlin_model::identity::{Condition, etag};
use dunlin_model::iso_time::iso_utc;
use dunlin_model::query_language::{self, Source, Statement};
use dunlin_model::quota::Operation;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::audited::audited;
use super::authorize;
use super::devices::condition;
use super::error::ApiError;
use super::etag::tagged;
use super::named::Named;
use super::receipts::receipted;
use crate::configurations::apply::{Applied, apply};
use crate::configurations::store;
use crate::fleet;
use crate::quota::Cost;
use crate::shared::Shared;

/// What a service sends. What it cannot set is left alone: SDKs send back whole configurations.
#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Input {
    id: Option<String>,
    schema_version: Option<String>,
    labels: Option<BTreeMap<String, String>>,
    content: Option<Map<String, Value>>,
    target_condition: Option<String>,
    priority: Option<u32>,
    metrics: Option<MetricsInput>,
}

#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct MetricsInput {
    queries: Option<BTreeMap<String, String>>,
}

/// `GET /configurations?top=N`.
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    UrlQuery(query): UrlQuery<ListQuery>,
) -> Result<Response, ApiError> {
    authorize::reader(&shared, &headers, &["configurations"])?;
    shared.charge(Cost::of(Operation::Configuration)).await?;
    let mut all = store::all(&*shared.client).await?;
    all.truncate(query.top.unwrap_or(CONFIGURATIONS_MAX));
    let shown = counted(&shared, &all).await?;
    Ok(Json(shown).into_response())
}

/// Parameters of a listing.
#[derive(Debug, Deserialize)]
pub(crate) struct ListQuery {
    top: Option<usize>,
}

/// `GET /configurations/{id}`.
pub(crate) async fn get(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    authorize::reader(&shared, &headers, &["configurations", &id])?;
    shared.charge(Cost::of(Operation::Configuration)).await?;
    let found = find(&shared, &id).await?;
    let version = found.version;
    let mut shown = counted(&shared, &[found]).await?;
    let one = shown.pop().ok_or_else(|| ApiError::internal("nothing to show"))?;
    Ok(tagged(Json(one).into_response(), &etag(version)))
}

async fn find(shared: &Shared, id: &str) -> Result<Configuration, ApiError> {
    let found = store::find(&*shared.client, id).await?;
    found.ok_or_else(|| ApiError::no_configuration(id))
}

/// What was just stored, without what its metrics come to: twins have yet to follow, and whoever writes need not wait for
/// a look over the fleet.
async fn stored(shared: &Shared, id: &str) -> Result<Response, ApiError> {
    let found = find(shared, id).await?;
    let tag = etag(found.version);
    Ok(tagged(Json(shown(&found, None)).into_response(), &tag))
}

/// `PUT /configurations/{id}`.
pub(crate) async fn put(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Result<Body, BytesRejection>,
) -> Result<Response, ApiError> {
    let path = ["configurations", id.as_str()];
    let caller = authorize::service(&shared, &headers, Right::RegistryReadWrite, &path)?;
    shared.charge(Cost::of(Operation::Configuration)).await?;
    let record = AuditRecord::done("configuration.put", caller.0, super::claimed(&id));
    let writing = async {
        store::check_id(&id)?;
        let body = body.map_err(|_| ApiError::too_large())?;
        let input: Input = read_object(&body)?;
        if input.id.as_ref().is_some_and(|named| *named != id) {
            return Err(ApiError::invalid(
                "the id in the body is another than in the path",
            ));
        }
        let asked = condition(&headers, Condition::Absent)?;
        let before = match asked {
            Condition::Absent => None,
            _ => store::find(&*shared.client, &id).await?,
        };
        let spec = complete(input, before.as_ref())?;
        // What was kept of the stored one must still be what it was.
        let asked = match (&before, asked) {
            (Some(before), Condition::Present | Condition::Any) => Condition::Version(before.version),
            _ => asked,
        };
        let receipt = store::put(&*shared.client, &id, spec, asked).await?;
        shared.configured.notify_one();
        Ok(receipt)
    };
    let written = match writing.await {
        // It is stored, whatever comes of reading it: nobody may be told that nothing happened.
        Ok(receipt) => {
            let shown = stored(&shared, &id).await;
            let shown = shown.unwrap_or_else(|_| ApiError::unknown().into_response());
            Ok(receipted(shown, receipt))
        }
        Err(error) => Err(error),
    };
    audited(record, written)
}

/// Reads an object; an array is none, though it could be read as one.
pub(crate) fn read_object<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    let read = || serde_json::from_value(Value::Object(serde_json::from_slice(body)?));
    read().map_err(|error: serde_json::Error| ApiError::invalid(format!("the body makes no sense: {error}")))
}

/// What is to be stored: what is sent, and for the rest what there was.
pub(crate) fn complete(input: Input, before: Option<&Configuration>) -> Result<ConfigurationSpec, ApiError> {
    let known = before.map(|before| &before.spec);
    let content = match input.content {
        Some(content) => {
            let content = Value::Object(content).to_string();
            // Told here, where it can be said what is wrong; the shard has the last word.
            if known.is_some_and(|known| !is_same(&known.content, &content)) {
                return Err(ApiError::content_fixed());
            }
            known.map_or(content, |known| known.content.clone())
        }
        None => known.map_or_else(|| "{}".to_owned(), |known| known.content.clone()),
    };
    let spec = ConfigurationSpec {
        schema_version: input.schema_version.unwrap_or_else(|| "1.0".to_owned()),
        labels: input
            .labels
            .or_else(|| known.map(|known| known.labels.clone()))
            .unwrap_or_default(),
        content,
        target: input
            .target_condition
            .or_else(|| known.map(|known| known.target.clone()))
            .unwrap_or_default(),
        priority: input
            .priority
            .or_else(|| known.map(|known| known.priority))
            .unwrap_or_default(),
        metrics: input
            .metrics
            .and_then(|metrics| metrics.queries)
            .or_else(|| known.map(|known| known.metrics.clone()))
            .unwrap_or_default(),
    };
    check(&spec)?;
    Ok(spec)
}

fn is_same(one: &str, other: &str) -> bool {
    let read = |text: &str| serde_json::from_str::<Value>(text).ok();
    read(one) == read(other)
}

fn check(spec: &ConfigurationSpec) -> Result<(), ApiError> {
    let content = Content::read(&spec.content).map_err(ApiError::invalid)?;
    if spec.bytes() > CONFIGURATION_BYTES_MAX {
        return Err(ApiError::too_large());
    }
    if spec.labels.len() > LABELS_MAX || spec.metrics.len() > METRICS_MAX {
        return Err(ApiError::invalid(format!(
            "a configuration has {LABELS_MAX} labels and {METRICS_MAX} metrics at the most"
        )));
    }
    for (name, query) in &spec.metrics {
        check_metric(query).map_err(|why| ApiError::invalid(format!("metric {name}: {why}")))?;
    }
    // One without a target concerns nobody: it is made to be applied by hand.
    if spec.target.is_empty() {
        return Ok(());
    }
    let source = check_target(&spec.target)
        .map_err(|why| ApiError::invalid(format!("the target condition: {why}")))?;
    if content.is_for_modules != (source == Source::Modules) {
        return Err(ApiError::invalid(
            "moduleContent goes with a target condition that begins with FROM devices.modules WHERE, and nothing else does",
        ));
    }
    Ok(())
}

fn check_target(text: &str) -> Result<Source, String> {
    if text.len() > CONDITION_BYTES_MAX {
        return Err(format!("it has more than {CONDITION_BYTES_MAX} bytes"));
    }
    let condition = query_language::Condition::parse(text).map_err(|error| error.to_string())?;
    match condition.source() {
        Source::Jobs => Err("devices.jobs are no twins".to_owned()),
        source => Ok(source),
    }
}

fn check_metric(text: &str) -> Result<(), String> {
    if text.len() > CONDITION_BYTES_MAX {
        return Err(format!("it has more than {CONDITION_BYTES_MAX} bytes"));
    }
    let statement = Statement::parse(text).map_err(|error| error.to_string())?;
    if statement.is_aggregate() || statement.top.is_some() {
        return Err("a metric counts rows: it has no aggregate, no GROUP BY and no TOP".to_owned());
    }
    match statement.source {
        Source::Jobs => Err("devices.jobs are no twins".to_owned()),
        _ => Ok(()),
    }
}

/// `DELETE /configurations/{id}`.
pub(crate) async fn delete(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let path = ["configurations", id.as_str()];
    let caller = authorize::service(&shared, &headers, Right::RegistryReadWrite, &path)?;
    shared.charge(Cost::of(Operation::Configuration)).await?;
    let record = AuditRecord::done("configuration.delete", caller.0, super::claimed(&id));
    let deleting = async {
        let condition = condition(&headers, Condition::Present)?;
        let receipt = store::delete(&*shared.client, &id, condition).await?;
        shared.configured.notify_one();
        Ok(receipted(StatusCode::NO_CONTENT.into_response(), receipt))
    };
    audited(record, deleting.await)
}

/// What a service wants to try before it makes a configuration.
#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct Trial {
    target_condition: Option<String>,
    custom_metric_queries: Option<BTreeMap<String, String>>,
}

/// `POST /configurations/testQueries`: what is wrong with them, if anything is.
pub(crate) async fn test_queries(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Result<Body, BytesRejection>,
) -> Result<Response, ApiError> {
    authorize::reader(&shared, &headers, &["configurations", "testQueries"])?;
    shared.charge(Cost::of(Operation::Configuration)).await?;
    let body = body.map_err(|_| ApiError::too_large())?;
    let trial: Trial = read_object(&body)?;
    let target = trial.target_condition.filter(|target| !target.is_empty());
    let target_error = target.and_then(|target| check_target(&target).err());
    let metrics = trial.custom_metric_queries.unwrap_or_default();
    let errors: BTreeMap<String, String> = metrics
        .into_iter()
        .filter_map(|(name, query)| Some((name, check_metric(&query).err()?)))
        .collect();
    let answer = json!({
        "targetConditionError": target_error.unwrap_or_default(),
        "customMetricQueryErrors": errors,
    });
    Ok(Json(answer).into_response())
}

/// `POST /devices/{id}/applyConfigurationContent`: at once, to this device, and no mark is made.
pub(crate) async fn apply_content(
    State(shared): State<Arc<Shared>>,
    named: Named,
    headers: HeaderMap,
    body: Result<Body, BytesRejection>,
) -> Result<Response, ApiError> {
    let path = [&named.path("devices")[..], &["applyConfigurationContent"]].concat();
    let caller = authorize::service(&shared, &headers, Right::RegistryReadWrite, &path)?;
    shared.charge(Cost::of(Operation::Configuration)).await?;
    let device = named.identity()?;
    let record = AuditRecord::done("configuration.apply", caller.0, device.as_str());
    let applying = async {
        let body = body.map_err(|_| ApiError::too_large())?;
        let text = std::str::from_utf8(&body).map_err(|_| ApiError::invalid("the body is no text"))?;
        let content = Content::read(text).map_err(ApiError::invalid)?;
        let plan = Plan {
            own: content.own,
            modules: content.modules,
            ..Plan::default()
        };
        match apply(&*shared.client, &device, None, plan).await? {
            Applied::Done(receipt) => Ok(receipted(StatusCode::NO_CONTENT.into_response(), receipt)),
            Applied::Overtaken => Err(ApiError::missing(&device)),
            Applied::Refused(refusal) => Err(ApiError::refused(refusal, &device)),
        }
    };
    audited(record, applying.await)
}

/// The query that finds what a configuration concerns, and the one that finds where it counts.
fn system_queries(one: &Configuration) -> [(&'static str, String); 2] {
    let condition = query_language::Condition::parse(&one.spec.target);
    let source = condition.map_or(Source::Devices, |condition| condition.source());
    let (columns, source) = match source {
        Source::Modules => ("deviceId, moduleId", "devices.modules"),
        _ => ("deviceId", "devices"),
    };
    let query = |condition: String| format!("SELECT {columns} FROM {source} WHERE {condition}");
    let mark = format!("configurations.[[{}]].status", one.id);
    [
        ("targetedCount", query(format!("IS_DEFINED({mark})"))),
        ("appliedCount", query(format!("{mark} = 'Applied'"))),
    ]
}

/// Configurations as services see them, with what all their metrics come to: one look over the fleet.
async fn counted(shared: &Shared, all: &[Configuration]) -> Result<Vec<Value>, ApiError> {
    let mut asked: Vec<String> = Vec::new();
    for one in all {
        asked.extend(system_queries(one).map(|(_, query)| query));
        asked.extend(one.spec.metrics.values().cloned());
    }
    let turn = shared.queries.try_acquire();
    let _turn = turn.map_err(|_| ApiError::busy("queries of this gateway"))?;
    let counts = fleet::counts(&*shared.client, &asked).await?;
    let mut counts = &counts[..];
    let shown = all.iter().map(|one| {
        let (own, rest) = counts.split_at(2 + one.spec.metrics.len());
        counts = rest;
        shown(one, Some(own))
    });
    Ok(shown.collect())
}

/// One as services see it; with `counts`, of its system queries and then of its own in their order.
fn shown(one: &Configuration, counts: Option<&[u64]>) -> Value {
    let system = system_queries(one);
    let system_names = system.iter().map(|(name, _)| *name);
    let (of_system, own) = counts.map_or((&[][..], &[][..]), |counts| counts.split_at(system.len()));
    let system_results: BTreeMap<&str, u64> = system_names.zip(of_system.iter().copied()).collect();
    let results: BTreeMap<&String, u64> = one.spec.metrics.keys().zip(own.iter().copied()).collect();
    let content: Value = serde_json::from_str(&one.spec.content).unwrap_or_default();
    json!({
        "id": one.id,
        "schemaVersion": one.spec.schema_version,
        "labels": one.spec.labels,
        "content": content,
        "targetCondition": one.spec.target,
        "createdTimeUtc": iso_utc(one.created_ms),
        "lastUpdatedTimeUtc": iso_utc(one.updated_ms),
        "priority": one.spec.priority,
        "systemMetrics": { "results": system_results, "queries": BTreeMap::from(system) },
        "metrics": { "results": results, "queries": one.spec.metrics },
        "etag": etag(one.version),
    })
}
