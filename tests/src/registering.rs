//! A device that registers with a hub's provisioning service as SDKs do over MQTT, in one question and one answer.

use std::time::{SystemTime, UNIX_EPOCH};

use dunlin_gateway::auth;
use dunlin_gateway::client::{Client, ClientError, ConnectOptions, Event, Transport};
use serde_json::{Value, json};

use crate::hub::{Door, HOST};

/// Registers `name` at `door` with its key. Returns the status of the answer and its body, or how the connection failed.
pub async fn register(door: &Door, scope: &str, name: &str, key: &str) -> Result<(u16, Value), String> {
    let resource = format!("{scope}/registrations/{name}");
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let expiry_s = now.map_or(0, |since| since.as_secs()) + 3600;
    let token = auth::sign(&resource, key, expiry_s, None).expect("the key is one of ours");
    let transport = Transport::Tls {
        address: door.mqtts.clone(),
        server_name: HOST.to_owned(),
        config: door.tls.clone(),
    };
    let options = ConnectOptions {
        username: format!("{resource}/api-version=2019-03-31&ClientVersion=tests"),
        password: Some(token),
        clean: true,
        ..ConnectOptions::new(transport, scope, name, String::new())
    };
    let failed = |error: ClientError| error.to_string();
    let mut client = Client::connect(&options).await.map_err(failed)?;
    client
        .subscribe("$dps/registrations/res/#")
        .await
        .map_err(failed)?;
    let body = json!({ "registrationId": name }).to_string();
    let topic = "$dps/registrations/PUT/iotdps-register/?$rid=1";
    client.publish(topic, body.as_bytes()).await.map_err(failed)?;
    loop {
        let (topic, payload) = match client.next_event().await {
            Event::Message { topic, payload, .. } => (topic, payload),
            Event::Suback { .. } | Event::Puback { .. } => continue,
            ended => return Err(format!("{ended:?}")),
        };
        let status = topic.strip_prefix("$dps/registrations/res/");
        let status = status.and_then(|rest| rest.split('/').next()?.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no answer to a registration: {topic}"));
        let body = serde_json::from_slice(&payload).expect("the answer is JSON");
        client.disconnect().await;
        return Ok((status, body));
    }
}
