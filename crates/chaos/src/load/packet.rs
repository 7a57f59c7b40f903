//! MQTT 3.1.1 and 5 as bytes, as far as a load generator and a sink of messages write and read them.
//!
//! Packets are put together by hand, since one message may cost no more than a copy. Nothing here
//! keeps state, and nothing from outside is trusted: what cannot be read is [`Split::Malformed`] or
//! `None`. Who sends what when is in [`super::publisher`] and [`super::subscriber`].

use dunlin_gateway::mqtt::Version;

/// First bytes of packets, with the flags that the protocol fixes.
pub(super) const CONNECT: u8 = 0x10;
pub(super) const CONNACK: u8 = 0x20;
pub(super) const PUBLISH: u8 = 0x30;
pub(super) const PUBACK: u8 = 0x40;
pub(super) const PUBREC: u8 = 0x50;
pub(super) const PUBREL: u8 = 0x62;
pub(super) const PUBCOMP: u8 = 0x70;
pub(super) const SUBSCRIBE: u8 = 0x82;
pub(super) const SUBACK: u8 = 0x90;
pub(super) const PINGREQ: u8 = 0xC0;
pub(super) const PINGRESP: u8 = 0xD0;
pub(super) const DISCONNECT: u8 = 0xE0;
/// The flag of a PUBLISH that says that it may have come before.
pub(super) const DUPLICATE: u8 = 0x08;

/// Bytes of a packet's body at the most, by the protocol.
pub(super) const BODY_BYTES_MAX: usize = 268_435_455;

/// What a connection begins with.
#[derive(Debug, Clone, Copy)]
pub(super) struct Hello<'a> {
    pub(super) version: Version,
    pub(super) client_id: &'a str,
    pub(super) username: Option<&'a str>,
    pub(super) password: Option<&'a str>,
    pub(super) clean: bool,
    pub(super) keep_alive_s: u16,
}

/// A packet with its fixed header.
pub(super) fn packet(head: u8, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(body.len() + 5);
    push_head(&mut out, head, body.len());
    out.extend_from_slice(body);
    out
}

/// The fixed header of a packet whose body has so many bytes.
pub(super) fn push_head(out: &mut Vec<u8>, head: u8, body_bytes: usize) {
    assert!(body_bytes <= BODY_BYTES_MAX, "no packet is that long");
    out.push(head);
    let mut left = body_bytes;
    loop {
        let low = (left & 0x7F) as u8;
        left >>= 7;
        out.push(if left > 0 { low | 0x80 } else { low });
        if left == 0 {
            return;
        }
    }
}

/// A string with its length; what is longer than the protocol allows is cut.
pub(super) fn push_text(out: &mut Vec<u8>, text: &str) {
    let bytes = &text.as_bytes()[..text.len().min(usize::from(u16::MAX))];
    out.extend((bytes.len() as u16).to_be_bytes());
    out.extend_from_slice(bytes);
}

/// CONNECT.
pub(super) fn connect(hello: &Hello<'_>) -> Vec<u8> {
    let mut body = b"\0\x04MQTT".to_vec();
    body.push(match hello.version {
        Version::V3 => 4,
        Version::V5 => 5,
    });
    let flag = |set: bool, bit: u8| if set { bit } else { 0 };
    body.push(
        flag(hello.username.is_some(), 0x80) | flag(hello.password.is_some(), 0x40) | flag(hello.clean, 0x02),
    );
    body.extend(hello.keep_alive_s.to_be_bytes());
    if hello.version == Version::V5 {
        if hello.clean {
            body.push(0);
        } else {
            // The session stays for ever, as it does in MQTT 3.1.1.
            body.extend([5, 0x11, 0xFF, 0xFF, 0xFF, 0xFF]);
        }
    }
    push_text(&mut body, hello.client_id);
    for text in [hello.username, hello.password].into_iter().flatten() {
        push_text(&mut body, text);
    }
    packet(CONNECT, &body)
}

/// SUBSCRIBE to one filter, with packet id 1.
pub(super) fn subscribe(version: Version, filter: &str, qos: u8) -> Vec<u8> {
    let mut body = vec![0, 1];
    if version == Version::V5 {
        body.push(0);
    }
    push_text(&mut body, filter);
    body.push(qos);
    packet(SUBSCRIBE, &body)
}

