//! `POST /devices/query`: IoT Hub's query language over REST, with its pages.
//!
//! What a query means is decided in `dunlin_model`, how the shards' parts become one answer in [`crate::fleet`].

use std::sync::Arc;

use axum::body::Bytes as Body;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use dunlin_model::limits::FLEET_PAGE_MAX;
use dunlin_model::query_language::{Select, Source, Statement};
use dunlin_model::quota::Operation;
use serde::Deserialize;
use tokio::time::Instant;

use super::authorize;
use super::devices::CONTINUATION;
use super::error::ApiError;
use super::receipts;
use super::twins::charge_rest;
use crate::auth::BASE64;
use crate::fleet::{self, Asked, Cursor, FleetError, Page};
use crate::limits::{QUERY_PAGE_DEFAULT, QUERY_PAGE_WAIT};
use crate::quota::Cost;
use crate::shared::Shared;

/// Header that says what is on a page.
pub(crate) const ITEM_TYPE: &str = "x-ms-item-type";
/// Header that says how many may be on it.
pub(crate) const ITEM_COUNT: &str = "x-ms-max-item-count";

/// What a service sends.
#[derive(Debug, Deserialize)]
struct Input {
    query: String,
}

/// `POST /devices/query`.
pub(crate) async fn ask(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Result<Body, BytesRejection>,
) -> Result<Response, ApiError> {
    authorize::reader(&shared, &headers, &["devices", "query"])?;
    let asked = read(&body.map_err(|_| ApiError::too_large())?)?;
    let count_max = page_size(&headers)?;
    let cursor = cursor(&headers, &asked)?;
    let turn = shared.queries.try_acquire();
    let _turn = turn.map_err(|_| ApiError::busy("queries of this gateway"))?;
    shared.charge(Cost::message(Operation::Query, 0)).await?;
    receipts::see(&shared, &headers).await?;
    if asked.statement.is_aggregate() {
        let rows = fleet::groups(&*shared.client, &asked).await?;
        let rows = rows.iter().map(ToString::to_string).collect();
        return Ok(answer(&shared, &asked.statement, &Page { rows, next: None }));
    }
    let deadline = Instant::now() + QUERY_PAGE_WAIT;
    let page = fleet::page(&*shared.client, &asked, cursor, count_max, deadline).await?;
    Ok(answer(&shared, &asked.statement, &page))
}

fn answer(shared: &Shared, statement: &Statement, page: &Page) -> Response {
    let response = respond(statement, page);
    charge_rest(shared, &response);
    response
}

/// Reads the body of a request.
pub(crate) fn read(body: &[u8]) -> Result<Asked, ApiError> {
    let input: Input = serde_json::from_slice(body)
        .map_err(|error| ApiError::invalid(format!("the body is not a query: {error}")))?;
    let statement =
        Statement::parse(&input.query).map_err(|error| ApiError::invalid(format!("the query: {error}")))?;
    Ok(Asked {
        statement,
        text: input.query,
    })
}

/// Rows that the caller wants on a page.
pub(crate) fn page_size(headers: &HeaderMap) -> Result<usize, ApiError> {
    let Some(value) = headers.get(ITEM_COUNT) else {
        return Ok(QUERY_PAGE_DEFAULT);
    };
    let count: Option<usize> = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    match count {
        Some(count) if count >= 1 => Ok(count.min(FLEET_PAGE_MAX)),
        _ => Err(ApiError::invalid(format!(
            "{ITEM_COUNT} is a number from 1 to {FLEET_PAGE_MAX}"
        ))),
    }
}

fn cursor(headers: &HeaderMap, asked: &Asked) -> Result<Cursor, ApiError> {
    let Some(value) = headers.get(CONTINUATION) else {
        return Ok(Cursor::first(asked));
    };
    let cursor = value.to_str().ok().and_then(parse_cursor);
    cursor.ok_or_else(|| ApiError::invalid("the continuation cannot be read"))
}

/// `shard:place`, or `shard:place:rows left` for a query with `TOP`.
pub(crate) fn parse_cursor(text: &str) -> Option<Cursor> {
    let (shard, rest) = text.split_once(':')?;
    let (after, left) = match rest.split_once(':') {
        Some((after, left)) => (after, Some(left.parse().ok()?)),
        None => (rest, None),
    };
    Some(Cursor {
        shard: shard.parse().ok()?,
        after: BASE64.decode(after).ok()?.into(),
        left,
    })
}

/// As [`parse_cursor`] reads it.
pub(crate) fn cursor_text(cursor: &Cursor) -> String {
    let place = format!("{}:{}", cursor.shard, BASE64.encode(&cursor.after));
    match cursor.left {
        Some(left) => format!("{place}:{left}"),
        None => place,
    }
}

fn respond(statement: &Statement, page: &Page) -> Response {
    let kind = match (&statement.select, statement.source) {
        (Select::All, Source::Devices | Source::Modules) => "Twin",
        (Select::All, Source::Jobs) => "DeviceJob",
        (Select::Columns(_), _) => "Raw",
    };
    let body = format!("[{}]", page.rows.join(","));
    let json = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let mut response = ([json], body).into_response();
    let headers = response.headers_mut();
    headers.insert(ITEM_TYPE, HeaderValue::from_static(kind));
    if let Some(next) = &page.next
        && let Ok(value) = HeaderValue::from_str(&cursor_text(next))
    {
        headers.insert(CONTINUATION, value);
    }
    response
}

impl From<FleetError> for ApiError {
    fn from(error: FleetError) -> Self {
        match error {
            FleetError::Refused(why) => Self::invalid(format!("the query: {why}")),
            FleetError::Query(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_continuation_comes_back_as_it_was() {
        for cursor in [
            Cursor {
                shard: 0,
                after: Body::new(),
                left: None,
            },
            Cursor {
                shard: 255,
                after: Body::from_static(b"\x00\xFFd"),
                left: Some(7),
            },
        ] {
            assert_eq!(parse_cursor(&cursor_text(&cursor)), Some(cursor));
        }
        for wrong in ["", "1", "x:", "1:!", "1::", "1::x", "-1:", "1:::"] {
            assert_eq!(parse_cursor(wrong), None, "{wrong}");
        }
    }
}
