//! The state of all replicas of a node in one fjall database: the only room that names fjall.
//!
//! Each replica has a keyspace per generation; a pointer in the keyspace `generations` says which one
//! counts. Replacing the content fills the next generation, flips the pointer durably, and deletes
//! the old one. Nothing is durable before a checkpoint; the journal feeds again what is lost.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, RwLock, RwLockReadGuard};

use bytes::Bytes;
use dunlin_model::alarm::Alarm;
use dunlin_model::id::{GroupId, GroupReplica, ReplicaId};
use dunlin_model::port::{ShardStore, StoreError, WriteBatch};
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Readable};

use super::tail;

/// Memtables are written out beyond this many bytes.
const MEMTABLE_BYTES: u64 = 8 << 20;

/// Blocks of tables kept in memory, over all replicas.
const CACHE_BYTES: u64 = 64 << 20;

/// fjall keeps this much of its own journal, its minimum.
const JOURNAL_BYTES_MAX: u64 = 64 << 20;

const POINTERS: &str = "generations";

/// The database of a node. Clones share it.
#[derive(Clone)]
pub struct StateDb {
    inner: Arc<Inner>,
}

/// Told when the database takes nothing more.
type FailureHook = Box<dyn Fn(&StoreError) + Send + Sync>;

struct Inner {
    /// Called when fjall has given up: whatever the disk refused it, it takes no write again in this process.
    on_failure: Arc<OnceLock<FailureHook>>,
    database: Database,
    pointers: Keyspace,
    /// One store per replica, so that all users see one pointer.
    stores: Mutex<BTreeMap<GroupReplica, Arc<Store>>>,
}

struct Store {
    on_failure: Arc<OnceLock<FailureHook>>,
    inner: Database,
    pointers: Keyspace,
    id: GroupReplica,
    /// The generation that counts, and its keyspace.
    current: RwLock<(u64, Keyspace)>,
}

fn io(action: &'static str) -> impl Fn(fjall::Error) -> StoreError {
    move |error| match &error {
        fjall::Error::Io(cause) if crate::disk::is_full(cause) => StoreError::Full(action.to_owned()),
        _ => StoreError::io(action, error),
    }
}

fn options() -> KeyspaceCreateOptions {
    KeyspaceCreateOptions::default()
        .max_memtable_size(MEMTABLE_BYTES)
        .manual_journal_persist(true)
}

/// What the pointer of a replica stands under.
pub(crate) fn pointer_key(id: GroupReplica) -> String {
    format!("{}-{}", id.group.0, id.replica.0)
}

fn keyspace_name(id: GroupReplica, generation: u64) -> String {
    format!("s-{}-{generation}", pointer_key(id))
}

/// The replica of a key made by [`pointer_key`].
pub(crate) fn parse_id(text: &str) -> Option<GroupReplica> {
    let (group, replica) = text.split_once('-')?;
    Some(GroupReplica {
        group: GroupId(group.parse().ok()?),
        replica: ReplicaId(replica.parse().ok()?),
    })
}

impl StateDb {
    /// Opens the database in the directory `path`, or makes it. What a power cut has spoiled of its journal
    /// is cut off; a replica may then have less state than its log assumes, and must not run.
    pub fn open(path: impl AsRef<Path>) -> Result<StateDb, StoreError> {
        let path = path.as_ref();
        let database = match open_database(path) {
            Err(fjall::Error::JournalRecovery(reason)) => {
                let cut = tail::cut(path).map_err(|error| StoreError::io("cut state journal", error))?;
                match cut {
                    Some(bytes) => {
                        Alarm::StateCut.raise();
                        tracing::warn!(bytes, %reason, "cut the state's journal");
                        open_database(path)
                    }
                    None => Err(fjall::Error::JournalRecovery(reason)),
                }
            }
            opened => opened,
        };
        let database = database.map_err(io("open state database"))?;
        let pointers = database
            .keyspace(POINTERS, options)
            .map_err(io("open state pointers"))?;
        let db = StateDb {
            inner: Arc::new(Inner {
                on_failure: Arc::default(),
                database,
                pointers,
                stores: Mutex::default(),
            }),
        };
        db.drop_leftovers()?;
        Ok(db)
    }

