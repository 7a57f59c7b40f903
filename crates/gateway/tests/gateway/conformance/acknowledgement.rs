//! QoS 1 in both directions: packet ids, PUBACK, and what is sent again. QoS 2 is not offered.

use dunlin_gateway::mqtt::Version;
use dunlin_model::command::TelemetryAck;

use super::raw::{
    BOTH, Connect, FILTER, Peer, packet, puback, publish, send, stored, subscribe, unsubscribe, until_queued,
};
use crate::world::{TOPIC, World};

/// 3.1.1: MQTT-2.3.1-6
/// 5: MQTT-2.2.1-5
#[tokio::test]
async fn mqtt_2_3_1_6_a_puback_has_the_id_of_its_publish() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        for id in [1, 2, 300, u16::MAX, 1] {
            peer.tell(id, b"x").await;
        }
    }
}

/// 3.1.1: MQTT-2.3.1-7
/// 5: MQTT-2.2.1-6
#[tokio::test]
async fn mqtt_2_3_1_7_suback_and_unsuback_have_the_id_of_their_packet() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        for id in [1, 300, u16::MAX] {
            let body = peer.filter_ack(id, &[1]);
            peer.expect(&subscribe(version, id, &[(FILTER, 1)]), 0x90, &body)
                .await;
            let body = peer.unsuback(id, &[0]);
            peer.expect(&unsubscribe(version, id, &[FILTER]), 0xB0, &body)
                .await;
        }
    }
}

/// 3.1.1: MQTT-2.3.1-4
/// 5: MQTT-2.2.1-4, MQTT-4.3.2-1
#[tokio::test]
async fn mqtt_2_3_1_4_messages_have_ids_that_are_not_in_use() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        peer.listen(1).await;
        let mut in_use = Vec::new();
        for n in 0..24 {
            send(&world, &n.to_string()).await;
            let id = peer.message().await.id.unwrap();
            assert!(id > 0 && !in_use.contains(&id), "{id} beside {in_use:?}");
            in_use.push(id);
            if in_use.len() > 8 {
                // Not the oldest one.
                let done = in_use.remove(3);
                peer.send(&puback(done)).await;
                until_queued(&world, in_use.len() as u32).await;
            }
        }
    }
}

/// 3.1.1: MQTT-2.3.1-5
/// 5: MQTT-2.2.1-2
#[tokio::test]
async fn mqtt_2_3_1_5_what_has_qos_0_has_no_id() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        peer.listen(0).await;
        send(&world, "a").await;
        let packet = peer.packet().await;
        assert_eq!(packet.first, 0x30);
        let topic = super::raw::text("devices/dev-1/messages/devicebound/");
        let own = super::raw::properties(version, &[]);
        assert_eq!(packet.body, [topic, own, b"body of a".to_vec()].concat());
    }
}

/// 5: MQTT-4.3.2-2
#[tokio::test]
async fn mqtt_4_3_2_2_a_new_message_has_an_id_and_did_not_come_before() {
    let world = World::new().await;
    let mut peer = Peer::new(&world, Version::V5).await;
    peer.listen(1).await;
    send(&world, "a").await;
    let message = peer.message().await;
    assert_eq!((message.qos, message.id, message.dup), (1, Some(1), false));
}

/// 3.1.1: MQTT-4.3.2-1
/// 5: MQTT-4.3.2-3
#[tokio::test]
async fn mqtt_4_3_2_1_a_message_is_unacknowledged_until_its_own_puback() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        peer.listen(1).await;
        send(&world, "a").await;
        let message = peer.message().await;
        assert_eq!((message.qos, message.id, message.dup), (1, Some(1), false));
        // Of nobody, and of one that was settled before.
        peer.send(&[puback(2), puback(u16::MAX)].concat()).await;
        peer.quiet().await;
        peer.vanish(&world).await;
        until_queued(&world, 1).await;
        let mut peer = Peer::new(&world, version).await;
        assert_eq!(peer.message().await.id, Some(1));
        peer.send(&puback(1)).await;
        until_queued(&world, 0).await;
        peer.vanish(&world).await;
        Peer::new(&world, version).await.quiet().await;
    }
}

/// Publishes under an id, and is told that the hub has it as soon as it has, and not before.
async fn owned(world: &World, peer: &mut Peer, first: u8, id: u16, payload: &[u8]) {
    let before = stored(world).len();
    world.cluster.hold(true);
    peer.send(&publish(peer.version, first, TOPIC, id, (&[], payload)))
        .await;
    world.cluster.until_held(1).await;
    peer.quiet().await;
    assert_eq!(stored(world).len(), before);
    world.cluster.release();
    let answer = peer.packet().await;
    assert_eq!((answer.first, &answer.body[..]), (0x40, &id.to_be_bytes()[..]));
    assert_eq!(stored(world)[before..], [payload]);
}

/// 3.1.1: MQTT-4.3.2-2
#[tokio::test]
async fn mqtt_4_3_2_2_an_id_is_free_once_the_hub_has_its_message() {
    let world = World::new().await;
    let mut peer = Peer::new(&world, Version::V3).await;
    owned(&world, &mut peer, 0x32, 7, b"x").await;
    // Under the same id, as if it had come before, and not: messages of their own.
    owned(&world, &mut peer, 0x3A, 7, b"x").await;
    owned(&world, &mut peer, 0x32, 7, b"y").await;
    assert_eq!(stored(&world), [b"x", b"x", b"y"]);
}

