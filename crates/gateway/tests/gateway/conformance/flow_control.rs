//! MQTT 5: how many messages may be unacknowledged, in both directions.

use dunlin_gateway::mqtt::Version;

use super::raw::{Connect, FILTER, Peer, packet, puback, publish, send, stored, subscribe};
use crate::world::{TOPIC, World};

/// A client that takes so many messages at a time, in a world where `count` wait for it.
async fn taking(world: &World, receive_max: Option<u16>, count: u16) -> Peer {
    for n in 1..=count {
        send(world, &n.to_string()).await;
    }
    let own = receive_max.map_or(Vec::new(), |max| {
        [vec![0x21], max.to_be_bytes().to_vec()].concat()
    });
    let mut peer = Peer::connect(world, &Connect::with(Version::V5, &own)).await;
    peer.listen(1).await;
    peer
}

/// The ids of so many messages, after which no more come.
async fn settle(peer: &mut Peer, count: usize) -> Vec<u16> {
    let mut ids = Vec::new();
    while ids.len() < count {
        ids.extend(peer.message().await.id);
    }
    peer.quiet().await;
    ids
}

/// 5: MQTT-3.3.4-9
#[tokio::test]
async fn mqtt_3_3_4_9_a_client_has_no_more_unacknowledged_than_it_takes() {
    for max in [1, 2, 5] {
        let world = World::new().await;
        let mut peer = taking(&world, Some(max), 8).await;
        let first: Vec<u16> = (1..=max).collect();
        assert_eq!(settle(&mut peer, usize::from(max)).await, first);
        // New ones, too, wait.
        send(&world, "later").await;
        peer.quiet().await;
    }
}

/// 5: MQTT-4.9.0-1
#[tokio::test]
async fn mqtt_4_9_0_1_the_first_quota_is_what_the_client_takes_or_less() {
    // Dunlin gives no more than 16 at a time to anybody.
    for (receive_max, quota) in [(Some(1), 1), (Some(16), 16), (Some(u16::MAX), 16), (None, 16)] {
        let world = World::new().await;
        let mut peer = taking(&world, receive_max, 20).await;
        assert_eq!(settle(&mut peer, quota).await.len(), quota);
    }
}

/// 5: MQTT-4.9.0-2
#[tokio::test]
async fn mqtt_4_9_0_2_an_acknowledgement_makes_room_for_one_more() {
    let world = World::new().await;
    let mut peer = taking(&world, Some(2), 6).await;
    assert_eq!(settle(&mut peer, 2).await, [1, 2]);
    peer.send(&puback(2)).await;
    assert_eq!(settle(&mut peer, 1).await, [3]);
    // A refusal is an acknowledgement.
    peer.send(&packet(0x40, &[0, 1, 0x80])).await;
    assert_eq!(settle(&mut peer, 1).await, [4]);
    // What was acknowledged before is not again.
    peer.send(&[puback(2), puback(9)].concat()).await;
    peer.quiet().await;
    peer.send(&[puback(3), puback(4)].concat()).await;
    assert_eq!(settle(&mut peer, 2).await, [5, 6]);
}

/// 5: MQTT-3.3.4-10, MQTT-4.9.0-3
#[tokio::test]
async fn mqtt_3_3_4_10_a_quota_that_is_used_up_holds_nothing_else_back() {
    let world = World::new().await;
    let mut peer = taking(&world, Some(1), 3).await;
    assert_eq!(settle(&mut peer, 1).await, [1]);
    let version = Version::V5;
    peer.tell(50, b"x").await;
    let desired = "$iothub/twin/PATCH/properties/desired/#";
    peer.expect(&subscribe(version, 51, &[(desired, 0)]), 0x90, &[0, 51, 0, 0])
        .await;
    let sent = super::raw::unsubscribe(version, 52, &["$iothub/twin/res/#"]);
    peer.expect(&sent, 0xB0, &[0, 52, 0, 0]).await;
    // QoS 0 has no quota.
    world.cluster.desire(&world.device, r#"{"a":1}"#);
    let note = peer.message().await;
    assert!(note.topic.starts_with("$iothub/twin/PATCH/properties/desired/"));
    peer.send(&packet(0x40, &[0, 9])).await;
    peer.quiet().await;
    let kept = world.cluster.session(&world.device).subscriptions;
    assert_eq!(kept.get(FILTER), Some(&1));
}

/// 5: MQTT-3.3.4-7
#[tokio::test]
async fn mqtt_3_3_4_7_a_client_that_sends_more_than_the_hub_takes_is_told_so() {
    let world = World::new().await;
    let (mut peer, connack) = Peer::admitted(&world, &Connect::new(Version::V5)).await;
    let max = connack.number(0x21).unwrap() as u16;
    assert_eq!(max, 64);
    world.cluster.hold(true);
    for id in 1..=max {
        peer.send(&publish(Version::V5, 0x32, TOPIC, id, (&[], b"x")))
            .await;
    }
    world.cluster.until_held(usize::from(max)).await;
    // As many are no fault, nor is QoS 0 beside them.
    peer.send(&publish(Version::V5, 0x30, TOPIC, 0, (&[], b"0")))
        .await;
    peer.quiet().await;
    world.cluster.release();
    let answer = peer.packet().await;
    assert_eq!((answer.first, &answer.body[..]), (0x40, &[0, 1][..]));
    for id in [max + 1, max + 2] {
        peer.send(&publish(Version::V5, 0x32, TOPIC, id, (&[], b"x")))
            .await;
    }
    peer.ends(0x93).await;
    assert_eq!(stored(&world), [b"x"]);
}
