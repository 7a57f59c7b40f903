//! openraft's state machine over a [`Machine`]: entries in order, never ahead of the local journal.
//!
//! openraft may hand over entries that this node has not synced yet. Applying those would let the
//! state survive a power cut that the log does not, and the replica would lack them for good; so an
//! entry waits here until the journal has it (I14).

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use dunlin_model::id::{GroupReplica, LogPosition};
use dunlin_model::limits::READ_BYTES_MAX;
use dunlin_model::mutant::{self, Mutant};
use dunlin_model::point::Point;
use dunlin_model::port::{StoreError, WriteBatch};
use dunlin_model::shard::keys::MEMBERSHIP;
use dunlin_storage::journal::ReplicaLog;
use futures_util::{Stream, TryStreamExt};
use openraft::storage::{EntryResponder, RaftSnapshotBuilder, RaftStateMachine};
use openraft::{EntryPayload, OptionalSend};
use tokio::sync::Mutex;

use super::machine::Machine;
use super::snapshot::SnapshotData;
use super::{LogId, Reply, StoredMembership, TypeConfig, body, convert};
use crate::blocking::blocking;
use crate::codec;
use crate::messages::WireMembership;
use crate::witness::{Witness, Word};

type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotData>;

/// The state machine of one replica. Clones share it.
#[derive(Clone)]
pub(crate) struct StateMachine {
    id: GroupReplica,
    log: ReplicaLog,
    machine: Arc<Mutex<Machine>>,
    /// Set under the machine's lock, and never taken back.
    is_closed: Arc<AtomicBool>,
    witness: Option<Arc<dyn Witness>>,
    /// openraft's suite for stores leaves entries out, as no log does.
    #[cfg(test)]
    pub(super) takes_gaps: bool,
}

impl StateMachine {
    pub(crate) fn new(id: GroupReplica, log: ReplicaLog, machine: Machine) -> Self {
        Self {
            id,
            log,
            machine: Arc::new(Mutex::new(machine)),
            is_closed: Arc::default(),
            witness: None,
            #[cfg(test)]
            takes_gaps: false,
        }
    }

    /// The same, heard by `witness` from now on.
    pub(crate) fn heard_by(self, witness: Option<Arc<dyn Witness>>) -> Self {
        Self { witness, ..self }
    }

    /// Tells the witness what is about to be applied.
    fn tell(&self, position: LogPosition, payload: &EntryPayload<super::EntryBody, u64, super::Place>) {
        let Some(witness) = &self.witness else { return };
        witness.handle_word(self.id, Word::Applied(position));
        if let EntryPayload::Membership(membership) = payload {
            let configs = membership.get_joint_config().clone();
            witness.handle_word(self.id, Word::Members(position, configs));
        }
    }

    /// Refuses an entry that is not the next one: whatever brought it here, this replica would differ from its peers.
    fn check_next(&self, machine: &Machine, position: LogPosition) -> Result<(), io::Error> {
        #[cfg(test)]
        if self.takes_gaps {
            return Ok(());
        }
        match machine.applied() {
            Some(applied) if applied.index + 1 < position.index => {
                let reason = format!("entry {} comes behind entry {}", position.index, applied.index);
                Err(io::Error::new(io::ErrorKind::InvalidData, reason))
            }
            _ => Ok(()),
        }
    }

    /// Nothing is applied or installed after this returns. openraft's worker outlives a core that has failed for
    /// as long as it has entries, and would go on with them beside the replica that is started in its place:
    /// two machines over one store, each with a position of its own.
    pub(crate) async fn close(&self) {
        let _machine = self.machine.lock().await;
        self.is_closed.store(true, Ordering::Relaxed);
    }

    fn check_open(&self) -> Result<(), io::Error> {
        match self.is_closed.load(Ordering::Relaxed) {
            true => Err(io::Error::other("the replica was taken down")),
            false => Ok(()),
        }
    }

    /// The machine, between two entries.
    pub(crate) fn machine(&self) -> &Arc<Mutex<Machine>> {
        &self.machine
    }

    /// The membership as of the last applied membership entry.
    fn membership(machine: &Machine) -> Result<StoredMembership, StoreError> {
        match machine.store().get(MEMBERSHIP)? {
            Some(bytes) => read_membership(&bytes),
            None => Ok(StoredMembership::default()),
        }
    }

