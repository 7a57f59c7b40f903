//! Devices of a simulation: each sends numbered messages through one node at a time, below the doors, and
//! sends again what has no answer when it has moved. What it is sent, it receives in [`super::messages`].
//!
//! A connection lives in its node's runtime and ends with it; what the device did and heard lives here, and
//! outlives every node. Which node a device goes to next is decided by [`super::world`].

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::BytesMut;
use dunlin_model::command::{Command, Consistency, Outcome, Query, Receipt, TelemetryAck};
use dunlin_model::id::DeviceId;
use dunlin_model::identity::{Authentication, Condition, DeviceSpec};
use dunlin_model::port::{AckSink, Downlink, DownlinkKind, DownlinkSink, ShardClient};
use dunlin_model::telemetry::{self, AuthMethod, Source};
use tokio::sync::Notify;

use super::machine::Life;
use super::messages::Receiver;
use super::trace::Trace;
use crate::oracle::{Connection, DeviceHistory, Message, Road, digest};
use crate::payload::Payloads;
use crate::workload::exchange::Receipt as Received;

/// Pause before a session is asked for again.
const OPEN_PAUSE: Duration = Duration::from_millis(40);
/// Pause before a record is offered again that found no room.
const BUSY_PAUSE: Duration = Duration::from_millis(20);

/// The sessions that a node holds, with the bell of each: a new leader asks for them.
#[derive(Default)]
pub(super) struct Sessions(Mutex<BTreeMap<DeviceId, (u64, Arc<Notify>)>>);

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<DeviceId, (u64, Arc<Notify>)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl DownlinkSink for Sessions {
    // That a session was ended shows in the ends of its records.
    fn on_downlink(&self, downlink: Downlink) {
        if let DownlinkKind::MessagesWaiting = downlink.kind
            && let Some((epoch, bell)) = self.lock().get(&downlink.device)
            && *epoch == downlink.epoch
        {
            bell.notify_one();
        }
    }

    fn sessions(&self) -> Vec<(DeviceId, u64)> {
        let sessions = self.lock();
        sessions
            .iter()
            .map(|(device, (epoch, _))| (device.clone(), *epoch))
            .collect()
    }
}

/// What the devices of a run share.
pub(super) struct Shared {
    pub(super) payloads: Payloads,
    pub(super) trace: Trace,
    /// The world's time.
    pub(super) now_us: AtomicU64,
    /// Nothing new is sent any more.
    pub(super) is_stopped: AtomicBool,
    /// Between two messages of a device.
    pub(super) every: Duration,
    /// Messages of a device without an answer at the most.
    pub(super) window: usize,
    /// Whether devices listen for messages to them.
    pub(super) listens: bool,
}

impl Shared {
    pub(super) fn now_us(&self) -> u64 {
        self.now_us.load(Ordering::Relaxed)
    }
}

/// What a device did and heard.
#[derive(Default)]
pub(super) struct Told {
    pub(super) history: DeviceHistory,
    /// What has no answer, in order.
    pub(super) pending: VecDeque<u32>,
    /// Where the hub said that it put a message.
    pub(super) receipts: BTreeMap<u32, Receipt>,
    /// What services sent to it.
    pub(super) received: Vec<Received>,
    /// Whether a connection is open.
    pub(super) is_connected: bool,
}

/// Where a device writes down what it was sent.
pub(super) struct Heard {
    told: Arc<Mutex<Told>>,
    shared: Arc<Shared>,
}

impl Heard {
    /// A message whose content has this digest, as it came on the connection that is open.
    pub(super) fn message(&self, device: &DeviceId, what: u64, receipt: impl FnOnce(u64) -> Received) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let connection = told.history.connections.len() as u64;
        let device = digest(device.as_str().as_bytes());
        let now_us = self.shared.now_us();
        self.shared
            .trace
            .event(now_us, "received", &[device, connection, what]);
        told.received.push(receipt(connection));
    }
}

/// A device.
pub(super) struct Device {
    pub(super) id: DeviceId,
    index: usize,
    told: Arc<Mutex<Told>>,
    /// Where its connection is.
    pub(super) place: usize,
    connection: Option<tokio::task::JoinHandle<()>>,
    /// Not before this does it connect again, in microseconds.
    pub(super) not_before_us: u64,
}

