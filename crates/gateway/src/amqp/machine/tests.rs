//! A machine that is told what peers say, well and badly.

use bytes::{Bytes, BytesMut};

use super::super::performative::code;
use super::*;
use crate::limits::{AMQP_INCOMING_WINDOW, AMQP_LINK_CREDIT};

const RECEIVES: bool = true;
const SENDS: bool = false;

fn put(out: &mut BytesMut, channel: u16, number: u64, fields: Vec<Value>) {
    frame::put(out, frame::AMQP, channel, &Value::described(number, fields), &[]);
}

fn attach(name: &str, handle: u32, role: bool) -> Vec<Value> {
    let end = Value::described(0x28, vec![Value::string("node")]);
    let mut fields = vec![Value::string(name), Value::Uint(handle), Value::Bool(role)];
    fields.resize(5, Value::Null);
    fields.extend([end.clone(), end, Value::Null, Value::Null, Value::Uint(0)]);
    fields
}

fn transfer(out: &mut BytesMut, handle: u32, id: u32, more: bool, payload: &[u8]) {
    let mut fields = vec![Value::Uint(handle), Value::Uint(id), Value::Null, Value::Null];
    fields.extend([Value::Bool(false), Value::Bool(more)]);
    let performative = Value::described(code::TRANSFER, fields);
    frame::put(out, frame::AMQP, 0, &performative, payload);
}

fn flow(window: u32, link: Option<(u32, u32, u32)>, drain: bool) -> Vec<Value> {
    let mut fields = vec![
        Value::Uint(0),
        Value::Uint(window),
        Value::Uint(0),
        Value::Uint(100),
    ];
    fields.resize(10, Value::Null);
    if let Some((handle, count, credit)) = link {
        fields[4] = Value::Uint(handle);
        fields[5] = Value::Uint(count);
        fields[6] = Value::Uint(credit);
    }
    fields[8] = Value::Bool(drain);
    fields
}

/// What the machine has said since it was last asked: numbers of the performatives, and all bytes.
fn said(machine: &mut Machine) -> (Vec<u8>, BytesMut) {
    let mut out = machine.out.split();
    let all = out.clone();
    let mut numbers = Vec::new();
    while let Some(frame) = frame::take(&mut out, 1 << 20).unwrap() {
        numbers.push(frame.body.get(2).copied().unwrap_or(0));
    }
    (numbers, all)
}

fn told(machine: &mut Machine, mut bytes: BytesMut) {
    machine.handle_bytes(&mut bytes);
}

/// A connection with a session on channel 0; its peer takes frames of `frame_bytes_max` and `window` transfers.
fn open_with(frame_bytes_max: u32, window: u32) -> Machine {
    let mut machine = Machine::new("test".into());
    let mut bytes = BytesMut::from(&SASL_HEADER[..]);
    let init = Value::described(code::SASL_INIT, vec![Value::symbol("ANONYMOUS")]);
    frame::put(&mut bytes, frame::SASL, 0, &init, &[]);
    bytes.extend_from_slice(&AMQP_HEADER);
    put(
        &mut bytes,
        0,
        code::OPEN,
        vec![Value::string("c"), Value::Null, Value::Uint(frame_bytes_max)],
    );
    let begin = vec![Value::Null, Value::Uint(0), Value::Uint(window), Value::Uint(100)];
    put(&mut bytes, 0, code::BEGIN, begin);
    told(&mut machine, bytes);
    assert!(machine.is_open());
    machine.out.clear();
    machine
}

fn attached(machine: &mut Machine, handle: u32, role: bool, message_bytes_max: usize) -> LinkId {
    attached_as(machine, (handle, role), message_bytes_max, Settles::AtOnce)
}

fn attached_as(
    machine: &mut Machine,
    (handle, role): (u32, bool),
    message_bytes_max: usize,
    settles: Settles,
) -> LinkId {
    let mut bytes = BytesMut::new();
    put(
        &mut bytes,
        0,
        code::ATTACH,
        attach(&format!("l{handle}"), handle, role),
    );
    told(machine, bytes);
    let Some(Event::Attach(id, _)) = machine.poll_event() else {
        panic!("a link is asked for");
    };
    machine.accept(id, message_bytes_max, settles);
    id
}

