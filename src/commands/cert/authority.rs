//! `dunlin cert authority`: whose certificates devices may show.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Subcommand;
use reqwest::Method;
use serde_json::{Value, json};
use x509_parser::prelude::ASN1Time;

use crate::commands::hub::{Call, Hub, HubArgs};
use crate::commands::table::Table;
use crate::commands::{CommandError, CommandResult, Format, progress, say, shown};

#[derive(Subcommand)]
pub(super) enum Action {
    /// Trust an authority: devices may show what it, or one that it has signed, has signed for their names
    Add {
        /// What to call it here
        #[arg(value_name = "NAME")]
        name: String,
        /// Its certificate (PEM)
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// List those that are trusted
    List,
    /// Trust one no longer; devices that are connected by it are cut off within two seconds
    Remove {
        /// What it is called here
        #[arg(value_name = "NAME")]
        name: String,
    },
}

pub(super) async fn run(action: &Action, args: &HubArgs) -> CommandResult {
    let hub = Hub::find(args)?;
    let (request, done) = match action {
        Action::Add { name, file } => {
            let certificate = std::fs::read_to_string(file)
                .map_err(|error| CommandError::Failed(format!("read {}: {error}", file.display())))?;
            let request = json!({ "op": "put-authority", "name": name, "certificate": certificate });
            (request, format!("Devices may show certificates of {name} now."))
        }
        Action::Remove { name } => {
            let request = json!({ "op": "remove-authority", "name": name });
            (request, format!("{name} is trusted no longer."))
        }
        Action::List => (json!({ "op": "authorities" }), String::new()),
    };
    let call = Call::new(Method::POST, &["cluster", "admin"]).json(request);
    let answer = progress::waiting("asking the hub", hub.call_json(&call)).await?;
    match (args.output, action) {
        (Format::Json, _) => say(answer)?,
        (Format::Text, Action::List) => list(&answer)?,
        (Format::Text, _) => say(done)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn list(answer: &Value) -> std::io::Result<()> {
    let lines = answer.as_array().cloned().unwrap_or_default();
    if lines.is_empty() {
        return say("No authorities yet; `dunlin cert authority add NAME FILE` names one.");
    }
    let mut table = Table::new(["AUTHORITY", "SUBJECT", "VALID UNTIL"]);
    for line in &lines {
        let until = line["not_after_s"]
            .as_i64()
            .and_then(|s| ASN1Time::from_timestamp(s).ok());
        let text = |name: &str| shown(line[name].as_str().unwrap_or_default());
        let until = until.map_or_else(String::new, |until| until.to_string());
        table.push([text("name"), text("subject"), until]);
    }
    say(table)
}
