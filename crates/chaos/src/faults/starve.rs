//! F07: a node that gets next to no processor time.
//!
//! Source: `docs/chaos.md`, fault list. Carried by a control group's quota, where one can be made: a hog
//! beside it would starve the devices that do the measuring just as well. In containers it is [`held`].

use std::time::Duration;

use futures_util::FutureExt as _;

use super::processes::{Group, PERIOD_US};
use super::{Fault, Field, Kind, NOTHING_DONE, Order, Parameter, Step, held, look_until, skipped};

/// Time for the quota to be met.
const THROTTLED_TIMEOUT: Duration = Duration::from_secs(5);

/// The kind.
pub(super) const KIND: Kind = Kind {
    how: "quota of a cpu control group",
    in_containers: Some("`docker update --cpu-quota`, and back"),
    begin_in_containers: Some(held::starve),
    for_ms: (3_000, 8_000),
    with: &[Parameter {
        name: "cpu_percent",
        meaning: "share of one core that is left",
        usual: (5, 10),
        min: 1,
        max: 100,
    }],
    ..Kind::new("starve", "F07", |order| {
        Box::new(Starve {
            order,
            group: None,
            from_us: None,
        })
    })
};

struct Starve {
    order: Order,
    group: Option<Group>,
    from_us: Option<u64>,
}

impl Starve {
    fn times_throttled(&self) -> u64 {
        let number = |group: &Group| group.number("cpu.stat", "nr_throttled");
        self.group.as_ref().and_then(number).unwrap_or(0)
    }
}

impl Fault for Starve {
    fn install<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let node = self.order.node();
            let pid = field.pid(node)?;
            let percent = self.order.told("cpu_percent");
            let from_us = field.now_us();
            let settings = [
                ("cpu.cfs_period_us", PERIOD_US.to_string()),
                ("cpu.cfs_quota_us", (PERIOD_US * percent / 100).to_string()),
            ];
            self.group = Some(Group::confine(pid, "cpu", &settings).map_err(skipped)?);
            self.from_us = Some(from_us);
            Ok(format!("node {} has {percent} % of a core", node + 1))
        }
        .boxed_local()
    }

    fn confirm<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let look = || match self.times_throttled() {
                0 => field.pid(self.order.node()).map(|_| None),
                _ => Ok(Some("it is throttled".to_owned())),
            };
            look_until(THROTTLED_TIMEOUT, "it was never throttled", look).await
        }
        .boxed_local()
    }

    fn heal<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let Some(from_us) = self.from_us else {
                return Ok(NOTHING_DONE.into());
            };
            let times = self.times_throttled();
            self.group = None;
            field.disturbed(self.order.node(), from_us);
            let line = field.start(self.order.node()).await?;
            Ok(format!("{line}; it was throttled {times} times"))
        }
        .boxed_local()
    }
}
