//! What an operator may tell a node: a TOML file, over defaults that make a complete hub of one node.
//!
//! A file with an unknown key or an impossible value is refused whole, with every problem listed at
//! once by line and key. `config/dunlin.toml` is the annotated example.

mod uploads;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use dunlin_cluster::Timing;
use dunlin_gateway::UploadConfig;
use dunlin_model::directory::Role;
use dunlin_model::limits::{SHARD_COUNT_DEFAULT, SHARD_COUNT_MAX};
use serde::Deserialize;

use crate::blobs;

/// Everything a node is told.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeConfig {
    /// Where the node keeps what must outlive it.
    pub data: PathBuf,
    /// Cluster CA, join secret, admin token, shared by the nodes of a cluster; inside `data` if not given.
    pub pki: Option<PathBuf>,
    /// Address of the object store for files; a folder inside `data` if not given.
    pub object_store: Option<String>,
    /// Files that devices upload.
    pub uploads: UploadConfig,
    /// The hub's name, as devices put it into user names and tokens.
    pub host_name: String,
    /// Address that all doors listen on.
    pub bind: IpAddr,
    /// Port of MQTT over TLS.
    pub mqtts_port: u16,
    /// Port of AMQP over TLS.
    pub amqps_port: u16,
    /// Port of Kafka over TLS.
    pub kafka_port: u16,
    /// `host:port` that Kafka's clients are told to dial for this node.
    pub kafka_advertise: Option<String>,
    /// Port of HTTPS and of MQTT over WebSocket.
    pub https_port: u16,
    /// A second port of HTTPS, where the device SDKs look for WebSockets. Tried, not demanded.
    pub https_alt_port: Option<u16>,
    /// Port of MQTT without TLS; on loopback only.
    pub mqtt_port: Option<u16>,
    /// Port that other nodes reach this one on.
    pub cluster_port: u16,
    /// `host:port` that other nodes are told to reach this one on.
    pub advertise: Option<String>,
    /// Where other nodes may be found.
    pub seeds: Vec<String>,
    /// Shard nodes that form a new cluster together.
    pub expect: usize,
    /// What the node does.
    pub roles: Vec<Role>,
    /// Shards of a new cluster.
    pub shard_count: u32,
    /// Replicas of each group in a new cluster.
    pub replication_factor: u32,
    /// `lan` or `wan`.
    pub timing: Timing,
    /// Seconds of a node's silence after which its replicas are made anew on others.
    pub replace_after_s: u64,
    /// Seconds between checkpoints.
    pub checkpoint_s: u64,
    /// Seconds after which an event segment is sealed, whatever its size.
    pub segment_age_s: u64,
    /// Segments of 64 MiB that the journal may have.
    pub journal_segments: usize,
    /// Connections of all doors together.
    pub connections_max: usize,
    /// Threads for consensus, and as many for the doors; 0 is one per core for each.
    pub workers: usize,
    /// How long a certificate of the doors is valid that the cluster's authority makes.
    pub door_certificate_life: Duration,
    /// How long a certificate is valid that this node shows to its peers.
    pub node_certificate_life: Duration,
    /// Certificate chain (PEM) that the doors show in place of one of the cluster's authority.
    pub tls_cert: Option<PathBuf>,
    /// Its private key (PEM).
    pub tls_key: Option<PathBuf>,
    /// OpenTelemetry collector that traces go to; none are made without.
    pub otlp_endpoint: Option<String>,
    /// Share of messages that are followed, 0 to 1.
    pub trace_ratio: f64,
    /// Whether the admin may skew this node's clock and make its actors panic, for tests of a cluster.
    pub allow_faults: bool,
}

impl Default for NodeConfig {
    fn default() -> Self {
        Self {
            data: PathBuf::from("dunlin-data"),
            pki: None,
            object_store: None,
            uploads: UploadConfig::default(),
            host_name: "localhost".into(),
            bind: IpAddr::V4(Ipv4Addr::LOCALHOST),
            mqtts_port: 8883,
            amqps_port: 5671,
            kafka_port: 9093,
            kafka_advertise: None,
            https_port: 8443,
            https_alt_port: Some(443),
            mqtt_port: None,
            cluster_port: 8900,
            advertise: None,
            seeds: Vec::new(),
            expect: 1,
            roles: vec![Role::Shard, Role::Gateway],
            shard_count: SHARD_COUNT_DEFAULT,
            replication_factor: 3,
            timing: Timing::LAN,
            replace_after_s: 300,
            checkpoint_s: 10,
            segment_age_s: 86_400,
            journal_segments: 16,
            connections_max: 100_000,
            workers: 0,
            door_certificate_life: 90 * DAY,
            node_certificate_life: 7 * DAY,
            tls_cert: None,
            tls_key: None,
            otlp_endpoint: None,
            trace_ratio: 0.01,
            allow_faults: false,
        }
    }
}

