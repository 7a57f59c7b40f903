//! The sockets of the links between nodes: packets come in, meet their link's verdict, and go out.
//!
//! A thin shell around [`Impairer`] and [`DelayQueue`]. One task per socket and one for what is late,
//! none per packet; a packet that is not late is sent from the buffer it was read into. For each pair
//! (who dials, who is dialled) there is one upstream socket, whose port is the sender's address as
//! the dialled node sees it.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::sync::Notify;
use tokio::task::AbortHandle;
use tokio::time::Instant;

use super::delay::{DelayQueue, Weighed};
use super::faults::{Cause, LinkCounters, LinkFaults};
use super::impairer::{Impairer, Verdict};
use super::{RelayError, RelayOptions, node_host, relay_host};

/// Bytes that a socket may buffer in each direction, as far as the machine allows.
const SOCKET_BUFFER_BYTES: usize = 4 * 1024 * 1024;
/// The largest datagram there is.
const DATAGRAM_BYTES_MAX: usize = 65_535;
/// Packets that one socket is read for before the others have their turn.
const BATCH_PACKETS: usize = 64;
/// No time at all.
const NEVER_US: u64 = u64::MAX;

/// All links between all nodes.
pub(super) struct Links {
    nodes: usize,
    cluster_port: u16,
    epoch: Instant,
    listeners: Vec<UdpSocket>,
    /// By sender, then receiver.
    links: Vec<Mutex<Link>>,
    /// By who dials, then who is dialled. Locked after a link, never before one.
    pairs: Vec<Mutex<Pair>>,
    /// When the task for late packets wakes up, in microseconds since the epoch.
    planned_us: AtomicU64,
    earlier: Notify,
}

struct Link {
    impairer: Impairer,
    late: DelayQueue<Parcel>,
    counters: LinkCounters,
}

/// What one node that dials another goes through.
#[derive(Default)]
struct Pair {
    /// Where answers go.
    client: Option<SocketAddr>,
    upstream: Option<Upstream>,
    rebind: bool,
}

struct Upstream {
    socket: Arc<UdpSocket>,
    reader: AbortHandle,
}

/// Which way a packet of a link goes out.
#[derive(Debug, Clone, Copy)]
enum Route {
    /// The sender has dialled.
    Dialled,
    /// The receiver has dialled; this goes back.
    Answer,
}

struct Parcel {
    bytes: Box<[u8]>,
    route: Route,
}

impl Weighed for Parcel {
    fn len_bytes(&self) -> usize {
        self.bytes.len()
    }
}

impl Links {
    /// Binds the nodes' relay addresses. Within a runtime.
    pub(super) fn bind(options: &RelayOptions) -> Result<Links, RelayError> {
        let listeners = (0..options.nodes)
            .map(|place| {
                let address = SocketAddr::new(relay_host(place).into(), options.cluster_port);
                bind(address).map_err(RelayError::io(format!("bind {address} (UDP)")))
            })
            .collect::<Result<Vec<_>, _>>()?;
        let count = options.nodes * options.nodes;
        let link = |number: usize| Link {
            // Each link has draws of its own, which do not depend on what others carry.
            impairer: Impairer::new(options.seed.wrapping_mul(RELAY_SEED_FACTOR) ^ number as u64),
            late: DelayQueue::default(),
            counters: LinkCounters::default(),
        };
        Ok(Links {
            nodes: options.nodes,
            cluster_port: options.cluster_port,
            epoch: Instant::now(),
            listeners,
            links: (0..count).map(|number| Mutex::new(link(number))).collect(),
            pairs: (0..count).map(|_| Mutex::default()).collect(),
            planned_us: AtomicU64::new(NEVER_US),
            earlier: Notify::new(),
        })
    }

    /// Starts the tasks. Within a runtime.
    pub(super) fn spawn(self: &Arc<Self>) {
        for place in 0..self.nodes {
            tokio::spawn(listen(self.clone(), place));
        }
        tokio::spawn(send_late(self.clone()));
    }

    pub(super) fn set(&self, from: usize, to: usize, faults: LinkFaults) {
        self.link(from, to).impairer.set(faults);
    }

