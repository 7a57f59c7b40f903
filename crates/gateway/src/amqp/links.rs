//! What each link of a connection is for, and what is done for it.
//!
//! Decides who may have which link, hands requests to their nodes, and lets links take turns where there is more to
//! send than room. Never touches a socket: [`connection`](super::connection) does. The rules of the protocol are
//! [`machine`](super::machine)'s.

use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use dunlin_model::audit::AuditRecord;
use dunlin_model::directory::Directory;
use dunlin_model::port::QueryError;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::cbs;
use super::devicebound;
use super::feedback;
use super::machine::{Delivery, Event, LinkId, Machine, Settles};
use super::management::{self, Question};
use super::message::{Answer, Request, property};
use super::node::{Node, PartitionAddress};
use super::partition::{self, Receiver};
use super::performative::{Attach, Fault, Word, address, condition};
use super::tokens::{Judge, Tokens};
use crate::events::endpoint::Shown;
use crate::feedback::{Batch, FeedbackError, Kind};
use crate::http::authorize::claimed;
use crate::limits::{
    AMQP_ANSWERS_MAX, AMQP_DOWNWARD_BYTES_MAX, AMQP_MESSAGE_BYTES_MAX, AMQP_OUT_BYTES_MAX,
    AMQP_QUESTIONS_MAX, AMQP_REQUEST_BYTES_MAX,
};
use crate::metrics::count;
use crate::shared::Shared;

/// Nodes that are asked and answer, on two links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Service {
    Cbs,
    Management,
}

/// What a link is for.
#[derive(Debug)]
enum Purpose {
    Requests(Service),
    Answers {
        service: Service,
        /// The peer's name for it, which its requests may give.
        reply_to: Option<String>,
        waiting: VecDeque<Bytes>,
    },
    DeviceBound,
    Feedback(feedback::Reader),
    Partition(Box<Receiver>),
}

#[derive(Debug)]
struct Link {
    purpose: Purpose,
    /// Cancelled with the link: whatever is under way for it ends.
    over: CancellationToken,
    _over: DropGuard,
}

/// What came of something that took its time.
pub(super) enum Done {
    Begun(LinkId, u64),
    Page(LinkId, Result<Shown, QueryError>),
    GaveWay(LinkId),
    Answered(LinkId, Box<(Request, Answer)>),
    Sent(LinkId, Delivery, Result<(), Fault>),
    Feedback(LinkId, Result<Option<Batch>, FeedbackError>),
}

/// The links of a connection.
pub(super) struct Links {
    shared: Arc<Shared>,
    peer: SocketAddr,
    pub(super) machine: Machine,
    tokens: Tokens,
    links: BTreeMap<LinkId, Link>,
    /// What is under way. Each link has two at the most, one that takes messages to devices as many as it has credit
    /// for, `$management` has [`AMQP_QUESTIONS_MAX`].
    pub(super) work: FuturesUnordered<BoxFuture<'static, Option<Done>>>,
    questions: usize,
    /// The link whose turn to send is next.
    turn: LinkId,
}

impl Links {
    pub(super) fn new(shared: Arc<Shared>, peer: SocketAddr) -> Self {
        Self {
            machine: Machine::new(format!("dunlin-{}", shared.host_names[0])),
            shared,
            peer,
            tokens: Tokens::default(),
            links: BTreeMap::new(),
            work: FuturesUnordered::new(),
            questions: 0,
            turn: 0,
        }
    }

    /// Whether it has shown a token that counts.
    pub(super) fn is_known(&self) -> bool {
        !self.tokens.is_empty()
    }

    fn judge<'a>(&'a self, directory: &'a Directory) -> Judge<'a> {
        Judge {
            hosts: &self.shared.host_names,
            directory,
            now_s: self.shared.now_ms() / 1000,
        }
    }

    /// Takes what the peer sent.
    pub(super) fn handle_bytes(&mut self, buffer: &mut BytesMut) {
        loop {
            self.machine.handle_bytes(buffer);
            match self.machine.poll_event() {
                Some(Event::Attach(id, attach)) => self.handle_attach(id, &attach),
                Some(Event::Message(id, message)) => self.handle_message(id, &message),
                Some(Event::Delivery(id, delivery, message)) => self.handle_delivery(id, delivery, &message),
                Some(Event::Settled(id, number, word)) => self.handle_settled(id, number, word),
                Some(Event::Detached(id)) => drop(self.links.remove(&id)),
                None => return,
            }
        }
    }

