//! `dunlin monitor events`: events as they commit, in the order of their shard's log; `dunlin monitor twin-changes`: those
//! of twins alone. `dunlin monitor feedback` and `dunlin monitor file-notifications` are in [`feedback`].
//!
//! After a disconnect it goes on where it was, at another node if need be: nothing is missed and
//! nothing comes twice.

mod feedback;

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use dunlin_model::id::DeviceId;
use dunlin_model::routing::{BUILT_IN, EventSource};
use reqwest::Response;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use super::hub::{Call, Hub, HubArgs, HubError, root_cause};
use super::sse::{SseEvent, SseReader};
use super::{CommandError, CommandResult, Format, progress, say, shown};

/// Silence after which the connection counts as lost; the hub sends a comment every 15 s.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// Whose events `twin-changes` prints.
const TWIN_CHANGES: EventSource = EventSource::TwinChangeEvents;
const RETRY_PAUSE_MIN: Duration = Duration::from_millis(250);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(5);

#[derive(Args)]
pub(crate) struct Monitor {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Print events as they commit
    Events(Events),
    /// Print how twins change
    TwinChanges(Events),
    /// Print how cloud-to-device messages ended, for senders who asked for it
    Feedback(feedback::Feedback),
    /// Print which files devices have uploaded
    FileNotifications(feedback::Feedback),
}

impl Monitor {
    pub(crate) async fn run(self) -> CommandResult {
        match self.what {
            What::Events(events) => events.run().await,
            What::TwinChanges(mut events) => {
                events.source = Some(TWIN_CHANGES.message_source().to_owned());
                events.run().await
            }
            What::Feedback(feedback) => feedback.run(&feedback::FEEDBACK).await,
            What::FileNotifications(feedback) => feedback.run(&feedback::FILES).await,
        }
    }
}

#[derive(Args)]
struct Events {
    /// Events of this device alone
    #[arg(short, long, visible_alias = "device-id", value_name = "ID", value_parser = DeviceId::parse)]
    device: Option<DeviceId>,
    /// Events of this shard alone
    #[arg(long, value_name = "N")]
    shard: Option<u32>,
    /// Events of this source alone, e.g. Telemetry or twinChangeEvents
    #[arg(long, value_name = "SOURCE")]
    source: Option<String>,
    /// Where to begin: beginning, end, an offset of the shard, or a cursor like 0:12,1:7
    #[arg(long, value_name = "PLACE", default_value = "end", value_parser = From::parse)]
    from: From,
    /// Stop after so many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    hub: HubArgs,
}

/// Where to begin.
#[derive(Debug, Clone, PartialEq, Eq)]
enum From {
    Beginning,
    End,
    Offset(u64),
    Cursor(String),
}

impl From {
    fn parse(text: &str) -> Result<From, String> {
        let is_cursor = || {
            text.split(',').all(|part| {
                part.split_once(':').is_some_and(|(shard, place)| {
                    let (offset, epoch) = place.split_once('@').unwrap_or((place, "0"));
                    shard.parse::<u32>().is_ok()
                        && offset.parse::<u64>().is_ok()
                        && epoch.parse::<u64>().is_ok()
                })
            })
        };
        match text {
            "beginning" | "start" => Ok(From::Beginning),
            "end" => Ok(From::End),
            _ => match text.parse() {
                Ok(offset) => Ok(From::Offset(offset)),
                Err(_) if is_cursor() => Ok(From::Cursor(text.to_owned())),
                Err(_) => Err("say beginning, end, an offset, or a cursor like 0:12,1:7".into()),
            },
        }
    }

    /// As the hub wants it.
    fn query(&self) -> String {
        match self {
            From::Beginning => "start".to_owned(),
            From::End => "end".to_owned(),
            From::Offset(offset) => offset.to_string(),
            From::Cursor(cursor) => cursor.clone(),
        }
    }
}

