//! I14 where it leaves the house: what a replica tells its peers is on its disk. Looked at for every vote and
//! every confirmation, since whoever breaks it breaks consensus, and nobody would see it until a power cut.

use std::sync::Arc;

use dunlin_storage::journal::ReplicaLog;

use crate::codec;
use crate::messages::{AppendReply, VoteAnswer, WireVote};
use crate::witness::{Witness, Word};

/// An answer to a candidate leaves.
pub(crate) fn handle_vote(witness: Option<&Arc<dyn Witness>>, log: &ReplicaLog, answer: &VoteAnswer) {
    if let Some(witness) = witness.filter(|_| answer.granted) {
        let (term, leader) = (answer.vote.term, answer.vote.leader);
        witness.handle_word(log.id(), Word::Vote { term, leader });
    }
    assert_vote_is_kept(log, answer);
}

/// An answer to a leader leaves.
pub(crate) fn handle_reply(witness: Option<&Arc<dyn Witness>>, log: &ReplicaLog, reply: &AppendReply) {
    if let (Some(witness), AppendReply::Matched(Some(at))) = (witness, reply) {
        witness.handle_word(log.id(), Word::Entry(*at));
    }
    assert_entry_is_kept(log, reply);
}

/// A vote that is given is on disk, or one above it: of a later term, or of a candidate with a higher id in the same
/// one, which openraft lets win (a leader is a term and an id).
fn assert_vote_is_kept(log: &ReplicaLog, answer: &VoteAnswer) {
    if !answer.granted {
        return;
    }
    let given = &answer.vote;
    let is_kept = is_vote_kept(log, |kept| (kept.term, kept.leader) >= (given.term, given.leader));
    assert!(
        is_kept,
        "I14: the vote {given:?} would be told, and is not on disk"
    );
}

/// Whether there is a vote on disk, and it `is_enough`.
pub(crate) fn is_vote_kept(log: &ReplicaLog, is_enough: impl FnOnce(WireVote) -> bool) -> bool {
    log.is_vote_kept(|kept| {
        kept.and_then(|bytes| codec::decode(bytes).ok())
            .is_some_and(is_enough)
    })
}

/// An entry that is confirmed is on disk.
fn assert_entry_is_kept(log: &ReplicaLog, reply: &AppendReply) {
    if let AppendReply::Matched(Some(at)) = reply {
        assert!(
            log.is_kept(*at),
            "I14: the entry {at:?} would be confirmed, and is not on disk"
        );
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use dunlin_model::id::{GroupId, GroupReplica, LogPosition, ReplicaId};
    use dunlin_storage::disk::faulty::{FaultyDisk, Operation};
    use dunlin_storage::journal::{Journal, JournalConfig, LogEntry, SEGMENT_BYTES_MIN};

    use super::*;

    const REPLICA: GroupReplica = GroupReplica {
        group: GroupId(1),
        replica: ReplicaId(7),
    };

    fn vote(term: u64) -> WireVote {
        WireVote {
            term,
            leader: 3,
            committed: false,
        }
    }

    fn told(term: u64) -> VoteAnswer {
        VoteAnswer {
            vote: vote(term),
            granted: true,
            last: None,
        }
    }

    fn at(index: u64) -> LogPosition {
        LogPosition {
            term: 1,
            leader: 3,
            index,
        }
    }

    fn breaks(check: impl FnOnce()) -> bool {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(check)).is_err()
    }

    #[test]
    fn nothing_is_told_that_is_not_on_disk() {
        let disk = FaultyDisk::new();
        let config = JournalConfig {
            segment_bytes: SEGMENT_BYTES_MIN,
            ..JournalConfig::default()
        };
        let journal = Journal::open(Arc::new(disk.clone()), config).unwrap();
        let log = journal.replica(REPLICA);
        let (said, heard) = std::sync::mpsc::channel();
        let done = || {
            let said = said.clone();
            Box::new(move |result: Result<(), _>| said.send(result.is_ok()).unwrap())
        };
        let entry = |index| LogEntry {
            position: at(index),
            body: vec![1; 8].into(),
        };
        log.save_vote(codec::encode(&vote(4)), done());
        assert!(heard.recv().unwrap());
        log.append(vec![entry(0)], done());
        assert!(heard.recv().unwrap());
        assert_vote_is_kept(&log, &told(4));
        assert_vote_is_kept(&log, &told(3));
        assert_entry_is_kept(&log, &AppendReply::Matched(Some(at(0))));
        assert_entry_is_kept(&log, &AppendReply::Matched(Some(at(9))));

        let gate = disk.stall(Operation::Sync);
        log.save_vote(codec::encode(&vote(5)), done());
        log.append(vec![entry(1)], done());
        assert!(
            breaks(|| assert_vote_is_kept(&log, &told(5))),
            "a vote that waits for the disk"
        );
        let early = AppendReply::Matched(Some(at(1)));
        assert!(
            breaks(|| assert_entry_is_kept(&log, &early)),
            "an entry that waits for the disk"
        );
        gate.open();
        assert!(heard.recv().unwrap() && heard.recv().unwrap());
        assert_vote_is_kept(&log, &told(5));
        assert_entry_is_kept(&log, &early);

        log.remove(done());
        assert!(heard.recv().unwrap());
        // Whoever had asked it before may still be answered.
        assert_vote_is_kept(&log, &told(6));
        assert_entry_is_kept(&log, &early);
    }
}
