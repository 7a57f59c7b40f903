//! The reader's side of the Kafka door: a small consumer for load and for trials of consumer groups.
//!
//! [`Reader`] is one connection of somebody known, which reads partitions; [`Member`] is a place in a consumer group, which
//! outlives the connection that it is spoken of over. No task of its own, nothing is repeated and nothing is decided: what a
//! refusal or a lost connection means is the caller's to say.
//!
//! One version of each request is spoken, of those before lengths became compact, so that [`wire`] is enough of a codec.
//! The library that the door rests on makes room for as many elements as an answer announces; the tests hold the two to
//! each other.
//!
//! Whatever comes from the wire has a bound ([`ANSWER_BYTES_MAX`], [`wire::ELEMENTS_MAX`]), and nothing is set aside for
//! what has not come yet.

mod connection;
mod group;
mod member;
mod reader;
mod records;
mod shares;
#[cfg(test)]
mod testing;
mod wire;

pub use connection::{ANSWER_BYTES_MAX, Door};
pub use group::Committed;
pub use member::{Member, Share, Times};
pub use reader::{Bound, Fetched, From, Reader, Wanted};
pub use records::Event;
pub use wire::Malformed;

use std::io;

use super::ClientError;
pub use crate::kafka::backend::{Broker, Code};

/// Name of the topic that all events are in.
pub const TOPIC: &str = "messages";

/// What came of a request instead of an answer. `asking` says which: "join group".
#[derive(Debug, thiserror::Error)]
pub enum KafkaError {
    /// There is no connection.
    #[error("dial gateway: {0}")]
    Dial(#[source] ClientError),
    /// The connection was lost, so that nobody knows whether it was done.
    #[error("{asking}: {source}")]
    Lost {
        /// What was asked.
        asking: &'static str,
        /// How.
        source: io::Error,
    },
    /// There was no answer in time, so that nobody knows whether it was done.
    #[error("{asking}: no answer in time")]
    TimedOut {
        /// What was asked.
        asking: &'static str,
    },
    /// What came is not what Kafka answers.
    #[error("{asking}: read answer: {source}")]
    Answer {
        /// What was asked.
        asking: &'static str,
        /// What is wrong with it.
        source: Malformed,
    },
    /// The hub says why it did not do it.
    #[error("{asking}: {code}")]
    Refused {
        /// What was asked.
        asking: &'static str,
        /// Why.
        code: Code,
    },
}

impl KafkaError {
    /// What the hub said; nothing if it said nothing, and the connection is of no more use.
    pub fn code(&self) -> Option<Code> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}
