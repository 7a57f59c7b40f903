//! Connection ids between nodes: random, from this crate's [`entropy`](crate::entropy), so that a simulated
//! run repeats them.
//!
//! None is ever called foreign. A node that has come back answers what peers send over connections of its
//! former life with a stateless reset (RFC 9000 §10.3), whose key outlives the process, and they dial anew
//! instead of waiting for an answer until they give up.

use std::time::Duration;

use quinn::{ConnectionId, ConnectionIdGenerator};
use rand::Rng as _;

use crate::entropy::Entropy;

/// Bytes of an id; a client's first one must have as many (RFC 9000 §7.2).
const CID_BYTES: usize = 8;

/// Draws ids.
#[derive(Debug, Default)]
pub(super) struct Cids;

impl ConnectionIdGenerator for Cids {
    fn generate_cid(&mut self) -> ConnectionId {
        let mut bytes = [0; CID_BYTES];
        Entropy.fill_bytes(&mut bytes);
        ConnectionId::new(&bytes)
    }

    fn cid_len(&self) -> usize {
        CID_BYTES
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}
