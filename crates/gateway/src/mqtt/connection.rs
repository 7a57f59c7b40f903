//! The shell of one MQTT connection: a socket on one side, the cluster on the other, the machine between.
//!
//! One task per connection. It reads as much as there is, handles every whole packet, gathers all
//! acknowledgements into one buffer and writes once. Decisions are made in [`super::session`] and
//! [`super::admit`]; nothing here knows a topic.

use std::collections::VecDeque;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use dunlin_model::audit::AuditRecord;
use dunlin_model::command::{Command, Outcome, Refusal, TelemetryAck};
use dunlin_model::id::DeviceId;
use dunlin_model::messages::{MessageContent, TakenMessage};
use dunlin_model::port::{AckSink, SessionEnd, SubmitError, TraceSpan};
use dunlin_model::quota::Operation;
use dunlin_model::twin::Twin;
use rmqtt_codec::error::DecodeError;
use rmqtt_codec::v5::DisconnectReasonCode;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{sleep_until, timeout};

use super::Version;
use super::admit::{self, Admitted};
use super::calls::Calls;
use super::courier::{Courier, Downward, Returned};
use super::mailbox::{Eviction, Mail, Mailbox, Note};
use super::provisioning::{self, Applicant};
use super::records::{Passed, Records};
use super::session::{Effect, End, FilterCode, Session};
use super::socket::{Moved, Socket};
use super::told::Told;
use super::twin;
use super::will;
use super::wire::{self, Codec, ConnectRequest, Incoming, Refused, SniffError};
use crate::auth::{Shown, Standing};
use crate::http::claimed;
use crate::limits::{CLOSE_WAIT, CONNECT_WAIT, WRITE_STALL_WAIT};
use crate::metrics::{Gauge, count, count_by};
use crate::quota::{Cost, Over};
use crate::shared::Shared;

/// Bytes that wait to be written before we stop reading.
const OUT_BYTES_MAX: usize = 64 * 1024;

/// Serves one connection from its first byte to the closing of its session. `shown` are the certificates of a client
/// that has some.
pub(crate) async fn serve<S>(shared: Arc<Shared>, stream: S, peer: SocketAddr, shown: Option<Shown>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    let mut socket = Socket::new(stream);
    let first = tokio::select! {
        first = timeout(CONNECT_WAIT, read_connect(&mut socket)) => first,
        () = shared.draining.cancelled() => return,
    };
    let (mut codec, request) = match first {
        Ok(Ok(first)) => first,
        Ok(Err(NoConnect::Answer(mut codec, refused))) => {
            refuse(
                &shared,
                &mut socket,
                &mut codec,
                refused,
                peer,
                "",
                "the first packet",
            )
            .await;
            return;
        }
        Ok(Err(NoConnect::Close)) => return count(&shared.metrics.protocol_errors),
        Ok(Err(NoConnect::Lost)) | Err(_) => return,
    };
    if let Some(applicant) = Applicant::of(&request, &shared.host_names) {
        let from = (shown.as_ref(), peer);
        let admitted = provisioning::admit(&shared, &request, &applicant, from).await;
        return match admitted {
            Ok(()) => {
                count(&shared.metrics.connects_ok);
                let visitor = (&applicant, request.keep_alive_s);
                provisioning::serve(&shared, &mut socket, &mut codec, visitor, from).await;
            }
            // Kept in the audit already, if it is to be.
            Err((answer, why)) => {
                tracing::debug!(%peer, %answer, why, "registration refused");
                turn_away(&shared, &mut socket, &mut codec, answer).await;
            }
        };
    }
    let keep_alive_s = Session::server_keep_alive_s(request.keep_alive_s);
    let persistent = !request.clean;
    let mailbox = Arc::new(Mailbox::default());
    let Admitted {
        mut terms,
        standing,
        present,
        deliveries,
    } = match admit::admit(&shared, *request, shown.as_ref(), &mailbox).await {
        Ok(admitted) => admitted,
        Err(no) => {
            return refuse(
                &shared,
                &mut socket,
                &mut codec,
                no.answer,
                peer,
                &no.device,
                &no.why,
            )
            .await;
        }
    };
    count(&shared.metrics.connects_ok);
    if shared.draining.is_cancelled() {
        mailbox.evict(Eviction::Shutdown);
    }
    if let (Version::V5, Some(seconds)) = (terms.version, keep_alive_s) {
        terms.keep_alive_s = seconds;
    }
    let _open = Gauge::new(&shared.metrics.sessions_now);
    codec.open_up();
    codec.put_accepted(present, persistent, keep_alive_s, &mut socket.out);
    let calls = Calls::new(terms.epoch);
    let courier = Courier::new(
        Arc::clone(&shared.client),
        (terms.device.clone(), terms.epoch),
        deliveries,
    );
    let session = Session::new(terms, Instant::now());
    let sink: Arc<dyn AckSink> = mailbox.clone();
    let has_answer = !socket.out.is_empty();
    let mut connection = Connection {
        shared: &shared,
        codec,
        session,
        standing,
        mailbox,
        told: Told::default(),
        reads_twin: false,
        calls,
        courier,
        mail: Mail::default(),
        sink,
        socket,
        scratch: BytesMut::new(),
        records: Records::default(),
        acks: Vec::new(),
        waiting: None,
        followed: VecDeque::new(),
        publishes: 0,
        publish_bytes: 0,
    };
    if !has_answer {
        // The client takes no packet as large as a CONNACK, so nothing can be said to it.
        connection.session.handle_end(End::Lost);
    }
    let end = connection.run().await;
    connection.close(end).await;
}

