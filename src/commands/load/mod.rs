//! `dunlin load`: load for any MQTT server, and for a hub of one's own with its devices made on the way.
//!
//! Here command lines become plans; what a load is, is in `dunlin_chaos::load`.

mod calls;
mod compare;
mod kafka;
mod merge;
mod options;
mod provision;
mod run;
mod service;
mod shown;
mod sink;
mod target;

use clap::{Args, Subcommand};

use super::CommandResult;
use super::hub::HubArgs;

#[derive(Args)]
pub(crate) struct Load {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Subcommand)]
enum Action {
    /// Publish, and measure how long acknowledgements take
    #[command(disable_help_flag = true)]
    Pub(run::Publish),
    /// Report to the twins of a hub, and measure how long answers take
    #[command(disable_help_flag = true)]
    Twin(run::Twin),
    /// Call methods of a hub's devices, and measure how long their answers take
    #[command(disable_help_flag = true)]
    Method(calls::Calls),
    /// Do what services do: create devices, change twins, send messages, ask
    #[command(disable_help_flag = true)]
    Service(service::Service),
    /// Register devices that nobody knows, and measure how long that takes
    #[command(disable_help_flag = true)]
    Provision(provision::Provision),
    /// Read events over Kafka, and measure how many there are a second
    #[command(disable_help_flag = true)]
    Kafka(kafka::Kafka),
    /// Subscribe, and measure how long messages were on their way
    #[command(disable_help_flag = true)]
    Sub(run::Subscribe),
    /// Connect, stay, and measure how long connects take
    #[command(disable_help_flag = true)]
    Conn(run::Connect),
    /// The same load on several servers in turn: medians, and ratios with their spread
    #[command(disable_help_flag = true)]
    Compare(compare::Compare),
    /// Make several generators' histograms one
    Merge(merge::Merge),
    /// A server that acknowledges everything: what a generator reaches at the most
    NullSink(sink::NullSink),
}

impl Load {
    pub(crate) async fn run(self) -> CommandResult {
        match self.action {
            Action::Pub(command) => command.run(&self.hub).await,
            Action::Twin(command) => command.run(&self.hub).await,
            Action::Method(command) => command.run(&self.hub).await,
            Action::Service(command) => command.run(&self.hub).await,
            Action::Provision(command) => command.run(&self.hub).await,
            Action::Kafka(command) => command.run(&self.hub).await,
            Action::Sub(command) => command.run(&self.hub).await,
            Action::Conn(command) => command.run(&self.hub).await,
            Action::Compare(command) => command.run(&self.hub).await,
            Action::Merge(command) => command.run(self.hub.output),
            Action::NullSink(command) => command.run(self.hub.output).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::commands::Cli;

    fn parses(line: &str) -> bool {
        Cli::try_parse_from(line.split_whitespace()).is_ok()
    }

    #[test]
    fn loads_are_read() {
        for line in [
            "dunlin load pub -h b -t t --closed --floor 3 --no-ceiling",
            "dunlin load pub -I 0.5 --csv recording.csv --count 10",
            "dunlin load twin -c 20 --closed -F 1 --csv recording.csv",
            "dunlin load compare --targets dunlin,m=mqtt://b:1883 -t t/%i --closed --floor 1 --csv recording.csv",
            "dunlin load method -c 20 -I 100 -F 8 --hdr a.hdr --report a.html -o json",
            "dunlin load method --closed --warm-up 0 --duration 1 --ws",
            "dunlin load provision",
            "dunlin load provision -c 1000 -F 16 --hdr a.hdr --report a.html -o json --data x",
            "dunlin load provision --devices 5 --inflight 1",
            "dunlin load service create",
            "dunlin load service desired -c 20 -F 8 --duration 5 --warm-up 0 -o json",
            "dunlin load service message -c 2000 -F 32 --hdr a.hdr --report a.html",
            "dunlin load service query --client-id d-%i --data x",
            "dunlin load service connect -c 4000 -F 32 -V 5 --ws --no-ceiling",
            "dunlin load kafka -c 3 --from latest --duration 10 --hdr a.hdr --report a.html",
        ] {
            assert!(parses(line), "{line}");
        }
    }

    #[test]
    fn loads_that_make_no_sense_are_refused() {
        for line in [
            "dunlin load pub --closed -I 10",
            "dunlin load pub --floor 2",
            "dunlin load pub --csv",
            "dunlin load twin --closed --rate 10",
            "dunlin load compare --targets dunlin --closed --rate 10",
            "dunlin load method --closed --rate 10",
            "dunlin load method --rate 10 -I 10",
            "dunlin load method -F 0",
            "dunlin load provision -c 0",
            "dunlin load provision -F 5000",
            "dunlin load provision --rate 10",
            "dunlin load provision --csv recording.csv",
            "dunlin load service",
            "dunlin load service sing",
            "dunlin load service create -F 0",
            "dunlin load service create --closed",
            "dunlin load service connect --csv recording.csv",
            "dunlin load sub -h b -t t --floor 1",
            "dunlin load kafka -c 0",
        ] {
            assert!(!parses(line), "{line}");
        }
    }
}
