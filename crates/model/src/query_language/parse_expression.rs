//! Reads conditions: which operator binds closer, and how deep one may lie within another.
//!
//! OR binds least, then AND, NOT, comparisons and IN, `+` and `-`, `*` and `/` and `%`, and a minus sign. Chains of one
//! level become lists and not trees, so that only what `Parser::nested` counts makes a tree deeper.

use super::IN_LIST_MAX;
use super::error::SyntaxError;
use super::expression::{Arithmetic, Comparison, Expr, Literal};
use super::functions::named;
use super::parse::Parser;
use super::token::Token;

const COMPARISONS: &[(&str, Comparison)] = &[
    ("=", Comparison::Equal),
    ("!=", Comparison::NotEqual),
    ("<>", Comparison::NotEqual),
    ("<=", Comparison::LessOrEqual),
    ("<", Comparison::Less),
    (">=", Comparison::GreaterOrEqual),
    (">", Comparison::Greater),
];
const SUMS: &[(&str, Arithmetic)] = &[("+", Arithmetic::Add), ("-", Arithmetic::Subtract)];
const PRODUCTS: &[(&str, Arithmetic)] = &[
    ("*", Arithmetic::Multiply),
    ("/", Arithmetic::Divide),
    ("%", Arithmetic::Remainder),
];

