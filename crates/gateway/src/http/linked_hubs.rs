//! The provisioning service itself: its id scope, and the hubs that it may send devices to.
//!
//! Which of them a device gets is decided in [`crate::provisioning`].

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes as Body;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use dunlin_model::audit::AuditRecord;
use dunlin_model::directory::{Directory, Right};
use dunlin_model::provisioning::book::{BookChange, LinkedHub, WEIGHT_MAX};
use serde::Deserialize;
use serde_json::{Value, json};

use super::registrations::{Answered, audited, received, service};
use crate::auth::{self, ConnectionString};
use crate::provisioning::error::ProvisioningError;
use crate::provisioning::id_scope;
use crate::shared::Shared;

/// `GET /provisioning`.
pub(crate) async fn show(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Answered {
    let showing = async {
        service(&shared, &headers, Right::EnrollmentRead, &["provisioning"])?;
        let directory = shared.client.directory_now().await?;
        Ok(Json(shown(&shared, &directory)))
    };
    let shown: Result<_, ProvisioningError> = showing.await;
    shown.into()
}

/// Without keys.
fn shown(shared: &Shared, directory: &Directory) -> Value {
    let own = json!({
        "hostName": shared.host_names[0],
        "weight": directory.book.own_weight,
        "isOwn": true,
    });
    let others = directory
        .book
        .hubs
        .iter()
        .map(|(host, hub)| json!({ "hostName": host, "weight": hub.weight, "isOwn": false }));
    let hubs: Vec<Value> = std::iter::once(own).chain(others).collect();
    json!({ "idScope": id_scope(directory), "linkedHubs": hubs })
}

/// What a service sends.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Input {
    connection_string: Option<String>,
    authority: Option<String>,
    weight: Option<u32>,
}

/// `PUT /provisioning/linkedHubs/{host}`: links a hub, or says what share this one has.
pub(crate) async fn put(
    State(shared): State<Arc<Shared>>,
    Path(host): Path<String>,
    headers: HeaderMap,
    body: Result<Body, BytesRejection>,
) -> Answered {
    let path = ["provisioning", "linkedHubs", host.as_str()];
    let caller = match service(&shared, &headers, Right::EnrollmentWrite, &path) {
        Ok(caller) => caller,
        Err(error) => return Err::<Response, _>(error).into(),
    };
    let record = AuditRecord::done("linked-hub.put", caller.0, super::claimed(&host));
    let writing = async {
        let body = received(body)?;
        let input: Input = serde_json::from_slice(&body)
            .map_err(|error| ProvisioningError::invalid(format!("the body is no linked hub: {error}")))?;
        let change = change(&shared.host_names, &host, input)?;
        shared.client.change_book(change).await?;
        let directory = shared.client.directory_now().await?;
        Ok(Json(shown(&shared, &directory)).into_response())
    };
    audited(record, writing.await)
}

/// What becomes of the book where a service sends `input` of `host`; `own` are the names of this hub.
pub(crate) fn change(own: &[String], host: &str, input: Input) -> Result<BookChange, ProvisioningError> {
    let weight = input.weight.unwrap_or(1);
    if weight > WEIGHT_MAX {
        return Err(ProvisioningError::invalid(format!(
            "a weight is 0 to {WEIGHT_MAX}"
        )));
    }
    let Some(text) = input.connection_string else {
        return if auth::is_host(own, host) {
            Ok(BookChange::OwnWeight(weight))
        } else {
            Err(ProvisioningError::invalid("a linked hub has a connectionString"))
        };
    };
    let connection =
        ConnectionString::parse(&text).map_err(|error| ProvisioningError::invalid(error.to_string()))?;
    if connection.shared_access_key_name.is_none() || auth::decode_key(&connection.shared_access_key).is_err()
    {
        return Err(ProvisioningError::invalid(
            "the connection string is not that of a policy",
        ));
    }
    if auth::is_host(own, host) {
        return Err(ProvisioningError::invalid("this hub is linked already"));
    }
    let is_name = |text: &str| {
        text.bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte))
    };
    let (name, port) = connection
        .host_name
        .split_once(':')
        .unwrap_or((&connection.host_name, "443"));
    if !is_name(host) || !is_name(name) || port.parse::<u16>().is_err() {
        return Err(ProvisioningError::invalid(
            "a linked hub has a name without a port, and its connection string the same name, perhaps with one",
        ));
    }
    if !auth::is_host(&[host.to_owned()], &connection.host_name) || weight == 0 {
        return Err(ProvisioningError::invalid(
            "the connection string names another hub, or the weight is 0",
        ));
    }
    // What is no certificate would only be found out when a device comes.
    let authority = input.authority.filter(|pem| !pem.is_empty());
    let authority = authority
        .map(|pem| auth::read_certificate(&pem, true))
        .transpose();
    Ok(BookChange::HubPut {
        host: host.to_owned(),
        hub: LinkedHub {
            connection_string: text,
            authority: authority.map_err(ProvisioningError::invalid)?,
            weight,
        },
    })
}

/// `DELETE /provisioning/linkedHubs/{host}`: sends nobody there any more; who is there stays.
pub(crate) async fn delete(
    State(shared): State<Arc<Shared>>,
    Path(host): Path<String>,
    headers: HeaderMap,
) -> Answered {
    let path = ["provisioning", "linkedHubs", host.as_str()];
    let caller = match service(&shared, &headers, Right::EnrollmentWrite, &path) {
        Ok(caller) => caller,
        Err(error) => return Err::<Response, _>(error).into(),
    };
    let record = AuditRecord::done("linked-hub.delete", caller.0, super::claimed(&host));
    let deleting = async {
        let change = BookChange::HubRemove { host: host.clone() };
        shared.client.change_book(change).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    };
    audited(record, deleting.await)
}
