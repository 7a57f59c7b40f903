//! F26 and F30: a node that may open nothing more, or gets no more memory.
//!
//! Source: `docs/chaos.md`, fault list. A node that ends over it has refused, which it may; it is started
//! again when there is room. Memory needs a control group of version 1 that this process may make; in
//! containers it is [`held`].

use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::{Instant, sleep};

use super::processes::{self, Group};
use super::{
    Fault, Field, Kind, NOTHING_DONE, Order, Parameter, Step, held, indeterminate, look_until,
    reach_into_containers, skipped,
};

/// Time for a limit to be met.
const MET_TIMEOUT: Duration = Duration::from_secs(5);

/// No more descriptors.
pub(super) const DESCRIPTORS: Kind = Kind {
    may_end: true,
    how: "prlimit of the node's open descriptors to what it has, and a few",
    in_containers: Some("the same, of the container's process"),
    prepare_in_containers: Some(reach_into_containers),
    for_ms: (3_000, 6_000),
    with: &[Parameter {
        name: "spare",
        meaning: "descriptors that it may still open",
        usual: (0, 8),
        min: 0,
        max: 1_000,
    }],
    ..Kind::new("descriptors", "F26", |order| {
        Box::new(Descriptors {
            order,
            before: None,
            from_us: None,
        })
    })
};

/// No more memory.
pub(super) const MEMORY: Kind = Kind {
    may_end: true,
    how: "limit of a memory control group just above what the node has",
    in_containers: Some("`docker update --memory` to just above what the node has, and back"),
    begin_in_containers: Some(held::memory),
    for_ms: (3_000, 6_000),
    with: &[Parameter {
        name: "spare_mib",
        meaning: "memory that it may still take",
        usual: (1, 16),
        min: 0,
        max: 1_024,
    }],
    ..Kind::new("memory", "F30", |order| {
        Box::new(Memory {
            order,
            group: None,
            from_us: None,
        })
    })
};

struct Descriptors {
    order: Order,
    /// The process that was limited, and its limit before.
    before: Option<(u32, Option<u64>)>,
    from_us: Option<u64>,
}

impl Fault for Descriptors {
    fn install<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let node = self.order.node();
            let pid = field.pid(node)?;
            let open = processes::descriptors(pid).ok_or_else(|| skipped("the process is gone"))?;
            let limit = open + self.order.told("spare");
            let from_us = field.now_us();
            let before = processes::limit_descriptors(pid, Some(limit)).map_err(skipped)?;
            self.from_us = Some(from_us);
            self.before = Some((pid, before));
            Ok(format!(
                "node {} may have {limit} descriptors, and has {open}",
                node + 1
            ))
        }
        .boxed_local()
    }

    fn confirm<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            // A connection that is refused for want of a descriptor shows it, and does no other harm.
            let node = self.order.node();
            let spare = self.order.told("spare") as usize;
            let address = field.hub.address(node);
            let mut held = Vec::new();
            for _ in 0..=spare + 1 {
                let dialled =
                    tokio::time::timeout(MET_TIMEOUT, tokio::net::TcpStream::connect(&address)).await;
                held.extend(dialled.ok().and_then(Result::ok));
            }
            let (pid, _) = self.before.ok_or_else(|| indeterminate("it was not limited"))?;
            let deadline = Instant::now() + MET_TIMEOUT;
            loop {
                let Some(open) = processes::descriptors(pid) else {
                    return Ok("the node has ended over it".into());
                };
                let limit = processes::limit_descriptors_now(pid);
                if limit.is_some_and(|limit| open >= limit) {
                    return Ok(format!("all {open} are taken"));
                }
                if Instant::now() >= deadline {
                    return Err(indeterminate(format!("{open} are open of {limit:?}")));
                }
                sleep(Duration::from_millis(20)).await;
            }
        }
        .boxed_local()
    }

    fn heal<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let node = self.order.node();
            let Some(from_us) = self.from_us else {
                return Ok(NOTHING_DONE.into());
            };
            if let Some((pid, before)) = self.before
                && field.pid(node) == Ok(pid)
                && !field.ended_by_itself(node)
            {
                processes::limit_descriptors(pid, before).map_err(indeterminate)?;
            }
            field.disturbed(node, from_us);
            field.start_after(node).await
        }
        .boxed_local()
    }
}

struct Memory {
    order: Order,
    group: Option<Group>,
    from_us: Option<u64>,
}

impl Fault for Memory {
    fn install<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let node = self.order.node();
            let pid = field.pid(node)?;
            let usage = processes::usage(pid).ok_or_else(|| skipped("the process is gone"))?;
            let spare = self.order.told("spare_mib") * 1024 * 1024;
            let from_us = field.now_us();
            // What a process has already counts where it was taken, so only what it takes from here on does
            // in the new group: a limit of the spare is a limit of the whole.
            let settings = [("memory.limit_in_bytes", spare.max(1024 * 1024).to_string())];
            self.group = Some(Group::confine(pid, "memory", &settings).map_err(skipped)?);
            self.from_us = Some(from_us);
            Ok(format!(
                "node {} has {} MiB and gets no more than {} MiB",
                node + 1,
                usage.rss_bytes >> 20,
                (usage.rss_bytes + spare) >> 20
            ))
        }
        .boxed_local()
    }

    fn confirm<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let failures = || self.group.as_ref()?.number("memory.failcnt", "");
            let look = || {
                let times = failures().unwrap_or(0);
                let is_met = times > 0 || field.ended_by_itself(self.order.node());
                Ok(is_met.then(|| format!("it met the limit {times} times")))
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
            self.group = None;
            field.disturbed(node, from_us);
            field.start_after(node).await
        }
        .boxed_local()
    }
}
