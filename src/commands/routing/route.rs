//! `dunlin message-route`: which events go to which endpoints.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use dunlin_model::routing::{BUILT_IN, EventSource};
use reqwest::Method;
use serde_json::{Value, json};

use super::{change, check_new, list, names, read, remove};
use crate::commands::hub::{Call, Hub, HubArgs};
use crate::commands::send::parse_property;
use crate::commands::table::Table;
use crate::commands::{CommandError, CommandResult, Format, progress, say, shown};

#[derive(Args)]
pub(crate) struct MessageRoute {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    hub: HubArgs,
}

/// Whose events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Source {
    /// What devices and modules send
    DeviceMessages,
    /// Changes of twins
    TwinChangeEvents,
    /// Devices and modules that are created or deleted
    DeviceLifecycleEvents,
    /// Sessions that begin and end
    DeviceConnectionStateEvents,
}

impl Source {
    /// As routes name it.
    fn named(self) -> EventSource {
        match self {
            Source::DeviceMessages => EventSource::DeviceMessages,
            Source::TwinChangeEvents => EventSource::TwinChangeEvents,
            Source::DeviceLifecycleEvents => EventSource::DeviceLifecycleEvents,
            Source::DeviceConnectionStateEvents => EventSource::DeviceConnectionStateEvents,
        }
    }
}

#[derive(Subcommand)]
enum Action {
    /// Make a route
    Create {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        /// Whose events it looks at
        #[arg(long, value_name = "SOURCE", ignore_case = true)]
        source: Source,
        /// Which of them it takes, e.g. "$body.temperature > 30 AND level = 'hot'"; all of them unless said
        #[arg(long, value_name = "CONDITION", default_value = "true")]
        condition: String,
        /// Where to; `events` is the endpoint that every hub has; may be given more than once
        #[arg(long = "endpoint", value_name = "NAME", default_value = BUILT_IN)]
        endpoints: Vec<String>,
        /// Make it, but do not let it take anything yet
        #[arg(long)]
        disabled: bool,
    },
    /// Change what is given and leave the rest
    Update {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        /// Which events it takes
        #[arg(long, value_name = "CONDITION")]
        condition: Option<String>,
        /// Where to; may be given more than once
        #[arg(long = "endpoint", value_name = "NAME")]
        endpoints: Vec<String>,
        /// Whether it takes anything
        #[arg(long, value_name = "true|false")]
        enabled: Option<bool>,
    },
    /// Delete a route
    Delete {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// List all, the fallback among them
    List,
    /// Whether messages of devices that no route takes go to `events`
    Fallback {
        /// Whether they do
        #[arg(value_name = "on|off", value_parser = ["on", "off"])]
        state: String,
    },
    /// Try where a message would go
    Test {
        /// Whose event it would be
        #[arg(
            long,
            value_name = "SOURCE",
            ignore_case = true,
            default_value = "device-messages"
        )]
        source: Source,
        /// Its body, JSON
        #[arg(long, value_name = "JSON")]
        body: Option<String>,
        /// A property; may be given more than once
        #[arg(long = "property", value_name = "KEY=VALUE", value_parser = parse_property)]
        properties: Vec<(String, String)>,
        /// The device whose twin conditions look at
        #[arg(long, value_name = "ID")]
        device: Option<String>,
        /// Rather whether this condition would take it
        #[arg(long, value_name = "CONDITION")]
        condition: Option<String>,
    },
}

