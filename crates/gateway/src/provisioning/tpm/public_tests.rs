//! What is read of public keys, and what is refused.

use proptest::prelude::*;

use super::super::samples::{
    ENDORSEMENT, ENDORSEMENT_ECC, ENDORSEMENT_NAME, STORAGE, STORAGE_NAME, decoded, hex,
};
use super::*;

/// Where the fields of an endorsement key lie, after its length.
const TYPE: usize = 2;
const NAME_ALGORITHM: usize = 4;
const ATTRIBUTES_AT: usize = 6;
const POLICY: usize = 12;
const CIPHER: usize = 44;
const CIPHER_BITS: usize = 46;
const CIPHER_MODE: usize = 48;
const SCHEME: usize = 50;
const BITS: usize = 52;
const EXPONENT: usize = 54;
const MODULUS_LENGTH: usize = 58;
const MODULUS: usize = 60;

fn with(key: &str, at: usize, bytes: &[u8]) -> Vec<u8> {
    let mut key = decoded(key);
    key[at..at + bytes.len()].copy_from_slice(bytes);
    key
}

#[test]
fn keys_of_a_tpm_are_taken_under_the_names_it_gives_them() {
    let endorsement = EndorsementKey::from_base64(ENDORSEMENT).unwrap();
    assert_eq!(endorsement.name().as_bytes(), hex(ENDORSEMENT_NAME));
    assert_eq!(endorsement.modulus()[..], decoded(ENDORSEMENT)[MODULUS..]);
    let storage = StorageKey::from_base64(STORAGE).unwrap();
    assert_eq!(storage.name().as_bytes(), hex(STORAGE_NAME));
    assert_eq!(format!("{:?}", storage.name()), STORAGE_NAME);
}

#[test]
fn neither_key_passes_for_the_other() {
    assert_eq!(
        EndorsementKey::from_base64(STORAGE),
        Err(PublicError::Attributes(0x0003_0472))
    );
    assert_eq!(
        StorageKey::from_base64(ENDORSEMENT),
        Err(PublicError::Attributes(0x0003_00B2))
    );
}

#[test]
fn only_base64_is_read_and_only_so_much() {
    assert_eq!(
        EndorsementKey::from_base64("ein Schlüssel"),
        Err(PublicError::Base64)
    );
    let unpadded = ENDORSEMENT.trim_end_matches('=');
    assert_eq!(EndorsementKey::from_base64(unpadded), Err(PublicError::Base64));
    assert_eq!(EndorsementKey::from_base64(""), Err(PublicError::Malformed));
    let long = "A".repeat(PUBLIC_TEXT_MAX + 1);
    assert_eq!(
        StorageKey::from_base64(&long),
        Err(PublicError::TooLong(PUBLIC_TEXT_MAX + 1))
    );
    let longest = "A".repeat(PUBLIC_TEXT_MAX);
    assert_eq!(StorageKey::from_base64(&longest), Err(PublicError::Malformed));
}

#[test]
fn a_key_on_a_curve_is_told_so() {
    assert_eq!(
        EndorsementKey::from_base64(ENDORSEMENT_ECC),
        Err(PublicError::Ecc)
    );
}

#[test]
fn whatever_departs_from_the_template_is_refused() {
    let table: [(usize, &[u8], PublicError); 16] = [
        (0, &[0x01, 0x39], PublicError::Malformed),
        (0, &[0x01, 0x3B], PublicError::Malformed),
        (TYPE, &[0x00, 0x08], PublicError::Type(0x0008)),
        (NAME_ALGORITHM, &[0x00, 0x04], PublicError::NameAlgorithm(0x0004)),
        // Bits that would let the key sign, or stand for itself, or come from elsewhere.
        (
            ATTRIBUTES_AT,
            &[0, 7, 0, 0xB2],
            PublicError::Attributes(0x0007_00B2),
        ),
        (
            ATTRIBUTES_AT,
            &[0, 2, 0, 0xB2],
            PublicError::Attributes(0x0002_00B2),
        ),
        (
            ATTRIBUTES_AT,
            &[0, 3, 0, 0x92],
            PublicError::Attributes(0x0003_0092),
        ),
        (
            ATTRIBUTES_AT,
            &[0, 3, 0, 0xB0],
            PublicError::Attributes(0x0003_00B0),
        ),
        (POLICY + 31, &[0xAB], PublicError::Policy),
        (CIPHER, &[0x00, 0x10], PublicError::Symmetric),
        (CIPHER_BITS, &[0x01, 0x00], PublicError::Symmetric),
        (CIPHER_MODE, &[0x00, 0x42], PublicError::Symmetric),
        (SCHEME, &[0x00, 0x17], PublicError::Scheme(0x0017)),
        (BITS, &[0x0C, 0x00], PublicError::Bits(3072)),
        (EXPONENT, &[0, 1, 0, 1], PublicError::Exponent(65_537)),
        (MODULUS, &[0x7F], PublicError::Modulus),
    ];
    for (at, bytes, error) in table {
        let damaged = with(ENDORSEMENT, at, bytes);
        assert_eq!(
            EndorsementKey::parse(&damaged),
            Err(error),
            "{bytes:02x?} at {at}"
        );
    }
}

