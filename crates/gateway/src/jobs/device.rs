//! What a job does at one device: its twin, in one command that is done once; or a method, between two commands that say
//! that the device may have been asked.
//!
//! Nothing is begun here once the run has stopped; what has begun is brought to its end, so that it is written down.

use std::sync::Arc;
use std::time::Duration;

use dunlin_model::command::{Command, Outcome, Refusal};
use dunlin_model::id::DeviceId;
use dunlin_model::job::rows::{ERROR_BYTES_MAX, RESPONSE_BYTES_MAX, RowResult, RowStatus};
use dunlin_model::job::{JobOrder, JobWork};
use dunlin_model::method::{MethodAnswer, MethodError};
use dunlin_model::quota::Operation;
use futures_util::FutureExt as _;
use tokio::time::{Instant, sleep};

use super::run::Run;
use crate::calling::{Call, NotAsked, find_and_ask};
use crate::http::error::ApiError;
use crate::limits::JOB_PAUSE;
use crate::quota::Cost;

/// How it ended at a device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// It was done.
    Well,
    /// It was not, or nobody knows.
    Badly,
    /// Nothing was begun.
    Untouched,
}

impl From<RowStatus> for End {
    fn from(status: RowStatus) -> Self {
        match status {
            RowStatus::Completed => End::Well,
            RowStatus::Running | RowStatus::Failed => End::Badly,
        }
    }
}

/// What a shard says of a device.
enum Said {
    Row { status: RowStatus, is_to_ask: bool },
    End(End),
}

/// Does at `device` what is to be done.
pub(super) async fn see_to(run: &Run<'_>, order: &JobOrder, work: &JobWork, device: DeviceId) -> End {
    let (order, runner) = (Box::new(order.clone()), run.runner);
    if !pay(run, work).await {
        return End::Untouched;
    }
    match work {
        JobWork::TwinUpdate { tags, desired } => {
            let command = Command::JobTwin {
                device,
                order,
                runner,
                tags: tags.clone(),
                desired: desired.clone(),
            };
            match submit(run, &command).await {
                Said::Row { status, .. } => status.into(),
                Said::End(end) => end,
            }
        }
        JobWork::Method {
            name,
            payload,
            response_s,
            connect_s,
        } => {
            let call = Call {
                name: name.clone(),
                payload: payload.clone(),
                response_wait: Duration::from_secs(*response_s),
                connect_wait: Duration::from_secs(*connect_s),
            };
            ask(run, order, device, call).await
        }
    }
}

/// Waits until the hub's plan has room for one more device. False if the run stops before.
async fn pay(run: &Run<'_>, work: &JobWork) -> bool {
    let length = |text: &Option<String>| text.as_ref().map_or(0, String::len);
    let cost = match work {
        JobWork::TwinUpdate { tags, desired } => {
            Cost::message(Operation::JobDevice, length(tags) + length(desired))
        }
        JobWork::Method { payload, .. } => Cost::asked_by_job(payload.len()),
    };
    while !run.stop.is_cancelled() {
        let paid = tokio::select! {
            () = run.stop.cancelled() => return false,
            paid = run.shared.charge_within(cost, None) => paid,
        };
        match paid {
            Ok(()) => return true,
            // The next day may come before the job's end.
            Err(_) => {
                let _ = run.pause().await;
            }
        }
    }
    false
}

/// Has it stored, unless the run stops before.
async fn submit(run: &Run<'_>, command: &Command) -> Said {
    loop {
        if run.stop.is_cancelled() {
            return Said::End(End::Untouched);
        }
        match run.shared.client.submit(command.clone()).await {
            // The time of the job is over, of which the job itself is about to hear.
            Ok(Outcome::Refused(Refusal::JobEnded)) | Err(_) => {
                let _ = run.pause().await;
            }
            Ok(outcome) => return said(&outcome),
        }
    }
}

fn said(outcome: &Outcome) -> Said {
    match outcome {
        Outcome::JobRow { status, is_to_ask } => Said::Row {
            status: *status,
            is_to_ask: *is_to_ask,
        },
        // It is gone, or too many jobs come to it.
        _ => Said::End(End::Badly),
    }
}

