//! What the journal knows in memory: the index of every replica, its marks, and the hot tail.
//!
//! It decides what a replica's log is at this moment (which the disk follows), which segment is the
//! oldest still needed, and which cached bodies go first. It never touches a file; the flusher asks
//! it what to write and tells it what was written.

mod marks;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;
use dunlin_model::id::{GroupReplica, LogPosition};
use tokio::sync::watch;

use super::files::Segment;
use super::format::{NO_REPLICA, RECORD_HEADER_BYTES};
use super::{Completion, JournalConfig, JournalError, JournalStats, LogEntry, LogState};

/// Where the record of an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// Waiting for the disk, under this number.
    Pending(u64),
    /// In this segment, at this offset.
    Written { segment: u64, offset: u64 },
}

#[derive(Debug, Clone, Copy)]
pub(super) struct IndexEntry {
    pub(super) term: u64,
    pub(super) leader: u64,
    pub(super) body_bytes: u32,
    pub(super) place: Place,
}

/// One record or group of records on its way to the disk.
pub(super) struct Op {
    pub(super) id: GroupReplica,
    pub(super) incarnation: u64,
    pub(super) what: What,
    pub(super) done: Option<Completion>,
    /// Set when nothing will be written for this op; it then only keeps its turn.
    pub(super) refused: Option<JournalError>,
    /// What it counts for in the queue.
    pub(super) queued_bytes: usize,
}

pub(super) enum What {
    Append {
        first_number: u64,
        entries: Vec<LogEntry>,
    },
    Vote(Bytes),
    Committed(LogPosition),
    Purge(LogPosition),
    Truncate(Option<LogPosition>),
    Remove,
    CleanStop,
    Survey,
    Damaged(Bytes),
}

impl Op {
    /// Bytes of its records on disk.
    pub(super) fn record_bytes(&self) -> usize {
        if self.refused.is_some() {
            return 0;
        }
        match &self.what {
            What::Append { entries, .. } => entries
                .iter()
                .map(|entry| RECORD_HEADER_BYTES + entry.body.len())
                .sum(),
            What::Vote(body) | What::Damaged(body) => RECORD_HEADER_BYTES + body.len(),
            What::Truncate(_) => RECORD_HEADER_BYTES + 1,
            What::Committed(_) | What::Purge(_) | What::Remove | What::CleanStop | What::Survey => {
                RECORD_HEADER_BYTES
            }
        }
    }

    pub(super) fn is_append(&self) -> bool {
        self.refused.is_none() && matches!(self.what, What::Append { .. })
    }
}

/// A vote that is on disk, and where: in this segment, at this offset.
pub(super) struct VoteRecord {
    pub(super) vote: Bytes,
    pub(super) segment: u64,
    pub(super) offset: u64,
}

/// The log of one replica.
pub(super) struct Replica {
    /// Tells a replica apart from an earlier one with the same id.
    pub(super) incarnation: u64,
    first: u64,
    entries: VecDeque<IndexEntry>,
    /// Bodies of the last entries, with the numbers they were queued under.
    hot: VecDeque<(u64, Bytes)>,
    purged: Option<LogPosition>,
    purged_segment: Option<u64>,
    purged_dirty: bool,
    committed: Option<LogPosition>,
    committed_segment: Option<u64>,
    committed_dirty: bool,
    vote: Option<Bytes>,
    vote_written: Option<VoteRecord>,
    pub(super) damaged: Option<String>,
    /// The segment that says so, on disk.
    damaged_segment: Option<u64>,
    durable: watch::Sender<Option<u64>>,
    /// Highest index that was refused for want of room; a caller that did not know yet may go on
    /// up to the index after it.
    refused_to: Option<u64>,
}

impl Replica {
    pub(super) fn new(incarnation: u64) -> Replica {
        Replica {
            incarnation,
            first: 0,
            entries: VecDeque::new(),
            hot: VecDeque::new(),
            purged: None,
            purged_segment: None,
            purged_dirty: false,
            committed: None,
            committed_segment: None,
            committed_dirty: false,
            vote: None,
            vote_written: None,
            damaged: None,
            damaged_segment: None,
            durable: watch::Sender::new(None),
            refused_to: None,
        }
    }

