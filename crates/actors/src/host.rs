//! The host of one node's shards: where they are added, removed, stopped and looked at.
//!
//! Serving is in [`crate::serve`], listening to consensus in [`crate::applied`].

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use dunlin_model::id::ShardId;
use dunlin_model::port::{Clock, Replication};
use ractor::{ActorRef, ActorRuntime, RactorErr};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, oneshot};
use tokio::time::timeout;

use crate::config::{
    ConfigError, DRAIN_WAIT_MS, EVENT_READERS_WAITING_MAX, HostConfig, LISTINGS_MAX, SHARDS_MAX, STOP_WAIT_MS,
};
use crate::room::ShardRoom;
use crate::root::{Root, RootMessage, start_supervisor};
use crate::shard::actor::ShardMessage;
use crate::stats::HostStats;

/// Why a host did not start or did not take a shard.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum HostError {
    /// The configuration cannot work.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// There is no tokio runtime to run on.
    #[error("the host must be started on a tokio runtime")]
    NoRuntime,
    /// The actor system refused.
    #[error("start actor: {0}")]
    Actor(String),
    /// The shard is here already.
    #[error("shard {0} was added before")]
    AlreadyAdded(ShardId),
    /// The node hosts as many shards as it may.
    #[error("a node hosts {SHARDS_MAX} shards at most")]
    TooManyShards,
    /// The host was stopped.
    #[error("the host was stopped")]
    Stopped,
}

struct Rooms {
    rooms: BTreeMap<ShardId, Arc<ShardRoom>>,
    stopped: bool,
}

/// The shards of one node, with their actors.
pub struct ActorHost {
    clock: Arc<dyn Clock>,
    config: Arc<HostConfig>,
    runtime: Handle,
    root: ActorRef<RootMessage>,
    rooms: RwLock<Rooms>,
    pub(crate) listings: Semaphore,
    pub(crate) event_readers: Semaphore,
}

impl ActorHost {
    /// Starts a host without shards. Its actors run on the tokio runtime of the caller.
    pub fn start(clock: Arc<dyn Clock>, config: HostConfig) -> Result<Arc<Self>, HostError> {
        config.validate()?;
        let runtime = Handle::try_current().map_err(|_| HostError::NoRuntime)?;
        let started = ActorRuntime::spawn_instant(None, Root, ());
        let (root, _) = started.map_err(|error| HostError::Actor(error.to_string()))?;
        Ok(Arc::new(Self {
            clock,
            config: Arc::new(config),
            runtime,
            root,
            rooms: RwLock::new(Rooms {
                rooms: BTreeMap::new(),
                stopped: false,
            }),
            listings: Semaphore::new(LISTINGS_MAX),
            event_readers: Semaphore::new(EVENT_READERS_WAITING_MAX),
        }))
    }

    /// Takes a replica of `shard` in. It follows until consensus says that it leads; call this before
    /// consensus can say so.
    pub fn add_shard(&self, shard: ShardId, replication: Arc<dyn Replication>) -> Result<(), HostError> {
        let mut rooms = self.rooms.write().unwrap_or_else(PoisonError::into_inner);
        if rooms.stopped {
            return Err(HostError::Stopped);
        }
        if rooms.rooms.contains_key(&shard) {
            return Err(HostError::AlreadyAdded(shard));
        }
        if rooms.rooms.len() >= SHARDS_MAX {
            return Err(HostError::TooManyShards);
        }
        let (clock, config) = (self.clock.clone(), self.config.clone());
        let room = ShardRoom::new(shard, replication, clock, config, self.runtime.clone());
        start_supervisor(&self.root, &room).map_err(|error| HostError::Actor(error.to_string()))?;
        rooms.rooms.insert(shard, room);
        Ok(())
    }

    /// Lets the shard finish what it took in, within bounds, and ends its actors. Does nothing if it is not here.
    pub async fn remove_shard(&self, shard: ShardId) {
        let Some(room) = self.room(shard) else { return };
        retire(&room).await;
        let mut rooms = self.rooms.write().unwrap_or_else(PoisonError::into_inner);
        if rooms
            .rooms
            .get(&shard)
            .is_some_and(|listed| Arc::ptr_eq(listed, &room))
        {
            rooms.rooms.remove(&shard);
        }
    }

    /// Lets go of all shards without a word to anybody. A killed process does no more; where its memory goes on,
    /// in a simulation, a shard and its replica would hold on to each other for ever.
    pub fn abandon(&self) {
        let mut rooms = self.rooms.write().unwrap_or_else(PoisonError::into_inner);
        rooms.stopped = true;
        rooms.rooms.clear();
    }

    /// Removes all shards, one waiting no longer than all, and takes none in any more.
    pub async fn stop(&self) {
        let rooms = {
            let mut rooms = self.rooms.write().unwrap_or_else(PoisonError::into_inner);
            rooms.stopped = true;
            rooms.rooms.values().cloned().collect::<Vec<_>>()
        };
        let mut retiring = tokio::task::JoinSet::new();
        for room in rooms {
            retiring.spawn(async move { retire(&room).await });
        }
        while retiring.join_next().await.is_some() {}
        self.rooms
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .rooms
            .clear();
        let wait = Some(Duration::from_millis(STOP_WAIT_MS));
        if let Err(RactorErr::Timeout) = self.root.stop_and_wait(None, wait).await {
            tracing::warn!("the root of the actors did not stop in time");
        }
    }

    /// What an operator can see.
    pub fn stats(&self) -> HostStats {
        let rooms = self.rooms.read().unwrap_or_else(PoisonError::into_inner);
        HostStats::of(rooms.rooms.values().map(|room| room.stats()).collect())
    }

    pub(crate) fn room(&self, shard: ShardId) -> Option<Arc<ShardRoom>> {
        self.rooms
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .rooms
            .get(&shard)
            .cloned()
    }
}

/// Drains and ends one shard. Applied entries still arrive while the host lists it.
async fn retire(room: &ShardRoom) {
    if let Ok(leader) = room.leader() {
        leader.tenure.seats.refuse_new();
        let (done, finished) = oneshot::channel();
        if leader.actor.send_message(ShardMessage::Drain { done }).is_ok()
            && timeout(Duration::from_millis(DRAIN_WAIT_MS), finished)
                .await
                .is_err()
        {
            tracing::warn!(shard = %room.shard, "the shard did not finish in time; what is left goes to the next leader");
        }
    }
    room.close();
    if let Some(supervisor) = room.supervisor() {
        let wait = Some(Duration::from_millis(STOP_WAIT_MS));
        if let Err(RactorErr::Timeout) = supervisor.stop_and_wait(None, wait).await {
            tracing::warn!(shard = %room.shard, "the actors of the shard did not stop in time");
        }
    }
}
