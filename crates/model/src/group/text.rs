//! What texts cost in a stored group, and which ones may be names.

/// Whether `text` is no longer than `bytes_max` and prints. Names must: as JSON, what does not print is six times as long.
pub(super) fn is_plain(text: &str, bytes_max: usize) -> bool {
    text.len() <= bytes_max && !text.chars().any(char::is_control)
}

/// Whether there is a text, and it [`is_plain`].
pub(super) fn is_name(text: &str, bytes_max: usize) -> bool {
    !text.is_empty() && is_plain(text, bytes_max)
}

/// Bytes of `text` as JSON, with its quotes.
pub(super) fn json_bytes(text: &str) -> usize {
    let escaped = text.bytes().map(|byte| match byte {
        b'"' | b'\\' | b'\n' | b'\r' | b'\t' | 0x08 | 0x0c => 2,
        0..0x20 => 6,
        _ => 1,
    });
    2 + escaped.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn names_print_and_are_not_empty() {
        assert!(is_name("Gruppe ä", 9));
        assert!(!is_name("Gruppe ä", 8));
        assert!(!is_name("", 8));
        assert!(is_plain("", 8));
        assert!(!is_plain("a\nb", 8));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn texts_cost_what_json_makes_of_them(text in "[\\x00-\\x7f\"\\\\äö]{0,40}") {
            prop_assert_eq!(json_bytes(&text), serde_json::to_string(&text).expect("text").len());
        }
    }
}