/// An answer that is nothing but a packet id.
pub(super) fn push_answer(out: &mut Vec<u8>, head: u8, id: u16) {
    out.extend([head, 2]);
    out.extend(id.to_be_bytes());
}

/// What is at the front of what has been read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Split<'a> {
    /// A packet: its first byte, its body, and the bytes of both with the length between them.
    Whole(u8, &'a [u8], usize),
    /// The beginning of one that needs at least so many bytes.
    Partial(usize),
    /// Nothing that MQTT allows.
    Malformed,
}

/// Splits the first packet off.
pub(super) fn split(read: &[u8]) -> Split<'_> {
    let mut body_bytes = 0;
    for place in 0..4 {
        let Some(byte) = read.get(1 + place) else {
            return Split::Partial(read.len() + 1);
        };
        body_bytes |= usize::from(byte & 0x7F) << (7 * place);
        if byte & 0x80 == 0 {
            let head = 2 + place;
            return match read.get(head..head + body_bytes) {
                Some(body) => Split::Whole(read[0], body, head + body_bytes),
                None => Split::Partial(head + body_bytes),
            };
        }
    }
    Split::Malformed
}

/// The number in two bytes.
pub(super) fn number(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?]))
}

/// A variable byte integer at the front, and its bytes.
fn length(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0;
    for place in 0..4 {
        let byte = *bytes.get(place)?;
        value |= usize::from(byte & 0x7F) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((value, place + 1));
        }
    }
    None
}

/// What a CONNACK says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Connack {
    /// 0 is yes.
    pub(super) code: u8,
    /// Whether the server knows what an earlier connection left open.
    pub(super) has_session: bool,
    /// QoS 1 and 2 messages that may be unacknowledged (MQTT 5).
    pub(super) receive_max: Option<u16>,
}

/// Reads the body of a CONNACK.
pub(super) fn connack(version: Version, body: &[u8]) -> Option<Connack> {
    let code = *body.get(1)?;
    let receive_max = match version {
        Version::V3 => None,
        Version::V5 => receive_max(body.get(2..)?),
    };
    Some(Connack {
        code,
        has_session: body[0] & 1 != 0,
        receive_max,
    })
}

/// Looks for the receive maximum among the properties of a CONNACK.
fn receive_max(bytes: &[u8]) -> Option<u16> {
    let (all, head) = length(bytes)?;
    let mut rest = bytes.get(head..head + all)?;
    while let Some((&id, value)) = rest.split_first() {
        let text = |at: usize| Some(2 + usize::from(number(value, at)?));
        let bytes = match id {
            0x21 => return number(value, 0),
            0x24 | 0x25 | 0x28..=0x2A => 1,
            0x13 | 0x22 => 2,
            0x11 | 0x27 => 4,
            0x12 | 0x15 | 0x16 | 0x1A | 0x1C | 0x1F => text(0)?,
            0x26 => {
                let name = text(0)?;
                name + text(name)?
            }
            _ => return None,
        };
        rest = value.get(bytes..)?;
    }
    None
}

/// A PUBLISH, taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Publish<'a> {
    pub(super) qos: u8,
    pub(super) topic: &'a [u8],
    /// 0 with QoS 0.
    pub(super) id: u16,
    pub(super) payload: &'a [u8],
}

/// Reads a PUBLISH.
pub(super) fn publish(version: Version, head: u8, body: &[u8]) -> Option<Publish<'_>> {
    let qos = head >> 1 & 3;
    let mut at = 2 + usize::from(number(body, 0)?);
    let topic = body.get(2..at)?;
    let mut id = 0;
    if qos > 0 {
        id = number(body, at)?;
        at += 2;
        if qos > 2 || id == 0 {
            return None;
        }
    }
    if version == Version::V5 {
        let (properties, head) = length(body.get(at..)?)?;
        at += head + properties;
    }
    Some(Publish {
        qos,
        topic,
        id,
        payload: body.get(at..)?,
    })
}

