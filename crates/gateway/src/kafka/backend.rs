//! What stands behind the door: the hub's shards as partitions, its policies, and its consumer groups.
//!
//! Says what the door asks and what it relies on; never how it is found out. What of it goes over the wire and in which
//! shape is decided in the rooms that ask: [`fetch`](super::fetch), [`topics`](super::topics),
//! [`members`](super::members), [`offsets`](super::offsets), [`groups`](super::groups). The words of consumer groups
//! stand in [`group`](super::group).

use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::future::BoxFuture;

use super::coordinator;

pub use super::code::Code;
pub use super::group::{
    Committed, Described, DescribedMember, Join, JoinRefused, Joined, JoinedMember, Joining, Leaver, Listed,
    Member, Synced, Syncing,
};
pub use crate::auth::Principal;

/// Who may be dialled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broker {
    /// The node's id. Clients take it for the same broker as long as it stays the same.
    pub node_id: i32,
    /// The name that its certificate is for.
    pub host: String,
    /// Where it listens for Kafka.
    pub port: u16,
}

/// Why somebody is not let in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The password does not count, or opens something else. It is said, and the connection ends.
    #[error("the connection string does not count")]
    Wrong,
    /// Nobody can tell just now. Nothing is said, since clients would give up; the connection ends.
    #[error("policies cannot be read just now")]
    Unavailable,
}

/// Why a partition has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// Nobody who leads it answered in time. Trying again is always safe.
    #[error("the partition has no reachable leader")]
    Unavailable,
    /// The offset asked for is before the first that is kept.
    #[error("events before the first kept one are gone")]
    OffsetGone,
    /// It failed otherwise, and may do so again.
    #[error("the partition could not be read")]
    Other,
}

/// Where a partition begins and ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// First offset that can still be read.
    pub first_offset: u64,
    /// Offset that the next event will get.
    pub next_offset: u64,
}

/// Where and when an event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Its offset in the partition.
    pub offset: u64,
    /// When the hub took it, in milliseconds since 1970.
    pub time_ms: u64,
}

/// An event as a record shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its offset in the partition.
    pub offset: u64,
    /// When the hub took it, in milliseconds since 1970; never falls with the offset.
    pub time_ms: u64,
    /// Who sent it: `device`, or `device/module`.
    pub device: String,
    /// What the hub adds under names of its own (`content-type`, `iothub-connection-auth-method`, ..) beside what
    /// [`record`](super::record) takes from the fields here.
    pub system: Vec<(&'static str, String)>,
    /// What the device added; a name may stand alone.
    pub properties: Vec<(String, Option<String>)>,
    /// The body, byte for byte.
    pub payload: Bytes,
}

/// Events of a partition, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Page {
    /// The events from the offset asked for on. Those are left out that routes lead elsewhere.
    pub events: Vec<Event>,
    /// Where to go on: behind everything that was looked at.
    pub next: u64,
    /// See [`Bounds`], of when the page was made.
    pub first_offset: u64,
    /// See [`Bounds`].
    pub next_offset: u64,
}

/// User name of everybody who shows a connection string.
pub const USER: &str = "$ConnectionString";

