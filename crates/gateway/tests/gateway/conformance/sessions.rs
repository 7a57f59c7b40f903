//! Sessions: which go on, which begin anew, and what a session that is kept keeps. How long MQTT 5 has them kept is in
//! `expiry`.

use super::raw::{BOTH, Connect, FILTER, Peer, send, until_queued};
use crate::world::World;

/// 3.1.1: MQTT-3.1.2-4
#[tokio::test]
async fn mqtt_3_1_2_4_a_session_is_made_kept_and_taken_up_again() {
    let version = dunlin_gateway::mqtt::Version::V3;
    let world = World::new().await;
    let (mut peer, connack) = Peer::admitted(&world, &Connect::new(version)).await;
    assert!(!connack.present(), "there was none, so one is made");
    peer.listen(1).await;
    peer.leave(&world).await;
    let kept = world.cluster.session(&world.device);
    assert_eq!(
        (kept.held_by, kept.subscriptions.get(FILTER)),
        (None, Some(&1)),
        "kept after its connection"
    );
    let (mut peer, connack) = Peer::admitted(&world, &Connect::new(version)).await;
    assert!(connack.present());
    send(&world, "a").await;
    assert_eq!(peer.message().await.text(), "body of a", "without a subscription");
}

/// 5: MQTT-3.1.2-5
#[tokio::test]
async fn mqtt_3_1_2_5_a_session_goes_on_where_it_was() {
    let version = dunlin_gateway::mqtt::Version::V5;
    let world = World::new().await;
    let mut peer = Peer::new(&world, version).await;
    peer.listen(1).await;
    peer.leave(&world).await;
    let (mut peer, connack) = Peer::admitted(&world, &Connect::new(version)).await;
    assert!(connack.present());
    send(&world, "a").await;
    assert_eq!(peer.message().await.text(), "body of a");
}

/// 5: MQTT-3.1.2-6
#[tokio::test]
async fn mqtt_3_1_2_6_where_there_is_none_a_session_is_made() {
    let version = dunlin_gateway::mqtt::Version::V5;
    let world = World::new().await;
    let (mut peer, connack) = Peer::admitted(&world, &Connect::new(version)).await;
    assert!(!connack.present());
    peer.listen(1).await;
    peer.vanish(&world).await;
    let (_peer, connack) = Peer::admitted(&world, &Connect::new(version)).await;
    assert!(connack.present());
}

/// 3.1.1: MQTT-3.1.2-6
/// 5: MQTT-3.1.2-4
#[tokio::test]
async fn mqtt_3_1_2_6_a_clean_start_throws_the_session_away() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        peer.listen(1).await;
        peer.leave(&world).await;
        let mut peer = Peer::connect(&world, &Connect::clean(version)).await;
        assert!(world.cluster.session(&world.device).subscriptions.is_empty());
        send(&world, "a").await;
        peer.quiet().await;
        peer.listen(1).await;
        assert_eq!(peer.message().await.text(), "body of a");
        peer.leave(&world).await;
        // Nor is anything of the clean session used by the next one.
        let (mut peer, connack) = Peer::admitted(&world, &Connect::new(version)).await;
        assert!(!connack.present());
        peer.quiet().await;
        assert!(world.cluster.session(&world.device).subscriptions.is_empty());
    }
}

/// 3.1.1: MQTT-3.1.4-3
/// 5: MQTT-3.1.4-4
#[tokio::test]
async fn mqtt_3_1_4_3_a_clean_start_beside_a_connection_begins_anew() {
    for version in BOTH {
        let world = World::new().await;
        let mut first = Peer::new(&world, version).await;
        first.listen(1).await;
        let (mut second, connack) = Peer::admitted(&world, &Connect::clean(version)).await;
        first.ends(0x8E).await;
        assert!(!connack.present());
        assert!(world.cluster.session(&world.device).subscriptions.is_empty());
        second.quiet().await;
    }
}

