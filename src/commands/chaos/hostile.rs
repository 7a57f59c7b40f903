//! `dunlin chaos hostile`: clients that misbehave against a hub on this machine, good ones beside them, and a
//! verdict. Exit code 0 only if the hub stood it.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use dunlin_chaos::hostile::{self, HostileError, Kind, Options};
use dunlin_node::ready::Ready;

use crate::commands::{CommandError, CommandResult, say};

/// Arguments of `chaos hostile`.
#[derive(Args)]
pub(crate) struct Hostile {
    /// What attackers do: malformed, half-open, half-tls, slow-connect, slow-reader, reconnect, take-over,
    /// bombs, huge-length, reset, half-close, vanish; several with commas
    #[arg(long, value_name = "KIND", value_delimiter = ',', required = true)]
    kind: Vec<Kind>,
    /// Attackers, which is connections at one time
    #[arg(long, value_name = "N", default_value_t = 32)]
    count: usize,
    /// Packets that they send in all [default: as many as fit into the phases]
    #[arg(long, value_name = "N")]
    packets: Option<u64>,
    /// Packets a second, of all attackers together [default: as many as they can]
    #[arg(long, value_name = "N")]
    rate: Option<u64>,
    /// Data directory of a hub that runs on this machine
    #[arg(long, value_name = "DIR", required_unless_present = "local")]
    target: Option<PathBuf>,
    /// Start a hub of so many nodes for the run, and remove it afterwards
    #[arg(long, value_name = "N", conflicts_with = "target")]
    local: Option<usize>,
    /// Times that the attack is let loose, each after a quiet phase
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: u32,
    /// Seconds of a quiet phase, and of an attack at the least
    #[arg(long, value_name = "S", default_value_t = 10)]
    phase: u64,
    /// Good devices, 50 messages a second each
    #[arg(long, value_name = "N", default_value_t = 4)]
    good: usize,
    /// Memory that no node may come to have, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 2048)]
    memory_max: u64,
    /// Draws what is sent
    #[arg(long, value_name = "N", default_value_t = 1)]
    seed: u64,
    /// With --local: good devices and attackers use MQTT without TLS
    #[arg(long, requires = "local")]
    plain: bool,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl Hostile {
    /// Runs it.
    pub(crate) async fn run(self) -> CommandResult {
        let report = match (&self.target, self.local) {
            (Some(data), _) => {
                let ready = Ready::load(data).map_err(|error| failed("read endpoint file", &error))?;
                hostile::run(&ready, &self.options()).await
            }
            (None, nodes) => hostile::run_local(nodes.unwrap_or(1), self.plain, &self.options()).await,
        };
        let report = report.map_err(|error| match error {
            HostileError::Options(text) => CommandError::Usage(text),
            other => CommandError::Failed(other.to_string()),
        })?;
        match self.json {
            true => say(serde_json::to_string(&report).map_err(|error| failed("write report", &error))?)?,
            false => say(&report)?,
        }
        Ok(ExitCode::from(u8::from(!report.is_pass())))
    }

    fn options(&self) -> Options {
        Options {
            kinds: self.kind.clone(),
            attackers: self.count,
            packets: self.packets,
            rate: self.rate,
            rounds: self.rounds,
            phase: Duration::from_secs(self.phase),
            good_devices: self.good,
            memory_mib_max: self.memory_max,
            seed: self.seed,
        }
    }
}

fn failed(action: &str, error: &dyn std::fmt::Display) -> CommandError {
    CommandError::Failed(format!("{action}: {error}"))
}
