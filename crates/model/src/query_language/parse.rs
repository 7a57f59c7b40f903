//! Reads tokens: what every part of the grammar needs, and paths.
//!
//! It decides which tokens make a path. Conditions are read in `parse_expression`, whole statements in
//! `parse_statement`; what a token may look like is decided in `token`.

use super::error::{SyntaxError, quoted};
use super::number::Number;
use super::path::{Path, Segment};
use super::token::{Placed, Token, tokens};
use super::{EXPRESSION_DEPTH_MAX, PATH_SEGMENTS_MAX, QUERY_BYTES_MAX, Source};

/// Words that begin no path, unless they stand in `[[` and `]]`.
const RESERVED: &[&str] = &[
    "SELECT", "TOP", "FROM", "WHERE", "GROUP", "BY", "AS", "AND", "OR", "NOT", "IN", "NIN", "TRUE", "FALSE",
    "NULL",
];

/// A text while it is read.
pub(super) struct Parser<'a> {
    text: &'a str,
    /// Never empty; the last is the only end or fault, and is never passed.
    tokens: Vec<Placed>,
    at: usize,
    depth: usize,
    /// What paths may have in front, once it is known.
    pub(super) source: Option<Source>,
}

impl<'a> Parser<'a> {
    pub(super) fn new(text: &'a str) -> Result<Self, SyntaxError> {
        if text.len() > QUERY_BYTES_MAX {
            let expected = format!("at most {QUERY_BYTES_MAX} bytes");
            let found = text.len().to_string();
            return Err(SyntaxError::new(QUERY_BYTES_MAX, &expected, &found));
        }
        Ok(Self {
            text,
            tokens: tokens(text),
            at: 0,
            depth: 0,
            source: None,
        })
    }

    fn placed(&self) -> &Placed {
        &self.tokens[self.at.min(self.tokens.len() - 1)]
    }

    pub(super) fn token(&self) -> &Token {
        &self.placed().token
    }

    /// The token behind the present one.
    pub(super) fn next_token(&self) -> Option<&Token> {
        self.tokens.get(self.at + 1).map(|placed| &placed.token)
    }

    /// Where the present token begins.
    pub(super) fn position(&self) -> usize {
        self.placed().start
    }

    pub(super) fn advance(&mut self) {
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
    }

    /// Refuses the present token, in whose place `expected` could have stood.
    pub(super) fn refusal(&self, expected: &str) -> SyntaxError {
        let Placed { token, start, end } = self.placed();
        match token {
            Token::Fault(error) => error.clone(),
            Token::End => SyntaxError::new(*start, expected, "the end"),
            _ => {
                let found = self.text.get(*start..*end).unwrap_or_default();
                SyntaxError::new(*start, expected, &quoted(found))
            }
        }
    }

    pub(super) fn is_word(&self, word: &str) -> bool {
        matches!(self.token(), Token::Word(found) if found.eq_ignore_ascii_case(word))
    }

    pub(super) fn take_word(&mut self, word: &str) -> bool {
        let is_word = self.is_word(word);
        if is_word {
            self.advance();
        }
        is_word
    }

    pub(super) fn expect_word(&mut self, word: &str) -> Result<(), SyntaxError> {
        if self.take_word(word) {
            Ok(())
        } else {
            Err(self.refusal(word))
        }
    }

    pub(super) fn is_sign(&self, sign: &str) -> bool {
        matches!(self.token(), Token::Sign(found) if *found == sign)
    }

    pub(super) fn take_sign(&mut self, sign: &str) -> bool {
        let is_sign = self.is_sign(sign);
        if is_sign {
            self.advance();
        }
        is_sign
    }

    pub(super) fn expect_sign(&mut self, sign: &str) -> Result<(), SyntaxError> {
        if self.take_sign(sign) {
            Ok(())
        } else {
            Err(self.refusal(&quoted(sign)))
        }
    }

    /// A semicolon if there is one, and then nothing. `expected` names what else could have followed.
    pub(super) fn expect_end(&mut self, expected: &str) -> Result<(), SyntaxError> {
        let may_follow = if self.take_sign(";") { "the end" } else { expected };
        match self.token() {
            Token::End => Ok(()),
            _ => Err(self.refusal(may_follow)),
        }
    }

    /// Reads one level deeper, which is what bounds the depth of the tree and of the reader's own stack.
    pub(super) fn nested<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, SyntaxError>,
    ) -> Result<T, SyntaxError> {
        if self.depth == EXPRESSION_DEPTH_MAX {
            let expected = format!("no more than {EXPRESSION_DEPTH_MAX} levels of brackets, NOT and signs");
            return Err(self.refusal(&expected));
        }
        self.depth += 1;
        let read = read(self);
        self.depth -= 1;
        read
    }

    /// `devices`, `devices.modules` or `devices.jobs`.
    pub(super) fn source(&mut self) -> Result<Source, SyntaxError> {
        self.expect_word("devices")?;
        if !self.take_sign(".") {
            return Ok(Source::Devices);
        }
        if self.take_word("modules") {
            Ok(Source::Modules)
        } else if self.take_word("jobs") {
            Ok(Source::Jobs)
        } else {
            Err(self.refusal("modules or jobs"))
        }
    }

    /// A path, with the name of its source in front if it likes.
    pub(super) fn path(&mut self) -> Result<Path, SyntaxError> {
        let is_reserved = |word: &str| RESERVED.iter().any(|known| known.eq_ignore_ascii_case(word));
        if matches!(self.token(), Token::Word(word) if is_reserved(word)) {
            return Err(self.refusal("a path"));
        }
        let mut segments = vec![Segment::Name(self.name("a path")?)];
        loop {
            let start = self.at;
            let segment = if self.take_sign(".") {
                Segment::Name(self.name("a name")?)
            } else if self.take_sign("[") {
                let index = self.index()?;
                self.expect_sign("]")?;
                Segment::Index(index)
            } else {
                let path = Path::new(segments);
                return Ok(match self.source {
                    Some(source) => path.within(source),
                    None => path,
                });
            };
            if segments.len() == PATH_SEGMENTS_MAX {
                self.at = start;
                let expected = format!("a path of at most {PATH_SEGMENTS_MAX} steps");
                return Err(self.refusal(&expected));
            }
            segments.push(segment);
        }
    }

    /// A word, or what stands in `[[` and `]]`.
    pub(super) fn name(&mut self, expected: &str) -> Result<String, SyntaxError> {
        let name = match self.token() {
            Token::Word(name) | Token::Bracketed(name) => name.clone(),
            _ => return Err(self.refusal(expected)),
        };
        self.advance();
        Ok(name)
    }

    fn index(&mut self) -> Result<usize, SyntaxError> {
        let index = match self.token() {
            Token::Number(number) => number.integer().and_then(|index| usize::try_from(index).ok()),
            _ => None,
        };
        let index = index.ok_or_else(|| self.refusal("a place in an array"))?;
        self.advance();
        Ok(index)
    }

    /// A number of rows.
    pub(super) fn count(&mut self) -> Result<u64, SyntaxError> {
        let count = match self.token() {
            Token::Number(Number::Integer(count)) => u64::try_from(*count).ok(),
            Token::Number(Number::Natural(count)) => Some(*count),
            _ => None,
        };
        let count = count.ok_or_else(|| self.refusal("a number of rows"))?;
        self.advance();
        Ok(count)
    }
}
