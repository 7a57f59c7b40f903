//! What a condition is made of: a tree whose depth is bounded by the reader, and whose chains are lists.
//!
//! It never reads text (`parse_expression` does) and never decides what an operator means (`evaluate` does).

use super::functions::Function;
use super::number::Number;
use super::path::Path;

/// A constant of the query text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Literal {
    /// `null`
    Null,
    /// `true` or `false`
    Bool(bool),
    /// A number.
    Number(Number),
    /// A text in quotes, without them.
    Text(String),
}

/// How two values are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `=`
    Equal,
    /// `!=` or `<>`
    NotEqual,
    /// `<`
    Less,
    /// `<=`
    LessOrEqual,
    /// `>`
    Greater,
    /// `>=`
    GreaterOrEqual,
}

/// How a number changes by another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arithmetic {
    /// `+`
    Add,
    /// `-`
    Subtract,
    /// `*`
    Multiply,
    /// `/`
    Divide,
    /// `%`
    Remainder,
}

/// An expression. Brackets, `NOT`, minus signs and calls lie within each other at most
/// [`EXPRESSION_DEPTH_MAX`](super::EXPRESSION_DEPTH_MAX) deep.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Expr {
    /// A constant.
    Literal(Literal),
    /// What the row has there.
    Path(Path),
    /// Two or more conditions of which one suffices.
    Or(Vec<Expr>),
    /// Two or more conditions that are all needed.
    And(Vec<Expr>),
    /// The opposite.
    Not(Box<Expr>),
    /// A comparison of two values.
    Compare {
        /// Its left side.
        left: Box<Expr>,
        /// How they are compared.
        comparison: Comparison,
        /// Its right side.
        right: Box<Expr>,
    },
    /// Whether a value is among those of a list.
    In {
        /// The value.
        value: Box<Expr>,
        /// The list: one to [`IN_LIST_MAX`](super::IN_LIST_MAX).
        list: Vec<Literal>,
        /// Whether it is rather asked that it is not (`NIN`, `NOT IN`).
        is_negated: bool,
    },
    /// A number that others change one after the other, from left to right.
    Chain {
        /// The number.
        first: Box<Expr>,
        /// The others, and how each changes it.
        rest: Vec<(Arithmetic, Expr)>,
    },
    /// A number with the other sign.
    Negative(Box<Expr>),
    /// Whether the row has something there, be it `null`.
    IsDefined(Path),
    /// What a function makes of its arguments, whose number is right.
    Call {
        /// The function.
        function: Function,
        /// Its arguments.
        arguments: Vec<Expr>,
    },
}

impl Expr {
    /// What is true of every row.
    pub const TRUE: Expr = Expr::Literal(Literal::Bool(true));

    /// Whether a path in it goes through `name`, or to it.
    pub fn mentions(&self, name: &str) -> bool {
        self.any_path(&|path| path.mentions(name))
    }

    /// Whether `test` holds for any path in it.
    pub(super) fn any_path(&self, test: &dyn Fn(&Path) -> bool) -> bool {
        match self {
            Expr::Literal(_) => false,
            Expr::Path(path) | Expr::IsDefined(path) => test(path),
            Expr::Or(parts) | Expr::And(parts) => parts.iter().any(|part| part.any_path(test)),
            Expr::Not(inner) | Expr::Negative(inner) => inner.any_path(test),
            Expr::Compare { left, right, .. } => left.any_path(test) || right.any_path(test),
            Expr::In { value, .. } => value.any_path(test),
            Expr::Chain { first, rest } => {
                first.any_path(test) || rest.iter().any(|(_, part)| part.any_path(test))
            }
            Expr::Call { arguments, .. } => arguments.iter().any(|part| part.any_path(test)),
        }
    }
}
