//! Phases, and how time ends them.

use super::super::tests::{Desk, REBALANCE_MS, SESSION_MS, first_request, join_request};
use super::super::{NEW_MEMBER_JOIN_TIMEOUT_MS, OFFSETS_RETENTION_MS};
use super::*;

const SESSION: u64 = SESSION_MS as u64;
const REBALANCE: u64 = REBALANCE_MS as u64;

#[test]
fn an_absent_group_is_as_good_as_a_new_one() {
    let mut group = Group::default();
    assert!(group.is_absent());
    assert_eq!((group.due_ms(), group.generation(), group.turn()), (None, 0, 0));
    group.tick(1_000);
    group.resume(1_000);
    assert_eq!(group, Group::default());
    let mut desk = Desk::stable(&["a"]);
    desk.leave(&["a"]);
    assert!(
        desk.group.is_absent(),
        "nobody is left, and nothing was committed"
    );
}

#[test]
fn the_first_rebalance_waits_a_while_after_each_who_comes() {
    let mut desk = Desk::new();
    desk.come("a");
    for n in 0..INITIAL_REBALANCE_DELAY_MS_MAX / 900 {
        desk.wait(900);
        assert_eq!(desk.word(), "PreparingRebalance", "{n}");
        desk.come(&format!("b-{n}"));
    }
    assert_eq!(
        desk.group.due_ms(),
        Some(INITIAL_REBALANCE_DELAY_MS_MAX),
        "but not for ever"
    );
    desk.wait(INITIAL_REBALANCE_DELAY_MS);
    assert_eq!((desk.word(), desk.group.generation()), ("CompletingRebalance", 1));
    assert_eq!(desk.member_ids().len(), 12);
}

#[test]
fn the_first_rebalance_waits_no_longer_than_its_members_would() {
    let mut desk = Desk::new();
    for name in ["a", "b"] {
        desk.wait(900);
        let mut request = first_request(name);
        request.rebalance_timeout_ms = 1_500;
        request.id_required = false;
        desk.join(request).expect("a place");
    }
    assert_eq!(desk.group.due_ms(), Some(900 + 1_500));
}

#[test]
fn the_first_rebalance_does_not_wait_for_ids_that_were_given() {
    let mut desk = Desk::new();
    desk.come("a");
    assert!(desk.join(first_request("b")).is_err());
    desk.wait(INITIAL_REBALANCE_DELAY_MS);
    assert_eq!(desk.word(), "CompletingRebalance");
}

#[test]
fn a_silent_member_is_dropped_and_the_others_join_again() {
    let mut desk = Desk::stable(&["a", "b"]);
    desk.wait(SESSION - 1);
    assert_eq!(desk.heartbeat("b", 1), Ok(()));
    assert_eq!(desk.word(), "Stable");
    desk.wait(1);
    assert_eq!(
        (desk.word(), desk.member_ids()),
        ("PreparingRebalance", vec!["b"])
    );
    assert_eq!(
        desk.group.leader.as_deref(),
        Some("b"),
        "the leader was the silent one"
    );
    assert_eq!(desk.heartbeat("a", 1), Err(GroupError::UnknownMemberId));
    assert_eq!(desk.heartbeat("b", 1), Err(GroupError::RebalanceInProgress));
    assert_eq!(desk.join(join_request("b")), Ok(2), "nobody else is waited for");
    assert_eq!(desk.word(), "CompletingRebalance");
}

#[test]
fn who_does_not_join_again_in_time_is_dropped() {
    let mut desk = Desk::stable(&["a", "b"]);
    assert_eq!(
        desk.join(join_request("a")),
        Ok(2),
        "the leader wants another assignment"
    );
    for _ in 0..5 {
        desk.wait(REBALANCE / 6);
        let again = Err(GroupError::RebalanceInProgress);
        assert_eq!(desk.heartbeat("b", 1), again, "it lives, but does not join");
        assert_eq!(
            (desk.word(), desk.join_result("a", 2)),
            ("PreparingRebalance", None)
        );
    }
    desk.wait(REBALANCE / 6);
    assert_eq!(
        (desk.word(), desk.member_ids()),
        ("CompletingRebalance", vec!["a"])
    );
    assert_eq!(desk.heartbeat("b", 1), Err(GroupError::UnknownMemberId));
}

