//! Where configurations are kept: each in the shard of its id.

use dunlin_model::command::{Command, Consistency, Outcome, Query, Settled, View, WriteReceipt};
use dunlin_model::configuration::{
    CONFIGURATION_ID_CHARS_MAX, CONFIGURATIONS_MAX, Configuration, ConfigurationSpec,
};
use dunlin_model::identity::Condition;
use dunlin_model::port::{QueryError, ShardClient};

use crate::fleet::every_step;
use crate::http::error::ApiError;

/// Whether a configuration may be called `id`: letters, digits and `-+%_*!'`, as IoT Hub has it, and `.` and `:`.
pub(crate) fn check_id(id: &str) -> Result<(), ApiError> {
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-+%_*!'.:".contains(c);
    if id.is_empty() || id.len() > CONFIGURATION_ID_CHARS_MAX || !id.chars().all(is_allowed) {
        return Err(ApiError::invalid(format!(
            "the id of a configuration has 1 to {CONFIGURATION_ID_CHARS_MAX} letters, digits and -+%_*!'.:"
        )));
    }
    Ok(())
}

/// One configuration.
pub(crate) async fn find(client: &dyn ShardClient, id: &str) -> Result<Option<Configuration>, QueryError> {
    let query = Query::Configuration(id.to_owned());
    match client.query(query, Consistency::Linearizable).await? {
        View::Configuration(found) => Ok(found.map(|found| *found)),
        _ => Err(QueryError::Store("an answer of another kind".into())),
    }
}

/// All of them, by their ids.
pub(crate) async fn all(client: &dyn ShardClient) -> Result<Vec<Configuration>, QueryError> {
    let mut all: Vec<Configuration> = Vec::new();
    for shard in client.directory().shards() {
        let ask = |after| Query::Configurations { shard, after };
        every_step(client, ask, |view| match view {
            View::Configurations { found, next } => {
                all.extend(found);
                Ok(next)
            }
            _ => Err(QueryError::Store("an answer of another kind".into())),
        })
        .await?;
    }
    all.sort_by(|a, b| a.id.cmp(&b.id));
    Ok(all)
}

/// Makes or changes one, and says where. Two that come at the same time may together make one more than there should be.
pub(crate) async fn put(
    client: &dyn ShardClient,
    id: &str,
    spec: ConfigurationSpec,
    condition: Condition,
) -> Result<WriteReceipt, ApiError> {
    if condition == Condition::Absent && all(client).await?.len() >= CONFIGURATIONS_MAX {
        return Err(ApiError::configurations_full());
    }
    let command = Command::ConfigurationPut {
        id: id.to_owned(),
        spec: Box::new(spec),
        condition,
    };
    let Settled { outcome, receipt } = client.submit_for_receipt(command).await?;
    match outcome {
        Outcome::Kept { .. } => Ok(receipt),
        Outcome::Refused(refusal) => Err(ApiError::configuration(refusal, id)),
        _ => Err(ApiError::internal("an outcome of another kind")),
    }
}

/// Removes one. What it said stays in the twins.
pub(crate) async fn delete(
    client: &dyn ShardClient,
    id: &str,
    condition: Condition,
) -> Result<WriteReceipt, ApiError> {
    let command = Command::ConfigurationDelete {
        id: id.to_owned(),
        condition,
    };
    let Settled { outcome, receipt } = client.submit_for_receipt(command).await?;
    match outcome {
        Outcome::Done => Ok(receipt),
        Outcome::Refused(refusal) => Err(ApiError::configuration(refusal, id)),
        _ => Err(ApiError::internal("an outcome of another kind")),
    }
}
