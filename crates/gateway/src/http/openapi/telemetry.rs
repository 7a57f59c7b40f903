//! Telemetry and events in the document: what devices send, and how readers get it.
//!
//! What the hub does stands in [`crate::http::telemetry`] and [`crate::http::events`].

use dunlin_model::directory::Right;
use dunlin_model::limits::SHARD_COUNT_MAX;

use super::parameters::{
    CONTENT_ENCODING, CONTENT_TYPE, CORRELATION_ID, CREATION_TIME, DEVICE, EXPIRY, MESSAGE_ID,
    MESSAGE_SCHEMA, TO, USER_ID,
};
use super::table::{Access, Body, Content, Kind, Operation, Parameter, Reply};
use crate::limits::{EVENTS_PAGE_MAX, EVENTS_WAIT_MS_MAX};
use crate::websocket::WEBSOCKET_PATH;

const SERVES: Access = Access::Service(&[Right::ServiceConnect]);

const SHARD: Parameter = Parameter::path("Shard", "shard", "Number of the shard, from 0.")
    .of(Kind::Number(0, SHARD_COUNT_MAX as u64 - 1))
    .such_as("0");
const FROM: Parameter = Parameter::query(
    "EventsFrom",
    "from",
    "Where to begin: an offset, `start`, `end`, or `time=` and milliseconds since 1970. A page begins at the start unless asked, a stream at the end; a stream over all shards also takes a cursor.",
);
const TIME: Parameter = Parameter::query(
    "EventsTime",
    "time",
    "Begin at this time, in milliseconds since 1970, whatever `from` says.",
)
.of(Kind::Number(0, u64::MAX));
const MAX: Parameter = Parameter::query(
    "EventsMax",
    "max",
    "Events on a page at the most; 100 unless asked.",
)
.of(Kind::Number(1, EVENTS_PAGE_MAX as u64));
const WAIT: Parameter = Parameter::query(
    "EventsWait",
    "wait_ms",
    "Milliseconds to wait for events where a page would have none.",
)
.of(Kind::Number(0, EVENTS_WAIT_MS_MAX));
const SOURCE: Parameter = Parameter::query(
    "EventsSource",
    "source",
    "Only events of this source, as routes name it (`TwinChangeEvents`) or as events do (`twinChangeEvents`).",
);
const LAST_EVENT_ID: Parameter = Parameter::header(
    "LastEventId",
    "Last-Event-ID",
    "Id of the last event that the reader has: the stream goes on behind it.",
);

pub(super) const OPERATIONS: &[Operation] = &[
    Operation::new(
        "post",
        "/devices/{id}/messages/events",
        "sendEvent",
        "A device sends a message",
        Access::Device,
    )
    .says("Headers `iothub-app-NAME` become properties of the message. It is on disk on a majority when this is answered. A body of type `application/vnd.microsoft.iothub.json` is a list of messages, `[{\"body\": BASE64, \"properties\": {HEADER: VALUE}}]`: each is stored by itself, in order, and an answer other than 204 says that some may not be.")
    .with(&[
        DEVICE, MESSAGE_ID, CORRELATION_ID, USER_ID, CONTENT_TYPE, CONTENT_ENCODING, EXPIRY, TO, CREATION_TIME,
        MESSAGE_SCHEMA,
    ])
    .takes_body(Body { content: Content::Bytes, is_required: false, example: r#"{"temperature": 21.5}"# })
    .replies(&[Reply::done("It is stored.").with(&[("dunlin-receipt", "Where: `shard/offset/term`.")])])
    .refuses(&[400, 413]),
    Operation::new("get", "/events", "streamEvents", "Stream events of all shards", SERVES)
        .says("Server-sent events. Within a shard in the order of its log. The id of each is a cursor over all shards: who comes back with it in `Last-Event-ID` misses nothing and gets nothing twice.")
        .with(&[FROM, TIME, SOURCE, LAST_EVENT_ID])
        .replies(&[Reply::new(200, "A stream without end; the data of each is an `Event`.", Content::Events)])
        .refuses(&[400, 410]),
    Operation::new("get", "/events/{shard}", "readEvents", "Read events of a shard", SERVES)
        .says("A page; or a stream of server-sent events for whoever sends `Accept: text/event-stream`.")
        .with(&[SHARD, FROM, TIME, MAX, WAIT, SOURCE, LAST_EVENT_ID])
        .replies(&[Reply::new(200, "A page, or a stream.", Content::JsonOrEvents("EventPage"))])
        .refuses(&[400, 404, 410]),
    Operation::new("get", "/shards", "listShards", "Where each shard stands", SERVES)
        .replies(&[Reply::json("Shards", "All shards, in order.")]),
    Operation::new("get", WEBSOCKET_PATH, "mqttOverWebSocket", "MQTT over WebSocket", Access::Open)
        .says("An upgrade with subprotocol `mqtt`. The connection is then one of MQTT like any other, and the device shows its credential in CONNECT.")
        .replies(&[Reply::new(101, "The connection is one of MQTT.", Content::Nothing)])
        .refuses(&[400, 429])
        .not_from_a_page(),
];
