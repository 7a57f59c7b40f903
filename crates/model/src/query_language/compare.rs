//! What a row's value is to a condition, and how two values compare.
//!
//! A pure table of types: primitives compare with their own kind, objects and arrays with nothing. What a condition
//! makes of "neither true nor false" is decided in `evaluate`.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Value;

use super::expression::Literal;
use super::number::Number;

/// Bytes of `YYYY-MM-DDTHH:MM:SS`.
const SECONDS_BYTES: usize = 19;
/// The shape of a time up to its seconds: `0` stands for a digit.
const SECONDS_SHAPE: &[u8; SECONDS_BYTES] = b"0000-00-00T00:00:00";

/// A value while a condition is looked at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Datum<'a> {
    /// There is none.
    Undefined,
    Null,
    Bool(bool),
    Number(Number),
    Text(Cow<'a, str>),
    Object,
    Array,
}

impl<'a> From<&'a Value> for Datum<'a> {
    fn from(value: &'a Value) -> Self {
        match value {
            Value::Null => Datum::Null,
            Value::Bool(bool) => Datum::Bool(*bool),
            Value::Number(number) => Number::of_json(number).into(),
            Value::String(text) => Datum::Text(text.into()),
            Value::Array(_) => Datum::Array,
            Value::Object(_) => Datum::Object,
        }
    }
}

impl<'a> From<&'a Literal> for Datum<'a> {
    fn from(literal: &'a Literal) -> Self {
        match literal {
            Literal::Null => Datum::Null,
            Literal::Bool(bool) => Datum::Bool(*bool),
            Literal::Number(number) => Datum::Number(*number),
            Literal::Text(text) => Datum::Text(text.into()),
        }
    }
}

impl From<Option<Number>> for Datum<'_> {
    fn from(number: Option<Number>) -> Self {
        number.map_or(Datum::Undefined, Datum::Number)
    }
}

impl From<Option<bool>> for Datum<'_> {
    fn from(truth: Option<bool>) -> Self {
        truth.map_or(Datum::Undefined, Datum::Bool)
    }
}

/// Whether two values are equal. `None` if one is undefined, an object or an array; values of different types differ.
pub(super) fn equal(left: &Datum<'_>, right: &Datum<'_>) -> Option<bool> {
    let compares = |datum: &Datum<'_>| !matches!(datum, Datum::Undefined | Datum::Object | Datum::Array);
    (compares(left) && compares(right)).then(|| order(left, right) == Some(Ordering::Equal))
}

/// Which of two values comes first. `None` unless both are primitives of one type. `false` comes before `true`.
pub(super) fn order(left: &Datum<'_>, right: &Datum<'_>) -> Option<Ordering> {
    match (left, right) {
        (Datum::Null, Datum::Null) => Some(Ordering::Equal),
        (Datum::Bool(left), Datum::Bool(right)) => Some(left.cmp(right)),
        (Datum::Number(left), Datum::Number(right)) => Some(left.compare(*right)),
        (Datum::Text(left), Datum::Text(right)) => Some(order_texts(left, right)),
        _ => None,
    }
}

/// Two times of UTC by the instant, other texts by their bytes.
fn order_texts(left: &str, right: &str) -> Ordering {
    match (instant(left), instant(right)) {
        (Some(left), Some(right)) => left.cmp(&right),
        _ => left.cmp(right),
    }
}

/// An order of texts in which times are in order too, and no two different texts are equal: times come first.
///
/// `<` of the language is none: a text that is no time may lie between two times by its bytes, and they the other way
/// round by the instant. A least text would then depend on which row came first.
pub(super) fn total_order_of_texts(left: &str, right: &str) -> Ordering {
    let key = |text| (instant(text).is_none(), instant(text));
    key(left).cmp(&key(right)).then_with(|| left.cmp(right))
}

