//! Numbers of the query language: how integers and floats compare and compute without losing what JSON can hold.
//!
//! A result is never infinite and never "not a number": where one would be, there is none. What becomes of that is
//! decided in `evaluate` and in `groups`.

use std::cmp::Ordering;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The first float above every integer that JSON values hold.
const ABOVE_INTEGERS: f64 = 18_446_744_073_709_551_616.0;
/// The lowest integer that JSON values hold.
const LOWEST_INTEGER: f64 = -9_223_372_036_854_775_808.0;

/// A number as JSON values hold it.
///
/// `==` tells apart how a number is held; whether two are of one size is for [`Number::compare`].
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub enum Number {
    /// An integer.
    Integer(i64),
    /// An integer above those of [`Number::Integer`].
    Natural(u64),
    /// Any other number; always finite.
    Float(f64),
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Number::Integer(left), Number::Integer(right)) => left == right,
            (Number::Natural(left), Number::Natural(right)) => left == right,
            (Number::Float(left), Number::Float(right)) => left.to_bits() == right.to_bits(),
            _ => false,
        }
    }
}

impl Eq for Number {}

impl Number {
    /// The number of a JSON value.
    pub(super) fn of_json(number: &serde_json::Number) -> Option<Self> {
        let integer = number.as_i64().map(Number::Integer);
        let natural = || number.as_u64().map(Number::Natural);
        let float = || number.as_f64().and_then(Self::of_float);
        integer.or_else(natural).or_else(float)
    }

    /// `integer`, or the float next to it if JSON values hold no such integer.
    pub(super) fn of_integer(integer: i128) -> Self {
        if let Ok(integer) = i64::try_from(integer) {
            Number::Integer(integer)
        } else if let Ok(natural) = u64::try_from(integer) {
            Number::Natural(natural)
        } else {
            Number::Float(integer as f64)
        }
    }

    /// `None` unless `float` is finite.
    pub(super) fn of_float(float: f64) -> Option<Self> {
        float.is_finite().then_some(Number::Float(float))
    }

    /// The number that `text` writes in decimal, with a sign, a fraction and an exponent if it likes. `None` if it
    /// writes none, or one that is too large.
    pub(super) fn of_text(text: &str) -> Option<Self> {
        let begins = text
            .trim_start_matches(['+', '-'])
            .starts_with(|c: char| c.is_ascii_digit());
        // Leaves the words out that the standard library reads as numbers.
        let is_plain = text
            .bytes()
            .all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
        if !begins || !is_plain {
            return None;
        }
        let integer = text.parse().ok().map(Number::Integer);
        let natural = || text.parse().ok().map(Number::Natural);
        let float = || text.parse().ok().and_then(Self::of_float);
        integer.or_else(natural).or_else(float)
    }

    /// As a JSON value.
    pub(super) fn to_json(self) -> Value {
        match self {
            Number::Integer(integer) => Value::from(integer),
            Number::Natural(natural) => Value::from(natural),
            Number::Float(float) => Value::from(float),
        }
    }

    /// `None` for a float, also for one without a fraction.
    pub(super) fn integer(self) -> Option<i128> {
        match self {
            Number::Integer(integer) => Some(integer.into()),
            Number::Natural(natural) => Some(natural.into()),
            Number::Float(_) => None,
        }
    }

    /// The float next to it.
    pub(super) fn float(self) -> f64 {
        match self {
            Number::Integer(integer) => integer as f64,
            Number::Natural(natural) => natural as f64,
            Number::Float(float) => float,
        }
    }

    /// The same size, held as an integer if it is one: numbers of one size become the same number.
    pub(super) fn canonical(self) -> Self {
        match self {
            Number::Float(float)
                if float.fract() == 0.0 && (LOWEST_INTEGER..ABOVE_INTEGERS).contains(&float) =>
            {
                Self::of_integer(float as i128)
            }
            other => other,
        }
    }

