//! A connection as a machine: bytes of the peer come in, bytes for it and [`Event`]s go out.
//!
//! Decides what AMQP 1.0 decides: the order of headers, SASL, open, sessions and links, windows and credit, and what a
//! peer that breaks a rule is told. Never who may have which link, nor what a message means; that is
//! [`connection`](super::connection)'s, which answers each [`Event::Attach`] with [`Machine::accept`] or
//! [`Machine::refuse`]. Sessions and links are in [`session`].
//!
//! A fault of a session ends the connection: whoever breaks a rule there has lost count, and the next one would be
//! wrong as well. Only faults of a link end the link alone.

mod session;

use std::collections::{BTreeMap, VecDeque};

use bytes::{Bytes, BytesMut};

use super::frame::{self, AMQP_HEADER, HEADER_BYTES, RawFrame, SASL_HEADER};
use super::performative::{self as say, Attach, Begin, Fault, Open, Performative, Word, code, condition};
use super::value::{Reader, Value};
use crate::limits::{
    AMQP_FRAME_BYTES_FIRST, AMQP_FRAME_BYTES_MAX, AMQP_FRAME_BYTES_MIN, AMQP_IDLE_WAIT, AMQP_LINKS_MAX,
    AMQP_SESSIONS_MAX,
};
use session::{Link, LinkState, Session};

/// Names a link of a connection, and no later one.
pub(crate) type LinkId = u64;

/// SASL mechanisms: both let everybody in, who then shows a token at `$cbs`.
const MECHANISMS: &[&str] = &["MSSBCBS", "ANONYMOUS"];
const SASL_OK: u8 = 0;
const SASL_REFUSED: u8 = 1;

/// What the peer did that somebody has to answer or to know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// It asks for a link.
    Attach(LinkId, Box<Attach>),
    /// It sent a whole message, which is accepted already.
    Message(LinkId, Bytes),
    /// It sent a whole message on a link that settles later: answer with [`Machine::settle`].
    Delivery(LinkId, Delivery, Bytes),
    /// It has settled a message that was sent with a tag: its delivery number, and how.
    Settled(LinkId, u32, Word),
    /// A link is over.
    Detached(LinkId),
}

/// A message of the peer that waits for its end; nobody is told of one that the peer has settled itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Delivery(pub(super) Option<u32>);

/// When messages on a link are settled, by whoever receives them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Settles {
    /// As soon as they are whole.
    AtOnce,
    /// When it says so.
    Later,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    SaslHeader,
    SaslInit,
    Header,
    Open,
    Running,
    Closed,
}

/// See the file.
#[derive(Debug)]
pub(crate) struct Machine {
    phase: Phase,
    container: String,
    /// What is to be written.
    pub(crate) out: BytesMut,
    events: VecDeque<Event>,
    peer_frame_bytes_max: usize,
    peer_idle_ms: Option<u32>,
    sessions: BTreeMap<u16, Session>,
    links: BTreeMap<LinkId, Link>,
    next_link: LinkId,
}

impl Machine {
    /// A connection that nothing came from yet. `container` is our name.
    pub(crate) fn new(container: String) -> Self {
        Self {
            phase: Phase::SaslHeader,
            container,
            out: BytesMut::new(),
            events: VecDeque::new(),
            peer_frame_bytes_max: AMQP_FRAME_BYTES_MIN,
            peer_idle_ms: None,
            sessions: BTreeMap::new(),
            links: BTreeMap::new(),
            next_link: 0,
        }
    }

    /// Whether the peer has opened the connection.
    pub(crate) fn is_open(&self) -> bool {
        self.phase == Phase::Running
    }

    /// Whether nothing more comes of it but what is to be written.
    pub(crate) fn is_closed(&self) -> bool {
        self.phase == Phase::Closed
    }

    /// Silence in milliseconds after which the peer gives us up.
    pub(crate) fn peer_idle_ms(&self) -> Option<u32> {
        self.peer_idle_ms
    }

    /// The next thing that somebody has to answer or to know.
    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Says that we are still there.
    pub(crate) fn put_heartbeat(&mut self) {
        if self.is_open() {
            frame::put_empty(&mut self.out);
        }
    }

    /// Takes what came, frame by frame, and leaves what is not whole yet. Call it again when its events are handled:
    /// it stops at the first one, so that they never pile up.
    pub(crate) fn handle_bytes(&mut self, buffer: &mut BytesMut) {
        while self.events.is_empty() && self.phase != Phase::Closed {
            match self.handle_next(buffer) {
                Ok(true) => {}
                Ok(false) => return,
                Err(fault) => self.close(Some(&fault)),
            }
        }
    }

    fn handle_next(&mut self, buffer: &mut BytesMut) -> Result<bool, Fault> {
        if matches!(self.phase, Phase::SaslHeader | Phase::Header) {
            let Some(header) = frame::take_header(buffer) else {
                return Ok(false);
            };
            self.handle_header(header);
            return Ok(true);
        }
        let bytes_max = match self.phase {
            Phase::Running => AMQP_FRAME_BYTES_MAX,
            _ => AMQP_FRAME_BYTES_FIRST,
        };
        let framing = |error: frame::FrameError| Fault::new(condition::FRAMING, error.to_string());
        match frame::take(buffer, bytes_max).map_err(framing)? {
            None => Ok(false),
            Some(frame) => self.handle_frame(&frame).map(|()| true),
        }
    }

