//! One job, run by this gateway: claimed, page by page, until it has ended or somebody else has it.
//!
//! A page of devices is written down before anything is done at one of them, and counted when all of them are seen to; a
//! runner that takes over begins with the page that it finds. Shards that cannot be reached are waited for. Whoever can no
//! longer be sure of its lease begins nothing more.

use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use dunlin_model::audit::{AuditOutcome, AuditRecord};
use dunlin_model::command::{Command, Consistency, Outcome, Query, View};
use dunlin_model::id::DeviceId;
use dunlin_model::job::state::{JobPlan, JobState};
use dunlin_model::job::{
    JOB_LEASE_MS, JOB_PAGE_DEVICES_MAX, Job, JobCursor, JobId, JobKind, JobOrder, JobStatus, JobStep, JobWork,
};
use dunlin_model::query_language::{Condition, Source, Statement, SyntaxError};
use futures_util::stream::{self, StreamExt};
use serde::Deserialize;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::device::{self, End};
use crate::fleet::{self, Asked, Cursor, FleetError};
use crate::http::write_audit;
use crate::limits::{
    JOB_DRAIN_WAIT, JOB_METHODS_AT_A_TIME, JOB_PAUSE, JOB_RENEW_EVERY, JOB_TWINS_AT_A_TIME,
    QUERY_DEVICES_MAX, QUERY_PAGE_WAIT,
};
use crate::shared::Shared;

/// How long a lease holds for whoever counts from before it was asked for.
const LEASE: Duration = Duration::from_millis(JOB_LEASE_MS);
// A condition that names its devices is answered on one page.
const _: () = assert!(QUERY_DEVICES_MAX <= JOB_PAGE_DEVICES_MAX);

/// A job that this gateway has claimed.
pub(super) struct Run<'a> {
    pub(super) shared: &'a Shared,
    pub(super) id: &'a JobId,
    /// Drawn for this run.
    pub(super) runner: u64,
    /// Nothing more is begun: the job has ended, or another may have it.
    pub(super) stop: CancellationToken,
    /// When the time of the job is over.
    pub(super) deadline: Instant,
    held_until: Mutex<Instant>,
    has_told: AtomicBool,
}

/// A device, or a module, as queries name it.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    device_id: String,
    module_id: Option<String>,
}

/// Runs a job that is due, if nobody else does.
pub(super) async fn run(shared: &Shared, id: &JobId) {
    let (runner, begun) = (rand::random(), Instant::now());
    let command = Command::JobClaim {
        id: id.clone(),
        runner,
    };
    let Ok(Outcome::Job { state, time_ms }) = shared.client.submit(command).await else {
        // It is another's, or due again soon.
        return;
    };
    let run = Run {
        shared,
        id,
        runner,
        stop: CancellationToken::new(),
        deadline: Instant::now() + Duration::from_millis(state.until_ms.saturating_sub(time_ms)),
        held_until: Mutex::new(begun + LEASE),
        has_told: AtomicBool::new(false),
    };
    if state.status.has_ended() {
        run.tell(&state).await;
        return;
    }
    let mut work = pin!(run.work());
    tokio::select! {
        () = &mut work => return,
        () = run.keep() => {}
        () = shared.draining.cancelled() => {}
    }
    // What is under way may end in a moment; a device that has not answered by then is nobody's to ask again.
    run.stop.cancel();
    let _ = timeout(JOB_DRAIN_WAIT, work).await;
    let _ = run.submit(JobStep::Release).await;
}

