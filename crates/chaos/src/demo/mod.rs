//! The demo: a cluster of real processes under load, a node killed in the middle of it, and proof.
//!
//! [`run`] starts the nodes, creates devices, lets the fleet send, kills the node that leads most
//! shards and brings it back, reads everything back from a node that lived, and judges. It touches
//! the hub through its public doors only. What is shown meanwhile is in [`view`].

mod schedule;

use std::collections::BTreeMap;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dunlin_node::local::{LOCAL_NODES_MAX, LocalCluster, LocalError, LocalOptions};
use dunlin_node::ready::Ready;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::fleet::{DevicePlan, Fleet, FleetPlan, WINDOW, histogram};
use crate::hub::{Hub, HubError};
use crate::oracle::History;
use crate::payload::{Payloads, RecordingError};
use crate::readback::{self, ReadError};
use crate::stage::{self, StageError, Wanted};
use crate::verdict::{Evidence, Report};
pub use crate::view::Progress;
use crate::view::{self, Shown, View};

/// Devices that a run may have.
pub const DEVICES_MAX: usize = 10_000;
/// Seconds of load.
pub const DURATION_S_MAX: u64 = 3600;
/// Kills in a run.
pub const KILLS_MAX: usize = 100;
/// Nodes without which a kill takes the majority away.
const NODES_MIN_TO_KILL: usize = 3;
/// Time for outstanding acks once the load has stopped.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(15);
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
    /// Port of AMQP over TLS.
    pub amqps_port: u16,
    /// Port of Kafka over TLS.
    pub kafka_port: u16,
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
            amqps_port: 5671,
            kafka_port: 9093,
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
    /// Setting up.
    #[error(transparent)]
    Stage(#[from] StageError),
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
    local.amqps_port = options.amqps_port;
    local.kafka_port = options.kafka_port;
    local.https_port = options.https_port;
    local.cluster_port = options.cluster_port;
    local.mqtt_port = options.plain_port;
    local.program = options.program.clone().unwrap_or(local.program);
    let mut cluster = LocalCluster::start(local).await?;
    let ready = cluster.ready().clone();
    let hub = Arc::new(Hub::new(&ready)?);
    let status = stage::wait_until_whole(&hub).await?;

    let mut random = StdRng::seed_from_u64(seed);
    let host = stage::host_of(&ready)?;
    let wanted = Wanted {
        devices: options.devices,
        rate: options.rate,
        gateways: options.nodes,
        shards: status.shards,
        has_probes: options.kills > 0,
    };
    let devices = stage::plan_devices(&wanted, "demo", &host, &mut random)?;
    view.say(&format!(
        "creating {} devices and {} probes",
        options.devices,
        devices.len() - options.devices
    ));
    stage::create(&hub, &devices).await?;

    let epoch = Instant::now();
    let devices: Vec<DevicePlan> = devices.into_iter().map(|device| device.plan).collect();
    let ids: Vec<String> = devices.iter().map(|plan| plan.device.clone()).collect();
    let gateways = stage::gateways(&ready, &host)?;
    let plan = FleetPlan {
        devices,
        gateways,
        host,
        payloads,
        epoch,
        seed,
        window: WINDOW,
        qos0_percent: 0,
        recorder: None,
    };
    let fleet = Fleet::start(plan).map_err(io("start fleet"))?;
    stage::wait_for_fleet(&fleet, ids.len()).await?;

    view.say(&format!(
        "{} devices send with QoS 1, {}, for {} s",
        options.devices,
        view::describe_rate(options.rate),
        options.duration_s
    ));
    let begun = Instant::now();
    fleet.set_phase(|phase| phase.start = Some(begun));
    let total = Arc::new(Mutex::new(histogram()));
    let watching = view::watch(Shown {
        view: view.clone(),
        live: Arc::clone(fleet.live()),
        hub: Arc::clone(&hub),
        ready: ready.clone(),
        total: Arc::clone(&total),
        begun,
    });
    let played = schedule::play(options, &mut cluster, &hub, &fleet, view, (epoch, begun)).await?;
    let load_s = begun.elapsed().as_secs_f64();
    let live = Arc::clone(fleet.live());
    let load_acked = live.load_acked_count.load(std::sync::atomic::Ordering::Relaxed);
    view.say("the load stops; waiting for the last acks");
    let outcome = fleet.finish(DRAIN_TIMEOUT).await.ok_or(DemoError::FleetGone)?;
    drop(watching);
    let latency_us = view::take_all(&live, &total);

    let history = History {
        devices: outcome.devices,
        disturbances: played.kills,
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
            .get(gap.fault)
            .is_some_and(|led| led.contains(&gap.shard))
        {
            let longest = gaps_us.entry((gap.fault, gap.shard)).or_default();
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

#[cfg(test)]
mod tests {
    use super::*;

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
