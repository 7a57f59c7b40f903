//! One subscribing client as a machine: asks for a topic, acknowledges what comes, counts it.
//!
//! A message of this program's own making tells when it was due, and so how long it was on its way
//! (both ends on one machine, or with clocks that agree). For a run that is judged each message is
//! kept as what it claims to be; [`super::verify`] compares.

use std::collections::HashSet;

use dunlin_gateway::mqtt::Version;
use serde::Deserialize;

use super::content;
use super::packet::{self, Split};
use super::recorder::Recorder;
use crate::oracle;

/// Messages that are kept for a comparison; beyond that the run is not judged.
pub(super) const KEPT_MAX: usize = crate::fleet::MESSAGES_MAX;

/// A message of the judged run as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Heard {
    /// The client that it says it is from.
    pub(super) device: String,
    pub(super) seq: u32,
    pub(super) digest: u64,
}

/// See the head of this file.
pub(super) struct Subscriber {
    version: Version,
    filter: String,
    qos: u8,
    epoch_us: u64,
    /// Keep messages of this writer.
    writer: Option<String>,
    is_subscribed: bool,
    heard: Vec<Heard>,
    /// Digests of what was heard: a message that comes again was counted.
    seen: HashSet<u64>,
    is_overfull: bool,
}

impl Subscriber {
    pub(super) fn new(version: Version, filter: String, qos: u8, epoch_us: u64) -> Self {
        Self {
            version,
            filter,
            qos,
            epoch_us,
            writer: None,
            is_subscribed: false,
            heard: Vec::new(),
            seen: HashSet::new(),
            is_overfull: false,
        }
    }

    /// Keeps the messages of a writer.
    pub(super) fn keeping(self, writer: &str) -> Self {
        Self {
            writer: Some(writer.to_owned()),
            ..self
        }
    }

    /// A connection is there.
    pub(super) fn begin(&mut self, out: &mut Vec<u8>) {
        self.is_subscribed = false;
        out.extend(packet::subscribe(self.version, &self.filter, self.qos));
    }

    /// Whether the server has agreed.
    pub(super) fn is_subscribed(&self) -> bool {
        self.is_subscribed
    }

    /// Reads every whole packet and returns the bytes of them; an error ends the connection.
    pub(super) fn take(
        &mut self,
        now_ns: u64,
        read: &[u8],
        out: &mut Vec<u8>,
        recorder: &mut Recorder,
    ) -> Result<usize, String> {
        let mut used = 0;
        loop {
            let (head, body, bytes) = match packet::split(&read[used..]) {
                Split::Whole(head, body, bytes) => (head, body, bytes),
                Split::Partial(_) => return Ok(used),
                Split::Malformed => return Err("what came is no MQTT".into()),
            };
            used += bytes;
            match head {
                _ if head & 0xF0 == packet::PUBLISH => {
                    self.take_message(now_ns, (head, body), out, recorder)?
                }
                packet::SUBACK => self.take_suback(body)?,
                packet::PUBREL => {
                    let id = packet::number(body, 0).ok_or("a PUBREL without a packet id")?;
                    packet::push_answer(out, packet::PUBCOMP, id);
                }
                packet::PINGRESP => {}
                packet::DISCONNECT => {
                    let code = body.first().copied().unwrap_or(0);
                    return Err(format!("disconnected: {}", packet::refusal(self.version, code)));
                }
                other => return Err(format!("a packet of kind {other:#04x} was not expected")),
            }
        }
    }

    fn take_suback(&mut self, body: &[u8]) -> Result<(), String> {
        // One filter was asked for, so the last byte is its code, whatever properties come before.
        match body.last() {
            Some(code) if *code < 0x80 && body.len() >= 3 => {
                self.is_subscribed = true;
                Ok(())
            }
            code => {
                let code = code.copied().unwrap_or(0x80);
                let why = packet::refusal(self.version, code);
                Err(format!("the subscription to {} is refused: {why}", self.filter))
            }
        }
    }

    fn take_message(
        &mut self,
        now_ns: u64,
        (head, body): (u8, &[u8]),
        out: &mut Vec<u8>,
        recorder: &mut Recorder,
    ) -> Result<(), String> {
        let message = packet::publish(self.version, head, body).ok_or("a PUBLISH that cannot be read")?;
        match message.qos {
            0 => {}
            1 => packet::push_answer(out, packet::PUBACK, message.id),
            _ => packet::push_answer(out, packet::PUBREC, message.id),
        }
        let now_us = self.epoch_us + now_ns / 1000;
        let latency_us = content::stamp(message.payload).map(|due_us| now_us.saturating_sub(due_us));
        if self.keep(message.payload) {
            recorder.received(now_ns, latency_us);
        }
        Ok(())
    }

