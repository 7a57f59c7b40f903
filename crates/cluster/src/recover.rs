//! When a majority is gone for good: groups go on from the most advanced replica that is left.
//!
//! That gives up what Raft promises, so it is done by an operator who says so, never by itself. What the lost
//! replicas alone had is gone. The survivor's whole log counts, also what it never heard to be
//! committed: it may have been acknowledged. Each group begins again with one new replica, under a
//! higher log epoch, which outranks whatever the lost nodes still hold if they come back after all; from
//! there it is widened as any group is. How a replica begins with what another has is in [`crate::raft::seed`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dunlin_model::directory::{Directory, DirectoryCommand, GroupEntry, ReplicaRole};
use dunlin_model::id::{GroupId, NodeId, ReplicaId};
use dunlin_model::port::QueryError;
use serde::{Deserialize, Serialize};

use crate::admin::{GroupStatus, NodeStatus};
use crate::forming;
use crate::messages::{Request, Response};
use crate::node::Shared;
use crate::transport::Lane;

/// How long a node may take to take a directory over.
const ADOPT_TIMEOUT: Duration = Duration::from_secs(5);

/// What is left of a group that has lost its majority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LostGroup {
    /// The group: 0 is the directory, `n + 1` is shard `n`.
    pub group: u32,
    /// Voters that it has, and those that answer.
    pub voters: (u32, u32),
    /// The replica that it goes on from; none is left if there is none.
    pub survivor: Option<Survivor>,
}

/// The most advanced replica that is left.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survivor {
    /// Its replica id.
    pub replica: u64,
    /// Its node.
    pub node: String,
    /// Term and index of its last entry. What is gone comes after it.
    pub last: (u64, u64),
}

/// What recovering does, or has done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recovery {
    /// Groups without a majority.
    pub groups: Vec<LostGroup>,
    /// Nodes that do not answer.
    pub silent: Vec<String>,
    /// Whether it was done, or only looked at.
    pub done: bool,
    /// The log epoch, afterwards if it was done.
    pub log_epoch: u64,
}

/// Looks which groups have lost their majority, and restarts them if `accept_loss`.
pub(crate) async fn recover(shared: &Arc<Shared>, accept_loss: bool) -> Result<Recovery, QueryError> {
    let directory = shared.view.get();
    let answers = shared.ask_statuses(&directory).await;
    let groups: Vec<LostGroup> = directory
        .groups
        .iter()
        .filter_map(|(group, entry)| look_at(*group, entry, &answers))
        .collect();
    let silent = directory.nodes.keys().filter(|node| !answers.contains_key(*node));
    let mut recovery = Recovery {
        silent: silent.map(ToString::to_string).collect(),
        groups,
        done: false,
        log_epoch: directory.log_epoch,
    };
    if recovery.groups.is_empty() {
        return Err(QueryError::Refused("no group has lost its majority".into()));
    }
    if accept_loss {
        restart(shared, &directory, &recovery.groups, &answers).await?;
        recovery.done = true;
        recovery.log_epoch = shared.view.get().log_epoch;
    }
    Ok(recovery)
}

/// What is left of a group, if that is no majority.
fn look_at(group: GroupId, entry: &GroupEntry, answers: &BTreeMap<NodeId, NodeStatus>) -> Option<LostGroup> {
    let status = |id: &ReplicaId, node: &NodeId| -> Option<GroupStatus> {
        let status = answers.get(node)?.groups.get(&group.0)?;
        (status.replica == id.0).then(|| status.clone())
    };
    let voters = || {
        entry
            .replicas
            .iter()
            .filter(|(_, replica)| replica.role != ReplicaRole::Learner)
    };
    let count = voters().count();
    let answering = voters()
        .filter(|(id, replica)| status(id, &replica.node).is_some())
        .count();
    if answering * 2 > count {
        return None;
    }
    let left = entry.replicas.iter().filter_map(|(id, replica)| {
        let status = status(id, &replica.node)?;
        Some(((status.last_term, status.last), *id, replica.node))
    });
    let survivor = left.max().map(|(last, replica, node)| Survivor {
        replica: replica.0,
        node: node.to_string(),
        last,
    });
    Some(LostGroup {
        group: group.0,
        voters: (count as u32, answering as u32),
        survivor,
    })
}

async fn restart(
    shared: &Arc<Shared>,
    directory: &Directory,
    groups: &[LostGroup],
    answers: &BTreeMap<NodeId, NodeStatus>,
) -> Result<(), QueryError> {
    let commands = groups.iter().filter_map(|lost| {
        let from = ReplicaId(lost.survivor.as_ref()?.replica);
        let group = GroupId(lost.group);
        Some(DirectoryCommand::GroupRestart { group, from })
    });
    let is_directory_lost = groups
        .iter()
        .any(|lost| GroupId(lost.group) == GroupId::DIRECTORY);
    tracing::warn!(
        groups = groups.len(),
        is_directory_lost,
        "restarts groups from what is left of them"
    );
    if !is_directory_lost {
        for command in commands {
            let changed = shared.change_directory(command).await;
            changed.map_err(|error| QueryError::Refused(error.to_string()))?;
        }
        return Ok(());
    }
    // Nobody can log the change: it is made here and now, and the directory's new replica begins with it.
    let mut restarted = directory.clone();
    for command in commands {
        let changed = restarted.apply(command);
        changed.map_err(|refusal| QueryError::Refused(refusal.to_string()))?;
    }
    adopt(shared, &restarted);
    for node in answers.keys().filter(|node| **node != shared.node) {
        let asked = Request::Adopt(Box::new(restarted.clone()));
        let answer = shared
            .peers
            .call(*node, Lane::Control, asked, ADOPT_TIMEOUT)
            .await;
        if !matches!(answer, Ok((Response::Adopted, _))) {
            // It learns of it when nodes next tell each other how far they are.
            tracing::warn!(%node, "a node did not take the new directory over yet");
        }
    }
    Ok(())
}

/// Takes a directory over that was made from a survivor.
pub(crate) fn adopt(shared: &Shared, directory: &Directory) {
    if directory.cluster_id == shared.view.get().cluster_id {
        shared.view.offer(directory);
        forming::remember(shared);
    }
}
