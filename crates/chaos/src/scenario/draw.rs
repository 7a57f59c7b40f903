//! Epochs out of a scenario and a seed: which faults, when, for how long, told what.
//!
//! Pure, and each epoch is drawn from the seed and its own number: the tenth epoch is the same however
//! long the nine before it took. Which node a target names is found out only when the time has come,
//! since it depends on who leads then.

use std::collections::BTreeMap;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use crate::faults::{self, Kind};
use crate::scenario::target::Target;
use crate::scenario::{FaultSpec, Scenario, Span};

/// An epoch with its faults.
#[derive(Debug, Clone)]
pub struct DrawnEpoch {
    /// Its number in the run, from 0.
    pub index: u64,
    /// Milliseconds, if the faults do not take longer.
    pub duration_ms: u64,
    /// The faults.
    pub faults: Vec<DrawnFault>,
}

/// A fault that is to happen.
#[derive(Debug, Clone)]
pub struct DrawnFault {
    /// What.
    pub kind: &'static Kind,
    /// To whom.
    pub target: Target,
    /// Milliseconds after the epoch began.
    pub at_ms: u64,
    /// Milliseconds until it is healed.
    pub for_ms: u64,
    /// What else it is told; every parameter of the kind has a value.
    pub with: BTreeMap<&'static str, u64>,
    /// For what it draws by itself.
    pub seed: u64,
}

/// Epochs that the scenario has without being repeated.
pub fn epoch_count(scenario: &Scenario) -> u64 {
    let listed: u64 = scenario.epochs.iter().map(|epoch| epoch.repeat).sum();
    listed + scenario.composed.as_ref().map_or(0, |composed| composed.epochs)
}

/// Draws epoch `index`. Behind the last one the scenario begins again, with other draws.
pub fn epoch(scenario: &Scenario, seed: u64, index: u64) -> DrawnEpoch {
    let mut random = StdRng::seed_from_u64(seed ^ (index + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut place = index % epoch_count(scenario).max(1);
    for epoch in &scenario.epochs {
        if place < epoch.repeat {
            let draw = |fault| fault_of(fault, epoch.duration_ms, &mut random);
            return DrawnEpoch {
                index,
                duration_ms: epoch.duration_ms,
                faults: epoch.faults.iter().filter_map(draw).collect(),
            };
        }
        place -= epoch.repeat;
    }
    let Some(composed) = &scenario.composed else {
        return DrawnEpoch {
            index,
            duration_ms: 0,
            faults: Vec::new(),
        };
    };
    let is_quiet = composed.faults_max == 0 || random.random_range(0..100) < composed.quiet_percent;
    let count = match is_quiet {
        true => 0,
        false => random.random_range(1..=composed.faults_max),
    };
    DrawnEpoch {
        index,
        duration_ms: composed.duration_ms,
        faults: choose(scenario, &composed.faults, count, &mut random)
            .into_iter()
            .filter_map(|fault| fault_of(fault, composed.duration_ms, &mut random))
            .collect(),
    }
}

/// Draws up to `count` different faults by weight; what they damage together is within the tolerance.
fn choose<'a>(
    scenario: &Scenario,
    faults: &'a [FaultSpec],
    count: usize,
    random: &mut StdRng,
) -> Vec<&'a FaultSpec> {
    let damage = |fault: &FaultSpec| {
        let kind = faults::kind(fault.kind.get_ref())?;
        let target = target_of(fault, kind);
        Some(match kind.damages {
            true => target.count(scenario.cluster.nodes),
            false => 0,
        })
    };
    let mut tolerance = match scenario.majority {
        true => usize::MAX,
        false => scenario.cluster.tolerance(),
    };
    let mut left: Vec<&FaultSpec> = faults.iter().collect();
    let mut chosen = Vec::new();
    while chosen.len() < count {
        left.retain(|fault| damage(fault).is_some_and(|damage| damage <= tolerance));
        let weights = |fault: &&FaultSpec| u64::from(fault.weight.unwrap_or(1));
        let all: u64 = left.iter().map(weights).sum();
        if all == 0 {
            break;
        }
        let mut drawn = random.random_range(0..all);
        let place = left.iter().position(|fault| {
            let is_here = drawn < weights(fault);
            drawn = drawn.saturating_sub(weights(fault));
            is_here
        });
        let Some(place) = place else { break };
        let fault = left.swap_remove(place);
        tolerance = tolerance.saturating_sub(damage(fault).unwrap_or(0));
        chosen.push(fault);
    }
    chosen
}

