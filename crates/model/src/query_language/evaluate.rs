//! What an expression says of a row: true, false, another value, or nothing (undefined).
//!
//! Nothing here fails: what cannot be computed is undefined. `AND`, `OR` and `NOT` are Kleene's, with everything that is
//! neither true nor false as unknown. How values compare is in `compare`, what functions do in `functions`, and the
//! depth of what is walked is bounded by the reader (`parse_expression`).

use std::cmp::Ordering;

use serde_json::Value;

use super::compare::{Datum, equal, order};
use super::expression::{Arithmetic, Comparison, Expr, Literal};
use super::functions::apply;
use super::number::Number;

impl Expr {
    /// Whether it is true of `row`, and not merely unknown.
    pub fn admits(&self, row: &Value) -> bool {
        self.truth(row) == Some(true)
    }

    /// `None` if it is unknown.
    fn truth(&self, row: &Value) -> Option<bool> {
        match self.value(row) {
            Datum::Bool(truth) => Some(truth),
            _ => None,
        }
    }

    fn value<'a>(&'a self, row: &'a Value) -> Datum<'a> {
        match self {
            Expr::Literal(literal) => literal.into(),
            Expr::Path(path) => path.find(row).map_or(Datum::Undefined, Datum::from),
            Expr::IsDefined(path) => Datum::Bool(path.find(row).is_some()),
            Expr::Or(parts) => decided(parts, true, row).into(),
            Expr::And(parts) => decided(parts, false, row).into(),
            Expr::Not(inner) => inner.truth(row).map(|truth| !truth).into(),
            Expr::Compare {
                left,
                comparison,
                right,
            } => compare(&left.value(row), *comparison, &right.value(row)).into(),
            Expr::In {
                value,
                list,
                is_negated,
            } => {
                let is_in = is_in(&value.value(row), list);
                is_in.map(|is_in| is_in != *is_negated).into()
            }
            Expr::Chain { first, rest } => chain(first, rest, row).into(),
            Expr::Negative(inner) => inner.number(row).and_then(Number::negate).into(),
            Expr::Call { function, arguments } => {
                let arguments: Vec<Datum<'a>> = arguments.iter().map(|part| part.value(row)).collect();
                apply(*function, &arguments)
            }
        }
    }

    fn number(&self, row: &Value) -> Option<Number> {
        match self.value(row) {
            Datum::Number(number) => Some(number),
            _ => None,
        }
    }
}

/// Of conditions of which one that is `decisive` decides: `true` for OR, `false` for AND.
fn decided(parts: &[Expr], decisive: bool, row: &Value) -> Option<bool> {
    let mut result = Some(!decisive);
    for part in parts {
        match part.truth(row) {
            Some(truth) if truth == decisive => return Some(decisive),
            Some(_) => {}
            None => result = None,
        }
    }
    result
}

fn compare(left: &Datum<'_>, comparison: Comparison, right: &Datum<'_>) -> Option<bool> {
    let ordered = |test: fn(Ordering) -> bool| order(left, right).map(test);
    match comparison {
        Comparison::Equal => equal(left, right),
        Comparison::NotEqual => equal(left, right).map(|is_equal| !is_equal),
        Comparison::Less => ordered(Ordering::is_lt),
        Comparison::LessOrEqual => ordered(Ordering::is_le),
        Comparison::Greater => ordered(Ordering::is_gt),
        Comparison::GreaterOrEqual => ordered(Ordering::is_ge),
    }
}

/// `None` if the value compares with nothing.
fn is_in(value: &Datum<'_>, list: &[Literal]) -> Option<bool> {
    let mut is_in = None;
    for literal in list {
        is_in = Some(equal(value, &literal.into())?);
        if is_in == Some(true) {
            break;
        }
    }
    is_in
}

fn chain(first: &Expr, rest: &[(Arithmetic, Expr)], row: &Value) -> Option<Number> {
    let mut result = first.number(row)?;
    for (arithmetic, part) in rest {
        let part = part.number(row)?;
        result = match arithmetic {
            Arithmetic::Add => result.add(part),
            Arithmetic::Subtract => result.subtract(part),
            Arithmetic::Multiply => result.multiply(part),
            Arithmetic::Divide => result.divide(part),
            Arithmetic::Remainder => result.remainder(part),
        }?;
    }
    Some(result)
}
