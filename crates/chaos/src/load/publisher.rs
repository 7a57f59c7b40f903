//! One publishing client as a machine: which message goes out now, and what an answer means.
//!
//! Bytes and times go in, bytes come out; it owns no socket and no clock. With a schedule it sends what
//! is due as far as its window has room, and a message that has to wait is counted from when it was
//! due. Without one it keeps its window full. What a lost connection left unanswered is sent again, in
//! order. A report to a twin has its answer before its acknowledgement, and the answer says whether it was taken. The shell
//! around it is [`super::connection`].

use std::sync::Arc;

use dunlin_gateway::mqtt::Version;

use super::content::Content;
use super::packet::{self, Connack, Split};
use super::recorder::Recorder;
use super::schedule::Schedule;
use super::template::Template;
use crate::oracle::{self, Message, Road};

/// Bytes that are put together at a time; the rest follows when these are written.
const BURST_BYTES_MAX: usize = 64 * 1024;
/// Messages that a client may have unacknowledged.
pub const WINDOW_MAX: u16 = 65_535;

/// Begins the topic of an answer about a twin; its status follows.
const TWIN_ANSWER: &[u8] = b"$iothub/twin/res/";

/// What a publisher is told.
#[derive(Debug, Clone)]
pub(super) struct Publish {
    pub(super) version: Version,
    pub(super) qos: u8,
    /// Messages that may be unacknowledged; with QoS 0, that are written at a time.
    pub(super) window: u16,
    pub(super) pace: Pace,
    pub(super) content: Content,
    /// Microseconds since 1970 at which the run's times begin.
    pub(super) epoch_us: u64,
    /// Whether each message is kept for a comparison.
    pub(super) keeps_history: bool,
}

/// When it sends.
#[derive(Debug, Clone, Copy)]
pub(super) enum Pace {
    /// At these times after the start.
    Open(Schedule),
    /// Whenever its window has room, so many messages at the most.
    Closed(u64),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    Free,
    Sent,
    /// QoS 2: the server has it and waits for our PUBREL.
    Received,
}

#[derive(Debug, Clone, Copy)]
struct Slot {
    stage: Stage,
    number: u64,
    intended_ns: u64,
}

/// A stretch of the run in which messages are sent, in nanoseconds since its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
}

/// See the head of this file.
pub(super) struct Publisher {
    publish: Arc<Publish>,
    client: u64,
    id: String,
    topic: Template,
    /// Everything of a PUBLISH before the packet id, where all messages have the same.
    head: Option<Vec<u8>>,
    /// Packet ids are places here, plus one.
    slots: Vec<Slot>,
    free: Vec<u16>,
    next: u64,
    /// The window, or less if the server says so.
    window: u16,
    connection: u16,
    /// Reports that were refused, and whose acknowledgements are still to come.
    refused: u32,
    history: Vec<Message>,
    text: String,
}

impl Publisher {
    /// For client `client` of the run.
    pub(super) fn new(publish: Arc<Publish>, client: u64, id: String, topic: Template) -> Self {
        let mut text = String::new();
        topic.write(&mut text, 0);
        let head = match publish.content.size() {
            Some(size) if !topic.is_numbered() => Some(head_of(&publish, &text, size)),
            _ => None,
        };
        Self {
            head,
            slots: Vec::new(),
            free: Vec::new(),
            next: 0,
            window: publish.window,
            connection: 0,
            refused: 0,
            history: Vec::new(),
            text,
            publish,
            client,
            id,
            topic,
        }
    }

    /// A connection is there; what is unanswered goes out first.
    pub(super) fn begin(&mut self, connack: &Connack, out: &mut Vec<u8>, recorder: &mut Recorder) {
        self.window = connack
            .receive_max
            .map_or(self.publish.window, |max| max.min(self.publish.window).max(1));
        let mut open: Vec<(u64, u16)> = (1..)
            .zip(&self.slots)
            .filter(|(_, slot)| slot.stage != Stage::Free)
            .map(|(id, slot)| (slot.number, id))
            .collect();
        open.sort_unstable();
        recorder.resent(open.len() as u64);
        for (number, id) in open {
            let slot = self.slots[usize::from(id) - 1];
            // A server without the session has forgotten what it took, and would say yes to a PUBREL.
            if slot.stage == Stage::Received && connack.has_session {
                packet::push_answer(out, packet::PUBREL, id);
                continue;
            }
            self.slots[usize::from(id) - 1].stage = Stage::Sent;
            if let Some(message) = self.history.get_mut(number as usize) {
                message.last_connection = self.connection;
            }
            self.put(out, id, number, slot.intended_ns, true);
        }
    }

    /// The connection is gone.
    pub(super) fn lose(&mut self) {
        self.connection = self.connection.saturating_add(1);
        self.refused = 0;
    }