    /// The index that the next entry must have.
    pub(super) fn next_index(&self) -> u64 {
        if self.entries.is_empty() {
            self.floor()
        } else {
            self.first + self.entries.len() as u64
        }
    }

    /// The lowest index that is not purged.
    fn floor(&self) -> u64 {
        self.purged.map_or(0, |purged| purged.index + 1)
    }

    pub(super) fn entry(&self, index: u64) -> Option<&IndexEntry> {
        self.entries
            .get(usize::try_from(index.checked_sub(self.first)?).ok()?)
    }

    pub(super) fn position_at(&self, index: u64) -> Option<LogPosition> {
        if let Some(purged) = self.purged
            && purged.index == index
        {
            return Some(purged);
        }
        self.entry(index).map(|entry| LogPosition {
            term: entry.term,
            leader: entry.leader,
            index,
        })
    }

    pub(super) fn last(&self) -> Option<LogPosition> {
        self.next_index()
            .checked_sub(1)
            .and_then(|index| self.position_at(index))
            .or(self.purged)
    }

    pub(super) fn state(&self) -> LogState {
        LogState {
            purged: self.purged,
            last: self.last(),
            vote: self.vote.clone(),
            committed: self.committed,
            damaged: self.damaged.clone(),
        }
    }

    /// Whether the entry at `at` is on disk, or purged, or not what this log has there any more.
    pub(super) fn is_kept(&self, at: LogPosition) -> bool {
        let durable = *self.durable.borrow();
        durable.is_some_and(|durable| durable >= at.index) || self.position_at(at.index) != Some(at)
    }

    pub(super) fn vote_record(&self) -> Option<&VoteRecord> {
        self.vote_written.as_ref()
    }

    /// The vote that is on disk.
    pub(super) fn durable_vote(&self) -> Option<&Bytes> {
        self.vote_record().map(|record| &record.vote)
    }

    pub(super) fn subscribe(&self) -> watch::Receiver<Option<u64>> {
        self.durable.subscribe()
    }

    /// The cached body of an entry.
    pub(super) fn hot_body(&self, index: u64) -> Option<Bytes> {
        let hot_first = self.next_index() - self.hot.len() as u64;
        let at = usize::try_from(index.checked_sub(hot_first)?).ok()?;
        self.hot.get(at).map(|(_, body)| body.clone())
    }

    /// The oldest segment that must stay for this replica: that of its first entry. Of a damaged one everything
    /// stays, its marks as well as what does not read, until a mark says that it is damaged: the next start must find
    /// the same. After that it needs nothing, and does not keep the journal from those that are made in its place.
    pub(super) fn oldest_segment(&self) -> Option<u64> {
        if self.damaged.is_some() {
            return self.damaged_segment.is_none().then_some(0);
        }
        match self.entries.front()?.place {
            Place::Written { segment, .. } => Some(segment),
            Place::Pending(_) => None,
        }
    }

    /// The first entry that is in segment `from` or a later one, or waits to be written.
    pub(super) fn first_from_segment(&self, from: u64) -> Option<u64> {
        let is_older = |entry: &IndexEntry| match entry.place {
            Place::Written { segment, .. } => segment < from,
            Place::Pending(_) => false,
        };
        // Entries are written in their order, so segments rise with them.
        let older = self.entries.partition_point(is_older);
        (older < self.entries.len()).then(|| self.first + older as u64)
    }

    pub(super) fn damage(&mut self, reason: String) {
        self.damaged.get_or_insert(reason);
    }

    fn set_durable(&self, index: Option<u64>) {
        self.durable
            .send_if_modified(|known| std::mem::replace(known, index) != index);
    }

