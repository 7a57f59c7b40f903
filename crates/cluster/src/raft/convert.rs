//! Our structs to openraft's and back, one pair of functions per struct.

use std::collections::BTreeMap;

use dunlin_model::id::LogPosition;
use openraft::raft::{
    AppendEntriesRequest, StreamAppendError, StreamAppendResult, VoteRequest, VoteResponse,
};

use super::{LogId, Membership, Place, TypeConfig, Vote, body};
use crate::codec::CodecError;
use crate::messages::{AppendHead, AppendReply, VoteAnswer, VoteAsk, WireMembership, WireVote};

pub(crate) fn log_id(at: LogPosition) -> LogId {
    let leader = openraft::alias::LeaderIdOf::<TypeConfig> {
        term: at.term,
        node_id: at.leader,
    };
    LogId::new(leader, at.index)
}

pub(crate) fn position(id: &LogId) -> LogPosition {
    LogPosition {
        term: id.leader_id.term,
        leader: id.leader_id.node_id,
        index: id.index,
    }
}

pub(crate) fn position_of(id: Option<&LogId>) -> Option<LogPosition> {
    id.map(position)
}

pub(crate) fn vote_out(vote: &Vote) -> WireVote {
    WireVote {
        term: vote.leader_id.term,
        leader: vote.leader_id.node_id,
        committed: vote.committed,
    }
}

pub(crate) fn vote_in(vote: WireVote) -> Vote {
    if vote.committed {
        Vote::new_committed(vote.term, vote.leader)
    } else {
        Vote::new(vote.term, vote.leader)
    }
}

pub(crate) fn membership_out(membership: &Membership) -> WireMembership {
    WireMembership {
        configs: membership.get_joint_config().clone(),
        nodes: membership.nodes().map(|(id, place)| (*id, place.0)).collect(),
    }
}

pub(crate) fn membership_in(wire: &WireMembership) -> Membership {
    let nodes: BTreeMap<u64, Place> = wire.nodes.iter().map(|(id, node)| (*id, Place(*node))).collect();
    Membership::new(wire.configs.clone(), nodes).unwrap_or_default()
}

/// An append request as its head and the bodies that follow it.
pub(crate) fn append_out(request: &AppendEntriesRequest<TypeConfig>) -> (AppendHead, Vec<bytes::Bytes>) {
    let bodies: Vec<_> = request.entries.iter().map(body::to_bytes).collect();
    let entries = request
        .entries
        .iter()
        .zip(&bodies)
        .map(|(e, b)| (position(&e.log_id), b.len() as u32))
        .collect();
    let head = AppendHead {
        vote: vote_out(&request.vote),
        previous: position_of(request.prev_log_id.as_ref()),
        commit: position_of(request.leader_commit.as_ref()),
        entries,
    };
    (head, bodies)
}

/// The request of a head and its bodies, one after the other.
pub(crate) fn append_in(
    head: AppendHead,
    mut bodies: bytes::Bytes,
) -> Result<AppendEntriesRequest<TypeConfig>, CodecError> {
    let mut entries = Vec::with_capacity(head.entries.len());
    for (position, length) in head.entries {
        if bodies.len() < length as usize {
            return Err(CodecError::Trailing);
        }
        entries.push(body::from_bytes(position, bodies.split_to(length as usize))?);
    }
    Ok(AppendEntriesRequest {
        vote: vote_in(head.vote),
        prev_log_id: head.previous.map(log_id),
        entries,
        leader_commit: head.commit.map(log_id),
    })
}

pub(crate) fn reply_out(result: &StreamAppendResult<TypeConfig>) -> AppendReply {
    match result {
        Ok(matched) => AppendReply::Matched(position_of(matched.as_ref())),
        Err(StreamAppendError::Conflict(at)) => AppendReply::Conflict(position(at)),
        Err(StreamAppendError::HigherVote(vote)) => AppendReply::HigherVote(vote_out(vote)),
    }
}

/// `None` when the replica is not there.
pub(crate) fn reply_in(reply: AppendReply) -> Option<StreamAppendResult<TypeConfig>> {
    Some(match reply {
        AppendReply::Matched(at) => Ok(at.map(log_id)),
        AppendReply::Conflict(at) => Err(StreamAppendError::Conflict(log_id(at))),
        AppendReply::HigherVote(vote) => Err(StreamAppendError::HigherVote(vote_in(vote))),
        AppendReply::Gone => return None,
    })
}

pub(crate) fn ask_out(request: &VoteRequest<TypeConfig>) -> VoteAsk {
    VoteAsk {
        vote: vote_out(&request.vote),
        last: position_of(request.last_log_id.as_ref()),
        transfer: request.leadership_transfer,
    }
}

pub(crate) fn ask_in(ask: VoteAsk) -> VoteRequest<TypeConfig> {
    let mut request = VoteRequest::new(vote_in(ask.vote), ask.last.map(log_id));
    request.leadership_transfer = ask.transfer;
    request
}

pub(crate) fn answer_out(response: &VoteResponse<TypeConfig>) -> VoteAnswer {
    VoteAnswer {
        vote: vote_out(&response.vote),
        granted: response.vote_granted,
        last: position_of(response.last_log_id.as_ref()),
    }
}

pub(crate) fn answer_in(answer: VoteAnswer) -> VoteResponse<TypeConfig> {
    VoteResponse::new(vote_in(answer.vote), answer.last.map(log_id), answer.granted)
}
