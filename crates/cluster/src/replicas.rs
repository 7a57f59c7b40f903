//! The replicas that run on this node: started as the directory says, started again when they fail,
//! refused when what they have cannot be trusted.

use std::sync::Arc;

use dunlin_model::alarm::Alarm;
use dunlin_model::directory::Directory;
use dunlin_model::id::GroupReplica;
use dunlin_model::port::{AppliedSink, StoreError};

use crate::group::Group;
use crate::node::{ShardParts, Shared};
use crate::raft::machine::{DirectoryMachine, Machine, ShardMachine};
use crate::raft::seed;
use crate::raft::state_machine::StateMachine;

/// Why a replica does not run here.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Trouble {
    /// What it has on disk cannot be trusted: it is refused until it is made anew under another id.
    #[error("it is damaged: {0}")]
    Damaged(String),
    /// It could not start, or stopped. It is started again.
    #[error("{0}")]
    Failed(String),
}

impl From<StoreError> for Trouble {
    fn from(error: StoreError) -> Trouble {
        match error {
            StoreError::Corrupt { .. } => Trouble::Damaged(error.to_string()),
            _ => Trouble::Failed(error.to_string()),
        }
    }
}

impl Shared {
    /// Takes a replica out of those that run here.
    pub(crate) fn take_group(&self, id: GroupReplica) -> Option<Arc<Group>> {
        self.note_trouble(id, None);
        let mut groups = self.groups.write().expect("no panic holds it");
        let is_it = groups.get(&id.group).is_some_and(|group| group.id() == id);
        is_it.then(|| groups.remove(&id.group)).flatten()
    }

    /// Starts the replicas that `directory` places here and that do not run yet.
    pub(crate) async fn start_replicas(&self, directory: &Directory) {
        let _one_at_a_time = self.starting.lock().await;
        for (group, entry) in &directory.groups {
            let Some(replica) = entry.replica_on(self.node) else {
                continue;
            };
            let id = GroupReplica {
                group: *group,
                replica,
            };
            let survivor = entry.replicas[&replica].survivor().map(|from| GroupReplica {
                group: *group,
                replica: from,
            });
            if let Some(running) = self.group(*group).filter(|group| Some(group.id()) == survivor) {
                self.stop_replica(&running).await;
            }
            if self.group(*group).is_some() || self.is_stopping() {
                continue;
            }
            if matches!(self.trouble(id), Some(Trouble::Damaged(_))) {
                continue;
            }
            match self.start_replica(id, survivor).await {
                Ok(started) => {
                    if self.trouble(id).is_some() {
                        tracing::info!(replica = %id, "a replica serves again");
                    }
                    self.note_trouble(id, None);
                    if let Some(founders) = entry.begins_with(replica)
                        && !started.is_initialized().await
                    {
                        started.initialize(founders).await;
                    }
                }
                Err(trouble) => self.note_trouble(id, Some(trouble)),
            }
        }
    }

    fn trouble(&self, id: GroupReplica) -> Option<Trouble> {
        self.troubled.lock().expect("no panic holds it").get(&id).cloned()
    }

    /// Remembers why a replica does not run, and says so once.
    pub(crate) fn note_trouble(&self, id: GroupReplica, trouble: Option<Trouble>) {
        let mut troubled = self.troubled.lock().expect("no panic holds it");
        let before = match &trouble {
            Some(trouble) => troubled.insert(id, trouble.clone()),
            None => troubled.remove(&id),
        };
        match trouble {
            Some(trouble) if before.as_ref() != Some(&trouble) => {
                match trouble {
                    Trouble::Damaged(_) => Alarm::ReplicaDamaged.raise(),
                    Trouble::Failed(_) => Alarm::ReplicaFailed.raise(),
                }
                tracing::error!(replica = %id, reason = %trouble, "a replica does not serve");
            }
            _ => {}
        }
    }

    /// Takes replicas down that consensus has given up on, so that they are started again from what is on disk.
    pub(crate) async fn take_down_failed(&self) {
        for group in self.groups() {
            if let Some(reason) = group.failed() {
                self.take_down(&group, Trouble::Failed(reason)).await;
            }
        }
    }

    /// Takes a replica down whose data cannot be mended, so that it is made anew.
    pub(crate) async fn give_up(&self, group: &Arc<Group>, reason: String) {
        self.take_down(group, Trouble::Damaged(reason)).await;
    }

    async fn take_down(&self, group: &Arc<Group>, trouble: Trouble) {
        self.stop_replica(group).await;
        self.note_trouble(group.id(), Some(trouble));
    }

    /// Ends a running replica, its actors included. What it has on disk stays.
    pub(crate) async fn stop_replica(&self, group: &Arc<Group>) {
        self.take_group(group.id());
        group.stop().await;
        if let (Some(parts), Some(shard)) = (&self.shard, group.id().group.shard()) {
            parts.host.remove_shard(shard).await;
        }
    }

    async fn start_replica(
        &self,
        id: GroupReplica,
        survivor: Option<GroupReplica>,
    ) -> Result<Arc<Group>, Trouble> {
        let Some(parts) = &self.shard else {
            return Err(Trouble::Failed("this node has not the shard role".into()));
        };
        let log = parts.journal.replica(id);
        if let Some(reason) = log.state().damaged {
            return Err(Trouble::Damaged(format!("in the journal, {reason}")));
        }
        let machine = self.open_machine(parts, id)?;
        if let Some(survivor) = survivor.filter(|_| !seed::is_done(&log)) {
            let from = self.open_machine(parts, survivor)?;
            seed::seed(&from, &machine, &log, self.node)
                .await
                .map_err(|error| Trouble::Failed(format!("begin with what {survivor} has: {error}")))?;
            tracing::warn!(replica = %id, %survivor, "a group goes on from what is left of it");
        }
        let room = self
            .room
            .clone()
            .ok_or_else(|| Trouble::Failed("this node keeps no replicas".into()))?;
        let around = (&self.config.timing, room, self.view.clone());
        let group = Group::start(id, log, machine, self.peers.clone(), around).await?;
        if let Some(shard) = id.group.shard() {
            parts.host.add_shard(shard, group.clone());
            group.announce(shard, parts.host.clone());
        }
        self.groups
            .write()
            .expect("no panic holds it")
            .insert(id.group, group.clone());
        Ok(group)
    }

    fn open_machine(&self, parts: &ShardParts, id: GroupReplica) -> Result<StateMachine, Trouble> {
        let store = parts.stores.state(id)?;
        let machine = match id.group.shard() {
            None => Machine::Directory(DirectoryMachine::open(store, self.view.clone())?),
            Some(shard) => {
                let events = parts.stores.events(id)?;
                let sink: Arc<dyn AppliedSink> = parts.host.clone();
                Machine::Shard(ShardMachine::open(shard, store, events, sink)?)
            }
        };
        let machine = StateMachine::new(id, parts.journal.replica(id), machine);
        Ok(machine.heard_by(self.witness().cloned()))
    }
}
