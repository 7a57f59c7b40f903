//! Cloud-to-device messages over HTTPS: services send them and look after dead letters, devices fetch and settle them.
//!
//! A device that fetches a message has it for a while, under a lock that stands in the ETag; what is settled without that
//! lock is refused. Which message is given is decided by the shard (`model::messages`).

use std::fmt::Display;
use std::sync::Arc;

use axum::body::Bytes as Body;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use dunlin_model::audit::AuditRecord;
use dunlin_model::command::{Command, Consistency, Outcome, Query, Refusal, View};
use dunlin_model::directory::Right;
use dunlin_model::id::DeviceId;
use dunlin_model::messages::{DeadLetter, DeadLetterDeed, Holder, MessageContent, Settlement, TakenMessage};
use dunlin_model::quota::Operation;
use serde_json::{Value, json};

use super::audited::audited;
use super::authorize::{self, Caller, Claim};
use super::error::ApiError;
use super::telemetry::{APP_PREFIX, SYSTEM_HEADERS, bag_of};
use crate::limits::MESSAGE_LOCK_S;
use crate::listen::Peer;
use crate::quota::Cost;
use crate::shared::Shared;
use crate::{bag, downward};
use dunlin_model::iso_time::iso_utc;

/// `POST /devices/{id}/messages/devicebound`: a service sends a message.
pub(crate) async fn send(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Result<Body, BytesRejection>,
) -> Result<Response, ApiError> {
    let (caller, device) = service(&shared, &headers, &id)?;
    let body = body.map_err(|_| ApiError::too_large())?;
    let message = downward::compose(&device, bag_of(&headers)?, body)?;
    let mut record = AuditRecord::done("message.send", caller.0, device.as_str());
    record.detail.clone_from(&message.id);
    let id = message.id.clone();
    let answer = downward::send(&shared, &device, message).await;
    let answer = answer.map(|number| {
        let body = json!({ "messageId": id, "sequenceNumber": number });
        (StatusCode::CREATED, Json(body)).into_response()
    });
    audited(record, answer)
}

/// Lets a service through that may command devices.
fn service(shared: &Shared, headers: &HeaderMap, id: &str) -> Result<(Caller, DeviceId), ApiError> {
    let caller = authorize::service(shared, headers, Right::ServiceConnect, &["devices", id])?;
    let device = DeviceId::parse(id).map_err(|error| ApiError::invalid(error.to_string()))?;
    Ok((caller, device))
}

/// `GET /devices/{id}/messages/devicebound`: a device fetches the next message, if there is one.
pub(crate) async fn fetch(
    State(shared): State<Arc<Shared>>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let device = DeviceId::parse(&id).map_err(|_| ApiError::unauthorized())?;
    let lock_ms = lock_ms(&headers)?;
    let claim = Claim::of(&device, &headers, &peer);
    for attempt in 0..2 {
        // A queue that is empty now had nothing when the request came: nothing need go through the log.
        let (view, _) = authorize::device(&shared, claim, Consistency::Linearizable).await?;
        if attempt == 0 {
            shared.charge(Cost::of(Operation::MessageFetch)).await?;
        }
        if view.message_count == 0 {
            return Ok(StatusCode::NO_CONTENT.into_response());
        }
        let command = Command::MessageLock {
            device: device.clone(),
            generation: view.record.generation,
            lock_ms,
        };
        let taken = match shared.client.submit(command).await? {
            Outcome::MessagesTaken { messages, .. } => messages.into_iter().next(),
            // It was changed meanwhile, and may still be let in.
            Outcome::Refused(Refusal::StaleGeneration) => continue,
            Outcome::Refused(_) => return Err(ApiError::unauthorized()),
            _ => return Err(ApiError::internal("an outcome of another kind")),
        };
        let Some(message) = taken else {
            return Ok(StatusCode::NO_CONTENT.into_response());
        };
        return match content(&shared, &device, message.number).await? {
            Some(content) => Ok(fetched(&message, &content)),
            // It was purged meanwhile.
            None => Ok(StatusCode::NO_CONTENT.into_response()),
        };
    }
    Err(ApiError::unauthorized())
}

/// How long the device wants a message for itself.
fn lock_ms(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(value) = headers.get("iothub-messagelocktimeout") else {
        return Ok(None);
    };
    let seconds = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    match seconds.filter(|seconds| MESSAGE_LOCK_S.contains(seconds)) {
        Some(seconds) => Ok(Some(seconds * 1000)),
        None => Err(ApiError::invalid(format!(
            "IotHub-MessageLockTimeout is not {} to {} seconds",
            MESSAGE_LOCK_S.start(),
            MESSAGE_LOCK_S.end()
        ))),
    }
}

async fn content(
    shared: &Shared,
    device: &DeviceId,
    number: u64,
) -> Result<Option<MessageContent>, ApiError> {
    let query = Query::Messages {
        device: device.clone(),
        numbers: vec![number],
    };
    match shared.client.query(query, Consistency::Linearizable).await? {
        View::Messages(mut found) => Ok(found.pop().map(|(_, content)| content)),
        _ => Err(ApiError::internal("an answer of another kind")),
    }
}

