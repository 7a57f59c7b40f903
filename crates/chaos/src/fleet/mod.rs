//! The fleet: many simulated devices on one thread, as real MQTT clients with one task each.
//!
//! It shares its machine with the nodes it loads: no task per message, no channel per message, one
//! write for all that is due. What it did and heard comes back as plain histories; the live figures
//! are for the eye. What a device does is in [`device`]; when, the caller says through [`Phase`].

mod device;

pub(crate) use device::is_definite;

use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dunlin_gateway::client::Transport;
use hdrhistogram::Histogram;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::oracle::DeviceHistory;
use crate::payload::Payloads;
use crate::record::Recorder;

/// Messages that a device has unacknowledged at the most.
pub const WINDOW: usize = 32;
/// Messages of all devices together; at the bound a device sends no more.
pub const MESSAGES_MAX: usize = 20_000_000;
/// The longest latency that is told apart.
const LATENCY_US_MAX: u64 = 600_000_000;

/// What a device is for.
#[derive(Debug, Clone)]
pub enum Role {
    /// Sends message `n` at `offset + n * period` after the start, whatever was acked; without a period
    /// whenever its window has room.
    Load {
        /// Between two messages.
        period: Option<Duration>,
        /// So that devices do not all send at once.
        offset: Duration,
    },
    /// Sends nothing until it is armed; then always has one message outstanding.
    Probe {
        /// The shard that it lives in.
        shard: u32,
    },
}

/// One device of the plan.
#[derive(Debug, Clone)]
pub struct DevicePlan {
    /// Its id.
    pub device: String,
    /// Its token.
    pub token: String,
    /// Nodes that it connects to, the first being its home. A probe has one.
    pub nodes: Vec<usize>,
    /// What it is for.
    pub role: Role,
}

/// What the fleet is to do.
#[derive(Debug)]
pub struct FleetPlan {
    /// The devices.
    pub devices: Vec<DevicePlan>,
    /// How to reach each node's gateway.
    pub gateways: Vec<Transport>,
    /// The hub's name in user names.
    pub host: String,
    /// What messages say.
    pub payloads: Payloads,
    /// From here times are counted.
    pub epoch: Instant,
    /// Draws pauses before reconnects, and which messages go with QoS 0.
    pub seed: u64,
    /// Messages of QoS 1 that a device may have unacknowledged, 1 to [`WINDOW`].
    pub window: usize,
    /// Share of the load's messages that go with QoS 0. They are never sent again.
    pub qos0_percent: u8,
    /// Where all that happens is told besides.
    pub recorder: Option<Arc<Recorder>>,
}

/// Probes that send, around one fault.
#[derive(Debug, PartialEq, Eq)]
pub struct Armed {
    /// Which fault, from 0.
    pub fault: usize,
    /// The probes: node that they are connected to, and shard.
    pub probes: Vec<(usize, u32)>,
}

/// Where the run stands. Every change wakes every device, so there are few.
#[derive(Debug, Clone, Default)]
pub struct Phase {
    /// When the load starts or started.
    pub start: Option<Instant>,
    /// Probes that send. A probe that is named twice belongs to the first.
    pub armed: Vec<Arc<Armed>>,
    /// Counts calls to the devices to go back to their homes, so that the next fault meets connections again
    /// wherever it strikes.
    pub home_calls: u32,
    /// Once set, nothing new is sent, and what is unacknowledged is waited for until then.
    pub drain_until: Option<Instant>,
}

/// The longest time between two acks of a probe while it was armed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Which fault.
    pub fault: usize,
    /// Which shard.
    pub shard: u32,
    /// How long.
    pub gap_us: u64,
}

/// What the fleet shows while it runs.
#[derive(Debug)]
pub struct Live {
    /// Devices that were connected at least once.
    pub ready_count: AtomicUsize,
    /// Devices that are connected.
    pub connected_count: AtomicUsize,
    /// Messages that were acked, probes' included.
    pub acked_count: AtomicU64,
    /// Messages of the load that were acked.
    pub load_acked_count: AtomicU64,
    /// Latencies since they were last taken.
    latency_us: Mutex<Histogram<u64>>,
    /// For each device when the message was handed over that was acked last.
    reached_us: Vec<AtomicU64>,
    last_error: Mutex<Option<String>>,
}

impl Live {
    fn new(device_count: usize) -> Self {
        Self {
            reached_us: (0..device_count).map(|_| AtomicU64::new(0)).collect(),
            ready_count: AtomicUsize::new(0),
            connected_count: AtomicUsize::new(0),
            acked_count: AtomicU64::new(0),
            load_acked_count: AtomicU64::new(0),
            latency_us: Mutex::new(histogram()),
            last_error: Mutex::new(None),
        }
    }

