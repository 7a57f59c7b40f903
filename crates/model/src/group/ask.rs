//! What is asked of a group as one command, or as one question, and what it says: the operations of [`Group`] as values
//! that travel.

use serde::{Deserialize, Serialize};

use super::offsets::Offsets;
use super::request::{
    CommitRequest, JoinRequest, JoinResult, Joining, MemberIdentity, SyncRequest, SyncResult, TopicPartition,
};
use super::view::{GroupDescription, GroupListing};
use super::{Group, GroupError};

/// An operation that goes through the log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupAsk {
    /// See [`Group::join`].
    Join(JoinRequest),
    /// See [`Group::sync`].
    Sync(SyncRequest),
    /// See [`Group::heartbeat`].
    Heartbeat {
        /// Who is alive.
        member: MemberIdentity,
        /// Of which generation it is.
        generation: i32,
    },
    /// See [`Group::leave`].
    Leave(Vec<MemberIdentity>),
    /// See [`Group::commit`].
    Commit(CommitRequest),
    /// See [`Group::delete_offsets`].
    DeleteOffsets(Vec<TopicPartition>),
    /// See [`Group::delete`].
    Delete,
    /// See [`Group::tick`]. Only the shard's leader says so.
    Tick,
    /// See [`Group::resume`]. Only the shard's leader says so, before anything else that it does.
    Resume,
}

/// What comes of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupAnswer {
    /// It is done.
    Done,
    /// The join is recorded.
    Joining(Joining),
    /// One end for each that was named, in order.
    Each(Vec<Result<(), GroupError>>),
}

impl GroupAsk {
    /// Bytes that it carries.
    pub fn bytes(&self) -> usize {
        match self {
            GroupAsk::Join(request) => request.bytes(),
            GroupAsk::Sync(request) => request.bytes(),
            GroupAsk::Commit(request) => request.bytes(),
            GroupAsk::Leave(members) => members
                .iter()
                .map(|member| member.member_id.len() + member.instance_id.as_ref().map_or(0, String::len))
                .sum(),
            GroupAsk::DeleteOffsets(partitions) => partitions.iter().map(|one| one.topic.len()).sum(),
            GroupAsk::Heartbeat { .. } | GroupAsk::Delete | GroupAsk::Tick | GroupAsk::Resume => 0,
        }
    }

    /// Does it.
    pub(crate) fn carry_out(&self, group: &mut Group, now_ms: u64) -> Result<GroupAnswer, GroupError> {
        let done = |()| GroupAnswer::Done;
        match self {
            GroupAsk::Join(request) => group.join(request.clone(), now_ms).map(GroupAnswer::Joining),
            GroupAsk::Sync(request) => group.sync(request, now_ms).map(done),
            GroupAsk::Heartbeat { member, generation } => {
                group.heartbeat(member, *generation, now_ms).map(done)
            }
            GroupAsk::Leave(members) => group.leave(members, now_ms).map(GroupAnswer::Each),
            GroupAsk::Commit(request) => group.commit(request, now_ms).map(GroupAnswer::Each),
            GroupAsk::DeleteOffsets(partitions) => {
                group.delete_offsets(partitions, now_ms).map(GroupAnswer::Each)
            }
            GroupAsk::Delete => group.delete(now_ms).map(done),
            GroupAsk::Tick => {
                group.tick(now_ms);
                Ok(GroupAnswer::Done)
            }
            GroupAsk::Resume => {
                group.resume(now_ms);
                Ok(GroupAnswer::Done)
            }
        }
    }
}

/// A question that changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupQuestion {
    /// See [`Group::join_result`].
    Joined {
        /// Who asks.
        member: MemberIdentity,
        /// What its join named.
        generation: i32,
    },
    /// See [`Group::sync_result`].
    Synced {
        /// Who asks.
        member: MemberIdentity,
        /// Of which generation it is.
        generation: i32,
    },
    /// See [`Group::is_heartbeat_fresh`].
    Fresh {
        /// Who asks.
        member: MemberIdentity,
        /// Of which generation it is.
        generation: i32,
        /// Now, milliseconds since 1970.
        now_ms: u64,
    },
    /// See [`Group::offsets`].
    Offsets,
    /// See [`Group::describe`].
    Description,
}

/// What a group says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum GroupSaid {
    /// To [`GroupQuestion::Joined`]; `None` as long as others are waited for.
    Joined(Option<Result<JoinResult, GroupError>>),
    /// To [`GroupQuestion::Synced`]; `None` as long as the leader has not assigned.
    Synced(Option<Result<SyncResult, GroupError>>),
    /// To [`GroupQuestion::Fresh`].
    Fresh(bool),
    /// To [`GroupQuestion::Offsets`].
    Offsets(Offsets),
    /// To [`GroupQuestion::Description`].
    Description(Result<GroupDescription, GroupError>),
}

impl GroupQuestion {
    pub(crate) fn answer(&self, group: &Group) -> GroupSaid {
        match self {
            GroupQuestion::Joined { member, generation } => {
                GroupSaid::Joined(group.join_result(member, *generation))
            }
            GroupQuestion::Synced { member, generation } => {
                GroupSaid::Synced(group.sync_result(member, *generation))
            }
            GroupQuestion::Fresh {
                member,
                generation,
                now_ms,
            } => GroupSaid::Fresh(group.is_heartbeat_fresh(member, *generation, *now_ms)),
            GroupQuestion::Offsets => GroupSaid::Offsets(group.offsets().clone()),
            GroupQuestion::Description => GroupSaid::Description(group.describe()),
        }
    }
}

/// A group in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupLine {
    /// Its id.
    pub id: String,
    /// What it is.
    pub listing: GroupListing,
}
