//! What commands about configurations do, how the twins are found that are not what configurations say, and leases: the
//! right to do something that one alone should do.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::keys::{self, Listed};
use super::overlay::parse_json;
use super::pages::walk;
use super::read::{json, with_session};
use super::registry::next_fence;
use super::state::Entry;
use crate::command::{Outcome, Refusal, View};
use crate::configuration::{
    CONFIGURATION_PAGE_MAX, Configuration, ConfigurationSpec, TARGETED_PAGE_MAX, Target, Targeted,
};
use crate::identity::{Condition, DeviceRecord};
use crate::limits::FLEET_STEP_MAX;
use crate::port::{ShardStore, StoreError};
use crate::provisioning::book::{self, BookRefusal};
use crate::query_language::{self, Source, Statement};
use crate::twin::Twin;
use crate::twin::document::{METADATA, document};

fn refusal(refusal: BookRefusal) -> Outcome {
    Outcome::Refused(match refusal {
        BookRefusal::Unknown => Refusal::UnknownConfiguration,
        BookRefusal::AlreadyExists => Refusal::AlreadyExists,
        BookRefusal::VersionMismatch => Refusal::VersionMismatch,
        BookRefusal::LimitReached(_) => Refusal::LimitReached,
    })
}

pub(super) fn put(
    entry: &mut Entry<'_>,
    id: &str,
    spec: &ConfigurationSpec,
    condition: Condition,
) -> Result<Outcome, StoreError> {
    let stored: Option<Configuration> = entry.overlay.get_json(&keys::configuration(id))?;
    if let Err(why) = book::check(condition, stored.as_ref().map(|stored| stored.version)) {
        return Ok(refusal(why));
    }
    if stored
        .as_ref()
        .is_some_and(|stored| stored.spec.content != spec.content)
    {
        return Ok(Outcome::Refused(Refusal::ContentFixed));
    }
    let now = entry.meta.time_ms;
    let new = Configuration {
        id: id.to_owned(),
        spec: spec.clone(),
        version: next_fence(entry),
        created_ms: stored.map_or(now, |stored| stored.created_ms),
        updated_ms: now,
    };
    entry.overlay.put_json(keys::configuration(id), &new);
    Ok(Outcome::Kept {
        version: new.version,
        created_ms: new.created_ms,
        updated_ms: now,
    })
}

pub(super) fn delete(entry: &mut Entry<'_>, id: &str, condition: Condition) -> Result<Outcome, StoreError> {
    let stored: Option<Configuration> = entry.overlay.get_json(&keys::configuration(id))?;
    if let Err(why) = book::check_removal(condition, stored.map(|stored| stored.version)) {
        return Ok(refusal(why));
    }
    entry.overlay.delete(keys::configuration(id));
    Ok(Outcome::Done)
}

/// A page of configurations.
pub(super) fn page(store: &dyn ShardStore, after: &[u8]) -> Result<View, StoreError> {
    let mut found = Vec::new();
    let next = walk(
        store,
        Listed::Configurations,
        after,
        FLEET_STEP_MAX,
        |_, value| {
            found.push(parse_json(value)?);
            Ok(found.len() < CONFIGURATION_PAGE_MAX)
        },
    )?;
    Ok(View::Configurations { found, next })
}

/// One step of a search for twins whose marks are not what `targets` ask for. A condition that does not read concerns
/// nobody.
pub(super) fn targeted(store: &dyn ShardStore, targets: &[Target], after: &[u8]) -> Result<View, StoreError> {
    let conditions: Vec<(&Target, query_language::Condition)> = targets
        .iter()
        .filter_map(|target| Some((target, query_language::Condition::parse(&target.condition).ok()?)))
        .collect();
    let needs_times = conditions
        .iter()
        .any(|(_, condition)| condition.mentions(METADATA));
    let mut found = Vec::new();
    let next = walk(store, Listed::Records, after, FLEET_STEP_MAX, |key, value| {
        let source = source_of(key);
        let (row, device, twin) = row(store, value, needs_times)?;
        let fits: Vec<&Target> = conditions
            .iter()
            .filter(|(_, condition)| condition.source() == source && condition.admits(&row))
            .map(|(target, _)| *target)
            .collect();
        let is_marked = fits.len() == twin.configurations.len()
            && fits.iter().all(|target| {
                let mark = twin.configurations.get(&target.id);
                mark.is_some_and(|mark| mark.version == target.version)
            });
        if !is_marked {
            found.push(Targeted {
                device: device.device,
                etag: twin.etag,
                fits: fits.into_iter().map(|target| target.id.clone()).collect(),
            });
        }
        Ok(found.len() < TARGETED_PAGE_MAX)
    })?;
    Ok(View::Targeted { found, next })
}

/// One step of counting what `statements` find, all of them in one look. One that does not read counts nothing.
pub(super) fn counts(
    store: &dyn ShardStore,
    statements: &[String],
    after: &[u8],
) -> Result<View, StoreError> {
    let read: Vec<Option<Statement>> = statements
        .iter()
        .map(|text| Statement::parse(text).ok())
        .collect();
    let needs_times = read
        .iter()
        .flatten()
        .filter_map(|statement| statement.filter.as_ref())
        .any(|filter| filter.mentions(METADATA));
    let mut counts = vec![0u64; statements.len()];
    let next = walk(store, Listed::Records, after, FLEET_STEP_MAX, |key, value| {
        let source = source_of(key);
        let (row, ..) = row(store, value, needs_times)?;
        for (count, statement) in counts.iter_mut().zip(&read) {
            let counts = statement
                .as_ref()
                .is_some_and(|statement| statement.source == source && statement.admits(&row));
            *count += u64::from(counts);
        }
        Ok(true)
    })?;
    Ok(View::Counts { counts, next })
}

fn source_of(key: &[u8]) -> Source {
    if keys::is_module_record(key) {
        Source::Modules
    } else {
        Source::Devices
    }
}

fn row(
    store: &dyn ShardStore,
    record: &[u8],
    has_times: bool,
) -> Result<(Value, DeviceRecord, Twin), StoreError> {
    let record: DeviceRecord = parse_json(record)?;
    let twin: Option<Twin> = json(store, &keys::twin(record.device.as_str().as_bytes()))?;
    let twin = twin.unwrap_or_default();
    let view = with_session(store, record)?;
    Ok((document(&view, &twin, has_times), view.record, twin))
}

/// The right to do something, for a while.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Lease {
    holder: u64,
    until_ms: u64,
}

/// Gives the lease to `holder`, if it is nobody else's.
pub(super) fn take_lease(
    entry: &mut Entry<'_>,
    name: &str,
    holder: u64,
    ms: u64,
) -> Result<Outcome, StoreError> {
    let now = entry.meta.time_ms;
    let held: Option<Lease> = entry.overlay.get_json(&keys::lease(name))?;
    if held.is_some_and(|held| held.holder != holder && held.until_ms > now) {
        return Ok(Outcome::Refused(Refusal::LeaseHeld));
    }
    let until_ms = now.saturating_add(ms.min(LEASE_MS_MAX));
    entry
        .overlay
        .put_json(keys::lease(name), &Lease { holder, until_ms });
    Ok(Outcome::Done)
}

/// A lease that nobody renews is over after this, whatever was asked for.
const LEASE_MS_MAX: u64 = 60_000;
