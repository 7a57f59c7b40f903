//! The doors of this node's shards, as gateways knock at them.
//!
//! A frame is checked, gets a credit and goes to the shard actor, all in the caller's thread and
//! without waiting. Reads run in the caller's task beside the actor. Whoever is not answered hears
//! why: not the leader, or a bound with its name.

use std::sync::Arc;
use std::time::Duration;

use dunlin_model::command::{Consistency, Query, ReadFrom, View};
use dunlin_model::id::{ShardId, StreamId};
use dunlin_model::limits::READ_BYTES_MAX;
use dunlin_model::mutant::{self, Mutant};
use dunlin_model::port::{
    BoxFuture, EventPage, Frame, FrameSink, ProposeError, ReadError, ServeError, ShardServer, StreamOpening,
    TraceSpan,
};
use dunlin_model::trace::TraceContext;
use tokio::runtime::RuntimeFlavor;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout, timeout_at};

use crate::admission::check_frame;
use crate::config::{EVENTS_WAIT_MS_MAX, OPEN_WAIT_MS, READ_BARRIER_WAIT_MS};
use crate::host::ActorHost;
use crate::room::{Leader, ShardRoom};
use crate::seats::{Owed, SeatError};
use crate::sessions;
use crate::shard::actor::{OpenWaiter, ShardMessage};
use crate::stats::count;

impl ShardServer for ActorHost {
    fn open_stream(
        &self,
        shard: ShardId,
        opening: StreamOpening,
        sink: Arc<dyn FrameSink>,
    ) -> BoxFuture<'_, Result<(), ServeError>> {
        Box::pin(async move {
            let room = self.room(shard).ok_or(ServeError::NotLeader { hint: None })?;
            let opened = open(&room, opening, sink);
            let late = |_| ServeError::Refused("the stream was not opened in time".into());
            timeout(Duration::from_millis(OPEN_WAIT_MS), opened)
                .await
                .map_err(late)?
        })
    }

    fn submit(&self, shard: ShardId, frame: Frame) -> Result<(), ServeError> {
        let room = self.room(shard).ok_or(ServeError::NotLeader { hint: None })?;
        let leader = room.leader().map_err(|hint| ServeError::NotLeader { hint })?;
        let taken = take_frame(&room, &leader, frame);
        if let Err(ServeError::Refused(_)) = &taken {
            count(&room.counters.frames_refused);
        }
        taken
    }

    fn keep_alive(&self, shard: ShardId, stream: StreamId) {
        if let Some(room) = self.room(shard)
            && let Ok(leader) = room.leader()
        {
            leader
                .tenure
                .seats
                .handle_alive(stream, room.clock.monotonic_ms());
        }
    }

    fn query(
        &self,
        shard: ShardId,
        query: Query,
        consistency: Consistency,
    ) -> BoxFuture<'_, Result<View, ReadError>> {
        Box::pin(async move {
            let room = self.room(shard).ok_or(ReadError::NotLeader { hint: None })?;
            let leader = room.leader().map_err(|hint| ReadError::NotLeader { hint })?;
            if consistency == Consistency::Linearizable {
                pass_barrier(&room).await?;
            }
            let mut view = self.read(&room, query).await?;
            if let View::Shard(view) = &mut view {
                view.term = leader.tenure.term();
            }
            Ok(view)
        })
    }

    fn read_events(
        &self,
        shard: ShardId,
        from: ReadFrom,
        bytes_max: usize,
        wait_ms: u64,
    ) -> BoxFuture<'_, Result<EventPage, ReadError>> {
        Box::pin(async move {
            let room = self.room(shard).ok_or(ReadError::NotLeader { hint: None })?;
            let leader = room.leader().map_err(|hint| ReadError::NotLeader { hint })?;
            // Whoever was replaced without knowing does not know either what was erased since.
            pass_barrier(&room).await?;
            self.read_or_wait(&room, &leader, from, bytes_max.min(READ_BYTES_MAX), wait_ms)
                .await
        })
    }
}

fn take_frame(room: &ShardRoom, leader: &Leader, mut frame: Frame) -> Result<(), ServeError> {
    check_frame(&frame).map_err(|reason| ServeError::Refused(reason.into()))?;
    let credit = room.credits.try_take(frame.weight_bytes());
    let credit = credit.ok_or_else(|| ServeError::Refused("too many bytes wait for this shard".into()))?;
    let span = frame.trace.and_then(|parent| follow(room, &mut frame, parent));
    let send = |frame| leader.actor.send_message(ShardMessage::Frame(frame)).is_ok();
    leader
        .tenure
        .seats
        .admit(
            frame,
            Owed {
                _credit: credit,
                span,
            },
            room.clock.monotonic_ms(),
            send,
        )
        .map_err(refusal)?;
    count(&room.counters.frames);
    Ok(())
}

