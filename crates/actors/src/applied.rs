//! What consensus tells this node's shards. Every call returns at once.
//!
//! A follower pays one lookup and one load per entry; a leader one message to the shard actor.

use dunlin_model::id::{NodeId, ShardId};
use dunlin_model::port::{AppliedEntry, AppliedSink, Leadership};

use crate::host::ActorHost;
use crate::shard::actor::ShardMessage;

impl AppliedSink for ActorHost {
    fn on_applied(&self, shard: ShardId, entry: AppliedEntry) {
        let Some(room) = self.room(shard) else { return };
        if !room.is_leading() {
            return;
        }
        let Ok(leader) = room.leader() else { return };
        let next_offset = entry.next_offset;
        if !entry.outcomes.is_empty() || !entry.notices.is_empty() {
            // An actor that is gone has ended its leadership, and everybody was told.
            let _ = leader.actor.send_message(ShardMessage::Applied(entry));
        }
        leader.tenure.progress.send_if_modified(|progress| {
            let moved = progress.next_offset < next_offset;
            progress.next_offset = progress.next_offset.max(next_offset);
            moved
        });
    }

    fn on_leader(&self, shard: ShardId, leadership: Leadership) {
        match self.room(shard) {
            Some(room) => room.begin(leadership),
            None => tracing::error!(%shard, "told to lead a shard that this host does not have"),
        }
    }

    fn on_storage_full(&self, shard: ShardId, is_full: bool) {
        if let Some(leader) = self.room(shard).and_then(|room| room.leader().ok()) {
            // An actor that is gone has ended its leadership, and everybody was told.
            let _ = leader.actor.send_message(ShardMessage::Storage { is_full });
        }
    }

    fn on_follower(&self, shard: ShardId, leader: Option<NodeId>) {
        if let Some(room) = self.room(shard) {
            room.step_down(leader);
        }
    }
}