/// 3.1.1: MQTT-3.1.2-5
#[tokio::test]
async fn mqtt_3_1_2_5_messages_of_an_absence_are_kept() {
    let version = dunlin_gateway::mqtt::Version::V3;
    let world = World::new().await;
    let mut peer = Peer::new(&world, version).await;
    peer.listen(1).await;
    peer.vanish(&world).await;
    for id in ["a", "b"] {
        send(&world, id).await;
    }
    let mut peer = Peer::new(&world, version).await;
    for (id, packet_id) in [("body of a", 1), ("body of b", 2)] {
        let message = peer.message().await;
        assert_eq!((message.text(), message.id), (id, Some(packet_id)));
    }
}

/// 3.1.1: MQTT-3.2.2-1
/// 5: MQTT-3.2.2-2
#[tokio::test]
async fn mqtt_3_2_2_1_a_clean_start_has_no_session_present() {
    for version in BOTH {
        let world = World::new().await;
        Peer::new(&world, version).await.leave(&world).await;
        let (_peer, connack) = Peer::admitted(&world, &Connect::clean(version)).await;
        assert_eq!((connack.code, connack.flags), (0, 0));
    }
}

/// 3.1.1: MQTT-3.2.2-2
/// 5: MQTT-3.2.2-3
#[tokio::test]
async fn mqtt_3_2_2_2_a_session_that_was_kept_is_present() {
    for version in BOTH {
        let world = World::new().await;
        for present in [0, 1, 1] {
            let (peer, connack) = Peer::admitted(&world, &Connect::new(version)).await;
            assert_eq!((connack.code, connack.flags), (0, present));
            peer.vanish(&world).await;
        }
    }
}

/// 3.1.1: MQTT-3.2.2-3
#[tokio::test]
async fn mqtt_3_2_2_3_a_session_that_was_not_kept_is_not_present() {
    let version = dunlin_gateway::mqtt::Version::V3;
    let world = World::new().await;
    let clean = Peer::connect(&world, &Connect::clean(version)).await;
    clean.leave(&world).await;
    let (_peer, connack) = Peer::admitted(&world, &Connect::new(version)).await;
    assert_eq!((connack.code, connack.flags), (0, 0));
}

/// 3.1.1: MQTT-4.1.0-1
#[tokio::test]
async fn mqtt_4_1_0_1_what_a_session_has_is_kept_from_connection_to_connection() {
    let version = dunlin_gateway::mqtt::Version::V3;
    let world = World::new().await;
    let mut peer = Peer::new(&world, version).await;
    peer.listen(1).await;
    send(&world, "a").await;
    assert_eq!(peer.message().await.id, Some(1));
    for _ in 0..3 {
        peer.vanish(&world).await;
        peer = Peer::new(&world, version).await;
        let message = peer.message().await;
        assert_eq!((message.id, message.dup), (Some(1), true));
    }
    peer.send(&super::raw::puback(1)).await;
    until_queued(&world, 0).await;
    assert_eq!(
        world.cluster.session(&world.device).subscriptions.get(FILTER),
        Some(&1)
    );
}

/// 3.1.1: MQTT-4.1.0-2
/// 5: MQTT-4.1.0-1
#[tokio::test]
async fn mqtt_4_1_0_2_a_session_lasts_as_long_as_its_connection() {
    for version in BOTH {
        let world = World::new().await;
        // Even one that is not to be kept.
        let mut peer = Peer::connect(&world, &Connect::clean(version)).await;
        peer.listen(1).await;
        for id in 1..=100 {
            peer.tell(id, b"x").await;
        }
        send(&world, "a").await;
        assert_eq!(peer.message().await.text(), "body of a");
    }
}

/// 3.1.1: MQTT-4.5.0-1
/// 5: MQTT-4.5.0-1
#[tokio::test]
async fn mqtt_4_5_0_1_a_message_that_was_taken_in_belongs_to_the_session() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        peer.listen(1).await;
        send(&world, "a").await;
        until_queued(&world, 1).await;
        assert_eq!(peer.message().await.text(), "body of a");
        send(&world, "b").await;
        peer.vanish(&world).await;
        send(&world, "c").await;
        let mut peer = Peer::new(&world, version).await;
        for text in ["body of a", "body of b", "body of c"] {
            assert_eq!(peer.message().await.text(), text);
        }
    }
}