    /// Puts together what goes out at `now_ns`. Returns whether more would, had there been room for it.
    pub(super) fn fill(
        &mut self,
        now_ns: u64,
        span: Option<Span>,
        out: &mut Vec<u8>,
        recorder: &mut Recorder,
    ) -> bool {
        let Some(span) = span else { return false };
        let mut count = 0_u64;
        let is_cut = loop {
            let Some(intended_ns) = self.due_ns(now_ns, span) else {
                break false;
            };
            if out.len() >= BURST_BYTES_MAX {
                break true;
            }
            let id = if self.publish.qos == 0 {
                if count == u64::from(self.publish.window) {
                    break true;
                }
                0
            } else {
                match self.take_slot(intended_ns) {
                    Some(id) => id,
                    None => break false,
                }
            };
            let number = self.next;
            self.next += 1;
            count += 1;
            if self.publish.keeps_history {
                self.keep(number);
            }
            self.put(out, id, number, intended_ns, false);
        };
        recorder.sent(count);
        if self.publish.qos == 0 {
            recorder.acked_unmeasured(now_ns, count);
        }
        is_cut
    }

    /// When the next message was due, if it is; now, without a schedule.
    fn due_ns(&self, now_ns: u64, span: Span) -> Option<u64> {
        if now_ns < span.start_ns {
            return None;
        }
        match &self.publish.pace {
            Pace::Closed(count_max) => (self.next < *count_max && now_ns < span.end_ns).then_some(now_ns),
            Pace::Open(schedule) => {
                let due_ns = schedule.due_ns(self.client, self.next)? + span.start_ns;
                (due_ns <= now_ns && due_ns < span.end_ns).then_some(due_ns)
            }
        }
    }

    fn take_slot(&mut self, intended_ns: u64) -> Option<u16> {
        let in_flight = self.slots.len() - self.free.len();
        if in_flight >= usize::from(self.window) {
            return None;
        }
        let slot = Slot {
            stage: Stage::Sent,
            number: self.next,
            intended_ns,
        };
        match self.free.pop() {
            Some(id) => {
                self.slots[usize::from(id) - 1] = slot;
                Some(id)
            }
            None => {
                self.slots.push(slot);
                u16::try_from(self.slots.len()).ok()
            }
        }
    }

    /// Keeps what is about to be sent. It is put together twice, which only a judged run pays for.
    fn keep(&mut self, number: u64) {
        let mut payload = Vec::new();
        self.publish
            .content
            .write(&mut payload, (self.client, &self.id), number, 0);
        self.history.push(Message {
            digest: oracle::digest(&payload),
            first_connection: self.connection,
            last_connection: self.connection,
            // The comparison asks for no times.
            sent_us: 0,
            acked_us: None,
            // With QoS 0 nothing is promised, and so nothing can be broken.
            road: if self.publish.qos == 0 {
                Road::Qos0
            } else {
                Road::Qos1
            },
        });
    }

    fn put(&mut self, out: &mut Vec<u8>, id: u16, number: u64, intended_ns: u64, is_again: bool) {
        let due_us = self.publish.epoch_us + intended_ns / 1000;
        let begun = out.len();
        match &self.head {
            Some(head) => {
                out.extend_from_slice(head);
                self.put_rest(out, id, number, due_us);
            }
            None => {
                self.text.clear();
                self.topic.write(&mut self.text, number);
                let mut body = Vec::new();
                packet::push_text(&mut body, &self.text);
                self.put_rest(&mut body, id, number, due_us);
                packet::push_head(out, first_byte(&self.publish), body.len());
                out.extend_from_slice(&body);
            }
        }
        if is_again {
            out[begun] |= packet::DUPLICATE;
        }
    }

    fn put_rest(&self, out: &mut Vec<u8>, id: u16, number: u64, due_us: u64) {
        if self.publish.qos > 0 {
            out.extend(id.to_be_bytes());
        }
        if self.publish.version == Version::V5 {
            out.push(0);
        }
        self.publish
            .content
            .write(out, (self.client, &self.id), number, due_us);
    }

    /// Reads every whole answer and returns the bytes of them; an error ends the connection.
    pub(super) fn take(
        &mut self,
        now_ns: u64,
        read: &[u8],
        out: &mut Vec<u8>,
        recorder: &mut Recorder,
    ) -> Result<usize, String> {
        let mut used = 0;
        loop {
            let rest = &read[used..];
            // Nearly everything that comes is this.
            if let [packet::PUBACK, 2, high, low, ..] = *rest {
                self.end(now_ns, u16::from_be_bytes([high, low]), recorder)?;
                used += 4;
                continue;
            }
            let (head, body, bytes) = match packet::split(rest) {
                Split::Whole(head, body, bytes) => (head, body, bytes),
                Split::Partial(_) => return Ok(used),
                Split::Malformed => return Err("the answer is no MQTT".into()),
            };
            used += bytes;
            self.take_packet(now_ns, (head, body), out, recorder)?;
        }
    }

