//! The public halves of a TPM's endorsement key and storage key: read as devices send them, and taken only if they
//! follow the template that the device clients create them by.
//!
//! That is no pedantry. A key's attributes are part of its name, and a challenge opens only in a TPM that holds a key
//! of that name: it is the attributes in these bytes that promise that the TPM made the key itself and never lets
//! anything out that is kept under it. Whether an endorsement key belongs to a genuine TPM cannot be seen here; that is
//! why an enrolment names it.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use thiserror::Error;

use super::cipher::sha256;
use super::wire::Reader;
use super::{
    ADMIN_WITH_POLICY, ALG_AES, ALG_CFB, ALG_ECC, ALG_NULL, ALG_RSA, ALG_SHA256, DECRYPT, DIGEST_BYTES,
    FIXED_PARENT, FIXED_TPM, NO_DA, RESTRICTED, RSA_BYTES, SENSITIVE_DATA_ORIGIN, USER_WITH_AUTH,
};

/// Characters of a key in Base64 at the most. The keys that are taken have 424 and 380; the rest is room for those that
/// deserve a better answer than that they are long.
pub const PUBLIC_TEXT_MAX: usize = 1024;

/// Bytes of a key's name.
const NAME_BYTES: usize = 2 + DIGEST_BYTES;

/// Bits of the RSA keys that are taken.
const RSA_BITS: u16 = 2048;
/// Bits of the AES keys that such a key protects its children with.
const AES_BITS: u16 = 128;
/// How a TPM writes the exponent 65537.
const EXPONENT_DEFAULT: u32 = 0;

/// What both kinds of key have: made by their TPM, never to leave it, and good for nothing but to open what is sent to
/// the TPM itself.
const ATTRIBUTES: u32 = FIXED_TPM | FIXED_PARENT | SENSITIVE_DATA_ORIGIN | RESTRICTED | DECRYPT;

/// The policy of every endorsement key of template L-1: whoever uses the key must show the endorsement hierarchy's
/// authorization. TCG EK Credential Profile for TPM 2.0, B.3.3.
pub(crate) const ENDORSEMENT_POLICY: [u8; DIGEST_BYTES] = [
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xB3, 0xF8, 0x1A, 0x90, 0xCC, 0x8D, 0x46, 0xA5, 0xD7, 0x24, 0xFD,
    0x52, 0xD7, 0x6E, 0x06, 0x52, 0x0B, 0x64, 0xF2, 0xA1, 0xDA, 0x1B, 0x33, 0x14, 0x69, 0xAA,
];

/// Why a public key is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PublicError {
    /// It has more than [`PUBLIC_TEXT_MAX`] characters.
    #[error("the key has {0} characters, more than {PUBLIC_TEXT_MAX}")]
    TooLong(usize),
    /// It is not Base64 with padding, in the alphabet with `+` and `/`.
    #[error("the key is not Base64")]
    Base64,
    /// Its lengths contradict each other, or something follows it.
    #[error("the key is not one TPM2B_PUBLIC")]
    Malformed,
    /// It is a key on an elliptic curve.
    #[error("the key is on an elliptic curve; only RSA keys are taken")]
    Ecc,
    /// It is no RSA key. The number is the TPM_ALG_ID of its type.
    #[error("the key is of type {0:#06x}; only RSA keys are taken")]
    Type(u16),
    /// Its name is made with another hash than SHA-256. The number is that hash's TPM_ALG_ID.
    #[error("the key's name algorithm is {0:#06x}, not SHA-256")]
    NameAlgorithm(u16),
    /// Its attributes are not those of the template. The number is its TPMA_OBJECT.
    #[error("the key's attributes {0:#010x} are not those of its template")]
    Attributes(u32),
    /// Its policy is not that of the template.
    #[error("the key's policy is not that of its template")]
    Policy,
    /// It does not protect its children with AES-128 in CFB mode.
    #[error("the key's symmetric cipher is not AES-128 in CFB mode")]
    Symmetric,
    /// It is bound to a padding scheme. The number is that scheme's TPM_ALG_ID.
    #[error("the key is bound to scheme {0:#06x}")]
    Scheme(u16),
    /// It is of another size. The number is its bits.
    #[error("the key has {0} bits, not {RSA_BITS}")]
    Bits(u16),
    /// Its exponent is not 65537, which a TPM writes as 0. The number is as written.
    #[error("the key's exponent is written as {0}, not as 0")]
    Exponent(u32),
    /// Its modulus is even, or is not of [2048 bits](Self::Bits).
    #[error("the key's modulus is not an odd number of {RSA_BITS} bits")]
    Modulus,
}