    /// Compares sizes exactly, also those of an integer and a float.
    pub fn compare(self, other: Self) -> Ordering {
        match (self.integer(), other.integer()) {
            (Some(left), Some(right)) => left.cmp(&right),
            (Some(left), None) => compare_mixed(left, other.float()),
            (None, Some(right)) => compare_mixed(right, self.float()).reverse(),
            (None, None) => order(self.float(), other.float()),
        }
    }

    /// As [`Number::compare`], but two that are held differently are never equal.
    pub(super) fn compare_held(self, other: Self) -> Ordering {
        let is_float = |number: Self| matches!(number, Number::Float(_));
        let held = || is_float(self).cmp(&is_float(other));
        // Zero has two floats.
        let signs = || self.float().total_cmp(&other.float());
        self.compare(other).then_with(held).then_with(signs)
    }

    pub(super) fn add(self, other: Self) -> Option<Self> {
        self.compute(other, i128::checked_add, |left, right| left + right)
    }

    pub(super) fn subtract(self, other: Self) -> Option<Self> {
        self.compute(other, i128::checked_sub, |left, right| left - right)
    }

    pub(super) fn multiply(self, other: Self) -> Option<Self> {
        self.compute(other, i128::checked_mul, |left, right| left * right)
    }

    /// An integer if integers divide without a rest. `None` if `other` is zero.
    pub(super) fn divide(self, other: Self) -> Option<Self> {
        // No quotient is a reason to compute in floats, as an overflow is.
        let exact = |left: i128, right: i128| (left.checked_rem(right)? == 0).then(|| left / right);
        let quotient = || self.compute(other, exact, |left, right| left / right);
        (other.float() != 0.0).then(quotient).flatten()
    }

    /// What a division leaves, with the sign of `self`. `None` if `other` is zero.
    pub(super) fn remainder(self, other: Self) -> Option<Self> {
        let rest = || self.compute(other, i128::checked_rem, |left, right| left % right);
        (other.float() != 0.0).then(rest).flatten()
    }

    pub(super) fn negate(self) -> Option<Self> {
        match self {
            Number::Float(float) => Some(Number::Float(-float)),
            _ => Number::Integer(0).subtract(self),
        }
    }

    /// `self` to the power of `exponent`.
    pub(super) fn power(self, exponent: Self) -> Option<Self> {
        let exact = |base: i128, exponent: i128| base.checked_pow(u32::try_from(exponent).ok()?);
        self.compute(exponent, exact, f64::powf)
    }

    /// Computes in integers as long as both are integers and the result is one, otherwise in floats.
    fn compute(
        self,
        other: Self,
        exact: impl Fn(i128, i128) -> Option<i128>,
        float: impl Fn(f64, f64) -> f64,
    ) -> Option<Self> {
        if let (Some(left), Some(right)) = (self.integer(), other.integer())
            && let Some(result) = exact(left, right)
        {
            return Some(Self::of_integer(result));
        }
        Self::of_float(float(self.float(), other.float()))
    }
}

fn compare_mixed(integer: i128, float: f64) -> Ordering {
    if float >= ABOVE_INTEGERS {
        Ordering::Less
    } else if float < LOWEST_INTEGER {
        Ordering::Greater
    } else {
        let fraction = || order(0.0, float.fract());
        integer.cmp(&(float.trunc() as i128)).then_with(fraction)
    }
}

