//! Reading a shard's state beside `apply`: any replica, any thread, no barrier of its own.

use serde::de::DeserializeOwned;

use super::configuration;
use super::fleet;
use super::jobs::Progress;
use super::keys;
use super::leftovers;
use super::messages;
use super::meta::Meta;
use super::overlay::parse_json;
use super::owed::Owed;
use super::pages;
use crate::command::{DeviceView, Due, Query, ShardView, TwinView, View};
use crate::group::Group;
use crate::id::DeviceId;
use crate::identity::{DeviceRecord, SessionRecord};
use crate::job::{Job, JobId, JobSpec};
use crate::limits::{JOBS_DUE_MAX, MODULES_PER_DEVICE_MAX};
use crate::messages::QUEUE_MESSAGES_MAX;
use crate::messages::feedback::FeedbackRecord;
use crate::messages::queue::Queue;
use crate::owed::OwedList;
use crate::port::{ShardStore, StoreError};
use crate::provisioning::{ProvisioningView, RegistrationId};
use crate::upload::{FileNotice, Uploads};

/// Queues, and groups, that one answer to [`Query::Due`] names.
const DUE_PAGE_MAX: usize = 256;

/// Answers `query` from what `store` holds now. Offsets and the term of a [`ShardView`] are left to
/// the caller, who knows the event log.
pub fn read(store: &dyn ShardStore, query: &Query) -> Result<View, StoreError> {
    match query {
        Query::Device(device) => Ok(View::Device(device_view(store, device)?)),
        Query::Twin(device) => {
            let Some(view) = device_view(store, device)? else {
                return Ok(View::Twin(None));
            };
            let text = store.get(&keys::twin(device.as_str().as_bytes()))?;
            let twin = text.map(|text| String::from_utf8(text.into())).transpose();
            let twin = twin.map_err(|error| StoreError::Corrupt {
                what: "twin".into(),
                reason: error.to_string(),
            })?;
            Ok(View::Twin(Some(TwinView { device: view, twin })))
        }
        Query::Modules(device) => modules(store, device),
        Query::Messages { device, numbers } => contents(store, device, numbers),
        Query::DeadLetters(device) => dead_letters(store, device),
        Query::Due { ms, .. } => {
            let (from, to) = keys::due_range(*ms);
            let queues = store.scan(&from, &to, DUE_PAGE_MAX)?;
            let queues = queues.iter().filter_map(|(key, _)| keys::parse_due(key));
            let (from, to) = keys::due_group_range(*ms);
            let groups = store.scan(&from, &to, DUE_PAGE_MAX)?;
            let groups = groups.iter().filter_map(|(key, _)| keys::parse_due_group(key));
            Ok(View::Due(
                queues.map(Due::Messages).chain(groups.map(Due::Group)).collect(),
            ))
        }
        Query::Group { group, question } => {
            let group: Group = json(store, &keys::group(group))?.unwrap_or_default();
            Ok(View::Group(Box::new(question.answer(&group))))
        }
        Query::Groups { after, .. } => pages::groups(store, after),
        Query::Job(id) => job(store, id),
        Query::Jobs { after, count_max, .. } => pages::jobs(store, after, *count_max),
        Query::DueJobs { ms, .. } => {
            let (from, to) = keys::due_jobs_range(*ms);
            let due = store.scan(&from, &to, JOBS_DUE_MAX)?;
            let due = due.iter().filter_map(|(key, _)| keys::parse_indexed_job(key));
            Ok(View::DueJobs(due.collect()))
        }
        Query::Feedback { from, to, .. } => {
            Ok(View::Feedback(owed_records::<FeedbackRecord>(store, *from, *to)?))
        }
        Query::FileNotices { from, to, .. } => {
            Ok(View::FileNotices(owed_records::<FileNotice>(store, *from, *to)?))
        }
        Query::FileNoticesDue(_) => Ok(View::FileNoticesDue(due_ms::<FileNotice>(store)?)),
        Query::Uploads(device) => {
            let uploads: Option<Uploads> = json(store, &keys::uploads(device.as_str().as_bytes()))?;
            Ok(View::Uploads(uploads.unwrap_or_default()))
        }
        Query::Leftovers { after, .. } => leftovers::page(store, after),
        Query::RegistrationsOf { devices, after, .. } => pages::registrations_of(store, devices, after),
        Query::Cursor { endpoint, .. } => Ok(View::Cursor(json(store, &keys::cursor(endpoint))?)),
        Query::Fleet {
            statement,
            after,
            count_max,
            ..
        } => fleet::step(store, statement, after, *count_max),
        Query::Configuration(id) => {
            let found = json(store, &keys::configuration(id))?;
            Ok(View::Configuration(found.map(Box::new)))
        }
        Query::Configurations { after, .. } => configuration::page(store, after),
        Query::Targeted { targets, after, .. } => configuration::targeted(store, targets, after),
        Query::Counts {
            statements, after, ..
        } => configuration::counts(store, statements, after),
        Query::Devices { after, count_max, .. } => pages::devices(store, after, *count_max),
        Query::Provisioning(id) => Ok(View::Provisioning(Box::new(provisioning(store, id)?))),
        Query::Enrollments { after, count_max, .. } => pages::enrollments(store, after, *count_max),
        Query::Registrations {
            group,
            after,
            count_max,
            ..
        } => pages::registrations(store, group, after, *count_max),
        Query::Shard(_) => {
            let meta = meta(store)?;
            Ok(View::Shard(ShardView {
                device_count: meta.device_count,
                connected_count: meta.connected_count,
                disabled_count: meta.disabled_count,
                feedback_due_ms: due_ms::<FeedbackRecord>(store)?,
                next_offset: meta.next_offset,
                applied_index: meta.applied.map_or(0, |at| at.index),
                ..ShardView::default()
            }))
        }
    }
}

