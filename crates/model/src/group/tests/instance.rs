//! Static members: clients that are started again and are still the same to others (KIP-345).

use super::super::request::{JoinRequest, JoinResult};
use super::*;

fn result(desk: &Desk, name: &str, generation: i32) -> JoinResult {
    desk.join_result(name, generation)
        .expect("an answer")
        .expect("a result")
}

#[test]
fn a_static_member_comes_in_without_an_id_and_keeps_its_place() {
    let mut desk = Desk::stable(&["i1/a", "b"]);
    assert_eq!(desk.assignment("i1/a", 1), "all");
    let turn = desk.group.turn();
    assert_eq!(desk.join(first_request("i1/a2")), Ok(1), "nobody notices");
    assert_ne!(desk.group.turn(), turn, "but who waits under the old id");
    assert_eq!((desk.word(), desk.member_ids()), ("Stable", vec!["a2", "b"]));
    let answer = result(&desk, "i1/a2", 1);
    assert_eq!(
        (
            answer.leader.as_str(),
            answer.skip_assignment,
            answer.members.len()
        ),
        ("a2", true, 2)
    );
    assert_eq!(desk.assignment("i1/a2", 1), "all");
    let fenced = GroupError::FencedInstanceId;
    assert_eq!(desk.heartbeat("i1/a", 1), Err(fenced.clone()));
    assert_eq!(desk.commit("i1/a", 1, 1), Err(fenced.clone()));
    assert_eq!(desk.sync("i1/a", 1, &[]), Err(fenced.clone()));
    assert_eq!(desk.join(join_request("i1/a")), Err(fenced.clone()));
    assert_eq!(desk.leave(&["i1/a"]), [Err(fenced.clone())]);
    assert_eq!(desk.join_result("i1/a", 1), Some(Err(fenced.clone())));
    assert_eq!(desk.sync_result("i1/a", 1), Some(Err(fenced)));
    assert_eq!(
        desk.heartbeat("a", 1),
        Err(GroupError::UnknownMemberId),
        "without its instance"
    );
    assert_eq!(desk.heartbeat("i1/a2", 1), Ok(()));
}

#[test]
fn a_static_member_that_comes_back_has_a_whole_session() {
    let session_ms = u64::from(SESSION_MS);
    let mut desk = Desk::stable(&["i1/a"]);
    desk.wait(session_ms - 1);
    assert_eq!(desk.join(first_request("i1/a2")), Ok(1));
    desk.wait(session_ms - 1);
    assert_eq!((desk.word(), desk.member_ids()), ("Stable", vec!["a2"]));
    desk.wait(1);
    assert!(desk.group.is_absent());
}

#[test]
fn the_repetition_of_a_static_member_s_join_takes_nothing_from_the_next() {
    let mut desk = Desk::stable(&["i1/a"]);
    assert_eq!(
        desk.join(first_request("i1/a")),
        Ok(1),
        "its answer was lost, perhaps"
    );
    assert_eq!(desk.word(), "Stable");
    assert_eq!(desk.join(first_request("i1/a2")), Ok(1));
    assert_eq!(
        desk.join(first_request("i1/a")),
        Err(GroupError::FencedInstanceId)
    );
    assert_eq!(desk.member_ids(), ["a2"]);
}

#[test]
fn a_static_member_that_returns_in_a_rebalance_has_joined() {
    let mut desk = Desk::stable(&["i1/a", "i2/b", "c"]);
    desk.leave(&["c"]);
    assert_eq!(desk.join(first_request("i1/a2")), Ok(2));
    assert_eq!(desk.join(join_request("i2/b")), Ok(2));
    assert_eq!(result(&desk, "i1/a2", 2).members.len(), 2, "it leads still");
    let mut followers = desk.clone();
    // The leader was told of b and will assign to it: it must be told of b2.
    assert_eq!(followers.join(first_request("i2/b2")), Ok(3));
    assert_eq!(followers.word(), "PreparingRebalance");
    assert_eq!(
        followers.sync("i1/a2", 2, &[("a2", "x")]),
        Err(GroupError::RebalanceInProgress)
    );
    assert_eq!(followers.join(join_request("i1/a2")), Ok(3));
    assert_eq!(
        (followers.word(), followers.member_ids()),
        ("CompletingRebalance", vec!["a2", "b2"])
    );
}

#[test]
fn a_static_member_that_returns_with_other_protocols_is_noticed() {
    let mut desk = Desk::stable(&["i1/a", "i2/b"]);
    let request = |names: &[&str]| JoinRequest {
        protocols: names.iter().map(|name| protocol(name, "new")).collect(),
        ..first_request("i1/a2")
    };
    let mut same = desk.clone();
    assert_eq!(
        same.join(request(&["range"])),
        Ok(1),
        "the group would choose the same"
    );
    assert_eq!(desk.join(request(&["roundrobin"])), Ok(2));
    assert_eq!(desk.word(), "PreparingRebalance");
    assert_eq!(desk.join(join_request("i2/b")), Ok(2));
    assert_eq!(result(&desk, "i1/a2", 2).protocol, "roundrobin");
}

#[test]
fn ids_do_not_pass_from_one_kind_of_member_to_the_other() {
    let mut desk = Desk::new();
    assert!(desk.join(first_request("a")).is_err());
    let unknown = Err(GroupError::UnknownMemberId);
    assert_eq!(
        desk.join(join_request("i1/a")),
        unknown,
        "a static member is given no id beforehand"
    );
    let taken = Err(GroupError::InvalidRequest);
    assert_eq!(desk.join(first_request("i1/a")), taken);
    desk.join_all(&["b"]);
    assert_eq!(desk.join(join_request("i1/b")), unknown);
    assert_eq!(desk.join(first_request("i1/b")), taken, "another's id was drawn");
    assert_eq!(desk.member_ids(), ["b"]);
}
