//! Certificates as operators hand them in and as clients show them, and the public keys of TPMs.

use std::collections::BTreeMap;

use base64::Engine as _;
use dunlin_model::id::DeviceId;
use dunlin_model::identity::{Authentication, DeviceRecord, DeviceSpec};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;

use crate::auth::{self, BASE64, CHAIN_MAX, Shown};
use crate::provisioning::tpm::public::ENDORSEMENT_POLICY;
use crate::provisioning::tpm::{
    CHALLENGE_BYTES_MAX, EndorsementKey, HmacKey, PUBLIC_TEXT_MAX, StorageKey, challenge,
};

/// An authority, and the one certificate that it has signed: that of dev-1. Nobody has its key any more.
///
/// From `openssl req -x509 -new -key ca.key -subj /CN=fuzzed-authority -addext basicConstraints=critical,CA:TRUE -days
/// 36500` and `openssl x509 -req -in dev.csr -CA authority.pem -CAkey ca.key -days 36500`, with keys of Ed25519: of
/// their signatures there is one spelling.
pub(super) const AUTHORITY: &str = include_str!("authority.pem");
/// See [`AUTHORITY`].
pub(super) const DEVICE: &str = include_str!("device.pem");
/// Within the time of both.
const NOW_S: u64 = 1_900_000_000;

/// The first byte says which.
pub fn certificates(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    match kind % 3 {
        0 => handed_in(&String::from_utf8_lossy(rest)),
        1 => shown(rest),
        _ => tpm_keys(rest),
    }
}

/// A certificate that is taken can be described, and is taken again in the form that it is kept in.
fn handed_in(text: &str) {
    for is_authority in [false, true] {
        let Ok(pem) = auth::read_certificate(text, is_authority) else {
            continue;
        };
        let info = auth::certificate_info(&pem).expect("what was read can be described");
        assert_eq!(auth::thumbprint_of_pem(&pem), Some(info.sha256));
        // A shorter form may have become one that is too long.
        if pem.len() <= text.len() {
            assert_eq!(auth::read_certificate(&pem, is_authority).as_ref(), Ok(&pem));
        }
    }
}

/// Certificates one after the other, each behind its length of two bytes.
fn chain_of(mut rest: &[u8]) -> Vec<CertificateDer<'static>> {
    let mut chain = Vec::new();
    while chain.len() < CHAIN_MAX
        && let Some((length, behind)) = rest.split_first_chunk::<2>()
    {
        let length = usize::from(u16::from_be_bytes(*length)).min(behind.len());
        let (der, behind) = behind.split_at(length);
        chain.push(CertificateDer::from(der.to_vec()));
        rest = behind;
    }
    chain
}

/// What a client shows opens for the one device that the authority has signed for, and for nobody else.
fn shown(data: &[u8]) {
    let chain = chain_of(data);
    let count = chain.len();
    if count == 0 {
        return;
    }
    let shown = Shown(chain.into());
    let name = shown.common_name();
    assert!(name.as_ref().is_none_or(|name| shown.is_for_any_case(name)));
    assert!(shown.depth_of(AUTHORITY) <= count);
    assert_eq!(shown.leaf_is(DEVICE), shown.depth_of(DEVICE) == 0);
    let _ = (shown.thumbprints(), shown.check_leaf_in_force(NOW_S));
    let may_be_below = shown.may_be_below(AUTHORITY);
    let signed = shown.is_signed_below(&[AUTHORITY.to_owned()], &[], NOW_S);
    if signed.is_ok() {
        assert!(shown.leaf_is(DEVICE), "the authority has signed for nobody else");
        assert!(may_be_below);
    }
    let record = DeviceRecord {
        device: DeviceId::parse("dev-1").expect("a device id"),
        spec: DeviceSpec::enabled(Authentication::CertificateAuthority),
        version: 1,
        generation: 1,
        created_ms: 0,
        status_changed_ms: 0,
    };
    let authorities = BTreeMap::from([("ours".to_owned(), AUTHORITY.to_owned())]);
    let verified = shown.verify(&record, &authorities, NOW_S);
    assert_eq!(verified.is_ok(), signed.is_ok());
}

