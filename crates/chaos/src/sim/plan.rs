//! What a run will do, all of it drawn from its seed before it begins: sizes, which kinds of faults it may
//! have at all (a different few in each run), and what happens when.
//!
//! A plan is data, so that it can be shown, run again, and made smaller.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde::{Deserialize, Serialize};

use super::disk::Pace;
use super::net::Link;

/// Something that is done to the simulated cluster. Nodes are places from 0. What makes no sense when its time
/// has come (killing a dead node) does nothing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// SIGKILL (F01).
    Kill(usize),
    /// SIGKILL to the node that leads most groups (F01).
    KillBusiest,
    /// Ends a node in order (F04).
    StopInOrder(usize),
    /// Starts a node.
    Start(usize),
    /// Power off, and on when it is started (F20, F21): what was not synced goes, but for what the seed keeps.
    CutPower(usize, u64),
    /// Power off in the middle of a sync, this many syncs from now (F21); the seed says what is torn.
    CutPowerInSync(usize, u64, u64),
    /// Bits flip in files of a node that does not run, journal and sealed segments, but not where its journal
    /// ends (F22).
    FlipBits(usize, u64),
    /// Power off everywhere at one instant.
    CutPowerOfAll(u64),
    /// Starts every node that does not run.
    StartAll,
    /// SIGSTOP (F06).
    Pause(usize),
    /// SIGCONT.
    Resume(usize),
    /// All links from and to a node (F08).
    Isolate(usize),
    /// All links from a node, or to it (F09).
    CutOneWay {
        /// The node.
        node: usize,
        /// Whether what it sends is lost, or what it is sent.
        outwards: bool,
    },
    /// Every link is so (F12 to F15).
    Weather(Link),
    /// Every link is as it should be.
    HealNetwork,
    /// How long flushes take (F27).
    Disk(usize, Pace),
    /// No sync succeeds any more (F25); the node gives itself up.
    RefuseSyncs(usize),
    /// The wall clock jumps by so many milliseconds (F28).
    StepWall(usize, i64),
    /// A clock's rate in millionths (F29).
    Rate(usize, u64),
    /// A device loses its connection and goes to another node.
    MoveDevice(usize),
    /// So do all devices of a node. What they had handed to it is still under way there.
    MoveDevicesOf(usize),
}

/// An action and its time.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Milliseconds after the cluster was whole for the first time.
    pub at_ms: u64,
    /// What is done.
    pub action: Action,
}

/// A run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// All else follows from it.
    pub seed: u64,
    /// Nodes.
    pub nodes: usize,
    /// Shards.
    pub shards: u32,
    /// Devices.
    pub devices: usize,
    /// Milliseconds between two messages of a device.
    pub message_every_ms: u64,
    /// Messages of a device without an answer at the most.
    pub window: usize,
    /// Services that read and write registrations, each beside a node; plans that were kept before there were any
    /// have none.
    #[serde(default)]
    pub services: usize,
    /// Whether routes want events of the hub's own, which services see to; plans that were kept before there were any
    /// have none.
    #[serde(default)]
    pub announces: bool,
    /// Whether services send messages to devices; in plans that were kept before they did, they do not.
    #[serde(default)]
    pub messages: bool,
    /// Milliseconds between checkpoints.
    pub checkpoint_ms: u64,
    /// Milliseconds with faults.
    pub faults_ms: u64,
    /// Kinds of faults that this run may have.
    pub kinds: Vec<Kind>,
    /// What happens.
    pub steps: Vec<Step>,
}

/// Kinds of faults.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "each is the action of its name")]
pub enum Kind {
    Kill,
    StopInOrder,
    CutPower,
    CutPowerOfAll,
    CutPowerInSync,
    FlipBits,
    Pause,
    Isolate,
    OneWay,
    Weather,
    SlowDisk,
    RefuseSyncs,
    Clock,
    Churn,
    Strand,
}

impl Kind {
    /// All of them.
    pub const ALL: [Kind; 15] = [
        Kind::Kill,
        Kind::StopInOrder,
        Kind::CutPower,
        Kind::CutPowerOfAll,
        Kind::CutPowerInSync,
        Kind::FlipBits,
        Kind::Pause,
        Kind::Isolate,
        Kind::OneWay,
        Kind::Weather,
        Kind::SlowDisk,
        Kind::RefuseSyncs,
        Kind::Clock,
        Kind::Churn,
        Kind::Strand,
    ];
}

impl Plan {
    /// Draws a run.
    pub fn draw(seed: u64) -> Plan {
        let mut random = StdRng::seed_from_u64(seed);
        let mut kinds: Vec<Kind> = Kind::ALL
            .into_iter()
            .filter(|_| random.random_bool(0.4))
            .collect();
        if kinds.is_empty() {
            kinds.push(Kind::Kill);
        }
        let mut plan = Plan {
            seed,
            nodes: *[3, 3, 3, 5].choose(&mut random).unwrap_or(&3),
            shards: random.random_range(1..=3),
            devices: random.random_range(3..=10),
            message_every_ms: random.random_range(5..=60),
            window: random.random_range(1..=16),
            services: 0,
            announces: false,
            messages: false,
            checkpoint_ms: random.random_range(200..=2_000),
            faults_ms: random.random_range(3_000..=9_000),
            kinds,
            steps: Vec::new(),
        };
        plan.services = plan.nodes;
        let mut at_ms = random.random_range(0..500);
        while at_ms < plan.faults_ms {
            let kind = *plan.kinds.choose(&mut random).unwrap_or(&Kind::Kill);
            plan.add(kind, at_ms, &mut random);
            // A quarter of the time nothing new happens for a while.
            at_ms += match random.random_bool(0.25) {
                true => random.random_range(1_000..2_500),
                false => random.random_range(30..900),
            };
        }
        // Stable: what was added first happens first.
        plan.steps.sort_by_key(|step| step.at_ms);
        plan.announces = random.random_bool(0.5);
        plan.messages = random.random_bool(0.5);
        // A quiet hub: what a checkpoint finds at a log's end, and a start after it, may be something else than events.
        if random.random_bool(0.2) {
            plan.message_every_ms = random.random_range(150..=1_200);
        }
        plan
    }

