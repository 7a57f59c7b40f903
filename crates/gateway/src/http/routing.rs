//! Message routing: `/routing`, one document with routes, endpoints, the fallback and enrichments, in the words of the
//! `routing` properties of an IoT hub; and a trial of it.
//!
//! What routes mean is decided in [`dunlin_model::routing`]; who sends events on, in [`crate::dispatch`].

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes as Body;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use dunlin_model::audit::AuditRecord;
use dunlin_model::command::{Consistency, Query, View};
use dunlin_model::directory::{Directory, Right};
use dunlin_model::id::DeviceId;
use dunlin_model::identity::etag;
use dunlin_model::port::RoutingChangeError;
use dunlin_model::routing::routes::Routes;
use dunlin_model::routing::{
    BUILT_IN, Endpoint, EndpointKind, Enrichment, EventSource, Route, Routing, RoutingError,
};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::audited::audited;
use super::authorize;
use super::configurations::read_object;
use super::error::ApiError;
use super::etag::{IfMatch, if_match, tagged};
use crate::dispatch::cursor;
use crate::events::endpoint::trial;
use crate::limits::DISPATCH_SHARDS_AT_A_TIME;
use crate::provisioning::guid;
use crate::shared::Shared;

/// What a service sends: the whole of it.
#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub(crate) struct Input {
    routes: Vec<RouteInput>,
    fallback_route: Option<FallbackInput>,
    endpoints: EndpointsInput,
    enrichments: Vec<EnrichmentInput>,
    /// As it was read; the condition of a change is in `If-Match`.
    #[serde(rename = "etag")]
    _etag: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RouteInput {
    name: String,
    source: EventSource,
    #[serde(default = "always")]
    condition: String,
    endpoint_names: BTreeSet<String>,
    #[serde(default = "yes")]
    is_enabled: bool,
}

/// Only whether it is on can be said of it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FallbackInput {
    is_enabled: bool,
}

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct EndpointsInput {
    webhooks: Vec<WebhookInput>,
    storage_containers: Vec<StorageInput>,
}

