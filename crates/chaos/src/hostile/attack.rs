//! The attackers: tasks that do one kind of harm over and over while they are let loose.
//!
//! They know no truth about the hub; what came of it is counted here and judged in [`super`]. Every wait has
//! an end, so that a hub that neither answers nor closes does not keep an attacker for ever.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dunlin_gateway::client::{Client, ConnectOptions, Event, Transport};
use dunlin_gateway::mqtt::Version;
use rustls::pki_types::ServerName;
use serde::Serialize;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream, lookup_host};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::packets::Mill;
use super::{KINDS, Kind};

/// Time for one step of an attacker: a connect, a write, a look for an answer.
const STEP_TIMEOUT: Duration = Duration::from_secs(5);
/// Malformed packets in one write before CONNECT, of which the hub reads one or none.
const BURST_FIRST: u64 = 4;
/// Packets in one write of a connected device.
const BURST: u64 = 32;
/// Pause between two bytes of a slow CONNECT.
const DRIBBLE_PAUSE: Duration = Duration::from_millis(500);
/// Messages that a slow reader publishes between two pauses: fewer than the hub allows to be unacknowledged.
const UNREAD_PUBLISHES: u64 = 8;
/// Bytes that a slow reader's kernel keeps for it, as far as that can be told to.
const UNREAD_BYTES: u32 = 4 * 1024;
/// Pause of an attacker that was not let in.
const TRY_AGAIN_PAUSE: Duration = Duration::from_millis(100);

/// What attackers did and what they saw of it.
#[derive(Debug, Default)]
pub struct Counters {
    packets: AtomicU64,
    bytes: AtomicU64,
    connections: AtomicU64,
    by_kind: [AtomicU64; KINDS.len()],
    held: AtomicU64,
    held_max: AtomicU64,
    refused: AtomicU64,
    closed: AtomicU64,
    answered: AtomicU64,
}

/// The figures of [`Counters`] at one moment.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counted {
    /// Packets that the hub has had to read. Of a malformed burst that is the first bad one: it closes there.
    pub packets: u64,
    /// Bytes written.
    pub bytes: u64,
    /// Connections made.
    pub connections: u64,
    /// Connections that were open at one time, at the most.
    pub held_max: u64,
    /// Attempts that did not get as far as a connection.
    pub refused: u64,
    /// Connections that the hub closed.
    pub closed: u64,
    /// Acknowledgements that came all the same.
    pub answered: u64,
}

impl Counters {
    /// The figures as of now.
    pub fn counted(&self) -> Counted {
        Counted {
            packets: self.packets.load(Relaxed),
            bytes: self.bytes.load(Relaxed),
            connections: self.connections.load(Relaxed),
            held_max: self.held_max.load(Relaxed),
            refused: self.refused.load(Relaxed),
            closed: self.closed.load(Relaxed),
            answered: self.answered.load(Relaxed),
        }
    }

    /// Packets written so far.
    pub fn packets(&self) -> u64 {
        self.packets.load(Relaxed)
    }

    /// Connections that are open.
    pub fn held(&self) -> u64 {
        self.held.load(Relaxed)
    }

    fn wrote(&self, packets: u64, bytes: usize) {
        self.packets.fetch_add(packets, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// Connections made by attackers of `kind`.
    pub fn connections_of(&self, kind: Kind) -> u64 {
        self.by_kind[kind as usize].load(Relaxed)
    }

    fn hold(self: &Arc<Self>, kind: Kind) -> Held {
        self.connections.fetch_add(1, Relaxed);
        self.by_kind[kind as usize].fetch_add(1, Relaxed);
        let held = self.held.fetch_add(1, Relaxed) + 1;
        self.held_max.fetch_max(held, Relaxed);
        Held(Arc::clone(self))
    }
}

/// A connection that is open, for the count.
struct Held(Arc<Counters>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Relaxed);
    }
}

/// A device that an attacker speaks as.
#[derive(Debug, Clone)]
pub struct Insider {
    /// Its id.
    pub device: String,
    /// Its token.
    pub token: String,
}

