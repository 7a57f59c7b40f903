//! Calls about the hub as a whole: statistics, shards, the admin's requests, health and metrics.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes as Body;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dunlin_model::audit::AuditRecord;
use dunlin_model::command::{Consistency, Query, ShardView, View};
use dunlin_model::directory::Right;
use dunlin_model::id::ShardId;
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use super::audited::audited;
use super::authorize;
use super::error::ApiError;
use crate::shared::Shared;

/// Shards that are asked at the same time.
const SHARDS_ASKED_MAX: usize = 16;

/// Counters of all shards, in order.
async fn shard_views(shared: &Shared) -> Result<Vec<(ShardId, ShardView)>, ApiError> {
    let asked = shared.client.directory().shards().map(|shard| async move {
        match shared
            .client
            .query(Query::Shard(shard), Consistency::Leader)
            .await?
        {
            View::Shard(view) => Ok((shard, view)),
            _ => Err(ApiError::internal("an answer of another kind")),
        }
    });
    let answers: Vec<_> = futures_util::stream::iter(asked)
        .buffered(SHARDS_ASKED_MAX)
        .collect()
        .await;
    answers.into_iter().collect()
}

/// `GET /statistics/devices`.
pub(crate) async fn device_statistics(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    authorize::service(&shared, &headers, Right::RegistryRead, &["statistics", "devices"])?;
    let views = shard_views(&shared).await?;
    let total: u64 = views.iter().map(|(_, view)| view.device_count).sum();
    let disabled: u64 = views.iter().map(|(_, view)| view.disabled_count).sum();
    Ok(Json(json!({
        "totalDeviceCount": total,
        "enabledDeviceCount": total - disabled,
        "disabledDeviceCount": disabled,
    })))
}

/// `GET /statistics/service`.
pub(crate) async fn service_statistics(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    authorize::service(
        &shared,
        &headers,
        Right::ServiceConnect,
        &["statistics", "service"],
    )?;
    let connected: u64 = shard_views(&shared)
        .await?
        .iter()
        .map(|(_, view)| view.connected_count)
        .sum();
    Ok(Json(json!({ "connectedDeviceCount": connected })))
}

/// `GET /shards`: where each shard stands.
pub(crate) async fn shards(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    authorize::service(&shared, &headers, Right::ServiceConnect, &["shards"])?;
    let directory = shared.client.directory();
    let shards: Vec<Value> = shard_views(&shared)
        .await?
        .into_iter()
        .map(|(shard, view)| {
            json!({
                "shard": shard.0,
                "logEpoch": directory.epoch_of(shard),
                "first": view.first_offset,
                "end": view.next_offset,
                "term": view.term,
                "appliedIndex": view.applied_index,
                "deviceCount": view.device_count,
                "connectedCount": view.connected_count,
            })
        })
        .collect();
    Ok(Json(
        json!({ "clusterId": directory.cluster_id, "logEpoch": directory.log_epoch, "shards": shards }),
    ))
}

/// `POST /cluster/admin`: passed on as it is; the answer as well.
pub(crate) async fn admin(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Result<Body, BytesRejection>,
) -> Result<Response, ApiError> {
    let caller = authorize::service(&shared, &headers, Right::ClusterAdmin, &["cluster", "admin"])?;
    let body = body.map_err(|_| ApiError::too_large())?;
    // The action alone goes to the audit: the rest may hold secrets.
    let request: Value =
        serde_json::from_slice(&body).map_err(|_| ApiError::invalid("the body is not JSON"))?;
    let asked = request.get("op").and_then(Value::as_str).unwrap_or("?");
    let about = ["node", "name"]
        .iter()
        .find_map(|field| request.get(*field)?.as_str());
    let is_a_look = matches!(asked, "status" | "authorities");
    let record = AuditRecord {
        detail: authorize::claimed(about.unwrap_or_default()),
        ..AuditRecord::done("cluster.admin", caller.0, authorize::claimed(asked))
    };
    let answer = shared.client.admin(body).await.map_err(ApiError::from);
    let respond = |answer| ([(header::CONTENT_TYPE, "application/json")], answer).into_response();
    if is_a_look {
        return answer.map(respond);
    }
    audited(record, answer.map(respond))
}

