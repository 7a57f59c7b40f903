//! Words between the door and the consumer groups behind it: what members ask, and what they are told.
//!
//! Plain data, read off the wire and otherwise unchecked: the group checks it, so that all doors are alike. The questions
//! themselves are the last third of [`Backend`](super::backend::Backend).

use bytes::Bytes;
use dunlin_model::group::view::GroupDescription;

use super::code::Code;

/// Somebody who wants to be a member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Join {
    /// The group.
    pub group: String,
    /// Who it was before; empty for somebody new.
    pub member: String,
    /// The name of a static member.
    pub instance: Option<String>,
    /// What the client calls itself.
    pub client_id: String,
    /// Where it dialled from.
    pub client_host: String,
    /// Milliseconds of silence after which it is gone. Bounds are the group's to check.
    pub session_ms: u32,
    /// Milliseconds that it gives others to join.
    pub rebalance_ms: u32,
    /// `consumer`, as a rule.
    pub protocol_type: String,
    /// How it could share out, in the order of its preference, with what it says of itself.
    pub protocols: Vec<(String, Bytes)>,
    /// Whether somebody new is to be given an id first, and to come again with it ([`Code::MEMBER_ID_REQUIRED`]).
    pub is_id_needed: bool,
}

/// A join that was taken on and waits for the others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joining {
    /// The member's id, perhaps a new one.
    pub member: String,
    /// The name of a static member, as asked.
    pub instance: Option<String>,
    /// Tells this join of the member from its others; its meaning is the backend's.
    pub round: u64,
}

/// A join that was not taken on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRefused {
    /// Why.
    pub code: Code,
    /// The id to come again with, for [`Code::MEMBER_ID_REQUIRED`]; else as asked.
    pub member: String,
}

/// A join that came to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    /// The generation that begins.
    pub generation: i32,
    /// As all members have it.
    pub protocol_type: String,
    /// The protocol that was chosen.
    pub protocol: String,
    /// The member that shares out.
    pub leader: String,
    /// This member.
    pub member: String,
    /// For a leader that came back and need not share out again.
    pub is_assigned: bool,
    /// Everybody, for the leader; nobody, for others.
    pub members: Vec<JoinedMember>,
}

/// A member, as its leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedMember {
    /// Its id.
    pub member: String,
    /// The name of a static member.
    pub instance: Option<String>,
    /// What it said of itself in the protocol that was chosen.
    pub metadata: Bytes,
}

/// A member of a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// The group.
    pub group: String,
    /// The member's id; empty for a commit from outside the group.
    pub member: String,
    /// The name of a static member.
    pub instance: Option<String>,
    /// The generation it speaks of; negative for a commit from outside the group.
    pub generation: i32,
}

/// A member that asks for its share, or a leader that brings everybody's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Syncing {
    /// Who asks.
    pub member: Member,
    /// What it believes to be true of the group, where it says so.
    pub protocol_type: Option<String>,
    /// See [`Syncing::protocol_type`].
    pub protocol: Option<String>,
    /// Members and their shares, from a leader.
    pub assignments: Vec<(String, Bytes)>,
}

/// A member's share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synced {
    /// As all members have it.
    pub protocol_type: String,
    /// The protocol of the generation.
    pub protocol: String,
    /// The share, in the words of the protocol.
    pub assignment: Bytes,
}

/// A member that goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Leaver {
    /// Its id; may be empty for a static member.
    pub member: String,
    /// The name of a static member.
    pub instance: Option<String>,
}

/// An offset that a group has come to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    /// The partition.
    pub partition: u32,
    /// The offset that is read next.
    pub offset: u64,
    /// The life of the log that it belongs to, or -1 where the client did not say.
    pub log_epoch: i32,
    /// Whatever the client keeps with it.
    pub metadata: String,
}

/// A group as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Described {
    /// Kafka's word: `Empty`, `PreparingRebalance`, `CompletingRebalance`, `Stable`.
    pub state: String,
    /// As all members have it; empty in an empty group.
    pub protocol_type: String,
    /// The protocol of the generation; empty unless it is stable.
    pub protocol: String,
    /// Everybody.
    pub members: Vec<DescribedMember>,
}

impl From<GroupDescription> for Described {
    fn from(group: GroupDescription) -> Self {
        let members = group.members.into_iter().map(|it| DescribedMember {
            member: it.member.member_id,
            instance: it.member.instance_id,
            client_id: it.client_id,
            client_host: it.client_host,
            metadata: it.metadata.0,
            assignment: it.assignment.0,
        });
        Self {
            state: group.state,
            protocol_type: group.protocol_type,
            protocol: group.protocol,
            members: members.collect(),
        }
    }
}

/// A member as operators see it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescribedMember {
    /// Its id.
    pub member: String,
    /// The name of a static member.
    pub instance: Option<String>,
    /// What the client calls itself.
    pub client_id: String,
    /// Where it dialled from.
    pub client_host: String,
    /// What it said of itself.
    pub metadata: Bytes,
    /// Its share.
    pub assignment: Bytes,
}

/// A group in a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub group: String,
    /// As all members have it; empty in an empty group.
    pub protocol_type: String,
    /// See [`Described::state`].
    pub state: String,
}