    /// Calls `hook` when the database takes nothing more, ever: a write of its own journal was refused, for want of
    /// room for instance. Only another process can open it again. Set once.
    pub fn on_failure(&self, hook: impl Fn(&StoreError) + Send + Sync + 'static) {
        let is_first = self.inner.on_failure.set(Box::new(hook)).is_ok();
        assert!(is_first, "one hook hears of it");
    }

    /// The state of `id`, which is made if it is new.
    pub fn replica(&self, id: GroupReplica) -> Result<Arc<dyn ShardStore>, StoreError> {
        let mut stores = self.stores();
        if let Some(store) = stores.get(&id) {
            return Ok(Arc::clone(store) as Arc<dyn ShardStore>);
        }
        let inner = &self.inner;
        let generation = match self.generation(id)? {
            Some(generation) => generation,
            None => {
                set_pointer(&inner.database, &inner.pointers, id, Some(0))?;
                0
            }
        };
        let keyspace = inner
            .database
            .keyspace(&keyspace_name(id, generation), options)
            .map_err(io("open state of replica"))?;
        let store = Arc::new(Store {
            on_failure: inner.on_failure.clone(),
            inner: inner.database.clone(),
            pointers: inner.pointers.clone(),
            id,
            current: RwLock::new((generation, keyspace)),
        });
        stores.insert(id, Arc::clone(&store));
        Ok(store)
    }

    /// Removes the state of `id`, durably. Its store must no longer be used.
    pub fn remove(&self, id: GroupReplica) -> Result<(), StoreError> {
        let mut stores = self.stores();
        stores.remove(&id);
        let Some(generation) = self.generation(id)? else {
            return Ok(());
        };
        set_pointer(&self.inner.database, &self.inner.pointers, id, None)?;
        delete(&self.inner.database, &keyspace_name(id, generation))
    }

    /// The replicas that have state here.
    pub fn replicas(&self) -> Result<Vec<GroupReplica>, StoreError> {
        let mut ids = Vec::new();
        for pair in self.inner.pointers.iter() {
            let key = pair.key().map_err(io("list state of replicas"))?;
            ids.extend(std::str::from_utf8(&key).ok().and_then(parse_id));
        }
        ids.sort();
        Ok(ids)
    }

    fn stores(&self) -> MutexGuard<'_, BTreeMap<GroupReplica, Arc<Store>>> {
        self.inner
            .stores
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn generation(&self, id: GroupReplica) -> Result<Option<u64>, StoreError> {
        let key = pointer_key(id);
        let Some(value) = self.inner.pointers.get(&key).map_err(io("read state pointer"))? else {
            return Ok(None);
        };
        let bytes: [u8; 8] = value.as_ref().try_into().map_err(|_| StoreError::Corrupt {
            what: format!("state pointer {key}"),
            reason: "length is not 8".to_owned(),
        })?;
        Ok(Some(u64::from_le_bytes(bytes)))
    }

    /// Deletes generations that no pointer names: a crash came between flip and delete, or before
    /// the flip.
    fn drop_leftovers(&self) -> Result<(), StoreError> {
        let mut wanted = BTreeSet::from([POINTERS.to_owned()]);
        for id in self.replicas()? {
            if let Some(generation) = self.generation(id)? {
                wanted.insert(keyspace_name(id, generation));
            }
        }
        for name in self.inner.database.list_keyspace_names() {
            if !wanted.contains(&*name) {
                delete(&self.inner.database, &name)?;
            }
        }
        Ok(())
    }
}

fn open_database(path: &Path) -> fjall::Result<Database> {
    Database::builder(path)
        .cache_size(CACHE_BYTES)
        .max_journaling_size(JOURNAL_BYTES_MAX)
        .worker_threads(1)
        .manual_journal_persist(true)
        .open()
}

