//! The blob that hands a key to a device: what is in it, and how each part is sealed. For whom a challenge is made, how
//! long it counts, and whether an answer is right, is decided elsewhere.
//!
//! The device's TPM opens it in two steps. `TPM2_ActivateCredential` yields an AES key, if the TPM holds both the
//! endorsement key and a key of the storage key's name. `TPM2_Import` and `TPM2_Load` then take in the HMAC key, which
//! is sealed twice: within by that AES key, without for the storage key. So the HMAC key is in clear in that one TPM
//! only, and stays there: it has no policy, and without one no TPM duplicates it further.
//!
//! Sections are those of the TPM 2.0 Library, revision 1.38.

use std::fmt;

use thiserror::Error;

use super::cipher::{encrypt_cfb, hmac_sha256, kdfa, sha256};
use super::oaep;
use super::public::{EndorsementKey, Name, StorageKey};
use super::wire::Writer;
use super::{
    AES_KEY_BYTES, ALG_HMAC, ALG_KEYEDHASH, ALG_SHA256, DIGEST_BYTES, NO_DA, RSA_BYTES, SIGN, USER_WITH_AUTH,
};

/// Bytes of an HMAC key at the least. A shorter one could be guessed.
pub const HMAC_KEY_BYTES_MIN: usize = 16;
/// Bytes of an HMAC key at the most: a block of SHA-256. A TPM refuses a longer one.
pub const HMAC_KEY_BYTES_MAX: usize = 64;
/// Bytes of the data beside the key at the most: what every TPM decrypts at once. Clients refuse what theirs does not.
pub const DATA_BYTES_MAX: usize = 1024;
/// Bytes of a challenge at the most. With a key of 32 bytes and no data it has 766.
pub const CHALLENGE_BYTES_MAX: usize = 798 + DATA_BYTES_MAX;

/// What the secret for the endorsement key is labelled with. Part 1, §24.
const LABEL_IDENTITY: &[u8] = b"IDENTITY\0";
/// What the secret for the storage key is labelled with. Part 1, §23.3.
const LABEL_DUPLICATE: &[u8] = b"DUPLICATE\0";

/// What the HMAC key may do in the TPM: sign, with an empty password, of which no wrong guesses are counted. It was not
/// made there and is not bound to its parent, or it could not be imported.
const HMAC_KEY_ATTRIBUTES: u32 = SIGN | USER_WITH_AUTH | NO_DA;

/// An HMAC-SHA-256 key of [`HMAC_KEY_BYTES_MIN`] to [`HMAC_KEY_BYTES_MAX`] bytes. It shows itself to nobody.
#[derive(Clone)]
pub struct HmacKey(Vec<u8>);

impl HmacKey {
    /// Takes `bytes`, if there are neither too few nor too many.
    pub fn new(bytes: &[u8]) -> Result<Self, HmacKeyLength> {
        (HMAC_KEY_BYTES_MIN..=HMAC_KEY_BYTES_MAX)
            .contains(&bytes.len())
            .then(|| Self(bytes.to_vec()))
            .ok_or(HmacKeyLength(bytes.len()))
    }
}

impl fmt::Debug for HmacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HmacKey(..)")
    }
}

/// An HMAC key is too short or too long. The number is its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("an HMAC key of {0} bytes; a TPM gets {HMAC_KEY_BYTES_MIN} to {HMAC_KEY_BYTES_MAX}")]
pub struct HmacKeyLength(
    /// Bytes of the key.
    pub usize,
);

/// The data beside the key is longer than [`DATA_BYTES_MAX`]. The number is its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{0} bytes of data beside the key; at most {DATA_BYTES_MAX} go with it")]
pub struct DataTooLong(
    /// Bytes of the data.
    pub usize,
);

/// Makes the challenge that gives `key` to the TPM of `endorsement` and `storage`, and to no other. What the Device
/// Provisioning Service sends as `authenticationKey` is its Base64.
///
/// `data` goes along, encrypted with the inner AES key; clients decrypt it at the most, and none needs it, but they all
/// want its length, so it may be empty and is never left out. `random` fills what it is given from a generator fit for
/// keys; two challenges must not be made from the same bytes.
///
/// One after the other, each behind its length of two bytes:
///
/// | part | bytes | opened by |
/// |---|---|---|
/// | TPM2B_ID_OBJECT: HMAC, encrypted AES key | 52 | `TPM2_ActivateCredential` |
/// | TPM2B_ENCRYPTED_SECRET: seed for the above | 256 | `TPM2_ActivateCredential` |
/// | TPM2B_PRIVATE: HMAC, twice encrypted HMAC key | 110 and the key | `TPM2_Import` |
/// | TPM2B_ENCRYPTED_SECRET: seed for the above | 256 | `TPM2_Import` |
/// | TPM2B_PUBLIC: the HMAC key's public area | 48 | `TPM2_Import`, `TPM2_Load` |
/// | encrypted data | that of the data | AES key, in the client or its TPM |
pub fn challenge(
    endorsement: &EndorsementKey,
    storage: &StorageKey,
    key: &HmacKey,
    data: &[u8],
    random: &mut dyn FnMut(&mut [u8]),
) -> Result<Vec<u8>, DataTooLong> {
    if data.len() > DATA_BYTES_MAX {
        return Err(DataTooLong(data.len()));
    }
    let inner: [u8; AES_KEY_BYTES] = draw(random);
    let credential = make_credential(endorsement, storage.name(), &inner, random);
    let object = Object::new(key, random);
    let duplicate = duplicate(storage, &object, &inner, random);
    // The clients expect the key and the start vector of the inner wrapper. That shows nothing: the inner wrapper lies
    // within the outer one, under another key.
    let mut data = data.to_vec();
    encrypt_cfb(&inner, &mut data);
    let blob = Writer::default()
        .sized(&credential.sealed)
        .sized(&credential.encrypted_seed)
        .sized(&duplicate.sealed)
        .sized(&duplicate.encrypted_seed)
        .sized(&object.public)
        .sized(&data);
    Ok(blob.done())
}

