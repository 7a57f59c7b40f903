//! Device actors and what keeps them running.
//!
//! What a device decides is in `dunlin_model::device`; [`actor`] is the shell around it, [`inbox`]
//! its bounded queue, [`bucket`] its supervisor, [`buckets`] the way from the shard actor to it. A
//! device that cannot be told something is never a reason for a session to live on: whoever drops
//! the notice ends the session at its gateway himself.

mod actor;
mod bucket;
pub(crate) mod buckets;
mod inbox;
