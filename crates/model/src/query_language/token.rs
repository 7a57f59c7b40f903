//! Cuts query text into words, names in brackets, texts, numbers and signs.
//!
//! It decides what each of these may look like, and never which may follow which: that is `parse`. What is no token
//! becomes the last one, so that whoever reads on is refused there, and not before an error that stands further left.

use super::error::{SyntaxError, quoted};
use super::number::Number;

/// Signs, the longer ones first.
const SIGNS: &[&str] = &[
    "<=", ">=", "<>", "!=", "=", "<", ">", "+", "-", "*", "/", "%", "(", ")", "[", "]", ",", ".", ";",
];
/// Digits of `\u` in a text.
const ESCAPE_DIGITS: usize = 4;

/// A piece of query text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// Begins with a letter, `_` or `$`, and goes on with these and digits.
    Word(String),
    /// What stands between `[[` and `]]`.
    Bracketed(String),
    /// What stands between quotes, with its escapes resolved.
    Text(String),
    /// A number without a sign.
    Number(Number),
    /// One of [`SIGNS`].
    Sign(&'static str),
    /// There is no more text.
    End,
    /// From here on the text has no tokens.
    Fault(SyntaxError),
}

/// A token with the bytes of the text from `start` up to `end`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Placed {
    pub(super) token: Token,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// The tokens of `text`. The last one, and no other, is an end or a fault.
pub(super) fn tokens(text: &str) -> Vec<Placed> {
    let mut cursor = Cursor { text, at: 0 };
    let mut tokens = Vec::new();
    loop {
        cursor.take_while(char::is_whitespace);
        let start = cursor.at;
        let token = cursor.next().unwrap_or_else(Token::Fault);
        let end = cursor.at;
        let is_last = matches!(token, Token::End | Token::Fault(_));
        tokens.push(Placed { token, start, end });
        if is_last {
            return tokens;
        }
    }
}

fn begins_word(character: char) -> bool {
    character.is_alphabetic() || matches!(character, '_' | '$')
}

fn continues_word(character: char) -> bool {
    begins_word(character) || character.is_numeric()
}

