//! What members ask of a group, and what they are answered: the words on both sides.
//!
//! Requests are commands and go through the log, so they count for [`bytes`](JoinRequest::bytes). They hold what Kafka's
//! requests of the same name hold, read off the wire and otherwise unchecked: checks are made by the operation, so that
//! all doors are alike.

use serde::{Deserialize, Serialize};

use super::text::{is_name, is_plain};
use super::{
    CLIENT_BYTES_MAX, COMMAND_BYTES_MAX, GroupError, INSTANCE_ID_BYTES_MAX, MEMBER_ID_BYTES_MAX, MEMBERS_MAX,
    METADATA_BYTES_MAX, OFFSET_METADATA_BYTES_MAX, OFFSETS_MAX, Opaque, PROTOCOL_BYTES_MAX, PROTOCOLS_MAX,
    SESSION_TIMEOUT_MS_MAX, SESSION_TIMEOUT_MS_MIN, TOPIC_BYTES_MAX,
};

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct MemberIdentity {
    /// The member's id; empty if it has none yet, or if an operator names an instance.
    pub member_id: String,
    /// `group.instance.id`, if it is a static member (KIP-345).
    pub instance_id: Option<String>,
}

/// A way to assign that a member knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Protocol {
    /// Its name, as `range`; 1 to [`PROTOCOL_BYTES_MAX`] bytes.
    pub name: String,
    /// What the member tells the leader if the group chooses it: its subscription.
    pub metadata: Opaque,
}

/// JoinGroup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinRequest {
    /// Who joins.
    pub member: MemberIdentity,
    /// The id to give to a member that has none: drawn anew for each request, and unique for ever, as `client-uuid`. 1 to
    /// [`MEMBER_ID_BYTES_MAX`] bytes.
    pub drawn_id: String,
    /// Whether a member that has no id is given one and must come again (KIP-394: version 4 and later).
    pub id_required: bool,
    /// `client.id`; [`CLIENT_BYTES_MAX`] bytes.
    pub client_id: String,
    /// Where it comes from; [`CLIENT_BYTES_MAX`] bytes.
    pub client_host: String,
    /// Silence after which the member is taken for dead.
    pub session_timeout_ms: u32,
    /// How long a rebalance waits for the member (KIP-62); version 0 has none and means the session timeout.
    pub rebalance_timeout_ms: u32,
    /// `consumer`, or what else the clients agreed on; 1 to [`PROTOCOL_BYTES_MAX`] bytes.
    pub protocol_type: String,
    /// What it can do, the dearest first; 1 to [`PROTOCOLS_MAX`], none twice.
    pub protocols: Vec<Protocol>,
}

impl JoinRequest {
    /// Bytes that it carries.
    pub fn bytes(&self) -> usize {
        let protocols = self.protocols.iter();
        let protocols = protocols.map(|protocol| protocol.name.len() + protocol.metadata.len());
        let instance = self.member.instance_id.as_ref().map_or(0, String::len);
        let ids = self.member.member_id.len() + instance + self.drawn_id.len();
        let client = self.client_id.len() + self.client_host.len();
        ids + client + self.protocol_type.len() + protocols.sum::<usize>()
    }

    pub(super) fn check(&self) -> Result<(), GroupError> {
        if !(SESSION_TIMEOUT_MS_MIN..=SESSION_TIMEOUT_MS_MAX).contains(&self.session_timeout_ms) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        if self.protocols.is_empty() || self.protocol_type.is_empty() {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        let names = self.protocols.iter().map(|protocol| protocol.name.as_str());
        let is_repeated =
            |(place, name): (usize, &str)| names.clone().skip(place + 1).any(|other| other == name);
        let metadata_bytes: usize = self
            .protocols
            .iter()
            .map(|protocol| protocol.metadata.len())
            .sum();
        let is_sound = is_plain(&self.member.member_id, MEMBER_ID_BYTES_MAX)
            && (!self.member.member_id.is_empty() || is_name(&self.drawn_id, MEMBER_ID_BYTES_MAX))
            && self
                .member
                .instance_id
                .as_ref()
                .is_none_or(|instance| is_name(instance, INSTANCE_ID_BYTES_MAX))
            && is_plain(&self.client_id, CLIENT_BYTES_MAX)
            && is_plain(&self.client_host, CLIENT_BYTES_MAX)
            && is_name(&self.protocol_type, PROTOCOL_BYTES_MAX)
            && self.protocols.len() <= PROTOCOLS_MAX
            && names.clone().all(|name| is_name(name, PROTOCOL_BYTES_MAX))
            && !names.clone().enumerate().any(is_repeated)
            && metadata_bytes <= METADATA_BYTES_MAX;
        if is_sound {
            Ok(())
        } else {
            Err(GroupError::InvalidRequest)
        }
    }
}

/// That a join is recorded, and by what its answer is known: see [`Group::join_result`](super::Group::join_result).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Joining {
    /// The member's id, also if the request had none.
    pub member_id: String,
    /// The first generation that answers the join.
    pub generation: i32,
}

