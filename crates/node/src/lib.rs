//! One node, composed: configuration, certificates, wiring, serve, shutdown, and what is seen from outside.
//!
//! The only crate that sees every shell; `wiring` is the one place where they meet. `local` runs
//! several nodes as processes of one machine, for `up` and `demo`.

mod address;
pub mod audit;
mod blobs;
mod certificates;
mod clock;
pub mod config;
mod doors;
pub mod faults;
#[cfg(test)]
mod fuzzing;
mod hosted;
pub mod joining;
pub mod local;
pub mod logging;
mod observe;
mod otlp;
mod outbound;
mod outside;
pub mod pki;
pub mod ready;
pub mod serve;
pub mod steady;
mod traces;
mod wiring;

pub use config::{ConfigError, NodeConfig};
pub use hosted::HostedShards;
pub use wiring::{RunningNode, StartError};
