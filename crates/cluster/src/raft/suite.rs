//! openraft's own suite for log stores and state machines, run on the real ones: the journal on a
//! real disk, state in its database, events in segments.

use std::sync::Arc;

use dunlin_model::id::{GroupId, GroupReplica, NodeId, ReplicaId, ShardId};
use dunlin_model::port::{AppliedEntry, AppliedSink, Leadership};
use dunlin_storage::disk::{Disk, RealDisk};
use dunlin_storage::journal::{Journal, JournalConfig};
use dunlin_storage::segment::SegmentLog;
use dunlin_storage::state::StateDb;
use openraft::StorageError;
use openraft::testing::log::{StoreBuilder, Suite};

use super::log_store::LogStore;
use super::machine::{Machine, ShardMachine};
use super::state_machine::StateMachine;
use super::{Place, TypeConfig};

/// The suite makes members without a place.
impl Default for Place {
    fn default() -> Self {
        Place(NodeId(0))
    }
}

struct Nobody;

impl AppliedSink for Nobody {
    fn on_applied(&self, _: ShardId, _: AppliedEntry) {}
    fn on_leader(&self, _: ShardId, _: Leadership) {}
    fn on_follower(&self, _: ShardId, _: Option<NodeId>) {}
}

struct RealStores;

/// Keeps the folder and the journal as long as a test runs.
type Guard = (tempfile::TempDir, Journal);

impl StoreBuilder<TypeConfig, LogStore, StateMachine, Guard> for RealStores {
    async fn build(&self) -> Result<(Guard, LogStore, StateMachine), StorageError<TypeConfig>> {
        let folder = tempfile::tempdir().expect("a temporary folder can be made");
        let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(folder.path()));
        let config = JournalConfig {
            segment_bytes: 1 << 20,
            segments_max: 4,
            ..JournalConfig::default()
        };
        let journal = Journal::open(disk.clone(), config).expect("a new journal opens");
        let id = GroupReplica {
            group: GroupId(1),
            replica: ReplicaId(1),
        };
        let state = StateDb::open(folder.path().join("state")).expect("a new database opens");
        let store = state.replica(id).expect("a new replica opens");
        let events = Arc::new(SegmentLog::open(disk, id).expect("a new event log opens"));
        let machine =
            ShardMachine::open(ShardId(0), store, events, Arc::new(Nobody)).expect("a new machine opens");
        let log = journal.replica(id);
        let machine = StateMachine::new(id, log.clone(), Machine::Shard(machine));
        Ok(((folder, journal), LogStore::new(log), machine))
    }
}

#[test]
fn the_real_stores_pass_openrafts_suite() {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime can be made");
    runtime.block_on(async {
        Suite::test_all(RealStores).await.expect("the suite passes");
    });
}
