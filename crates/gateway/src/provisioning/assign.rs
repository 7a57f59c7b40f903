//! A device is put at its hub, and the registration is kept.
//!
//! In this order: what goes with the device is read at its old hub, the device is made at the new one, its twin is
//! written, the registration is kept, and only then the device is removed where it was: the registration remembers that
//! this is to be done. Whoever comes again finds what is done and does the rest. A registration whose enrolment changed
//! meanwhile is not kept; the device is looked at anew.

use std::sync::Arc;

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
    Kept {
        registration: Box<Registration>,
        /// Whether anything is other than it was.
        is_news: bool,
    },
    /// The enrolment, or the registration, was changed by others meanwhile: look again.
    Changed,
}

/// What was done at the hubs.
struct Placed {
    substatus: Substatus,
    is_news: bool,
    /// Where the device is still to be removed.
    leaving: Option<(String, DeviceId)>,
}

/// Carries out what the enrolment says. `payload` is what the device sent with its request.
pub(crate) async fn assign(
    shared: &Shared,
    attested: &Attested,
    payload: Option<&Value>,
) -> Result<Assigned, ProvisioningError> {
    // Nobody is sent away for what this gateway has not heard of yet.
    let directory = shared.client.directory_now().await?;
    if !is_current(&directory, attested) {
        return Ok(Assigned::Changed);
    }
    let chosen = choose(shared, &directory, attested, payload).await?;
    let device = device(attested)?;
    let placed = place(shared, &directory, attested, (&chosen, &device)).await?;
    // Of an enrolment of its own the shard says whether it is still what it was.
    let now = match attested.is_group {
        true => shared.client.directory_now().await?,
        false => Arc::clone(&directory),
    };
    if !is_current(&now, attested) {
        return Ok(Assigned::Changed);
    }
    let before = attested
        .registration
        .as_ref()
        .map(|registration| &registration.spec);
    let spec = RegistrationSpec {
        name: before.map_or_else(|| attested.name.clone(), |before| before.name.clone()),
        group: attested.is_group.then(|| attested.enrollment.name.clone()),
        proof: attested.proof,
        storage_root_key: attested.storage_root_key.clone(),
        hub: chosen.host,
        device,
        leaving: placed.leaving.clone(),
        substatus: placed.substatus,
        payload: chosen.payload,
        operation: operation(&directory),
    };
    let version = attested
        .registration
        .as_ref()
        .map(|registration| registration.version);
    let condition = version.map_or(Condition::Absent, Condition::Version);
    let Some(kept) = keep(shared, attested, spec, condition).await? else {
        return Ok(Assigned::Changed);
    };
    Ok(Assigned::Kept {
        registration: Box::new(leave(shared, &now, attested, kept).await),
        is_news: placed.is_news,
    })
}