fn target_of(fault: &FaultSpec, kind: &Kind) -> Target {
    let told = fault.target.as_ref().and_then(|target| target.parse().ok());
    told.unwrap_or(kind.target)
}

/// `None` for a kind that is not in the catalogue, which a scenario that was read has not.
fn fault_of(fault: &FaultSpec, duration_ms: u64, random: &mut StdRng) -> Option<DrawnFault> {
    let kind = faults::kind(fault.kind.get_ref())?;
    let mut draw = |(low, high): (u64, u64)| random.random_range(low..=high.max(low));
    let at_ms = draw(fault.at_ms.map_or((0, duration_ms / 2), Span::bounds));
    let for_ms = draw(fault.for_ms.map_or(kind.for_ms, Span::bounds));
    let with = kind.with.iter().map(|parameter| {
        let told = fault.with.get(parameter.name);
        let (low, high) = told.map_or(parameter.usual, |span| span.bounds());
        (parameter.name, draw((low, high)))
    });
    Some(DrawnFault {
        kind,
        target: target_of(fault, kind),
        at_ms,
        for_ms,
        with: with.collect(),
        seed: random.random(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::read::parse;

    const COMPOSED: &str = r#"
name = "drawn"
shows = "draws"
[composed]
epochs = 10
duration_ms = 4000
faults_max = 4
[[composed.fault]]
kind = "kill"
weight = 3
[[composed.fault]]
kind = "pause"
[[composed.fault]]
kind = "crash-loop"
[[composed.fault]]
kind = "stop"
[[composed.fault]]
kind = "membership"
"#;

    fn names(epoch: &DrawnEpoch) -> Vec<(&str, u64, u64)> {
        let name = |fault: &DrawnFault| (fault.kind.name, fault.at_ms, fault.for_ms);
        epoch.faults.iter().map(name).collect()
    }

    #[test]
    fn the_same_seed_draws_the_same_epochs() {
        let scenario = parse("a", COMPOSED).unwrap();
        let draw = |seed| (0..50).map(move |index| (seed, index));
        let all = |seed| -> Vec<_> {
            draw(seed)
                .map(|(seed, index)| format!("{:?}", names(&epoch(&scenario, seed, index))))
                .collect()
        };
        assert_eq!(all(5), all(5));
        assert_ne!(all(5), all(6));
        assert_ne!(all(5)[..10], all(5)[10..20], "a repetition draws anew");
    }

    #[test]
    fn a_minority_is_damaged_at_most_and_a_quarter_is_quiet() {
        let scenario = parse("a", COMPOSED).unwrap();
        let (mut quiet, mut with_two) = (0, 0);
        for index in 0..1000 {
            let drawn = epoch(&scenario, 11, index);
            let damaging = drawn.faults.iter().filter(|fault| fault.kind.damages).count();
            assert!(damaging <= 1, "{:?}", names(&drawn));
            quiet += usize::from(drawn.faults.is_empty());
            with_two += usize::from(drawn.faults.len() > 1);
        }
        assert!((200..300).contains(&quiet), "{quiet} of 1000 are quiet");
        assert!(with_two > 0);
    }

    #[test]
    fn with_a_majority_more_may_be_damaged() {
        let text = COMPOSED.replace("shows =", "majority = true\nshows =");
        let scenario = parse("a", &text).unwrap();
        assert!((0..100).any(|index| {
            let drawn = epoch(&scenario, 11, index);
            drawn.faults.iter().filter(|fault| fault.kind.damages).count() > 1
        }));
    }

    #[test]
    fn weights_weigh() {
        let scenario = parse("a", COMPOSED).unwrap();
        let mut counts = BTreeMap::new();
        for index in 0..1000 {
            for fault in epoch(&scenario, 3, index).faults {
                *counts.entry(fault.kind.name).or_insert(0) += 1;
            }
        }
        assert!(counts["kill"] > 2 * counts["pause"], "{counts:?}");
    }

    #[test]
    fn listed_epochs_come_first_and_in_order() {
        let text = COMPOSED.replace(
            "[composed]",
            "[[epoch]]\nrepeat = 2\nduration_ms = 700\n[[epoch.fault]]\nkind = \"kill\"\nat_ms = 5\nfor_ms = 7\n[composed]",
        );
        let scenario = parse("a", &text).unwrap();
        assert_eq!(epoch_count(&scenario), 12);
        for index in [0, 1, 12, 13] {
            assert_eq!(names(&epoch(&scenario, 1, index)), [("kill", 5, 7)]);
        }
        assert_eq!(epoch(&scenario, 1, 2).duration_ms, 4000);
    }
}
