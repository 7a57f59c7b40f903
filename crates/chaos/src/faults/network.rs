//! F08 to F18: the network between nodes is cut, loses, delays, repeats, reorders, spoils, throttles.
//!
//! Source: `docs/chaos.md`, fault list. Carried by the [`relay`](crate::relay), which stands before all nodes
//! of a run that names one of these kinds, or by the kernel where each node has a network
//! [namespace](crate::namespaces) of its own. Faults of several kinds add up on a link; each takes back its own.

use std::sync::Arc;
use std::time::Duration;

use dunlin_node::local::LocalOptions;
use futures_util::FutureExt as _;
use tokio::time::{Instant, sleep};

use super::{
    Fault, FaultError, Field, Gear, Kind, NOTHING_DONE, Order, Parameter, Step, indeterminate, isolation,
    skipped,
};
use crate::namespaces::Namespaces;
use crate::relay::carrier::{Carrier, Ends};
use crate::relay::faults::{Cause, Flap, LinkCounters, LinkFaults};
use crate::relay::{RELAY_NODES_MAX, Relay, RelayOptions, relay_host};
use crate::scenario::target::Target;

/// Time for packets to meet a fault. Nodes that are idle say something four times a second.
const FELT_TIMEOUT: Duration = Duration::from_secs(5);
/// Between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(10);
/// Draws what the links draw.
const RELAY_SEED: u64 = 1;

/// Which links a kind meets, from the view of its nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    /// All from and to them.
    Both,
    /// Those from them, or those to them, as it is told.
    OneWay,
    /// Those between all others.
    Others,
    /// All there are.
    All,
}

/// What a kind does to its links, and how it sees that they felt it.
#[derive(Debug, Clone, Copy)]
struct Deed {
    reach: Reach,
    /// Whether the nodes cannot be asked meanwhile.
    silences: bool,
    /// Whether the links get other ports.
    rebinds: bool,
    install: fn(&mut LinkFaults, &Order),
    heal: fn(&mut LinkFaults),
    felt: fn(&LinkCounters) -> u64,
}

const PERCENT: Parameter = Parameter {
    name: "percent",
    meaning: "share of packets",
    usual: (1, 10),
    min: 1,
    max: 100,
};
const fn time_ms(name: &'static str, meaning: &'static str, usual: (u64, u64)) -> Parameter {
    Parameter {
        name,
        meaning,
        usual,
        min: 0,
        max: 10_000,
    }
}

fn share(order: &Order) -> f64 {
    order.told("percent") as f64 / 100.0
}

const CUT: Deed = Deed {
    reach: Reach::Both,
    silences: true,
    rebinds: false,
    install: |link, _| link.cut = true,
    heal: |link| link.cut = false,
    felt: |counters| counters.dropped(Cause::Cut),
};

const fn kind(
    name: &'static str,
    number: &'static str,
    how: &'static str,
    begin: fn(Order) -> Box<dyn Fault>,
) -> Kind {
    Kind {
        how,
        prepare: Some(prepare),
        ..Kind::new(name, number, begin)
    }
}

/// Nodes that nobody reaches.
pub(super) const PARTITION: Kind = Kind {
    in_containers: Some("`docker network disconnect` of each network, then `docker network connect`"),
    begin_in_containers: Some(isolation::begin),
    is_watched: true,
    target: Target::MostLeaders,
    ..kind(
        "partition",
        "F08",
        "the relay drops every packet from and to the nodes",
        |order| LinkFault::begin(order, CUT),
    )
};

/// Nodes that hear and are not heard, or the other way.
pub(super) const ONE_WAY: Kind = Kind {
    is_watched: true,
    target: Target::MostLeaders,
    with: &[Parameter {
        name: "inbound",
        meaning: "1 drops what comes to the nodes, 0 what they send",
        usual: (0, 1),
        min: 0,
        max: 1,
    }],
    ..kind(
        "one-way",
        "F09",
        "the relay drops every packet of one direction",
        |order| {
            LinkFault::begin(
                order,
                Deed {
                    reach: Reach::OneWay,
                    ..CUT
                },
            )
        },
    )
};

/// One node that all reach, and none that reach each other.
pub(super) const BRIDGE: Kind = kind(
    "bridge",
    "F10",
    "the relay drops every packet between all but the node",
    |order| {
        LinkFault::begin(
            order,
            Deed {
                reach: Reach::Others,
                silences: false,
                ..CUT
            },
        )
    },
);

/// Links that come and go.
pub(super) const FLAP: Kind = Kind {
    with: &[
        time_ms("up_ms", "for which the links pass", (50, 500)),
        time_ms("down_ms", "for which they drop", (1, 500)),
    ],
    ..kind("flap", "F11", "the relay passes and drops in turn", |order| {
        LinkFault::begin(
            order,
            Deed {
                install: |link, order| {
                    link.flap = Some(Flap {
                        up_ms: order.told("up_ms").max(1),
                        down_ms: order.told("down_ms").max(1),
                    });
                },
                heal: |link| link.flap = None,
                felt: |counters| counters.dropped(Cause::Flap),
                ..CUT
            },
        )
    })
};

