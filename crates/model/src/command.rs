//! What can be asked of a shard, and what it answers: the words on both sides of the road.
//!
//! A command changes state and goes through the log; a query does not. What a command means is
//! decided in [`crate::shard::state`]; how it gets there, in `cluster`.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::group::GroupError;
use crate::group::ask::{GroupAnswer, GroupAsk, GroupLine, GroupQuestion, GroupSaid};
use crate::id::{DeviceId, ShardId, Slot, StreamId, slot_of};
use crate::identity::{Condition, DeviceRecord, DeviceSpec, SessionRecord};
use crate::limits::COMMAND_WEIGHT_BYTES;
use crate::messages::feedback::{FeedbackBatch, FeedbackRecord};
use crate::messages::{
    DeadLetter, DeadLetterDeed, Holder, MessageContent, NewMessage, Settlement, TakenMessage,
};
use crate::port::StoreError;
use crate::provisioning::{
    Enrollment, EnrollmentSpec, ProvisioningView, Registration, RegistrationId, RegistrationSpec,
};
use crate::twin::Twin;

/// A change that a door asks for. Nearly each concerns one device, whose slot finds the shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Command {
    /// Creates or changes a device. New keys or a status of disabled raise its generation.
    DevicePut {
        /// Which.
        device: DeviceId,
        /// What to store.
        spec: DeviceSpec,
        /// When.
        condition: Condition,
    },
    /// Removes a device with all that belongs to it.
    DeviceDelete {
        /// Which.
        device: DeviceId,
        /// When.
        condition: Condition,
    },
    /// The end of a CONNECT: fences every earlier session of the device.
    SessionOpen {
        /// Who connected.
        device: DeviceId,
        /// The generation of the credential that was checked.
        generation: u64,
        /// The gateway that holds the connection.
        held_by: StreamId,
        /// Whether the session outlives the connection. `false` forgets earlier subscriptions.
        persistent: bool,
    },
    /// A connection is over. Does nothing when a later session has taken its place.
    SessionClose {
        /// Whose.
        device: DeviceId,
        /// Which.
        epoch: u64,
    },
    /// Topic filters that the device wants; the door has checked them.
    Subscribe {
        /// Whose.
        device: DeviceId,
        /// Of which session.
        epoch: u64,
        /// Filter and granted QoS.
        filters: Vec<(String, u8)>,
    },
    /// Topic filters that the device no longer wants.
    Unsubscribe {
        /// Whose.
        device: DeviceId,
        /// Of which session.
        epoch: u64,
        /// The filters.
        filters: Vec<String>,
    },
    /// The device says something of itself in its twin.
    TwinReport {
        /// Whose.
        device: DeviceId,
        /// Of which session.
        epoch: u64,
        /// A merge document as JSON text; the door has checked it.
        patch: String,
        /// The version that `reported` must have, if that is asked.
        version: Option<u64>,
    },
    /// A service changes a twin.
    TwinChange {
        /// Whose.
        device: DeviceId,
        /// For `tags`, as JSON text; the door has checked it.
        tags: Option<String>,
        /// For `desired`.
        desired: Option<String>,
        /// Whether what is given stands in place of what there is, rather than being merged into it.
        replaces: bool,
        /// The etag that the twin must have, if that is asked.
        etag: Option<u64>,
    },
    /// A service sends a message to a device.
    MessageSend {
        /// To whom.
        device: DeviceId,
        /// What.
        message: NewMessage,
    },
    /// A session wants messages: those that wait, and those that it was given and does not know of.
    MessageTake {
        /// Whose.
        device: DeviceId,
        /// Of which session.
        epoch: u64,
        /// Numbers of those that it has and has not settled.
        holds: Vec<u64>,
        /// How many more it takes.
        count_max: u32,
    },
    /// A device fetches one message, outside any session.
    MessageLock {
        /// Whose.
        device: DeviceId,
        /// The generation of the credential that was checked.
        generation: u64,
        /// How long it is to be its own; [`LOCK_MS`](crate::messages::LOCK_MS) if not said.
        lock_ms: Option<u64>,
    },
    /// A device settles messages that it was given. Those that the holder has not (any more) are left as they are.
    MessageSettle {
        /// Whose.
        device: DeviceId,
        /// Their numbers; no more than a queue has.
        numbers: Vec<u64>,
        /// Who says so.
        holder: Holder,
        /// What.
        settlement: Settlement,
    },
    /// The queue of a device is to be looked at: the time of some messages is over. Only the shard's leader says so.
    MessagesExpire {
        /// Whose.
        device: DeviceId,
    },
    /// A service empties the queue of a device.
    MessagesPurge {
        /// Whose.
        device: DeviceId,
    },
    /// A service does something with a dead letter.
    DeadLetter {
        /// Whose.
        device: DeviceId,
        /// Its number.
        number: u64,
        /// What.
        deed: DeadLetterDeed,
    },
    /// A service wants to hear how messages of the devices of one shard ended.
    FeedbackTake {
        /// Which shard.
        shard: ShardId,
        /// How long the batch is to be its own, in milliseconds.
        lock_ms: u64,
    },
    /// A service settles a batch that it was given.
    FeedbackSettle {
        /// Which shard.
        shard: ShardId,
        /// Of the batch.
        token: u64,
        /// Whether it is done with; otherwise it is given again.
        completes: bool,
    },
    /// Makes or changes an individual enrolment.
    EnrollmentPut {
        /// Whose.
        id: RegistrationId,
        /// The same as the operator spells it.
        name: String,
        /// What it says; the door has checked it.
        spec: Box<EnrollmentSpec>,
        /// When.
        condition: Condition,
    },
    /// Removes an individual enrolment, and the registration under it.
    EnrollmentDelete {
        /// Whose.
        id: RegistrationId,
        /// When.
        condition: Condition,
    },
    /// A device is registered. Whatever was to be done at its hub is done.
    RegistrationPut {
        /// Under which name.
        id: RegistrationId,
        /// What the registration says.
        spec: Box<RegistrationSpec>,
        /// The version of its own enrolment that let it in; `None` for a group, which lets in nobody who has one.
        enrollment: Option<u64>,
        /// When.
        condition: Condition,
    },
    /// Forgets a registration. The device stays at its hub.
    RegistrationDelete {
        /// Which.
        id: RegistrationId,
        /// When.
        condition: Condition,
    },
    /// A consumer group is asked for something.
    Group {
        /// Its id, checked.
        group: String,
        /// For what.
        ask: Box<GroupAsk>,
    },
}

