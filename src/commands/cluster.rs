//! `dunlin cluster`: how the nodes and their groups are, and what they shall be.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Subcommand};
use dunlin_cluster::admin::{AdminRequest, Changed, ClusterStatus, GroupLine, JoinToken};
use dunlin_cluster::recover::Recovery;
use reqwest::Method;
use serde_json::Value;

use super::hub::{Call, DATA_DEFAULT, Hub, HubArgs, HubError};
use super::table::Table;
use super::{CommandResult, Format, join, progress, say};

/// Between two looks at how far a change has got.
const ASK_AGAIN: Duration = Duration::from_millis(300);

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
    /// Print a token with which one more node can join
    Token {
        /// Minutes that it is good for
        #[arg(long, default_value_t = 10)]
        minutes: u32,
    },
    /// Make a data directory for a node that joins a cluster; then run `dunlin serve` with it
    Join {
        /// What `dunlin cluster token` printed
        token: String,
    },
    /// Move everything off a node, so that it can be removed
    Drain {
        /// The node's id, or enough of the beginning
        node: String,
        /// Even if groups are left with fewer replicas than they should have
        #[arg(long)]
        force: bool,
        /// Do not wait until the node is empty
        #[arg(long)]
        no_wait: bool,
    },
    /// Let a draining node take replicas again
    Undrain {
        /// The node's id, or enough of the beginning
        node: String,
    },
    /// Take an empty or dead node out for good
    Remove {
        /// The node's id, or enough of the beginning
        node: String,
    },
    /// Restart groups whose majority is gone for good from what is left of them
    ///
    /// Without --accept-loss it is only said what would be done. Messages that only the lost replicas had are gone.
    Recover {
        /// Do it
        #[arg(long)]
        accept_loss: bool,
    },
    /// How many replicas each group should have: 1, 3, 5 or 7
    SetReplication {
        /// Replicas
        replicas: u32,
        /// Do not wait until every group has them
        #[arg(long)]
        no_wait: bool,
    },
}