enum NoConnect {
    Answer(Codec, Refused),
    Close,
    Lost,
}

async fn read_connect<S>(socket: &mut Socket<S>) -> Result<(Codec, Box<ConnectRequest>), NoConnect>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut codec = None;
    loop {
        if codec.is_none() {
            codec = match wire::sniff(&socket.read) {
                Ok(version) => version.map(Codec::new),
                Err(SniffError::NotMqtt) => return Err(NoConnect::Close),
                Err(SniffError::Level(_)) => {
                    return Err(NoConnect::Answer(Codec::new(Version::V3), Refused::Protocol));
                }
            };
        }
        if let Some(mut known) = codec.take() {
            match known.decode(&mut socket.read) {
                Ok(Some(Incoming::Connect(request))) => return Ok((known, request)),
                Ok(None) => codec = Some(known),
                Err(DecodeError::InvalidClientId) => return Err(NoConnect::Answer(known, Refused::ClientId)),
                Ok(Some(_)) | Err(_) => return Err(NoConnect::Close),
            }
        }
        match poll_fn(|cx| socket.poll(cx, true)).await {
            Ok(Moved::Ended) | Err(_) => return Err(NoConnect::Lost),
            Ok(_) => {}
        }
    }
}

async fn refuse<S>(
    shared: &Shared,
    socket: &mut Socket<S>,
    codec: &mut Codec,
    refused: Refused,
    peer: SocketAddr,
    device: &str,
    why: &str,
) where
    S: AsyncRead + AsyncWrite + Unpin,
{
    match refused {
        // The cluster's trouble, or a client of another kind: nobody was turned away for who they are.
        Refused::Unavailable | Refused::Protocol => {
            tracing::debug!(%peer, ?device, answer = %refused, why, "connect refused");
        }
        Refused::NotAuthorized | Refused::AuthMethod | Refused::ClientId | Refused::WillQos => {
            let record = AuditRecord::refused("mqtt.connect", claimed(device), "session", why);
            let from = peer.to_string();
            shared.hooks.audit.refused(AuditRecord { from, ..record });
        }
    }
    turn_away(shared, socket, codec, refused).await;
}

/// Answers a CONNECT that is refused, and closes.
async fn turn_away<S>(shared: &Shared, socket: &mut Socket<S>, codec: &mut Codec, refused: Refused)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let metrics = &shared.metrics;
    count(match refused {
        Refused::NotAuthorized | Refused::AuthMethod => &metrics.connects_refused_credential,
        Refused::ClientId => &metrics.connects_refused_client_id,
        Refused::Protocol | Refused::WillQos => &metrics.connects_refused_protocol,
        Refused::Unavailable => &metrics.connects_refused_unavailable,
    });
    codec.put_refused(refused, &mut socket.out);
    socket.farewell().await;
}

