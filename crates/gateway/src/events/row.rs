//! What conditions of routes look at: an event as one JSON object.
//!
//! Properties stand under their own names, as texts; those of the system behind a `$`, by the names of IoT Hub's
//! conditions (`$connectionDeviceId`) and by those that events have (`$[[iothub-connection-device-id]]`); the body under
//! `$body`, if it says that it is JSON and in which encoding; and the twin under `$twin`.

use dunlin_model::iso_time::iso_utc;
use dunlin_model::routing::routes::Looks;
use serde_json::{Map, Value};

use super::Event;

/// Names of conditions, and those that events have.
const ALIASES: &[(&str, &str)] = &[
    ("$contentType", "content-type"),
    ("$contentEncoding", "content-encoding"),
    ("$messageId", "message-id"),
    ("$correlationId", "correlation-id"),
    ("$userId", "user-id"),
    ("$connectionAuthMethod", "iothub-connection-auth-method"),
    ("$messageSource", "iothub-message-source"),
    ("$dtSubject", "dt-subject"),
];

/// The row of an event, as far as it is looked at.
pub(super) fn row(event: &Event, looks: Looks, twin: Option<&Value>) -> Value {
    let mut row = Map::new();
    if !looks.at_row {
        return Value::Object(row);
    }
    for (name, value) in &event.properties {
        let value = value.as_ref().map_or(Value::Null, |value| value.as_str().into());
        row.insert(name.clone(), value);
    }
    for (name, value) in &event.system {
        row.insert(format!("${name}"), value.as_str().into());
    }
    for (alias, name) in ALIASES {
        if let Some(value) = event.system(name) {
            row.insert((*alias).to_owned(), value.into());
        }
    }
    let sender = [
        (
            "$connectionDeviceId",
            "$iothub-connection-device-id",
            Some(&event.device),
        ),
        (
            "$connectionModuleId",
            "$iothub-connection-module-id",
            event.module.as_ref(),
        ),
    ];
    for (alias, name, value) in sender {
        for name in [alias, name] {
            value.map(|value| row.insert(name.to_owned(), value.as_str().into()));
        }
    }
    let time = iso_utc(event.place.time_ms);
    row.insert("$enqueuedTime".to_owned(), time.into());
    if looks.at_body
        && let Some(body) = body(event)
    {
        row.insert("$body".to_owned(), body);
    }
    if let Some(twin) = twin.filter(|_| looks.at_twin) {
        row.insert("$twin".to_owned(), twin.clone());
    }
    Value::Object(row)
}