    /// Keeps a message for the comparison. Whether it counts: with a writer to listen for, only that one's
    /// messages do, and each once.
    fn keep(&mut self, payload: &[u8]) -> bool {
        #[derive(Deserialize)]
        struct Claim<'a> {
            #[serde(borrow)]
            writer: std::borrow::Cow<'a, str>,
            #[serde(borrow)]
            device: std::borrow::Cow<'a, str>,
            seq: u32,
        }
        let Some(writer) = &self.writer else { return true };
        // What cannot be read was written by somebody else; others may use the topic, too.
        let Ok(claim) = serde_json::from_slice::<Claim<'_>>(payload) else {
            return false;
        };
        if claim.writer != writer.as_str() {
            return false;
        }
        if self.heard.len() >= KEPT_MAX {
            self.is_overfull = true;
            return false;
        }
        let digest = oracle::digest(payload);
        self.heard.push(Heard {
            device: claim.device.into_owned(),
            seq: claim.seq,
            digest,
        });
        self.seen.insert(digest)
    }

    /// What came, and whether that is all of it.
    pub(super) fn into_heard(self) -> (Vec<Heard>, bool) {
        (self.heard, !self.is_overfull)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::load::recorder::Window;

    fn subscribed(version: Version) -> (Subscriber, Recorder) {
        let mut subscriber = Subscriber::new(version, "t/+".into(), 1, 1_000_000_000_000_000).keeping("w");
        let mut recorder = Recorder::default();
        recorder.set_window(Window {
            from_ns: 0,
            to_ns: u64::MAX,
            by_due: false,
        });
        let mut out = Vec::new();
        subscriber.begin(&mut out);
        assert_eq!(out[0], packet::SUBSCRIBE);
        (subscriber, recorder)
    }

    fn message(qos: u8, payload: &[u8]) -> Vec<u8> {
        let mut body = vec![0, 1, b't'];
        if qos > 0 {
            body.extend([0, 5]);
        }
        body.extend_from_slice(payload);
        packet::packet(packet::PUBLISH | qos << 1, &body)
    }

    #[test]
    fn messages_are_answered_counted_and_kept() {
        let (mut subscriber, mut recorder) = subscribed(Version::V3);
        let ours = br#"{"writer":"w","device":"d","seq":3}"#;
        let theirs = br#"{"writer":"x","device":"d","seq":3}"#;
        let mut read = vec![0x90, 3, 0, 1, 1];
        for (qos, payload) in [(0, &ours[..]), (1, theirs), (2, b"\xff"), (1, ours)] {
            read.extend(message(qos, payload));
        }
        read.extend([0x62, 2, 0, 5]);
        let mut out = Vec::new();
        assert_eq!(
            subscriber.take(7_000_000, &read, &mut out, &mut recorder),
            Ok(read.len())
        );
        assert!(subscriber.is_subscribed());
        assert_eq!(out, [0x40, 2, 0, 5, 0x50, 2, 0, 5, 0x40, 2, 0, 5, 0x70, 2, 0, 5]);
        let interval = recorder.take();
        assert_eq!(interval.tally.received, 1, "ours counts, and once");
        let (heard, is_all) = subscriber.into_heard();
        assert!(is_all);
        assert_eq!(heard.len(), 2);
        for one in heard {
            assert_eq!((one.device.as_str(), one.seq), ("d", 3));
        }
    }

    #[test]
    fn without_a_writer_to_listen_for_every_message_counts() {
        let (subscriber, mut recorder) = subscribed(Version::V3);
        let mut subscriber = Subscriber {
            writer: None,
            ..subscriber
        };
        let stamped = br#"{"us":1000000000000000,"seq":1}"#;
        let read = [message(0, b"\xff"), message(1, stamped), message(1, stamped)].concat();
        let taken = subscriber.take(7_000_000, &read, &mut Vec::new(), &mut recorder);
        assert_eq!(taken, Ok(read.len()));
        let interval = recorder.take();
        assert_eq!(interval.tally.received, 3);
        assert_eq!((interval.latency_us.len(), interval.latency_us.max()), (2, 7003));
        assert!(subscriber.into_heard().0.is_empty());
    }

    #[test]
    fn a_refused_subscription_is_told() {
        let (mut subscriber, mut recorder) = subscribed(Version::V5);
        let answer = [0x90, 4, 0, 1, 0, 0x87];
        let why = subscriber.take(0, &answer, &mut Vec::new(), &mut recorder);
        assert!(why.is_err_and(|why| why.contains("t/+") && why.contains("not authorized")));
    }
}
