//! SUBSCRIBE and SUBACK, UNSUBSCRIBE and UNSUBACK: one answer with a code per filter, and what is delivered in between.
//! Which filters there are is in `topics`.

use dunlin_gateway::mqtt::Version;

use super::raw::{
    BOTH, FILTER, Message, Peer, packet, properties, puback, publish, send, stored, subscribe, text,
    unsubscribe, until_queued,
};
use crate::world::{TOPIC, World};

const TWIN: &str = "$iothub/twin/res/#";
const DESIRED: &str = "$iothub/twin/PATCH/properties/desired/#";
const METHODS: &str = "$iothub/methods/POST/#";

/// The code that says no.
fn no(version: Version) -> u8 {
    match version {
        Version::V3 => 0x80,
        Version::V5 => 0x8F,
    }
}

/// A SUBSCRIBE or UNSUBSCRIBE with these bytes behind its properties, on a connection of its own, ends that for this
/// reason.
async fn wrong(version: Version, first: u8, rest: &[u8], reason: u8) {
    let world = World::new().await;
    let mut peer = Peer::new(&world, version).await;
    let body = [vec![0, 1], properties(version, &[]), rest.to_vec()].concat();
    peer.send(&packet(first, &body)).await;
    peer.ends(reason).await;
    assert!(world.cluster.session(&world.device).subscriptions.is_empty());
}

fn with_options(options: u8) -> Vec<u8> {
    [text(FILTER), vec![options]].concat()
}

/// 3.1.1: MQTT-3.8.1-1
/// 5: MQTT-3.8.1-1
#[tokio::test]
async fn mqtt_3_8_1_1_a_subscribe_with_other_flags_ends_the_connection() {
    for version in BOTH {
        for first in [0x80, 0x81, 0x83, 0x8A] {
            wrong(version, first, &with_options(1), 0x81).await;
        }
    }
}

/// 3.1.1: MQTT-3.8.3-1
/// 5: MQTT-3.8.3-1
#[tokio::test]
async fn mqtt_3_8_3_1_a_filter_that_is_no_text_ends_the_connection() {
    for version in BOTH {
        for filter in [&b"a/\xFF"[..], b"\xED\xA0\x80", b"a/\xC0\xAF"] {
            let rest = [text(filter), vec![1]].concat();
            wrong(version, 0x82, &rest, 0x81).await;
        }
    }
}

/// 3.1.1: MQTT-3.8.3-2
#[tokio::test]
async fn mqtt_3_8_3_2_wildcards_that_are_not_served_are_refused() {
    let world = World::new().await;
    let mut peer = Peer::new(&world, Version::V3).await;
    for filter in ["#", "+", "devices/dev-1/#", "devices/+/messages/devicebound/#"] {
        let sent = subscribe(Version::V3, 1, &[(filter, 1)]);
        peer.expect(&sent, 0x90, &[0, 1, 0x80]).await;
    }
    send(&world, "a").await;
    peer.quiet().await;
    assert!(world.cluster.session(&world.device).subscriptions.is_empty());
}

/// 3.1.1: MQTT-3.8.3-3
/// 5: MQTT-3.8.3-2
#[tokio::test]
async fn mqtt_3_8_3_3_a_subscribe_without_a_filter_ends_the_connection() {
    for version in BOTH {
        wrong(version, 0x82, &[], 0x82).await;
        // A filter without options is none.
        wrong(version, 0x82, &text(FILTER), 0x81).await;
    }
}

/// 3.1.1: MQTT-3.8.3-4
/// 5: MQTT-3.8.3-5
#[tokio::test]
async fn mqtt_3_8_3_4_reserved_bits_of_options_end_the_connection() {
    for version in BOTH {
        let all: &[u8] = match version {
            Version::V3 => &[3, 4, 8, 0x11, 0x20, 0x41, 0x81],
            Version::V5 => &[3, 0x30, 0x31, 0x41, 0x81, 0xC0],
        };
        for options in all {
            wrong(version, 0x82, &with_options(*options), 0x81).await;
            let second = [with_options(1), with_options(*options)].concat();
            wrong(version, 0x82, &second, 0x81).await;
        }
    }
}

