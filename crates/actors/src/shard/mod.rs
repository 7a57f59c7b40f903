//! The actors that make one shard run on its leader.
//!
//! [`supervisor`] keeps them running, [`actor`] is the leader's one hand on the log, and [`pump`]
//! decides what it proposes next.

pub(crate) mod actor;
mod pump;
pub(crate) mod supervisor;
