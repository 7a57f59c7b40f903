//! A run: a cluster of processes or containers, a load, epochs of faults with a quiet time after each, and a
//! verdict.
//!
//! [`run`] sets up, leads through the epochs ([`epochs`]), reads everything back and writes all of it into
//! the run's folder ([`folder`]); then [`judge`] is asked, which sees the folder and nothing else. So the
//! same folder can be judged again, by a better judge or after somebody has changed a line.

pub mod epochs;
mod figures;
pub mod folder;
pub mod journal;
pub mod judge;
mod keeper;
mod metrics;
mod promises;
pub mod report;
mod text;
mod workloads;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dunlin_gateway::auth::ConnectionString;
use dunlin_node::local::{LOCAL_NODES_MAX, LocalCluster, LocalError, LocalOptions};
use dunlin_node::ready::Ready;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;
use tokio::time::Instant;

use crate::faults::{self, FaultError, Field, Gear, Kind};
use crate::fleet::{DevicePlan, Fleet, FleetPlan, Outcome, Role, histogram};
use crate::hostile::attack::Insider;
use crate::hostile::crowd::Ground;
use crate::hub::{Hub, HubError};
use crate::invariants::replicas::fingerprints;
use crate::namespaces::{NamespaceError, Namespaces};
use crate::nodes::compose::{ComposeError, Outfit, Project};
use crate::nodes::containers::Containers;
use crate::nodes::local::Local;
use crate::nodes::{Backend, Nodes};
use crate::payload::Payloads;
use crate::readback::{self, ReadError};
use crate::scenario::{Scenario, ScenarioError, Span, draw, read};
use crate::stage::{self, Planned, StageError, Wanted};
use crate::view::{self, Progress, Shown, View};
use crate::workload::erasing::Subject;
use crate::workload::https::Sender;
use crate::workload::webhook::{Webhook, WebhookError};
use crate::workload::{Bench, Shelf, messages, uploads};
use epochs::Epochs;
use folder::{About, Folder, FolderError, Reading};
use journal::{Event, Journal};
use judge::Verdict;
use keeper::Keeper;

/// Time for outstanding acks once the load has stopped.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(15);
/// Time for the other workloads to come to an end.
const WORKLOADS_TIMEOUT: Duration = Duration::from_secs(20);
/// Time for those that are still to be told of something, once nobody sends any more: what was given out and not heard is
/// locked for a minute.
const LINGERING_TIMEOUT: Duration = Duration::from_secs(120);
/// The hub's name where nodes are in namespaces: all their certificates have it.
const NAMESPACES_HUB: &str = "localhost";
/// Gateways of a compose project where the scenario has none: there shards take no devices.
const COMPOSED_GATEWAYS: usize = 2;
/// Time for shards to have leaders again while a node is stopped for a reading.
const LED_TIMEOUT: Duration = Duration::from_secs(30);

/// What a run is told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Name of the scenario's text, as it stands before problems.
    pub name: String,
    /// The text.
    pub text: String,
    /// Nodes in place of the scenario's number.
    pub nodes: Option<usize>,
    /// Draws everything that is random; itself drawn if not given.
    pub seed: Option<u64>,
    /// Seconds of epochs: the scenario is repeated until they are over, or cut short.
    pub duration_s: Option<u64>,
    /// Where the run's files go; a new folder. Inside `dunlin-chaos` if not given.
    pub folder: Option<PathBuf>,
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
    /// The program that runs a node; this one if not given.
    pub program: Option<PathBuf>,
    /// A compose file whose containers are the nodes; without it they are processes, to which the program
    /// and the ports belong.
    pub compose: Option<PathBuf>,
    /// Whether each node, as a process, has a network namespace of its own.
    pub namespaces: bool,
    /// Where progress is shown.
    pub progress: Progress,
    /// Whether data and logs of the nodes are kept even if all is well, and containers are left there.
    pub keeps_nodes: bool,
}

impl Options {
    /// The scenario of this text, with the usual ports.
    pub fn new(name: &str, text: &str) -> Options {
        Options {
            name: name.to_owned(),
            text: text.to_owned(),
            nodes: None,
            seed: None,
            duration_s: None,
            folder: None,
            mqtts_port: 8883,
            amqps_port: 5671,
            kafka_port: 9093,
            https_port: 8443,
            cluster_port: 8900,
            program: None,
            compose: None,
            namespaces: false,
            progress: Progress::Silent,
            keeps_nodes: false,
        }
    }
}

