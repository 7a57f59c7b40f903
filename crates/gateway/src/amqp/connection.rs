//! The socket of an AMQP connection: bytes in, bytes out, and the clocks.
//!
//! Decides when a peer has been silent or slow for too long. What the bytes say is [`machine`](super::machine)'s, what
//! links are for is [`links`](super::links)'s.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt as _;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::links::Links;
use super::performative::{Fault, condition};
use crate::byte_stream::{finish, read_more, write_some};
use crate::limits::{
    AMQP_CLOSE_WAIT, AMQP_IDLE_WAIT, AMQP_LOOK_INTERVAL, AMQP_OUT_BYTES_MAX, AMQP_TOKEN_WAIT, CONNECT_WAIT,
    READ_BUFFER_BYTES, WRITE_STALL_WAIT,
};
use crate::shared::Shared;

/// When things last happened.
struct Clocks {
    began: Instant,
    read: Instant,
    wrote: Instant,
    /// Since when the peer has taken nothing of what there is for it.
    stalled: Option<Instant>,
    /// When there was a token that counts.
    known: Instant,
}

/// What the clocks say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Due {
    Nothing,
    /// The peer would give us up.
    Heartbeat,
    /// It says too little, or takes nothing: there is no use in telling it.
    Cut,
    /// It has no token.
    Unknown,
}

/// What the clocks are asked about.
#[derive(Debug, Clone, Copy)]
struct State {
    is_open: bool,
    is_known: bool,
    is_writing: bool,
    peer_idle_ms: Option<u32>,
}

impl Clocks {
    fn new(now: Instant) -> Self {
        Self {
            began: now,
            read: now,
            wrote: now,
            stalled: None,
            known: now,
        }
    }

    fn handle_written(&mut self, now: Instant) {
        self.wrote = now;
        self.stalled = None;
    }

    fn poll(&mut self, now: Instant, state: State) -> Due {
        if state.is_known {
            self.known = now;
        }
        let stalled = match state.is_writing {
            true => now - *self.stalled.get_or_insert(now),
            false => Duration::ZERO,
        };
        if stalled > WRITE_STALL_WAIT || now - self.read > 2 * AMQP_IDLE_WAIT {
            return Due::Cut;
        }
        if !state.is_open {
            return if now - self.began > CONNECT_WAIT {
                Due::Cut
            } else {
                Due::Nothing
            };
        }
        if now - self.known > AMQP_TOKEN_WAIT {
            return Due::Unknown;
        }
        let beat = state.peer_idle_ms.map(|ms| Duration::from_millis(ms.into()) / 2);
        match beat {
            Some(beat) if !state.is_writing && now - self.wrote >= beat => Due::Heartbeat,
            _ => Due::Nothing,
        }
    }
}

/// Serves a connection to its end.
pub(crate) async fn serve<S>(shared: Arc<Shared>, stream: S, peer: SocketAddr)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let (mut reader, mut writer) = tokio::io::split(stream);
    let mut links = Links::new(Arc::clone(&shared), peer);
    let mut buffer = BytesMut::new();
    let mut clocks = Clocks::new(Instant::now());
    let mut look = interval(AMQP_LOOK_INTERVAL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_flushed = true;
    while !links.machine.is_closed() {
        links.pump();
        let waiting = links.machine.out.len();
        tokio::select! {
            read = read_more(&mut reader, &mut buffer, READ_BUFFER_BYTES), if waiting < AMQP_OUT_BYTES_MAX => {
                if !matches!(read, Ok(1..)) {
                    return;
                }
                clocks.read = Instant::now();
                links.handle_bytes(&mut buffer);
            }
            written = write_some(&mut writer, &mut links.machine.out), if waiting > 0 || !is_flushed => {
                let Ok(is_all) = written else {
                    return;
                };
                is_flushed = is_all;
                clocks.handle_written(Instant::now());
            }
            Some(done) = links.work.next(), if !links.work.is_empty() => {
                if let Some(done) = done {
                    links.handle_done(done);
                }
            }
            now = look.tick() => {
                links.look();
                let state = State {
                    is_open: links.machine.is_open(),
                    is_known: links.is_known(),
                    is_writing: waiting > 0 || !is_flushed,
                    peer_idle_ms: links.machine.peer_idle_ms(),
                };
                match clocks.poll(now, state) {
                    Due::Nothing => {}
                    Due::Heartbeat => links.machine.put_heartbeat(),
                    Due::Cut => return,
                    Due::Unknown => {
                        let fault = Fault::new(condition::UNAUTHORIZED, "no token was shown in time");
                        links.machine.close(Some(&fault));
                    }
                }
            }
            () = shared.draining.cancelled() => {
                links.machine.close(Some(&Fault::new(condition::FORCED, "the node goes")));
            }
        }
    }
    let _ = timeout(
        AMQP_CLOSE_WAIT,
        finish(&mut reader, &mut writer, &mut links.machine.out),
    )
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: State = State {
        is_open: true,
        is_known: true,
        is_writing: false,
        peer_idle_ms: None,
    };

    #[test]
    fn whoever_says_nothing_or_takes_nothing_is_cut() {
        let start = Instant::now();
        let due = |state, after| {
            let mut clocks = Clocks::new(start);
            clocks.poll(start, state);
            clocks.poll(start + after, state)
        };
        let unopened = State {
            is_open: false,
            is_known: false,
            ..OPEN
        };
        let unknown = State {
            is_known: false,
            ..OPEN
        };
        let writing = State {
            is_writing: true,
            ..OPEN
        };
        let moment = Duration::from_millis(1);
        for (state, after, wanted) in [
            (unopened, CONNECT_WAIT, Due::Nothing),
            (unopened, CONNECT_WAIT + moment, Due::Cut),
            (unknown, AMQP_TOKEN_WAIT, Due::Nothing),
            (unknown, AMQP_TOKEN_WAIT + moment, Due::Unknown),
            (writing, WRITE_STALL_WAIT + moment, Due::Cut),
            (OPEN, 2 * AMQP_IDLE_WAIT, Due::Nothing),
            (OPEN, 2 * AMQP_IDLE_WAIT + moment, Due::Cut),
        ] {
            assert_eq!(due(state, after), wanted, "{state:?} {after:?}");
        }
        let beating = State {
            peer_idle_ms: Some(1000),
            ..OPEN
        };
        assert_eq!(due(beating, Duration::from_millis(499)), Due::Nothing);
        assert_eq!(due(beating, Duration::from_millis(500)), Due::Heartbeat);
    }
}
