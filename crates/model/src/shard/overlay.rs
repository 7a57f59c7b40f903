//! State as one entry sees it: the store, with the entry's own writes on top.
//!
//! The writes leave as one [`WriteBatch`], so an entry is applied whole or not at all.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::port::{ShardStore, StoreError, WriteBatch};

pub(super) struct Overlay<'a> {
    store: &'a dyn ShardStore,
    writes: BTreeMap<Vec<u8>, Option<Bytes>>,
}

impl<'a> Overlay<'a> {
    pub(super) fn new(store: &'a dyn ShardStore) -> Self {
        Self {
            store,
            writes: BTreeMap::new(),
        }
    }

    pub(super) fn get(&self, key: &[u8]) -> Result<Option<Bytes>, StoreError> {
        match self.writes.get(key) {
            Some(value) => Ok(value.clone()),
            None => self.store.get(key),
        }
    }

    pub(super) fn get_json<T: DeserializeOwned>(&self, key: &[u8]) -> Result<Option<T>, StoreError> {
        self.get(key)?.map(|bytes| parse_json(&bytes)).transpose()
    }

    pub(super) fn put(&mut self, key: Vec<u8>, value: Bytes) {
        self.writes.insert(key, Some(value));
    }

    pub(super) fn put_json<T: Serialize>(&mut self, key: Vec<u8>, value: &T) {
        let bytes = serde_json::to_vec(value).expect("state values are plain data");
        self.writes.insert(key, Some(bytes.into()));
    }

    pub(super) fn delete(&mut self, key: Vec<u8>) {
        self.writes.insert(key, None);
    }

    /// Keys in the range as this entry sees them, ascending, `count_max` at most, and whether there
    /// are more.
    pub(super) fn keys(
        &self,
        (from, to): (&[u8], &[u8]),
        count_max: usize,
    ) -> Result<(Vec<Bytes>, bool), StoreError> {
        let own = || self.writes.range(from.to_vec()..to.to_vec());
        let deleted = own().filter(|(_, value)| value.is_none()).count();
        let stored = self.store.scan(from, to, count_max + deleted + 1)?;
        let mut keys: BTreeSet<Bytes> = stored.into_iter().map(|(key, _)| key).collect();
        for (key, value) in own() {
            match value {
                Some(_) => keys.insert(Bytes::copy_from_slice(key)),
                None => keys.remove(&key[..]),
            };
        }
        let more = keys.len() > count_max;
        Ok((keys.into_iter().take(count_max).collect(), more))
    }

    pub(super) fn into_batch(self) -> WriteBatch {
        WriteBatch {
            changes: self.writes.into_iter().collect(),
        }
    }
}

pub(super) fn parse_json<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| StoreError::Corrupt {
        what: "state value".into(),
        reason: error.to_string(),
    })
}
