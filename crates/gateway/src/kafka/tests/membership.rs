//! Members that join, share out, and go; and what operators see of it.

use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::*;

use super::*;

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn group(name: &str) -> GroupId {
    GroupId(text(name))
}

fn join(member: &str) -> JoinGroupRequest {
    let protocol = JoinGroupRequestProtocol::default()
        .with_name(text("range"))
        .with_metadata(Bytes::copy_from_slice(member.as_bytes()));
    JoinGroupRequest::default()
        .with_group_id(group("g"))
        .with_session_timeout_ms(10_000)
        .with_rebalance_timeout_ms(10_000)
        .with_member_id(text(member))
        .with_protocol_type(text("consumer"))
        .with_protocols(vec![protocol])
}

/// Joins, with the id that it is given on the way.
async fn join_twice(talk: &mut Talk) -> JoinGroupResponse {
    let first = talk.ask(7, join("")).await;
    assert_eq!(first.error_code, 79);
    talk.ask(7, join(&first.member_id)).await
}

fn sync(joined: &JoinGroupResponse) -> SyncGroupRequest {
    let shares = joined.members.iter().map(|member| {
        SyncGroupRequestAssignment::default()
            .with_member_id(member.member_id.clone())
            .with_assignment(Bytes::copy_from_slice(member.member_id.as_bytes()))
    });
    SyncGroupRequest::default()
        .with_group_id(group("g"))
        .with_generation_id(joined.generation_id)
        .with_member_id(joined.member_id.clone())
        .with_assignments(shares.collect())
}

#[tokio::test]
async fn two_members_meet_though_each_came_to_another_gateway() {
    let fake = hub(2, 3);
    let (mut one, mut two) = (Talk::known(&fake).await, Talk::to(&fake, 2));
    assert_eq!(two.sign_in(&Fake::connection_string()).await, Some(0));
    let (first, second) = tokio::join!(join_twice(&mut one), join_twice(&mut two));
    assert_eq!((first.error_code, second.error_code), (0, 0));
    assert_eq!(first.generation_id, second.generation_id);
    assert_eq!(first.leader, second.leader);
    let (leader, follower) = if first.members.is_empty() {
        (&second, &first)
    } else {
        (&first, &second)
    };
    assert_eq!((leader.members.len(), follower.members.len()), (2, 0));
    // The follower asks before the leader has spoken.
    let (a, b) = tokio::join!(one.ask(5, sync(&first)), two.ask(5, sync(&second)));
    assert_eq!(
        (a.error_code, a.assignment),
        (0, first.member_id.clone().into_bytes())
    );
    assert_eq!(
        (b.error_code, b.assignment),
        (0, second.member_id.clone().into_bytes())
    );
    let heartbeat = HeartbeatRequest::default()
        .with_group_id(group("g"))
        .with_generation_id(first.generation_id)
        .with_member_id(first.member_id.clone());
    assert_eq!(one.ask(4, heartbeat.clone()).await.error_code, 0);
    let leaver = MemberIdentity::default().with_member_id(second.member_id.clone());
    let leave = LeaveGroupRequest::default()
        .with_group_id(group("g"))
        .with_members(vec![leaver]);
    assert_eq!(two.ask(4, leave).await.members[0].error_code, 0);
    assert_eq!(one.ask(4, heartbeat).await.error_code, 27);
    let again = one.ask(7, join(&first.member_id)).await;
    assert_eq!(
        (again.error_code, again.generation_id),
        (0, first.generation_id + 1)
    );
}

#[tokio::test]
async fn what_is_wrong_with_a_member_is_told() {
    let mut talk = Talk::known(&hub(2, 3)).await;
    for (request, code) in [
        (join("").with_group_id(group("")), 24),
        (join("").with_group_id(group(&"g".repeat(257))), 24),
        (join("").with_session_timeout_ms(1), 26),
        (join("").with_session_timeout_ms(-1), 26),
        (join("").with_protocols(Vec::new()), 23),
        (join("nobody"), 25),
    ] {
        for version in [0, 6, 9] {
            assert_eq!(
                talk.ask(version, request.clone()).await.error_code,
                code,
                "{version}"
            );
        }
    }
    let nobody = JoinGroupResponse::default()
        .with_member_id(text("nobody"))
        .with_generation_id(1);
    assert_eq!(talk.ask(5, sync(&nobody)).await.error_code, 25);
    let heartbeat = HeartbeatRequest::default()
        .with_group_id(group("g"))
        .with_member_id(text("nobody"));
    assert_eq!(talk.ask(4, heartbeat).await.error_code, 25);
    let leave = LeaveGroupRequest::default()
        .with_group_id(group("g"))
        .with_member_id(text("nobody"));
    assert_eq!(talk.ask(2, leave).await.error_code, 25);
}