/// Something encrypted, and the seed of the keys that it is encrypted with.
struct Sealed {
    sealed: Vec<u8>,
    encrypted_seed: [u8; RSA_BYTES],
}

/// Encrypts `secret` for whoever holds the endorsement key beside a key of the name `activated`: TPM2_MakeCredential,
/// Part 1, §24.
fn make_credential(
    endorsement: &EndorsementKey,
    activated: &Name,
    secret: &[u8; AES_KEY_BYTES],
    random: &mut dyn FnMut(&mut [u8]),
) -> Sealed {
    let seed = draw(random);
    let credential = Writer::default().sized(secret).done();
    Sealed {
        sealed: protect(&seed, activated, credential),
        encrypted_seed: oaep::encrypt(endorsement.modulus(), LABEL_IDENTITY, &seed, &draw(random)),
    }
}

/// Encrypts `object` for the storage key, twice: TPM2_Duplicate, Part 1, §23.3.
fn duplicate(
    storage: &StorageKey,
    object: &Object,
    inner: &[u8; AES_KEY_BYTES],
    random: &mut dyn FnMut(&mut [u8]),
) -> Sealed {
    // The inner wrapper: what is encrypted begins with its own digest, and nothing else tells a wrong key.
    let integrity = sha256(&[&object.sensitive, object.name.as_bytes()]);
    let mut wrapped = Writer::default()
        .sized(&integrity)
        .bytes(&object.sensitive)
        .done();
    encrypt_cfb(inner, &mut wrapped);

    let seed = draw(random);
    Sealed {
        sealed: protect(&seed, &object.name, wrapped),
        encrypted_seed: oaep::encrypt(storage.modulus(), LABEL_DUPLICATE, &seed, &draw(random)),
    }
}

/// Encrypts `bytes` with a key derived from `seed` for `name`, and puts an HMAC of both in front: Part 1, §22.
/// Credentials and the outer wrapper of duplicates have this in common.
fn protect(seed: &[u8; DIGEST_BYTES], name: &Name, mut bytes: Vec<u8>) -> Vec<u8> {
    encrypt_cfb(&kdfa(seed, "STORAGE", name.as_bytes()), &mut bytes);
    let integrity_key: [u8; DIGEST_BYTES] = kdfa(seed, "INTEGRITY", &[]);
    let integrity = hmac_sha256(&integrity_key, &[&bytes, name.as_bytes()]);
    Writer::default().sized(&integrity).bytes(&bytes).done()
}

/// An HMAC key as a TPM's object.
struct Object {
    /// The public area, a TPMT_PUBLIC.
    public: Vec<u8>,
    name: Name,
    /// The secret area, a TPM2B_SENSITIVE, its length included.
    sensitive: Vec<u8>,
}

impl Object {
    fn new(key: &HmacKey, random: &mut dyn FnMut(&mut [u8])) -> Self {
        // The public area holds a digest of the key; this value keeps the key from being guessed by it. Part 1, §27.
        let obfuscation: [u8; DIGEST_BYTES] = draw(random);
        // Part 2, §12.2.4.
        let public = Writer::default()
            .u16(ALG_KEYEDHASH)
            .u16(ALG_SHA256)
            .u32(HMAC_KEY_ATTRIBUTES)
            .sized(&[]) // no policy
            .u16(ALG_HMAC)
            .u16(ALG_SHA256)
            .sized(&sha256(&[&obfuscation, &key.0]))
            .done();
        // Part 2, §12.3.2.4.
        let sensitive = Writer::default()
            .u16(ALG_KEYEDHASH)
            .sized(&[]) // the empty password
            .sized(&obfuscation)
            .sized(&key.0)
            .done();
        let name = Name::of(&public);
        let sensitive = Writer::default().sized(&sensitive).done();
        Self {
            public,
            name,
            sensitive,
        }
    }
}

/// As many random bytes as are wanted.
fn draw<const N: usize>(random: &mut dyn FnMut(&mut [u8])) -> [u8; N] {
    let mut bytes = [0; N];
    random(&mut bytes);
    bytes
}

#[cfg(test)]
#[path = "challenge_tests.rs"]
mod tests;