/// What a connection waits for besides its socket: one thing at a time, so that packets keep their order.
enum Finished {
    /// The cluster takes records again.
    Ready,
    /// The hub's plan lets the first of the records that wait through, or does not.
    Passed(Passed),
    Subscribed {
        packet_id: u16,
        codes: Vec<FilterCode>,
        outcome: Result<Outcome, SubmitError>,
    },
    Unsubscribed {
        packet_id: u16,
        count: usize,
        outcome: Result<Outcome, SubmitError>,
    },
    Twin {
        token: u64,
        rid: Option<String>,
        answer: Result<twin::Answer, twin::Fenced>,
    },
    /// For notes that were missing.
    TwinRead(Result<Twin, twin::Answer>),
}

type Waiting = Pin<Box<dyn Future<Output = Finished> + Send>>;

struct Connection<'a, S> {
    shared: &'a Arc<Shared>,
    codec: Codec,
    session: Session,
    standing: Standing,
    mailbox: Arc<Mailbox>,
    told: Told,
    /// An answer with the twin is on its way. What is newer than it must come after it.
    reads_twin: bool,
    calls: Calls,
    /// Runs beside everything else.
    courier: Courier,
    /// Taken from the mailbox in this round.
    mail: Mail,
    sink: Arc<dyn AckSink>,
    socket: Socket<S>,
    /// The record being submitted.
    scratch: BytesMut,
    /// Those that wait.
    records: Records,
    /// Emptied in each round; kept for its memory.
    acks: Vec<(u64, TelemetryAck)>,
    waiting: Option<Waiting>,
    /// Spans of followed messages whose PUBACK has not left, by token: no more than are in flight.
    followed: VecDeque<(u64, Box<dyn TraceSpan>)>,
    publishes: u64,
    publish_bytes: u64,
}

/// What woke the task.
enum Woken {
    Mailbox,
    /// What the session rests on is gone.
    Fallen,
    Finished(Finished),
    Returned(Returned),
    Socket(io::Result<Moved>),
    Time,
}

impl<S> Connection<'_, S>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
{
    async fn run(&mut self) -> End {
        let mut stalled_since: Option<Instant> = None;
        let timer = sleep_until(self.session.poll_timeout().into());
        tokio::pin!(timer);
        loop {
            let now = Instant::now();
            self.take_mail();
            self.send_mail();
            self.take_packets();
            self.courier.begin(self.socket.out.len() < OUT_BYTES_MAX);
            self.count_publishes();
            if !self.may_read() {
                // It is we who do not listen: silence is not the client's fault.
                self.session.handle_heard(now);
            }
            self.session.handle_time(now);
            if let Some(end) = self.session.poll_end() {
                if end.is_parting() {
                    self.finish_records().await;
                }
                return end;
            }
            let mut due = self.session.poll_timeout();
            if self.socket.out.is_empty() {
                stalled_since = None;
            } else {
                let since = *stalled_since.get_or_insert(now);
                due = due.min(since + WRITE_STALL_WAIT);
                if now >= since + WRITE_STALL_WAIT {
                    return End::WriteStalled;
                }
            }
            // Moving a timer costs more than firing it early: it is armed again only when it would
            // fire too late, or has fired.
            if timer.is_elapsed() || timer.deadline().into_std() > due {
                timer.as_mut().reset(due.into());
            }
            let may_read = self.may_read();
            let out_before = self.socket.out.len();
            let woken = {
                let (mailbox, waiting, socket) = (&self.mailbox, &mut self.waiting, &mut self.socket);
                let (courier, standing) = (&mut self.courier, &mut self.standing);
                tokio::select! {
                    biased;
                    () = mailbox.woken() => Woken::Mailbox,
                    () = standing.fallen() => Woken::Fallen,
                    finished = finish(waiting) => Woken::Finished(finished),
                    returned = courier.returned() => Woken::Returned(returned),
                    result = poll_fn(|cx| socket.poll(cx, may_read)) => Woken::Socket(result),
                    () = timer.as_mut() => Woken::Time,
                }
            };
            if self.socket.out.len() < out_before {
                stalled_since = None;
            }
            match woken {
                Woken::Mailbox | Woken::Time | Woken::Socket(Ok(Moved::Written)) => {}
                Woken::Fallen => self.session.handle_end(End::Fallen),
                Woken::Finished(finished) => self.handle_finished(finished),
                Woken::Returned(returned) => self.handle_returned(returned),
                Woken::Socket(Ok(Moved::Ended) | Err(_)) => self.session.handle_end(End::Lost),
                Woken::Socket(Ok(Moved::Read)) => self.session.handle_heard(Instant::now()),
            }
        }
    }

