//! openraft, behind our own structs: the only folder that adapts it. Beside it [`crate::group`] runs a
//! replica and [`crate::serve`] hands it what peers send; nothing else names openraft.
//!
//! The log is the node's journal, the state machine is `model`'s apply over the replica's stores,
//! the network is `transport`. An upgrade of openraft is a change of these files alone.

pub(crate) mod body;
pub(crate) mod confirm;
#[cfg(test)]
mod conformance;
pub(crate) mod convert;
pub(crate) mod log_store;
pub(crate) mod machine;
pub(crate) mod network;
pub(crate) mod runtime;
pub(crate) mod seed;
pub(crate) mod snapshot;
pub(crate) mod state_machine;
pub(crate) mod word;

use std::fmt;

use bytes::Bytes;
use dunlin_model::directory::DirectoryRefusal;
use dunlin_model::id::{NodeId, ReplicaId};

/// An entry's body as it stands in the journal, tag included; encoded once, by the proposer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EntryBody(pub(crate) Bytes);

impl fmt::Display for EntryBody {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes", self.0.len())
    }
}

/// What applying an entry answers to its proposer. Ends of frames go to the shard instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Reply {
    /// Applied.
    Done,
    /// A change of the directory, with the replica id that it issued.
    Directory(Result<Option<ReplicaId>, DirectoryRefusal>),
}

/// Where a replica lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(pub(crate) NodeId);

// openraft's suite for stores makes memberships of nobody in particular.
#[cfg(test)]
impl Default for Place {
    fn default() -> Self {
        Self(NodeId(0))
    }
}

openraft::declare_raft_types!(
    /// Our types, as openraft wants them named.
    pub(crate) TypeConfig:
        D = EntryBody,
        R = Reply,
        NodeId = u64,
        Node = Place,
        AsyncRuntime = runtime::Runtime,
);

pub(crate) type Raft = openraft::Raft<TypeConfig, state_machine::StateMachine>;
pub(crate) type Entry = openraft::alias::EntryOf<TypeConfig>;
pub(crate) type LogId = openraft::alias::LogIdOf<TypeConfig>;
pub(crate) type Vote = openraft::alias::VoteOf<TypeConfig>;
pub(crate) type Membership = openraft::Membership<u64, Place>;
pub(crate) type StoredMembership = openraft::alias::StoredMembershipOf<TypeConfig>;
