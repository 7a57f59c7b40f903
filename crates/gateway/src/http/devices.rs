//! The device registry: IoT Hub's `/devices` and `/devices/{id}/modules` with their conditions and ETags.
//!
//! What a write does is decided by the shard; here a request becomes a command. What stands in the JSON is in
//! [`super::identity`], many writes in one request in [`super::bulk`].

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes as Body;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Query as UrlQuery, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use bytes::Bytes;
use dunlin_model::audit::AuditRecord;
use dunlin_model::command::{
    Command, Consistency, DeviceView, Outcome, Query, Refusal, Settled, View, WriteReceipt,
};
use dunlin_model::directory::Right;
use dunlin_model::id::{DeviceId, ShardId};
use dunlin_model::identity::{Condition, DeviceSpec, DeviceStatus, etag};
use dunlin_model::limits::DEVICE_PAGE_MAX;
use dunlin_model::quota::Operation;
use serde::Deserialize;
use serde_json::Value;

use super::audited::audited;
use super::authorize::{self, Caller};
use super::error::ApiError;
use super::etag::{IfMatch, if_match, tagged};
use super::identity::{Completed, IdentityInput, to_json};
use super::named::Named;
use super::receipts::receipted;
use crate::auth::BASE64;
use crate::limits::DEVICES_PAGE_DEFAULT;
use crate::mqtt::admit::query_device;
use crate::quota::Cost;
use crate::shared::Shared;

/// Header that carries the cursor of the next page, in both directions.
pub(crate) const CONTINUATION: &str = "x-ms-continuation";

/// Times that a write which keeps the keys is tried, when the device changes under it.
const KEEP_KEYS_ATTEMPTS_MAX: u32 = 3;

/// `GET /devices?top=N`: one page over all shards, in their order.
pub(crate) async fn list(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    UrlQuery(query): UrlQuery<ListQuery>,
) -> Result<Response, ApiError> {
    authorize::service(&shared, &headers, Right::RegistryRead, &["devices"])?;
    shared.charge(Cost::of(Operation::Registry)).await?;
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
    let mut found: Vec<Value> = Vec::new();
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
        put_continuation(response.headers_mut(), shard, &after);
    }
    Ok(response)
}

/// Parameters of a listing.
#[derive(Debug, Deserialize)]
pub(crate) struct ListQuery {
    top: Option<usize>,
}

/// Says where the next page begins.
pub(crate) fn put_continuation(headers: &mut HeaderMap, shard: u32, after: &[u8]) {
    let text = format!("{shard}:{}", BASE64.encode(after));
    if let Ok(value) = HeaderValue::from_str(&text) {
        headers.insert(CONTINUATION, value);
    }
}

pub(crate) fn parse_continuation(value: &HeaderValue) -> Option<(u32, Bytes)> {
    let (shard, after) = value.to_str().ok()?.split_once(':')?;
    Some((shard.parse().ok()?, BASE64.decode(after).ok()?.into()))
}

/// `GET /devices/{id}`, and of a module.
pub(crate) async fn get(
    State(shared): State<Arc<Shared>>,
    named: Named,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    authorize::service(&shared, &headers, Right::RegistryRead, &named.path("devices"))?;
    let identity = named.identity()?;
    shared.charge(Cost::of(Operation::Registry)).await?;
    let view = query_device(&*shared.client, &identity, Consistency::Linearizable).await?;
    Ok(respond(&view.ok_or_else(|| ApiError::missing(&identity))?))
}

/// `GET /devices/{id}/modules`.
pub(crate) async fn modules(
    State(shared): State<Arc<Shared>>,
    named: Named,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    authorize::service(&shared, &headers, Right::RegistryRead, &named.path("devices"))?;
    let device = named.identity()?;
    shared.charge(Cost::of(Operation::Registry)).await?;
    // The barrier of the first read holds for the second.
    let view = query_device(&*shared.client, &device, Consistency::Linearizable).await?;
    view.ok_or_else(|| ApiError::missing(&device))?;
    let query = Query::Modules(device);
    let View::Devices { devices, .. } = shared.client.query(query, Consistency::Leader).await? else {
        return Err(ApiError::internal("an answer of another kind"));
    };
    Ok(Json(devices.iter().map(to_json).collect::<Vec<_>>()).into_response())
}

