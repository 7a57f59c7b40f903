//! `dunlin device send`: messages over MQTT with QoS 1, and the proof that they are stored.

use std::collections::HashMap;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use dunlin_gateway::bag;
use dunlin_gateway::client::{Client, ClientError, Event};
use dunlin_model::id::DeviceId;
use dunlin_model::limits::MESSAGE_BYTES_MAX;
use indicatif::ProgressBar;
use serde_json::json;
use tokio::time::timeout;

use super::hub::{Connect, Hub};
use super::named::OneDevice;
use super::{CommandError, CommandResult, Format, device, progress, say};

/// Messages that may be unacknowledged.
const WINDOW: usize = 64;
/// Time for one acknowledgement. What was not acknowledged may be stored all the same.
const ACK_WAIT: Duration = Duration::from_secs(30);

#[derive(Args)]
pub(crate) struct Send {
    #[command(flatten)]
    device: OneDevice,
    /// What to send
    #[arg(long, alias = "da", value_name = "TEXT")]
    body: String,
    #[command(flatten)]
    properties: Properties,
    /// How often
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..))]
    count: u64,
}

/// Properties of a message, each by itself or several in one text.
#[derive(Args)]
pub(super) struct Properties {
    /// Property of the message; may be given several times
    #[arg(long = "property", value_name = "KEY=VALUE", value_parser = parse_property)]
    single: Vec<(String, String)>,
    /// Properties of the message, as `az iot` has them: a=b;c=d
    #[arg(short, long, alias = "properties", value_name = "KEY=VALUE;..", value_parser = parse_properties)]
    props: Vec<Pairs>,
}

/// What one text says.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Pairs(Vec<(String, String)>);

impl Properties {
    /// All of them, those that came by themselves first.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        let several = self.props.iter().flat_map(|pairs| &pairs.0);
        let all = self.single.iter().chain(several);
        all.map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

/// A text of which not every part is a property is one property, whose value has a semicolon.
fn parse_properties(text: &str) -> Result<Pairs, String> {
    let parts: Result<Vec<_>, String> = text.split(';').map(parse_property).collect();
    match parts {
        Ok(pairs) => Ok(Pairs(pairs)),
        Err(_) => Ok(Pairs(vec![parse_property(text)?])),
    }
}

pub(super) fn parse_property(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("a property looks like key=value".into()),
    }
}

/// The topic of a device's messages with these properties.
pub(crate) fn topic(id: &DeviceId, properties: &[(&str, &str)]) -> Result<String, bag::BagError> {
    let mut encoded = Vec::new();
    for (key, value) in properties {
        bag::append(&mut encoded, key, value);
    }
    bag::check(&encoded)?;
    Ok(format!(
        "devices/{id}/messages/events/{}",
        String::from_utf8_lossy(&encoded)
    ))
}

/// What a connection that is refused or lost means to people.
pub(crate) fn reason(id: &DeviceId, error: &ClientError) -> String {
    match error {
        ClientError::Refused(0x87) => {
            format!("the hub does not let {id} in: its key or its status has changed")
        }
        ClientError::Refused(0x88) => {
            "the hub cannot let devices in just now; `dunlin health` may say why".to_owned()
        }
        other => other.to_string(),
    }
}

/// What the hub's reason for ending a connection means to people.
pub(crate) fn end_reason(code: Option<u8>) -> String {
    match code {
        None => "the connection was closed".to_owned(),
        Some(0x87) => "the device was disabled or deleted, or its key has changed".to_owned(),
        Some(0x89) => "the cluster could not take it just now".to_owned(),
        Some(0x8B) => "the node is stopping".to_owned(),
        Some(0x8E) => {
            "another client has connected as this device, or the hub had to close its session".to_owned()
        }
        Some(0x90) => "the topic is not the device's own".to_owned(),
        Some(0x95) => "the message is too large".to_owned(),
        Some(0x97) => "a limit of the hub is reached: too many properties, or its storage is full".to_owned(),
        Some(code) => format!("the hub ended the connection with reason {code:#04x}"),
    }
}

