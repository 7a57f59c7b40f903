//! One shard's lane: its stream ([`StreamSender`]), and the leader that takes its frames just now.
//!
//! A task per lane sends and looks for leaders; callers only add to the stream and wake it, so what
//! many connections submit in the same moment leaves as one frame. Which frame goes when is decided
//! in `model::stream`.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use dunlin_model::command::{Command, Settled};
use dunlin_model::id::{NodeId, ShardId, StreamId};
use dunlin_model::limits::STREAM_FRAMES_IN_FLIGHT_MAX;
use dunlin_model::port::{
    AckSink, Downlink, Frame, FrameOutcome, FrameResult, FrameSink, ServeError, ShardServer, StreamOpening,
    SubmitError, TraceSpan,
};
use dunlin_model::stream::{Answer, StreamSender};
use dunlin_model::trace::TraceContext;
use tokio::sync::{Notify, oneshot};

use super::{Budget, LOOK_AGAIN, Router};
use crate::entropy;

/// Commands that may wait for their outcome in one lane.
const COMMANDS_WAITING_MAX: usize = 64 * 1024;
/// How long a leader may take to make the stream known.
const OPEN_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Pause between signs of life, and between looks at a leader that does not answer.
const TICK: Duration = Duration::from_millis(200);
/// Ticks without an answer to what was sent after which the lane asks who leads.
const STALLED_TICKS: u32 = 2;
/// Ticks between signs of life.
const ALIVE_TICKS: u32 = 5;

/// What a record's end needs: whom to tell, and the bytes to give back.
struct RecordTicket {
    sink: Arc<dyn AckSink>,
    token: u64,
    bytes: u32,
}

type CommandTicket = oneshot::Sender<Option<Settled>>;

struct Link {
    node: NodeId,
    server: Arc<dyn ShardServer>,
    /// The attempt that made it; tells answers of this link from those of an earlier one.
    number: u64,
}

struct State {
    sender: StreamSender<RecordTicket, CommandTicket>,
    /// Of followed frames that were sent and not answered: no more than may be in flight.
    followed: VecDeque<(u64, Box<dyn TraceSpan>)>,
    /// Whether a leader has ever confirmed the stream.
    confirmed: bool,
    link: Option<Link>,
    links_made: u64,
    hint: Option<NodeId>,
    term_seen: u64,
    commands_waiting: usize,
    /// The link whose leader said last that it can store nothing more.
    full: Option<u64>,
    /// Counts answers, so that a stalled leader shows.
    answers: u64,
    stopped: bool,
}

/// A lane.
pub(super) struct Lane {
    shard: ShardId,
    state: Mutex<State>,
    wake: Notify,
    budget: Arc<Budget>,
    router: Weak<Router>,
}

impl Lane {
    pub(super) fn start(shard: ShardId, router: &Arc<Router>) -> Arc<Self> {
        let stream = StreamId {
            gateway: router.shared.node,
            incarnation: entropy::draw(),
        };
        let state = State {
            sender: StreamSender::new(shard, stream),
            followed: VecDeque::new(),
            confirmed: false,
            link: None,
            links_made: 0,
            hint: None,
            term_seen: 0,
            commands_waiting: 0,
            full: None,
            answers: 0,
            stopped: false,
        };
        let lane = Arc::new(Self {
            shard,
            state: Mutex::new(state),
            wake: Notify::new(),
            budget: router.budget.clone(),
            router: Arc::downgrade(router),
        });
        let running = lane.clone();
        router.shared.spawn_gateway(async move { running.run().await });
        lane
    }

    pub(super) fn stream(&self) -> StreamId {
        self.lock().sender.stream()
    }

    pub(super) fn leader(&self) -> Option<NodeId> {
        self.lock().link.as_ref().map(|link| link.node)
    }

