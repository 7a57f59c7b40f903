//! What senders of messages are owed: how their messages ended. How such records are given out is [`crate::owed`]'s.

use serde::{Deserialize, Serialize};

use super::MessageEnd;
use crate::id::DeviceId;

/// Records in one batch at the most (IoT Hub: 64).
pub const BATCH_RECORDS_MAX: u64 = 64;

/// How one message ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeedbackRecord {
    /// Whose message it was.
    pub device: DeviceId,
    /// Generation of that device, as services know it.
    pub device_generation: u64,
    /// The message's id.
    pub message_id: String,
    /// How it ended.
    pub end: MessageEnd,
    /// Stamp of the entry that ended it.
    pub ended_ms: u64,
}
