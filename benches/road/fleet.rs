//! The load: many MQTT connections on one thread, each with a full window of QoS 1 messages.
//!
//! It shares its machine with what it measures, so a message costs it a copy and a clock reading per
//! burst, and no codec. It speaks MQTT 3.1.1, the same bytes to every peer. A connection that is lost,
//! or an answer that is no PUBACK, ends the run: a figure over half a fleet is none.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dunlin_chaos::fleet::histogram;
use dunlin_chaos::verdict::LatencyUs;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::{JoinSet, LocalSet};
use tokio_rustls::TlsConnector;

use crate::support::Failure;
use crate::support::cluster::Device;
use crate::support::kernel::{self, Disks, Machine};

/// Messages that a connection has unacknowledged. Packet ids are 1 to this.
pub(crate) const WINDOW: usize = 32;
/// Bytes of a payload.
pub(crate) const PAYLOAD_BYTES: usize = 256;
/// Different payloads that are sent in turn; together more than a compressor looks back.
const PAYLOADS: usize = 4096;
/// Connections that are made at a time.
const CONNECTS_AT_A_TIME: usize = 32;
/// Time for outstanding acknowledgements after the load has stopped.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(20);

/// One connection to be.
#[derive(Debug, Clone)]
pub(crate) struct Sender {
    pub(crate) address: SocketAddr,
    pub(crate) device: Device,
}

/// What to do.
pub(crate) struct Load {
    pub(crate) senders: Vec<Sender>,
    pub(crate) tls: Option<Arc<rustls::ClientConfig>>,
    pub(crate) warm_up: Duration,
    pub(crate) measured: Duration,
    /// Whose processor time is counted.
    pub(crate) servers: Vec<u32>,
}

/// What came of it.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    pub(crate) per_s: f64,
    /// Processor time per message: of all servers, and of the load itself.
    pub(crate) server_us: f64,
    pub(crate) client_us: f64,
    pub(crate) latency_us: LatencyUs,
    pub(crate) flushes_per_s: f64,
    pub(crate) written_mb_per_s: f64,
    /// Share of the machine that was idle, and that was used by others.
    pub(crate) idle: f64,
    pub(crate) others: f64,
}

/// What all connections of a run share.
struct Shared {
    payloads: Vec<u8>,
    acked: Cell<u64>,
    stopping: Cell<bool>,
    latency_us: RefCell<Histogram>,
}

type Histogram = hdrhistogram::Histogram<u64>;

/// Runs the load on a thread of its own.
pub(crate) fn run(load: Load) -> Result<Measured, Failure> {
    let thread = std::thread::Builder::new().name("fleet".into());
    let running = thread.spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        LocalSet::new().block_on(&runtime, drive(load))
    })?;
    running.join().map_err(|_| "the fleet panicked")?
}

async fn drive(load: Load) -> Result<Measured, Failure> {
    let shared = Rc::new(Shared {
        payloads: payloads(),
        acked: Cell::new(0),
        stopping: Cell::new(false),
        latency_us: RefCell::new(histogram()),
    });
    let mut connections = JoinSet::new();
    let mut streams = Vec::new();
    for some in load.senders.chunks(CONNECTS_AT_A_TIME) {
        let connects = some.iter().map(|sender| connect(sender, load.tls.clone()));
        streams.extend(futures_util::future::try_join_all(connects).await?);
    }
    for (index, (stream, sender)) in streams.into_iter().zip(&load.senders).enumerate() {
        let connection = Connection::new(index, sender, shared.clone());
        connections.spawn_local(connection.run(stream));
    }
    let measuring = measure(&load, &shared);
    tokio::pin!(measuring);
    let measured = tokio::select! {
        measured = &mut measuring => measured?,
        Some(ended) = connections.join_next() => {
            ended??;
            return Err("a connection ended early".into());
        }
    };
    shared.stopping.set(true);
    let draining = async {
        while let Some(ended) = connections.join_next().await {
            ended??;
        }
        Ok::<(), Failure>(())
    };
    tokio::time::timeout(DRAIN_TIMEOUT, draining)
        .await
        .map_err(|_| "messages were not acknowledged in time")??;
    Ok(measured)
}

