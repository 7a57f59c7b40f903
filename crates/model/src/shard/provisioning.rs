//! What commands about enrolments and registrations do. Who may register, and where it goes, is decided before they
//! come here; a registration counts only while the enrolment under which it was decided is what it was.

use super::keys;
use super::registry::next_fence;
use super::state::Entry;
use crate::command::{Outcome, Refusal};
use crate::identity::Condition;
use crate::port::StoreError;
use crate::provisioning::book::{self, BookRefusal};
use crate::provisioning::{Enrollment, EnrollmentSpec, Registration, RegistrationId, RegistrationSpec};

fn enrollment(entry: &Entry<'_>, id: &RegistrationId) -> Result<Option<Enrollment>, StoreError> {
    entry.overlay.get_json(&keys::enrollment(id.as_str().as_bytes()))
}

fn registration(entry: &Entry<'_>, id: &RegistrationId) -> Result<Option<Registration>, StoreError> {
    entry
        .overlay
        .get_json(&keys::registration(id.as_str().as_bytes()))
}

/// A refusal as shards say it; `absent` is how it is called that nothing is there.
fn refusal(refusal: BookRefusal, absent: Refusal) -> Refusal {
    match refusal {
        BookRefusal::Unknown => absent,
        BookRefusal::AlreadyExists => Refusal::AlreadyExists,
        BookRefusal::VersionMismatch => Refusal::VersionMismatch,
        BookRefusal::LimitReached(_) => Refusal::LimitReached,
    }
}

pub(super) fn put_enrollment(
    entry: &mut Entry<'_>,
    id: &RegistrationId,
    name: &str,
    spec: &EnrollmentSpec,
    condition: Condition,
) -> Result<Outcome, StoreError> {
    let stored = enrollment(entry, id)?;
    let version = stored.as_ref().map(|stored| stored.version);
    if let Err(why) = book::check(condition, version) {
        return Ok(Outcome::Refused(refusal(why, Refusal::UnknownEnrollment)));
    }
    let now = entry.meta.time_ms;
    let (name, created_ms) = match stored {
        Some(stored) => (stored.name, stored.created_ms),
        None => (name.to_owned(), now),
    };
    let version = next_fence(entry);
    let new = Enrollment {
        name,
        spec: spec.clone(),
        version,
        created_ms,
        updated_ms: now,
    };
    entry
        .overlay
        .put_json(keys::enrollment(id.as_str().as_bytes()), &new);
    Ok(Outcome::Kept {
        version,
        created_ms,
        updated_ms: now,
    })
}

pub(super) fn delete_enrollment(
    entry: &mut Entry<'_>,
    id: &RegistrationId,
    condition: Condition,
) -> Result<Outcome, StoreError> {
    let version = enrollment(entry, id)?.map(|stored| stored.version);
    if let Err(why) = book::check_removal(condition, version) {
        return Ok(Outcome::Refused(refusal(why, Refusal::UnknownEnrollment)));
    }
    entry.overlay.delete(keys::enrollment(id.as_str().as_bytes()));
    entry.overlay.delete(keys::registration(id.as_str().as_bytes()));
    Ok(Outcome::Done)
}

pub(super) fn put_registration(
    entry: &mut Entry<'_>,
    id: &RegistrationId,
    spec: &RegistrationSpec,
    under: Option<u64>,
    condition: Condition,
) -> Result<Outcome, StoreError> {
    let individual = enrollment(entry, id)?.map(|stored| (stored.version, stored.spec.is_enabled));
    let is_current = match (under, individual) {
        (None, None) => true,
        (Some(version), Some((current, is_enabled))) => version == current && is_enabled,
        _ => false,
    };
    if !is_current {
        return Ok(Outcome::Refused(Refusal::StaleEnrollment));
    }
    let stored = registration(entry, id)?;
    let version = stored.as_ref().map(|stored| stored.version);
    if let Err(why) = book::check(condition, version) {
        return Ok(Outcome::Refused(refusal(why, Refusal::UnknownRegistration)));
    }
    let now = entry.meta.time_ms;
    let created_ms = stored.map_or(now, |stored| stored.created_ms);
    let version = next_fence(entry);
    let new = Registration {
        spec: spec.clone(),
        version,
        created_ms,
        updated_ms: now,
    };
    entry
        .overlay
        .put_json(keys::registration(id.as_str().as_bytes()), &new);
    Ok(Outcome::Kept {
        version,
        created_ms,
        updated_ms: now,
    })
}

pub(super) fn delete_registration(
    entry: &mut Entry<'_>,
    id: &RegistrationId,
    condition: Condition,
) -> Result<Outcome, StoreError> {
    let version = registration(entry, id)?.map(|stored| stored.version);
    if let Err(why) = book::check_removal(condition, version) {
        return Ok(Outcome::Refused(refusal(why, Refusal::UnknownRegistration)));
    }
    entry.overlay.delete(keys::registration(id.as_str().as_bytes()));
    Ok(Outcome::Done)
}
