//! How an upload begins and ends, in the words of IoT Hub: a device is given an address with a token, and says in the end
//! whether the file came whole.
//!
//! How many there may be is decided in the device's shard (`model::upload`). The file itself goes to [`super::blobs`].

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Bytes as Body;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::uri::Authority;
use axum::http::{HeaderMap, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use dunlin_model::command::{Command, Consistency, Outcome, Refusal};
use dunlin_model::id::DeviceId;
use dunlin_model::port::BlobError;
use dunlin_model::upload::{NewFileNotice, UPLOADS_ALIVE_MAX, Upload};
use serde::Deserialize;
use serde_json::{Value, json};

use super::authorize::{self, Claim};
use super::error::ApiError;
use crate::listen::Peer;
use crate::metrics::count;
use crate::quota::Cost;
use crate::shared::Shared;
use crate::uploads::token::Drawn;
use crate::uploads::{Grant, blocks, name, uploads_of};

/// Where HTTPS is if nobody says so.
const HTTPS_PORT: u16 = 443;

/// What a device sends that wants to upload a file.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct BeginInput {
    blob_name: String,
}

/// What stands in it is looked at one by one: clients differ.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct EndInput {
    correlation_id: Option<String>,
    #[serde(default)]
    is_success: Value,
    #[serde(default)]
    status_code: Value,
    #[serde(default)]
    status_description: Value,
}

/// `POST /devices/{id}/files`: a device wants to upload a file.
pub(crate) async fn begin(
    State(shared): State<Arc<Shared>>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Body, BytesRejection>,
) -> Result<Response, ApiError> {
    let device = DeviceId::parse(&id).map_err(|_| ApiError::unauthorized())?;
    let claim = Claim::of(&device, &headers, &peer);
    let (view, _) = authorize::device(&shared, claim, Consistency::Leader).await?;
    let input: BeginInput = read(body)?;
    if let Some(problem) = name::problem(&device, &input.blob_name) {
        return Err(ApiError::invalid(problem));
    }
    // What is going to be refused costs nothing.
    let known = uploads_of(&shared, &device, Consistency::Leader).await?;
    let now_ms = shared.now_ms();
    if known.iter().filter(|upload| upload.is_alive(now_ms)).count() >= UPLOADS_ALIVE_MAX {
        count(&shared.metrics.uploads_refused);
        return Err(ApiError::refused(Refusal::TooManyUploads, &device));
    }
    shared.charge(Cost::upload()).await?;
    let drawn = Drawn::new();
    let config = &shared.uploads.config;
    let command = |generation| Command::UploadBegin {
        device: device.clone(),
        generation,
        id: drawn.id.clone(),
        blob: input.blob_name.clone(),
        secret_digest: drawn.digest(),
        ttl_ms: config.token_life.as_millis() as u64,
    };
    let outcome = submit(&shared, claim, view.record.generation, command).await;
    let expires_ms = match outcome? {
        Outcome::UploadBegun { expires_ms } => expires_ms,
        Outcome::Refused(refusal) => {
            count(&shared.metrics.uploads_refused);
            return Err(ApiError::refused(refusal, &device));
        }
        _ => return Err(ApiError::internal("an outcome of another kind")),
    };
    count(&shared.metrics.uploads_begun);
    let answer = json!({
        "correlationId": drawn.id,
        "hostName": reached_as(&shared, &uri, &headers),
        "containerName": config.container,
        "blobName": format!("{device}/{}", input.blob_name),
        "sasToken": drawn.text(expires_ms),
    });
    Ok(Json(answer).into_response())
}

