//! The nodes together, devices that send through them, and a reader of everything.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use dunlin_cluster::admin::GroupStatus;
use dunlin_model::command::{Command, Outcome, ReadFrom, TelemetryAck};
use dunlin_model::id::{DeviceId, GroupId, ShardId};
use dunlin_model::identity::{Authentication, Condition, DeviceSpec};
use dunlin_model::limits::READ_BYTES_MAX;
use dunlin_model::port::{AckSink, EventRun, ShardClient, SubmitError};
use dunlin_model::telemetry::{self, AuthMethod, Source};
use dunlin_node::pki::Authority;
use dunlin_tests::judge::{DeviceLog, Place, Stored};
use dunlin_tests::ports::free_port;
use dunlin_tests::{PATIENCE, eventually};
use tempfile::TempDir;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::node::{Cut, Machine, Running, SHARDS, Sessions};

/// Devices that send through one node.
const DEVICES_PER_NODE: usize = 4;
/// Messages that a device has unacknowledged at the most.
const WINDOW: usize = 16;

/// Three machines.
pub(super) struct Field {
    machines: Vec<Machine>,
    authority: Authority,
    ports: Vec<u16>,
    checkpoint_every: Duration,
    /// Bytes of a message at least.
    pub(super) body_bytes: usize,
    _folder: TempDir,
}

impl Field {
    /// Three machines that are switched off.
    pub(super) fn new(checkpoint_every: Duration) -> Field {
        // What the nodes say goes past the harness, so it is shown on request only.
        if std::env::var_os("DUNLIN_LOG").is_some() {
            dunlin_node::logging::init("");
        }
        let folder = TempDir::new().expect("a folder for temporary files");
        let machine = |place: usize| Machine::new(&folder.path().join(format!("node-{place}")));
        Field {
            machines: (0..3).map(machine).collect(),
            authority: Authority::open(&folder.path().join("pki")).expect("an authority"),
            ports: (0..3).map(|_| free_port()).collect(),
            checkpoint_every,
            body_bytes: 0,
            _folder: folder,
        }
    }

    /// Switches all on and returns when each is ready.
    pub(super) async fn start_all(&mut self) {
        // A dead node's socket may live a little longer than it: the next life has other ports.
        self.ports = (0..3).map(|_| free_port()).collect();
        for place in 0..3 {
            self.machines[place]
                .start(&self.authority, (&self.ports, place), self.checkpoint_every)
                .await;
        }
        for place in 0..3 {
            self.wait_ready(place).await;
        }
    }

    /// Switches one on while the others run, and returns when it is ready.
    pub(super) async fn start(&mut self, place: usize) {
        self.ports[place] = free_port();
        self.machines[place]
            .start(&self.authority, (&self.ports, place), self.checkpoint_every)
            .await;
        self.wait_ready(place).await;
    }

    async fn wait_ready(&self, place: usize) {
        let ready = self.running(place).cluster.ready();
        let ended = tokio::time::timeout(PATIENCE, ready).await;
        assert!(ended.is_ok(), "node {} does not become ready", place + 1);
    }

    fn running(&self, place: usize) -> &Running {
        self.machines[place].running.as_ref().expect("the node runs")
    }

    pub(super) fn cut_power(&mut self, places: &[usize], cut: Cut) {
        for place in places {
            self.machines[*place].cut_power(match cut {
                Cut::KeepSome(seed) => Cut::KeepSome(seed * 3 + *place as u64),
                cut => cut,
            });
        }
    }

    pub(super) fn lie(&self, place: usize) {
        self.machines[place].lie();
    }

    /// Leaves `bytes` free on the disk of the node in place `place`; `None` takes the limit away.
    pub(super) fn leave_free(&self, place: usize, bytes: Option<u64>) {
        self.machines[place].leave_free(bytes);
    }

    pub(super) fn refuse_syncs(&self, place: usize) {
        self.machines[place].refuse_syncs();
    }

    pub(super) fn journal_has_failed(&self, place: usize) -> bool {
        self.machines[place].journal_has_failed()
    }

    /// Returns when all nodes have applied the same, with nothing under way.
    pub(super) async fn wait_equal(&self) {
        eventually("all replicas at the same entry", PATIENCE, || async {
            let applied: Vec<_> = (0..3).map(|place| self.applied(place)).collect();
            if applied.iter().all(|of_node| *of_node == applied[0]) {
                Ok(())
            } else {
                Err(format!("{applied:?}"))
            }
        })
        .await;
    }

