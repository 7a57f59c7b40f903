//! Several servers under the same load, in turns: medians, and ratios with their spread.
//!
//! A machine's speed drifts, and what is measured first after a pause finds other caches. So targets
//! take turns in rounds, every second round in reverse order, and a ratio is that of two runs of one
//! round. What is compared is told by the spread: a ratio whose spread includes 1 says nothing.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::ceiling::Ceiling;
use super::figures::{Figures, Floor};
use super::report;
use crate::page::Page;

/// The middle and both ends of some values.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// The middle; of an even number the lower one of the two in the middle.
    pub median: f64,
    /// The smallest.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Spread {
    /// Of values that are numbers; `None` without any.
    pub fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        Some(Self {
            median: *values.get(values.len().checked_sub(1)? / 2)?,
            min: *values.first()?,
            max: *values.last()?,
        })
    }
}

/// The order of targets in a round (from 0).
pub fn order(round: usize, targets: usize) -> Vec<usize> {
    let mut order: Vec<usize> = (0..targets).collect();
    if round % 2 == 1 {
        order.reverse();
    }
    order
}

/// One run within a comparison.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Sample {
    /// The round, from 0.
    pub round: usize,
    /// The target's place.
    pub target: usize,
    /// Messages per second.
    pub per_s: f64,
    /// Latencies in microseconds.
    pub p50_us: f64,
    /// See above.
    pub p99_us: f64,
    /// See above.
    pub p999_us: f64,
    /// Messages without an answer, lost connections and failed connects.
    pub troubles: u64,
}

impl Sample {
    /// Of a run.
    pub fn new(round: usize, target: usize, figures: &Figures) -> Self {
        let latency = |value: fn(&super::figures::Latency) -> u64| {
            figures
                .latency_us
                .as_ref()
                .map_or(f64::NAN, |latency| value(latency) as f64)
        };
        let counts = &figures.counts;
        Self {
            round,
            target,
            per_s: figures.per_s(),
            p50_us: latency(|latency| latency.p50),
            p99_us: latency(|latency| latency.p99),
            p999_us: latency(|latency| latency.p999),
            troubles: counts.unacked + counts.unsent + counts.lost + counts.connects_failed + counts.refused,
        }
    }
}

/// One target over all rounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Compared {
    /// Its name.
    pub name: String,
    /// Messages per second.
    pub per_s: Option<Spread>,
    /// Latencies in microseconds.
    pub p50_us: Option<Spread>,
    /// See above.
    pub p99_us: Option<Spread>,
    /// See above.
    pub p999_us: Option<Spread>,
    /// Its rate divided by that of the first target in the same round.
    pub rate_ratio: Option<Spread>,
    /// Its p99 divided by that of the first target in the same round.
    pub p99_ratio: Option<Spread>,
    /// Runs that came to an end.
    pub runs: usize,
    /// See [`Sample::troubles`].
    pub troubles: u64,
}

/// A whole comparison.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Comparison {
    /// The load, in words.
    pub load: String,
    /// Rounds.
    pub rounds: usize,
    /// The targets, in the order in which they were named.
    pub targets: Vec<Compared>,
    /// Every run.
    pub samples: Vec<Sample>,
    /// What this generator reaches against a server that does nothing.
    pub ceiling_per_s: Option<f64>,
    /// Why there is no such figure, or what it leaves out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ceiling_note: Option<String>,
    /// What a server comes to that only syncs, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub floor: Option<Floor>,
    /// Runs that failed, with why.
    pub failures: Vec<String>,
}

impl Comparison {
    /// Of these samples.
    pub fn new(load: String, names: &[String], rounds: usize, samples: Vec<Sample>) -> Self {
        let targets = names
            .iter()
            .enumerate()
            .map(|(target, name)| compared(name, target, &samples))
            .collect();
        Self {
            load,
            rounds,
            targets,
            samples,
            ceiling_per_s: None,
            ceiling_note: None,
            floor: None,
            failures: Vec::new(),
        }
    }

    /// Puts the generator's own ceiling beside it, and the floor if there is one.
    pub fn beside(self, ceiling: Ceiling, floor: Option<Floor>) -> Self {
        Self {
            ceiling_per_s: ceiling.per_s,
            ceiling_note: ceiling.note,
            floor,
            ..self
        }
    }

    fn rows(&self) -> Vec<Vec<String>> {
        let spread = |spread: &Option<Spread>, text: &dyn Fn(f64) -> String| match spread {
            Some(spread) => format!(
                "{} ({} to {})",
                text(spread.median),
                text(spread.min),
                text(spread.max)
            ),
            None => "-".to_owned(),
        };
        let ms = |us: f64| report::ms(us as u64);
        let ratio = |ratio: f64| format!("{ratio:.2}");
        self.targets
            .iter()
            .map(|target| {
                vec![
                    target.name.clone(),
                    spread(&target.per_s, &report::per_s),
                    spread(&target.p50_us, &ms),
                    spread(&target.p99_us, &ms),
                    spread(&target.p999_us, &ms),
                    spread(&target.rate_ratio, &ratio),
                    spread(&target.p99_ratio, &ratio),
                    target.troubles.to_string(),
                ]
            })
            .collect()
    }

    /// As a page.
    pub fn page(&self, command: &str) -> Page {
        let mut page = Page::new("dunlin load compare");
        page.paragraph(&self.load)
            .paragraph(&self.note())
            .table(&HEAD, &self.rows());
        if !self.failures.is_empty() {
            page.section("Runs that failed")
                .preformatted(&self.failures.join("\n"));
        }
        let runs: Vec<Vec<String>> = self
            .samples
            .iter()
            .map(|sample| {
                vec![
                    (sample.round + 1).to_string(),
                    self.targets[sample.target].name.clone(),
                    report::per_s(sample.per_s),
                    report::ms(sample.p50_us as u64),
                    report::ms(sample.p99_us as u64),
                    report::ms(sample.p999_us as u64),
                ]
            })
            .collect();
        page.section("Every run")
            .table(&["round", "target", "rate", "p50", "p99", "p99.9"], &runs);
        page.section("How to repeat it").preformatted(command);
        page
    }

