//! A hub where a device is put: this one, through the shards, or a linked one, through its service REST.
//!
//! Each step says what shall be, so doing it twice does no harm. Which hub it is, is decided in [`super::assign`].

use axum::http::StatusCode;
use bytes::Bytes;
use dunlin_model::command::{Command, Consistency, Outcome, Query, Refusal, View};
use dunlin_model::directory::Directory;
use dunlin_model::id::DeviceId;
use dunlin_model::identity::{Authentication, Condition, DeviceRecord, DeviceSpec};
use dunlin_model::port::{OutboundAnswer, OutboundCall};
use dunlin_model::provisioning::InitialTwin;
use dunlin_model::provisioning::book::LinkedHub;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value, json};

use super::error::{ProvisioningCode, ProvisioningError};
use crate::auth::{self, ConnectionString};
use crate::http::identity::AuthenticationJson;
use crate::limits::{PROVISIONING_ANSWER_BYTES_MAX, PROVISIONING_CALL_WAIT};
use crate::mqtt::admit::query_device;
use crate::shared::Shared;

/// Times that a device is looked at again which others change meanwhile.
const ATTEMPTS_MAX: u32 = 3;
/// Seconds that a token for a linked hub is good for.
const TOKEN_LIFE_S: u64 = 300;
/// What linked hubs are asked by.
const API_VERSION: &str = "2021-04-12";

/// A hub.
#[derive(Debug, Clone)]
pub(crate) enum Hub {
    /// This one.
    Own,
    /// Another one.
    Linked(LinkedHub),
}

/// What a device is to be at its hub.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) device: &'a DeviceId,
    pub(crate) authentication: &'a Authentication,
    pub(crate) is_edge: bool,
    /// Whether one that is there with other credentials is given these. Otherwise that is somebody else's.
    pub(crate) may_change: bool,
}

/// Whether a device was there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ensured {
    Made,
    /// With other credentials.
    Changed,
    There,
}

impl Hub {
    /// The hub of this name, if devices may be put there.
    pub(crate) fn find(shared: &Shared, directory: &Directory, host: &str) -> Option<Self> {
        if auth::is_host(&shared.host_names, host) {
            return Some(Self::Own);
        }
        let linked = directory.book.hubs.get(&host.to_ascii_lowercase())?;
        Some(Self::Linked(linked.clone()))
    }