/// 5: MQTT-3.8.3-3
#[tokio::test]
async fn mqtt_3_8_3_3_nothing_that_a_device_publishes_comes_back_to_it() {
    let world = World::new().await;
    let mut peer = Peer::new(&world, Version::V5).await;
    for options in [0x05, 0x01] {
        peer.expect(
            &subscribe(Version::V5, 1, &[(FILTER, options)]),
            0x90,
            &[0, 1, 0, 1],
        )
        .await;
        peer.tell(2, b"x").await;
        peer.quiet().await;
    }
}

/// 3.1.1: MQTT-3.8.4-1
/// 5: MQTT-3.8.4-1
#[tokio::test]
async fn mqtt_3_8_4_1_a_subscribe_is_answered() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        for (filter, code) in [(FILTER, 1), (DESIRED, 1), ("x", no(version))] {
            let body = peer.filter_ack(1, &[code]);
            peer.expect(&subscribe(version, 1, &[(filter, 1)]), 0x90, &body)
                .await;
        }
    }
}

/// 3.1.1: MQTT-3.8.4-2
/// 5: MQTT-3.8.4-2
#[tokio::test]
async fn mqtt_3_8_4_2_a_suback_has_the_id_of_its_subscribe() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        let all = [9, 3, 0x1234].map(|id| subscribe(version, id, &[(TWIN, 0)]));
        peer.send(&all.concat()).await;
        for id in [9, 3, 0x1234] {
            let answer = peer.packet().await;
            assert_eq!((answer.first, answer.body), (0x90, peer.filter_ack(id, &[0])));
        }
    }
}

/// 3.1.1: MQTT-3.8.4-3
#[tokio::test]
async fn mqtt_3_8_4_3_no_message_is_lost_while_a_subscription_is_replaced() {
    let world = World::new().await;
    let mut peer = Peer::new(&world, Version::V3).await;
    peer.listen(1).await;
    // One that is not acknowledged yet, and more that come between one replacement and the next.
    send(&world, "before").await;
    let before = peer.message().await;
    let mut expected = Vec::new();
    for n in 0..6 {
        peer.send(&subscribe(Version::V3, 20 + n, &[(FILTER, 1)])).await;
        send(&world, &n.to_string()).await;
        expected.push(format!("body of {n}"));
    }
    let (mut answers, mut ids, mut texts) = (0, vec![before.id], Vec::new());
    while answers < 6 || texts.len() < 6 {
        let packet = peer.packet().await;
        if packet.first == 0x90 {
            answers += 1;
            continue;
        }
        let message = Message::read(Version::V3, &packet);
        texts.push(message.text().to_owned());
        ids.push(message.id);
    }
    assert_eq!(texts, expected, "each once, and in order");
    peer.quiet().await;
    let kept = world.cluster.session(&world.device).subscriptions;
    assert_eq!((kept.len(), kept.get(FILTER)), (1, Some(&1)));
    for id in ids.into_iter().flatten() {
        peer.send(&puback(id)).await;
    }
    until_queued(&world, 0).await;
}

/// 5: MQTT-3.8.4-3
#[tokio::test]
async fn mqtt_3_8_4_3_the_same_filter_again_replaces_the_subscription() {
    let version = Version::V5;
    let world = World::new().await;
    let mut peer = Peer::new(&world, version).await;
    for qos in [1, 0, 1] {
        peer.listen(qos).await;
        let kept = world.cluster.session(&world.device).subscriptions;
        assert_eq!((kept.len(), kept.get(FILTER)), (1, Some(&qos)));
        send(&world, "a").await;
        let message = peer.message().await;
        assert_eq!((message.text(), message.qos), ("body of a", qos));
        if let Some(id) = message.id {
            peer.send(&puback(id)).await;
        }
        until_queued(&world, 0).await;
        peer.quiet().await;
    }
}

