//! MQTT from a stranger: bytes into packets, packets into a session.

use std::collections::{BTreeMap, VecDeque};
use std::num::NonZeroU16;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use dunlin_model::command::{Receipt, TelemetryAck};
use dunlin_model::id::{DeviceId, ShardId};
use dunlin_model::telemetry::{AuthMethod, Record};
use dunlin_model::wire::Reader;
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::PublishProperties;
use rmqtt_codec::{v3, v5};
use tokio_util::codec::{Decoder, Encoder};

use crate::client::{ConnectOptions, Transport, event_v3, event_v5};
use crate::limits::{CONNECT_BYTES_MAX, PACKET_BYTES_MAX, UPLINK_IN_FLIGHT_BYTES_MAX, UPLINK_IN_FLIGHT_MAX};
use crate::mqtt::Version;
use crate::mqtt::session::{Effect, End, Session, Terms, Will};
use crate::mqtt::twin;
use crate::mqtt::wire::{self, Codec, Incoming};

const DEVICE: &str = "dev-1";
const EPOCH: u64 = 7;

/// The version, and whether messages may come yet, from one byte.
fn setting(byte: u8) -> (Version, bool) {
    let version = if byte & 1 == 0 { Version::V3 } else { Version::V5 };
    (version, byte & 2 != 0)
}

fn codec(version: Version, is_open: bool) -> Codec {
    let mut codec = Codec::new(version);
    if is_open {
        codec.open_up();
    }
    codec
}

/// Packets until there is no whole one, or one that cannot be read. Returns them as text, with the error.
fn drain(codec: &mut Codec, bytes: &mut BytesMut, seen: &mut Vec<String>) -> bool {
    loop {
        match codec.decode(bytes) {
            Ok(Some(packet)) => seen.push(format!("{packet:?}")),
            Ok(None) => return true,
            Err(error) => {
                let _ = wire::reason_of(&error);
                seen.push(format!("{error:?}"));
                return false;
            }
        }
    }
}

/// Bytes into packets: the same packets whether they arrive at once or in pieces, and none beyond its bound.
/// First byte: version and whether a device is known; second: length of the pieces.
pub fn mqtt_decode(data: &[u8]) {
    let [first, piece, stream @ ..] = data else {
        return;
    };
    let known = wire::sniff(stream);
    if let Ok(None) = known {
        assert!(
            stream.len() < 5 + 2 + 6 + 1,
            "a long beginning has a version or none"
        );
    }
    for cut in 0..stream.len().min(16) {
        match wire::sniff(&stream[..cut]) {
            Ok(None) => {}
            early => assert_eq!(early, known, "what {cut} bytes say is not taken back"),
        }
    }
    let (version, is_open) = setting(*first);
    let (mut whole, mut pieces) = (Vec::new(), Vec::new());
    let mut decoder = codec(version, is_open);
    let mut bytes = BytesMut::from(stream);
    drain(&mut decoder, &mut bytes, &mut whole);
    let bytes_max = if is_open {
        PACKET_BYTES_MAX
    } else {
        CONNECT_BYTES_MAX
    } as usize;
    // Room is made for one packet behind what is there; a buffer that grows does so at least twofold.
    assert!(
        bytes.capacity() <= 2 * (stream.len() + bytes_max),
        "room for {} bytes",
        bytes.capacity()
    );
    let mut decoder = codec(version, is_open);
    let mut bytes = BytesMut::new();
    for piece in stream.chunks(usize::from(*piece).max(1)) {
        bytes.extend_from_slice(piece);
        if !drain(&mut decoder, &mut bytes, &mut pieces) {
            break;
        }
    }
    assert_eq!(whole, pieces);
}

/// Bytes from a hub into the events of our own client. First byte: version.
pub fn mqtt_client(data: &[u8]) {
    let Some((first, stream)) = data.split_first() else {
        return;
    };
    let mut bytes = BytesMut::from(stream);
    if setting(*first).0 == Version::V3 {
        let mut codec = v3::Codec::new(PACKET_BYTES_MAX);
        while let Ok(Some((packet, _))) = codec.decode(&mut bytes) {
            let _ = event_v3(packet);
        }
    } else {
        let mut codec = v5::Codec::new(PACKET_BYTES_MAX, 0);
        while let Ok(Some((packet, _))) = codec.decode(&mut bytes) {
            let _ = event_v5(packet);
        }
    }
}