/// A key is of one kind, the same in both forms, and one that is taken can be sent a challenge to.
fn tpm_keys(bytes: &[u8]) {
    let (endorsement, storage) = (EndorsementKey::parse(bytes), StorageKey::parse(bytes));
    assert!(endorsement.is_err() || storage.is_err());
    let text = BASE64.encode(bytes);
    if text.len() <= PUBLIC_TEXT_MAX {
        assert_eq!(EndorsementKey::from_base64(&text), endorsement);
        assert_eq!(StorageKey::from_base64(&text), storage);
    }
    let _ = StorageKey::from_base64(&String::from_utf8_lossy(bytes));
    let enrolled = || EndorsementKey::parse(&endorsement_key()).expect("a key by the template");
    let other = || StorageKey::parse(&storage_key()).expect("a key by the template");
    let pair = match (endorsement, storage) {
        (Ok(endorsement), _) => (endorsement, other()),
        (_, Ok(storage)) => (enrolled(), storage),
        _ => return,
    };
    let key = HmacKey::new(&[7; 32]).expect("a key of 32 bytes");
    let mut random = |bytes: &mut [u8]| bytes.fill(7);
    let blob = challenge(&pair.0, &pair.1, &key, b"", &mut random).expect("there is no data");
    assert!(blob.len() <= CHALLENGE_BYTES_MAX);
}

/// The public half of a TPM's RSA key with these attributes and this policy.
fn public_key(attributes: u32, policy: &[u8]) -> Vec<u8> {
    // RSA, and SHA-256 for its name.
    let mut area = vec![0, 0x01, 0, 0x0B];
    area.extend_from_slice(&attributes.to_be_bytes());
    area.extend_from_slice(&(policy.len() as u16).to_be_bytes());
    area.extend_from_slice(policy);
    // AES-128 in CFB mode, no scheme, 2048 bits, the usual exponent, and the length of the modulus.
    area.extend_from_slice(&[0, 0x06, 0, 0x80, 0, 0x43, 0, 0x10, 8, 0, 0, 0, 0, 0, 1, 0]);
    area.extend_from_slice(&[0xFF; 256]);
    [&(area.len() as u16).to_be_bytes()[..], &area].concat()
}

/// An endorsement key by its template.
pub(super) fn endorsement_key() -> Vec<u8> {
    public_key(0x0003_00B2, &ENDORSEMENT_POLICY)
}

/// A storage key by its template.
fn storage_key() -> Vec<u8> {
    public_key(0x0003_0472, &[])
}

fn der_of(pem: &str) -> Vec<u8> {
    let der = CertificateDer::from_pem_slice(pem.as_bytes());
    der.expect("a certificate").to_vec()
}

/// A certificate whose version is the largest number there is. Who reads it looks at no signature.
fn odd_version(der: &[u8]) -> Vec<u8> {
    // Two sequences, each behind a length of two bytes, and the version, five bytes of it.
    let (head, rest) = der.split_at(8);
    let mut odd = head.to_vec();
    odd[3] += 4;
    odd[7] += 4;
    odd.extend_from_slice(&[0xA0, 7, 2, 5, 0, 0xFF, 0xFF, 0xFF, 0xFF]);
    odd.extend_from_slice(&rest[5..]);
    odd
}

/// Seeds of [`certificates`].
pub fn certificates_seeds() -> Vec<Vec<u8>> {
    let (authority, device) = (der_of(AUTHORITY), der_of(DEVICE));
    let tagged = |tag: u8, bytes: &[u8]| [&[tag], bytes].concat();
    let sized = |der: &[u8]| [&(der.len() as u16).to_be_bytes()[..], der].concat();
    vec![
        tagged(0, AUTHORITY.as_bytes()),
        tagged(0, BASE64.encode(DEVICE).as_bytes()),
        tagged(0, BASE64.encode(&authority).as_bytes()),
        tagged(0, BASE64.encode(odd_version(&device)).as_bytes()),
        tagged(1, &sized(&device)),
        tagged(1, &[sized(&device), sized(&authority)].concat()),
        tagged(2, &endorsement_key()),
        tagged(2, &storage_key()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seeds_are_taken() {
        for is_authority in [false, true] {
            assert!(auth::read_certificate(AUTHORITY, is_authority).is_ok());
        }
        let shown = Shown(vec![CertificateDer::from(der_of(DEVICE))].into());
        let signed = shown.is_signed_below(&[AUTHORITY.to_owned()], &[], NOW_S);
        assert_eq!(signed, Ok(()));
        assert!(EndorsementKey::parse(&endorsement_key()).is_ok());
        assert!(StorageKey::parse(&storage_key()).is_ok());
    }

    #[test]
    fn there_is_no_version_above_the_largest() {
        let odd = BASE64.encode(odd_version(&der_of(DEVICE)));
        let pem = auth::read_certificate(&odd, false).expect("a certificate");
        let info = auth::certificate_info(&pem).expect("something is told");
        assert_eq!(info.version, u32::MAX);
    }
}
