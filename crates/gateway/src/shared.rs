//! What every connection of a gateway shares.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use dunlin_model::id::DeviceId;
use dunlin_model::port::ShardClient;
use dunlin_model::routing::routes::Routes;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::Hooks;
use crate::amqp::seats::Seats;
use crate::auth::standing::StandingChanges;
use crate::events::endpoint::RoutesCache;
use crate::http::files;
use crate::metrics::Metrics;
use crate::mqtt::damping::Damper;
use crate::provisioning::{Latencies, Pending};
use crate::quota::Quota;
use crate::sessions::Sessions;
use crate::uploads::{UploadConfig, Uploads};

/// One per gateway.
pub(crate) struct Shared {
    /// The cluster.
    pub(crate) client: Arc<dyn ShardClient>,
    /// Names of the hub, without ports; never empty.
    pub(crate) host_names: Vec<String>,
    /// Where services find the hub's HTTPS: a name, and a port if it is an unusual one.
    pub(crate) hub_address: String,
    pub(crate) sessions: Arc<Sessions>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) hooks: Hooks,
    damper: Mutex<Damper>,
    /// One permit per connection of any kind.
    pub(crate) connections: Arc<Semaphore>,
    /// One permit per open event stream.
    pub(crate) event_streams: Arc<Semaphore>,
    /// One permit per link of AMQP to a partition.
    pub(crate) amqp_readers: Arc<Semaphore>,
    /// What waits for the hub's plan.
    pub(crate) quota: Quota,
    /// Who reads which partition alone.
    pub(crate) seats: Arc<Seats>,
    /// What the direct methods that callers wait for may weigh.
    pub(crate) methods: Arc<Semaphore>,
    routes: RoutesCache,
    /// One permit per query over the fleet.
    pub(crate) queries: Arc<Semaphore>,
    /// Rung when a configuration was changed here, so that twins follow at once.
    pub(crate) configured: Notify,
    /// Rung when a device was erased here, so that what it has left goes at once.
    pub(crate) erased: Notify,
    /// Rung when a job was made here, so that it begins at once.
    pub(crate) scheduled: Notify,
    /// Rung when routes or endpoints were changed here.
    pub(crate) rerouted: Notify,
    /// One permit per search for the group of a device that registers.
    pub(crate) attesting: Arc<Semaphore>,
    /// One permit per device that registers.
    pub(crate) provisioning: Arc<Semaphore>,
    /// How far away the linked hubs are.
    pub(crate) latencies: Latencies,
    /// TPMs that have a challenge to answer.
    pub(crate) pending: Pending,
    /// Files that devices upload.
    pub(crate) uploads: Uploads,
    /// Told when policies or authorities have changed.
    pub(crate) standing_changes: StandingChanges,
    /// Cancelled when draining begins.
    pub(crate) draining: CancellationToken,
    /// Every task of the gateway; draining waits for them.
    pub(crate) tasks: TaskTracker,
}

impl Shared {
    pub(crate) fn new(
        client: Arc<dyn ShardClient>,
        host_names: Vec<String>,
        connections_max: usize,
        uploads: UploadConfig,
        hooks: Hooks,
    ) -> Self {
        Self {
            client,
            hub_address: files::hub_address(&host_names, &[]),
            host_names,
            sessions: Arc::default(),
            metrics: Arc::default(),
            hooks,
            damper: Mutex::default(),
            connections: Arc::new(Semaphore::new(connections_max)),
            event_streams: Arc::new(Semaphore::new(crate::limits::EVENT_STREAMS_MAX)),
            amqp_readers: Arc::new(Semaphore::new(crate::limits::AMQP_READERS_MAX)),
            quota: Quota::default(),
            seats: Arc::default(),
            methods: Arc::new(Semaphore::new(crate::limits::METHODS_WEIGHT_MAX)),
            routes: RoutesCache::default(),
            queries: Arc::new(Semaphore::new(crate::limits::QUERIES_MAX)),
            configured: Notify::new(),
            erased: Notify::new(),
            scheduled: Notify::new(),
            rerouted: Notify::new(),
            attesting: Arc::new(Semaphore::new(crate::limits::ATTESTING_MAX)),
            provisioning: Arc::new(Semaphore::new(crate::limits::PROVISIONING_MAX)),
            latencies: Latencies::default(),
            pending: Pending::default(),
            uploads: Uploads::new(uploads),
            standing_changes: StandingChanges::default(),
            draining: CancellationToken::new(),
            tasks: TaskTracker::new(),
        }
    }

    /// The routes of now, read.
    pub(crate) fn routes(&self) -> Arc<Routes> {
        self.routes.get(self)
    }

    /// Milliseconds since 1970.
    pub(crate) fn now_ms(&self) -> u64 {
        (self.hooks.now_ms)()
    }

    /// Has `looping` run until the gateway drains, or to its end.
    pub(crate) fn spawn_until_draining<F>(self: &Arc<Self>, looping: impl FnOnce(Arc<Self>) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (running, draining) = (looping(Arc::clone(self)), self.draining.clone());
        self.tasks.spawn(async move {
            tokio::select! {
                () = draining.cancelled() => {}
                () = running => {}
            }
        });
    }

    /// Counts a verified connect of `device` and says how long it has to wait.
    pub(crate) fn damp(&self, device: &DeviceId) -> Duration {
        self.damper
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .handle_connect(device, Instant::now())
    }
}
