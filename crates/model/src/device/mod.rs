//! A device as a machine: what was applied about it goes in, what should be done about it comes out.
//!
//! It runs on the shard's leader only and holds nothing that the state does not hold too, so it can
//! be lost at any moment and built again from a [`DeviceView`]. It never changes state and never
//! waits; the shell around it is `actors::device`, the reasons to wake are in [`timer`].

pub mod timer;

use std::collections::VecDeque;

use crate::command::DeviceView;
use crate::id::{DeviceId, StreamId};
use crate::port::{Downlink, DownlinkKind};
use crate::shard::Notice;
use crate::twin::DesiredChange;
use timer::{Timer, TimerTable};

/// Milliseconds without a session and without news after which a device leaves memory.
pub const DEVICE_IDLE_MS: u64 = 5 * 60 * 1000;

/// What a device wants done. Taken with [`Device::poll_effect`], in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Send this down to a gateway, in the name of the leader of `term`.
    Downlink {
        /// The gateway that holds, or held, the session.
        to: StreamId,
        /// Term of the leader that this machine belongs to; a gateway refuses lower ones than it has seen.
        term: u64,
        /// What.
        downlink: Downlink,
    },
    /// A gateway holds a session from now on, or none does.
    Presence {
        /// Which of the two.
        connected: bool,
    },
    /// Drop this machine. If news waits already it may be kept: the next input starts the wait anew.
    Passivate,
}

/// A held session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HeldSession {
    /// Its epoch.
    pub epoch: u64,
    /// The gateway that holds it.
    pub held_by: StreamId,
}

/// One device on its shard's leader.
///
/// Feed it with `handle_*`, then call [`poll_effect`](Device::poll_effect) until `None`, then wait
/// for the next input or for [`poll_timeout`](Device::poll_timeout). The first input is
/// [`handle_view`](Device::handle_view). A view may be newer than the notices that come after it,
/// since state is read where it stands and notices are on their way: an older epoch never undoes a
/// newer one.
#[derive(Debug)]
pub struct Device {
    device: DeviceId,
    term: u64,
    idle_ms: u64,
    session: Option<HeldSession>,
    /// The highest epoch heard of; one that was seen never begins again.
    epoch_latest: u64,
    timers: TimerTable,
    effects: VecDeque<Effect>,
}

impl Device {
    /// The machine of `device` under the leader of `term`, which passivates after `idle_ms`.
    pub fn new(device: DeviceId, term: u64, idle_ms: u64) -> Self {
        Self {
            device,
            term,
            idle_ms,
            session: None,
            epoch_latest: 0,
            timers: TimerTable::default(),
            effects: VecDeque::new(),
        }
    }

    /// The name.
    pub fn device(&self) -> &DeviceId {
        &self.device
    }

    /// The session that is held now, as far as this machine has heard.
    pub fn session(&self) -> Option<HeldSession> {
        self.session
    }

    /// What the state says. `None` when the device does not exist.
    pub fn handle_view(&mut self, view: Option<&DeviceView>, now_ms: u64) {
        let before = self.session;
        self.session = None;
        if let Some(view) = view {
            let epoch = view.session.epoch;
            self.epoch_latest = self.epoch_latest.max(epoch);
            self.session = view.session.held_by.map(|held_by| HeldSession { epoch, held_by });
        }
        self.settle(before, now_ms);
    }

    /// Something that was applied. A notice about another device is a mistake of the caller.
    pub fn handle_notice(&mut self, notice: &Notice, now_ms: u64) {
        assert_eq!(
            concerned_device(notice),
            Some(&self.device),
            "a device hears of itself only"
        );
        let before = self.session;
        match notice {
            Notice::SessionOpened { epoch, held_by, .. } if *epoch > self.epoch_latest => {
                self.epoch_latest = *epoch;
                self.session = Some(HeldSession {
                    epoch: *epoch,
                    held_by: *held_by,
                });
            }
            Notice::SessionEnded { epoch, .. } => {
                self.epoch_latest = self.epoch_latest.max(*epoch);
                if self.session.is_some_and(|session| session.epoch <= *epoch) {
                    self.session = None;
                }
            }
            Notice::DeviceDeleted(_) => self.session = None,
            _ => {}
        }
        if let Some((to, downlink)) = owed_downlink(notice) {
            let term = self.term;
            self.effects.push_back(Effect::Downlink { to, term, downlink });
        }
        self.settle(before, now_ms);
    }

    /// The time that [`poll_timeout`](Self::poll_timeout) named has come, or an earlier one.
    pub fn handle_timeout(&mut self, now_ms: u64) {
        while let Some(timer) = self.timers.poll_due(now_ms) {
            match timer {
                Timer::Passivate => self.effects.push_back(Effect::Passivate),
            }
        }
    }

    /// The next thing to do. Call until `None`.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When to call [`handle_timeout`](Self::handle_timeout), if nothing comes before.
    pub fn poll_timeout(&self) -> Option<u64> {
        self.timers.next_ms()
    }

    /// After any news: tells a change of presence, and starts or stops the wait for idleness.
    fn settle(&mut self, before: Option<HeldSession>, now_ms: u64) {
        if before.is_some() != self.session.is_some() {
            self.effects.push_back(Effect::Presence {
                connected: self.session.is_some(),
            });
        }
        match self.session {
            Some(_) => self.timers.stop(Timer::Passivate),
            None => self
                .timers
                .set(Timer::Passivate, now_ms.saturating_add(self.idle_ms)),
        }
    }
}

