//! Counters of the doors, read by `node`. They only rise, except where a name says `_now`.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// The counters. All are relaxed: each is right by itself, none is ordered with another.
#[derive(Debug, Default)]
pub struct Metrics {
    /// Connections accepted on all listeners.
    pub connections: AtomicU64,
    /// Connections that are open now, HTTP included.
    pub connections_now: AtomicU64,
    /// Connections closed at once because `connections_max` was reached.
    pub connections_refused_full: AtomicU64,
    /// TLS handshakes that failed or took too long.
    pub handshakes_failed: AtomicU64,
    /// MQTT connects that were admitted.
    pub connects_ok: AtomicU64,
    /// MQTT connects refused for their credential, an unknown or a disabled device.
    pub connects_refused_credential: AtomicU64,
    /// MQTT connects refused for their client id.
    pub connects_refused_client_id: AtomicU64,
    /// MQTT connects refused for their protocol level.
    pub connects_refused_protocol: AtomicU64,
    /// MQTT connects refused because the cluster did not answer.
    pub connects_refused_unavailable: AtomicU64,
    /// MQTT connects delayed because the same device connected too often.
    pub connects_damped: AtomicU64,
    /// Sessions open now.
    pub sessions_now: AtomicU64,
    /// Connections closed because the client broke a rule.
    pub protocol_errors: AtomicU64,
    /// Messages taken in from devices, over MQTT and HTTP.
    pub publishes: AtomicU64,
    /// Bytes of their records.
    pub publish_bytes: AtomicU64,
    /// Messages acknowledged to devices.
    pub acks: AtomicU64,
    /// Messages or sessions that a later session or generation fenced.
    pub fenced: AtomicU64,
    /// Messages whose end stayed unknown.
    pub unknown: AtomicU64,
    /// Times a connection stopped reading because the cluster was busy.
    pub busy_pauses: AtomicU64,
    /// Direct methods that devices were sent.
    pub methods_sent: AtomicU64,
    /// Cloud-to-device messages written to devices.
    pub messages_sent: AtomicU64,
    /// Things that went on after the keeper of the hub's plan was asked.
    pub quota_passed: AtomicU64,
    /// Things refused because they came too soon for the hub's plan.
    pub quota_refused_rate: AtomicU64,
    /// Things refused because the day's messages of the hub's plan were used up.
    pub quota_refused_day: AtomicU64,
    /// Things refused because the keeper of the hub's plan could not be asked.
    pub quota_unreachable: AtomicU64,
    /// HTTP requests.
    pub http_requests: AtomicU64,
    /// HTTP requests answered with 401 or 403.
    pub http_refused: AtomicU64,
    /// Events handed to readers.
    pub events_read: AtomicU64,
    /// Events handed to webhooks and written into files, each time anew.
    pub events_dispatched: AtomicU64,
    /// Times that a webhook or the store of files took nothing.
    pub dispatch_failures: AtomicU64,
    /// Uploads that devices began.
    pub uploads_begun: AtomicU64,
    /// Uploads that devices ended.
    pub uploads_ended: AtomicU64,
    /// Uploads, and bodies of files, that were refused.
    pub uploads_refused: AtomicU64,
    /// Bytes of files and blocks that were taken in, and of files that were made of blocks.
    pub upload_bytes: AtomicU64,
}

/// Adds one.
pub(crate) fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Relaxed);
}

/// Adds `n`.
pub(crate) fn count_by(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Relaxed);
}

/// One more as long as it lives.
#[derive(Debug)]
pub(crate) struct Gauge<'a>(&'a AtomicU64);

impl<'a> Gauge<'a> {
    pub(crate) fn new(counter: &'a AtomicU64) -> Self {
        counter.fetch_add(1, Relaxed);
        Self(counter)
    }
}

impl Drop for Gauge<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

impl Metrics {
    /// Every counter with its name, for whoever writes them out.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("connections", &self.connections),
            ("connections_now", &self.connections_now),
            ("connections_refused_full", &self.connections_refused_full),
            ("handshakes_failed", &self.handshakes_failed),
            ("connects_ok", &self.connects_ok),
            ("connects_refused_credential", &self.connects_refused_credential),
            ("connects_refused_client_id", &self.connects_refused_client_id),
            ("connects_refused_protocol", &self.connects_refused_protocol),
            ("connects_refused_unavailable", &self.connects_refused_unavailable),
            ("connects_damped", &self.connects_damped),
            ("sessions_now", &self.sessions_now),
            ("protocol_errors", &self.protocol_errors),
            ("publishes", &self.publishes),
            ("publish_bytes", &self.publish_bytes),
            ("acks", &self.acks),
            ("fenced", &self.fenced),
            ("unknown", &self.unknown),
            ("busy_pauses", &self.busy_pauses),
            ("methods_sent", &self.methods_sent),
            ("messages_sent", &self.messages_sent),
            ("quota_passed", &self.quota_passed),
            ("quota_refused_rate", &self.quota_refused_rate),
            ("quota_refused_day", &self.quota_refused_day),
            ("quota_unreachable", &self.quota_unreachable),
            ("http_requests", &self.http_requests),
            ("http_refused", &self.http_refused),
            ("events_read", &self.events_read),
            ("events_dispatched", &self.events_dispatched),
            ("dispatch_failures", &self.dispatch_failures),
            ("uploads_begun", &self.uploads_begun),
            ("uploads_ended", &self.uploads_ended),
            ("uploads_refused", &self.uploads_refused),
            ("upload_bytes", &self.upload_bytes),
        ]
        .into_iter()
        .map(|(name, counter)| (name, counter.load(Relaxed)))
    }
}
