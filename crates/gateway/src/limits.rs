//! Every bound of the doors, with what happens when it is reached. Bounds that other crates must
//! agree on stand in [`dunlin_model::limits`]; nothing here is a setting.

use std::ops::RangeInclusive;
use std::time::Duration;

use dunlin_model::limits::{MESSAGE_BYTES_MAX, PROPERTY_BAG_BYTES_MAX, RECORD_BYTES_MAX};

/// Bytes of the first packet of a connection. Nobody is known yet, so this is all they may use: user
/// name, token and a small will fit; more is closed without an answer.
pub const CONNECT_BYTES_MAX: u32 = 8 * 1024;
/// Bytes that follow the fixed header of any later packet: a full message, its topic with the
/// property bag, and MQTT 5 properties of the bag's size. More is closed.
pub const PACKET_BYTES_MAX: u32 = (MESSAGE_BYTES_MAX + 2 * PROPERTY_BAG_BYTES_MAX) as u32;
/// Time for the TLS handshake; then the socket is closed.
pub const TLS_HANDSHAKE_WAIT: Duration = Duration::from_secs(10);
/// Time from the end of the handshake to a complete CONNECT; then the socket is closed.
pub const CONNECT_WAIT: Duration = Duration::from_secs(10);
/// Time for the cluster to admit a device, beyond damping; then the answer is "server unavailable".
pub const ADMIT_WAIT: Duration = Duration::from_secs(10);
/// Time in which a peer must take some of what we write; then the connection is closed.
pub const WRITE_STALL_WAIT: Duration = Duration::from_secs(30);
/// Bytes that the read buffer of a busy connection grows by.
pub const READ_BUFFER_BYTES: usize = 16 * 1024;
/// Bytes that the read buffer of a connection grows by until it was once full after a read. Most
/// connections are idle, and each has such a buffer.
pub const READ_BUFFER_BYTES_QUIET: usize = 1024;

/// Messages of one connection that wait for the cluster. At the bound we stop reading the socket.
pub const UPLINK_IN_FLIGHT_MAX: usize = 256;
/// Bytes of records of one connection that wait for the cluster. At the bound we stop reading.
pub const UPLINK_IN_FLIGHT_BYTES_MAX: usize = 1024 * 1024;
/// QoS 1 messages that an MQTT 5 client may have unacknowledged; one more is a protocol error.
pub const RECEIVE_MAX: u16 = 64;
/// Topic aliases that an MQTT 5 client may set.
pub const TOPIC_ALIAS_MAX: u16 = 10;
/// Bytes of a topic before the property bag. Namespaces are fixed, so longer ones are wrong anyway.
pub const TOPIC_BYTES_MAX: usize = 512 + PROPERTY_BAG_BYTES_MAX;
/// Properties in one message; more closes the connection.
pub const PROPERTIES_MAX: usize = 100;
/// Filters that one SUBSCRIBE or UNSUBSCRIBE may name; more closes the connection.
pub const FILTERS_MAX: usize = 50;

/// Silence that ends a connection, whatever keep-alive the client asked for (IoT Hub: 29.45 minutes).
pub const KEEP_ALIVE_WAIT_MAX: Duration = Duration::from_secs(1767);
/// Keep-alive in seconds that MQTT 5 clients are told to use when they ask for more, or for none.
pub const KEEP_ALIVE_S_MAX: u16 = 1177;
/// How long an established connection outlives its token; .NET and Java clients count on some time.
pub const TOKEN_GRACE: Duration = Duration::from_secs(600);
/// Seconds of a token's life that are counted at all; later is as good as never.
pub const TOKEN_LIFE_S_MAX: u64 = 10 * 365 * 24 * 3600;

