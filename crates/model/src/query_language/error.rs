//! Why a text is no query: where reading stopped, what was expected there, and what was found.
//!
//! It only words the refusal; who refuses is `parse` and `token`.

/// Characters of the text that a refusal shows.
const FOUND_CHARACTERS_MAX: usize = 40;

/// A text that is no query, or no condition.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("at character {position}: {message}")]
pub struct SyntaxError {
    /// Byte of the text at which it stops being one; the first is 0.
    pub position: usize,
    /// What was expected, and what was found. It shows only a short part of the text, and none that does not print.
    pub message: String,
}

impl SyntaxError {
    /// `expected` names what could have stood at `position`; `found` is what stands there, as it shall be shown.
    pub(super) fn new(position: usize, expected: &str, found: &str) -> Self {
        let message = format!("expected {expected}, found {found}");
        Self { position, message }
    }
}

/// The part `found` of a text in quotes, cut where it becomes long.
pub(super) fn quoted(found: &str) -> String {
    let printable = |character: char| {
        if character.is_control() {
            char::REPLACEMENT_CHARACTER
        } else {
            character
        }
    };
    let mut characters = found.chars();
    let shown: String = characters
        .by_ref()
        .take(FOUND_CHARACTERS_MAX)
        .map(printable)
        .collect();
    let more = if characters.next().is_some() { "…" } else { "" };
    format!("'{shown}{more}'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_says_where_and_what() {
        let error = SyntaxError::new(17, "FROM", &quoted("WHERE"));
        assert_eq!(error.to_string(), "at character 17: expected FROM, found 'WHERE'");
        assert_eq!(quoted("a\nb\u{7f}"), "'a\u{fffd}b\u{fffd}'");
        let long = quoted(&"ä".repeat(FOUND_CHARACTERS_MAX + 1));
        assert_eq!(long, format!("'{}…'", "ä".repeat(FOUND_CHARACTERS_MAX)));
    }
}
