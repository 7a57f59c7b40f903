//! Errors about files in the form of Azure Storage: an XML body, and the header `x-ms-error-code`.

use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dunlin_model::port::{BlobError, QueryError};

use super::error::{PROVISIONING_CODE_HEADER as CODE_HEADER, answered_at};
use crate::provisioning::guid;
use crate::uploads::token::STORAGE_VERSION;

/// Seconds after which whoever was turned away may come again.
const RETRY_AFTER_S: &str = "1";

/// Statuses and names of these errors.
pub const BLOB_CODES: &[(u16, &str)] = &[
    (400, "IncompleteBody"),
    (400, "InvalidBlockId"),
    (400, "InvalidBlockList"),
    (400, "InvalidHeaderValue"),
    (400, "InvalidQueryParameterValue"),
    (400, "InvalidXmlDocument"),
    (401, "NoAuthenticationInformation"),
    (403, "AuthenticationFailed"),
    (404, "BlobNotFound"),
    (408, "OperationTimedOut"),
    (409, "BlobAlreadyExists"),
    (409, "BlockCountExceedsLimit"),
    (409, "ResourceTypeMismatch"),
    (413, "RequestBodyTooLarge"),
    (500, "InternalError"),
    (503, "ServerBusy"),
];

/// Why a file was not written, or is not shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlobFault {
    status: StatusCode,
    code: &'static str,
    message: String,
}

impl BlobFault {
    fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self {
            status,
            code,
            message: message.into(),
        }
    }

    /// Its name, as clients know it.
    pub(crate) fn code(&self) -> &'static str {
        self.code
    }

    /// Whether it refuses a token, or that there is none.
    pub(crate) fn is_of_token(&self) -> bool {
        matches!(self.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
    }

    /// 401: no token at all.
    pub(crate) fn no_token() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "NoAuthenticationInformation",
            "The address has no token of an upload.",
        )
    }

    /// 403: a token that does not count, or not for this. Which, is not told.
    pub(crate) fn authentication_failed() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "AuthenticationFailed",
            "The token counts for no upload of this file, or no longer.",
        )
    }

    pub(crate) fn not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "BlobNotFound",
            "The specified blob does not exist.",
        )
    }

    pub(crate) fn exists() -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "BlobAlreadyExists",
            "The specified blob already exists.",
        )
    }

    pub(crate) fn invalid_header(message: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidHeaderValue", message)
    }

    pub(crate) fn invalid_parameter(message: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidQueryParameterValue", message)
    }

    pub(crate) fn invalid_block_id() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "InvalidBlockId",
            "The block id is not Base64 of 1 to 64 bytes.",
        )
    }

    pub(crate) fn invalid_block_list(what: &str) -> Self {
        let message = format!("The specified block list is invalid: {what}.");
        Self::new(StatusCode::BAD_REQUEST, "InvalidBlockList", message)
    }

    pub(crate) fn invalid_xml(message: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "InvalidXmlDocument", message)
    }

    pub(crate) fn too_many_blocks(count_max: usize) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "BlockCountExceedsLimit",
            format!("A file has {count_max} blocks at the most."),
        )
    }

    pub(crate) fn too_large(bytes_max: u64) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "RequestBodyTooLarge",
            format!("There are more than {bytes_max} bytes."),
        )
    }

    /// 400: the body ended before it was whole. Nothing of it is kept.
    pub(crate) fn cut() -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "IncompleteBody",
            "The body ended early, or could not be read.",
        )
    }

    /// 408: the body stands still.
    pub(crate) fn stalled() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "OperationTimedOut",
            "Too little of the body has come for too long.",
        )
    }

    /// 408: the body has had its time. Nothing of it is kept.
    pub(crate) fn late() -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "OperationTimedOut",
            "The time for one body is over.",
        )
    }

    /// 503: as many bodies come in as may; nothing happened.
    pub(crate) fn busy() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ServerBusy",
            "Too many files are coming in at this gateway, or from this device.",
        )
    }

    /// 503: as many files are read as may be.
    pub(crate) fn too_many_readers() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ServerBusy",
            "Too many files are being read at this gateway.",
        )
    }

    pub(crate) fn internal(message: &str) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "InternalError", message)
    }
}

impl From<QueryError> for BlobFault {
    fn from(error: QueryError) -> Self {
        if matches!(error, QueryError::Store(_)) {
            tracing::warn!(%error, "query failed");
            return Self::internal("the query failed");
        }
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ServerBusy",
            "The device's shard cannot be reached from here.",
        )
    }
}

impl From<BlobError> for BlobFault {
    fn from(error: BlobError) -> Self {
        match error {
            BlobError::InTheWay => Self::new(StatusCode::CONFLICT, "ResourceTypeMismatch", error.to_string()),
            BlobError::Full => {
                tracing::warn!("a file is refused: the object store has no room");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "ServerBusy",
                    "There is no room to store more.",
                )
            }
            BlobError::Failed(_) => {
                tracing::warn!(%error, "the object store failed");
                Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "ServerBusy",
                    "The object store does not answer, or takes nothing.",
                )
            }
        }
    }
}

/// Puts on an answer what every answer about files has.
pub(crate) fn stamp(headers: &mut HeaderMap) -> String {
    let id = guid(rand::random());
    if let Ok(value) = HeaderValue::try_from(id.as_str()) {
        headers.insert("x-ms-request-id", value);
    }
    headers.insert("x-ms-version", HeaderValue::from_static(STORAGE_VERSION));
    id
}

impl IntoResponse for BlobFault {
    fn into_response(self) -> Response {
        let mut headers = HeaderMap::new();
        let id = stamp(&mut headers);
        let body = format!(
            "<?xml version=\"1.0\" encoding=\"utf-8\"?><Error><Code>{}</Code><Message>{}\nRequestId:{id}\nTime:{}</Message></Error>",
            self.code,
            escaped(&self.message),
            answered_at(),
        );
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/xml"));
        headers.insert(CODE_HEADER, HeaderValue::from_static(self.code));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
        }
        (self.status, headers, body).into_response()
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
