//! F08 to F11: nodes that do not reach each other, in every shape that this can have.
//!
//! Source: `docs/chaos.md`, fault list. Done to the links in [`super::network`]; nodes that are clogged one
//! after the other are in [`super::swizzle`].

use super::network::{CUT, Deed, LinkFault, kind, time_ms};
use super::reach::Reach;
use super::{Kind, Parameter, isolation};
use crate::relay::faults::{Cause, Flap};
use crate::scenario::target::Target;

/// Nodes that no other reaches. Several stay together.
pub(super) const PARTITION: Kind = Kind {
    in_containers: Some("`docker network disconnect` of each network, then `docker network connect`"),
    begin_in_containers: Some(isolation::begin),
    prepare_in_containers: None,
    is_watched: true,
    target: Target::MostLeaders,
    ..kind(
        "partition",
        "F08",
        "the relay drops every packet between the nodes and all others",
        |order| {
            LinkFault::begin(
                order,
                Deed {
                    reach: Reach::Sides,
                    ..CUT
                },
            )
        },
    )
};

/// Nodes that hear and are not heard, or the other way.
pub(super) const ONE_WAY: Kind = Kind {
    in_containers: Some("rules of `iptables`: all packets of one direction"),
    is_watched: true,
    target: Target::MostLeaders,
    with: &[Parameter {
        name: "inbound",
        meaning: "1 drops what comes to the nodes, 0 what they send",
        usual: (0, 1),
        min: 0,
        max: 1,
    }],
    ..kind(
        "one-way",
        "F09",
        "the relay drops every packet of one direction",
        |order| {
            LinkFault::begin(
                order,
                Deed {
                    reach: Reach::OneWay,
                    ..CUT
                },
            )
        },
    )
};

/// One node that all reach, and none that reach each other.
pub(super) const BRIDGE: Kind = Kind {
    in_containers: Some("rules of `iptables`: all packets between all but the node"),
    ..kind(
        "bridge",
        "F10",
        "the relay drops every packet between all but the node",
        |order| {
            LinkFault::begin(
                order,
                Deed {
                    reach: Reach::Others,
                    silences: false,
                    ..CUT
                },
            )
        },
    )
};

/// Nodes around a table, each of which reaches those beside it: a majority, and none the same.
pub(super) const RING: Kind = Kind {
    in_containers: Some("rules of `iptables`: all packets between those that are not near each other"),
    ..kind(
        "ring",
        "F10",
        "the relay drops every packet between nodes that are not near each other in a ring",
        |order| {
            LinkFault::begin(
                order,
                Deed {
                    reach: Reach::Ring,
                    silences: false,
                    ..CUT
                },
            )
        },
    )
};

/// Links that come and go.
pub(super) const FLAP: Kind = Kind {
    with: &[
        time_ms("up_ms", "for which the links pass", (50, 500)),
        time_ms("down_ms", "for which they drop", (1, 500)),
    ],
    ..kind("flap", "F11", "the relay passes and drops in turn", |order| {
        LinkFault::begin(
            order,
            Deed {
                install: |link, order| {
                    link.flap = Some(Flap {
                        up_ms: order.told("up_ms").max(1),
                        down_ms: order.told("down_ms").max(1),
                    });
                },
                heal: |link| link.flap = None,
                felt: |counters| counters.dropped(Cause::Flap),
                ..CUT
            },
        )
    })
};