impl MessageRoute {
    pub(crate) async fn run(self) -> CommandResult {
        let hub = Hub::find(&self.hub)?;
        let output = self.hub.output;
        let (routing, done) = match self.action {
            Action::Create {
                name,
                source,
                condition,
                endpoints,
                disabled,
            } => {
                let route = json!({
                    "name": name, "source": source.named(), "condition": condition,
                    "endpointNames": endpoints, "isEnabled": !disabled,
                });
                let changed = change(&hub, |routing| {
                    let routes = list(routing, "routes")?;
                    check_new(routes, "name", &name, "a route")?;
                    routes.push(route);
                    Ok(())
                });
                (
                    changed.await?,
                    format!("Created route {name} to {}.", endpoints.join(", ")),
                )
            }
            Action::Update {
                name,
                condition,
                endpoints,
                enabled,
            } => {
                let changed = change(&hub, |routing| {
                    let routes = list(routing, "routes")?;
                    let route = routes.iter_mut().find(|route| route["name"] == *name);
                    let route =
                        route.ok_or_else(|| CommandError::Failed(format!("there is no route {name}")))?;
                    if let Some(condition) = condition {
                        route["condition"] = condition.into();
                    }
                    if !endpoints.is_empty() {
                        route["endpointNames"] = endpoints.into();
                    }
                    if let Some(enabled) = enabled {
                        route["isEnabled"] = enabled.into();
                    }
                    Ok(())
                });
                (changed.await?, format!("Changed route {name}."))
            }
            Action::Delete { name } => {
                let changed = change(&hub, |routing| {
                    remove(list(routing, "routes")?, "name", &name, "route")
                });
                (changed.await?, format!("Deleted route {name}."))
            }
            Action::Fallback { state } => {
                let changed = change(&hub, |routing| {
                    routing["fallbackRoute"]["isEnabled"] = (state == "on").into();
                    Ok(())
                });
                (changed.await?, format!("The fallback is {state}."))
            }
            Action::List => {
                let routing = progress::waiting("asking the hub", read(&hub)).await?;
                match output {
                    Format::Json => say(&routing["routes"])?,
                    Format::Text => say(table(&routing))?,
                }
                return Ok(ExitCode::SUCCESS);
            }
            Action::Test {
                source,
                body,
                properties,
                device,
                condition,
            } => {
                let properties: serde_json::Map<String, Value> = properties
                    .into_iter()
                    .map(|(key, value)| (key, value.into()))
                    .collect();
                let mut message = json!({ "appProperties": properties });
                if let Some(text) = body {
                    message["body"] = serde_json::from_str(&text)
                        .map_err(|error| CommandError::Usage(format!("the body is not JSON: {error}")))?;
                }
                let mut trial = json!({ "source": source.named(), "message": message });
                for (name, value) in [("deviceId", device), ("condition", condition)] {
                    if let Some(value) = value {
                        trial[name] = value.into();
                    }
                }
                let call = Call::new(Method::POST, &["routing", "test"]).json(trial);
                let found = progress::waiting("asking the hub", hub.call_json(&call)).await?;
                match output {
                    Format::Json => say(found)?,
                    Format::Text => say(tried(&found))?,
                }
                return Ok(ExitCode::SUCCESS);
            }
        };
        match output {
            Format::Json => say(&routing["routes"])?,
            Format::Text => say(done)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// What came of a trial.
fn tried(found: &Value) -> String {
    match found["result"].as_bool() {
        Some(true) => "The condition takes it.".to_owned(),
        Some(false) => "The condition does not take it.".to_owned(),
        None => {
            let (routes, endpoints) = (names(&found["routes"]), names(&found["endpointNames"]));
            match (routes.is_empty(), endpoints.is_empty()) {
                (_, true) => "No route takes it, and the fallback does not either.".to_owned(),
                (true, false) => format!("No route takes it; it goes to {endpoints}."),
                (false, false) => format!("Taken by {routes}; it goes to {endpoints}."),
            }
        }
    }
}

fn table(routing: &Value) -> String {
    let mut table = Table::new(["ROUTE", "SOURCE", "ENABLED", "ENDPOINTS", "CONDITION"]);
    let all = routing["routes"].as_array().into_iter().flatten();
    for route in all.chain(std::iter::once(&routing["fallbackRoute"])) {
        let word = |name: &str| shown(route[name].as_str().unwrap_or_default());
        let enabled = if route["isEnabled"] == true { "yes" } else { "no" };
        let endpoints = shown(&names(&route["endpointNames"]));
        table.push([
            word("name"),
            word("source"),
            enabled.to_owned(),
            endpoints,
            word("condition"),
        ]);
    }
    table.to_string()
}
