//! Consumer groups: who consumes together, what each of them was assigned, and how far the group has read.
//!
//! The coordinator's side of Kafka's classic group protocol (protocol guide, JoinGroup to OffsetDelete; KIP-62, 211, 345,
//! 394, 496, 559, 814) as a value: [`Group`] is all that is kept of one group, each of its operations is one command, and
//! time is the stamp that the command carries. It never looks at a clock, never waits, never draws, and never looks into
//! what members say to each other. An absent group is [`Group::default`]: every operation on it gives the right answer.
//!
//! Rebalances are decided in `state`, which says how time passes; `join` and `sync` decide who comes in and what comes
//! out, `session` who stays, [`offsets`] and `commit` what is remembered, [`view`] what others see. Requests and answers
//! are in [`request`], errors in [`error`], what travels in [`ask`].
//!
//! # Waiting
//!
//! Kafka parks JoinGroup until all have joined and SyncGroup until the leader has spoken. Here both are recorded at once,
//! and whoever asked reads until there is an answer: [`Group::join_result`] with the generation that
//! [`join`](Group::join) named, [`Group::sync_result`] with the generation that was synced. An answer can only come about
//! when [`Group::turn`] changes, so that is what to watch. Generations rise with each rebalance, so an answer is never
//! that of an earlier one. The gateway may die meanwhile, and the shard's leader may move: what is waited for is in the
//! state, and any gateway may read it.
//!
//! # Twice
//!
//! A command whose answer was lost may be sent again. Each operation says why that is harmless. All of them let time pass
//! first, also when they then refuse: the state is to be stored whatever the answer is.

pub mod ask;
mod commit;
pub mod error;
mod join;
mod member;
pub mod offsets;
pub mod opaque;
pub mod request;
mod session;
mod state;
mod sync;
mod text;
pub mod view;

pub use error::GroupError;
pub use opaque::Opaque;
pub use state::{Group, Phase};

#[cfg(test)]
mod tests;

// All of these are constants and not settings: two replicas that disagreed about one would disagree about the state.

/// Bytes of a group's id.
pub const GROUP_ID_BYTES_MAX: usize = 256;
/// Members of one group (Kafka: `group.max.size`, unbounded there).
pub const MEMBERS_MAX: usize = 256;
/// Members that were given an id and have not joined with it. The oldest goes when there are more; it is told so when it
/// joins, and begins again.
pub const PENDING_MEMBERS_MAX: usize = 256;
/// Bytes of a member id. Doors draw it, so they keep what they take of the client's id short enough.
pub const MEMBER_ID_BYTES_MAX: usize = 128;
/// Bytes of an instance id, `group.instance.id` (Kafka: 249, as a topic's name).
pub const INSTANCE_ID_BYTES_MAX: usize = 249;
/// Bytes of a client's id, and of its host; doors cut what is longer.
pub const CLIENT_BYTES_MAX: usize = 255;
/// Bytes of the name of a protocol, and of a protocol type.
pub const PROTOCOL_BYTES_MAX: usize = 64;
/// Protocols that one member offers (librdkafka: one for each of `partition.assignment.strategy`, so 2).
pub const PROTOCOLS_MAX: usize = 8;
/// Bytes of metadata that one member offers, of all its protocols together.
pub const METADATA_BYTES_MAX: usize = 16 * 1024;
/// Bytes of what one command carries: metadata, assignments or offsets.
pub const COMMAND_BYTES_MAX: usize = 128 * 1024;
/// Partitions for which a group keeps an offset.
pub const OFFSETS_MAX: usize = 1024;
/// Bytes of the text that a client keeps with an offset (Kafka: `offset.metadata.max.bytes`, 4096).
pub const OFFSET_METADATA_BYTES_MAX: usize = 4096;
/// Bytes of a topic's name (Kafka: 249).
pub const TOPIC_BYTES_MAX: usize = 249;

