//! What a node does by the clock: ping, suspect, gossip, confirm the directory, balance, checkpoint.
//!
//! Each loop is a screenful and ends with the node. Decisions are elsewhere: who leads where in
//! `model::directory::placement`, what may be purged in the stores' own positions.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dunlin_model::alarm::Alarm;
use dunlin_model::directory::placement::leader_moves;
use dunlin_model::directory::{DirectoryCommand, NodeEntry, NodeState};
use dunlin_model::id::{GroupId, NodeId};
use dunlin_model::mutant::{self, Mutant};
use dunlin_model::port::{Clock as _, EventLog, StoreError};

use crate::blocking::blocking;
use crate::forming;
use crate::group::Group;
use crate::messages::{Request, Response};
use crate::node::Shared;
use crate::purge::Bounds;
use crate::router::Router;
use crate::transport::Lane;
use crate::{erase, moves, repair, sweep};

/// Between two confirmations of the directory.
const CONFIRM_EVERY: Duration = Duration::from_millis(250);
/// Between two rounds of telling each other addresses.
const GOSSIP_EVERY: Duration = Duration::from_millis(1_000);
/// Between two looks at where leaderships rest.
const BALANCE_EVERY: Duration = Duration::from_millis(1_000);
/// Log entries that stay after a checkpoint, so that a follower that was away for a moment is
/// filled from the log and not with a snapshot.
const ENTRIES_KEPT: u64 = 20_000;
/// Between two looks at what runs here and should not, or should and does not.
const LOOK_AGAIN: Duration = Duration::from_millis(1_000);
/// How long a node that starts asks the others what has become of the cluster.
const ASK_AROUND_MAX: Duration = Duration::from_millis(1_000);
/// Pings that are left out before this node takes it that it stood still itself.
const LATE_PINGS: u64 = 2;
/// Between two looks for segments that have become old.
const SEAL_LOOK_EVERY: Duration = Duration::from_secs(10);
/// How long a purge waits for the snapshot that it needs, which is a note and no copy. After that it
/// reaches as far as the one before.
const SNAPSHOT_WAIT_MAX: Duration = Duration::from_millis(1_000);
/// Between two looks at how full the journal is.
const PRESSURE_EVERY: Duration = Duration::from_millis(500);

pub(crate) fn start(shared: &Arc<Shared>, router: &Arc<Router>) {
    shared.spawn_loop(beat(shared.clone()));
    shared.spawn_loop(ping(shared.clone(), router.clone()));
    shared.spawn_loop(confirm(shared.clone()));
    shared.spawn_loop(gossip(shared.clone()));
    shared.spawn_loop(balance(shared.clone()));
    shared.spawn_loop(checkpoint(shared.clone()));
    shared.spawn_loop(moves::carry_out(shared.clone()));
    shared.spawn_loop(seal_old(shared.clone()));
    shared.spawn_loop(repair::mend(shared.clone()));
    shared.spawn_loop(repair::scrub(shared.clone()));
    shared.spawn_loop(erase::run(shared.clone()));
    shared.spawn_loop(moves::plan(shared.clone()));
    shared.spawn_loop(follow_directory(shared.clone(), router.clone()));
    shared.spawn_loop(write_first_entry(shared.clone()));
}

/// Heartbeats of all groups that this node leads, in the same moment: those for one peer leave in one packet, and
/// are answered in one.
async fn beat(shared: Arc<Shared>) {
    let mut clock = tokio::time::interval(Duration::from_millis(shared.config.timing.heartbeat_ms));
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        for group in shared.groups() {
            if group.sight().leads {
                group.beat();
            }
        }
    }
}

async fn ping(shared: Arc<Shared>, router: Arc<Router>) {
    let mut suspected: BTreeSet<NodeId> = BTreeSet::new();
    let mut clock = tokio::time::interval(Duration::from_millis(shared.config.timing.ping_ms));
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let ping_ms = shared.config.timing.ping_ms;
    let mut last = shared.clock.monotonic_ms();
    loop {
        clock.tick().await;
        let now = shared.clock.monotonic_ms();
        let late_ms = now.saturating_sub(last + ping_ms);
        last = now;
        if late_ms >= LATE_PINGS * ping_ms {
            shared.detector.stood_still(late_ms);
        }
        let directory = shared.view.get();
        let others = || directory.nodes.keys().filter(|node| **node != shared.node);
        shared.clock.agree(others().copied());
        for node in others() {
            shared.peers.ping(*node, shared.clock.own_wall_ms());
            if shared.detector.suspects(*node, now) {
                if suspected.insert(*node) {
                    tracing::info!(%node, "peer is silent");
                    router.on_suspect(*node);
                }
                // Refused by whoever still hears the leader, so asking again costs nothing.
                for group in shared
                    .groups()
                    .into_iter()
                    .filter(|group| group.leader_node() == Some(*node))
                {
                    tokio::spawn(async move { group.campaign().await });
                }
            } else if suspected.remove(node) {
                tracing::info!(%node, "peer is back");
            }
        }
    }
}

