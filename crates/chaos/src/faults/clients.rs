//! F19 and F35: clients that misbehave, at every gateway, while whatever else happens happens.
//!
//! Source: `docs/chaos.md`, fault list. What they do is in [`crate::hostile`]; a kind here is a kind of theirs. They
//! come to all gateways, also to one that is down, so that whoever returns finds them at the door. Nothing is
//! damaged by them and nothing excused: devices that behave keep their connections at nodes that nothing else met.

use std::time::Duration;

use futures_util::FutureExt as _;
use tokio::time::{Instant, sleep};

use super::{Fault, FaultError, Field, Kind, NOTHING_DONE, Order, Parameter, Step, indeterminate, skipped};
use crate::hostile::count::Counted;
use crate::hostile::crowd::{Crowd, Ground, Plan, no_room_for};
use crate::hostile::pace::Pace;
use crate::hostile::{ATTACKERS_MAX, Kind as Attack, RATE_MAX};
use crate::scenario::target::Target;

/// Devices that attackers of a run speak as. More than so many of those that keep their device share it.
const INSIDERS: usize = 64;
/// Connections that attackers must come to for the fault to count, or as many as they are.
const CAME_MIN: u64 = 10;
/// Packets that the hub must have had to read from those that throw packets at it.
const READ_MIN: u64 = 20;
/// Time for that.
const CAME_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks.
const LOOK_PAUSE: Duration = Duration::from_millis(20);

const CROWD: &[Parameter] = &[
    Parameter {
        name: "attackers",
        meaning: "connections at one time, all gateways together",
        usual: (16, 48),
        min: 1,
        max: ATTACKERS_MAX as u64,
    },
    Parameter {
        name: "per_s",
        meaning: "how often in a second one of them begins anew",
        usual: (20, 60),
        min: 1,
        max: RATE_MAX,
    },
];

const fn kind(
    name: &'static str,
    number: &'static str,
    how: &'static str,
    begin: fn(Order) -> Box<dyn Fault>,
) -> Kind {
    Kind {
        how,
        damages: false,
        target: Target::Cluster,
        for_ms: (3_000, 8_000),
        with: CROWD,
        ..Kind::new(name, number, begin)
    }
}

/// Connections that nobody speaks on.
pub(super) const HALF_OPEN: Kind = kind(
    "half-open",
    "F19",
    "TCP connections on which nothing comes",
    |order| Clients::begin(order, Attack::HalfOpen),
);

/// Handshakes that nobody goes on with.
pub(super) const HALF_TLS: Kind = kind(
    "half-tls",
    "F19",
    "TLS handshakes that end after their beginning",
    |order| Clients::begin(order, Attack::HalfTls),
);

/// Ends without a goodbye of any sort.
pub(super) const VANISH: Kind = kind(
    "vanish",
    "F19",
    "devices with messages under way that are not heard of again, without FIN or RST",
    |order| Clients::begin(order, Attack::Vanish),
);

/// Ends by RST.
pub(super) const RESET: Kind = kind(
    "reset",
    "F19",
    "connections that end by RST (SO_LINGER 0): within the handshake, before CONNECT, with messages under way",
    |order| Clients::begin(order, Attack::Reset),
);

/// Half of an end.
pub(super) const HALF_CLOSE: Kind = kind(
    "half-close",
    "F19",
    "clients that say FIN, some with messages under way, and do not close",
    |order| Clients::begin(order, Attack::HalfClose),
);

/// What is not MQTT.
pub(super) const MALFORMED: Kind = kind(
    "malformed",
    "F35",
    "malformed packets of all kinds, before and after CONNECT",
    |order| Clients::begin(order, Attack::Malformed),
);

/// What is MQTT, and too much.
pub(super) const BOMBS: Kind = kind(
    "bombs",
    "F35",
    "topics, property bags, properties and filters as large and as many as fit",
    |order| Clients::begin(order, Attack::Bombs),
);

