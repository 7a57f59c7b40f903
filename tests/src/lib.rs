//! What the tests in `tests/` stand on: the built program, free ports, devices that remember what they
//! were told, and the comparison of that with what a hub has.
//!
//! Everything here knocks at doors that anybody has; nothing looks inside a node. The tests wait on
//! conditions ([`eventually`]), never for a time to pass.

pub mod field;
pub mod forgetful;
pub mod hub;
pub mod journal_tail;
pub mod judge;
pub mod load;
pub mod ports;
pub mod program;
mod wait;

pub use wait::{Look, PATIENCE, eventually};
