//! The publishing machine against a server that is a few lines of test.

use super::*;
use crate::load::content::Ring;
use crate::load::recorder::Window;

const SPAN: Span = Span {
    start_ns: 0,
    end_ns: 1_000_000_000,
};

fn publish(qos: u8, pace: Pace) -> Publish {
    Publish {
        version: Version::V3,
        qos,
        window: 4,
        pace,
        content: Content::Ring(Arc::new(Ring::new(40))),
        epoch_us: 0,
        keeps_history: false,
    }
}

struct Pair {
    publisher: Publisher,
    recorder: Recorder,
    version: Version,
    out: Vec<u8>,
}

impl Pair {
    fn new(publish: Publish, topic: &str) -> Self {
        let version = publish.version;
        let mut recorder = Recorder::default();
        recorder.set_window(Window {
            from_ns: 0,
            to_ns: u64::MAX,
            by_due: true,
        });
        let topic = Template::parse(topic).unwrap();
        Self {
            publisher: Publisher::new(Arc::new(publish), 0, "c".into(), topic),
            recorder,
            version,
            out: Vec::new(),
        }
    }

    fn fill(&mut self, now_ns: u64) -> Vec<(u8, u16)> {
        self.publisher
            .fill(now_ns, Some(SPAN), &mut self.out, &mut self.recorder);
        self.sent()
    }

    /// First bytes and ids of what went out.
    fn sent(&mut self) -> Vec<(u8, u16)> {
        let out = std::mem::take(&mut self.out);
        let (mut at, mut found) = (0, Vec::new());
        while let Split::Whole(head, body, bytes) = packet::split(&out[at..]) {
            let id = match head & 0xF0 {
                packet::PUBLISH => packet::publish(self.version, head, body).unwrap().id,
                _ => packet::number(body, 0).unwrap(),
            };
            found.push((head, id));
            at += bytes;
        }
        assert_eq!(at, out.len());
        found
    }

    fn hear(&mut self, now_ns: u64, answer: &[u8]) -> Result<usize, String> {
        self.publisher
            .take(now_ns, answer, &mut self.out, &mut self.recorder)
    }
}

fn yes(has_session: bool, receive_max: Option<u16>) -> Connack {
    Connack {
        code: 0,
        has_session,
        receive_max,
    }
}

fn open(rate: u64) -> Pace {
    Pace::Open(Schedule::of_rate(rate, 1, None))
}

#[test]
fn a_message_that_waits_for_room_is_counted_from_when_it_was_due() {
    // One message each 10 ms, room for four, and a server that says nothing for 100 ms.
    let mut pair = Pair::new(publish(1, open(100)), "t");
    let sent: usize = (0..=100).map(|ms| pair.fill(ms * 1_000_000).len()).sum();
    assert_eq!(sent, 4);
    for id in 1..=4 {
        assert_eq!(pair.hear(100_000_000, &[0x40, 2, 0, id]), Ok(4));
    }
    assert_eq!(pair.fill(100_000_000).len(), 4);
    // The place that was given back last is taken first.
    assert_eq!(pair.hear(101_000_000, &[0x40, 2, 0, 4]), Ok(4));
    let latency_us = pair.recorder.take().latency_us;
    assert_eq!(latency_us.len(), 5);
    // The first was due at 0, the fifth at 40 ms although it left at 100 ms.
    assert!(
        latency_us.max() >= 100_000 && latency_us.min() >= 60_900,
        "{}",
        latency_us.min()
    );
}

#[test]
fn nothing_is_due_before_the_start_or_after_the_end() {
    let mut pair = Pair::new(publish(1, open(1000)), "t");
    let later = Span {
        start_ns: 500,
        end_ns: 2_000_500,
    };
    let Pair {
        publisher,
        recorder,
        out,
        ..
    } = &mut pair;
    publisher.fill(499, Some(later), out, recorder);
    publisher.fill(499, None, out, recorder);
    assert!(out.is_empty());
    publisher.fill(u64::MAX, Some(later), out, recorder);
    assert_eq!(pair.sent().len(), 2);
}

#[test]
fn a_full_window_and_a_servers_smaller_one_are_kept() {
    let mut pair = Pair::new(publish(1, Pace::Closed(u64::MAX)), "t");
    assert_eq!(pair.fill(0).len(), 4);
    assert!(pair.fill(1).is_empty());
    assert_eq!(
        pair.hear(2, &[0x40, 2, 0, 2, 0x40, 2, 0]),
        Ok(4),
        "half an answer stays"
    );
    assert_eq!(pair.fill(3), [(0x32, 2)]);
    let mut small = Pair::new(publish(1, Pace::Closed(u64::MAX)), "t");
    small
        .publisher
        .begin(&yes(false, Some(2)), &mut small.out, &mut small.recorder);
    assert_eq!(small.fill(0).len(), 2);
}

