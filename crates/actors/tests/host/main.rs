//! The host with its actors over a scripted consensus, and the machine that every replica applies.
//!
//! Time is tokio's paused clock: it moves when a test moves it, or when nobody has anything to do.

// A panic is how a test fails, in its helpers too.
#![allow(clippy::unwrap_used)]

mod devices;
mod frames;
mod groups;
mod leases;
mod messages;
mod provisioning;
mod reads;
mod state;
mod support;
mod twins;
mod uploads;