    /// Returns when every replica of every node has passed the entry that its leader has applied now.
    pub(super) async fn wait_equal_within_load(&self) {
        let applied = |place: usize| self.running(place).cluster.status().groups;
        let mut wanted = applied(0);
        for place in 1..3 {
            for (group, status) in applied(place) {
                if let Some(known) = wanted.get_mut(&group) {
                    known.applied = known.applied.max(status.applied);
                }
            }
        }
        eventually("all replicas past the same entry", PATIENCE, || async {
            (0..3)
                .all(|place| {
                    applied(place)
                        .iter()
                        .all(|(group, status)| status.applied >= wanted[group].applied)
                })
                .then_some(())
        })
        .await;
    }

    /// Every message that the node in place `place` has itself, whoever leads.
    pub(super) fn read_own(&self, place: usize) -> Vec<Stored> {
        let mut found = Vec::new();
        for (shard, events) in self.running(place).events() {
            let (mut next, end) = events.range();
            while next < end {
                let runs = events.read(next, READ_BYTES_MAX).expect("its events can be read");
                take(&mut found, shard, &runs, &mut next);
            }
        }
        found
    }

    /// Returns when the journals of the nodes in `places` have both let go, of one shard at least, of more
    /// than the node had applied that went with `had`.
    pub(super) async fn wait_purged(&self, places: [usize; 2], had: &BTreeMap<GroupId, u64>) {
        eventually("the journals let go", PATIENCE, || async {
            let purged = places.map(|place| self.running(place).purged());
            let is_gone = |(group, had): (&GroupId, &u64)| {
                purged
                    .iter()
                    .all(|of_node| of_node.get(group).is_some_and(|upto| upto > had))
            };
            let is_one_gone = had.iter().any(is_gone);
            if is_one_gone {
                Ok(())
            } else {
                Err(format!("{purged:?}, applied was {had:?}"))
            }
        })
        .await;
    }

    /// The last entry that each replica of the node in place `place` has applied.
    pub(super) fn applied(&self, place: usize) -> BTreeMap<GroupId, u64> {
        let groups = self.running(place).cluster.status().groups;
        let line = |(group, status): (u32, GroupStatus)| (GroupId(group), status.applied);
        groups.into_iter().map(line).collect()
    }

    /// Every message of every shard, asked of the node in place `place`.
    pub(super) async fn read_all(&self, place: usize) -> Vec<Stored> {
        let client = &self.running(place).client;
        let mut found = Vec::new();
        for shard in (0..SHARDS).map(ShardId) {
            let mut next = 0;
            loop {
                let what = format!("events of shard {shard} from {next} on");
                let page = eventually(&what, PATIENCE, || async {
                    let from = ReadFrom::Offset(next);
                    client.read_events(shard, from, READ_BYTES_MAX, 0).await.ok()
                })
                .await;
                take(&mut found, shard, &page.runs, &mut next);
                if page.runs.is_empty() {
                    assert_eq!(next, page.next_offset, "shard {shard} hides its end");
                    break;
                }
            }
        }
        found
    }
}

/// Adds the messages of `runs` from offset `next` on.
fn take(found: &mut Vec<Stored>, shard: ShardId, runs: &[EventRun], next: &mut u64) {
    for run in runs {
        for (offset, record) in (run.first_offset..).zip(telemetry::records(run.records.clone())) {
            let record = record.expect("a stored record can be read");
            if offset >= *next {
                found.push(Stored {
                    place: Place {
                        shard: shard.0,
                        offset,
                    },
                    device: record.device_str().to_owned(),
                    body: record.payload.to_vec(),
                });
            }
        }
        *next = run.next_offset().max(*next);
    }
}

/// Sends records of `device`, each under the session epoch in front of it, through the node in place
/// `place`; their ends, in order.
pub(super) async fn send_under(
    field: &Field,
    place: usize,
    device: &DeviceId,
    records: &[(u64, &str)],
) -> Vec<TelemetryAck> {
    let client = &field.running(place).client;
    let acks = Arc::new(Acks::default());
    let sink: Arc<dyn AckSink> = acks.clone();
    for (token, (epoch, body)) in (0..).zip(records) {
        let mut record = BytesMut::new();
        let by = (Source::Mqtt, AuthMethod::DeviceKey);
        telemetry::encode(&mut record, by.0, by.1, *epoch, device, (b"", body.as_bytes()));
        let taken = client.submit_telemetry(device, &record, &sink, token);
        taken.expect("an idle cluster takes a record");
    }
    eventually("the ends of all records", PATIENCE, || async {
        let arrived = acks.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        (arrived.len() == records.len()).then(|| arrived.iter().map(|(_, ack)| *ack).collect())
    })
    .await
}