    fn last_written(&self) -> Option<u64> {
        let pending = self
            .entries
            .iter()
            .rev()
            .take_while(|entry| matches!(entry.place, Place::Pending(_)))
            .count();
        (self.next_index() - pending as u64).checked_sub(1)
    }

    /// Drops entries at and above `from`; returns the numbers of the bodies that were cached.
    fn cut_from(&mut self, from: u64) -> Vec<(u64, usize)> {
        let keep = (from.saturating_sub(self.first) as usize).min(self.entries.len());
        let cut = self.entries.len() - keep;
        self.entries.truncate(keep);
        let hot_kept = self.hot.len() - cut.min(self.hot.len());
        let freed = self
            .hot
            .drain(hot_kept..)
            .map(|(number, body)| (number, body.len()))
            .collect();
        let durable = *self.durable.borrow();
        if durable.is_some_and(|durable| durable >= from) {
            self.set_durable(from.checked_sub(1));
        }
        freed
    }

    /// Drops entries up to `upto`; returns the numbers of the bodies that were cached.
    fn drop_upto(&mut self, upto: u64) -> Vec<(u64, usize)> {
        let count = ((upto + 1).saturating_sub(self.first) as usize).min(self.entries.len());
        let cold = self.entries.len() - self.hot.len();
        self.entries.drain(..count);
        self.first = self.first.max(upto + 1);
        let hot_gone = count.saturating_sub(cold);
        self.hot
            .drain(..hot_gone)
            .map(|(number, body)| (number, body.len()))
            .collect()
    }

    // What follows is for recovery, which replays records in the order of the disk.

    pub(super) fn replay_entry(&mut self, position: LogPosition, body_bytes: u32, segment: u64, offset: u64) {
        if position.index < self.floor() {
            return;
        }
        if self.entries.is_empty() {
            // What came before may lie in segments that were recycled; checked at the end.
            self.first = position.index;
        }
        if position.index > self.next_index_of_entries() {
            let reason = format!(
                "entry {} follows entry {}",
                position.index,
                self.next_index_of_entries().saturating_sub(1)
            );
            self.damage(reason);
        }
        if position.index < self.first || position.index > self.next_index_of_entries() {
            self.entries.clear();
            self.first = position.index;
        }
        self.entries.truncate((position.index - self.first) as usize);
        self.entries.push_back(IndexEntry {
            term: position.term,
            leader: position.leader,
            body_bytes,
            place: Place::Written { segment, offset },
        });
    }

    fn next_index_of_entries(&self) -> u64 {
        self.first + self.entries.len() as u64
    }

    pub(super) fn replay_truncate(&mut self, last: Option<LogPosition>) {
        self.cut_from(last.map_or(0, |last| last.index + 1));
    }

    pub(super) fn replay_purge(&mut self, upto: LogPosition, segment: u64) {
        if self.purged.is_none_or(|purged| purged.index <= upto.index) {
            self.drop_upto(upto.index);
            self.purged = Some(upto);
            // A mark that says less does not stand for the one that says more.
            self.purged_segment = Some(segment);
        }
    }

    pub(super) fn replay_vote(&mut self, vote: Bytes, segment: u64, offset: u64) {
        self.vote = Some(vote.clone());
        self.vote_written = Some(VoteRecord {
            vote,
            segment,
            offset,
        });
    }

    pub(super) fn replay_damaged(&mut self, reason: &[u8], segment: u64) {
        self.damage(String::from_utf8_lossy(reason).into_owned());
        self.damaged_segment = Some(segment);
        // What it had may lie in segments that are another's by now.
        self.entries.clear();
    }

    pub(super) fn replay_committed(&mut self, position: LogPosition, segment: u64) {
        self.committed = Some(position);
        self.committed_segment = Some(segment);
    }

    /// Checks the whole after the last record.
    pub(super) fn finish_replay(&mut self) {
        if !self.entries.is_empty() && self.first != self.floor() {
            self.damage(format!("entries {}..{} are missing", self.floor(), self.first));
        }
        if self.entries.is_empty() {
            self.first = self.floor();
        }
        // The mark rides along, so it may be ahead of entries that a power cut took.
        let last = self.last();
        if self
            .committed
            .is_some_and(|mark| last.is_none_or(|last| mark.index > last.index))
        {
            self.committed = last;
        }
        self.set_durable(last.map(|last| last.index));
    }
}

