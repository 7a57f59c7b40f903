//! Who commits, and what is kept.

use super::super::request::OffsetCommit;
use super::super::tests::{Desk, commit_of, first_request, join_request, who};
use super::super::{OFFSET_METADATA_BYTES_MAX, OFFSETS_BYTES_MAX, OFFSETS_RETENTION_MS};
use super::*;

fn commit(desk: &mut Desk, offsets: Vec<OffsetCommit>) -> Result<Vec<Result<(), GroupError>>, GroupError> {
    let request = CommitRequest {
        member: who(""),
        generation: -1,
        offsets,
    };
    desk.apply(|group, now_ms| group.commit(&request, now_ms))
}

fn partition(topic: &str, partition: i32) -> TopicPartition {
    TopicPartition {
        topic: topic.into(),
        partition,
    }
}

fn delete(desk: &mut Desk, partitions: &[TopicPartition]) -> Result<Vec<Result<(), GroupError>>, GroupError> {
    desk.apply(|group, now_ms| group.delete_offsets(partitions, now_ms))
}

#[test]
fn members_of_the_generation_commit() {
    let mut desk = Desk::stable(&["a", "b"]);
    assert_eq!(desk.commit("a", 1, 5), Ok(()));
    assert_eq!(desk.commit("a", 1, 5), Ok(()), "the answer was lost");
    assert_eq!(desk.commit("b", 1, 3), Ok(()), "offsets may fall");
    let offset = desk.group.committed("topic", 0).expect("an offset");
    assert_eq!((offset.offset, offset.commit_ms), (3, desk.now_ms));
    for generation in [-1, 0, 2] {
        assert_eq!(
            desk.commit("a", generation, 9),
            Err(GroupError::IllegalGeneration)
        );
    }
    let unknown = Err(GroupError::UnknownMemberId);
    assert_eq!(desk.commit("x", 1, 9), unknown);
    assert_eq!(desk.commit("", -1, 9), unknown, "the group is not empty");
    assert_eq!(desk.join(join_request("a")), Ok(2));
    for name in ["a", "b"] {
        assert_eq!(
            desk.commit(name, 1, 6),
            Ok(()),
            "before it joins again, it says how far it got"
        );
    }
    assert_eq!(desk.join(join_request("b")), Ok(2));
    assert_eq!(desk.commit("a", 2, 9), Err(GroupError::RebalanceInProgress));
    assert_eq!(desk.commit("a", 1, 9), Err(GroupError::IllegalGeneration));
    desk.sync_all(&["a", "b"]);
    assert_eq!(desk.commit("a", 1, 9), Err(GroupError::IllegalGeneration));
    assert_eq!(desk.commit("a", 2, 7), Ok(()));
}

#[test]
fn a_commit_is_a_heartbeat() {
    let mut desk = Desk::stable(&["a"]);
    let due_ms = desk.group.due_ms().expect("a session");
    desk.wait(5_000);
    assert_eq!(desk.commit("a", 1, 5), Ok(()));
    assert_eq!(desk.group.due_ms(), Some(due_ms + 5_000));
}

#[test]
fn whoever_is_no_member_commits_to_an_empty_group() {
    let mut desk = Desk::new();
    assert_eq!(desk.commit("", -1, 5), Ok(()));
    assert!(!desk.group.is_absent());
    assert_eq!(desk.commit("a", 0, 5), Err(GroupError::UnknownMemberId));
    let due_ms = desk.now_ms + OFFSETS_RETENTION_MS;
    assert_eq!(desk.group.due_ms(), Some(due_ms));
    assert!(desk.join(first_request("a")).is_err());
    assert_eq!(desk.commit("", -1, 6), Ok(()), "an id alone is no member");
    desk.join_all(&["a"]);
    assert_eq!(desk.commit("", -1, 7), Err(GroupError::UnknownMemberId));
    assert_eq!(
        desk.group.committed("topic", 0).map(|offset| offset.offset),
        Some(6)
    );
}

#[test]
fn offsets_are_forgotten_one_by_one() {
    let mut desk = Desk::new();
    for n in 0..3 {
        assert_eq!(commit(&mut desk, vec![commit_of("t", n, 1)]), Ok(vec![Ok(())]));
        desk.wait(1_000);
    }
    desk.wait(OFFSETS_RETENTION_MS - 2_000);
    let left: Vec<i32> = desk
        .group
        .offsets()
        .iter()
        .map(|(_, partition, _)| partition)
        .collect();
    assert_eq!(left, [2]);
    assert_eq!(commit(&mut desk, vec![commit_of("t", 2, 2)]), Ok(vec![Ok(())]));
    desk.wait(OFFSETS_RETENTION_MS - 1);
    assert_eq!(desk.group.offsets().len(), 1, "kept from its last commit on");
    desk.wait(1);
    assert!(desk.group.is_absent());
}