/// What a session owes: the ends of its messages in their order.
#[derive(Default)]
struct Owed {
    /// Token and packet id of each message that has no end yet, or whose end was not told yet.
    waiting: VecDeque<(u64, u16)>,
    ends: BTreeMap<u64, bool>,
}

impl Owed {
    /// Takes what the session tells, and asserts that it is true and in turn.
    fn take(&mut self, session: &mut Session) {
        loop {
            let stored = session.poll_puback();
            let refused = if stored.is_none() {
                session.poll_refused()
            } else {
                None
            };
            let told = stored.map(|(id, _)| (id, true)).or(refused.map(|id| (id, false)));
            // QoS 0 leaves without a word.
            while let Some((token, 0)) = self.waiting.front().copied() {
                if token >= session.acknowledged_below() {
                    break;
                }
                assert!(
                    self.ends.contains_key(&token),
                    "message {token} left without an end"
                );
                self.waiting.pop_front();
            }
            let Some((id, is_stored)) = told else { return };
            let (token, expected) = self.waiting.pop_front().expect("only what was published is told");
            assert_eq!(id, expected, "PUBACKs leave in the order of the PUBLISHes");
            assert_eq!(
                self.ends.get(&token),
                Some(&is_stored),
                "only what the cluster said is told"
            );
        }
    }
}

/// A session that is fed packets, ends of messages, and time, by turns. First byte: version and will.
pub fn mqtt_session(data: &[u8]) {
    let Some((first, mut script)) = data.split_first() else {
        return;
    };
    let version = setting(*first).0;
    let now = Instant::now();
    let mut session = Session::new(terms(version, first & 4 != 0), now);
    let mut codec = codec(version, true);
    let (mut scratch, mut read) = (BytesMut::new(), BytesMut::new());
    let mut owed = Owed::default();
    let mut next_token = 0;
    while let [op, argument, rest @ ..] = script {
        script = rest;
        match op % 8 {
            // The cluster reports the end of a message.
            0 => {
                let token = session.acknowledged_below() + u64::from(*argument);
                let is_known = token < next_token;
                session.handle_ack(token, stored(token));
                if is_known {
                    owed.ends.insert(token, true);
                }
            }
            1 => session.handle_time(now + Duration::from_secs(u64::from(*argument) * 30)),
            2 if argument.is_multiple_of(8) => {
                session.handle_ack(u64::from(*argument), TelemetryAck::Unknown)
            }
            2 if argument % 8 == 1 => session.handle_ack(u64::from(*argument), TelemetryAck::Fenced),
            2 => {
                let token = session.acknowledged_below() + u64::from(argument / 8);
                if token < next_token && version == Version::V5 {
                    owed.ends.insert(token, false);
                }
                session.handle_storage_full(token);
            }
            // The device sends some bytes.
            _ => {
                let (bytes, rest) = script.split_at(usize::from(*argument).min(script.len()));
                script = rest;
                read.extend_from_slice(bytes);
            }
        }
        while session.can_take() {
            match codec.decode(&mut read) {
                Ok(None) => break,
                Ok(Some(packet)) => {
                    let id = packet_id(&packet);
                    let effect = session.handle_packet(packet, &mut scratch);
                    let request = match &effect {
                        Effect::TwinGet { token, .. } | Effect::TwinRefuse { token, .. } => Some(*token),
                        Effect::TwinReport { token, patch, .. } => {
                            assert!(twin::change_text(patch.as_bytes()).is_ok(), "{patch}");
                            Some(*token)
                        }
                        _ => None,
                    };
                    if let Effect::Submit(token) = effect {
                        check_record(&scratch);
                        assert_eq!(token, next_token, "tokens are numbered");
                        next_token += 1;
                        owed.waiting.push_back((token, id));
                    } else if let Some(token) = request {
                        assert_eq!(token, next_token, "tokens are numbered");
                        next_token += 1;
                        owed.waiting.push_back((token, id));
                        owed.ends.insert(token, true);
                        session.handle_answered(token);
                    }
                }
                Err(error) => session.handle_end(End::Broke(wire::reason_of(&error))),
            }
        }
        assert!(next_token - session.acknowledged_below() <= UPLINK_IN_FLIGHT_MAX as u64);
        owed.take(&mut session);
        if session.poll_end().is_some() {
            assert!(!session.can_take(), "a connection that is over takes nothing");
        }
    }
    if let Some(end) = session.poll_end() {
        let _ = end.reason();
        if session.take_will(end, &mut scratch) {
            assert!(end.fires_will());
            check_record(&scratch);
        }
        assert!(!session.take_will(end, &mut scratch), "a will is published once");
    }
}

