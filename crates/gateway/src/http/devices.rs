//! The device registry: IoT Hub's `/devices` with its conditions, ETags and key drawing.
//!
//! What a write does is decided by the shard; here a request becomes a command, and a record JSON.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes as Body;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, Query as UrlQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use bytes::Bytes;
use dunlin_model::audit::AuditRecord;
use dunlin_model::command::{Command, Consistency, DeviceView, Outcome, Query, View};
use dunlin_model::directory::Right;
use dunlin_model::id::{DeviceId, ShardId};
use dunlin_model::identity::{
    Condition, DeviceRecord, DeviceSpec, DeviceStatus, SessionRecord, SymmetricKeys,
};
use dunlin_model::limits::DEVICE_PAGE_MAX;
use serde::{Deserialize, Serialize};

use super::audited::audited;
use super::authorize;
use super::error::ApiError;
use super::etag::{IfMatch, if_match, tagged};
use super::time::{UNSET, iso_utc_or_unset};
use crate::auth::{self, BASE64};
use crate::limits::{DEVICES_PAGE_DEFAULT, STATUS_REASON_CHARS_MAX};
use crate::mqtt::admit::query_device;
use crate::shared::Shared;

/// Header that carries the cursor of the next page, in both directions.
const CONTINUATION: &str = "x-ms-continuation";

/// Times that a write which keeps the keys is tried, when the device changes under it.
const KEEP_KEYS_ATTEMPTS_MAX: u32 = 3;

/// A device as services see it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct DeviceJson {
    device_id: String,
    generation_id: String,
    etag: String,
    connection_state: &'static str,
    status: DeviceStatus,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_reason: Option<String>,
    connection_state_updated_time: String,
    status_updated_time: String,
    last_activity_time: &'static str,
    cloud_to_device_message_count: u32,
    authentication: AuthenticationJson,
    capabilities: CapabilitiesJson,
}

#[derive(Debug, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct AuthenticationJson {
    symmetric_key: Option<KeysJson>,
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Debug, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct KeysJson {
    primary_key: Option<String>,
    secondary_key: Option<String>,
}

#[derive(Debug, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct CapabilitiesJson {
    iot_edge: bool,
}

/// What services write. Unknown fields are left alone: SDKs send back whole devices.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct DeviceInput {
    device_id: Option<String>,
    #[serde(default)]
    status: Option<DeviceStatus>,
    #[serde(default)]
    status_reason: Option<String>,
    #[serde(default)]
    authentication: Option<AuthenticationJson>,
}

/// `GET /devices?top=N`: one page over all shards, in their order.
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    UrlQuery(query): UrlQuery<ListQuery>,
) -> Result<Response, ApiError> {
    authorize::service(&shared, &headers, Right::RegistryRead, &["devices"])?;
    let top = query
        .top
        .unwrap_or(DEVICES_PAGE_DEFAULT)
        .clamp(1, DEVICE_PAGE_MAX);
    let (first_shard, mut after) = match headers.get(CONTINUATION) {
        None => (0, Bytes::new()),
        Some(value) => {
            parse_continuation(value).ok_or_else(|| ApiError::invalid("the continuation cannot be read"))?
        }
    };
    let mut found: Vec<DeviceJson> = Vec::new();
    let mut continuation = None;
    for shard in shared.client.directory().shards().skip(first_shard as usize) {
        loop {
            let count_max = top - found.len();
            if count_max == 0 {
                break;
            }
            let query = Query::Devices {
                shard,
                after: std::mem::take(&mut after),
                count_max,
            };
            let View::Devices { devices, next } =
                shared.client.query(query, Consistency::Linearizable).await?
            else {
                return Err(ApiError::internal("an answer of another kind"));
            };
            found.extend(devices.iter().map(to_json));
            match next {
                Some(next) => after = next,
                None => break,
            }
        }
        if found.len() >= top {
            continuation = Some(if after.is_empty() {
                (shard.0 + 1, Bytes::new())
            } else {
                (shard.0, after)
            });
            break;
        }
    }
    let shard_count = shared.client.directory().shard_count;
    let mut response = Json(found).into_response();
    if let Some((shard, after)) = continuation.filter(|(shard, _)| *shard < shard_count) {
        let text = format!("{shard}:{}", BASE64.encode(&after));
        if let Ok(value) = HeaderValue::from_str(&text) {
            response.headers_mut().insert(CONTINUATION, value);
        }
    }
    Ok(response)
}

/// Parameters of a listing.
#[derive(Debug, Deserialize)]
pub(crate) struct ListQuery {
    top: Option<usize>,
}

