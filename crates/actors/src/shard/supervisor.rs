//! Keeps the actors of one shard running: when one of them fails, the leadership starts anew.
//!
//! The shard actor and the buckets stand or fall together, since each is useless without the others.
//! Gateways hear that the shard was lost, send again what was not answered, and find their stored
//! outcomes. Waits between restarts double up to a bound and go on for as long as consensus says
//! that this replica leads. Single devices are restarted in [`crate::device::bucket`].

use std::sync::Arc;
use std::time::Duration;

use dunlin_model::alarm::Alarm;
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};

use crate::backoff::Backoff;
use crate::room::ShardRoom;
use crate::stats::count;

/// What the supervisor of a shard can be told.
pub(crate) enum SupervisorMessage {
    /// Start this leadership again.
    Recover { number: u64 },
}

/// The actor.
pub(crate) struct ShardSupervisor;

/// What it keeps.
pub(crate) struct Watch {
    room: Arc<ShardRoom>,
    backoff: Backoff,
}

impl Watch {
    /// Plans the restart of leadership `number`.
    fn plan(&mut self, myself: &ActorRef<SupervisorMessage>, number: u64) {
        count(&self.room.counters.shard_restarts);
        let now_ms = self.room.clock.monotonic_ms();
        let wait_ms = self
            .backoff
            .handle_failure(now_ms, usize::MAX)
            .unwrap_or_default();
        myself.send_after(Duration::from_millis(wait_ms), move || {
            SupervisorMessage::Recover { number }
        });
    }
}

impl Actor for ShardSupervisor {
    type Msg = SupervisorMessage;
    type State = Watch;
    type Arguments = Arc<ShardRoom>;

    async fn pre_start(
        &self,
        _: ActorRef<SupervisorMessage>,
        room: Arc<ShardRoom>,
    ) -> Result<Watch, ActorProcessingErr> {
        Ok(Watch {
            room,
            backoff: Backoff::default(),
        })
    }

    async fn handle(
        &self,
        _: ActorRef<SupervisorMessage>,
        message: SupervisorMessage,
        watch: &mut Watch,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            SupervisorMessage::Recover { number } => watch.room.recover(number),
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<SupervisorMessage>,
        event: SupervisionEvent,
        watch: &mut Watch,
    ) -> Result<(), ActorProcessingErr> {
        if let SupervisionEvent::ActorFailed(cell, error) = event {
            Alarm::ShardActorFailed.raise();
            tracing::error!(shard = %watch.room.shard, %error, "an actor of the shard failed");
            if let Some(number) = watch.room.fail(Some(cell.get_id())) {
                watch.plan(&myself, number);
            }
        }
        Ok(())
    }
}
