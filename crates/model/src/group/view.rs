//! DescribeGroups and ListGroups: what those see who are no members.

use serde::{Deserialize, Serialize};

use super::request::MemberIdentity;
use super::state::{Group, Phase};
use super::{GroupError, Opaque};

/// One line of a list of groups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupListing {
    /// What its members are; empty if it never had any.
    pub protocol_type: String,
    /// What it is doing: [`Phase::word`].
    pub state: String,
}

/// A group with its members.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupDescription {
    /// What its members are; empty if it never had any.
    pub protocol_type: String,
    /// What it is doing: [`Phase::word`].
    pub state: String,
    /// What it chose; empty unless it is stable.
    pub protocol: String,
    /// In the order in which they came.
    pub members: Vec<MemberDescription>,
}

/// A member as operators see it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberDescription {
    /// Who.
    pub member: MemberIdentity,
    /// `client.id`.
    pub client_id: String,
    /// Where it comes from.
    pub client_host: String,
    /// What it said for the protocol that was chosen; empty unless the group is stable.
    pub metadata: Opaque,
    /// What it does; empty unless the group is stable.
    pub assignment: Opaque,
}

impl Group {
    /// Its line in a list. An absent group has none.
    pub fn list(&self) -> Option<GroupListing> {
        let listing = || GroupListing {
            protocol_type: self.protocol_type.clone().unwrap_or_default(),
            state: self.phase.word().to_owned(),
        };
        (!self.is_absent()).then(listing)
    }

    /// The group with its members. `Err(GroupIdNotFound)` if it is absent; versions of DescribeGroups below 6 say `Dead`
    /// instead, without an error (KIP-1043).
    pub fn describe(&self) -> Result<GroupDescription, GroupError> {
        let listing = self.list().ok_or(GroupError::GroupIdNotFound)?;
        let protocol = match self.phase {
            Phase::Stable { .. } => self.protocol.as_deref(),
            _ => None,
        };
        let members = self.members.iter().map(|member| MemberDescription {
            member: member.identity(),
            client_id: member.client_id.clone(),
            client_host: member.client_host.clone(),
            metadata: protocol.map(|name| member.metadata(name)).unwrap_or_default(),
            assignment: protocol.map(|_| member.assignment.clone()).unwrap_or_default(),
        });
        Ok(GroupDescription {
            protocol_type: listing.protocol_type,
            state: listing.state,
            protocol: protocol.unwrap_or_default().to_owned(),
            members: members.collect(),
        })
    }
}
