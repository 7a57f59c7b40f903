//! Columns for people.

use std::fmt;

/// Spaces between columns.
const GAP: usize = 2;

/// Rows under headings; columns are as wide as they must be.
pub(crate) struct Table<const N: usize> {
    rows: Vec<[String; N]>,
}

impl<const N: usize> Table<N> {
    /// A table with these headings and no rows.
    pub(crate) fn new(headings: [&str; N]) -> Self {
        Self {
            rows: vec![headings.map(str::to_owned)],
        }
    }

    /// Adds a row.
    pub(crate) fn push(&mut self, cells: [String; N]) {
        self.rows.push(cells);
    }
}

/// Without the last line's end.
impl<const N: usize> fmt::Display for Table<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = |cell: &String| cell.chars().count();
        let widths: [usize; N] =
            std::array::from_fn(|column| self.rows.iter().map(|row| width(&row[column])).max().unwrap_or(0));
        for (place, row) in self.rows.iter().enumerate() {
            let mut line = String::new();
            for (cell, column) in row.iter().zip(widths) {
                line.push_str(cell);
                line.extend(std::iter::repeat_n(' ', column - width(cell) + GAP));
            }
            let end = if place + 1 < self.rows.len() { "\n" } else { "" };
            write!(f, "{}{end}", line.trim_end())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_stand_below_each_other() {
        let mut table = Table::new(["ID", "TEMPERATURE"]);
        table.push(["dev-1".into(), "21 °C".into()]);
        table.push(["d".into(), String::new()]);
        assert_eq!(table.to_string(), "ID     TEMPERATURE\ndev-1  21 °C\nd");
    }
}
