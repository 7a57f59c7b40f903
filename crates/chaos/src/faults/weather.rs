//! F12 to F18: links that lose, delay, repeat, spoil and throttle what is sent over them.
//!
//! Source: `docs/chaos.md`, fault list. Most kinds meet all links and damage no node: it costs time, and no
//! acknowledged message. Done to the links in [`super::network`].

use super::network::{CUT, Deed, LinkFault, PERCENT, kind, share, time_ms};
use super::reach::Reach;
use super::{Kind, Parameter};
use crate::relay::faults::{Cause, Spike};
use crate::scenario::target::Target;

/// A kind of all links, which no node is silenced by.
const EVERYWHERE: Deed = Deed {
    reach: Reach::All,
    silences: false,
    ..CUT
};

/// Losses, each by itself.
pub(super) const LOSS: Kind = Kind {
    in_containers: Some("rules of `iptables`: `-m statistic`"),
    damages: false,
    target: Target::Cluster,
    with: &[PERCENT],
    ..kind(
        "loss",
        "F12",
        "the relay drops packets of all links at random",
        |order| {
            LinkFault::begin(
                order,
                Deed {
                    install: |link, order| link.loss = share(order),
                    heal: |link| link.loss = 0.0,
                    felt: |counters| counters.dropped(Cause::Loss),
                    ..EVERYWHERE
                },
            )
        },
    )
};

/// Losses in runs, between which everything passes.
pub(super) const BURST_LOSS: Kind = Kind {
    damages: false,
    target: Target::Cluster,
    with: &[
        Parameter {
            usual: (5, 30),
            ..PERCENT
        },
        Parameter {
            name: "packets",
            meaning: "that a run takes, on average",
            usual: (4, 64),
            min: 1,
            max: 10_000,
        },
    ],
    ..kind(
        "burst-loss",
        "F12",
        "the relay drops packets of all links in runs",
        |order| LinkFault::begin(order, IN_RUNS),
    )
};

const IN_RUNS: Deed = Deed {
    install: |link, order| {
        let packets = order.told("packets").max(1) as u32;
        (link.burst, link.burst_packets) = (run_begins(share(order), packets), packets);
    },
    heal: |link| link.burst = 0.0,
    felt: |counters| counters.dropped(Cause::Burst),
    ..EVERYWHERE
};

/// The share of packets with which a run of losses must begin for all runs to take `share` of them.
fn run_begins(share: f64, packets: u32) -> f64 {
    share / (share + f64::from(packets) * (1.0 - share))
}

/// Packets that come late, and not in their order.
pub(super) const LATENCY: Kind = Kind {
    damages: false,
    target: Target::Cluster,
    with: &[
        time_ms("delay_ms", "that packets are late", (1, 10)),
        time_ms("jitter_ms", "by which they differ", (0, 10)),
    ],
    ..kind(
        "latency",
        "F13",
        "the relay holds the packets of all links back",
        |order| {
            LinkFault::begin(
                order,
                Deed {
                    install: |link, order| {
                        link.delay_ms = order.told("delay_ms").max(1);
                        link.jitter_ms = order.told("jitter_ms");
                    },
                    heal: |link| (link.delay_ms, link.jitter_ms) = (0, 0),
                    felt: |counters| counters.delayed,
                    ..EVERYWHERE
                },
            )
        },
    )
};

/// Links that stand still now and then and lose nothing by it.
pub(super) const SPIKES: Kind = Kind {
    damages: false,
    target: Target::Cluster,
    with: &[
        time_ms("calm_ms", "for which packets pass at once", (200, 2_000)),
        time_ms(
            "spike_ms",
            "for which they are held, to go on together",
            (50, 500),
        ),
    ],
    ..kind(
        "latency-spikes",
        "F13",
        "the relay holds the packets of all links back now and then, all to the same moment",
        |order| LinkFault::begin(order, STANDSTILLS),
    )
};

const STANDSTILLS: Deed = Deed {
    install: |link, order| {
        link.spike = Some(Spike {
            calm_ms: order.told("calm_ms").max(1),
            spike_ms: order.told("spike_ms").max(1),
        });
    },
    heal: |link| link.spike = None,
    felt: |counters| counters.delayed,
    ..EVERYWHERE
};

/// Packets that come twice, again much later, and out of order.
pub(super) const REPEAT: Kind = Kind {
    damages: false,
    target: Target::Cluster,
    with: &[
        PERCENT,
        time_ms("again_after_ms", "after which a packet comes again", (200, 3_000)),
    ],
    ..kind(
        "repeat",
        "F14",
        "the relay duplicates, replays and reorders packets of all links",
        |order| {
            LinkFault::begin(
                order,
                Deed {
                    install: |link, order| {
                        (link.duplicate, link.reorder, link.replay) =
                            (share(order), share(order), share(order));
                        link.replay_after_ms = order.told("again_after_ms");
                    },
                    heal: |link| (link.duplicate, link.reorder, link.replay) = (0.0, 0.0, 0.0),
                    felt: |counters| counters.duplicated.min(counters.reordered).min(counters.replayed),
                    ..EVERYWHERE
                },
            )
        },
    )
};

