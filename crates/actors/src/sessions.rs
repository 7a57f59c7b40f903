//! Compares what a gateway believes to hold with what the state says, when it opens its stream.
//!
//! Ends of sessions are sent down once and not kept; what was lost on the way, or decided while the
//! gateway was cut off, is made up for here. So are the last changes of what services want of a device: the
//! leader that should have told of them may be gone. A device that hears of one twice knows by its version. That messages
//! wait is told again as well; whoever asks for them in vain has lost nothing.

use std::sync::Arc;

use dunlin_model::command::{Query, TwinView, View};
use dunlin_model::device::{desired_downlink, waiting_downlink};
use dunlin_model::id::{DeviceId, StreamId};
use dunlin_model::port::{Downlink, DownlinkKind, SessionEnd};
use dunlin_model::shard::registry::{DESIRED_FILTER, messages_filter};

use crate::config::RETELL_MS;
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
        let view = match room.replication.read(&Query::Twin(device.clone())) {
            Ok(View::Twin(view)) => view,
            Ok(_) => return,
            Err(error) => {
                // Records of stale sessions are fenced anyway; the gateway only learns it later.
                tracing::warn!(shard = %room.shard, ?stream, %error, "compare sessions of a gateway");
                return;
            }
        };
        let reason = match view {
            None => SessionEnd::Deleted,
            Some(view) => {
                let session = &view.device.session;
                if session.epoch == epoch && session.held_by == Some(stream) {
                    if session.subscriptions.contains_key(DESIRED_FILTER) {
                        tell_again(&room, &tenure, stream, &view);
                    }
                    let listens = session.subscriptions.contains_key(&messages_filter(&device));
                    if listens && view.device.message_count > 0 {
                        tenure.send_down(stream, waiting_downlink(&device, epoch));
                    }
                    continue;
                }
                SessionEnd::TakenOver
            }
        };
        let kind = DownlinkKind::SessionEnded(reason);
        tenure.send_down(stream, Downlink { device, epoch, kind });
    }
}

/// Tells a session of the changes of the last while, which it may have missed.
fn tell_again(room: &ShardRoom, tenure: &Tenure, stream: StreamId, view: &TwinView) {
    let device = &view.device.record.device;
    let twin = match view.document() {
        Ok(twin) => twin,
        Err(error) => {
            tracing::warn!(shard = %room.shard, %device, %error, "read the twin of a connected device");
            return;
        }
    };
    let since_ms = room.clock.wall_ms().saturating_sub(RETELL_MS);
    for change in twin.recent.iter().filter(|change| change.ms >= since_ms) {
        tenure.send_down(
            stream,
            desired_downlink(device, view.device.session.epoch, change),
        );
    }
}
