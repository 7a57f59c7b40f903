//! Topic aliases of MQTT 5: a client may set some, the hub sets none.

use dunlin_gateway::mqtt::Version;

use super::raw::{Connect, Message, Peer, publish, send, stored, subscribe};
use crate::world::{TOPIC, World};

const ALIAS_MAX: u8 = 0x22;
const ALIAS: u8 = 0x23;

fn alias(number: u16) -> Vec<u8> {
    [vec![ALIAS], number.to_be_bytes().to_vec()].concat()
}

/// A message of QoS 1 under this topic with this alias.
fn aliased(topic: &str, number: u16, id: u16, payload: &[u8]) -> Vec<u8> {
    publish(Version::V5, 0x32, topic, id, (&alias(number), payload))
}

/// Messages of every kind to a client that takes so many aliases.
async fn messages(own: &[u8]) -> Vec<Message> {
    let world = World::new().await;
    let mut peer = Peer::connect(&world, &Connect::with(Version::V5, own)).await;
    peer.listen(1).await;
    let filters = [
        ("$iothub/twin/res/#", 1),
        ("$iothub/twin/PATCH/properties/desired/#", 1),
    ];
    peer.expect(&subscribe(Version::V5, 1, &filters), 0x90, &[0, 1, 0, 1, 1])
        .await;
    let mut all = Vec::new();
    for n in 0..3 {
        send(&world, &n.to_string()).await;
        all.push(peer.message().await);
        let get = publish(Version::V5, 0x30, "$iothub/twin/GET/?$rid=1", 0, (&[], b" "));
        peer.send(&get).await;
        all.push(peer.message().await);
        world.cluster.desire(&world.device, &format!(r#"{{"a":{n}}}"#));
        all.push(peer.message().await);
    }
    all
}

fn no_aliases(messages: &[Message]) {
    assert_eq!(messages.len(), 9);
    for message in messages {
        assert!(!message.topic.is_empty());
        assert!(message.properties.iter().all(|(id, _)| *id != ALIAS));
    }
}

/// 5: MQTT-3.1.2-26, MQTT-3.3.2-11
#[tokio::test]
async fn mqtt_3_1_2_26_a_client_that_takes_aliases_is_sent_none_beyond_them() {
    no_aliases(&messages(b"\x22\x00\x05").await);
}

/// 5: MQTT-3.1.2-27
#[tokio::test]
async fn mqtt_3_1_2_27_a_client_that_takes_no_aliases_is_sent_none() {
    for own in [&b""[..], b"\x22\x00\x00"] {
        no_aliases(&messages(own).await);
    }
}

/// 5: MQTT-3.3.2-7
#[tokio::test]
async fn mqtt_3_3_2_7_aliases_end_with_their_connection() {
    let world = World::new().await;
    let mut peer = Peer::new(&world, Version::V5).await;
    peer.expect(&aliased(TOPIC, 1, 1, b"x"), 0x40, &[0, 1]).await;
    peer.expect(&aliased("", 1, 2, b"y"), 0x40, &[0, 2]).await;
    peer.vanish(&world).await;
    let (mut peer, connack) = Peer::admitted(&world, &Connect::new(Version::V5)).await;
    assert!(connack.present());
    peer.send(&aliased("", 1, 3, b"z")).await;
    peer.ends(0x82).await;
    assert_eq!(stored(&world), [b"x", b"y"]);
}

/// 5: MQTT-3.3.2-8
#[tokio::test]
async fn mqtt_3_3_2_8_alias_0_ends_the_connection() {
    let world = World::new().await;
    let mut peer = Peer::new(&world, Version::V5).await;
    peer.send(&aliased(TOPIC, 0, 1, b"x")).await;
    peer.ends(0x81).await;
    assert_eq!(stored(&world), Vec::<Vec<u8>>::new());
}

/// 5: MQTT-3.3.2-9, MQTT-3.2.2-17
#[tokio::test]
async fn mqtt_3_3_2_9_an_alias_beyond_the_bound_ends_the_connection() {
    for (topic, beyond) in [(TOPIC, 1), (TOPIC, u16::MAX - 10), ("", 1)] {
        let world = World::new().await;
        let (mut peer, connack) = Peer::admitted(&world, &Connect::new(Version::V5)).await;
        let max = connack.number(ALIAS_MAX).unwrap() as u16;
        peer.send(&aliased(topic, max + beyond, 1, b"x")).await;
        peer.ends(0x94).await;
        assert_eq!(stored(&world), Vec::<Vec<u8>>::new());
    }
}

/// 5: MQTT-3.3.2-12
#[tokio::test]
async fn mqtt_3_3_2_12_every_alias_within_the_bound_is_taken() {
    let world = World::new().await;
    let (mut peer, connack) = Peer::admitted(&world, &Connect::new(Version::V5)).await;
    let max = connack.number(ALIAS_MAX).unwrap() as u16;
    assert!(max > 1);
    let topic = |n: u16| format!("devices/dev-1/messages/events/n={n}");
    for n in (1..=max).rev() {
        let sent = aliased(&topic(n), n, n, b"");
        peer.expect(&sent, 0x40, &n.to_be_bytes()).await;
    }
    for n in 1..=max {
        peer.expect(&aliased("", n, n, b""), 0x40, &n.to_be_bytes()).await;
    }
    // One that is set again means something else.
    peer.expect(&aliased(&topic(77), 1, 1, b""), 0x40, &[0, 1]).await;
    peer.expect(&aliased("", 1, 1, b""), 0x40, &[0, 1]).await;
    let bags = world.cluster.records(&world.device);
    let bags: Vec<String> = bags
        .iter()
        .map(|record| String::from_utf8(record.bag.to_vec()).unwrap())
        .collect();
    let expected = (1..=max).rev().chain(1..=max).chain([77, 77]);
    let expected: Vec<String> = expected.map(|n| format!("n={n}")).collect();
    assert_eq!(bags, expected);
    // One that was never set is none.
    let mut peer = Peer::new(&world, Version::V5).await;
    peer.send(&aliased("", max, 1, b"")).await;
    peer.ends(0x82).await;
}