/// What is said to be long.
pub(super) const HUGE_LENGTH: Kind = kind(
    "huge-length",
    "F35",
    "packets that claim the length that MQTT allows, and do not come",
    |order| Clients::begin(order, Attack::HugeLength),
);

/// Those that take their time to come.
pub(super) const SLOW_CONNECT: Kind = kind(
    "slow-connect",
    "F35",
    "CONNECTs that come byte by byte",
    |order| Clients::begin(order, Attack::SlowConnect),
);

/// Those that never listen.
pub(super) const SLOW_READER: Kind = kind(
    "slow-reader",
    "F35",
    "devices that publish and never read an acknowledgement",
    |order| Clients::begin(order, Attack::SlowReader),
);

/// Those that come and go.
pub(super) const RECONNECT: Kind = kind(
    "reconnect",
    "F35",
    "a fleet that connects, says a word and is gone, over and over",
    |order| Clients::begin(order, Attack::Reconnect),
);

/// Those that throw each other out.
pub(super) const TAKE_OVER: Kind = kind(
    "take-over",
    "F35",
    "the same few devices at all gateways, each connection throwing out the other",
    |order| Clients::begin(order, Attack::TakeOver),
);

/// Devices that attackers of these kinds need, and no others.
pub fn insiders(kinds: impl IntoIterator<Item = &'static Kind>) -> usize {
    let is_of_clients = |kind: &Kind| kind.name.parse::<Attack>().is_ok();
    match kinds.into_iter().any(is_of_clients) {
        true => INSIDERS,
        false => 0,
    }
}

struct Clients {
    order: Order,
    attack: Attack,
    crowd: Option<Crowd>,
}

impl Clients {
    fn begin(order: Order, attack: Attack) -> Box<dyn Fault> {
        Box::new(Self {
            order,
            attack,
            crowd: None,
        })
    }

    fn attackers(&self) -> usize {
        self.order.told("attackers") as usize
    }

    /// Packets that the hub must have had to read; none of those whose harm is another.
    fn read_min(&self) -> u64 {
        match self.attack {
            Attack::Malformed | Attack::Bombs | Attack::HugeLength => READ_MIN,
            _ => 0,
        }
    }

    fn come(&mut self, ground: &Ground) -> Result<String, FaultError> {
        let (attackers, per_s) = (self.attackers(), self.order.told("per_s"));
        if let Some(reason) = no_room_for(attackers) {
            return Err(skipped(reason));
        }
        let plan = Plan {
            kinds: &[self.attack],
            attackers,
            seed: self.order.seed,
            packets_max: u64::MAX,
            pace: Some(Pace::new(per_s)),
        };
        let crowd = Crowd::gather(ground, plan);
        crowd.let_loose();
        self.crowd = Some(crowd);
        let doors = ground.targets.len();
        Ok(format!(
            "{attackers} attackers are at {doors} gateways, {per_s} times a second"
        ))
    }

    async fn wait_until_felt(&self) -> Result<String, FaultError> {
        let crowd = self.crowd.as_ref();
        let crowd = crowd.ok_or_else(|| indeterminate("nobody is there"))?;
        let came_min = CAME_MIN.min(self.attackers() as u64);
        let deadline = Instant::now() + CAME_TIMEOUT;
        loop {
            let counters = crowd.counters();
            let (came, read) = (counters.connections_of(self.attack), counters.packets());
            if came >= came_min && read >= self.read_min() {
                return Ok(format!("they came {came} times, with {read} packets"));
            }
            if Instant::now() >= deadline {
                let reason = format!("they came {came} times only, with {read} packets");
                return Err(indeterminate(reason));
            }
            sleep(LOOK_PAUSE).await;
        }
    }