    /// Has records that wait pass, be submitted or refused, as they would have been if the client had stayed.
    async fn finish_records(&mut self) {
        let passing = async {
            while self.records.are_waiting() {
                if self.waiting.is_none() {
                    self.ask_to_pass();
                }
                let finished = finish(&mut self.waiting).await;
                self.handle_finished(finished);
            }
        };
        let _ = timeout(CLOSE_WAIT, passing).await;
    }

    fn may_read(&self) -> bool {
        self.waiting.is_none() && self.session.can_take() && self.socket.out.len() < OUT_BYTES_MAX
    }

    fn take_mail(&mut self) {
        if let Some(eviction) = self.mailbox.eviction() {
            self.session.handle_end(match eviction {
                Eviction::Session(SessionEnd::TakenOver) => End::TakenOver,
                Eviction::Session(SessionEnd::CredentialRevoked | SessionEnd::Deleted) => End::Revoked,
                Eviction::Session(SessionEnd::GatewayLost) => End::GatewayLost,
                Eviction::Shutdown => End::Shutdown,
                Eviction::Overrun => End::WriteStalled,
            });
        }
        // A device that reads slowly lets its mail pile up where it is counted.
        let can_write = self.socket.out.len() < OUT_BYTES_MAX && !self.reads_twin;
        self.mailbox
            .drain(&mut self.acks, can_write.then_some(&mut self.mail));
        for (token, ack) in self.acks.drain(..) {
            self.session.handle_ack(token, ack);
        }
        self.send_pubacks();
    }

    /// Writes the notes and calls that have come, and asks for a note that is missing.
    fn send_mail(&mut self) {
        for note in std::mem::take(&mut self.mail.notes) {
            if self.told.handle_note(note.version) {
                self.put_note(&note);
            }
        }
        for call in self.mail.calls.drain(..) {
            if let Some((topic, payload)) = self.calls.handle_call(call) {
                count(&self.shared.metrics.methods_sent);
                let out = &mut self.socket.out;
                self.codec.put_publish(&topic, payload.into(), out);
            }
        }
        if std::mem::take(&mut self.mail.messages) {
            self.courier.deliveries.handle_waiting();
        }
        if self.told.is_behind() && self.waiting.is_none() {
            let (device, client) = (
                self.session.terms().device.clone(),
                Arc::clone(&self.shared.client),
            );
            self.waiting = Some(Box::pin(async move {
                Finished::TwinRead(twin::read(&*client, device).await)
            }));
        }
    }

    fn handle_returned(&mut self, returned: Returned) {
        match returned {
            Returned::Settled | Returned::Nothing => {}
            Returned::Fenced => self.session.handle_end(End::Fenced),
            Returned::Taken { qos, messages, more } => {
                for (message, content) in messages {
                    self.put_message(qos, &message, content);
                }
                if more {
                    self.courier.deliveries.handle_waiting();
                }
            }
        }
    }

    fn put_message(&mut self, qos: u8, message: &TakenMessage, content: MessageContent) {
        let downward = Downward::new(&self.session.terms().device, qos, message, content);
        let written = self.codec.put_message(downward, &mut self.socket.out);
        let deliveries = &mut self.courier.deliveries;
        match (written, qos) {
            (false, _) => deliveries.handle_too_large(message),
            (true, 0) => deliveries.handle_sent_unacknowledged(message),
            (true, _) => deliveries.handle_sent(message),
        }
        if written {
            count(&self.shared.metrics.messages_sent);
        }
    }

    fn put_note(&mut self, Note { version, patch }: &Note) {
        let (topic, body) = twin::desired_note(*version, patch);
        self.codec.put_publish(&topic, body.into(), &mut self.socket.out);
    }

    fn send_pubacks(&mut self) {
        let mut acked = 0;
        loop {
            if let Some((packet_id, receipt)) = self.session.poll_puback() {
                self.codec.put_puback(packet_id, receipt, &mut self.socket.out);
                acked += 1;
            } else if let Some(packet_id) = self.session.poll_refused() {
                self.codec.put_puback_refused(packet_id, &mut self.socket.out);
            } else {
                break;
            }
        }
        if !self.followed.is_empty() {
            self.end_spans();
        }
        if acked > 0 {
            count_by(&self.shared.metrics.acks, acked);
        }
    }