fn fetched(message: &TakenMessage, content: &MessageContent) -> Response {
    let mut response = carried(content);
    let headers = response.headers_mut();
    if let Holder::Token { token } = message.holder {
        set(
            headers,
            header::ETAG,
            format!("\"{:x}-{token:x}\"", message.number),
        );
    }
    let name = HeaderName::from_static;
    set(headers, name("iothub-sequencenumber"), message.number);
    set(headers, name("iothub-enqueuedtime"), iso_utc(message.enqueued_ms));
    set(headers, name("iothub-expiry"), iso_utc(message.expires_ms));
    set(headers, name("iothub-deliverycount"), message.delivery_count);
    response
}

/// The payload, with the properties in headers.
fn carried(content: &MessageContent) -> Response {
    let mut response = content.payload.clone().into_response();
    let headers = response.headers_mut();
    for (key, value) in bag::properties(content.bag.as_bytes()) {
        let known = SYSTEM_HEADERS.iter().find(|(_, system)| *system == key);
        let name = match known {
            Some((header, _)) => (*header).to_owned(),
            None if key == downward::ACK_PROPERTY => key.into_owned(),
            None => format!("{APP_PREFIX}{key}"),
        };
        // A property that fits no header is not told over HTTP.
        if let Ok(name) = HeaderName::try_from(name) {
            set(headers, name, value.unwrap_or_default());
        }
    }
    let of_kind = headers.get("iothub-contenttype").cloned();
    let of_kind = of_kind.unwrap_or(HeaderValue::from_static("application/octet-stream"));
    headers.insert(header::CONTENT_TYPE, of_kind);
    response
}

fn set(headers: &mut HeaderMap, name: HeaderName, value: impl Display) {
    if let Ok(value) = HeaderValue::try_from(value.to_string()) {
        headers.insert(name, value);
    }
}