async fn ask(run: &Run<'_>, order: Box<JobOrder>, device: DeviceId, mut call: Call) -> End {
    let turn = tokio::select! {
        () = run.stop.cancelled() => return End::Untouched,
        turn = Arc::clone(&run.shared.methods).acquire_many_owned(call.weight()) => turn,
    };
    let begin = Command::JobMethodBegin {
        device: device.clone(),
        order: order.clone(),
        runner: run.runner,
    };
    match submit(run, &begin).await {
        Said::Row { is_to_ask: true, .. } => {}
        Said::Row { status, .. } => return status.into(),
        Said::End(end) => return end,
    }
    // Somewhat beyond the end of the job, so that it is the job's time that is over and not the device's.
    let left = run.deadline.saturating_duration_since(Instant::now()) + 2 * JOB_PAUSE;
    call.response_wait = call.response_wait.min(left);
    call.connect_wait = call.connect_wait.min(left);
    let result = result(run, &device, &call).await;
    drop(turn);
    if let RowResult::Answered { .. } = &result {
        run.shared.charge_rest(result.bytes());
    }
    let status = match result {
        RowResult::Answered { .. } => RowStatus::Completed,
        RowResult::Failed { .. } => RowStatus::Failed,
    };
    let end = Command::JobMethodEnd {
        device,
        order,
        runner: run.runner,
        result,
    };
    // The device was asked, or will not be: that is written down whoever runs the job by now.
    loop {
        match run.shared.client.submit(end.clone()).await {
            Ok(Outcome::JobRow { status, .. }) => return status.into(),
            Ok(_) => return status.into(),
            Err(_) => sleep(JOB_PAUSE).await,
        }
    }
}

async fn result(run: &Run<'_>, device: &DeviceId, call: &Call) -> RowResult {
    let client = &*run.shared.client;
    let give_up = Instant::now() + call.response_wait;
    loop {
        if run.stop.is_cancelled() {
            return RowResult::Failed {
                code: "JobStopped".to_owned(),
                text: "the job stopped before the device was asked".to_owned(),
            };
        }
        let asking = find_and_ask(client, device, call, |gateway, invocation| {
            let asked = client.invoke(gateway, invocation);
            asked.map(|answer| match answer {
                Err(error) if error.is_untouched() => None,
                answer => Some(answer),
            })
        });
        return match asking.await {
            // It was not asked: others have to be answered before.
            Ok(Err(MethodError::TooMany(_))) if Instant::now() < give_up => {
                let _ = run.pause().await;
                continue;
            }
            Ok(answer) => answered(answer, device),
            Err(NotAsked::NotOnline) => failed(&ApiError::method(&MethodError::NotHere, device)),
            Err(NotAsked::Missing) => failed(&ApiError::missing(device)),
            Err(NotAsked::Query(_)) => {
                let _ = run.pause().await;
                continue;
            }
        };
    }
}

fn answered(answer: Result<MethodAnswer, MethodError>, device: &DeviceId) -> RowResult {
    match answer {
        Ok(MethodAnswer { status, payload }) => {
            let is_kept = !payload.is_empty() && payload.len() <= RESPONSE_BYTES_MAX;
            RowResult::Answered {
                status,
                payload: is_kept.then_some(payload),
            }
        }
        Err(error) => failed(&ApiError::method(&error, device)),
    }
}

fn failed(error: &ApiError) -> RowResult {
    let mut text = error.text().to_owned();
    let mut end = text.len().min(ERROR_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    RowResult::Failed {
        code: error.name().to_owned(),
        text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_answers_are_not_kept() {
        let device = DeviceId::parse("d").expect("a device id");
        let answer = |payload: String| {
            let answer = MethodAnswer { status: 200, payload };
            match answered(Ok(answer), &device) {
                RowResult::Answered { payload, .. } => payload,
                RowResult::Failed { .. } => panic!("it has answered"),
            }
        };
        assert_eq!(answer(String::new()), None);
        assert_eq!(answer("1".into()).as_deref(), Some("1"));
        let long = format!("\"{}\"", "x".repeat(RESPONSE_BYTES_MAX));
        assert_eq!(answer(long), None);
        let silent = answered(Err(MethodError::TimedOut), &device);
        assert!(matches!(silent, RowResult::Failed { code, .. } if code == "GatewayTimeout"));
    }
}