/// Readings at one moment.
struct Reading {
    at: Instant,
    acked: u64,
    server_s: f64,
    client_s: f64,
    disks: Disks,
    machine: Machine,
}

fn read(load: &Load, shared: &Shared) -> Result<Reading, Failure> {
    let server_s = load
        .servers
        .iter()
        .map(|pid| kernel::cpu_s(*pid))
        .sum::<Result<f64, _>>()?;
    Ok(Reading {
        at: Instant::now(),
        acked: shared.acked.get(),
        server_s,
        client_s: kernel::cpu_s(std::process::id())?,
        disks: Disks::read(),
        machine: Machine::read(),
    })
}

async fn measure(load: &Load, shared: &Shared) -> Result<Measured, Failure> {
    tokio::time::sleep(load.warm_up).await;
    shared.latency_us.borrow_mut().reset();
    let before = read(load, shared)?;
    tokio::time::sleep(load.measured).await;
    let after = read(load, shared)?;
    let seconds = (after.at - before.at).as_secs_f64();
    let acked = (after.acked - before.acked) as f64;
    let (server_s, client_s) = (after.server_s - before.server_s, after.client_s - before.client_s);
    let cores_s = seconds * std::thread::available_parallelism()?.get() as f64;
    let idle = (after.machine.idle_s - before.machine.idle_s) / cores_s;
    let disks = after.disks.since(before.disks);
    Ok(Measured {
        per_s: acked / seconds,
        server_us: server_s / acked * 1e6,
        client_us: client_s / acked * 1e6,
        latency_us: (&*shared.latency_us.borrow()).into(),
        flushes_per_s: disks.flushes as f64 / seconds,
        written_mb_per_s: disks.written_bytes as f64 / seconds / 1e6,
        idle,
        others: (1.0 - idle - (server_s + client_s) / cores_s).max(0.0),
    })
}

/// JSON of made-up readings: as compressible as telemetry is, and no two alike.
fn payloads() -> Vec<u8> {
    let mut random = StdRng::seed_from_u64(1);
    let mut all = Vec::with_capacity(PAYLOADS * PAYLOAD_BYTES);
    for number in 0..PAYLOADS {
        let mut text = format!("{{\"seq\":{number:06}");
        for place in 0.. {
            let field = format!(",\"channel{place:02}\":{:.4}", random.random_range(10.0..99.0));
            if text.len() + field.len() + 1 > PAYLOAD_BYTES {
                break;
            }
            text.push_str(&field);
        }
        text.push('}');
        all.extend_from_slice(text.as_bytes());
        all.resize((number + 1) * PAYLOAD_BYTES, b' ');
    }
    all
}

/// What a peer is reached through.
pub(crate) trait Io: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Io for T {}

/// Dials, sends CONNECT and waits for the CONNACK.
pub(crate) async fn connect(
    sender: &Sender,
    tls: Option<Arc<rustls::ClientConfig>>,
) -> Result<Box<dyn Io>, Failure> {
    let stream = TcpStream::connect(sender.address).await?;
    stream.set_nodelay(true)?;
    let mut stream: Box<dyn Io> = match tls {
        None => Box::new(stream),
        Some(config) => {
            let name = ServerName::try_from("localhost")?;
            Box::new(TlsConnector::from(config).connect(name, stream).await?)
        }
    };
    stream.write_all(&connect_packet(&sender.device, true)).await?;
    stream.flush().await?;
    let mut answer = [0; 4];
    stream.read_exact(&mut answer).await?;
    match answer {
        [0x20, 2, _, 0] => Ok(stream),
        other => Err(format!("{}: CONNECT was answered with {other:02x?}", sender.device.id).into()),
    }
}

