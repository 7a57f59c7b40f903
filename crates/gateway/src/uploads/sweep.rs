//! What uploads leave behind that come to no end: blocks that nobody makes a file of. And how a whole folder of the store
//! is cleared.
//!
//! Each gateway sweeps the store that it has. Where they share one, several do the same, and no harm. By its age alone
//! something is known to be nobody's: no token counts for longer than a day.

use std::collections::HashSet;
use std::sync::Arc;

use dunlin_model::port::{BlobError, BlobStore};
use dunlin_model::upload::UPLOAD_TTL_MS_MAX;
use tokio::time::Instant;

use super::blocks::FOLDER;
use crate::limits::{UPLOAD_WAIT, UPLOADS_SWEEP_EVERY, UPLOADS_SWEEP_FAILED_MAX, UPLOADS_SWEPT_AT_A_TIME};
use crate::shared::Shared;

/// Sweeps again and again, until the gateway drains.
pub(crate) fn spawn(shared: &Arc<Shared>) {
    shared.spawn_until_draining(|shared| async move {
        loop {
            match sweep(&*shared.hooks.blobs, shared.now_ms()).await {
                Ok(0) => {}
                Ok(count) => tracing::info!(count, "swept blocks of uploads that came to no end"),
                Err(error) => tracing::warn!(%error, "the sweep of the object store ended early"),
            }
            tokio::time::sleep(UPLOADS_SWEEP_EVERY).await;
        }
    });
}

/// Removes what is too old. Returns how many blocks that were.
async fn sweep(blobs: &dyn BlobStore, now_ms: u64) -> Result<u64, BlobError> {
    // A body that began in time may take its time.
    let age_ms = UPLOAD_TTL_MS_MAX + 2 * UPLOAD_WAIT.as_millis() as u64;
    let before_ms = now_ms.saturating_sub(age_ms);
    if let Err(error) = blobs.sweep(before_ms).await {
        tracing::warn!(%error, "cannot sweep files that came to no end");
    }
    let removed = remove_below(blobs, FOLDER, Some(before_ms), None).await?;
    Ok(removed.count)
}

/// What came of clearing a folder.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Removed {
    pub(crate) count: u64,
    /// Those that could not be removed.
    pub(crate) stuck: usize,
    /// Whether there are no others.
    pub(crate) is_all: bool,
}

/// Removes the files below `folder`; of those alone that were written before `before_ms`, if that is said, and no more of
/// them after `until`. What cannot be removed keeps nothing else.
pub(crate) async fn remove_below(
    blobs: &dyn BlobStore,
    folder: &str,
    before_ms: Option<u64>,
    until: Option<Instant>,
) -> Result<Removed, BlobError> {
    let mut count = 0;
    let mut stuck = HashSet::new();
    loop {
        let count_max = UPLOADS_SWEPT_AT_A_TIME + stuck.len();
        let found = blobs.list(folder.to_owned(), before_ms, count_max).await?;
        let is_last = found.len() < count_max;
        for info in found {
            if stuck.contains(&info.path) {
                continue;
            }
            if until.is_some_and(|until| Instant::now() >= until) {
                let (stuck, is_all) = (stuck.len(), false);
                return Ok(Removed { count, stuck, is_all });
            }
            match blobs.delete(info.path.clone()).await {
                Ok(()) => count += 1,
                Err(error) => {
                    tracing::warn!(%error, path = %info.path, "cannot remove what is nobody's");
                    stuck.insert(info.path);
                }
            }
        }
        if is_last || stuck.len() >= UPLOADS_SWEEP_FAILED_MAX {
            let stuck = stuck.len();
            let is_all = is_last;
            return Ok(Removed { count, stuck, is_all });
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::memory::MemoryBlobs;
    use super::*;

    #[tokio::test]
    async fn what_is_too_old_goes_and_nothing_else() {
        let now_ms = 1_700_000_000_000;
        let blobs = MemoryBlobs::default();
        let put = |path: String, age_ms: u64| {
            blobs.set_now(now_ms - age_ms);
            blobs.put(path, Bytes::from_static(b"x"))
        };
        let day = UPLOAD_TTL_MS_MAX;
        for n in 0..UPLOADS_SWEPT_AT_A_TIME + 1 {
            put(format!("{FOLDER}/old/{n:04x}"), 2 * day)
                .await
                .expect("it is put");
        }
        put(format!("{FOLDER}/young/00"), day).await.expect("it is put");
        put("uploads/dev/x".to_owned(), 9 * day).await.expect("it is put");
        // One that cannot be removed keeps none of the others.
        let stuck = format!("{FOLDER}/old/0000");
        blobs.stick(Some(&stuck));
        let swept = sweep(&blobs, now_ms).await;
        assert_eq!(swept, Ok(UPLOADS_SWEPT_AT_A_TIME as u64));
        blobs.stick(None);
        assert_eq!(sweep(&blobs, now_ms).await, Ok(1));
        assert_eq!(
            blobs.paths(),
            [format!("{FOLDER}/young/00"), "uploads/dev/x".to_owned()]
        );
    }
}
