//! F06: a node stands still for a while and does not know it, as in a long collection or a migration of
//! its machine.
//!
//! Source: `docs/chaos.md`, fault list. Its sockets stay open, so peers and devices find out by silence.

use futures_util::FutureExt as _;

use super::{Fault, Field, Kind, Order, Step};
use crate::scenario::target::Target;

/// The kind.
pub(super) const KIND: Kind = Kind {
    how: "SIGSTOP, and SIGCONT when its time is over",
    in_containers: Some("`docker pause`, then `docker unpause`"),
    is_watched: true,
    target: Target::MostLeaders,
    for_ms: (50, 5_000),
    ..Kind::new("pause", "F06", |order| Box::new(Pause { order, from_us: None }))
};

struct Pause {
    order: Order,
    from_us: Option<u64>,
}

impl Fault for Pause {
    fn install<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            self.from_us = Some(field.now_us());
            field.pause(self.order.node()).await
        }
        .boxed_local()
    }

    fn confirm<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            field.wait_paused(self.order.node()).await?;
            Ok("it stands still".into())
        }
        .boxed_local()
    }

    fn heal<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let node = self.order.node();
            if !field.is_running(node) {
                return Ok(format!("node {} was taken down meanwhile", node + 1));
            }
            field.resume(node, self.from_us).await
        }
        .boxed_local()
    }
}
