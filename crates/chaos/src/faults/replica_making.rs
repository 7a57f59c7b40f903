//! F34: a replica is being made on a new node, and the one that receives it dies, or one that sends it.
//!
//! Source: `docs/chaos.md`, fault list. The moment is seen from outside: groups whose members change. The
//! receiver belongs to no majority yet; the sender does, so its death damages.

use std::time::Duration;

use futures_util::FutureExt as _;

use super::membership::{replicas, take_out};
use super::{Fault, Field, Kind, Order, Step, indeterminate, spare_container};
use crate::scenario::target::Target;

/// Time for replicas to be made.
const MADE_TIMEOUT: Duration = Duration::from_secs(120);
/// Time for the making to begin.
const BEGUN_TIMEOUT: Duration = Duration::from_secs(30);

/// The newcomer dies.
pub(super) const RECEIVER: Kind = Kind {
    how: "a node is added and killed while groups change their members; started again, later removed",
    in_containers: Some("the same, with one more container, made before the run"),
    prepare_in_containers: Some(spare_container),
    damages: false,
    target: Target::Cluster,
    ..Kind::new("kill-receiver", "F34", |order| {
        Box::new(ReplicaMaking {
            order,
            added: None,
            killed: None,
        })
    })
};

/// A node dies that leads a group.
pub(super) const SENDER: Kind = Kind {
    how: "a node is added, and a leader is killed while groups change their members; the new one is removed later",
    in_containers: Some("the same, with one more container, made before the run"),
    prepare_in_containers: Some(spare_container),
    ..Kind::new("kill-sender", "F34", |order| {
        Box::new(ReplicaMaking {
            order,
            added: None,
            killed: None,
        })
    })
};

struct ReplicaMaking {
    /// Names the sender; nobody when the receiver is meant.
    order: Order,
    added: Option<usize>,
    killed: Option<usize>,
}

impl Fault for ReplicaMaking {
    fn install<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let added = field.add().await?;
            self.added = Some(added);
            field
                .wait_until("a group changes its members", BEGUN_TIMEOUT, |status| {
                    status.groups.iter().any(|group| group.moving)
                })
                .await?;
            let killed = self.order.nodes.first().copied().unwrap_or(added);
            let line = field.kill(killed).await?;
            self.killed = Some(killed);
            Ok(format!("node {} was joining; {line}", added + 1))
        }
        .boxed_local()
    }

    fn confirm<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            match self.killed {
                Some(killed) if !field.is_running(killed) => Ok("it died while groups changed".into()),
                _ => Err(indeterminate("it runs")),
            }
        }
        .boxed_local()
    }

    fn heal<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            if let Some(killed) = self.killed.take() {
                field.start(killed).await?;
            }
            let Some(added) = self.added.take() else {
                return Ok("nobody had joined".into());
            };
            let id = field.id(added).unwrap_or_default();
            field
                .wait_until(
                    "the new node has replicas and nothing moves",
                    MADE_TIMEOUT,
                    |status| replicas(status, &id) > 0 && status.health == "healthy",
                )
                .await?;
            field.reached("replica-made");
            take_out(field, added).await?;
            Ok(format!(
                "node {} had its replicas after all, and is gone",
                added + 1
            ))
        }
        .boxed_local()
    }
}
