//! Event segments that are damaged here and sound elsewhere: fetched from a peer, checked, put in place.
//!
//! Sealed segments are the same bytes on every replica, so one that does not match its checksum needs no
//! change of members: any other replica has it. Each is looked for by its first offset and installed only
//! if it is what the peer said and fits between its neighbours. Now and then a sound one is read through,
//! so that damage is found before a reader finds it (I19). A segment that no peer can give back is the end
//! of the replica: it is made anew under another id.

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use dunlin_model::alarm::Alarm;
use dunlin_model::id::{GroupId, NodeId};
use dunlin_model::limits::READ_BYTES_MAX;
use dunlin_model::point::Point;
use dunlin_model::port::{EventLog, SealedSegment, StoreError};
use dunlin_model::shard::erase;

use crate::blocking::blocking;
use crate::group::Group;
use crate::messages::{Request, Response};
use crate::node::Shared;
use crate::transport::Lane;

/// Between two looks for damaged segments.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Bytes of sealed segments that are read through in a second, all replicas of the node together.
const SCRUB_BYTES_PER_S: u64 = 4 << 20;
/// Pause between two rounds through all segments, and the longest that a round waits for its first.
const SCRUB_REST: Duration = Duration::from_secs(10);
/// How long a peer may take for one answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// A segment that is longer is not asked for.
const SEGMENT_BYTES_MAX: u64 = 256 << 20;

/// Mends damaged segments, one at a time.
pub(crate) async fn mend(shared: Arc<Shared>) {
    let mut clock = tokio::time::interval(LOOK_EVERY);
    clock.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        clock.tick().await;
        for group in shared.groups() {
            let Some(events) = group.events() else { continue };
            for first_offset in events.damaged_segments() {
                match mend_one(&shared, &group, events, first_offset).await {
                    Mended::From(peer) => {
                        Point::SegmentMended.reach();
                        Alarm::SegmentMended.raise();
                        tracing::info!(replica = %group.id(), segment = first_offset, %peer, "mended an event segment");
                    }
                    Mended::NotYet => {}
                    Mended::Nowhere => {
                        let reason = format!("no other replica has event segment {first_offset}");
                        shared.give_up(&group, reason).await;
                        break;
                    }
                }
            }
        }
    }
}

enum Mended {
    From(NodeId),
    /// A peer did not answer, or what it gave did not fit.
    NotYet,
    /// Every other replica answered, and none has it.
    Nowhere,
}

async fn mend_one(
    shared: &Arc<Shared>,
    group: &Arc<Group>,
    events: &Arc<dyn EventLog>,
    first_offset: u64,
) -> Mended {
    let id = group.id();
    let directory = shared.view.get();
    let Some(entry) = directory.groups.get(&id.group) else {
        return Mended::NotYet;
    };
    let peers: Vec<NodeId> = entry
        .replicas
        .values()
        .map(|replica| replica.node)
        .filter(|node| *node != shared.node)
        .collect();
    let mut all_answered = !peers.is_empty();
    for peer in peers {
        let Some(segments) = ask_segments(shared, peer, id.group).await else {
            all_answered = false;
            continue;
        };
        let Some(wanted) = segments
            .iter()
            .find(|segment| segment.first_offset == first_offset)
        else {
            continue;
        };
        let fetched = match fetch(shared, peer, id.group, wanted).await {
            Some(whole) => match note_foreign(group).await {
                Ok(()) => install(events, whole, *wanted).await,
                Err(error) => Err(error.to_string()),
            },
            None => Err("it did not come".to_owned()),
        };
        match fetched {
            Ok(()) => return Mended::From(peer),
            Err(reason) => {
                all_answered = false;
                tracing::warn!(replica = %id, segment = first_offset, %peer, reason, "cannot mend an event segment");
            }
        }
    }
    if all_answered {
        Mended::Nowhere
    } else {
        Mended::NotYet
    }
}

/// Notes durably that a segment is about to come from a peer: it may not have been rewritten there.
async fn note_foreign(group: &Group) -> Result<(), StoreError> {
    let store = group.store().clone();
    let noted = blocking(move || match erase::begin_anew(&*store)? {
        true => store.checkpoint(),
        false => Ok(()),
    });
    noted
        .await
        .map_err(|error| StoreError::io("sync stores", error))?
}

async fn ask_segments(shared: &Shared, peer: NodeId, group: GroupId) -> Option<Vec<SealedSegment>> {
    let asked = Request::Segments(group);
    match shared.peers.call(peer, Lane::Bulk, asked, ANSWER_TIMEOUT).await {
        Ok((Response::Segments(segments), _)) => Some(segments),
        _ => None,
    }
}

async fn fetch(shared: &Shared, peer: NodeId, group: GroupId, wanted: &SealedSegment) -> Option<Bytes> {
    if wanted.bytes > SEGMENT_BYTES_MAX {
        return None;
    }
    let mut whole = BytesMut::with_capacity(wanted.bytes as usize);
    while (whole.len() as u64) < wanted.bytes {
        let asked = Request::SegmentPart {
            group,
            first_offset: wanted.first_offset,
            position: whole.len() as u64,
        };
        match shared.peers.call(peer, Lane::Bulk, asked, ANSWER_TIMEOUT).await {
            Ok((Response::SegmentPart, part)) if !part.is_empty() => whole.extend_from_slice(&part),
            _ => return None,
        }
    }
    Some(whole.freeze())
}

async fn install(events: &Arc<dyn EventLog>, whole: Bytes, expected: SealedSegment) -> Result<(), String> {
    let events = events.clone();
    let installed = blocking(move || events.install_segment(&whole, &expected)).await;
    match installed {
        Ok(result) => result.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    }
}

/// What a peer that mends its own segments is told of this node's.
pub(crate) fn segments(shared: &Shared, group: GroupId) -> Response {
    match shared.group(group).as_ref().and_then(|group| group.events()) {
        Some(events) => Response::Segments(events.sealed_segments()),
        None => Response::NotHere { hint: None },
    }
}

/// A part of a sealed segment, from `position` on.
pub(crate) async fn part(
    shared: &Shared,
    group: GroupId,
    first_offset: u64,
    position: u64,
) -> (Response, Bytes) {
    let not_here = (Response::NotHere { hint: None }, Bytes::new());
    let Some(events) = shared.group(group).and_then(|group| group.events().cloned()) else {
        return not_here;
    };
    let read = move || events.read_segment(first_offset, position, READ_BYTES_MAX);
    match blocking(read).await {
        Ok(Ok(part)) => (Response::SegmentPart, part),
        _ => not_here,
    }
}

/// Reads one sealed segment after the other through, for ever and slowly.
pub(crate) async fn scrub(shared: Arc<Shared>) {
    loop {
        tokio::time::sleep(SCRUB_REST).await;
        for group in shared.groups() {
            let Some(events) = group.events().cloned() else {
                continue;
            };
            for segment in events.sealed_segments() {
                let (read, first_offset) = (events.clone(), segment.first_offset);
                let verify = move || read.verify_segment(first_offset);
                // Damage is said and remembered where it is found; mending is another loop's part.
                if let Ok(Err(error @ StoreError::Io { .. })) = blocking(verify).await {
                    tracing::debug!(replica = %group.id(), %error, "a segment is not there any more");
                }
                tokio::time::sleep(Duration::from_millis(segment.bytes * 1_000 / SCRUB_BYTES_PER_S)).await;
            }
        }
    }
}
