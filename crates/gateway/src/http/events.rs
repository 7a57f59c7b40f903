//! Events for readers: pages and server-sent streams, of one shard or of all, as far as routes lead them to the
//! built-in endpoint.
//!
//! Within a shard the order is that of its log. A stream names with each event where to go on, so that
//! a reader that comes back with `Last-Event-ID` misses nothing and gets nothing twice.

use std::collections::VecDeque;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, Query as UrlQuery, State};
use axum::http::{HeaderMap, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use dunlin_model::command::ReadFrom;
use dunlin_model::directory::{Directory, Right};
use dunlin_model::id::ShardId;
use dunlin_model::routing::{BUILT_IN, EventSource};
use futures_util::stream::{self, BoxStream, Stream, StreamExt as _};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::OwnedSemaphorePermit;

use super::authorize;
use super::devices::parse_shard;
use super::error::ApiError;
use crate::auth::BASE64;
use crate::events::Event as ReadEvent;
use crate::events::endpoint::{self, Shown};
use crate::limits::{
    EVENT_STREAM_RETRY_PAUSE, EVENTS_PAGE_DEFAULT, EVENTS_PAGE_MAX, EVENTS_READ_BYTES, EVENTS_WAIT_MS_MAX,
};
use crate::metrics::{count, count_by};
use crate::shared::Shared;
use dunlin_model::iso_time::iso_utc;

/// Shards that are asked at the same time where a stream begins.
const SHARDS_ASKED_MAX: usize = 16;

/// Parameters of a read.
#[derive(Debug, Deserialize)]
pub(crate) struct ReadQuery {
    /// An offset, `start`, `end`, or `time=MS`; over all shards also a cursor.
    from: Option<String>,
    /// Milliseconds since 1970; the other spelling of `from=time=MS`.
    time: Option<u64>,
    max: Option<usize>,
    wait_ms: Option<u64>,
    /// Only events of this source, as routes or events name it.
    source: Option<String>,
}

impl ReadQuery {
    /// The source whose events alone are read.
    fn source(&self) -> Result<Option<EventSource>, ApiError> {
        let Some(name) = &self.source else {
            return Ok(None);
        };
        let is_named = |source: &EventSource| {
            name.eq_ignore_ascii_case(source.message_source())
                || name.eq_ignore_ascii_case(&format!("{source:?}"))
        };
        match EventSource::ALL.into_iter().find(is_named) {
            Some(source) => Ok(Some(source)),
            None => Err(ApiError::invalid("there is no such source of events")),
        }
    }

    pub(crate) fn from(&self, default: ReadFrom) -> Result<ReadFrom, ApiError> {
        if let Some(time_ms) = self.time {
            return Ok(ReadFrom::TimeMs(time_ms));
        }
        let number = |text: &str| {
            text.parse()
                .map_err(|_| ApiError::invalid("from is an offset, start, end or time=MS"))
        };
        match self.from.as_deref() {
            None => Ok(default),
            Some("start") => Ok(ReadFrom::Offset(0)),
            Some("end") => Ok(ReadFrom::End),
            Some(text) => match text.strip_prefix("time=") {
                Some(time) => Ok(ReadFrom::TimeMs(number(time)?)),
                None => Ok(ReadFrom::Offset(number(text)?)),
            },
        }
    }
}

/// One event of a page, with its place.
#[derive(Debug)]
struct Found {
    shard: ShardId,
    offset: u64,
    json: Value,
}

/// `GET /events/{shard}`: a page, or a stream for those who accept one.
pub(crate) async fn read(
    State(shared): State<Arc<Shared>>,
    Path(shard): Path<String>,
    headers: HeaderMap,
    UrlQuery(query): UrlQuery<ReadQuery>,
) -> Result<Response, ApiError> {
    authorize::service(&shared, &headers, Right::ServiceConnect, &["events", &shard])?;
    let shard = parse_shard(&shared, &shard)?;
    let source = query.source()?;
    if wants_stream(&headers) {
        let from = match last_event_id(&headers) {
            None => query.from(ReadFrom::End)?,
            Some(id) => {
                let seen = Place::parse(id)
                    .ok_or_else(|| ApiError::invalid("Last-Event-ID is not an offset"))?
                    .check(&shared, shard)?;
                ReadFrom::Offset(seen.saturating_add(1))
            }
        };
        let epoch = shared.client.directory().epoch_of(shard);
        let permit = stream_permit(&shared)?;
        let next = resolve(&shared, shard, from).await?;
        // The id is that of the last event before the stream, so there is none at the very start.
        let id = move |offset| Place::new(offset, epoch).to_string();
        let start = next.checked_sub(1).map(|seen| cursor_event(id(seen)));
        let events = follow(Arc::clone(&shared), shard, next, source)
            .map(move |found| event(id(found.offset), &found.json));
        let spent = authorize::spent(&shared, &headers, Right::ServiceConnect);
        return Ok(respond(
            &shared,
            (permit, spent),
            stream::iter(start).chain(events).boxed(),
        ));
    }
    let count_max = query.max.unwrap_or(EVENTS_PAGE_DEFAULT).clamp(1, EVENTS_PAGE_MAX);
    let wait_ms = query.wait_ms.unwrap_or(0).min(EVENTS_WAIT_MS_MAX);
    let from = query.from(ReadFrom::Offset(0))?;
    let reading = endpoint::read(&shared, BUILT_IN, shard, from, (EVENTS_READ_BYTES, wait_ms));
    let page = match wait_ms {
        0 => reading.await?,
        _ => tokio::select! {
            page = reading => page?,
            () = authorize::spent(&shared, &headers, Right::ServiceConnect) => {
                return Err(ApiError::unauthorized());
            }
        },
    };
    let (first, end) = (page.first_offset, page.end_offset);
    let (found, next) = take(shard, page, (source, count_max));
    count_by(&shared.metrics.events_read, found.len() as u64);
    let events: Vec<Value> = found.into_iter().map(|found| found.json).collect();
    let body = json!({
        "shard": shard.0, "logEpoch": shared.client.directory().epoch_of(shard), "events": events, "next": next, "first": first, "end": end,
    });
    Ok(Json(body).into_response())
}

/// `GET /events`: a stream over all shards. Its ids are cursors, `shard:next@epoch,..`, of what
/// comes next.
pub(crate) async fn stream_all(
    State(shared): State<Arc<Shared>>,
    headers: HeaderMap,
    UrlQuery(query): UrlQuery<ReadQuery>,
) -> Result<Response, ApiError> {
    authorize::service(&shared, &headers, Right::ServiceConnect, &["events"])?;
    let given = query.from.as_deref().filter(|from| from.contains(':'));
    let cursor = match last_event_id(&headers).or(given) {
        Some(text) => parse_cursor(text).ok_or_else(|| ApiError::invalid("the cursor cannot be read"))?,
        None => Vec::new(),
    };
    let default = if cursor.is_empty() {
        query.from(ReadFrom::End)?
    } else {
        ReadFrom::Offset(0)
    };
    let source = query.source()?;
    let permit = stream_permit(&shared)?;
    for (shard, place) in &cursor {
        place.check(&shared, *shard)?;
    }
    let directory = shared.client.directory();
    let asked = directory.shards().map(|shard| {
        let known = cursor
            .iter()
            .find(|(of, _)| *of == shard)
            .map(|(_, place)| ReadFrom::Offset(place.offset));
        let shared = &shared;
        async move { Ok((shard, resolve(shared, shard, known.unwrap_or(default)).await?)) }
    });
    let resolved: Vec<Result<_, ApiError>> = stream::iter(asked).buffered(SHARDS_ASKED_MAX).collect().await;
    let mut next = resolved.into_iter().collect::<Result<Vec<_>, _>>()?;
    let start = cursor_event(format_cursor(&directory, &next));
    let streams: Vec<_> = next
        .iter()
        .map(|(shard, offset)| follow(Arc::clone(&shared), *shard, *offset, source).boxed())
        .collect();
    let events = stream::select_all(streams).map(move |found| {
        if let Some((_, offset)) = next.iter_mut().find(|(shard, _)| *shard == found.shard) {
            *offset = found.offset + 1;
        }
        event(format_cursor(&directory, &next), &found.json)
    });
    let spent = authorize::spent(&shared, &headers, Right::ServiceConnect);
    Ok(respond(
        &shared,
        (permit, spent),
        stream::iter([start]).chain(events).boxed(),
    ))
}

/// The offset that `from` means just now.
async fn resolve(shared: &Shared, shard: ShardId, from: ReadFrom) -> Result<u64, ApiError> {
    match from {
        ReadFrom::Offset(offset) => Ok(offset),
        ReadFrom::TimeMs(_) | ReadFrom::End => Ok(shared.client.read_events(shard, from, 1, 0).await?.from),
    }
}

/// An offset, with the log epoch that it belongs to: `offset@epoch`, or `offset` for today's epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    offset: u64,
    epoch: Option<u64>,
}

