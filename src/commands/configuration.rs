//! `dunlin configuration`: what many twins shall say, by a condition on them.

use std::collections::BTreeMap;
use std::process::ExitCode;

use clap::{Args, Subcommand};
use reqwest::Method;
use serde_json::{Map, Value, json};

use super::device::confirmed;
use super::hub::{Call, Hub, HubArgs, HubError};
use super::send::parse_property;
use super::table::Table;
use super::twin::parse_object;
use super::{CommandError, CommandResult, Format, progress, say, shown};

#[derive(Args)]
pub(crate) struct Configuration {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Subcommand)]
enum Action {
    /// Make one; twins that fit the condition follow within seconds
    Create {
        /// Its id
        #[arg(value_name = "ID")]
        id: String,
        /// What twins shall say, e.g. '{"deviceContent": {"properties.desired.fps": 5}}': a JSON object, or a file
        #[arg(long, value_name = "JSON", value_parser = parse_object)]
        content: Map<String, Value>,
        #[command(flatten)]
        settings: Settings,
    },
    /// Change what is given and leave the rest; its content never changes
    Update {
        /// Its id
        #[arg(value_name = "ID")]
        id: String,
        #[command(flatten)]
        settings: Settings,
    },
    /// Show one, with how many twins it concerns
    Show {
        /// Its id
        #[arg(value_name = "ID")]
        id: String,
    },
    /// List all
    List,
    /// Delete one; what it said stays in the twins
    Delete {
        /// Its id
        #[arg(value_name = "ID")]
        id: String,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
}

#[derive(Args)]
struct Settings {
    /// Which twins, e.g. "tags.floor = 3"; "FROM devices.modules WHERE .." for modules
    #[arg(long, value_name = "CONDITION")]
    target_condition: Option<String>,
    /// Where two say different things, the higher one counts
    #[arg(long, value_name = "N")]
    priority: Option<u32>,
    /// A label; may be given more than once
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = parse_property)]
    labels: Vec<(String, String)>,
    /// A query whose rows are counted; may be given more than once
    #[arg(long = "metric", value_name = "NAME=QUERY", value_parser = parse_property)]
    metrics: Vec<(String, String)>,
}

impl Settings {
    /// What is given, as the hub is told it.
    fn body(self) -> Map<String, Value> {
        let mut body = Map::new();
        if let Some(condition) = self.target_condition {
            body.insert("targetCondition".into(), condition.into());
        }
        if let Some(priority) = self.priority {
            body.insert("priority".into(), priority.into());
        }
        if !self.labels.is_empty() {
            let labels: BTreeMap<String, String> = self.labels.into_iter().collect();
            body.insert("labels".into(), json!(labels));
        }
        if !self.metrics.is_empty() {
            let queries: BTreeMap<String, String> = self.metrics.into_iter().collect();
            body.insert("metrics".into(), json!({ "queries": queries }));
        }
        body
    }
}

