//! `dunlin message-endpoint`: where events may go beside the endpoint that every hub has.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use dunlin_model::routing::BUILT_IN;
use serde_json::{Value, json};

use super::{change, check_new, list, read, remove};
use crate::commands::hub::{Call, Hub, HubArgs};
use crate::commands::table::Table;
use crate::commands::{CommandError, CommandResult, Format, progress, say, shown};

#[derive(Args)]
pub(crate) struct MessageEndpoint {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Subcommand)]
enum Action {
    /// Make one of a webhook or a folder of the hub's object store; events that are acknowledged from now on leave
    #[command(subcommand)]
    Create(Kind),
    /// List all, with how many events each is behind
    List,
    /// Delete one that no route leads to
    Delete {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
}

#[derive(Subcommand)]
enum Kind {
    /// Whoever takes events over HTTPS, as JSON
    Webhook {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        /// Where
        #[arg(long, value_name = "HTTPS-URL")]
        url: String,
        /// Value of the header `authorization` that it is sent; it is not shown again
        #[arg(long, value_name = "TEXT")]
        authorization: Option<String>,
        /// File with the certificate of who vouches for it, if not those whom the system trusts
        #[arg(long, value_name = "FILE")]
        authority: Option<PathBuf>,
    },
    /// A folder of the hub's object store, for files of events
    Storage {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        /// The folder; the name unless said
        #[arg(long, value_name = "FOLDER")]
        container: Option<String>,
    },
}

impl Kind {
    /// The list that it stands in, its name, and what is said of it.
    fn body(self) -> Result<(&'static str, String, Value), CommandError> {
        Ok(match self {
            Kind::Webhook {
                name,
                url,
                authorization,
                authority,
            } => {
                let mut body = json!({ "name": name, "url": url });
                if let Some(value) = authorization {
                    body["authorization"] = value.into();
                }
                if let Some(file) = authority {
                    let pem = std::fs::read_to_string(&file)
                        .map_err(|error| CommandError::Failed(format!("read {}: {error}", file.display())))?;
                    body["authority"] = pem.into();
                }
                ("webhooks", name, body)
            }
            Kind::Storage { name, container } => {
                let container = container.unwrap_or_else(|| name.clone());
                let body = json!({ "name": name, "containerName": container });
                ("storageContainers", name, body)
            }
        })
    }
}

impl MessageEndpoint {
    pub(crate) async fn run(self) -> CommandResult {
        let hub = Hub::find(&self.hub)?;
        let output = self.hub.output;
        let (routing, done) = match self.action {
            Action::Create(kind) => {
                let (of, name, body) = kind.body()?;
                let changed = change(&hub, |routing| {
                    for of in ["webhooks", "storageContainers"] {
                        check_new(list(&mut routing["endpoints"], of)?, "name", &name, "an endpoint")?;
                    }
                    list(&mut routing["endpoints"], of)?.push(body);
                    Ok(())
                });
                let done = format!(
                    "Created endpoint {name}. Nothing goes there yet: `dunlin message-route create NAME --source device-messages --endpoint {name}`."
                );
                (changed.await?, done)
            }
            Action::Delete { name } => {
                let changed = change(&hub, |routing| {
                    let endpoints = &mut routing["endpoints"];
                    remove(list(endpoints, "webhooks")?, "name", &name, "endpoint")
                        .or_else(|_| remove(list(endpoints, "storageContainers")?, "name", &name, "endpoint"))
                });
                (changed.await?, format!("Deleted endpoint {name}."))
            }
            Action::List => {
                let routing = progress::waiting("asking the hub", read(&hub)).await?;
                let health = hub
                    .call_json(&Call::get(&["routing", "endpoints", "health"]))
                    .await?;
                match output {
                    Format::Json => say(with_health(&routing, &health))?,
                    Format::Text => say(table(&routing, &health))?,
                }
                return Ok(ExitCode::SUCCESS);
            }
        };
        match output {
            Format::Json => say(&routing["endpoints"])?,
            Format::Text => say(done)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// How many events an endpoint is behind.
fn behind(health: &Value, name: &Value) -> Option<u64> {
    let all = health.as_array()?;
    all.iter().find(|one| one["endpointName"] == *name)?["eventsBehind"].as_u64()
}

fn with_health(routing: &Value, health: &Value) -> Value {
    let mut endpoints = routing["endpoints"].clone();
    for of in ["webhooks", "storageContainers"] {
        for one in endpoints[of].as_array_mut().into_iter().flatten() {
            one["eventsBehind"] = behind(health, &one["name"]).into();
        }
    }
    endpoints
}

fn table(routing: &Value, health: &Value) -> String {
    let mut table = Table::new(["ENDPOINT", "KIND", "BEHIND", "WHERE"]);
    table.push([BUILT_IN, "built-in", "", "AMQP, Kafka and HTTPS of this hub"].map(str::to_owned));
    for (of, kind, place) in [
        ("webhooks", "webhook", "url"),
        ("storageContainers", "storage", "containerName"),
    ] {
        for one in routing["endpoints"][of].as_array().into_iter().flatten() {
            let word = |name: &str| shown(one[name].as_str().unwrap_or_default());
            let behind =
                behind(health, &one["name"]).map_or_else(|| "?".to_owned(), |behind| behind.to_string());
            table.push([word("name"), kind.to_owned(), behind, word(place)]);
        }
    }
    table.to_string()
}