#[test]
fn a_leader_that_does_not_join_again_leads_no_more() {
    for leader in ["a", "i1/a"] {
        let mut desk = Desk::stable(&[leader, "b", "c"]);
        desk.leave(&["c"]);
        assert_eq!(desk.join(join_request("b")), Ok(2));
        for _ in 0..REBALANCE / 5_000 {
            assert_eq!(desk.heartbeat(leader, 1), Err(GroupError::RebalanceInProgress));
            desk.wait(5_000);
        }
        assert_eq!(
            (desk.word(), desk.group.leader.as_deref()),
            ("CompletingRebalance", Some("b"))
        );
        let count = if leader == "a" { 1 } else { 2 };
        assert_eq!(desk.member_ids().len(), count, "who is static stays");
    }
}

#[test]
fn who_goes_while_it_waits_is_told() {
    let mut desk = Desk::stable(&["a"]);
    desk.come("b");
    assert_eq!(desk.join_result("b", 2), None);
    let turn = desk.group.turn();
    assert_eq!(desk.leave(&["b"]), [Ok(())]);
    assert_ne!(desk.group.turn(), turn);
    assert_eq!(desk.join_result("b", 2), Some(Err(GroupError::UnknownMemberId)));
    assert_eq!(desk.word(), "PreparingRebalance");
}

#[test]
fn who_has_joined_is_not_taken_for_dead() {
    let mut desk = Desk::stable(&["a", "b"]);
    assert_eq!(desk.join(join_request("a")), Ok(2));
    for _ in 0..2 {
        desk.wait(SESSION - 1);
        assert_eq!(desk.heartbeat("b", 1), Err(GroupError::RebalanceInProgress));
    }
    assert_eq!(
        desk.member_ids(),
        ["a", "b"],
        "it waits, and has no reason to heartbeat"
    );
    assert_eq!(desk.join(join_request("b")), Ok(2));
    desk.wait(SESSION - 1);
    assert_eq!(desk.member_ids(), ["a", "b"], "and then has a whole session");
    desk.wait(1);
    assert!(desk.group.is_absent());
}

/// A stable group of `a` and `c`, of generation 2, whose rebalances would wait for an hour.
fn patient() -> Desk {
    let mut desk = Desk::stable(&["a", "c"]);
    let mut request = join_request("a");
    request.rebalance_timeout_ms = 3_600_000;
    assert_eq!(desk.join(request), Ok(2));
    assert_eq!(desk.join(join_request("c")), Ok(2));
    desk.sync_all(&["a", "c"]);
    desk
}

/// Time passes, and `a` and `c` see a rebalance that they do not join.
fn wait_in_rebalance(desk: &mut Desk, ms: u64) {
    for _ in 0..ms / 5_000 {
        desk.wait(5_000);
        for name in ["a", "c"] {
            assert_eq!(desk.heartbeat(name, 2), Err(GroupError::RebalanceInProgress));
        }
    }
}

#[test]
fn a_first_join_is_not_waited_for_without_end() {
    let mut desk = patient();
    desk.come("b");
    wait_in_rebalance(&mut desk, NEW_MEMBER_JOIN_TIMEOUT_MS - 5_000);
    assert_eq!(desk.member_ids(), ["a", "c", "b"]);
    desk.wait(5_000);
    assert_eq!(desk.member_ids(), ["a", "c"], "it never asked again");
}

#[test]
fn a_first_join_that_asks_again_waits_on() {
    let mut desk = patient();
    desk.come("b");
    for _ in 0..3 {
        wait_in_rebalance(&mut desk, NEW_MEMBER_JOIN_TIMEOUT_MS - 5_000);
        assert_eq!(desk.join(join_request("b")), Ok(3));
    }
    assert_eq!(desk.member_ids(), ["a", "c", "b"]);
}

