//! Many changes of the registry in one request: IoT Hub's `POST /devices` with a list of identities and what is to become
//! of each.
//!
//! Each is a write of its own, those of one device and its modules one after the other; one that fails does not keep the
//! others from taking place, and the answer says which. Twins come after their identities. What has begun goes on, and is
//! kept in the audit, whether its caller is still there or not.

use std::collections::{BTreeMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;

use axum::body::Bytes as Body;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use dunlin_model::audit::AuditRecord;
use dunlin_model::command::{WriteReceipt, WriteReceipts};
use dunlin_model::directory::Right;
use dunlin_model::id::DeviceId;
use dunlin_model::identity::Condition;
use dunlin_model::quota::Operation;
use futures_util::{StreamExt as _, stream};
use serde::Deserialize;
use serde_json::{Value, json};

use super::code::ErrorCode;
use super::devices::{deletion, remove, version, write};
use super::error::{ApiError, ERROR_CODE_HEADER};
use super::identity::IdentityInput;
use super::receipts::receipted;
use super::twins::{self, Wanted};
use super::{audited, authorize};
use crate::listen::Peer;
use crate::quota::Cost;
use crate::shared::Shared;

/// Identities in one request.
const BULK_MAX: usize = 100;
/// Of them, those that are worked on at a time.
const AT_A_TIME: usize = 16;

/// One entry of the list.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
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
#[serde(try_from = "String")]
enum Mode {
    /// Must not be there.
    Create,
    /// Must be there.
    Update,
    /// Must be there with this ETag.
    UpdateIfMatch,
    /// Is there or not.
    #[default]
    CreateOrUpdate,
    Delete,
    DeleteIfMatch,
    UpdateTwin,
    UpdateTwinIfMatch,
}

impl TryFrom<String> for Mode {
    type Error = String;

    /// SDKs differ in how they write the first letter.
    fn try_from(text: String) -> Result<Self, String> {
        let found = Mode::ALL
            .iter()
            .find(|mode| mode.name().eq_ignore_ascii_case(&text));
        found
            .copied()
            .ok_or_else(|| format!("there is no importMode {text:?}"))
    }
}

impl Mode {
    const ALL: [Mode; 8] = [
        Mode::Create,
        Mode::Update,
        Mode::UpdateIfMatch,
        Mode::CreateOrUpdate,
        Mode::Delete,
        Mode::DeleteIfMatch,
        Mode::UpdateTwin,
        Mode::UpdateTwinIfMatch,
    ];

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
    Extension(peer): Extension<Peer>,
    headers: HeaderMap,
    body: Result<Body, BytesRejection>,
) -> Result<Response, ApiError> {
    let caller = authorize::service(&shared, &headers, Right::RegistryReadWrite, &["devices"])?;
    let entries = read(&body.map_err(|_| ApiError::too_large())?)?;
    shared
        .charge(Cost::many(Operation::Registry, entries.len()))
        .await?;
    let by = By {
        who: caller.0,
        peer: peer.0,
    };
    let groups = by_device(entries).into_iter().map(|group| {
        let (shared, by) = (Arc::clone(&shared), by.clone());
        let tasks = shared.tasks.clone();
        async move {
            // The caller may go: what was begun is carried out and written down.
            let task = tasks.spawn(async move { carry_out_all(&shared, &by, group).await });
            task.await.unwrap_or_else(|_| Came {
                problems: vec![(0, interrupted())],
                ..Came::default()
            })
        }
    });
    let mut came = Came::default();
    let mut answers = stream::iter(groups).buffer_unordered(AT_A_TIME);
    while let Some(Came { receipts, problems }) = answers.next().await {
        came.receipts.extend(receipts);
        came.problems.extend(problems);
    }
    came.problems.sort_by_key(|(place, _)| *place);
    let errors: Vec<Value> = came.problems.into_iter().map(|(_, error)| error).collect();
    let body = json!({ "isSuccessful": errors.is_empty(), "errors": errors, "warnings": [] });
    if errors.is_empty() {
        return Ok(receipted(Json(body).into_response(), came.receipts));
    }
    // By this name alone .NET's SDK knows that the body is to be read.
    let code = ErrorCode::BulkRegistryOperationFailure;
    let name = [(ERROR_CODE_HEADER, code.name())];
    let answer = (code.status(), name, Json(body)).into_response();
    Ok(receipted(answer, came.receipts))
}

/// Reads the body of a request: who is named, each once, and what is to become of it.
pub(crate) fn read(body: &[u8]) -> Result<Vec<(DeviceId, Entry)>, ApiError> {
    let entries: Vec<Entry> = serde_json::from_slice(body)
        .map_err(|error| ApiError::invalid(format!("the body is no list of identities: {error}")))?;
    if entries.len() > BULK_MAX {
        return Err(ApiError::too_many_devices(BULK_MAX));
    }
    let mut seen = HashSet::new();
    entries
        .into_iter()
        .map(|entry| {
            let module = entry.module_id.as_deref().filter(|module| !module.is_empty());
            let identity = DeviceId::of_parts(&entry.id, module)
                .map_err(|error| ApiError::invalid(error.to_string()))?;
            if seen.insert(identity.clone()) {
                Ok((identity, entry))
            } else {
                Err(ApiError::named_twice(&identity))
            }
        })
        .collect()
}

/// Who asks, and from where.
#[derive(Clone)]
struct By {
    who: String,
    peer: SocketAddr,
}

/// An entry with its place in the list.
type Placed = (usize, DeviceId, Entry);

/// The entries of each device and its modules, in the order of the list.
fn by_device(entries: Vec<(DeviceId, Entry)>) -> Vec<Vec<Placed>> {
    let mut groups: BTreeMap<String, Vec<Placed>> = BTreeMap::new();
    for (place, (identity, entry)) in entries.into_iter().enumerate() {
        let device = identity.device_part().to_owned();
        groups.entry(device).or_default().push((place, identity, entry));
    }
    groups.into_values().collect()
}

/// What came of some entries.
#[derive(Default)]
struct Came {
    /// Of what took place, also where the rest of its entry did not.
    receipts: WriteReceipts,
    /// What went wrong, by place.
    problems: Vec<(usize, Value)>,
}

async fn carry_out_all(shared: &Shared, by: &By, group: Vec<Placed>) -> Came {
    let mut came = Came::default();
    for (place, identity, entry) in group {
        let mode = entry.import_mode;
        if let Err(error) = carry_out(shared, by, &identity, entry, &mut came.receipts).await {
            came.problems.push((place, problem(&identity, mode, &error)));
        }
    }
    came
}

async fn carry_out(
    shared: &Shared,
    by: &By,
    identity: &DeviceId,
    entry: Entry,
    receipts: &mut WriteReceipts,
) -> Result<(), ApiError> {
    let mode = entry.import_mode;
    let etag = entry.etag.as_deref().unwrap_or_default().trim_matches('"');
    let condition = match mode {
        Mode::Create => Condition::Absent,
        Mode::UpdateIfMatch | Mode::DeleteIfMatch if etag != "*" => version(etag),
        Mode::CreateOrUpdate => Condition::Any,
        _ => Condition::Present,
    };
    let twin_etag = entry.twin_etag.as_deref().map(|etag| etag.trim_matches('"'));
    let twin_etag = match (mode, twin_etag) {
        (Mode::UpdateTwinIfMatch, Some("*")) => None,
        // A condition that is not told is one that does not hold.
        (Mode::UpdateTwinIfMatch, etag) => Some(etag.map_or(0, twins::number)),
        _ => None,
    };
    let is_deletion = matches!(mode, Mode::Delete | Mode::DeleteIfMatch);
    // What cannot be read keeps all of the entry from taking place.
    let wanted = match names_twin(&entry.rest) && !is_deletion {
        true => Some(Wanted::read(&entry.rest)?),
        false => None,
    };
    let mut record = AuditRecord::done("device.create", &by.who, identity.as_str());
    match mode {
        Mode::Delete | Mode::DeleteIfMatch => {
            record.action = deletion(identity);
            let done = remove(shared, identity, condition).await;
            receipts.add(kept(shared, by, record, done).await?);
        }
        Mode::UpdateTwin | Mode::UpdateTwinIfMatch => {}
        Mode::Create | Mode::Update | Mode::UpdateIfMatch | Mode::CreateOrUpdate => {
            let input: IdentityInput =
                serde_json::from_value(entry.rest).map_err(|error| ApiError::invalid(error.to_string()))?;
            let done = write(shared, identity, &input, condition, &mut record).await;
            receipts.add(kept(shared, by, record, done.map(|(_, receipt)| receipt)).await?);
        }
    }
    let Some(wanted) = wanted else {
        return Ok(());
    };
    let record = AuditRecord::done("twin.update", &by.who, identity.as_str());
    let done = twins::change(shared, identity, wanted, false, twin_etag).await;
    receipts.add(kept(shared, by, record, done).await?);
    Ok(())
}

/// Keeps in the audit what came of a change, and passes that on.
async fn kept(
    shared: &Shared,
    by: &By,
    mut record: AuditRecord,
    done: Result<WriteReceipt, ApiError>,
) -> Result<WriteReceipt, ApiError> {
    if let Err(error) = &done {
        record.outcome = error.audit_outcome();
    }
    audited::write(shared, Some(by.peer), record).await;
    done
}

fn names_twin(entry: &Value) -> bool {
    ["tags", "properties"]
        .iter()
        .any(|name| entry.get(name).is_some_and(|value| !value.is_null()))
}

/// That a change has ended in a way that was not foreseen.
fn interrupted() -> Value {
    json!({ "errorCode": "ServerError", "errorStatus": "a change was interrupted" })
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
        for mode in Mode::ALL {
            let mut name = mode.name().to_owned();
            assert_eq!(Mode::try_from(name.clone()), Ok(mode));
            name[..1].make_ascii_uppercase();
            assert_eq!(Mode::try_from(name), Ok(mode), "as the Node SDK writes it");
        }
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