/// Gives a followed frame a span of its own, from here to its answer, and puts what happens to it from
/// here on below that.
fn follow(room: &ShardRoom, frame: &mut Frame, parent: TraceContext) -> Option<Box<dyn TraceSpan>> {
    let span = room.config.tracer.as_ref()?.child("shard.frame", parent);
    span.note("shard", &room.shard.0);
    span.note("frame", &frame.sequence);
    span.note("records", &frame.record_count);
    frame.trace = Some(span.context());
    Some(span)
}

fn refusal(error: SeatError) -> ServeError {
    match error {
        SeatError::NotOpen | SeatError::Overtaken => ServeError::NotLeader { hint: None },
        SeatError::Full(reason) => ServeError::Refused(reason.into()),
    }
}

/// Seats the gateway, makes its stream known if that is asked for, and starts to compare its sessions.
async fn open(
    room: &Arc<ShardRoom>,
    opening: StreamOpening,
    sink: Arc<dyn FrameSink>,
) -> Result<(), ServeError> {
    let StreamOpening {
        stream,
        attempt,
        resume,
        sessions,
    } = opening;
    let leader = room.leader_soon().await;
    let Leader { tenure, actor } = leader.map_err(|hint| ServeError::NotLeader { hint })?;
    // The semaphore is never closed, so a turn always comes.
    let lost = || ServeError::NotLeader { hint: None };
    let turn = tenure.opens.clone().acquire_owned().await.map_err(|_| lost())?;
    tenure
        .seats
        .register((stream, attempt), sink, room.clock.monotonic_ms())
        .map_err(refusal)?;
    let (known, told) = oneshot::channel();
    let waiter = OpenWaiter { known, _turn: turn };
    let message = ShardMessage::Open {
        stream,
        introduce: resume == 0,
        waiter,
    };
    actor.send_message(message).map_err(|_| lost())?;
    told.await.map_err(|_| ServeError::NotLeader {
        hint: room.leader().err().flatten(),
    })?;
    if !sessions.is_empty() {
        let turn = tenure
            .session_checks
            .clone()
            .acquire_owned()
            .await
            .map_err(|_| lost())?;
        let room = room.clone();
        room.runtime.clone().spawn(async move {
            sessions::compare(room, tenure, stream, sessions).await;
            drop(turn);
        });
    }
    Ok(())
}

/// Waits for the proof that this replica still leads and has applied what was committed before.
async fn pass_barrier(room: &ShardRoom) -> Result<(), ReadError> {
    if mutant::is_on(Mutant::SkipReadBarrier) {
        return Ok(());
    }
    let barrier = room.replication.read_barrier();
    match timeout(Duration::from_millis(READ_BARRIER_WAIT_MS), barrier).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(ProposeError::NotLeader { hint })) => Err(ReadError::NotLeader { hint }),
        Ok(Err(_)) | Err(_) => Err(ReadError::NotLeader { hint: None }),
    }
}

impl ActorHost {
    async fn read(&self, room: &Arc<ShardRoom>, query: Query) -> Result<View, ReadError> {
        if !matches!(
            query,
            Query::Devices { .. } | Query::Fleet { .. } | Query::Jobs { .. }
        ) {
            return room.replication.read(&query);
        }
        // A listing may read much; it waits for a turn and then has a thread of its own.
        let broken = |_| ReadError::Store("the listing was interrupted".into());
        let turn = self
            .listings
            .acquire()
            .await
            .map_err(|error| ReadError::Store(error.to_string()))?;
        let replication = room.replication.clone();
        // On a runtime of one thread, as in a simulation, there is nobody else to do it.
        let view = if room.runtime.runtime_flavor() == RuntimeFlavor::CurrentThread {
            replication.read(&query)
        } else {
            let read = room.runtime.spawn_blocking(move || replication.read(&query));
            read.await.map_err(broken)?
        };
        drop(turn);
        view
    }

    async fn read_or_wait(
        &self,
        room: &ShardRoom,
        leader: &Leader,
        mut from: ReadFrom,
        bytes_max: usize,
        wait_ms: u64,
    ) -> Result<EventPage, ReadError> {
        let deadline = Instant::now() + Duration::from_millis(wait_ms.min(EVENTS_WAIT_MS_MAX));
        // Before the first look, so that nothing that is applied after it goes unnoticed.
        let mut progress = leader.tenure.progress.subscribe();
        let _turn = self.event_readers.try_acquire().ok();
        let may_wait = _turn.is_some() && wait_ms > 0;
        loop {
            let ended = progress.borrow_and_update().ended;
            let page = room.replication.read_events(from, bytes_max)?;
            if ended {
                return Err(ReadError::NotLeader {
                    hint: room.leader().err().flatten(),
                });
            }
            if !page.runs.is_empty() || !may_wait {
                return Ok(page);
            }
            if from == ReadFrom::End {
                from = ReadFrom::Offset(page.from); // the end as it was when we came
            }
            if timeout_at(deadline, progress.changed()).await.is_err() {
                return Ok(page);
            }
        }
    }
}
