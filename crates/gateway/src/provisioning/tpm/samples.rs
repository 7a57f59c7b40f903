//! Keys of a TPM for the tests, and how tests write bytes; nothing is decided here.
//!
//! The keys are of one swtpm 0.7.1: made by `tpm2_createek`, and by `tpm2_createprimary` with the storage key's
//! template, and read with `tpm2_readpublic`, which also gave the names.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

/// An endorsement key.
pub(super) const ENDORSEMENT: &str = "\
    AToAAQALAAMAsgAgg3GXZ0SEs/gakMyNRqXXJP1S124GUgtk8qHaGzMUaaoABgCAAEMAEAgAAAAAAAEA8dVC99acyGpKeRQc\
    RNIM5EY5pWBwISW8iiAIXTE5eZf6NOtvI63GOqFvmoKbxZpbZRRzXZK25whscjHjA0tu6uc61b/EJzgz2dszmosR3VT5HGFz\
    2U2uu2qgtWT09qaREeIFNSCSnD/Kax6M8w/HENggGm6fKu5quT7UK8oWS8PAhpt5zvVfcgnMES4gzk4SrR4qpwxdRwpbiLi5\
    YdL1gP/J2YErED2fBt/CTXf19GOxQ7SqN4A0vdPPSpPbO7Pqiz+zVreWRkOzVcrpycbvxqv+sovw47kBDkbya0c6HtJpZ78V\
    vxFKR61hNyN5w7++500idAsTaz6r4jizs2WE6w==";
/// Its name.
pub(super) const ENDORSEMENT_NAME: &str =
    "000b78e5e8eddf6fe0236c5ae6cacc01033951fcbc4eb63c90db3b761654d9d5418e";
/// The storage key.
pub(super) const STORAGE: &str = "\
    ARoAAQALAAMEcgAAAAYAgABDABAIAAAAAAABALVMhcAfDRNjRvoTB33zNdYzn9bmHWqlT6lbmID9ZkImKIuhhDPMWdHqnHJ1\
    QspX2q0g2BwcSQnn7raOyCR9b0sLlygUuoyUrcZJfswGzT96lw2b1CHtizRn0wgEt5JgNx8z9XMhjai26OSO3eRUf7V+g8T5\
    OTegkTIqg+lhuxU5H8/gP9nthdP1rwx0CfMPld+MsOoRJ5uqRxU/mMnGoFWkjLm8y4dpvEus0Wq1LD8QSrEyWlvPuAXbMaCG\
    ucKIS9QJRm0AxjdMLtGT9UHUt6yJGL1sZv0pu/Yj2ypc51hnIyAmD6wy3e2VYr10QL03sE+iUjGsHPmy+aBhuEvW1pk=";
/// Its name.
pub(super) const STORAGE_NAME: &str = "000b3faa845c1e1186688ddd54e94fa523eb274cc0dba6402379253f258342cde746";
/// The endorsement key by template L-2, on an elliptic curve.
pub(super) const ENDORSEMENT_ECC: &str = "\
    AHoAIwALAAMAsgAgg3GXZ0SEs/gakMyNRqXXJP1S124GUgtk8qHaGzMUaaoABgCAAEMAEAADABAAIGpfSqaMwAmge1qa+BN7\
    kBzum2kIXrWUWkyF194BgNRsACB7bovFzYpSH7iSjePY8Z8RGgVnAlg/XNlFkg40HyoVLg==";

/// The bytes of a key.
pub(super) fn decoded(text: &str) -> Vec<u8> {
    BASE64.decode(text).expect("a sample")
}

/// Bytes written in hexadecimal.
pub(super) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text.chars().map(|c| c.to_digit(16).expect("a digit")).collect();
    digits
        .chunks(2)
        .map(|pair| (pair[0] * 16 + pair[1]) as u8)
        .collect()
}

/// Bytes that count up from `first`.
pub(super) fn counting<const N: usize>(first: u8) -> [u8; N] {
    std::array::from_fn(|at| first.wrapping_add(at as u8))
}
