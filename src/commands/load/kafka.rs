//! `dunlin load kafka`: consumers read events over Kafka, in a group that is there for this run.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use dunlin_chaos::load::files::raise_open_files;
use dunlin_chaos::load::readers::{self, Plan};
use dunlin_gateway::auth::ConnectionString;
use dunlin_gateway::client::kafka::{Door, From};
use dunlin_node::serve::stop_signal;

use super::options::parse_seconds;
use super::shown::{Shown, failed};
use crate::commands::credentials;
use crate::commands::hub::{Hub, HubArgs, host_of};
use crate::commands::{CommandError, CommandResult};

/// The policy that is shown to a hub whose administrator asks.
const POLICY: &str = "service";
/// Time to be let in, and for each answer.
const WAIT: Duration = Duration::from_secs(30);

#[derive(Args)]
pub(super) struct Kafka {
    /// Consumers, all of one group
    #[arg(short = 'c', long = "consumers", value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=256))]
    consumers: u64,
    /// Where to begin
    #[arg(long, value_enum, default_value = "earliest")]
    from: Begin,
    /// Seconds that are measured
    #[arg(long, value_name = "S", default_value = "10", value_parser = parse_seconds)]
    duration: Duration,
    /// host:port of Kafka over TLS, beside a connection string [default: its host, port 9093]
    #[arg(long, value_name = "HOST:PORT")]
    kafka: Option<String>,
    #[command(flatten)]
    shown: Shown,
    /// Print help
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Begin {
    /// With the first event that the hub has
    Earliest,
    /// With the next that comes; then it is told how long events were on their way
    Latest,
}

impl Kafka {
    pub(super) async fn run(self, args: &HubArgs) -> CommandResult {
        let files = raise_open_files();
        if files < 2 * self.consumers + 64 {
            eprintln!("note: this system allows {files} open files, fewer than connections; see `ulimit -n`");
        }
        let hub = Hub::find(args)?;
        let connection_string = match hub.policy_string() {
            Some(text) => text,
            None => ConnectionString {
                host_name: hub.host_name().to_owned(),
                shared_access_key_name: Some(POLICY.to_owned()),
                shared_access_key: credentials::key(&hub, POLICY, false).await?,
                ..ConnectionString::default()
            }
            .format(),
        };
        let addresses: Vec<String> = match self.kafka {
            Some(address) => vec![address],
            None => hub.gateways().iter().map(|door| door.kafka.clone()).collect(),
        };
        let doors: Vec<Door> = addresses
            .into_iter()
            .filter(|address| !address.is_empty())
            .map(|address| Door {
                server_name: host_of(&address).trim_matches(['[', ']']).to_owned(),
                address,
                config: Arc::clone(hub.trust()),
                connection_string: connection_string.clone(),
                client_id: "dunlin-load".to_owned(),
                wait: WAIT,
            })
            .collect();
        if doors.is_empty() {
            return Err(CommandError::Failed(
                "no gateway of this hub has a door for Kafka".into(),
            ));
        }
        let mut live = self.shown.live("kafka", args.output)?;
        live.say(&format!(
            "{}: {} consumers of one group read at {} gateways, from the {} event on",
            hub.host_name(),
            self.consumers,
            doors.len(),
            match self.from {
                Begin::Earliest => "first",
                Begin::Latest => "next",
            }
        ));
        let plan = Plan {
            doors,
            group: format!("load-{:08x}", rand::random::<u32>()),
            consumers: self.consumers as usize,
            from: match self.from {
                Begin::Earliest => From::Earliest,
                Begin::Latest => From::Latest,
            },
            duration: self.duration,
        };
        let figures = readers::run(plan, hub.host_name(), &mut live, stop_signal()).await;
        live.finish().map_err(failed)?;
        let figures = figures.map_err(failed)?;
        self.shown.tell(&figures, args.output)?;
        Ok(ExitCode::from(u8::from(!figures.is_whole())))
    }
}
