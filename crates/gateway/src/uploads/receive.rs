//! A body on its way into the store: bit by bit, within bounds of size and time, and whole or not at all.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use dunlin_model::port::BlobWrite;
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout, timeout_at};

use super::Grant;
use crate::http::blob_fault::BlobFault;
use crate::limits::{UPLOAD_RATE_BYTES_MIN, UPLOAD_STALL_WAIT};
use crate::metrics::count_by;
use crate::shared::Shared;

/// A body, piece by piece.
struct Pieces {
    body: axum::body::BodyDataStream,
    left: u64,
    bytes_max: u64,
    /// How long it may still be waited for until so much must have come.
    window_left: Duration,
    window_bytes: u64,
}

/// Bytes that come at the least while a body is waited for so long.
const WINDOW_BYTES_MIN: u64 = UPLOAD_RATE_BYTES_MIN * UPLOAD_STALL_WAIT.as_secs();

impl Pieces {
    fn new(body: Body, bytes_max: u64) -> Self {
        Self {
            body: body.into_data_stream(),
            left: bytes_max,
            bytes_max,
            window_left: UPLOAD_STALL_WAIT,
            window_bytes: 0,
        }
    }

    /// The next piece; `None` at the end.
    async fn next(&mut self) -> Result<Option<Bytes>, BlobFault> {
        let piece = loop {
            let begun = Instant::now();
            match timeout(self.window_left, self.body.next()).await {
                Err(_) if self.window_bytes < WINDOW_BYTES_MIN => return Err(BlobFault::stalled()),
                Err(_) => (self.window_left, self.window_bytes) = (UPLOAD_STALL_WAIT, 0),
                Ok(None) => return Ok(None),
                Ok(Some(piece)) => {
                    // The store's own time does not count.
                    self.window_left = self.window_left.saturating_sub(begun.elapsed());
                    break piece.map_err(|_| BlobFault::cut())?;
                }
            }
        };
        self.window_bytes += piece.len() as u64;
        let rest = self.left.checked_sub(piece.len() as u64);
        self.left = rest.ok_or_else(|| BlobFault::too_large(self.bytes_max))?;
        Ok(Some(piece))
    }
}

/// Writes a body into the file at `path`, if it is whole before `until` and the upload still counts then. Returns its
/// bytes.
pub(crate) async fn receive(
    shared: &Shared,
    grant: &Grant,
    path: String,
    body: Body,
    bytes_max: u64,
    until: Instant,
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
    let came = timeout_at(until, all).await;
    let came = came.unwrap_or_else(|_| Err(BlobFault::late()));
    finish(shared, grant, file, came, until).await
}

/// Puts a file in its place, or throws it away where something went wrong or time is over.
pub(super) async fn finish(
    shared: &Shared,
    grant: &Grant,
    file: Box<dyn BlobWrite>,
    came: Result<u64, BlobFault>,
    until: Instant,
) -> Result<u64, BlobFault> {
    let checked = match came {
        Err(fault) => Err(fault),
        Ok(bytes) => match grant.still_counts(shared).await {
            // Whoever asked may have been answered otherwise by now.
            Ok(true) if Instant::now() >= until => Err(BlobFault::late()),
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

/// A small body, gathered before `until`.
pub(crate) async fn gather(body: Body, bytes_max: usize, until: Instant) -> Result<Bytes, BlobFault> {
    let mut pieces = Pieces::new(body, bytes_max as u64);
    let gathered = async {
        let mut all = BytesMut::new();
        while let Some(piece) = pieces.next().await? {
            all.extend_from_slice(&piece);
        }
        Ok(all.freeze())
    };
    let gathered = timeout_at(until, gathered).await;
    gathered.unwrap_or_else(|_| Err(BlobFault::late()))
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
        let begun = Instant::now();
        assert_eq!(pieces.next().await, Err(BlobFault::stalled()));
        assert_eq!(begun.elapsed(), UPLOAD_STALL_WAIT);
        let mut pieces = Pieces::new(body(vec![Err(std::io::Error::other("cut"))]), 10);
        assert_eq!(pieces.next().await, Err(BlobFault::cut()));
    }

    /// A piece of `bytes` every `every_s` seconds, `count` times.
    fn dripping(bytes: usize, every_s: u64, count: usize) -> Body {
        let pieces = stream::iter(0..count).then(move |_| async move {
            tokio::time::sleep(Duration::from_secs(every_s)).await;
            Ok::<_, std::io::Error>(Bytes::from(vec![0; bytes]))
        });
        Body::from_stream(pieces)
    }

    #[tokio::test(start_paused = true)]
    async fn a_body_that_drips_gives_its_seat_back_and_a_slow_one_has_its_time() {
        let far = Instant::now() + Duration::from_secs(3600);
        let begun = Instant::now();
        let dripped = gather(dripping(1, 10, 10_000), 100_000_000, far).await;
        assert_eq!(dripped, Err(BlobFault::stalled()));
        assert_eq!(begun.elapsed(), UPLOAD_STALL_WAIT);
        let enough = usize::try_from(UPLOAD_RATE_BYTES_MIN * 10).expect("it is small") + 1;
        let slow = gather(dripping(enough, 10, 100), 100_000_000, far).await;
        assert_eq!(slow.map(|all| all.len()), Ok(100 * enough));
        let begun = Instant::now();
        let soon = begun + Duration::from_secs(100);
        let late = gather(dripping(enough, 10, 100), 100_000_000, soon).await;
        assert_eq!(late, Err(BlobFault::late()));
        assert_eq!(begun.elapsed(), Duration::from_secs(100));
    }

    #[tokio::test]
    async fn no_more_is_gathered_than_may_be() {
        let whole = || {
            let pieces =
                ["12345", "6789"].map(|piece| Ok::<_, std::io::Error>(Bytes::from_static(piece.as_bytes())));
            Body::from_stream(stream::iter(pieces))
        };
        let far = Instant::now() + Duration::from_secs(60);
        assert_eq!(
            gather(whole(), 9, far).await,
            Ok(Bytes::from_static(b"123456789"))
        );
        assert_eq!(gather(whole(), 8, far).await, Err(BlobFault::too_large(8)));
    }
}
