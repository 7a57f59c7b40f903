//! The demo: a cluster of real processes under load, a node killed in the middle of it, and proof.
//!
//! [`run`] starts the nodes, creates devices, lets the fleet send, kills the node that leads most
//! shards and brings it back, reads everything back from a node that lived, and judges. It touches
//! the hub through its public doors only. What is shown meanwhile is in [`view`].

mod schedule;
pub(crate) mod view;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use dunlin_cluster::admin::ClusterStatus;
use dunlin_gateway::auth::{AuthError, ConnectionString, ConnectionStringError};
use dunlin_gateway::client::{Transport, device_token};
use dunlin_model::id::DeviceId;
use dunlin_node::local::{LOCAL_NODES_MAX, LocalCluster, LocalError, LocalOptions};
use dunlin_node::ready::Ready;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use hdrhistogram::Histogram;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::fleet::{DevicePlan, Fleet, FleetPlan, Role, histogram};
use crate::hub::{Hub, HubError};
use crate::oracle::History;
use crate::payload::{Payloads, RecordingError};
use crate::readback::{self, ReadError};
use crate::verdict::{Evidence, Report};
pub use view::Progress;
use view::View;

/// Devices that a run may have.
pub const DEVICES_MAX: usize = 10_000;
/// Seconds of load.
pub const DURATION_S_MAX: u64 = 3600;
/// Kills in a run.
pub const KILLS_MAX: usize = 100;
/// Nodes without which a kill takes the majority away.
const NODES_MIN_TO_KILL: usize = 3;
/// Devices that are created at a time.
const CREATES_AT_A_TIME: usize = 16;
/// Time for every shard to have a leader at the beginning.
const HEALTHY_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for the whole fleet to connect.
const FLEET_TIMEOUT: Duration = Duration::from_secs(60);
/// Time for outstanding acks once the load has stopped.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(15);
/// Seconds that a device's token is valid.
const TOKEN_S: u64 = 24 * 3600;
/// Names that are tried to find one in a given shard.
const NAMES_MAX: u32 = 100_000;

