//! An identity as the registry keeps it, a device's or a module's: status, credentials, and the generation that fences
//! them.
//!
//! Disable, delete and key roll raise the generation in the same entry, so that whoever was let in
//! with the old credential is fenced at once. Tokens and certificates are checked in `gateway`, never here.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::id::DeviceId;

/// Whether a device may connect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "lowercase")]
pub enum DeviceStatus {
    /// It may.
    #[default]
    Enabled,
    /// It may not, and what it holds open is closed.
    Disabled,
}

/// The two keys of a device, Base64 of 16 to 64 bytes. Both are valid at any time, so that one can be rolled.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct SymmetricKeys {
    /// First key.
    pub primary: String,
    /// Second key.
    pub secondary: String,
}

impl std::fmt::Debug for SymmetricKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SymmetricKeys(..)")
    }
}

/// Thumbprints of certificates: SHA-1 or SHA-256 of the whole certificate, upper-case hexadecimal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Thumbprints {
    /// Of the first one.
    pub primary: Option<String>,
    /// Of the second one, so that the first can be replaced.
    pub secondary: Option<String>,
}

impl Thumbprints {
    /// Those that there are.
    pub fn each(&self) -> impl Iterator<Item = &String> {
        self.primary.iter().chain(&self.secondary)
    }
}

/// How an identity proves who it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Authentication {
    /// With a token that one of these keys has signed.
    Sas(SymmetricKeys),
    /// With a certificate of one of these thumbprints.
    SelfSigned(Thumbprints),
    /// With a certificate for its name that an authority of the hub has signed.
    CertificateAuthority,
    /// It cannot.
    None,
}

impl Authentication {
    /// How services call it.
    pub fn kind(&self) -> &'static str {
        match self {
            Authentication::Sas(_) => "sas",
            Authentication::SelfSigned(_) => "selfSigned",
            Authentication::CertificateAuthority => "certificateAuthority",
            Authentication::None => "none",
        }
    }

    /// The keys, if it has any.
    pub fn keys(&self) -> Option<&SymmetricKeys> {
        match self {
            Authentication::Sas(keys) => Some(keys),
            _ => None,
        }
    }

    /// Whether something that opens the door with `self` no longer does with `new`. Swapping two keys takes nothing
    /// away.
    pub fn loses_to(&self, new: &Authentication) -> bool {
        match (self, new) {
            (Authentication::Sas(old), Authentication::Sas(new)) => [&old.primary, &old.secondary]
                .into_iter()
                .any(|key| *key != new.primary && *key != new.secondary),
            (Authentication::SelfSigned(old), Authentication::SelfSigned(new)) => {
                old.each().any(|old| new.each().all(|new| new != old))
            }
            (Authentication::None, _) => false,
            (old, new) => old != new,
        }
    }
}

/// What a service asks to store for a device or a module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceSpec {
    /// May it connect? A module follows its device, and its own is always enabled.
    pub status: DeviceStatus,
    /// Why not, in the operator's words; 128 characters at most, checked at the door.
    pub status_reason: Option<String>,
    /// How it proves itself. The door draws keys when the service sends none.
    pub authentication: Authentication,
    /// Whether it is an edge device; kept for the service, nothing follows from it.
    pub is_edge: bool,
    /// Who manages a module, in the service's words; 128 characters at most, checked at the door.
    pub managed_by: Option<String>,
}

impl DeviceSpec {
    /// A device that may connect, and proves itself like this.
    pub fn enabled(authentication: Authentication) -> Self {
        Self {
            status: DeviceStatus::Enabled,
            status_reason: None,
            authentication,
            is_edge: false,
            managed_by: None,
        }
    }
}

/// A device or a module in the registry.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeviceRecord {
    /// Its name.
    pub device: DeviceId,
    /// What the service stored.
    pub spec: DeviceSpec,
    /// Rises at each stored change; the registry's ETag. Drawn from the same counter as `generation`, so that none
    /// ever comes again: a condition on a device that was deleted never fits the one that was made after it.
    pub version: u64,
    /// Rises when a credential stops being valid. Drawn from one counter per shard, so that a device
    /// that was deleted and made again never meets an old one.
    pub generation: u64,
    /// Stamp of the entry that made it, milliseconds since 1970.
    pub created_ms: u64,
    /// Stamp of the entry that last changed the status.
    pub status_changed_ms: u64,
}

impl DeviceRecord {
    /// Whether it may not connect.
    pub fn is_disabled(&self) -> bool {
        self.spec.status == DeviceStatus::Disabled
    }
}

/// A device's session as the shard keeps it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct SessionRecord {
    /// Rises with each session; uplink records of an older one are fenced.
    pub epoch: u64,
    /// The gateway that holds the connection, as long as there is one.
    pub held_by: Option<crate::id::StreamId>,
    /// Stamp of the last change of `held_by`.
    pub changed_ms: u64,
    /// Whether the session outlives its connection (MQTT: clean session 0).
    pub persistent: bool,
    /// Topic filters that the device has subscribed to, with the granted QoS.
    #[serde(default)]
    pub subscriptions: std::collections::BTreeMap<String, u8>,
}

impl SessionRecord {
    /// How services call it whether there is a connection.
    pub fn connection_state(&self) -> &'static str {
        match self.held_by {
            Some(_) => "Connected",
            None => "Disconnected",
        }
    }
}

/// The ETag of a version in the registry: Base64 of its decimal digits, as IoT Hub has it.
pub fn etag(version: u64) -> String {
    STANDARD.encode(version.to_string())
}

/// What must hold for a write to the registry to take place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Condition {
    /// The device must not exist.
    Absent,
    /// The device must exist, in any version.
    Present,
    /// The device must exist in this version.
    Version(u64),
    /// Nothing is asked.
    Any,
}
