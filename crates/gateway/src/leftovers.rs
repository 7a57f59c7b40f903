//! What erased devices have left outside their shards goes: files that they uploaded, blocks that were to be files, and
//! registrations that say that they are at this hub.
//!
//! Every gateway removes files as soon as it hears of an erasure, from the store that it has: stores may be several. One
//! gateway, which holds a lease, removes registrations, looks once more after a while, for what was just being put in its
//! place when the device was erased, and says in the log that nothing is left. Only from then on does a device of that name
//! upload anything, so nobody removes files without the lease once that may have been said. Whoever dies is followed by
//! another: what is gone already does no harm. What is to go is decided in `model::leftover`.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use dunlin_model::command::{Command, Consistency, Outcome, Query, Refusal, View};
use dunlin_model::id::{DeviceId, ShardId};
use dunlin_model::identity::Condition;
use dunlin_model::leftover::Leftover;
use dunlin_model::port::{BlobError, QueryError, ShardClient, SubmitError};
use dunlin_model::provisioning::{Registration, RegistrationId};
use tokio::time::Instant;

use crate::auth;
use crate::fleet::every_step;
use crate::lease::Lease;
use crate::limits::{
    LEFTOVERS_LEASE, LEFTOVERS_LOOK, LEFTOVERS_PAUSE, LEFTOVERS_STAMPS_APART, LEFTOVERS_STAY,
};
use crate::shared::Shared;
use crate::uploads::blocks::folder_of;
use crate::uploads::name::device_folder;
use crate::uploads::sweep::remove_below;

/// What the lease is called.
const LEASE: &str = "leftovers";

/// Why something is left. The next look begins anew.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Query(#[from] QueryError),
    #[error(transparent)]
    Submit(#[from] SubmitError),
}

/// Looks again and again, until the gateway drains.
pub(crate) fn spawn(shared: &Arc<Shared>) {
    shared.spawn_until_draining(|shared| async move { run(&shared).await });
}

async fn run(shared: &Shared) {
    let mut looks = Looks {
        lease: Lease::new(LEASE.to_owned(), LEFTOVERS_LEASE, rand::random()),
        seen: HashSet::new(),
    };
    let mut pause = LEFTOVERS_LOOK;
    loop {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = shared.erased.notified() => {}
        }
        pause = LEFTOVERS_LOOK;
        if !shared.client.is_fresh() {
            continue;
        }
        let stuck = looks.look(shared).await;
        if stuck > 0 {
            tracing::warn!(devices = stuck, "files of erased devices cannot be removed");
            pause = LEFTOVERS_PAUSE;
        }
    }
}

/// What one gateway remembers from look to look.
struct Looks {
    lease: Lease,
    /// Those whose files it has removed once, and that are still written down.
    seen: HashSet<(DeviceId, u64)>,
}

impl Looks {
    /// One look at what is written down in all shards. Returns of how many devices files cannot be removed.
    async fn look(&mut self, shared: &Shared) -> usize {
        let client = &*shared.client;
        let (mut still, mut stuck) = (HashSet::new(), 0);
        for shard in client.directory().shards() {
            let mut after = Bytes::new();
            loop {
                let (found, next) = match page(client, shard, after).await {
                    Ok(page) => page,
                    // One that cannot be reached keeps nothing of the others.
                    Err(error) => {
                        tracing::debug!(%shard, %error, "cannot ask what erased devices have left");
                        break;
                    }
                };
                stuck += self.look_after(shared, &found).await;
                still.extend(found.iter().map(name));
                match next {
                    Some(next) => after = next,
                    None => break,
                }
            }
        }
        self.seen.retain(|seen| still.contains(seen));
        stuck
    }

    /// Does what can be done now about some of them. Returns of how many files cannot be removed.
    async fn look_after(&mut self, shared: &Shared, found: &[Leftover]) -> usize {
        let is_due =
            |leftover: &&Leftover| stays(shared, leftover).is_zero() || !self.seen.contains(&name(leftover));
        let due: Vec<&Leftover> = found.iter().filter(is_due).collect();
        if due.is_empty() {
            return 0;
        }
        let has_lease = self.hold(shared).await;
        let (mut clean, mut stuck) = (Vec::new(), 0);
        for leftover in due {
            let stays = stays(shared, leftover);
            let is_over = stays.is_zero();
            let until = match is_over {
                true if !has_lease || !self.hold(shared).await => continue,
                true => self.lease.held_until(),
                false => Instant::now() + stays,
            };
            match remove_files(shared, leftover, until).await {
                Ok(true) => clean.push((leftover, is_over)),
                // The next look goes on.
                Ok(false) => {}
                Err(error) => {
                    stuck += 1;
                    tracing::debug!(device = %leftover.device, %error, "cannot remove files of an erased device");
                }
            }
        }
        if has_lease
            && !clean.is_empty()
            && let Err(error) = finish(shared, &clean).await
        {
            tracing::debug!(%error, "registrations of erased devices wait");
            return stuck;
        }
        self.seen.extend(clean.iter().map(|(leftover, _)| name(leftover)));
        stuck
    }

