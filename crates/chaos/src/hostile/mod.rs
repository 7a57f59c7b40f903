//! Clients that misbehave, and what good clients notice of it (faults F19 and F35).
//!
//! Attackers ([`attack`]) are let loose and held back by turns; good devices of the usual [`fleet`] send all
//! the while, so that one run compares the same hub with and without the attack. Asserted is what a hub owes
//! under attack: it lives, its memory keeps below a cap, and whoever behaves loses nothing that was
//! acknowledged and keeps the connection. Latencies are told, with their ratio; a machine that runs hub and
//! attackers on the same cores must not be judged by them. What is sent is made in [`packets`].

pub mod attack;
mod memory;
mod newcomer;
pub mod packets;
mod report;

use std::str::FromStr;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dunlin_gateway::auth::ConnectionString;
use dunlin_gateway::client::device_token;
use dunlin_node::local::{LocalCluster, LocalError, LocalOptions};
use dunlin_node::ready::Ready;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::fleet::{DevicePlan, Fleet, FleetPlan, Role, WINDOW, histogram};
use crate::hub::{Hub, HubError};
use crate::oracle::{History, Stored};
use crate::payload::{Payloads, RecordingError};
use crate::readback;
use crate::stage::{StageError, gateways, wait_for_fleet, wait_until_whole};
use attack::{Counters, Insider, Order, Pace, attack};
use memory::Memory;
use newcomer::Newcomers;
use report::{judge, lost_connections};

pub use memory::NodeMemory;
pub use report::{Latency, Report};

/// Attackers of all kinds together.
pub const ATTACKERS_MAX: usize = 20_000;
/// Devices that good clients are.
pub const GOOD_DEVICES_MAX: usize = 1_000;
/// Packets a second that may be asked for.
pub const RATE_MAX: u64 = 1_000_000;
/// Rounds of one run.
pub const ROUNDS_MAX: u32 = 1_000;
/// The longest phase in which packets are counted down.
const PHASE_MAX: Duration = Duration::from_secs(600);
/// Devices that attackers speak as at the least; each slow reader has one of its own, or they would throw
/// each other out.
const INSIDERS_MIN: usize = 128;
/// Devices that all attackers of a take-over fight for.
const FOUGHT_OVER: usize = 4;
/// Devices that are created at a time.
const CREATES_AT_A_TIME: usize = 16;
/// Between two messages of one good device.
const GOOD_PERIOD: Duration = Duration::from_millis(20);
/// How long a token is good, in seconds.
const TOKEN_S: u64 = 6 * 3600;
/// Time for the last acknowledgements.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause between two looks at memory and counters.
const LOOK_PAUSE: Duration = Duration::from_millis(100);
/// File descriptors that this process needs besides those of its attackers.
const DESCRIPTORS_BESIDES: u64 = 200;

/// What attackers do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Malformed packets of all kinds, before and after CONNECT.
    Malformed,
    /// TCP connections on which nothing comes.
    HalfOpen,
    /// TLS handshakes that end after their beginning.
    HalfTls,
    /// CONNECTs that come byte by byte.
    SlowConnect,
    /// Devices that publish and never read an acknowledgement.
    SlowReader,
    /// A fleet that connects, says a word, and is gone, over and over.
    Reconnect,
    /// The same few devices at many connections, each throwing out the other.
    TakeOver,
    /// Topics, property bags and properties as large and as many as fit.
    Bombs,
    /// Packets that claim the length that MQTT allows, and do not come.
    HugeLength,
}

/// Every kind, by the name that a command line has for it.
pub const KINDS: &[(&str, Kind)] = &[
    ("malformed", Kind::Malformed),
    ("half-open", Kind::HalfOpen),
    ("half-tls", Kind::HalfTls),
    ("slow-connect", Kind::SlowConnect),
    ("slow-reader", Kind::SlowReader),
    ("reconnect", Kind::Reconnect),
    ("take-over", Kind::TakeOver),
    ("bombs", Kind::Bombs),
    ("huge-length", Kind::HugeLength),
];

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let found = KINDS
            .iter()
            .find(|(name, _)| *name == text)
            .map(|(_, kind)| *kind);
        found.ok_or_else(|| {
            let names: Vec<&str> = KINDS.iter().map(|(name, _)| *name).collect();
            format!("is one of {}", names.join(", "))
        })
    }
}

