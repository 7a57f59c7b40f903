//! A device that registers over MQTT, as its SDKs do: its token, its connection, one question, the answer.
//!
//! Decides nothing about the answer, and asks nobody twice. [`crate::load::provisions`] counts such devices,
//! [`crate::workload::provisioning`] holds what they are told against what services have said.

use std::io;

use dunlin_gateway::auth::{self, AuthError};
use dunlin_gateway::client::{Client, ClientError, ConnectOptions, Event, Transport};
use serde_json::{Value, json};

use crate::stage;

/// Answers come at topics below this one, which begin with a status.
const ANSWERS: &str = "$dps/registrations/res/";

/// What a device shows to the provisioning service: a token that its own key has signed.
pub fn token(scope: &str, name: &str, key: &str) -> Result<String, AuthError> {
    let resource = format!("{scope}/registrations/{name}");
    auth::sign(&resource, key, stage::token_expiry_s(), None)
}

/// How device `name` connects to be registered.
pub fn options(
    transport: Transport,
    scope: &str,
    name: &str,
    key: &str,
) -> Result<ConnectOptions, AuthError> {
    let token = token(scope, name, key)?;
    Ok(ConnectOptions {
        username: format!("{scope}/registrations/{name}/api-version=2019-03-31"),
        clean: true,
        ..ConnectOptions::new(transport, scope, name, token)
    })
}

/// Registers over a connection of its own; the answer as the service says it, whatever it is: its status and its body.
///
/// # Errors
/// Why there is no answer. Only [`ClientError::Refused`] says that nothing was done.
pub async fn register(options: &ConnectOptions) -> Result<(u16, Value), ClientError> {
    let mut client = Client::connect(options).await?;
    client.subscribe(&format!("{ANSWERS}#")).await?;
    let body = json!({ "registrationId": options.client_id, "payload": null }).to_string();
    let topic = "$dps/registrations/PUT/iotdps-register/?$rid=1";
    client.publish(topic, body.as_bytes()).await?;
    client.flush().await?;
    let (topic, told) = loop {
        match client.next_event().await {
            Event::Message { topic, payload, .. } => break (topic, payload),
            Event::Disconnected { .. } => {
                return Err(ClientError::Lost(io::ErrorKind::UnexpectedEof.into()));
            }
            _ => {}
        }
    };
    client.disconnect().await;
    let rest = topic.strip_prefix(ANSWERS).unwrap_or_default();
    let status = rest.split('/').next().and_then(|status| status.parse().ok());
    let status = status.ok_or_else(|| ClientError::Protocol(format!("an answer at {topic}")))?;
    let body = serde_json::from_slice(&told).map_err(|error| ClientError::Protocol(error.to_string()))?;
    Ok((status, body))
}