impl Parser<'_> {
    /// A condition.
    pub(super) fn condition(&mut self) -> Result<Expr, SyntaxError> {
        self.list("OR", Self::conjunction, Expr::Or)
    }

    fn conjunction(&mut self) -> Result<Expr, SyntaxError> {
        self.list("AND", Self::negation, Expr::And)
    }

    /// One or more parts with `word` between them.
    fn list(
        &mut self,
        word: &str,
        part: fn(&mut Self) -> Result<Expr, SyntaxError>,
        join: fn(Vec<Expr>) -> Expr,
    ) -> Result<Expr, SyntaxError> {
        let first = part(self)?;
        if !self.is_word(word) {
            return Ok(first);
        }
        let mut parts = vec![first];
        while self.take_word(word) {
            parts.push(part(self)?);
        }
        Ok(join(parts))
    }

    fn negation(&mut self) -> Result<Expr, SyntaxError> {
        if self.take_word("NOT") {
            Ok(Expr::Not(Box::new(self.nested(Self::negation)?)))
        } else {
            self.comparison()
        }
    }

    fn comparison(&mut self) -> Result<Expr, SyntaxError> {
        let left = self.sum()?;
        if let Some(comparison) = self.take_operator(COMPARISONS) {
            let right = Box::new(self.sum()?);
            let left = Box::new(left);
            return Ok(Expr::Compare {
                left,
                comparison,
                right,
            });
        }
        let is_negated = if self.take_word("NOT") {
            self.expect_word("IN")?;
            true
        } else if self.take_word("NIN") {
            true
        } else if self.take_word("IN") {
            false
        } else {
            return Ok(left);
        };
        Ok(Expr::In {
            value: Box::new(left),
            list: self.literals()?,
            is_negated,
        })
    }

    fn take_operator<T: Copy>(&mut self, operators: &[(&str, T)]) -> Option<T> {
        let found = operators.iter().find(|(sign, _)| self.is_sign(sign));
        found.map(|(_, operator)| {
            self.advance();
            *operator
        })
    }

    fn sum(&mut self) -> Result<Expr, SyntaxError> {
        self.chain(SUMS, Self::product)
    }

    fn product(&mut self) -> Result<Expr, SyntaxError> {
        self.chain(PRODUCTS, Self::signed)
    }

    fn chain(
        &mut self,
        operators: &[(&str, Arithmetic)],
        part: fn(&mut Self) -> Result<Expr, SyntaxError>,
    ) -> Result<Expr, SyntaxError> {
        let first = part(self)?;
        let mut rest = Vec::new();
        while let Some(operator) = self.take_operator(operators) {
            rest.push((operator, part(self)?));
        }
        if rest.is_empty() {
            return Ok(first);
        }
        let first = Box::new(first);
        Ok(Expr::Chain { first, rest })
    }

    fn signed(&mut self) -> Result<Expr, SyntaxError> {
        if self.take_sign("-") {
            Ok(Expr::Negative(Box::new(self.nested(Self::signed)?)))
        } else {
            self.primary()
        }
    }

    fn primary(&mut self) -> Result<Expr, SyntaxError> {
        if let Some(literal) = self.take_literal() {
            return Ok(Expr::Literal(literal));
        }
        let is_call = self.next_token() == Some(&Token::Sign("("));
        match self.token() {
            Token::Sign("(") => {
                self.advance();
                let inner = self.nested(Self::condition)?;
                self.expect_sign(")")?;
                Ok(inner)
            }
            Token::Word(name) if is_call && !name.eq_ignore_ascii_case("NOT") => {
                let name = name.clone();
                self.call(&name)
            }
            Token::Word(_) | Token::Bracketed(_) => Ok(Expr::Path(self.path()?)),
            _ => Err(self.refusal("a value, a path or a function")),
        }
    }

    fn call(&mut self, name: &str) -> Result<Expr, SyntaxError> {
        let position = self.position();
        if name.eq_ignore_ascii_case("IS_DEFINED") {
            self.advance();
            self.expect_sign("(")?;
            let path = self.path()?;
            self.expect_sign(")")?;
            return Ok(Expr::IsDefined(path));
        }
        let Some((name, function, least, most)) = named(name) else {
            return Err(self.refusal("a function of conditions"));
        };
        self.advance();
        self.advance();
        let mut arguments = Vec::new();
        if !self.is_sign(")") {
            arguments.push(self.nested(Self::condition)?);
            while self.take_sign(",") {
                arguments.push(self.nested(Self::condition)?);
            }
        }
        self.expect_sign(")")?;
        let count = arguments.len();
        if !(*least..=*most).contains(&count) {
            let number = match *most {
                most if most == *least => least.to_string(),
                usize::MAX => format!("at least {least}"),
                most => format!("{least} to {most}"),
            };
            let expected = format!("{number} argument(s) of {name}");
            return Err(SyntaxError::new(position, &expected, &count.to_string()));
        }
        Ok(Expr::Call {
            function: *function,
            arguments,
        })
    }

    /// Constants in brackets of either kind.
    fn literals(&mut self) -> Result<Vec<Literal>, SyntaxError> {
        let end = if self.take_sign("[") {
            "]"
        } else if self.take_sign("(") {
            ")"
        } else {
            return Err(self.refusal("a list of values in brackets"));
        };
        let mut literals = Vec::new();
        loop {
            if literals.len() == IN_LIST_MAX {
                return Err(self.refusal(&format!("at most {IN_LIST_MAX} values")));
            }
            literals.push(self.literal()?);
            if !self.take_sign(",") {
                break;
            }
        }
        self.expect_sign(end)?;
        Ok(literals)
    }

    /// A constant, which may be a number with a minus sign.
    fn literal(&mut self) -> Result<Literal, SyntaxError> {
        if !self.take_sign("-") {
            let literal = self.take_literal();
            return literal.ok_or_else(|| self.refusal("a value"));
        }
        let number = match self.token() {
            Token::Number(number) => number.negate(),
            _ => None,
        };
        let number = number.ok_or_else(|| self.refusal("a number"))?;
        self.advance();
        Ok(Literal::Number(number))
    }

    fn take_literal(&mut self) -> Option<Literal> {
        let literal = match self.token() {
            Token::Text(text) => Literal::Text(text.clone()),
            Token::Number(number) => Literal::Number(*number),
            Token::Word(word) if word.eq_ignore_ascii_case("true") => Literal::Bool(true),
            Token::Word(word) if word.eq_ignore_ascii_case("false") => Literal::Bool(false),
            Token::Word(word) if word.eq_ignore_ascii_case("null") => Literal::Null,
            _ => return None,
        };
        self.advance();
        Some(literal)
    }
}