fn set_pointer(
    database: &Database,
    pointers: &Keyspace,
    id: GroupReplica,
    generation: Option<u64>,
) -> Result<(), StoreError> {
    let mut batch = database.batch().durability(Some(PersistMode::SyncData));
    match generation {
        Some(generation) => batch.insert(pointers, pointer_key(id), generation.to_le_bytes()),
        None => batch.remove(pointers, pointer_key(id)),
    }
    batch.commit().map_err(io("write state pointer"))
}

fn delete(database: &Database, name: &str) -> Result<(), StoreError> {
    if database.keyspace_exists(name) {
        let keyspace = database.keyspace(name, options).map_err(io("open old state"))?;
        database
            .delete_keyspace(keyspace)
            .map_err(io("delete old state"))?;
    }
    Ok(())
}

impl Store {
    /// What a write came to that fjall refused.
    fn refused(&self, action: &'static str, error: fjall::Error) -> StoreError {
        let is_end = matches!(error, fjall::Error::Poisoned);
        let error = io(action)(error);
        if is_end && let Some(hook) = self.on_failure.get() {
            hook(&error);
        }
        error
    }

    fn current(&self) -> RwLockReadGuard<'_, (u64, Keyspace)> {
        self.current
            .read()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl ShardStore for Store {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        let value = self.current().1.get(key).map_err(io("read state"))?;
        Ok(value.map(Bytes::from))
    }

    fn scan(&self, from: &[u8], to: &[u8], count_max: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let pairs = self.current().1.range(from..to).take(count_max);
        pairs
            .map(|pair| {
                let (key, value) = pair.into_inner().map_err(io("scan state"))?;
                Ok((Bytes::from(key), Bytes::from(value)))
            })
            .collect()
    }

    fn write(&self, batch: WriteBatch) -> Result<(), StoreError> {
        let current = self.current();
        // Of several changes to one key in a batch fjall would show any; the last one wins here.
        let mut last: BTreeMap<Vec<u8>, Option<Bytes>> = BTreeMap::new();
        for (key, value) in batch.changes {
            last.insert(key, value);
        }
        let mut changes = self.inner.batch();
        for (key, value) in last {
            match value {
                Some(value) => changes.insert(&current.1, key, value),
                None => changes.remove(&current.1, key),
            }
        }
        changes
            .commit()
            .map_err(|error| self.refused("write state batch", error))
    }

    fn checkpoint(&self) -> Result<(), StoreError> {
        self.inner
            .persist(PersistMode::SyncData)
            .map_err(|error| self.refused("checkpoint state", error))
    }

    fn snapshot(&self) -> Box<dyn Iterator<Item = Result<(Bytes, Bytes), StoreError>> + Send> {
        let pairs = self.inner.snapshot().iter(&self.current().1);
        Box::new(pairs.map(|pair| {
            let (key, value) = pair.into_inner().map_err(io("read state snapshot"))?;
            Ok((Bytes::from(key), Bytes::from(value)))
        }))
    }

    fn replace(
        &self,
        pairs: &mut dyn Iterator<Item = Result<(Bytes, Bytes), StoreError>>,
    ) -> Result<(), StoreError> {
        let mut current = self
            .current
            .write()
            .unwrap_or_else(|poisoned| poisoned.into_inner());
        let generation = current.0 + 1;
        let name = keyspace_name(self.id, generation);
        // A replace that failed half-way may have left one.
        delete(&self.inner, &name)?;
        let keyspace = self
            .inner
            .keyspace(&name, options)
            .map_err(io("make new state"))?;
        let mut ingestion = keyspace.start_ingestion().map_err(io("fill new state"))?;
        for pair in pairs {
            let (key, value) = pair?;
            ingestion.write(key, value).map_err(io("fill new state"))?;
        }
        ingestion.finish().map_err(io("fill new state"))?;
        set_pointer(&self.inner, &self.pointers, self.id, Some(generation))?;
        let old = std::mem::replace(&mut *current, (generation, keyspace));
        self.inner.delete_keyspace(old.1).map_err(io("delete old state"))
    }
}
