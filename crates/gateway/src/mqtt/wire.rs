//! Bytes to packets and back, for both versions: the one room on the server's side that names the codec.
//!
//! Every decoder has a size limit, small before a device is known. Packets that only a server sends
//! come out as [`Incoming::Unexpected`]; what that means is decided in [`super::session`].

use std::num::NonZeroU16;

use bytes::{BufMut, Bytes, BytesMut};
use dunlin_model::command::{Receipt, WriteReceipt};
use rmqtt_codec::error::DecodeError;
use rmqtt_codec::types::{Publish, QoS};
use rmqtt_codec::v5::{DisconnectReasonCode, PublishProperties, ToReasonCode};
use rmqtt_codec::{v3, v5};
use tokio_util::codec::{Decoder, Encoder};

use super::Version;
use super::courier::Downward;
use super::strict;
use crate::limits::{CONNECT_BYTES_MAX, PACKET_BYTES_MAX, PROPERTIES_MAX, RECEIVE_MAX, TOPIC_ALIAS_MAX};

/// User property of CONNECT that asks for receipts, and of PUBACK, or the answer to a report, that carries one.
pub(crate) const RECEIPT_PROPERTY: &str = "dunlin-receipt";

/// A CONNECT of either version.
#[derive(Debug)]
pub(crate) struct ConnectRequest {
    pub(crate) version: Version,
    pub(crate) client_id: String,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<Vec<u8>>,
    /// Clean session or clean start.
    pub(crate) clean: bool,
    /// Seconds; 0 for none.
    pub(crate) keep_alive_s: u16,
    pub(crate) will: Option<Will>,
    /// Whether PUBACKs and answers to reports carry receipts.
    pub(crate) receipts: bool,
    /// Messages that the client takes unacknowledged, if it says so (MQTT 5).
    pub(crate) receive_max: Option<u16>,
    /// Whether an extended authentication was asked for, which is not offered.
    pub(crate) extended_auth: bool,
}

/// A message to be published when the connection ends ungracefully.
#[derive(Debug, Clone)]
pub struct Will {
    /// Topic, bag included.
    pub topic: String,
    /// Payload.
    pub payload: Vec<u8>,
    /// QoS 0 to 2.
    pub qos: u8,
    /// MQTT 5: content type.
    pub content_type: Option<String>,
    /// MQTT 5: user properties.
    pub user_properties: Vec<(String, String)>,
}

/// A packet from a device.
#[derive(Debug)]
pub(crate) enum Incoming {
    Connect(Box<ConnectRequest>),
    Publish(Box<Publish>),
    Subscribe {
        packet_id: u16,
        filters: Vec<(String, u8)>,
    },
    Unsubscribe {
        packet_id: u16,
        filters: Vec<String>,
    },
    Ping,
    Disconnect {
        with_will: bool,
    },
    /// An acknowledgement of something that we sent.
    Ack {
        packet_id: u16,
        /// Whether the client takes it; MQTT 3.1.1 has no way to say no.
        accepted: bool,
    },
    /// Nothing that a client may send here.
    Unexpected,
    /// What a client may send, with something in it that it may not.
    Against(DisconnectReasonCode),
}

/// Why the first bytes are not the start of a CONNECT that we speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SniffError {
    /// Another packet, another protocol, or too long: close without a word.
    NotMqtt,
    /// A CONNECT of another protocol level: answer, then close.
    Level(u8),
}

