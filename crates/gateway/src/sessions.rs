//! The sessions that this gateway holds, and the place where the cluster's downlinks and calls arrive.
//!
//! Epochs alone decide who is the later one. An end may arrive before the connection has heard that
//! its session is open; it is kept for that connection, so none outlives its session unnoticed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use dunlin_model::id::DeviceId;
use dunlin_model::method::{Invocation, MethodAnswer, MethodError};
use dunlin_model::port::{BoxFuture, Downlink, DownlinkKind, DownlinkSink, SessionEnd};

use crate::mqtt::calls::Call;
use crate::mqtt::mailbox::{Eviction, Mailbox, Note};

/// All live sessions; bounded by the connections.
#[derive(Default)]
pub(crate) struct Sessions {
    devices: Mutex<HashMap<DeviceId, Entry>>,
}

type Answering = tokio::sync::oneshot::Receiver<Result<MethodAnswer, MethodError>>;

#[derive(Default)]
struct Entry {
    /// The session with the highest epoch.
    live: Option<(u64, Arc<Mailbox>)>,
    /// Connections whose SessionOpen is on its way.
    opening: u32,
    /// Highest epoch that was ended while some were opening, and why.
    ended: Option<(u64, SessionEnd)>,
    /// Highest epoch that was told while some were opening that messages wait.
    told_waiting: u64,
}

impl Entry {
    fn is_idle(&self) -> bool {
        self.live.is_none() && self.opening == 0
    }
}

/// A session that is being opened. Dropped without [`activate`](Opening::activate), it leaves no trace.
pub(crate) struct Opening {
    sessions: Arc<Sessions>,
    device: DeviceId,
}

impl Sessions {
    fn lock(&self) -> MutexGuard<'_, HashMap<DeviceId, Entry>> {
        self.devices.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called before `SessionOpen` is submitted.
    pub(crate) fn begin(self: &Arc<Self>, device: &DeviceId) -> Opening {
        self.lock().entry(device.clone()).or_default().opening += 1;
        Opening {
            sessions: Arc::clone(self),
            device: device.clone(),
        }
    }

    /// Forgets a session, if it is the one that `mailbox` belongs to.
    pub(crate) fn remove(&self, device: &DeviceId, mailbox: &Arc<Mailbox>) {
        let mut devices = self.lock();
        if let Some(entry) = devices.get_mut(device) {
            if entry
                .live
                .as_ref()
                .is_some_and(|(_, live)| Arc::ptr_eq(live, mailbox))
            {
                entry.live = None;
            }
            if entry.is_idle() {
                devices.remove(device);
            }
        }
    }

    /// Hands a call to the connection of its session. Returns where the answer comes.
    fn begin_call(&self, invocation: &Invocation) -> Result<Answering, MethodError> {
        let devices = self.lock();
        let live = devices
            .get(&invocation.device)
            .and_then(|entry| entry.live.as_ref());
        let (_, mailbox) = live
            .filter(|(epoch, _)| *epoch == invocation.epoch)
            .ok_or(MethodError::NotHere)?;
        let (answer, call) = Call::new(&invocation.name, &invocation.payload);
        mailbox.put_call(call)?;
        Ok(answer)
    }

    /// Tells every connection to close.
    pub(crate) fn evict_all(&self) {
        for entry in self.lock().values() {
            if let Some((_, mailbox)) = &entry.live {
                mailbox.evict(Eviction::Shutdown);
            }
        }
    }
}

impl Opening {
    /// The session is open with `epoch`. A later session, or an end that came first, evicts it at once.
    pub(crate) fn activate(self, epoch: u64, mailbox: &Arc<Mailbox>) {
        let mut devices = self.sessions.lock();
        let entry = devices.entry(self.device.clone()).or_default();
        if let Some((ended, why)) = entry.ended
            && epoch <= ended
        {
            // Only the last one ended for the reason we kept; those before it were taken over.
            let why = if epoch == ended {
                why
            } else {
                SessionEnd::TakenOver
            };
            mailbox.evict(Eviction::Session(why));
            return;
        }
        match &entry.live {
            Some((live, _)) if *live > epoch => mailbox.evict(Eviction::Session(SessionEnd::TakenOver)),
            _ => {
                if entry.told_waiting == epoch {
                    mailbox.put_messages_waiting();
                }
                if let Some((_, earlier)) = entry.live.replace((epoch, Arc::clone(mailbox))) {
                    earlier.evict(Eviction::Session(SessionEnd::TakenOver));
                }
            }
        }
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        let mut devices = self.sessions.lock();
        if let Some(entry) = devices.get_mut(&self.device) {
            entry.opening -= 1;
            if entry.opening == 0 {
                entry.ended = None;
                entry.told_waiting = 0;
            }
            if entry.is_idle() {
                devices.remove(&self.device);
            }
        }
    }
}

