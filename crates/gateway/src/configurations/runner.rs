//! The look over the fleet: which twins are not what the configurations say, and to work.
//!
//! Every gateway tries; one holds the lease and does it. Two that do it at the same time do no harm, for a twin is changed
//! only as it was when it was looked at. Where there is no configuration, and no twin with a mark of one, nothing is
//! looked through.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use dunlin_model::command::{Consistency, Query, View};
use dunlin_model::configuration::plan::plan;
use dunlin_model::configuration::{Configuration, Target, Targeted};
use dunlin_model::id::ShardId;
use dunlin_model::port::{QueryError, ShardClient, SubmitError};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use tokio::time::Instant;

use super::apply::{Applied, apply};
use super::store;
use crate::lease::{Lease, LeaseError};
use crate::limits::{CONFIGURE_AT_A_TIME, CONFIGURE_EVERY, CONFIGURE_LEASE, CONFIGURE_SHARE};
use crate::shared::Shared;

/// What the lease is called.
const LEASE: &str = "configurations";

/// Why a look came to its end early. The next one begins anew.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Lease(#[from] LeaseError),
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error(transparent)]
    Submit(#[from] SubmitError),
}

/// What came of a look.
#[derive(Debug, Default, PartialEq, Eq)]
struct Found {
    changed: u64,
    overtaken: u64,
    refused: u64,
}

impl Found {
    fn count(&mut self, applied: &Applied) {
        match applied {
            Applied::Done(_) => self.changed += 1,
            Applied::Overtaken => self.overtaken += 1,
            Applied::Refused(_) => self.refused += 1,
        }
    }
}

/// Looks again and again, until the gateway drains.
pub(crate) fn spawn(shared: &Arc<Shared>) {
    shared.spawn_until_draining(|shared| async move { run(&shared).await });
}

async fn run(shared: &Shared) {
    let mut lease = Lease::new(LEASE.to_owned(), CONFIGURE_LEASE, rand::random());
    // Whether there was nothing to look for in any twin.
    let mut is_clean = false;
    let mut pause = CONFIGURE_EVERY;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shared.configured.notified() => {}
        }
        let begun = Instant::now();
        let client = &*shared.client;
        if !client.is_fresh() {
            continue;
        }
        match look(client, &mut lease, &mut is_clean).await {
            Ok(found) if found.changed + found.refused > 0 => {
                tracing::info!(
                    changed = found.changed,
                    refused = found.refused,
                    "configured twins"
                );
            }
            Ok(_) => {}
            Err(LookError::Lease(LeaseError::Lost)) => {
                is_clean = false;
                pause = CONFIGURE_LEASE;
                continue;
            }
            Err(error) => tracing::debug!(%error, "the look over the fleet ended early"),
        }
        pause = CONFIGURE_EVERY.max(begun.elapsed() * CONFIGURE_SHARE);
    }
}

/// One look over the whole fleet.
async fn look(client: &dyn ShardClient, lease: &mut Lease, is_clean: &mut bool) -> Result<Found, LookError> {
    let configurations = store::all(client).await?;
    if configurations.is_empty() && *is_clean {
        return Ok(Found::default());
    }
    lease.hold(client).await?;
    let targets: Vec<Target> = configurations.iter().map(target).collect();
    let by_id: BTreeMap<&str, &Configuration> =
        configurations.iter().map(|one| (one.id.as_str(), one)).collect();
    let mut found = Found::default();
    for shard in client.directory().shards() {
        let mut after = Bytes::new();
        loop {
            lease.hold(client).await?;
            let (targeted, next) = step(client, shard, &targets, after).await?;
            let mut applying = stream::iter(targeted)
                .map(|one| configure(client, &by_id, one))
                .buffer_unordered(CONFIGURE_AT_A_TIME);
            while let Some(applied) = applying.try_next().await? {
                found.count(&applied);
            }
            match next {
                Some(next) => after = next,
                None => break,
            }
        }
    }
    *is_clean = configurations.is_empty() && found.overtaken + found.refused == 0;
    Ok(found)
}

fn target(configuration: &Configuration) -> Target {
    Target {
        id: configuration.id.clone(),
        version: configuration.version,
        condition: configuration.spec.target.clone(),
    }
}

async fn configure(
    client: &dyn ShardClient,
    by_id: &BTreeMap<&str, &Configuration>,
    targeted: Targeted,
) -> Result<Applied, LookError> {
    let fitting = targeted
        .fits
        .iter()
        .filter_map(|id| by_id.get(id.as_str()).copied());
    let plan = plan(fitting);
    let applied = apply(client, &targeted.device, Some(targeted.etag), plan).await?;
    if let Applied::Refused(refusal) = &applied {
        tracing::warn!(device = %targeted.device, %refusal, "cannot configure a twin");
    }
    Ok(applied)
}

async fn step(
    client: &dyn ShardClient,
    shard: ShardId,
    targets: &[Target],
    after: Bytes,
) -> Result<(Vec<Targeted>, Option<Bytes>), LookError> {
    let query = Query::Targeted {
        shard,
        targets: targets.to_vec(),
        after,
    };
    match client.query(query, Consistency::Leader).await? {
        View::Targeted { found, next } => Ok((found, next)),
        _ => Err(QueryError::Store("an answer of another kind".into()).into()),
    }
}
