//! Packets that make no sense: texts, flags, ids and lengths. The CONNECTs among them are in `connect`.

use dunlin_gateway::mqtt::Version;

use super::raw::{
    BOTH, Connect, FILTER, Peer, packet, publish, refusal, send, stored, subscribe, text, unsubscribe,
};
use crate::world::{TOPIC, World};

/// These bytes end a connection, in MQTT 5 for this reason, and nothing is stored.
async fn wrong(version: Version, sent: &[u8], reason: u8) {
    let world = World::new().await;
    let mut peer = Peer::new(&world, version).await;
    peer.send(sent).await;
    peer.ends(reason).await;
    assert_eq!(stored(&world), Vec::<Vec<u8>>::new(), "{sent:02x?}");
}

/// A PUBLISH whose topic ends in these bytes.
fn with_topic_end(version: Version, end: &[u8]) -> Vec<u8> {
    let topic = [&b"devices/dev-1/messages/events/a="[..], end].concat();
    publish(version, 0x32, topic, 1, (&[], b"x"))
}

/// 3.1.1: MQTT-1.5.3-1
/// 5: MQTT-1.5.4-1
#[tokio::test]
async fn mqtt_1_5_3_1_text_that_is_no_utf_8_ends_the_connection() {
    for version in BOTH {
        // Stray, overlong, cut off, surrogates, beyond Unicode.
        for end in [
            &b"\x80"[..],
            b"\xC0\x80",
            b"\xE2\x82",
            b"\xED\xA0\x80",
            b"\xED\xBF\xBF",
            b"\xF4\x90\x80\x80",
        ] {
            wrong(version, &with_topic_end(version, end), 0x81).await;
        }
    }
}

/// 3.1.1: MQTT-1.5.3-2
/// 5: MQTT-1.5.4-2
#[tokio::test]
async fn mqtt_1_5_3_2_a_null_character_ends_the_connection() {
    for version in BOTH {
        for end in [&b"\x00"[..], b"a\x00b"] {
            wrong(version, &with_topic_end(version, end), 0x81).await;
        }
    }
    for own in [
        [vec![0x03], text("a\0")].concat(),
        [vec![0x26], text("a\0"), text("b")].concat(),
        [vec![0x26], text("a"), text("\0")].concat(),
    ] {
        let sent = publish(Version::V5, 0x32, TOPIC, 1, (&own, b"x"));
        wrong(Version::V5, &sent, 0x81).await;
        if own[0] == 0x26 {
            let goodbye = [vec![0, own.len() as u8], own.clone()].concat();
            wrong(Version::V5, &packet(0xE0, &goodbye), 0x81).await;
            let world = World::new().await;
            super::raw::closes(&world, &Connect::with(Version::V5, &own)).await;
        }
    }
}

/// 3.1.1: MQTT-1.5.3-3
/// 5: MQTT-1.5.4-3
#[tokio::test]
async fn mqtt_1_5_3_3_a_byte_order_mark_is_a_character_like_any_other() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        let sent = with_topic_end(version, "\u{FEFF}b\u{FEFF}".as_bytes());
        peer.expect(&sent, 0x40, &[0, 1]).await;
        let records = world.cluster.records(&world.device);
        assert_eq!(&records[0].bag[..], "a=\u{FEFF}b\u{FEFF}".as_bytes());
        // In front of a topic it makes another one of it.
        let topic = format!("\u{FEFF}{TOPIC}");
        peer.send(&publish(version, 0x32, topic, 2, (&[], b"x"))).await;
        peer.ends(0x90).await;
    }
}

/// 5: MQTT-1.5.5-1
#[tokio::test]
async fn mqtt_1_5_5_1_a_length_has_no_more_bytes_than_it_needs() {
    // What the hub sends is held against it by `raw`, for every packet of the suite.
    for longer in [&[0xC0, 0x80, 0x00][..], &[0xC0, 0x80, 0x80, 0x80, 0x00]] {
        wrong(Version::V5, longer, 0x81).await;
    }
    let mut longer = publish(Version::V5, 0x32, TOPIC, 1, (&[], b"x"));
    longer[1] |= 0x80;
    longer.insert(2, 0);
    wrong(Version::V5, &longer, 0x81).await;
    wrong(Version::V5, &[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 0x7F], 0x81).await;
}

