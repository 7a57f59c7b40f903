//! What a link may be told to do to packets and bytes, with bounds, and what it counts.
//!
//! Plain data: it decides nothing ([`Impairer`](super::impairer::Impairer) does) and moves nothing.
//! The times are whole milliseconds, since the relay's timers are no finer.

use serde::{Deserialize, Serialize};

/// Longest delay, jitter, hold, replay or phase of a flap.
pub const LINK_DELAY_MS_MAX: u64 = 60_000;
/// Slowest link. Below it not even a handshake passes before its time-outs.
pub const RATE_BITS_PER_S_MIN: u64 = 8_000;
/// Bytes that wait for a slow link unless it is told otherwise, as many as a cheap router holds.
pub const QUEUE_BYTES_DEFAULT: usize = 256 * 1024;

/// What one directed link does to each packet. The default leaves all of them alone.
///
/// Rules are tried in the order of the fields; the first one that drops a packet is counted.
/// Shares are between 0 and 1, each drawn for each packet.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LinkFaults {
    /// Drops everything (F08, F09, F10).
    pub cut: bool,
    /// Lets pass and drops in turn (F11).
    pub flap: Option<Flap>,
    /// Drops packets of more bytes than this, as a path with a smaller MTU does (F17).
    pub drop_larger_than: Option<usize>,
    /// Share of packets with which a run of losses begins (F12).
    pub burst: f64,
    /// Mean length of such a run, in packets.
    pub burst_packets: u32,
    /// Share of packets that are dropped, each by itself (F12).
    pub loss: f64,
    /// Bits per second that pass (F16).
    pub rate_bits_per_s: Option<u64>,
    /// Bytes that may wait for the rate; what comes on top is dropped.
    pub queue_bytes_max: usize,
    /// Share of packets with one bit flipped (F15).
    pub corrupt: f64,
    /// Milliseconds that each packet is late (F13).
    pub delay_ms: u64,
    /// Up to this many milliseconds more, drawn for each packet (F13). Packets overtake each other.
    pub jitter_ms: u64,
    /// Stands still now and then (F13). Packets keep their order.
    pub spike: Option<Spike>,
    /// Share of packets that are held back, so that others overtake them (F14).
    pub reorder: f64,
    /// Milliseconds by which they are held back.
    pub reorder_ms: u64,
    /// Share of packets that arrive twice (F14).
    pub duplicate: f64,
    /// Share of packets that arrive once more after `replay_after_ms` (F14).
    pub replay: f64,
    /// Milliseconds after which a replayed packet comes again.
    pub replay_after_ms: u64,
}

/// A link that comes and goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Flap {
    /// Milliseconds for which it passes.
    pub up_ms: u64,
    /// Milliseconds for which it drops.
    pub down_ms: u64,
}

/// A link that stands still now and then: what comes meanwhile goes on when it moves again, all at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Spike {
    /// Milliseconds for which it passes.
    pub calm_ms: u64,
    /// Milliseconds for which it stands still.
    pub spike_ms: u64,
}

impl Default for LinkFaults {
    fn default() -> Self {
        Self {
            cut: false,
            flap: None,
            drop_larger_than: None,
            burst: 0.0,
            burst_packets: 8,
            loss: 0.0,
            rate_bits_per_s: None,
            queue_bytes_max: QUEUE_BYTES_DEFAULT,
            corrupt: 0.0,
            delay_ms: 0,
            jitter_ms: 0,
            spike: None,
            reorder: 0.0,
            reorder_ms: 5,
            duplicate: 0.0,
            replay: 0.0,
            replay_after_ms: 1_000,
        }
    }
}

/// A fault that is no fault of a link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field} must be {rule}")]
pub struct BadFaults {
    /// Which field.
    pub field: &'static str,
    /// What it must be.
    pub rule: String,
}

impl LinkFaults {
    /// A link that drops everything.
    pub fn cut() -> Self {
        Self {
            cut: true,
            ..Self::default()
        }
    }

    /// The first field that is out of bounds, if there is one.
    pub fn validate(&self) -> Result<(), BadFaults> {
        let bad = |field, rule: String| Err(BadFaults { field, rule });
        for (field, share) in [
            ("burst", self.burst),
            ("loss", self.loss),
            ("corrupt", self.corrupt),
            ("reorder", self.reorder),
            ("duplicate", self.duplicate),
            ("replay", self.replay),
        ] {
            if !(0.0..=1.0).contains(&share) {
                return bad(field, "between 0 and 1".to_owned());
            }
        }
        let flap = self.flap.unwrap_or(Flap { up_ms: 1, down_ms: 1 });
        if flap.up_ms == 0 || flap.down_ms == 0 {
            return bad("flap", "of phases of at least 1 ms".to_owned());
        }
        let spike = self.spike.unwrap_or(Spike {
            calm_ms: 1,
            spike_ms: 1,
        });
        if spike.calm_ms == 0 || spike.spike_ms == 0 {
            return bad("spike", "of phases of at least 1 ms".to_owned());
        }
        for (field, time_ms) in [
            ("flap", flap.up_ms.max(flap.down_ms)),
            ("spike", spike.calm_ms.max(spike.spike_ms)),
            ("delay_ms", self.delay_ms),
            ("jitter_ms", self.jitter_ms),
            ("reorder_ms", self.reorder_ms),
            ("replay_after_ms", self.replay_after_ms),
        ] {
            if time_ms > LINK_DELAY_MS_MAX {
                return bad(field, format!("at most {LINK_DELAY_MS_MAX} ms"));
            }
        }
        if self.burst_packets == 0 {
            return bad("burst_packets", "at least 1".to_owned());
        }
        if self
            .rate_bits_per_s
            .is_some_and(|rate| rate < RATE_BITS_PER_S_MIN)
        {
            return bad("rate_bits_per_s", format!("at least {RATE_BITS_PER_S_MIN}"));
        }
        Ok(())
    }
}