    fn handle_attach(&mut self, id: LinkId, attach: &Attach) {
        let wanted = match attach.peer_receives {
            true => &attach.source,
            false => &attach.target,
        };
        let wanted = address(wanted).unwrap_or_default();
        let opened = match Node::parse(wanted) {
            None => Err(Fault::new(condition::NOT_FOUND, "there is no such node")),
            Some(Node::Cbs) => self.open_service(id, Service::Cbs, attach),
            Some(Node::Management) if self.is_known() => self.open_service(id, Service::Management, attach),
            Some(Node::Management) => Err(unauthorized()),
            Some(Node::DeviceBound) => self.open_device_bound(id, attach),
            Some(Node::Feedback(kind)) => self.open_feedback(id, kind, attach),
            Some(Node::Partition(partition)) => self.open_partition(id, partition, attach),
        };
        if let Err(fault) = opened {
            if fault.condition == condition::UNAUTHORIZED {
                self.audit(AuditRecord::refused(
                    "amqp.link",
                    "",
                    claimed(wanted),
                    &*fault.description,
                ));
            }
            self.machine.refuse(id, &fault);
        }
    }

    fn audit(&self, mut record: AuditRecord) {
        record.from = self.peer.to_string();
        self.shared.hooks.audit.refused(record);
    }

    fn add(&mut self, id: LinkId, purpose: Purpose) -> CancellationToken {
        let over = CancellationToken::new();
        let link = Link {
            purpose,
            over: over.clone(),
            _over: over.clone().drop_guard(),
        };
        self.links.insert(id, link);
        over
    }

    fn open_service(&mut self, id: LinkId, service: Service, attach: &Attach) -> Result<(), Fault> {
        let purpose = match attach.peer_receives {
            false => Purpose::Requests(service),
            true => Purpose::Answers {
                service,
                reply_to: address(&attach.target).map(ToOwned::to_owned),
                waiting: VecDeque::new(),
            },
        };
        self.add(id, purpose);
        self.machine.accept(id, AMQP_REQUEST_BYTES_MAX, Settles::AtOnce);
        Ok(())
    }

    fn open_device_bound(&mut self, id: LinkId, attach: &Attach) -> Result<(), Fault> {
        if attach.peer_receives {
            return Err(Fault::new(
                condition::NOT_ALLOWED,
                "devices receive these messages, nobody else",
            ));
        }
        self.check_covered(devicebound::PATH)?;
        self.add(id, Purpose::DeviceBound);
        self.machine.accept(id, AMQP_DOWNWARD_BYTES_MAX, Settles::Later);
        Ok(())
    }

    fn open_feedback(&mut self, id: LinkId, kind: Kind, attach: &Attach) -> Result<(), Fault> {
        if !attach.peer_receives {
            return Err(Fault::new(
                condition::NOT_ALLOWED,
                "services receive here, nobody sends",
            ));
        }
        self.check_covered(kind.path())?;
        self.add(id, Purpose::Feedback(feedback::Reader::new(kind)));
        self.machine.accept(id, AMQP_MESSAGE_BYTES_MAX, Settles::Later);
        Ok(())
    }

    /// Whether this node knows enough to say who may, and a token covers the resource at `path`.
    fn check_covered(&self, path: &[&str]) -> Result<(), Fault> {
        if !self.shared.client.is_fresh() {
            return Err(Fault::new(condition::TIMEOUT, "cut off from the cluster"));
        }
        let directory = self.shared.client.directory();
        match self.tokens.cover(path, self.judge(&directory)) {
            true => Ok(()),
            false => Err(unauthorized()),
        }
    }

    /// A reader has settled a batch of feedback.
    fn handle_settled(&mut self, id: LinkId, number: u32, word: Word) {
        if let Some(Purpose::Feedback(reader)) = self.links.get_mut(&id).map(|link| &mut link.purpose)
            && let Some(settled) = reader.handle_settled(number, word)
        {
            let (client, kind) = (Arc::clone(&self.shared.client), reader.kind);
            // Goes on without its link. There are no more than a reader may have unsettled.
            self.work.push(Box::pin(async move {
                feedback::settle(client, kind, settled).await;
                None
            }));
        }
    }

