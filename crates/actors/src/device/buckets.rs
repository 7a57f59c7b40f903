//! From the shard actor to the buckets: which one, and how much may wait there.
//!
//! A bucket starts when it is first needed. Notices of one device keep their order, since a device
//! has one bucket.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use dunlin_model::device::concerned_device;
use dunlin_model::shard::Notice;
use ractor::{Actor, ActorProcessingErr, ActorRef};

use super::bucket::{Bucket, BucketMessage};
use crate::config::{BUCKET_NOTICES_MAX, DEVICE_BUCKETS};
use crate::room::ShardRoom;
use crate::stats::count;
use crate::tenure::Tenure;

/// What waits in front of a bucket.
#[derive(Debug, Default)]
pub(crate) struct Backlog {
    notices: AtomicUsize,
    /// Notices were dropped here: the devices of this bucket have to be built from state again.
    pub(super) rebuild_all: AtomicBool,
}

impl Backlog {
    fn try_enter(&self, count: usize) -> bool {
        // Only the shard actor enters, so nobody comes between the look and the step.
        if self.notices.load(Ordering::Acquire) + count > BUCKET_NOTICES_MAX {
            return false;
        }
        self.notices.fetch_add(count, Ordering::AcqRel);
        true
    }

    /// `count` notices have been taken out.
    pub(super) fn leave(&self, count: usize) {
        self.notices.fetch_sub(count, Ordering::AcqRel);
    }
}

/// The buckets of one leadership.
pub(crate) struct Buckets {
    room: Arc<ShardRoom>,
    tenure: Arc<Tenure>,
    buckets: [Option<(ActorRef<BucketMessage>, Arc<Backlog>)>; DEVICE_BUCKETS],
}

impl Buckets {
    pub(crate) fn new(room: Arc<ShardRoom>, tenure: Arc<Tenure>) -> Self {
        Self {
            room,
            tenure,
            buckets: Default::default(),
        }
    }

    /// Hands `notices`, all about devices and of one entry, to their buckets: one message each.
    pub(crate) async fn route(&mut self, notices: Vec<Notice>) -> Result<(), ActorProcessingErr> {
        let mut sorted: [Vec<Notice>; DEVICE_BUCKETS] = Default::default();
        for notice in notices {
            if let Some(device) = concerned_device(&notice) {
                sorted[usize::from(device.slot().0) % DEVICE_BUCKETS].push(notice);
            }
        }
        for (place, notices) in sorted
            .into_iter()
            .enumerate()
            .filter(|(_, notices)| !notices.is_empty())
        {
            let (bucket, backlog) = self.bucket(place).await?;
            if !backlog.try_enter(notices.len()) {
                backlog.rebuild_all.store(true, Ordering::Release);
                for notice in &notices {
                    count(&self.room.counters.notices_dropped);
                    self.tenure.send_owed(notice);
                }
            } else {
                // A bucket that is gone has failed; the supervisor of the shard is about to act.
                let _ = bucket.send_message(BucketMessage::Notices(notices));
            }
        }
        Ok(())
    }

    async fn bucket(
        &mut self,
        place: usize,
    ) -> Result<(ActorRef<BucketMessage>, Arc<Backlog>), ActorProcessingErr> {
        if let Some((bucket, backlog)) = &self.buckets[place] {
            return Ok((bucket.clone(), backlog.clone()));
        }
        let supervisor = self.room.supervisor().ok_or("the shard has no supervisor")?;
        let backlog = Arc::new(Backlog::default());
        let arguments = (self.room.clone(), self.tenure.clone(), backlog.clone());
        let (bucket, _) = Bucket::spawn_linked(None, Bucket, arguments, supervisor.get_cell()).await?;
        self.tenure.add_member(bucket.get_cell());
        self.buckets[place] = Some((bucket.clone(), backlog.clone()));
        Ok((bucket, backlog))
    }
}
