//! Where a connection's task finds what others have for it: ends of its messages, notes for its device, the end
//! of its session.
//!
//! Filled from the consensus runtime and emptied by the one task; it holds no more than the messages
//! in flight and [`NOTES_MAX`] notes, and nothing is allocated per acknowledgement once its two lists have grown
//! to that.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, PoisonError};

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

/// Notes that wait at the most. A device that takes no more has to connect again, and then asks for everything.
pub(crate) const NOTES_MAX: usize = 64;

/// Something for the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    /// Version of what is desired.
    pub(crate) version: u64,
    /// A merge document as JSON text.
    pub(crate) patch: String,
}

/// One per connection.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    acks: Mutex<Vec<(u64, TelemetryAck)>>,
    notes: Mutex<Vec<Note>>,
    /// 0, or one more than the place in [`EVICTIONS`]. The first one counts.
    eviction: AtomicU8,
    wake: Notify,
}

impl Mailbox {
    /// Moves the waiting ends into `into`, which must be empty.
    pub(crate) fn drain(&self, into: &mut Vec<(u64, TelemetryAck)>) {
        debug_assert!(into.is_empty(), "the caller has handled what it took before");
        std::mem::swap(
            &mut *self.acks.lock().unwrap_or_else(PoisonError::into_inner),
            into,
        );
    }

    /// Hands a note to the connection, which is told to close when too many wait.
    pub(crate) fn put_note(&self, note: Note) {
        let mut notes = self.notes.lock().unwrap_or_else(PoisonError::into_inner);
        if notes.len() >= NOTES_MAX {
            drop(notes);
            return self.evict(Eviction::Overrun);
        }
        notes.push(note);
        drop(notes);
        self.wake.notify_one();
    }

    /// Takes the notes that wait, in the order in which they came.
    pub(crate) fn take_notes(&self) -> Vec<Note> {
        std::mem::take(&mut *self.notes.lock().unwrap_or_else(PoisonError::into_inner))
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
            let mut acks = self.acks.lock().unwrap_or_else(PoisonError::into_inner);
            acks.push((token, ack));
            acks.len() == 1
        };
        // The task takes everything at once: one call to wake it is enough.
        if was_empty {
            self.wake.notify_one();
        }
    }
}