/// Packets with another bit.
pub(super) const CORRUPT: Kind = Kind {
    damages: false,
    target: Target::Cluster,
    with: &[PERCENT],
    ..kind(
        "corrupt",
        "F15",
        "the relay flips a bit in packets of all links",
        |order| {
            LinkFault::begin(
                order,
                Deed {
                    install: |link, order| link.corrupt = share(order),
                    heal: |link| link.corrupt = 0.0,
                    felt: |counters| counters.corrupted,
                    ..EVERYWHERE
                },
            )
        },
    )
};

/// Links that carry little.
pub(super) const SLOW_LINK: Kind = Kind {
    in_containers: Some("rules of `iptables`: `-m hashlimit`, with room for 64 KiB"),
    with: &[Parameter {
        name: "kbit_per_s",
        meaning: "thousand bits that pass each second",
        usual: (64, 1_000),
        min: 8,
        max: 1_000_000,
    }],
    ..kind(
        "slow-link",
        "F16",
        "the relay sends from and to the nodes no faster than it is told, and drops what its queue cannot hold",
        |order| {
            LinkFault::begin(
                order,
                Deed {
                    silences: false,
                    install: |link, order| {
                        link.rate_bits_per_s = Some(order.told("kbit_per_s").max(8) * 1_000)
                    },
                    heal: |link| link.rate_bits_per_s = None,
                    felt: |counters| counters.delayed + counters.dropped(Cause::RateQueueFull),
                    ..CUT
                },
            )
        },
    )
};

/// A path that swallows large packets.
pub(super) const MTU_HOLE: Kind = Kind {
    in_containers: Some("rules of `iptables`: `-m length`"),
    damages: false,
    target: Target::Cluster,
    with: &[Parameter {
        name: "bytes",
        meaning: "of the largest packet that passes",
        usual: (1_200, 1_400),
        min: 1_200,
        max: 65_000,
    }],
    ..kind(
        "mtu-hole",
        "F17",
        "the relay drops the large packets of all links",
        |order| {
            LinkFault::begin(
                order,
                Deed {
                    install: |link, order| link.drop_larger_than = Some(order.told("bytes") as usize),
                    heal: |link| link.drop_larger_than = None,
                    felt: |counters| counters.dropped(Cause::TooLarge),
                    ..EVERYWHERE
                },
            )
        },
    )
};

/// Another source port.
pub(super) const REBIND: Kind = Kind {
    damages: false,
    target: Target::Cluster,
    for_ms: (500, 1_000),
    ..kind(
        "rebind",
        "F18",
        "the relay sends the packets of all links from other ports",
        |order| {
            LinkFault::begin(
                order,
                Deed {
                    rebinds: true,
                    install: |_, _| {},
                    heal: |_| {},
                    felt: |counters| counters.rebound,
                    ..EVERYWHERE
                },
            )
        },
    )
};

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::faults::Order;
    use crate::relay::faults::LinkFaults;
    use crate::relay::impairer::{Impairer, Verdict};

    #[test]
    fn runs_of_losses_take_the_share_that_is_asked_for_whatever_their_length() {
        for (percent, packets) in [(1, 4), (10, 8), (30, 64), (90, 10)] {
            let share = f64::from(percent) / 100.0;
            let mut link = Impairer::new(3);
            link.set(LinkFaults {
                burst: run_begins(share, packets),
                burst_packets: packets,
                ..LinkFaults::default()
            });
            let all = 200_000;
            let lost = (0..all)
                .filter(|_| link.handle_packet(Duration::ZERO, 1) == Verdict::Drop(Cause::Burst))
                .count();
            let found = lost as f64 / f64::from(all);
            assert!(
                (found / share - 1.0).abs() < 0.15,
                "{found}, not {share}, in runs of {packets}"
            );
        }
    }

    #[test]
    fn what_a_scenario_may_say_is_within_what_a_link_can_be_told_and_is_taken_back() {
        let extremes: [fn(&Parameter) -> u64; 2] = [|parameter| parameter.min, |parameter| parameter.max];
        for (kind, deed) in [(&BURST_LOSS, IN_RUNS), (&SPIKES, STANDSTILLS)] {
            for extreme in extremes {
                let with = kind.with.iter().map(|one| (one.name, extreme(one)));
                let order = Order {
                    nodes: Vec::new(),
                    for_ms: 0,
                    with: with.collect(),
                    seed: 0,
                };
                let mut link = LinkFaults::default();
                (deed.install)(&mut link, &order);
                assert_eq!(link.validate(), Ok(()), "{} {order:?}", kind.name);
                (deed.heal)(&mut link);
                let left = (link.burst, link.spike);
                assert_eq!(left, (0.0, None), "{}", kind.name);
            }
        }
    }
}
