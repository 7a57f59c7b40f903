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
pub mod registering;
mod wait;

pub use wait::{Look, PATIENCE, eventually};

/// Says what is not tested here for want of something, on standard error itself: what is printed there goes past whoever
/// keeps a passing test's output to himself.
pub fn untested(what: impl std::fmt::Display) {
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "NOT TESTED: {what}");
}
