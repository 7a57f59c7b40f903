//! Direct methods: a question to a device that is connected now, and its answer.
//!
//! Nothing of it is in the log and no layer asks a second time once a device may have been asked: a caller that hears
//! nothing knows nothing. Who holds the device is read from its session; whom the gateways pass a question to is
//! decided in `cluster`, how it is put to the device in `gateway`.

use serde::{Deserialize, Serialize};

use crate::id::DeviceId;

/// Bytes of the payload of a question or an answer (IoT Hub: 128 KiB each way).
pub const METHOD_PAYLOAD_BYTES_MAX: usize = 128 * 1024;
/// Characters of a method's name.
pub const METHOD_NAME_BYTES_MAX: usize = 100;

/// A question on its way to the gateway that holds the device's session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invocation {
    /// Drawn at random where the question came in: a gateway that hears the same one again goes on with the first.
    pub id: u64,
    /// Who is asked.
    pub device: DeviceId,
    /// In which session; another one is not asked.
    pub epoch: u64,
    /// Which method; [`METHOD_NAME_BYTES_MAX`] at most, checked at the door.
    pub name: String,
    /// JSON text, [`METHOD_PAYLOAD_BYTES_MAX`] at most.
    pub payload: String,
    /// Milliseconds that the device has to answer.
    pub wait_ms: u64,
}

/// What the device answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MethodAnswer {
    /// A number of the device's own choice.
    pub status: i64,
    /// JSON text; empty for none.
    pub payload: String,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum MethodError {
    /// The gateway does not hold this session: the device was not asked.
    #[error("the session is not here")]
    NotHere,
    /// The gateway cannot be reached: the device was not asked.
    #[error("the gateway of the device cannot be reached")]
    Unreachable,
    /// A bound is reached: the device was not asked.
    #[error("too many calls are in flight: {0}")]
    TooMany(String),
    /// The device was asked, or may have been, and has not answered in time.
    #[error("the device has not answered in time")]
    TimedOut,
    /// The connection ended after the device was asked, or may have been.
    #[error("the connection of the device has ended")]
    ConnectionClosed,
    /// The device has answered with what is no JSON.
    #[error("the answer of the device cannot be read")]
    Unreadable,
    /// Nobody knows whether the device was asked: the gateway between was lost.
    #[error("the gateway of the device was lost")]
    Unknown,
}

impl MethodError {
    /// Whether it is certain that the device was not asked, so that it may be asked elsewhere.
    pub fn is_untouched(&self) -> bool {
        matches!(self, MethodError::NotHere | MethodError::Unreachable)
    }
}
