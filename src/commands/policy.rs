//! `dunlin policy`: the hub's shared access policies, whose keys services and devices sign tokens with.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use dunlin_cluster::admin::{AdminRequest, PolicyKey, PolicyLine};
use dunlin_model::directory::Right;
use reqwest::Method;
use serde::Deserialize as _;
use serde::de::IntoDeserializer as _;
use serde::de::value::Error as UnknownWord;
use serde_json::{Value, json};

use super::hub::{Call, Hub, HubArgs};
use super::table::Table;
use super::{CommandError, CommandResult, Format, progress, say, shown};

#[derive(Args)]
pub(crate) struct Policies {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Subcommand)]
enum Action {
    /// List the policies, without their keys
    List,
    /// Show a policy with its keys
    Show {
        /// The policy
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Make a policy, with new keys
    Create {
        /// What to call it
        #[arg(value_name = "NAME")]
        name: String,
        /// What it grants: RegistryRead, RegistryReadWrite, ServiceConnect, DeviceConnect, ClusterAdmin,
        /// EnrollmentRead, EnrollmentWrite, RegistrationStatusRead, RegistrationStatusWrite
        #[arg(long, value_name = "RIGHT", required = true, num_args = 1.., value_parser = parse_right)]
        permissions: Vec<Right>,
    },
    /// Give a policy another key; what was opened with the one before ends within two seconds
    RenewKey {
        /// The policy
        #[arg(value_name = "NAME")]
        name: String,
        /// Which key: primary, secondary, or swap to have each take the other's place
        #[arg(long = "renew-key", visible_alias = "rk", value_name = "KEY", value_parser = parse_key)]
        key: PolicyKey,
    },
    /// Remove a policy; what was opened with its keys ends within two seconds
    Delete {
        /// The policy
        #[arg(value_name = "NAME")]
        name: String,
    },
}

fn parse_right(text: &str) -> Result<Right, UnknownWord> {
    Right::deserialize(text.into_deserializer())
}

fn parse_key(text: &str) -> Result<PolicyKey, UnknownWord> {
    PolicyKey::deserialize(text.into_deserializer())
}

impl Policies {
    pub(crate) async fn run(self) -> CommandResult {
        let hub = Hub::find(&self.hub)?;
        let output = self.hub.output;
        let (request, done) = match self.action {
            Action::List => {
                list(&read(&hub).await?, output)?;
                return Ok(ExitCode::SUCCESS);
            }
            Action::Show { name } => {
                show(&name, &read(&hub).await?, output)?;
                return Ok(ExitCode::SUCCESS);
            }
            Action::Create { name, permissions } => {
                let done = format!("Policy {name} is there; `dunlin policy show {name}` shows its keys.");
                let rights = permissions;
                (AdminRequest::CreatePolicy { name, rights }, done)
            }
            Action::RenewKey { name, key } => {
                let done = format!("Policy {name} has other keys; `dunlin policy show {name}` shows them.");
                (AdminRequest::RenewPolicyKey { name, key }, done)
            }
            Action::Delete { name } => {
                let done = format!("Policy {name} is gone.");
                (AdminRequest::RemovePolicy { name }, done)
            }
        };
        let answer = ask(&hub, &request).await?;
        match output {
            Format::Text => say(done)?,
            Format::Json => say(answer)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn ask(hub: &Hub, request: &AdminRequest) -> Result<Value, CommandError> {
    let request = serde_json::to_value(request)
        .map_err(|error| CommandError::Failed(format!("write request: {error}")))?;
    let call = Call::new(Method::POST, &["cluster", "admin"]).json(request);
    Ok(progress::waiting("asking the hub", hub.call_json(&call)).await?)
}

async fn read(hub: &Hub) -> Result<BTreeMap<String, PolicyLine>, CommandError> {
    let answer = ask(hub, &AdminRequest::Policies).await?;
    serde_json::from_value(answer).map_err(|error| CommandError::Failed(format!("read policies: {error}")))
}

fn list(policies: &BTreeMap<String, PolicyLine>, output: Format) -> std::io::Result<()> {
    if output == Format::Json {
        let rights = policies.iter().map(|(name, line)| (name, &line.rights));
        return say(json!(rights.collect::<BTreeMap<_, _>>()));
    }
    let mut table = Table::new(["POLICY", "GRANTS"]);
    for (name, line) in policies {
        table.push([shown(name), grants(line)]);
    }
    say(table)
}

fn show(name: &str, policies: &BTreeMap<String, PolicyLine>, output: Format) -> Result<(), CommandError> {
    let line = policies
        .get(name)
        .ok_or_else(|| CommandError::Failed(format!("there is no policy {name}")))?;
    match output {
        Format::Json => say(json!(line))?,
        Format::Text => {
            let mut table = Table::new(["POLICY", "GRANTS", "PRIMARY KEY", "SECONDARY KEY"]);
            let keys = (line.keys.primary.clone(), line.keys.secondary.clone());
            table.push([shown(name), grants(line), keys.0, keys.1]);
            say(table)?;
        }
    }
    Ok(())
}

fn grants(line: &PolicyLine) -> String {
    let names: Vec<String> = line.rights.iter().map(|right| format!("{right:?}")).collect();
    names.join(", ")
}
