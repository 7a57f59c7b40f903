//! What attackers did and what they saw of it, counted. What to make of it is for [`super::report`] and for
//! the fault that let them loose.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use serde::Serialize;

use super::kind::{KINDS, Kind};

/// The counters of a crowd of attackers.
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

    /// Connections made by attackers of `kind`.
    pub fn connections_of(&self, kind: Kind) -> u64 {
        self.by_kind[kind as usize].load(Relaxed)
    }

    pub(super) fn wrote(&self, packets: u64, bytes: usize) {
        self.packets.fetch_add(packets, Relaxed);
        self.bytes.fetch_add(bytes as u64, Relaxed);
    }

    pub(super) fn was_refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(super) fn was_closed(&self) {
        self.closed.fetch_add(1, Relaxed);
    }

    pub(super) fn was_answered(&self) {
        self.answered.fetch_add(1, Relaxed);
    }

    pub(super) fn hold(self: &Arc<Self>, kind: Kind) -> Held {
        self.connections.fetch_add(1, Relaxed);
        self.by_kind[kind as usize].fetch_add(1, Relaxed);
        let held = self.held.fetch_add(1, Relaxed) + 1;
        self.held_max.fetch_max(held, Relaxed);
        Held(Arc::clone(self))
    }
}

/// A connection that is open, for the count.
pub(super) struct Held(Arc<Counters>);

impl Drop for Held {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_counts_as_held_until_it_is_dropped_and_for_its_kind_for_good() {
        let counters = Arc::new(Counters::default());
        let held = [counters.hold(Kind::Reset), counters.hold(Kind::Vanish)];
        assert_eq!((counters.held(), counters.connections_of(Kind::Reset)), (2, 1));
        drop(held);
        let counted = counters.counted();
        assert_eq!(
            (counters.held(), counted.held_max, counted.connections),
            (0, 2, 2)
        );
    }
}
