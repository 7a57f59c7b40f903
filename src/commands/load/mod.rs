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
