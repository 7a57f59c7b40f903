//! The query language of IoT Hub: statements over rows of devices, modules and jobs, and conditions alone.
//!
//! A pure library of values: text comes in and becomes a [`Statement`] or a [`Condition`], rows come in as JSON values
//! and are admitted or not, and aggregates gather in [`Groups`], which meet shard by shard. It knows no twin, no shard
//! and no page: where rows come from, in which order, and how many are answered at once is for callers.
//!
//! Semantics: IoT Hub, "IoT Hub query language for device and module twins, jobs, and message routing", with the
//! functions of its routing dialect everywhere.
//!
//! # Where to look
//!
//! Text is cut by `token`, and read by `parse`, `parse_expression` and `parse_statement` into [`path`] and
//! [`expression`]. What an expression says of a row is decided in `evaluate`, with the types in `compare`, numbers in
//! [`number`] and functions in [`functions`]. Aggregates are in [`groups`], their sums in `exact_sum`.
//!
//! # Unknown
//!
//! A path that a row does not have is *undefined*, and so is what is computed from it or compared with it; only
//! `IS_DEFINED` looks at it. A condition that is neither true nor false admits nothing, and `NOT` does not change that:
//! `NOT tags.a = 1` leaves rows without `tags.a` out.
//!
//! # Bounds
//!
//! Text of any kind is read in bounded depth and space, and what is read is evaluated so. The time that a row takes is
//! at most that of the text's functions on the row's texts, none of which is built longer than
//! [`BUILT_TEXT_BYTES_MAX`](functions::BUILT_TEXT_BYTES_MAX).

mod compare;
pub mod condition;
pub mod error;
mod evaluate;
mod exact_sum;
pub mod expression;
pub mod functions;
pub mod groups;
pub mod number;
mod parse;
mod parse_expression;
mod parse_statement;
pub mod path;
mod token;

use serde_json::{Map, Value};

pub use condition::Condition;
pub use error::SyntaxError;
pub use expression::Expr;
pub use groups::{Groups, TooManyGroups};
pub use path::Path;

/// Bytes of a query or a condition.
pub const QUERY_BYTES_MAX: usize = 16 * 1024;
/// Brackets, `NOT`, minus signs and calls that lie within each other.
pub const EXPRESSION_DEPTH_MAX: usize = 32;
/// Columns of a statement, and paths that it groups by.
pub const COLUMNS_MAX: usize = 50;
/// Values in the list of an `IN`.
pub const IN_LIST_MAX: usize = 1000;
/// Steps of a path.
pub const PATH_SEGMENTS_MAX: usize = 20;

/// A query that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Whose rows it is asked of.
    pub source: Source,
    /// What it answers with.
    pub select: Select,
    /// Rows that it answers with, at most. Callers see to it, except for rows of [`Groups`].
    pub top: Option<u64>,
    /// Which rows count; all of them if there is none.
    pub filter: Option<Expr>,
    /// By what rows are grouped.
    pub group_by: Vec<Path>,
}

/// What rows stand for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    /// `devices`: one row for each device.
    Devices,
    /// `devices.modules`: one row for each module of a device.
    Modules,
    /// `devices.jobs`: one row for each device of a job.
    Jobs,
}

/// What a statement answers with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Select {
    /// Rows as they are.
    All,
    /// Some of what they have, or what comes of it: one to [`COLUMNS_MAX`], of different names.
    Columns(Vec<Column>),
}

/// A column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// Where its value comes from.
    pub what: ColumnValue,
    /// What it is called: by its `AS`, or else by the last name of its path, or `$1`, `$2`, … for an aggregate by its
    /// place among the columns.
    pub name: String,
}

/// Where the value of a column comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ColumnValue {
    /// From the row; beside aggregates and with `GROUP BY`, from what is grouped by.
    Path(Path),
    /// From all rows of a group.
    Aggregate(Aggregate),
}

/// What is made of all rows of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Aggregate {
    /// How many there are.
    Count,
    /// The sum of the numbers: an integer if all of them are and it fits an `i64`, otherwise a float. Without a number,
    /// or beyond all floats, there is none.
    Sum(Path),
    /// That sum divided by the count of the numbers; an integer if it divides without a rest.
    Average(Path),
    /// The least number; without numbers the first text, with times of UTC before all other texts.
    Least(Path),
    /// The greatest number; without numbers the last text.
    Greatest(Path),
}