/// Everything behind the journal's lock.
pub(super) struct Core {
    pub(super) config: JournalConfig,
    pub(super) failed: Option<JournalError>,
    pub(super) stopping: bool,
    pub(super) queue: VecDeque<Op>,
    queue_bytes: usize,
    pub(super) replicas: BTreeMap<GroupReplica, Replica>,
    dirty: BTreeSet<GroupReplica>,
    hot_order: BTreeMap<u64, GroupReplica>,
    hot_bytes: usize,
    next_number: u64,
    next_incarnation: u64,
    pub(super) segments: BTreeMap<u64, Segment>,
    /// The lowest segment that the disk says is needed.
    pub(super) oldest: u64,
    pub(super) current: u64,
    pub(super) stats: JournalStats,
}

impl Core {
    pub(super) fn new(
        config: JournalConfig,
        replicas: BTreeMap<GroupReplica, Replica>,
        segments: BTreeMap<u64, Segment>,
        oldest: u64,
        current: u64,
    ) -> Core {
        let next_incarnation = 1 + replicas
            .values()
            .map(|replica| replica.incarnation)
            .max()
            .unwrap_or(0);
        Core {
            config,
            failed: None,
            stopping: false,
            queue: VecDeque::new(),
            queue_bytes: 0,
            replicas,
            dirty: BTreeSet::new(),
            hot_order: BTreeMap::new(),
            hot_bytes: 0,
            next_number: 0,
            next_incarnation,
            segments,
            oldest,
            current,
            stats: JournalStats::default(),
        }
    }

    /// Writes down that a loss which may concern any replica concerns those that are known now: before any
    /// other record, so that whoever is made from here on is not taken for lost at the next start.
    pub(super) fn survey(&mut self) {
        self.push(NO_REPLICA, 0, What::Survey, None);
    }

    /// The incarnation of replica `id`, which is made if it is new.
    pub(super) fn open_replica(&mut self, id: GroupReplica) -> u64 {
        let next = &mut self.next_incarnation;
        let replica = self.replicas.entry(id).or_insert_with(|| {
            *next += 1;
            Replica::new(*next)
        });
        replica.incarnation
    }

    pub(super) fn replica(&self, id: GroupReplica, incarnation: u64) -> Option<&Replica> {
        self.replicas
            .get(&id)
            .filter(|replica| replica.incarnation == incarnation)
    }

    pub(super) fn replica_mut(&mut self, id: GroupReplica, incarnation: u64) -> Option<&mut Replica> {
        self.replicas
            .get_mut(&id)
            .filter(|replica| replica.incarnation == incarnation)
    }

    /// Why a call on this replica cannot be served, if so.
    pub(super) fn refusal(&self, id: GroupReplica, incarnation: u64) -> Option<JournalError> {
        if let Some(error) = &self.failed {
            return Some(error.clone());
        }
        if self.stopping {
            return Some(JournalError::Stopped);
        }
        self.log_refusal(id, incarnation)
    }

    /// As [`refusal`](Self::refusal), for reads, which a stopped or failed journal still serves.
    pub(super) fn log_refusal(&self, id: GroupReplica, incarnation: u64) -> Option<JournalError> {
        match self.replica(id, incarnation) {
            None => Some(JournalError::Removed(id.to_string())),
            Some(replica) => replica.damaged.as_ref().map(|reason| JournalError::Damaged {
                replica: id.to_string(),
                reason: reason.clone(),
            }),
        }
    }

    /// The largest body of one record: a quarter of a segment.
    pub(super) fn body_bytes_max(&self) -> usize {
        (self.config.segment_bytes / 4) as usize
    }