/// Connects of one device within [`DAMP_WINDOW`] that pass undelayed.
pub const DAMP_FREE_CONNECTS: u32 = 10;
/// The window in which so many pass. Each of them is forgotten after its share of it.
pub const DAMP_WINDOW: Duration = Duration::from_secs(10);
/// First delay; it doubles with each further connect.
pub const DAMP_DELAY_MIN: Duration = Duration::from_millis(100);
/// Longest delay.
pub const DAMP_DELAY_MAX: Duration = Duration::from_secs(5);
/// Devices whose connects are counted. When full, the quiet ones are forgotten, then all.
pub const DAMP_DEVICES_MAX: usize = 64 * 1024;

/// Attempts to hand a closing command or a will to a busy cluster, before it is left to the shard
/// leader, which finds by itself that this gateway no longer holds the session.
pub const CLOSE_ATTEMPTS_MAX: u32 = 3;
/// Time for all of those attempts together.
pub const CLOSE_WAIT: Duration = Duration::from_secs(10);

/// Seconds for which a device may have a message that it fetched over HTTPS.
pub const MESSAGE_LOCK_S: RangeInclusive<u64> = 5..=300;
/// Pause before a shard is asked again about messages to a device.
pub const ERRAND_PAUSE: Duration = Duration::from_millis(500);

/// Connections of all listeners together, unless configured.
pub const CONNECTIONS_MAX_DEFAULT: usize = 100_000;
/// Connections that a listener takes between two turns of everything else.
pub const ACCEPTS_AT_A_TIME: usize = 8;
/// TLS handshakes under way on a listener; one more makes the oldest give way.
pub const HANDSHAKES_MAX: usize = 2_048;
/// TLS handshakes of a listener that the processor works on between two turns of everything else; others
/// wait for theirs.
pub const HANDSHAKES_AT_A_TIME: usize = 8;

