//! PUBLISH in both directions: flags, topic and properties. How it is acknowledged and sent again is in
//! `acknowledgement`, in what order is in `order`.

use dunlin_gateway::mqtt::Version;
use dunlin_model::telemetry::Source;

use super::raw::{
    BOTH, Connect, FILTER, Message, Peer, properties, publish, send, send_with, stored, subscribe, text, user,
};
use crate::world::{TOPIC, World};

/// The property bag of the one message that is stored.
fn bag(world: &World) -> String {
    let records = world.cluster.records(&world.device);
    assert_eq!(records.len(), 1);
    String::from_utf8(records[0].bag.to_vec()).unwrap()
}

/// 3.1.1: MQTT-3.3.1-2, MQTT-4.3.1-1
/// 5: MQTT-3.3.1-2, MQTT-4.3.1-1
#[tokio::test]
async fn mqtt_3_3_1_2_what_is_sent_with_qos_0_never_says_that_it_came_before() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        peer.listen(1).await;
        send(&world, "a").await;
        assert_eq!(peer.message().await.qos, 1);
        peer.vanish(&world).await;
        // The same message again, to a subscription of QoS 0.
        let mut peer = Peer::connect(&world, &Connect::clean(version)).await;
        peer.listen(0).await;
        let message = peer.message().await;
        assert_eq!(
            (message.text(), message.qos, message.dup),
            ("body of a", 0, false)
        );
    }
}

/// 3.1.1: MQTT-3.3.1-3
/// 5: MQTT-3.3.1-3
#[tokio::test]
async fn mqtt_3_3_1_3_each_message_says_for_itself_whether_it_came_before() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        peer.listen(1).await;
        send(&world, "a").await;
        assert!(!peer.message().await.dup);
        peer.vanish(&world).await;
        let mut peer = Peer::new(&world, version).await;
        assert!(peer.message().await.dup);
        // What the device sends again has nothing to do with what it is sent.
        let again = publish(version, 0x3A, TOPIC, 5, (&[], b"x"));
        peer.expect(&again, 0x40, &[0, 5]).await;
        send(&world, "b").await;
        let message = peer.message().await;
        assert_eq!((message.text(), message.dup), ("body of b", false));
    }
}

/// 3.1.1: MQTT-3.3.1-4
/// 5: MQTT-3.3.1-4
#[tokio::test]
async fn mqtt_3_3_1_4_qos_3_ends_the_connection() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        peer.send(&publish(version, 0x36, TOPIC, 1, (&[], b"x"))).await;
        peer.ends(0x81).await;
        assert_eq!(stored(&world), Vec::<Vec<u8>>::new());
    }
}

/// 3.1.1: MQTT-3.3.1-5
/// 5: MQTT-3.3.1-5
#[tokio::test]
async fn mqtt_3_3_1_5_what_is_to_be_retained_is_a_message_with_a_mark() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        for (id, payload) in [(1, &b"x"[..]), (2, b"")] {
            let sent = publish(version, 0x33, TOPIC, id, (&[], payload));
            peer.expect(&sent, 0x40, &id.to_be_bytes()).await;
        }
        let records = world.cluster.records(&world.device);
        let sources: Vec<Source> = records.iter().map(|record| record.source).collect();
        assert_eq!(sources, [Source::MqttRetain, Source::MqttRetain]);
        // Nobody who subscribes is sent it.
        let others = [(FILTER, 0), ("$iothub/twin/res/#", 0)];
        let codes = peer.filter_ack(3, &[0, 0]);
        peer.expect(&subscribe(version, 3, &others), 0x90, &codes).await;
        peer.quiet().await;
    }
}

/// 3.1.1: MQTT-3.3.1-9
/// 5: MQTT-3.3.1-12
#[tokio::test]
async fn mqtt_3_3_1_9_messages_to_a_subscription_are_not_retained_ones() {
    for version in BOTH {
        let world = World::new().await;
        send(&world, "waits").await;
        let mut peer = Peer::new(&world, version).await;
        peer.listen(1).await;
        assert!(!peer.message().await.retain);
        let retained = publish(version, 0x33, TOPIC, 1, (&[], b"x"));
        peer.expect(&retained, 0x40, &[0, 1]).await;
        send(&world, "comes").await;
        assert!(!peer.message().await.retain);
    }
}

/// 3.1.1: MQTT-3.3.2-1
/// 5: MQTT-3.3.2-1
#[tokio::test]
async fn mqtt_3_3_2_1_a_topic_comes_first_and_is_text() {
    for version in BOTH {
        for topic in [
            &b"devices/dev-1/messages/events/\xFF"[..],
            b"devices/dev-1/messages/events/\xC0\xAF",
        ] {
            let world = World::new().await;
            let mut peer = Peer::new(&world, version).await;
            peer.send(&publish(version, 0x32, topic, 1, (&[], b"x"))).await;
            peer.ends(0x81).await;
        }
        // No topic at all, and one that is longer than the packet.
        for body in [&b""[..], b"\x00\x09devices"] {
            let world = World::new().await;
            let mut peer = Peer::new(&world, version).await;
            peer.send(&super::raw::packet(0x30, body)).await;
            peer.ends(0x81).await;
            assert_eq!(stored(&world), Vec::<Vec<u8>>::new());
        }
    }
}

