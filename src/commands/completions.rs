//! `dunlin completions`: a script for the shell.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Cli, CommandResult, say};

#[derive(Args)]
pub(crate) struct Completions {
    /// For which shell, e.g. `source <(dunlin completions bash)`
    #[arg(value_enum)]
    shell: Shell,
}

impl Completions {
    pub(crate) fn run(self) -> CommandResult {
        // Into memory first: the generator panics on a pipe that is closed early.
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "dunlin", &mut script);
        say(String::from_utf8_lossy(&script).trim_end())?;
        Ok(ExitCode::SUCCESS)
    }
}