#[test]
fn what_a_lost_connection_left_is_sent_again_in_order_and_marked() {
    let mut pair = Pair::new(publish(1, Pace::Closed(6)), "t");
    assert_eq!(pair.fill(0).len(), 4);
    pair.hear(1, &[0x40, 2, 0, 1, 0x40, 2, 0, 3]).unwrap();
    assert_eq!(pair.fill(2), [(0x32, 3), (0x32, 1)], "places are used again");
    pair.publisher.lose();
    pair.publisher
        .begin(&yes(false, None), &mut pair.out, &mut pair.recorder);
    let order: Vec<u16> = pair.sent().iter().map(|(_, id)| *id).collect();
    assert_eq!(order, [2, 4, 3, 1]);
    pair.publisher
        .begin(&yes(false, None), &mut pair.out, &mut pair.recorder);
    assert!(pair.sent().iter().all(|(head, _)| head & packet::DUPLICATE != 0));
    assert!(pair.publisher.is_exhausted() && !pair.publisher.is_idle());
    pair.hear(5, &[0x40, 2, 0, 1, 0x40, 2, 0, 2, 0x40, 2, 0, 3, 0x40, 2, 0, 4])
        .unwrap();
    assert!(pair.publisher.is_idle());
    assert_eq!(pair.recorder.take().tally.acked, 6);
}

#[test]
fn an_answer_to_no_message_ends_the_connection() {
    let mut pair = Pair::new(publish(1, Pace::Closed(1)), "t");
    pair.fill(0);
    for wrong in [[0x40, 2, 0, 2], [0x40, 2, 0, 0], [0x30, 2, 0, 0]] {
        assert!(pair.hear(1, &wrong).is_err(), "{wrong:?}");
    }
    pair.hear(1, &[0x40, 2, 0, 1]).unwrap();
    assert!(pair.hear(2, &[0x40, 2, 0, 1]).is_err(), "twice");
}

#[test]
fn qos_2_ends_with_the_second_answer() {
    let mut pair = Pair::new(publish(2, Pace::Closed(1)), "t");
    assert_eq!(pair.fill(0), [(0x34, 1)]);
    pair.hear(1, &[0x50, 2, 0, 1]).unwrap();
    assert_eq!(pair.sent(), [(packet::PUBREL, 1)]);
    assert!(!pair.publisher.is_idle());
    pair.hear(2, &[0x70, 2, 0, 1]).unwrap();
    assert!(pair.publisher.is_idle());
}

#[test]
fn qos_2_begins_anew_where_the_server_has_no_session() {
    for (has_session, expected) in [(true, packet::PUBREL), (false, 0x34 | packet::DUPLICATE)] {
        let mut pair = Pair::new(publish(2, Pace::Closed(1)), "t");
        pair.fill(0);
        pair.hear(1, &[0x50, 2, 0, 1]).unwrap();
        pair.sent();
        pair.publisher.lose();
        let connack = yes(has_session, None);
        pair.publisher.begin(&connack, &mut pair.out, &mut pair.recorder);
        assert_eq!(pair.sent(), [(expected, 1)], "{has_session}");
    }
}

#[test]
fn a_refused_message_is_not_acked() {
    let mut told = publish(1, Pace::Closed(1));
    told.version = Version::V5;
    let mut pair = Pair::new(told, "t");
    assert_eq!(pair.fill(0), [(0x32, 1)]);
    pair.hear(1, &[0x40, 3, 0, 1, 0x97]).unwrap();
    let interval = pair.recorder.take();
    assert_eq!((interval.tally.acked, interval.tally.refused), (0, 1));
    assert!(interval.reasons.keys().any(|reason| reason.contains("quota")));
}

#[test]
fn qos_0_is_sent_in_bursts_and_numbered_topics_are_filled_in() {
    let mut pair = Pair::new(publish(0, Pace::Closed(6)), "t/%s");
    let mut out = Vec::new();
    assert!(pair.publisher.fill(0, Some(SPAN), &mut out, &mut pair.recorder));
    assert!(!pair.publisher.fill(0, Some(SPAN), &mut out, &mut pair.recorder));
    for number in 0..6 {
        let topic = format!("t/{number}");
        assert!(out.windows(3).any(|part| part == topic.as_bytes()), "{topic}");
    }
    assert_eq!(pair.recorder.take().tally.acked, 6);
}

#[test]
fn what_was_due_and_never_sent_is_counted_at_the_end() {
    let mut pair = Pair::new(publish(1, open(10)), "t");
    for ms in 0..1000 {
        pair.fill(ms * 1_000_000);
    }
    pair.publisher.give_up(2_000_000_000, SPAN, &mut pair.recorder);
    let interval = pair.recorder.take();
    assert_eq!((interval.tally.unacked, interval.tally.unsent), (4, 6));
    assert_eq!(interval.latency_us.len(), 10);
}

#[test]
fn a_report_that_is_refused_is_no_acknowledgement() {
    let mut pair = Pair::new(
        publish(1, Pace::Closed(3)),
        "$iothub/twin/PATCH/properties/reported/?$rid=0",
    );
    assert_eq!(pair.fill(0), [(0x32, 1), (0x32, 2), (0x32, 3)]);
    let answer = |status: u16| {
        let mut body = Vec::new();
        packet::push_text(
            &mut body,
            &format!("$iothub/twin/res/{status}/?$rid=0&$version=2"),
        );
        packet::packet(packet::PUBLISH, &body)
    };
    let puback = |id: u8| vec![packet::PUBACK, 2, 0, id];
    let read = [
        answer(204),
        puback(1),
        answer(429),
        puback(2),
        answer(204),
        puback(3),
    ]
    .concat();
    assert_eq!(pair.hear(10, &read), Ok(read.len()));
    let tally = pair.recorder.take().tally;
    assert_eq!((tally.acked, tally.refused), (2, 1));
    assert!(pair.publisher.is_idle());
    let stranger = packet::packet(packet::PUBLISH, &[0, 1, b'x', b'y']);
    assert!(pair.hear(20, &stranger).is_err());
}
