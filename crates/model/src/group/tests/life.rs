//! The usual lives of a group, from the first join to the last offset. The desk moves the coordinator before each step.

use super::super::{
    INITIAL_REBALANCE_DELAY_MS, MEMBERS_MAX, OFFSETS_RETENTION_MS, PENDING_MEMBER_TIMEOUT_MS, check_group_id,
};
use super::*;

const SESSION: u64 = SESSION_MS as u64;

fn leader_of(desk: &Desk, name: &str, generation: i32) -> (String, usize) {
    let result = desk
        .join_result(name, generation)
        .expect("an answer")
        .expect("a result");
    assert_eq!(result.generation, generation);
    (result.leader, result.members.len())
}

#[test]
fn one_consumer() {
    let mut desk = Desk::new();
    let named = Err(GroupError::MemberIdRequired {
        member_id: "a".into(),
    });
    assert_eq!(desk.join(first_request("a")), named);
    assert_eq!(desk.join(join_request("a")), Ok(1));
    assert_eq!(desk.join_result("a", 1), None);
    desk.wait(INITIAL_REBALANCE_DELAY_MS);
    assert_eq!(leader_of(&desk, "a", 1), ("a".into(), 1));
    assert_eq!(desk.sync("a", 1, &[("a", "0,1")]), Ok(()));
    assert_eq!(desk.assignment("a", 1), "0,1");
    for offset in 0..100 {
        desk.wait(3_000);
        assert_eq!(desk.heartbeat("a", 1), Ok(()));
        assert_eq!(desk.commit("a", 1, offset), Ok(()));
    }
    assert_eq!(desk.leave(&["a"]), [Ok(())]);
    assert_eq!(
        desk.group.committed("topic", 0).map(|offset| offset.offset),
        Some(99)
    );
    desk.wait(OFFSETS_RETENTION_MS);
    assert!(desk.group.is_absent());
}

#[test]
fn a_second_consumer_comes() {
    let mut desk = Desk::new();
    desk.join_all(&["a"]);
    desk.sync("a", 1, &[("a", "0,1")]).expect("it leads");
    desk.wait(3_000);
    assert_eq!(desk.come("b"), 2);
    assert_eq!(desk.commit("a", 1, 5), Ok(()));
    assert_eq!(desk.heartbeat("a", 1), Err(GroupError::RebalanceInProgress));
    assert_eq!(
        desk.commit("a", 1, 6),
        Ok(()),
        "what it had in hand when it was told"
    );
    assert_eq!(desk.join(join_request("a")), Ok(2));
    assert_eq!(leader_of(&desk, "a", 2), ("a".into(), 2));
    assert_eq!(leader_of(&desk, "b", 2), ("a".into(), 0));
    assert_eq!(desk.sync("b", 2, &[]), Ok(()));
    assert_eq!(desk.sync_result("b", 2), None);
    assert_eq!(desk.sync("a", 2, &[("a", "0"), ("b", "1")]), Ok(()));
    assert_eq!(
        (desk.assignment("a", 2), desk.assignment("b", 2)),
        ("0".into(), "1".into())
    );
    for _ in 0..20 {
        desk.wait(3_000);
        assert_eq!((desk.heartbeat("a", 2), desk.heartbeat("b", 2)), (Ok(()), Ok(())));
    }
    let described = desk.group.describe().expect("a group");
    assert_eq!(
        (described.state.as_str(), described.protocol.as_str()),
        ("Stable", "range")
    );
    let members: Vec<(&str, String)> = described
        .members
        .iter()
        .map(|member| (member.member.member_id.as_str(), text_of(&member.assignment)))
        .collect();
    assert_eq!(members, [("a", "0".to_owned()), ("b", "1".to_owned())]);
    assert_eq!(described.members[0].client_id, "rdkafka");
    assert_eq!(text_of(&described.members[0].metadata), "topic");
}

#[test]
fn one_of_two_dies() {
    let mut desk = Desk::stable(&["a", "b"]);
    let mut waited_ms = 0;
    let told = loop {
        desk.wait(3_000);
        waited_ms += 3_000;
        let answer = desk.heartbeat("b", 1);
        if answer.is_err() {
            break answer;
        }
    };
    assert_eq!((told, waited_ms), (Err(GroupError::RebalanceInProgress), 12_000));
    assert_eq!(desk.join(join_request("b")), Ok(2));
    assert_eq!(leader_of(&desk, "b", 2), ("b".into(), 1));
    assert_eq!(desk.sync("b", 2, &[("b", "0,1")]), Ok(()));
    assert_eq!(desk.assignment("b", 2), "0,1");
    // The dead was only slow. It begins again.
    assert_eq!(desk.commit("a", 1, 9), Err(GroupError::UnknownMemberId));
    assert_eq!(desk.heartbeat("a", 1), Err(GroupError::UnknownMemberId));
    assert_eq!(desk.join(join_request("a")), Err(GroupError::UnknownMemberId));
    assert_eq!(desk.come("a2"), 3);
}

#[test]
fn a_consumer_is_started_again_without_a_good_bye() {
    let mut desk = Desk::stable(&["a"]);
    desk.wait(2_000);
    assert_eq!(desk.come("a2"), 2);
    assert_eq!(
        desk.join_result("a2", 2),
        None,
        "the one before could still be there"
    );
    desk.wait(SESSION - 2_000);
    assert_eq!(leader_of(&desk, "a2", 2), ("a2".into(), 1));
    desk.sync_all(&["a2"]);
}

