//! How the state of a shard is laid out over ordered keys.
//!
//! Device keys begin with the slot (big endian), so that the devices of a slot are one range and a
//! shard can be split by slots. Everything else stands above the last slot, under `0xFFxx`.

use crate::id::{DeviceId, SLOT_BYTES, StreamId, slot_of};

/// Registry part of a device.
const KIND_RECORD: u8 = b'd';
/// Session part of a device.
const KIND_SESSION: u8 = b's';
/// Twin of a device.
const KIND_TWIN: u8 = b't';

/// Applied position, membership and counters.
pub const META: &[u8] = &[0xFF, 0xFF];
const STREAM_OUTCOME: [u8; 2] = [0xFF, 0x02];
const HELD_SESSION: [u8; 2] = [0xFF, 0x03];

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

/// Whether `key` is that of a device's registry record; modules' are not.
pub fn is_device_record(key: &[u8]) -> bool {
    key.len() > SLOT_BYTES + 1
        && key[0] != 0xFF
        && key[SLOT_BYTES] == KIND_RECORD
        && !key[SLOT_BYTES..].contains(&b'/')
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
