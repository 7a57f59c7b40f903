//! One node on a disk that loses power, and the state that loses it with the disk.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use dunlin_actors::{ActorHost, HostConfig};
use dunlin_cluster::{AgreedClock, Cluster, ClusterConfig, Parts, ShardParts, Stores, Timing};
use dunlin_model::directory::Role;
use dunlin_model::id::{DeviceId, GroupId, GroupReplica, ShardId};
use dunlin_model::port::{
    Clock, Downlink, DownlinkSink, EventLog, ShardClient, ShardStore, StoreError, WriteBatch,
};
use dunlin_node::HostedShards;
use dunlin_node::pki::Authority;
use dunlin_storage::data_dir::DataDir;
use dunlin_storage::disk::faulty::{FaultyDisk, Operation, PowerCut};
use dunlin_storage::disk::{Disk, DiskFile};
use dunlin_storage::journal::{Journal, JournalConfig};
use dunlin_storage::segment::SegmentLog;
use dunlin_storage::state::{MemStore, StateCut};
use tokio::runtime::Runtime;

pub(super) const SHARDS: u32 = 4;
/// Small, so that a few megabytes press the journal to let go of its oldest entries.
const SEGMENT_BYTES: u64 = 2 << 20;
const SEGMENTS_MAX: usize = 10;
/// Threads of a node.
const WORKERS: usize = 2;

/// What a cut leaves of the bytes and writes that nobody had asked to be durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cut {
    /// Nothing.
    LoseAll,
    /// Some, by the seed.
    KeepSome(u64),
    /// Every write to the state, and no other: a store may write in its own time.
    KeepState,
}

/// Whether there is power. Held while a state is written, so that a cut falls between two writes.
type Plug = Arc<RwLock<bool>>;

/// A state that a dead node's last threads cannot reach.
struct Plugged {
    store: MemStore,
    plug: Plug,
}

impl Plugged {
    fn with_power<T>(&self, work: impl FnOnce(&MemStore) -> Result<T, StoreError>) -> Result<T, StoreError> {
        let has_power = self.plug.read().unwrap_or_else(PoisonError::into_inner);
        if *has_power {
            work(&self.store)
        } else {
            Err(StoreError::io("reach the state", "power was cut"))
        }
    }
}

impl ShardStore for Plugged {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        self.with_power(|store| store.get(key))
    }

    fn scan(&self, from: &[u8], to: &[u8], count_max: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        self.with_power(|store| store.scan(from, to, count_max))
    }

    fn write(&self, batch: WriteBatch) -> Result<(), StoreError> {
        self.with_power(|store| store.write(batch))
    }

    fn checkpoint(&self) -> Result<(), StoreError> {
        self.with_power(MemStore::checkpoint)
    }

    fn snapshot(&self) -> Box<dyn Iterator<Item = Result<(Bytes, Bytes), StoreError>> + Send> {
        self.store.snapshot()
    }

    fn replace(
        &self,
        pairs: &mut dyn Iterator<Item = Result<(Bytes, Bytes), StoreError>>,
    ) -> Result<(), StoreError> {
        self.with_power(|store| store.replace(pairs))
    }
}

/// A disk that says that it has synced and, when told to, has not: what the tests must be able to find.
#[derive(Clone)]
struct MaybeLying {
    disk: FaultyDisk,
    lies: Arc<AtomicBool>,
}

struct MaybeLyingFile {
    file: Arc<dyn DiskFile>,
    lies: Arc<AtomicBool>,
}

impl MaybeLying {
    fn wrap(&self, file: Arc<dyn DiskFile>) -> Arc<dyn DiskFile> {
        Arc::new(MaybeLyingFile {
            file,
            lies: self.lies.clone(),
        })
    }
}

impl Disk for MaybeLying {
    fn create(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.create(path).map(|file| self.wrap(file))
    }

    fn open(&self, path: &str) -> io::Result<Arc<dyn DiskFile>> {
        self.disk.open(path).map(|file| self.wrap(file))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &str) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn remove_dir(&self, path: &str) -> io::Result<()> {
        self.disk.remove_dir(path)
    }

    fn list(&self, folder: &str) -> io::Result<Vec<String>> {
        self.disk.list(folder)
    }

    fn create_dir_all(&self, path: &str) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn sync_dir(&self, folder: &str) -> io::Result<()> {
        self.disk.sync_dir(folder)
    }

    fn free_bytes(&self) -> io::Result<u64> {
        self.disk.free_bytes()
    }

    fn exists(&self, path: &str) -> bool {
        self.disk.exists(path)
    }
}