/// Why there is no verdict.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The scenario makes no sense.
    #[error(transparent)]
    Scenario(#[from] ScenarioError),
    /// The cluster.
    #[error(transparent)]
    Cluster(#[from] LocalError),
    /// The containers.
    #[error(transparent)]
    Compose(#[from] ComposeError),
    /// The namespaces.
    #[error("set up network namespaces: {0}")]
    Namespaces(#[from] NamespaceError),
    /// A call over HTTPS.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// Setting up.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// Reading back.
    #[error("read back: {0}")]
    Read(#[from] ReadError),
    /// The webhook that routes lead to.
    #[error(transparent)]
    Webhook(#[from] WebhookError),
    /// A node could not be stopped or started for a reading.
    #[error("read other replicas: {0}")]
    Replicas(#[from] FaultError),
    /// A file or a thread.
    #[error("{action}: {source}")]
    Io {
        /// Verb and object.
        action: &'static str,
        /// Why.
        source: std::io::Error,
    },
    /// The fleet's thread ended without a word.
    #[error("the fleet ended early")]
    FleetGone,
    /// What was written cannot be read.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Somebody asked the run to stop.
    #[error("stopped before the end")]
    Stopped,
    /// Any of the above, once there was something to look at.
    #[error("{source}; what there is lies in {}", .folder.display())]
    Kept {
        /// What went wrong.
        source: Box<RunError>,
        /// Where.
        folder: PathBuf,
    },
}

fn io(action: &'static str) -> impl Fn(std::io::Error) -> RunError {
    move |source| RunError::Io { action, source }
}

/// A scenario as it is run.
struct Script {
    scenario: Scenario,
    /// Its text, as it is kept.
    text: String,
    seed: u64,
    /// Arguments that its nodes do not get.
    left_out: Vec<String>,
}

/// The scenario of these options, with the nodes that were asked for.
fn script(options: &Options) -> Result<Script, RunError> {
    let mut scenario = read::parse(&options.name, &options.text)?;
    let mut text = options.text.clone();
    if let Some(nodes) = options.nodes {
        scenario.cluster.nodes = nodes;
        // What was sound for the scenario's own cluster may not be for this one.
        read::check(&options.name, &options.text, &scenario)?;
        text = read::with_number(&text, "nodes", nodes)?;
    }
    let mut left_out = Vec::new();
    if options.compose.is_some() {
        left_out = std::mem::take(&mut scenario.cluster.arguments);
        text = read::with_described_nodes(&text, COMPOSED_GATEWAYS)?;
        scenario = read::parse(&options.name, &text)?;
    }
    let drawn = || rand::rng().random_range(0..1 << 48);
    Ok(Script {
        scenario,
        text,
        seed: options.seed.unwrap_or_else(drawn),
        left_out,
    })
}

/// Runs a scenario from beginning to end, unless `stop` resolves first, and judges it.
pub async fn run(options: Options, stop: impl Future<Output = ()>) -> Result<Verdict, RunError> {
    let script = script(&options)?;
    let (name, seed) = (script.scenario.name.clone(), script.seed);
    let project = match &options.compose {
        None => None,
        Some(file) => Some(Project::open(file, &format!("dunlin-chaos-{seed:012x}")).await?),
    };
    let path = options
        .folder
        .clone()
        .unwrap_or_else(|| PathBuf::from("dunlin-chaos").join(format!("{name}-{seed:012x}")));
    let folder = folder::create(&path).map_err(io("create the run's folder"))?;
    let view = View::new(options.progress);
    view.say(&format!("{name}: {}", script.scenario.shows.trim()));
    if !script.left_out.is_empty() {
        let left_out = script.left_out.join(" ");
        view.say(&format!(
            "left out, as the compose file says what nodes are told: {left_out}"
        ));
    }
    view.say(&format!("seed {seed}; everything goes to {}", path.display()));
    let played = tokio::select! {
        played = play(&options, script, project.as_ref(), &folder, &view) => played,
        () = stop => Err(RunError::Stopped),
    };
    view.clear();
    if let Some(project) = &project {
        take_down(project, options.keeps_nodes, &folder, &view).await;
    }
    let verdict = match played {
        Ok(()) => judge::judge(&folder)?,
        Err(source) => {
            return Err(RunError::Kept {
                source: Box::new(source),
                folder: path,
            });
        }
    };
    if verdict.is_pass() && !options.keeps_nodes {
        std::fs::remove_dir_all(folder.file("nodes")).map_err(io("remove the nodes' data"))?;
    }
    Ok(verdict)
}

/// Keeps the logs of a project's containers and takes them down. What fails here changes no verdict.
async fn take_down(project: &Project, keeps: bool, folder: &Folder, view: &View) {
    if let Err(error) = project.keep_logs(&folder.file("nodes")).await {
        view.say(&format!("the logs of the containers are not kept: {error}"));
    }
    let by_hand = project.down_by_hand();
    if keeps {
        return view.say(&format!("the containers are kept; `{by_hand}` takes them down"));
    }
    view.say("taking the containers down");
    if let Err(error) = project.down().await {
        view.say(&format!("the containers are not down: {error}; try `{by_hand}`"));
    }
}

/// What is there once the cluster runs.
struct Stage<'a> {
    scenario: &'a Scenario,
    seed: u64,
    folder: &'a Folder,
    view: &'a View,
    epoch: Instant,
    ready: Ready,
    hub: Arc<Hub>,
    host: String,
}

/// The devices of a run: what the fleet does, and the others with a history, in its order.
struct Cast {
    fleet: Vec<DevicePlan>,
    https: Vec<Sender>,
    churn: Vec<Sender>,
    /// Those that are erased.
    erased: Vec<Subject>,
    /// Those that attackers speak as, which have none.
    insiders: Vec<Insider>,
}

impl Cast {
    fn names(&self) -> Vec<String> {
        let erased = self.erased.iter().map(|subject| subject.device.clone());
        self.lasting().chain(erased).collect()
    }

    /// Those whose messages stay.
    fn lasting(&self) -> impl Iterator<Item = String> {
        let fleet = self.fleet.iter().map(|plan| plan.device.clone());
        let others = self.https.iter().chain(&self.churn);
        fleet.chain(others.map(|sender| sender.device.clone()))
    }
}

async fn play(
    options: &Options,
    mut script: Script,
    project: Option<&Project>,
    folder: &Folder,
    view: &View,
) -> Result<(), RunError> {
    let keep =
        |text: &str| std::fs::write(folder.file("scenario.toml"), text).map_err(io("write the scenario"));
    keep(&script.text)?;
    let journal = Journal::create(&folder.file("journal.jsonl")).map_err(io("begin the journal"))?;
    let (cluster, seed) = (&script.scenario.cluster, script.seed);
    let gateways = match cluster.gateways {
        0 => String::new(),
        gateways => format!(" and {gateways} gateways"),
    };
    view.say(&format!("starting {} nodes{gateways}", cluster.nodes));
    let started = match project {
        None => start_processes(options, &script.scenario, folder).await?,
        Some(project) => start_containers(project, &script.scenario, folder, view).await?,
    };
    let Started {
        nodes,
        ready,
        mut gear,
        refused,
    } = started;
    let hub = Arc::new(Hub::new(&ready)?);
    let status = stage::wait_until_whole(&hub).await?;
    if project.is_some() && status.shards != script.scenario.cluster.shards {
        // Containers are told by their file how many there are.
        script.scenario.cluster.shards = status.shards;
        keep(&read::with_number(
            &script.text,
            "shards",
            status.shards as usize,
        )?)?;
    }
    let scenario = &script.scenario;
    let stage = Stage {
        scenario,
        seed,
        folder,
        view,
        epoch: Instant::now(),
        host: stage::host_of(&ready)?,
        ready,
        hub: Arc::clone(&hub),
    };
    let cast = stage.cast().await?;
    let about = About {
        scenario: scenario.name.clone(),
        seed,
        nodes: scenario.cluster.nodes + scenario.cluster.gateways,
        shards: scenario.cluster.shards,
        devices: scenario.load.devices,
        names: cast.names(),
        attackers: cast.insiders.iter().map(|one| one.device.clone()).collect(),
        deeds_dropped: 0,
    };
    if !cast.insiders.is_empty() {
        gear.put(Ground {
            targets: stage::gateways(&stage.ready, &stage.host)?,
            host: stage.host.clone(),
            insiders: cast.insiders.clone(),
        });
    }
    let field = Field::new(nodes, hub, gear, journal, (stage.epoch, &folder.0));
    let (keeper, webhook) = stage.perform(&field, cast, options.duration_s, refused).await?;
    stage.read_back(&field, &about, webhook.as_ref()).await?;
    stage.close_messages(&keeper).await?;
    drop(webhook);
    let dropped = keeper.write_up().map_err(io("write the history"))?;
    view.say("stopping the nodes");
    field.stop_all().await;
    for node in 0..field.node_count() {
        field.keep_audit(node).await?;
    }
    let about = About {
        deeds_dropped: dropped,
        ..about
    };
    folder.save_about(&about).map_err(io("write run.json"))?;
    field.sync_journal().map_err(io("write the journal"))
}

/// Nodes that serve, with what kinds have set up, and those that cannot be done.
struct Started {
    nodes: Box<dyn Nodes>,
    ready: Ready,
    gear: Gear,
    refused: Vec<(&'static str, String)>,
}

/// Every kind that a scenario names.
fn kinds(scenario: &Scenario) -> impl Iterator<Item = &'static Kind> {
    let listed = scenario.epochs.iter().flat_map(|epoch| &epoch.faults);
    let drawn = scenario.composed.iter().flat_map(|composed| &composed.faults);
    let named: BTreeSet<&str> = listed
        .chain(drawn)
        .map(|fault| fault.kind.get_ref().as_str())
        .collect();
    named.into_iter().filter_map(faults::kind)
}

/// Processes of this machine, started after every kind that the scenario names has set up what it needs.
async fn start_processes(
    options: &Options,
    scenario: &Scenario,
    folder: &Folder,
) -> Result<Started, RunError> {
    let shape = &scenario.cluster;
    let data = folder.file("nodes");
    let mut local = LocalOptions::new(shape.nodes, &data).map_err(io("find this program"))?;
    local.gateways = shape.gateways;
    local.mqtts_port = options.mqtts_port;
    local.amqps_port = options.amqps_port;
    local.kafka_port = options.kafka_port;
    local.https_port = options.https_port;
    local.cluster_port = options.cluster_port;
    local.program = options.program.clone().unwrap_or(local.program);
    local.arguments = vec![
        "--shards".into(),
        shape.shards.to_string(),
        "--https-alt-port".into(),
        "0".into(),
    ];
    local.arguments.extend(shape.arguments.iter().cloned());
    if scenario.uploads.is_some() {
        let told = uploads::store(&folder.0).map_err(io("make a folder for files"))?;
        local.arguments.extend(told);
    }
    let (mut gear, mut refused) = (Gear::default(), Vec::new());
    if options.namespaces {
        // Also for nodes that join later.
        let (namespaces, gates) = Namespaces::set_up(LOCAL_NODES_MAX)?;
        local.subnet = namespaces.subnet();
        local.namespaces = Some(namespaces.prefix());
        gear.put(namespaces);
        gear.put(gates);
    }
    for kind in kinds(scenario) {
        if let Some(prepare) = kind.prepare
            && let Err(reason) = prepare(&mut local, &mut gear)
        {
            refused.push((kind.name, reason));
        }
    }
    let cluster = LocalCluster::start(local).await?;
    let mut ready = cluster.ready().clone();
    if options.namespaces {
        // It names the first node's address, which is in no other's certificate.
        let mut hub = ConnectionString::parse(&ready.connection_string).map_err(StageError::from)?;
        hub.host_name = NAMESPACES_HUB.to_owned();
        ready.connection_string = hub.format();
    }
    Ok(Started {
        nodes: Box::new(Local::new(cluster)),
        ready,
        gear,
        refused,
    })
}

/// Containers of a project, with the kinds that they do not carry.
async fn start_containers(
    project: &Project,
    scenario: &Scenario,
    folder: &Folder,
    view: &View,
) -> Result<Started, RunError> {
    view.say(&format!("they are containers of project {}", project.name()));
    let data = folder.file("nodes");
    std::fs::create_dir_all(&data).map_err(io("create the nodes' folder"))?;
    let shape = (scenario.cluster.nodes, scenario.cluster.gateways);
    let (mut outfit, mut gear, mut refused) = (Outfit::default(), Gear::default(), Vec::new());
    for kind in kinds(scenario) {
        let prepare = kind.prepare_in_containers;
        let prepared = match kind.refusal(Backend::Containers) {
            Some(reason) => Err(reason),
            None => prepare.map_or(Ok(()), |prepare| prepare(&mut outfit, &mut gear)),
        };
        refused.extend(prepared.err().map(|reason| (kind.name, reason)));
    }
    let (containers, ready) = Containers::start(project, shape, outfit, &data).await?;
    Ok(Started {
        nodes: Box::new(containers),
        ready,
        gear,
        refused,
    })
}

impl Stage<'_> {
    /// Draws the devices and creates them.
    async fn cast(&self) -> Result<Cast, RunError> {
        let scenario = self.scenario;
        let mut random = StdRng::seed_from_u64(self.seed);
        let wanted = Wanted {
            devices: scenario.load.devices,
            rate: scenario.load.rate,
            gateways: scenario.cluster.gateway_count(),
            shards: scenario.cluster.shards,
            has_probes: true,
        };
        let mut devices = stage::plan_devices(&wanted, "load", &self.host, &mut random)?;
        let probe_count = devices.len() - scenario.load.devices;
        let mut add = |prefix: &str, count: usize| -> Result<Vec<Sender>, RunError> {
            let mut senders = Vec::new();
            for number in 0..count {
                let device = format!("{prefix}-{number}");
                let key = stage::draw_key(&mut random);
                let token = stage::token(&self.host, &device, &key)?;
                senders.push(Sender {
                    index: devices.len() as u32,
                    device: device.clone(),
                    token: token.clone(),
                });
                devices.push(Planned {
                    plan: DevicePlan {
                        device,
                        token,
                        nodes: Vec::new(),
                        // Not one of the fleet, which never sees it.
                        role: Role::Probe { shard: 0 },
                    },
                    key,
                });
            }
            Ok(senders)
        };
        let https = add("https", scenario.https.as_ref().map_or(0, |https| https.devices))?;
        let churn = add("churn", scenario.churn.as_ref().map_or(0, |churn| churn.devices))?;
        let insiders = add("hostile", faults::insiders(kinds(scenario)))?;
        self.view.say(&format!(
            "creating {} devices and {probe_count} probes",
            devices.len() - probe_count
        ));
        stage::create(&self.hub, &devices).await?;
        devices.truncate(scenario.load.devices + probe_count);
        Ok(Cast {
            fleet: devices.into_iter().map(|device| device.plan).collect(),
            erased: Subject::all(
                scenario.erasing.as_ref().map_or(0, |erasing| erasing.devices),
                scenario.load.devices + probe_count + https.len() + churn.len(),
                scenario.cluster.shards,
            ),
            https,
            churn,
            insiders: insiders
                .into_iter()
                .map(|Sender { device, token, .. }| Insider { device, token })
                .collect(),
        })
    }

    fn payloads(&self) -> Payloads {
        payloads(self.scenario, self.seed)
    }

    /// Load and faults, from the first message to the last ack. What happens afterwards the keeper writes down as well.
    async fn perform(
        &self,
        field: &Field,
        cast: Cast,
        duration_s: Option<u64>,
        refused: Vec<(&'static str, String)>,
    ) -> Result<(Keeper, Option<Webhook>), RunError> {
        let shelf = Shelf::default();
        let keeper = Keeper::new(self.folder, shelf.clone()).map_err(io("begin the history"))?;
        let load = &self.scenario.load;
        let gateways = stage::gateways(&self.ready, &self.host)?;
        let webhook = self.lead_routes(field, &shelf).await?;
        let known = Arc::new(cast.lasting().collect());
        let fleet_count = cast.fleet.len();
        let fleet = Fleet::start(FleetPlan {
            devices: cast.fleet,
            gateways: gateways.clone(),
            host: self.host.clone(),
            payloads: self.payloads(),
            epoch: self.epoch,
            seed: self.seed,
            window: load.window,
            qos0_percent: load.qos0_percent,
            recorder: Some(Arc::clone(&shelf.recorder)),
        })
        .map_err(io("start the fleet"))?;
        stage::wait_for_fleet(&fleet, fleet_count).await?;
        let (stop, stopping) = watch::channel(false);
        let bench = Bench {
            hub: Arc::clone(&self.hub),
            gateways: Arc::new(gateways),
            kafka: Arc::new(stage::readers(&self.ready, &self.host)?),
            host: self.host.clone(),
            payloads: Arc::new(self.payloads()),
            shelf,
            epoch: self.epoch,
            seed: self.seed,
            stop: stopping,
        };
        let begun = Instant::now();
        self.view.say(&format!(
            "{} devices send {} messages per second; {} epochs follow",
            load.devices,
            load.rate,
            draw::epoch_count(self.scenario)
        ));
        fleet.set_phase(|phase| phase.start = Some(begun));
        field.journal(Event::LoadBegun);
        let watching = view::watch(Shown {
            view: self.view.clone(),
            live: Arc::clone(fleet.live()),
            hub: Arc::clone(&self.hub),
            ready: self.ready.clone(),
            total: Arc::new(Mutex::new(histogram())),
            begun,
        });
        let others = (cast.https, cast.churn, cast.erased);
        let mut workloads = self.workloads(&bench, others, &known, field.backend());
        let epochs = Epochs::new(
            (self.scenario, self.seed),
            field,
            &fleet,
            self.view,
            begun,
            refused,
        );
        let mut keeping = Box::pin(keeper.keep(field));
        let ended = tokio::select! {
            ended = epochs.play(duration_s, &keeper) => ended,
            never = &mut keeping => match never {},
        };
        ended.map_err(io("write the journal"))?;
        field.journal(Event::LoadEnded);
        self.view.say("the load stops; waiting for the last acks");
        stop.send_replace(true);
        if let Some(webhook) = &webhook {
            webhook.be_well();
        }
        let watched = epochs.watched();
        let finishing = async {
            let mut all = Box::pin(async { while workloads.join_next().await.is_some() {} });
            let in_time = tokio::time::timeout(WORKLOADS_TIMEOUT, &mut all).await.is_ok();
            let outcome = fleet.finish(DRAIN_TIMEOUT).await.ok_or(RunError::FleetGone)?;
            if !in_time && tokio::time::timeout(LINGERING_TIMEOUT, all).await.is_err() {
                tracing::warn!("a workload did not end in time");
            }
            Ok::<_, RunError>(outcome)
        };
        let outcome = tokio::select! {
            outcome = finishing => outcome?,
            never = &mut keeping => match never {},
        };
        drop(keeping);
        drop(watching);
        note_gaps(field, &watched, outcome);
        keeper.write_up().map_err(io("write the history"))?;
        Ok((keeper, webhook))
    }

    /// Reads everything back, and from other replicas too where that is asked for.
    async fn read_back(
        &self,
        field: &Field,
        about: &About,
        webhook: Option<&Webhook>,
    ) -> Result<(), RunError> {
        self.view.say(&format!("reading {} shards back", about.shards));
        let count_max = u64::from(u32::MAX);
        let senders = about.senders();
        let stored = readback::read_all(&self.hub, &senders, count_max).await?;
        self.folder
            .save_stored(&stored)
            .map_err(io("write what was read back"))?;
        if let Some(webhook) = webhook {
            self.wait_for_deliveries(webhook, about, &stored).await;
        }
        let mut readings = self
            .folder
            .lines("replicas.jsonl")
            .map_err(io("begin the readings"))?;
        if self.scenario.compare_replicas {
            for node in self.scenario.cluster.gateways..about.nodes {
                self.view
                    .say(&format!("reading again, without node {}", node + 1));
                field.terminate(node).await?;
                let is_led = |status: &dunlin_cluster::admin::ClusterStatus| {
                    status.groups.iter().all(|group| group.leader.is_some())
                };
                field
                    .wait_until("every shard has a leader", LED_TIMEOUT, is_led)
                    .await?;
                let again = readback::read_all(&self.hub, &senders, count_max).await?;
                let reading = Reading {
                    without: node,
                    shards: fingerprints(&again),
                };
                readings.write(&reading).map_err(io("write a reading"))?;
                field.start(node).await?;
                stage::wait_until_whole(&self.hub).await?;
            }
        }
        readings.sync().map_err(io("write the readings"))
    }

    /// Waits until all messages that devices fetch have ended, and services have heard of it.
    async fn close_messages(&self, keeper: &Keeper) -> Result<(), RunError> {
        let so_far = self.folder.all("messages.jsonl")?;
        let at = (self.scenario.cluster.gateway_count(), self.seed);
        if self.scenario.messages.is_some() {
            self.view
                .say("waiting until messages to devices have ended, and feedback has come");
        }
        let rest = messages::close(Arc::clone(&self.hub), at, self.epoch, so_far).await;
        keeper.take_in(rest);
        Ok(())
    }
}

/// What the devices of a run say.
fn payloads(scenario: &Scenario, seed: u64) -> Payloads {
    Payloads::of_run(seed, scenario.load.padding_bytes.map(Span::bounds))
}

/// The longest gap of each shard that a fault's node led.
fn note_gaps(field: &Field, watched: &BTreeSet<(usize, u32)>, outcome: Outcome) {
    let mut longest = BTreeMap::new();
    for gap in outcome.gaps {
        if watched.contains(&(gap.fault, gap.shard)) {
            let entry = longest.entry((gap.fault, gap.shard)).or_insert(0);
            *entry = gap.gap_us.max(*entry);
        }
    }
    for ((fault, shard), gap_us) in longest {
        field.journal(Event::Gap { fault, shard, gap_us });
    }
}