    /// Has a message to a device queued. As many are under way as the link has credit for.
    fn handle_delivery(&mut self, id: LinkId, delivery: Delivery, message: &Bytes) {
        match devicebound::read(message) {
            Err(fault) => self.machine.settle(id, delivery, Some(&fault)),
            Ok(message) => {
                let directory = self.shared.client.directory();
                let policy = self.tokens.covering(devicebound::PATH, self.judge(&directory));
                let from = (policy.unwrap_or_default(), self.peer);
                // Goes on without its link, and its connection: it may be in the log already, and is to be in the audit.
                let sending = devicebound::send(Arc::clone(&self.shared), from, message);
                let sending = self.shared.tasks.spawn(sending);
                self.work.push(Box::pin(async move {
                    let lost = || Fault::new(condition::TIMEOUT, "nobody knows whether it was sent");
                    let sent = sending.await.unwrap_or_else(|_| Err(lost()));
                    Some(Done::Sent(id, delivery, sent))
                }));
            }
        }
    }

    fn open_partition(
        &mut self,
        id: LinkId,
        address: PartitionAddress,
        attach: &Attach,
    ) -> Result<(), Fault> {
        if !attach.peer_receives {
            return Err(Fault::new(
                condition::NOT_ALLOWED,
                "devices send events, nobody else",
            ));
        }
        if !self.shared.client.is_fresh() {
            return Err(Fault::new(condition::TIMEOUT, "cut off from the cluster"));
        }
        let directory = self.shared.client.directory();
        if !self.is_covered(&address, self.judge(&directory)) {
            return Err(unauthorized());
        }
        let asked = partition::read(&address, attach, directory.shard_count)?;
        let permit = Arc::clone(&self.shared.amqp_readers).try_acquire_owned();
        let permit =
            permit.map_err(|_| Fault::new(condition::RESOURCE_LIMIT, "this gateway has too many readers"))?;
        let seat = self.shared.seats.take(&address.group, asked.shard, asked.epoch);
        let seat =
            seat.ok_or_else(|| Fault::new(condition::STOLEN, "a reader with a higher epoch is there"))?;
        let gives_way = seat.gives_way.clone();
        let receiver = Receiver::new(address, asked.shard, seat, permit);
        let over = self.add(id, Purpose::Partition(Box::new(receiver)));
        let begin = partition::resolve(Arc::clone(&self.shared.client), asked.shard, asked.from);
        self.start(&over, async move { Done::Begun(id, begin.await) });
        self.start(&over, async move {
            gives_way.cancelled().await;
            Done::GaveWay(id)
        });
        Ok(())
    }

    fn is_covered(&self, address: &PartitionAddress, judge: Judge<'_>) -> bool {
        let resources = address.resources();
        resources.iter().any(|path| self.tokens.cover(path, judge))
    }

    /// Does something for a link, for as long as the link is there.
    fn start(&self, over: &CancellationToken, work: impl Future<Output = Done> + Send + 'static) {
        let over = over.clone();
        self.work.push(Box::pin(async move {
            tokio::select! {
                () = over.cancelled() => None,
                done = work => Some(done),
            }
        }));
    }

    fn handle_message(&mut self, id: LinkId, message: &Bytes) {
        let Some(Purpose::Requests(service)) = self.links.get(&id).map(|link| &link.purpose) else {
            return;
        };
        let service = *service;
        let request = match Request::read(message) {
            Ok(request) => request,
            Err(error) => return self.end(id, &error.into()),
        };
        match service {
            Service::Cbs => {
                let directory = self.shared.client.directory();
                let judge = Judge {
                    hosts: &self.shared.host_names,
                    directory: &directory,
                    now_s: self.shared.now_ms() / 1000,
                };
                let is_fresh = self.shared.client.is_fresh();
                let (answer, refused) = cbs::answer(&request, &mut self.tokens, judge, is_fresh);
                if let Some(record) = refused {
                    self.audit(record);
                }
                self.handle_answer(id, &request, &answer);
            }
            Service::Management => self.ask(id, request),
        }
    }