/// What is left out of a webhook that is there stays: it is not shown either.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct WebhookInput {
    name: String,
    url: String,
    authorization: Option<String>,
    authority: Option<String>,
    #[serde(rename = "id")]
    _id: Option<String>,
    #[serde(rename = "hasAuthorization")]
    _has_authorization: Option<bool>,
    #[serde(rename = "hasAuthority")]
    _has_authority: Option<bool>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StorageInput {
    name: String,
    container_name: String,
    #[serde(rename = "id")]
    _id: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct EnrichmentInput {
    key: String,
    value: String,
    endpoint_names: BTreeSet<String>,
}

fn always() -> String {
    "true".to_owned()
}

fn yes() -> bool {
    true
}

impl Input {
    /// What is asked for; endpoints that stay keep their ids, and what they were told before.
    pub(crate) fn read(self, before: &Routing) -> Result<Routing, ApiError> {
        let mut endpoints = BTreeMap::new();
        let mut put = |name: String, kind: EndpointKind| {
            let known = before.endpoints.get(&name);
            let id = match known {
                Some(known) if is_same_kind(&known.kind, &kind) => known.id.clone(),
                _ => guid(rand::random()),
            };
            match endpoints.insert(name.clone(), Endpoint { id, kind }) {
                Some(_) => Err(ApiError::invalid(format!("there are two endpoints '{name}'"))),
                None => Ok(()),
            }
        };
        for one in self.endpoints.webhooks {
            let known = match before.endpoints.get(&one.name).map(|known| &known.kind) {
                Some(EndpointKind::Webhook {
                    url,
                    authorization,
                    authority,
                }) if *url == one.url => (authorization.clone(), authority.clone()),
                _ => (None, None),
            };
            let kind = EndpointKind::Webhook {
                url: one.url,
                authorization: one.authorization.or(known.0),
                authority: one.authority.or(known.1),
            };
            put(one.name, kind)?;
        }
        for one in self.endpoints.storage_containers {
            let container = one.container_name;
            put(one.name, EndpointKind::Storage { container })?;
        }
        let mut routes = BTreeMap::new();
        for one in self.routes {
            let name = one.name;
            let route = Route {
                source: one.source,
                condition: one.condition,
                endpoints: one.endpoint_names,
                is_enabled: one.is_enabled,
            };
            if routes.insert(name.clone(), route).is_some() {
                return Err(ApiError::invalid(format!("there are two routes '{name}'")));
            }
        }
        let enrichments = self.enrichments.into_iter().map(|one| Enrichment {
            key: one.key,
            value: one.value,
            endpoints: one.endpoint_names,
        });
        Ok(Routing {
            version: before.version,
            endpoints,
            routes,
            has_fallback: self.fallback_route.is_none_or(|fallback| fallback.is_enabled),
            enrichments: enrichments.collect(),
        })
    }
}

/// Whether events that left for one have left for the other too.
fn is_same_kind(one: &EndpointKind, other: &EndpointKind) -> bool {
    match (one, other) {
        (EndpointKind::Webhook { .. }, EndpointKind::Webhook { .. }) => true,
        (EndpointKind::Storage { container: one }, EndpointKind::Storage { container: other }) => {
            one == other
        }
        _ => false,
    }
}

/// Without secrets.
fn shown(routing: &Routing) -> Value {
    let routes = routing.routes.iter().map(|(name, route)| {
        json!({
            "name": name,
            "source": route.source,
            "condition": route.condition,
            "endpointNames": route.endpoints,
            "isEnabled": route.is_enabled,
        })
    });
    let (mut webhooks, mut storage) = (Vec::new(), Vec::new());
    for (name, endpoint) in &routing.endpoints {
        match &endpoint.kind {
            EndpointKind::Webhook {
                url,
                authorization,
                authority,
            } => webhooks.push(json!({
                "name": name,
                "id": endpoint.id,
                "url": url,
                "hasAuthorization": authorization.is_some(),
                "hasAuthority": authority.is_some(),
            })),
            EndpointKind::Storage { container } => {
                storage.push(json!({ "name": name, "id": endpoint.id, "containerName": container }));
            }
        }
    }
    let enrichments = routing
        .enrichments
        .iter()
        .map(|one| json!({ "key": one.key, "value": one.value, "endpointNames": one.endpoints }));
    json!({
        "routes": routes.collect::<Vec<_>>(),
        "fallbackRoute": {
            "name": "$fallback",
            "source": EventSource::DeviceMessages,
            "condition": "true",
            "endpointNames": [BUILT_IN],
            "isEnabled": routing.has_fallback,
        },
        "endpoints": { "webhooks": webhooks, "storageContainers": storage },
        "enrichments": enrichments.collect::<Vec<_>>(),
        "etag": etag(routing.version),
    })
}

fn answer(directory: &Directory) -> Response {
    let tag = etag(directory.routing.version);
    tagged(Json(shown(&directory.routing)).into_response(), &tag)
}

/// `GET /routing`.
pub(crate) async fn get(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Result<Response, ApiError> {
    authorize::reader(&shared, &headers, &["routing"])?;
    Ok(answer(&*shared.client.directory_now().await?))
}

/// `PUT /routing`: the whole of it, in place of what there is.
pub(crate) async fn put(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Result<Body, BytesRejection>,
) -> Result<Response, ApiError> {
    let caller = authorize::service(&shared, &headers, Right::ClusterAdmin, &["routing"])?;
    let record = AuditRecord::done("routing.put", caller.0, "routing");
    let written = match change(&shared, &headers, body).await {
        // It is done, whatever comes of reading it: nobody may be told that nothing happened.
        Ok(()) => Ok(match shared.client.directory_now().await {
            Ok(directory) => answer(&directory),
            Err(_) => ApiError::unknown().into_response(),
        }),
        Err(error) => Err(error),
    };
    audited(record, written)
}

async fn change(
    shared: &Arc<Shared>,
    headers: &HeaderMap,
    body: Result<Body, BytesRejection>,
) -> Result<(), ApiError> {
    let body = body.map_err(|_| ApiError::too_large())?;
    let input: Input = read_object(&body)?;
    let before = shared.client.directory_now().await?.routing.clone();
    let wanted = match if_match(headers)? {
        IfMatch::Tag(tag) if *tag != etag(before.version) => return Err(ApiError::routing_changed()),
        _ => input.read(&before)?,
    };
    wanted.check().map_err(|error| invalid(&error))?;
    let uploads = &shared.uploads.config.container;
    let is_theirs = |endpoint: &Endpoint| matches!(&endpoint.kind, EndpointKind::Storage { container } if container == uploads);
    if wanted.endpoints.values().any(is_theirs) {
        return Err(ApiError::invalid(format!(
            "'{uploads}' is where files of devices go: name another container"
        )));
    }
    let ids = |routing: &Routing| -> BTreeSet<String> {
        routing
            .endpoints
            .values()
            .map(|endpoint| endpoint.id.clone())
            .collect()
    };
    let (known, now) = (ids(&before), ids(&wanted));
    // Before anybody may take the answer for a promise.
    for id in now.difference(&known) {
        let begun = cursor::begin(&*shared.client, id).await;
        begun.map_err(|error| {
            tracing::warn!(%error, "begin with an endpoint");
            ApiError::unavailable("a shard cannot be reached")
        })?;
    }
    // What was read is what was changed, also where no condition was asked for.
    let put = shared.client.put_routing(wanted, Some(before.version)).await;
    put.map_err(|error| match error {
        RoutingChangeError::Refused(error) => invalid(&error),
        RoutingChangeError::Changed => ApiError::routing_changed(),
        RoutingChangeError::Unknown => ApiError::unknown(),
    })?;
    shared.rerouted.notify_one();
    for id in known.difference(&now) {
        let (shared, id) = (Arc::clone(shared), id.clone());
        let tasks = shared.tasks.clone();
        tasks.spawn(async move { cursor::forget(&*shared.client, &id).await });
    }
    Ok(())
}

fn invalid(error: &RoutingError) -> ApiError {
    ApiError::invalid(error.to_string())
}

/// `GET /routing/endpoints/health`: how far behind each endpoint is.
pub(crate) async fn health(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    authorize::reader(&shared, &headers, &["routing", "endpoints", "health"])?;
    let directory = shared.client.directory_now().await?;
    let client = &*shared.client;
    let ends = directory.shards().map(|shard| async move {
        match client.query(Query::Shard(shard), Consistency::Leader).await? {
            View::Shard(view) => Ok((shard, view.next_offset)),
            _ => Err(ApiError::internal("an answer of another kind")),
        }
    });
    let ends: Vec<_> = stream::iter(ends)
        .buffered(DISPATCH_SHARDS_AT_A_TIME)
        .try_collect()
        .await?;
    let mut found = Vec::new();
    for (name, endpoint) in &directory.routing.endpoints {
        let cursors = ends.iter().copied().map(|(shard, end)| async move {
            let cursor = cursor::read(client, &endpoint.id, shard).await.map_err(|error| {
                tracing::debug!(%error, "read a cursor");
                ApiError::unavailable("a shard cannot be reached")
            })?;
            let behind = cursor.map_or(0, |cursor| end.saturating_sub(cursor));
            Ok::<_, ApiError>((
                behind,
                json!({ "shard": shard.0, "next": cursor, "behind": behind }),
            ))
        });
        let (behind, shards): (Vec<u64>, Vec<Value>) = stream::iter(cursors)
            .buffered(DISPATCH_SHARDS_AT_A_TIME)
            .try_collect::<Vec<_>>()
            .await?
            .into_iter()
            .unzip();
        found.push(json!({
            "endpointName": name,
            "id": endpoint.id,
            "eventsBehind": behind.iter().sum::<u64>(),
            "shards": shards,
        }));
    }
    Ok(Json(found).into_response())
}

/// A message that nobody sent.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TrialInput {
    #[serde(default = "messages")]
    source: EventSource,
    #[serde(default)]
    message: MessageInput,
    /// The device whose twin conditions look at.
    device_id: Option<String>,
    module_id: Option<String>,
    /// A condition that is tried by itself.
    condition: Option<String>,
}

fn messages() -> EventSource {
    EventSource::DeviceMessages
}

#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct MessageInput {
    body: Option<Value>,
    app_properties: BTreeMap<String, String>,
    system_properties: BTreeMap<String, String>,
}

