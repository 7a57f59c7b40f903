//! What members choose together, and what they cost.

use super::super::tests::{REBALANCE_MS, join_request, protocol};
use super::*;

fn member(id: &str, names: &[&str]) -> Member {
    let request = JoinRequest {
        protocols: names.iter().map(|name| protocol(name, id)).collect(),
        ..join_request(id)
    };
    Member::new(id.to_owned(), request, 0)
}

fn chosen(offers: &[&[&str]]) -> Option<String> {
    let members: Vec<Member> = offers.iter().map(|names| member("m", names)).collect();
    choose_protocol(&members).map(str::to_owned)
}

#[test]
fn most_votes_among_what_all_offer_win() {
    let cases: [(&[&[&str]], Option<&str>); 7] = [
        (&[], None),
        (&[&["a", "b"]], Some("a")),
        (&[&["a"], &["b"]], None),
        (&[&["a", "b"], &["b", "a"]], Some("a")),
        (&[&["b", "a"], &["a", "b"]], Some("b")),
        (&[&["a", "b"], &["b", "a"], &["b", "a"]], Some("b")),
        // What one of them does not know is no candidate, however dear it is to the others.
        (&[&["c", "a", "b"], &["c", "b", "a"], &["b", "a"]], Some("b")),
    ];
    for (offers, winner) in cases {
        assert_eq!(chosen(offers).as_deref(), winner, "{offers:?}");
    }
}

#[test]
fn the_slowest_member_says_how_long_a_rebalance_may_take() {
    assert_eq!(rebalance_timeout_ms(&[]), u64::from(REBALANCE_TIMEOUT_MS_MIN));
    let mut members = [member("a", &["x"]), member("b", &["x"])];
    for (asked_ms, is_ms) in [
        (REBALANCE_MS + 1, REBALANCE_MS + 1),
        (0, REBALANCE_MS),
        (u32::MAX, REBALANCE_TIMEOUT_MS_MAX),
    ] {
        let mut request = join_request("b");
        request.rebalance_timeout_ms = asked_ms;
        members[1].update(request, 0);
        assert_eq!(rebalance_timeout_ms(&members), u64::from(is_ms));
    }
    let mut request = join_request("a");
    request.rebalance_timeout_ms = 0;
    let hasty = [Member::new("a".into(), request, 0)];
    assert_eq!(rebalance_timeout_ms(&hasty), u64::from(REBALANCE_TIMEOUT_MS_MIN));
}

#[test]
fn a_member_costs_no_less_than_its_json() {
    let mut largest = member("m\"\\", &["range\"", "roundrobin"]);
    largest.instance_id = Some("instance\\".into());
    largest.former_id = Some("former".into());
    largest.client_id = "client".into();
    largest.client_host = "host".into();
    largest.session_timeout_ms = u32::MAX;
    largest.rebalance_timeout_ms = u32::MAX;
    largest.deadline_ms = u64::MAX;
    largest.assignment = vec![7; 30].into();
    let json = serde_json::to_string(&largest).expect("text");
    let bytes = largest.bytes() + largest.assignment.text_bytes();
    // Between two of them is a comma.
    assert!(
        (json.len() + 1..json.len() + 16).contains(&bytes),
        "{bytes} for {json}"
    );
    let pending = Pending {
        id: "p".into(),
        until_ms: u64::MAX,
    };
    let json = serde_json::to_string(&pending).expect("text");
    assert!(
        (json.len() + 1..json.len() + 8).contains(&pending.bytes()),
        "{json}"
    );
}
