//! I14 — the fsync rule: nothing is acknowledged, voted or confirmed before its bytes are durable on that node.
//!
//! Source: `docs/invariants.md` I14. A simulation hears every word that leaves a node and that others count on, and asks
//! its disk at that moment what a power cut would leave of it: not the journal, which may be wrong about that. The
//! node asserts the same of itself by what its journal says (`raft/word.rs`); here a word is a finding although nobody
//! ever cuts the power. What a client is told comes from an entry that was applied, so it rests on that one's word.

use dunlin_model::id::LogPosition;

use super::{Findings, Violation};

/// What was said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// A vote: the term, and for whom.
    Vote(u64, u64),
    /// To a leader: everything up to this entry is here.
    Confirmed(LogPosition),
    /// This entry is applied. Of the same log, its proposer hears of it.
    Applied(LogPosition),
}

/// What the disk would have after a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kept {
    /// The last vote, if it would have one.
    Vote(Option<(u64, u64)>),
    /// The log up to the entry that was spoken of, but for the first that would be missing.
    LogWithout(Option<LogPosition>),
}

/// A word of one replica, and what its disk had when it left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spoken {
    /// When.
    pub us: u64,
    /// On which node, from 0.
    pub node: usize,
    /// The group.
    pub group: u32,
    /// The replica.
    pub replica: u64,
    /// What it said.
    pub word: Word,
    /// What would be left.
    pub kept: Kept,
}

/// Words that the disk would not have kept.
pub fn check<'a>(words: impl IntoIterator<Item = &'a Spoken>) -> Findings {
    let mut findings = Findings::default();
    for spoken in words.into_iter().filter(|spoken| !is_kept(spoken)) {
        findings.add(|| Violation::of(describe(spoken)));
    }
    findings
}

/// A vote is kept if the disk has it, or one above it: of a later term, or for a replica with a higher id in the same one.
fn is_kept(spoken: &Spoken) -> bool {
    match (spoken.word, spoken.kept) {
        (Word::Vote(term, leader), Kept::Vote(kept)) => kept >= Some((term, leader)),
        (Word::Confirmed(_) | Word::Applied(_), Kept::LogWithout(missing)) => missing.is_none(),
        (Word::Vote(..), Kept::LogWithout(_)) | (_, Kept::Vote(_)) => false,
    }
}

fn describe(spoken: &Spoken) -> String {
    let said = match spoken.word {
        Word::Vote(term, leader) => format!("gave its vote of term {term} to {leader}"),
        Word::Confirmed(at) => format!("confirmed {at:?}"),
        Word::Applied(at) => format!("applied {at:?}"),
    };
    let kept = match spoken.kept {
        Kept::Vote(Some((term, leader))) => {
            format!("a power cut would have left its vote of term {term} for {leader}")
        }
        Kept::Vote(None) => "a power cut would have left no vote".to_owned(),
        Kept::LogWithout(missing) => format!("a power cut would have taken {missing:?}"),
    };
    format!(
        "at {} ms replica {} of group {} on node {} {said}, and {kept}",
        spoken.us / 1000,
        spoken.replica,
        spoken.group,
        spoken.node + 1
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT: LogPosition = LogPosition {
        term: 4,
        leader: 2,
        index: 9,
    };

    fn count(word: Word, kept: Kept) -> u64 {
        let spoken = Spoken {
            us: 5_000,
            node: 1,
            group: 2,
            replica: 7,
            word,
            kept,
        };
        check(&[spoken]).count
    }

    #[test]
    fn a_vote_that_is_not_on_disk_is_found() {
        let vote = Word::Vote(4, 2);
        for kept in [Some((4, 2)), Some((4, 3)), Some((5, 1))] {
            assert_eq!(count(vote, Kept::Vote(kept)), 0, "{kept:?}");
        }
        for kept in [None, Some((3, 9)), Some((4, 1))] {
            assert_eq!(count(vote, Kept::Vote(kept)), 1, "{kept:?}");
        }
    }

    #[test]
    fn an_entry_that_a_power_cut_would_take_is_found() {
        for word in [Word::Confirmed(AT), Word::Applied(AT)] {
            assert_eq!(count(word, Kept::LogWithout(None)), 0);
            assert_eq!(count(word, Kept::LogWithout(Some(AT))), 1);
            assert_eq!(count(word, Kept::Vote(Some((9, 9)))), 1, "nobody looked");
        }
    }
}