    /// Refused with nothing done while the leader's storage is full: a record that is not in the stream has
    /// no sequence number, and no copy of it is anywhere.
    pub(super) fn submit_record(
        &self,
        record: &[u8],
        sink: Arc<dyn AckSink>,
        token: u64,
        trace: Option<TraceContext>,
    ) -> Result<(), SubmitError> {
        let ticket = RecordTicket {
            sink,
            token,
            bytes: record.len() as u32,
        };
        {
            let mut state = self.lock();
            state.check_storage()?;
            match trace {
                None => state.sender.handle_record(record, ticket),
                Some(trace) => state.sender.handle_followed(record, ticket, trace),
            }
        }
        self.wake.notify_one();
        Ok(())
    }

    pub(super) fn submit_command(
        &self,
        command: Command,
    ) -> Result<oneshot::Receiver<Option<Settled>>, SubmitError> {
        let (sender, receiver) = oneshot::channel();
        {
            let mut state = self.lock();
            // That a session is over has happened; it is written down when there is room.
            if !matches!(command, Command::SessionClose { .. }) {
                state.check_storage()?;
            }
            if state.commands_waiting >= COMMANDS_WAITING_MAX {
                return Err(SubmitError::Busy("commands that wait for their outcome"));
            }
            state.commands_waiting += 1;
            state.sender.handle_command(command, sender);
        }
        self.wake.notify_one();
        Ok(receiver)
    }

