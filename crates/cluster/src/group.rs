//! One replica of one group, running: openraft with our stores behind it and our network before it.
//!
//! As [`Replication`] it is what a shard proposes to. A watcher tells the shard when this replica
//! begins and ceases to lead; the shard hears of a leadership only when the first entry of its term
//! is applied, so that everything committed earlier is in its state.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use dunlin_model::command::{Query, ReadFrom, View};
use dunlin_model::directory::{DirectoryCommand, DirectoryRefusal};
use dunlin_model::id::{GroupId, GroupReplica, NodeId, ReplicaId, ShardId};
use dunlin_model::point::Point;
use dunlin_model::port::{
    AppliedSink, BoxFuture, EventLog, EventPage, Leadership, ProposeError, ReadError, Replication, ShardStore,
};
use dunlin_model::shard::{Batch, Part, erase, read};
use dunlin_storage::journal::ReplicaLog;
use futures_util::FutureExt;
use futures_util::stream::{FuturesUnordered, StreamExt};
use openraft::ChangeMembers;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::ClientWriteError;
use openraft::impls::ProgressResponder;
use tokio::sync::{
    Mutex, Notify, OwnedMutexGuard, OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock, mpsc, oneshot,
};

use crate::config::Timing;
use crate::directory::DirectoryView;
use crate::purge::Purge;
use crate::raft::confirm::{CONFIRM_TIMEOUT, Confirmer, Resigned};
use crate::raft::machine::Machine;
use crate::raft::network::Network;
use crate::raft::state_machine::StateMachine;
use crate::raft::{EntryBody, LogId, Place, Raft, Reply, TypeConfig, body, convert, log_store::LogStore};
use crate::replicas::Trouble;
use crate::room::Room;
use crate::transport::Peers;

/// Proposals that wait to be handed to openraft; a shard keeps fewer in flight.
const PROPOSALS_QUEUED_MAX: usize = 64;

/// Entries that a member may lack and still be taken for caught up; a joint change waits for the rest.
const CATCH_UP_LAG_MAX: u64 = 64;
/// Pause before a replica that could not prove its leadership tries again.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

type Ended = Result<Reply, ProposeError>;
type Successor = Arc<std::sync::Mutex<Option<NodeId>>>;

/// Runs of replicas that this process has begun.
static RUNS: AtomicU64 = AtomicU64::new(0);

/// A running replica.
pub(crate) struct Group {
    id: GroupReplica,
    /// Which run in this process it is.
    run: u64,
    raft: Raft,
    log: ReplicaLog,
    machine: StateMachine,
    store: Arc<dyn ShardStore>,
    events: Option<Arc<dyn EventLog>>,
    proposals: mpsc::Sender<(EntryBody, oneshot::Sender<Ended>)>,
    confirmer: Confirmer,
    room: Arc<Room>,
    view: Arc<DirectoryView>,
    /// A proposal came to nothing: the shard has given its leadership up and waits to hear of it again.
    refused: Arc<Notify>,
    /// Held while a step in changing the members is taken.
    stepping: Arc<Mutex<()>>,
    /// Held by whoever counts on sealed segments staying as they are; one that is written again is taken for it.
    segments: Arc<RwLock<()>>,
    /// Who was asked to take over; nobody once this replica leads again.
    successor: Successor,
    /// In which term it asked.
    resigned: Resigned,
    purge: std::sync::Mutex<Purge>,
}

/// What a group is seen to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct GroupSight {
    pub(crate) term: u64,
    pub(crate) leader: Option<(ReplicaId, Option<NodeId>)>,
    pub(crate) leads: bool,
    pub(crate) applied: u64,
    pub(crate) last: u64,
}

/// The members of a group, as its log has them here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Members {
    /// Those whose majority counts; of the later half while two memberships are joined.
    pub(crate) voters: BTreeSet<ReplicaId>,
    /// Those that are only filled.
    pub(crate) learners: BTreeSet<ReplicaId>,
    /// Everyone of the last committed membership and of the earlier half of a joint one: they are members
    /// until the change that leaves them out is committed.
    former: BTreeSet<ReplicaId>,
    /// Whether the membership is committed.
    pub(crate) is_committed: bool,
    /// Whether it is two that are joined.
    pub(crate) is_joint: bool,
    /// Where it stands in the log.
    pub(crate) index: u64,
}

