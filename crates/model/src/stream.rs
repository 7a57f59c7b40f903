//! The gateway's end of a submission stream: frames out in order, answers matched, resent until answered.
//!
//! A frame that was sent stays until its outcome is known. After a change of leader, or when the
//! shard reports a gap, everything unanswered goes again, in order and under the same numbers; the
//! shard's side ([`crate::shard::state`]) makes that harmless. Sockets and time-outs are not here.

use std::collections::VecDeque;

use bytes::BytesMut;

use crate::command::{Command, Receipt, Settled, TelemetryAck, WriteReceipt};
use crate::id::{ShardId, StreamId};
use crate::limits::{BATCH_BYTES_TARGET, FRAME_COMMANDS_MAX, STREAM_FRAMES_IN_FLIGHT_MAX};
use crate::mutant::{self, Mutant};
use crate::point::Point;
use crate::port::{Frame, FrameApplied, FrameOutcome, FrameResult};
use crate::trace::TraceContext;

/// Frames that are under way before further records gather into a fuller frame.
const FRAMES_EAGER_MAX: usize = 4;

struct Sent<R, C> {
    frame: Frame,
    records: Vec<R>,
    commands: Vec<C>,
}

/// One stream towards one shard. `R` is the ticket of a record, `C` that of a command.
pub struct StreamSender<R, C> {
    shard: ShardId,
    stream: StreamId,
    next_sequence: u64,
    unanswered: VecDeque<Sent<R, C>>,
    /// How many of `unanswered` have been sent on the present connection.
    sent: usize,
    connected: bool,
    open_records: BytesMut,
    open_record_tickets: Vec<R>,
    open_commands: Vec<Command>,
    open_commands_bytes: usize,
    open_command_tickets: Vec<C>,
    open_trace: Option<TraceContext>,
}

/// What a caller gets to hear.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer<R, C> {
    /// The end of a record.
    Record(R, TelemetryAck),
    /// The end of a command; `None` means unknown.
    Command(C, Option<Settled>),
}

impl<R, C> StreamSender<R, C> {
    /// A stream that has sent nothing.
    pub fn new(shard: ShardId, stream: StreamId) -> Self {
        Self {
            shard,
            stream,
            next_sequence: 1,
            unanswered: VecDeque::new(),
            sent: 0,
            connected: false,
            open_records: BytesMut::new(),
            open_record_tickets: Vec::new(),
            open_commands: Vec::new(),
            open_commands_bytes: 0,
            open_command_tickets: Vec::new(),
            open_trace: None,
        }
    }

    /// The stream's name.
    pub fn stream(&self) -> StreamId {
        self.stream
    }

    /// Takes in an encoded record.
    pub fn handle_record(&mut self, record: &[u8], ticket: R) {
        self.open_records.extend_from_slice(record);
        self.open_record_tickets.push(ticket);
        if self.open_records.len() >= BATCH_BYTES_TARGET {
            self.close_frame();
        }
    }

    /// Takes in an encoded record that is followed. Its frame carries its trace, unless an earlier record
    /// of the frame was followed.
    pub fn handle_followed(&mut self, record: &[u8], ticket: R, trace: TraceContext) {
        self.open_trace.get_or_insert(trace);
        self.handle_record(record, ticket);
    }

    /// Takes in a command.
    pub fn handle_command(&mut self, command: Command, ticket: C) {
        self.open_commands_bytes += command.weight_bytes();
        self.open_commands.push(command);
        self.open_command_tickets.push(ticket);
        if self.open_commands.len() >= FRAME_COMMANDS_MAX || self.open_commands_bytes >= BATCH_BYTES_TARGET {
            self.close_frame();
        }
    }

    /// The shard knows the stream and takes frames from [`resume`](Self::resume) on.
    pub fn handle_connected(&mut self) {
        self.connected = true;
        self.sent = 0;
    }

