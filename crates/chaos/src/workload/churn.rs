//! W9: devices that connect at one gateway after the other without leaving the one before, and go on
//! sending on both for a moment.
//!
//! The hub promises that nothing of the former connection is stored once the new one was accepted
//! (`docs/semantics.md`, sessions and fencing), and closes it; so its end is no lost connection.

use std::time::Duration;

use dunlin_gateway::client::{Client, ClientError, ConnectOptions, Event};
use tokio::time::{Instant, sleep, timeout};

use super::Bench;
use super::https::Sender;
use crate::fleet::is_definite;
use crate::oracle::{self, Deed, Road};

/// Time to connect.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(8);
/// Pause after an attempt that failed.
const PAUSE: Duration = Duration::from_millis(250);
/// Messages on the former connection before it is taken over, and after.
const MESSAGES: u32 = 3;
/// Messages of one device; their acknowledgements are told by packet ids, which begin again after these.
const MESSAGES_MAX: usize = 60_000;

struct Device {
    bench: Bench,
    sender: Sender,
    seq: u32,
    topic: String,
    text: String,
}

/// A connection with the messages that it carried, by packet id.
struct Held {
    client: Client,
    sent: Vec<(u16, u32)>,
}

/// Takes over until it is told to stop.
pub async fn run(bench: Bench, sender: Sender, period: Duration) {
    let mut device = Device {
        topic: format!("devices/{}/messages/events/", sender.device),
        text: String::new(),
        seq: 0,
        bench,
        sender,
    };
    let mut node = device.sender.index as usize;
    let mut held: Option<Held> = None;
    while (device.seq as usize) < MESSAGES_MAX {
        let due = Instant::now() + period;
        if let Some(former) = &mut held {
            // In flight while the session changes hands.
            let _ = device.send(former, false).await;
        }
        device.bench.turn(&mut node);
        match device.connect(node).await {
            Some(mut newest) => {
                if let Some(mut former) = held.take() {
                    let _ = device.send(&mut former, true).await;
                    let _ = device.send(&mut newest, false).await;
                    device.hear(&mut former, due).await;
                }
                held = Some(newest);
            }
            None => sleep(PAUSE).await,
        }
        if let Some(newest) = &mut held
            && device.hear(newest, due).await
        {
            let us = device.bench.now_us();
            device.note(Deed::Lost { us });
            held = None;
        }
        if !device.bench.wait_until(due).await {
            break;
        }
    }
    if let Some(mut last) = held {
        device
            .hear(&mut last, Instant::now() + Duration::from_secs(2))
            .await;
    }
}

impl Device {
    fn note(&self, deed: Deed) {
        self.bench.shelf.recorder.note(self.sender.index, deed);
    }

    async fn connect(&self, node: usize) -> Option<Held> {
        let options = ConnectOptions {
            window: 4 * MESSAGES as usize,
            ..ConnectOptions::new(
                self.bench.gateways[node].clone(),
                &self.bench.host,
                &self.sender.device,
                self.sender.token.clone(),
            )
        };
        let connected = timeout(CONNECT_TIMEOUT, Client::connect(&options)).await;
        let client = match connected.unwrap_or(Err(ClientError::TimedOut)) {
            Ok(client) => client,
            Err(error) => {
                if !is_definite(&error) {
                    let us = self.bench.now_us();
                    self.note(Deed::GaveUp { node, us });
                }
                return None;
            }
        };
        let us = self.bench.now_us();
        self.note(Deed::Opened { node, us });
        Some(Held {
            client,
            sent: Vec::new(),
        })
    }

    async fn send(&mut self, held: &mut Held, former: bool) -> Result<(), ClientError> {
        for _ in 0..MESSAGES {
            if held.client.in_flight() >= 3 * MESSAGES as usize {
                break;
            }
            let seq = self.seq;
            let whose = (self.sender.index as usize, self.sender.device.as_str());
            self.bench.payloads.write(&mut self.text, whose, seq);
            self.seq += 1;
            self.note(Deed::Sent {
                us: self.bench.now_us(),
                digest: oracle::digest(self.text.as_bytes()),
                road: Road::Once,
                former,
            });
            let id = held.client.publish(&self.topic, self.text.as_bytes()).await?;
            held.sent.push((id, seq));
        }
        timeout(PAUSE, held.client.flush()).await.unwrap_or(Ok(()))
    }

    /// Takes in acknowledgements until all are there, or then. Whether the connection has ended.
    async fn hear(&self, held: &mut Held, until: Instant) -> bool {
        while !held.sent.is_empty() {
            match tokio::time::timeout_at(until, held.client.next_event()).await {
                Err(_) => return false,
                Ok(Event::Puback { id, .. }) => {
                    if let Some(place) = held.sent.iter().position(|(sent, _)| *sent == id) {
                        let (_, seq) = held.sent.remove(place);
                        let us = self.bench.now_us();
                        self.note(Deed::Acked { seq, us });
                    }
                }
                Ok(Event::Disconnected { .. } | Event::Refused { .. }) => return true,
                Ok(_) => {}
            }
        }
        false
    }
}