    fn push(&mut self, id: GroupReplica, incarnation: u64, what: What, done: Option<Completion>) {
        let mut op = Op {
            id,
            incarnation,
            what,
            done,
            refused: None,
            queued_bytes: 0,
        };
        op.queued_bytes = op.record_bytes();
        self.queue_bytes += op.queued_bytes;
        self.queue.push_back(op);
    }

    pub(super) fn queue_bytes(&self) -> usize {
        self.queue_bytes
    }

    pub(super) fn left_queue(&mut self, bytes: usize) {
        self.queue_bytes -= bytes;
    }

    pub(super) fn append(
        &mut self,
        id: GroupReplica,
        incarnation: u64,
        entries: Vec<LogEntry>,
        done: Completion,
    ) -> Result<(), (JournalError, Completion)> {
        if let Some(error) = self.refusal(id, incarnation) {
            return Err((error, done));
        }
        let bytes_max = self.body_bytes_max();
        if let Some(large) = entries.iter().find(|entry| entry.body.len() > bytes_max) {
            return Err((
                JournalError::TooLarge {
                    bytes: large.body.len(),
                    bytes_max,
                },
                done,
            ));
        }
        if self.queue_bytes >= self.config.queue_bytes_max {
            return Err((
                JournalError::Overloaded {
                    queue_bytes: self.queue_bytes,
                },
                done,
            ));
        }
        let Some(first) = entries.first().map(|entry| entry.position.index) else {
            self.push(
                id,
                incarnation,
                What::Append {
                    first_number: 0,
                    entries,
                },
                Some(done),
            );
            return Ok(());
        };
        let last = first + entries.len() as u64 - 1;
        let dense = entries
            .iter()
            .zip(first..)
            .all(|(entry, index)| entry.position.index == index);
        assert!(dense, "{id}: the entries of an append must have no hole");
        let next_number = self.next_number;
        self.next_number += entries.len() as u64;
        let replica = self.replicas.get_mut(&id).expect("checked by refusal");
        if first > replica.next_index() {
            // Entries before these were refused and the caller may not have heard of it yet.
            let excused = replica.refused_to.is_some_and(|refused| first <= refused + 1);
            assert!(
                excused,
                "{id}: append at {first} leaves a hole after {:?}",
                replica.last()
            );
            replica.refused_to = Some(last);
            let reason = "entries before these were refused".to_owned();
            return Err((JournalError::Full(reason), done));
        }
        assert!(
            first >= replica.floor(),
            "{id}: append at {first} is below the purge point"
        );
        let overwrites = first < replica.next_index();
        if overwrites {
            let before = first.checked_sub(1).and_then(|index| replica.position_at(index));
            let freed = replica.cut_from(first);
            self.forget_hot(freed);
            self.push(id, incarnation, What::Truncate(before), None);
        }
        let replica = self.replicas.get_mut(&id).expect("checked by refusal");
        for (entry, number) in entries.iter().zip(next_number..) {
            replica.entries.push_back(IndexEntry {
                term: entry.position.term,
                leader: entry.position.leader,
                body_bytes: entry.body.len() as u32,
                place: Place::Pending(number),
            });
            replica.hot.push_back((number, entry.body.clone()));
            self.hot_order.insert(number, id);
            self.hot_bytes += entry.body.len();
        }
        self.push_groups(id, incarnation, next_number, entries, done);
        Ok(())
    }

    /// Queues entries in groups that each fit a segment; the callback goes with the last.
    fn push_groups(
        &mut self,
        id: GroupReplica,
        incarnation: u64,
        mut first_number: u64,
        entries: Vec<LogEntry>,
        done: Completion,
    ) {
        let group_bytes_max = self.body_bytes_max();
        let mut group = Vec::with_capacity(entries.len());
        let mut group_bytes = 0;
        for entry in entries {
            let bytes = RECORD_HEADER_BYTES + entry.body.len();
            if !group.is_empty() && group_bytes + bytes > group_bytes_max {
                let entries = std::mem::take(&mut group);
                let count = entries.len() as u64;
                self.push(
                    id,
                    incarnation,
                    What::Append {
                        first_number,
                        entries,
                    },
                    None,
                );
                first_number += count;
                group_bytes = 0;
            }
            group_bytes += bytes;
            group.push(entry);
        }
        self.push(
            id,
            incarnation,
            What::Append {
                first_number,
                entries: group,
            },
            Some(done),
        );
    }

