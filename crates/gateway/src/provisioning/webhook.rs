//! Custom allocation: a webhook says which of the linked hubs a device gets, what its twin begins with, and what it is
//! told. Asked once per attempt of a device; an answer is only ever a proposal, which the caller holds against the
//! linked hubs.

use dunlin_model::port::OutboundCall;
use dunlin_model::provisioning::allocation::Candidate;
use dunlin_model::provisioning::{PAYLOAD_BYTES_MAX, ProofKind};
use serde::Deserialize;
use serde_json::{Value, json};

use super::attest::Attested;
use super::choose::Chosen;
use super::error::{ProvisioningCode, ProvisioningError};
use super::json::{TwinInput, enrollment};
use crate::limits::{PROVISIONING_ANSWER_BYTES_MAX, PROVISIONING_CALL_WAIT};
use crate::shared::Shared;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Reply {
    iot_hub_host_name: String,
    initial_twin: Option<TwinInput>,
    payload: Option<Value>,
}

/// Asks the enrolment's webhook.
pub(super) async fn ask(
    shared: &Shared,
    attested: &Attested,
    payload: Option<&Value>,
    candidates: &[Candidate],
) -> Result<Chosen, ProvisioningError> {
    let refused = |why: String| ProvisioningError::new(ProvisioningCode::HubRefused, why);
    let Some(webhook) = &attested.enrollment.spec.webhook else {
        return Err(refused(
            "the allocation policy is custom, and the enrollment names no webhook".to_owned(),
        ));
    };
    let call = OutboundCall {
        method: "POST",
        url: webhook.url.clone(),
        headers: vec![("content-type", "application/json".to_owned())],
        body: request(attested, payload, candidates).to_string().into(),
        authority: None,
        wait_ms: PROVISIONING_CALL_WAIT.as_millis() as u64,
        answer_bytes_max: PROVISIONING_ANSWER_BYTES_MAX,
    };
    let answer = shared.hooks.outbound.call(call).await.map_err(|why| {
        tracing::debug!(registration = %attested.id, why, "webhook does not answer");
        ProvisioningError::unavailable("the webhook does not answer")
    })?;
    match answer.status {
        200..300 => {}
        429 | 500.. => {
            return Err(ProvisioningError::unavailable(format!(
                "the webhook answers {}",
                answer.status
            )));
        }
        status => return Err(refused(format!("the webhook answers {status}"))),
    }
    read_reply(&answer.body)
}

/// Reads what a webhook says.
pub(crate) fn read_reply(body: &[u8]) -> Result<Chosen, ProvisioningError> {
    let refused = |why: String| ProvisioningError::new(ProvisioningCode::HubRefused, why);
    let reply: Reply = serde_json::from_slice(body)
        .map_err(|error| refused(format!("the webhook's answer cannot be read: {error}")))?;
    let initial_twin = reply.initial_twin.map(|twin| twin.read()).transpose();
    let payload = reply.payload.filter(|payload| !payload.is_null());
    let payload = payload.map(|payload| payload.to_string());
    if payload
        .as_ref()
        .is_some_and(|text| text.len() > PAYLOAD_BYTES_MAX)
    {
        return Err(refused(format!(
            "the webhook's payload has more than {PAYLOAD_BYTES_MAX} bytes"
        )));
    }
    Ok(Chosen {
        host: reply.iot_hub_host_name,
        initial_twin: initial_twin.map_err(|error| refused(error.message))?,
        payload,
    })
}

/// What the webhook is told: everything but secrets.
fn request(attested: &Attested, payload: Option<&Value>, candidates: &[Candidate]) -> Value {
    let current = attested
        .registration
        .as_ref()
        .map(|registration| &registration.spec);
    let given = |kind: ProofKind| (attested.proof == kind).then(|| json!({}));
    let mut body = json!({
        "deviceRuntimeContext": {
            "registrationId": attested.name,
            "currentIotHubHostName": current.map(|current| &current.hub),
            "currentDeviceId": current.map(|current| current.device.as_str()),
            "x509": given(ProofKind::X509),
            "symmetricKey": given(ProofKind::SymmetricKey),
            "tpm": given(ProofKind::Tpm),
            "payload": payload,
        },
        "linkedHubs": candidates.iter().map(|hub| &hub.host).collect::<Vec<_>>(),
    });
    let name = if attested.is_group {
        "enrollmentGroup"
    } else {
        "individualEnrollment"
    };
    body[name] = enrollment(&attested.enrollment, attested.is_group, None);
    body
}
