//! Durable bytes on one node: the shared journal, the event segments, the state of replicas.
//!
//! This crate decides how bytes lie on disk and when they may be called durable. It never decides
//! what the bytes mean: entries, votes and records pass through unread, and nothing here knows of
//! elections, devices or the network. Start at [`journal`] for the way of an acknowledged message,
//! then [`segment`] (events that consumers read), [`state`] (keys and values), [`spool`] (snapshots that
//! arrive) and [`data_dir`] (who owns the directory). All file access of the journal and the segments goes through
//! [`disk::Disk`], so that tests can cut the power.

pub mod data_dir;
pub mod disk;
#[cfg(any(test, fuzzing))]
pub mod fuzzing;
pub mod journal;
pub mod segment;
pub mod spool;
pub mod state;