/// Lets a service through that may change the registry, and says which identity it means.
async fn writer(shared: &Shared, headers: &HeaderMap, named: &Named) -> Result<(Caller, DeviceId), ApiError> {
    let path = named.path("devices");
    let caller = authorize::service(shared, headers, Right::RegistryReadWrite, &path)?;
    let identity = named.identity()?;
    shared.charge(Cost::of(Operation::Registry)).await?;
    Ok((caller, identity))
}

/// `PUT /devices/{id}`, and of a module: creates without `If-Match`, changes with it.
pub(crate) async fn put(
    State(shared): State<Arc<Shared>>,
    named: Named,
    headers: HeaderMap,
    body: Result<Body, BytesRejection>,
) -> Result<Response, ApiError> {
    let (caller, identity) = writer(&shared, &headers, &named).await?;
    let body = body.map_err(|_| ApiError::too_large())?;
    let input = IdentityInput::read(&body)?;
    let is_other = |in_body: &Option<String>, in_path: Option<&str>| {
        in_body
            .as_deref()
            .is_some_and(|in_body| in_path.is_some_and(|in_path| in_path != in_body))
    };
    if is_other(&input.device_id, Some(named.device())) || is_other(&input.module_id, named.module()) {
        return Err(ApiError::invalid(
            "the id in the body is another than in the path",
        ));
    }
    let asked = condition(&headers, Condition::Absent)?;
    let mut record = AuditRecord::done("device.create", caller.0, identity.as_str());
    let answer = write(&shared, &identity, &input, asked, &mut record).await;
    let answer = answer.map(|(view, receipt)| receipted(respond(&view), receipt));
    audited(record, answer)
}

/// Stores the identity, and says where. `record` is told what kind of change it is.
pub(crate) async fn write(
    shared: &Shared,
    identity: &DeviceId,
    input: &IdentityInput,
    asked: Condition,
    record: &mut AuditRecord,
) -> Result<(DeviceView, WriteReceipt), ApiError> {
    let is_lenient = matches!(asked, Condition::Present | Condition::Any);
    for _ in 0..KEEP_KEYS_ATTEMPTS_MAX {
        let before = match asked {
            Condition::Absent => None,
            _ => query_device(&*shared.client, identity, Consistency::Linearizable).await?,
        };
        let known = before.as_ref().map(|view| &view.record.spec);
        let Completed { spec, keeps } = input.complete(known, identity.module_part().is_some())?;
        let condition = match (&before, asked) {
            (Some(view), _) if keeps && is_lenient => Condition::Version(view.record.version),
            // Keys that are drawn now must not stand in place of others that were stored meanwhile.
            (None, Condition::Any) => Condition::Absent,
            (None, Condition::Present) => return Err(ApiError::missing(identity)),
            _ => asked,
        };
        (record.action, record.detail) = change(identity, known, &spec);
        let command = Command::DevicePut {
            device: identity.clone(),
            spec,
            condition,
        };
        let Settled { outcome, receipt } = shared.client.submit_for_receipt(command).await?;
        match outcome {
            Outcome::Stored(record) => {
                let view = DeviceView {
                    record,
                    message_count: before.as_ref().map_or(0, |view| view.message_count),
                    session: before.map(|view| view.session).unwrap_or_default(),
                };
                return Ok((view, receipt));
            }
            // What was to be kept has changed meanwhile; the caller asked for any version.
            Outcome::Refused(Refusal::VersionMismatch) if is_lenient => {}
            Outcome::Refused(Refusal::AlreadyExists) if asked == Condition::Any => {}
            Outcome::Refused(refusal) => return Err(ApiError::refused(refusal, identity)),
            _ => return Err(ApiError::internal("an outcome of another kind")),
        }
    }
    Err(ApiError::busy("changes of this device"))
}