pub(crate) fn parse_continuation(value: &HeaderValue) -> Option<(u32, Bytes)> {
    let (shard, after) = value.to_str().ok()?.split_once(':')?;
    Some((shard.parse().ok()?, BASE64.decode(after).ok()?.into()))
}

/// `GET /devices/{id}`.
pub(crate) async fn get(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    authorize::service(&shared, &headers, Right::RegistryRead, &["devices", &id])?;
    let device = parse_id(&id)?;
    let view = query_device(&*shared.client, &device, Consistency::Linearizable).await?;
    Ok(respond(&view.ok_or_else(|| ApiError::no_device(&id))?))
}

/// `PUT /devices/{id}`: creates without `If-Match`, changes with it.
pub(crate) async fn put(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Result<Body, BytesRejection>,
) -> Result<Response, ApiError> {
    let caller = authorize::service(&shared, &headers, Right::RegistryReadWrite, &["devices", &id])?;
    let device = parse_id(&id)?;
    let body = body.map_err(|_| ApiError::too_large())?;
    let input: DeviceInput = serde_json::from_slice(&body)
        .map_err(|error| ApiError::invalid(format!("the body is not a device: {error}")))?;
    if input.device_id.as_deref().is_some_and(|in_body| in_body != id) {
        return Err(ApiError::invalid(
            "the device id in the body is another than in the path",
        ));
    }
    let asked = condition(&headers, Condition::Absent)?;
    let mut record = AuditRecord::done("device.create", caller.0, id);
    let answer = write(&shared, &device, &input, asked, &mut record).await;
    audited(record, answer)
}

/// Stores the device. `record` is told what kind of change it is.
async fn write(
    shared: &Shared,
    device: &DeviceId,
    input: &DeviceInput,
    asked: Condition,
    record: &mut AuditRecord,
) -> Result<Response, ApiError> {
    for _ in 0..KEEP_KEYS_ATTEMPTS_MAX {
        let (spec, condition, before) = complete(shared, device, input, asked).await?;
        (record.action, record.detail) = change(before.as_ref().map(|view| &view.record.spec), &spec);
        let command = Command::DevicePut {
            device: device.clone(),
            spec,
            condition,
        };
        match shared.client.submit(command).await? {
            Outcome::Stored(record) => {
                return Ok(respond(&DeviceView {
                    record,
                    session: before.map(|view| view.session).unwrap_or_default(),
                }));
            }
            // The keys that were to be kept have changed meanwhile; the caller asked for any version.
            Outcome::Refused(dunlin_model::command::Refusal::VersionMismatch)
                if asked == Condition::Present => {}
            Outcome::Refused(refusal) => return Err(ApiError::refused(refusal, device.as_str())),
            _ => return Err(ApiError::internal("an outcome of another kind")),
        }
    }
    Err(ApiError::busy("changes of this device"))
}

/// What the audit calls a change of a device, and what changed in it. Never a key itself.
fn change(before: Option<&DeviceSpec>, after: &DeviceSpec) -> (&'static str, String) {
    let is_disabled = after.status == DeviceStatus::Disabled;
    let status = if is_disabled { "disabled" } else { "enabled" };
    let Some(before) = before else {
        return ("device.create", format!("status {status}"));
    };
    let mut changed = Vec::new();
    let action = if before.status != after.status {
        changed.push(format!("status {status}"));
        if is_disabled {
            "device.disable"
        } else {
            "device.enable"
        }
    } else if before.keys != after.keys {
        "device.roll-keys"
    } else {
        "device.update"
    };
    if before.keys.primary != after.keys.primary {
        changed.push("primary key".to_owned());
    }
    if before.keys.secondary != after.keys.secondary {
        changed.push("secondary key".to_owned());
    }
    (action, changed.join(", "))
}

/// `DELETE /devices/{id}`.
pub(crate) async fn delete(
    State(shared): State<Arc<Shared>>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let caller = authorize::service(&shared, &headers, Right::RegistryReadWrite, &["devices", &id])?;
    let device = parse_id(&id)?;
    let condition = condition(&headers, Condition::Present)?;
    let command = Command::DeviceDelete { device, condition };
    let answer = match shared.client.submit(command).await {
        Ok(Outcome::Done) => Ok(StatusCode::NO_CONTENT.into_response()),
        Ok(Outcome::Refused(refusal)) => Err(ApiError::refused(refusal, &id)),
        Ok(_) => Err(ApiError::internal("an outcome of another kind")),
        Err(error) => Err(error.into()),
    };
    audited(AuditRecord::done("device.delete", caller.0, id), answer)
}