impl Members {
    /// Everyone, whatever their part.
    pub(crate) fn all(&self) -> BTreeSet<ReplicaId> {
        let all = self.voters.iter().chain(&self.learners).chain(&self.former);
        all.copied().collect()
    }
}

fn places(nodes: BTreeMap<ReplicaId, NodeId>) -> BTreeMap<u64, Place> {
    nodes.into_iter().map(|(id, node)| (id.0, Place(node))).collect()
}

fn raft_config(group: GroupId, timing: &Timing) -> openraft::Config {
    openraft::Config {
        cluster_name: group.to_string(),
        // The node beats for all its groups at once: see `beat` of `crate::maintenance`. What is left of the
        // interval is how often openraft looks at its clocks, a fifth of it, and it must stay below the time-out.
        enable_heartbeat: false,
        heartbeat_interval: timing.election_min_ms * 5 / 6,
        election_timeout_min: timing.election_min_ms,
        election_timeout_max: timing.election_max_ms,
        enable_pre_vote: Some(true),
        // A leader that restarts asks for votes again: its state may be behind what it once applied.
        enable_leader_restore: Some(false),
        quorum_loss_probe_interval: Some(2 * timing.election_max_ms),
        install_snapshot_timeout: 30_000,
        // Snapshots and purges come from our checkpoints alone.
        snapshot_policy: openraft::SnapshotPolicy::Never,
        max_in_snapshot_log_to_keep: u64::MAX,
        max_payload_entries: 16,
        // A follower whose disk was put back to an older state has less than it once confirmed. Its leader
        // must outlive that, and send it again what it lacks.
        allow_log_reversion: Some(true),
        ..openraft::Config::default()
    }
}

impl Group {
    pub(crate) async fn start(
        id: GroupReplica,
        log: ReplicaLog,
        machine: StateMachine,
        peers: Arc<Peers>,
        (timing, room, view): (&Timing, Arc<Room>, Arc<DirectoryView>),
    ) -> Result<Arc<Self>, Trouble> {
        let failed = |error: &dyn std::fmt::Display| Trouble::Failed(error.to_string());
        let config = raft_config(id.group, timing)
            .validate()
            .map_err(|error| failed(&error))?;
        let (store, events) = {
            let machine = machine.machine().lock().await;
            (machine.store().clone(), machine.events().cloned())
        };
        machine.refill().await.map_err(|error| match error.kind() {
            std::io::ErrorKind::InvalidData => Trouble::Damaged(error.to_string()),
            _ => failed(&error),
        })?;
        let network = Network {
            group: id.group,
            peers: peers.clone(),
            heartbeat_wait: Duration::from_millis(timing.heartbeat_ms),
        };
        let raft = Raft::new(
            id.replica.0,
            Arc::new(config),
            network,
            LogStore::new(log.clone()),
            machine.clone(),
        )
        .await
        .map_err(|error| failed(&error))?;
        let (proposals, queue) = mpsc::channel(PROPOSALS_QUEUED_MAX);
        tokio::spawn(propose_in_order(raft.clone(), queue));
        let resigned = Resigned::default();
        let confirmer = Confirmer::start(id.group, raft.clone(), peers, resigned.clone());
        let refused = Arc::default();
        Ok(Arc::new(Self {
            id,
            run: RUNS.fetch_add(1, Ordering::Relaxed),
            raft,
            log,
            machine,
            store,
            events,
            proposals,
            confirmer,
            room,
            view,
            refused,
            stepping: Arc::default(),
            segments: Arc::default(),
            successor: Successor::default(),
            resigned,
            purge: std::sync::Mutex::default(),
        }))
    }

    pub(crate) fn id(&self) -> GroupReplica {
        self.id
    }

    pub(crate) fn run(&self) -> u64 {
        self.run
    }

    pub(crate) fn raft(&self) -> &Raft {
        &self.raft
    }

    pub(crate) fn log(&self) -> &ReplicaLog {
        &self.log
    }

