//! What services are owed: records that wait to be fetched, given out in batches under a lock.
//!
//! A shard has one such list for each kind of record: how messages to its devices ended, and which files its devices
//! have uploaded. Pure: the stamp of the entry is the time. Records lie beside the list, by number; a batch is a run of
//! them. A batch that is not settled in time is given again, up to a bound.

use serde::{Deserialize, Serialize};

/// Batches of one list that are given out and not settled.
pub const BATCHES_MAX: usize = 64;
/// Times that a batch is given out before it is dropped (IoT Hub: 10).
pub const BATCH_DELIVERY_COUNT_MAX: u32 = 10;
/// Records that one list keeps; the oldest go when there are more.
pub const RECORDS_MAX: u64 = 8 * 1024;
/// How long a record is kept for somebody to ask for it (IoT Hub: an hour).
pub const RECORD_TTL_MS: u64 = 3600 * 1000;
/// How long a batch belongs to whoever took it (IoT Hub: a minute).
pub const BATCH_LOCK_MS: u64 = 60 * 1000;

/// Records that are given out together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct OwedBatch {
    /// Number of its first record.
    pub from: u64,
    /// The number after its last record.
    pub to: u64,
    /// Settles it; drawn for each time that it is given out.
    pub token: u64,
    /// Until when it belongs to whoever took it.
    until_ms: u64,
    delivery_count: u32,
    /// Stamp of its first record.
    oldest_ms: u64,
}

/// What a batch is given out under.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OwedLock {
    /// Settles it; drawn for each time that it is given out.
    pub token: u64,
    /// How long it belongs to whoever took it.
    pub lock_ms: u64,
}

/// The list of one kind of record in one shard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct OwedList {
    /// The number that the next record gets.
    next: u64,
    /// The first record that is in no batch.
    free_from: u64,
    batches: Vec<OwedBatch>,
    /// Runs of records that are of no use any more, since the last [`poll_dropped`](Self::poll_dropped).
    #[serde(skip)]
    dropped: Vec<(u64, u64)>,
}

impl OwedList {
    /// From which time on somebody can take a record: 0 if now, `None` if nothing is owed. A time and not a count, since
    /// whoever reads this knows what time it is; in a shard where nothing else happens the last stamp is long past.
    pub fn due_ms(&self) -> Option<u64> {
        match self.free_from < self.next && self.batches.len() < BATCHES_MAX {
            true => Some(0),
            false => self.batches.iter().map(|batch| batch.until_ms).min(),
        }
    }

    /// The next run of records, `from <= number < to`, that can be deleted. Call until `None`, after everything else.
    pub fn poll_dropped(&mut self) -> Option<(u64, u64)> {
        self.dropped.pop()
    }

    /// Takes a record in. Returns its number.
    pub fn push(&mut self) -> u64 {
        let number = self.next;
        self.next += 1;
        if self.next - self.free_from > RECORDS_MAX {
            self.dropped.push((self.free_from, self.free_from + 1));
            self.free_from += 1;
        }
        number
    }

    /// Gives a batch out under `lock`: one whose time is over, otherwise a new one of `records_max` records at the most,
    /// whose first has the stamp `oldest_ms`. `None` if there is nothing.
    pub fn take(&mut self, lock: OwedLock, records_max: u64, ms: u64, oldest_ms: u64) -> Option<OwedBatch> {
        let OwedLock { token, lock_ms } = lock;
        let until_ms = ms.saturating_add(lock_ms);
        if let Some(batch) = self.batches.iter_mut().find(|batch| batch.until_ms <= ms) {
            batch.delivery_count += 1;
            (batch.token, batch.until_ms) = (token, until_ms);
            return Some(*batch);
        }
        if self.free_from == self.next || self.batches.len() >= BATCHES_MAX {
            return None;
        }
        let (from, to) = (self.free_from, self.next.min(self.free_from + records_max));
        let batch = OwedBatch {
            from,
            to,
            token,
            until_ms,
            delivery_count: 1,
            oldest_ms,
        };
        self.free_from = to;
        self.batches.push(batch);
        Some(batch)
    }