    /// Nobody takes frames for now.
    pub fn handle_disconnected(&mut self) {
        self.connected = false;
        if self.sent > 0 {
            Point::FramesResent.reach();
            if mutant::is_on(Mutant::DropRetried) {
                self.unanswered.drain(..self.sent);
            }
        }
        self.sent = 0;
    }

    /// Whether anything waits for an answer or to be sent.
    pub fn is_idle(&self) -> bool {
        self.unanswered.is_empty() && self.open_record_tickets.is_empty() && self.open_commands.is_empty()
    }

    /// The lowest sequence number that may still be sent.
    pub fn resume(&self) -> u64 {
        self.unanswered
            .front()
            .map_or(self.next_sequence, |sent| sent.frame.sequence)
    }

    /// The next frame to send, if one may leave. Call until `None`.
    pub fn poll_frame(&mut self) -> Option<Frame> {
        if !self.connected || self.sent as u64 >= STREAM_FRAMES_IN_FLIGHT_MAX {
            return None;
        }
        if self.sent == self.unanswered.len() && self.sent < FRAMES_EAGER_MAX {
            self.close_frame();
        }
        let frame = self.unanswered.get(self.sent)?.frame.clone();
        self.sent += 1;
        Some(frame)
    }

    /// An answer came; what it settles is handed to `answer`, in the order of submission.
    ///
    /// Returns whether the stream is unknown to the shard: then everything unanswered has been
    /// answered with "unknown" and the stream must not be used again.
    pub fn handle_outcome(&mut self, outcome: FrameOutcome, mut answer: impl FnMut(Answer<R, C>)) -> bool {
        match outcome.result {
            FrameResult::Gap { expected } => {
                let first = self.resume();
                if expected >= first {
                    self.sent = self.sent.min((expected - first) as usize);
                }
                false
            }
            FrameResult::StreamUnknown => {
                self.fail_all(answer);
                true
            }
            FrameResult::Applied(applied) => {
                if let Some(sent) = self.take(outcome.sequence) {
                    settle(self.shard, sent, &applied, &mut answer);
                }
                false
            }
            FrameResult::Forgotten => {
                if let Some(sent) = self.take(outcome.sequence) {
                    fail(sent, &mut answer);
                }
                false
            }
        }
    }

    /// Answers everything with "unknown": the gateway gives the stream up.
    pub fn fail_all(&mut self, mut answer: impl FnMut(Answer<R, C>)) {
        Point::StreamGivenUp.reach();
        self.close_frame();
        self.connected = false;
        self.sent = 0;
        for sent in std::mem::take(&mut self.unanswered) {
            fail(sent, &mut answer);
        }
    }

    /// Removes the oldest unanswered frame, which is the only one that can be answered next: the
    /// shard answers a stream in order.
    fn take(&mut self, sequence: u64) -> Option<Sent<R, C>> {
        if self.unanswered.front()?.frame.sequence != sequence {
            return None; // answered before; this is the answer to a repetition
        }
        self.sent = self.sent.saturating_sub(1);
        self.unanswered.pop_front()
    }

    fn close_frame(&mut self) {
        if self.open_record_tickets.is_empty() && self.open_commands.is_empty() {
            return;
        }
        let records = std::mem::take(&mut self.open_record_tickets);
        let frame = Frame {
            stream: self.stream,
            sequence: self.next_sequence,
            records: self.open_records.split().freeze(),
            record_count: records.len() as u32,
            commands: std::mem::take(&mut self.open_commands),
            trace: self.open_trace.take(),
        };
        self.next_sequence += 1;
        self.open_commands_bytes = 0;
        let commands = std::mem::take(&mut self.open_command_tickets);
        self.unanswered.push_back(Sent {
            frame,
            records,
            commands,
        });
    }
}