    pub(crate) fn purge(&self) -> std::sync::MutexGuard<'_, Purge> {
        self.purge.lock().expect("no panic holds it")
    }

    pub(crate) fn store(&self) -> &Arc<dyn ShardStore> {
        &self.store
    }

    pub(crate) fn events(&self) -> Option<&Arc<dyn EventLog>> {
        self.events.as_ref()
    }

    /// The room of this node.
    pub(crate) fn room(&self) -> &Arc<Room> {
        &self.room
    }

    pub(crate) fn machine(&self) -> &StateMachine {
        &self.machine
    }

    /// Makes `founders`, this replica among them, the first members of a group that has none.
    pub(crate) async fn initialize(&self, founders: BTreeMap<ReplicaId, NodeId>) {
        if let Err(error) = self.raft.initialize(places(founders)).await {
            tracing::debug!(replica = %self.id, %error, "group is initialised already");
        }
    }

    /// Whether the group has ever had members here.
    pub(crate) async fn is_initialized(&self) -> bool {
        self.raft.is_initialized().await.unwrap_or(true)
    }

    pub(crate) fn sight(&self) -> GroupSight {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let leader = metrics.current_leader.map(|leader| {
            (
                ReplicaId(leader),
                membership.get_node(&leader).map(|place| place.0),
            )
        });
        GroupSight {
            term: metrics.current_term,
            leader,
            leads: metrics.state == openraft::ServerState::Leader
                && metrics.current_leader == Some(metrics.id),
            applied: metrics.last_applied.map_or(0, |id| id.index),
            last: metrics.last_log_index.unwrap_or(0),
        }
    }

    /// The node that leads, as far as this replica knows.
    pub(crate) fn leader_node(&self) -> Option<NodeId> {
        self.sight().leader.and_then(|(_, node)| node)
    }

    /// As the directory's leader: proves that it leads, and that the directory is laid down in the log.
    pub(crate) async fn confirms_directory(&self) -> bool {
        let is_laid_down = match &*self.machine.machine().lock().await {
            Machine::Directory(directory) => directory.is_formed(),
            Machine::Shard(_) => false,
        };
        is_laid_down && self.sight().leads && self.read_barrier().await.is_ok()
    }

    /// Why openraft has given this replica up, if it has: its disk or its state machine failed.
    pub(crate) fn failed(&self) -> Option<String> {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        metrics.running_state.as_ref().err().map(ToString::to_string)
    }

    /// Its members, as the last membership in this replica's log says, committed or not.
    pub(crate) fn members(&self) -> Members {
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let membership = metrics.membership_config.membership();
        let configs = membership.get_joint_config();
        let ids = |ids: &BTreeSet<u64>| ids.iter().map(|id| ReplicaId(*id)).collect::<BTreeSet<_>>();
        let committed = metrics.committed_membership_config.membership();
        let mut former = configs.first().map(ids).unwrap_or_default();
        former.extend(committed.nodes().map(|(id, _)| ReplicaId(*id)));
        Members {
            voters: configs.last().map(ids).unwrap_or_default(),
            learners: membership.learner_ids().map(ReplicaId).collect(),
            former,
            is_committed: metrics.membership_config == metrics.committed_membership_config,
            is_joint: configs.len() > 1,
            index: metrics
                .membership_config
                .log_id()
                .as_ref()
                .map_or(0, |at| at.index),
        }
    }

    /// Members that have all but a few entries of this leader's log; none if it does not lead.
    pub(crate) fn caught_up(&self) -> BTreeSet<ReplicaId> {
        self.members_where(|lag| lag <= CATCH_UP_LAG_MAX)
    }

    /// Members that lack more than that; none if this replica does not lead.
    pub(crate) fn behind(&self) -> BTreeSet<ReplicaId> {
        self.members_where(|lag| lag > CATCH_UP_LAG_MAX)
    }

    /// Members by how many entries of this leader's log they lack: without end for one that only a snapshot helps.
    fn members_where(&self, lag: impl Fn(u64) -> bool) -> BTreeSet<ReplicaId> {
        let begin = self.log.state().purged.map_or(0, |at| at.index);
        let metrics = self.raft.metrics();
        let metrics = metrics.borrow_watched();
        let last = metrics.last_log_index.unwrap_or(0);
        let lag_of = |matched: &Option<LogId>| match matched {
            Some(at) if at.index >= begin => last.saturating_sub(at.index),
            _ => u64::MAX,
        };
        let members = metrics.replication.iter().flatten();
        members
            .filter(|(_, matched)| lag(lag_of(matched)))
            .map(|(id, _)| ReplicaId(*id))
            .collect()
    }

    /// Sealed segments stay what they are until this is dropped.
    pub(crate) async fn hold_segments(&self) -> OwnedRwLockReadGuard<()> {
        self.segments.clone().read_owned().await
    }

    /// The right to write sealed segments again, until dropped; `None` while somebody counts on them.
    pub(crate) fn begin_rewrite(&self) -> Option<OwnedRwLockWriteGuard<()>> {
        self.segments.clone().try_write_owned().ok()
    }

    /// The right to take a step in changing the members, until dropped; `None` while another is taken.
    pub(crate) fn begin_step(&self) -> Option<OwnedMutexGuard<()>> {
        self.stepping.clone().try_lock_owned().ok()
    }

    /// Begins to fill `learners`.
    pub(crate) async fn add_learners(&self, learners: BTreeMap<ReplicaId, NodeId>) -> Result<(), String> {
        self.change_members(ChangeMembers::AddNodes(places(learners)), true)
            .await
    }

    /// Ceases to fill `learners`.
    pub(crate) async fn drop_learners(&self, learners: BTreeSet<ReplicaId>) -> Result<(), String> {
        let ids = learners.into_iter().map(|id| id.0).collect();
        self.change_members(ChangeMembers::RemoveNodes(ids), true).await
    }

    /// Makes `voters` the voters, by way of a joint membership. Voters that are left out are no members
    /// any more.
    pub(crate) async fn change_voters(&self, voters: BTreeSet<ReplicaId>) -> Result<(), String> {
        let ids = voters.into_iter().map(|id| id.0).collect();
        self.change_members(ChangeMembers::ReplaceAllVoters(ids), false)
            .await
    }

    async fn change_members(&self, change: ChangeMembers<u64, Place>, retain: bool) -> Result<(), String> {
        let changed = self.raft.change_membership(change, retain).await;
        changed.map(|_| ()).map_err(|error| error.to_string())
    }

    /// As leader, tells the followers that it is there. What is not taken at once is left out: a core with a full
    /// queue has entries to send, which say the same.
    pub(crate) fn beat(&self) {
        let _ = self.raft.trigger().heartbeat().now_or_never();
    }

    /// Campaigns, if the others let go of their leader: asks first, so a live leader is not disturbed.
    pub(crate) async fn campaign(&self) {
        Point::SuspectedLeader.reach();
        let _ = self.raft.trigger().elect(true).await;
    }

    /// Hands leadership to `to` if it has everything. Returns whether it was asked to take over.
    pub(crate) async fn hand_over(&self, to: ReplicaId) -> bool {
        let (is_caught_up, successor, term) = {
            let metrics = self.raft.metrics();
            let metrics = metrics.borrow_watched();
            let matched = metrics
                .replication
                .as_ref()
                .and_then(|replication| replication.get(&to.0).copied().flatten());
            let node = metrics.membership_config.membership().get_node(&to.0);
            (
                matched.map(|id| id.index) == metrics.last_log_index,
                node.map(|place| place.0),
                metrics.current_term,
            )
        };
        if !is_caught_up {
            return false;
        }
        // Before the shard hears that it is over, so that whoever asks is sent there.
        *self.successor.lock().expect("no panic holds it") = successor;
        self.resigned.resign(term);
        let is_asked = self.raft.trigger().transfer_leader(to.0).await.is_ok();
        if is_asked {
            Point::HandedOver.reach();
        }
        is_asked
    }

    pub(crate) async fn change_directory(
        &self,
        command: &DirectoryCommand,
    ) -> Result<Result<Option<ReplicaId>, DirectoryRefusal>, ProposeError> {
        match self.propose_body(body::directory(command)).await? {
            Reply::Directory(result) => Ok(result),
            Reply::Done => Ok(Ok(None)),
        }
    }

    /// Has the event log cut on all replicas, whatever the journal's room: cutting is what frees it.
    pub(crate) fn seal(&self) {
        let seal = Batch {
            time_ms: 0,
            parts: vec![Part::Seal],
        };
        tokio::spawn(self.propose_body(body::batch(&seal)));
    }

    /// Stops taking part. Entries that are under way may or may not be committed by the others.
    pub(crate) async fn stop(&self) {
        let _ = self.raft.shutdown().await;
        self.machine.close().await;
    }

    fn propose_body(&self, body: EntryBody) -> BoxFuture<'static, Ended> {
        let (sender, receiver) = oneshot::channel();
        // Queued here and now, so that calls are taken in order.
        match self.proposals.try_send((body, sender)) {
            Ok(()) => async move { receiver.await.unwrap_or(Err(ProposeError::Unknown)) }.boxed(),
            Err(_) => async { Err(ProposeError::NotLeader { hint: None }) }.boxed(),
        }
    }

    /// Tells `sink` when this replica of `shard` leads, until the group stops.
    pub(crate) fn announce(self: &Arc<Self>, shard: ShardId, sink: Arc<dyn AppliedSink>) {
        let group = self.clone();
        tokio::spawn(async move { group.watch_leadership(shard, sink).await });
    }

    /// Whether this replica leads in `term`, as others will see it. The first entry that a leader commits proves
    /// it for once; a leader that was announced before, and may have been replaced since, asks a majority.
    async fn proves_leadership(&self, term: u64, again: bool) -> bool {
        let proof = async {
            if again {
                return self.confirmer.confirm().await;
            }
            let mut data = self.raft.data_metrics();
            loop {
                let applied = data.borrow_watched().last_applied;
                if applied.is_some_and(|id| convert::position(&id).term == term) {
                    return true;
                }
                if data.changed().await.is_err() {
                    return false;
                }
            }
        };
        tokio::time::timeout(CONFIRM_TIMEOUT, proof)
            .await
            .unwrap_or(false)
    }

    async fn watch_leadership(&self, shard: ShardId, sink: Arc<dyn AppliedSink>) {
        let mut changes = self.raft.server_metrics();
        let mut led: Option<u64> = None;
        let mut announced = None;
        let mut followed = None;
        loop {
            let (leads, term) = {
                let metrics = changes.borrow_watched();
                let term = metrics.vote.leader_id.term;
                let leads = metrics.state == openraft::ServerState::Leader
                    && metrics.current_leader == Some(metrics.id);
                (leads && !self.resigned.is_in(term), term)
            };
            if leads && led != Some(term) {
                let is_proved = tokio::select! {
                    is_proved = self.proves_leadership(term, announced == Some(term)) => is_proved,
                    changed = changes.changed() => match changed {
                        Ok(()) => continue,
                        Err(_) => return,
                    },
                };
                if is_proved {
                    announced = Some(term);
                    *self.successor.lock().expect("no panic holds it") = None;
                    led = Some(term);
                    followed = None;
                    let (streams, time_ms, applied) = {
                        let machine = self.machine.machine().lock().await;
                        let (streams, time_ms) = machine.leadership();
                        (streams, time_ms, machine.applied().map_or(0, |at| at.index))
                    };
                    Point::LeaderChanged.reach();
                    tracing::info!(replica = %self.id, term, "leads");
                    sink.on_leader(
                        shard,
                        Leadership {
                            term,
                            applied_index: applied,
                            time_ms,
                            streams,
                        },
                    );
                } else {
                    // Lost again, or no majority yet: look once more.
                    let changed = tokio::time::timeout(LOOK_AGAIN, changes.changed()).await;
                    if matches!(changed, Ok(Err(_))) {
                        return;
                    }
                    continue;
                }
            } else if !leads {
                let leader = self.leader_node().or_else(|| known(&self.successor));
                if led.take().is_some() || followed != Some(leader) {
                    followed = Some(leader);
                    sink.on_follower(shard, leader);
                }
            }
            let changed = tokio::select! {
                changed = changes.changed() => changed.is_ok(),
                // The shard let go of a leadership that this replica may still have.
                () = self.refused.notified() => {
                    led = None;
                    true
                }
            };
            if !changed {
                if led.is_some() {
                    sink.on_follower(shard, None);
                }
                return;
            }
        }
    }
}

