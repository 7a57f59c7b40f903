//! What the benches share: a cluster of real processes with devices, and what the kernel says of them.
//!
//! Nothing here judges a figure. Each bench takes what it needs, so some of it is unused in each.

#![allow(dead_code)]

pub(crate) mod cluster;
pub(crate) mod kernel;

/// Why a bench stops: verb, object, cause.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The middle of `values`, the lower one of two.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    values
        .get(values.len().saturating_sub(1) / 2)
        .copied()
        .unwrap_or(f64::NAN)
}

/// A free port for TCP and UDP on `127.0.0.1` to `127.0.0.3`, below those that systems draw for
/// outgoing connections. The next call begins behind it.
pub(crate) fn free_port() -> u16 {
    use std::net::{Ipv4Addr, TcpListener, UdpSocket};
    use std::sync::atomic::{AtomicU16, Ordering};
    const FIRST: u16 = 10_000;
    const LAST: u16 = 14_999;
    static NEXT: AtomicU16 = AtomicU16::new(FIRST);
    loop {
        let port = NEXT.fetch_add(1, Ordering::Relaxed);
        assert!(port <= LAST, "no port between {FIRST} and {LAST} is free");
        let is_free = (1..=3).all(|host| {
            let address = (Ipv4Addr::new(127, 0, 0, host), port);
            TcpListener::bind(address).is_ok() && UdpSocket::bind(address).is_ok()
        });
        if is_free {
            return port;
        }
    }
}
