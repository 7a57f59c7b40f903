//! Where a connection's task finds what others have for it: ends of its messages, notes for its device, the end
//! of its session.
//!
//! Filled from the consensus runtime and emptied by the one task; it holds no more than the messages
//! in flight and [`NOTES_MAX`] notes, and nothing is allocated per acknowledgement once its two lists have grown
//! to that.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dunlin_model::command::TelemetryAck;
use dunlin_model::port::{AckSink, SessionEnd};
use tokio::sync::Notify;

/// Why the connection must close, as told from outside its task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Eviction {
    /// The shard ended the session.
    Session(SessionEnd),
    /// This gateway is shutting down.
    Shutdown,
    /// Notes have piled up.
    Overrun,
}

const EVICTIONS: [Eviction; 6] = [
    Eviction::Session(SessionEnd::TakenOver),
    Eviction::Session(SessionEnd::CredentialRevoked),
    Eviction::Session(SessionEnd::Deleted),
    Eviction::Session(SessionEnd::GatewayLost),
    Eviction::Shutdown,
    Eviction::Overrun,
];

/// Notes that wait at the most, and the bytes of their patches beside one. A device that takes no more has to connect
/// again, and then asks for everything.
pub(crate) const NOTES_MAX: usize = 64;
pub(crate) const NOTES_BYTES_MAX: usize = 128 * 1024;

/// Something for the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    /// Version of what is desired.
    pub(crate) version: u64,
    /// A merge document as JSON text.
    pub(crate) patch: String,
}

#[derive(Debug, Default)]
struct Waiting {
    acks: Vec<(u64, TelemetryAck)>,
    notes: Vec<Note>,
}

/// One per connection.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    waiting: Mutex<Waiting>,
    /// 0, or one more than the place in [`EVICTIONS`]. The first one counts.
    eviction: AtomicU8,
    wake: Notify,
}

impl Mailbox {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Moves the waiting ends into `acks`, which must be empty, and the notes into `notes` if they can be written.
    pub(crate) fn drain(&self, acks: &mut Vec<(u64, TelemetryAck)>, notes: Option<&mut Vec<Note>>) {
        debug_assert!(acks.is_empty(), "the caller has handled what it took before");
        let mut waiting = self.lock();
        std::mem::swap(&mut waiting.acks, acks);
        if let Some(notes) = notes {
            notes.append(&mut waiting.notes);
        }
    }

    /// Hands a note to the connection, which is told to close when too many wait.
    pub(crate) fn put_note(&self, note: Note) {
        let has_room = {
            let notes = &mut self.lock().notes;
            let bytes: usize = notes.iter().map(|note| note.patch.len()).sum();
            let has_room = notes.len() < NOTES_MAX && bytes < NOTES_BYTES_MAX;
            if has_room {
                notes.push(note);
            }
            has_room
        };
        if has_room {
            self.wake.notify_one();
        } else {
            self.evict(Eviction::Overrun);
        }
    }

    /// Tells the connection to close.
    pub(crate) fn evict(&self, eviction: Eviction) {
        let place = EVICTIONS.iter().position(|e| *e == eviction).unwrap_or_default() as u8 + 1;
        let _ = self
            .eviction
            .compare_exchange(0, place, Ordering::AcqRel, Ordering::Acquire);
        self.wake.notify_one();
    }

    /// Whether the connection has to close.
    pub(crate) fn eviction(&self) -> Option<Eviction> {
        let place = self.eviction.load(Ordering::Acquire);
        usize::from(place)
            .checked_sub(1)
            .and_then(|place| EVICTIONS.get(place).copied())
    }

    /// Resolves after something came in. One waiter only.
    pub(crate) async fn woken(&self) {
        self.wake.notified().await;
    }
}

impl AckSink for Mailbox {
    fn on_ack(&self, token: u64, ack: TelemetryAck) {
        let was_empty = {
            let acks = &mut self.lock().acks;
            acks.push((token, ack));
            acks.len() == 1
        };
        // The task takes everything at once: one call to wake it is enough.
        if was_empty {
            self.wake.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_that_pile_up_end_the_connection() {
        for (count, bytes) in [(NOTES_MAX, 2), (2, NOTES_BYTES_MAX / 2)] {
            let mailbox = Mailbox::default();
            let note = |version| Note {
                version,
                patch: "x".repeat(bytes),
            };
            (0..count as u64).for_each(|version| mailbox.put_note(note(version)));
            assert_eq!(mailbox.eviction(), None);
            mailbox.put_note(note(1_000));
            assert_eq!(mailbox.eviction(), Some(Eviction::Overrun));
            let (mut acks, mut notes) = (Vec::new(), Vec::new());
            mailbox.drain(&mut acks, None);
            mailbox.drain(&mut acks, Some(&mut notes));
            assert_eq!(notes.len(), count);
        }
    }
}