impl Run<'_> {
    /// Page after page.
    async fn work(&self) {
        let Some(job) = self.read().await else {
            return;
        };
        let (order, spec) = (job.order(), job.spec);
        let (JobState { mut steps, .. }, JobPlan { mut cursor, mut page }) = (job.state, job.plan);
        let asked = match statement(&spec.condition) {
            Ok(asked) => asked,
            Err(error) => {
                let reason = format!("the condition cannot be read: {error}");
                self.step(JobStep::Fail {
                    number: steps,
                    reason,
                })
                .await;
                return;
            }
        };
        loop {
            if page.is_empty() {
                let step = match self.find(&asked, cursor.take()).await {
                    None => return,
                    Some(Err(reason)) => JobStep::Fail {
                        number: steps,
                        reason,
                    },
                    Some(Ok((found, next))) => {
                        (page, cursor) = (found.clone(), next.clone());
                        JobStep::Plan {
                            number: steps,
                            page: found,
                            next,
                        }
                    }
                };
                match self.step(step).await {
                    Some(state) if !state.status.has_ended() => steps = state.steps,
                    _ => return,
                }
            }
            if !page.is_empty() {
                let (succeeded, failed) = self.see_to(&order, &spec.work, &page).await;
                page.clear();
                let number = steps;
                let step = JobStep::Done {
                    number,
                    succeeded,
                    failed,
                };
                match self.step(step).await {
                    Some(state) if !state.status.has_ended() => steps = state.steps,
                    _ => return,
                }
            }
            if self.stop.is_cancelled() {
                return;
            }
        }
    }

    /// The job as it is under our lease.
    async fn read(&self) -> Option<Job> {
        loop {
            let query = Query::Job(self.id.clone());
            match self.shared.client.query(query, Consistency::Linearizable).await {
                Ok(View::Job(job)) => return job.map(|job| *job),
                Ok(_) => return None,
                Err(_) => self.pause().await?,
            }
        }
    }

    /// The devices after `cursor`, and where those after them are; or why there will never be any. `None` if nobody wants
    /// to know any more.
    async fn find(
        &self,
        asked: &Asked,
        cursor: Option<JobCursor>,
    ) -> Option<Result<(Vec<DeviceId>, Option<JobCursor>), String>> {
        let cursor = match cursor {
            None => Cursor::first(asked),
            Some(JobCursor { shard, after }) => Cursor {
                shard,
                after,
                left: None,
            },
        };
        loop {
            let deadline = Instant::now() + QUERY_PAGE_WAIT;
            let client = &*self.shared.client;
            match fleet::page(client, asked, cursor.clone(), JOB_PAGE_DEVICES_MAX, deadline).await {
                Ok(page) => {
                    let devices = page.rows.iter().filter_map(|row| identity(row)).collect();
                    let next = page
                        .next
                        .map(|Cursor { shard, after, .. }| JobCursor { shard, after });
                    return Some(Ok((devices, next)));
                }
                Err(FleetError::Refused(why)) => return Some(Err(format!("the condition: {why}"))),
                Err(FleetError::Query(_)) => self.pause().await?,
            }
        }
    }

    /// Sees to each device of a page; returns at how many it went well, and at how many not.
    async fn see_to(&self, order: &JobOrder, work: &JobWork, page: &[DeviceId]) -> (u32, u32) {
        let ends = stream::iter(page.to_vec())
            .map(|one| device::see_to(self, order, work, one))
            .buffer_unordered(match work.kind() {
                JobKind::TwinUpdate => JOB_TWINS_AT_A_TIME,
                JobKind::Method => JOB_METHODS_AT_A_TIME,
            });
        let counts = ends.fold((0, 0), |(succeeded, failed), end| {
            std::future::ready(match end {
                End::Well => (succeeded + 1, failed),
                End::Badly => (succeeded, failed + 1),
                End::Untouched => (succeeded, failed),
            })
        });
        counts.await
    }

    /// Says how the job goes on, until somebody has heard it. `None` if we have it no more.
    async fn step(&self, step: JobStep) -> Option<JobState> {
        loop {
            match self.submit(step.clone()).await {
                Heard::Yes(state) => return Some(*state),
                Heard::Lost => return None,
                Heard::Nobody => self.pause().await?,
            }
        }
    }

    async fn submit(&self, step: JobStep) -> Heard {
        let begun = Instant::now();
        let command = Command::JobAdvance {
            id: self.id.clone(),
            runner: self.runner,
            step: Box::new(step),
        };
        match self.shared.client.submit(command).await {
            Ok(Outcome::Job { state, .. }) => {
                *self.held_until.lock().unwrap_or_else(PoisonError::into_inner) = begun + LEASE;
                if state.status.has_ended() {
                    self.stop.cancel();
                    self.tell(&state).await;
                }
                Heard::Yes(state)
            }
            Ok(_) => {
                self.stop.cancel();
                Heard::Lost
            }
            Err(_) => Heard::Nobody,
        }
    }

    /// Says that we are there, as long as somebody hears it. Returns when the lease is lost, or over without an answer; what
    /// has ended is not let go of.
    async fn keep(&self) {
        loop {
            let next = (Instant::now() + JOB_RENEW_EVERY).min(self.deadline.max(Instant::now() + JOB_PAUSE));
            sleep_until(next).await;
            if self.stop.is_cancelled() {
                // Whatever is under way comes to its own end.
                std::future::pending::<()>().await;
            }
            let held_until = *self.held_until.lock().unwrap_or_else(PoisonError::into_inner);
            let renewing = timeout(
                held_until.saturating_duration_since(Instant::now()),
                self.submit(JobStep::Renew),
            );
            match renewing.await {
                Ok(Heard::Yes(_) | Heard::Lost) => {}
                Ok(Heard::Nobody) if Instant::now() < held_until => {}
                // Another may have it by now.
                Ok(Heard::Nobody) | Err(_) => self.stop.cancel(),
            }
        }
    }

    /// Waits a moment for shards that cannot be reached. `None` if nobody waits any more.
    pub(super) async fn pause(&self) -> Option<()> {
        tokio::select! {
            () = self.stop.cancelled() => None,
            () = sleep(JOB_PAUSE) => Some(()),
        }
    }

    /// Keeps a record of how the job ended: one for all of its devices.
    async fn tell(&self, state: &JobState) {
        if self.has_told.swap(true, Ordering::Relaxed) {
            return;
        }
        let counts = state.counts;
        let mut record = AuditRecord::done("job.end", "node", self.id.as_str());
        record.detail = format!(
            "{}: {} devices, {} succeeded, {} failed",
            state.status.word(),
            counts.devices,
            counts.succeeded,
            counts.failed
        );
        if state.status == JobStatus::Failed {
            record.outcome = AuditOutcome::Failed(state.reason.clone().unwrap_or_default());
        }
        write_audit(self.shared, None, record).await;
    }
}

