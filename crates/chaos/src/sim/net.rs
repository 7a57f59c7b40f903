//! The network of a simulation: datagrams that are late, lost, doubled, spoiled or cut off, as its seed says.
//!
//! Decides for each datagram, at the moment it is sent, whether and when it arrives; [`Net::deliver`] hands
//! over what is due. Every decision goes into the trace. Never looks at a clock of its own.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use dunlin_cluster::transport::Datagrams;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

use super::trace::Trace;

/// Datagrams that wait at one address; one more is lost, as in a socket's buffer.
const INBOX_MAX: usize = 4096;
/// Datagrams under way; beyond it they are lost.
const UNDER_WAY_MAX: usize = 200_000;

/// How one directed link is just now.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Nothing passes.
    pub is_cut: bool,
    /// Share of datagrams that are lost.
    pub loss: f64,
    /// Share of datagrams that arrive twice.
    pub duplicate: f64,
    /// Share of datagrams with a byte changed.
    pub corrupt: f64,
    /// The shortest way, in microseconds.
    pub delay_us_min: u64,
    /// The longest way; a spread reorders.
    pub delay_us_max: u64,
}

impl Link {
    /// A link of one data centre.
    pub const HEALTHY: Link = Link {
        is_cut: false,
        loss: 0.0,
        duplicate: 0.0,
        corrupt: 0.0,
        delay_us_min: 100,
        delay_us_max: 600,
    };
}

/// A datagram that was sent.
struct UnderWay {
    from: SocketAddr,
    to: SocketAddr,
    bytes: Vec<u8>,
}

#[derive(Default)]
struct Inbox {
    arrived: VecDeque<(SocketAddr, Vec<u8>)>,
    waker: Option<Waker>,
}

struct State {
    random: StdRng,
    now_us: u64,
    sent: u64,
    links: BTreeMap<(SocketAddr, SocketAddr), Link>,
    /// By when they arrive, and in which order they were sent.
    under_way: BTreeMap<(u64, u64), UnderWay>,
    inboxes: BTreeMap<SocketAddr, Inbox>,
    trace: Trace,
    counts: Counts,
}

/// What became of the datagrams.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Handed to the network.
    pub sent: u64,
    /// Lost by a cut link.
    pub cut: u64,
    /// Lost by chance.
    pub lost: u64,
    /// Arrived a second time.
    pub duplicated: u64,
    /// Arrived with a changed byte.
    pub corrupted: u64,
}

/// The network. Clones share it.
#[derive(Clone)]
pub(super) struct Net(Arc<Mutex<State>>);