/// Finite floats have an order; zero and minus zero are one number.
fn order(left: f64, right: f64) -> Ordering {
    left.partial_cmp(&right).unwrap_or(Ordering::Equal)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Number::{Float, Integer, Natural};
    use super::*;

    const TOP: i64 = i64::MAX;

    #[test]
    fn integers_and_floats_compare_exactly() {
        for (left, right, expected) in [
            (Integer(1), Float(1.0), Ordering::Equal),
            (Integer(1), Float(1.5), Ordering::Less),
            (Integer(-1), Float(-1.5), Ordering::Greater),
            (Integer(0), Float(-0.0), Ordering::Equal),
            // As floats these would be equal.
            (Integer(TOP), Float(TOP as f64), Ordering::Less),
            (Integer(TOP), Integer(TOP - 1), Ordering::Greater),
            (Natural(u64::MAX), Float(ABOVE_INTEGERS), Ordering::Less),
            (Natural(u64::MAX), Integer(-1), Ordering::Greater),
            (Integer(i64::MIN), Float(LOWEST_INTEGER), Ordering::Equal),
            (Integer(i64::MIN), Float(-1e300), Ordering::Greater),
            (
                Integer((1 << 53) + 1),
                Float(9_007_199_254_740_992.0),
                Ordering::Greater,
            ),
        ] {
            assert_eq!(left.compare(right), expected, "{left:?} {right:?}");
            assert_eq!(right.compare(left), expected.reverse(), "{right:?} {left:?}");
        }
    }

    #[test]
    fn integers_stay_integers_while_they_fit() {
        for (result, expected) in [
            (Integer(TOP).add(Integer(1)), Some(Natural(1 << 63))),
            (Natural(u64::MAX).add(Integer(1)), Some(Float(ABOVE_INTEGERS))),
            (
                Natural(u64::MAX).multiply(Natural(u64::MAX)),
                Some(Float(ABOVE_INTEGERS * ABOVE_INTEGERS)),
            ),
            (
                Integer(i64::MIN).subtract(Integer(1)),
                Some(Float(LOWEST_INTEGER)),
            ),
            (Natural(1 << 63).negate(), Some(Integer(i64::MIN))),
            (Integer(6).divide(Integer(3)), Some(Integer(2))),
            (Integer(6).divide(Integer(4)), Some(Float(1.5))),
            (Integer(6).divide(Integer(0)), None),
            (Float(6.0).divide(Float(-0.0)), None),
            (Integer(-7).remainder(Integer(3)), Some(Integer(-1))),
            (Integer(7).remainder(Float(2.5)), Some(Float(2.0))),
            (Integer(7).remainder(Integer(0)), None),
            (Float(1e300).multiply(Float(1e300)), None),
            (Integer(2).power(Integer(10)), Some(Integer(1024))),
            (Integer(2).power(Integer(-1)), Some(Float(0.5))),
            (Integer(-1).power(Float(0.5)), None),
            (Integer(10).power(Integer(400)), None),
        ] {
            assert_eq!(result, expected);
        }
    }

    #[test]
    fn texts_are_numbers_in_decimal_only() {
        for (text, expected) in [
            ("12", Some(Integer(12))),
            ("-12", Some(Integer(-12))),
            ("18446744073709551615", Some(Natural(u64::MAX))),
            ("18446744073709551616", Some(Float(ABOVE_INTEGERS))),
            ("1.5e1", Some(Float(15.0))),
            ("", None),
            ("-", None),
            ("+-1", None),
            (" 1", None),
            ("1e999", None),
            ("inf", None),
            ("nan", None),
            ("1-2", None),
            (".5", None),
        ] {
            assert_eq!(Number::of_text(text), expected, "{text:?}");
        }
    }

    fn number() -> impl Strategy<Value = Number> {
        prop_oneof![
            any::<i64>().prop_map(Integer),
            (-3i64..4).prop_map(Integer),
            (1u64 << 63..).prop_map(Natural),
            any::<f64>().prop_filter_map("finite", Number::of_float),
            (-6i32..7).prop_map(|n| Float(f64::from(n) / 2.0)),
            (-4i64..4).prop_map(|n| Float((TOP as f64) + (n * 1024) as f64)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn the_order_is_one(a in number(), b in number(), c in number()) {
            let mut sorted = [a, b, c];
            sorted.sort_by(|left, right| left.compare_held(*right));
            prop_assert!(sorted[0].compare(sorted[2]) != Ordering::Greater);
            prop_assert_eq!(a.compare(b), b.compare(a).reverse());
            prop_assert_eq!(a.compare(a.canonical()), Ordering::Equal);
            if a.compare(b) == Ordering::Equal {
                prop_assert_eq!(a.canonical(), b.canonical());
            }
        }

        #[test]
        fn results_are_finite(a in number(), b in number()) {
            for result in [a.add(b), a.subtract(b), a.multiply(b), a.divide(b), a.remainder(b), a.power(b)] {
                prop_assert!(result.is_none_or(|number| number.float().is_finite()));
            }
        }
    }
}