/// The seconds and the fraction of a text that looks like a time of UTC: `YYYY-MM-DDTHH:MM:SS[.fraction][Z]`. Both
/// are in order as texts are.
fn instant(text: &str) -> Option<(&str, &str)> {
    let (seconds, rest) = text.split_at_checked(SECONDS_BYTES)?;
    let fits = |(byte, shape): (u8, &u8)| match shape {
        b'0' => byte.is_ascii_digit(),
        _ => byte == *shape,
    };
    let rest = rest.strip_suffix('Z').unwrap_or(rest);
    let fraction = if rest.is_empty() {
        rest
    } else {
        rest.strip_prefix('.').filter(|fraction| !fraction.is_empty())?
    };
    let is_time =
        seconds.bytes().zip(SECONDS_SHAPE).all(fits) && fraction.bytes().all(|b| b.is_ascii_digit());
    is_time.then(|| (seconds, fraction.trim_end_matches('0')))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn primitives_compare_with_their_kind() {
        let (less, same, more) = (
            Some(Ordering::Less),
            Some(Ordering::Equal),
            Some(Ordering::Greater),
        );
        for (left, right, is_equal, expected) in [
            (json!(null), json!(null), Some(true), same),
            (json!(true), json!(false), Some(false), more),
            (json!(1), json!(1.0), Some(true), same),
            (json!("b"), json!("ba"), Some(false), less),
            (json!("Z"), json!("a"), Some(false), less),
            (json!(1), json!("1"), Some(false), None),
            (json!(null), json!(0), Some(false), None),
            (json!(true), json!(1), Some(false), None),
            (json!({}), json!({}), None, None),
            (json!([1]), json!(1), None, None),
        ] {
            let (left, right) = (Datum::from(&left), Datum::from(&right));
            assert_eq!(equal(&left, &right), is_equal, "{left:?} {right:?}");
            assert_eq!(order(&left, &right), expected, "{left:?} {right:?}");
            assert_eq!(equal(&left, &Datum::Undefined), None);
            assert_eq!(order(&Datum::Undefined, &right), None);
        }
    }

    #[test]
    fn times_compare_as_instants() {
        for (left, right, expected) in [
            ("2021-05-07T00:50:38Z", "2021-05-07T00:50:38", Ordering::Equal),
            (
                "2021-05-07T00:50:38.500Z",
                "2021-05-07T00:50:38.5",
                Ordering::Equal,
            ),
            ("2021-05-07T00:50:38.000", "2021-05-07T00:50:38Z", Ordering::Equal),
            // By their bytes these would be the other way round.
            ("2021-05-07T00:50:38Z", "2021-05-07T00:50:38.1Z", Ordering::Less),
            (
                "2021-05-07T00:50:38.9",
                "2021-05-07T00:50:38.10",
                Ordering::Greater,
            ),
            ("2021-05-07T00:50:38.1Z", "2021-05-07T00:50:39Z", Ordering::Less),
            // One of them is no time, so bytes decide.
            ("2016-09-29T18:18:56.7787107Z", "2016-09-01", Ordering::Greater),
            ("2021-05-07T00:50:38.Z", "2021-05-07T00:50:38", Ordering::Greater),
            ("2021-05-07 00:50:38Z", "2021-05-07T00:50:38", Ordering::Less),
            ("2021-05-07T00:50:3äZ", "2021-05-07T00:50:38", Ordering::Greater),
            ("2021-05-07T00:50:38+01", "2021-05-07T00:50:38", Ordering::Greater),
        ] {
            assert_eq!(order_texts(left, right), expected, "{left} {right}");
            assert_eq!(order_texts(right, left), expected.reverse(), "{right} {left}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn texts_have_one_total_order(texts in prop::collection::vec("2021-05-07T00:50:38(A|\\.[05]{0,2})?Z?", 3)) {
            let mut sorted = texts.clone();
            sorted.sort_by(|left, right| total_order_of_texts(left, right));
            prop_assert_ne!(total_order_of_texts(&sorted[0], &sorted[2]), Ordering::Greater);
            let order = total_order_of_texts(&texts[0], &texts[1]);
            prop_assert_eq!(order == Ordering::Equal, texts[0] == texts[1]);
        }
    }
}
