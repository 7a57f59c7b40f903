//! What breaks the bounds of a request.

use super::super::tests::{Desk, first_request, join_request, protocol};
use super::*;

#[test]
fn requests_have_bounds() {
    let base = || join_request("a");
    let with = |change: fn(&mut JoinRequest)| {
        let mut request = base();
        change(&mut request);
        request
    };
    let session = Err(GroupError::InvalidSessionTimeout);
    let invalid = Err(GroupError::InvalidRequest);
    let cases = [
        (
            with(|r| r.session_timeout_ms = SESSION_TIMEOUT_MS_MIN - 1),
            session.clone(),
        ),
        (
            with(|r| r.session_timeout_ms = SESSION_TIMEOUT_MS_MAX + 1),
            session,
        ),
        (
            with(|r| r.member.member_id = "x".repeat(MEMBER_ID_BYTES_MAX + 1)),
            invalid.clone(),
        ),
        (with(|r| r.member.member_id.clear()), invalid.clone()),
        (
            with(|r| r.member.instance_id = Some(String::new())),
            invalid.clone(),
        ),
        (
            with(|r| r.member.instance_id = Some("x".repeat(INSTANCE_ID_BYTES_MAX + 1))),
            invalid.clone(),
        ),
        (with(|r| r.client_id = "a\u{7}".into()), invalid.clone()),
        (with(|r| r.client_host = "x".repeat(256)), invalid.clone()),
        (with(|r| r.protocol_type = "x".repeat(65)), invalid.clone()),
        (with(|r| r.protocols.push(protocol("range", ""))), invalid.clone()),
        (with(|r| r.protocols[0].name.clear()), invalid.clone()),
        (
            with(|r| r.protocols[0].metadata = vec![0; METADATA_BYTES_MAX].into()),
            invalid.clone(),
        ),
        (
            with(|r| {
                r.protocols = (0..=PROTOCOLS_MAX)
                    .map(|n| protocol(&n.to_string(), ""))
                    .collect()
            }),
            invalid,
        ),
        (with(|r| r.session_timeout_ms = SESSION_TIMEOUT_MS_MAX), Ok(1)),
        (with(|r| r.session_timeout_ms = SESSION_TIMEOUT_MS_MIN), Ok(1)),
    ];
    for (request, answer) in cases {
        let mut desk = Desk::new();
        assert!(desk.join(first_request("a")).is_err());
        assert_eq!(desk.join(request.clone()), answer, "{request:?}");
    }
    let client = "a".len() + "rdkafka".len() + "/10.0.0.1".len();
    let protocols = "consumer".len() + "range".len() + "roundrobin".len() + 2 * "topic".len();
    assert_eq!(base().bytes(), client + protocols);
}
