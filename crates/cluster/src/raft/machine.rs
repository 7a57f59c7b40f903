//! The two kinds of state that a group can replicate: a shard, or the directory.
//!
//! Each knows how far it has got and applies one entry at a time. Order, durability of the journal
//! and answers to proposers are [`super::state_machine`]'s part.

use std::sync::Arc;

use bytes::Bytes;
use dunlin_model::directory::{Directory, DirectoryCommand};
use dunlin_model::id::{LogPosition, ShardId};
use dunlin_model::port::{AppliedEntry, AppliedSink, EventLog, ShardStore, StoreError, WriteBatch};
use dunlin_model::shard::Batch;
use dunlin_model::shard::state::ShardState;
use serde::{Deserialize, Serialize};

use super::Reply;
use super::body::Body;
use crate::directory::DirectoryView;

/// Where the directory's one value stands in its store.
pub(crate) const DIRECTORY_KEY: &[u8] = b"directory";

/// A shard's state, its events, and who hears of what was applied.
pub(crate) struct ShardMachine {
    shard: ShardId,
    state: ShardState,
    events: Arc<dyn EventLog>,
    sink: Arc<dyn AppliedSink>,
}

impl ShardMachine {
    pub(crate) fn open(
        shard: ShardId,
        store: Arc<dyn ShardStore>,
        events: Arc<dyn EventLog>,
        sink: Arc<dyn AppliedSink>,
    ) -> Result<Self, StoreError> {
        Ok(Self {
            shard,
            state: ShardState::open(store)?,
            events,
            sink,
        })
    }

    fn apply(&mut self, position: LogPosition, batch: &Batch) -> Result<(), StoreError> {
        if self
            .state
            .meta()
            .applied
            .is_some_and(|at| at.index >= position.index)
        {
            return self.refill(position, batch);
        }
        let applied = self.state.apply(position, batch)?;
        if let Some(run) = applied.run {
            self.events.append(run)?;
        }
        if applied.seal {
            self.events.seal()?;
        }
        if let Some(offset) = applied.trim {
            self.events.trim(offset)?;
        }
        let meta = self.state.meta();
        let entry = AppliedEntry {
            index: position.index,
            term: position.term,
            time_ms: meta.time_ms,
            outcomes: applied.outcomes,
            notices: applied.notices,
            next_offset: meta.next_offset,
        };
        self.sink.on_applied(self.shard, entry);
        Ok(())
    }

    /// The state has this entry; the event log may not, for its open block was in memory.
    fn refill(&mut self, position: LogPosition, batch: &Batch) -> Result<(), StoreError> {
        if self.events.applied_index() >= position.index {
            return Ok(());
        }
        let (_, next_offset) = self.events.range();
        if let Some(run) = self.state.replay_run(position, batch, next_offset)? {
            self.events.append(run)?;
        }
        if batch.parts.contains(&dunlin_model::shard::Part::Seal) {
            self.events.seal()?;
        }
        Ok(())
    }
}

/// The directory, as one value.
pub(crate) struct DirectoryMachine {
    store: Arc<dyn ShardStore>,
    saved: SavedDirectory,
    view: Arc<DirectoryView>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct SavedDirectory {
    applied: Option<LogPosition>,
    directory: Directory,
}

impl DirectoryMachine {
    pub(crate) fn open(store: Arc<dyn ShardStore>, view: Arc<DirectoryView>) -> Result<Self, StoreError> {
        let saved = match store.get(DIRECTORY_KEY)? {
            Some(bytes) => parse("directory", &bytes)?,
            None => SavedDirectory::default(),
        };
        view.offer(&saved.directory);
        Ok(Self { store, saved, view })
    }

    fn apply(&mut self, position: LogPosition, command: DirectoryCommand) -> Result<Reply, StoreError> {
        if self.saved.applied.is_some_and(|at| at.index >= position.index) {
            return Ok(Reply::Done);
        }
        let result = self.saved.directory.apply(command);
        self.save(position, WriteBatch::default())?;
        self.view.offer(&self.saved.directory);
        Ok(Reply::Directory(result))
    }

    /// Whether the first entry is applied. Until then the layout is agreed on and no change can be logged.
    pub(crate) fn is_formed(&self) -> bool {
        self.saved.directory.is_formed()
    }

    /// Takes the copy over that this node has, which names the restart that this replica is made by.
    pub(super) fn restart(&mut self) -> Result<(), StoreError> {
        self.saved.directory = (*self.view.get()).clone();
        match self.saved.applied {
            Some(applied) => self.save(applied, WriteBatch::default()),
            None => Ok(()),
        }
    }

