//! Topic names and filters: wildcards, what may stand in them, and that they are compared as they are.

use dunlin_gateway::mqtt::Version;

use super::raw::{BOTH, Peer, properties, publish, send, stored, subscribe, text};
use crate::world::World;

/// None of these filters is granted, and nothing comes of them.
async fn refused(filters: &[&str]) {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        let code = match version {
            Version::V3 => 0x80,
            Version::V5 => 0x8F,
        };
        for filter in filters {
            let body = peer.filter_ack(1, &[code]);
            peer.expect(&subscribe(version, 1, &[(filter, 1)]), 0x90, &body)
                .await;
        }
        send(&world, "a").await;
        world.cluster.desire(&world.device, r#"{"a":1}"#);
        peer.quiet().await;
        assert!(world.cluster.session(&world.device).subscriptions.is_empty());
    }
}

/// 3.1.1: MQTT-4.7.1-2
/// 5: MQTT-4.7.1-1
#[tokio::test]
async fn mqtt_4_7_1_2_a_wildcard_for_many_levels_is_alone_and_last() {
    refused(&[
        "devices/dev-1/messages/devicebound#",
        "devices/dev-1/messages/devicebound/#/",
        "devices/dev-1/messages/#/devicebound",
        "#/devicebound",
        "$iothub/twin/res/##",
    ])
    .await;
}

/// 3.1.1: MQTT-4.7.1-3
/// 5: MQTT-4.7.1-2
#[tokio::test]
async fn mqtt_4_7_1_3_a_wildcard_for_one_level_is_alone_in_it() {
    refused(&[
        "devices/dev+/messages/devicebound/#",
        "devices/dev-1/messages+/#",
        "devices/+dev-1/messages/devicebound/#",
        "$iothub/twin/+es/#",
    ])
    .await;
}

/// 3.1.1: MQTT-4.7.2-1
/// 5: MQTT-4.7.2-1
#[tokio::test]
async fn mqtt_4_7_2_1_a_wildcard_in_front_fits_nothing_of_the_hubs() {
    refused(&[
        "#",
        "+/#",
        "+/twin/PATCH/properties/desired/#",
        "+/dev-1/messages/devicebound/#",
    ])
    .await;
}

/// 3.1.1: MQTT-4.7.3-1
/// 5: MQTT-4.7.3-1
#[tokio::test]
async fn mqtt_4_7_3_1_a_topic_and_a_filter_have_a_character() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        peer.send(&publish(version, 0x32, "", 1, (&[], b"x"))).await;
        peer.ends(match version {
            Version::V3 => 0,
            // Without a topic alias.
            Version::V5 => 0x82,
        })
        .await;
        assert_eq!(stored(&world), Vec::<Vec<u8>>::new());
        let mut peer = Peer::new(&world, version).await;
        let sent = subscribe(version, 1, &[("", 1)]);
        match version {
            Version::V3 => {
                peer.send(&sent).await;
                assert_eq!(peer.ended().await, None);
            }
            Version::V5 => peer.expect(&sent, 0x90, &[0, 1, 0, 0x8F]).await,
        }
        assert!(world.cluster.session(&world.device).subscriptions.is_empty());
    }
}

/// 3.1.1: MQTT-4.7.3-2
/// 5: MQTT-4.7.3-2
#[tokio::test]
async fn mqtt_4_7_3_2_a_topic_and_a_filter_have_no_null_character() {
    for version in BOTH {
        let own = properties(version, &[]);
        let filter = text(b"a\x00");
        let subscribing = [vec![0, 1], own.clone(), filter.clone(), vec![1]].concat();
        let ending = [vec![0, 1], own, filter].concat();
        let topic = "devices/dev-1/messages/events/a=\0";
        for sent in [
            publish(version, 0x32, topic, 1, (&[], b"x")),
            super::raw::packet(0x82, &subscribing),
            super::raw::packet(0xA2, &ending),
        ] {
            let world = World::new().await;
            let mut peer = Peer::new(&world, version).await;
            peer.send(&sent).await;
            peer.ends(0x81).await;
            assert_eq!(stored(&world), Vec::<Vec<u8>>::new());
        }
    }
}

/// 3.1.1: MQTT-4.7.3-4
/// 5: MQTT-4.7.3-4
#[tokio::test]
async fn mqtt_4_7_3_4_topics_are_compared_as_they_are() {
    refused(&[
        "devices/DEV-1/messages/devicebound/#",
        "Devices/dev-1/messages/devicebound/#",
        "devices/dev%2D1/messages/devicebound/#",
        "devices//dev-1/messages/devicebound/#",
        "/devices/dev-1/messages/devicebound/#",
        "devices/dev-1/messages/devicebound/./#",
        "devices/dev-\u{FF11}/messages/devicebound/#",
    ])
    .await;
    for topic in [
        "devices/DEV-1/messages/events/",
        "devices/dev%2D1/messages/events/",
        "devices//dev-1/messages/events/",
        "/devices/dev-1/messages/events/",
    ] {
        for version in BOTH {
            let world = World::new().await;
            let mut peer = Peer::new(&world, version).await;
            peer.send(&publish(version, 0x32, topic, 1, (&[], b"x"))).await;
            peer.ends(0x90).await;
            assert_eq!(stored(&world), Vec::<Vec<u8>>::new());
        }
    }
    // Both spellings of a letter with an accent stay what they are.
    let world = World::new().await;
    let mut peer = Peer::new(&world, Version::V3).await;
    for (id, spelling) in [(1, "a=\u{E9}"), (2, "a=e\u{301}")] {
        let topic = format!("devices/dev-1/messages/events/{spelling}");
        let sent = publish(Version::V3, 0x32, topic, id, (&[], b"x"));
        peer.expect(&sent, 0x40, &id.to_be_bytes()).await;
    }
    let bags = world.cluster.records(&world.device);
    let bags: Vec<&[u8]> = bags.iter().map(|record| &record.bag[..]).collect();
    assert_eq!(bags, ["a=\u{E9}".as_bytes(), "a=e\u{301}".as_bytes()]);
}