/// Bytes of an HTTP request body.
pub const BODY_BYTES_MAX: usize = MESSAGE_BYTES_MAX;
/// Time for the headers of an HTTP/1 request; then the connection is closed.
pub const HEADERS_WAIT: Duration = Duration::from_secs(10);
/// Time for a whole HTTP request, its body included; then the answer is 504 (outcome unknown).
pub const REQUEST_WAIT: Duration = Duration::from_secs(40);
/// Seconds that a device has to answer a direct method, and what callers may ask for instead (as IoT Hub).
pub const METHOD_RESPONSE_S_DEFAULT: u64 = 30;
/// See [`METHOD_RESPONSE_S_DEFAULT`].
pub const METHOD_RESPONSE_S: RangeInclusive<u64> = 5..=300;
/// Seconds that a caller may have a direct method wait for a device that is not connected; 0 unless asked.
pub const METHOD_CONNECT_S_MAX: u64 = 300;
/// First pause between two looks for a device that is not connected; it doubles with each look.
pub const METHOD_LOOK_PAUSE_MIN: Duration = Duration::from_millis(100);
/// Longest pause.
pub const METHOD_LOOK_PAUSE_MAX: Duration = Duration::from_secs(1);
/// How long a device is looked for whose session was elsewhere when it was to be asked: it is just moving.
pub const METHOD_MOVING_WAIT: Duration = Duration::from_secs(1);
/// What the direct methods that callers have under way at a gateway weigh together; one more is refused. Each weighs
/// [`METHOD_WEIGHT`], and one for each KiB of its payload: 4,096 small ones, or 448 of the largest.
pub const METHODS_WEIGHT_MAX: usize = 4096 * METHOD_WEIGHT as usize;
/// See [`METHODS_WEIGHT_MAX`].
pub const METHOD_WEIGHT: u32 = 16;
/// Time for a whole request that calls a direct method: the longest waits, and reads besides.
pub const METHOD_REQUEST_WAIT: Duration = Duration::from_secs(METHOD_CONNECT_S_MAX + 300 + 30);
/// Time that a message sent over HTTP waits for its receipt; then 504.
pub const HTTP_RECEIPT_WAIT: Duration = Duration::from_secs(30);
/// HTTP/2 requests of one connection at a time.
pub const HTTP2_STREAMS_MAX: u32 = 64;
/// Pause between pings on an HTTP/2 connection; a peer that answers none is closed.
pub const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(30);
/// Devices on a page of the registry when the caller does not say.
pub const DEVICES_PAGE_DEFAULT: usize = 1000;
/// Rows on a page of a query when the caller does not say.
pub const QUERY_PAGE_DEFAULT: usize = 100;
/// Queries that a gateway answers at a time; one more is answered 429.
pub const QUERIES_MAX: usize = 32;
/// Time after which a page of a query ends, with what it has.
pub const QUERY_PAGE_WAIT: Duration = Duration::from_secs(5);
/// Shards that one query with aggregates asks at a time.
pub const QUERY_SHARDS_AT_A_TIME: usize = 4;
/// Devices that a query may name to have only them looked at; for more, all are.
pub const QUERY_DEVICES_MAX: usize = 100;
/// Pause between two looks for twins that are not what configurations say, at least.
pub const CONFIGURE_EVERY: Duration = Duration::from_secs(2);
/// A look that takes long is followed by so many times as long a pause.
pub const CONFIGURE_SHARE: u32 = 10;
/// Time for which a gateway looks alone, unless it renews that; the others try again after as long.
pub const CONFIGURE_LEASE: Duration = Duration::from_secs(10);
/// Twins that one look changes at a time.
pub const CONFIGURE_AT_A_TIME: usize = 16;
/// Pause between two looks for jobs that are due.
pub const JOB_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Jobs that one gateway runs at a time; others wait, or go to another gateway.
pub const JOBS_AT_A_TIME: usize = 8;
/// Twins that one job changes at a time.
pub const JOB_TWINS_AT_A_TIME: usize = 16;
/// Devices that one job asks at a time: all jobs of a gateway together ask fewer than one gateway passes on to another.
pub const JOB_METHODS_AT_A_TIME: usize = 48;
/// How often the runner of a job says that it is there; three times in the time after which it is given up.
pub const JOB_RENEW_EVERY: Duration = Duration::from_secs(3);
/// Pause before a shard is asked again about a job.
pub const JOB_PAUSE: Duration = Duration::from_millis(250);
/// Time that devices of a job have to come to their end when the gateway drains; the next runner finds what they left.
pub const JOB_DRAIN_WAIT: Duration = Duration::from_secs(1);
/// Events on a page when the caller does not say.
pub const EVENTS_PAGE_DEFAULT: usize = 100;
/// Events on a page at the most.
pub const EVENTS_PAGE_MAX: usize = 1000;
/// Bytes of events that one page or one step of a stream reads.
pub const EVENTS_READ_BYTES: usize = 256 * 1024;
/// Milliseconds that one request for events may wait for some.
pub const EVENTS_WAIT_MS_MAX: u64 = 20_000;
/// Twins that are fetched at a time for the events of a page, where routes look at them.
pub const EVENT_TWINS_AT_A_TIME: usize = 16;
/// Event streams that are open at a time; one more is answered 429.
pub const EVENT_STREAMS_MAX: usize = 256;
/// Pause of an event stream after a read that failed.
pub const EVENT_STREAM_RETRY_PAUSE: Duration = Duration::from_millis(500);
/// Characters of a status reason.
pub const STATUS_REASON_CHARS_MAX: usize = 128;

