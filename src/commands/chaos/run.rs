//! `dunlin chaos run`: a scenario by its name or from a file, on processes of this machine, in
//! namespaces if asked for, or on the containers of a compose file.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use dunlin_chaos::run::{self, Options, RunError};
use dunlin_chaos::scenario::library;
use dunlin_chaos::view::Progress;
use dunlin_node::local::LOCAL_NODES_MAX;
use dunlin_node::serve::stop_signal;

#[derive(Args)]
pub(super) struct Run {
    /// Name of a scenario that ships (see `dunlin chaos list`), or a file
    #[arg(value_name = "NAME|FILE")]
    scenario: String,
    /// Nodes, as processes of this machine [default: as many as the scenario says]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=LOCAL_NODES_MAX as u64))]
    local: Option<u64>,
    /// Nodes as containers of a compose file, which are brought up for the run and taken down after it
    #[arg(
        long, value_name = "FILE", num_args = 0..=1, default_missing_value = "docker-compose.yml",
        conflicts_with_all = ["local", "mqtts_port", "amqps_port", "kafka_port", "https_port", "cluster_port"]
    )]
    compose: Option<PathBuf>,
    /// Nodes as processes, each in a network namespace of its own; the kernel drops packets between them
    #[arg(long, conflicts_with = "compose")]
    namespaces: bool,
    /// Draws everything that is random [default: drawn, and printed first]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Seconds: the scenario is repeated until they are over, or ends early
    #[arg(long, value_name = "S")]
    duration: Option<u64>,
    /// New folder for everything that the run writes [default: dunlin-chaos/NAME-SEED]
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Keep data and logs of the nodes even if all is well, and with --compose their containers
    #[arg(long)]
    keep: bool,
    /// Print one JSON object instead of text; progress goes to standard error
    #[arg(long)]
    json: bool,
    /// Port of MQTT over TLS, on every node's own address
    #[arg(long, value_name = "PORT", default_value_t = 8883)]
    mqtts_port: u16,
    /// Port of AMQP over TLS
    #[arg(long, value_name = "PORT", default_value_t = 5671)]
    amqps_port: u16,
    /// Port of Kafka over TLS
    #[arg(long, value_name = "PORT", default_value_t = 9093)]
    kafka_port: u16,
    /// Port of HTTPS
    #[arg(long, value_name = "PORT", default_value_t = 8443)]
    https_port: u16,
    /// Port (UDP) between nodes
    #[arg(long, value_name = "PORT", default_value_t = 8900)]
    cluster_port: u16,
}

impl Run {
    pub(super) fn run(self) -> ExitCode {
        let json = self.json;
        let options = match self.options() {
            Ok(options) => options,
            Err(problem) => {
                eprintln!("error: {problem}");
                return ExitCode::from(2);
            }
        };
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                eprintln!("cannot start: {error}");
                return ExitCode::from(1);
            }
        };
        match runtime.block_on(run::run(options, stop_signal())) {
            Ok(verdict) => super::tell(&verdict, json),
            Err(error @ RunError::Scenario(_)) => {
                eprintln!("{error}");
                ExitCode::from(2)
            }
            Err(error) => {
                eprintln!("no verdict: {error}");
                ExitCode::from(1)
            }
        }
    }

    fn options(self) -> Result<Options, String> {
        let text = match library::find(&self.scenario) {
            Some(text) => text.to_owned(),
            None if Path::new(&self.scenario).exists() => std::fs::read_to_string(&self.scenario)
                .map_err(|error| format!("read {}: {error}", self.scenario))?,
            None => {
                return Err(format!(
                    "'{}' is neither a scenario nor a file; `dunlin chaos list` lists the scenarios",
                    self.scenario
                ));
            }
        };
        Ok(Options {
            nodes: self.local.map(|nodes| nodes as usize),
            seed: self.seed,
            duration_s: self.duration,
            folder: self.folder,
            compose: self.compose,
            namespaces: self.namespaces,
            mqtts_port: self.mqtts_port,
            amqps_port: self.amqps_port,
            kafka_port: self.kafka_port,
            https_port: self.https_port,
            cluster_port: self.cluster_port,
            progress: if self.json {
                Progress::Program
            } else {
                Progress::People
            },
            keeps_nodes: self.keep,
            ..Options::new(&self.scenario, &text)
        })
    }
}
