//! HTTP: the registry and statistics as IoT Hub's REST interface has them, device messages, events,
//! and MQTT over WebSocket; for operators alone, only what tells of the node and the cluster.
//!
//! Paths are matched as they came and ids decoded afterwards. Every call but `/health`, `/metrics`,
//! `/openapi.json`, `/docs` and `/cluster/join`, which shows a token of its own, is authorised, in its
//! handler's first line.
//! Errors have IoT Hub's form, see [`error`]; those about files have that of Azure Storage, see `blobs`.

mod audited;
pub(crate) mod authorize;
pub mod blob_fault;
pub(crate) mod blobs;
pub(crate) mod bulk;
mod cluster;
pub mod code;
pub(crate) mod configurations;
pub(crate) mod devices;
pub(crate) mod enrollments;
pub mod error;
mod etag;
pub(crate) mod events;
mod feedback;
pub(crate) mod files;
pub(crate) mod identity;
pub(crate) mod jobs;
pub(crate) mod linked_hubs;
pub(crate) mod messages;
pub(crate) mod methods;
mod named;
mod openapi;
pub(crate) mod queries;
pub(crate) mod quota;
mod receipts;
mod registrations;
pub(crate) mod routing;
pub(crate) mod telemetry;
pub(crate) mod time;
pub(crate) mod twins;
mod upgrade;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post, put};

use crate::Audience;
use crate::limits::{BODY_BYTES_MAX, METHOD_REQUEST_WAIT, REQUEST_WAIT, UPLOAD_ANSWER_WAIT};
use crate::listen::Peer;
use crate::metrics::count;
use crate::provisioning::store::Kind;
use crate::shared::Shared;
use crate::websocket::WEBSOCKET_PATH;
pub(crate) use audited::write as write_audit;
pub(crate) use authorize::claimed;
use error::ApiError;
use feedback::{OnFiles, OnMessages};

/// Everything that is served over HTTPS to `audience`.
pub(crate) fn router(shared: Arc<Shared>, audience: Audience) -> Router {
    let paths = match audience {
        Audience::Everyone => for_operators()
            .merge(for_hub())
            .route("/openapi.json", get(openapi::everything)),
        Audience::Operators => for_operators().route("/openapi.json", get(openapi::operators_alone)),
    };
    let served = within(paths, &shared, REQUEST_WAIT);
    let served = match audience {
        Audience::Everyone => {
            let blobs = for_blobs(&shared.uploads.config.container);
            served
                .merge(within(for_methods(), &shared, METHOD_REQUEST_WAIT))
                .merge(within(
                    blobs,
                    &shared,
                    shared.uploads.config.body_wait + UPLOAD_ANSWER_WAIT,
                ))
        }
        Audience::Operators => served,
    };
    let served = served
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .with_state(Arc::clone(&shared));
    match (audience, shared.hooks.extra.clone()) {
        (Audience::Everyone, Some(extra)) => served.fallback_service(extra),
        (Audience::Everyone, None) => served.fallback(|| async { ApiError::not_found("no such path") }),
        (Audience::Operators, _) => served.fallback(|| async {
            ApiError::not_found("no such path: this node has no role `gateway` and serves operators alone")
        }),
    }
}

/// Calls of devices, which may wait for them for minutes.
fn for_methods() -> Router<Arc<Shared>> {
    Router::new()
        .route("/twins/{id}/methods", post(methods::invoke))
        .route("/twins/{id}/modules/{module}/methods", post(methods::invoke))
}

/// `paths` under [`watch`], which gives each request `wait`.
fn within(paths: Router<Arc<Shared>>, shared: &Arc<Shared>, wait: Duration) -> Router<Arc<Shared>> {
    paths.layer(middleware::from_fn_with_state((Arc::clone(shared), wait), watch))
}

/// How the node and the cluster are, and what operators change.
fn for_operators() -> Router<Arc<Shared>> {
    Router::new()
        .route("/cluster/admin", post(cluster::admin))
        .route("/cluster/join", post(cluster::join))
        .route("/certificates", get(cluster::certificates))
        .route("/certificates/renew", post(cluster::renew_certificates))
        .route("/faults", get(cluster::faults_report).post(cluster::faults))
        .route("/health", get(cluster::health))
        .route("/metrics", get(cluster::metrics))
        .route("/docs", get(openapi::page))
}

/// What devices and services come for.
fn for_hub() -> Router<Arc<Shared>> {
    Router::new()
        .route("/devices", get(devices::list).post(bulk::change))
        .route("/devices/", get(devices::list).post(bulk::change))
        .route(
            "/devices/{id}",
            get(devices::get).put(devices::put).delete(devices::delete),
        )
        .route("/devices/query", post(queries::ask))
        .route("/devices/{id}/erase", post(devices::erase))
        .route("/devices/{id}/modules", get(devices::modules))
        .route(
            "/devices/{id}/modules/{module}",
            get(devices::get).put(devices::put).delete(devices::delete),
        )
        .route("/devices/{id}/messages/events", post(telemetry::send))
        .merge(for_messages())
        .merge(for_files())
        .merge(for_configurations())
        .route("/jobs/v2/query", get(jobs::list))
        .route("/jobs/v2/{id}", get(jobs::get).put(jobs::put))
        .route("/jobs/v2/{id}/cancel", post(jobs::cancel))
        .merge(for_provisioning())
        .route(
            "/twins/{id}",
            get(twins::get).patch(twins::update).put(twins::replace),
        )
        .route(
            "/twins/{id}/modules/{module}",
            get(twins::get).patch(twins::update).put(twins::replace),
        )
        .route("/statistics/devices", get(cluster::device_statistics))
        .route("/statistics/service", get(cluster::service_statistics))
        .route("/events", get(events::stream_all))
        .route("/events/{shard}", get(events::read))
        .route("/routing", get(routing::get).put(routing::put))
        .route("/routing/test", post(routing::test))
        .route("/routing/endpoints/health", get(routing::health))
        .route("/quota", get(quota::get).put(quota::put))
        .route("/shards", get(cluster::shards))
        .route(WEBSOCKET_PATH, get(upgrade::mqtt))
}

