//! The state of replicas: ordered keys and values, durable at checkpoints.
//!
//! [`StateDb`] keeps it in fjall, one database per node; [`MemStore`] in memory with a durable and a
//! volatile layer, for power-cut tests and simulations, since fjall opens its own files. Both obey
//! [`ShardStore`](dunlin_model::port::ShardStore). Nothing here knows what keys mean.

pub(crate) mod db;
mod mem;
pub(crate) mod tail;
#[cfg(test)]
mod tests;

pub use db::StateDb;
pub use mem::{MemStore, StateCut};