    fn save(&mut self, position: LogPosition, mut batch: WriteBatch) -> Result<(), StoreError> {
        self.saved.applied = Some(position);
        batch.put(
            DIRECTORY_KEY,
            serde_json::to_vec(&self.saved).expect("the directory is plain data"),
        );
        self.store.write(batch)
    }
}

/// One of the two.
pub(crate) enum Machine {
    Shard(ShardMachine),
    Directory(DirectoryMachine),
}

impl Machine {
    pub(crate) fn store(&self) -> &Arc<dyn ShardStore> {
        match self {
            Machine::Shard(shard) => shard.state.store(),
            Machine::Directory(directory) => &directory.store,
        }
    }

    pub(crate) fn events(&self) -> Option<&Arc<dyn EventLog>> {
        match self {
            Machine::Shard(shard) => Some(&shard.events),
            Machine::Directory(_) => None,
        }
    }

    /// How far the state has got.
    pub(crate) fn applied(&self) -> Option<LogPosition> {
        match self {
            Machine::Shard(shard) => shard.state.meta().applied,
            Machine::Directory(directory) => directory.saved.applied,
        }
    }

    /// The index after which the event log must be fed again: everything up to it is in state and events.
    /// `purged` is where the journal begins; what is below it was durable in both.
    pub(crate) fn fed_upto(&self, purged: Option<u64>) -> Option<u64> {
        let applied = self.applied()?.index;
        match self.events() {
            Some(events) => Some(applied.min(events.applied_index().max(purged.unwrap_or(0)))),
            None => Some(applied),
        }
    }

    /// Why the event log cannot be fed what it lacks, if so: it has lost what a checkpoint had made durable, and
    /// the notes on it went with that.
    pub(crate) fn events_gone(&self) -> Result<Option<String>, StoreError> {
        let Machine::Shard(shard) = self else {
            return Ok(None);
        };
        let (forgotten, end) = (
            shard.state.verdicts_forgotten_upto()?,
            shard.events.applied_index(),
        );
        Ok(forgotten.filter(|forgotten| end < *forgotten).map(|forgotten| {
            format!("the events end at entry {end}, and were durable up to entry {forgotten}")
        }))
    }

    /// Why state and event log cannot both be right, if so: they stand at one entry, and at different offsets.
    pub(crate) fn disagreement(&self) -> Option<String> {
        let Machine::Shard(shard) = self else { return None };
        let meta = shard.state.meta();
        let (of_events, of_state) = (shard.events.range().1, meta.next_offset);
        let is_ahead = shard.events.applied_index() > meta.applied.map_or(0, |at| at.index);
        (!is_ahead && of_events != of_state)
            .then(|| format!("the events end at offset {of_events}, the state's at {of_state}"))
    }

    /// Applies an entry that carries data.
    pub(crate) fn apply(&mut self, position: LogPosition, body: Body) -> Result<Reply, StoreError> {
        match (self, body) {
            (Machine::Shard(shard), Body::Batch(batch)) => {
                shard.apply(position, &batch).map(|()| Reply::Done)
            }
            (Machine::Directory(directory), Body::Directory(command)) => directory.apply(position, command),
            _ => Err(StoreError::Corrupt {
                what: "log entry".into(),
                reason: "it is of another group's kind".into(),
            }),
        }
    }

    /// Applies an entry that carries none; in the same write goes what consensus keeps `beside` the state. Once, as
    /// everything.
    pub(crate) fn skip(&mut self, position: LogPosition, beside: WriteBatch) -> Result<(), StoreError> {
        if self.applied().is_some_and(|at| at.index >= position.index) {
            return Ok(());
        }
        match self {
            Machine::Shard(shard) => shard.state.skip(position, beside),
            Machine::Directory(directory) => directory.save(position, beside),
        }
    }

    /// Reads everything again after the stores' content was replaced.
    pub(crate) fn reload(&mut self) -> Result<(), StoreError> {
        match self {
            Machine::Shard(shard) => shard.state.reload(),
            Machine::Directory(directory) => {
                *directory = DirectoryMachine::open(directory.store.clone(), directory.view.clone())?;
                Ok(())
            }
        }
    }

    /// Streams that a shard knows, and the stamp of its last entry.
    pub(crate) fn leadership(&self) -> (Vec<dunlin_model::id::StreamId>, u64) {
        match self {
            Machine::Shard(shard) => (shard.state.streams(), shard.state.meta().time_ms),
            Machine::Directory(_) => (Vec::new(), 0),
        }
    }

    /// Drops some of a shard's notes up to `index`. Returns whether there may be more.
    pub(crate) fn forget_verdicts(&self, index: u64) -> Result<bool, StoreError> {
        match self {
            Machine::Shard(shard) => shard.state.forget_verdicts(index),
            Machine::Directory(_) => Ok(false),
        }
    }
}

fn parse<T: serde::de::DeserializeOwned>(what: &str, bytes: &Bytes) -> Result<T, StoreError> {
    serde_json::from_slice(bytes).map_err(|error| StoreError::Corrupt {
        what: what.into(),
        reason: error.to_string(),
    })
}