fn commit(partition: i32, offset: i64, metadata: usize) -> OffsetCommitRequest {
    let partition = offset_commit_request::OffsetCommitRequestPartition::default()
        .with_partition_index(partition)
        .with_committed_offset(offset)
        .with_committed_metadata(Some(text(&"m".repeat(metadata))));
    let topic = offset_commit_request::OffsetCommitRequestTopic::default()
        .with_name(TopicName(text(TOPIC)))
        .with_partitions(vec![partition]);
    OffsetCommitRequest::default()
        .with_group_id(group("g"))
        .with_generation_id_or_member_epoch(-1)
        .with_topics(vec![topic])
}

#[tokio::test]
async fn offsets_are_kept_and_found_again() {
    let mut talk = Talk::known(&hub(3, 3)).await;
    for (request, code) in [
        (commit(0, 7, 5), 0),
        (commit(1, 8, 0), 0),
        (commit(3, 7, 0), 3),
        (commit(-1, 7, 0), 3),
        (commit(0, -1, 0), 28),
        (commit(0, 1, 4097), 12),
        (commit(0, 1, 0).with_generation_id_or_member_epoch(1), 25),
    ] {
        let answer = talk.ask(8, request).await;
        assert_eq!(answer.topics[0].partitions[0].error_code, code);
    }
    let topic = offset_fetch_request::OffsetFetchRequestTopic::default()
        .with_name(TopicName(text(TOPIC)))
        .with_partition_indexes(vec![0, 2, 9]);
    let request = OffsetFetchRequest::default().with_group_id(group("g"));
    let answer = talk
        .ask(7, request.clone().with_topics(Some(vec![topic.clone()])))
        .await;
    let told = answer.topics[0].partitions.iter();
    let told: Vec<_> = told
        .map(|data| (data.partition_index, data.committed_offset, data.error_code))
        .collect();
    assert_eq!(told, [(0, 7, 0), (2, -1, 0), (9, -1, 0)]);
    assert_eq!(answer.topics[0].partitions[0].metadata.as_deref(), Some("mmmmm"));
    let all = talk.ask(7, request.clone().with_topics(None)).await;
    let told: Vec<_> = all.topics[0]
        .partitions
        .iter()
        .map(|data| data.committed_offset)
        .collect();
    assert_eq!(told, [7, 8]);
    let nobody = talk
        .ask(7, request.with_group_id(group("other")).with_topics(None))
        .await;
    assert_eq!((nobody.error_code, nobody.topics.len()), (0, 0));
}

#[tokio::test]
async fn each_group_is_listed_by_the_gateway_that_its_clients_are_sent_to() {
    let fake = hub(1, 1);
    let (mut one, mut two) = (Talk::known(&fake).await, Talk::to(&fake, 2));
    assert_eq!(two.sign_in(&Fake::connection_string()).await, Some(0));
    let mut counts = [0; 2];
    for number in 0..20 {
        let name = format!("g-{number}");
        assert_eq!(
            one.ask(8, commit(0, 1, 0).with_group_id(group(&name)))
                .await
                .topics[0]
                .partitions[0]
                .error_code,
            0
        );
        let found = two
            .ask(2, FindCoordinatorRequest::default().with_key(text(&name)))
            .await;
        counts[*found.node_id as usize - 1] += 1;
        assert_eq!(
            (found.host.as_str(), found.port),
            (format!("node-{}", *found.node_id).as_str(), 9093)
        );
    }
    assert!(counts.iter().all(|count| *count > 0));
    for (talk, count) in [(&mut one, counts[0]), (&mut two, counts[1])] {
        assert_eq!(
            talk.ask(4, ListGroupsRequest::default()).await.groups.len(),
            count
        );
        let states = ListGroupsRequest::default().with_states_filter(vec![text("stable")]);
        assert_eq!(talk.ask(4, states).await.groups.len(), 0);
    }
    let names = vec![group("g-0"), group("nobody"), group("")];
    let described = one
        .ask(5, DescribeGroupsRequest::default().with_groups(names.clone()))
        .await;
    let told = described
        .groups
        .iter()
        .map(|one| (one.error_code, one.group_state.as_str()));
    assert_eq!(told.collect::<Vec<_>>(), [(0, "Empty"), (0, "Dead"), (24, "")]);
    let deleted = one
        .ask(2, DeleteGroupsRequest::default().with_groups_names(names))
        .await;
    assert_eq!(
        deleted
            .results
            .iter()
            .map(|one| one.error_code)
            .collect::<Vec<_>>(),
        [0, 69, 24]
    );
}

#[tokio::test]
async fn only_groups_have_coordinators_and_only_while_somebody_lives() {
    let fake = hub(1, 1);
    let mut talk = Talk::known(&fake).await;
    let transaction = FindCoordinatorRequest::default()
        .with_key(text("t"))
        .with_key_type(1);
    assert_eq!(talk.ask(3, transaction).await.error_code, 42);
    fake.set_brokers(Vec::new());
    let request = FindCoordinatorRequest::default().with_coordinator_keys(vec![text("g"), text("")]);
    let answer = talk.ask(4, request).await;
    let codes: Vec<i16> = answer.coordinators.iter().map(|found| found.error_code).collect();
    assert_eq!(codes, [15, 24]);
}
