//! How long MQTT 5 has a session kept, and messages: the hub says in CONNACK what it does, which is all or nothing.

use dunlin_gateway::mqtt::Version;

use super::raw::{Connect, FILTER, Peer, packet, send, send_with};
use crate::world::World;

const EXPIRY: u8 = 0x11;

/// 5: MQTT-3.1.2-23
#[tokio::test]
async fn mqtt_3_1_2_23_a_session_that_is_said_to_be_kept_is_kept() {
    let world = World::new().await;
    for wanted in [&b"\x11\x00\x00\x00\x3C"[..], b"\x11\xFF\xFF\xFF\xFF", b""] {
        let (mut peer, connack) = Peer::admitted(&world, &Connect::with(Version::V5, wanted)).await;
        assert_eq!(connack.number(EXPIRY), Some(u32::MAX), "it is kept for good");
        peer.listen(1).await;
        peer.vanish(&world).await;
        let (peer, connack) = Peer::admitted(&world, &Connect::new(Version::V5)).await;
        assert!(connack.present());
        let kept = world.cluster.session(&world.device).subscriptions;
        assert_eq!(kept.get(FILTER), Some(&1));
        peer.leave(&world).await;
    }
}

/// 5: MQTT-4.1.0-2
#[tokio::test]
async fn mqtt_4_1_0_2_a_session_of_no_time_ends_with_its_connection() {
    let world = World::new().await;
    for wanted in [&b""[..], b"\x11\x00\x00\x00\x3C"] {
        let clean = Connect {
            properties: wanted.to_vec(),
            ..Connect::clean(Version::V5)
        };
        let (mut peer, connack) = Peer::admitted(&world, &clean).await;
        assert_eq!(connack.number(EXPIRY), Some(0), "whatever was asked for");
        peer.listen(1).await;
        peer.vanish(&world).await;
        let (mut peer, connack) = Peer::admitted(&world, &Connect::new(Version::V5)).await;
        assert!(!connack.present());
        send(&world, "a").await;
        peer.quiet().await;
        // What a goodbye says of it changes nothing.
        peer.send(&packet(0xE0, &[0, 5, 0x11, 0, 0, 0, 0])).await;
        assert_eq!(peer.next().await, None);
        world.cluster.until_disconnected(&world.device).await;
        let (peer, connack) = Peer::admitted(&world, &Connect::new(Version::V5)).await;
        assert!(connack.present());
        peer.leave(&world).await;
    }
}

/// 5: MQTT-3.3.2-5
#[tokio::test]
async fn mqtt_3_3_2_5_a_message_whose_time_is_over_is_not_delivered() {
    let world = World::new().await;
    send_with(&world, "late", "", Some(0)).await;
    send_with(&world, "early", "", Some(86_400_000)).await;
    let mut peer = Peer::new(&world, Version::V5).await;
    peer.listen(1).await;
    assert_eq!(peer.message().await.text(), "body of early");
    peer.quiet().await;
}
