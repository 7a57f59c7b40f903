//! The nodes of a run, whatever they are: what can be done to one, and what is known of it.
//!
//! [`local`] has processes of this machine, [`containers`] has containers of a compose project. Each node
//! has a place, from 0; gateways that are nothing else come first. Decides nothing: when something is done
//! and to whom is in [`crate::run`], and what a fault is made of in [`crate::faults`].

pub mod compose;
pub mod containers;
pub mod docker;
pub mod local;
mod quota;

use std::path::{Path, PathBuf};
use std::time::Duration;

use dunlin_node::ready::ReadyNode;
use futures_util::FutureExt as _;
use futures_util::future::LocalBoxFuture;

/// Time for a node to end after SIGTERM.
const END_TIMEOUT: Duration = Duration::from_secs(30);

/// What sort of nodes a run has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    /// Processes of this machine.
    Processes,
    /// Containers.
    Containers,
}

/// What a node can be held to have less of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resource {
    /// Processor time: percent of one core.
    Cpu,
    /// Memory: bytes beyond what it has.
    Memory,
}

/// Why something was not done to a node.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NodeError {
    /// It is down, so there is nothing to do it to.
    #[error("node {} is down", .0 + 1)]
    Down(usize),
    /// It cannot be done to nodes of this sort.
    #[error("{0} is not carried by these nodes")]
    NotCarried(&'static str),
    /// It is not known what was done.
    #[error("{0}")]
    Unclear(String),
}

impl NodeError {
    /// A node was told to end, and did not within [`END_TIMEOUT`].
    fn late(place: usize) -> NodeError {
        let (node, wait_s) = (place + 1, END_TIMEOUT.as_secs());
        NodeError::Unclear(format!("node {node} did not end within {wait_s} s of SIGTERM"))
    }

    /// Not known, for this reason.
    pub fn unclear(reason: impl std::fmt::Display) -> NodeError {
        NodeError::Unclear(reason.to_string())
    }
}

/// How a node ended that was told to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// Whether it ended with exit code 0.
    pub is_clean: bool,
    /// For people.
    pub how: String,
}

/// Something that is done to a node and takes its time.
pub type Call<'a, T> = LocalBoxFuture<'a, Result<T, NodeError>>;

/// Ends when a node that was begun is ready, with what it says of itself. Whoever drops it does not wait;
/// the node starts all the same.
pub type Starting = Call<'static, ReadyNode>;

/// Nodes that can be taken down and started. Every wait is bounded.
pub trait Nodes {
    /// What sort they are.
    fn backend(&self) -> Backend;

    /// Places of nodes that there are or were.
    fn count(&self) -> usize;

    /// A node as it was when it was last ready.
    fn node(&self, place: usize) -> Option<ReadyNode>;

    /// Whether the node was not taken down.
    fn is_running(&self, place: usize) -> bool;

    /// The node's process, while it runs and where this machine can see it.
    fn pid(&self, place: usize) -> Option<u32>;

    /// Whether the node's process has ended though nobody asked for it.
    fn ended_by_itself(&self, place: usize) -> bool;

    /// Takes note of such an end: from here on the node is down.
    fn bury(&self, place: usize);

    /// Where this machine finds the node's data, if it does.
    fn data_dir(&self, place: usize) -> Option<PathBuf>;

    /// Where the node logs to.
    fn log_file(&self, place: usize) -> PathBuf;

    /// SIGKILL; over when the process is gone. Says what was done.
    fn kill(&self, place: usize) -> Call<'_, String>;

    /// SIGTERM; over when the process has ended. One that does not end in time is killed.
    fn terminate(&self, place: usize) -> Call<'_, Ended>;

    /// Starts a node that is down, or a new one in the place behind the last.
    fn begin_start(&self, place: usize) -> Call<'_, Starting>;

    /// Remembers what a node said when it was ready.
    fn set_ready(&self, place: usize, ready: ReadyNode);

    /// Has the node stand still. Says what was done.
    fn pause(&self, place: usize) -> Call<'_, String>;

    /// Over when the node stands still.
    fn wait_paused(&self, place: usize) -> Call<'_, ()>;

    /// Has the node go on; over when it does.
    fn resume(&self, place: usize) -> Call<'_, String>;

    /// Has no other node reach this one, nor it any of them. Says what was done.
    fn isolate(&self, _place: usize) -> Call<'_, String> {
        async { Err(NodeError::NotCarried("isolation")) }.boxed_local()
    }

    /// Undoes [`isolate`](Self::isolate), however far it got. Says what was done.
    fn rejoin(&self, _place: usize) -> Call<'_, String> {
        async { Err(NodeError::NotCarried("isolation")) }.boxed_local()
    }

    /// Holds the node to this much of a resource. Says what it has now.
    fn hold(&self, _place: usize, _resource: Resource, _amount: u64) -> Call<'_, String> {
        async { Err(NodeError::NotCarried("a limit")) }.boxed_local()
    }

    /// Undoes [`hold`](Self::hold).
    fn let_go(&self, _place: usize, _resource: Resource) -> Call<'_, ()> {
        async { Err(NodeError::NotCarried("a limit")) }.boxed_local()
    }

    /// How often the node, since it was started, has met what it is held to.
    fn times_met(&self, _place: usize, _resource: Resource) -> Option<u64> {
        None
    }

    /// Has all that the node has logged so far in its [`log_file`](Self::log_file).
    fn keep_log(&self, _place: usize) -> Call<'_, ()> {
        async { Ok(()) }.boxed_local()
    }

    /// Copies the files of the node's audit into a folder; `suffix` ends their names there.
    fn keep_audit<'a>(&'a self, place: usize, into: &'a Path, suffix: &'a str) -> Call<'a, ()>;
}
