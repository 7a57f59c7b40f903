//! The scales of a chart: linear or logarithmic, where their marks stand and what these say.
//!
//! One type for both, so that a chart is drawn by the same code whichever it has. Marks stand at 1, 2
//! or 5 times a power of ten, and on a logarithmic scale at 1 (and 2 and 5 where there is room).

use std::ops::Range;

use plotters::coord::ranged1d::{DefaultFormatting, KeyPointHint};
use plotters::prelude::Ranged;

/// Marks that a scale has at the most.
const MARKS_MAX: usize = 12;
/// A logarithmic scale that spans fewer powers of ten than this is marked at 2 and 5, too.
const FINE_DECADES_MAX: f64 = 3.5;

/// One scale, from `low` to `high`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Axis {
    low: f64,
    high: f64,
    is_log: bool,
}

impl Axis {
    /// Linear, with both ends given.
    pub(super) fn linear(low: f64, high: f64) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        Self {
            low,
            high,
            is_log: false,
        }
    }

    /// Linear from 0 to the first mark above the largest value.
    pub(super) fn from_zero(max: f64) -> Self {
        let mut axis = Self::linear(0.0, max);
        let step = axis.step();
        axis.high = (max / step).ceil().max(1.0) * step;
        axis
    }

    /// Logarithmic around all values, which are above 0; from mark to mark.
    pub(super) fn log(min: f64, max: f64) -> Self {
        let (min, max) = if min > 0.0 && max >= min {
            (min, max)
        } else {
            (1.0, 10.0)
        };
        let below = |value: f64| {
            let decade = 10f64.powf(value.log10().floor());
            [5.0, 2.0, 1.0]
                .into_iter()
                .map(|factor| factor * decade)
                .find(|mark| *mark <= value * (1.0 + 1e-9))
                .unwrap_or(decade)
        };
        let low = below(min);
        let mut high = below(max);
        if high < max || high <= low {
            let decade = 10f64.powf(max.log10().floor());
            high = [1.0, 2.0, 5.0, 10.0, 20.0]
                .into_iter()
                .map(|factor| factor * decade)
                .find(|mark| *mark >= max && *mark > low)
                .unwrap_or(max * 2.0);
        }
        Self {
            low,
            high,
            is_log: true,
        }
    }

    /// Logarithmic, with both ends given and above 0.
    pub(super) fn log_exactly(low: f64, high: f64) -> Self {
        assert!(low > 0.0, "a logarithmic scale begins above zero");
        Self {
            low,
            high: if high > low { high } else { low * 10.0 },
            is_log: true,
        }
    }

    /// Its two ends.
    pub(super) fn ends(&self) -> (f64, f64) {
        (self.low, self.high)
    }

    fn step(&self) -> f64 {
        let rough = (self.high - self.low) / (MARKS_MAX as f64 / 2.0);
        let decade = 10f64.powf(rough.log10().floor());
        [1.0, 2.0, 5.0, 10.0]
            .into_iter()
            .map(|factor| factor * decade)
            .find(|step| *step >= rough * (1.0 - 1e-9))
            .unwrap_or(decade * 10.0)
    }

    /// Where marks stand, from low to high.
    pub(super) fn marks(&self) -> Vec<f64> {
        let is_in = |mark: &f64| *mark >= self.low * (1.0 - 1e-9) && *mark <= self.high * (1.0 + 1e-9);
        if self.is_log {
            let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
            let factors: &[f64] = if (self.high / self.low).log10() < FINE_DECADES_MAX {
                &[1.0, 2.0, 5.0]
            } else {
                &[1.0]
            };
            decades
                .flat_map(|decade| factors.iter().map(move |factor| factor * 10f64.powi(decade)))
                .filter(is_in)
                .collect()
        } else {
            let step = self.step();
            let first = (self.low / step).ceil() as i64;
            (first..first + 2 * MARKS_MAX as i64)
                .map(|place| place as f64 * step)
                .take_while(|mark| *mark <= self.high + step * 1e-9)
                .collect()
        }
    }
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let (low, high, value) = if self.is_log {
            // What lies below the scale, 0 included, is drawn at its foot.
            (self.low.ln(), self.high.ln(), value.max(f64::MIN_POSITIVE).ln())
        } else {
            (self.low, self.high, *value)
        };
        let share = ((value - low) / (high - low)).clamp(0.0, 1.0);
        limit.0 + (f64::from(limit.1 - limit.0) * share).round() as i32
    }

    fn key_points<Hint: KeyPointHint>(&self, _hint: Hint) -> Vec<f64> {
        self.marks()
    }

    fn range(&self) -> Range<f64> {
        self.low..self.high
    }
}

/// A number as short as it stays clear: `25k`, `1.5`, `0.02`.
pub(super) fn short(value: f64) -> String {
    let (value, unit) = match value.abs() {
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let digits = match value.abs() {
        size if size >= 100.0 || size == 0.0 => 0,
        size if size >= 1.0 => 2,
        _ => 5,
    };
    let text = format!("{value:.digits$}");
    let text = if text.contains('.') {
        text.trim_end_matches('0').trim_end_matches('.')
    } else {
        &text
    };
    format!("{text}{unit}")
}

/// The percentile at `x = 1 / (1 - quantile)`: `50 %`, `99.9 %`.
pub(super) fn percentile(x: f64) -> String {
    let percent = 100.0 * (1.0 - 1.0 / x.max(1.0));
    let text = format!("{percent:.6}");
    format!("{} %", text.trim_end_matches('0').trim_end_matches('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_round_and_inside() {
        assert_eq!(Axis::from_zero(9.3).marks(), [0.0, 2.0, 4.0, 6.0, 8.0, 10.0]);
        assert_eq!(Axis::from_zero(0.0).ends().0, 0.0);
        let log = Axis::log(0.3, 71.0);
        assert_eq!(log.ends(), (0.2, 100.0));
        assert_eq!(log.marks(), [0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0]);
        assert_eq!(Axis::log(1.0, 1e6).marks().len(), 7);
        for (min, max) in [(0.0, 0.0), (5.0, 5.0), (1.0, 1.0), (3.0, 2.0)] {
            let (low, high) = Axis::log(min, max).ends();
            assert!(low > 0.0 && high > low, "{min} {max}");
        }
        for max in [0.0, 1e-9, 3.0, 123_456.0, 1e12] {
            let axis = Axis::from_zero(max);
            let marks = axis.marks();
            assert!(
                axis.ends().1 >= max && (2..=MARKS_MAX).contains(&marks.len()),
                "{max}: {marks:?}"
            );
        }
    }

    #[test]
    fn values_are_placed() {
        let axis = Axis::log_exactly(1.0, 1000.0);
        assert_eq!(axis.map(&10.0, (0, 300)), 100);
        assert_eq!(axis.map(&0.0, (0, 300)), 0);
        assert_eq!(Axis::linear(0.0, 10.0).map(&2.5, (100, 0)), 75);
    }

    #[test]
    fn numbers_are_short() {
        for (value, text) in [
            (0.0, "0"),
            (0.02, "0.02"),
            (1.5, "1.5"),
            (20.0, "20"),
            (500.0, "500"),
            (25_000.0, "25k"),
            (2e6, "2M"),
        ] {
            assert_eq!(short(value), text);
        }
        assert_eq!(percentile(2.0), "50 %");
        assert_eq!(percentile(1000.0), "99.9 %");
        assert_eq!(percentile(1.0), "0 %");
    }
}
