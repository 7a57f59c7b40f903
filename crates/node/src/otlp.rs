//! Spans to an OpenTelemetry collector: OTLP over HTTP with JSON bodies.
//!
//! One request per batch, no retry: a trace is worth no memory of ours. What a collector does not take
//! is counted, and said once until it takes some again. Spans of this house have neither events nor
//! links, so none are written.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::trace::{SpanId, SpanKind, Status};
use opentelemetry::{KeyValue, Value};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::{OTelSdkError, OTelSdkResult};
use opentelemetry_sdk::trace::{SpanData, SpanExporter};
use serde_json::{Value as Json, json};

/// Time that a collector has for one request.
const REQUEST_WAIT: Duration = Duration::from_secs(5);
/// Path of traces below a collector's endpoint.
const TRACES_PATH: &str = "/v1/traces";

/// Why spans cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum ExporterError {
    /// The endpoint is no address of a collector.
    #[error("otlp_endpoint {0}: is no http:// or https:// address")]
    Endpoint(String),
    /// The HTTP client cannot be made.
    #[error("make a client for the collector: {0}")]
    Client(#[from] reqwest::Error),
    /// TLS towards the collector cannot be set up.
    #[error("set up TLS towards the collector: {0}")]
    Tls(#[from] rustls::Error),
}

/// What became of ended spans since start.
#[derive(Debug, Default)]
pub(crate) struct Sent {
    /// Spans that the collector took.
    pub(crate) taken: AtomicU64,
    /// Spans that it did not take.
    pub(crate) lost: AtomicU64,
    is_failing: AtomicBool,
}

/// Sends batches of spans.
#[derive(Debug)]
pub(crate) struct Exporter {
    client: reqwest::Client,
    url: reqwest::Url,
    runtime: tokio::runtime::Handle,
    resource: Json,
    sent: Arc<Sent>,
}

impl Exporter {
    /// For the collector at `endpoint`, e.g. `http://collector:4318`.
    pub(crate) fn new(endpoint: &str, runtime: tokio::runtime::Handle) -> Result<Self, ExporterError> {
        let url = traces_url(endpoint).ok_or_else(|| ExporterError::Endpoint(endpoint.to_owned()))?;
        let client = reqwest::Client::builder().timeout(REQUEST_WAIT).no_proxy();
        let client = if url.scheme() == "https" {
            // With whatever authorities the system trusts.
            let _ = rustls::crypto::ring::default_provider().install_default();
            client
        } else {
            // Without TLS there is nobody to trust, and a system without authorities is no obstacle.
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let nobody = rustls::ClientConfig::builder_with_provider(provider)
                .with_safe_default_protocol_versions()?
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
            client.tls_backend_preconfigured(nobody)
        };
        Ok(Self {
            client: client.build()?,
            url,
            runtime,
            resource: json!({}),
            sent: Arc::default(),
        })
    }

    /// What became of the spans.
    pub(crate) fn sent(&self) -> Arc<Sent> {
        self.sent.clone()
    }
}

/// Where traces go at the collector of `endpoint`.
pub(crate) fn traces_url(endpoint: &str) -> Option<reqwest::Url> {
    let mut url = reqwest::Url::parse(endpoint).ok()?;
    if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
        return None;
    }
    let path = url.path().trim_end_matches('/').to_owned();
    if !path.ends_with(TRACES_PATH) {
        url.set_path(&format!("{path}{TRACES_PATH}"));
    }
    Some(url)
}

async fn post(client: reqwest::Client, url: reqwest::Url, body: Json) -> Result<u64, String> {
    let response = client
        .post(url)
        .json(&body)
        .send()
        .await
        .map_err(|error| error.to_string())?;
    if !response.status().is_success() {
        return Err(format!("the collector answers {}", response.status()));
    }
    let answer: Json = response.json().await.unwrap_or_default();
    // 64-bit numbers are text in protobuf's JSON; some collectors write them bare.
    let rejected = &answer["partialSuccess"]["rejectedSpans"];
    let count = rejected
        .as_u64()
        .or_else(|| rejected.as_str().and_then(|text| text.parse().ok()));
    Ok(count.unwrap_or(0))
}