/// Hands proposals to openraft one after the other; their ends come whenever they come.
async fn propose_in_order(raft: Raft, mut queue: mpsc::Receiver<(EntryBody, oneshot::Sender<Ended>)>) {
    let mut under_way = FuturesUnordered::new();
    loop {
        tokio::select! {
            biased;
            Some(()) = under_way.next(), if !under_way.is_empty() => {}
            proposal = queue.recv() => {
                let Some((body, ended)) = proposal else { break };
                let (responder, receiver) = ProgressResponder::<TypeConfig, _>::complete_only();
                if raft.client_write_ff(body, Some(responder)).await.is_err() {
                    let _ = ended.send(Err(ProposeError::NotLeader { hint: None }));
                    continue;
                }
                under_way.push(async move {
                    let end = match receiver.await {
                        Ok(Ok(response)) => Ok(response.data),
                        Ok(Err(error)) => Err(propose_error(error)),
                        Err(_) => Err(ProposeError::Unknown),
                    };
                    let _ = ended.send(end);
                });
            }
        }
    }
    while under_way.next().await.is_some() {}
}

fn known(successor: &Successor) -> Option<NodeId> {
    *successor.lock().expect("no panic holds it")
}

fn propose_error(error: ClientWriteError<TypeConfig>) -> ProposeError {
    match error {
        ClientWriteError::ForwardToLeader(to) => ProposeError::NotLeader {
            hint: to.leader_node.map(|place| place.0),
        },
        _ => ProposeError::Unknown,
    }
}