/// Why a packet did not get through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// The link is cut.
    Cut,
    /// The link is down just now.
    Flap,
    /// Larger than the path allows.
    TooLarge,
    /// Within a run of losses.
    Burst,
    /// Lost by itself.
    Loss,
    /// Too many bytes wait for the rate.
    RateQueueFull,
    /// Too much is delayed; see the bounds of the delay queue.
    DelayQueueFull,
    /// The system did not take it, or there is nobody to give it to yet.
    Undeliverable,
}

/// How many causes there are.
const CAUSES: usize = 8;

/// What became of the packets of one directed link since it exists. A fault has been felt only if its
/// counter moved.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LinkCounters {
    /// Packets that came.
    pub received: u64,
    /// Packets that went on, copies included.
    pub passed: u64,
    /// Bytes of these.
    pub passed_bytes: u64,
    /// Packets that waited, for whatever reason.
    pub delayed: u64,
    /// Packets that were held back so that others overtake them.
    pub reordered: u64,
    /// Packets with a flipped bit.
    pub corrupted: u64,
    /// Copies sent at once.
    pub duplicated: u64,
    /// Copies sent later.
    pub replayed: u64,
    /// Times that the source address changed.
    pub rebound: u64,
    dropped: [u64; CAUSES],
}

impl LinkCounters {
    /// Packets dropped for one cause.
    pub fn dropped(&self, cause: Cause) -> u64 {
        self.dropped[cause as usize]
    }

    /// Packets dropped in all.
    pub fn dropped_total(&self) -> u64 {
        self.dropped.iter().sum()
    }

    pub(super) fn count_drop(&mut self, cause: Cause) {
        self.add_drops(cause, 1);
    }

    /// Counts packets that were dropped for one cause.
    pub(crate) fn add_drops(&mut self, cause: Cause, packets: u64) {
        self.dropped[cause as usize] += packets;
    }
}

/// What a door for devices does to the connections through it (F13, F16, F19).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DoorFaults {
    /// Moves nothing in either direction. The connections stay, and go on when this ends.
    pub cut: bool,
    /// Takes what comes and forgets it: half-open connections. Each connection that lost something is
    /// reset when this ends, since the rest of its bytes makes no sense any more.
    pub stall: bool,
    /// Milliseconds that bytes are late, in each direction.
    pub delay_ms: u64,
    /// Bits per second of each connection, in each direction.
    pub rate_bits_per_s: Option<u64>,
}

impl DoorFaults {
    /// The first field that is out of bounds, if there is one.
    pub fn validate(&self) -> Result<(), BadFaults> {
        LinkFaults {
            delay_ms: self.delay_ms,
            rate_bits_per_s: self.rate_bits_per_s,
            ..LinkFaults::default()
        }
        .validate()
    }
}

/// What became of the connections of one door.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DoorCounters {
    /// Connections that were taken.
    pub accepted: u64,
    /// Connections that were turned away: too many, or the node does not listen.
    pub refused: u64,
    /// Connections that are open.
    pub open: u64,
    /// Bytes that went on.
    pub passed_bytes: u64,
    /// Bytes that were taken and forgotten.
    pub swallowed_bytes: u64,
    /// Connections that ended with a reset of the relay's making.
    pub resets: u64,
    /// Connections that were ended by a FIN and then left open.
    pub half_closed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_out_of_bounds_is_named() {
        let fine = LinkFaults::default();
        assert_eq!(fine.validate(), Ok(()));
        let cases = [
            ("burst", LinkFaults { burst: -0.1, ..fine }),
            ("loss", LinkFaults { loss: 1.1, ..fine }),
            (
                "corrupt",
                LinkFaults {
                    corrupt: f64::NAN,
                    ..fine
                },
            ),
            ("reorder", LinkFaults { reorder: 2.0, ..fine }),
            (
                "duplicate",
                LinkFaults {
                    duplicate: 2.0,
                    ..fine
                },
            ),
            ("replay", LinkFaults { replay: 2.0, ..fine }),
            (
                "flap",
                LinkFaults {
                    flap: Some(Flap { up_ms: 0, down_ms: 1 }),
                    ..fine
                },
            ),
            (
                "spike",
                LinkFaults {
                    spike: Some(Spike {
                        calm_ms: 1,
                        spike_ms: 0,
                    }),
                    ..fine
                },
            ),
            (
                "delay_ms",
                LinkFaults {
                    delay_ms: LINK_DELAY_MS_MAX + 1,
                    ..fine
                },
            ),
            (
                "jitter_ms",
                LinkFaults {
                    jitter_ms: u64::MAX,
                    ..fine
                },
            ),
            (
                "burst_packets",
                LinkFaults {
                    burst_packets: 0,
                    ..fine
                },
            ),
            (
                "rate_bits_per_s",
                LinkFaults {
                    rate_bits_per_s: Some(7_999),
                    ..fine
                },
            ),
        ];
        for (field, faults) in cases {
            assert_eq!(faults.validate().map_err(|bad| bad.field), Err(field));
        }
    }

    #[test]
    fn faults_are_read_from_toml_and_unknown_ones_refused() {
        let read: LinkFaults = toml::from_str("loss = 0.1\nflap = { up_ms = 5, down_ms = 7 }").unwrap();
        let wanted = LinkFaults {
            loss: 0.1,
            flap: Some(Flap { up_ms: 5, down_ms: 7 }),
            ..LinkFaults::default()
        };
        assert_eq!(read, wanted);
        assert!(toml::from_str::<LinkFaults>("losss = 0.1").is_err());
    }
}
