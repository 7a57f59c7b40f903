//! F08 to F18: the links between nodes do what they are told, and are told otherwise again.
//!
//! Source: `docs/chaos.md`, fault list. What there is to tell is in [`super::partitions`] and
//! [`super::weather`], which links it meets in [`super::reach`]. Carried by the [`relay`](crate::relay), which
//! stands before all nodes of a run that names one of these kinds, or by the kernel where each node has a network
//! [namespace](crate::namespaces) of its own. Faults of several kinds add up on a link; each takes back its own.

use std::sync::Arc;
use std::time::Duration;

use dunlin_node::local::LocalOptions;
use futures_util::FutureExt as _;

use super::reach::Reach;
use super::{
    Fault, FaultError, Field, Gear, Kind, NOTHING_DONE, Order, Parameter, Step, indeterminate, look_until,
    skipped,
};
use crate::namespaces::gates::Gates;
use crate::nodes::compose::Outfit;
use crate::relay::carrier::{Carrier, Ends};
use crate::relay::faults::{Cause, LinkCounters, LinkFaults};
use crate::relay::{RELAY_NODES_MAX, Relay, RelayOptions, relay_host};

/// Time for packets to meet a fault. Nodes that are idle say something four times a second.
const FELT_TIMEOUT: Duration = Duration::from_secs(5);
/// Draws what the links draw.
const RELAY_SEED: u64 = 1;

/// What a kind does to its links, and how it sees that they felt it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Deed {
    pub(super) reach: Reach,
    /// Whether the nodes cannot be asked meanwhile.
    pub(super) silences: bool,
    /// Whether the links get other ports.
    pub(super) rebinds: bool,
    pub(super) install: fn(&mut LinkFaults, &Order),
    pub(super) heal: fn(&mut LinkFaults),
    pub(super) felt: fn(&LinkCounters) -> u64,
}

pub(super) const PERCENT: Parameter = Parameter {
    name: "percent",
    meaning: "share of packets",
    usual: (1, 10),
    min: 1,
    max: 100,
};

pub(super) const fn time_ms(name: &'static str, meaning: &'static str, usual: (u64, u64)) -> Parameter {
    Parameter {
        name,
        meaning,
        usual,
        min: 0,
        max: 10_000,
    }
}

pub(super) fn share(order: &Order) -> f64 {
    order.told("percent") as f64 / 100.0
}

/// Nothing passes any more, from the nodes or to them.
pub(super) const CUT: Deed = Deed {
    reach: Reach::Both,
    silences: true,
    rebinds: false,
    install: |link, _| link.cut = true,
    heal: |link| link.cut = false,
    felt: |counters| counters.dropped(Cause::Cut),
};

pub(super) const fn kind(
    name: &'static str,
    number: &'static str,
    how: &'static str,
    begin: fn(Order) -> Box<dyn Fault>,
) -> Kind {
    Kind {
        how,
        prepare: Some(prepare),
        prepare_in_containers: Some(prepare_in_containers),
        ..Kind::new(name, number, begin)
    }
}

/// Puts the relay before all nodes that a local cluster can have, so that those that join later are behind it.
fn prepare(local: &mut LocalOptions, gear: &mut Gear) -> Result<(), String> {
    if gear.get::<Relay>().is_some() || gear.get::<Gates>().is_some() {
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

/// Has a gate stand before the network of each container.
fn prepare_in_containers(outfit: &mut Outfit, gear: &mut Gear) -> Result<(), String> {
    if outfit.gates.is_none() {
        Gates::check_machine()?;
        gear.put(Gates::default());
        outfit.gates = gear.get();
    }
    Ok(())
}

pub(super) fn carrier(field: &Field) -> Result<Arc<dyn Carrier>, FaultError> {
    if let Some(relay) = field.gear.get::<Relay>() {
        return Ok(relay);
    }
    let gates = field.gear.get::<Gates>();
    gates
        .map(|gates| gates as Arc<dyn Carrier>)
        .ok_or_else(|| skipped("there is neither relay nor namespaces"))
}

/// Looks until packets have met a fault, and says how many.
pub(super) async fn wait_until_felt(
    felt: impl Fn() -> Result<u64, FaultError>,
) -> Result<String, FaultError> {
    let look = || {
        let count = felt()?;
        Ok((count > 0).then(|| format!("{count} packets have met it")))
    };
    look_until(FELT_TIMEOUT, "no packet has met it", look).await
}

/// Links that do something else for a while.
pub(super) struct LinkFault {
    order: Order,
    deed: Deed,
    /// The links that it meets; none before it is known that it can be done.
    links: Vec<Ends>,
    /// What they had felt before.
    felt_before: u64,
    from_us: u64,
}

impl LinkFault {
    pub(super) fn begin(order: Order, deed: Deed) -> Box<dyn Fault> {
        Box::new(LinkFault {
            order,
            deed,
            links: Vec::new(),
            felt_before: 0,
            from_us: 0,
        })
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
            let count = field.node_count().min(carrier.node_count());
            let links = self.deed.reach.links(&self.order, count);
            if links.is_empty() {
                return Err(skipped(format!("{count} nodes have no such links")));
            }
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
            wait_until_felt(|| Ok(self.felt(&*carrier, &self.links)? - self.felt_before)).await
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
