//! A report as one HTML file that needs nothing else: no script, no style sheet, no font from outside.
//!
//! A [`Page`] is built from top to bottom and written once. It decides how things look, never what they
//! say. All text that comes in is escaped; only [`chart::Drawing`]s, which this room draws itself, go in
//! as they are. Colours follow the reader's choice of light or dark. Charts are in [`chart`], their
//! scales in [`axis`].

mod axis;
pub mod chart;

use std::fmt::{self, Write as _};
use std::io;
use std::path::Path;

use chart::Drawing;

/// Rows of one table; the rest is counted in a last line.
pub const ROWS_MAX: usize = 2000;

const STYLE: &str = "\
:root{color-scheme:light dark;--ink:#1c2430;--soft:#5b6675;--paper:#fff;--line:#d5dae1;--good:#1a7f4b;--bad:#c0362c}
@media (prefers-color-scheme:dark){:root{--ink:#e4e9f0;--soft:#9aa6b5;--paper:#12161c;--line:#323b47;--good:#4cc38a;--bad:#ff7b72}}
body{margin:2rem auto;max-width:64rem;padding:0 1rem;font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--paper)}
h1{font-size:1.6rem;margin:0 0 .5rem}h2{font-size:1.2rem;margin:2rem 0 .5rem;border-bottom:1px solid var(--line)}
table{border-collapse:collapse;margin:.5rem 0;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.15rem 1rem .15rem 0;vertical-align:top;border-bottom:1px solid var(--line)}
th{font-weight:600;color:var(--soft)}td.number,th.number{text-align:right}
figure{margin:1rem 0}figure svg{width:100%;height:auto;color:var(--ink)}figcaption{color:var(--soft)}
.legend span{margin-right:1.2rem;white-space:nowrap}.legend i{display:inline-block;width:1.4rem;height:.3rem;margin-right:.4rem;vertical-align:middle}
pre{overflow-x:auto;padding:.6rem;border:1px solid var(--line);border-radius:.3rem}
.verdict{font-size:1.2rem;font-weight:600;padding:.4rem .8rem;border-left:.4rem solid}
.good{color:var(--good)}.bad{color:var(--bad)}.soft{color:var(--soft)}
";

/// How a verdict is coloured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    /// It holds.
    Good,
    /// It does not.
    Bad,
    /// Neither.
    Plain,
}

impl Tone {
    fn class(self) -> &'static str {
        match self {
            Tone::Good => "good",
            Tone::Bad => "bad",
            Tone::Plain => "soft",
        }
    }
}

/// A page that is being built.
#[derive(Debug, Clone)]
pub struct Page {
    title: String,
    body: String,
}

impl Page {
    /// An empty page with this heading.
    pub fn new(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            body: format!("<h1>{}</h1>\n", Escaped(title)),
        }
    }

    /// The sentence that matters most.
    pub fn verdict(&mut self, tone: Tone, text: &str) -> &mut Self {
        let class = tone.class();
        self.push(format_args!(
            "<p class=\"verdict {class}\">{}</p>\n",
            Escaped(text)
        ))
    }

    /// A heading for what follows.
    pub fn section(&mut self, heading: &str) -> &mut Self {
        self.push(format_args!("<h2>{}</h2>\n", Escaped(heading)))
    }

    /// A paragraph.
    pub fn paragraph(&mut self, text: &str) -> &mut Self {
        self.push(format_args!("<p>{}</p>\n", Escaped(text)))
    }

    /// Text whose lines and columns stay as they are.
    pub fn preformatted(&mut self, text: &str) -> &mut Self {
        self.push(format_args!("<pre>{}</pre>\n", Escaped(text)))
    }

    /// Names with their values, one pair a row.
    pub fn facts<N: fmt::Display, V: fmt::Display>(
        &mut self,
        facts: impl IntoIterator<Item = (N, V)>,
    ) -> &mut Self {
        self.body.push_str("<table>\n");
        for (name, value) in facts {
            self.push(format_args!(
                "<tr><th>{}</th><td>{}</td></tr>\n",
                Escaped(name),
                Escaped(value)
            ));
        }
        self.push(format_args!("</table>\n"))
    }

    /// A table. Cells that are numbers stand to the right. Beyond [`ROWS_MAX`] rows are only counted.
    pub fn table(&mut self, head: &[&str], rows: &[Vec<String>]) -> &mut Self {
        self.body.push_str("<table>\n<tr>");
        for (column, name) in head.iter().enumerate() {
            let class = class_of(rows.first().and_then(|row| row.get(column)));
            self.push(format_args!("<th{class}>{}</th>", Escaped(name)));
        }
        self.body.push_str("</tr>\n");
        for row in rows.iter().take(ROWS_MAX) {
            self.body.push_str("<tr>");
            for cell in row {
                let class = class_of(Some(cell));
                self.push(format_args!("<td{class}>{}</td>", Escaped(cell)));
            }
            self.body.push_str("</tr>\n");
        }
        self.body.push_str("</table>\n");
        if rows.len() > ROWS_MAX {
            let left_out = rows.len() - ROWS_MAX;
            self.push(format_args!(
                "<p class=\"soft\">{left_out} more rows are left out.</p>\n"
            ));
        }
        self
    }

    /// A chart, with a sentence that says what it shows.
    pub fn chart(&mut self, caption: &str, drawing: &Drawing) -> &mut Self {
        self.push(format_args!(
            "<figure>\n{}<figcaption>{}</figcaption></figure>\n",
            drawing.as_html(),
            Escaped(caption)
        ))
    }

    /// The whole document.
    pub fn render(&self) -> String {
        format!(
            "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
             <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
             <title>{}</title>\n<style>{STYLE}</style></head>\n<body>\n{}</body></html>\n",
            Escaped(&self.title),
            self.body
        )
    }

    /// Writes the document to a file, over an older one.
    pub fn save(&self, path: &Path) -> io::Result<()> {
        std::fs::write(path, self.render())
    }

    fn push(&mut self, text: fmt::Arguments<'_>) -> &mut Self {
        // Writing to a string cannot fail.
        let _ = self.body.write_fmt(text);
        self
    }
}

