//! F06: a node stands still for a while and does not know it, as in a long collection or a migration of
//! its machine.
//!
//! Source: `docs/chaos.md`, fault list. Its sockets stay open, so peers and devices find out by silence.

use std::time::Duration;

use futures_util::FutureExt as _;
use rustix::process::Signal;
use tokio::time::{Instant, sleep};

use super::{Fault, FaultError, Field, Kind, Order, Step, indeterminate, processes};
use crate::scenario::target::Target;

/// Time for the kernel to stop all threads.
const STOPPED_TIMEOUT: Duration = Duration::from_secs(2);

/// The kind.
pub(super) const KIND: Kind = Kind {
    how: "SIGSTOP, and SIGCONT when its time is over",
    is_watched: true,
    target: Target::MostLeaders,
    for_ms: (50, 5_000),
    ..Kind::new("pause", "F06", |order| Box::new(Pause { order, from_us: None }))
};

struct Pause {
    order: Order,
    from_us: Option<u64>,
}

impl Pause {
    async fn wait_for(&self, pid: u32, is_stopped: bool) -> Result<(), FaultError> {
        let deadline = Instant::now() + STOPPED_TIMEOUT;
        loop {
            match processes::state(pid) {
                None => return Err(indeterminate("the process is gone")),
                Some(state) if (state == 'T') == is_stopped => return Ok(()),
                Some(state) if Instant::now() >= deadline => {
                    return Err(indeterminate(format!("the process is in state {state}")));
                }
                Some(_) => sleep(Duration::from_millis(1)).await,
            }
        }
    }
}

impl Fault for Pause {
    fn install<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let node = self.order.node();
            let pid = field.pid(node)?;
            self.from_us = Some(field.now_us());
            field.hub.set_down(node, true);
            processes::signal(pid, Signal::STOP).map_err(indeterminate)?;
            Ok(format!("SIGSTOP to node {} (process {pid})", node + 1))
        }
        .boxed_local()
    }

    fn confirm<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            self.wait_for(field.pid(self.order.node())?, true).await?;
            Ok("it stands still".into())
        }
        .boxed_local()
    }

    fn heal<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let node = self.order.node();
            let Ok(pid) = field.pid(node) else {
                return Ok(format!("node {} was taken down meanwhile", node + 1));
            };
            processes::signal(pid, Signal::CONT).map_err(indeterminate)?;
            self.wait_for(pid, false).await?;
            field.hub.set_down(node, false);
            if let Some(from_us) = self.from_us {
                field.disturbed(node, from_us);
            }
            Ok(format!("SIGCONT to node {}", node + 1))
        }
        .boxed_local()
    }
}