/// The name of device `index`.
pub(super) fn name(index: usize) -> String {
    format!("sim-{index:03}")
}

impl Device {
    pub(super) fn new(index: usize, place: usize) -> Option<Device> {
        let id = DeviceId::parse(&name(index)).ok()?;
        let told = Told {
            history: DeviceHistory {
                device: id.as_str().to_owned(),
                ..DeviceHistory::default()
            },
            ..Told::default()
        };
        Some(Device {
            id,
            index,
            told: Arc::new(Mutex::new(told)),
            place,
            connection: None,
            not_before_us: 0,
        })
    }

    pub(super) fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there is no connection, not even one that is being made.
    pub(super) fn is_adrift(&self) -> bool {
        self.connection
            .as_ref()
            .is_none_or(tokio::task::JoinHandle::is_finished)
    }

    /// Connects through `life`.
    pub(super) fn connect(&mut self, shared: &Arc<Shared>, life: &Life, place: usize) {
        self.place = place;
        let connection = Link {
            shared: shared.clone(),
            told: self.told.clone(),
            client: life.client.clone(),
            sessions: life.sessions.clone(),
            device: self.id.clone(),
            index: self.index,
            place,
            acks: Arc::default(),
        };
        self.connection = Some(life.runtime.spawn(connection.run()));
    }

    /// Ends the connection, if there is one, as a device that is gone from one moment to the next.
    pub(super) fn disconnect(&mut self, now_us: u64) {
        if let Some(connection) = self.connection.take() {
            connection.abort();
        }
        lose(&mut self.told(), now_us);
    }
}

fn lose(told: &mut Told, now_us: u64) {
    if std::mem::take(&mut told.is_connected)
        && let Some(connection) = told.history.connections.last_mut()
    {
        connection.lost_us = Some(now_us);
    }
}

/// Where a connection's ends arrive.
#[derive(Default)]
struct Acks {
    arrived: Mutex<Vec<(u64, TelemetryAck)>>,
    bell: Notify,
}

impl AckSink for Acks {
    fn on_ack(&self, token: u64, ack: TelemetryAck) {
        self.arrived
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push((token, ack));
        self.bell.notify_one();
    }
}

/// One connection of a device.
struct Link {
    shared: Arc<Shared>,
    told: Arc<Mutex<Told>>,
    client: Arc<dyn ShardClient>,
    sessions: Arc<Sessions>,
    device: DeviceId,
    index: usize,
    place: usize,
    acks: Arc<Acks>,
}

impl Link {
    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn run(self) {
        let epoch = loop {
            match self.open().await {
                Some(epoch) => break epoch,
                None => tokio::time::sleep(OPEN_PAUSE).await,
            }
        };
        let bell = Arc::<Notify>::default();
        {
            let opened_us = self.shared.now_us();
            let session = (epoch, bell.clone());
            self.sessions.lock().insert(self.device.clone(), session);
            let mut told = self.told();
            told.is_connected = true;
            told.history
                .connections
                .push(Connection::opened(self.place, opened_us));
            self.shared.trace.event(
                opened_us,
                "connected",
                &[self.index as u64, self.place as u64, epoch],
            );
        }
        let receiver = Receiver {
            client: self.client.clone(),
            device: self.device.clone(),
            epoch,
            bell,
            heard: Heard {
                told: self.told.clone(),
                shared: self.shared.clone(),
            },
        };
        tokio::select! {
            biased;
            () = self.send_all(epoch) => {}
            () = receiver.run(), if self.shared.listens => {}
        }
        let mut sessions = self.sessions.lock();
        if sessions.get(&self.device).is_some_and(|(held, _)| *held == epoch) {
            sessions.remove(&self.device);
        }
        drop(sessions);
        lose(&mut self.told(), self.shared.now_us());
    }

