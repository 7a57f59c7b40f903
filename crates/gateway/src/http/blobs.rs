//! The files themselves, over the part of Azure Storage's interface that uploads need: a whole file, a block of one, a list
//! of blocks that are to be one, with the token of an upload; and reading, for services.
//!
//! Which token counts is decided in [`crate::uploads`]. Bodies go into the object store as they come and are never
//! gathered here.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use dunlin_model::directory::Right;
use dunlin_model::id::DeviceId;
use dunlin_model::iso_time::iso_utc;
use dunlin_model::port::{BlobInfo, BlobRead};
use futures_util::stream;

use super::authorize;
use super::blob_fault::{BlobFault, stamp};
use super::error::ApiError;
use crate::limits::UPLOAD_LIST_BYTES_MAX;
use crate::metrics::count;
use crate::shared::Shared;
use crate::uploads::blocks::{self, BlockId};
use crate::uploads::receive::{gather, receive};
use crate::uploads::token::parameter;
use crate::uploads::{Grant, name};

/// `PUT /{container}/{device}/{blob}`: a file, a block of it, or the list that makes a file of blocks.
pub(crate) async fn put(
    State(shared): State<Arc<Shared>>,
    Path((device, blob)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let query = query.unwrap_or_default();
    let (metrics, tasks) = (Arc::clone(&shared.metrics), shared.tasks.clone());
    let work = async move {
        let answer = async {
            let what = What::read(&query, &headers)?;
            let grant = granted(&shared, &device, &blob, &query).await?;
            take_in(&shared, grant, what, headers, body).await
        };
        answer.await.unwrap_or_else(|fault: BlobFault| {
            count(&metrics.uploads_refused);
            fault.into_response()
        })
    };
    // Goes on without its connection: what was begun is ended, and thrown away if it is not whole.
    let ended = tasks.spawn(work).await;
    ended.unwrap_or_else(|_| BlobFault::internal("nobody knows what became of it").into_response())
}

/// What a body is.
enum What {
    File,
    Block(BlockId),
    List,
}

impl What {
    fn read(query: &str, headers: &HeaderMap) -> Result<Self, BlobFault> {
        if parameter(query, "sig").is_none() {
            return Err(BlobFault::no_token());
        }
        match parameter(query, "comp").as_deref() {
            None => {
                let kind = headers.get("x-ms-blob-type").map(HeaderValue::as_bytes);
                match kind == Some(b"BlockBlob") {
                    true => Ok(What::File),
                    false => Err(BlobFault::invalid_header("x-ms-blob-type is not BlockBlob.")),
                }
            }
            Some("block") => {
                let id = parameter(query, "blockid").unwrap_or_default();
                let id = BlockId::parse(&id).ok_or_else(BlobFault::invalid_block_id)?;
                Ok(What::Block(id))
            }
            Some("blocklist") => Ok(What::List),
            Some(_) => Err(BlobFault::invalid_parameter(
                "comp is neither block nor blocklist.",
            )),
        }
    }
}

/// The upload that the token in `query` is for.
async fn granted(shared: &Shared, device: &str, blob: &str, query: &str) -> Result<Grant, BlobFault> {
    let secret = parameter(query, "sig").ok_or_else(BlobFault::no_token)?;
    let device = DeviceId::parse(device).map_err(|_| BlobFault::authentication_failed())?;
    let grant = Grant::of_token(shared, &device, blob, &secret).await?;
    grant.ok_or_else(BlobFault::authentication_failed)
}

async fn take_in(
    shared: &Shared,
    grant: Grant,
    what: What,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, BlobFault> {
    let config = &shared.uploads.config;
    let path = grant.path(config).ok_or_else(BlobFault::not_found)?;
    let bytes_max = match &what {
        What::File => config.file_bytes_max,
        What::Block(_) => config.block_bytes_max.min(config.file_bytes_max),
        What::List => UPLOAD_LIST_BYTES_MAX as u64,
    };
    let length = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok());
    if length.and_then(|length| length.parse::<u64>().ok()) > Some(bytes_max) {
        return Err(BlobFault::too_large(bytes_max));
    }
    let _seat = shared.uploads.enter(&grant.device).ok_or_else(BlobFault::busy)?;
    match what {
        What::Block(id) => {
            blocks::check_room(shared, &grant).await?;
            let to = blocks::path(&grant.upload, &id);
            let bytes = receive(shared, &grant, to, body, bytes_max).await?;
            blocks::handle_staged(shared, &grant, bytes);
            Ok(created(None))
        }
        What::File => {
            check_condition(shared, &path, &headers).await?;
            receive(shared, &grant, path.clone(), body, bytes_max).await?;
            written(shared, path).await
        }
        What::List => {
            let text = gather(body, UPLOAD_LIST_BYTES_MAX).await?;
            let ids = blocks::read_list(&text)?;
            if !blocks::was_made(shared, &grant, &ids).await? {
                check_condition(shared, &path, &headers).await?;
                blocks::make(shared, &grant, path.clone(), &ids).await?;
            }
            written(shared, path).await
        }
    }
}

/// Whether a file may stand in place of another. Of conditions there is one: that there is none.
async fn check_condition(shared: &Shared, path: &str, headers: &HeaderMap) -> Result<(), BlobFault> {
    let others = [
        header::IF_MATCH,
        header::IF_MODIFIED_SINCE,
        header::IF_UNMODIFIED_SINCE,
    ];
    let absent = headers
        .get(header::IF_NONE_MATCH)
        .map(|value| value.as_bytes() == b"*");
    if absent == Some(false) || others.iter().any(|name| headers.contains_key(name)) {
        return Err(BlobFault::invalid_header(
            "Of conditions, If-None-Match: * alone is known.",
        ));
    }
    match absent == Some(true) && shared.hooks.blobs.info(path.to_owned()).await?.is_some() {
        true => Err(BlobFault::exists()),
        false => Ok(()),
    }
}

/// The answer to a file that is there now.
async fn written(shared: &Shared, path: String) -> Result<Response, BlobFault> {
    let info = shared.hooks.blobs.info(path).await?;
    Ok(created(info.as_ref()))
}

fn created(info: Option<&BlobInfo>) -> Response {
    let mut response = StatusCode::CREATED.into_response();
    let headers = response.headers_mut();
    stamp(headers);
    if let Some(info) = info {
        describe(headers, info);
    }
    response
}

/// What tells this state of a file from others.
fn describe(headers: &mut HeaderMap, info: &BlobInfo) {
    let own = || format!("{:x}-{:x}", info.modified_ms, info.bytes);
    let tag = info.tag.clone().unwrap_or_else(own);
    for (name, value) in [
        (header::ETAG, format!("\"{tag}\"")),
        (header::LAST_MODIFIED, http_date(info.modified_ms)),
    ] {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.insert(name, value);
        }
    }
}

