//! `dunlin connection-string` and `dunlin sas`: what services and devices are given to show who they are.

use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::{Args, Subcommand};
use dunlin_gateway::auth::{self, ConnectionString};
use dunlin_model::id::DeviceId;
use reqwest::Method;
use serde_json::{Value, json};

use super::device::{find, parse_id};
use super::hub::{Call, Hub, HubArgs};
use super::{CommandError, CommandResult, Format, progress, say};

/// Seconds that a token is good for, unless told otherwise.
const TOKEN_LIFE_S_DEFAULT: u64 = 3_600;

/// A shared access policy.
#[derive(Args)]
struct PolicyName {
    /// The policy; `provisioningserviceowner` is that of the provisioning service
    #[arg(
        long,
        visible_alias = "policy-name",
        alias = "pn",
        value_name = "NAME",
        default_value = "iothubowner"
    )]
    policy: String,
}

#[derive(Args)]
pub(crate) struct ConnectionStrings {
    #[command(subcommand)]
    action: StringAction,
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Subcommand)]
enum StringAction {
    /// Print the connection string of a shared access policy, for services
    Show {
        #[command(flatten)]
        policy: PolicyName,
        /// In the form that clients of Event Hubs and Kafka read
        #[arg(long)]
        event_hub: bool,
        /// With its second key
        #[arg(long)]
        secondary: bool,
    },
}

#[derive(Args)]
pub(crate) struct Sas {
    #[command(subcommand)]
    action: SasAction,
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Subcommand)]
enum SasAction {
    /// Print a shared access token: of a policy for all of the hub, or of a device
    Generate {
        #[command(flatten)]
        policy: PolicyName,
        /// The device, instead of a policy
        #[arg(
            short,
            long,
            visible_alias = "device-id",
            value_name = "ID",
            value_parser = parse_id,
            conflicts_with = "policy"
        )]
        device: Option<DeviceId>,
        /// Seconds that it is good for
        #[arg(long, alias = "du", value_name = "SECONDS", default_value_t = TOKEN_LIFE_S_DEFAULT)]
        duration: u64,
    },
}

/// A key of a policy.
pub(crate) async fn key(hub: &Hub, policy: &str, is_secondary: bool) -> Result<String, CommandError> {
    let call = Call::new(Method::POST, &["cluster", "admin"]).json(json!({ "op": "policies" }));
    let policies: Value = progress::waiting("asking the hub", hub.call_json(&call)).await?;
    let place = if is_secondary { "secondary" } else { "primary" };
    let key = policies[policy]["keys"][place].as_str();
    key.map(str::to_owned).ok_or_else(|| {
        let names: Vec<&str> = policies
            .as_object()
            .into_iter()
            .flat_map(|policies| policies.keys().map(String::as_str))
            .collect();
        CommandError::Failed(format!(
            "there is no policy {policy}; there are {}",
            names.join(", ")
        ))
    })
}

impl ConnectionStrings {
    pub(crate) async fn run(self) -> CommandResult {
        let hub = Hub::find(&self.hub)?;
        let StringAction::Show {
            policy: PolicyName { policy },
            event_hub,
            secondary,
        } = self.action;
        let key = key(&hub, &policy, secondary).await?;
        let text = if event_hub {
            let host = hub.host_name();
            format!(
                "Endpoint=sb://{host}/;SharedAccessKeyName={policy};SharedAccessKey={key};EntityPath=messages"
            )
        } else {
            let string = ConnectionString {
                host_name: hub.service_host(),
                shared_access_key_name: Some(policy.clone()),
                shared_access_key: key,
                ..ConnectionString::default()
            };
            string.format()
        };
        match self.hub.output {
            Format::Text => say(text)?,
            Format::Json => say(json!({ "policy": policy, "connectionString": text }))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Sas {
    pub(crate) async fn run(self) -> CommandResult {
        let hub = Hub::find(&self.hub)?;
        let SasAction::Generate {
            policy: PolicyName { policy },
            device,
            duration,
        } = self.action;
        let now_s = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs());
        let host = hub.host_name();
        let (resource, key, name) = match &device {
            Some(device) => {
                let found = find(&hub, device).await?;
                (format!("{host}/devices/{device}"), found.key().to_owned(), None)
            }
            None => (
                host.to_owned(),
                key(&hub, &policy, false).await?,
                Some(policy.as_str()),
            ),
        };
        let token = auth::sign(&resource, &key, now_s.saturating_add(duration), name)
            .map_err(|error| CommandError::Failed(error.to_string()))?;
        match self.hub.output {
            Format::Text => say(token)?,
            Format::Json => say(json!({ "sas": token }))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