/// 3.1.1: MQTT-3.3.2-2, MQTT-4.7.1-1
/// 5: MQTT-3.3.2-2, MQTT-4.7.0-1
#[tokio::test]
async fn mqtt_3_3_2_2_a_topic_has_no_wildcards() {
    for version in BOTH {
        for topic in ["#", "devices/+/messages/events/", "devices/dev-1/messages/#"] {
            let world = World::new().await;
            let mut peer = Peer::new(&world, version).await;
            peer.send(&publish(version, 0x32, topic, 1, (&[], b"x"))).await;
            peer.ends(0x90).await;
            assert_eq!(stored(&world), Vec::<Vec<u8>>::new());
        }
        // In the property bag they are text like any other, since the C SDK does not encode it.
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        let sent = publish(
            version,
            0x32,
            "devices/dev-1/messages/events/a=+#",
            1,
            (&[], b"x"),
        );
        peer.expect(&sent, 0x40, &[0, 1]).await;
        assert_eq!(bag(&world), "a=+#");
    }
}

/// 3.1.1: MQTT-3.3.2-3
/// 5: MQTT-3.3.2-3
#[tokio::test]
async fn mqtt_3_3_2_3_what_a_device_is_sent_fits_what_it_subscribed_to() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        let filters = [
            FILTER,
            "$iothub/twin/res/#",
            "$iothub/twin/PATCH/properties/desired/#",
            "$iothub/methods/POST/#",
        ];
        let wanted = filters.map(|filter| (filter, 1));
        // Without a subscription there is nothing but the answer to a request about the twin.
        let get = publish(version, 0x30, "$iothub/twin/GET/?$rid=1", 0, (&[], b" "));
        send(&world, "a").await;
        world.cluster.desire(&world.device, r#"{"a":1}"#);
        peer.send(&get).await;
        assert!(peer.message().await.topic.starts_with("$iothub/twin/res/"));
        peer.quiet().await;
        let codes = peer.filter_ack(1, &[1; 4]);
        peer.expect(&subscribe(version, 1, &wanted), 0x90, &codes).await;
        let mut topics = vec![peer.message().await.topic];
        peer.send(&get).await;
        topics.push(peer.message().await.topic);
        world.cluster.desire(&world.device, r#"{"a":2}"#);
        topics.push(peer.message().await.topic);
        let body = r#"{"methodName":"reboot","payload":null}"#;
        let path = "/twins/dev-1/methods?api-version=2021-04-12";
        let calling = world.http("POST", path, &[], body);
        let answering = async {
            let call = peer.message().await.topic;
            let (_, rid) = call.split_once("$rid=").unwrap();
            let answer = format!("$iothub/methods/res/200/?$rid={rid}");
            peer.send(&publish(version, 0x30, answer, 0, (&[], b"{}"))).await;
            call
        };
        let (answer, call) = tokio::join!(calling, answering);
        assert_eq!(answer.status, 200, "{}", answer.body);
        topics.push(call);
        for (topic, filter) in topics.iter().zip(filters) {
            let levels = filter.strip_suffix('#').unwrap();
            assert!(topic.starts_with(levels), "{topic} against {filter}");
        }
    }
}

/// 3.1.1: MQTT-3.3.4-1
/// 5: MQTT-3.3.4-1
#[tokio::test]
async fn mqtt_3_3_4_1_each_qos_has_its_answer() {
    for version in BOTH {
        let world = World::new().await;
        let mut peer = Peer::new(&world, version).await;
        peer.send(&publish(version, 0x30, TOPIC, 0, (&[], b"0"))).await;
        peer.quiet().await;
        peer.tell(9, b"1").await;
        assert_eq!(stored(&world), [b"0", b"1"]);
        peer.send(&publish(version, 0x34, TOPIC, 10, (&[], b"2"))).await;
        peer.ends(0x9B).await;
        assert_eq!(stored(&world).len(), 2);
    }
}

/// 3.1.1: MQTT-3.3.5-2
#[tokio::test]
async fn mqtt_3_3_5_2_whoever_may_not_publish_there_is_closed() {
    for topic in [
        "devices/dev-2/messages/events/",
        "devices/dev-1/messages/other",
        "$iothub/x",
    ] {
        for first in [0x30, 0x32] {
            let world = World::new().await;
            let other = world.cluster.add_device("dev-2");
            let mut peer = Peer::new(&world, Version::V3).await;
            peer.send(&publish(Version::V3, first, topic, 1, (&[], b"x")))
                .await;
            assert_eq!(peer.ended().await, None);
            assert!(world.cluster.records(&other).is_empty() && stored(&world).is_empty());
        }
    }
}

