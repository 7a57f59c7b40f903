//! `dunlin health`: whether every node serves, for people and for health checks of containers.

use std::process::ExitCode;

use clap::Args;
use futures_util::future::join_all;
use serde_json::{Value, json};

use super::hub::{Door, Hub, HubArgs, HubError};
use super::table::Table;
use super::{CommandResult, Format, progress, say, shown};

#[derive(Args)]
pub(crate) struct Health {
    #[command(flatten)]
    hub: HubArgs,
}

struct NodeHealth {
    https: String,
    /// Its id, if it says one.
    node: String,
    is_well: bool,
    status: String,
    reasons: Vec<String>,
}

impl Health {
    pub(crate) async fn run(self) -> CommandResult {
        let hub = Hub::find(&self.hub)?;
        let asked = join_all(hub.doors().iter().map(|door| ask(&hub, door)));
        let nodes = progress::waiting("asking every node", asked).await;
        let is_well = nodes.iter().all(|node| node.is_well);
        match self.hub.output {
            Format::Json => {
                let nodes: Vec<Value> = nodes
                    .iter()
                    .map(
                        |node| json!({ "https": node.https, "node": node.node, "status": node.status, "reasons": node.reasons }),
                    )
                    .collect();
                say(json!({ "healthy": is_well, "nodes": nodes }))?;
            }
            Format::Text => {
                let mut table = Table::new(["ADDRESS", "NODE", "STATUS", "WHY"]);
                for node in nodes {
                    table.push([node.https, node.node, node.status, node.reasons.join("; ")]);
                }
                say(table)?;
            }
        }
        Ok(if is_well {
            ExitCode::SUCCESS
        } else {
            ExitCode::from(1)
        })
    }
}

async fn ask(hub: &Hub, door: &Door) -> NodeHealth {
    let unreachable = |why| (false, "-".to_owned(), "unreachable".to_owned(), vec![why]);
    let (is_well, node, status, reasons) = match hub.health(door).await {
        Err(HubError::Unreachable { why, .. }) => unreachable(why),
        Err(error) => unreachable(error.to_string()),
        Ok(response) => {
            let is_well = response.status().is_success();
            let body: Value = response.json().await.unwrap_or_default();
            let reasons = body["reasons"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(Value::as_str);
            let mut reasons: Vec<String> = reasons.map(shown).collect();
            // A node that stops is well in itself and takes nobody any more.
            if !is_well && reasons.is_empty() {
                reasons.push("stopping".to_owned());
            }
            let said = body["status"].as_str().unwrap_or("unknown");
            (
                is_well,
                shown(body["node"].as_str().unwrap_or("-")),
                if is_well {
                    shown(said)
                } else {
                    "unavailable".to_owned()
                },
                reasons,
            )
        }
    };
    NodeHealth {
        https: door.https.clone(),
        node,
        is_well,
        status,
        reasons,
    }
}
