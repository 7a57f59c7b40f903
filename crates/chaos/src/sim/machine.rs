//! One machine of a simulation: a disk, a clock, and a node that lives on them, from one start to the next
//! kill.
//!
//! A life is a runtime of its own on paused time. [`Machine::run_to`] lets it run up to a moment; a life that
//! is not run stands still, as a stopped process does, and a life that is run at another rate has a clock
//! that drifts. Dropping the runtime ends every task at once: that is SIGKILL. What the disk keeps is decided
//! by who cuts the power.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dunlin_actors::{ActorHost, HostConfig};
use dunlin_cluster::config::NodeIdentity;
use dunlin_cluster::{AgreedClock, Cluster, ClusterConfig, Parts, ShardParts, Simulated, Timing, TlsSources};
use dunlin_model::directory::Role;
use dunlin_model::id::NodeId;
use dunlin_model::point::Point;
use dunlin_model::port::{Clock, ShardClient};
use dunlin_node::HostedShards;
use dunlin_storage::data_dir::DataDir;
use dunlin_storage::disk::Disk;
use dunlin_storage::disk::faulty::{FaultyDisk, Operation, PowerCut};
use dunlin_storage::journal::{Journal, JournalConfig};
use dunlin_storage::state::StateCut;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::SimError;
use super::disk::{DiskStores, Events, Paced, States, drive};
use super::ears::{Book, Ear};
use super::eyes::Eye;
use super::fleet::Sessions;
use super::net::Net;
use crate::invariants::raft::Round;

/// Small, so that segments fill and are recycled within a run.
const SEGMENT_BYTES: u64 = 256 << 10;
const SEGMENTS_MAX: usize = 8;
/// One bit is flipped per so many bytes of a file.
const FLIP_EVERY_BYTES: usize = 64 << 10;
/// Places that are tried to find one that is in use.
const FLIP_TRIES: usize = 64;
/// The wall clock at the beginning: 2026-01-01.
const WALL_MS_START: u64 = 1_767_225_600_000;

/// A machine's clock: told by who runs the machine, so that it can drift, jump and stand still.
#[derive(Default)]
pub(super) struct SimClock {
    monotonic_us: AtomicU64,
    wall_offset_ms: AtomicI64,
}

