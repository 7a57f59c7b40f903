//! What the machine of a connection does with packets, acknowledgements and time.

use super::*;
use dunlin_model::id::ShardId;
use dunlin_model::telemetry::Record;
use dunlin_model::wire::Reader;

const OWN: &str = "devices/dev-1/messages/events/a=b";

fn session(version: Version) -> (Session, Instant) {
    let now = Instant::now();
    let terms = Terms {
        device: DeviceId::parse("dev-1").unwrap(),
        epoch: 7,
        auth: AuthMethod::DeviceKey,
        version,
        keep_alive_s: 60,
        token_life: Duration::from_secs(3600),
        receipts: version == Version::V5,
        will: None,
    };
    (Session::new(terms, now), now)
}

fn publish(topic: &str, qos: QoS, id: u16) -> Incoming {
    Incoming::Publish(Box::new(Publish {
        dup: false,
        retain: false,
        qos,
        topic: topic.into(),
        packet_id: std::num::NonZeroU16::new(id),
        payload: Bytes::from_static(b"hi"),
        properties: None,
    }))
}

fn with_properties(topic: &str, id: u16, properties: PublishProperties) -> Incoming {
    let Incoming::Publish(mut packet) = publish(topic, QoS::AtLeastOnce, id) else {
        unreachable!()
    };
    packet.properties = Some(properties);
    Incoming::Publish(packet)
}

fn stored(offset: u64) -> TelemetryAck {
    TelemetryAck::Stored(Receipt {
        shard: ShardId(1),
        offset,
        term: 3,
    })
}

fn record(scratch: &BytesMut) -> Record {
    Record::decode(&mut Reader::new(scratch.clone().freeze())).unwrap()
}

#[test]
fn a_refused_message_is_told_in_its_turn_and_the_session_goes_on() {
    let (mut session, _) = session(Version::V5);
    let mut scratch = BytesMut::new();
    for (id, token) in [(10, 0), (20, 1), (30, 2)] {
        let packet = publish(OWN, QoS::AtLeastOnce, id);
        assert_eq!(session.handle_packet(packet, &mut scratch), Effect::Submit(token));
    }
    let packet = publish(OWN, QoS::AtMostOnce, 0);
    assert_eq!(session.handle_packet(packet, &mut scratch), Effect::Submit(3));
    session.handle_storage_full(1);
    session.handle_storage_full(3);
    assert_eq!((session.poll_puback(), session.poll_refused()), (None, None));
    session.handle_ack(0, stored(10));
    session.handle_ack(2, stored(11));
    assert_eq!(session.poll_puback().map(|(id, _)| id), Some(10));
    assert_eq!((session.poll_puback(), session.poll_refused()), (None, Some(20)));
    assert_eq!(session.poll_puback().map(|(id, _)| id), Some(30));
    assert_eq!((session.poll_puback(), session.poll_refused()), (None, None));
    assert_eq!(session.poll_end(), None);

    let (mut session, _) = self::session(Version::V3);
    session.handle_packet(publish(OWN, QoS::AtLeastOnce, 10), &mut scratch);
    session.handle_storage_full(0);
    assert_eq!(session.poll_end(), Some(End::StorageFull));
}

#[test]
fn pubacks_leave_in_publish_order_and_only_when_stored() {
    let (mut session, _) = session(Version::V3);
    let mut scratch = BytesMut::new();
    for (id, token) in [(10, 0), (0, 1), (20, 2), (30, 3)] {
        let qos = if id == 0 {
            QoS::AtMostOnce
        } else {
            QoS::AtLeastOnce
        };
        assert_eq!(
            session.handle_packet(publish(OWN, qos, id), &mut scratch),
            Effect::Submit(token)
        );
    }
    let read = record(&scratch);
    assert_eq!(
        (read.fence, read.source, &read.bag[..], &read.payload[..]),
        (7, Source::Mqtt, &b"a=b"[..], &b"hi"[..])
    );
    session.handle_ack(2, stored(12));
    assert_eq!(session.poll_puback(), None);
    session.handle_ack(0, stored(10));
    assert_eq!(session.poll_puback(), Some((10, None)));
    assert_eq!(session.poll_puback(), None);
    session.handle_ack(1, stored(11));
    assert_eq!(session.poll_puback(), Some((20, None)));
    assert_eq!(session.poll_puback(), None);
    session.handle_ack(3, TelemetryAck::Unknown);
    assert_eq!(
        (session.poll_puback(), session.poll_end()),
        (None, Some(End::Unknown))
    );
    session.handle_ack(99, stored(1));
    session.handle_ack(0, stored(1));
}

#[test]
fn bounds_stop_the_reading() {
    let (mut session, _) = session(Version::V3);
    let mut scratch = BytesMut::new();
    for id in 1..=UPLINK_IN_FLIGHT_MAX as u16 {
        assert!(session.can_take());
        session.handle_packet(publish(OWN, QoS::AtLeastOnce, id), &mut scratch);
    }
    assert!(!session.can_take());
    session.handle_ack(0, stored(0));
    assert!(!session.can_take());
    session.poll_puback();
    assert!(session.can_take());
}

