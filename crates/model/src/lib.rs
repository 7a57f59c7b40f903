//! The words, the limits and the pure state machines of Dunlin, and the ports between its crates.
//!
//! Everything here is a value or a function of values: time comes in as an argument, what should
//! happen in the world goes out as data. The crate reads no clock, opens no file and has no async
//! runtime; its manifest is the proof. Shells that do touch the world implement the traits in
//! [`port`]. To follow one message, start at [`telemetry`], then [`shard`].

pub mod alarm;
pub mod audit;
pub mod command;
pub mod configuration;
pub mod device;
pub mod directory;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod group;
pub mod id;
pub mod identity;
pub mod iso_time;
pub mod job;
pub mod leftover;
pub mod limits;
mod listed;
pub mod messages;
pub mod method;
pub mod mutant;
pub mod owed;
pub mod point;
pub mod port;
pub mod provisioning;
pub mod query_language;
pub mod quota;
pub mod routing;
pub mod shard;
pub mod stream;
pub mod telemetry;
pub mod trace;
pub mod twin;
pub mod upload;
pub mod wire;
