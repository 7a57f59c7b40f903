//! Provisioning over HTTPS: devices that register, and services that look at registrations.
//!
//! What a registration is, and who may, is decided in [`crate::provisioning`].

use std::sync::Arc;

use axum::body::Bytes as Body;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use dunlin_model::audit::AuditRecord;
use dunlin_model::directory::Right;
use dunlin_model::identity::Condition;
use dunlin_model::provisioning::RegistrationId;
use serde_json::{Value, json as object};

use super::audited::Audited;
use super::authorize::{self, Caller};
use super::devices::condition;
use super::error::PROVISIONING_CODE_HEADER;
use crate::limits::PROVISIONING_RETRY_S;
use crate::listen::Peer;
use crate::provisioning::error::{ProvisioningCode, ProvisioningError};
use crate::provisioning::{self, Asked, answer, attest, json, store};
use crate::shared::Shared;

/// An answer to whoever provisions, or is provisioned.
pub(crate) struct Answered(Result<Response, ProvisioningError>);

impl<R: IntoResponse> From<Result<R, ProvisioningError>> for Answered {
    fn from(result: Result<R, ProvisioningError>) -> Self {
        Self(result.map(IntoResponse::into_response))
    }
}

impl IntoResponse for Answered {
    fn into_response(self) -> Response {
        match self.0 {
            Ok(response) => response,
            Err(error) => of_error(&error, error.json(now_ms())),
        }
    }
}

fn now_ms() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

fn of_error(error: &ProvisioningError, body: Value) -> Response {
    let status = StatusCode::from_u16(error.code.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, Json(body)).into_response();
    let headers = response.headers_mut();
    headers.insert(PROVISIONING_CODE_HEADER, HeaderValue::from(error.code.number()));
    if error.code.is_passing() {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(PROVISIONING_RETRY_S));
    }
    if let Some(record) = &error.record {
        response.extensions_mut().insert(Audited((**record).clone()));
    }
    response
}

/// Lets a record travel with the answer that it is about.
pub(crate) fn audited(record: AuditRecord, result: Result<Response, ProvisioningError>) -> Answered {
    let (mut response, outcome) = match result {
        Ok(response) => (response, None),
        Err(error) => {
            let outcome = error.audit_outcome();
            (of_error(&error, error.json(now_ms())), Some(outcome))
        }
    };
    let record = match outcome {
        Some(outcome) => AuditRecord { outcome, ..record },
        None => record,
    };
    response.extensions_mut().insert(Audited(record));
    Answered(Ok(response))
}

/// Lets a service through.
pub(crate) fn service(
    shared: &Shared,
    headers: &HeaderMap,
    right: Right,
    path: &[&str],
) -> Result<Caller, ProvisioningError> {
    Ok(authorize::service(shared, headers, right, path)?)
}

/// The body of a request, if it has arrived whole.
pub(crate) fn received(body: Result<Body, BytesRejection>) -> Result<Body, ProvisioningError> {
    body.map_err(|_| ProvisioningError::new(ProvisioningCode::TooLarge, "the body is too large"))
}

fn asked<'a>(scope: &'a str, name: &'a str, headers: &'a HeaderMap, peer: &'a Peer) -> Asked<'a> {
    let token = headers
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    Asked {
        scope,
        name,
        token,
        shown: peer.1.as_ref(),
        tpm: None,
        peer: Some(peer.0),
    }
}

/// `PUT /{idScope}/registrations/{id}/register`: a device registers.
pub(crate) async fn register(
    State(shared): State<Arc<Shared>>,
    Extension(peer): Extension<Peer>,
    Path((scope, name)): Path<(String, String)>,
    headers: HeaderMap,
    body: Result<Body, BytesRejection>,
) -> Answered {
    let registering = async {
        let body = received(body)?;
        let asked = asked(&scope, &name, &headers, &peer);
        answer::register(&shared, &asked, &body).await
    };
    registering
        .await
        .map(|answer: answer::Answered| registered(answer.body))
        .into()
}

/// Clients over HTTPS take nothing for an answer but that they have to ask once more, and then are told.
fn registered(body: Value) -> Response {
    let body = object!({ "operationId": body["operationId"], "status": "assigning" });
    let mut response = (StatusCode::ACCEPTED, Json(body)).into_response();
    let retry = HeaderValue::from(PROVISIONING_RETRY_S);
    response.headers_mut().insert(header::RETRY_AFTER, retry);
    response
}

/// `GET /{idScope}/registrations/{id}/operations/{operation}`: a device asks what became of it.
pub(crate) async fn operation(
    State(shared): State<Arc<Shared>>,
    Extension(peer): Extension<Peer>,
    Path((scope, name, operation)): Path<(String, String, String)>,
    headers: HeaderMap,
) -> Answered {
    let asked = asked(&scope, &name, &headers, &peer);
    let found = answer::operation(&shared, &asked, &operation).await;
    found.map(|answer| Json(answer.body)).into()
}

/// `POST /{idScope}/registrations/{id}`: a device asks what it is registered as.
pub(crate) async fn lookup(
    State(shared): State<Arc<Shared>>,
    Extension(peer): Extension<Peer>,
    Path((scope, name)): Path<(String, String)>,
    headers: HeaderMap,
) -> Answered {
    let looking = async {
        let asked = asked(&scope, &name, &headers, &peer);
        let attested = provisioning::admit(&shared, &asked).await?;
        let registration = attested.registration.ok_or_else(missing)?;
        Ok(Json(json::registration_state(&registration)))
    };
    let looked: Result<_, ProvisioningError> = looking.await;
    looked.into()
}

fn missing() -> ProvisioningError {
    ProvisioningError::new(
        ProvisioningCode::RegistrationNotFound,
        "the device is not registered",
    )
}

fn parse(name: &str) -> Result<RegistrationId, ProvisioningError> {
    RegistrationId::parse(name).map_err(|error| ProvisioningError::invalid(error.to_string()))
}

/// `GET /registrations/{id}`: a service looks at a registration.
pub(crate) async fn get(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Answered {
    let getting = async {
        let path = ["registrations", name.as_str()];
        service(&shared, &headers, Right::RegistrationStatusRead, &path)?;
        let view = attest::view(&shared, &parse(&name)?).await?;
        let registration = view.registration.ok_or_else(missing)?;
        Ok(Json(json::registration_state(&registration)))
    };
    let got: Result<_, ProvisioningError> = getting.await;
    got.into()
}

/// `DELETE /registrations/{id}`: a service forgets a registration; the device stays at its hub.
pub(crate) async fn delete(
    State(shared): State<Arc<Shared>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Answered {
    let path = ["registrations", name.as_str()];
    let caller = match service(&shared, &headers, Right::RegistrationStatusWrite, &path) {
        Ok(caller) => caller,
        Err(error) => return Err::<Response, _>(error).into(),
    };
    let record = AuditRecord::done("registration.delete", caller.0, super::claimed(&name));
    let deleting = async {
        let condition = condition(&headers, Condition::Present)?;
        store::delete_registration(&shared, parse(&name)?, condition).await?;
        Ok(StatusCode::NO_CONTENT.into_response())
    };
    audited(record, deleting.await)
}
