//! What happened in a run, in order, as one number: two runs with the same number did the same.
//!
//! Of a datagram it has when it was sent, between whom, what it said, and what became of it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use crate::oracle::digest;

/// A running hash. Clones share it.
#[derive(Clone, Default)]
pub(super) struct Trace(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    hash: u64,
    lines: Option<Vec<String>>,
}

impl Trace {
    /// One that also keeps what it was told, for a reader.
    pub(super) fn telling() -> Trace {
        Trace(Arc::new(Mutex::new(Inner {
            hash: 0,
            lines: Some(Vec::new()),
        })))
    }

    /// The number so far.
    pub(super) fn hash(&self) -> u64 {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).hash
    }

    /// What was told, if it was kept.
    pub(super) fn lines(&self) -> Vec<String> {
        let inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        inner.lines.clone().unwrap_or_default()
    }

    fn put(&self, fields: &[u64], line: impl FnOnce() -> String) {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for field in fields {
            // FNV-1a by words, with a rotation so that order counts.
            inner.hash = (inner.hash.rotate_left(5) ^ field).wrapping_mul(0x0000_0100_0000_01b3);
        }
        if let Some(lines) = &mut inner.lines {
            lines.push(line());
        }
    }

    pub(super) fn datagram(
        &self,
        now_us: u64,
        (from, to): (SocketAddr, SocketAddr),
        bytes: &[u8],
        fate: Option<u64>,
    ) {
        let of = |address: SocketAddr| match address.ip() {
            std::net::IpAddr::V4(ip) => u64::from(u32::from(ip)),
            std::net::IpAddr::V6(ip) => u128::from(ip) as u64,
        };
        let said = digest(bytes);
        let fields = [now_us, of(from), of(to), said, fate.map_or(0, |delay| delay + 1)];
        self.put(&fields, || {
            let count = bytes.len();
            format!("{now_us} {from} > {to} {count} {said:016x} {fate:?}")
        });
    }

    /// Something else that happened; `what` names the kind.
    pub(super) fn event(&self, now_us: u64, what: &str, fields: &[u64]) {
        let kind = what
            .bytes()
            .fold(0u64, |hash, byte| hash.wrapping_mul(31) + u64::from(byte));
        let all = [&[now_us, kind], fields].concat();
        self.put(&all, || format!("{now_us} {what} {fields:?}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_and_content_count() {
        let told = |events: &[(&str, u64)]| {
            let trace = Trace::telling();
            for (what, field) in events {
                trace.event(1, what, &[*field]);
            }
            assert_eq!(trace.lines().len(), events.len());
            trace.hash()
        };
        let hash = told(&[("a", 1), ("b", 2)]);
        assert_eq!(told(&[("a", 1), ("b", 2)]), hash);
        assert_ne!(told(&[("b", 2), ("a", 1)]), hash);
        assert_ne!(told(&[("a", 1), ("b", 3)]), hash);
    }
}
