//! A shard as a machine: batches in, outcomes, events and notices out.
//!
//! [`batch`] decides when gathered frames become a log entry, [`state`] what an entry does,
//! [`stored`] how outcomes are kept for gateways that ask again, and `announce` which events the hub makes itself. Nothing here waits or writes files.

mod announce;
pub mod batch;
mod configuration;
mod cursor;
mod device_jobs;
pub mod erase;
mod fence;
pub mod fleet;
mod groups;
mod jobs;
pub mod keys;
mod lease;
mod leftovers;
pub(crate) mod messages;
pub mod meta;
mod overlay;
mod owed;
mod pages;
mod provisioning;
mod quota;
pub mod read;
pub mod registry;
pub mod state;
pub mod stored;
mod twin;
mod uploads;
pub mod verdict;

use crate::command::Command;
use crate::id::{DeviceId, StreamId};
use crate::port::{Frame, SessionEnd};
use crate::routing::EventSources;
use crate::twin::DesiredChange;

/// One log entry of a shard, before it has an index.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Batch {
    /// The leader's stamp, milliseconds since 1970: above every earlier one in this log.
    pub time_ms: u64,
    /// What is in it, in order.
    pub parts: Vec<Part>,
}

impl Batch {
    /// Has the hub tell of what the commands in it do, by events of these sources, for which only a batch with commands
    /// asks.
    pub fn announce(&mut self, sources: impl FnOnce() -> EventSources) {
        let does = |part: &Part| match part {
            Part::Frame(frame) => !frame.commands.is_empty(),
            Part::Internal(_) | Part::GatewayGone(_) => true,
            _ => false,
        };
        if !self.parts.iter().any(does) {
            return;
        }
        let sources = sources();
        if !sources.is_empty() {
            self.parts.insert(0, Part::Announce(sources));
        }
    }
}

/// One part of an entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Part {
    /// What a gateway sent.
    Frame(Frame),
    /// A gateway introduces itself. Does nothing if the stream is known.
    StreamOpen(StreamId),
    /// A gateway is gone: its stream is forgotten and its sessions end, a bounded number per entry.
    GatewayGone(StreamId),
    /// A command of the leader's own making, outside any stream.
    Internal(Command),
    /// Cut the event log here.
    Seal,
    /// Events below this offset are no longer kept.
    Trim(u64),
    /// What follows in this entry is told of by events of the hub's own, of these sources. The leader says so, as long
    /// as some route wants them.
    Announce(EventSources),
}

/// A change that somebody beside the log has to hear of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// A stream is known from here on.
    StreamOpened(StreamId),
    /// A stream was forgotten. `more` says that sessions of it are left: propose again.
    StreamClosed {
        /// Which.
        stream: StreamId,
        /// Whether another [`Part::GatewayGone`] is needed.
        more: bool,
    },
    /// A session began; whoever held an earlier one was fenced.
    SessionOpened {
        /// Whose.
        device: DeviceId,
        /// Its epoch.
        epoch: u64,
        /// Who holds it.
        held_by: StreamId,
    },
    /// A held session ended from above or by its gateway.
    SessionEnded {
        /// Whose.
        device: DeviceId,
        /// Its epoch.
        epoch: u64,
        /// Who held it.
        held_by: StreamId,
        /// Why; `None` when the gateway itself closed it.
        reason: Option<SessionEnd>,
    },
    /// A service changed what it wants of a device that is connected and listens.
    DesiredChanged {
        /// Whose.
        device: DeviceId,
        /// Epoch of the session.
        epoch: u64,
        /// Who holds it.
        held_by: StreamId,
        /// What is to be told.
        change: DesiredChange,
    },
    /// Messages wait for a device that is connected and listens.
    MessagesWaiting {
        /// Whose.
        device: DeviceId,
        /// Epoch of the session.
        epoch: u64,
        /// Who holds it.
        held_by: StreamId,
    },
    /// A device was created or changed.
    DeviceChanged(DeviceId),
    /// A device is gone.
    DeviceDeleted(DeviceId),
}