fn terms(version: Version, has_will: bool) -> Terms {
    let will = has_will.then(|| Will {
        topic: format!("devices/{DEVICE}/messages/events/a=b"),
        payload: b"gone".to_vec(),
        qos: 1,
        content_type: Some("text/plain".into()),
        user_properties: vec![("k".into(), "v".into())],
    });
    Terms {
        device: DeviceId::parse(DEVICE).expect("a device id"),
        epoch: EPOCH,
        auth: AuthMethod::DeviceKey,
        version,
        keep_alive_s: 60,
        token_life: Duration::from_secs(3600),
        receipts: version == Version::V5,
        will,
    }
}

fn stored(offset: u64) -> TelemetryAck {
    TelemetryAck::Stored(Receipt {
        shard: ShardId(1),
        offset,
        term: 3,
    })
}

fn packet_id(packet: &Incoming) -> u16 {
    match packet {
        Incoming::Publish(publish) if publish.qos == QoS::AtLeastOnce => {
            publish.packet_id.map_or(0, NonZeroU16::get)
        }
        _ => 0,
    }
}

/// What is submitted is one record, of the device itself, within its bounds.
fn check_record(scratch: &BytesMut) {
    assert!(scratch.len() < UPLINK_IN_FLIGHT_BYTES_MAX);
    let mut reader = Reader::new(scratch.clone().freeze());
    let record = Record::decode(&mut reader).expect("what is submitted is a record");
    assert!(reader.is_empty());
    assert_eq!((record.device_str(), record.fence), (DEVICE, EPOCH));
    assert_eq!(crate::bag::check(&record.bag), Ok(()));
}

/// Packets of every kind that a client sends, and some that only a hub sends.
fn packets(version: Version) -> Vec<Vec<u8>> {
    let (mut v3_codec, mut v5_codec) = (v3::Codec::new(0), v5::Codec::new(0, 0));
    let mut put = |three: v3::Packet, five: v5::Packet| {
        let mut out = BytesMut::new();
        match version {
            Version::V3 => v3_codec.encode(three, &mut out).expect("a packet of ours"),
            Version::V5 => v5_codec.encode(five, &mut out).expect("a packet of ours"),
        }
        out.to_vec()
    };
    let address = String::new();
    let token = "SharedAccessSignature sr=h%2Fdevices%2Fdev-1&sig=AAAA&se=1".to_owned();
    let options = ConnectOptions {
        will: Some((format!("devices/{DEVICE}/messages/events/"), b"gone".to_vec())),
        receipts: true,
        ..ConnectOptions::new(Transport::Tcp { address }, "h", DEVICE, token)
    };
    let id = NonZeroU16::MIN;
    let filter = "$iothub/methods/POST/#";
    let subscribe = v5::Subscribe {
        packet_id: id,
        id: None,
        user_properties: Vec::new(),
        topic_filters: vec![(filter.into(), v5::SubscriptionOptions::default())],
    };
    let unsubscribe = v5::Unsubscribe {
        packet_id: id,
        user_properties: Vec::new(),
        topic_filters: vec![filter.into()],
    };
    let puback = v5::PublishAck {
        packet_id: id,
        reason_code: v5::PublishAckReason::QuotaExceeded,
        properties: vec![("k".into(), "v".into())],
        reason_string: Some("full".into()),
    };
    let mut twin_request = |name: &str, body: &'static str| {
        let request = Box::new(Publish {
            topic: format!("$iothub/twin/{name}").into(),
            payload: Bytes::from_static(body.as_bytes()),
            ..*publish(QoS::AtLeastOnce, false)
        });
        put(v3::Packet::Publish(request.clone()), v5::Packet::Publish(request))
    };
    let twins = [
        twin_request("GET/?$rid=1", " "),
        twin_request(
            "PATCH/properties/reported/?$rid=1&$version=2",
            r#"{"a":{"b":[1,"c"]},"d":null}"#,
        ),
        twin_request("PATCH/properties/reported/", "[]"),
    ];
    let (plain, with_alias) = (publish(QoS::AtMostOnce, false), publish(QoS::AtLeastOnce, true));
    let mut packets = vec![
        put(options.connect_v3().into(), options.connect_v5().into()),
        put(v3::Packet::Publish(plain.clone()), v5::Packet::Publish(plain)),
        put(
            v3::Packet::Publish(publish(QoS::AtLeastOnce, false)),
            v5::Packet::Publish(with_alias),
        ),
        put(
            v3::Packet::Subscribe {
                packet_id: id,
                topic_filters: vec![(filter.into(), QoS::AtLeastOnce)],
            },
            v5::Packet::Subscribe(subscribe),
        ),
        put(
            v3::Packet::Unsubscribe {
                packet_id: id,
                topic_filters: vec![filter.into()],
            },
            v5::Packet::Unsubscribe(unsubscribe),
        ),
        put(
            v3::Packet::PublishAck { packet_id: id },
            v5::Packet::PublishAck(puback),
        ),
        put(v3::Packet::PingRequest, v5::Packet::PingRequest),
        put(
            v3::Packet::Disconnect,
            v5::Packet::Disconnect(v5::Disconnect::new(v5::DisconnectReasonCode::ServerBusy)),
        ),
    ];
    packets.extend(twins);
    packets
}

