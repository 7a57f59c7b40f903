//! `dunlin chaos`: try to break the hub, and get a verdict.

mod mutants;
mod sim;

use std::process::ExitCode;

use clap::{Args, Subcommand};

/// Arguments of `chaos`.
#[derive(Args)]
pub(crate) struct Chaos {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Try seeded bugs on the checkers (builds with the feature `mutants`)
    Mutants(mutants::Mutants),
    /// Run whole clusters in simulated time, network and disk; a seed repeats a run event for event
    Sim(sim::Sim),
}

impl Chaos {
    /// Runs it.
    pub(crate) fn run(self) -> ExitCode {
        match self.what {
            What::Mutants(command) => super::end(command.run()),
            What::Sim(command) => super::end(command.run()),
        }
    }
}
