//! The filter of a receiver: where among a partition's events it wants to begin.
//!
//! Decides what of JMS's selectors is understood: one comparison, of one of three annotations, with `>` or `>=`.
//! Everything else is refused, never guessed.

use dunlin_model::command::ReadFrom;

/// Bytes of a selector that is looked at.
const SELECTOR_BYTES_MAX: usize = 256;

/// A filter that is not understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a selector is amqp.annotation.x-opt-offset, -sequence-number or -enqueued-time, > or >=, and a value"
)]
pub(crate) struct SelectorError;

/// Reads a selector.
pub(crate) fn parse(text: &str) -> Result<ReadFrom, SelectorError> {
    if text.len() > SELECTOR_BYTES_MAX {
        return Err(SelectorError);
    }
    let (name, rest) = text.split_once('>').ok_or(SelectorError)?;
    let (is_inclusive, value) = match rest.strip_prefix('=') {
        Some(value) => (true, value),
        None => (false, rest),
    };
    let value = unquoted(value.trim()).ok_or(SelectorError)?;
    match name.trim().strip_prefix("amqp.annotation.") {
        Some("x-opt-offset") if value == "@latest" => Ok(ReadFrom::End),
        Some("x-opt-offset" | "x-opt-sequence-number") => first(value, is_inclusive).map(ReadFrom::Offset),
        Some("x-opt-enqueued-time") => first(value, is_inclusive).map(ReadFrom::TimeMs),
        _ => Err(SelectorError),
    }
}

fn unquoted(value: &str) -> Option<&str> {
    match value.strip_prefix('\'') {
        Some(rest) => rest.strip_suffix('\''),
        None => Some(value),
    }
}

/// The first number that fulfils the comparison.
fn first(value: &str, is_inclusive: bool) -> Result<u64, SelectorError> {
    let digits = value.strip_prefix('-').unwrap_or(value);
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(SelectorError);
    }
    if digits.len() < value.len() {
        return Ok(0);
    }
    let number: u64 = value.parse().map_err(|_| SelectorError)?;
    Ok(if is_inclusive {
        number
    } else {
        number.saturating_add(1)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_clients_send_is_understood() {
        for (text, from) in [
            ("amqp.annotation.x-opt-offset > '-1'", ReadFrom::Offset(0)),
            ("amqp.annotation.x-opt-offset >= '-1'", ReadFrom::Offset(0)),
            ("amqp.annotation.x-opt-offset > '123'", ReadFrom::Offset(124)),
            ("amqp.annotation.x-opt-offset >= '123'", ReadFrom::Offset(123)),
            (
                "amqp.annotation.x-opt-sequence-number >= '7'",
                ReadFrom::Offset(7),
            ),
            ("amqp.annotation.x-opt-sequence-number > '7'", ReadFrom::Offset(8)),
            ("amqp.annotation.x-opt-sequence-number>7", ReadFrom::Offset(8)),
            ("amqp.annotation.x-opt-offset > '@latest'", ReadFrom::End),
            (
                "amqp.annotation.x-opt-enqueued-time > '1700000000000'",
                ReadFrom::TimeMs(1_700_000_000_001),
            ),
            (
                "amqp.annotation.x-opt-enqueued-time >= '1700000000000'",
                ReadFrom::TimeMs(1_700_000_000_000),
            ),
            (
                "amqp.annotation.x-opt-offset > '18446744073709551615'",
                ReadFrom::Offset(u64::MAX),
            ),
        ] {
            assert_eq!(parse(text), Ok(from), "{text}");
        }
    }

    #[test]
    fn everything_else_is_refused() {
        for text in [
            "",
            ">",
            "x-opt-offset > '1'",
            "amqp.annotation.x-opt-offset",
            "amqp.annotation.x-opt-offset < '1'",
            "amqp.annotation.x-opt-offset = '1'",
            "amqp.annotation.x-opt-offset > ''",
            "amqp.annotation.x-opt-offset > '1",
            "amqp.annotation.x-opt-offset > '1' OR 1=1",
            "amqp.annotation.x-opt-offset > '-'",
            "amqp.annotation.x-opt-offset > '--1'",
            "amqp.annotation.x-opt-offset > '1.5'",
            "amqp.annotation.x-opt-offset > '+1'",
            "amqp.annotation.x-opt-enqueued-time > '@latest'",
            "amqp.annotation.x-opt-offset > '99999999999999999999'",
            "amqp.annotation.x-opt-partition-key > '1'",
            &format!("amqp.annotation.x-opt-offset > '{}'", "1".repeat(300)),
        ] {
            assert_eq!(parse(text), Err(SelectorError), "{text}");
        }
    }

    proptest! {
        #[test]
        fn noise_never_panics(noise in ".{0,80}") {
            let _ = parse(&noise);
            let _ = parse(&format!("amqp.annotation.x-opt-offset >{noise}"));
        }
    }
}
