//! A host with one shard, its scripted consensus and its clock.

use std::sync::Arc;
use std::time::Duration;

use dunlin_actors::{ActorHost, HostConfig, ShardStats};
use dunlin_model::id::ShardId;
use dunlin_model::port::{AppliedSink, Clock};
use tokio::time::{Instant, advance};

use super::replication::ScriptedReplication;

pub(crate) const SHARD: ShardId = ShardId(3);

/// A clock that follows tokio's paused time.
struct PausedClock {
    start: Instant,
}

impl Clock for PausedClock {
    fn wall_ms(&self) -> u64 {
        1_700_000_000_000 + self.monotonic_ms()
    }

    fn monotonic_ms(&self) -> u64 {
        self.start.elapsed().as_millis() as u64
    }
}

pub(crate) struct Field {
    pub(crate) host: Arc<ActorHost>,
    pub(crate) replication: Arc<ScriptedReplication>,
}

impl Field {
    /// A host that follows.
    pub(crate) fn start(config: HostConfig) -> Self {
        let host = ActorHost::start(
            Arc::new(PausedClock {
                start: Instant::now(),
            }),
            config,
        )
        .unwrap();
        let replication = ScriptedReplication::new();
        replication.set_host(&host);
        host.add_shard(SHARD, replication.clone()).unwrap();
        Self { host, replication }
    }

    /// A host that leads in term 1.
    pub(crate) fn leading() -> Self {
        let field = Self::start(HostConfig::default());
        field.lead();
        field
    }

    /// The next term begins, and this node leads it. Returns the term.
    pub(crate) fn lead(&self) -> u64 {
        let leadership = self.replication.next_leadership();
        let term = leadership.term;
        self.host.on_leader(SHARD, leadership);
        term
    }

    pub(crate) fn stats(&self) -> ShardStats {
        self.host.stats().shards.remove(0)
    }
}

/// Lets everybody work, and time pass a millisecond at a time, until `condition` holds.
pub(crate) async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..100_000 {
        for _ in 0..10 {
            if condition() {
                return;
            }
            tokio::task::yield_now().await;
        }
        advance(Duration::from_millis(1)).await;
    }
    panic!("waited in vain for {what}");
}

/// Lets `ms` milliseconds pass, with everybody working meanwhile.
pub(crate) async fn pass(ms: u64) {
    for _ in 0..ms {
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        advance(Duration::from_millis(1)).await;
    }
}