impl Statement {
    /// Reads `text`, at most [`QUERY_BYTES_MAX`] bytes.
    pub fn parse(text: &str) -> Result<Self, SyntaxError> {
        parse_statement::statement(text)
    }

    /// Whether its answer is made by [`Groups`], and not row by row: it has an aggregate or `GROUP BY`.
    pub fn is_aggregate(&self) -> bool {
        !self.group_by.is_empty() || self.aggregates().next().is_some()
    }

    /// Whether `row` counts: its condition is true, and not merely unknown.
    pub fn admits(&self, row: &Value) -> bool {
        self.filter.as_ref().is_none_or(|filter| filter.admits(row))
    }

    /// What a statement that [is not aggregate](Self::is_aggregate) answers for `row`: the row itself, or an object with
    /// those of its columns that the row has.
    pub fn project(&self, row: &Value) -> Value {
        let Select::Columns(columns) = &self.select else {
            return row.clone();
        };
        let value = |column: &Column| match &column.what {
            ColumnValue::Path(path) => Some((column.name.clone(), path.find(row)?.clone())),
            ColumnValue::Aggregate(_) => None,
        };
        Value::Object(columns.iter().filter_map(value).collect::<Map<_, _>>())
    }

    /// Whether a path anywhere in it goes through `name`, or to it; always for `SELECT *`. What lies below a column
    /// (`SELECT properties`) is answered without being mentioned: see [`Statement::reads`].
    pub fn mentions(&self, name: &str) -> bool {
        self.any_path(&|path| path.mentions(name))
    }

    /// Whether it may look at what rows have at `place`, a path of names from the top: a path of it leads there, or
    /// into it, or to something that contains it. Always for `SELECT *`. Where it does not, a row may come without.
    pub fn reads(&self, place: &[&str]) -> bool {
        self.any_path(&|path| path.meets(place))
    }

    fn any_path(&self, test: &dyn Fn(&Path) -> bool) -> bool {
        let in_columns = match &self.select {
            Select::All => true,
            Select::Columns(columns) => columns.iter().filter_map(|column| column.what.path()).any(test),
        };
        let in_filter = || self.filter.as_ref().is_some_and(|filter| filter.any_path(test));
        in_columns || in_filter() || self.group_by.iter().any(test)
    }

    /// In the order of their columns.
    fn aggregates(&self) -> impl Iterator<Item = &Aggregate> {
        let columns = match &self.select {
            Select::All => &[][..],
            Select::Columns(columns) => columns,
        };
        columns.iter().filter_map(|column| match &column.what {
            ColumnValue::Path(_) => None,
            ColumnValue::Aggregate(aggregate) => Some(aggregate),
        })
    }
}

impl Source {
    /// As queries write it.
    pub fn name(self) -> &'static str {
        match self {
            Source::Devices => "devices",
            Source::Modules => "devices.modules",
            Source::Jobs => "devices.jobs",
        }
    }
}

impl ColumnValue {
    fn path(&self) -> Option<&Path> {
        match self {
            ColumnValue::Path(path) => Some(path),
            ColumnValue::Aggregate(aggregate) => aggregate.path(),
        }
    }

    /// Without the name of `source` in front of its path.
    fn within(self, source: Source) -> Self {
        match self {
            ColumnValue::Path(path) => ColumnValue::Path(path.within(source)),
            ColumnValue::Aggregate(aggregate) => ColumnValue::Aggregate(match aggregate {
                Aggregate::Count => Aggregate::Count,
                Aggregate::Sum(path) => Aggregate::Sum(path.within(source)),
                Aggregate::Average(path) => Aggregate::Average(path.within(source)),
                Aggregate::Least(path) => Aggregate::Least(path.within(source)),
                Aggregate::Greatest(path) => Aggregate::Greatest(path.within(source)),
            }),
        }
    }
}

impl Aggregate {
    /// What it looks at.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Aggregate::Count => None,
            Aggregate::Sum(path)
            | Aggregate::Average(path)
            | Aggregate::Least(path)
            | Aggregate::Greatest(path) => Some(path),
        }
    }
}

#[cfg(test)]
mod properties;
#[cfg(test)]
mod syntax_tests;
#[cfg(test)]
mod tests;