/// `Sun, 06 Nov 1994 08:49:37 GMT`.
fn http_date(ms: u64) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let iso = iso_utc(ms);
    let part = |from: usize, to: usize| iso.get(from..to).unwrap_or_default();
    let month: usize = part(5, 7).parse().unwrap_or(1);
    format!(
        "{}, {} {} {} {} GMT",
        DAYS[(ms / 86_400_000 % 7) as usize],
        part(8, 10),
        MONTHS[month.saturating_sub(1) % 12],
        part(0, 4),
        part(11, 19),
    )
}

/// `GET /{container}/{device}/{blob}`: a service reads a file, or a device the one that it has a token for.
pub(crate) async fn get(
    State(shared): State<Arc<Shared>>,
    Path((device, blob)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let query = query.unwrap_or_default();
    let container = &shared.uploads.config.container;
    if parameter(&query, "sig").is_some() {
        if let Err(fault) = granted(&shared, &device, &blob, &query).await {
            return Ok(fault.into_response());
        }
    } else {
        let path = [container.as_str(), &device, &blob];
        authorize::service(&shared, &headers, Right::ServiceConnect, &path)?;
    }
    let found = show(&shared, &device, &blob, method == Method::HEAD).await;
    Ok(found.unwrap_or_else(IntoResponse::into_response))
}

async fn show(shared: &Shared, device: &str, blob: &str, is_head: bool) -> Result<Response, BlobFault> {
    let device = DeviceId::parse(device).map_err(|_| BlobFault::not_found())?;
    if name::problem(&device, blob).is_some() {
        return Err(BlobFault::not_found());
    }
    let path = name::store_path(&shared.uploads.config.container, &device, blob);
    let path = path.ok_or_else(BlobFault::not_found)?;
    let blobs = &shared.hooks.blobs;
    let (info, body) = match is_head {
        true => (blobs.info(path).await?, Body::empty()),
        false => match blobs.read(path).await? {
            None => (None, Body::empty()),
            Some((info, read)) => (Some(info), streamed(read)),
        },
    };
    let info = info.ok_or_else(BlobFault::not_found)?;
    let mut response = body.into_response();
    let headers = response.headers_mut();
    stamp(headers);
    describe(headers, &info);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(info.bytes));
    for (name, value) in [
        ("content-type", "application/octet-stream"),
        // What a device has sent is nothing that a browser should run here.
        ("content-disposition", "attachment"),
        ("x-content-type-options", "nosniff"),
        ("x-ms-blob-type", "BlockBlob"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

/// A file as a body. One that cannot be read to its end is cut, so that its length tells.
fn streamed(read: Box<dyn BlobRead>) -> Body {
    let pieces = stream::try_unfold(read, |mut read| async move {
        let piece = read.next().await?;
        Ok::<_, dunlin_model::port::BlobError>(piece.map(|piece| (piece, read)))
    });
    Body::from_stream(pieces)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_those_of_http() {
        for (ms, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777_000, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (1_893_456_000_999, "Tue, 01 Jan 2030 00:00:00 GMT"),
        ] {
            assert_eq!(http_date(ms), text);
        }
    }
}
