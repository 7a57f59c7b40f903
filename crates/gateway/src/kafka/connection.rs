//! The socket of a Kafka connection: bytes in, bytes out, and the clocks.
//!
//! Decides when a peer has been silent or slow for too long, and looks whether its policy still counts. What the bytes
//! say is [`machine`](super::machine)'s, what is answered is [`serve`](super::serve)'s.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::future::BoxFuture;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;

use super::backend::{Principal, Refused};
use super::call::Fault;
use super::door::Door;
use super::limits::{
    CLOSE_WAIT, IDLE_WAIT, LOOK_INTERVAL, READ_BUFFER_BYTES, REFUSAL_PAUSE, SIGN_IN_WAIT, WRITE_STALL_WAIT,
    WRITE_WAIT,
};
use super::machine::{Machine, Work};
use super::plain::Shown;
use super::serve::{self, Answer};
use crate::byte_stream::{finish, read_more, write_some};

/// What came of a piece of work.
enum Done {
    SignedIn(Result<Principal, Refused>),
    Answered(Result<Answer, Fault>),
}

/// When things last happened.
#[derive(Debug)]
struct Clocks {
    began: Instant,
    /// The last request came, or was answered.
    asked: Instant,
    /// Since when the peer has taken nothing of what there is for it.
    stalled: Option<Instant>,
    /// Since when an answer is being written.
    writing: Option<Instant>,
}

/// What the clocks are asked about.
#[derive(Debug, Clone, Copy)]
struct State {
    is_known: bool,
    is_busy: bool,
    is_writing: bool,
}

impl Clocks {
    fn new(now: Instant) -> Self {
        Self {
            began: now,
            asked: now,
            stalled: None,
            writing: None,
        }
    }

    fn handle_written(&mut self, is_all: bool) {
        self.stalled = None;
        if is_all {
            self.writing = None;
        }
    }

    /// Whether the connection is to end.
    fn is_over(&mut self, now: Instant, state: State) -> bool {
        let since = |clock: &mut Option<Instant>| match state.is_writing {
            true => now - *clock.get_or_insert(now),
            false => Duration::ZERO,
        };
        let (stalled, writing) = (since(&mut self.stalled), since(&mut self.writing));
        if state.is_busy {
            self.asked = now;
        }
        let is_stranger = !state.is_known && now - self.began > SIGN_IN_WAIT;
        let is_slow = stalled > WRITE_STALL_WAIT || writing > WRITE_WAIT;
        is_slow || is_stranger || now - self.asked > IDLE_WAIT
    }
}

/// Serves a connection to its end.
pub async fn serve<S>(door: Arc<Door>, stream: S, peer: SocketAddr)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut machine = Machine::new();
    match converse(&door, &mut reader, &mut writer, &mut machine, peer).await {
        Err(fault) => tracing::info!(%peer, %fault, "kafka connection refused"),
        Ok(()) if machine.is_closed() => {
            let _ = timeout(CLOSE_WAIT, finish(&mut reader, &mut writer, &mut machine.out)).await;
        }
        Ok(()) => {}
    }
}

