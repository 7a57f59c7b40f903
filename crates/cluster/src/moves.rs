//! Replicas on the move: the leader of the directory plans, the leader of each group carries out.
//!
//! What to do is decided in `model`: [`placement::plan`] says which replicas there shall be,
//! [`membership::next_step`] how a group gets there. Here both are shown what there is, and their words
//! become calls. Every step can be lost: the next look finds the same difference again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use dunlin_model::alarm::Alarm;
use dunlin_model::directory::membership::{self, Sight, Step};
use dunlin_model::directory::placement::{self, Observed, Presence};
use dunlin_model::directory::{Directory, DirectoryCommand};
use dunlin_model::id::{GroupId, NodeId, ReplicaId};
use dunlin_model::point::Point;
use dunlin_model::port::Clock as _;

use crate::admin::NodeStatus;
use crate::group::Group;
use crate::node::Shared;

/// Between two looks of a leader at its groups' members.
const CARRY_OUT_EVERY: Duration = Duration::from_millis(200);
/// Between two plans of the directory's leader.
const PLAN_EVERY: Duration = Duration::from_millis(500);
/// How long a step may take before the leader looks anew. What it began goes on by itself.
const STEP_TIMEOUT: Duration = Duration::from_secs(20);

/// Brings the members of the groups that this node leads in line with the directory.
pub(crate) async fn carry_out(shared: Arc<Shared>) {
    let mut clock = tokio::time::interval(CARRY_OUT_EVERY);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        // On an old copy of the directory nothing is taken apart.
        if !shared.view.is_current(shared.clock.monotonic_ms()) {
            continue;
        }
        let directory = shared.view.get();
        for group in shared.groups() {
            let (step, index) = next_step(&shared, &directory, &group);
            if step == Step::Nothing {
                continue;
            }
            let shared = shared.clone();
            // One step of a group at a time; the groups beside each other.
            if let Some(turn) = group.begin_step() {
                tokio::spawn(async move {
                    let taking = take_step(&shared, &group, step.clone(), index);
                    match tokio::time::timeout(STEP_TIMEOUT, taking).await {
                        Ok(Ok(())) => tracing::info!(replica = %group.id(), ?step, "moved on"),
                        Ok(Err(reason)) => {
                            tracing::debug!(replica = %group.id(), ?step, reason, "a step is tried again");
                        }
                        Err(_) => tracing::warn!(replica = %group.id(), ?step, "a step takes long"),
                    }
                    drop(turn);
                });
            }
        }
    }
}

/// What the group needs next, and the log index of the membership that this was seen in.
fn next_step(shared: &Shared, directory: &Directory, group: &Group) -> (Step, u64) {
    let Some(entry) = directory.groups.get(&group.id().group) else {
        return (Step::Nothing, 0);
    };
    if !group.sight().leads {
        return (Step::Nothing, 0);
    }
    let members = group.members();
    let now = shared.clock.monotonic_ms();
    let sight = Sight {
        me: group.id().replica,
        voters: &members.voters,
        learners: &members.learners,
        is_committed: members.is_committed,
        is_joint: members.is_joint,
        caught_up: &group.caught_up(),
        is_alive: &|node| node == shared.node || shared.detector.is_alive(node, now),
    };
    (membership::next_step(entry, &sight), members.index)
}

async fn take_step(shared: &Shared, group: &Group, step: Step, index: u64) -> Result<(), String> {
    match step {
        Step::Nothing => Ok(()),
        Step::AddLearners(learners) => group.add_learners(learners).await,
        Step::DropLearners(learners) => group.drop_learners(learners).await,
        Step::ChangeVoters(voters) => group.change_voters(voters).await,
        Step::HandOver(to) => {
            let asked = group.hand_over(to).await;
            asked
                .then_some(())
                .ok_or_else(|| "it has not caught up".to_owned())
        }
        Step::Report(voters) => {
            let settled = DirectoryCommand::Settled {
                group: group.id().group,
                voters,
                index,
            };
            let changed = shared.change_directory(settled).await;
            changed.map(|_| ()).map_err(|error| error.to_string())
        }
    }
}

/// Plans, while this node leads the directory.
pub(crate) async fn plan(shared: Arc<Shared>) {
    let mut clock = tokio::time::interval(PLAN_EVERY);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut leads_since_ms = None;
    loop {
        clock.tick().await;
        let group = shared.group(GroupId::DIRECTORY);
        let now = shared.clock.monotonic_ms();
        let Some(group) = group.filter(|group| group.sight().leads && shared.view.is_current(now)) else {
            leads_since_ms = None;
            continue;
        };
        // Silence counts from when this node began to watch over the cluster.
        let since = *leads_since_ms.get_or_insert(now);
        let directory = shared.view.get();
        let answers = shared.ask_statuses(&directory).await;
        let observed = observe(&shared, &directory, &answers, since);
        for command in placement::plan(&directory, &observed) {
            tracing::info!(?command, "plans");
            match group.change_directory(&command).await {
                Ok(Ok(_)) => {
                    if mends(&command, &observed) {
                        Point::ReplicaMadeAnew.reach();
                        Alarm::ReplicaMadeAnew.raise();
                    }
                }
                Ok(Err(refusal)) => tracing::debug!(?command, %refusal, "the directory has moved on"),
                // No leader any more, or unknown: the next plan begins with what came of it.
                Err(_) => break,
            }
        }
    }
}

/// Whether this replaces a replica that is damaged.
fn mends(command: &DirectoryCommand, observed: &Observed) -> bool {
    match command {
        DirectoryCommand::ReplicaAdd {
            group,
            replaces: Some(replica),
            ..
        } => observed.damaged.contains(&(*group, *replica)),
        _ => false,
    }
}

fn observe(
    shared: &Shared,
    directory: &Directory,
    answers: &BTreeMap<NodeId, NodeStatus>,
    since_ms: u64,
) -> Observed {
    let now = shared.clock.monotonic_ms();
    let replace_after_ms = shared.config.replace_after.as_millis() as u64;
    let presence = |node: &NodeId| {
        let silent_ms = now.saturating_sub(shared.detector.last_heard(*node).unwrap_or(0).max(since_ms));
        if *node == shared.node || shared.detector.is_alive(*node, now) {
            Presence::Alive
        } else if silent_ms > replace_after_ms {
            Presence::Dead
        } else {
            Presence::Silent
        }
    };
    let mut damaged: BTreeSet<(GroupId, ReplicaId)> = BTreeSet::new();
    let mut led: BTreeSet<GroupId> = BTreeSet::new();
    for status in answers.values() {
        damaged.extend(
            status
                .damaged
                .iter()
                .map(|replica| (GroupId(replica.group), ReplicaId(replica.replica))),
        );
        let leads = status.groups.iter().filter(|(_, group)| group.leads);
        led.extend(leads.map(|(group, _)| GroupId(*group)));
    }
    Observed {
        nodes: directory
            .nodes
            .keys()
            .map(|node| (*node, presence(node)))
            .collect(),
        damaged,
        led,
    }
}
