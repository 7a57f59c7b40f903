//! F05, F28, F29: what a node does to itself when it is told to, over its own door for operators.
//!
//! Source: `docs/chaos.md`, fault list. A shard's or a device's actor panics over the next thing it handles;
//! the wall clock is set wrong, or runs fast or slow. Carried by nodes that were started with
//! `--allow-faults`; what they do then is [`dunlin_node::faults`]'.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use dunlin_node::faults::{Orders, Report, Skew};
use dunlin_node::local::LocalOptions;
use futures_util::FutureExt as _;
use reqwest::Method;
use tokio::time::{Instant, sleep};

use super::{
    Fault, FaultError, Field, Gear, Kind, NOTHING_DONE, Order, Parameter, Step, indeterminate, skipped,
};
use crate::nodes::compose::Outfit;
use crate::scenario::target::Target;

/// Has a node take orders.
const ALLOW: &str = "--allow-faults";
/// The same in containers, which another file stands over for that.
const IN_CONTAINERS: Option<&str> =
    Some("the same, with `--allow-faults` added to what the file tells nodes");
/// Time for an order to take effect.
const EFFECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(50);
/// How far what a node goes by may be from the true time: its peers' clocks, and the way to it and back.
const AGREED_MS_MAX: u64 = 3_000;
/// Further than that and a node must say that its clock is wrong.
const STEP_S_MIN: u64 = 10;

/// Actors that panic.
pub(super) const PANIC: Kind = Kind {
    how: "the node makes an actor panic over the next thing it handles: a shard's, and devices'",
    target: Target::MostLeaders,
    alarms: &["an actor of the shard failed"],
    in_containers: IN_CONTAINERS,
    prepare: Some(allow),
    prepare_in_containers: Some(allow_in_containers),
    with: &[Parameter {
        name: "devices",
        meaning: "device actors that panic beside a shard's",
        usual: (0, 3),
        min: 0,
        max: 100,
    }],
    ..Kind::new("panic", "F05", |order| Box::new(Panic { order, before: None }))
};

/// A wall clock that is set wrong.
pub(super) const STEP: Kind = Kind {
    how: "the node's wall clock is set ahead or back",
    alarms: &["this machine's clock is wrong"],
    in_containers: IN_CONTAINERS,
    prepare: Some(allow),
    prepare_in_containers: Some(allow_in_containers),
    with: &[
        Parameter {
            name: "seconds",
            meaning: "by which it is wrong",
            usual: (3_600, 315_569_520),
            min: STEP_S_MIN,
            max: 3_155_695_200,
        },
        Parameter {
            name: "back",
            meaning: "0 for a clock that is ahead, 1 for one that is behind",
            usual: (0, 1),
            min: 0,
            max: 1,
        },
    ],
    ..Kind::new("clock-step", "F28", |order| {
        let skew = Skew {
            step_ms: signed(&order, "seconds", "back") * 1_000,
            ..Skew::default()
        };
        Box::new(Skewed::of(order, skew))
    })
};

/// Clocks that run fast or slow.
pub(super) const DRIFT: Kind = Kind {
    how: "the node's clocks run fast or slow",
    in_containers: IN_CONTAINERS,
    prepare: Some(allow),
    prepare_in_containers: Some(allow_in_containers),
    with: &[
        Parameter {
            name: "percent",
            meaning: "by which they are fast or slow",
            usual: (1, 10),
            min: 1,
            max: 50,
        },
        Parameter {
            name: "slow",
            meaning: "0 for clocks that are fast, 1 for clocks that are slow",
            usual: (0, 1),
            min: 0,
            max: 1,
        },
    ],
    ..Kind::new("clock-drift", "F29", |order| {
        let skew = Skew {
            rate_ppm: signed(&order, "percent", "slow") * 10_000,
            ..Skew::default()
        };
        Box::new(Skewed::of(order, skew))
    })
};

/// A wall clock that jumps to and fro.
pub(super) const STROBE: Kind = Kind {
    how: "the node's wall clock is wrong and right in turn",
    in_containers: IN_CONTAINERS,
    prepare: Some(allow),
    prepare_in_containers: Some(allow_in_containers),
    with: &[
        Parameter {
            name: "seconds",
            meaning: "by which it is wrong",
            usual: (1, 600),
            min: 1,
            max: 3_155_695_200,
        },
        Parameter {
            name: "every_ms",
            meaning: "after which it jumps",
            usual: (50, 1_000),
            min: 1,
            max: 60_000,
        },
    ],
    ..Kind::new("clock-strobe", "F29", |order| {
        let skew = Skew {
            step_ms: order.told("seconds") as i64 * 1_000,
            strobe_ms: order.told("every_ms"),
            ..Skew::default()
        };
        Box::new(Skewed::of(order, skew))
    })
};

/// Starts nodes that take orders.
#[expect(clippy::unnecessary_wraps, reason = "the shape of all kinds' preparations")]
fn allow(local: &mut LocalOptions, _: &mut Gear) -> Result<(), String> {
    add_allow(&mut local.arguments);
    Ok(())
}

/// The same for containers.
#[expect(clippy::unnecessary_wraps, reason = "the shape of all kinds' preparations")]
fn allow_in_containers(outfit: &mut Outfit, _: &mut Gear) -> Result<(), String> {
    add_allow(&mut outfit.arguments);
    Ok(())
}

fn add_allow(arguments: &mut Vec<String>) {
    if !arguments.iter().any(|told| told == ALLOW) {
        arguments.push(ALLOW.to_owned());
    }
}

/// A value of an order, made negative if `towards` is 1.
fn signed(order: &Order, value: &str, towards: &str) -> i64 {
    let told = order.told(value) as i64;
    if order.told(towards) == 1 { -told } else { told }
}

