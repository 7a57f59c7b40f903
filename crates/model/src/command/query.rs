//! What can be read of a shard, and what it answers. A query goes through no log.

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::configuration::{Configuration, Target, Targeted};
use crate::group::ask::{GroupLine, GroupQuestion, GroupSaid};
use crate::id::{DeviceId, ShardId, slot_of};
use crate::identity::{DeviceRecord, SessionRecord};
use crate::job::{Job, JobId};
use crate::leftover::Leftover;
use crate::messages::feedback::FeedbackRecord;
use crate::messages::{DeadLetter, MessageContent};
use crate::port::StoreError;
use crate::provisioning::{Enrollment, ProvisioningView, Registration, RegistrationId};
use crate::query_language::Groups;
use crate::twin::Twin;
use crate::upload::{FileNotice, Uploads};

use super::Place;

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
    /// A job.
    Job(JobId),
    /// Jobs of one shard, without what their runners plan, by slot and name, after a cursor that an earlier page
    /// returned.
    Jobs {
        /// Which shard.
        shard: ShardId,
        /// Opaque; empty for the first page.
        after: Bytes,
        /// [`JOB_LIST_MAX`](crate::limits::JOB_LIST_MAX) at most; fewer if they are large.
        count_max: usize,
    },
    /// Jobs of one shard that somebody is to take on.
    DueJobs {
        /// Which shard.
        shard: ShardId,
        /// The time, milliseconds since 1970.
        ms: u64,
    },
    /// What twins of one shard a statement of the query language finds, by slot and name, after a cursor that an
    /// earlier page returned. A page may be short, or empty, and not the last.
    Fleet {
        /// Which shard.
        shard: ShardId,
        /// The statement, which the door has read; see [`crate::query_language`].
        statement: String,
        /// Opaque; empty for the first page.
        after: Bytes,
        /// Rows that are wanted; [`FLEET_PAGE_MAX`](crate::limits::FLEET_PAGE_MAX) at most. Aggregates need none.
        count_max: usize,
    },
    /// A configuration.
    Configuration(String),
    /// Configurations of one shard, by slot and id, after a cursor that an earlier page returned.
    Configurations {
        /// Which shard.
        shard: ShardId,
        /// Opaque; empty for the first page.
        after: Bytes,
    },
    /// Twins of one shard that do not say of configurations what they should, in the same way.
    Targeted {
        /// Which shard.
        shard: ShardId,
        /// All configurations that there are.
        targets: Vec<Target>,
        /// Opaque; empty for the first page.
        after: Bytes,
    },
    /// How many twins of one shard each of several statements finds, step by step.
    Counts {
        /// Which shard.
        shard: ShardId,
        /// The statements, without aggregates; the door has read them.
        statements: Vec<String>,
        /// Opaque; empty for the first step.
        after: Bytes,
    },
    /// How far the events of one shard have left for an endpoint.
    Cursor {
        /// Which shard.
        shard: ShardId,
        /// Id of the endpoint.
        endpoint: String,
    },
    /// The uploads of a device.
    Uploads(DeviceId),
    /// From when on (milliseconds since 1970) services can be told of files of devices of one shard.
    FileNoticesDue(ShardId),
    /// Files that devices of one shard have uploaded, by the numbers of their notifications, `from <= number < to`.
    FileNotices {
        /// Which shard.
        shard: ShardId,
        /// The first.
        from: u64,
        /// The number after the last; [`BATCH_NOTICES_MAX`](crate::upload::BATCH_NOTICES_MAX) from the first at the most.
        to: u64,
    },
    /// What erased devices of one shard have left outside it, by name, after a cursor that an earlier page returned.
    Leftovers {
        /// Which shard.
        shard: ShardId,
        /// Opaque; empty for the first page.
        after: Bytes,
    },
    /// Registrations of one shard that name one of these devices, whatever hub they name with it; page by page, as
    /// [`Registrations`](Query::Registrations).
    RegistrationsOf {
        /// Which shard.
        shard: ShardId,
        /// The devices; [`LEFTOVERS_PAGE_MAX`](crate::leftover::LEFTOVERS_PAGE_MAX) at most.
        devices: Vec<DeviceId>,
        /// Opaque; empty for the first page.
        after: Bytes,
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
    /// Answer to [`Query::Registrations`] and to [`Query::RegistrationsOf`].
    Registrations {
        /// The page.
        found: Vec<Registration>,
        /// Cursor of the next page; `None` at the end.
        next: Option<Bytes>,
    },
    /// Answer to [`Query::Job`].
    Job(Option<Box<Job>>),
    /// Answer to [`Query::Jobs`].
    Jobs {
        /// The page.
        found: Vec<Job>,
        /// Cursor of the next page; `None` at the end.
        next: Option<Bytes>,
    },
    /// Answer to [`Query::DueJobs`]: some of them, those that wait longest first.
    DueJobs(Vec<JobId>),
    /// Answer to [`Query::Fleet`].
    Fleet {
        /// What was found.
        found: Found,
        /// Cursor of the next page; `None` at the end.
        next: Option<Bytes>,
    },
    /// Answer to [`Query::Configuration`].
    Configuration(Option<Box<Configuration>>),
    /// Answer to [`Query::Configurations`].
    Configurations {
        /// The page.
        found: Vec<Configuration>,
        /// Cursor of the next page; `None` at the end.
        next: Option<Bytes>,
    },
    /// Answer to [`Query::Targeted`].
    Targeted {
        /// The page.
        found: Vec<Targeted>,
        /// Cursor of the next page; `None` at the end.
        next: Option<Bytes>,
    },
    /// Answer to [`Query::Counts`].
    Counts {
        /// One for each statement, of this step alone.
        counts: Vec<u64>,
        /// Cursor of the next step; `None` at the end.
        next: Option<Bytes>,
    },
    /// Answer to [`Query::Cursor`]: the next offset that is to leave, if the endpoint is known.
    Cursor(Option<u64>),
    /// Answer to [`Query::Uploads`].
    Uploads(Uploads),
    /// Answer to [`Query::FileNoticesDue`]: 0 if now, `None` if there is nothing to tell.
    FileNoticesDue(Option<u64>),
    /// Answer to [`Query::FileNotices`].
    FileNotices(Vec<FileNotice>),
    /// Answer to [`Query::Leftovers`].
    Leftovers {
        /// The page.
        found: Vec<Leftover>,
        /// Cursor of the next page; `None` at the end.
        next: Option<Bytes>,
    },
}

