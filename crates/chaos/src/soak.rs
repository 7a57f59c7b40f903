//! A soak: simulated seeds and scenarios in turn, for as long as one likes, and a ledger of all that was tried.
//!
//! The ledger decides what comes next, so a soak goes on where the last one ended, in whatever process that
//! was: the kind that has had less time, its next seed, the next scenario. Each piece counts once, when it is
//! over. Nothing is tried again: what failed stays in the ledger, with the command that repeats it. Who runs
//! the pieces is `src/commands/chaos/soak.rs`; what a run proves is in [`crate::run`] and [`crate::sim`].

use std::collections::BTreeMap;
use std::fmt::{self, Display, Formatter};
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use dunlin_model::point::Point;
use serde::{Deserialize, Serialize};

use crate::run::journal::Progress;
use crate::run::judge::Verdict;
use crate::scenario::library::SCENARIOS;
use crate::sim::Outcome;

/// The ledger's format.
const FORMAT: u32 = 1;
/// Seeds of one piece.
pub const SEEDS_PER_PIECE: u64 = 20;
/// Failures that are kept. With so many, a soak has nothing more to say.
pub const FAILURES_MAX: usize = 1_000;

/// Why a ledger cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The file.
    #[error("{action} {}: {source}", .path.display())]
    Io {
        /// Verb.
        action: &'static str,
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// What is in it.
    #[error("read {}: {reason}", .path.display())]
    Content {
        /// Which.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// What a soak tries next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Piece {
    /// [`SEEDS_PER_PIECE`] seeds of the simulation.
    Seeds {
        /// The first.
        first: u64,
    },
    /// A scenario that ships.
    Scenario {
        /// Its name.
        name: &'static str,
        /// Draws everything in it.
        seed: u64,
    },
}

/// All that was tried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Ledger {
    format: u32,
    /// The simulation's part.
    pub sim: SimTotals,
    /// The scenarios' part.
    pub runs: RunTotals,
    /// Hard states of the simulation, by what they are, and how often they were reached.
    pub states: BTreeMap<String, u64>,
    /// What failed, oldest first.
    pub failures: Vec<Failure>,
}

/// Seeds that were simulated.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SimTotals {
    /// How many.
    pub seeds: u64,
    /// Milliseconds that passed in them.
    pub simulated_ms: u64,
    /// Messages that were acked.
    pub acked: u64,
    /// Milliseconds that they took.
    pub took_ms: u64,
}

/// Scenarios that were run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RunTotals {
    /// How many.
    pub count: u64,
    /// Milliseconds of load and faults.
    pub load_ms: u64,
    /// Messages that were acked, and read back.
    pub acked: u64,
    /// Milliseconds that they took, readings included.
    pub took_ms: u64,
    /// Runs and passes of each scenario.
    pub scenarios: BTreeMap<String, Tally>,
    /// Faults that were installed and healed, by number and name.
    pub faults: BTreeMap<String, u64>,
}

/// Runs of a scenario.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tally {
    /// Runs.
    pub runs: u64,
    /// Those that passed.
    pub passed: u64,
}

/// Something that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    /// The build that failed, as its user named it.
    pub build: String,
    /// What repeats it.
    pub command: String,
    /// What was wrong.
    pub reasons: Vec<String>,
}

impl Default for Ledger {
    fn default() -> Self {
        Self {
            format: FORMAT,
            sim: SimTotals::default(),
            runs: RunTotals::default(),
            states: BTreeMap::new(),
            failures: Vec::new(),
        }
    }
}

