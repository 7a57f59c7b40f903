//! `/messages/devicebound`: a service sends messages to devices, each of which is accepted once it is on disk on a majority.
//!
//! Decides what of a message becomes a property, and what a sender is told of one that was not taken. What a message to a
//! device needs is [`crate::downward`]'s; what becomes of it, the shard's.

use std::net::SocketAddr;
use std::sync::Arc;

use bytes::Bytes;
use dunlin_model::audit::AuditRecord;
use dunlin_model::id::DeviceId;
use dunlin_model::messages::NewMessage;

use super::message::{Request, property};
use super::node::segments;
use super::performative::{Fault, condition};
use super::value::Value;
use crate::http::code::ErrorCode;
use crate::http::error::ApiError;
use crate::http::write_audit;
use crate::shared::Shared;
use crate::{bag, downward};
use dunlin_model::iso_time::iso_utc;

/// What a token must cover.
pub(crate) const PATH: &[&str] = &["messages", "devicebound"];

/// Properties of a message of AMQP, and the keys that they have in a bag.
const SYSTEM: &[(usize, &str)] = &[
    (property::MESSAGE_ID, "$.mid"),
    (property::TO, "$.to"),
    (property::CORRELATION_ID, "$.cid"),
    (property::USER_ID, "$.uid"),
    (property::CONTENT_TYPE, "$.ct"),
    (property::CONTENT_ENCODING, "$.ce"),
    (property::ABSOLUTE_EXPIRY, "$.exp"),
];

/// Reads what a service sent, and to whom.
pub(crate) fn read(message: &Bytes) -> Result<(DeviceId, NewMessage), Fault> {
    let request = Request::read(message)?;
    let to = request.property(property::TO).text().unwrap_or_default();
    let device = match segments(to).as_slice() {
        [devices, id, messages, bound]
            if *devices == "devices"
                && *messages == "messages"
                && bound.eq_ignore_ascii_case("devicebound") =>
        {
            decoded(id)
        }
        _ => None,
    };
    let device = device.ok_or_else(|| {
        Fault::new(
            condition::ARGUMENT,
            "the message is not to /devices/{id}/messages/devicebound",
        )
    })?;
    let mut properties = Vec::new();
    for (place, key) in SYSTEM {
        if let Some(text) = text_of(request.property(*place)) {
            bag::append(&mut properties, key, &text);
        }
    }
    for (key, value) in &request.application {
        if let (Some(key), Some(value)) = (key.text(), text_of(value)) {
            bag::append(&mut properties, key, &value);
        }
    }
    let composed = downward::compose(&device, properties, request.data.freeze());
    let message = composed.map_err(|error| fault_of(&error))?;
    Ok((device, message))
}

/// Clients write ids as they are, or percent-encoded.
fn decoded(id: &str) -> Option<DeviceId> {
    let text = percent_encoding::percent_decode_str(id).decode_utf8().ok()?;
    DeviceId::parse(&text).ok()
}

/// A value as the text of a property; `None` for what has no such text.
fn text_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) | Value::Symbol(text) => Some(text.clone()),
        Value::Bool(flag) => Some(flag.to_string()),
        Value::Timestamp(ms) => u64::try_from(*ms).ok().map(iso_utc),
        Value::Binary(bytes) => String::from_utf8(bytes.clone()).ok(),
        Value::Uuid(bytes) => Some(format!("{:032x}", u128::from_be_bytes(*bytes))),
        other => match other.unsigned() {
            Some(number) => Some(number.to_string()),
            None => other.signed().map(|number| number.to_string()),
        },
    }
}

/// Has a message of somebody with the policy `who` queued, and the audit kept, before anybody is told.
pub(crate) async fn send(
    shared: Arc<Shared>,
    (who, peer): (String, SocketAddr),
    (device, message): (DeviceId, NewMessage),
) -> Result<(), Fault> {
    let mut record = AuditRecord::done("message.send", who, device.as_str());
    record.detail.clone_from(&message.id);
    let sent = downward::send(&shared, &device, message).await;
    if let Err(error) = &sent {
        record.outcome = error.audit_outcome();
    }
    write_audit(&shared, Some(peer), record).await;
    sent.map(drop).map_err(|error| fault_of(&error))
}

/// An error in the words of this protocol.
fn fault_of(error: &ApiError) -> Fault {
    let name = match error.code() {
        ErrorCode::DeviceNotFound | ErrorCode::ModuleNotFound => condition::NOT_FOUND,
        ErrorCode::DeviceMaximumQueueDepthExceeded
        | ErrorCode::ThrottlingException
        | ErrorCode::IotHubQuotaExceeded
        | ErrorCode::StorageFull => condition::RESOURCE_LIMIT,
        ErrorCode::MessageTooLarge => condition::MESSAGE_TOO_LARGE,
        ErrorCode::GatewayTimeout | ErrorCode::ServerBusy => condition::TIMEOUT,
        _ => condition::ARGUMENT,
    };
    Fault::new(name, error.message())
}

#[cfg(test)]
mod tests {
    use super::super::message::{put, section};
    use super::*;
    use bytes::BytesMut;
    use dunlin_model::messages::AckWanted;

    fn message(to: &str, application: Vec<(Value, Value)>) -> Bytes {
        let mut properties = vec![Value::Null; property::COUNT];
        properties[property::MESSAGE_ID] = Value::string("m 1");
        properties[property::TO] = Value::string(to);
        properties[property::ABSOLUTE_EXPIRY] = Value::Timestamp(1_893_456_000_000);
        let mut out = BytesMut::new();
        put(&mut out, section::PROPERTIES, Value::List(properties));
        put(&mut out, section::APPLICATION, Value::Map(application));
        put(&mut out, section::DATA, Value::Binary(b"hello ".to_vec()));
        put(&mut out, section::DATA, Value::Binary(b"device".to_vec()));
        out.freeze()
    }

    #[test]
    fn a_message_is_read_as_the_service_sdk_writes_it() {
        let pair = |key: &str, value| (Value::string(key), value);
        let application = vec![
            pair("iothub-ack", Value::string("full")),
            pair("count", Value::Int(-7)),
            pair("on", Value::Bool(true)),
            pair("ratio", Value::Opaque(0x82, vec![0; 8])),
        ];
        let (device, read) = read(&message(
            "/devices/dev%2D1/messages/devicebound",
            application.clone(),
        ))
        .expect("a message");
        assert_eq!(device.as_str(), "dev-1");
        assert_eq!((read.id.as_str(), read.ack), ("m 1", AckWanted::Full));
        assert_eq!(read.expires_ms, Some(1_893_456_000_000));
        assert_eq!(&read.content.payload[..], b"hello device");
        let bag = &read.content.bag;
        for part in ["%24.mid=m%201", "count=-7", "on=true", "iothub-ack=full"] {
            assert!(bag.split('&').any(|pair| pair == part), "{part} in {bag}");
        }
        assert!(!bag.contains("ratio"));
    }

    #[test]
    fn what_is_to_nobody_is_refused() {
        for to in [
            "",
            "/devices/d",
            "/devices//messages/devicebound",
            "/devices/d/messages/events",
            "d",
        ] {
            let fault = read(&message(to, Vec::new())).expect_err(to);
            assert_eq!(fault.condition, condition::ARGUMENT, "{to}");
        }
        let maybe = vec![(Value::string("iothub-ack"), Value::string("maybe"))];
        assert!(read(&message("/devices/d/messages/devicebound", maybe)).is_err());
        assert!(read(&Bytes::from_static(b"\x40")).is_err());
    }
}
