//! How a secret is sent to an RSA key: encrypted with OAEP, under a label that says what it is for. Which secret goes
//! to which key is decided elsewhere; nothing here decrypts.

use crypto_bigint::modular::{FixedMontyForm, FixedMontyParams};
use crypto_bigint::{Odd, U64, U2048};

use super::cipher::sha256;
use super::{DIGEST_BYTES, RSA_BYTES};

/// The exponent of every key here, and how many bits it has.
const EXPONENT: U64 = U64::from_u64(65_537);
const EXPONENT_BITS: u32 = 17;

/// A zero, the masked seed, the masked data block.
const BLOCK_BYTES: usize = RSA_BYTES - DIGEST_BYTES - 1;

/// Encrypts `secret` to the key whose modulus is `modulus`; `seed` is random and used once. RFC 8017, §7.1.1, with
/// SHA-256 for the label and for the mask. TPM 2.0 Library, Part 1, B.4, counts the label's closing zero as part of it,
/// so a label here ends in one.
///
/// # Panics
///
/// If `modulus` is even or below 2^2047. Parsing a key refuses both.
pub(super) fn encrypt(
    modulus: &[u8; RSA_BYTES],
    label: &[u8],
    secret: &[u8; DIGEST_BYTES],
    seed: &[u8; DIGEST_BYTES],
) -> [u8; RSA_BYTES] {
    raise(modulus, &pad(label, secret, seed))
}

/// EME-OAEP encoding: RFC 8017, §7.1.1, step 2.
fn pad(label: &[u8], secret: &[u8; DIGEST_BYTES], seed: &[u8; DIGEST_BYTES]) -> [u8; RSA_BYTES] {
    let mut block = [0; BLOCK_BYTES];
    block[..DIGEST_BYTES].copy_from_slice(&sha256(&[label]));
    block[BLOCK_BYTES - DIGEST_BYTES - 1] = 1;
    block[BLOCK_BYTES - DIGEST_BYTES..].copy_from_slice(secret);
    mask(&mut block, seed);
    let mut seed = *seed;
    mask(&mut seed, &block);

    let mut padded = [0; RSA_BYTES];
    padded[1..=DIGEST_BYTES].copy_from_slice(&seed);
    padded[1 + DIGEST_BYTES..].copy_from_slice(&block);
    padded
}

/// Adds the mask that `seed` yields: MGF1, RFC 8017, B.2.1.
fn mask(bytes: &mut [u8], seed: &[u8]) {
    for (round, chunk) in (0_u32..).zip(bytes.chunks_mut(DIGEST_BYTES)) {
        let mask = sha256(&[seed, &round.to_be_bytes()]);
        chunk.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    }
}