/// Why a server says no, in words.
pub(super) fn refusal(version: Version, code: u8) -> String {
    let words = match (version, code) {
        (Version::V3, 1) | (_, 0x84) => "unacceptable protocol version",
        (Version::V3, 2) | (_, 0x85) => "client id not allowed",
        (Version::V3, 3) | (_, 0x88) => "server unavailable",
        (Version::V3, 4) | (_, 0x86) => "bad user name or password",
        (Version::V3, 5) | (_, 0x87) => "not authorized",
        (_, 0x89) => "server busy",
        (_, 0x8A) => "banned",
        (_, 0x8C) => "bad authentication method",
        (_, 0x8E) => "session taken over",
        (_, 0x90) => "topic name invalid",
        (_, 0x97) => "quota exceeded",
        (_, 0x9B) => "QoS not supported",
        (_, 0x9F) => "connection rate exceeded",
        _ => "refused",
    };
    format!("{words} ({code:#04x})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_split_as_they_come_in() {
        let whole = packet(PUBLISH, &[7; 300]);
        assert_eq!(whole[..3], [0x30, 0xAC, 0x02]);
        for cut in 0..whole.len() {
            match split(&whole[..cut]) {
                Split::Partial(wanted) => assert!(wanted > cut && wanted <= whole.len()),
                other => panic!("{cut}: {other:?}"),
            }
        }
        assert_eq!(split(&whole), Split::Whole(PUBLISH, &[7; 300], 303));
        assert_eq!(split(&[0x30, 0xFF, 0xFF, 0xFF, 0xFF, 1]), Split::Malformed);
    }

    #[test]
    fn a_connack_tells_the_window() {
        assert_eq!(
            connack(Version::V3, &[0, 5]),
            Some(Connack {
                code: 5,
                has_session: false,
                receive_max: None
            })
        );
        // Session expiry, a user property, then the receive maximum.
        let body = [
            0, 0, 15, 0x11, 0, 0, 0, 1, 0x26, 0, 1, b'a', 0, 1, b'b', 0x21, 0, 64,
        ];
        let short = connack(Version::V5, &body);
        assert_eq!(short.map(|connack| connack.receive_max), Some(Some(64)));
        assert_eq!(
            connack(Version::V5, &[0, 0, 9]).map(|connack| connack.receive_max),
            Some(None)
        );
        assert!(connack(Version::V3, &[1, 0]).is_some_and(|connack| connack.has_session));
        assert_eq!(connack(Version::V5, &[0]), None);
    }

    #[test]
    fn a_publish_is_read_in_both_versions() {
        let v5 = [0, 1, b't', 0, 9, 3, 0x01, 0x01, 0x00, b'x'];
        assert!(publish(Version::V5, 0x32, &v5[..5]).is_none());
        let body = [0, 1, b't', 0, 9, 2, 1, 1, b'x', b'y'];
        let expected = |payload| Publish {
            qos: 1,
            topic: b"t",
            id: 9,
            payload,
        };
        assert_eq!(publish(Version::V5, 0x32, &body), Some(expected(b"xy")));
        assert_eq!(publish(Version::V3, 0x32, &body[..5]), Some(expected(b"")));
        assert!(publish(Version::V3, 0x32, &[0, 1, b't', 0, 0]).is_none(), "id 0");
    }

    #[test]
    fn noise_never_panics() {
        let mut state = 1_u64;
        for _ in 0..20_000 {
            let noise: Vec<u8> = (0..state % 40)
                .map(|place| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(place | 1);
                    (state >> 33) as u8
                })
                .collect();
            state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
            let _ = split(&noise);
            for version in [Version::V3, Version::V5] {
                let _ = connack(version, &noise);
                let _ = publish(version, noise.first().copied().unwrap_or(0x32), &noise);
            }
        }
    }

    #[test]
    fn a_connect_has_what_it_is_told() {
        let hello = Hello {
            version: Version::V3,
            client_id: "c",
            username: Some("u"),
            password: None,
            clean: true,
            keep_alive_s: 300,
        };
        assert_eq!(
            connect(&hello),
            b"\x10\x10\0\x04MQTT\x04\x82\x01\x2c\0\x01c\0\x01u"
        );
        let v5 = connect(&Hello {
            version: Version::V5,
            clean: false,
            username: None,
            ..hello
        });
        assert_eq!(
            v5,
            b"\x10\x13\0\x04MQTT\x05\0\x01\x2c\x05\x11\xff\xff\xff\xff\0\x01c"
        );
    }
}