    fn add(&mut self, kind: Kind, at_ms: u64, random: &mut StdRng) {
        let node = random.random_range(0..self.nodes);
        let lasts_ms = match random.random_bool(0.2) {
            true => random.random_range(1_500..5_000),
            false => random.random_range(20..1_500),
        };
        let (begin, end) = match kind {
            Kind::Kill => match random.random_bool(0.5) {
                true => (Action::KillBusiest, Action::StartAll),
                false => (Action::Kill(node), Action::Start(node)),
            },
            Kind::StopInOrder => (Action::StopInOrder(node), Action::Start(node)),
            Kind::CutPower => (Action::CutPower(node, random.random()), Action::Start(node)),
            Kind::CutPowerOfAll => (Action::CutPowerOfAll(random.random()), Action::StartAll),
            Kind::CutPowerInSync => {
                let syncs = random.random_range(0..20);
                (
                    Action::CutPowerInSync(node, syncs, random.random()),
                    Action::Start(node),
                )
            }
            Kind::FlipBits => {
                // One node in a run: damage to two could be all copies of something.
                let is_flipped = |step: &Step| matches!(step.action, Action::FlipBits(..));
                if self.steps.iter().any(is_flipped) {
                    return;
                }
                self.steps.push(Step {
                    at_ms,
                    action: Action::Kill(node),
                });
                (Action::FlipBits(node, random.random()), Action::Start(node))
            }
            Kind::Pause => (Action::Pause(node), Action::Resume(node)),
            Kind::Isolate => (Action::Isolate(node), Action::HealNetwork),
            Kind::OneWay => {
                let outwards = random.random_bool(0.5);
                (Action::CutOneWay { node, outwards }, Action::HealNetwork)
            }
            Kind::Weather => (Action::Weather(weather(random)), Action::HealNetwork),
            Kind::SlowDisk => {
                let flush_us_min = random.random_range(5_000..100_000);
                let pace = Pace {
                    flush_us_min,
                    flush_us_max: flush_us_min * random.random_range(1..=20),
                };
                (Action::Disk(node, pace), Action::Disk(node, Pace::HEALTHY))
            }
            Kind::RefuseSyncs => (Action::RefuseSyncs(node), Action::Start(node)),
            Kind::Clock => match random.random_bool(0.5) {
                true => {
                    let by_ms = random.random_range(-3_600_000..3_600_000);
                    (Action::StepWall(node, by_ms), Action::StepWall(node, -by_ms))
                }
                false => {
                    let rate = random.random_range(900_000..1_100_000);
                    (Action::Rate(node, rate), Action::Rate(node, 1_000_000))
                }
            },
            Kind::Strand => {
                self.steps.push(Step {
                    at_ms: at_ms + random.random_range(1..200),
                    action: Action::MoveDevicesOf(node),
                });
                (Action::Isolate(node), Action::HealNetwork)
            }
            Kind::Churn => {
                let device = random.random_range(0..self.devices);
                (Action::MoveDevice(device), Action::MoveDevice(device))
            }
        };
        self.steps.push(Step { at_ms, action: begin });
        self.steps.push(Step {
            at_ms: at_ms + lasts_ms,
            action: end,
        });
    }
}

fn weather(random: &mut StdRng) -> Link {
    let delay_us_min = random.random_range(100..20_000);
    Link {
        is_cut: false,
        loss: if random.random_bool(0.6) {
            random.random_range(0.0..0.3)
        } else {
            0.0
        },
        duplicate: if random.random_bool(0.4) {
            random.random_range(0.0..0.3)
        } else {
            0.0
        },
        corrupt: if random.random_bool(0.3) {
            random.random_range(0.0..0.1)
        } else {
            0.0
        },
        delay_us_min,
        delay_us_max: delay_us_min + random.random_range(100..40_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_one_plan_and_its_steps_stand_in_order() {
        for seed in 0..50 {
            let plan = Plan::draw(seed);
            assert_eq!(plan, Plan::draw(seed));
            assert!(plan.steps.is_sorted_by_key(|step| step.at_ms));
            assert!(!plan.steps.is_empty());
        }
        assert_ne!(Plan::draw(1), Plan::draw(2));
    }

    #[test]
    fn every_kind_is_drawn_by_some_seed() {
        let drawn: std::collections::BTreeSet<Kind> =
            (0..50).flat_map(|seed| Plan::draw(seed).kinds).collect();
        assert_eq!(drawn.len(), Kind::ALL.len());
    }
}
