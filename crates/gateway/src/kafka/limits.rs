//! Every bound of the Kafka door, with what happens when it is reached.
//!
//! Nothing here is a setting. What clients may ask for is cut down to these without a word, as Kafka does it; what they
//! may send is refused.

use std::time::Duration;

// What a group keeps is bounded by the group: more metadata is `OFFSET_METADATA_TOO_LARGE`, a longer client id is cut.
pub use dunlin_model::group::{CLIENT_BYTES_MAX, OFFSET_METADATA_BYTES_MAX};

/// Bytes of a request before its sender is known: a connection string fits many times. More is closed.
pub const REQUEST_BYTES_FIRST: usize = 16 * 1024;
/// Bytes of a request of somebody known. More is closed.
pub const REQUEST_BYTES_MAX: usize = 1024 * 1024;
/// Elements of all arrays of a request together. More is closed; a consumer of 32 partitions has some forty.
pub const REQUEST_ELEMENTS_MAX: usize = 4 * 1024;
/// Tagged fields of a request, its header included. More is closed; clients send none or one.
pub const REQUEST_TAGS_MAX: usize = 64;
/// Requests of one connection that wait for their turn. At the bound nothing is read from it.
pub const REQUESTS_WAITING_MAX: usize = 16;
/// Bytes of such requests; before the sender is known, [`REQUEST_BYTES_FIRST`]. At the bound nothing is read from it.
pub const REQUESTS_WAITING_BYTES_MAX: usize = REQUEST_BYTES_MAX;
/// Bytes of any answer but that of a fetch. One that would be larger is not given: the connection ends.
pub const ANSWER_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes that the read buffer of a connection grows by.
pub const READ_BUFFER_BYTES: usize = 4 * 1024;

/// Time from the end of the TLS handshake to a password that counts; then the connection ends.
pub const SIGN_IN_WAIT: Duration = Duration::from_secs(10);
/// Pause before a password is refused. It holds back those who would dial and ask again at once.
pub const REFUSAL_PAUSE: Duration = Duration::from_secs(1);
/// Time that a connection may be without a request; then it ends. Kafka's own number, which clients know of.
pub const IDLE_WAIT: Duration = Duration::from_secs(600);
/// Time in which a peer must take some of what we write; then the connection ends.
pub const WRITE_STALL_WAIT: Duration = Duration::from_secs(30);
/// Time in which a peer must have taken the whole of an answer; then the connection ends. Answers share one memory.
pub const WRITE_WAIT: Duration = Duration::from_secs(300);
/// How often a connection looks at its policy and its clocks.
pub const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Time to write what is left to a connection that ends.
pub const CLOSE_WAIT: Duration = Duration::from_secs(2);

/// Bytes of events in the answer to a fetch, whatever more was asked for; the first event comes however large it is.
pub const FETCH_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Bytes of events of one partition in such an answer, with the same exception.
pub const FETCH_PARTITION_BYTES_MAX: usize = 512 * 1024;
/// Bytes of events that a fetch asks of a partition which it had to wait for.
pub const FETCH_WAKE_BYTES: usize = 64 * 1024;
/// Partitions that a fetch reads at a time, as long as it does not wait.
pub const FETCH_READS_AT_A_TIME: usize = 8;
/// Time that a fetch may wait for events, whatever more was asked for.
pub const FETCH_WAIT_MAX: Duration = Duration::from_secs(20);
/// Time that partitions have for their first answer to a fetch; who has not answered then counts as unreachable.
pub const FETCH_FIRST_WAIT: Duration = Duration::from_secs(2);
/// The same if others have answered with events by then.
pub const FETCH_LAGGARD_WAIT: Duration = Duration::from_secs(1);
/// Pause before a partition is asked again whether it really ends before the offset that a fetch begins at.
pub const FETCH_AHEAD_PAUSE: Duration = Duration::from_millis(500);
/// Partitions that all fetches of a gateway read or wait for; a fetch waits for its share.
pub const READS_MAX: usize = 8 * 1024;
/// KiB of events that wait to be written to their readers, all connections together; a fetch waits for its share.
pub const FETCH_KIB_MAX: usize = 128 * 1024;

/// Partitions that are asked at a time for their bounds, or for the offset of a time, by one request.
pub const LOOKS_AT_A_TIME: usize = 8;
/// Time that a partition has to say where it begins and ends; then it counts as unreachable.
pub const LOOK_WAIT: Duration = Duration::from_secs(5);

/// Groups that one request may name. The rest is answered with `INVALID_REQUEST`.
pub const GROUPS_MAX: usize = 128;
/// Time that a member may ask others to join within, and so the longest that a join waits.
pub const REBALANCE_WAIT_MAX: Duration = Duration::from_secs(900);
/// Time that a join waits beyond its member's own. Members give a join up five seconds after it (Kafka's own client).
pub const GROUP_WAIT_GRACE: Duration = Duration::from_secs(2);
/// Time that a group has for one answer; then it counts as unreachable.
pub const GROUP_ANSWER_WAIT: Duration = Duration::from_secs(10);
/// First pause between two looks at a group that is not ready; it doubles with each look.
pub const GROUP_LOOK_PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause.
pub const GROUP_LOOK_PAUSE_MAX: Duration = Duration::from_millis(500);

// Whoever is known may send what whoever is not may, and a full answer has room in the memory for fetches.
const _: () = assert!(REQUEST_BYTES_FIRST <= REQUEST_BYTES_MAX);
const _: () = assert!(FETCH_BYTES_MAX / 1024 <= FETCH_KIB_MAX);
const _: () =
    assert!(FETCH_WAKE_BYTES <= FETCH_PARTITION_BYTES_MAX && FETCH_PARTITION_BYTES_MAX <= FETCH_BYTES_MAX);
// Whoever is refused is told so.
const _: () = assert!(REFUSAL_PAUSE.as_millis() < SIGN_IN_WAIT.as_millis());
// A policy that is gone is noticed within two seconds.
const _: () = assert!(LOOK_INTERVAL.as_millis() * 2 <= 2000);