fn meta(store: &dyn ShardStore) -> Result<Meta, StoreError> {
    let stored = store.get(keys::META)?.map(Meta::decode).transpose()?;
    Ok(stored.unwrap_or_default())
}

fn job(store: &dyn ShardStore, id: &JobId) -> Result<View, StoreError> {
    let spec: Option<JobSpec> = json(store, &keys::job(id))?;
    let progress: Option<Progress> = json(store, &keys::job_progress(id))?;
    Ok(View::Job(spec.zip(progress).map(|(spec, progress)| {
        let Progress { state, plan } = progress;
        Box::new(Job { spec, state, plan })
    })))
}

fn device_view(store: &dyn ShardStore, device: &DeviceId) -> Result<Option<DeviceView>, StoreError> {
    let id = device.as_str().as_bytes();
    let Some(bytes) = store.get(&keys::record(id))? else {
        return Ok(None);
    };
    with_session(store, parse_json(&bytes)?).map(Some)
}

/// What is known of a registration id.
fn provisioning(store: &dyn ShardStore, id: &RegistrationId) -> Result<ProvisioningView, StoreError> {
    Ok(ProvisioningView {
        enrollment: json(store, &keys::enrollment(id.as_str().as_bytes()))?,
        registration: json(store, &keys::registration(id.as_str().as_bytes()))?,
    })
}

pub(super) fn json<T: DeserializeOwned>(store: &dyn ShardStore, key: &[u8]) -> Result<Option<T>, StoreError> {
    store.get(key)?.map(|bytes| parse_json(&bytes)).transpose()
}

pub(super) fn with_session(store: &dyn ShardStore, record: DeviceRecord) -> Result<DeviceView, StoreError> {
    let session = match store.get(&keys::session(record.device.as_str().as_bytes()))? {
        Some(bytes) => parse_json(&bytes)?,
        None => SessionRecord::default(),
    };
    let message_count = queue_of(store, &record.device)?.len() as u32;
    Ok(DeviceView {
        record,
        session,
        message_count,
    })
}

fn modules(store: &dyn ShardStore, device: &DeviceId) -> Result<View, StoreError> {
    let (from, to) = keys::modules_range(device.as_str().as_bytes());
    let rows = store.scan(&from, &to, MODULES_PER_DEVICE_MAX)?;
    let views = rows
        .into_iter()
        .map(|(_, value)| with_session(store, parse_json(&value)?));
    Ok(View::Devices {
        devices: views.collect::<Result<_, StoreError>>()?,
        next: None,
    })
}

fn dead_letters(store: &dyn ShardStore, device: &DeviceId) -> Result<View, StoreError> {
    let queue = queue_of(store, device)?;
    Ok(View::DeadLetters(queue.dead_letters().to_vec()))
}

fn queue_of(store: &dyn ShardStore, device: &DeviceId) -> Result<Queue, StoreError> {
    let stored = store.get(&keys::queue(device.as_str().as_bytes()))?;
    let queue = stored.map(|bytes| parse_json(&bytes)).transpose()?;
    Ok(queue.unwrap_or_default())
}

fn contents(store: &dyn ShardStore, device: &DeviceId, numbers: &[u64]) -> Result<View, StoreError> {
    let mut found = Vec::new();
    for number in numbers.iter().take(QUEUE_MESSAGES_MAX) {
        if let Some(bytes) = store.get(&keys::message(device.as_str().as_bytes(), *number))? {
            found.push((*number, messages::decode(bytes)?));
        }
    }
    Ok(View::Messages(found))
}

/// From when on somebody can take a record: see [`OwedList::due_ms`].
fn due_ms<T: Owed>(store: &dyn ShardStore) -> Result<Option<u64>, StoreError> {
    let list: Option<OwedList> = json(store, T::LIST)?;
    Ok(list.and_then(|list| list.due_ms()))
}

fn owed_records<T: Owed>(store: &dyn ShardStore, from: u64, to: u64) -> Result<Vec<T>, StoreError> {
    let rows = store.scan(&T::key(from), &T::key(to), T::BATCH_RECORDS_MAX as usize)?;
    rows.iter().map(|(_, value)| parse_json(value)).collect()
}