/// One attempt to give a node orders; what came of them.
async fn order(field: &Field, node: usize, orders: Orders) -> Result<Report, String> {
    let body = serde_json::to_vec(&orders).map_err(|error| error.to_string())?;
    ask(field, node, Method::POST, Some(body)).await
}

/// One attempt to see what came of the orders so far.
async fn look(field: &Field, node: usize) -> Result<Report, String> {
    ask(field, node, Method::GET, None).await
}

async fn ask(field: &Field, node: usize, method: Method, body: Option<Vec<u8>>) -> Result<Report, String> {
    let asked = field.hub.attempt(node, (method, "/faults"), None, body, None);
    let (status, answer) = asked.await?;
    if !status.is_success() {
        return Err(format!("{status}: {}", String::from_utf8_lossy(&answer)));
    }
    serde_json::from_slice(&answer).map_err(|error| error.to_string())
}

/// Looks until `is_so`; what was seen last if that is not so in time.
async fn wait_until(
    field: &Field,
    node: usize,
    is_so: impl Fn(&Report) -> bool,
) -> Result<Report, FaultError> {
    let deadline = Instant::now() + EFFECT_TIMEOUT;
    loop {
        match look(field, node).await {
            Ok(report) if is_so(&report) => return Ok(report),
            last if Instant::now() >= deadline => return Err(indeterminate(format!("{last:?}"))),
            _ => sleep(LOOK_PAUSE).await,
        }
    }
}

/// Seconds by which `wall_ms` is ahead of this machine's clock.
fn ahead_s(wall_ms: u64) -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (wall_ms as i64 - since.as_millis() as i64) / 1_000
}

struct Panic {
    order: Order,
    /// What the node had reported before.
    before: Option<Report>,
}

impl Panic {
    fn devices(&self) -> u32 {
        self.order.told("devices") as u32
    }
}

impl Fault for Panic {
    fn install<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let (node, devices) = (self.order.node(), self.devices());
            let before = look(field, node).await.map_err(skipped)?;
            self.before = Some(before);
            let orders = Orders {
                shard_panics: Some(1),
                device_panics: Some(devices),
                ..Orders::default()
            };
            order(field, node, orders).await.map_err(indeterminate)?;
            Ok(format!(
                "node {} is told to let one shard's actor panic, and {devices} devices'",
                node + 1
            ))
        }
        .boxed_local()
    }

    fn confirm<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let before = self.before.ok_or_else(|| indeterminate("it was not told"))?;
            let shards = before.shards_panicked + 1;
            let seen = wait_until(field, self.order.node(), |report| {
                report.shards_panicked >= shards
            });
            let report = seen.await?;
            Ok(format!(
                "a shard's actor has panicked, and {} devices'",
                report.devices_panicked - before.devices_panicked
            ))
        }
        .boxed_local()
    }

    fn heal<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let Some(before) = self.before.take() else {
                return Ok(NOTHING_DONE.into());
            };
            let orders = Orders {
                shard_panics: Some(0),
                device_panics: Some(0),
                ..Orders::default()
            };
            let told = order(field, self.order.node(), orders).await;
            let report = told.map_err(indeterminate)?;
            Ok(format!(
                "{} shards' actors have panicked and {} devices'",
                report.shards_panicked - before.shards_panicked,
                report.devices_panicked - before.devices_panicked
            ))
        }
        .boxed_local()
    }
}

struct Skewed {
    order: Order,
    skew: Skew,
    is_told: bool,
}

impl Skewed {
    fn of(order: Order, skew: Skew) -> Self {
        Self {
            order,
            skew,
            is_told: false,
        }
    }

    async fn tell(&self, field: &Field, skew: Skew) -> Result<Report, String> {
        let orders = Orders {
            clock: Some(skew),
            ..Orders::default()
        };
        order(field, self.order.node(), orders).await
    }
}

impl Fault for Skewed {
    fn install<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let node = self.order.node();
            look(field, node).await.map_err(skipped)?;
            self.is_told = true;
            let report = self.tell(field, self.skew).await.map_err(indeterminate)?;
            let Skew { rate_ppm, .. } = self.skew;
            Ok(match rate_ppm {
                0 => format!(
                    "node {}: its clock is {} s ahead",
                    node + 1,
                    ahead_s(report.own_wall_ms)
                ),
                _ => format!("node {}: its clocks run {} % fast", node + 1, rate_ppm / 10_000),
            })
        }
        .boxed_local()
    }

    /// A step must be seen in the node's own clock and not in what it goes by; of a drift nothing is to be seen
    /// within seconds but that it goes by the true time as well.
    fn confirm<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let is_right = |wall_ms: u64| ahead_s(wall_ms).unsigned_abs() * 1_000 <= AGREED_MS_MAX;
            let is_step = self.skew.step_ms != 0 && self.skew.strobe_ms == 0;
            let seen = wait_until(field, self.order.node(), |report| {
                is_right(report.agreed_wall_ms) && (!is_step || !is_right(report.own_wall_ms))
            });
            let report = seen.await?;
            Ok(format!(
                "its clock is {} s ahead, what it goes by {} s",
                ahead_s(report.own_wall_ms),
                ahead_s(report.agreed_wall_ms)
            ))
        }
        .boxed_local()
    }

    fn heal<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            if !self.is_told {
                return Ok(NOTHING_DONE.into());
            }
            let told = self.tell(field, Skew::default()).await;
            let report = told.map_err(indeterminate)?;
            Ok(format!("its clock is {} s ahead", ahead_s(report.own_wall_ms)))
        }
        .boxed_local()
    }
}
