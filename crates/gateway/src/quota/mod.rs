//! What a hub that has a plan lets through, and how long the rest waits; a hub without one lets everything through.
//!
//! Every door says what something costs before it does it, and after it knows who asks. What waits stands in the lines of
//! [`gate`]; one task asks the keeper of the whole hub (`model::quota::keeper`) for all of it together. Nothing is counted
//! here: a gateway that dies takes nothing with it.

mod gate;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use dunlin_model::command::{Command, Outcome};
use dunlin_model::quota::keeper::{Answer, Want};
use dunlin_model::quota::{METHOD_STEP_KIB, Operation, Plan};
use dunlin_model::telemetry;
use tokio::sync::{Notify, oneshot};
use tokio::time::{sleep, sleep_until};

use crate::limits::{QUOTA_LOOK, QUOTA_PAUSE, QUOTA_WAIT};
use crate::metrics::{Metrics, count};
use crate::shared::Shared;
use gate::{Gate, Patience};

/// What something costs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Cost {
    operation: Operation,
    count: u32,
    /// Bytes of each message that it is.
    messages: [Option<usize>; 2],
}

impl Cost {
    /// One operation that is no message.
    pub(crate) fn of(operation: Operation) -> Self {
        Self::many(operation, 1)
    }

    /// So many of them.
    pub(crate) fn many(operation: Operation, count: usize) -> Self {
        Self {
            operation,
            count: u32::try_from(count).unwrap_or(u32::MAX),
            messages: [None; 2],
        }
    }

    /// One operation that is a message of so many bytes.
    pub(crate) fn message(operation: Operation, bytes: usize) -> Self {
        Self {
            messages: [Some(bytes), None],
            ..Self::of(operation)
        }
    }

    /// A device's message, of which this is the record.
    pub(crate) fn record(record: &[u8]) -> Self {
        let bytes = telemetry::peek(record).map_or(record.len(), |record| record.message_bytes());
        Self::message(Operation::DeviceMessage, bytes)
    }

    /// A direct method with so many bytes to say, and an answer that is small as far as anybody knows.
    pub(crate) fn method(bytes: usize) -> Self {
        let step_bytes = METHOD_STEP_KIB as usize * 1024;
        let steps = bytes.max(1).div_ceil(step_bytes) + 1;
        Self {
            messages: [Some(bytes), Some(0)],
            ..Self::many(Operation::DirectMethod, steps * METHOD_STEP_KIB as usize)
        }
    }

    /// A method by which a job asks one device.
    pub(crate) fn asked_by_job(bytes: usize) -> Self {
        Self {
            messages: [Some(bytes), Some(0)],
            ..Self::of(Operation::JobDevice)
        }
    }

    /// An upload, which is two messages whatever the file.
    pub(crate) fn upload() -> Self {
        Self {
            messages: [Some(0); 2],
            ..Self::of(Operation::FileUpload)
        }
    }

    fn want(self, plan: Plan) -> Want {
        let messages = self.messages.iter().flatten();
        Want {
            count: self.count,
            messages: messages.map(|bytes| plan.metered(*bytes)).sum(),
        }
    }
}

/// Why something may not be done now. It was not done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Over {
    /// The hub does as much of it as its plan allows; later there is room again.
    #[error("the rate of the hub's plan is reached")]
    Rate,
    /// The plan's messages of this day are used up.
    #[error("the messages of the hub's plan for this day are used up")]
    Day,
    /// Nobody could say.
    #[error("the hub's plan cannot be asked")]
    Unreachable,
}

/// Something that stands in line: resolves when it may go on, or will not.
pub(crate) type Turn = oneshot::Receiver<Result<(), Over>>;

/// The lines of one gateway.
#[derive(Default)]
pub(crate) struct Quota {
    gate: Mutex<Gate>,
    bell: Notify,
}

impl Quota {
    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stands in line, no longer than `wait` if that is given.
    fn enter(&self, operation: Operation, want: Want, wait: Option<Duration>) -> Turn {
        let patience = Patience {
            until: wait.map(|wait| Instant::now() + wait),
            outlasts_silence: false,
        };
        self.stand_in_line(operation, want, patience)
    }

    /// The same under `plan` for what waits, however long, while nobody can say: whoever sent it is connected, and hears of it then.
    pub(crate) fn enter_patiently(&self, plan: Plan, cost: Cost, wait: Duration) -> Turn {
        let patience = Patience {
            until: Some(Instant::now() + wait),
            outlasts_silence: true,
        };
        self.stand_in_line(cost.operation, cost.want(plan), patience)
    }

    fn stand_in_line(&self, operation: Operation, want: Want, patience: Patience) -> Turn {
        let turn = self.gate().enter(operation, want, patience);
        self.bell.notify_one();
        turn
    }

    /// The same for something of which nobody wants to hear.
    fn enter_unheard(&self, plan: Plan, cost: Cost) {
        self.gate().enter_unheard(cost.operation, cost.want(plan));
        self.bell.notify_one();
    }
}

/// Waits for a turn.
pub(crate) async fn wait(metrics: &Metrics, turn: Turn) -> Result<(), Over> {
    // Whoever keeps the lines is gone: so is this gateway.
    counted(metrics, turn.await.unwrap_or(Err(Over::Unreachable)))
}

