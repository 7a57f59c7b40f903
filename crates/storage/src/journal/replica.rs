//! The log of one replica, as consensus sees it. A thin door: what it decides is in `log_state`.

use std::sync::Arc;

use bytes::Bytes;
use dunlin_model::alarm::Alarm;
use dunlin_model::id::{GroupReplica, LogPosition};
use tokio::sync::watch;

use super::files::segment_path;
use super::format::{Kind, RECORD_HEADER_BYTES, decode_record};
use super::log_state::{Core, Place};
use super::{Completion, JournalError, LogEntry, LogState, RecordPlace, Shared};
use crate::disk::read_exact_at;

/// A handle to the log of one replica. Clones are cheap and share it.
///
/// A call that is refused at the door (failed, stopped, removed, damaged, overloaded, too large)
/// calls its completion at once with the error and changes nothing.
#[derive(Clone)]
pub struct ReplicaLog {
    shared: Arc<Shared>,
    id: GroupReplica,
    incarnation: u64,
}

/// An entry that is read after the lock is released.
enum Fetch {
    Hot(LogEntry),
    Cold {
        position: LogPosition,
        body_bytes: usize,
        segment: super::files::Segment,
        offset: u64,
    },
}

impl RecordPlace {
    fn new(segment: u64, offset: u64, body_bytes: usize) -> Self {
        Self {
            path: segment_path(segment),
            offset,
            bytes: (RECORD_HEADER_BYTES + body_bytes) as u64,
        }
    }
}

impl ReplicaLog {
    pub(super) fn new(shared: Arc<Shared>, id: GroupReplica, incarnation: u64) -> Self {
        Self {
            shared,
            id,
            incarnation,
        }
    }

    /// Whose log it is.
    pub fn id(&self) -> GroupReplica {
        self.id
    }

    /// What the log holds now, with what still waits for the disk. Empty after removal.
    pub fn state(&self) -> LogState {
        let core = self.shared.lock();
        core.replica(self.id, self.incarnation)
            .map(|replica| replica.state())
            .unwrap_or_default()
    }

    /// Adds `entries`, which follow each other. They can be read on return; `done` is called when
    /// they are durable. Entries at and above the first are replaced. When refused as full, the
    /// entries are not in the log (of an append longer than a quarter of a segment, a prefix may be).
    ///
    /// # Panics
    /// When the first entry leaves a hole after the last, or is below the purge point: our mistake.
    pub fn append(&self, entries: Vec<LogEntry>, done: Completion) {
        self.submit(|core| core.append(self.id, self.incarnation, entries, done));
    }

    /// Saves the vote, at most 1024 bytes; `done` is called when it is durable.
    pub fn save_vote(&self, vote: Bytes, done: Completion) {
        self.submit(|core| core.save_vote(self.id, self.incarnation, vote, done));
    }

    /// Notes the committed mark. It is written with the next flush and forces none.
    pub fn save_committed(&self, position: LogPosition) {
        self.shared
            .lock()
            .save_committed(self.id, self.incarnation, position);
    }

    /// Drops the entries after `last`, or all. They are gone for reads at once, on disk when `done`
    /// is called.
    ///
    /// # Panics
    /// When `last` is below the purge point: our mistake.
    pub fn truncate_after(&self, last: Option<LogPosition>, done: Completion) {
        self.submit(|core| core.truncate_after(self.id, self.incarnation, last, done));
    }

    /// Drops the entries up to `upto`, which may be beyond the last: the log then goes on after it.
    /// Written with the next flush, forces none.
    pub fn purge(&self, upto: LogPosition) {
        self.shared.lock().purge(self.id, self.incarnation, upto);
    }

    /// Entries `from..to_exclusive` as far as they are there, until their bodies pass `bytes_max`;
    /// one at least if there is one. Recent ones come from memory, older ones from the disk.
    pub fn read(
        &self,
        from: u64,
        to_exclusive: u64,
        bytes_max: usize,
    ) -> Result<Vec<LogEntry>, JournalError> {
        let fetches = self.locate(&self.shared.lock(), from, to_exclusive, bytes_max)?;
        let mut entries = Vec::with_capacity(fetches.len());
        for fetch in fetches {
            match fetch {
                Fetch::Hot(entry) => entries.push(entry),
                Fetch::Cold {
                    position,
                    body_bytes,
                    segment,
                    offset,
                } => {
                    match self.read_record(position, body_bytes, &segment, offset)? {
                        Some(body) => entries.push(LogEntry { position, body }),
                        // Truncated meanwhile.
                        None => break,
                    }
                }
            }
        }
        Ok(entries)
    }

    fn locate(
        &self,
        core: &Core,
        from: u64,
        to_exclusive: u64,
        bytes_max: usize,
    ) -> Result<Vec<Fetch>, JournalError> {
        if let Some(error) = core.log_refusal(self.id, self.incarnation) {
            return Err(error);
        }
        let replica = core
            .replica(self.id, self.incarnation)
            .expect("checked by refusal");
        if let Some(purged) = replica.purged_index()
            && from <= purged
            && from < to_exclusive
        {
            return Err(JournalError::Purged { from, purged });
        }
        let mut fetches = Vec::new();
        let mut bytes = 0;
        for index in from..to_exclusive.min(replica.next_index()) {
            let entry = replica.entry(index).expect("within the log");
            if !fetches.is_empty() && bytes + entry.body_bytes as usize > bytes_max {
                break;
            }
            bytes += entry.body_bytes as usize;
            let position = LogPosition {
                term: entry.term,
                leader: entry.leader,
                index,
            };
            fetches.push(match (replica.hot_body(index), entry.place) {
                (Some(body), _) => Fetch::Hot(LogEntry { position, body }),
                (None, Place::Written { segment, offset }) => Fetch::Cold {
                    position,
                    body_bytes: entry.body_bytes as usize,
                    segment: core
                        .segments
                        .get(&segment)
                        .expect("entries pin their segment")
                        .clone(),
                    offset,
                },
                (None, Place::Pending(_)) => unreachable!("entries that wait are in memory"),
            });
        }
        Ok(fetches)
    }

