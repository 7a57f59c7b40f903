//! The functions of the query language: their names, how many arguments each takes, and what it makes of them.
//!
//! An argument that is undefined, or of a type that a function does not take, makes its result undefined; no function
//! fails. `IS_DEFINED` is none of these: it looks at a path and not at a value, so `evaluate` has it.

use std::borrow::Cow;

use super::compare::Datum;
use super::number::Number;

/// Bytes of a text that a function may build; a longer one is undefined.
pub const BUILT_TEXT_BYTES_MAX: usize = 64 * 1024;

/// What a function does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Function {
    /// `IS_NULL(x)`: whether it is `null`.
    IsNull,
    /// `IS_BOOL(x)`: whether it is true or false.
    IsBool,
    /// `IS_NUMBER(x)`: whether it is a number.
    IsNumber,
    /// `IS_STRING(x)`: whether it is a text.
    IsString,
    /// `IS_OBJECT(x)`: whether it is an object.
    IsObject,
    /// `IS_ARRAY(x)`: whether it is an array.
    IsArray,
    /// `IS_PRIMITIVE(x)`: whether it is neither an object nor an array.
    IsPrimitive,
    /// `STARTSWITH(text, part)`, also `STARTS_WITH`.
    StartsWith,
    /// `ENDSWITH(text, part)`, also `ENDS_WITH`.
    EndsWith,
    /// `CONTAINS(text, part)`.
    Contains,
    /// `LENGTH(text)`: how many characters (Unicode scalar values) it has.
    Length,
    /// `LOWER(text)`: in small letters.
    Lower,
    /// `UPPER(text)`: in capitals.
    Upper,
    /// `INDEX_OF(text, part)`: at which character the part first begins, from 0 on; -1 if nowhere.
    IndexOf,
    /// `SUBSTRING(text, start[, length])`: from a character on, the first of which is 0; as many as the length
    /// says, or to the end.
    Substring,
    /// `CONCAT(text, text, …)`: one behind the other, at most [`BUILT_TEXT_BYTES_MAX`] bytes.
    Concat,
    /// `ABS(number)`: without its sign.
    Abs,
    /// `CEILING(number)`: the least integer that is not below it.
    Ceiling,
    /// `FLOOR(number)`: the greatest integer that is not above it.
    Floor,
    /// `SIGN(number)`: -1, 0 or 1.
    Sign,
    /// `SQRT(number)`: its square root; undefined below 0.
    Sqrt,
    /// `SQUARE(number)`: it times itself.
    Square,
    /// `POWER(number, exponent)`.
    Power,
    /// `EXP(number)`: e to the power of it.
    Exp,
    /// `AS_NUMBER(x)`: a number as it is, and the number that a text writes in decimal.
    AsNumber,
}

/// A name, what it stands for, and the least and the highest number of arguments.
type Entry = (&'static str, Function, usize, usize);

const TABLE: &[Entry] = &[
    ("IS_NULL", Function::IsNull, 1, 1),
    ("IS_BOOL", Function::IsBool, 1, 1),
    ("IS_NUMBER", Function::IsNumber, 1, 1),
    ("IS_STRING", Function::IsString, 1, 1),
    ("IS_OBJECT", Function::IsObject, 1, 1),
    ("IS_ARRAY", Function::IsArray, 1, 1),
    ("IS_PRIMITIVE", Function::IsPrimitive, 1, 1),
    ("STARTSWITH", Function::StartsWith, 2, 2),
    ("STARTS_WITH", Function::StartsWith, 2, 2),
    ("ENDSWITH", Function::EndsWith, 2, 2),
    ("ENDS_WITH", Function::EndsWith, 2, 2),
    ("CONTAINS", Function::Contains, 2, 2),
    ("LENGTH", Function::Length, 1, 1),
    ("LOWER", Function::Lower, 1, 1),
    ("UPPER", Function::Upper, 1, 1),
    ("INDEX_OF", Function::IndexOf, 2, 2),
    ("SUBSTRING", Function::Substring, 2, 3),
    ("CONCAT", Function::Concat, 2, usize::MAX),
    ("ABS", Function::Abs, 1, 1),
    ("CEILING", Function::Ceiling, 1, 1),
    ("FLOOR", Function::Floor, 1, 1),
    ("SIGN", Function::Sign, 1, 1),
    ("SQRT", Function::Sqrt, 1, 1),
    ("SQUARE", Function::Square, 1, 1),
    ("POWER", Function::Power, 2, 2),
    ("EXP", Function::Exp, 1, 1),
    ("AS_NUMBER", Function::AsNumber, 1, 1),
];

/// The function of a name, without regard to case.
pub(super) fn named(name: &str) -> Option<&'static Entry> {
    TABLE.iter().find(|(known, ..)| known.eq_ignore_ascii_case(name))
}

