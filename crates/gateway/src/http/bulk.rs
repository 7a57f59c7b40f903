//! Many changes of the registry in one request: IoT Hub's `POST /devices` with a list of identities and what is to become
//! of each.
//!
//! Each is a write of its own, in the order of the list as far as one identity is concerned; one that fails does not keep
//! the others from taking place, and the answer says which. Twins come after their identities.

use std::collections::HashSet;
use std::sync::Arc;

use axum::Json;
use axum::body::Bytes as Body;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use dunlin_model::audit::AuditRecord;
use dunlin_model::directory::Right;
use dunlin_model::id::DeviceId;
use dunlin_model::identity::Condition;
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::{Value, json};

use super::authorize;
use super::devices::{deletion, remove, version, write};
use super::error::ApiError;
use super::identity::IdentityInput;
use super::twins::{self, Wanted};
use crate::shared::Shared;

/// Identities in one request.
const BULK_MAX: usize = 100;
/// Of them, those that are worked on at a time.
const AT_A_TIME: usize = 16;

/// One entry of the list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    id: String,
    module_id: Option<String>,
    #[serde(rename = "eTag")]
    etag: Option<String>,
    #[serde(rename = "twinETag")]
    twin_etag: Option<String>,
    #[serde(default)]
    import_mode: Mode,
    #[serde(flatten)]
    rest: Value,
}

/// What is to become of an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
enum Mode {
    /// Must not be there.
    Create,
    /// Must be there.
    Update,
    /// Must be there with this ETag.
    #[serde(rename = "updateIfMatchETag")]
    UpdateIfMatch,
    /// Is there or not.
    #[default]
    CreateOrUpdate,
    Delete,
    #[serde(rename = "deleteIfMatchETag")]
    DeleteIfMatch,
    UpdateTwin,
    #[serde(rename = "updateTwinIfMatchETag")]
    UpdateTwinIfMatch,
}

impl Mode {
    fn name(self) -> &'static str {
        match self {
            Mode::Create => "create",
            Mode::Update => "update",
            Mode::UpdateIfMatch => "updateIfMatchETag",
            Mode::CreateOrUpdate => "createOrUpdate",
            Mode::Delete => "delete",
            Mode::DeleteIfMatch => "deleteIfMatchETag",
            Mode::UpdateTwin => "updateTwin",
            Mode::UpdateTwinIfMatch => "updateTwinIfMatchETag",
        }
    }
}

/// `POST /devices`.
pub(crate) async fn change(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    body: Result<Body, BytesRejection>,
) -> Result<Response, ApiError> {
    let caller = authorize::service(&shared, &headers, Right::RegistryReadWrite, &["devices"])?;
    let entries = read(&body.map_err(|_| ApiError::too_large())?)?;
    let (shared, who) = (&*shared, caller.0.as_str());
    let changes = entries.into_iter().map(|(identity, entry)| async move {
        let mode = entry.import_mode;
        let done = carry_out(shared, who, &identity, entry).await;
        done.err().map(|error| problem(&identity, mode, &error))
    });
    // The calls are long enough for each to have its own turn, and few enough for the answers to wait in order.
    let answers: Vec<_> = stream::iter(changes).buffered(AT_A_TIME).collect().await;
    let errors: Vec<Value> = answers.into_iter().flatten().collect();
    let status = if errors.is_empty() {
        StatusCode::OK
    } else {
        StatusCode::BAD_REQUEST
    };
    let body = json!({ "isSuccessful": errors.is_empty(), "errors": errors, "warnings": [] });
    Ok((status, Json(body)).into_response())
}

fn read(body: &[u8]) -> Result<Vec<(DeviceId, Entry)>, ApiError> {
    let entries: Vec<Entry> = serde_json::from_slice(body)
        .map_err(|error| ApiError::invalid(format!("the body is no list of identities: {error}")))?;
    if entries.len() > BULK_MAX {
        return Err(ApiError::too_many_devices(BULK_MAX));
    }
    let mut seen = HashSet::new();
    entries
        .into_iter()
        .map(|entry| {
            let device = DeviceId::parse(&entry.id);
            let identity = match &entry.module_id {
                Some(module) if !module.is_empty() => device.and_then(|device| device.of_module(module)),
                _ => device,
            };
            let identity = identity.map_err(|error| ApiError::invalid(error.to_string()))?;
            if seen.insert(identity.clone()) {
                Ok((identity, entry))
            } else {
                Err(ApiError::named_twice(&identity))
            }
        })
        .collect()
}