/// What a run is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Nodes.
    pub nodes: usize,
    /// Devices of the load.
    pub devices: usize,
    /// Messages per second of all devices together; 0 is as fast as possible.
    pub rate: u32,
    /// Seconds of load.
    pub duration_s: u64,
    /// Kills, spread over the duration.
    pub kills: usize,
    /// Draws everything that is random; itself drawn if not given.
    pub seed: Option<u64>,
    /// A recording (CSV) that messages are made of.
    pub csv: Option<PathBuf>,
    /// Port of MQTT over TLS.
    pub mqtts_port: u16,
    /// Port of HTTPS.
    pub https_port: u16,
    /// Port between nodes.
    pub cluster_port: u16,
    /// Port of MQTT without TLS, which the devices then use.
    pub plain_port: Option<u16>,
    /// The program that runs a node; this one if not given.
    pub program: Option<PathBuf>,
    /// Where progress is shown.
    pub progress: Progress,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 3,
            devices: 200,
            rate: 2000,
            duration_s: 30,
            kills: 1,
            seed: None,
            csv: None,
            mqtts_port: 8883,
            https_port: 8443,
            cluster_port: 8900,
            plain_port: None,
            program: None,
            progress: Progress::Silent,
        }
    }
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The options make no sense.
    #[error("{0}")]
    Options(String),
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] LocalError),
    /// A call over HTTPS.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// Reading back.
    #[error("read back: {0}")]
    Read(#[from] ReadError),
    /// The recording.
    #[error(transparent)]
    Recording(#[from] RecordingError),
    /// A file, a folder, a thread.
    #[error("{action}: {source}")]
    Io {
        /// Verb and object.
        action: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The hub's own connection string cannot be read.
    #[error(transparent)]
    ConnectionString(#[from] ConnectionStringError),
    /// A token cannot be made.
    #[error("make token: {0}")]
    Token(#[from] AuthError),
    /// The trusted certificate.
    #[error("set up TLS: {0}")]
    Tls(#[from] dunlin_gateway::TlsError),
    /// The cluster has shards without a leader.
    #[error("the cluster is {health} after {waited_s} s")]
    Unhealthy {
        /// What it is instead.
        health: String,
        /// How long was waited.
        waited_s: u64,
    },
    /// The fleet did not connect.
    #[error("only {ready} of {all} devices connected in time; last: {last}")]
    NotConnected {
        /// Connected.
        ready: usize,
        /// Wanted.
        all: usize,
        /// Why one was not.
        last: String,
    },
    /// The fleet's thread ended without a word.
    #[error("the fleet ended early")]
    FleetGone,
    /// Somebody asked the run to stop.
    #[error("stopped before the end")]
    Stopped,
    /// Any of the above, once there was data to look at.
    #[error("{source}; data and logs of the nodes are kept in {}", .data.display())]
    Kept {
        /// What went wrong.
        source: Box<DemoError>,
        /// Where the data is.
        data: PathBuf,
    },
}

/// The cluster of a run that is over.
pub struct Remains {
    cluster: LocalCluster,
    data: TempDir,
}

impl Remains {
    /// What scripts need to know.
    pub fn ready(&self) -> &Ready {
        self.cluster.ready()
    }

    /// Stops the nodes and removes their data, or keeps it.
    pub async fn stop(self, keep_data: bool) {
        self.cluster.stop().await;
        if keep_data {
            let _ = self.data.keep();
        } else if let Err(error) = self.data.close() {
            tracing::warn!(%error, "cannot remove the data directory");
        }
    }
}

/// Runs from beginning to end and leaves nothing behind but, after a failure, the data.
pub async fn run(options: Options) -> Result<Report, DemoError> {
    let (report, remains) = run_until(options, std::future::pending()).await?;
    remains.stop(!report.is_pass()).await;
    Ok(report)
}

/// [`run`], given up when `stop` resolves; the cluster is handed over running.
pub async fn run_until(
    options: Options,
    stop: impl Future<Output = ()>,
) -> Result<(Report, Remains), DemoError> {
    check(&options)?;
    let seed = options
        .seed
        .unwrap_or_else(|| rand::rng().random_range(0..1 << 48));
    let view = View::new(options.progress);
    view.say(&format!("seed {seed}"));
    let payloads = Payloads::new(format!("{seed:012x}"), options.csv.as_deref())?;
    let data = tempfile::Builder::new()
        .prefix("dunlin-demo-")
        .tempdir()
        .map_err(|source| DemoError::Io {
            action: "create data directory",
            source,
        })?;
    let played = tokio::select! {
        played = play(&options, payloads, (seed, data.path()), &view) => played,
        () = stop => {
            view.clear();
            return Err(DemoError::Stopped);
        }
    };
    view.clear();
    match played {
        Ok((mut report, cluster)) => {
            if !report.is_pass() {
                report.data_dir = Some(data.path().to_owned());
            }
            Ok((report, Remains { cluster, data }))
        }
        Err(source) => Err(DemoError::Kept {
            source: Box::new(source),
            data: data.keep(),
        }),
    }
}

fn check(options: &Options) -> Result<(), DemoError> {
    let within = |name: &str, value: u64, min: u64, max: u64| {
        if (min..=max).contains(&value) {
            Ok(())
        } else {
            Err(DemoError::Options(format!(
                "{name} is between {min} and {max}, not {value}"
            )))
        }
    };
    within(
        "the number of nodes",
        options.nodes as u64,
        1,
        LOCAL_NODES_MAX as u64,
    )?;
    within(
        "the number of devices",
        options.devices as u64,
        1,
        DEVICES_MAX as u64,
    )?;
    within("the duration in seconds", options.duration_s, 1, DURATION_S_MAX)?;
    within("the number of kills", options.kills as u64, 0, KILLS_MAX as u64)?;
    if options.kills > 0 && options.nodes < NODES_MIN_TO_KILL {
        return Err(DemoError::Options(format!(
            "a kill needs {NODES_MIN_TO_KILL} nodes, or no majority is left; use --kills 0"
        )));
    }
    Ok(())
}

async fn play(
    options: &Options,
    payloads: Payloads,
    (seed, data): (u64, &Path),
    view: &View,
) -> Result<(Report, LocalCluster), DemoError> {
    view.say(&format!("starting {} nodes in {}", options.nodes, data.display()));
    let io = |action| move |source| DemoError::Io { action, source };
    let mut local = LocalOptions::new(options.nodes, data).map_err(io("find this program"))?;
    local.mqtts_port = options.mqtts_port;
    local.https_port = options.https_port;
    local.cluster_port = options.cluster_port;
    local.mqtt_port = options.plain_port;
    local.program = options.program.clone().unwrap_or(local.program);
    let mut cluster = LocalCluster::start(local).await?;
    let ready = cluster.ready().clone();
    let hub = Arc::new(Hub::new(&ready)?);
    let status = wait_for_leaders(&hub).await?;

    let mut random = StdRng::seed_from_u64(seed);
    let host = ConnectionString::parse(&ready.connection_string)?.host_name;
    let host = host.split(':').next().unwrap_or_default().to_owned();
    let devices = plan_devices(options, status.shards, &host, &mut random)?;
    let probe_count = devices
        .iter()
        .filter(|(plan, _)| matches!(plan.role, Role::Probe { .. }))
        .count();
    view.say(&format!(
        "creating {} devices and {probe_count} probes",
        options.devices
    ));
    let creates = devices
        .iter()
        .map(|(plan, key)| hub.create_device(&plan.device, key));
    stream::iter(creates)
        .buffer_unordered(CREATES_AT_A_TIME)
        .try_collect::<()>()
        .await?;

    let epoch = Instant::now();
    let devices: Vec<DevicePlan> = devices.into_iter().map(|(plan, _)| plan).collect();
    let ids: Vec<String> = devices.iter().map(|plan| plan.device.clone()).collect();
    let gateways = gateways(&ready, &host)?;
    let plan = FleetPlan {
        devices,
        gateways,
        host,
        payloads,
        epoch,
        seed,
    };
    let fleet = Fleet::start(plan).map_err(io("start fleet"))?;
    wait_for_fleet(&fleet, ids.len()).await?;

    view.say(&format!(
        "{} devices send with QoS 1, {}, for {} s",
        options.devices,
        view::describe_rate(options.rate),
        options.duration_s
    ));
    let begun = Instant::now();
    fleet.set_phase(|phase| phase.start = Some(begun));
    let total = Arc::new(Mutex::new(histogram()));
    let watching = Abort(tokio::spawn(view::watch(
        view.clone(),
        Arc::clone(fleet.live()),
        Arc::clone(&hub),
        ready.clone(),
        Arc::clone(&total),
        begun,
    )));
    let played = schedule::play(options, &mut cluster, &hub, &fleet, view, (epoch, begun)).await?;
    let load_s = begun.elapsed().as_secs_f64();
    let live = Arc::clone(fleet.live());
    let load_acked = live.load_acked_count.load(std::sync::atomic::Ordering::Relaxed);
    view.say("the load stops; waiting for the last acks");
    let outcome = fleet.finish(DRAIN_TIMEOUT).await.ok_or(DemoError::FleetGone)?;
    drop(watching);
    let latency_us = take_all(&live, &total);

    let history = History {
        devices: outcome.devices,
        kills: played.kills,
    };
    let (sent, _) = history.sent_and_acked();
    let survivor = (0..options.nodes)
        .find(|node| Some(*node) != played.last_victim)
        .unwrap_or(0);
    hub.prefer(survivor);
    view.say(&format!(
        "reading {} shards back from node {}",
        status.shards,
        survivor + 1
    ));
    let stored = readback::read_all(&hub, &ids, sent * 4 + 100_000).await?;
    let mut gaps_us: BTreeMap<(usize, u32), u64> = BTreeMap::new();
    for gap in outcome.gaps {
        if played
            .led
            .get(gap.kill)
            .is_some_and(|led| led.contains(&gap.shard))
        {
            let longest = gaps_us.entry((gap.kill, gap.shard)).or_default();
            *longest = gap.gap_us.max(*longest);
        }
    }
    let evidence = Evidence {
        seed,
        nodes: options.nodes,
        shards: status.shards,
        devices: options.devices,
        load_s,
        history,
        stored,
        load_acked,
        latency_us,
        gaps_us: gaps_us.into_values().collect(),
        kills_planned: options.kills,
        kills: played.lines,
    };
    Ok((Report::judge(&evidence), cluster))
}

/// Ends a task with whatever owns it.
struct Abort(tokio::task::JoinHandle<()>);

impl Drop for Abort {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn take_all(live: &crate::fleet::Live, total: &Mutex<Histogram<u64>>) -> Histogram<u64> {
    let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
    live.take_latency_us(&mut total);
    total.clone()
}

pub(crate) async fn wait_for_leaders(hub: &Hub) -> Result<ClusterStatus, DemoError> {
    let deadline = Instant::now() + HEALTHY_TIMEOUT;
    loop {
        let status = hub.status().await?;
        if status.shards > 0 && status.health == "healthy" {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            return Err(DemoError::Unhealthy {
                health: status.health,
                waited_s: HEALTHY_TIMEOUT.as_secs(),
            });
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

pub(crate) async fn wait_for_fleet(fleet: &Fleet, all: usize) -> Result<(), DemoError> {
    let deadline = Instant::now() + FLEET_TIMEOUT;
    loop {
        let ready = fleet
            .live()
            .ready_count
            .load(std::sync::atomic::Ordering::Relaxed);
        if ready == all {
            return Ok(());
        }
        if Instant::now() >= deadline {
            let last = fleet
                .live()
                .last_error()
                .unwrap_or_else(|| "no attempt has ended".into());
            return Err(DemoError::NotConnected { ready, all, last });
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// The devices of the load, evenly over the nodes, and a probe for each shard on each node; with keys.
fn plan_devices(
    options: &Options,
    shard_count: u32,
    host: &str,
    random: &mut StdRng,
) -> Result<Vec<(DevicePlan, String)>, DemoError> {
    let now_s = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let mut devices = Vec::new();
    let mut add = |device: String, nodes: Vec<usize>, role: Role, random: &mut StdRng| {
        let key = STANDARD.encode(random.random::<[u8; 32]>());
        let token = device_token(host, &device, &key, now_s + TOKEN_S)?;
        devices.push((
            DevicePlan {
                device,
                token,
                nodes,
                role,
            },
            key,
        ));
        Ok::<(), DemoError>(())
    };
    for index in 0..options.devices {
        let home = index % options.nodes;
        let mut others: Vec<usize> = (0..options.nodes).filter(|node| *node != home).collect();
        others.shuffle(random);
        let role = if options.rate == 0 {
            Role::Load {
                period: None,
                offset: Duration::ZERO,
            }
        } else {
            let period = Duration::from_secs_f64(options.devices as f64 / f64::from(options.rate));
            Role::Load {
                period: Some(period),
                offset: period.mul_f64(random.random_range(0.0..1.0)),
            }
        };
        add(
            format!("demo-{index:05}"),
            [vec![home], others].concat(),
            role,
            random,
        )?;
    }
    if options.kills > 0 {
        for node in 0..options.nodes {
            for shard in 0..shard_count {
                let device = name_in_shard(&format!("probe-{}-{shard}", node + 1), shard, shard_count)?;
                add(device, vec![node], Role::Probe { shard }, random)?;
            }
        }
    }
    Ok(devices)
}

/// A device id that begins with `prefix` and lives in `shard` of a new cluster.
fn name_in_shard(prefix: &str, shard: u32, shard_count: u32) -> Result<String, DemoError> {
    (0..NAMES_MAX)
        .map(|number| format!("{prefix}-{number}"))
        .find(|name| {
            DeviceId::parse(name).is_ok_and(|device| u32::from(device.slot().0) % shard_count == shard)
        })
        .ok_or_else(|| DemoError::Options(format!("no name for a probe of shard {shard}")))
}

pub(crate) fn gateways(ready: &Ready, host: &str) -> Result<Vec<Transport>, DemoError> {
    let roots = std::fs::read(&ready.ca_file).map_err(|source| DemoError::Io {
        action: "read the trusted certificate",
        source,
    })?;
    let config = dunlin_gateway::tls::client_config(&roots)?;
    let transport = |node: &dunlin_node::ready::ReadyNode| match &node.mqtt {
        Some(address) => Transport::Tcp {
            address: address.clone(),
        },
        None => Transport::Tls {
            address: node.mqtts.clone(),
            server_name: host.to_owned(),
            config: Arc::clone(&config),
        },
    };
    Ok(ready.nodes.iter().map(transport).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn probes_live_in_their_shards_and_devices_are_spread() {
        let options = Options {
            devices: 9,
            ..Options::default()
        };
        let plan = plan_devices(&options, 16, "localhost", &mut StdRng::seed_from_u64(1)).unwrap();
        assert_eq!(plan.len(), 9 + 3 * 16);
        for (device, _) in &plan {
            if let Role::Probe { shard } = device.role {
                let id = DeviceId::parse(&device.device).unwrap();
                assert_eq!(u32::from(id.slot().0) % 16, shard);
                assert_eq!(device.nodes.len(), 1);
            }
        }
        for node in 0..3 {
            assert_eq!(
                plan[..9]
                    .iter()
                    .filter(|(device, _)| device.nodes[0] == node)
                    .count(),
                3
            );
        }
        let again = plan_devices(&options, 16, "localhost", &mut StdRng::seed_from_u64(1)).unwrap();
        assert!(
            plan.iter()
                .zip(&again)
                .all(|(one, other)| one.0.nodes == other.0.nodes && one.1 == other.1)
        );
    }

    #[test]
    fn options_that_make_no_sense_are_refused() {
        for options in [
            Options {
                nodes: 0,
                ..Options::default()
            },
            Options {
                nodes: 2,
                ..Options::default()
            },
            Options {
                devices: 0,
                ..Options::default()
            },
            Options {
                duration_s: 0,
                ..Options::default()
            },
        ] {
            assert!(check(&options).is_err());
        }
        assert!(
            check(&Options {
                nodes: 1,
                kills: 0,
                ..Options::default()
            })
            .is_ok()
        );
    }
}
