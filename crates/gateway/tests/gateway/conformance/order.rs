//! In what order packets leave: acknowledgements, messages, and messages that are sent again.

use super::raw::{BOTH, Peer, publish, send, stored};
use crate::world::{TOPIC, World};

/// 3.1.1: MQTT-4.6.0-1
/// 5: MQTT-4.6.0-1
#[tokio::test]
async fn mqtt_4_6_0_1_what_is_sent_again_keeps_its_order() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        peer.listen(1).await;
        let mut ids = Vec::new();
        for n in 0..10 {
            send(&world, &n.to_string()).await;
            ids.push(peer.message().await.id);
        }
        peer.vanish(&world).await;
        let mut peer = Peer::new(&world, version).await;
        for id in ids {
            let message = peer.message().await;
            assert!(message.dup);
            assert_eq!(message.id, id);
        }
    }
}

/// 3.1.1: MQTT-4.6.0-2
/// 5: MQTT-4.6.0-2
#[tokio::test]
async fn mqtt_4_6_0_2_pubacks_leave_in_the_order_of_their_publishes() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        let ids: Vec<u16> = (0..60u32).map(|n| (n * 7919 % 1000) as u16 + 1).collect();
        let mut all = Vec::new();
        for id in &ids {
            all.extend_from_slice(&publish(version, 0x32, TOPIC, *id, (&[], b"x")));
        }
        // A request in their midst is answered in its turn.
        all.extend_from_slice(&publish(
            version,
            0x32,
            "$iothub/twin/GET/?$rid=1",
            2000,
            (&[], b" "),
        ));
        all.extend_from_slice(&publish(version, 0x32, TOPIC, 2001, (&[], b"x")));
        peer.send(&all).await;
        let mut acknowledged = Vec::new();
        while acknowledged.len() < ids.len() + 2 {
            let packet = peer.packet().await;
            if packet.first == 0x40 {
                acknowledged.push(u16::from_be_bytes([packet.body[0], packet.body[1]]));
            }
        }
        let expected = [ids, vec![2000, 2001]].concat();
        assert_eq!(acknowledged, expected);
    }
}

/// 3.1.1: MQTT-4.6.0-5
/// 5: MQTT-4.6.0-6
#[tokio::test]
async fn mqtt_4_6_0_5_every_topic_is_an_ordered_one() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        let mut all = Vec::new();
        // Properties stand in the topic, so that these are many topics; QoS 0 and 1 among each other.
        for n in 0..50u16 {
            let topic = format!("devices/dev-1/messages/events/n={}", n % 7);
            let first = if n % 3 == 0 { 0x30 } else { 0x32 };
            all.extend_from_slice(&publish(version, first, topic, n + 1, (&[], &n.to_be_bytes())));
        }
        peer.send(&all).await;
        world.cluster.until_stored(50).await;
        let expected: Vec<Vec<u8>> = (0..50u16).map(|n| n.to_be_bytes().to_vec()).collect();
        assert_eq!(stored(&world), expected);
    }
}

/// 3.1.1: MQTT-4.6.0-6
/// 5: MQTT-4.6.0-5
#[tokio::test]
async fn mqtt_4_6_0_6_messages_come_in_the_order_in_which_they_were_taken() {
    for version in BOTH {
        for qos in [0, 1] {
            let world = World::new().await;
            for n in 0..20 {
                send(&world, &n.to_string()).await;
            }
            let mut peer = Peer::new(&world, version).await;
            peer.listen(qos).await;
            for n in 0..20 {
                let message = peer.message().await;
                assert_eq!(message.text(), format!("body of {n}"));
                if let Some(id) = message.id {
                    peer.send(&super::raw::puback(id)).await;
                }
            }
        }
    }
}
