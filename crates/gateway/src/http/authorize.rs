//! Who calls, and whether they may: a policy's token, a device's token, or the admin's.

use axum::http::{HeaderMap, header};
use dunlin_model::command::{Consistency, DeviceView};
use dunlin_model::directory::Right;
use dunlin_model::id::DeviceId;
use dunlin_model::telemetry::AuthMethod;

use super::error::ApiError;
use crate::auth::{self, AuthError, SasToken, Scope};
use crate::mqtt::admit::query_device;
use crate::shared::Shared;

/// Who a service call comes from, for the audit.
#[derive(Debug, Clone)]
pub(crate) struct Caller(pub(crate) String);

fn credential(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()
}

/// Lets a service through that holds `right`, for a resource of the hub.
pub(crate) fn service(
    shared: &Shared,
    headers: &HeaderMap,
    right: Right,
    path: &[&str],
) -> Result<Caller, ApiError> {
    let text = credential(headers).ok_or_else(ApiError::unauthorized)?;
    if let Some(token) = text.strip_prefix("Bearer ") {
        let is_admin = (shared.hooks.is_admin_token)(token.trim());
        return if is_admin {
            Ok(Caller("admin".into()))
        } else {
            Err(refuse(path, AuthError::BadSignature))
        };
    }
    let check = || {
        let token = SasToken::parse(text)?;
        let scope = Scope {
            hosts: &shared.host_names,
            path,
        };
        auth::verify_policy(
            &token,
            &shared.client.directory(),
            right,
            scope,
            shared.now_ms() / 1000,
        )?;
        Ok(Caller(token.policy.as_deref().unwrap_or_default().to_owned()))
    };
    let caller = check().map_err(|error| refuse(path, error))?;
    if shared.client.is_fresh() {
        Ok(caller)
    } else {
        Err(ApiError::unavailable("cut off from the cluster"))
    }
}

/// Lets a device through that speaks for itself.
pub(crate) async fn device(
    shared: &Shared,
    headers: &HeaderMap,
    device: &DeviceId,
    consistency: Consistency,
) -> Result<(DeviceView, AuthMethod), ApiError> {
    let path = ["devices", device.as_str()];
    let scope = Scope {
        hosts: &shared.host_names,
        path: &path,
    };
    let now_s = shared.now_ms() / 1000;
    let text = credential(headers).ok_or_else(ApiError::unauthorized)?;
    let token = SasToken::parse(text).map_err(|error| refuse(&path, error))?;
    auth::check_claims(&token, scope, now_s).map_err(|error| refuse(&path, error))?;
    if !shared.client.is_fresh() {
        return Err(ApiError::unavailable("cut off from the cluster"));
    }
    let view = query_device(&*shared.client, device, consistency).await?;
    let view = view.ok_or_else(ApiError::unauthorized)?;
    let method = auth::verify_device(&token, &view.record, &shared.client.directory(), scope, now_s)
        .map_err(|error| refuse(&path, error))?;
    Ok((view, method))
}

fn refuse(path: &[&str], error: AuthError) -> ApiError {
    tracing::info!(target: "audit", action = "http.refused", path = ?path, why = %error);
    ApiError::unauthorized()
}
