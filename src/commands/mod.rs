//! The commands, one file each.

mod serve;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand, ValueEnum};
use dunlin_node::serve::Output;

/// An IoT hub you run yourself: an acknowledged message is on disk on a majority of its replicas.
#[derive(Parser)]
#[command(name = "dunlin", version, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run one node; with no arguments it is a complete hub
    Serve(serve::Serve),
    /// Run a cluster of several nodes on this machine, as real processes
    Up(up::Up),
}

/// How a command answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Tables and sentences, for people
    Text,
    /// JSON, for programs
    Json,
}

impl From<Format> for Output {
    fn from(format: Format) -> Output {
        match format {
            Format::Text => Output::Text,
            Format::Json => Output::Json,
        }
    }
}

impl Cli {
    /// Runs the command.
    pub(crate) fn run(self) -> ExitCode {
        match self.command {
            Command::Serve(command) => command.run(),
            Command::Up(command) => command.run(),
        }
    }
}