/// RSAEP: RFC 8017, §5.1.1. Takes as long whatever the message is; the modulus is no secret.
fn raise(modulus: &[u8; RSA_BYTES], message: &[u8; RSA_BYTES]) -> [u8; RSA_BYTES] {
    let modulus = U2048::from_be_slice(modulus);
    let modulus = Option::from(Odd::new(modulus)).expect("parsing refuses an even modulus");
    let params = FixedMontyParams::new_vartime(modulus);
    let message = FixedMontyForm::new(&U2048::from_be_slice(message), &params);
    let raised = message.pow_bounded_exp(&EXPONENT, EXPONENT_BITS).retrieve();
    raised.to_be_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::super::samples::{counting, hex};
    use super::*;

    // A key and an encryption of 00 01 .. 1f under the label "IDENTITY" with its zero, both made by OpenSSL.
    const MODULUS: &str = "\
    afc4984dca6f481eb4941b7a8b292b08b49c7d4d760285d54621b3b9c1ecf3fdcb5cfb70aa55218d8f5c51815dffa5cd\
    0f4f1106b19eef26440c145d01274bc9033e0b0a14d628799c4a2bcf3fcc19f8d80287898885c9498b84a384ae5bdae2\
    25200cf803f326ba175086ceb729d088fb3e16caf8a17a001c64224ea8d446fe794439bfb1c35572f4a4a58e2b9bd039\
    ed98610a44d1e90a368fb940ac6b4fa044be4172e4c1801ac1bafd83ecde81a47c096662d4e2352227e35d7049f48d34\
    a31f132152312845a46f16c88a167f9babf77072a2174898126617c00a241dbc0cb192e258ef885a943683c0d59c93fe\
    0c24d9a10f7bba73f36fcec3d005da11";
    const PRIVATE_EXPONENT: &str = "\
    072f7c1b3684d1fbc4ddb6e99da3a84567e64b9a51822904daf40ce211bd294c995e26ce905d1075063cc3bd7c597396\
    906b16dee95f1e275821ef096e0f14625e64407ce81508f4af44aa39b3d1c90846f2e405f5a783ff0261d0d23f53449d\
    88ff605e59817cc65fe6802b565a3292ee03f7d8327dbdf44014e120ea769aa4125a50ccc4f03c59dad45c7005ce970b\
    8d199d6387c1e2c687e436f5d7107268da886f21a58a3695b118b7ff2668195bbbdfaabbf5988108cf5b3bfe7d93924f\
    ad849259e03a29b27e30a263660bcb013325fd4b38f51b7134a59b8a84556f5af8d4b18cfaccc0518f45c8990f7d46e9\
    f3b1234e2ca1d3a1096b676469d0f561";
    const ENCRYPTED: &str = "\
    41fb050ac6cc4ff0bf41782594f36030115366ee437afec9b4a2ed0c22d7dd3478bef03f34c46a6205e7d257f45c59aa\
    2ceb6d7cd16c8d948dc2cd11f6dbaf8a729ceb2064bda81c6ed85e0cc9c98b7d44f9e5fbf6221bf9125b3a57f3b66dea\
    a7aa41a9bd2b700047daa593cce0a9a5e44dfc77cfe9b8aaf1564b729ac09c80c4679ffa17d982dab829c631ca0d5fee\
    8a2b9d2774778f415288dd9857bcae14204e872276a5c7a0078ea8a3d3f8ba7a83378205c7530bb9e28550d86f81667c\
    a47ced4a25e25abb0d5f5a94c86e8867269c8177b7e2140cfd6619bf169a397a6ebe9d5e4a12eec952c4d1ba8d8f70a2\
    ced05b76999dc1de2d10367269ae712d";
    const LABEL: &[u8] = b"IDENTITY\0";

    fn number(text: &str) -> [u8; RSA_BYTES] {
        hex(text).try_into().expect("256 bytes")
    }

    /// What the key's owner sees: the padded message.
    fn open(encrypted: &[u8; RSA_BYTES]) -> [u8; RSA_BYTES] {
        let modulus = Option::from(Odd::new(U2048::from_be_slice(&number(MODULUS)))).expect("odd");
        let params = FixedMontyParams::new_vartime(modulus);
        let exponent = U2048::from_be_slice(&number(PRIVATE_EXPONENT));
        let form = FixedMontyForm::new(&U2048::from_be_slice(encrypted), &params);
        form.pow(&exponent).retrieve().to_be_bytes().into()
    }

    /// The seed that was drawn for a padded message.
    fn seed_of(padded: &[u8; RSA_BYTES]) -> [u8; DIGEST_BYTES] {
        let mut seed: [u8; DIGEST_BYTES] = padded[1..=DIGEST_BYTES].try_into().expect("32 bytes");
        mask(&mut seed, &padded[1 + DIGEST_BYTES..]);
        seed
    }

    #[test]
    fn with_the_same_seed_it_encrypts_as_openssl_does() {
        let theirs = number(ENCRYPTED);
        let seed = seed_of(&open(&theirs));
        assert_eq!(encrypt(&number(MODULUS), LABEL, &counting(0), &seed), theirs);
    }

    #[test]
    fn the_owner_finds_label_and_secret() {
        let (secret, seed) = (counting(7), counting(99));
        let padded = open(&encrypt(&number(MODULUS), b"DUPLICATE\0", &secret, &seed));
        assert_eq!(padded[0], 0);
        assert_eq!(seed_of(&padded), seed);
        let mut block: [u8; BLOCK_BYTES] = padded[1 + DIGEST_BYTES..].try_into().expect("the rest");
        mask(&mut block, &seed);
        assert_eq!(block[..DIGEST_BYTES], sha256(&[b"DUPLICATE\0"]));
        let (filler, rest) = block[DIGEST_BYTES..].split_at(BLOCK_BYTES - 2 * DIGEST_BYTES - 1);
        assert!(filler.iter().all(|byte| *byte == 0));
        assert_eq!(rest[0], 1);
        assert_eq!(rest[1..], secret);
    }

    #[test]
    fn a_label_is_part_of_what_is_encrypted() {
        let (secret, seed) = (counting(7), counting(99));
        assert_ne!(
            pad(b"IDENTITY\0", &secret, &seed),
            pad(b"IDENTITY", &secret, &seed)
        );
    }
}
