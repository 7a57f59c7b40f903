//! What can be asked of a shard, and what it answers: the words on both sides of the road.
//!
//! A command changes state and goes through the log; a query does not. What a command means is
//! decided in [`crate::shard::state`]; how it gets there, in `cluster`.

mod outcome;
mod query;
mod receipt;

use serde::{Deserialize, Serialize};

use crate::configuration::{ConfigurationSpec, Marks, Setting};
use crate::group::ask::GroupAsk;
use crate::id::{DeviceId, ShardId, Slot, StreamId, slot_of};
use crate::identity::{Condition, DeviceSpec};
use crate::job::rows::RowResult;
use crate::job::{JobId, JobOrder, JobSpec, JobStep};
use crate::limits::COMMAND_WEIGHT_BYTES;
use crate::messages::{DeadLetterDeed, Holder, NewMessage, Settlement};
use crate::provisioning::{EnrollmentSpec, RegistrationId, RegistrationSpec};
use crate::quota::Plan;
use crate::quota::keeper::{self, Wants};
use crate::upload::NewFileNotice;

pub use outcome::{NoReceipt, Outcome, Receipt, Refusal, TelemetryAck};
pub use query::{Consistency, DeviceView, Due, Found, Query, ReadFrom, ShardView, TwinView, View};
pub use receipt::{Least, RECEIPTS_SHOWN_MAX, Settled, Wanted, WriteReceipt, WriteReceipts};

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
    /// A service wants a job. The same one again is answered as the first.
    JobPut(Box<JobSpec>),
    /// A service wants no more of a job.
    JobCancel(JobId),
    /// A runner wants a job that is due.
    JobClaim {
        /// Which.
        id: JobId,
        /// Drawn at random for this run.
        runner: u64,
    },
    /// The runner of a job says how it goes on.
    JobAdvance {
        /// Which.
        id: JobId,
        /// The one that has it.
        runner: u64,
        /// How.
        step: Box<JobStep>,
    },
    /// A job changes a twin, once.
    JobTwin {
        /// Whose.
        device: DeviceId,
        /// The job.
        order: Box<JobOrder>,
        /// Who runs it.
        runner: u64,
        /// For `tags`, as JSON text; the door has checked it.
        tags: Option<String>,
        /// For `desired`.
        desired: Option<String>,
    },
    /// A job is about to ask a device, once.
    JobMethodBegin {
        /// Which.
        device: DeviceId,
        /// The job.
        order: Box<JobOrder>,
        /// Who runs it.
        runner: u64,
    },
    /// A device that a job was about to ask has answered, or will not.
    JobMethodEnd {
        /// Which.
        device: DeviceId,
        /// The job.
        order: Box<JobOrder>,
        /// Who began it.
        runner: u64,
        /// How it ended.
        result: RowResult,
    },
    /// A twin is brought in line with the configurations that concern it, or with content that a service applies by hand.
    TwinConfigure {
        /// Whose.
        device: DeviceId,
        /// The etag that the twin must have, if that is asked.
        etag: Option<u64>,
        /// What it says of configurations from then on, if that is to change.
        marks: Option<Marks>,
        /// Parts of `desired`, in the order in which they are put in place; the door has checked them.
        settings: Vec<Setting>,
    },
    /// Makes or changes a configuration; its content never changes.
    ConfigurationPut {
        /// Its id, checked.
        id: String,
        /// What it says; the door has checked it.
        spec: Box<ConfigurationSpec>,
        /// When.
        condition: Condition,
    },
    /// Removes a configuration.
    ConfigurationDelete {
        /// Its id.
        id: String,
        /// When.
        condition: Condition,
    },
    /// Somebody wants to do alone what is called so, for a while.
    LeaseTake {
        /// What.
        name: String,
        /// Who, drawn at random.
        holder: u64,
        /// For how long, in milliseconds from the entry's stamp; a minute at the most.
        ms: u64,
    },
    /// The events of one shard have left for an endpoint up to here.
    CursorMove {
        /// Which shard.
        shard: ShardId,
        /// Id of the endpoint.
        endpoint: String,
        /// The next offset that is to leave; one that is lower than before changes nothing. `None` forgets the endpoint.
        offset: Option<u64>,
    },
    /// Removes a device with all that belongs to it, if it is there, and all that it ever sent.
    DeviceErase {
        /// Which; no module.
        device: DeviceId,
    },
    /// A door asks what of that which waits there may go on.
    QuotaAsk {
        /// What the hub is held to, as the door knows it.
        plan: Plan,
        /// What waits.
        wants: Vec<Wants>,
    },
    /// A device wants to upload a file. The same one again is answered as the first.
    UploadBegin {
        /// Whose.
        device: DeviceId,
        /// The generation of the credential that was checked.
        generation: u64,
        /// The correlation id, drawn for it.
        id: String,
        /// The name that the device gives the file; the door has checked it.
        blob: String,
        /// SHA-256 of the secret in its token, in Base64.
        secret_digest: String,
        /// How long its token is to count.
        ttl_ms: u64,
    },
    /// A device says that an upload is over. To say so again changes nothing.
    UploadEnd {
        /// Whose.
        device: DeviceId,
        /// The generation of the credential that was checked.
        generation: u64,
        /// The correlation id.
        id: String,
        /// What services are to be told, if it ended well and they want to hear of it.
        notice: Option<Box<NewFileNotice>>,
    },
    /// A service wants to hear which files devices of one shard have uploaded.
    FileNoticeTake {
        /// Which shard.
        shard: ShardId,
        /// How long the batch is to be its own, in milliseconds.
        lock_ms: u64,
    },
    /// A service settles such a batch.
    FileNoticeSettle {
        /// Which shard.
        shard: ShardId,
        /// Of the batch.
        token: u64,
        /// Whether it is done with; otherwise it is given again.
        completes: bool,
    },
    /// What an erased device has left outside its shard is gone.
    LeftoverGone {
        /// Which.
        device: DeviceId,
        /// Index of the entry that erased it; a later erasure is not meant.
        index: u64,
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

impl Command {
    /// Bytes that it counts for in budgets and batches.
    pub fn weight_bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        COMMAND_WEIGHT_BYTES
            + match self {
                Command::TwinReport { patch, .. } => patch.len(),
                Command::TwinChange { tags, desired, .. } => text(tags) + text(desired),
                Command::TwinConfigure { settings, marks, .. } => {
                    let marks = marks.iter().flatten().map(|(id, _)| id.len() + 16);
                    settings.iter().map(Setting::bytes).sum::<usize>() + marks.sum::<usize>()
                }
                Command::ConfigurationPut { spec, .. } => spec.bytes(),
                Command::MessageSend { message, .. } => message.content.bytes(),
                Command::EnrollmentPut { spec, .. } => spec.bytes(),
                Command::RegistrationPut { spec, .. } => text(&spec.payload),
                Command::Group { ask, .. } => ask.bytes(),
                Command::JobPut(spec) => spec.bytes(),
                Command::JobAdvance { step, .. } => step.bytes(),
                Command::JobTwin { tags, desired, .. } => text(tags) + text(desired),
                Command::JobMethodEnd { result, .. } => result.bytes(),
                Command::QuotaAsk { wants, .. } => wants.iter().map(|asked| 16 + 8 * asked.wants.len()).sum(),
                Command::UploadBegin { blob, .. } => blob.len(),
                Command::UploadEnd { notice, .. } => {
                    notice.as_ref().map_or(0, |file| file.uri.len() + file.blob.len())
                }
                _ => 0,
            }
    }

    /// What the command is about.
    pub fn place(&self) -> Place<'_> {
        match self {
            Command::DevicePut { device, .. }
            | Command::DeviceDelete { device, .. }
            | Command::DeviceErase { device }
            | Command::SessionOpen { device, .. }
            | Command::SessionClose { device, .. }
            | Command::Subscribe { device, .. }
            | Command::Unsubscribe { device, .. }
            | Command::TwinReport { device, .. }
            | Command::TwinChange { device, .. }
            | Command::TwinConfigure { device, .. }
            | Command::MessageSend { device, .. }
            | Command::MessageTake { device, .. }
            | Command::MessageLock { device, .. }
            | Command::MessageSettle { device, .. }
            | Command::MessagesExpire { device }
            | Command::MessagesPurge { device }
            | Command::DeadLetter { device, .. }
            | Command::JobTwin { device, .. }
            | Command::JobMethodBegin { device, .. }
            | Command::JobMethodEnd { device, .. }
            | Command::UploadBegin { device, .. }
            | Command::UploadEnd { device, .. }
            | Command::LeftoverGone { device, .. } => Place::Device(device),
            Command::EnrollmentPut { id, .. }
            | Command::EnrollmentDelete { id, .. }
            | Command::RegistrationPut { id, .. }
            | Command::RegistrationDelete { id, .. } => Place::Device(id.as_device()),
            Command::ConfigurationPut { id, .. } | Command::ConfigurationDelete { id, .. } => {
                Place::Slot(slot_of(id.as_bytes()))
            }
            Command::LeaseTake { name, .. } => Place::Slot(slot_of(name.as_bytes())),
            Command::QuotaAsk { .. } => Place::Slot(slot_of(keeper::NAME.as_bytes())),
            Command::Group { group, .. } => Place::Slot(slot_of(group.as_bytes())),
            Command::JobPut(spec) => Place::Slot(spec.id.slot()),
            Command::JobCancel(id) | Command::JobClaim { id, .. } | Command::JobAdvance { id, .. } => {
                Place::Slot(id.slot())
            }
            Command::FeedbackTake { shard, .. }
            | Command::FeedbackSettle { shard, .. }
            | Command::FileNoticeTake { shard, .. }
            | Command::FileNoticeSettle { shard, .. }
            | Command::CursorMove { shard, .. } => Place::Shard(*shard),
        }
    }
}
