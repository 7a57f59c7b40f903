//! Attestation of a device by its TPM, seen from the service: which public keys may be enrolled, and how a key is sent
//! to a device in such a way that its TPM alone can use it.
//!
//! A device shows two public keys of its TPM. The endorsement key says which TPM it is, and an enrolment holds it. The
//! storage key says where that TPM keeps other keys. [`challenge()`] wraps an HMAC key for the pair of them: only a TPM
//! that holds both opens the blob, and it never lets the key out. Whoever then signs with that key has shown which TPM
//! it sits on. What comes back is an ordinary shared access token, verified where all tokens are; who is enrolled, and
//! how long a challenge counts, is decided by the caller.
//!
//! | room | what it knows |
//! |---|---|
//! | [`public`] | the two public keys: read, and held to their templates |
//! | `challenge` | the blob for a device |
//! | `oaep` | secrets to an RSA key |
//! | `cipher` | keys derived, AES in CFB mode, HMAC |
//! | `wire` | the TPM's byte order and lengths |

mod challenge;
mod cipher;
mod oaep;
pub mod public;
#[cfg(test)]
mod samples;
mod wire;

pub use challenge::{
    CHALLENGE_BYTES_MAX, DATA_BYTES_MAX, DataTooLong, HMAC_KEY_BYTES_MAX, HMAC_KEY_BYTES_MIN, HmacKey,
    HmacKeyLength, challenge,
};
pub use public::{EndorsementKey, Name, PUBLIC_TEXT_MAX, PublicError, StorageKey};

/// Bytes of a SHA-256 digest, the hash of everything here.
const DIGEST_BYTES: usize = 32;
/// Bytes of an AES-128 key, the symmetric cipher of both keys' templates.
const AES_KEY_BYTES: usize = 16;
/// Bytes of an RSA modulus, and so of all that is encrypted to it.
const RSA_BYTES: usize = 256;

// TPM 2.0 Library, Part 2, §6.3 (TPM_ALG_ID).
const ALG_RSA: u16 = 0x0001;
const ALG_HMAC: u16 = 0x0005;
const ALG_AES: u16 = 0x0006;
const ALG_KEYEDHASH: u16 = 0x0008;
const ALG_SHA256: u16 = 0x000B;
const ALG_NULL: u16 = 0x0010;
const ALG_ECC: u16 = 0x0023;
const ALG_CFB: u16 = 0x0043;

// TPM 2.0 Library, Part 2, §8.3.2 (TPMA_OBJECT).
const FIXED_TPM: u32 = 1 << 1;
const FIXED_PARENT: u32 = 1 << 4;
const SENSITIVE_DATA_ORIGIN: u32 = 1 << 5;
const USER_WITH_AUTH: u32 = 1 << 6;
const ADMIN_WITH_POLICY: u32 = 1 << 7;
const NO_DA: u32 = 1 << 10;
const RESTRICTED: u32 = 1 << 16;
const DECRYPT: u32 = 1 << 17;
const SIGN: u32 = 1 << 18;