/// 5: MQTT-4.3.2-4
#[tokio::test]
async fn mqtt_4_3_2_4_a_puback_comes_when_the_hub_has_the_message() {
    let world = World::new().await;
    let mut peer = Peer::new(&world, Version::V5).await;
    for id in [7, u16::MAX] {
        owned(&world, &mut peer, 0x32, id, b"x").await;
    }
}

/// 5: MQTT-4.3.2-5
#[tokio::test]
async fn mqtt_4_3_2_5_an_id_that_was_acknowledged_is_free_whatever_dup_says() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        for first in [0x32, 0x3A, 0x3A] {
            let sent = publish(version, first, TOPIC, 7, (&[], b"x"));
            peer.expect(&sent, 0x40, &[0, 7]).await;
        }
        assert_eq!(stored(&world), [b"x", b"x", b"x"]);
    }
}

/// 3.1.1: MQTT-3.3.1-1
/// 5: MQTT-3.3.1-1
#[tokio::test]
async fn mqtt_3_3_1_1_what_is_sent_again_says_so() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        peer.listen(1).await;
        send(&world, "a").await;
        assert!(!peer.message().await.dup);
        for _ in 0..2 {
            peer.vanish(&world).await;
            peer = Peer::new(&world, version).await;
            assert!(peer.message().await.dup);
        }
    }
}

/// 3.1.1: MQTT-4.4.0-1
/// 5: MQTT-4.4.0-1
#[tokio::test]
async fn mqtt_4_4_0_1_what_was_not_acknowledged_comes_again_under_its_id() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        peer.listen(1).await;
        for id in ["a", "b", "c"] {
            send(&world, id).await;
            peer.message().await;
        }
        peer.send(&puback(2)).await;
        until_queued(&world, 2).await;
        peer.quiet().await;
        // An end of either kind.
        match version {
            Version::V3 => peer.vanish(&world).await,
            Version::V5 => peer.leave(&world).await,
        }
        let mut peer = Peer::new(&world, version).await;
        for (text, id) in [("body of a", 1), ("body of c", 3)] {
            let message = peer.message().await;
            assert_eq!((message.text(), message.id), (text, Some(id)));
            assert!(message.dup && message.qos == 1);
        }
        // And not while the connection lasts.
        peer.quiet().await;
        // To a clean session as well, once it listens: the queue is the device's.
        let mut peer = Peer::connect(&world, &Connect::clean(version)).await;
        peer.listen(1).await;
        let message = peer.message().await;
        assert_eq!((message.id, message.dup), (Some(1), true));
    }
}

/// 5: MQTT-4.4.0-2
#[tokio::test]
async fn mqtt_4_4_0_2_what_a_client_refused_is_not_sent_again() {
    let world = World::new().await;
    let mut peer = Peer::new(&world, Version::V5).await;
    peer.listen(1).await;
    for (id, reason) in [("a", 0x80), ("b", 0x99)] {
        send(&world, id).await;
        let id = peer.message().await.id.unwrap();
        peer.send(&packet(0x40, &[(id >> 8) as u8, id as u8, reason]))
            .await;
        until_queued(&world, 0).await;
    }
    peer.vanish(&world).await;
    Peer::new(&world, Version::V5).await.quiet().await;
}

/// 5: MQTT-3.4.2-1
#[tokio::test]
async fn mqtt_3_4_2_1_a_puback_has_a_code_of_its_table() {
    let world = World::new().await;
    let mut peer = Peer::new(&world, Version::V5).await;
    // Success needs no code.
    peer.tell(1, b"x").await;
    world.cluster.set_storage_full(true);
    let sent = publish(Version::V5, 0x32, TOPIC, 2, (&[], b"x"));
    peer.expect(&sent, 0x40, &[0, 2, 0x97]).await;
    world.cluster.set_storage_full(false);
    peer.tell(3, b"x").await;
    assert_eq!(stored(&world).len(), 2);
}

/// 3.1.1: MQTT-3.6.1-1
/// 5: MQTT-3.6.1-1
#[tokio::test]
async fn mqtt_3_6_1_1_a_pubrel_with_other_flags_ends_the_connection() {
    for version in BOTH {
        for first in [0x60, 0x61, 0x63, 0x6A] {
            let world = World::new().await;
            let mut peer = Peer::new(&world, version).await;
            peer.send(&packet(first, &[0, 1])).await;
            peer.ends(0x81).await;
        }
    }
}

/// 3.1.1: MQTT-4.8.0-2
#[tokio::test]
async fn mqtt_4_8_0_2_what_cannot_be_done_now_ends_the_connection() {
    let world = World::new().await;
    let mut peer = Peer::new(&world, Version::V3).await;
    world.cluster.hold(true);
    peer.send(&publish(Version::V3, 0x32, TOPIC, 1, (&[], b"x")))
        .await;
    world.cluster.until_held(1).await;
    world.cluster.release_as(TelemetryAck::Unknown);
    assert_eq!(peer.ended().await, None);
    world.cluster.hold(false);
    world.cluster.until_disconnected(&world.device).await;
    let mut peer = Peer::connect(&world, &Connect::new(Version::V3)).await;
    peer.tell(1, b"x").await;
}
