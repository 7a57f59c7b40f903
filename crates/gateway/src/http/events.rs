//! Events for readers: pages and server-sent streams, of one shard or of all.
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
use dunlin_model::id::{ShardId, identity_parts};
use dunlin_model::port::EventPage;
use dunlin_model::telemetry::{self, Record, Source};
use futures_util::stream::{self, BoxStream, Stream, StreamExt as _};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tokio::sync::OwnedSemaphorePermit;

use super::authorize;
use super::devices::parse_shard;
use super::error::ApiError;
use crate::auth::{self, BASE64};
use crate::bag;
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
}

impl ReadQuery {
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
        let events =
            follow(Arc::clone(&shared), shard, next).map(move |found| event(id(found.offset), &found.json));
        return Ok(respond(
            &shared,
            permit,
            stream::iter(start).chain(events).boxed(),
        ));
    }
    let count_max = query.max.unwrap_or(EVENTS_PAGE_DEFAULT).clamp(1, EVENTS_PAGE_MAX);
    let wait_ms = query.wait_ms.unwrap_or(0).min(EVENTS_WAIT_MS_MAX);
    let from = query.from(ReadFrom::Offset(0))?;
    let page = shared
        .client
        .read_events(shard, from, EVENTS_READ_BYTES, wait_ms)
        .await?;
    let (found, next) = take(shard, &page, count_max);
    count_by(&shared.metrics.events_read, found.len() as u64);
    let events: Vec<Value> = found.into_iter().map(|found| found.json).collect();
    let body = json!({
        "shard": shard.0, "logEpoch": shared.client.directory().epoch_of(shard), "events": events, "next": next, "first": page.first_offset, "end": page.next_offset,
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
        .map(|(shard, offset)| follow(Arc::clone(&shared), *shard, *offset).boxed())
        .collect();
    let events = stream::select_all(streams).map(move |found| {
        if let Some((_, offset)) = next.iter_mut().find(|(shard, _)| *shard == found.shard) {
            *offset = found.offset + 1;
        }
        event(format_cursor(&directory, &next), &found.json)
    });
    Ok(respond(
        &shared,
        permit,
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
    permit: OwnedSemaphorePermit,
    events: BoxStream<'static, EventResult>,
) -> Response {
    // The permit lives as long as the stream; draining ends both.
    let until = shared.draining.clone().cancelled_owned();
    let events = events.map(move |event| {
        let _permit = &permit;
        event
    });
    Sse::new(events.take_until(Box::pin(until)))
        .keep_alive(KeepAlive::default())
        .into_response()
}

/// The events of a shard from offset `next` on, without end. A read that fails is tried again after a pause.
fn follow(shared: Arc<Shared>, shard: ShardId, next: u64) -> impl Stream<Item = Found> + Send {
    let state = (shared, next, VecDeque::new());
    stream::unfold(state, move |(shared, mut next, mut pending)| async move {
        loop {
            if let Some(found) = pending.pop_front() {
                count(&shared.metrics.events_read);
                return Some((found, (shared, next, pending)));
            }
            let from = ReadFrom::Offset(next);
            match shared
                .client
                .read_events(shard, from, EVENTS_READ_BYTES, EVENTS_WAIT_MS_MAX)
                .await
            {
                Ok(page) => {
                    let found;
                    (found, next) = take(shard, &page, usize::MAX);
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

/// The events of a page from the asked offset on, and the offset after the last one taken.
fn take(shard: ShardId, page: &EventPage, count_max: usize) -> (Vec<Found>, u64) {
    let (mut found, mut next) = (Vec::new(), page.from);
    'page: for run in &page.runs {
        for (offset, record) in (run.first_offset..).zip(telemetry::records(run.records.clone())) {
            if offset < page.from {
                continue;
            }
            if found.len() >= count_max {
                break 'page;
            }
            match record {
                Ok(record) => {
                    let json = to_json(shard, (offset, run.term, run.time_ms), &record);
                    found.push(Found { shard, offset, json });
                }
                // What a segment holds was checked when it was read; go on behind it all the same.
                Err(error) => tracing::warn!(%shard, offset, %error, "stored record not understood"),
            }
            next = offset + 1;
        }
        next = if found.len() < count_max {
            next.max(run.next_offset())
        } else {
            next
        };
    }
    (found, next)
}

fn to_json(shard: ShardId, (offset, term, time_ms): (u64, u64, u64), record: &Record) -> Value {
    let (mut properties, mut system) = (Map::new(), Map::new());
    for (key, value) in bag::properties(&record.bag) {
        let value = value.map_or(Value::Null, |value| Value::String(value.into_owned()));
        match bag::system_name(&key) {
            Some(name) => system.insert(name.to_owned(), value),
            None => properties.insert(key.into_owned(), value),
        };
    }
    if record.source == Source::MqttRetain {
        properties.insert("mqtt-retain".to_owned(), json!("true"));
    }
    let (device, module) = identity_parts(record.device_str());
    let enqueued = iso_utc(time_ms);
    for (name, value) in [
        ("iothub-connection-device-id", json!(device)),
        (
            "iothub-connection-auth-method",
            json!(auth::method_text(record.auth)),
        ),
        ("iothub-enqueuedtime", json!(enqueued)),
        ("iothub-message-source", json!("Telemetry")),
    ] {
        system.insert(name.to_owned(), value);
    }
    if let Some(module) = module {
        system.insert("iothub-connection-module-id".to_owned(), json!(module));
    }
    let mut event = json!({
        "shard": shard.0,
        "offset": offset,
        "term": term,
        "enqueuedTimeMs": time_ms,
        "enqueuedTimeUtc": enqueued,
        "deviceId": device,
        "properties": properties,
        "systemProperties": system,
        "body": BASE64.encode(&record.payload),
    });
    if let Some(module) = module {
        event["moduleId"] = json!(module);
    }
    if let Ok(text) = std::str::from_utf8(&record.payload) {
        match serde_json::from_str::<Value>(text) {
            Ok(value) => event["json"] = value,
            Err(_) => event["bodyText"] = json!(text),
        }
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::BytesMut;
    use dunlin_model::id::DeviceId;
    use dunlin_model::port::EventRun;
    use dunlin_model::telemetry::AuthMethod;

    fn page(from: u64, counts: &[u32]) -> EventPage {
        let device = DeviceId::parse("d").unwrap();
        let mut first_offset = 10;
        let runs = counts
            .iter()
            .map(|count| {
                let mut records = BytesMut::new();
                for _ in 0..*count {
                    telemetry::encode(
                        &mut records,
                        Source::Mqtt,
                        AuthMethod::DeviceKey,
                        1,
                        &device,
                        (b"a=1&%24.mid=m", b"{\"t\":1}"),
                    );
                }
                let run = EventRun {
                    index: 1,
                    term: 2,
                    time_ms: 5,
                    first_offset,
                    count: *count,
                    records: records.freeze(),
                };
                first_offset += u64::from(*count);
                run
            })
            .collect();
        EventPage {
            runs,
            from,
            first_offset: 0,
            next_offset: first_offset,
        }
    }

    #[test]
    fn a_page_begins_and_ends_where_it_should() {
        let places =
            |(found, next): (Vec<Found>, u64)| (found.iter().map(|f| f.offset).collect::<Vec<_>>(), next);
        assert_eq!(
            places(take(ShardId(0), &page(11, &[3, 2]), 100)),
            (vec![11, 12, 13, 14], 15)
        );
        assert_eq!(
            places(take(ShardId(0), &page(11, &[3, 2]), 2)),
            (vec![11, 12], 13)
        );
        assert_eq!(places(take(ShardId(0), &page(11, &[3, 2]), 1)), (vec![11], 12));
        assert_eq!(places(take(ShardId(0), &page(15, &[]), 5)), (vec![], 15));
    }

    #[test]
    fn an_event_shows_its_properties_and_body() {
        let (found, _) = take(ShardId(3), &page(10, &[1]), 1);
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
