//! What nodes say to each other, as our own structs. openraft's types are converted at the border,
//! in `raft/convert`.

use std::collections::{BTreeMap, BTreeSet};

use dunlin_model::command::{Consistency, Query, ReadFrom, View};
use dunlin_model::directory::{Directory, DirectoryCommand, DirectoryRefusal, Role};
use dunlin_model::id::{GroupId, LogPosition, NodeId, ReplicaId, ShardId};
use dunlin_model::method::{Invocation, MethodAnswer, MethodError};
use dunlin_model::port::{Downlink, ReadError, SealedSegment, ServeError, StreamOpening};
use serde::{Deserialize, Serialize};

/// Raft's vote: who leads, or wants to, in which term.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct WireVote {
    pub(crate) term: u64,
    pub(crate) leader: u64,
    pub(crate) committed: bool,
}

/// A Raft membership: one set of voters, or two while it changes, and where each member lives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub(crate) struct WireMembership {
    pub(crate) configs: Vec<BTreeSet<u64>>,
    pub(crate) nodes: BTreeMap<u64, NodeId>,
}

/// Append entries without the entries, whose bodies follow as they are in the journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AppendHead {
    pub(crate) vote: WireVote,
    pub(crate) previous: Option<LogPosition>,
    pub(crate) commit: Option<LogPosition>,
    /// Position and body length of each entry.
    pub(crate) entries: Vec<(LogPosition, u32)>,
}

/// The answer to one append.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum AppendReply {
    /// Everything up to here is on disk.
    Matched(Option<LogPosition>),
    /// The log differs at the previous position.
    Conflict(LogPosition),
    /// A higher vote was seen.
    HigherVote(WireVote),
    /// The replica has failed or is not here.
    Gone,
}

/// A request for a vote, or for the promise of one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteAsk {
    pub(crate) vote: WireVote,
    pub(crate) last: Option<LogPosition>,
    pub(crate) transfer: bool,
}

/// The answer to [`VoteAsk`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct VoteAnswer {
    pub(crate) vote: WireVote,
    pub(crate) granted: bool,
    pub(crate) last: Option<LogPosition>,
}

/// What a node says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hello {
    pub(crate) node: NodeId,
    /// `host:port` where it is reached.
    pub(crate) address: String,
    pub(crate) roles: Vec<Role>,
    /// `host:port` where readers over Kafka reach it, if it takes any.
    pub(crate) kafka: Option<String>,
    /// Empty while it belongs to none.
    pub(crate) cluster_id: String,
    /// Rank of its copy of the directory.
    pub(crate) rank: (u64, u64),
    /// Others it knows of.
    pub(crate) peers: Vec<(NodeId, String)>,
}

/// What one node asks of another. Small ones go over the control connection, others over bulk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Request {
    Hello(Hello),
    /// Promise to form with these nodes and no others.
    Promise(Vec<NodeId>),
    /// Whether the receiver still wants the set that it asked a promise for.
    StandsBy(Vec<NodeId>),
    /// The cluster is laid out like this: begin.
    Form(Box<Directory>),
    Heartbeat {
        group: GroupId,
        to: ReplicaId,
        head: AppendHead,
    },
    Vote {
        group: GroupId,
        to: ReplicaId,
        ask: VoteAsk,
    },
    PreVote {
        group: GroupId,
        to: ReplicaId,
        ask: VoteAsk,
    },
    TransferLeader {
        group: GroupId,
        to: ReplicaId,
        from: WireVote,
        target: u64,
        last: Option<LogPosition>,
    },
    /// Who leads a group, as far as this node knows.
    Leader(GroupId),
    /// The sender, whose certificate names it, wants to be a node of the cluster with these roles.
    Join {
        roles: Vec<Role>,
    },
    /// The directory, if it is of a higher rank.
    Directory {
        known: (u64, u64),
    },
    /// Change the directory; its leader only.
    ChangeDirectory(DirectoryCommand),
    Query {
        shard: ShardId,
        query: Query,
        consistency: Consistency,
    },
    ReadEvents {
        shard: ShardId,
        from: ReadFrom,
        bytes_max: u64,
        wait_ms: u64,
    },
    /// Ask a device whose session the receiver holds.
    Invoke {
        invocation: Invocation,
        /// The receiver may have heard it before.
        again: bool,
    },
    /// Groups were restarted from what is left of them: this is the directory from now on.
    Adopt(Box<Directory>),
    /// Who the members of a group are, voters or not; its leader only, which proves that it leads.
    Members(GroupId),
    /// The sealed event segments of this node's replica of a group.
    Segments(GroupId),
    /// Bytes of one of them; they follow the response.
    SegmentPart {
        group: GroupId,
        first_offset: u64,
        position: u64,
    },
    /// What this node holds and leads.
    Status,
}

/// The answers to [`Request`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Response {
    Hello(Hello),
    Promised(bool),
    StandsBy(bool),
    Formed,
    Heartbeat(AppendReply),
    Vote(VoteAnswer),
    Transferred(bool),
    Leader(Option<(u64, NodeId)>),
    /// The copy, if it is newer than asked, and whether its confirmed leader answers.
    Directory {
        newer: Option<Box<Directory>>,
        confirmed: bool,
    },
    Changed(Result<Option<ReplicaId>, DirectoryRefusal>),
    Joined(Result<(), String>),
    Adopted,
    Members(BTreeSet<ReplicaId>),
    Segments(Vec<SealedSegment>),
    SegmentPart,
    View(Result<View, ReadError>),
    Events(Result<EventsHead, ReadError>),
    Invoked(Result<MethodAnswer, MethodError>),
    Status(Box<crate::admin::NodeStatus>),
    /// This node cannot answer: it does not lead, or has no such replica.
    NotHere {
        hint: Option<NodeId>,
    },
}

/// A page of events without the records, which follow one after the other.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct EventsHead {
    pub(crate) from: u64,
    pub(crate) first_offset: u64,
    pub(crate) next_offset: u64,
    pub(crate) runs: Vec<RunHead>,
}

/// One run without its records.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RunHead {
    pub(crate) index: u64,
    pub(crate) term: u64,
    pub(crate) time_ms: u64,
    pub(crate) first_offset: u64,
    pub(crate) count: u32,
    pub(crate) bytes: u32,
}

/// The first frame on a stream says what the stream is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum StreamHead {
    /// Requests and responses with numbers, many at a time.
    Calls,
    /// Append entries of a leader to one follower, answered in order.
    Append { group: GroupId, to: ReplicaId },
    /// Frames of a gateway to a shard; outcomes and downlinks come back.
    Submit { shard: ShardId, opening: StreamOpening },
    /// A full snapshot to one follower.
    Snapshot {
        group: GroupId,
        to: ReplicaId,
        vote: WireVote,
        head: SnapshotHead,
    },
}

/// What a snapshot contains.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotHead {
    pub(crate) last: Option<LogPosition>,
    pub(crate) membership: WireMembership,
    pub(crate) membership_at: Option<LogPosition>,
}

/// What a shard sends to a gateway, besides outcomes, which have their own layout.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum ShardNotice {
    Opened(Result<(), ServeError>),
    Lost { hint: Option<NodeId> },
    Downlink { term: u64, downlink: Downlink },
    StorageFull(bool),
}