    fn ask(&mut self, id: LinkId, request: Request) {
        let directory = self.shared.client.directory();
        let question = Question::read(&request).and_then(|question| {
            if !self.tokens.cover(&[question.hub()], self.judge(&directory)) {
                return Err(Answer::new(
                    401,
                    "no token covers this",
                    Some(condition::UNAUTHORIZED),
                ));
            }
            if self.questions >= AMQP_QUESTIONS_MAX {
                let what = "too many questions at a time";
                return Err(Answer::new(429, what, Some(condition::RESOURCE_LIMIT)));
            }
            Ok(question)
        });
        match question {
            Err(answer) => self.handle_answer(id, &request, &answer),
            Ok(question) => {
                self.questions += 1;
                let client = Arc::clone(&self.shared.client);
                // Counted until it is answered, whether its link is still there or not.
                self.work.push(Box::pin(async move {
                    let answer = management::answer(client, question).await;
                    Some(Done::Answered(id, Box::new((request, answer))))
                }));
            }
        }
    }

    /// Takes what came of something that was under way.
    pub(super) fn handle_done(&mut self, done: Done) {
        match done {
            Done::Begun(id, offset) => {
                if let Some(receiver) = self.receiver(id) {
                    receiver.begin(offset);
                    self.machine.accept(id, AMQP_MESSAGE_BYTES_MAX, Settles::AtOnce);
                }
            }
            Done::Page(id, page) => {
                if let Some(receiver) = self.receiver(id) {
                    receiver.handle_page(page);
                }
            }
            Done::GaveWay(id) => {
                self.end(
                    id,
                    &Fault::new(condition::STOLEN, "a reader with a higher epoch has come"),
                );
            }
            Done::Sent(id, delivery, sent) => self.machine.settle(id, delivery, sent.err().as_ref()),
            Done::Feedback(id, answer) => {
                if let Some(Purpose::Feedback(reader)) = self.links.get_mut(&id).map(|link| &mut link.purpose)
                {
                    reader.handle_answer(answer);
                }
            }
            Done::Answered(id, answered) => {
                self.questions -= 1;
                let (request, answer) = *answered;
                self.handle_answer(id, &request, &answer);
            }
        }
    }

    fn receiver(&mut self, id: LinkId) -> Option<&mut Receiver> {
        match &mut self.links.get_mut(&id)?.purpose {
            Purpose::Partition(receiver) => Some(receiver),
            _ => None,
        }
    }

    /// Ends a link from our side.
    fn end(&mut self, id: LinkId, fault: &Fault) {
        if self.links.remove(&id).is_some() {
            self.machine.refuse(id, fault);
        }
    }

    /// Lays an answer where the peer of the link `asked` looks for it; without such a place nobody does.
    fn handle_answer(&mut self, asked: LinkId, request: &Request, answer: &Answer) {
        let Some(id) = self.place_of_answer(asked, request) else {
            tracing::debug!(peer = %self.peer, "an answer without a link");
            return;
        };
        let message = answer.to_message(request);
        if let Some(Purpose::Answers { waiting, .. }) = self.links.get_mut(&id).map(|link| &mut link.purpose)
        {
            if waiting.len() < AMQP_ANSWERS_MAX {
                waiting.push_back(message);
            } else {
                self.end(
                    id,
                    &Fault::new(condition::RESOURCE_LIMIT, "answers are not fetched"),
                );
            }
        }
    }

    /// The link of the same node: rather of the same session, and rather the one that the request names.
    fn place_of_answer(&self, asked: LinkId, request: &Request) -> Option<LinkId> {
        let Purpose::Requests(wanted) = &self.links.get(&asked)?.purpose else {
            return None;
        };
        let channel = self.machine.channel_of(asked);
        let named = request.property(property::REPLY_TO).text();
        let places = self.links.iter().filter_map(|(id, link)| match &link.purpose {
            Purpose::Answers {
                service, reply_to, ..
            } if service == wanted => {
                let is_named = named.is_some() && named == reply_to.as_deref();
                Some(((is_named, self.machine.channel_of(*id) == channel), *id))
            }
            _ => None,
        });
        places.max().map(|(_, id)| id)
    }