#[test]
fn offsets_of_members_are_kept_as_long_as_there_are_some() {
    let mut desk = Desk::stable(&["a"]);
    assert_eq!(desk.commit("a", 1, 5), Ok(()));
    for _ in 0..OFFSETS_RETENTION_MS / 9_000 / 100 {
        desk.now_ms += 9_000;
        assert_eq!(desk.heartbeat("a", 1), Ok(()));
    }
    desk.group.offsets.put_all(&[commit_of("topic", 0, 5)], 0);
    desk.now_ms += 9_000;
    assert_eq!(desk.heartbeat("a", 1), Ok(()));
    assert!(desk.group.committed("topic", 0).is_some());
}

#[test]
fn offsets_have_bounds() {
    let mut desk = Desk::new();
    let large = |partition, bytes| OffsetCommit {
        metadata: "x".repeat(bytes),
        ..commit_of("t", partition, 1)
    };
    let answers = commit(
        &mut desk,
        vec![large(0, OFFSET_METADATA_BYTES_MAX + 1), large(1, 1)],
    );
    assert_eq!(answers, Ok(vec![Err(GroupError::OffsetMetadataTooLarge), Ok(())]));
    for request in [
        vec![commit_of("", 0, 1)],
        vec![commit_of("a\nb", 0, 1)],
        vec![commit_of(&"t".repeat(250), 0, 1)],
        vec![commit_of("t", 0, 1); OFFSETS_MAX + 1],
        (0..33).map(|n| large(n, OFFSET_METADATA_BYTES_MAX)).collect(),
    ] {
        assert_eq!(commit(&mut desk, request), Err(GroupError::InvalidRequest));
    }
    let full = GroupError::InvalidCommitOffsetSize;
    let mut kept = 1;
    for n in 0..6 {
        let texts = (0..10)
            .map(|m| large(100 + n * 10 + m, OFFSET_METADATA_BYTES_MAX))
            .collect();
        let answers = commit(&mut desk, texts).expect("answers");
        kept += answers.iter().filter(|answer| answer.is_ok()).count();
    }
    assert_eq!(
        (kept, desk.group.offsets().len()),
        (39, 39),
        "{OFFSETS_BYTES_MAX} bytes"
    );
    assert_eq!(
        commit(&mut desk, vec![large(100, OFFSET_METADATA_BYTES_MAX)]),
        Ok(vec![Ok(())])
    );
    let mut desk = Desk::new();
    let all = (0..OFFSETS_MAX as i32)
        .map(|n| commit_of("t", n, i64::MAX))
        .collect();
    assert_eq!(commit(&mut desk, all), Ok(vec![Ok(()); OFFSETS_MAX]));
    assert_eq!(commit(&mut desk, vec![commit_of("u", 0, 1)]), Ok(vec![Err(full)]));
    assert_eq!(commit(&mut desk, vec![commit_of("t", 0, 1)]), Ok(vec![Ok(())]));
    let request = CommitRequest {
        member: who(""),
        generation: -1,
        offsets: vec![large(0, 7)],
    };
    assert_eq!(request.bytes(), 32 + 8);
}

#[test]
fn offsets_are_deleted_when_nobody_reads() {
    let absent = Err(GroupError::GroupIdNotFound);
    assert_eq!(delete(&mut Desk::new(), &[partition("topic", 0)]), absent);
    let mut desk = Desk::stable(&["a"]);
    assert_eq!(desk.commit("a", 1, 5), Ok(()));
    let subscribed = Err(GroupError::GroupSubscribedToTopic);
    assert_eq!(delete(&mut desk, &[partition("topic", 0)]), Ok(vec![subscribed]));
    desk.group.protocol_type = Some("connect".into());
    assert_eq!(
        delete(&mut desk, &[partition("topic", 0)]),
        Err(GroupError::NonEmptyGroup)
    );
    desk.leave(&["a"]);
    let both = [partition("topic", 0), partition("other", 0)];
    assert_eq!(delete(&mut desk, &both), Ok(vec![Ok(()), Ok(())]));
    assert!(desk.group.is_absent());
    let too_many = vec![partition("t", 0); OFFSETS_MAX + 1];
    assert_eq!(delete(&mut desk, &too_many), Err(GroupError::InvalidRequest));
}

#[test]
fn a_group_is_deleted_when_nobody_is_in_it() {
    let mut desk = Desk::stable(&["a"]);
    assert_eq!(desk.commit("a", 1, 5), Ok(()));
    assert_eq!(desk.apply(Group::delete), Err(GroupError::NonEmptyGroup));
    desk.leave(&["a"]);
    assert_eq!(desk.apply(Group::delete), Ok(()));
    assert!(desk.group.is_absent());
    assert_eq!(
        desk.apply(Group::delete),
        Err(GroupError::GroupIdNotFound),
        "the answer was lost"
    );
}