    /// Makes sure of the device, and opens a session; its epoch.
    async fn open(&self) -> Option<u64> {
        // As a door does: it looks for the device, and nobody is admitted by a node that has lost sight of the
        // directory, or never had one.
        let known = Query::Device(self.device.clone());
        let known = self.client.query(known, Consistency::Leader).await;
        if known.is_err() || !self.client.is_fresh() {
            return None;
        }
        let spec = DeviceSpec::enabled(Authentication::None);
        let put = Command::DevicePut {
            device: self.device.clone(),
            spec,
            condition: Condition::Any,
        };
        let Ok(Outcome::Stored(record)) = self.client.submit(put).await else {
            return None;
        };
        let open = Command::SessionOpen {
            device: self.device.clone(),
            generation: record.generation,
            held_by: self.client.stream_id(&self.device),
            persistent: false,
        };
        match self.client.submit(open).await {
            Ok(Outcome::SessionOpened { epoch, .. }) => Some(epoch),
            _ => None,
        }
    }

    /// Sends what has no answer, then something new at each turn, until the session is over.
    async fn send_all(&self, epoch: u64) {
        let again: Vec<u32> = self.told().pending.iter().copied().collect();
        for seq in again {
            let connection = self.told().history.connections.len() as u16 - 1;
            self.told().history.messages[seq as usize].last_connection = connection;
            if !self.offer(epoch, seq).await {
                return;
            }
        }
        let mut next = tokio::time::Instant::now();
        loop {
            if !self.take_acks() {
                return;
            }
            let is_stopped = self.shared.is_stopped.load(Ordering::Relaxed);
            let has_room = self.told().pending.len() < self.shared.window;
            if !is_stopped && has_room && next <= tokio::time::Instant::now() {
                next += self.shared.every;
                let seq = self.new_message();
                if !self.offer(epoch, seq).await {
                    return;
                }
                continue;
            }
            tokio::select! {
                biased;
                () = self.acks.bell.notified() => {}
                () = tokio::time::sleep_until(next), if !is_stopped && has_room => {}
            }
        }
    }

    fn text(&self, seq: u32) -> String {
        let mut text = String::new();
        self.shared
            .payloads
            .write(&mut text, (self.index, self.device.as_str()), seq);
        text
    }

    /// Notes a message before it is handed over: it may be stored although nobody says so.
    fn new_message(&self) -> u32 {
        let mut told = self.told();
        let seq = told.history.messages.len() as u32;
        let connection = told.history.connections.len() as u16 - 1;
        told.history.messages.push(Message {
            digest: digest(self.text(seq).as_bytes()),
            first_connection: connection,
            last_connection: connection,
            sent_us: self.shared.now_us(),
            acked_us: None,
            road: Road::Qos1,
        });
        told.pending.push_back(seq);
        seq
    }

    /// Hands a message over. False when the connection is over.
    async fn offer(&self, epoch: u64, seq: u32) -> bool {
        let mut record = BytesMut::new();
        let by = (Source::Mqtt, AuthMethod::DeviceKey);
        let text = self.text(seq);
        telemetry::encode(
            &mut record,
            by.0,
            by.1,
            epoch,
            &self.device,
            (b"", text.as_bytes()),
        );
        let sink: Arc<dyn AckSink> = self.acks.clone();
        loop {
            use dunlin_model::port::SubmitError;
            match self
                .client
                .submit_telemetry(&self.device, &record, &sink, u64::from(seq))
            {
                Ok(()) => return true,
                Err(SubmitError::Busy(_) | SubmitError::StorageFull) => {
                    tokio::time::sleep(BUSY_PAUSE).await;
                }
                Err(SubmitError::CutOff | SubmitError::Unknown) => return false,
            }
        }
    }

    /// Takes what has arrived. False when the session is over.
    fn take_acks(&self) -> bool {
        let arrived = std::mem::take(&mut *self.acks.arrived.lock().unwrap_or_else(PoisonError::into_inner));
        for (token, ack) in arrived {
            let TelemetryAck::Stored(receipt) = ack else {
                return false;
            };
            let seq = token as u32;
            let mut told = self.told();
            told.pending.retain(|pending| *pending != seq);
            told.history.messages[seq as usize].acked_us = Some(self.shared.now_us());
            told.receipts.insert(seq, receipt);
            self.shared.trace.event(
                self.shared.now_us(),
                "acked",
                &[
                    self.index as u64,
                    token,
                    u64::from(receipt.shard.0),
                    receipt.offset,
                ],
            );
        }
        true
    }
}