const HOUR: Duration = Duration::from_secs(3_600);
const DAY: Duration = Duration::from_secs(24 * 3_600);
/// Hours that a certificate is valid at the most: a hundred years.
const CERTIFICATE_HOURS_MAX: u32 = 876_000;

/// What is wrong with a configuration; one line per problem.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct ConfigError(pub Vec<String>);

/// The file's shape. Every key is optional; unknown ones are collected, not silently dropped.
#[derive(Debug, Deserialize, Default)]
#[serde(default)]
struct File {
    data: Option<PathBuf>,
    pki: Option<PathBuf>,
    object_store: Option<String>,
    host_name: Option<String>,
    bind: Option<IpAddr>,
    mqtts_port: Option<u16>,
    amqps_port: Option<u16>,
    kafka_port: Option<u16>,
    kafka_advertise: Option<String>,
    https_port: Option<u16>,
    https_alt_port: Option<u16>,
    mqtt_port: Option<u16>,
    cluster_port: Option<u16>,
    advertise: Option<String>,
    seeds: Option<Vec<String>>,
    expect: Option<usize>,
    roles: Option<Vec<Role>>,
    shard_count: Option<u32>,
    replication_factor: Option<u32>,
    timing: Option<String>,
    replace_after_s: Option<u64>,
    checkpoint_s: Option<u64>,
    segment_age_s: Option<u64>,
    journal_segments: Option<usize>,
    connections_max: Option<usize>,
    workers: Option<usize>,
    door_certificate_hours: Option<u32>,
    node_certificate_hours: Option<u32>,
    tls_cert: Option<PathBuf>,
    tls_key: Option<PathBuf>,
    otlp_endpoint: Option<String>,
    trace_ratio: Option<f64>,
    allow_faults: Option<bool>,
}

/// Every key that a file may have.
const KEYS: &[&str] = &[
    "data",
    "pki",
    "object_store",
    "host_name",
    "bind",
    "mqtts_port",
    "amqps_port",
    "kafka_port",
    "kafka_advertise",
    "https_port",
    "https_alt_port",
    "mqtt_port",
    "cluster_port",
    "advertise",
    "seeds",
    "expect",
    "roles",
    "shard_count",
    "replication_factor",
    "timing",
    "replace_after_s",
    "checkpoint_s",
    "segment_age_s",
    "journal_segments",
    "connections_max",
    "workers",
    "door_certificate_hours",
    "node_certificate_hours",
    "tls_cert",
    "tls_key",
    "otlp_endpoint",
    "trace_ratio",
    "allow_faults",
];

