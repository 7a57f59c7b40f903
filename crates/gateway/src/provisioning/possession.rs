//! A device's TPM as proof: what it is challenged with, with which key it then signs, and which key it has at its hub.
//!
//! Both keys follow from the enrolment's secret and the TPM's storage key, so they are kept nowhere. Only who is challenged
//! for which storage key is remembered for a while, in this gateway alone, since some clients do not say it twice: nobody
//! has proved anything yet, and nothing of it goes to the cluster. [`tpm`](super::tpm) makes the blobs.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use dunlin_model::provisioning::{RegistrationId, TpmAttestation};
use rand::Rng as _;
use ring::hmac;

use super::tpm::{EndorsementKey, HmacKey, StorageKey, challenge};
use crate::auth::{BASE64, SasToken, decode_key};

/// Devices whose challenges are remembered; beyond that the oldest is forgotten, and has to ask for another one.
const PENDING_MAX: usize = 1024;
/// Storage keys that are remembered of one device: whoever knows its name may ask in its place.
const PENDING_PER_DEVICE_MAX: usize = 4;

/// The public keys that a device shows.
#[derive(Debug, Clone, PartialEq, Eq, serde::Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct TpmShown {
    pub(crate) endorsement_key: String,
    pub(crate) storage_root_key: String,
}

/// What a key is for.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Registering,
    Hub,
}

/// Checks an endorsement key as operators hand it in.
pub(super) fn check_endorsement_key(text: &str) -> Result<(), String> {
    EndorsementKey::from_base64(text)
        .map(|_| ())
        .map_err(|error| error.to_string())
}

fn key(tpm: &TpmAttestation, storage: &str, purpose: Purpose) -> Option<Vec<u8>> {
    let secret = hmac::Key::new(hmac::HMAC_SHA256, &decode_key(&tpm.identity_key).ok()?);
    let label = match purpose {
        Purpose::Registering => "registering",
        Purpose::Hub => "hub",
    };
    let text = format!("{label}\n{storage}");
    Some(hmac::sign(&secret, text.as_bytes()).as_ref().to_vec())
}

fn wrap(tpm: &TpmAttestation, storage: &str, purpose: Purpose) -> Option<String> {
    let endorsement = EndorsementKey::from_base64(&tpm.endorsement_key).ok()?;
    let wanted = StorageKey::from_base64(storage).ok()?;
    let key = HmacKey::new(&key(tpm, storage, purpose)?).ok()?;
    let mut random = |bytes: &mut [u8]| rand::rng().fill_bytes(bytes);
    let blob = challenge(&endorsement, &wanted, &key, &[], &mut random).ok()?;
    Some(BASE64.encode(blob))
}

/// The blob that only the enrolled TPM opens, if what is shown is that TPM's.
pub(super) fn challenge_for(tpm: &TpmAttestation, shown: &TpmShown) -> Option<String> {
    let [enrolled, claimed] =
        [&tpm.endorsement_key, &shown.endorsement_key].map(|text| EndorsementKey::from_base64(text).ok());
    let is_enrolled = enrolled.is_some() && enrolled == claimed;
    let is_known = tpm
        .storage_root_key
        .as_ref()
        .is_none_or(|known| *known == shown.storage_root_key);
    if !is_enrolled || !is_known {
        return None;
    }
    wrap(tpm, &shown.storage_root_key, Purpose::Registering)
}

/// The blob with the key that the device has at its hub.
pub(super) fn hub_key_for(tpm: &TpmAttestation, storage: &str) -> Option<String> {
    wrap(tpm, storage, Purpose::Hub)
}

/// The key that the device has at its hub.
pub(super) fn hub_key(tpm: &TpmAttestation, storage: &str) -> Option<String> {
    key(tpm, storage, Purpose::Hub).map(|key| BASE64.encode(key))
}

/// Whether the TPM with this storage key has signed.
pub(super) fn is_signed(tpm: &TpmAttestation, storage: &str, token: &SasToken<'_>) -> bool {
    let is_known = tpm
        .storage_root_key
        .as_deref()
        .is_none_or(|known| known == storage);
    is_known && key(tpm, storage, Purpose::Registering).is_some_and(|key| token.is_signed_with(&key))
}

/// Who is challenged.
#[derive(Debug, Default)]
pub(crate) struct Pending(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    storage_keys: BTreeMap<RegistrationId, VecDeque<String>>,
    /// By when they were challenged first.
    order: VecDeque<RegistrationId>,
}

impl Pending {
    /// Remembers a storage key.
    pub(super) fn put(&self, id: &RegistrationId, storage: &str) {
        let mut waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = waiting.storage_keys.get_mut(id) {
            if known.iter().all(|known| known != storage) {
                if known.len() >= PENDING_PER_DEVICE_MAX {
                    known.pop_front();
                }
                known.push_back(storage.to_owned());
            }
            return;
        }
        if waiting.order.len() >= PENDING_MAX
            && let Some(oldest) = waiting.order.pop_front()
        {
            waiting.storage_keys.remove(&oldest);
        }
        waiting.order.push_back(id.clone());
        let known = VecDeque::from([storage.to_owned()]);
        waiting.storage_keys.insert(id.clone(), known);
    }

    /// Those that are remembered of a device.
    pub(super) fn get(&self, id: &RegistrationId) -> Vec<String> {
        let waiting = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = waiting.storage_keys.get(id);
        known.map_or_else(Vec::new, |known| known.iter().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_differ_by_purpose_and_storage_key() {
        let tpm = TpmAttestation {
            endorsement_key: "e".into(),
            storage_root_key: None,
            identity_key: BASE64.encode([7; 32]),
        };
        let all = [
            key(&tpm, "s", Purpose::Registering),
            key(&tpm, "s", Purpose::Hub),
            key(&tpm, "t", Purpose::Registering),
        ];
        assert!(all[0].is_some() && all[0] != all[1] && all[0] != all[2]);
        assert_eq!(
            hub_key(&tpm, "s").map(|key| decode_key(&key).ok()),
            Some(all[1].clone())
        );
        assert_eq!(hub_key_for(&tpm, "s"), None, "they are no keys of a TPM");
    }

    #[test]
    fn challenges_are_remembered_within_bounds() {
        let pending = Pending::default();
        let id = |n: usize| RegistrationId::parse(&format!("d{n}")).expect("an id");
        for n in 0..2 * PENDING_PER_DEVICE_MAX {
            pending.put(&id(0), &n.to_string());
            pending.put(&id(0), &n.to_string());
        }
        assert_eq!(pending.get(&id(0)), ["4", "5", "6", "7"]);
        for n in 1..=PENDING_MAX {
            pending.put(&id(n), "s");
        }
        assert!(pending.get(&id(0)).is_empty() && pending.get(&id(PENDING_MAX)) == ["s"]);
        assert_eq!(
            pending.0.lock().expect("no panic").storage_keys.len(),
            PENDING_MAX
        );
    }
}
