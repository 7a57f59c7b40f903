//! The supervisor of a sixteenth of a shard's devices: wakes them, starts them again, gives up on some.
//!
//! One-for-one: a device that fails waits, then starts again from state, and after too many failures
//! goes to quarantine with its evidence while its siblings notice nothing. How long and how often is
//! decided in [`crate::backoff`].

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dunlin_model::alarm::Alarm;
use dunlin_model::device::concerned_device;
use dunlin_model::id::DeviceId;
use dunlin_model::shard::Notice;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, SupervisionEvent};

use super::actor::{DeviceActor, DeviceArguments, DeviceMessage};
use super::buckets::Backlog;
use super::inbox::Inbox;
use crate::backoff::{Backoff, DEVICE_RESTARTS_MAX};
use crate::config::{BUCKET_DEVICES_MAX, BUCKET_QUARANTINE_MAX, EVIDENCE_CHARS_MAX};
use crate::room::ShardRoom;
use crate::stats::{GaugeGuard, Quarantined, count};
use crate::tenure::Tenure;

/// What a bucket can be told.
pub(crate) enum BucketMessage {
    /// Applied news about devices of this bucket, in order.
    Notices(Vec<Notice>),
    /// A device has nothing to do and would leave memory.
    Idle { device: DeviceId, actor: ActorId },
    /// The wait after a failure is over.
    Restart { device: DeviceId },
}

/// The actor.
pub(crate) struct Bucket;

enum Life {
    Running {
        actor: ActorRef<DeviceMessage>,
        _active: GaugeGuard,
    },
    /// It failed and waits to be started again; its inbox goes on filling.
    Waiting,
    /// It failed too often.
    Quarantined,
}

struct Entry {
    inbox: Arc<Inbox>,
    backoff: Backoff,
    life: Life,
}

/// What a bucket keeps.
pub(crate) struct BucketWork {
    room: Arc<ShardRoom>,
    tenure: Arc<Tenure>,
    backlog: Arc<Backlog>,
    devices: BTreeMap<DeviceId, Entry>,
    actors: HashMap<ActorId, DeviceId>,
    /// Quarantined devices, oldest first.
    quarantine: VecDeque<DeviceId>,
}

impl Actor for Bucket {
    type Msg = BucketMessage;
    type State = BucketWork;
    type Arguments = (Arc<ShardRoom>, Arc<Tenure>, Arc<Backlog>);

    async fn pre_start(
        &self,
        _: ActorRef<BucketMessage>,
        (room, tenure, backlog): Self::Arguments,
    ) -> Result<BucketWork, ActorProcessingErr> {
        Ok(BucketWork {
            room,
            tenure,
            backlog,
            devices: BTreeMap::new(),
            actors: HashMap::new(),
            quarantine: VecDeque::new(),
        })
    }

    async fn handle(
        &self,
        myself: ActorRef<BucketMessage>,
        message: BucketMessage,
        work: &mut BucketWork,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            BucketMessage::Notices(notices) => {
                work.backlog.leave(notices.len());
                if work.backlog.rebuild_all.swap(false, Ordering::AcqRel) {
                    work.rebuild_all();
                }
                for notice in notices {
                    work.deliver(&myself, notice).await;
                }
            }
            BucketMessage::Idle { device, actor } => work.handle_idle(&device, actor),
            BucketMessage::Restart { device } => {
                if work
                    .devices
                    .get(&device)
                    .is_some_and(|entry| matches!(entry.life, Life::Waiting))
                {
                    work.start(&myself, &device).await;
                }
            }
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<BucketMessage>,
        event: SupervisionEvent,
        work: &mut BucketWork,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorFailed(cell, error) => {
                if let Some(device) = work.actors.remove(&cell.get_id()) {
                    work.handle_failure(&myself, &device, &error.to_string());
                }
            }
            SupervisionEvent::ActorTerminated(cell, ..) => {
                // It left by itself, since the leadership is ending. What waited goes with it.
                if let Some(device) = work.actors.remove(&cell.get_id())
                    && let Some(entry) = work.devices.remove(&device)
                {
                    work.drop_notices(&entry.inbox.drain());
                }
            }
            _ => {}
        }
        Ok(())
    }
}

impl BucketWork {
    async fn deliver(&mut self, myself: &ActorRef<BucketMessage>, notice: Notice) {
        let Some(device) = concerned_device(&notice).cloned() else {
            return;
        };
        let Some(entry) = self.devices.get(&device) else {
            return self.wake(myself, device, notice).await;
        };
        let refused = match &entry.life {
            Life::Quarantined => {
                self.room.count_missed(&device);
                Some(notice)
            }
            Life::Waiting => entry.inbox.push(notice).err(),
            Life::Running { actor, .. } => match entry.inbox.push(notice) {
                Ok(needs_poke) => {
                    if needs_poke {
                        // If it has just failed, its successor looks into the inbox by itself.
                        let _ = actor.send_message(DeviceMessage::Poke);
                    }
                    None
                }
                Err(notice) => Some(notice),
            },
        };
        if let Some(notice) = refused {
            self.drop_notices(&[notice]);
        }
    }

