//! `dunlin quota`: what the hub is held to, and how much of it is used.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use reqwest::Method;
use serde_json::{Value, json};

use super::hub::{Call, Hub, HubArgs};
use super::table::Table;
use super::{CommandResult, Format, progress, say, shown};

#[derive(Args)]
pub(crate) struct Quota {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Subcommand)]
enum Action {
    /// Show the plan, the messages of this day (UTC), and the rates
    Show,
    /// Hold the hub to a plan of IoT Hub; devices stay connected
    Set {
        /// What a unit is
        #[arg(long, value_enum, ignore_case = true)]
        sku: Sku,
        /// How many units
        #[arg(long, value_name = "N", default_value_t = 1)]
        unit: u32,
    },
    /// Hold the hub to nothing
    Off,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Sku {
    #[value(name = "F1")]
    F1,
    #[value(name = "S1")]
    S1,
    #[value(name = "S2")]
    S2,
    #[value(name = "S3")]
    S3,
}

impl Quota {
    pub(crate) async fn run(self) -> CommandResult {
        let hub = Hub::find(&self.hub)?;
        let put = |sku: Value| Call::new(Method::PUT, &["quota"]).json(json!({ "sku": sku }));
        let (call, doing) = match self.action {
            Action::Show => (Call::get(&["quota"]), "asking the hub"),
            Action::Set { sku, unit } => {
                let name = format!("{sku:?}");
                (put(json!({ "name": name, "capacity": unit })), "changing")
            }
            Action::Off => (put(Value::Null), "changing"),
        };
        let quota: Value = progress::waiting(doing, hub.call_json(&call)).await?;
        match self.hub.output {
            Format::Json => say(&quota)?,
            Format::Text => say(text(&quota))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn text(quota: &Value) -> String {
    let Some(name) = quota["sku"]["name"].as_str() else {
        return "The hub has no plan: nothing is counted, and nothing refused.".to_owned();
    };
    let number = |of: &Value| of.as_u64().unwrap_or_default();
    let mut lines = vec![format!(
        "{} units of {}",
        number(&quota["sku"]["capacity"]),
        shown(name)
    )];
    for metric in quota["metrics"].as_array().into_iter().flatten() {
        let (used, max) = (number(&metric["currentValue"]), number(&metric["maxValue"]));
        lines.push(format!("{used} of {max} messages used today (UTC)"));
    }
    let mut table = Table::new(["OPERATION", "AT MOST", "IN"]);
    for rate in quota["rates"].as_array().into_iter().flatten() {
        let seconds = number(&rate["perSeconds"]);
        table.push([
            shown(rate["operation"].as_str().unwrap_or_default()),
            number(&rate["count"]).to_string(),
            format!("{seconds} s"),
        ]);
    }
    lines.push(table.to_string());
    lines.join("\n")
}
