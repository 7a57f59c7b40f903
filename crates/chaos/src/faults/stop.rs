//! F04: a node is asked to end, as for an update, and comes back.
//!
//! Source: `docs/chaos.md`, fault list. It hands its leaderships over first, so its shards should hardly
//! stand still.

use futures_util::FutureExt as _;

use super::{Fault, Field, Kind, Order, Step, indeterminate};
use crate::scenario::target::Target;

/// The kind.
pub(super) const KIND: Kind = Kind {
    how: "SIGTERM; the node must end by itself with exit code 0, and is started again",
    in_containers: Some("`docker stop`; the node must end by itself with exit code 0"),
    is_watched: true,
    target: Target::MostLeaders,
    ..Kind::new("stop", "F04", |order| {
        Box::new(Stop {
            order,
            is_clean: false,
        })
    })
};

struct Stop {
    order: Order,
    is_clean: bool,
}

impl Fault for Stop {
    fn install<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let begun = tokio::time::Instant::now();
            let ended = field.terminate(self.order.node()).await?;
            self.is_clean = ended.is_clean;
            let took_s = begun.elapsed().as_secs_f64();
            Ok(format!(
                "SIGTERM to node {}, which ended after {took_s:.1} s with {}",
                self.order.node() + 1,
                ended.how
            ))
        }
        .boxed_local()
    }

    fn confirm<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            match self.is_clean {
                true => Ok("it ended by itself".into()),
                false => {
                    field.died(self.order.node(), "it did not end with exit code 0");
                    Err(indeterminate("it did not end with exit code 0"))
                }
            }
        }
        .boxed_local()
    }

    fn heal<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move { field.start(self.order.node()).await }.boxed_local()
    }
}