/// What a command is about, and so which shard it goes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place<'a> {
    /// The shard of a device.
    Device(&'a DeviceId),
    /// A shard by its number.
    Shard(ShardId),
    /// The shard of a slot.
    Slot(Slot),
}

impl Query {
    /// What the query is about.
    pub fn place(&self) -> Place<'_> {
        match self {
            Query::Device(device)
            | Query::Modules(device)
            | Query::Twin(device)
            | Query::Messages { device, .. }
            | Query::DeadLetters(device) => Place::Device(device),
            Query::Provisioning(id) => Place::Device(id.as_device()),
            Query::Group { group, .. } => Place::Slot(slot_of(group.as_bytes())),
            Query::Devices { shard, .. }
            | Query::Shard(shard)
            | Query::Due { shard, .. }
            | Query::Groups { shard, .. }
            | Query::Enrollments { shard, .. }
            | Query::Registrations { shard, .. }
            | Query::Feedback { shard, .. } => Place::Shard(*shard),
        }
    }
}

impl Command {
    /// Bytes that it counts for in budgets and batches.
    pub fn weight_bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        COMMAND_WEIGHT_BYTES
            + match self {
                Command::TwinReport { patch, .. } => patch.len(),
                Command::TwinChange { tags, desired, .. } => text(tags) + text(desired),
                Command::MessageSend { message, .. } => message.content.bytes(),
                Command::EnrollmentPut { spec, .. } => spec.bytes(),
                Command::RegistrationPut { spec, .. } => text(&spec.payload),
                Command::Group { ask, .. } => ask.bytes(),
                _ => 0,
            }
    }

    /// What the command is about.
    pub fn place(&self) -> Place<'_> {
        match self {
            Command::DevicePut { device, .. }
            | Command::DeviceDelete { device, .. }
            | Command::SessionOpen { device, .. }
            | Command::SessionClose { device, .. }
            | Command::Subscribe { device, .. }
            | Command::Unsubscribe { device, .. }
            | Command::TwinReport { device, .. }
            | Command::TwinChange { device, .. }
            | Command::MessageSend { device, .. }
            | Command::MessageTake { device, .. }
            | Command::MessageLock { device, .. }
            | Command::MessageSettle { device, .. }
            | Command::MessagesExpire { device }
            | Command::MessagesPurge { device }
            | Command::DeadLetter { device, .. } => Place::Device(device),
            Command::EnrollmentPut { id, .. }
            | Command::EnrollmentDelete { id, .. }
            | Command::RegistrationPut { id, .. }
            | Command::RegistrationDelete { id, .. } => Place::Device(id.as_device()),
            Command::Group { group, .. } => Place::Slot(slot_of(group.as_bytes())),
            Command::FeedbackTake { shard, .. } | Command::FeedbackSettle { shard, .. } => {
                Place::Shard(*shard)
            }
        }
    }
}

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
    /// This batch is the asker's, if there was any. Its records are read with [`Query::Feedback`].
    FeedbackTaken(Option<FeedbackBatch>),
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

