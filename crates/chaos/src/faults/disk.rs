//! F20, F21, F23, F27: the disk below a node loses what was not synced, tears, spoils, stalls.
//!
//! Source: `docs/chaos.md`, fault list. What it refuses is in [`super::refusals`]. Carried by
//! [`chaosfs`](crate::chaosfs), which is mounted at the data directory of each node that a run begins with, if
//! the scenario names one of these kinds.

use std::sync::Arc;
use std::time::Duration;

use dunlin_node::local::LocalOptions;
use futures_util::FutureExt as _;
use futures_util::future::join_all;

use super::{
    Fault, FaultError, Field, Gear, Kind, NOTHING_DONE, Order, Parameter, Step, indeterminate, look_until,
    may_have_done, skipped,
};
use crate::chaosfs::ChaosFs;
use crate::chaosfs::faults::{DiskCounters, DiskFaults, Operation, Slowness};
use crate::chaosfs::pages::Tear;
use crate::nodes::Starting;
use crate::scenario::target::Target;

/// Time for an operation to meet a fault. A node under load syncs many times a second.
const FELT_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for a node that has to start first.
const FELT_AT_START_TIMEOUT: Duration = Duration::from_secs(20);
/// Time for a process that has given up its start to be gone.
const GONE_TIMEOUT: Duration = Duration::from_secs(5);

/// The disks of the nodes that a run begins with, by place.
struct Disks(Vec<ChaosFs>);

impl Disks {
    fn of(disks: &Option<Arc<Disks>>, node: usize) -> Result<&ChaosFs, FaultError> {
        let disk = disks.as_ref().and_then(|disks| disks.0.get(node));
        disk.ok_or_else(|| skipped(format!("node {} has no disk of ours", node + 1)))
    }
}

pub(super) const fn kind(
    name: &'static str,
    number: &'static str,
    how: &'static str,
    begin: fn(Order) -> Box<dyn Fault>,
) -> Kind {
    Kind {
        how,
        prepare: Some(prepare),
        ..Kind::new(name, number, begin)
    }
}

/// All that was not synced is gone.
pub(super) const POWER: Kind = Kind {
    is_watched: true,
    target: Target::MostLeaders,
    ..kind(
        "power-cut",
        "F20",
        "SIGKILL, and the file system below the node takes back all that was not synced",
        |order| PowerCut::begin(order, false),
    )
};

/// Some of it is there.
pub(super) const TORN: Kind = Kind {
    is_watched: true,
    target: Target::MostLeaders,
    ..kind(
        "torn-power-cut",
        "F21",
        "SIGKILL, and the file system below the node takes back some sectors of what was not synced",
        |order| PowerCut::begin(order, true),
    )
};

/// Reads that are wrong.
pub(super) const SPOIL: Kind = Kind {
    may_end: true,
    damages: true,
    target: Target::Follower,
    with: &[Parameter {
        name: "percent",
        meaning: "share of reads",
        usual: (5, 30),
        min: 1,
        max: 100,
    }],
    ..kind(
        "spoiled-reads",
        "F23",
        "reads of event segments have a flipped bit, or come from another page",
        |order| {
            let share = order.told("percent") as f64 / 100.0;
            DiskFault::begin(
                order,
                DiskFaults {
                    flip_read: share / 2.0,
                    misdirect_read: share / 2.0,
                    spoil_path: Some("events/".to_owned()),
                    ..DiskFaults::default()
                },
                // Readers of events come when they come.
                None,
            )
        },
    )
};

fn slow(order: &Order, delay_ms: u64) -> DiskFaults {
    let rule = |on| Slowness {
        on,
        delay_ms,
        jitter_ms: order.told("jitter_ms"),
        share: 1.0,
        path: None,
    };
    DiskFaults {
        slow: vec![rule(Operation::Sync), rule(Operation::SyncFolder)],
        ..DiskFaults::default()
    }
}

/// Syncs that take long.
pub(super) const SLOW: Kind = Kind {
    is_watched: true,
    target: Target::MostLeaders,
    with: &[
        Parameter {
            name: "delay_ms",
            meaning: "that each sync takes longer",
            usual: (5, 500),
            min: 1,
            max: 60_000,
        },
        Parameter {
            name: "jitter_ms",
            meaning: "by which they differ",
            usual: (0, 50),
            min: 0,
            max: 60_000,
        },
    ],
    ..kind("slow-disk", "F27", "each sync takes longer", |order| {
        let faults = slow(&order, order.told("delay_ms"));
        DiskFault::begin(order, faults, Some(|counters| counters.delayed))
    })
};

/// Syncs that do not end.
pub(super) const STALL: Kind = Kind {
    is_watched: true,
    target: Target::MostLeaders,
    for_ms: (1_000, 5_000),
    ..kind(
        "stalled-disk",
        "F27",
        "no sync ends before the fault does",
        |order| {
            let faults = slow(&order, order.for_ms.clamp(1, 60_000));
            DiskFault::begin(order, faults, Some(|counters| counters.delayed))
        },
    )
};

/// Mounts a disk at the data directory of each node.
fn prepare(local: &mut LocalOptions, gear: &mut Gear) -> Result<(), String> {
    if gear.get::<Disks>().is_some() {
        return Ok(());
    }
    let mut disks = Vec::new();
    for place in 0..local.nodes + local.gateways {
        let data = local.data_dir(place);
        let backing = local.data.join(format!("disk-{}", place + 1));
        for folder in [&data, &backing] {
            std::fs::create_dir_all(folder)
                .map_err(|error| format!("create {}: {error}", folder.display()))?;
        }
        let disk = ChaosFs::mount(&backing, &data, place as u64 + 1);
        disks.push(disk.map_err(|error| error.to_string())?);
    }
    gear.put(Disks(disks));
    Ok(())
}

