//! Text from a stranger: names, topics, property bags, tokens, and what stands in HTTP requests.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use dunlin_model::command::ReadFrom;
use dunlin_model::id::DeviceId;
use dunlin_model::identity::Condition;
use serde_json::json;

use crate::auth::{self, ConnectionString, SasToken, Scope};
use crate::bag;
use crate::http::devices::{condition, parse_continuation};
use crate::http::events::{Place, ReadQuery, parse_cursor};
use crate::http::identity::IdentityInput;
use crate::http::telemetry::bag_of;
use crate::mqtt::topic::{TwinRequest, is_own_filter, telemetry_bag, twin_request};
use crate::mqtt::username::Username;
use crate::uploads::blocks::read_list;
use crate::uploads::name;
use dunlin_model::identity::etag;

/// Base64 of 32 bytes.
pub(super) const KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// User names, topics, filters, bags and device ids.
pub fn names(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Some(name) = Username::parse(&text) {
        assert!(!name.host.is_empty() && !name.device.is_empty());
        assert!(text.starts_with(&format!("{}/{}", name.host, name.device)));
    }
    let device = DeviceId::parse("dev-1").expect("a device id");
    if let Ok(own) = telemetry_bag(&text, &device) {
        assert_eq!(bag::check(own.as_bytes()), Ok(()));
        assert!(text.starts_with("devices/dev-1/messages/events") && text.contains(own));
    }
    if let Some(Ok(TwinRequest::Get { rid })) = twin_request(&text) {
        assert!(text.starts_with("$iothub/twin/GET/") && text.contains(rid));
    }
    if is_own_filter(&text, &device) {
        assert!(text.starts_with('$') || text.starts_with("devices/dev-1/"));
    }
    if let Ok(id) = DeviceId::parse(&text) {
        let topic = format!("devices/{id}/messages/events/");
        assert_eq!(
            telemetry_bag(&topic, &id),
            Ok(""),
            "a device may publish to its own topic"
        );
        assert!(!text.contains(['/', '+', '#']));
    }
    let read: Vec<_> = bag::properties(data).collect();
    let mut written = Vec::new();
    for (key, value) in &read {
        let _ = bag::system_name(key);
        bag::append(&mut written, key, value.as_deref().unwrap_or_default());
    }
    let again: Vec<_> = bag::properties(&written).collect();
    assert_eq!(read.len(), again.len());
    for ((key, value), (other_key, other_value)) in read.iter().zip(&again) {
        let value = value.as_deref().unwrap_or_default();
        assert_eq!((key, Some(value)), (other_key, other_value.as_deref()));
    }
}

/// Seeds of [`names`].
pub fn names_seeds() -> Vec<Vec<u8>> {
    let mut bag = Vec::new();
    bag::append(&mut bag, "$.ct", "application/json");
    bag::append(&mut bag, "a b", "c/d+é");
    let topic = [b"devices/dev-1/messages/events/", &bag[..]].concat();
    vec![
        crate::client::sdk_username("hub.example", "dev-1").into_bytes(),
        b"hub/dev-1/mod A/?api-version=1&model-id=dtmi%3Acom%3B1".to_vec(),
        b"devices/dev-1/messages/devicebound/#".to_vec(),
        b"$iothub/twin/PATCH/properties/desired/#".to_vec(),
        b"$iothub/twin/GET/?$rid=0a1b".to_vec(),
        b"$iothub/twin/PATCH/properties/reported/?$rid=1&$version=2".to_vec(),
        topic,
        bag,
    ]
}

/// Tokens and connection strings. A token that nobody signed never counts.
pub fn tokens(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    if let Ok(token) = SasToken::parse(&text) {
        let hosts = ["hub.example".to_owned()];
        let scope = Scope {
            hosts: &hosts,
            path: &["devices", "dev-1"],
        };
        let _ = (token.resource(), auth::check_claims(&token, scope, 1_000));
        let other_key = [9; 32];
        assert!(
            !token.is_signed_with(&other_key),
            "nobody has signed with this key"
        );
    }
    if let Ok(read) = ConnectionString::parse(&text) {
        assert_eq!(ConnectionString::parse(&read.format()), Ok(read.clone()));
        assert!(!read.dialled_host().is_empty() || read.gateway_host_name.as_deref() == Some(""));
    }
    let _ = auth::decode_key(&text);
    if text.len() < 1_000 {
        let token = auth::sign(&text, KEY, 4_000_000_000, None).expect("a good key");
        let read = SasToken::parse(&token).expect("what we sign is a token");
        assert_eq!(read.resource(), text);
        assert!(read.is_signed_with(&auth::decode_key(KEY).expect("a good key")));
    }
}