    /// A header that is not the next one is answered with the one that is, as the specification has it.
    fn handle_header(&mut self, header: [u8; 8]) {
        let (wanted, next) = match self.phase {
            Phase::SaslHeader => (SASL_HEADER, Phase::SaslInit),
            _ => (AMQP_HEADER, Phase::Open),
        };
        self.out.extend_from_slice(&wanted);
        if header != wanted {
            self.phase = Phase::Closed;
            return;
        }
        self.phase = next;
        if next == Phase::SaslInit {
            let mechanisms = say::sasl_mechanisms(MECHANISMS);
            frame::put(&mut self.out, frame::SASL, 0, &mechanisms, &[]);
        }
    }

    fn handle_frame(&mut self, frame: &RawFrame) -> Result<(), Fault> {
        let wanted = match self.phase {
            Phase::SaslInit => frame::SASL,
            _ => frame::AMQP,
        };
        if frame.kind != wanted {
            return Err(Fault::new(condition::FRAMING, "a frame of the wrong type"));
        }
        if self.phase == Phase::SaslInit {
            return self.handle_sasl(frame);
        }
        if frame.body.is_empty() {
            return Ok(());
        }
        let performative = say::read(&frame.body)?;
        match (self.phase, performative) {
            (Phase::Open, Performative::Open(open)) => self.handle_open(&open),
            (Phase::Running, Performative::Open(_)) | (Phase::Open, _) => Err(Fault::new(
                condition::ILLEGAL_STATE,
                "a connection begins with one open",
            )),
            (_, Performative::Close) => {
                self.close(None);
                Ok(())
            }
            (_, Performative::Begin(begin)) => self.handle_begin(frame.channel, &begin),
            (_, performative) => self.handle_in_session(frame.channel, performative),
        }
    }

    fn handle_sasl(&mut self, frame: &RawFrame) -> Result<(), Fault> {
        let (number, fields) = say::described_list(Reader::new(&frame.body).value()?)?;
        let mechanism = say::field(&fields, 0).text();
        let is_known = mechanism.is_some_and(|mechanism| MECHANISMS.contains(&mechanism));
        let is_ok = number == code::SASL_INIT && is_known;
        let outcome = say::sasl_outcome(if is_ok { SASL_OK } else { SASL_REFUSED });
        frame::put(&mut self.out, frame::SASL, 0, &outcome, &[]);
        self.phase = if is_ok { Phase::Header } else { Phase::Closed };
        Ok(())
    }

    fn handle_open(&mut self, open: &Open) -> Result<(), Fault> {
        self.phase = Phase::Running;
        let idle_ms = AMQP_IDLE_WAIT.as_millis() as u32;
        let channel_max = (AMQP_SESSIONS_MAX - 1) as u16;
        let answer = say::open(&self.container, AMQP_FRAME_BYTES_MAX as u32, channel_max, idle_ms);
        self.put(0, &answer);
        self.peer_idle_ms = open.idle_ms;
        let bytes_max = open.frame_bytes_max as usize;
        if bytes_max < AMQP_FRAME_BYTES_MIN {
            return Err(Fault::new(
                condition::INVALID_FIELD,
                "frames hold 512 bytes at least",
            ));
        }
        // Nothing that we send needs longer ones.
        self.peer_frame_bytes_max = bytes_max.min(AMQP_FRAME_BYTES_MAX);
        Ok(())
    }

    /// A session of the peer gets the channel of the same number at our end.
    fn handle_begin(&mut self, channel: u16, begin: &Begin) -> Result<(), Fault> {
        if begin.is_answer || self.sessions.contains_key(&channel) {
            return Err(Fault::new(
                condition::ILLEGAL_STATE,
                "a session that is there already",
            ));
        }
        if usize::from(channel) >= AMQP_SESSIONS_MAX {
            return Err(Fault::new(condition::NOT_ALLOWED, "more sessions than agreed"));
        }
        let session = Session::new(begin);
        let windows = session.windows();
        let answer = say::begin(
            channel,
            windows.next_outgoing_id,
            (windows.incoming_window, windows.outgoing_window),
            (AMQP_LINKS_MAX - 1) as u32,
        );
        self.sessions.insert(channel, session);
        self.put(channel, &answer);
        Ok(())
    }

    fn put(&mut self, channel: u16, performative: &Value) {
        frame::put(&mut self.out, frame::AMQP, channel, performative, &[]);
    }

    /// Ends the connection, for a reason if there is one.
    pub(crate) fn close(&mut self, fault: Option<&Fault>) {
        if self.phase == Phase::Running {
            self.put(0, &say::close(fault));
        }
        self.phase = Phase::Closed;
    }

    /// Bytes of a message that fit into one frame to the peer, beside what stands before them.
    fn payload_bytes_max(&self) -> usize {
        const TRANSFER_BYTES_MAX: usize = 64;
        self.peer_frame_bytes_max - HEADER_BYTES - TRANSFER_BYTES_MAX
    }

    /// The session that a link is in.
    pub(crate) fn channel_of(&self, id: LinkId) -> Option<u16> {
        self.links.get(&id).map(|link| link.channel)
    }

    fn link_of(&self, channel: u16, handle: u32) -> Option<LinkId> {
        self.sessions.get(&channel)?.handles.get(&handle).copied()
    }

    /// Forgets a link, and tells whoever knew it.
    fn forget(&mut self, id: LinkId) {
        if let Some(link) = self.links.remove(&id) {
            if let Some(session) = self.sessions.get_mut(&link.channel) {
                session.handles.remove(&link.handle);
                session.drop_waiting(link.handle);
                session.forget_unsettled(id);
            }
            if link.state != LinkState::Detaching {
                self.events.push_back(Event::Detached(id));
            }
        }
    }
}

#[cfg(test)]
mod tests;
