//! What the TPM makes of keys it shares with others: further keys derived from them, AES in CFB mode, HMAC. Which key
//! guards what is decided elsewhere.
//!
//! Everything here is SHA-256 and AES-128, since those are what the templates of both keys name.

use aes::Aes128;
use cfb_mode::Encryptor;
use cfb_mode::cipher::KeyIvInit as _;
use ring::{digest, hmac};

use super::{AES_KEY_BYTES, DIGEST_BYTES};

/// The SHA-256 of `parts`, one after the other.
pub(super) fn sha256(parts: &[&[u8]]) -> [u8; DIGEST_BYTES] {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in parts {
        context.update(part);
    }
    array(context.finish().as_ref())
}

/// The HMAC-SHA-256 under `key` of `parts`, one after the other.
pub(super) fn hmac_sha256(key: &[u8], parts: &[&[u8]]) -> [u8; DIGEST_BYTES] {
    let mut context = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, key));
    for part in parts {
        context.update(part);
    }
    array(context.sign().as_ref())
}

/// A key of `N` bytes (at most a digest, so one round is enough), derived from `key` for the use that `label` names.
/// TPM 2.0 Library, Part 1, §11.4.9.2 (KDFa); the label comes without its closing zero, and `context` is both of the
/// standard's, `contextU` before `contextV`.
pub(super) fn kdfa<const N: usize>(key: &[u8], label: &str, context: &[u8]) -> [u8; N] {
    const { assert!(N <= DIGEST_BYTES, "one round yields a digest") };
    let round = 1_u32.to_be_bytes();
    let bits = (N as u32 * 8).to_be_bytes();
    let derived = hmac_sha256(key, &[&round, label.as_bytes(), &[0], context, &bits]);
    array(&derived[..N])
}

/// Encrypts with AES-128 in CFB mode, in place. The start vector is zero, as TPM 2.0 Library, Part 1, §22 has it for
/// protected storage, §23.3 for duplication, and §24 for credentials. That is sound for a key that encrypts one thing;
/// whoever encrypts two with one key says why.
pub(super) fn encrypt_cfb(key: &[u8; AES_KEY_BYTES], bytes: &mut [u8]) {
    Encryptor::<Aes128>::new(key.into(), &[0; AES_KEY_BYTES].into()).encrypt(bytes);
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("as many bytes as were asked for")
}

#[cfg(test)]
mod tests {
    use super::super::samples::{counting, hex};
    use super::*;

    /// Values from the counter mode of NIST SP 800-108 in pyca/cryptography, which is the same function: number of the
    /// round before, then label, zero, context and length.
    #[test]
    fn derived_keys_are_those_of_sp_800_108() {
        let key: [u8; 32] = counting(0);
        let mut name = vec![0x00, 0x0B];
        name.extend(counting::<32>(0x40));
        assert_eq!(
            kdfa::<16>(&key, "STORAGE", &name)[..],
            hex("7a58c2079bee13e00ed160d657aecaef")
        );
        assert_eq!(
            kdfa::<32>(&key, "INTEGRITY", &[])[..],
            hex("bacf689f634ece301e1f1b15b072d9c87db6a69585db42b1a0cb8f73ebe2692e")
        );
    }

    /// The value is OpenSSL's (`enc -aes-128-cfb`); the last block is not full.
    #[test]
    fn cfb_is_that_of_openssl() {
        let mut bytes: [u8; 37] = counting(0x80);
        encrypt_cfb(&counting(0), &mut bytes);
        let expected = "4620b9b4030add05e7c60be92d4556f66032a23dcf0e6a88e466af54765af88c929e8393ea";
        assert_eq!(bytes[..], hex(expected));
    }

    /// RFC 4231, test case 2.
    #[test]
    fn parts_are_hashed_as_one() {
        let whole = hmac_sha256(b"Jefe", &[b"what do ya want for nothing?"]);
        assert_eq!(
            whole[..],
            hex("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843")
        );
        assert_eq!(
            hmac_sha256(b"Jefe", &[b"what do ya ", b"want for nothing?"]),
            whole
        );
        assert_eq!(sha256(&[b"ab", b"c"]), sha256(&[b"abc"]));
    }
}