/// 3.1.1: MQTT-3.8.4-4
/// 5: MQTT-3.8.4-5
#[tokio::test]
async fn mqtt_3_8_4_4_several_filters_have_one_answer() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        // The last word on a filter that is named twice counts, as if they had come one by one.
        let filters = [(FILTER, 0), (TWIN, 1), (FILTER, 1)];
        let body = peer.filter_ack(4, &[0, 1, 1]);
        peer.expect(&subscribe(version, 4, &filters), 0x90, &body).await;
        peer.quiet().await;
        let kept = world.cluster.session(&world.device).subscriptions;
        assert_eq!((kept.get(FILTER), kept.get(TWIN)), (Some(&1), Some(&1)));
    }
}

/// 3.1.1: MQTT-3.8.4-5
/// 5: MQTT-3.8.4-6
#[tokio::test]
async fn mqtt_3_8_4_5_there_is_a_code_for_each_filter() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        for count in [1, 2, 17, 50] {
            let filters: Vec<String> = (0..count).map(|n| format!("x/{n}")).collect();
            let filters: Vec<(&str, u8)> = filters.iter().map(|filter| (&filter[..], 1)).collect();
            let body = peer.filter_ack(5, &vec![no(version); count]);
            peer.expect(&subscribe(version, 5, &filters), 0x90, &body).await;
        }
    }
}

/// 5: MQTT-3.8.4-7
#[tokio::test]
async fn mqtt_3_8_4_7_a_code_says_what_was_granted_or_that_it_failed() {
    let world = World::new().await;
    let mut peer = Peer::new(&world, Version::V5).await;
    let filters = [
        (FILTER, 2),
        ("devices/dev-2/messages/devicebound/#", 2),
        (TWIN, 0),
    ];
    let answer = [0, 1, 0, 1, 0x8F, 0];
    peer.expect(&subscribe(Version::V5, 1, &filters), 0x90, &answer)
        .await;
    let kept = world.cluster.session(&world.device).subscriptions;
    let kept: Vec<(&str, u8)> = kept.iter().map(|(filter, qos)| (&filter[..], *qos)).collect();
    assert_eq!(kept, [(TWIN, 0), (FILTER, 1)]);
}

/// 3.1.1: MQTT-3.8.4-6
/// 5: MQTT-3.8.4-8
#[tokio::test]
async fn mqtt_3_8_4_6_a_message_has_the_lower_of_two_qualities() {
    for version in BOTH {
        for (wanted, granted) in [(0, 0), (1, 1), (2, 1)] {
            let world = World::new().await;
            let mut peer = Peer::new(&world, version).await;
            let filters = [(FILTER, wanted), (DESIRED, wanted)];
            let body = peer.filter_ack(1, &[granted; 2]);
            peer.expect(&subscribe(version, 1, &filters), 0x90, &body).await;
            // Messages are sent with QoS 1, notes on the twin with 0.
            send(&world, "a").await;
            assert_eq!(peer.message().await.qos, granted);
            world.cluster.desire(&world.device, r#"{"a":1}"#);
            assert_eq!(peer.message().await.qos, 0);
        }
    }
}

/// 3.1.1: MQTT-3.9.3-1
/// 5: MQTT-3.9.3-1
#[tokio::test]
async fn mqtt_3_9_3_1_codes_stand_in_the_order_of_their_filters() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        let no = no(version);
        let filters = [
            ("a", 0),
            (TWIN, 1),
            (FILTER, 0),
            ("b", 1),
            (METHODS, 2),
            (DESIRED, 0),
        ];
        let body = peer.filter_ack(1, &[no, 1, 0, no, 1, 0]);
        peer.expect(&subscribe(version, 1, &filters), 0x90, &body).await;
        let reversed: Vec<(&str, u8)> = filters.into_iter().rev().collect();
        let body = peer.filter_ack(2, &[0, 1, no, 0, 1, no]);
        peer.expect(&subscribe(version, 2, &reversed), 0x90, &body).await;
    }
}

