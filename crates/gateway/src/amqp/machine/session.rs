//! Sessions and links of a [`Machine`]: handles, windows, credit, and messages in parts.
//!
//! Decides how much a peer may send and how much it is sent. Transfers that the peer's window has no room for wait in
//! their session, one message at the most, since nobody sends while one waits.

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use super::super::frame;
use super::super::performative::{
    self as say, Attach, Begin, Disposition, Fault, Flow, Performative, Tag, Transfer, Windows, Word,
    condition,
};
use super::{Delivery, Event, LinkId, Machine, Settles};
use crate::limits::{AMQP_INCOMING_WINDOW, AMQP_LINK_CREDIT, AMQP_LINKS_MAX, AMQP_OUTGOING_WINDOW};

/// A session; its number is the same at both ends.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) handles: BTreeMap<u32, LinkId>,
    next_incoming_id: u32,
    incoming_window: u32,
    next_outgoing_id: u32,
    next_delivery_id: u32,
    /// Transfers that the peer takes before it says more.
    peer_window: u32,
    waiting: VecDeque<Part>,
    /// Messages of ours that wait for the peer's word, by delivery number. Whoever sends bounds them.
    unsettled: BTreeMap<u32, LinkId>,
}

/// One transfer that is to be sent.
#[derive(Debug)]
struct Part {
    handle: u32,
    delivery_id: u32,
    /// Of the first part.
    tag: Option<Tag>,
    more: bool,
    is_settled: bool,
    payload: Bytes,
}

impl Session {
    pub(super) fn new(begin: &Begin) -> Self {
        Self {
            handles: BTreeMap::new(),
            next_incoming_id: begin.next_outgoing_id,
            incoming_window: AMQP_INCOMING_WINDOW,
            next_outgoing_id: 0,
            next_delivery_id: 0,
            peer_window: begin.incoming_window,
            waiting: VecDeque::new(),
            unsettled: BTreeMap::new(),
        }
    }

    pub(super) fn windows(&self) -> Windows {
        Windows {
            next_incoming_id: self.next_incoming_id,
            incoming_window: self.incoming_window,
            next_outgoing_id: self.next_outgoing_id,
            outgoing_window: AMQP_OUTGOING_WINDOW,
        }
    }

    /// Lets go of what waits for a link that is over.
    pub(super) fn drop_waiting(&mut self, handle: u32) {
        self.waiting.retain(|part| part.handle != handle);
    }

    /// Lets go of messages whose link is over: nobody will settle them here.
    pub(super) fn forget_unsettled(&mut self, link: LinkId) {
        self.unsettled.retain(|_, id| *id != link);
    }

