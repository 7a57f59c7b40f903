//! What became of a command, or of a record: the answers that come out of the log.

use serde::{Deserialize, Serialize};

use crate::group::GroupError;
use crate::group::ask::GroupAnswer;
use crate::id::ShardId;
use crate::identity::DeviceRecord;
use crate::job::rows::RowStatus;
use crate::job::state::JobState;
use crate::messages::TakenMessage;
use crate::owed::OwedBatch;
use crate::quota;

/// What became of a command. The order of refusals is the order in which `apply` checks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Outcome {
    /// The device as it is stored now.
    Stored(DeviceRecord),
    /// It is gone, or the session is over, or the subscription is kept.
    Done,
    /// The session is open.
    SessionOpened {
        /// Its epoch; goes into every record of the session.
        epoch: u64,
        /// Whether an earlier session's subscriptions go on (MQTT: session present).
        present: bool,
        /// Stamp of the entry.
        time_ms: u64,
        /// Whether it listens for messages, and some wait.
        waiting: bool,
    },
    /// Nothing changed, for this reason.
    Refused(Refusal),
    /// The twin is changed.
    TwinChanged {
        /// Version of the section that the device wrote, or of the twin that a service did.
        version: u64,
    },
    /// The filters are kept.
    Subscribed {
        /// Whether the session listens for messages, and some wait.
        waiting: bool,
    },
    /// The message waits for its device.
    MessageQueued {
        /// Its number in the device's queue.
        number: u64,
    },
    /// These messages are the session's, or the device's who asked, who may have asked in vain.
    MessagesTaken {
        /// With which quality the session listens: 0 or 1.
        qos: u8,
        /// The messages, in order. What they carry is read with [`Query::Messages`].
        messages: Vec<TakenMessage>,
        /// Whether others wait.
        more: bool,
    },
    /// The queue is empty.
    MessagesPurged {
        /// Messages that were in it.
        count: u32,
    },
    /// This batch is the asker's, if there was any. Its records are read with [`Query::Feedback`], or
    /// [`Query::FileNotices`].
    FeedbackTaken(Option<OwedBatch>),
    /// The enrolment, or the registration, is kept.
    Kept {
        /// Its version now.
        version: u64,
        /// When it was made, milliseconds since 1970.
        created_ms: u64,
        /// Stamp of the entry.
        updated_ms: u64,
    },
    /// What the consumer group says.
    Group(Result<GroupAnswer, GroupError>),
    /// The job as it is now. What was asked of it, and what its runner plans, is read with [`Query::Job`].
    Job {
        /// What it has come to.
        state: Box<JobState>,
        /// Stamp of the entry.
        time_ms: u64,
    },
    /// What a job has done at a device.
    JobRow {
        /// How it went.
        status: RowStatus,
        /// Whether whoever says so is to ask the device now.
        is_to_ask: bool,
    },
    /// The device's events are no more.
    Erased {
        /// Those below this offset of its shard; later ones are of another device of that name.
        upto: u64,
    },
    /// What of that which waits at a door may go on.
    Quota(Box<quota::keeper::Answer>),
    /// The upload is under way.
    UploadBegun {
        /// Until when its token counts.
        expires_ms: u64,
    },
}

/// Why a command changed nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum Refusal {
    /// No such device.
    #[error("device does not exist")]
    UnknownDevice,
    /// The device is there, and has no such module.
    #[error("module does not exist")]
    UnknownModule,
    /// The device exists, but should not.
    #[error("device already exists")]
    AlreadyExists,
    /// The device is in another version than the condition names.
    #[error("the version does not match")]
    VersionMismatch,
    /// The credential was valid once; it has been rolled, or the device was disabled meanwhile.
    #[error("the credential is no longer valid")]
    StaleGeneration,
    /// A later session of the same device has taken over.
    #[error("a later session has taken over")]
    Fenced,
    /// The device may not connect.
    #[error("device is disabled")]
    Disabled,
    /// A bound of the shard or the device is reached.
    #[error("a limit is reached")]
    LimitReached,
    /// A section of the twin would become too large.
    #[error("a section of the twin would become too large")]
    TwinTooLarge,
    /// What is to be changed in the twin cannot be read.
    #[error("the change of the twin cannot be read")]
    TwinUnreadable,
    /// As many messages wait for the device as may.
    #[error("too many messages wait for the device")]
    QueueFull,
    /// Whoever settles a message, or a batch of feedback, does not hold it any more.
    #[error("the message is no longer held")]
    LockLost,
    /// There is no dead letter of that number.
    #[error("there is no such dead letter")]
    NoSuchLetter,
    /// The session does not listen for messages.
    #[error("the session does not listen for messages")]
    NotListening,
    /// There is no such enrolment.
    #[error("the enrollment does not exist")]
    UnknownEnrollment,
    /// There is no such registration.
    #[error("the registration does not exist")]
    UnknownRegistration,
    /// The enrolment under which a device was let in is another now.
    #[error("the enrollment has changed meanwhile")]
    StaleEnrollment,
    /// There is no such job, or it has not come to the device.
    #[error("the job does not exist")]
    UnknownJob,
    /// The job has ended, or its time is over.
    #[error("the job has ended")]
    JobEnded,
    /// The job's time has not come, or somebody else runs it.
    #[error("the job is not due, or another runs it")]
    JobNotFree,
    /// Whoever says how a job goes on does not run it any more.
    #[error("the job is run by another")]
    JobNotHeld,
    /// There is no such configuration.
    #[error("the configuration does not exist")]
    UnknownConfiguration,
    /// The content of a configuration never changes.
    #[error("the content of a configuration cannot change")]
    ContentFixed,
    /// Somebody else does it.
    #[error("somebody else does it")]
    LeaseHeld,
    /// The device has as many uploads under way as it may.
    #[error("too many uploads are under way")]
    TooManyUploads,
    /// The device has no upload of that id.
    #[error("the upload does not exist")]
    UnknownUpload,
    /// The time of the upload is over.
    #[error("the upload's time is over")]
    UploadLapsed,
    /// Files of an erased device of that name are still to go.
    #[error("files of an erased device of that name are being removed")]
    LeftoverThere,
}

/// Where an event stands: the receipt of a message. Text form `shard/offset/term`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Receipt {
    /// The shard.
    pub shard: ShardId,
    /// Dense offset in the shard.
    pub offset: u64,
    /// Term of the entry that stored it.
    pub term: u64,
}

impl std::fmt::Display for Receipt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}/{}", self.shard, self.offset, self.term)
    }
}

impl std::str::FromStr for Receipt {
    type Err = NoReceipt;

    fn from_str(text: &str) -> Result<Self, NoReceipt> {
        let mut parts = text.split('/');
        let mut part = || parts.next().ok_or(NoReceipt);
        let (shard, offset, term) = (part()?, part()?, part()?);
        let receipt = Receipt {
            shard: ShardId(shard.parse().map_err(|_| NoReceipt)?),
            offset: offset.parse().map_err(|_| NoReceipt)?,
            term: term.parse().map_err(|_| NoReceipt)?,
        };
        match parts.next() {
            None => Ok(receipt),
            Some(_) => Err(NoReceipt),
        }
    }
}

/// A text is no receipt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a receipt is shard/offset/term")]
pub struct NoReceipt;

/// What became of one telemetry record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TelemetryAck {
    /// On disk on a majority, and applied. The only variant that may be acknowledged to a device.
    Stored(Receipt),
    /// A later session, another generation, or no such device: close the connection without an ack.
    Fenced,
    /// Nobody knows: the road was lost before an answer came. Close the connection without an ack.
    Unknown,
}