    pub(super) fn save_vote(
        &mut self,
        id: GroupReplica,
        incarnation: u64,
        vote: Bytes,
        done: Completion,
    ) -> Result<(), (JournalError, Completion)> {
        if let Some(error) = self.refusal(id, incarnation) {
            return Err((error, done));
        }
        // Votes are rewritten together, so they are held much shorter than entries.
        let bytes_max = VOTE_BYTES_MAX;
        if vote.len() > bytes_max {
            return Err((
                JournalError::TooLarge {
                    bytes: vote.len(),
                    bytes_max,
                },
                done,
            ));
        }
        if let Some(replica) = self.replica_mut(id, incarnation) {
            replica.vote = Some(vote.clone());
        }
        self.push(id, incarnation, What::Vote(vote), Some(done));
        Ok(())
    }

    pub(super) fn save_committed(&mut self, id: GroupReplica, incarnation: u64, position: LogPosition) {
        let Some(replica) = self.replica_mut(id, incarnation) else {
            return;
        };
        replica.committed = Some(position);
        replica.committed_dirty = true;
        self.dirty.insert(id);
    }

    pub(super) fn truncate_after(
        &mut self,
        id: GroupReplica,
        incarnation: u64,
        last: Option<LogPosition>,
        done: Completion,
    ) -> Result<(), (JournalError, Completion)> {
        if let Some(error) = self.refusal(id, incarnation) {
            return Err((error, done));
        }
        let replica = self.replicas.get_mut(&id).expect("checked by refusal");
        let from = last.map_or(0, |last| last.index + 1);
        assert!(from >= replica.floor(), "{id}: truncate below the purge point");
        let freed = replica.cut_from(from);
        self.forget_hot(freed);
        self.push(id, incarnation, What::Truncate(last), Some(done));
        Ok(())
    }

    pub(super) fn purge(&mut self, id: GroupReplica, incarnation: u64, upto: LogPosition) {
        let Some(replica) = self.replica_mut(id, incarnation) else {
            return;
        };
        if replica.purged.is_some_and(|purged| purged.index >= upto.index) {
            return;
        }
        let freed = replica.drop_upto(upto.index);
        replica.purged = Some(upto);
        replica.purged_dirty = true;
        // A snapshot stands for what it covers.
        let durable = (*replica.durable.borrow()).max(Some(upto.index));
        replica.set_durable(durable);
        self.forget_hot(freed);
        self.dirty.insert(id);
    }

    pub(super) fn remove(
        &mut self,
        id: GroupReplica,
        incarnation: u64,
        done: Completion,
    ) -> Result<(), (JournalError, Completion)> {
        match self.refusal(id, incarnation) {
            None | Some(JournalError::Damaged { .. }) => {}
            Some(error) => return Err((error, done)),
        }
        if let Some(replica) = self.replicas.remove(&id) {
            self.forget_hot(
                replica
                    .hot
                    .iter()
                    .map(|(number, body)| (*number, body.len()))
                    .collect(),
            );
        }
        self.dirty.remove(&id);
        self.push(id, incarnation, What::Remove, Some(done));
        Ok(())
    }

    fn forget_hot(&mut self, freed: Vec<(u64, usize)>) {
        for (number, bytes) in freed {
            self.hot_order.remove(&number);
            self.hot_bytes -= bytes;
        }
    }

