//! F22: bits of a node's disk flip while it is down: in its journal, its votes and its segments of events.
//!
//! Source: `docs/chaos.md`, fault list. The journal's final flush is spared: that one may be cut as torn, so
//! damage to it is a power cut's ([`super::disk`]). The node must say what it found, serve nothing of it, and
//! get its replicas back from the others.

use futures_util::FutureExt as _;

use super::{Fault, Field, Kind, Order, Parameter, Step, indeterminate};
use crate::corrupter::{Class, Damage, Done, damage};

/// What rots.
const CLASSES: [Class; 3] = [Class::Journal, Class::Votes, Class::Segments];

/// The kind.
pub(super) const KIND: Kind = Kind {
    how: "SIGKILL, one bit flipped per stretch of the journal, the votes in it and the event segments",
    alarms: &["journal is damaged"],
    with: &[Parameter {
        name: "per_kib",
        meaning: "length of a stretch, of which one bit flips",
        usual: (64, 64),
        min: 4,
        max: 65_536,
    }],
    ..Kind::new("rot", "F22", |order| {
        Box::new(Rot {
            order,
            done: Vec::new(),
        })
    })
};

struct Rot {
    order: Order,
    done: Vec<Done>,
}

impl Fault for Rot {
    fn install<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let node = self.order.node();
            let killed = field.kill(node).await?;
            field.keep_audit(node).await?;
            let data = field.data_dir(node)?;
            let how = Damage::FlipPer {
                bytes: self.order.told("per_kib") << 10,
            };
            let mut lines = Vec::new();
            for class in CLASSES {
                let done = damage(&data, class, &how, self.order.seed).map_err(indeterminate)?;
                lines.push(format!("{} in {class:?}", done.len()));
                self.done.extend(done);
            }
            Ok(format!(
                "{killed}; bits flipped: {}",
                lines.join(", ").to_lowercase()
            ))
        }
        .boxed_local()
    }

    fn confirm<'a>(&'a mut self, _: &'a Field) -> Step<'a> {
        async move {
            let is_in_journal = |done: &&Done| done.class == Class::Journal;
            match self.done.iter().filter(is_in_journal).count() {
                0 => Err(indeterminate("the journal has nothing but its final flush")),
                count => Ok(format!("{count} of them must be found when it starts")),
            }
        }
        .boxed_local()
    }

    fn heal<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move { field.start(self.order.node()).await }.boxed_local()
    }
}
