//! One device brought in line with a plan: its modules first, then its own twin with the marks that say that it is done.
//!
//! Each step says what shall be and may be done again. A twin that has changed since it was looked at is left alone: the
//! next look decides anew.

use dunlin_model::command::{Command, Outcome, Refusal, Settled, WriteReceipt};
use dunlin_model::configuration::Setting;
use dunlin_model::configuration::plan::Plan;
use dunlin_model::id::DeviceId;
use dunlin_model::identity::{Authentication, Condition, DeviceSpec, SymmetricKeys};
use dunlin_model::port::{ShardClient, SubmitError};

use crate::auth::draw_key;

/// Who manages the modules that a configuration makes.
const MANAGED_BY: &str = "IotEdge";

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Applied {
    /// It is as the plan says. Its modules are in the shard that it is in, so the last receipt says it of all.
    Done(WriteReceipt),
    /// It has changed meanwhile, or is gone.
    Overtaken,
    /// It has no room for what the plan says.
    Refused(Refusal),
}

/// Makes of `device` what `plan` says. With `etag`, the twin must be what was looked at, and is marked.
pub(crate) async fn apply(
    client: &dyn ShardClient,
    device: &DeviceId,
    etag: Option<u64>,
    plan: Plan,
) -> Result<Applied, SubmitError> {
    for (module, settings) in plan.modules {
        let Ok(module) = device.of_module(&module) else {
            return Ok(Applied::Refused(Refusal::UnknownModule));
        };
        let applied = apply_module(client, &module, settings).await?;
        if !matches!(applied, Applied::Done(_)) {
            return Ok(applied);
        }
    }
    let marks = etag.is_some().then_some(plan.marks);
    submit(client, device, etag, marks, plan.own).await
}

async fn apply_module(
    client: &dyn ShardClient,
    module: &DeviceId,
    settings: Vec<Setting>,
) -> Result<Applied, SubmitError> {
    let applied = submit(client, module, None, None, settings.clone()).await?;
    if applied != Applied::Refused(Refusal::UnknownModule) {
        return Ok(applied);
    }
    let mut spec = DeviceSpec::enabled(Authentication::Sas(SymmetricKeys {
        primary: draw_key(),
        secondary: draw_key(),
    }));
    spec.managed_by = Some(MANAGED_BY.to_owned());
    let command = Command::DevicePut {
        device: module.clone(),
        spec,
        condition: Condition::Absent,
    };
    match client.submit(command).await? {
        Outcome::Refused(Refusal::AlreadyExists) | Outcome::Stored(_) => {
            submit(client, module, None, None, settings).await
        }
        Outcome::Refused(refusal) => Ok(refused(refusal)),
        _ => Ok(Applied::Overtaken),
    }
}

async fn submit(
    client: &dyn ShardClient,
    device: &DeviceId,
    etag: Option<u64>,
    marks: Option<dunlin_model::configuration::Marks>,
    settings: Vec<Setting>,
) -> Result<Applied, SubmitError> {
    let command = Command::TwinConfigure {
        device: device.clone(),
        etag,
        marks,
        settings,
    };
    let Settled { outcome, receipt } = client.submit_for_receipt(command).await?;
    Ok(match outcome {
        Outcome::TwinChanged { .. } => Applied::Done(receipt),
        Outcome::Refused(refusal) => refused(refusal),
        _ => Applied::Overtaken,
    })
}

fn refused(refusal: Refusal) -> Applied {
    match refusal {
        Refusal::VersionMismatch | Refusal::UnknownDevice => Applied::Overtaken,
        refusal => Applied::Refused(refusal),
    }
}