/// `POST /routing/test`: where a message would go, or whether a condition would take it.
pub(crate) async fn test(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Result<Body, BytesRejection>,
) -> Result<Response, ApiError> {
    authorize::reader(&shared, &headers, &["routing", "test"])?;
    let body = body.map_err(|_| ApiError::too_large())?;
    let input: TrialInput = read_object(&body)?;
    let routing = match &input.condition {
        None => shared.client.directory_now().await?.routing.clone(),
        Some(condition) => alone(input.source, condition),
    };
    let routes = Routes::read(&routing).map_err(|error| invalid(&error))?;
    let identity = match &input.device_id {
        None => None,
        Some(device) => Some(
            DeviceId::of_parts(device, input.module_id.as_deref())
                .map_err(|error| ApiError::invalid(error.to_string()))?,
        ),
    };
    let message = input.message;
    let row = trial(&shared, identity.as_ref(), |row: &mut Map<String, Value>| {
        for (name, value) in message.app_properties {
            row.insert(name, value.into());
        }
        for (name, value) in message.system_properties {
            row.insert(format!("${name}"), value.into());
        }
        if let Some(body) = message.body {
            row.insert("$body".to_owned(), body);
        }
    })
    .await?;
    let taking: BTreeMap<&str, &BTreeSet<String>> = routes.taking(input.source, &row).collect();
    if input.condition.is_some() {
        return Ok(Json(json!({ "result": !taking.is_empty() })).into_response());
    }
    let mut endpoints: BTreeSet<&str> = taking.values().copied().flatten().map(String::as_str).collect();
    if routes.leads(input.source, BUILT_IN, &row) {
        endpoints.insert(BUILT_IN);
    }
    let names: Vec<&&str> = taking.keys().collect();
    Ok(Json(json!({ "routes": names, "endpointNames": endpoints })).into_response())
}

/// A routing of one route.
fn alone(source: EventSource, condition: &str) -> Routing {
    let route = Route {
        source,
        condition: condition.to_owned(),
        endpoints: BTreeSet::from([BUILT_IN.to_owned()]),
        is_enabled: true,
    };
    Routing {
        routes: BTreeMap::from([("condition".to_owned(), route)]),
        ..Routing::default()
    }
}
