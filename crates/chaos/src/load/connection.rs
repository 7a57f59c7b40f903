//! The shell around a client's machine: connects, carries bytes, comes back when the connection is lost.
//!
//! One task per client. It decides when to try again and nothing else; what goes out and what an answer
//! means is the machine's. All tasks of a thread share one clock, one recorder and one stage.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use dunlin_gateway::client::Io;
use tokio::io::{AsyncRead as _, AsyncWrite as _, ReadBuf};
use tokio::sync::{Notify, Semaphore};
use tokio::time::Instant;

use super::dial::{self, Door, Opened};
use super::packet::{self, Hello};
use super::plan::{Client, Plan};
use super::publisher::{Publisher, Span};
use super::recorder::Recorder;
use super::subscriber::Subscriber;
use crate::oracle::Connection;

/// Pause before the second attempt to connect; it doubles.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Bytes that a read buffer begins with, and that it grows to for a packet that needs it.
const READ_BYTES_MIN: usize = 4 * 1024;
const READ_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Time for the goodbye of a connection.
const GOODBYE_WAIT: Duration = Duration::from_secs(2);

/// What a client does once it is connected.
pub(super) enum Machine {
    Publish(Publisher),
    Subscribe(Subscriber),
    /// It is connected and that is all.
    Idle,
}

/// Where the run stands, for all clients of a thread.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Stage {
    /// When messages are sent, once that is known.
    pub(super) span: Option<Span>,
    /// The load is over: what was due is still sent, and what has no answer waits for one.
    pub(super) is_draining: bool,
    /// What was not sent by now is not sent at all.
    pub(super) is_closed: bool,
    /// Listeners end, too.
    pub(super) is_over: bool,
}

/// What the clients of a thread share.
pub(super) struct Common {
    pub(super) plan: Arc<Plan>,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) epoch: Instant,
    pub(super) stage: Cell<Stage>,
    pub(super) recorder: Arc<Mutex<Recorder>>,
    pub(super) connects: Semaphore,
    /// Clients that are connected, or failed to once.
    pub(super) settled: Arc<AtomicUsize>,
}

impl Common {
    pub(super) fn now_ns(&self) -> u64 {
        u64::try_from(self.epoch.elapsed().as_nanos()).unwrap_or(u64::MAX)
    }

    pub(super) fn recorder(&self) -> MutexGuard<'_, Recorder> {
        self.recorder.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One client: its machine outlives the task, so that nothing is forgotten when the task is ended.
pub(super) struct Seat {
    pub(super) client: Client,
    pub(super) machine: RefCell<Machine>,
    pub(super) wake: Notify,
    pub(super) is_listener: bool,
    pub(super) connections: RefCell<Vec<Connection>>,
    has_settled: Cell<bool>,
}

impl Seat {
    pub(super) fn new(client: Client, machine: Machine, is_listener: bool) -> Self {
        Self {
            client,
            machine: RefCell::new(machine),
            wake: Notify::new(),
            is_listener,
            connections: RefCell::default(),
            has_settled: Cell::new(false),
        }
    }