    fn handle_flow(&mut self, flow: &Flow) {
        // Before the first transfer came, a peer may not know our count.
        let expected = flow.next_incoming_id.unwrap_or(0);
        let under_way = self.next_outgoing_id.wrapping_sub(expected);
        self.peer_window = flow.incoming_window.saturating_sub(under_way);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LinkState {
    /// The peer waits for our answer.
    Asked,
    Attached,
    /// We have ended it, and the peer has not said that it knows.
    Detaching,
}

/// A link.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) channel: u16,
    pub(super) handle: u32,
    pub(super) state: LinkState,
    asked: Box<Attach>,
    delivery_count: u32,
    /// Messages that the receiving end takes, whichever it is.
    credit: u32,
    drain: bool,
    /// What has come of a message.
    partial: BytesMut,
    delivery_id: Option<u32>,
    is_settled: bool,
    message_bytes_max: usize,
    settles: Settles,
    /// Messages that were handed over and have no end yet.
    unsettled: u32,
}

impl Machine {
    pub(super) fn handle_in_session(&mut self, channel: u16, asked: Performative) -> Result<(), Fault> {
        if !self.sessions.contains_key(&channel) {
            return Err(Fault::new(condition::ILLEGAL_STATE, "no session on this channel"));
        }
        match asked {
            Performative::Attach(attach) => self.handle_attach(channel, attach),
            Performative::Flow(flow) => self.handle_flow(channel, &flow),
            Performative::Transfer(transfer, payload) => self.handle_transfer(channel, &transfer, &payload),
            Performative::Disposition(told) => {
                self.handle_disposition(channel, &told);
                Ok(())
            }
            Performative::Detach { handle } => self.handle_detach(channel, handle),
            Performative::End => {
                self.handle_end(channel);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    fn handle_attach(&mut self, channel: u16, asked: Box<Attach>) -> Result<(), Fault> {
        if self.links.len() >= AMQP_LINKS_MAX || asked.handle as usize >= AMQP_LINKS_MAX {
            return Err(Fault::new(condition::RESOURCE_LIMIT, "more links than agreed"));
        }
        if self.link_of(channel, asked.handle).is_some() {
            return Err(Fault::new(condition::HANDLE_IN_USE, "the handle is in use"));
        }
        let id = self.next_link;
        self.next_link += 1;
        let link = Link {
            channel,
            handle: asked.handle,
            state: LinkState::Asked,
            delivery_count: if asked.peer_receives {
                0
            } else {
                asked.initial_delivery_count
            },
            asked: asked.clone(),
            credit: 0,
            drain: false,
            partial: BytesMut::new(),
            delivery_id: None,
            is_settled: false,
            message_bytes_max: 0,
            settles: Settles::AtOnce,
            unsettled: 0,
        };
        if let Some(session) = self.sessions.get_mut(&channel) {
            session.handles.insert(asked.handle, id);
        }
        self.links.insert(id, link);
        self.events.push_back(Event::Attach(id, asked));
        Ok(())
    }

    /// Lets a link be. What comes on it may have `message_bytes_max` bytes.
    pub(crate) fn accept(&mut self, id: LinkId, message_bytes_max: usize, settles: Settles) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        if link.state != LinkState::Asked {
            return;
        }
        link.state = LinkState::Attached;
        link.message_bytes_max = message_bytes_max;
        link.settles = settles;
        let (channel, peer_receives) = (link.channel, link.asked.peer_receives);
        let sends_settled = settles == Settles::AtOnce;
        let answer = say::attach(&link.asked, true, message_bytes_max as u64, sends_settled);
        self.put(channel, &answer);
        if !peer_receives {
            self.grant(id);
        }
    }

    /// Refuses a link, or ends one.
    pub(crate) fn refuse(&mut self, id: LinkId, fault: &Fault) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let answer = match link.state {
            LinkState::Asked => Some(say::attach(&link.asked, false, 0, true)),
            LinkState::Attached => None,
            LinkState::Detaching => return,
        };
        link.state = LinkState::Detaching;
        link.partial = BytesMut::new();
        let (channel, handle) = (link.channel, link.handle);
        if let Some(answer) = answer {
            self.put(channel, &answer);
        }
        if let Some(session) = self.sessions.get_mut(&channel) {
            session.drop_waiting(handle);
        }
        self.put(channel, &say::detach(handle, Some(fault)));
    }

    /// Lets the sender of a link send as much as ever may be under way.
    fn grant(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.credit = AMQP_LINK_CREDIT - link.unsettled.min(AMQP_LINK_CREDIT);
        let (channel, told) = (link.channel, (link.handle, link.delivery_count, link.credit));
        if let Some(session) = self.sessions.get(&channel) {
            let flow = say::flow(session.windows(), Some(told));
            self.put(channel, &flow);
        }
    }

    fn handle_flow(&mut self, channel: u16, flow: &Flow) -> Result<(), Fault> {
        if let Some(session) = self.sessions.get_mut(&channel) {
            session.handle_flow(flow);
        }
        let mut told = None;
        if let Some(handle) = flow.handle {
            let id = self.link_of(channel, handle).ok_or_else(unattached)?;
            if let Some(link) = self.links.get_mut(&id) {
                if link.asked.peer_receives {
                    let counted = flow.delivery_count.unwrap_or(0);
                    let limit = counted.wrapping_add(flow.link_credit.unwrap_or(0));
                    // What is under way may have used up more than the peer knew of.
                    let credit = limit.wrapping_sub(link.delivery_count);
                    link.credit = if credit > u32::MAX / 2 { 0 } else { credit };
                    link.drain = flow.drain;
                }
                told = Some((link.handle, link.delivery_count, link.credit));
            }
        }
        self.send_waiting(channel);
        if flow.echo
            && let Some(session) = self.sessions.get(&channel)
        {
            let flow = say::flow(session.windows(), told);
            self.put(channel, &flow);
        }
        Ok(())
    }

    /// Where the peer wants to know that there is nothing more just now, uses up its credit and says so.
    pub(crate) fn finish_drain(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id).filter(|link| link.drain) else {
            return;
        };
        link.drain = false;
        link.delivery_count = link.delivery_count.wrapping_add(link.credit);
        link.credit = 0;
        let (channel, told) = (link.channel, (link.handle, link.delivery_count, 0));
        if let Some(session) = self.sessions.get(&channel) {
            let flow = say::flow(session.windows(), Some(told));
            self.put(channel, &flow);
        }
    }