    /// What is written to keep a membership.
    fn with_membership(at: Option<LogPosition>, wire: &WireMembership) -> WriteBatch {
        let mut batch = WriteBatch::default();
        if !mutant::is_on(Mutant::ForgetMembership) {
            batch.put(MEMBERSHIP, codec::encode(&(at, wire)));
        }
        batch
    }

    pub(super) fn save_membership(
        machine: &Machine,
        at: Option<LogPosition>,
        wire: &WireMembership,
    ) -> Result<(), StoreError> {
        machine.store().write(Self::with_membership(at, wire))
    }

    /// Feeds the event log what it lost with its open block, from the journal, up to where the state is.
    /// Must be done before openraft looks. It would take the state's position for that of a snapshot newer
    /// than what is applied, and install the half-fed replica over itself, without its notes on what
    /// was fenced.
    pub(crate) async fn refill(&self) -> Result<(), io::Error> {
        let mut machine = self.machine.lock().await;
        if mutant::is_on(Mutant::SkipRefill) {
            return Ok(());
        }
        let purged = self.log.state().purged.map(|at| at.index);
        let state_end = machine.applied().map(|at| at.index);
        // The log lets go only of what a checkpoint has made durable in the state.
        if let Some(purged) = purged.filter(|purged| state_end.is_none_or(|end| end < *purged)) {
            let reason =
                format!("the state ends at entry {state_end:?}, and the journal has let go of {purged}");
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        let (Some(fed), Some(applied)) = (machine.fed_upto(purged), machine.applied()) else {
            return Ok(());
        };
        // A state that is not from this log is from a snapshot, which the log had not been told of when the
        // node died. Its events came with it, whole, and what the log has is not what it applied.
        if self.log.position_at(applied.index) != Some(applied) {
            return Ok(());
        }
        if let Some(reason) = machine.events_gone().map_err(io::Error::other)? {
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
        if fed < applied.index {
            Point::EventsRefilled.reach();
        }
        self.feed(&mut machine, fed + 1, applied.index, |payload| {
            // The state has all of them; only those with data concern the event log.
            matches!(payload, EntryPayload::Normal(_))
        })?;
        // A replica that is not like its peers is made anew, rather than found out by whoever reads from it.
        match machine.disagreement() {
            Some(reason) => Err(io::Error::new(io::ErrorKind::InvalidData, reason)),
            None => Ok(()),
        }
    }

    /// Applies everything that the log has, committed or not, and returns where that ends. For a survivor
    /// that no majority will ever tell what was committed; its replica must not run.
    pub(super) async fn apply_whole_log(&self) -> Result<Option<LogPosition>, io::Error> {
        self.refill().await?;
        let mut machine = self.machine.lock().await;
        let (applied, last) = (machine.applied(), self.log.state().last);
        let from = applied.map_or(0, |at| at.index + 1);
        if let Some(last) = last.filter(|last| last.index >= from) {
            self.wait_durable(last.index).await?;
            self.feed(&mut machine, from, last.index, |_| true)?;
        }
        Ok(machine.applied())
    }

    /// Hands the entries `next..=upto` of the log to the machine, those that are `wanted`.
    fn feed(
        &self,
        machine: &mut Machine,
        mut next: u64,
        upto: u64,
        wanted: impl Fn(&EntryPayload<super::EntryBody, u64, super::Place>) -> bool,
    ) -> Result<(), io::Error> {
        while next <= upto {
            let entries = self
                .log
                .read(next, upto + 1, READ_BYTES_MAX)
                .map_err(io::Error::other)?;
            if entries.is_empty() {
                let reason = format!("events behind entry {next} are gone and the journal has let go of it");
                return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
            }
            for entry in entries {
                next = entry.position.index + 1;
                let position = entry.position;
                let entry = body::from_bytes(position, entry.body).map_err(io::Error::other)?;
                if wanted(&entry.payload) {
                    self.apply_one(machine, position, &entry.payload)?;
                }
            }
        }
        Ok(())
    }

    async fn wait_durable(&self, index: u64) -> Result<(), io::Error> {
        let mut durable = self.log.durable();
        durable
            .wait_for(|upto| upto.is_some_and(|upto| upto >= index))
            .await
            .map(|_| ())
            .map_err(|_| io::Error::other("the journal has stopped"))
    }

    fn apply_one(
        &self,
        machine: &mut Machine,
        position: LogPosition,
        payload: &EntryPayload<super::EntryBody, u64, super::Place>,
    ) -> Result<Reply, io::Error> {
        self.check_next(machine, position)?;
        match payload {
            EntryPayload::Blank => {
                let skipped = machine.skip(position, WriteBatch::default());
                skipped.map_err(io::Error::other)?;
            }
            EntryPayload::Membership(membership) => {
                let wire = convert::membership_out(membership);
                // Together, so that no power cut leaves a membership that is ahead of the state it belongs to.
                let beside = Self::with_membership(Some(position), &wire);
                machine.skip(position, beside).map_err(io::Error::other)?;
            }
            EntryPayload::Normal(bytes) => {
                let body = body::read(bytes).map_err(io::Error::other)?;
                return machine.apply(position, body).map_err(io::Error::other);
            }
        }
        Ok(Reply::Done)
    }
}

/// Reads a membership that was kept.
pub(crate) fn read_membership(bytes: &[u8]) -> Result<StoredMembership, StoreError> {
    let (at, wire): (Option<LogPosition>, WireMembership) =
        codec::decode(bytes).map_err(|error| StoreError::Corrupt {
            what: "membership".into(),
            reason: error.to_string(),
        })?;
    Ok(StoredMembership::new(
        at.map(convert::log_id),
        convert::membership_in(&wire),
    ))
}

impl RaftStateMachine<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = StateMachine;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        let machine = self.machine.lock().await;
        let membership = Self::membership(&machine).map_err(io::Error::other)?;
        Ok((machine.applied().map(convert::log_id), membership))
    }

