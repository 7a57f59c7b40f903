//! `dunlin dps`: the provisioning service itself, the hubs that it may send devices to, and who has registered.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Value, json};

use super::pages;
use crate::commands::device::confirmed;
use crate::commands::hub::{Call, Hub, HubArgs};
use crate::commands::table::Table;
use crate::commands::{CommandError, CommandResult, Format, progress, say, shown};

#[derive(Args)]
pub(crate) struct Dps {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Subcommand)]
enum Action {
    /// Print the id scope that devices are given, and the hubs that they may get
    Show,
    /// Send devices to another hub as well, or say how many of them
    LinkedHub {
        #[command(subcommand)]
        action: LinkedHub,
    },
    /// See who has registered
    Registration {
        #[command(subcommand)]
        action: Registration,
    },
}

#[derive(Subcommand)]
enum LinkedHub {
    /// Link a hub, or this one with another weight
    Create {
        /// Its host name
        #[arg(value_name = "HOST")]
        host: String,
        /// Its connection string with a policy that may write devices and twins; none for this hub itself
        #[arg(long = "hub-connection-string", value_name = "STRING")]
        connection_string: Option<String>,
        /// Certificate of who vouches for it (PEM), if not one that the nodes' systems trust
        #[arg(long, value_name = "FILE")]
        authority: Option<PathBuf>,
        /// Its share of the devices that are spread; 0 for this hub itself keeps devices off it
        #[arg(long, value_name = "N", default_value_t = 1)]
        allocation_weight: u32,
    },
    /// Send nobody there any more; who is there stays
    Delete {
        /// Its host name
        #[arg(value_name = "HOST")]
        host: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Subcommand)]
enum Registration {
    /// Show one
    Show {
        /// Its registration id
        #[arg(value_name = "ID")]
        id: String,
    },
    /// List those under an enrollment group
    List {
        /// The group
        #[arg(long, value_name = "NAME")]
        group: String,
    },
    /// Forget one; the device stays at its hub
    Delete {
        /// Its registration id
        #[arg(value_name = "ID")]
        id: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

impl Dps {
    pub(crate) async fn run(self) -> CommandResult {
        let hub = Hub::find(&self.hub)?;
        let output = self.hub.output;
        match self.action {
            Action::Show => {
                let call = Call::get(&["provisioning"]);
                let found = progress::waiting("asking the hub", hub.call_json(&call)).await?;
                say_service(&found, output)?;
            }
            Action::LinkedHub { action } => action.run(&hub, output).await?,
            Action::Registration { action } => action.run(&hub, output).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn say_service(found: &Value, output: Format) -> std::io::Result<()> {
    if output == Format::Json {
        return say(found);
    }
    say(format!(
        "id scope  {}\n",
        shown(found["idScope"].as_str().unwrap_or_default())
    ))?;
    let mut table = Table::new(["HUB", "WEIGHT", ""]);
    for hub in found["linkedHubs"].as_array().into_iter().flatten() {
        let own = if hub["isOwn"] == true { "this one" } else { "" };
        let host = shown(hub["hostName"].as_str().unwrap_or_default());
        table.push([host, hub["weight"].to_string(), own.to_owned()]);
    }
    say(table)
}

impl LinkedHub {
    async fn run(self, hub: &Hub, output: Format) -> Result<(), CommandError> {
        match self {
            LinkedHub::Create {
                host,
                connection_string,
                authority,
                allocation_weight,
            } => {
                let authority = authority.map(|path| {
                    let read = std::fs::read_to_string(&path);
                    read.map_err(|error| CommandError::Failed(format!("read {}: {error}", path.display())))
                });
                let body = json!({
                    "connectionString": connection_string,
                    "authority": authority.transpose()?,
                    "weight": allocation_weight,
                });
                let path = ["provisioning", "linkedHubs", host.as_str()];
                let call = Call::new(Method::PUT, &path).json(body);
                let found = progress::waiting("asking the hub", hub.call_json(&call)).await?;
                say_service(&found, output)?;
            }
            LinkedHub::Delete { host, yes } => {
                if !yes && !confirmed(&format!("Unlink {host}?"))? {
                    return Err(CommandError::Failed("nothing was changed".into()));
                }
                let path = ["provisioning", "linkedHubs", host.as_str()];
                hub.call(&Call::new(Method::DELETE, &path)).await?;
                match output {
                    Format::Json => say(json!({ "deleted": host }))?,
                    Format::Text => say(format!("No device is sent to {} any more.", shown(&host)))?,
                }
            }
        }
        Ok(())
    }
}

impl Registration {
    async fn run(self, hub: &Hub, output: Format) -> Result<(), CommandError> {
        match self {
            Registration::Show { id } => {
                let path = ["registrations", id.as_str()];
                let call = Call::get(&path);
                let found = progress::waiting("asking the hub", hub.call_json(&call)).await?;
                match output {
                    Format::Json => say(found)?,
                    Format::Text => show_registration(&found)?,
                }
            }
            Registration::List { group } => {
                let path = ["registrations", group.as_str(), "query"];
                let rows = progress::waiting("asking the hub", pages(hub, &path, None)).await?;
                match output {
                    Format::Json => say(Value::Array(rows))?,
                    Format::Text if rows.is_empty() => {
                        say(format!("Nobody is registered under {}.", shown(&group)))?
                    }
                    Format::Text => say(table(&rows))?,
                }
            }
            Registration::Delete { id, yes } => {
                if !yes && !confirmed(&format!("Forget the registration of {id}?"))? {
                    return Err(CommandError::Failed("nothing was deleted".into()));
                }
                let path = ["registrations", id.as_str()];
                hub.call(&Call::new(Method::DELETE, &path)).await?;
                match output {
                    Format::Json => say(json!({ "deleted": id }))?,
                    Format::Text => say(format!("The registration of {} is forgotten.", shown(&id)))?,
                }
            }
        }
        Ok(())
    }
}

fn table(rows: &[Value]) -> Table<4> {
    let mut table = Table::new(["REGISTRATION", "DEVICE", "HUB", "LAST"]);
    for row in rows {
        let names = [
            "registrationId",
            "deviceId",
            "assignedHub",
            "lastUpdatedDateTimeUtc",
        ];
        table.push(names.map(|name| shown(row[name].as_str().unwrap_or_default())));
    }
    table
}

/// What became of a device.
pub(super) fn show_registration(found: &Value) -> std::io::Result<()> {
    let text = |name: &str| shown(found[name].as_str().unwrap_or("-"));
    say(format!(
        "device    {} at {}\nbecause   {}\nfirst     {}\nlast      {}",
        text("deviceId"),
        text("assignedHub"),
        text("substatus"),
        text("createdDateTimeUtc"),
        text("lastUpdatedDateTimeUtc"),
    ))
}