    pub(super) fn on_suspect(&self, node: NodeId) {
        let mut state = self.lock();
        if state.link.as_ref().is_some_and(|link| link.node == node) {
            state.drop_link(None);
            drop(state);
            self.wake.notify_one();
        }
    }

    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.stopped = true;
        state.drop_link(None);
        self.give_up(&mut state);
        drop(state);
        self.wake.notify_one();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().expect("no panic holds it")
    }

    async fn run(self: Arc<Self>) {
        let mut stalled_ticks = 0;
        let mut ticks = 0;
        let mut answers_seen = 0;
        loop {
            if self.lock().stopped {
                return;
            }
            if self.lock().link.is_none() {
                self.connect().await;
                stalled_ticks = 0;
                continue;
            }
            self.send_ready();
            if tokio::time::timeout(TICK, self.wake.notified()).await.is_ok() {
                // A task that is woken runs next, right behind the connection that woke it. One turn
                // later, the other connections that were readable have added their records, and one
                // frame holds them all. On a quiet node nobody else is there and nothing is lost.
                tokio::task::yield_now().await;
                continue;
            }
            ticks += 1;
            if ticks % ALIVE_TICKS == 0 {
                self.show_life();
            }
            let (answers, idle) = {
                let state = self.lock();
                (state.answers, state.sender.is_idle())
            };
            stalled_ticks = if idle || answers != answers_seen {
                0
            } else {
                stalled_ticks + 1
            };
            answers_seen = answers;
            if stalled_ticks >= STALLED_TICKS {
                stalled_ticks = 0;
                self.look_for_another().await;
            }
        }
    }

    /// Sends what may leave.
    fn send_ready(&self) {
        loop {
            let (mut frame, server, number) = {
                let mut state = self.lock();
                let Some(link) = &state.link else { return };
                let (server, number) = (link.server.clone(), link.number);
                let Some(frame) = state.sender.poll_frame() else {
                    return;
                };
                (frame, server, number)
            };
            if let Some(parent) = frame.trace {
                self.follow(&mut frame, parent, number);
            }
            match server.submit(self.shard, frame) {
                Ok(()) => {}
                Err(ServeError::NotLeader { hint }) => return self.lose(number, hint),
                Err(ServeError::Refused(reason)) => {
                    tracing::debug!(shard = %self.shard, reason, "shard takes no more for now");
                    // Everything unanswered goes again at the next wake or tick; repetitions are harmless.
                    self.lock().sender.handle_connected();
                    return;
                }
            }
        }
    }

    /// Gives a followed frame a span of its own, from its first leaving to its end, and puts what
    /// happens to it from here on below that.
    fn follow(&self, frame: &mut Frame, parent: TraceContext, link: u64) {
        let mut state = self.lock();
        let known = state
            .followed
            .iter()
            .find(|(sequence, _)| *sequence == frame.sequence);
        if let Some((_, span)) = known {
            span.note("sent_again_on_link", &link);
            frame.trace = Some(span.context());
            return;
        }
        let Some(router) = self.router.upgrade() else {
            return;
        };
        let Some(tracer) = router.shared.tracer() else {
            return;
        };
        let span = tracer.child("frame.submit", parent);
        span.note("shard", &self.shard.0);
        span.note("frame", &frame.sequence);
        span.note("records", &frame.record_count);
        if let Some(link) = &state.link {
            span.note("to_node", &link.node);
        }
        frame.trace = Some(span.context());
        if state.followed.len() as u64 >= STREAM_FRAMES_IN_FLIGHT_MAX {
            // Sent again just when its answer came, and then the link was lost: nobody will end it.
            state.followed.pop_front();
        }
        state.followed.push_back((frame.sequence, span));
    }

    fn show_life(&self) {
        let state = self.lock();
        if let Some(link) = &state.link {
            link.server.keep_alive(self.shard, state.sender.stream());
        }
    }

    /// Finds a leader that takes the stream. Returns after one round, found or not.
    async fn connect(self: &Arc<Self>) {
        let Some(router) = self.router.upgrade() else {
            self.lock().stopped = true;
            return;
        };
        let hint = self.lock().hint.take();
        for node in router.candidates(self.shard, hint) {
            match self.open(&router, node).await {
                Ok(()) => return,
                Err(ServeError::NotLeader { hint: Some(other) }) if other != node => {
                    if self.open(&router, other).await.is_ok() {
                        return;
                    }
                }
                Err(_) => {}
            }
        }
        drop(router);
        tokio::time::sleep(LOOK_AGAIN).await;
    }

    async fn open(self: &Arc<Self>, router: &Router, node: NodeId) -> Result<(), ServeError> {
        let server = router.server(node);
        let (stream, resume, number) = {
            let mut state = self.lock();
            state.links_made += 1;
            let resume = if state.confirmed { state.sender.resume() } else { 0 };
            (state.sender.stream(), resume, state.links_made)
        };
        let held = router
            .shared
            .downlink
            .get()
            .map(|sink| sink.sessions())
            .unwrap_or_default();
        let directory = router.shared.view.get();
        let sessions = held
            .into_iter()
            .filter(|(device, _)| directory.shard_of(device.slot()) == self.shard)
            .collect();
        let sink = Arc::new(LaneSink {
            lane: self.clone(),
            number,
        });
        let opening = StreamOpening {
            stream,
            attempt: number,
            resume,
            sessions,
        };
        let opening = server.open_stream(self.shard, opening, sink);
        let given_up = async {
            tokio::select! {
                () = tokio::time::sleep(OPEN_TIMEOUT) => {}
                () = router.shared.suspected(node) => {}
            }
        };
        tokio::select! {
            opened = opening => opened?,
            () = given_up => return Err(ServeError::NotLeader { hint: None }),
        }
        let mut state = self.lock();
        if state.stopped {
            return Ok(());
        }
        state.confirmed = true;
        state.link = Some(Link { node, server, number });
        state.sender.handle_connected();
        Ok(())
    }

    /// The leader has not answered for a while: if another one leads by now, go there.
    async fn look_for_another(&self) {
        let Some(router) = self.router.upgrade() else {
            return;
        };
        let Some((node, number)) = self.lock().link.as_ref().map(|link| (link.node, link.number)) else {
            return;
        };
        if let Some(leader) = router.shared.ask_leader(self.shard.group()).await
            && leader != node
        {
            self.lose(number, Some(leader));
        }
    }

    fn lose(&self, number: u64, hint: Option<NodeId>) {
        let mut state = self.lock();
        if state.link.as_ref().is_some_and(|link| link.number == number) {
            state.drop_link(hint);
            drop(state);
            self.wake.notify_one();
        }
    }

    fn settle(&self, state: &mut State, answer: Answer<RecordTicket, CommandTicket>) {
        match answer {
            Answer::Record(ticket, ack) => {
                self.budget.give(ticket.bytes as usize);
                ticket.sink.on_ack(ticket.token, ack);
            }
            Answer::Command(ticket, settled) => {
                state.commands_waiting -= 1;
                let _ = ticket.send(settled);
            }
        }
    }

    /// Answers everything with "unknown" and begins a new stream.
    fn give_up(&self, state: &mut State) {
        let fresh = StreamId {
            incarnation: entropy::draw(),
            ..state.sender.stream()
        };
        let mut old = std::mem::replace(&mut state.sender, StreamSender::new(self.shard, fresh));
        state.confirmed = false;
        state.followed.clear();
        let mut answers = Vec::new();
        old.fail_all(|answer| answers.push(answer));
        for answer in answers {
            self.settle(state, answer);
        }
    }
}

