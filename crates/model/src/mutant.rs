//! Seeded bugs: what the checkers of `chaos` must be able to catch.
//!
//! A build with the feature `mutants` has all of them, and a process chooses at most one. In every other
//! build [`is_on`] is a constant and the bugs are not there. Each stands at the one place where the real code
//! keeps the promise that the mutant breaks.

use crate::listed::listed;

listed! {
    /// A seeded bug, under the name by which it is chosen on a command line.
    Mutant:

    /// The journal calls back before its bytes are synced.
    AckBeforeSync = "ack-before-sync",
    /// A journal segment's name is not made durable when it is taken into use.
    ForgetDirectorySync = "forget-directory-sync",
    /// A journal record is believed whatever its checksum says.
    SkipJournalChecksum = "skip-journal-checksum",
    /// A vote is answered before it is in the journal.
    VoteBeforeSync = "vote-before-sync",
    /// A node that starts does not know how it voted.
    ForgetVote = "forget-vote",
    /// A follower confirms entries before they are in its journal.
    ConfirmBeforeSync = "confirm-before-sync",
    /// The last entry that was applied is applied once more after a restart.
    ApplyTwice = "apply-twice",
    /// Events that a crash took from memory are not made again from the log.
    SkipRefill = "skip-refill",
    /// The log is let go of although its events are only in memory.
    PurgeTooFar = "purge-too-far",
    /// A record of an older session is stored.
    StaleOwner = "stale-owner",
    /// A frame that was taken already is taken again.
    ForgetOutcome = "forget-outcome",
    /// A frame is taken although one before it is missing.
    AcceptGap = "accept-gap",
    /// What was sent to a leader that died is not sent to the next one.
    DropRetried = "drop-retried",
    /// An unknown end is told as stored.
    UnknownIsStored = "unknown-is-stored",
    /// A receipt names the offset behind the message's.
    ReceiptOffByOne = "receipt-off-by-one",
    /// The offset does not move past an entry in which a record was fenced.
    ReuseOffset = "reuse-offset",
    /// A snapshot leaves out its first key.
    SnapshotWithoutFirst = "snapshot-without-first",
    /// A snapshot brings state and no events.
    SnapshotWithoutEvents = "snapshot-without-events",
    /// The stamp of an entry is this node's own time.
    ClockInApply = "clock-in-apply",
    /// Fences are remembered past a change of the session.
    StaleFence = "stale-fence",
    /// A note on fenced records is not kept for the event log.
    ForgetNote = "forget-note",
    /// A note on fenced records is dropped although a start may still feed its entry to the event log.
    ForgetNoteEarly = "forget-note-early",
    /// A membership entry is not remembered over a restart.
    ForgetMembership = "forget-membership",
    /// A new leader takes one entry more back than it wants to.
    TruncateTooFar = "truncate-too-far",
    /// What is read is not held against what was committed before.
    SkipReadBarrier = "skip-read-barrier",
    /// A registration's versions begin anew when it is made again.
    VersionsBeginAnew = "versions-begin-anew",
    /// A twin is changed whatever its ETag is.
    IgnoreTwinEtag = "ignore-twin-etag",
    /// A change of a twin is acknowledged and not kept.
    LoseTwinChange = "lose-twin-change",
    /// A message that a device has completed is given to it again.
    ForgetComplete = "forget-complete",
    /// A message is acknowledged to its sender and not queued.
    LoseMessage = "lose-message",
    /// A parked block of events is not taken up again at a start.
    ForgetParked = "forget-parked",
}

impl Mutant {
    /// The one with this name.
    pub fn parse(name: &str) -> Option<Mutant> {
        Mutant::ALL.iter().copied().find(|mutant| mutant.name() == name)
    }
}

#[cfg(feature = "mutants")]
mod chosen {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::Mutant;

    /// Place in [`Mutant::ALL`], from 1; 0 is none.
    static CHOSEN: AtomicUsize = AtomicUsize::new(0);

    /// Chooses the bug that this process has from now on.
    pub fn choose(mutant: Option<Mutant>) {
        let place = mutant.map_or(0, |mutant| mutant as usize + 1);
        CHOSEN.store(place, Ordering::SeqCst);
    }

    /// Whether this process has the bug.
    #[inline]
    pub fn is_on(mutant: Mutant) -> bool {
        CHOSEN.load(Ordering::Relaxed) == mutant as usize + 1
    }
}

#[cfg(feature = "mutants")]
pub use chosen::{choose, is_on};

/// Whether this process has the bug: never, in this build.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn is_on(_: Mutant) -> bool {
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_back_and_no_bug_is_on_unasked() {
        for mutant in Mutant::ALL {
            assert_eq!(Mutant::parse(mutant.name()), Some(*mutant));
            assert!(mutant.what().ends_with('.'), "{}", mutant.what());
            assert!(!is_on(*mutant));
        }
        assert_eq!(Mutant::parse("none"), None);
    }
}
