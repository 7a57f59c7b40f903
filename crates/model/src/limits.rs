//! Every bound of the system that more than one crate must agree on, with its relations proved at
//! compile time. Bounds of one crate alone live in that crate.

/// Slots that device ids hash to. Fixed for ever: state keys begin with the slot.
pub const SLOT_COUNT: u16 = 4096;
/// Shards of a cluster unless told otherwise at creation.
pub const SHARD_COUNT_DEFAULT: u32 = 16;
/// Shards that a cluster may have.
pub const SHARD_COUNT_MAX: u32 = 256;
/// Characters of a device id, and of a module id.
pub const DEVICE_ID_BYTES_MAX: usize = 128;
/// Characters of the name of a module with its device, `device/module`: a telemetry record has one byte for it.
pub const IDENTITY_BYTES_MAX: usize = 255;
/// Modules of one device (IoT Hub: 50).
pub const MODULES_PER_DEVICE_MAX: usize = 50;
/// Bytes of one device-to-cloud message: property bag and payload together (IoT Hub: 256 KiB).
pub const MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// Bytes of the property bag inside a message.
pub const PROPERTY_BAG_BYTES_MAX: usize = 8 * 1024;
/// Bytes of one telemetry record: a full message, its sender's name and its header.
pub const RECORD_BYTES_MAX: usize = MESSAGE_BYTES_MAX + IDENTITY_BYTES_MAX + 64;
/// Bytes that a gateway gathers into one frame, and a shard into one log entry, before it closes it.
/// The last record may exceed it by one record.
pub const BATCH_BYTES_TARGET: usize = 256 * 1024;
/// Bytes of one log entry at the most.
pub const ENTRY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Commands in one frame at the most.
pub const FRAME_COMMANDS_MAX: usize = 1024;
/// Bytes that a command counts for in budgets and batches, beside those of a twin's text; the doors keep the rest of
/// each below it.
pub const COMMAND_WEIGHT_BYTES: usize = 1024;
/// Log entries that a shard leader keeps in flight; meanwhile commands gather into the next.
pub const ENTRIES_IN_FLIGHT_MAX: usize = 4;
/// Frames that a stream may have unanswered, and outcomes that the shard keeps for it.
pub const STREAM_FRAMES_IN_FLIGHT_MAX: u64 = 64;
/// Streams that a shard knows at one time (gateways, with their earlier incarnations).
pub const STREAMS_PER_SHARD_MAX: usize = 1024;
/// Bytes of one message between nodes at the most.
pub const WIRE_FRAME_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Bytes of events that one read returns at the most, beyond the first run.
pub const READ_BYTES_MAX: usize = 1024 * 1024;
/// Devices that one page of a listing holds.
pub const DEVICE_PAGE_MAX: usize = 1000;
/// Enrolments or registrations that one page of a listing holds: each may be large.
pub const PROVISIONING_PAGE_MAX: usize = 50;
/// Jobs that one page of a listing holds.
pub const JOB_LIST_MAX: usize = 100;
/// Jobs that one answer names which are due.
pub const JOBS_DUE_MAX: usize = 64;
/// Rows of a query that one page holds.
pub const FLEET_PAGE_MAX: usize = 1000;
/// Twins that one step of a query looks at, found or not.
pub const FLEET_STEP_MAX: usize = 1000;
/// Bytes of a row of a query; a whole twin that has more is shown without the times of its properties.
pub const FLEET_ROW_BYTES_MAX: usize = 1024 * 1024;
/// Milliseconds that the leader's clock may lead the last stamp of its log in one entry.
pub const TIME_JUMP_MS_MAX: u64 = 24 * 3600 * 1000;

// A frame that closed on the target plus one full record still fits one entry ...
const _: () = assert!(BATCH_BYTES_TARGET + RECORD_BYTES_MAX <= ENTRY_BYTES_MAX);
// ... also when the shard had gathered up to its own target before it took the frame in ...
const _: () = assert!(2 * BATCH_BYTES_TARGET + RECORD_BYTES_MAX <= ENTRY_BYTES_MAX);
// ... as does a frame of commands alone ...
const _: () = assert!(FRAME_COMMANDS_MAX * COMMAND_WEIGHT_BYTES + BATCH_BYTES_TARGET <= ENTRY_BYTES_MAX);
// ... also when its last command is the largest change of a twin ...
const _: () = assert!(
    2 * BATCH_BYTES_TARGET + COMMAND_WEIGHT_BYTES + 2 * crate::twin::TEXT_BYTES_MAX + RECORD_BYTES_MAX
        <= ENTRY_BYTES_MAX
);
// ... or the largest enrolment ...
const _: () = assert!(crate::provisioning::ENROLLMENT_BYTES_MAX <= 2 * crate::twin::TEXT_BYTES_MAX);
// ... or the largest job, or the largest step of one ...
const _: () = assert!(crate::job::JOB_SPEC_BYTES_MAX <= 2 * crate::twin::TEXT_BYTES_MAX);
const _: () =
    assert!(crate::job::JOB_PAGE_DEVICES_MAX * IDENTITY_BYTES_MAX <= 2 * crate::twin::TEXT_BYTES_MAX);
// ... a page of enrolments with their registrations fits one message between nodes, escaped as JSON text may be ...
const _: () = assert!(
    PROVISIONING_PAGE_MAX
        * (crate::provisioning::ENROLLMENT_BYTES_MAX + crate::provisioning::PAYLOAD_BYTES_MAX + 8 * 1024)
        <= WIRE_FRAME_BYTES_MAX
);
// ... as does a page of jobs that was below its bound before its last one ...
const _: () = assert!(
    READ_BYTES_MAX + 2 * (crate::job::JOB_SPEC_BYTES_MAX + JOB_LIST_MAX * 1024) + 64 * 1024
        <= WIRE_FRAME_BYTES_MAX
);
// ... a page of a query that was below its bound before its last row fits one, too ...
const _: () = assert!(READ_BYTES_MAX + FLEET_ROW_BYTES_MAX + 64 * 1024 <= WIRE_FRAME_BYTES_MAX);
// ... and one entry fits one message between nodes, header included.
const _: () = assert!(ENTRY_BYTES_MAX + 64 * 1024 <= WIRE_FRAME_BYTES_MAX);
const _: () = assert!(PROPERTY_BAG_BYTES_MAX < MESSAGE_BYTES_MAX);
