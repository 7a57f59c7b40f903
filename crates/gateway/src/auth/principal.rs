//! Somebody who has shown a key of a policy, known by a digest of it from then on.
//!
//! Decides whether such a key still opens what it opened; how it was shown, whole or by a signature, is the door's part.

use std::fmt;

use dunlin_model::directory::{Directory, Right};
use ring::digest;

use super::decode_key;

/// See the file.
#[derive(Clone, PartialEq, Eq)]
pub struct Principal {
    policy: String,
    /// SHA-256 of the key as text, so that a rolled key is noticed and none is kept.
    key_hash: [u8; 32],
}

impl Principal {
    /// Who has shown `key`, of the policy that was named.
    pub fn new(policy: String, key: &str) -> Self {
        let key_hash = hash(key);
        Self { policy, key_hash }
    }

    /// Whether the key is one of the policy's, and the policy grants `right`.
    pub fn is_good(&self, directory: &Directory, right: Right) -> bool {
        let Some(policy) = directory.policies.get(&self.policy) else {
            return false;
        };
        let keys = [&policy.keys.primary, &policy.keys.secondary];
        // Digests are compared: what their comparison takes tells nothing of the keys.
        policy.grants(right)
            && keys
                .into_iter()
                .any(|key| decode_key(key).is_ok() && hash(key) == self.key_hash)
    }
}

impl fmt::Debug for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Principal({})", self.policy)
    }
}

fn hash(key: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest::digest(&digest::SHA256, key.as_bytes()).as_ref());
    hash
}