/// Times that a command on a consumer group is sent whose answer was lost; then its client is told to come again.
pub const KAFKA_ASKS_MAX: u32 = 2;
/// Searches for the group of a device at a time; others wait for theirs.
pub const ATTESTING_MAX: usize = 4;
/// Devices that register at a gateway at a time; one more is answered 429.
pub const PROVISIONING_MAX: usize = 256;
/// Time for a registration; then the answer is 503, and the device may ask again. Below the 30 s that SDKs wait.
pub const PROVISIONING_WAIT: Duration = Duration::from_secs(20);
/// Times that a registration is begun anew because others changed its enrolment meanwhile.
pub const PROVISIONING_ATTEMPTS_MAX: u32 = 4;
/// Time that a linked hub, or a webhook, has for one answer.
pub const PROVISIONING_CALL_WAIT: Duration = Duration::from_secs(5);
/// Time that a linked hub has to show how far away it is.
pub const PROVISIONING_PROBE_WAIT: Duration = Duration::from_secs(1);
/// Bytes of an answer of a linked hub, or a webhook: a device with its twin.
pub const PROVISIONING_ANSWER_BYTES_MAX: usize = 256 * 1024;
/// Seconds after which a device may ask again that was told to.
pub const PROVISIONING_RETRY_S: u32 = 2;
/// Bytes of what a device says when it registers (DPS: 96 KB).
pub const PROVISIONING_REQUEST_BYTES_MAX: usize = 96 * 1024;
/// Time that a device over MQTT may be silent between two requests for provisioning; then it is closed.
pub const PROVISIONING_SILENCE_WAIT: Duration = Duration::from_secs(300);
/// Enrolments in one bulk operation (DPS: 10).
pub const PROVISIONING_BULK_MAX: usize = 10;

/// Bytes of a frame of AMQP, in both directions, as we tell the peer.
pub const AMQP_FRAME_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a frame before the connection is open: nobody is known yet. More closes it.
pub const AMQP_FRAME_BYTES_FIRST: usize = CONNECT_BYTES_MAX as usize;
/// Bytes of frames that every peer takes (AMQP 1.0 has this number); one that takes less is closed.
pub const AMQP_FRAME_BYTES_MIN: usize = 512;
/// How deep values of AMQP may be nested; deeper is a decode error. What clients send needs six.
pub const AMQP_DEPTH_MAX: usize = 16;
/// Values in one frame or message of AMQP; more is a decode error.
pub const AMQP_VALUES_MAX: usize = 4 * 1024;
/// Sessions of one AMQP connection; one more closes it.
pub const AMQP_SESSIONS_MAX: usize = 64;
/// Links of one AMQP connection, all sessions together; one more closes it.
pub const AMQP_LINKS_MAX: usize = 256;
/// Tokens that one AMQP connection shows; one more, for yet another audience, is answered 429.
pub const AMQP_TOKENS_MAX: usize = 16;
/// Transfers that a peer may send in a session before it hears from us.
pub const AMQP_INCOMING_WINDOW: u32 = 2048;
/// What we tell peers of ours; it binds nobody.
pub const AMQP_OUTGOING_WINDOW: u32 = 2048;
/// Messages that a peer may have under way on a link to us; one more ends the link.
pub const AMQP_LINK_CREDIT: u32 = 64;
/// Batches of feedback that a reader over AMQP may have unsettled; it is given no more until it settles some.
pub const AMQP_FEEDBACK_UNSETTLED_MAX: usize = 16;
/// Pause after which shards are asked again for feedback where they had none.
pub const AMQP_FEEDBACK_PAUSE: Duration = Duration::from_secs(1);
/// Bytes of a message to a device as it comes over AMQP: the message, and what its sections take beside it.
pub const AMQP_DOWNWARD_BYTES_MAX: usize = dunlin_model::messages::MESSAGE_BYTES_MAX + 16 * 1024;
/// Bytes of a request to `$cbs` or `$management`, and the largest answer; more ends the link.
pub const AMQP_REQUEST_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a message on any other link, as we tell the peer: an event with all its annotations.
pub const AMQP_MESSAGE_BYTES_MAX: usize = 1024 * 1024;
/// Answers of one link that wait for the peer's credit; one more ends the link.
pub const AMQP_ANSWERS_MAX: usize = 64;
/// Questions to the cluster that one AMQP connection has open for `$management`; one more is answered 429.
pub const AMQP_QUESTIONS_MAX: usize = 16;
/// Links to partitions of all AMQP connections together; one more is refused.
pub const AMQP_READERS_MAX: usize = 512;
/// Bytes of events that such a link reads ahead.
pub const AMQP_READ_BYTES: usize = 128 * 1024;
/// First pause of such a link after a read that failed; it doubles with each further one.
pub const AMQP_READ_PAUSE_MIN: Duration = Duration::from_millis(50);
/// Longest pause.
pub const AMQP_READ_PAUSE_MAX: Duration = Duration::from_secs(2);
/// Bytes that wait to be written to a peer. At the bound nothing is read from it, and no event is sent to it.
pub const AMQP_OUT_BYTES_MAX: usize = 256 * 1024;
/// Silence after which we ask peers to say that they are there; after twice as much the connection ends.
pub const AMQP_IDLE_WAIT: Duration = Duration::from_secs(120);
/// Time that a connection may be without a token that counts; then it ends.
pub const AMQP_TOKEN_WAIT: Duration = Duration::from_secs(60);
/// How often a connection looks at its tokens, its policies and its clocks.
pub const AMQP_LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Time to write what is left to a connection that ends.
pub const AMQP_CLOSE_WAIT: Duration = Duration::from_secs(2);

