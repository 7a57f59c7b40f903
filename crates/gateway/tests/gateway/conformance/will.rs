//! Wills: stored with the session, published as telemetry of the device when its connection fails, forgotten when the
//! device says goodbye. What is wrong with a will in a CONNECT is in `connect`.

use dunlin_gateway::mqtt::Version;
use dunlin_model::telemetry::Source;

use super::raw::{BOTH, Connect, Peer, Will, packet, refusal, stored, user};
use crate::world::World;

/// What is stored of the device: sources and property bags.
fn records(world: &World) -> Vec<(Source, String)> {
    let records = world.cluster.records(&world.device);
    let bag = |record: &dunlin_model::telemetry::Record| String::from_utf8(record.bag.to_vec()).unwrap();
    records
        .iter()
        .map(|record| (record.source, bag(record)))
        .collect()
}

/// 3.1.1: MQTT-3.1.2-8
/// 5: MQTT-3.1.2-8
#[tokio::test]
async fn mqtt_3_1_2_8_the_will_of_a_connection_that_fails_is_published() {
    for version in BOTH {
        for qos in [0, 1] {
            let world = World::new().await;
            let will = Will { qos, ..Will::own() };
            let peer = Peer::connect(&world, &Connect::willing(version, will.clone())).await;
            assert_eq!(stored(&world), Vec::<Vec<u8>>::new(), "not before");
            peer.vanish(&world).await;
            world.cluster.until_stored(1).await;
            assert_eq!(stored(&world), [b"gone"]);
            // The hub ends the connection over a packet that makes no sense.
            let mut peer = Peer::connect(&world, &Connect::willing(version, will)).await;
            peer.send(&packet(0xF7, b"")).await;
            peer.ended().await;
            world.cluster.until_stored(2).await;
            // What a device says when another connection of it takes over would be said by nobody.
            let willing = Connect::willing(version, Will { qos, ..Will::own() });
            let mut first = Peer::connect(&world, &willing).await;
            let mut second = Peer::new(&world, version).await;
            first.ends(0x8E).await;
            second.tell(1, b"alive").await;
            assert_eq!(stored(&world), [&b"gone"[..], b"gone", b"alive"]);
        }
    }
    // A delay is not kept: this one would be an hour.
    let world = World::new().await;
    let will = Will {
        properties: b"\x18\x00\x00\x0E\x10".to_vec(),
        ..Will::own()
    };
    let peer = Peer::connect(&world, &Connect::willing(Version::V5, will)).await;
    peer.vanish(&world).await;
    world.cluster.until_stored(1).await;
}

/// 5: MQTT-3.1.2-7
#[tokio::test]
async fn mqtt_3_1_2_7_a_will_is_kept_for_a_session_that_is_open() {
    let world = World::new().await;
    let willing = Connect::willing(Version::V5, Will::own());
    let refused = Connect {
        password: None,
        ..willing.clone()
    };
    assert_ne!(refusal(&world, &refused).await.code, 0);
    let mut peer = Peer::connect(&world, &willing).await;
    peer.tell(1, b"a").await;
    peer.vanish(&world).await;
    world.cluster.until_stored(2).await;
    assert_eq!(stored(&world), [&b"a"[..], b"gone"], "one will, of one session");
}

/// 3.1.1: MQTT-3.1.2-10
/// 5: MQTT-3.1.2-10
#[tokio::test]
async fn mqtt_3_1_2_10_a_will_is_gone_when_it_was_published_or_is_not_wanted() {
    for version in BOTH {
        let world = World::new().await;
        let willing = Connect::willing(version, Will::own());
        Peer::connect(&world, &willing).await.vanish(&world).await;
        world.cluster.until_stored(1).await;
        // The session goes on, and has no will any more.
        Peer::new(&world, version).await.vanish(&world).await;
        Peer::connect(&world, &willing).await.leave(&world).await;
        let mut peer = Peer::new(&world, version).await;
        peer.tell(1, b"last").await;
        peer.vanish(&world).await;
        assert_eq!(stored(&world), [&b"gone"[..], b"last"]);
    }
}

/// 3.1.1: MQTT-3.1.2-12
#[tokio::test]
async fn mqtt_3_1_2_12_without_a_will_none_is_published() {
    let world = World::new().await;
    Peer::new(&world, Version::V3).await.vanish(&world).await;
    let mut peer = Peer::new(&world, Version::V3).await;
    peer.tell(1, b"alone").await;
    assert_eq!(stored(&world), [b"alone"]);
}

/// 3.1.1: MQTT-3.1.2-16
/// 5: MQTT-3.1.2-14
#[tokio::test]
async fn mqtt_3_1_2_16_a_will_that_is_not_to_be_retained_is_a_message() {
    for version in BOTH {
        let world = World::new().await;
        let willing = Connect::willing(version, Will::own());
        Peer::connect(&world, &willing).await.vanish(&world).await;
        world.cluster.until_stored(1).await;
        let expected = (Source::Will, "w=1&iothub-MessageType=Will".to_owned());
        assert_eq!(records(&world), [expected]);
    }
}

/// 3.1.1: MQTT-3.1.2-17
/// 5: MQTT-3.1.2-15
#[tokio::test]
async fn mqtt_3_1_2_17_a_will_that_is_to_be_retained_is_a_message_all_the_same() {
    for version in BOTH {
        let world = World::new().await;
        let will = Will {
            retain: true,
            ..Will::own()
        };
        let mut peer = Peer::connect(&world, &Connect::willing(version, will)).await;
        peer.listen(1).await;
        peer.vanish(&world).await;
        world.cluster.until_stored(1).await;
        assert_eq!(records(&world)[0].0, Source::Will);
        let mut peer = Peer::new(&world, version).await;
        peer.listen(1).await;
        peer.quiet().await;
    }
}

/// 5: MQTT-3.1.3-10
#[tokio::test]
async fn mqtt_3_1_3_10_properties_of_a_will_keep_their_order() {
    let world = World::new().await;
    let own = [user("z", "1"), user("a", "2"), user("z", "3")].concat();
    let will = Will {
        properties: own,
        ..Will::own()
    };
    let peer = Peer::connect(&world, &Connect::willing(Version::V5, will)).await;
    peer.vanish(&world).await;
    world.cluster.until_stored(1).await;
    let expected = "w=1&iothub-MessageType=Will&z=1&a=2&z=3";
    assert_eq!(records(&world)[0].1, expected);
}

/// 5: MQTT-3.2.2-12
#[tokio::test]
async fn mqtt_3_2_2_12_a_will_of_qos_2_is_refused() {
    let world = World::new().await;
    let will = Will {
        qos: 2,
        ..Will::own()
    };
    let connack = refusal(&world, &Connect::willing(Version::V5, will)).await;
    assert_eq!((connack.code, connack.flags), (0x9B, 0));
}

/// 3.1.1: MQTT-3.14.4-3
/// 5: MQTT-3.14.4-3
#[tokio::test]
async fn mqtt_3_14_4_3_whoever_says_goodbye_takes_the_will_along() {
    for version in BOTH {
        let world = World::new().await;
        let willing = Connect::willing(version, Will::own());
        Peer::connect(&world, &willing).await.leave(&world).await;
        let mut peer = Peer::connect(&world, &willing).await;
        peer.tell(1, b"x").await;
        assert_eq!(stored(&world), [b"x"]);
        if version == Version::V5 {
            // Goodbye, and publish it.
            peer.send(&packet(0xE0, &[4])).await;
            assert_eq!(peer.next().await, None);
            world.cluster.until_stored(2).await;
            assert_eq!(stored(&world), [&b"x"[..], b"gone"]);
        }
    }
}