/// Seeds of [`tokens`].
pub fn tokens_seeds() -> Vec<Vec<u8>> {
    let device = crate::client::device_token("hub.example", "dev-1", KEY, 4_000_000_000);
    let policy = auth::sign("hub.example", KEY, 4_000_000_000, Some("iothubowner"));
    vec![
        device.expect("a good key").into_bytes(),
        policy.expect("a good key").into_bytes(),
        format!("HostName=hub.example;DeviceId=dev-1;SharedAccessKey={KEY}").into_bytes(),
        b"HostName=h:8443;SharedAccessKeyName=o;SharedAccessKey=A=;GatewayHostName=edge".to_vec(),
    ]
}

/// What stands in requests: a device as JSON, conditions, cursors, headers of messages, lists of blocks, and names of
/// files. The first byte says which.
pub fn http_request(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(rest);
    let value = HeaderValue::from_bytes(rest).ok();
    match kind % 7 {
        0 => drop(IdentityInput::read(rest)),
        1 => {
            let mut headers = HeaderMap::new();
            headers.extend(value.map(|value| (header::IF_MATCH, value)));
            if let Ok(Condition::Version(version)) = condition(&headers, Condition::Absent) {
                let written = HeaderValue::from_str(&etag(version)).expect("Base64 is a header");
                headers.insert(header::IF_MATCH, written);
                let again = condition(&headers, Condition::Absent).ok();
                assert_eq!(again, Some(Condition::Version(version)));
            }
        }
        2 => {
            let _ = value.as_ref().and_then(parse_continuation);
        }
        3 => {
            if let Some(place) = Place::parse(&text) {
                assert_eq!(
                    Place::parse(&place.to_string()).map(|p| p.to_string()),
                    Some(place.to_string())
                );
            }
            if let Some(cursor) = parse_cursor(&text) {
                assert!(cursor.len() <= text.len());
            }
            let query: ReadQuery = serde_json::from_value(json!({ "from": text })).expect("a text");
            let _ = query.from(ReadFrom::End);
        }
        5 => {
            if let Ok(ids) = read_list(rest) {
                assert!(ids.len() <= rest.len() / "<Latest>AA==</Latest>".len());
            }
        }
        6 => {
            let device = DeviceId::parse("..").expect("a device id");
            if name::problem(&device, &text).is_none() {
                let path = name::store_path("uploads", &device, &text).expect("it is short");
                let is_part = |part: &str| !part.is_empty() && part != "." && part != "..";
                assert!(path.starts_with("uploads/%2E%2E/") && path.split('/').all(is_part));
                assert_eq!(path.split('/').count(), 2 + text.split('/').count());
                assert!(name::in_address(&path).is_ascii());
            }
        }
        _ => {
            let mut headers = HeaderMap::new();
            for line in rest.split(|byte| *byte == b'\n') {
                let mut halves = line.splitn(2, |byte| *byte == b':');
                let name = HeaderName::from_bytes(halves.next().unwrap_or_default());
                let value = HeaderValue::from_bytes(halves.next().unwrap_or_default());
                if let (Ok(name), Ok(value)) = (name, value)
                    && headers.try_append(name, value).is_err()
                {
                    break;
                }
            }
            if let Ok(made) = bag_of(&headers) {
                assert_eq!(bag::check(&made), Ok(()));
            }
        }
    }
}

/// Seeds of [`http_request`].
pub fn http_request_seeds() -> Vec<Vec<u8>> {
    let device = json!({
        "deviceId": "dev-1", "status": "enabled", "statusReason": "x",
        "authentication": { "type": "sas", "symmetricKey": { "primaryKey": KEY, "secondaryKey": KEY } },
        "capabilities": { "iotEdge": false }, "unknown": [1, { "a": null }],
    });
    let tagged = |tag: u8, text: &str| [&[tag], text.as_bytes()].concat();
    vec![
        tagged(0, &device.to_string()),
        tagged(1, &format!("\"{}\"", etag(17))),
        tagged(1, "*"),
        tagged(2, "3:ZGV2LTE="),
        tagged(3, "0:17@2,1:5"),
        tagged(3, "time=1700000000000"),
        tagged(4, "iothub-app-a:b\niothub-messageid:m\niothub-to:x"),
        tagged(
            5,
            "<?xml version='1.0'?><BlockList><Latest>AAE=</Latest><Uncommitted>AAI=</Uncommitted></BlockList>",
        ),
        tagged(6, "a folder/ä#1.txt"),
    ]
}
