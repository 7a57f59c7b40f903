//! Load, faults and proof: what the hub promises, tried on real processes, and in simulation.
//!
//! [`fleet`] sends and keeps what it was told, [`oracle`] holds that history, [`hub`] and [`readback`]
//! ask the hub what it has, [`invariants`] compares the two, one file per promise, and [`verdict`]
//! says what came of it; [`page`] shows it. [`demo`] is the smallest whole run; [`scenario`] says what
//! else can be tried, [`faults`] does it to [`nodes`], and [`run`] leads through it and writes down what
//! happened.
//! [`relay`] is a network and [`chaosfs`] a disk that misbehave on demand, [`hostile`] clients that
//! do, [`corrupter`] damages the files of stopped nodes. [`load`] asks how fast the hub is. [`soak`] keeps a
//! ledger of all that was tried.
//!
//! Nothing here is linked into a node. All but [`sim`] look at a node from outside only: they knock at
//! the doors that everyone has, kill, stop and starve processes, and stand between them and the world.
//! [`sim`] runs the code of nodes in one thread instead, on time, network and disk of its own.

#![forbid(unsafe_code)]

pub mod chaosfs;
pub mod corrupter;
pub mod demo;
pub mod drill;
pub mod faults;
pub mod fleet;
pub mod hostile;
pub mod hub;
pub mod invariants;
pub mod load;
#[cfg(feature = "mutants")]
pub mod mutants;
pub mod namespaces;
pub mod nodes;
pub mod oracle;
pub mod page;
pub mod payload;
pub mod readback;
pub mod record;
pub mod registering;
pub mod relay;
pub mod run;
pub mod scenario;
pub mod sim;
pub mod soak;
pub mod stage;
pub mod verdict;
pub mod view;
pub mod waiting;
pub mod workload;
