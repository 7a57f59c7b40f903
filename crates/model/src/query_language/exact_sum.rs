//! Sums that do not depend on the order of what is added.
//!
//! Sums of floats do, in their last digits; a query that meets shard by shard would then have an answer for each order
//! in which shards speak. So a sum is kept exactly, as a long integer times a power of two, and becomes a float once,
//! at the end. What is added up, and how it is shown, is for `groups`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::number::Number;

/// Bits of one digit.
const DIGIT_BITS: i32 = 32;
/// Bits behind the first one of a float's significand, and what its exponent counts from.
const FRACTION_BITS: u32 = 52;
const EXPONENT_BIAS: i32 = 1023;
/// Digits that are looked at to make a float: more than a significand's bits, whatever the first of them is.
const LEADING_DIGITS: i32 = 3;
/// Bits that hold on which side of these the rest lies.
const REST_BITS: i32 = 2;

/// A sum of numbers, exactly.
///
/// Digit `n` counts for 2³²ⁿ and lies from -2³¹ up to, but not at, 2³¹; zeros are left out. That makes digits of one
/// sum the same whatever the order was.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct ExactSum(BTreeMap<i16, i32>);

impl ExactSum {
    /// Adds `number`.
    pub(super) fn add(&mut self, number: Number) {
        match number.integer() {
            Some(integer) => self.add_scaled(integer, 0),
            None => {
                let bits = number.float().to_bits();
                let fraction = i128::from(bits & ((1 << FRACTION_BITS) - 1));
                let exponent = ((bits >> FRACTION_BITS) & 0x7FF) as i32;
                // The smallest floats have an exponent of 0, which counts as 1, and no first bit.
                let first_bit = i128::from(exponent != 0) << FRACTION_BITS;
                let sign = if number.float().is_sign_negative() { -1 } else { 1 };
                let power = exponent.max(1) - EXPONENT_BIAS - FRACTION_BITS as i32;
                self.add_scaled(sign * (first_bit + fraction), power);
            }
        }
    }

    /// Adds another sum.
    pub(super) fn merge(&mut self, other: &Self) {
        for (place, digit) in &other.0 {
            self.add_digit((*digit).into(), (*place).into());
        }
    }

    /// The sum as an integer, if it is one that fits.
    pub(super) fn integer(&self) -> Option<i64> {
        let mut sum: i128 = 0;
        for (place, digit) in &self.0 {
            // A digit further left is beyond 64 bits, and none further right can make up for it.
            let place = i32::from(*place);
            if !(0..LEADING_DIGITS).contains(&place) {
                return None;
            }
            sum += i128::from(*digit) << (place * DIGIT_BITS);
        }
        i64::try_from(sum).ok()
    }

    /// The float next to the sum; of two that are equally near, the even one. `None` if it is beyond all floats.
    pub(super) fn float(&self) -> Option<f64> {
        let Some((first, _)) = self.0.last_key_value() else {
            return Some(0.0);
        };
        let last = i32::from(*first) - (LEADING_DIGITS - 1);
        let mut leading: i128 = 0;
        let mut rest = 0;
        for (place, digit) in self.0.iter().rev() {
            let left_of_last = i32::from(*place) - last;
            if left_of_last >= 0 {
                leading += i128::from(*digit) << (left_of_last * DIGIT_BITS);
            } else {
                // All that follows is less than this digit, so the sign of it is the sign of the rest.
                rest = i128::from(digit.signum());
                break;
            }
        }
        let scaled = (leading << REST_BITS) + rest;
        scale(scaled as f64, last * DIGIT_BITS - REST_BITS)
    }

    /// Bytes that it takes on its way to other nodes, at most.
    pub(super) fn bytes(&self) -> usize {
        self.0.len() * (size_of::<i16>() + size_of::<i32>() + 2)
    }

    /// Adds `integer` times two to the power of `power`.
    fn add_scaled(&mut self, integer: i128, power: i32) {
        // At most 64 and 31 bits.
        let shifted = integer << power.rem_euclid(DIGIT_BITS);
        self.add_digit(shifted, power.div_euclid(DIGIT_BITS));
    }

    fn add_digit(&mut self, amount: i128, place: i32) {
        let (mut carry, mut place) = (amount, place);
        while carry != 0 {
            // Places are those of floats and of a few bits more. Only what another node made up has others.
            let Ok(key) = i16::try_from(place) else { return };
            let sum = i128::from(self.0.get(&key).copied().unwrap_or_default()) + carry;
            // The low bits as a number with a sign: the digit itself.
            let digit = sum as i32;
            if digit == 0 {
                self.0.remove(&key);
            } else {
                self.0.insert(key, digit);
            }
            carry = (sum - i128::from(digit)) >> DIGIT_BITS;
            place += 1;
        }
    }
}

