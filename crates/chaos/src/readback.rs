//! Reads back everything that the hub has, shard by shard, as any reader would: pages over HTTPS.
//!
//! Decides nothing; a record becomes a [`Stored`] with what it claims.

use std::collections::HashMap;
use std::time::Duration;

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use tokio::time::Instant;

use crate::hub::{Hub, HubError, Page};
use crate::oracle::{self, Stored};
use crate::payload;

/// Shards that are read at a time.
const SHARDS_AT_A_TIME: usize = 4;
/// Time in which a shard must show the events that it says it has.
const SHARD_TIMEOUT: Duration = Duration::from_secs(120);
/// Pause after a page without events.
const PAUSE: Duration = Duration::from_millis(100);

/// Why not everything was read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// No answer.
    #[error(transparent)]
    Hub(#[from] HubError),
    /// The shard says that it has more than it shows.
    #[error("shard {shard} has {end} events and shows none from {next} on")]
    Incomplete {
        /// The shard.
        shard: u32,
        /// Events that it says it has.
        end: u64,
        /// Where reading stopped.
        next: u64,
    },
    /// Far more than was ever sent; reading it all would exhaust this machine.
    #[error("shard {0} has far more events than were sent")]
    TooMany(u32),
}

/// Every record of every shard, shards in order, each in the order in which it was read. `devices` are
/// the known ones, in the order of the history; at most `count_max` records are taken from a shard.
pub async fn read_all(hub: &Hub, devices: &[String], count_max: u64) -> Result<Vec<Stored>, ReadError> {
    read_from(hub, devices, &[], count_max).await
}

/// The same from an offset of each shard on, given as [`Hub::shard_ends`] gives it; a shard that is not
/// named is read from its beginning.
pub async fn read_from(
    hub: &Hub,
    devices: &[String],
    begins: &[(u32, u64)],
    count_max: u64,
) -> Result<Vec<Stored>, ReadError> {
    let devices: HashMap<&str, u32> = (0..)
        .zip(devices)
        .map(|(index, id)| (id.as_str(), index))
        .collect();
    let ends = hub.shard_ends().await?;
    let begins: HashMap<u32, u64> = begins.iter().copied().collect();
    let reads = ends.into_iter().map(|(shard, end)| {
        let begin = begins.get(&shard).copied().unwrap_or_default();
        read_shard(hub, &devices, (shard, begin, end), count_max)
    });
    let shards: Vec<Vec<Stored>> = stream::iter(reads)
        .buffered(SHARDS_AT_A_TIME)
        .try_collect()
        .await?;
    Ok(shards.concat())
}

async fn read_shard(
    hub: &Hub,
    devices: &HashMap<&str, u32>,
    (shard, begin, wanted_end): (u32, u64, u64),
    count_max: u64,
) -> Result<Vec<Stored>, ReadError> {
    let deadline = Instant::now() + SHARD_TIMEOUT;
    let (mut found, mut next) = (Vec::new(), begin);
    loop {
        let page = hub.events(shard, next).await?;
        let end = page.end.max(wanted_end);
        if end.saturating_sub(begin) > count_max {
            return Err(ReadError::TooMany(shard));
        }
        let is_empty = page.events.is_empty();
        take(&mut found, devices, shard, &page);
        next = page.next.max(next);
        if next >= end {
            return Ok(found);
        }
        if Instant::now() >= deadline {
            return Err(ReadError::Incomplete { shard, end, next });
        }
        if is_empty {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

fn take(found: &mut Vec<Stored>, devices: &HashMap<&str, u32>, shard: u32, page: &Page) {
    for event in &page.events {
        let payload = payload::of_body(&event.body);
        found.push(Stored {
            shard,
            offset: event.offset,
            device: devices.get(event.device_id.as_str()).copied(),
            seq: payload::claimed_seq(&payload),
            digest: oracle::digest(&payload),
        });
    }
}
