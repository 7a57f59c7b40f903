//! Who calls, and whether they may: a policy's token, a device's token, or the admin's. And for how long, where an
//! answer goes on.

use std::time::Duration;

use axum::http::{HeaderMap, header};
use dunlin_model::audit::AuditRecord;
use dunlin_model::command::{Consistency, DeviceView};
use dunlin_model::directory::Right;
use dunlin_model::id::DeviceId;
use dunlin_model::telemetry::AuthMethod;

use super::error::ApiError;
use crate::auth::{
    self, AuthError, Credential, RestsOn, SasToken, Scope, Shown, Standing, identity_path, news,
};
use crate::limits::{TOKEN_GRACE, TOKEN_LIFE_S_MAX};
use crate::listen::Peer;
use crate::mqtt::admit::query_device;
use crate::shared::Shared;

/// Who a service call comes from, for the audit.
#[derive(Debug, Clone)]
pub(crate) struct Caller(pub(crate) String);

fn credential(headers: &HeaderMap) -> Option<&str> {
    headers.get(header::AUTHORIZATION)?.to_str().ok()
}

/// Learns of the policy whose token stands in `headers`, if this gateway has not heard of it yet.
pub(crate) async fn hear(shared: &Shared, headers: &HeaderMap) {
    if let Some(Ok(token)) = credential(headers).map(SasToken::parse) {
        news::hear(shared, &token).await;
    }
}

/// Lets a service through that holds `right`, for a resource of the hub.
pub(crate) fn service(
    shared: &Shared,
    headers: &HeaderMap,
    right: Right,
    path: &[&str],
) -> Result<Caller, ApiError> {
    any_of(shared, headers, &[right], path)
}

/// Lets a service through that may look at what is kept of devices: queries, configurations, jobs.
pub(crate) fn reader(shared: &Shared, headers: &HeaderMap, path: &[&str]) -> Result<Caller, ApiError> {
    any_of(
        shared,
        headers,
        &[Right::RegistryRead, Right::ServiceConnect],
        path,
    )
}

/// Lets a service through that holds one of `rights`.
fn any_of(shared: &Shared, headers: &HeaderMap, rights: &[Right], path: &[&str]) -> Result<Caller, ApiError> {
    let text = credential(headers).ok_or_else(|| refuse("", path, "no credential"))?;
    if let Some(token) = text.strip_prefix("Bearer ") {
        let is_admin = (shared.hooks.is_admin_token)(token.trim());
        return if is_admin {
            Ok(Caller("admin".into()))
        } else {
            Err(refuse("admin", path, AuthError::BadSignature))
        };
    }
    let token = SasToken::parse(text).map_err(|error| refuse("", path, error))?;
    let claimed = token.policy.as_deref().unwrap_or_default();
    let check = || {
        let scope = Scope {
            hosts: &shared.host_names,
            path,
        };
        let (directory, now_s) = (shared.client.directory(), shared.now_ms() / 1000);
        let mut refusal = AuthError::BadSignature;
        for right in rights {
            match auth::verify_policy(&token, &directory, *right, scope, now_s) {
                Ok(_) => return Ok(Caller(claimed.to_owned())),
                Err(error) => refusal = error,
            }
        }
        Err(refusal)
    };
    // What a node does not know that starts or is cut off is no reason to turn somebody away.
    if !shared.client.is_fresh() {
        return Err(ApiError::unavailable("cut off from the cluster"));
    }
    check().map_err(|error: AuthError| refuse(claimed, path, error))
}

/// Resolves when the credential of a service that was let through for `right` counts no more: its time is over, or its
/// policy is another one. Never for the admin's.
pub(crate) fn spent(
    shared: &Shared,
    headers: &HeaderMap,
    right: Right,
) -> impl Future<Output = ()> + Send + use<> {
    let token = credential(headers).and_then(|text| SasToken::parse(text).ok());
    let now_s = shared.now_ms() / 1000;
    let life = token.as_ref().map(|token| {
        let left_s = token.expiry_s.saturating_sub(now_s).min(TOKEN_LIFE_S_MAX);
        Duration::from_secs(left_s) + TOKEN_GRACE
    });
    let rests_on = match &token {
        Some(token) => RestsOn::of_policy(token, &shared.client.directory(), right),
        None => RestsOn::Itself,
    };
    let mut standing = Standing::new(shared, rests_on);
    async move {
        tokio::select! {
            () = standing.fallen() => {}
            () = tokio::time::sleep(life.unwrap_or_default()), if life.is_some() => {}
        }
    }
}

/// Who a device says it is, and what it shows for that.
#[derive(Clone, Copy)]
pub(crate) struct Claim<'a> {
    pub(crate) device: &'a DeviceId,
    pub(crate) headers: &'a HeaderMap,
    pub(crate) shown: Option<&'a Shown>,
}

impl<'a> Claim<'a> {
    /// What a request that came over a connection from `peer` claims.
    pub(crate) fn of(device: &'a DeviceId, headers: &'a HeaderMap, peer: &'a Peer) -> Self {
        Self {
            device,
            headers,
            shown: peer.1.as_ref(),
        }
    }
}

/// Lets a device through that speaks for itself.
pub(crate) async fn device(
    shared: &Shared,
    claim: Claim<'_>,
    consistency: Consistency,
) -> Result<(DeviceView, AuthMethod), ApiError> {
    let Claim {
        device,
        headers,
        shown,
    } = claim;
    let path = identity_path("devices", device.device_part(), device.module_part());
    let scope = Scope {
        hosts: &shared.host_names,
        path: &path,
    };
    let now_s = shared.now_ms() / 1000;
    let claimed = device.as_str();
    let credential = Credential::read(credential(headers), shown, scope, now_s)
        .map_err(|error| refuse(claimed, &path, error))?;
    if !shared.client.is_fresh() {
        return Err(ApiError::unavailable("cut off from the cluster"));
    }
    let view = query_device(&*shared.client, device, consistency).await?;
    let view = view.ok_or_else(|| refuse(claimed, &path, "no such device"))?;
    let method = credential
        .verify(&view.record, &shared.client.directory(), now_s)
        .map_err(|error| refuse(claimed, &path, error))?;
    Ok((view, method))
}

/// What the audit keeps of a name that nobody verified, in characters.
const CLAIMED_CHARS_MAX: usize = 128;

/// A name as somebody claimed it, no longer than an audit record may hold.
pub(crate) fn claimed(name: &str) -> String {
    name.chars().take(CLAIMED_CHARS_MAX).collect()
}

/// The answer to a credential that does not count, with its record. `who` is a claim.
fn refuse(who: &str, path: &[&str], why: impl ToString) -> ApiError {
    let what = claimed(&format!("/{}", path.join("/")));
    ApiError::unauthorized().audited(AuditRecord::refused(
        "http.request",
        claimed(who),
        what,
        why.to_string(),
    ))
}
