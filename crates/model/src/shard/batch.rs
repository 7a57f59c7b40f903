//! When gathered parts become a log entry.
//!
//! There is no timer: while fewer than [`ENTRIES_IN_FLIGHT_MAX`] entries are under way whatever has
//! gathered leaves at once, and what comes meanwhile gathers into the next. So a quiet shard answers
//! at the speed of its disk, and a busy one fills its entries.

use std::collections::VecDeque;

use super::{Batch, Part};
use crate::limits::{BATCH_BYTES_TARGET, ENTRIES_IN_FLIGHT_MAX, TIME_JUMP_MS_MAX};

/// Gathers parts and stamps entries for one leadership of one shard.
#[derive(Debug)]
pub struct Batcher {
    waiting: VecDeque<Part>,
    waiting_bytes: usize,
    in_flight: usize,
    last_time_ms: u64,
}

impl Batcher {
    /// A batcher for a leader whose last applied entry is stamped `time_ms`.
    pub fn new(time_ms: u64) -> Self {
        Self {
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            in_flight: 0,
            last_time_ms: time_ms,
        }
    }

    /// Takes `part` in.
    pub fn handle_part(&mut self, part: Part) {
        self.waiting_bytes += weight_bytes(&part);
        self.waiting.push_back(part);
    }

    /// An entry that [`poll_batch`](Self::poll_batch) gave out has come to its end, good or bad.
    pub fn handle_settled(&mut self) {
        assert!(self.in_flight > 0, "an entry settles once");
        self.in_flight -= 1;
    }

    /// Bytes that wait.
    pub fn waiting_bytes(&self) -> usize {
        self.waiting_bytes
    }

    /// The next entry, if one may leave. Call until `None`.
    ///
    /// The stamp is `now_ms`, but above every earlier one, and no more than
    /// [`TIME_JUMP_MS_MAX`] ahead of the last: a clock that runs wild moves the log by a day per entry at most.
    pub fn poll_batch(&mut self, now_ms: u64) -> Option<Batch> {
        if self.waiting.is_empty() || self.in_flight >= ENTRIES_IN_FLIGHT_MAX {
            return None;
        }
        let mut parts = Vec::new();
        let mut bytes = 0;
        while let Some(part) = self.waiting.front() {
            let weight = weight_bytes(part);
            if !parts.is_empty() && bytes + weight > BATCH_BYTES_TARGET {
                break;
            }
            bytes += weight;
            parts.extend(self.waiting.pop_front());
        }
        self.waiting_bytes -= bytes;
        self.in_flight += 1;
        let latest = match self.last_time_ms {
            0 => u64::MAX,
            last => last + TIME_JUMP_MS_MAX,
        };
        self.last_time_ms = now_ms.clamp(self.last_time_ms + 1, latest);
        Some(Batch {
            time_ms: self.last_time_ms,
            parts,
        })
    }
}

fn weight_bytes(part: &Part) -> usize {
    match part {
        Part::Frame(frame) => frame.weight_bytes(),
        Part::Internal(command) => command.weight_bytes(),
        _ => 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_shard_proposes_at_once_and_a_busy_one_gathers() {
        let mut batcher = Batcher::new(0);
        for i in 0..ENTRIES_IN_FLIGHT_MAX as u64 {
            batcher.handle_part(Part::Trim(i));
            assert_eq!(batcher.poll_batch(10).unwrap().parts, [Part::Trim(i)]);
        }
        batcher.handle_part(Part::Trim(100));
        batcher.handle_part(Part::Trim(101));
        assert_eq!(batcher.poll_batch(10), None);
        batcher.handle_settled();
        assert_eq!(
            batcher.poll_batch(10).unwrap().parts,
            [Part::Trim(100), Part::Trim(101)]
        );
        assert_eq!(batcher.waiting_bytes(), 0);
    }

    #[test]
    fn stamps_rise_whatever_the_clock_does() {
        let mut batcher = Batcher::new(1_000);
        let mut stamps = Vec::new();
        for now in [5_000, 4_000, 0, u64::MAX] {
            batcher.handle_part(Part::Seal);
            stamps.push(batcher.poll_batch(now).unwrap().time_ms);
            batcher.handle_settled();
        }
        assert_eq!(stamps, [5_000, 5_001, 5_002, 5_002 + TIME_JUMP_MS_MAX]);
    }
}