/// Until the peer goes, or is to go.
async fn converse<R, W>(
    door: &Arc<Door>,
    reader: &mut R,
    writer: &mut W,
    machine: &mut Machine,
    peer: SocketAddr,
) -> Result<(), Fault>
where
    R: AsyncRead + Unpin,
    W: AsyncWrite + Unpin,
{
    let mut buffer = BytesMut::new();
    let mut work: Option<BoxFuture<'static, Done>> = None;
    let mut hurry = CancellationToken::new();
    let mut clocks = Clocks::new(Instant::now());
    let mut look = interval(LOOK_INTERVAL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_flushed = true;
    while !machine.is_closed() {
        // Room comes up with each piece of work, for what was read before.
        if machine.handle_bytes(&mut buffer)? {
            clocks.asked = Instant::now();
        }
        if let Some(next) = machine.poll_work()? {
            hurry = CancellationToken::new();
            work = Some(begin(Arc::clone(door), next, peer, hurry.clone()));
        }
        if machine.has_waiting() {
            hurry.cancel();
        }
        let is_writing = !machine.out.is_empty() || !is_flushed;
        tokio::select! {
            read = read_more(reader, &mut buffer, READ_BUFFER_BYTES), if machine.has_room() => {
                if !matches!(read, Ok(1..)) {
                    return Ok(());
                }
            }
            written = write_some(writer, &mut machine.out), if is_writing => {
                let Ok(is_all) = written else {
                    return Ok(());
                };
                is_flushed = is_all;
                clocks.handle_written(is_all);
            }
            done = async { work.as_mut().expect("it is looked at only if there is some").await }, if work.is_some() => {
                work = None;
                match done {
                    Done::SignedIn(result) => {
                        if let Err(refused) = result {
                            tracing::info!(%peer, %refused, "kafka client refused");
                        }
                        machine.handle_signed_in(result)?;
                    }
                    Done::Answered(answer) => {
                        let (frame, held) = answer?;
                        machine.handle_answer(frame, held);
                    }
                }
            }
            now = look.tick() => {
                let state = State {
                    is_known: machine.principal().is_some(),
                    is_busy: machine.is_busy(),
                    is_writing,
                };
                let is_revoked = machine.principal().is_some_and(|known| !door.backend.is_still_good(known));
                if is_revoked || clocks.is_over(now, state) {
                    return Ok(());
                }
            }
            () = door.draining.cancelled() => return Ok(()),
        }
    }
    Ok(())
}

fn begin(
    door: Arc<Door>,
    work: Work,
    peer: SocketAddr,
    hurry: CancellationToken,
) -> BoxFuture<'static, Done> {
    match work {
        Work::SignIn(Shown { user, password }) => {
            Box::pin(async move {
                let result = door.backend.authorize(&user, &password, peer).await;
                if result.is_err() {
                    // Clients dial again as soon as they are told, some twenty times a second.
                    sleep(REFUSAL_PAUSE).await;
                }
                Done::SignedIn(result)
            })
        }
        Work::Call(call) => {
            Box::pin(async move { Done::Answered(serve::serve(&door, call, peer, &hurry).await) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_says_nothing_or_takes_nothing_is_cut() {
        let start = Instant::now();
        let known = State {
            is_known: true,
            is_busy: false,
            is_writing: false,
        };
        let stranger = State {
            is_known: false,
            is_busy: true,
            ..known
        };
        let (busy, writing) = (
            State {
                is_busy: true,
                ..known
            },
            State {
                is_writing: true,
                ..known
            },
        );
        let moment = Duration::from_millis(1);
        for (state, after, is_over) in [
            (stranger, SIGN_IN_WAIT, false),
            (stranger, SIGN_IN_WAIT + moment, true),
            (writing, WRITE_STALL_WAIT, false),
            (writing, WRITE_STALL_WAIT + moment, true),
            (known, IDLE_WAIT, false),
            (known, IDLE_WAIT + moment, true),
            (busy, IDLE_WAIT + moment, false),
        ] {
            let mut clocks = Clocks::new(start);
            clocks.is_over(start, state);
            assert_eq!(
                clocks.is_over(start + after, state),
                is_over,
                "{state:?} {after:?}"
            );
        }
        let mut clocks = Clocks::new(start);
        let steps = (WRITE_WAIT.as_secs() / WRITE_STALL_WAIT.as_secs()) as u32;
        for step in 0..=steps {
            assert!(
                !clocks.is_over(start + step * WRITE_STALL_WAIT, writing),
                "a little is taken each time"
            );
            clocks.handle_written(false);
        }
        assert!(
            clocks.is_over(start + WRITE_WAIT + moment, writing),
            "it takes too long in all"
        );
    }
}