fn class_of(cell: Option<&String>) -> &'static str {
    let is_number = cell.is_some_and(|cell| {
        cell.starts_with(|c: char| c.is_ascii_digit() || c == '-')
            && cell.chars().any(|c| c.is_ascii_digit())
            && cell.chars().filter(char::is_ascii_alphabetic).count() <= 3
    });
    if is_number { " class=\"number\"" } else { "" }
}

/// Text as HTML shows it, in an element or in a quoted attribute.
pub struct Escaped<T>(pub T);

impl<T: fmt::Display> fmt::Display for Escaped<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.to_string().chars() {
            match c {
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '&' => f.write_str("&amp;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                // A browser would read these as the end of the text or not at all.
                c if c.is_control() && !matches!(c, '\n' | '\t') => f.write_char('\u{FFFD}')?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::chart::{Lines, Percentiles, Series, Span};
    use super::*;

    const HOSTILE: &str = "</title><script>alert('1')</script> & \"x\"\0";

    #[test]
    fn all_text_is_escaped_wherever_it_goes() {
        let mut page = Page::new(HOSTILE);
        page.verdict(Tone::Bad, HOSTILE)
            .section(HOSTILE)
            .paragraph(HOSTILE)
            .preformatted(HOSTILE)
            .facts([(HOSTILE, HOSTILE)])
            .table(&[HOSTILE], &[vec![HOSTILE.to_owned()]]);
        let series = vec![Series::new(HOSTILE, vec![(0.0, 1.0), (1.0, 2.0)])];
        let lines = Lines {
            title: HOSTILE.into(),
            y_label: HOSTILE.into(),
            is_log: false,
            series,
            spans: vec![Span {
                label: HOSTILE.into(),
                from_s: 0.2,
                to_s: 0.4,
            }],
        };
        page.chart(HOSTILE, &lines.draw().unwrap());
        let percentiles = Percentiles {
            title: HOSTILE.into(),
            y_label: HOSTILE.into(),
            series: vec![(HOSTILE.into(), vec![(0.0, 1.0), (0.5, 2.0)])],
        };
        page.chart(HOSTILE, &percentiles.draw().unwrap());
        let html = page.render();
        assert!(!html.contains("<script"), "{html}");
        assert!(!html.contains("alert('1')") && !html.contains('\0'));
        assert!(html.contains("&lt;script&gt;"));
    }

    #[test]
    fn a_page_needs_nothing_from_outside() {
        let mut page = Page::new("x");
        let lines = Lines {
            title: "t".into(),
            y_label: "y".into(),
            is_log: true,
            series: vec![Series::new("s", vec![(0.0, 1.0), (1.0, 200.0)])],
            spans: Vec::new(),
        };
        page.chart("c", &lines.draw().unwrap());
        let html = page.render().replace("http://www.w3.org/2000/svg", "");
        for outside in ["http:", "https:", "src=", "@import", "url(", "href="] {
            assert!(!html.contains(outside), "{outside}");
        }
    }

    #[test]
    fn a_long_table_says_what_it_leaves_out() {
        let rows = vec![vec!["1".to_owned()]; ROWS_MAX + 3];
        let mut page = Page::new("x");
        page.table(&["n"], &rows);
        let html = page.render();
        assert_eq!(html.matches("<tr>").count(), ROWS_MAX + 1);
        assert!(html.contains("3 more rows"));
    }
}