/// Looks for the protocol version in the first bytes; `None` when there are too few.
pub(crate) fn sniff(bytes: &[u8]) -> Result<Option<Version>, SniffError> {
    const CONNECT: u8 = 0x10;
    match bytes.first() {
        None => return Ok(None),
        Some(&CONNECT) => {}
        Some(_) => return Err(SniffError::NotMqtt),
    }
    let (mut length, mut at) = (0u32, 1);
    loop {
        let Some(&byte) = bytes.get(at) else {
            return Ok(None);
        };
        length |= u32::from(byte & 0x7F) << (7 * (at - 1));
        at += 1;
        if byte & 0x80 == 0 {
            break;
        }
        if at > 4 {
            return Err(SniffError::NotMqtt);
        }
    }
    if !(10..=CONNECT_BYTES_MAX).contains(&length) {
        return Err(SniffError::NotMqtt);
    }
    let rest = bytes.get(at..).unwrap_or_default();
    for name in [&b"\x00\x04MQTT"[..], &b"\x00\x06MQIsdp"[..]] {
        let seen = rest.len().min(name.len());
        if rest.get(..seen) != name.get(..seen) {
            continue;
        }
        return match (name.len(), rest.get(name.len())) {
            (_, None) => Ok(None),
            (6, Some(4)) => Ok(Some(Version::V3)),
            (6, Some(5)) => Ok(Some(Version::V5)),
            (_, Some(level)) => Err(SniffError::Level(*level)),
        };
    }
    Err(SniffError::NotMqtt)
}

/// The codec of one connection.
#[derive(Debug)]
pub(crate) enum Codec {
    /// With the bytes behind the header of the largest packet that it takes; the other codec says so itself.
    V3(v3::Codec, u32),
    V5(v5::Codec),
}

impl Codec {
    /// A codec that takes a CONNECT and no more.
    pub(crate) fn new(version: Version) -> Self {
        match version {
            Version::V3 => Codec::V3(v3::Codec::new(CONNECT_BYTES_MAX), CONNECT_BYTES_MAX),
            Version::V5 => Codec::V5(v5::Codec::new(CONNECT_BYTES_MAX, 0)),
        }
    }

    /// The device is known: messages may come.
    pub(crate) fn open_up(&mut self) {
        match self {
            Codec::V3(codec, bytes_max) => {
                codec.set_max_size(PACKET_BYTES_MAX);
                *bytes_max = PACKET_BYTES_MAX;
            }
            Codec::V5(codec) => codec.set_max_inbound_size(PACKET_BYTES_MAX),
        }
    }

    /// The next whole packet.
    pub(crate) fn decode(&mut self, bytes: &mut BytesMut) -> Result<Option<Incoming>, DecodeError> {
        // What is wrong by its length alone is left to the codec.
        if let Some((start, length)) = strict::header(bytes)
            && length <= self.bytes_max() as usize
        {
            let Some(packet) = bytes.get(..start + length) else {
                bytes.reserve(start + length - bytes.len());
                return Ok(None);
            };
            strict::check_bytes(self.version(), packet, start)?;
        }
        Ok(match self {
            Codec::V3(codec, _) => match codec.decode(bytes)? {
                None => None,
                Some((packet, _)) => {
                    strict::check_v3(&packet)?;
                    Some(from_v3(packet))
                }
            },
            Codec::V5(codec) => match codec.decode(bytes)? {
                None => None,
                Some((packet, _)) => {
                    strict::check_v5(&packet)?;
                    if let v5::Packet::Connect(connect) = &packet
                        && let Some(max) = connect.max_packet_size
                    {
                        // What is larger is not sent (MQTT-3.1.2-24). The codec takes five bytes of it for a header.
                        codec.set_max_outbound_size(body_bytes_max(max.get()) + 5);
                    }
                    Some(from_v5(packet))
                }
            },
        })
    }

    /// Bytes behind the header of the largest packet that it takes now.
    fn bytes_max(&self) -> u32 {
        match self {
            Codec::V3(_, bytes_max) => *bytes_max,
            Codec::V5(codec) => codec.max_inbound_size(),
        }
    }

    fn version(&self) -> Version {
        match self {
            Codec::V3(..) => Version::V3,
            Codec::V5(_) => Version::V5,
        }
    }

