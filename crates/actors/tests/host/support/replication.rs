//! A consensus of one that follows a script: it applies batches through the real state machine, at
//! once or when released, refuses them, or loses the leadership with batches under way.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, Weak};

use dunlin_actors::ActorHost;
use dunlin_model::command::{Query, ReadFrom, View};
use dunlin_model::id::LogPosition;
use dunlin_model::port::{
    AppliedEntry, AppliedSink, BoxFuture, EventPage, EventRun, Leadership, ProposeError, ReadError,
    Replication,
};
use dunlin_model::shard::state::ShardState;
use dunlin_model::shard::{Batch, Part, read};
use tokio::sync::oneshot;

use super::field::SHARD;
use super::store::MemoryStore;

/// What becomes of the next proposals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Answer {
    /// They are applied at once.
    Apply,
    /// They wait for [`ScriptedReplication::release`].
    Hold,
    /// They fail, without effect.
    Fail(ProposeError),
}

struct Inner {
    state: ShardState,
    runs: Vec<EventRun>,
    term: u64,
    index: u64,
    answer: Answer,
    barrier: Result<(), ProposeError>,
    held: VecDeque<(Batch, oneshot::Sender<Result<(), ProposeError>>)>,
    proposed: Vec<Batch>,
    reads: usize,
}

pub(crate) struct ScriptedReplication {
    inner: Mutex<Inner>,
    store: Arc<MemoryStore>,
    host: OnceLock<Weak<ActorHost>>,
}

impl ScriptedReplication {
    pub(crate) fn new() -> Arc<Self> {
        let store = Arc::new(MemoryStore::default());
        let inner = Inner {
            state: ShardState::open(store.clone()).unwrap(),
            runs: Vec::new(),
            term: 0,
            index: 0,
            answer: Answer::Apply,
            barrier: Ok(()),
            held: VecDeque::new(),
            proposed: Vec::new(),
            reads: 0,
        };
        Arc::new(Self {
            inner: Mutex::new(inner),
            store,
            host: OnceLock::new(),
        })
    }

    pub(crate) fn set_host(&self, host: &Arc<ActorHost>) {
        assert!(
            self.host.set(Arc::downgrade(host)).is_ok(),
            "the host is named once"
        );
    }

    pub(crate) fn set_answer(&self, answer: Answer) {
        self.inner.lock().unwrap().answer = answer;
    }

    pub(crate) fn set_barrier(&self, barrier: Result<(), ProposeError>) {
        self.inner.lock().unwrap().barrier = barrier;
    }

    pub(crate) fn proposed(&self) -> Vec<Batch> {
        self.inner.lock().unwrap().proposed.clone()
    }

    /// How often a gateway was given up.
    pub(crate) fn gone(&self) -> usize {
        let inner = self.inner.lock().unwrap();
        let parts = inner.proposed.iter().flat_map(|batch| &batch.parts);
        parts.filter(|part| matches!(part, Part::GatewayGone(_))).count()
    }

    pub(crate) fn held(&self) -> usize {
        self.inner.lock().unwrap().held.len()
    }

    /// Device reads so far.
    pub(crate) fn reads(&self) -> usize {
        self.inner.lock().unwrap().reads
    }

    /// Starts the next term.
    pub(crate) fn next_leadership(&self) -> Leadership {
        let mut inner = self.inner.lock().unwrap();
        inner.term += 1;
        let meta = *inner.state.meta();
        Leadership {
            term: inner.term,
            applied_index: meta.applied.map_or(0, |at| at.index),
            time_ms: meta.time_ms,
            streams: inner.state.streams(),
        }
    }

    /// Applies the oldest held batch.
    pub(crate) fn release(&self) {
        let held = self.inner.lock().unwrap().held.pop_front();
        let (batch, settled) = held.expect("a batch is held");
        self.apply(&batch);
        let _ = settled.send(Ok(())); // its proposer may be gone
    }

    /// The leadership is lost with batches under way. `commit` says whether they are in the log all the same.
    pub(crate) fn lose(&self, commit: bool) {
        let held = std::mem::take(&mut self.inner.lock().unwrap().held);
        for (batch, settled) in held {
            let _ = settled.send(Err(ProposeError::Unknown)); // its proposer may be gone
            if commit {
                self.apply(&batch);
            }
        }
    }

    /// Applies `batch` and tells the host, as the one task of a group does.
    pub(crate) fn apply(&self, batch: &Batch) {
        let entry = {
            let mut inner = self.inner.lock().unwrap();
            inner.index += 1;
            let position = LogPosition {
                term: inner.term,
                leader: 1,
                index: inner.index,
            };
            let applied = inner.state.apply(position, batch).unwrap();
            inner.runs.extend(applied.run);
            let meta = *inner.state.meta();
            AppliedEntry {
                index: position.index,
                term: position.term,
                time_ms: meta.time_ms,
                outcomes: applied.outcomes,
                notices: applied.notices,
                next_offset: meta.next_offset,
            }
        };
        if let Some(host) = self.host.get().and_then(Weak::upgrade) {
            host.on_applied(SHARD, entry);
        }
    }
}

impl Replication for ScriptedReplication {
    fn propose(&self, batch: Batch) -> BoxFuture<'static, Result<(), ProposeError>> {
        let answer = {
            let mut inner = self.inner.lock().unwrap();
            inner.proposed.push(batch.clone());
            inner.answer.clone()
        };
        match answer {
            Answer::Apply => {
                self.apply(&batch);
                Box::pin(async { Ok(()) })
            }
            Answer::Hold => {
                let (settled, told) = oneshot::channel();
                self.inner.lock().unwrap().held.push_back((batch, settled));
                Box::pin(async { told.await.unwrap_or(Err(ProposeError::Unknown)) })
            }
            Answer::Fail(error) => Box::pin(async { Err(error) }),
        }
    }

    fn read_barrier(&self) -> BoxFuture<'static, Result<(), ProposeError>> {
        let barrier = self.inner.lock().unwrap().barrier.clone();
        Box::pin(async { barrier })
    }

    fn read(&self, query: &Query) -> Result<View, ReadError> {
        if matches!(query, Query::Device(_)) {
            self.inner.lock().unwrap().reads += 1;
        }
        read::read(&*self.store, query).map_err(|error| ReadError::Store(error.to_string()))
    }

    fn read_events(&self, from: ReadFrom, bytes_max: usize) -> Result<EventPage, ReadError> {
        let inner = self.inner.lock().unwrap();
        let next_offset = inner.state.meta().next_offset;
        let from = match from {
            ReadFrom::Offset(offset) => offset,
            ReadFrom::End => next_offset,
            ReadFrom::TimeMs(_) => unreachable!("not asked for in these tests"),
        };
        let mut bytes = 0;
        let after = inner.runs.iter().filter(|run| run.next_offset() > from);
        let runs = after
            .take_while(|run| {
                let fits = bytes < bytes_max;
                bytes += run.records.len();
                fits
            })
            .cloned()
            .collect();
        Ok(EventPage {
            runs,
            from,
            first_offset: 0,
            next_offset,
        })
    }
}