impl NodeConfig {
    /// Reads a file's text over the defaults. `name` stands before each problem.
    pub fn parse(name: &str, text: &str) -> Result<Self, ConfigError> {
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| {
            let line = error.span().map_or(0, |span| line_of(text, span.start));
            ConfigError(vec![format!("{name}:{line}: {}", error.message())])
        })?;
        let mut problems = Vec::new();
        let mut config = Self::default();
        for (key, value) in &table {
            let at = || format!("{name}:{}: {key}", key_line(text, key));
            if key == "uploads" {
                let Some(table) = value.as_table() else {
                    problems.push(format!("{}: is a table", at()));
                    continue;
                };
                let found = uploads::take(&mut config.uploads, table).into_iter();
                problems.extend(
                    found.map(|(key, problem)| format!("{name}:{}: {key}: {problem}", key_line(text, &key))),
                );
                continue;
            }
            if !KEYS.contains(&key.as_str()) {
                problems.push(format!("{}: unknown key", at()));
                continue;
            }
            // One key at a time, so that each bad value is reported and not only the first.
            let one = toml::Table::from_iter([(key.clone(), value.clone())]);
            match one.try_into::<File>() {
                Ok(file) => config.take(file),
                Err(error) => problems.push(format!("{}: {}", at(), error.message())),
            }
            if key == "timing" && !matches!(value.as_str(), Some("lan" | "wan")) {
                problems.push(format!("{}: is \"lan\" or \"wan\"", at()));
            }
        }
        for (key, problem) in config.problems() {
            problems.push(format!("{name}:{}: {key}: {problem}", key_line(text, key)));
        }
        if problems.is_empty() {
            Ok(config)
        } else {
            Err(ConfigError(problems))
        }
    }

    fn take(&mut self, file: File) {
        fn set<T>(field: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *field = value;
            }
        }
        set(&mut self.data, file.data);
        set(&mut self.pki, file.pki.map(Some));
        set(&mut self.object_store, file.object_store.map(Some));
        set(&mut self.host_name, file.host_name);
        set(&mut self.bind, file.bind);
        set(&mut self.mqtts_port, file.mqtts_port);
        set(&mut self.amqps_port, file.amqps_port);
        set(&mut self.kafka_port, file.kafka_port);
        set(&mut self.kafka_advertise, file.kafka_advertise.map(Some));
        set(&mut self.https_port, file.https_port);
        set(
            &mut self.https_alt_port,
            file.https_alt_port.map(|port| (port != 0).then_some(port)),
        );
        set(&mut self.mqtt_port, file.mqtt_port.map(Some));
        set(&mut self.cluster_port, file.cluster_port);
        set(&mut self.advertise, file.advertise.map(Some));
        set(&mut self.seeds, file.seeds);
        set(&mut self.expect, file.expect);
        set(&mut self.roles, file.roles);
        set(&mut self.shard_count, file.shard_count);
        set(&mut self.replication_factor, file.replication_factor);
        set(
            &mut self.timing,
            file.timing
                .map(|name| if name == "wan" { Timing::WAN } else { Timing::LAN }),
        );
        set(&mut self.replace_after_s, file.replace_after_s);
        set(&mut self.checkpoint_s, file.checkpoint_s);
        set(&mut self.segment_age_s, file.segment_age_s);
        set(&mut self.journal_segments, file.journal_segments);
        set(&mut self.connections_max, file.connections_max);
        set(&mut self.workers, file.workers);
        let life = |hours: Option<u32>| hours.map(|hours| HOUR * hours);
        set(&mut self.door_certificate_life, life(file.door_certificate_hours));
        set(&mut self.node_certificate_life, life(file.node_certificate_hours));
        set(&mut self.tls_cert, file.tls_cert.map(Some));
        set(&mut self.tls_key, file.tls_key.map(Some));
        set(&mut self.otlp_endpoint, file.otlp_endpoint.map(Some));
        set(&mut self.trace_ratio, file.trace_ratio);
        set(&mut self.allow_faults, file.allow_faults);
    }

    /// What is still missing when the data directory, which may know seeds, has been asked as well.
    pub(crate) fn missing(&self) -> Option<(&'static str, String)> {
        let can_find_others = self.roles.contains(&Role::Shard) || !self.seeds.is_empty();
        let rule = "a node without the role `shard` finds its cluster by seeds";
        (!can_find_others).then(|| ("seeds", rule.to_owned()))
    }

    /// Values that cannot be, by key.
    pub fn problems(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        let mut must = |holds: bool, key: &'static str, rule: String| {
            if !holds {
                found.push((key, rule));
            }
        };
        must(
            !self.host_name.is_empty(),
            "host_name",
            "must not be empty".into(),
        );
        must(!self.roles.is_empty(), "roles", "a node has a role".into());
        let store = self.object_store.as_deref().and_then(blobs::problem);
        must(store.is_none(), "object_store", store.unwrap_or_default());
        must(
            (1..=SHARD_COUNT_MAX).contains(&self.shard_count),
            "shard_count",
            format!("is between 1 and {SHARD_COUNT_MAX}"),
        );
        must(
            [1, 3, 5, 7].contains(&self.replication_factor),
            "replication_factor",
            "is 1, 3, 5 or 7".into(),
        );
        must(self.expect <= 64, "expect", "is 64 at most".into());
        must(
            self.expect <= 1 || !self.seeds.is_empty(),
            "seeds",
            "nodes that form together need seeds".into(),
        );
        must(
            self.replace_after_s > 0,
            "replace_after_s",
            "is at least 1".into(),
        );
        must(self.checkpoint_s > 0, "checkpoint_s", "is at least 1".into());
        must(self.segment_age_s > 0, "segment_age_s", "is at least 1".into());
        must(
            self.journal_segments >= 4,
            "journal_segments",
            "is at least 4".into(),
        );
        must(
            self.connections_max > 0,
            "connections_max",
            "is at least 1".into(),
        );
        must(
            self.mqtt_port.is_none() || self.roles.contains(&Role::Gateway),
            "mqtt_port",
            "a node without the role `gateway` takes no MQTT".into(),
        );
        must(
            self.mqtt_port.is_none() || self.bind.is_loopback(),
            "mqtt_port",
            "MQTT without TLS is served on loopback only".into(),
        );
        let lives = [
            ("door_certificate_hours", self.door_certificate_life),
            ("node_certificate_hours", self.node_certificate_life),
        ];
        for (key, life) in lives {
            must(
                !life.is_zero() && life <= HOUR * CERTIFICATE_HOURS_MAX,
                key,
                format!("is between 1 and {CERTIFICATE_HOURS_MAX}"),
            );
        }
        must(
            self.tls_cert.is_some() == self.tls_key.is_some(),
            "tls_cert",
            "a certificate and its key (tls_key) come together".into(),
        );
        let endpoint = self.otlp_endpoint.as_deref();
        must(
            endpoint.is_none_or(|endpoint| crate::otlp::traces_url(endpoint).is_some()),
            "otlp_endpoint",
            "is an http:// or https:// address".into(),
        );
        must(
            (0.0..=1.0).contains(&self.trace_ratio),
            "trace_ratio",
            "is between 0 and 1".into(),
        );
        let ports = [
            Some(self.mqtts_port),
            Some(self.amqps_port),
            Some(self.https_port),
            self.https_alt_port,
            self.mqtt_port,
        ];
        let mut tcp: Vec<u16> = ports.into_iter().flatten().filter(|port| *port != 0).collect();
        tcp.sort_unstable();
        must(
            tcp.windows(2).all(|pair| pair[0] != pair[1]),
            "https_port",
            "two doors have the same port".into(),
        );
        found.extend(uploads::problems(&self.uploads));
        if let Err(error) = self.timing.validate() {
            found.push(("timing", error.to_string()));
        }
        found
    }
}

