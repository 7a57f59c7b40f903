//! Events that leave together: when there are enough of them, or when the first has waited long enough.

use std::time::Duration;

use bytes::{BufMut as _, Bytes, BytesMut};
use dunlin_model::id::ShardId;
use tokio::time::Instant;

use crate::events::Event;
use crate::http::events::to_json;

/// What an endpoint likes to get at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Appetite {
    /// Bytes of a batch that is large enough.
    pub(super) bytes: usize,
    /// How long an event may wait for others.
    pub(super) wait: Duration,
}

/// Events of one shard, as lines of JSON.
#[derive(Debug)]
pub(super) struct Batch {
    shard: ShardId,
    appetite: Appetite,
    lines: BytesMut,
    count: u64,
    first: Option<(u64, u64)>,
    last_offset: u64,
    due: Option<Instant>,
}

/// A batch that leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Parcel {
    pub(super) shard: ShardId,
    /// Offset and time of its first event.
    pub(super) first_offset: u64,
    pub(super) first_ms: u64,
    pub(super) last_offset: u64,
    pub(super) count: u64,
    /// A line of JSON for each.
    pub(super) lines: Bytes,
}

impl Batch {
    pub(super) fn new(shard: ShardId, appetite: Appetite) -> Self {
        Self {
            shard,
            appetite,
            lines: BytesMut::new(),
            count: 0,
            first: None,
            last_offset: 0,
            due: None,
        }
    }

    /// Takes events in, which come in order.
    pub(super) fn handle_events(&mut self, events: &[Event], now: Instant) {
        for event in events {
            let place = event.place;
            self.first.get_or_insert((place.offset, place.time_ms));
            self.due.get_or_insert(now + self.appetite.wait);
            self.last_offset = place.offset;
            self.count += 1;
            self.lines
                .put_slice(to_json(self.shard, event).to_string().as_bytes());
            self.lines.put_u8(b'\n');
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// How long it may still wait; `None` while it is empty.
    pub(super) fn wait(&self, now: Instant) -> Option<Duration> {
        self.due.map(|due| due.saturating_duration_since(now))
    }

    /// The parcel, if it is due.
    pub(super) fn poll_parcel(&mut self, now: Instant) -> Option<Parcel> {
        let (first_offset, first_ms) = self.first?;
        let is_due = self.due.is_some_and(|due| due <= now) || self.lines.len() >= self.appetite.bytes;
        if !is_due {
            return None;
        }
        let parcel = Parcel {
            shard: self.shard,
            first_offset,
            first_ms,
            last_offset: self.last_offset,
            count: self.count,
            lines: std::mem::take(&mut self.lines).freeze(),
        };
        *self = Self::new(self.shard, self.appetite);
        Some(parcel)
    }
}

impl Parcel {
    /// The events as one JSON array.
    pub(super) fn array(&self) -> Bytes {
        let lines = self.lines.strip_suffix(b"\n").unwrap_or(&self.lines);
        let mut array = BytesMut::with_capacity(lines.len() + 2);
        array.put_u8(b'[');
        // No line has a line break within it: JSON escapes them.
        array.extend(lines.iter().map(|byte| if *byte == b'\n' { b',' } else { *byte }));
        array.put_u8(b']');
        array.freeze()
    }
}

#[cfg(test)]
mod tests {
    use dunlin_model::telemetry::Source;
    use serde_json::Value;

    use super::*;
    use crate::events::{Place, sent};

    fn event(offset: u64, payload: &str) -> Event {
        let place = Place {
            offset,
            term: 1,
            time_ms: 1_000 + offset,
        };
        sent(place, Source::Mqtt, "d", b"", payload.as_bytes())
    }

    fn batch(wait_ms: u64) -> Batch {
        let appetite = Appetite {
            bytes: 2_000,
            wait: Duration::from_millis(wait_ms),
        };
        Batch::new(ShardId(3), appetite)
    }

    #[test]
    fn what_nobody_waits_for_leaves_at_once() {
        let (mut batch, now) = (batch(0), Instant::now());
        assert_eq!((batch.poll_parcel(now), batch.wait(now)), (None, None));
        batch.handle_events(&[event(5, "a\nb"), event(9, "{}")], now);
        let parcel = batch.poll_parcel(now).unwrap();
        assert_eq!(
            (
                parcel.first_offset,
                parcel.first_ms,
                parcel.last_offset,
                parcel.count
            ),
            (5, 1_005, 9, 2)
        );
        let array: Value = serde_json::from_slice(&parcel.array()).unwrap();
        assert_eq!(array.as_array().unwrap().len(), 2);
        assert_eq!(array[0]["bodyText"], "a\nb");
        assert_eq!(array[1]["shard"], 3);
        assert!(batch.is_empty());
    }

    #[test]
    fn the_first_event_says_how_long_the_others_may_wait() {
        let (mut batch, now) = (batch(100), Instant::now());
        batch.handle_events(&[event(1, "x")], now);
        let later = now + Duration::from_millis(60);
        batch.handle_events(&[event(2, "x")], later);
        assert_eq!(batch.wait(later), Some(Duration::from_millis(40)));
        assert_eq!(batch.poll_parcel(later), None);
        let parcel = batch.poll_parcel(now + Duration::from_millis(100)).unwrap();
        assert_eq!(parcel.count, 2);
    }

    #[test]
    fn enough_is_enough() {
        let (mut batch, now) = (batch(100_000), Instant::now());
        let large = "x".repeat(1_000);
        batch.handle_events(&[event(1, &large)], now);
        assert!(
            batch.poll_parcel(now).is_some(),
            "body and its text are more than 2000 bytes"
        );
    }
}
