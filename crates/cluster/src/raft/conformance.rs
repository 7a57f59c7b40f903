//! openraft's own suite for stores, run on the real ones: journal, state and events in a folder.
//!
//! The suite takes three liberties that our stores refuse and go on refusing. It begins a log at any index;
//! the journal panics at a hole. It applies entries that no log ever had, or had otherwise; apply waits
//! until the local journal has what it applies. And it leaves entries out, which the state machine is told to
//! bear. So it meets two thin wrappers: one says aloud where a log
//! begins, by a purge mark, as a snapshot would; the other gives the state machine a log of its own, in the
//! same journal, and appends there what is about to be applied. Everything else is the code of every day.

use std::io;
use std::sync::Arc;

use dunlin_model::id::{GroupId, GroupReplica, LogPosition, NodeId, ReplicaId, ShardId};
use dunlin_model::port::{AppliedEntry, AppliedSink, Leadership};
use dunlin_storage::disk::RealDisk;
use dunlin_storage::journal::{Journal, JournalConfig, LogEntry, ReplicaLog, SEGMENT_BYTES_MIN};
use dunlin_storage::segment::SegmentLog;
use dunlin_storage::state::StateDb;
use futures_util::{Stream, TryStreamExt};
use openraft::OptionalSend;
use openraft::entry::RaftEntry as _;
use openraft::storage::{
    EntryResponder, IOFlushed, LogState, RaftLogReader, RaftLogStorage, RaftStateMachine,
};
use openraft::testing::log::{StoreBuilder, Suite};
use tempfile::TempDir;

use super::log_store::LogStore;
use super::machine::{DirectoryMachine, Machine, ShardMachine};
use super::snapshot::{SnapshotData, Spools};
use super::state_machine::StateMachine;
use super::{Entry, LogId, StoredMembership, TypeConfig, Vote, body, convert};
use crate::directory::DirectoryView;

type StorageError = openraft::StorageError<TypeConfig>;
type SnapshotMeta = openraft::alias::SnapshotMetaOf<TypeConfig>;
type Snapshot = openraft::alias::SnapshotOf<TypeConfig, SnapshotData>;

/// Lets a log that has never had anything begin at `first`.
fn begin_at(log: &ReplicaLog, first: LogPosition) {
    let next = log.state().last.map_or(0, |last| last.index + 1);
    if let Some(before) = first.index.checked_sub(1)
        && first.index > next
    {
        log.purge(LogPosition {
            index: before,
            ..first
        });
    }
}

/// A log that may begin anywhere.
struct LogFromAnywhere {
    store: LogStore,
    log: ReplicaLog,
}

impl RaftLogReader<TypeConfig> for LogFromAnywhere {
    async fn try_get_log_entries<RB>(&mut self, range: RB) -> Result<Vec<Entry>, io::Error>
    where
        RB: std::ops::RangeBounds<u64> + Clone + std::fmt::Debug + OptionalSend,
    {
        self.store.try_get_log_entries(range).await
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        self.store.read_vote().await
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.store.limited_get_log_entries(start, end).await
    }
}

impl RaftLogStorage<TypeConfig> for LogFromAnywhere {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        self.store.get_log_state().await
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.store.get_log_reader().await
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        self.store.save_vote(vote).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        self.store.save_committed(committed).await
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        self.store.read_committed().await
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<Entry> = entries.into_iter().collect();
        if let Some(first) = entries.first()
            && self.log.state().last.is_none()
        {
            begin_at(&self.log, convert::position(&first.log_id));
        }
        self.store.append(entries, callback).await
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        self.store.truncate_after(last).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.store.purge(upto).await
    }
}

/// A state machine whose log gets what it applies.
struct Fed {
    machine: StateMachine,
    log: ReplicaLog,
    spools: Spools,
}

impl RaftStateMachine<TypeConfig> for Fed {
    type SnapshotData = SnapshotData;
    type SnapshotBuilder = StateMachine;

    async fn applied_state(&mut self) -> Result<(Option<LogId>, StoredMembership), io::Error> {
        self.machine.applied_state().await
    }