/// The spec to store: with the keys that were sent, drawn where there are none, or kept on a change.
async fn complete(
    shared: &Shared,
    device: &DeviceId,
    input: &DeviceInput,
    asked: Condition,
) -> Result<(DeviceSpec, Condition, Option<DeviceView>), ApiError> {
    let authentication = input.authentication.as_ref();
    if let Some(kind) = authentication.and_then(|authentication| authentication.kind.as_deref())
        && kind != "sas"
    {
        return Err(ApiError::invalid(format!(
            "authentication type {kind:?} is not supported"
        )));
    }
    if input
        .status_reason
        .as_ref()
        .is_some_and(|reason| reason.chars().count() > STATUS_REASON_CHARS_MAX)
    {
        return Err(ApiError::invalid(
            "the status reason has more than 128 characters",
        ));
    }
    let sent = authentication.and_then(|authentication| authentication.symmetric_key.as_ref());
    let part = |key: Option<&String>| key.filter(|key| !key.is_empty()).cloned();
    let primary = part(sent.and_then(|keys| keys.primary_key.as_ref()));
    let secondary = part(sent.and_then(|keys| keys.secondary_key.as_ref()));
    for key in [&primary, &secondary].into_iter().flatten() {
        auth::decode_key(key).map_err(|error| ApiError::invalid(error.to_string()))?;
    }
    let mut condition = asked;
    let mut current = None;
    if asked != Condition::Absent {
        current = query_device(&*shared.client, device, Consistency::Linearizable).await?;
    }
    if primary.is_none()
        && secondary.is_none()
        && let Some(view) = &current
        && asked == Condition::Present
    {
        condition = Condition::Version(view.record.version);
    }
    let kept = current.as_ref().map(|view| &view.record.spec.keys);
    let keys = SymmetricKeys {
        primary: primary
            .or_else(|| kept.map(|keys| keys.primary.clone()))
            .unwrap_or_else(auth::draw_key),
        secondary: secondary
            .or_else(|| kept.map(|keys| keys.secondary.clone()))
            .unwrap_or_else(auth::draw_key),
    };
    let spec = DeviceSpec {
        status: input.status.unwrap_or_default(),
        status_reason: input.status_reason.clone(),
        keys,
    };
    Ok((spec, condition, current))
}

pub(crate) fn parse_id(id: &str) -> Result<DeviceId, ApiError> {
    DeviceId::parse(id).map_err(|error| ApiError::invalid(error.to_string()))
}

/// What `If-Match` asks of a device; `absent` is meant without the header.
pub(crate) fn condition(headers: &HeaderMap, absent: Condition) -> Result<Condition, ApiError> {
    let tag = match if_match(headers)? {
        IfMatch::Missing => return Ok(absent),
        IfMatch::Any => return Ok(Condition::Present),
        IfMatch::Tag(tag) => tag,
    };
    let version = BASE64
        .decode(tag)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok());
    // An ETag that is none of ours matches nothing. Versions begin at 1.
    Ok(Condition::Version(version.unwrap_or(0)))
}

/// The ETag of a version: Base64 of its decimal digits, as IoT Hub has it.
pub(crate) fn etag(version: u64) -> String {
    BASE64.encode(version.to_string())
}

pub(crate) fn connection_state(session: &SessionRecord) -> &'static str {
    if session.held_by.is_some() {
        "Connected"
    } else {
        "Disconnected"
    }
}

fn to_json(view: &DeviceView) -> DeviceJson {
    let DeviceRecord {
        device,
        spec,
        version,
        generation,
        status_changed_ms,
        ..
    } = &view.record;
    let session = &view.session;
    DeviceJson {
        device_id: device.as_str().to_owned(),
        generation_id: generation.to_string(),
        etag: etag(*version),
        connection_state: connection_state(session),
        status: spec.status,
        status_reason: spec.status_reason.clone(),
        connection_state_updated_time: iso_utc_or_unset(session.changed_ms),
        status_updated_time: iso_utc_or_unset(*status_changed_ms),
        last_activity_time: UNSET,
        cloud_to_device_message_count: 0,
        authentication: AuthenticationJson {
            symmetric_key: Some(KeysJson {
                primary_key: Some(spec.keys.primary.clone()),
                secondary_key: Some(spec.keys.secondary.clone()),
            }),
            kind: Some("sas".into()),
        },
        capabilities: CapabilitiesJson::default(),
    }
}

fn respond(view: &DeviceView) -> Response {
    tagged(Json(to_json(view)).into_response(), &etag(view.record.version))
}

/// The shard that a path names.
pub(crate) fn parse_shard(shared: &Shared, text: &str) -> Result<ShardId, ApiError> {
    let shard = text
        .parse()
        .map_err(|_| ApiError::invalid("a shard is a number"))?;
    if shard < shared.client.directory().shard_count {
        Ok(ShardId(shard))
    } else {
        Err(ApiError::not_found(format!("shard {shard} does not exist")))
    }
}
