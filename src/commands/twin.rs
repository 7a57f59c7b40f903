//! `dunlin twin`: what a hub and a device keep for each other.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::device::explained;
use super::hub::{Call, Hub, HubArgs};
use super::named::OneIdentity;
use super::renew::path_in;
use super::{CommandResult, Format, progress, say, shown};

#[derive(Args)]
pub(crate) struct Twin {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Subcommand)]
enum Action {
    /// Show a twin
    Show {
        #[command(flatten)]
        identity: OneIdentity,
    },
    /// Merge into a twin: what is named changes, null removes, the rest stays
    Update(Change),
    /// Put sections in place of those there are
    Replace(Change),
}

#[derive(Args)]
struct Change {
    #[command(flatten)]
    identity: OneIdentity,
    /// What is wanted of the device: a JSON object, or a file with one
    #[arg(long, value_name = "JSON", value_parser = parse_object, required_unless_present = "tags")]
    desired: Option<Map<String, Value>>,
    /// What services note about it: a JSON object, or a file with one
    #[arg(long, value_name = "JSON", value_parser = parse_object)]
    tags: Option<Map<String, Value>>,
    /// Only if the twin has this ETag
    #[arg(long, value_name = "ETAG")]
    etag: Option<String>,
}

/// An object, from the text itself or from the file that it names.
pub(crate) fn parse_object(text: &str) -> Result<Map<String, Value>, String> {
    let read = |text: &str| serde_json::from_str(text).map_err(|error| format!("no JSON object: {error}"));
    if text.trim_start().starts_with('{') {
        return read(text);
    }
    let content = std::fs::read_to_string(text).map_err(|error| format!("read {text}: {error}"))?;
    read(&content)
}

impl Twin {
    pub(crate) async fn run(self) -> CommandResult {
        let hub = Hub::find(&self.hub)?;
        let output = self.hub.output;
        let (id, twin) = match &self.action {
            Action::Show { identity } => {
                let path = path_in("twins", identity.id());
                (identity.id(), hub.call_json(&Call::get(&path)).await)
            }
            Action::Update(change) => (change.identity.id(), write(&hub, Method::PATCH, change).await),
            Action::Replace(change) => (change.identity.id(), write(&hub, Method::PUT, change).await),
        };
        let twin = twin.map_err(|error| explained(error, id))?;
        match output {
            Format::Json => say(twin)?,
            Format::Text => say(text(&twin))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn write(hub: &Hub, method: Method, change: &Change) -> Result<Value, super::HubError> {
    let mut body = json!({});
    if let Some(tags) = &change.tags {
        body["tags"] = tags.clone().into();
    }
    if let Some(desired) = &change.desired {
        body["properties"] = json!({ "desired": desired });
    }
    let path = path_in("twins", change.identity.id());
    let mut call = Call::new(method, &path).json(body);
    if let Some(etag) = &change.etag {
        call = call.header("if-match", format!("\"{}\"", etag.trim_matches('"')));
    }
    progress::waiting("changing the twin", hub.call_json(&call)).await
}

/// A twin for people: without the metadata, which `-o json` has.
fn text(twin: &Value) -> String {
    let section = |value: &Value| {
        let mut value = value.clone();
        if let Value::Object(content) = &mut value {
            content.remove("$metadata");
        }
        let text = serde_json::to_string_pretty(&value).unwrap_or_default();
        // Line ends are of the printing; others in names and values are escaped already.
        text.lines().map(shown).collect::<Vec<_>>().join("\n")
    };
    let word = |name: &str| shown(twin[name].as_str().unwrap_or_default());
    format!(
        "device      {}\nconnection  {}\nversion     {}\netag        {}\n\ntags {}\n\ndesired {}\n\nreported {}",
        word("deviceId"),
        word("connectionState").to_lowercase(),
        twin["version"],
        word("etag"),
        section(&twin["tags"]),
        section(&twin["properties"]["desired"]),
        section(&twin["properties"]["reported"]),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_come_from_the_line_or_from_a_file() {
        assert_eq!(parse_object(" {\"a\": 1}").unwrap()["a"], 1);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "{\"b\": null}").unwrap();
        assert_eq!(
            parse_object(file.path().to_str().unwrap()).unwrap()["b"],
            Value::Null
        );
        for wrong in ["[1]", "{", "/nowhere/at/all"] {
            assert!(parse_object(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_twin_is_shown_without_its_metadata() {
        let twin = json!({
            "deviceId": "d", "connectionState": "Connected", "version": 3, "etag": "AAE=", "tags": {"room": "a\u{1b}"},
            "properties": {"desired": {"a": 1, "$metadata": {"x": 1}}, "reported": {"$version": 1}},
        });
        let text = text(&twin);
        assert!(text.contains("connection  connected") && text.contains("\"a\": 1"));
        assert!(!text.contains("$metadata") && !text.contains('\u{1b}'));
    }
}
