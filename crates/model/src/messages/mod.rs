//! Cloud-to-device messages: what a service sends, what a device is given, and how each of them ends.
//!
//! [`queue`] decides for one device which message may be given to whom; [`feedback`] keeps what senders are owed. Both are
//! pure; where their state lies in a shard is decided in `shard::messages`. How a message looks on a wire is the doors'
//! business: here it has a property bag and a payload, as telemetry has.

pub mod feedback;
pub mod queue;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

/// Bytes of one message: property bag and payload together (IoT Hub: 64 KiB).
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a message's id.
pub const MESSAGE_ID_BYTES_MAX: usize = 128;
/// Messages that wait for one device, those included that it has and has not settled (IoT Hub: 50).
pub const QUEUE_MESSAGES_MAX: usize = 50;
/// Times that a message is given to a device before it becomes a dead letter (IoT Hub: 10 unless told otherwise).
pub const DELIVERY_COUNT_MAX: u32 = 10;
/// Dead letters that are kept for one device; the oldest goes when there are more.
pub const DEAD_LETTERS_MAX: usize = 50;
/// Life of a message that names no expiry (IoT Hub: an hour).
pub const MESSAGE_TTL_MS_DEFAULT: u64 = 3600 * 1000;
/// Life of a message at the most (IoT Hub: two days).
pub const MESSAGE_TTL_MS_MAX: u64 = 48 * 3600 * 1000;
/// How long a message that a device fetched is its own (IoT Hub: a minute). A session keeps its own as long as it lives.
pub const LOCK_MS: u64 = 60 * 1000;
/// Messages that one session may have unsettled.
pub const SESSION_MESSAGES_MAX: u32 = 16;
/// Bytes of payloads and bags that one step gives to a session, beyond the first message.
pub const TAKE_BYTES_MAX: u32 = 256 * 1024;

/// Which ends of a message its sender wants to hear of (IoT Hub: `iothub-ack`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum AckWanted {
    /// None.
    #[default]
    None,
    /// That the device took it.
    Positive,
    /// That it did not.
    Negative,
    /// Either.
    Full,
}

impl AckWanted {
    /// The word for it on the wire.
    pub fn word(self) -> &'static str {
        match self {
            AckWanted::None => "none",
            AckWanted::Positive => "positive",
            AckWanted::Negative => "negative",
            AckWanted::Full => "full",
        }
    }

    /// What a word on the wire means, in any case of its letters.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::None, Self::Positive, Self::Negative, Self::Full]
            .into_iter()
            .find(|wanted| wanted.word().eq_ignore_ascii_case(word))
    }

    /// Whether the sender is to hear of `end`.
    pub fn wants(self, end: MessageEnd) -> bool {
        match self {
            AckWanted::None => false,
            AckWanted::Positive => end == MessageEnd::Success,
            AckWanted::Negative => end != MessageEnd::Success,
            AckWanted::Full => true,
        }
    }
}

/// How a message ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MessageEnd {
    /// The device took it.
    Success,
    /// Its time was over.
    Expired,
    /// It was given to the device too often.
    DeliveryCountExceeded,
    /// The device wants none of it.
    Rejected,
    /// A service emptied the queue, or deleted the device.
    Purged,
}

impl MessageEnd {
    /// The word for it in feedback.
    pub fn word(self) -> &'static str {
        match self {
            MessageEnd::Success => "Success",
            MessageEnd::Expired => "Expired",
            MessageEnd::DeliveryCountExceeded => "DeliveryCountExceeded",
            MessageEnd::Rejected => "Rejected",
            MessageEnd::Purged => "Purged",
        }
    }

    /// Whether the message is kept as a dead letter.
    pub fn is_dead_letter(self) -> bool {
        matches!(
            self,
            MessageEnd::Expired | MessageEnd::DeliveryCountExceeded | MessageEnd::Rejected
        )
    }
}

/// What a message carries. The bag holds the system properties too, `$.mid` and the like.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct MessageContent {
    /// Property bag, percent-encoded; the door has checked it.
    pub bag: String,
    /// Payload.
    pub payload: Bytes,
}

impl MessageContent {
    /// Bytes that count against [`MESSAGE_BYTES_MAX`].
    pub fn bytes(&self) -> usize {
        self.bag.len() + self.payload.len()
    }
}

/// A message as a service sends it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewMessage {
    /// Its id, for feedback; the door draws one if the service has none.
    pub id: String,
    /// Which ends its sender wants to hear of.
    pub ack: AckWanted,
    /// When its time is over, milliseconds since 1970; [`MESSAGE_TTL_MS_DEFAULT`] from its entry if not said, and
    /// [`MESSAGE_TTL_MS_MAX`] at the most.
    pub expires_ms: Option<u64>,
    /// What it carries.
    pub content: MessageContent,
}

/// Who holds a message that is not settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Holder {
    /// A session, as long as a gateway holds it.
    Session {
        /// Its epoch.
        epoch: u64,
    },
    /// Whoever has the token, for a while.
    Token {
        /// Drawn for one delivery.
        token: u64,
    },
}

/// What becomes of a message that a device was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Settlement {
    /// It is done with.
    Complete,
    /// It is to be a dead letter.
    Reject,
    /// It is to be given again.
    Abandon,
}

/// What is to be done with a dead letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum DeadLetterDeed {
    /// Put it at the end of the queue, with a life of its own.
    Resubmit,
    /// Forget it.
    Drop,
}

/// A message that was given to a device. What it carries is read by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct TakenMessage {
    /// Its number in the device's queue; rises, and none comes again.
    pub number: u64,
    /// Who holds it now.
    pub holder: Holder,
    /// Times that it was given before.
    pub delivery_count: u32,
    /// Stamp of the entry that queued it.
    pub enqueued_ms: u64,
    /// When its time is over.
    pub expires_ms: u64,
    /// Which ends its sender wants to hear of.
    pub ack: AckWanted,
}

impl TakenMessage {
    /// The MQTT packet id under which it is published. It follows from the number alone, so that a message that is
    /// published again, by whatever gateway, carries the same one (MQTT 3.1.1, 4.4). Two that wait never share one.
    pub fn packet_id(&self) -> u16 {
        packet_id(self.number)
    }
}

/// See [`TakenMessage::packet_id`].
pub(crate) fn packet_id(number: u64) -> u16 {
    (number.saturating_sub(1) % u64::from(u16::MAX)) as u16 + 1
}

/// A dead letter, without what it carries.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// Its number in the device's queue.
    pub number: u64,
    /// Its id.
    pub id: String,
    /// Why it is one.
    pub reason: MessageEnd,
    /// Stamp of the entry that made it one.
    pub dead_ms: u64,
    /// Stamp of the entry that queued it.
    pub enqueued_ms: u64,
    /// Times that it was given to the device.
    pub delivery_count: u32,
    /// Which ends its sender wants to hear of.
    pub ack: AckWanted,
    /// Bytes of what it carries.
    pub bytes: u32,
}
