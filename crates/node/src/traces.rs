//! The spans of followed messages: `tracing` spans below a dispatcher of their own, through
//! `tracing-opentelemetry` and the SDK's batches to [`otlp`](crate::otlp).
//!
//! The dispatcher is not the process's. A trace names its node, whose id is known only when the data
//! directory is open, long after logging began; and no log line or span of a library ever becomes
//! part of a trace. Decides which messages are followed: a share of them, drawn when they come in.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use dunlin_model::id::NodeId;
use dunlin_model::port::{TraceSpan, Tracer};
use dunlin_model::trace::TraceContext;
use opentelemetry::trace::{
    SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracerProvider};
use tracing::{Dispatch, Span};
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry;

use crate::otlp::{Exporter, ExporterError, Sent};

/// Target of the spans, and all that the dispatcher lets through.
const TARGET: &str = "dunlin::trace";
/// Ended spans that wait to be sent; more are dropped.
const SPANS_WAITING_MAX: usize = 2_048;
/// Spans of one request to the collector.
const SPANS_PER_REQUEST_MAX: usize = 256;
/// Time that spans wait for others to be sent with.
const SEND_EVERY: Duration = Duration::from_millis(500);
/// Time for the last spans at a clean stop.
const LAST_WORDS_WAIT: Duration = Duration::from_secs(2);

/// Makes spans, and sends them when they end.
pub(crate) struct Traces {
    dispatch: Dispatch,
    provider: SdkTracerProvider,
    /// A message is followed if a number drawn for it is below this; `u64::MAX` follows all.
    follow_below: u64,
    sent: Arc<Sent>,
}

impl Traces {
    /// Sends to the collector at `endpoint`; `ratio` (0 to 1) is the share of messages that is followed.
    /// Requests run on `runtime`.
    pub(crate) fn start(
        endpoint: &str,
        ratio: f64,
        node: NodeId,
        runtime: tokio::runtime::Handle,
    ) -> Result<Arc<Self>, ExporterError> {
        let exporter = Exporter::new(endpoint, runtime)?;
        let sent = exporter.sent();
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(SPANS_WAITING_MAX)
            .with_max_export_batch_size(SPANS_PER_REQUEST_MAX)
            .with_scheduled_delay(SEND_EVERY)
            .build();
        let processor = BatchSpanProcessor::builder(exporter)
            .with_batch_config(batches)
            .build();
        let resource = Resource::builder_empty()
            .with_attributes([
                KeyValue::new("service.name", "dunlin"),
                KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
                KeyValue::new("service.instance.id", node.to_string()),
            ])
            .build();
        let provider = SdkTracerProvider::builder()
            // Who is followed was drawn at the door; whoever has a parent follows it.
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
            .with_resource(resource)
            .with_span_processor(processor)
            .build();
        let layer = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("dunlin"))
            .with_location(false)
            .with_threads(false)
            .with_target(false)
            .with_tracked_inactivity(false);
        let subscriber = registry()
            .with(Targets::new().with_target(TARGET, LevelFilter::INFO))
            .with(layer);
        Ok(Arc::new(Self {
            dispatch: Dispatch::new(subscriber),
            provider,
            follow_below: share(ratio),
            sent,
        }))
    }

    /// Spans sent, and spans lost, since start.
    pub(crate) fn sent(&self) -> &Sent {
        &self.sent
    }

    /// Sends what waits and ends. Blocks, for a while at most.
    pub(crate) fn stop(&self) {
        if let Err(error) = self.provider.shutdown_with_timeout(LAST_WORDS_WAIT) {
            tracing::debug!(%error, "some spans were not sent");
        }
    }

    fn span(&self, name: &'static str, parent: Context) -> Box<dyn TraceSpan> {
        let span = tracing::dispatcher::with_default(
            &self.dispatch,
            || tracing::info_span!(target: TARGET, parent: None, "span", otel.name = name, otel.kind = kind(name)),
        );
        if let Err(error) = span.set_parent(parent) {
            tracing::debug!(%error, "a span has no parent");
        }
        Box::new(Followed(span))
    }
}

/// The share of all `u64` that a ratio stands for.
fn share(ratio: f64) -> u64 {
    // Beyond its range the cast saturates: 1.0 is all of them.
    (ratio * u64::MAX as f64) as u64
}

/// What a span is in the eyes of OpenTelemetry: a call that came in, one that went out, or neither.
fn kind(name: &str) -> &'static str {
    match name {
        "mqtt.publish" | "http.send" | "shard.frame" => "server",
        "frame.submit" => "client",
        _ => "internal",
    }
}

impl Tracer for Traces {
    fn begin(&self, name: &'static str) -> Option<Box<dyn TraceSpan>> {
        let is_followed = self.follow_below == u64::MAX || rand::random::<u64>() < self.follow_below;
        is_followed.then(|| self.span(name, Context::new()))
    }

    fn child(&self, name: &'static str, parent: TraceContext) -> Box<dyn TraceSpan> {
        let parent = SpanContext::new(
            TraceId::from_bytes(parent.trace_id),
            SpanId::from_bytes(parent.span_id),
            TraceFlags::new(parent.flags),
            true,
            TraceState::default(),
        );
        self.span(name, Context::new().with_remote_span_context(parent))
    }
}

struct Followed(Span);

impl TraceSpan for Followed {
    fn context(&self) -> TraceContext {
        let context = self.0.context();
        let span = context.span();
        let span = span.span_context();
        TraceContext {
            trace_id: span.trace_id().to_bytes(),
            span_id: span.span_id().to_bytes(),
            flags: span.trace_flags().to_u8(),
        }
    }

    fn note(&self, key: &'static str, fact: &dyn Display) {
        self.0.set_attribute(key, fact.to_string());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_a_share_of_all_numbers() {
        assert_eq!((share(0.0), share(1.0)), (0, u64::MAX));
        assert!(share(0.01).abs_diff(u64::MAX / 100) < u64::MAX / 1_000_000);
    }
}
