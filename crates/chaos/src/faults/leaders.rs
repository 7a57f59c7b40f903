//! F32: leaderships and replicas are moved off a node under load, and back.
//!
//! Source: `docs/chaos.md`, fault list. Carried by a forced drain, since nothing else asks a node to lead
//! no more. Where no other node can take its replicas the shards go on with one fewer, so the node counts
//! as damaged.

use std::time::Duration;

use dunlin_cluster::admin::AdminRequest;
use futures_util::FutureExt as _;

use super::{Fault, Field, Kind, Order, Step, indeterminate, skipped};
use crate::scenario::target::Target;

/// Time for leaderships to move.
const MOVED_TIMEOUT: Duration = Duration::from_secs(60);

/// The kind.
pub(super) const KIND: Kind = Kind {
    how: "forced drain of a node that leads, and its end",
    in_containers: Some("the same: it goes through the hub's own door"),
    is_watched: true,
    target: Target::MostLeaders,
    ..Kind::new("move-leaders", "F32", |order| {
        Box::new(MoveLeaders {
            order,
            drained: None,
            led: Vec::new(),
        })
    })
};

struct MoveLeaders {
    order: Order,
    drained: Option<String>,
    led: Vec<u32>,
}

impl Fault for MoveLeaders {
    fn install<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let node = self.order.node();
            let id = field
                .id(node)
                .ok_or_else(|| skipped("the node was never ready"))?;
            self.led = field.candidates(&[]).await.led_by(node).to_vec();
            let request = AdminRequest::Drain {
                node: id.clone(),
                force: true,
            };
            self.drained = Some(id);
            field.ask(&request).await?;
            Ok(format!(
                "node {} is told to give up {} shards",
                node + 1,
                self.led.len()
            ))
        }
        .boxed_local()
    }

    fn confirm<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let id = self.drained.clone().unwrap_or_default();
            field
                .wait_until("the node leads nothing", MOVED_TIMEOUT, |status| {
                    let leads = |group: &dunlin_cluster::admin::GroupLine| group.leader.as_ref() == Some(&id);
                    !status.groups.iter().any(|group| group.group > 0 && leads(group))
                        && status.groups.iter().all(|group| group.leader.is_some())
                })
                .await?;
            if self.led.is_empty() {
                return Err(indeterminate("it led nothing before"));
            }
            field.reached("leaders-moved");
            Ok(format!("others lead its {} shards", self.led.len()))
        }
        .boxed_local()
    }

    fn heal<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let Some(node) = self.drained.take() else {
                return Ok("it was not drained".into());
            };
            field.ask(&AdminRequest::Undrain { node }).await?;
            Ok(format!("node {} may lead again", self.order.node() + 1))
        }
        .boxed_local()
    }
}