async fn carry_out(shared: &Shared, who: &str, identity: &DeviceId, entry: Entry) -> Result<(), ApiError> {
    let mode = entry.import_mode;
    let etag = entry.etag.as_deref().unwrap_or_default().trim_matches('"');
    let condition = match mode {
        Mode::Create => Condition::Absent,
        Mode::UpdateIfMatch | Mode::DeleteIfMatch if etag != "*" => version(etag),
        Mode::CreateOrUpdate => Condition::Any,
        _ => Condition::Present,
    };
    let mut record = AuditRecord::done("device.create", who, identity.as_str());
    let done = match mode {
        Mode::Delete | Mode::DeleteIfMatch => {
            record.action = deletion(identity);
            remove(shared, identity, condition).await
        }
        Mode::UpdateTwin | Mode::UpdateTwinIfMatch => {
            record.action = "twin.update";
            let twin_etag = entry.twin_etag.filter(|_| mode == Mode::UpdateTwinIfMatch);
            update_twin(shared, identity, &entry.rest, twin_etag.as_deref()).await
        }
        Mode::Create | Mode::Update | Mode::UpdateIfMatch | Mode::CreateOrUpdate => {
            let input = serde_json::from_value::<IdentityInput>(entry.rest.clone())
                .map_err(|error| ApiError::invalid(error.to_string()));
            match input {
                Ok(input) => {
                    let written = write(shared, identity, &input, condition, &mut record).await;
                    match written {
                        Ok(_) if names_twin(&entry.rest) => {
                            update_twin(shared, identity, &entry.rest, None).await
                        }
                        written => written.map(|_| ()),
                    }
                }
                Err(error) => Err(error),
            }
        }
    };
    if let Err(error) = &done {
        record.outcome = error.audit_outcome();
    }
    shared.hooks.audit.record(record).await;
    done
}

fn names_twin(entry: &Value) -> bool {
    ["tags", "properties"]
        .iter()
        .any(|name| entry.get(name).is_some_and(|value| !value.is_null()))
}

async fn update_twin(
    shared: &Shared,
    identity: &DeviceId,
    entry: &Value,
    etag: Option<&str>,
) -> Result<(), ApiError> {
    let wanted = Wanted::read(entry)?;
    twins::change(shared, identity, wanted, false, etag.map(twins::number)).await
}

fn problem(identity: &DeviceId, mode: Mode, error: &ApiError) -> Value {
    json!({
        "deviceId": identity.device_part(),
        "moduleId": identity.module_part(),
        "errorCode": error.name(),
        "errorStatus": error.text(),
        "operation": mode.name(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_read_as_sdks_send_them() {
        let body = json!([
            {"id": "a", "importMode": "create", "status": "enabled"},
            {"id": "a", "moduleId": "m", "importMode": "updateIfMatchETag", "eTag": "\"MQ==\""},
            {"id": "b", "importMode": "updateTwinIfMatchETag", "twinETag": "AAAAAAAAAAE=", "tags": {"x": 1}},
            {"id": "c", "moduleId": null},
        ]);
        let entries = read(body.to_string().as_bytes()).expect("a list");
        let modes: Vec<_> = entries
            .iter()
            .map(|(identity, entry)| (identity.as_str(), entry.import_mode))
            .collect();
        assert_eq!(
            modes,
            [
                ("a", Mode::Create),
                ("a/m", Mode::UpdateIfMatch),
                ("b", Mode::UpdateTwinIfMatch),
                ("c", Mode::CreateOrUpdate)
            ]
        );
        assert!(names_twin(&entries[2].1.rest) && !names_twin(&entries[0].1.rest));
        let many: Vec<Value> = (0..=BULK_MAX).map(|n| json!({"id": format!("d{n}")})).collect();
        for wrong in [
            json!({}),
            json!([{}]),
            json!([{"id": "a"}, {"id": "a", "importMode": "delete"}]),
            json!([{"id": "a b"}]),
            json!([{"id": "a", "importMode": "guess"}]),
            json!(many),
        ] {
            assert!(read(wrong.to_string().as_bytes()).is_err(), "{wrong}");
        }
    }
}