async fn confirm(shared: Arc<Shared>) {
    let mut clock = tokio::time::interval(CONFIRM_EVERY);
    loop {
        clock.tick().await;
        confirm_directory(&shared).await;
    }
}

/// Brings the copy of the directory up to what its leader has now. Returns whether a leader that was confirmed
/// meanwhile has vouched for it.
pub(crate) async fn confirm_directory(shared: &Arc<Shared>) -> bool {
    let asked_ms = shared.clock.monotonic_ms();
    let directory = shared.view.get();
    if let Some(group) = shared.group(GroupId::DIRECTORY)
        && group.sight().leads
    {
        let is_confirmed = group.confirms_directory().await;
        if is_confirmed {
            shared.view.confirm(asked_ms);
        }
        return is_confirmed;
    }
    let Some(leader) = shared.ask_leader(GroupId::DIRECTORY).await else {
        return false;
    };
    let asked = Request::Directory {
        known: directory.rank(),
    };
    let answer = shared
        .peers
        .call(leader, Lane::Control, asked, CONFIRM_EVERY)
        .await;
    let Ok((Response::Directory { newer, confirmed }, _)) = answer else {
        return false;
    };
    if let Some(newer) = newer.filter(|newer| newer.cluster_id == directory.cluster_id) {
        shared.view.offer(&newer);
    }
    if confirmed {
        shared.view.confirm(asked_ms);
    }
    confirmed
}

async fn gossip(shared: Arc<Shared>) {
    let mut clock = tokio::time::interval(GOSSIP_EVERY);
    let mut known = Vec::new();
    loop {
        clock.tick().await;
        shared.forming.ask_around(&shared).await;
        keep_roles(&shared).await;
        let now = shared.peers.known();
        if now != known {
            known = now;
            forming::remember(&shared);
        }
    }
}

/// A node that was started with other roles than last time, or was forgotten while it was away, tells the
/// directory.
async fn keep_roles(shared: &Arc<Shared>) {
    let directory = shared.view.get();
    let (node, roles) = (shared.node, shared.config.roles.clone());
    let is_known = |entry: &NodeEntry| entry.roles == roles || entry.state == NodeState::Removed;
    if !directory.is_formed() || directory.nodes.get(&node).is_some_and(is_known) {
        return;
    }
    let put = DirectoryCommand::NodePut { node, roles };
    if let Err(error) = shared.change_directory(put).await {
        tracing::warn!(%error, "cannot tell the cluster of this node's roles");
    }
}

async fn balance(shared: Arc<Shared>) {
    let mut clock = tokio::time::interval(BALANCE_EVERY);
    loop {
        clock.tick().await;
        let led: Vec<Arc<Group>> = shared
            .groups()
            .into_iter()
            // A snapshot that is being sent to a new replica begins anew with the next leader.
            .filter(|group| group.sight().leads && group.members().learners.is_empty())
            .collect();
        let leaders = led
            .iter()
            .map(|group| (group.id().group, group.id().replica))
            .collect::<BTreeMap<_, _>>();
        let now = shared.clock.monotonic_ms();
        let alive = |node: NodeId| shared.detector.is_alive(node, now);
        for step in leader_moves(&shared.view.get(), &leaders, &alive) {
            if let Some(group) = shared.group(step.group)
                && group.hand_over(step.to).await
            {
                tracing::info!(group = %step.group, to = step.to.0, "handed leadership to the preferred replica");
            }
        }
    }
}

/// Makes state and events durable, then lets go of the log below. Regularly, and out of turn when
/// the journal fills up.
async fn checkpoint(shared: Arc<Shared>) {
    let mut last = tokio::time::Instant::now();
    let mut clock = tokio::time::interval(PRESSURE_EVERY);
    loop {
        clock.tick().await;
        let pins = shared.pins_of_journal();
        if pins.is_empty() && last.elapsed() < shared.config.checkpoint_every {
            continue;
        }
        last = tokio::time::Instant::now();
        for group in shared.groups() {
            // A few entries of a quiet group would hold the first segment, and with it all after it, for ever.
            let is_pinning = pins.contains(&group.id());
            let keep_from = match is_pinning {
                true => shared.first_kept_when_full(group.id()),
                false => Some((group.sight().last + 1).saturating_sub(ENTRIES_KEPT)),
            };
            if let Err(error) = checkpoint_group(&group, keep_from, is_pinning).await {
                Alarm::CheckpointFailed.raise();
                tracing::error!(replica = %group.id(), %error, "cannot make a checkpoint");
            }
        }
    }
}