/// A record that a node has taken.
pub(super) struct Offered(Arc<Acks>);

/// Offers a record of `device` to the node in place `place`.
pub(super) fn offer(
    field: &Field,
    place: usize,
    (device, epoch, body): (&DeviceId, u64, &str),
) -> Result<Offered, SubmitError> {
    let acks = Arc::new(Acks::default());
    let sink: Arc<dyn AckSink> = acks.clone();
    let mut record = BytesMut::new();
    let by = (Source::Mqtt, AuthMethod::DeviceKey);
    telemetry::encode(&mut record, by.0, by.1, epoch, device, (b"", body.as_bytes()));
    let client = &field.running(place).client;
    client.submit_telemetry(device, &record, &sink, 0)?;
    Ok(Offered(acks))
}

impl Offered {
    pub(super) async fn end(&self) -> TelemetryAck {
        eventually("the end of a record", PATIENCE, || async {
            let arrived = self.0.arrived.lock().unwrap_or_else(PoisonError::into_inner);
            arrived.first().map(|(_, ack)| *ack)
        })
        .await
    }
}

/// Opens a session of `device` through the node in place `place`; its epoch.
pub(super) async fn session_of(field: &Field, place: usize, device: &DeviceId) -> u64 {
    let node = field.running(place);
    open_session(&node.client, &node.sessions, device).await
}

/// Where a device's acknowledgements arrive.
#[derive(Default)]
struct Acks {
    arrived: Mutex<Vec<(u64, TelemetryAck)>>,
    bell: Notify,
}

impl AckSink for Acks {
    fn on_ack(&self, token: u64, ack: TelemetryAck) {
        let mut arrived = self.arrived.lock().unwrap_or_else(PoisonError::into_inner);
        arrived.push((token, ack));
        self.bell.notify_one();
    }
}

/// What the devices of one load share.
#[derive(Default)]
struct Shared {
    acked: AtomicUsize,
    stop: AtomicBool,
    abandon: AtomicBool,
}

/// Devices that send through nodes of the field, below the doors.
pub(super) struct Load {
    shared: Arc<Shared>,
    bells: Vec<Arc<Acks>>,
    devices: JoinSet<DeviceLog>,
}

impl Load {
    /// Registers devices, opens a session for each, and lets them send through the nodes in `places`.
    pub(super) async fn start(field: &Field, prefix: &str, places: &[usize]) -> Load {
        let mut load = Load {
            shared: Arc::default(),
            bells: Vec::new(),
            devices: JoinSet::new(),
        };
        for place in places {
            let node = field.running(*place);
            for number in 0..DEVICES_PER_NODE {
                let device = DeviceId::parse(&format!("{prefix}{place}-{number}")).expect("a device id");
                let epoch = open_session(&node.client, &node.sessions, &device).await;
                let acks = Arc::new(Acks::default());
                let sender = Sender {
                    client: node.client.clone(),
                    epoch,
                    acks: acks.clone(),
                    shared: load.shared.clone(),
                    body_bytes: field.body_bytes,
                    log: DeviceLog {
                        device: device.as_str().to_owned(),
                        ..DeviceLog::default()
                    },
                    device,
                };
                load.bells.push(acks);
                load.devices.spawn(sender.run());
            }
        }
        load
    }

    /// Returns when `count` more are acknowledged.
    pub(super) async fn wait_acked(&self, count: usize) {
        let acked = || self.shared.acked.load(Ordering::Relaxed);
        let wanted = acked() + count;
        let what = format!("{count} more acknowledgements");
        eventually(&what, PATIENCE, || async { (acked() >= wanted).then_some(()) }).await;
    }

    /// Sends nothing new, and returns when everything that was sent has its end.
    pub(super) async fn finish(self) -> Vec<DeviceLog> {
        self.shared.stop.store(true, Ordering::Relaxed);
        self.end().await
    }

    /// Lets go at once; what has no end by now stays unknown.
    pub(super) async fn abandon(self) -> Vec<DeviceLog> {
        self.shared.abandon.store(true, Ordering::Relaxed);
        self.end().await
    }

