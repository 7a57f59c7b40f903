//! `dunlin chaos soak`: simulation and scenarios in turn until the time is over, each counted in a ledger when
//! it ends. What comes next the ledger says; see `dunlin_chaos::soak`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Args;
use dunlin_chaos::run::{self, Options, RunError};
use dunlin_chaos::scenario::library;
use dunlin_chaos::sim::{Plan, Simulator};
use dunlin_chaos::soak::{Ledger, LedgerError, Piece, SEEDS_PER_PIECE};
use dunlin_model::point::Point;
use dunlin_node::serve::stop_signal;
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use crate::commands::{CommandError, CommandResult, say};

/// Arguments of `chaos soak`.
#[derive(Args)]
pub(crate) struct Soak {
    /// The file with all that was tried; made if there is none
    #[arg(long, value_name = "FILE", default_value = "dunlin-chaos/ledger.json")]
    ledger: PathBuf,
    /// End after so many minutes, when what runs then is over [default: at Ctrl-C]
    #[arg(long, value_name = "N")]
    minutes: Option<u64>,
    /// What failures say that they failed in: a commit, say
    #[arg(long, value_name = "NAME", default_value = env!("CARGO_PKG_VERSION"))]
    build: String,
    /// Print the ledger, as tables of Markdown, and try nothing
    #[arg(long)]
    show: bool,
}

impl From<LedgerError> for CommandError {
    fn from(error: LedgerError) -> Self {
        CommandError::Failed(error.to_string())
    }
}

impl Soak {
    /// Runs it.
    pub(crate) fn run(self) -> CommandResult {
        let mut ledger = Ledger::load(&self.ledger)?;
        if self.show {
            say(ledger.to_string().trim_end())?;
            return Ok(ExitCode::SUCCESS);
        }
        dunlin_node::logging::init("off");
        let mut round = Round {
            simulator: Simulator::new()?,
            runtime: runtime()?,
            stop: stop_flag()?,
            folder: folder_for(&self.ledger),
            counted: Point::ALL.iter().map(|point| point.count()).collect(),
            build: self.build,
        };
        let end = self
            .minutes
            .map(|minutes| Instant::now() + Duration::from_secs(60 * minutes));
        let failed_before = ledger.failures.len();
        while !round.is_stopped() && !ledger.is_full() && end.is_none_or(|end| Instant::now() < end) {
            let known = ledger.failures.len();
            let line = match ledger.next_piece() {
                Piece::Seeds { first } => round.seeds(&mut ledger, first)?,
                Piece::Scenario { name, seed } => match round.scenario(&mut ledger, name, seed) {
                    Some(line) => line,
                    None => break,
                },
            };
            ledger.save(&self.ledger)?;
            say(line)?;
            for failure in &ledger.failures[known..] {
                say(format!("  FAILED  {}", failure.command))?;
                for reason in &failure.reasons {
                    say(format!("    {reason}"))?;
                }
            }
        }
        say(format!("\n{ledger}").trim_end())?;
        Ok(ExitCode::from(u8::from(ledger.failures.len() > failed_before)))
    }
}

fn runtime() -> Result<Runtime, CommandError> {
    let built = Builder::new_current_thread().enable_all().build();
    built.map_err(|error| CommandError::Failed(format!("start: {error}")))
}

/// Set once somebody wants an end: a simulation looks at it between seeds, for it has no time of this world.
fn stop_flag() -> Result<watch::Receiver<bool>, CommandError> {
    let (wanted, seen) = watch::channel(false);
    let waiting = runtime()?;
    let thread = std::thread::Builder::new().name("stop".into());
    let spawned = thread.spawn(move || {
        waiting.block_on(stop_signal());
        // Nobody looks any more if this fails.
        let _ = wanted.send(true);
    });
    spawned.map_err(|error| CommandError::Failed(format!("start a thread: {error}")))?;
    Ok(seen)
}

/// A folder for the runs of this process, beside the ledger.
fn folder_for(ledger: &Path) -> PathBuf {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    ledger.with_file_name(format!("soak-{}", since.as_secs()))
}

/// What all pieces of this process share.
struct Round {
    simulator: Simulator,
    runtime: Runtime,
    stop: watch::Receiver<bool>,
    folder: PathBuf,
    /// Counts of hard states that are in the ledger already.
    counted: Vec<u64>,
    build: String,
}

impl Round {
    fn is_stopped(&self) -> bool {
        *self.stop.borrow()
    }

    fn seeds(&mut self, ledger: &mut Ledger, first: u64) -> Result<String, CommandError> {
        let begun = Instant::now();
        let mut count = 0;
        for seed in first..first.saturating_add(SEEDS_PER_PIECE) {
            if self.is_stopped() {
                break;
            }
            let started = Instant::now();
            let outcome = self.simulator.run(&Plan::draw(seed))?;
            ledger.add_seed(&outcome, started.elapsed(), &self.build);
            count += 1;
        }
        for (point, counted) in Point::ALL.iter().zip(&mut self.counted) {
            let now = point.count();
            if now > *counted {
                ledger.add_state(*point, now - *counted);
            }
            *counted = now;
        }
        let took_s = begun.elapsed().as_secs_f64();
        Ok(format!("{count} seeds from {first} on, {took_s:.0} s"))
    }

    /// `None` when somebody wanted an end before the run's.
    fn scenario(&mut self, ledger: &mut Ledger, name: &str, seed: u64) -> Option<String> {
        let folder = self.folder.join(format!("{name}-{seed}"));
        let text = library::find(name).expect("the ledger names scenarios that ship");
        let options = Options {
            seed: Some(seed),
            folder: Some(folder.clone()),
            ..Options::new(name, text)
        };
        let begun = Instant::now();
        let mut stop = self.stop.clone();
        let stopped = async move {
            // The sender lives until a signal came.
            let _ = stop.wait_for(|wanted| *wanted).await;
        };
        let ended = self.runtime.block_on(run::run(options, stopped));
        let took = begun.elapsed();
        let result = match ended {
            Ok(verdict) => {
                ledger.add_run(&verdict, took, &self.build);
                if verdict.is_pass()
                    && let Err(error) = std::fs::remove_dir_all(&folder)
                {
                    tracing::warn!(%error, "a run's folder stays");
                }
                verdict.verdict
            }
            Err(error) if was_stopped(&error) => return None,
            Err(error) => {
                ledger.add_broken_run((name, seed), error.to_string(), took, &self.build);
                "no verdict"
            }
        };
        Some(format!(
            "{name} with seed {seed}: {result}, {:.0} s",
            took.as_secs_f64()
        ))
    }
}

fn was_stopped(error: &RunError) -> bool {
    match error {
        RunError::Stopped => true,
        RunError::Kept { source, .. } => was_stopped(source),
        _ => false,
    }
}