    /// The body of a record on disk; `None` when the entry went away during the read.
    fn read_record(
        &self,
        position: LogPosition,
        body_bytes: usize,
        segment: &super::files::Segment,
        offset: u64,
    ) -> Result<Option<Bytes>, JournalError> {
        let mut record = vec![0; RECORD_HEADER_BYTES + body_bytes];
        let read = read_exact_at(&*segment.file, &mut record, offset);
        if read.is_ok()
            && let Some((head, body)) = decode_record(&record, segment.seed, offset)
            && (head.kind, head.id, head.position) == (Kind::Entry, self.id, position)
        {
            return Ok(Some(Bytes::from(record).slice(body)));
        }
        let mut core = self.shared.lock();
        let place = Place::Written {
            segment: segment.header.number,
            offset,
        };
        let Some(replica) = core.replica_mut(self.id, self.incarnation) else {
            return Err(JournalError::Removed(self.id.to_string()));
        };
        if replica
            .entry(position.index)
            .is_none_or(|entry| entry.place != place)
        {
            // Its segment was recycled because the entry is no longer needed.
            return match replica.purged_index() {
                Some(purged) if position.index <= purged => Err(JournalError::Purged {
                    from: position.index,
                    purged,
                }),
                _ => Ok(None),
            };
        }
        if let Err(error) = read {
            return Err(JournalError::Read(error.to_string()));
        }
        let reason = format!("entry {} does not match its checksum", position.index);
        Alarm::JournalDamaged.raise();
        tracing::error!(replica = %self.id, %reason, "journal is damaged");
        replica.damage(reason.clone());
        core.mark_damage(self.id);
        drop(core);
        self.shared.call();
        Err(JournalError::Damaged {
            replica: self.id.to_string(),
            reason,
        })
    }

    /// The position of the entry at `index`; also of the last purged one.
    pub fn position_at(&self, index: u64) -> Option<LogPosition> {
        self.shared
            .lock()
            .replica(self.id, self.incarnation)?
            .position_at(index)
    }

    /// The highest index that is on disk here, as it changes. Goes back on a truncate; a purge
    /// counts as having what it covers. Closed when the replica is removed.
    pub fn durable(&self) -> watch::Receiver<Option<u64>> {
        let core = self.shared.lock();
        match core.replica(self.id, self.incarnation) {
            Some(replica) => replica.subscribe(),
            None => watch::channel(None).1,
        }
    }

    /// Whether a word about the entry at `at` would be kept: it is on disk here, or purged, or the log has
    /// another entry there, or none, since it was taken back.
    pub fn is_kept(&self, at: LogPosition) -> bool {
        let core = self.shared.lock();
        let replica = core.replica(self.id, self.incarnation);
        replica.is_none_or(|replica| replica.is_kept(at))
    }

    /// Whether `is_enough` finds the last vote that is on disk here enough; [`LogState::vote`] may be ahead of it.
    /// A replica that was removed has nothing to keep.
    pub fn is_vote_kept(&self, is_enough: impl FnOnce(Option<&Bytes>) -> bool) -> bool {
        let core = self.shared.lock();
        let replica = core.replica(self.id, self.incarnation);
        replica.is_none_or(|replica| is_enough(replica.durable_vote()))
    }

    /// Where the record of the entry at `index` was written, if it was: for whoever asks the disk itself whether
    /// it has it.
    pub fn place_of(&self, index: u64) -> Option<RecordPlace> {
        let core = self.shared.lock();
        let entry = core.replica(self.id, self.incarnation)?.entry(index)?;
        match entry.place {
            Place::Written { segment, offset } => {
                Some(RecordPlace::new(segment, offset, entry.body_bytes as usize))
            }
            Place::Pending(_) => None,
        }
    }

    /// As [`place_of`](Self::place_of), of the vote that was written last, which comes with it.
    pub fn place_of_vote(&self) -> Option<(Bytes, RecordPlace)> {
        let core = self.shared.lock();
        let record = core.replica(self.id, self.incarnation)?.vote_record()?;
        let place = RecordPlace::new(record.segment, record.offset, record.vote.len());
        Some((record.vote.clone(), place))
    }

    /// Removes the replica; `done` is called when that is durable. This handle is dead on return;
    /// [`Journal::replica`](super::Journal::replica) would make a new, empty log.
    pub fn remove(&self, done: Completion) {
        self.submit(|core| core.remove(self.id, self.incarnation, done));
    }

    fn submit(&self, call: impl FnOnce(&mut Core) -> Result<(), (JournalError, Completion)>) {
        let outcome = call(&mut self.shared.lock());
        match outcome {
            Ok(()) => self.shared.call(),
            Err((error, done)) => done(Err(error)),
        }
    }
}
