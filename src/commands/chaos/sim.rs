//! `dunlin chaos sim`: many seeds, one seed again, a small version of one that fails, and the gate that holds
//! the simulation to its word.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Subcommand};
use dunlin_chaos::sim::{Outcome, Plan, SimError, Simulator, shrink};
use dunlin_model::point::Point;

use crate::commands::{CommandError, CommandResult, Format, say};

/// Seeds of one command.
const SEEDS_MAX: u64 = 10_000_000;

/// Arguments of `chaos sim`.
#[derive(Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(crate) struct Sim {
    #[command(subcommand)]
    what: Option<What>,
    /// How many seeds
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=SEEDS_MAX))]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    first: u64,
    /// End after so many minutes, wherever that is
    #[arg(long)]
    minutes: Option<u64>,
    /// How to answer
    #[arg(short = 'o', long = "output", value_enum, default_value_t = Format::Text)]
    output: Format,
}

#[derive(Subcommand)]
enum What {
    /// Run one seed again, or a plan
    Replay {
        /// The seed
        #[arg(required_unless_present = "plan")]
        seed: Option<u64>,
        /// A plan that was written by `shrink`, or by hand
        #[arg(long, conflicts_with = "seed")]
        plan: Option<PathBuf>,
        /// Write every event of the run to this file
        #[arg(long)]
        trace: Option<PathBuf>,
        /// Write the plan to this file
        #[arg(long)]
        write: Option<PathBuf>,
    },
    /// Find a small plan that still fails as this seed does
    Shrink {
        /// The seed
        seed: u64,
        /// Write it to this file
        #[arg(long)]
        write: Option<PathBuf>,
    },
    /// Run seeds twice and compare the traces
    Gate {
        /// How many seeds
        #[arg(long, default_value_t = 50)]
        seeds: u64,
        /// The first of them
        #[arg(long, default_value_t = 1)]
        first: u64,
    },
}

impl From<SimError> for CommandError {
    fn from(error: SimError) -> Self {
        CommandError::Failed(error.to_string())
    }
}

impl Sim {
    /// Runs it.
    pub(crate) fn run(self) -> CommandResult {
        dunlin_node::logging::init("off");
        let simulator = Simulator::new()?;
        match self.what {
            None => many(&simulator, &self),
            Some(What::Replay {
                seed,
                plan,
                trace,
                write,
            }) => {
                let plan = match plan {
                    Some(path) => read_plan(&path)?,
                    None => Plan::draw(seed.unwrap_or_default()),
                };
                write.map_or(Ok(()), |path| write_plan(&path, &plan))?;
                replay(&simulator, &plan, trace)
            }
            Some(What::Shrink { seed, write }) => smaller(&simulator, seed, write),
            Some(What::Gate { seeds, first }) => gate(&simulator, first, seeds),
        }
    }
}

/// The drawn options, without the steps, in one line.
fn drawn(plan: &Plan) -> String {
    let kinds: Vec<String> = plan.kinds.iter().map(|kind| format!("{kind:?}")).collect();
    let mut services = format!("{} services", plan.services);
    if plan.announces {
        services.push_str(", events of the hub's own");
    }
    if plan.messages {
        services.push_str(", messages to devices");
    }
    format!(
        "seed {}: {} nodes, {} shards, {} devices, a message per {} ms, window {}, {services}, a checkpoint per {} ms, {} ms of faults, {} steps of {}",
        plan.seed,
        plan.nodes,
        plan.shards,
        plan.devices,
        plan.message_every_ms,
        plan.window,
        plan.checkpoint_ms,
        plan.faults_ms,
        plan.steps.len(),
        kinds.join(" ")
    )
}

fn told(outcome: &Outcome) -> String {
    let mut text = format!(
        "  {} of {} messages acked, {} datagrams, {:.1} s simulated, trace {:016x}: {}",
        outcome.acked,
        outcome.sent,
        outcome.datagrams.sent,
        outcome.simulated_ms as f64 / 1000.0,
        outcome.trace,
        if outcome.is_pass() { "pass" } else { "FAIL" }
    );
    for violation in &outcome.violations {
        text.push_str("\n  ");
        text.push_str(violation);
    }
    text
}

fn many(simulator: &Simulator, options: &Sim) -> CommandResult {
    let begun = Instant::now();
    let end = options
        .minutes
        .map(|minutes| begun + Duration::from_secs(60 * minutes));
    let (mut count, mut acked, mut simulated_ms, mut failed) = (0u64, 0u64, 0u64, Vec::new());
    for seed in options.first..options.first.saturating_add(options.seeds) {
        if end.is_some_and(|end| Instant::now() >= end) {
            break;
        }
        let plan = Plan::draw(seed);
        // First, so that a run that never ends is known by its seed, too.
        match options.output {
            Format::Text => say(drawn(&plan))?,
            Format::Json => eprintln!("{}", drawn(&plan)),
        }
        let outcome = simulator.run(&plan)?;
        count += 1;
        acked += outcome.acked;
        simulated_ms += outcome.simulated_ms;
        if options.output == Format::Json {
            let line =
                serde_json::to_string(&outcome).map_err(|error| CommandError::Failed(error.to_string()))?;
            say(line)?;
        } else if !outcome.is_pass() {
            say(told(&outcome))?;
        }
        if !outcome.is_pass() {
            failed.push(seed);
        }
    }
    if options.output == Format::Text {
        say(format!(
            "{count} seeds, {:.1} h simulated in {:.0} s, {acked} messages acked, {} failed",
            simulated_ms as f64 / 3_600_000.0,
            begun.elapsed().as_secs_f64(),
            failed.len()
        ))?;
        for seed in &failed {
            say(format!("  dunlin chaos sim replay {seed}"))?;
        }
        say_points()?;
    }
    Ok(ExitCode::from(u8::from(!failed.is_empty())))
}