/// What was heard of a step.
enum Heard {
    /// It was taken.
    Yes(Box<JobState>),
    /// We have the job no more.
    Lost,
    /// No answer: it may have been taken.
    Nobody,
}

/// The query that finds the devices of a job.
fn statement(condition: &str) -> Result<Asked, SyntaxError> {
    let source = Condition::parse(condition)?.source();
    // The only `WHERE` before a condition itself.
    let condition = match source {
        Source::Devices => condition,
        Source::Modules | Source::Jobs => {
            let place = condition
                .to_ascii_uppercase()
                .find("WHERE")
                .map(|place| place + "WHERE".len());
            place.and_then(|place| condition.get(place..)).unwrap_or_default()
        }
    };
    let columns = match source {
        Source::Modules => "deviceId, moduleId",
        Source::Devices | Source::Jobs => "deviceId",
    };
    let text = match condition.trim() {
        "*" => format!("SELECT {columns} FROM {}", source.name()),
        condition => format!("SELECT {columns} FROM {} WHERE {condition}", source.name()),
    };
    let statement = Statement::parse(&text)?;
    Ok(Asked { statement, text })
}

fn identity(row: &str) -> Option<DeviceId> {
    let found: Found = serde_json::from_str(row).ok()?;
    DeviceId::of_parts(&found.device_id, found.module_id.as_deref()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conditions_become_queries() {
        for (condition, text) in [
            ("*", "SELECT deviceId FROM devices"),
            (
                " tags.a = 'WHERE' ",
                "SELECT deviceId FROM devices WHERE tags.a = 'WHERE'",
            ),
            (
                "from devices.modules where *",
                "SELECT deviceId, moduleId FROM devices.modules",
            ),
            (
                "FROM devices.modules  WHERE\ttags.b = 'x where'",
                "SELECT deviceId, moduleId FROM devices.modules WHERE tags.b = 'x where'",
            ),
        ] {
            assert_eq!(statement(condition).expect("a query").text, text);
        }
        assert!(statement("tags.a =").is_err());
    }

    #[test]
    fn rows_name_devices_and_modules() {
        let name = |row| identity(row).map(|device| device.to_string());
        assert_eq!(name(r#"{"deviceId": "d"}"#).as_deref(), Some("d"));
        let module = r#"{"deviceId": "d", "moduleId": "m"}"#;
        assert_eq!(name(module).as_deref(), Some("d/m"));
        assert_eq!(name("{}"), None);
    }
}
