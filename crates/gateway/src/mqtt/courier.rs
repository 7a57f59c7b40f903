//! Runs the errands of [`super::deliveries`]: asks the shard, and asks again until it has answered.
//!
//! An answer may be lost and the question with it, or not; that is why a question for messages names those that the
//! device has. What a message looks like on the wire is decided here too.

use std::future::pending;
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use dunlin_model::command::{Command, Consistency, Outcome, Query, Refusal, View};
use dunlin_model::id::DeviceId;
use dunlin_model::messages::{Holder, MessageContent, TakenMessage};
use dunlin_model::port::ShardClient;
use tokio::time::sleep;

use super::deliveries::{Deliveries, Errand};
use crate::bag;
use crate::limits::ERRAND_PAUSE;

/// What an errand came back with.
#[derive(Debug)]
pub(crate) enum Returned {
    /// Those are settled, or were not the session's any more.
    Settled,
    /// These are the session's.
    Taken {
        qos: u8,
        messages: Vec<(TakenMessage, MessageContent)>,
        more: bool,
    },
    /// The session does not listen any more.
    Nothing,
    /// Another session has taken over.
    Fenced,
}

/// The courier of one session: what its device has, and the errand that is being run.
pub(crate) struct Courier {
    client: Arc<dyn ShardClient>,
    device: DeviceId,
    epoch: u64,
    pub(crate) deliveries: Deliveries,
    errand: Option<Pin<Box<dyn Future<Output = Returned> + Send>>>,
}

impl Courier {
    /// Of the session of this device and epoch.
    pub(crate) fn new(
        client: Arc<dyn ShardClient>,
        (device, epoch): (DeviceId, u64),
        deliveries: Deliveries,
    ) -> Self {
        Self {
            client,
            device,
            epoch,
            deliveries,
            errand: None,
        }
    }

    /// Begins the next errand, if there is one and none is being run. Messages are asked for if they can be written.
    pub(crate) fn begin(&mut self, can_write: bool) {
        if self.errand.is_none()
            && let Some(errand) = self.deliveries.poll_errand(can_write)
        {
            let (client, device) = (Arc::clone(&self.client), self.device.clone());
            self.errand = Some(Box::pin(run(client, device, self.epoch, errand)));
        }
    }

    /// What the errand came back with; never, if none is being run. Can be dropped and asked again.
    pub(crate) async fn returned(&mut self) -> Returned {
        match &mut self.errand {
            None => pending().await,
            Some(errand) => {
                let returned = errand.await;
                self.errand = None;
                returned
            }
        }
    }

    /// Settles what the device has acknowledged, at the end of its connection: only this session can.
    pub(crate) async fn finish(mut self) {
        loop {
            if self.errand.is_some() {
                self.returned().await;
            }
            self.begin(false);
            if self.errand.is_none() {
                return;
            }
        }
    }
}

/// Runs one errand for the session of `epoch`. Resolves when it is done, however long that takes: whoever goes drops it.
async fn run(client: Arc<dyn ShardClient>, device: DeviceId, epoch: u64, errand: Errand) -> Returned {
    let command = match errand {
        Errand::Settle { numbers, settlement } => Command::MessageSettle {
            device: device.clone(),
            numbers,
            holder: Holder::Session { epoch },
            settlement,
        },
        Errand::Take { holds, count_max } => Command::MessageTake {
            device: device.clone(),
            epoch,
            holds,
            count_max,
        },
    };
    let outcome = loop {
        match client.submit(command.clone()).await {
            Ok(outcome) => break outcome,
            Err(error) => {
                tracing::debug!(%device, epoch, %error, "ask again about messages to a device");
                sleep(ERRAND_PAUSE).await;
            }
        }
    };
    match outcome {
        Outcome::MessagesTaken { messages, .. } if messages.is_empty() => Returned::Nothing,
        Outcome::MessagesTaken { qos, messages, more } => {
            let messages = with_contents(&*client, &device, messages).await;
            Returned::Taken { qos, messages, more }
        }
        Outcome::Refused(Refusal::Fenced) => Returned::Fenced,
        Outcome::Refused(Refusal::NotListening) => Returned::Nothing,
        _ => Returned::Settled,
    }
}

/// What the messages carry. One that is gone meanwhile was purged.
async fn with_contents(
    client: &dyn ShardClient,
    device: &DeviceId,
    messages: Vec<TakenMessage>,
) -> Vec<(TakenMessage, MessageContent)> {
    let query = Query::Messages {
        device: device.clone(),
        numbers: messages.iter().map(|message| message.number).collect(),
    };
    loop {
        match client.query(query.clone(), Consistency::Linearizable).await {
            Ok(View::Messages(contents)) => {
                let of = |message: TakenMessage| {
                    let content = contents.iter().find(|(number, _)| *number == message.number);
                    content.map(|(_, content)| (message, content.clone()))
                };
                return messages.into_iter().filter_map(of).collect();
            }
            Ok(_) => return Vec::new(),
            Err(error) => {
                tracing::debug!(%device, %error, "read messages to a device again");
                sleep(ERRAND_PAUSE).await;
            }
        }
    }
}

/// A message as it is published.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Downward {
    /// Topic, without the property bag.
    pub(crate) topic: String,
    /// Behind the topic in MQTT 3.1.1; in MQTT 5 these are properties of the packet.
    pub(crate) bag: String,
    pub(crate) payload: Bytes,
    pub(crate) qos: u8,
    pub(crate) packet_id: u16,
    /// Whether it was published before.
    pub(crate) dup: bool,
}

impl Downward {
    /// `message` to `device`, with quality `qos`.
    pub(crate) fn new(device: &DeviceId, qos: u8, message: &TakenMessage, content: MessageContent) -> Self {
        Self {
            topic: format!("devices/{device}/messages/devicebound/"),
            bag: content.bag,
            payload: content.payload,
            qos,
            packet_id: message.packet_id(),
            dup: qos > 0 && message.delivery_count > 0,
        }
    }

    /// Content type, and everything else as pairs, for MQTT 5.
    pub(crate) fn properties(&self) -> (Option<String>, Vec<(String, String)>) {
        let (mut content_type, mut pairs) = (None, Vec::new());
        for (key, value) in bag::properties(self.bag.as_bytes()) {
            let value = value.unwrap_or_default().into_owned();
            match &*key {
                "$.ct" => content_type = Some(value),
                key => pairs.push((key.to_owned(), value)),
            }
        }
        (content_type, pairs)
    }
}
