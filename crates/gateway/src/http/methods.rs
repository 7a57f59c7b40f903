//! Direct methods for services: IoT Hub's `POST /twins/{id}/methods` with both of its time-outs.
//!
//! Whose gateway is to ask follows from the device's session. Where a device may have been asked, nobody asks again:
//! the caller learns that the outcome is unknown. Once it is asked the call goes on, and is kept in the audit, whether its
//! caller is still there or not. What a device's answer means is between it and the caller.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes as Body;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use dunlin_model::audit::{AuditOutcome, AuditRecord};
use dunlin_model::command::{Consistency, DeviceView};
use dunlin_model::directory::Right;
use dunlin_model::id::{DeviceId, NodeId};
use dunlin_model::method::{
    Invocation, METHOD_NAME_BYTES_MAX, METHOD_PAYLOAD_BYTES_MAX, MethodAnswer, MethodError,
};
use dunlin_model::shard::registry::METHODS_FILTER;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, sleep};

use super::audited::{self, audited};
use super::authorize;
use super::error::ApiError;
use super::named::Named;
use crate::limits::{
    METHOD_CONNECT_S_MAX, METHOD_LOOK_PAUSE_MAX, METHOD_LOOK_PAUSE_MIN, METHOD_MOVING_WAIT,
    METHOD_RESPONSE_S, METHOD_RESPONSE_S_DEFAULT, METHOD_WEIGHT,
};
use crate::listen::Peer;
use crate::mqtt::admit::query_device;
use crate::shared::Shared;

/// What a service sends.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Input {
    method_name: String,
    #[serde(default)]
    payload: Value,
    response_timeout_in_seconds: Option<u64>,
    connect_timeout_in_seconds: Option<u64>,
}

/// A call that may be put to a device.
#[derive(Debug, PartialEq, Eq)]
struct Call {
    name: String,
    /// JSON text.
    payload: String,
    response_wait: Duration,
    connect_wait: Duration,
}

/// `POST /twins/{id}/methods`, and of a module.
pub(crate) async fn invoke(
    State(shared): State<Arc<Shared>>,
    Extension(peer): Extension<Peer>,
    named: Named,
    headers: HeaderMap,
    body: Result<Body, BytesRejection>,
) -> Result<Response, ApiError> {
    let path = [&named.path("twins")[..], &["methods"]].concat();
    let caller = authorize::service(&shared, &headers, Right::ServiceConnect, &path)?;
    let device = named.identity()?;
    let call = read(&body.map_err(|_| ApiError::too_large())?)?;
    let turn = Arc::clone(&shared.methods).try_acquire_many_owned(call.weight());
    let turn = turn.map_err(|_| ApiError::busy("method calls of this gateway"))?;
    let mut record = AuditRecord::done("method.invoke", caller.0, device.as_str());
    record.detail.clone_from(&call.name);
    let asking = Asking {
        shared: Arc::clone(&shared),
        peer: peer.0,
        record: record.clone(),
        _turn: Arc::new(turn),
    };
    match find_and_ask(&asking, &device, call).await {
        Ok(Ok(answer)) => respond(&answer),
        Ok(Err(error)) => Err(ApiError::method(&error, &device)),
        Err(error) => audited(record, Err(error)),
    }
}

/// What a call takes with it once its device is asked.
#[derive(Clone)]
struct Asking {
    shared: Arc<Shared>,
    peer: SocketAddr,
    record: AuditRecord,
    _turn: Arc<OwnedSemaphorePermit>,
}

impl Asking {
    /// Has the device asked. `None` when it was not.
    async fn ask(
        &self,
        gateway: NodeId,
        invocation: Invocation,
    ) -> Option<Result<MethodAnswer, MethodError>> {
        let asking = self.clone();
        let task = self.shared.tasks.spawn(async move {
            let answer = asking.shared.client.invoke(gateway, invocation).await;
            let outcome = match &answer {
                Err(error) if error.is_untouched() => return None,
                Err(MethodError::TooMany(_)) => AuditOutcome::Refused("MethodCallsInFlightExceeded".into()),
                // Whatever it answered, it was asked.
                Ok(_) | Err(MethodError::Unreadable) => AuditOutcome::Done,
                Err(_) => AuditOutcome::Unknown,
            };
            let record = AuditRecord {
                outcome,
                ..asking.record.clone()
            };
            audited::write(&asking.shared, Some(asking.peer), record).await;
            Some(answer)
        });
        task.await.unwrap_or(Some(Err(MethodError::Unknown)))
    }
}

fn read(body: &[u8]) -> Result<Call, ApiError> {
    let input: Input = serde_json::from_slice(body)
        .map_err(|error| ApiError::invalid(format!("the body is no method call: {error}")))?;
    let name = input.method_name;
    if name.is_empty() || name.len() > METHOD_NAME_BYTES_MAX || !name.chars().all(is_name_char) {
        return Err(ApiError::invalid(
            "the method name is not 1 to 100 letters, digits and -._*!%&'^`|~",
        ));
    }
    let payload = input.payload.to_string();
    if payload.len() > METHOD_PAYLOAD_BYTES_MAX {
        return Err(ApiError::too_large());
    }
    let response_s = input
        .response_timeout_in_seconds
        .unwrap_or(METHOD_RESPONSE_S_DEFAULT);
    if !METHOD_RESPONSE_S.contains(&response_s) {
        return Err(ApiError::invalid("responseTimeoutInSeconds is not 5 to 300"));
    }
    let connect_s = input.connect_timeout_in_seconds.unwrap_or(0);
    if connect_s > METHOD_CONNECT_S_MAX {
        return Err(ApiError::invalid("connectTimeoutInSeconds is not 0 to 300"));
    }
    Ok(Call {
        name,
        payload,
        response_wait: Duration::from_secs(response_s),
        connect_wait: Duration::from_secs(connect_s),
    })
}

