//! How long a gateway may be silent before its shard gives it up.
//!
//! Pure: it names the streams whose lease has run out and remembers what was proposed about them.
//! That a gateway is gone becomes true only through the log; see [`crate::shard::actor`].

use std::collections::BTreeMap;

use dunlin_model::id::StreamId;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Lease {
    /// The gateway lives, as far as anybody knows, until this time.
    Alive { until_ms: u64 },
    /// It was given up, and the log has not answered yet.
    Going,
    /// The log has closed the stream. It stays on the list for one more lease, so that a gateway
    /// that was only slow still hears what became of its sessions.
    Closed { until_ms: u64 },
}

/// What a lapsed lease asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lapsed {
    /// Propose that this gateway is gone.
    GiveUp(StreamId),
    /// Forget this stream; the log has closed it long ago.
    Forget(StreamId),
}

/// The leases of one leadership.
#[derive(Debug)]
pub(crate) struct Leases {
    lease_ms: u64,
    leases: BTreeMap<StreamId, Lease>,
}

impl Leases {
    pub(crate) fn new(lease_ms: u64) -> Self {
        Self {
            lease_ms,
            leases: BTreeMap::new(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.leases.len()
    }

    pub(crate) fn contains(&self, stream: StreamId) -> bool {
        self.leases.contains_key(&stream)
    }

    pub(crate) fn streams(&self) -> Vec<StreamId> {
        self.leases.keys().copied().collect()
    }

    /// The stream was opened here, or is known from before: a full lease. One that is being given
    /// up stays so until the log has answered.
    pub(crate) fn handle_opened(&mut self, stream: StreamId, now_ms: u64) {
        if self.leases.get(&stream) != Some(&Lease::Going) {
            self.leases.insert(
                stream,
                Lease::Alive {
                    until_ms: now_ms.saturating_add(self.lease_ms),
                },
            );
        }
    }

    /// The log knows the stream from here on, whatever was proposed before.
    pub(crate) fn handle_known(&mut self, stream: StreamId, now_ms: u64) {
        self.leases.insert(
            stream,
            Lease::Alive {
                until_ms: now_ms.saturating_add(self.lease_ms),
            },
        );
    }

    /// A sign of life.
    pub(crate) fn handle_alive(&mut self, stream: StreamId, now_ms: u64) {
        if let Some(Lease::Alive { until_ms }) = self.leases.get_mut(&stream) {
            *until_ms = now_ms.saturating_add(self.lease_ms);
        }
    }

    /// The log has closed the stream.
    pub(crate) fn handle_closed(&mut self, stream: StreamId, now_ms: u64) {
        if let Some(lease) = self.leases.get_mut(&stream) {
            *lease = Lease::Closed {
                until_ms: now_ms.saturating_add(self.lease_ms),
            };
        }
    }

    /// When the next lease runs out.
    pub(crate) fn next_ms(&self) -> Option<u64> {
        let due = self.leases.values().filter_map(|lease| match lease {
            Lease::Alive { until_ms } | Lease::Closed { until_ms } => Some(*until_ms),
            Lease::Going => None,
        });
        due.min()
    }

    /// The leases that have run out at `now_ms`, in the order of their streams.
    pub(crate) fn poll_lapsed(&mut self, now_ms: u64) -> Vec<Lapsed> {
        let mut lapsed = Vec::new();
        self.leases.retain(|stream, lease| match *lease {
            Lease::Alive { until_ms } if until_ms <= now_ms => {
                *lease = Lease::Going;
                lapsed.push(Lapsed::GiveUp(*stream));
                true
            }
            Lease::Closed { until_ms } if until_ms <= now_ms => {
                lapsed.push(Lapsed::Forget(*stream));
                false
            }
            _ => true,
        });
        lapsed.sort_by_key(|lapsed| match lapsed {
            Lapsed::GiveUp(stream) | Lapsed::Forget(stream) => *stream,
        });
        lapsed
    }
}

#[cfg(test)]
mod tests {
    use dunlin_model::id::NodeId;

    use super::*;

    fn stream(gateway: u64) -> StreamId {
        StreamId {
            gateway: NodeId(gateway),
            incarnation: 1,
        }
    }

    #[test]
    fn silence_ends_in_one_proposal() {
        let mut leases = Leases::new(100);
        leases.handle_opened(stream(1), 0);
        leases.handle_opened(stream(2), 0);
        leases.handle_alive(stream(2), 50);
        leases.handle_alive(stream(9), 50);
        assert_eq!(leases.next_ms(), Some(100));
        assert_eq!(leases.poll_lapsed(99), []);
        assert_eq!(leases.poll_lapsed(100), [Lapsed::GiveUp(stream(1))]);
        leases.handle_alive(stream(1), 120);
        leases.handle_opened(stream(1), 120);
        assert_eq!(leases.poll_lapsed(149), [], "what was proposed is not taken back");
        assert_eq!(leases.len(), 2);
    }

    #[test]
    fn a_closed_stream_is_forgotten_a_lease_later_or_lives_anew() {
        let mut leases = Leases::new(100);
        for gateway in [1, 2] {
            leases.handle_opened(stream(gateway), 0);
        }
        leases.poll_lapsed(100);
        leases.handle_closed(stream(1), 110);
        leases.handle_closed(stream(2), 110);
        leases.handle_known(stream(2), 120);
        assert_eq!(leases.poll_lapsed(210), [Lapsed::Forget(stream(1))]);
        assert_eq!(leases.poll_lapsed(220), [Lapsed::GiveUp(stream(2))]);
        assert!(!leases.contains(stream(1)) && leases.contains(stream(2)));
    }
}