/// Whether the group that let the device in is what it was. Of an enrolment of its own the shard says so.
pub(super) fn is_current(directory: &Directory, attested: &Attested) -> bool {
    let group = directory.book.group(&attested.enrollment.name);
    let version = group.map(|group| group.version);
    !attested.is_group || version == Some(attested.enrollment.version)
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

/// Whether the device may be given credentials in place of others. A group does that for those alone that are its own:
/// otherwise each of its members could take the place of any device.
fn may_change(directory: &Directory, attested: &Attested) -> bool {
    let under = attested
        .registration
        .as_ref()
        .and_then(|registration| registration.spec.group.as_ref());
    match under {
        _ if !attested.is_group => true,
        Some(group) => {
            group.eq_ignore_ascii_case(&attested.enrollment.name) || directory.book.group(group).is_none()
        }
        None => false,
    }
}

/// Puts the device where it belongs, and says where it is still to be removed.
async fn place(
    shared: &Shared,
    directory: &Directory,
    attested: &Attested,
    (chosen, device): (&Chosen, &DeviceId),
) -> Result<Placed, ProvisioningError> {
    let spec = &attested.enrollment.spec;
    let before = attested
        .registration
        .as_ref()
        .map(|registration| &registration.spec);
    let Some(hub) = Hub::find(shared, directory, &chosen.host) else {
        // Who is to stay stays, also where nobody is sent any more.
        if before.is_some() && !spec.reprovision.updates_hub {
            return Ok(Placed {
                substatus: Substatus::ReprovisionedToInitialAssignment,
                is_news: false,
                leaving: None,
            });
        }
        let text = format!("hub {} is not linked", chosen.host);
        return Err(ProvisioningError::new(ProvisioningCode::NoHub, text));
    };
    let initial = chosen.initial_twin.as_ref().unwrap_or(&spec.initial_twin);
    let wanted = Wanted {
        device,
        authentication: &attested.authentication,
        is_edge: spec.is_edge,
        may_change: may_change(directory, attested),
    };
    let Some(before) = before else {
        hub.ensure(shared, wanted).await?;
        hub.write_twin(shared, device, initial, false).await?;
        return Ok(Placed {
            substatus: Substatus::InitialAssignment,
            is_news: true,
            leaving: None,
        });
    };
    let resets = spec.reprovision.updates_hub && !spec.reprovision.migrates_data;
    // One that is no longer linked keeps what it has: nobody here may change it.
    let old = Hub::find(shared, directory, &before.hub);
    let is_there = old.as_ref().is_some_and(|old| old.is_same(&hub)) && before.device == *device;
    if is_there {
        let ensured = hub.ensure(shared, wanted).await?;
        if resets {
            hub.write_twin(shared, device, initial, true).await?;
        } else if ensured == Ensured::Made {
            hub.write_twin(shared, device, initial, false).await?;
        }
        let leaving = before.leaving.clone();
        return Ok(Placed {
            substatus: if resets {
                Substatus::DeviceDataReset
            } else {
                Substatus::ReprovisionedToInitialAssignment
            },
            is_news: resets || ensured != Ensured::There,
            leaving,
        });
    }
    let carried = match &old {
        Some(old) if !resets => old.twin(shared, &before.device).await?,
        _ => None,
    };
    let ensured = hub.ensure(shared, wanted).await?;
    match &carried {
        Some(twin) => hub.write_twin(shared, device, twin, true).await?,
        // Whatever is there was carried over by an earlier attempt.
        None if !resets && ensured != Ensured::Made => {}
        None => hub.write_twin(shared, device, initial, resets).await?,
    }
    Ok(Placed {
        substatus: if resets {
            Substatus::DeviceDataReset
        } else {
            Substatus::DeviceDataMigrated
        },
        is_news: true,
        leaving: old.map(|_| (before.hub.clone(), before.device.clone())),
    })
}

/// Stores the registration, if everything still is what it was when that was decided.
async fn keep(
    shared: &Shared,
    attested: &Attested,
    spec: RegistrationSpec,
    condition: Condition,
) -> Result<Option<Registration>, ProvisioningError> {
    let command = Command::RegistrationPut {
        id: attested.id.clone(),
        spec: Box::new(spec.clone()),
        enrollment: (!attested.is_group).then_some(attested.enrollment.version),
        condition,
    };
    match shared.client.submit(command).await? {
        Outcome::Kept {
            version,
            created_ms,
            updated_ms,
        } => Ok(Some(Registration {
            spec,
            version,
            created_ms,
            updated_ms,
        })),
        Outcome::Refused(
            Refusal::StaleEnrollment
            | Refusal::AlreadyExists
            | Refusal::VersionMismatch
            | Refusal::UnknownRegistration,
        ) => Ok(None),
        Outcome::Refused(refusal) => Err(refusal.into()),
        _ => Err(ProvisioningError::internal()),
    }
}

/// Removes the device where it was, if it is to be. What does not work now is done when the device comes again.
async fn leave(
    shared: &Shared,
    directory: &Arc<Directory>,
    attested: &Attested,
    kept: Registration,
) -> Registration {
    let Some((host, device)) = &kept.spec.leaving else {
        return kept;
    };
    let old = Hub::find(shared, directory, host);
    let new = Hub::find(shared, directory, &kept.spec.hub);
    let is_same = old
        .as_ref()
        .zip(new.as_ref())
        .is_some_and(|(old, new)| old.is_same(new));
    // It has come back meanwhile.
    let is_where_it_is = is_same && *device == kept.spec.device;
    if let Some(old) = old.filter(|_| !is_where_it_is)
        && let Err(error) = old.remove(shared, device).await
    {
        tracing::warn!(%device, host, error = error.message, "a device that moved is still where it was");
        return kept;
    }
    let spec = RegistrationSpec {
        leaving: None,
        ..kept.spec.clone()
    };
    // Whoever was quicker has kept something newer.
    let cleared = keep(shared, attested, spec, Condition::Version(kept.version)).await;
    cleared.ok().flatten().unwrap_or(kept)
}

/// A name for what the device asked, in DPS's form: opaque to clients.
fn operation(directory: &Directory) -> String {
    let drawn: u128 = rand::random();
    let scope = id_scope(directory)[3..].to_ascii_lowercase();
    format!("5.{scope}.{}", guid(drawn))
}