/// What a run is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// What attackers do; they are shared out evenly.
    pub kinds: Vec<Kind>,
    /// Attackers, which is connections at one time.
    pub attackers: usize,
    /// Packets that they send in all; a phase of attack goes on until its share is sent. Without it a phase
    /// lasts [`phase`](Self::phase).
    pub packets: Option<u64>,
    /// Packets a second of all attackers together; as many as they can without it. What a hub and its attackers share a
    /// machine for is told by a rate that leaves some of it.
    pub rate: Option<u64>,
    /// Times that the attack is let loose, each after a quiet phase.
    pub rounds: u32,
    /// How long a quiet phase lasts, and an attack at the least.
    pub phase: Duration,
    /// Good devices, 50 messages a second each.
    pub good_devices: usize,
    /// Memory that no node may come to have, in MiB.
    pub memory_mib_max: u64,
    /// Draws what is sent.
    pub seed: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            kinds: vec![Kind::Malformed],
            attackers: 32,
            packets: None,
            rate: None,
            rounds: 3,
            phase: Duration::from_secs(10),
            good_devices: 4,
            memory_mib_max: 2_048,
            seed: 1,
        }
    }
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum HostileError {
    /// An option makes no sense.
    #[error("{0}")]
    Options(String),
    /// The hub could not be prepared, or does not do what the good devices need before anything is done to it.
    #[error(transparent)]
    Prepare(#[from] StageError),
    /// The hub does not answer.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// What is stored cannot be read back.
    #[error(transparent)]
    Read(#[from] readback::ReadError),
    /// The hub does not start.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// A token cannot be made.
    #[error("make token: {0}")]
    Token(#[from] dunlin_gateway::auth::AuthError),
    /// The hub's connection string makes no sense.
    #[error("read connection string: {0}")]
    ConnectionString(#[from] dunlin_gateway::auth::ConnectionStringError),
    /// The good devices have nothing to say.
    #[error(transparent)]
    Payloads(#[from] RecordingError),
    /// The good devices' thread is gone.
    #[error("the good devices are gone")]
    FleetGone,
    /// The system refused.
    #[error("{action}: {source}")]
    Io {
        /// Verb and object.
        action: &'static str,
        /// Why.
        source: std::io::Error,
    },
}

fn check(options: &Options) -> Result<(), HostileError> {
    let within = |what: &str, value: u64, max: u64| {
        (1..=max)
            .contains(&value)
            .then_some(())
            .ok_or_else(|| HostileError::Options(format!("{what} is between 1 and {max}, not {value}")))
    };
    within(
        "the number of kinds",
        options.kinds.len() as u64,
        KINDS.len() as u64,
    )?;
    within(
        "the number of attackers",
        options.attackers as u64,
        ATTACKERS_MAX as u64,
    )?;
    within("the rate", options.rate.unwrap_or(1), RATE_MAX)?;
    within("the number of rounds", options.rounds.into(), ROUNDS_MAX.into())?;
    within(
        "the number of good devices",
        options.good_devices as u64,
        GOOD_DEVICES_MAX as u64,
    )?;
    within(
        "the phase in milliseconds",
        options.phase.as_millis() as u64,
        PHASE_MAX.as_millis() as u64,
    )?;
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile).current;
    let wanted = options.attackers as u64 + DESCRIPTORS_BESIDES;
    if limit.is_some_and(|limit| limit < wanted) {
        let limit = limit.unwrap_or_default();
        let text =
            format!("this process may open {limit} files and needs {wanted}: raise it with `ulimit -n`");
        return Err(HostileError::Options(text));
    }
    Ok(())
}

/// A device that was registered for this run.
async fn register(
    hub: &Hub,
    host: &str,
    names: Vec<String>,
    random: &mut StdRng,
) -> Result<Vec<Insider>, HostileError> {
    let now_s = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let mut devices = Vec::new();
    for device in names {
        let key = STANDARD.encode(random.random::<[u8; 32]>());
        let token = device_token(host, &device, &key, now_s + TOKEN_S)?;
        devices.push((Insider { device, token }, key));
    }
    let creates = devices
        .iter()
        .map(|(insider, key)| hub.create_device(&insider.device, key));
    stream::iter(creates)
        .buffer_unordered(CREATES_AT_A_TIME)
        .try_collect::<()>()
        .await?;
    Ok(devices.into_iter().map(|(insider, _)| insider).collect())
}

/// Starts a hub of `nodes` nodes on this machine, with MQTT without TLS if `is_plain`, attacks it, and removes it.
pub async fn run_local(nodes: usize, is_plain: bool, options: &Options) -> Result<Report, HostileError> {
    let io = |action| move |source| HostileError::Io { action, source };
    let folder = tempfile::Builder::new()
        .prefix("dunlin-hostile-")
        .tempdir()
        .map_err(io("create data directory"))?;
    let mut local = LocalOptions::new(nodes, folder.path()).map_err(io("find this program"))?;
    local.mqtt_port = is_plain.then_some(1883);
    let cluster = LocalCluster::start(local).await?;
    let report = run(cluster.ready(), options).await;
    cluster.stop().await;
    report
}

/// Attacks the hub in `ready`, whose nodes run on this machine, and says what came of it.
pub async fn run(ready: &Ready, options: &Options) -> Result<Report, HostileError> {
    check(options)?;
    let hub = Hub::new(ready)?;
    wait_until_whole(&hub).await?;
    let host = ConnectionString::parse(&ready.connection_string)?.host_name;
    let host = host.split(':').next().unwrap_or_default().to_owned();
    let mut random = StdRng::seed_from_u64(options.seed);
    // Another run on the same hub has other devices.
    let run = format!("{:08x}", random.random::<u32>() ^ std::process::id());
    let names = |what: &str, count: usize| (0..count).map(|i| format!("{what}-{run}-{i}")).collect();
    let good = register(&hub, &host, names("good", options.good_devices), &mut random).await?;
    let shares_devices = !options.kinds.contains(&Kind::SlowReader);
    let insider_count = match shares_devices {
        true => INSIDERS_MIN,
        false => INSIDERS_MIN.max(options.attackers),
    };
    let insiders = register(&hub, &host, names("hostile", insider_count), &mut random).await?;
    let come = register(&hub, &host, names("newcomer", newcomer::DEVICES), &mut random).await?;
    let targets = gateways(ready, &host)?;

    let ids: Vec<String> = good.iter().map(|insider| insider.device.clone()).collect();
    let fleet = Fleet::start(FleetPlan {
        devices: plan_good(good, targets.len(), options.good_devices),
        gateways: targets.clone(),
        host: host.clone(),
        payloads: Payloads::new(run, None)?,
        epoch: Instant::now(),
        seed: options.seed,
        window: WINDOW,
        qos0_percent: 0,
        recorder: None,
    })
    .map_err(|source| HostileError::Io {
        action: "start good devices",
        source,
    })?;
    wait_for_fleet(&fleet, ids.len()).await?;
    fleet.set_phase(|phase| phase.start = Some(Instant::now()));

    let counters = Arc::new(Counters::default());
    let pace = options.rate.map(|rate| Arc::new(Pace::new(rate)));
    let (loose, seen) = watch::channel(false);
    let mut attackers = JoinSet::new();
    for place in 0..options.attackers {
        let kind = options.kinds[place % options.kinds.len()];
        let insider = match kind {
            Kind::TakeOver => place % FOUGHT_OVER,
            _ => place % insiders.len(),
        };
        let order = Order {
            kind,
            target: targets[place % targets.len()].clone(),
            host: host.clone(),
            insider: insiders[insider].clone(),
            seed: options.seed ^ (place as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15),
            counters: Arc::clone(&counters),
            packets_max: options.packets.unwrap_or(u64::MAX),
            pace: pace.clone(),
        };
        attackers.spawn(attack(order, seen.clone()));
    }
    let newcomers = Newcomers::start(come, targets, host);
    let mut memory = Memory::new(ready);
    let (mut quiet, mut attacked) = (histogram(), histogram());
    let (mut connects_quiet, mut connects_attacked) = (histogram(), histogram());
    let mut attack_time = Duration::ZERO;
    for round in 1..=options.rounds {
        wait_quiet(&counters).await;
        fleet.live().take_latency_us(&mut histogram());
        newcomers.take(&mut histogram());
        memory.watch_for(options.phase).await;
        fleet.live().take_latency_us(&mut quiet);
        newcomers.take(&mut connects_quiet);
        if round == 1 {
            memory.note_before();
        }
        if let Some(pace) = &pace {
            pace.begin();
        }
        loose.send_replace(true);
        let begun = Instant::now();
        let share = options
            .packets
            .map(|packets| packets * u64::from(round) / u64::from(options.rounds));
        memory.watch_for(options.phase).await;
        while share.is_some_and(|share| counters.packets() < share) && begun.elapsed() < PHASE_MAX {
            memory.watch_for(LOOK_PAUSE).await;
        }
        loose.send_replace(false);
        attack_time += begun.elapsed();
        fleet.live().take_latency_us(&mut attacked);
        newcomers.take(&mut connects_attacked);
    }
    drop(loose);
    while attackers.join_next().await.is_some() {}
    let connects_failed = newcomers.stop().await;
    let outcome = fleet.finish(DRAIN_TIMEOUT).await.ok_or(HostileError::FleetGone)?;
    memory.note_after();

    let history = History {
        devices: outcome.devices,
        disturbances: Vec::new(),
    };
    // Attackers' messages are stored as well where they are sound; how many nobody knows.
    let stored = readback::read_all(&hub, &ids, u64::MAX).await?;
    let of_good: Vec<Stored> = stored
        .into_iter()
        .filter(|record| record.device.is_some())
        .collect();
    let (quiet, attacked) = (Latency::of(&quiet), Latency::of(&attacked));
    let mut report = Report {
        kinds: options.kinds.clone(),
        seed: options.seed,
        rounds: options.rounds,
        attack_s: attack_time.as_secs_f64(),
        counted: counters.counted(),
        connections: options
            .kinds
            .iter()
            .map(|kind| (*kind, counters.connections_of(*kind)))
            .collect(),
        good_acked: history.sent_and_acked().1,
        good_connections_lost: lost_connections(&history),
        quiet,
        attacked,
        p99_ratio: attacked.p99_us as f64 / quiet.p99_us.max(1) as f64,
        connects_quiet: Latency::of(&connects_quiet),
        connects_attacked: Latency::of(&connects_attacked),
        connects_failed,
        nodes: memory.nodes,
        reasons: Vec::new(),
    };
    report.reasons = judge(&report, options, &history, &of_good);
    Ok(report)
}

fn plan_good(good: Vec<Insider>, nodes: usize, count: usize) -> Vec<DevicePlan> {
    let place = |(index, insider): (usize, Insider)| DevicePlan {
        device: insider.device,
        token: insider.token,
        nodes: (0..nodes).map(|node| (index + node) % nodes).collect(),
        role: Role::Load {
            period: Some(GOOD_PERIOD),
            offset: GOOD_PERIOD.mul_f64(index as f64 / count as f64),
        },
    };
    good.into_iter().enumerate().map(place).collect()
}

/// Returns when the attackers have let go, or after a while: some connections end by themselves only.
async fn wait_quiet(counters: &Counters) {
    let until = Instant::now() + LOOK_PAUSE * 50;
    while counters.held() > 0 && Instant::now() < until {
        tokio::time::sleep(LOOK_PAUSE).await;
    }
}

#[cfg(test)]
mod tests;
