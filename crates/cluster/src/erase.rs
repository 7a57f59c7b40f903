//! Erased devices: their records go from the event segments of this node's replicas.
//!
//! Readers have not been shown them since the entry that erased them (`model::shard::erase` hides them); here the bytes go. One
//! sealed segment after the other is written again; what is not sealed yet, whoever leads has sealed after a while, so that
//! erasures that come together cut the log once. A replica that is done notes that, and is looked at again only for the next
//! erasure, or when a peer's segment comes. Which segments were looked at is known by what is in them: one that a peer or a
//! snapshot has put in place meanwhile is another.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use dunlin_model::id::GroupReplica;
use dunlin_model::port::{EventLog, SealedSegment, ShardStore, StoreError};
use dunlin_model::shard::erase::{self, Pending};
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
    let mut under_way: BTreeMap<GroupReplica, Erasing> = BTreeMap::new();
    loop {
        clock.tick().await;
        let groups = shared.groups();
        under_way.retain(|id, _| groups.iter().any(|group| group.id() == *id));
        for group in groups {
            let erasing = under_way.entry(group.id()).or_default();
            match erasing.go_on(&group).await {
                Ok(true) => {}
                Ok(false) => {
                    under_way.remove(&group.id());
                }
                // Damage is remembered where it was found, and mended; the rest may go well the next time.
                Err(error) => tracing::debug!(replica = %group.id(), %error, "erasure waits"),
            }
        }
    }
}

/// How far one replica is.
#[derive(Debug, Default)]
struct Erasing {
    /// The erasures that it is about.
    index: u64,
    /// Sealed segments that have nothing of them any more: what is in them, by first offset.
    looked_at: BTreeMap<u64, SealedSegment>,
    /// Since when only what is not sealed is left.
    unsealed: Option<Instant>,
    /// Whether it was said that a segment is missing.
    has_warned: bool,
}

impl Erasing {
    /// Does what can be done now. False if nothing is left to do.
    async fn go_on(&mut self, group: &Group) -> Result<bool, StoreError> {
        let Some(events) = group.events().cloned() else {
            return Ok(false);
        };
        let store = group.store().clone();
        let Some(pending) = erase::pending(&*store)? else {
            return Ok(false);
        };
        if self.index != pending.index {
            *self = Self {
                index: pending.index,
                ..Self::default()
            };
        }
        let mut rewritten = 0;
        for segment in events.sealed_segments() {
            if segment.first_offset >= pending.upto {
                break;
            }
            if self.looked_at.get(&segment.first_offset) == Some(&segment) {
                continue;
            }
            // Others count on segments as they are, or on the room that writing takes.
            let Some(held) = group.room().is_there().then(|| group.begin_rewrite()).flatten() else {
                return Ok(true);
            };
            let (log, rows) = (events.clone(), store.clone());
            let written = blocking(move || rewrite(&*log, &*rows, segment.first_offset)).await;
            drop(held);
            let written = written.map_err(|error| StoreError::io("rewrite event segment", error))??;
            rewritten += usize::from(written);
            let now = events.sealed_segments();
            if let Some(now) = now.iter().find(|now| now.first_offset == segment.first_offset) {
                self.looked_at.insert(now.first_offset, *now);
            }
            tokio::time::sleep(Duration::from_millis(segment.bytes * 1_000 / ERASE_BYTES_PER_S)).await;
        }
        if rewritten > 0 {
            tracing::info!(replica = %group.id(), segments = rewritten, "events of erased devices are gone from segments");
        }
        self.settle(group, &*events, &*store, pending)
    }

    /// Notes that this replica is done, if it is.
    fn settle(
        &mut self,
        group: &Group,
        events: &dyn EventLog,
        store: &dyn ShardStore,
        pending: Pending,
    ) -> Result<bool, StoreError> {
        let mut upto = events.range().0;
        for segment in events.sealed_segments() {
            if segment.first_offset >= pending.upto {
                break;
            }
            if segment.first_offset > upto {
                if !std::mem::replace(&mut self.has_warned, true) {
                    tracing::warn!(replica = %group.id(), offset = upto, "an erasure waits for a segment that is missing or damaged");
                }
                return Ok(true);
            }
            if self.looked_at.get(&segment.first_offset) != Some(&segment) {
                return Ok(true);
            }
            upto = segment.next_offset;
        }
        if upto < pending.upto {
            let since = *self.unsealed.get_or_insert_with(Instant::now);
            if since.elapsed() >= SEAL_AFTER && group.sight().leads {
                self.unsealed = None;
                group.seal();
            }
            return Ok(true);
        }
        erase::settle(store, pending)?;
        Ok(false)
    }
}

fn rewrite(events: &dyn EventLog, store: &dyn ShardStore, first_offset: u64) -> Result<bool, StoreError> {
    events.rewrite_segment(first_offset, &mut |run| erase::rewritten(store, run))
}
