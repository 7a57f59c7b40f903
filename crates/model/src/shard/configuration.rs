//! What commands about configurations do, and how the twins are found that are not what configurations say.

use super::fleet::{load, source_of};
use super::keys::{self, Listed};
use super::overlay::parse_json;
use super::pages::walk;
use super::registry::next_fence;
use super::state::Entry;
use crate::command::{Outcome, Refusal, View};
use crate::configuration::{
    CONFIGURATION_PAGE_MAX, Configuration, ConfigurationSpec, TARGETED_PAGE_MAX, Target, Targeted,
};
use crate::identity::Condition;
use crate::limits::FLEET_STEP_MAX;
use crate::port::{ShardStore, StoreError};
use crate::provisioning::book::{self, BookRefusal};
use crate::query_language::{self, Statement};
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
        let (view, twin) = load(store, value)?;
        let row = document(&view, &twin, needs_times);
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
                device: view.record.device,
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
        let (view, twin) = load(store, value)?;
        let row = document(&view, &twin, needs_times);
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