    fn settle(&self, common: &Common) {
        if !self.has_settled.replace(true) {
            common.settled.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn is_over(&self, stage: Stage) -> bool {
        stage.is_over || (stage.is_draining && !self.is_listener)
    }
}

/// How a connection ended.
enum End {
    /// Nothing is left to do.
    Done,
    Lost(String),
}

/// Runs a client until nothing is left for it to do. `place` counts the clients of this generator.
pub(super) async fn run(seat: Rc<Seat>, common: Rc<Common>, place: u64) {
    let interval = common.plan.connect_interval;
    let intended = common.epoch + interval.saturating_mul(u32::try_from(place).unwrap_or(u32::MAX));
    tokio::time::sleep_until(intended).await;
    let mut intended = (!interval.is_zero()).then_some(intended);
    let mut backoff = BACKOFF_MIN;
    loop {
        match connect(&seat, &common, intended.take()).await {
            Ok(opened) => {
                backoff = BACKOFF_MIN;
                match talk(&seat, &common, opened).await {
                    End::Done => return,
                    End::Lost(why) => lose(&seat, &common, &why),
                }
            }
            Err(why) => common.recorder().connect_failed(&why),
        }
        seat.settle(&common);
        if seat.is_over(common.stage.get()) && is_idle(&seat) {
            return;
        }
        // Not all at once, or a server that comes back is thrown over by those who waited for it.
        tokio::time::sleep(backoff.mul_f64(rand::random_range(0.5..1.0))).await;
        backoff = (backoff * 2).min(BACKOFF_MAX);
    }
}

fn is_idle(seat: &Seat) -> bool {
    match &*seat.machine.borrow() {
        Machine::Publish(publisher) => publisher.is_idle(),
        Machine::Subscribe(_) | Machine::Idle => true,
    }
}

fn lose(seat: &Seat, common: &Common, why: &str) {
    common.recorder().lost(why);
    if let Some(connection) = seat.connections.borrow_mut().last_mut() {
        connection.lost_us = Some(common.now_ns() / 1000);
    }
    if let Machine::Publish(publisher) = &mut *seat.machine.borrow_mut() {
        publisher.lose();
    }
}

async fn connect(seat: &Seat, common: &Common, intended: Option<Instant>) -> Result<Opened, String> {
    // The semaphore is never closed.
    let _permit = common.connects.acquire().await;
    let begun = intended.unwrap_or_else(Instant::now);
    let (plan, client) = (&common.plan, &seat.client);
    let hello = Hello {
        version: plan.version,
        client_id: &client.id,
        username: client.username.as_deref(),
        password: client.password.as_deref(),
        clean: plan.clean,
        keep_alive_s: plan.keep_alive_s,
    };
    let place = client.door % common.addresses.len();
    let door: &Door = &plan.doors[place];
    let opened = dial::open(common.addresses[place], door, &plan.wrapping, &hello).await?;
    let latency_us = u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX);
    common.recorder().connected(latency_us);
    if plan.keeps_history {
        seat.connections
            .borrow_mut()
            .push(Connection::opened(place, common.now_ns() / 1000));
    }
    Ok(opened)
}

/// Carries bytes between the machine and its connection.
async fn talk(seat: &Seat, common: &Common, opened: Opened) -> End {
    let mut wire = Wire::new(opened.stream, opened.rest, common.plan.keep_alive_s);
    match &mut *seat.machine.borrow_mut() {
        Machine::Publish(publisher) => {
            publisher.begin(&opened.connack, &mut wire.out, &mut common.recorder());
        }
        Machine::Subscribe(subscriber) => subscriber.begin(&mut wire.out),
        Machine::Idle => {}
    }
    loop {
        if let Err(why) = take(seat, common, &mut wire) {
            return End::Lost(why);
        }
        let stage = common.stage.get();
        let is_over = seat.is_over(stage);
        let span = stage.span.filter(|_| !stage.is_closed);
        let (mut has_more, mut is_exhausted, mut is_ready) = (false, false, true);
        match &mut *seat.machine.borrow_mut() {
            Machine::Publish(publisher) => {
                has_more = publisher.fill(common.now_ns(), span, &mut wire.out, &mut common.recorder());
                is_exhausted = publisher.is_exhausted();
            }
            Machine::Subscribe(subscriber) => is_ready = subscriber.is_subscribed(),
            Machine::Idle => {}
        }
        if is_ready {
            seat.settle(common);
        }
        if wire.out.is_empty() && (is_over || is_exhausted) && is_idle(seat) {
            wire.goodbye().await;
            return End::Done;
        }
        let woken = seat.wake.notified();
        match wire.exchange(woken, has_more).await {
            Ok(()) => {}
            Err(why) => return End::Lost(why),
        }
    }
}

fn take(seat: &Seat, common: &Common, wire: &mut Wire) -> Result<(), String> {
    if wire.filled == 0 {
        return Ok(());
    }
    let (now_ns, read) = (common.now_ns(), &wire.read[..wire.filled]);
    let used = match &mut *seat.machine.borrow_mut() {
        Machine::Publish(publisher) => publisher.take(now_ns, read, &mut wire.out, &mut common.recorder())?,
        Machine::Subscribe(subscriber) => {
            subscriber.take(now_ns, read, &mut wire.out, &mut common.recorder())?
        }
        // Whatever comes, a pong most likely, is none of its business.
        Machine::Idle => read.len(),
    };
    wire.read.copy_within(used..wire.filled, 0);
    wire.filled -= used;
    Ok(())
}

/// A connection with what is to be written and what was read.
struct Wire {
    stream: Box<dyn Io>,
    out: Vec<u8>,
    needs_flush: bool,
    read: Vec<u8>,
    filled: usize,
    ping: Option<Pin<Box<tokio::time::Interval>>>,
}

impl Wire {
    fn new(stream: Box<dyn Io>, rest: Vec<u8>, keep_alive_s: u16) -> Self {
        let filled = rest.len();
        let mut read = rest;
        read.resize(READ_BYTES_MIN.max(filled), 0);
        let ping = (keep_alive_s > 0).then(|| {
            let every = Duration::from_secs(u64::from(keep_alive_s)).div_f64(2.0);
            Box::pin(tokio::time::interval_at(Instant::now() + every, every))
        });
        Self {
            stream,
            out: Vec::new(),
            needs_flush: false,
            read,
            filled,
            ping,
        }
    }

