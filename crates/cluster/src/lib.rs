//! Consensus, transport and routing: what makes many nodes one hub.
//!
//! `raft/` adapts openraft to our journal, our state machines and our wire; `transport/` carries
//! frames between nodes over QUIC; `router` is the [`ShardClient`](dunlin_model::port::ShardClient)
//! that the doors see. Only this crate names openraft, quinn and bincode; none of their types
//! stands on a disk, on the wire, or in this crate's public face.

pub mod admin;
mod agreed_clock;
mod authorities;
mod blocking;
mod brokers;
mod changes;
mod codec;
pub mod config;
mod detector;
mod directory;
pub mod entropy;
mod erase;
mod forming;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
mod group;
mod invocations;
mod maintenance;
mod messages;
mod moves;
mod no_shards;
mod node;
mod policies;
mod promise;
mod purge;
mod raft;
pub mod recover;
mod remote;
mod repair;
mod replicas;
mod room;
mod router;
mod serve;
mod sight;
mod sweep;
pub mod transport;
mod witness;

pub use agreed_clock::AgreedClock;
pub use config::{ClusterConfig, Simulated, Timing, TimingError, TlsSources};
pub use node::{Cluster, Parts, ShardHost, ShardParts, StartError, Stores};
pub use sight::{ReplicaSight, read_vote};
pub use witness::{Witness, Word};