/// The body, if conditions may look into it: it must say that it is JSON, and in which encoding.
fn body(event: &Event) -> Option<Value> {
    let kind = event.system("content-type")?;
    let kind = kind.split(';').next().unwrap_or(kind).trim();
    if !kind.eq_ignore_ascii_case("application/json") {
        return None;
    }
    let encoding = event.system("content-encoding")?;
    let is = |name: &str| encoding.eq_ignore_ascii_case(name);
    let payload = &event.payload[..];
    if is("utf-8") {
        serde_json::from_slice(payload).ok()
    } else if is("utf-16") {
        let units = payload
            .chunks_exact(2)
            .map(|two| u16::from_le_bytes([two[0], two[1]]));
        let text: String = char::decode_utf16(units).collect::<Result<_, _>>().ok()?;
        serde_json::from_str(text.trim_start_matches('\u{feff}')).ok()
    } else if is("utf-32") {
        let four = |four: &[u8]| u32::from_le_bytes([four[0], four[1], four[2], four[3]]);
        let text: String = payload
            .chunks_exact(4)
            .map(|bytes| char::from_u32(four(bytes)))
            .collect::<Option<_>>()?;
        serde_json::from_str(text.trim_start_matches('\u{feff}')).ok()
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use dunlin_model::query_language::Condition;
    use dunlin_model::telemetry::Source;
    use serde_json::json;

    use super::super::{Place, sent};
    use super::*;

    const ALL: Looks = Looks {
        at_row: true,
        at_body: true,
        at_twin: true,
    };

    fn event(bag: &str, payload: &[u8]) -> Event {
        let place = Place {
            offset: 7,
            term: 2,
            time_ms: 1_893_456_000_000,
        };
        sent(place, Source::Mqtt, "dev-1/mod", bag.as_bytes(), payload)
    }

    fn admits(condition: &str, event: &Event, twin: Option<&Value>) -> bool {
        let condition = Condition::parse(condition).unwrap_or_else(|error| panic!("{condition}: {error}"));
        condition.admits(&row(event, ALL, twin))
    }

    const JSON: &str = "%24.ct=application%2Fjson&%24.ce=UTF-8&level=hot&a-b=1";

    #[test]
    fn conditions_see_properties_body_and_twin() {
        let event = event(JSON, br#"{"weather":{"temperature":[31]},"s":"x"}"#);
        let twin = json!({"tags": {"floor": 3}, "properties": {"reported": {"on": true}}});
        for condition in [
            "level = 'hot'",
            "Level = 'hot'",
            "[[a-b]] = '1'",
            "AS_NUMBER([[a-b]]) < 2",
            "$connectionDeviceId = 'dev-1' AND $connectionModuleId = 'mod'",
            "[[$iothub-connection-device-id]] = 'dev-1'",
            "$contentType = 'application/json'",
            "$messageSource = 'Telemetry'",
            "$enqueuedTime > '2029-12-31T00:00:00Z'",
            "$body.weather.temperature[0] > 30 AND $body.s = 'x'",
            "$twin.tags.floor = 3 AND $twin.properties.reported.on",
            "NOT IS_DEFINED(nothing)",
        ] {
            assert!(admits(condition, &event, Some(&twin)), "{condition}");
        }
        for condition in [
            "level = 'cold'",
            "nothing = 1",
            "NOT nothing = 1",
            "$body.weather > 1",
        ] {
            assert!(!admits(condition, &event, Some(&twin)), "{condition}");
        }
        assert!(!admits("IS_DEFINED($twin)", &event, None));
    }

    #[test]
    fn a_body_is_read_only_if_it_says_what_it_is() {
        let wide = |text: &str| {
            text.encode_utf16()
                .flat_map(u16::to_le_bytes)
                .collect::<Vec<u8>>()
        };
        let wider = |text: &str| {
            text.chars()
                .flat_map(|c| u32::from(c).to_le_bytes())
                .collect::<Vec<u8>>()
        };
        let text = "{\"a\":\"ä\"}";
        for (bag, payload, is_read) in [
            (JSON, text.as_bytes().to_vec(), true),
            (
                "%24.ct=application%2Fjson%3Bcharset%3Dutf-8&%24.ce=utf-8",
                text.as_bytes().to_vec(),
                true,
            ),
            ("%24.ct=application%2Fjson&%24.ce=utf-16", wide(text), true),
            ("%24.ct=application%2Fjson&%24.ce=utf-32", wider(text), true),
            ("%24.ct=application%2Fjson&%24.ce=utf-32", wide(text), false),
            ("%24.ct=application%2Fjson", text.as_bytes().to_vec(), false),
            (
                "%24.ct=text%2Fplain&%24.ce=utf-8",
                text.as_bytes().to_vec(),
                false,
            ),
            ("%24.ce=utf-8", text.as_bytes().to_vec(), false),
            (
                "%24.ct=application%2Fjson&%24.ce=latin-1",
                text.as_bytes().to_vec(),
                false,
            ),
            (JSON, b"{".to_vec(), false),
        ] {
            assert_eq!(
                admits("$body.a = 'ä'", &event(bag, &payload), None),
                is_read,
                "{bag}"
            );
        }
    }

    #[test]
    fn what_is_not_looked_at_is_not_there() {
        let event = event(JSON, b"{}");
        assert_eq!(row(&event, Looks::default(), None), json!({}));
        let looks = Looks {
            at_row: true,
            ..Looks::default()
        };
        let row = row(&event, looks, Some(&json!({})));
        assert!(row.get("$body").is_none() && row.get("$twin").is_none());
        assert_eq!(row["level"], json!("hot"));
    }
}
