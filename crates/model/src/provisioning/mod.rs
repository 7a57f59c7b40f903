//! Device provisioning in the words of Azure's DPS: enrolments say who may register and what becomes of it,
//! registrations what became of it.
//!
//! Individual enrolments and registrations live in the shard of their registration id ([`crate::shard`]); groups and
//! linked hubs are few and stand in the directory ([`book`]). Which hub a device gets is decided in [`allocation`], who
//! it is in `gateway`, where certificates and tokens are checked.

pub mod allocation;
pub mod book;

use serde::{Deserialize, Serialize};

use crate::id::DeviceId;
use crate::identity::SymmetricKeys;

/// Characters of a registration id (DPS: 128).
pub const REGISTRATION_ID_CHARS_MAX: usize = 128;
/// Bytes that an enrolment counts for at the most, its certificates and its initial twin included.
pub const ENROLLMENT_BYTES_MAX: usize = 32 * 1024;
/// Bytes of what a webhook gives a device with its registration.
pub const PAYLOAD_BYTES_MAX: usize = 16 * 1024;
/// Hubs that one enrolment may name.
pub const ENROLLMENT_HUBS_MAX: usize = book::LINKED_HUBS_MAX + 1;

/// The name that a device registers under. Case does not count: it is kept in lower case.
///
/// 1 to 128 letters, digits and `-._:`, the last a letter, a digit or a dash.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct RegistrationId(DeviceId);

/// Why a text is no registration id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a registration id has 1 to 128 letters, digits and -._: and ends with a letter, a digit or a dash")]
pub struct RegistrationIdError;

impl RegistrationId {
    /// Checks a text.
    pub fn parse(text: &str) -> Result<Self, RegistrationIdError> {
        let is_allowed = |c: char| c.is_ascii_alphanumeric() || "-._:".contains(c);
        let ends_well = text.ends_with(|c: char| c.is_ascii_alphanumeric() || c == '-');
        if text.len() > REGISTRATION_ID_CHARS_MAX || !ends_well || !text.chars().all(is_allowed) {
            return Err(RegistrationIdError);
        }
        let id = DeviceId::parse(&text.to_ascii_lowercase()).map_err(|_| RegistrationIdError)?;
        Ok(Self(id))
    }

    /// The text, in lower case.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The name whose slot finds the shard: that of a device which is called like this.
    pub fn as_device(&self) -> &DeviceId {
        &self.0
    }
}

impl TryFrom<String> for RegistrationId {
    type Error = RegistrationIdError;
    fn try_from(text: String) -> Result<Self, RegistrationIdError> {
        Self::parse(&text)
    }
}

impl From<RegistrationId> for String {
    fn from(id: RegistrationId) -> String {
        id.as_str().to_owned()
    }
}

impl std::fmt::Display for RegistrationId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Two of a kind, so that one can be replaced while the other is in use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct Pair {
    /// The first.
    pub primary: Option<String>,
    /// The second.
    pub secondary: Option<String>,
}

impl Pair {
    /// Those that there are.
    pub fn each(&self) -> impl Iterator<Item = &String> {
        self.primary.iter().chain(&self.secondary)
    }
}

/// How whoever registers proves that it may.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Attestation {
    /// With a token that one of these keys has signed; in a group, a key derived from one of them.
    SymmetricKey(SymmetricKeys),
    /// With exactly one of these certificates (PEM). Individual enrolments alone.
    ClientCertificate(Pair),
    /// With a certificate below one of these (PEM). Groups alone.
    SigningCertificate(Pair),
    /// With a certificate below one of the hub's authorities of these names. Groups alone.
    Authority(Pair),
    /// With a TPM of this endorsement key. Individual enrolments alone.
    Tpm(TpmAttestation),
}

/// What is known of a device's TPM.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TpmAttestation {
    /// Its endorsement key: Base64 of a `TPM2B_PUBLIC`.
    pub endorsement_key: String,
    /// Its storage root key, if the operator knows it: the same form. A device that shows another one is refused.
    pub storage_root_key: Option<String>,
    /// The key that it proves itself with, Base64; made with the enrolment and never shown but wrapped for the TPM.
    pub identity_key: String,
}

impl std::fmt::Debug for TpmAttestation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("TpmAttestation(..)")
    }
}

/// How a hub is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
pub enum AllocationPolicy {
    /// Evenly, by the registration id and the hubs' weights.
    #[default]
    Hashed,
    /// The hub that the gateway which the device came to reaches soonest.
    LowestLatency,
    /// The one that the enrolment names.
    Static,
    /// The one that a webhook names.
    Custom,
}

/// What a device that registers again meets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReprovisionPolicy {
    /// Whether it may get another hub.
    pub updates_hub: bool,
    /// Whether its twin goes with it; otherwise it begins anew.
    pub migrates_data: bool,
}

impl Default for ReprovisionPolicy {
    fn default() -> Self {
        Self {
            updates_hub: true,
            migrates_data: true,
        }
    }
}

/// What a twin begins with: JSON texts that the door has checked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct InitialTwin {
    /// Its tags.
    pub tags: Option<String>,
    /// What is desired of the device.
    pub desired: Option<String>,
}

/// Who chooses the hub in [`AllocationPolicy::Custom`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Webhook {
    /// Where it is asked; the door has checked that it may be.
    pub url: String,
    /// What it understands.
    pub api_version: String,
}

