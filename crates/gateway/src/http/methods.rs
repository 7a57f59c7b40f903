//! Direct methods for services: IoT Hub's `POST /twins/{id}/methods` with both of its time-outs.
//!
//! How the device is found and asked is decided in [`crate::calling`]. Where it may have been asked, nobody asks again: the
//! caller learns that the outcome is unknown. Once it is asked the call goes on, and is kept in the audit, whether its
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
use dunlin_model::directory::Right;
use dunlin_model::id::NodeId;
use dunlin_model::method::{
    Invocation, METHOD_NAME_BYTES_MAX, METHOD_PAYLOAD_BYTES_MAX, MethodAnswer, MethodError,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::OwnedSemaphorePermit;

use super::audited::{self, audited};
use super::authorize;
use super::error::ApiError;
use super::named::Named;
use crate::calling::{Call, NotAsked, find_and_ask};
use crate::limits::{METHOD_CONNECT_S_MAX, METHOD_RESPONSE_S, METHOD_RESPONSE_S_DEFAULT};
use crate::listen::Peer;
use crate::quota::Cost;
use crate::shared::Shared;

/// What a service sends.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct MethodInput {
    method_name: String,
    #[serde(default)]
    payload: Value,
    response_timeout_in_seconds: Option<u64>,
    connect_timeout_in_seconds: Option<u64>,
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
    shared.charge(Cost::method(call.payload.len())).await?;
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
    let ask = async |gateway, invocation| asking.ask(gateway, invocation).await;
    let error = match find_and_ask(&*shared.client, &device, &call, ask).await {
        Ok(Ok(answer)) => {
            shared.charge_rest(answer.payload.len());
            return respond(&answer);
        }
        Ok(Err(error)) => return Err(ApiError::method(&error, &device)),
        Err(NotAsked::NotOnline) => ApiError::method(&MethodError::NotHere, &device),
        Err(NotAsked::Missing) => ApiError::missing(&device),
        Err(NotAsked::Query(error)) => error.into(),
    };
    audited(record, Err(error))
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

/// Reads the body of a request.
pub(crate) fn read(body: &[u8]) -> Result<Call, ApiError> {
    let input: MethodInput = serde_json::from_slice(body)
        .map_err(|error| ApiError::invalid(format!("the body is no method call: {error}")))?;
    check(input)
}

/// The call that a service asks for, if it may be put to a device.
pub(crate) fn check(input: MethodInput) -> Result<Call, ApiError> {
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

/// A token of HTTP without what has a meaning in topics.
fn is_name_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-._*!%&'^`|~".contains(c)
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
