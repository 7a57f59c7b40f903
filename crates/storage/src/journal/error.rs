//! What can go wrong with the journal, and which of it ends the node.

/// Why the journal refused. Only [`JournalError::Failed`] is for the whole node and for ever.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JournalError {
    /// A write or a sync of the journal failed. What is durable is unknown; the node must end.
    #[error("{action} failed, the node must stop: {reason}")]
    Failed {
        /// Verb and object: "sync journal".
        action: &'static str,
        /// What the disk said.
        reason: String,
    },
    /// Opening the journal failed.
    #[error("{action}: {reason}")]
    Open {
        /// Verb and object: "read journal segment".
        action: &'static str,
        /// What the disk said.
        reason: String,
    },
    /// All segments are needed, or the disk has no room for another. Heals after a purge.
    #[error("journal is full: {0}")]
    Full(String),
    /// More waits for the disk than `queue_bytes_max`. Nothing was taken; try later.
    #[error("journal queue holds {queue_bytes} bytes")]
    Overloaded {
        /// Bytes that wait now.
        queue_bytes: usize,
    },
    /// One entry or vote is larger than a segment can hold.
    #[error("record body has {bytes} bytes, {bytes_max} at most")]
    TooLarge {
        /// Its length.
        bytes: usize,
        /// The limit that follows from `segment_bytes`.
        bytes_max: usize,
    },
    /// Entries from this index on were asked for, but they are purged.
    #[error("entries up to {purged} are purged, {from} was asked for")]
    Purged {
        /// First index asked for.
        from: u64,
        /// Highest index that is gone.
        purged: u64,
    },
    /// Bytes of this replica are damaged; it must not serve, vote or lead.
    #[error("journal of {replica} is damaged: {reason}")]
    Damaged {
        /// Which replica.
        replica: String,
        /// What was found.
        reason: String,
    },
    /// An old entry cannot be read from the disk now.
    #[error("read journal entry: {0}")]
    Read(String),
    /// The replica was removed here.
    #[error("{0} was removed from the journal")]
    Removed(String),
    /// The journal was stopped.
    #[error("journal is stopped")]
    Stopped,
}