fn settle<R, C>(
    shard: ShardId,
    sent: Sent<R, C>,
    applied: &FrameApplied,
    answer: &mut impl FnMut(Answer<R, C>),
) {
    assert_eq!(
        sent.records.len() as u32,
        applied.record_count,
        "a frame is answered as it was sent"
    );
    assert_eq!(
        sent.commands.len(),
        applied.outcomes.len(),
        "each command has an outcome"
    );
    let mut fenced = applied.fenced.iter().copied().peekable();
    let mut offset = applied.first_offset;
    for (place, ticket) in sent.records.into_iter().enumerate() {
        let ack = if fenced.next_if_eq(&(place as u32)).is_some() {
            TelemetryAck::Fenced
        } else {
            offset += 1;
            TelemetryAck::Stored(Receipt {
                shard,
                offset: offset - u64::from(!mutant::is_on(Mutant::ReceiptOffByOne)),
                term: applied.term,
            })
        };
        answer(Answer::Record(ticket, ack));
    }
    let receipt = WriteReceipt {
        shard,
        index: applied.index,
        term: applied.term,
    };
    for (ticket, outcome) in sent.commands.into_iter().zip(&applied.outcomes) {
        let outcome = outcome.clone();
        answer(Answer::Command(ticket, Some(Settled { outcome, receipt })));
    }
}

