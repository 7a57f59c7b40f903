//! DISCONNECT and AUTH, and what MQTT 5 lets the hub say beside a reason code.

use dunlin_gateway::mqtt::Version;
use dunlin_model::command::TelemetryAck;

use super::raw::{
    BOTH, Connack, Connect, FILTER, Packet, Peer, packet, publish, refusal, send, stored, subscribe,
    take_properties, unsubscribe, user,
};
use crate::world::{TOPIC, World};

/// What a DISCONNECT of the hub says: its reason, and its properties.
fn goodbye(packet: &Packet) -> (u8, Vec<super::raw::Property>) {
    assert_eq!(packet.first, 0xE0, "{packet:?}");
    let reason = packet.body.first().copied().unwrap_or_default();
    let mut rest = packet.body.get(1..).unwrap_or_default();
    let own = if rest.is_empty() {
        Vec::new()
    } else {
        take_properties(&mut rest)
    };
    assert!(rest.is_empty(), "{packet:?}");
    (reason, own)
}

/// DISCONNECTs that the hub sends, for as many reasons as can be brought about.
async fn goodbyes() -> Vec<Packet> {
    let version = Version::V5;
    let mut all = Vec::new();
    for sent in [
        packet(0xC1, &[]),
        packet(0xD0, &[]),
        publish(version, 0x34, TOPIC, 1, (&[], b"x")),
        publish(version, 0x32, "x", 1, (&[], b"x")),
        publish(version, 0x32, TOPIC, 1, (b"\x23\x00\x63", b"x")),
        vec![0x30, 0xFF, 0xFF, 0xFF, 0x7F],
        subscribe(version, 1, &[("x", 0); 51]),
    ] {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        peer.send(&sent).await;
        all.push(peer.packet().await);
    }
    for ack in [TelemetryAck::Unknown, TelemetryAck::Fenced] {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        world.cluster.hold(true);
        peer.send(&publish(version, 0x32, TOPIC, 1, (&[], b"x"))).await;
        world.cluster.until_held(1).await;
        world.cluster.release_as(ack);
        all.push(peer.packet().await);
    }
    let world = World::new().await;
    let mut first = Peer::new(&world, version).await;
    let mut second = Peer::new(&world, version).await;
    all.push(first.packet().await);
    world.cluster.disable(&world.device);
    all.push(second.packet().await);
    let world = World::new().await;
    let mut peer = Peer::new(&world, version).await;
    assert!(world.gateway.drain(std::time::Duration::from_secs(20)).await);
    all.push(peer.packet().await);
    all
}

/// 3.1.1: MQTT-3.14.1-1
/// 5: MQTT-3.14.1-1
#[tokio::test]
async fn mqtt_3_14_1_1_a_disconnect_with_other_flags_is_malformed() {
    for version in BOTH {
        for first in [0xE1, 0xE2, 0xE8] {
            let world = World::new().await;
            let mut peer = Peer::connect(&world, &Connect::willing(version, super::raw::Will::own())).await;
            peer.send(&packet(first, &[])).await;
            peer.ends(0x81).await;
            // It was no goodbye.
            world.cluster.until_stored(1).await;
        }
    }
}

/// 3.1.1: MQTT-3.14.4-2
#[tokio::test]
async fn mqtt_3_14_4_2_what_follows_a_goodbye_is_not_looked_at() {
    let version = Version::V3;
    let world = World::new().await;
    let mut peer = Peer::new(&world, version).await;
    let after = [
        vec![0xE0, 0],
        publish(version, 0x32, TOPIC, 1, (&[], b"x")),
        subscribe(version, 2, &[(FILTER, 1)]),
    ];
    peer.send(&after.concat()).await;
    assert_eq!(peer.next().await, None);
    world.cluster.until_disconnected(&world.device).await;
    assert_eq!(stored(&world), Vec::<Vec<u8>>::new());
    assert!(world.cluster.session(&world.device).subscriptions.is_empty());
}

/// 5: MQTT-3.14.0-1
#[tokio::test]
async fn mqtt_3_14_0_1_nobody_is_told_goodbye_who_was_not_admitted() {
    let world = World::new().await;
    let version = Version::V5;
    for first in [
        packet(0xC0, &[]),
        packet(0x10, &[1]),
        Connect::with(version, b"\x7F").bytes(),
        Connect {
            rest: vec![1],
            ..Connect::new(version)
        }
        .bytes(),
    ] {
        assert_eq!(world.answer_to(&first).await, b"");
    }
    let refused = Connect {
        password: None,
        ..Connect::new(version)
    };
    refusal(&world, &refused).await;
    // Whoever is wrong at once hears first that they are in.
    let mut peer = Peer::dial(&world, version).await;
    let all = [Connect::new(version).bytes(), packet(0xC1, &[])].concat();
    peer.send(&all).await;
    let connack = Connack::read(version, &peer.packet().await);
    assert_eq!(connack.code, 0);
    peer.ends(0x81).await;
}

/// 5: MQTT-3.14.2-1
#[tokio::test]
async fn mqtt_3_14_2_1_a_goodbye_has_a_code_of_its_table() {
    let told: Vec<u8> = goodbyes().await.iter().map(|packet| goodbye(packet).0).collect();
    let expected = [
        0x81, 0x82, 0x9B, 0x90, 0x94, 0x95, 0x97, 0x89, 0x8E, 0x8E, 0x87, 0x8B,
    ];
    assert_eq!(told, expected);
}

