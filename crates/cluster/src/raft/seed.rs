//! A replica that begins with what another one on this node has: how a group goes on from its survivor.
//!
//! The new replica has another id, a log that begins after the survivor's last entry, and a membership
//! of itself alone. Its vote is written last and is the mark that it is complete: whatever is found
//! without a vote is made again from the beginning.

use std::io;

use dunlin_model::id::{LogPosition, NodeId};
use dunlin_storage::journal::ReplicaLog;

use super::machine::Machine;
use super::snapshot::SnapshotData;
use super::state_machine::StateMachine;
use crate::codec;
use crate::messages::{WireMembership, WireVote};

/// Whether the log shows that its replica was made whole.
pub(crate) fn is_done(log: &ReplicaLog) -> bool {
    log.state().vote.is_some()
}

/// Fills `new`, whose log is `log`, with everything that `survivor` has in state and log.
pub(crate) async fn seed(
    survivor: &StateMachine,
    new: &StateMachine,
    log: &ReplicaLog,
    node: NodeId,
) -> Result<(), io::Error> {
    let last = survivor.apply_whole_log().await?;
    let Some(last) = last else {
        return Err(io::Error::other("the survivor is empty"));
    };
    let (from, mut into) = (survivor.machine().lock().await, new.machine().lock().await);
    SnapshotData::view(&from)
        .install(&into)
        .map_err(io::Error::other)?;
    into.reload().map_err(io::Error::other)?;
    if let Machine::Directory(directory) = &mut *into {
        directory.restart().map_err(io::Error::other)?;
    }
    let id = log.id().replica.0;
    let membership = WireMembership {
        configs: vec![[id].into()],
        nodes: [(id, node)].into(),
    };
    StateMachine::save_membership(&into, Some(last), &membership).map_err(io::Error::other)?;
    into.store().checkpoint().map_err(io::Error::other)?;
    begin_log(log, last).await
}

/// Lets the log begin after `last`, in a later term than any that the survivor has seen.
async fn begin_log(log: &ReplicaLog, last: LogPosition) -> Result<(), io::Error> {
    log.purge(last);
    let vote = WireVote {
        term: last.term + 1,
        leader: log.id().replica.0,
        committed: false,
    };
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let done = move |result| {
        let _ = sender.send(result);
    };
    log.save_vote(codec::encode(&vote), Box::new(done));
    match receiver.await {
        Ok(result) => result.map_err(io::Error::other),
        Err(_) => Err(io::Error::other("the journal has stopped")),
    }
}
