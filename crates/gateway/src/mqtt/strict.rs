//! What the codec lets pass and a receiver must not: flags, lengths and options of a packet before it is decoded, its
//! texts afterwards. Used by [`super::wire`] alone.
//!
//! Each rule has its statement and its test in `docs/mqtt-conformance.md`.

use rmqtt_codec::error::DecodeError;
use rmqtt_codec::{v3, v5};

use super::Version;

/// Bytes of the fixed header and bytes behind it, of the packet that `bytes` begin with. `None` if the header has not
/// come whole, or is none.
pub(super) fn header(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut length = 0;
    for (place, byte) in bytes.iter().skip(1).take(4).enumerate() {
        length |= usize::from(byte & 0x7F) << (7 * place);
        if byte & 0x80 == 0 {
            return Some((place + 2, length));
        }
    }
    None
}

/// Looks at a packet that has come whole, before it is decoded. `start` is where its header ends.
pub(super) fn check_bytes(version: Version, packet: &[u8], start: usize) -> Result<(), DecodeError> {
    let (Some(&first), Some(body)) = (packet.first(), packet.get(start..)) else {
        return Err(DecodeError::MalformedPacket);
    };
    let flags = match first >> 4 {
        // PUBLISH, whose flags say something, and the kind that there is not: the codec knows them.
        3 | 0 => first & 0x0F,
        6 | 8 | 10 => 2,
        _ => 0,
    };
    let is_longer_than_needed = version == Version::V5 && start > 2 && packet.get(start - 1) == Some(&0);
    let is_right = match (first >> 4, version) {
        (1, _) => connect_fits(version, body).is_some(),
        (8, Version::V3) => options_fit(body).is_some(),
        (12, _) | (14, Version::V3) => body.is_empty(),
        _ => true,
    };
    if first & 0x0F == flags && !is_longer_than_needed && is_right {
        Ok(())
    } else {
        Err(DecodeError::MalformedPacket)
    }
}

fn skip<'a>(rest: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (skipped, after) = rest.split_at_checked(count)?;
    *rest = after;
    Some(skipped)
}

fn skip_text(rest: &mut &[u8]) -> Option<()> {
    let length = skip(rest, 2)?.try_into().map(u16::from_be_bytes).ok()?;
    skip(rest, usize::from(length)).map(|_| ())
}

/// MQTT 3.1.1 has no properties.
fn skip_properties(version: Version, rest: &mut &[u8]) -> Option<()> {
    if version == Version::V5 {
        let mut length = 0;
        for place in 0..4 {
            let byte = *skip(rest, 1)?.first()?;
            length |= usize::from(byte & 0x7F) << (7 * place);
            if byte & 0x80 == 0 {
                break;
            }
        }
        skip(rest, length)?;
    }
    Some(())
}

/// Whether a CONNECT has what its flags say, and nothing else.
fn connect_fits(version: Version, body: &[u8]) -> Option<()> {
    let flags = *body.get(7)?;
    let has = |flag: u8| flags & flag != 0;
    let (has_name, has_password, has_will) = (has(0x80), has(0x40), has(0x04));
    let will_of_nobody = !has_will && has(0x38);
    let password_of_nobody = version == Version::V3 && has_password && !has_name;
    if will_of_nobody || password_of_nobody {
        return None;
    }
    let mut rest = body.get(10..)?;
    skip_properties(version, &mut rest)?;
    skip_text(&mut rest)?;
    if has_will {
        skip_properties(version, &mut rest)?;
        skip_text(&mut rest)?;
        skip_text(&mut rest)?;
    }
    for _ in 0..u8::from(has_name) + u8::from(has_password) {
        skip_text(&mut rest)?;
    }
    rest.is_empty().then_some(())
}

/// Whether the options in a SUBSCRIBE of MQTT 3.1.1 are qualities of service.
fn options_fit(body: &[u8]) -> Option<()> {
    let mut rest = body.get(2..)?;
    while !rest.is_empty() {
        skip_text(&mut rest)?;
        skip(&mut rest, 1).filter(|options| options[0] <= 2)?;
    }
    Some(())
}

/// Text has no null character.
fn are_texts<'a>(texts: impl IntoIterator<Item = &'a (impl AsRef<str> + 'a)>) -> Result<(), DecodeError> {
    match texts
        .into_iter()
        .any(|text| text.as_ref().as_bytes().contains(&0))
    {
        true => Err(DecodeError::Utf8Error),
        false => Ok(()),
    }
}

/// Looks at the texts of a packet of MQTT 3.1.1.
pub(super) fn check_v3(packet: &v3::Packet) -> Result<(), DecodeError> {
    use v3::Packet as P;
    match packet {
        P::Publish(publish) => are_texts([&publish.topic]),
        P::Subscribe { topic_filters, .. } => are_texts(topic_filters.iter().map(|(filter, _)| filter)),
        P::Unsubscribe { topic_filters, .. } => are_texts(topic_filters),
        P::Connect(connect) => {
            let will = connect.last_will.iter().map(|will| &will.topic);
            are_texts(
                [&connect.client_id]
                    .into_iter()
                    .chain(&connect.username)
                    .chain(will),
            )
        }
        _ => Ok(()),
    }
}

/// Looks at the texts of a packet of MQTT 5.
pub(super) fn check_v5(packet: &v5::Packet) -> Result<(), DecodeError> {
    use v5::Packet as P;
    let are_pairs =
        |pairs: &v5::UserProperties| are_texts(pairs.iter().flat_map(|(key, value)| [key, value]));
    match packet {
        P::Publish(publish) => {
            are_texts([&publish.topic])?;
            let Some(own) = &publish.properties else {
                return Ok(());
            };
            are_texts(own.content_type.iter().chain(&own.response_topic))?;
            are_pairs(&own.user_properties)
        }
        P::PublishAck(ack) => {
            are_texts(&ack.reason_string)?;
            are_pairs(&ack.properties)
        }
        P::Subscribe(subscribe) => {
            are_texts(subscribe.topic_filters.iter().map(|(filter, _)| filter))?;
            are_pairs(&subscribe.user_properties)
        }
        P::Unsubscribe(unsubscribe) => {
            are_texts(&unsubscribe.topic_filters)?;
            are_pairs(&unsubscribe.user_properties)
        }
        P::Connect(connect) => {
            are_texts(
                [&connect.client_id]
                    .into_iter()
                    .chain(&connect.username)
                    .chain(&connect.auth_method),
            )?;
            are_pairs(&connect.user_properties)?;
            let Some(will) = &connect.last_will else {
                return Ok(());
            };
            are_texts(
                [&will.topic]
                    .into_iter()
                    .chain(&will.content_type)
                    .chain(&will.response_topic),
            )?;
            are_pairs(&will.user_properties)
        }
        P::Disconnect(disconnect) => {
            are_texts(&disconnect.reason_string)?;
            are_pairs(&disconnect.user_properties)
        }
        _ => Ok(()),
    }
}
