//! What becomes of a job as a whole: a machine that is told who says what, and when.
//!
//! A job has one runner at a time, the one that holds its lease; a runner that is not heard for [`JOB_LEASE_MS`] loses it
//! to whoever asks next. A page of devices is written down before anything is done at one of them, and counted when it
//! is done, in steps that are numbered: so a page that two runners have worked on counts once, and is the same page for
//! both even if what was done at its devices has changed which of them the condition finds.
//!
//! What happens at devices is not decided here; see [`rows`](super::rows).

use serde::{Deserialize, Serialize};

use super::{
    JOB_LEASE_MS, JOB_PAGE_DEVICES_MAX, JOB_REASON_BYTES_MAX, JobCursor, JobSpec, JobStatus, JobStep,
};
use crate::id::DeviceId;

/// Why a job did not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobFault {
    /// It has ended.
    Ended,
    /// Somebody else runs it, or its time has not come.
    NotFree,
    /// Whoever says so does not run it, or says something that does not follow.
    NotHeld,
}

/// What a job has come to. Times are stamps of entries, milliseconds since 1970; 0 is never.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobState {
    /// Drawn from the shard's counter: a job that is made under a name of before is another one.
    pub generation: u64,
    /// When it was stored.
    pub created_ms: u64,
    /// When it may begin.
    pub start_ms: u64,
    /// When its time is over.
    pub until_ms: u64,
    /// When somebody took it on first.
    pub begun_ms: u64,
    /// When it ended.
    pub ended_ms: u64,
    /// The last time that anything happened to it.
    pub updated_ms: u64,
    /// How it is. [`JobStatus::Queued`] is never stored: see [`JobState::status_at`].
    pub status: JobStatus,
    /// Why it has failed.
    pub reason: Option<String>,
    /// Its devices.
    pub counts: JobCounts,
    /// Steps that were taken.
    pub steps: u64,
    /// Who runs it.
    pub lease: Option<JobLease>,
}

/// Devices of a job, as far as they are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JobCounts {
    /// That the condition has found.
    pub devices: u64,
    /// At which it went well.
    pub succeeded: u64,
    /// At which it did not.
    pub failed: u64,
}

impl JobCounts {
    /// Those that were found and not counted otherwise yet.
    pub fn open(&self) -> u64 {
        self.devices.saturating_sub(self.succeeded + self.failed)
    }
}

/// Who runs a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobLease {
    /// Drawn at random for one run.
    pub runner: u64,
    /// From when on another may have it.
    pub until_ms: u64,
}

/// How a job goes on.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JobPlan {
    /// Where the next page begins; `None` at the beginning, and at the end.
    pub cursor: Option<JobCursor>,
    /// The devices that are under way.
    pub page: Vec<DeviceId>,
}

impl JobState {
    /// A job that is stored at `now_ms`.
    pub fn new(spec: &JobSpec, generation: u64, now_ms: u64) -> Self {
        let start_ms = spec.start_ms.max(now_ms);
        Self {
            generation,
            created_ms: now_ms,
            start_ms,
            until_ms: start_ms.saturating_add(spec.time_max_s.saturating_mul(1000)),
            begun_ms: 0,
            ended_ms: 0,
            updated_ms: now_ms,
            status: JobStatus::Scheduled,
            reason: None,
            counts: JobCounts::default(),
            steps: 0,
            lease: None,
        }
    }

    /// How it is at `now_ms`.
    pub fn status_at(&self, now_ms: u64) -> JobStatus {
        match self.status {
            JobStatus::Scheduled if now_ms >= self.start_ms => JobStatus::Queued,
            status => status,
        }
    }

    /// When somebody is to take it on; `None` once it has ended.
    pub fn due_ms(&self) -> Option<u64> {
        let due_ms = self.lease.map_or(self.start_ms, |lease| lease.until_ms);
        (!self.status.has_ended()).then_some(due_ms)
    }

    /// `runner` wants to run it. If its time is over it ends by that.
    pub fn claim(&mut self, runner: u64, now_ms: u64) -> Result<(), JobFault> {
        if self.status.has_ended() {
            return Err(JobFault::Ended);
        }
        let is_held = |lease: &JobLease| lease.runner != runner && lease.until_ms > now_ms;
        if now_ms < self.start_ms || self.lease.as_ref().is_some_and(is_held) {
            return Err(JobFault::NotFree);
        }
        if self.begun_ms == 0 {
            self.begun_ms = now_ms;
        }
        self.status = JobStatus::Running;
        self.renew(runner, now_ms);
        Ok(())
    }