    /// Whether the client takes a packet with so many bytes behind its header.
    fn has_room(&self, body_bytes: usize) -> bool {
        match self {
            Codec::V5(codec) if codec.max_outbound_size() > 0 => {
                body_bytes <= codec.max_outbound_size() as usize
            }
            _ => true,
        }
    }

    fn put_v5(&mut self, packet: v5::Packet, out: &mut BytesMut) {
        if let Codec::V5(codec) = self
            && let Err(error) = codec.encode(packet, out)
        {
            tracing::debug!(%error, "packet not sent");
        }
    }

    /// CONNACK of a session that is open.
    pub(crate) fn put_accepted(
        &mut self,
        present: bool,
        persistent: bool,
        keep_alive_s: Option<u16>,
        out: &mut BytesMut,
    ) {
        match self {
            Codec::V3(..) => out.put_slice(&[0x20, 2, u8::from(present), 0]),
            Codec::V5(_) => {
                let ack = v5::ConnectAck {
                    session_present: present,
                    session_expiry_interval_secs: Some(if persistent { u32::MAX } else { 0 }),
                    receive_max: NonZeroU16::new(RECEIVE_MAX).unwrap_or(NonZeroU16::MIN),
                    max_qos: QoS::AtLeastOnce,
                    // The length of so large a packet has three bytes.
                    max_packet_size: Some(PACKET_BYTES_MAX + 4),
                    topic_alias_max: TOPIC_ALIAS_MAX,
                    // RETAIN is not kept, but taken as telemetry and marked, as IoT Hub does.
                    retain_available: true,
                    wildcard_subscription_available: true,
                    subscription_identifiers_available: false,
                    shared_subscription_available: false,
                    server_keepalive_sec: keep_alive_s,
                    ..v5::ConnectAck::default()
                };
                self.put_v5(ack.into(), out);
            }
        }
    }

    /// CONNACK of a refusal.
    pub(crate) fn put_refused(&mut self, refused: Refused, out: &mut BytesMut) {
        match self {
            Codec::V3(..) => out.put_slice(&[0x20, 2, 0, refused.v3_code()]),
            Codec::V5(_) => {
                let ack = v5::ConnectAck {
                    reason_code: refused.v5_code(),
                    ..v5::ConnectAck::default()
                };
                self.put_v5(ack.into(), out);
            }
        }
    }

    /// PUBACK; with `receipt` for clients that asked for it (MQTT 5).
    pub(crate) fn put_puback(&self, packet_id: u16, receipt: Option<Receipt>, out: &mut BytesMut) {
        // Written by hand, so that nothing is allocated: shard/offset/term has 52 characters at most.
        let mut text = TextBuffer::default();
        if let Some(receipt) = receipt {
            let _ = std::fmt::Write::write_fmt(&mut text, format_args!("{receipt}"));
        }
        let value = text.as_bytes();
        let properties = 1 + 2 + RECEIPT_PROPERTY.len() + 2 + value.len();
        if value.is_empty() || !self.has_room(2 + 1 + 1 + properties) {
            // Success without properties has the same bytes in both versions.
            out.put_slice(&[0x40, 2]);
            out.put_u16(packet_id);
            return;
        }
        out.put_slice(&[0x40, (2 + 1 + 1 + properties) as u8]);
        out.put_u16(packet_id);
        out.put_slice(&[0, properties as u8, 0x26]);
        for part in [RECEIPT_PROPERTY.as_bytes(), value] {
            out.put_u16(part.len() as u16);
            out.put_slice(part);
        }
    }

    /// PUBACK of MQTT 5 that refuses: quota exceeded, nothing was stored.
    pub(crate) fn put_puback_refused(&self, packet_id: u16, out: &mut BytesMut) {
        out.put_slice(&[0x40, 3]);
        out.put_u16(packet_id);
        out.put_u8(0x97);
    }