    fn take_packet(
        &mut self,
        now_ns: u64,
        (head, body): (u8, &[u8]),
        out: &mut Vec<u8>,
        recorder: &mut Recorder,
    ) -> Result<(), String> {
        let version = self.publish.version;
        let code = body.get(2).copied().unwrap_or(0);
        match head {
            packet::PUBACK | packet::PUBREC | packet::PUBCOMP => {
                let id = packet::number(body, 0).ok_or("an answer without a packet id")?;
                if code >= 0x80 {
                    recorder.refused(&format!("message: {}", packet::refusal(version, code)));
                    self.free(id).ok_or("an answer to no message")?;
                } else if head == packet::PUBREC {
                    let slot = self.slots.get_mut(usize::from(id).wrapping_sub(1));
                    let slot = slot.filter(|slot| slot.stage != Stage::Free);
                    let slot = slot.ok_or("an answer to no message")?;
                    slot.stage = Stage::Received;
                    packet::push_answer(out, packet::PUBREL, id);
                } else {
                    self.end(now_ns, id, recorder)?;
                }
                Ok(())
            }
            packet::PINGRESP => Ok(()),
            head if head & 0xF0 == packet::PUBLISH => self.take_answer(head, body, recorder),
            packet::DISCONNECT => {
                let code = body.first().copied().unwrap_or(0);
                Err(format!("disconnected: {}", packet::refusal(version, code)))
            }
            other => Err(format!("a packet of kind {other:#04x} was not expected")),
        }
    }

    /// The answer to a report, whose acknowledgement comes next.
    fn take_answer(&mut self, head: u8, body: &[u8], recorder: &mut Recorder) -> Result<(), String> {
        let message = packet::publish(self.publish.version, head, body).ok_or("a message that is none")?;
        let status = message
            .topic
            .strip_prefix(TWIN_ANSWER)
            .and_then(|rest| rest.get(..3));
        match status.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u16>().ok()) {
            Some(200..=299) => Ok(()),
            Some(status) => {
                self.refused += 1;
                recorder.refused(&format!("report: {status}"));
                Ok(())
            }
            None => Err("a message that nobody asked for".to_owned()),
        }
    }

    fn end(&mut self, now_ns: u64, id: u16, recorder: &mut Recorder) -> Result<(), String> {
        let slot = self.free(id).ok_or("an answer to no message")?;
        if self.refused > 0 {
            self.refused -= 1;
            return Ok(());
        }
        if let Some(message) = self.history.get_mut(slot.number as usize) {
            message.acked_us = Some(now_ns / 1000);
        }
        recorder.acked(now_ns, slot.intended_ns);
        Ok(())
    }

    fn free(&mut self, id: u16) -> Option<Slot> {
        let slot = self.slots.get_mut(usize::from(id).checked_sub(1)?)?;
        if slot.stage == Stage::Free {
            return None;
        }
        let ended = *slot;
        slot.stage = Stage::Free;
        self.free.push(id);
        Some(ended)
    }

    /// Whether nothing is unanswered.
    pub(super) fn is_idle(&self) -> bool {
        self.free.len() == self.slots.len()
    }

    /// Whether it will send nothing more, now or later.
    pub(super) fn is_exhausted(&self) -> bool {
        match &self.publish.pace {
            Pace::Closed(count_max) => self.next >= *count_max,
            Pace::Open(schedule) => schedule.due_ns(self.client, self.next).is_none(),
        }
    }

    /// Counts what has no answer, and what was due and not sent, at the end of everything.
    pub(super) fn give_up(&mut self, now_ns: u64, span: Span, recorder: &mut Recorder) {
        for slot in &self.slots {
            if slot.stage != Stage::Free {
                recorder.unacked(now_ns, slot.intended_ns);
            }
        }
        if let Pace::Open(schedule) = &self.publish.pace {
            let due = |number| Some(schedule.due_ns(self.client, number)? + span.start_ns);
            let late = (self.next..)
                .map_while(due)
                .take_while(|due_ns| *due_ns < span.end_ns);
            for due_ns in late {
                recorder.unsent(now_ns, due_ns);
            }
        }
    }

    /// What it sent and heard.
    pub(super) fn into_history(self) -> (String, Vec<Message>) {
        (self.id, self.history)
    }
}

fn first_byte(publish: &Publish) -> u8 {
    packet::PUBLISH | publish.qos << 1
}

fn head_of(publish: &Publish, topic: &str, payload_bytes: usize) -> Vec<u8> {
    let mut rest = Vec::new();
    packet::push_text(&mut rest, topic);
    let id_bytes = if publish.qos > 0 { 2 } else { 0 };
    let property_bytes = usize::from(publish.version == Version::V5);
    let mut head = Vec::new();
    packet::push_head(
        &mut head,
        first_byte(publish),
        rest.len() + id_bytes + property_bytes + payload_bytes,
    );
    head.extend(rest);
    head
}

#[cfg(test)]
#[path = "publisher_tests.rs"]
mod tests;