/// What `function` makes of `arguments`.
pub(super) fn apply<'a>(function: Function, arguments: &[Datum<'a>]) -> Datum<'a> {
    if arguments.contains(&Datum::Undefined) {
        return Datum::Undefined;
    }
    match (function, arguments) {
        (Function::Concat, texts) => concat(texts),
        (Function::Power, [Datum::Number(base), Datum::Number(exponent)]) => base.power(*exponent).into(),
        (Function::Substring, [Datum::Text(text), Datum::Number(start)]) => substring(text, *start, None),
        (Function::Substring, [Datum::Text(text), Datum::Number(start), Datum::Number(length)]) => {
            substring(text, *start, Some(*length))
        }
        (function, [one]) => of_one(function, one),
        (function, [Datum::Text(left), Datum::Text(right)]) => of_texts(function, left, right),
        _ => Datum::Undefined,
    }
}

fn of_one<'a>(function: Function, argument: &Datum<'a>) -> Datum<'a> {
    let is_compound = matches!(argument, Datum::Object | Datum::Array);
    match (function, argument) {
        (Function::IsNull, argument) => Datum::Bool(*argument == Datum::Null),
        (Function::IsBool, argument) => Datum::Bool(matches!(argument, Datum::Bool(_))),
        (Function::IsNumber, argument) => Datum::Bool(matches!(argument, Datum::Number(_))),
        (Function::IsString, argument) => Datum::Bool(matches!(argument, Datum::Text(_))),
        (Function::IsObject, argument) => Datum::Bool(*argument == Datum::Object),
        (Function::IsArray, argument) => Datum::Bool(*argument == Datum::Array),
        (Function::IsPrimitive, _) => Datum::Bool(!is_compound),
        (Function::Length, Datum::Text(text)) => length(text.chars().count()),
        (Function::Lower, Datum::Text(text)) => built(text.to_lowercase()),
        (Function::Upper, Datum::Text(text)) => built(text.to_uppercase()),
        (Function::AsNumber, Datum::Text(text)) => Number::of_text(text).into(),
        (function, Datum::Number(number)) => of_number(function, *number).into(),
        _ => Datum::Undefined,
    }
}

fn of_number(function: Function, number: Number) -> Option<Number> {
    let zero = Number::Integer(0);
    let is_integer = number.integer().is_some();
    let of_float = |compute: fn(f64) -> f64| Number::of_float(compute(number.float()));
    match function {
        Function::AsNumber => Some(number),
        Function::Abs if number.compare(zero).is_lt() => number.negate(),
        Function::Abs => Some(number),
        Function::Ceiling | Function::Floor if is_integer => Some(number),
        Function::Ceiling => of_float(f64::ceil).map(Number::canonical),
        Function::Floor => of_float(f64::floor).map(Number::canonical),
        Function::Sign => Some(Number::Integer(number.compare(zero) as i64)),
        Function::Sqrt => of_float(f64::sqrt),
        Function::Square => number.multiply(number),
        Function::Exp => of_float(f64::exp),
        _ => None,
    }
}

fn of_texts<'a>(function: Function, text: &str, part: &str) -> Datum<'a> {
    match function {
        Function::StartsWith => Datum::Bool(text.starts_with(part)),
        Function::EndsWith => Datum::Bool(text.ends_with(part)),
        Function::Contains => Datum::Bool(text.contains(part)),
        Function::IndexOf => text
            .split_once(part)
            .map_or(Datum::Number(Number::Integer(-1)), |(before, _)| {
                length(before.chars().count())
            }),
        _ => Datum::Undefined,
    }
}

/// A number of characters.
fn length<'a>(characters: usize) -> Datum<'a> {
    Datum::Number(Number::of_integer(characters as i128))
}

/// From the character `start` on, the first of which is 0; `length` characters at most. Undefined if one of them is
/// no natural number; empty if `start` lies behind the text.
fn substring<'a>(text: &str, start: Number, length: Option<Number>) -> Datum<'a> {
    let natural = |number: Number| {
        number
            .canonical()
            .integer()
            .and_then(|number| usize::try_from(number).ok())
    };
    let (Some(start), Some(length)) = (natural(start), length.map_or(Some(usize::MAX), natural)) else {
        return Datum::Undefined;
    };
    built(text.chars().skip(start).take(length).collect())
}

fn concat<'a>(parts: &[Datum<'a>]) -> Datum<'a> {
    let mut whole = String::new();
    for part in parts {
        match part {
            Datum::Text(text) if whole.len() + text.len() <= BUILT_TEXT_BYTES_MAX => whole.push_str(text),
            _ => return Datum::Undefined,
        }
    }
    built(whole)
}

fn built<'a>(text: String) -> Datum<'a> {
    if text.len() <= BUILT_TEXT_BYTES_MAX {
        Datum::Text(Cow::Owned(text))
    } else {
        Datum::Undefined
    }
}
