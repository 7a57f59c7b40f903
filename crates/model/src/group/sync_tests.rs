//! Who is assigned what.

use super::super::COMMAND_BYTES_MAX;
use super::super::tests::{Desk, join_request, sync_request};
use super::*;

#[test]
fn followers_wait_for_the_leader() {
    let mut desk = Desk::new();
    desk.join_all(&["a", "b", "c"]);
    assert_eq!(
        desk.sync("b", 1, &[("b", "mine")]),
        Ok(()),
        "what followers bring is not looked at"
    );
    assert_eq!(desk.sync_result("b", 1), None);
    assert_eq!(desk.word(), "CompletingRebalance");
    let turn = desk.group.turn();
    let parts = [("b", "early"), ("a", "1"), ("b", "2"), ("x", "3")];
    assert_eq!(desk.sync("a", 1, &parts), Ok(()));
    assert_eq!(desk.word(), "Stable");
    assert_ne!(desk.group.turn(), turn, "whoever waits is to look");
    assert_eq!(
        (desk.assignment("a", 1), desk.assignment("b", 1)),
        ("1".into(), "2".into())
    );
    assert_eq!(desk.sync("c", 1, &[]), Ok(()));
    assert_eq!(desk.assignment("c", 1), "", "it was left out");
    let result = desk.sync_result("a", 1).expect("an answer").expect("a result");
    assert_eq!(
        (result.protocol_type.as_str(), result.protocol.as_str()),
        ("consumer", "range")
    );
}

#[test]
fn a_generation_is_assigned_once() {
    let mut desk = Desk::new();
    desk.join_all(&["a", "b"]);
    for _ in 0..2 {
        assert_eq!(desk.sync("b", 1, &[]), Ok(()));
    }
    for parts in [[("a", "1"), ("b", "2")], [("a", "3"), ("b", "4")]] {
        assert_eq!(desk.sync("a", 1, &parts), Ok(()));
        assert_eq!(
            (desk.assignment("a", 1), desk.assignment("b", 1)),
            ("1".into(), "2".into())
        );
    }
}

#[test]
fn only_members_of_the_generation_sync() {
    let mut desk = Desk::stable(&["a", "b"]);
    for generation in [-1, 0, 2] {
        assert_eq!(
            desk.sync("a", generation, &[]),
            Err(GroupError::IllegalGeneration)
        );
    }
    assert_eq!(desk.sync("x", 1, &[]), Err(GroupError::UnknownMemberId));
    assert_eq!(Desk::new().sync("a", 0, &[]), Err(GroupError::UnknownMemberId));
    assert_eq!(desk.join(join_request("a")), Ok(2));
    for name in ["a", "b"] {
        assert_eq!(desk.sync(name, 1, &[]), Err(GroupError::RebalanceInProgress));
    }
    assert_eq!(desk.sync_result("x", 1), Some(Err(GroupError::UnknownMemberId)));
    assert_eq!(desk.join(join_request("b")), Ok(2));
    assert_eq!(desk.sync("b", 1, &[]), Err(GroupError::IllegalGeneration));
    let past = Some(Err(GroupError::RebalanceInProgress));
    assert_eq!(desk.sync_result("b", 1), past, "the answer was not read in time");
}

#[test]
fn who_says_what_it_was_told_must_have_been_told_so() {
    let mut desk = Desk::new();
    desk.join_all(&["a"]);
    let mut sync = |protocol_type: Option<&str>, protocol: Option<&str>| {
        let mut request = sync_request("a", 1, &[]);
        request.protocol_type = protocol_type.map(str::to_owned);
        request.protocol = protocol.map(str::to_owned);
        desk.apply(|group, now_ms| group.sync(&request, now_ms))
    };
    let refused = Err(GroupError::InconsistentGroupProtocol);
    assert_eq!(sync(Some("connect"), None), refused);
    assert_eq!(sync(Some("consumer"), Some("roundrobin")), refused);
    assert_eq!(sync(Some("consumer"), Some("range")), Ok(()));
}

#[test]
fn an_assignment_that_is_too_large_is_none() {
    let mut desk = Desk::new();
    desk.join_all(&["a", "b"]);
    let half = "x".repeat(ASSIGNMENTS_BYTES_MAX / 8 * 3);
    let invalid = Err(GroupError::InvalidRequest);
    let more = format!("{half}xxx");
    assert_eq!(desk.sync("a", 1, &[("a", &half), ("b", &more)]), invalid);
    assert_eq!(
        desk.sync("a", 1, &[("x", &"x".repeat(COMMAND_BYTES_MAX))]),
        invalid
    );
    assert_eq!(desk.sync("a", 1, &vec![("x", ""); 257]), invalid);
    assert_eq!(
        (desk.word(), desk.sync_result("a", 1)),
        ("CompletingRebalance", None)
    );
    assert_eq!(
        desk.sync("a", 1, &[("a", &half), ("b", &half), ("x", &half)]),
        Ok(())
    );
    assert_eq!(desk.assignment("b", 1), half);
    let request = sync_request("a", 1, &[("abc", "12345")]);
    assert_eq!(request.bytes(), 8);
}
