//! The root of a node's supervision tree: it holds the shard supervisors and starts one again that failed.

use std::collections::HashMap;
use std::sync::Arc;

use dunlin_model::alarm::Alarm;
use ractor::{Actor, ActorId, ActorProcessingErr, ActorRef, ActorRuntime, SpawnErr, SupervisionEvent};

use crate::room::ShardRoom;
use crate::shard::supervisor::{ShardSupervisor, SupervisorMessage};

/// What the root can be told.
pub(crate) enum RootMessage {
    /// A shard was added under this supervisor.
    Added {
        supervisor: ActorId,
        room: Arc<ShardRoom>,
    },
}

/// The actor. It keeps which supervisor has which shard; at most [`crate::config::SHARDS_MAX`].
pub(crate) struct Root;

/// Starts a supervisor for `room` under `root`. It counts at once, even before it runs.
pub(crate) fn start_supervisor(
    root: &ActorRef<RootMessage>,
    room: &Arc<ShardRoom>,
) -> Result<ActorRef<SupervisorMessage>, SpawnErr> {
    let _on_our_runtime = room.runtime.enter();
    let (supervisor, _) =
        ActorRuntime::spawn_linked_instant(None, ShardSupervisor, room.clone(), root.get_cell())?;
    room.set_supervisor(supervisor.clone());
    let added = RootMessage::Added {
        supervisor: supervisor.get_id(),
        room: room.clone(),
    };
    if root.send_message(added).is_err() {
        supervisor.stop(None); // the root is stopping, and so is everything below it
    }
    Ok(supervisor)
}

impl Actor for Root {
    type Msg = RootMessage;
    type State = HashMap<ActorId, Arc<ShardRoom>>;
    type Arguments = ();

    async fn pre_start(&self, _: ActorRef<RootMessage>, (): ()) -> Result<Self::State, ActorProcessingErr> {
        Ok(HashMap::new())
    }

    async fn handle(
        &self,
        _: ActorRef<RootMessage>,
        message: RootMessage,
        rooms: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match message {
            RootMessage::Added { supervisor, room } => rooms.insert(supervisor, room),
        };
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        myself: ActorRef<RootMessage>,
        event: SupervisionEvent,
        rooms: &mut Self::State,
    ) -> Result<(), ActorProcessingErr> {
        match event {
            SupervisionEvent::ActorTerminated(cell, ..) => {
                rooms.remove(&cell.get_id());
            }
            SupervisionEvent::ActorFailed(cell, error) => {
                let Some(room) = rooms.remove(&cell.get_id()) else {
                    return Ok(());
                };
                Alarm::ShardActorFailed.raise();
                tracing::error!(shard = %room.shard, %error, "a shard supervisor failed");
                // Its children went with it.
                let number = room.fail(None);
                let supervisor = start_supervisor(&myself, &room)?;
                if let Some(number) = number {
                    supervisor.send_message(SupervisorMessage::Recover { number })?;
                }
            }
            _ => {}
        }
        Ok(())
    }
}
