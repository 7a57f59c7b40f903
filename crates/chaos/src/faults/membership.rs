//! F31: a node joins under load, another is emptied into it and comes back, and the first one leaves.
//!
//! Source: `docs/chaos.md`, fault list. Installed when the newcomer has replicas and the drained node has
//! none; healed when the members are those of before. Nothing is damaged meanwhile: every shard keeps a
//! majority.

use std::time::Duration;

use dunlin_cluster::admin::{AdminRequest, ClusterStatus};
use futures_util::FutureExt as _;

use super::{Fault, FaultError, Field, Kind, Order, Step, skipped, spare_container};
use crate::scenario::target::Target;

/// Time for replicas to move.
const MOVED_TIMEOUT: Duration = Duration::from_secs(120);

/// The kind.
pub(super) const KIND: Kind = Kind {
    how: "a node is added, one of the old ones drained and let in again, the new one drained and removed",
    in_containers: Some("the same, with one more container, made before the run"),
    prepare_in_containers: Some(spare_container),
    damages: false,
    target: Target::Cluster,
    for_ms: (500, 2_000),
    ..Kind::new("membership", "F31", |order| {
        Box::new(Membership {
            order,
            added: None,
            drained: None,
        })
    })
};

struct Membership {
    order: Order,
    added: Option<usize>,
    drained: Option<String>,
}

/// Replicas of the node with this id.
pub(super) fn replicas(status: &ClusterStatus, id: &str) -> u32 {
    let line = status.nodes.iter().find(|line| line.node == id);
    line.map_or(0, |line| line.replicas)
}

/// Waits until a node that was added has replicas.
async fn wait_for_share(field: &Field, added: usize) -> Result<(), FaultError> {
    let id = field.id(added).unwrap_or_default();
    field
        .wait_until("the new node has replicas", MOVED_TIMEOUT, |status| {
            replicas(status, &id) > 0
        })
        .await?;
    field.reached("replica-made");
    Ok(())
}

/// Empties a node that was added, takes it out of the cluster and ends it.
pub(super) async fn take_out(field: &Field, added: usize) -> Result<(), FaultError> {
    let id = field.id(added).unwrap_or_default();
    drain(field, &id).await?;
    field.ask(&AdminRequest::Remove { node: id }).await?;
    field.reached("removed");
    field.retire(added).await
}

/// Drains a node and waits until it is empty.
async fn drain(field: &Field, id: &str) -> Result<(), FaultError> {
    let request = AdminRequest::Drain {
        node: id.to_owned(),
        force: false,
    };
    field.ask(&request).await?;
    field
        .wait_until("the drained node is empty", MOVED_TIMEOUT, |status| {
            let is_known = status.nodes.iter().any(|line| line.node == id && line.alive);
            is_known && replicas(status, id) == 0
        })
        .await?;
    field.reached("drained");
    Ok(())
}

impl Fault for Membership {
    fn install<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let before = field.candidates(&[]).await;
            let place = self.order.seed as usize % before.nodes.len().max(1);
            let Some((drained, _)) = before.nodes.get(place) else {
                return Err(skipped("no node is known to keep messages"));
            };
            let id = field
                .id(*drained)
                .ok_or_else(|| skipped("the node was never ready"))?;
            // Remembered before anything else can fail: what was begun must be taken back.
            let added = field.add().await?;
            self.added = Some(added);
            wait_for_share(field, added).await?;
            self.drained = Some(id.clone());
            drain(field, &id).await?;
            Ok(format!(
                "node {} has joined, and node {} is empty",
                added + 1,
                drained + 1
            ))
        }
        .boxed_local()
    }

    fn confirm<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let added = self.added.and_then(|added| field.id(added)).unwrap_or_default();
            let status = field
                .wait_until("the new node keeps messages", MOVED_TIMEOUT, |status| {
                    replicas(status, &added) > 0
                })
                .await?;
            Ok(format!("it has {} replicas", replicas(&status, &added)))
        }
        .boxed_local()
    }

    fn heal<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            if let Some(node) = self.drained.take() {
                field.ask(&AdminRequest::Undrain { node }).await?;
            }
            let Some(added) = self.added.take() else {
                return Ok("nobody had joined".into());
            };
            take_out(field, added).await?;
            Ok(format!("node {} is drained, removed and gone", added + 1))
        }
        .boxed_local()
    }
}
