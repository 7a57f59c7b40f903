//! A connection of AMQP that a stranger feeds, with answers as the hub's links give them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::{Bytes, BytesMut};

use super::amqp_nodes::{attach, put, reader_source, to_device, token};
use crate::amqp::frame::{self, AMQP_HEADER, HEADER_BYTES, SASL_HEADER};
use crate::amqp::machine::{Delivery, Event, LinkId, Machine, Settles};
use crate::amqp::message::Request;
use crate::amqp::node::Node;
use crate::amqp::performative::{
    self, Attach, Fault, Performative, address, code, condition, described_list,
};
use crate::amqp::value::{Malformed, Reader, Value};
use crate::amqp::{devicebound, partition};
use crate::limits::{AMQP_FRAME_BYTES_MAX, AMQP_LINKS_MAX, AMQP_VALUES_MAX};

/// Bytes of a frame, as the peer that has opened says it.
const PEER_FRAME_BYTES: u32 = 512;
/// Bytes of a message on any link.
const MESSAGE_BYTES_MAX: usize = 1000;
/// A message of ours, which takes several frames of the shortest kind.
const MESSAGE: &[u8] = &[7; 1200];
/// Shards of the hub.
const SHARD_COUNT: u32 = 4;
/// Messages of the peer that wait for their end.
const WAITING_MAX: usize = 8;
/// Bytes that a byte may call forth: a frame has eight at least, and no answer but a link's has more than 512.
const ANSWER_FACTOR: usize = 64;
/// Bytes by which a value may grow that comes back with its link: it is written at its full length.
const VALUE_GROWTH: usize = 8;

/// One connection, and what is known of it from outside.
struct Talk {
    machine: Machine,
    /// Links that are open, and whether the peer receives there.
    links: BTreeMap<LinkId, bool>,
    /// Messages of ours that the peer is to settle.
    unsettled: BTreeSet<(LinkId, u32)>,
    /// Messages of the peer without their end yet, and what that will be.
    waiting: VecDeque<(LinkId, Delivery, Option<Fault>)>,
    seen: Vec<Event>,
    out_bytes_max: usize,
}

impl Talk {
    /// Feeds `stream` in pieces, behind what opens a session if it `is_open`.
    fn of(is_open: bool, stream: &[u8], piece_bytes: usize) -> Self {
        let mut talk = Self {
            machine: Machine::new("fuzz".to_owned()),
            links: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            waiting: VecDeque::new(),
            seen: Vec::new(),
            out_bytes_max: 0,
        };
        let mut buffer = BytesMut::new();
        if is_open {
            talk.feed(&mut buffer, &opening());
            assert!(talk.machine.is_open(), "a session has begun");
        }
        for piece in stream.chunks(piece_bytes.max(1)) {
            talk.feed(&mut buffer, piece);
        }
        talk
    }

    fn feed(&mut self, buffer: &mut BytesMut, piece: &[u8]) {
        buffer.extend_from_slice(piece);
        self.out_bytes_max += ANSWER_FACTOR * piece.len();
        loop {
            self.machine.handle_bytes(buffer);
            let Some(event) = self.machine.poll_event() else {
                break;
            };
            self.handle(&event);
            self.seen.push(event);
        }
        let written = self.machine.out.len();
        assert!(
            written <= self.out_bytes_max,
            "{written} bytes are written, {} at the most",
            self.out_bytes_max
        );
    }

    fn handle(&mut self, event: &Event) {
        match event {
            Event::Attach(id, attach) => self.attach(*id, attach),
            Event::Message(id, message) => {
                self.check_message(*id, message);
                if let Err(error) = Request::read(message) {
                    self.links.remove(id);
                    self.machine.refuse(*id, &error.into());
                }
            }
            Event::Delivery(id, delivery, message) => {
                self.check_message(*id, message);
                let fault = devicebound::read(message).err();
                self.waiting.push_back((*id, *delivery, fault));
                if self.waiting.len() > WAITING_MAX
                    && let Some((id, delivery, fault)) = self.waiting.pop_front()
                {
                    self.machine.settle(id, delivery, fault.as_ref());
                }
            }
            Event::Settled(id, number, _) => {
                let is_theirs = self.unsettled.remove(&(*id, *number));
                assert!(is_theirs, "what was sent is settled once, and nothing else");
            }
            Event::Detached(id) => {
                assert!(self.links.remove(id).is_some(), "a link that is open ends once");
            }
        }
        self.send();
    }