/// 5: MQTT-3.3.2-13
#[tokio::test]
async fn mqtt_3_3_2_13_a_response_topic_that_is_no_text_ends_the_connection() {
    wrong_property(&[vec![0x08], text(b"a\xFF")].concat(), 0x81).await;
    wrong_property(&[vec![0x08], text(b"a\x00")].concat(), 0x81).await;
}

/// 5: MQTT-3.3.2-19
#[tokio::test]
async fn mqtt_3_3_2_19_a_content_type_that_is_no_text_ends_the_connection() {
    wrong_property(&[vec![0x03], text(b"a\xFF")].concat(), 0x81).await;
    wrong_property(&[vec![0x03], text(b"a\x00")].concat(), 0x81).await;
}

/// 5: MQTT-3.3.4-6
#[tokio::test]
async fn mqtt_3_3_4_6_a_subscription_identifier_from_a_client_ends_the_connection() {
    wrong_property(b"\x0B\x01", 0x82).await;
}

async fn wrong_property(own: &[u8], reason: u8) {
    let world = World::new().await;
    let mut peer = Peer::new(&world, Version::V5).await;
    peer.send(&publish(Version::V5, 0x32, TOPIC, 1, (own, b"x")))
        .await;
    peer.ends(reason).await;
    assert_eq!(stored(&world), Vec::<Vec<u8>>::new());
}

/// The message that a subscriber is sent for this bag.
async fn sent_with(bag: &str) -> Message {
    let world = World::new().await;
    send_with(&world, "a", bag, None).await;
    let mut peer = Peer::new(&world, Version::V5).await;
    peer.listen(1).await;
    peer.message().await
}

fn pairs(message: &Message) -> Vec<&[u8]> {
    let all = message.properties.iter().filter(|(id, _)| *id == 0x26);
    all.map(|(_, value)| &value[..]).collect()
}

/// 5: MQTT-3.3.2-17
#[tokio::test]
async fn mqtt_3_3_2_17_user_properties_arrive_as_they_were() {
    let message = sent_with("a%20b=c%2Fd%3D%26&e=&%C3%A9=%2B").await;
    assert_eq!(pairs(&message), ["a b=c/d=&".as_bytes(), b"e=", "é=+".as_bytes()]);
}

/// 5: MQTT-3.3.2-18
#[tokio::test]
async fn mqtt_3_3_2_18_user_properties_keep_their_order() {
    let message = sent_with("z=1&a=2&z=3&m=4").await;
    assert_eq!(pairs(&message), [b"z=1", b"a=2", b"z=3", b"m=4"]);
    // And towards those who read events.
    let world = World::new().await;
    let mut peer = Peer::new(&world, Version::V5).await;
    let own = [user("z", "1"), user("a", "2"), user("z", "3")].concat();
    let sent = publish(Version::V5, 0x32, TOPIC, 1, (&own, b"x"));
    peer.expect(&sent, 0x40, &[0, 1]).await;
    assert_eq!(bag(&world), "a=b&z=1&a=2&z=3");
}

/// 5: MQTT-3.3.2-20
#[tokio::test]
async fn mqtt_3_3_2_20_a_content_type_arrives_as_it_was() {
    let message = sent_with("%24.ct=text%2Fplain%3B%20charset%3Dutf-8").await;
    let expected = (0x03, b"text/plain; charset=utf-8".to_vec());
    assert_eq!(message.properties, [expected]);
    let world = World::new().await;
    let mut peer = Peer::new(&world, Version::V5).await;
    let own = [vec![0x03], text("text/plain")].concat();
    let sent = publish(Version::V5, 0x32, TOPIC, 1, (&own, b"x"));
    peer.expect(&sent, 0x40, &[0, 1]).await;
    assert_eq!(bag(&world), "a=b&%24.ct=text%2Fplain");
}

/// 5: MQTT-2.2.2-1
#[tokio::test]
async fn mqtt_2_2_2_1_where_there_are_no_properties_their_length_is_0() {
    let world = World::new().await;
    let version = Version::V5;
    let mut peer = Peer::new(&world, version).await;
    peer.expect(&subscribe(version, 1, &[(FILTER, 0)]), 0x90, &[0, 1, 0, 0])
        .await;
    let sent = super::raw::unsubscribe(version, 2, &[FILTER]);
    peer.expect(&sent, 0xB0, &[0, 2, 0, 0]).await;
    peer.send(&publish(
        version,
        0x30,
        "$iothub/twin/GET/?$rid=1",
        0,
        (&[], b" "),
    ))
    .await;
    let packet = peer.packet().await;
    let topic = text("$iothub/twin/res/200/?$rid=1");
    let start = [topic, properties(version, &[])].concat();
    assert!(packet.body.starts_with(&start), "{packet:?}");
    assert_eq!(packet.body[start.len()], b'{');
    // And a packet from a client without it is none.
    peer.send(&super::raw::packet(0x82, &[0, 3])).await;
    peer.ends(0x81).await;
}
