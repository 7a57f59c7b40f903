//! `dunlin method`: asks a device that is connected, once.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use dunlin_model::id::DeviceId;
use serde_json::{Value, json};

use super::device::{explained, parse_identity};
use super::hub::{Call, Hub, HubArgs};
use super::renew::path_in;
use super::{CommandResult, Format, progress, say, shown};

/// What an answer may take beyond the times that were given for it.
const ANSWER_WAIT: Duration = Duration::from_secs(15);

#[derive(Args)]
pub(crate) struct Method {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Subcommand)]
enum Action {
    /// Call a method of a device, and print its answer; exit code 1 if there is none
    Invoke {
        /// Name of the device, or DEVICE/MODULE
        #[arg(value_name = "ID", value_parser = parse_identity)]
        id: DeviceId,
        /// Name of the method
        #[arg(value_name = "METHOD")]
        name: String,
        /// What goes with it
        #[arg(long, value_name = "JSON", default_value = "null", value_parser = parse_json)]
        payload: Value,
        /// Seconds that the device has to answer
        #[arg(long, value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(5..=300))]
        timeout: u64,
        /// Seconds to wait for a device that is not connected
        #[arg(long, value_name = "S", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=300))]
        connect_timeout: u64,
    },
}

pub(crate) fn parse_json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))
}

impl Method {
    pub(crate) async fn run(self) -> CommandResult {
        let hub = Hub::find(&self.hub)?;
        let Action::Invoke {
            id,
            name,
            payload,
            timeout,
            connect_timeout,
        } = self.action;
        let path = [&path_in("twins", &id)[..], &["methods"]].concat();
        let body = json!({
            "methodName": name,
            "payload": payload,
            "responseTimeoutInSeconds": timeout,
            "connectTimeoutInSeconds": connect_timeout,
        });
        let wait = Duration::from_secs(timeout + connect_timeout) + ANSWER_WAIT;
        let call = Call::new(reqwest::Method::POST, &path).json(body).within(wait);
        let answer = progress::waiting("asking the device", hub.call_json(&call)).await;
        let answer = answer.map_err(|error| explained(error, &id))?;
        match self.hub.output {
            Format::Json => say(answer)?,
            Format::Text => say(format!(
                "status   {}\npayload  {}",
                answer["status"],
                shown(&answer["payload"].to_string())
            ))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}
