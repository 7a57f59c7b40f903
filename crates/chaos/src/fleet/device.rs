//! One simulated device: connects, sends on its own schedule, and comes back when it is thrown out.
//!
//! After a lost connection it goes to the next node on its list and sends again, in order, what was
//! not acknowledged; only then anything new. It keeps every message it ever handed to a connection.

use std::collections::VecDeque;
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use dunlin_gateway::client::{Client, ClientError, ConnectOptions, Event};
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};

use super::{DevicePlan, Gap, Phase, Role, Shared};
use crate::oracle::{self, Deed, DeviceHistory, Road};

/// Pause before the second attempt to connect; it doubles from there.
const BACKOFF_MIN: Duration = Duration::from_millis(50);
/// The longest pause.
const BACKOFF_MAX: Duration = Duration::from_millis(1000);
/// The first pause is below this, so that a whole gateway's devices do not come at one instant.
const FIRST_PAUSE_MS: u64 = 20;
/// Time for one attempt, the CONNACK included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);

/// Time in which a gateway must take some of what is written; then the connection counts as lost.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Time for a goodbye.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);

/// A message that is not acknowledged.
struct Pending {
    seq: u32,
    packet_id: u16,
    intended: Instant,
}

/// A probe that is armed.
struct Watch {
    fault: usize,
    last: Instant,
    longest: Duration,
}

/// How serving a connection ended.
enum End {
    Lost,
    /// The device's home may be back.
    Homeward,
    Done,
}

pub(super) struct Device {
    shared: Arc<Shared>,
    index: usize,
    phase: watch::Receiver<Phase>,
    /// A copy of the phase as it was last seen.
    seen: Phase,
    random: StdRng,
    topic: String,
    text: String,
    history: DeviceHistory,
    pending: VecDeque<Pending>,
    /// Place in the list of nodes.
    node_place: usize,
    /// How often it has been called home.
    home_calls: u32,
    watch: Option<Watch>,
    gaps: Vec<Gap>,
}

impl Device {
    pub(super) fn new(shared: Arc<Shared>, index: usize, phase: watch::Receiver<Phase>) -> Self {
        let device = shared.plan.devices[index].device.clone();
        Self {
            index,
            phase,
            seen: Phase::default(),
            random: StdRng::seed_from_u64(
                shared.plan.seed ^ (index as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15),
            ),
            topic: format!("devices/{device}/messages/events/"),
            text: String::new(),
            history: DeviceHistory {
                device,
                ..DeviceHistory::default()
            },
            pending: VecDeque::new(),
            node_place: 0,
            home_calls: 0,
            watch: None,
            gaps: Vec::new(),
            shared,
        }
    }

    pub(super) async fn run(mut self) -> (usize, DeviceHistory, Vec<Gap>) {
        while let Some(mut client) = self.connect().await {
            let live = Arc::clone(&self.shared.live);
            live.connected_count.fetch_add(1, Ordering::Relaxed);
            let end = self.serve(&mut client).await;
            live.connected_count.fetch_sub(1, Ordering::Relaxed);
            match end {
                Ok(End::Done) => {
                    // A gateway that does not read goodbyes must not hold up the end of the run.
                    let _ = timeout(GOODBYE_TIMEOUT, client.disconnect()).await;
                    break;
                }
                Ok(End::Homeward) => {
                    let _ = timeout(GOODBYE_TIMEOUT, client.disconnect()).await;
                    self.note(Deed::Closed {
                        us: self.since_epoch_us(),
                    });
                    self.node_place = 0;
                }
                Ok(End::Lost) | Err(_) => {
                    self.note(Deed::Lost {
                        us: self.since_epoch_us(),
                    });
                    self.node_place += 1;
                }
            }
        }
        (self.index, self.history, self.gaps)
    }

    fn plan(&self) -> &DevicePlan {
        &self.shared.plan.devices[self.index]
    }

    fn since_epoch_us(&self) -> u64 {
        self.shared.plan.epoch.elapsed().as_micros() as u64
    }

    /// Keeps what happened, and tells it where that is wanted.
    fn note(&mut self, deed: Deed) {
        if let Err(error) = self.history.note(deed) {
            // Ours to keep straight: a deed speaks of what is there.
            unreachable!("{error}");
        }
        if let Some(recorder) = &self.shared.plan.recorder {
            recorder.note(self.index as u32, deed);
        }
    }

