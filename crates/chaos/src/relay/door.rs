//! The TCP connections of devices and services through the relay, spliced to the node behind them.
//!
//! One task per connection; bytes are moved in chunks, each late by the door's delay, with a bounded
//! number of chunks on the way, after which the sender is made to wait as by any slow path. What a
//! door may be told is in [`DoorFaults`]. It never looks into the bytes.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::time::Instant;

use super::faults::{DoorCounters, DoorFaults};
use super::{RelayError, node_host, relay_host};

/// Connections of one door; whoever comes on top is reset.
const CONNECTIONS_MAX: usize = 16 * 1024;
/// Bytes that are moved at a time.
const CHUNK_BYTES: usize = 8 * 1024;
/// Chunks of one direction that are on their way.
const CHUNKS_MAX: usize = 32;
/// How long a connection that was ended by a FIN may stay open.
const HALF_CLOSED_MAX: Duration = Duration::from_secs(120);
/// Pause after the system has refused to give a connection, for want of descriptors most likely.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// The doors of one node: one listener for each port.
pub(super) struct Door {
    place: usize,
    listeners: std::sync::Mutex<Vec<(TcpListener, SocketAddr)>>,
    orders: watch::Sender<Orders>,
    room: Arc<Semaphore>,
    counts: Counts,
}

/// What all connections look at. Each compares the numbers with those of its beginning.
#[derive(Debug, Clone, Copy, Default)]
struct Orders {
    faults: DoorFaults,
    resets: u64,
    finishes: u64,
}

#[derive(Default)]
struct Counts {
    accepted: AtomicU64,
    refused: AtomicU64,
    open: AtomicU64,
    passed_bytes: AtomicU64,
    swallowed_bytes: AtomicU64,
    resets: AtomicU64,
    half_closed: AtomicU64,
}

/// How a connection ends before its ends do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// Both ends have closed it.
    Closed,
    /// One of them broke it, so the other is told the same.
    Broken,
    /// The relay resets it.
    Reset,
    /// The relay sends a FIN both ways.
    Finish,
}

impl Door {
    /// Binds all ports of the node in `place`. Within a runtime.
    pub(super) fn bind(place: usize, ports: &[u16]) -> Result<Door, RelayError> {
        let mut listeners = Vec::new();
        for port in ports {
            let address = SocketAddr::new(relay_host(place).into(), *port);
            let listener = listen(address).map_err(RelayError::io(format!("bind {address} (TCP)")))?;
            listeners.push((listener, SocketAddr::new(node_host(place).into(), *port)));
        }
        Ok(Door {
            place,
            listeners: listeners.into(),
            orders: watch::Sender::new(Orders::default()),
            room: Arc::new(Semaphore::new(CONNECTIONS_MAX)),
            counts: Counts::default(),
        })
    }

    /// Starts to accept. Within a runtime.
    pub(super) fn spawn(self: &Arc<Self>) {
        let mut listeners = self
            .listeners
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        for (listener, target) in listeners.drain(..) {
            tokio::spawn(accept(self.clone(), listener, target));
        }
    }

    pub(super) fn set(&self, faults: DoorFaults) {
        self.orders.send_modify(|orders| orders.faults = faults);
    }

    pub(super) fn reset(&self) {
        self.orders.send_modify(|orders| orders.resets += 1);
    }

    pub(super) fn finish(&self) {
        self.orders.send_modify(|orders| orders.finishes += 1);
    }

    pub(super) fn counters(&self) -> DoorCounters {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        DoorCounters {
            accepted: read(&self.counts.accepted),
            refused: read(&self.counts.refused),
            open: read(&self.counts.open),
            passed_bytes: read(&self.counts.passed_bytes),
            swallowed_bytes: read(&self.counts.swallowed_bytes),
            resets: read(&self.counts.resets),
            half_closed: read(&self.counts.half_closed),
        }
    }
}

fn add(count: &AtomicU64, more: u64) {
    count.fetch_add(more, Ordering::Relaxed);
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    TcpListener::from_std(listener)
}

async fn accept(door: Arc<Door>, listener: TcpListener, target: SocketAddr) {
    loop {
        let client = match listener.accept().await {
            Ok((client, _)) => client,
            Err(error) => {
                tracing::debug!(%error, place = door.place, "a door of the relay cannot accept");
                tokio::time::sleep(ACCEPT_AGAIN).await;
                continue;
            }
        };
        let Ok(permit) = door.room.clone().try_acquire_owned() else {
            add(&door.counts.refused, 1);
            reset(&client);
            continue;
        };
        let door = door.clone();
        tokio::spawn(async move {
            serve(&door, client, target).await;
            drop(permit);
        });
    }
}

