//! Names of things: devices, slots, shards, nodes, replicas, streams.
//!
//! A value of these types has passed its checks; nothing behind the door checks again. How slots
//! are spread over shards is decided in [`crate::directory`], never here.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::limits::{DEVICE_ID_BYTES_MAX, IDENTITY_BYTES_MAX, SLOT_COUNT};

/// The name of whoever may connect: a device, or a module of one, `device/module`.
///
/// Each part has 1 to 128 ASCII characters, letters, digits and `-.%_*?!(),:=@$'`. Case counts. IoT Hub also allows `+`
/// and `#`; they are wildcards of MQTT and cannot stand in a topic that a device publishes to, so an identity with one
/// could never send: refused at the door. Modules live in the slot of their device, and have all that a device has but
/// modules and a status of their own.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct DeviceId(std::sync::Arc<str>);

/// Why a text is not a device id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DeviceIdError {
    /// No characters at all.
    #[error("device id is empty")]
    Empty,
    /// More than [`DEVICE_ID_BYTES_MAX`] characters.
    #[error("device id has {0} characters, {DEVICE_ID_BYTES_MAX} at most")]
    TooLong(usize),
    /// Device and module have more than [`IDENTITY_BYTES_MAX`] characters.
    #[error("device and module id have {0} characters together, {IDENTITY_BYTES_MAX} at most")]
    TooLongTogether(usize),
    /// A character outside the permitted set.
    #[error("device id has a forbidden character {0:?}; letters, digits and -.%_*?!(),:=@$' are allowed")]
    Forbidden(char),
}

impl DeviceId {
    /// The name of a device, checked.
    pub fn parse(text: &str) -> Result<Self, DeviceIdError> {
        check_part(text)?;
        Ok(Self(text.into()))
    }

    /// The name of a device or of a module, checked.
    pub fn parse_identity(text: &str) -> Result<Self, DeviceIdError> {
        let (device, module) = identity_parts(text);
        Self::of_parts(device, module)
    }

    /// The name of a device, or of a module of it, from what each is called; checked.
    pub fn of_parts(device: &str, module: Option<&str>) -> Result<Self, DeviceIdError> {
        let device = Self::parse(device)?;
        match module {
            None => Ok(device),
            Some(module) => device.of_module(module),
        }
    }

    /// The name of a module of this device. It has no `=` and no `?` in front: in a user name it would be taken for
    /// properties.
    pub fn of_module(&self, module: &str) -> Result<Self, DeviceIdError> {
        check_part(module)?;
        if module.contains('=') {
            return Err(DeviceIdError::Forbidden('='));
        }
        if module.starts_with('?') {
            return Err(DeviceIdError::Forbidden('?'));
        }
        let text = format!("{}/{module}", self.device_part());
        if text.len() > IDENTITY_BYTES_MAX {
            return Err(DeviceIdError::TooLongTogether(text.len()));
        }
        Ok(Self(text.into()))
    }

    /// The name of the device alone.
    pub fn device_part(&self) -> &str {
        identity_parts(&self.0).0
    }

    /// The name of the module within its device, if it is one.
    pub fn module_part(&self) -> Option<&str> {
        identity_parts(&self.0).1
    }