    /// Whether it is the same hub, whatever it is called.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let host = |hub: &LinkedHub| {
            let connection = ConnectionString::parse(&hub.connection_string).ok()?;
            Some(connection.host_name.to_ascii_lowercase())
        };
        match (self, other) {
            (Self::Own, Self::Own) => true,
            (Self::Linked(one), Self::Linked(other)) => host(one) == host(other),
            _ => false,
        }
    }

    /// Has the device be there, with these credentials. Nothing else of one that is there is touched.
    pub(crate) async fn ensure(
        &self,
        shared: &Shared,
        wanted: Wanted<'_>,
    ) -> Result<Ensured, ProvisioningError> {
        for _ in 0..ATTEMPTS_MAX {
            let ensured = match self {
                Self::Own => ensure_own(shared, wanted).await?,
                Self::Linked(hub) => ensure_linked(shared, hub, wanted).await?,
            };
            if let Some(ensured) = ensured {
                return Ok(ensured);
            }
        }
        Err(ProvisioningError::new(
            ProvisioningCode::Throttled,
            "others change this device",
        ))
    }

    /// Tags and desired properties of a device, if it is there.
    pub(crate) async fn twin(
        &self,
        shared: &Shared,
        device: &DeviceId,
    ) -> Result<Option<InitialTwin>, ProvisioningError> {
        match self {
            Self::Own => {
                let query = Query::Twin(device.clone());
                let View::Twin(view) = shared.client.query(query, Consistency::Linearizable).await? else {
                    return Err(ProvisioningError::internal());
                };
                let Some(view) = view else { return Ok(None) };
                let twin = view.document().map_err(|error| {
                    tracing::warn!(%device, %error, "read twin");
                    ProvisioningError::new(ProvisioningCode::ServerError, "the twin cannot be read")
                })?;
                Ok(Some(InitialTwin {
                    tags: Some(Value::Object(twin.tags).to_string()),
                    desired: Some(Value::Object(twin.desired.content).to_string()),
                }))
            }
            Self::Linked(hub) => {
                let answer = call(shared, hub, "GET", &twin_path(device), None, None).await?;
                if answer.status == 404 {
                    return Ok(None);
                }
                let twin: Value = read(answer)?;
                let section = |value: &Value| {
                    let mut content: Map<String, Value> = value.as_object().cloned().unwrap_or_default();
                    content.retain(|key, _| key != "$version" && key != "$metadata");
                    Some(Value::Object(content).to_string())
                };
                Ok(Some(InitialTwin {
                    tags: section(&twin["tags"]),
                    desired: section(&twin["properties"]["desired"]),
                }))
            }
        }
    }

    /// Writes a twin: into what there is, or in place of it.
    pub(crate) async fn write_twin(
        &self,
        shared: &Shared,
        device: &DeviceId,
        twin: &InitialTwin,
        replaces: bool,
    ) -> Result<(), ProvisioningError> {
        let nothing = || replaces.then(|| "{}".to_owned());
        let (tags, desired) = (
            twin.tags.clone().or_else(nothing),
            twin.desired.clone().or_else(nothing),
        );
        if tags.is_none() && desired.is_none() {
            return Ok(());
        }
        match self {
            Self::Own => {
                let command = Command::TwinChange {
                    device: device.clone(),
                    tags,
                    desired,
                    replaces,
                    etag: None,
                };
                match shared.client.submit(command).await? {
                    Outcome::TwinChanged { .. } => Ok(()),
                    Outcome::Refused(refusal) => Err(refused(refusal)),
                    _ => Err(ProvisioningError::internal()),
                }
            }
            Self::Linked(hub) => {
                let section = |text: &Option<String>| {
                    let text = text.as_deref()?;
                    serde_json::from_str::<Value>(text).ok()
                };
                let mut body = json!({});
                if let Some(tags) = section(&tags) {
                    body["tags"] = tags;
                }
                if let Some(desired) = section(&desired) {
                    body["properties"] = json!({ "desired": desired });
                }
                let method = if replaces { "PUT" } else { "PATCH" };
                let answer = call(
                    shared,
                    hub,
                    method,
                    &twin_path(device),
                    Some(&body),
                    Some("\"*\""),
                )
                .await?;
                read::<Value>(answer).map(|_| ())
            }
        }
    }

    /// Has the device not be there.
    pub(crate) async fn remove(&self, shared: &Shared, device: &DeviceId) -> Result<(), ProvisioningError> {
        match self {
            Self::Own => {
                let command = Command::DeviceDelete {
                    device: device.clone(),
                    condition: Condition::Present,
                };
                match shared.client.submit(command).await? {
                    Outcome::Done | Outcome::Refused(Refusal::UnknownDevice) => Ok(()),
                    Outcome::Refused(refusal) => Err(refused(refusal)),
                    _ => Err(ProvisioningError::internal()),
                }
            }
            Self::Linked(hub) => {
                let path = device_path(device);
                let answer = call(shared, hub, "DELETE", &path, None, Some("\"*\"")).await?;
                match answer.status {
                    204 | 404 => Ok(()),
                    _ => read::<Value>(answer).map(|_| ()),
                }
            }
        }
    }
}

/// What a hub's own refusal means to whoever provisions.
fn refused(refusal: Refusal) -> ProvisioningError {
    ProvisioningError::new(ProvisioningCode::HubRefused, refusal.to_string())
}

/// Somebody else has the name.
fn taken() -> ProvisioningError {
    ProvisioningError::new(
        ProvisioningCode::HubRefused,
        "the hub has a device of this name that did not register under this group",
    )
}

/// `None` if others were quicker.
async fn ensure_own(shared: &Shared, wanted: Wanted<'_>) -> Result<Option<Ensured>, ProvisioningError> {
    let view = query_device(&*shared.client, wanted.device, Consistency::Linearizable).await?;
    let (spec, condition, ensured) = match view.map(|view| view.record) {
        None => {
            let spec = DeviceSpec {
                is_edge: wanted.is_edge,
                ..DeviceSpec::enabled(wanted.authentication.clone())
            };
            (spec, Condition::Absent, Ensured::Made)
        }
        Some(DeviceRecord { spec, .. }) if spec.authentication == *wanted.authentication => {
            return Ok(Some(Ensured::There));
        }
        Some(_) if !wanted.may_change => return Err(taken()),
        Some(DeviceRecord { spec, version, .. }) => {
            let spec = DeviceSpec {
                authentication: wanted.authentication.clone(),
                ..spec
            };
            (spec, Condition::Version(version), Ensured::Changed)
        }
    };
    let command = Command::DevicePut {
        device: wanted.device.clone(),
        spec,
        condition,
    };
    match shared.client.submit(command).await? {
        Outcome::Stored(_) => Ok(Some(ensured)),
        Outcome::Refused(Refusal::AlreadyExists | Refusal::VersionMismatch | Refusal::UnknownDevice) => {
            Ok(None)
        }
        Outcome::Refused(refusal) => Err(refused(refusal)),
        _ => Err(ProvisioningError::internal()),
    }
}

