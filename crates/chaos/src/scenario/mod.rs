//! A scenario: which cluster, which load, which faults, and what a run must have reached to prove
//! anything. It is data, read from TOML; `docs/chaos.md` explains every key.
//!
//! Decides nothing by chance and touches nothing: [`read`] makes sense of a text or says where it makes
//! none, [`draw`] turns a scenario and a seed into epochs with faults, [`library`] holds those that ship.
//! What is done with them is in [`crate::run`].

pub mod draw;
pub mod library;
pub mod read;
pub mod target;

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

pub use read::ScenarioError;

/// Epochs of a run, without a duration.
pub const EPOCHS_MAX: u64 = 1000;
/// Faults at once.
pub const FAULTS_MAX: usize = 4;
/// Devices of the load.
pub const DEVICES_MAX: usize = 10_000;

/// A whole scenario.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scenario {
    /// Its name.
    pub name: String,
    /// What it shows, in a sentence or two.
    pub shows: String,
    /// Whether faults may take the majority of a shard's replicas. Then connections may be lost and
    /// shards stand still meanwhile; what was acknowledged must be there afterwards all the same.
    #[serde(default)]
    pub majority: bool,
    /// The cluster.
    #[serde(default)]
    pub cluster: ClusterShape,
    /// W1: devices that send.
    #[serde(default)]
    pub load: Load,
    /// W2: messages over HTTPS.
    #[serde(default)]
    pub https: Option<Https>,
    /// W6: devices created, disabled, given other keys and deleted.
    #[serde(default)]
    pub registry: Option<Registry>,
    /// W6: devices whose registrations several services read and write at once.
    #[serde(default)]
    pub contended: Option<Contended>,
    /// W6: enrolments that services change, and devices that register under them.
    #[serde(default)]
    pub provisioning: Option<Provisioning>,
    /// W6: devices that are erased, with all that they have sent.
    #[serde(default)]
    pub erasing: Option<Erasing>,
    /// W11: shared access policies whose keys are renewed and swapped.
    #[serde(default)]
    pub policies: Option<Policies>,
    /// W3 and W5: services and devices that talk about twins and call methods.
    #[serde(default)]
    pub dialogue: Option<Dialogue>,
    /// W4: messages that devices fetch, settle under locks and let expire, and what services hear of it.
    #[serde(default)]
    pub messages: Option<Messages>,
    /// W7: a consumer group that reads events over Kafka.
    #[serde(default)]
    pub readers: Option<Readers>,
    /// W8 and W10: jobs that change twins, and queries that look at them.
    #[serde(default)]
    pub jobs: Option<Jobs>,
    /// W8: routes that lead some of the messages to a webhook.
    #[serde(default)]
    pub routes: Option<Routes>,
    /// W8: configurations that a service changes, and twins that follow.
    #[serde(default)]
    pub configurations: Option<Configurations>,
    /// Files that devices bring and services read.
    #[serde(default)]
    pub uploads: Option<Uploads>,
    /// W10: readers that ask for ranges of past events.
    #[serde(default)]
    pub history: Option<History>,
    /// W9: devices that take their own session over, on one node after the other.
    #[serde(default)]
    pub churn: Option<Churn>,
    /// What must hold soon after the faults of an epoch are over.
    #[serde(default)]
    pub liveness: Liveness,
    /// What a node may use.
    #[serde(default)]
    pub caps: Caps,
    /// Whether every node is stopped in turn at the end, so that all records are read from other replicas.
    #[serde(default)]
    pub compare_replicas: bool,
    /// Epochs, one after the other.
    #[serde(default, rename = "epoch")]
    pub epochs: Vec<Epoch>,
    /// Epochs whose faults are drawn; they follow on those that are listed.
    #[serde(default)]
    pub composed: Option<Composed>,
    /// Faults and states by name, and how often they must have been reached.
    #[serde(default)]
    pub must_reach: BTreeMap<String, u64>,
}

