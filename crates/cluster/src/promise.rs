//! A node's durable word to found a cluster with one set of nodes and no other.
//!
//! The founder with the smallest id asks for it and lays the cluster out only when all have given it in
//! one and the same round. Nodes that start together may give it to sets that overlap, none of which
//! then comes about. So a founder that was refused gives its own set up, and whoever promised itself to
//! that set is free again, but only on that founder's word: silence frees nobody, for the cluster
//! may have been laid out.

use std::sync::{Mutex, PoisonError};

use dunlin_model::alarm::Alarm;
use dunlin_model::id::NodeId;
use dunlin_storage::data_dir::DataDir;

/// Where the promise stands in the data directory.
const PROMISE_FILE: &str = "promise.json";

#[derive(Default)]
struct Kept {
    /// Whether the file was read.
    is_read: bool,
    set: Option<Vec<NodeId>>,
    /// How often the promise was given, so that a word from before can be told from one of now.
    given: u64,
}

/// The promise of this node.
#[derive(Default)]
pub(crate) struct Promise(Mutex<Kept>);

/// A promise as it was at a moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Given {
    /// The founders, ascending; the first one stands by it or gives it up.
    pub(crate) set: Vec<NodeId>,
    times: u64,
}

impl Promise {
    /// Gives the word for `set`. False if it was given for another, or cannot be kept.
    pub(crate) fn give(&self, data: &DataDir, set: &[NodeId]) -> bool {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !read(&mut kept, data) {
            return false;
        }
        match &kept.set {
            Some(promised) if promised != set => return false,
            Some(_) => {}
            None => {
                if !write(data, Some(set)) {
                    return false;
                }
                kept.set = Some(set.to_vec());
            }
        }
        kept.given += 1;
        true
    }

    /// What was promised, if anything was.
    pub(crate) fn given(&self, data: &DataDir) -> Option<Given> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let times = kept.given;
        let is_read = read(&mut kept, data);
        let set = kept.set.clone().filter(|_| is_read)?;
        Some(Given { set, times })
    }

    /// Frees this node from `given`, unless the same was promised again since.
    pub(crate) fn release(&self, data: &DataDir, given: &Given) {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_same = kept.set.as_ref() == Some(&given.set) && kept.given == given.times;
        if is_same && write(data, None) {
            kept.set = None;
        }
    }
}

fn read(kept: &mut Kept, data: &DataDir) -> bool {
    if kept.is_read {
        return true;
    }
    let found = match data.read(PROMISE_FILE) {
        Ok(found) => found,
        Err(error) => {
            Alarm::FileFailed.raise();
            tracing::error!(%error, "cannot read {PROMISE_FILE}");
            return false;
        }
    };
    match found.map(|bytes| serde_json::from_slice::<Option<Vec<NodeId>>>(&bytes)) {
        None => {}
        Some(Ok(set)) => kept.set = set,
        Some(Err(error)) => {
            Alarm::FileFailed.raise();
            tracing::error!(%error, "cannot read {PROMISE_FILE}");
            return false;
        }
    }
    kept.is_read = true;
    true
}

fn write(data: &DataDir, set: Option<&[NodeId]>) -> bool {
    let bytes = serde_json::to_vec(&set).expect("ids are plain data");
    match data.write(PROMISE_FILE, &bytes) {
        Ok(()) => true,
        Err(error) => {
            Alarm::FileFailed.raise();
            tracing::error!(%error, "cannot write {PROMISE_FILE}");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(ids: &[u64]) -> Vec<NodeId> {
        ids.iter().map(|id| NodeId(*id)).collect()
    }

    #[test]
    fn a_word_is_given_to_one_set_and_outlives_the_process() {
        let folder = tempfile::TempDir::new().unwrap();
        let data = DataDir::open(folder.path()).unwrap();
        let promise = Promise::default();
        assert!(promise.give(&data, &ids(&[1, 2, 3])));
        assert!(promise.give(&data, &ids(&[1, 2, 3])), "the same again");
        assert!(!promise.give(&data, &ids(&[2, 3, 4])));
        let later = Promise::default();
        assert!(!later.give(&data, &ids(&[2, 3, 4])));
        assert_eq!(later.given(&data).unwrap().set, ids(&[1, 2, 3]));
    }

    #[test]
    fn a_released_node_is_free_and_an_old_word_releases_no_new_promise() {
        let folder = tempfile::TempDir::new().unwrap();
        let data = DataDir::open(folder.path()).unwrap();
        let promise = Promise::default();
        assert!(promise.give(&data, &ids(&[1, 2, 3])));
        let old = promise.given(&data).unwrap();
        // The founder asks again before its earlier word, that it gave the set up, has arrived.
        assert!(promise.give(&data, &ids(&[1, 2, 3])));
        promise.release(&data, &old);
        assert!(!promise.give(&data, &ids(&[2, 3, 4])));
        promise.release(&data, &promise.given(&data).unwrap());
        assert!(
            Promise::default().give(&data, &ids(&[2, 3, 4])),
            "also after a restart"
        );
    }
}
