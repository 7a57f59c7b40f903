//! Seeded bugs against the checkers: a bug that no run notices is a missing test.
//!
//! Each mutant of [`dunlin_model::mutant`] is given seeds of the simulation until one fails; what they do not show, the
//! drill of one shard's machine may ([`crate::drill`]). Only in a build with the feature `mutants`.

use std::ops::Range;

use dunlin_model::mutant::{self, Mutant};

use crate::drill;
use crate::sim::{Plan, SimError, Simulator};

/// Seeds of the drill, which takes some milliseconds for one.
const DRILLS: u64 = 200;

/// What may catch a mutant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Check {
    /// A simulated hub.
    Simulation,
    /// The drill of one shard's machine.
    Drill,
}

/// How a hunt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caught {
    /// One of the checks failed.
    By {
        /// Which.
        check: Check,
        /// Its seed.
        seed: u64,
        /// The first thing that was wrong; of a simulated hub it begins with the invariant's id.
        violation: String,
    },
    /// None did.
    Not {
        /// How many were tried.
        seeds: u64,
    },
}

/// The mutants with these names; all of them if none is given.
pub fn chosen(names: &[String]) -> Result<Vec<Mutant>, String> {
    if names.is_empty() {
        return Ok(Mutant::ALL.to_vec());
    }
    let find = |name: &String| Mutant::parse(name).ok_or_else(|| format!("there is no mutant {name}"));
    names.iter().map(find).collect()
}

/// Runs seeds with the bug in place until one fails, then the drill. No bug is in place afterwards.
pub fn hunt(simulator: &Simulator, mutant: Mutant, seeds: Range<u64>) -> Result<Caught, SimError> {
    let mut tried = 0;
    for seed in seeds {
        mutant::choose(Some(mutant));
        let outcome = simulator.run(&Plan::draw(seed));
        mutant::choose(None);
        tried += 1;
        if let Some(violation) = outcome?.violations.into_iter().next() {
            let check = Check::Simulation;
            return Ok(Caught::By {
                check,
                seed,
                violation,
            });
        }
    }
    mutant::choose(Some(mutant));
    let drilled = (0..DRILLS).find_map(|seed| Some((seed, drill::run(seed)?)));
    mutant::choose(None);
    Ok(match drilled {
        Some((seed, violation)) => Caught::By {
            check: Check::Drill,
            seed,
            violation,
        },
        None => Caught::Not { seeds: tried },
    })
}