#[test]
fn broken_rules_end_the_connection() {
    use DisconnectReasonCode as Code;
    for (packet, code) in [
        (publish(OWN, QoS::ExactlyOnce, 1), Code::QosNotSupported),
        (
            publish("devices/dev-2/messages/events/", QoS::AtLeastOnce, 1),
            Code::TopicNameInvalid,
        ),
        (publish("", QoS::AtLeastOnce, 1), Code::ProtocolError),
        (Incoming::Unexpected, Code::ProtocolError),
        (
            Incoming::Subscribe {
                packet_id: 1,
                filters: vec![("a".into(), 1); 51],
            },
            Code::QuotaExceeded,
        ),
    ] {
        let (mut session, _) = session(Version::V5);
        let mut scratch = BytesMut::new();
        assert_eq!(session.handle_packet(packet, &mut scratch), Effect::None);
        assert_eq!(session.poll_end(), Some(End::Broke(code)));
        assert!(!session.can_take() && scratch.is_empty());
    }
}

#[test]
fn receive_maximum_is_enforced_for_mqtt_5() {
    let (mut session, _) = session(Version::V5);
    let mut scratch = BytesMut::new();
    for id in 1..=RECEIVE_MAX {
        session.handle_packet(publish(OWN, QoS::AtLeastOnce, id), &mut scratch);
    }
    assert_eq!(session.poll_end(), None);
    session.handle_packet(publish(OWN, QoS::AtLeastOnce, 1000), &mut scratch);
    assert_eq!(
        session.poll_end(),
        Some(End::Broke(DisconnectReasonCode::ReceiveMaximumExceeded))
    );
}

#[test]
fn mqtt_5_properties_and_aliases_store_like_a_bag() {
    let (mut session, _) = session(Version::V5);
    let mut scratch = BytesMut::new();
    let properties = PublishProperties {
        topic_alias: std::num::NonZeroU16::new(10),
        content_type: Some("application/json".into()),
        user_properties: vec![("a b".into(), "c&d".into())],
        ..PublishProperties::default()
    };
    session.handle_packet(with_properties(OWN, 1, properties), &mut scratch);
    assert_eq!(
        &record(&scratch).bag[..],
        b"a=b&%24.ct=application%2Fjson&a%20b=c%26d"
    );
    let alias_only = PublishProperties {
        topic_alias: std::num::NonZeroU16::new(10),
        ..PublishProperties::default()
    };
    session.handle_packet(with_properties("", 2, alias_only), &mut scratch);
    assert_eq!(&record(&scratch).bag[..], b"a=b");
    session.handle_ack(0, stored(4));
    assert_eq!(
        session
            .poll_puback()
            .and_then(|(_, receipt)| receipt)
            .map(|r| r.to_string()),
        Some("1/4/3".into())
    );
    let unset = PublishProperties {
        topic_alias: std::num::NonZeroU16::new(3),
        ..PublishProperties::default()
    };
    session.handle_packet(with_properties("", 3, unset), &mut scratch);
    assert_eq!(
        session.poll_end(),
        Some(End::Broke(DisconnectReasonCode::ProtocolError))
    );
}

#[test]
fn an_alias_beyond_the_maximum_breaks() {
    let (mut session, _) = session(Version::V5);
    let properties = PublishProperties {
        topic_alias: std::num::NonZeroU16::new(11),
        ..PublishProperties::default()
    };
    session.handle_packet(with_properties(OWN, 1, properties), &mut BytesMut::new());
    assert_eq!(
        session.poll_end(),
        Some(End::Broke(DisconnectReasonCode::TopicAliasInvalid))
    );
}

#[test]
fn silence_and_expiry_end_the_connection() {
    let (mut session, now) = session(Version::V3);
    assert_eq!(session.poll_timeout(), now + Duration::from_secs(90));
    session.handle_time(now + Duration::from_secs(89));
    assert_eq!(session.poll_end(), None);
    let later = now + Duration::from_secs(3600) + TOKEN_GRACE;
    session.handle_heard(later - Duration::from_secs(1));
    assert_eq!(session.poll_timeout(), later);
    session.handle_time(later);
    assert_eq!(session.poll_end(), Some(End::TokenExpired));
    let (mut silent, now) = self::session(Version::V3);
    silent.handle_time(now + Duration::from_secs(90));
    assert_eq!(silent.poll_end(), Some(End::KeepAlive));
}

#[test]
fn subscriptions_are_granted_per_filter() {
    let (mut session, _) = session(Version::V3);
    let filters = vec![("$iothub/methods/POST/#".to_owned(), 2), ("#".to_owned(), 0)];
    let effect = session.handle_packet(
        Incoming::Subscribe {
            packet_id: 9,
            filters,
        },
        &mut BytesMut::new(),
    );
    let codes = vec![FilterCode::Granted(1), FilterCode::NotOwn];
    assert_eq!(
        effect,
        Effect::Subscribe {
            packet_id: 9,
            filters: vec![("$iothub/methods/POST/#".into(), 1)],
            codes
        }
    );
}

#[test]
fn a_will_is_telemetry_of_its_own_kind() {
    let (mut session, _) = session(Version::V3);
    let will = Will {
        topic: "devices/dev-1/messages/events/x=1".into(),
        payload: b"gone".to_vec(),
        qos: 1,
        content_type: None,
        user_properties: vec![],
    };
    session.terms.will = Some(will.clone());
    let mut scratch = BytesMut::new();
    assert!(session.take_will(End::Lost, &mut scratch));
    let read = record(&scratch);
    assert_eq!(
        (read.source, &read.bag[..]),
        (Source::Will, &b"x=1&iothub-MessageType=Will"[..])
    );
    assert!(!session.take_will(End::Lost, &mut scratch));
    session.terms.will = Some(will);
    assert!(!session.take_will(End::Disconnected, &mut scratch));
}
