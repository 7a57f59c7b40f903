//! A cloud-to-device message as any door takes it from a service: properties and payload in, a command out.
//!
//! Here its system properties are read, and those that the hub adds are added. Who may send is the doors' business.

use bytes::Bytes;
use dunlin_model::command::{Command, Outcome};
use dunlin_model::id::DeviceId;
use dunlin_model::messages::{
    AckWanted, MESSAGE_BYTES_MAX, MESSAGE_ID_BYTES_MAX, MessageContent, NewMessage,
};
use dunlin_model::quota::Operation;

use crate::bag;
use crate::http::error::ApiError;
use crate::http::time::parse_iso;
use crate::quota::Cost;
use crate::shared::Shared;

/// The property by which a sender asks for feedback.
pub(crate) const ACK_PROPERTY: &str = "iothub-ack";

/// Makes a message to `device` of a property bag and a payload.
pub(crate) fn compose(device: &DeviceId, mut bag: Vec<u8>, payload: Bytes) -> Result<NewMessage, ApiError> {
    if device.module_part().is_some() {
        return Err(ApiError::invalid("modules have no cloud-to-device messages"));
    }
    let (mut id, mut expires_ms, mut ack, mut has_to) = (None, None, AckWanted::None, false);
    for (key, value) in bag::properties(&bag) {
        let value = value.unwrap_or_default();
        match &*key {
            "$.mid" => id = Some(value.into_owned()),
            "$.to" => has_to = true,
            "$.exp" => {
                let time = parse_iso(&value);
                expires_ms = Some(time.ok_or_else(|| ApiError::invalid("the expiry is no time"))?);
            }
            ACK_PROPERTY => {
                let wanted = AckWanted::parse(&value);
                ack = wanted
                    .ok_or_else(|| ApiError::invalid("iothub-ack is not none, positive, negative or full"))?;
            }
            _ => {}
        }
    }
    let id = id.unwrap_or_else(|| {
        let drawn = format!("{:032x}", rand::random::<u128>());
        bag::append(&mut bag, "$.mid", &drawn);
        drawn
    });
    if id.len() > MESSAGE_ID_BYTES_MAX {
        return Err(ApiError::invalid(format!(
            "the message id has more than {MESSAGE_ID_BYTES_MAX} bytes"
        )));
    }
    if !has_to {
        bag::append(
            &mut bag,
            "$.to",
            &format!("/devices/{device}/messages/devicebound"),
        );
    }
    bag::check(&bag).map_err(|error| ApiError::invalid(error.to_string()))?;
    let bag = String::from_utf8(bag).map_err(|_| ApiError::invalid("the properties are no text"))?;
    let content = MessageContent { bag, payload };
    if content.bytes() > MESSAGE_BYTES_MAX {
        return Err(ApiError::too_large());
    }
    Ok(NewMessage {
        id,
        ack,
        expires_ms,
        content,
    })
}

/// Has a message queued. Returns its number: then it is on disk on a majority.
pub(crate) async fn send(shared: &Shared, device: &DeviceId, message: NewMessage) -> Result<u64, ApiError> {
    let cost = Cost::message(Operation::MessageToDevice, message.content.bytes());
    shared.charge(cost).await?;
    let command = Command::MessageSend {
        device: device.clone(),
        message,
    };
    match shared.client.submit(command).await? {
        Outcome::MessageQueued { number } => Ok(number),
        Outcome::Refused(refusal) => Err(ApiError::refused(refusal, device)),
        _ => Err(ApiError::internal("an outcome of another kind")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn composed(bag: &str) -> Result<NewMessage, ApiError> {
        let device = DeviceId::parse("dev-1").expect("a name");
        compose(&device, bag.as_bytes().to_vec(), Bytes::from_static(b"x"))
    }

    #[test]
    fn what_the_sender_says_is_kept_and_what_it_leaves_out_is_added() {
        let message = composed("%24.mid=m&%24.to=x&iothub-ack=Full&%24.exp=2030-01-01T00%3A00%3A00Z&a=b")
            .expect("a message");
        let expected = NewMessage {
            id: "m".into(),
            ack: AckWanted::Full,
            expires_ms: Some(1_893_456_000_000),
            content: MessageContent {
                bag: "%24.mid=m&%24.to=x&iothub-ack=Full&%24.exp=2030-01-01T00%3A00%3A00Z&a=b".into(),
                payload: Bytes::from_static(b"x"),
            },
        };
        assert_eq!(message, expected);
        let message = composed("a=b").expect("a message");
        let to = "%24.to=%2Fdevices%2Fdev-1%2Fmessages%2Fdevicebound";
        assert_eq!(message.content.bag, format!("a=b&%24.mid={}&{to}", message.id));
        assert_eq!(
            (message.id.len(), message.expires_ms, message.ack),
            (32, None, AckWanted::None)
        );
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        let long = format!("%24.mid={}", "m".repeat(MESSAGE_ID_BYTES_MAX + 1));
        for bag in ["iothub-ack=maybe", "%24.exp=soon", &long, &"a=1&".repeat(99)] {
            assert!(composed(bag).is_err(), "{bag}");
        }
        let device = DeviceId::parse("dev-1").and_then(|device| device.of_module("m"));
        let to_module = compose(&device.expect("a name"), Vec::new(), Bytes::new());
        assert!(to_module.is_err());
        let device = DeviceId::parse("d").expect("a name");
        let large = Bytes::from(vec![0; MESSAGE_BYTES_MAX]);
        assert!(compose(&device, Vec::new(), large).is_err());
    }
}
