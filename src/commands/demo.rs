//! `dunlin demo`: a cluster under load, a node killed in the middle of it, and proof that nothing
//! acked was lost. Exit code 0 only if it holds.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use dunlin_chaos::demo::{self, DemoError, Options, Progress};
use dunlin_node::serve::{Output, print_ready, stop_signal};

#[derive(Args)]
pub(crate) struct Demo {
    /// Seconds of load; a node is killed after a third and comes back after two
    #[arg(long, value_name = "S", default_value_t = 30)]
    duration: u64,
    /// Devices
    #[arg(long, value_name = "N", default_value_t = 200)]
    devices: usize,
    /// Messages per second of all devices together; 0 is as fast as possible
    #[arg(long, value_name = "N", default_value_t = 2000)]
    rate: u32,
    /// Nodes
    #[arg(short = 'n', long, value_name = "N", default_value_t = 3)]
    nodes: usize,
    /// Kills, spread over the duration; each time the node that leads most shards
    #[arg(long, value_name = "N", default_value_t = 1)]
    kills: usize,
    /// Draws everything that is random [default: drawn, and printed first]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// Recording whose rows the devices send
    #[arg(long, value_name = "FILE")]
    csv: Option<PathBuf>,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
    /// Leave the cluster running until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Devices use MQTT without TLS
    #[arg(long)]
    plain: bool,
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
    /// Port of MQTT without TLS, with --plain
    #[arg(long, value_name = "PORT", default_value_t = 1883)]
    mqtt_port: u16,
}

impl Demo {
    pub(crate) fn run(self) -> ExitCode {
        dunlin_node::logging::init("warn");
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                eprintln!("cannot start: {error}");
                return ExitCode::from(1);
            }
        };
        match runtime.block_on(self.play()) {
            Ok(true) => ExitCode::SUCCESS,
            Ok(false) => ExitCode::from(1),
            Err(error) => {
                eprintln!("no verdict: {error}");
                ExitCode::from(if matches!(error, DemoError::Options(_)) {
                    2
                } else {
                    1
                })
            }
        }
    }

    /// Whether everything holds.
    async fn play(self) -> Result<bool, DemoError> {
        let options = Options {
            nodes: self.nodes,
            devices: self.devices,
            rate: self.rate,
            duration_s: self.duration,
            kills: self.kills,
            seed: self.seed,
            csv: self.csv,
            mqtts_port: self.mqtts_port,
            amqps_port: self.amqps_port,
            kafka_port: self.kafka_port,
            https_port: self.https_port,
            cluster_port: self.cluster_port,
            plain_port: self.plain.then_some(self.mqtt_port),
            program: None,
            progress: if self.json {
                Progress::Program
            } else {
                Progress::People
            },
        };
        let (report, remains) = demo::run_until(options, stop_signal()).await?;
        if self.json {
            println!(
                "{}",
                serde_json::to_string(&report).expect("a report is plain data")
            );
        } else {
            println!("{report}");
        }
        if self.keep {
            print_ready(
                remains.ready(),
                if self.json { Output::Json } else { Output::Text },
            );
            stop_signal().await;
        }
        remains.stop(!report.is_pass()).await;
        Ok(report.is_pass())
    }
}