/// What an operator says of those who may register.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EnrollmentSpec {
    /// How they prove it.
    pub attestation: Attestation,
    /// Whether they may now.
    pub is_enabled: bool,
    /// What the device is called at its hub, if not like its registration id. Individual enrolments alone.
    pub device: Option<DeviceId>,
    /// Whether it is an edge device.
    pub is_edge: bool,
    /// The hub in [`AllocationPolicy::Static`].
    pub hub: Option<String>,
    /// The hubs to choose from; all if there are none here. [`ENROLLMENT_HUBS_MAX`] at the most.
    pub hubs: Vec<String>,
    /// How the hub is chosen.
    pub allocation: AllocationPolicy,
    /// Who chooses, if somebody else does.
    pub webhook: Option<Webhook>,
    /// What the twin begins with.
    pub initial_twin: InitialTwin,
    /// What happens to those who come again.
    pub reprovision: ReprovisionPolicy,
    /// An operator's notes: JSON text, returned as it came.
    pub notes: Option<String>,
}

impl EnrollmentSpec {
    /// Enabled, with everything else as DPS has it when nothing is said.
    pub fn enabled(attestation: Attestation) -> Self {
        Self {
            attestation,
            is_enabled: true,
            device: None,
            is_edge: false,
            hub: None,
            hubs: Vec::new(),
            allocation: AllocationPolicy::default(),
            webhook: None,
            initial_twin: InitialTwin::default(),
            reprovision: ReprovisionPolicy::default(),
            notes: None,
        }
    }

    /// Bytes that it counts for in budgets; doors keep it below [`ENROLLMENT_BYTES_MAX`].
    pub fn bytes(&self) -> usize {
        let text = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        let attestation = match &self.attestation {
            Attestation::SymmetricKey(keys) => keys.primary.len() + keys.secondary.len(),
            Attestation::ClientCertificate(pair)
            | Attestation::SigningCertificate(pair)
            | Attestation::Authority(pair) => pair.each().map(String::len).sum(),
            Attestation::Tpm(tpm) => {
                tpm.endorsement_key.len() + text(&tpm.storage_root_key) + tpm.identity_key.len()
            }
        };
        let webhook = self
            .webhook
            .as_ref()
            .map_or(0, |webhook| webhook.url.len() + webhook.api_version.len());
        attestation
            + webhook
            + text(&self.hub)
            + self.hubs.iter().map(String::len).sum::<usize>()
            + text(&self.initial_twin.tags)
            + text(&self.initial_twin.desired)
            + text(&self.notes)
    }
}

/// An enrolment as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Enrollment {
    /// As the operator spelled it: a registration id, or the name of a group.
    pub name: String,
    /// What the operator said.
    pub spec: EnrollmentSpec,
    /// Rises with each change and never comes again; the ETag.
    pub version: u64,
    /// When it was made, milliseconds since 1970.
    pub created_ms: u64,
    /// When it was last changed.
    pub updated_ms: u64,
}

/// How a registration came about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Substatus {
    /// For the first time.
    InitialAssignment,
    /// The device has moved to another hub, with its twin.
    DeviceDataMigrated,
    /// The device, at this hub or another, began anew.
    DeviceDataReset,
    /// The device came again and stays where it was.
    ReprovisionedToInitialAssignment,
}

/// With what a device proved that it may register.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ProofKind {
    /// A token.
    SymmetricKey,
    /// A certificate.
    X509,
    /// A token that its TPM has signed.
    Tpm,
}

/// What a registration says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistrationSpec {
    /// As the device spelled its registration id when it first came.
    pub name: String,
    /// The group that let it in, unless it has an enrolment of its own.
    pub group: Option<String>,
    /// How it proved that it may.
    pub proof: ProofKind,
    /// The storage key of its TPM, if it has one.
    pub storage_root_key: Option<String>,
    /// The host name of its hub.
    pub hub: String,
    /// What it is called there.
    pub device: DeviceId,
    /// Where it was before, and what it was called there, as long as it is still to be removed there.
    pub leaving: Option<(String, DeviceId)>,
    /// How it came about.
    pub substatus: Substatus,
    /// JSON text of a webhook for the device; [`PAYLOAD_BYTES_MAX`] at the most.
    pub payload: Option<String>,
    /// What the device called its request, so that it can ask again.
    pub operation: String,
}

/// A registration as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// What it says.
    pub spec: RegistrationSpec,
    /// Rises with each change and never comes again; the ETag.
    pub version: u64,
    /// When the device first registered, milliseconds since 1970.
    pub created_ms: u64,
    /// When it last did.
    pub updated_ms: u64,
}

/// What a shard knows of a registration id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, Default)]
pub struct ProvisioningView {
    /// Its own enrolment.
    pub enrollment: Option<Enrollment>,
    /// Its registration.
    pub registration: Option<Registration>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registration_ids_are_checked_and_case_does_not_count() {
        let id = RegistrationId::parse("Sn-007:A.b_C").expect("an id");
        assert_eq!(id.as_str(), "sn-007:a.b_c");
        assert_eq!(Ok(id), RegistrationId::parse("SN-007:a.B_c"));
        assert!(RegistrationId::parse("a-").is_ok());
        assert!(RegistrationId::parse(&"a".repeat(REGISTRATION_ID_CHARS_MAX)).is_ok());
        let long = "a".repeat(REGISTRATION_ID_CHARS_MAX + 1);
        for wrong in ["", "a.", "a_", "a:", "a/b", "a b", "ä", "a%", "$a", &long] {
            assert_eq!(RegistrationId::parse(wrong), Err(RegistrationIdError), "{wrong}");
        }
    }

    #[test]
    fn secrets_are_not_printed() {
        let spec = EnrollmentSpec::enabled(Attestation::Tpm(TpmAttestation {
            endorsement_key: "ek".into(),
            storage_root_key: None,
            identity_key: "hidden".into(),
        }));
        assert!(!format!("{spec:?}").contains("hidden"));
        assert_eq!(spec.bytes(), "ek".len() + "hidden".len());
    }
}