/// Configurations. Clients spell the first of these paths in two ways.
fn for_configurations() -> Router<Arc<Shared>> {
    Router::new()
        .route("/configurations", get(configurations::list))
        .route("/configurations/", get(configurations::list))
        .route("/configurations/testQueries", post(configurations::test_queries))
        .route(
            "/configurations/{id}",
            get(configurations::get)
                .put(configurations::put)
                .delete(configurations::delete),
        )
        .route(
            "/devices/{id}/applyConfigurationContent",
            post(configurations::apply_content),
        )
}

/// Provisioning: what services keep, and devices that come.
fn for_provisioning() -> Router<Arc<Shared>> {
    let mut router = Router::new()
        .route("/provisioning", get(linked_hubs::show))
        .route(
            "/provisioning/linkedHubs/{host}",
            put(linked_hubs::put).delete(linked_hubs::delete),
        )
        .route(
            "/registrations/{id}",
            get(registrations::get).delete(registrations::delete),
        )
        .route("/registrations/{id}/query", post(enrollments::registrations))
        .route("/{scope}/registrations/{id}", post(registrations::lookup))
        .route(
            "/{scope}/registrations/{id}/register",
            put(registrations::register),
        )
        .route(
            "/{scope}/registrations/{id}/operations/{operation}",
            get(registrations::operation),
        );
    for (path, kind) in [
        ("enrollments", Kind::Individual),
        ("enrollmentGroups", Kind::Group),
    ] {
        router = router
            .route(&format!("/{path}"), enrollments::collection(kind))
            .route(&format!("/{path}/query"), enrollments::query(kind))
            .route(&format!("/{path}/{{id}}"), enrollments::one(kind))
            .route(
                &format!("/{path}/{{id}}/attestationmechanism"),
                enrollments::attestation(kind),
            );
    }
    router
}

/// Cloud-to-device messages. Clients spell the first of these paths in two ways.
fn for_messages() -> Router<Arc<Shared>> {
    let mut router = Router::new()
        .route("/devices/{id}/commands", delete(messages::purge))
        .route("/devices/{id}/messages/deadletters", get(messages::dead_letters))
        .route(
            "/devices/{id}/messages/deadletters/{number}",
            get(messages::dead_letter).delete(messages::drop_dead_letter),
        )
        .route(
            "/devices/{id}/messages/deadletters/{number}/resubmit",
            post(messages::resubmit),
        )
        .route(
            "/messages/serviceBound/feedback",
            get(feedback::take::<OnMessages>),
        )
        .route(
            "/messages/serviceBound/feedback/{lock}",
            delete(feedback::complete::<OnMessages>),
        )
        .route(
            "/messages/serviceBound/feedback/{lock}/abandon",
            post(feedback::abandon::<OnMessages>),
        );
    for bound in ["devicebound", "deviceBound"] {
        let queue = format!("/devices/{{id}}/messages/{bound}");
        router = router
            .route(&format!("{queue}/{{lock}}/abandon"), post(messages::abandon))
            .route(&format!("{queue}/{{lock}}"), delete(messages::complete))
            .route(&queue, get(messages::fetch).post(messages::send));
    }
    router
}

/// Files that devices upload: how they begin and end, and who hears of them.
fn for_files() -> Router<Arc<Shared>> {
    Router::new()
        .route("/devices/{id}/files", post(files::begin))
        .route("/devices/{id}/files/notifications", post(files::end))
        .route(
            "/devices/{id}/files/notifications/{correlation}",
            post(files::end),
        )
        .route(
            "/messages/serviceBound/filenotifications",
            get(feedback::take::<OnFiles>),
        )
        .route(
            "/messages/serviceBound/filenotifications/{lock}",
            delete(feedback::complete::<OnFiles>),
        )
        .route(
            "/messages/serviceBound/filenotifications/{lock}/abandon",
            post(feedback::abandon::<OnFiles>),
        )
}

/// The files themselves, which take their time. No path of the hub's own begins with the name of their container.
fn for_blobs(container: &str) -> Router<Arc<Shared>> {
    let blob = format!("/{container}/{{device}}/{{*blob}}");
    Router::new().route(&blob, get(blobs::get).put(blobs::put))
}

/// Counts, keeps the audit, and bounds the time of a request, its body included; streams begin within it.
async fn watch(
    State((shared, wait)): State<(Arc<Shared>, Duration)>,
    request: Request,
    next: Next,
) -> Response {
    count(&shared.metrics.http_requests);
    let peer = request.extensions().get::<Peer>().map(|peer| peer.0);
    let serving = async {
        authorize::hear(&shared, request.headers()).await;
        next.run(request).await
    };
    let mut response = match tokio::time::timeout(wait, serving).await {
        Ok(response) => response,
        Err(_) => ApiError::unknown().into_response(),
    };
    response = error::in_form(response).await;
    if matches!(
        response.status(),
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN
    ) {
        count(&shared.metrics.http_refused);
    }
    audited::keep(&shared, peer, &mut response).await;
    response
}