/// A kind of all links, which no node is silenced by.
const EVERYWHERE: Deed = Deed {
    reach: Reach::All,
    silences: false,
    ..CUT
};

/// Losses, each by itself.
pub(super) const LOSS: Kind = Kind {
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

/// Puts the relay before all nodes that a local cluster can have, so that those that join later are behind it.
fn prepare(local: &mut LocalOptions, gear: &mut Gear) -> Result<(), String> {
    if gear.get::<Relay>().is_some() || gear.get::<Namespaces>().is_some() {
        return Ok(());
    }
    let relay = Relay::start(&RelayOptions {
        nodes: RELAY_NODES_MAX,
        cluster_port: local.cluster_port,
        door_ports: Vec::new(),
        seed: RELAY_SEED,
    });
    gear.put(relay.map_err(|error| error.to_string())?);
    local.advertised_host = Some(relay_host);
    Ok(())
}

fn carrier(field: &Field) -> Result<Arc<dyn Carrier>, FaultError> {
    if let Some(relay) = field.gear.get::<Relay>() {
        return Ok(relay);
    }
    let namespaces = field.gear.get::<Namespaces>();
    namespaces
        .map(|namespaces| namespaces as Arc<dyn Carrier>)
        .ok_or_else(|| skipped("there is neither relay nor namespaces"))
}

struct LinkFault {
    order: Order,
    deed: Deed,
    /// The links that it meets; none before it is known that it can be done.
    links: Vec<Ends>,
    /// What they had felt before.
    felt_before: u64,
    from_us: u64,
}

impl LinkFault {
    fn begin(order: Order, deed: Deed) -> Box<dyn Fault> {
        Box::new(LinkFault {
            order,
            deed,
            links: Vec::new(),
            felt_before: 0,
            from_us: 0,
        })
    }

    fn meets(&self, from: usize, to: usize) -> bool {
        let (is_from, is_to) = (self.order.nodes.contains(&from), self.order.nodes.contains(&to));
        from != to
            && match self.deed.reach {
                Reach::Both => is_from || is_to,
                Reach::OneWay if self.order.told("inbound") == 1 => is_to && !is_from,
                Reach::OneWay => is_from && !is_to,
                Reach::Others => !is_from && !is_to,
                Reach::All => true,
            }
    }

    /// What links have felt since they exist.
    fn felt(&self, carrier: &dyn Carrier, links: &[Ends]) -> Result<u64, FaultError> {
        let counters = carrier.counters(links).map_err(indeterminate)?;
        Ok(counters.iter().map(self.deed.felt).sum())
    }

    /// What links are to be told, each beside what it is told already.
    fn told(
        carrier: &dyn Carrier,
        links: &[Ends],
        change: impl Fn(&mut LinkFaults),
    ) -> Vec<(Ends, LinkFaults)> {
        let changed = |link: &Ends| {
            let mut faults = carrier.faults(*link);
            change(&mut faults);
            (*link, faults)
        };
        links.iter().map(changed).collect()
    }
}

impl Fault for LinkFault {
    fn install<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let carrier = carrier(field)?;
            let nodes = 0..field.node_count().min(carrier.node_count());
            let pairs = nodes
                .clone()
                .flat_map(|from| nodes.clone().map(move |to| (from, to)));
            let links: Vec<Ends> = pairs.filter(|(from, to)| self.meets(*from, *to)).collect();
            let told = Self::told(&*carrier, &links, |link| (self.deed.install)(link, &self.order));
            for (_, faults) in &told {
                carrier.check(faults, self.deed.rebinds).map_err(skipped)?;
            }
            self.felt_before = self.felt(&*carrier, &links)?;
            self.links = links;
            self.from_us = field.now_us();
            if self.deed.silences {
                for node in &self.order.nodes {
                    field.hub.set_down(*node, true);
                }
            }
            carrier.set(&told).map_err(indeterminate)?;
            for link in self.links.iter().filter(|_| self.deed.rebinds) {
                carrier.rebind(*link);
            }
            Ok(format!("{} links told", self.links.len()))
        }
        .boxed_local()
    }

    fn confirm<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let carrier = carrier(field)?;
            let deadline = Instant::now() + FELT_TIMEOUT;
            loop {
                match self.felt(&*carrier, &self.links)? - self.felt_before {
                    0 if Instant::now() >= deadline => {
                        return Err(indeterminate("no packet has met it"));
                    }
                    0 => sleep(LOOK_PAUSE).await,
                    count => return Ok(format!("{count} packets have met it")),
                }
            }
        }
        .boxed_local()
    }

    fn heal<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let carrier = carrier(field)?;
            if self.links.is_empty() {
                return Ok(NOTHING_DONE.to_owned());
            }
            let told = Self::told(&*carrier, &self.links, self.deed.heal);
            let healed = carrier.set(&told).map_err(indeterminate);
            if self.deed.silences {
                for node in &self.order.nodes {
                    field.hub.set_down(*node, false);
                    field.disturbed(*node, self.from_us);
                }
            }
            healed?;
            let felt = self.felt(&*carrier, &self.links)? - self.felt_before;
            Ok(format!("mended; {felt} packets had met it"))
        }
        .boxed_local()
    }
}
