//! CONNACK: what an admitted client is told, and what stands in it for those that are not. Whether a session goes on is in
//! `sessions`.

use dunlin_gateway::mqtt::Version;

use super::raw::{BOTH, Connect, FILTER, Peer, refusal, send, subscribe};
use crate::world::World;

/// 3.1.1: MQTT-3.2.0-1
/// 5: MQTT-3.2.0-1
#[tokio::test]
async fn mqtt_3_2_0_1_the_first_packet_is_a_connack() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        peer.listen(1).await;
        peer.leave(&world).await;
        send(&world, "waits").await;
        // Everything at once: the message that waits and the pong come after the CONNACK.
        let mut peer = Peer::dial(&world, version).await;
        let all = [Connect::new(version).bytes(), vec![0xC0, 0]].concat();
        peer.send(&all).await;
        assert_eq!(peer.packet().await.first, 0x20);
        let mut kinds = [peer.packet().await.first >> 4, peer.packet().await.first >> 4];
        kinds.sort_unstable();
        assert_eq!(kinds, [0x3, 0xD]);
    }
}

/// 5: MQTT-3.2.0-2
#[tokio::test]
async fn mqtt_3_2_0_2_there_is_one_connack() {
    let world = World::new().await;
    let connect = Connect::new(Version::V5).bytes();
    let mut peer = Peer::dial(&world, Version::V5).await;
    peer.send(&[connect.clone(), connect].concat()).await;
    assert_eq!(peer.packet().await.first, 0x20);
    peer.ends(0x82).await;
}

/// 5: MQTT-3.2.2-1
#[tokio::test]
async fn mqtt_3_2_2_1_reserved_flags_are_0() {
    let world = World::new().await;
    for present in [0, 1] {
        let (peer, connack) = Peer::admitted(&world, &Connect::new(Version::V5)).await;
        assert_eq!(connack.flags, present);
        peer.leave(&world).await;
    }
    let refused = Connect {
        password: None,
        ..Connect::new(Version::V5)
    };
    assert_eq!(refusal(&world, &refused).await.flags, 0);
}

/// 3.1.1: MQTT-3.2.2-4
/// 5: MQTT-3.2.2-6
#[tokio::test]
async fn mqtt_3_2_2_4_a_refusal_says_that_there_is_no_session() {
    for version in BOTH {
        let world = World::new().await;
        Peer::new(&world, version).await.leave(&world).await;
        world.cluster.set_cut_off(true);
        let connack = refusal(&world, &Connect::new(version)).await;
        assert!(connack.code != 0 && !connack.present());
        world.cluster.set_cut_off(false);
        let (_peer, connack) = Peer::admitted(&world, &Connect::new(version)).await;
        assert!(connack.present(), "there was one all the time");
    }
}

/// 3.1.1: MQTT-3.2.2-5
/// 5: MQTT-3.2.2-7
#[tokio::test]
async fn mqtt_3_2_2_5_a_refusal_ends_the_connection() {
    for (version, code) in [(Version::V3, 3), (Version::V5, 0x88)] {
        let world = World::new().await;
        world.cluster.set_cut_off(true);
        let mut peer = Peer::dial(&world, version).await;
        peer.send(&Connect::new(version).bytes()).await;
        assert_eq!(peer.packet().await.body[1], code);
        assert_eq!(peer.next().await, None);
    }
}

/// 3.1.1: MQTT-3.2.2-6
#[tokio::test]
async fn mqtt_3_2_2_6_what_no_code_is_for_is_closed_without_an_answer() {
    let world = World::with_connections_max(1).await;
    let mut first = Peer::new(&world, Version::V3).await;
    // There is no code for a gateway that has as many connections as it may.
    let mut second = Peer::dial(&world, Version::V3).await;
    second.send(&Connect::new(Version::V3).bytes()).await;
    assert_eq!(second.next().await, None);
    first.quiet().await;
}

/// 5: MQTT-3.2.2-8
#[tokio::test]
async fn mqtt_3_2_2_8_refusals_have_codes_of_their_table() {
    let world = World::new().await;
    let right = Connect::new(Version::V5);
    let of_another = Connect {
        client_id: b"dev-2".to_vec(),
        ..right.clone()
    };
    let of_nobody = Connect {
        username: None,
        password: None,
        ..right.clone()
    };
    let exchange = Connect::with(Version::V5, b"\x15\x00\x01x");
    for (connect, code) in [(of_another, 0x85), (of_nobody, 0x87), (exchange, 0x8C)] {
        assert_eq!(refusal(&world, &connect).await.code, code);
    }
    world.cluster.set_silent(true);
    assert_eq!(refusal(&world, &right).await.code, 0x88);
}

/// 5: MQTT-3.2.2-9
#[tokio::test]
async fn mqtt_3_2_2_9_the_highest_qos_is_told() {
    let world = World::new().await;
    let (_peer, connack) = Peer::admitted(&world, &Connect::new(Version::V5)).await;
    assert_eq!(connack.number(0x24), Some(1));
}

/// 5: MQTT-3.2.2-10
#[tokio::test]
async fn mqtt_3_2_2_10_a_subscription_of_any_qos_is_taken() {
    let world = World::new().await;
    let mut peer = Peer::new(&world, Version::V5).await;
    for (wanted, granted) in [(0, 0), (1, 1), (2, 1)] {
        let sent = subscribe(Version::V5, 9, &[(FILTER, wanted)]);
        peer.expect(&sent, 0x90, &[0, 9, 0, granted]).await;
    }
}

/// 5: MQTT-3.1.2-28
#[tokio::test]
async fn mqtt_3_1_2_28_response_information_is_never_returned() {
    let world = World::new().await;
    for asked in [&b""[..], b"\x19\x00", b"\x19\x01"] {
        let (_peer, connack) = Peer::admitted(&world, &Connect::with(Version::V5, asked)).await;
        assert!(connack.properties.iter().all(|(id, _)| *id != 0x1A));
    }
}

/// 5: MQTT-4.12.0-1
#[tokio::test]
async fn mqtt_4_12_0_1_an_exchange_that_is_not_offered_is_refused_and_closed() {
    let world = World::new().await;
    for method in ["SCRAM-SHA-1", "x"] {
        let own = [vec![0x15], super::raw::text(method)].concat();
        let connack = refusal(&world, &Connect::with(Version::V5, &own)).await;
        assert_eq!(connack.code, 0x8C);
    }
}

/// 5: MQTT-4.12.0-6
#[tokio::test]
async fn mqtt_4_12_0_6_nobody_is_asked_for_an_exchange() {
    let world = World::new().await;
    let (mut peer, connack) = Peer::admitted(&world, &Connect::new(Version::V5)).await;
    assert!(
        connack
            .properties
            .iter()
            .all(|(id, _)| !matches!(id, 0x15 | 0x16))
    );
    peer.quiet().await;
}
