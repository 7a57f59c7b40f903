//! Who runs scheduled jobs: every gateway looks for those that are due, and takes on as many as it has seats for.
//!
//! A job is claimed under a lease and run by one gateway at a time, in [`run`]; what is done at one device, in [`device`].
//! Nothing of it is kept here: what has been done is in the shards, and whoever comes next goes on from there. How REST has
//! jobs is in `http::jobs`; what a job may do when, in `dunlin_model::job`.

mod device;
mod run;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use dunlin_model::command::{Consistency, Query, View};
use dunlin_model::id::ShardId;
use dunlin_model::job::JobId;
use futures_util::stream::{self, StreamExt};
use tokio::sync::Semaphore;

use crate::limits::{JOB_LOOK_INTERVAL, JOBS_AT_A_TIME, QUERY_SHARDS_AT_A_TIME};
use crate::shared::Shared;

/// The jobs that run here.
type Running = Arc<Mutex<BTreeSet<JobId>>>;

/// Looks for jobs from now on, until draining begins; those that run then are let go of.
pub(crate) fn spawn(shared: &Arc<Shared>) {
    shared.spawn_until_draining(|shared| async move { look_for_ever(&shared).await });
}

async fn look_for_ever(shared: &Arc<Shared>) {
    let (running, seats) = (Running::default(), Arc::new(Semaphore::new(JOBS_AT_A_TIME)));
    loop {
        tokio::select! {
            () = tokio::time::sleep(JOB_LOOK_INTERVAL) => {}
            () = shared.scheduled.notified() => {}
        }
        if shared.client.is_fresh() && seats.available_permits() > 0 {
            take_on(shared, &running, &seats).await;
        }
    }
}

/// Takes on what is due, as far as there are seats. What is not taken on is due at the next look.
async fn take_on(shared: &Arc<Shared>, running: &Running, seats: &Arc<Semaphore>) {
    let shards = shared.client.directory().shards();
    let now_ms = shared.now_ms();
    let mut due = stream::iter(shards)
        .map(|shard| due(shared, shard, now_ms))
        .buffer_unordered(QUERY_SHARDS_AT_A_TIME);
    while let Some(due) = due.next().await {
        for id in due {
            let Ok(seat) = Arc::clone(seats).try_acquire_owned() else {
                return;
            };
            if !lock(running).insert(id.clone()) {
                continue;
            }
            let (shared, running) = (Arc::clone(shared), Arc::clone(running));
            shared.tasks.clone().spawn(async move {
                run::run(&shared, &id).await;
                lock(&running).remove(&id);
                drop(seat);
            });
        }
    }
}

fn lock(running: &Running) -> std::sync::MutexGuard<'_, BTreeSet<JobId>> {
    running.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Jobs of one shard that are due; of one that does not answer, none for now.
async fn due(shared: &Shared, shard: ShardId, ms: u64) -> Vec<JobId> {
    let query = Query::DueJobs { shard, ms };
    match shared.client.query(query, Consistency::Leader).await {
        Ok(View::DueJobs(due)) => due,
        Ok(_) | Err(_) => Vec::new(),
    }
}
