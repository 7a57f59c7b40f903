//! Erased devices: their records go from the event segments of this node's replicas.
//!
//! Readers have not been shown them since the entry that erased them (`model::shard::erase` hides them); here the bytes go. One
//! sealed segment after the other is written again; what is not sealed yet, whoever leads has sealed after a while, so that
//! erasures that come together cut the log once.
//! A replica that is done notes that, and is looked at again only for the next erasure, or when a peer's segment has come.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dunlin_model::id::GroupId;
use dunlin_model::port::{EventLog, ShardStore, StoreError};
use dunlin_model::shard::erase;
use tokio::time::Instant;

use crate::blocking::blocking;
use crate::group::Group;
use crate::node::Shared;

/// Between two looks for erasures.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Bytes of segments that are looked through in a second, all replicas of the node together.
const ERASE_BYTES_PER_S: u64 = 32 << 20;

/// How long the leader waits for a segment to be sealed by itself.
const SEAL_AFTER: Duration = Duration::from_secs(30);

/// Carries erasures out, for ever.
pub(crate) async fn run(shared: Arc<Shared>) {
    let mut clock = tokio::time::interval(LOOK_EVERY);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut unsealed: BTreeMap<GroupId, Instant> = BTreeMap::new();
    loop {
        clock.tick().await;
        for group in shared.groups() {
            let waits = match see_to(&group).await {
                Ok(progress) => progress == Progress::Unsealed,
                Err(error) => {
                    // Damage is remembered where it was found, and mended; the rest may go well the next time.
                    tracing::debug!(replica = %group.id(), %error, "erasure waits");
                    false
                }
            };
            let id = group.id().group;
            if !waits {
                unsealed.remove(&id);
            } else if unsealed.entry(id).or_insert_with(Instant::now).elapsed() >= SEAL_AFTER
                && group.sight().leads
            {
                unsealed.remove(&id);
                group.seal();
            }
        }
    }
}

/// How far a replica is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Progress {
    /// Nothing is left to do.
    Done,
    /// Something may be left in what is not sealed yet.
    Unsealed,
    /// The log has changed meanwhile.
    Again,
}

async fn see_to(group: &Group) -> Result<Progress, StoreError> {
    let Some(events) = group.events().cloned() else {
        return Ok(Progress::Done);
    };
    let store = group.store().clone();
    let Some(pending) = erase::pending(&*store)? else {
        return Ok(Progress::Done);
    };
    let mut rewritten = 0;
    let mut looked_upto = events.range().0;
    for segment in events.sealed_segments() {
        if segment.first_offset >= pending.upto {
            break;
        }
        // A gap is a segment that was lost, or cut just now: another round begins behind it.
        if segment.first_offset > looked_upto {
            return Ok(Progress::Again);
        }
        looked_upto = segment.next_offset;
        let (log, store) = (events.clone(), store.clone());
        let written = blocking(move || rewrite(&*log, &*store, segment.first_offset)).await;
        let written = written.map_err(|error| StoreError::io("rewrite event segment", error))?;
        if written? {
            rewritten += 1;
        }
        tokio::time::sleep(Duration::from_millis(segment.bytes * 1_000 / ERASE_BYTES_PER_S)).await;
    }
    if rewritten > 0 {
        tracing::info!(replica = %group.id(), segments = rewritten, "events of erased devices are gone from segments");
    }
    if looked_upto < pending.upto {
        return Ok(Progress::Unsealed);
    }
    erase::settle(&*store, pending)?;
    Ok(Progress::Done)
}

fn rewrite(events: &dyn EventLog, store: &dyn ShardStore, first_offset: u64) -> Result<bool, StoreError> {
    events.rewrite_segment(first_offset, &mut |run| erase::rewritten(store, run))
}
