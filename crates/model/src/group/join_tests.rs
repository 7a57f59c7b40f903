//! Who comes in.

use super::super::request::JoinRequest;
use super::super::tests::{Desk, first_request, join_request, protocol, who};
use super::super::{INITIAL_REBALANCE_DELAY_MS, MEMBER_ID_BYTES_MAX, MEMBERS_BYTES_MAX, METADATA_BYTES_MAX};
use super::*;

fn named(member_id: &str) -> Result<i32, GroupError> {
    Err(GroupError::MemberIdRequired {
        member_id: member_id.to_owned(),
    })
}

fn result(desk: &Desk, name: &str, generation: i32) -> JoinResult {
    desk.join_result(name, generation)
        .expect("an answer")
        .expect("a result")
}

#[test]
fn a_first_join_is_given_its_id() {
    let mut desk = Desk::new();
    assert_eq!(desk.join(first_request("a")), named("a"));
    assert_eq!((desk.word(), desk.member_ids().len()), ("Empty", 0));
    assert!(!desk.group.is_absent(), "it is expected");
    assert_eq!(desk.join(first_request("a")), named("a"), "the answer was lost");
    assert_eq!(desk.join(join_request("a")), Ok(1));
    assert_eq!(desk.join(first_request("a")), named("a"), "the answer comes late");
    assert_eq!(
        (desk.word(), desk.member_ids()),
        ("PreparingRebalance", vec!["a"])
    );
    assert_eq!(desk.join(join_request("a")), Ok(1), "the answer was lost");
    assert_eq!(desk.join_result("a", 1), None);
    desk.wait(INITIAL_REBALANCE_DELAY_MS);
    let answer = result(&desk, "a", 1);
    assert_eq!(
        (answer.generation, answer.leader.as_str(), answer.skip_assignment),
        (1, "a", false)
    );
    assert_eq!(
        (answer.protocol_type.as_str(), answer.protocol.as_str()),
        ("consumer", "range")
    );
    let members = [JoinedMember {
        member: who("a"),
        metadata: b"topic".as_slice().into(),
    }];
    assert_eq!(
        (answer.members.as_slice(), answer.member_id.as_str()),
        (members.as_slice(), "a")
    );
}

#[test]
fn an_id_that_was_given_is_good_for_a_while() {
    let mut desk = Desk::new();
    assert_eq!(desk.join(first_request("a")), named("a"));
    desk.wait(PENDING_MEMBER_TIMEOUT_MS - 1);
    assert_eq!(desk.clone().join(join_request("a")), Ok(1));
    desk.wait(1);
    assert_eq!(desk.join(join_request("a")), Err(GroupError::UnknownMemberId));
    assert!(desk.group.is_absent());
    assert_eq!(desk.join(join_request("x")), Err(GroupError::UnknownMemberId));
}

#[test]
fn old_versions_come_in_at_once() {
    let mut desk = Desk::new();
    let request = JoinRequest {
        id_required: false,
        ..first_request("a")
    };
    assert_eq!(desk.join(request.clone()), Ok(1));
    assert_eq!(desk.join(request), Ok(1), "the answer was lost");
    assert_eq!(desk.member_ids(), ["a"]);
}

#[test]
fn a_rebalance_waits_for_ids_that_were_given() {
    let mut desk = Desk::stable(&["a"]);
    assert_eq!(desk.join(first_request("b")), named("b"));
    assert_eq!(desk.word(), "Stable", "an id alone disturbs nobody");
    assert_eq!(desk.join(join_request("a")), Ok(2));
    assert_eq!(desk.join_result("a", 2), None, "it is still waited for");
    let mut other = desk.clone();
    other.wait(PENDING_MEMBER_TIMEOUT_MS);
    assert_eq!(
        (other.word(), other.member_ids()),
        ("CompletingRebalance", vec!["a"])
    );
    let mut other = desk.clone();
    assert_eq!(other.leave(&["b"]), [Ok(())]);
    assert_eq!(
        (other.word(), other.member_ids()),
        ("CompletingRebalance", vec!["a"])
    );
    assert_eq!(desk.join(join_request("b")), Ok(2));
    assert_eq!(
        (desk.word(), desk.member_ids()),
        ("CompletingRebalance", vec!["a", "b"])
    );
}

