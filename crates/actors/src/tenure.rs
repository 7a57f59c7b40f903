//! One leadership of one shard on this node, from `on_leader` to its end.
//!
//! What the doors, the shard actor and the device actors of a leadership share. It ends once, for
//! everybody, whoever notices first. Who leads now is kept in [`crate::room`].

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use dunlin_model::device::owed_downlink;
use dunlin_model::id::{NodeId, ShardId, StreamId};
use dunlin_model::port::{Downlink, Leadership};
use dunlin_model::shard::Notice;
use ractor::{ActorCell, ActorId};
use tokio::sync::{Semaphore, watch};

use crate::config::{OPENS_WAITING_MAX, SESSION_CHECKS_MAX};
use crate::seats::Seats;

/// How far the events of a shard have come, for readers that wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Progress {
    /// Offset after the last applied event, or 0 while none was applied under this leadership.
    pub(crate) next_offset: u64,
    /// The leadership is over.
    pub(crate) ended: bool,
}

/// One leadership.
pub(crate) struct Tenure {
    pub(crate) shard: ShardId,
    /// Counts leaderships of this shard on this node. Terms cannot, since one term may see several.
    pub(crate) number: u64,
    pub(crate) leadership: Leadership,
    pub(crate) seats: Seats,
    pub(crate) progress: watch::Sender<Progress>,
    /// Turns of callers that wait for a stream to be opened.
    pub(crate) opens: Arc<Semaphore>,
    /// Turns of tasks that compare a gateway's sessions with the state.
    pub(crate) session_checks: Arc<Semaphore>,
    ended: AtomicBool,
    /// The shard actor and the buckets: one of them failing ends them all. At most 17.
    members: Mutex<Vec<ActorCell>>,
}

impl Tenure {
    pub(crate) fn new(
        shard: ShardId,
        number: u64,
        leadership: Leadership,
        lease_ms: u64,
        now_ms: u64,
    ) -> Arc<Self> {
        Arc::new(Self {
            shard,
            number,
            seats: Seats::new(&leadership.streams, lease_ms, now_ms),
            leadership,
            progress: watch::Sender::new(Progress {
                next_offset: 0,
                ended: false,
            }),
            opens: Arc::new(Semaphore::new(OPENS_WAITING_MAX)),
            session_checks: Arc::new(Semaphore::new(SESSION_CHECKS_MAX)),
            ended: AtomicBool::new(false),
            members: Mutex::new(Vec::new()),
        })
    }

    pub(crate) fn term(&self) -> u64 {
        self.leadership.term
    }

    /// Ends it: tells every gateway that its frames must go elsewhere, wakes everybody who waits.
    /// Does nothing the second time.
    pub(crate) fn end(&self, hint: Option<NodeId>) {
        if self.ended.swap(true, Ordering::AcqRel) {
            return;
        }
        let sinks = self.seats.close();
        self.progress.send_modify(|progress| progress.ended = true);
        for sink in sinks {
            sink.on_lost(self.shard, hint);
        }
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    /// Sends `downlink` to the gateway of `stream`, if it is connected here.
    pub(crate) fn send_down(&self, stream: StreamId, downlink: Downlink) {
        if let Some(sink) = self.seats.sink(stream) {
            sink.on_downlink(self.shard, self.term(), downlink);
        }
    }

    /// Sends the gateway of a session what it has to hear of `notice`, for a device that cannot do so itself.
    pub(crate) fn send_owed(&self, notice: &Notice) {
        if let Some((stream, downlink)) = owed_downlink(notice) {
            self.send_down(stream, downlink);
        }
    }

    /// Takes an actor into this leadership, or stops it at once if that is over.
    pub(crate) fn add_member(&self, cell: ActorCell) {
        let mut members = self.members.lock().unwrap_or_else(PoisonError::into_inner);
        if self.has_ended() {
            cell.stop(None);
        } else {
            members.push(cell);
        }
    }

    pub(crate) fn has_member(&self, id: ActorId) -> bool {
        self.members
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .any(|cell| cell.get_id() == id)
    }

    /// Stops the actors of this leadership, which has ended; their children go with them.
    pub(crate) fn stop_members(&self) {
        for cell in self
            .members
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .drain(..)
        {
            cell.stop(None);
        }
    }
}