/// Bytes of a stored group, as JSON.
pub const GROUP_BYTES_MAX: usize = 512 * 1024;
/// Of these, for members and those who are to join again, without what is assigned to them. 256 members of librdkafka's
/// default kind need 150 KiB.
pub const MEMBERS_BYTES_MAX: usize = 232 * 1024;
/// Of these, for all assignments of one generation. Kept free, so that a group that was let in can be assigned.
pub const ASSIGNMENTS_BYTES_MAX: usize = 112 * 1024;
/// Of these, for offsets.
pub const OFFSETS_BYTES_MAX: usize = 160 * 1024;
/// Of these, for the rest.
pub const HEAD_BYTES_MAX: usize = 8 * 1024;

/// Shortest session (Kafka: `group.min.session.timeout.ms`).
pub const SESSION_TIMEOUT_MS_MIN: u32 = 6_000;
/// Longest session (Kafka: `group.max.session.timeout.ms`).
pub const SESSION_TIMEOUT_MS_MAX: u32 = 30 * 60 * 1000;
/// A shorter rebalance timeout counts as this one: a round of commands through the log must fit, or no group comes about.
pub const REBALANCE_TIMEOUT_MS_MIN: u32 = 1_000;
/// A longer one counts as this one (librdkafka: the most that `max.poll.interval.ms` can be).
pub const REBALANCE_TIMEOUT_MS_MAX: u32 = 24 * 3600 * 1000;
/// How long the first rebalance of an empty group waits for others after each member that comes (Kafka:
/// `group.initial.rebalance.delay.ms`, 3 s). A second: librdkafka tries to join once a second, so whoever was started
/// together comes within it, and a lone consumer does not wait for long.
pub const INITIAL_REBALANCE_DELAY_MS: u64 = 1_000;
/// How long it waits in all, however many come: the rebalance timeout, but not longer than this.
pub const INITIAL_REBALANCE_DELAY_MS_MAX: u64 = 10_000;
/// How long a member may wait in its first join without asking again (Kafka: 5 minutes). Its client may be gone; of other
/// members a session would tell.
pub const NEW_MEMBER_JOIN_TIMEOUT_MS: u64 = 5 * 60 * 1000;
/// How long an id is good that was given and not joined with (Kafka: the session timeout). Clients use it at once, and a
/// rebalance waits for them.
pub const PENDING_MEMBER_TIMEOUT_MS: u64 = 10_000;
/// How long the offsets of an empty group are kept (Kafka: `offsets.retention.minutes`, 7 days; KIP-211).
pub const OFFSETS_RETENTION_MS: u64 = 7 * 24 * 3600 * 1000;

const _: () = assert!(
    MEMBERS_BYTES_MAX + ASSIGNMENTS_BYTES_MAX + OFFSETS_BYTES_MAX + HEAD_BYTES_MAX <= GROUP_BYTES_MAX
);
// One command can bring the largest assignment ...
const _: () = assert!(ASSIGNMENTS_BYTES_MAX / 4 * 3 <= COMMAND_BYTES_MAX);
// ... and the most that a member may offer; a few such members fit.
const _: () = assert!(8 * opaque::text_bytes(METADATA_BYTES_MAX) <= MEMBERS_BYTES_MAX);
// All partitions of one topic fit, if their offsets come without texts.
const _: () = assert!(OFFSETS_MAX * offsets::OFFSET_FRAME_BYTES + 1024 <= OFFSETS_BYTES_MAX);
// What follows a time-out is a later time-out, or passing time would never come to an end.
const _: () = assert!(REBALANCE_TIMEOUT_MS_MIN > 0 && SESSION_TIMEOUT_MS_MIN > 0);
const _: () = assert!(INITIAL_REBALANCE_DELAY_MS <= REBALANCE_TIMEOUT_MS_MIN as u64);

/// Whether a text can be the id of a group.
pub fn check_group_id(id: &str) -> Result<(), GroupError> {
    if text::is_name(id, GROUP_ID_BYTES_MAX) {
        Ok(())
    } else {
        Err(GroupError::InvalidGroupId)
    }
}