#[test]
fn who_does_not_sync_in_time_is_dropped() {
    let mut desk = Desk::new();
    desk.join_all(&["a", "b", "c"]);
    let ended_ms = desk.now_ms + REBALANCE;
    assert_eq!(desk.sync("a", 1, &[("a", "all")]), Ok(()));
    assert_eq!(desk.sync("b", 1, &[]), Ok(()));
    while desk.now_ms + 5_000 < ended_ms {
        desk.wait(5_000);
        for name in ["a", "b", "c"] {
            assert_eq!(desk.heartbeat(name, 1), Ok(()), "{name} lives");
        }
    }
    assert_eq!((desk.word(), desk.group.due_ms()), ("Stable", Some(ended_ms)));
    desk.wait(5_000);
    assert_eq!(
        (desk.word(), desk.member_ids()),
        ("PreparingRebalance", vec!["a", "b"])
    );
}

#[test]
fn a_group_whose_members_have_all_synced_waits_for_sessions_only() {
    let mut desk = Desk::stable(&["a", "b"]);
    let end_ms = desk.now_ms + 3 * REBALANCE;
    while desk.now_ms < end_ms {
        desk.wait(SESSION / 2);
        assert_eq!((desk.heartbeat("a", 1), desk.heartbeat("b", 1)), (Ok(()), Ok(())));
        assert_eq!(desk.group.due_ms(), Some(desk.now_ms + SESSION));
    }
    assert_eq!(desk.word(), "Stable");
}

#[test]
fn a_leader_that_is_silent_does_not_take_those_along_who_wait_for_it() {
    let mut desk = Desk::new();
    desk.join_all(&["a", "b", "c"]);
    assert_eq!(desk.sync("b", 1, &[]), Ok(()));
    desk.wait(SESSION / 2);
    assert_eq!(desk.heartbeat("c", 1), Ok(()));
    desk.wait(SESSION / 2);
    assert_eq!(
        (desk.word(), desk.member_ids()),
        ("PreparingRebalance", vec!["b", "c"])
    );
    let told = Some(Err(GroupError::RebalanceInProgress));
    assert_eq!(desk.sync_result("b", 1), told);
    desk.wait(SESSION - 1);
    assert_eq!(desk.member_ids(), ["b"], "it has a session from when it was told");
}

#[test]
fn who_waited_for_its_assignment_has_a_whole_session_from_then_on() {
    let mut desk = Desk::new();
    desk.join_all(&["a", "b"]);
    assert_eq!(desk.sync("b", 1, &[]), Ok(()));
    for _ in 0..2 {
        desk.wait(SESSION - 1);
        assert_eq!(desk.heartbeat("a", 1), Ok(()));
    }
    assert_eq!(desk.sync("a", 1, &[("a", "all")]), Ok(()));
    assert_eq!(
        (desk.word(), desk.group.due_ms()),
        ("Stable", Some(desk.now_ms + SESSION))
    );
}

#[test]
fn static_members_stay_until_their_session_is_over() {
    let mut desk = Desk::stable(&["i1/a", "i2/b"]);
    assert_eq!(desk.join(join_request("i1/a")), Ok(2));
    for _ in 0..4 {
        desk.wait(SESSION - 1);
        let _ = desk.heartbeat("i2/b", desk.group.generation());
    }
    assert_eq!((desk.word(), desk.group.generation()), ("CompletingRebalance", 2));
    assert_eq!(desk.member_ids(), ["a", "b"], "b has not joined, but lives");
}

#[test]
fn a_rebalance_that_nobody_joins_waits_on_for_static_members() {
    let mut desk = Desk::stable(&["i1/a", "i2/b", "c"]);
    desk.leave(&["c"]);
    for _ in 0..7 {
        desk.wait(SESSION / 2);
        for name in ["i1/a", "i2/b"] {
            assert_eq!(desk.heartbeat(name, 1), Err(GroupError::RebalanceInProgress));
        }
    }
    assert_eq!(
        (desk.word(), desk.member_ids()),
        ("PreparingRebalance", vec!["a", "b"])
    );
    assert_eq!(desk.group.generation(), 1);
    assert_eq!(desk.join(join_request("i2/b")), Ok(2));
    let mut both = desk.clone();
    assert_eq!(both.join(join_request("i1/a")), Ok(2));
    assert_eq!(
        (both.word(), both.group.leader.as_deref()),
        ("CompletingRebalance", Some("a"))
    );
    desk.wait(SESSION);
    assert_eq!(
        (desk.word(), desk.group.leader.as_deref()),
        ("CompletingRebalance", Some("b"))
    );
}

