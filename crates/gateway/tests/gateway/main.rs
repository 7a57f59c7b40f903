//! The doors through real sockets, in front of a cluster in memory.

// A panic is how a test fails; clippy knows that of test functions, not of their helpers.
#![allow(clippy::unwrap_used)]

mod amqp;
mod blob_errors;
mod certificates;
mod configurations;
mod conformance;
mod enrollments;
mod erasures;
mod errors;
mod fake;
mod http;
mod jobs;
mod kafka;
#[path = "../../src/uploads/memory.rs"]
mod memory;
mod messages;
mod methods;
mod mqtt;
mod openapi;
mod pki;
mod provisioning;
mod queries;
mod quota;
mod receipts;
mod registry;
mod routing;
mod standing;
#[path = "../../../actors/tests/host/support/store.rs"]
mod store;
mod swtpm;
mod twins;
mod unreachable;
mod uploads;
mod world;
