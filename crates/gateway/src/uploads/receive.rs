//! A body on its way into the store: bit by bit, within bounds of size and time, and whole or not at all.

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
    left: u64,
    bytes_max: u64,
}

impl Pieces {
    fn new(body: Body, bytes_max: u64) -> Self {
        Self {
            body: body.into_data_stream(),
            left: bytes_max,
            bytes_max,
        }
    }

    /// The next piece; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, BlobFault> {
        let piece = match timeout(UPLOAD_STALL_WAIT, self.body.next()).await {
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

#[cfg(test)]
mod tests {
    use futures_util::stream;

    use super::*;

    fn body(pieces: Vec<Result<Bytes, std::io::Error>>) -> Body {
        Body::from_stream(stream::iter(pieces).chain(stream::pending()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_stands_still_is_given_up_and_one_that_is_cut_is_not_whole() {
        let mut pieces = Pieces::new(body(vec![Ok(Bytes::from_static(b"a"))]), 10);
        assert_eq!(pieces.next().await, Ok(Some(Bytes::from_static(b"a"))));
        let begun = tokio::time::Instant::now();
        assert_eq!(pieces.next().await, Err(BlobFault::stalled()));
        assert_eq!(begun.elapsed(), UPLOAD_STALL_WAIT);
        let mut pieces = Pieces::new(body(vec![Err(std::io::Error::other("cut"))]), 10);
        assert_eq!(pieces.next().await, Err(BlobFault::cut()));
    }

    #[tokio::test]
    async fn no_more_is_gathered_than_may_be() {
        let whole = || {
            let pieces =
                ["12345", "6789"].map(|piece| Ok::<_, std::io::Error>(Bytes::from_static(piece.as_bytes())));
            Body::from_stream(stream::iter(pieces))
        };
        assert_eq!(gather(whole(), 9).await, Ok(Bytes::from_static(b"123456789")));
        assert_eq!(gather(whole(), 8).await, Err(BlobFault::too_large(8)));
    }
}
