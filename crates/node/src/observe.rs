//! What a node shows of itself: `/metrics` in Prometheus's text format, and health that says why.

use std::sync::Arc;

use dunlin_actors::ActorHost;
use dunlin_cluster::{AgreedClock, Cluster};
use dunlin_model::alarm::Alarm;
use dunlin_model::id::GroupId;
use dunlin_storage::journal::Journal;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::audit::Audit;
use crate::certificates::Certificates;
use crate::faults::Faults;
use crate::traces::Traces;

type Labels = Vec<(String, String)>;

/// What can be looked at.
pub(crate) struct Observed {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) journal: Option<Arc<Journal>>,
    pub(crate) host: Option<Arc<ActorHost>>,
    pub(crate) gateway: std::sync::OnceLock<Arc<dunlin_gateway::Metrics>>,
    pub(crate) certificates: Arc<Certificates>,
    pub(crate) audit: Arc<Audit>,
    pub(crate) traces: Option<Arc<Traces>>,
    pub(crate) clock: Arc<AgreedClock>,
    pub(crate) faults: Option<Arc<Faults>>,
    pub(crate) started_ms: u64,
}

impl Observed {
    /// Whether the node serves, and why not if it does not.
    pub(crate) fn health(&self) -> (bool, serde_json::Value) {
        let reasons = self.reasons();
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

    fn reasons(&self) -> Vec<String> {
        let client = self.cluster.client();
        let mut reasons = Vec::new();
        let is_formed = client.directory().is_formed();
        if !is_formed {
            reasons.push("the cluster is not formed".to_owned());
        } else if !client.is_fresh() {
            reasons.push("cut off from the directory: nobody is admitted".to_owned());
        }
        // Missing peers say why, and are no reason by themselves: others may do what they did.
        if is_formed && !client.is_fresh() {
            let silent = self.cluster.silent_nodes();
            if !silent.is_empty() {
                reasons.push(format!("no sign of life from node {}", list(&silent)));
            }
            let lost = self.cluster.groups_without_majority();
            if !lost.is_empty() {
                let names: Vec<String> = lost.into_iter().map(group_name).collect();
                reasons.push(format!("no majority of {}", list(&names)));
            }
        }
        if let Some(error) = self.journal.as_ref().and_then(|journal| journal.failed()) {
            reasons.push(format!("the journal has failed: {error}"));
        }
        reasons.extend(self.certificates.reasons());
        if self.audit.is_failing() {
            reasons.push("audit records cannot be written".to_owned());
        }
        reasons
    }

    /// The metrics as text.
    pub(crate) fn metrics(&self) -> String {
        let mut registry = Registry::with_prefix("dunlin");
        self.add_journal(&mut registry);
        self.add_clock(&mut registry);
        self.add_alarms(&mut registry);
        self.add_groups(&mut registry);
        self.add_actors(&mut registry);
        self.add_gateway(&mut registry);
        self.add_certificates(&mut registry);
        self.add_audit(&mut registry);
        self.add_traces(&mut registry);
        let mut text = String::new();
        if encode(&mut text, &registry).is_err() {
            tracing::error!("cannot encode metrics");
        }
        text
    }

    fn add_journal(&self, registry: &mut Registry) {
        let Some(journal) = &self.journal else { return };
        let stats = journal.stats();
        count(
            registry,
            "journal_flushes",
            "fdatasync calls of the journal since start",
            stats.flushes,
        );
        count(
            registry,
            "journal_records",
            "Records written to the journal since start",
            stats.records,
        );
        count(
            registry,
            "journal_bytes",
            "Bytes written to the journal since start",
            stats.bytes,
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

    fn add_clock(&self, registry: &mut Registry) {
        add(
            registry,
            "clock_correction_ms",
            "Milliseconds that are added to this machine's wall clock since its peers' contradict it; 0 while it is right",
            self.clock.correction_ms(),
        );
    }

    fn add_alarms(&self, registry: &mut Registry) {
        add(
            registry,
            "started_ms",
            "When this process began, in milliseconds since 1970",
            self.started_ms as i64,
        );
        let alarms = Family::<Labels, Counter>::default();
        registry.register(
            "alarms",
            "Damage and failures since start; the log has a line for each",
            alarms.clone(),
        );
        for alarm in Alarm::ALL {
            let labels: Labels = vec![("kind".into(), alarm.name().into())];
            alarms.get_or_create(&labels).inc_by(alarm.count());
        }
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
        let replicas = family(registry, "group_replica", "Id of this node's replica");
        let runs = family(
            registry,
            "group_run",
            "Which run of a replica in this process it is",
        );
        let votes = family(registry, "group_vote_term", "Term of the vote that is on disk");
        let committed = family(
            registry,
            "group_committed",
            "The last entry that is known to be committed",
        );
        let applied = family(registry, "group_applied", "The last entry that is applied");
        for sight in self.cluster.sights() {
            let labels: Labels = vec![("group".into(), sight.id.group.0.to_string())];
            let set = |family: &Family<Labels, Gauge>, value: Option<u64>| {
                if let Some(value) = value {
                    family.get_or_create(&labels).set(value as i64);
                }
            };
            set(&replicas, Some(sight.id.replica.0));
            set(&runs, Some(sight.run));
            set(&votes, sight.vote.map(|(term, _)| term));
            set(&committed, sight.committed.map(|at| at.index));
            set(&applied, sight.applied.map(|at| at.index));
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
        count(
            registry,
            "device_restarts",
            "Restarts of device actors since start",
            stats.device_restarts,
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
            let (full, help) = (format!("gateway_{name}"), "A counter of the doors");
            if name.ends_with("_now") {
                add(registry, &full, help, value as i64);
            } else {
                count(registry, &full, help, value);
            }
        }
    }

    fn add_certificates(&self, registry: &mut Registry) {
        let left = family(
            registry,
            "certificate_seconds_left",
            "Seconds until a certificate ends",
        );
        let renewals = Family::<Labels, Counter>::default();
        registry.register(
            "certificate_renewals",
            "Certificates made or read anew since start",
            renewals.clone(),
        );
        for (name, left_s, renewed) in self.certificates.lives() {
            let labels: Labels = vec![("certificate".into(), name.into())];
            left.get_or_create(&labels).set(left_s as i64);
            renewals.get_or_create(&labels).inc_by(renewed);
        }
        count(
            registry,
            "certificate_renewals_failed",
            "Renewals that did not work since start",
            self.certificates.renewals_failed(),
        );
    }

    fn add_audit(&self, registry: &mut Registry) {
        for (name, help, value) in [
            (
                "audit_records",
                "Audit records kept since start",
                self.audit.records(),
            ),
            (
                "audit_records_lost",
                "Audit records that could not be written",
                self.audit.lost(),
            ),
            (
                "audit_refusals_counted",
                "Refusals that were counted and not recorded one by one",
                self.audit.suppressed(),
            ),
        ] {
            count(registry, name, help, value);
        }
    }

    fn add_traces(&self, registry: &mut Registry) {
        let Some(traces) = &self.traces else { return };
        let sent = traces.sent();
        let load =
            |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
        count(
            registry,
            "trace_spans_sent",
            "Spans that the collector took",
            load(&sent.taken),
        );
        count(
            registry,
            "trace_spans_lost",
            "Spans that the collector did not take",
            load(&sent.lost),
        );
    }
}

fn list(items: &[impl ToString]) -> String {
    items
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(", ")
}

fn group_name(group: GroupId) -> String {
    match group.shard() {
        Some(shard) => format!("shard {shard}"),
        None => "the directory".to_owned(),
    }
}

/// Something that only rises. Its name gets `_total` in the text.
fn count(registry: &mut Registry, name: &str, help: &str, value: u64) {
    let counter: Counter = Counter::default();
    counter.inc_by(value);
    registry.register(name, help, counter);
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