#[test]
fn time_that_comes_late_begins_nothing_in_the_past() {
    let mut desk = Desk::stable(&["a", "b"]);
    desk.heartbeat("b", 1).expect("it lives");
    desk.wait(SESSION / 2);
    desk.heartbeat("b", 1).expect("it lives");
    // Both what a's silence begins, and its end, would lie before this.
    desk.now_ms += SESSION / 2;
    desk.apply(Group::tick);
    let until_ms = desk.now_ms + REBALANCE;
    assert_eq!(
        desk.group.phase(),
        Phase::PreparingRebalance {
            until_ms,
            first_since_ms: None
        }
    );
    desk.now_ms += 1_000_000;
    desk.apply(Group::tick);
    assert!(desk.group.is_absent());
}

#[test]
fn a_shard_that_could_not_listen_forgives_silence() {
    let mut desk = Desk::stable(&["a", "b"]);
    desk.now_ms += 100 * SESSION;
    let late = desk.now_ms;
    desk.apply(Group::resume);
    assert_eq!(desk.group.due_ms(), Some(late + SESSION));
    let before = desk.group.clone();
    desk.apply(Group::resume);
    assert_eq!(desk.group, before, "twice is once");
    assert_eq!((desk.heartbeat("a", 1), desk.heartbeat("b", 1)), (Ok(()), Ok(())));
    assert_eq!(desk.join(join_request("a")), Ok(2));
    assert!(desk.join(first_request("c")).is_err());
    desk.now_ms += 100 * SESSION;
    desk.apply(Group::resume);
    assert_eq!(
        (desk.word(), desk.member_ids()),
        ("PreparingRebalance", vec!["a", "b"])
    );
    assert_eq!(desk.join(join_request("b")), Ok(2));
    assert_eq!(desk.join(join_request("c")), Ok(2), "its id is still good");
    assert_eq!(desk.sync("a", 2, &[("a", "all")]), Ok(()));
    desk.now_ms += 100 * SESSION;
    desk.apply(Group::resume);
    assert_eq!(desk.sync("b", 2, &[]), Ok(()));
}

#[test]
fn forgiveness_takes_nothing_from_who_may_wait_longer() {
    let mut desk = patient();
    desk.come("b");
    desk.apply(Group::resume);
    let due_ms = desk.now_ms + SESSION;
    assert_eq!(desk.group.due_ms(), Some(due_ms));
    wait_in_rebalance(&mut desk, NEW_MEMBER_JOIN_TIMEOUT_MS - 5_000);
    assert_eq!(desk.member_ids(), ["a", "c", "b"]);
}

#[test]
fn an_empty_group_is_forgotten_with_its_last_offset() {
    let mut desk = Desk::stable(&["a"]);
    assert_eq!(desk.commit("a", 1, 5), Ok(()));
    desk.wait(SESSION);
    assert_eq!((desk.word(), desk.group.generation()), ("Empty", 2));
    let since_ms = desk.now_ms;
    assert_eq!(desk.group.due_ms(), Some(since_ms + OFFSETS_RETENTION_MS));
    desk.wait(OFFSETS_RETENTION_MS - 1);
    assert!(desk.group.committed("topic", 0).is_some());
    desk.wait(1);
    assert!(desk.group.is_absent());
    assert_eq!(desk.group.due_ms(), None);
}

#[test]
fn generations_begin_anew_after_the_last() {
    let mut desk = Desk::stable(&["a"]);
    desk.group.generation = i32::MAX;
    assert_eq!(desk.join(join_request("a")), Ok(1));
    assert_eq!(
        desk.join_result("a", 1)
            .map(|result| result.map(|result| result.generation)),
        Some(Ok(1))
    );
}
