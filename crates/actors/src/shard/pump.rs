//! What a leader proposes next, and what it does when the journal has no room.
//!
//! Pure. Gathering is the model's [`Batcher`]; this room numbers the batches and keeps a copy of
//! each until it has settled, so that one the journal refused can be offered again. A refused batch
//! had no effect, but later ones may have had: the parts of the refused ones go first at the next
//! try, and frames that had to wait for them were answered with a gap and come again by themselves.

use std::collections::BTreeMap;

use dunlin_model::shard::batch::Batcher;
use dunlin_model::shard::{Batch, Part};

/// The proposals of one leadership.
#[derive(Debug)]
pub(crate) struct Pump {
    batcher: Batcher,
    /// Stamp of the last batch that was given out.
    time_ms: u64,
    batch_next: u64,
    /// Parts of batches that are under way. As many as the batcher lets out at once.
    in_flight: BTreeMap<u64, Vec<Part>>,
    /// Parts of batches that the journal refused.
    refused: BTreeMap<u64, Vec<Part>>,
}

impl Pump {
    /// For a leader whose last applied entry is stamped `time_ms`.
    pub(crate) fn new(time_ms: u64) -> Self {
        Self {
            batcher: Batcher::new(time_ms),
            time_ms,
            batch_next: 1,
            in_flight: BTreeMap::new(),
            refused: BTreeMap::new(),
        }
    }

    /// Takes `part` in.
    pub(crate) fn handle_part(&mut self, part: Part) {
        self.batcher.handle_part(part);
    }

    /// Batch `number` is in the log and applied.
    pub(crate) fn handle_done(&mut self, number: u64) {
        if self.in_flight.remove(&number).is_some() {
            self.batcher.handle_settled();
        }
    }

    /// The journal had no room for batch `number`. Nothing leaves until [`handle_retry`](Self::handle_retry).
    pub(crate) fn handle_refused(&mut self, number: u64) {
        if let Some(parts) = self.in_flight.remove(&number) {
            self.batcher.handle_settled();
            self.refused.insert(number, parts);
        }
    }

    /// Whether refused batches wait for another try.
    pub(crate) fn is_refused(&self) -> bool {
        !self.refused.is_empty()
    }

    /// Whether another try may be made: everything that was under way has settled.
    pub(crate) fn may_retry(&self) -> bool {
        self.is_refused() && self.in_flight.is_empty()
    }

    /// Offers the refused parts again, before everything that came later. They get new stamps, since
    /// later batches may have passed them.
    pub(crate) fn handle_retry(&mut self, now_ms: u64) {
        if !self.may_retry() {
            return;
        }
        let mut later = std::mem::replace(&mut self.batcher, Batcher::new(self.time_ms));
        for part in std::mem::take(&mut self.refused).into_values().flatten() {
            self.batcher.handle_part(part);
        }
        while let Some(batch) = later.poll_batch(now_ms) {
            later.handle_settled();
            batch
                .parts
                .into_iter()
                .for_each(|part| self.batcher.handle_part(part));
        }
    }

    /// The next batch to propose, with its number. Call until `None`.
    pub(crate) fn poll_batch(&mut self, now_ms: u64) -> Option<(u64, Batch)> {
        if self.is_refused() {
            return None;
        }
        let batch = self.batcher.poll_batch(now_ms)?;
        let number = self.batch_next;
        self.batch_next += 1;
        self.time_ms = batch.time_ms;
        self.in_flight.insert(number, batch.parts.clone());
        Some((number, batch))
    }

    /// Whether nothing waits and nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.refused.is_empty() && self.batcher.waiting_bytes() == 0
    }
}

#[cfg(test)]
mod tests {
    use dunlin_model::limits::ENTRIES_IN_FLIGHT_MAX;

    use super::*;

    fn trims(batch: &Batch) -> Vec<u64> {
        let trim = |part: &Part| match part {
            Part::Trim(offset) => *offset,
            _ => unreachable!("only trims are used here"),
        };
        batch.parts.iter().map(trim).collect()
    }

    #[test]
    fn refused_parts_go_first_at_the_next_try_under_new_stamps() {
        let mut pump = Pump::new(5);
        let mut numbers = Vec::new();
        for i in 0..ENTRIES_IN_FLIGHT_MAX as u64 {
            pump.handle_part(Part::Trim(i));
            numbers.push(pump.poll_batch(100).unwrap().0);
        }
        pump.handle_part(Part::Trim(90));
        pump.handle_part(Part::Trim(91));
        pump.handle_refused(numbers[2]);
        pump.handle_done(numbers[3]);
        pump.handle_refused(numbers[0]);
        assert!(
            pump.poll_batch(100).is_none() && !pump.may_retry(),
            "one is still under way"
        );
        pump.handle_retry(100);
        assert!(pump.is_refused());
        pump.handle_done(numbers[1]);
        assert!(pump.may_retry());
        pump.handle_retry(100);
        let (number, batch) = pump.poll_batch(100).unwrap();
        assert_eq!(trims(&batch), [0, 2, 90, 91]);
        assert_eq!(batch.time_ms, 104, "four stamps were given out before");
        assert!(!pump.is_idle());
        pump.handle_done(number);
        pump.handle_done(number);
        assert!(pump.is_idle());
    }
}
