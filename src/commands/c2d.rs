//! `dunlin c2d`: messages to devices, which wait for them, and those that became dead letters.

use std::process::ExitCode;

use clap::{Args, Subcommand, ValueEnum};
use dunlin_model::id::DeviceId;
use dunlin_model::iso_time::iso_utc;
use reqwest::Method;
use serde_json::Value;

use super::device::{confirmed, explained};
use super::hub::{Call, Hub, HubArgs, HubError, root_cause};
use super::named::OneDevice;
use super::send::Properties;
use super::table::Table;
use super::{CommandError, CommandResult, Format, progress, say, shown};

#[derive(Args)]
pub(crate) struct C2d {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Subcommand)]
enum Action {
    /// Put a message into the queue of a device; it is on disk on a majority then
    Send(Send),
    /// Empty the queue of a device
    Purge {
        #[command(flatten)]
        device: OneDevice,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// List the messages that a device did not take; show one, send it again or forget it
    DeadLetters(DeadLetters),
}

#[derive(Args)]
struct Send {
    #[command(flatten)]
    device: OneDevice,
    /// What the message carries
    #[arg(long, alias = "da", value_name = "TEXT")]
    body: String,
    #[command(flatten)]
    properties: Properties,
    /// Its id, for feedback; the hub draws one otherwise
    #[arg(long, alias = "mid", value_name = "TEXT")]
    message_id: Option<String>,
    /// What kind of content it has, e.g. application/json
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    /// When its time is over, e.g. 2030-01-01T00:00:00Z, or in milliseconds since 1970; an hour from now otherwise
    #[arg(long, visible_alias = "expiry-time-utc", value_name = "TIME", value_parser = parse_expiry)]
    expiry: Option<String>,
    /// Which end to hear of with `dunlin monitor feedback`
    #[arg(long, value_enum, default_value_t = Ack::None)]
    ack: Ack,
}

/// A time as the hub reads it. Milliseconds since 1970, which `az iot` gives, are written as a date.
fn parse_expiry(text: &str) -> Result<String, String> {
    if text.is_empty() || text.bytes().any(|byte| !byte.is_ascii_digit()) {
        return Ok(text.to_owned());
    }
    let time_ms = text.parse::<u64>().map_err(|error| format!("no time: {error}"))?;
    Ok(iso_utc(time_ms))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Ack {
    /// Of none
    None,
    /// That the device took it
    Positive,
    /// That it did not
    Negative,
    /// Of either
    Full,
}

#[derive(Args)]
struct DeadLetters {
    #[command(flatten)]
    device: OneDevice,
    /// Print what this one carries
    #[arg(long, value_name = "NUMBER", group = "deed")]
    show: Option<u64>,
    /// Put this one at the end of the queue
    #[arg(long, value_name = "NUMBER", group = "deed")]
    resubmit: Option<u64>,
    /// Forget this one
    #[arg(long, value_name = "NUMBER", group = "deed")]
    drop: Option<u64>,
}

impl C2d {
    pub(crate) async fn run(self) -> CommandResult {
        let hub = Hub::find(&self.hub)?;
        let output = self.hub.output;
        match self.action {
            Action::Send(send) => send.run(&hub, output).await?,
            Action::Purge { device, yes } => purge(&hub, device.id(), yes, output).await?,
            Action::DeadLetters(letters) => letters.run(&hub, output).await?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl Send {
    async fn run(self, hub: &Hub, output: Format) -> Result<(), CommandError> {
        let id = self.device.id();
        let path = ["devices", id.as_str(), "messages", "devicebound"];
        let mut call = Call::new(Method::POST, &path).text(self.body);
        for (name, value) in [
            ("iothub-messageid", self.message_id),
            ("iothub-contenttype", self.content_type),
            ("iothub-expiry", self.expiry),
        ] {
            if let Some(value) = value {
                call = call.header(name, value);
            }
        }
        if let Some(ack) = self.ack.to_possible_value().filter(|_| self.ack != Ack::None) {
            call = call.header("iothub-ack", ack.get_name());
        }
        for (key, value) in self.properties.pairs() {
            call = call.header(format!("iothub-app-{key}"), value);
        }
        let sent = progress::waiting("sending", hub.call_json(&call)).await;
        let sent = sent.map_err(|error| explained(error, id))?;
        match output {
            Format::Json => say(sent)?,
            Format::Text => say(format!(
                "Queued: message {} is number {} of {id}.",
                shown(sent["messageId"].as_str().unwrap_or_default()),
                sent["sequenceNumber"]
            ))?,
        }
        Ok(())
    }
}

async fn purge(hub: &Hub, id: &DeviceId, yes: bool, output: Format) -> Result<(), CommandError> {
    if !yes && !confirmed(&format!("Empty the queue of {id}?"))? {
        return Err(CommandError::Failed("nothing was removed".into()));
    }
    let path = ["devices", id.as_str(), "commands"];
    let purged = hub.call_json(&Call::new(Method::DELETE, &path)).await;
    let purged = purged.map_err(|error| explained(error, id))?;
    match output {
        Format::Json => say(purged)?,
        Format::Text => say(format!("Messages removed: {}.", purged["totalMessagesPurged"]))?,
    }
    Ok(())
}

impl DeadLetters {
    async fn run(self, hub: &Hub, output: Format) -> Result<(), CommandError> {
        let number = self.show.or(self.resubmit).or(self.drop);
        let number = number.map(|number| number.to_string());
        let id = self.device.id();
        let collection = ["devices", id.as_str(), "messages", "deadletters"];
        let path: Vec<&str> = collection.into_iter().chain(number.as_deref()).collect();
        let understood = |error: HubError| match error.code() {
            "NotFound" => CommandError::Failed(format!("{id} has no such dead letter")),
            _ => explained(error, id),
        };
        if self.show.is_some() {
            let response = hub.call(&Call::get(&path)).await.map_err(understood)?;
            let body = response.text().await;
            let body = body.map_err(|error| HubError::Answer(root_cause(&error)))?;
            say(shown(&body))?;
        } else if self.resubmit.is_some() {
            let path = [&path[..], &["resubmit"]].concat();
            let call = Call::new(Method::POST, &path);
            let sent = hub.call_json(&call).await.map_err(understood)?;
            match output {
                Format::Json => say(sent)?,
                Format::Text => say(format!("Queued again, as number {}.", sent["sequenceNumber"]))?,
            }
        } else if self.drop.is_some() {
            let call = Call::new(Method::DELETE, &path);
            hub.call(&call).await.map_err(understood)?;
            if output == Format::Text {
                say("Forgotten.")?;
            }
        } else {
            let letters = hub.call_json(&Call::get(&path)).await.map_err(understood)?;
            match output {
                Format::Json => say(letters)?,
                Format::Text => say(table(&letters))?,
            }
        }
        Ok(())
    }
}

fn table(letters: &Value) -> String {
    let letters = letters.as_array().map(Vec::as_slice).unwrap_or_default();
    if letters.is_empty() {
        return "No dead letters.".to_owned();
    }
    let mut table = Table::new(["NUMBER", "MESSAGE", "REASON", "SINCE", "DELIVERIES", "BYTES"]);
    for letter in letters {
        let text = |name: &str| shown(letter[name].as_str().unwrap_or_default());
        table.push([
            letter["sequenceNumber"].to_string(),
            text("messageId"),
            text("reason"),
            text("deadLetteredTimeUtc"),
            letter["deliveryCount"].to_string(),
            letter["sizeInBytes"].to_string(),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use serde_json::json;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        c2d: C2d,
    }

    fn send(line: &str) -> Send {
        let line = Line::try_parse_from(line.split_whitespace()).unwrap();
        match line.c2d.action {
            Action::Send(send) => send,
            _ => panic!("another command"),
        }
    }

    #[test]
    fn the_words_of_az_iot_say_the_same() {
        let ours = "c2d send pump --body on --property a=b --property c=d --message-id m --ack full --expiry 2030-01-01T00:00:00.000Z";
        let theirs =
            "c2d send -d pump --da on --props a=b;c=d --mid m --ack full --expiry-time-utc 1893456000000";
        for line in [ours, theirs] {
            let send = send(line);
            assert_eq!(send.device.id().as_str(), "pump");
            assert_eq!((send.body.as_str(), send.ack), ("on", Ack::Full));
            let pairs: Vec<(&str, &str)> = send.properties.pairs().collect();
            assert_eq!(pairs, [("a", "b"), ("c", "d")]);
            assert_eq!(send.message_id.as_deref(), Some("m"));
            assert_eq!(send.expiry.as_deref(), Some("2030-01-01T00:00:00.000Z"));
        }
        assert!(parse_expiry("99999999999999999999").is_err());
    }

    #[test]
    fn dead_letters_are_a_table() {
        assert_eq!(table(&json!([])), "No dead letters.");
        let letters = json!([{
            "sequenceNumber": 7, "messageId": "m\u{1b}", "reason": "Expired",
            "deadLetteredTimeUtc": "2026-01-01T00:00:00.000Z", "deliveryCount": 0, "sizeInBytes": 12,
        }]);
        let expected = "NUMBER  MESSAGE  REASON   SINCE                     DELIVERIES  BYTES\n\
                        7       m\\u{1b}  Expired  2026-01-01T00:00:00.000Z  0           12";
        assert_eq!(table(&letters), expected);
    }
}
