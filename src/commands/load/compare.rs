//! `dunlin load compare`: the same load on several servers in turn.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use dunlin_chaos::load::ceiling::{self, Ceiling};
use dunlin_chaos::load::compare::{Comparison, Sample, order};
use dunlin_chaos::load::engine;
use dunlin_chaos::load::figures::Figures;
use dunlin_chaos::load::files::raise_open_files;
use dunlin_chaos::load::plan::Plan;
use dunlin_chaos::load::report;
use dunlin_node::serve::stop_signal;

use super::options::{Making, Messages, Server, parse_seconds};
use super::run::{floor_of, plan_of};
use super::shown::{ceiling_unless, command_line, failed};
use super::target::{self, Address};
use crate::commands::hub::HubArgs;
use crate::commands::{CommandError, CommandResult, Format, say};

/// What the hub of other commands is called among the targets.
const OUR_HUB: &str = "dunlin";

#[derive(Args)]
pub(super) struct Compare {
    /// Servers as NAME=URL: mqtt://host:1883, mqtts://, ws://, wss://, nodes of one cluster as
    /// mqtt://a:1883+b:1883, or `dunlin` for the hub that --data means
    #[arg(long, value_name = "NAME=URL", value_delimiter = ',', required = true)]
    targets: Vec<String>,
    /// Rounds
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=1000))]
    rounds: u64,
    /// Seconds of rest after each run
    #[arg(long, value_name = "S", default_value = "1", value_parser = parse_seconds)]
    rest: Duration,
    #[command(flatten)]
    server: Server,
    #[command(flatten)]
    messages: Messages,
    #[command(flatten)]
    making: Making,
}

/// A target that was read from the command line.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    name: String,
    /// `None` is the hub of other commands.
    address: Option<Address>,
}

fn read_target(text: &str) -> Result<Named, CommandError> {
    let (name, url) = text.split_once('=').unwrap_or((text, text));
    let address = match url {
        OUR_HUB => None,
        url => {
            Some(Address::parse(url).map_err(|why| CommandError::Usage(format!("--targets {text}: {why}")))?)
        }
    };
    Ok(Named {
        name: name.to_owned(),
        address,
    })
}

impl Compare {
    pub(super) async fn run(self, args: &HubArgs) -> CommandResult {
        if !self.server.host.is_empty() {
            return Err(CommandError::Usage(
                "servers are named with --targets, not with -h".into(),
            ));
        }
        raise_open_files();
        let plans = self.plans(args).await?;
        let names: Vec<String> = plans.iter().map(|(name, _)| name.clone()).collect();
        let shown = &self.making.shown;
        let mut live = shown.live("pub", args.output)?;
        let load = self.messages.describe(self.server.clients);
        live.say(&load);
        let (ceiling, floor) = match plans.first() {
            Some((_, plan)) => (
                ceiling_unless(self.making.no_ceiling, ceiling::measure(plan)).await,
                floor_of(plan, self.messages.floor).await?,
            ),
            None => (Ceiling::default(), None),
        };
        let rounds = usize::try_from(self.rounds).unwrap_or(1);
        let (mut samples, mut failures) = (Vec::new(), Vec::new());
        'rounds: for round in 0..rounds {
            for place in order(round, plans.len()) {
                let (name, plan) = &plans[place];
                live.say(&format!("round {} of {rounds}: {name}", round + 1));
                let ran = tokio::select! {
                    ran = engine::run(plan.clone(), &mut live, std::future::pending()) => ran,
                    () = stop_signal() => break 'rounds,
                };
                match ran {
                    Err(error) => failures.push(format!("round {}, {name}: {error}", round + 1)),
                    Ok(outcome) => {
                        let figures = Figures::new(plan, name, &outcome).map_err(failed)?;
                        let latency = figures.latency_us.as_ref().map(report::percentiles);
                        live.say(&format!(
                            "  {}  {}",
                            report::per_s(figures.per_s()),
                            latency.unwrap_or_default()
                        ));
                        samples.push(Sample::new(round, place, &figures));
                    }
                }
                tokio::time::sleep(self.rest).await;
            }
        }
        live.finish().map_err(failed)?;
        let mut comparison = Comparison::new(load, &names, rounds, samples).beside(ceiling, floor);
        comparison.failures = failures;
        shown.write(&comparison.page(&command_line()))?;
        match args.output {
            Format::Json => say(serde_json::to_string(&comparison).map_err(failed)?)?,
            Format::Text => say(&comparison)?,
        }
        Ok(ExitCode::from(u8::from(!comparison.failures.is_empty())))
    }

    async fn plans(&self, args: &HubArgs) -> Result<Vec<(String, Plan)>, CommandError> {
        let mut plans = Vec::new();
        for text in &self.targets {
            let named = read_target(text)?;
            let share = self.making.share();
            let target = match (&named.address, &self.messages.topic) {
                (None, _) => target::hub(&self.server, args, share, None).await?,
                (Some(address), Some(topic)) => target::broker(&self.server, address, share, topic)?,
                (Some(_), None) => return Err(CommandError::Usage("a topic is missing: -t".into())),
            };
            let plan = plan_of(
                &self.server,
                &self.making,
                &target,
                Plan {
                    action: self.messages.action(self.server.clients, None)?,
                    warm_up: self.messages.warm_up(),
                    duration: self.messages.window(),
                    ..Plan::default()
                },
            );
            plans.push((named.name, plan));
        }
        Ok(plans)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_read() {
        let read = |text| read_target(text).ok();
        assert_eq!(
            read("dunlin").map(|named| (named.name, named.address)),
            Some(("dunlin".into(), None))
        );
        assert_eq!(read("ours=dunlin").map(|named| named.name), Some("ours".into()));
        let peer = read("peer=mqtt://h:1").and_then(|named| named.address);
        assert_eq!(
            peer.map(|address| address.hosts),
            Some(vec![("h".to_owned(), Some(1))])
        );
        assert_eq!(read("peer=h:1"), None);
    }
}
