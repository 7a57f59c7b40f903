//! How the state of a shard is laid out over ordered keys.
//!
//! Device keys begin with the slot (big endian), so that the devices of a slot are one range and a
//! shard can be split by slots. Everything else stands above the last slot, under `0xFFxx`.

use crate::id::{DeviceId, SLOT_BYTES, StreamId, slot_of};
use crate::job::JobId;
use crate::quota::{Operation, keeper};

/// Registry part of a device.
const KIND_RECORD: u8 = b'd';
/// Session part of a device.
const KIND_SESSION: u8 = b's';
/// Twin of a device.
const KIND_TWIN: u8 = b't';
/// Queue of messages to a device.
const KIND_QUEUE: u8 = b'q';
/// What one message to a device carries.
const KIND_MESSAGE: u8 = b'm';

/// Individual enrolment of a registration id.
const KIND_ENROLLMENT: u8 = b'e';
/// Registration of a registration id.
const KIND_REGISTRATION: u8 = b'r';

/// Configuration.
const KIND_CONFIGURATION: u8 = b'c';
/// Right to do something alone.
const KIND_LEASE: u8 = b'l';
/// Consumer group.
const KIND_GROUP: u8 = b'g';

/// What was asked of a job.
const KIND_JOB: u8 = b'j';
/// What has become of a job.
const KIND_JOB_PROGRESS: u8 = b'k';
/// What jobs have done at a device.
const KIND_JOB_ROWS: u8 = b'w';
/// What the hub does against its plan.
const KIND_QUOTA: u8 = b'u';
/// Where the events of an erased device end.
const KIND_ERASED: u8 = b'x';
/// Uploads of a device.
const KIND_UPLOADS: u8 = b'f';

/// The membership of the group as of the last applied entry: consensus keeps it here, and nothing in this crate reads it.
pub const MEMBERSHIP: &[u8] = &[0xFF, 0xFE];
/// Applied position and counters.
pub const META: &[u8] = &[0xFF, 0xFF];
/// Notes on entries, see [`super::verdict`]: this replica's own.
pub(super) const NOTE: [u8; 2] = [0xFF, 0x01];
const STREAM_OUTCOME: [u8; 2] = [0xFF, 0x02];
const HELD_SESSION: [u8; 2] = [0xFF, 0x03];
const DUE: [u8; 2] = [0xFF, 0x04];
const FEEDBACK: [u8; 2] = [0xFF, 0x05];
const DUE_GROUP: [u8; 2] = [0xFF, 0x07];
const DUE_JOB: [u8; 2] = [0xFF, 0x08];
const ENDED_JOB: [u8; 2] = [0xFF, 0x09];
const CURSOR: [u8; 2] = [0xFF, 0x0A];
/// All erased devices together.
pub const ERASED_TOTAL: &[u8] = &[0xFF, 0x0B];
/// Which erasures a replica's segments have behind them: its own note.
pub(super) const ERASED_DONE: &[u8] = &[0xFF, 0x0C];
const LEFTOVER: [u8; 2] = [0xFF, 0x0D];
const FILE_NOTICE: [u8; 2] = [0xFF, 0x10];
/// The list of files that services are to be told of.
pub const FILE_NOTICE_LIST: &[u8] = &[0xFF, 0x11];
/// The list of feedback that senders of messages are owed.
pub const FEEDBACK_LIST: &[u8] = &[0xFF, 0x06];

fn device_key(device: &[u8], kind: u8) -> Vec<u8> {
    let mut key = Vec::with_capacity(SLOT_BYTES + 1 + device.len());
    key.extend_from_slice(&slot_of(device).0.to_be_bytes());
    key.push(kind);
    key.extend_from_slice(device);
    key
}

/// Key of a device's registry record.
pub fn record(device: &[u8]) -> Vec<u8> {
    device_key(device, KIND_RECORD)
}

/// Key of a device's session.
pub fn session(device: &[u8]) -> Vec<u8> {
    device_key(device, KIND_SESSION)
}

/// Key of a device's twin.
pub fn twin(device: &[u8]) -> Vec<u8> {
    device_key(device, KIND_TWIN)
}

/// Key of the queue of messages to a device.
pub fn queue(device: &[u8]) -> Vec<u8> {
    device_key(device, KIND_QUEUE)
}

