//! The shell around one device machine: feed it, carry out what it wants, set its alarm.
//!
//! It decides nothing. It begins by reading the device from state, so it can be lost and started
//! again at any time; a panic here is seen by [`super::bucket`] and by nobody else.

use std::sync::Arc;
use std::time::Duration;

use dunlin_model::command::{Query, View};
use dunlin_model::device::{Device, Effect};
use dunlin_model::id::DeviceId;
use dunlin_model::port::ReadError;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::task::JoinHandle;

use super::bucket::BucketMessage;
use super::inbox::Inbox;
use crate::room::ShardRoom;
use crate::stats::GaugeGuard;
use crate::tenure::Tenure;

/// What a device actor can be told. The news itself waits in the [`Inbox`].
pub(crate) enum DeviceMessage {
    /// The inbox has something.
    Poke,
    /// The machine's alarm.
    Timeout,
}

/// What a device actor starts from.
pub(crate) struct DeviceArguments {
    pub(crate) device: DeviceId,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) room: Arc<ShardRoom>,
    pub(crate) tenure: Arc<Tenure>,
    pub(crate) bucket: ActorRef<BucketMessage>,
}

/// The actor.
pub(crate) struct DeviceActor;

/// What it keeps.
pub(crate) struct DeviceWork {
    arguments: DeviceArguments,
    machine: Device,
    connected: Option<GaugeGuard>,
    alarm: Option<Alarm>,
}

/// A timer that goes with its owner, rather than keep the cell of an actor that has left.
struct Alarm {
    due_ms: u64,
    task: JoinHandle<Result<(), ractor::MessagingErr<DeviceMessage>>>,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Actor for DeviceActor {
    type Msg = DeviceMessage;
    type State = DeviceWork;
    type Arguments = DeviceArguments;

    async fn pre_start(
        &self,
        _: ActorRef<DeviceMessage>,
        arguments: DeviceArguments,
    ) -> Result<DeviceWork, ActorProcessingErr> {
        let idle_ms = arguments.room.config.device_idle_ms;
        let machine = Device::new(arguments.device.clone(), arguments.tenure.term(), idle_ms);
        Ok(DeviceWork {
            arguments,
            machine,
            connected: None,
            alarm: None,
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<DeviceMessage>,
        work: &mut DeviceWork,
    ) -> Result<(), ActorProcessingErr> {
        work.arguments.inbox.handle_poked();
        work.arguments.inbox.take_rebuild();
        work.rebuild(&myself)?;
        work.handle_inbox(&myself)
    }

    async fn handle(
        &self,
        myself: ActorRef<DeviceMessage>,
        message: DeviceMessage,
        work: &mut DeviceWork,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            DeviceMessage::Poke => {
                work.arguments.inbox.handle_poked();
                work.handle_inbox(&myself)
            }
            DeviceMessage::Timeout => {
                work.alarm = None;
                let now_ms = work.now_ms();
                work.machine.handle_timeout(now_ms);
                work.carry_out(&myself);
                Ok(())
            }
        }
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<DeviceMessage>,
        _: SupervisionEvent,
        _: &mut DeviceWork,
    ) -> Result<(), ActorProcessingErr> {
        Ok(()) // It has no children.
    }
}

impl DeviceWork {
    fn now_ms(&self) -> u64 {
        self.arguments.room.clock.monotonic_ms()
    }

    fn handle_inbox(&mut self, myself: &ActorRef<DeviceMessage>) -> Result<(), ActorProcessingErr> {
        if self.arguments.inbox.take_rebuild() {
            self.rebuild(myself)?;
        }
        while let Some(notice) = self.arguments.inbox.take() {
            self.invite_fault();
            let now_ms = self.now_ms();
            self.machine.handle_notice(&notice, now_ms);
            self.carry_out(myself);
            self.arguments.inbox.done();
        }
        Ok(())
    }

    fn rebuild(&mut self, myself: &ActorRef<DeviceMessage>) -> Result<(), ActorProcessingErr> {
        self.invite_fault();
        let query = Query::Device(self.arguments.device.clone());
        let view = match self.arguments.room.replication.read(&query) {
            Ok(View::Device(view)) => view,
            Ok(_) => return Err("the answer is not about a device".into()),
            Err(ReadError::NotLeader { .. }) => {
                // The leadership is ending, and this actor with it: no failure of the device.
                myself.stop(None);
                return Ok(());
            }
            Err(error) => return Err(error.into()),
        };
        let now_ms = self.now_ms();
        self.machine.handle_view(view.as_ref(), now_ms);
        self.carry_out(myself);
        Ok(())
    }

    fn invite_fault(&self) {
        if let Some(fault) = &self.arguments.room.config.actor_fault {
            fault.before_device(&self.arguments.device);
        }
    }

    fn carry_out(&mut self, myself: &ActorRef<DeviceMessage>) {
        while let Some(effect) = self.machine.poll_effect() {
            match effect {
                Effect::Downlink { to, downlink, .. } => self.arguments.tenure.send_down(to, downlink),
                Effect::Presence { connected } => {
                    let gauge = &self.arguments.room.counters.devices_connected;
                    self.connected = connected.then(|| GaugeGuard::enter(gauge));
                }
                Effect::Passivate => {
                    // The bucket decides, since it knows whether something is on its way already.
                    let idle = BucketMessage::Idle {
                        device: self.arguments.device.clone(),
                        actor: myself.get_id(),
                    };
                    let _ = self.arguments.bucket.send_message(idle); // no bucket: the end is near anyway
                }
            }
        }
        self.set_alarm(myself);
    }

    /// An alarm that is set too early does no harm and is set again when it rings.
    fn set_alarm(&mut self, myself: &ActorRef<DeviceMessage>) {
        let Some(due_ms) = self.machine.poll_timeout() else {
            self.alarm = None;
            return;
        };
        if self.alarm.as_ref().is_some_and(|alarm| alarm.due_ms <= due_ms) {
            return;
        }
        let wait_ms = due_ms.saturating_sub(self.now_ms()).max(1);
        let task = myself.send_after(Duration::from_millis(wait_ms), || DeviceMessage::Timeout);
        self.alarm = Some(Alarm { due_ms, task });
    }
}
