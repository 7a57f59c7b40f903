//! Who stays, and who goes.

use super::super::INITIAL_REBALANCE_DELAY_MS;
use super::super::request::MemberIdentity;
use super::super::tests::{Desk, SESSION_MS, first_request, join_request, who};
use super::*;

const SESSION: u64 = SESSION_MS as u64;

#[test]
fn heartbeats_tell_where_the_group_is() {
    let unknown = Err(GroupError::UnknownMemberId);
    assert_eq!(Desk::new().heartbeat("a", 0), unknown);
    let mut desk = Desk::new();
    assert!(desk.join(first_request("a")).is_err());
    assert_eq!(desk.heartbeat("a", 0), unknown, "it has an id, but is no member");
    desk.join_all(&["a", "b"]);
    assert_eq!(
        desk.heartbeat("a", 1),
        Ok(()),
        "between the two answers clients heartbeat already"
    );
    desk.sync_all(&["a", "b"]);
    assert_eq!(desk.heartbeat("a", 1), Ok(()));
    for generation in [-1, 0, 2] {
        assert_eq!(
            desk.heartbeat("a", generation),
            Err(GroupError::IllegalGeneration)
        );
    }
    assert_eq!(desk.join(join_request("a")), Ok(2));
    for name in ["a", "b"] {
        assert_eq!(desk.heartbeat(name, 1), Err(GroupError::RebalanceInProgress));
    }
    assert_eq!(desk.heartbeat("c", 1), unknown);
}

#[test]
fn a_heartbeat_is_kept_only_when_a_third_of_the_session_is_over() {
    let mut desk = Desk::stable(&["a", "b"]);
    let fresh = |desk: &Desk, name: &str, generation| {
        desk.group.is_heartbeat_fresh(&who(name), generation, desk.now_ms)
    };
    assert!(fresh(&desk, "a", 1));
    assert!(!fresh(&desk, "a", 2) && !fresh(&desk, "x", 1));
    desk.wait(SESSION / 3);
    assert!(fresh(&desk, "a", 1));
    desk.wait(2);
    assert!(!fresh(&desk, "a", 1));
    assert_eq!(desk.heartbeat("a", 1), Ok(()));
    assert!(fresh(&desk, "a", 1) && !fresh(&desk, "b", 1));
    desk.now_ms += SESSION;
    assert!(!fresh(&desk, "a", 1));
    let mut desk = Desk::stable(&["a", "b"]);
    desk.now_ms += SESSION - 1;
    assert_eq!(desk.heartbeat("a", 1), Ok(()));
    desk.now_ms += 1;
    assert!(!fresh(&desk, "a", 1), "b's time is over, and a is to hear of it");
    assert_eq!(desk.heartbeat("a", 1), Err(GroupError::RebalanceInProgress));
    assert!(!fresh(&desk, "a", 1));
}

#[test]
fn who_leaves_makes_the_others_join_again() {
    for is_assigned in [true, false] {
        let mut desk = Desk::new();
        desk.join_all(&["a", "b"]);
        if is_assigned {
            desk.sync_all(&["a", "b"]);
        }
        assert_eq!(desk.leave(&["a"]), [Ok(())]);
        assert_eq!(
            (desk.word(), desk.member_ids()),
            ("PreparingRebalance", vec!["b"])
        );
        assert_eq!(desk.group.leader.as_deref(), Some("b"));
        assert_eq!(
            desk.leave(&["a"]),
            [Err(GroupError::UnknownMemberId)],
            "the answer was lost"
        );
        assert_eq!(desk.join(join_request("b")), Ok(2));
        assert_eq!(desk.word(), "CompletingRebalance");
    }
}

#[test]
fn who_leaves_in_a_rebalance_is_not_waited_for() {
    let mut desk = Desk::stable(&["a", "b"]);
    assert_eq!(desk.join(join_request("a")), Ok(2));
    assert_eq!(desk.leave(&["b"]), [Ok(())]);
    assert_eq!(
        (desk.word(), desk.member_ids()),
        ("CompletingRebalance", vec!["a"])
    );
    let mut desk = Desk::new();
    desk.come("a");
    desk.come("b");
    assert_eq!(desk.leave(&["a"]), [Ok(())]);
    assert_eq!(
        desk.word(),
        "PreparingRebalance",
        "the first one waits all the same"
    );
    desk.wait(INITIAL_REBALANCE_DELAY_MS);
    assert_eq!(
        (desk.word(), desk.group.leader.as_deref()),
        ("CompletingRebalance", Some("b"))
    );
}

#[test]
fn several_leave_at_once_and_each_is_answered() {
    let mut desk = Desk::stable(&["i1/a", "i2/b", "i3/c", "d"]);
    assert!(desk.join(first_request("p")).is_err());
    let unknown = Err(GroupError::UnknownMemberId);
    let answers = desk.leave(&["i1/", "i2/b", "i3/x", "i9/", "", "p", "d", "d", "i1/"]);
    let fenced = Err(GroupError::FencedInstanceId);
    assert_eq!(
        answers,
        [
            Ok(()),
            Ok(()),
            fenced,
            unknown.clone(),
            unknown.clone(),
            Ok(()),
            Ok(()),
            unknown.clone(),
            unknown
        ]
    );
    assert_eq!(desk.member_ids(), ["c"]);
    let too_many = vec![MemberIdentity::default(); MEMBERS_MAX + 1];
    let answer = desk.apply(|group, now_ms| group.leave(&too_many, now_ms));
    assert_eq!(answer, Err(GroupError::InvalidRequest));
}

#[test]
fn the_last_who_leaves_leaves_the_offsets() {
    let mut desk = Desk::stable(&["a"]);
    assert_eq!(desk.commit("a", 1, 7), Ok(()));
    assert_eq!(desk.leave(&["a"]), [Ok(())]);
    assert_eq!((desk.word(), desk.group.generation()), ("Empty", 2));
    assert_eq!(
        desk.group.committed("topic", 0).map(|offset| offset.offset),
        Some(7)
    );
    assert_eq!(desk.come("b"), 3);
    desk.wait(INITIAL_REBALANCE_DELAY_MS);
    desk.sync_all(&["b"]);
    assert_eq!(desk.commit("a", 1, 8), Err(GroupError::UnknownMemberId));
}
