//! Twins for services: IoT Hub's `/twins/{id}` with its conditions and ETags.
//!
//! What a write does is decided by the shard; here a request becomes a command, and a twin JSON.

use std::sync::Arc;

use axum::Json;
use axum::body::{Bytes as Body, HttpBody as _};
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use dunlin_model::audit::AuditRecord;
use dunlin_model::command::{Command, Consistency, Outcome, Query, Settled, View, WriteReceipt};
use dunlin_model::directory::Right;
use dunlin_model::id::DeviceId;
use dunlin_model::quota::Operation;
use dunlin_model::twin::document::{self, document};
use serde_json::Value;

use super::audited::audited;
use super::authorize;
use super::error::ApiError;
use super::etag::{IfMatch, if_match, tagged};
use super::named::Named;
use super::receipts::receipted;
use crate::auth::BASE64;
use crate::mqtt::twin::checked;
use crate::quota::Cost;
use crate::shared::Shared;

/// `GET /twins/{id}`, and of a module.
pub(crate) async fn get(
    State(shared): State<Arc<Shared>>,
    named: Named,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    authorize::service(&shared, &headers, Right::ServiceConnect, &named.path("twins"))?;
    let device = named.identity()?;
    shared.charge(Cost::message(Operation::TwinRead, 0)).await?;
    let response = read(&shared, &device).await?;
    charge_rest(&shared, &response);
    Ok(response)
}

/// `PATCH /twins/{id}`, and of a module: merges what is given.
pub(crate) async fn update(
    State(shared): State<Arc<Shared>>,
    named: Named,
    headers: HeaderMap,
    body: Result<Body, BytesRejection>,
) -> Result<Response, ApiError> {
    write(&shared, &named, &headers, body, false).await
}

/// `PUT /twins/{id}`, and of a module: what is given stands in place of what there is.
pub(crate) async fn replace(
    State(shared): State<Arc<Shared>>,
    named: Named,
    headers: HeaderMap,
    body: Result<Body, BytesRejection>,
) -> Result<Response, ApiError> {
    write(&shared, &named, &headers, body, true).await
}

/// Pays for what an answer has beyond the message that was paid for before.
pub(crate) fn charge_rest(shared: &Shared, response: &Response) {
    let bytes = response.body().size_hint().lower();
    shared.charge_rest(usize::try_from(bytes).unwrap_or(usize::MAX));
}

async fn write(
    shared: &Shared,
    named: &Named,
    headers: &HeaderMap,
    body: Result<Body, BytesRejection>,
    replaces: bool,
) -> Result<Response, ApiError> {
    let caller = authorize::service(shared, headers, Right::ServiceConnect, &named.path("twins"))?;
    let device = named.identity()?;
    let body = body.map_err(|_| ApiError::too_large())?;
    let input: Value = serde_json::from_slice(&body)
        .map_err(|error| ApiError::invalid(format!("the body is not a twin: {error}")))?;
    let wanted = Wanted::read(&input)?;
    let cost = Cost::message(Operation::TwinUpdate, body.len());
    shared.charge(cost).await?;
    let mut record = AuditRecord::done("twin.update", caller.0, device.as_str());
    if replaces {
        record.action = "twin.replace";
    }
    record.detail = wanted.names();
    let answer = match change(shared, &device, wanted, replaces, condition(headers)?).await {
        // It is changed, whatever comes of reading it: nobody may be told that nothing happened.
        Ok(receipt) => {
            let shown = read(shared, &device).await;
            let shown = shown.unwrap_or_else(|_| ApiError::unknown().into_response());
            Ok(receipted(shown, receipt))
        }
        Err(error) => Err(error),
    };
    audited(record, answer)
}

/// Changes a twin that has this ETag, if one is asked for, and says where.
pub(crate) async fn change(
    shared: &Shared,
    device: &DeviceId,
    wanted: Wanted,
    replaces: bool,
    etag: Option<u64>,
) -> Result<WriteReceipt, ApiError> {
    let command = Command::TwinChange {
        device: device.clone(),
        tags: wanted.tags,
        desired: wanted.desired,
        replaces,
        etag,
    };
    let Settled { outcome, receipt } = shared.client.submit_for_receipt(command).await?;
    match outcome {
        Outcome::TwinChanged { .. } => Ok(receipt),
        Outcome::Refused(refusal) => Err(ApiError::refused(refusal, device)),
        _ => Err(ApiError::internal("an outcome of another kind")),
    }
}

