//! Compares what a gateway believes to hold with what the state says, when it opens its stream.
//!
//! Ends of sessions are sent down once and not kept; what was lost on the way, or decided while the
//! gateway was cut off, is made up for here.

use std::sync::Arc;

use dunlin_model::command::{Query, View};
use dunlin_model::id::{DeviceId, StreamId};
use dunlin_model::port::{Downlink, DownlinkKind, SessionEnd};

use crate::room::ShardRoom;
use crate::tenure::Tenure;

/// Reads between two pauses in which other tasks get their turn.
const READS_PER_TURN: usize = 64;

/// Sends an end down for each of `sessions` that is not current. The list is as long as one message
/// between nodes allows. Stops when the leadership ends: the next leader is asked again.
pub(crate) async fn compare(
    room: Arc<ShardRoom>,
    tenure: Arc<Tenure>,
    stream: StreamId,
    sessions: Vec<(DeviceId, u64)>,
) {
    for (i, (device, epoch)) in sessions.into_iter().enumerate() {
        if i % READS_PER_TURN == READS_PER_TURN - 1 {
            tokio::task::yield_now().await;
        }
        if tenure.has_ended() {
            return;
        }
        let view = match room.replication.read(&Query::Device(device.clone())) {
            Ok(View::Device(view)) => view,
            Ok(_) => return,
            Err(error) => {
                // Records of stale sessions are fenced anyway; the gateway only learns it later.
                tracing::warn!(shard = %room.shard, ?stream, %error, "compare sessions of a gateway");
                return;
            }
        };
        let reason = match view {
            None => SessionEnd::Deleted,
            Some(view) if view.session.epoch == epoch && view.session.held_by == Some(stream) => continue,
            Some(_) => SessionEnd::TakenOver,
        };
        let kind = DownlinkKind::SessionEnded(reason);
        tenure.send_down(stream, Downlink { device, epoch, kind });
    }
}