/// `DELETE /devices/{id}/messages/devicebound/{lock}`: done with, or rejected if the query says so.
pub(crate) async fn complete(
    State(shared): State<Arc<Shared>>,
    Extension(peer): Extension<Peer>,
    Path((id, lock)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let query = query.unwrap_or_default();
    let rejects = query
        .split('&')
        .any(|pair| pair == "reject" || pair.starts_with("reject="));
    let settlement = match rejects {
        true => Settlement::Reject,
        false => Settlement::Complete,
    };
    settle(&shared, &peer, &headers, (&id, &lock), settlement).await
}

/// `POST /devices/{id}/messages/devicebound/{lock}/abandon`: to be given again.
pub(crate) async fn abandon(
    State(shared): State<Arc<Shared>>,
    Extension(peer): Extension<Peer>,
    Path((id, lock)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    settle(&shared, &peer, &headers, (&id, &lock), Settlement::Abandon).await
}

async fn settle(
    shared: &Shared,
    peer: &Peer,
    headers: &HeaderMap,
    (id, lock): (&str, &str),
    settlement: Settlement,
) -> Result<Response, ApiError> {
    let device = DeviceId::parse(id).map_err(|_| ApiError::unauthorized())?;
    let claim = Claim::of(&device, headers, peer);
    authorize::device(shared, claim, Consistency::Leader).await?;
    let (number, token) = parse_lock(lock).ok_or_else(|| ApiError::refused(Refusal::LockLost, &device))?;
    let command = Command::MessageSettle {
        device: device.clone(),
        numbers: vec![number],
        holder: Holder::Token { token },
        settlement,
    };
    done(shared.client.submit(command).await?, &device)
}

/// The number of a message and the token of its lock, as an ETag has them.
pub(crate) fn parse_lock(lock: &str) -> Option<(u64, u64)> {
    let (number, token) = lock.trim_matches('"').split_once('-')?;
    let read = |text| u64::from_str_radix(text, 16).ok();
    Some((read(number)?, read(token)?))
}

fn done(outcome: Outcome, device: &DeviceId) -> Result<Response, ApiError> {
    match outcome {
        Outcome::Done => Ok(StatusCode::NO_CONTENT.into_response()),
        Outcome::Refused(refusal) => Err(ApiError::refused(refusal, device)),
        _ => Err(ApiError::internal("an outcome of another kind")),
    }
}

/// `DELETE /devices/{id}/commands`: a service empties the queue.
pub(crate) async fn purge(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (caller, device) = service(&shared, &headers, &id)?;
    let record = AuditRecord::done("messages.purge", caller.0, device.as_str());
    let command = Command::MessagesPurge {
        device: device.clone(),
    };
    let outcome = shared.client.submit(command).await.map_err(ApiError::from);
    let answer = outcome.and_then(|outcome| match outcome {
        Outcome::MessagesPurged { count } => {
            let body = json!({ "totalMessagesPurged": count, "deviceId": id, "moduleId": null });
            Ok(Json(body).into_response())
        }
        Outcome::Refused(refusal) => Err(ApiError::refused(refusal, &device)),
        _ => Err(ApiError::internal("an outcome of another kind")),
    });
    audited(record, answer)
}

/// `GET /devices/{id}/messages/deadletters`: all of them, the oldest first, without their payloads.
pub(crate) async fn dead_letters(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (_, device) = service(&shared, &headers, &id)?;
    let letters = read_dead_letters(&shared, &device).await?;
    let letters: Vec<Value> = letters.iter().map(letter_json).collect();
    Ok(Json(letters).into_response())
}

async fn read_dead_letters(shared: &Shared, device: &DeviceId) -> Result<Vec<DeadLetter>, ApiError> {
    let query = Query::DeadLetters(device.clone());
    let letters = match shared.client.query(query, Consistency::Linearizable).await? {
        View::DeadLetters(letters) => letters,
        _ => return Err(ApiError::internal("an answer of another kind")),
    };
    if letters.is_empty() {
        let query = Query::Device(device.clone());
        let view = shared.client.query(query, Consistency::Linearizable).await?;
        if view == View::Device(None) {
            return Err(ApiError::missing(device));
        }
    }
    Ok(letters)
}

fn letter_json(letter: &DeadLetter) -> Value {
    json!({
        "sequenceNumber": letter.number,
        "messageId": letter.id,
        "reason": letter.reason.word(),
        "deadLetteredTimeUtc": iso_utc(letter.dead_ms),
        "enqueuedTimeUtc": iso_utc(letter.enqueued_ms),
        "deliveryCount": letter.delivery_count,
        "ack": letter.ack.word(),
        "sizeInBytes": letter.bytes,
    })
}

/// `GET /devices/{id}/messages/deadletters/{number}`: what it carries.
pub(crate) async fn dead_letter(
    State(shared): State<Arc<Shared>>,
    Path((id, number)): Path<(String, u64)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (_, device) = service(&shared, &headers, &id)?;
    let absent = || ApiError::refused(Refusal::NoSuchLetter, &device);
    let letters = read_dead_letters(&shared, &device).await?;
    if letters.iter().all(|letter| letter.number != number) {
        return Err(absent());
    }
    let content = content(&shared, &device, number).await?.ok_or_else(absent)?;
    Ok(carried(&content))
}

/// `DELETE /devices/{id}/messages/deadletters/{number}`: forgets it.
pub(crate) async fn drop_dead_letter(
    state: State<Arc<Shared>>,
    path: Path<(String, u64)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    to_dead_letter(state, path, headers, "dead-letter.drop", DeadLetterDeed::Drop).await
}

/// `POST /devices/{id}/messages/deadletters/{number}/resubmit`: puts it at the end of the queue.
pub(crate) async fn resubmit(
    state: State<Arc<Shared>>,
    path: Path<(String, u64)>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let deed = DeadLetterDeed::Resubmit;
    to_dead_letter(state, path, headers, "dead-letter.resubmit", deed).await
}

async fn to_dead_letter(
    State(shared): State<Arc<Shared>>,
    Path((id, number)): Path<(String, u64)>,
    headers: HeaderMap,
    action: &'static str,
    deed: DeadLetterDeed,
) -> Result<Response, ApiError> {
    let (caller, device) = service(&shared, &headers, &id)?;
    let mut record = AuditRecord::done(action, caller.0, device.as_str());
    record.detail = number.to_string();
    let command = Command::DeadLetter {
        device: device.clone(),
        number,
        deed,
    };
    let outcome = shared.client.submit(command).await.map_err(ApiError::from);
    let answer = outcome.and_then(|outcome| match outcome {
        Outcome::MessageQueued { number } => {
            let body = json!({ "sequenceNumber": number });
            Ok((StatusCode::CREATED, Json(body)).into_response())
        }
        other => done(other, &device),
    });
    audited(record, answer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_read_as_it_was_written() {
        assert_eq!(parse_lock("1f-2a"), Some((0x1f, 0x2a)));
        assert_eq!(parse_lock("\"1-0\""), Some((1, 0)));
        for wrong in [
            "",
            "-",
            "1",
            "1-",
            "-1",
            "g-1",
            "1-1-1",
            "é-1",
            "10000000000000000-1",
        ] {
            assert_eq!(parse_lock(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn properties_go_into_headers() {
        let content = MessageContent {
            bag: "%24.mid=m%201&%24.ct=text%2Fplain&iothub-ack=full&a=b&%24odd=1&sp%20ace=2".into(),
            payload: Body::from_static(b"hello"),
        };
        let response = carried(&content);
        let header = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
        assert_eq!(header("iothub-messageid"), Some("m 1"));
        assert_eq!(header("content-type"), Some("text/plain"));
        assert_eq!(header("iothub-ack"), Some("full"));
        assert_eq!(header("iothub-app-a"), Some("b"));
        assert_eq!(header("iothub-app-$odd"), Some("1"));
    }
}