/// What a service wants of a twin, as it goes into a command.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wanted {
    pub(crate) tags: Option<String>,
    pub(crate) desired: Option<String>,
}

impl Wanted {
    /// Reads `tags` and `properties.desired`. Whole twins are sent back by SDKs: what is not a service's to write is
    /// left alone.
    pub(crate) fn read(input: &Value) -> Result<Self, ApiError> {
        let section = |name: &str, value: Option<&Value>| match value {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Object(content)) => {
                let mut content = content.clone();
                content.retain(|key, _| key != "$version" && key != "$metadata");
                let text = checked(&content);
                text.map(Some)
                    .map_err(|why| ApiError::invalid(format!("{name}: {why}")))
            }
            Some(_) => Err(ApiError::invalid(format!("{name} is no object"))),
        };
        if !input.is_object() {
            return Err(ApiError::invalid("the body is no object"));
        }
        let properties = input.get("properties");
        let desired = properties.and_then(|properties| properties.get("desired"));
        Ok(Self {
            tags: section("tags", input.get("tags"))?,
            desired: section("properties.desired", desired)?,
        })
    }

    /// The sections that are given, for the audit.
    fn names(&self) -> String {
        let sections = [("tags", &self.tags), ("desired", &self.desired)];
        let given = sections.iter().filter(|(_, section)| section.is_some());
        given.map(|(name, _)| *name).collect::<Vec<_>>().join(", ")
    }
}

async fn read(shared: &Shared, device: &DeviceId) -> Result<Response, ApiError> {
    let query = Query::Twin(device.clone());
    let View::Twin(view) = shared.client.query(query, Consistency::Linearizable).await? else {
        return Err(ApiError::internal("an answer of another kind"));
    };
    let view = view.ok_or_else(|| ApiError::missing(device))?;
    let twin = view.document().map_err(|error| {
        tracing::warn!(%device, %error, "read twin");
        ApiError::internal("the twin cannot be read")
    })?;
    let body = Json(document(&view.device, &twin, true));
    Ok(tagged(body.into_response(), &document::etag(twin.etag)))
}

/// The etag that the twin must have; `None` for any.
fn condition(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    Ok(match if_match(headers)? {
        IfMatch::Tag(tag) => Some(number(tag)),
        IfMatch::Missing | IfMatch::Any => None,
    })
}

/// The number that an ETag stands for; 0 for one that is none of ours and matches nothing, since they begin at 1.
pub(crate) fn number(tag: &str) -> u64 {
    let bytes = BASE64.decode(tag.trim_matches('"')).ok();
    bytes
        .and_then(|bytes| Some(u64::from_be_bytes(bytes.try_into().ok()?)))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderValue, header};
    use serde_json::json;

    use super::*;

    fn if_match(value: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::IF_MATCH, HeaderValue::from_static(value))])
    }

    #[test]
    fn etags_are_read_as_sdks_send_them() {
        assert_eq!(document::etag(1), "AAAAAAAAAAE=");
        for (value, asked) in [
            ("\"AAAAAAAAAAE=\"", Some(1)),
            ("AAAAAAAAAAE=", Some(1)),
            ("\"*\"", None),
            ("*", None),
            ("\"MQ==\"", Some(0)),
            ("nonsense", Some(0)),
        ] {
            assert_eq!(condition(&if_match(value)).unwrap(), asked, "{value}");
        }
        assert_eq!(condition(&HeaderMap::new()).unwrap(), None);
    }

    #[test]
    fn only_what_a_service_may_write_is_taken() {
        let whole = json!({
            "deviceId": "d", "etag": "x", "tags": {"a": 1},
            "properties": {"desired": {"b": null, "$version": 3, "$metadata": {}}, "reported": {"c": 1}},
        });
        let wanted = Wanted::read(&whole).unwrap();
        assert_eq!(
            (wanted.tags.as_deref(), wanted.desired.as_deref()),
            (Some(r#"{"a":1}"#), Some(r#"{"b":null}"#))
        );
        assert_eq!(wanted.names(), "tags, desired");
        assert_eq!(Wanted::read(&json!({})).unwrap().names(), "");
        for wrong in [
            json!([]),
            json!({"tags": 1}),
            json!({"tags": {"a.b": 1}}),
            json!({"properties": {"desired": []}}),
        ] {
            assert!(Wanted::read(&wrong).is_err(), "{wrong}");
        }
    }
}
