//! The gateways that a leadership answers: where their answers go, what they wait for, whether they live.
//!
//! One table behind one short lock, held once per frame and once per applied entry. Sinks are other
//! people's code and may come straight back with the next frame, so they are never called under the
//! lock. Nothing here decides what is proposed; that is [`crate::shard::actor`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dunlin_model::id::StreamId;
use dunlin_model::limits::STREAMS_PER_SHARD_MAX;
use dunlin_model::port::{Frame, FrameOutcome, FrameResult, FrameSink, TraceSpan};

use crate::config::STREAM_FRAMES_WAITING_MAX;
use crate::credit::Credit;
use crate::lease::{Lapsed, Leases};

/// Streams that a leadership watches: those that the shard may know, and as many that have gone or
/// were opened and are not known yet.
const WATCHED_MAX: usize = 2 * STREAMS_PER_SHARD_MAX;

/// Why a seat was not given or a frame not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SeatError {
    /// The leadership is over or about to end, or the stream was never opened under it. Whoever
    /// sends has to find the leader again and open the stream there.
    NotOpen,
    /// A later attempt of the same stream has its seat already; nobody waits for this one.
    Overtaken,
    /// A bound is reached.
    Full(&'static str),
}

/// A gateway that has opened its stream.
struct Seat {
    /// The attempt that brought the sink.
    attempt: u64,
    sink: Arc<dyn FrameSink>,
    /// Sequence numbers of frames that were taken and not answered.
    owed: VecDeque<(u64, Owed)>,
}

/// What ends with the answer to a frame.
pub(crate) struct Owed {
    /// What the frame holds of the budget.
    pub(crate) _credit: Credit,
    /// Of a followed frame.
    pub(crate) span: Option<Box<dyn TraceSpan>>,
}

struct Inner {
    seats: BTreeMap<StreamId, Seat>,
    leases: Leases,
    open: bool,
}

/// The gateways of one leadership of one shard.
pub(crate) struct Seats {
    inner: Mutex<Inner>,
}