/// What a TPM calls a key: the hash of its public area, behind the number of the hash. TPM 2.0 Library, Part 1, §16.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Name([u8; NAME_BYTES]);

impl Name {
    /// That of the key whose public area (TPMT_PUBLIC) is `area`. The hash is SHA-256.
    pub(super) fn of(area: &[u8]) -> Self {
        let mut name = [0; NAME_BYTES];
        name[..2].copy_from_slice(&ALG_SHA256.to_be_bytes());
        name[2..].copy_from_slice(&sha256(&[area]));
        Self(name)
    }

    /// Its bytes: two for the hash algorithm, 32 of the hash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// An endorsement key, by the default template L-1: RSA 2048. TCG EK Credential Profile for TPM 2.0, B.3.3. Two of them
/// are equal if they are the same key, since all else about them is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndorsementKey(RsaPublic);

impl EndorsementKey {
    /// Reads `text`, the Base64 of a TPM2B_PUBLIC, at most [`PUBLIC_TEXT_MAX`] characters of it. Anything but a key by
    /// the template is refused, with the first thing that is wrong with it.
    pub fn from_base64(text: &str) -> Result<Self, PublicError> {
        Self::parse(&decode(text)?)
    }

    /// Reads a TPM2B_PUBLIC, as [`Self::from_base64`] does.
    pub fn parse(bytes: &[u8]) -> Result<Self, PublicError> {
        let public = RsaPublic::parse(bytes, |attributes, policy| {
            if attributes != ATTRIBUTES | ADMIN_WITH_POLICY {
                return Err(PublicError::Attributes(attributes));
            }
            (policy == ENDORSEMENT_POLICY)
                .then_some(())
                .ok_or(PublicError::Policy)
        })?;
        Ok(Self(public))
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.0.name
    }

    pub(super) fn modulus(&self) -> &[u8; RSA_BYTES] {
        &self.0.modulus
    }
}

/// A storage root key, by the template of the TCG TPM 2.0 Provisioning Guidance, §7.5.1: RSA 2048, used with an empty
/// password. Two of them are equal if they are the same key with the same attributes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StorageKey(RsaPublic);

impl StorageKey {
    /// Reads `text`, the Base64 of a TPM2B_PUBLIC, at most [`PUBLIC_TEXT_MAX`] characters of it. Anything but a key by
    /// the template is refused, with the first thing that is wrong with it.
    pub fn from_base64(text: &str) -> Result<Self, PublicError> {
        Self::parse(&decode(text)?)
    }

    /// Reads a TPM2B_PUBLIC, as [`Self::from_base64`] does.
    pub fn parse(bytes: &[u8]) -> Result<Self, PublicError> {
        let public = RsaPublic::parse(bytes, |attributes, policy| {
            // Whether wrong passwords are counted is the owner's affair, and common tools leave it to the default.
            if attributes & !NO_DA != ATTRIBUTES | USER_WITH_AUTH {
                return Err(PublicError::Attributes(attributes));
            }
            policy.is_empty().then_some(()).ok_or(PublicError::Policy)
        })?;
        Ok(Self(public))
    }

    /// Its name.
    pub fn name(&self) -> &Name {
        &self.0.name
    }

