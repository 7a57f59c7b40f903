//! F11: nodes are clogged one after the other, and freed one after the other in another order.
//!
//! Source: `docs/chaos.md`, fault list; the name is FoundationDB's. Between the first and the last step every
//! set of nodes that still reach each other is another one, so leaders are elected that the next step takes.
//! A clogged node reaches nobody, and nobody reaches it.

use std::collections::BTreeSet;
use std::time::Duration;

use futures_util::FutureExt as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::sleep;

use super::network::{carrier, kind, wait_until_felt};
use super::reach::Reach;
use super::{Fault, FaultError, Field, Kind, NOTHING_DONE, Order, Parameter, Step, indeterminate, skipped};
use crate::relay::carrier::{Carrier, Ends};
use crate::relay::faults::{Cause, LinkFaults};
use crate::scenario::target::Target;

/// The kind.
pub(super) const KIND: Kind = Kind {
    in_containers: Some("rules of `iptables`: all packets from and to one after the other"),
    target: Target::All,
    for_ms: (500, 3_000),
    with: &[Parameter {
        name: "apart_ms",
        meaning: "milliseconds between two steps, drawn from 0 to this",
        usual: (200, 1_000),
        min: 0,
        max: 10_000,
    }],
    ..kind(
        "swizzle",
        "F11",
        "the relay drops every packet from and to one node after the other, and lets them through again in another order",
        |order| {
            Box::new(Swizzle {
                order,
                clogged: BTreeSet::new(),
                from_us: 0,
                felt_before: 0,
            })
        },
    )
};

struct Swizzle {
    order: Order,
    clogged: BTreeSet<usize>,
    from_us: u64,
    felt_before: u64,
}

/// Two orders of the same nodes: in which they are clogged, and in which they are freed.
fn orders(nodes: &[usize], random: &mut StdRng) -> [Vec<usize>; 2] {
    let mut clogged = nodes.to_vec();
    clogged.shuffle(random);
    let mut freed = clogged.clone();
    // Two nodes have two orders only, of which one is drawn already.
    while freed == clogged && nodes.len() > 1 {
        freed.shuffle(random);
    }
    [clogged, freed]
}

/// All links from and to a node, each with whether it drops everything now.
fn links_of(node: usize, clogged: &BTreeSet<usize>, count: usize) -> Vec<(Ends, bool)> {
    let others = (0..count).filter(|other| *other != node);
    let both = others.flat_map(|other| [(node, other), (other, node)]);
    both.map(|(from, to)| ((from, to), clogged.contains(&from) || clogged.contains(&to)))
        .collect()
}

impl Swizzle {
    /// What it draws; the same each time.
    fn random(&self) -> StdRng {
        StdRng::seed_from_u64(self.order.seed)
    }

    /// Tells the links of a node whether they pass now.
    fn tell(&self, carrier: &dyn Carrier, node: usize, count: usize) -> Result<(), FaultError> {
        let links = links_of(node, &self.clogged, count).into_iter();
        let told: Vec<(Ends, LinkFaults)> = links
            .map(|(link, cut)| {
                let faults = carrier.faults(link);
                (link, LinkFaults { cut, ..faults })
            })
            .collect();
        carrier.set(&told).map_err(indeterminate)
    }

    async fn wait(&self, random: &mut StdRng) {
        let apart_ms = random.random_range(0..=self.order.told("apart_ms"));
        sleep(Duration::from_millis(apart_ms)).await;
    }

    /// What all links between `count` nodes have dropped since they exist.
    fn felt(&self, carrier: &dyn Carrier, count: usize) -> Result<u64, FaultError> {
        let links = Reach::All.links(&self.order, count);
        let counters = carrier.counters(&links).map_err(indeterminate)?;
        Ok(counters.iter().map(|link| link.dropped(Cause::Cut)).sum())
    }
}

fn names(nodes: &[usize]) -> String {
    let names: Vec<String> = nodes.iter().map(|node| (node + 1).to_string()).collect();
    names.join(", ")
}

impl Fault for Swizzle {
    fn install<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let carrier = carrier(field)?;
            let count = field.node_count().min(carrier.node_count());
            if self.order.nodes.iter().any(|node| *node >= count) {
                return Err(skipped("a node has no links of ours"));
            }
            carrier.check(&LinkFaults::cut(), false).map_err(skipped)?;
            self.felt_before = self.felt(&*carrier, count)?;
            self.from_us = field.now_us();
            let mut random = self.random();
            let [order, _] = orders(&self.order.nodes, &mut random);
            for (place, node) in order.iter().enumerate() {
                if place > 0 {
                    self.wait(&mut random).await;
                }
                self.clogged.insert(*node);
                self.tell(&*carrier, *node, count)?;
            }
            Ok(format!("clogged in this order: {}", names(&order)))
        }
        .boxed_local()
    }

    fn confirm<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let carrier = carrier(field)?;
            let count = field.node_count().min(carrier.node_count());
            wait_until_felt(|| Ok(self.felt(&*carrier, count)? - self.felt_before)).await
        }
        .boxed_local()
    }

    fn heal<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            if self.clogged.is_empty() {
                return Ok(NOTHING_DONE.into());
            }
            let carrier = carrier(field)?;
            let count = field.node_count().min(carrier.node_count());
            let mut random = self.random();
            let [_, order] = orders(&self.order.nodes, &mut random);
            let mut failed = None;
            for (place, node) in order.iter().enumerate() {
                if place > 0 {
                    self.wait(&mut random).await;
                }
                self.clogged.remove(node);
                // The others are freed all the same.
                let told = self.tell(&*carrier, *node, count);
                failed = failed.or(told.err());
            }
            for node in &self.order.nodes {
                field.disturbed(*node, self.from_us);
            }
            match failed {
                None => Ok(format!("freed in this order: {}", names(&order))),
                Some(error) => Err(error),
            }
        }
        .boxed_local()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodes_are_freed_in_another_order_than_they_were_clogged_in() {
        for seed in 0..50 {
            for nodes in [vec![0, 1], vec![0, 2, 4], vec![0, 1, 2, 3, 4]] {
                let [clogged, freed] = orders(&nodes, &mut StdRng::seed_from_u64(seed));
                assert_ne!(clogged, freed, "seed {seed}");
                let sorted = |mut order: Vec<usize>| {
                    order.sort_unstable();
                    order
                };
                assert_eq!((sorted(clogged), sorted(freed)), (nodes.clone(), nodes));
            }
        }
        let [clogged, freed] = orders(&[3], &mut StdRng::seed_from_u64(1));
        assert_eq!((clogged, freed), (vec![3], vec![3]));
    }

    #[test]
    fn a_link_passes_again_when_both_its_ends_are_free() {
        let passing = |clogged: &[usize]| {
            let clogged = clogged.iter().copied().collect();
            let links = links_of(0, &clogged, 3).into_iter();
            links
                .filter_map(|(link, cut)| (!cut).then_some(link))
                .collect::<Vec<_>>()
        };
        assert_eq!(passing(&[]), [(0, 1), (1, 0), (0, 2), (2, 0)]);
        assert_eq!(passing(&[2]), [(0, 1), (1, 0)]);
        assert_eq!(passing(&[0]), []);
    }
}