    /// Drops the oldest cached bodies beyond the limit, as far as they are durable.
    pub(super) fn evict_hot(&mut self) {
        while self.hot_bytes > self.config.hot_bytes_max {
            let Some((&number, &id)) = self.hot_order.first_key_value() else {
                return;
            };
            let replica = self
                .replicas
                .get_mut(&id)
                .expect("cached bodies belong to a replica");
            let index = replica.next_index() - replica.hot.len() as u64;
            let entry = replica.entry(index).expect("a cached body belongs to an entry");
            if matches!(entry.place, Place::Pending(_)) {
                // Numbers rise in the order of the queue, so all others are pending as well.
                return;
            }
            let (front, body) = replica.hot.pop_front().expect("its number is in the order");
            assert_eq!(front, number, "cached bodies leave in order");
            self.hot_order.remove(&number);
            self.hot_bytes -= body.len();
        }
    }

    pub(super) fn hot_bytes(&self) -> usize {
        self.hot_bytes
    }

    /// The oldest segment that any replica needs for its entries.
    pub(super) fn boundary(&self) -> u64 {
        let needed = self.replicas.values().filter_map(Replica::oldest_segment).min();
        needed.unwrap_or(self.current).min(self.current).max(self.oldest)
    }

    /// Every waiting append is refused: indexes end before the first entry that is not written.
    pub(super) fn drop_pending(&mut self) {
        let mut freed = Vec::new();
        for replica in self.replicas.values_mut() {
            let next = replica.next_index();
            let written = replica.last_written().map_or(0, |last| last + 1);
            if written < next {
                replica.refused_to = replica.refused_to.max(Some(next - 1));
                freed.extend(replica.cut_from(written));
            }
        }
        self.forget_hot(freed);
    }

    /// A refused vote is not the vote; one behind it still is.
    pub(super) fn restore_vote(&mut self, id: GroupReplica, incarnation: u64, refused: &Bytes) {
        if let Some(replica) = self.replica_mut(id, incarnation)
            && replica.vote.as_ref() == Some(refused)
        {
            replica.vote = replica.durable_vote().cloned();
        }
    }

    /// Notes that the records of `op` are durable, the first at `offset` of `segment`.
    pub(super) fn written(&mut self, op: &Op, segment: u64, mut offset: u64) {
        let id = op.id;
        let Some(replica) = self.replica_mut(id, op.incarnation) else {
            return;
        };
        match &op.what {
            What::Append {
                first_number,
                entries,
            } => {
                let mut durable = None;
                for (entry, number) in entries.iter().zip(*first_number..) {
                    let index = entry.position.index;
                    let at = index
                        .checked_sub(replica.first)
                        .and_then(|at| usize::try_from(at).ok());
                    // It may have been truncated or purged meanwhile.
                    if let Some(known) = at.and_then(|at| replica.entries.get_mut(at))
                        && known.place == Place::Pending(number)
                    {
                        known.place = Place::Written { segment, offset };
                        durable = Some(index);
                    }
                    offset += (RECORD_HEADER_BYTES + entry.body.len()) as u64;
                }
                if durable.is_some() {
                    let durable = (*replica.durable.borrow()).max(durable);
                    replica.set_durable(durable);
                }
            }
            What::Vote(vote) => {
                replica.vote_written = Some(VoteRecord {
                    vote: vote.clone(),
                    segment,
                    offset,
                });
            }
            What::Damaged(_) => replica.damaged_segment = Some(segment),
            What::Committed(position) => {
                replica.committed_segment = Some(segment);
                replica.committed_dirty &= replica.committed != Some(*position);
            }
            What::Purge(position) => {
                replica.purged_segment = Some(segment);
                replica.purged_dirty &= replica.purged != Some(*position);
            }
            What::Truncate(_) | What::Remove | What::CleanStop | What::Survey => {}
        }
        if !replica.committed_dirty && !replica.purged_dirty {
            self.dirty.remove(&id);
        }
    }
}

/// The longest vote, in bytes.
pub(super) const VOTE_BYTES_MAX: usize = 1024;

impl Replica {
    /// The highest purged index.
    pub(super) fn purged_index(&self) -> Option<u64> {
        self.purged.map(|purged| purged.index)
    }
}
