//! What the replicas of a simulation say, with what their disks have at that moment: for I14
//! ([`crate::invariants::durable`]), and for the votes and members of I13.
//!
//! An [`Ear`] hears the words of one machine's life before they leave it. It asks the journal only where a record was
//! written, and the disk whether a power cut would leave it there. What it hears waits in a [`Book`] until the world
//! looks.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dunlin_cluster::{Witness, Word, read_vote};
use dunlin_model::id::{GroupReplica, LogPosition};
use dunlin_model::port::Clock as _;
use dunlin_storage::disk::faulty::FaultyDisk;
use dunlin_storage::journal::{Journal, RecordPlace, ReplicaLog};

use super::machine::SimClock;
use crate::invariants::durable::{self, Kept, Spoken};

/// What was heard since the world looked last.
#[derive(Default)]
pub(super) struct Heard {
    /// Words, with what would be left of them.
    pub(super) words: Vec<Spoken>,
    /// Entries about members, each as often as it was applied.
    pub(super) members: Vec<(u32, LogPosition, Vec<BTreeSet<u64>>)>,
}

/// Where all machines of a run note what is heard.
#[derive(Default)]
pub(super) struct Book(Mutex<Heard>);

impl Book {
    fn lock(&self) -> MutexGuard<'_, Heard> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that was heard since it was asked last.
    pub(super) fn take(&self) -> Heard {
        std::mem::take(&mut *self.lock())
    }
}

/// Hears the words of one life.
pub(super) struct Ear {
    pub(super) place: usize,
    pub(super) clock: Arc<SimClock>,
    pub(super) disk: FaultyDisk,
    pub(super) journal: Arc<Journal>,
    pub(super) book: Arc<Book>,
    /// Up to where a replica's log was found on disk, so that no entry is looked for twice.
    pub(super) found_upto: Mutex<BTreeMap<GroupReplica, LogPosition>>,
}

impl Ear {
    fn has(&self, place: &RecordPlace) -> bool {
        self.disk.is_durable(&place.path, place.offset, place.bytes)
    }

    fn vote(&self, log: &ReplicaLog) -> Kept {
        let kept = log.place_of_vote().filter(|(_, place)| self.has(place));
        Kept::Vote(kept.and_then(|(bytes, _)| read_vote(&bytes)))
    }

    /// As [`missing`](Self::missing), of an entry that nobody takes back: it is there, or the state covers it.
    fn missing_applied(&self, log: &ReplicaLog, at: LogPosition) -> Option<LogPosition> {
        let is_covered = || log.state().purged.is_some_and(|purged| purged.index >= at.index);
        match log.position_at(at.index) == Some(at) || is_covered() {
            true => self.missing(log, at),
            false => Some(at),
        }
    }

    /// The first entry up to `at` that a power cut would take.
    fn missing(&self, log: &ReplicaLog, at: LogPosition) -> Option<LogPosition> {
        if log.position_at(at.index) != Some(at) {
            // Taken back by now, or covered by the state: the word is about neither.
            return None;
        }
        let mut found_upto = self.found_upto.lock().unwrap_or_else(PoisonError::into_inner);
        let known = found_upto.get(&log.id()).copied();
        let from = match known.filter(|known| log.position_at(known.index) == Some(*known)) {
            Some(known) => known.index + 1,
            None => log.state().purged.map_or(0, |purged| purged.index + 1),
        };
        for index in from..=at.index {
            if !log.place_of(index).is_some_and(|place| self.has(&place)) {
                return log.position_at(index);
            }
        }
        if from <= at.index {
            found_upto.insert(log.id(), at);
        }
        None
    }
}

impl Witness for Ear {
    fn handle_word(&self, replica: GroupReplica, word: Word) {
        // To ask for a log that was removed would make another one.
        if !self.journal.replicas().contains(&replica) {
            return;
        }
        let log = self.journal.replica(replica);
        let (word, kept) = match word {
            Word::Vote { term, leader } => (durable::Word::Vote(term, leader), self.vote(&log)),
            Word::Entry(at) => {
                let missing = self.missing(&log, at);
                (durable::Word::Confirmed(at), Kept::LogWithout(missing))
            }
            Word::Applied(at) => {
                let missing = self.missing_applied(&log, at);
                (durable::Word::Applied(at), Kept::LogWithout(missing))
            }
            Word::Members(at, voters) => {
                self.book.lock().members.push((replica.group.0, at, voters));
                return;
            }
        };
        self.book.lock().words.push(Spoken {
            us: self.clock.monotonic_ms() * 1000,
            node: self.place,
            group: replica.group.0,
            replica: replica.replica.0,
            word,
            kept,
        });
    }
}

#[cfg(test)]
mod tests {
    use dunlin_model::id::{GroupId, ReplicaId};
    use dunlin_storage::disk::Disk as _;
    use dunlin_storage::journal::{JournalConfig, LogEntry, SEGMENT_BYTES_MIN, Turn};

    use super::*;

    const REPLICA: GroupReplica = GroupReplica {
        group: GroupId(1),
        replica: ReplicaId(7),
    };

    fn at(index: u64) -> LogPosition {
        LogPosition {
            term: 1,
            leader: 7,
            index,
        }
    }

    /// How many findings a word makes that this disk hears anew.
    fn found(disk: &FaultyDisk, journal: &Arc<Journal>, word: Word) -> u64 {
        let ear = Ear {
            place: 0,
            clock: Arc::default(),
            disk: disk.clone(),
            journal: journal.clone(),
            book: Arc::default(),
            found_upto: Mutex::default(),
        };
        ear.handle_word(REPLICA, word);
        let heard = ear.book.take();
        assert_eq!(heard.words.len(), 1);
        durable::check(&heard.words).count
    }

    #[test]
    fn what_waits_for_the_disk_or_was_never_synced_there_is_found() {
        let disk = FaultyDisk::new();
        let config = JournalConfig {
            segment_bytes: SEGMENT_BYTES_MIN,
            ..JournalConfig::default()
        };
        let opened = Journal::open_driven(Arc::new(disk.clone()), config, Box::new(|| {}));
        let (journal, mut driver) = opened.unwrap();
        let log = journal.replica(REPLICA);
        let journal = Arc::new(journal);
        let entry = |index| LogEntry {
            position: at(index),
            body: vec![1; 600].into(),
        };
        log.append(vec![entry(0), entry(1)], Box::new(|_| {}));
        assert_eq!(found(&disk, &journal, Word::Entry(at(1))), 1, "it waits");
        assert_eq!(found(&disk, &journal, Word::Vote { term: 1, leader: 7 }), 1);
        while driver.turn() == Turn::Worked {}
        for word in [Word::Entry(at(1)), Word::Applied(at(0))] {
            assert_eq!(found(&disk, &journal, word), 0);
        }
        // The journal still believes in it.
        let place = log.place_of(0).unwrap();
        let file = disk.open(&place.path).unwrap();
        file.write_at(&[7], place.offset + place.bytes - 1).unwrap();
        assert_eq!(found(&disk, &journal, Word::Entry(at(1))), 1, "a sync is missing");
        file.sync_data().unwrap();
        assert_eq!(found(&disk, &journal, Word::Entry(at(1))), 0);
        // A word about what was taken back is about nothing that is here.
        log.truncate_after(Some(at(0)), Box::new(|_| {}));
        assert_eq!(found(&disk, &journal, Word::Entry(at(1))), 0);
        assert_eq!(
            found(&disk, &journal, Word::Applied(at(1))),
            1,
            "it was committed"
        );
    }
}