/// What an attacker is told.
#[derive(Clone)]
pub struct Order {
    /// What to do.
    pub kind: Kind,
    /// Where.
    pub target: Transport,
    /// The hub's name in user names.
    pub host: String,
    /// As whom, where that needs a device.
    pub insider: Insider,
    /// Draws what it sends.
    pub seed: u64,
    /// Where it counts.
    pub counters: Arc<Counters>,
    /// Packets of all attackers together; none sends beyond it.
    pub packets_max: u64,
    /// How fast all of them together may send; as fast as they can without it.
    pub pace: Option<Arc<Pace>>,
}

/// How far attackers may be behind their rate before the rest is given up.
const PACE_BEHIND_MAX: Duration = Duration::from_millis(20);

/// A rate that attackers keep together, packet by packet: none has a time that another has.
#[derive(Debug)]
pub struct Pace {
    between: Duration,
    /// When the next packet is due.
    next: Mutex<Instant>,
}

impl Pace {
    /// So many packets a second; begins now.
    pub fn new(packets_per_s: u64) -> Self {
        Self {
            between: Duration::from_secs(1).div_f64(packets_per_s.max(1) as f64),
            next: Mutex::new(Instant::now()),
        }
    }

    /// They are let loose now: what was not sent before is not made up for.
    pub fn begin(&self) {
        *self.next() = Instant::now();
    }

    fn next(&self) -> MutexGuard<'_, Instant> {
        self.next.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until another packet may be sent.
    async fn wait(&self) {
        let due = {
            let mut next = self.next();
            // Who falls behind catches up a little, and not in a burst.
            let due = (*next).max(Instant::now() - PACE_BEHIND_MAX);
            *next = due + self.between;
            due
        };
        tokio::time::sleep_until(due).await;
    }
}

/// Does harm whenever `loose` says so, until its sender is gone.
pub async fn attack(order: Order, mut loose: watch::Receiver<bool>) {
    let mut mill = Mill::new(order.seed, &order.insider.device);
    let mut round = 0;
    while until(&mut loose, true).await {
        round += 1;
        mill.set_v5(round % 2 == 0);
        let paced = async {
            if let Some(pace) = &order.pace {
                pace.wait().await;
            }
            once(&order, &mut mill).await
        };
        let done = tokio::select! {
            done = paced => done,
            _ = until(&mut loose, false) => continue,
        };
        if done.is_err() {
            order.counters.refused.fetch_add(1, Relaxed);
            tokio::time::sleep(TRY_AGAIN_PAUSE).await;
        }
        if order.counters.packets() >= order.packets_max {
            // Enough: what is left of the phase is spent in peace.
            until(&mut loose, false).await;
        }
    }
}

/// Waits until attackers are let loose, or held back; `false` when the run is over.
async fn until(loose: &mut watch::Receiver<bool>, wanted: bool) -> bool {
    loose.wait_for(|is_loose| *is_loose == wanted).await.is_ok()
}

/// One round of harm. An error says that there was no connection to do it on.
async fn once(order: &Order, mill: &mut Mill) -> io::Result<()> {
    match order.kind {
        // A device that comes too often is slowed down, so most of them come as strangers.
        Kind::Malformed if mill.below(16) > 0 => strangers_burst(order, mill).await,
        Kind::Malformed => insiders_burst(order, mill, Mill::any).await,
        Kind::Bombs => insiders_burst(order, mill, Mill::bomb).await,
        Kind::HugeLength if mill.below(2) == 0 => strangers_claim(order, mill).await,
        Kind::HugeLength => insiders_burst(order, mill, Mill::huge).await,
        Kind::HalfOpen => sit(order, &[]).await,
        // The beginning of a record that holds a ClientHello.
        Kind::HalfTls => sit(order, &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xFC, 3, 3]).await,
        Kind::SlowConnect => dribble(order, mill).await,
        Kind::SlowReader => read_nothing(order, mill).await,
        Kind::Reconnect | Kind::TakeOver => come_and_go(order).await,
    }
}

trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

async fn tcp(order: &Order, receive_bytes: Option<u32>) -> io::Result<TcpStream> {
    let (Transport::Tcp { address } | Transport::Tls { address, .. } | Transport::WebSocket { address, .. }) =
        &order.target;
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for address in lookup_host(address.as_str()).await? {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        if let Some(bytes) = receive_bytes {
            socket.set_recv_buffer_size(bytes)?;
        }
        match timeout(STEP_TIMEOUT, socket.connect(address)).await? {
            Ok(stream) => return Ok(stream),
            Err(error) => last = error,
        }
    }
    Err(last)
}

