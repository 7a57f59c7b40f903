//! Load, faults and proof: what the hub promises, tried on real processes.
//!
//! [`fleet`] sends and keeps what it was told, [`oracle`] holds that history, [`hub`] and [`readback`]
//! ask the hub what it has, [`invariants`] compares the two, one file per promise, and [`verdict`]
//! says what came of it; [`page`] shows it. [`demo`] is the smallest whole run. Nothing here is linked
//! into a node, and nothing here looks inside one: it knocks at the doors that everyone has, and kills
//! processes.
//! says what came of it. [`demo`] is the smallest whole run; [`relay`] is the network that it can be
//! run over. Nothing here is linked into a node, and
//! nothing here looks inside one: it knocks at the doors that everyone has, and kills processes.
//! says what came of it. [`demo`] is the smallest whole run. [`relay`] is a network and [`chaosfs`] a
//! disk that misbehave on demand. Nothing here is linked into a node, and nothing here looks inside
//! one: it knocks at the doors that everyone has, kills processes, and stands between them and the
//! world.

#![forbid(unsafe_code)]

pub mod chaosfs;
pub mod demo;
pub mod fleet;
pub mod hostile;
pub mod hub;
pub mod invariants;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod load;
pub mod oracle;
pub mod page;
pub mod payload;
pub mod readback;
pub mod sim;
pub mod relay;
pub mod verdict;
