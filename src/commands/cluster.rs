//! `dunlin cluster`: how the nodes and their groups are.

use std::process::ExitCode;

use clap::{Args, Subcommand};
use dunlin_cluster::admin::{AdminRequest, ClusterStatus, GroupLine};
use reqwest::Method;
use serde_json::{Value, json};

use super::hub::{Call, Hub, HubArgs, HubError};
use super::table::Table;
use super::{CommandResult, Format, progress, say};

#[derive(Args)]
pub(crate) struct Cluster {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    hub: HubArgs,
}

#[derive(Subcommand)]
enum Action {
    /// Nodes, and groups that lack something
    Status {
        /// Every group
        #[arg(long)]
        groups: bool,
    },
}

impl Cluster {
    pub(crate) async fn run(self) -> CommandResult {
        let Action::Status { groups } = self.action;
        let hub = Hub::find(&self.hub)?;
        let request = serde_json::to_value(AdminRequest::Status).unwrap_or(json!({ "op": "status" }));
        let call = Call::new(Method::POST, &["cluster", "admin"]).json(request);
        let answer: Value = progress::waiting("asking every node", hub.call_json(&call)).await?;
        match self.hub.output {
            Format::Json => say(answer)?,
            Format::Text => {
                let status: ClusterStatus =
                    serde_json::from_value(answer).map_err(|error| HubError::Answer(error.to_string()))?;
                say(text(&status, groups))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn text(status: &ClusterStatus, all_groups: bool) -> String {
    let mut nodes = Table::new([
        "NODE", "ADDRESS", "ROLES", "STATE", "ALIVE", "LEADS", "REPLICAS", "PID",
    ]);
    for node in &status.nodes {
        let roles: Vec<String> = node
            .roles
            .iter()
            .map(|role| format!("{role:?}").to_lowercase())
            .collect();
        nodes.push([
            node.node.clone(),
            node.address.clone(),
            roles.join(","),
            format!("{:?}", node.state).to_lowercase(),
            if node.alive { "yes" } else { "no" }.to_owned(),
            node.leads.to_string(),
            node.replicas.to_string(),
            node.pid.map_or("-".to_owned(), |pid| pid.to_string()),
        ]);
    }
    let mut text = format!(
        "Cluster {} is {}: {} shards, each on up to {} nodes.\n\n{nodes}",
        status.cluster_id, status.health, status.shards, status.replication_factor
    );
    let lacks =
        |group: &&GroupLine| all_groups || group.leader.is_none() || group.replicas.1 < group.replicas.0;
    let listed: Vec<&GroupLine> = status.groups.iter().filter(lacks).collect();
    if !listed.is_empty() {
        let mut groups = Table::new(["GROUP", "LEADER", "TERM", "REPLICAS", "APPLIED"]);
        for group in listed {
            let name = match group.group {
                0 => "directory".to_owned(),
                number => format!("shard {}", number - 1),
            };
            groups.push([
                name,
                group.leader.clone().unwrap_or_else(|| "none".to_owned()),
                group.term.to_string(),
                format!("{} of {}", group.replicas.1, group.replicas.0),
                group.applied.to_string(),
            ]);
        }
        text.push_str(&format!("\n\n{groups}"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_that_lack_something_are_listed() {
        let group = |group, leader: Option<&str>, answered| GroupLine {
            group,
            leader: leader.map(str::to_owned),
            term: 1,
            replicas: (3, answered),
            applied: 9,
        };
        let status = ClusterStatus {
            cluster_id: "c".into(),
            directory_version: 1,
            shards: 2,
            replication_factor: 3,
            health: "unavailable".into(),
            nodes: Vec::new(),
            groups: vec![group(0, Some("a"), 3), group(1, None, 1), group(2, Some("a"), 2)],
        };
        let short = text(&status, false);
        assert!(
            !short.contains("directory") && short.contains("shard 0  none") && short.contains("2 of 3"),
            "{short}"
        );
        assert!(text(&status, true).contains("directory"));
    }
}
