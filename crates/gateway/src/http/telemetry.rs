//! A device's message over HTTP: stored like one over MQTT, answered with its receipt.

use std::sync::{Arc, Mutex, PoisonError};

use axum::Extension;
use axum::body::Bytes as Body;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use dunlin_model::command::{Consistency, Receipt, TelemetryAck};
use dunlin_model::id::DeviceId;
use dunlin_model::limits::MESSAGE_BYTES_MAX;
use dunlin_model::port::AckSink;
use dunlin_model::quota::Operation;
use dunlin_model::telemetry::{self, Source};
use tokio::sync::oneshot;

use super::authorize::{self, Claim};
use super::error::ApiError;
use crate::bag;
use crate::downward::ACK_PROPERTY;
use crate::limits::{HTTP_RECEIPT_WAIT, QUOTA_MESSAGE_WAIT};
use crate::listen::Peer;
use crate::metrics::{count, count_by};
use crate::quota::Cost;
use crate::shared::Shared;

/// Header with the receipt of a stored message: `shard/offset/term`.
pub(crate) const RECEIPT_HEADER: &str = "dunlin-receipt";

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
    let mut identity = authorize::device(&shared, claim, Consistency::Leader).await?;
    let body = body.map_err(|_| ApiError::too_large())?;
    let bag = bag_of(&headers)?;
    if bag.len() + body.len() > MESSAGE_BYTES_MAX {
        return Err(ApiError::too_large());
    }
    let cost = Cost::message(Operation::DeviceMessage, bag.len() + body.len());
    shared.charge_within(cost, Some(QUOTA_MESSAGE_WAIT)).await?;
    for attempt in 0..2 {
        let (view, method) = &identity;
        let mut record = BytesMut::new();
        telemetry::encode(
            &mut record,
            Source::Http,
            *method,
            view.record.generation,
            &device,
            (&bag, &body),
        );
        count(&shared.metrics.publishes);
        count_by(&shared.metrics.publish_bytes, record.len() as u64);
        match store(&shared, &device, &record).await? {
            TelemetryAck::Stored(receipt) => return Ok(respond(&shared, receipt)),
            TelemetryAck::Unknown => {
                count(&shared.metrics.unknown);
                return Err(ApiError::unknown());
            }
            // Not stored. The generation may have been read from a leader that did not know better.
            TelemetryAck::Fenced if attempt == 0 => {
                identity = authorize::device(&shared, claim, Consistency::Linearizable).await?;
            }
            TelemetryAck::Fenced => count(&shared.metrics.fenced),
        }
    }
    Err(ApiError::unauthorized())
}

fn respond(shared: &Shared, receipt: Receipt) -> Response {
    count(&shared.metrics.acks);
    let mut response = StatusCode::NO_CONTENT.into_response();
    if let Ok(value) = HeaderValue::from_str(&receipt.to_string()) {
        response.headers_mut().insert(RECEIPT_HEADER, value);
    }
    response
}

/// The property bag that the headers make.
pub(crate) fn bag_of(headers: &HeaderMap) -> Result<Vec<u8>, ApiError> {
    let mut bag = Vec::new();
    for (name, value) in headers {
        let name = name.as_str();
        let key = match name.strip_prefix(APP_PREFIX) {
            Some(key) => key,
            None if name == ACK_PROPERTY => name,
            None => match SYSTEM_HEADERS.iter().find(|(header, _)| *header == name) {
                Some((_, key)) => key,
                None => continue,
            },
        };
        let value = value
            .to_str()
            .map_err(|_| ApiError::invalid(format!("header {name} is not text")))?;
        bag::append(&mut bag, key, value);
    }
    bag::check(&bag).map_err(|error| ApiError::invalid(error.to_string()))?;
    Ok(bag)
}

/// Submits one record and waits for its end.
async fn store(shared: &Shared, device: &DeviceId, record: &[u8]) -> Result<TelemetryAck, ApiError> {
    let (sender, receiver) = oneshot::channel();
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
    drop(sink);
    match tokio::time::timeout(HTTP_RECEIPT_WAIT, receiver).await {
        Ok(Ok(ack)) => Ok(ack),
        // Nobody will ever say, or not in time.
        Ok(Err(_)) | Err(_) => Ok(TelemetryAck::Unknown),
    }
}

struct OneAck(Mutex<Option<oneshot::Sender<TelemetryAck>>>);

impl AckSink for OneAck {
    fn on_ack(&self, _token: u64, ack: TelemetryAck) {
        if let Some(sender) = self.0.lock().unwrap_or_else(PoisonError::into_inner).take() {
            let _ = sender.send(ack);
        }
    }
}
