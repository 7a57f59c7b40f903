//! What services are owed over HTTPS, as IoT Hub has it: a batch of feedback on cloud-to-device messages, or a
//! notification of a file, under a lock, which is settled.
//!
//! Where it comes from is [`crate::feedback`].

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dunlin_model::command::Outcome;
use dunlin_model::directory::Right;

use super::authorize;
use super::error::ApiError;
use crate::feedback::{self, BatchLock, FeedbackError, Kind};
use crate::shared::Shared;

/// What a path is about.
pub(crate) trait Owed {
    const KIND: Kind;
}

/// Feedback on messages.
pub(crate) struct OnMessages;

/// Notifications of files.
pub(crate) struct OnFiles;

impl Owed for OnMessages {
    const KIND: Kind = Kind::Feedback;
}

impl Owed for OnFiles {
    const KIND: Kind = Kind::Files;
}

/// `GET /messages/serviceBound/..`: a batch, or 204 when there is none.
pub(crate) async fn take<T: Owed>(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let kind = T::KIND;
    authorize::service(&shared, &headers, Right::ServiceConnect, kind.path())?;
    let batch = feedback::take(&*shared.client, kind, rand::random(), shared.now_ms()).await?;
    let Some(batch) = batch else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let mut response = Json(feedback::to_json(&batch)).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(kind.content_type()),
    );
    if let Ok(lock) = HeaderValue::try_from(format!("\"{}\"", batch.lock.text())) {
        headers.insert(header::ETAG, lock);
    }
    Ok(response)
}

/// `DELETE /messages/serviceBound/../{lock}`: done with.
pub(crate) async fn complete<T: Owed>(
    State(shared): State<Arc<Shared>>,
    Path(lock): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    settle(&shared, &lock, &headers, T::KIND, true).await
}

/// `POST /messages/serviceBound/../{lock}/abandon`: to be given again.
pub(crate) async fn abandon<T: Owed>(
    State(shared): State<Arc<Shared>>,
    Path(lock): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    settle(&shared, &lock, &headers, T::KIND, false).await
}

async fn settle(
    shared: &Shared,
    lock: &str,
    headers: &HeaderMap,
    kind: Kind,
    completes: bool,
) -> Result<Response, ApiError> {
    authorize::service(shared, headers, Right::ServiceConnect, kind.path())?;
    let shard_count = shared.client.directory().shard_count;
    let lock = BatchLock::parse(lock).filter(|lock| lock.shard.0 < shard_count);
    let lock = lock.ok_or_else(ApiError::lock_lost)?;
    let command = feedback::settling(kind, lock, completes);
    match shared.client.submit(command).await? {
        Outcome::Done => Ok(StatusCode::NO_CONTENT.into_response()),
        Outcome::Refused(_) => Err(ApiError::lock_lost()),
        _ => Err(ApiError::internal("an outcome of another kind")),
    }
}

impl From<FeedbackError> for ApiError {
    fn from(error: FeedbackError) -> Self {
        match error {
            FeedbackError::Query(error) => error.into(),
            FeedbackError::Submit(error) => error.into(),
            FeedbackError::Odd => Self::internal("an answer of another kind"),
        }
    }
}
