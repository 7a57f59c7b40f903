//! One member: what it is, where it stands in the rebalance, and until when it is believed to live.
//!
//! What members choose together is here too. When they come and go is decided in `state`.

use serde::{Deserialize, Serialize};

use super::request::{JoinRequest, MemberIdentity, Protocol};
use super::text::json_bytes;
use super::{NEW_MEMBER_JOIN_TIMEOUT_MS, Opaque, REBALANCE_TIMEOUT_MS_MAX, REBALANCE_TIMEOUT_MS_MIN};

/// Where a member stands in the rebalance. The first three are of the join phase, the others of what follows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Standing {
    /// Of the last generation, and not of the next unless it joins.
    MustJoin,
    /// Has joined for the first time: no session told yet whether it lives.
    NewJoined,
    /// Has joined.
    Joined,
    /// Of this generation, and has not asked for its assignment.
    MustSync,
    /// Has asked for its assignment.
    Synced,
}

impl Standing {
    pub(super) fn has_joined(self) -> bool {
        matches!(self, Standing::NewJoined | Standing::Joined)
    }

    pub(super) fn is_of_join_phase(self) -> bool {
        self == Standing::MustJoin || self.has_joined()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Member {
    pub(super) id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) instance_id: Option<String>,
    /// The id that the static member had before. Whoever joins to be given it comes late.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) former_id: Option<String>,
    pub(super) client_id: String,
    pub(super) client_host: String,
    pub(super) session_timeout_ms: u32,
    rebalance_timeout_ms: u32,
    pub(super) protocols: Vec<Protocol>,
    #[serde(default, skip_serializing_if = "Opaque::is_empty")]
    pub(super) assignment: Opaque,
    pub(super) standing: Standing,
    /// When it is taken for dead, unless it waits for others.
    pub(super) deadline_ms: u64,
}

/// Bytes of a member's JSON without its texts and with its numbers at their longest.
const MEMBER_FRAME_BYTES: usize = 224;
/// Bytes of the JSON of an offered protocol without its texts.
const PROTOCOL_FRAME_BYTES: usize = 24;

impl Member {
    /// Who has just come in.
    pub(super) fn new(id: String, request: JoinRequest, now_ms: u64) -> Self {
        Self {
            id,
            instance_id: request.member.instance_id,
            former_id: None,
            client_id: request.client_id,
            client_host: request.client_host,
            session_timeout_ms: request.session_timeout_ms,
            rebalance_timeout_ms: bounded_ms(request.rebalance_timeout_ms),
            protocols: request.protocols,
            assignment: Opaque::default(),
            standing: Standing::NewJoined,
            deadline_ms: now_ms + NEW_MEMBER_JOIN_TIMEOUT_MS,
        }
    }

    /// What it says of itself when it joins again.
    pub(super) fn update(&mut self, request: JoinRequest, now_ms: u64) {
        self.protocols = request.protocols;
        self.session_timeout_ms = request.session_timeout_ms;
        self.rebalance_timeout_ms = bounded_ms(request.rebalance_timeout_ms);
        self.renew(now_ms);
    }

    pub(super) fn identity(&self) -> MemberIdentity {
        MemberIdentity {
            member_id: self.id.clone(),
            instance_id: self.instance_id.clone(),
        }
    }

    /// It was heard of. Never brings the deadline forward: a first join has a longer one than a session.
    pub(super) fn renew(&mut self, now_ms: u64) {
        self.deadline_ms = self.deadline_ms.max(now_ms + u64::from(self.session_timeout_ms));
    }

    /// A whole session from now, whatever it had.
    pub(super) fn restart_session(&mut self, now_ms: u64) {
        self.deadline_ms = now_ms + u64::from(self.session_timeout_ms);
    }

    /// Bytes of its JSON at the most, its assignment not counted.
    pub(super) fn bytes(&self) -> usize {
        let optional = |id: &Option<String>| id.as_ref().map_or(0, |id| json_bytes(id));
        let protocols = self.protocols.iter().map(|protocol| {
            PROTOCOL_FRAME_BYTES + json_bytes(&protocol.name) + protocol.metadata.text_bytes()
        });
        MEMBER_FRAME_BYTES
            + json_bytes(&self.id)
            + optional(&self.instance_id)
            + optional(&self.former_id)
            + json_bytes(&self.client_id)
            + json_bytes(&self.client_host)
            + protocols.sum::<usize>()
    }

    pub(super) fn offers(&self, name: &str) -> bool {
        self.protocols.iter().any(|protocol| protocol.name == name)
    }

    /// What it said for the protocol of that name.
    pub(super) fn metadata(&self, name: &str) -> Opaque {
        let offered = self.protocols.iter().find(|protocol| protocol.name == name);
        offered
            .map(|protocol| protocol.metadata.clone())
            .unwrap_or_default()
    }
}

/// A member that was given an id and has not joined with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) id: String,
    /// How long it is waited for.
    pub(super) until_ms: u64,
}

/// Bytes of the JSON of a [`Pending`] without its text and with its number at its longest.
const PENDING_FRAME_BYTES: usize = 44;

impl Pending {
    /// Bytes of its JSON at the most.
    pub(super) fn bytes(&self) -> usize {
        PENDING_FRAME_BYTES + json_bytes(&self.id)
    }
}

fn bounded_ms(rebalance_timeout_ms: u32) -> u32 {
    rebalance_timeout_ms.clamp(REBALANCE_TIMEOUT_MS_MIN, REBALANCE_TIMEOUT_MS_MAX)
}

/// How long a rebalance waits: as long as the slowest member may take.
pub(super) fn rebalance_timeout_ms(members: &[Member]) -> u64 {
    let slowest = members.iter().map(|member| member.rebalance_timeout_ms).max();
    u64::from(slowest.unwrap_or(REBALANCE_TIMEOUT_MS_MIN))
}

/// Chooses among the protocols that all members offer: each votes for the one that is dearest to it, most votes win, and
/// of two with as many the one that an earlier member wants. `None` if they have none in common.
pub(super) fn choose_protocol(members: &[Member]) -> Option<&str> {
    let names = members
        .first()?
        .protocols
        .iter()
        .map(|protocol| protocol.name.as_str());
    let common: Vec<&str> = names
        .filter(|name| members.iter().all(|member| member.offers(name)))
        .collect();
    let mut votes: Vec<(&str, usize)> = Vec::new();
    for member in members {
        let mut names = member.protocols.iter().map(|protocol| protocol.name.as_str());
        let name = names.find(|name| common.contains(name))?;
        match votes.iter_mut().find(|(other, _)| *other == name) {
            Some((_, count)) => *count += 1,
            None => votes.push((name, 1)),
        }
    }
    let most = votes.iter().map(|(_, count)| *count).max()?;
    let winner = votes.into_iter().find(|(_, count)| *count == most);
    winner.map(|(name, _)| name)
}

#[cfg(test)]
#[path = "member_tests.rs"]
mod tests;
