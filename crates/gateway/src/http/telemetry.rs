//! A device's message over HTTP, or several in one body: stored like those over MQTT, answered with a receipt.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Extension;
use axum::body::Bytes as Body;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use bytes::BytesMut;
use dunlin_model::command::{Consistency, DeviceView, Receipt, TelemetryAck};
use dunlin_model::id::DeviceId;
use dunlin_model::limits::MESSAGE_BYTES_MAX;
use dunlin_model::port::{AckSink, TraceSpan};
use dunlin_model::telemetry::{self, AuthMethod, Source};
use serde::Deserialize;
use tokio::sync::oneshot;

use super::authorize::{self, Claim};
use super::error::ApiError;
use super::receipts::receipted;
use crate::auth::BASE64;
use crate::bag;
use crate::downward::ACK_PROPERTY;
use crate::limits::{HTTP_RECEIPT_WAIT, QUOTA_MESSAGE_WAIT};
use crate::listen::Peer;
use crate::metrics::{count, count_by};
use crate::shared::Shared;

/// What a body of several messages says that it is.
const BATCH_TYPE: &str = "application/vnd.microsoft.iothub.json";
/// Messages of such a body.
pub(crate) const BATCH_MESSAGES_MAX: usize = 500;

/// Prefix of headers that become application properties.
pub(crate) const APP_PREFIX: &str = "iothub-app-";

/// Headers that become system properties.
pub(crate) const SYSTEM_HEADERS: &[(&str, &str)] = &[
    ("iothub-messageid", "$.mid"),
    ("iothub-correlationid", "$.cid"),
    ("iothub-userid", "$.uid"),
    ("iothub-contenttype", "$.ct"),
    ("iothub-contentencoding", "$.ce"),
    ("iothub-to", "$.to"),
    ("iothub-expiry", "$.exp"),
    ("iothub-creation-time-utc", "$.ctime"),
    ("iothub-message-schema", "$.schema"),
    ("iothub-interface-id", "$.ifid"),
];

/// `POST /devices/{id}/messages/events`.
pub(crate) async fn send(
    State(shared): State<Arc<Shared>>,
    Extension(peer): Extension<Peer>,
    Path(id): Path<String>,
    headers: HeaderMap,
    body: Result<Body, BytesRejection>,
) -> Result<Response, ApiError> {
    let device = DeviceId::parse(&id).map_err(|_| ApiError::unauthorized())?;
    let claim = Claim::of(&device, &headers, &peer);
    let identity = authorize::device(&shared, claim, Consistency::Leader).await?;
    let body = body.map_err(|_| ApiError::too_large())?;
    let messages = match is_batch(&headers) {
        true => read_batch(&body)?,
        false => vec![(bag_of(&headers)?, body)],
    };
    let sizes = messages.iter().map(|(bag, body)| bag.len() + body.len());
    if sizes.clone().sum::<usize>() > MESSAGE_BYTES_MAX {
        return Err(ApiError::too_large());
    }
    shared.charge_messages(sizes, QUOTA_MESSAGE_WAIT).await?;
    let (stored, fenced) = store(&shared, &device, &identity, messages).await?;
    if let Some(receipt) = stored
        && fenced.is_empty()
    {
        return Ok(respond(receipt));
    }
    // The generation may have been read from a leader that did not know better.
    let again = async {
        let identity = authorize::device(&shared, claim, Consistency::Linearizable).await?;
        let (stored, fenced) = store(&shared, &device, &identity, fenced).await?;
        count_by(&shared.metrics.fenced, fenced.len() as u64);
        match stored {
            Some(receipt) if fenced.is_empty() => Ok(respond(receipt)),
            Some(_) => Err(ApiError::unknown()),
            None => Err(ApiError::unauthorized()),
        }
    };
    let answer = again.await;
    // What is refused then is a part: where another was stored, that is not true of all.
    answer.map_err(|refused| match stored {
        Some(_) => ApiError::unknown(),
        None => refused,
    })
}

/// Has messages stored, in their order. Returns the receipt of the last that was, and those that were fenced off, which
/// are not.
async fn store(
    shared: &Shared,
    device: &DeviceId,
    (view, method): &(DeviceView, AuthMethod),
    messages: Vec<Message>,
) -> Result<(Option<Receipt>, Vec<Message>), ApiError> {
    let mut submitted = Vec::with_capacity(messages.len());
    for (bag, body) in &messages {
        let mut record = BytesMut::new();
        let (generation, content) = (view.record.generation, (&bag[..], &body[..]));
        telemetry::encode(&mut record, Source::Http, *method, generation, device, content);
        count(&shared.metrics.publishes);
        count_by(&shared.metrics.publish_bytes, record.len() as u64);
        match submit(shared, device, &record) {
            Ok(one) => submitted.push(one),
            Err(refused) if submitted.is_empty() => return Err(refused),
            // Those before it are on their way: that it was refused is not true of all.
            Err(_) => return Err(ApiError::unknown()),
        }
    }
    let (mut receipt, mut fenced) = (None, Vec::new());
    for (message, submitted) in messages.into_iter().zip(submitted) {
        match submitted.end().await {
            TelemetryAck::Stored(stored) => {
                count(&shared.metrics.acks);
                receipt = Some(stored);
            }
            TelemetryAck::Unknown => {
                count(&shared.metrics.unknown);
                return Err(ApiError::unknown());
            }
            TelemetryAck::Fenced => fenced.push(message),
        }
    }
    Ok((receipt, fenced))
}

