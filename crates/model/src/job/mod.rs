//! Scheduled jobs: one change of twins, or one method, for all devices that a condition finds.
//!
//! The words that doors, shards and runners share. [`state`] decides what becomes of a job as a whole: who may run it,
//! how far it is, and when it has ended; [`rows`] what it did at one device, so that each is changed once and asked once
//! however often a runner dies; [`document`] how that is shown. All of it is pure; where it lies in shards is decided in
//! `shard::jobs`, and who runs jobs, in `gateway`.

pub mod document;
pub mod rows;
pub mod state;

use std::fmt;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::id::{DeviceId, Slot, slot_of};
use state::{JobPlan, JobState};

/// Characters of a job's id (IoT Hub: 64).
pub const JOB_ID_BYTES_MAX: usize = 64;
/// Bytes of all that a job says: its condition, and what it writes or sends. One more is refused at the door.
pub const JOB_SPEC_BYTES_MAX: usize = 2 * crate::twin::TEXT_BYTES_MAX;
/// Bytes of a job's condition: a query of it fits [`QUERY_BYTES_MAX`](crate::query_language::QUERY_BYTES_MAX).
pub const JOB_CONDITION_BYTES_MAX: usize = crate::query_language::QUERY_BYTES_MAX - 64;
/// Jobs that one shard keeps, ended ones included. One more is refused, unless others have ended long ago.
pub const JOBS_PER_SHARD_MAX: usize = 1000;
/// How long a job that has ended is certain to be kept (IoT Hub: 30 days); then it makes room for others.
pub const JOB_HISTORY_MS: u64 = 30 * 24 * 3600 * 1000;
/// How long a runner has a job before another may take it, from when it was heard last.
pub const JOB_LEASE_MS: u64 = 10_000;
/// Seconds that a job has from its start, unless it says otherwise (`az iot hub job`: an hour).
pub const JOB_TIME_S_DEFAULT: u64 = 3600;
/// Seconds that a job may ask for.
pub const JOB_TIME_S_MAX: u64 = 30 * 24 * 3600;
/// Devices that a runner takes on at a time: what it does again if its predecessor died over them.
pub const JOB_PAGE_DEVICES_MAX: usize = 100;
/// Bytes of why a job has failed; the rest is cut off.
pub const JOB_REASON_BYTES_MAX: usize = 512;

/// The name of a job: 1 to 64 ASCII letters, digits and `-.+%_#*?!(),:=@$'`. Case counts.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct JobId(String);

/// A text is no name of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a job id has 1 to {JOB_ID_BYTES_MAX} letters, digits and -.+%_#*?!(),:=@$'")]
pub struct NoJobId;

impl JobId {
    /// The name, checked.
    pub fn parse(text: &str) -> Result<Self, NoJobId> {
        let may_stand = |c: char| c.is_ascii_alphanumeric() || "-.+%_#*?!(),:=@$'".contains(c);
        match (1..=JOB_ID_BYTES_MAX).contains(&text.len()) && text.chars().all(may_stand) {
            true => Ok(Self(text.to_owned())),
            false => Err(NoJobId),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The slot that it lives in.
    pub fn slot(&self) -> Slot {
        slot_of(self.0.as_bytes())
    }
}

impl TryFrom<String> for JobId {
    type Error = NoJobId;
    fn try_from(text: String) -> Result<Self, NoJobId> {
        Self::parse(&text)
    }
}

impl From<JobId> for String {
    fn from(id: JobId) -> String {
        id.0
    }
}

impl fmt::Display for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for JobId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

/// What a service asks for. The door has checked it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobSpec {
    /// What it is called.
    pub id: JobId,
    /// What is done at each device.
    pub work: JobWork,
    /// For which: a [`Condition`](crate::query_language::Condition), [`JOB_CONDITION_BYTES_MAX`] at most.
    pub condition: String,
    /// When it begins, milliseconds since 1970. A time that is over, or 0, is when it is stored.
    pub start_ms: u64,
    /// Seconds that it has from then, 1 to [`JOB_TIME_S_MAX`].
    pub time_max_s: u64,
}

impl JobSpec {
    /// Bytes that count against [`JOB_SPEC_BYTES_MAX`].
    pub fn bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        self.condition.len()
            + match &self.work {
                JobWork::TwinUpdate { tags, desired } => text(tags) + text(desired),
                JobWork::Method { name, payload, .. } => name.len() + payload.len(),
            }
    }
}

/// What a job does at each device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobWork {
    /// Merges into its twin.
    TwinUpdate {
        /// For `tags`, as JSON text.
        tags: Option<String>,
        /// For `desired`.
        desired: Option<String>,
    },
    /// Calls a method of it.
    Method {
        /// Which.
        name: String,
        /// JSON text.
        payload: String,
        /// Seconds that the device has to answer.
        response_s: u64,
        /// Seconds to wait for a device that is not connected.
        connect_s: u64,
    },
}

impl JobWork {
    /// Which kind it is.
    pub fn kind(&self) -> JobKind {
        match self {
            JobWork::TwinUpdate { .. } => JobKind::TwinUpdate,
            JobWork::Method { .. } => JobKind::Method,
        }
    }
}

