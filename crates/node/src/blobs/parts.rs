//! A file of a store that takes files in parts, as it is written.

use std::sync::Arc;

use bytes::Bytes;
use dunlin_model::port::{BlobError, BlobWrite, BoxFuture};
use object_store::ObjectStore;
use object_store::buffered::BufWriter;
use object_store::path::Path as StorePath;
use tokio::io::AsyncWriteExt as _;

/// Bytes of a part: stores take no smaller ones than 5 MiB, and 10,000 of them at the most. One is filled while another is
/// on its way.
const PART_BYTES: usize = 8 * 1024 * 1024;
/// Parts on their way at a time.
const PARTS_AT_A_TIME: usize = 1;

/// A file that is being written. A small one goes at once, without parts.
pub(super) struct PartsWrite(BufWriter);

impl PartsWrite {
    pub(super) fn begin(store: Arc<dyn ObjectStore>, to: StorePath) -> Self {
        let writer = BufWriter::with_capacity(store, to, PART_BYTES);
        Self(writer.with_max_concurrency(PARTS_AT_A_TIME))
    }
}

impl BlobWrite for PartsWrite {
    fn append(&mut self, bytes: Bytes) -> BoxFuture<'_, Result<(), BlobError>> {
        Box::pin(async move {
            // In pieces, so that no part on its way is larger than the others.
            let mut rest = bytes;
            while !rest.is_empty() {
                let piece = rest.split_to(rest.len().min(PART_BYTES / 2));
                let put = self.0.put(piece).await;
                put.map_err(|error| BlobError::Failed(error.to_string()))?;
            }
            Ok(())
        })
    }

    fn finish(mut self: Box<Self>) -> BoxFuture<'static, Result<(), BlobError>> {
        Box::pin(async move {
            let finished = self.0.shutdown().await;
            finished.map_err(|error| BlobError::Failed(error.to_string()))
        })
    }

    fn abandon(mut self: Box<Self>) -> BoxFuture<'static, ()> {
        Box::pin(async move {
            if let Err(error) = self.0.abort().await {
                tracing::debug!(%error, "parts of a file are left behind");
            }
        })
    }
}