/// `float` times two to the power of `power`; `None` if that is beyond all floats.
///
/// In two steps, since the power alone may be beyond floats. Nothing is lost: a sum of floats that is as small as
/// the smallest floats has no more bits than these.
fn scale(float: f64, power: i32) -> Option<f64> {
    let half = power / 2;
    let power_of_two = |power: i32| {
        let exponent = u64::try_from(power + EXPONENT_BIAS).ok()?;
        (1..0x7FF)
            .contains(&exponent)
            .then(|| f64::from_bits(exponent << FRACTION_BITS))
    };
    let scaled = float * power_of_two(half)? * power_of_two(power - half)?;
    scaled.is_finite().then_some(scaled)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn sum(numbers: &[Number]) -> ExactSum {
        let mut sum = ExactSum::default();
        numbers.iter().for_each(|number| sum.add(*number));
        sum
    }

    fn floats(floats: &[f64]) -> ExactSum {
        sum(&floats
            .iter()
            .map(|float| Number::Float(*float))
            .collect::<Vec<_>>())
    }

    #[test]
    fn sums_are_exact_until_the_end() {
        let tiny = f64::from_bits(1);
        for (numbers, expected) in [
            (&[][..], Some(0.0)),
            (&[0.1, 0.2], Some(0.1 + 0.2)),
            (&[1e300, 1.5, -1e300], Some(1.5)),
            (&[1e16, 1.0, 1.0], Some(10_000_000_000_000_002.0)),
            (&[tiny, tiny], Some(2.0 * tiny)),
            (&[-tiny], Some(-tiny)),
            (&[f64::MAX, f64::MAX, -f64::MAX], Some(f64::MAX)),
            (&[f64::MAX, f64::MAX], None),
            // Half way between two floats, and then a little more.
            (&[9_007_199_254_740_992.0, 1.0], Some(9_007_199_254_740_992.0)),
            (
                &[9_007_199_254_740_992.0, 1.0, 1e-300],
                Some(9_007_199_254_740_994.0),
            ),
            (
                &[9_007_199_254_740_996.0, -1.0, 1e-300],
                Some(9_007_199_254_740_996.0),
            ),
        ] {
            assert_eq!(floats(numbers).float(), expected, "{numbers:?}");
        }
    }

    #[test]
    fn integers_are_told_as_long_as_they_fit() {
        let (least, most) = (Number::Integer(i64::MIN), Number::Integer(i64::MAX));
        let one = Number::Integer(1);
        assert_eq!(sum(&[most]).integer(), Some(i64::MAX));
        assert_eq!(sum(&[most, one]).integer(), None);
        assert_eq!(sum(&[most, one]).float(), Some(9_223_372_036_854_775_808.0));
        assert_eq!(sum(&[least]).integer(), Some(i64::MIN));
        assert_eq!(
            sum(&[least, least, most, one, Number::Integer(-1)]).integer(),
            None
        );
        assert_eq!(
            sum(&[Number::Natural(u64::MAX), least, least]).integer(),
            Some(-1)
        );
        let many = vec![Number::Natural(u64::MAX); 5];
        assert_eq!(
            (sum(&many).integer(), sum(&many).float()),
            (None, Some(5.0 * u64::MAX as f64))
        );
        assert_eq!(floats(&[0.5]).integer(), None);
    }

    #[test]
    fn places_that_no_sum_has_do_no_harm() {
        for place in [i16::MIN, i16::MAX] {
            let mut odd = ExactSum(BTreeMap::from([(place, i32::MAX)]));
            let same = odd.clone();
            odd.merge(&same);
            assert_eq!((odd.integer(), odd.float()), (None, None));
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn one_float_stays_itself(bits in any::<u64>()) {
            let float = f64::from_bits(bits);
            prop_assume!(float.is_finite());
            prop_assert_eq!(floats(&[float]).float(), Some(float));
        }

        #[test]
        fn two_floats_make_what_processors_make_of_them(a in any::<f64>(), b in any::<f64>(), near in -2.0..2.0) {
            let near = a * near;
            for other in [b, near] {
                prop_assume!(a.is_finite() && other.is_finite());
                let sum = a + other;
                prop_assert_eq!(floats(&[a, other]).float(), sum.is_finite().then_some(sum));
            }
        }

        #[test]
        fn the_order_does_not_matter(
            numbers in prop::collection::vec(any::<f64>().prop_filter("finite", |f| f.is_finite()), 0..20),
            integers in prop::collection::vec(any::<i64>(), 0..5),
            at in any::<prop::sample::Index>(),
        ) {
            let mut all: Vec<Number> = numbers.into_iter().map(Number::Float).collect();
            all.extend(integers.into_iter().map(Number::Integer));
            let whole = sum(&all);
            let (left, right) = all.split_at(at.index(all.len() + 1));
            let mut parts = sum(right);
            parts.merge(&sum(left));
            prop_assert_eq!(&parts, &whole);
            all.reverse();
            prop_assert_eq!(sum(&all), whole);
        }
    }
}
