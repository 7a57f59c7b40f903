//! The leader's one hand on the log: frames in, batches out, outcomes and notices to whom they concern.
//!
//! One message per frame, one per applied entry, one per settled batch. It proposes in order, gives
//! up gateways whose lease has run out, and ends with its leadership. It waits for nothing while it
//! handles a message: what takes time runs in tasks that send their result back. What a batch does
//! is decided in `dunlin_model::shard::state`; who sits where in [`crate::seats`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dunlin_model::command::{Command, Due, Query, View};
use dunlin_model::device::concerned_device;
use dunlin_model::group::ask::GroupAsk;
use dunlin_model::id::{NodeId, StreamId};
use dunlin_model::port::{AppliedEntry, Frame, ProposeError, TraceSpan};
use dunlin_model::shard::{Batch, Notice, Part};
use ractor::{Actor, ActorProcessingErr, ActorRef, SupervisionEvent};
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use tokio::task::JoinSet;

use super::pump::Pump;
use crate::config::{DUE_CHECK_MS, GROUPS_RESUME_MS, JOURNAL_RETRY_MS};
use crate::device::buckets::Buckets;
use crate::room::ShardRoom;
use crate::tenure::Tenure;

/// What the shard actor can be told.
pub(crate) enum ShardMessage {
    /// A sound frame whose credit is noted at its seat.
    Frame(Frame),
    /// An entry was applied.
    Applied(AppliedEntry),
    /// A batch came to its end.
    Settled {
        number: u64,
        result: Result<(), ProposeError>,
    },
    /// A gateway opened its stream: `introduce` it to the log first if that is still to be done.
    Open {
        stream: StreamId,
        introduce: bool,
        waiter: OpenWaiter,
    },
    /// A lease may have run out.
    LeaseCheck,
    /// Offer refused batches to the journal again.
    Retry,
    /// Queues of messages to devices, or consumer groups, may be due.
    DueCheck,
    /// These are due.
    Due(Vec<Due>),
    /// This node has no room for more, or has it again.
    Storage { is_full: bool },
    /// Finish what was taken in, then end, then say so by dropping `done`.
    Drain { done: oneshot::Sender<()> },
    /// The leadership is over.
    End { hint: Option<NodeId> },
}

/// A caller of `open_stream` that waits for the log, with its turn.
pub(crate) struct OpenWaiter {
    pub(crate) known: oneshot::Sender<()>,
    pub(crate) _turn: OwnedSemaphorePermit,
}

/// The actor; everything it knows is in [`ShardWork`].
pub(crate) struct ShardActor;

/// What the shard actor keeps.
pub(crate) struct ShardWork {
    room: Arc<ShardRoom>,
    tenure: Arc<Tenure>,
    pump: Pump,
    buckets: Buckets,
    /// Bounded by the turns of [`Tenure::opens`].
    opening: BTreeMap<StreamId, Vec<OpenWaiter>>,
    /// Proposals under way; dropped with the actor.
    proposals: JoinSet<()>,
    lease_check_armed: bool,
    due_timer: Option<DueTimer>,
    retry_armed: bool,
    /// What consensus says of the node; the pump knows what was refused.
    node_is_full: bool,
    draining: Option<oneshot::Sender<()>>,
}

impl Actor for ShardActor {
    type Msg = ShardMessage;
    type State = ShardWork;
    type Arguments = (Arc<ShardRoom>, Arc<Tenure>);

    async fn pre_start(
        &self,
        _: ActorRef<ShardMessage>,
        (room, tenure): Self::Arguments,
    ) -> Result<ShardWork, ActorProcessingErr> {
        Ok(ShardWork {
            pump: Pump::new(tenure.leadership.time_ms),
            buckets: Buckets::new(room.clone(), tenure.clone()),
            room,
            tenure,
            opening: BTreeMap::new(),
            proposals: JoinSet::new(),
            lease_check_armed: false,
            due_timer: None,
            retry_armed: false,
            node_is_full: false,
            draining: None,
        })
    }

    async fn post_start(
        &self,
        myself: ActorRef<ShardMessage>,
        work: &mut ShardWork,
    ) -> Result<(), ActorProcessingErr> {
        tracing::info!(shard = %work.room.shard, term = work.tenure.term(), "lead");
        work.resume_groups();
        work.propose_waiting(&myself);
        work.arm_lease_check(&myself);
        if !work.tenure.has_ended() {
            work.due_timer = Some(arm_due_check(&myself));
        }
        Ok(())
    }