/// 5: MQTT-3.14.2-2
#[tokio::test]
async fn mqtt_3_14_2_2_a_goodbye_says_nothing_about_the_sessions_time() {
    for packet in goodbyes().await {
        let (_, own) = goodbye(&packet);
        assert!(own.iter().all(|(id, _)| *id != 0x11), "{packet:?}");
    }
}

/// 5: MQTT-3.14.4-1, MQTT-3.14.4-2
#[tokio::test]
async fn mqtt_3_14_4_1_a_goodbye_is_the_last_packet_and_ends_the_connection() {
    let world = World::new().await;
    let version = Version::V5;
    let mut peer = Peer::new(&world, version).await;
    peer.listen(1).await;
    world.cluster.hold(true);
    let all = [
        publish(version, 0x32, TOPIC, 1, (&[], b"x")),
        packet(0xC1, &[]),
        packet(0xC0, &[]),
    ];
    peer.send(&all.concat()).await;
    world.cluster.until_held(1).await;
    peer.ends(0x81).await;
    // The acknowledgement and the message that come too late are nobody's.
    world.cluster.release();
    send(&world, "late").await;
    assert_eq!(peer.next().await, None);
}

/// 5: MQTT-4.13.2-1
#[tokio::test]
async fn mqtt_4_13_2_1_a_code_that_says_no_is_followed_by_the_end() {
    for version in BOTH {
        let world = World::new().await;
        for (name, level) in [("MQTT", 9), ("MQTX", 5)] {
            let connect = Connect {
                name,
                level,
                ..Connect::new(version)
            };
            let mut peer = Peer::dial(&world, version).await;
            peer.send(&connect.bytes()).await;
            // Said to the one, not to the other; both are closed.
            if name == "MQTT" {
                assert_eq!(peer.packet().await.first, 0x20);
            }
            assert_eq!(peer.next().await, None);
        }
        let mut peer = Peer::new(&world, version).await;
        peer.send(&publish(version, 0x34, TOPIC, 1, (&[], b"x"))).await;
        peer.ends(0x9B).await;
    }
}

/// 5: MQTT-3.15.1-1
#[tokio::test]
async fn mqtt_3_15_1_1_an_auth_with_other_flags_ends_the_connection() {
    for first in [0xF1, 0xF2, 0xF8] {
        let world = World::new().await;
        let mut peer = Peer::new(&world, Version::V5).await;
        peer.send(&packet(first, &[0x18, 0])).await;
        peer.ends(0x81).await;
    }
}

/// 5: MQTT-4.12.0-7
#[tokio::test]
async fn mqtt_4_12_0_7_an_auth_that_nobody_began_ends_the_connection() {
    for body in [&[][..], &[0x18, 0], &[0x19, 4, 0x15, 0, 1, b'x']] {
        let world = World::new().await;
        let mut peer = Peer::new(&world, Version::V5).await;
        peer.send(&packet(0xF0, body)).await;
        peer.ends(0x82).await;
    }
}

/// 5: MQTT-3.2.2-19, MQTT-3.2.2-20, MQTT-3.4.2-2, MQTT-3.9.2-1, MQTT-3.9.2-2, MQTT-3.11.2-1, MQTT-3.11.2-2, MQTT-3.14.2-3, MQTT-3.14.2-4
#[tokio::test]
async fn mqtt_3_2_2_19_nothing_is_said_beside_a_code_that_could_make_a_packet_too_large() {
    let world = World::new().await;
    let version = Version::V5;
    let (mut peer, connack) = Peer::admitted(&world, &Connect::new(version)).await;
    let is_extra = |own: &[super::raw::Property]| own.iter().any(|(id, _)| matches!(id, 0x1F | 0x26));
    assert!(!is_extra(&connack.properties));
    let refused = Connect {
        password: None,
        ..Connect::new(version)
    };
    assert!(!is_extra(&refusal(&world, &refused).await.properties));
    peer.tell(1, b"x").await;
    world.cluster.set_storage_full(true);
    let sent = publish(version, 0x32, TOPIC, 2, (&[], b"x"));
    peer.expect(&sent, 0x40, &[0, 2, 0x97]).await;
    let sent = subscribe(version, 3, &[("x", 0), (FILTER, 1)]);
    peer.expect(&sent, 0x90, &[0, 3, 0, 0x8F, 1]).await;
    let sent = unsubscribe(version, 4, &["x"]);
    peer.expect(&sent, 0xB0, &[0, 4, 0, 0]).await;
    for packet in goodbyes().await {
        assert!(!is_extra(&goodbye(&packet).1), "{packet:?}");
    }
}

/// 5: MQTT-3.1.2-29
#[tokio::test]
async fn mqtt_3_1_2_29_whoever_wants_no_problem_information_is_sent_no_receipts() {
    let receipts = user("dunlin-receipt", "1");
    for (wanted, has_receipt) in [(&b""[..], true), (b"\x17\x01", true), (b"\x17\x00", false)] {
        let world = World::new().await;
        let own = [wanted, &receipts].concat();
        let mut peer = Peer::connect(&world, &Connect::with(Version::V5, &own)).await;
        let sent = publish(Version::V5, 0x32, TOPIC, 1, (&[], b"x"));
        peer.send(&sent).await;
        let answer = peer.packet().await;
        assert_eq!((answer.first, &answer.body[..2]), (0x40, &[0, 1][..]));
        assert_eq!(answer.body.len() > 4, has_receipt, "{wanted:?}");
    }
}