/// The cluster that a scenario begins with.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ClusterShape {
    /// Nodes that keep messages; gateways too, if there are no others.
    pub nodes: usize,
    /// Nodes that are gateways and nothing else.
    pub gateways: usize,
    /// Shards.
    pub shards: u32,
    /// Replicas of each shard, as the hub lays them out where the nodes suffice.
    pub replicas: usize,
    /// Further arguments of `dunlin serve`.
    pub arguments: Vec<String>,
}

impl Default for ClusterShape {
    fn default() -> Self {
        Self {
            nodes: 3,
            gateways: 0,
            shards: 16,
            replicas: 3,
            arguments: Vec::new(),
        }
    }
}

impl ClusterShape {
    /// Nodes that may be damaged at once without taking a majority from any shard.
    pub fn tolerance(&self) -> usize {
        (self.replicas.min(self.nodes).max(1) - 1) / 2
    }

    /// Nodes that devices connect to; they are the first.
    pub fn gateway_count(&self) -> usize {
        match self.gateways {
            0 => self.nodes,
            gateways => gateways,
        }
    }
}

/// Telemetry over MQTT.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Load {
    /// Devices.
    pub devices: usize,
    /// Messages per second of all devices together, on a schedule that waits for nothing.
    pub rate: u32,
    /// Messages of QoS 1 that a device may have unacknowledged.
    pub window: usize,
    /// Share of messages that go with QoS 0.
    pub qos0_percent: u8,
    /// Bytes of padding in each message.
    pub padding_bytes: Option<Span>,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            devices: 96,
            rate: 480,
            window: 32,
            qos0_percent: 0,
            padding_bytes: None,
        }
    }
}

/// Messages over HTTPS, one at a time per device.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Https {
    /// Devices.
    pub devices: usize,
    /// Milliseconds between two messages of one device.
    pub period_ms: u64,
}

/// Devices that come to be and cease, with probes by old and new credentials on every gateway.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Registry {
    /// Devices that live through this at the same time.
    pub devices: usize,
    /// Milliseconds between two actions on one device.
    pub period_ms: u64,
}

/// Devices whose registrations several services read and write at once, through all gateways.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Contended {
    /// Devices that are fought over at the same time.
    pub devices: usize,
    /// Milliseconds between two accesses of one service, on average.
    pub period_ms: u64,
}

/// Enrolments that live one after the other: made, changed, disabled, enabled and deleted, with devices that register at
/// every gateway in between.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Provisioning {
    /// Enrolments at the same time: the first, the third and so on are groups, the others those of single devices.
    pub enrollments: usize,
    /// Milliseconds between two changes of one enrolment.
    pub period_ms: u64,
}

/// Devices that send, are erased, and are looked for at every gateway.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Erasing {
    /// Devices that live through this at the same time.
    pub devices: usize,
    /// Milliseconds in which a device sends before it is erased.
    pub period_ms: u64,
}

/// Shared access policies that come to be and cease, with probes by old and new keys at every gateway.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Policies {
    /// Policies that live through this at the same time.
    pub policies: usize,
    /// Milliseconds between two changes of one policy.
    pub period_ms: u64,
}

/// Devices whose twins services and they themselves read and write, and whose methods are called, through all gateways.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dialogue {
    /// Devices that are talked to at the same time.
    pub devices: usize,
    /// Milliseconds between two things that one of those who talk does, on average.
    pub period_ms: u64,
}

/// Devices that are sent messages, which two receivers each fetch and settle, through all gateways.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Messages {
    /// Devices that are sent to at the same time.
    pub devices: usize,
    /// Milliseconds between two things that one of those who act does, on average.
    pub period_ms: u64,
}

/// Members of one consumer group, through all gateways, that commit, leave, crash and come back.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Readers {
    /// Members at the same time.
    pub members: usize,
    /// Milliseconds between two commits of one member, on average.
    pub period_ms: u64,
}