impl State {
    /// A leader says so on its own link; with that link gone nothing is known.
    fn check_storage(&self) -> Result<(), SubmitError> {
        match &self.link {
            Some(link) if self.full == Some(link.number) => Err(SubmitError::StorageFull),
            _ => Ok(()),
        }
    }

    /// Ends the span of a frame that has come to its end.
    fn end_span(&mut self, sequence: u64, result: &FrameResult) {
        let place = self.followed.iter().position(|(known, _)| *known == sequence);
        if let (Some(place), FrameResult::Applied(_) | FrameResult::Forgotten) = (place, result) {
            self.followed.remove(place);
        }
    }

    fn drop_link(&mut self, hint: Option<NodeId>) {
        self.link = None;
        self.hint = hint;
        self.sender.handle_disconnected();
    }
}

/// Where the answers on one link go.
struct LaneSink {
    lane: Arc<Lane>,
    number: u64,
}

impl FrameSink for LaneSink {
    fn on_outcome(&self, shard: ShardId, outcome: FrameOutcome) {
        let lane = &self.lane;
        let mut state = lane.lock();
        if outcome.stream != state.sender.stream() {
            return;
        }
        state.answers += 1;
        if !state.followed.is_empty() {
            state.end_span(outcome.sequence, &outcome.result);
        }
        // The sender is taken out while its answers are told, so that both can be borrowed.
        let placeholder = StreamSender::new(shard, outcome.stream);
        let mut sender = std::mem::replace(&mut state.sender, placeholder);
        let unknown = sender.handle_outcome(outcome, |answer| lane.settle(&mut state, answer));
        state.sender = sender;
        if unknown {
            tracing::warn!(%shard, "the shard no longer knows this gateway's stream; a new one begins");
            lane.give_up(&mut state);
            state.drop_link(None);
        }
        drop(state);
        lane.wake.notify_one();
    }

    fn on_lost(&self, _shard: ShardId, hint: Option<NodeId>) {
        self.lane.lose(self.number, hint);
    }

    fn on_storage_full(&self, _shard: ShardId, is_full: bool) {
        let mut state = self.lane.lock();
        if is_full {
            state.full = Some(self.number);
        } else if state.full == Some(self.number) {
            state.full = None;
        }
    }

    fn on_downlink(&self, _shard: ShardId, term: u64, downlink: Downlink) {
        {
            let mut state = self.lane.lock();
            if term < state.term_seen {
                return; // a leader that does not know yet that it is none
            }
            state.term_seen = term;
        }
        if let Some(router) = self.lane.router.upgrade()
            && let Some(sink) = router.shared.downlink.get()
        {
            sink.on_downlink(downlink);
        }
    }
}