    pub(super) fn faults(&self, from: usize, to: usize) -> LinkFaults {
        *self.link(from, to).impairer.faults()
    }

    pub(super) fn counters(&self, from: usize, to: usize) -> LinkCounters {
        self.link(from, to).counters
    }

    pub(super) fn rebind(&self, from: usize, to: usize) {
        self.pair(from, to).rebind = true;
    }

    fn link(&self, from: usize, to: usize) -> MutexGuard<'_, Link> {
        assert!(from < self.nodes && to < self.nodes, "no link {from} to {to}");
        let link = &self.links[from * self.nodes + to];
        link.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn pair(&self, dialler: usize, dialled: usize) -> MutexGuard<'_, Pair> {
        assert!(
            dialler < self.nodes && dialled < self.nodes,
            "no pair {dialler} and {dialled}"
        );
        let pair = &self.pairs[dialler * self.nodes + dialled];
        pair.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The node that sends from this address; nobody else may use the relay.
    fn place_of(&self, source: SocketAddr) -> Option<usize> {
        let IpAddr::V4(host) = source.ip() else {
            return None;
        };
        (0..self.nodes).find(|place| node_host(*place) == host)
    }

    fn handle_dialled(self: &Arc<Self>, to: usize, source: SocketAddr, packet: &mut [u8]) {
        let Some(from) = self.place_of(source) else {
            tracing::debug!(%source, "a packet for the relay from nobody it knows");
            return;
        };
        self.pair(from, to).client = Some(source);
        self.handle_packet((from, to), Route::Dialled, packet);
    }

    fn handle_packet(self: &Arc<Self>, (from, to): (usize, usize), route: Route, packet: &mut [u8]) {
        let now = self.epoch.elapsed();
        let mut link = self.link(from, to);
        let link = &mut *link;
        link.counters.received += 1;
        let pass = match link.impairer.handle_packet(now, packet.len()) {
            Verdict::Drop(cause) => return link.counters.count_drop(cause),
            Verdict::Pass(pass) => pass,
        };
        if let Some(bit) = pass.flipped_bit {
            packet[bit / 8] ^= 1 << (bit % 8);
            link.counters.corrupted += 1;
        }
        link.counters.reordered += u64::from(pass.held);
        link.counters.duplicated += u64::from(pass.copy_at.is_some());
        link.counters.replayed += u64::from(pass.replay_at.is_some());
        for at in [Some(pass.at), pass.copy_at, pass.replay_at]
            .into_iter()
            .flatten()
        {
            if at <= now {
                let sent = self.send((from, to), route, packet, &mut link.counters);
                link.counters.count_sent(sent, packet.len());
            } else {
                self.delay(link, at, route, packet);
            }
        }
    }

    fn delay(&self, link: &mut Link, at: Duration, route: Route, packet: &[u8]) {
        let bytes = packet.into();
        if link.late.try_push(at, Parcel { bytes, route }).is_err() {
            return link.counters.count_drop(Cause::DelayQueueFull);
        }
        link.counters.delayed += 1;
        let at_us = u64::try_from(at.as_micros()).unwrap_or(NEVER_US);
        if at_us < self.planned_us.fetch_min(at_us, Ordering::Relaxed) {
            self.earlier.notify_one();
        }
    }

    /// Sends what is due, and says when something is due next.
    fn send_due(self: &Arc<Self>) -> Option<Duration> {
        let now = self.epoch.elapsed();
        let mut next: Option<Duration> = None;
        for from in 0..self.nodes {
            for to in 0..self.nodes {
                let mut link = self.link(from, to);
                let link = &mut *link;
                while let Some(parcel) = link.late.poll_due(now) {
                    let sent = self.send((from, to), parcel.route, &parcel.bytes, &mut link.counters);
                    link.counters.count_sent(sent, parcel.bytes.len());
                }
                next = [next, link.late.next_at()].into_iter().flatten().min();
            }
        }
        next
    }