    /// SUBACK with a code per filter.
    pub(crate) fn put_suback(&mut self, packet_id: u16, codes: &[FilterCode], out: &mut BytesMut) {
        self.put_filter_ack(
            0x90,
            packet_id,
            codes.iter().map(|code| code.suback()),
            codes.len(),
            out,
        );
    }

    /// UNSUBACK; MQTT 5 has a code per filter, 3.1.1 has none.
    pub(crate) fn put_unsuback(&mut self, packet_id: u16, count: usize, out: &mut BytesMut) {
        match self {
            Codec::V3(..) => {
                out.put_slice(&[0xB0, 2]);
                out.put_u16(packet_id);
            }
            Codec::V5(_) => {
                self.put_filter_ack(0xB0, packet_id, std::iter::repeat_n((0, 0), count), count, out)
            }
        }
    }

    fn put_filter_ack(
        &self,
        kind: u8,
        packet_id: u16,
        codes: impl Iterator<Item = (u8, u8)>,
        count: usize,
        out: &mut BytesMut,
    ) {
        let is_v5 = matches!(self, Codec::V5(_));
        if !self.has_room(2 + usize::from(is_v5) + count) {
            return tracing::debug!(packet_id, count, "no room for so many codes");
        }
        // The filters of one packet are few (FILTERS_MAX), so the length takes one byte.
        out.put_slice(&[kind, (2 + usize::from(is_v5) + count) as u8]);
        out.put_u16(packet_id);
        if is_v5 {
            out.put_u8(0);
        }
        out.extend(codes.map(|(v3, v5)| if is_v5 { v5 } else { v3 }));
    }

    /// PUBLISH of QoS 0: what is lost on the way is asked for or told again by other means. `topic` is short.
    pub(crate) fn put_publish(&mut self, topic: &str, payload: Bytes, out: &mut BytesMut) {
        self.put_answer(topic, payload, None, out);
    }

    /// The same; with `receipt` for clients that asked for it (MQTT 5) and have room for it.
    pub(crate) fn put_answer(
        &mut self,
        topic: &str,
        payload: Bytes,
        receipt: Option<WriteReceipt>,
        out: &mut BytesMut,
    ) {
        let receipt = receipt.map(|receipt| receipt.to_string()).filter(|text| {
            let property = 1 + 2 + RECEIPT_PROPERTY.len() + 2 + text.len();
            self.has_room(2 + topic.len() + 1 + property + payload.len())
        });
        let properties = receipt.map(|text| PublishProperties {
            user_properties: vec![(RECEIPT_PROPERTY.into(), text.into())],
            ..PublishProperties::default()
        });
        let publish = Box::new(Publish {
            dup: false,
            retain: false,
            qos: QoS::AtMostOnce,
            topic: topic.into(),
            packet_id: None,
            payload,
            properties,
        });
        match self {
            Codec::V3(codec, _) => {
                if let Err(error) = codec.encode(v3::Packet::Publish(publish), out) {
                    tracing::debug!(%error, "packet not sent");
                }
            }
            Codec::V5(_) => self.put_v5(v5::Packet::Publish(publish), out),
        }
    }

    /// PUBLISH of a cloud-to-device message. Returns `false` if the client takes nothing so large.
    pub(crate) fn put_message(&mut self, message: Downward, out: &mut BytesMut) -> bool {
        let qos = if message.qos == 0 {
            QoS::AtMostOnce
        } else {
            QoS::AtLeastOnce
        };
        let packet_id = NonZeroU16::new(message.packet_id).filter(|_| message.qos > 0);
        let publish = |topic: String, properties| {
            Box::new(Publish {
                dup: message.dup,
                retain: false,
                qos,
                topic: topic.into(),
                packet_id,
                payload: message.payload.clone(),
                properties,
            })
        };
        let before = out.len();
        let written = match self {
            Codec::V3(codec, _) => {
                let topic = format!("{}{}", message.topic, message.bag);
                let packet = v3::Packet::Publish(publish(topic, None));
                codec.encode(packet, out).is_ok()
            }
            Codec::V5(codec) => {
                let (content_type, pairs) = message.properties();
                let pairs = pairs.into_iter().map(|(key, value)| (key.into(), value.into()));
                let properties = PublishProperties {
                    content_type: content_type.map(Into::into),
                    user_properties: pairs.collect(),
                    ..PublishProperties::default()
                };
                let packet = v5::Packet::Publish(publish(message.topic.clone(), Some(properties)));
                codec.encode(packet, out).is_ok()
            }
        };
        if !written {
            out.truncate(before);
        }
        written
    }