    /// Forgets what is too old, and what was given out too often. Of records that are in no batch,
    /// [`first_free`](Self::first_free) is judged by its stamp: call again while one was forgotten.
    pub fn expire(&mut self, ms: u64, first_free_ms: Option<u64>) -> bool {
        let dropped = &mut self.dropped;
        self.batches.retain(|batch| {
            let is_worn = batch.delivery_count >= BATCH_DELIVERY_COUNT_MAX;
            let is_over = batch.until_ms <= ms && (is_worn || batch.oldest_ms + RECORD_TTL_MS <= ms);
            if is_over {
                dropped.push((batch.from, batch.to));
            }
            !is_over
        });
        let is_old = first_free_ms.is_some_and(|first| first + RECORD_TTL_MS <= ms);
        if is_old && self.free_from < self.next {
            self.dropped.push((self.free_from, self.free_from + 1));
            self.free_from += 1;
        }
        is_old
    }

    /// The first record that is in no batch, if there is one.
    pub fn first_free(&self) -> Option<u64> {
        (self.free_from < self.next).then_some(self.free_from)
    }

    /// Settles a batch in the name of whoever has its token: it is done with, or is to be given again. Returns whether
    /// that was theirs to say.
    pub fn settle(&mut self, token: u64, completes: bool, ms: u64) -> bool {
        let is_meant = |batch: &OwedBatch| batch.token == token && batch.until_ms > ms;
        let Some(place) = self.batches.iter().position(is_meant) else {
            return false;
        };
        if completes {
            let batch = self.batches.remove(place);
            self.dropped.push((batch.from, batch.to));
        } else {
            // At once, by whatever clock: stamps run ahead of the time a little.
            self.batches[place].until_ms = 0;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records in one batch here.
    const BATCH: u64 = 64;

    fn lock(token: u64, lock_ms: u64) -> OwedLock {
        OwedLock { token, lock_ms }
    }

    fn with(count: u64) -> OwedList {
        let mut list = OwedList::default();
        (0..count).for_each(|n| assert_eq!(list.push(), n));
        list
    }

    fn dropped(list: &mut OwedList) -> Vec<(u64, u64)> {
        std::iter::from_fn(|| list.poll_dropped()).collect()
    }

    #[test]
    fn a_batch_belongs_to_one_until_its_time_is_over() {
        let mut list = with(BATCH + 6);
        let first = list.take(lock(1, 100), BATCH, 1_000, 900).expect("a batch");
        assert_eq!((first.from, first.to), (0, BATCH));
        let second = list.take(lock(2, 100), BATCH, 1_010, 900).expect("the rest");
        assert_eq!((second.from, second.to), (BATCH, BATCH + 6));
        assert_eq!(list.take(lock(3, 100), BATCH, 1_020, 900), None);
        assert_eq!(list.due_ms(), Some(1_100), "when the first is over");
        assert!(list.settle(2, true, 1_030) && !list.settle(2, true, 1_030));
        assert_eq!(dropped(&mut list), [(second.from, second.to)]);
        assert!(!list.settle(1, true, 1_100), "its time is over");
        let again = list
            .take(lock(4, 100), BATCH, 1_100, 900)
            .expect("the first once more");
        assert_eq!((again.from, again.to), (first.from, first.to));
        assert!(!list.settle(1, true, 1_101), "an old token settles nothing");
        assert!(list.settle(4, false, 1_101));
        assert_eq!(list.due_ms(), Some(0));
        assert!(list.take(lock(5, 100), BATCH, 1_101, 900).is_some(), "given back");
    }

    #[test]
    fn what_nobody_asks_for_goes_in_its_time() {
        let mut list = with(3);
        assert!(!list.expire(RECORD_TTL_MS + 9, Some(10)));
        assert!(list.expire(RECORD_TTL_MS + 10, Some(10)));
        assert_eq!((dropped(&mut list), list.first_free()), (vec![(0, 1)], Some(1)));
        for time in 0..u64::from(BATCH_DELIVERY_COUNT_MAX) {
            assert!(list.take(lock(time, 1), BATCH, 2 * time, 0).is_some());
            list.expire(2 * time + 1, None);
        }
        assert_eq!(dropped(&mut list), [(1, 3)], "given out too often");
    }

    #[test]
    fn a_batch_has_no_more_records_than_it_may() {
        let mut list = with(3);
        for n in 0..3 {
            let one = list.take(lock(n, 100), 1, 1_000, 900).expect("one");
            assert_eq!((one.from, one.to), (n, n + 1));
        }
        assert_eq!(list.take(lock(9, 100), 1, 1_000, 900), None);
        assert!(list.settle(1, true, 1_001));
        assert_eq!(dropped(&mut list), [(1, 2)]);
    }

    #[test]
    fn the_oldest_makes_room() {
        let mut list = with(RECORDS_MAX + 2);
        assert_eq!(dropped(&mut list).len(), 2);
        assert_eq!((list.due_ms(), list.first_free()), (Some(0), Some(2)));
    }
}
