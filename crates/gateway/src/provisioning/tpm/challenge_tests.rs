//! The shape of challenges. That a TPM opens them is shown by one, in `tests/swtpm`.

use super::super::cipher::sha256;
use super::super::samples::{ENDORSEMENT, STORAGE, counting, hex};
use super::super::wire::Reader;
use super::*;

fn keys() -> (EndorsementKey, StorageKey) {
    (
        EndorsementKey::from_base64(ENDORSEMENT).unwrap(),
        StorageKey::from_base64(STORAGE).unwrap(),
    )
}

/// A generator that counts on, from call to call.
fn counter() -> impl FnMut(&mut [u8]) {
    let mut next = 0_u8;
    move |bytes| {
        for byte in bytes {
            *byte = next;
            next = next.wrapping_add(1);
        }
    }
}

fn made(key: &[u8], data: &[u8]) -> Vec<u8> {
    let (endorsement, storage) = keys();
    let key = HmacKey::new(key).unwrap();
    challenge(&endorsement, &storage, &key, data, &mut counter()).unwrap()
}

fn parts(blob: &[u8]) -> [&[u8]; 6] {
    let mut reader = Reader::new(blob);
    let parts = std::array::from_fn(|_| reader.sized().unwrap());
    assert!(reader.is_done());
    parts
}

#[test]
fn it_has_the_parts_of_the_service_s_own() {
    let blob = made(&counting::<32>(1), b"data");
    assert_eq!(parts(&blob).map(<[u8]>::len), [52, 256, 142, 256, 48, 4]);
    let public = parts(&blob)[4];
    // Keyed hash, SHA-256; sign, no dictionary attacks, user with authorization; no policy; HMAC, SHA-256; 32 bytes.
    assert_eq!(public[..16], hex("0008000b0004044000000005000b0020"));
}

/// The digest is of the very blob that the TPM of the sample keys opened, and whose key it signed with.
#[test]
fn it_is_made_as_it_was_when_a_tpm_opened_it() {
    let blob = made(&counting::<32>(1), b"data");
    assert_eq!(
        sha256(&[&blob])[..],
        hex("9513f2d5883b5f4c248dd4d77808e284dd03f2e75023ab447df64ff0e4659037")
    );
}

#[test]
fn the_key_is_bound_to_what_the_public_area_says() {
    let key = HmacKey::new(&counting::<32>(1)).unwrap();
    let object = Object::new(&key, &mut counter());
    assert_eq!(
        object.public[16..],
        sha256(&[&counting::<32>(0), &counting::<32>(1)])
    );
    let mut name = vec![0x00, 0x0B];
    name.extend(sha256(&[&object.public]));
    assert_eq!(object.name.as_bytes(), name);
    assert_eq!(object.sensitive.len(), 2 + 2 + 2 + 34 + 34);
}

#[test]
fn bounds_are_kept() {
    assert_eq!(HmacKey::new(&[0; 15]).err(), Some(HmacKeyLength(15)));
    assert_eq!(HmacKey::new(&[0; 65]).err(), Some(HmacKeyLength(65)));
    let (endorsement, storage) = keys();
    let key = HmacKey::new(&[0; 16]).unwrap();
    let long = [0; DATA_BYTES_MAX + 1];
    let refused = challenge(&endorsement, &storage, &key, &long, &mut counter());
    assert_eq!(refused, Err(DataTooLong(1025)));

    assert_eq!(made(&[0; 64], &[0; DATA_BYTES_MAX]).len(), CHALLENGE_BYTES_MAX);
    assert_eq!(made(&[0; 32], &[]).len(), 766);
}

#[test]
fn every_part_is_drawn_afresh() {
    let (endorsement, storage) = keys();
    let key = HmacKey::new(&[7; 32]).unwrap();
    let mut random = counter();
    let mut make = || challenge(&endorsement, &storage, &key, b"data", &mut random).unwrap();
    let (first, second) = (make(), make());
    for (one, other) in parts(&first).iter().zip(parts(&second)) {
        assert_ne!(*one, other);
    }
}

#[test]
fn a_key_does_not_show_itself() {
    let key = HmacKey::new(&[0x5A; 32]).unwrap();
    assert_eq!(format!("{key:?}"), "HmacKey(..)");
}
