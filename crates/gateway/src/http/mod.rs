//! HTTP: the registry and statistics as IoT Hub's REST interface has them, device messages, events,
//! and MQTT over WebSocket.
//!
//! Paths are matched as they came and ids decoded afterwards. Every call but `/health`, `/metrics`
//! and `/cluster/join`, which shows a token of its own, is authorised, in its handler's first line. Errors have IoT Hub's form, see [`error`].

mod authorize;
mod cluster;
mod devices;
pub mod error;
mod events;
mod telemetry;
mod time;
mod upgrade;

use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

use crate::limits::{BODY_BYTES_MAX, REQUEST_WAIT};
use crate::metrics::count;
use crate::shared::Shared;
use crate::websocket::WEBSOCKET_PATH;
use error::ApiError;

/// Everything that is served over HTTPS.
pub(crate) fn router(shared: Arc<Shared>) -> Router {
    let extra = shared.hooks.extra.clone();
    let hub = Router::new()
        .route("/devices", get(devices::list))
        .route("/devices/", get(devices::list))
        .route(
            "/devices/{id}",
            get(devices::get).put(devices::put).delete(devices::delete),
        )
        .route("/devices/{id}/messages/events", post(telemetry::send))
        .route("/statistics/devices", get(cluster::device_statistics))
        .route("/statistics/service", get(cluster::service_statistics))
        .route("/events", get(events::stream_all))
        .route("/events/{shard}", get(events::read))
        .route("/shards", get(cluster::shards))
        .route("/cluster/admin", post(cluster::admin))
        .route("/cluster/join", post(cluster::join))
        .route("/health", get(cluster::health))
        .route("/metrics", get(cluster::metrics))
        .route(WEBSOCKET_PATH, get(upgrade::mqtt))
        .layer(middleware::from_fn_with_state(Arc::clone(&shared), watch))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(shared);
    match extra {
        Some(extra) => hub.fallback_service(extra),
        None => hub.fallback(|| async { ApiError::not_found("no such path") }),
    }
}

/// Counts, and bounds the time of a request, its body included; streams begin within it.
async fn watch(State(shared): State<Arc<Shared>>, request: Request, next: Next) -> Response {
    count(&shared.metrics.http_requests);
    let response = match tokio::time::timeout(REQUEST_WAIT, next.run(request)).await {
        Ok(response) => response,
        Err(_) => ApiError::unknown().into_response(),
    };
    if matches!(
        response.status(),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
    ) {
        count(&shared.metrics.http_refused);
    }
    response
}
