//! What a node shows of itself: `/metrics` in Prometheus's text format, and health that says why.

use std::sync::Arc;

use dunlin_actors::ActorHost;
use dunlin_cluster::Cluster;
use dunlin_storage::journal::Journal;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

type Labels = Vec<(String, String)>;

/// What can be looked at.
pub(crate) struct Observed {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) journal: Option<Arc<Journal>>,
    pub(crate) host: Option<Arc<ActorHost>>,
    pub(crate) gateway: std::sync::OnceLock<Arc<dunlin_gateway::Metrics>>,
}

impl Observed {
    /// Whether the node serves, and why not if it does not.
    pub(crate) fn health(&self) -> (bool, serde_json::Value) {
        let client = self.cluster.client();
        let mut reasons = Vec::new();
        if !client.directory().is_formed() {
            reasons.push("the cluster is not formed".to_owned());
        } else if !client.is_fresh() {
            reasons.push("cut off from the directory: nobody is admitted".to_owned());
        }
        if let Some(error) = self.journal.as_ref().and_then(|journal| journal.failed()) {
            reasons.push(format!("the journal has failed: {error}"));
        }
        let status = if reasons.is_empty() {
            "ready"
        } else {
            "unavailable"
        };
        let body = serde_json::json!({
            "status": status,
            "node": self.cluster.node_id().to_string(),
            "reasons": reasons,
        });
        (reasons.is_empty(), body)
    }

    /// The metrics as text.
    pub(crate) fn metrics(&self) -> String {
        let mut registry = Registry::with_prefix("dunlin");
        self.add_journal(&mut registry);
        self.add_groups(&mut registry);
        self.add_actors(&mut registry);
        self.add_gateway(&mut registry);
        let mut text = String::new();
        if encode(&mut text, &registry).is_err() {
            tracing::error!("cannot encode metrics");
        }
        text
    }

    fn add_journal(&self, registry: &mut Registry) {
        let Some(journal) = &self.journal else { return };
        let stats = journal.stats();
        add(
            registry,
            "journal_flushes",
            "fdatasync calls of the journal since start",
            stats.flushes as i64,
        );
        add(
            registry,
            "journal_records",
            "Records written to the journal since start",
            stats.records as i64,
        );
        add(
            registry,
            "journal_bytes",
            "Bytes written to the journal since start",
            stats.bytes as i64,
        );
        add(
            registry,
            "journal_queue_bytes",
            "Bytes that wait for the journal",
            stats.queue_bytes as i64,
        );
        add(
            registry,
            "journal_segments",
            "Journal segments in use",
            stats.segments_in_use as i64,
        );
        add(
            registry,
            "journal_flush_last_us",
            "Microseconds of the last flush",
            stats.last_flush_micros as i64,
        );
    }

    fn add_groups(&self, registry: &mut Registry) {
        let (terms, leads, lag) = (
            family(registry, "group_term", "Raft term"),
            family(registry, "group_leads", "1 if this replica leads"),
            family(
                registry,
                "group_apply_lag",
                "Entries in the log that are not applied",
            ),
        );
        for (group, status) in self.cluster.status().groups {
            let labels: Labels = vec![("group".into(), group.to_string())];
            terms.get_or_create(&labels).set(status.term as i64);
            leads.get_or_create(&labels).set(i64::from(status.leads));
            lag.get_or_create(&labels)
                .set(status.last.saturating_sub(status.applied) as i64);
        }
    }

    fn add_actors(&self, registry: &mut Registry) {
        let Some(host) = &self.host else { return };
        let stats = host.stats();
        let full = stats.shards.iter().filter(|shard| shard.storage_full).count();
        add(
            registry,
            "device_actors",
            "Device actors in memory",
            stats.device_actors as i64,
        );
        add(
            registry,
            "device_restarts",
            "Restarts of device actors since start",
            stats.device_restarts as i64,
        );
        add(
            registry,
            "devices_quarantined",
            "Devices whose actors keep failing",
            stats.quarantined.len() as i64,
        );
        add(
            registry,
            "shards_full",
            "Led shards that take no writes for want of space",
            full as i64,
        );
    }

    fn add_gateway(&self, registry: &mut Registry) {
        let Some(metrics) = self.gateway.get() else { return };
        for (name, value) in metrics.each() {
            add(
                registry,
                &format!("gateway_{name}"),
                "A counter of the doors",
                value as i64,
            );
        }
    }
}

fn add(registry: &mut Registry, name: &str, help: &str, value: i64) {
    let gauge: Gauge = Gauge::default();
    gauge.set(value);
    registry.register(name, help, gauge);
}

fn family(registry: &mut Registry, name: &str, help: &str) -> Family<Labels, Gauge> {
    let family = Family::<Labels, Gauge>::default();
    registry.register(name, help, family.clone());
    family
}