/// CONNECT of MQTT 3.1.1 with user name and password, keep-alive off.
pub(crate) fn connect_packet(device: &Device, clean: bool) -> Vec<u8> {
    let mut body = b"\0\x04MQTT\x04".to_vec();
    body.push(if clean { 0xC2 } else { 0xC0 });
    body.extend([0, 0]);
    for text in [&device.id, &device.username, &device.token] {
        body.extend((text.len() as u16).to_be_bytes());
        body.extend(text.as_bytes());
    }
    packet(0x10, &body)
}

/// A packet with its fixed header.
pub(crate) fn packet(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut out = vec![kind];
    let mut left = body.len();
    loop {
        let low = (left & 0x7F) as u8;
        left >>= 7;
        out.push(if left > 0 { low | 0x80 } else { low });
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(body);
    out
}

/// One connection.
struct Connection {
    shared: Rc<Shared>,
    /// A whole PUBLISH; packet id and payload are put in anew for each message.
    template: Vec<u8>,
    /// Where in `template` the packet id stands; the payload follows it.
    id_at: usize,
    next_payload: usize,
    sent_at: [Instant; WINDOW],
    in_flight: usize,
    out: Vec<u8>,
}

impl Connection {
    fn new(index: usize, sender: &Sender, shared: Rc<Shared>) -> Self {
        let topic = format!("devices/{}/messages/events/", sender.device.id);
        let mut body = (topic.len() as u16).to_be_bytes().to_vec();
        body.extend(topic.as_bytes());
        body.resize(body.len() + 2 + PAYLOAD_BYTES, 0);
        let template = packet(0x32, &body);
        Self {
            id_at: template.len() - PAYLOAD_BYTES - 2,
            out: Vec::with_capacity(template.len() * WINDOW),
            template,
            next_payload: index * 17 % PAYLOADS,
            sent_at: [Instant::now(); WINDOW],
            in_flight: 0,
            shared,
        }
    }

    async fn run(mut self, mut stream: Box<dyn Io>) -> Result<(), Failure> {
        let now = Instant::now();
        for id in 1..=WINDOW as u16 {
            self.put(id, now);
        }
        let mut read = Vec::with_capacity(16 * 1024);
        while self.in_flight > 0 {
            if !self.out.is_empty() {
                stream.write_all(&self.out).await?;
                stream.flush().await?;
                self.out.clear();
            }
            if stream.read_buf(&mut read).await? == 0 {
                return Err("a connection was closed".into());
            }
            self.take(&mut read)?;
        }
        stream.write_all(&[0xE0, 0]).await?;
        stream.shutdown().await?;
        Ok(())
    }

    /// Handles every whole PUBACK, and publishes anew for each.
    fn take(&mut self, read: &mut Vec<u8>) -> Result<(), Failure> {
        let now = Instant::now();
        let whole = read.len() / 4 * 4;
        let shared = self.shared.clone();
        let mut latency_us = shared.latency_us.borrow_mut();
        for ack in read[..whole].chunks_exact(4) {
            let id = u16::from_be_bytes([ack[2], ack[3]]);
            if ack[..2] != [0x40, 2] || !(1..=WINDOW as u16).contains(&id) {
                return Err(format!("{ack:02x?} is no PUBACK").into());
            }
            let micros = (now - self.sent_at[usize::from(id) - 1]).as_micros() as u64;
            latency_us.saturating_record(micros);
            self.in_flight -= 1;
            if !shared.stopping.get() {
                self.put(id, now);
            }
        }
        shared.acked.set(shared.acked.get() + (whole / 4) as u64);
        read.drain(..whole);
        Ok(())
    }

    fn put(&mut self, id: u16, now: Instant) {
        let at = self.next_payload * PAYLOAD_BYTES;
        self.next_payload = (self.next_payload + 1) % PAYLOADS;
        self.out.extend_from_slice(&self.template[..self.id_at]);
        self.out.extend(id.to_be_bytes());
        self.out
            .extend_from_slice(&self.shared.payloads[at..at + PAYLOAD_BYTES]);
        self.sent_at[usize::from(id) - 1] = now;
        self.in_flight += 1;
    }
}
