//! `dunlin query`: asks the whole fleet in IoT Hub's query language.

use std::process::ExitCode;

use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::hub::{Call, Hub, HubArgs, HubError};
use super::{CommandResult, Format, progress, say, shown};

/// Rows that one request asks for.
const PAGE: usize = 1000;

/// Arguments of `query`.
#[derive(Args)]
pub(crate) struct Query {
    /// The query, e.g. "SELECT deviceId FROM devices WHERE tags.floor = 3"
    #[arg(value_name = "QUERY")]
    query: String,
    /// Print no more rows than this
    #[arg(long, value_name = "COUNT", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..))]
    top: u64,
    /// Receipt of a write that the answer must have seen: shard/offset/term of a message, shard/@index/term of any other
    #[arg(long = "receipt", value_name = "RECEIPT", value_delimiter = ',')]
    receipts: Vec<String>,
    #[command(flatten)]
    hub: HubArgs,
}

impl Query {
    pub(crate) async fn run(self) -> CommandResult {
        let hub = Hub::find(&self.hub)?;
        let top = usize::try_from(self.top).unwrap_or(usize::MAX);
        let asking = rows(&hub, &self.query, &self.receipts, top);
        let (rows, is_whole) = progress::waiting("asking the hub", asking).await?;
        match self.hub.output {
            Format::Json => say(Value::from(rows))?,
            Format::Text => {
                for row in &rows {
                    say(text(row))?;
                }
                if !is_whole {
                    eprintln!("there is more: --top {top} rows are shown");
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The first `top` rows, and whether those are all.
async fn rows(
    hub: &Hub,
    query: &str,
    receipts: &[String],
    top: usize,
) -> Result<(Vec<Value>, bool), HubError> {
    let mut rows: Vec<Value> = Vec::new();
    let mut continuation: Option<String> = None;
    loop {
        let mut call = Call::new(Method::POST, &["devices", "query"])
            .json(json!({ "query": query }))
            .header("x-ms-max-item-count", PAGE.min(top - rows.len()).to_string());
        if !receipts.is_empty() {
            call = call.header("dunlin-receipt", receipts.join(","));
        }
        let page;
        (page, continuation) = hub.page(call, continuation).await?;
        rows.extend(page);
        if continuation.is_none() || rows.len() >= top {
            // Aggregates come on one page, however many they are.
            let is_whole = continuation.is_none() && rows.len() <= top;
            rows.truncate(top);
            return Ok((rows, is_whole));
        }
    }
}

/// One row on one line, without the metadata of a twin, which `-o json` has.
fn text(row: &Value) -> String {
    let mut row = row.clone();
    for section in ["desired", "reported"] {
        if let Some(content) = row.pointer_mut(&format!("/properties/{section}"))
            && let Some(content) = content.as_object_mut()
        {
            content.remove("$metadata");
        }
    }
    shown(&row.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_a_line_without_its_metadata() {
        let row = json!({"deviceId": "d\n", "properties": {"desired": {"a": 1, "$metadata": {"a": {}}}}});
        assert_eq!(
            text(&row),
            r#"{"deviceId":"d\n","properties":{"desired":{"a":1}}}"#
        );
    }
}