impl DiskFile for MaybeLyingFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.file.read_at(buffer, offset)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.file.write_at(bytes, offset)
    }

    fn sync_data(&self) -> io::Result<()> {
        if self.lies.load(Ordering::Relaxed) {
            return Ok(());
        }
        self.file.sync_data()
    }

    fn set_len(&self, bytes: u64) -> io::Result<()> {
        self.file.set_len(bytes)
    }

    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }
}

type States = Arc<Mutex<HashMap<GroupReplica, MemStore>>>;

type Events = Arc<Mutex<HashMap<GroupReplica, Arc<dyn EventLog>>>>;

struct DiskStores {
    disk: Arc<dyn Disk>,
    events: Events,
    states: States,
    plug: Plug,
}

impl Stores for DiskStores {
    fn state(&self, id: GroupReplica) -> Result<Arc<dyn ShardStore>, StoreError> {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(Arc::new(Plugged {
            store: states.entry(id).or_default().clone(),
            plug: self.plug.clone(),
        }))
    }

    fn events(&self, id: GroupReplica) -> Result<Arc<dyn EventLog>, StoreError> {
        let log: Arc<dyn EventLog> = Arc::new(SegmentLog::open(self.disk.clone(), id)?);
        let mut events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        events.insert(id, log.clone());
        Ok(log)
    }

    fn replicas(&self) -> Result<Vec<GroupReplica>, StoreError> {
        SegmentLog::replicas(&*self.disk)
    }

    fn remove(&self, id: GroupReplica) -> Result<(), StoreError> {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.remove(&id);
        SegmentLog::remove(&*self.disk, id)
    }

    fn disk(&self) -> Arc<dyn Disk> {
        self.disk.clone()
    }
}

struct MachineClock(Instant);

impl Clock for MachineClock {
    fn wall_ms(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64)
    }

    fn monotonic_ms(&self) -> u64 {
        self.0.elapsed().as_millis() as u64
    }
}

/// The sessions that a test holds at one node: a new leader asks for them.
#[derive(Default)]
pub(super) struct Sessions(Mutex<Vec<(DeviceId, u64)>>);

impl Sessions {
    pub(super) fn add(&self, device: DeviceId, epoch: u64) {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.push((device, epoch));
    }
}

impl DownlinkSink for Sessions {
    // A session that was ended shows in the acknowledgements of its records.
    fn on_downlink(&self, _: Downlink) {}

    fn sessions(&self) -> Vec<(DeviceId, u64)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A node between power on and power off.
pub(super) struct Running {
    pub(super) cluster: Arc<Cluster>,
    pub(super) client: Arc<dyn ShardClient>,
    pub(super) sessions: Arc<Sessions>,
    journal: Arc<Journal>,
    events: Events,
    journal_failed: Arc<AtomicBool>,
    plug: Plug,
    /// Taken when dropped: a runtime must not wait for its tasks on a thread of another one.
    runtime: Option<Runtime>,
}

impl Running {
    /// The last entry that the journal of this node has let go of, of the replica of each shard.
    pub(super) fn purged(&self) -> BTreeMap<GroupId, u64> {
        let purged = |id: GroupReplica| self.journal.replica(id).state().purged.map_or(0, |at| at.index);
        let replicas = self.journal.replicas();
        let of_shards = replicas.into_iter().filter(|id| id.group.shard().is_some());
        of_shards.map(|id| (id.group, purged(id))).collect()
    }

