//! openraft's log over one replica's part of the journal.
//!
//! Entries can be read when `append` returns and are reported as flushed when the journal has
//! synced them. Votes go through the same ordered journal, so they never overtake entries.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, RangeBounds};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use dunlin_model::id::LogPosition;
use dunlin_model::mutant::{self, Mutant};
use dunlin_model::point::Point;
use dunlin_storage::journal::{JournalError, LogEntry, ReplicaLog};
use openraft::OptionalSend;
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};

use super::{Entry, LogId, TypeConfig, Vote, body, convert, word};
use crate::codec;
use crate::messages::WireVote;

/// Bytes of entries that one read for replication returns.
const READ_BYTES_MAX: usize = 1024 * 1024;

/// Pause before entries are offered again to a journal whose queue is too long.
const OVERLOAD_PAUSE: Duration = Duration::from_millis(1);

/// The log of one replica.
#[derive(Clone)]
pub(crate) struct LogStore {
    log: ReplicaLog,
}

impl LogStore {
    pub(crate) fn new(log: ReplicaLog) -> Self {
        Self { log }
    }

    /// Hands `entries` to the journal; true if its queue is too long and nothing was taken.
    fn is_overloaded(
        &self,
        entries: Vec<LogEntry>,
        callback: &Arc<Mutex<Option<IOFlushed<TypeConfig>>>>,
    ) -> bool {
        let overloaded = Arc::new(AtomicBool::new(false));
        let (refused, callback) = (overloaded.clone(), callback.clone());
        let done = move |result: Result<(), JournalError>| match result {
            Err(JournalError::Overloaded { .. }) => {
                Point::JournalOverloaded.reach();
                refused.store(true, Ordering::Relaxed);
            }
            result => {
                if let Some(callback) = callback.lock().expect("no panic holds it").take() {
                    callback.io_completed(result.map_err(io::Error::other));
                }
            }
        };
        self.log.append(entries, Box::new(done));
        overloaded.load(Ordering::Relaxed)
    }

    fn read(&self, from: u64, to: u64, bytes_max: usize) -> Result<Vec<Entry>, io::Error> {
        let entries = self.log.read(from, to, bytes_max).map_err(io::Error::other)?;
        entries
            .into_iter()
            .map(|entry| body::from_bytes(entry.position, entry.body).map_err(io::Error::other))
            .collect()
    }
}

/// Waits for a completion of the journal.
async fn completed(
    start: impl FnOnce(Box<dyn FnOnce(Result<(), JournalError>) + Send>),
) -> Result<(), io::Error> {
    let (sender, receiver) = tokio::sync::oneshot::channel();
    start(Box::new(move |result| {
        let _ = sender.send(result);
    }));
    match receiver.await {
        Ok(result) => result.map_err(io::Error::other),
        Err(_) => Err(io::Error::other("the journal has stopped")),
    }
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<RB: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: RB,
    ) -> Result<Vec<Entry>, io::Error> {
        let from = match range.start_bound() {
            Bound::Included(index) => *index,
            Bound::Excluded(index) => index + 1,
            Bound::Unbounded => 0,
        };
        let to = match range.end_bound() {
            Bound::Included(index) => index + 1,
            Bound::Excluded(index) => *index,
            Bound::Unbounded => u64::MAX,
        };
        // What was purged may be absent; a hole may not.
        let begin = self.log.state().purged.map_or(0, |at| at.index + 1);
        self.read(from.max(begin), to, usize::MAX)
    }

    async fn read_vote(&mut self) -> Result<Option<Vote>, io::Error> {
        if mutant::is_on(Mutant::ForgetVote) {
            return Ok(None);
        }
        let Some(bytes) = self.log.state().vote else {
            return Ok(None);
        };
        let vote: WireVote = codec::decode(&bytes).map_err(io::Error::other)?;
        Ok(Some(convert::vote_in(vote)))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> Result<Vec<Entry>, io::Error> {
        self.read(start, end, READ_BYTES_MAX)
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogStore;

    async fn get_log_state(&mut self) -> Result<LogState<TypeConfig>, io::Error> {
        let state = self.log.state();
        let last = state.last.or(state.purged);
        Ok(LogState {
            last_purged_log_id: state.purged.map(convert::log_id),
            last_log_id: last.map(convert::log_id),
        })
    }

    async fn get_log_reader(&mut self) -> LogStore {
        self.clone()
    }

    async fn save_vote(&mut self, vote: &Vote) -> Result<(), io::Error> {
        let vote = convert::vote_out(vote);
        let bytes = codec::encode(&vote);
        let is_for_same_leader = |kept: WireVote| (kept.term, kept.leader) == (vote.term, vote.leader);
        if vote.committed && word::is_vote_kept(&self.log, is_for_same_leader) {
            // A quorum has granted what is on disk here already: to forget that makes this replica ask again, and no
            // other can have the vote meanwhile. What follows in the journal is synced with it, so that no entry of
            // this leader is on disk without it; the election costs a flush less. A journal that refuses it refuses
            // the entries behind it as well, and says so there.
            self.log.save_vote(bytes, Box::new(|_| {}));
            return Ok(());
        }
        if mutant::is_on(Mutant::VoteBeforeSync) {
            self.log.save_vote(bytes, Box::new(|_| {}));
            return Ok(());
        }
        completed(|done| self.log.save_vote(bytes, done)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> Result<(), io::Error> {
        if let Some(id) = committed {
            self.log.save_committed(convert::position(&id));
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> Result<Option<LogId>, io::Error> {
        let state = self.log.state();
        // The mark may have outlived entries that a torn tail took with it.
        let known = |at: &LogPosition| state.last.is_some_and(|last| last.index >= at.index);
        Ok(state.committed.filter(known).map(convert::log_id))
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> Result<(), io::Error>
    where
        I: IntoIterator<Item = Entry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<LogEntry> = entries
            .into_iter()
            .map(|entry| LogEntry {
                position: convert::position(&entry.log_id),
                body: body::to_bytes(&entry),
            })
            .collect();
        let callback = Arc::new(Mutex::new(Some(callback)));
        if mutant::is_on(Mutant::ConfirmBeforeSync)
            && let Some(callback) = callback.lock().expect("no panic holds it").take()
        {
            callback.io_completed(Ok(()));
        }
        // openraft takes any refusal for the end of the replica. A queue that is too long is none: it
        // is refused on this thread, before the entries are taken in, and offered again.
        while self.is_overloaded(entries.clone(), &callback) {
            tokio::time::sleep(OVERLOAD_PAUSE).await;
        }
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> Result<(), io::Error> {
        Point::LogTruncated.reach();
        let mut last = convert::position_of(last.as_ref());
        if mutant::is_on(Mutant::TruncateTooFar) {
            last = last.and_then(|last| self.log.position_at(last.index.checked_sub(1)?));
        }
        completed(|done| self.log.truncate_after(last, done)).await
    }

    async fn purge(&mut self, upto: LogId) -> Result<(), io::Error> {
        self.log.purge(convert::position(&upto));
        Ok(())
    }
}
