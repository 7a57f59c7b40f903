//! How far events have left for an endpoint: one number per shard, which the shard keeps.

use dunlin_model::command::{Command, Consistency, Outcome, Query, ReadFrom, View};
use dunlin_model::id::ShardId;
use dunlin_model::port::{QueryError, ShardClient, SubmitError};
use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};

use crate::limits::DISPATCH_SHARDS_AT_A_TIME;

/// Why a cursor was not read or moved.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CursorError {
    /// It could not be read.
    #[error("read cursor: {0}")]
    Query(#[from] QueryError),
    /// It could not be moved.
    #[error("move cursor: {0}")]
    Submit(#[from] SubmitError),
    /// The shard answered something else.
    #[error("an answer of another kind")]
    Kind,
}

/// How far events of `shard` have left. `None`: the shard does not know the endpoint.
pub(crate) async fn read(
    client: &dyn ShardClient,
    endpoint: &str,
    shard: ShardId,
) -> Result<Option<u64>, CursorError> {
    let endpoint = endpoint.to_owned();
    let query = Query::Cursor { shard, endpoint };
    match client.query(query, Consistency::Linearizable).await? {
        View::Cursor(offset) => Ok(offset),
        _ => Err(CursorError::Kind),
    }
}

/// Has `shard` remember it, or forget the endpoint.
pub(crate) async fn shift(
    client: &dyn ShardClient,
    endpoint: &str,
    shard: ShardId,
    offset: Option<u64>,
) -> Result<(), CursorError> {
    let endpoint = endpoint.to_owned();
    let command = Command::CursorMove {
        shard,
        endpoint,
        offset,
    };
    match client.submit(command).await? {
        Outcome::Done => Ok(()),
        _ => Err(CursorError::Kind),
    }
}

/// Puts the cursors of a new endpoint where the shards end now: what is acknowledged from now on leaves.
pub(crate) async fn begin(client: &dyn ShardClient, endpoint: &str) -> Result<(), CursorError> {
    let shards = client.directory().shards();
    let begun = shards.map(|shard| begin_at_end(client, endpoint, shard));
    stream::iter(begun)
        .buffer_unordered(DISPATCH_SHARDS_AT_A_TIME)
        .try_collect()
        .await
}

pub(super) async fn begin_at_end(
    client: &dyn ShardClient,
    endpoint: &str,
    shard: ShardId,
) -> Result<(), CursorError> {
    let end = client.read_events(shard, ReadFrom::End, 1, 0).await?.from;
    shift(client, endpoint, shard, Some(end)).await
}

/// Has all shards forget an endpoint that is gone. What is left where that fails does no harm.
pub(crate) async fn forget(client: &dyn ShardClient, endpoint: &str) {
    for shard in client.directory().shards() {
        if let Err(error) = shift(client, endpoint, shard, None).await {
            tracing::debug!(endpoint, %shard, %error, "a shard still knows an endpoint that is gone");
        }
    }
}
