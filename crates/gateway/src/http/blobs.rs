//! The files themselves, over the part of Azure Storage's interface that uploads need: a whole file, a block of one, a list
//! of blocks that are to be one, with the token of an upload; and reading, for services alone.
//!
//! Which token counts is decided in [`crate::uploads`]. Bodies go into the object store as they come and are never
//! gathered here.

use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use axum::body::Body;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use dunlin_model::audit::AuditRecord;
use dunlin_model::directory::Right;
use dunlin_model::id::DeviceId;
use dunlin_model::port::{BlobError, BlobInfo, BlobRead};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout};
use tokio_util::task::TaskTracker;

use super::audited::Audited;
use super::authorize::{self, claimed};
use super::blob_fault::{BlobFault, stamp};
use super::error::ApiError;
use crate::limits::{UPLOAD_LIST_BYTES_MAX, UPLOAD_READ_STALL_WAIT};
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
    let until = Instant::now() + shared.uploads.config.body_wait;
    let work = async move {
        let answer = async {
            let what = What::read(&query, &headers)?;
            let grant = granted(&shared, &device, &blob, &query).await?;
            take_in(&shared, grant, what, headers, body, until).await
        };
        answer.await.unwrap_or_else(|fault: BlobFault| {
            count(&metrics.uploads_refused);
            let record = fault.is_of_token().then(|| {
                // Never the query: the token stands in it.
                let path = format!("/{}/{device}/{blob}", shared.uploads.config.container);
                AuditRecord::refused("http.request", claimed(&device), claimed(&path), fault.code())
            });
            let mut response = fault.into_response();
            if let Some(record) = record {
                response.extensions_mut().insert(Audited(record));
            }
            response
        })
    };
    // Goes on without its connection: what was begun is ended, and thrown away if it is not whole.
    let ended = tasks.spawn(work).await;
    ended.unwrap_or_else(|_| BlobFault::internal("nobody knows what became of it").into_response())
}

/// What a body is.
pub(crate) enum What {
    File,
    Block(BlockId),
    List,
}

