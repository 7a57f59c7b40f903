//! A condition that stands alone: target conditions of configurations, query conditions of jobs, routes.
//!
//! It reads and asks; what it is asked of, and when, is for callers. The language is that of `WHERE` in a
//! [`Statement`](super::Statement).

use serde_json::Value;

use super::Source;
use super::error::SyntaxError;
use super::expression::Expr;
use super::parse_statement;

/// A condition on rows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Condition {
    source: Source,
    expression: Expr,
}

impl Condition {
    /// Reads `text`, at most [`QUERY_BYTES_MAX`](super::QUERY_BYTES_MAX) bytes. It is what may stand behind `WHERE`, or
    /// `*`, which admits every row. In front there may be `FROM devices.modules WHERE`, as target conditions of module
    /// configurations have it.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        let (source, expression) = parse_statement::condition(text)?;
        Ok(Self { source, expression })
    }

    /// Whose rows it is asked of: [`Source::Devices`] unless it says so itself.
    pub fn source(&self) -> Source {
        self.source
    }

    /// The condition itself.
    pub fn expression(&self) -> &Expr {
        &self.expression
    }

    /// Whether it is true of `row`, and not merely unknown.
    pub fn admits(&self, row: &Value) -> bool {
        self.expression.admits(row)
    }

    /// Whether a path in it goes through `name`, or to it.
    pub fn mentions(&self, name: &str) -> bool {
        self.expression.mentions(name)
    }
}
