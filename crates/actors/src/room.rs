//! One shard on this node, through all its leaderships: who leads, what is lent out, what was counted.
//!
//! The doors look here first. The few methods that change who leads do so under one lock and name
//! the leadership they speak of, so a late word about an old one never touches a new one.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use dunlin_model::alarm::Alarm;
use dunlin_model::id::{DeviceId, NodeId, ShardId};
use dunlin_model::port::{Clock, Leadership, Replication};
use ractor::{ActorId, ActorRef, ActorRuntime};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::config::{ELECTION_WAIT_MS, HostConfig};
use crate::credit::CreditPool;
use crate::shard::actor::{ShardActor, ShardMessage};
use crate::shard::supervisor::SupervisorMessage;
use crate::stats::{Counters, Quarantined, ShardStats};
use crate::tenure::Tenure;

/// What this node is to a shard.
enum Role {
    /// Another node leads, perhaps this one.
    Following { hint: Option<NodeId> },
    /// This node leads.
    Leading {
        tenure: Arc<Tenure>,
        actor: ActorRef<ShardMessage>,
    },
    /// This node leads, but its actors failed and wait to be started again.
    Recovering { number: u64, leadership: Leadership },
}

/// A leadership with the way to its actor.
#[derive(Clone)]
pub(crate) struct Leader {
    pub(crate) tenure: Arc<Tenure>,
    pub(crate) actor: ActorRef<ShardMessage>,
}

/// One shard on this node.
pub(crate) struct ShardRoom {
    pub(crate) shard: ShardId,
    pub(crate) replication: Arc<dyn Replication>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) config: Arc<HostConfig>,
    pub(crate) runtime: Handle,
    pub(crate) credits: Arc<CreditPool>,
    pub(crate) counters: Counters,
    quarantined: Mutex<BTreeMap<DeviceId, Quarantined>>,
    supervisor: Mutex<Option<ActorRef<SupervisorMessage>>>,
    role: RwLock<Role>,
    /// Mirrors `role`, so that a follower hears of applied entries for the price of one load.
    leading: AtomicBool,
    /// Told whenever `role` has changed.
    changed: Notify,
    tenures: AtomicU64,
    closed: AtomicBool,
}

impl ShardRoom {
    pub(crate) fn new(
        shard: ShardId,
        replication: Arc<dyn Replication>,
        clock: Arc<dyn Clock>,
        config: Arc<HostConfig>,
        runtime: Handle,
    ) -> Arc<Self> {
        Arc::new(Self {
            shard,
            replication,
            clock,
            runtime,
            credits: CreditPool::new(config.shard_waiting_bytes_max),
            config,
            counters: Counters::default(),
            quarantined: Mutex::default(),
            supervisor: Mutex::new(None),
            role: RwLock::new(Role::Following { hint: None }),
            leading: AtomicBool::new(false),
            changed: Notify::new(),
            tenures: AtomicU64::new(0),
            closed: AtomicBool::new(false),
        })
    }

    /// Names the supervisor that new actors of this shard are linked to.
    pub(crate) fn set_supervisor(&self, supervisor: ActorRef<SupervisorMessage>) {
        *self.supervisor.lock().unwrap_or_else(PoisonError::into_inner) = Some(supervisor);
    }