    async fn wake(&mut self, myself: &ActorRef<BucketMessage>, device: DeviceId, notice: Notice) {
        if self.devices.len() >= BUCKET_DEVICES_MAX {
            return self.drop_notices(&[notice]);
        }
        let inbox = Arc::new(Inbox::default());
        if let Err(notice) = inbox.push(notice) {
            self.drop_notices(&[notice]);
        }
        let entry = Entry {
            inbox,
            backoff: Backoff::default(),
            life: Life::Waiting,
        };
        self.devices.insert(device.clone(), entry);
        self.start(myself, &device).await;
    }

    /// Starts the actor of an entry that waits. It builds itself from state, then empties its inbox.
    async fn start(&mut self, myself: &ActorRef<BucketMessage>, device: &DeviceId) {
        let Some(entry) = self.devices.get_mut(device) else {
            return;
        };
        let arguments = DeviceArguments {
            device: device.clone(),
            inbox: entry.inbox.clone(),
            room: self.room.clone(),
            tenure: self.tenure.clone(),
            bucket: myself.clone(),
        };
        match DeviceActor::spawn_linked(None, DeviceActor, arguments, myself.get_cell()).await {
            Ok((actor, _)) => {
                self.actors.insert(actor.get_id(), device.clone());
                let active = GaugeGuard::enter(&self.room.counters.device_actors);
                entry.life = Life::Running {
                    actor,
                    _active: active,
                };
            }
            Err(error) => self.handle_failure(myself, device, &error.to_string()),
        }
    }

    fn handle_failure(&mut self, myself: &ActorRef<BucketMessage>, device: &DeviceId, evidence: &str) {
        let Some(entry) = self.devices.get_mut(device) else {
            return;
        };
        Alarm::DeviceActorFailed.raise();
        // What it was busy with is not tried again: that may be what it fails on.
        let lost = entry.inbox.abandon();
        let now_ms = self.room.clock.monotonic_ms();
        match entry.backoff.handle_failure(now_ms, DEVICE_RESTARTS_MAX) {
            Some(wait_ms) => {
                entry.life = Life::Waiting;
                count(&self.room.counters.device_restarts);
                let shard = self.room.shard;
                tracing::warn!(%shard, %device, evidence, wait_ms, "a device actor failed and will be started again");
                let device = device.clone();
                myself.send_after(Duration::from_millis(wait_ms), move || BucketMessage::Restart {
                    device,
                });
            }
            None => {
                entry.life = Life::Quarantined;
                let waiting = entry.inbox.drain();
                self.quarantine(device, evidence);
                self.drop_notices(&waiting);
            }
        }
        if let Some(notice) = lost {
            self.drop_notices(&[notice]);
        }
    }

    fn quarantine(&mut self, device: &DeviceId, evidence: &str) {
        if self.quarantine.len() >= BUCKET_QUARANTINE_MAX
            && let Some(oldest) = self.quarantine.pop_front()
        {
            self.devices.remove(&oldest);
            self.room.set_quarantined(&oldest, None);
        }
        self.quarantine.push_back(device.clone());
        let evidence: String = evidence.chars().take(EVIDENCE_CHARS_MAX).collect();
        let shard = self.room.shard;
        tracing::warn!(%shard, %device, evidence, "device quarantined: its actor keeps failing");
        let since_ms = self.room.clock.wall_ms();
        let entry = Quarantined {
            shard,
            device: device.clone(),
            since_ms,
            evidence,
            notices_dropped: 0,
        };
        self.room.set_quarantined(device, Some(entry));
    }

    /// Nobody will act on these; sessions that they end must end all the same.
    fn drop_notices(&self, notices: &[Notice]) {
        for notice in notices {
            count(&self.room.counters.notices_dropped);
            self.tenure.send_owed(notice);
        }
    }

    fn handle_idle(&mut self, device: &DeviceId, actor: ActorId) {
        let Some(entry) = self.devices.get(device) else {
            return;
        };
        match &entry.life {
            // Only this bucket fills inboxes, so an empty one stays empty while we are here.
            Life::Running { actor: running, .. } if running.get_id() == actor && entry.inbox.is_empty() => {
                running.stop(None);
                self.actors.remove(&actor);
                self.devices.remove(device);
            }
            _ => {}
        }
    }

    fn rebuild_all(&self) {
        for entry in self.devices.values() {
            let needs_poke = entry.inbox.mark_rebuild();
            if let Life::Running { actor, .. } = &entry.life
                && needs_poke
            {
                let _ = actor.send_message(DeviceMessage::Poke); // see `deliver`
            }
        }
    }
}