impl Events {
    async fn run(mut self) -> CommandResult {
        match (&self.from, self.shard) {
            (From::Offset(_), None) => {
                return Err(CommandError::Usage(
                    "an offset counts within a shard: say which with --shard".into(),
                ));
            }
            (From::Cursor(_), Some(_)) => {
                return Err(CommandError::Usage(
                    "a cursor is for all shards: leave --shard out, or give an offset".into(),
                ));
            }
            _ => {}
        }
        let hub = Hub::find(&self.hub)?;
        if self.source.as_deref() == Some(TWIN_CHANGES.message_source()) {
            check_routed(&hub).await?;
        }
        let stream = progress::waiting("asking the hub", self.open(&hub, None)).await?;
        if self.hub.output == Format::Text {
            eprintln!("Waiting for events; Ctrl-C ends.");
        }
        tokio::select! {
            done = self.follow(&hub, stream) => done?,
            () = dunlin_node::serve::stop_signal() => {}
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn open(&self, hub: &Hub, cursor: Option<&str>) -> Result<Response, HubError> {
        let shard = self.shard.map(|shard| shard.to_string());
        let path: Vec<&str> = std::iter::once("events").chain(shard.as_deref()).collect();
        let mut call = Call::get(&path).query("from", self.from.query()).stream();
        if let Some(source) = &self.source {
            call = call.query("source", source.clone());
        }
        if let Some(cursor) = cursor {
            call = call.header("last-event-id", cursor);
        }
        hub.call(&call).await
    }

    /// Prints until there is enough, over as many connections as it takes.
    async fn follow(&mut self, hub: &Hub, mut stream: Response) -> Result<(), CommandError> {
        let (mut cursor, mut printed) = (None, 0);
        loop {
            let why = match self.print(stream, &mut cursor, &mut printed).await? {
                None => return Ok(()),
                Some(why) => why,
            };
            eprintln!("connection lost ({why}); reconnecting");
            // A stream that names no place began at the very beginning of its shard.
            if cursor.is_none() {
                self.from = From::Beginning;
            }
            let mut pause = RETRY_PAUSE_MIN;
            stream = loop {
                match self.open(hub, cursor.as_deref()).await {
                    Ok(stream) => break stream,
                    Err(error) if error.is_passing() => {
                        sleep(pause).await;
                        pause = (pause * 2).min(RETRY_PAUSE_MAX);
                    }
                    Err(error) => return Err(error.into()),
                }
            };
            eprintln!("connected again");
        }
    }

    /// Prints one connection's events. Returns why it ended, or `None` if there is enough.
    async fn print(
        &self,
        mut stream: Response,
        cursor: &mut Option<String>,
        printed: &mut u64,
    ) -> Result<Option<String>, CommandError> {
        let mut reader = SseReader::default();
        loop {
            while let Some(event) = reader.poll_event() {
                *printed += u64::from(self.print_event(&event)?);
                *cursor = event.id.or_else(|| cursor.take());
                if self.count.is_some_and(|count| *printed >= count) {
                    return Ok(None);
                }
            }
            let bytes = match timeout(SILENCE_MAX, stream.chunk()).await {
                Ok(Ok(Some(bytes))) => bytes,
                Ok(Ok(None)) => return Ok(Some("the node closed it".into())),
                Ok(Err(error)) => return Ok(Some(root_cause(&error))),
                Err(_) => return Ok(Some(format!("silence for {} s", SILENCE_MAX.as_secs()))),
            };
            reader
                .handle_bytes(&bytes)
                .map_err(|error| HubError::Answer(error.to_string()))?;
        }
    }

    /// Returns whether it was one that is wanted.
    fn print_event(&self, event: &SseEvent) -> Result<bool, CommandError> {
        if !event.kind.is_empty() {
            return Ok(false);
        }
        let json: Value =
            serde_json::from_str(&event.data).map_err(|error| HubError::Answer(error.to_string()))?;
        if self
            .device
            .as_ref()
            .is_some_and(|device| json["deviceId"].as_str() != Some(device.as_str()))
        {
            return Ok(false);
        }
        match self.hub.output {
            Format::Json => say(json)?,
            Format::Text => say(line(&json))?,
        }
        Ok(true)
    }
}

/// The hub tells of changes of twins only where a route wants to hear of them.
async fn check_routed(hub: &Hub) -> Result<(), CommandError> {
    let routing = hub.call_json(&Call::get(&["routing"])).await?;
    let leads_here = |route: &Value| {
        let mut endpoints = route["endpointNames"].as_array().into_iter().flatten();
        route["source"] == json!(TWIN_CHANGES)
            && route["isEnabled"] == true
            && endpoints.any(|name| name == BUILT_IN)
    };
    match routing["routes"].as_array().into_iter().flatten().any(leads_here) {
        true => Ok(()),
        false => Err(CommandError::Failed(
            "no route leads changes of twins here; make one with `dunlin message-route create twin-changes --source twin-change-events`".into(),
        )),
    }
}

/// One event as a line: when, who, where, what.
fn line(event: &Value) -> String {
    let text = |name: &str| event[name].as_str().unwrap_or_default();
    let body = match (event.get("json"), event.get("bodyText")) {
        (Some(json), _) => shown(&json.to_string()),
        (None, Some(text)) => shown(text.as_str().unwrap_or_default()),
        (None, None) => format!("(Base64) {}", text("body")),
    };
    let mut line = format!(
        "{}  {}/{}  {}  {body}",
        text("enqueuedTimeUtc"),
        event["shard"],
        event["offset"],
        shown(text("deviceId"))
    );
    for (key, value) in event["properties"].as_object().into_iter().flatten() {
        line.push_str(&format!(
            "  {}={}",
            shown(key),
            shown(value.as_str().unwrap_or_default())
        ));
    }
    line
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_read() {
        assert_eq!(From::parse("beginning"), Ok(From::Beginning));
        assert_eq!(From::parse("17"), Ok(From::Offset(17)));
        assert_eq!(From::parse("0:1,2:3"), Ok(From::Cursor("0:1,2:3".into())));
        for nonsense in ["", "-1", "0:", "0:1,", "now"] {
            assert!(From::parse(nonsense).is_err(), "{nonsense:?}");
        }
    }

    #[test]
    fn an_event_is_one_line() {
        let event = serde_json::json!({
            "enqueuedTimeUtc": "2026-01-01T00:00:00.000Z", "shard": 3, "offset": 17, "deviceId": "room",
            "bodyText": "a\nb", "properties": { "k": "v" },
        });
        assert_eq!(line(&event), "2026-01-01T00:00:00.000Z  3/17  room  a\\nb  k=v");
    }
}