    pub(crate) fn supervisor(&self) -> Option<ActorRef<SupervisorMessage>> {
        self.supervisor
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// A leadership begins; one that is still under way ends with it.
    pub(crate) fn begin(self: &Arc<Self>, leadership: Leadership) {
        self.begin_where(|_| Some(leadership));
    }

    /// Starts leadership `number` again after a failure, unless things have moved on.
    pub(crate) fn recover(self: &Arc<Self>, number: u64) {
        self.begin_where(|role| match role {
            Role::Recovering {
                number: waiting,
                leadership,
            } if *waiting == number => Some(leadership.clone()),
            _ => None,
        });
    }

    fn begin_where(self: &Arc<Self>, choose: impl FnOnce(&Role) -> Option<Leadership>) {
        let mut role = self.role.write().unwrap_or_else(PoisonError::into_inner);
        if self.closed.load(Ordering::Acquire) {
            return;
        }
        let Some(leadership) = choose(&role) else { return };
        let next = self.start_tenure(leadership);
        self.leading
            .store(matches!(next, Role::Leading { .. }), Ordering::Release);
        let before = std::mem::replace(&mut *role, next);
        drop(role);
        self.changed.notify_waiters();
        dismiss(before, None);
    }

    /// Starts the actor of a leadership. It counts at once: what is cast to it before it runs waits.
    fn start_tenure(self: &Arc<Self>, leadership: Leadership) -> Role {
        let number = self.tenures.fetch_add(1, Ordering::Relaxed) + 1;
        self.quarantined
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        self.counters.storage_full.store(false, Ordering::Relaxed);
        let Some(supervisor) = self.supervisor() else {
            return Role::Following { hint: None };
        };
        let lease_ms = self.config.gateway_lease_ms;
        let tenure = Tenure::new(
            self.shard,
            number,
            leadership,
            lease_ms,
            self.clock.monotonic_ms(),
        );
        let _on_our_runtime = self.runtime.enter();
        let arguments = (self.clone(), tenure.clone());
        match ActorRuntime::spawn_linked_instant(None, ShardActor, arguments, supervisor.get_cell()) {
            Ok((actor, _)) => {
                tenure.add_member(actor.get_cell());
                Role::Leading { tenure, actor }
            }
            Err(error) => {
                Alarm::ShardActorFailed.raise();
                tracing::error!(shard = %self.shard, %error, "start shard actor");
                Role::Following { hint: None }
            }
        }
    }

    /// This replica does not lead, says consensus. What was applied before is still told in order.
    pub(crate) fn step_down(&self, hint: Option<NodeId>) {
        let mut role = self.role.write().unwrap_or_else(PoisonError::into_inner);
        self.leading.store(false, Ordering::Release);
        let before = std::mem::replace(&mut *role, Role::Following { hint });
        drop(role);
        self.changed.notify_waiters();
        dismiss(before, hint);
    }

    /// The leadership `number` is over, says its own actor. A later one is left alone.
    pub(crate) fn step_down_from(&self, number: u64, hint: Option<NodeId>) {
        let mut role = self.role.write().unwrap_or_else(PoisonError::into_inner);
        if matches!(&*role, Role::Leading { tenure, .. } if tenure.number == number) {
            self.leading.store(false, Ordering::Release);
            *role = Role::Following { hint };
            self.changed.notify_waiters();
        }
    }

    /// An actor of the shard failed. If it belongs to the present leadership, all of that stops and
    /// waits to be started again: returns the number to hand to [`recover`](Self::recover).
    pub(crate) fn fail(&self, failed: Option<ActorId>) -> Option<u64> {
        let mut role = self.role.write().unwrap_or_else(PoisonError::into_inner);
        let Role::Leading { tenure, .. } = &*role else {
            return None;
        };
        if failed.is_some_and(|id| !tenure.has_member(id)) {
            return None;
        }
        let tenure = tenure.clone();
        // The streams that it watched, rather than those that it began with.
        let leadership = Leadership {
            streams: tenure.seats.streams(),
            ..tenure.leadership.clone()
        };
        self.leading.store(false, Ordering::Release);
        *role = Role::Recovering {
            number: tenure.number,
            leadership,
        };
        drop(role);
        tenure.end(None);
        tenure.stop_members();
        Some(tenure.number)
    }

    /// The shard leaves this node: whatever comes from now on finds nobody leading.
    pub(crate) fn close(&self) {
        let mut role = self.role.write().unwrap_or_else(PoisonError::into_inner);
        self.closed.store(true, Ordering::Release);
        self.leading.store(false, Ordering::Release);
        let before = std::mem::replace(&mut *role, Role::Following { hint: None });
        drop(role);
        self.changed.notify_waiters();
        if let Role::Leading { tenure, .. } = before {
            tenure.end(None);
            tenure.stop_members();
        }
    }

    /// A guess that costs one load: whether it is worth asking for [`leader`](Self::leader).
    pub(crate) fn is_leading(&self) -> bool {
        self.leading.load(Ordering::Acquire)
    }

    /// The present leadership, or who may have it.
    pub(crate) fn leader(&self) -> Result<Leader, Option<NodeId>> {
        match &*self.role.read().unwrap_or_else(PoisonError::into_inner) {
            Role::Leading { tenure, actor } => Ok(Leader {
                tenure: tenure.clone(),
                actor: actor.clone(),
            }),
            Role::Following { hint } => Err(*hint),
            Role::Recovering { .. } => Err(None),
        }
    }

    /// As [`leader`](Self::leader), but while nobody is known to lead, as during an election, it waits for who will:
    /// for [`ELECTION_WAIT_MS`] at the most.
    pub(crate) async fn leader_soon(&self) -> Result<Leader, Option<NodeId>> {
        let known = async {
            loop {
                let mut changed = pin!(self.changed.notified());
                // From here on no change is missed.
                changed.as_mut().enable();
                match self.leader() {
                    Err(None) if !self.closed.load(Ordering::Acquire) => changed.await,
                    known => return known,
                }
            }
        };
        timeout(Duration::from_millis(ELECTION_WAIT_MS), known)
            .await
            .unwrap_or(Err(None))
    }

    /// Puts a device on the list of the quarantined, or takes it off.
    pub(crate) fn set_quarantined(&self, device: &DeviceId, entry: Option<Quarantined>) {
        let mut quarantined = self.quarantined.lock().unwrap_or_else(PoisonError::into_inner);
        match entry {
            Some(entry) => quarantined.insert(device.clone(), entry),
            None => quarantined.remove(device),
        };
    }

    /// A quarantined device missed something.
    pub(crate) fn count_missed(&self, device: &DeviceId) {
        let mut quarantined = self.quarantined.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = quarantined.get_mut(device) {
            entry.notices_dropped += 1;
        }
    }

    pub(crate) fn stats(&self) -> ShardStats {
        let leader = self.leader().ok();
        let counters = &self.counters;
        ShardStats {
            shard: self.shard,
            leading_term: leader.as_ref().map(|leader| leader.tenure.term()),
            credits_used_bytes: self.credits.used_bytes(),
            frames: counters.frames.load(Ordering::Relaxed),
            frames_refused: counters.frames_refused.load(Ordering::Relaxed),
            streams: leader.map_or(0, |leader| leader.tenure.seats.streams().len()),
            storage_full: counters.storage_full.load(Ordering::Relaxed),
            shard_restarts: counters.shard_restarts.load(Ordering::Relaxed),
            device_actors: counters.device_actors.load(Ordering::Relaxed),
            devices_connected: counters.devices_connected.load(Ordering::Relaxed),
            device_restarts: counters.device_restarts.load(Ordering::Relaxed),
            notices_dropped: counters.notices_dropped.load(Ordering::Relaxed),
            quarantined: self
                .quarantined
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .values()
                .cloned()
                .collect(),
        }
    }
}

/// Ends the leadership of a role that was left, through its actor, so that what it was told before
/// goes out first. If the actor is gone the end comes from here.
fn dismiss(role: Role, hint: Option<NodeId>) {
    if let Role::Leading { tenure, actor } = role {
        tenure.seats.refuse_new();
        if actor.send_message(ShardMessage::End { hint }).is_err() {
            tenure.end(hint);
        }
    }
}