impl Configuration {
    pub(crate) async fn run(self) -> CommandResult {
        let hub = Hub::find(&self.hub)?;
        let output = self.hub.output;
        match self.action {
            Action::Create {
                id,
                content,
                settings,
            } => {
                let mut body = settings.body();
                body.insert("content".into(), content.into());
                let path = ["configurations", id.as_str()];
                let call = Call::new(Method::PUT, &path).json(body.into());
                let made = progress::waiting("creating", hub.call_json(&call)).await?;
                match output {
                    Format::Json => say(made)?,
                    Format::Text => say(format!(
                        "Created {id}. Twins follow within seconds; `dunlin configuration show {id}` counts them."
                    ))?,
                }
            }
            Action::Update { id, settings } => {
                let path = ["configurations", id.as_str()];
                let call = Call::new(Method::PUT, &path)
                    .json(settings.body().into())
                    .header("if-match", "*");
                let changed = progress::waiting("changing", hub.call_json(&call)).await;
                print(&changed.map_err(|error| explained(error, &id))?, output)?;
            }
            Action::Show { id } => {
                let found = hub.call_json(&Call::get(&["configurations", id.as_str()])).await;
                print(&found.map_err(|error| explained(error, &id))?, output)?;
            }
            Action::List => {
                let all = hub.call_json(&Call::get(&["configurations"])).await?;
                match output {
                    Format::Json => say(all)?,
                    Format::Text => say(table(&all))?,
                }
            }
            Action::Delete { id, yes } => {
                if !yes && !confirmed(&format!("Delete configuration {id}?"))? {
                    return Err(CommandError::Failed("nothing was removed".into()));
                }
                let path = ["configurations", id.as_str()];
                let deleted = hub.call(&Call::new(Method::DELETE, &path)).await;
                deleted.map_err(|error| explained(error, &id))?;
                if output == Format::Text {
                    say(format!("Deleted configuration {id}."))?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn explained(error: HubError, id: &str) -> CommandError {
    match error.code() {
        "ConfigurationNotFound" => CommandError::Failed(format!("there is no configuration {id}")),
        _ => error.into(),
    }
}

fn print(one: &Value, output: Format) -> std::io::Result<()> {
    match output {
        Format::Json => say(one),
        Format::Text => say(text(one)),
    }
}

/// One for people.
fn text(one: &Value) -> String {
    let word = |name: &str| shown(one[name].as_str().unwrap_or_default());
    let mut lines = vec![
        format!("configuration  {}", word("id")),
        format!("target         {}", word("targetCondition")),
        format!("priority       {}", one["priority"]),
        format!(
            "targeted       {}",
            one["systemMetrics"]["results"]["targetedCount"]
        ),
        format!(
            "applied        {}",
            one["systemMetrics"]["results"]["appliedCount"]
        ),
    ];
    for (name, count) in one["metrics"]["results"].as_object().into_iter().flatten() {
        lines.push(format!("{:<13}  {count}", shown(name)));
    }
    for (name, label) in one["labels"].as_object().into_iter().flatten() {
        let label = label.as_str().unwrap_or_default();
        lines.push(format!("label          {}={}", shown(name), shown(label)));
    }
    let content = serde_json::to_string_pretty(&one["content"]).unwrap_or_default();
    lines.push(String::new());
    lines.extend(content.lines().map(shown));
    lines.join("\n")
}

fn table(all: &Value) -> String {
    let all = all.as_array().map(Vec::as_slice).unwrap_or_default();
    if all.is_empty() {
        return "No configurations.".to_owned();
    }
    let mut table = Table::new(["ID", "PRIORITY", "TARGETED", "APPLIED", "TARGET"]);
    for one in all {
        let results = &one["systemMetrics"]["results"];
        table.push([
            shown(one["id"].as_str().unwrap_or_default()),
            one["priority"].to_string(),
            results["targetedCount"].to_string(),
            results["appliedCount"].to_string(),
            shown(one["targetCondition"].as_str().unwrap_or_default()),
        ]);
    }
    table.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_shown_with_what_it_came_to() {
        let one = json!({
            "id": "fast", "targetCondition": "tags.a = 1", "priority": 3, "labels": {"of": "\u{1b}me"},
            "content": {"deviceContent": {"properties.desired.fps": 5}},
            "systemMetrics": {"results": {"targetedCount": 7, "appliedCount": 6}},
            "metrics": {"results": {"slow": 2}},
        });
        let text = text(&one);
        for part in [
            "configuration  fast",
            "targeted       7",
            "slow           2",
            "properties.desired.fps",
        ] {
            assert!(text.contains(part), "{part} in {text}");
        }
        assert!(!text.contains('\u{1b}'));
        assert_eq!(
            table(&json!([one])).lines().nth(1),
            Some("fast  3         7         6        tags.a = 1")
        );
    }
}
