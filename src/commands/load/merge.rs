//! `dunlin load merge`: several generators' histograms as one.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use dunlin_chaos::load::merge;

use crate::commands::{CommandError, CommandResult, Format, say};

#[derive(Args)]
pub(super) struct Merge {
    /// Interval logs (--hdr) or the JSON (-o json) of each generator
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

impl Merge {
    pub(super) fn run(self, output: Format) -> CommandResult {
        let failed = |error: &dyn std::fmt::Display| CommandError::Failed(error.to_string());
        let merged = merge::files(&self.files).map_err(|error| failed(&error))?;
        match output {
            Format::Json => say(serde_json::to_string(&merged).map_err(|error| failed(&error))?)?,
            Format::Text => say(merged)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
