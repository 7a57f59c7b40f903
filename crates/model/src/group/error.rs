//! Why a group refuses, in Kafka's words and with Kafka's numbers.
//!
//! Only what this room says of itself. That a shard has no leader just now is the doors' to say: NOT_COORDINATOR (16) and
//! COORDINATOR_NOT_AVAILABLE (15) make clients look for the coordinator again.

use serde::{Deserialize, Serialize};

/// Why a group does not do what it was asked (Kafka protocol guide, error codes). No text of a client's is in it but an
/// id that the door drew itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum GroupError {
    /// The text with an offset is longer than [`OFFSET_METADATA_BYTES_MAX`](super::OFFSET_METADATA_BYTES_MAX).
    #[error("the metadata of the offset is too large")]
    OffsetMetadataTooLarge,
    /// The member speaks of a generation that is not the current one.
    #[error("the generation is not the current one")]
    IllegalGeneration,
    /// The member and the group have no protocol in common, or are of different types.
    #[error("the member's protocols do not suit the group")]
    InconsistentGroupProtocol,
    /// No text of 1 to [`GROUP_ID_BYTES_MAX`](super::GROUP_ID_BYTES_MAX) bytes.
    #[error("the group id is invalid")]
    InvalidGroupId,
    /// The group has no such member (any more): join without an id.
    #[error("the group has no such member")]
    UnknownMemberId,
    /// Not from [`SESSION_TIMEOUT_MS_MIN`](super::SESSION_TIMEOUT_MS_MIN) to
    /// [`SESSION_TIMEOUT_MS_MAX`](super::SESSION_TIMEOUT_MS_MAX).
    #[error("the session timeout is out of range")]
    InvalidSessionTimeout,
    /// A rebalance is under way: join again, with the same id.
    #[error("the group is rebalancing")]
    RebalanceInProgress,
    /// The group keeps no more offsets: [`OFFSETS_MAX`](super::OFFSETS_MAX) of them, or
    /// [`OFFSETS_BYTES_MAX`](super::OFFSETS_BYTES_MAX).
    #[error("the group has no room for the offset")]
    InvalidCommitOffsetSize,
    /// A text or a list breaks its bound.
    #[error("the request breaks a bound")]
    InvalidRequest,
    /// The group has members.
    #[error("the group is not empty")]
    NonEmptyGroup,
    /// There is no such group.
    #[error("there is no such group")]
    GroupIdNotFound,
    /// The first join of a member: it is to join again with this id (KIP-394).
    #[error("join again with the member id {member_id}")]
    MemberIdRequired {
        /// The id that the door drew.
        member_id: String,
    },
    /// The group has no room for the member: [`MEMBERS_MAX`](super::MEMBERS_MAX) of them, or
    /// [`MEMBERS_BYTES_MAX`](super::MEMBERS_BYTES_MAX).
    #[error("the group has no room for another member")]
    GroupMaxSizeReached,
    /// Another client has taken over the instance id (KIP-345). librdkafka takes it as fatal.
    #[error("another client has the instance id")]
    FencedInstanceId,
    /// Offsets stay while members may subscribe to their topic (KIP-496).
    #[error("the group is subscribed to the topic")]
    GroupSubscribedToTopic,
}

impl GroupError {
    /// Kafka's number for it.
    pub fn code(&self) -> i16 {
        match self {
            GroupError::OffsetMetadataTooLarge => 12,
            GroupError::IllegalGeneration => 22,
            GroupError::InconsistentGroupProtocol => 23,
            GroupError::InvalidGroupId => 24,
            GroupError::UnknownMemberId => 25,
            GroupError::InvalidSessionTimeout => 26,
            GroupError::RebalanceInProgress => 27,
            GroupError::InvalidCommitOffsetSize => 28,
            GroupError::InvalidRequest => 42,
            GroupError::NonEmptyGroup => 68,
            GroupError::GroupIdNotFound => 69,
            GroupError::MemberIdRequired { .. } => 79,
            GroupError::GroupMaxSizeReached => 81,
            GroupError::FencedInstanceId => 82,
            GroupError::GroupSubscribedToTopic => 86,
        }
    }
}
