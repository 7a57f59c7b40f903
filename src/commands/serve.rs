//! `dunlin serve`: one node. Flags stand over the file, the file over the defaults.

use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use dunlin_model::directory::Role;
use dunlin_node::NodeConfig;

use super::Format;

#[derive(Args)]
pub(crate) struct Serve {
    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Where the node keeps its data [default: dunlin-data]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Folder of the cluster's CA, join secret and admin token [default: DIR/pki]
    #[arg(long, value_name = "DIR")]
    pki: Option<PathBuf>,
    /// The hub's name in user names and tokens [default: localhost]
    #[arg(long, value_name = "NAME")]
    host_name: Option<String>,
    /// Address to listen on [default: 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    bind: Option<IpAddr>,
    /// Port of MQTT over TLS [default: 8883]
    #[arg(long, value_name = "PORT")]
    mqtts_port: Option<u16>,
    /// Port of AMQP over TLS [default: 5671]
    #[arg(long, value_name = "PORT")]
    amqps_port: Option<u16>,
    /// Port of Kafka over TLS [default: 9093]
    #[arg(long, value_name = "PORT")]
    kafka_port: Option<u16>,
    /// Port of HTTPS and MQTT over WebSocket [default: 8443]
    #[arg(long, value_name = "PORT")]
    https_port: Option<u16>,
    /// Second HTTPS port, left out if it cannot be bound; 0 for none [default: 443]
    #[arg(long, value_name = "PORT")]
    https_alt_port: Option<u16>,
    /// Port of MQTT without TLS, on loopback only [default: none]
    #[arg(long, value_name = "PORT")]
    mqtt_port: Option<u16>,
    /// Port (UDP) that other nodes use [default: 8900]
    #[arg(long, value_name = "PORT")]
    cluster_port: Option<u16>,
    /// host:port that other nodes are told to use
    #[arg(long, value_name = "HOST:PORT")]
    advertise: Option<String>,
    /// host:port of other nodes, comma separated
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    seeds: Option<Vec<String>>,
    /// What the node does, comma separated: shard, gateway [default: shard,gateway]
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_parser = role)]
    roles: Option<Vec<Role>>,
    /// Shard nodes that form a new cluster together [default: 1]
    #[arg(long, value_name = "N")]
    expect: Option<usize>,
    /// Shards of a new cluster [default: 16]
    #[arg(long, value_name = "N")]
    shards: Option<u32>,
    /// Seconds of a node's silence after which its replicas are made anew on others [default: 300]
    #[arg(long, value_name = "S")]
    replace_after: Option<u64>,
    /// Seconds after which an event segment is sealed, whatever its size [default: 86400]
    #[arg(long, value_name = "S")]
    segment_age: Option<u64>,
    /// Seconds between checkpoints [default: 10]
    #[arg(long, value_name = "S")]
    checkpoint: Option<u64>,
    /// Segments of 64 MiB that the journal may have [default: 16]
    #[arg(long, value_name = "N")]
    journal_segments: Option<usize>,
    /// Threads for consensus, and as many for the doors; 0 is one per core [default: 0]
    #[arg(long, value_name = "N")]
    workers: Option<usize>,
    /// Certificate chain (PEM) for the doors, in place of one of the cluster's CA; with --tls-key
    #[arg(long, value_name = "FILE")]
    tls_cert: Option<PathBuf>,
    /// Private key (PEM) of --tls-cert
    #[arg(long, value_name = "FILE")]
    tls_key: Option<PathBuf>,
    /// OpenTelemetry collector for traces, e.g. http://localhost:4318 [default: none]
    #[arg(long, value_name = "URL")]
    otlp_endpoint: Option<String>,
    /// Share of messages that are traced, 0 to 1 [default: 0.01]
    #[arg(long, value_name = "RATIO")]
    trace_ratio: Option<f64>,
    /// Let the admin skew this node's clock and make its actors panic, for tests of a cluster
    #[arg(long)]
    allow_faults: bool,
    /// Output format
    #[arg(short, long, value_enum, default_value = "text")]
    output: Format,
}

impl Serve {
    pub(crate) fn run(self) -> ExitCode {
        dunlin_node::logging::init("");
        match self.config() {
            Ok((config, output)) => dunlin_node::serve::run(config, output.into()),
            Err(problems) => {
                eprintln!("{problems}");
                ExitCode::from(2)
            }
        }
    }

    fn config(self) -> Result<(NodeConfig, Format), String> {
        let mut config = match &self.config {
            None => NodeConfig::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .map_err(|error| format!("read {}: {error}", path.display()))?;
                NodeConfig::parse(&path.display().to_string(), &text).map_err(|error| error.to_string())?
            }
        };
        fn set<T>(field: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *field = value;
            }
        }
        set(&mut config.data, self.data);
        set(&mut config.pki, self.pki.map(Some));
        set(&mut config.host_name, self.host_name);
        set(&mut config.bind, self.bind);
        set(&mut config.mqtts_port, self.mqtts_port);
        set(&mut config.amqps_port, self.amqps_port);
        set(&mut config.kafka_port, self.kafka_port);
        set(&mut config.https_port, self.https_port);
        set(
            &mut config.https_alt_port,
            self.https_alt_port.map(|port| (port != 0).then_some(port)),
        );
        set(&mut config.mqtt_port, self.mqtt_port.map(Some));
        set(&mut config.cluster_port, self.cluster_port);
        set(&mut config.advertise, self.advertise.map(Some));
        set(&mut config.seeds, self.seeds);
        set(&mut config.roles, self.roles);
        set(&mut config.expect, self.expect);
        set(&mut config.shard_count, self.shards);
        set(&mut config.replace_after_s, self.replace_after);
        set(&mut config.segment_age_s, self.segment_age);
        set(&mut config.checkpoint_s, self.checkpoint);
        set(&mut config.journal_segments, self.journal_segments);
        set(&mut config.workers, self.workers);
        set(&mut config.tls_cert, self.tls_cert.map(Some));
        set(&mut config.tls_key, self.tls_key.map(Some));
        set(&mut config.otlp_endpoint, self.otlp_endpoint.map(Some));
        set(&mut config.trace_ratio, self.trace_ratio);
        config.allow_faults |= self.allow_faults;
        Ok((config, self.output))
    }
}

fn role(text: &str) -> Result<Role, String> {
    match text.trim() {
        "shard" => Ok(Role::Shard),
        "gateway" => Ok(Role::Gateway),
        _ => Err("a role is `shard` or `gateway`".to_owned()),
    }
}
