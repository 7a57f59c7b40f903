//! A body on its way into the store: bit by bit, within bounds of size and time, and whole or not at all.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use dunlin_model::port::BlobWrite;
use futures_util::StreamExt as _;
use tokio::time::timeout;

use super::Grant;
use crate::http::blob_fault::BlobFault;
use crate::limits::UPLOAD_STALL_WAIT;
use crate::metrics::count_by;
use crate::shared::Shared;

/// A body, piece by piece.
struct Pieces {
    body: axum::body::BodyDataStream,
    wait: Duration,
    left: u64,
    bytes_max: u64,
}

impl Pieces {
    fn new(body: Body, bytes_max: u64) -> Self {
        Self {
            body: body.into_data_stream(),
            wait: UPLOAD_STALL_WAIT,
            left: bytes_max,
            bytes_max,
        }
    }

    /// The next piece; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, BlobFault> {
        let piece = match timeout(self.wait, self.body.next()).await {
            Err(_) => return Err(BlobFault::stalled()),
            Ok(None) => return Ok(None),
            Ok(Some(piece)) => piece.map_err(|_| BlobFault::cut())?,
        };
        let rest = self.left.checked_sub(piece.len() as u64);
        self.left = rest.ok_or_else(|| BlobFault::too_large(self.bytes_max))?;
        Ok(Some(piece))
    }
}

/// Writes a body into the file at `path`, if the upload still counts when it is whole. Returns its bytes.
pub(crate) async fn receive(
    shared: &Shared,
    grant: &Grant,
    path: String,
    body: Body,
    bytes_max: u64,
) -> Result<u64, BlobFault> {
    let mut file = shared.hooks.blobs.write(path).await?;
    let mut pieces = Pieces::new(body, bytes_max);
    let all = async {
        let mut bytes = 0;
        while let Some(piece) = pieces.next().await? {
            bytes += piece.len() as u64;
            file.append(piece).await?;
        }
        Ok(bytes)
    };
    let came = all.await;
    finish(shared, grant, file, came).await
}

/// Puts a file in its place, or throws it away where something went wrong.
pub(super) async fn finish(
    shared: &Shared,
    grant: &Grant,
    file: Box<dyn BlobWrite>,
    came: Result<u64, BlobFault>,
) -> Result<u64, BlobFault> {
    let checked = match came {
        Err(fault) => Err(fault),
        Ok(bytes) => match grant.still_counts(shared).await {
            Ok(true) => Ok(bytes),
            Ok(false) => Err(BlobFault::authentication_failed()),
            Err(error) => Err(error.into()),
        },
    };
    match checked {
        Err(fault) => {
            file.abandon().await;
            Err(fault)
        }
        Ok(bytes) => {
            file.finish().await?;
            count_by(&shared.metrics.upload_bytes, bytes);
            Ok(bytes)
        }
    }
}

/// A small body, gathered.
pub(crate) async fn gather(body: Body, bytes_max: usize) -> Result<Bytes, BlobFault> {
    let mut pieces = Pieces::new(body, bytes_max as u64);
    let mut all = BytesMut::new();
    while let Some(piece) = pieces.next().await? {
        all.extend_from_slice(&piece);
    }
    Ok(all.freeze())
}