    /// The event log of this node's own replica of each shard, whoever leads.
    pub(super) fn events(&self) -> Vec<(ShardId, Arc<dyn EventLog>)> {
        let events = self.events.lock().unwrap_or_else(PoisonError::into_inner);
        let shard = |(id, log): (&GroupReplica, &Arc<dyn EventLog>)| Some((id.group.shard()?, log.clone()));
        let mut found: Vec<_> = events.iter().filter_map(shard).collect();
        found.sort_by_key(|(shard, _)| *shard);
        found
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A node's machine: what is left of it without power.
pub(super) struct Machine {
    disk: FaultyDisk,
    lies: Arc<AtomicBool>,
    states: States,
    data: Arc<DataDir>,
    pub(super) running: Option<Running>,
}

impl Machine {
    pub(super) fn new(folder: &Path) -> Machine {
        Machine {
            disk: FaultyDisk::new(),
            lies: Arc::default(),
            states: States::default(),
            // Its few small files are synced one by one; it stays open, as its lock is this process's.
            data: Arc::new(DataDir::open(folder).expect("a data directory")),
            running: None,
        }
    }

    /// Switches it on. `ports` are those of all nodes, this one's in place `place`.
    pub(super) async fn start(
        &mut self,
        authority: &Authority,
        (ports, place): (&[u16], usize),
        checkpoint_every: Duration,
    ) {
        assert!(self.running.is_none(), "it runs");
        let address = |port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let config = ClusterConfig {
            listen: address(ports[place]),
            kafka: None,
            advertise: None,
            seeds: ports.iter().map(|port| address(*port).to_string()).collect(),
            roles: vec![Role::Shard, Role::Gateway],
            expect: ports.len(),
            shard_count: SHARDS,
            replication_factor: ports.len() as u32,
            // Three nodes and their load share this machine with other tests.
            timing: Timing::WAN,
            checkpoint_every,
            replace_after: Duration::from_secs(300),
            segment_age: Duration::from_secs(3600),
            journal_segments_max: SEGMENTS_MAX,
            identity: authority
                .node_identity(self.data.node_id(), Duration::from_secs(3_600))
                .expect("a node's certificate"),
            simulated: None,
        };
        let journal_config = JournalConfig {
            segment_bytes: SEGMENT_BYTES,
            segments_max: SEGMENTS_MAX,
            ..JournalConfig::default()
        };
        let disk: Arc<dyn Disk> = Arc::new(MaybeLying {
            disk: self.disk.clone(),
            lies: self.lies.clone(),
        });
        let journal = Journal::open(disk.clone(), journal_config).expect("a journal");
        let stats = journal.stats();
        assert!(stats.damaged.is_empty(), "a power cut is no damage: {stats:?}");
        let journal = Arc::new(journal);
        let journal_failed = Arc::new(AtomicBool::new(false));
        let plug: Plug = Arc::new(RwLock::new(true));
        let failed = journal_failed.clone();
        journal.on_failure(Box::new(move |_| failed.store(true, Ordering::Relaxed)));

        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .enable_all()
            .build()
            .expect("a runtime");
        let (handle, data) = (runtime.handle().clone(), self.data.clone());
        let (states, of_stores) = (self.states.clone(), plug.clone());
        let events = Events::default();
        let (of_node, events_of_node) = (journal.clone(), events.clone());
        let started = runtime.spawn(async move {
            let clock = AgreedClock::new(Arc::new(MachineClock(Instant::now())));
            let host = ActorHost::start(clock.clone(), HostConfig::default()).expect("the shards' actors");
            let parts = Parts {
                data,
                shard: Some(ShardParts {
                    journal: of_node,
                    stores: Arc::new(DiskStores {
                        disk,
                        events: events_of_node,
                        states,
                        plug: of_stores,
                    }),
                    host: Arc::new(HostedShards(host)),
                }),
                clock,
                gateway_runtime: handle,
            };
            Cluster::start(config, parts).await.expect("the node starts")
        });
        let cluster = Arc::new(started.await.expect("the start does not panic"));
        let client = cluster.client();
        let sessions = Arc::new(Sessions::default());
        client.attach(sessions.clone());
        self.running = Some(Running {
            cluster,
            client,
            sessions,
            journal,
            events,
            journal_failed,
            plug,
            runtime: Some(runtime),
        });
    }

    /// Cuts the power: what was not synced is gone, but for what `cut` leaves, and the node ends.
    pub(super) fn cut_power(&mut self, cut: Cut) {
        let running = self.running.take().expect("it runs");
        let mut has_power = running.plug.write().unwrap_or_else(PoisonError::into_inner);
        *has_power = false;
        self.disk = self.disk.power_cut(match cut {
            Cut::KeepSome(seed) => PowerCut::KeepSome { seed },
            Cut::LoseAll | Cut::KeepState => PowerCut::LoseAll,
        });
        // Not before: the node still runs, and one honest sync would save what the lies have left.
        self.lies.store(false, Ordering::Relaxed);
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        for (id, state) in &*states {
            let of_state = match cut {
                Cut::LoseAll => StateCut::LoseAll,
                Cut::KeepSome(seed) => StateCut::KeepPrefix {
                    seed: seed ^ (u64::from(id.group.0) << 32),
                },
                Cut::KeepState => {
                    state.checkpoint().expect("memory does not refuse");
                    StateCut::LoseAll
                }
            };
            state.power_cut(of_state);
        }
        drop(has_power);
    }

    /// From now on its disk says that it has synced and has not, until the power was off.
    pub(super) fn lie(&self) {
        self.lies.store(true, Ordering::Relaxed);
    }

    pub(super) fn leave_free(&self, bytes: Option<u64>) {
        self.disk
            .set_capacity(bytes.map(|bytes| self.disk.used_bytes() + bytes));
    }

    /// From now on no sync of its disk succeeds, until the power was off.
    pub(super) fn refuse_syncs(&self) {
        self.disk.fail(Operation::Sync, 0, true);
    }

    pub(super) fn journal_has_failed(&self) -> bool {
        self.running
            .as_ref()
            .is_some_and(|running| running.journal_failed.load(Ordering::Relaxed))
    }
}