    /// Ends the spans of messages that are acknowledged by now.
    fn end_spans(&mut self) {
        let below = self.session.acknowledged_below();
        while self.followed.front().is_some_and(|(token, _)| *token < below) {
            if let Some((_, span)) = self.followed.pop_front() {
                span.note("acknowledged", &true);
            }
        }
    }

    /// Begins to follow the message in `scratch`, if it is one to be followed.
    fn follow(&mut self, token: u64) {
        let Some(tracer) = &self.shared.hooks.tracer else {
            return;
        };
        let Some(span) = tracer.begin("mqtt.publish") else {
            return;
        };
        span.note("device", &self.session.terms().device);
        span.note("record_bytes", &self.scratch.len());
        self.followed.push_back((token, span));
    }

    fn count_publishes(&mut self) {
        if self.publishes > 0 {
            count_by(
                &self.shared.metrics.publishes,
                std::mem::take(&mut self.publishes),
            );
            count_by(
                &self.shared.metrics.publish_bytes,
                std::mem::take(&mut self.publish_bytes),
            );
        }
    }

    /// Handles every whole packet that was read, until something has to be waited for.
    fn take_packets(&mut self) {
        if self.waiting.is_none() {
            self.records.handle_plan(self.shared.client.directory().plan);
            self.submit_unsent();
        }
        self.decode_packets();
        self.ask_to_pass();
    }

