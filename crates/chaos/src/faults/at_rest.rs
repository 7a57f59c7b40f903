//! F22, F24: a node's disk is damaged while the node is down: bits flip, pages become zeros, files end early
//! or are gone.
//!
//! Source: `docs/chaos.md`, fault list; what is damaged where is drawn by the [`corrupter`](crate::corrupter).
//! Whatever a torn write explains is spared, as it may be cut without a word and is a power cut's damage
//! ([`super::disk`]): the journal's final flush, and the last file of a sort. The node must say what it found,
//! serve nothing of it, and get its replicas back from the others.

use futures_util::FutureExt as _;

use super::{
    Fault, FaultError, Field, Kind, NOTHING_DONE, Order, Parameter, Step, indeterminate, may_have_done,
    reach_into_containers,
};
use crate::corrupter::{Class, Damage, Done, damage};

/// Bits that flip.
pub(super) const ROT: Kind = Kind {
    how: "SIGKILL, one bit flipped per stretch of the journal, the votes in it and the event segments",
    in_containers: Some("`docker kill`, and the same in the container's volume"),
    prepare_in_containers: Some(reach_into_containers),
    alarms: &["journal is damaged"],
    with: &[Parameter {
        name: "per_kib",
        meaning: "length of a stretch, of which one bit flips",
        usual: (64, 64),
        min: 4,
        max: 65_536,
    }],
    ..Kind::new("rot", "F22", |order| {
        let how = Damage::FlipPer {
            bytes: order.told("per_kib") << 10,
        };
        AtRest::begin(order, &[Class::Journal, Class::Votes, Class::Segments], how, 1)
    })
};

/// Pages of zeros.
pub(super) const ZEROED: Kind = Kind {
    how: "SIGKILL, pages of 4 KiB zeroed in the journal, the votes in it and the event segments",
    in_containers: Some("`docker kill`, and the same in the container's volume"),
    prepare_in_containers: Some(reach_into_containers),
    alarms: &["journal is damaged"],
    with: &[Parameter {
        name: "pages",
        meaning: "that become zeros in each of them",
        usual: (1, 4),
        min: 1,
        max: 1_000,
    }],
    ..Kind::new("zeroed-page", "F22", |order| {
        let pages = order.told("pages");
        let classes = &[Class::Journal, Class::Votes, Class::Segments];
        AtRest::begin(order, classes, Damage::ZeroPage, pages)
    })
};

/// Files that end early.
pub(super) const CUT: Kind = Kind {
    how: "SIGKILL, a segment of the journal and one of events cut somewhere",
    in_containers: Some("`docker kill`, and the same in the container's volume"),
    prepare_in_containers: Some(reach_into_containers),
    alarms: &["journal is damaged"],
    ..Kind::new("cut-file", "F24", |order| {
        AtRest::begin(order, &[Class::Journal, Class::Segments], Damage::Truncate, 1)
    })
};

/// Files that are gone.
pub(super) const LOST: Kind = Kind {
    how: "SIGKILL, a segment of events removed, and one of the journal if it has several",
    in_containers: Some("`docker kill`, and the same in the container's volume"),
    prepare_in_containers: Some(reach_into_containers),
    alarms: &["journal is damaged", "event segments are missing"],
    ..Kind::new("lost-file", "F24", |order| {
        AtRest::begin(order, &[Class::Journal, Class::Segments], Damage::Delete, 1)
    })
};

struct AtRest {
    order: Order,
    classes: &'static [Class],
    how: Damage,
    /// How often it is done to each class.
    times: u64,
    /// Whether it may have taken the node down.
    has_killed: bool,
    done: Vec<Done>,
}

impl AtRest {
    fn begin(order: Order, classes: &'static [Class], how: Damage, times: u64) -> Box<dyn Fault> {
        Box::new(AtRest {
            order,
            classes,
            how,
            times,
            has_killed: false,
            done: Vec::new(),
        })
    }

    /// Whether the node must find it: what is in the journal is read at every start, and a file that is gone is
    /// missed.
    fn must_be_found(&self, done: &Done) -> bool {
        match self.how {
            Damage::Delete => true,
            _ => matches!(done.class, Class::Journal | Class::Votes),
        }
    }
}

impl Fault for AtRest {
    fn install<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let node = self.order.node();
            let data = field.data_dir(node)?;
            let killed = field.kill(node).await;
            self.has_killed = may_have_done(&killed);
            let killed = killed?;
            field.keep_audit(node).await?;
            let mut lines = Vec::new();
            for class in self.classes {
                let mut count = 0;
                for time in 0..self.times {
                    let seed = self.order.seed.wrapping_add(time);
                    let done = damage(&data, *class, &self.how, seed).map_err(indeterminate)?;
                    count += done.len();
                    self.done.extend(done);
                }
                lines.push(format!("{count} in {class:?}").to_lowercase());
            }
            Ok(format!("{killed}; {}", lines.join(", ")))
        }
        .boxed_local()
    }

    fn confirm<'a>(&'a mut self, _: &'a Field) -> Step<'a> {
        async move { told(self.done.iter().filter(|done| self.must_be_found(done)).count()) }.boxed_local()
    }

    fn heal<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            match self.has_killed {
                true => field.start(self.order.node()).await,
                false => Ok(NOTHING_DONE.into()),
            }
        }
        .boxed_local()
    }
}

fn told(count: usize) -> Result<String, FaultError> {
    match count {
        0 => Err(indeterminate("there was nothing to damage that must be found")),
        count => Ok(format!("{count} of them must be found when it starts")),
    }
}