/// `POST /devices/{id}/files/notifications`, with the correlation id in the path or in the body: an upload is over.
pub(crate) async fn end(
    State(shared): State<Arc<Shared>>,
    Extension(peer): Extension<Peer>,
    Path(path): Path<HashMap<String, String>>,
    headers: HeaderMap,
    body: Result<Body, BytesRejection>,
) -> Result<Response, ApiError> {
    let device = path.get("id").and_then(|id| DeviceId::parse(id).ok());
    let device = device.ok_or_else(ApiError::unauthorized)?;
    let claim = Claim::of(&device, &headers, &peer);
    let (view, _) = authorize::device(&shared, claim, Consistency::Leader).await?;
    let input: EndInput = read(body)?;
    let id = path.get("correlation").cloned().or(input.correlation_id);
    let id = id.ok_or_else(|| ApiError::invalid("there is no correlationId"))?;
    let (Value::Bool(is_success), Value::Null | Value::Number(_)) = (input.is_success, &input.status_code)
    else {
        return Err(ApiError::no_completion());
    };
    let known = uploads_of(&shared, &device, Consistency::Linearizable).await?;
    let upload = known.into_iter().find(|upload| upload.id == id);
    let upload = upload.ok_or_else(ApiError::no_upload)?;
    if upload.has_ended {
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    if !upload.is_alive(shared.now_ms()) {
        return Err(ApiError::refused(Refusal::UploadLapsed, &device));
    }
    let notice = match is_success {
        false => {
            tracing::debug!(%device, code = %input.status_code, why = %input.status_description, "an upload has failed");
            None
        }
        true => Some(describe(&shared, &device, &upload).await?),
    };
    let notice = notice.filter(|_| shared.uploads.config.notifies).map(Box::new);
    let command = |generation| Command::UploadEnd {
        device: device.clone(),
        generation,
        id: id.clone(),
        notice: notice.clone(),
    };
    match submit(&shared, claim, view.record.generation, command).await? {
        Outcome::Done => {
            count(&shared.metrics.uploads_ended);
            blocks::clear(&shared, &upload);
            Ok(StatusCode::NO_CONTENT.into_response())
        }
        Outcome::Refused(refusal) => Err(ApiError::refused(refusal, &device)),
        _ => Err(ApiError::internal("an outcome of another kind")),
    }
}

fn read<T: for<'a> Deserialize<'a>>(body: Result<Body, BytesRejection>) -> Result<T, ApiError> {
    let body = body.map_err(|_| ApiError::too_large())?;
    serde_json::from_slice(&body).map_err(|error| ApiError::invalid(error.to_string()))
}

/// Submits a command under the generation of the device's credential, and once more under a newer one if the credential
/// counts there as well.
async fn submit(
    shared: &Shared,
    claim: Claim<'_>,
    generation: u64,
    command: impl Fn(u64) -> Command,
) -> Result<Outcome, ApiError> {
    match shared.client.submit(command(generation)).await? {
        Outcome::Refused(Refusal::StaleGeneration) => {
            let (view, _) = authorize::device(shared, claim, Consistency::Linearizable).await?;
            Ok(shared.client.submit(command(view.record.generation)).await?)
        }
        outcome => Ok(outcome),
    }
}

/// What services are told of a file that came whole under this upload, and is there.
async fn describe(shared: &Shared, device: &DeviceId, upload: &Upload) -> Result<NewFileNotice, ApiError> {
    let config = &shared.uploads.config;
    let grant = Grant {
        device: device.clone(),
        upload: upload.clone(),
    };
    let silent = |error: BlobError| {
        tracing::warn!(%error, "the object store failed");
        ApiError::unavailable("the object store does not answer")
    };
    // What was there before is nobody's news.
    let has_come = blocks::has_come(shared, upload).await.map_err(silent)?;
    let info = match grant.path(config).filter(|_| has_come) {
        None => None,
        Some(path) => shared.hooks.blobs.info(path).await.map_err(silent)?,
    };
    let info = info.ok_or_else(ApiError::no_blob)?;
    let blob = format!("{device}/{}", upload.blob);
    Ok(NewFileNotice {
        uri: format!(
            "https://{}/{}/{}",
            shared.hub_address,
            config.container,
            name::in_address(&blob)
        ),
        blob,
        modified_ms: info.modified_ms,
        bytes: info.bytes,
    })
}

/// The hub's own name, with the port of its HTTPS if that is an unusual one: what services are told, whoever asked. `https`
/// are the addresses that are bound.
pub(crate) fn hub_address(host_names: &[String], https: &[SocketAddr]) -> String {
    let name = host_names.first().map_or("localhost", String::as_str);
    let is_usual = https.iter().any(|address| address.port() == HTTPS_PORT);
    match https.first().filter(|_| !is_usual) {
        None => name.to_owned(),
        Some(address) => format!("{name}:{}", address.port()),
    }
}

/// The name under which whoever asks has reached this hub, with the port if it is an unusual one. A name that is none of
/// the hub's is not believed.
fn reached_as(shared: &Shared, uri: &Uri, headers: &HeaderMap) -> String {
    let shown = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let shown = shown.and_then(|host| host.parse::<Authority>().ok());
    let shown = shown.as_ref().or(uri.authority());
    let name = shown.map(Authority::host).filter(|name| {
        let mut names = shared.host_names.iter();
        names.any(|known| known.eq_ignore_ascii_case(name))
    });
    let name = name.unwrap_or(&shared.host_names[0]);
    match shown
        .and_then(Authority::port_u16)
        .filter(|port| *port != HTTPS_PORT)
    {
        None => name.to_owned(),
        Some(port) => format!("{name}:{port}"),
    }
}