/// A connection that MQTT can be written to, as a stranger.
async fn dial(order: &Order) -> io::Result<Box<dyn Wire>> {
    dial_with(order, None).await
}

async fn dial_with(order: &Order, receive_bytes: Option<u32>) -> io::Result<Box<dyn Wire>> {
    let stream = tcp(order, receive_bytes).await?;
    match &order.target {
        Transport::Tcp { .. } => Ok(Box::new(stream)),
        Transport::Tls {
            server_name, config, ..
        }
        | Transport::WebSocket {
            server_name, config, ..
        } => {
            let name = ServerName::try_from(server_name.clone()).map_err(io::Error::other)?;
            let connecting = TlsConnector::from(Arc::clone(config)).connect(name, stream);
            Ok(Box::new(timeout(STEP_TIMEOUT, connecting).await??))
        }
    }
}

/// A connected device.
async fn enter(order: &Order, is_v5: bool) -> io::Result<Client> {
    let options = ConnectOptions {
        version: if is_v5 { Version::V5 } else { Version::V3 },
        window: usize::MAX / 2,
        clean: true,
        ..ConnectOptions::new(
            order.target.clone(),
            &order.host,
            &order.insider.device,
            order.insider.token.clone(),
        )
    };
    let connected = timeout(2 * STEP_TIMEOUT, Client::connect(&options)).await?;
    connected.map_err(io::Error::other)
}

