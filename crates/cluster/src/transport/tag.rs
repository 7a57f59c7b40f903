//! Which cluster a node speaks for: on every call and every stream, so that a node that two clusters of
//! one authority believe to have never takes one's entries for the other's.

use std::sync::atomic::{AtomicU64, Ordering};

/// The cluster of this node as a number, 0 while it belongs to none.
#[derive(Debug, Default)]
pub(crate) struct ClusterTag(AtomicU64);

impl ClusterTag {
    /// The tag as it is now.
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// This node belongs to the cluster with this id (32 hexadecimal digits) from now on.
    pub(crate) fn set(&self, cluster_id: &str) {
        let digits = cluster_id.get(..16).unwrap_or(cluster_id);
        // Never 0: a cluster is not no cluster.
        let tag = u64::from_str_radix(digits, 16).unwrap_or(u64::MAX).max(1);
        self.0.store(tag, Ordering::Relaxed);
    }
}
