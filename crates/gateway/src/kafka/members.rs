//! Members of groups: JoinGroup, SyncGroup, Heartbeat, LeaveGroup.
//!
//! Decides how long a member's request waits here for the others, and how the answer looks in each version. What a group
//! does is decided behind [`Backend`](super::backend::Backend); nothing is kept here, so that a member may come to
//! another gateway for the next step.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::BoxFuture;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{
    HeartbeatRequest, HeartbeatResponse, JoinGroupRequest, JoinGroupResponse, LeaveGroupRequest,
    LeaveGroupResponse, SyncGroupRequest, SyncGroupResponse,
};
use kafka_protocol::protocol::StrBytes;
use tokio::time::{Instant, sleep, timeout};

use super::backend::{Join, JoinRefused, Joined, Leaver, Member, Syncing};
use super::code::Code;
use super::door::Door;
use super::groups::{check_group, timely};
use super::limits::{
    CLIENT_BYTES_MAX, GROUP_ANSWER_WAIT, GROUP_LOOK_PAUSE_MAX, GROUP_LOOK_PAUSE_MIN, GROUP_WAIT_GRACE,
    REBALANCE_WAIT_MAX,
};

/// Who sends a request, as operators will see it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sender<'a> {
    pub(super) client_id: &'a str,
    pub(super) peer: SocketAddr,
}

/// A member joins, and is told when all have.
pub(super) async fn join(
    door: &Door,
    request: JoinGroupRequest,
    version: i16,
    sender: Sender<'_>,
) -> JoinGroupResponse {
    let member = owned(&request.member_id);
    let refuse = |code: Code, member: String| {
        JoinGroupResponse::default()
            .with_error_code(code.0)
            .with_generation_id(-1)
            .with_protocol_name(Some(StrBytes::new()))
            .with_member_id(StrBytes::from_string(member))
    };
    if let Err(code) = check_group(&request.group_id) {
        return refuse(code, member);
    }
    let group = owned(&request.group_id);
    let session_ms = request.session_timeout_ms.max(0) as u32;
    // Version 0 knows one time alone.
    let rebalance_ms = if version >= 1 {
        request.rebalance_timeout_ms.max(0) as u32
    } else {
        session_ms
    };
    let protocols = request.protocols.into_iter();
    let join = Join {
        group: group.clone(),
        member: member.clone(),
        instance: request.group_instance_id.as_deref().map(str::to_owned),
        client_id: cut(sender.client_id, CLIENT_BYTES_MAX),
        client_host: sender.peer.ip().to_string(),
        session_ms,
        rebalance_ms,
        protocol_type: owned(&request.protocol_type),
        protocols: protocols
            .map(|protocol| (owned(&protocol.name), protocol.metadata))
            .collect(),
        is_id_needed: version >= 4,
    };
    let joining = match timeout(GROUP_ANSWER_WAIT, door.backend.join(join)).await {
        Ok(Ok(joining)) => joining,
        Ok(Err(JoinRefused { code, member })) => return refuse(code, member),
        Err(_) => return refuse(Code::COORDINATOR_NOT_AVAILABLE, member),
    };
    let wait = Duration::from_millis(rebalance_ms.into()).min(REBALANCE_WAIT_MAX) + GROUP_WAIT_GRACE;
    let look = || door.backend.join_result(&group, &joining);
    match await_group(wait, look).await {
        Ok(joined) => welcome(joined, version),
        Err(code) => refuse(code, joining.member.clone()),
    }
}

fn welcome(joined: Joined, version: i16) -> JoinGroupResponse {
    // A leader that need not share out is told so, or, where there is no word for it, that it is none.
    let is_leader_hidden = joined.is_assigned && version < 9;
    let (leader, members) = match is_leader_hidden {
        true => (String::new(), Vec::new()),
        false => (joined.leader, joined.members),
    };
    let members = members.into_iter().map(|member| {
        JoinGroupResponseMember::default()
            .with_member_id(StrBytes::from_string(member.member))
            .with_group_instance_id(member.instance.map(StrBytes::from_string))
            .with_metadata(member.metadata)
    });
    JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_type(Some(StrBytes::from_string(joined.protocol_type)))
        .with_protocol_name(Some(StrBytes::from_string(joined.protocol)))
        .with_leader(StrBytes::from_string(leader))
        .with_skip_assignment(joined.is_assigned && !is_leader_hidden)
        .with_member_id(StrBytes::from_string(joined.member))
        .with_members(members.collect())
}

