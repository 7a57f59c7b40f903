//! AMQP 1.0 for services: events as IoT Hub's built-in endpoint hands them out to clients of Event Hubs, and messages to
//! devices as its service SDKs send them.
//!
//! [`connection`] is the socket, [`machine`] the protocol, [`links`] what each link is for; [`node`] knows the addresses,
//! and each kind of node has a file: [`cbs`], [`management`], [`devicebound`],
//! [`feedback`], [`partition`]. Frames and values are written here and not
//! taken from a library: the ones there are let a stranger's first frame end the process by nesting lists.
//!
//! Devices have no AMQP here, and nothing is kept that a restart would lose.

pub(crate) mod cbs;
pub(crate) mod connection;
pub(crate) mod devicebound;
mod event;
mod feedback;
pub(crate) mod frame;
mod links;
pub(crate) mod machine;
pub(crate) mod management;
pub(crate) mod message;
pub(crate) mod node;
pub(crate) mod partition;
pub(crate) mod performative;
pub(crate) mod seats;
pub(crate) mod selector;
pub(crate) mod tokens;
pub(crate) mod value;
