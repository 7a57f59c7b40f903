//! `dunlin monitor feedback`: how cloud-to-device messages ended. `dunlin monitor file-notifications`: which files devices
//! have uploaded.
//!
//! Each batch is settled once it is printed, so that nobody gets it a second time; one that was printed while the hub went
//! away may come again.

use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use reqwest::{Method, StatusCode, header};
use serde_json::Value;
use tokio::time::sleep;

use super::super::hub::{Call, Hub, HubArgs, HubError, root_cause};
use super::super::{CommandError, CommandResult, Format, progress, say, shown};

/// Pause after an answer that there is nothing.
const PAUSE: Duration = Duration::from_secs(1);

/// What is waited for.
pub(super) struct Kind {
    path: [&'static str; 3],
    name: &'static str,
    line: fn(&Value) -> String,
}

/// How messages ended.
pub(super) const FEEDBACK: Kind = Kind {
    path: ["messages", "serviceBound", "feedback"],
    name: "feedback",
    line: feedback_line,
};

/// Which files came whole.
pub(super) const FILES: Kind = Kind {
    path: ["messages", "serviceBound", "filenotifications"],
    name: "files",
    line: file_line,
};

#[derive(Args)]
pub(super) struct Feedback {
    /// Stop after so many records, at the end of their batch
    #[arg(long, value_name = "N")]
    count: Option<usize>,
    #[command(flatten)]
    hub: HubArgs,
}

impl Feedback {
    pub(super) async fn run(self, kind: &Kind) -> CommandResult {
        let hub = Hub::find(&self.hub)?;
        let first = progress::waiting("asking the hub", take(&hub, kind)).await?;
        if self.hub.output == Format::Text {
            eprintln!("Waiting for {}; Ctrl-C ends.", kind.name);
        }
        tokio::select! {
            done = self.follow(&hub, kind, first) => done?,
            () = dunlin_node::serve::stop_signal() => {}
        }
        Ok(ExitCode::SUCCESS)
    }

    async fn follow(&self, hub: &Hub, kind: &Kind, first: Option<Batch>) -> Result<(), CommandError> {
        let (mut batch, mut printed) = (first, 0);
        loop {
            if let Some(Batch { lock, records }) = batch.take() {
                for record in &records {
                    match self.hub.output {
                        Format::Json => say(record)?,
                        Format::Text => say((kind.line)(record))?,
                    }
                }
                settle(hub, kind, &lock).await?;
                printed += records.len();
            }
            if self.count.is_some_and(|count| printed >= count) {
                return Ok(());
            }
            batch = match take(hub, kind).await {
                Ok(batch) => batch,
                Err(error) if error.is_passing() => None,
                Err(error) => return Err(error.into()),
            };
            if batch.is_none() {
                sleep(PAUSE).await;
            }
        }
    }
}

struct Batch {
    lock: String,
    records: Vec<Value>,
}

async fn take(hub: &Hub, kind: &Kind) -> Result<Option<Batch>, HubError> {
    let response = hub.call(&Call::get(&kind.path)).await?;
    if response.status() == StatusCode::NO_CONTENT {
        return Ok(None);
    }
    let lock = response.headers().get(header::ETAG);
    let lock = lock.and_then(|lock| lock.to_str().ok());
    let lock = lock.ok_or_else(|| HubError::Answer("feedback without a lock".into()))?;
    let lock = lock.trim_matches('"').to_owned();
    let records = response.json().await;
    let records = records.map_err(|error| HubError::Answer(root_cause(&error)))?;
    // Feedback comes as a list, a notification of a file by itself.
    let records = match records {
        Value::Array(records) => records,
        one => vec![one],
    };
    Ok(Some(Batch { lock, records }))
}

/// Whoever was too slow is given the batch again.
async fn settle(hub: &Hub, kind: &Kind, lock: &str) -> Result<(), HubError> {
    let path = [&kind.path[..], &[lock]].concat();
    match hub.call(&Call::new(Method::DELETE, &path)).await {
        Err(error) if error.code() == "DeviceMessageLockLost" || error.is_passing() => Ok(()),
        Err(error) => Err(error),
        Ok(_) => Ok(()),
    }
}

/// One record as a line: when, whose, which message, how it ended.
fn feedback_line(record: &Value) -> String {
    let text = |name: &str| shown(record[name].as_str().unwrap_or_default());
    format!(
        "{}  {}  {}  {}",
        text("enqueuedTimeUtc"),
        text("deviceId"),
        text("originalMessageId"),
        text("statusCode")
    )
}

/// One file as a line: when, whose, its name, its size, where it is.
fn file_line(notice: &Value) -> String {
    let text = |name: &str| shown(notice[name].as_str().unwrap_or_default());
    format!(
        "{}  {}  {}  {}  {}",
        text("enqueuedTimeUtc"),
        text("deviceId"),
        text("blobName"),
        notice["blobSizeInBytes"],
        text("blobUri")
    )
}