    fn attach(&mut self, id: LinkId, attach: &Attach) {
        self.out_bytes_max += VALUE_GROWTH * AMQP_VALUES_MAX;
        match purpose(attach) {
            Err(fault) => self.machine.refuse(id, &fault),
            Ok(settles) => {
                self.machine.accept(id, MESSAGE_BYTES_MAX, settles);
                let before = self.links.insert(id, attach.peer_receives);
                assert_eq!(before, None, "no link is called like an earlier one");
                assert!(self.links.len() <= AMQP_LINKS_MAX);
            }
        }
    }

    fn check_message(&self, id: LinkId, message: &Bytes) {
        assert_eq!(self.links.get(&id), Some(&false), "the peer sends where it may");
        assert!(message.len() <= MESSAGE_BYTES_MAX);
    }

    /// Sends one message, on the link whose turn it is, if that is possible; half of the links want to settle theirs.
    fn send(&mut self) {
        let receivers = self.links.iter().filter(|(_, peer_receives)| **peer_receives);
        let receivers: Vec<LinkId> = receivers.map(|(id, _)| *id).collect();
        let Some(turn) = self.seen.len().checked_rem(receivers.len()) else {
            return;
        };
        let id = receivers[turn];
        if !self.machine.can_send(id) {
            return self.machine.finish_drain(id);
        }
        self.out_bytes_max += 2 * MESSAGE.len();
        let tag = id.is_multiple_of(2).then_some([7; 16]);
        let number = self.machine.send(id, Bytes::from_static(MESSAGE), tag);
        assert_eq!(number.is_some(), tag.is_some());
        if let Some(number) = number {
            assert!(self.unsettled.insert((id, number)), "messages are numbered");
        }
    }
}

/// When messages on a link are settled, or why there is none.
fn purpose(attach: &Attach) -> Result<Settles, Fault> {
    let wanted = match attach.peer_receives {
        true => &attach.source,
        false => &attach.target,
    };
    match Node::parse(address(wanted).unwrap_or_default()) {
        None => Err(Fault::new(condition::NOT_FOUND, "there is no such node")),
        Some(Node::Cbs | Node::Management) => Ok(Settles::AtOnce),
        Some(Node::DeviceBound | Node::Feedback(_)) => Ok(Settles::Later),
        Some(Node::Partition(found)) => partition::read(&found, attach, SHARD_COUNT).map(|_| Settles::AtOnce),
    }
}

/// Everything that is written is frames that a peer can read, and messages go in frames as long as it takes.
fn check_written(out: &BytesMut, frame_bytes_max: usize) {
    let mut rest = out.clone();
    while !rest.is_empty() {
        if rest.starts_with(b"AMQP") {
            let header = frame::take_header(&mut rest);
            assert!(header == Some(SASL_HEADER) || header == Some(AMQP_HEADER));
            continue;
        }
        let taken = frame::take(&mut rest, usize::MAX).expect("a frame");
        let written = taken.expect("all of a frame");
        if written.kind == frame::SASL {
            let read = Reader::new(&written.body).value().and_then(described_list);
            assert!(read.is_ok(), "{read:?}");
            continue;
        }
        match performative::read(&written.body) {
            Ok(Performative::Transfer(..)) => {
                assert!(HEADER_BYTES + written.body.len() <= frame_bytes_max);
            }
            Ok(_) => {}
            // A link comes back with some fields of ours around all that came with it.
            Err(error) => assert_eq!(error, Malformed("too many values")),
        }
    }
}

/// A connection that is fed bytes: it does and says the same whether they come at once or in pieces, says nothing that
/// cannot be read, and no more than its peer has asked for. First byte: whether a session is open; second: length of the
/// pieces.
pub fn amqp_machine(data: &[u8]) {
    let [first, piece, stream @ ..] = data else {
        return;
    };
    let is_open = first & 1 == 1;
    let whole = Talk::of(is_open, stream, stream.len());
    let pieces = Talk::of(is_open, stream, usize::from(*piece));
    assert_eq!(whole.seen, pieces.seen);
    assert_eq!(whole.machine.out, pieces.machine.out);
    let frame_bytes_max = match is_open {
        true => PEER_FRAME_BYTES as usize,
        false => AMQP_FRAME_BYTES_MAX,
    };
    check_written(&whole.machine.out, frame_bytes_max);
}