    /// Whether there is nothing left to do.
    fn is_done(&self) -> bool {
        self.seen
            .drain_until
            .is_some_and(|until| self.pending.is_empty() || Instant::now() >= until)
    }

    /// Tries one node after the other until one lets it in; `None` when the run is over.
    async fn connect(&mut self) -> Option<Client> {
        let mut backoff = BACKOFF_MIN;
        let mut pause = Duration::from_millis(self.random.random_range(0..FIRST_PAUSE_MS));
        loop {
            if !self.pause(pause).await {
                return None;
            }
            let plan = self.plan();
            let node = plan.nodes[self.node_place % plan.nodes.len()];
            let transport = self.shared.plan.gateways[node].clone();
            let options = ConnectOptions {
                window: self.shared.plan.window,
                ..ConnectOptions::new(
                    transport,
                    &self.shared.plan.host,
                    &plan.device,
                    plan.token.clone(),
                )
            };
            let connected = timeout(CONNECT_TIMEOUT, Client::connect(&options)).await;
            match connected.unwrap_or(Err(ClientError::TimedOut)) {
                Ok(client) => {
                    if self.history.connections.is_empty() {
                        self.shared.live.ready_count.fetch_add(1, Ordering::Relaxed);
                    }
                    self.note(Deed::Opened {
                        node,
                        us: self.since_epoch_us(),
                    });
                    return Some(client);
                }
                Err(error) => {
                    if !is_definite(&error) {
                        self.note(Deed::GaveUp {
                            node,
                            us: self.since_epoch_us(),
                        });
                    }
                    self.shared.live.set_error(format!(
                        "{} at node {}: {error}",
                        self.plan().device,
                        node + 1
                    ));
                    self.node_place += 1;
                    pause = backoff.mul_f64(self.random.random_range(0.5..1.0));
                    backoff = (backoff * 2).min(BACKOFF_MAX);
                }
            }
        }
    }

    /// Waits, with an eye on the phase. Whether the device should go on.
    async fn pause(&mut self, pause: Duration) -> bool {
        let until = Instant::now() + pause;
        loop {
            if !self.look() || self.is_done() {
                return false;
            }
            tokio::select! {
                () = sleep_until(until) => return true,
                _ = self.phase.changed() => {}
            }
        }
    }

    /// Takes over the phase. `false` when the run was given up.
    fn look(&mut self) -> bool {
        self.seen = self.phase.borrow_and_update().clone();
        if self.phase.has_changed().is_err() {
            return false;
        }
        if let Role::Probe { shard } = self.plan().role {
            let home = self.plan().nodes[0];
            let armed = self
                .seen
                .armed
                .iter()
                .find(|armed| armed.probes.contains(&(home, shard)))
                .map(|armed| armed.fault);
            let now = Instant::now();
            if armed != self.watch.as_ref().map(|watch| watch.fault) {
                if let Some(watch) = self.watch.take() {
                    let gap = watch.longest.max(now - watch.last);
                    self.gaps.push(Gap {
                        fault: watch.fault,
                        shard,
                        gap_us: gap.as_micros() as u64,
                    });
                }
                self.watch = armed.map(|fault| Watch {
                    fault,
                    last: now,
                    longest: Duration::ZERO,
                });
            }
        }
        true
    }

    /// Whether the device was called home since it was last asked, and is elsewhere.
    fn is_called_home(&mut self) -> bool {
        let was_called = self.seen.home_calls != self.home_calls;
        self.home_calls = self.seen.home_calls;
        was_called && !self.node_place.is_multiple_of(self.plan().nodes.len())
    }

    /// Sends again what is unacknowledged, then what is due, until the connection or the run is over.
    async fn serve(&mut self, client: &mut Client) -> Result<End, ClientError> {
        for place in 0..self.pending.len() {
            let seq = self.pending[place].seq;
            self.shared
                .plan
                .payloads
                .write(&mut self.text, (self.index, &self.history.device), seq);
            // Written down first: if the connection fails now, the message may have gone out.
            self.note(Deed::Resent { seq });
            self.pending[place].packet_id = publish(client, &self.topic, &self.text).await?;
        }
        loop {
            if !self.look() || self.is_done() {
                return Ok(End::Done);
            }
            if self.is_called_home() {
                return Ok(End::Homeward);
            }
            let wake = self.send_due(client).await?;
            tokio::select! {
                event = client.next_event() => {
                    let mut next = Some(event);
                    while let Some(event) = next {
                        match event {
                            Event::Puback { id, .. } => self.on_ack(id),
                            // What was refused is sent again on the next connection.
                            Event::Refused { .. } | Event::Disconnected { .. } => return Ok(End::Lost),
                            _ => {}
                        }
                        next = client.try_next_event();
                    }
                }
                () = async { match wake { Some(wake) => sleep_until(wake).await, None => std::future::pending().await } } => {}
                _ = self.phase.changed() => {}
            }
        }
    }