/// Key of what message `number` to a device carries. No name holds the byte between them.
pub fn message(device: &[u8], number: u64) -> Vec<u8> {
    let mut key = device_key(device, KIND_MESSAGE);
    key.push(0);
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// Key of the uploads of a device.
pub fn uploads(device: &[u8]) -> Vec<u8> {
    device_key(device, KIND_UPLOADS)
}

/// Key of the enrolment of a registration id.
pub fn enrollment(id: &[u8]) -> Vec<u8> {
    device_key(id, KIND_ENROLLMENT)
}

/// Key of the registration of a registration id.
pub fn registration(id: &[u8]) -> Vec<u8> {
    device_key(id, KIND_REGISTRATION)
}

/// Index entry: the queue of `device` is to be looked at when `ms` is over.
pub fn due(ms: u64, device: &[u8]) -> Vec<u8> {
    let mut key = DUE.to_vec();
    key.extend_from_slice(&ms.to_be_bytes());
    key.extend_from_slice(device);
    key
}

/// The range of the index entries up to `ms`.
pub fn due_range(ms: u64) -> (Vec<u8>, Vec<u8>) {
    (DUE.to_vec(), due(ms.saturating_add(1), &[]))
}

/// The device of a key made by [`due`].
pub fn parse_due(key: &[u8]) -> Option<DeviceId> {
    DeviceId::parse_identity(std::str::from_utf8(key.get(2 + 8..)?).ok()?).ok()
}

/// Key of a configuration.
pub fn configuration(id: &str) -> Vec<u8> {
    device_key(id.as_bytes(), KIND_CONFIGURATION)
}

/// Key of a lease.
pub fn lease(name: &str) -> Vec<u8> {
    device_key(name.as_bytes(), KIND_LEASE)
}

/// Key of where the events of an erased device end.
pub fn erased(device: &[u8]) -> Vec<u8> {
    device_key(device, KIND_ERASED)
}

/// Key of the messages of the day.
pub fn quota_day() -> Vec<u8> {
    device_key(keeper::NAME.as_bytes(), KIND_QUOTA)
}

/// Key of how much was done of one kind of operation.
pub fn quota_window(operation: Operation) -> Vec<u8> {
    let mut key = quota_day();
    key.push(0);
    key.extend_from_slice(operation.name().as_bytes());
    key
}

/// Key of a consumer group.
pub fn group(id: &str) -> Vec<u8> {
    device_key(id.as_bytes(), KIND_GROUP)
}

/// The id of a group in a key made by [`group`].
pub fn parse_group(key: &[u8]) -> Option<String> {
    String::from_utf8(key.get(SLOT_BYTES + 1..)?.to_vec()).ok()
}

/// Index entry: the consumer group `id` is to be looked at when `ms` is over.
pub fn due_group(ms: u64, id: &str) -> Vec<u8> {
    let mut key = DUE_GROUP.to_vec();
    key.extend_from_slice(&ms.to_be_bytes());
    key.extend_from_slice(id.as_bytes());
    key
}

/// The range of those index entries up to `ms`.
pub fn due_group_range(ms: u64) -> (Vec<u8>, Vec<u8>) {
    (DUE_GROUP.to_vec(), due_group(ms.saturating_add(1), ""))
}

/// The group of a key made by [`due_group`].
pub fn parse_due_group(key: &[u8]) -> Option<String> {
    String::from_utf8(key.get(2 + 8..)?.to_vec()).ok()
}

/// Key of what was asked of a job.
pub fn job(id: &JobId) -> Vec<u8> {
    device_key(id.as_str().as_bytes(), KIND_JOB)
}

/// Key of what has become of a job.
pub fn job_progress(id: &JobId) -> Vec<u8> {
    device_key(id.as_str().as_bytes(), KIND_JOB_PROGRESS)
}

/// Key of what jobs have done at a device.
pub fn job_rows(device: &[u8]) -> Vec<u8> {
    device_key(device, KIND_JOB_ROWS)
}

/// The device, or module, of a key that belongs to one.
pub fn parse_device(key: &[u8]) -> Option<DeviceId> {
    DeviceId::parse_identity(std::str::from_utf8(key.get(SLOT_BYTES + 1..)?).ok()?).ok()
}

fn indexed_job(family: [u8; 2], ms: u64, id: &str) -> Vec<u8> {
    [&family[..], &ms.to_be_bytes(), id.as_bytes()].concat()
}

/// Index entry: somebody is to take the job `id` on when `ms` is over.
pub fn due_job(ms: u64, id: &JobId) -> Vec<u8> {
    indexed_job(DUE_JOB, ms, id.as_str())
}

/// The range of those index entries up to `ms`.
pub fn due_jobs_range(ms: u64) -> (Vec<u8>, Vec<u8>) {
    (DUE_JOB.to_vec(), indexed_job(DUE_JOB, ms.saturating_add(1), ""))
}

/// Index entry: the job `id` ended at `ms`.
pub fn ended_job(ms: u64, id: &JobId) -> Vec<u8> {
    indexed_job(ENDED_JOB, ms, id.as_str())
}

/// The range of those index entries up to `ms`.
pub fn ended_jobs_range(ms: u64) -> (Vec<u8>, Vec<u8>) {
    (
        ENDED_JOB.to_vec(),
        indexed_job(ENDED_JOB, ms.saturating_add(1), ""),
    )
}

/// The job of an index entry of either kind.
pub fn parse_indexed_job(key: &[u8]) -> Option<JobId> {
    JobId::parse(std::str::from_utf8(key.get(2 + 8..)?).ok()?).ok()
}

/// Key of record `number` of the feedback.
pub fn feedback(number: u64) -> Vec<u8> {
    let mut key = FEEDBACK.to_vec();
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// Key of notification `number` of a file.
pub fn file_notice(number: u64) -> Vec<u8> {
    let mut key = FILE_NOTICE.to_vec();
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// Key of what an erased device has left outside its shard.
pub fn leftover(device: &[u8]) -> Vec<u8> {
    [&LEFTOVER[..], device].concat()
}

/// The range of those keys from `after` on; of all if that is empty.
pub fn leftovers_after(after: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let [first, second] = LEFTOVER;
    (after.max(&LEFTOVER[..]).to_vec(), vec![first, second + 1])
}

/// Key of how far events have left for an endpoint.
pub fn cursor(endpoint: &str) -> Vec<u8> {
    let mut key = CURSOR.to_vec();
    key.extend_from_slice(endpoint.as_bytes());
    key
}

/// What is listed by pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listed {
    /// Registry records, modules' included.
    Records,
    /// Enrolments.
    Enrollments,
    /// Registrations.
    Registrations,
    /// Consumer groups.
    Groups,
    /// Configurations.
    Configurations,
    /// What was asked of jobs.
    Jobs,
    /// What jobs have done at devices.
    JobRows,
}

impl Listed {
    fn kind(self) -> u8 {
        match self {
            Listed::Records => KIND_RECORD,
            Listed::Enrollments => KIND_ENROLLMENT,
            Listed::Registrations => KIND_REGISTRATION,
            Listed::Groups => KIND_GROUP,
            Listed::Configurations => KIND_CONFIGURATION,
            Listed::Jobs => KIND_JOB,
            Listed::JobRows => KIND_JOB_ROWS,
        }
    }
}

/// Whether a key of [`Listed::Records`] is a module's.
pub fn is_module_record(key: &[u8]) -> bool {
    // A slot may have any byte in it.
    key.get(SLOT_BYTES..).is_some_and(|rest| rest.contains(&b'/'))
}

/// The range of the registry records of a device's modules.
pub fn modules_range(device: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let (mut from, mut to) = (record(device), record(device));
    from.push(b'/');
    // The byte after it.
    to.push(b'/' + 1);
    (from, to)
}

/// The module of a key in [`modules_range`].
pub fn parse_module(key: &[u8]) -> Option<DeviceId> {
    DeviceId::parse_identity(std::str::from_utf8(key.get(SLOT_BYTES + 1..)?).ok()?).ok()
}

/// The range of what is listed in the slot that `key` is in, from `key` on.
pub fn listed_from(listed: Listed, key: &[u8]) -> (Vec<u8>, Vec<u8>) {
    let slot = key.get(..SLOT_BYTES).unwrap_or(&[0; SLOT_BYTES]);
    let first = [slot, &[listed.kind()]].concat();
    (first.max(key.to_vec()), [slot, &[listed.kind() + 1]].concat())
}

/// The first key of the slot that `key` is in.
pub fn slot_start(key: &[u8]) -> Vec<u8> {
    key.get(..SLOT_BYTES).unwrap_or_default().to_vec()
}

/// The first key of the slot after the one that `key` is in.
pub fn next_slot(key: &[u8]) -> Vec<u8> {
    let slot = match key {
        [high, low, ..] => u16::from_be_bytes([*high, *low]),
        _ => 0,
    };
    slot.saturating_add(1).to_be_bytes().to_vec()
}

/// The first key that belongs to no device.
pub const DEVICES_END: &[u8] = &[0xFF];

fn stream_key(family: [u8; 2], stream: StreamId) -> Vec<u8> {
    let mut key = Vec::with_capacity(2 + 16 + 8);
    key.extend_from_slice(&family);
    key.extend_from_slice(&stream.gateway.0.to_be_bytes());
    key.extend_from_slice(&stream.incarnation.to_be_bytes());
    key
}

/// Key of the kept outcome in place `place` of a stream. Place 0 to 63 hold frames by sequence
/// number; [`STREAM_MARK_PLACE`] says that the stream is known.
pub fn outcome(stream: StreamId, place: u8) -> Vec<u8> {
    let mut key = stream_key(STREAM_OUTCOME, stream);
    key.push(place);
    key
}

/// The place that marks a known stream.
pub const STREAM_MARK_PLACE: u8 = 0xFF;

/// The range of all streams' keys.
pub fn outcomes_range() -> (Vec<u8>, Vec<u8>) {
    (STREAM_OUTCOME.to_vec(), HELD_SESSION.to_vec())
}

/// The stream and place of a key made by [`outcome`].
pub fn parse_outcome(key: &[u8]) -> Option<(StreamId, u8)> {
    let (family, rest) = key.split_at_checked(2)?;
    let (gateway, rest) = rest.split_at_checked(8)?;
    let (incarnation, place) = rest.split_at_checked(8)?;
    if family != STREAM_OUTCOME || place.len() != 1 {
        return None;
    }
    let gateway = crate::id::NodeId(u64::from_be_bytes(gateway.try_into().ok()?));
    let incarnation = u64::from_be_bytes(incarnation.try_into().ok()?);
    Some((StreamId { gateway, incarnation }, place[0]))
}

/// Index entry: `stream` holds a session of `device`.
pub fn held(stream: StreamId, device: &DeviceId) -> Vec<u8> {
    let mut key = stream_key(HELD_SESSION, stream);
    key.extend_from_slice(device.as_str().as_bytes());
    key
}

/// The range of the index entries of `stream`.
pub fn held_range(stream: StreamId) -> (Vec<u8>, Vec<u8>) {
    let from = stream_key(HELD_SESSION, stream);
    let mut to = from.clone();
    to.push(0xFF);
    (from, to)
}

/// The device of a key made by [`held`].
pub fn parse_held(key: &[u8]) -> Option<DeviceId> {
    DeviceId::parse_identity(std::str::from_utf8(key.get(2 + 16..)?).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::super::verdict;
    use super::*;
    use crate::id::NodeId;

    #[test]
    fn what_is_not_a_devices_has_a_family_of_its_own() {
        let stream = StreamId {
            gateway: NodeId(1),
            incarnation: 2,
        };
        let device = DeviceId::parse("dev-1").unwrap();
        let job = JobId::parse("job-1").unwrap();
        let keys = [
            verdict::key(7),
            outcome(stream, 3),
            held(stream, &device),
            due(7, b"dev-1"),
            feedback(7),
            FEEDBACK_LIST.to_vec(),
            file_notice(7),
            FILE_NOTICE_LIST.to_vec(),
            due_group(7, "g"),
            due_job(7, &job),
            ended_job(7, &job),
            MEMBERSHIP.to_vec(),
            META.to_vec(),
        ];
        let families: std::collections::BTreeSet<&[u8]> = keys.iter().map(|key| &key[..2]).collect();
        assert_eq!(families.len(), keys.len());
        // A snapshot has everything but the notes.
        let local = keys.iter().filter(|key| verdict::is_local(key)).count();
        assert_eq!(local, 1);
        assert!(keys.iter().all(|key| key.as_slice() >= DEVICES_END));
    }
}
