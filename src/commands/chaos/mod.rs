//! `dunlin chaos`: try to break the hub, and get a verdict.
//!
//! 0 is `PASS`, 1 is `FAIL`, `INCOMPLETE` or no verdict, 2 a scenario or command line that makes no sense.

mod fs;
mod hostile;
mod mutants;
mod run;
mod scenarios;
mod sim;
mod soak;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use dunlin_chaos::run::folder::Folder;
use dunlin_chaos::run::judge::{self, Verdict};

use super::{block_on, end};

#[derive(Args)]
pub(crate) struct Chaos {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run a scenario and say what it proves
    Run(run::Run),
    /// List the scenarios that ship, and what each shows
    List,
    /// Print a scenario, to read it or to make another of it
    Show {
        /// Name of a scenario
        name: String,
    },
    /// List the faults that a scenario can name
    Faults,
    /// Judge the folder of a run again
    Judge(Judge),
    /// Run whole clusters in simulated time, network and disk, drawn from a seed
    Sim(sim::Sim),
    /// Simulation and scenarios in turn, for hours, with a ledger of all that was tried
    Soak(soak::Soak),
    /// Try seeded bugs on the checkers (builds with the feature `mutants`)
    Mutants(mutants::Mutants),
    /// Clients that misbehave, and what good ones notice of it
    Hostile(hostile::Hostile),
    /// Mount a disk that loses, tears, refuses and lies when it is told to
    Fs(fs::ChaosFsCommand),
}

#[derive(Args)]
struct Judge {
    /// The folder of a run
    folder: PathBuf,
    /// Print one JSON object instead of text
    #[arg(long)]
    json: bool,
}

impl Chaos {
    pub(crate) fn run(self) -> ExitCode {
        let ended = match self.command {
            Command::Sim(command) => return end(command.run()),
            Command::Soak(command) => return end(command.run()),
            Command::Mutants(command) => return end(command.run()),
            Command::Hostile(command) => return end(block_on(command.run())),
            Command::Fs(command) => return end(block_on(command.run())),
            Command::Run(run) => return logged(|| run.run()),
            Command::List => scenarios::list(),
            Command::Show { name } => scenarios::show(&name),
            Command::Faults => scenarios::faults(),
            Command::Judge(Judge { folder, json }) => match judge::judge(&Folder(folder)) {
                Ok(verdict) => Ok(tell(&verdict, json)),
                Err(error) => {
                    eprintln!("no verdict: {error}");
                    return ExitCode::from(1);
                }
            },
        };
        end(ended)
    }
}

fn logged(run: impl FnOnce() -> ExitCode) -> ExitCode {
    dunlin_node::logging::init("warn");
    run()
}

/// Prints a verdict; the exit code that it has.
fn tell(verdict: &Verdict, json: bool) -> ExitCode {
    if json {
        let text = serde_json::to_string(verdict).expect("a verdict is plain data");
        println!("{text}");
    } else {
        println!("{verdict}");
    }
    match verdict.is_pass() {
        true => ExitCode::SUCCESS,
        false => ExitCode::from(1),
    }
}
