//! Reads statements and conditions as a whole, and refuses those that are spelled right and still mean nothing.
//!
//! It decides what columns are called and which may stand beside aggregates. Expressions are read in
//! `parse_expression`.

use super::error::{SyntaxError, quoted};
use super::expression::{Expr, Literal};
use super::parse::Parser;
use super::path::Path;
use super::token::Token;
use super::{Aggregate, COLUMNS_MAX, Column, ColumnValue, Select, Source, Statement};

/// A column while its source is unknown.
struct RawColumn {
    /// Where it begins.
    position: usize,
    value: ColumnValue,
    /// What it is to be called, and where that stands.
    alias: Option<(usize, String)>,
}

/// The statement of `text`.
pub(super) fn statement(text: &str) -> Result<Statement, SyntaxError> {
    let mut parser = Parser::new(text)?;
    parser.expect_word("SELECT")?;
    let top = parser.take_word("TOP").then(|| parser.count()).transpose()?;
    let position = parser.position();
    let columns = if parser.take_sign("*") {
        None
    } else {
        Some(parser.columns()?)
    };
    parser.expect_word("FROM")?;
    let source = parser.source()?;
    parser.source = Some(source);
    if source == Source::Jobs && columns.is_some() {
        return Err(SyntaxError::new(position, "* from devices.jobs", "columns"));
    }
    let filter = parser
        .take_word("WHERE")
        .then(|| parser.condition())
        .transpose()?;
    let group_position = parser.position();
    let groups = parser.is_word("GROUP") && source != Source::Jobs;
    let group_by = if groups { parser.group_by()? } else { Vec::new() };
    parser.expect_end(match (groups, &filter) {
        (true, _) => "a comma or the end",
        (_, Some(_)) => "an operator or the end",
        _ if source == Source::Jobs => "WHERE or the end",
        _ => "WHERE, GROUP BY or the end",
    })?;
    let select = match columns {
        None if groups => {
            let expected = "columns to group, and not *";
            return Err(SyntaxError::new(group_position, expected, "GROUP BY"));
        }
        None => Select::All,
        Some(columns) => Select::Columns(finish(columns, source, groups.then_some(&group_by))?),
    };
    Ok(Statement {
        source,
        select,
        top,
        filter,
        group_by,
    })
}

/// The condition of `text`, and what it is asked of: `FROM … WHERE` may stand in front, and `*` admits everything.
pub(super) fn condition(text: &str) -> Result<(Source, Expr), SyntaxError> {
    let mut parser = Parser::new(text)?;
    let mut source = Source::Devices;
    if parser.take_word("FROM") {
        source = parser.source()?;
        parser.source = Some(source);
        parser.expect_word("WHERE")?;
    } else {
        parser.source = Some(source);
    }
    if parser.take_sign("*") {
        parser.expect_end("the end")?;
        return Ok((source, Expr::Literal(Literal::Bool(true))));
    }
    let expression = parser.condition()?;
    parser.expect_end("an operator or the end")?;
    Ok((source, expression))
}

/// Names the columns and looks whether they may stand together. `group_by` is `None` if there is no such clause.
fn finish(
    raw: Vec<RawColumn>,
    source: Source,
    group_by: Option<&Vec<Path>>,
) -> Result<Vec<Column>, SyntaxError> {
    let aggregates = raw
        .iter()
        .any(|column| matches!(column.value, ColumnValue::Aggregate(_)));
    let mut columns: Vec<Column> = Vec::with_capacity(raw.len());
    for (place, column) in (1..).zip(raw) {
        let what = column.value.within(source);
        let by_itself = || match &what {
            ColumnValue::Path(path) => path.column_name().to_owned(),
            ColumnValue::Aggregate(_) => format!("${place}"),
        };
        let (position, name) = column.alias.unwrap_or_else(|| (column.position, by_itself()));
        if columns.iter().any(|known| known.name == name) {
            let found = format!("a second {}", quoted(&name));
            return Err(SyntaxError::new(position, "columns of different names", &found));
        }
        if let ColumnValue::Path(path) = &what {
            let is_grouped = group_by.is_some_and(|paths| paths.iter().any(|group| group.is_same(path)));
            if (aggregates || group_by.is_some()) && !is_grouped {
                let expected = "only aggregates and what is grouped by";
                return Err(SyntaxError::new(
                    column.position,
                    expected,
                    &quoted(path.column_name()),
                ));
            }
        }
        columns.push(Column { what, name });
    }
    Ok(columns)
}

impl Parser<'_> {
    fn columns(&mut self) -> Result<Vec<RawColumn>, SyntaxError> {
        let mut columns = Vec::new();
        loop {
            if columns.len() == COLUMNS_MAX {
                return Err(self.refusal(&format!("at most {COLUMNS_MAX} columns")));
            }
            columns.push(self.column()?);
            if !self.take_sign(",") {
                return Ok(columns);
            }
        }
    }

    fn column(&mut self) -> Result<RawColumn, SyntaxError> {
        let position = self.position();
        let is_call = self.next_token() == Some(&Token::Sign("("));
        let value = match self.token() {
            Token::Word(name) if is_call => {
                let name = name.to_ascii_uppercase();
                ColumnValue::Aggregate(self.aggregate(&name)?)
            }
            Token::Word(_) | Token::Bracketed(_) => ColumnValue::Path(self.path()?),
            _ => return Err(self.refusal("*, a path or an aggregate")),
        };
        let alias = if self.take_word("AS") {
            Some((self.position(), self.name("a name")?))
        } else {
            None
        };
        Ok(RawColumn {
            position,
            value,
            alias,
        })
    }

    /// The aggregate of this name in capitals, which is the present token.
    fn aggregate(&mut self, name: &str) -> Result<Aggregate, SyntaxError> {
        let of_path = match name {
            "COUNT" => None,
            "SUM" => Some(Aggregate::Sum as fn(Path) -> Aggregate),
            "AVG" => Some(Aggregate::Average as fn(Path) -> Aggregate),
            "MIN" => Some(Aggregate::Least as fn(Path) -> Aggregate),
            "MAX" => Some(Aggregate::Greatest as fn(Path) -> Aggregate),
            _ => return Err(self.refusal("COUNT, SUM, AVG, MIN or MAX")),
        };
        self.advance();
        self.expect_sign("(")?;
        let aggregate = match of_path {
            Some(of_path) => of_path(self.path()?),
            None => {
                self.take_sign("*");
                Aggregate::Count
            }
        };
        self.expect_sign(")")?;
        Ok(aggregate)
    }

    fn group_by(&mut self) -> Result<Vec<Path>, SyntaxError> {
        self.expect_word("GROUP")?;
        self.expect_word("BY")?;
        let mut paths = Vec::new();
        loop {
            if paths.len() == COLUMNS_MAX {
                return Err(self.refusal(&format!("at most {COLUMNS_MAX} paths")));
            }
            paths.push(self.path()?);
            if !self.take_sign(",") {
                return Ok(paths);
            }
        }
    }
}
