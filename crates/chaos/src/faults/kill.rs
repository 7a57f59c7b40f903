//! F01 and F02: SIGKILL, to one node or to many, and their return.
//!
//! Source: `docs/chaos.md`, fault list. Many return in a random order, each up to half a second after the
//! one before, and none waits for another to be ready: with no majority none would be.

use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::join_all;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::{Fault, FaultError, Field, Kind, Order, Parameter, Step, indeterminate};
use crate::scenario::target::Target;

/// One node.
pub(super) const KIND: Kind = Kind {
    how: "SIGKILL to the node's process; started again with the same data",
    in_containers: Some("`docker kill`, then `docker start`"),
    is_watched: true,
    target: Target::MostLeaders,
    ..Kind::new("kill", "F01", |order| Box::new(Kill { order }))
};

/// A majority or all.
pub(super) const MANY: Kind = Kind {
    how: "SIGKILL to several nodes at once; started again in random order",
    in_containers: Some("`docker kill` of several at once; started again in random order"),
    target: Target::All,
    with: &[Parameter {
        name: "stagger_ms",
        meaning: "milliseconds between two starts, drawn from 0 to this",
        usual: (500, 500),
        min: 0,
        max: 10_000,
    }],
    ..Kind::new("kill-many", "F02", |order| Box::new(Kill { order }))
};

struct Kill {
    order: Order,
}

impl Fault for Kill {
    fn install<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let before = field.candidates(&[]).await;
            let kills = join_all(self.order.nodes.iter().map(|node| field.kill(*node))).await;
            let lines = kills.into_iter().collect::<Result<Vec<_>, _>>()?;
            for node in &self.order.nodes {
                if !before.led_by(*node).is_empty() {
                    field.reached("leader-killed");
                }
                if before.directory_leader == Some(*node) {
                    field.reached("directory-leader-killed");
                }
            }
            let led: usize = self
                .order
                .nodes
                .iter()
                .map(|node| before.led_by(*node).len())
                .sum();
            Ok(format!("{}, leading {led} shards", lines.join(", ")))
        }
        .boxed_local()
    }

    fn confirm<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            if let Some(alive) = self.order.nodes.iter().find(|node| field.is_running(**node)) {
                return Err(indeterminate(format!("node {} runs", alive + 1)));
            }
            if (0..field.node_count()).all(|node| !field.is_running(node)) {
                field.reached("all-down");
            }
            Ok("the process is gone".into())
        }
        .boxed_local()
    }

    fn heal<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let mut random = StdRng::seed_from_u64(self.order.seed);
            let mut nodes = self.order.nodes.clone();
            nodes.shuffle(&mut random);
            let mut started = Vec::new();
            for (place, node) in nodes.iter().enumerate() {
                let stagger_ms = random.random_range(0..=self.order.told("stagger_ms"));
                if place > 0 {
                    tokio::time::sleep(Duration::from_millis(stagger_ms)).await;
                }
                if !field.is_running(*node) {
                    started.push((*node, field.spawn(*node).await?));
                }
            }
            let begun = tokio::time::Instant::now();
            let waits = started
                .into_iter()
                .map(|(node, starting)| async move { field.ready(node, starting).await });
            join_all(waits)
                .await
                .into_iter()
                .collect::<Result<(), FaultError>>()?;
            let names: Vec<String> = nodes.iter().map(|node| format!("node {}", node + 1)).collect();
            Ok(format!(
                "{} back, ready after {:.1} s",
                names.join(", "),
                begun.elapsed().as_secs_f64()
            ))
        }
        .boxed_local()
    }
}