    pub(super) fn modulus(&self) -> &[u8; RSA_BYTES] {
        &self.0.modulus
    }
}

/// What is kept of a key: all else is given by its template.
#[derive(Debug, Clone, PartialEq, Eq)]
struct RsaPublic {
    name: Name,
    /// Odd, and not below 2^2047.
    modulus: [u8; RSA_BYTES],
}

impl RsaPublic {
    /// Reads a TPM2B_PUBLIC (TPM 2.0 Library, Part 2, §12.2.5). `check` is given the attributes and the policy.
    fn parse(
        bytes: &[u8],
        check: impl FnOnce(u32, &[u8]) -> Result<(), PublicError>,
    ) -> Result<Self, PublicError> {
        let mut whole = Reader::new(bytes);
        let area = whole.sized().ok_or(PublicError::Malformed)?;
        if !whole.is_done() {
            return Err(PublicError::Malformed);
        }
        let mut fields = Reader::new(area);
        check_head(&mut fields, check)?;
        check_parameters(&mut fields)?;
        let modulus = read_modulus(&mut fields)?;
        let name = Name::of(area);
        Ok(Self { name, modulus })
    }
}

/// Type, name algorithm, attributes and policy: the head of a TPMT_PUBLIC (Part 2, §12.2.4).
fn check_head(
    fields: &mut Reader<'_>,
    check: impl FnOnce(u32, &[u8]) -> Result<(), PublicError>,
) -> Result<(), PublicError> {
    match fields.u16().ok_or(PublicError::Malformed)? {
        ALG_RSA => {}
        ALG_ECC => return Err(PublicError::Ecc),
        other => return Err(PublicError::Type(other)),
    }
    match fields.u16().ok_or(PublicError::Malformed)? {
        ALG_SHA256 => {}
        other => return Err(PublicError::NameAlgorithm(other)),
    }
    let attributes = fields.u32().ok_or(PublicError::Malformed)?;
    let policy = fields.sized().ok_or(PublicError::Malformed)?;
    check(attributes, policy)
}

/// TPMS_RSA_PARMS (Part 2, §12.2.3.5).
fn check_parameters(fields: &mut Reader<'_>) -> Result<(), PublicError> {
    // Another cipher may have fewer fields, so each is looked at before the next is read.
    for expected in [ALG_AES, AES_BITS, ALG_CFB] {
        if fields.u16().ok_or(PublicError::Malformed)? != expected {
            return Err(PublicError::Symmetric);
        }
    }
    match fields.u16().ok_or(PublicError::Malformed)? {
        ALG_NULL => {}
        other => return Err(PublicError::Scheme(other)),
    }
    match fields.u16().ok_or(PublicError::Malformed)? {
        RSA_BITS => {}
        other => return Err(PublicError::Bits(other)),
    }
    match fields.u32().ok_or(PublicError::Malformed)? {
        EXPONENT_DEFAULT => Ok(()),
        other => Err(PublicError::Exponent(other)),
    }
}

/// TPM2B_PUBLIC_KEY_RSA (Part 2, §11.2.4.5), the end of the area.
fn read_modulus(fields: &mut Reader<'_>) -> Result<[u8; RSA_BYTES], PublicError> {
    let modulus = fields.sized().ok_or(PublicError::Malformed)?;
    if !fields.is_done() {
        return Err(PublicError::Malformed);
    }
    let modulus: [u8; RSA_BYTES] = modulus.try_into().map_err(|_| PublicError::Modulus)?;
    let is_whole = modulus[0] & 0x80 != 0 && modulus[RSA_BYTES - 1] & 1 != 0;
    is_whole.then_some(modulus).ok_or(PublicError::Modulus)
}

fn decode(text: &str) -> Result<Vec<u8>, PublicError> {
    if text.len() > PUBLIC_TEXT_MAX {
        return Err(PublicError::TooLong(text.len()));
    }
    BASE64.decode(text).map_err(|_| PublicError::Base64)
}

#[cfg(test)]
#[path = "public_tests.rs"]
mod tests;