    /// Writes what there is, and returns when something was read, when woken, or, if the machine has
    /// more to send, when all is written.
    async fn exchange(&mut self, woken: impl Future<Output = ()>, has_more: bool) -> Result<(), String> {
        if self.filled == self.read.len() {
            if self.filled >= READ_BYTES_MAX {
                return Err("a packet is too long".into());
            }
            self.read.resize(self.filled * 2, 0);
        }
        let mut woken = pin!(woken);
        poll_fn(|cx| {
            let is_written = self.poll_write(cx)?.is_ready();
            if self.poll_read(cx)?.is_ready()
                || (is_written && has_more)
                || woken.as_mut().poll(cx).is_ready()
            {
                return Poll::Ready(Ok(()));
            }
            if let Some(ping) = &mut self.ping
                && ping.poll_tick(cx).is_ready()
            {
                self.out.extend([packet::PINGREQ, 0]);
                return Poll::Ready(Ok(()));
            }
            Poll::Pending
        })
        .await
    }

    fn poll_write(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, String> {
        let failed = |error: std::io::Error| format!("lost: {}", dial::kind(&error));
        let mut written = 0;
        while written < self.out.len() {
            match Pin::new(&mut self.stream).poll_write(cx, &self.out[written..]) {
                Poll::Ready(Ok(0)) => return Err("lost: closed".into()),
                Poll::Ready(Ok(count)) => written += count,
                Poll::Ready(Err(error)) => return Err(failed(error)),
                Poll::Pending => break,
            }
        }
        self.needs_flush |= written > 0;
        self.out.drain(..written);
        if self.needs_flush {
            match Pin::new(&mut self.stream).poll_flush(cx) {
                Poll::Ready(result) => {
                    result.map_err(failed)?;
                    self.needs_flush = false;
                }
                Poll::Pending => return Ok(Poll::Pending),
            }
        }
        Ok(if self.out.is_empty() {
            Poll::Ready(())
        } else {
            Poll::Pending
        })
    }

    fn poll_read(&mut self, cx: &mut Context<'_>) -> Result<Poll<()>, String> {
        let mut buffer = ReadBuf::new(&mut self.read[self.filled..]);
        match Pin::new(&mut self.stream).poll_read(cx, &mut buffer) {
            Poll::Pending => Ok(Poll::Pending),
            Poll::Ready(Err(error)) => Err(format!("lost: {}", dial::kind(&error))),
            Poll::Ready(Ok(())) => match buffer.filled().len() {
                0 => Err("lost: closed".into()),
                count => {
                    self.filled += count;
                    Ok(Poll::Ready(()))
                }
            },
        }
    }

    async fn goodbye(mut self) {
        use tokio::io::AsyncWriteExt as _;
        let leaving = async {
            self.stream.write_all(&[packet::DISCONNECT, 0]).await?;
            self.stream.flush().await?;
            self.stream.shutdown().await
        };
        // A server that is gone already needs no goodbye.
        let _ = tokio::time::timeout(GOODBYE_WAIT, leaving).await;
    }
}
