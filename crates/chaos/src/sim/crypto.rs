//! TLS of simulated nodes: the usual one, but for what it draws from the system. Randoms and keys follow from
//! the seed, so a run's packets are the same bytes every time, and whoever reads them knows the keys.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use dunlin_cluster::{TlsSources, entropy};
use rustls::crypto::{
    ActiveKeyExchange, CryptoProvider, GetRandomFailed, SecureRandom, SharedSecret, SupportedKxGroup, ring,
};
use rustls::pki_types::UnixTime;
use rustls::time_provider::TimeProvider;
use rustls::{Error, NamedGroup, PeerMisbehaved};

/// Bytes of a share, and of what comes of two.
const SHARE_BYTES: usize = 32;

/// The usual suites over seeded randomness, and a time that stands: nothing here is about expiry.
pub(super) fn sources() -> TlsSources {
    let crypto = CryptoProvider {
        secure_random: &Seeded,
        kx_groups: vec![&Open],
        ..ring::default_provider()
    };
    let begun = UnixTime::since_unix_epoch(UNIX_EPOCH.elapsed().unwrap_or_default());
    TlsSources {
        crypto: Arc::new(crypto),
        time: Arc::new(Standing(begun)),
    }
}

#[derive(Debug)]
struct Standing(UnixTime);

impl TimeProvider for Standing {
    fn current_time(&self) -> Option<UnixTime> {
        Some(self.0)
    }
}

#[derive(Debug)]
struct Seeded;

impl SecureRandom for Seeded {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        entropy::fill(bytes);
        Ok(())
    }
}

/// A key exchange without a secret: each side shows what it drew, and the key is both together. It goes by the
/// name of X25519, whose shares have the same length.
#[derive(Debug)]
struct Open;

impl SupportedKxGroup for Open {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let mut share = [0; SHARE_BYTES];
        entropy::fill(&mut share);
        Ok(Box::new(Share(share)))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

struct Share([u8; SHARE_BYTES]);

impl ActiveKeyExchange for Share {
    fn complete(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        if peer.len() != SHARE_BYTES {
            return Err(PeerMisbehaved::InvalidKeyShare.into());
        }
        let both: Vec<u8> = self
            .0
            .iter()
            .zip(peer)
            .map(|(ours, theirs)| ours ^ theirs)
            .collect();
        Ok(SharedSecret::from(both))
    }

    fn pub_key(&self) -> &[u8] {
        &self.0
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_come_to_one_key_and_a_seed_repeats_it() {
        let agree = || {
            let (one, other) = (Open.start().unwrap(), Open.start().unwrap());
            let (share, others_share) = (one.pub_key().to_vec(), other.pub_key().to_vec());
            let key = one.complete(&others_share).unwrap();
            assert_eq!(key.secret_bytes(), other.complete(&share).unwrap().secret_bytes());
            key.secret_bytes().to_vec()
        };
        entropy::seed_thread(Some(3));
        let first = agree();
        assert_ne!(agree(), first);
        entropy::seed_thread(Some(3));
        assert_eq!(agree(), first);
        entropy::seed_thread(None);
        assert!(Open.start().unwrap().complete(&[0; 31]).is_err());
    }
}