impl Place {
    fn new(offset: u64, epoch: u64) -> Place {
        Place {
            offset,
            epoch: Some(epoch),
        }
    }

    pub(crate) fn parse(text: &str) -> Option<Place> {
        let (offset, epoch) = match text.split_once('@') {
            Some((offset, epoch)) => (offset, Some(epoch.parse().ok()?)),
            None => (text, None),
        };
        let offset = offset.parse().ok()?;
        Some(Place { offset, epoch })
    }

    /// The offset, if it still means what it meant: after a restart from a survivor another event may have it.
    fn check(self, shared: &Shared, shard: ShardId) -> Result<u64, ApiError> {
        let today = shared.client.directory().epoch_of(shard);
        match self.epoch {
            Some(epoch) if epoch != today => Err(ApiError::gone(format!(
                "shard {shard} was restarted from a survivor since: its log epoch was {epoch} and is {today}"
            ))),
            _ => Ok(self.offset),
        }
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.epoch {
            Some(epoch) => write!(f, "{}@{epoch}", self.offset),
            None => write!(f, "{}", self.offset),
        }
    }
}

pub(crate) fn parse_cursor(text: &str) -> Option<Vec<(ShardId, Place)>> {
    text.split(',')
        .filter(|part| !part.is_empty())
        .map(|part| {
            let (shard, place) = part.split_once(':')?;
            Some((ShardId(shard.parse().ok()?), Place::parse(place)?))
        })
        .collect()
}

