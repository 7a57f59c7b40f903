//! Which gateway serves which endpoint, and the loop that serves it.
//!
//! Every gateway looks every [`DISPATCH_LOOK`] which endpoints there are and tries to get the lease of each. Whoever has
//! it serves all shards of the endpoint side by side, until the endpoint is another one or the lease is lost; a lease that
//! its gateway could not keep ends what it does before another gateway begins, unless it stands still just then.

use dunlin_model::command::ReadFrom;
use dunlin_model::id::ShardId;
use dunlin_model::port::QueryError;
use dunlin_model::routing::Endpoint;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout_at};
use tokio_util::sync::DropGuard;

use super::batch::{Batch, Parcel};
use super::cursor::{self, CursorError};
use super::target::{appetite, deliver};
use crate::events::endpoint;
use crate::lease::{Lease, LeaseError};
use crate::limits::{
    DISPATCH_COMMIT_EVERY, DISPATCH_LEASE, DISPATCH_LOOK, DISPATCH_PAUSE_MAX, DISPATCH_PAUSE_MIN,
    DISPATCH_READ_BYTES, EVENTS_WAIT_MS_MAX,
};
use crate::metrics::{count, count_by};
use crate::shared::Shared;

/// Why a shard is not served for the moment.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error(transparent)]
    Cursor(#[from] CursorError),
    #[error("read events: {0}")]
    Query(#[from] QueryError),
}

/// Serves whatever endpoints there are, until the gateway drains.
pub(crate) fn spawn(shared: &Arc<Shared>) {
    shared.spawn_until_draining(|shared| async move {
        let mut served = BTreeMap::new();
        // One for all that this gateway ever serves: an endpoint that changes is served on at once.
        let holder = rand::random();
        loop {
            follow(&shared, &mut served, holder);
            tokio::select! {
                () = shared.rerouted.notified() => {}
                () = sleep(DISPATCH_LOOK) => {}
            }
        }
    });
}

/// An endpoint that is served, or that this gateway tries to serve; dropped, it is served no more.
struct Served {
    endpoint: Endpoint,
    _over: DropGuard,
}

/// Begins with endpoints that are new, and ends with those that are gone or have become others.
fn follow(shared: &Arc<Shared>, served: &mut BTreeMap<String, Served>, holder: u64) {
    let directory = shared.client.directory();
    let endpoints = &directory.routing.endpoints;
    served.retain(|name, served| endpoints.get(name) == Some(&served.endpoint));
    for (name, endpoint) in endpoints {
        if served.contains_key(name) {
            continue;
        }
        let over = shared.draining.child_token();
        let serving = serve(Arc::clone(shared), name.clone(), endpoint.clone(), holder);
        shared
            .tasks
            .spawn(over.clone().run_until_cancelled_owned(serving));
        let served_now = Served {
            endpoint: endpoint.clone(),
            _over: over.drop_guard(),
        };
        served.insert(name.clone(), served_now);
    }
}

/// Serves an endpoint whenever this gateway has its lease.
async fn serve(shared: Arc<Shared>, name: String, endpoint: Endpoint, holder: u64) {
    let mut lease = Lease::new(format!("endpoint/{}", endpoint.id), DISPATCH_LEASE, holder);
    loop {
        if shared.client.is_fresh() {
            match lease.hold(&*shared.client).await {
                Ok(()) => serve_while_held(&shared, &name, &endpoint, &mut lease).await,
                Err(LeaseError::Lost) => {}
                Err(error) => tracing::debug!(endpoint = name, %error, "an endpoint has no runner here"),
            }
        }
        sleep(DISPATCH_LEASE / 4).await;
    }
}

/// Serves all shards, and returns when the lease is lost.
async fn serve_while_held(shared: &Arc<Shared>, name: &str, endpoint: &Endpoint, lease: &mut Lease) {
    // Whatever is in here ends when this function does.
    let mut shards = JoinSet::new();
    for shard in shared.client.directory().shards() {
        let work = Work {
            shared: Arc::clone(shared),
            name: name.to_owned(),
            endpoint: endpoint.clone(),
            shard,
        };
        shards.spawn(work.run());
    }
    loop {
        let lost = timeout_at(lease.held_until(), loses_lease(shared, lease));
        if lost.await.unwrap_or(true) {
            tracing::info!(
                endpoint = name,
                "another gateway serves this endpoint from now on"
            );
            return;
        }
    }
}

/// Renews the lease when it is time, however often it must be asked for. Returns whether it is lost.
async fn loses_lease(shared: &Shared, lease: &mut Lease) -> bool {
    sleep_until(lease.held_until() - DISPATCH_LEASE / 2).await;
    loop {
        match lease.hold(&*shared.client).await {
            Ok(()) => return false,
            Err(LeaseError::Lost) => return true,
            Err(error) => tracing::debug!(%error, "a lease is asked for again"),
        }
        sleep(DISPATCH_PAUSE_MIN).await;
    }
}

/// One shard of one endpoint.
struct Work {
    shared: Arc<Shared>,
    name: String,
    endpoint: Endpoint,
    shard: ShardId,
}

impl Work {
    /// Serves it without end. What fails is tried again after a pause that grows.
    async fn run(self) {
        let mut pause = DISPATCH_PAUSE_MIN;
        loop {
            let begun = Instant::now();
            let Err(trouble) = self.serve().await;
            tracing::debug!(endpoint = self.name, shard = %self.shard, error = %trouble, "an endpoint waits");
            if begun.elapsed() > DISPATCH_PAUSE_MAX {
                pause = DISPATCH_PAUSE_MIN;
            }
            sleep(pause).await;
            pause = (pause * 2).min(DISPATCH_PAUSE_MAX);
        }
    }

    async fn serve(&self) -> Result<std::convert::Infallible, Trouble> {
        let client = &*self.shared.client;
        let id = &self.endpoint.id;
        let mut committed = loop {
            match cursor::read(client, id, self.shard).await? {
                Some(offset) => break offset,
                None => cursor::begin_at_end(client, id, self.shard).await?,
            }
        };
        let mut next = committed;
        let mut committed_at = Instant::now();
        let mut batch = Batch::new(self.shard, appetite(&self.endpoint.kind));
        loop {
            let wait = batch
                .wait(Instant::now())
                .map_or(EVENTS_WAIT_MS_MAX, |wait| wait.as_millis() as u64);
            let bounds = (DISPATCH_READ_BYTES, wait.min(EVENTS_WAIT_MS_MAX));
            let from = ReadFrom::Offset(next);
            let page = endpoint::read(&self.shared, &self.name, self.shard, from, bounds).await?;
            batch.handle_events(&page.events, Instant::now());
            next = next.max(page.next);
            let is_sent = match batch.poll_parcel(Instant::now()) {
                Some(parcel) => {
                    self.hand_over(&parcel).await;
                    true
                }
                None => false,
            };
            // What leads elsewhere is not worth an entry in a log each time.
            let is_behind = batch.is_empty() && next > committed;
            if is_sent || (is_behind && committed_at.elapsed() > DISPATCH_COMMIT_EVERY) {
                cursor::shift(client, id, self.shard, Some(next)).await?;
                (committed, committed_at) = (next, Instant::now());
            }
        }
    }

    /// Hands a parcel over, however often it must be tried.
    async fn hand_over(&self, parcel: &Parcel) {
        let mut pause = DISPATCH_PAUSE_MIN;
        let mut failures = 0_u64;
        loop {
            match deliver(&self.shared, &self.endpoint.kind, parcel).await {
                Ok(()) => break,
                Err(error) => {
                    count(&self.shared.metrics.dispatch_failures);
                    failures += 1;
                    if failures == 1 {
                        tracing::warn!(endpoint = self.name, shard = %self.shard, error, "an endpoint takes nothing; trying on");
                    }
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(DISPATCH_PAUSE_MAX);
        }
        if failures > 0 {
            tracing::info!(endpoint = self.name, shard = %self.shard, failures, "an endpoint takes events again");
        }
        count_by(&self.shared.metrics.events_dispatched, parcel.count);
    }
}
