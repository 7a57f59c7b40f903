//! Clients that misbehave, and what good clients notice of it (faults F19 and F35).
//!
//! Attackers ([`attack`]) are let loose and held back by turns; good devices of the usual [`fleet`] send all
//! the while, so that one run compares the same hub with and without the attack. Asserted is what a hub owes
//! under attack: it lives, its memory keeps below a cap, and whoever behaves loses nothing that was
//! acknowledged and keeps the connection. Latencies are told, with their ratio; a machine that runs hub and
//! attackers on the same cores must not be judged by them. What is sent is made in [`packets`].
//!
//! The same crowds come as faults of a scenario, while nodes are killed: that is [`crate::faults`]' file `clients`.

pub mod attack;
pub mod count;
pub mod crowd;
mod dial;
pub mod kind;
mod memory;
mod newcomer;
pub mod pace;
pub mod packets;
mod report;

use std::time::Duration;

use dunlin_node::local::{LocalCluster, LocalError, LocalOptions};
use dunlin_node::ready::Ready;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::time::Instant;

use crate::fleet::{DevicePlan, Fleet, FleetPlan, Role, WINDOW, histogram};
use crate::hub::{Hub, HubError};
use crate::oracle::{History, Stored};
use crate::payload::{Payloads, RecordingError};
use crate::readback;
use crate::stage::{self, StageError, gateways, wait_for_fleet, wait_until_whole};
use attack::Insider;
use count::Counters;
use crowd::{Crowd, Ground, Plan, no_room_for};
use memory::Memory;
use newcomer::Newcomers;
use pace::Pace;
use report::{judge, lost_connections};

pub use kind::{KINDS, Kind};
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
/// Devices that attackers speak as at the least; each that does not let go has one of its own, or they would throw
/// each other out.
const INSIDERS_MIN: usize = 128;
/// Devices that are created at a time.
const CREATES_AT_A_TIME: usize = 16;
/// Between two messages of one good device.
const GOOD_PERIOD: Duration = Duration::from_millis(20);
/// Time for the last acknowledgements.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause between two looks at memory and counters.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

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
    no_room_for(options.attackers).map_or(Ok(()), |reason| Err(HostileError::Options(reason)))
}

/// A device that was registered for this run.
async fn register(
    hub: &Hub,
    host: &str,
    names: Vec<String>,
    random: &mut StdRng,
) -> Result<Vec<Insider>, HostileError> {
    let mut devices = Vec::new();
    for device in names {
        let key = stage::draw_key(random);
        let token = stage::token(host, &device, &key)?;
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
    let host = stage::host_of(ready)?;
    let mut random = StdRng::seed_from_u64(options.seed);
    // Another run on the same hub has other devices.
    let run = format!("{:08x}", random.random::<u32>() ^ std::process::id());
    let names = |what: &str, count: usize| (0..count).map(|i| format!("{what}-{run}-{i}")).collect();
    let good = register(&hub, &host, names("good", options.good_devices), &mut random).await?;
    let insider_count = match options.kinds.iter().any(|kind| kind.keeps_its_device()) {
        true => INSIDERS_MIN.max(options.attackers),
        false => INSIDERS_MIN,
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

    let ground = Ground {
        targets: targets.clone(),
        host: host.clone(),
        insiders,
    };
    let crowd = Crowd::gather(
        &ground,
        Plan {
            kinds: &options.kinds,
            attackers: options.attackers,
            seed: options.seed,
            packets_max: options.packets.unwrap_or(u64::MAX),
            pace: options.rate.map(Pace::new),
        },
    );
    let counters = crowd.counters();
    let newcomers = Newcomers::start(come, targets, host);
    let mut memory = Memory::new(ready);
    let (mut quiet, mut attacked) = (histogram(), histogram());
    let (mut connects_quiet, mut connects_attacked) = (histogram(), histogram());
    let mut attack_time = Duration::ZERO;
    for round in 1..=options.rounds {
        wait_quiet(counters).await;
        fleet.live().take_latency_us(&mut histogram());
        newcomers.take(&mut histogram());
        memory.watch_for(options.phase).await;
        fleet.live().take_latency_us(&mut quiet);
        newcomers.take(&mut connects_quiet);
        if round == 1 {
            memory.note_before();
        }
        crowd.let_loose();
        let begun = Instant::now();
        let share = options
            .packets
            .map(|packets| packets * u64::from(round) / u64::from(options.rounds));
        memory.watch_for(options.phase).await;
        while share.is_some_and(|share| counters.packets() < share) && begun.elapsed() < PHASE_MAX {
            memory.watch_for(LOOK_PAUSE).await;
        }
        crowd.hold_back();
        attack_time += begun.elapsed();
        fleet.live().take_latency_us(&mut attacked);
        newcomers.take(&mut connects_attacked);
    }
    let counters = crowd.end().await;
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
