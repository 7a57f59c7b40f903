//! Listings of a shard's state, page by page: devices, enrolments, registrations.
//!
//! Keys begin with the slot, and what else lies in a slot may be large, so only what is listed is read. A cursor is the
//! smallest key above the last one looked at.

use bytes::Bytes;

use super::jobs::Progress;
use super::keys::{self, Listed};
use super::overlay::parse_json;
use super::read::{json, with_session};
use crate::command::View;
use crate::group::Group;
use crate::group::ask::GroupLine;
use crate::id::DeviceId;
use crate::job::state::JobPlan;
use crate::job::{Job, JobSpec};
use crate::limits::{DEVICE_PAGE_MAX, JOB_LIST_MAX, PROVISIONING_PAGE_MAX, READ_BYTES_MAX};
use crate::port::{ShardStore, StoreError};
use crate::provisioning::{Enrollment, Registration};

/// Rows that one page looks at, wanted or not.
const ROWS_MAX: usize = DEVICE_PAGE_MAX;
/// The same of groups, which may be large.
const GROUP_ROWS_MAX: usize = 50;

/// A page of devices, without their modules.
pub(super) fn devices(store: &dyn ShardStore, after: &[u8], count_max: usize) -> Result<View, StoreError> {
    let mut devices = Vec::new();
    let count_max = count_max.min(DEVICE_PAGE_MAX);
    let next = walk(store, Listed::Records, after, usize::MAX, |key, value| {
        if !keys::is_module_record(key) {
            devices.push(with_session(store, parse_json(value)?)?);
        }
        Ok(devices.len() < count_max)
    })?;
    Ok(View::Devices { devices, next })
}

/// A page of enrolments, each with its registration.
pub(super) fn enrollments(
    store: &dyn ShardStore,
    after: &[u8],
    count_max: usize,
) -> Result<View, StoreError> {
    let mut found = Vec::new();
    let count_max = count_max.min(PROVISIONING_PAGE_MAX);
    let next = walk(store, Listed::Enrollments, after, ROWS_MAX, |_, value| {
        let enrollment: Enrollment = parse_json(value)?;
        let key = keys::registration(enrollment.name.to_ascii_lowercase().as_bytes());
        found.push((enrollment, json(store, &key)?));
        Ok(found.len() < count_max)
    })?;
    Ok(View::Enrollments { found, next })
}

/// A page of the registrations under a group.
pub(super) fn registrations(
    store: &dyn ShardStore,
    group: &str,
    after: &[u8],
    count_max: usize,
) -> Result<View, StoreError> {
    let mut found = Vec::new();
    let count_max = count_max.min(PROVISIONING_PAGE_MAX);
    let next = walk(store, Listed::Registrations, after, ROWS_MAX, |_, value| {
        let registration: Registration = parse_json(value)?;
        let of_group = registration.spec.group.as_deref();
        if of_group.is_some_and(|of| of.eq_ignore_ascii_case(group)) {
            found.push(registration);
        }
        Ok(found.len() < count_max)
    })?;
    Ok(View::Registrations { found, next })
}

/// A page of the registrations that name one of `devices`.
pub(super) fn registrations_of(
    store: &dyn ShardStore,
    devices: &[DeviceId],
    after: &[u8],
) -> Result<View, StoreError> {
    let mut found = Vec::new();
    let next = walk(store, Listed::Registrations, after, ROWS_MAX, |_, value| {
        let registration: Registration = parse_json(value)?;
        if devices.contains(&registration.spec.device) {
            found.push(registration);
        }
        Ok(found.len() < PROVISIONING_PAGE_MAX)
    })?;
    Ok(View::Registrations { found, next })
}

/// A page of consumer groups.
pub(super) fn groups(store: &dyn ShardStore, after: &[u8]) -> Result<View, StoreError> {
    let mut found = Vec::new();
    let next = walk(store, Listed::Groups, after, GROUP_ROWS_MAX, |key, value| {
        let group: Group = parse_json(value)?;
        if let (Some(id), Some(listing)) = (keys::parse_group(key), group.list()) {
            found.push(GroupLine { id, listing });
        }
        Ok(true)
    })?;
    Ok(View::Groups { found, next })
}

/// A page of jobs, without what their runners plan.
pub(super) fn jobs(store: &dyn ShardStore, after: &[u8], count_max: usize) -> Result<View, StoreError> {
    let (mut found, mut bytes) = (Vec::new(), 0);
    let count_max = count_max.min(JOB_LIST_MAX);
    let next = walk(store, Listed::Jobs, after, ROWS_MAX, |_, value| {
        let spec: JobSpec = parse_json(value)?;
        let progress: Option<Progress> = json(store, &keys::job_progress(&spec.id))?;
        if let Some(Progress { state, .. }) = progress {
            bytes += value.len();
            let plan = JobPlan::default();
            found.push(Job { spec, state, plan });
        }
        Ok(found.len() < count_max && bytes < READ_BYTES_MAX)
    })?;
    Ok(View::Jobs { found, next })
}

/// Visits what is listed, slot by slot, after a cursor, until the visitor has enough or `rows_max` were seen; returns
/// the cursor to go on from, or `None` at the end.
pub(super) fn walk(
    store: &dyn ShardStore,
    listed: Listed,
    after: &[u8],
    rows_max: usize,
    mut visit: impl FnMut(&[u8], &[u8]) -> Result<bool, StoreError>,
) -> Result<Option<Bytes>, StoreError> {
    let mut cursor = after.to_vec();
    let mut seen = 0;
    loop {
        let (from, to) = keys::listed_from(listed, &cursor);
        let rows = store.scan(&from, &to, DEVICE_PAGE_MAX)?;
        let last_of_slot = rows.len() < DEVICE_PAGE_MAX;
        for (key, value) in rows {
            // The smallest key above this one.
            cursor = [&key[..], &[0]].concat();
            seen += 1;
            if !visit(&key, &value)? || seen >= rows_max {
                return Ok(Some(cursor.into()));
            }
        }
        if last_of_slot {
            let next = store.scan(&keys::next_slot(&from), keys::DEVICES_END, 1)?;
            let Some((key, _)) = next.first() else {
                return Ok(None);
            };
            cursor = keys::slot_start(key);
        }
    }
}