fn is_batch(headers: &HeaderMap) -> bool {
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let kind = kind.and_then(|kind| kind.split(';').next());
    kind.is_some_and(|kind| kind.trim().eq_ignore_ascii_case(BATCH_TYPE))
}

/// One message of a batch.
#[derive(Deserialize)]
struct Batched {
    body: String,
    /// True where it is left out.
    #[serde(rename = "base64Encoded")]
    is_base64: Option<bool>,
    /// Under the names that headers have.
    #[serde(default)]
    properties: BTreeMap<String, String>,
}

/// Property bag and body.
type Message = (Vec<u8>, Body);

/// A name as a header has it, but for the letters of an application's property, which a body keeps as they are.
fn header_name(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    match lower.strip_prefix(APP_PREFIX) {
        Some(_) => format!("{APP_PREFIX}{}", &name[APP_PREFIX.len()..]),
        None => lower,
    }
}

/// The messages of a batch, in its order.
pub(crate) fn read_batch(body: &[u8]) -> Result<Vec<Message>, ApiError> {
    let read: Vec<Batched> = serde_json::from_slice(body)
        .map_err(|error| ApiError::invalid(format!("the batch cannot be read: {error}")))?;
    if read.is_empty() || read.len() > BATCH_MESSAGES_MAX {
        let bounds = format!("a batch has 1 to {BATCH_MESSAGES_MAX} messages");
        return Err(ApiError::invalid(bounds));
    }
    let messages = read.into_iter().map(|message| {
        let properties = message.properties.iter();
        let named: Vec<_> = properties
            .map(|(name, value)| (header_name(name), value))
            .collect();
        let named = named
            .iter()
            .map(|(name, value)| (name.as_str(), Some(value.as_str())));
        let bag = bag_from(named)?;
        let body = match message.is_base64.unwrap_or(true) {
            true => BASE64
                .decode(&message.body)
                .map_err(|_| ApiError::invalid("a body of the batch is no Base64"))?,
            false => message.body.into_bytes(),
        };
        Ok((bag, body.into()))
    });
    messages.collect()
}

fn respond(receipt: Receipt) -> Response {
    receipted(StatusCode::NO_CONTENT.into_response(), receipt)
}

/// The property bag that the headers make.
pub(crate) fn bag_of(headers: &HeaderMap) -> Result<Vec<u8>, ApiError> {
    let named = headers.iter();
    bag_from(named.map(|(name, value)| (name.as_str(), value.to_str().ok())))
}

/// The property bag of names in lower case and their values, where they are text.
fn bag_from<'a>(named: impl Iterator<Item = (&'a str, Option<&'a str>)>) -> Result<Vec<u8>, ApiError> {
    let mut bag = Vec::new();
    for (name, value) in named {
        let key = match name.strip_prefix(APP_PREFIX) {
            Some(key) => key,
            None if name == ACK_PROPERTY => name,
            None => match SYSTEM_HEADERS.iter().find(|(header, _)| *header == name) {
                Some((_, key)) => key,
                None => continue,
            },
        };
        let value = value.ok_or_else(|| ApiError::invalid(format!("header {name} is not text")))?;
        bag::append(&mut bag, key, value);
    }
    bag::check(&bag).map_err(|error| ApiError::invalid(error.to_string()))?;
    Ok(bag)
}

/// A record that is on its way. Its trace ends with it.
struct Submitted {
    end: oneshot::Receiver<TelemetryAck>,
    _span: Option<Box<dyn TraceSpan>>,
}

impl Submitted {
    async fn end(self) -> TelemetryAck {
        match tokio::time::timeout(HTTP_RECEIPT_WAIT, self.end).await {
            Ok(Ok(ack)) => ack,
            // Nobody will ever say, or not in time.
            Ok(Err(_)) | Err(_) => TelemetryAck::Unknown,
        }
    }
}

/// Submits one record.
fn submit(shared: &Shared, device: &DeviceId, record: &[u8]) -> Result<Submitted, ApiError> {
    let (sender, end) = oneshot::channel();
    let sink: Arc<dyn AckSink> = Arc::new(OneAck(Mutex::new(Some(sender))));
    let tracer = shared.hooks.tracer.as_ref();
    let span = tracer.and_then(|tracer| tracer.begin("http.send"));
    match &span {
        None => shared.client.submit_telemetry(device, record, &sink, 0)?,
        Some(span) => {
            span.note("device", device);
            let trace = span.context();
            shared.client.submit_followed(device, record, &sink, 0, trace)?;
        }
    }
    Ok(Submitted { end, _span: span })
}

struct OneAck(Mutex<Option<oneshot::Sender<TelemetryAck>>>);

impl AckSink for OneAck {
    fn on_ack(&self, _token: u64, ack: TelemetryAck) {
        if let Some(sender) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = sender.send(ack);
        }
    }
}