/// Which hard states were reached, and which never.
fn say_points() -> std::io::Result<()> {
    let (reached, open): (Vec<Point>, Vec<Point>) = Point::ALL.iter().partition(|point| point.count() > 0);
    say(format!(
        "{} of {} hard states reached",
        reached.len(),
        Point::ALL.len()
    ))?;
    for point in reached {
        say(format!("  {:>9}  {}", point.count(), point.what()))?;
    }
    for point in open {
        say(format!("       open  {}", point.what()))?;
    }
    Ok(())
}

fn failed(action: &str, path: &Path, error: impl std::fmt::Display) -> CommandError {
    CommandError::Failed(format!("{action} {}: {error}", path.display()))
}

fn read_plan(path: &Path) -> Result<Plan, CommandError> {
    let text = std::fs::read(path).map_err(|error| failed("read", path, error))?;
    serde_json::from_slice(&text).map_err(|error| failed("read", path, error))
}

fn write_plan(path: &Path, plan: &Plan) -> Result<(), CommandError> {
    let text = serde_json::to_vec_pretty(plan).map_err(|error| failed("write", path, error))?;
    std::fs::write(path, text).map_err(|error| failed("write", path, error))
}

fn replay(simulator: &Simulator, plan: &Plan, trace: Option<PathBuf>) -> CommandResult {
    say(drawn(plan))?;
    for step in &plan.steps {
        say(format!("  {:>6} ms  {:?}", step.at_ms, step.action))?;
    }
    let outcome = match trace {
        None => simulator.run(plan)?,
        Some(path) => {
            let (outcome, lines) = simulator.run_telling(plan)?;
            std::fs::write(&path, lines.join("\n")).map_err(|error| failed("write", &path, error))?;
            outcome
        }
    };
    say(told(&outcome))?;
    Ok(ExitCode::from(u8::from(!outcome.is_pass())))
}

fn smaller(simulator: &Simulator, seed: u64, write: Option<PathBuf>) -> CommandResult {
    let plan = Plan::draw(seed);
    say(drawn(&plan))?;
    let outcome = simulator.run(&plan)?;
    if outcome.is_pass() {
        return Err(CommandError::Failed(format!("seed {seed} does not fail")));
    }
    // The failure that is looked for begins as this one does: another one is another bug.
    let kind = outcome.violations[0]
        .split(':')
        .next()
        .unwrap_or_default()
        .to_owned();
    let small = shrink(&plan, |plan| {
        simulator.run(plan).is_ok_and(|outcome| {
            outcome
                .violations
                .iter()
                .any(|violation| violation.starts_with(&kind))
        })
    });
    say(drawn(&small))?;
    for step in &small.steps {
        say(format!("  {:>6} ms  {:?}", step.at_ms, step.action))?;
    }
    say(told(&simulator.run(&small)?))?;
    write.map_or(Ok(()), |path| write_plan(&path, &small))?;
    Ok(ExitCode::FAILURE)
}

fn gate(simulator: &Simulator, first: u64, seeds: u64) -> CommandResult {
    let (mut differing, mut failed) = (0, 0);
    for seed in first..first.saturating_add(seeds.min(SEEDS_MAX)) {
        let plan = Plan::draw(seed);
        say(drawn(&plan))?;
        let (one, other) = (simulator.run(&plan)?, simulator.run(&plan)?);
        if one != other {
            differing += 1;
            say(format!(
                "  traces {:016x} and {:016x} differ",
                one.trace, other.trace
            ))?;
        }
        if !one.is_pass() {
            failed += 1;
            say(told(&one))?;
        }
    }
    say(format!(
        "{seeds} seeds run twice, {differing} differ, {failed} failed"
    ))?;
    say_points()?;
    Ok(ExitCode::from(u8::from(differing + failed > 0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_drawn_is_one_line_that_names_the_seed_and_all_options() {
        let plan = Plan {
            services: 3,
            announces: true,
            messages: true,
            ..Plan::draw(7)
        };
        let line = drawn(&plan);
        assert!(line.starts_with("seed 7: ") && !line.contains('\n'), "{line}");
        for part in [
            format!(
                "{} nodes, {} shards, {} devices",
                plan.nodes, plan.shards, plan.devices
            ),
            "3 services, events of the hub's own, messages to devices".to_owned(),
            format!("a checkpoint per {} ms", plan.checkpoint_ms),
            format!("{} steps of {:?}", plan.steps.len(), plan.kinds[0]),
        ] {
            assert!(line.contains(&part), "{part} in {line}");
        }
        let plain = Plan {
            announces: false,
            messages: false,
            ..plan
        };
        assert!(!drawn(&plain).contains("hub's own") && !drawn(&plain).contains("to devices"));
    }
}
