//! What the connections of the Kafka door share.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::backend::Backend;
use super::limits::{FETCH_KIB_MAX, READS_MAX};

/// One per gateway.
pub struct Door {
    pub(crate) backend: Arc<dyn Backend>,
    /// Name of the topic.
    pub(crate) topic: String,
    /// What clients know the cluster by; two hubs have two.
    pub(crate) cluster_id: String,
    /// One permit per partition that a fetch reads or waits for.
    pub(crate) reads: Arc<Semaphore>,
    /// One permit per KiB of events on their way to the sockets.
    pub(crate) memory: Arc<Semaphore>,
    /// Cancelled when connections are to end.
    pub(crate) draining: CancellationToken,
}

impl Door {
    /// A door to the topic `topic`, which has at most 249 of the characters `a-z`, `A-Z`, `0-9`, `.`, `_`, `-`, as
    /// clients check. Its connections end when `draining` is cancelled; their number is the caller's to bound.
    pub fn new(
        backend: Arc<dyn Backend>,
        topic: String,
        cluster_id: String,
        draining: CancellationToken,
    ) -> Self {
        Self {
            backend,
            topic,
            cluster_id,
            reads: Arc::new(Semaphore::new(READS_MAX)),
            memory: Arc::new(Semaphore::new(FETCH_KIB_MAX)),
            draining,
        }
    }

    /// The partition that a client names, if there is such a one.
    pub(crate) fn partition(&self, topic: &str, partition: i32) -> Option<u32> {
        let partition = u32::try_from(partition).ok()?;
        (topic == self.topic && partition < self.backend.partition_count()).then_some(partition)
    }
}