impl Seats {
    /// All `streams` that the shard knows start with a full lease, whether they show up or not.
    pub(crate) fn new(streams: &[StreamId], lease_ms: u64, now_ms: u64) -> Self {
        let mut leases = Leases::new(lease_ms);
        for stream in streams {
            leases.handle_known(*stream, now_ms);
        }
        Self {
            inner: Mutex::new(Inner {
                seats: BTreeMap::new(),
                leases,
                open: true,
            }),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // No code of this lock can leave the table half changed.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives `stream` a seat, or its present seat a new sink: what is owed goes to the new one.
    /// A sink of an earlier attempt than the present one belongs to nobody any more: given the seat, it
    /// would swallow every answer, and the gateway would have no reason to look elsewhere.
    pub(crate) fn register(
        &self,
        (stream, attempt): (StreamId, u64),
        sink: Arc<dyn FrameSink>,
        now_ms: u64,
    ) -> Result<(), SeatError> {
        let mut inner = self.lock();
        if !inner.open {
            return Err(SeatError::NotOpen);
        }
        if !inner.leases.contains(stream) && inner.leases.len() >= WATCHED_MAX {
            return Err(SeatError::Full("too many gateways are connected to this shard"));
        }
        if let Some(seat) = inner.seats.get(&stream)
            && attempt < seat.attempt
        {
            return Err(SeatError::Overtaken);
        }
        inner.leases.handle_opened(stream, now_ms);
        match inner.seats.get_mut(&stream) {
            Some(seat) => {
                seat.attempt = attempt;
                seat.sink = sink;
            }
            None => {
                inner.seats.insert(
                    stream,
                    Seat {
                        attempt,
                        sink,
                        owed: VecDeque::new(),
                    },
                );
            }
        }
        Ok(())
    }

    /// Takes a frame over: notes what it is owed and hands it to `send`, as one step. So a frame that
    /// was taken either gets its answer or is among those whose sinks hear that the leadership is lost.
    pub(crate) fn admit(
        &self,
        frame: Frame,
        owed: Owed,
        now_ms: u64,
        send: impl FnOnce(Frame) -> bool,
    ) -> Result<(), SeatError> {
        let (stream, sequence) = (frame.stream, frame.sequence);
        let mut inner = self.lock();
        let inner = &mut *inner;
        if !inner.open {
            return Err(SeatError::NotOpen);
        }
        let seat = inner.seats.get_mut(&stream).ok_or(SeatError::NotOpen)?;
        if seat.owed.len() >= STREAM_FRAMES_WAITING_MAX {
            return Err(SeatError::Full("the stream has too many unanswered frames"));
        }
        if !send(frame) {
            return Err(SeatError::NotOpen);
        }
        seat.owed.push_back((sequence, owed));
        inner.leases.handle_alive(stream, now_ms);
        Ok(())
    }

    /// A sign of life.
    pub(crate) fn handle_alive(&self, stream: StreamId, now_ms: u64) {
        self.lock().leases.handle_alive(stream, now_ms);
    }

    /// Frames have come to their ends: returns their credits, and each outcome with the place where
    /// it goes. Outcomes of streams that have no seat have nobody to go to.
    pub(crate) fn settle(&self, outcomes: Vec<FrameOutcome>) -> Vec<(Arc<dyn FrameSink>, FrameOutcome)> {
        let mut inner = self.lock();
        let mut addressed = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            let Some(seat) = inner.seats.get_mut(&outcome.stream) else {
                continue;
            };
            // Nearly always the first: a stream is answered in order. Not so when it was sent again.
            if let Some(place) = seat
                .owed
                .iter()
                .position(|(sequence, _)| *sequence == outcome.sequence)
            {
                let owed = seat.owed.remove(place);
                if let Some((_, Owed { span: Some(span), .. })) = owed {
                    note_result(&*span, &outcome.result);
                }
            }
            addressed.push((seat.sink.clone(), outcome));
        }
        addressed
    }

    /// Where things for `stream` go, if its gateway is here.
    pub(crate) fn sink(&self, stream: StreamId) -> Option<Arc<dyn FrameSink>> {
        self.lock().seats.get(&stream).map(|seat| seat.sink.clone())
    }

    /// Where things for every gateway that is here go.
    pub(crate) fn sinks(&self) -> Vec<Arc<dyn FrameSink>> {
        let inner = self.lock();
        inner.seats.values().map(|seat| seat.sink.clone()).collect()
    }

    /// The log knows `stream`.
    pub(crate) fn handle_known(&self, stream: StreamId, now_ms: u64) {
        self.lock().leases.handle_known(stream, now_ms);
    }

    /// The log has closed `stream`.
    pub(crate) fn handle_closed(&self, stream: StreamId, now_ms: u64) {
        self.lock().leases.handle_closed(stream, now_ms);
    }

    /// Streams whose gateways have to be given up. Seats of streams that are closed for long are cleared.
    pub(crate) fn poll_lapsed(&self, now_ms: u64) -> Vec<StreamId> {
        let mut inner = self.lock();
        let mut given_up = Vec::new();
        for lapsed in inner.leases.poll_lapsed(now_ms) {
            match lapsed {
                Lapsed::GiveUp(stream) => given_up.push(stream),
                Lapsed::Forget(stream) => match inner.seats.get(&stream) {
                    // It still waits for answers; they are on their way, and then its time comes.
                    Some(seat) if !seat.owed.is_empty() => {
                        inner.leases.handle_opened(stream, now_ms);
                        inner.leases.handle_closed(stream, now_ms);
                    }
                    _ => {
                        inner.seats.remove(&stream);
                    }
                },
            }
        }
        given_up
    }

    /// When the next lease runs out.
    pub(crate) fn next_lapse_ms(&self) -> Option<u64> {
        self.lock().leases.next_ms()
    }

    /// The streams that are watched.
    pub(crate) fn streams(&self) -> Vec<StreamId> {
        self.lock().leases.streams()
    }

    /// Takes nothing more; answers go on.
    pub(crate) fn refuse_new(&self) {
        self.lock().open = false;
    }

    /// The end: every seat is cleared, all credits come back. Returns who has to hear of it; nobody
    /// the second time.
    pub(crate) fn close(&self) -> Vec<Arc<dyn FrameSink>> {
        let mut inner = self.lock();
        inner.open = false;
        let seats = std::mem::take(&mut inner.seats);
        let owed = seats.values().flat_map(|seat| &seat.owed);
        for span in owed.filter_map(|(_, owed)| owed.span.as_ref()) {
            span.note("result", &"leadership lost");
        }
        seats.into_values().map(|seat| seat.sink).collect()
    }
}

fn note_result(span: &dyn TraceSpan, result: &FrameResult) {
    match result {
        FrameResult::Applied(applied) => {
            span.note("result", &"applied");
            span.note("term", &applied.term);
            span.note("first_offset", &applied.first_offset);
        }
        FrameResult::Gap { .. } => span.note("result", &"gap"),
        FrameResult::StreamUnknown => span.note("result", &"stream unknown"),
        FrameResult::Forgotten => span.note("result", &"forgotten"),
    }
}
