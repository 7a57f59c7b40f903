//! Ports for hubs that run beside each other, in this process and in others.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the range from which systems draw the ports of outgoing connections: one of those could take
/// a port between the look at it and its use.
const FIRST: u32 = 15_000;
const COUNT: u32 = 16_000;

/// Nodes of a local cluster listen on `127.0.0.1` and up, with the same ports; tests have this many at most.
const HOSTS: u8 = 6;

static TAKEN: AtomicU32 = AtomicU32::new(0);

/// The ports of one hub, free on the addresses of a local cluster and given to nobody else in this process.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    /// MQTT over TLS.
    pub mqtts: u16,
    /// AMQP over TLS.
    pub amqps: u16,
    /// Kafka over TLS.
    pub kafka: u16,
    /// HTTPS.
    pub https: u16,
    /// Between nodes (UDP).
    pub cluster: u16,
}

impl Ports {
    /// Some of them.
    pub fn take() -> Ports {
        Ports {
            mqtts: free_port(),
            amqps: free_port(),
            kafka: free_port(),
            https: free_port(),
            cluster: free_port(),
        }
    }
}

/// One port that is free for TCP and UDP.
pub fn free_port() -> u16 {
    // Another test process begins elsewhere, so that the two rarely look at the same port.
    let begin = std::process::id().wrapping_mul(97) % COUNT;
    for _ in 0..COUNT {
        let place = begin + TAKEN.fetch_add(1, Ordering::Relaxed);
        let port = (FIRST + place % COUNT) as u16;
        if (1..=HOSTS).all(|host| is_free(Ipv4Addr::new(127, 0, 0, host), port)) {
            return port;
        }
    }
    panic!("no port between {FIRST} and {} is free", FIRST + COUNT);
}

fn is_free(address: Ipv4Addr, port: u16) -> bool {
    TcpListener::bind((address, port)).is_ok() && UdpSocket::bind((address, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_port_is_given_twice_or_while_it_is_used() {
        let first = free_port();
        let held = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 2), first + 1));
        let more: Vec<u16> = (0..20).map(|_| free_port()).collect();
        assert!(!more.contains(&first));
        assert!(held.is_err() || !more.contains(&(first + 1)));
    }
}
