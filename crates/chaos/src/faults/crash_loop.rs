//! F03: a node that crashes again and again, often before it is ready.
//!
//! Source: `docs/chaos.md`, fault list. The loop itself runs in `confirm`, which is over when the last
//! crash of the span has happened; so no other step may come between.

use std::time::Duration;

use futures_util::FutureExt as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::{Instant, sleep};

use super::{Fault, Field, Kind, Order, Parameter, Step};

/// The kind.
pub(super) const KIND: Kind = Kind {
    how: "SIGKILL every 200 to 2000 ms, started again at once",
    in_containers: Some("`docker kill` and `docker start` in turn"),
    for_ms: (6_000, 10_000),
    with: &[Parameter {
        name: "period_ms",
        meaning: "the longest time between two crashes; drawn from a tenth of it",
        usual: (2_000, 2_000),
        min: 200,
        max: 60_000,
    }],
    ..Kind::new("crash-loop", "F03", |order| Box::new(CrashLoop { order }))
};

struct CrashLoop {
    order: Order,
}

impl Fault for CrashLoop {
    fn install<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move { field.kill(self.order.node()).await }.boxed_local()
    }

    fn confirm<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let node = self.order.node();
            let mut random = StdRng::seed_from_u64(self.order.seed);
            let until = Instant::now() + Duration::from_millis(self.order.for_ms);
            let mut crashes = 1;
            while Instant::now() < until {
                // Whoever waits for it to be ready is not here: it is killed before or after.
                drop(field.spawn(node).await?);
                let period_ms = self.order.told("period_ms");
                sleep(Duration::from_millis(
                    random.random_range(period_ms / 10..=period_ms),
                ))
                .await;
                field.kill(node).await?;
                crashes += 1;
            }
            Ok(format!("node {} crashed {crashes} times", node + 1))
        }
        .boxed_local()
    }

    fn heal<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move { field.start(self.order.node()).await }.boxed_local()
    }
}