    /// Whether the system has taken the packet. Asked directly, since the runtime knows of a new socket only
    /// later that it can be written to; a full socket loses the packet, as a full router does.
    fn send(
        self: &Arc<Self>,
        (from, to): (usize, usize),
        route: Route,
        packet: &[u8],
        counters: &mut LinkCounters,
    ) -> bool {
        let sent = match route {
            Route::Dialled => self
                .upstream((from, to), counters)
                .and_then(|socket| SockRef::from(&*socket).send(packet)),
            Route::Answer => match self.pair(to, from).client {
                Some(client) => SockRef::from(&self.listeners[from]).send_to(packet, &client.into()),
                None => Err(io::ErrorKind::NotConnected.into()),
            },
        };
        sent.is_ok()
    }

    /// The socket through which `from` reaches `to`, made when it is first needed or to be another one.
    fn upstream(
        self: &Arc<Self>,
        (from, to): (usize, usize),
        counters: &mut LinkCounters,
    ) -> io::Result<Arc<UdpSocket>> {
        let mut pair = self.pair(from, to);
        if std::mem::take(&mut pair.rebind)
            && let Some(old) = pair.upstream.take()
        {
            old.reader.abort();
            counters.rebound += 1;
        }
        if let Some(upstream) = &pair.upstream {
            return Ok(upstream.socket.clone());
        }
        let socket = bind(SocketAddr::new(relay_host(from).into(), 0))?;
        let target = std::net::SocketAddrV4::new(node_host(to), self.cluster_port);
        SockRef::from(&socket).connect(&target.into())?;
        let socket = Arc::new(socket);
        let reader = tokio::spawn(read_answers(self.clone(), (from, to), socket.clone()));
        pair.upstream = Some(Upstream {
            socket: socket.clone(),
            reader: reader.abort_handle(),
        });
        Ok(socket)
    }
}

/// Keeps the seeds of links apart whose numbers are close (an odd number without pattern).
const RELAY_SEED_FACTOR: u64 = 0x9E37_79B9_7F4A_7C15;

impl LinkCounters {
    fn count_sent(&mut self, sent: bool, len: usize) {
        if sent {
            self.passed += 1;
            self.passed_bytes += len as u64;
        } else {
            self.count_drop(Cause::Undeliverable);
        }
    }
}

fn bind(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::DGRAM, None)?;
    // The machine may grant less; the links then lose what comes in larger bursts, as any network does.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    UdpSocket::from_std(socket.into())
}

/// Takes what nodes send to the one in `to`.
async fn listen(links: Arc<Links>, to: usize) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    while links.listeners[to].readable().await.is_ok() {
        for _ in 0..BATCH_PACKETS {
            match links.listeners[to].try_recv_from(&mut buffer) {
                Ok((len, source)) => links.handle_dialled(to, source, &mut buffer[..len]),
                Err(_) => break,
            }
        }
    }
}

/// Takes what the node that was dialled answers.
async fn read_answers(links: Arc<Links>, (dialler, dialled): (usize, usize), socket: Arc<UdpSocket>) {
    let mut buffer = vec![0; DATAGRAM_BYTES_MAX];
    while socket.readable().await.is_ok() {
        for _ in 0..BATCH_PACKETS {
            // An error says that nobody listened when something was sent: packets to a dead node are lost.
            match socket.try_recv(&mut buffer) {
                Ok(len) => links.handle_packet((dialled, dialler), Route::Answer, &mut buffer[..len]),
                Err(_) => break,
            }
        }
    }
}

/// Sends late packets when their time has come, to the millisecond that timers are good for.
async fn send_late(links: Arc<Links>) {
    loop {
        // Whatever is delayed from here on and due earlier than what is found wakes this task again.
        links.planned_us.store(NEVER_US, Ordering::Relaxed);
        let Some(next) = links.send_due() else {
            links.earlier.notified().await;
            continue;
        };
        let next_us = u64::try_from(next.as_micros()).unwrap_or(NEVER_US);
        links.planned_us.fetch_min(next_us, Ordering::Relaxed);
        tokio::select! {
            () = tokio::time::sleep_until(links.epoch + next) => {}
            () = links.earlier.notified() => {}
        }
    }
}