/// What a statement of the query language finds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Found {
    /// Rows, each a JSON object as text.
    Rows(Vec<String>),
    /// Aggregates, to be merged with those of other pages.
    Groups(Groups),
    /// Nothing, for this reason: the node does not read the statement, or there are too many groups.
    Refused(String),
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
    /// From when on (milliseconds since 1970) somebody can take feedback: 0 if now, `None` if there is none.
    pub feedback_due_ms: Option<u64>,
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

impl Query {
    /// What the query is about.
    pub fn place(&self) -> Place<'_> {
        match self {
            Query::Device(device)
            | Query::Modules(device)
            | Query::Twin(device)
            | Query::Messages { device, .. }
            | Query::DeadLetters(device)
            | Query::Uploads(device) => Place::Device(device),
            Query::Provisioning(id) => Place::Device(id.as_device()),
            Query::Configuration(id) => Place::Slot(slot_of(id.as_bytes())),
            Query::Group { group, .. } => Place::Slot(slot_of(group.as_bytes())),
            Query::Job(id) => Place::Slot(id.slot()),
            Query::Devices { shard, .. }
            | Query::Shard(shard)
            | Query::Due { shard, .. }
            | Query::Groups { shard, .. }
            | Query::Enrollments { shard, .. }
            | Query::Fleet { shard, .. }
            | Query::Configurations { shard, .. }
            | Query::Targeted { shard, .. }
            | Query::Counts { shard, .. }
            | Query::Jobs { shard, .. }
            | Query::DueJobs { shard, .. }
            | Query::Registrations { shard, .. }
            | Query::Feedback { shard, .. }
            | Query::FileNoticesDue(shard)
            | Query::FileNotices { shard, .. }
            | Query::Leftovers { shard, .. }
            | Query::RegistrationsOf { shard, .. }
            | Query::Cursor { shard, .. } => Place::Shard(*shard),
        }
    }
}