/// The machines of all nodes that it meets lose their power at once.
struct PowerCut {
    order: Order,
    tears: bool,
}

impl PowerCut {
    fn begin(order: Order, tears: bool) -> Box<dyn Fault> {
        Box::new(PowerCut { order, tears })
    }

    fn tear(&self) -> Tear {
        const TEARS: [Tear; 4] = [Tear::Prefix, Tear::Suffix, Tear::Middle, Tear::Scattered];
        match self.tears {
            true => TEARS[(self.order.seed % TEARS.len() as u64) as usize],
            false => Tear::Nothing,
        }
    }
}

impl Fault for PowerCut {
    fn install<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let disks = field.gear.get::<Disks>();
            for node in &self.order.nodes {
                Disks::of(&disks, *node)?;
            }
            for killed in join_all(self.order.nodes.iter().map(|node| field.kill(*node))).await {
                killed?;
            }
            if (0..field.node_count()).all(|node| !field.is_running(node)) {
                field.reached("all-down");
            }
            for node in &self.order.nodes {
                let cut = Disks::of(&disks, *node)?.lose_power(self.tear());
                cut.map_err(indeterminate)?;
            }
            Ok(format!("{:?} is kept of what was not synced", self.tear()))
        }
        .boxed_local()
    }

    fn confirm<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let disks = field.gear.get::<Disks>();
            let mut lost = 0;
            for node in &self.order.nodes {
                lost += Disks::of(&disks, *node)?.counters().sectors_lost;
            }
            Ok(format!("{lost} sectors lost so far"))
        }
        .boxed_local()
    }

    fn heal<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let started = join_all(self.order.nodes.iter().map(|node| field.start(*node))).await;
            let lines = started.into_iter().collect::<Result<Vec<_>, _>>()?;
            Ok(lines.join("; "))
        }
        .boxed_local()
    }
}

/// The disk of a node does something wrong for a while.
pub(super) struct DiskFault {
    order: Order,
    faults: DiskFaults,
    /// What shows that it was met; without it, that it was told.
    felt: Option<fn(&DiskCounters) -> u64>,
    /// Whether the node is killed first, and has to start on this disk.
    starts: bool,
    before: u64,
    /// Since when it is on the disk; not at all, if it was skipped.
    from_us: Option<u64>,
    /// A start that may never end well.
    starting: Option<Starting>,
}

impl DiskFault {
    /// A fault of this disk. An order that tells `starts` has the node killed first.
    pub(super) fn begin(
        order: Order,
        faults: DiskFaults,
        felt: Option<fn(&DiskCounters) -> u64>,
    ) -> Box<dyn Fault> {
        Box::new(DiskFault {
            starts: order.told("starts") == 1,
            order,
            faults,
            felt,
            before: 0,
            from_us: None,
            starting: None,
        })
    }

    /// Returns when a start has come to its end, whichever: the node is ready, or its process is gone.
    async fn end_start(field: &Field, node: usize, starting: Starting) -> Result<(), FaultError> {
        if field.ready(node, starting).await.is_ok() {
            return Ok(());
        }
        let reason = format!("node {} neither starts nor ends", node + 1);
        let look = || Ok(field.ended_by_itself(node).then(String::new));
        look_until(GONE_TIMEOUT, &reason, look).await.map(drop)
    }
}

impl Fault for DiskFault {
    fn install<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let node = self.order.node();
            let disks = field.gear.get::<Disks>();
            let disk = Disks::of(&disks, node)?;
            if disk.faults() != DiskFaults::default() {
                return Err(skipped("another fault has this disk"));
            }
            let from_us = field.now_us();
            let killed = match self.starts {
                true => {
                    let killed = field.kill(node).await;
                    // One of which it is not known what was done is started by healing.
                    self.from_us = may_have_done(&killed).then_some(from_us);
                    Some(killed?)
                }
                false => None,
            };
            self.from_us = Some(from_us);
            self.before = self.felt.map_or(0, |felt| felt(&disk.counters()));
            disk.set(self.faults.clone()).map_err(indeterminate)?;
            let told = format!("the disk of node {} is told", node + 1);
            let Some(killed) = killed else {
                return Ok(told);
            };
            self.starting = Some(field.spawn(node).await?);
            Ok(format!("{killed}; {told}; the node starts"))
        }
        .boxed_local()
    }

    fn confirm<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let disks = field.gear.get::<Disks>();
            let disk = Disks::of(&disks, self.order.node())?;
            let Some(felt) = self.felt else {
                return Ok("it is told".into());
            };
            let wait = match self.starts {
                true => FELT_AT_START_TIMEOUT,
                false => FELT_TIMEOUT,
            };
            let look = || {
                let count = felt(&disk.counters()) - self.before;
                Ok((count > 0).then(|| format!("{count} operations have met it")))
            };
            look_until(wait, "no operation has met it", look).await
        }
        .boxed_local()
    }

    fn heal<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let node = self.order.node();
            let Some(from_us) = self.from_us else {
                return Ok(NOTHING_DONE.into());
            };
            let disks = field.gear.get::<Disks>();
            let disk = Disks::of(&disks, node)?;
            if disk.faults() == self.faults {
                disk.set(DiskFaults::default()).map_err(indeterminate)?;
            }
            if let Some(starting) = self.starting.take() {
                Self::end_start(field, node, starting).await?;
            }
            field.disturbed(node, from_us);
            if self.faults.full {
                // Every gateway refuses messages for its shards, which in MQTT 3.1.1 is the end of a connection.
                let others = (0..field.node_count()).filter(|other| *other != node);
                others.for_each(|other| field.disturbed(other, from_us));
            }
            // It may have ended over this, as it should where a sync has failed.
            field.start_after(node).await
        }
        .boxed_local()
    }
}