// Whatever passes the packet bound and the message bound fits one record.
const _: () = assert!(MESSAGE_BYTES_MAX < RECORD_BYTES_MAX);
const _: () = assert!(UPLINK_IN_FLIGHT_BYTES_MAX >= 2 * RECORD_BYTES_MAX);
// An event fits a message of AMQP: its payload, its properties with what types and lengths add, its annotations.
const _: () = assert!(MESSAGE_BYTES_MAX + 8 * PROPERTY_BAG_BYTES_MAX < AMQP_MESSAGE_BYTES_MAX);
const _: () = assert!(RECEIVE_MAX as usize <= UPLINK_IN_FLIGHT_MAX);

/// Things that wait at a gateway for the hub's plan; one more is told at once that it comes too soon.
pub const QUOTA_WAITING_MAX: usize = 64 * 1024;
/// How long a request is delayed that comes too soon for the hub's plan; then the answer is 429.
pub const QUOTA_WAIT: Duration = Duration::from_secs(1);
/// How long a device that connects is delayed; then the answer is "server unavailable".
pub const QUOTA_CONNECT_WAIT: Duration = Duration::from_secs(5);
/// Between two looks whether policies or authorities have changed that open sessions rest on.
pub const STANDING_LOOK: Duration = Duration::from_millis(250);
/// How long a device's messages are delayed; then they are refused.
pub const QUOTA_MESSAGE_WAIT: Duration = Duration::from_secs(10);
/// How often a gateway at which something waits looks whether the hub has another plan.
pub const QUOTA_LOOK: Duration = Duration::from_millis(250);
/// Pause before the keeper of the plan is asked again that could not be.
pub const QUOTA_PAUSE: Duration = Duration::from_millis(50);

/// How often a gateway looks which endpoints there are for routed events.
pub const DISPATCH_LOOK: Duration = Duration::from_secs(1);
/// How long one gateway serves an endpoint alone without asking again; half of it at least passes before another takes
/// over from one that died.
pub const DISPATCH_LEASE: Duration = Duration::from_secs(6);
/// Pauses after something of an endpoint failed; they double.
pub const DISPATCH_PAUSE_MIN: Duration = Duration::from_millis(250);
/// See [`DISPATCH_PAUSE_MIN`].
pub const DISPATCH_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Bytes of records that are read at a time for an endpoint.
pub const DISPATCH_READ_BYTES: usize = 128 * 1024;
/// How often a shard is told how far an endpoint is that gets nothing of what there is.
pub const DISPATCH_COMMIT_EVERY: Duration = Duration::from_secs(10);
/// How long a webhook may take.
pub const DISPATCH_CALL_WAIT: Duration = Duration::from_secs(20);
/// Bytes of its answer, which nobody reads.
pub const DISPATCH_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// Bytes of a file of events that is large enough.
pub const DISPATCH_FILE_BYTES: usize = 4 * 1024 * 1024;
/// How long an event waits for others that share its file.
pub const DISPATCH_FILE_WAIT: Duration = Duration::from_secs(60);
/// Shards that are told of an endpoint at a time.
pub const DISPATCH_SHARDS_AT_A_TIME: usize = 16;