impl DownlinkSink for Sessions {
    fn on_downlink(&self, downlink: Downlink) {
        let mut devices = self.lock();
        let Some(entry) = devices.get_mut(&downlink.device) else {
            return;
        };
        let live = entry.live.as_ref().filter(|(epoch, _)| *epoch == downlink.epoch);
        match (downlink.kind, live) {
            (DownlinkKind::SessionEnded(why), Some((_, mailbox))) => mailbox.evict(Eviction::Session(why)),
            (DownlinkKind::SessionEnded(why), None) => {
                if entry.opening > 0 && entry.ended.is_none_or(|(epoch, _)| epoch < downlink.epoch) {
                    entry.ended = Some((downlink.epoch, why));
                }
            }
            (DownlinkKind::DesiredChanged { version, patch }, Some((_, mailbox))) => {
                mailbox.put_note(Note { version, patch });
            }
            // A session that is just being opened asks for its twin itself.
            (DownlinkKind::DesiredChanged { .. }, None) => {}
            (DownlinkKind::MessagesWaiting, Some((_, mailbox))) => mailbox.put_messages_waiting(),
            (DownlinkKind::MessagesWaiting, None) => {
                entry.told_waiting = entry.told_waiting.max(downlink.epoch);
            }
        }
    }

    fn sessions(&self) -> Vec<(DeviceId, u64)> {
        let devices = self.lock();
        devices
            .iter()
            .filter_map(|(device, entry)| entry.live.as_ref().map(|(epoch, _)| (device.clone(), *epoch)))
            .collect()
    }

    fn invoke(&self, invocation: Invocation) -> BoxFuture<'static, Result<MethodAnswer, MethodError>> {
        let begun = self.begin_call(&invocation);
        Box::pin(async move {
            let answer = begun?;
            match tokio::time::timeout(Duration::from_millis(invocation.wait_ms), answer).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(_)) => Err(MethodError::ConnectionClosed),
                Err(_) => Err(MethodError::TimedOut),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(device: &DeviceId, epoch: u64, why: SessionEnd) -> Downlink {
        Downlink {
            device: device.clone(),
            epoch,
            kind: DownlinkKind::SessionEnded(why),
        }
    }

    #[test]
    fn the_highest_epoch_wins_in_any_order() {
        let sessions = Arc::new(Sessions::default());
        let device = DeviceId::parse("d").unwrap();
        let (first, second) = (Arc::new(Mailbox::default()), Arc::new(Mailbox::default()));
        let (a, b) = (sessions.begin(&device), sessions.begin(&device));
        b.activate(2, &second);
        a.activate(1, &first);
        assert_eq!(first.eviction(), Some(Eviction::Session(SessionEnd::TakenOver)));
        assert_eq!(second.eviction(), None);
        assert_eq!(sessions.sessions(), vec![(device.clone(), 2)]);
        sessions.remove(&device, &first);
        assert_eq!(sessions.sessions().len(), 1);
        sessions.remove(&device, &second);
        assert!(sessions.lock().is_empty());
    }

    #[test]
    fn an_end_that_comes_before_its_session_is_kept() {
        let sessions = Arc::new(Sessions::default());
        let device = DeviceId::parse("d").unwrap();
        let mailbox = Arc::new(Mailbox::default());
        let opening = sessions.begin(&device);
        sessions.on_downlink(end(&device, 5, SessionEnd::CredentialRevoked));
        opening.activate(5, &mailbox);
        assert_eq!(
            mailbox.eviction(),
            Some(Eviction::Session(SessionEnd::CredentialRevoked))
        );
        assert!(sessions.lock().is_empty());
        let later = Arc::new(Mailbox::default());
        sessions.begin(&device).activate(6, &later);
        sessions.on_downlink(end(&device, 5, SessionEnd::TakenOver));
        assert_eq!(later.eviction(), None);
        sessions.on_downlink(end(&device, 6, SessionEnd::Deleted));
        assert_eq!(later.eviction(), Some(Eviction::Session(SessionEnd::Deleted)));
    }

    #[test]
    fn word_of_messages_that_comes_before_its_session_is_kept() {
        let sessions = Arc::new(Sessions::default());
        let device = DeviceId::parse("d").unwrap();
        let told = |epoch| Downlink {
            device: device.clone(),
            epoch,
            kind: DownlinkKind::MessagesWaiting,
        };
        let waits = |mailbox: &Mailbox| {
            let mut mail = crate::mqtt::mailbox::Mail::default();
            mailbox.drain(&mut Vec::new(), Some(&mut mail));
            mail.messages
        };
        let (first, second) = (Arc::new(Mailbox::default()), Arc::new(Mailbox::default()));
        let opening = sessions.begin(&device);
        sessions.on_downlink(told(5));
        opening.activate(5, &first);
        assert!(waits(&first) && !waits(&first));
        sessions.on_downlink(told(5));
        assert!(waits(&first));
        sessions.begin(&device).activate(6, &second);
        sessions.on_downlink(told(5));
        assert!(!waits(&second), "that was for the session before");
    }

    #[test]
    fn an_opening_that_fails_leaves_nothing() {
        let sessions = Arc::new(Sessions::default());
        let device = DeviceId::parse("d").unwrap();
        drop(sessions.begin(&device));
        assert!(sessions.lock().is_empty());
    }
}
