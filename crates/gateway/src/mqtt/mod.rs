//! MQTT 3.1.1 and 5 towards devices, with IoT Hub's topics and names.
//!
//! [`session`] is the machine that decides; [`connection`] the thin shell that moves bytes between a
//! socket, the machine and the cluster. [`admit`] turns a CONNECT into a session; `provisioning` serves devices that
//! have none and register. [`wire`] is the
//! only room that names the codec's packets on this side.

pub(crate) mod admit;
pub(crate) mod calls;
pub(crate) mod connection;
pub(crate) mod courier;
pub(crate) mod damping;
pub(crate) mod deliveries;
pub(crate) mod mailbox;
pub(crate) mod provisioning;
mod records;
pub mod session;
mod socket;
mod strict;
pub(crate) mod told;
pub mod topic;
pub(crate) mod twin;
pub mod username;
mod will;
pub(crate) mod wire;

/// The protocol versions spoken here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// MQTT 3.1.1.
    V3,
    /// MQTT 5.
    V5,
}
