//! The shards and devices of one node as supervised actors, with every queue bounded at the door.
//!
//! ```text
//! root ── shard supervisor (one per shard)
//!            ├── shard actor     only while this replica leads: batches in, answers out
//!            └── device buckets  sixteen per leadership, so that one crowd does not queue at one supervisor
//!                   └── device actors   one per active device
//! ```
//!
//! [`ActorHost`] is the whole public face: it serves gateways as [`ShardServer`] and listens to
//! consensus as [`AppliedSink`]. What a batch does is decided in `dunlin_model::shard`, what a device
//! wants in `dunlin_model::device`; this crate decides who runs, who waits and who is told. It opens
//! no file and no socket, reads no clock of its own, and is the only crate that names ractor.
//!
//! A telemetry message costs no actor message here: a frame costs one, an applied entry one. To
//! follow a frame read `serve`, `seats`, `shard::actor`, `applied`.
//!
//! [`ShardServer`]: dunlin_model::port::ShardServer
//! [`AppliedSink`]: dunlin_model::port::AppliedSink
#![forbid(unsafe_code)]

mod admission;
mod applied;
mod backoff;
mod config;
mod credit;
mod device;
mod host;
mod lease;
mod room;
mod root;
mod seats;
mod serve;
mod sessions;
mod shard;
mod stats;
mod tenure;

pub use config::{ActorFault, ConfigError, HostConfig};
pub use host::{ActorHost, HostError};
pub use stats::{HostStats, Quarantined, ShardStats};
