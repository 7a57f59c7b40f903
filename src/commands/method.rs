//! `dunlin method`: asks a device that is connected, once.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::device::explained;
use super::hub::{Call, Hub, HubArgs};
use super::named::OneIdentity;
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
        #[command(flatten)]
        identity: OneIdentity,
        #[command(flatten)]
        method: OneMethod,
        /// What goes with it
        #[arg(
            long,
            visible_alias = "method-payload",
            alias = "mp",
            value_name = "JSON",
            default_value = "null",
            value_parser = parse_json
        )]
        payload: Value,
        /// Seconds that the device has to answer
        #[arg(long, alias = "to", value_name = "S", default_value_t = 30, value_parser = clap::value_parser!(u64).range(5..=300))]
        timeout: u64,
        /// Seconds to wait for a device that is not connected
        #[arg(long, value_name = "S", default_value_t = 0, value_parser = clap::value_parser!(u64).range(..=300))]
        connect_timeout: u64,
    },
}

/// Which method. By its place it is named after the device, so with -d it takes --method-name.
#[derive(Args)]
#[group(required = true, multiple = false)]
struct OneMethod {
    /// Name of the method
    #[arg(value_name = "METHOD")]
    method: Option<String>,
    /// The same, as `az iot` has it
    #[arg(long, alias = "mn", value_name = "METHOD")]
    method_name: Option<String>,
}

impl OneMethod {
    fn name(&self) -> &str {
        let name = self.method.as_deref().or(self.method_name.as_deref());
        name.expect("clap wants one of the two")
    }
}

pub(crate) fn parse_json(text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("no JSON: {error}"))
}

impl Method {
    pub(crate) async fn run(self) -> CommandResult {
        let hub = Hub::find(&self.hub)?;
        let Action::Invoke {
            identity,
            method,
            payload,
            timeout,
            connect_timeout,
        } = self.action;
        let id = identity.id();
        let path = [&path_in("twins", id)[..], &["methods"]].concat();
        let body = json!({
            "methodName": method.name(),
            "payload": payload,
            "responseTimeoutInSeconds": timeout,
            "connectTimeoutInSeconds": connect_timeout,
        });
        let wait = Duration::from_secs(timeout + connect_timeout) + ANSWER_WAIT;
        let call = Call::new(reqwest::Method::POST, &path).json(body).within(wait);
        let answer = progress::waiting("asking the device", hub.call_json(&call)).await;
        let answer = answer.map_err(|error| explained(error, id))?;
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

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        method: Method,
    }

    /// Device, method, payload and seconds.
    fn read(line: &str) -> Option<(String, String, Value, u64)> {
        let line = Line::try_parse_from(line.split_whitespace()).ok()?;
        let Action::Invoke {
            identity,
            method,
            payload,
            timeout,
            ..
        } = line.method.action;
        let (id, name) = (identity.id().to_string(), method.name().to_owned());
        Some((id, name, payload, timeout))
    }

    #[test]
    fn the_words_of_az_iot_say_the_same() {
        let wanted = ("pump".to_owned(), "stop".to_owned(), json!({ "in": 5 }), 7);
        for line in [
            "method invoke pump stop --payload {\"in\":5} --timeout 7",
            "method invoke -d pump --method-name stop --method-payload {\"in\":5} --timeout 7",
            "method invoke --device-id pump --mn stop --mp {\"in\":5} --to 7",
            "method invoke pump --mn stop --payload {\"in\":5} --to 7",
        ] {
            assert_eq!(read(line), Some(wanted.clone()), "{line}");
        }
    }

    #[test]
    fn device_and_method_are_named_once() {
        for line in [
            "method invoke pump",
            "method invoke -d pump",
            "method invoke --mn stop",
            "method invoke -d pump stop",
            "method invoke pump stop -d pump",
            "method invoke pump stop --mn stop",
        ] {
            assert_eq!(read(line), None, "{line}");
        }
    }
}
