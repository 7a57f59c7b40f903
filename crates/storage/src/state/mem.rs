//! A state store in memory that can lose power. Decides what a cut keeps from a seed alone.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};

use bytes::Bytes;
use dunlin_model::port::{ShardStore, StoreError, WriteBatch};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

type Map = BTreeMap<Vec<u8>, Bytes>;

/// What a power cut keeps of the batches since the last checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StateCut {
    /// None of them.
    LoseAll,
    /// A prefix, each batch whole.
    KeepPrefix {
        /// Decides how long.
        seed: u64,
    },
}

/// The state of one replica in memory. Clones share it.
#[derive(Clone, Default)]
pub struct MemStore {
    layers: Arc<Mutex<Layers>>,
}

#[derive(Default)]
struct Layers {
    volatile: Map,
    durable: Map,
    /// Batches since the last checkpoint; a checkpoint or a cut empties it.
    since: Vec<WriteBatch>,
}

impl MemStore {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    /// Cuts the power. The store goes on as the next process finds it.
    pub fn power_cut(&self, cut: StateCut) {
        let mut layers = self.lock();
        let since = std::mem::take(&mut layers.since);
        let kept = match cut {
            StateCut::LoseAll => 0,
            StateCut::KeepPrefix { seed } => StdRng::seed_from_u64(seed).random_range(0..=since.len()),
        };
        for batch in since.into_iter().take(kept) {
            apply(&mut layers.durable, batch);
        }
        layers.volatile = layers.durable.clone();
    }

    fn lock(&self) -> MutexGuard<'_, Layers> {
        self.layers
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

fn apply(map: &mut Map, batch: WriteBatch) {
    for (key, value) in batch.changes {
        match value {
            Some(value) => map.insert(key, value),
            None => map.remove(&key),
        };
    }
}

impl ShardStore for MemStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.lock().volatile.get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], count_max: usize) -> Result<Vec<(Bytes, Bytes)>, StoreError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let layers = self.lock();
        let range = layers.volatile.range(from.to_vec()..to.to_vec()).take(count_max);
        Ok(range
            .map(|(key, value)| (Bytes::copy_from_slice(key), value.clone()))
            .collect())
    }

    fn write(&self, batch: WriteBatch) -> Result<(), StoreError> {
        let mut layers = self.lock();
        layers.since.push(batch.clone());
        apply(&mut layers.volatile, batch);
        Ok(())
    }

    fn checkpoint(&self) -> Result<(), StoreError> {
        let mut layers = self.lock();
        for batch in std::mem::take(&mut layers.since) {
            apply(&mut layers.durable, batch);
        }
        Ok(())
    }

    fn snapshot(&self) -> Box<dyn Iterator<Item = Result<(Bytes, Bytes), StoreError>> + Send> {
        let copy = self.lock().volatile.clone();
        Box::new(copy.into_iter().map(|(key, value)| Ok((Bytes::from(key), value))))
    }

    fn replace(
        &self,
        pairs: &mut dyn Iterator<Item = Result<(Bytes, Bytes), StoreError>>,
    ) -> Result<(), StoreError> {
        let new: Map = pairs
            .map(|pair| pair.map(|(key, value)| (key.to_vec(), value)))
            .collect::<Result<_, _>>()?;
        let mut layers = self.lock();
        layers.volatile = new.clone();
        layers.durable = new;
        layers.since.clear();
        Ok(())
    }
}
