//! The bounded queue in front of one device, which outlives the actor behind it.
//!
//! Mailboxes have no bound and are lost with their actor. So notices wait here and the mailbox only
//! carries pokes, one at a time: a restarted actor finds what its predecessor had not begun.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use dunlin_model::shard::Notice;

use crate::config::DEVICE_MAILBOX_MAX;

#[derive(Debug, Default)]
struct Inner {
    waiting: VecDeque<Notice>,
    /// What the actor is busy with; still here after a panic.
    in_hand: Option<Notice>,
    /// Something was dropped: the device has to be built from state again.
    rebuild: bool,
    /// A poke is on its way.
    poked: bool,
}

/// The queue of one device.
#[derive(Debug, Default)]
pub(crate) struct Inbox {
    inner: Mutex<Inner>,
}

impl Inbox {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds `notice` and says whether the actor needs a poke. When the queue is full the notice comes
    /// back, and the device is marked to be built from state again.
    pub(crate) fn push(&self, notice: Notice) -> Result<bool, Notice> {
        let mut inner = self.lock();
        if inner.waiting.len() >= DEVICE_MAILBOX_MAX {
            inner.rebuild = true;
            return Err(notice);
        }
        inner.waiting.push_back(notice);
        Ok(!std::mem::replace(&mut inner.poked, true))
    }

    /// Asks for a rebuild and says whether the actor needs a poke.
    pub(crate) fn mark_rebuild(&self) -> bool {
        let mut inner = self.lock();
        inner.rebuild = true;
        !std::mem::replace(&mut inner.poked, true)
    }

    /// The poke has arrived, or an actor begins: the next push needs another one.
    pub(crate) fn handle_poked(&self) {
        self.lock().poked = false;
    }

    /// Takes the next notice in hand, until [`done`](Self::done).
    pub(crate) fn take(&self) -> Option<Notice> {
        let mut inner = self.lock();
        let notice = inner.waiting.pop_front()?;
        inner.in_hand = Some(notice.clone());
        Some(notice)
    }

    /// What was in hand has been dealt with.
    pub(crate) fn done(&self) {
        self.lock().in_hand = None;
    }

    /// Takes the wish for a rebuild.
    pub(crate) fn take_rebuild(&self) -> bool {
        std::mem::take(&mut self.lock().rebuild)
    }

    /// What the actor was busy with when it failed.
    pub(crate) fn abandon(&self) -> Option<Notice> {
        self.lock().in_hand.take()
    }

    /// Everything that waits, for nobody will come for it.
    pub(crate) fn drain(&self) -> Vec<Notice> {
        self.lock().waiting.drain(..).collect()
    }

    /// Whether nothing is left to do.
    pub(crate) fn is_empty(&self) -> bool {
        let inner = self.lock();
        inner.waiting.is_empty() && inner.in_hand.is_none() && !inner.rebuild
    }
}

#[cfg(test)]
mod tests {
    use dunlin_model::id::DeviceId;

    use super::*;

    #[test]
    fn a_full_inbox_asks_for_a_rebuild_and_one_poke_is_enough() {
        let inbox = Inbox::default();
        let notice = Notice::DeviceChanged(DeviceId::parse("d").unwrap());
        assert_eq!(inbox.push(notice.clone()), Ok(true));
        for _ in 1..DEVICE_MAILBOX_MAX {
            assert_eq!(inbox.push(notice.clone()), Ok(false));
        }
        assert!(!inbox.take_rebuild());
        assert_eq!(inbox.push(notice.clone()), Err(notice.clone()));
        inbox.handle_poked();
        assert!(inbox.take_rebuild() && !inbox.take_rebuild());
        assert_eq!(inbox.take(), Some(notice.clone()));
        assert_eq!((inbox.abandon(), inbox.abandon()), (Some(notice.clone()), None));
        assert_eq!(inbox.push(notice), Ok(true));
        assert_eq!(inbox.drain().len(), DEVICE_MAILBOX_MAX);
        assert!(inbox.is_empty());
    }
}
