//! Where late packets wait: in the order of their times, and of their coming where times are equal.
//!
//! Bounded in packets and in bytes; what does not fit is handed back. It knows no clock: the time
//! comes in, what is due goes out.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// Packets that one link may delay.
pub const DELAYED_PACKETS_MAX: usize = 16 * 1024;
/// Bytes that one link may delay: more than a second of a link that is used to the full.
pub const DELAYED_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Something that has a size.
pub trait Weighed {
    /// Its bytes.
    fn len_bytes(&self) -> usize;
}

/// Items that wait for their time.
#[derive(Debug)]
pub struct DelayQueue<T> {
    waiting: BinaryHeap<Reverse<Waiting<T>>>,
    next_number: u64,
    bytes: usize,
}

#[derive(Debug)]
struct Waiting<T> {
    at: Duration,
    number: u64,
    item: T,
}

impl<T> PartialEq for Waiting<T> {
    fn eq(&self, other: &Self) -> bool {
        self.number == other.number
    }
}

impl<T> Eq for Waiting<T> {}

impl<T> Ord for Waiting<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl<T> PartialOrd for Waiting<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Default for DelayQueue<T> {
    fn default() -> Self {
        Self {
            waiting: BinaryHeap::new(),
            next_number: 0,
            bytes: 0,
        }
    }
}

impl<T: Weighed> DelayQueue<T> {
    /// Keeps `item` until `at`, or hands it back if the queue is full.
    pub fn try_push(&mut self, at: Duration, item: T) -> Result<(), T> {
        let len = item.len_bytes();
        if self.waiting.len() >= DELAYED_PACKETS_MAX || self.bytes + len > DELAYED_BYTES_MAX {
            return Err(item);
        }
        self.bytes += len;
        let number = self.next_number;
        self.next_number += 1;
        self.waiting.push(Reverse(Waiting { at, number, item }));
        Ok(())
    }

    /// When the first of them is due.
    pub fn next_at(&self) -> Option<Duration> {
        self.waiting.peek().map(|Reverse(first)| first.at)
    }

    /// The next one whose time has come.
    pub fn poll_due(&mut self, now: Duration) -> Option<T> {
        if self.next_at()? > now {
            return None;
        }
        let Reverse(first) = self.waiting.pop()?;
        self.bytes -= first.item.len_bytes();
        Some(first.item)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    impl Weighed for (char, usize) {
        fn len_bytes(&self) -> usize {
            self.1
        }
    }

    fn ms(time_ms: u64) -> Duration {
        Duration::from_millis(time_ms)
    }

    #[test]
    fn what_is_due_comes_in_the_order_of_times_then_of_coming() {
        let mut queue = DelayQueue::default();
        for (at, name) in [(5, 'c'), (3, 'a'), (5, 'd'), (3, 'b'), (9, 'e')] {
            queue.try_push(ms(at), (name, 1)).unwrap();
        }
        let mut due = |now| {
            std::iter::from_fn(|| queue.poll_due(ms(now)))
                .map(|item| item.0)
                .collect::<String>()
        };
        assert_eq!(due(2), "");
        assert_eq!(due(5), "abcd");
        assert_eq!(queue.next_at(), Some(ms(9)));
    }

    #[test]
    fn a_full_queue_hands_back_and_takes_again_when_something_left() {
        let mut queue = DelayQueue::default();
        queue.try_push(ms(1), ('a', DELAYED_BYTES_MAX - 1)).unwrap();
        assert_eq!(queue.try_push(ms(1), ('b', 2)), Err(('b', 2)));
        assert_eq!(queue.poll_due(ms(1)).map(|item| item.0), Some('a'));
        for _ in 0..DELAYED_PACKETS_MAX {
            queue.try_push(ms(1), ('c', 0)).unwrap();
        }
        assert!(queue.try_push(ms(1), ('d', 0)).is_err());
    }
}