/// The device that `notice` is about; `None` for the shard's own housekeeping.
pub fn concerned_device(notice: &Notice) -> Option<&DeviceId> {
    match notice {
        Notice::SessionOpened { device, .. }
        | Notice::SessionEnded { device, .. }
        | Notice::DesiredChanged { device, .. }
        | Notice::MessagesWaiting { device, .. }
        | Notice::DeviceChanged(device)
        | Notice::DeviceDeleted(device) => Some(device),
        Notice::StreamOpened(_) | Notice::StreamClosed { .. } => None,
    }
}

/// How a session is told of a change of what is desired.
pub fn desired_downlink(device: &DeviceId, epoch: u64, change: &DesiredChange) -> Downlink {
    Downlink {
        device: device.clone(),
        epoch,
        kind: DownlinkKind::DesiredChanged {
            version: change.version,
            patch: change.patch.clone(),
        },
    }
}

/// How a session is told that messages wait.
pub fn waiting_downlink(device: &DeviceId, epoch: u64) -> Downlink {
    Downlink {
        device: device.clone(),
        epoch,
        kind: DownlinkKind::MessagesWaiting,
    }
}

/// What the gateway that holds, or held, a session has to hear of `notice`, and which gateway.
///
/// It follows from the notice alone, so that it is told also when the device cannot be woken.
pub fn owed_downlink(notice: &Notice) -> Option<(StreamId, Downlink)> {
    match notice {
        Notice::SessionEnded {
            device,
            epoch,
            held_by,
            reason: Some(reason),
        } => {
            let kind = DownlinkKind::SessionEnded(*reason);
            let (device, epoch) = (device.clone(), *epoch);
            Some((*held_by, Downlink { device, epoch, kind }))
        }
        Notice::DesiredChanged {
            device,
            epoch,
            held_by,
            change,
        } => Some((*held_by, desired_downlink(device, *epoch, change))),
        Notice::MessagesWaiting {
            device,
            epoch,
            held_by,
        } => Some((*held_by, waiting_downlink(device, *epoch))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::NodeId;
    use crate::identity::{Authentication, DeviceRecord, DeviceSpec, SessionRecord};
    use crate::port::SessionEnd;

    const GATEWAY: StreamId = StreamId {
        gateway: NodeId(7),
        incarnation: 1,
    };

    fn id() -> DeviceId {
        DeviceId::parse("dev-1").unwrap()
    }

    fn view(epoch: u64, held_by: Option<StreamId>) -> DeviceView {
        let spec = DeviceSpec::enabled(Authentication::None);
        let record = DeviceRecord {
            device: id(),
            spec,
            version: 1,
            generation: 1,
            created_ms: 1,
            status_changed_ms: 1,
        };
        DeviceView {
            record,
            session: SessionRecord {
                epoch,
                held_by,
                ..SessionRecord::default()
            },
            message_count: 0,
        }
    }

    fn opened(epoch: u64) -> Notice {
        Notice::SessionOpened {
            device: id(),
            epoch,
            held_by: GATEWAY,
        }
    }

    fn ended(epoch: u64, reason: Option<SessionEnd>) -> Notice {
        Notice::SessionEnded {
            device: id(),
            epoch,
            held_by: GATEWAY,
            reason,
        }
    }

    fn effects(device: &mut Device) -> Vec<Effect> {
        std::iter::from_fn(|| device.poll_effect()).collect()
    }

    #[test]
    fn a_session_taken_over_ends_at_its_gateway_in_the_leaders_name() {
        let mut device = Device::new(id(), 9, 100);
        device.handle_view(Some(&view(4, Some(GATEWAY))), 0);
        assert_eq!(effects(&mut device), [Effect::Presence { connected: true }]);
        device.handle_notice(&ended(4, Some(SessionEnd::TakenOver)), 1);
        device.handle_notice(&opened(5), 1);
        let kind = DownlinkKind::SessionEnded(SessionEnd::TakenOver);
        let downlink = Downlink {
            device: id(),
            epoch: 4,
            kind,
        };
        assert_eq!(
            effects(&mut device),
            [
                Effect::Downlink {
                    to: GATEWAY,
                    term: 9,
                    downlink
                },
                Effect::Presence { connected: false },
                Effect::Presence { connected: true },
            ]
        );
        assert_eq!(
            device.session(),
            Some(HeldSession {
                epoch: 5,
                held_by: GATEWAY
            })
        );
        device.handle_notice(&ended(5, None), 2);
        assert_eq!(
            effects(&mut device),
            [Effect::Presence { connected: false }],
            "its own gateway knows"
        );
    }

    #[test]
    fn late_notices_do_not_undo_a_newer_view() {
        let mut device = Device::new(id(), 1, 100);
        device.handle_view(Some(&view(6, None)), 0);
        device.handle_notice(&opened(5), 0);
        device.handle_notice(&opened(6), 0);
        assert_eq!(device.session(), None);
        device.handle_notice(&opened(7), 0);
        device.handle_notice(&ended(6, Some(SessionEnd::Deleted)), 0);
        assert_eq!(device.session().map(|session| session.epoch), Some(7));
    }

    #[test]
    fn only_a_device_without_a_session_goes_idle() {
        let mut device = Device::new(id(), 1, 100);
        device.handle_view(None, 0);
        assert_eq!(device.poll_timeout(), Some(100));
        device.handle_notice(&Notice::DeviceChanged(id()), 50);
        assert_eq!(device.poll_timeout(), Some(150), "news start the wait anew");
        device.handle_notice(&opened(1), 60);
        assert_eq!(device.poll_timeout(), None);
        device.handle_notice(&ended(1, None), 70);
        device.handle_timeout(169);
        assert_eq!(effects(&mut device).len(), 2);
        device.handle_timeout(170);
        assert_eq!(
            (effects(&mut device), device.poll_timeout()),
            (vec![Effect::Passivate], None)
        );
    }
}
