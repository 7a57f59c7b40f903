//! F08 in containers: nodes that nobody reaches, since they are taken out of their networks and put back.
//!
//! Source: `docs/chaos.md`, fault list. It counts as done once the others have asked a node and heard nothing.
//! Between processes the relay does it, which is in [`super::network`].

use std::time::Duration;

use futures_util::FutureExt as _;

use super::{Fault, Field, NOTHING_DONE, Order, Step, indeterminate};

/// Time for the others to find that a node is silent.
const SILENT_TIMEOUT: Duration = Duration::from_secs(10);

struct Isolation {
    order: Order,
    /// Nodes that may be out of their networks, and since when.
    gone: Vec<(usize, u64)>,
}

/// Isolates the nodes of an order.
pub(super) fn begin(order: Order) -> Box<dyn Fault> {
    Box::new(Isolation {
        order,
        gone: Vec::new(),
    })
}

impl Fault for Isolation {
    fn install<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let mut lines = Vec::new();
            for node in self.order.nodes.clone() {
                self.gone.push((node, field.now_us()));
                lines.push(field.isolate(node).await?);
            }
            Ok(lines.join(", "))
        }
        .boxed_local()
    }

    fn confirm<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let ids: Vec<String> = self
                .order
                .nodes
                .iter()
                .filter_map(|node| field.id(*node))
                .collect();
            let status = field
                .wait_until("the others hear nothing of it", SILENT_TIMEOUT, |status| {
                    let is_silent = |id: &String| {
                        let line = status.nodes.iter().find(|line| line.node == *id);
                        line.is_some_and(|line| !line.alive)
                    };
                    ids.iter().all(is_silent)
                })
                .await?;
            let alive = status.nodes.iter().filter(|line| line.alive).count();
            Ok(format!("the others hear nothing of it; {alive} nodes answer"))
        }
        .boxed_local()
    }

    fn heal<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            if self.gone.is_empty() {
                return Ok(NOTHING_DONE.into());
            }
            // Each is put back, also after one that cannot be.
            let (mut lines, mut reasons) = (Vec::new(), Vec::new());
            for (node, from_us) in std::mem::take(&mut self.gone) {
                match field.rejoin(node, from_us).await {
                    Ok(line) => lines.push(line),
                    Err(error) => reasons.push(error.to_string()),
                }
            }
            match reasons.is_empty() {
                true => Ok(lines.join(", ")),
                false => Err(indeterminate(reasons.join(", "))),
            }
        }
        .boxed_local()
    }
}
