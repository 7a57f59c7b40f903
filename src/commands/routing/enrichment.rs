//! `dunlin message-enrichment`: what events are given on their way to endpoints.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use dunlin_model::routing::BUILT_IN;
use serde_json::{Value, json};

use super::{change, check_new, list, names, read, remove};
use crate::commands::hub::{Hub, HubArgs};
use crate::commands::table::Table;
use crate::commands::{CommandResult, Format, progress, say, shown};

#[derive(Args)]
pub(crate) struct MessageEnrichment {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Subcommand)]
enum Action {
    /// Give events a property
    Create {
        /// Its name
        #[arg(value_name = "KEY")]
        key: String,
        /// Its value: text, '$iothubname', or a path of the twin like '$twin.tags.floor'
        #[arg(long, value_name = "VALUE")]
        value: String,
        /// On the way where; may be given more than once
        #[arg(long = "endpoint", value_name = "NAME", default_value = BUILT_IN)]
        endpoints: Vec<String>,
    },
    /// List all
    List,
    /// Give it no more
    Delete {
        /// Its name
        #[arg(value_name = "KEY")]
        key: String,
    },
}

impl MessageEnrichment {
    pub(crate) async fn run(self) -> CommandResult {
        let hub = Hub::find(&self.hub)?;
        let output = self.hub.output;
        let (routing, done) = match self.action {
            Action::Create {
                key,
                value,
                endpoints,
            } => {
                let one = json!({ "key": key, "value": value, "endpointNames": endpoints });
                let changed = change(&hub, |routing| {
                    let all = list(routing, "enrichments")?;
                    check_new(all, "key", &key, "an enrichment")?;
                    all.push(one);
                    Ok(())
                });
                (
                    changed.await?,
                    format!("Events to {} get {key}.", endpoints.join(", ")),
                )
            }
            Action::Delete { key } => {
                let changed = change(&hub, |routing| {
                    remove(list(routing, "enrichments")?, "key", &key, "enrichment")
                });
                (changed.await?, format!("Events get no {key} any more."))
            }
            Action::List => {
                let routing = progress::waiting("asking the hub", read(&hub)).await?;
                match output {
                    Format::Json => say(&routing["enrichments"])?,
                    Format::Text => say(table(&routing))?,
                }
                return Ok(ExitCode::SUCCESS);
            }
        };
        match output {
            Format::Json => say(&routing["enrichments"])?,
            Format::Text => say(done)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn table(routing: &Value) -> String {
    let mut table = Table::new(["KEY", "VALUE", "ENDPOINTS"]);
    for one in routing["enrichments"].as_array().into_iter().flatten() {
        let word = |name: &str| shown(one[name].as_str().unwrap_or_default());
        table.push([word("key"), word("value"), shown(&names(&one["endpointNames"]))]);
    }
    table.to_string()
}