fn format_cursor(directory: &Directory, next: &[(ShardId, u64)]) -> String {
    let mut text = String::new();
    for (shard, offset) in next {
        let comma = if text.is_empty() { "" } else { "," };
        let place = Place::new(*offset, directory.epoch_of(*shard));
        text.push_str(&format!("{comma}{shard}:{place}"));
    }
    text
}

fn wants_stream(headers: &HeaderMap) -> bool {
    let accepted = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok());
    accepted.is_some_and(|accepted| accepted.contains("text/event-stream"))
}

fn last_event_id(headers: &HeaderMap) -> Option<&str> {
    headers
        .get("last-event-id")?
        .to_str()
        .ok()
        .filter(|id| !id.is_empty())
}

fn stream_permit(shared: &Shared) -> Result<OwnedSemaphorePermit, ApiError> {
    Arc::clone(&shared.event_streams)
        .try_acquire_owned()
        .map_err(|_| ApiError::busy("event streams"))
}

type EventResult = Result<Event, std::convert::Infallible>;

/// Tells a reader where the stream begins, so that it can come back before anything has happened.
fn cursor_event(id: String) -> EventResult {
    Ok(Event::default().event("cursor").id(id).data("{}"))
}

fn event(id: String, json: &Value) -> EventResult {
    Ok(Event::default().id(id).data(json.to_string()))
}

