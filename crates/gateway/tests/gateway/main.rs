//! The doors through real sockets, in front of a cluster in memory.

// A panic is how a test fails; clippy knows that of test functions, not of their helpers.
#![allow(clippy::unwrap_used)]

mod amqp;
mod errors;
mod fake;
mod http;
mod messages;
mod methods;
mod mqtt;
mod registry;
#[path = "../../../actors/tests/host/support/store.rs"]
mod store;
mod twins;
mod world;