/// 5: MQTT-1.5.7-1
#[tokio::test]
async fn mqtt_1_5_7_1_both_texts_of_a_pair_are_text() {
    for (key, value) in [(&b"\xFF"[..], &b"b"[..]), (b"a", b"\xED\xA0\x80")] {
        let own = [vec![0x26], text(key), text(value)].concat();
        let sent = publish(Version::V5, 0x32, TOPIC, 1, (&own, b"x"));
        wrong(Version::V5, &sent, 0x81).await;
    }
}

/// 3.1.1: MQTT-2.2.2-1
/// 5: MQTT-2.1.3-1
#[tokio::test]
async fn mqtt_2_2_2_1_packets_of_the_hub_have_the_flags_that_they_must_have() {
    for version in BOTH {
        let world = World::new().await;
        // `raw` looks at the flags of every packet but PUBLISH.
        let mut peer = Peer::new(&world, version).await;
        peer.listen(1).await;
        send(&world, "a").await;
        let message = peer.packet().await;
        assert_eq!(message.first, 0x32, "QoS 1, and neither DUP nor RETAIN");
        peer.tell(1, b"x").await;
        let body = peer.unsuback(2, &[0]);
        peer.expect(&unsubscribe(version, 2, &[FILTER]), 0xB0, &body)
            .await;
        peer.quiet().await;
        peer.send(&[0xF7, 0]).await;
        peer.ends(0x81).await;
        let refused = Connect {
            password: None,
            ..Connect::new(version)
        };
        assert_eq!(refusal(&world, &refused).await.flags, 0);
    }
}

/// 3.1.1: MQTT-2.2.2-2
#[tokio::test]
async fn mqtt_2_2_2_2_flags_that_may_not_be_end_the_connection() {
    let version = Version::V3;
    for first in [0x41, 0x48, 0x51, 0x60, 0x72, 0x80, 0xA0, 0xC1, 0xC8, 0xE1, 0xEF] {
        let body: &[u8] = match first >> 4 {
            0xC | 0xE => &[],
            _ => &[0, 1],
        };
        wrong(version, &packet(first, body), 0x81).await;
    }
}

/// 3.1.1: MQTT-2.3.1-1
/// 5: MQTT-2.2.1-3
#[tokio::test]
async fn mqtt_2_3_1_1_id_0_ends_the_connection() {
    for version in BOTH {
        for sent in [
            publish(version, 0x32, TOPIC, 0, (&[], b"x")),
            subscribe(version, 0, &[(FILTER, 1)]),
            unsubscribe(version, 0, &[FILTER]),
            packet(0x40, &[0, 0]),
        ] {
            wrong(version, &sent, 0x81).await;
        }
    }
}

/// 3.1.1: MQTT-4.8.0-1
/// 5: MQTT-4.13.1-1
#[tokio::test]
async fn mqtt_4_8_0_1_whatever_is_against_the_protocol_ends_the_connection() {
    for version in BOTH {
        for (sent, reason) in [
            // What only a hub sends; flows of QoS 2; what is too short, and what is too long.
            (packet(0x20, &[0, 0, 0]), 0x82),
            (packet(0xD0, &[]), 0x82),
            (packet(0x50, &[0, 1]), 0x82),
            (packet(0x62, &[0, 1]), 0x82),
            (packet(0x70, &[0, 1]), 0x82),
            (packet(0x40, &[1]), 0x81),
            (packet(0x82, &[0]), 0x81),
            (packet(0xC0, &[0]), 0x81),
        ] {
            wrong(version, &sent, reason).await;
        }
    }
    for (sent, reason) in [
        // A subscription identifier, which is not offered; a property that is not of PUBLISH, one twice.
        (
            packet(0x82, &[&[0, 1, 2, 0x0B, 1][..], &text(FILTER), &[1]].concat()),
            0xA1,
        ),
        (
            publish(Version::V5, 0x32, TOPIC, 1, (b"\x11\0\0\0\0", b"x")),
            0x81,
        ),
        (
            publish(Version::V5, 0x32, TOPIC, 1, (b"\x01\0\x01\0", b"x")),
            0x81,
        ),
        (packet(0xE0, &[0x7F]), 0x81),
        (packet(0xF0, &[0x18, 0]), 0x82),
    ] {
        wrong(Version::V5, &sent, reason).await;
    }
}
