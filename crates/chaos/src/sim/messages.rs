//! Messages to the devices of a simulation: each device listens, takes what its shard gives it, and settles it, as a session
//! does. Services send them, in [`super::services`].
//!
//! A message is asked for again until the shard has answered, and so is its end. What a device received lives with what else
//! it heard, and outlives every node. Judged by [`crate::invariants::messages`].

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use dunlin_model::command::{Command, Consistency, Outcome, Query, View};
use dunlin_model::id::DeviceId;
use dunlin_model::messages::{AckWanted, Holder, MessageContent, NewMessage, Settlement, TakenMessage};
use dunlin_model::port::ShardClient;
use dunlin_model::shard::registry::messages_filter;
use tokio::sync::Notify;

use super::fleet::Heard;
use crate::oracle::digest;
use crate::workload::exchange::Receipt;

/// Pause before a question is asked again that nobody answered.
const AGAIN_PAUSE: Duration = Duration::from_millis(40);
/// Messages that a device takes at a time.
const TAKEN_MAX: u32 = 4;

/// A message that says `id`, and waits longer than any run lasts, whatever clocks do.
pub(super) fn message(id: &str) -> NewMessage {
    NewMessage {
        id: id.to_owned(),
        ack: AckWanted::None,
        expires_ms: Some(u64::MAX),
        content: MessageContent {
            bag: String::new(),
            payload: id.as_bytes().to_vec().into(),
        },
    }
}

/// The messages of one connection.
pub(super) struct Receiver {
    pub(super) client: Arc<dyn ShardClient>,
    pub(super) device: DeviceId,
    pub(super) epoch: u64,
    /// Rings when messages wait.
    pub(super) bell: Arc<Notify>,
    pub(super) heard: Heard,
}

impl Receiver {
    /// Receives until it is dropped. That a session is over shows in the ends of its telemetry.
    pub(super) async fn run(self) {
        let filter = messages_filter(&self.device);
        let subscribe = Command::Subscribe {
            device: self.device.clone(),
            epoch: self.epoch,
            filters: vec![(filter, 1)],
        };
        let mut waiting = matches!(
            self.submit(subscribe).await,
            Outcome::Subscribed { waiting: true }
        );
        loop {
            if !waiting {
                self.bell.notified().await;
            }
            let take = Command::MessageTake {
                device: self.device.clone(),
                epoch: self.epoch,
                holds: Vec::new(),
                count_max: TAKEN_MAX,
            };
            let Outcome::MessagesTaken { messages, more, .. } = self.submit(take).await else {
                return pending().await;
            };
            waiting = more;
            let numbers: Vec<u64> = messages.iter().map(|message| message.number).collect();
            for message in messages {
                self.receive(message).await;
            }
            if !numbers.is_empty() {
                let settle = Command::MessageSettle {
                    device: self.device.clone(),
                    numbers,
                    holder: Holder::Session { epoch: self.epoch },
                    settlement: Settlement::Complete,
                };
                self.submit(settle).await;
            }
        }
    }

    async fn receive(&self, message: TakenMessage) {
        let query = Query::Messages {
            device: self.device.clone(),
            numbers: vec![message.number],
        };
        let contents = loop {
            match self.client.query(query.clone(), Consistency::Linearizable).await {
                Ok(View::Messages(contents)) => break contents,
                _ => tokio::time::sleep(AGAIN_PAUSE).await,
            }
        };
        for (_, content) in contents {
            let id = String::from_utf8_lossy(&content.payload).into_owned();
            let digest = digest(id.as_bytes());
            self.heard.message(&self.device, digest, |connection| Receipt {
                device: self.device.as_str().to_owned(),
                connection,
                id,
                dup: message.delivery_count > 0,
            });
        }
    }

    async fn submit(&self, command: Command) -> Outcome {
        loop {
            match self.client.submit(command.clone()).await {
                Ok(outcome) => return outcome,
                Err(_) => tokio::time::sleep(AGAIN_PAUSE).await,
            }
        }
    }
}

/// Messages that wait for each device, in the order of `devices`.
pub(super) async fn count_waiting(client: &dyn ShardClient, devices: &[DeviceId]) -> Vec<u64> {
    let mut counts = Vec::with_capacity(devices.len());
    for device in devices {
        let count = loop {
            let query = Query::Device(device.clone());
            match client.query(query, Consistency::Linearizable).await {
                Ok(View::Device(view)) => break view.map_or(0, |view| u64::from(view.message_count)),
                _ => tokio::time::sleep(AGAIN_PAUSE).await,
            }
        };
        counts.push(count);
    }
    counts
}
