//! ETags as SDKs send and read them. What a tag means is known where it was made.

use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::Response;

use super::error::ApiError;

/// What a request asks for by `If-Match`.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum IfMatch<'a> {
    /// There is no such header.
    Missing,
    /// `*`, quoted or not.
    Any,
    /// This tag, without quotes.
    Tag(&'a str),
}

/// Reads `If-Match`.
pub(crate) fn if_match(headers: &HeaderMap) -> Result<IfMatch<'_>, ApiError> {
    let Some(value) = headers.get(header::IF_MATCH) else {
        return Ok(IfMatch::Missing);
    };
    let text = value
        .to_str()
        .map_err(|_| ApiError::invalid("If-Match cannot be read"))?
        .trim();
    let text = text.strip_prefix("W/").unwrap_or(text).trim_matches('"');
    Ok(match text {
        "*" => IfMatch::Any,
        tag => IfMatch::Tag(tag),
    })
}

/// `response` with its ETag, quoted.
pub(crate) fn tagged(mut response: Response, tag: &str) -> Response {
    if let Ok(value) = HeaderValue::from_str(&format!("\"{tag}\"")) {
        response.headers_mut().insert(header::ETAG, value);
    }
    response
}