/// How fresh an answer must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Consistency {
    /// Sees every write that was acknowledged before the query began.
    Linearizable,
    /// What the leader has applied, without asking the others. A later fence corrects a stale answer.
    Leader,
}

/// What can be read of a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// One device, or one module, with its session.
    Device(DeviceId),
    /// All modules of a device.
    Modules(DeviceId),
    /// Devices of one shard, by slot and name, after a cursor that an earlier page returned.
    Devices {
        /// Which shard.
        shard: ShardId,
        /// Opaque; empty for the first page.
        after: Bytes,
        /// [`crate::limits::DEVICE_PAGE_MAX`] at most.
        count_max: usize,
    },
    /// Counters of one shard.
    Shard(ShardId),
    /// One device with its twin.
    Twin(DeviceId),
    /// What messages of a device carry, by their numbers.
    Messages {
        /// Whose.
        device: DeviceId,
        /// Which; as many as one step takes.
        numbers: Vec<u64>,
    },
    /// The dead letters of a device.
    DeadLetters(DeviceId),
    /// What in one shard is to be looked at because some time is over.
    Due {
        /// Which shard.
        shard: ShardId,
        /// The time, milliseconds since 1970.
        ms: u64,
    },
    /// Records of feedback of one shard, `from <= number < to`.
    Feedback {
        /// Which shard.
        shard: ShardId,
        /// The first.
        from: u64,
        /// The number after the last; [`BATCH_RECORDS_MAX`](crate::messages::feedback::BATCH_RECORDS_MAX) from the
        /// first at the most.
        to: u64,
    },
    /// What is known of a registration id.
    Provisioning(RegistrationId),
    /// Individual enrolments of one shard, with the registrations under them, by slot and name, after a cursor that
    /// an earlier page returned.
    Enrollments {
        /// Which shard.
        shard: ShardId,
        /// Opaque; empty for the first page.
        after: Bytes,
        /// [`PROVISIONING_PAGE_MAX`](crate::limits::PROVISIONING_PAGE_MAX) at most.
        count_max: usize,
    },
    /// What a consumer group says without being changed.
    Group {
        /// Its id.
        group: String,
        /// What is asked.
        question: GroupQuestion,
    },
    /// Consumer groups of one shard, by slot and name, after a cursor that an earlier page returned.
    Groups {
        /// Which shard.
        shard: ShardId,
        /// Opaque; empty for the first page.
        after: Bytes,
    },
    /// Registrations of one shard under a group, in the same way. A page may be short, or empty, and not the last.
    Registrations {
        /// Which shard.
        shard: ShardId,
        /// The group, in any case.
        group: String,
        /// Opaque; empty for the first page.
        after: Bytes,
        /// [`PROVISIONING_PAGE_MAX`](crate::limits::PROVISIONING_PAGE_MAX) at most.
        count_max: usize,
    },
}