    async fn handle(
        &self,
        myself: ActorRef<ShardMessage>,
        message: ShardMessage,
        work: &mut ShardWork,
    ) -> Result<(), ActorProcessingErr> {
        if let Some(fault) = &work.room.config.actor_fault {
            fault.before_shard(work.room.shard);
        }
        match message {
            ShardMessage::Frame(frame) => work.pump.handle_part(Part::Frame(frame)),
            ShardMessage::Applied(entry) => work.handle_applied(entry).await?,
            ShardMessage::Settled { number, result } => work.handle_settled(&myself, number, result),
            ShardMessage::Open {
                stream,
                introduce,
                waiter,
            } => work.handle_open(stream, introduce, waiter),
            ShardMessage::LeaseCheck => work.handle_lease_check(),
            ShardMessage::Retry => work.handle_retry(),
            ShardMessage::DueCheck => work.look_for_due(&myself),
            ShardMessage::Due(due) => work.handle_due(&myself, due),
            ShardMessage::Storage { is_full } => work.handle_storage(is_full),
            ShardMessage::Drain { done } => work.draining = Some(done),
            ShardMessage::End { hint } => work.end(&myself, hint),
        }
        work.propose_waiting(&myself);
        work.arm_lease_check(&myself);
        if work.draining.is_some() && work.pump.is_idle() {
            work.end(&myself, None);
        }
        Ok(())
    }

    async fn handle_supervisor_evt(
        &self,
        _: ActorRef<ShardMessage>,
        _: SupervisionEvent,
        _: &mut ShardWork,
    ) -> Result<(), ActorProcessingErr> {
        Ok(()) // It has no children; the buckets are its siblings.
    }
}

/// A timer that goes with its leadership, rather than keep the cell of an actor that has left.
struct DueTimer(tokio::task::JoinHandle<Result<(), ractor::MessagingErr<ShardMessage>>>);

impl Drop for DueTimer {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn arm_due_check(myself: &ActorRef<ShardMessage>) -> DueTimer {
    DueTimer(myself.send_after(Duration::from_millis(DUE_CHECK_MS), || ShardMessage::DueCheck))
}

/// What is due when `ms` is over, or some of it.
fn read_due(room: &ShardRoom, ms: u64) -> Vec<Due> {
    let query = Query::Due {
        shard: room.shard,
        ms,
    };
    match room.replication.read(&query) {
        Ok(View::Due(due)) => due,
        Ok(_) => Vec::new(),
        Err(error) => {
            tracing::warn!(shard = %room.shard, %error, "read what is due");
            Vec::new()
        }
    }
}

impl ShardWork {
    fn now_ms(&self) -> u64 {
        self.room.clock.monotonic_ms()
    }

    /// Proposes what may leave. The calls are made here, in order; the answers are awaited elsewhere.
    fn propose_waiting(&mut self, myself: &ActorRef<ShardMessage>) {
        if self.tenure.has_ended() {
            return;
        }
        while let Some((number, batch)) = self.pump.poll_batch(self.room.clock.wall_ms()) {
            let span = self.follow(&batch);
            let settled = self.room.replication.propose(batch);
            let actor = myself.clone();
            self.proposals.spawn(async move {
                let result = settled.await;
                drop(span);
                // Nobody is left to hear it when the leadership has ended meanwhile.
                let _ = actor.send_message(ShardMessage::Settled { number, result });
            });
        }
    }

    /// A span from proposal to applied, if a frame of the batch is followed: below the first such frame.
    fn follow(&self, batch: &Batch) -> Option<Box<dyn TraceSpan>> {
        let tracer = self.room.config.tracer.as_ref()?;
        let parent = batch.parts.iter().find_map(|part| match part {
            Part::Frame(frame) => frame.trace,
            _ => None,
        })?;
        let span = tracer.child("raft.propose", parent);
        span.note("shard", &self.room.shard.0);
        span.note("parts", &batch.parts.len());
        Some(span)
    }

    fn handle_settled(
        &mut self,
        myself: &ActorRef<ShardMessage>,
        number: u64,
        result: Result<(), ProposeError>,
    ) {
        while self.proposals.try_join_next().is_some() {}
        match result {
            Ok(()) => {
                self.pump.handle_done(number);
                self.tell_storage();
            }
            Err(ProposeError::Full) => self.handle_full(number),
            Err(ProposeError::NotLeader { hint }) => self.end(myself, hint),
            Err(ProposeError::Unknown) => self.end(myself, None),
        }
        if self.pump.may_retry() && !self.retry_armed {
            self.retry_armed = true;
            myself.send_after(Duration::from_millis(JOURNAL_RETRY_MS), || ShardMessage::Retry);
        }
    }

    /// The frames of the batch stay, and hold their credits; so the door closes by itself if this lasts.
    fn handle_full(&mut self, number: u64) {
        self.pump.handle_refused(number);
        self.tell_storage();
    }

    /// A shard that proposes nothing learns of a full node as well, and its gateways refuse the first message.
    fn handle_storage(&mut self, is_full: bool) {
        self.node_is_full = is_full;
        self.tell_storage();
    }

    /// Tells the gateways when storage has become full, so that they refuse what they have not sent yet, and
    /// when it is no longer: with refused batches, when one of them has found room.
    fn tell_storage(&self) {
        let is_full = self.node_is_full || self.pump.is_refused();
        if self.room.counters.storage_full.swap(is_full, Ordering::Relaxed) == is_full {
            return;
        }
        if is_full {
            tracing::error!(shard = %self.room.shard, "storage is full; what is proposed is offered again");
        } else {
            tracing::info!(shard = %self.room.shard, "storage has room again");
        }
        for sink in self.tenure.seats.sinks() {
            sink.on_storage_full(self.room.shard, is_full);
        }
    }

