//! The token of an upload: the query that a device puts behind the file's address.
//!
//! It looks as Azure Storage's do, and its signature is a secret that is drawn for this upload alone. The shard keeps a
//! digest of the secret, so that nothing that rests or travels between nodes opens anything.

use base64::Engine as _;
use dunlin_model::iso_time::iso_utc;
use percent_encoding::percent_decode_str;
use ring::digest::SHA256;

use super::name;
use crate::auth::BASE64;

/// Version of the interface of Azure Storage that answers are of.
pub(crate) const STORAGE_VERSION: &str = "2021-12-02";

/// Bytes of a secret.
const SECRET_BYTES: usize = 32;

/// What is drawn for one upload.
pub(crate) struct Drawn {
    /// The correlation id.
    pub(crate) id: String,
    /// What stands in the token.
    secret: String,
}

impl Drawn {
    pub(crate) fn new() -> Self {
        Self {
            id: format!("{:032x}", rand::random::<u128>()),
            secret: BASE64.encode(rand::random::<[u8; SECRET_BYTES]>()),
        }
    }

    /// What the shard is told of the secret.
    pub(crate) fn digest(&self) -> String {
        digest(&self.secret).unwrap_or_default()
    }

    /// The token, which counts until `expires_ms`.
    pub(crate) fn text(&self, expires_ms: u64) -> String {
        let until = iso_utc(expires_ms);
        let until = name::in_address(&format!("{}Z", until.get(..19).unwrap_or(&until)));
        let secret = name::in_address(&self.secret).replace('/', "%2F");
        format!("?sv={STORAGE_VERSION}&sr=b&sp=w&se={until}&sig={secret}")
    }
}

/// The digest of a secret as it stands in a token. `None` for what is none.
pub(crate) fn digest(secret: &str) -> Option<String> {
    let secret = BASE64.decode(secret).ok()?;
    let is_whole = secret.len() == SECRET_BYTES;
    is_whole.then(|| BASE64.encode(ring::digest::digest(&SHA256, &secret)))
}

/// The value of `key` in a query, decoded. A plus is a plus: Base64 has it.
pub(crate) fn parameter(query: &str, key: &str) -> Option<String> {
    let pairs = query
        .split('&')
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let mut found = pairs.filter(|(name, _)| *name == key);
    let (_, value) = found.next()?;
    Some(percent_decode_str(value).decode_utf8().ok()?.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_has_its_secret_and_nobody_else_needs_it() {
        for _ in 0..100 {
            let drawn = Drawn::new();
            let text = drawn.text(1_893_456_000_250);
            let query = text.strip_prefix('?').expect("it is a query");
            assert_eq!(parameter(query, "se").as_deref(), Some("2030-01-01T00:00:00Z"));
            let secret = parameter(query, "sig").expect("a signature");
            assert_eq!(digest(&secret), Some(drawn.digest()));
            assert!(!text.contains('+') && !drawn.digest().contains(&secret));
            assert_ne!(digest(&secret), Some(Drawn::new().digest()));
        }
    }

    #[test]
    fn what_is_no_secret_has_no_digest() {
        for wrong in ["", "x", "AAAA", &"A".repeat(100), "!"] {
            assert_eq!(digest(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn parameters_are_decoded() {
        let query = "comp=block&blockid=AA%2B+%3D&empty&bad=%ff";
        assert_eq!(parameter(query, "comp").as_deref(), Some("block"));
        assert_eq!(parameter(query, "blockid").as_deref(), Some("AA++="));
        assert_eq!(parameter(query, "empty").as_deref(), Some(""));
        assert_eq!(parameter(query, "bad"), None);
        assert_eq!(parameter(query, "sig"), None);
    }
}
