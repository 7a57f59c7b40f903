//! What commands about scheduled jobs do: where a job lies, when it is due, and what is written down at its devices.
//!
//! A job is two values in the slot of its name, what was asked for and what has become of it, and one entry of an index:
//! by when it is due, or by when it ended. What it may do next is decided in [`crate::job::state`], what happens at a
//! device in [`crate::job::rows`]; a change of a twin and the row that says so are one entry.

use bytes::Bytes;

use super::state::Entry;
use super::{keys, registry, twin};
use crate::command::{Outcome, Refusal};
use crate::id::DeviceId;
use crate::job::rows::{JobRow, JobRows, RowFault, RowResult, RowStatus};
use crate::job::state::{JobFault, JobPlan, JobState};
use crate::job::{JOB_HISTORY_MS, JOBS_PER_SHARD_MAX, JobId, JobOrder, JobSpec, JobStep};
use crate::port::StoreError;

/// Ended jobs that are forgotten when one comes.
const FORGOTTEN_MAX: usize = 16;

/// What is kept of a job beside what was asked for.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(super) struct Progress {
    pub(super) state: JobState,
    pub(super) plan: JobPlan,
}

fn fault(fault: JobFault) -> Outcome {
    Outcome::Refused(match fault {
        JobFault::Ended => Refusal::JobEnded,
        JobFault::NotFree => Refusal::JobNotFree,
        JobFault::NotHeld => Refusal::JobNotHeld,
    })
}

fn outcome(entry: &Entry<'_>, state: &JobState) -> Outcome {
    Outcome::Job {
        state: Box::new(state.clone()),
        time_ms: entry.meta.time_ms,
    }
}

/// The index entry of a job in this state.
fn index(id: &JobId, state: &JobState) -> Vec<u8> {
    match state.due_ms() {
        Some(ms) => keys::due_job(ms, id),
        None => keys::ended_job(state.ended_ms, id),
    }
}

pub(super) fn put(entry: &mut Entry<'_>, spec: &JobSpec) -> Result<Outcome, StoreError> {
    let key = keys::job(&spec.id);
    let stored: Option<JobSpec> = entry.overlay.get_json(&key)?;
    if let Some(stored) = stored {
        let progress: Option<Progress> = entry.overlay.get_json(&keys::job_progress(&spec.id))?;
        return Ok(match progress {
            // Whoever asks again because an answer was lost is answered what the first one was.
            Some(progress) if stored == *spec => outcome(entry, &progress.state),
            _ => Outcome::Refused(Refusal::AlreadyExists),
        });
    }
    forget_old(entry)?;
    let mut count = 0;
    for (from, to) in [keys::due_jobs_range(u64::MAX), keys::ended_jobs_range(u64::MAX)] {
        count += entry.overlay.keys((&from, &to), JOBS_PER_SHARD_MAX)?.0.len();
    }
    if count >= JOBS_PER_SHARD_MAX {
        return Ok(Outcome::Refused(Refusal::LimitReached));
    }
    let state = JobState::new(spec, registry::next_fence(entry), entry.meta.time_ms);
    let progress = Progress {
        state,
        plan: JobPlan::default(),
    };
    entry.overlay.put_json(key, spec);
    entry.overlay.put(index(&spec.id, &progress.state), Bytes::new());
    entry.overlay.put_json(keys::job_progress(&spec.id), &progress);
    Ok(outcome(entry, &progress.state))
}

/// Jobs that ended long ago go, some at a time.
fn forget_old(entry: &mut Entry<'_>) -> Result<(), StoreError> {
    let Some(before_ms) = entry.meta.time_ms.checked_sub(JOB_HISTORY_MS) else {
        return Ok(());
    };
    let (from, to) = keys::ended_jobs_range(before_ms);
    let (old, _) = entry.overlay.keys((&from, &to), FORGOTTEN_MAX)?;
    for key in old {
        if let Some(id) = keys::parse_indexed_job(&key) {
            entry.overlay.delete(keys::job(&id));
            entry.overlay.delete(keys::job_progress(&id));
        }
        entry.overlay.delete(key.to_vec());
    }
    Ok(())
}

/// Lets `change` happen to a job, and keeps its place in the index.
fn change(
    entry: &mut Entry<'_>,
    id: &JobId,
    change: impl FnOnce(&mut Progress, u64) -> Result<(), JobFault>,
) -> Result<Outcome, StoreError> {
    let stored: Option<Progress> = entry.overlay.get_json(&keys::job_progress(id))?;
    let Some(mut progress) = stored else {
        return Ok(Outcome::Refused(Refusal::UnknownJob));
    };
    let before = index(id, &progress.state);
    if let Err(why) = change(&mut progress, entry.meta.time_ms) {
        return Ok(fault(why));
    }
    let after = index(id, &progress.state);
    if before != after {
        entry.overlay.delete(before);
        entry.overlay.put(after, Bytes::new());
    }
    entry.overlay.put_json(keys::job_progress(id), &progress);
    Ok(outcome(entry, &progress.state))
}