impl Replication for Group {
    fn propose(&self, mut batch: Batch) -> BoxFuture<'static, Result<(), ProposeError>> {
        // Refused here, where it has no effect: an append that the journal refuses ends the replica.
        if !self.room.is_there() {
            return async { Err(ProposeError::Full) }.boxed();
        }
        batch.announce(|| self.view.load().routing.announced());
        let (ended, refused) = (self.propose_body(body::batch(&batch)), self.refused.clone());
        let successor = self.successor.clone();
        async move {
            let end = match ended.await {
                Err(ProposeError::NotLeader { hint: None }) => Err(ProposeError::NotLeader {
                    hint: known(&successor),
                }),
                end => end,
            };
            if matches!(end, Err(ProposeError::NotLeader { .. } | ProposeError::Unknown)) {
                refused.notify_one();
            }
            end.map(|_| ())
        }
        .boxed()
    }

    fn read_barrier(&self) -> BoxFuture<'static, Result<(), ProposeError>> {
        let sight = self.sight();
        let elsewhere = sight.leader.filter(|_| !sight.leads);
        let (confirmer, hint) = (self.confirmer.clone(), elsewhere.and_then(|(_, node)| node));
        async move {
            match confirmer.confirm().await {
                true => Ok(()),
                false => Err(ProposeError::NotLeader { hint }),
            }
        }
        .boxed()
    }

    fn read(&self, query: &Query) -> Result<View, ReadError> {
        let mut view =
            read::read(&*self.store, query).map_err(|error| ReadError::Store(error.to_string()))?;
        if let (View::Shard(shard), Some(events)) = (&mut view, &self.events) {
            shard.first_offset = events.range().0;
            shard.term = self.sight().term;
        }
        Ok(view)
    }

    fn read_events(&self, from: ReadFrom, bytes_max: usize) -> Result<EventPage, ReadError> {
        let failed = |error: dunlin_model::port::StoreError| ReadError::Store(error.to_string());
        let events = self.events.as_ref().ok_or(ReadError::NotLeader { hint: None })?;
        let (first_offset, next_offset) = events.range();
        let from = match from {
            ReadFrom::Offset(offset) => offset,
            ReadFrom::TimeMs(time) => events.offset_at(time).map_err(failed)?,
            ReadFrom::End => next_offset,
        };
        let mut runs = if from < next_offset {
            events.read(from, bytes_max).map_err(failed)?
        } else {
            Vec::new()
        };
        erase::hide(&*self.store, &mut runs).map_err(failed)?;
        Ok(EventPage {
            runs,
            from,
            first_offset,
            next_offset,
        })
    }
}
