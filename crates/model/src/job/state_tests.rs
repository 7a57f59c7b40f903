//! What becomes of a job, step by step.

use super::*;
use crate::job::{JOB_TIME_S_DEFAULT, JobId, JobWork};

const MINUTE_MS: u64 = 60_000;

fn spec(start_ms: u64) -> JobSpec {
    JobSpec {
        id: JobId::parse("j").expect("a job id"),
        work: JobWork::TwinUpdate {
            tags: Some("{}".into()),
            desired: None,
        },
        condition: "*".into(),
        start_ms,
        time_max_s: JOB_TIME_S_DEFAULT,
    }
}

fn page(count: usize) -> Vec<DeviceId> {
    (0..count)
        .map(|n| DeviceId::parse(&format!("d{n}")).expect("a device id"))
        .collect()
}

fn next() -> Option<JobCursor> {
    Some(JobCursor {
        shard: 1,
        after: bytes::Bytes::from_static(b"x"),
    })
}

fn plan(number: u64, count: usize, next: Option<JobCursor>) -> JobStep {
    let page = page(count);
    JobStep::Plan { number, page, next }
}

fn done(number: u64, succeeded: u32, failed: u32) -> JobStep {
    JobStep::Done {
        number,
        succeeded,
        failed,
    }
}

/// A job with its plan.
struct Lab {
    state: JobState,
    plan: JobPlan,
}

impl Lab {
    fn new(start_ms: u64) -> Self {
        Self {
            state: JobState::new(&spec(start_ms), 1, 1000),
            plan: JobPlan::default(),
        }
    }

    fn claimed(runner: u64) -> Self {
        let mut lab = Self::new(0);
        lab.state.claim(runner, 1000).expect("it is due");
        lab
    }

    fn advance(&mut self, runner: u64, step: &JobStep, now_ms: u64) -> Result<(), JobFault> {
        self.state.advance(&mut self.plan, runner, step, now_ms)
    }
}

#[test]
fn it_waits_for_its_time() {
    let mut lab = Lab::new(MINUTE_MS);
    assert_eq!(lab.state.due_ms(), Some(MINUTE_MS));
    assert_eq!(lab.state.status_at(MINUTE_MS - 1), JobStatus::Scheduled);
    assert_eq!(lab.state.status_at(MINUTE_MS), JobStatus::Queued);
    assert_eq!(lab.state.claim(7, MINUTE_MS - 1), Err(JobFault::NotFree));
    assert_eq!(lab.state.claim(7, MINUTE_MS), Ok(()));
    assert_eq!(
        (lab.state.status, lab.state.begun_ms),
        (JobStatus::Running, MINUTE_MS)
    );
    // A time that is over is now.
    assert_eq!(Lab::new(5).state.start_ms, 1000);
}

#[test]
fn one_runner_has_it_until_it_falls_silent() {
    let mut lab = Lab::claimed(7);
    assert_eq!(
        lab.state.claim(8, 1000 + JOB_LEASE_MS - 1),
        Err(JobFault::NotFree)
    );
    assert_eq!(lab.state.claim(7, 1001), Ok(()), "it may say so twice");
    assert_eq!(lab.advance(7, &JobStep::Renew, 5000), Ok(()));
    assert_eq!(lab.state.due_ms(), Some(5000 + JOB_LEASE_MS));
    assert_eq!(lab.state.claim(8, 5000 + JOB_LEASE_MS), Ok(()));
    assert_eq!(lab.advance(7, &JobStep::Renew, 20_000), Err(JobFault::NotHeld));
    assert_eq!(lab.advance(8, &JobStep::Release, 20_000), Ok(()));
    assert_eq!(lab.state.claim(9, 20_000), Ok(()), "at once");
}