impl Cluster {
    pub(crate) async fn run(self) -> CommandResult {
        let format = self.hub.output;
        if let Action::Join { token } = &self.action {
            let data = self.hub.data.clone().unwrap_or_else(|| DATA_DEFAULT.into());
            return join::join(token, &data, format).await;
        }
        let hub = Hub::find(&self.hub)?;
        match self.action {
            Action::Join { .. } => unreachable!("handled above"),
            Action::Token { minutes } => {
                let issued: JoinToken = read(ask(&hub, &AdminRequest::Token { minutes }).await?)?;
                say(join::token(&hub, &issued, format)?)?;
            }
            Action::Status { groups } => {
                let answer = progress::waiting("asking every node", ask(&hub, &AdminRequest::Status)).await?;
                match format {
                    Format::Json => say(answer)?,
                    Format::Text => say(text(&read(answer)?, groups))?,
                }
            }
            Action::Drain { node, force, no_wait } => {
                let changed: Changed = read(ask(&hub, &AdminRequest::Drain { node, force }).await?)?;
                let node = changed.node.clone().unwrap_or_default();
                if !no_wait {
                    let is_empty = |status: &ClusterStatus| {
                        let left = status.nodes.iter().find(|line| line.node == node);
                        left.is_none_or(|line| line.replicas == 0)
                    };
                    wait_for(&hub, "moving replicas to other nodes", is_empty).await?;
                }
                let done = if no_wait { "is draining" } else { "is empty" };
                said(format, &changed, &format!("Node {node} {done}."))?;
            }
            Action::Undrain { node } => {
                let changed: Changed = read(ask(&hub, &AdminRequest::Undrain { node }).await?)?;
                let node = changed.node.clone().unwrap_or_default();
                said(format, &changed, &format!("Node {node} takes replicas again."))?;
            }
            Action::Remove { node } => {
                let changed: Changed = read(ask(&hub, &AdminRequest::Remove { node }).await?)?;
                let node = changed.node.clone().unwrap_or_default();
                let text =
                    format!("Node {node} is no node of this cluster any more; its id never comes back.");
                said(format, &changed, &text)?;
            }
            Action::Recover { accept_loss } => return recover(&hub, format, accept_loss).await,
            Action::SetReplication { replicas, no_wait } => {
                let request = AdminRequest::SetReplication { replicas };
                let changed: Changed = read(ask(&hub, &request).await?)?;
                let status: ClusterStatus = read(ask(&hub, &AdminRequest::Status).await?)?;
                let hosts = status.nodes.iter().filter(|node| node.takes_replicas()).count();
                if hosts < replicas as usize {
                    let text = format!(
                        "Each group shall have {replicas} replicas. There are {hosts} shard nodes; the rest comes when more nodes join."
                    );
                    said(format, &changed, &text)?;
                    return Ok(ExitCode::SUCCESS);
                }
                if !no_wait {
                    let has_all = |status: &ClusterStatus| {
                        let settled =
                            |group: &GroupLine| !group.moving && group.replicas.0 == group.replicas.1;
                        status.replication_factor == replicas && status.groups.iter().all(settled)
                    };
                    wait_for(&hub, "changing the members of every group", has_all).await?;
                }
                said(format, &changed, &format!("Each group has {replicas} replicas."))?;
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Exit code 1 when there is something to recover and it was not done.
async fn recover(hub: &Hub, format: Format, accept_loss: bool) -> CommandResult {
    let request = AdminRequest::Recover { accept_loss };
    let recovery: Recovery = read(progress::waiting("asking every node", ask(hub, &request)).await?)?;
    if recovery.done {
        let has_leaders = |status: &ClusterStatus| {
            let is_lost = |group: u32| {
                let lost = recovery.groups.iter().find(|lost| lost.group == group);
                lost.is_some_and(|lost| lost.survivor.is_none())
            };
            let led = |group: &GroupLine| group.leader.is_some() || is_lost(group.group);
            status.groups.iter().all(led)
        };
        wait_for(hub, "restarting groups", has_leaders).await?;
    }
    match format {
        Format::Json => say(serde_json::to_value(&recovery).unwrap_or_default())?,
        Format::Text => say(recovery_text(&recovery))?,
    }
    Ok(if recovery.done {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(1)
    })
}

fn recovery_text(recovery: &Recovery) -> String {
    let mut table = Table::new(["GROUP", "ANSWER", "GOES ON FROM", "AFTER ENTRY"]);
    for lost in &recovery.groups {
        let (node, last) = match &lost.survivor {
            Some(survivor) => (
                survivor.node.clone(),
                format!("{} of term {}", survivor.last.1, survivor.last.0),
            ),
            None => ("nothing is left".to_owned(), "-".to_owned()),
        };
        let answering = format!("{} of {}", lost.voters.1, lost.voters.0);
        table.push([group_name(lost.group), answering, node, last]);
    }
    let silent = recovery.silent.join(", ");
    let end = if recovery.done {
        format!(
            "Restarted under log epoch {}. Whatever came after these entries and only the silent nodes had is lost.",
            recovery.log_epoch
        )
    } else {
        "Nothing was done. If the silent nodes are gone for good, --accept-loss lets the groups go on from these entries; whatever came after and only the silent nodes had is then lost.".to_owned()
    };
    format!("These groups have lost their majority; silent: {silent}.\n\n{table}\n{end}")
}

fn group_name(group: u32) -> String {
    match group {
        0 => "directory".to_owned(),
        number => format!("shard {}", number - 1),
    }
}

async fn ask(hub: &Hub, request: &AdminRequest) -> Result<Value, HubError> {
    let request = serde_json::to_value(request).map_err(|error| HubError::Answer(error.to_string()))?;
    let call = Call::new(Method::POST, &["cluster", "admin"]).json(request);
    hub.call_json(&call).await
}

fn read<T: serde::de::DeserializeOwned>(answer: Value) -> Result<T, HubError> {
    serde_json::from_value(answer).map_err(|error| HubError::Answer(error.to_string()))
}

/// Asks how the cluster is until `is_done`. Ends with Ctrl-C; the cluster goes on by itself.
async fn wait_for(hub: &Hub, what: &str, is_done: impl Fn(&ClusterStatus) -> bool) -> Result<(), HubError> {
    let waiting = async {
        loop {
            // A node that is just changing leaders may not answer; it will.
            if let Ok(answer) = ask(hub, &AdminRequest::Status).await
                && is_done(&read(answer)?)
            {
                return Ok(());
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    };
    progress::waiting(what, waiting).await
}

fn said(format: Format, changed: &Changed, text: &str) -> std::io::Result<()> {
    match format {
        Format::Json => say(serde_json::to_value(changed).unwrap_or_default()),
        Format::Text => say(text),
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
    let lacks = |group: &&GroupLine| {
        all_groups || group.moving || group.leader.is_none() || group.replicas.1 < group.replicas.0
    };
    let listed: Vec<&GroupLine> = status.groups.iter().filter(lacks).collect();
    if !listed.is_empty() {
        let mut groups = Table::new(["GROUP", "LEADER", "TERM", "REPLICAS", "APPLIED"]);
        for group in listed {
            groups.push([
                group_name(group.group),
                group.leader.clone().unwrap_or_else(|| "none".to_owned()),
                group.term.to_string(),
                match group.moving {
                    true => format!("{} of {}, moving", group.replicas.1, group.replicas.0),
                    false => format!("{} of {}", group.replicas.1, group.replicas.0),
                },
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
            moving: false,
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