    /// Adds the latencies since the last call to `total` and returns them.
    pub fn take_latency_us(&self, total: &mut Histogram<u64>) -> Histogram<u64> {
        let mut latency = self.latency_us.lock().unwrap_or_else(PoisonError::into_inner);
        let taken = std::mem::replace(&mut *latency, histogram());
        drop(latency);
        if let Err(error) = total.add(&taken) {
            tracing::warn!(%error, "latencies left out");
        }
        taken
    }

    /// Devices among the first `count` that have not yet had a message acked which was handed over at
    /// `since_us` or later. Acks come in order, so nothing older is outstanding for the others.
    pub fn behind(&self, count: usize, since_us: u64) -> usize {
        let reached = self.reached_us.iter().take(count);
        reached
            .filter(|reached| reached.load(Ordering::Relaxed) < since_us)
            .count()
    }

    /// Why a device was last not connected.
    pub fn last_error(&self) -> Option<String> {
        self.last_error
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn count_ack(&self, device: usize, sent_us: u64, latency_us: Option<u64>) {
        if let Some(reached) = self.reached_us.get(device) {
            reached.fetch_max(sent_us, Ordering::Relaxed);
        }
        self.acked_count.fetch_add(1, Ordering::Relaxed);
        if let Some(latency_us) = latency_us {
            self.load_acked_count.fetch_add(1, Ordering::Relaxed);
            self.latency_us
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .saturating_record(latency_us);
        }
    }

    fn set_error(&self, error: String) {
        *self.last_error.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }
}

/// A histogram for microseconds.
pub fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).expect("the bounds are constants")
}

/// What the fleet brings back.
#[derive(Debug, Default)]
pub struct Outcome {
    /// The devices in the order of the plan.
    pub devices: Vec<DeviceHistory>,
    /// The probes' gaps.
    pub gaps: Vec<Gap>,
}

/// What all devices share.
struct Shared {
    plan: FleetPlan,
    live: Arc<Live>,
    messages_per_device_max: usize,
}

/// A running fleet. Dropping it ends it.
pub struct Fleet {
    phase: watch::Sender<Phase>,
    live: Arc<Live>,
    outcome: oneshot::Receiver<Outcome>,
}

impl Fleet {
    /// Starts the thread; the devices connect at once and wait for [`Phase::start`].
    pub fn start(plan: FleetPlan) -> io::Result<Fleet> {
        let live = Arc::new(Live::new(plan.devices.len()));
        let (phase, phase_seen) = watch::channel(Phase::default());
        let (outcome_to, outcome) = oneshot::channel();
        let shared = Arc::new(Shared {
            messages_per_device_max: MESSAGES_MAX / plan.devices.len().max(1),
            plan,
            live: Arc::clone(&live),
        });
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        std::thread::Builder::new().name("fleet".into()).spawn(move || {
            // The receiver is gone only if the whole run was given up.
            let _ = outcome_to.send(runtime.block_on(run(shared, phase_seen)));
        })?;
        Ok(Fleet { phase, live, outcome })
    }

    /// The live figures.
    pub fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// Its devices, probes included.
    pub fn device_count(&self) -> usize {
        self.live.reached_us.len()
    }

    /// Changes where the run stands.
    pub fn set_phase(&self, change: impl FnOnce(&mut Phase)) {
        self.phase.send_modify(change);
    }

    /// Stops sending, waits for what is unacknowledged, `wait` at the most, and returns what happened.
    pub async fn finish(self, wait: Duration) -> Option<Outcome> {
        self.set_phase(|phase| {
            phase.armed.clear();
            phase.drain_until = Some(Instant::now() + wait);
        });
        self.outcome.await.ok()
    }
}

async fn run(shared: Arc<Shared>, phase: watch::Receiver<Phase>) -> Outcome {
    let mut tasks = JoinSet::new();
    for index in 0..shared.plan.devices.len() {
        tasks.spawn(device::Device::new(Arc::clone(&shared), index, phase.clone()).run());
    }
    let mut outcome = Outcome {
        devices: vec![DeviceHistory::default(); shared.plan.devices.len()],
        gaps: Vec::new(),
    };
    while let Some(joined) = tasks.join_next().await {
        match joined {
            Ok((index, history, gaps)) => {
                outcome.devices[index] = history;
                outcome.gaps.extend(gaps);
            }
            Err(error) => tracing::error!(%error, "a device panicked"),
        }
    }
    outcome
}