    async fn apply<S>(&mut self, mut entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        while let Some((entry, responder)) = entries.try_next().await? {
            let position = convert::position(&entry.log_id);
            self.wait_durable(position.index).await?;
            let mut machine = self.machine.lock().await;
            self.check_open()?;
            self.tell(position, &entry.payload);
            let reply = self.apply_one(&mut machine, position, &entry.payload).inspect_err(|error| {
                tracing::error!(replica = %self.id, index = position.index, %error, "cannot apply an entry; the replica stops");
            })?;
            drop(machine);
            if let Some(responder) = responder {
                responder.send(reply);
            }
        }
        Ok(())
    }

    async fn get_snapshot_builder(&mut self) -> StateMachine {
        self.clone()
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        // It may take minutes, on a thread of its own; whoever wants the machine meanwhile waits.
        let machine = self.machine.clone().lock_owned().await;
        self.check_open()?;
        let installed = blocking(move || snapshot.install(&machine).map(|()| machine)).await;
        let mut machine = installed.map_err(io::Error::other)?.map_err(io::Error::other)?;
        let wire = convert::membership_out(meta.last_membership.membership());
        let at = convert::position_of(meta.last_membership.log_id().as_ref());
        Self::save_membership(&machine, at, &wire).map_err(io::Error::other)?;
        machine.reload().map_err(io::Error::other)?;
        machine.store().checkpoint().map_err(io::Error::other)?;
        Point::SnapshotInstalled.reach();
        tracing::info!(replica = %self.id, at = ?meta.last_log_id, "installed a snapshot");
        Ok(())
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        // A snapshot is a view of what is there, so there always is one, and none to keep.
        let machine = self.machine.lock().await;
        if machine.applied().is_none() {
            return Ok(None);
        }
        self.view(&machine).map(Some)
    }
}

impl StateMachine {
    fn view(&self, machine: &Machine) -> Result<Snapshot, io::Error> {
        let membership = Self::membership(machine).map_err(io::Error::other)?;
        let last_log_id = machine.applied().map(convert::log_id);
        Ok(Snapshot {
            meta: SnapshotMeta {
                last_log_id,
                last_membership: membership,
            },
            snapshot: SnapshotData::view(machine),
        })
    }
}

impl RaftSnapshotBuilder<TypeConfig> for StateMachine {
    type SnapshotData = SnapshotData;

    async fn build_snapshot(&mut self) -> Result<Snapshot, io::Error> {
        let machine = self.machine.lock().await;
        self.view(&machine)
    }
}
