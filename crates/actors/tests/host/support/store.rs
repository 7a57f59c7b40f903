//! A store in memory.

use std::collections::BTreeMap;
use std::sync::Mutex;

use bytes::Bytes;
use dunlin_model::port::{ShardStore, StoreError, WriteBatch};

type Pair = (Bytes, Bytes);

#[derive(Default)]
pub(crate) struct MemoryStore {
    pairs: Mutex<BTreeMap<Vec<u8>, Bytes>>,
}

impl MemoryStore {
    pub(crate) fn content(&self) -> BTreeMap<Vec<u8>, Bytes> {
        self.pairs.lock().unwrap().clone()
    }
}

impl ShardStore for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        Ok(self.pairs.lock().unwrap().get(key).cloned())
    }

    fn scan(&self, from: &[u8], to: &[u8], count_max: usize) -> Result<Vec<Pair>, StoreError> {
        if from >= to {
            return Ok(Vec::new());
        }
        let pairs = self.pairs.lock().unwrap();
        let range = pairs.range(from.to_vec()..to.to_vec()).take(count_max);
        Ok(range
            .map(|(key, value)| (key.clone().into(), value.clone()))
            .collect())
    }

    fn write(&self, batch: WriteBatch) -> Result<(), StoreError> {
        let mut pairs = self.pairs.lock().unwrap();
        for (key, value) in batch.changes {
            match value {
                Some(value) => pairs.insert(key, value),
                None => pairs.remove(&key),
            };
        }
        Ok(())
    }

    fn checkpoint(&self) -> Result<(), StoreError> {
        Ok(())
    }

    fn snapshot(&self) -> Box<dyn Iterator<Item = Result<Pair, StoreError>> + Send> {
        Box::new(
            self.content()
                .into_iter()
                .map(|(key, value)| Ok((key.into(), value))),
        )
    }

    fn replace(&self, pairs: &mut dyn Iterator<Item = Result<Pair, StoreError>>) -> Result<(), StoreError> {
        let new = pairs
            .map(|pair| pair.map(|(key, value)| (key.to_vec(), value)))
            .collect::<Result<_, _>>()?;
        *self.pairs.lock().unwrap() = new;
        Ok(())
    }
}