/// Keeps the log from entry `keep_from` on, or nothing of it; with `parks` an open block of events needs none of
/// what goes.
async fn checkpoint_group(group: &Arc<Group>, keep_from: Option<u64>, parks: bool) -> Result<(), StoreError> {
    let applied = group.machine().machine().lock().await.applied();
    let Some(applied) = applied else { return Ok(()) };
    let (store, events) = (group.store().clone(), group.events().cloned());
    let synced = blocking(move || {
        // The last entry with events. Entries behind it may have had frames that were all rejected: nothing
        // in the event log tells that it has passed them, so a start feeds them again and needs the notes.
        let last_run = events.as_ref().map_or(0, |events| events.applied_index());
        let events_upto = events
            .map(|events| events.checkpoint(applied.index, parks))
            .transpose()?;
        store.checkpoint()?;
        if mutant::is_on(Mutant::PurgeTooFar) {
            return Ok((applied.index, applied.index));
        }
        let durable = events_upto.unwrap_or(applied.index).min(applied.index);
        let passed = match mutant::is_on(Mutant::ForgetNoteEarly) {
            true => durable,
            false => durable.min(last_run),
        };
        Ok::<_, StoreError>((durable, passed))
    });
    let (durable, passed) = synced
        .await
        .map_err(|error| StoreError::io("sync stores", error))??;
    // Bit by bit: entries are applied in between.
    while group.machine().machine().lock().await.forget_verdicts(passed)? {}
    let upto = durable.min(keep_from.unwrap_or(u64::MAX).saturating_sub(1));
    let purged = group.log().state().purged.map_or(0, |at| at.index);
    if upto > purged {
        let raft = group.raft();
        // openraft lets go of what is in a snapshot, and both triggers only queue: asked for at once, it
        // would look at the snapshot of the round before.
        let mut taken = raft.watch_snapshot_progress();
        if taken.get().is_none_or(|at| at.index < upto) {
            let _ = raft.trigger().snapshot().await;
            let reached = taken.wait_until(|at| at.as_ref().is_some_and(|at| at.index >= upto));
            let _ = tokio::time::timeout(SNAPSHOT_WAIT_MAX, reached).await;
        }
        let snapshot = taken.get().map_or(0, |at| at.index);
        let bounds = Bounds {
            purged,
            wanted: upto,
            durable,
            snapshot,
        };
        let next = group.purge().next(bounds);
        if let Some(index) = next {
            let _ = raft.trigger().purge_log(index).await;
        }
    }
    Ok(())
}

/// Has the open segments of the groups that this node leads sealed when they have become old: what is
/// sealed is checked, mended and handed on as it is.
async fn seal_old(shared: Arc<Shared>) {
    let age = shared.config.segment_age;
    let mut clock = tokio::time::interval(SEAL_LOOK_EVERY.min(age));
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        let old_ms = shared.clock.wall_ms().saturating_sub(age.as_millis() as u64);
        for group in shared.groups().into_iter().filter(|group| group.sight().leads) {
            let Some(events) = group.events().cloned() else {
                continue;
            };
            let is_old = blocking(move || has_old_event(&*events, old_ms)).await;
            if is_old.unwrap_or(false) {
                group.seal();
            }
        }
    }
}

/// Whether the open segment has an event from before `old_ms`.
fn has_old_event(events: &dyn EventLog, old_ms: u64) -> bool {
    let (first, next) = events.range();
    let open = events
        .sealed_segments()
        .last()
        .map_or(first, |segment| segment.next_offset);
    let first_run = || events.read(open, 1).ok()?.into_iter().next();
    open < next && first_run().is_some_and(|run| run.time_ms < old_ms)
}

/// Starts and removes what the directory asks of this node, as it changes; and now and then, since a
/// removal may have to wait and a start for the removal.
async fn follow_directory(shared: Arc<Shared>, router: Arc<Router>) {
    let mut changes = shared.view.watch();
    // A node that was away may have been given up and its groups restarted without it: it asks around
    // before it wakes replicas that nobody wants any more.
    if shared.view.get().is_formed() {
        let _ = tokio::time::timeout(ASK_AROUND_MAX, shared.forming.ask_around(&shared)).await;
    }
    loop {
        let directory = shared.view.get();
        if directory.is_formed() {
            router.lay_lanes(&directory);
            shared.take_down_failed().await;
            sweep::remove_leftovers(&shared).await;
            shared.start_replicas(&directory).await;
        }
        match tokio::time::timeout(LOOK_AGAIN, changes.changed()).await {
            Ok(Ok(())) => forming::remember(&shared),
            Ok(Err(_)) => return,
            Err(_) => {}
        }
    }
}

/// Puts the layout that the founders agreed on into the directory's log, once somebody leads it.
async fn write_first_entry(shared: Arc<Shared>) {
    let mut clock = tokio::time::interval(CONFIRM_EVERY);
    loop {
        clock.tick().await;
        let Some(group) = shared.group(GroupId::DIRECTORY) else {
            continue;
        };
        if !group.sight().leads {
            continue;
        }
        let first = DirectoryCommand::Form(Box::new((*shared.view.get()).clone()));
        if group.change_directory(&first).await.is_ok() {
            return;
        }
    }
}