    /// Sends what is due and returns when to look again, unless an ack comes first.
    async fn send_due(&mut self, client: &mut Client) -> Result<Option<Instant>, ClientError> {
        loop {
            if let Some(until) = self.seen.drain_until {
                return Ok(Some(until));
            }
            let seq = self.history.messages.len();
            let now = Instant::now();
            let due = match (&self.plan().role, self.seen.start) {
                (Role::Load { period, offset }, Some(start))
                    if self.pending.len() < self.shared.plan.window
                        && seq < self.shared.messages_per_device_max =>
                {
                    match period {
                        Some(period) => start + *offset + period.mul_f64(seq as f64),
                        None => now.max(start),
                    }
                }
                (Role::Probe { .. }, Some(_)) if self.watch.is_some() && self.pending.is_empty() => now,
                _ => return Ok(None),
            };
            if due > now {
                return Ok(Some(due));
            }
            let seq = seq as u32;
            self.shared
                .plan
                .payloads
                .write(&mut self.text, (self.index, &self.history.device), seq);
            let is_load = matches!(self.plan().role, Role::Load { .. });
            let is_qos0 = is_load && self.random.random_range(0..100) < self.shared.plan.qos0_percent;
            self.note(Deed::Sent {
                us: self.since_epoch_us(),
                digest: oracle::digest(self.text.as_bytes()),
                road: if is_qos0 { Road::Qos0 } else { Road::Qos1 },
                former: false,
            });
            if is_qos0 {
                publish_unacknowledged(client, &self.topic, &self.text).await?;
                continue;
            }
            self.pending.push_back(Pending {
                seq,
                packet_id: 0,
                intended: due,
            });
            let packet_id = publish(client, &self.topic, &self.text).await?;
            if let Some(pending) = self.pending.back_mut() {
                pending.packet_id = packet_id;
            }
        }
    }

    fn on_ack(&mut self, packet_id: u16) {
        let Some(place) = self
            .pending
            .iter()
            .position(|pending| pending.packet_id == packet_id)
        else {
            return;
        };
        let Some(pending) = self.pending.remove(place) else {
            return;
        };
        let now = Instant::now();
        self.note(Deed::Acked {
            seq: pending.seq,
            us: self.since_epoch_us(),
        });
        let sent_us = self.history.messages[pending.seq as usize].sent_us;
        let is_load = matches!(self.plan().role, Role::Load { .. });
        let latency_us = is_load.then(|| (now - pending.intended).as_micros() as u64);
        self.shared.live.count_ack(self.index, sent_us, latency_us);
        if let Some(watch) = &mut self.watch {
            watch.longest = watch.longest.max(now - watch.last);
            watch.last = now;
        }
    }
}

/// Whether an attempt to connect that ended so has opened no session, and never will.
pub(crate) fn is_definite(error: &ClientError) -> bool {
    match error {
        ClientError::Refused(_) | ClientError::Options(_) => true,
        ClientError::Lost(error) => error.kind() == ErrorKind::ConnectionRefused,
        ClientError::TimedOut | ClientError::Protocol(_) => false,
    }
}

async fn publish(client: &mut Client, topic: &str, text: &str) -> Result<u16, ClientError> {
    timeout(WRITE_TIMEOUT, client.publish(topic, text.as_bytes()))
        .await
        .unwrap_or(Err(ClientError::TimedOut))
}

async fn publish_unacknowledged(client: &mut Client, topic: &str, text: &str) -> Result<(), ClientError> {
    timeout(
        WRITE_TIMEOUT,
        client.publish_unacknowledged(topic, text.as_bytes()),
    )
    .await
    .unwrap_or(Err(ClientError::TimedOut))
}
