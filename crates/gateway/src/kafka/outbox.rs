//! What waits to be written to a peer.
//!
//! Decides nothing but the order. An answer to a fetch carries its share of the memory for fetches, which is given back
//! when the last of its bytes has left, or the connection ends.

use std::collections::VecDeque;

use bytes::{Buf, Bytes};
use tokio::sync::OwnedSemaphorePermit;

/// See the file. As a [`Buf`] it is what waits, in order.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    waiting: VecDeque<(Bytes, Option<OwnedSemaphorePermit>)>,
    bytes: usize,
}

impl Outbox {
    /// Puts a frame behind the others, with what it holds until it is written.
    pub(crate) fn push(&mut self, frame: Bytes, held: Option<OwnedSemaphorePermit>) {
        if !frame.is_empty() {
            self.bytes += frame.len();
            self.waiting.push_back((frame, held));
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }
}

impl Buf for Outbox {
    fn remaining(&self) -> usize {
        self.bytes
    }

    fn chunk(&self) -> &[u8] {
        self.waiting.front().map_or(&[], |(frame, _)| frame)
    }

    fn advance(&mut self, mut count: usize) {
        self.bytes = self
            .bytes
            .checked_sub(count)
            .expect("no more is written than waits");
        while let Some((frame, _)) = self.waiting.front_mut() {
            let taken = count.min(frame.len());
            frame.advance(taken);
            count -= taken;
            if !frame.is_empty() {
                break;
            }
            self.waiting.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use tokio::sync::Semaphore;

    #[test]
    fn frames_leave_in_order_and_give_back_what_they_held() {
        let memory = Arc::new(Semaphore::new(3));
        let mut outbox = Outbox::default();
        outbox.push(
            Bytes::from_static(b"abc"),
            Arc::clone(&memory).try_acquire_many_owned(2).ok(),
        );
        outbox.push(
            Bytes::from_static(b"de"),
            Arc::clone(&memory).try_acquire_owned().ok(),
        );
        assert_eq!((outbox.remaining(), outbox.chunk()), (5, &b"abc"[..]));
        outbox.advance(2);
        assert_eq!((memory.available_permits(), outbox.chunk()), (0, &b"c"[..]));
        outbox.advance(2);
        assert_eq!((memory.available_permits(), outbox.chunk()), (2, &b"e"[..]));
        outbox.advance(1);
        assert_eq!((memory.available_permits(), outbox.is_empty()), (3, true));
    }
}