impl Send {
    pub(crate) async fn run(self, hub: &Hub, output: Format) -> CommandResult {
        let properties: Vec<(&str, &str)> = self.properties.pairs().collect();
        let topic =
            topic(self.device.id(), &properties).map_err(|error| CommandError::Usage(error.to_string()))?;
        if self.body.len() > MESSAGE_BYTES_MAX {
            return Err(CommandError::Usage(format!(
                "--body has more than {MESSAGE_BYTES_MAX} bytes"
            )));
        }
        let bar = progress::bar("sending", self.count);
        let stored = progress::during(&bar, self.send(hub, &topic, &bar, output)).await?;
        if output == Format::Text && self.count > 1 {
            say(format!(
                "Stored {} messages; the last one is {}.",
                self.count,
                place(&stored)
            ))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    /// Sends all, and returns the last receipt.
    async fn send(
        &self,
        hub: &Hub,
        topic: &str,
        bar: &ProgressBar,
        output: Format,
    ) -> Result<String, CommandError> {
        let mut client = self.connect(hub).await?;
        let mut numbers: HashMap<u16, u64> = HashMap::new();
        let (mut sent, mut stored, mut last) = (0, 0, String::new());
        while stored < self.count {
            while sent < self.count && numbers.len() < WINDOW {
                let id = client.publish(topic, self.body.as_bytes()).await;
                let id = id.map_err(|error| self.unfinished(stored, error.to_string()))?;
                sent += 1;
                numbers.insert(id, sent);
            }
            let event = timeout(ACK_WAIT, client.next_event()).await;
            match event.map_err(|_| self.unfinished(stored, "no acknowledgement in time".into()))? {
                Event::Puback { id, receipt } => {
                    let number = numbers.remove(&id).unwrap_or_default();
                    let no_receipt = || self.unfinished(stored, "it acknowledges without a receipt".into());
                    last = receipt.ok_or_else(no_receipt)?;
                    stored += 1;
                    bar.inc(1);
                    match output {
                        Format::Json => bar.suspend(|| say(json_receipt(number, &last)))?,
                        Format::Text if self.count == 1 => {
                            bar.suspend(|| say(format!("Stored: {}.", place(&last))))?
                        }
                        Format::Text => {}
                    }
                }
                Event::Refused { reason, .. } => {
                    return Err(self.unfinished(stored, end_reason(Some(reason))));
                }
                Event::Disconnected { reason } => return Err(self.unfinished(stored, end_reason(reason))),
                _ => {}
            }
        }
        client.disconnect().await;
        Ok(last)
    }

    async fn connect(&self, hub: &Hub) -> Result<Client, CommandError> {
        let id = self.device.id();
        let found = device::find(hub, id).await?;
        if !found.is_enabled() {
            return Err(CommandError::Failed(format!("device {id} is disabled")));
        }
        if found.key().is_empty() {
            return Err(CommandError::Failed(format!(
                "device {id} proves itself with a certificate, and this command has none"
            )));
        }
        let mut problem = String::new();
        for attempt in 0..hub.doors().len() {
            let how = Connect {
                attempt,
                window: WINDOW,
                receipts: true,
            };
            match hub.connect(id, found.key(), how).await {
                Ok(client) => return Ok(client),
                Err(error) => problem = reason(id, &error),
            }
        }
        Err(CommandError::Failed(format!("connect as {id}: {problem}")))
    }

    fn unfinished(&self, stored: u64, why: String) -> CommandError {
        CommandError::Failed(format!(
            "{why}; {stored} of {} messages are known to be stored, what was under way may be",
            self.count
        ))
    }
}

/// A receipt in words.
fn place(receipt: &str) -> String {
    let mut parts = receipt.split('/');
    match (parts.next(), parts.next(), parts.next()) {
        (Some(shard), Some(offset), Some(term)) => format!("shard {shard}, offset {offset}, term {term}"),
        _ => super::shown(receipt),
    }
}

fn json_receipt(number: u64, receipt: &str) -> serde_json::Value {
    let parts: Vec<Option<u64>> = receipt.split('/').map(|part| part.parse().ok()).collect();
    let part = |place: usize| parts.get(place).copied().flatten();
    json!({ "message": number, "receipt": receipt, "shard": part(0), "offset": part(1), "term": part(2) })
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[test]
    fn topics_carry_their_properties() {
        let id = DeviceId::parse("d").unwrap();
        assert_eq!(topic(&id, &[]).unwrap(), "devices/d/messages/events/");
        assert_eq!(
            topic(&id, &[("$.ct", "a/b"), ("k", "")]).unwrap(),
            "devices/d/messages/events/%24.ct=a%2Fb&k="
        );
        assert!(topic(&id, &[("k", "v"); 101]).is_err());
        assert_eq!(parse_property("k=a=b"), Ok(("k".into(), "a=b".into())));
        assert!(parse_property("k").is_err() && parse_property("=v").is_err());
    }

    #[test]
    fn one_text_has_several_properties_if_each_part_is_one() {
        let read = |text: &str| parse_properties(text).unwrap().0;
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(read("a=b"), [pair("a", "b")]);
        assert_eq!(read("a=b;c=d=e"), [pair("a", "b"), pair("c", "d=e")]);
        assert_eq!(read("a=b;c"), [pair("a", "b;c")]);
        assert!(parse_properties("a").is_err() && parse_properties("").is_err());
    }

    #[test]
    fn properties_are_given_by_themselves_or_together() {
        #[derive(Parser)]
        struct Line {
            #[command(flatten)]
            properties: Properties,
        }
        let line = "x -p a=1;b=2 --property c=3;d=4 --props e=5 --properties f=6";
        let line = Line::try_parse_from(line.split_whitespace()).unwrap();
        let pairs: Vec<(&str, &str)> = line.properties.pairs().collect();
        let several = [("a", "1"), ("b", "2"), ("e", "5"), ("f", "6")];
        assert_eq!((pairs[0], &pairs[1..]), (("c", "3;d=4"), &several[..]));
    }

    #[test]
    fn receipts_are_told() {
        assert_eq!(place("3/17/2"), "shard 3, offset 17, term 2");
        assert_eq!(place("?"), "?");
        let json = json_receipt(1, "3/17/2");
        assert_eq!(
            (
                json["shard"].as_u64(),
                json["offset"].as_u64(),
                json["term"].as_u64()
            ),
            (Some(3), Some(17), Some(2))
        );
    }
}