#[test]
fn a_static_consumer_is_started_again() {
    let mut desk = Desk::stable(&["i1/a", "i2/b"]);
    desk.sync_result("i1/a", 1).expect("an answer").expect("a result");
    desk.wait(SESSION / 2);
    assert_eq!(desk.heartbeat("i2/b", 1), Ok(()));
    assert_eq!(desk.join(first_request("i1/a2")), Ok(1));
    let result = desk
        .join_result("i1/a2", 1)
        .expect("an answer")
        .expect("a result");
    assert!(result.skip_assignment);
    assert_eq!(desk.sync("i1/a2", 1, &[("a2", "something else")]), Ok(()));
    assert_eq!(desk.assignment("i1/a2", 1), "all");
    desk.wait(SESSION / 2);
    assert_eq!(desk.heartbeat("i2/b", 1), Ok(()), "it noticed nothing");
    assert_eq!(desk.leave(&["i1/"]), [Ok(())], "an operator takes it out");
    assert_eq!(desk.heartbeat("i2/b", 1), Err(GroupError::RebalanceInProgress));
}

#[test]
fn all_die_in_a_rebalance() {
    let mut desk = Desk::stable(&["a", "b", "i1/c"]);
    assert!(desk.join(first_request("d")).is_err());
    desk.come("e");
    assert_eq!(desk.join(join_request("a")), Ok(2));
    desk.wait(PENDING_MEMBER_TIMEOUT_MS);
    assert_eq!(desk.member_ids(), ["a", "e"], "b and c are silent, d never came");
    assert_eq!(desk.word(), "CompletingRebalance");
    desk.wait(SESSION);
    assert!(desk.group.is_absent());
}

#[test]
fn many_are_started_at_once() {
    let names: Vec<String> = (0..MEMBERS_MAX).map(|n| format!("m-{n}")).collect();
    let mut desk = Desk::new();
    for name in &names {
        assert!(desk.join(first_request(name)).is_err());
    }
    for name in &names {
        assert_eq!(desk.join(join_request(name)), Ok(1));
    }
    desk.wait(INITIAL_REBALANCE_DELAY_MS);
    assert_eq!(leader_of(&desk, "m-0", 1), ("m-0".into(), MEMBERS_MAX));
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    desk.sync_all(&names);
}

#[test]
fn what_others_see() {
    assert_eq!(Desk::new().group.list(), None);
    assert_eq!(Desk::new().group.describe(), Err(GroupError::GroupIdNotFound));
    let mut desk = Desk::new();
    desk.join_all(&["a"]);
    let described = desk.group.describe().expect("a group");
    let member = &described.members[0];
    assert_eq!(
        (described.state.as_str(), described.protocol.as_str()),
        ("CompletingRebalance", "")
    );
    assert!(member.metadata.is_empty() && member.assignment.is_empty());
    let listing = desk.group.list().expect("a group");
    assert_eq!(
        (listing.protocol_type.as_str(), listing.state.as_str()),
        ("consumer", "CompletingRebalance")
    );
    let mut desk = Desk::new();
    desk.commit("", -1, 1).expect("it is empty");
    let listing = desk.group.list().expect("a group");
    assert_eq!(
        (listing.protocol_type.as_str(), listing.state.as_str()),
        ("", "Empty")
    );
    let invalid = Err(GroupError::InvalidGroupId);
    assert_eq!(
        (check_group_id("g"), check_group_id("")),
        (Ok(()), invalid.clone())
    );
    assert_eq!(check_group_id(&"g".repeat(257)), invalid);
}

#[test]
fn errors_have_kafka_s_numbers() {
    let named = GroupError::MemberIdRequired {
        member_id: "a".into(),
    };
    for (error, code, text) in [
        (
            GroupError::OffsetMetadataTooLarge,
            12,
            "the metadata of the offset is too large",
        ),
        (
            GroupError::IllegalGeneration,
            22,
            "the generation is not the current one",
        ),
        (
            GroupError::InconsistentGroupProtocol,
            23,
            "the member's protocols do not suit the group",
        ),
        (GroupError::InvalidGroupId, 24, "the group id is invalid"),
        (GroupError::UnknownMemberId, 25, "the group has no such member"),
        (
            GroupError::InvalidSessionTimeout,
            26,
            "the session timeout is out of range",
        ),
        (GroupError::RebalanceInProgress, 27, "the group is rebalancing"),
        (
            GroupError::InvalidCommitOffsetSize,
            28,
            "the group has no room for the offset",
        ),
        (GroupError::InvalidRequest, 42, "the request breaks a bound"),
        (GroupError::NonEmptyGroup, 68, "the group is not empty"),
        (GroupError::GroupIdNotFound, 69, "there is no such group"),
        (named, 79, "join again with the member id a"),
        (
            GroupError::GroupMaxSizeReached,
            81,
            "the group has no room for another member",
        ),
        (
            GroupError::FencedInstanceId,
            82,
            "another client has the instance id",
        ),
        (
            GroupError::GroupSubscribedToTopic,
            86,
            "the group is subscribed to the topic",
        ),
    ] {
        assert_eq!((error.code(), error.to_string().as_str()), (code, text));
    }
}