fn respond(
    shared: &Arc<Shared>,
    (permit, spent): (OwnedSemaphorePermit, impl Future<Output = ()> + Send + 'static),
    events: BoxStream<'static, EventResult>,
) -> Response {
    // The permit lives as long as the stream; draining ends both, and so does a credential that counts no more.
    let draining = shared.draining.clone().cancelled_owned();
    let until = async move {
        tokio::select! {
            () = draining => {}
            () = spent => {}
        }
    };
    let events = events.map(move |event| {
        let _permit = &permit;
        event
    });
    Sse::new(events.take_until(Box::pin(until)))
        .keep_alive(KeepAlive::default())
        .into_response()
}

/// The events of a shard from offset `next` on, without end. A read that fails is tried again after a pause.
fn follow(
    shared: Arc<Shared>,
    shard: ShardId,
    next: u64,
    source: Option<EventSource>,
) -> impl Stream<Item = Found> + Send {
    let state = (shared, next, VecDeque::new());
    stream::unfold(state, move |(shared, mut next, mut pending)| async move {
        loop {
            if let Some(found) = pending.pop_front() {
                count(&shared.metrics.events_read);
                return Some((found, (shared, next, pending)));
            }
            let bounds = (EVENTS_READ_BYTES, EVENTS_WAIT_MS_MAX);
            match endpoint::read(&shared, BUILT_IN, shard, ReadFrom::Offset(next), bounds).await {
                Ok(page) => {
                    let found;
                    (found, next) = take(shard, page, (source, usize::MAX));
                    pending.extend(found);
                }
                Err(error) => {
                    tracing::debug!(%shard, %error, "event stream waits");
                    tokio::time::sleep(EVENT_STREAM_RETRY_PAUSE).await;
                }
            }
        }
    })
}

/// The first events of a page, and the offset to go on at.
fn take(shard: ShardId, page: Shown, (source, count_max): (Option<EventSource>, usize)) -> (Vec<Found>, u64) {
    let is_asked_for = |event: &ReadEvent| source.is_none_or(|source| event.source == source);
    let mut next = page.next;
    let mut found = Vec::new();
    for event in page.events.iter().filter(|event| is_asked_for(event)) {
        if found.len() >= count_max {
            next = found.last().map_or(next, |found: &Found| found.offset + 1);
            break;
        }
        found.push(Found {
            shard,
            offset: event.place.offset,
            json: to_json(shard, event),
        });
    }
    (found, next)
}

/// An event as JSON: also what webhooks and files are given.
pub(crate) fn to_json(shard: ShardId, event: &ReadEvent) -> Value {
    let place = event.place;
    let text = |value: &Option<String>| value.as_deref().map_or(Value::Null, Value::from);
    let properties = event.properties.iter();
    let properties: Map<String, Value> = properties
        .map(|(key, value)| (key.clone(), text(value)))
        .collect();
    let system = event.system.iter();
    let mut system: Map<String, Value> = system
        .map(|(name, value)| ((*name).to_owned(), value.as_str().into()))
        .collect();
    let enqueued = iso_utc(place.time_ms);
    system.insert("iothub-connection-device-id".to_owned(), json!(event.device));
    system.insert("iothub-enqueuedtime".to_owned(), json!(enqueued));
    if let Some(module) = &event.module {
        system.insert("iothub-connection-module-id".to_owned(), json!(module));
    }
    let mut shown = json!({
        "shard": shard.0,
        "offset": place.offset,
        "term": place.term,
        "enqueuedTimeMs": place.time_ms,
        "enqueuedTimeUtc": enqueued,
        "deviceId": event.device,
        "properties": properties,
        "systemProperties": system,
        "body": BASE64.encode(&event.payload),
    });
    if let Some(module) = &event.module {
        shown["moduleId"] = json!(module);
    }
    if let Ok(text) = std::str::from_utf8(&event.payload) {
        match serde_json::from_str::<Value>(text) {
            Ok(value) => shown["json"] = value,
            Err(_) => shown["bodyText"] = json!(text),
        }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::sent;
    use dunlin_model::telemetry::Source;

    fn page(offsets: &[u64], next: u64) -> Shown {
        let event = |offset: &u64| {
            let place = crate::events::Place {
                offset: *offset,
                term: 2,
                time_ms: 5,
            };
            let source = match offset % 2 {
                0 => Source::Mqtt,
                _ => Source::TwinChange,
            };
            sent(place, source, "d", b"a=1&%24.mid=m", b"{\"t\":1}")
        };
        Shown {
            events: offsets.iter().map(event).collect(),
            next,
            first_offset: 0,
            end_offset: next,
        }
    }

    #[test]
    fn a_page_begins_and_ends_where_it_should() {
        let places = |found: &[u64], next, source, count_max| {
            let (found, next) = take(ShardId(0), page(found, next), (source, count_max));
            (found.iter().map(|f| f.offset).collect::<Vec<_>>(), next)
        };
        assert_eq!(places(&[11, 12, 14], 17, None, 100), (vec![11, 12, 14], 17));
        assert_eq!(places(&[11, 12, 14], 17, None, 3), (vec![11, 12, 14], 17));
        assert_eq!(places(&[11, 12, 14], 17, None, 2), (vec![11, 12], 13));
        assert_eq!(places(&[], 15, None, 5), (vec![], 15));
        let twins = Some(EventSource::TwinChangeEvents);
        assert_eq!(places(&[11, 12, 13, 14], 17, twins, 100), (vec![11, 13], 17));
        assert_eq!(places(&[11, 12, 13, 14], 17, twins, 1), (vec![11], 12));
    }

    #[test]
    fn an_event_shows_its_properties_and_body() {
        let (found, _) = take(ShardId(3), page(&[10], 11), (None, 1));
        let json = &found[0].json;
        assert_eq!(json["properties"]["a"], "1");
        assert_eq!(json["systemProperties"]["message-id"], "m");
        assert_eq!(json["json"]["t"], 1);
        assert_eq!(
            (
                json["shard"].as_u64(),
                json["offset"].as_u64(),
                json["term"].as_u64()
            ),
            (Some(3), Some(10), Some(2))
        );
    }

    #[test]
    fn cursors_are_written_and_read() {
        let directory = Directory::default();
        let text = format_cursor(&directory, &[(ShardId(0), 5), (ShardId(2), 7)]);
        assert_eq!(text, "0:5@0,2:7@0");
        let read = vec![(ShardId(0), Place::new(5, 0)), (ShardId(2), Place::new(7, 0))];
        assert_eq!(parse_cursor(&text), Some(read));
        let today = Place {
            offset: 5,
            epoch: None,
        };
        assert_eq!(parse_cursor("0:5"), Some(vec![(ShardId(0), today)]));
        assert_eq!(parse_cursor("1:5@x"), None);
        assert_eq!(parse_cursor("x"), None);
        assert_eq!(parse_cursor("1:x"), None);
    }
}