/// Devices whose twins one job after the other changes, while queries look at them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Jobs {
    /// Devices.
    pub devices: usize,
    /// Milliseconds between two queries; a job begins for each four of them.
    pub period_ms: u64,
}

/// Messages of some devices of the fleet, and warm ones of those that send over HTTPS, are led to the run itself.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Routes {}

/// A service that makes, changes and deletes configurations for devices of its own, which it moves from lot to lot.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Configurations {
    /// Devices.
    pub devices: usize,
    /// Milliseconds between the moment when the twins have followed and the next change.
    pub period_ms: u64,
}

/// Devices that bring files, whole or in blocks, and services that read them and are told of them.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Uploads {
    /// Devices at the same time.
    pub devices: usize,
    /// Milliseconds between two files of a device, and between two that a service reads.
    pub period_ms: u64,
}

/// Readers that ask for ranges of past events, by offset and by time, through all gateways.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct History {
    /// Readers at the same time.
    pub readers: usize,
    /// Milliseconds between two ranges of one reader.
    pub period_ms: u64,
}

/// Devices that connect at one node after the other without leaving the one before.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Churn {
    /// Devices.
    pub devices: usize,
    /// Milliseconds between two take-overs of one device.
    pub period_ms: u64,
}

/// Deadlines of a quiet time (I15), in seconds after the last fault was healed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Liveness {
    /// Until every shard has a leader, every device is connected and has a message acked that it sent
    /// after the faults.
    pub serve_s: u64,
    /// Until every shard has all its replicas again.
    pub whole_s: u64,
}

impl Default for Liveness {
    fn default() -> Self {
        Self {
            serve_s: 10,
            whole_s: 30,
        }
    }
}

/// What each node's process may use (I16).
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Caps {
    /// Resident memory.
    pub rss_mib: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// Threads.
    pub threads: u64,
}

impl Default for Caps {
    fn default() -> Self {
        Self {
            rss_mib: 1024,
            descriptors: 4096,
            threads: 256,
        }
    }
}

/// A number, or two that one is drawn between.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Span {
    /// This one.
    One(u64),
    /// One of these, ends included.
    Between([u64; 2]),
}

impl Span {
    /// The smallest and the largest.
    pub fn bounds(self) -> (u64, u64) {
        match self {
            Span::One(one) => (one, one),
            Span::Between([low, high]) => (low, high),
        }
    }
}

/// A time with faults, which a quiet one follows.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Epoch {
    /// How often it comes.
    #[serde(default = "one")]
    pub repeat: u64,
    /// Milliseconds, if the faults do not take longer.
    pub duration_ms: u64,
    /// The faults.
    #[serde(default, rename = "fault")]
    pub faults: Vec<FaultSpec>,
}

fn one() -> u64 {
    1
}

/// Epochs with drawn faults.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Composed {
    /// How many.
    pub epochs: u64,
    /// Milliseconds of each, if its faults do not take longer.
    pub duration_ms: u64,
    /// Faults at once.
    pub faults_max: usize,
    /// Share of epochs without faults.
    #[serde(default = "a_quarter")]
    pub quiet_percent: u8,
    /// What is drawn from.
    #[serde(rename = "fault")]
    pub faults: Vec<FaultSpec>,
}

fn a_quarter() -> u8 {
    25
}

/// A fault as a scenario names it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultSpec {
    /// A name of [`crate::faults::CATALOGUE`].
    pub kind: Spanned<String>,
    /// Whom it meets; each kind has its usual target.
    #[serde(default)]
    pub target: Option<String>,
    /// Milliseconds after the epoch began; drawn within its first half if not given.
    #[serde(default)]
    pub at_ms: Option<Span>,
    /// Milliseconds until it is healed; each kind has its usual span.
    #[serde(default)]
    pub for_ms: Option<Span>,
    /// How likely it is drawn.
    #[serde(default)]
    pub weight: Option<u32>,
    /// What else the kind can be told.
    #[serde(default)]
    pub with: BTreeMap<String, Span>,
}
