//! Where a connection's task finds what others have for it: ends of its messages, notes and calls for its device, the
//! end of its session.
//!
//! Filled from the consensus runtime and emptied by the one task; it holds no more than the messages
//! in flight, [`NOTES_MAX`] notes and [`CALLS_MAX`] calls, and nothing is allocated per acknowledgement once its lists
//! have grown to that.

use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dunlin_model::command::TelemetryAck;
use dunlin_model::method::MethodError;
use dunlin_model::port::{AckSink, SessionEnd};
use tokio::sync::Notify;

use super::calls::Call;

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

/// Calls that wait at the most. A device that takes no more misses its calls, and nothing else.
pub(crate) const CALLS_MAX: usize = 16;

/// What waits to be written to the device.
#[derive(Debug, Default)]
pub(crate) struct Mail {
    pub(crate) notes: Vec<Note>,
    pub(crate) calls: Vec<Call>,
    /// Whether messages wait in the shard.
    pub(crate) messages: bool,
}

#[derive(Debug, Default)]
struct Waiting {
    acks: Vec<(u64, TelemetryAck)>,
    mail: Mail,
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

    /// Moves the waiting ends into `acks`, which must be empty, and the rest into `mail` if it can be written.
    pub(crate) fn drain(&self, acks: &mut Vec<(u64, TelemetryAck)>, mail: Option<&mut Mail>) {
        debug_assert!(acks.is_empty(), "the caller has handled what it took before");
        let mut waiting = self.lock();
        std::mem::swap(&mut waiting.acks, acks);
        if let Some(mail) = mail {
            mail.notes.append(&mut waiting.mail.notes);
            mail.calls.append(&mut waiting.mail.calls);
            mail.messages |= std::mem::take(&mut waiting.mail.messages);
        }
    }

    /// Hands a call to the connection, unless too many wait.
    pub(crate) fn put_call(&self, call: Call) -> Result<(), MethodError> {
        {
            let calls = &mut self.lock().mail.calls;
            calls.retain(|call| !call.is_given_up());
            if calls.len() >= CALLS_MAX {
                return Err(MethodError::TooMany("calls of this device".into()));
            }
            calls.push(call);
        }
        self.wake.notify_one();
        Ok(())
    }

    /// Tells the connection that messages wait in the shard.
    pub(crate) fn put_messages_waiting(&self) {
        self.lock().mail.messages = true;
        self.wake.notify_one();
    }

    /// Hands a note to the connection, which is told to close when too many wait.
    pub(crate) fn put_note(&self, note: Note) {
        let has_room = {
            let notes = &mut self.lock().mail.notes;
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
            let (mut acks, mut mail) = (Vec::new(), Mail::default());
            mailbox.drain(&mut acks, None);
            mailbox.drain(&mut acks, Some(&mut mail));
            assert_eq!(mail.notes.len(), count);
        }
    }

    #[test]
    fn calls_that_pile_up_are_refused_and_nothing_else() {
        let mailbox = Mailbox::default();
        let (callers, calls): (Vec<_>, Vec<_>) = (0..CALLS_MAX).map(|_| Call::new("m", "1")).unzip();
        calls
            .into_iter()
            .for_each(|call| mailbox.put_call(call).expect("room"));
        let full = mailbox.put_call(Call::new("m", "1").1);
        assert!(matches!(full, Err(MethodError::TooMany(_))));
        assert_eq!(mailbox.eviction(), None);
        // Those whose callers have gone make room.
        drop(callers);
        mailbox.put_call(Call::new("m", "1").1).expect("room");
        let mut mail = Mail::default();
        mailbox.drain(&mut Vec::new(), Some(&mut mail));
        assert_eq!(mail.calls.len(), 1);
    }
}