    /// Whether a message may be sent on a link now.
    pub(crate) fn can_send(&self, id: LinkId) -> bool {
        let link = self.links.get(&id);
        link.is_some_and(|link| {
            let session = self.sessions.get(&link.channel);
            link.state == LinkState::Attached
                && link.asked.peer_receives
                && link.credit > 0
                && session.is_some_and(|session| session.waiting.is_empty() && session.peer_window > 0)
        })
    }

    /// Whether the peer of a link would take a message, if only there was room on the way.
    pub(crate) fn has_credit(&self, id: LinkId) -> bool {
        let link = self.links.get(&id);
        link.is_some_and(|link| link.state == LinkState::Attached && link.credit > 0)
    }

    /// Sends a message, in as many parts as the peer's frames ask for. Ask [`can_send`](Self::can_send) first. With a tag
    /// the peer is to settle it; then this is its number, for [`Event::Settled`].
    pub(crate) fn send(&mut self, id: LinkId, message: Bytes, tag: Option<Tag>) -> Option<u32> {
        let part_bytes_max = self.payload_bytes_max();
        let link = self.links.get_mut(&id)?;
        link.credit = link.credit.saturating_sub(1);
        link.delivery_count = link.delivery_count.wrapping_add(1);
        let (channel, handle) = (link.channel, link.handle);
        let session = self.sessions.get_mut(&channel)?;
        let delivery_id = session.next_delivery_id;
        session.next_delivery_id = delivery_id.wrapping_add(1);
        if tag.is_some() {
            session.unsettled.insert(delivery_id, id);
        }
        let mut own = [0; 16];
        own[12..].copy_from_slice(&delivery_id.to_be_bytes());
        let mut first = Some(tag.unwrap_or(own));
        let mut rest = message;
        while first.is_some() || !rest.is_empty() {
            let payload = rest.split_to(rest.len().min(part_bytes_max));
            let part = Part {
                handle,
                delivery_id,
                tag: first.take(),
                more: !rest.is_empty(),
                is_settled: tag.is_none(),
                payload,
            };
            session.waiting.push_back(part);
        }
        self.send_waiting(channel);
        tag.map(|_| delivery_id)
    }

    /// What the peer says of messages of ours; those that it has settled before, or never had, are nobody's.
    fn handle_disposition(&mut self, channel: u16, told: &Disposition) {
        let word = match (told.word, told.is_settled) {
            (Some(word), _) => word,
            // It forgets them and says nothing of them.
            (None, true) => Word::Released,
            (None, false) => return,
        };
        let Some(session) = self.sessions.get_mut(&channel) else {
            return;
        };
        if !told.by_receiver || told.first > told.last {
            return;
        }
        let meant: Vec<(u32, LinkId)> = session
            .unsettled
            .range(told.first..=told.last)
            .map(|(number, id)| (*number, *id))
            .collect();
        for (number, id) in &meant {
            session.unsettled.remove(number);
            self.events.push_back(Event::Settled(*id, *number, word));
        }
        if !told.is_settled && !meant.is_empty() {
            self.put(channel, &say::settled(told.first, told.last, word));
        }
    }

    fn send_waiting(&mut self, channel: u16) {
        let Some(session) = self.sessions.get_mut(&channel) else {
            return;
        };
        while session.peer_window > 0
            && let Some(part) = session.waiting.pop_front()
        {
            session.peer_window -= 1;
            session.next_outgoing_id = session.next_outgoing_id.wrapping_add(1);
            let transfer = say::transfer(
                part.handle,
                part.delivery_id,
                part.tag,
                part.more,
                part.is_settled,
            );
            frame::put(&mut self.out, frame::AMQP, channel, &transfer, &part.payload);
        }
    }