/// The hub, as this door sees it.
///
/// Futures may be dropped at any time, when their connection ends or an answer is given without them. Who cannot be
/// reached is [`ReadError::Unavailable`], or [`Code::COORDINATOR_NOT_AVAILABLE`] for groups, and never anything else:
/// to a reader "it is not there" and "I could not look" are worlds apart.
pub trait Backend: Send + Sync + 'static {
    /// This gateway among the brokers.
    fn node_id(&self) -> i32;

    /// The gateways that are alive, this one among them.
    fn brokers(&self) -> Vec<Broker>;

    /// Partitions of the topic, one per shard; numbered from 0.
    fn partition_count(&self) -> u32;

    /// The broker that clients are sent to for a partition. Each gateway can read each of them, so that it is a matter
    /// of load; the same broker for as long as it lives, unless said otherwise. `None`: nobody leads it just now.
    fn leader(&self, partition: u32) -> Option<i32> {
        coordinator::place(&partition.to_be_bytes(), &self.brokers())
    }

    /// Which life of its log a partition is in, from 0: another one after a cluster was recovered with losses.
    fn log_epoch(&self, partition: u32) -> i32;

    /// Where the life `log_epoch` of a partition ended, if that is known: what was read beyond is lost, and readers go
    /// back to it. Where it is not known they begin anew as they were configured to, at either end of the log: with
    /// gaps, or with everything twice. Asked about lives before the present one.
    fn epoch_end(&self, _partition: u32, _log_epoch: i32) -> Option<u64> {
        None
    }

    /// Whether a connection string opens the topic. See [`ConnectionString`](crate::auth::ConnectionString).
    /// Who is refused is kept for whoever audits.
    fn authorize<'a>(
        &'a self,
        user: &'a str,
        password: &'a str,
        peer: SocketAddr,
    ) -> BoxFuture<'a, Result<Principal, Refused>>;

    /// Whether it would still: the policy is there and has that key. Asked often, so it never waits.
    fn is_still_good(&self, principal: &Principal) -> bool;

    /// Where a partition begins and ends, as known to a leader that has all that was ever acknowledged.
    fn bounds(&self, partition: u32) -> BoxFuture<'_, Result<Bounds, ReadError>>;

    /// The first event that the hub took at `time_ms` or later; `None` where all are older.
    fn offset_at(&self, partition: u32, time_ms: u64) -> BoxFuture<'_, Result<Option<Place>, ReadError>>;

    /// Events from `from` on, some `bytes_max` bytes of them but at least one if there is one, which may take up to
    /// `wait_ms` to come. Without events the page tells the bounds alone. An offset behind the end is no error; the
    /// page is empty and says where the end is.
    fn read(
        &self,
        partition: u32,
        from: u64,
        bytes_max: usize,
        wait_ms: u64,
    ) -> BoxFuture<'_, Result<Page, ReadError>>;

    /// The broker that clients are sent to for a group. Each gateway can serve each group, so that it is a matter of
    /// load; the same broker for as long as it lives, unless said otherwise.
    fn coordinator(&self, group: &str) -> Option<i32> {
        coordinator::place(group.as_bytes(), &self.brokers())
    }

    /// Submits a join. Does not wait for other members: see [`Backend::join_result`].
    fn join(&self, join: Join) -> BoxFuture<'_, Result<Joining, JoinRefused>>;

    /// What became of a join; `None` as long as others are waited for. Asked again and again until then, which the
    /// group may take as a sign of life of the member.
    fn join_result<'a>(
        &'a self,
        group: &'a str,
        joining: &'a Joining,
    ) -> BoxFuture<'a, Result<Option<Joined>, Code>>;

    /// Submits a sync. Does not wait for the leader's: see [`Backend::sync_result`].
    fn sync(&self, syncing: Syncing) -> BoxFuture<'_, Result<(), Code>>;

    /// The share of a member; `None` as long as the leader has not brought it. Asked as [`Backend::join_result`] is.
    fn sync_result<'a>(&'a self, member: &'a Member) -> BoxFuture<'a, Result<Option<Synced>, Code>>;

    /// A member is alive.
    fn heartbeat(&self, member: Member) -> BoxFuture<'_, Result<(), Code>>;

    /// Members go. One code for each, in order, or one for all.
    fn leave(&self, group: String, leavers: Vec<Leaver>) -> BoxFuture<'_, Result<Vec<Code>, Code>>;

    /// Keeps offsets. One code for each, in order, or one for all. A member of no generation commits from outside, which
    /// a group with members refuses.
    fn commit(&self, member: Member, offsets: Vec<Committed>) -> BoxFuture<'_, Result<Vec<Code>, Code>>;

    /// The offsets of a group, of `partitions` or of all. Partitions and groups without any are left out.
    fn offsets(
        &self,
        group: String,
        partitions: Option<Vec<u32>>,
    ) -> BoxFuture<'_, Result<Vec<Committed>, Code>>;

    /// A group; [`Code::GROUP_ID_NOT_FOUND`] for one that nobody knows.
    fn describe(&self, group: String) -> BoxFuture<'_, Result<Described, Code>>;

    /// All groups that are known.
    fn groups(&self) -> BoxFuture<'_, Result<Vec<Listed>, Code>>;

    /// Forgets a group without members, and its offsets.
    fn delete(&self, group: String) -> BoxFuture<'_, Result<(), Code>>;
}