/// The answer to a join.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinResult {
    /// The generation that the member is now of; at least the one that [`Joining`] named.
    pub generation: i32,
    /// The group's type (KIP-559: version 7 and later).
    pub protocol_type: String,
    /// What the group chose.
    pub protocol: String,
    /// Who assigns; empty if it does not matter, since the next rebalance has begun.
    pub leader: String,
    /// The member that asked.
    pub member_id: String,
    /// Everybody, if the member leads; otherwise nobody.
    pub members: Vec<JoinedMember>,
    /// The member leads, but the group has its assignment already: a static member has come back (KIP-814: version 9 and
    /// later). Earlier versions are sent an empty leader and no members instead, so that the client takes itself for a
    /// follower and syncs.
    pub skip_assignment: bool,
}

/// A member as the leader sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JoinedMember {
    /// Who.
    pub member: MemberIdentity,
    /// What it said for the protocol that was chosen.
    pub metadata: Opaque,
}

/// SyncGroup.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncRequest {
    /// Who.
    pub member: MemberIdentity,
    /// The generation that its join told it.
    pub generation: i32,
    /// What its join told it (KIP-559: version 5 and later).
    pub protocol_type: Option<String>,
    /// What its join told it (KIP-559: version 5 and later).
    pub protocol: Option<String>,
    /// From the leader, one for each member; from others, none.
    pub assignments: Vec<MemberAssignment>,
}

/// What the leader assigns to a member.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberAssignment {
    /// To whom.
    pub member_id: String,
    /// What.
    pub assignment: Opaque,
}

impl SyncRequest {
    /// Bytes that it carries.
    pub fn bytes(&self) -> usize {
        let assignments = self.assignments.iter();
        assignments
            .map(|one| one.member_id.len() + one.assignment.len())
            .sum()
    }

    pub(super) fn check(&self) -> Result<(), GroupError> {
        if self.assignments.len() <= MEMBERS_MAX && self.bytes() <= COMMAND_BYTES_MAX {
            Ok(())
        } else {
            Err(GroupError::InvalidRequest)
        }
    }
}

/// The answer to a sync.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncResult {
    /// The group's type (KIP-559: version 5 and later).
    pub protocol_type: String,
    /// What the group chose (KIP-559: version 5 and later).
    pub protocol: String,
    /// What the member is to do; empty if the leader left it out.
    pub assignment: Opaque,
}

/// OffsetCommit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommitRequest {
    /// Who; nobody, if it is no member but only keeps its offsets here.
    pub member: MemberIdentity,
    /// Its generation; -1 if it is no member.
    pub generation: i32,
    /// What is committed: 1 to [`OFFSETS_MAX`].
    pub offsets: Vec<OffsetCommit>,
}

/// How far a partition has been read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OffsetCommit {
    /// Of which topic; 1 to [`TOPIC_BYTES_MAX`] bytes.
    pub topic: String,
    /// Which.
    pub partition: i32,
    /// The next offset to read.
    pub offset: i64,
    /// Epoch of the partition's leader when it was read (KIP-320), if the client knows.
    pub leader_epoch: Option<i32>,
    /// What the client wants to find with it; [`OFFSET_METADATA_BYTES_MAX`] bytes.
    pub metadata: String,
}

/// Bytes of an offset without its texts: those of a thousand of them are no trifle.
const OFFSET_NUMBERS_BYTES: usize = 32;

impl CommitRequest {
    /// Bytes that it carries.
    pub fn bytes(&self) -> usize {
        let offsets = self.offsets.iter();
        offsets
            .map(|offset| OFFSET_NUMBERS_BYTES + offset.topic.len() + offset.metadata.len())
            .sum()
    }

    pub(super) fn check(&self) -> Result<(), GroupError> {
        let is_sound = |offset: &OffsetCommit| is_name(&offset.topic, TOPIC_BYTES_MAX);
        let is_bounded = self.offsets.len() <= OFFSETS_MAX && self.bytes() <= COMMAND_BYTES_MAX;
        if is_bounded && self.offsets.iter().all(is_sound) {
            Ok(())
        } else {
            Err(GroupError::InvalidRequest)
        }
    }
}

impl OffsetCommit {
    pub(super) fn is_metadata_too_large(&self) -> bool {
        self.metadata.len() > OFFSET_METADATA_BYTES_MAX
    }
}

/// A partition of a topic.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TopicPartition {
    /// Of which topic.
    pub topic: String,
    /// Which.
    pub partition: i32,
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