    async fn end(mut self) -> Vec<DeviceLog> {
        for acks in &self.bells {
            acks.bell.notify_one();
        }
        let mut logs = Vec::new();
        let all = async {
            while let Some(log) = self.devices.join_next().await {
                logs.push(log.expect("a device does not panic"));
            }
        };
        let ended = tokio::time::timeout(PATIENCE, all).await;
        assert!(ended.is_ok(), "the devices do not get their acknowledgements");
        logs
    }
}

/// Registers `device` and opens its session at a node.
async fn open_session(client: &Arc<dyn ShardClient>, sessions: &Sessions, device: &DeviceId) -> u64 {
    let spec = DeviceSpec::enabled(Authentication::None);
    let stored = must(client, || Command::DevicePut {
        device: device.clone(),
        spec: spec.clone(),
        condition: Condition::Any,
    });
    let Outcome::Stored(record) = stored.await else {
        panic!("{device} is not stored")
    };
    let opened = must(client, || Command::SessionOpen {
        device: device.clone(),
        generation: record.generation,
        held_by: client.stream_id(device),
        persistent: false,
    });
    let Outcome::SessionOpened { epoch, .. } = opened.await else {
        panic!("{device} has no session")
    };
    sessions.add(device.clone(), epoch);
    epoch
}

async fn must(client: &Arc<dyn ShardClient>, command: impl Fn() -> Command) -> Outcome {
    eventually("the outcome of a command", PATIENCE, || async {
        client.submit(command()).await.ok()
    })
    .await
}

/// Pause of a device before it offers a message again that was refused for lack of room.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);

struct Sender {
    client: Arc<dyn ShardClient>,
    device: DeviceId,
    epoch: u64,
    acks: Arc<Acks>,
    shared: Arc<Shared>,
    body_bytes: usize,
    log: DeviceLog,
}

impl Sender {
    async fn run(mut self) -> DeviceLog {
        let sink: Arc<dyn AckSink> = self.acks.clone();
        let mut ends = 0;
        loop {
            ends += self.take_acks();
            if self.shared.abandon.load(Ordering::Relaxed) {
                return self.log;
            }
            let waiting = self.log.sent.len() - ends;
            if self.shared.stop.load(Ordering::Relaxed) {
                if waiting == 0 {
                    return self.log;
                }
            } else if waiting < WINDOW {
                if self.send(&sink) {
                    // Lets others in between: a device alone would fill its window in one go.
                    tokio::task::yield_now().await;
                } else {
                    tokio::time::sleep(REFUSED_PAUSE).await;
                }
                continue;
            }
            self.acks.bell.notified().await;
        }
    }

    /// Takes what has arrived; how many.
    fn take_acks(&mut self) -> usize {
        let arrived = std::mem::take(&mut *self.acks.arrived.lock().unwrap_or_else(PoisonError::into_inner));
        for (token, ack) in &arrived {
            if let TelemetryAck::Stored(receipt) = ack {
                let place = Place {
                    shard: receipt.shard.0,
                    offset: receipt.offset,
                };
                let before = self.log.acked.insert(*token as usize, place);
                assert_eq!(before, None, "a message has one end");
                self.shared.acked.fetch_add(1, Ordering::Relaxed);
            }
        }
        arrived.len()
    }

    /// Sends the next message; false if it was refused, and so is none.
    fn send(&mut self, sink: &Arc<dyn AckSink>) -> bool {
        let seq = self.log.sent.len();
        let mut body = format!("{} says {seq} ", self.device).into_bytes();
        body.resize(body.len().max(self.body_bytes), b'.');
        let mut record = BytesMut::new();
        let by = (Source::Mqtt, AuthMethod::DeviceKey);
        telemetry::encode(&mut record, by.0, by.1, self.epoch, &self.device, (b"", &body));
        // Remembered before it is handed over: it may be stored although nobody says so.
        self.log.sent.push(body);
        match self
            .client
            .submit_telemetry(&self.device, &record, sink, seq as u64)
        {
            Ok(()) => true,
            Err(SubmitError::CutOff) => {
                self.acks.on_ack(seq as u64, TelemetryAck::Unknown);
                true
            }
            // Definite: if it is stored all the same, it was never sent, and the judge says so.
            Err(SubmitError::StorageFull) => {
                self.log.sent.pop();
                false
            }
            Err(error) => panic!("{}: {error}", self.device),
        }
    }
}
