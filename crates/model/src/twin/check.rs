//! Which documents may become part of a twin: the rules that need no twin to be checked.
//!
//! Sizes of sections are not here: they depend on what is stored, and are checked where it is.

use serde_json::Value;

use super::Object;

/// Levels of a section: a property is on the first.
pub const DEPTH_MAX: usize = 10;
/// UTF-8 bytes of a key.
pub const KEY_BYTES_MAX: usize = 1024;
/// UTF-8 bytes of a text value.
pub const TEXT_BYTES_MAX: usize = 4096;
/// The largest integer, and with its sign turned, less one, the smallest.
pub const INTEGER_MAX: i64 = 4_503_599_627_370_495;

/// What is wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TwinFault {
    /// Levels beyond [`DEPTH_MAX`].
    #[error("nested deeper than {DEPTH_MAX} levels")]
    Depth,
    /// A key that is empty or longer than [`KEY_BYTES_MAX`].
    #[error("a key is empty or has more than {KEY_BYTES_MAX} bytes")]
    KeyLength,
    /// A key with a character that keys may not have.
    #[error("key {0:?} has a control character, a space, '.' or '$'")]
    KeyCharacter(String),
    /// A text longer than [`TEXT_BYTES_MAX`].
    #[error("a text has more than {TEXT_BYTES_MAX} bytes")]
    TextLength,
    /// An integer beyond [`INTEGER_MAX`].
    #[error("an integer is beyond 52 bits and a sign")]
    Integer,
    /// `null` in an array, which would remove nothing.
    #[error("an array has a null element")]
    NullInArray,
}

/// Checks a section, or a merge document for one.
pub fn check(section: &Object) -> Result<(), TwinFault> {
    check_object(section, 1)
}

fn check_object(object: &Object, depth: usize) -> Result<(), TwinFault> {
    if depth > DEPTH_MAX {
        return Err(TwinFault::Depth);
    }
    for (key, value) in object {
        if key.is_empty() || key.len() > KEY_BYTES_MAX {
            return Err(TwinFault::KeyLength);
        }
        if key.contains(|c: char| c.is_control() || matches!(c, '.' | '$' | ' ')) {
            return Err(TwinFault::KeyCharacter(key.clone()));
        }
        check_value(value, depth, false)?;
    }
    Ok(())
}

fn check_value(value: &Value, depth: usize, in_array: bool) -> Result<(), TwinFault> {
    match value {
        Value::Null if in_array => Err(TwinFault::NullInArray),
        Value::Null | Value::Bool(_) => Ok(()),
        Value::Number(number) => {
            let is_integer = number.is_i64() || number.is_u64();
            let fits = number
                .as_i64()
                .is_some_and(|integer| (-INTEGER_MAX - 1..=INTEGER_MAX).contains(&integer));
            if is_integer && !fits {
                return Err(TwinFault::Integer);
            }
            Ok(())
        }
        Value::String(text) if text.len() > TEXT_BYTES_MAX => Err(TwinFault::TextLength),
        Value::String(_) => Ok(()),
        Value::Array(values) if depth >= DEPTH_MAX && !values.is_empty() => Err(TwinFault::Depth),
        Value::Array(values) => values
            .iter()
            .try_for_each(|value| check_value(value, depth + 1, true)),
        Value::Object(object) => check_object(object, depth + 1),
    }
}
