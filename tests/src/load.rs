//! Devices that send without pause, come back when they are thrown out, and remember what they were told.
//!
//! A device that lost its connection goes to the next door and sends again, in order, whatever was not
//! acknowledged; only then anything new.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use dunlin_gateway::client::{Client, ClientError, Event};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::hub::{Device, Door};
use crate::judge::{DeviceLog, Place};
use crate::{PATIENCE, eventually};

/// Messages that a device has unacknowledged at the most.
const WINDOW: usize = 8;
/// Messages that one device sends in all: a runaway test must not fill the disk.
const MESSAGES_MAX: usize = 20_000;
/// Pause before a device tries the next door.
const TRY_AGAIN: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Sending,
    /// Nothing new; what is unacknowledged is still sent until it is acknowledged.
    Draining,
    Abandoned,
}

/// Devices at work.
pub struct Load {
    phase: watch::Sender<Phase>,
    acked: Arc<Vec<AtomicUsize>>,
    devices: JoinSet<DeviceLog>,
}

impl Load {
    /// Starts `devices`; each begins at the door of its own place and goes around.
    pub fn start(doors: &[Door], devices: &[Device]) -> Load {
        let (phase, seen) = watch::channel(Phase::Sending);
        let acked: Arc<Vec<AtomicUsize>> = Arc::new(doors.iter().map(|_| AtomicUsize::new(0)).collect());
        let mut tasks = JoinSet::new();
        for (index, device) in devices.iter().enumerate() {
            let sender = Sender {
                device: device.clone(),
                doors: doors.to_vec(),
                door: index % doors.len(),
                phase: seen.clone(),
                acked: acked.clone(),
                log: DeviceLog {
                    device: device.id.clone(),
                    ..DeviceLog::default()
                },
            };
            tasks.spawn(sender.run());
        }
        Load {
            phase,
            acked,
            devices: tasks,
        }
    }

    /// Acknowledgements so far.
    pub fn acked(&self) -> usize {
        self.acked.iter().map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// Acknowledgements so far that came through the door in place `door`.
    pub fn acked_at(&self, door: usize) -> usize {
        self.acked[door].load(Ordering::Relaxed)
    }

    /// Returns when `count` more are acknowledged.
    pub async fn wait_acked(&self, count: usize) {
        let wanted = self.acked() + count;
        let what = format!("{count} more acknowledgements");
        eventually(&what, PATIENCE, || async {
            (self.acked() >= wanted).then_some(())
        })
        .await;
    }

    /// Sends nothing new, and returns when everything that was sent is acknowledged.
    pub async fn finish(self) -> Vec<DeviceLog> {
        self.end(Phase::Draining).await
    }

    /// Lets go at once; what is not acknowledged by now stays unknown.
    pub async fn abandon(self) -> Vec<DeviceLog> {
        self.end(Phase::Abandoned).await
    }

    async fn end(mut self, phase: Phase) -> Vec<DeviceLog> {
        self.phase.send_replace(phase);
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

struct Sender {
    device: Device,
    doors: Vec<Door>,
    door: usize,
    phase: watch::Receiver<Phase>,
    acked: Arc<Vec<AtomicUsize>>,
    log: DeviceLog,
}

impl Sender {
    async fn run(mut self) -> DeviceLog {
        loop {
            let options = self.doors[self.door].options(&self.device);
            if let Some(Ok(mut client)) = self.unless_abandoned(Client::connect(&options)).await
                && self.serve(&mut client).await.is_err()
            {
                self.log.connections_lost += 1;
            }
            if self.is_done() {
                return self.log;
            }
            self.door = (self.door + 1) % self.doors.len();
            self.unless_abandoned(tokio::time::sleep(TRY_AGAIN)).await;
        }
    }

    async fn unless_abandoned<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        let mut phase = self.phase.clone();
        tokio::select! {
            done = work => Some(done),
            _ = phase.wait_for(|phase| *phase == Phase::Abandoned) => None,
        }
    }

    fn is_done(&self) -> bool {
        match *self.phase.borrow() {
            Phase::Sending => false,
            Phase::Draining => self.log.acked.len() == self.log.sent.len(),
            Phase::Abandoned => true,
        }
    }

    /// Sends until the connection is lost or there is nothing left to do.
    async fn serve(&mut self, client: &mut Client) -> Result<(), ClientError> {
        let topic = format!("devices/{}/messages/events/", self.device.id);
        let mut in_flight: HashMap<u16, usize> = HashMap::new();
        let unknown: Vec<usize> = (0..self.log.sent.len())
            .filter(|seq| !self.log.acked.contains_key(seq))
            .collect();
        for seq in unknown {
            in_flight.insert(client.publish(&topic, &self.log.sent[seq]).await?, seq);
        }
        let mut phase = self.phase.clone();
        loop {
            while *self.phase.borrow() == Phase::Sending
                && in_flight.len() < WINDOW
                && self.log.sent.len() < MESSAGES_MAX
            {
                let seq = self.log.sent.len();
                let body = format!("{{\"device\":\"{}\",\"seq\":{seq}}}", self.device.id).into_bytes();
                // Remembered before it is sent: it may be stored although the sending fails.
                self.log.sent.push(body);
                in_flight.insert(client.publish(&topic, &self.log.sent[seq]).await?, seq);
            }
            if self.is_done() {
                return Ok(());
            }
            let event = tokio::select! {
                event = client.next_event() => event,
                _ = phase.changed() => continue,
            };
            match event {
                Event::Puback { id, receipt } => {
                    let seq = in_flight
                        .remove(&id)
                        .expect("an acknowledgement of what was sent");
                    let place = receipt.as_deref().and_then(parse_receipt);
                    self.log
                        .acked
                        .insert(seq, place.expect("a receipt was asked for"));
                    self.acked[self.door].fetch_add(1, Ordering::Relaxed);
                }
                Event::Refused { .. } | Event::Disconnected { .. } => {
                    return Err(ClientError::Lost(std::io::ErrorKind::ConnectionReset.into()));
                }
                _ => {}
            }
        }
    }
}

/// `shard/offset/term`.
pub fn parse_receipt(text: &str) -> Option<Place> {
    let mut parts = text.split('/');
    let place = Place {
        shard: parts.next()?.parse().ok()?,
        offset: parts.next()?.parse().ok()?,
    };
    let _term: u64 = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some(place)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receipts_are_read() {
        assert_eq!(parse_receipt("3/17/2"), Some(Place { shard: 3, offset: 17 }));
        for wrong in ["", "3/17", "3/x/2", "3/17/2/1"] {
            assert_eq!(parse_receipt(wrong), None, "{wrong}");
        }
    }
}