fn publish(qos: QoS, has_properties: bool) -> Box<Publish> {
    let properties = PublishProperties {
        topic_alias: NonZeroU16::new(3),
        content_type: Some("application/json".into()),
        user_properties: vec![("a b".into(), "c&d".into())],
        ..PublishProperties::default()
    };
    Box::new(Publish {
        dup: false,
        retain: false,
        qos,
        topic: format!("devices/{DEVICE}/messages/events/a=b").into(),
        packet_id: (qos != QoS::AtMostOnce).then_some(NonZeroU16::MIN),
        payload: Bytes::from_static(b"21.5"),
        properties: has_properties.then_some(properties),
    })
}

/// Seeds of [`mqtt_decode`].
pub fn mqtt_decode_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (first, version) in [(2, Version::V3), (3, Version::V5)] {
        let packets = packets(version);
        seeds.extend(packets.iter().map(|packet| [&[first, 7], &packet[..]].concat()));
        seeds.push([&[first, 3], &packets.concat()[..]].concat());
        seeds.push([&[first & 1, 1], &packets[0][..]].concat());
    }
    // A PUBLISH of 3,000 bytes, and the header of one of 8,000: room is made twice.
    let mut growing = vec![0, 255, 0x30, 0xB8, 0x17, 0, 1, b't'];
    growing.resize(growing.len() + 2_997, 0);
    growing.extend([0x30, 0xC0, 0x3E]);
    seeds.push(growing);
    // A packet that is announced before anybody is known, and larger than one may be then.
    seeds.push(vec![192, 0, 144, 128, 128, 2, 0, 1]);
    seeds
}

/// Seeds of [`mqtt_session`].
pub fn mqtt_session_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (first, version) in [(0, Version::V3), (5, Version::V5)] {
        let sent = |packet: &Vec<u8>| [&[3, packet.len() as u8], &packet[..]].concat();
        let packets = packets(version);
        seeds.extend(
            packets[1..]
                .iter()
                .map(|packet| [&[first], &sent(packet)[..]].concat()),
        );
        let mut script = vec![first];
        for packet in &packets[1..4] {
            script.extend(sent(packet));
        }
        script.extend([0, 1, 0, 0, 1, 1]);
        script.extend(sent(&packets[2]));
        script.extend([2, 2, 0, 0, 1, 200]);
        seeds.push(script);
    }
    seeds
}

/// Seeds of [`mqtt_client`].
pub fn mqtt_client_seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for (first, version) in [(0, Version::V3), (1, Version::V5)] {
        let mut codec = Codec::new(version);
        let mut out = BytesMut::new();
        codec.put_accepted(true, true, Some(60), &mut out);
        codec.put_puback(1, Some(receipt()).filter(|_| version == Version::V5), &mut out);
        codec.put_suback(2, &[crate::mqtt::session::FilterCode::Granted(1)], &mut out);
        codec.put_unsuback(3, 1, &mut out);
        codec.put_pong(&mut out);
        codec.put_disconnect(v5::DisconnectReasonCode::SessionTakenOver, &mut out);
        seeds.push([&[first], &out[..]].concat());
        seeds.push([&[first], &packets(version)[2][..]].concat());
    }
    seeds
}

fn receipt() -> Receipt {
    Receipt {
        shard: ShardId(1),
        offset: 2,
        term: 3,
    }
}