impl Net {
    pub(super) fn new(seed: u64, trace: Trace) -> Net {
        Net(Arc::new(Mutex::new(State {
            random: StdRng::seed_from_u64(seed),
            now_us: 0,
            sent: 0,
            links: BTreeMap::new(),
            under_way: BTreeMap::new(),
            inboxes: BTreeMap::new(),
            trace,
            counts: Counts::default(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A socket at `address`. What waited for the one before it is gone.
    pub(super) fn bind(&self, address: SocketAddr) -> Arc<Socket> {
        self.state().inboxes.insert(address, Inbox::default());
        Arc::new(Socket {
            net: self.clone(),
            address,
        })
    }

    /// Nobody listens at `address` any more.
    pub(super) fn unbind(&self, address: SocketAddr) {
        self.state().inboxes.remove(&address);
    }

    pub(super) fn set(&self, from: SocketAddr, to: SocketAddr, link: Link) {
        self.state().links.insert((from, to), link);
    }

    /// Hands over everything that has arrived by `now_us`.
    pub(super) fn deliver(&self, now_us: u64) {
        let mut state = self.state();
        state.now_us = now_us;
        let later = state.under_way.split_off(&(now_us + 1, 0));
        let due = std::mem::replace(&mut state.under_way, later);
        let mut woken: Vec<(SocketAddr, Waker)> = Vec::new();
        for datagram in due.into_values() {
            let Some(inbox) = state.inboxes.get_mut(&datagram.to) else {
                continue;
            };
            if inbox.arrived.len() >= INBOX_MAX {
                continue;
            }
            inbox.arrived.push_back((datagram.from, datagram.bytes));
            woken.extend(inbox.waker.take().map(|waker| (datagram.to, waker)));
        }
        drop(state);
        for (_, waker) in woken {
            waker.wake();
        }
    }

    pub(super) fn counts(&self) -> Counts {
        self.state().counts
    }
}

impl State {
    fn send(&mut self, from: SocketAddr, to: SocketAddr, bytes: &[u8]) {
        let link = self.links.get(&(from, to)).copied().unwrap_or(Link::HEALTHY);
        self.counts.sent += 1;
        let fate = if link.is_cut {
            self.counts.cut += 1;
            None
        } else if self.random.random_bool(link.loss) || self.under_way.len() >= UNDER_WAY_MAX {
            self.counts.lost += 1;
            None
        } else {
            Some(self.random.random_range(link.delay_us_min..=link.delay_us_max))
        };
        self.trace.datagram(self.now_us, (from, to), bytes, fate);
        let Some(delay_us) = fate else { return };
        let mut bytes = bytes.to_vec();
        if self.random.random_bool(link.corrupt) && !bytes.is_empty() {
            self.counts.corrupted += 1;
            let place = self.random.random_range(0..bytes.len());
            bytes[place] ^= 1 << self.random.random_range(0..8u32);
        }
        if self.random.random_bool(link.duplicate) {
            self.counts.duplicated += 1;
            let again_us = self
                .random
                .random_range(link.delay_us_min..=link.delay_us_max * 4);
            self.put(
                again_us,
                UnderWay {
                    from,
                    to,
                    bytes: bytes.clone(),
                },
            );
        }
        self.put(delay_us, UnderWay { from, to, bytes });
    }

    fn put(&mut self, delay_us: u64, datagram: UnderWay) {
        self.sent += 1;
        self.under_way
            .insert((self.now_us + delay_us, self.sent), datagram);
    }
}

/// One node's socket.
pub(super) struct Socket {
    net: Net,
    address: SocketAddr,
}

impl std::fmt::Debug for Socket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Socket({})", self.address)
    }
}

impl Datagrams for Socket {
    fn send(&self, to: SocketAddr, bytes: &[u8]) {
        self.net.state().send(self.address, to, bytes);
    }

    fn poll_receive(&self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<(usize, SocketAddr)> {
        let mut state = self.net.state();
        let Some(inbox) = state.inboxes.get_mut(&self.address) else {
            return Poll::Pending;
        };
        match inbox.arrived.pop_front() {
            Some((from, bytes)) => {
                let count = bytes.len().min(buffer.len());
                buffer[..count].copy_from_slice(&bytes[..count]);
                Poll::Ready((count, from))
            }
            None => {
                inbox.waker = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn local_address(&self) -> SocketAddr {
        self.address
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u8) -> SocketAddr {
        SocketAddr::from(([10, 0, 0, number], 1))
    }

    fn receive(socket: &Socket) -> Vec<u8> {
        let mut buffer = [0; 64];
        let mut context = Context::from_waker(Waker::noop());
        match socket.poll_receive(&mut context, &mut buffer) {
            Poll::Ready((count, _)) => buffer[..count].to_vec(),
            Poll::Pending => Vec::new(),
        }
    }

    #[test]
    fn a_datagram_arrives_when_its_delay_is_over_and_not_before() {
        let net = Net::new(1, Trace::default());
        let (one, two) = (net.bind(address(1)), net.bind(address(2)));
        let link = Link {
            delay_us_min: 500,
            delay_us_max: 500,
            ..Link::HEALTHY
        };
        net.set(address(1), address(2), link);
        one.send(address(2), b"hello");
        net.deliver(499);
        assert_eq!(receive(&two), b"");
        net.deliver(500);
        assert_eq!(receive(&two), b"hello");
        assert_eq!(receive(&two), b"");
    }

    #[test]
    fn a_cut_is_one_way_and_chance_follows_from_the_seed() {
        let run = |seed| {
            let trace = Trace::default();
            let net = Net::new(seed, trace.clone());
            let (one, two) = (net.bind(address(1)), net.bind(address(2)));
            net.set(
                address(1),
                address(2),
                Link {
                    is_cut: true,
                    ..Link::HEALTHY
                },
            );
            let lossy = Link {
                loss: 0.5,
                duplicate: 0.5,
                corrupt: 0.5,
                ..Link::HEALTHY
            };
            net.set(address(2), address(1), lossy);
            for _ in 0..100 {
                one.send(address(2), b"never");
                two.send(address(1), b"maybe");
            }
            net.deliver(1_000_000);
            assert_eq!(receive(&two), b"");
            (net.counts(), trace.hash())
        };
        let (counts, hash) = run(3);
        assert_eq!((counts.sent, counts.cut), (200, 100));
        assert!(counts.lost > 0 && counts.duplicated > 0 && counts.corrupted > 0);
        assert_eq!(run(3), (counts, hash));
        assert_ne!(run(4).1, hash);
    }
}
