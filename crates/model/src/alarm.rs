//! Damage and failures that must not pass in silence (I19), by name, with a count: what `/metrics` shows of them.
//!
//! Beside every line of the log that tells of one stands [`Alarm::raise`], and nowhere else. Decides nothing: what is
//! done about it is for whoever found it. Counts are those of one process; one that ends over what it found has only
//! its log. States that are hard to reach, whether good or bad, are [`crate::point`]'s.

use crate::listed::{counted, listed};

listed! {
    /// Something that an operator should hear of, under the name that `/metrics` has for it.
    Alarm:

    /// A part of the journal does not read.
    JournalDamaged = "journal-damaged",
    /// A write or a sync of the journal failed; the node ends over it.
    JournalFailed = "journal-failed",
    /// An event segment does not read.
    SegmentDamaged = "segment-damaged",
    /// The disk refuses reads of events.
    EventsUnreadable = "events-unreadable",
    /// A damaged event segment was mended from a peer.
    SegmentMended = "segment-mended",
    /// The end of the state's journal does not read and was cut.
    StateCut = "state-cut",
    /// The state database failed; the node ends over it.
    StateFailed = "state-failed",
    /// A replica is refused, since what it has cannot be trusted.
    ReplicaDamaged = "replica-damaged",
    /// A replica could not start, or stopped; it is started again.
    ReplicaFailed = "replica-failed",
    /// A damaged replica was made anew elsewhere or here.
    ReplicaMadeAnew = "replica-made-anew",
    /// State and events could not be made durable.
    CheckpointFailed = "checkpoint-failed",
    /// A snapshot that had arrived could not be put in place.
    SnapshotFailed = "snapshot-failed",
    /// What a replica left could not be deleted.
    RemovalFailed = "removal-failed",
    /// The disk has no room; writes are refused.
    DiskFull = "disk-full",
    /// A small file of the data directory could not be read or written.
    FileFailed = "file-failed",
    /// This machine's clock is wrong; the node goes by its peers'.
    ClockWrong = "clock-wrong",
    /// An actor of a shard failed, or could not be started.
    ShardActorFailed = "shard-actor-failed",
    /// A device's actor failed, and is started again or quarantined.
    DeviceActorFailed = "device-actor-failed",
}

counted! {
    Alarm:
    /// Counts one more.
    raise
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_that_is_raised_is_counted_and_no_two_have_one_name() {
        let before = Alarm::FileFailed.count();
        Alarm::FileFailed.raise();
        assert!(Alarm::FileFailed.count() > before);
        let mut names: Vec<_> = Alarm::ALL.iter().map(|alarm| alarm.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Alarm::ALL.len());
        for alarm in Alarm::ALL {
            let is_label = |text: &str| text.chars().all(|c| c.is_ascii_lowercase() || c == '-');
            assert!(is_label(alarm.name()) && alarm.what().ends_with('.'), "{alarm:?}");
        }
    }
}