impl Call {
    /// What it takes of [`METHODS_WEIGHT_MAX`](crate::limits::METHODS_WEIGHT_MAX): a place, and room for its payload.
    fn weight(&self) -> u32 {
        METHOD_WEIGHT + (self.payload.len() / 1024) as u32
    }
}

/// A token of HTTP without what has a meaning in topics.
fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._*!%&'^`|~".contains(c)
}

/// Looks for the device as long as it may, and asks it once. An error says that it was not asked.
async fn find_and_ask(
    asking: &Asking,
    device: &DeviceId,
    call: Call,
) -> Result<Result<MethodAnswer, MethodError>, ApiError> {
    let begun = Instant::now();
    let mut look_until = begun + call.connect_wait;
    let mut pause = METHOD_LOOK_PAUSE_MIN;
    let mut is_first = true;
    loop {
        let is_last = Instant::now() >= look_until;
        let view = find(&asking.shared, device, is_first || is_last).await?;
        is_first = false;
        if let Some(held_by) = view.session.held_by
            && listens(&view)
        {
            let invocation = Invocation {
                id: rand::random(),
                device: device.clone(),
                epoch: view.session.epoch,
                name: call.name.clone(),
                payload: call.payload.clone(),
                wait_ms: call.response_wait.as_millis() as u64,
            };
            if let Some(answer) = asking.ask(held_by.gateway, invocation).await {
                return Ok(answer);
            }
            look_until = look_until.max(begun + METHOD_MOVING_WAIT);
        }
        if is_last && Instant::now() >= look_until {
            return Err(ApiError::method(&MethodError::NotHere, device));
        }
        sleep(pause).await;
        pause = (2 * pause).min(METHOD_LOOK_PAUSE_MAX);
    }
}

fn listens(view: &DeviceView) -> bool {
    view.session.held_by.is_some() && view.session.subscriptions.contains_key(METHODS_FILTER)
}

/// The device as its leader knows it; as the majority does, if that is to be certain and it would otherwise be said not
/// to be there.
async fn find(shared: &Shared, device: &DeviceId, is_certain: bool) -> Result<DeviceView, ApiError> {
    if let Some(view) = query_device(&*shared.client, device, Consistency::Leader).await?
        && (listens(&view) || !is_certain)
    {
        return Ok(view);
    }
    let view = query_device(&*shared.client, device, Consistency::Linearizable).await?;
    view.ok_or_else(|| ApiError::missing(device))
}

fn respond(answer: &MethodAnswer) -> Result<Response, ApiError> {
    let payload = match answer.payload.as_str() {
        "" => Value::Null,
        text => serde_json::from_str(text)
            .map_err(|_| ApiError::internal("the answer of the device cannot be read"))?,
    };
    let body = json!({ "status": answer.status, "payload": payload });
    Ok(Json(body).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_as_sdks_send_them() {
        let call = |name: &str, payload: &str, response_s, connect_s| Call {
            name: name.to_owned(),
            payload: payload.to_owned(),
            response_wait: Duration::from_secs(response_s),
            connect_wait: Duration::from_secs(connect_s),
        };
        for (body, expected) in [
            (r#"{"methodName": "m"}"#, call("m", "null", 30, 0)),
            (
                r#"{"methodName": "pump*start", "payload": "", "responseTimeoutInSeconds": 5}"#,
                call("pump*start", "\"\"", 5, 0),
            ),
            (
                r#"{"methodName": "m", "payload": {"a": [1]}, "connectTimeoutInSeconds": 300,
                    "responseTimeoutInSeconds": null, "more": 1}"#,
                call("m", r#"{"a":[1]}"#, 30, 300),
            ),
        ] {
            assert_eq!(read(body.as_bytes()).expect("a call"), expected);
        }
        let long = format!(r#"{{"methodName": "{}"}}"#, "m".repeat(101));
        for wrong in [
            "[]",
            "{}",
            r#"{"methodName": ""}"#,
            r#"{"methodName": "a/b"}"#,
            r#"{"methodName": "a+"}"#,
            r##"{"methodName": "#"}"##,
            r#"{"methodName": "m", "responseTimeoutInSeconds": 4}"#,
            r#"{"methodName": "m", "responseTimeoutInSeconds": 301}"#,
            r#"{"methodName": "m", "connectTimeoutInSeconds": 301}"#,
            r#"{"methodName": "m", "connectTimeoutInSeconds": -1}"#,
            &long,
        ] {
            assert!(read(wrong.as_bytes()).is_err(), "{wrong}");
        }
        let large = json!({"methodName": "m", "payload": "x".repeat(METHOD_PAYLOAD_BYTES_MAX)});
        assert!(read(large.to_string().as_bytes()).is_err());
    }
}
