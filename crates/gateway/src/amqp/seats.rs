//! Who reads which partition, where readers ask for it alone.
//!
//! Decides who gives way: a reader with an epoch sends away all others of its consumer group and partition whose epoch
//! is not higher, and keeps out those whose epoch is lower, or who have none. It knows the readers of this gateway
//! only. What a reader is told is said in [`partition`](super::partition).

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use dunlin_model::id::ShardId;
use tokio_util::sync::CancellationToken;

type Place = (String, ShardId);

/// The readers of a gateway. There are as many as links to partitions, which have their own bound.
#[derive(Debug, Default)]
pub(crate) struct Seats {
    taken: Mutex<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    next: u64,
    readers: BTreeMap<Place, Vec<Reader>>,
}

#[derive(Debug)]
struct Reader {
    number: u64,
    epoch: Option<i64>,
    gives_way: CancellationToken,
}

impl Seats {
    fn lock(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A reader comes; `None` if another one keeps it out.
    pub(crate) fn take(self: &Arc<Self>, group: &str, shard: ShardId, epoch: Option<i64>) -> Option<Seat> {
        let place = (group.to_ascii_lowercase(), shard);
        let mut taken = self.lock();
        let number = taken.next;
        taken.next += 1;
        let readers = taken.readers.entry(place.clone()).or_default();
        // None is below every epoch.
        if readers.iter().any(|reader| reader.epoch > epoch) {
            return None;
        }
        if epoch.is_some() {
            for reader in readers.drain(..) {
                reader.gives_way.cancel();
            }
        }
        let gives_way = CancellationToken::new();
        readers.push(Reader {
            number,
            epoch,
            gives_way: gives_way.clone(),
        });
        drop(taken);
        Some(Seat {
            all: Arc::clone(self),
            place,
            number,
            gives_way,
        })
    }
}

/// The place of one reader; dropped, it is free.
#[derive(Debug)]
pub(crate) struct Seat {
    all: Arc<Seats>,
    place: Place,
    number: u64,
    /// Cancelled when somebody else has the place.
    pub(crate) gives_way: CancellationToken,
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.all.lock();
        if let Some(readers) = taken.readers.get_mut(&self.place) {
            readers.retain(|reader| reader.number != self.number);
            if readers.is_empty() {
                taken.readers.remove(&self.place);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_higher_epoch_stays_and_an_equal_one_takes_over() {
        let seats = Arc::new(Seats::default());
        let take = |group: &str, shard, epoch| seats.take(group, ShardId(shard), epoch);
        let shared = [
            take("$Default", 0, None).unwrap(),
            take("$default", 0, None).unwrap(),
        ];
        let first = take("$Default", 0, Some(0)).unwrap();
        assert!(shared.iter().all(|seat| seat.gives_way.is_cancelled()));
        assert!(take("$Default", 0, None).is_none(), "none is below every epoch");
        let equal = take("$Default", 0, Some(0)).unwrap();
        assert!(first.gives_way.is_cancelled() && !equal.gives_way.is_cancelled());
        let higher = take("$Default", 0, Some(7)).unwrap();
        assert!(equal.gives_way.is_cancelled());
        assert!(take("$Default", 0, Some(6)).is_none());
        assert!(take("$Default", 1, Some(0)).is_some() && take("other", 0, None).is_some());
        // Those that gave way leave late, and free nobody's place but their own.
        drop((first, equal, shared));
        assert!(take("$Default", 0, Some(6)).is_none());
        drop(higher);
        assert!(take("$Default", 0, None).is_some());
        assert!(seats.lock().readers.is_empty());
    }
}