    fn decode_packets(&mut self) {
        while self.may_read() {
            match self.codec.decode(&mut self.socket.read) {
                Ok(None) => return,
                Ok(Some(packet)) => {
                    let effect = self.session.handle_packet(packet, &mut self.scratch);
                    self.carry_out(effect);
                }
                Err(error) => {
                    tracing::debug!(device = %self.session.terms().device, %error, "packet not understood");
                    self.session.handle_end(End::Broke(wire::reason_of(&error)));
                }
            }
        }
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::None => {}
            Effect::Submit(token) => {
                self.publishes += 1;
                self.publish_bytes += self.scratch.len() as u64;
                self.follow(token);
                if self.records.has_plan() {
                    self.records.hold(token, self.scratch.split().freeze());
                } else {
                    self.submit_scratch(token);
                }
            }
            Effect::Pong => self.codec.put_pong(&mut self.socket.out),
            Effect::Delivered { packet_id, accepted } => {
                self.courier.deliveries.handle_ack(packet_id, accepted)
            }
            Effect::TwinGet { token, rid } => {
                self.reads_twin = true;
                let (device, shared) = (self.session.terms().device.clone(), Arc::clone(self.shared));
                self.waiting = Some(Box::pin(async move {
                    let answer = match shared.charge(Cost::message(Operation::TwinRead, 0)).await {
                        Ok(()) => twin::get(&*shared.client, device).await,
                        Err(over) => twin::Answer::over(over),
                    };
                    shared.charge_rest(answer.body().len());
                    Finished::Twin {
                        token,
                        rid: Some(rid),
                        answer: Ok(answer),
                    }
                }));
            }
            Effect::TwinReport {
                token,
                rid,
                patch,
                version,
            } => {
                let (device, epoch) = self.identity();
                let cost = Cost::message(Operation::TwinUpdate, patch.len());
                let submitting = admit::submit_command(
                    &self.shared.client,
                    Command::TwinReport {
                        device,
                        epoch,
                        patch,
                        version,
                    },
                );
                let shared = Arc::clone(self.shared);
                self.waiting = Some(Box::pin(async move {
                    let answer = match shared.charge(cost).await {
                        Ok(()) => twin::answer_report(submitting.await),
                        Err(over) => Ok(twin::Answer::over(over)),
                    };
                    Finished::Twin { token, rid, answer }
                }));
            }
            Effect::MethodAnswer {
                token,
                rid,
                status,
                payload,
            } => {
                self.calls.handle_answer(&rid, status, &payload);
                self.session.handle_answered(token);
                self.send_pubacks();
            }
            Effect::TwinRefuse { token, rid, message } => {
                self.answer_twin(token, rid.as_deref(), &twin::Answer::invalid(&message));
            }
            Effect::Subscribe {
                packet_id,
                filters,
                codes,
            } if filters.is_empty() => {
                self.codec.put_suback(packet_id, &codes, &mut self.socket.out);
            }
            Effect::Subscribe {
                packet_id,
                filters,
                codes,
            } => {
                let (device, epoch) = self.identity();
                let submitting = admit::submit_command(
                    &self.shared.client,
                    Command::Subscribe {
                        device,
                        epoch,
                        filters,
                    },
                );
                self.waiting = Some(Box::pin(async move {
                    Finished::Subscribed {
                        packet_id,
                        codes,
                        outcome: submitting.await.map(|settled| settled.outcome),
                    }
                }));
            }
            Effect::Unsubscribe {
                packet_id,
                filters,
                count,
            } if filters.is_empty() => {
                self.codec.put_unsuback(packet_id, count, &mut self.socket.out);
            }
            Effect::Unsubscribe {
                packet_id,
                filters,
                count,
            } => {
                let (device, epoch) = self.identity();
                let submitting = admit::submit_command(
                    &self.shared.client,
                    Command::Unsubscribe {
                        device,
                        epoch,
                        filters,
                    },
                );
                self.waiting = Some(Box::pin(async move {
                    Finished::Unsubscribed {
                        packet_id,
                        count,
                        outcome: submitting.await.map(|settled| settled.outcome),
                    }
                }));
            }
        }
    }

    fn identity(&self) -> (DeviceId, u64) {
        let terms = self.session.terms();
        (terms.device.clone(), terms.epoch)
    }

    /// Submits the record in `scratch`, or puts it aside while the cluster is busy.
    fn submit_scratch(&mut self, token: u64) {
        let submitted = self.submit(token, &self.scratch);
        if !self.handle_submitted(token, submitted) {
            self.records.put_back(token, self.scratch.split().freeze());
            self.await_room();
        }
    }

    /// Submits what may go, in order, until the cluster is busy.
    fn submit_unsent(&mut self) {
        while let Some((token, record)) = self.records.poll_unsent() {
            let submitted = self.submit(token, &record);
            if !self.handle_submitted(token, submitted) {
                self.records.put_back(token, record);
                return self.await_room();
            }
        }
    }

    fn await_room(&mut self) {
        count(&self.shared.metrics.busy_pauses);
        let client = Arc::clone(&self.shared.client);
        self.waiting = Some(Box::pin(async move {
            client.ready().await;
            Finished::Ready
        }));
    }

    fn submit(&self, token: u64, record: &[u8]) -> Result<(), SubmitError> {
        let (device, client) = (&self.session.terms().device, &self.shared.client);
        let followed = self
            .followed
            .iter()
            .rev()
            .find(|(followed, _)| *followed == token);
        match followed {
            Some((_, span)) => client.submit_followed(device, record, &self.sink, token, span.context()),
            None => client.submit_telemetry(device, record, &self.sink, token),
        }
    }

    /// What came of a record. False when the cluster was too busy to take it.
    fn handle_submitted(&mut self, token: u64, submitted: Result<(), SubmitError>) -> bool {
        match submitted {
            Ok(()) => {}
            Err(SubmitError::Busy(_)) => return false,
            Err(SubmitError::StorageFull) => {
                self.session.handle_storage_full(token);
                self.send_pubacks();
            }
            Err(error) => self.handle_refused(&error),
        }
        true
    }

    /// Asks whether the hub's plan lets those through that are held.
    fn ask_to_pass(&mut self) {
        if self.waiting.is_none()
            && let Some(asking) = self.records.ask(self.shared)
        {
            self.waiting = Some(Box::pin(async move { Finished::Passed(asking.await) }));
        }
    }

    fn answer_twin(&mut self, token: u64, rid: Option<&str>, answer: &twin::Answer) {
        self.reads_twin = false;
        if let Some(rid) = rid {
            let (topic, out) = (answer.topic(rid), &mut self.socket.out);
            let receipt = answer.receipt().filter(|_| self.session.terms().receipts);
            self.codec.put_answer(&topic, answer.body().clone(), receipt, out);
        }
        if let Some(version) = answer.desired_version() {
            self.told.handle_read(version);
        }
        self.session.handle_answered(token);
        self.send_pubacks();
    }

    fn handle_refused(&mut self, error: &SubmitError) {
        self.session.handle_end(match error {
            SubmitError::Unknown => End::Unknown,
            SubmitError::Busy(_) | SubmitError::CutOff => End::Unavailable,
            SubmitError::StorageFull => End::StorageFull,
        });
    }

    fn handle_finished(&mut self, finished: Finished) {
        self.waiting = None;
        let out = &mut self.socket.out;
        match finished {
            Finished::Ready => self.submit_unsent(),
            Finished::Passed(passed) => self.handle_passed(passed),
            Finished::Subscribed {
                packet_id,
                codes,
                outcome: Ok(Outcome::Subscribed { waiting }),
            } => {
                self.codec.put_suback(packet_id, &codes, out);
                if waiting {
                    self.courier.deliveries.handle_waiting();
                }
            }
            Finished::Subscribed {
                packet_id,
                mut codes,
                outcome: Ok(Outcome::Refused(Refusal::LimitReached)),
            } => {
                for code in &mut codes {
                    if matches!(code, FilterCode::Granted(_)) {
                        *code = FilterCode::Quota;
                    }
                }
                self.codec.put_suback(packet_id, &codes, out);
            }
            Finished::Unsubscribed {
                packet_id,
                count,
                outcome: Ok(Outcome::Done),
            } => {
                self.codec.put_unsuback(packet_id, count, out);
            }
            Finished::TwinRead(twin) => match twin.map(|twin| self.told.handle_twin(&twin)) {
                Ok(Some(notes)) => notes.iter().for_each(|note| self.put_note(note)),
                // Whoever connects again reads.
                Ok(None) | Err(_) => self.session.handle_end(End::Unavailable),
            },
            Finished::Twin { token, rid, answer } => match answer {
                Ok(answer) => self.answer_twin(token, rid.as_deref(), &answer),
                Err(twin::Fenced) => self.session.handle_end(End::Fenced),
            },
            Finished::Subscribed { outcome, .. } | Finished::Unsubscribed { outcome, .. } => match outcome {
                Ok(Outcome::Refused(_)) => self.session.handle_end(End::Fenced),
                Ok(_) => self.session.handle_end(End::Unknown),
                Err(error) => self.handle_refused(&error),
            },
        }
    }

    fn handle_passed(&mut self, passed: Passed) {
        for (token, over) in self.records.handle_passed(passed) {
            match over {
                Over::Unreachable => self.session.handle_end(End::Unavailable),
                Over::Rate | Over::Day => self.session.handle_over_quota(token),
            }
        }
        self.submit_unsent();
        self.send_pubacks();
    }

    /// Last words, then the will, then the end of the session in the log.
    async fn close(mut self, end: End) {
        let metrics = &self.shared.metrics;
        match end {
            End::Fenced | End::TakenOver | End::Revoked | End::Fallen => count(&metrics.fenced),
            End::Unknown => count(&metrics.unknown),
            End::Broke(_) => count(&metrics.protocol_errors),
            _ => {}
        }
        let (device, epoch) = self.identity();
        tracing::debug!(%device, epoch, ?end, "connection over");
        if matches!(end, End::Revoked | End::Fallen) {
            let detail = format!("epoch {epoch}");
            let record = AuditRecord::done("session.revoke", "hub", device.as_str());
            let record = AuditRecord { detail, ..record };
            self.shared.hooks.audit.record(record).await;
        }
        if let Some(reason) = end.reason() {
            self.say_goodbye(reason);
        }
        self.socket.farewell().await;
        drop(self.socket);
        self.shared.sessions.remove(&device, &self.mailbox);
        if self.session.take_will(end, &mut self.scratch) {
            will::publish(self.shared, &device, &self.scratch).await;
        }
        if !end.is_known_above() {
            if timeout(CLOSE_WAIT, self.courier.finish()).await.is_err() {
                tracing::debug!(%device, epoch, "acknowledged messages left to the next session");
            }
            admit::close(&*self.shared.client, device, epoch).await;
        }
    }

    fn say_goodbye(&mut self, reason: DisconnectReasonCode) {
        self.codec.put_disconnect(reason, &mut self.socket.out);
    }
}

async fn finish(waiting: &mut Option<Waiting>) -> Finished {
    match waiting {
        Some(waiting) => waiting.await,
        None => pending().await,
    }
}