#[test]
fn a_modulus_is_odd_and_of_its_length() {
    let mut even = decoded(ENDORSEMENT);
    *even.last_mut().unwrap() &= 0xFE;
    assert_eq!(EndorsementKey::parse(&even), Err(PublicError::Modulus));

    // One byte less, in all lengths.
    let mut short = with(ENDORSEMENT, 0, &[0x01, 0x39]);
    short[MODULUS_LENGTH..MODULUS].copy_from_slice(&[0x00, 0xFF]);
    short.remove(MODULUS);
    assert_eq!(EndorsementKey::parse(&short), Err(PublicError::Modulus));
}

#[test]
fn a_storage_key_has_no_policy_and_its_own_attributes() {
    let counted = StorageKey::parse(&with(STORAGE, ATTRIBUTES_AT, &[0, 3, 0, 0x72])).unwrap();
    assert_ne!(counted, StorageKey::from_base64(STORAGE).unwrap(), "another name");
    for attributes in [
        0x0003_0432,
        0x0002_0472,
        0x0003_0470,
        0x0003_0462,
        0x0003_0452,
        0x0007_0472_u32,
    ] {
        let damaged = with(STORAGE, ATTRIBUTES_AT, &attributes.to_be_bytes());
        assert_eq!(
            StorageKey::parse(&damaged),
            Err(PublicError::Attributes(attributes))
        );
    }
    // A policy where there is none, and all lengths right.
    let mut bound = with(STORAGE, 0, &[0x01, 0x3A]);
    bound.splice(10..12, [0x00, 0x20].into_iter().chain(ENDORSEMENT_POLICY));
    assert_eq!(StorageKey::parse(&bound), Err(PublicError::Policy));
}

#[test]
fn nothing_may_be_missing_and_nothing_may_follow() {
    let whole = decoded(ENDORSEMENT);
    for length in 0..whole.len() {
        assert_eq!(
            EndorsementKey::parse(&whole[..length]),
            Err(PublicError::Malformed)
        );
    }
    let mut longer = whole;
    longer.push(0);
    assert_eq!(EndorsementKey::parse(&longer), Err(PublicError::Malformed));
}

/// A length that is right on the outside only.
#[test]
fn an_area_cut_short_is_refused() {
    let whole = decoded(STORAGE);
    for length in 2..whole.len() {
        let mut cut = whole[..length].to_vec();
        cut[..2].copy_from_slice(&u16::try_from(length - 2).unwrap().to_be_bytes());
        assert_eq!(
            StorageKey::parse(&cut),
            Err(PublicError::Malformed),
            "{length} bytes"
        );
    }
}

proptest! {
    #[test]
    fn any_bytes_are_answered(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        prop_assert!(EndorsementKey::parse(&bytes).is_err());
        prop_assert!(StorageKey::parse(&bytes).is_err());
    }

    #[test]
    fn any_text_is_answered(text in ".{0,300}") {
        prop_assert!(EndorsementKey::from_base64(&text).is_err());
        prop_assert!(StorageKey::from_base64(&text).is_err());
    }

    /// One changed byte: refused, or another modulus and so another key.
    #[test]
    fn a_changed_byte_makes_another_key_or_none(at in 0_usize..316, flip in 1_u8..) {
        let mut bytes = decoded(ENDORSEMENT);
        bytes[at] ^= flip;
        if let Ok(key) = EndorsementKey::parse(&bytes) {
            prop_assert!(at >= MODULUS);
            prop_assert_ne!(key, EndorsementKey::from_base64(ENDORSEMENT).unwrap());
        }
    }
}