/// The kinds of jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobKind {
    /// Changes twins.
    TwinUpdate,
    /// Calls methods.
    Method,
}

impl JobKind {
    /// IoT Hub's word for it.
    pub fn word(self) -> &'static str {
        match self {
            JobKind::TwinUpdate => "scheduleUpdateTwin",
            JobKind::Method => "scheduleDeviceMethod",
        }
    }

    /// What a word means, in any case of its letters.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::TwinUpdate, Self::Method]
            .into_iter()
            .find(|kind| kind.word().eq_ignore_ascii_case(word))
    }
}

/// How a job is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobStatus {
    /// Its time has not come.
    Scheduled,
    /// Its time has come, and nobody runs it yet.
    Queued,
    /// Somebody runs it, or has begun to.
    Running,
    /// Every device has been seen to; not each with success.
    Completed,
    /// It could not be carried out, or not in its time.
    Failed,
    /// A service wants no more of it.
    Cancelled,
}

impl JobStatus {
    const ALL: [Self; 6] = [
        Self::Scheduled,
        Self::Queued,
        Self::Running,
        Self::Completed,
        Self::Failed,
        Self::Cancelled,
    ];

    /// IoT Hub's word for it.
    pub fn word(self) -> &'static str {
        match self {
            JobStatus::Scheduled => "scheduled",
            JobStatus::Queued => "queued",
            JobStatus::Running => "running",
            JobStatus::Completed => "completed",
            JobStatus::Failed => "failed",
            JobStatus::Cancelled => "cancelled",
        }
    }

    /// What a word means, in any case of its letters.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|status| status.word().eq_ignore_ascii_case(word))
    }

    /// Whether nothing follows.
    pub fn has_ended(self) -> bool {
        matches!(
            self,
            JobStatus::Completed | JobStatus::Failed | JobStatus::Cancelled
        )
    }
}

/// A job as its shard has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// What was asked for.
    pub spec: JobSpec,
    /// What has become of it.
    pub state: JobState,
    /// How its runner goes on.
    pub plan: JobPlan,
}

impl Job {
    /// What names it at devices.
    pub fn order(&self) -> JobOrder {
        JobOrder {
            id: self.spec.id.clone(),
            generation: self.state.generation,
            kind: self.spec.work.kind(),
            created_ms: self.state.created_ms,
            until_ms: self.state.until_ms,
        }
    }
}

/// A job as commands to devices name it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobOrder {
    /// Which.
    pub id: JobId,
    /// Of those that had this name, which.
    pub generation: u64,
    /// What it does.
    pub kind: JobKind,
    /// When it was made, milliseconds since 1970.
    pub created_ms: u64,
    /// When its time is over. From then on nothing is begun for it at any device.
    pub until_ms: u64,
}

/// Where the next page of devices begins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobCursor {
    /// In which shard.
    pub shard: u32,
    /// Within it; opaque.
    pub after: Bytes,
}

/// One step of whoever runs a job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobStep {
    /// It is still there.
    Renew,
    /// It will not go on; somebody else may at once.
    Release,
    /// It takes these devices on, [`JOB_PAGE_DEVICES_MAX`] at most.
    Plan {
        /// Number of the step, from 0: the same one twice is one.
        number: u64,
        /// The devices.
        page: Vec<DeviceId>,
        /// Where those after them are; `None` if there are none.
        next: Option<JobCursor>,
    },
    /// It has seen to those devices.
    Done {
        /// Number of the step.
        number: u64,
        /// Devices at which it went well.
        succeeded: u32,
        /// Devices at which it did not.
        failed: u32,
    },
    /// The job cannot be carried out.
    Fail {
        /// Number of the step.
        number: u64,
        /// Why.
        reason: String,
    },
}

impl JobStep {
    /// Bytes that it counts for in budgets and batches.
    pub fn bytes(&self) -> usize {
        match self {
            JobStep::Plan { page, .. } => page.iter().map(|device| device.as_str().len()).sum(),
            JobStep::Fail { reason, .. } => reason.len(),
            JobStep::Renew | JobStep::Release | JobStep::Done { .. } => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_checked() {
        assert!(JobId::parse("job-1.+%_#*?!(),:=@$'").is_ok());
        assert!(JobId::parse(&"x".repeat(64)).is_ok());
        for wrong in ["", "a/b", "a b", "ä", &"x".repeat(65)] {
            assert_eq!(JobId::parse(wrong), Err(NoJobId), "{wrong}");
        }
    }

    #[test]
    fn words_are_read_as_they_are_written() {
        for status in JobStatus::ALL {
            assert_eq!(JobStatus::parse(&status.word().to_uppercase()), Some(status));
        }
        for kind in [JobKind::TwinUpdate, JobKind::Method] {
            assert_eq!(JobKind::parse(kind.word()), Some(kind));
        }
        assert_eq!(
            (JobStatus::parse("unknown"), JobKind::parse("export")),
            (None, None)
        );
    }
}