    /// The device that this module belongs to, if it is one.
    pub fn parent(&self) -> Option<DeviceId> {
        self.module_part().map(|_| Self(self.device_part().into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The slot this device lives in, for ever.
    pub fn slot(&self) -> Slot {
        slot_of(self.0.as_bytes())
    }
}

/// What `device/module` names, or `device`, unchecked.
pub fn identity_parts(text: &str) -> (&str, Option<&str>) {
    match text.split_once('/') {
        None => (text, None),
        Some((device, module)) => (device, Some(module)),
    }
}

fn check_part(text: &str) -> Result<(), DeviceIdError> {
    if text.is_empty() {
        return Err(DeviceIdError::Empty);
    }
    if text.len() > DEVICE_ID_BYTES_MAX {
        return Err(DeviceIdError::TooLong(text.len()));
    }
    match text.chars().find(|c| !is_device_id_char(*c)) {
        Some(c) => Err(DeviceIdError::Forbidden(c)),
        None => Ok(()),
    }
}

fn is_device_id_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || "-.%_*?!(),:=@$'".contains(c)
}

impl TryFrom<String> for DeviceId {
    type Error = DeviceIdError;
    fn try_from(text: String) -> Result<Self, DeviceIdError> {
        Self::parse_identity(&text)
    }
}

impl From<DeviceId> for String {
    fn from(id: DeviceId) -> String {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

/// Bytes of a slot at the front of a state key.
pub const SLOT_BYTES: usize = 2;

/// One of the [`SLOT_COUNT`] fixed parts of the device id space.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Slot(pub u16);

/// The slot of the bytes of an identity: `xxh3_64(device) mod 4096`, of its device alone. Golden values below; it never
/// changes.
pub fn slot_of(identity: &[u8]) -> Slot {
    let device = identity.split(|byte| *byte == b'/').next().unwrap_or(identity);
    Slot((xxhash_rust::xxh3::xxh3_64(device) % u64::from(SLOT_COUNT)) as u16)
}

/// A shard: one Raft group that owns a set of slots. Numbered from 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ShardId(pub u32);

impl ShardId {
    /// The Raft group of this shard. Group 0 is the directory, so shard `n` is group `n + 1`.
    ///
    /// A number that no shard has, as a peer may send it, is a group that nobody has; never the directory.
    pub fn group(self) -> GroupId {
        GroupId(self.0.saturating_add(1))
    }
}

impl fmt::Display for ShardId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A Raft group: 0 is the directory, the others are shards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GroupId(pub u32);

impl GroupId {
    /// The group of the directory.
    pub const DIRECTORY: GroupId = GroupId(0);

    /// The shard that this group serves, or `None` for the directory.
    pub fn shard(self) -> Option<ShardId> {
        self.0.checked_sub(1).map(ShardId)
    }
}

impl fmt::Display for GroupId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.shard() {
            None => f.write_str("directory"),
            Some(shard) => write!(f, "shard-{shard}"),
        }
    }
}

/// A node: drawn at random when its data directory is made, and as old as that directory.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct NodeId(pub u64);

impl NodeId {
    /// Reads the sixteen hexadecimal digits that [`fmt::Display`] writes.
    pub fn parse(text: &str) -> Option<NodeId> {
        (text.len() == 16)
            .then(|| u64::from_str_radix(text, 16).ok().map(NodeId))
            .flatten()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// One replica of one group: issued by the directory, never reused. This is Raft's node id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ReplicaId(pub u64);

/// A replica as the disk knows it. Journal records, keyspaces and segment folders carry both parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GroupReplica {
    /// The group.
    pub group: GroupId,
    /// The replica's own id.
    pub replica: ReplicaId,
}

impl fmt::Display for GroupReplica {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-r{}", self.group, self.replica.0)
    }
}

/// A place in a group's log: Raft's (term, index), with the leader that wrote it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct LogPosition {
    /// Term of the leader that proposed the entry.
    pub term: u64,
    /// Replica id of that leader; several leaders of one term can follow each other.
    pub leader: u64,
    /// Index, from 0 (the first membership entry).
    pub index: u64,
}

/// The sender side of a submission stream: one run of one gateway process towards one shard.
///
/// A restarted gateway has a new incarnation, so that its sequence numbers never meet old ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct StreamId {
    /// The node that the gateway runs in.
    pub gateway: NodeId,
    /// Drawn at random when that process starts.
    pub incarnation: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_have_golden_values() {
        for (id, slot) in [
            ("dev-1", 2720),
            ("dev-2", 3058),
            ("thermostat-42", 3526),
            ("a", 3615),
        ] {
            assert_eq!(DeviceId::parse(id).unwrap().slot(), Slot(slot), "{id}");
        }
    }

    #[test]
    fn a_module_is_named_by_its_device_and_lives_with_it() {
        let device = DeviceId::parse("dev-1").unwrap();
        let module = device.of_module("camera").unwrap();
        assert_eq!((module.as_str(), module.slot()), ("dev-1/camera", device.slot()));
        assert_eq!(
            (module.device_part(), module.module_part()),
            ("dev-1", Some("camera"))
        );
        assert_eq!(module.parent(), Some(device.clone()));
        assert_eq!((device.parent(), device.module_part()), (None, None));
        assert_eq!(DeviceId::parse_identity("dev-1/camera"), Ok(module.clone()));
        assert_eq!(module.of_module("x").unwrap().as_str(), "dev-1/x");
        for wrong in [
            "dev-1/",
            "/camera",
            "/",
            "dev-1/a/b",
            "dev-1/a b",
            "dev-1/a=b",
            "dev-1/?a",
        ] {
            assert!(DeviceId::parse_identity(wrong).is_err(), "{wrong}");
        }
        let long = "x".repeat(128);
        assert_eq!(
            DeviceId::parse(&long).unwrap().of_module(&long),
            Err(DeviceIdError::TooLongTogether(257))
        );
    }

    #[test]
    fn device_ids_are_checked_at_the_door() {
        assert!(DeviceId::parse("Dev-1.%_*?!(),:=@$'").is_ok());
        assert_eq!(DeviceId::parse(""), Err(DeviceIdError::Empty));
        assert_eq!(
            DeviceId::parse(&"x".repeat(129)),
            Err(DeviceIdError::TooLong(129))
        );
        for bad in ["a/b", "a b", "a+b", "a#", "ä", "a\0"] {
            assert!(
                matches!(DeviceId::parse(bad), Err(DeviceIdError::Forbidden(_))),
                "{bad:?}"
            );
        }
    }
}