#[test]
fn headers_sasl_and_open_come_in_order() {
    let mut machine = Machine::new("test".into());
    let mut bytes = BytesMut::from(&AMQP_HEADER[..]);
    machine.handle_bytes(&mut bytes);
    assert!(machine.is_closed(), "SASL comes first");
    assert_eq!(machine.out, SASL_HEADER[..]);

    let mut machine = Machine::new("test".into());
    let mut bytes = BytesMut::from(&SASL_HEADER[..]);
    let init = Value::described(code::SASL_INIT, vec![Value::symbol("EXTERNAL")]);
    frame::put(&mut bytes, frame::SASL, 0, &init, &[]);
    machine.handle_bytes(&mut bytes);
    assert!(machine.is_closed(), "an unknown mechanism");

    let mut machine = open_with(512, 10);
    let mut bytes = BytesMut::new();
    put(&mut bytes, 0, code::OPEN, vec![Value::string("c")]);
    told(&mut machine, bytes);
    assert!(machine.is_closed());
}

#[test]
fn what_settles_later_is_bounded_until_it_has_its_end() {
    let mut machine = open_with(512, 1000);
    let id = attached_as(&mut machine, (0, SENDS), 100, Settles::Later);
    said(&mut machine);
    let mut waiting = Vec::new();
    for number in 0..AMQP_LINK_CREDIT {
        let mut bytes = BytesMut::new();
        transfer(&mut bytes, 0, number, false, b"x");
        told(&mut machine, bytes);
        let Some(Event::Delivery(_, delivery, _)) = machine.poll_event() else {
            panic!("a delivery")
        };
        waiting.push(delivery);
    }
    assert_eq!(
        said(&mut machine).0,
        [0_u8; 0],
        "nothing is settled, and no more credit given"
    );
    let fault = Fault::new(condition::NOT_FOUND, "no such device");
    machine.settle(id, waiting[1], Some(&fault));
    machine.settle(id, waiting[0], None);
    let codes = said(&mut machine).0;
    let [disposition, flow] = [code::DISPOSITION as u8, code::FLOW as u8];
    assert_eq!(
        codes,
        [disposition, flow, disposition, flow],
        "each end makes room for one"
    );
    let mut bytes = BytesMut::new();
    (0..3).for_each(|n| transfer(&mut bytes, 0, 100 + n, false, b"x"));
    let mut taken = 0;
    loop {
        machine.handle_bytes(&mut bytes);
        match machine.poll_event() {
            Some(Event::Delivery(..)) => taken += 1,
            Some(Event::Detached(_)) => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(taken, 2, "and for no more");
}

fn disposition(out: &mut BytesMut, first: u32, last: u32, is_settled: bool, state: u64) {
    let fields = vec![
        Value::Bool(true),
        Value::Uint(first),
        Value::Uint(last),
        Value::Bool(is_settled),
        Value::described(state, Vec::new()),
    ];
    put(out, 0, code::DISPOSITION, fields);
}

#[test]
fn the_peers_word_on_what_it_was_sent_is_told_once() {
    let mut machine = open_with(512, 1000);
    let id = attached_as(&mut machine, (0, RECEIVES), 100, Settles::Later);
    let mut bytes = BytesMut::new();
    put(&mut bytes, 0, code::FLOW, flow(1000, Some((0, 0, 9)), false));
    told(&mut machine, bytes);
    let tag = Some([7; 16]);
    let sent = [0, 1, 2].map(|_| machine.send(id, Bytes::from_static(b"x"), tag));
    assert_eq!(sent, [Some(0), Some(1), Some(2)]);
    assert_eq!(machine.send(id, Bytes::from_static(b"x"), None), None);
    said(&mut machine);
    let mut bytes = BytesMut::new();
    disposition(&mut bytes, 0, 1, false, code::ACCEPTED);
    disposition(&mut bytes, 0, u32::MAX, true, code::RELEASED);
    disposition(&mut bytes, 2, 1, true, code::RELEASED);
    let mut settled = Vec::new();
    loop {
        machine.handle_bytes(&mut bytes);
        match machine.poll_event() {
            Some(Event::Settled(link, number, word)) if link == id => settled.push((number, word)),
            None => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(
        settled,
        [(0, Word::Accepted), (1, Word::Accepted), (2, Word::Released)]
    );
    assert_eq!(
        said(&mut machine).0,
        [code::DISPOSITION as u8],
        "what the peer keeps until it hears"
    );
}

#[test]
fn a_message_in_parts_is_whole_and_accepted() {
    let mut machine = open_with(512, 10);
    attached(&mut machine, 3, SENDS, 100);
    assert_eq!(said(&mut machine).0, [code::ATTACH as u8, code::FLOW as u8]);
    let mut bytes = BytesMut::new();
    transfer(&mut bytes, 3, 7, true, b"one ");
    transfer(&mut bytes, 3, 7, false, b"two");
    told(&mut machine, bytes);
    assert!(matches!(machine.poll_event(), Some(Event::Message(_, message)) if message == "one two"));
    assert_eq!(said(&mut machine).0, [code::DISPOSITION as u8]);
}

#[test]
fn too_much_ends_the_link_and_nothing_else() {
    let mut machine = open_with(512, 10);
    attached(&mut machine, 3, SENDS, 100);
    let mut bytes = BytesMut::new();
    transfer(&mut bytes, 3, 0, true, &[0; 60]);
    transfer(&mut bytes, 3, 0, false, &[0; 60]);
    told(&mut machine, bytes);
    assert!(matches!(machine.poll_event(), Some(Event::Detached(_))));
    let (_, all) = said(&mut machine);
    assert!(String::from_utf8_lossy(&all).contains(condition::MESSAGE_TOO_LARGE));
    // What was under way is let pass until the peer knows.
    let mut bytes = BytesMut::new();
    transfer(&mut bytes, 3, 1, false, b"x");
    put(
        &mut bytes,
        0,
        code::DETACH,
        vec![Value::Uint(3), Value::Bool(true)],
    );
    told(&mut machine, bytes);
    assert!(machine.is_open() && machine.poll_event().is_none());
    attached(&mut machine, 3, SENDS, 100);
}

#[test]
fn credit_and_window_are_granted_again_in_time() {
    let mut machine = open_with(512, 10);
    attached(&mut machine, 0, SENDS, 100);
    for id in 0..3 * AMQP_INCOMING_WINDOW {
        let mut bytes = BytesMut::new();
        transfer(&mut bytes, 0, id, false, b"x");
        told(&mut machine, bytes);
        assert!(matches!(machine.poll_event(), Some(Event::Message(..))), "{id}");
        machine.out.clear();
    }
    // Credit counts messages, not their parts.
    let mut bytes = BytesMut::new();
    for id in 0..=AMQP_LINK_CREDIT {
        transfer(&mut bytes, 0, id, true, b"");
    }
    told(&mut machine, bytes);
    assert!(machine.is_open(), "one message in many parts");
}

#[test]
fn what_is_sent_keeps_to_credit_window_and_frames() {
    let mut machine = open_with(512, 2);
    let id = attached(&mut machine, 0, RECEIVES, 1000);
    assert!(!machine.can_send(id) && !machine.has_credit(id));
    let mut bytes = BytesMut::new();
    put(&mut bytes, 0, code::FLOW, flow(2, Some((0, 0, 2)), false));
    told(&mut machine, bytes);
    machine.out.clear();
    assert!(machine.can_send(id));
    machine.send(id, Bytes::from(vec![7; 1200]), None);
    assert_eq!(said(&mut machine).0.len(), 2, "as many parts as the window takes");
    assert!(!machine.can_send(id) && machine.has_credit(id));
    let mut bytes = BytesMut::new();
    let mut more = flow(3, None, false);
    more[0] = Value::Uint(2);
    put(&mut bytes, 0, code::FLOW, more);
    told(&mut machine, bytes);
    assert_eq!(said(&mut machine).0.len(), 1, "the last part");
    assert!(machine.can_send(id));
    machine.send(id, Bytes::from_static(b"x"), None);
    assert!(!machine.has_credit(id));
}

#[test]
fn a_drained_link_has_no_credit_and_says_so() {
    let mut machine = open_with(512, 10);
    let id = attached(&mut machine, 0, RECEIVES, 1000);
    let mut bytes = BytesMut::new();
    put(&mut bytes, 0, code::FLOW, flow(10, Some((0, 0, 5)), true));
    told(&mut machine, bytes);
    machine.out.clear();
    machine.finish_drain(id);
    assert_eq!(said(&mut machine).0, [code::FLOW as u8]);
    assert!(!machine.has_credit(id));
    machine.finish_drain(id);
    assert!(machine.out.is_empty(), "once");
}

#[test]
fn refused_links_have_no_end_at_ours() {
    let mut machine = open_with(512, 10);
    let mut bytes = BytesMut::new();
    put(&mut bytes, 0, code::ATTACH, attach("l", 0, RECEIVES));
    told(&mut machine, bytes);
    let Some(Event::Attach(id, _)) = machine.poll_event() else {
        panic!("a link is asked for");
    };
    machine.refuse(id, &Fault::new(condition::NOT_FOUND, "nowhere"));
    let (numbers, all) = said(&mut machine);
    assert_eq!(numbers, [code::ATTACH as u8, code::DETACH as u8]);
    assert!(String::from_utf8_lossy(&all).contains(condition::NOT_FOUND));
    machine.accept(id, 1, Settles::AtOnce);
    assert!(machine.out.is_empty(), "once refused, it stays so");
}

#[test]
fn links_and_sessions_have_a_bound_and_broken_rules_end_the_connection() {
    type Say = fn(&mut BytesMut);
    let cases: [(&str, Say); 7] = [
        (condition::RESOURCE_LIMIT, |out| {
            put(out, 0, code::ATTACH, attach("l", AMQP_LINKS_MAX as u32, SENDS));
        }),
        (condition::NOT_ALLOWED, |out| {
            let begin = vec![Value::Null, Value::Uint(0), Value::Uint(1), Value::Uint(1)];
            put(out, AMQP_SESSIONS_MAX as u16, code::BEGIN, begin);
        }),
        (condition::ILLEGAL_STATE, |out| {
            put(out, 9, code::ATTACH, attach("l", 0, SENDS))
        }),
        (condition::UNATTACHED, |out| transfer(out, 5, 0, false, b"")),
        (condition::UNATTACHED, |out| {
            put(out, 0, code::FLOW, flow(1, Some((5, 0, 1)), false))
        }),
        (condition::DECODE, |out| put(out, 0, 0x99, Vec::new())),
        (condition::FRAMING, |out| out.extend_from_slice(&[0x7f; 8])),
    ];
    for (wanted, say) in cases {
        let mut machine = open_with(512, 10);
        let mut bytes = BytesMut::new();
        say(&mut bytes);
        told(&mut machine, bytes);
        assert!(machine.is_closed(), "{wanted}");
        let (_, all) = said(&mut machine);
        assert!(String::from_utf8_lossy(&all).contains(wanted), "{wanted}");
    }
    let mut machine = open_with(512, 10);
    for handle in 0..AMQP_LINKS_MAX {
        attached(&mut machine, handle as u32, RECEIVES, 1);
    }
    let mut bytes = BytesMut::new();
    put(&mut bytes, 0, code::ATTACH, attach("again", 0, RECEIVES));
    told(&mut machine, bytes);
    assert!(machine.is_closed());
}

#[test]
fn a_session_that_ends_takes_its_links_along() {
    let mut machine = open_with(512, 10);
    let ids = [
        attached(&mut machine, 0, RECEIVES, 1),
        attached(&mut machine, 1, SENDS, 1),
    ];
    let mut bytes = BytesMut::new();
    put(&mut bytes, 0, code::END, vec![]);
    told(&mut machine, bytes);
    for id in ids {
        assert_eq!(machine.poll_event(), Some(Event::Detached(id)));
    }
    assert!(machine.is_open());
}

proptest::proptest! {
    #[test]
    fn noise_never_panics(noise in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        for mut machine in [Machine::new("test".into()), open_with(512, 10)] {
            let mut bytes = BytesMut::from(&noise[..]);
            machine.handle_bytes(&mut bytes);
        }
    }
}