#[test]
fn a_newcomer_makes_all_others_join_again() {
    for is_assigned in [true, false] {
        let mut desk = Desk::new();
        desk.join_all(&["a", "b"]);
        if is_assigned {
            desk.sync_all(&["a", "b"]);
        }
        let turn = desk.group.turn();
        assert_eq!(desk.come("c"), 2);
        assert_ne!(desk.group.turn(), turn, "whoever waits is to look");
        assert_eq!(desk.word(), "PreparingRebalance");
        assert_eq!(
            desk.sync_result("b", 1),
            Some(Err(GroupError::RebalanceInProgress))
        );
        assert_eq!(desk.join(join_request("b")), Ok(2));
        assert_eq!(desk.join_result("b", 2), None);
        assert_eq!(desk.join_result("c", 2), None);
        let late = result(&desk, "a", 1);
        assert_eq!(
            (late.generation, late.leader.as_str(), late.members.len()),
            (1, "", 0)
        );
        let turn = desk.group.turn();
        assert_eq!(desk.join(join_request("a")), Ok(2));
        assert_ne!(desk.group.turn(), turn);
        assert_eq!(desk.word(), "CompletingRebalance");
        for (name, count) in [("a", 3), ("b", 0), ("c", 0)] {
            let answer = result(&desk, name, 2);
            assert_eq!((answer.generation, answer.leader.as_str()), (2, "a"));
            assert_eq!(answer.members.len(), count, "{name}");
        }
    }
}

#[test]
fn a_member_that_joins_again_disturbs_others_only_with_a_reason() {
    let changed = || JoinRequest {
        protocols: vec![protocol("range", "another topic")],
        ..join_request("b")
    };
    // Who joins, in which phase, and whether that begins a rebalance.
    let cases = [
        (join_request("a"), false, false),
        (join_request("b"), false, false),
        (changed(), false, true),
        (join_request("a"), true, true),
        (join_request("b"), true, false),
        (changed(), true, true),
    ];
    for (request, is_assigned, begins) in cases {
        let mut desk = Desk::new();
        desk.join_all(&["a", "b"]);
        if is_assigned {
            desk.sync_all(&["a", "b"]);
        }
        let (name, word) = (request.member.member_id.clone(), desk.word());
        let text = format!("{name} while {word}");
        assert_eq!(desk.join(request), Ok(1 + i32::from(begins)), "{text}");
        assert_eq!(desk.word() == "PreparingRebalance", begins, "{text}");
        assert_eq!(
            desk.join_result(&name, 1 + i32::from(begins)).is_none(),
            begins,
            "{text}"
        );
    }
}

#[test]
fn what_is_read_must_be_as_new_as_the_join() {
    let mut desk = Desk::stable(&["a", "b"]);
    let old = desk.clone();
    assert_eq!(desk.join(join_request("a")), Ok(2));
    assert_eq!(
        old.join_result("a", 2),
        None,
        "the answer of an older rebalance is none"
    );
    assert_eq!(old.join_result("x", 2), Some(Err(GroupError::UnknownMemberId)));
    assert_eq!(
        desk.join_result("a", 1),
        None,
        "who asked earlier waits with who asked again"
    );
}

#[test]
fn members_have_a_protocol_in_common() {
    let mut desk = Desk::stable(&["a"]);
    let offering = |name: &str, protocol_type: &str, names: &[&str]| JoinRequest {
        protocol_type: protocol_type.into(),
        protocols: names.iter().map(|name| protocol(name, "")).collect(),
        ..first_request(name)
    };
    let refused = Err(GroupError::InconsistentGroupProtocol);
    for request in [
        offering("b", "consumer", &["sticky"]),
        offering("b", "connect", &["range"]),
        offering("b", "", &["range"]),
        offering("b", "consumer", &[]),
    ] {
        assert_eq!(desk.join(request), refused);
    }
    assert_eq!(
        desk.join(offering("b", "consumer", &["sticky", "roundrobin"])),
        named("b")
    );
    let mut request = offering("b", "consumer", &["sticky", "roundrobin"]);
    request.member = who("b");
    assert_eq!(desk.join(request), Ok(2));
    let alone = JoinRequest {
        protocols: vec![protocol("range", "")],
        ..join_request("a")
    };
    assert_eq!(
        desk.join(alone.clone()),
        refused,
        "b would have nothing in common with it"
    );
    assert_eq!(desk.join(join_request("a")), Ok(2));
    assert_eq!(result(&desk, "b", 2).protocol, "roundrobin");
    desk.leave(&["b"]);
    assert_eq!(desk.join(alone), Ok(3));
    let mut desk = Desk::stable(&["a"]);
    let other = JoinRequest {
        protocols: vec![protocol("new", "")],
        ..join_request("a")
    };
    assert_eq!(desk.join(other), Ok(2), "alone, a member may change its mind");
    assert_eq!(result(&desk, "a", 2).protocol, "new");
}