    /// PINGRESP.
    pub(crate) fn put_pong(&self, out: &mut BytesMut) {
        out.put_slice(&[0xD0, 0]);
    }

    /// DISCONNECT with a reason; MQTT 3.1.1 has none, a close says it all.
    pub(crate) fn put_disconnect(&mut self, reason: DisconnectReasonCode, out: &mut BytesMut) {
        self.put_v5(v5::Packet::Disconnect(v5::Disconnect::new(reason)), out);
    }
}

/// What became of one filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FilterCode {
    /// Granted with this QoS.
    Granted(u8),
    /// Not a filter that this device may use.
    NotOwn,
    /// A filter that several clients would share, which is not offered.
    Shared,
    /// The device has as many as it may.
    Quota,
}

impl FilterCode {
    fn suback(self) -> (u8, u8) {
        match self {
            FilterCode::Granted(qos) => (qos, qos),
            FilterCode::NotOwn => (0x80, 0x8F),
            FilterCode::Shared => (0x80, 0x9E),
            FilterCode::Quota => (0x80, 0x97),
        }
    }
}

/// Why a CONNECT was refused. What exactly is wrong with a credential is never told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// Credential, unknown device, disabled device.
    #[error("not authorized")]
    NotAuthorized,
    /// The client id is not the device id.
    #[error("client id is not the device id")]
    ClientId,
    /// The protocol level is not spoken here.
    #[error("protocol level not supported")]
    Protocol,
    /// The will has a quality of service that is not offered.
    #[error("quality of the will not supported")]
    WillQos,
    /// An authentication exchange was asked for.
    #[error("authentication method not supported")]
    AuthMethod,
    /// The cluster gave no answer, or this gateway is cut off from it.
    #[error("server unavailable")]
    Unavailable,
}

impl Refused {
    fn v3_code(self) -> u8 {
        match self {
            Refused::Protocol => 1,
            Refused::ClientId => 2,
            Refused::Unavailable => 3,
            Refused::NotAuthorized | Refused::AuthMethod | Refused::WillQos => 5,
        }
    }

    fn v5_code(self) -> v5::ConnectAckReason {
        match self {
            Refused::Protocol => v5::ConnectAckReason::UnsupportedProtocolVersion,
            Refused::ClientId => v5::ConnectAckReason::ClientIdentifierNotValid,
            Refused::Unavailable => v5::ConnectAckReason::ServerUnavailable,
            Refused::NotAuthorized => v5::ConnectAckReason::NotAuthorized,
            Refused::AuthMethod => v5::ConnectAckReason::BadAuthenticationMethod,
            Refused::WillQos => v5::ConnectAckReason::QosNotSupported,
        }
    }
}

/// The reason that MQTT 5 has for a packet that cannot be read.
pub(crate) fn reason_of(error: &DecodeError) -> DisconnectReasonCode {
    match error {
        DecodeError::Utf8Error => DisconnectReasonCode::MalformedPacket,
        // A packet without a filter.
        DecodeError::InvalidTopicFilter => DisconnectReasonCode::ProtocolError,
        other => other.to_reason_code(),
    }
}

/// Bytes behind the header of the largest packet that has `packet_bytes_max` bytes: the length takes one to four.
fn body_bytes_max(packet_bytes_max: u32) -> u32 {
    let header = match packet_bytes_max {
        0..130 => 2,
        130..16_387 => 3,
        16_387..2_097_156 => 4,
        _ => 5,
    };
    packet_bytes_max.saturating_sub(header).max(1)
}