/// 3.1.1: MQTT-3.9.3-2
/// 5: MQTT-3.9.3-2
#[tokio::test]
async fn mqtt_3_9_3_2_codes_of_a_suback_are_of_its_table() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        let table: &[u8] = match version {
            Version::V3 => &[0, 1, 2, 0x80],
            Version::V5 => &[0, 1, 2, 0x80, 0x83, 0x87, 0x8F, 0x91, 0x97, 0x9E, 0xA1, 0xA2],
        };
        for filter in [FILTER, TWIN, "x", "#", "", "$share/g/x"] {
            for qos in 0..=2 {
                if version == Version::V3 && filter.is_empty() {
                    continue; // Ends the connection.
                }
                peer.send(&subscribe(version, 1, &[(filter, qos)])).await;
                let answer = peer.packet().await;
                assert_eq!(answer.first, 0x90);
                let code = answer.body.last().unwrap();
                assert!(table.contains(code), "{filter} {qos}: {code:#x}");
                let is_told_why = *code == 0x9E || version == Version::V3;
                assert!(!filter.starts_with("$share/") || is_told_why, "{code:#x}");
            }
        }
    }
}

/// 3.1.1: MQTT-3.10.1-1
/// 5: MQTT-3.10.1-1
#[tokio::test]
async fn mqtt_3_10_1_1_an_unsubscribe_with_other_flags_ends_the_connection() {
    for version in BOTH {
        for first in [0xA0, 0xA1, 0xA3, 0xAA] {
            wrong(version, first, &text(FILTER), 0x81).await;
        }
    }
}

/// 3.1.1: MQTT-3.10.3-1
/// 5: MQTT-3.10.3-1
#[tokio::test]
async fn mqtt_3_10_3_1_a_filter_to_be_ended_that_is_no_text_ends_the_connection() {
    for version in BOTH {
        for filter in [&b"a/\xFF"[..], b"\xED\xA0\x80", b"a/\x00"] {
            wrong(version, 0xA2, &text(filter), 0x81).await;
        }
        // Packed one after the other, and the last one is longer than the packet.
        let rest = [text(FILTER), vec![0, 9, b'a']].concat();
        wrong(version, 0xA2, &rest, 0x81).await;
    }
}

/// 3.1.1: MQTT-3.10.3-2
/// 5: MQTT-3.10.3-2
#[tokio::test]
async fn mqtt_3_10_3_2_an_unsubscribe_without_a_filter_ends_the_connection() {
    for version in BOTH {
        wrong(version, 0xA2, &[], 0x82).await;
    }
}

/// 3.1.1: MQTT-3.10.4-1
/// 5: MQTT-3.10.4-1
#[tokio::test]
async fn mqtt_3_10_4_1_a_subscription_ends_whose_filter_is_the_same_to_the_letter() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        peer.listen(1).await;
        for other in [
            "devices/dev-1/messages/devicebound/",
            "devices/dev-1/messages/#",
            "devices/dev-1/messages/devicebound/+",
            "Devices/dev-1/messages/devicebound/#",
            "#",
        ] {
            let body = peer.unsuback(1, &[0]);
            peer.expect(&unsubscribe(version, 1, &[other]), 0xB0, &body).await;
            let kept = world.cluster.session(&world.device).subscriptions;
            assert_eq!(kept.get(FILTER), Some(&1), "{other}");
        }
        let body = peer.unsuback(2, &[0]);
        peer.expect(&unsubscribe(version, 2, &[FILTER]), 0xB0, &body)
            .await;
        assert!(world.cluster.session(&world.device).subscriptions.is_empty());
    }
}

/// 3.1.1: MQTT-3.10.4-2
/// 5: MQTT-3.10.4-2
#[tokio::test]
async fn mqtt_3_10_4_2_nothing_new_comes_to_a_subscription_that_was_ended() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        peer.listen(1).await;
        let body = peer.filter_ack(1, &[0]);
        peer.expect(&subscribe(version, 1, &[(DESIRED, 0)]), 0x90, &body)
            .await;
        let body = peer.unsuback(2, &[0, 0]);
        peer.expect(&unsubscribe(version, 2, &[FILTER, DESIRED]), 0xB0, &body)
            .await;
        send(&world, "a").await;
        world.cluster.desire(&world.device, r#"{"a":1}"#);
        peer.quiet().await;
        peer.listen(1).await;
        assert_eq!(peer.message().await.text(), "body of a", "it has waited");
    }
}