    /// Whether this gateway has the lease. Who cannot ask has not.
    async fn hold(&mut self, shared: &Shared) -> bool {
        self.lease.hold(&*shared.client).await.is_ok()
    }
}

/// Removes registrations of those whose files are gone, and says of those that were over before their files went that
/// nothing is left.
async fn finish(shared: &Shared, clean: &[(&Leftover, bool)]) -> Result<(), LookError> {
    let leftovers: Vec<&Leftover> = clean.iter().map(|(leftover, _)| *leftover).collect();
    remove_registrations(shared, &leftovers).await?;
    for (leftover, _) in clean.iter().filter(|(_, is_over)| *is_over) {
        let command = Command::LeftoverGone {
            device: leftover.device.clone(),
            index: leftover.index,
        };
        shared.client.submit(command).await?;
        tracing::info!(device = %leftover.device, "nothing is left of an erased device");
    }
    Ok(())
}

fn name(leftover: &Leftover) -> (DeviceId, u64) {
    (leftover.device.clone(), leftover.index)
}

/// How long something may still come that was under way when the device was erased.
fn stays(shared: &Shared, leftover: &Leftover) -> Duration {
    let until_ms = leftover.erased_ms + LEFTOVERS_STAY.as_millis() as u64;
    Duration::from_millis(until_ms.saturating_sub(shared.now_ms()))
}

/// What is written down in a shard, page by page. That nothing is may be said by a leader that does not know of its end yet;
/// whatever is, counts.
async fn page(
    client: &dyn ShardClient,
    shard: ShardId,
    after: Bytes,
) -> Result<(Vec<Leftover>, Option<Bytes>), QueryError> {
    let mut found = (Vec::new(), None);
    for consistency in [Consistency::Leader, Consistency::Linearizable] {
        let after = after.clone();
        let query = Query::Leftovers { shard, after };
        found = match client.query(query, consistency).await? {
            View::Leftovers { found, next } => (found, next),
            _ => return Err(another_kind()),
        };
        if found.0.is_empty() {
            break;
        }
    }
    Ok(found)
}

/// Removes the files of a device from this gateway's store, and what waits under its uploads. Returns whether that came to
/// its end before `until`.
async fn remove_files(shared: &Shared, leftover: &Leftover, until: Instant) -> Result<bool, BlobError> {
    let mut folders: Vec<String> = leftover.uploads.iter().map(|id| folder_of(id)).collect();
    folders.extend(device_folder(&shared.uploads.config.container, &leftover.device));
    for folder in folders {
        let removed = remove_below(&*shared.hooks.blobs, &folder, None, Some(until)).await?;
        if removed.stuck > 0 {
            let text = format!("{} files in {folder} stay", removed.stuck);
            return Err(BlobError::Failed(text));
        }
        if !removed.is_all {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Removes registrations that put one of these devices at this hub, from before it was erased.
async fn remove_registrations(shared: &Shared, leftovers: &[&Leftover]) -> Result<(), LookError> {
    let client = &*shared.client;
    let devices: Vec<DeviceId> = leftovers.iter().map(|one| one.device.clone()).collect();
    let is_to_go = |registration: &Registration| {
        let of_device = |one: &&&Leftover| one.device == registration.spec.device;
        let erased_ms = leftovers.iter().find(of_device).map(|one| one.erased_ms);
        // Stamps of two shards are not of one clock. One that is taken for older comes again with its device.
        let upto_ms = erased_ms.map(|ms| ms + LEFTOVERS_STAMPS_APART.as_millis() as u64);
        auth::is_host(&shared.host_names, &registration.spec.hub)
            && upto_ms.is_some_and(|upto_ms| registration.updated_ms < upto_ms)
    };
    for shard in client.directory().shards() {
        let mut going: Vec<Registration> = Vec::new();
        let ask = |after| Query::RegistrationsOf {
            shard,
            devices: devices.clone(),
            after,
        };
        every_step(client, ask, |view| match view {
            View::Registrations { found, next } => {
                going.extend(found.into_iter().filter(is_to_go));
                Ok(next)
            }
            _ => Err(another_kind()),
        })
        .await?;
        for registration in going {
            remove_registration(client, &registration).await?;
        }
    }
    Ok(())
}

async fn remove_registration(client: &dyn ShardClient, registration: &Registration) -> Result<(), LookError> {
    // It was kept under this name, which was checked then.
    let Ok(id) = RegistrationId::parse(&registration.spec.name) else {
        return Ok(());
    };
    let condition = Condition::Version(registration.version);
    let command = Command::RegistrationDelete { id, condition };
    match client.submit(command).await? {
        // The device has come again, or somebody was quicker.
        Outcome::Done | Outcome::Refused(Refusal::VersionMismatch | Refusal::UnknownRegistration) => Ok(()),
        _ => Err(another_kind().into()),
    }
}

fn another_kind() -> QueryError {
    QueryError::Store("an answer of another kind".into())
}