fn from_v3(packet: v3::Packet) -> Incoming {
    match packet {
        v3::Packet::Publish(publish) => Incoming::Publish(publish),
        v3::Packet::PingRequest => Incoming::Ping,
        v3::Packet::Subscribe {
            packet_id,
            topic_filters,
        } => Incoming::Subscribe {
            packet_id: packet_id.get(),
            filters: topic_filters
                .iter()
                .map(|(filter, qos)| (filter.to_string(), qos.value()))
                .collect(),
        },
        v3::Packet::Unsubscribe {
            packet_id,
            topic_filters,
        } => Incoming::Unsubscribe {
            packet_id: packet_id.get(),
            filters: topic_filters.iter().map(|filter| filter.to_string()).collect(),
        },
        v3::Packet::Disconnect => Incoming::Disconnect { with_will: false },
        v3::Packet::PublishAck { packet_id } => Incoming::Ack {
            packet_id: packet_id.get(),
            accepted: true,
        },
        v3::Packet::Connect(connect) => Incoming::Connect(Box::new(ConnectRequest {
            version: Version::V3,
            client_id: connect.client_id.to_string(),
            username: connect.username.as_ref().map(|text| text.to_string()),
            password: connect.password.as_ref().map(|bytes| bytes.to_vec()),
            clean: connect.clean_session,
            keep_alive_s: connect.keep_alive,
            will: connect.last_will.as_ref().map(|will| Will {
                topic: will.topic.to_string(),
                payload: will.message.to_vec(),
                qos: will.qos.value(),
                content_type: None,
                user_properties: Vec::new(),
            }),
            receipts: false,
            receive_max: None,
            extended_auth: false,
        })),
        _ => Incoming::Unexpected,
    }
}

fn from_v5(packet: v5::Packet) -> Incoming {
    use DisconnectReasonCode as Code;
    match packet {
        v5::Packet::Publish(publish) => match &publish.properties {
            Some(own) if !own.subscription_ids.is_empty() => Incoming::Against(Code::ProtocolError),
            _ => Incoming::Publish(publish),
        },
        v5::Packet::PingRequest => Incoming::Ping,
        v5::Packet::Subscribe(subscribe) if subscribe.id.is_some() => {
            Incoming::Against(Code::SubscriptionIdentifiersNotSupported)
        }
        v5::Packet::Subscribe(subscribe) => Incoming::Subscribe {
            packet_id: subscribe.packet_id.get(),
            filters: subscribe
                .topic_filters
                .iter()
                .map(|(filter, options)| (filter.to_string(), options.qos.value()))
                .collect(),
        },
        v5::Packet::Unsubscribe(unsubscribe) => Incoming::Unsubscribe {
            packet_id: unsubscribe.packet_id.get(),
            filters: unsubscribe
                .topic_filters
                .iter()
                .map(|filter| filter.to_string())
                .collect(),
        },
        v5::Packet::Disconnect(disconnect) => Incoming::Disconnect {
            with_will: disconnect.reason_code != DisconnectReasonCode::NormalDisconnection,
        },
        v5::Packet::PublishAck(ack) => Incoming::Ack {
            packet_id: ack.packet_id.get(),
            accepted: u8::from(ack.reason_code) < 0x80,
        },
        v5::Packet::Connect(connect) => {
            if connect.user_properties.len() > PROPERTIES_MAX {
                return Incoming::Unexpected;
            }
            Incoming::Connect(Box::new(ConnectRequest {
                version: Version::V5,
                client_id: connect.client_id.to_string(),
                username: connect.username.as_ref().map(|text| text.to_string()),
                password: connect.password.as_ref().map(|bytes| bytes.to_vec()),
                clean: connect.clean_start,
                keep_alive_s: connect.keep_alive,
                will: connect.last_will.as_ref().map(|will| Will {
                    topic: will.topic.to_string(),
                    payload: will.message.to_vec(),
                    qos: will.qos.value(),
                    content_type: will.content_type.as_ref().map(|text| text.to_string()),
                    user_properties: will
                        .user_properties
                        .iter()
                        .map(|(k, v)| (k.to_string(), v.to_string()))
                        .collect(),
                }),
                // Whoever wants no problem information is sent no user properties (MQTT-3.1.2-29).
                receipts: connect.request_problem_info
                    && connect
                        .user_properties
                        .iter()
                        .any(|(k, v)| &**k == RECEIPT_PROPERTY && &**v == "1"),
                receive_max: connect.receive_max.map(|max| max.get()),
                extended_auth: connect.auth_method.is_some(),
            }))
        }
        _ => Incoming::Unexpected,
    }
}