/// 3.1.1: MQTT-3.10.4-3
/// 5: MQTT-3.10.4-3
#[tokio::test]
async fn mqtt_3_10_4_3_what_was_sent_before_a_subscription_ended_is_completed() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        peer.listen(1).await;
        for id in ["a", "b"] {
            send(&world, id).await;
            peer.message().await;
        }
        let body = peer.unsuback(2, &[0]);
        peer.expect(&unsubscribe(version, 2, &[FILTER]), 0xB0, &body)
            .await;
        peer.send(&puback(1)).await;
        until_queued(&world, 1).await;
        peer.send(&puback(2)).await;
        until_queued(&world, 0).await;
        peer.quiet().await;
    }
}

/// 3.1.1: MQTT-3.10.4-4
/// 5: MQTT-3.10.4-4
#[tokio::test]
async fn mqtt_3_10_4_4_an_unsubscribe_is_answered() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        peer.listen(1).await;
        for id in [2, 0x1234] {
            let body = peer.unsuback(id, &[0]);
            peer.expect(&unsubscribe(version, id, &[FILTER]), 0xB0, &body)
                .await;
        }
    }
}

/// 3.1.1: MQTT-3.10.4-5
/// 5: MQTT-3.10.4-5
#[tokio::test]
async fn mqtt_3_10_4_5_an_unsubscribe_from_nothing_is_answered_under_its_id() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        for (id, filter) in [(7, FILTER), (300, "x"), (u16::MAX, TWIN)] {
            let body = peer.unsuback(id, &[0]);
            peer.expect(&unsubscribe(version, id, &[filter]), 0xB0, &body)
                .await;
        }
    }
}

/// 3.1.1: MQTT-3.10.4-6
/// 5: MQTT-3.10.4-6
#[tokio::test]
async fn mqtt_3_10_4_6_several_filters_are_ended_with_one_answer() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        let filters = [(FILTER, 1), (TWIN, 1), (METHODS, 1)];
        let body = peer.filter_ack(1, &[1; 3]);
        peer.expect(&subscribe(version, 1, &filters), 0x90, &body).await;
        let body = peer.unsuback(2, &[0; 3]);
        peer.expect(&unsubscribe(version, 2, &[TWIN, "x", FILTER]), 0xB0, &body)
            .await;
        peer.quiet().await;
        let kept = world.cluster.session(&world.device).subscriptions;
        assert_eq!(kept.keys().collect::<Vec<_>>(), [METHODS]);
    }
}

/// 5: MQTT-3.11.3-2
#[tokio::test]
async fn mqtt_3_11_3_2_an_unsuback_has_a_code_of_its_table_for_each_filter() {
    let world = World::new().await;
    let mut peer = Peer::new(&world, Version::V5).await;
    peer.listen(1).await;
    for filters in [&[FILTER][..], &["x"], &["x", FILTER, "#", TWIN], &["x"; 50]] {
        peer.send(&unsubscribe(Version::V5, 1, filters)).await;
        let answer = peer.packet().await;
        assert_eq!((answer.first, &answer.body[..3]), (0xB0, &[0, 1, 0][..]));
        let codes = &answer.body[3..];
        assert_eq!(codes.len(), filters.len());
        let table = [0, 0x11, 0x80, 0x83, 0x87, 0x8F, 0x91];
        assert!(codes.iter().all(|code| table.contains(code)), "{codes:?}");
    }
    let telemetry = publish(Version::V5, 0x32, TOPIC, 5, (&[], b"x"));
    peer.expect(&telemetry, 0x40, &[0, 5]).await;
    assert_eq!(stored(&world), [b"x"]);
}
