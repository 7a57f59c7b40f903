//! Groups as a whole: FindCoordinator, DescribeGroups, ListGroups, DeleteGroups.
//!
//! Decides where clients of a group are sent, and what operators see. Any gateway can serve any group, so nobody is ever
//! told that he came to the wrong one.

use dunlin_model::group::check_group_id;
use futures_util::future::BoxFuture;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{
    DeleteGroupsRequest, DeleteGroupsResponse, DescribeGroupsRequest, DescribeGroupsResponse,
    FindCoordinatorRequest, FindCoordinatorResponse, GroupId, ListGroupsRequest, ListGroupsResponse,
};
use kafka_protocol::protocol::StrBytes;
use tokio::time::timeout;

use super::backend::{Broker, Described};
use super::code::Code;
use super::door::Door;
use super::limits::{GROUP_ANSWER_WAIT, GROUPS_MAX};
use super::members::owned;

/// Kind of a coordinator's key: a group. The others are for transactions and share groups, which there are none of.
const GROUP: i8 = 0;

/// Whether that can be the name of a group.
pub(super) fn check_group(group: &str) -> Result<(), Code> {
    check_group_id(group).map_err(|error| Code::from(&error))
}

/// An answer of a group, if it comes in time.
pub(super) async fn timely<T>(asked: BoxFuture<'_, Result<T, Code>>) -> Result<T, Code> {
    let answer = timeout(GROUP_ANSWER_WAIT, asked).await;
    answer.unwrap_or(Err(Code::COORDINATOR_NOT_AVAILABLE))
}

/// The broker for a group, or from version 4 on for several.
pub(super) fn find_coordinator(
    door: &Door,
    request: &FindCoordinatorRequest,
    version: i16,
) -> FindCoordinatorResponse {
    let brokers = door.backend.brokers();
    let find = |key: &StrBytes| -> Result<&Broker, Code> {
        if request.key_type != GROUP {
            return Err(Code::INVALID_REQUEST);
        }
        check_group(key)?;
        let node_id = door.backend.coordinator(key);
        let broker = brokers.iter().find(|broker| Some(broker.node_id) == node_id);
        broker.ok_or(Code::COORDINATOR_NOT_AVAILABLE)
    };
    let parts = |found: Result<&Broker, Code>| match found {
        Ok(broker) => {
            let host = StrBytes::from_string(broker.host.clone());
            (broker.node_id.into(), host, broker.port.into(), Code::NONE.0)
        }
        Err(code) => ((-1).into(), StrBytes::new(), -1, code.0),
    };
    if version < 4 {
        let (node_id, host, port, code) = parts(find(&request.key));
        return FindCoordinatorResponse::default()
            .with_error_code(code)
            .with_node_id(node_id)
            .with_host(host)
            .with_port(port);
    }
    let coordinators = request.coordinator_keys.iter().map(|key| {
        let (node_id, host, port, code) = parts(find(key));
        Coordinator::default()
            .with_key(key.clone())
            .with_error_code(code)
            .with_node_id(node_id)
            .with_host(host)
            .with_port(port)
    });
    FindCoordinatorResponse::default().with_coordinators(coordinators.collect())
}

/// Groups with their members.
pub(super) async fn describe(door: &Door, request: DescribeGroupsRequest) -> DescribeGroupsResponse {
    let mut groups = Vec::new();
    for (number, group) in request.groups.into_iter().enumerate() {
        let described = match check_group(&group) {
            Err(code) => Err(code),
            Ok(()) if number >= GROUPS_MAX => Err(Code::INVALID_REQUEST),
            Ok(()) => timely(door.backend.describe(owned(&group))).await,
        };
        let answer = DescribedGroup::default().with_group_id(group);
        groups.push(match described {
            // Version 6 has an error for it.
            Err(Code::GROUP_ID_NOT_FOUND) => answer.with_group_state(StrBytes::from_static_str("Dead")),
            Err(code) => answer.with_error_code(code.0),
            Ok(described) => show(answer, described),
        });
    }
    DescribeGroupsResponse::default().with_groups(groups)
}

fn show(answer: DescribedGroup, described: Described) -> DescribedGroup {
    let members = described.members.into_iter().map(|member| {
        DescribedGroupMember::default()
            .with_member_id(StrBytes::from_string(member.member))
            .with_group_instance_id(member.instance.map(StrBytes::from_string))
            .with_client_id(StrBytes::from_string(member.client_id))
            .with_client_host(StrBytes::from_string(member.client_host))
            .with_member_metadata(member.metadata)
            .with_member_assignment(member.assignment)
    });
    answer
        .with_group_state(StrBytes::from_string(described.state))
        .with_protocol_type(StrBytes::from_string(described.protocol_type))
        .with_protocol_data(StrBytes::from_string(described.protocol))
        .with_members(members.collect())
}

/// The groups that clients are sent to this gateway for, if they are in a state asked for: clients ask all brokers and
/// put the answers together.
pub(super) async fn list(door: &Door, request: ListGroupsRequest) -> ListGroupsResponse {
    let listed = match timely(door.backend.groups()).await {
        Ok(listed) => listed,
        Err(code) => return ListGroupsResponse::default().with_error_code(code.0),
    };
    let states = &request.states_filter;
    let is_asked =
        |state: &str| states.is_empty() || states.iter().any(|asked| asked.eq_ignore_ascii_case(state));
    let node_id = Some(door.backend.node_id());
    let is_ours = |group: &str| door.backend.coordinator(group) == node_id;
    let listed = listed
        .into_iter()
        .filter(|group| is_asked(&group.state) && is_ours(&group.group));
    let groups = listed.map(|group| {
        ListedGroup::default()
            .with_group_id(GroupId(StrBytes::from_string(group.group)))
            .with_protocol_type(StrBytes::from_string(group.protocol_type))
            .with_group_state(StrBytes::from_string(group.state))
    });
    ListGroupsResponse::default().with_groups(groups.collect())
}

/// Forgets groups without members.
pub(super) async fn delete(door: &Door, request: DeleteGroupsRequest) -> DeleteGroupsResponse {
    let mut results = Vec::new();
    for (number, group) in request.groups_names.into_iter().enumerate() {
        let result = match check_group(&group) {
            Err(code) => Err(code),
            Ok(()) if number >= GROUPS_MAX => Err(Code::INVALID_REQUEST),
            Ok(()) => timely(door.backend.delete(owned(&group))).await,
        };
        results.push(
            DeletableGroupResult::default()
                .with_group_id(group)
                .with_error_code(result.err().unwrap_or(Code::NONE).0),
        );
    }
    DeleteGroupsResponse::default().with_results(results)
}