    async fn leave(&mut self) -> Result<String, FaultError> {
        let Some(crowd) = self.crowd.take() else {
            return Ok(NOTHING_DONE.into());
        };
        let counters = crowd.end().await;
        if counters.held() > 0 {
            return Err(indeterminate(format!("{} are still there", counters.held())));
        }
        let Counted {
            connections,
            packets,
            held_max,
            closed,
            refused,
            ..
        } = counters.counted();
        Ok(format!(
            "all are gone: {connections} connections with {packets} packets, {held_max} at one time; \
             {closed} closed by the hub, {refused} not made"
        ))
    }
}

impl Fault for Clients {
    fn install<'a>(&'a mut self, field: &'a Field) -> Step<'a> {
        async move {
            let ground = field.gear.get::<Ground>();
            let ground = ground.ok_or_else(|| skipped("no devices are registered for attackers"))?;
            self.come(&ground)
        }
        .boxed_local()
    }

    fn confirm<'a>(&'a mut self, _: &'a Field) -> Step<'a> {
        self.wait_until_felt().boxed_local()
    }

    fn heal<'a>(&'a mut self, _: &'a Field) -> Step<'a> {
        self.leave().boxed_local()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use dunlin_gateway::client::Transport;
    use tokio::net::TcpListener;

    use super::*;
    use crate::faults::{CATALOGUE, kind};
    use crate::hostile::KINDS;
    use crate::hostile::attack::Insider;

    fn of_clients() -> impl Iterator<Item = &'static Kind> {
        let are_such = |kind: &&Kind| matches!(kind.number, "F19" | "F35");
        CATALOGUE.iter().copied().filter(are_such)
    }

    #[test]
    fn whatever_attackers_can_do_is_a_fault_of_that_name_and_damages_nothing() {
        let faults: BTreeSet<&str> = of_clients().map(|kind| kind.name).collect();
        let attacks: BTreeSet<&str> = KINDS.iter().map(|(name, _)| *name).collect();
        assert_eq!(faults, attacks);
        for kind in of_clients() {
            assert!(!kind.damages && !kind.may_end, "{}", kind.name);
            assert_eq!(kind.target, Target::Cluster, "{}", kind.name);
        }
    }

    #[test]
    fn devices_are_registered_for_attackers_only_where_some_may_come() {
        assert_eq!(insiders([kind("kill").unwrap(), kind("stop").unwrap()]), 0);
        for attacks in of_clients() {
            assert_eq!(insiders([kind("kill").unwrap(), attacks]), INSIDERS);
        }
    }

    fn clients(attack: Attack) -> Clients {
        let order = Order {
            nodes: Vec::new(),
            for_ms: 0,
            with: [("attackers", 3), ("per_s", 1_000)].into(),
            seed: 1,
        };
        Clients {
            order,
            attack,
            crowd: None,
        }
    }

    fn ground(listener: &TcpListener) -> Ground {
        Ground {
            targets: vec![Transport::Tcp {
                address: listener.local_addr().unwrap().to_string(),
            }],
            host: "localhost".into(),
            insiders: vec![Insider {
                device: "d".into(),
                token: String::new(),
            }],
        }
    }

    #[tokio::test]
    async fn they_are_felt_once_all_have_come_and_healed_once_all_are_gone() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut fault = clients(Attack::HalfOpen);
        assert_eq!(fault.leave().await, Ok(NOTHING_DONE.into()));
        fault.come(&ground(&listener)).unwrap();
        let felt = fault.wait_until_felt().await.unwrap();
        assert!(felt.starts_with("they came 3 times"), "{felt}");
        let healed = fault.leave().await.unwrap();
        assert!(
            healed.contains("gone: 3 connections with 0 packets, 3 at"),
            "{healed}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn they_are_not_felt_where_nobody_lets_them_in_or_what_they_throw_is_not_read() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let ground = ground(&listener);
        drop(listener);
        let mut fault = clients(Attack::Malformed);
        fault.come(&ground).unwrap();
        let felt = fault.wait_until_felt().await;
        assert_eq!(felt, Err(indeterminate("they came 0 times only, with 0 packets")));
        let healed = fault.leave().await.unwrap();
        assert!(healed.contains("gone: 0 connections"), "{healed}");
    }
}