    /// Sends what there is, link by link, as long as there is room, and has more read where it is wanted.
    pub(super) fn pump(&mut self) {
        let mut ids: Vec<LinkId> = self.links.range(self.turn..).map(|(id, _)| *id).collect();
        ids.extend(self.links.range(..self.turn).map(|(id, _)| *id));
        for id in ids {
            while self.machine.can_send(id) {
                if self.machine.out.len() >= AMQP_OUT_BYTES_MAX {
                    self.turn = id + 1;
                    return;
                }
                if !self.send_next(id) {
                    break;
                }
            }
            self.read_on(id);
        }
    }

    /// Sends the next message of a link. Returns whether there was one.
    fn send_next(&mut self, id: LinkId) -> bool {
        if let Some(Purpose::Feedback(reader)) = self.links.get_mut(&id).map(|link| &mut link.purpose) {
            let Some(batch) = reader.pop() else {
                return false;
            };
            let (hub, now_ms) = (&self.shared.host_names[0], self.shared.now_ms());
            let (message, tag) = feedback::to_message(reader.kind, &batch, hub, now_ms);
            if let Some(number) = self.machine.send(id, message, Some(tag)) {
                reader.handle_sent(number, batch.lock);
            }
            return true;
        }
        let Some(message) = self.pop(id) else {
            return false;
        };
        self.machine.send(id, message, None);
        true
    }

    fn pop(&mut self, id: LinkId) -> Option<Bytes> {
        match &mut self.links.get_mut(&id)?.purpose {
            Purpose::Requests(_) | Purpose::DeviceBound | Purpose::Feedback(_) => None,
            Purpose::Answers { waiting, .. } => waiting.pop_front(),
            Purpose::Partition(receiver) => {
                let message = receiver.pop()?;
                count(&self.shared.metrics.events_read);
                Some(message)
            }
        }
    }

    fn read_on(&mut self, id: LinkId) {
        let has_credit = self.machine.has_credit(id);
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        if let Purpose::Feedback(reader) = &mut link.purpose {
            let (over, link_is_dry) = (link.over.clone(), reader.found_none());
            if has_credit && let Some(pause) = reader.poll_ask() {
                let asking = feedback::ask(Arc::clone(&self.shared), reader.kind, pause);
                self.start(&over, async move { Done::Feedback(id, asking.await) });
            } else if link_is_dry {
                self.machine.finish_drain(id);
            }
            return;
        }
        let Purpose::Partition(receiver) = &mut link.purpose else {
            return;
        };
        if receiver.has_pending() || !has_credit {
            return;
        }
        let (shard, over) = (receiver.shard, link.over.clone());
        if let Some(due) = receiver.poll_read() {
            let read = partition::read_on(Arc::clone(&self.shared), shard, due);
            self.start(&over, async move { Done::Page(id, read.await) });
        }
        // Nothing is there just now; whoever asked for that is told.
        self.machine.finish_drain(id);
    }

    /// Looks at the tokens: what is over ends its links, what was taken back ends the connection.
    pub(super) fn look(&mut self) {
        // A node that is cut off knows nothing newer.
        if !self.shared.client.is_fresh() {
            return;
        }
        let directory = self.shared.client.directory();
        let judge = Judge {
            hosts: &self.shared.host_names,
            directory: &directory,
            now_s: self.shared.now_ms() / 1000,
        };
        if self.tokens.handle_time(judge) {
            let fault = Fault::new(condition::UNAUTHORIZED, "the token's policy has changed");
            self.machine.close(Some(&fault));
            return;
        }
        let uncovered: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, link)| match &link.purpose {
                Purpose::Partition(receiver) => !self.is_covered(&receiver.address, judge),
                Purpose::DeviceBound => !self.tokens.cover(devicebound::PATH, judge),
                Purpose::Feedback(reader) => !self.tokens.cover(reader.kind.path(), judge),
                _ => false,
            })
            .map(|(id, _)| *id)
            .collect();
        for id in uncovered {
            self.end(id, &Fault::new(condition::UNAUTHORIZED, "the token has expired"));
        }
    }
}

fn unauthorized() -> Fault {
    Fault::new(condition::UNAUTHORIZED, "no token of this connection covers this")
}
