//! How much may wait under an upload: blocks that are there, and those on their way.
//!
//! A block has its place, and its bytes, before any of it comes, so that those that come side by side count for each
//! other. What went through other gateways is known when the store is looked at; it is bounded there. Who looks is
//! [`super::blocks`].

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::limits::{UPLOAD_BLOCKS_MAX, UPLOADS_STAGED_KNOWN_MAX};

/// Some blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sum {
    pub(super) count: usize,
    pub(super) bytes: u64,
}

impl Sum {
    fn and(self, other: Self) -> Self {
        Self {
            count: self.count.saturating_add(other.count),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }

    fn without(self, other: Self) -> Self {
        Self {
            count: self.count.saturating_sub(other.count),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    fn of_one(bytes: u64) -> Self {
        Self { count: 1, bytes }
    }

    fn leaves_room(self, bytes_max: u64) -> bool {
        self.count < UPLOAD_BLOCKS_MAX && self.bytes < bytes_max
    }
}

/// Why there is no place for one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// Nobody has looked how much there is.
    Unknown,
    /// There is none once those are there that are on their way. Some of them may not come.
    Coming,
    TooMany,
    TooLarge,
}

#[derive(Debug, Default)]
struct Waiting {
    /// What is there, if somebody has looked.
    known: Option<Sum>,
    /// What is on its way.
    coming: Sum,
    /// What came since this is remembered.
    came: Sum,
}

/// What waits under uploads, as far as it went through here.
#[derive(Debug, Default)]
pub(super) struct Room(Mutex<HashMap<String, Waiting>>);

impl Room {
    fn lock(&self) -> MutexGuard<'_, HashMap<String, Waiting>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes the place of a block of `bytes` under the upload `id`.
    pub(super) fn try_reserve(&self, id: &str, bytes: u64, bytes_max: u64) -> Result<Reserved<'_>, NoRoom> {
        let mut uploads = self.lock();
        let waiting = uploads.get_mut(id).ok_or(NoRoom::Unknown)?;
        let known = waiting.known.ok_or(NoRoom::Unknown)?;
        if !known.leaves_room(bytes_max) {
            return Err(match known.bytes >= bytes_max {
                true => NoRoom::TooLarge,
                false => NoRoom::TooMany,
            });
        }
        if !known.and(waiting.coming).leaves_room(bytes_max) {
            return Err(NoRoom::Coming);
        }
        waiting.coming = waiting.coming.and(Sum::of_one(bytes));
        Ok(Reserved {
            room: self,
            id: id.to_owned(),
            bytes,
        })
    }

    /// What came under an upload up to now; for [`set_found`](Self::set_found).
    pub(super) fn came(&self, id: &str) -> Sum {
        self.lock()
            .get(id)
            .map(|waiting| waiting.came)
            .unwrap_or_default()
    }

    /// Somebody has looked, who began when `before` had come. What came meanwhile may be among it and counts twice until
    /// somebody looks again. When full, all are forgotten but those with blocks on their way, and looked up again.
    pub(super) fn set_found(&self, id: &str, before: Sum, found: Sum) {
        let mut uploads = self.lock();
        if uploads.len() >= UPLOADS_STAGED_KNOWN_MAX && !uploads.contains_key(id) {
            uploads.retain(|_, waiting| waiting.coming.count > 0);
        }
        let waiting = uploads.entry(id.to_owned()).or_default();
        waiting.known = Some(found.and(waiting.came.without(before)));
    }

    /// What is there has changed otherwise.
    pub(super) fn forget(&self, id: &str) {
        let mut uploads = self.lock();
        if let Some(waiting) = uploads.get_mut(id) {
            waiting.known = None;
            if waiting.coming.count == 0 {
                uploads.remove(id);
            }
        }
    }
}

/// The place of one block on its way. Dropping it gives it back.
#[derive(Debug)]
pub(crate) struct Reserved<'a> {
    room: &'a Room,
    id: String,
    bytes: u64,
}

impl Reserved<'_> {
    /// The block is there, with so many bytes.
    pub(crate) fn fill(self, bytes: u64) {
        if let Some(waiting) = self.room.lock().get_mut(&self.id) {
            let one = Sum::of_one(bytes);
            waiting.came = waiting.came.and(one);
            waiting.known = waiting.known.map(|known| known.and(one));
        }
    }
}

impl Drop for Reserved<'_> {
    fn drop(&mut self) {
        if let Some(waiting) = self.room.lock().get_mut(&self.id) {
            waiting.coming = waiting.coming.without(Sum::of_one(self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(room: &Room) -> Option<NoRoom> {
        room.try_reserve("a", 40, 100).err()
    }

    #[test]
    fn blocks_that_come_side_by_side_count_for_each_other() {
        let room = Room::default();
        assert_eq!(refused(&room), Some(NoRoom::Unknown));
        room.set_found("a", room.came("a"), Sum::default());
        let mut coming: Vec<Reserved<'_>> = (0..3)
            .map(|_| room.try_reserve("a", 40, 100).expect("there is room"))
            .collect();
        assert_eq!(refused(&room), Some(NoRoom::Coming));
        coming.pop();
        assert_eq!(refused(&room), None, "one did not come");
        for reserved in coming {
            reserved.fill(30);
        }
        assert_eq!(refused(&room), None, "they are smaller than they were said to be");
        room.set_found("a", room.came("a"), Sum { count: 3, bytes: 100 });
        assert_eq!(refused(&room), Some(NoRoom::TooLarge));
        let many = Sum {
            count: UPLOAD_BLOCKS_MAX,
            bytes: 0,
        };
        room.set_found("a", room.came("a"), many);
        assert_eq!(refused(&room), Some(NoRoom::TooMany));
        room.forget("a");
        assert_eq!(refused(&room), Some(NoRoom::Unknown));
        assert!(room.lock().is_empty());
    }

    #[test]
    fn what_comes_while_somebody_looks_counts() {
        let room = Room::default();
        room.set_found("a", Sum::default(), Sum::default());
        let before = room.came("a");
        room.try_reserve("a", 40, 100).expect("there is room").fill(100);
        room.set_found("a", before, Sum::default());
        assert_eq!(refused(&room), Some(NoRoom::TooLarge));
    }

    #[test]
    fn so_many_uploads_are_known_and_none_is_forgotten_under_way() {
        let room = Room::default();
        room.set_found("a", Sum::default(), Sum::default());
        let held = room.try_reserve("a", 100, 100).expect("there is room");
        for n in 0..2 * UPLOADS_STAGED_KNOWN_MAX {
            room.set_found(&format!("u{n}"), Sum::default(), Sum::default());
        }
        assert!(room.lock().len() <= UPLOADS_STAGED_KNOWN_MAX);
        assert_eq!(refused(&room), Some(NoRoom::Coming));
        drop(held);
        assert_eq!(refused(&room), None);
    }
}
