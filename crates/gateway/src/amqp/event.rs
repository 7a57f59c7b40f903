//! An event as a message of AMQP, as IoT Hub's endpoint that is compatible with Event Hubs shows it.
//!
//! Decides what stands in which section. Never where events come from; that is [`partition`](super::partition)'s.

use bytes::{BufMut as _, Bytes, BytesMut};

use super::message::{property, put, section};
use super::value::Value;
use crate::events::Event;

/// Writes the message.
pub(crate) fn to_message(event: &Event) -> Bytes {
    let mut properties = vec![Value::Null; property::COUNT];
    let mut annotations = annotations(event);
    for (name, text) in &event.system {
        match system_property(name, text) {
            Some((place, value)) => properties[place] = value,
            None => annotations.push((Value::symbol(*name), Value::string(text.as_str()))),
        }
    }
    let text = |value: &Option<String>| value.as_deref().map_or(Value::Null, Value::string);
    let application = event.properties.iter();
    let application: Vec<_> = application
        .map(|(key, value)| (Value::string(key.as_str()), text(value)))
        .collect();
    let mut out = BytesMut::with_capacity(event.payload.len() + 1024);
    put(&mut out, section::ANNOTATIONS, Value::Map(annotations));
    if properties.iter().any(|value| *value != Value::Null) {
        put(&mut out, section::PROPERTIES, Value::List(properties));
    }
    if !application.is_empty() {
        put(&mut out, section::APPLICATION, Value::Map(application));
    }
    put_data(&mut out, &event.payload);
    out.freeze()
}

/// Where, when and from whom.
fn annotations(event: &Event) -> Vec<(Value, Value)> {
    let place = event.place;
    let enqueued = Value::Timestamp(signed(place.time_ms));
    let mut annotations: Vec<(Value, Value)> = [
        ("x-opt-sequence-number", Value::Long(signed(place.offset))),
        ("x-opt-offset", Value::string(place.offset.to_string())),
        ("x-opt-enqueued-time", enqueued.clone()),
        (
            "iothub-connection-device-id",
            Value::string(event.device.as_str()),
        ),
        ("iothub-enqueuedtime", enqueued),
    ]
    .into_iter()
    .map(|(name, value)| (Value::symbol(name), value))
    .collect();
    if let Some(module) = &event.module {
        annotations.push((
            Value::symbol("iothub-connection-module-id"),
            Value::string(module.as_str()),
        ));
    }
    annotations
}

/// Place and value of what AMQP has a property for. Others become annotations.
fn system_property(name: &str, text: &str) -> Option<(usize, Value)> {
    Some(match name {
        "message-id" => (property::MESSAGE_ID, Value::string(text)),
        "correlation-id" => (property::CORRELATION_ID, Value::string(text)),
        "user-id" => (property::USER_ID, Value::Binary(text.as_bytes().to_vec())),
        "to" => (property::TO, Value::string(text)),
        "content-type" => (property::CONTENT_TYPE, Value::symbol(text)),
        "content-encoding" => (property::CONTENT_ENCODING, Value::symbol(text)),
        "absolute-expiry-time" => (property::ABSOLUTE_EXPIRY, Value::Timestamp(time_ms(text)?)),
        _ => return None,
    })
}

fn put_data(out: &mut BytesMut, payload: &[u8]) {
    out.put_slice(&[0x00, 0x53, section::DATA as u8, 0xb0]);
    out.put_u32(payload.len() as u32);
    out.put_slice(payload);
}

/// AMQP's numbers are signed; ours never come that far.
pub(crate) fn signed(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

/// Milliseconds since 1970 of `2026-11-23T00:37:38.123Z`, of fewer digits, or of a plain number.
fn time_ms(text: &str) -> Option<i64> {
    if text.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().ok();
    }
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let [year, month, day] = numbers(date, '-')?;
    let [hour, minute, second] = numbers(time, ':')?;
    let is_sound = (1970..=9999).contains(&year)
        && (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && hour < 24
        && minute < 60
        && second <= 60;
    if !is_sound || fraction.is_empty() || !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let ms: i64 = format!("{fraction:0<3}").get(..3)?.parse().ok()?;
    // Years begin in March, so that leap days come last.
    let (year, from_march) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let days =
        365 * year + year / 4 - year / 100 + year / 400 + (153 * from_march + 2) / 5 + day - 1 - 719_468;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1000 + ms)
}