impl SpanExporter for Exporter {
    fn export(&self, batch: Vec<SpanData>) -> impl Future<Output = OTelSdkResult> + Send {
        let count = batch.len() as u64;
        let body = request(&self.resource, &batch);
        // The caller is a thread of the SDK, which has no reactor.
        let posting = self
            .runtime
            .spawn(post(self.client.clone(), self.url.clone(), body));
        let sent = self.sent.clone();
        async move {
            let answer = posting
                .await
                .unwrap_or_else(|_| Err("the node is stopping".to_owned()));
            match answer {
                Ok(rejected) => {
                    sent.taken.fetch_add(count.saturating_sub(rejected), Relaxed);
                    sent.lost.fetch_add(rejected.min(count), Relaxed);
                    sent.is_failing.store(false, Relaxed);
                    Ok(())
                }
                Err(reason) => {
                    sent.lost.fetch_add(count, Relaxed);
                    if !sent.is_failing.swap(true, Relaxed) {
                        tracing::warn!(reason, "traces are lost: the collector does not take them");
                    }
                    Err(OTelSdkError::InternalFailure(reason))
                }
            }
        }
    }

    fn set_resource(&mut self, resource: &Resource) {
        let list: Vec<Json> = resource
            .iter()
            .map(|(key, value)| json!({ "key": key.as_str(), "value": any_value(value) }))
            .collect();
        self.resource = json!({ "attributes": list });
    }
}

/// An `ExportTraceServiceRequest` in protobuf's JSON, with ids in hexadecimal as OTLP has it.
fn request(resource: &Json, batch: &[SpanData]) -> Json {
    let spans: Vec<Json> = batch.iter().map(span).collect();
    let scope = json!({ "name": "dunlin", "version": env!("CARGO_PKG_VERSION") });
    let spans = json!([{ "scope": scope, "spans": spans }]);
    json!({ "resourceSpans": [{ "resource": resource, "scopeSpans": spans }] })
}

fn span(data: &SpanData) -> Json {
    let mut span = json!({
        "traceId": data.span_context.trace_id().to_string(),
        "spanId": data.span_context.span_id().to_string(),
        "flags": u32::from(data.span_context.trace_flags().to_u8()),
        "name": data.name,
        "kind": kind(&data.span_kind),
        "startTimeUnixNano": nanos(data.start_time),
        "endTimeUnixNano": nanos(data.end_time),
        "attributes": attributes(&data.attributes),
        "droppedAttributesCount": data.dropped_attributes_count,
        "status": status(&data.status),
    });
    if data.parent_span_id != SpanId::INVALID {
        span["parentSpanId"] = data.parent_span_id.to_string().into();
    }
    span
}

fn kind(kind: &SpanKind) -> u8 {
    match kind {
        SpanKind::Internal => 1,
        SpanKind::Server => 2,
        SpanKind::Client => 3,
        SpanKind::Producer => 4,
        SpanKind::Consumer => 5,
    }
}

fn status(status: &Status) -> Json {
    match status {
        Status::Unset => json!({}),
        Status::Ok => json!({ "code": 1 }),
        Status::Error { description } => json!({ "code": 2, "message": description }),
    }
}

fn nanos(time: SystemTime) -> String {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_nanos().to_string()
}

fn attributes(list: &[KeyValue]) -> Vec<Json> {
    list.iter()
        .map(|pair| json!({ "key": pair.key.as_str(), "value": any_value(&pair.value) }))
        .collect()
}

fn any_value(value: &Value) -> Json {
    match value {
        Value::Bool(value) => json!({ "boolValue": value }),
        Value::I64(value) => json!({ "intValue": value.to_string() }),
        Value::F64(value) => json!({ "doubleValue": value }),
        other => json!({ "stringValue": other.to_string() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_a_base_or_the_whole_address() {
        let url = |text| traces_url(text).map(|url| url.to_string());
        let whole = Some("http://collector:4318/v1/traces".to_owned());
        assert_eq!(url("http://collector:4318"), whole);
        assert_eq!(url("http://collector:4318/"), whole);
        assert_eq!(url("http://collector:4318/v1/traces"), whole);
        assert_eq!(url("https://c/otlp"), Some("https://c/otlp/v1/traces".to_owned()));
        assert_eq!(url("collector:4318"), None);
        assert_eq!(url("ftp://collector"), None);
    }
}
