//! `dunlin module`: the identities within a device.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use dunlin_model::id::DeviceId;
use reqwest::Method;
use serde_json::{Value, json};

use super::device::confirmed;
use super::hub::{Call, Hub, HubArgs};
use super::named::OneDevice;
use super::renew::{self, Which, explained, path};
use super::table::Table;
use super::{CommandError, CommandResult, Format, progress, say, shown};

#[derive(Args)]
pub(crate) struct Module {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Subcommand)]
enum Action {
    /// Create a module of a device; the hub draws its keys
    Create {
        /// Its device and its name
        #[arg(value_name = "DEVICE/MODULE", value_parser = parse_module)]
        id: DeviceId,
        /// Who manages it, in your words
        #[arg(long, value_name = "TEXT")]
        managed_by: Option<String>,
    },
    /// List the modules of a device
    List {
        #[command(flatten)]
        device: OneDevice,
    },
    /// Show one
    Show {
        /// Its device and its name
        #[arg(value_name = "DEVICE/MODULE", value_parser = parse_module)]
        id: DeviceId,
    },
    /// Print what a module's SDK is given to connect
    ConnectionString {
        /// Its device and its name
        #[arg(value_name = "DEVICE/MODULE", value_parser = parse_module)]
        id: DeviceId,
    },
    /// Change its keys; whoever is connected with one that is no more is cut off
    RenewKey {
        /// Its device and its name
        #[arg(value_name = "DEVICE/MODULE", value_parser = parse_module)]
        id: DeviceId,
        /// Which of them
        #[arg(long, value_enum)]
        key: Which,
    },
    /// Delete one for good
    Delete {
        /// Its device and its name
        #[arg(value_name = "DEVICE/MODULE", value_parser = parse_module)]
        id: DeviceId,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

fn parse_module(text: &str) -> Result<DeviceId, String> {
    let id = super::device::parse_identity(text)?;
    match id.module_part() {
        Some(_) => Ok(id),
        None => Err("a module is named DEVICE/MODULE".to_owned()),
    }
}

impl Module {
    pub(crate) async fn run(self) -> CommandResult {
        let hub = Hub::find(&self.hub)?;
        let output = self.hub.output;
        match self.action {
            Action::Create { id, managed_by } => create(&hub, &id, managed_by, output).await?,
            Action::List { device } => list(&hub, device.id(), output).await?,
            Action::Show { id } => {
                let module = get(&hub, &id).await?;
                match output {
                    Format::Json => say(module)?,
                    Format::Text => say(text(&module))?,
                }
            }
            Action::ConnectionString { id } => {
                let module = get(&hub, &id).await?;
                let text = hub.identity_string(&id, key(&module));
                match output {
                    Format::Json => say(json!({ "connectionString": text, "caFile": hub.ca_file() }))?,
                    Format::Text => say(text)?,
                }
            }
            Action::RenewKey { id, key } => {
                let renewed = renew::renew_key(&hub, &id, key, output).await;
                renewed.map_err(|error| explained(error, &id))?;
            }
            Action::Delete { id, yes } => {
                if !yes && !confirmed(&format!("Delete module {id} for good?"))? {
                    return Err(CommandError::Failed("nothing was deleted".into()));
                }
                let deleted = hub.call(&Call::new(Method::DELETE, &path(&id))).await;
                deleted.map_err(|error| explained(error.into(), &id))?;
                if output == Format::Text {
                    say(format!("Deleted {id}."))?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn get(hub: &Hub, id: &DeviceId) -> Result<Value, CommandError> {
    let found = hub.call_json(&Call::get(&path(id))).await;
    found.map_err(|error| explained(error.into(), id))
}

fn key(module: &Value) -> &str {
    let key = &module["authentication"]["symmetricKey"]["primaryKey"];
    key.as_str().unwrap_or_default()
}

async fn create(
    hub: &Hub,
    id: &DeviceId,
    managed_by: Option<String>,
    output: Format,
) -> Result<(), CommandError> {
    let body = json!({ "authentication": { "type": "sas" }, "managedBy": managed_by });
    let path = path(id);
    let call = Call::new(Method::PUT, &path).json(body);
    let created = progress::waiting("creating the module", hub.call_json(&call)).await;
    let created = created.map_err(|error| explained(error.into(), id))?;
    match output {
        Format::Json => say(created)?,
        Format::Text => say(format!(
            "Created {id}.\n\n  connection string  {}",
            hub.identity_string(id, key(&created))
        ))?,
    }
    Ok(())
}

async fn list(hub: &Hub, device: &DeviceId, output: Format) -> Result<(), CommandError> {
    let path = ["devices", device.as_str(), "modules"];
    let modules = hub.call_json(&Call::get(&path)).await;
    let modules = modules.map_err(|error| explained(error.into(), device))?;
    match output {
        Format::Json => say(modules)?,
        Format::Text => say(table(&modules))?,
    }
    Ok(())
}

fn table(modules: &Value) -> String {
    let modules = modules.as_array().map(Vec::as_slice).unwrap_or_default();
    if modules.is_empty() {
        return "No modules.".to_owned();
    }
    let mut table = Table::new(["MODULE", "CONNECTION", "MANAGED BY"]);
    for module in modules {
        let text = |name: &str| shown(module[name].as_str().unwrap_or_default());
        table.push([
            text("moduleId"),
            text("connectionState").to_lowercase(),
            text("managedBy"),
        ]);
    }
    table.to_string()
}

fn text(module: &Value) -> String {
    let word = |name: &str| shown(module[name].as_str().unwrap_or_default());
    format!(
        "module      {}/{}\nproof       {}\nconnection  {}\nmanaged by  {}\ngeneration  {}",
        word("deviceId"),
        word("moduleId"),
        shown(module["authentication"]["type"].as_str().unwrap_or_default()),
        word("connectionState").to_lowercase(),
        word("managedBy"),
        word("generationId"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_is_named_with_its_device() {
        assert_eq!(parse_module("d/m").unwrap().as_str(), "d/m");
        assert!(parse_module("d").is_err() && parse_module("d/").is_err() && parse_module("d/m/x").is_err());
    }

    #[test]
    fn modules_are_listed() {
        let modules = json!([{"moduleId": "cam", "connectionState": "Connected", "managedBy": "IotEdge"}]);
        assert_eq!(
            table(&modules),
            "MODULE  CONNECTION  MANAGED BY\ncam     connected   IotEdge"
        );
        assert_eq!(table(&json!([])), "No modules.");
    }
}
