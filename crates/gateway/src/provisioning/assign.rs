//! A device is put at its hub, and the registration is kept.
//!
//! In this order: what goes with the device is read at its old hub, the device is made at the new one, its twin is
//! written, the old one is removed, and the registration says so. Whoever comes again finds what is done and does the
//! rest. A registration whose enrolment changed meanwhile is not kept; the device is looked at anew.

use dunlin_model::command::{Command, Outcome, Refusal};
use dunlin_model::directory::Directory;
use dunlin_model::id::DeviceId;
use dunlin_model::identity::Condition;
use dunlin_model::provisioning::{Registration, RegistrationSpec, Substatus};
use serde_json::Value;

use super::attest::Attested;
use super::choose::{Chosen, choose};
use super::error::{ProvisioningCode, ProvisioningError};
use super::hub::{Ensured, Hub, Wanted};
use super::{guid, id_scope};
use crate::shared::Shared;

/// What became of it.
#[derive(Debug)]
pub(crate) enum Assigned {
    /// The device is at its hub.
    Kept(Box<Registration>),
    /// The enrolment, or the registration, was changed by others meanwhile: look again.
    Changed,
}

/// Carries out what the enrolment says. `payload` is what the device sent with its request.
pub(crate) async fn assign(
    shared: &Shared,
    attested: &Attested,
    payload: Option<&Value>,
) -> Result<Assigned, ProvisioningError> {
    let directory = shared.client.directory();
    let chosen = choose(shared, &directory, attested, payload).await?;
    let device = device(attested)?;
    let substatus = carry_out(shared, &directory, attested, (&chosen, &device)).await?;
    let spec = RegistrationSpec {
        name: attested.registration.as_ref().map_or_else(
            || attested.name.clone(),
            |registration| registration.spec.name.clone(),
        ),
        group: attested.is_group.then(|| attested.enrollment.name.clone()),
        proof: attested.proof,
        storage_root_key: attested.storage_root_key.clone(),
        hub: chosen.host,
        device,
        substatus,
        payload: chosen.payload,
        operation: operation(&directory),
    };
    keep(shared, attested, spec).await
}

/// What the device is called at its hub.
fn device(attested: &Attested) -> Result<DeviceId, ProvisioningError> {
    if let Some(named) = &attested.enrollment.spec.device {
        return Ok(named.clone());
    }
    if let Some(registration) = attested.registration.as_ref().filter(|_| attested.is_group) {
        return Ok(registration.spec.device.clone());
    }
    DeviceId::parse(&attested.name).map_err(|error| ProvisioningError::invalid(error.to_string()))
}

/// Puts the device where it belongs.
async fn carry_out(
    shared: &Shared,
    directory: &Directory,
    attested: &Attested,
    (chosen, device): (&Chosen, &DeviceId),
) -> Result<Substatus, ProvisioningError> {
    let spec = &attested.enrollment.spec;
    let not_linked = || {
        let text = format!("hub {} is not linked", chosen.host);
        ProvisioningError::new(ProvisioningCode::NoHub, text)
    };
    let hub = Hub::find(shared, directory, &chosen.host).ok_or_else(not_linked)?;
    let initial = chosen.initial_twin.as_ref().unwrap_or(&spec.initial_twin);
    let wanted = Wanted {
        device,
        authentication: &attested.authentication,
        is_edge: spec.is_edge,
    };
    let Some(before) = attested
        .registration
        .as_ref()
        .map(|registration| &registration.spec)
    else {
        hub.ensure(shared, wanted).await?;
        hub.write_twin(shared, device, initial, false).await?;
        return Ok(Substatus::InitialAssignment);
    };
    let resets = spec.reprovision.updates_hub && !spec.reprovision.migrates_data;
    if before.hub.eq_ignore_ascii_case(&chosen.host) && before.device == *device {
        let ensured = hub.ensure(shared, wanted).await?;
        if resets {
            hub.write_twin(shared, device, initial, true).await?;
            return Ok(Substatus::DeviceDataReset);
        }
        if ensured == Ensured::Made {
            hub.write_twin(shared, device, initial, false).await?;
        }
        return Ok(Substatus::ReprovisionedToInitialAssignment);
    }
    // One that is no longer linked keeps what it has: nobody here may change it.
    let old = Hub::find(shared, directory, &before.hub);
    let carried = match &old {
        Some(old) if !resets => old.twin(shared, &before.device).await?,
        _ => None,
    };
    let ensured = hub.ensure(shared, wanted).await?;
    match &carried {
        Some(twin) => hub.write_twin(shared, device, twin, true).await?,
        // Whatever is there was carried over by an earlier attempt.
        None if !resets && ensured == Ensured::There => {}
        None => hub.write_twin(shared, device, initial, resets).await?,
    }
    if let Some(old) = old {
        old.remove(shared, &before.device).await?;
    }
    Ok(if resets {
        Substatus::DeviceDataReset
    } else {
        Substatus::DeviceDataMigrated
    })
}

/// Stores the registration, if everything still is what it was when that was decided.
async fn keep(
    shared: &Shared,
    attested: &Attested,
    spec: RegistrationSpec,
) -> Result<Assigned, ProvisioningError> {
    let version = attested
        .registration
        .as_ref()
        .map(|registration| registration.version);
    let command = Command::RegistrationPut {
        id: attested.id.clone(),
        spec: Box::new(spec.clone()),
        enrollment: (!attested.is_group).then_some(attested.enrollment.version),
        condition: version.map_or(Condition::Absent, Condition::Version),
    };
    match shared.client.submit(command).await? {
        Outcome::Kept {
            version,
            created_ms,
            updated_ms,
        } => Ok(Assigned::Kept(Box::new(Registration {
            spec,
            version,
            created_ms,
            updated_ms,
        }))),
        Outcome::Refused(
            Refusal::StaleEnrollment
            | Refusal::AlreadyExists
            | Refusal::VersionMismatch
            | Refusal::UnknownRegistration,
        ) => Ok(Assigned::Changed),
        Outcome::Refused(refusal) => Err(refusal.into()),
        _ => Err(ProvisioningError::internal()),
    }
}

/// A name for what the device asked, in DPS's form: opaque to clients.
fn operation(directory: &Directory) -> String {
    let drawn: u128 = rand::random();
    format!(
        "5.{}.{}",
        &id_scope(directory)[3..].to_ascii_lowercase(),
        guid(drawn)
    )
}