fn numbers<const N: usize>(text: &str, separator: char) -> Option<[i64; N]> {
    let parsed = text.split(separator).map(|part| {
        let is_number = (1..=4).contains(&part.len()) && part.bytes().all(|b| b.is_ascii_digit());
        is_number.then(|| part.parse().ok()).flatten()
    });
    parsed.collect::<Option<Vec<i64>>>()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::super::value::Reader;
    use super::*;
    use crate::events::{Place, sent};
    use dunlin_model::iso_time::iso_utc;
    use dunlin_model::telemetry::Source;

    fn sections(device: &str, bag: &[u8], payload: &[u8]) -> Vec<(u64, Value)> {
        let place = Place {
            offset: 7,
            term: 1,
            time_ms: 1_893_456_000_000,
        };
        let message = to_message(&sent(place, Source::Mqtt, device, bag, payload));
        let mut reader = Reader::new(&message);
        let mut found = Vec::new();
        while !reader.rest().is_empty() {
            let Value::Described(code, value) = reader.value().unwrap() else {
                panic!("a section is described");
            };
            found.push((code.unsigned().unwrap(), *value));
        }
        found
    }

    fn entry<'a>(map: &'a Value, name: &str) -> Option<&'a Value> {
        let found = map.entries().iter().find(|(key, _)| key.text() == Some(name));
        found.map(|(_, value)| value)
    }

    #[test]
    fn an_event_has_its_place_its_sender_its_properties_and_its_body() {
        let bag = b"%24.mid=m-1&%24.cid=c&%24.uid=u&%24.ct=application%2Fjson&%24.ce=utf-8&%24.exp=2030-01-01T00%3A00%3A00Z&%24.sub=part&a=1&n";
        let found = sections("dev-1", bag, b"{\"t\":1}\0");
        let numbers: Vec<u64> = found.iter().map(|(code, _)| *code).collect();
        assert_eq!(
            numbers,
            [
                section::ANNOTATIONS,
                section::PROPERTIES,
                section::APPLICATION,
                section::DATA
            ]
        );
        let (annotations, application) = (&found[0].1, &found[2].1);
        assert_eq!(entry(annotations, "x-opt-sequence-number"), Some(&Value::Long(7)));
        assert_eq!(entry(annotations, "x-opt-offset"), Some(&Value::string("7")));
        let enqueued = Value::Timestamp(1_893_456_000_000);
        assert_eq!(entry(annotations, "x-opt-enqueued-time"), Some(&enqueued));
        assert_eq!(
            entry(annotations, "iothub-connection-device-id"),
            Some(&Value::string("dev-1"))
        );
        assert_eq!(entry(annotations, "iothub-connection-module-id"), None);
        assert_eq!(entry(annotations, "dt-subject"), Some(&Value::string("part")));
        let Value::List(properties) = &found[1].1 else {
            panic!("properties are a list");
        };
        assert_eq!(properties[property::MESSAGE_ID], Value::string("m-1"));
        assert_eq!(properties[property::USER_ID], Value::Binary(b"u".to_vec()));
        assert_eq!(
            properties[property::CONTENT_TYPE],
            Value::symbol("application/json")
        );
        assert_eq!(
            properties[property::ABSOLUTE_EXPIRY],
            Value::Timestamp(1_893_456_000_000)
        );
        assert_eq!(entry(application, "a"), Some(&Value::string("1")));
        assert_eq!(entry(application, "n"), Some(&Value::Null));
        assert_eq!(application.entries().len(), 2);
        assert_eq!(found[3].1, Value::Binary(b"{\"t\":1}\0".to_vec()));
    }

    #[test]
    fn an_event_without_properties_has_no_sections_for_them() {
        let found = sections("dev-1/mod-1", b"", b"");
        assert_eq!(found.len(), 2);
        assert_eq!(
            entry(&found[0].1, "iothub-connection-module-id"),
            Some(&Value::string("mod-1"))
        );
        assert_eq!(found[1].1, Value::Binary(Vec::new()));
    }

    #[test]
    fn times_are_read_as_they_are_written() {
        for time in [
            0,
            951_782_399_999,
            951_782_400_000,
            1_893_456_000_000,
            4_102_444_799_123,
        ] {
            assert_eq!(time_ms(&iso_utc(time)), Some(time as i64));
        }
        assert_eq!(time_ms("2030-01-01T00:00:00.1234567Z"), Some(1_893_456_000_123));
        assert_eq!(time_ms("1893456000000"), Some(1_893_456_000_000));
        for text in [
            "",
            "Z",
            "T",
            "2030-01-01",
            "2030-13-01T00:00:00Z",
            "2030-01-01T00:00Z",
            "x-01-01T00:00:00Z",
        ] {
            assert!(time_ms(text).is_none() || text.is_empty(), "{text}");
        }
    }
}
