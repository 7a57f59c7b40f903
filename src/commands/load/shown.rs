//! How a run is shown: a line while it goes on, its figures at the end, and what stays of it on files.

use std::fmt::Display;
use std::path::PathBuf;

use clap::Args;
use dunlin_chaos::demo::Progress;
use dunlin_chaos::load::ceiling::Ceiling;
use dunlin_chaos::load::figures::Figures;
use dunlin_chaos::load::live::Live;
use dunlin_chaos::load::report;
use dunlin_chaos::page::Page;

use crate::commands::{CommandError, Format, say};

#[derive(Args, Debug, Clone)]
pub(super) struct Shown {
    /// Write an HdrHistogram interval log
    #[arg(long, value_name = "FILE")]
    pub(super) hdr: Option<PathBuf>,
    /// Write a page with charts
    #[arg(long, value_name = "FILE")]
    pub(super) report: Option<PathBuf>,
}

impl Shown {
    /// What shows a run of this kind while it goes on.
    pub(super) fn live(&self, kind: &'static str, output: Format) -> Result<Live, CommandError> {
        let progress = match output {
            Format::Text => Progress::People,
            Format::Json => Progress::Program,
        };
        Live::new(progress, kind, self.hdr.as_deref()).map_err(failed)
    }

    /// Tells what came of a run, and writes its page.
    pub(super) fn tell(&self, figures: &Figures, output: Format) -> Result<(), CommandError> {
        if self.report.is_some() {
            self.write(&report::page(figures, &command_line()).map_err(failed)?)?;
        }
        match output {
            Format::Json => say(serde_json::to_string(figures).map_err(failed)?)?,
            Format::Text => say(figures)?,
        }
        Ok(())
    }

    /// Writes a page, if one is wanted.
    pub(super) fn write(&self, page: &Page) -> Result<(), CommandError> {
        let Some(path) = &self.report else {
            return Ok(());
        };
        page.save(path)
            .map_err(|error| failed(format_args!("write {}: {error}", path.display())))
    }
}

/// A generator's ceiling, unless it is not wanted. That it cannot be found is no reason not to run.
pub(super) async fn ceiling_unless<E: Display>(
    is_unwanted: bool,
    measuring: impl Future<Output = Result<Ceiling, E>>,
) -> Ceiling {
    if is_unwanted {
        return Ceiling::default();
    }
    measuring.await.unwrap_or_else(Ceiling::none)
}

/// That something else went wrong.
pub(super) fn failed(error: impl Display) -> CommandError {
    CommandError::Failed(error.to_string())
}

/// The command as it was given, without what is secret.
pub(super) fn command_line() -> String {
    masked(std::env::args())
}

fn masked(arguments: impl Iterator<Item = String>) -> String {
    let mut is_secret = false;
    let words = arguments.map(|argument| {
        if std::mem::replace(
            &mut is_secret,
            matches!(argument.as_str(), "-P" | "--password" | "--connection-string"),
        ) {
            return "***".to_owned();
        }
        for head in ["--password=", "--connection-string="] {
            if argument.starts_with(head) {
                return format!("{head}***");
            }
        }
        if argument.starts_with("-P") && argument.len() > 2 {
            return "-P***".to_owned();
        }
        if argument.contains([' ', '\'', '"', '$', '#']) {
            format!("'{}'", argument.replace('\'', "'\\''"))
        } else {
            argument
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_go_into_reports() {
        let line =
            "dunlin load pub -P one --password two --password=three -Pfour --connection-string five -t a/%i";
        let masked = masked(line.split(' ').map(str::to_owned));
        for secret in ["one", "two", "three", "four", "five"] {
            assert!(!masked.contains(secret), "{masked}");
        }
        assert!(masked.ends_with("-t a/%i") && masked.starts_with("dunlin load pub"));
    }

    #[tokio::test]
    async fn a_ceiling_is_left_out_on_request_and_says_why_it_could_not_be_found() {
        let found = || async { Err::<Ceiling, _>("no port is free") };
        assert_eq!(ceiling_unless(true, found()).await, Ceiling::default());
        let note = ceiling_unless(false, found()).await.note;
        assert_eq!(note.as_deref(), Some("none: no port is free"));
    }
}