struct Cursor<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Cursor<'a> {
    fn rest(&self) -> &'a str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn take_while(&mut self, belongs: impl Fn(char) -> bool) -> &'a str {
        let rest = self.rest();
        let end = rest.find(|character| !belongs(character)).unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn take(&mut self) -> Option<char> {
        let character = self.rest().chars().next()?;
        self.at += character.len_utf8();
        Some(character)
    }

    fn next(&mut self) -> Result<Token, SyntaxError> {
        let rest = self.rest();
        let Some(first) = rest.chars().next() else {
            return Ok(Token::End);
        };
        if begins_word(first) {
            Ok(Token::Word(self.take_while(continues_word).to_owned()))
        } else if first.is_ascii_digit() {
            self.number()
        } else if matches!(first, '\'' | '"') {
            self.quoted_text()
        } else if let Some(inner) = rest.strip_prefix("[[") {
            self.bracketed(inner)
        } else {
            self.sign(first)
        }
    }

    fn sign(&mut self, first: char) -> Result<Token, SyntaxError> {
        let mut signs = SIGNS.iter();
        let Some(sign) = signs.find(|sign| self.rest().starts_with(**sign)) else {
            let found = quoted(first.encode_utf8(&mut [0; 4]));
            return Err(SyntaxError::new(
                self.at,
                "a word, a value or an operator",
                &found,
            ));
        };
        self.at += sign.len();
        Ok(Token::Sign(sign))
    }

    fn bracketed(&mut self, inner: &str) -> Result<Token, SyntaxError> {
        let name = inner.split_once("]]").map(|(name, _)| name);
        let name = name.ok_or_else(|| SyntaxError::new(self.at, "[[ with ]] behind it", "the end"))?;
        self.at += name.len() + "[[]]".len();
        Ok(Token::Bracketed(name.to_owned()))
    }

    fn number(&mut self) -> Result<Token, SyntaxError> {
        let start = self.at;
        let rest = self.rest();
        let digits = |cursor: &mut Self| !cursor.take_while(|c| c.is_ascii_digit()).is_empty();
        let (number, is_whole) = if rest.starts_with("0x") || rest.starts_with("0X") {
            self.at += "0x".len();
            let hexadecimal = self.take_while(|c| c.is_ascii_hexdigit());
            let number = u64::from_str_radix(hexadecimal, 16);
            (number.ok().map(|number| Number::of_integer(number.into())), true)
        } else {
            let mut is_whole = digits(self);
            if self.rest().starts_with('.') {
                self.at += 1;
                is_whole &= digits(self);
            }
            if self.rest().starts_with(['e', 'E']) {
                self.at += 1;
                if self.rest().starts_with(['+', '-']) {
                    self.at += 1;
                }
                is_whole &= digits(self);
            }
            (Number::of_text(&self.text[start..self.at]), is_whole)
        };
        let follows = self.take_while(continues_word);
        match number {
            Some(number) if is_whole && follows.is_empty() => Ok(Token::Number(number)),
            _ => {
                let found = quoted(&self.text[start..self.at]);
                Err(SyntaxError::new(start, "a number that can be held", &found))
            }
        }
    }

    /// A quote within the text is doubled, or has a backslash in front.
    fn quoted_text(&mut self) -> Result<Token, SyntaxError> {
        let start = self.at;
        let unended = || SyntaxError::new(start, "a text with a quote behind it", "the end");
        let quote = self.take().ok_or_else(unended)?;
        let mut text = String::new();
        loop {
            let at = self.at;
            match self.take().ok_or_else(unended)? {
                '\\' => text.push(self.escape(at)?),
                character if character != quote => text.push(character),
                _ if self.rest().starts_with(quote) => {
                    self.at += quote.len_utf8();
                    text.push(quote);
                }
                _ => return Ok(Token::Text(text)),
            }
        }
    }

    /// What follows a backslash at `start`.
    fn escape(&mut self, start: usize) -> Result<char, SyntaxError> {
        let character = match self.take() {
            Some(character @ ('\'' | '"' | '\\')) => Some(character),
            Some('u') => self.unicode(),
            _ => None,
        };
        let refusal = || {
            let expected = r#"one of \' \" \\ and \u with four digits of a character"#;
            SyntaxError::new(start, expected, &quoted(&self.text[start..self.at]))
        };
        character.ok_or_else(refusal)
    }

    /// A character above the first 65536 is two escapes, as in JSON.
    fn unicode(&mut self) -> Option<char> {
        let first = self.code_unit()?;
        let mut units = vec![first];
        if char::from_u32(first.into()).is_none() && self.rest().starts_with("\\u") {
            self.at += "\\u".len();
            units.push(self.code_unit()?);
        }
        let mut characters = char::decode_utf16(units);
        let character = characters.next()?.ok()?;
        characters.next().is_none().then_some(character)
    }

    fn code_unit(&mut self) -> Option<u16> {
        let digits = self.rest().get(..ESCAPE_DIGITS)?;
        let is_plain = digits.bytes().all(|byte| byte.is_ascii_hexdigit());
        let unit = u16::from_str_radix(digits, 16).ok().filter(|_| is_plain)?;
        self.at += ESCAPE_DIGITS;
        Some(unit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<Token> {
        tokens(text).into_iter().map(|placed| placed.token).collect()
    }

    fn one(text: &str) -> Token {
        read(text).swap_remove(0)
    }

    fn fault(text: &str) -> String {
        match read(text).pop() {
            Some(Token::Fault(error)) => error.to_string(),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn signs_are_as_long_as_they_can_be() {
        let signs = ["<=", ">=", "<>", "!=", "<", "=", "-", "-"];
        let mut expected: Vec<Token> = signs.into_iter().map(Token::Sign).collect();
        expected.push(Token::End);
        assert_eq!(read("<=>=<>!=< =--"), expected);
    }

    #[test]
    fn texts_have_escapes() {
        for (text, expected) in [
            ("''", ""),
            ("'it''s'", "it's"),
            (r"'it\'s'", "it's"),
            (r#""a""b\"c'd""#, "a\"b\"c'd"),
            (r"'a\\'", r"a\"),
            (r"'\u00e4\uD83D\uDE00'", "ä😀"),
            ("'ä \n'", "ä \n"),
        ] {
            assert_eq!(one(text), Token::Text(expected.to_owned()), "{text}");
        }
        for text in [
            r"'\n'",
            r"'\uD83D'",
            r"'\uD83D\u0041'",
            r"'\u00'",
            r"'\u+123'",
            r"'\uDE00'",
        ] {
            assert!(
                fault(text).starts_with("at character 1: expected one of"),
                "{text}"
            );
        }
        for text in ["'abc", "'abc''", r"'abc\'", "\"abc'"] {
            assert_eq!(
                fault(text),
                "at character 0: expected a text with a quote behind it, found the end"
            );
        }
    }

    #[test]
    fn numbers_are_decimal_or_hexadecimal() {
        for (text, expected) in [
            ("0", Number::Integer(0)),
            ("007", Number::Integer(7)),
            ("9223372036854775807", Number::Integer(i64::MAX)),
            ("9223372036854775808", Number::Natural(1 << 63)),
            ("1.25", Number::Float(1.25)),
            ("1e3", Number::Float(1000.0)),
            ("25E-2", Number::Float(0.25)),
            ("0xfF", Number::Integer(255)),
        ] {
            assert_eq!(one(text), Token::Number(expected), "{text}");
        }
        for text in [
            "1.",
            "1e",
            "1e+",
            "1e999",
            "1a",
            "0x",
            "0x1g",
            "0x10000000000000000",
            "1.5x",
        ] {
            let expected = format!("at character 0: expected a number that can be held, found '{text}'");
            assert_eq!(fault(text), expected);
        }
    }

    #[test]
    fn names_may_be_in_brackets() {
        assert_eq!(one("[[a-b c]]"), Token::Bracketed("a-b c".to_owned()));
        assert_eq!(one("[[a]b[[c]]"), Token::Bracketed("a]b[[c".to_owned()));
        assert_eq!(one("$a_1ä"), Token::Word("$a_1ä".to_owned()));
        assert_eq!(
            fault("a.[[b]"),
            "at character 2: expected [[ with ]] behind it, found the end"
        );
        assert_eq!(
            fault("a ? b"),
            "at character 2: expected a word, a value or an operator, found '?'"
        );
    }

    #[test]
    fn tokens_know_their_place() {
        let places: Vec<(usize, usize)> = tokens(" ä='x' ").iter().map(|t| (t.start, t.end)).collect();
        assert_eq!(places, [(1, 3), (3, 4), (4, 7), (8, 8)]);
    }
}
