//! W7: members of one consumer group that read all events over Kafka, each through one gateway after the other, and commit
//! what they have read.
//!
//! Now and then one leaves without a commit, or its connection ends before, amid or after one, and somebody new takes its
//! place; or one is silent until the group has given it up, and commits as if nothing were. A connection that ends otherwise is made anew at the next gateway, where the member goes on as who it is. Beside
//! them somebody who is no member asks how far the group is. Nobody judges here: see [`crate::invariants::groups`].

mod answers;
mod seat;

use std::time::Duration;

use dunlin_gateway::client::kafka::{Reader, Times, Wanted};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::Bench;
use super::step::{Step, Told};
use seat::Seat;

/// The group.
const GROUP: &str = "readers";
/// The shortest session there is, and time for the others to come back after a crash.
const TIMES: Times = Times {
    session: Duration::from_secs(6),
    rebalance: Duration::from_secs(3),
};
/// Events gather for a while, so that a poll is worth a line.
const WANTED: Wanted = Wanted {
    wait: Duration::from_millis(250),
    bytes_min: 32 * 1024,
    bytes_max: 1024 * 1024,
};
/// Between two signs of life.
const HEARTBEAT_PERIOD: Duration = Duration::from_secs(1);
/// The shortest time between two polls, and after whatever failed.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two looks at the group from outside.
const LOOK_PERIOD: Duration = Duration::from_millis(500);
/// Looks that may fail when all members are gone.
const LAST_LOOKS_MAX: u32 = 20;

/// `members` of them, each with `period` between two commits, until they are told to stop.
pub async fn run(bench: Bench, members: usize, period: Duration) {
    let mut seats = JoinSet::new();
    for slot in 0..members {
        seats.spawn(Seat::new(bench.clone(), slot, period).run());
    }
    let mut watch = Watch {
        bench,
        partitions: Vec::new(),
        turn: 0,
    };
    while watch.bench.wait_until(Instant::now() + LOOK_PERIOD).await {
        watch.look().await;
    }
    while seats.join_next().await.is_some() {}
    // What is committed in the end is the most that there is to lose.
    for _ in 0..LAST_LOOKS_MAX {
        if watch.look().await.is_some() {
            return;
        }
        sleep(PAUSE).await;
    }
}

/// Somebody who is no member and asks how far the group is.
struct Watch {
    bench: Bench,
    partitions: Vec<u32>,
    turn: usize,
}

impl Watch {
    /// Asks the next gateway; nothing if it does not answer.
    async fn look(&mut self) -> Option<()> {
        self.turn += 1;
        let door = &self.bench.kafka[self.turn % self.bench.kafka.len()];
        // One connection for one question: each gateway is to be asked.
        let mut reader = Reader::dial(door).await.ok()?;
        if self.partitions.is_empty() {
            self.partitions = reader.partitions().await.ok()?;
        }
        let invoked_us = self.bench.now_us();
        let told = reader.committed(GROUP, &self.partitions).await.ok()?;
        let completed_us = self.bench.now_us();
        for (partition, committed) in told {
            if let Ok(committed) = committed {
                self.bench.shelf.steps.note(Step::Told(Told {
                    partition,
                    committed,
                    invoked_us,
                    completed_us,
                    taken_up: None,
                }));
            }
        }
        Some(())
    }
}