/// Bodies of files that come in at a time; one more is answered 503. Each has less than a megabyte in memory where the
/// store is a folder, and two parts of eight where it is in a cloud.
pub const UPLOADS_AT_A_TIME: usize = 32;
/// The same of one device.
pub const UPLOADS_OF_A_DEVICE_AT_A_TIME: usize = 8;
/// Time for one body, from its head until the file is put in its place; then what came is thrown away, and the answer is 408.
pub const UPLOAD_WAIT: Duration = Duration::from_secs(3600);
/// Time after that for the answer; then it is 504, and nobody knows.
pub const UPLOAD_ANSWER_WAIT: Duration = Duration::from_secs(60);
/// Time in which some of a body must come; then what came is thrown away.
pub const UPLOAD_STALL_WAIT: Duration = Duration::from_secs(30);
/// Bytes of a body that must come in a second, on the average of each [`UPLOAD_STALL_WAIT`] that it was waited for: what a
/// modem of 2G does. Whoever wants to hold all seats must bring as much in each of them, for an hour at the most.
pub const UPLOAD_RATE_BYTES_MIN: u64 = 2 * 1024;
/// Files that are read at a time; one more is answered 503. Each has two pieces of 256 KiB in memory.
pub const UPLOAD_READS_AT_A_TIME: usize = 64;
/// Time in which whoever reads a file must take a piece, and the store give one; then the answer is cut.
pub const UPLOAD_READ_STALL_WAIT: Duration = Duration::from_secs(30);
/// Blocks of a file, and those that wait to be one.
pub const UPLOAD_BLOCKS_MAX: usize = 10_000;
/// Bytes of a list of blocks.
pub const UPLOAD_LIST_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Uploads whose blocks a gateway removes at a time, because they are a file or the upload is over. Those of one more are
/// left to the sweep.
pub const UPLOADS_CLEARED_AT_A_TIME: usize = 64;
/// Uploads of which a gateway remembers how much waits under them. When full, all are forgotten, and looked up again.
pub const UPLOADS_STAGED_KNOWN_MAX: usize = 4 * 1024;
/// How often what uploads left behind is looked for.
pub const UPLOADS_SWEEP_EVERY: Duration = Duration::from_secs(600);
/// Files that cannot be removed, after which a sweep goes on another time.
pub const UPLOADS_SWEEP_FAILED_MAX: usize = 1024;
/// Files that are listed at a time then.
pub const UPLOADS_SWEPT_AT_A_TIME: usize = 256;

/// How often a gateway looks what erased devices have left outside their shards.
pub const LEFTOVERS_LOOK: Duration = Duration::from_secs(5);
/// The same while files of some cannot be removed.
pub const LEFTOVERS_PAUSE: Duration = Duration::from_secs(60);
/// How long one gateway alone removes registrations of erased devices without asking again.
pub const LEFTOVERS_LEASE: Duration = Duration::from_secs(20);
/// How long an erased device is looked after: within it comes what was on its way into the store when it was erased, if it
/// ever does.
pub const LEFTOVERS_STAY: Duration = UPLOAD_ANSWER_WAIT;
/// By how much stamps of two shards may differ that were made at the same time, and some more.
pub const LEFTOVERS_STAMPS_APART: Duration = Duration::from_secs(4);