    /// Whoever runs it says `step`.
    pub fn advance(
        &mut self,
        plan: &mut JobPlan,
        runner: u64,
        step: &JobStep,
        now_ms: u64,
    ) -> Result<(), JobFault> {
        // A runner that has lost its job must not learn anything else.
        if self.lease.is_none_or(|lease| lease.runner != runner) {
            return Err(JobFault::NotHeld);
        }
        match step.number() {
            Some(number) if number.checked_add(1) == Some(self.steps) => return Ok(()),
            Some(number) if number != self.steps => return Err(JobFault::NotHeld),
            _ => {}
        }
        if self.status.has_ended() {
            return self.settle(plan, step, now_ms);
        }
        match step {
            JobStep::Renew => {}
            JobStep::Release => {
                self.lease = Some(JobLease {
                    runner,
                    until_ms: now_ms,
                });
                return Ok(());
            }
            JobStep::Plan { page, next, .. } => {
                if !plan.page.is_empty() || page.len() > JOB_PAGE_DEVICES_MAX {
                    return Err(JobFault::NotHeld);
                }
                self.counts.devices += page.len() as u64;
                plan.page.clone_from(page);
                plan.cursor.clone_from(next);
                if page.is_empty() && next.is_none() {
                    self.end(JobStatus::Completed, now_ms);
                }
            }
            JobStep::Done {
                succeeded, failed, ..
            } => {
                if u64::from(*succeeded) + u64::from(*failed) != plan.page.len() as u64 {
                    return Err(JobFault::NotHeld);
                }
                self.count(*succeeded, *failed);
                plan.page.clear();
                if plan.cursor.is_none() {
                    self.end(JobStatus::Completed, now_ms);
                }
            }
            JobStep::Fail { reason, .. } => {
                self.reason = Some(cut(reason));
                self.end(JobStatus::Failed, now_ms);
            }
        }
        self.steps += u64::from(step.number().is_some());
        self.renew(runner, now_ms);
        Ok(())
    }

    /// What its runner had under way when it ended is still counted, once.
    fn settle(&mut self, plan: &mut JobPlan, step: &JobStep, now_ms: u64) -> Result<(), JobFault> {
        match step {
            JobStep::Done {
                succeeded, failed, ..
            } if u64::from(*succeeded) + u64::from(*failed) <= plan.page.len() as u64 => {
                self.count(*succeeded, *failed);
                plan.page.clear();
                self.steps += 1;
                self.updated_ms = now_ms;
                Ok(())
            }
            _ => Err(JobFault::Ended),
        }
    }

    /// A service wants no more of it.
    pub fn cancel(&mut self, now_ms: u64) -> Result<(), JobFault> {
        if self.status.has_ended() {
            return Err(JobFault::Ended);
        }
        self.end(JobStatus::Cancelled, now_ms);
        Ok(())
    }

    fn count(&mut self, succeeded: u32, failed: u32) {
        self.counts.succeeded += u64::from(succeeded);
        self.counts.failed += u64::from(failed);
    }

    /// The lease begins anew, unless the job has no time left: then it has ended.
    fn renew(&mut self, runner: u64, now_ms: u64) {
        self.updated_ms = now_ms;
        self.lease = Some(JobLease {
            runner,
            until_ms: now_ms.saturating_add(JOB_LEASE_MS),
        });
        if now_ms >= self.until_ms && !self.status.has_ended() {
            self.reason = Some("the maximum execution time is over".to_owned());
            self.end(JobStatus::Failed, now_ms);
        }
    }

    /// The lease stays, so that whoever ran it can still count what it had under way.
    fn end(&mut self, status: JobStatus, now_ms: u64) {
        self.status = status;
        self.ended_ms = now_ms;
        self.updated_ms = now_ms;
    }
}

impl JobStep {
    /// Its number, if it has one.
    pub fn number(&self) -> Option<u64> {
        match self {
            JobStep::Renew | JobStep::Release => None,
            JobStep::Plan { number, .. } | JobStep::Done { number, .. } | JobStep::Fail { number, .. } => {
                Some(*number)
            }
        }
    }
}

fn cut(reason: &str) -> String {
    let mut end = reason.len().min(JOB_REASON_BYTES_MAX);
    while !reason.is_char_boundary(end) {
        end -= 1;
    }
    reason[..end].to_owned()
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