/// A member asks for its share, and is told when the leader has brought it.
pub(super) async fn sync(door: &Door, request: SyncGroupRequest) -> SyncGroupResponse {
    let refuse = |code: Code| SyncGroupResponse::default().with_error_code(code.0);
    if let Err(code) = check_group(&request.group_id) {
        return refuse(code);
    }
    let member = Member {
        group: owned(&request.group_id),
        member: owned(&request.member_id),
        instance: request.group_instance_id.as_deref().map(str::to_owned),
        generation: request.generation_id,
    };
    let assignments = request.assignments.into_iter();
    let syncing = Syncing {
        member: member.clone(),
        protocol_type: request.protocol_type.as_deref().map(str::to_owned),
        protocol: request.protocol_name.as_deref().map(str::to_owned),
        assignments: assignments
            .map(|one| (owned(&one.member_id), one.assignment))
            .collect(),
    };
    if let Err(code) = timely(door.backend.sync(syncing)).await {
        return refuse(code);
    }
    let look = || door.backend.sync_result(&member);
    match await_group(REBALANCE_WAIT_MAX + GROUP_WAIT_GRACE, look).await {
        Err(code) => refuse(code),
        Ok(synced) => SyncGroupResponse::default()
            .with_protocol_type(Some(StrBytes::from_string(synced.protocol_type)))
            .with_protocol_name(Some(StrBytes::from_string(synced.protocol)))
            .with_assignment(synced.assignment),
    }
}

/// Looks at a group until there is what was waited for. A group that cannot be reached for a while is still waited
/// for; after `wait` the member is told to look for it anew.
async fn await_group<'a, T>(
    wait: Duration,
    look: impl Fn() -> BoxFuture<'a, Result<Option<T>, Code>>,
) -> Result<T, Code> {
    let until = Instant::now() + wait;
    let mut pause = GROUP_LOOK_PAUSE_MIN;
    while Instant::now() < until {
        match timely(look()).await {
            Ok(Some(found)) => return Ok(found),
            Ok(None) => {}
            Err(code) if code.is_passing() => {}
            Err(code) => return Err(code),
        }
        sleep(pause).await;
        pause = (2 * pause).min(GROUP_LOOK_PAUSE_MAX);
    }
    Err(Code::NOT_COORDINATOR)
}

/// A member is alive.
pub(super) async fn heartbeat(door: &Door, request: HeartbeatRequest) -> HeartbeatResponse {
    let member = Member {
        group: owned(&request.group_id),
        member: owned(&request.member_id),
        instance: request.group_instance_id.as_deref().map(str::to_owned),
        generation: request.generation_id,
    };
    let result = match check_group(&request.group_id) {
        Ok(()) => timely(door.backend.heartbeat(member)).await,
        Err(code) => Err(code),
    };
    HeartbeatResponse::default().with_error_code(result.err().unwrap_or(Code::NONE).0)
}

/// Members go: the sender, or from version 3 on those that are named.
pub(super) async fn leave(door: &Door, request: LeaveGroupRequest, version: i16) -> LeaveGroupResponse {
    let is_listed = version >= 3;
    let leavers: Vec<Leaver> = match is_listed {
        true => {
            let members = request.members.iter();
            let leaver = |member: &kafka_protocol::messages::leave_group_request::MemberIdentity| Leaver {
                member: owned(&member.member_id),
                instance: member.group_instance_id.as_deref().map(str::to_owned),
            };
            members.map(leaver).collect()
        }
        false => vec![Leaver {
            member: owned(&request.member_id),
            instance: None,
        }],
    };
    let result = match check_group(&request.group_id) {
        Ok(()) => timely(door.backend.leave(owned(&request.group_id), leavers)).await,
        Err(code) => Err(code),
    };
    let response = LeaveGroupResponse::default();
    match (result, is_listed) {
        (Err(code), _) => response.with_error_code(code.0),
        (Ok(codes), false) => response.with_error_code(codes.first().map_or(0, |code| code.0)),
        (Ok(codes), true) => {
            let members = request.members.into_iter().zip(codes).map(|(member, code)| {
                MemberResponse::default()
                    .with_member_id(member.member_id)
                    .with_group_instance_id(member.group_instance_id)
                    .with_error_code(code.0)
            });
            response.with_members(members.collect())
        }
    }
}

pub(super) fn owned(text: &str) -> String {
    text.to_owned()
}

/// As much of a text as `bytes_max` bytes hold, without what does not print.
pub(super) fn cut(text: &str, bytes_max: usize) -> String {
    let mut kept = String::new();
    for c in text.chars().filter(|c| !c.is_control()) {
        if kept.len() + c.len_utf8() > bytes_max {
            break;
        }
        kept.push(c);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("abc", 5), "abc");
        assert_eq!(cut("abc", 2), "ab");
        assert_eq!(cut("aé", 2), "a");
        assert_eq!(cut("a\0b", 2), "ab");
    }

    #[test]
    fn a_leader_that_need_not_share_out_is_told_so_in_words_that_it_knows() {
        let joined = Joined {
            generation: 3,
            protocol_type: "consumer".into(),
            protocol: "range".into(),
            leader: "a".into(),
            member: "a".into(),
            is_assigned: true,
            members: Vec::new(),
        };
        let (old, new) = (welcome(joined.clone(), 8), welcome(joined, 9));
        assert_eq!((old.leader.as_str(), old.skip_assignment), ("", false));
        assert_eq!((new.leader.as_str(), new.skip_assignment), ("a", true));
    }
}