/// Text of a receipt, without an allocation.
struct TextBuffer {
    bytes: [u8; 64],
    length: usize,
}

impl Default for TextBuffer {
    fn default() -> Self {
        Self {
            bytes: [0; 64],
            length: 0,
        }
    }
}

impl TextBuffer {
    fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }
}

impl std::fmt::Write for TextBuffer {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        let end = self.length + text.len();
        self.bytes
            .get_mut(self.length..end)
            .ok_or(std::fmt::Error)?
            .copy_from_slice(text.as_bytes());
        self.length = end;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dunlin_model::id::ShardId;
    use proptest::prelude::*;

    #[test]
    fn versions_are_told_apart_by_their_first_bytes() {
        let captured = b"\x10\x20\x00\x04MQTT\x04\xC0\x00\x3C";
        for cut in 0..captured.len() {
            let seen = sniff(&captured[..cut]);
            assert_eq!(seen, Ok((cut >= 9).then_some(Version::V3)), "{cut}");
        }
        assert_eq!(sniff(b"\x10\x20\x00\x04MQTT\x05"), Ok(Some(Version::V5)));
        assert_eq!(sniff(b"\x10\x20\x00\x04MQTT\x06"), Err(SniffError::Level(6)));
        assert_eq!(sniff(b"\x10\x20\x00\x06MQIsdp\x03"), Err(SniffError::Level(3)));
        assert_eq!(sniff(b"\x10\x20\x00\x04HTTP\x04"), Err(SniffError::NotMqtt));
        assert_eq!(sniff(b"\x30\x20"), Err(SniffError::NotMqtt));
        assert_eq!(sniff(b"GET / HTTP/1.1"), Err(SniffError::NotMqtt));
        assert_eq!(sniff(b"\x10\xFF\xFF\xFF\x7F\x00"), Err(SniffError::NotMqtt));
        assert_eq!(sniff(b"\x10\xFF\xFF\xFF\xFF\x7F"), Err(SniffError::NotMqtt));
    }

    #[test]
    fn an_answer_has_its_receipt_where_there_is_room_for_it() {
        let receipt = WriteReceipt {
            shard: ShardId(7),
            index: 41,
            term: 2,
        };
        let put = |codec: &mut Codec, receipt| {
            let mut out = BytesMut::new();
            codec.put_answer("$iothub/twin/res/204/?$rid=r", Bytes::new(), receipt, &mut out);
            out.len()
        };
        let mut codec = Codec::new(Version::V5);
        let (bare, whole) = (put(&mut codec, None), put(&mut codec, Some(receipt)));
        assert_eq!(whole - bare, 1 + 2 + RECEIPT_PROPERTY.len() + 2 + "7/@41/2".len());
        for (bytes_max, expected) in [(whole, whole), (whole - 1, bare)] {
            let Codec::V5(inner) = &mut codec else {
                unreachable!()
            };
            inner.set_max_outbound_size(body_bytes_max(bytes_max as u32) + 5);
            assert_eq!(put(&mut codec, Some(receipt)), expected, "{bytes_max}");
        }
    }

