//! What a cluster node is told, and the inequalities that its times must keep.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use dunlin_model::directory::Role;
use rustls::crypto::CryptoProvider;
use rustls::time_provider::{DefaultTimeProvider, TimeProvider};

use crate::transport::Datagrams;
use crate::witness::Witness;

/// Times of consensus and failure detection, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    /// Between heartbeats of an idle leader.
    pub heartbeat_ms: u64,
    /// Shortest random wait before a campaign.
    pub election_min_ms: u64,
    /// Longest one; also how long a leader's lease lasts at its followers.
    pub election_max_ms: u64,
    /// Between pings of two nodes.
    pub ping_ms: u64,
    /// Silence after which a peer is suspected.
    pub suspect_ms: u64,
}

impl Timing {
    /// For nodes on one machine or in one data centre.
    pub const LAN: Timing = Timing {
        heartbeat_ms: 40,
        election_min_ms: 120,
        election_max_ms: 180,
        ping_ms: 25,
        suspect_ms: 130,
    };
    /// For nodes tens of milliseconds apart.
    pub const WAN: Timing = Timing {
        heartbeat_ms: 150,
        election_min_ms: 500,
        election_max_ms: 800,
        ping_ms: 100,
        suspect_ms: 600,
    };

    /// Checks the inequalities between the times; all that are broken are listed.
    pub fn validate(&self) -> Result<(), TimingError> {
        let mut broken = Vec::new();
        let mut must = |holds: bool, rule: &str| {
            if !holds {
                broken.push(rule.to_owned());
            }
        };
        must(self.heartbeat_ms > 0 && self.ping_ms > 0, "times are above zero");
        must(
            self.heartbeat_ms * 2 < self.election_min_ms,
            "heartbeat_ms * 2 < election_min_ms",
        );
        must(
            self.election_min_ms < self.election_max_ms,
            "election_min_ms < election_max_ms",
        );
        must(self.ping_ms * 3 < self.suspect_ms, "ping_ms * 3 < suspect_ms");
        if broken.is_empty() {
            Ok(())
        } else {
            Err(TimingError(broken))
        }
    }
}

/// The inequalities that do not hold.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("these must hold: {}", .0.join("; "))]
pub struct TimingError(pub Vec<String>);

/// PEM texts of a node's identity in the cluster.
#[derive(Clone)]
pub struct NodeIdentity {
    /// The cluster's certificate authority.
    pub ca_pem: String,
    /// This node's certificate; names it as `dunlin://node/<id>`.
    pub cert_pem: String,
    /// Its private key.
    pub key_pem: String,
    /// Derives the key of stateless resets, equal on all nodes: a restarted node can then end the
    /// connections of its former life at once.
    pub cluster_secret: Vec<u8>,
}

/// What a cluster node is told.
#[derive(Clone)]
pub struct ClusterConfig {
    /// Where to listen for peers.
    pub listen: SocketAddr,
    /// Where peers reach this node: `host:port`. What is bound, if not given.
    pub advertise: Option<String>,
    /// Where readers over Kafka reach this node: `host:port`. It takes none, if not given.
    pub kafka: Option<String>,
    /// Where peers may be found: `host:port`, names may have many addresses.
    pub seeds: Vec<String>,
    /// What this node does.
    pub roles: Vec<Role>,
    /// Shard nodes that form a new cluster together; 0 never forms, only joins.
    pub expect: usize,
    /// Shards of a new cluster.
    pub shard_count: u32,
    /// Replicas per group in a new cluster.
    pub replication_factor: u32,
    /// Times.
    pub timing: Timing,
    /// Silence of a node after which its replicas are made anew on others.
    pub replace_after: Duration,
    /// How often state and events are made durable and the journal is freed.
    pub checkpoint_every: Duration,
    /// Age of an event segment's first event after which it is sealed, whatever its size.
    pub segment_age: Duration,
    /// Segments that the journal may have; above half of them checkpoints come out of turn.
    pub journal_segments_max: usize,
    /// Who this node is.
    pub identity: NodeIdentity,
    /// What a simulation puts in the place of the machine.
    pub simulated: Option<Simulated>,
}

/// What a simulation puts in the place of the machine.
#[derive(Clone)]
pub struct Simulated {
    /// Carries datagrams to peers, in the place of a UDP socket at [`ClusterConfig::listen`].
    pub datagrams: Arc<dyn Datagrams>,
    /// The process id that the node tells.
    pub pid: u32,
    /// Sources that follow from the seed, and so protect nothing.
    pub tls: TlsSources,
    /// Who hears what this node's replicas say.
    pub witness: Option<Arc<dyn Witness>>,
}

/// What TLS between nodes draws from. Its bytes matter to a simulation: a late answer to a connection that is
/// forgotten may, as they fall, pass for the first packet of a new one.
#[derive(Debug, Clone)]
pub struct TlsSources {
    /// Suites, keys, randomness.
    pub crypto: Arc<CryptoProvider>,
    /// The time by which certificates and tickets are judged.
    pub time: Arc<dyn TimeProvider>,
}

impl Default for TlsSources {
    fn default() -> Self {
        Self {
            crypto: Arc::new(rustls::crypto::ring::default_provider()),
            time: Arc::new(DefaultTimeProvider),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_profiles_keep_the_inequalities_and_a_broken_one_is_named() {
        assert_eq!(Timing::LAN.validate(), Ok(()));
        assert_eq!(Timing::WAN.validate(), Ok(()));
        let error = Timing {
            heartbeat_ms: 80,
            suspect_ms: 50,
            ..Timing::LAN
        }
        .validate()
        .unwrap_err();
        assert_eq!(
            error.0,
            ["heartbeat_ms * 2 < election_min_ms", "ping_ms * 3 < suspect_ms"]
        );
    }
}