async fn serve(door: &Door, mut client: TcpStream, target: SocketAddr) {
    let orders = door.orders.subscribe();
    let Ok(mut node) = TcpStream::connect(target).await else {
        add(&door.counts.refused, 1);
        return reset(&client);
    };
    add(&door.counts.accepted, 1);
    add(&door.counts.open, 1);
    // Nagle would add delays that nobody asked for.
    let _ = client.set_nodelay(true);
    let _ = node.set_nodelay(true);
    let end = splice(door, &mut client, &mut node, orders).await;
    if end == End::Finish {
        add(&door.counts.half_closed, 1);
        let ended = async { tokio::join!(hang_up(&mut client), hang_up(&mut node)) };
        let _ = tokio::time::timeout(HALF_CLOSED_MAX, ended).await;
    }
    add(&door.counts.resets, u64::from(end == End::Reset));
    if matches!(end, End::Reset | End::Broken) {
        reset(&client);
        reset(&node);
    }
    door.counts.open.fetch_sub(1, Ordering::Relaxed);
}

/// Makes the close of this stream an RST.
fn reset(stream: &TcpStream) {
    let _ = stream.set_zero_linger();
}

/// Sends a FIN, and takes no notice of what comes until the other side closes as well.
async fn hang_up(stream: &mut TcpStream) {
    let _ = stream.shutdown().await;
    let mut ignored = [0; 1024];
    while stream.read(&mut ignored).await.is_ok_and(|len| len > 0) {}
}

async fn splice(
    door: &Door,
    client: &mut TcpStream,
    node: &mut TcpStream,
    mut orders: watch::Receiver<Orders>,
) -> End {
    let begin = *orders.borrow();
    let (from_client, to_client) = client.split();
    let (from_node, to_node) = node.split();
    let moved = async {
        tokio::try_join!(
            carry(door, from_client, to_node),
            carry(door, from_node, to_client)
        )
    };
    let ordered =
        orders.wait_for(|orders| orders.resets != begin.resets || orders.finishes != begin.finishes);
    tokio::select! {
        moved = moved => match moved {
            Ok(_) => End::Closed,
            Err(end) => end,
        },
        ordered = ordered => match ordered {
            Ok(orders) if orders.resets == begin.resets => End::Finish,
            _ => End::Reset,
        },
    }
}

/// Moves bytes in one direction until its source ends.
async fn carry(door: &Door, from: ReadHalf<'_>, to: WriteHalf<'_>) -> Result<(), End> {
    let (chunks, taken) = mpsc::channel(CHUNKS_MAX);
    tokio::try_join!(take(door, from, chunks), give(door, to, taken))?;
    Ok(())
}

async fn take(
    door: &Door,
    mut from: ReadHalf<'_>,
    chunks: mpsc::Sender<(Instant, Bytes)>,
) -> Result<(), End> {
    let mut orders = door.orders.subscribe();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut has_swallowed = false;
    loop {
        let is_cut = orders.borrow_and_update().faults.cut;
        // A cut path is not read, so that its sender sees what it would see: no acknowledgement
        // beyond what buffers hold.
        let read = async {
            match is_cut {
                true => std::future::pending().await,
                false => from.read(&mut buffer).await,
            }
        };
        let read = tokio::select! {
            read = read => Some(read.map_err(|_| End::Broken)?),
            changed = orders.changed() => {
                changed.map_err(|_| End::Reset)?;
                None
            }
        };
        // What counts is what is ordered when the bytes are here.
        let faults = orders.borrow().faults;
        if has_swallowed && !faults.stall {
            return Err(End::Reset);
        }
        let Some(len) = read else { continue };
        if faults.stall {
            has_swallowed = true;
            add(&door.counts.swallowed_bytes, len as u64);
            if len == 0 {
                // Its end is swallowed as well.
                let over = orders.wait_for(|orders| !orders.faults.stall).await;
                return Err(over.map_or(End::Reset, |_| End::Reset));
            }
            continue;
        }
        if len == 0 {
            return Ok(());
        }
        let at = Instant::now() + Duration::from_millis(faults.delay_ms);
        let chunk = Bytes::copy_from_slice(&buffer[..len]);
        chunks.send((at, chunk)).await.map_err(|_| End::Broken)?;
    }
}

async fn give(
    door: &Door,
    mut to: WriteHalf<'_>,
    mut chunks: mpsc::Receiver<(Instant, Bytes)>,
) -> Result<(), End> {
    let mut orders = door.orders.subscribe();
    while let Some((at, chunk)) = chunks.recv().await {
        tokio::time::sleep_until(at).await;
        let faults = orders.wait_for(|orders| !orders.faults.cut).await;
        let faults = faults.map_err(|_| End::Reset)?.faults;
        to.write_all(&chunk).await.map_err(|_| End::Broken)?;
        add(&door.counts.passed_bytes, chunk.len() as u64);
        if let Some(rate) = faults.rate_bits_per_s {
            let busy = Duration::from_secs_f64(chunk.len() as f64 * 8.0 / rate as f64);
            tokio::time::sleep(busy).await;
        }
    }
    to.shutdown().await.map_err(|_| End::Broken)
}