impl SimClock {
    /// Sets the wall clock forward, or back.
    pub(super) fn step_wall(&self, by_ms: i64) {
        self.wall_offset_ms.fetch_add(by_ms, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn wall_ms(&self) -> u64 {
        (WALL_MS_START + self.monotonic_ms())
            .saturating_add_signed(self.wall_offset_ms.load(Ordering::Relaxed))
    }

    fn monotonic_ms(&self) -> u64 {
        self.monotonic_us.load(Ordering::Relaxed) / 1000
    }
}

/// What all machines of a run share.
pub(super) struct Site {
    pub(super) net: Net,
    pub(super) addresses: Vec<SocketAddr>,
    pub(super) identities: Vec<NodeIdentity>,
    pub(super) shard_count: u32,
    pub(super) checkpoint_every: Duration,
    pub(super) tls: TlsSources,
    /// Where it is noted what replicas say.
    pub(super) book: Arc<Book>,
}

/// A node between its start and its end.
pub(super) struct Life {
    pub(super) runtime: Runtime,
    pub(super) cluster: Arc<Cluster>,
    pub(super) client: Arc<dyn ShardClient>,
    pub(super) sessions: Arc<Sessions>,
    pub(super) events: Events,
    pub(super) journal: Arc<Journal>,
    host: Arc<ActorHost>,
    /// Set when its journal has failed: the process ends then.
    failed: Arc<AtomicBool>,
    started: Instant,
    /// The machine's time at the start of this life, and now.
    began_us: u64,
}

/// A machine.
pub(super) struct Machine {
    pub(super) place: usize,
    pub(super) clock: Arc<SimClock>,
    pub(super) disk: FaultyDisk,
    pub(super) paced: Paced,
    pub(super) states: States,
    pub(super) life: Option<Life>,
    pub(super) is_stopped: bool,
    /// What a power cut that comes by itself keeps; see [`Machine::cut_power_in_sync`].
    pub(super) cut_seed: Option<u64>,
    /// Microseconds of its own that pass in a million of the world's.
    pub(super) rate_ppm: u64,
    /// Whether its disk refuses to sync.
    refuses_syncs: bool,
    /// Whether bits were flipped.
    is_damaged: bool,
    eye: Eye,
    /// What there was to see when a life ended, until the world looks.
    last_looks: Vec<Round>,
    data: Arc<DataDir>,
    /// Its own time.
    local_us: u64,
    /// Lives so far, for the runtime's seed.
    lives: u64,
    seed: u64,
}

impl Machine {
    pub(super) fn new(place: usize, seed: u64, folder: &Path) -> Result<Machine, SimError> {
        let node = node_id(place);
        let data = DataDir::open_as(&folder.join(format!("node-{}", place + 1)), || node)
            .map_err(|error| SimError::Setup(error.to_string()))?;
        Ok(Machine {
            place,
            clock: Arc::default(),
            disk: FaultyDisk::new(),
            paced: Paced::new(seed ^ 0xD15C),
            states: States::default(),
            life: None,
            is_stopped: false,
            cut_seed: None,
            rate_ppm: 1_000_000,
            refuses_syncs: false,
            is_damaged: false,
            eye: Eye::default(),
            last_looks: Vec::new(),
            data: Arc::new(data),
            local_us: 0,
            lives: 0,
            seed,
        })
    }

    fn no_start(&self, reason: String) -> SimError {
        SimError::Start {
            node: self.place + 1,
            reason,
        }
    }

    /// Starts the node, if it does not run.
    pub(super) fn start(&mut self, site: &Site) -> Result<(), SimError> {
        if self.life.is_some() {
            return Ok(());
        }
        self.lives += 1;
        let runtime = runtime(self.seed.wrapping_add(self.lives))?;
        let bell = Arc::new(Notify::new());
        let (ring, failed) = (bell.clone(), Arc::new(AtomicBool::new(false)));
        let config = JournalConfig {
            segment_bytes: SEGMENT_BYTES,
            segments_max: SEGMENTS_MAX,
            signature_seed: Some(self.seed.wrapping_add(self.lives)),
            ..JournalConfig::default()
        };
        let disk: Arc<dyn Disk> = Arc::new(self.disk.clone());
        let opened = Journal::open_driven(disk.clone(), config, Box::new(move || ring.notify_one()));
        let (journal, driver) = opened.map_err(|error| self.no_start(error.to_string()))?;
        let damaged = journal.stats().damaged;
        if !damaged.is_empty() {
            Point::JournalDamaged.reach();
            if !self.is_damaged {
                return Err(self.no_start(format!(
                    "I19: no bit was flipped, and the journal has damage: {damaged:?}"
                )));
            }
        }
        let has_failed = failed.clone();
        journal.on_failure(Box::new(move |_| has_failed.store(true, Ordering::Relaxed)));
        let journal = Arc::new(journal);
        let of_node = journal.clone();
        let ear = Ear {
            place: self.place,
            clock: self.clock.clone(),
            disk: self.disk.clone(),
            journal: journal.clone(),
            book: site.book.clone(),
            found_upto: Mutex::default(),
        };
        let address = site.addresses[self.place];
        let config = ClusterConfig {
            listen: address,
            kafka: None,
            advertise: None,
            seeds: site.addresses.iter().map(ToString::to_string).collect(),
            roles: vec![Role::Shard, Role::Gateway],
            expect: site.addresses.len(),
            shard_count: site.shard_count,
            replication_factor: site.addresses.len().min(3) as u32,
            timing: Timing::LAN,
            replace_after: Duration::from_secs(3600),
            checkpoint_every: site.checkpoint_every,
            segment_age: Duration::from_secs(5),
            journal_segments_max: SEGMENTS_MAX,
            identity: site.identities[self.place].clone(),
            simulated: Some(Simulated {
                datagrams: site.net.bind(address),
                pid: self.lives as u32,
                tls: site.tls.clone(),
                witness: Some(Arc::new(ear)),
            }),
        };
        let events = Events::default();
        let stores = DiskStores {
            disk,
            states: self.states.clone(),
            events: events.clone(),
        };
        let (data, handle) = (self.data.clone(), runtime.handle().clone());
        let clock = AgreedClock::new(self.clock.clone());
        let paced = self.paced.clone();
        let started = runtime.block_on(async move {
            let begun = Instant::now();
            tokio::spawn(drive(driver, bell.clone(), paced));
            // Makes the first spares.
            bell.notify_one();
            let host =
                ActorHost::start(clock.clone(), HostConfig::default()).map_err(|error| error.to_string())?;
            let parts = Parts {
                data,
                shard: Some(ShardParts {
                    journal: of_node,
                    stores: Arc::new(stores),
                    host: Arc::new(HostedShards(host.clone())),
                }),
                clock,
                gateway_runtime: handle,
            };
            let cluster = Cluster::start(config, parts)
                .await
                .map_err(|error| error.to_string())?;
            Ok::<_, String>((begun, Arc::new(cluster), host))
        });
        let (started, cluster, host) = started.map_err(|error| self.no_start(error))?;
        let client = cluster.client();
        let sessions = Arc::new(Sessions::default());
        client.attach(sessions.clone());
        self.is_stopped = false;
        self.life = Some(Life {
            runtime,
            cluster,
            client,
            sessions,
            events,
            journal,
            host,
            failed,
            started,
            began_us: self.local_us,
        });
        Ok(())
    }

    /// Lets `us` microseconds of the world pass.
    pub(super) fn pass(&mut self, us: u64) {
        self.local_us += us * self.rate_ppm / 1_000_000;
        self.clock.monotonic_us.store(self.local_us, Ordering::Relaxed);
        if self.is_stopped {
            return;
        }
        if let Some(life) = &self.life {
            let until = life.started + Duration::from_micros(self.local_us - life.began_us);
            life.runtime
                .block_on(async { tokio::time::sleep_until(until).await });
        }
    }

    /// Lets a stopped process go on: for it, time has jumped.
    pub(super) fn resume(&mut self) {
        if let (true, Some(life)) = (self.is_stopped, &self.life) {
            let until = life.started + Duration::from_micros(self.local_us - life.began_us);
            life.runtime.block_on(async {
                tokio::time::advance(until.saturating_duration_since(Instant::now())).await;
            });
        }
        self.is_stopped = false;
    }

    /// Whether the node is at its end: it has given itself up, or the power went, in whoever's sync.
    pub(super) fn has_failed(&self) -> bool {
        let life = self.life.as_ref();
        life.is_some_and(|life| self.disk.is_dark() || life.failed.load(Ordering::Relaxed))
    }

    /// Ends the process. What it had written is in the system's hands and stays, but for what the disk had
    /// refused to sync: the system has forgotten that it must be written.
    pub(super) fn kill(&mut self, site: &Site) {
        self.end(site);
        if std::mem::take(&mut self.refuses_syncs) {
            self.cut_power(site, None);
        }
    }

    /// Adds what there is to see of Raft on this machine: of lives that ended since it was asked, and of this one.
    pub(super) fn show(&mut self) -> Vec<Round> {
        self.look();
        std::mem::take(&mut self.last_looks)
    }

    fn look(&mut self) {
        if let Some(life) = &self.life {
            let mut round = Round::default();
            self.eye
                .look(life, (self.place, self.lives, self.local_us), &mut round);
            self.last_looks.push(round);
        }
    }

    fn end(&mut self, site: &Site) {
        self.look();
        self.eye.close();
        if let Some(life) = self.life.take() {
            site.net.unbind(site.addresses[self.place]);
            life.host.abandon();
            life.runtime.shutdown_background();
        }
        self.is_stopped = false;
    }

    /// Ends the process and takes from the disk what was not synced, or some of it.
    pub(super) fn cut_power(&mut self, site: &Site, seed: Option<u64>) {
        self.end(site);
        self.refuses_syncs = false;
        let cut = seed.map_or(PowerCut::LoseAll, |seed| PowerCut::KeepSome { seed });
        self.disk = self.disk.power_cut(cut);
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, state) in &*states {
            state.power_cut(seed.map_or(StateCut::LoseAll, |seed| StateCut::KeepPrefix {
                seed: seed ^ (u64::from(id.group.0) << 32),
            }));
        }
    }

    /// The power goes in the middle of a sync, `syncs` from now.
    pub(super) fn cut_power_in_sync(&mut self, syncs: u64, seed: u64) {
        if self.life.is_some() {
            self.cut_seed = Some(seed);
            self.disk.go_dark_in_sync(syncs);
        }
    }

    /// Flips bits of a node that does not run: in each file with events that are sealed, and in each journal
    /// segment but the last. Where it flips follows from `seed`; returns how many.
    pub(super) fn flip_bits(&mut self, seed: u64) -> u64 {
        if self.life.is_some() {
            return 0;
        }
        let mut random = StdRng::seed_from_u64(seed);
        let files = self.disk.files();
        let is_journal = |path: &&String| path.starts_with("journal/") && path.ends_with(".log");
        let last = files.iter().rfind(is_journal).cloned();
        let mut flipped = 0;
        for path in files {
            let is_sealed = path.starts_with("events/") && path.ends_with(".seg");
            if !(is_sealed || is_journal(&&path)) || Some(&path) == last.as_ref() {
                continue;
            }
            let Some(bytes) = self.disk.bytes_of(&path).filter(|bytes| !bytes.is_empty()) else {
                continue;
            };
            for _ in 0..=bytes.len() / FLIP_EVERY_BYTES {
                // A zero is mostly room that nothing was written to.
                let place = (0..FLIP_TRIES)
                    .map(|_| random.random_range(0..bytes.len()))
                    .find(|place| bytes[*place] != 0);
                if let Some(place) = place {
                    self.disk
                        .flip_bit(&path, place as u64 * 8 + random.random_range(0..8u64));
                    flipped += 1;
                }
            }
        }
        self.is_damaged |= flipped > 0;
        flipped
    }

    /// A replica that the node calls damaged although no bit of its disk was flipped (I19).
    pub(super) fn unfounded_damage(&self) -> Option<String> {
        let life = self.life.as_ref().filter(|_| !self.is_damaged)?;
        let damaged = life.cluster.status().damaged.into_iter().next()?;
        Some(format!(
            "I19: no bit of node {} was flipped, and its replica {} of group {} is called damaged: {}",
            self.place + 1,
            damaged.replica,
            damaged.group,
            damaged.reason
        ))
    }

    /// From now on no sync of its disk succeeds; the node gives itself up.
    pub(super) fn refuse_syncs(&mut self) {
        self.refuses_syncs = true;
        self.disk.fail(Operation::Sync, 0, true);
    }
}

/// The node in place `place`.
pub(super) fn node_id(place: usize) -> NodeId {
    NodeId(0x1000 + place as u64)
}

/// A runtime of one thread whose time is told.
fn runtime(seed: u64) -> Result<Runtime, SimError> {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    #[cfg(tokio_unstable)]
    builder.rng_seed(tokio::runtime::RngSeed::from_bytes(&seed.to_le_bytes()));
    #[cfg(not(tokio_unstable))]
    let _ = seed;
    builder
        .build()
        .map_err(|error| SimError::Setup(format!("make a runtime: {error}")))
}