/// Counts how it ended.
pub(crate) fn counted(metrics: &Metrics, end: Result<(), Over>) -> Result<(), Over> {
    count(match end {
        Ok(()) => &metrics.quota_passed,
        Err(Over::Rate) => &metrics.quota_refused_rate,
        Err(Over::Day) => &metrics.quota_refused_day,
        Err(Over::Unreachable) => &metrics.quota_unreachable,
    });
    end
}

impl Shared {
    /// Pays for something that somebody asked for and waits for. Short bursts are delayed.
    pub(crate) async fn charge(&self, cost: Cost) -> Result<(), Over> {
        self.charge_within(cost, Some(QUOTA_WAIT)).await
    }

    /// Pays for something, and waits as long as is said, or for ever.
    pub(crate) async fn charge_within(&self, cost: Cost, patience: Option<Duration>) -> Result<(), Over> {
        let Some(plan) = self.client.directory().plan else {
            return Ok(());
        };
        let turn = self.quota.enter(cost.operation, cost.want(plan), patience);
        wait(&self.metrics, turn).await
    }

    /// Pays for a device's messages of so many bytes each, for all of them or for none, and waits as long as is said.
    pub(crate) async fn charge_messages(
        &self,
        bytes_of_each: impl Iterator<Item = usize>,
        patience: Duration,
    ) -> Result<(), Over> {
        let Some(plan) = self.client.directory().plan else {
            return Ok(());
        };
        let none = Want {
            count: 0,
            messages: 0,
        };
        let want = bytes_of_each.fold(none, |all, bytes| Want {
            count: all.count.saturating_add(1),
            messages: all.messages.saturating_add(plan.metered(bytes)),
        });
        let turn = self.quota.enter(Operation::DeviceMessage, want, Some(patience));
        wait(&self.metrics, turn).await
    }

    /// Pays for what an answer of `bytes` has beyond what was paid as one message before. Nobody waits for it.
    pub(crate) fn charge_rest(&self, bytes: usize) {
        let Some(plan) = self.client.directory().plan else {
            return;
        };
        let rest = plan.metered(bytes) - 1;
        if rest > 0 {
            let cost = Cost {
                operation: Operation::Afterwards,
                count: 0,
                messages: [
                    Some((rest as usize).saturating_mul(plan.tier.meter_bytes())),
                    None,
                ],
            };
            self.quota.enter_unheard(plan, cost);
        }
    }
}

/// Starts the task that asks the keeper.
pub(crate) fn spawn(shared: &Arc<Shared>) {
    let task = run(Arc::clone(shared));
    shared.tasks.spawn(task);
}

async fn run(shared: Arc<Shared>) {
    loop {
        let due = shared.quota.gate().poll_timeout();
        // The plan may have become a larger one.
        let due = due.map(|due| due.min(Instant::now() + QUOTA_LOOK));
        tokio::select! {
            () = shared.draining.cancelled() => break,
            () = shared.quota.bell.notified() => {}
            () = sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {}
        }
        ask(&shared).await;
    }
    shared.quota.gate().close();
}

/// Asks for everything that waits and may be asked for now.
async fn ask(shared: &Shared) {
    let (now, plan) = (Instant::now(), shared.client.directory().plan);
    let wants = {
        let mut gate = shared.quota.gate();
        gate.handle_time(now);
        gate.handle_plan(plan);
        gate.poll_wants(now)
    };
    if wants.is_empty() {
        return;
    }
    let Some(plan) = plan else {
        return shared.quota.gate().let_all_through();
    };
    // Asked once, however long that takes: whatever was counted was counted for these.
    let submitting = shared.client.submit(Command::QuotaAsk { plan, wants });
    tokio::pin!(submitting);
    let asked_at = Instant::now();
    let answer = loop {
        tokio::select! {
            answer = &mut submitting => break answer,
            () = shared.draining.cancelled() => return,
            () = sleep(QUOTA_LOOK) => {
                let mut gate = shared.quota.gate();
                if asked_at.elapsed() >= QUOTA_WAIT {
                    gate.handle_silence();
                }
                gate.handle_time(Instant::now());
            }
        }
    };
    let now = Instant::now();
    let mut gate = shared.quota.gate();
    match answer {
        Ok(Outcome::Quota(answer)) => gate.handle_answer(&answer, now),
        Ok(other) => {
            tracing::warn!(?other, "the keeper of the plan gave an answer of another kind");
            gate.handle_failure(now, now + QUOTA_PAUSE);
        }
        Err(error) => {
            tracing::debug!(%error, "ask the keeper of the plan again");
            gate.handle_failure(now, now + QUOTA_PAUSE);
        }
    }
}

/// What the hub did of its plan today, asked of the keeper.
pub(crate) async fn used(shared: &Shared, plan: Plan) -> Option<Box<Answer>> {
    let wants = Vec::new();
    match shared.client.submit(Command::QuotaAsk { plan, wants }).await {
        Ok(Outcome::Quota(answer)) => Some(answer),
        _ => None,
    }
}
