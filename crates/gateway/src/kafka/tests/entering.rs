//! Who comes in, and who is sent away.

use std::time::Instant;

use kafka_protocol::messages::{
    ApiVersionsRequest, ApiVersionsResponse, MetadataRequest, SaslAuthenticateRequest, SaslHandshakeRequest,
};
use kafka_protocol::protocol::Decodable as _;

use super::super::limits::{REQUEST_BYTES_FIRST, REQUEST_BYTES_MAX, SIGN_IN_WAIT};
use super::*;

const WRONG: &str = "HostName=localhost;SharedAccessKeyName=service;SharedAccessKey=AAAA";

#[tokio::test]
async fn whoever_shows_the_key_comes_in_with_either_form_of_the_string() {
    let fake = hub(1, 1);
    let events = format!(
        "Endpoint=sb://localhost/;SharedAccessKeyName=service;SharedAccessKey={};EntityPath={TOPIC}",
        crate::kafka::fake::KEY
    );
    for password in [Fake::connection_string(), events] {
        let mut talk = Talk::new(&fake);
        assert_eq!(talk.sign_in(&password).await, Some(0));
        assert_eq!(
            talk.ask(9, MetadataRequest::default().with_topics(None))
                .await
                .topics
                .len(),
            1
        );
    }
}

#[tokio::test]
async fn a_wrong_password_is_told_and_ends_the_connection() {
    let fake = hub(1, 1);
    let elsewhere = format!("{};EntityPath=other", Fake::connection_string());
    for password in [WRONG, "", "nonsense", &elsewhere] {
        let mut talk = Talk::new(&fake);
        assert_eq!(talk.sign_in(password).await, Some(58), "{password}");
        talk.end().await;
    }
}

#[tokio::test]
async fn nobody_is_told_that_a_password_is_wrong_when_nobody_knows() {
    let fake = hub(1, 1);
    fake.set_undecided(true);
    let mut talk = Talk::new(&fake);
    assert_eq!(talk.sign_in(&Fake::connection_string()).await, None);
}

#[tokio::test]
async fn a_bare_token_after_the_first_handshake_is_answered_barely() {
    let fake = hub(1, 1);
    let handshake = || SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str("PLAIN"));
    let mut talk = Talk::new(&fake);
    talk.ask(0, handshake()).await;
    talk.put(format!("\0$ConnectionString\0{}", Fake::connection_string()).as_bytes())
        .await;
    assert_eq!(talk.take().await.as_deref(), Some(&b""[..]));
    talk.ask(0, MetadataRequest::default()).await;
    let mut wrong = Talk::new(&fake);
    wrong.ask(0, handshake()).await;
    wrong
        .put(format!("\0$ConnectionString\0{WRONG}").as_bytes())
        .await;
    assert_eq!(wrong.take().await, None);
}

#[tokio::test]
async fn another_mechanism_is_told_what_there_is() {
    let mut talk = Talk::new(&hub(1, 1));
    let handshake = SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str("GSSAPI"));
    let answer = talk.ask(1, handshake).await;
    assert_eq!(
        (answer.error_code, answer.mechanisms),
        (33, vec![StrBytes::from_static_str("PLAIN")])
    );
    talk.end().await;
}

#[tokio::test]
async fn versions_are_told_to_everybody_even_in_a_version_that_nobody_knows() {
    let fake = hub(1, 1);
    let mut talk = Talk::new(&fake);
    for version in 0..=4 {
        let answer = talk.ask(version, ApiVersionsRequest::default()).await;
        assert_eq!((answer.error_code, answer.api_keys.len()), (0, api::OFFERS.len()));
    }
    // Key 18, version 99, correlation 5, and a header that nobody knows the rest of.
    talk.put(&[0, 18, 0, 99, 0, 0, 0, 5, 0xff]).await;
    let mut frame = talk.take().await.unwrap();
    assert_eq!(frame.get_i32(), 5);
    let answer = ApiVersionsResponse::decode(&mut frame, 0).unwrap();
    assert_eq!(answer.error_code, 35);
    let own = answer.api_keys.iter().find(|known| known.api_key == 18).unwrap();
    assert_eq!((own.min_version, own.max_version), (0, 4));
}

#[tokio::test]
async fn strangers_may_ask_three_things() {
    for offer in api::OFFERS {
        let is_open = matches!(offer.api, Api::ApiVersions | Api::SaslHandshake);
        let mut talk = Talk::new(&hub(1, 1));
        talk.put(&testing::request(offer.api, offer.max)).await;
        assert_eq!(talk.take().await.is_some(), is_open, "{:?}", offer.api);
    }
}

#[tokio::test]
async fn nobody_signs_in_twice() {
    let fake = hub(1, 1);
    for api in [Api::SaslHandshake, Api::SaslAuthenticate] {
        let mut talk = Talk::known(&fake).await;
        talk.put(&testing::request(api, 1)).await;
        assert_eq!(talk.take().await, None);
    }
}

#[tokio::test]
async fn large_requests_end_the_connection_before_they_are_read() {
    let fake = hub(1, 1);
    for (is_known, length) in [
        (false, REQUEST_BYTES_FIRST as u32 + 1),
        (true, REQUEST_BYTES_MAX as u32 + 1),
        (true, u32::MAX),
        (true, i32::MAX as u32),
    ] {
        let mut talk = if is_known {
            Talk::known(&fake).await
        } else {
            Talk::new(&fake)
        };
        talk.stream.write_u32(length).await.unwrap();
        assert_eq!(talk.take().await, None, "{is_known} {length}");
    }
}

#[tokio::test]
async fn an_array_of_two_billion_ends_the_connection_and_nothing_else() {
    let fake = hub(1, 1);
    let mut talk = Talk::known(&fake).await;
    // Metadata, version 1, correlation 1, no client; then the length of the topics.
    talk.put(b"\0\x03\0\x01\0\0\0\x01\xff\xff\x7f\xff\xff\xff").await;
    assert_eq!(talk.take().await, None);
    Talk::known(&fake).await;
}

#[tokio::test]
async fn a_policy_that_is_gone_takes_its_connections_with_it() {
    let fake = hub(1, 0);
    let mut idle = Talk::known(&fake).await;
    let mut waiting = Talk::known(&fake).await;
    waiting
        .send(12, &testing::fetch(12, 0).with_max_wait_ms(15_000))
        .await;
    fake.set_revoked(true);
    let began = Instant::now();
    idle.end().await;
    waiting.end().await;
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn connections_end_when_the_gateway_goes() {
    let fake = hub(1, 0);
    let mut talk = Talk::known(&fake).await;
    talk.send(12, &testing::fetch(12, 0).with_max_wait_ms(15_000))
        .await;
    talk.draining.cancel();
    talk.end().await;
}

#[tokio::test(start_paused = true)]
async fn whoever_does_not_sign_in_is_cut() {
    let mut talk = Talk::new(&hub(1, 1));
    talk.ask(3, ApiVersionsRequest::default()).await;
    let began = tokio::time::Instant::now();
    talk.end().await;
    assert!(began.elapsed() >= SIGN_IN_WAIT - Duration::from_secs(1));
}

#[tokio::test]
async fn a_token_that_is_none_is_a_wrong_password() {
    let mut talk = Talk::new(&hub(1, 1));
    talk.ask(
        1,
        SaslHandshakeRequest::default().with_mechanism(StrBytes::from_static_str("PLAIN")),
    )
    .await;
    let request = SaslAuthenticateRequest::default().with_auth_bytes(Bytes::from_static(b"x"));
    assert_eq!(talk.ask(2, request).await.error_code, 58);
    talk.end().await;
}