    fn handle_retry(&mut self) {
        self.retry_armed = false;
        self.pump.handle_retry(self.room.clock.wall_ms());
    }

    /// Members of consumer groups that nobody led could not be heard, and are not taken for dead: those whose time would
    /// soon be over get a whole one. The first of this leadership, since whatever else a group is told lets time pass.
    fn resume_groups(&mut self) {
        let until_ms = self.room.clock.wall_ms() + GROUPS_RESUME_MS;
        for due in read_due(&self.room, until_ms) {
            if let Due::Group(group) = due {
                let ask = Box::new(GroupAsk::Resume);
                self.pump
                    .handle_part(Part::Internal(Command::Group { group, ask }));
            }
        }
    }

    fn look_for_due(&mut self, myself: &ActorRef<ShardMessage>) {
        let (room, actor) = (self.room.clone(), myself.clone());
        self.proposals.spawn(async move {
            let due = read_due(&room, room.clock.wall_ms());
            // Nobody is left to hear it when the leadership has ended meanwhile.
            let _ = actor.send_message(ShardMessage::Due(due));
        });
    }

    /// Time passes by an entry of the log, as everything does.
    fn handle_due(&mut self, myself: &ActorRef<ShardMessage>, due: Vec<Due>) {
        while self.proposals.try_join_next().is_some() {}
        for due in due {
            let command = match due {
                Due::Messages(device) => Command::MessagesExpire { device },
                Due::Group(group) => Command::Group {
                    group,
                    ask: Box::new(GroupAsk::Tick),
                },
            };
            self.pump.handle_part(Part::Internal(command));
        }
        self.due_timer = Some(arm_due_check(myself));
    }

    fn handle_open(&mut self, stream: StreamId, introduce: bool, waiter: OpenWaiter) {
        // Callers who have given up leave their turns behind; this is where they are collected.
        self.opening.retain(|_, waiters| {
            waiters.retain(|waiter| !waiter.known.is_closed());
            !waiters.is_empty()
        });
        if self.room.counters.storage_full.load(Ordering::Relaxed)
            && let Some(sink) = self.tenure.seats.sink(stream)
        {
            sink.on_storage_full(self.room.shard, true);
        }
        if introduce {
            self.opening.entry(stream).or_default().push(waiter);
            self.pump.handle_part(Part::StreamOpen(stream));
        } else {
            let _ = waiter.known.send(()); // the caller may have given up
        }
    }

    async fn handle_applied(&mut self, entry: AppliedEntry) -> Result<(), ActorProcessingErr> {
        for (sink, outcome) in self.tenure.seats.settle(entry.outcomes) {
            sink.on_outcome(self.room.shard, outcome);
        }
        let mut concerned = Vec::new();
        for notice in entry.notices {
            if concerned_device(&notice).is_some() {
                concerned.push(notice);
            } else {
                self.handle_stream_notice(notice);
            }
        }
        if !concerned.is_empty() {
            self.buckets.route(concerned).await?;
        }
        Ok(())
    }

    fn handle_stream_notice(&mut self, notice: Notice) {
        match notice {
            Notice::StreamOpened(stream) => {
                self.tenure.seats.handle_known(stream, self.now_ms());
                for waiter in self.opening.remove(&stream).into_iter().flatten() {
                    let _ = waiter.known.send(()); // the caller may have given up
                }
            }
            Notice::StreamClosed { stream, more: true } => self.pump.handle_part(Part::GatewayGone(stream)),
            Notice::StreamClosed { stream, more: false } => {
                self.tenure.seats.handle_closed(stream, self.now_ms());
            }
            _ => {}
        }
    }

    fn handle_lease_check(&mut self) {
        self.lease_check_armed = false;
        for stream in self.tenure.seats.poll_lapsed(self.now_ms()) {
            tracing::info!(shard = %self.room.shard, ?stream, "give up a silent gateway");
            self.pump.handle_part(Part::GatewayGone(stream));
        }
    }

    /// A lease that is made later runs out later, so one timer for the earliest is enough.
    fn arm_lease_check(&mut self, myself: &ActorRef<ShardMessage>) {
        if self.lease_check_armed || self.tenure.has_ended() {
            return;
        }
        if let Some(at_ms) = self.tenure.seats.next_lapse_ms() {
            self.lease_check_armed = true;
            let wait_ms = at_ms.saturating_sub(self.now_ms()).max(1);
            myself.send_after(Duration::from_millis(wait_ms), || ShardMessage::LeaseCheck);
        }
    }

    fn end(&mut self, myself: &ActorRef<ShardMessage>, hint: Option<NodeId>) {
        if !self.tenure.has_ended() {
            tracing::info!(shard = %self.room.shard, term = self.tenure.term(), "lead no more");
        }
        self.room.step_down_from(self.tenure.number, hint);
        self.tenure.end(hint);
        self.room.counters.storage_full.store(false, Ordering::Relaxed);
        self.draining = None;
        self.due_timer = None;
        self.opening.clear();
        self.tenure.stop_members();
        myself.stop(None);
    }
}