/// What a peer says first, down to a session on channel 0.
fn opening() -> Vec<u8> {
    let mut out = BytesMut::from(&SASL_HEADER[..]);
    let init = Value::described(code::SASL_INIT, vec![Value::symbol("ANONYMOUS")]);
    frame::put(&mut out, frame::SASL, 0, &init, &[]);
    out.extend_from_slice(&AMQP_HEADER);
    let open = vec![Value::string("peer"), Value::Null, Value::Uint(PEER_FRAME_BYTES)];
    let begin = [0, 100, 100].map(Value::Uint);
    let begin = [&[Value::Null][..], &begin].concat();
    out.extend_from_slice(&put(code::OPEN, open, b""));
    out.extend_from_slice(&put(code::BEGIN, begin, b""));
    out.to_vec()
}

/// Numbers, one after the other.
fn numbers<const N: usize>(numbers: [u32; N]) -> Vec<Value> {
    numbers.map(Value::Uint).to_vec()
}

fn transfer(handle: u32, number: u32, more: bool, message: &[u8]) -> Vec<u8> {
    let tag = [Value::Binary(vec![1]), Value::Uint(0)];
    let flags = [Value::Bool(false), Value::Bool(more)];
    let fields = [&numbers([handle, number])[..], &tag, &flags].concat();
    put(code::TRANSFER, fields, message)
}

/// Frames as service clients send them: a token shown, a message to a device, events read.
fn conversation() -> Vec<Vec<u8>> {
    let (shown, message) = (token(), to_device());
    let (begin, end) = message.split_at(message.len() / 2);
    let flags = |drain: bool, echo: bool| [Value::Null, Value::Bool(drain), Value::Bool(echo)];
    let credit = |handle, drain, echo| {
        let fields = [&numbers([0, 100, 0, 100, handle, 0, 9])[..], &flags(drain, echo)].concat();
        put(code::FLOW, fields, b"")
    };
    let accepted = [Value::Bool(false), Value::described(code::ACCEPTED, Vec::new())];
    let settled = [&[Value::Bool(true)][..], &numbers([0, 9]), &accepted].concat();
    vec![
        attach(0, true, Value::described(0x28, vec![Value::string("$cbs")])),
        attach(1, false, Value::described(0x29, vec![Value::string("$cbs")])),
        credit(0, false, true),
        transfer(1, 0, false, &shown),
        attach(
            2,
            false,
            Value::described(0x29, vec![Value::string("/messages/devicebound")]),
        ),
        transfer(2, 1, true, begin),
        transfer(2, 1, false, end),
        attach(3, true, reader_source()),
        credit(3, false, false),
        attach(
            4,
            true,
            Value::described(0x28, vec![Value::string("/messages/serviceBound/feedback")]),
        ),
        credit(4, true, true),
        attach(5, true, Value::described(0x28, vec![Value::string("nowhere")])),
        put(code::DISPOSITION, settled, b""),
        put(code::DETACH, vec![Value::Uint(1), Value::Bool(true)], b""),
        put(code::END, Vec::new(), b""),
        put(code::CLOSE, Vec::new(), b""),
    ]
}

/// Seeds of [`amqp_machine`].
pub fn amqp_machine_seeds() -> Vec<Vec<u8>> {
    let conversation = conversation();
    let mut seeds = vec![
        [&[1, 5], &conversation.concat()[..]].concat(),
        [&[0, 3], &opening()[..], &conversation.concat()].concat(),
        [&[0, 1], &AMQP_HEADER[..]].concat(),
    ];
    seeds
        .extend((1..conversation.len()).map(|count| [&[1, 7], &conversation[..count].concat()[..]].concat()));
    seeds
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_conversation_is_understood_down_to_its_end() {
        let talk = Talk::of(true, &conversation().concat(), 1);
        let count = |wanted: fn(&Event) -> bool| talk.seen.iter().filter(|event| wanted(event)).count();
        assert_eq!(count(|event| matches!(event, Event::Attach(..))), 6);
        assert_eq!(count(|event| matches!(event, Event::Message(..))), 1);
        assert_eq!(count(|event| matches!(event, Event::Delivery(..))), 1);
        assert!(count(|event| matches!(event, Event::Settled(..))) > 0);
        // One is refused and none of ours; the others end with it, or with their session.
        assert_eq!(count(|event| matches!(event, Event::Detached(_))), 5);
        assert!(talk.machine.is_closed() && talk.links.is_empty());
    }
}
