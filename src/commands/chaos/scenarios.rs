//! `dunlin chaos list`, `show` and `faults`: what there is to try.

use std::process::ExitCode;

use dunlin_chaos::faults::{CATALOGUE, STATES};
use dunlin_chaos::scenario::{library, read};

use crate::commands::{CommandError, CommandResult, say};

/// Columns of a text that is wrapped.
const COLUMNS: usize = 90;

pub(super) fn list() -> CommandResult {
    for (name, text) in library::SCENARIOS {
        let scenario = read::parse(name, text).map_err(|error| CommandError::Failed(error.to_string()))?;
        say(name)?;
        for line in wrapped(&scenario.shows) {
            say(format!("    {line}"))?;
        }
    }
    say("\nRun one with `dunlin chaos run NAME`; see its text with `dunlin chaos show NAME`.")?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn show(name: &str) -> CommandResult {
    let text = library::find(name).ok_or_else(|| {
        CommandError::Usage(format!(
            "there is no scenario '{name}'; `dunlin chaos list` lists them"
        ))
    })?;
    say(text.trim_end())?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn faults() -> CommandResult {
    for kind in CATALOGUE {
        say(format!("{:<4} {:<17} {}", kind.number, kind.name, kind.how))?;
        if let Some(how) = kind.in_containers {
            say(format!("       --compose: {}", how.replace('`', "")))?;
        }
        for parameter in kind.with {
            let (low, high) = parameter.usual;
            say(format!(
                "       {} = [{low}, {high}]  # {}",
                parameter.name, parameter.meaning
            ))?;
        }
    }
    say("\nStates that `must_reach` can name besides:")?;
    for (name, meaning) in STATES {
        say(format!("     {name:<24} {meaning}"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn wrapped(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let is_full = lines
            .last()
            .is_some_and(|line| line.len() + word.len() >= COLUMNS);
        if is_full {
            lines.push(String::new());
        }
        if let Some(line) = lines.last_mut() {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_wrapped_between_words() {
        let lines = wrapped(&"word ".repeat(50));
        assert!(lines.len() > 2 && lines.iter().all(|line| line.len() <= COLUMNS));
        assert_eq!(lines.join(" "), "word ".repeat(50).trim());
    }
}