    #[test]
    fn a_puback_with_a_receipt_is_what_the_codec_reads() {
        let codec = Codec::new(Version::V5);
        let mut out = BytesMut::new();
        let receipt = Receipt {
            shard: ShardId(u32::MAX),
            offset: u64::MAX,
            term: u64::MAX,
        };
        codec.put_puback(0x1234, Some(receipt), &mut out);
        codec.put_puback(7, None, &mut out);
        let mut reader = v5::Codec::new(1000, 0);
        let Some((v5::Packet::PublishAck(ack), _)) = reader.decode(&mut out).unwrap() else {
            panic!("no PUBACK")
        };
        assert_eq!(ack.packet_id.get(), 0x1234);
        let (key, value) = &ack.properties[0];
        assert_eq!(
            (&**key, value.to_string()),
            (RECEIPT_PROPERTY, receipt.to_string())
        );
        let Some((v5::Packet::PublishAck(ack), _)) = reader.decode(&mut out).unwrap() else {
            panic!("no PUBACK")
        };
        assert_eq!((ack.packet_id.get(), ack.properties.len()), (7, 0));
        codec.put_puback_refused(8, &mut out);
        let Some((v5::Packet::PublishAck(ack), _)) = reader.decode(&mut out).unwrap() else {
            panic!("no PUBACK")
        };
        assert_eq!(
            (ack.packet_id.get(), ack.reason_code),
            (8, v5::PublishAckReason::QuotaExceeded)
        );
    }

    #[test]
    fn answers_are_what_the_codecs_read() {
        let codes = [FilterCode::Granted(1), FilterCode::NotOwn];
        let mut five = Codec::new(Version::V5);
        let mut out = BytesMut::new();
        five.put_accepted(true, true, Some(60), &mut out);
        five.put_suback(3, &codes, &mut out);
        five.put_unsuback(4, 2, &mut out);
        five.put_disconnect(DisconnectReasonCode::SessionTakenOver, &mut out);
        let mut reader = v5::Codec::new(1000, 0);
        let mut next = || reader.decode(&mut out).unwrap().unwrap().0;
        assert!(
            matches!(next(), v5::Packet::ConnectAck(ack) if ack.max_qos == QoS::AtLeastOnce && ack.session_present)
        );
        assert!(matches!(next(), v5::Packet::SubscribeAck(ack)
            if ack.status == [v5::SubscribeAckReason::GrantedQos1, v5::SubscribeAckReason::TopicFilterInvalid]));
        assert!(matches!(next(), v5::Packet::UnsubscribeAck(ack) if ack.status.len() == 2));
        assert!(matches!(next(), v5::Packet::Disconnect(_)));
        let mut three = Codec::new(Version::V3);
        let mut out = BytesMut::new();
        three.put_suback(3, &codes, &mut out);
        three.put_unsuback(4, 2, &mut out);
        assert_eq!(&out[..], [0x90, 4, 0, 3, 1, 0x80, 0xB0, 2, 0, 4]);
    }

    proptest! {
        #[test]
        fn noise_never_panics(noise in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = sniff(&noise);
            for version in [Version::V3, Version::V5] {
                let mut codec = Codec::new(version);
                let mut bytes = BytesMut::from(&noise[..]);
                while let Ok(Some(packet)) = codec.decode(&mut bytes) { let _ = packet; }
            }
        }

        #[test]
        fn damaged_packets_never_panic(kind: u8, body in prop::collection::vec(any::<u8>(), 0..120)) {
            for version in [Version::V3, Version::V5] {
                let mut codec = Codec::new(version);
                let mut bytes = BytesMut::new();
                bytes.put_slice(&[kind, body.len() as u8]);
                bytes.put_slice(&body);
                let _ = codec.decode(&mut bytes);
            }
        }
    }
}