    fn note(&self) -> String {
        let ceiling = report::ceiling_of(self.ceiling_per_s, self.ceiling_note.as_deref());
        let ceiling = ceiling.map_or(String::new(), |text| format!("; generator ceiling {text}"));
        let floor = self.floor.as_ref().map_or(String::new(), |floor| {
            format!("; durable floor {}", report::floor_of(floor))
        });
        format!(
            "{} rounds in turn, every second one in reverse; median (smallest to largest); ratios to the first target, round by round{ceiling}{floor}",
            self.rounds
        )
    }
}

const HEAD: [&str; 8] = [
    "target",
    "rate",
    "p50",
    "p99",
    "p99.9",
    "rate ratio",
    "p99 ratio",
    "troubles",
];

fn compared(name: &str, target: usize, samples: &[Sample]) -> Compared {
    let own = || samples.iter().filter(move |sample| sample.target == target);
    let ratio = |value: fn(&Sample) -> f64| {
        Spread::of(own().filter_map(|sample| {
            let first = samples
                .iter()
                .find(|first| first.target == 0 && first.round == sample.round)?;
            Some(value(sample) / value(first))
        }))
    };
    Compared {
        name: name.to_owned(),
        per_s: Spread::of(own().map(|sample| sample.per_s)),
        p50_us: Spread::of(own().map(|sample| sample.p50_us)),
        p99_us: Spread::of(own().map(|sample| sample.p99_us)),
        p999_us: Spread::of(own().map(|sample| sample.p999_us)),
        rate_ratio: ratio(|sample| sample.per_s),
        p99_ratio: ratio(|sample| sample.p99_us),
        runs: own().count(),
        troubles: own().map(|sample| sample.troubles).sum(),
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}\n{}\n", self.load, self.note())?;
        let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
        rows.extend(self.rows());
        let width = |column: usize| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or_default()
        };
        let widths: Vec<usize> = (0..HEAD.len()).map(width).collect();
        for row in &rows {
            let cells = row.iter().zip(&widths);
            let line: String = cells.map(|(cell, width)| format!("{cell:<width$}  ")).collect();
            writeln!(f, "{}", line.trim_end())?;
        }
        for failure in &self.failures {
            writeln!(f, "!  {failure}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(round: usize, target: usize, per_s: f64) -> Sample {
        Sample {
            round,
            target,
            per_s,
            p50_us: 1000.0,
            p99_us: 1e6 / per_s,
            p999_us: f64::NAN,
            troubles: 1,
        }
    }

    #[test]
    fn targets_take_turns_and_the_order_turns_too() {
        assert_eq!(order(0, 3), [0, 1, 2]);
        assert_eq!(order(1, 3), [2, 1, 0]);
        assert_eq!(order(2, 3), [0, 1, 2]);
    }

    #[test]
    fn a_ratio_is_that_of_one_round() {
        // The machine slows down by half from round to round; the ratio does not.
        let samples: Vec<Sample> = [(0, 800.0), (1, 400.0), (2, 200.0)]
            .into_iter()
            .flat_map(|(round, rate)| [sample(round, 0, rate), sample(round, 1, rate * 0.5)])
            .collect();
        let names = ["a".to_owned(), "b".to_owned()];
        let comparison = Comparison::new("load".into(), &names, 3, samples);
        let spread = |median, min, max| Some(Spread { median, min, max });
        let [a, b] = &comparison.targets[..] else {
            panic!("two targets")
        };
        assert_eq!(
            (a.per_s, a.rate_ratio),
            (spread(400.0, 200.0, 800.0), spread(1.0, 1.0, 1.0))
        );
        assert_eq!(
            (b.rate_ratio, b.p99_ratio),
            (spread(0.5, 0.5, 0.5), spread(2.0, 2.0, 2.0))
        );
        assert_eq!((b.p999_us, b.runs, b.troubles), (None, 3, 3));
        let text = comparison.to_string();
        assert!(text.contains("0.50 (0.50 to 0.50)"), "{text}");
        assert!(comparison.page("x").render().contains("0.50 (0.50 to 0.50)"));
        assert!(!text.contains("ceiling") && !text.contains("floor"), "{text}");

        let ceiling = Ceiling::of(9000.0, true);
        let floor = Floor {
            logs: 1,
            folder: "/tmp".into(),
            per_s: 700.0,
        };
        let text = comparison.beside(ceiling, Some(floor)).to_string();
        assert!(
            text.contains("generator ceiling 9000/s, measured without WebSocket; durable floor 700/s with 1 synced log in /tmp"),
            "{text}"
        );
    }

    #[test]
    fn a_round_in_which_the_first_failed_has_no_ratio() {
        let samples = vec![sample(0, 1, 10.0), sample(1, 0, 10.0), sample(1, 1, 20.0)];
        let names = ["a".to_owned(), "b".to_owned()];
        let comparison = Comparison::new("load".into(), &names, 2, samples);
        assert_eq!(
            comparison.targets[1].rate_ratio.map(|ratio| ratio.median),
            Some(2.0)
        );
        assert_eq!(Spread::of([]), None);
        assert_eq!(
            Spread::of([4.0, 1.0, 3.0, 2.0]).map(|spread| spread.median),
            Some(2.0)
        );
    }
}
