//! Replicas that are here and are no members any more: stopped, and what they left deleted.
//!
//! The directory alone does not decide that. A replica is deleted only when the directory does not list
//! it *and* the group's leader, having proved that it leads, says that it is no member: until then
//! an acknowledgement may rest on it. Its id is never used again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use dunlin_model::alarm::Alarm;
use dunlin_model::directory::Directory;
use dunlin_model::id::{GroupId, GroupReplica, ReplicaId};
use dunlin_model::port::{Clock as _, Replication};

use crate::blocking::blocking;
use crate::messages::{Request, Response};
use crate::node::{ShardParts, Shared};
use crate::transport::Lane;

/// How long a leader may take to say who is a member.
const MEMBERS_TIMEOUT: Duration = Duration::from_millis(2_000);

/// Removes what the directory does not list any more, as far as that is certain.
pub(crate) async fn remove_leftovers(shared: &Arc<Shared>) {
    let Some(parts) = &shared.shard else { return };
    let directory = shared.view.get();
    let stores = parts.stores.clone();
    // Both stores look into folders, which must not hold up those who share this thread.
    let stored = blocking(move || stores.replicas()).await;
    let stored = match stored {
        Ok(Ok(stored)) => stored,
        Ok(Err(error)) => {
            Alarm::RemovalFailed.raise();
            tracing::error!(%error, "cannot list the replicas in the stores");
            return;
        }
        Err(_) => return,
    };
    for id in leftovers(shared, parts, &directory, stored) {
        // What this node believed when it was last up may be older than the replica.
        if !shared.view.is_current(shared.clock.monotonic_ms()) {
            return;
        }
        match members(shared, id.group).await {
            Some(members) if !members.contains(&id.replica) => remove(shared, parts, id).await,
            Some(_) => tracing::debug!(replica = %id, "it is not listed any more and still a member"),
            None => {}
        }
    }
}

fn leftovers(
    shared: &Shared,
    parts: &ShardParts,
    directory: &Directory,
    stored: Vec<GroupReplica>,
) -> BTreeSet<GroupReplica> {
    let mut here: BTreeSet<GroupReplica> = parts.journal.replicas().into_iter().collect();
    here.extend(shared.groups().iter().map(|group| group.id()));
    here.extend(stored);
    let is_listed = |id: &GroupReplica| {
        directory
            .groups
            .get(&id.group)
            .is_some_and(|entry| entry.replicas.contains_key(&id.replica))
    };
    here.retain(|id| !is_listed(id));
    here
}

/// The members of `group`, as its leader knows them for certain.
async fn members(shared: &Arc<Shared>, group: GroupId) -> Option<BTreeSet<ReplicaId>> {
    let leader = shared.ask_leader(group).await?;
    if leader == shared.node {
        let group = shared.group(group)?;
        group.read_barrier().await.ok()?;
        return Some(group.members().all());
    }
    let asked = Request::Members(group);
    let answer = shared
        .peers
        .call(leader, Lane::Control, asked, MEMBERS_TIMEOUT)
        .await;
    match answer {
        Ok((Response::Members(members), _)) => Some(members),
        _ => None,
    }
}

async fn remove(shared: &Arc<Shared>, parts: &ShardParts, id: GroupReplica) {
    if let Some(group) = shared.group(id.group).filter(|group| group.id() == id) {
        shared.stop_replica(&group).await;
    }
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let done = move |result| {
        let _ = sender.send(result);
    };
    parts.journal.replica(id).remove(Box::new(done));
    match receiver.await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            Alarm::RemovalFailed.raise();
            tracing::error!(replica = %id, %error, "cannot remove a replica from the journal");
            return;
        }
        Err(_) => return,
    }
    let stores = parts.stores.clone();
    match blocking(move || stores.remove(id)).await {
        Ok(Ok(())) => {
            shared.note_trouble(id, None);
            tracing::info!(replica = %id, "removed a replica that is no member any more");
        }
        Ok(Err(error)) => not_deleted(id, &error),
        Err(error) => not_deleted(id, &error),
    }
}

fn not_deleted(id: GroupReplica, error: &dyn std::fmt::Display) {
    Alarm::RemovalFailed.raise();
    tracing::error!(replica = %id, %error, "cannot delete what a replica left");
}
