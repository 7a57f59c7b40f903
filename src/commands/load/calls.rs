//! `dunlin load method`: calls of devices that this generator connects itself.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use dunlin_chaos::load::calls::{self, Plan};
use dunlin_chaos::load::files::raise_open_files;
use dunlin_chaos::load::plan::Client;
use dunlin_chaos::load::report;
use dunlin_chaos::load::schedule::Share;
use dunlin_gateway::client::{ConnectOptions, Transport};
use dunlin_node::serve::stop_signal;

use super::options::{Pace, Server, parse_seconds};
use super::shown::{Shown, failed};
use super::target::{self, Address, Target};
use crate::commands::hub::HubArgs;
use crate::commands::{CommandError, CommandResult};

#[derive(Args)]
pub(super) struct Calls {
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    pace: Pace,
    /// Calls at a time
    #[arg(short = 'F', long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=4096))]
    inflight: u64,
    /// Bytes of a payload, each way
    #[arg(short, long, value_name = "BYTES", default_value_t = 64, value_parser = clap::value_parser!(u64).range(0..=100_000))]
    size: u64,
    /// Seconds that are measured
    #[arg(long, value_name = "S", default_value = "10", value_parser = parse_seconds)]
    duration: Duration,
    /// Seconds of load before that
    #[arg(long, value_name = "S", default_value = "2", value_parser = parse_seconds)]
    warm_up: Duration,
    #[command(flatten)]
    shown: Shown,
}

impl Calls {
    pub(super) async fn run(self, args: &HubArgs) -> CommandResult {
        if Address::of(&self.server).is_some() {
            return Err(CommandError::Usage(
                "methods are a hub's: say which with --data or --connection-string, not with -h".into(),
            ));
        }
        let files = raise_open_files();
        if files < self.server.clients + self.inflight + 64 {
            eprintln!("note: this system allows {files} open files, fewer than clients; see `ulimit -n`");
        }
        let target = target::hub(&self.server, args, Share::ALL, None).await?;
        let devices: Vec<ConnectOptions> = target
            .clients
            .iter()
            .map(|client| options(&self.server, &target, client))
            .collect();
        let hub = target.hub.as_ref().map(target::reader).transpose()?;
        let hub = hub.ok_or_else(|| CommandError::Failed("there is no hub".into()))?;
        let schedule = self.pace.schedule(self.server.clients, None);
        let pace = match &schedule {
            Some(schedule) => format!("open loop, {}", report::per_s(schedule.per_s())),
            None => format!("closed loop, {} at a time", self.inflight),
        };
        let mut live = self.shown.live("method", args.output)?;
        live.say(&format!(
            "{}: methods of {} devices, {} bytes, {pace}",
            target.name,
            devices.len(),
            self.size
        ));
        let plan = Plan {
            devices,
            hub: Arc::new(hub),
            schedule,
            in_flight: self.inflight as usize,
            payload_bytes: self.size as usize,
            warm_up: self.warm_up,
            duration: self.duration,
        };
        let figures = calls::run(plan, &target.name, &mut live, stop_signal()).await;
        live.finish().map_err(failed)?;
        let figures = figures.map_err(failed)?;
        self.shown.tell(&figures, args.output)?;
        Ok(ExitCode::from(u8::from(!figures.is_whole())))
    }
}

/// How one of the devices connects.
pub(super) fn options(server: &Server, target: &Target, client: &Client) -> ConnectOptions {
    let door = &target.doors[client.door % target.doors.len()];
    let (address, server_name) = (door.address(), door.host.clone());
    let transport = match &target.wrapping.tls {
        None => Transport::Tcp { address },
        Some(config) if server.ws => Transport::WebSocket {
            address,
            server_name,
            config: Arc::clone(config),
        },
        Some(config) => Transport::Tls {
            address,
            server_name,
            config: Arc::clone(config),
        },
    };
    ConnectOptions {
        version: server.mqtt_version,
        username: client.username.clone().unwrap_or_default(),
        password: client.password.clone(),
        clean: !server.keep_session,
        keep_alive_s: server.keep_alive,
        ..ConnectOptions::new(transport, "", &client.id, String::new())
    }
}
