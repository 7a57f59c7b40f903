//! `dunlin chaos mutants`: seeded bugs, one after the other, and which checker caught each.

use std::process::ExitCode;

use clap::Args;

use crate::commands::{CommandError, CommandResult};

/// Arguments of `chaos mutants`.
#[derive(Args)]
pub(crate) struct Mutants {
    /// Seeds that each of them is given to show itself
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    seeds: u64,
    /// The first seed
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// Only these, by name
    names: Vec<String>,
}

impl Mutants {
    /// Runs it.
    #[cfg(not(feature = "mutants"))]
    pub(crate) fn run(self) -> CommandResult {
        let _ = (self.seeds, self.first, self.names, ExitCode::SUCCESS);
        Err(CommandError::Usage(
            "this build has no mutants: cargo run --release --features mutants -- chaos mutants".into(),
        ))
    }

    /// Runs it.
    #[cfg(feature = "mutants")]
    pub(crate) fn run(self) -> CommandResult {
        use dunlin_chaos::mutants::{Caught, Check, hunt};
        use dunlin_chaos::sim::Simulator;

        use crate::commands::say;

        dunlin_node::logging::init("off");
        let chosen = dunlin_chaos::mutants::chosen(&self.names).map_err(CommandError::Usage)?;
        let simulator = Simulator::new()?;
        let (mut caught, all) = (0, chosen.len());
        for mutant in chosen {
            let line = match hunt(
                &simulator,
                mutant,
                self.first..self.first.saturating_add(self.seeds),
            )? {
                Caught::By {
                    check,
                    seed,
                    violation,
                } => {
                    caught += 1;
                    let what = match check {
                        Check::Simulation => "seed",
                        Check::Drill => "drill",
                    };
                    let short: String = violation.chars().take(120).collect();
                    format!("caught    {:24} {what} {seed}: {short}", mutant.name())
                }
                Caught::Not { seeds } => {
                    format!("SURVIVED  {:24} {seeds} seeds: {}", mutant.name(), mutant.what())
                }
            };
            say(line)?;
        }
        say(format!("{caught} of {all} mutants caught"))?;
        Ok(ExitCode::from(u8::from(caught < all)))
    }
}
