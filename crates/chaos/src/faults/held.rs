//! F07 and F30 in containers: a node that Docker holds to less processor time, or to no more memory.
//!
//! Source: `docs/chaos.md`, fault list. It counts as done once the node has met its limit. One that ends for
//! want of memory is started again by Docker, with the same limit, until the fault is healed. Between
//! processes a control group of our own does it, which is in [`super::starve`] and [`super::limits`].

use std::time::Duration;

use futures_util::FutureExt as _;

use super::{Fault, Field, NOTHING_DONE, Order, Step, look_until, skipped};
use crate::nodes::Resource;

/// Time for a limit to be met.
const MET_TIMEOUT: Duration = Duration::from_secs(5);

struct Held {
    order: Order,
    resource: Resource,
    /// How often it had met a limit before.
    met_before: u64,
    from_us: Option<u64>,
}

/// A node that gets next to no processor time.
pub(super) fn starve(order: Order) -> Box<dyn Fault> {
    begin(order, Resource::Cpu)
}

/// A node that gets no more memory.
pub(super) fn memory(order: Order) -> Box<dyn Fault> {
    begin(order, Resource::Memory)
}

fn begin(order: Order, resource: Resource) -> Box<dyn Fault> {
    Box::new(Held {
        order,
        resource,
        met_before: 0,
        from_us: None,
    })
}

impl Held {
    fn amount(&self) -> u64 {
        match self.resource {
            Resource::Cpu => self.order.told("cpu_percent"),
            Resource::Memory => self.order.told("spare_mib") << 20,
        }
    }

    /// How often the node has met the limit since it is held to it.
    fn times_met(&self, field: &Field) -> u64 {
        let met = field.times_met(self.order.node(), self.resource);
        met.unwrap_or(0).saturating_sub(self.met_before)
    }
}

impl Fault for Held {
    fn install<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let node = self.order.node();
            field.pid(node)?;
            let met = field.times_met(node, self.resource);
            self.met_before = met.ok_or_else(|| skipped("its control group is not seen here"))?;
            self.from_us = Some(field.now_us());
            let line = field.hold(node, self.resource, self.amount()).await?;
            Ok(format!("node {} has {line}", node + 1))
        }
        .boxed_local()
    }

    fn confirm<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let node = self.order.node();
            let look = || {
                if field.ended_by_itself(node) {
                    return Ok(Some("the node has ended over it".to_owned()));
                }
                let met = self.times_met(field);
                Ok((met > 0).then(|| format!("it met the limit {met} times")))
            };
            look_until(MET_TIMEOUT, "it never met the limit", look).await
        }
        .boxed_local()
    }

    fn heal<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let node = self.order.node();
            let Some(from_us) = self.from_us else {
                return Ok(NOTHING_DONE.into());
            };
            let has_ended = field.ended_by_itself(node);
            let met = self.times_met(field);
            let let_go = field.let_go(node, self.resource).await;
            field.disturbed(node, from_us);
            let line = field.start(node).await?;
            let_go?;
            Ok(match has_ended {
                true => format!("it had ended over it; {line}"),
                false => format!("{line}; it had met the limit {met} times"),
            })
        }
        .boxed_local()
    }
}
