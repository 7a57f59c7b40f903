//! `dunlin up`: a local cluster of real processes, until this one is told to stop.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use dunlin_node::local::{LocalCluster, LocalError, LocalOptions};
use dunlin_node::serve::{print_ready, stop_signal};

use super::Format;

#[derive(Args)]
pub(crate) struct Up {
    /// Nodes that keep messages; each is a gateway as well, unless --gateways says otherwise
    #[arg(short = 'n', long, value_name = "N", default_value_t = 3)]
    nodes: usize,
    /// Nodes beside them that are gateways and nothing else
    #[arg(long, value_name = "N", default_value_t = 0)]
    gateways: usize,
    /// Where the nodes keep their data
    #[arg(long, value_name = "DIR", default_value = "dunlin-data")]
    data: PathBuf,
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
    /// Port of MQTT without TLS [default: none]
    #[arg(long, value_name = "PORT")]
    mqtt_port: Option<u16>,
    /// Port (UDP) between nodes
    #[arg(long, value_name = "PORT", default_value_t = 8900)]
    cluster_port: u16,
    /// Output format
    #[arg(short, long, value_enum, default_value = "text")]
    output: Format,
}

impl Up {
    pub(crate) fn run(self) -> ExitCode {
        dunlin_node::logging::init("warn");
        let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
            Ok(runtime) => runtime,
            Err(error) => {
                eprintln!("cannot start: {error}");
                return ExitCode::from(1);
            }
        };
        match runtime.block_on(self.serve()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("cannot start: {error}");
                ExitCode::from(1)
            }
        }
    }

    async fn serve(self) -> Result<(), LocalError> {
        let mut options = LocalOptions::new(self.nodes, &self.data).map_err(|source| LocalError::Io {
            action: "find this program",
            source,
        })?;
        options.gateways = self.gateways;
        options.mqtts_port = self.mqtts_port;
        options.amqps_port = self.amqps_port;
        options.kafka_port = self.kafka_port;
        options.https_port = self.https_port;
        options.mqtt_port = self.mqtt_port;
        options.cluster_port = self.cluster_port;
        let cluster = LocalCluster::start(options).await?;
        print_ready(cluster.ready(), self.output.into());
        stop_signal().await;
        cluster.stop().await;
        Ok(())
    }
}
