//! Kafka for services: events of the hub as one topic, whose partitions are the shards, for unmodified consumers.
//!
//! [`connection`] is the socket, [`machine`] the protocol of one connection, [`call`] what passes of a request; [`api`]
//! says what is offered. Each family of requests has a room: [`topics`], [`fetch`], [`members`], [`offsets`], [`groups`],
//! [`produce`]. An event becomes a [`record`] in a [`batch`]. The hub is seen through [`backend`] alone.
//!
//! Nobody writes here. Nothing is kept that a restart would lose: groups live in the cluster, and readers remember where
//! they are.

pub(crate) mod api;
pub mod backend;
mod batch;
pub(crate) mod call;
mod code;
pub mod connection;
pub mod coordinator;
mod door;
#[cfg(test)]
mod fake;
mod fetch;
mod group;
mod groups;
mod hub;
pub mod limits;
pub(crate) mod machine;
mod members;
mod offsets;
mod outbox;
mod plain;
mod produce;
mod record;
mod serve;
mod shape;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod topics;

pub use door::Door;

use std::sync::Arc;

use crate::shared::Shared;

/// The door to this hub.
pub(crate) fn door(shared: &Arc<Shared>) -> Arc<Door> {
    let cluster_id = shared.client.directory().cluster_id.clone();
    let backend = Arc::new(hub::Hub::new(Arc::clone(shared)));
    let draining = shared.draining.clone();
    Arc::new(Door::new(backend, hub::TOPIC.to_owned(), cluster_id, draining))
}