fn fail<R, C>(sent: Sent<R, C>, answer: &mut impl FnMut(Answer<R, C>)) {
    for ticket in sent.records {
        let ack = match mutant::is_on(Mutant::UnknownIsStored) {
            true => TelemetryAck::Stored(Receipt {
                shard: ShardId(0),
                offset: 0,
                term: 0,
            }),
            false => TelemetryAck::Unknown,
        };
        answer(Answer::Record(ticket, ack));
    }
    for ticket in sent.commands {
        answer(Answer::Command(ticket, None));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;

    fn sender() -> StreamSender<u32, u32> {
        StreamSender::new(
            ShardId(3),
            StreamId {
                gateway: NodeId(1),
                incarnation: 2,
            },
        )
    }

    fn applied(
        sender: &StreamSender<u32, u32>,
        sequence: u64,
        first_offset: u64,
        count: u32,
    ) -> FrameOutcome {
        let applied = FrameApplied {
            term: 7,
            first_offset,
            record_count: count,
            ..FrameApplied::default()
        };
        FrameOutcome {
            stream: sender.stream(),
            sequence,
            result: FrameResult::Applied(applied),
        }
    }

    #[test]
    fn records_gather_while_frames_are_under_way() {
        let mut s = sender();
        s.handle_record(b"a", 0);
        assert_eq!(s.poll_frame(), None, "nobody is connected");
        s.handle_connected();
        assert_eq!(s.poll_frame().unwrap().sequence, 1);
        for i in 1..10 {
            s.handle_record(b"b", i);
            if let Some(frame) = s.poll_frame() {
                assert_eq!(frame.record_count, 1);
            }
        }
        let mut answers = Vec::new();
        let outcome = applied(&s, 1, 100, 1);
        assert!(!s.handle_outcome(outcome, |a| answers.push(a)));
        let receipt = Receipt {
            shard: ShardId(3),
            offset: 100,
            term: 7,
        };
        assert_eq!(answers, [Answer::Record(0, TelemetryAck::Stored(receipt))]);
        assert_eq!(
            s.poll_frame().unwrap().record_count,
            6,
            "what gathered leaves as one frame"
        );
    }

    #[test]
    fn a_frame_carries_the_trace_of_its_first_followed_record() {
        let trace = |n: u8| TraceContext {
            trace_id: [n; 16],
            span_id: [n; 8],
            flags: crate::trace::TRACE_SAMPLED,
        };
        let mut s = sender();
        s.handle_record(b"a", 0);
        s.handle_followed(b"b", 1, trace(1));
        s.handle_followed(b"c", 2, trace(2));
        s.handle_connected();
        assert_eq!(s.poll_frame().unwrap().trace, Some(trace(1)));
        s.handle_record(b"d", 3);
        assert_eq!(s.poll_frame().unwrap().trace, None, "the next frame is its own");
        s.handle_disconnected();
        s.handle_connected();
        assert_eq!(
            s.poll_frame().unwrap().trace,
            Some(trace(1)),
            "sent again as it was"
        );
    }

    #[test]
    fn a_new_leader_gets_everything_unanswered_in_order() {
        let mut s = sender();
        s.handle_connected();
        for i in 0..3 {
            s.handle_record(b"x", i);
            assert_eq!(s.poll_frame().unwrap().sequence, u64::from(i) + 1);
        }
        let outcome = applied(&s, 1, 0, 1);
        s.handle_outcome(outcome, |_| ());
        s.handle_disconnected();
        assert_eq!(s.poll_frame(), None);
        assert_eq!(s.resume(), 2);
        s.handle_connected();
        assert_eq!(
            [s.poll_frame().unwrap().sequence, s.poll_frame().unwrap().sequence],
            [2, 3]
        );
        let gap = FrameOutcome {
            stream: s.stream(),
            sequence: 3,
            result: FrameResult::Gap { expected: 2 },
        };
        s.handle_outcome(gap, |_| ());
        assert_eq!(s.poll_frame().unwrap().sequence, 2, "a gap starts it over");
    }

    #[test]
    fn fenced_records_leave_no_hole_in_the_offsets() {
        let mut s = sender();
        for i in 0..3 {
            s.handle_record(b"x", i);
        }
        s.handle_connected();
        s.poll_frame().unwrap();
        let result = FrameResult::Applied(FrameApplied {
            term: 1,
            first_offset: 10,
            record_count: 3,
            fenced: vec![1],
            ..FrameApplied::default()
        });
        let mut acks = Vec::new();
        s.handle_outcome(
            FrameOutcome {
                stream: s.stream(),
                sequence: 1,
                result,
            },
            |a| match a {
                Answer::Record(_, TelemetryAck::Stored(receipt)) => acks.push(Some(receipt.offset)),
                Answer::Record(..) => acks.push(None),
                Answer::Command(..) => unreachable!(),
            },
        );
        assert_eq!(acks, [Some(10), None, Some(11)]);
    }

    #[test]
    fn a_command_is_answered_with_the_entry_that_decided_it() {
        use crate::command::Outcome;
        let mut s = sender();
        let device = crate::id::DeviceId::parse("d").unwrap();
        s.handle_command(Command::SessionClose { device, epoch: 1 }, 5);
        s.handle_connected();
        s.poll_frame().unwrap();
        let applied = FrameApplied {
            term: 7,
            index: 41,
            outcomes: vec![Outcome::Done],
            ..FrameApplied::default()
        };
        let outcome = FrameOutcome {
            stream: s.stream(),
            sequence: 1,
            result: FrameResult::Applied(applied),
        };
        let mut answers = Vec::new();
        s.handle_outcome(outcome, |a| answers.push(a));
        let receipt = WriteReceipt {
            shard: ShardId(3),
            index: 41,
            term: 7,
        };
        let outcome = Outcome::Done;
        assert_eq!(answers, [Answer::Command(5, Some(Settled { outcome, receipt }))]);
    }

    #[test]
    fn an_unknown_stream_leaves_everything_unknown() {
        let mut s = sender();
        s.handle_connected();
        s.handle_record(b"x", 1);
        s.poll_frame().unwrap();
        s.handle_record(b"y", 2);
        let mut answers = Vec::new();
        let unknown = FrameOutcome {
            stream: s.stream(),
            sequence: 1,
            result: FrameResult::StreamUnknown,
        };
        assert!(s.handle_outcome(unknown, |a| answers.push(a)));
        assert_eq!(
            answers,
            [
                Answer::Record(1, TelemetryAck::Unknown),
                Answer::Record(2, TelemetryAck::Unknown)
            ]
        );
        assert!(s.is_idle());
    }
}
