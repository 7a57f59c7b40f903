//! Which events of a page of a shard's log an endpoint shows, and with what.
//!
//! Routes are views: the log has every event, and who reads for an endpoint decides by the routes of now. Twins are
//! fetched only where a condition or an enrichment looks at them. A twin that cannot be read makes the page fail: an
//! event is late rather than missing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use dunlin_model::command::{Consistency, Query, ReadFrom, View};
use dunlin_model::id::{DeviceId, ShardId};
use dunlin_model::port::{EventPage, QueryError};
use dunlin_model::routing::EventSource;
use dunlin_model::routing::routes::{Looks, Routes};
use dunlin_model::telemetry;
use dunlin_model::twin::document::document;
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use serde_json::{Map, Value};

use super::row::row;
use super::{Event, Place, hub_name};
use crate::limits::EVENT_TWINS_AT_A_TIME;
use crate::shared::Shared;

/// What an endpoint shows of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    /// In order; there may be gaps.
    pub(crate) events: Vec<Event>,
    /// The offset to go on at, behind everything that was looked at.
    pub(crate) next: u64,
    /// First offset that can still be read.
    pub(crate) first_offset: u64,
    /// Offset that the next event of the shard will get.
    pub(crate) end_offset: u64,
}

/// Reads a page, and shows what of it goes to `endpoint`.
pub(crate) async fn read(
    shared: &Shared,
    endpoint: &str,
    shard: ShardId,
    from: ReadFrom,
    (bytes_max, wait_ms): (usize, u64),
) -> Result<Shown, QueryError> {
    let page = shared.client.read_events(shard, from, bytes_max, wait_ms).await?;
    show(shared, endpoint, shard, &page).await
}

async fn show(
    shared: &Shared,
    endpoint: &str,
    shard: ShardId,
    page: &EventPage,
) -> Result<Shown, QueryError> {
    let hub = hub_name(&shared.host_names[0]);
    let routes = shared.routes();
    // Where the first events are gone, a page begins behind them.
    let mut next = page.from.max(page.first_offset);
    let mut read = Vec::new();
    for run in &page.runs {
        for (offset, record) in (run.first_offset..).zip(telemetry::records(run.records.clone())) {
            if offset < page.from {
                continue;
            }
            let (term, time_ms) = (run.term, run.time_ms);
            let place = Place {
                offset,
                term,
                time_ms,
            };
            match record {
                Ok(record) => {
                    let source = EventSource::of(record.source);
                    // What goes nowhere is not taken apart.
                    let source = source.filter(|source| routes.may_lead(*source, endpoint));
                    read.extend(source.map(|source| Event::read(place, source, &record, hub)));
                }
                // What a segment holds was checked when it was read; go on behind it all the same.
                Err(error) => tracing::warn!(%shard, offset, %error, "stored record not understood"),
            }
        }
        next = next.max(run.next_offset());
    }
    Ok(Shown {
        events: select(shared, &routes, (endpoint, hub), read).await?,
        next,
        first_offset: page.first_offset,
        end_offset: page.next_offset,
    })
}

/// Those that go to `endpoint`, with what they are given on the way.
async fn select(
    shared: &Shared,
    routes: &Routes,
    (endpoint, hub): (&str, &str),
    mut events: Vec<Event>,
) -> Result<Vec<Event>, QueryError> {
    let looks: BTreeMap<EventSource, Looks> = EventSource::ALL
        .into_iter()
        .map(|source| (source, routes.looks(source, endpoint)))
        .collect();
    let of = |event: &Event| looks.get(&event.source).copied().unwrap_or_default();
    let wanted = events.iter().filter(|event| of(event).at_twin);
    let twins = twins(shared, wanted.map(Event::identity).collect()).await?;
    events.retain_mut(|event| {
        let looks = of(event);
        let twin = looks.at_twin.then(|| twins.get(&event.identity())).flatten();
        let row = row(event, looks, twin);
        let leads = routes.leads(event.source, endpoint, &row);
        if leads {
            for (key, value) in routes.enrich(endpoint, hub, &row) {
                event.set(&key, &value);
            }
        }
        leads
    });
    Ok(events)
}

/// The twins that there are of these.
async fn twins(shared: &Shared, whose: BTreeSet<String>) -> Result<BTreeMap<String, Value>, QueryError> {
    let asked = whose.into_iter().filter_map(|identity| {
        let device = DeviceId::parse_identity(&identity).ok()?;
        Some(async move { Ok::<_, QueryError>((identity, twin(shared, &device).await?)) })
    });
    let found: Vec<(String, Option<Value>)> = stream::iter(asked)
        .buffered(EVENT_TWINS_AT_A_TIME)
        .try_collect()
        .await?;
    let there = found
        .into_iter()
        .filter_map(|(identity, twin)| Some((identity, twin?)));
    Ok(there.collect())
}

async fn twin(shared: &Shared, device: &DeviceId) -> Result<Option<Value>, QueryError> {
    let query = Query::Twin(device.clone());
    let View::Twin(Some(view)) = shared.client.query(query, Consistency::Linearizable).await? else {
        return Ok(None);
    };
    let twin = view
        .document()
        .map_err(|error| QueryError::Store(error.to_string()))?;
    Ok(Some(document(&view.device, &twin, false)))
}

/// The row of an event that nobody sent: what `fill` puts in, and the twin of `device`, if there is one.
pub(crate) async fn trial(
    shared: &Shared,
    device: Option<&DeviceId>,
    fill: impl FnOnce(&mut Map<String, Value>),
) -> Result<Value, QueryError> {
    let mut row = Map::new();
    if let Some(device) = device {
        row.insert("$connectionDeviceId".to_owned(), device.device_part().into());
        let module = device.module_part();
        module.map(|module| row.insert("$connectionModuleId".to_owned(), module.into()));
        let twin = twin(shared, device).await?;
        twin.map(|twin| row.insert("$twin".to_owned(), twin));
    }
    fill(&mut row);
    Ok(Value::Object(row))
}

/// The routes of a gateway, read anew when they have changed.
#[derive(Debug, Default)]
pub(crate) struct RoutesCache {
    /// With the log epoch that they were read in: a cluster that was recovered may count versions again.
    read: std::sync::Mutex<(u64, Arc<Routes>)>,
}

impl RoutesCache {
    pub(crate) fn get(&self, shared: &Shared) -> Arc<Routes> {
        let directory = shared.client.directory();
        let mut read = self
            .read
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if (read.0, read.1.version()) != (directory.log_epoch, directory.routing.version) {
            match Routes::read(&directory.routing) {
                Ok(routes) => *read = (directory.log_epoch, Arc::new(routes)),
                // What the directory took was checked there.
                Err(error) => tracing::error!(%error, "routes not understood; events go where they went"),
            }
        }
        Arc::clone(&read.1)
    }
}