/// `GET /certificates`: what this node shows to devices, services and peers, and until when.
pub(crate) async fn certificates(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Json<Value>, ApiError> {
    authorize::service(&shared, &headers, Right::ClusterAdmin, &["certificates"])?;
    Ok(Json((shared.hooks.certificates)()))
}

/// `POST /certificates/renew`: new certificates for this node, now. Open connections stay.
pub(crate) async fn renew_certificates(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let caller = authorize::service(&shared, &headers, Right::ClusterAdmin, &["certificates", "renew"])?;
    let record = AuditRecord::done("certificates.renew", caller.0, "this node");
    let renewed = (shared.hooks.renew_certificates)().map_err(ApiError::internal);
    let respond = |()| Json((shared.hooks.certificates)()).into_response();
    audited(record, renewed.map(respond))
}

/// `GET /faults`: what came of the faults of this node, where its operator allows them.
pub(crate) async fn faults_report(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    authorize::service(&shared, &headers, Right::ClusterAdmin, &["faults"])?;
    let report = faults_hook(&shared)?(b"{}").map_err(ApiError::invalid)?;
    Ok(Json(report).into_response())
}

/// `POST /faults`: what a node does to itself for a test, where its operator allows it.
pub(crate) async fn faults(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Result<Body, BytesRejection>,
) -> Result<Response, ApiError> {
    let caller = authorize::service(&shared, &headers, Right::ClusterAdmin, &["faults"])?;
    let hook = faults_hook(&shared)?;
    let body = body.map_err(|_| ApiError::too_large())?;
    let record = AuditRecord::done("faults", caller.0, "this node");
    let answer = hook(&body).map_err(ApiError::invalid);
    audited(record, answer.map(|report| Json(report).into_response()))
}

fn faults_hook(shared: &Shared) -> Result<&crate::FaultsHook, ApiError> {
    let hook = shared.hooks.faults.as_ref();
    hook.ok_or_else(|| ApiError::not_found("this node does not allow faults"))
}

/// `POST /cluster/join`: whoever shows a join token that was not used yet is given what a node needs.
pub(crate) async fn join(
    State(shared): State<Arc<Shared>>,
    body: Result<Body, BytesRejection>,
) -> Result<Response, ApiError> {
    let body = body.map_err(|_| ApiError::too_large())?;
    let request: Value =
        serde_json::from_slice(&body).map_err(|_| ApiError::invalid("the body is not JSON"))?;
    let secret = request.get("secret").and_then(Value::as_str).unwrap_or_default();
    let used = shared
        .client
        .admin(json!({ "op": "use-token", "secret": secret }).to_string().into())
        .await
        .map_err(ApiError::from);
    let record = AuditRecord::done("cluster.join", "join token", "secrets of the cluster");
    let respond = |_| Json((shared.hooks.join_files)()).into_response();
    audited(record, used.map(respond))
}

/// `GET /health`.
pub(crate) async fn health(State(shared): State<Arc<Shared>>) -> (StatusCode, Json<Value>) {
    let (is_well, report) = (shared.hooks.health)();
    let draining = shared.draining.is_cancelled();
    let status = if is_well && !draining {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    (status, Json(report))
}

/// `GET /metrics`.
pub(crate) async fn metrics(State(shared): State<Arc<Shared>>) -> Response {
    let text = (shared.hooks.metrics_text)();
    (
        [(
            header::CONTENT_TYPE,
            "application/openmetrics-text; version=1.0.0; charset=utf-8",
        )],
        text,
    )
        .into_response()
}
