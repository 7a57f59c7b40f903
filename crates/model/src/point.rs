//! States that are hard to reach, by name, with a count: how a campaign of tests knows where it has been.
//!
//! A test that never saw a torn tail has not tried torn tails, however often it passed. Code says
//! [`Point::reach`] where such a state is handled; the places are rare ones, so that the count costs nothing.

use crate::listed::{counted, listed};

listed! {
    /// A state that some run should have been in.
    Point:

    /// The journal was opened and had been stopped in order.
    CleanStart,
    /// The end of the journal was torn and was cut.
    TornTailCut,
    /// The journal found damage before its last flush.
    JournalDamaged,
    /// A journal segment was used again.
    SegmentRecycled,
    /// A journal queue was too long and refused.
    JournalOverloaded,
    /// An open block of events was made durable beside its segments.
    EventsParked,
    /// A start went on with a block of events that had been parked.
    EventsTakenUp,
    /// A group's events were cut.
    Sealed,
    /// Entries that a former leader had written were taken back.
    LogTruncated,
    /// Events that a crash took were made again from the log.
    EventsRefilled,
    /// A shard saw a frame again and gave the kept answer.
    FrameRepeated,
    /// A shard saw a frame of whose answer nothing was kept.
    FrameForgotten,
    /// A shard saw a frame whose predecessor was missing.
    FrameGap,
    /// A shard saw a frame of a stream that it does not know.
    StreamUnknown,
    /// A record of an older session was fenced.
    RecordFenced,
    /// An entry's stamp did not rise and was raised.
    StampRaised,
    /// A lane sent frames again to another leader.
    FramesResent,
    /// A gateway gave a stream up and ended what was under way as unknown.
    StreamGivenUp,
    /// A gateway admitted nobody, for it had lost sight of the directory.
    CutOff,
    /// A replica became leader.
    LeaderChanged,
    /// A leadership was handed over on request.
    HandedOver,
    /// A follower campaigned because its leader was suspected.
    SuspectedLeader,
    /// A peer was heard again after a long silence, and connections to it were made anew.
    LinksDropped,
    /// A snapshot was sent.
    SnapshotSent,
    /// A snapshot was installed.
    SnapshotInstalled,
    /// A snapshot broke off before its end.
    SnapshotBroken,
    /// A damaged replica was made anew.
    ReplicaMadeAnew,
    /// A damaged segment was mended from a peer.
    SegmentMended,
}

counted! {
    Point:
    /// Counts that this state was reached.
    reach
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_that_is_reached_is_counted() {
        let before = Point::FrameGap.count();
        Point::FrameGap.reach();
        assert!(Point::FrameGap.count() > before);
        assert!(Point::ALL.iter().all(|point| point.what().ends_with('.')));
    }
}
