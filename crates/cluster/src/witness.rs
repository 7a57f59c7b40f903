//! Who hears, in a simulation, every word that leaves a node and that others count on: a vote, a confirmation, an entry
//! that is applied and so may be answered.
//!
//! A witness hears a word before it leaves and can ask the disk whether it would be kept. It changes nothing, and no
//! node outside of a simulation has one. What the node itself asserts of the same words is in `raft/word.rs`.

use std::collections::BTreeSet;

use dunlin_model::id::{GroupReplica, LogPosition};

/// A word of one replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Word {
    /// Its vote is for this replica in this term.
    Vote {
        /// The term.
        term: u64,
        /// The candidate.
        leader: u64,
    },
    /// It has everything up to this entry.
    Entry(LogPosition),
    /// It is about to apply this entry. Its proposer hears of it from whoever leads.
    Applied(LogPosition),
    /// The entry that it is about to apply says who the members are: sets of voters, two while they change.
    Members(LogPosition, Vec<BTreeSet<u64>>),
}

/// Hears words.
pub trait Witness: Send + Sync {
    /// `replica`, of this node, says `word`.
    fn handle_word(&self, replica: GroupReplica, word: Word);
}