pub(super) fn cancel(entry: &mut Entry<'_>, id: &JobId) -> Result<Outcome, StoreError> {
    change(entry, id, |progress, now_ms| progress.state.cancel(now_ms))
}

pub(super) fn claim(entry: &mut Entry<'_>, id: &JobId, runner: u64) -> Result<Outcome, StoreError> {
    change(entry, id, |progress, now_ms| progress.state.claim(runner, now_ms))
}

pub(super) fn advance(
    entry: &mut Entry<'_>,
    id: &JobId,
    runner: u64,
    step: &JobStep,
) -> Result<Outcome, StoreError> {
    change(entry, id, |progress, now_ms| {
        progress.state.advance(&mut progress.plan, runner, step, now_ms)
    })
}

fn load(entry: &Entry<'_>, device: &DeviceId) -> Result<JobRows, StoreError> {
    let stored = entry
        .overlay
        .get_json(&keys::job_rows(device.as_str().as_bytes()))?;
    Ok(stored.unwrap_or_default())
}

fn save(entry: &mut Entry<'_>, device: &DeviceId, rows: &JobRows) {
    entry
        .overlay
        .put_json(keys::job_rows(device.as_str().as_bytes()), rows);
}

fn row_outcome(row: &JobRow, runner: u64) -> Outcome {
    Outcome::JobRow {
        status: row.status,
        is_to_ask: row.status == RowStatus::Running && row.runner == runner,
    }
}

fn row_fault(fault: RowFault) -> Outcome {
    Outcome::Refused(match fault {
        RowFault::Over => Refusal::JobEnded,
        RowFault::Full => Refusal::LimitReached,
    })
}

/// Changes the twin of a device, unless this job has done so before.
pub(super) fn change_twin(
    entry: &mut Entry<'_>,
    device: &DeviceId,
    order: &JobOrder,
    runner: u64,
    sections: (Option<&str>, Option<&str>),
) -> Result<Outcome, StoreError> {
    let mut rows = load(entry, device)?;
    if let Some(row) = rows.find(order) {
        return Ok(row_outcome(row, runner));
    }
    let now_ms = entry.meta.time_ms;
    if let Err(why) = rows.begin(order, runner, now_ms) {
        return Ok(row_fault(why));
    }
    let result = match twin::change(entry, device, sections, false, None)? {
        Outcome::TwinChanged { .. } => None,
        Outcome::Refused(Refusal::TwinTooLarge) => Some(RowResult::Failed {
            code: "TwinPropertiesTooLarge".to_owned(),
            text: Refusal::TwinTooLarge.to_string(),
        }),
        Outcome::Refused(Refusal::TwinUnreadable) => Some(RowResult::Failed {
            code: "ArgumentInvalid".to_owned(),
            text: Refusal::TwinUnreadable.to_string(),
        }),
        // There is no such device: nothing is kept of it.
        other => return Ok(other),
    };
    let Some(row) = rows.end(order, runner, result, now_ms) else {
        return Ok(Outcome::Refused(Refusal::UnknownJob));
    };
    let outcome = row_outcome(row, runner);
    save(entry, device, &rows);
    Ok(outcome)
}

/// A device is to be asked, unless it may have been before.
pub(super) fn begin_method(
    entry: &mut Entry<'_>,
    device: &DeviceId,
    order: &JobOrder,
    runner: u64,
) -> Result<Outcome, StoreError> {
    if registry::record(entry, device)?.is_none() {
        return Ok(Outcome::Refused(registry::absent(entry, device)?));
    }
    let mut rows = load(entry, device)?;
    let row = match rows.begin(order, runner, entry.meta.time_ms) {
        Ok(row) => row,
        Err(why) => return Ok(row_fault(why)),
    };
    let outcome = row_outcome(row, runner);
    save(entry, device, &rows);
    Ok(outcome)
}

/// A device that was to be asked has answered, or will not.
pub(super) fn end_method(
    entry: &mut Entry<'_>,
    device: &DeviceId,
    order: &JobOrder,
    runner: u64,
    result: &RowResult,
) -> Result<Outcome, StoreError> {
    let mut rows = load(entry, device)?;
    let now_ms = entry.meta.time_ms;
    let Some(row) = rows.end(order, runner, Some(result.clone()), now_ms) else {
        return Ok(Outcome::Refused(Refusal::UnknownJob));
    };
    let outcome = row_outcome(row, runner);
    save(entry, device, &rows);
    Ok(outcome)
}