    fn handle_transfer(&mut self, channel: u16, transfer: &Transfer, payload: &[u8]) -> Result<(), Fault> {
        self.count_transfer(channel)?;
        let id = self.link_of(channel, transfer.handle).ok_or_else(unattached)?;
        let Some(link) = self.links.get_mut(&id) else {
            return Ok(());
        };
        if link.state == LinkState::Detaching {
            return Ok(());
        }
        if link.asked.peer_receives || link.state != LinkState::Attached {
            return Err(Fault::new(
                condition::NOT_ALLOWED,
                "nothing is received on this link",
            ));
        }
        let is_first = link.delivery_id.is_none();
        if is_first && link.credit == 0 {
            self.refuse_and_tell(id, &Fault::new(condition::TRANSFER_LIMIT, "no credit is left"));
            return Ok(());
        }
        if transfer.aborted {
            link.partial.clear();
            link.delivery_id = None;
            return Ok(());
        }
        if is_first {
            let number = transfer.delivery_id;
            link.delivery_id = Some(number.ok_or_else(|| Fault::new(condition::DECODE, "no delivery id"))?);
            link.is_settled = false;
        }
        link.is_settled |= transfer.settled;
        if link.partial.len() + payload.len() > link.message_bytes_max {
            self.refuse_and_tell(
                id,
                &Fault::new(condition::MESSAGE_TOO_LARGE, "the message is too large"),
            );
            return Ok(());
        }
        link.partial.extend_from_slice(payload);
        if !transfer.more {
            self.complete(id);
        }
        Ok(())
    }

    /// Counts a transfer against our window, and opens the window again in time.
    fn count_transfer(&mut self, channel: u16) -> Result<(), Fault> {
        let Some(session) = self.sessions.get_mut(&channel) else {
            return Ok(());
        };
        let window = session.incoming_window.checked_sub(1);
        session.incoming_window =
            window.ok_or_else(|| Fault::new(condition::WINDOW, "the window is closed"))?;
        session.next_incoming_id = session.next_incoming_id.wrapping_add(1);
        if session.incoming_window < AMQP_INCOMING_WINDOW / 2 {
            session.incoming_window = AMQP_INCOMING_WINDOW;
            let flow = say::flow(session.windows(), None);
            self.put(channel, &flow);
        }
        Ok(())
    }

    /// A message is whole: hands it over, and accepts it if its link does so at once.
    fn complete(&mut self, id: LinkId) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        let message = link.partial.split().freeze();
        let number = link.delivery_id.take().filter(|_| !link.is_settled);
        link.delivery_count = link.delivery_count.wrapping_add(1);
        link.credit -= 1;
        link.unsettled += 1;
        match link.settles {
            Settles::AtOnce => {
                self.settle(id, Delivery(number), None);
                self.events.push_back(Event::Message(id, message));
            }
            Settles::Later => self
                .events
                .push_back(Event::Delivery(id, Delivery(number), message)),
        }
    }

    /// A message has its end: it is accepted, or rejected for a reason. The peer may send another in its place.
    pub(crate) fn settle(&mut self, id: LinkId, delivery: Delivery, rejected: Option<&Fault>) {
        let Some(link) = self.links.get_mut(&id) else {
            return;
        };
        link.unsettled = link.unsettled.saturating_sub(1);
        let (channel, is_attached) = (link.channel, link.state == LinkState::Attached);
        let is_low = link.credit < AMQP_LINK_CREDIT / 2 && link.credit + link.unsettled < AMQP_LINK_CREDIT;
        if let Some(number) = delivery.0 {
            self.put(channel, &say::disposition(number, rejected));
        }
        if is_low && is_attached {
            self.grant(id);
        }
    }

    /// Ends a link of which somebody beside the machine knows.
    fn refuse_and_tell(&mut self, id: LinkId, fault: &Fault) {
        self.refuse(id, fault);
        self.events.push_back(Event::Detached(id));
    }

    fn handle_detach(&mut self, channel: u16, handle: u32) -> Result<(), Fault> {
        let id = self.link_of(channel, handle).ok_or_else(unattached)?;
        let is_ours = self
            .links
            .get(&id)
            .is_some_and(|link| link.state == LinkState::Detaching);
        if !is_ours {
            self.put(channel, &say::detach(handle, None));
        }
        self.forget(id);
        Ok(())
    }

    fn handle_end(&mut self, channel: u16) {
        let ids: Vec<LinkId> = self
            .sessions
            .get(&channel)
            .map_or_else(Vec::new, |session| session.handles.values().copied().collect());
        for id in ids {
            self.forget(id);
        }
        self.sessions.remove(&channel);
        self.put(channel, &say::end());
    }
}

fn unattached() -> Fault {
    Fault::new(condition::UNATTACHED, "no link has this handle")
}
