//! `dunlin load service`: what services do over HTTPS, and devices that connect and leave, as fast as it goes.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::{Args, ValueEnum};
use dunlin_chaos::load::files::raise_open_files;
use dunlin_chaos::load::schedule::Share;
use dunlin_chaos::load::services::{self, Deed, Plan};
use dunlin_node::serve::stop_signal;

use super::calls::options;
use super::options::{Server, parse_seconds};
use super::shown::{Shown, ceiling_unless, failed};
use super::target::{self, Address};
use crate::commands::hub::HubArgs;
use crate::commands::{CommandError, CommandResult};

#[derive(Args)]
pub(super) struct Service {
    /// What is done
    #[arg(value_enum)]
    deed: DeedName,
    #[command(flatten)]
    server: Server,
    /// How many at a time
    #[arg(short = 'F', long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u64).range(1..=4096))]
    inflight: u64,
    /// Seconds that are measured
    #[arg(long, value_name = "S", default_value = "10", value_parser = parse_seconds)]
    duration: Duration,
    /// Seconds of load before that
    #[arg(long, value_name = "S", default_value = "2", value_parser = parse_seconds)]
    warm_up: Duration,
    /// With `connect`: leave out the second that it takes to find this generator's ceiling
    #[arg(long)]
    no_ceiling: bool,
    #[command(flatten)]
    shown: Shown,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum DeedName {
    /// Create devices; they stay in the registry
    Create,
    /// Change what is desired of a device
    Desired,
    /// Send messages to devices, 50 to each at the most
    Message,
    /// Ask for one device in the query language
    Query,
    /// Connect a device, and leave again
    Connect,
}

impl Service {
    pub(super) async fn run(self, args: &HubArgs) -> CommandResult {
        if Address::of(&self.server).is_some() {
            return Err(CommandError::Usage(
                "this is a hub's: say which with --data or --connection-string, not with -h".into(),
            ));
        }
        let files = raise_open_files();
        if files < 2 * self.inflight + 64 {
            eprintln!("note: this system allows {files} open files; see `ulimit -n`");
        }
        let target = target::hub(&self.server, args, Share::ALL, None).await?;
        let hub = target.hub.as_ref().map(target::reader).transpose()?;
        let hub = hub.ok_or_else(|| CommandError::Failed("there is no hub".into()))?;
        let deed = match self.deed {
            DeedName::Create => Deed::Create,
            DeedName::Desired => Deed::Desired,
            DeedName::Message => Deed::Message,
            DeedName::Query => Deed::Query,
            DeedName::Connect => Deed::Connect(
                target
                    .clients
                    .iter()
                    .map(|client| options(&self.server, &target, client))
                    .collect(),
            ),
        };
        let name = self.deed.to_possible_value();
        let mut live = self.shown.live("service", args.output)?;
        live.say(&format!(
            "{}: {}, closed loop, {} at a time",
            target.name,
            name.map_or_else(String::new, |name| name.get_name().to_owned()),
            self.inflight
        ));
        let plan = Plan {
            hub: Arc::new(hub),
            deed,
            prefix: format!("load-{:08x}-", rand::random::<u32>()),
            devices: self.server.clients as usize,
            in_flight: self.inflight as usize,
            warm_up: self.warm_up,
            duration: self.duration,
        };
        let ceiling = ceiling_unless(self.no_ceiling, plan.ceiling()).await;
        let figures = services::run(plan, &target.name, &mut live, stop_signal()).await;
        live.finish().map_err(failed)?;
        let figures = figures.map_err(failed)?.with_ceiling(ceiling);
        self.shown.tell(&figures, args.output)?;
        Ok(ExitCode::from(u8::from(!figures.is_whole())))
    }
}