#[test]
fn a_group_that_was_left_may_become_another() {
    let mut desk = Desk::stable(&["a"]);
    desk.commit("a", 1, 1).expect("it is a member");
    desk.leave(&["a"]);
    let request = JoinRequest {
        protocol_type: "connect".into(),
        id_required: false,
        ..first_request("b")
    };
    assert_eq!(desk.join(request), Ok(3));
    assert_eq!(desk.group.protocol_type.as_deref(), Some("connect"));
}

#[test]
fn a_full_group_takes_nobody_else() {
    let mut desk = Desk::new();
    for n in 0..MEMBERS_MAX {
        desk.come(&format!("m-{n}"));
    }
    let full = Err(GroupError::GroupMaxSizeReached);
    assert_eq!(desk.join(first_request("x")), full);
    assert_eq!(desk.join(first_request("i1/x")), full);
    assert_eq!(desk.join(join_request("m-7")), Ok(1), "who is in stays in");
    desk.leave(&["m-7"]);
    assert_eq!(desk.join(first_request("late")), named("late"));
    desk.come("x");
    assert_eq!(desk.join(join_request("late")), full);
    let unknown = Err(GroupError::UnknownMemberId);
    assert_eq!(
        desk.join(join_request("late")),
        unknown,
        "nobody waits for it any more"
    );
}

#[test]
fn the_oldest_of_too_many_ids_that_were_given_is_no_longer_good() {
    let mut desk = Desk::new();
    for n in 0..=PENDING_MEMBERS_MAX {
        assert!(desk.join(first_request(&format!("p-{n}"))).is_err());
    }
    assert_eq!(desk.group.pending.len(), PENDING_MEMBERS_MAX);
    assert_eq!(desk.join(join_request("p-0")), Err(GroupError::UnknownMemberId));
    assert_eq!(desk.join(join_request("p-1")), Ok(1));
}

#[test]
fn a_member_that_grows_too_large_stays_as_it_was() {
    let mut desk = Desk::new();
    let large = |name: &str, bytes: usize| JoinRequest {
        protocols: vec![protocol("range", &"x".repeat(bytes))],
        ..join_request(name)
    };
    for n in 0..10 {
        let name = format!("i-{n}/m-{n}");
        assert_eq!(desk.join(first_request(&name)), Ok(1));
        assert_eq!(desk.join(large(&name, METADATA_BYTES_MAX)), Ok(1));
    }
    let name = "i/m";
    assert_eq!(desk.join(first_request(name)), Ok(1));
    let before = desk.group.clone();
    let full = Err(GroupError::GroupMaxSizeReached);
    assert_eq!(desk.join(large(name, METADATA_BYTES_MAX)), full);
    let returning = JoinRequest {
        protocols: large(name, METADATA_BYTES_MAX).protocols,
        ..first_request("i/m2")
    };
    assert_eq!(desk.join(returning), full);
    assert_eq!(desk.group, before);
    assert_eq!(desk.join(large(name, 9_000)), Ok(1));
}

#[test]
fn ids_that_were_given_make_room_for_members() {
    let mut desk = Desk::new();
    let id = |n: usize| format!("{n:0>width$}", width = MEMBER_ID_BYTES_MAX);
    for n in 0..PENDING_MEMBERS_MAX {
        assert_eq!(desk.join(first_request(&id(n))), named(&id(n)));
    }
    for n in 0..10 {
        let request = JoinRequest {
            protocols: vec![protocol("range", &"x".repeat(METADATA_BYTES_MAX - 5))],
            ..first_request(&format!("i-{n}/m-{n}"))
        };
        assert_eq!(desk.join(request), Ok(1));
    }
    let (members, pending) = (&desk.group.members, &desk.group.pending);
    let pending_bytes: usize = pending.iter().map(Pending::bytes).sum();
    let bytes = members.iter().map(Member::bytes).sum::<usize>() + pending_bytes;
    assert!(
        (MEMBERS_BYTES_MAX - 200..=MEMBERS_BYTES_MAX).contains(&bytes),
        "{bytes}"
    );
    assert!(!pending.is_empty(), "not more than must be");
    let (oldest, newest) = (id(0), id(PENDING_MEMBERS_MAX - 1));
    assert_eq!(desk.join(join_request(&oldest)), Err(GroupError::UnknownMemberId));
    assert_eq!(desk.join(join_request(&newest)), Ok(1));
}