    async fn apply<S>(&mut self, entries: S) -> Result<(), io::Error>
    where
        S: Stream<Item = Result<EntryResponder<TypeConfig>, io::Error>> + Unpin + OptionalSend,
    {
        let log = self.log.clone();
        let appended = entries.inspect_ok(move |(entry, _)| {
            let position = convert::position(&entry.log_id);
            begin_at(&log, position);
            let entry = LogEntry {
                position,
                body: body::to_bytes(entry),
            };
            log.append(
                vec![entry],
                Box::new(|flushed| flushed.expect("the journal takes it")),
            );
        });
        self.machine.apply(appended).await
    }

    async fn get_snapshot_builder(&mut self) -> StateMachine {
        self.machine.get_snapshot_builder().await
    }

    async fn install_snapshot(
        &mut self,
        meta: &SnapshotMeta,
        snapshot: SnapshotData,
    ) -> Result<(), io::Error> {
        // The suite hands a view from one store to the other; a snapshot travels as frames.
        let SnapshotData::View(mut view) = snapshot else {
            unreachable!("the suite has views only")
        };
        let mut receiving = self.spools.receive(None).await.map_err(io::Error::other)?;
        while let Some(frame) = view.next_frame().map_err(io::Error::other)? {
            receiving.take(&frame).map_err(io::Error::other)?;
        }
        let arrived = SnapshotData::Spooled(receiving.finish().map_err(io::Error::other)?);
        self.machine.install_snapshot(meta, arrived).await
    }

    async fn get_current_snapshot(&mut self) -> Result<Option<Snapshot>, io::Error> {
        self.machine.get_current_snapshot().await
    }
}

/// Nobody listens to these shards.
pub(super) struct Nobody;

impl AppliedSink for Nobody {
    fn on_applied(&self, _: ShardId, _: AppliedEntry) {}
    fn on_leader(&self, _: ShardId, _: Leadership) {}
    fn on_storage_full(&self, _: ShardId, _: bool) {}
    fn on_follower(&self, _: ShardId, _: Option<NodeId>) {}
}

/// Builds the stores of the one replica of a group.
struct Builder(GroupId);

impl StoreBuilder<TypeConfig, LogFromAnywhere, Fed, (TempDir, Journal)> for Builder {
    async fn build(&self) -> Result<((TempDir, Journal), LogFromAnywhere, Fed), StorageError> {
        let folder = TempDir::new().expect("a folder");
        let disk = Arc::new(RealDisk::new(folder.path()));
        let config = JournalConfig {
            segment_bytes: 4 * SEGMENT_BYTES_MIN,
            ..JournalConfig::default()
        };
        let journal = Journal::open(disk.clone(), config).expect("a journal");
        let spools = Spools::new(disk.clone()).expect("a place for spools");
        let id = |replica| GroupReplica {
            group: self.0,
            replica: ReplicaId(replica),
        };
        let (log, applied) = (journal.replica(id(1)), journal.replica(id(2)));
        let state = StateDb::open(folder.path().join("state")).expect("a database");
        let state = state.replica(id(1)).expect("a state");
        let machine = match self.0.shard() {
            None => DirectoryMachine::open(state, DirectoryView::new()).map(Machine::Directory),
            Some(shard) => {
                let events = Arc::new(SegmentLog::open(disk, id(1)).expect("an event log"));
                ShardMachine::open(shard, state, events, Arc::new(Nobody)).map(Machine::Shard)
            }
        };
        let machine = machine.expect("a machine");
        let store = LogFromAnywhere {
            store: LogStore::new(log.clone()),
            log,
        };
        let mut machine = StateMachine::new(id(1), applied.clone(), machine);
        machine.takes_gaps = true;
        let fed = Fed {
            machine,
            log: applied,
            spools,
        };
        Ok(((folder, journal), store, fed))
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn openrafts_suite_passes_on_the_stores_of_a_shard() {
    Suite::test_all(Builder(ShardId(0).group())).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn openrafts_suite_passes_on_the_stores_of_the_directory() {
    Suite::test_all(Builder(GroupId::DIRECTORY)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_entry_that_is_not_the_next_one_is_refused() {
    let (_guard, _store, mut fed) = Builder(ShardId(0).group()).build().await.unwrap();
    fed.machine.takes_gaps = false;
    for (index, is_taken) in [(0, true), (1, true), (3, false)] {
        let at = LogPosition {
            term: 1,
            leader: 1,
            index,
        };
        let blank = Entry::new_blank(convert::log_id(at));
        let entries = futures_util::stream::iter([Ok((blank, None))]);
        assert_eq!(fed.apply(entries).await.is_ok(), is_taken, "{index}");
    }
}
