//! Receipts over HTTP: those of writes, which their answers carry, and those that a query shows, whose writes it must see.
//!
//! What a receipt says is in `dunlin_model::command::receipt`; nothing here is remembered.

use std::fmt::Display;

use axum::http::{HeaderMap, HeaderValue};
use axum::response::Response;
use dunlin_model::command::{Consistency, Query, RECEIPTS_SHOWN_MAX, View, Wanted};
use futures_util::future::try_join_all;

use super::error::ApiError;
use crate::mqtt::wire::RECEIPT_PROPERTY;
use crate::shared::Shared;

/// Header with receipts, in both directions: `shard/offset/term` of a message, `shard/@index/term` of any other write.
/// Several are separated by commas.
pub(crate) const RECEIPT_HEADER: &str = RECEIPT_PROPERTY;

/// The answer to a write, with its receipts.
pub(crate) fn receipted(mut response: Response, receipts: impl Display) -> Response {
    let text = receipts.to_string();
    if !text.is_empty()
        && let Ok(value) = HeaderValue::from_str(&text)
    {
        response.headers_mut().insert(RECEIPT_HEADER, value);
    }
    response
}

/// Whoever names the receipt of a write wants it, and what was acknowledged before it in its shard, to be seen. That is
/// always so: a hub that does not have it is another one, or an older copy of this one.
pub(crate) async fn see(shared: &Shared, headers: &HeaderMap) -> Result<(), ApiError> {
    let unreadable = || {
        ApiError::invalid(format!(
            "{RECEIPT_HEADER} has up to {RECEIPTS_SHOWN_MAX} of shard/offset/term and shard/@index/term, with commas"
        ))
    };
    let texts = headers.get_all(RECEIPT_HEADER).iter();
    let texts: Result<Vec<&str>, _> = texts.map(HeaderValue::to_str).collect();
    let wanted = Wanted::parse(texts.map_err(|_| unreadable())?).map_err(|_| unreadable())?;
    let shard_count = shared.client.directory().shard_count;
    let asking = wanted.each().map(async |(shard, least)| {
        if shard.0 >= shard_count {
            return Err(ApiError::not_seen(shard));
        }
        let query = Query::Shard(shard);
        match shared.client.query(query, Consistency::Linearizable).await? {
            View::Shard(view) if least.is_in(&view) => Ok(()),
            View::Shard(_) => Err(ApiError::not_seen(shard)),
            _ => Err(ApiError::internal("an answer of another kind")),
        }
    });
    try_join_all(asking).await.map(|_| ())
}
