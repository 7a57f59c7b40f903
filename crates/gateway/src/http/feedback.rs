//! Feedback on cloud-to-device messages over HTTPS, as IoT Hub has it: a batch under a lock, which is settled.
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
use crate::feedback::{self, BatchLock, FeedbackError};
use crate::shared::Shared;

/// `GET /messages/serviceBound/feedback`: a batch, or 204 when there is none.
pub(crate) async fn take(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    authorize::service(&shared, &headers, Right::ServiceConnect, feedback::PATH)?;
    let batch = feedback::take(&*shared.client, rand::random()).await?;
    let Some(batch) = batch else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let mut response = Json(feedback::to_json(&batch)).into_response();
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static(feedback::CONTENT_TYPE),
    );
    if let Ok(lock) = HeaderValue::try_from(format!("\"{}\"", batch.lock.text())) {
        headers.insert(header::ETAG, lock);
    }
    Ok(response)
}

/// `DELETE /messages/serviceBound/feedback/{lock}`: done with.
pub(crate) async fn complete(
    state: State<Arc<Shared>>,
    lock: Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    settle(state, lock, headers, true).await
}

/// `POST /messages/serviceBound/feedback/{lock}/abandon`: to be given again.
pub(crate) async fn abandon(
    state: State<Arc<Shared>>,
    lock: Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    settle(state, lock, headers, false).await
}

async fn settle(
    State(shared): State<Arc<Shared>>,
    Path(lock): Path<String>,
    headers: HeaderMap,
    completes: bool,
) -> Result<Response, ApiError> {
    authorize::service(&shared, &headers, Right::ServiceConnect, feedback::PATH)?;
    let shard_count = shared.client.directory().shard_count;
    let lock = BatchLock::parse(&lock).filter(|lock| lock.shard.0 < shard_count);
    let lock = lock.ok_or_else(ApiError::lock_lost)?;
    match shared.client.submit(feedback::settling(lock, completes)).await? {
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
