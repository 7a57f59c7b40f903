//! What a device is told that registers: the same over MQTT and HTTPS.

use std::sync::Arc;

use dunlin_model::provisioning::{Attestation, Enrollment, Registration};
use serde::Deserialize;
use serde_json::{Value, json};

use super::attest::Attested;
use super::error::{ProvisioningCode, ProvisioningError};
use super::{Answer, Asked, TpmShown, admit, guid, json as shapes, possession, register as carry_out};
use crate::limits::PROVISIONING_REQUEST_BYTES_MAX;
use crate::shared::Shared;
use dunlin_model::iso_time::iso_utc;

/// How the name of an operation begins that failed; its error's number follows.
const FAILED: &str = "4.failed-";

/// A status, as HTTP has it, and a body.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: u16,
    pub(crate) body: Value,
}

/// What a device sends.
#[derive(Debug, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Request {
    registration_id: Option<String>,
    #[serde(default)]
    payload: Option<Value>,
    #[serde(default)]
    tpm: Option<TpmShown>,
}

/// Registers a device that sends `body`.
pub(crate) async fn register(
    shared: &Arc<Shared>,
    asked: &Asked<'_>,
    body: &[u8],
) -> Result<Answered, ProvisioningError> {
    let request = read(body)?;
    let other = request
        .registration_id
        .filter(|id| !id.eq_ignore_ascii_case(asked.name));
    if other.is_some() {
        return Err(ProvisioningError::invalid(
            "the registration id in the body is another than that of the caller",
        ));
    }
    let asked = Asked {
        tpm: request.tpm,
        ..asked.clone()
    };
    let payload = request.payload.filter(|payload| !payload.is_null());
    let now_ms = shared.now_ms();
    let body = match carry_out(shared, &asked, payload.as_ref()).await? {
        Answer::Assigned(attested, registration) => assigned(&attested.enrollment, &registration),
        Answer::Disabled(attested) => ended(&attested, "disabled", now_ms, None),
        Answer::Failed(attested, error) => ended(&attested, "failed", now_ms, Some(&error)),
    };
    Ok(Answered { status: 200, body })
}

/// Reads the body of a request.
pub(crate) fn read(body: &[u8]) -> Result<Request, ProvisioningError> {
    if body.len() > PROVISIONING_REQUEST_BYTES_MAX {
        return Err(ProvisioningError::new(
            ProvisioningCode::TooLarge,
            format!("a request has more than {PROVISIONING_REQUEST_BYTES_MAX} bytes"),
        ));
    }
    // Some SDKs send nothing, or a space, where they have nothing to say.
    if body.trim_ascii().is_empty() {
        return Ok(Request::default());
    }
    serde_json::from_slice(body)
        .map_err(|error| ProvisioningError::invalid(format!("the body is no registration: {error}")))
}

/// A registration that came to nothing: nothing is kept of it, and what was there before stays.
fn ended(attested: &Attested, status: &str, now_ms: u64, error: Option<&ProvisioningError>) -> Value {
    let mut state = json!({
        "registrationId": attested.name,
        "createdDateTimeUtc": iso_utc(now_ms),
        "lastUpdatedDateTimeUtc": iso_utc(now_ms),
        "status": status,
    });
    if let Some(error) = error {
        state["errorCode"] = error.code.number().into();
        state["errorMessage"] = error.message.clone().into();
    }
    // Nothing is kept of it: what is asked for later stands in its name.
    let drawn = guid(rand::random());
    let operation = match error {
        Some(error) => format!("{FAILED}{}.{drawn}", error.code.number()),
        None => format!("4.disabled.{drawn}"),
    };
    json!({ "operationId": operation, "status": status, "registrationState": state })
}

/// What became of an operation. Registrations are answered at once, so one that is not that of the device's registration
/// is none.
pub(crate) async fn operation(
    shared: &Shared,
    asked: &Asked<'_>,
    operation: &str,
) -> Result<Answered, ProvisioningError> {
    let attested = admit(shared, asked).await?;
    let now_ms = shared.now_ms();
    if !attested.enrollment.spec.is_enabled {
        let body = ended(&attested, "disabled", now_ms, None);
        return Ok(Answered { status: 200, body });
    }
    let failed = operation
        .strip_prefix(FAILED)
        .and_then(|rest| rest.split('.').next()?.parse().ok());
    if let Some(code) = failed.and_then(ProvisioningCode::of_number) {
        let error = ProvisioningError::new(code, "the enrollment leads to no hub: its operator knows why");
        let body = ended(&attested, "failed", now_ms, Some(&error));
        return Ok(Answered { status: 200, body });
    }
    let registration = attested
        .registration
        .filter(|found| found.spec.operation == operation);
    let Some(registration) = registration else {
        return Err(ProvisioningError::new(
            ProvisioningCode::NotFound,
            "the operation does not exist: register again",
        ));
    };
    let body = assigned(&attested.enrollment, &registration);
    Ok(Answered { status: 200, body })
}

/// A device that is at its hub; a TPM is given the key that it has there.
fn assigned(enrollment: &Enrollment, registration: &Registration) -> Value {
    let mut state = shapes::registration_state(registration);
    if let (Attestation::Tpm(tpm), Some(storage)) =
        (&enrollment.spec.attestation, &registration.spec.storage_root_key)
    {
        state["tpm"] = json!({ "authenticationKey": possession::hub_key_for(tpm, storage) });
    }
    json!({
        "operationId": registration.spec.operation,
        "status": "assigned",
        "registrationState": state,
    })
}