/// What a query answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum View {
    /// Answer to [`Query::Device`].
    Device(Option<DeviceView>),
    /// Answer to [`Query::Devices`] and to [`Query::Modules`], which has one page.
    Devices {
        /// The page.
        devices: Vec<DeviceView>,
        /// Cursor of the next page; `None` at the end.
        next: Option<Bytes>,
    },
    /// Answer to [`Query::Shard`].
    Shard(ShardView),
    /// Answer to [`Query::Twin`].
    Twin(Option<TwinView>),
    /// Answer to [`Query::Messages`]: those that are still there.
    Messages(Vec<(u64, MessageContent)>),
    /// Answer to [`Query::DeadLetters`].
    DeadLetters(Vec<DeadLetter>),
    /// Answer to [`Query::Due`]: some of it.
    Due(Vec<Due>),
    /// Answer to [`Query::Feedback`].
    Feedback(Vec<FeedbackRecord>),
    /// Answer to [`Query::Group`].
    Group(Box<GroupSaid>),
    /// Answer to [`Query::Groups`].
    Groups {
        /// The page.
        found: Vec<GroupLine>,
        /// Cursor of the next page; `None` at the end.
        next: Option<Bytes>,
    },
    /// Answer to [`Query::Provisioning`].
    Provisioning(Box<ProvisioningView>),
    /// Answer to [`Query::Enrollments`].
    Enrollments {
        /// The page.
        found: Vec<(Enrollment, Option<Registration>)>,
        /// Cursor of the next page; `None` at the end.
        next: Option<Bytes>,
    },
    /// Answer to [`Query::Registrations`].
    Registrations {
        /// The page.
        found: Vec<Registration>,
        /// Cursor of the next page; `None` at the end.
        next: Option<Bytes>,
    },
}

/// Something that time has passed for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Due {
    /// The queue of messages to a device.
    Messages(DeviceId),
    /// A consumer group.
    Group(String),
}

/// A device and its session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceView {
    /// The registry's part.
    pub record: DeviceRecord,
    /// The session; the default one if there never was any.
    pub session: SessionRecord,
    /// Messages that wait for it.
    pub message_count: u32,
}

/// A device and its twin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TwinView {
    /// The device.
    pub device: DeviceView,
    /// A [`Twin`](crate::twin::Twin) as JSON text, since what is in it has no fixed shape. `None` for one that nobody
    /// has written to.
    pub twin: Option<String>,
}

impl TwinView {
    /// The twin, read; the one that every device begins with if nobody has written to it.
    pub fn document(&self) -> Result<Twin, StoreError> {
        let Some(text) = &self.twin else {
            return Ok(Twin::default());
        };
        serde_json::from_str(text).map_err(|error| StoreError::Corrupt {
            what: "twin".into(),
            reason: error.to_string(),
        })
    }
}

/// Counters of a shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct ShardView {
    /// Registered devices.
    pub device_count: u64,
    /// Devices with a live session.
    pub connected_count: u64,
    /// Registered devices that may not connect.
    pub disabled_count: u64,
    /// Records of feedback that somebody could take, as of the shard's last entry.
    pub feedback_count: u64,
    /// First offset that can be read.
    pub first_offset: u64,
    /// Offset that the next event gets.
    pub next_offset: u64,
    /// Applied log index.
    pub applied_index: u64,
    /// Term of the answering leader.
    pub term: u64,
}

/// Where to begin reading events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ReadFrom {
    /// At this offset.
    Offset(u64),
    /// At the first event stamped at or after this time, milliseconds since 1970.
    TimeMs(u64),
    /// After the last event there is now.
    End,
}