impl What {
    pub(crate) fn read(query: &str, headers: &HeaderMap) -> Result<Self, BlobFault> {
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
    shared: &Arc<Shared>,
    grant: Grant,
    what: What,
    headers: HeaderMap,
    body: Body,
    until: Instant,
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
    let length = length.and_then(|length| length.parse::<u64>().ok());
    if length > Some(bytes_max) {
        return Err(BlobFault::too_large(bytes_max));
    }
    let _seat = shared.uploads.enter(&grant.device).ok_or_else(BlobFault::busy)?;
    match what {
        What::Block(id) => {
            blocks::wait_for_room(shared, &grant, until).await?;
            let place = blocks::reserve(shared, &grant, length.unwrap_or(bytes_max)).await?;
            let to = blocks::path(&grant.upload, &id);
            let bytes = receive(shared, &grant, to, body, bytes_max, until).await?;
            place.fill(bytes);
            Ok(created(None))
        }
        What::File => {
            check_condition(shared, &path, &headers).await?;
            receive(shared, &grant, path.clone(), body, bytes_max, until).await?;
            blocks::mark_whole(shared, &grant).await?;
            written(shared, path).await
        }
        What::List => {
            let text = gather(body, UPLOAD_LIST_BYTES_MAX, until).await?;
            let ids = blocks::read_list(&text)?;
            let check = async || check_condition(shared, &path, &headers).await;
            blocks::make(shared, &grant, path.clone(), &ids, until, check).await?;
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
    // Past the year 9999 that form has no dates.
    let ms = ms.min(HTTP_DATE_MS_MAX);
    httpdate::fmt_http_date(UNIX_EPOCH + Duration::from_millis(ms))
}

/// The end of the year 9999, milliseconds since 1970.
const HTTP_DATE_MS_MAX: u64 = 253_402_300_799_999;

/// `GET /{container}/{device}/{blob}`: a service reads a file. The token of an upload opens nothing here.
pub(crate) async fn get(
    State(shared): State<Arc<Shared>>,
    Path((device, blob)): Path<(String, String)>,
    method: Method,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let path = [shared.uploads.config.container.as_str(), &device, &blob];
    authorize::service(&shared, &headers, Right::ServiceConnect, &path)?;
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
        false => {
            let seat = shared.uploads.enter_reading();
            let seat = seat.ok_or_else(BlobFault::too_many_readers)?;
            match blobs.read(path).await? {
                None => (None, Body::empty()),
                Some((info, read)) => (Some(info), streamed(read, seat, &shared.tasks)),
            }
        }
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

/// A file as a body. One that cannot be read to its end is cut, so that its length tells; and so is one that stands still,
/// be it for its reader or for the store. The seat is held until then, also by a reader who does nothing.
fn streamed(mut read: Box<dyn BlobRead>, seat: OwnedSemaphorePermit, tasks: &TaskTracker) -> Body {
    let (pieces, taken) = mpsc::channel(PIECES_WAITING_MAX);
    tasks.spawn(async move {
        let _seat = seat;
        loop {
            let piece = match timeout(UPLOAD_READ_STALL_WAIT, read.next()).await {
                Ok(piece) => piece,
                Err(_) => Err(BlobError::Failed("the object store stands still".to_owned())),
            };
            let goes_on = matches!(piece, Ok(Some(_)));
            let given = timeout(UPLOAD_READ_STALL_WAIT, pieces.send(piece)).await;
            if !goes_on || !matches!(given, Ok(Ok(()))) {
                return;
            }
        }
    });
    let pieces = stream::try_unfold(taken, |mut taken: mpsc::Receiver<_>| async move {
        let cut = || Err(BlobError::Failed("nobody took it in time".to_owned()));
        let piece: Option<Bytes> = taken.recv().await.unwrap_or_else(cut)?;
        Ok::<_, BlobError>(piece.map(|piece| (piece, taken)))
    });
    Body::from_stream(pieces)
}

/// Pieces of a file that wait for its reader.
const PIECES_WAITING_MAX: usize = 1;

#[cfg(test)]
mod tests {
    use dunlin_model::port::BoxFuture;
    use futures_util::StreamExt as _;
    use tokio::sync::Semaphore;

    use super::*;

    /// A file of so many pieces.
    struct Pieces(usize);

    impl BlobRead for Pieces {
        fn next(&mut self) -> BoxFuture<'_, Result<Option<Bytes>, BlobError>> {
            let piece = self.0.checked_sub(1).map(|left| {
                self.0 = left;
                Bytes::from_static(b"piece")
            });
            Box::pin(std::future::ready(Ok(piece)))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_reader_who_takes_nothing_gives_its_seat_back_and_hears_no_end() {
        let seats = Arc::new(Semaphore::new(1));
        let take = || Arc::clone(&seats).try_acquire_owned();
        let seat = take().expect("a seat");
        let slow = streamed(Box::new(Pieces(100)), seat, &TaskTracker::new());
        assert!(take().is_err());
        tokio::time::sleep(UPLOAD_READ_STALL_WAIT + Duration::from_secs(1)).await;
        let seat = take().expect("it is free again");
        let heard: Vec<_> = slow.into_data_stream().collect().await;
        assert!(heard.len() < 100 && heard.last().is_some_and(Result::is_err));
        let mut whole = streamed(Box::new(Pieces(100)), seat, &TaskTracker::new()).into_data_stream();
        let mut count = 0;
        while let Some(piece) = whole.next().await {
            assert_eq!(piece.expect("it is whole"), "piece");
            count += 1;
            tokio::time::sleep(UPLOAD_READ_STALL_WAIT / 2).await;
        }
        assert_eq!(count, 100);
    }

    #[test]
    fn dates_are_those_of_http() {
        for (ms, text) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777_000, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (1_893_456_000_999, "Tue, 01 Jan 2030 00:00:00 GMT"),
            (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
        ] {
            assert_eq!(http_date(ms), text);
        }
    }
}
