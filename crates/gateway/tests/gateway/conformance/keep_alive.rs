//! Silence: what is asked of a client that says nothing, and when its connection ends over it.
//!
//! These tests wait for the hub's own clock, since what they look at is a time: a second and a half.

use std::time::{Duration, Instant};

use dunlin_gateway::mqtt::Version;

use super::raw::{BOTH, Connect, Peer, Will, stored};
use crate::world::World;

/// A client that asked for a keep-alive of one second and says nothing more. How long until it is cut off?
async fn silent(version: Version) {
    let world = World::new().await;
    let connect = Connect {
        keep_alive_s: 1,
        ..Connect::willing(version, Will::own())
    };
    let mut peer = Peer::connect(&world, &connect).await;
    let began = Instant::now();
    peer.ends(0x8D).await;
    let passed = began.elapsed();
    assert!(passed > Duration::from_millis(1400), "{passed:?}");
    assert!(passed < Duration::from_secs(10), "{passed:?}");
    // As if the network had failed: the will speaks.
    world.cluster.until_stored(1).await;
    assert_eq!(stored(&world), [b"gone"]);
}

/// 3.1.1: MQTT-3.1.2-24
/// 5: MQTT-3.1.2-22
#[tokio::test]
async fn mqtt_3_1_2_24_one_and_a_half_keep_alives_of_silence_end_the_connection() {
    tokio::join!(silent(Version::V3), silent(Version::V5));
}

/// 5: MQTT-3.2.2-22
#[tokio::test]
async fn mqtt_3_2_2_22_a_keep_alive_that_is_not_replaced_is_the_clients() {
    const SERVER_KEEP_ALIVE: u8 = 0x13;
    let world = World::new().await;
    for (asked, told) in [
        (0, Some(1177)),
        (1177, None),
        (1178, Some(1177)),
        (u16::MAX, Some(1177)),
        (1, None),
    ] {
        let connect = Connect {
            keep_alive_s: asked,
            ..Connect::new(Version::V5)
        };
        let (mut peer, connack) = Peer::admitted(&world, &connect).await;
        assert_eq!(connack.number(SERVER_KEEP_ALIVE), told, "{asked}");
        if asked == 1 {
            peer.ends(0x8D).await;
        }
    }
}

/// 3.1.1: MQTT-3.12.4-1
/// 5: MQTT-3.12.4-1
#[tokio::test]
async fn mqtt_3_12_4_1_every_ping_is_answered() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        peer.send(&[0xC0, 0, 0xC0, 0, 0xC0, 0]).await;
        for _ in 0..3 {
            let answer = peer.packet().await;
            assert_eq!((answer.first, answer.body), (0xD0, Vec::new()));
        }
        peer.quiet().await;
    }
}