fn line_of(text: &str, at: usize) -> usize {
    text[..at.min(text.len())].matches('\n').count() + 1
}

fn key_line(text: &str, key: &str) -> usize {
    let is_key = |line: &str| {
        line.trim_start()
            .strip_prefix(key)
            .is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    text.lines().position(is_key).map_or(1, |line| line + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_file_is_a_complete_hub() {
        assert_eq!(NodeConfig::parse("x.toml", ""), Ok(NodeConfig::default()));
    }

    #[test]
    fn every_problem_is_listed_at_once_with_line_and_key() {
        let text =
            "host_name = \"hub\"\nmqttt_port = 1\nshard_count = 0\nbind = \"nowhere\"\n\ntiming = \"fast\"\n";
        let ConfigError(problems) = NodeConfig::parse("x.toml", text).unwrap_err();
        let starts: Vec<String> = problems
            .iter()
            .map(|p| p.split(": ").take(2).collect::<Vec<_>>().join(": "))
            .collect();
        for wanted in [
            "x.toml:2: mqttt_port",
            "x.toml:3: shard_count",
            "x.toml:4: bind",
            "x.toml:6: timing",
        ] {
            assert!(
                starts.iter().any(|start| start == wanted),
                "{wanted} in {problems:?}"
            );
        }
        assert_eq!(problems.len(), 4, "{problems:?}");
    }

    #[test]
    fn what_is_seen_from_outside_is_checked_as_well() {
        let good = "otlp_endpoint = \"http://c:4318\"\ntrace_ratio = 1.0\ndoor_certificate_hours = 24\n";
        let config = NodeConfig::parse("x.toml", good).unwrap();
        assert_eq!(config.door_certificate_life, DAY);
        let bad = "otlp_endpoint = \"c:4318\"\ntrace_ratio = 1.5\nnode_certificate_hours = 0\ntls_cert = \"a.pem\"\n";
        let ConfigError(problems) = NodeConfig::parse("x.toml", bad).unwrap_err();
        let starts = [
            "x.toml:3: node_certificate_hours: ",
            "x.toml:4: tls_cert: ",
            "x.toml:1: otlp_endpoint: ",
            "x.toml:2: trace_ratio: ",
        ];
        assert_eq!(problems.len(), starts.len(), "{problems:?}");
        for (problem, start) in problems.iter().zip(starts) {
            assert!(problem.starts_with(start), "{problem}");
        }
    }

    #[test]
    fn a_role_asks_for_what_it_needs() {
        let problems = |text| match NodeConfig::parse("x.toml", text) {
            Ok(_) => Vec::new(),
            Err(ConfigError(problems)) => problems,
        };
        assert_eq!(problems("roles = [\"shard\"]").len(), 0);
        assert_eq!(
            problems("roles = [\"gateway\"]\nseeds = [\"shard:8900\"]").len(),
            0
        );
        for (text, wanted) in [
            ("roles = []", "roles"),
            ("roles = [\"cook\"]", "roles"),
            ("roles = [\"shard\"]\nmqtt_port = 1883", "mqtt_port"),
        ] {
            let found = problems(text);
            assert!(
                found.iter().any(|problem| problem.contains(wanted)),
                "{text}: {found:?}"
            );
        }
    }

    #[test]
    fn a_gateway_alone_must_be_told_where_the_others_are() {
        let alone = |text| NodeConfig::parse("x.toml", text).expect("a sound file").missing();
        assert_eq!(alone("roles = [\"gateway\"]").map(|(key, _)| key), Some("seeds"));
        assert_eq!(alone("roles = [\"gateway\"]\nseeds = [\"shard:8900\"]"), None);
        assert_eq!(alone("roles = [\"shard\"]"), None);
    }

    #[test]
    fn a_broken_file_names_its_line() {
        let ConfigError(problems) = NodeConfig::parse("x.toml", "a = 1\nb = = 2\n").unwrap_err();
        assert!(problems[0].starts_with("x.toml:2:"), "{problems:?}");
    }
}
