//! This node's copy of the directory, and until when it is known to be fresh.
//!
//! A replica of group 0 is offered each applied version; every other node, and every node's notion
//! of freshness, lives from asking the confirmed leader ([`crate::maintenance`]).

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use dunlin_model::directory::Directory;
use tokio::sync::watch;

/// How long one confirmation lasts.
pub(crate) const FRESH_MS: u64 = 750;
/// Grace after that before a gateway admits nobody.
pub(crate) const FRESH_GRACE_MS: u64 = 1_000;

/// The directory as this node sees it.
pub(crate) struct DirectoryView {
    current: ArcSwap<Directory>,
    /// Rank of the copy, see [`Directory::rank`].
    rank: watch::Sender<(u64, u64)>,
    fresh_until_ms: AtomicU64,
}

impl DirectoryView {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            current: ArcSwap::from_pointee(Directory::default()),
            rank: watch::Sender::new((0, 0)),
            fresh_until_ms: AtomicU64::new(0),
        })
    }

    /// The copy.
    pub(crate) fn get(&self) -> Arc<Directory> {
        self.current.load_full()
    }

    /// Takes `directory` over if it is newer.
    pub(crate) fn offer(&self, directory: &Directory) {
        self.rank.send_if_modified(|rank| {
            if directory.rank() <= *rank {
                return false;
            }
            *rank = directory.rank();
            self.current.store(Arc::new(directory.clone()));
            true
        });
    }

    /// The copy, without touching its reference count.
    pub(crate) fn load(&self) -> arc_swap::Guard<Arc<Directory>> {
        self.current.load()
    }

    /// Changes of the copy.
    pub(crate) fn watch(&self) -> watch::Receiver<(u64, u64)> {
        self.rank.subscribe()
    }

    /// A confirmed leader vouched for this copy at `asked_ms` (monotonic), before it answered.
    pub(crate) fn confirm(&self, asked_ms: u64) {
        self.fresh_until_ms
            .fetch_max(asked_ms + FRESH_MS, Ordering::Relaxed);
    }

    /// Whether somebody has vouched for this copy who was asked at `since_ms` or later.
    pub(crate) fn is_confirmed_since(&self, since_ms: u64) -> bool {
        self.fresh_until_ms.load(Ordering::Relaxed) >= since_ms + FRESH_MS
    }

    /// Whether this copy was the latest a moment ago: nothing is taken apart on an older one.
    pub(crate) fn is_current(&self, now_ms: u64) -> bool {
        now_ms <= self.fresh_until_ms.load(Ordering::Relaxed)
    }

    /// Whether a gateway may admit on this copy at `now_ms`.
    pub(crate) fn is_fresh(&self, now_ms: u64) -> bool {
        let until_ms = self.fresh_until_ms.load(Ordering::Relaxed);
        // A copy that nobody has vouched for yet has no grace either, however young this process is.
        until_ms > 0 && now_ms <= until_ms + FRESH_GRACE_MS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_fresh_from_its_first_confirmation_until_the_grace_is_over() {
        let view = DirectoryView::new();
        assert!(!view.is_fresh(0) && !view.is_fresh(FRESH_GRACE_MS));
        view.confirm(100);
        assert!(view.is_confirmed_since(100) && !view.is_confirmed_since(101));
        assert!(view.is_current(100 + FRESH_MS) && !view.is_current(101 + FRESH_MS));
        let end_ms = 100 + FRESH_MS + FRESH_GRACE_MS;
        assert!(view.is_fresh(end_ms) && !view.is_fresh(end_ms + 1));
    }
}