#[test]
fn pages_are_counted_once() {
    let mut lab = Lab::claimed(7);
    assert_eq!(lab.advance(7, &plan(0, 3, next()), 1001), Ok(()));
    assert_eq!(lab.advance(7, &plan(0, 3, next()), 1002), Ok(()), "a repetition");
    assert_eq!((lab.state.counts.devices, lab.state.counts.open()), (3, 3));
    assert_eq!(
        lab.advance(7, &plan(1, 1, None), 1003),
        Err(JobFault::NotHeld),
        "one is under way"
    );
    assert_eq!(
        lab.advance(7, &done(1, 2, 0), 1003),
        Err(JobFault::NotHeld),
        "one is missing"
    );
    // Another takes over, and finds the page.
    assert_eq!(lab.state.claim(8, 1000 + 2 * JOB_LEASE_MS), Ok(()));
    assert_eq!((lab.plan.page.len(), lab.plan.cursor.clone()), (3, next()));
    assert_eq!(lab.advance(7, &done(1, 3, 0), 30_000), Err(JobFault::NotHeld));
    assert_eq!(lab.advance(8, &done(1, 2, 1), 30_000), Ok(()));
    assert_eq!(lab.advance(8, &done(1, 2, 1), 30_001), Ok(()), "a repetition");
    assert_eq!(
        lab.advance(8, &plan(2, 0, next()), 30_002),
        Ok(()),
        "nobody on this page"
    );
    assert_eq!(lab.advance(8, &plan(3, 1, None), 30_003), Ok(()));
    assert_eq!(lab.advance(8, &done(4, 1, 0), 30_004), Ok(()));
    let counts = JobCounts {
        devices: 4,
        succeeded: 3,
        failed: 1,
    };
    assert_eq!(
        (lab.state.status, lab.state.counts),
        (JobStatus::Completed, counts)
    );
    assert_eq!(lab.advance(8, &done(4, 1, 0), 30_005), Ok(()), "a repetition");
    assert_eq!((lab.state.counts, lab.state.ended_ms), (counts, 30_004));
    assert_eq!(lab.state.due_ms(), None);
    assert_eq!(lab.state.claim(9, 99_999), Err(JobFault::Ended));
}

#[test]
fn a_job_for_nobody_is_completed() {
    let mut lab = Lab::claimed(7);
    assert_eq!(lab.advance(7, &plan(0, 0, None), 1001), Ok(()));
    assert_eq!(lab.state.status, JobStatus::Completed);
}

#[test]
fn what_was_under_way_when_it_was_cancelled_still_counts() {
    let mut lab = Lab::claimed(7);
    assert_eq!(lab.advance(7, &plan(0, 3, None), 1001), Ok(()));
    assert_eq!(lab.state.cancel(1002), Ok(()));
    assert_eq!(lab.state.cancel(1003), Err(JobFault::Ended));
    assert_eq!(lab.advance(7, &JobStep::Renew, 1004), Err(JobFault::Ended));
    assert_eq!(lab.advance(8, &done(1, 1, 0), 1005), Err(JobFault::NotHeld));
    assert_eq!(
        lab.advance(7, &done(1, 4, 0), 1005),
        Err(JobFault::Ended),
        "more than there are"
    );
    assert_eq!(lab.advance(7, &done(1, 1, 1), 1005), Ok(()));
    assert_eq!(lab.advance(7, &done(1, 1, 1), 1006), Ok(()), "a repetition");
    assert_eq!((lab.state.counts.succeeded, lab.state.counts.open()), (1, 1));
    assert_eq!(
        (lab.state.status, lab.state.ended_ms),
        (JobStatus::Cancelled, 1002)
    );
}

#[test]
fn its_time_ends_it() {
    let until_ms = 1000 + JOB_TIME_S_DEFAULT * 1000;
    let mut lab = Lab::claimed(7);
    assert_eq!(lab.state.until_ms, until_ms);
    assert_eq!(lab.advance(7, &JobStep::Renew, until_ms - 1), Ok(()));
    assert_eq!(lab.state.status, JobStatus::Running);
    assert_eq!(lab.advance(7, &JobStep::Renew, until_ms), Ok(()));
    assert_eq!(lab.state.status, JobStatus::Failed);
    assert!(
        lab.state
            .reason
            .as_ref()
            .is_some_and(|why| why.contains("execution time"))
    );
    // Also if nobody ever came.
    let mut lab = Lab::new(0);
    assert_eq!(lab.state.claim(7, until_ms), Ok(()));
    assert_eq!(
        (lab.state.status, lab.state.ended_ms),
        (JobStatus::Failed, until_ms)
    );
    // A last page that comes to its end at that very moment is a good end.
    let mut lab = Lab::claimed(7);
    assert_eq!(lab.advance(7, &plan(0, 1, None), 1001), Ok(()));
    assert_eq!(lab.advance(7, &done(1, 1, 0), until_ms), Ok(()));
    assert_eq!(lab.state.status, JobStatus::Completed);
}

#[test]
fn a_failure_says_why_in_bounds() {
    let mut lab = Lab::claimed(7);
    let reason = "ä".repeat(JOB_REASON_BYTES_MAX);
    assert_eq!(lab.advance(7, &JobStep::Fail { number: 0, reason }, 1001), Ok(()));
    assert_eq!(lab.state.status, JobStatus::Failed);
    assert_eq!(lab.state.reason.map(|why| why.len()), Some(JOB_REASON_BYTES_MAX));
}
