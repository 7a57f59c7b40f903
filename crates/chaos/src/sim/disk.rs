//! A machine's disk as its node sees it: how long a flush takes, and the state that loses power with it.
//!
//! Bytes live in `storage`'s faulty disk, the replicas' state in its store in memory. fjall is not part of a
//! simulation: it opens files of its own.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dunlin_cluster::Stores;
use dunlin_model::id::GroupReplica;
use dunlin_model::port::{EventLog, ShardStore, StoreError};
use dunlin_storage::disk::Disk;
use dunlin_storage::journal::{Driver, Turn};
use dunlin_storage::segment::SegmentLog;
use dunlin_storage::state::MemStore;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};
use tokio::sync::Notify;

/// How long a flush takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// The quickest, in microseconds.
    pub flush_us_min: u64,
    /// The slowest.
    pub flush_us_max: u64,
}

impl Pace {
    /// A good disk.
    pub const HEALTHY: Pace = Pace {
        flush_us_min: 200,
        flush_us_max: 3_000,
    };
}

/// The pace of one machine's disk. Clones share it.
#[derive(Clone)]
pub(super) struct Paced(Arc<Mutex<(Pace, StdRng)>>);

impl Paced {
    pub(super) fn new(seed: u64) -> Paced {
        Paced(Arc::new(Mutex::new((Pace::HEALTHY, StdRng::seed_from_u64(seed)))))
    }

    pub(super) fn set(&self, pace: Pace) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).0 = pace;
    }

    fn draw(&self) -> Duration {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let pace = inner.0;
        Duration::from_micros(inner.1.random_range(pace.flush_us_min..=pace.flush_us_max))
    }
}

/// Writes the journal: each flush takes its time, and what comes meanwhile waits for the next.
pub(super) async fn drive(mut driver: Driver, bell: Arc<Notify>, paced: Paced) {
    loop {
        bell.notified().await;
        loop {
            tokio::time::sleep(paced.draw()).await;
            match driver.turn() {
                Turn::Worked => {}
                Turn::Idle => break,
                Turn::Ended => return,
            }
        }
    }
}

/// State by replica; outlives a node's lives.
pub(super) type States = Arc<Mutex<BTreeMap<GroupReplica, MemStore>>>;
/// The event logs that a life has open.
pub(super) type Events = Arc<Mutex<BTreeMap<GroupReplica, Arc<dyn EventLog>>>>;

/// One life's stores.
pub(super) struct DiskStores {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) states: States,
    pub(super) events: Events,
}

impl Stores for DiskStores {
    fn state(&self, id: GroupReplica) -> Result<Arc<dyn ShardStore>, StoreError> {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::new(states.entry(id).or_default().clone()))
    }

    fn events(&self, id: GroupReplica) -> Result<Arc<dyn EventLog>, StoreError> {
        let log: Arc<dyn EventLog> = Arc::new(SegmentLog::open(self.disk.clone(), id)?);
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.insert(id, log.clone());
        Ok(log)
    }

    fn replicas(&self) -> Result<Vec<GroupReplica>, StoreError> {
        let mut found = SegmentLog::replicas(&*self.disk)?;
        found.extend(self.states.lock().unwrap_or_else(PoisonError::into_inner).keys());
        found.sort_unstable();
        found.dedup();
        Ok(found)
    }

    fn remove(&self, id: GroupReplica) -> Result<(), StoreError> {
        SegmentLog::remove(&*self.disk, id)?;
        self.states
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .remove(&id);
        Ok(())
    }

    fn disk(&self) -> Arc<dyn Disk> {
        self.disk.clone()
    }
}