/// What the audit calls a change of an identity, and what changed in it. Never a key itself.
fn change(identity: &DeviceId, before: Option<&DeviceSpec>, after: &DeviceSpec) -> (&'static str, String) {
    let is_module = identity.module_part().is_some();
    let verb = |of_device, of_module| if is_module { of_module } else { of_device };
    let is_disabled = after.status == DeviceStatus::Disabled;
    let status = if is_disabled { "disabled" } else { "enabled" };
    let kind = after.authentication.kind();
    let Some(before) = before else {
        let detail = format!("status {status}, authentication {kind}");
        return (verb("device.create", "module.create"), detail);
    };
    let mut changed = Vec::new();
    let action = if before.status != after.status {
        changed.push(format!("status {status}"));
        if is_disabled {
            "device.disable"
        } else {
            "device.enable"
        }
    } else if before.authentication != after.authentication {
        verb("device.roll-keys", "module.roll-keys")
    } else {
        verb("device.update", "module.update")
    };
    match (before.authentication.keys(), after.authentication.keys()) {
        (Some(old), Some(new)) => {
            if old.primary != new.primary {
                changed.push("primary key".to_owned());
            }
            if old.secondary != new.secondary {
                changed.push("secondary key".to_owned());
            }
        }
        _ if before.authentication != after.authentication => changed.push(format!("authentication {kind}")),
        _ => {}
    }
    (action, changed.join(", "))
}

/// `DELETE /devices/{id}`, and of a module.
pub(crate) async fn delete(
    State(shared): State<Arc<Shared>>,
    named: Named,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (caller, identity) = writer(&shared, &headers, &named).await?;
    let condition = condition(&headers, Condition::Present)?;
    let record = AuditRecord::done(deletion(&identity), caller.0, identity.as_str());
    let answer = remove(&shared, &identity, condition).await;
    let done = || StatusCode::NO_CONTENT.into_response();
    audited(record, answer.map(|receipt| receipted(done(), receipt)))
}

/// What the audit calls it that an identity was deleted.
pub(crate) fn deletion(identity: &DeviceId) -> &'static str {
    match identity.module_part() {
        None => "device.delete",
        Some(_) => "module.delete",
    }
}

/// Deletes an identity, and says where.
pub(crate) async fn remove(
    shared: &Shared,
    identity: &DeviceId,
    condition: Condition,
) -> Result<WriteReceipt, ApiError> {
    let command = Command::DeviceDelete {
        device: identity.clone(),
        condition,
    };
    let Settled { outcome, receipt } = shared.client.submit_for_receipt(command).await?;
    match outcome {
        Outcome::Done => Ok(receipt),
        Outcome::Refused(refusal) => Err(ApiError::refused(refusal, identity)),
        _ => Err(ApiError::internal("an outcome of another kind")),
    }
}

/// `POST /devices/{id}/erase`: deletes the device, if it is there, and all that it ever sent.
pub(crate) async fn erase(
    State(shared): State<Arc<Shared>>,
    named: Named,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (caller, device) = writer(&shared, &headers, &named).await?;
    let record = AuditRecord::done("device.erase", caller.0, device.as_str());
    let erasing = async {
        let command = Command::DeviceErase {
            device: device.clone(),
        };
        let shard = shared.client.shard_of(&device);
        let Settled { outcome, receipt } = shared.client.submit_for_receipt(command).await?;
        match outcome {
            Outcome::Erased { upto } => {
                shared.erased.notify_one();
                let body = serde_json::json!({ "deviceId": device.as_str(), "shard": shard.0, "upto": upto });
                Ok(receipted(Json(body).into_response(), receipt))
            }
            Outcome::Refused(refusal) => Err(ApiError::refused(refusal, &device)),
            _ => Err(ApiError::internal("an outcome of another kind")),
        }
    };
    audited(record, erasing.await)
}

/// What `If-Match` asks of a device; `absent` is meant without the header.
pub(crate) fn condition(headers: &HeaderMap, absent: Condition) -> Result<Condition, ApiError> {
    Ok(match if_match(headers)? {
        IfMatch::Missing => absent,
        IfMatch::Any => Condition::Present,
        IfMatch::Tag(tag) => version(tag),
    })
}

/// The version that an ETag stands for.
pub(crate) fn version(tag: &str) -> Condition {
    let version = BASE64
        .decode(tag)
        .ok()
        .and_then(|bytes| String::from_utf8(bytes).ok()?.parse().ok());
    // An ETag that is none of ours matches nothing. Versions begin at 1.
    Condition::Version(version.unwrap_or(0))
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