/// Reads until the hub closes, for a moment; says whether it closed.
async fn closes(stream: &mut (impl AsyncRead + Unpin)) -> bool {
    let mut answer = [0; 512];
    let closing = async {
        loop {
            match stream.read(&mut answer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        }
    };
    timeout(STEP_TIMEOUT, closing).await.is_ok()
}

/// Malformed packets on a connection that nobody has said CONNECT on.
async fn strangers_burst(order: &Order, mill: &mut Mill) -> io::Result<()> {
    let mut burst = Vec::new();
    for place in 0..BURST_FIRST {
        burst.extend(if place == 0 { mill.first() } else { mill.any() });
    }
    let mut stream = dial(order).await?;
    let _held = order.counters.hold(order.kind);
    order.counters.wrote(1, burst.len());
    let written = timeout(STEP_TIMEOUT, stream.write_all(&burst)).await;
    // Some are resets, some are ends, some are silent.
    let was_closed = match mill.below(4) {
        0 => return Ok(()),
        1 => {
            let _ = stream.shutdown().await;
            closes(&mut stream).await
        }
        _ if !matches!(written, Ok(Ok(()))) => true,
        // A packet that is not whole is waited for; the hub need not close at once.
        _ => timeout(DRIBBLE_PAUSE, closes(&mut stream)).await.unwrap_or(false),
    };
    if was_closed {
        order.counters.closed.fetch_add(1, Relaxed);
    }
    Ok(())
}

/// Packets of `make` on the connection of a device, with valid ones between them.
async fn insiders_burst(order: &Order, mill: &mut Mill, make: fn(&mut Mill) -> Vec<u8>) -> io::Result<()> {
    let is_v5 = mill.below(2) == 0;
    mill.set_v5(is_v5);
    let mut client = enter(order, is_v5).await?;
    let _held = order.counters.hold(order.kind);
    let mut burst = Vec::new();
    for place in 0..BURST {
        burst.extend(if place % 8 == 7 {
            make(mill)
        } else {
            mill.publish()
        });
    }
    order.counters.wrote(1, burst.len());
    let _ = timeout(STEP_TIMEOUT, client.send_raw(&burst)).await;
    let _ = timeout(STEP_TIMEOUT, client.flush()).await;
    let listening = async {
        loop {
            match client.next_event().await {
                Event::Puback { .. } => {
                    order.counters.answered.fetch_add(1, Relaxed);
                }
                Event::Disconnected { .. } => return,
                _ => {}
            }
        }
    };
    if timeout(DRIBBLE_PAUSE, listening).await.is_ok() {
        order.counters.closed.fetch_add(1, Relaxed);
    }
    Ok(())
}

/// The head of a packet that never comes.
async fn strangers_claim(order: &Order, mill: &mut Mill) -> io::Result<()> {
    let mut stream = dial(order).await?;
    let _held = order.counters.hold(order.kind);
    let head = mill.huge();
    order.counters.wrote(1, head.len());
    let _ = timeout(STEP_TIMEOUT, stream.write_all(&head)).await;
    if closes(&mut stream).await {
        order.counters.closed.fetch_add(1, Relaxed);
    }
    Ok(())
}

/// Holds a bare TCP connection on which `greeting` was sent, until the hub closes it.
async fn sit(order: &Order, greeting: &[u8]) -> io::Result<()> {
    let mut stream = tcp(order, None).await?;
    let _held = order.counters.hold(order.kind);
    let _ = timeout(STEP_TIMEOUT, stream.write_all(greeting)).await;
    order.counters.wrote(0, greeting.len());
    while !closes(&mut stream).await {}
    order.counters.closed.fetch_add(1, Relaxed);
    Ok(())
}

/// A CONNECT, byte by byte.
async fn dribble(order: &Order, mill: &mut Mill) -> io::Result<()> {
    let mut stream = dial(order).await?;
    let _held = order.counters.hold(order.kind);
    // The beginning of a valid one that is longer than anybody has patience for.
    let connect = [
        &[0x10, 0xFF, 0x3F, 0, 4],
        &b"MQTT\x04\xC2\x00\x3C"[..],
        &mill.publish(),
    ]
    .concat();
    for byte in connect.chunks(1) {
        order.counters.wrote(0, 1);
        let mut answer = [0; 64];
        let is_closed = match timeout(STEP_TIMEOUT, stream.write_all(byte)).await {
            Ok(Ok(())) => match timeout(DRIBBLE_PAUSE, stream.read(&mut answer)).await {
                Err(_) => continue,
                Ok(read) => matches!(read, Ok(0) | Err(_)),
            },
            Ok(Err(_)) => true,
            Err(_) => false,
        };
        if is_closed {
            order.counters.closed.fetch_add(1, Relaxed);
        }
        return Ok(());
    }
    order.counters.wrote(1, 0);
    Ok(())
}

/// A device that publishes and reads no acknowledgement, until the hub has had enough. It has little room for
/// what it does not read, so that the hub is soon the one that keeps it.
async fn read_nothing(order: &Order, mill: &mut Mill) -> io::Result<()> {
    let mut stream = dial_with(order, Some(UNREAD_BYTES)).await?;
    let _held = order.counters.hold(order.kind);
    let connect = mill.connect(&order.host, &order.insider.token);
    timeout(STEP_TIMEOUT, stream.write_all(&connect)).await??;
    let mut answer = [0; 64];
    timeout(2 * STEP_TIMEOUT, stream.read(&mut answer)).await??;
    loop {
        let mut burst = Vec::new();
        for _ in 0..UNREAD_PUBLISHES {
            burst.extend(mill.publish());
        }
        order.counters.wrote(UNREAD_PUBLISHES, burst.len());
        // Where the hub stops reading, this waits with it, until it is thrown out.
        if stream.write_all(&burst).await.is_err() {
            break;
        }
        tokio::time::sleep(DRIBBLE_PAUSE).await;
    }
    order.counters.closed.fetch_add(1, Relaxed);
    Ok(())
}

/// A device that connects, sends one message, and is gone without a word.
async fn come_and_go(order: &Order) -> io::Result<()> {
    let mut client = enter(order, false).await?;
    let _held = order.counters.hold(order.kind);
    let topic = format!("devices/{}/messages/events/", order.insider.device);
    order.counters.wrote(1, topic.len());
    if timeout(STEP_TIMEOUT, client.publish(&topic, b"here"))
        .await
        .is_ok()
    {
        // Acknowledged, or thrown out by whoever came after.
        match timeout(STEP_TIMEOUT, client.next_event()).await {
            Ok(Event::Puback { .. }) => order.counters.answered.fetch_add(1, Relaxed),
            Ok(Event::Disconnected { .. }) => order.counters.closed.fetch_add(1, Relaxed),
            _ => 0,
        };
    }
    Ok(())
}