async fn ensure_linked(
    shared: &Shared,
    hub: &LinkedHub,
    wanted: Wanted<'_>,
) -> Result<Option<Ensured>, ProvisioningError> {
    let path = device_path(wanted.device);
    let authentication = AuthenticationJson::of(wanted.authentication);
    let found = call(shared, hub, "GET", &path, None, None).await?;
    let (body, condition, ensured) = if found.status == 404 {
        let body = json!({
            "deviceId": wanted.device.as_str(),
            "status": "enabled",
            "authentication": authentication,
            "capabilities": { "iotEdge": wanted.is_edge },
        });
        (body, None, Ensured::Made)
    } else {
        let mut body: Value = read(found)?;
        let Some(etag) = body["etag"].as_str().map(|etag| format!("\"{etag}\"")) else {
            return Err(unreadable("the device has no etag"));
        };
        let wants = json!(authentication);
        let is_so = ["type", "symmetricKey", "x509Thumbprint"]
            .iter()
            .all(|part| body["authentication"][part] == wants[part]);
        if is_so {
            return Ok(Some(Ensured::There));
        }
        if !wanted.may_change {
            return Err(taken());
        }
        body["authentication"] = wants;
        (body, Some(etag), Ensured::Changed)
    };
    let answer = call(shared, hub, "PUT", &path, Some(&body), condition.as_deref()).await?;
    match answer.status {
        409 | 412 => Ok(None),
        _ => read::<Value>(answer).map(|_| Some(ensured)),
    }
}

fn device_path(device: &DeviceId) -> String {
    format!(
        "/devices/{}",
        utf8_percent_encode(device.as_str(), NON_ALPHANUMERIC)
    )
}

fn twin_path(device: &DeviceId) -> String {
    format!(
        "/twins/{}",
        utf8_percent_encode(device.as_str(), NON_ALPHANUMERIC)
    )
}

fn unreadable(what: &str) -> ProvisioningError {
    ProvisioningError::new(ProvisioningCode::ServerError, format!("the linked hub: {what}"))
}

/// Asks a linked hub.
async fn call(
    shared: &Shared,
    hub: &LinkedHub,
    method: &'static str,
    path: &str,
    body: Option<&Value>,
    if_match: Option<&str>,
) -> Result<OutboundAnswer, ProvisioningError> {
    let connection = ConnectionString::parse(&hub.connection_string)
        .map_err(|_| unreadable("its connection string cannot be read"))?;
    let policy = connection.shared_access_key_name.as_deref();
    let expiry_s = shared.now_ms() / 1000 + TOKEN_LIFE_S;
    let token = auth::sign(
        &connection.host_name,
        &connection.shared_access_key,
        expiry_s,
        policy,
    )
    .map_err(|_| unreadable("its key cannot be read"))?;
    let mut headers = vec![("authorization", token)];
    if let Some(etag) = if_match {
        headers.push(("if-match", etag.to_owned()));
    }
    if body.is_some() {
        headers.push(("content-type", "application/json".to_owned()));
    }
    let call = OutboundCall {
        method,
        url: format!("https://{}{path}?api-version={API_VERSION}", connection.host_name),
        headers,
        body: body.map_or_else(Bytes::new, |body| body.to_string().into()),
        authority: hub.authority.clone(),
        wait_ms: PROVISIONING_CALL_WAIT.as_millis() as u64,
        answer_bytes_max: PROVISIONING_ANSWER_BYTES_MAX,
    };
    let answer = shared.hooks.outbound.call(call).await;
    answer.map_err(|why| {
        tracing::debug!(host = %connection.host_name, why, "linked hub does not answer");
        ProvisioningError::unavailable("a linked hub does not answer")
    })
}

/// An answer that says that all is well.
pub(crate) fn read<T: serde::de::DeserializeOwned>(answer: OutboundAnswer) -> Result<T, ProvisioningError> {
    let status = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    if status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error() {
        return Err(ProvisioningError::unavailable(format!(
            "a linked hub answers {status}"
        )));
    }
    if !status.is_success() {
        return Err(ProvisioningError::new(
            ProvisioningCode::HubRefused,
            format!("a linked hub answers {status}"),
        ));
    }
    serde_json::from_slice(&answer.body).map_err(|_| unreadable("its answer is no JSON"))
}