impl Ledger {
    /// The ledger in this file; an empty one if there is none.
    ///
    /// # Errors
    /// When the file cannot be read, or is no ledger of this format.
    pub fn load(path: &Path) -> Result<Ledger, LedgerError> {
        let content = |reason: String| LedgerError::Content {
            path: path.to_owned(),
            reason,
        };
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Ledger::default()),
            Err(source) => {
                return Err(LedgerError::Io {
                    action: "read",
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let ledger: Ledger = serde_json::from_slice(&text).map_err(|error| content(error.to_string()))?;
        if ledger.format != FORMAT {
            return Err(content(format!(
                "its format is {}, this program knows {FORMAT}",
                ledger.format
            )));
        }
        Ok(ledger)
    }

    /// Puts the ledger in the file's place. The file is the old one or the new one, whatever happens.
    ///
    /// # Errors
    /// When it cannot be written or synced.
    pub fn save(&self, path: &Path) -> Result<(), LedgerError> {
        let text = serde_json::to_vec_pretty(self).expect("a ledger is plain data");
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.unwrap_or(Path::new("."));
        let write = || {
            std::fs::create_dir_all(folder)?;
            let mut file = tempfile::NamedTempFile::new_in(folder)?;
            file.write_all(&text)?;
            file.as_file().sync_all()?;
            file.persist(path)?;
            File::open(folder)?.sync_all()
        };
        write().map_err(|source| LedgerError::Io {
            action: "write",
            path: path.to_owned(),
            source,
        })
    }

    /// What comes next: of simulation and scenarios the one that has had less time.
    pub fn next_piece(&self) -> Piece {
        if self.sim.took_ms <= self.runs.took_ms {
            return Piece::Seeds {
                first: self.sim.seeds + 1,
            };
        }
        let count = SCENARIOS.len() as u64;
        Piece::Scenario {
            name: SCENARIOS[(self.runs.count % count) as usize].0,
            seed: self.runs.count / count + 1,
        }
    }

    /// Whether there is no room for another failure.
    pub fn is_full(&self) -> bool {
        self.failures.len() >= FAILURES_MAX
    }

    /// Counts a seed.
    pub fn add_seed(&mut self, outcome: &Outcome, took: Duration, build: &str) {
        self.sim.seeds += 1;
        self.sim.simulated_ms += outcome.simulated_ms;
        self.sim.acked += outcome.acked;
        self.sim.took_ms += took.as_millis() as u64;
        if !outcome.is_pass() {
            self.add_failure(
                build,
                format!("dunlin chaos sim replay {}", outcome.seed),
                &outcome.violations,
            );
        }
    }

    /// Counts a run that came to a verdict.
    pub fn add_run(&mut self, verdict: &Verdict, took: Duration, build: &str) {
        let (name, seed) = (&verdict.scenario, verdict.seed);
        self.add_attempt(name, verdict.is_pass(), took);
        self.runs.load_ms += (verdict.load_s * 1000.0) as u64;
        self.runs.acked += verdict.acked;
        for fault in verdict
            .faults
            .iter()
            .filter(|fault| fault.outcome == Progress::Healed)
        {
            *self.runs.faults.entry(fault.kind.clone()).or_default() += 1;
        }
        if !verdict.is_pass() {
            self.add_failure(build, command_of(name, seed), &verdict.reasons);
        }
    }

    /// Counts a run that came to none.
    pub fn add_broken_run(&mut self, (name, seed): (&str, u64), reason: String, took: Duration, build: &str) {
        self.add_attempt(name, false, took);
        self.add_failure(build, command_of(name, seed), &[reason]);
    }

    fn add_attempt(&mut self, name: &str, passed: bool, took: Duration) {
        self.runs.count += 1;
        self.runs.took_ms += took.as_millis() as u64;
        let tally = self.runs.scenarios.entry(name.to_owned()).or_default();
        tally.runs += 1;
        tally.passed += u64::from(passed);
    }

    fn add_failure(&mut self, build: &str, command: String, reasons: &[String]) {
        self.failures.push(Failure {
            build: build.to_owned(),
            command,
            reasons: reasons.to_vec(),
        });
    }

    /// Counts how often a hard state was reached.
    pub fn add_state(&mut self, point: Point, times: u64) {
        *self.states.entry(point.what().to_owned()).or_default() += times;
    }
}

fn command_of(name: &str, seed: u64) -> String {
    format!("dunlin chaos run {name} --seed {seed}")
}

fn hours(ms: u64) -> f64 {
    ms as f64 / 3_600_000.0
}

/// The ledger as tables of Markdown.
impl Display for Ledger {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "| what | how much |")?;
        writeln!(f, "|---|---|")?;
        writeln!(
            f,
            "| `chaos sim` | {} seeds, {:.2} h simulated in {:.2} h, {} messages acked |",
            self.sim.seeds,
            hours(self.sim.simulated_ms),
            hours(self.sim.took_ms),
            self.sim.acked
        )?;
        let reached = Point::ALL
            .iter()
            .filter(|point| self.states.contains_key(point.what()));
        writeln!(
            f,
            "| hard states reached in it | {} of {} |",
            reached.count(),
            Point::ALL.len()
        )?;
        writeln!(
            f,
            "| `chaos run` | {} runs, {:.2} h of load and faults in {:.2} h, {} messages acked and read back |",
            self.runs.count,
            hours(self.runs.load_ms),
            hours(self.runs.took_ms),
            self.runs.acked
        )?;
        let faults: u64 = self.runs.faults.values().sum();
        writeln!(f, "| faults in them, installed and healed | {faults} |")?;
        writeln!(f, "| failures | {} |", self.failures.len())?;
        writeln!(f, "\n| scenario | runs | passed |\n|---|---|---|")?;
        for (name, tally) in &self.runs.scenarios {
            writeln!(f, "| `{name}` | {} | {} |", tally.runs, tally.passed)?;
        }
        writeln!(f, "\n| fault | installed and healed |\n|---|---|")?;
        for (kind, count) in &self.runs.faults {
            writeln!(f, "| {kind} | {count} |")?;
        }
        if !self.failures.is_empty() {
            writeln!(f, "\n| failed | build | what was wrong |\n|---|---|---|")?;
        }
        for failure in &self.failures {
            let first = failure.reasons.first().map_or("", String::as_str);
            writeln!(f, "| `{}` | {} | {first} |", failure.command, failure.build)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Counts;

    fn outcome(seed: u64, violations: &[&str]) -> Outcome {
        Outcome {
            seed,
            trace: 1,
            simulated_ms: 9_000,
            sent: 12,
            acked: 11,
            datagrams: Counts::default(),
            sights: 1,
            words: 1,
            violations: violations.iter().map(|text| (*text).to_owned()).collect(),
        }
    }

    #[test]
    fn a_soak_goes_on_where_the_last_one_ended() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("soak/ledger.json");
        let mut ledger = Ledger::load(&path).unwrap();
        assert_eq!(ledger.next_piece(), Piece::Seeds { first: 1 });
        for seed in 1..=SEEDS_PER_PIECE {
            ledger.add_seed(&outcome(seed, &[]), Duration::from_millis(500), "b");
        }
        let first = Piece::Scenario {
            name: SCENARIOS[0].0,
            seed: 1,
        };
        assert_eq!(ledger.next_piece(), first);
        ledger.save(&path).unwrap();
        let mut ledger = Ledger::load(&path).unwrap();
        assert_eq!(ledger.next_piece(), first, "in another process");
        for (name, _) in SCENARIOS {
            ledger.add_broken_run((name, 1), "no port".into(), Duration::from_secs(1), "b");
        }
        assert_eq!(ledger.next_piece(), Piece::Seeds { first: 21 });
        ledger.sim.took_ms = u64::MAX;
        let next_round = Piece::Scenario {
            name: SCENARIOS[0].0,
            seed: 2,
        };
        assert_eq!(ledger.next_piece(), next_round);
    }

    #[test]
    fn what_failed_stays_with_the_command_that_repeats_it() {
        let mut ledger = Ledger::default();
        ledger.add_seed(&outcome(7, &["I1: lost"]), Duration::ZERO, "0.1.0");
        ledger.add_broken_run(("power", 3), "no /dev/fuse".into(), Duration::ZERO, "0.1.0");
        let text = ledger.to_string();
        assert!(
            text.contains("| `dunlin chaos sim replay 7` | 0.1.0 | I1: lost |"),
            "{text}"
        );
        assert!(text.contains("`dunlin chaos run power --seed 3`"), "{text}");
        assert!(text.contains("| `power` | 1 | 0 |"), "{text}");
    }

    #[test]
    fn a_file_that_is_no_ledger_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger.json");
        std::fs::write(&path, r#"{"format": 2}"#).unwrap();
        assert!(matches!(Ledger::load(&path), Err(LedgerError::Content { .. })));
        let mut newer = serde_json::to_value(Ledger::default()).unwrap();
        newer["format"] = 2.into();
        std::fs::write(&path, newer.to_string()).unwrap();
        let error = Ledger::load(&path).unwrap_err().to_string();
        assert!(error.contains("its format is 2"), "{error}");
    }
}
